// kernel: recurrent
// kernel: recurrent_subgroup -DSUBGROUP=1 needs=subgroup,subgroup-size
// kernel: recurrent_persistent -DPERSISTENT=1
// kernel: recurrent_persistent_subgroup -DPERSISTENT=1 -DSUBGROUP=1 needs=subgroup,subgroup-size
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "reduce.glsl"
#include "activation.glsl"
#include "math.glsl"
#include "recurrent.push.h"
#include "recurrent.glsl"

// Steps of RNN, LSTM and GRU. The products of X came before; here each gate gets its product with the state, and the
// cell is finished by the lane that holds the sums: one dispatch a step, two for a GRU that resets before its product.
// A team does one hidden unit where several gates need its sums, else four units.

const uint UNITS = CELL == CELL_RNN || PHASE == PHASE_CANDIDATE ? 4u : 1u;
const uint GATES = CELL == CELL_LSTM ? 4u : (CELL == CELL_GRU ? 3u : 1u);

// What a cell is, of one unit of one sequence.
struct Place {
    uint d, b, j, s;
    bool live; // this step belongs to the sequence
    uint row, sum, state;
};

Place place(uint d, uint b, uint j, uint s)
{
    uint n = length_of(b);
    uint t = time_of(d, s, n), row = row_of(t, b, d);
    return Place(d, b, j, s, s < n, row, row * GATES * push.hidden + j, state_of(d, b) + j);
}

float bias(Place p, uint gate, bool recurrent)
{
    if (!flag(HAS_BIAS))
        return 0.0;
    uint gh = GATES * push.hidden;
    return F32(push.bias).v[p.d * 2u * gh + (recurrent ? gh : 0u) + gate * push.hidden + p.j];
}
float projection(Place p, uint gate) { return F32(push.sums).v[p.sum + gate * push.hidden]; }
float sum_of(Place p, uint gate, float product) { return projection(p, gate) + bias(p, gate, false) + bias(p, gate, true) + product; }
void save_sum(Place p, uint gate, float x)
{
    if (flag(SAVE_SUMS))
        F32(push.sums).v[p.sum + gate * push.hidden] = x;
}
void save_extra(Place p, float x)
{
    if (flag(HAS_EXTRA))
        F32(push.extra).v[p.row * push.hidden + p.j] = x;
}

float lstm(Place p, vec4 product, float c_old, out float c)
{
    float pi = 0.0, po = 0.0, pf = 0.0;
    if (flag(HAS_PEEPHOLE)) {
        uint at = p.d * 3u * push.hidden + p.j;
        pi = F32(push.peephole).v[at];
        po = F32(push.peephole).v[at + push.hidden];
        pf = F32(push.peephole).v[at + 2u * push.hidden];
    }
    Gate f = gate_f(p.d);
    float si = sum_of(p, 0u, product.x) + pi * c_old, sf = sum_of(p, 2u, product.z) + pf * c_old;
    float sc = sum_of(p, 3u, product.w), so = sum_of(p, 1u, product.y);
    float i = gate_value(f, si), forget = flag(INPUT_FORGET) ? 1.0 - i : gate_value(f, sf);
    c = forget * c_old + i * gate_value(gate_g(p.d), sc);
    so += po * c;
    save_sum(p, 0u, si);
    save_sum(p, 1u, so);
    save_sum(p, 2u, sf);
    save_sum(p, 3u, sc);
    save_extra(p, c_old);
    return gate_value(f, so) * gate_value(gate_h(p.d), c);
}

float gru(Place p, vec4 product, float h_old)
{
    float sz = sum_of(p, 0u, product.x), sr = sum_of(p, 1u, product.y), linear = product.z + bias(p, 2u, true);
    float z = gate_value(gate_f(p.d), sz);
    float sc = projection(p, 2u) + bias(p, 2u, false) + gate_value(gate_f(p.d), sr) * linear;
    save_sum(p, 0u, sz);
    save_sum(p, 1u, sr);
    save_sum(p, 2u, sc);
    save_extra(p, linear);
    return (1.0 - z) * gate_value(gate_g(p.d), sc) + z * h_old;
}

// The gates of a GRU that resets before its product; the second phase needs the sums of z, and r h.
void gru_gates(Place p, vec4 product, float h_old)
{
    float sz = sum_of(p, 0u, product.x), sr = sum_of(p, 1u, product.y);
    F32(push.sums).v[p.sum] = sz;
    save_sum(p, 1u, sr);
    save_extra(p, gate_value(gate_f(p.d), sr) * h_old);
}

float gru_candidate(Place p, float product, float h_old)
{
    float z = gate_value(gate_f(p.d), projection(p, 0u)), sc = sum_of(p, 2u, product);
    save_sum(p, 2u, sc);
    return (1.0 - z) * gate_value(gate_g(p.d), sc) + z * h_old;
}

