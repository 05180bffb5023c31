// kernel: fma_rate
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "fma_rate.push.h"

// How many fused multiply-adds a device does in a second: sixteen independent chains in registers, nothing else.

void main()
{
    uint i = linear_invocation();
    vec4 a = vec4(i) + vec4(0, 1, 2, 3), b = a + 4.0, c = a + 8.0, d = a + 12.0;
    vec4 m = vec4(push.factor), n = vec4(push.addend);
    for (uint r = 0; r < push.rounds; r++) {
        a = fma(a, m, n);
        b = fma(b, m, n);
        c = fma(c, m, n);
        d = fma(d, m, n);
    }
    vec4 s = a + b + c + d;
    F32(push.y).v[i] = s.x + s.y + s.z + s.w;
}
