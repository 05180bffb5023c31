// kernel: optimizer
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "step.glsl"
#include "control.glsl"
#include "optimizer.push.h"

// The optimizers of torch.optim over flat arenas, in PyTorch's order of operations. An invocation reads all of its
// elements before it writes them and touches no others, so every new state may lie where the old one lies. A step that
// is not applied writes the old values again.

layout(constant_id = 3) const bool VECTOR = true; // all begin at a multiple of 16 bytes
layout(constant_id = 4) const uint KIND = 0;      // hk_optimizer_kind
layout(constant_id = 5) const bool NESTEROV = false;
layout(constant_id = 6) const bool AVERAGE = false; // keeps an exponential moving average of the parameters

const uint ADAMW = 0, ADAM = 1, SGD = 2, MOMENTUM = 3;

struct Group {
    uint end; // first element behind it
    float lr_scale, weight_decay;
};
layout(buffer_reference, scalar, buffer_reference_align = 4) readonly buffer Groups { Group v[]; };

struct State {
    vec4 p, m, v, average;
};

State update_state(Step s, Control c, Group group, State a, vec4 g)
{
    float lr = s.lr * group.lr_scale;
    g *= c.multiplier;
    if (KIND == ADAMW)
        a.p *= 1.0 - lr * group.weight_decay;
    else
        g += group.weight_decay * a.p;
    if (KIND == ADAMW || KIND == ADAM) {
        a.m += (g - a.m) * push.beta1_rest;
        a.v = a.v * push.beta2 + push.beta2_rest * g * g;
        vec4 denominator = sqrt(a.v) / sqrt(c.rest2) + push.eps;
        a.p -= lr / c.rest1 * (a.m / denominator);
    } else {
        if (KIND == MOMENTUM) {
            a.m = c.updates <= 1.0 ? g : push.beta1 * a.m + push.beta1_rest * g;
            g = NESTEROV ? g + push.beta1 * a.m : a.m;
        }
        a.p -= lr * g;
    }
    if (AVERAGE)
        a.average += (a.p - a.average) * push.average_rest;
    return a;
}

const bool HAS_FIRST = KIND != SGD;
const bool HAS_SECOND = KIND == ADAMW || KIND == ADAM;

Group group_of(uint element)
{
    uint i = 0;
    while (i + 1u < push.group_count && element >= Groups(push.groups).v[i].end)
        i++;
    return Groups(push.groups).v[i];
}

State load_vector(uint i)
{
    return State(F32x4(push.parameters).v[i], HAS_FIRST ? F32x4(push.first).v[i] : vec4(0),
                 HAS_SECOND ? F32x4(push.second).v[i] : vec4(0), AVERAGE ? F32x4(push.average).v[i] : vec4(0));
}

void store_vector(uint i, State a)
{
    F32x4(push.new_parameters).v[i] = a.p;
    if (HAS_FIRST)
        F32x4(push.new_first).v[i] = a.m;
    if (HAS_SECOND)
        F32x4(push.new_second).v[i] = a.v;
    if (AVERAGE)
        F32x4(push.new_average).v[i] = a.average;
}

void main()
{
    Step s = Step(push.step);
    Control c = load_control(push.control);
    uint i = linear_invocation();
    if (4u * i >= push.count)
        return;
    Group group = group_of(4u * i);
    if (VECTOR && i < push.count / 4u) {
        State a = load_vector(i);
        if (c.apply != 0.0)
            a = update_state(s, c, group, a, F32x4(push.gradients).v[i]);
        store_vector(i, a);
        return;
    }
    for (uint k = 4u * i; k < min(4u * i + 4u, push.count); k++) {
        State a = State(vec4(F32(push.parameters).v[k]), vec4(HAS_FIRST ? F32(push.first).v[k] : 0.0),
                        vec4(HAS_SECOND ? F32(push.second).v[k] : 0.0), vec4(AVERAGE ? F32(push.average).v[k] : 0.0));
        if (c.apply != 0.0)
            a = update_state(s, c, group_of(k), a, vec4(F32(push.gradients).v[k]));
        F32(push.new_parameters).v[k] = a.p.x;
        if (HAS_FIRST)
            F32(push.new_first).v[k] = a.m.x;
        if (HAS_SECOND)
            F32(push.new_second).v[k] = a.v.x;
        if (AVERAGE)
            F32(push.new_average).v[k] = a.average.x;
    }
}
