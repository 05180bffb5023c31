// kernel: neuron -DVEC=1
// kernel: neuron_x4 -DVEC=4
// kernel: neuron_pool -DVEC=4 -DPOOL
// kernel: neuron_half -DVEC=1 -DHALF needs=storage16
// kernel: neuron_half_x4 -DVEC=4 -DHALF needs=storage16
// kernel: neuron_half_pool -DVEC=4 -DPOOL -DHALF needs=storage16
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#ifdef HALF // how spikes are stored
#extension GL_EXT_shader_16bit_storage : require
#extension GL_EXT_shader_explicit_arithmetic_types_int16 : require
layout(buffer_reference, std430, buffer_reference_align = 2) buffer Halves { uint16_t v[]; };
const uint ONE = 0x3c00u;
#endif
#include "neuron.push.h"
#include "neuron.glsl"

// All steps of hk.Neuron in one dispatch: an invocation walks its neurons through time with the potential in a
// register. Neighbouring invocations have neighbouring neurons, so every access is coalesced. Floor: x once, s once.
//
// Indices stay below 2^31: a tensor has fewer elements, and buffer references widen the index before they scale it.
layout(constant_id = 13) const uint BATCH = 1; // steps loaded before the first of them is used
layout(constant_id = 14) const bool NORM = false; // channels are normalized on their way in

#define INPUTS(t) load(push.x, t, push.lanes, place, push.width)

const uint V0 = 0, S = 1, V = 2, V_SEQ = 3; // bits of PRESENT

Norm norm_of(uint i)
{
    Norm n = Norm(REAL(0.0), REAL(1.0), REAL(0.0));
    if (NORM) {
        uint c[VEC];
        channels_of(i, push.inner, push.channels, c);
#define MEAN(c) F32x4(push.norm).v[c].x
#define SLOPE(c) F32x4(push.norm).v[c].y
#define BIAS(c) F32x4(push.norm).v[c].z
        n = Norm(EACH_CHANNEL(MEAN), EACH_CHANNEL(SLOPE), EACH_CHANNEL(BIAS));
    }
    return n;
}

// Spikes are zeros and ones, which halves hold exactly.
#ifdef HALF
#ifdef POOL
void store_spikes(uint at, BOOLS fired) { Halves(push.s).v[at] = uint16_t(any(fired) ? ONE : 0u); }
#elif VEC == 4
void store_spikes(uint at, BOOLS fired)
{
    uvec4 h = uvec4(fired) * ONE;
    U32x2(push.s).v[at] = uvec2(h.x | h.y << 16, h.z | h.w << 16);
}
#else
void store_spikes(uint at, BOOLS fired) { Halves(push.s).v[at] = uint16_t(fired ? ONE : 0u); }
#endif
#elif defined(POOL)
void store_spikes(uint at, BOOLS fired) { F32(push.s).v[at] = float(any(fired)); }
#else
void store_spikes(uint at, BOOLS fired) { REALS(push.s).v[at] = REAL(fired); }
#endif

void main()
{
    uint i = linear_invocation();
    if (i >= push.lanes)
        return;
    uint place = place_of(i, push.width);
    Norm norm = norm_of(i);
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
                REAL z = NORM ? scale_and_shift(norm, center(norm, x[k])) : x[k], h = charge(v, z, rate, push.rest);
                v = after_reset(h, theta, push.rest);
                if (present(S))
                    store_spikes(t * push.lanes + i, AT_LEAST(h, theta));
                if (present(V_SEQ))
                    store(push.v_seq, t, push.lanes, place, push.width, v);
            }
        }
    }
    if (present(V))
        store(push.v, 0u, push.lanes, place, push.width, v);
}
