// kernel: batchnorm_neuron_grad -DVEC=1
// kernel: batchnorm_neuron_grad_x4 -DVEC=4
// kernel: batchnorm_neuron_grad_pool -DVEC=4 -DPOOL
// kernel: batchnorm_neuron_grad_cpu -DVEC=1 -DCPU
// kernel: batchnorm_neuron_grad_cpu_x4 -DVEC=4 -DCPU
// kernel: batchnorm_neuron_grad_cpu_pool -DVEC=4 -DPOOL -DCPU
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "reduce.glsl"
#include "batchnorm_neuron_grad.push.h"
#include "neuron.glsl"

// The gradient of hk.BatchNormNeuron: what comes out of the neurons, d (neuron_back.glsl), goes on through the normalization,
//
//     gX = slope (d - (sum of d) / count - n (sum of d n) / count)        n = (x - mean) deviation
//
// with sums over a channel. They must be known before the first gX is, so there are two passes, and both walk back: d of a
// layer is four bytes a neuron and step written and read twice, x and the spikes' gradient are five to eight read once
// more. A team keeps to a channel. Floor: x and gs twice, gX once.
layout(constant_id = 21) const bool SUMS = false;       // the first pass: the sums of each chunk of each channel
layout(constant_id = 22) const bool PARAMETERS = false; // second pass: writes the gradients of scale and bias

const bool KEEP_X = true;
const bool WITH_GS = true, WITH_GV_SEQ = false, WITH_THETA = false;
const bool WITH_RATE = SUMS && KIND == PARAMETRIC_LIF;

Norm norm; // of the team's channel
vec2 means; // second pass: means of d and d n, as gX needs them
REAL d_sum, dn_sum; // first pass: of a unit

REAL kept_input(REAL x) { return center(norm, x); }
REAL taken_input(REAL kept) { return scale_and_shift(norm, kept); }
REAL load_gv_seq(uint t, uint place) { return REAL(0.0); }

#include "neuron_back.glsl"

TEAM_REDUCE(team_sum4, vec4, team_add)

void hand_on(uint t, uint place, REAL g, REAL kept)
{
    if (SUMS) {
        d_sum += g;
        dn_sum += g * kept;
    } else {
        store(push.gx, t, push.lanes, place, push.width, g * norm.slope - means.x - kept * means.y);
    }
}

vec2 sums_of(uint channel)
{
    vec2 sums = vec2(0.0);
    uint plane = push.chunks * push.channels;
    for (uint k = 0u; k < push.chunks; ++k) {
        uint at = k * push.channels + channel;
        sums += vec2(F32(push.sums).v[at], F32(push.sums).v[plane + at]);
    }
    return sums;
}

void main()
{
    uint item = team_item(), plane = push.chunks * push.channels;
    bool live = item < plane;
    uint chunk = live ? item / push.channels : 0u, channel = live ? item - chunk * push.channels : 0u;
    uint end = live ? min((chunk + 1u) * push.chunk, push.units) : 0u;
    vec4 affine = F32x4(push.norm).v[channel];
    norm = Norm(REAL(affine.x), REAL(affine.y), REAL(affine.z));
    float deviation = F32(push.deviation).v[channel], rate = membrane_rate(push.w, push.rate);
    if (!SUMS) {
        vec2 sums = sums_of(channel);
        if (PARAMETERS && live && chunk == 0u && team_lane() == 0u) {
            F32(push.gbias).v[channel] = sums.x;
            F32(push.gscale).v[channel] = sums.y;
        }
        means = sums / float(push.steps * push.units * VEC) * affine.y * vec2(1.0, deviation);
    }
    vec4 total = vec4(0.0);
    for (uint unit = chunk * push.chunk + team_lane(); unit < end; unit += LANES) {
        uint image = unit / push.inner, i = (image * push.channels + channel) * push.inner + unit - image * push.inner;
        d_sum = dn_sum = REAL(0.0); // rounding errors stay those of short sums
        Walked w = walk_back(i, place_of(i, push.width), REAL(push.rest), REAL(0.0), REAL(push.threshold), rate);
        if (SUMS)
            total += vec4(TOTAL(d_sum), TOTAL(dn_sum), TOTAL(w.rate_sum), 0.0);
    }
    if (!SUMS)
        return;
    total = team_sum4(total);
    if (live && team_lane() == 0u) {
        F32(push.sums).v[item] = total.x;
        F32(push.sums).v[plane + item] = total.y * deviation;
        if (WITH_RATE)
            F32(push.sums).v[2u * plane + item] = total.z * (rate * (1.0 - rate));
    }
}
