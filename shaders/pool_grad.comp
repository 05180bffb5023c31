// kernel: pool_grad
#version 450
#extension GL_GOOGLE_include_directive : require
#include "pool_window.glsl"

layout(constant_id = 19) const uint WIDTH = 1; // neighbours in a row that an invocation makes: 1, or 4

// Backward of maximum and average pooling: an element of dX gathers from the outputs whose windows hold it, always in
// the same order, so nothing is scattered or added atomically. The maximum's gradient goes where the forward pass's
// index points. Floor: the bytes of dX, dY and the indices.

uint index_at(uint o) { return INDICES == 2 ? U32x2(push.indices).v[o].x : U32(push.indices).v[o]; }

// The most windows that hold one of an invocation's elements, along one axis.
const uint MOST_D = (KD - 1) * DILATION_D / STRIDE_D + 1;
const uint MOST_H = (KH - 1) * DILATION_H / STRIDE_H + 1;
const uint MOST_W = (WIDTH - 1 + (KW - 1) * DILATION_W) / STRIDE_W + 1;

// Adds what output o gives to the WIDTH elements from p on.
void add_output(uint o, Place p, uint self, uint z, uint y, uint x, inout float sum[WIDTH])
{
    float dy = F32(push.from).v[o];
    if (!AVERAGE) {
        uint index = index_at(o), step = COLUMNS ? push.in_h * push.in_d : 1u;
        [[unroll]] for (uint j = 0; j < WIDTH; ++j)
            sum[j] += index == self + j * step ? dy : 0.0;
        return;
    }
    bool inside = is_tap(p.z, z, KD, STRIDE_D, DILATION_D, push.pad_d) && is_tap(p.y, y, KH, STRIDE_H, DILATION_H, push.pad_h);
    dy = inside ? dy * average_scale(z, y, x) : 0.0;
    [[unroll]] for (uint j = 0; j < WIDTH; ++j)
        sum[j] += is_tap(p.x + j, x, KW, STRIDE_W, DILATION_W, push.pad_w) ? dy : 0.0;
}

void gather(uint i)
{
    Place p = find_place(i, push.in_d, push.in_h, push.in_w / WIDTH);
    p.x *= WIDTH;
    uvec2 zs = covering(p.z, KD, STRIDE_D, DILATION_D, push.pad_d, push.out_d);
    uvec2 ys = covering(p.y, KH, STRIDE_H, DILATION_H, push.pad_h, push.out_h);
    uint first = covering(p.x, KW, STRIDE_W, DILATION_W, push.pad_w, push.out_w).x;
    uint end = covering(p.x + WIDTH - 1, KW, STRIDE_W, DILATION_W, push.pad_w, push.out_w).y;
    uint self = index_of(p.plane, p.z, p.y, p.x);
    float sum[WIDTH];
    [[unroll]] for (uint j = 0; j < WIDTH; ++j)
        sum[j] = 0.0;
    for (uint d = 0u; d < MOST_D; ++d)
        for (uint r = 0u; r < MOST_H; ++r)
            for (uint s = 0u; s < MOST_W; ++s) {
                uint z = zs.x + d, y = ys.x + r, x = first + s;
                if (z < zs.y && y < ys.y && x < end)
                    add_output(((p.plane * push.out_d + z) * push.out_h + y) * push.out_w + x, p, self, z, y, x, sum);
            }
    if (WIDTH == 4)
        F32x4(push.to).v[i] = vec4(sum[0], sum[1 % WIDTH], sum[2 % WIDTH], sum[3 % WIDTH]);
    else
        F32(push.to).v[i] = sum[0];
}

// Two neighbouring outputs own a block of 2 x 4 inputs.
void tiles(uint i)
{
    Place p = find_place(i, 1u, push.out_h, push.out_w / 2u);
    vec2 dy = F32x2(push.from).v[i];
    vec4 top, bottom;
    if (AVERAGE) {
        top = 0.25 * dy.xxyy;
        bottom = top;
    } else {
        uvec2 at = INDICES == 2 ? U32x4(push.indices).v[i].xz : U32x2(push.indices).v[i];
        for (uint k = 0u; k < 4u; ++k) {
            uint x = p.x * 4u + k, index = k < 2u ? at.x : at.y;
            float v = k < 2u ? dy.x : dy.y;
            top[k] = index == index_of(p.plane, 0u, p.y * 2u, x) ? v : 0.0;
            bottom[k] = index == index_of(p.plane, 0u, p.y * 2u + 1u, x) ? v : 0.0;
        }
    }
    uint row = ((p.plane * push.in_h + p.y * 2u) * push.in_w >> 2) + p.x;
    F32x4(push.to).v[row] = top;
    F32x4(push.to).v[row + (push.in_w >> 2)] = bottom;
}

void main()
{
    uint i = linear_invocation();
    if (i >= push.count)
        return;
    if (TILES)
        tiles(i);
    else
        gather(i);
}
