// kernel: conv_channels
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "conv_index.glsl"
#include "conv_channels.push.h"

// Sums over batch and space: y[split][c] = sum of the split's part of x[:, c, ...]. One workgroup per result, lanes over
// neighbouring elements, a tree of fixed shape at the end; conv_sum adds the splits. Floor: the bytes of x.
shared float sums[256];

float element(uint c, uint i, uint last)
{
    uint image = divide_by(i, push.plane_magic, push.plane_shift);
    float v = F32(push.x).v[i < last ? (image * push.channels + c) * push.plane + i - image * push.plane : 0u];
    return i < last ? v : 0.0;
}

void main()
{
    uint g = linear_group(), lane = gl_LocalInvocationIndex, lanes = gl_WorkGroupSize.x;
    if (g >= push.groups)
        return;
    uint split = g / push.channels, c = g - split * push.channels;
    uint last = min((split + 1u) * push.chunk, push.per_channel);
    vec4 part = vec4(0.0);
    for (uint i = split * push.chunk + lane; i < last; i += 4u * lanes)
        [[unroll]] for (uint k = 0; k < 4; ++k) // four loads on their way at once
            part[k] += element(c, i + k * lanes, last);
    sums[lane] = part.x + part.y + (part.z + part.w);
    for (uint half_count = lanes / 2u; half_count > 0u; half_count /= 2u) {
        barrier();
        if (lane < half_count)
            sums[lane] += sums[lane + half_count];
    }
    if (lane == 0u)
        F32(push.y).v[g] = sums[0];
}
