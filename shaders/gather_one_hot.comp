// kernel: gather_one_hot_2 -DUNIT=2 needs=storage16
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

// With 4-byte units an invocation makes four neighbours and stores them at once.
#if UNIT == 4
void main()
{
    uint first = linear_invocation() * 4u;
    if (first >= push.count)
        return;
    uint t = divide(first, push.inner_multiplier, push.inner_shift);
    uint j = first - t * push.inner;
    uint o = divide(t, push.depth_multiplier, push.depth_shift);
    uint d = t - o * push.depth;
    uint off = U32(push.values).v[0];
    uint on = U32(push.values).v[1];
    uvec4 word = uvec4(off);
    [[unroll]] for (uint k = 0u; k < 4u; k++) {
        if (first + k < push.count && position(o * push.inner + j) == int(d))
            word[k] = on;
        if (++j == push.inner) {
            j = 0u;
            if (++d == push.depth) {
                d = 0u;
                o++;
            }
        }
    }
    if (first + 4u <= push.count) {
        U32x4(push.y).v[first >> 2] = word;
    } else {
        for (uint k = 0u; first + k < push.count; k++)
            U32(push.y).v[first + k] = word[k];
    }
}
#else
void main()
{
    uint n = linear_invocation();
    if (n >= push.count)
        return;
    uint t = divide(n, push.inner_multiplier, push.inner_shift);
    uint j = n - t * push.inner;
    uint o = divide(t, push.depth_multiplier, push.depth_shift);
    uint d = t - o * push.depth;
    Units(push.y).v[n] = Units(push.values).v[position(o * push.inner + j) == int(d) ? 1 : 0];
}
#endif
