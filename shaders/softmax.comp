// kernel: softmax
// kernel: softmax_subgroup -DSUBGROUP=1 needs=subgroup,subgroup-size
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "reduce.glsl"
#include "reduce_rows.glsl"
#include "softmax.push.h"

// y = exp(x - max) / sum, or its logarithm, one team per row. Rows that fit are held in registers and read once; longer
// ones are read twice: the first time, maximum and sum are found together, the sum being rescaled whenever the maximum
// grows.

layout(constant_id = 10) const bool LOGARITHM = false;

#define MINUS_INFINITY uintBitsToFloat(0xff800000u)

TEAM_REDUCE(team_sum, float, team_add)
TEAM_REDUCE(team_max, float, team_larger)

vec4 load(uint base, uint unit) { return row_load(push.x, base, push.inner, push.extent, unit, MINUS_INFINITY); }

void store(uint base, uint unit, vec4 shifted, float sum)
{
    vec4 y = LOGARITHM ? shifted - log(sum) : shifted / sum;
    row_store(push.y, base, push.inner, push.extent, unit, y);
}

void held_row(uint base, uint units)
{
    vec4 held[HELD_SPACE];
    float largest = MINUS_INFINITY;
    [[unroll]] for (uint q = 0u; q < HELD; q++) {
        uint unit = team_lane() + q * LANES;
        held[q] = unit < units ? load(base, unit) : vec4(MINUS_INFINITY);
        largest = max(largest, max4(held[q]));
    }
    largest = team_max(largest);
    float sum = 0.0;
    [[unroll]] for (uint q = 0u; q < HELD; q++) {
        vec4 e = exp(held[q] - largest);
        held[q] = LOGARITHM ? held[q] - largest : e;
        sum += sum4(e);
    }
    sum = team_sum(sum);
    [[unroll]] for (uint q = 0u; q < HELD; q++) {
        uint unit = team_lane() + q * LANES;
        if (unit < units)
            store(base, unit, held[q], sum);
    }
}

void long_row(uint base, uint units)
{
    float largest = MINUS_INFINITY, sum = 0.0;
    for (uint unit = team_lane(); unit < units; unit += LANES) {
        vec4 x = load(base, unit);
        float m = max4(x);
        if (m > largest) {
            sum *= exp(largest - m);
            largest = m;
        }
        if (largest > MINUS_INFINITY) // else there was no term yet, and inf - inf is none
            sum += sum4(exp(x - largest));
    }
    float own = largest;
    largest = team_max(largest);
    sum = team_sum(own > MINUS_INFINITY ? sum * exp(own - largest) : sum);
    for (uint unit = team_lane(); unit < units; unit += LANES) {
        vec4 x = load(base, unit) - largest;
        store(base, unit, LOGARITHM ? x : exp(x), sum);
    }
}

void main()
{
    uint row = team_item();
    bool live = row < push.rows;
    uint outer = live ? row / push.inner : 0u;
    uint base = outer * push.extent * push.inner + (live ? row - outer * push.inner : 0u);
    uint units = live ? (push.extent + 3u) / 4u : 0u;
    if (HELD > 0u)
        held_row(base, units);
    else
        long_row(base, units);
}
