// kernel: loss_grad
// kernel: loss_grad_subgroup -DSUBGROUP=1 needs=subgroup,subgroup-size
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "reduce.glsl"
#include "reduce_rows.glsl"
#include "loss.glsl"
#include "loss_grad.push.h"

// dscores = dloss * weight / (sum of weights) * (softmax(scores) - one-hot label), one team per row. It needs nothing
// from the forward pass, so both can run side by side; COUNT makes every workgroup sum the weights of all rows
// itself, which for a few thousand labels is cheaper than a dispatch before.

layout(constant_id = 14) const bool COUNT = true;

#include "loss_rows.glsl"

shared float group_sums[ITEMS * LANES];

float total_weight()
{
    if (!COUNT)
        return F32(push.total).v[0];
    float sum = 0.0;
    uvec2 ignored = uvec2(push.ignored_low, push.ignored_high);
    for (uint row = team_thread(); row < push.rows; row += ITEMS * LANES)
        sum += row_weight(label_at(push.labels, row, push.classes, ignored), push.weights);
    group_sums[team_thread()] = sum;
    for (uint h = ITEMS * LANES / 2u; h > 0u; h /= 2u) {
        barrier();
        if (team_thread() < h)
            group_sums[team_thread()] += group_sums[team_thread() + h];
    }
    barrier();
    return group_sums[0];
}

void store(uint base, uint unit, vec4 probability, Label label, float factor)
{
    for (uint k = 0u; k < 4u; k++)
        probability[k] -= 4u * unit + k == label.class_index ? 1.0 : 0.0;
    row_store(push.dscores, base, push.inner, push.classes, unit, label.valid ? probability * factor : vec4(0.0));
}

void main()
{
    uint row = team_item();
    bool live = row < push.rows;
    uint outer = live ? row / push.inner : 0u;
    uint base = outer * push.classes * push.inner + (live ? row - outer * push.inner : 0u);
    uint units = live ? (push.classes + 3u) / 4u : 0u;
    Label label = label_at(push.labels, live ? row : 0u, push.classes, uvec2(push.ignored_low, push.ignored_high));
    float factor = row_weight(label, push.weights);
    if (REDUCTION == REDUCTION_MEAN)
        factor /= total_weight();
    factor *= F32(push.dloss).v[REDUCTION == REDUCTION_NONE && live ? row : 0u];

    if (LIKELIHOOD) {
        for (uint unit = team_lane(); unit < units; unit += LANES)
            store(base, unit, vec4(0.0), label, factor);
        return;
    }
    if (HELD > 0u) {
        float largest = MINUS_INFINITY, sum = 0.0;
        vec4 x[HELD_SPACE];
        [[unroll]] for (uint q = 0u; q < HELD; q++) {
            uint unit = team_lane() + q * LANES;
            x[q] = unit < units ? load_scores(base, unit) : vec4(MINUS_INFINITY);
            largest = max(largest, max4(x[q]));
        }
        largest = team_max(largest);
        [[unroll]] for (uint q = 0u; q < HELD; q++) {
            x[q] = exp(x[q] - largest);
            sum += sum4(x[q]);
        }
        sum = team_sum(sum);
        [[unroll]] for (uint q = 0u; q < HELD; q++) {
            uint unit = team_lane() + q * LANES;
            if (unit < units)
                store(base, unit, x[q] / sum, label, factor);
        }
        return;
    }
    vec2 r = largest_and_sum(base, units);
    for (uint unit = team_lane(); unit < units; unit += LANES)
        store(base, unit, exp(load_scores(base, unit) - r.x) / r.y, label, factor);
}
