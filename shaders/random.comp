// kernel: random
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "random.push.h"
#include "move_unit.glsl"
#include "philox.glsl"
#include "random_math.push.h"
#include "step.glsl"

// Random numbers: an invocation makes those four neighbours of a sample that one Philox counter gives (ops/random.c).

layout(constant_id = 3) const uint DISTRIBUTION = RANDOM_UNIFORM;
layout(constant_id = 4) const uint VECTOR = 0; // samples have a multiple of four elements, y is aligned to 16 bytes

vec2 normals(uint w0, uint w1) { return vec2(random_normal(w0, w1, true), random_normal(w0, w1, false)); }

vec4 numbers(uvec4 w)
{
    if (DISTRIBUTION == RANDOM_NORMAL)
        return vec4(normals(w.x, w.y), normals(w.z, w.w));
    if (DISTRIBUTION == RANDOM_GUMBEL)
        return vec4(random_gumbel(w.x), random_gumbel(w.y), random_gumbel(w.z), random_gumbel(w.w));
    return vec4(random_unit(w.x), random_unit(w.y), random_unit(w.z), random_unit(w.w));
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
    precise vec4 y = numbers(w) * push.b + push.a;
    uint at = sample_index * push.size + quad * 4u, count = min(push.size - quad * 4u, 4u);
    if (VECTOR != 0u) {
        F32x4(push.y).v[at >> 2] = y;
        return;
    }
    for (uint k = 0; k < count; k++)
        F32(push.y).v[at + k] = y[k];
}
