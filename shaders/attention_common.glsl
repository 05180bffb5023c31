// What the attention kernels share: y = softmax(hide(cap(scale q k' + mask))) v for every head of every batch.
// A position is hidden by a mask entry of minus infinity or false, beyond the mask's columns, by causality, and beyond
// its batch's length; hidden positions stay hidden under the soft cap.
#ifndef ATTENTION_COMMON_GLSL
#define ATTENTION_COMMON_GLSL

#include "common.glsl"
#include "activation.glsl"
#include "attention.push.h"
#include "octet.glsl"

layout(constant_id = 3) const uint MASK = 0; // MASK_*
layout(constant_id = 4) const bool CAUSAL = false;
layout(constant_id = 5) const bool LENGTHS = false;
layout(constant_id = 6) const bool SOFTCAP = false;
layout(constant_id = 7) const uint WIDE = 0;      // bits WIDE_*: rows of the operand are whole, aligned vectors; those
                                                  // four bits on: of float16
layout(constant_id = 8) const uint ORDER = 0;      // of y: ORDER_*
layout(constant_id = 9) const bool ZERO = false;   // a query that sees no key gives 0 instead of NaN

const uint MASK_NONE = 0u;
const uint MASK_ADDED = 1u;
const uint MASK_BOOL = 2u;
const uint ORDER_HEADS = 0u; // [batch][head][row][v_size]
const uint ORDER_ROWS = 1u;  // [batch][row][head][v_size]
const uint ORDER_BATCH = 2u; // [row][batch][head][v_size]
const uint WIDE_Q = 1u;
const uint WIDE_K = 2u;
const uint WIDE_V = 4u;
const uint WIDE_Y = 8u;
const uint HALVES = 4u; // shift

// push.extra
const uint EXTRA_BATCHES = 0u; // batch b uses the mask's b mod this
const uint EXTRA_BATCH = 1u;   // element strides of the mask, 0 where broadcast
const uint EXTRA_HEAD = 2u;
const uint EXTRA_ROW = 3u;
const uint EXTRA_COLUMN = 4u;
const uint EXTRA_COLUMNS = 5u; // keys beyond are hidden
const uint EXTRA_SOFTCAP = 6u; // a float

#define MINUS_INFINITY uintBitsToFloat(0xff800000u)

struct Head {
    uint batch, head;
    uint q, k, v; // element offsets
    uint mask, mask_row, mask_column, mask_columns;
    float softcap;
    uint past;  // causal: keys that query 0 sees before its own
    uint limit; // keys that any query may see
};

Head find_head(uint index)
{
    Head h;
    h.batch = index / push.heads;
    h.head = index % push.heads;
    uint kv = h.head / push.group;
    h.q = h.batch * push.q_batch + h.head * push.q_head;
    h.k = h.batch * push.k_batch + kv * push.k_head;
    h.v = h.batch * push.v_batch + kv * push.v_head;
    U32 extra = U32(push.extra);
    if (MASK != MASK_NONE) {
        h.mask = h.batch % extra.v[EXTRA_BATCHES] * extra.v[EXTRA_BATCH] + h.head * extra.v[EXTRA_HEAD];
        h.mask_row = extra.v[EXTRA_ROW];
        h.mask_column = extra.v[EXTRA_COLUMN];
        h.mask_columns = extra.v[EXTRA_COLUMNS];
    }
    if (SOFTCAP)
        h.softcap = uintBitsToFloat(extra.v[EXTRA_SOFTCAP]);
    h.past = push.past;
    h.limit = push.keys;
    if (LENGTHS) {
        uvec2 length = U32x2(push.lengths).v[h.batch];
        h.limit = int(length.y) < 0 ? 0u : length.y != 0u ? push.keys : min(length.x, push.keys);
        h.past += h.limit; // with lengths, the host passes past - rows, modulo 2^32
    }
    return h;
}

// Keys that a query may see; rows beyond the last are as it.
uint row_limit(Head h, uint row)
{
    if (!CAUSAL)
        return h.limit;
    int visible = int(h.past + min(row, push.rows - 1u)) + 1;
    return min(h.limit, uint(max(visible, 0)));
}

// A scaled product as the softmax takes it, minus infinity where hidden.
float score(Head h, float s, uint row, uint key, uint limit)
{
    if (key >= limit)
        return MINUS_INFINITY;
    if (MASK != MASK_NONE) {
        if (key >= h.mask_columns)
            return MINUS_INFINITY;
        uint at = h.mask + min(row, push.rows - 1u) * h.mask_row + key * h.mask_column;
        if (MASK == MASK_BOOL) {
            if (U32(push.mask).v[at] == 0u)
                return MINUS_INFINITY;
        } else {
            s += F32(push.mask).v[at];
            if (s == MINUS_INFINITY)
                return s;
        }
    }
    return SOFTCAP ? h.softcap * tanh_precise(s / h.softcap) : s;
}

// Elements at .. at + 3 of a row of `extent` elements that begins at base, zeros beyond its end. operand: WIDE_*.
vec4 load4(uvec2 address, uint operand, uint base, uint at, uint extent)
{
    if ((WIDE & operand) != 0u)
        return at < extent ? load_half_octet(address, (base + at) >> 2, (WIDE & operand << HALVES) != 0u) : vec4(0.0);
    vec4 x = vec4(0.0);
    [[unroll]] for (uint j = 0u; j < 4u; ++j)
        if (at + j < extent)
            x[j] = F32(address).v[base + at + j];
    return x;
}

vec4 quotient(vec4 sum, float total)
{
    return ZERO && !(total > 0.0) ? vec4(0.0) : sum / total;
}

void store4(Head h, uint row, uint column, vec4 y)
{
    uint first = ORDER == ORDER_HEADS ? (h.batch * push.heads + h.head) * push.rows + row
                 : ORDER == ORDER_ROWS ? (h.batch * push.rows + row) * push.heads + h.head
                                       : (row * push.batches + h.batch) * push.heads + h.head;
    uint at = first * push.v_size + column;
    if (row >= push.rows)
        return;
    if ((WIDE & WIDE_Y) != 0u) {
        if (column < push.v_size) {
            if ((WIDE & WIDE_Y << HALVES) != 0u)
                U32x2(push.y).v[at >> 2] = pack_half_octet(y);
            else
                F32x4(push.y).v[at >> 2] = y;
        }
        return;
    }
    [[unroll]] for (uint j = 0u; j < 4u; ++j)
        if (column + j < push.v_size)
            F32(push.y).v[at + j] = y[j];
}

#endif
