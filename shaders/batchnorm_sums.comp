// kernel: batchnorm_sums
// kernel: batchnorm_sums_subgroup -DSUBGROUP=1 needs=subgroup,subgroup-size
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "reduce.glsl"
layout(constant_id = 12) const bool FROZEN = false; // `deviation` holds a variance, and statistics are constants
#define SINGLE_NAN FROZEN
#include "batchnorm.glsl"
#include "batchnorm_sums.push.h"
#include "batchnorm_gated.glsl"

// First pass of the backward: per chunk of a channel, the sums of the gradient d behind the activation and of d * n,
// where n = (x - mean) * deviation. They are the gradients of bias and scale, and the second pass needs them.

TEAM_REDUCE(team_sum2, vec2, team_add)

void main()
{
    Geometry g = Geometry(push.geometry);
    Item it = item_of(g);
    float deviation;
    Affine a = affine_of(g, it, deviation);
    uvec3 stride = place_of(g, LANES);
    uvec3 place = place_of(g, it.first + team_lane());
    vec2 sums = vec2(0.0);
    for (uint unit = it.first + team_lane(); unit < it.end; unit += HELD * LANES) {
        Raw raw[HELD];
        [[unroll]] for (uint q = 0u; q < HELD; q++) { // zeros add nothing
            raw[q] = Raw(vec4(0.0), vec4(0.0), vec4(0.0));
            if (unit + q * LANES < it.end)
                raw[q] = load_raw(g, it, place);
            place = place_next(g, place, stride);
        }
        vec2 block = vec2(0.0); // a partial sum of its own, so that rounding errors stay those of short sums
        [[unroll]] for (uint q = 0u; q < HELD; q++) {
            Gated r = gated(a, raw[q]);
            block += vec2(sum4(r.d_upper), dot(r.d_upper, r.x_upper));
            if (POOL)
                block += vec2(sum4(r.d_lower), dot(r.d_lower, r.x_lower));
        }
        sums += block;
    }
    sums = team_sum2(sums);
    if (it.live && team_lane() == 0u) {
        uint at = it.chunk * g.channels + it.channel;
        F32(push.sums).v[at] = sums.x;
        F32(push.sums).v[g.chunks * g.channels + at] = sums.y * deviation;
    }
}
