// kernel: batchnorm
// kernel: batchnorm_subgroup -DSUBGROUP=1 needs=subgroup,subgroup-size
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "reduce.glsl"
layout(constant_id = 12) const bool TRAINING = false;
#define SINGLE_NAN !TRAINING
#include "batchnorm.glsl"
#include "batchnorm.push.h"

// y = pool(relu((x - mean) / sqrt(variance + epsilon) * scale + bias)), with given statistics or with those that
// batchnorm_stats has prepared: every team finishes its channel's itself, which costs it a few loads and saves a
// dispatch.

layout(constant_id = 13) const bool SAVE = false; // statistics of the batch
layout(constant_id = 14) const bool RUNNING = false; // new running statistics
layout(constant_id = 15) const bool AFFINE = false; // what happens to x, for a kernel that does it itself

TEAM_REDUCE(team_sum2, vec2, team_add)

// (mean, variance) from the partial results. Sums are taken around the first chunk's mean, which is near enough to the
// whole mean that their difference keeps its digits.
vec2 finish_statistics(Geometry g, Item it)
{
    uint row = it.channel / g.group;
    float near = F32x4(push.partial).v[row].x;
    vec2 sums = vec2(0.0);
    for (uint c = team_lane(); c < g.stat_chunks; c += LANES) {
        vec4 p = F32x4(push.partial).v[c * g.stat_rows + row];
        float apart = (p.x - near) + p.w;
        sums += vec2(p.z * apart, p.y + p.z * apart * apart);
    }
    sums = team_sum2(sums) / g.count;
    float variance = max(sums.y - sums.x * sums.x, 0.0);
    if (it.live && it.chunk == 0u && team_lane() == 0u && row * g.group == it.channel) {
        if (SAVE) {
            F32(push.saved_mean).v[row] = near + sums.x;
            F32(push.saved_deviation).v[row] = deviation_of(variance, g.epsilon);
        }
        if (RUNNING) {
            float old_mean = F32(push.mean).v[row], old_variance = F32(push.variance).v[row];
            F32(push.mean_out).v[row] = old_mean * g.momentum + (near + sums.x) * (1.0 - g.momentum);
            float unbiased = variance * g.variance_factor;
            F32(push.variance_out).v[row] = old_variance * g.momentum + unbiased * (1.0 - g.momentum);
        }
    }
    return vec2(near + sums.x, variance);
}

void main()
{
    Geometry g = Geometry(push.geometry);
    Item it = item_of(g);
    uint param = it.channel / g.param_divide % g.param_count;
    vec2 statistics;
    if (TRAINING)
        statistics = finish_statistics(g, it);
    else
        statistics = vec2(F32(push.mean).v[param], F32(push.variance).v[param]);
    float slope = F32(push.scale).v[param] * deviation_of(statistics.y, g.epsilon);
    Affine a = Affine(statistics.x, slope, F32(push.bias).v[param]);
    if (AFFINE && it.live && it.chunk == 0u && team_lane() == 0u)
        F32x4(push.affine).v[it.channel] = vec4(a.mean, a.slope, a.bias, 0.0);

    uvec3 stride = place_of(g, LANES);
    uvec3 place = place_of(g, it.first + team_lane());
    for (uint unit = it.first + team_lane(); unit < it.end; unit += HELD * LANES) {
        vec4 upper[HELD], lower[HELD];
        uint at[HELD], count[HELD];
        [[unroll]] for (uint q = 0u; q < HELD; q++) {
            if (unit + q * LANES < it.end) {
                uint from = x_offset(g, it.channel, place);
                count[q] = filled(g, place);
                at[q] = y_offset(g, it.channel, place);
                upper[q] = load4(g, push.x, from, count[q]);
                if (POOL)
                    lower[q] = load4(g, push.x, from + g.row_extent, count[q]);
            }
            place = place_next(g, place, stride);
        }
        [[unroll]] for (uint q = 0u; q < HELD; q++) {
            if (unit + q * LANES >= it.end)
                break;
            vec4 z = normalize(a, upper[q]);
            if (POOL) {
                vec4 z_lower = normalize(a, lower[q]);
                vec2 y = vec2(window_max(z.xy, z_lower.xy).best, window_max(z.zw, z_lower.zw).best);
                store2(push.y, at[q], count[q] / 2u, RELU ? relu(y.xyxy).xy : y);
            } else
                store4(g, push.y, at[q], count[q], RELU ? relu(z) : z);
        }
    }
}
