// kernel: move_gaps
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "move_gaps.push.h"

// Zeroes short ranges of words, one a workgroup: what lies between the tensors of a flat arena.
void main()
{
    uint g = linear_group();
    if (g >= push.count)
        return;
    uint first = U32(push.table).v[g * 2u];
    uint words = U32(push.table).v[g * 2u + 1u];
    for (uint i = gl_LocalInvocationID.x; i < words; i += gl_WorkGroupSize.x)
        U32(push.to).v[first + i] = 0u;
}
