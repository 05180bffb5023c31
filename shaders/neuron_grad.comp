// kernel: neuron_grad -DVEC=1
// kernel: neuron_grad_x4 -DVEC=4
// kernel: neuron_grad_pool -DVEC=4 -DPOOL
// kernel: neuron_grad_cpu -DVEC=1 -DCPU
// kernel: neuron_grad_cpu_x4 -DVEC=4 -DCPU
// kernel: neuron_grad_cpu_pool -DVEC=4 -DPOOL -DCPU
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "neuron_grad.push.h"
#include "neuron.glsl"

// Backpropagation through time of hk.Neuron. The forward pass saves nothing: each invocation charges its neurons again,
// keeps H of all steps in registers, and walks back. Floor: x once, gs once, gx once.
//
// More steps than fit in registers are cut into segments: a first walk keeps the potential at the start of each, then
// the segments are charged again and walked back, last first. x is then read twice.
//
// A CPU has its arrays in memory anyway, and unrolled code would take it seconds to compile: there H of all steps lies
// in `kept`, which may be gx itself, and loops count to any T.
layout(constant_id = 9) const bool DETACH = false;
layout(constant_id = 10) const uint SURROGATE = 0; // hk_surrogate_form
layout(constant_id = 11) const float HEIGHT = 1.0;
layout(constant_id = 12) const float SLOPE = 1.0;
layout(constant_id = 13) const uint SEGMENT = 1;    // steps in registers
layout(constant_id = 14) const bool MANY = false;   // several segments
layout(constant_id = 15) const bool RAGGED = false; // the last segment may be shorter
layout(constant_id = 16) const uint AHEAD = 1;      // steps that gradients are loaded ahead of their use, <= SEGMENT

const uint V0 = 0, GS = 1, GV = 2, GV_SEQ = 3, GX = 4, GV0 = 5, GW = 6, GTHETA = 7; // bits of PRESENT

// The gradient of r needs X again where the input decays.
const bool KEEP_X = KIND == PARAMETRIC_LIF && DECAY_INPUT;

#define LOAD(address, t) load(address, t, push.lanes, place, push.width)

// The gradient of a step's spikes, as loaded, and where it goes: with POOL to the window's first spike, and to its first
// neuron when there is none.
#ifdef POOL
#define SPIKE float
#define SPIKES F32
REAL route(float gs, BOOLS fired)
{
    bvec4 first = bvec4(fired.x || !any(fired), fired.y && !fired.x, fired.z && !any(fired.xy),
                        fired.w && !any(fired.xyz));
    return gs * vec4(first);
}
#else
#define SPIKE REAL
#define SPIKES REALS
REAL route(REAL gs, BOOLS fired) { return gs; }
#endif

// Every index into an array in registers must be known, so loops are unrolled, of SEGMENT steps, and a short segment
// leaves some of them out.
#ifdef CPU
#define EACH
#define STEPS push.steps
#define WITHIN(k, count) true
#define H(k) load(push.kept, k, push.lanes, place, push.width)
#define KEEP_H(k, value) store(push.kept, k, push.lanes, place, push.width, value)
#define INPUT(k) normalize(norm, LOAD(push.x, k))
#else
const uint KEPT_X = KEEP_X ? SEGMENT : 1u;
#define EACH [[unroll]]
#define STEPS SEGMENT
#define WITHIN(k, count) (!RAGGED || (k) < (count))
#define H(k) h[k]
#define KEEP_H(k, value) h[k] = value
#define INPUT(k) x[k]
#endif

// What follows is as precise as charging is, though nothing is decided on it: left to itself a compiler contracts it in one
// specialization and not in another, and a layer's gradient would have other bits where it is fused with its
// normalization.
REAL surrogate(REAL x)
{
    precise REAL y = SLOPE * x, g;
    switch (SURROGATE) {
    case 0: g = HEIGHT / (1.0 + y * y); break;
    case 1: {
        precise REAL e = exp(-abs(y)), d = 1.0 + e;
        g = HEIGHT * e / (d * d);
        break;
    }
    case 2: {
        precise REAL d = 1.0 + abs(y);
        g = HEIGHT / (d * d);
        break;
    }
    case 3: g = max(HEIGHT - abs(y), REAL(0.0)); break;
    case 4: g = HEIGHT * exp(-abs(y)); break;
    case 5: g = HEIGHT * exp(-(y * y)); break;
    default: g = mix(REAL(0.0), REAL(HEIGHT), BELOW(abs(x), REAL(SLOPE)));
    }
    return g;
}

// dL/dS, with what the reset hands on, times the surrogate: its part of dL/dH, and of -dL/dtheta.
REAL through_spike(REAL gs, REAL gv, REAL h, REAL theta, float rest)
{
    precise REAL all = gs, away = h - theta;
    if (!DETACH)
        all = gs + gv * (SOFT ? -theta : rest - h);
    precise REAL through = all * surrogate(away);
    return through;
}

REAL charge_gradient(REAL through, REAL gv, REAL fired)
{
    precise REAL gh = through + (SOFT ? gv : gv * (1.0 - fired));
    return gh;
}

// Steps beyond the last, which a short segment loads in vain, are the last.
uint known(uint t) { return RAGGED ? min(t, push.steps - 1u) : t; }

