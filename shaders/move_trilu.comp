// kernel: move_trilu_2 -DUNIT=2 needs=storage16
// kernel: move_trilu_4 -DUNIT=4
// kernel: move_trilu_8 -DUNIT=8
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "move_unit.glsl"
#include "move_trilu.push.h"

layout(constant_id = 3) const bool UPPER = true;

// One triangle of every matrix, zeros in the other.
void main()
{
    uint n = linear_invocation();
    if (n >= push.count)
        return;
    uint q = divide(n, push.columns_multiplier, push.columns_shift);
    int column = int(n - q * push.columns);
    int row = int(q - divide(q, push.rows_multiplier, push.rows_shift) * push.rows);
    bool keep = UPPER ? column - row >= push.k : column - row <= push.k;
    Unit x = UNIT_ZERO;
    if (keep)
        x = Units(push.x).v[n];
    Units(push.y).v[n] = x;
}
