// kernel: dropout
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "dropout.push.h"
#include "move_unit.glsl"
#include "philox.glsl"
#include "step.glsl"

// Dropout, and its gradient, which is the same with dy for x: nothing is saved, Philox computes it again. Four words of
// one counter belong to four neighbours in a sample, so bits do not depend on which invocation asks.

layout(constant_id = 3) const uint VECTOR = 0; // samples have a multiple of four elements, all is aligned to 16 bytes
layout(constant_id = 4) const uint MASK = 0;   // 0: none, 1: bools, 2: floats

uvec4 words(uint sample_index, uint quad)
{
    Step s = Step(push.step);
    return philox(s.seed, uvec4(quad, s.sample_number + sample_index, push.stream, s.step));
}

// 1 / d for 2^-24 <= d <= 1, correctly rounded, which a device's division need not be: long division of 2^47 by the
// mantissa, 8 bits at a time.
float reciprocal(float d)
{
    uint bits = floatBitsToUint(d), m = (bits & 0x7fffffu) | 0x800000u;
    if (m == 0x800000u)
        return uintBitsToFloat((254u << 23) - bits);
    uint quotient = 0u, rest = 0x800000u; // 2^23; three times 2^8 make 2^47
    for (uint i = 0; i < 3u; i++) {
        rest <<= 8;
        quotient = quotient << 8 | rest / m;
        rest %= m;
    }
    quotient += 2u * rest > m ? 1u : 0u; // never equal: m is no power of two
    return uintBitsToFloat((253u << 23) - (bits & 0x7f800000u) + (quotient & 0x7fffffu));
}

void main()
{
    uint first = linear_invocation() * 4u;
    if (first >= push.count)
        return;
    float ratio = push.ratio, scale = push.scale;
    if (push.ratio_input != uvec2(0u)) {
        ratio = F32(push.ratio_input).v[0];
        scale = ratio < 1.0 ? reciprocal(1.0 - ratio) : 0.0;
    }
    if (push.training != uvec2(0u) && U32(push.training).v[0] == 0u) {
        ratio = 0.0;
        scale = 1.0;
    }
    bool none = ratio >= 1.0;
    uint least = ratio > 0.0 && !none ? uint(ratio * 4294967296.0) : 0u; // exact: a power of two
    uint on = MASK == 2u ? floatBitsToUint(1.0) : 1u;
    uint n = divide(first, push.multiplier, push.shift);
    uint i = first - n * push.size;
    if (VECTOR != 0u) {
        bvec4 keep = greaterThanEqual(words(n, i >> 2), uvec4(least));
        keep = bvec4(uvec4(keep) * (none ? 0u : 1u));
        vec4 x = F32x4(push.x).v[first >> 2];
        F32x4(push.y).v[first >> 2] = mix(vec4(0.0), x * scale, keep);
        if (MASK != 0u)
            U32x4(push.mask).v[first >> 2] = uvec4(keep) * on;
        return;
    }
    uvec4 w = words(n, i >> 2);
    for (uint k = 0; k < 4u && first + k < push.count; k++) {
        if (k > 0u) {
            i++;
            if (i == push.size) {
                i = 0u;
                n++;
            }
            if ((i & 3u) == 0u)
                w = words(n, i >> 2);
        }
        bool keep = w[i & 3u] >= least && !none;
        F32(push.y).v[first + k] = keep ? F32(push.x).v[first + k] * scale : 0.0;
        if (MASK != 0u)
            U32(push.mask).v[first + k] = keep ? on : 0u;
    }
}
