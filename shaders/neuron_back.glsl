// Backpropagation through time of spiking neurons. The forward pass saves nothing: each invocation charges its neurons
// again, keeps H of all steps in registers, and walks back.
//
// More steps than fit in registers are cut into segments: a first walk keeps the potential at the start of each, then
// the segments are charged again and walked back, last first. x is then read twice.
//
// A CPU has its arrays in memory anyway, and unrolled code would take it seconds to compile: there H of all steps lies
// in `kept`, and loops count to any T.
//
// Before including it, a kernel includes neuron.glsl and its push block, with x, gs, kept, lanes, steps, width and rest, and
// defines
//     bool KEEP_X                           whether the walk back needs inputs again
//     bool WITH_GS, WITH_GV_SEQ             whether the spikes and the potentials have gradients
//     bool WITH_RATE, WITH_THETA            whether those of r and theta are wanted
//     REAL kept_input(REAL x)               what is kept of an input
//     REAL taken_input(REAL kept)           what the membrane takes
//     REAL load_gv_seq(uint t, uint place)
// and after it
//     void hand_on(uint t, uint place, REAL g, REAL kept)   the gradient of what the membrane took
#ifndef NEURON_BACK_GLSL
#define NEURON_BACK_GLSL

layout(constant_id = 13) const bool DETACH = false;
layout(constant_id = 14) const uint SURROGATE = 0; // hk_surrogate_form
layout(constant_id = 15) const float HEIGHT = 1.0;
layout(constant_id = 16) const float SLOPE = 1.0;
layout(constant_id = 17) const uint SEGMENT = 1;    // steps in registers
layout(constant_id = 18) const bool MANY = false;   // several segments
layout(constant_id = 19) const bool RAGGED = false; // the last segment may be shorter
layout(constant_id = 20) const uint AHEAD = 1;      // steps that gradients are loaded ahead of their use, <= SEGMENT

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

#define LOAD_X(t, place) load(push.x, t, push.lanes, place, push.width)

// Every index into an array in registers must be known, so loops are unrolled, of SEGMENT steps, and a short segment
// leaves some of them out.
#ifdef CPU
#define EACH
#define STEPS push.steps
#define WITHIN(k, count) true
#define H(k) load(push.kept, k, push.lanes, place, push.width)
#define KEEP_H(k, value) store(push.kept, k, push.lanes, place, push.width, value)
#define KEPT(k) kept_input(LOAD_X(k, place))
#else
#define EACH [[unroll]]
#define STEPS SEGMENT
#define WITHIN(k, count) (!RAGGED || (k) < (count))
#define H(k) h[k]
#define KEEP_H(k, value) h[k] = value
#define KEPT(k) x[k]
#endif

void hand_on(uint t, uint place, REAL g, REAL kept);

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
void keep_potentials(uint i, uint segments, REAL v, REAL theta, float rate, uint place)
{
    REAL x[SEGMENT];
    for (uint s = 1u; s < segments; ++s) {
        uint first = (s - 1u) * SEGMENT;
        EACH for (uint k = 0u; k < SEGMENT; ++k)
            x[k] = LOAD_X(first + k, place);
        EACH for (uint k = 0u; k < SEGMENT; ++k)
            v = after_reset(charge(v, taken_input(kept_input(x[k])), rate, push.rest), theta, push.rest);
        REALS(push.kept).v[(s - 1u) * push.lanes + i] = v;
    }
}

// Of invocation i's neurons: dL/dV before the first step, dL/dr and dL/dtheta.
struct Walked {
    REAL gv, rate_sum, theta_sum;
};

// start: the potential before the first step; gv: dL/dV after the last.
Walked walk_back(uint i, uint place, REAL start, REAL gv_last, REAL theta, float rate)
{
    float rest = push.rest;
    float carry = KIND == IF ? 1.0 : 1.0 - rate; // dH/dV
    float gain = KIND != IF && DECAY_INPUT ? rate : 1.0; // dH/dX
    uint segments = MANY ? (push.steps + SEGMENT - 1u) / SEGMENT : 1u;
    keep_potentials(i, segments, start, theta, rate, place);
#ifndef CPU
    REAL h[SEGMENT], x[KEEP_X ? SEGMENT : 1u];
#endif
    precise REAL gv = gv_last;
    REAL rate_sum = REAL(0.0), theta_sum = REAL(0.0);
    for (uint s = segments; s-- > 0u;) {
        uint first = s * SEGMENT;
        uint count = min(SEGMENT, push.steps - first);
        REAL begin = start;
#ifndef CPU
        if (s > 0u)
            begin = REALS(push.kept).v[(s - 1u) * push.lanes + i];
        EACH for (uint k = 0u; k < SEGMENT; ++k)
            h[k] = LOAD_X(known(first + k), place);
#endif
        SPIKE gs[AHEAD];
        REAL gv_seq[AHEAD]; // a ring: step k's lie at (last step - k) % AHEAD
        EACH for (uint j = 0u; j < AHEAD; ++j) {
            if (WITH_GS)
                gs[j] = SPIKES(push.gs).v[known(first + STEPS - 1u - j) * push.lanes + i];
            if (WITH_GV_SEQ)
                gv_seq[j] = load_gv_seq(known(first + STEPS - 1u - j), place);
        }
        REAL v = begin;
        EACH for (uint k = 0u; k < STEPS; ++k) {
#ifdef CPU
            REAL kept = KEPT(k);
#else
            REAL kept = kept_input(h[k]);
            if (KEEP_X)
                x[k] = kept;
#endif
            REAL now = charge(v, taken_input(kept), rate, rest);
            KEEP_H(k, now);
            v = after_reset(now, theta, rest);
        }
        EACH for (uint j = 0u; j < STEPS; ++j) {
            uint k = STEPS - 1u - j;
            SPIKE gs_now = SPIKE(0.0);
            if (WITH_GS)
                gs_now = gs[j % AHEAD];
            if (WITHIN(k, count)) {
                REAL h_now = H(k), kept = REAL(0.0);
                if (KEEP_X)
                    kept = KEPT(k);
                if (WITH_GV_SEQ)
                    gv += gv_seq[j % AHEAD];
                BOOLS fires = AT_LEAST(h_now, theta);
                REAL fired = REAL(fires), through = through_spike(route(gs_now, fires), gv, h_now, theta, rest);
                if (WITH_THETA)
                    theta_sum -= SOFT ? through + gv * fired : through;
                REAL gh = charge_gradient(through, gv, fired);
                if (WITH_RATE) {
                    REAL before = begin, decayed = DECAY_INPUT ? taken_input(kept) : REAL(0.0);
                    if (k > 0u)
                        before = after_reset(H(k - 1u), theta, rest);
                    rate_sum += gh * (decayed - (before - rest));
                }
                gv = gh * carry;
                hand_on(first + k, place, gh * gain, kept);
            }
            if (j + AHEAD < STEPS) {
                if (WITH_GS)
                    gs[j % AHEAD] = SPIKES(push.gs).v[known(first + k - AHEAD) * push.lanes + i];
                if (WITH_GV_SEQ)
                    gv_seq[j % AHEAD] = load_gv_seq(known(first + k - AHEAD), place);
            }
        }
    }
    return Walked(gv, rate_sum, theta_sum);
}

#endif
