// One step of a spiking neuron, for the forward and the backward kernel alike: the backward kernel charges the membrane
// again and must take the same decisions, so everything that decides is `precise` and made of + - x. The host's side,
// with the equations, is ops/support/neuron.h.
//
// VEC neurons (1 or 4) per invocation: neighbours, or with POOL those of a 2x2 window of an image, upper row first, whose
// spikes become one: their maximum.
#ifndef NEURON_GLSL
#define NEURON_GLSL

#if VEC == 4
#define REAL vec4
#define REALS F32x4
#define BOOLS bvec4
#define AT_LEAST(a, b) greaterThanEqual(a, b)
#define BELOW(a, b) lessThan(a, b)
#define TOTAL(a) (((a).x + (a).y) + ((a).z + (a).w))
#else
#define REAL float
#define REALS F32
#define BOOLS bool
#define AT_LEAST(a, b) ((a) >= (b))
#define BELOW(a, b) ((a) < (b))
#define TOTAL(a) (a)
#endif

#ifdef POOL
#define ALONG 1u // of push.inner, per invocation
#else
#define ALONG VEC
#endif

const uint IF = 0, PARAMETRIC_LIF = 2;                          // hk_neuron_kind
const uint THRESHOLD_FIXED = 0, THRESHOLD_ONE = 1;              // where theta comes from, else one per channel
#ifndef NEURON_CONSTANTS // where they begin
#define NEURON_CONSTANTS 8 // 3 .. 7 are those of reduce.glsl
#endif
layout(constant_id = NEURON_CONSTANTS) const uint KIND = 0;
layout(constant_id = NEURON_CONSTANTS + 1) const bool DECAY_INPUT = false;
layout(constant_id = NEURON_CONSTANTS + 2) const bool SOFT = false;
layout(constant_id = NEURON_CONSTANTS + 3) const uint THRESHOLD = 0;
layout(constant_id = NEURON_CONSTANTS + 4) const uint PRESENT = 0; // bits: which optional operands there are

bool present(uint bit) { return (PRESENT >> bit & 1u) != 0u; }

// sigmoid(w), the bits of hk_neuron_rate: exp() and division are not exact enough to decide with.
float learned_rate(float w)
{
    precise float away = min(abs(w), 80.0);
    precise float n = floor(away * 1.44269504 + 0.5);
    precise float f = n * 0.693359375 - away;
    f = f - n * 2.12194440e-4;
    precise float p = 1.9875691500e-4;
    p = p * f + 1.3981999507e-3;
    p = p * f + 8.3334519073e-3;
    p = p * f + 4.1665795894e-2;
    p = p * f + 1.6666665459e-1;
    p = p * f + 5.0000001201e-1;
    precise float square = f * f;
    precise float e = ((p * square + f) + 1.0) * uintBitsToFloat(uint(127 - int(n)) << 23);
    precise float d = 1.0 + e;
    precise float y = 1.41176471 - 0.470588235 * d;
    y = y + y * (1.0 - d * y);
    y = y + y * (1.0 - d * y);
    y = y + y * (1.0 - d * y);
    y = y + y * (1.0 - d * y);
    precise float low = e * y;
    return isnan(w) ? w : w < 0.0 ? low : y;
}

float membrane_rate(uvec2 w, float fixed_rate)
{
    return KIND == PARAMETRIC_LIF ? learned_rate(F32(w).v[0]) : fixed_rate;
}

// Channels of the neurons of invocation i: inner neurons side by side belong to one.
void channels_of(uint i, uint inner, uint channels, out uint c[VEC])
{
    uint plane = i * ALONG / inner;
    uint rest = i * ALONG - plane * inner;
    uint channel = plane % channels;
    for (uint k = 0u; k < VEC; ++k) {
        c[k] = channel;
#ifndef POOL
        if (++rest == inner) {
            rest = 0u;
            channel = channel + 1u == channels ? 0u : channel + 1u;
        }
#endif
    }
}

#if VEC == 4
#define EACH_CHANNEL(e) vec4(e(c[0]), e(c[1]), e(c[2]), e(c[3]))
#else
#define EACH_CHANNEL(e) e(c[0])
#endif

REAL threshold(uvec2 address, float fixed_threshold, uint i, uint inner, uint channels)
{
    if (THRESHOLD == THRESHOLD_FIXED)
        return REAL(fixed_threshold);
    if (THRESHOLD == THRESHOLD_ONE)
        return REAL(F32(address).v[0]);
    uint c[VEC];
    channels_of(i, inner, channels, c);
#define THETA(c) F32(address).v[c]
    return EACH_CHANNEL(THETA);
}

// What normalization does to the input: the bits of batchnorm.glsl's normalize().
struct Norm {
    REAL mean, slope, bias;
};

REAL center(Norm n, REAL x)
{
    precise REAL centered = x - n.mean;
    return centered;
}

REAL scale_and_shift(Norm n, REAL centered)
{
    precise REAL scaled = centered * n.slope;
    precise REAL z = scaled + n.bias;
    return z;
}

// Values of the input's shape. The place of invocation i's neurons in a step, and their values there.
#ifdef POOL
uint place_of(uint i, uint width) { return 2u * i - i % width; } // upper half of the window, in pairs

REAL load(uvec2 address, uint t, uint lanes, uint place, uint width)
{
    uint at = t * 2u * lanes + place;
    return vec4(F32x2(address).v[at], F32x2(address).v[at + width]);
}

void store(uvec2 address, uint t, uint lanes, uint place, uint width, REAL x)
{
    uint at = t * 2u * lanes + place;
    F32x2(address).v[at] = x.xy;
    F32x2(address).v[at + width] = x.zw;
}
#else
uint place_of(uint i, uint width) { return i; }

REAL load(uvec2 address, uint t, uint lanes, uint place, uint width) { return REALS(address).v[t * lanes + place]; }

void store(uvec2 address, uint t, uint lanes, uint place, uint width, REAL x) { REALS(address).v[t * lanes + place] = x; }
#endif

REAL charge(REAL v, REAL x, float rate, float rest)
{
    if (KIND == IF) {
        precise REAL h = v + x;
        return h;
    }
    precise REAL gap = v - rest;
    if (DECAY_INPUT) {
        precise REAL h = v + (x - gap) * rate;
        return h;
    }
    precise REAL h = (v - gap * rate) + x;
    return h;
}

REAL after_reset(REAL h, REAL theta, float rest)
{
    precise REAL lowered = h - theta;
    return mix(h, SOFT ? lowered : REAL(rest), AT_LEAST(h, theta));
}

#endif
