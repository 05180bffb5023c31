// kernel: selftest_copy
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "selftest_copy.push.h"

// y = x * scale, four at a time: the smallest whole kernel, used by the device layer's own tests.
void main()
{
    uint i = linear_invocation();
    if (i < push.count4)
        F32x4(push.y).v[i] = F32x4(push.x).v[i] * push.scale;
}
