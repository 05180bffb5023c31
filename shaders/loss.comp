// kernel: loss
// kernel: loss_subgroup -DSUBGROUP=1 needs=subgroup,subgroup-size
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "reduce.glsl"
#include "reduce_rows.glsl"
#include "loss.glsl"
#include "loss.push.h"

// Cross entropy: weight * (log(sum(exp(scores))) - score of the label), one team per row, each workgroup taking every
// groups-th set of rows. A workgroup's sum goes to its place in `partial`, and loss_total adds those up; with one
// workgroup the result is final. WANT_LOSS off: only the weights are summed, for a gradient over very many rows.

layout(constant_id = 14) const bool WANT_LOSS = true;
layout(constant_id = 15) const bool WANT_LOG_SUMS = false;
layout(constant_id = 16) const bool FINAL = false; // one workgroup, and `loss` gets the result

#include "loss_rows.glsl"

shared vec2 group_sums[ITEMS * LANES];

float log_sum_exp(uint base, uint units)
{
    vec2 r = largest_and_sum(base, units);
    return r.x + log(r.y);
}

// (loss, weight) of a row; each lane of the team has them.
vec2 row_loss(uint row, bool live)
{
    uint outer = live ? row / push.inner : 0u;
    uint base = outer * push.classes * push.inner + (live ? row - outer * push.inner : 0u);
    float log_sum = 0.0;
    if (!LIKELIHOOD && (WANT_LOSS || WANT_LOG_SUMS))
        log_sum = log_sum_exp(base, live ? (push.classes + 3u) / 4u : 0u);
    if (!live)
        return vec2(0.0);
    Label label = label_at(push.labels, row, push.classes, uvec2(push.ignored_low, push.ignored_high));
    float weight = row_weight(label, push.weights);
    float loss = 0.0;
    if (WANT_LOSS && label.valid)
        loss = weight * (log_sum - F32(push.scores).v[base + label.class_index * push.inner]);
    if (team_lane() == 0u) {
        if (WANT_LOG_SUMS)
            F32(push.log_sums).v[row] = log_sum;
        if (WANT_LOSS && REDUCTION == REDUCTION_NONE)
            F32(push.loss).v[row] = loss;
    }
    return vec2(loss, weight);
}

void main()
{
    vec2 sums = vec2(0.0);
    uint stride = ITEMS * push.groups;
    for (uint first = 0u; first < push.rows; first += stride) { // as often in every team: there are barriers inside
        uint row = first + team_item();
        vec2 r = row_loss(row, row < push.rows && linear_group() < push.groups);
        sums += team_lane() == 0u ? r : vec2(0.0);
    }
    if (REDUCTION == REDUCTION_NONE)
        return;
    uint at = team_thread();
    group_sums[at] = sums;
    for (uint h = ITEMS * LANES / 2u; h > 0u; h /= 2u) {
        barrier();
        if (at < h)
            group_sums[at] += group_sums[at + h];
    }
    if (at != 0u || linear_group() >= push.groups)
        return;
    vec2 total = group_sums[0];
    if (FINAL)
        F32(push.loss).v[0] = !WANT_LOSS ? total.y : REDUCTION == REDUCTION_MEAN ? total.x / total.y : total.x;
    else {
        F32(push.partial).v[linear_group()] = total.x;
        F32(push.partial).v[push.groups + linear_group()] = total.y;
    }
}
