// kernel: cumulative_f32 -DTYPE=0
// kernel: cumulative_i32 -DTYPE=1
// kernel: cumulative_i64 -DTYPE=2
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "reduce.glsl"
#include "cumulative.push.h"

// Running sums and products. A team walks a chunk of a row, four elements to a lane at a time: each lane combines its
// own, the lanes' totals are scanned in shared memory, and the sum so far is carried on. Where a row is cut into several
// chunks, a dispatch before this one (TOTALS) combined each, and a team begins with those in front of it.

layout(constant_id = 8) const bool TOTALS = false;
layout(constant_id = 9) const bool PRODUCT = false;
layout(constant_id = 10) const bool EXCLUSIVE = false;
layout(constant_id = 11) const bool REVERSE = false;
layout(constant_id = 12) const bool VECTOR = false; // rows side by side, a multiple of four elements, aligned

#if TYPE == 0
#define T float
#define ONE 1.0
#elif TYPE == 1
#define T uint
#define ONE 1u
#else
#define T uvec2
#define ONE uvec2(1u, 0u)
#endif
layout(buffer_reference, std430, buffer_reference_align = 4) buffer Elements { T v[]; };
struct Four {
    T a, b, c, d;
};
layout(buffer_reference, std430, buffer_reference_align = 16) buffer Fours { Four v[]; };

float add(float a, float b) { return a + b; }
uint add(uint a, uint b) { return a + b; }
uvec2 add(uvec2 a, uvec2 b)
{
    uint carry;
    uint low = uaddCarry(a.x, b.x, carry);
    return uvec2(low, a.y + b.y + carry);
}
float multiply(float a, float b) { return a * b; }
uint multiply(uint a, uint b) { return a * b; }
uvec2 multiply(uvec2 a, uvec2 b)
{
    uint low, high;
    umulExtended(a.x, b.x, high, low);
    return uvec2(low, high + a.x * b.y + a.y * b.x);
}
T both(T a, T b)
{
    if (PRODUCT)
        return multiply(a, b);
    return add(a, b);
}
T neutral()
{
    if (PRODUCT)
        return ONE;
    return T(0);
}

TEAM_REDUCE(team_both, T, both)

// What lies in front of this lane, and all of the team's.
shared T scanned[ITEMS * LANES];
T team_before(T x, out T total)
{
    total = x;
    if (LANES == 1u)
        return neutral();
    uint at = team_thread();
    barrier();
    scanned[at] = x;
    barrier();
    for (uint h = 1u; h < LANES; h *= 2u) {
        T y = scanned[at];
        if (team_lane() >= h)
            y = both(scanned[at - h * TEAM_STRIDE], y);
        barrier();
        scanned[at] = y;
        barrier();
    }
    uint first = at - team_lane() * TEAM_STRIDE;
    total = scanned[first + (LANES - 1u) * TEAM_STRIDE];
    if (team_lane() == 0u)
        return neutral();
    return scanned[at - TEAM_STRIDE];
}

uint place(uint k) { return REVERSE ? push.extent - 1u - k : k; }

// Elements k .. k + 3 of a row in the order of the scan; neutral from `end` on.
void load(uint base, uint k, uint end, out T x[4])
{
    if (VECTOR) {
        if (k < end) {
            Four f = Fours(push.x).v[(base + (REVERSE ? push.extent - 4u - k : k)) / 4u];
            x = REVERSE ? T[4](f.d, f.c, f.b, f.a) : T[4](f.a, f.b, f.c, f.d);
        } else {
            x = T[4](neutral(), neutral(), neutral(), neutral());
        }
        return;
    }
    [[unroll]] for (uint q = 0u; q < 4u; q++) {
        x[q] = neutral();
        if (k + q < end)
            x[q] = Elements(push.x).v[base + place(k + q) * push.inner];
    }
}

void store(uint base, uint k, uint end, T x[4])
{
    if (VECTOR) {
        if (k < end)
            Fours(push.y).v[(base + (REVERSE ? push.extent - 4u - k : k)) / 4u] =
                REVERSE ? Four(x[3], x[2], x[1], x[0]) : Four(x[0], x[1], x[2], x[3]);
        return;
    }
    [[unroll]] for (uint q = 0u; q < 4u; q++)
        if (k + q < end)
            Elements(push.y).v[base + place(k + q) * push.inner] = x[q];
}

void main()
{
    // Neighbouring items are neighbouring rows where those lie side by side, else neighbouring chunks.
    uint item = team_item(), row, part;
    if (SPREAD) {
        part = item / push.rows;
        row = item % push.rows;
    } else {
        row = item / push.chunks;
        part = item % push.chunks;
    }
    bool live = row < push.rows && part < push.chunks;
    uint outer = live ? row / push.inner : 0u;
    uint base = outer * push.extent * push.inner + (live ? row - outer * push.inner : 0u);
    uint from = part * push.chunk, end = live ? min(from + push.chunk, push.extent) : 0u;
    T carry = neutral();
    if (!TOTALS && push.chunks > 1u) {
        for (uint i = team_lane(); live && i < part; i += LANES)
            carry = both(carry, Elements(push.totals).v[row * push.chunks + i]);
        carry = team_both(carry);
    }
    for (uint k0 = 0u; k0 < push.chunk; k0 += 4u * LANES) { // equally often for the whole workgroup
        uint k = from + k0 + 4u * team_lane();
        T x[4], total;
        load(base, k, end, x);
        T own = both(both(x[0], x[1]), both(x[2], x[3]));
        if (TOTALS) {
            carry = both(carry, own);
            continue;
        }
        T sum = both(carry, team_before(own, total));
        [[unroll]] for (uint q = 0u; q < 4u; q++) {
            T next = both(sum, x[q]);
            x[q] = EXCLUSIVE ? sum : next;
            sum = next;
        }
        store(base, k, end, x);
        carry = both(carry, total);
    }
    if (TOTALS) {
        carry = team_both(carry);
        if (live && team_lane() == 0u)
            Elements(push.totals).v[row * push.chunks + part] = carry;
    }
}
