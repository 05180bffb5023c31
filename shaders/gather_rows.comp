// kernel: gather_rows
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#define UNIT 4
#include "move_unit.glsl"
#include "gather_rows.push.h"
#include "gather_index.glsl"

layout(constant_id = 4) const bool LAST = false;

// Turns index tuples into row numbers: rows_out[t] = row of tuple t. LAST: rows_out[row] = 1 + the last t that names
// the row (a maximum of integers, so the order of invocations does not matter).
void main()
{
    uint t = linear_invocation();
    if (t >= push.count)
        return;
    U32 table = U32(push.table);
    uint row = divide(t, push.rows_multiplier, push.rows_shift) * push.batch_stride;
    for (uint k = 0u; k < push.depth; k++)
        row += read_index(push.indices, t * push.depth + k, table.v[2u * k]) * table.v[2u * k + 1u];
    if (LAST)
        atomicMax(U32(push.rows_out).v[row], t + 1u);
    else
        U32(push.rows_out).v[t] = row;
}
