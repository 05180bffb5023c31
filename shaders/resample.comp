// kernel: resample
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "conv_index.glsl"
#include "resample.push.h"

// Separable resampling along up to three axes at once: a weighted sum over a grid of inputs that tables name. Coordinates,
// roundings and filters are the host's, so one kernel serves every mode of Resize and its gradient.
//
// An invocation makes one output, four neighbours of the innermost dimension (channels last), or four along w of several
// planes (channels first), for which it reads the tables once. Floor: the bytes of y, and those of x that are used.
layout(constant_id = 3) const uint TAPS_D = 0; // 0: the axis stays as it is
layout(constant_id = 4) const uint TAPS_H = 0;
layout(constant_id = 5) const uint TAPS_W = 0;
layout(constant_id = 6) const uint MODE = 0; // 0 one output, 1 four of the innermost dimension, 2 four along w
layout(constant_id = 7) const bool OUTSIDE = false; // some outputs lie outside of x
layout(constant_id = 8) const uint PLANES = 1;

const uint LOOPS_D = TAPS_D == 0u ? 1u : TAPS_D;
const uint LOOPS_H = TAPS_H == 0u ? 1u : TAPS_H;
const uint LOOPS_W = TAPS_W == 0u ? 1u : TAPS_W;

struct Tap {
    uint index;
    float weight;
};

Tap tap(uint table, uint at, uint k, uint taps)
{
    if (taps == 0u)
        return Tap(at, 1.0);
    uvec2 e = U32x2(push.table).v[table + at * taps + k];
    return Tap(e.x, uintBitsToFloat(e.y));
}

struct Place {
    uint outer;
    uint d;
    uint h;
    uint w;
    uint c;
};

Place find_place(uint i)
{
    Place p;
    uint q = MODE == 2u ? i : divide_by(i, push.magic_inner, push.shift_inner);
    p.c = MODE == 2u ? 0u : i - q * push.inner;
    uint row = divide_by(q, push.magic_w, push.shift_w);
    p.w = q - row * push.out_w;
    uint slice = divide_by(row, push.magic_h, push.shift_h);
    p.h = row - slice * push.out_h;
    p.outer = divide_by(slice, push.magic_d, push.shift_d);
    p.d = slice - p.outer * push.out_d;
    return p;
}

bool lies_outside(uint d, uint h, uint w)
{
    if (!OUTSIDE)
        return false;
    return tap(0u, d, 0u, TAPS_D).index == 0xffffffffu || tap(push.table_h, h, 0u, TAPS_H).index == 0xffffffffu ||
           tap(push.table_w, w, 0u, TAPS_W).index == 0xffffffffu;
}

// The elements (or fours of them) before those of input row (z, y) of a plane.
uint row_of(uint outer, uint z, uint y) { return ((outer * push.in_d + z) * push.in_h + y) * push.in_w; }

#define SUM(Value, Values)                                                                                              \
    Value sum = Value(0.0);                                                                                             \
    for (uint a = 0u; a < LOOPS_D; ++a) {                                                                               \
        Tap z = tap(0u, p.d, a, TAPS_D);                                                                                \
        for (uint b = 0u; b < LOOPS_H; ++b) {                                                                           \
            Tap y = tap(push.table_h, p.h, b, TAPS_H);                                                                  \
            uint row = row_of(p.outer, z.index, y.index);                                                               \
            Value part = Value(0.0);                                                                                    \
            for (uint c = 0u; c < LOOPS_W; ++c) {                                                                       \
                Tap x = tap(push.table_w, p.w, c, TAPS_W);                                                              \
                part += x.weight * Values(push.x).v[(row + x.index) * push.inner + p.c];                                \
            }                                                                                                           \
            sum += z.weight * y.weight * part;                                                                          \
        }                                                                                                               \
    }

void along_w(uint i)
{
    Place p = find_place(i);
    Tap x[4 * LOOPS_W];
    bool outside[4];
    [[unroll]] for (uint j = 0u; j < 4u; ++j) {
        [[unroll]] for (uint c = 0u; c < LOOPS_W; ++c)
            x[j * LOOPS_W + c] = tap(push.table_w, p.w * 4u + j, c, TAPS_W);
        outside[j] = lies_outside(p.d, p.h, p.w * 4u + j);
        if (OUTSIDE && outside[j])
            [[unroll]] for (uint c = 0u; c < LOOPS_W; ++c)
                x[j * LOOPS_W + c].index = 0u;
    }
    uint plane = push.out_d * push.out_h * push.out_w;
    uint to = (p.d * push.out_h + p.h) * push.out_w + p.w;
    for (uint n = 0u; n < PLANES; ++n) {
        uint outer = p.outer * PLANES + n;
        vec4 sum = vec4(0.0);
        [[unroll]] for (uint a = 0u; a < LOOPS_D; ++a) {
            Tap z = tap(0u, p.d, a, TAPS_D);
            [[unroll]] for (uint b = 0u; b < LOOPS_H; ++b) {
                Tap y = tap(push.table_h, p.h, b, TAPS_H);
                if (OUTSIDE && (z.index == 0xffffffffu || y.index == 0xffffffffu))
                    continue;
                uint row = row_of(outer, z.index, y.index);
                vec4 part = vec4(0.0);
                [[unroll]] for (uint j = 0u; j < 4u; ++j)
                    [[unroll]] for (uint c = 0u; c < LOOPS_W; ++c)
                        part[j] += x[j * LOOPS_W + c].weight * F32(push.x).v[row + x[j * LOOPS_W + c].index];
                sum += z.weight * y.weight * part;
            }
        }
        if (OUTSIDE)
            [[unroll]] for (uint j = 0u; j < 4u; ++j)
                sum[j] = outside[j] ? push.outside : sum[j];
        F32x4(push.y).v[outer * plane + to] = sum;
    }
}

void main()
{
    uint i = linear_invocation();
    if (i >= push.count)
        return;
    if (MODE == 2u) {
        along_w(i);
        return;
    }
    Place p = find_place(i);
    bool outside = lies_outside(p.d, p.h, p.w);
    if (MODE == 1u) {
        if (outside) {
            F32x4(push.y).v[i] = vec4(push.outside);
            return;
        }
        SUM(vec4, F32x4)
        F32x4(push.y).v[i] = sum;
    } else {
        if (outside) {
            F32(push.y).v[i] = push.outside;
            return;
        }
        SUM(float, F32)
        F32(push.y).v[i] = sum;
    }
}
