// kernel: recurrent_grad
// kernel: recurrent_grad_subgroup -DSUBGROUP=1 needs=subgroup,subgroup-size
// kernel: recurrent_grad_persistent -DPERSISTENT=1
// kernel: recurrent_grad_persistent_subgroup -DPERSISTENT=1 -DSUBGROUP=1 needs=subgroup,subgroup-size
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "reduce.glsl"
#include "activation.glsl"
#include "math.glsl"
#include "recurrent_grad.push.h"
#include "recurrent.glsl"

// Backpropagation through time, last step first. A team first adds to dh what the step after (s + 1) owes through R:
// its gate gradients times columns of R, which the host stored as rows. Then the cell's own derivatives, from the gate
// sums that the forward saved. dh and dc are the states' gradients, in place. A GRU that resets before its product takes
// two dispatches a step: phase 1 the candidate and z, phase 2 the reset gate behind the candidate's product.

const uint UNITS = 4;
const uint GATES = CELL == CELL_LSTM ? 4u : (CELL == CELL_GRU ? 3u : 1u);

struct Place {
    uint d, b, j;
    bool live;
    uint t, row, sum, state;
};

Place place(uint d, uint b, uint j, uint s)
{
    uint n = length_of(b);
    uint t = time_of(d, s, n), row = row_of(t, b, d);
    return Place(d, b, j, s < n, t, row, row * GATES * push.hidden + j, state_of(d, b) + j);
}

float sum_at(Place p, uint gate) { return F32(push.sums).v[p.sum + gate * push.hidden]; }
float peephole(Place p, uint gate) { return flag(HAS_PEEPHOLE) ? F32(push.peephole).v[(p.d * 3u + gate) * push.hidden + p.j] : 0.0; }

#ifdef PERSISTENT
uint kept_at; // where this cell's gate gradients go for the next step
#endif

// Gradient of gate sum `gate`, and of its recurrent part.
void put(Place p, uint gate, float x, float linear)
{
    F32(push.d_sums).v[p.sum + gate * push.hidden] = x;
    if (flag(HAS_LINEAR))
        F32(push.d_linear).v[p.sum + gate * push.hidden] = linear;
#ifdef PERSISTENT
    kept[kept_at + gate * push.hidden] = linear;
#endif
}
void put(Place p, uint gate, float x) { put(p, gate, x, x); }

void lstm(Place p, float dh)
{
    Gate f = gate_f(p.d), g = gate_g(p.d), act = gate_h(p.d);
    float si = sum_at(p, 0u), so = sum_at(p, 1u), sf = sum_at(p, 2u), sc = sum_at(p, 3u);
    float c_old = F32(push.extra).v[p.row * push.hidden + p.j];
    float i = gate_value(f, si), o = gate_value(f, so), candidate = gate_value(g, sc);
    float forget = flag(INPUT_FORGET) ? 1.0 - i : gate_value(f, sf), c = forget * c_old + i * candidate;
    float d_out = dh * gate_value(act, c) * gate_slope(f, so);
    float dc = F32(push.dc).v[p.state] + dh * o * gate_slope(act, c) + peephole(p, 1u) * d_out;
    float d_in = dc * candidate, d_forget = dc * c_old;
    if (flag(INPUT_FORGET)) {
        d_in -= d_forget;
        d_forget = 0.0;
    }
    d_in *= gate_slope(f, si);
    d_forget *= gate_slope(f, sf);
    put(p, 0u, d_in);
    put(p, 1u, d_out);
    put(p, 2u, d_forget);
    put(p, 3u, dc * i * gate_slope(g, sc));
    F32(push.dc).v[p.state] = dc * forget + peephole(p, 0u) * d_in + peephole(p, 2u) * d_forget;
    if (flag(HAS_CELLS))
        F32(push.cells).v[p.row * push.hidden + p.j] = c;
}

// Returns what reaches the state directly.
float gru(Place p, float dh)
{
    float sz = sum_at(p, 0u), sc = sum_at(p, 2u), h_old = F32(push.entry).v[p.row * push.hidden + p.j];
    float z = gate_value(gate_f(p.d), sz), candidate = gate_value(gate_g(p.d), sc);
    float dn = dh * (1.0 - z) * gate_slope(gate_g(p.d), sc);
    put(p, 0u, dh * (h_old - candidate) * gate_slope(gate_f(p.d), sz));
    if (PHASE == 0u) {
        float sr = sum_at(p, 1u), linear = F32(push.extra).v[p.row * push.hidden + p.j];
        put(p, 1u, dn * linear * gate_slope(gate_f(p.d), sr));
        put(p, 2u, dn, dn * gate_value(gate_f(p.d), sr));
    } else {
        put(p, 2u, dn);
    }
    return dh * z;
}

