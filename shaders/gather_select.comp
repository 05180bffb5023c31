// kernel: gather_select_2 -DUNIT=2 needs=storage16
// kernel: gather_select_4 -DUNIT=4
// kernel: gather_select_8 -DUNIT=8
// kernel: gather_select_16 -DUNIT=16
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "move_unit.glsl"
#include "gather_select.push.h"

void main()
{
    uint n = linear_invocation();
    if (n >= push.count)
        return;
    uint r = divide(n, push.inner_multiplier, push.inner_shift);
    uint last = U32(push.last).v[r];
    if (last == 0u)
        Units(push.y).v[n] = Units(push.x).v[n];
    else
        Units(push.y).v[n] = Units(push.updates).v[(last - 1u) * push.inner + n - r * push.inner];
}
