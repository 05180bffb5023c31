// kernel: gather_elements_2 -DUNIT=2 needs=storage16
// kernel: gather_elements_4 -DUNIT=4
// kernel: gather_elements_8 -DUNIT=8
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "move_unit.glsl"
#include "gather_elements.push.h"
#include "gather_index.glsl"

// y[c] = x[c with the axis' coordinate replaced by index[c]]
void main()
{
    uint i = linear_invocation();
    if (i >= push.count)
        return;
    U32 table = U32(push.table);
    uint at = read_index(push.indices, i, push.extent) * push.stride;
    uint n = i;
    for (uint d = 0u; d < push.rank; d++) {
        uint q = divide(n, table.v[4u * d + 1u], table.v[4u * d + 2u]);
        at += (n - q * table.v[4u * d]) * table.v[4u * d + 3u];
        n = q;
    }
    Units(push.y).v[i] = Units(push.x).v[at];
}
