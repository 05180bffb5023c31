// kernel: chain_1 -DSTEPS=1
// kernel: chain_2 -DSTEPS=2
// kernel: chain_5 -DSTEPS=5
// kernel: chain_12 -DSTEPS=12
// kernel: chain_long_1 -DSTEPS=1 -DWIDE
// kernel: chain_long_2 -DSTEPS=2 -DWIDE
// kernel: chain_long_5 -DSTEPS=5 -DWIDE
// kernel: chain_long_12 -DSTEPS=12 -DWIDE
// kernel: chain_half_1 -DSTEPS=1 -DWIDE -DHALF needs=storage16
// kernel: chain_half_2 -DSTEPS=2 -DWIDE -DHALF needs=storage16
// kernel: chain_half_5 -DSTEPS=5 -DWIDE -DHALF needs=storage16
// kernel: chain_half_12 -DSTEPS=12 -DWIDE -DHALF needs=storage16
// kernel: chain_rare_1 -DSTEPS=1 -DWIDE -DRARE
// kernel: chain_rare_5 -DSTEPS=5 -DWIDE -DRARE
// kernel: chain_rare_12 -DSTEPS=12 -DWIDE -DRARE
// kernel: chain_half_rare_12 -DSTEPS=12 -DWIDE -DHALF -DRARE needs=storage16
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#ifdef HALF
#extension GL_EXT_shader_16bit_storage : require
#extension GL_EXT_shader_explicit_arithmetic_types_int16 : require
layout(buffer_reference, std430, buffer_reference_align = 2) buffer Half16 { uint16_t v[]; };
#endif
#include "chain_apply.glsl"
#include "chain.push.h"
#include "move_unit.glsl"

// A chain of elementwise functions in one pass: what is computed is in specialization constants (chain_codes.push.h),
// how large things are is in the push block. An invocation computes UNITS times four neighbouring elements. Variants
// differ in the most steps they can hold, because every step costs its share of pipeline creation, used or not.

layout(constant_id = 3) const uint UNITS = 1;
layout(constant_id = 4) const uint BLOCK = 0; // the words are in the parameter block
layout(constant_id = 5) const uint STRIDED = 0; // 1: coordinates are found for each four elements, 2: for each element
layout(constant_id = 6) const uint IMMEDIATES = 0;
layout(constant_id = 7) const uint OUTPUT_0 = 0;
layout(constant_id = 8) const uint OUTPUT_1 = CHAIN_NONE;
layout(constant_id = 9) const uint INPUT_COUNT = 1;
layout(constant_id = 10) const uint INPUT_0 = 0;
layout(constant_id = 11) const uint INPUT_1 = 0;
layout(constant_id = 12) const uint INPUT_2 = 0;
layout(constant_id = 13) const uint INPUT_3 = 0;
layout(constant_id = 14) const uint INPUT_4 = 0;
layout(constant_id = 15) const uint INPUT_5 = 0;
layout(constant_id = 16) const uint STEP_COUNT = 0;
layout(constant_id = 17) const uint STEP_0 = 0;
layout(constant_id = 18) const uint STEP_1 = 0;
layout(constant_id = 19) const uint STEP_2 = 0;
layout(constant_id = 20) const uint STEP_3 = 0;
layout(constant_id = 21) const uint STEP_4 = 0;
layout(constant_id = 22) const uint STEP_5 = 0;
layout(constant_id = 23) const uint STEP_6 = 0;
layout(constant_id = 24) const uint STEP_7 = 0;
layout(constant_id = 25) const uint STEP_8 = 0;
layout(constant_id = 26) const uint STEP_9 = 0;
layout(constant_id = 27) const uint STEP_10 = 0;
layout(constant_id = 28) const uint STEP_11 = 0;

#ifdef WIDE
#define Word uvec2
#define WORD(low) uvec2(low, int(low) < 0 ? 0xffffffffu : 0u) // an immediate, which fits 32 bits
#else
#define Word uint
#define WORD(low) (low)
#endif

