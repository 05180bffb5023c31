// kernel: softmax_grad
// kernel: softmax_grad_subgroup -DSUBGROUP=1 needs=subgroup,subgroup-size
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "reduce.glsl"
#include "reduce_rows.glsl"
#include "softmax_grad.push.h"

// Softmax: dx = y (dy - sum(dy y)). LogSoftmax: dx = dy - exp(y) sum(dy). One team per row.

layout(constant_id = 10) const bool LOGARITHM = false;

TEAM_REDUCE(team_sum, float, team_add)

vec4 load(uvec2 address, uint base, uint unit) { return row_load(address, base, push.inner, push.extent, unit, 0.0); }
float term(vec4 dy, vec4 y) { return LOGARITHM ? sum4(dy) : sum4(dy * y); }

void store(uint base, uint unit, vec4 dy, vec4 y, float sum)
{
    vec4 dx = LOGARITHM ? dy - exp(y) * sum : y * (dy - sum);
    row_store(push.dx, base, push.inner, push.extent, unit, dx);
}

void main()
{
    uint row = team_item();
    bool live = row < push.rows;
    uint outer = live ? row / push.inner : 0u;
    uint base = outer * push.extent * push.inner + (live ? row - outer * push.inner : 0u);
    uint units = live ? (push.extent + 3u) / 4u : 0u;
    float sum = 0.0;
    if (HELD > 0u) {
        vec4 dy[HELD_SPACE], y[HELD_SPACE];
        [[unroll]] for (uint q = 0u; q < HELD; q++) {
            uint unit = team_lane() + q * LANES;
            dy[q] = y[q] = vec4(0.0);
            if (unit < units) {
                dy[q] = load(push.dy, base, unit);
                y[q] = load(push.y, base, unit);
            }
            sum += term(dy[q], y[q]);
        }
        sum = team_sum(sum);
        [[unroll]] for (uint q = 0u; q < HELD; q++) {
            uint unit = team_lane() + q * LANES;
            if (unit < units)
                store(base, unit, dy[q], y[q], sum);
        }
        return;
    }
    for (uint unit = team_lane(); unit < units; unit += LANES)
        sum += term(load(push.dy, base, unit), load(push.y, base, unit));
    sum = team_sum(sum);
    for (uint unit = team_lane(); unit < units; unit += LANES)
        store(base, unit, load(push.dy, base, unit), load(push.y, base, unit), sum);
}
