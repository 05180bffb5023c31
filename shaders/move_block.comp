// kernel: move_block
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#define UNIT 4
#include "move_unit.glsl"
#include "move_block.push.h"

// The strided move of 32-bit words for any number of dimensions: what remains when more than five do not collapse.
void main()
{
    uint n = linear_invocation();
    if (n >= push.count)
        return;
    uint from_at = push.from_base;
    uint to_at = push.to_base;
    U32 table = U32(push.table);
    for (uint d = 0u; d < push.rank; d++) {
        uint q = divide(n, table.v[d * 5u + 1u], table.v[d * 5u + 2u]);
        uint c = n - q * table.v[d * 5u];
        from_at += c * table.v[d * 5u + 3u];
        to_at += c * table.v[d * 5u + 4u];
        n = q;
    }
    U32(push.to).v[to_at] = U32(push.from).v[from_at];
}
