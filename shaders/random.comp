// kernel: random
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "random.push.h"
#include "math.glsl"
#include "move_unit.glsl"
#include "philox.glsl"
#include "step.glsl"

// Random numbers: an invocation makes those four neighbours of a sample that one Philox counter gives (ops/random.c).

layout(constant_id = 3) const uint NORMAL = 0;
layout(constant_id = 4) const uint VECTOR = 0; // samples have a multiple of four elements, y is aligned to 16 bytes

float unit(uint w) { return float(w >> 8) * 5.9604644775390625e-08; } // 2^-24: in [0, 1), exact

// Box and Muller: two words, two numbers.
vec2 normal(uint w0, uint w1)
{
    float radius = sqrt(-2.0 * log_precise((float(w0 >> 8) + 1.0) * 5.9604644775390625e-08));
    float angle = 6.28318531 * unit(w1);
    return radius * vec2(sin_turned(angle, 1u), sin_turned(angle, 0u));
}

void main()
{
    uint t = linear_invocation();
    if (t >= push.quads)
        return;
    uint sample_index = divide(t, push.multiplier, push.shift);
    uint quad = t - sample_index * push.per_sample;
    Step s = Step(push.step);
    uvec4 w = philox(s.seed, uvec4(quad, s.sample_number + sample_index, push.stream, s.step));
    vec4 x = NORMAL != 0u ? vec4(normal(w.x, w.y), normal(w.z, w.w)) : vec4(unit(w.x), unit(w.y), unit(w.z), unit(w.w));
    precise vec4 y = x * push.b + push.a;
    uint at = sample_index * push.size + quad * 4u, count = min(push.size - quad * 4u, 4u);
    if (VECTOR != 0u) {
        F32x4(push.y).v[at >> 2] = y;
        return;
    }
    for (uint k = 0; k < count; k++)
        F32(push.y).v[at + k] = y[k];
}
