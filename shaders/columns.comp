// kernel: columns_sum
// kernel: columns_gather -DGATHER
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "conv_index.glsl"
#include "columns.push.h"

// Col2Im: an element of the image sums, tap after tap, what the blocks that cover it hold for it. GATHER, its gradient: an
// element of the columns is one of the image, or none. One element a lane, lanes along a row. Floor: the bytes of both.
layout(constant_id = 3) const uint KD = 1;
layout(constant_id = 4) const uint KH = 1;
layout(constant_id = 5) const uint KW = 1;
layout(constant_id = 6) const uint STRIDE_D = 1;
layout(constant_id = 7) const uint STRIDE_H = 1;
layout(constant_id = 8) const uint STRIDE_W = 1;
layout(constant_id = 9) const uint DILATION_D = 1;
layout(constant_id = 10) const uint DILATION_H = 1;
layout(constant_id = 11) const uint DILATION_W = 1;

#ifdef GATHER
const bool FORWARD = true;
#define EXTENT(axis) push.out_##axis
#define OTHER(axis) push.in_##axis
#else
const bool FORWARD = false;
#define EXTENT(axis) push.in_##axis
#define OTHER(axis) push.out_##axis
#endif

void main()
{
    uint i = linear_invocation();
    if (i >= push.count)
        return;
    uint row = divide_by(i, push.magic_w, push.shift_w), x = i - row * EXTENT(w);
    uint slice = divide_by(row, push.magic_h, push.shift_h), y = row - slice * EXTENT(h);
    uint rest = divide_by(slice, push.magic_d, push.shift_d), z = slice - rest * EXTENT(d);
    const uint taps = KD * KH * KW;
#ifdef GATHER
    uint plane = rest / taps, t = rest - plane * taps;
    int a = tap_source(FORWARD, int(z), t / (KH * KW), STRIDE_D, DILATION_D, push.pad_d);
    int b = tap_source(FORWARD, int(y), t / KW % KH, STRIDE_H, DILATION_H, push.pad_h);
    int c = tap_source(FORWARD, int(x), t % KW, STRIDE_W, DILATION_W, push.pad_w);
    bool inside = within(a, OTHER(d)) && within(b, OTHER(h)) && within(c, OTHER(w));
    uint at = ((plane * OTHER(d) + uint(a)) * OTHER(h) + uint(b)) * OTHER(w) + uint(c);
    F32(push.to).v[i] = inside ? F32(push.from).v[at] : 0.0;
#else
    float sum = 0.0;
    for (uint d = 0u; d < KD; ++d) {
        int a = tap_source(FORWARD, int(z), d, STRIDE_D, DILATION_D, push.pad_d);
        for (uint r = 0u; r < KH; ++r) {
            int b = tap_source(FORWARD, int(y), r, STRIDE_H, DILATION_H, push.pad_h);
            if (!within(a, OTHER(d)) || !within(b, OTHER(h)))
                continue;
            for (uint s = 0u; s < KW; ++s) {
                int c = tap_source(FORWARD, int(x), s, STRIDE_W, DILATION_W, push.pad_w);
                if (!within(c, OTHER(w)))
                    continue;
                uint channel = rest * taps + (d * KH + r) * KW + s;
                sum += F32(push.from).v[((channel * OTHER(d) + uint(a)) * OTHER(h) + uint(b)) * OTHER(w) + uint(c)];
            }
        }
    }
    F32(push.to).v[i] = sum;
#endif
}