// Walks forward and keeps the potential at the start of every segment but the first.
void keep_potentials(uint i, uint segments, REAL v, REAL theta, float rate, Norm norm, uint place)
{
    REAL x[SEGMENT];
    for (uint s = 1u; s < segments; ++s) {
        uint first = (s - 1u) * SEGMENT;
        EACH for (uint k = 0u; k < SEGMENT; ++k)
            x[k] = LOAD(push.x, first + k);
        EACH for (uint k = 0u; k < SEGMENT; ++k)
            v = after_reset(charge(v, normalize(norm, x[k]), rate, push.rest), theta, push.rest);
        REALS(push.kept).v[(s - 1u) * push.lanes + i] = v;
    }
}

void finish(uint i, uint place, REAL gv, REAL rate_sum, REAL theta_sum, float rate)
{
    if (present(GV0))
        store(push.gv0, 0u, push.lanes, place, push.width, gv);
    uint thetas = present(GTHETA) ? (THRESHOLD == THRESHOLD_ONE ? push.lanes : push.lanes * VEC) : 0u;
    if (present(GW))
        F32(push.sums).v[thetas + i] = TOTAL(rate_sum) * (rate * (1.0 - rate));
    if (present(GTHETA)) {
        if (THRESHOLD == THRESHOLD_ONE)
            F32(push.sums).v[i] = TOTAL(theta_sum);
        else
            REALS(push.sums).v[i] = theta_sum;
    }
}

void main()
{
    uint i = linear_invocation();
    if (i >= push.lanes)
        return;
    uint place = place_of(i, push.width);
    Norm norm = norm_of(push.norm, i, push.inner, push.channels);
    REAL theta = threshold(push.theta, push.threshold, i, push.inner, push.channels);
    float rate = membrane_rate(push.w, push.rate);
    float rest = push.rest;
    float carry = KIND == 0 ? 1.0 : 1.0 - rate; // dH/dV
    float gain = KIND != 0 && DECAY_INPUT ? rate : 1.0; // dH/dX
    REAL start = REAL(rest);
    if (present(V0))
        start = LOAD(push.v0, 0u);

    uint segments = MANY ? (push.steps + SEGMENT - 1u) / SEGMENT : 1u;
    keep_potentials(i, segments, start, theta, rate, norm, place);
#ifndef CPU
    REAL h[SEGMENT], x[KEPT_X];
#endif

    precise REAL gv = REAL(0.0);
    REAL rate_sum = REAL(0.0), theta_sum = REAL(0.0);
    if (present(GV))
        gv = LOAD(push.gv, 0u);
    for (uint s = segments; s-- > 0u;) {
        uint first = s * SEGMENT;
        uint count = min(SEGMENT, push.steps - first);
        REAL begin = start;
#ifndef CPU
        if (s > 0u)
            begin = REALS(push.kept).v[(s - 1u) * push.lanes + i];
        EACH for (uint k = 0u; k < SEGMENT; ++k)
            h[k] = LOAD(push.x, known(first + k));
#endif
        SPIKE gs[AHEAD];
        REAL gv_seq[AHEAD]; // a ring: step k's lie at (last step - k) % AHEAD
        EACH for (uint j = 0u; j < AHEAD; ++j) {
            if (present(GS))
                gs[j] = SPIKES(push.gs).v[known(first + STEPS - 1u - j) * push.lanes + i];
            if (present(GV_SEQ))
                gv_seq[j] = LOAD(push.gv_seq, known(first + STEPS - 1u - j));
        }
        REAL v = begin;
        EACH for (uint k = 0u; k < STEPS; ++k) {
#ifdef CPU
            REAL now = charge(v, INPUT(k), rate, rest);
#else
            REAL z = normalize(norm, h[k]);
            if (KEEP_X)
                x[k] = z;
            REAL now = charge(v, z, rate, rest);
#endif
            KEEP_H(k, now);
            v = after_reset(now, theta, rest);
        }
        EACH for (uint j = 0u; j < STEPS; ++j) {
            uint k = STEPS - 1u - j;
            SPIKE gs_now = SPIKE(0.0);
            if (present(GS))
                gs_now = gs[j % AHEAD];
            if (WITHIN(k, count)) {
                REAL h_now = H(k);
                if (present(GV_SEQ))
                    gv += gv_seq[j % AHEAD];
                BOOLS fires = AT_LEAST(h_now, theta);
                REAL fired = REAL(fires), through = through_spike(route(gs_now, fires), gv, h_now, theta, rest);
                if (present(GTHETA))
                    theta_sum -= SOFT ? through + gv * fired : through;
                REAL gh = charge_gradient(through, gv, fired);
                if (present(GW)) {
                    REAL before = begin, decayed = REAL(0.0);
                    if (KEEP_X)
                        decayed = INPUT(k);
                    if (k > 0u)
                        before = after_reset(H(k - 1u), theta, rest);
                    rate_sum += gh * (decayed - (before - rest));
                }
                gv = gh * carry;
                if (present(GX))
                    store(push.gx, first + k, push.lanes, place, push.width, gh * gain);
            }
            if (j + AHEAD < STEPS) {
                if (present(GS))
                    gs[j % AHEAD] = SPIKES(push.gs).v[known(first + k - AHEAD) * push.lanes + i];
                if (present(GV_SEQ))
                    gv_seq[j % AHEAD] = LOAD(push.gv_seq, known(first + k - AHEAD));
            }
        }
    }
    finish(i, place, gv, rate_sum, theta_sum, rate);
}
