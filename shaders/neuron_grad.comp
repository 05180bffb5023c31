// kernel: neuron_grad -DVEC=1
// kernel: neuron_grad_x4 -DVEC=4
// kernel: neuron_grad_cpu -DVEC=1 -DCPU
// kernel: neuron_grad_cpu_x4 -DVEC=4 -DCPU
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "neuron_grad.push.h"
#include "neuron.glsl"

// The gradient of hk.Neuron (neuron_back.glsl). Floor: x once, gs once, gx once. On a CPU `kept` may be gx itself.

const uint V0 = 0, GS = 1, GV = 2, GV_SEQ = 3, GX = 4, GV0 = 5, GW = 6, GTHETA = 7; // bits of PRESENT

// The gradient of r needs X again where the input decays.
const bool KEEP_X = KIND == PARAMETRIC_LIF && DECAY_INPUT;
#define WITH_GS present(GS)
#define WITH_GV_SEQ present(GV_SEQ)
#define WITH_RATE present(GW)
#define WITH_THETA present(GTHETA)

REAL kept_input(REAL x) { return x; }
REAL taken_input(REAL kept) { return kept; }
REAL load_gv_seq(uint t, uint place) { return load(push.gv_seq, t, push.lanes, place, push.width); }

#include "neuron_back.glsl"

void hand_on(uint t, uint place, REAL g, REAL kept)
{
    if (present(GX))
        store(push.gx, t, push.lanes, place, push.width, g);
}

void finish(uint i, uint place, Walked w, float rate)
{
    if (present(GV0))
        store(push.gv0, 0u, push.lanes, place, push.width, w.gv);
    uint thetas = present(GTHETA) ? (THRESHOLD == THRESHOLD_ONE ? push.lanes : push.lanes * VEC) : 0u;
    if (present(GW))
        F32(push.sums).v[thetas + i] = TOTAL(w.rate_sum) * (rate * (1.0 - rate));
    if (present(GTHETA)) {
        if (THRESHOLD == THRESHOLD_ONE)
            F32(push.sums).v[i] = TOTAL(w.theta_sum);
        else
            REALS(push.sums).v[i] = w.theta_sum;
    }
}

void main()
{
    uint i = linear_invocation();
    if (i >= push.lanes)
        return;
    REAL theta = threshold(push.theta, push.threshold, i, push.inner, push.channels);
    float rate = membrane_rate(push.w, push.rate);
    REAL start = REAL(push.rest), gv = REAL(0.0);
    if (present(V0))
        start = load(push.v0, 0u, push.lanes, i, push.width);
    if (present(GV))
        gv = load(push.gv, 0u, push.lanes, i, push.width);
    finish(i, i, walk_back(i, i, start, gv, theta, rate), rate);
}
