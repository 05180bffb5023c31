// kernel: pool_spread_nhwc
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "octet.glsl"
#include "pool_global_nhwc.push.h"

// Backward of global average pooling into HK_LAYOUT_NHWC8: every pixel of an image gets dy / plane. Floor: the bytes of dx.
layout(constant_id = 3) const bool HALVES = false;

void main()
{
    uint i = linear_invocation(), pixel = i / push.octets, octet = i - pixel * push.octets, image = pixel / push.plane;
    if (image >= push.images)
        return;
    vec4 low = vec4(0.0), high = vec4(0.0);
    [[unroll]] for (uint c = 0u; c < 8u; ++c) {
        float dy = octet * 8u + c < push.channels ? F32(push.y).v[image * push.channels + octet * 8u + c] : 0.0;
        if (c < 4u)
            low[c] = dy;
        else
            high[c - 4u] = dy;
    }
    store_octet(push.x, i, HALVES, Octet(low / float(push.plane), high / float(push.plane)));
}
