// kernel: gather_grad_f32 -DValue=float -DValues=F32 -DSHARED
// kernel: gather_grad_f32x4 -DValue=vec4 -DValues=F32x4 -DSHARED
// kernel: gather_grad_plain_f32 -DValue=float -DValues=F32
// kernel: gather_grad_plain_f32x4 -DValue=vec4 -DValues=F32x4
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#define UNIT 4
#include "move_unit.glsl"
#include "gather_grad.push.h"
#include "gather_index.glsl"

// The gradient of Gather without atomics, and ScatterND with a reduction: every row adds up, in the order of the indices,
// the gradients of those that named it. An invocation owns its columns of a block of rows, so that the rows it did not
// keep in registers it reads back itself.
// SHARED: the workgroup first marks the indices that fall into its block in a bit mask, 4,096 at a time, then walks
// the few marked ones, eight at a time so that their loads overlap; the sums' order is the indices' order whatever the
// invocations do.

layout(constant_id = 4) const uint REDUCTION = 1u;    // 1 add, 2 mul, 3 max, 4 min
layout(constant_id = 5) const bool FROM_ZERO = true;  // x is all zeros and not read

uint base; // of this invocation's column of row 0 of dx (and x)
uint from; // of this invocation's column of dy's row 0

Value combine(Value a, Value b)
{
    if (REDUCTION == 2u)
        return a * b;
    if (REDUCTION == 3u)
        return max(a, b);
    if (REDUCTION == 4u)
        return min(a, b);
    return a + b;
}

void start_rows(uint first, uint end)
{
    for (uint a = first; a < end; a++)
        Values(push.dx).v[base + a * push.columns] = FROM_ZERO ? Value(0.0) : Values(push.x).v[base + a * push.columns];
}

#ifdef SHARED
const uint WORDS = 128u; // of the mask: 4,096 indices
const uint AHEAD = 8u;
shared uint mask[WORDS];
shared uint used[WORDS / 32u]; // which words of the mask are not 0

uint row; // whose sum is in y
Value y;

void add(uint a, Value x)
{
    if (a != row) {
        Values(push.dx).v[base + row * push.columns] = y;
        y = Values(push.dx).v[base + a * push.columns];
        row = a;
    }
    y = combine(y, x);
}

// Adds the rows of dy that entries m[0 .. count - 1] stand for.
void add_all(uint m[AHEAD], uint count)
{
    if (count == AHEAD) {
        uint a[AHEAD];
        Value x[AHEAD];
        [[unroll]] for (uint k = 0u; k < AHEAD; k++) {
            a[k] = read_index(push.indices, m[k], push.rows);
            x[k] = Values(push.dy).v[from + m[k] * push.columns];
        }
        [[unroll]] for (uint k = 0u; k < AHEAD; k++)
            add(a[k], x[k]);
    } else {
        [[unroll]] for (uint k = 0u; k < AHEAD; k++)
            if (k < count)
                add(read_index(push.indices, m[k], push.rows), Values(push.dy).v[from + m[k] * push.columns]);
    }
}

void mark(uint m, uint a, uint first, uint end)
{
    if (a >= first && a < end) {
        atomicOr(mask[m >> 5], 1u << (m & 31u));
        atomicOr(used[m >> 10], 1u << ((m >> 5) & 31u));
    }
}

void mark_all(uint begin, uint here, uint first, uint end)
{
    uint step = gl_WorkGroupSize.x;
    uint m = gl_LocalInvocationID.x;
    for (; m + 3u * step < here; m += 4u * step) {
        uint a0 = read_index(push.indices, begin + m, push.rows);
        uint a1 = read_index(push.indices, begin + m + step, push.rows);
        uint a2 = read_index(push.indices, begin + m + 2u * step, push.rows);
        uint a3 = read_index(push.indices, begin + m + 3u * step, push.rows);
        mark(m, a0, first, end);
        mark(m + step, a1, first, end);
        mark(m + 2u * step, a2, first, end);
        mark(m + 3u * step, a3, first, end);
    }
    for (; m < here; m += step)
        mark(m, read_index(push.indices, begin + m, push.rows), first, end);
}

void walk(uint begin)
{
    uint m[AHEAD];
    uint count = 0u;
    for (uint u = 0u; u < WORDS / 32u; u++) {
        for (uint some = used[u]; some != 0u; some &= some - 1u) {
            uint w = u * 32u + uint(findLSB(some));
            for (uint bits = mask[w]; bits != 0u; bits &= bits - 1u) {
                uint entry = begin + w * 32u + uint(findLSB(bits));
                [[unroll]] for (uint k = 0u; k < AHEAD; k++)
                    m[k] = k == count ? entry : m[k];
                if (++count == AHEAD) {
                    add_all(m, count);
                    count = 0u;
                }
            }
        }
    }
    if (count > 0u)
        add_all(m, count);
}

void main()
{
    uint g = linear_group();
    if (g >= push.count)
        return;
    uint q = divide(g, push.chunks_multiplier, push.chunks_shift);
    uint column = (g - q * push.chunks) * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
    uint o = divide(q, push.blocks_multiplier, push.blocks_shift);
    uint first = (q - o * push.blocks) * push.block;
    uint end = min(first + push.block, push.rows);
    bool mine = column < push.columns;
    base = o * push.rows * push.columns + column;
    from = o * push.entries * push.columns + column;
    row = first;
    y = Value(0.0);
    if (mine) {
        start_rows(first, end);
        y = Values(push.dx).v[base + row * push.columns];
    }
    for (uint begin = 0u; begin < push.entries; begin += WORDS * 32u) {
        for (uint w = gl_LocalInvocationID.x; w < WORDS; w += gl_WorkGroupSize.x)
            mask[w] = 0u;
        if (gl_LocalInvocationID.x < WORDS / 32u)
            used[gl_LocalInvocationID.x] = 0u;
        barrier();
        mark_all(begin, min(WORDS * 32u, push.entries - begin), first, end);
        barrier();
        if (mine)
            walk(begin);
        barrier();
    }
    if (mine)
        Values(push.dx).v[base + row * push.columns] = y;
}
#else
void main()
{
    uint n = linear_invocation();
    if (n >= push.count)
        return;
    uint q = divide(n, push.chunks_multiplier, push.chunks_shift);
    uint column = n - q * push.chunks;
    uint o = divide(q, push.blocks_multiplier, push.blocks_shift);
    uint first = (q - o * push.blocks) * push.block;
    uint end = min(first + push.block, push.rows);
    base = o * push.rows * push.columns + column;
    from = o * push.entries * push.columns + column;
    start_rows(first, end);
    for (uint m = 0u; m < push.entries; m++) {
        uint a = read_index(push.indices, m, push.rows);
        if (a >= first && a < end) {
            uint at = base + a * push.columns;
            Values(push.dx).v[at] = combine(Values(push.dx).v[at], Values(push.dy).v[from + m * push.columns]);
        }
    }
}
#endif
