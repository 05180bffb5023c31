// kernel: gather_one_hot_4 -DUNIT=4
// kernel: gather_one_hot_8 -DUNIT=8
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "move_unit.glsl"
#include "gather_one_hot.push.h"

layout(constant_id = 3) const uint INDEX_TYPE = 0u; // int32, int64, float32

// Position 0 .. depth - 1 that entry i names, or -1: unlike a gather's, an index outside names nothing.
int position(uint i)
{
    int depth = int(push.depth);
    int p;
    if (INDEX_TYPE == 1u) {
        uvec2 w = U32x2(push.indices).v[i];
        bool fits = (w.y == 0u && int(w.x) >= 0) || (w.y == 0xffffffffu && int(w.x) < 0);
        p = fits ? int(w.x) : depth;
    } else if (INDEX_TYPE == 2u) {
        float f = F32(push.indices).v[i];
        p = f > -2147483000.0 && f < 2147483000.0 ? int(f) : depth;
    } else {
        p = I32(push.indices).v[i];
    }
    p = p < 0 ? p + depth : p;
    return p < 0 || p >= depth ? -1 : p;
}

Unit element(uint n)
{
    uint t = divide(n, push.inner_multiplier, push.inner_shift);
    uint j = n - t * push.inner;
    uint o = divide(t, push.depth_multiplier, push.depth_shift);
    uint d = t - o * push.depth;
    return Units(push.values).v[position(o * push.inner + j) == int(d) ? 1 : 0];
}

#if UNIT == 4
// An invocation makes four neighbours; those of one entry, when the new axis is the innermost, at once.
void main()
{
    uint first = linear_invocation() * 4u;
    if (first >= push.count)
        return;
    uint o = divide(first, push.depth_multiplier, push.depth_shift);
    uint d = first - o * push.depth;
    if (push.inner == 1u && d + 4u <= push.depth) {
        bvec4 here = equal(ivec4(position(o)), int(d) + ivec4(0, 1, 2, 3));
        uint off = U32(push.values).v[0];
        uint on = U32(push.values).v[1];
        U32x4(push.y).v[first >> 2] = uvec4(here.x ? on : off, here.y ? on : off, here.z ? on : off, here.w ? on : off);
    } else {
        for (uint n = first; n < min(first + 4u, push.count); n++)
            U32(push.y).v[n] = element(n);
    }
}
#else
void main()
{
    uint n = linear_invocation();
    if (n < push.count)
        Units(push.y).v[n] = element(n);
}
#endif
