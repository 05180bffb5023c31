// What the channel kernels of HK_LAYOUT_NHWC8 share. An invocation has one octet of channels and walks over units: pixels,
// or with pooling windows of 2x2. A workgroup has OCTETS neighbouring octets and LANES invocations on each, so that a
// warp reads whole sectors; it works on one chunk of the units. With LANES = 1 (software devices) there is no barrier.
#ifndef BATCHNORM_NHWC_GLSL
#define BATCHNORM_NHWC_GLSL

#include "common.glsl"
#include "conv_index.glsl"
#include "octet.glsl"
#include "batchnorm_nhwc.push.h"

layout(constant_id = 3) const uint OCTETS = 1;
layout(constant_id = 4) const uint LANES = 1;
layout(constant_id = 5) const uint HELD = 1;        // units that an invocation loads before it works on them
layout(constant_id = 6) const bool HALVES = false;  // values are float16
layout(constant_id = 7) const bool RELU = false;
layout(constant_id = 8) const bool POOL = false;    // 2x2 windows of stride 2, after ReLU
layout(constant_id = 9) const bool NAN_WINS = false; // an element alone may be NaN: with given statistics
const uint POSITIONS = POOL ? 4u : 1u; // pixels of a unit, in row-major order; arrays have room for four

struct Walk {
    uint octet, chunk, first, end; // units [first, end), none where there is no octet
    bool live;
};

uint walk_lane() { return gl_LocalInvocationIndex / OCTETS; }

Walk walk_of()
{
    uint blocks = (push.octets + OCTETS - 1u) / OCTETS, g = linear_group();
    Walk w;
    w.chunk = g / blocks;
    w.octet = (g - w.chunk * blocks) * OCTETS + gl_LocalInvocationIndex % OCTETS;
    w.live = w.octet < push.octets && w.chunk < push.chunks;
    w.first = w.live ? w.chunk * push.chunk : 0u;
    w.end = w.live ? min(w.first + push.chunk, push.units) : 0u;
    return w;
}

// Of a unit's first pixel, and how far its others are from there, in octets.
uint unit_offset(Walk w, uint unit)
{
    uint row = POOL ? divide_by(unit, push.width_magic, push.width_shift) : 0u;
    uint pixel = POOL ? 2u * (unit + row * push.width) : unit;
    return pixel * push.octets + w.octet;
}

uint position_offset(uint k) { return ((k & 1u) + (k >> 1) * 2u * push.width) * push.octets; }

vec4 load_channels(uvec2 address, uint channel)
{
    vec4 v = vec4(0.0);
    [[unroll]] for (uint k = 0u; k < 4u; ++k)
        if (channel + k < push.channels)
            v[k] = F32(address).v[channel + k];
    return v;
}

// The sums over a workgroup's lanes, which its first lane gets; every invocation must come here.
shared vec4 parts[4 * OCTETS * LANES];

void sum_lanes(inout vec4 v[4])
{
    if (LANES == 1u)
        return;
    const uint plane = OCTETS * LANES;
    uint at = gl_LocalInvocationIndex, lane = walk_lane();
    [[unroll]] for (uint k = 0u; k < 4u; ++k)
        parts[k * plane + at] = v[k];
    for (uint h = LANES / 2u; h > 0u; h /= 2u) {
        barrier();
        if (lane < h)
            [[unroll]] for (uint k = 0u; k < 4u; ++k)
                parts[k * plane + at] += parts[k * plane + at + h * OCTETS];
    }
    [[unroll]] for (uint k = 0u; k < 4u; ++k)
        v[k] = parts[k * plane + at]; // its own
}

// Forward and backward decide by the sign of these bits, and by the order of them.
vec4 normalize(vec4 mean, vec4 slope, vec4 bias, vec4 x)
{
    precise vec4 centered = x - mean;
    precise vec4 scaled = centered * slope;
    precise vec4 z = scaled + bias;
    return z;
}

vec4 relu(vec4 z) { return mix(z, vec4(0.0), lessThan(z, vec4(0.0))); } // NaN stays NaN

// Of four channels each: the maximum of a window and the place of the first one.
struct Windows {
    vec4 best;
    uvec4 place;
};

Windows windows_max(vec4 z[4])
{
    Windows w = Windows(z[0], uvec4(0u));
    [[unroll]] for (uint k = 1u; k < POSITIONS; ++k) {
        bvec4 wins = greaterThan(z[k], w.best);
        if (NAN_WINS)
            wins = bvec4(uvec4(wins) | uvec4(greaterThan(floatBitsToUint(z[k]) & 0x7fffffffu, uvec4(0x7f800000u))));
        w.best = mix(w.best, z[k], wins);
        w.place = mix(w.place, uvec4(k), wins);
    }
    return w;
}

#endif
