// kernel: roi_weights
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "roi.push.h"
#include "roi.glsl"

// How much every element of an axis counts in every bin of every region: an average over samples is the product of one
// such weight along each axis. Invocations [0, regions * out_h * in_h) write rows, the rest columns.
void main()
{
    uint i = linear_invocation(), split = push.regions * push.out_h * push.in_h;
    if (i >= push.count)
        return;
    bool rows = i < split;
    uint k = rows ? i : i - split, extent = rows ? push.in_h : push.in_w, bins = rows ? push.out_h : push.out_w;
    uint q = k / extent, at = k - q * extent, r = q / bins, bin = q - r * bins;
    Bins b = bins_of(r, rows ? 1u : 0u, bins);
    float sum = 0.0;
    for (int n = 0; n < b.samples; ++n) {
        Sample s = sample_at(b, bin, n, extent);
        if (s.weight >= 0.0)
            sum += (s.low == at ? 1.0 - s.weight : 0.0) + (s.high == at ? s.weight : 0.0);
    }
    float weight = sum / float(max(b.samples, 1));
    if (rows)
        F32(push.rows).v[k] = weight;
    else
        F32(push.columns).v[k] = weight;
}
