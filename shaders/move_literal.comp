// kernel: move_literal
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "move_literal.push.h"

// Contents the host knew when it planned: a list of words (mask all ones) or a pattern of 1 or 2 words (mask 0 or 1).
void main()
{
    uint i = linear_invocation();
    if (i < push.count)
        U32(push.to).v[i] = U32(push.words).v[i & push.mask];
}
