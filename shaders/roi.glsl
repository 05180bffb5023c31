// Regions of interest: where a RoI lies, how its bins are sampled, and one axis of a bilinear sample.
#ifndef ROI_GLSL
#define ROI_GLSL

layout(constant_id = 3) const bool INDEX64 = true;
layout(constant_id = 4) const bool AT_LEAST_ONE = false; // regions are at least one element wide (coordinates without half a pixel)
layout(constant_id = 5) const bool MAXIMUM = false;
layout(constant_id = 6) const uint CHUNK = 1;

uint image_of(uint r)
{
    uint n = INDEX64 ? clamp_index(U32x2(push.batch).v[r], push.images) : clamp_index(I32(push.batch).v[r], push.images);
    return n;
}

struct Bins { // of one axis
    float start;
    float size; // of a bin
    int samples;
};

Bins bins_of(uint r, uint axis, uint bins) // axis 0: x, 1: y
{
    float low = F32(push.rois).v[4u * r + axis] * push.scale - push.shift;
    float high = F32(push.rois).v[4u * r + axis + 2u] * push.scale - push.shift;
    float extent = high - low;
    if (AT_LEAST_ONE)
        extent = max(extent, 1.0);
    Bins b;
    b.start = low;
    b.size = extent / float(bins);
    b.samples = push.samples > 0 ? push.samples : clamp(int(ceil(b.size)), 0, 4096);
    return b;
}

struct Sample {
    uint low;
    uint high;
    float weight; // of high; negative: the sample lies outside
};

Sample sample_at(Bins b, uint bin, int k, uint extent)
{
    float at = b.start + float(bin) * b.size + (float(k) + 0.5) * b.size / float(b.samples);
    Sample s;
    if (!(at >= -1.0 && at <= float(extent)))
        return Sample(0u, 0u, -1.0);
    at = max(at, 0.0);
    s.low = min(uint(at), extent - 1u);
    s.high = min(s.low + 1u, extent - 1u);
    s.weight = s.low + 1u >= extent ? 0.0 : at - float(s.low);
    return s;
}

#endif
