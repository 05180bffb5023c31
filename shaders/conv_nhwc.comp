// kernel: conv_nhwc
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "activation.glsl"
#include "conv_index.glsl"
#include "octet.glsl"
#include "conv_nhwc.push.h"

// Convolution in HK_LAYOUT_NHWC8 with float32 arithmetic, for devices without matrix units and for float32 storage:
// activations and packed weights are read an octet of channels at a time. An invocation makes one octet of PIXELS
// neighbouring outputs; a workgroup shares its octet, so that all lanes read the same weights. No barrier.
layout(constant_id = 3) const uint PIXELS = 1;
layout(constant_id = 4) const uint KH = 1;
layout(constant_id = 5) const uint KW = 1;
layout(constant_id = 6) const uint STRIDE_H = 1;
layout(constant_id = 7) const uint STRIDE_W = 1;
layout(constant_id = 8) const uint DILATION_H = 1;
layout(constant_id = 9) const uint DILATION_W = 1;
layout(constant_id = 10) const bool HALVES = false;        // activations are float16
layout(constant_id = 11) const bool WEIGHT_HALVES = false; // weights are float16
layout(constant_id = 12) const uint EPILOGUE = 0;          // bit 0: bias, bit 1: residual
layout(constant_id = 13) const uint ACTIVATION = 0;
layout(constant_id = 14) const bool SCALED = false; // channels of x have factors
#include "conv_nhwc.glsl"

float acc[PIXELS * 8];
uint from[PIXELS]; // octet of tap (0, 0), channel 0 in x; wraps around where the padding makes it negative
int row[PIXELS];
int column[PIXELS];
uint image[PIXELS];

void find_pixels(uint first)
{
    [[unroll]] for (uint p = 0; p < PIXELS; ++p) {
        uint at = min(first + p, push.pixels - 1u), line = at / push.y_w;
        image[p] = line / push.y_h;
        row[p] = tap_source(true, int(line - image[p] * push.y_h), 0u, STRIDE_H, DILATION_H, push.pads & 0xffffu);
        column[p] = tap_source(true, int(at - line * push.y_w), 0u, STRIDE_W, DILATION_W, push.pads >> 16);
        from[p] = ((image[p] * push.x_h + uint(row[p])) * push.x_w + uint(column[p])) * push.octets_in;
    }
}

// One octet of k for all pixels: offset and (r, s) say where it lies under the window, w where its weights are.
void add_octet(uint offset, uint r, uint s, uint w, uint w_stride, uint outputs)
{
    Octet x[PIXELS];
    [[unroll]] for (uint p = 0; p < PIXELS; ++p) {
        bool inside = within(row[p] + int(r), push.x_h) && within(column[p] + int(s), push.x_w);
        x[p] = load_octet(push.x, inside ? from[p] + offset : 0u, HALVES);
        x[p].low = inside ? x[p].low : vec4(0.0);
        x[p].high = inside ? x[p].high : vec4(0.0);
        if (SCALED) // there is one tap: the offset is the octet
            x[p] = scaled(x[p], image[p], offset);
    }
    [[unroll]] for (uint o = 0; o < 8; ++o) {
        Octet k = load_octet(push.w, w + min(o, outputs - 1u) * w_stride, WEIGHT_HALVES);
        [[unroll]] for (uint p = 0; p < PIXELS; ++p)
            acc[p * 8 + o] += dot(x[p].low, k.low) + dot(x[p].high, k.high);
    }
}

void finish(uint p, uint pixel, uint octet)
{
    Octet y = Octet(vec4(acc[p * 8], acc[p * 8 + 1], acc[p * 8 + 2], acc[p * 8 + 3]),
                    vec4(acc[p * 8 + 4], acc[p * 8 + 5], acc[p * 8 + 6], acc[p * 8 + 7]));
    y.low = finish4(y.low, pixel, octet * 8u, HALVES);
    y.high = finish4(y.high, pixel, octet * 8u + 4u, HALVES);
    store_octet(push.y, pixel * push.octets_out + octet, HALVES, y);
}

void main()
{
    uint g = linear_group(), block = g / push.octets_out, octet = g - block * push.octets_out;
    uint first = (block * gl_WorkGroupSize.x + gl_LocalInvocationIndex) * PIXELS;
    if (first >= push.pixels)
        return;
    find_pixels(first);
    [[unroll]] for (uint i = 0; i < PIXELS * 8; ++i)
        acc[i] = 0.0;
    uint w_stride = KH * KW * push.octets_in, w = octet * 8u * w_stride, outputs = min(push.outputs - octet * 8u, 8u);
    for (uint r = 0u; r < KH; ++r)
        for (uint s = 0u; s < KW; ++s) {
            uint offset = (r * DILATION_H * push.x_w + s * DILATION_W) * push.octets_in;
            for (uint c = 0u; c < push.octets_in; ++c, ++w)
                add_octet(offset + c, r * DILATION_H, s * DILATION_W, w, w_stride, outputs);
        }
    [[unroll]] for (uint p = 0; p < PIXELS; ++p)
        if (first + p < push.pixels)
            finish(p, first + p, octet);
}
