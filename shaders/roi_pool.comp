// kernel: roi_pool
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "roi.push.h"

// MaxRoiPool: the maximum over each bin of a region whose corners are whole elements; empty bins give 0. An invocation
// makes one bin of one channel.
int rounded(float v) { return int(sign(v) * floor(abs(clamp(v, -1.0e6, 1.0e6)) + 0.5)); }

// First and end of a bin along an axis, in integers: bin * extent / bins is no float's business.
ivec2 bin_of(int low, int high, int bin, int bins, int extent)
{
    int size = max(high - low + 1, 1), start = bin * size / bins, end = ((bin + 1) * size + bins - 1) / bins;
    return clamp(ivec2(start, end) + low, ivec2(0), ivec2(extent));
}

void main()
{
    uint i = linear_invocation();
    if (i >= push.count)
        return;
    uint bins = push.out_h * push.out_w, q = i / bins, bin = i - q * bins, r = q / push.channels, c = q - r * push.channels;
    int n = clamp(int(F32(push.rois).v[5u * r]), 0, int(push.images) - 1);
    ivec4 box;
    [[unroll]] for (uint k = 0u; k < 4u; ++k)
        box[k] = rounded(F32(push.rois).v[5u * r + 1u + k] * push.scale);
    ivec2 ys = bin_of(box.y, box.w, int(bin / push.out_w), int(push.out_h), int(push.in_h));
    ivec2 xs = bin_of(box.x, box.z, int(bin % push.out_w), int(push.out_w), int(push.in_w));
    uint plane = (uint(n) * push.channels + c) * push.in_h * push.in_w;
    bool any = false;
    float best = 0.0;
    for (int y = ys.x; y < ys.y; ++y)
        for (int x = xs.x; x < xs.y; ++x) {
            float v = F32(push.x).v[plane + uint(y) * push.in_w + uint(x)];
            best = any && !(v > best || isnan(v)) ? best : v;
            any = true;
        }
    F32(push.y).v[i] = best;
}
