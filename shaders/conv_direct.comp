// kernel: conv_direct -DPIXELS=1
// kernel: conv_direct4 -DPIXELS=4
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "activation.glsl"
#include "conv_index.glsl"
#include "conv_direct.push.h"

// The general convolution on contiguous float32, forward and data gradient, any group, up to three spatial axes. An
// invocation keeps OC channels of PIXELS neighbouring pixels in registers; a workgroup shares its OC channels, so that
// weights are read once for all lanes. No shared memory, no barrier.
//
// PIXELS 4 is the tuning for software devices, whose lanes like vec4; PIXELS 1 serves GPUs where the matrix kernel would
// waste its tile: depthwise and narrow groups, windows of three axes. Floor of depthwise layers: the bytes of X and Y.
layout(constant_id = 3) const uint OC = 4;
layout(constant_id = 4) const uint KD = 1;
layout(constant_id = 5) const uint KH = 1;
layout(constant_id = 6) const uint KW = 1;
layout(constant_id = 7) const uint STRIDE_D = 1;
layout(constant_id = 8) const uint STRIDE_H = 1;
layout(constant_id = 9) const uint STRIDE_W = 1;
layout(constant_id = 10) const uint DILATION_D = 1;
layout(constant_id = 11) const uint DILATION_H = 1;
layout(constant_id = 12) const uint DILATION_W = 1;
layout(constant_id = 13) const bool FORWARD = true;
layout(constant_id = 14) const bool DEPTH = false; // there is a third axis
layout(constant_id = 15) const uint EPILOGUE = 0;  // bit 0: bias, bit 1: residual
layout(constant_id = 16) const uint ACTIVATION = 0;
layout(constant_id = 17) const bool SCALED = false; // the source's channels have factors

#if PIXELS == 4
#define Float vec4
#define Int ivec4
#define Uint uvec4
#define Bool bvec4
#else
#define Float float
#define Int int
#define Uint uint
#define Bool bool
#endif

// Reads where inside holds, 0 elsewhere; the address is always a valid one, so that no lane has to branch.
float gather(bool inside, uint index)
{
    float x = F32(push.source).v[inside ? index : 0u];
    return inside ? x : 0.0;
}
vec4 gather(bvec4 inside, uvec4 index)
{
    uvec4 at = mix(uvec4(0u), index, inside);
    vec4 x = vec4(F32(push.source).v[at.x], F32(push.source).v[at.y], F32(push.source).v[at.z], F32(push.source).v[at.w]);
    return mix(vec4(0.0), x, inside);
}

float factor(uint i) { return F32(push.scale).v[i]; }
vec4 factor(uvec4 i) { return vec4(factor(i.x), factor(i.y), factor(i.z), factor(i.w)); }

void store(float y, uint index, uint channel)
{
    if ((EPILOGUE & 1u) != 0u)
        y += F32(push.bias).v[channel];
    if ((EPILOGUE & 2u) != 0u)
        y += F32(push.residual).v[index];
    F32(push.result).v[index] = activate(ACTIVATION, y, push.alpha, push.beta);
}

void main()
{
    uint g = linear_group(), column_block = g / push.blocks, block = g - column_block * push.blocks;
    uint first = (column_block * gl_WorkGroupSize.x + gl_LocalInvocationIndex) * PIXELS;
    if (first >= push.columns)
        return;
    uint blocks_per_group = push.blocks / push.groups, group = block / blocks_per_group;
    uint m0 = (block - group * blocks_per_group) * OC;

#if PIXELS == 4
    uvec4 column = min(first + uvec4(0u, 1u, 2u, 3u), uvec4(push.columns - 1u));
#else
    uint column = first;
#endif
    uint out_plane = push.out_d * push.out_h * push.out_w, source_plane = push.source_d * push.source_h * push.source_w;
    Uint image = column / out_plane, at = column - image * out_plane;
    Uint row = at / push.out_w;
    Int x = Int(at - row * push.out_w), y = Int(row), z = Int(0);
    if (DEPTH) {
        Uint slice = row / push.out_h;
        y = Int(row - slice * push.out_h);
        z = Int(slice);
    }
    Uint base = (image * push.groups + group) * (push.channels * source_plane);

    Float acc[OC];
    [[unroll]] for (uint o = 0; o < OC; ++o)
        acc[o] = Float(0.0);
    for (uint c = 0u; c < push.channels; ++c) {
        uint w = group * push.w_group + c * push.w_channel;
        for (uint d = 0u; d < KD; ++d) {
            Int sz = DEPTH ? tap_source(FORWARD, z, d, STRIDE_D, DILATION_D, push.pad_d) : Int(0);
            for (uint r = 0u; r < KH; ++r) {
                Int sy = tap_source(FORWARD, y, r, STRIDE_H, DILATION_H, push.pad_h);
                Bool inside_row = both(within(sy, push.source_h), within(sz, push.source_d));
                Uint from = base + (Uint(sz) * push.source_h + Uint(sy)) * push.source_w;
                for (uint s = 0u; s < KW; ++s, ++w) {
                    Int sx = tap_source(FORWARD, x, s, STRIDE_W, DILATION_W, push.pad_w);
                    Float v = gather(both(inside_row, within(sx, push.source_w)), from + Uint(sx));
                    if (SCALED)
                        v *= factor(image * push.channels + c);
                    [[unroll]] for (uint o = 0; o < OC; ++o)
                        acc[o] += F32(push.w).v[w + min(m0 + o, push.m - 1u) * push.w_row] * v;
                }
            }
        }
        base += source_plane;
    }

    [[unroll]] for (uint o = 0; o < OC; ++o) {
        if (m0 + o >= push.m)
            break;
        uint channel = group * push.m + m0 + o;
        Uint index = (image * (push.groups * push.m) + channel) * out_plane + at;
#if PIXELS == 4
        [[unroll]] for (uint p = 0; p < 4; ++p)
            if (first + p < push.columns)
                store(acc[o][p], index[p], channel);
#else
        store(acc[o], index, channel);
#endif
    }
}
