// kernel: transpose_tile4 -DUNIT=4
// kernel: transpose_tile8 -DUNIT=8
// kernel: transpose_block4 -DUNIT=4 -DBLOCK
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "move_unit.glsl"
#include "transpose.push.h"

// A move whose innermost dimension changes. Tiles of 32 x 32 go through shared memory, so that both sides are accessed
// in whole rows; the workgroup is 32 x anything that divides 32. BLOCK, for devices without shared memory of their own:
// one invocation turns 4 x 4 words in registers (both extents and all strides are multiples of 4).

uint from_at;
uint to_at;
uint a_first;
uint b_first;

void locate(uint n, uint tile)
{
    uint q = divide(n, push.b_multiplier, push.b_shift);
    b_first = (n - q * push.b_tiles) * tile;
    n = q;
    q = divide(n, push.a_multiplier, push.a_shift);
    a_first = (n - q * push.a_tiles) * tile;
    n = q;
    q = divide(n, push.multiplier_0, push.shift_0);
    uint c0 = n - q * push.extent_0;
    n = q;
    q = divide(n, push.multiplier_1, push.shift_1);
    uint c1 = n - q * push.extent_1;
    from_at = c0 * push.from_0 + c1 * push.from_1 + q * push.from_2;
    to_at = c0 * push.to_0 + c1 * push.to_1 + q * push.to_2;
}

#ifdef BLOCK
void main()
{
    uint n = linear_invocation();
    if (n >= push.count)
        return;
    locate(n, 4u);
    uint from = (from_at + a_first * push.from_a + b_first) >> 2;
    uint to = (to_at + b_first * push.to_b + a_first) >> 2;
    uint from_row = push.from_a >> 2;
    uint to_row = push.to_b >> 2;
    uvec4 r0 = U32x4(push.from).v[from];
    uvec4 r1 = U32x4(push.from).v[from + from_row];
    uvec4 r2 = U32x4(push.from).v[from + from_row * 2u];
    uvec4 r3 = U32x4(push.from).v[from + from_row * 3u];
    U32x4(push.to).v[to] = uvec4(r0.x, r1.x, r2.x, r3.x);
    U32x4(push.to).v[to + to_row] = uvec4(r0.y, r1.y, r2.y, r3.y);
    U32x4(push.to).v[to + to_row * 2u] = uvec4(r0.z, r1.z, r2.z, r3.z);
    U32x4(push.to).v[to + to_row * 3u] = uvec4(r0.w, r1.w, r2.w, r3.w);
}
#else
shared Unit tile[32 * 33]; // a row more than 32 long, so that a column lies in 32 banks

void main()
{
    if (linear_group() >= push.count)
        return;
    locate(linear_group(), 32u);
    uint x = gl_LocalInvocationID.x;
    for (uint y = gl_LocalInvocationID.y; y < 32u; y += gl_WorkGroupSize.y)
        if (a_first + y < push.a_extent && b_first + x < push.b_extent)
            tile[y * 33u + x] = Units(push.from).v[from_at + (a_first + y) * push.from_a + b_first + x];
    barrier();
    for (uint y = gl_LocalInvocationID.y; y < 32u; y += gl_WorkGroupSize.y)
        if (b_first + y < push.b_extent && a_first + x < push.a_extent)
            Units(push.to).v[to_at + (b_first + y) * push.to_b + a_first + x] = tile[x * 33u + y];
}
#endif
