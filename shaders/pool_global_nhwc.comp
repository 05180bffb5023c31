// kernel: pool_global_nhwc
// kernel: pool_global_nhwc_max -DMAXIMUM
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "octet.glsl"
#include "pool_global_nhwc.push.h"

// Global pooling of HK_LAYOUT_NHWC8 into contiguous float32. A workgroup makes OCTETS neighbouring octets of channels of
// an image; LANES lanes share an octet's pixels and sum up in shared memory; with one lane (software devices) there is no
// barrier. Floor: the bytes of x.
layout(constant_id = 3) const uint OCTETS = 1;
layout(constant_id = 4) const uint LANES = 1;
layout(constant_id = 5) const bool HALVES = false; // x is float16

shared vec4 sums[OCTETS * LANES * 2];

#ifdef MAXIMUM
#define START uintBitsToFloat(0xff800000u)
vec4 join(vec4 a, vec4 b) { return mix(a, b, bvec4(uvec4(greaterThan(b, a)) | uvec4(notEqual(b, b)))); } // NaN wins
#else
#define START 0.0
vec4 join(vec4 a, vec4 b) { return a + b; }
#endif

void main()
{
    uint blocks = (push.octets + OCTETS - 1u) / OCTETS, g = linear_group(), image = g / blocks;
    uint slot = gl_LocalInvocationIndex % OCTETS, lane = gl_LocalInvocationIndex / OCTETS;
    uint octet = (g - image * blocks) * OCTETS + slot;
    bool inside = image < push.images && octet < push.octets;
    vec4 low = vec4(START), high = vec4(START);
    for (uint p = lane; inside && p < push.plane; p += LANES) {
        Octet x = load_octet(push.x, (image * push.plane + p) * push.octets + octet, HALVES);
        low = join(low, x.low);
        high = join(high, x.high);
    }
    if (LANES > 1u) {
        uint at = gl_LocalInvocationIndex * 2u;
        sums[at] = low;
        sums[at + 1u] = high;
        for (uint half_count = LANES / 2u; half_count > 0u; half_count /= 2u) {
            barrier();
            if (lane < half_count) {
                sums[at] = join(sums[at], sums[at + half_count * OCTETS * 2u]);
                sums[at + 1u] = join(sums[at + 1u], sums[at + half_count * OCTETS * 2u + 1u]);
            }
        }
        low = sums[at]; // its own
        high = sums[at + 1u];
    }
    if (!inside || lane != 0u)
        return;
#ifndef MAXIMUM
    low /= float(push.plane);
    high /= float(push.plane);
#endif
    for (uint c = 0u; c < 8u; ++c)
        if (octet * 8u + c < push.channels)
            F32(push.y).v[image * push.channels + octet * 8u + c] = c < 4u ? low[c] : high[c - 4u];
}
