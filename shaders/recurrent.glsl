// What the forward and the backward kernel of recurrent networks share: constants, activations, places of elements, and
// the product of a few rows of R with the vectors of ROWS sequences. A team (reduce.glsl) works on UNITS hidden units of
// ROWS sequences of one direction: its lanes share the product's sum, then each finishes some of the cells.
//
// The persistent variant does all steps in one dispatch: a workgroup owns all units of its sequences, and the vectors
// go from step to step through shared memory. Else one dispatch does one step and many workgroups share it.

#ifndef RECURRENT_GLSL
#define RECURRENT_GLSL

layout(constant_id = 8) const uint CELL = 0;
layout(constant_id = 9) const uint PHASE = 0; // GRU, reset first: 1 the gates, 2 the candidate; else 0
layout(constant_id = 10) const uint ROWS = 1;
layout(constant_id = 11) const uint FLAGS = 0;
layout(constant_id = 12) const uint DIRECTIONS = 1;
layout(constant_id = 13) const bool REVERSE = false; // direction 0; direction 1 always is
layout(constant_id = 14) const bool BATCH_FIRST = false;
layout(constant_id = 15) const bool VECTOR = false; // rows and vectors can be read four elements at a time
layout(constant_id = 16) const float CLIP = -1.0;
// activations f, g, h of both directions, then their alpha and beta
layout(constant_id = 17) const uint F0 = 0;
layout(constant_id = 18) const uint G0 = 0;
layout(constant_id = 19) const uint H0 = 0;
layout(constant_id = 20) const uint F1 = 0;
layout(constant_id = 21) const uint G1 = 0;
layout(constant_id = 22) const uint H1 = 0;
layout(constant_id = 23) const float FA0 = 0.0;
layout(constant_id = 24) const float GA0 = 0.0;
layout(constant_id = 25) const float HA0 = 0.0;
layout(constant_id = 26) const float FA1 = 0.0;
layout(constant_id = 27) const float GA1 = 0.0;
layout(constant_id = 28) const float HA1 = 0.0;
layout(constant_id = 29) const float FB0 = 0.0;
layout(constant_id = 30) const float GB0 = 0.0;
layout(constant_id = 31) const float HB0 = 0.0;
layout(constant_id = 32) const float FB1 = 0.0;
layout(constant_id = 33) const float GB1 = 0.0;
layout(constant_id = 34) const float HB1 = 0.0;
layout(constant_id = 35) const uint SPACE = 1; // floats of shared memory for the vectors of two steps

const uint CELL_RNN = 0, CELL_LSTM = 1, CELL_GRU = 2;
const uint PHASE_GATES = 1, PHASE_CANDIDATE = 2;
// bits of FLAGS
const uint HAS_BIAS = 1, HAS_LENGTHS = 2, HAS_PEEPHOLE = 4, INPUT_FORGET = 8, HAS_Y = 16, SAVE_SUMS = 32, SAVE_ENTRY = 64,
           HAS_EXTRA = 128, HAS_LINEAR = 256, HAS_CELLS = 512;
bool flag(uint bit) { return (FLAGS & bit) != 0u; }

// ---- activations (hk_gate_function)

const uint GATE_TANH = 0, GATE_SIGMOID = 1, GATE_RELU = 2, GATE_AFFINE = 3, GATE_LEAKY_RELU = 4,
           GATE_THRESHOLDED_RELU = 5, GATE_SCALED_TANH = 6, GATE_HARD_SIGMOID = 7, GATE_ELU = 8, GATE_SOFTSIGN = 9,
           GATE_SOFTPLUS = 10;

struct Gate {
    uint code;
    float a, b;
};
Gate gate_f(uint d) { return d == 0u ? Gate(F0, FA0, FB0) : Gate(F1, FA1, FB1); }
Gate gate_g(uint d) { return d == 0u ? Gate(G0, GA0, GB0) : Gate(G1, GA1, GB1); }
Gate gate_h(uint d) { return d == 0u ? Gate(H0, HA0, HB0) : Gate(H1, HA1, HB1); }

float gate_value(Gate g, float x)
{
    x = CLIP < 0.0 ? x : clip(x, -CLIP, CLIP);
    switch (g.code) {
    case GATE_TANH:
        return tanh_precise(x);
    case GATE_SIGMOID:
        return sigmoid(x);
    case GATE_RELU:
        return x < 0.0 ? 0.0 : x;
    case GATE_AFFINE:
        return g.a * x + g.b;
    case GATE_LEAKY_RELU:
        return x < 0.0 ? g.a * x : x;
    case GATE_THRESHOLDED_RELU:
        return x <= g.a ? 0.0 : x;
    case GATE_SCALED_TANH:
        return g.a * tanh_precise(g.b * x);
    case GATE_HARD_SIGMOID:
        return clip(g.a * x + g.b, 0.0, 1.0);
    case GATE_ELU:
        return x < 0.0 ? g.a * (abs(x) < 0.3 ? expm1_near(x) : exp(x) - 1.0) : x;
    case GATE_SOFTSIGN:
        return x / (1.0 + abs(x));
    default: // softplus
        return max(x, 0.0) + log_precise(1.0 + exp(-abs(x)));
    }
}

