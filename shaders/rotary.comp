// kernel: rotary
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "rotary.push.h"

// Each invocation turns a unit of WIDTH pairs (a, b) of a head's row into (a cos - b sin, a sin + b cos), or copies
// WIDTH elements beyond the turned ones. b is the second half's element, or with INTERLEAVED the neighbour.
layout(constant_id = 3) const bool BY_ROWS = false; // x is [batch][row][head][size], else [batch][head][row][size]
layout(constant_id = 4) const bool INTERLEAVED = false;
layout(constant_id = 5) const bool POSITIONS = false;
layout(constant_id = 6) const uint WIDTH = 1; // 4: halves, rest and caches are whole aligned vectors

void turn(uint at, uint cache, uint pair)
{
    uint half_count = push.turned / 2u;
    if (WIDTH == 4u) {
        uint a = (at + pair) >> 2, b = (at + half_count + pair) >> 2, c = (cache + pair) >> 2;
        vec4 xa = F32x4(push.x).v[a], xb = F32x4(push.x).v[b], k = F32x4(push.cosine).v[c], s = F32x4(push.sine).v[c];
        F32x4(push.y).v[a] = xa * k - xb * s;
        F32x4(push.y).v[b] = xa * s + xb * k;
        return;
    }
    uint a = at + (INTERLEAVED ? 2u * pair : pair), b = INTERLEAVED ? a + 1u : a + half_count;
    float xa = F32(push.x).v[a], xb = F32(push.x).v[b];
    float k = F32(push.cosine).v[cache + pair], s = F32(push.sine).v[cache + pair];
    F32(push.y).v[a] = xa * k - xb * s;
    F32(push.y).v[b] = xa * s + xb * k;
}

void main()
{
    uint item = linear_invocation();
    if (item >= push.work)
        return;
    uint pairs = push.turned / 2u / WIDTH, units = pairs + (push.size - push.turned) / WIDTH;
    uint unit = item % units, index = item / units; // index: of a head's row, as x has them
    uint row = BY_ROWS ? index / push.heads % push.rows : index % push.rows;
    uint position = index / push.heads / push.rows * push.rows + row;
    if (POSITIONS)
        position = clamp_index(U32x2(push.positions).v[position], push.caches);
    if (unit < pairs) {
        turn(index * push.size, position * (push.turned / 2u), unit * WIDTH);
        return;
    }
    uint at = index * push.size + push.turned + (unit - pairs) * WIDTH;
    if (WIDTH == 4u)
        F32x4(push.y).v[at >> 2] = F32x4(push.x).v[at >> 2];
    else
        F32(push.y).v[at] = F32(push.x).v[at];
}
