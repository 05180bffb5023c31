// kernel: move_trilu_2 -DUNIT=2 needs=storage16
// kernel: move_trilu_4 -DUNIT=4
// kernel: move_trilu_8 -DUNIT=8
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "move_unit.glsl"
#include "move_trilu.push.h"

layout(constant_id = 3) const bool UPPER = true;
layout(constant_id = 4) const bool ALIGNED = true; // x begins at a multiple of 16 bytes

// One triangle of every matrix, zeros in the other. With 4-byte units an invocation takes four neighbours.

// Is the element in that column of that row kept?
bool keep(uint column, uint row)
{
    int distance = int(column) - int(row);
    return UPPER ? distance >= push.k : distance <= push.k;
}

Unit element(uint n)
{
    uint q = divide(n, push.columns_multiplier, push.columns_shift);
    uint row = q - divide(q, push.rows_multiplier, push.rows_shift) * push.rows;
    Unit x = UNIT_ZERO;
    if (keep(n - q * push.columns, row))
        x = Units(push.x).v[n];
    return x;
}

#if UNIT == 4
void main()
{
    uint first = linear_invocation() * 4u;
    if (first >= push.count)
        return;
    uint q = divide(first, push.columns_multiplier, push.columns_shift);
    uint row = q - divide(q, push.rows_multiplier, push.rows_shift) * push.rows;
    uint column = first - q * push.columns;
    if (ALIGNED && column + 4u <= push.columns && first + 4u <= push.count) {
        bvec4 kept = bvec4(keep(column, row), keep(column + 1u, row), keep(column + 2u, row), keep(column + 3u, row));
        uvec4 x = uvec4(0u);
        if (any(kept))
            x = U32x4(push.x).v[first >> 2];
        U32x4(push.y).v[first >> 2] = uvec4(kept.x ? x.x : 0u, kept.y ? x.y : 0u, kept.z ? x.z : 0u, kept.w ? x.w : 0u);
    } else {
        for (uint n = first; n < min(first + 4u, push.count); n++)
            U32(push.y).v[n] = element(n);
    }
}
#else
void main()
{
    uint n = linear_invocation();
    if (n < push.count)
        Units(push.y).v[n] = element(n);
}
#endif
