// kernel: roi_align
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "roi.push.h"
#include "roi.glsl"

// RoiAlign: an invocation makes one bin of a chunk of channels, neighbouring bins being neighbouring lanes, so that a
// sample's place is worked out once for the chunk. Floor: the bytes of y, and those of x that regions cover.
void main()
{
    uint i = linear_invocation();
    if (i >= push.count)
        return;
    uint bins = push.out_h * push.out_w, q = i / bins, bin = i - q * bins;
    uint r = q / push.chunks, chunk = q - r * push.chunks;
    Bins by = bins_of(r, 1u, push.out_h), bx = bins_of(r, 0u, push.out_w);
    uint first = chunk * CHUNK, plane = push.in_h * push.in_w, from = (image_of(r) * push.channels + first) * plane;
    float sum[CHUNK];
    bool any = false;
    [[unroll]] for (uint c = 0u; c < CHUNK; ++c)
        sum[c] = 0.0;
    for (int a = 0; a < by.samples; ++a) {
        Sample y = sample_at(by, bin / push.out_w, a, push.in_h);
        for (int b = 0; b < bx.samples; ++b) {
            Sample x = sample_at(bx, bin % push.out_w, b, push.in_w);
            bool inside = y.weight >= 0.0 && x.weight >= 0.0;
            if (!inside && !MAXIMUM)
                continue;
            vec4 w = inside ? vec4((1.0 - y.weight) * vec2(1.0 - x.weight, x.weight), y.weight * vec2(1.0 - x.weight, x.weight))
                            : vec4(0.0);
            uvec4 at = uvec4(y.low * push.in_w + uvec2(x.low, x.high), y.high * push.in_w + uvec2(x.low, x.high));
            [[unroll]] for (uint c = 0u; c < CHUNK; ++c) {
                if (first + c >= push.channels)
                    break;
                uint base = from + c * plane;
                vec4 v = w * vec4(F32(push.x).v[base + at.x], F32(push.x).v[base + at.y], F32(push.x).v[base + at.z],
                                  F32(push.x).v[base + at.w]);
                if (MAXIMUM) { // of the weighted elements, as the standard has it
                    float best = max(max(v.x, v.y), max(v.z, v.w));
                    sum[c] = any ? max(sum[c], best) : best;
                } else {
                    sum[c] += v.x + v.y + v.z + v.w;
                }
            }
            any = true;
        }
    }
    float scale = MAXIMUM ? 1.0 : 1.0 / float(max(by.samples * bx.samples, 1));
    [[unroll]] for (uint c = 0u; c < CHUNK; ++c)
        if (first + c < push.channels)
            F32(push.y).v[(r * push.channels + first + c) * bins + bin] = sum[c] * scale;
}
