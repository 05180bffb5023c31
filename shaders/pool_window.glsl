// What pooling kernels share: the window as specialization constants, and a linear index taken apart.
#ifndef POOL_WINDOW_GLSL
#define POOL_WINDOW_GLSL

#include "common.glsl"
#include "conv_index.glsl"
#include "pool.push.h"

layout(constant_id = 3) const uint KD = 1;
layout(constant_id = 4) const uint KH = 1;
layout(constant_id = 5) const uint KW = 1;
layout(constant_id = 6) const uint STRIDE_D = 1;
layout(constant_id = 7) const uint STRIDE_H = 1;
layout(constant_id = 8) const uint STRIDE_W = 1;
layout(constant_id = 9) const uint DILATION_D = 1;
layout(constant_id = 10) const uint DILATION_H = 1;
layout(constant_id = 11) const uint DILATION_W = 1;
layout(constant_id = 12) const bool AVERAGE = false; // else the maximum
layout(constant_id = 13) const bool COUNT_PADS = false;
layout(constant_id = 14) const uint INDICES = 0;   // words of one index: 0 none, 1 int32, 2 int64
layout(constant_id = 15) const bool COLUMNS = false; // indices count column-major (storage_order 1)
layout(constant_id = 16) const uint KIND = 0;      // elements: 0 float, 1 int32, 2 uint32
layout(constant_id = 17) const bool TILES = false; // the 2 x 2 windows of stride 2 without padding: two outputs at once
layout(constant_id = 18) const bool SUM = false;   // an average that is not divided

struct Place {
    uint plane;
    uint z;
    uint y;
    uint x;
};

// i over (plane, d, h, w) with the extents behind the push block's divisors.
Place find_place(uint i, uint d, uint h, uint w)
{
    Place p;
    uint row = divide_by(i, push.magic_w, push.shift_w);
    p.x = i - row * w;
    uint slice = divide_by(row, push.magic_h, push.shift_h);
    p.y = row - slice * h;
    p.plane = divide_by(slice, push.magic_d, push.shift_d);
    p.z = slice - p.plane * d;
    return p;
}

uint index_of(uint plane, uint z, uint y, uint x)
{
    uint first = plane * (push.in_d * push.in_h * push.in_w);
    return first + (COLUMNS ? (x * push.in_h + y) * push.in_d + z : (z * push.in_h + y) * push.in_w + x);
}

// Taps of the window of output o that count towards an average, along one axis.
uint counted(uint o, uint k, uint stride, uint dilation, uint pad, uint limit)
{
    int start = int(o * stride) - int(pad), low = COUNT_PADS ? -int(pad) : 0;
    int first = max(low - start + int(dilation) - 1, 0) / int(dilation);
    int end = min((int(limit) - start + int(dilation) - 1) / int(dilation), int(k));
    return uint(max(end - first, 0));
}

float average_scale(uint z, uint y, uint x)
{
    if (SUM)
        return 1.0;
    uint n = counted(z, KD, STRIDE_D, DILATION_D, push.pad_d, push.limit_d) *
             counted(y, KH, STRIDE_H, DILATION_H, push.pad_h, push.limit_h) *
             counted(x, KW, STRIDE_W, DILATION_W, push.pad_w, push.limit_w);
    return 1.0 / float(max(n, 1u));
}

// Backward: the outputs along one axis whose windows (dilation gaps included) span position i: [first, end).
uvec2 covering(uint i, uint k, uint stride, uint dilation, uint pad, uint extent)
{
    uint at = i + pad, span = (k - 1u) * dilation + 1u;
    return uvec2(at < span ? 0u : (at - span) / stride + 1u, min(at / stride + 1u, extent));
}

// Whether a tap of output o lies on position i, along one axis.
bool is_tap(uint i, uint o, uint k, uint stride, uint dilation, uint pad)
{
    uint at = i + pad - o * stride;
    return at < (k - 1u) * dilation + 1u && (dilation == 1u || at % dilation == 0u);
}

#endif
