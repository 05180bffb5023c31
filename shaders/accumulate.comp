// kernel: accumulate
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "step.glsl"
#include "accumulate.push.h"

// sum' = accumulate * sum + gradients; on the first micro-batch (accumulate 0) the old sum is not even looked at, so
// that nothing of it, NaN neither, survives. The new sum may lie where the old one lies.

layout(constant_id = 3) const bool VECTOR = true;

void main()
{
    float beta = Step(push.step).accumulate;
    uint i = linear_invocation();
    if (VECTOR && i < push.count / 4u) {
        vec4 g = F32x4(push.gradients).v[i];
        F32x4(push.new_sum).v[i] = beta == 0.0 ? g : beta * F32x4(push.sum).v[i] + g;
        return;
    }
    for (uint k = 4u * i; k < min(4u * i + 4u, push.count); k++) {
        float g = F32(push.gradients).v[k];
        F32(push.new_sum).v[k] = beta == 0.0 ? g : beta * F32(push.sum).v[k] + g;
    }
}