struct Four { // elements of one input or result
    Word v[4];
};

// ---- parameters

uint word(uint k)
{
    if (BLOCK != 0u)
        return U32(push.block).v[k];
    switch (k) {
    case 0: return push.word0;
    case 1: return push.word1;
    case 2: return push.word2;
    case 3: return push.word3;
    case 4: return push.word4;
    case 5: return push.word5;
    case 6: return push.word6;
    case 7: return push.word7;
    case 8: return push.word8;
    case 9: return push.word9;
    case 10: return push.word10;
    default: return push.word11;
    }
}

// ---- where inputs that broadcast are read

struct Places { // of inputs 0 to 2 and 3 to 5
    uvec3 at[2];
    uvec3 stride[2];
};

// One coordinate's part of every position.
void advance(inout Places p, uint present, uint coordinate, uint extent)
{
    [[unroll]] for (uint h = 0; h < 2; h++) {
        uvec3 varies = uvec3(present) >> (uvec3(0, 1, 2) + 3 * h) & 1u;
        p.at[h] += coordinate * p.stride[h] * varies;
        p.stride[h] *= (extent - 1u) * varies + 1u;
    }
}

// The same for dimension d of element n; what is left of n belongs to the dimensions outside it.
void split(inout Places p, inout uint n, uint d)
{
    uint k = IMMEDIATES + 3u * d;
    uint info = word(k), extent = word(k + 1u);
    uint q = divide(n, word(k + 2u), info & 31u);
    advance(p, info >> 8, n - q * extent, extent);
    n = q;
}

Places locate(uint n)
{
    Places p = Places(uvec3[2](uvec3(0u), uvec3(0u)), uvec3[2](uvec3(1u), uvec3(1u)));
    uint outermost = push.rank - 1u;
    if (BLOCK != 0u) {
        for (uint d = 0; d < outermost; d++)
            split(p, n, d);
        advance(p, word(IMMEDIATES + 3u * outermost) >> 8, n, 1u);
        return p;
    }
    uint info = word(IMMEDIATES); // word() wants constants
    if (outermost > 0u) {
        split(p, n, 0u);
        info = word(IMMEDIATES + 3u);
    }
    if (outermost > 1u) {
        split(p, n, 1u);
        info = word(IMMEDIATES + 6u);
    }
    advance(p, info >> 8, n, 1u);
    return p;
}

// ---- memory

#ifdef HALF
// 16-bit floats lie in registers as the float32 that they are.
uint widen_half(uint input_word, uint bits)
{
    return (input_word & CHAIN_HALF) != 0u ? floatBitsToUint(unpackHalf2x16(bits).x) : bits << 16;
}

uint narrow_half(uint output_word, uint x)
{
    return (output_word & CHAIN_HALF) != 0u ? half_bits(x) : bfloat_bits(x);
}

Four read_half(uint input_word, uvec2 address, uvec4 p, bool whole)
{
    uint access = input_word & 3u;
    uvec4 h;
    if (access == CHAIN_ACCESS_ONE) {
        h = uvec4(uint(Half16(address).v[p.x]));
    } else if (access == CHAIN_ACCESS_VECTOR && whole) {
        uvec2 w = U32x2(address).v[p.x >> 2];
        h = uvec4(w.x & 0xffffu, w.x >> 16, w.y & 0xffffu, w.y >> 16);
    } else {
        h = uvec4(uint(Half16(address).v[p.x]), uint(Half16(address).v[p.y]), uint(Half16(address).v[p.z]),
                  uint(Half16(address).v[p.w]));
    }
    Four x;
    [[unroll]] for (uint k = 0; k < 4; k++)
        x.v[k] = uvec2(widen_half(input_word, h[k]), 0u);
    return x;
}

