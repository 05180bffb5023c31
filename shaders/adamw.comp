// kernel: adamw
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "step.glsl"
#include "adamw.push.h"

// torch.optim.AdamW over flat arenas, in its order of operations. An invocation reads all of its elements before it
// writes them and touches no others, so every new state may lie where the old one lies.

layout(constant_id = 3) const bool VECTOR = true; // all seven begin at a multiple of 16 bytes

struct State {
    vec4 p, m, v;
};

State update_state(Step s, State a, vec4 g)
{
    g *= s.grad_scale;
    a.p *= 1.0 - s.lr * push.weight_decay;
    a.m += (g - a.m) * push.beta1_rest;
    a.v = a.v * push.beta2 + push.beta2_rest * g * g;
    float step_size = s.lr / (1.0 - s.beta1_power);
    vec4 denominator = sqrt(a.v) / sqrt(1.0 - s.beta2_power) + push.eps;
    a.p -= step_size * (a.m / denominator);
    return a;
}

void main()
{
    Step s = Step(push.step);
    uint i = linear_invocation();
    if (VECTOR && i < push.count / 4u) {
        State a = State(F32x4(push.parameters).v[i], F32x4(push.first).v[i], F32x4(push.second).v[i]);
        a = update_state(s, a, F32x4(push.gradients).v[i]);
        F32x4(push.new_parameters).v[i] = a.p;
        F32x4(push.new_first).v[i] = a.m;
        F32x4(push.new_second).v[i] = a.v;
        return;
    }
    for (uint k = 4u * i; k < min(4u * i + 4u, push.count); k++) {
        State a = State(vec4(F32(push.parameters).v[k]), vec4(F32(push.first).v[k]), vec4(F32(push.second).v[k]));
        a = update_state(s, a, vec4(F32(push.gradients).v[k]));
        F32(push.new_parameters).v[k] = a.p.x;
        F32(push.new_first).v[k] = a.m.x;
        F32(push.new_second).v[k] = a.v.x;
    }
}
