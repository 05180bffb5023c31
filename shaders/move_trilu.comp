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

uint column;
uint row;

void locate(uint n)
{
    uint q = divide(n, push.columns_multiplier, push.columns_shift);
    column = n - q * push.columns;
    row = q - divide(q, push.rows_multiplier, push.rows_shift) * push.rows;
}

bool keep()
{
    int distance = int(column) - int(row);
    return UPPER ? distance >= push.k : distance <= push.k;
}

#if UNIT == 4
void main()
{
    uint first = linear_invocation() * 4u;
    if (first >= push.count)
        return;
    locate(first);
    bvec4 kept = bvec4(false);
    [[unroll]] for (uint k = 0u; k < 4u; k++) {
        kept[k] = keep();
        if (++column == push.columns) {
            column = 0u;
            row = row + 1u == push.rows ? 0u : row + 1u;
        }
    }
    if (first + 4u <= push.count) {
        uvec4 x = uvec4(0u);
        if (ALIGNED && any(kept))
            x = U32x4(push.x).v[first >> 2];
        [[unroll]] for (uint k = 0u; k < 4u; k++) {
            if (!kept[k])
                x[k] = 0u;
            else if (!ALIGNED)
                x[k] = U32(push.x).v[first + k];
        }
        U32x4(push.y).v[first >> 2] = x;
    } else {
        for (uint k = 0u; first + k < push.count; k++)
            U32(push.y).v[first + k] = kept[k] ? U32(push.x).v[first + k] : 0u;
    }
}
#else
void main()
{
    uint n = linear_invocation();
    if (n >= push.count)
        return;
    locate(n);
    Unit x = UNIT_ZERO;
    if (keep())
        x = Units(push.x).v[n];
    Units(push.y).v[n] = x;
}
#endif
