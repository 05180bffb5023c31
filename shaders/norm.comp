// kernel: norm
// kernel: norm_subgroup -DSUBGROUP=1 needs=subgroup,subgroup-size
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "reduce.glsl"
#include "reduce_rows.glsl"
#include "octet.glsl"
#include "norm.push.h"

// LayerNormalization and RMSNormalization, one team per row. The variance is the mean square of what is left after
// the mean is taken away (two walks over registers or cache), since the difference of mean square and squared mean
// loses all digits when the mean is large.

layout(constant_id = 10) const bool CENTERED = true; // LayerNormalization
layout(constant_id = 11) const bool BIASED = false;
layout(constant_id = 12) const bool SAVE_MEAN = false;
layout(constant_id = 13) const bool SAVE_DEVIATION = false;
layout(constant_id = 14) const bool HALF_X = false; // stored as float16; with VECTOR alone
layout(constant_id = 15) const bool HALF_Y = false;

const uint BLOCK = 32; // terms of a partial sum

TEAM_REDUCE(team_sum, float, team_add)

// Missing elements get the value that sums are taken around, so that they add nothing.
vec4 load(uint base, uint unit, float around)
{
    if (HALF_X)
        return load_half_octet(push.x, base / 4u + unit, true);
    return row_load(push.x, base, 1u, push.extent, unit, around);
}

float first_element(uint base) { return HALF_X ? unpackHalf2x16(U32(push.x).v[base / 2u]).x : F32(push.x).v[base]; }

vec4 centered(vec4 x, float mean, uint unit) { return CENTERED ? (x - mean) * row_mask(push.extent, unit) : x; }

void store(uint base, uint unit, vec4 centered_x, float deviation)
{
    vec4 y = centered_x * deviation * row_load(push.scale, 0u, 1u, push.extent, unit, 0.0);
    if (BIASED)
        y += row_load(push.bias, 0u, 1u, push.extent, unit, 0.0);
    if (HALF_Y)
        U32x2(push.y).v[base / 4u + unit] = pack_half_octet(y);
    else
        row_store(push.y, base, 1u, push.extent, unit, y);
}

float finish(uint row, bool live, float mean, float squares)
{
    float deviation = 1.0 / sqrt(squares / float(push.extent) + push.epsilon);
    if (live && team_lane() == 0u) {
        if (SAVE_MEAN)
            F32(push.mean).v[row] = mean;
        if (SAVE_DEVIATION)
            F32(push.deviation).v[row] = deviation;
    }
    return deviation;
}

void main()
{
    uint row = team_item();
    bool live = row < push.rows;
    uint base = live ? row * push.extent : 0u;
    uint units = live ? (push.extent + 3u) / 4u : 0u;
    float around = CENTERED && live ? first_element(base) : 0.0; // sums around 0 would lose the digits of a large mean
    vec4 sum = vec4(0.0), squares = vec4(0.0);
    if (HELD > 0u) {
        vec4 x[HELD_SPACE];
        [[unroll]] for (uint q = 0u; q < HELD; q++) {
            uint unit = team_lane() + q * LANES;
            x[q] = unit < units ? load(base, unit, around) : vec4(around);
            sum += x[q] - around;
        }
        float mean = CENTERED ? around + team_sum(sum4(sum)) / float(push.extent) : 0.0;
        [[unroll]] for (uint q = 0u; q < HELD; q++) {
            uint unit = team_lane() + q * LANES;
            x[q] = unit < units ? centered(x[q], mean, unit) : vec4(0.0);
            squares += x[q] * x[q];
        }
        float deviation = finish(row, live, mean, team_sum(sum4(squares)));
        [[unroll]] for (uint q = 0u; q < HELD; q++) {
            uint unit = team_lane() + q * LANES;
            if (unit < units)
                store(base, unit, x[q], deviation);
        }
        return;
    }
    for (uint unit = team_lane(); CENTERED && unit < units;) {
        vec4 block = vec4(0.0); // a partial sum of its own, so that rounding errors stay those of short sums
        for (uint end = min(units, unit + BLOCK * LANES); unit < end; unit += LANES)
            block += load(base, unit, around) - around;
        sum += block;
    }
    float mean = CENTERED ? around + team_sum(sum4(sum)) / float(push.extent) : 0.0;
    for (uint unit = team_lane(); unit < units;) {
        vec4 block = vec4(0.0);
        for (uint end = min(units, unit + BLOCK * LANES); unit < end; unit += LANES) {
            vec4 d = centered(load(base, unit, around), mean, unit);
            block += d * d;
        }
        squares += block;
    }
    float deviation = finish(row, live, mean, team_sum(sum4(squares)));
    for (uint unit = team_lane(); unit < units; unit += LANES)
        store(base, unit, centered(load(base, unit, around), mean, unit), deviation);
}
