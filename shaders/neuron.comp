// kernel: neuron -DVEC=1
// kernel: neuron_x4 -DVEC=4
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "neuron.push.h"
#include "neuron.glsl"

// All steps of hk.Neuron in one dispatch: an invocation walks its neurons through time with the potential in a
// register. Neighbouring invocations have neighbouring neurons, so every access is coalesced. Floor: x once, s once.
//
// Indices stay below 2^31: a tensor has fewer elements, and buffer references widen the index before they scale it.
layout(constant_id = 8) const uint BATCH = 1; // steps loaded before the first of them is used

const uint V0 = 0, S = 1, V = 2, V_SEQ = 3; // bits of PRESENT

void main()
{
    uint i = linear_invocation();
    if (i >= push.lanes)
        return;
    REAL theta = threshold(push.theta, push.threshold, i, push.inner, push.channels);
    float rate = membrane_rate(push.w, push.rate);
    REAL v = REAL(push.rest);
    if (present(V0))
        v = REALS(push.v0).v[i];
    for (uint first = 0u; first < push.steps; first += BATCH) {
        REAL x[BATCH];
        [[unroll]] for (uint k = 0u; k < BATCH; ++k)
            x[k] = REALS(push.x).v[min(first + k, push.steps - 1u) * push.lanes + i];
        [[unroll]] for (uint k = 0u; k < BATCH; ++k) {
            uint at = (first + k) * push.lanes + i;
            if (first + k < push.steps) {
                REAL h = charge(v, x[k], rate, push.rest);
                v = after_reset(h, theta, push.rest);
                if (present(S))
                    REALS(push.s).v[at] = REAL(AT_LEAST(h, theta));
                if (present(V_SEQ))
                    REALS(push.v_seq).v[at] = v;
            }
        }
    }
    if (present(V))
        REALS(push.v).v[i] = v;
}
