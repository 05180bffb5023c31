// kernel: neuron -DVEC=1
// kernel: neuron_x4 -DVEC=4
// kernel: neuron_pool -DVEC=4 -DPOOL
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "neuron.push.h"
#include "neuron.glsl"

// All steps of hk.Neuron in one dispatch: an invocation walks its neurons through time with the potential in a
// register. Neighbouring invocations have neighbouring neurons, so every access is coalesced. Floor: x once, s once.
//
// Indices stay below 2^31: a tensor has fewer elements, and buffer references widen the index before they scale it.
layout(constant_id = 9) const uint BATCH = 1; // steps loaded before the first of them is used

#define INPUTS(t) load(push.x, t, push.lanes, place, push.width)

const uint V0 = 0, S = 1, V = 2, V_SEQ = 3; // bits of PRESENT

void main()
{
    uint i = linear_invocation();
    if (i >= push.lanes)
        return;
    uint place = place_of(i, push.width);
    Norm norm = norm_of(push.norm, i, push.inner, push.channels);
    REAL theta = threshold(push.theta, push.threshold, i, push.inner, push.channels);
    float rate = membrane_rate(push.w, push.rate);
    REAL v = REAL(push.rest);
    if (present(V0))
        v = load(push.v0, 0u, push.lanes, place, push.width);
    for (uint first = 0u; first < push.steps; first += BATCH) {
        REAL x[BATCH];
        [[unroll]] for (uint k = 0u; k < BATCH; ++k)
            x[k] = INPUTS(min(first + k, push.steps - 1u));
        [[unroll]] for (uint k = 0u; k < BATCH; ++k) {
            uint t = first + k;
            if (t < push.steps) {
                REAL h = charge(v, normalize(norm, x[k]), rate, push.rest);
                v = after_reset(h, theta, push.rest);
#ifdef POOL
                if (present(S))
                    F32(push.s).v[t * push.lanes + i] = float(any(AT_LEAST(h, theta)));
#else
                if (present(S))
                    REALS(push.s).v[t * push.lanes + i] = REAL(AT_LEAST(h, theta));
#endif
                if (present(V_SEQ))
                    store(push.v_seq, t, push.lanes, place, push.width, v);
            }
        }
    }
    if (present(V))
        store(push.v, 0u, push.lanes, place, push.width, v);
}
