// kernel: gemm_norm
// kernel: gemm_norm_subgroup -DSUBGROUP=1 needs=subgroup,subgroup-size
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "reduce.glsl"
#include "reduce_rows.glsl"
#include "octet.glsl"
#include "gemm_norm.push.h"

// The second half of a product that is split over K and normalized: adds the splits' partial sums in order like
// gemm_reduce.comp and normalizes the row like norm.comp, by a team that keeps it in registers. Rows are whole vectors.
//
//     z = alpha sum + beta addend + residual        y = (z - mean) / sqrt(variance + epsilon) scale + bias
//
// Floor: the bytes of partial sums, residual, z and y once.
layout(constant_id = 10) const uint SPLITS = 2;
layout(constant_id = 11) const bool ADDEND = false;
layout(constant_id = 12) const bool RESIDUAL = false;
layout(constant_id = 13) const bool SAVE_Z = false;
layout(constant_id = 14) const bool BIASED = false;
layout(constant_id = 15) const bool HALF_RESIDUAL = false; // stored as float16
layout(constant_id = 16) const bool HALF_Z = false;
layout(constant_id = 17) const bool HALF_Y = false;

TEAM_REDUCE(team_sum, float, team_add)

vec4 finished(uint row, uint unit)
{
    uint width = push.extent / 4u, at = row * width + unit;
    vec4 sum = F32x4(push.sums).v[at];
    [[unroll]] for (uint s = 1u; s < SPLITS; s++)
        sum += F32x4(push.sums).v[s * push.rows * width + at];
    sum *= push.alpha;
    if (ADDEND)
        sum += push.beta * F32x4(push.addend).v[unit];
    if (RESIDUAL)
        sum += load_half_octet(push.residual, at, HALF_RESIDUAL);
    return sum;
}

void store(uvec2 to, uint at, bool halves, vec4 x)
{
    if (halves)
        U32x2(to).v[at] = pack_half_octet(x);
    else
        F32x4(to).v[at] = x;
}

void main()
{
    uint row = team_item(), width = push.extent / 4u;
    bool live = row < push.rows;
    uint units = live ? width : 0u;
    float around = live ? finished(row, 0u).x : 0.0; // sums around 0 would lose the digits of a large mean
    vec4 sum = vec4(0.0), squares = vec4(0.0), x[HELD_SPACE];
    [[unroll]] for (uint q = 0u; q < HELD; q++) {
        uint unit = team_lane() + q * LANES;
        x[q] = unit < units ? finished(row, unit) : vec4(around);
        sum += x[q] - around;
        if (SAVE_Z && unit < units)
            store(push.z, row * width + unit, HALF_Z, x[q]);
    }
    float mean = around + team_sum(sum4(sum)) / float(push.extent);
    [[unroll]] for (uint q = 0u; q < HELD; q++) {
        x[q] = team_lane() + q * LANES < units ? x[q] - mean : vec4(0.0);
        squares += x[q] * x[q];
    }
    float deviation = 1.0 / sqrt(team_sum(sum4(squares)) / float(push.extent) + push.epsilon);
    [[unroll]] for (uint q = 0u; q < HELD; q++) {
        uint unit = team_lane() + q * LANES;
        if (unit >= units)
            break;
        vec4 y = x[q] * deviation * F32x4(push.scale).v[unit];
        if (BIASED)
            y += F32x4(push.bias).v[unit];
        store(push.y, row * width + unit, HALF_Y, y);
    }
}