void write_half(uint output_word, uvec2 address, uint first, bool whole, Four y)
{
    uvec4 h;
    [[unroll]] for (uint k = 0; k < 4; k++)
        h[k] = narrow_half(output_word, y.v[k].x);
    if ((output_word & CHAIN_ALIGNED) != 0u && whole) {
        U32x2(address).v[first >> 2] = uvec2(h.x | h.y << 16, h.z | h.w << 16);
    } else {
        [[unroll]] for (uint k = 0; k < 4; k++)
            if (first + k < push.count)
                Half16(address).v[first + k] = uint16_t(h[k]);
    }
}
#endif

// Elements at four positions, or at one for all four. Positions of elements that do not exist are 0.
Four read(uint input_word, uvec2 address, uvec4 p, bool whole)
{
#ifdef HALF
    if ((input_word & (CHAIN_HALF | CHAIN_BFLOAT)) != 0u)
        return read_half(input_word, address, p, whole);
#endif
    Four x;
    bool wide = (input_word & CHAIN_WIDE) != 0u;
    uint access = input_word & 3u;
#ifdef WIDE
    if (wide) {
        if (access == CHAIN_ACCESS_ONE) {
            uvec2 w = U32x2(address).v[p.x];
            x.v = Word[4](w, w, w, w);
        } else if (access == CHAIN_ACCESS_VECTOR && whole) {
            uvec4 w0 = U32x4(address).v[p.x >> 1], w1 = U32x4(address).v[(p.x >> 1) + 1u];
            x.v = Word[4](w0.xy, w0.zw, w1.xy, w1.zw);
        } else {
            x.v = Word[4](U32x2(address).v[p.x], U32x2(address).v[p.y], U32x2(address).v[p.z], U32x2(address).v[p.w]);
        }
        return x;
    }
#endif
    uvec4 w;
    if (access == CHAIN_ACCESS_ONE)
        w = uvec4(U32(address).v[p.x]);
    else if (access == CHAIN_ACCESS_VECTOR && whole)
        w = U32x4(address).v[p.x >> 2];
    else
        w = uvec4(U32(address).v[p.x], U32(address).v[p.y], U32(address).v[p.z], U32(address).v[p.w]);
#ifdef WIDE
    x.v = Word[4](uvec2(w.x, 0u), uvec2(w.y, 0u), uvec2(w.z, 0u), uvec2(w.w, 0u));
#else
    x.v = Word[4](w.x, w.y, w.z, w.w);
#endif
    return x;
}

void write(uint output_word, uvec2 address, uint first, bool whole, Four y)
{
#ifdef HALF
    if ((output_word & (CHAIN_HALF | CHAIN_BFLOAT)) != 0u) {
        write_half(output_word, address, first, whole, y);
        return;
    }
#endif
#ifdef WIDE
    if ((output_word & CHAIN_WIDE) != 0u) {
        if ((output_word & CHAIN_ALIGNED) != 0u && whole) {
            U32x4(address).v[first >> 1] = uvec4(y.v[0], y.v[1]);
            U32x4(address).v[(first >> 1) + 1u] = uvec4(y.v[2], y.v[3]);
        } else {
            [[unroll]] for (uint k = 0; k < 4; k++)
                if (first + k < push.count)
                    U32x2(address).v[first + k] = y.v[k];
        }
        return;
    }
    uvec4 w = uvec4(y.v[0].x, y.v[1].x, y.v[2].x, y.v[3].x);
#else
    uvec4 w = uvec4(y.v[0], y.v[1], y.v[2], y.v[3]);
#endif
    if ((output_word & CHAIN_ALIGNED) != 0u && whole) {
        U32x4(address).v[first >> 2] = w;
    } else {
        [[unroll]] for (uint k = 0; k < 4; k++)
            if (first + k < push.count)
                U32(address).v[first + k] = w[k];
    }
}

// ---- one unit

struct Inputs {
    Four of[CHAIN_INPUTS];
};

