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
// lane needs no shared memory and no barrier. Floor: the bytes of the partial sums.
layout(constant_id = 3) const uint EPILOGUE = 0; // bit 0: bias, bit 1: residual
layout(constant_id = 4) const uint ACTIVATION = 0;
layout(constant_id = 5) const uint LANES = 1;   // = local size y
layout(constant_id = 6) const uint RESULTS = 1; // = local size x

shared float lane_sums[LANES > 1 ? LANES * RESULTS : 1];

void finish(uint i, float y)
{
    if (i >= push.count) {
        F32(push.bias_y).v[i - push.count] = y;
        return;
    }
    if ((EPILOGUE & 1u) != 0u)
        y += F32(push.bias).v[divide_by(i, push.plane_magic, push.plane_shift) % push.channels];
    if ((EPILOGUE & 2u) != 0u)
        y += F32(push.residual).v[i];
    F32(push.y).v[i] = activate(ACTIVATION, y, push.alpha, push.beta);
}

void main()
{
    uint total = push.count + push.bias_count, lane = gl_LocalInvocationID.y;
    uint i = linear_group() * RESULTS + gl_LocalInvocationID.x;
    float sum = 0.0;
    if (i < total)
        for (uint s = lane; s < push.splits; s += LANES)
            sum += F32(push.partial).v[s * total + i];
    if (LANES > 1) {
        lane_sums[lane * RESULTS + gl_LocalInvocationID.x] = sum;
        barrier();
        if (lane != 0u)
            return;
        for (uint j = 1u; j < LANES; ++j)
            sum += lane_sums[j * RESULTS + gl_LocalInvocationID.x];
    }
    if (i < total)
        finish(i, sum);
}
