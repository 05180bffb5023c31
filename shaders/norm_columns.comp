// kernel: norm_columns
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "reduce.glsl"
#include "reduce_rows.glsl"
#include "norm_columns.push.h"

// Sums over the rows of dy * n (gradient of scale) and dy (of bias), n = (x - mean) * deviation: a work item is four
// columns of one chunk of rows, its lanes take every LANES-th row.

layout(constant_id = 10) const bool CENTERED = true;
layout(constant_id = 11) const bool WANT_SCALE = true;
layout(constant_id = 12) const bool WANT_BIAS = true;

const uint BLOCK = 64; // terms of a partial sum, so that rounding errors stay those of short sums

TEAM_REDUCE(team_sum, vec4, team_add)

void main()
{
    uint units = (push.extent + 3u) / 4u;
    uint item = team_item();
    bool live = item < units * push.chunks;
    uint chunk = live ? item / units : 0u;
    uint unit = live ? item - chunk * units : 0u;
    uint end = live ? min(push.rows, (chunk + 1u) * push.chunk) : 0u;
    vec4 scale = vec4(0.0), bias = vec4(0.0), scale_part = vec4(0.0), bias_part = vec4(0.0);
    uint rest = BLOCK;
    for (uint row = chunk * push.chunk + team_lane(); row < end; row += LANES) {
        vec4 dy = row_load(push.dy, row * push.extent, 1u, push.extent, unit, 0.0);
        if (WANT_SCALE) {
            float mean = CENTERED ? F32(push.mean).v[row] : 0.0;
            vec4 x = row_load(push.x, row * push.extent, 1u, push.extent, unit, 0.0);
            scale_part += dy * ((x - mean) * F32(push.deviation).v[row]);
        }
        bias_part += dy;
        if (--rest == 0u) {
            scale += scale_part;
            bias += bias_part;
            scale_part = bias_part = vec4(0.0);
            rest = BLOCK;
        }
    }
    scale += scale_part;
    bias += bias_part;
    if (WANT_SCALE)
        scale = team_sum(scale);
    if (WANT_BIAS)
        bias = team_sum(bias);
    if (!live || team_lane() != 0u)
        return;
    uint at = chunk * push.extent;
    if (WANT_SCALE)
        row_store(push.dscale, at, 1u, push.extent, unit, scale);
    if (WANT_BIAS)
        row_store(push.dbias, at, 1u, push.extent, unit, bias);
}
