// kernel: norm_grad
// kernel: norm_grad_subgroup -DSUBGROUP=1 needs=subgroup,subgroup-size
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "reduce.glsl"
#include "reduce_rows.glsl"
#include "norm_grad.push.h"

// With g = dy * scale and n = (x - mean) * deviation: dx = deviation (g - mean(g) - n mean(g n)), without mean(g) for
// RMSNormalization. One team per row.

layout(constant_id = 10) const bool CENTERED = true;

TEAM_REDUCE(team_sum, vec2, team_add)

struct Pair {
    vec4 g, n;
};

Pair load(uint base, uint unit, float mean, float deviation)
{
    Pair p;
    p.g = row_load(push.dy, base, 1u, push.extent, unit, 0.0) * row_load(push.scale, 0u, 1u, push.extent, unit, 0.0);
    p.n = (row_load(push.x, base, 1u, push.extent, unit, 0.0) - mean) * deviation; // g is 0 where x is missing
    return p;
}

vec2 terms(Pair p) { return vec2(CENTERED ? sum4(p.g) : 0.0, dot(p.g, p.n)); }

void store(uint base, uint unit, Pair p, vec2 means, float deviation)
{
    row_store(push.dx, base, 1u, push.extent, unit, deviation * (p.g - means.x - p.n * means.y));
}

void main()
{
    uint row = team_item();
    bool live = row < push.rows;
    uint base = live ? row * push.extent : 0u;
    uint units = live ? (push.extent + 3u) / 4u : 0u;
    float mean = CENTERED && live ? F32(push.mean).v[row] : 0.0;
    float deviation = live ? F32(push.deviation).v[row] : 0.0;
    vec2 sums = vec2(0.0);
    if (HELD > 0u) {
        Pair p[HELD_SPACE];
        [[unroll]] for (uint q = 0u; q < HELD; q++) {
            uint unit = team_lane() + q * LANES;
            p[q] = Pair(vec4(0.0), vec4(0.0));
            if (unit < units)
                p[q] = load(base, unit, mean, deviation);
            sums += terms(p[q]);
        }
        sums = team_sum(sums) / float(push.extent);
        [[unroll]] for (uint q = 0u; q < HELD; q++) {
            uint unit = team_lane() + q * LANES;
            if (unit < units)
                store(base, unit, p[q], sums, deviation);
        }
        return;
    }
    for (uint unit = team_lane(); unit < units; unit += LANES)
        sums += terms(load(base, unit, mean, deviation));
    sums = team_sum(sums) / float(push.extent);
    for (uint unit = team_lane(); unit < units; unit += LANES)
        store(base, unit, load(base, unit, mean, deviation), sums, deviation);
}
