// kernel: move_2 -DUNIT=2 needs=storage16
// kernel: move_4 -DUNIT=4
// kernel: move_8 -DUNIT=8
// kernel: move_16 -DUNIT=16
// kernel: move_gather4 -DUNIT=4 -DDENSE
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "move_unit.glsl"
#include "move.push.h"

// The strided move: to[index in strides] = from[index in other strides], one unit an invocation.
// DENSE: the destination is contiguous; an invocation gathers four words and stores them at once.

uint from_at;
uint to_at;

// Adds one dimension's part to both positions; what is left of n belongs to the dimensions outside it.
uint split(uint n, uint extent, uint multiplier, uint shift, uint from_stride, uint to_stride)
{
    uint q = divide(n, multiplier, shift);
    uint c = n - q * extent;
    from_at += c * from_stride;
    to_at += c * to_stride;
    return q;
}

// The outermost dimension has an extent of 2^31, so that it takes all that is left.
void locate(uint n)
{
    from_at = push.from_base;
    to_at = push.to_base;
    n = split(n, push.extent_0, push.multiplier_0, push.shift_0, push.from_0, push.to_0);
    if (push.rank > 1u)
        n = split(n, push.extent_1, push.multiplier_1, push.shift_1, push.from_1, push.to_1);
    if (push.rank > 2u)
        n = split(n, push.extent_2, push.multiplier_2, push.shift_2, push.from_2, push.to_2);
    if (push.rank > 3u)
        n = split(n, push.extent_3, push.multiplier_3, push.shift_3, push.from_3, push.to_3);
    if (push.rank > 4u) {
        from_at += n * push.from_4;
        to_at += n * push.to_4;
    }
}

#ifdef DENSE
void main()
{
    uint first = linear_invocation() * 4u;
    if (first >= push.count)
        return;
    locate(first);
    // Neighbours lie in the same innermost row or, now and then, in the next: only then is the index split again.
    uint left = push.extent_0 - (first - divide(first, push.multiplier_0, push.shift_0) * push.extent_0);
    uint at = from_at;
    uvec4 word = uvec4(0u);
    word.x = U32(push.from).v[at];
    [[unroll]] for (uint k = 1u; k < 4u; k++) {
        at += push.from_0;
        left--;
        if (left == 0u && first + k < push.count) {
            locate(first + k);
            at = from_at;
            left = push.extent_0;
        }
        if (first + k < push.count)
            word[k] = U32(push.from).v[at];
    }
    if (first + 4u <= push.count) {
        U32x4(push.to).v[first >> 2] = word;
    } else {
        for (uint k = 0u; first + k < push.count; k++)
            U32(push.to).v[first + k] = word[k];
    }
}
#else
void main()
{
    uint n = linear_invocation();
    if (n >= push.count)
        return;
    locate(n);
    Units(push.to).v[to_at] = Units(push.from).v[from_at];
}
#endif
