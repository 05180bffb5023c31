// kernel: relayout_pack
// kernel: relayout_unpack -DUNPACK
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "conv_index.glsl"
#include "octet.glsl"
#include "relayout.push.h"

// Contiguous (N, C, plane) to HK_LAYOUT_NHWC8 and back. A lane moves one octet of channels of one pixel. OCTETS lanes lie
// along the channels and the others along the pixels, so that on both sides a warp touches whole 32-byte sectors without
// going through shared memory. Floor: the bytes of both layouts.
layout(constant_id = 3) const bool HALVES = false; // the packed side is float16
layout(constant_id = 4) const uint OCTETS = 1;

void main()
{
    uint blocks = (push.octets + OCTETS - 1u) / OCTETS, g = linear_group(), pixel_block = g / blocks;
    uint octet = (g - pixel_block * blocks) * OCTETS + gl_LocalInvocationIndex % OCTETS;
    uint pixel = pixel_block * (gl_WorkGroupSize.x / OCTETS) + gl_LocalInvocationIndex / OCTETS;
    if (pixel >= push.pixels || octet >= push.octets)
        return;
    uint image = divide_by(pixel, push.plane_magic, push.plane_shift), at = pixel * push.octets + octet;
    uint from = (image * push.channels + octet * 8u) * push.plane + pixel - image * push.plane;
    uint count = min(push.channels - octet * 8u, 8u);
#ifdef UNPACK
    Octet o = load_octet(push.packed, at, HALVES);
    for (uint c = 0u; c < 8u; ++c)
        if (c < count)
            F32(push.plain).v[from + c * push.plane] = c < 4u ? o.low[c] : o.high[c - 4u];
#else
    Octet o = Octet(vec4(0.0), vec4(0.0));
    for (uint c = 0u; c < 8u; ++c) {
        float v = c < count ? F32(push.plain).v[from + c * push.plane] : 0.0;
        if (c < 4u)
            o.low[c] = v;
        else
            o.high[c - 4u] = v;
    }
    store_octet(push.packed, at, HALVES, o);
#endif
}
