// kernel: reduce_arg
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "reduce.glsl"
#include "reduce_arg.push.h"

// ArgMax and ArgMin of one axis, for every element type: each element becomes an unsigned key whose order is that of
// the elements asked for, so that the largest key wins. NaN has the largest key of all, as in numpy and PyTorch.

layout(constant_id = 8) const uint TYPE = 0;
layout(constant_id = 9) const bool LEAST = false; // ArgMin
layout(constant_id = 10) const bool LAST = false; // of equal elements the last one, not the first

// The numbers are those of arg_type() in ops/reduce.c.
const uint TYPE_FLOAT = 0, TYPE_SIGNED = 1, TYPE_UNSIGNED = 2, TYPE_SIGNED64 = 3, TYPE_UNSIGNED64 = 4;

// (high key, low key, index); a key below all keys has no meaning here: index 0xffffffff marks that there is none yet.
const uint NONE = 0xffffffffu;

uvec3 better(uvec3 a, uvec3 b)
{
    if (a.z == NONE || b.z == NONE)
        return a.z == NONE ? b : a;
    if (a.x == b.x && a.y == b.y)
        return (a.z < b.z) != LAST ? a : b;
    bool first = a.x != b.x ? a.x > b.x : a.y > b.y;
    return first ? a : b;
}
TEAM_REDUCE(team_best, uvec3, better)

uvec2 key_at(uint i)
{
    if (TYPE >= TYPE_SIGNED64) {
        uvec2 x = U32x2(push.x).v[i].yx;
        x.x ^= TYPE == TYPE_SIGNED64 ? 0x80000000u : 0u;
        return LEAST ? ~x : x;
    }
    uint x = U32(push.x).v[i];
    if (TYPE == TYPE_FLOAT) {
        if ((x & 0x7fffffffu) > 0x7f800000u)
            return uvec2(NONE);
        x = x == 0x80000000u ? 0u : x; // -0 equals 0
        x ^= (x & 0x80000000u) != 0u ? 0xffffffffu : 0x80000000u;
    } else if (TYPE == TYPE_SIGNED)
        x ^= 0x80000000u;
    return uvec2(LEAST ? ~x : x, 0u);
}

void main()
{
    uint item = team_item();
    bool live = item < push.outputs;
    uint outer = live ? item / push.inner : 0u;
    uint base = outer * push.extent * push.inner + (live ? item - outer * push.inner : 0u);
    uvec3 best = uvec3(0u, 0u, NONE);
    for (uint j = team_lane(); live && j < push.extent; j += LANES)
        best = better(best, uvec3(key_at(base + j * push.inner), j));
    best = team_best(best);
    if (live && team_lane() == 0u)
        U32x2(push.y).v[item] = uvec2(best.z, 0u);
}