// The state that leaves the step.
float finish(Place p, vec4 product, uint unit, float h_old)
{
    bool first = PHASE != PHASE_CANDIDATE, last = PHASE != PHASE_GATES;
    float h = h_old, c = 0.0, c_old = 0.0;
    if (CELL == CELL_LSTM)
        c = c_old = p.s == 0u ? F32(push.c_in).v[p.state] : F32(push.c_out).v[p.state];
    if (!p.live) {
        if (first)
            save_extra(p, 0.0);
    } else if (PHASE == PHASE_GATES) {
        gru_gates(p, product, h_old);
    } else if (PHASE == PHASE_CANDIDATE) {
        h = gru_candidate(p, component(product, unit), h_old);
    } else if (CELL == CELL_LSTM) {
        h = lstm(p, product, c_old, c);
    } else if (CELL == CELL_GRU) {
        h = gru(p, product, h_old);
    } else {
        float s = sum_of(p, 0u, component(product, unit));
        save_sum(p, 0u, s);
        h = gate_value(gate_f(p.d), s);
    }
    if (CELL == CELL_LSTM)
        F32(push.c_out).v[p.state] = c;
    if (first && flag(SAVE_ENTRY))
        F32(push.entry).v[p.row * push.hidden + p.j] = p.live ? h_old : 0.0;
    if (last && flag(HAS_Y)) {
        uint n = length_of(p.b);
        F32(push.y).v[output_of(time_of(p.d, p.s, n), p.d, p.b) + p.j] = p.live ? h : 0.0;
    }
    return h;
}

// One step of a team: units group .. group + UNITS - 1 of sequences tile * ROWS and on. from, to: halves of the shared
// memory (persistent).
void team_step(uint d, uint tile, uint group, bool there, uint s, uint from, uint to)
{
    uint j0 = min(group * UNITS, push.hidden - 1u);
    [[unroll]] for (uint i = 0u; i < ROWS; i++) {
        uint b = min(tile * ROWS + i, push.batch - 1u);
#ifdef PERSISTENT
        vectors[i] = from + i * push.hidden;
#else
        vectors[i] = PHASE == PHASE_CANDIDATE ? row_of(time_of(d, s, length_of(b)), b, d) * push.hidden : state_of(d, b);
#endif
    }
    uint first = d * GATES * push.hidden + (PHASE == PHASE_CANDIDATE ? 2u * push.hidden : 0u);
    uvec4 rows;
    if (UNITS == 1u)
        rows = (first + j0 + uvec4(0u, 1u, 2u, 3u) * push.hidden) * push.hidden;
    else
        rows = (first + min(j0 + uvec4(0u, 1u, 2u, 3u), uvec4(push.hidden - 1u))) * push.hidden;
    multiply(rows, UNITS == 4u ? 4u : (PHASE == PHASE_GATES ? 2u : GATES),
             PHASE == PHASE_CANDIDATE ? push.extra : push.h_in, push.hidden);
    for (uint cell = team_lane(); cell < ROWS * UNITS; cell += LANES) {
        uint i = cell / UNITS, unit = cell % UNITS, b = tile * ROWS + i, j = group * UNITS + unit;
        if (!there || b >= push.batch || j >= push.hidden)
            continue;
        Place p = place(d, b, j, s);
#ifdef PERSISTENT
        float h = finish(p, sums_of(i), unit, kept[from + i * push.hidden + j]);
        kept[to + i * push.hidden + j] = h;
        if (s + 1u == push.step_end)
            F32(push.h_out).v[p.state] = h;
#else
        float h = finish(p, sums_of(i), unit, F32(push.h_in).v[p.state]);
        if (PHASE != PHASE_GATES)
            F32(push.h_out).v[p.state] = h;
#endif
    }
}

void main()
{
    uint groups = (push.hidden + UNITS - 1u) / UNITS, tiles = (push.batch + ROWS - 1u) / ROWS;
#ifdef PERSISTENT
    uint tile = linear_group() % tiles, d = linear_group() / tiles, span = ROWS * push.hidden;
    if (d >= DIRECTIONS)
        return;
    for (uint i = gl_LocalInvocationIndex; i < span; i += ITEMS * LANES) {
        uint b = min(tile * ROWS + i / push.hidden, push.batch - 1u);
        kept[i] = F32(push.h_in).v[state_of(d, b) + i % push.hidden];
    }
    barrier();
    for (uint s = push.step; s < push.step_end; s++) {
        uint from = (s - push.step) % 2u * span;
        for (uint g = 0u; g < groups; g += ITEMS)
            team_step(d, tile, g + team_place(), g + team_place() < groups, s, from, span - from);
        barrier();
    }
#else
    uint item = team_item(), rest = item / groups;
    bool there = rest < tiles * DIRECTIONS;
    rest = there ? rest : 0u;
    team_step(rest / tiles, rest % tiles, item % groups, there, push.step, 0u, 0u);
#endif
}
