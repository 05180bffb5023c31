// kernel: conv_depthwise
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "activation.glsl"
#include "conv_index.glsl"
#include "conv_depthwise.push.h"

// Forward depthwise convolution on contiguous float32: every channel of Y sees one channel of X. An invocation makes a
// strip of ROWS outputs, one under another, and reads each row of X under them once; neighbouring lanes have
// neighbouring columns, so that the taps of a row come from the same lines of cache. A row's address is one 64-bit sum,
// its taps are immediate offsets. No shared memory, no barrier. Floor: the bytes of X and Y.
layout(constant_id = 3) const uint ROWS = 1;
layout(constant_id = 4) const uint KH = 1;
layout(constant_id = 5) const uint KW = 1;
layout(constant_id = 6) const uint STRIDE_H = 1;
layout(constant_id = 7) const uint STRIDE_W = 1;
layout(constant_id = 8) const uint DILATION_H = 1;
layout(constant_id = 9) const uint DILATION_W = 1;
layout(constant_id = 10) const uint EPILOGUE = 0; // bit 0: bias, bit 1: residual
layout(constant_id = 11) const uint ACTIVATION = 0;

const uint X_ROWS = (ROWS - 1) * STRIDE_H + (KH - 1) * DILATION_H + 1;

float acc[ROWS];
float w[KH * KW];

// Where element i of an array begins; i may be negative, and so may what its reader adds back.
F32 element(uvec2 base, int i)
{
    uint carry, low = uaddCarry(base.x, uint(i) << 2, carry);
    return F32(uvec2(low, base.y + uint(i >> 30) + carry));
}

bool row_is_used(uint r)
{
    bool used = false;
    [[unroll]] for (uint o = 0; o < ROWS; ++o)
        used = used || (r >= o * STRIDE_H && (r - o * STRIDE_H) % DILATION_H == 0 && (r - o * STRIDE_H) / DILATION_H < KH);
    return used;
}

void main()
{
    uint i = linear_invocation();
    if (i >= push.count)
        return;
    uint line = divide_by(i, push.width_magic, push.width_shift), x = i - line * push.y_w;
    uint plane = divide_by(line, push.strips_magic, push.strips_shift), y = (line - plane * push.strips) * ROWS;
    uint image = divide_by(plane, push.channels_magic, push.channels_shift), channel = plane - image * push.channels;
    uint source = divide_by(plane, push.multiplier_magic, push.multiplier_shift);

    F32 weights = element(push.w, int(channel * (KH * KW)));
    [[unroll]] for (uint t = 0; t < KH * KW; ++t)
        w[t] = weights.v[t];
    [[unroll]] for (uint o = 0; o < ROWS; ++o)
        acc[o] = 0.0;

    int row = tap_source(true, int(y), 0u, STRIDE_H, DILATION_H, push.pads & 0xffffu);
    int column = tap_source(true, int(x), 0u, STRIDE_W, DILATION_W, push.pads >> 16);
    bool inside[KW];
    [[unroll]] for (uint s = 0; s < KW; ++s)
        inside[s] = within(column + int(s * DILATION_W), push.x_w);
    int at = (int(source * push.x_h) + row) * int(push.x_w) + column;
    [[unroll]] for (uint r = 0; r < X_ROWS; ++r) {
        if (!row_is_used(r))
            continue;
        F32 from = element(push.x, at + int(r * push.x_w));
        bool inside_row = within(row + int(r), push.x_h);
        [[unroll]] for (uint s = 0; s < KW; ++s) {
            float v = 0.0;
            if (inside_row && inside[s])
                v = from.v[s * DILATION_W];
            [[unroll]] for (uint o = 0; o < ROWS; ++o) {
                uint tap = (r - o * STRIDE_H) / DILATION_H;
                if (r >= o * STRIDE_H && (r - o * STRIDE_H) % DILATION_H == 0 && tap < KH)
                    acc[o] = fma(v, w[tap * KW + s], acc[o]);
            }
        }
    }

    float bias = (EPILOGUE & 1u) != 0u ? F32(push.bias).v[channel] : 0.0;
    uint to = (plane * push.y_h + y) * push.y_w + x;
    [[unroll]] for (uint o = 0; o < ROWS; ++o) {
        if (y + o >= push.y_h)
            break;
        float v = acc[o] + bias;
        if ((EPILOGUE & 2u) != 0u)
            v += F32(push.residual).v[to + o * push.y_w];
        F32(push.y).v[to + o * push.y_w] = activate(ACTIVATION, v, push.alpha, push.beta);
    }
}
