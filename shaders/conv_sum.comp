// kernel: conv_sum
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "activation.glsl"
#include "conv_index.glsl"
#include "conv_sum.push.h"

// The end of every split: results are the sums of their partial sums, always added in the same order.
//
// A workgroup is x results times y lanes; lane j adds splits j, j + LANES, ..., then the first lane adds the lanes. One
// lane needs no shared memory and no barrier. WIDE: an invocation sums four results at once; then none of them lies in
// another channel or behind the end. Floor: the bytes of the partial sums.
layout(constant_id = 3) const uint EPILOGUE = 0; // bit 0: bias, bit 1: residual
layout(constant_id = 4) const uint ACTIVATION = 0;
layout(constant_id = 5) const uint LANES = 1;   // = local size y
layout(constant_id = 6) const uint RESULTS = 1; // = local size x
layout(constant_id = 7) const bool WIDE = false;
layout(constant_id = 8) const uint TAPS = 0; // of a window, if the sums are those of weights in HK_LAYOUT_NHWC8; else 0

shared vec4 lane_sums[LANES > 1 ? LANES * RESULTS : 1];

vec4 load(uvec2 base, uint i) { return WIDE ? F32x4(base).v[i >> 2] : vec4(F32(base).v[i], 0.0, 0.0, 0.0); }

void store(uvec2 base, uint i, vec4 y)
{
    if (WIDE)
        F32x4(base).v[i >> 2] = y;
    else
        F32(base).v[i] = y.x;
}

// Where result i lies in the sums of a split.
uint place(uint i)
{
    if (TAPS == 0u)
        return i;
    if (i >= push.count)
        return i - push.count + push.bias_first;
    uint taps = max(TAPS, 1u), rest = i / taps, output_channel = divide_by(rest, push.plane_magic, push.plane_shift);
    uint octets = push.row / taps; // elements of a tap
    return output_channel * push.row + (i - rest * taps) * octets + rest - output_channel * push.channels;
}

void finish(uint i, vec4 y)
{
    if (i >= push.count) {
        store(push.bias_y, i - push.count, y);
        return;
    }
    if ((EPILOGUE & 1u) != 0u)
        y += F32(push.bias).v[divide_by(i, push.plane_magic, push.plane_shift) % push.channels];
    if ((EPILOGUE & 2u) != 0u)
        y += load(push.residual, i);
    store(push.y, i, activate(ACTIVATION, y, push.alpha, push.beta));
}

void main()
{
    uint total = push.count + push.bias_count, lane = gl_LocalInvocationID.y, slot = gl_LocalInvocationID.x;
    uint i = (linear_group() * RESULTS + slot) * (WIDE ? 4u : 1u), from = place(i);
    vec4 sum = vec4(0.0);
    if (i < total)
        for (uint s = lane; s < push.splits; s += LANES)
            sum += load(push.partial, s * push.stride + from);
    if (LANES > 1) {
        lane_sums[lane * RESULTS + slot] = sum;
        barrier();
        if (lane != 0u)
            return;
        for (uint j = 1u; j < LANES; ++j)
            sum += lane_sums[j * RESULTS + slot];
    }
    if (i < total)
        finish(i, sum);
}
