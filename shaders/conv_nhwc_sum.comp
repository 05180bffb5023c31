// kernel: conv_nhwc_sum
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "activation.glsl"
#include "octet.glsl"
#include "conv_nhwc.push.h"

// The end of conv_nhwc_matrix.comp's splits: push.x holds their partial sums, which are added in order. An invocation
// makes four channels of a pixel.
layout(constant_id = 3) const uint EPILOGUE = 0; // bit 0: bias, bit 1: residual, bit 3: gate
layout(constant_id = 4) const uint ACTIVATION = 0;
#include "conv_nhwc.glsl"

void main()
{
    uint row = push.octets_out * 2u, i = linear_invocation(), total = push.pixels * row;
    if (i >= total)
        return;
    vec4 y = vec4(0.0);
    for (uint s = 0u; s < push.splits; ++s)
        y += F32x4(push.x).v[s * total + i];
    uint pixel = i / row;
    y = finish4(y, pixel, (i - pixel * row) * 4u, true);
    U32x2(push.y).v[i] = pack_half_octet(y);
}
