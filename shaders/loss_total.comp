// kernel: loss_total
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "reduce.glsl"
#include "loss_total.push.h"

// The workgroups' sums of loss and weight → the loss, by one team.

layout(constant_id = 8) const uint RESULT = 2; // the loss's sum 1, its mean 2, the weights' sum 3

TEAM_REDUCE(team_sum2, vec2, team_add)

void main()
{
    vec2 sums = vec2(0.0);
    for (uint i = team_lane(); i < push.groups; i += LANES)
        sums += vec2(F32(push.partial).v[i], F32(push.partial).v[push.groups + i]);
    sums = team_sum2(sums);
    if (team_item() == 0u && team_lane() == 0u)
        F32(push.loss).v[0] = RESULT == 3u ? sums.y : RESULT == 2u ? sums.x / sums.y : sums.x;
}
