// kernel: conv_nhwc_stem
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "activation.glsl"
#include "conv_index.glsl"
#include "octet.glsl"
#include "conv_nhwc.push.h"

// The way into HK_LAYOUT_NHWC8 for few channels: x is contiguous float32, y is in the layout, so that nothing but the
// convolution stands between an image and its features. An invocation makes an octet of PIXELS outputs side by side;
// neighbouring lanes have neighbouring octets. push.w holds the weights as (channel, tap, octets * 8) in float32. No
// barrier. Floor: the bytes of x and y.
layout(constant_id = 3) const uint PIXELS = 1;
layout(constant_id = 4) const uint KH = 1;
layout(constant_id = 5) const uint KW = 1;
layout(constant_id = 6) const uint STRIDE_H = 1;
layout(constant_id = 7) const uint STRIDE_W = 1;
layout(constant_id = 8) const uint DILATION_H = 1;
layout(constant_id = 9) const uint DILATION_W = 1;
layout(constant_id = 10) const uint CHANNELS = 3;
layout(constant_id = 11) const bool HALVES = false; // y and the residual are float16
layout(constant_id = 12) const uint EPILOGUE = 0;   // bit 0: bias, bit 1: residual
layout(constant_id = 13) const uint ACTIVATION = 0;
#include "conv_nhwc.glsl"

const uint COLUMNS = (PIXELS - 1) * STRIDE_W + (KW - 1) * DILATION_W + 1; // of x under a strip

vec4 low[PIXELS];
vec4 high[PIXELS];

// A row of taps: first is column 0 of the row in x, w where the weights of its first tap are, in octets.
void add_row(uint first, int column, uint w)
{
    float x[COLUMNS];
    [[unroll]] for (uint c = 0; c < COLUMNS; ++c)
        x[c] = within(column + int(c), push.x_w) ? F32(push.x).v[first + uint(column + int(c))] : 0.0;
    [[unroll]] for (uint s = 0; s < KW; ++s) {
        Octet k = load_octet(push.w, w + s * push.octets_out, false);
        [[unroll]] for (uint p = 0; p < PIXELS; ++p) {
            low[p] += x[p * STRIDE_W + s * DILATION_W] * k.low;
            high[p] += x[p * STRIDE_W + s * DILATION_W] * k.high;
        }
    }
}

void main()
{
    uint i = linear_invocation(), strip = i / push.octets_out, octet = i - strip * push.octets_out;
    uint strips = (push.y_w + PIXELS - 1u) / PIXELS, line = strip / strips, x = (strip - line * strips) * PIXELS;
    uint image = line / push.y_h, y = line - image * push.y_h;
    if (image >= push.images)
        return;
    [[unroll]] for (uint p = 0; p < PIXELS; ++p) {
        low[p] = vec4(0.0);
        high[p] = vec4(0.0);
    }
    int column = tap_source(true, int(x), 0u, STRIDE_W, DILATION_W, push.pads >> 16);
    [[unroll]] for (uint c = 0u; c < CHANNELS; ++c)
        for (uint r = 0u; r < KH; ++r) {
            int row = tap_source(true, int(y), r, STRIDE_H, DILATION_H, push.pads & 0xffffu);
            if (within(row, push.x_h))
                add_row(((image * CHANNELS + c) * push.x_h + uint(row)) * push.x_w, column,
                        (c * KH + r) * KW * push.octets_out + octet);
        }
    [[unroll]] for (uint p = 0; p < PIXELS; ++p)
        if (x + p < push.y_w) {
            uint pixel = line * push.y_w + x + p;
            Octet o = Octet(finish4(low[p], pixel, octet * 8u, HALVES), finish4(high[p], pixel, octet * 8u + 4u, HALVES));
            store_octet(push.y, pixel * push.octets_out + octet, HALVES, o);
        }
}