// d: gradient of r h.
float gru_reset(Place p, float d)
{
    float sr = sum_at(p, 1u), h_old = F32(push.entry).v[p.row * push.hidden + p.j];
    put(p, 1u, d * h_old * gate_slope(gate_f(p.d), sr));
    return d * gate_value(gate_f(p.d), sr);
}

void finish(Place p, float product, bool last)
{
    float dh = F32(push.dh).v[p.state];
    if (last) { // nothing is left but what step 0 owes
        F32(push.dh).v[p.state] = dh + product;
        return;
    }
    if (PHASE == PHASE_CANDIDATE) {
        if (p.live)
            F32(push.dh).v[p.state] = dh + gru_reset(p, product);
        else
            put(p, 1u, 0.0);
        return;
    }
    dh += product;
    if (p.live && flag(HAS_Y))
        dh += F32(push.dy).v[output_of(p.t, p.d, p.b) + p.j];
    if (!p.live) {
        for (uint gate = 0u; gate < GATES; gate++)
            put(p, gate, 0.0);
        if (flag(HAS_CELLS))
            F32(push.cells).v[p.row * push.hidden + p.j] = 0.0;
    } else if (CELL == CELL_LSTM) {
        lstm(p, dh);
        dh = 0.0;
    } else if (CELL == CELL_GRU) {
        dh = gru(p, dh);
    } else {
        put(p, 0u, dh * gate_slope(gate_f(p.d), sum_at(p, 0u)));
        dh = 0.0;
    }
    F32(push.dh).v[p.state] = dh;
}

void team_step(uint d, uint tile, uint group, bool there, int s, uint from, uint to)
{
    uint gh = GATES * push.hidden, j0 = min(group * UNITS, push.hidden - 1u);
    bool candidate = PHASE == PHASE_CANDIDATE;
    uint offset = candidate ? 2u * push.hidden : 0u;
    uint extent = candidate ? push.hidden : (PHASE == PHASE_GATES ? 2u * push.hidden : gh);
    uint source = uint(candidate ? s : s + 1); // the step whose gate gradients are read
    if (source >= push.steps)
        extent = 0u;
    [[unroll]] for (uint i = 0u; i < ROWS; i++) {
        uint b = min(tile * ROWS + i, push.batch - 1u);
#ifdef PERSISTENT
        vectors[i] = from + i * gh;
#else
        vectors[i] = row_of(time_of(d, min(source, push.steps - 1u), length_of(b)), b, d) * gh + offset;
#endif
    }
    uvec4 rows = (d * push.hidden + min(j0 + uvec4(0u, 1u, 2u, 3u), uvec4(push.hidden - 1u))) * gh + offset;
    multiply(rows, 4u, flag(HAS_LINEAR) ? push.d_linear : push.d_sums, extent);
    for (uint cell = team_lane(); cell < ROWS * UNITS; cell += LANES) {
        uint i = cell / UNITS, unit = cell % UNITS, b = tile * ROWS + i, j = group * UNITS + unit;
        if (!there || b >= push.batch || j >= push.hidden)
            continue;
#ifdef PERSISTENT
        kept_at = to + i * gh + j;
#endif
        finish(place(d, b, j, uint(max(s, 0))), component(sums_of(i), unit), s < 0);
    }
}

void main()
{
    uint groups = (push.hidden + UNITS - 1u) / UNITS, tiles = (push.batch + ROWS - 1u) / ROWS;
#ifdef PERSISTENT
    uint tile = linear_group() % tiles, d = linear_group() / tiles, span = ROWS * GATES * push.hidden;
    if (d >= DIRECTIONS)
        return;
    for (uint i = gl_LocalInvocationIndex; i < 2u * span; i += ITEMS * LANES)
        kept[i] = 0.0;
    barrier();
    for (int s = push.step; s >= push.step_end; s--) {
        uint from = uint(push.step - s) % 2u * span;
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
