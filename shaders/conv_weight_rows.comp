// kernel: conv_weight_rows
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "conv_index.glsl"
#include "conv_weight_rows.push.h"

// Weight gradient for what conv_weight leaves out: depthwise and narrow groups, three spatial axes, software devices.
//
// A workgroup sums, over the pixels of its split, OC output channels times one input channel times TAPS taps: its lanes
// run over neighbouring pixels and keep OC x TAPS sums in registers, which meet in shared memory at the end. conv_sum
// adds the splits. Floor of depthwise layers: the bytes of X and dY.
layout(constant_id = 3) const uint OC = 1;
layout(constant_id = 4) const uint TAPS = 1;   // taps of one workgroup
layout(constant_id = 5) const uint CHUNKS = 1; // workgroups for all taps
layout(constant_id = 6) const uint KD = 1;
layout(constant_id = 7) const uint KH = 1;
layout(constant_id = 8) const uint KW = 1;
layout(constant_id = 9) const uint STRIDE_D = 1;
layout(constant_id = 10) const uint STRIDE_H = 1;
layout(constant_id = 11) const uint STRIDE_W = 1;
layout(constant_id = 12) const uint DILATION_D = 1;
layout(constant_id = 13) const uint DILATION_H = 1;
layout(constant_id = 14) const uint DILATION_W = 1;
layout(constant_id = 15) const bool BIAS = false;
layout(constant_id = 16) const uint LANES = 8; // = local size x, a power of two

const uint VALUES = TAPS + (BIAS ? 1 : 0);
shared float sums[VALUES * LANES];

float acc[OC * TAPS];
float bias_sum[OC];

// The lane's pixel, and the LANES pixels of one step as a mixed-radix number.
uvec4 pixel; // x, y, z, image
uvec4 step_by;

uvec4 split_index(uint i)
{
    uint row = i / push.y_w, slice = row / push.y_h, image = slice / push.y_d;
    return uvec4(i - row * push.y_w, row - slice * push.y_h, slice - image * push.y_d, image);
}

void advance()
{
    pixel += step_by;
    if (pixel.x >= push.y_w) {
        pixel.x -= push.y_w;
        pixel.y += 1u;
    }
    if (pixel.y >= push.y_h) {
        pixel.y -= push.y_h;
        pixel.z += 1u;
    }
    if (pixel.z >= push.y_d) {
        pixel.z -= push.y_d;
        pixel.w += 1u;
    }
}

void add_pixel(uint m0, uint x_channel, uint tap0)
{
    uint y_plane = push.y_d * push.y_h * push.y_w;
    uint from = (pixel.z * push.y_h + pixel.y) * push.y_w + pixel.x + pixel.w * (push.groups * push.m) * y_plane;
    float dy[OC];
    [[unroll]] for (uint o = 0; o < OC; ++o) {
        dy[o] = F32(push.dy).v[from + min(m0 + o, push.groups * push.m - 1u) * y_plane];
        if (BIAS)
            bias_sum[o] += dy[o];
    }
    uint base = (pixel.w * (push.groups * push.channels) + x_channel) * (push.x_d * push.x_h * push.x_w);
    [[unroll]] for (uint t = 0; t < TAPS; ++t) {
        uint tap = tap0 + t, s = tap % KW, r = tap / KW % KH, d = tap / (KW * KH);
        int z = tap_source(true, int(pixel.z), d, STRIDE_D, DILATION_D, push.pad_d);
        int y = tap_source(true, int(pixel.y), r, STRIDE_H, DILATION_H, push.pad_h);
        int x = tap_source(true, int(pixel.x), s, STRIDE_W, DILATION_W, push.pad_w);
        bool inside = within(z, push.x_d) && within(y, push.x_h) && within(x, push.x_w);
        uint index = base + (uint(z) * push.x_h + uint(y)) * push.x_w + uint(x);
        float v = F32(push.x).v[inside ? index : 0u];
        v = inside ? v : 0.0;
        [[unroll]] for (uint o = 0; o < OC; ++o)
            acc[o * TAPS + t] += dy[o] * v;
    }
}

// The lanes' values v of channel o, summed as a tree of fixed shape.
void reduce(uint lane)
{
    for (uint half_count = LANES / 2u; half_count > 0u; half_count /= 2u) {
        barrier();
        if (lane < half_count)
            for (uint v = 0u; v < VALUES; ++v)
                sums[v * LANES + lane] += sums[v * LANES + lane + half_count];
    }
    barrier();
}

void main()
{
    uint g = linear_group(), lane = gl_LocalInvocationIndex;
    uint rest = g / CHUNKS, tap0 = (g - rest * CHUNKS) * TAPS;
    uint c = rest % push.channels;
    rest /= push.channels;
    uint block = rest % push.blocks;
    rest /= push.blocks;
    uint split = rest / push.groups, group = rest - split * push.groups;
    if (split >= push.splits)
        return;
    uint m0 = block * OC, taps = KD * KH * KW;
    [[unroll]] for (uint i = 0; i < OC * TAPS; ++i)
        acc[i] = 0.0;
    [[unroll]] for (uint o = 0; o < OC; ++o)
        bias_sum[o] = 0.0;
    uint first = split * push.k_split + lane, last = min((split + 1u) * push.k_split, push.k);
    pixel = split_index(first);
    step_by = split_index(LANES);
    for (uint k = first; k < last; k += LANES) {
        add_pixel(group * push.m + m0, group * push.channels + c, tap0);
        advance();
    }

    [[unroll]] for (uint o = 0; o < OC; ++o) {
        [[unroll]] for (uint t = 0; t < TAPS; ++t)
            sums[t * LANES + lane] = acc[o * TAPS + t];
        if (BIAS)
            sums[TAPS * LANES + lane] = bias_sum[o];
        reduce(lane);
        uint at = split * push.split_stride, channel = group * push.m + m0 + o;
        if (m0 + o < push.m) {
            for (uint t = lane; t < TAPS && tap0 + t < taps; t += LANES)
                F32(push.dw).v[at + (channel * push.channels + c) * taps + tap0 + t] = sums[t * LANES];
            if (BIAS && c == 0u && tap0 == 0u && lane == 0u)
                F32(push.db).v[at + channel] = sums[TAPS * LANES];
        }
        barrier();
    }
}
