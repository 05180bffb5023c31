// kernel: selftest_lcg
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "selftest_lcg.push.h"

layout(constant_id = 3) const uint MULTIPLIER = 1664525u;

// x = x * multiplier + add, rounds times, in place: steps that do not commute, so that a lost or reordered one shows, and
// that take as long as a test likes.
void main()
{
    uint i = linear_invocation();
    if (i >= push.count)
        return;
    uint value = U32(push.x).v[i];
    for (uint r = 0u; r < push.rounds; r++)
        value = value * MULTIPLIER + push.add;
    U32(push.x).v[i] = value;
}
