// kernel: gather_2 -DUNIT=2 needs=storage16
// kernel: gather_4 -DUNIT=4
// kernel: gather_8 -DUNIT=8
// kernel: gather_16 -DUNIT=16
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "move_unit.glsl"
#include "gather.push.h"
#include "gather_index.glsl"

layout(constant_id = 4) const uint DEPTH = 1u;     // indices of one tuple
layout(constant_id = 5) const bool SHARED = false; // all batches use the same tuples: Gather along an inner axis

void main()
{
    uint n = linear_invocation();
    if (n >= push.count)
        return;
    uint t = divide(n, push.inner_multiplier, push.inner_shift);
    uint j = n - t * push.inner;
    uint b = divide(t, push.rows_multiplier, push.rows_shift);
    uint row = SHARED ? t - b * push.rows : t;
    uint at = b * push.batch_stride + j;
    uint entry = row * DEPTH;
    at += read_index(push.indices, entry, push.extent_0) * push.stride_0;
    if (DEPTH > 1u)
        at += read_index(push.indices, entry + 1u, push.extent_1) * push.stride_1;
    if (DEPTH > 2u)
        at += read_index(push.indices, entry + 2u, push.extent_2) * push.stride_2;
    if (DEPTH > 3u)
        at += read_index(push.indices, entry + 3u, push.extent_3) * push.stride_3;
    for (uint k = 4u; k < DEPTH; k++)
        at += read_index(push.indices, entry + k, U32(push.table).v[2u * k - 8u]) * U32(push.table).v[2u * k - 7u];
    Units(push.y).v[n] = Units(push.x).v[at];
}
