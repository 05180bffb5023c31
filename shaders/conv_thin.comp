// kernel: conv_thin
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "activation.glsl"
#include "conv_index.glsl"
#include "conv_thin.push.h"

// Forward convolution of few input channels (3 -> 32) on contiguous float32, where a GEMM's K would be one or two tiles
// and most of its time filling them. An invocation keeps all OC output channels of PIXELS pixels; the weights lie in
// shared memory, transposed, and every lane reads the same vector of them. Floor: the bytes of Y.
layout(constant_id = 3) const uint OC = 32;
layout(constant_id = 4) const uint PIXELS = 2; // a workgroup's width apart
layout(constant_id = 5) const uint CHANNELS = 3;
layout(constant_id = 6) const uint KH = 1;
layout(constant_id = 7) const uint KW = 1;
layout(constant_id = 8) const uint STRIDE_H = 1;
layout(constant_id = 9) const uint STRIDE_W = 1;
layout(constant_id = 10) const uint DILATION_H = 1;
layout(constant_id = 11) const uint DILATION_W = 1;
layout(constant_id = 12) const uint EPILOGUE = 0; // bit 0: bias, bit 1: residual
layout(constant_id = 13) const uint ACTIVATION = 0;

const uint TAPS = KH * KW;
shared vec4 weights[CHANNELS * TAPS * OC / 4];

vec4 acc[PIXELS * OC / 4];
uint image[PIXELS];
uint at[PIXELS];   // in its plane
uint base[PIXELS]; // of tap (0, 0) in x; wraps around where the padding makes it negative
int row[PIXELS];
int column[PIXELS];

void find_pixel(uint p, uint i)
{
    uint plane = push.y_h * push.y_w;
    image[p] = i / plane;
    at[p] = i - image[p] * plane;
    uint y = at[p] / push.y_w;
    row[p] = tap_source(true, int(y), 0u, STRIDE_H, DILATION_H, push.pads & 0xffffu);
    column[p] = tap_source(true, int(at[p] - y * push.y_w), 0u, STRIDE_W, DILATION_W, push.pads >> 16);
    base[p] = (image[p] * CHANNELS * push.x_h + uint(row[p])) * push.x_w + uint(column[p]);
    if (i >= push.columns)
        row[p] = -0x40000000; // no tap is inside
}

void add_channel(uint c)
{
    [[unroll]] for (uint t = 0; t < TAPS; ++t) {
        int r = int(t / KW * DILATION_H), s = int(t % KW * DILATION_W);
        float x[PIXELS];
        [[unroll]] for (uint p = 0; p < PIXELS; ++p) {
            bool inside = within(row[p] + r, push.x_h) && within(column[p] + s, push.x_w);
            float v = F32(push.x).v[inside ? base[p] + (c * push.x_h + uint(r)) * push.x_w + uint(s) : 0u];
            x[p] = inside ? v : 0.0;
        }
        [[unroll]] for (uint o = 0; o < OC / 4; ++o) {
            vec4 w = weights[(c * TAPS + t) * (OC / 4) + o];
            [[unroll]] for (uint p = 0; p < PIXELS; ++p)
                acc[p * (OC / 4) + o] = fma(vec4(x[p]), w, acc[p * (OC / 4) + o]);
        }
    }
}

void main()
{
    uint g = linear_group(), block = g % push.blocks, t = gl_LocalInvocationIndex, threads = gl_WorkGroupSize.x;
    uint first = g / push.blocks * (threads * PIXELS) + t, m0 = block * OC;
    if (first - t >= push.columns)
        return;
    for (uint i = t; i < CHANNELS * TAPS * OC; i += threads) {
        uint k = i / OC, o = i % OC;
        weights[i >> 2][i & 3u] = m0 + o < push.m ? F32(push.w).v[(m0 + o) * (CHANNELS * TAPS) + k] : 0.0;
    }
    [[unroll]] for (uint p = 0; p < PIXELS; ++p)
        find_pixel(p, first + p * threads);
    [[unroll]] for (uint i = 0; i < PIXELS * OC / 4; ++i)
        acc[i] = vec4(0.0);
    barrier();
    for (uint c = 0u; c < CHANNELS; ++c)
        add_channel(c);

    [[unroll]] for (uint p = 0; p < PIXELS; ++p) {
        if (first + p * threads >= push.columns)
            continue;
        uint plane = push.y_h * push.y_w, to = (image[p] * push.m + m0) * plane + at[p];
        [[unroll]] for (uint o = 0; o < OC; ++o) {
            if (m0 + o >= push.m)
                continue;
            float y = acc[p * (OC / 4) + o / 4][o % 4];
            if ((EPILOGUE & 1u) != 0u)
                y += F32(push.bias).v[m0 + o];
            if ((EPILOGUE & 2u) != 0u)
                y += F32(push.residual).v[to + o * plane];
            F32(push.y).v[to + o * plane] = activate(ACTIVATION, y, push.alpha, push.beta);
        }
    }
}
