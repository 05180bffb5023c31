// kernel: conv_nhwc_depthwise
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "activation.glsl"
#include "conv_index.glsl"
#include "octet.glsl"
#include "conv_nhwc.push.h"

// Depthwise convolution in HK_LAYOUT_NHWC8 with float32 sums. An invocation makes an octet of channels of PIXELS outputs
// side by side and reads each octet of x under them once; neighbouring lanes have neighbouring octets. push.w holds the
// weights as (tap, octets * 8) in float32. Floor: the bytes of x and y.
//
// With SUMS a workgroup makes WIDTH octets of a row of y, and their sums, which is what global pooling behind the
// convolution would read y again for; without there is no barrier.
layout(constant_id = 3) const uint PIXELS = 1;
layout(constant_id = 4) const uint KH = 1;
layout(constant_id = 5) const uint KW = 1;
layout(constant_id = 6) const uint STRIDE_H = 1;
layout(constant_id = 7) const uint STRIDE_W = 1;
layout(constant_id = 8) const uint DILATION_H = 1;
layout(constant_id = 9) const uint DILATION_W = 1;
layout(constant_id = 10) const bool HALVES = false; // activations are float16
layout(constant_id = 11) const uint EPILOGUE = 0;   // bit 0: bias, bit 1: residual
layout(constant_id = 12) const uint ACTIVATION = 0;
layout(constant_id = 13) const bool SUMS = false;
layout(constant_id = 14) const uint WIDTH = 1;
layout(constant_id = 15) const uint LANES = 1; // of a workgroup
#include "conv_nhwc.glsl"

const uint COLUMNS = (PIXELS - 1) * STRIDE_W + (KW - 1) * DILATION_W + 1; // of x under a strip

vec4 low[PIXELS];
vec4 high[PIXELS];
shared vec4 sums[SUMS ? LANES * 2 : 1];

// A row of taps: first is the octet of x at column 0 of its row.
void add_row(uint r, uint first, int column, uint octet)
{
    vec4 w[KW * 2];
    [[unroll]] for (uint s = 0; s < KW; ++s) {
        uint at = ((r * KW + s) * push.octets_in + octet) * 2u;
        w[s * 2] = F32x4(push.w).v[at];
        w[s * 2 + 1] = F32x4(push.w).v[at + 1u];
    }
    [[unroll]] for (uint c = 0; c < COLUMNS; ++c) {
        Octet x = Octet(vec4(0.0), vec4(0.0));
        if (within(column + int(c), push.x_w))
            x = load_octet(push.x, first + uint(column + int(c)) * push.octets_in, HALVES);
        [[unroll]] for (uint p = 0; p < PIXELS; ++p)
            [[unroll]] for (uint s = 0; s < KW; ++s)
                if (c == p * STRIDE_W + s * DILATION_W) {
                    low[p] += x.low * w[s * 2];
                    high[p] += x.high * w[s * 2 + 1];
                }
    }
}

// An octet of the strip at column x of a line of y; what is stored of it is added to sum.
void make_strip(uint line, uint x, uint octet, inout Octet sum)
{
    uint image = line / push.y_h, y = line - image * push.y_h;
    [[unroll]] for (uint p = 0; p < PIXELS; ++p) {
        low[p] = vec4(0.0);
        high[p] = vec4(0.0);
    }
    int column = tap_source(true, int(x), 0u, STRIDE_W, DILATION_W, push.pads >> 16);
    for (uint r = 0u; r < KH; ++r) {
        int row = tap_source(true, int(y), r, STRIDE_H, DILATION_H, push.pads & 0xffffu);
        if (within(row, push.x_h))
            add_row(r, (image * push.x_h + uint(row)) * push.x_w * push.octets_in + octet, column, octet);
    }
    [[unroll]] for (uint p = 0; p < PIXELS; ++p)
        if (x + p < push.y_w) {
            uint pixel = line * push.y_w + x + p;
            Octet o = Octet(finish4(low[p], pixel, octet * 8u, HALVES), finish4(high[p], pixel, octet * 8u + 4u, HALVES));
            store_octet(push.y, pixel * push.octets_out + octet, HALVES, o);
            sum.low += o.low;
            sum.high += o.high;
        }
}

void make_line()
{
    uint blocks = (push.octets_out + WIDTH - 1u) / WIDTH, g = linear_group(), line = g / blocks;
    uint octet = (g - line * blocks) * WIDTH + gl_LocalInvocationIndex % WIDTH, lane = gl_LocalInvocationIndex / WIDTH;
    bool inside = line < push.images * push.y_h && octet < push.octets_out;
    uint at = gl_LocalInvocationIndex * 2u;
    Octet sum = Octet(vec4(0.0), vec4(0.0));
    for (uint x = lane * PIXELS; inside && x < push.y_w; x += LANES / WIDTH * PIXELS)
        make_strip(line, x, octet, sum);
    sums[at] = sum.low;
    sums[at + 1u] = sum.high;
    for (uint half_count = LANES / WIDTH / 2u; half_count > 0u; half_count /= 2u) {
        barrier();
        if (lane < half_count) {
            sums[at] += sums[at + half_count * WIDTH * 2u];
            sums[at + 1u] += sums[at + half_count * WIDTH * 2u + 1u];
        }
    }
    if (inside && lane == 0u)
        store_octet(push.table, line * push.octets_out + octet, false, Octet(sums[at], sums[at + 1u])); // its own
}

void main()
{
    if (SUMS) {
        make_line();
        return;
    }
    uint i = linear_invocation(), strip = i / push.octets_out, octet = i - strip * push.octets_out;
    uint strips = (push.y_w + PIXELS - 1u) / PIXELS, line = strip / strips;
    Octet unused = Octet(vec4(0.0), vec4(0.0));
    if (line < push.images * push.y_h)
        make_strip(line, (strip - line * strips) * PIXELS, octet, unused);
}
