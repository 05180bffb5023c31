// kernel: batchnorm_grad
// kernel: batchnorm_grad_subgroup -DSUBGROUP=1 needs=subgroup,subgroup-size
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "reduce.glsl"
layout(constant_id = 12) const bool FROZEN = false; // `deviation` holds a variance, and statistics are constants
#define SINGLE_NAN FROZEN
#include "batchnorm.glsl"
#include "batchnorm_grad.push.h"
#include "batchnorm_gated.glsl"

// Second pass of the backward: dx = deviation (scale d - mean(scale d) - n mean(scale d n)), means over all elements
// that share a statistic; with FROZEN, deviation * scale * d. Each team adds up the first pass's sums itself.

layout(constant_id = 13) const bool PARAMETERS = false; // write dscale and dbias
layout(constant_id = 14) const bool GROUPED = false; // several channels, each with its own scale, share a statistic

TEAM_REDUCE(team_sum2, vec2, team_add)

// (sum d, sum d n) over the statistic's elements, weighted by scale where channels differ in it.
vec2 total_sums(Geometry g, Item it)
{
    uint plane = g.stat_chunks * g.channels;
    uint first = it.channel / g.group * g.group;
    vec2 sums = vec2(0.0);
    for (uint e = team_lane(); e < g.stat_chunks * g.group; e += LANES) {
        uint chunk = GROUPED ? e / g.group : e;
        uint channel = GROUPED ? first + e - chunk * g.group : it.channel;
        uint at = chunk * g.channels + channel;
        vec2 s = vec2(F32(push.sums).v[at], F32(push.sums).v[plane + at]);
        sums += GROUPED ? s * F32(push.scale).v[channel / g.param_divide % g.param_count] : s;
    }
    return team_sum2(sums);
}

void main()
{
    Geometry g = Geometry(push.geometry);
    Item it = item_of(g);
    float deviation;
    Affine a = affine_of(g, it, deviation);
    vec2 means = vec2(0.0); // times deviation, as dx needs them; the second once more for n
    if (!FROZEN) {
        vec2 sums = total_sums(g, it);
        if (PARAMETERS && it.live && it.chunk == 0u && team_lane() == 0u) {
            F32(push.dbias).v[it.channel] = sums.x;
            F32(push.dscale).v[it.channel] = sums.y;
        }
        means = sums / g.count * (GROUPED ? deviation : a.slope) * vec2(1.0, deviation);
    }
    uvec3 stride = place_of(g, LANES);
    uvec3 place = place_of(g, it.first + team_lane());
    for (uint unit = it.first + team_lane(); unit < it.end; unit += HELD * LANES) {
        Raw raw[HELD];
        uvec3 places[HELD];
        [[unroll]] for (uint q = 0u; q < HELD; q++) {
            places[q] = place;
            if (unit + q * LANES < it.end)
                raw[q] = load_raw(g, it, place);
            place = place_next(g, place, stride);
        }
        [[unroll]] for (uint q = 0u; q < HELD; q++) {
            if (unit + q * LANES >= it.end)
                break;
            uint to = x_offset(g, it.channel, places[q]), count = filled(g, places[q]);
            Gated r = gated(a, raw[q]);
            store4(g, push.dx, to, count, r.d_upper * a.slope - means.x - r.x_upper * means.y);
            if (POOL)
                store4(g, push.dx, to + g.row_extent, count, r.d_lower * a.slope - means.x - r.x_lower * means.y);
        }
    }
}
