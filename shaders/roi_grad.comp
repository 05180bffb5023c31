// kernel: roi_grad
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "roi.push.h"
#include "roi.glsl"

// Backward of RoiAlign's average in x: an element gathers from the bins of all regions of its image that weigh it, region
// by region, so nothing is scattered. An invocation makes a chunk of channels of one element.
void main()
{
    uint i = linear_invocation();
    if (i >= push.count)
        return;
    uint plane = push.in_h * push.in_w, q = i / plane, at = i - q * plane;
    uint n = q / push.chunks, chunk = q - n * push.chunks, y = at / push.in_w, x = at - y * push.in_w;
    uint first = chunk * CHUNK, bins = push.out_h * push.out_w;
    float sum[CHUNK];
    [[unroll]] for (uint c = 0u; c < CHUNK; ++c)
        sum[c] = 0.0;
    for (uint r = 0u; r < push.regions; ++r) {
        if (image_of(r) != n)
            continue;
        for (uint a = 0u; a < push.out_h; ++a) {
            float wy = F32(push.rows).v[(r * push.out_h + a) * push.in_h + y];
            if (wy == 0.0)
                continue;
            for (uint b = 0u; b < push.out_w; ++b) {
                float w = wy * F32(push.columns).v[(r * push.out_w + b) * push.in_w + x];
                if (w == 0.0)
                    continue;
                [[unroll]] for (uint c = 0u; c < CHUNK; ++c)
                    if (first + c < push.channels)
                        sum[c] += w * F32(push.x).v[(r * push.channels + first + c) * bins + a * push.out_w + b];
            }
        }
    }
    [[unroll]] for (uint c = 0u; c < CHUNK; ++c)
        if (first + c < push.channels)
            F32(push.y).v[(n * push.channels + first + c) * plane + at] = sum[c];
}