float gate_slope(Gate g, float x)
{
    if (CLIP >= 0.0 && abs(x) > CLIP)
        return 0.0;
    float y;
    switch (g.code) {
    case GATE_TANH:
        y = tanh_precise(x);
        return 1.0 - y * y;
    case GATE_SIGMOID:
        y = sigmoid(x);
        return y * (1.0 - y);
    case GATE_RELU:
        return x > 0.0 ? 1.0 : 0.0;
    case GATE_AFFINE:
        return g.a;
    case GATE_LEAKY_RELU:
        return x < 0.0 ? g.a : 1.0;
    case GATE_THRESHOLDED_RELU:
        return x > g.a ? 1.0 : 0.0;
    case GATE_SCALED_TANH:
        y = tanh_precise(g.b * x);
        return g.a * g.b * (1.0 - y * y);
    case GATE_HARD_SIGMOID:
        y = g.a * x + g.b;
        return y > 0.0 && y < 1.0 ? g.a : 0.0;
    case GATE_ELU:
        return x < 0.0 ? g.a * exp(x) : 1.0;
    case GATE_SOFTSIGN:
        y = 1.0 + abs(x);
        return 1.0 / (y * y);
    default:
        return sigmoid(x);
    }
}

// ---- places

uint length_of(uint b) { return flag(HAS_LENGTHS) ? uint(clamp(I32(push.lengths).v[b], 0, int(push.steps))) : push.steps; }
uint time_of(uint d, uint s, uint n) { return (d == 1u || REVERSE) && s < n ? n - 1u - s : s; }
uint row_of(uint t, uint b, uint d)
{
    return (BATCH_FIRST ? b * push.steps + t : t * push.batch + b) * DIRECTIONS + d;
}
uint state_of(uint d, uint b) { return (BATCH_FIRST ? b * DIRECTIONS + d : d * push.batch + b) * push.hidden; }
uint output_of(uint t, uint d, uint b)
{
    return (BATCH_FIRST ? (b * push.steps + t) * DIRECTIONS + d : (t * DIRECTIONS + d) * push.batch + b) * push.hidden;
}

// ---- the product: sums[i] = rows 0 to 3 of R times vector i

vec4 sums[ROWS];
uint vectors[ROWS]; // where vector i begins, in elements
TEAM_REDUCE(team_sum, vec4, team_add)

#ifdef PERSISTENT
shared float kept[SPACE];
vec4 vector_load(uvec2 from, uint i, uint left)
{
    if (VECTOR || left >= 4u)
        return vec4(kept[i], kept[i + 1u], kept[i + 2u], kept[i + 3u]);
    return vec4(kept[i], left > 1u ? kept[i + 1u] : 0.0, left > 2u ? kept[i + 2u] : 0.0, 0.0);
}
#else
vec4 vector_load(uvec2 from, uint i, uint left)
{
    if (VECTOR)
        return F32x4(from).v[i / 4u];
    F32 x = F32(from);
    return vec4(x.v[i], left > 1u ? x.v[i + 1u] : 0.0, left > 2u ? x.v[i + 2u] : 0.0, left > 3u ? x.v[i + 3u] : 0.0);
}
#endif

vec4 r_load(uint i, uint left)
{
    if (VECTOR)
        return F32x4(push.r).v[i / 4u];
    F32 x = F32(push.r);
    return vec4(x.v[i], left > 1u ? x.v[i + 1u] : 0.0, left > 2u ? x.v[i + 2u] : 0.0, left > 3u ? x.v[i + 3u] : 0.0);
}

// used: how many of the rows mean something; the others' sums are 0.
void multiply(uvec4 rows, uint used, uvec2 from, uint extent)
{
    [[unroll]] for (uint i = 0u; i < ROWS; i++)
        sums[i] = vec4(0.0);
    for (uint k = team_lane() * 4u; k < extent; k += LANES * 4u) {
        uint left = extent - k;
        vec4 a = r_load(rows.x + k, left), b = vec4(0.0), c = vec4(0.0), e = vec4(0.0);
        if (used > 1u)
            b = r_load(rows.y + k, left);
        if (used > 2u)
            c = r_load(rows.z + k, left);
        if (used > 3u)
            e = r_load(rows.w + k, left);
        [[unroll]] for (uint i = 0u; i < ROWS; i++) {
            vec4 v = vector_load(from, vectors[i] + k, left);
            sums[i] += vec4(dot(a, v), dot(b, v), dot(c, v), dot(e, v));
        }
    }
    [[unroll]] for (uint i = 0u; i < ROWS; i++)
        sums[i] = team_sum(sums[i]);
}

vec4 sums_of(uint row)
{
    vec4 x = sums[0];
    [[unroll]] for (uint i = 1u; i < ROWS; i++)
        x = i == row ? sums[i] : x;
    return x;
}
float component(vec4 x, uint i) { return i == 0u ? x.x : (i == 1u ? x.y : (i == 2u ? x.z : x.w)); }

#endif
