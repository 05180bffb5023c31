// kernel: update_control
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "step.glsl"
#include "control.glsl"
#include "update_control.push.h"

// One invocation decides whether and how the next update is applied: gradient clipping by norm as
// torch.nn.utils.clip_grad_norm_, loss scaling as torch.amp.GradScaler. ops/optimizer.c says the same in C.

layout(constant_id = 3) const bool SQUARES = false; // the sum of squares of all gradients is known
layout(constant_id = 4) const bool COUNT = false;   // gradients are sums: divide by the number of valid labels
layout(constant_id = 5) const bool SCALING = false;

void main()
{
    if (linear_invocation() != 0u)
        return;
    Control c = load_control(push.control);
    float multiplier = Step(push.step).grad_scale;
    if (SCALING)
        multiplier /= c.loss_scale;
    if (COUNT)
        multiplier /= max(F32(push.count).v[0], 1.0);
    bool finite = true;
    if (SQUARES) {
        float squares = F32(push.squares).v[0];
        finite = squares <= 3.4028234e38; // false for NaN and infinity
        float norm = sqrt(squares) * multiplier;
        if (push.clip > 0.0)
            multiplier *= min(1.0, push.clip / (norm + 1e-6));
    }
    if (finite) {
        c.updates += 1.0;
        c.rest1 = push.beta1_rest + push.beta1 * c.rest1;
        c.rest2 = push.beta2_rest + push.beta2 * c.rest2;
        c.good += 1.0;
        if (SCALING && c.good >= push.growth_interval) {
            c.loss_scale *= push.growth;
            c.good = 0.0;
        }
    } else {
        c.skipped += 1.0;
        c.good = 0.0;
        if (SCALING)
            c.loss_scale *= push.backoff;
    }
    F32 to = F32(push.new_control);
    to.v[0] = c.updates;
    to.v[1] = c.rest1;
    to.v[2] = c.rest2;
    to.v[3] = c.loss_scale;
    to.v[4] = c.good;
    to.v[5] = c.skipped;
    to.v[6] = finite ? multiplier : 0.0;
    to.v[7] = finite ? 1.0 : 0.0;
}
