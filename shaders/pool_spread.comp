// kernel: pool_spread
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "conv_index.glsl"
#include "pool_spread.push.h"

// Backward of global average pooling: every element of a plane gets dy / plane. Floor: the bytes of dx.
layout(constant_id = 3) const bool WIDE = false; // planes of whole vectors

void main()
{
    uint i = linear_invocation();
    if (i >= push.count)
        return;
    float v = F32(push.dy).v[divide_by(i, push.plane_magic, push.plane_shift)] * push.scale;
    if (WIDE)
        F32x4(push.dx).v[i] = vec4(v);
    else
        F32(push.dx).v[i] = v;
}