Inputs read_inputs(uint first, bool whole)
{
    Inputs x;
    uvec4 index = uvec4(first, first + 1u, first + 2u, first + 3u);
    uvec4 inside = whole ? uvec4(1u) : uvec4(lessThan(index, uvec4(push.count)));
    uvec4 found[CHAIN_INPUTS];
    if (STRIDED != 0u)
        [[unroll]] for (uint k = 0; k < 4; k++) {
            Places p = locate(STRIDED == 2u ? first + k : first);
            [[unroll]] for (uint i = 0; i < CHAIN_INPUTS; i++)
                found[i][k] = p.at[i / 3][i % 3] + (STRIDED == 2u ? 0u : k);
        }
#define READ(i)                                                                                                        \
    if (INPUT_COUNT > i) {                                                                                             \
        uint where = INPUT_##i >> 2 & 3u;                                                                              \
        uvec4 p = where == CHAIN_AT_INDEX ? index : (where == CHAIN_AT_ZERO ? uvec4(0u) : found[i]);                   \
        x.of[i] = read(INPUT_##i, push.in##i, p * inside, whole);                                                      \
    }
    READ(0)
    READ(1)
    READ(2)
    READ(3)
    READ(4)
    READ(5)
    return x;
}

// One element through the program.
void run(Inputs x, uint k, inout Four y0, inout Four y1)
{
    Word r[CHAIN_FIRST_STEP + STEPS];
#define TAKE(i)                                                                                                        \
    if (INPUT_COUNT > i)                                                                                               \
        r[i] = x.of[i].v[k];
    TAKE(0)
    TAKE(1)
    TAKE(2)
    TAKE(3)
    TAKE(4)
    TAKE(5)
#define IMMEDIATE(i)                                                                                                   \
    if (IMMEDIATES > i)                                                                                                \
        r[CHAIN_FIRST_IMMEDIATE + i] = WORD(word(i));
    IMMEDIATE(0)
    IMMEDIATE(1)
    IMMEDIATE(2)
    IMMEDIATE(3)
    IMMEDIATE(4)
    IMMEDIATE(5)
    IMMEDIATE(6)
    IMMEDIATE(7)
    IMMEDIATE(8)
    IMMEDIATE(9)
    IMMEDIATE(10)
    IMMEDIATE(11)
#define STEP(i)                                                                                                        \
    if (STEP_COUNT > i)                                                                                                \
        r[CHAIN_FIRST_STEP + i] = apply(STEP_##i & 127u, STEP_##i >> 7 & 7u, r[STEP_##i >> 10 & 31u],                  \
                                        r[STEP_##i >> 15 & 31u], r[STEP_##i >> 20 & 31u]);
    STEP(0)
#if STEPS > 1
    STEP(1)
#endif
#if STEPS > 2
    STEP(2)
    STEP(3)
    STEP(4)
#endif
#if STEPS > 5
    STEP(5)
    STEP(6)
    STEP(7)
    STEP(8)
    STEP(9)
    STEP(10)
    STEP(11)
#endif
    y0.v[k] = r[OUTPUT_0 & 31u];
    if ((OUTPUT_1 & 31u) != CHAIN_NONE)
        y1.v[k] = r[OUTPUT_1 & 31u];
}

void main()
{
    uint width = gl_WorkGroupSize.x;
    uint first = linear_group() * (width * UNITS) + gl_LocalInvocationIndex;
    // Uniform, so that all but the last workgroup have no bounds checks.
    bool whole = (linear_group() + 1u) * (width * UNITS * 4u) <= push.count;
    if (first * 4u >= push.count)
        return;
    Inputs x[UNITS];
    [[unroll]] for (uint u = 0; u < UNITS; u++) // all of them before the first store, so that they overlap
        x[u] = read_inputs((first + u * width) * 4u, whole);
    [[unroll]] for (uint u = 0; u < UNITS; u++) {
        Four y0, y1;
        [[unroll]] for (uint k = 0; k < 4; k++)
            run(x[u], k, y0, y1);
        write(OUTPUT_0, push.out0, (first + u * width) * 4u, whole, y0);
        if ((OUTPUT_1 & 31u) != CHAIN_NONE)
            write(OUTPUT_1, push.out1, (first + u * width) * 4u, whole, y1);
    }
}
