// kernel: pool_grad
#version 450
#extension GL_GOOGLE_include_directive : require
#include "pool_window.glsl"

// Backward of maximum and average pooling: an element of dX gathers from the outputs whose windows hold it, always in
// the same order, so nothing is scattered or added atomically. The maximum's gradient goes where the forward pass's
// index points. Floor: the bytes of dX, dY and the indices.

// The outputs along one axis whose windows (dilation gaps included) span position i: [first, end).
uvec2 covering(uint i, uint k, uint stride, uint dilation, uint pad, uint extent)
{
    uint at = i + pad, span = (k - 1u) * dilation + 1u;
    return uvec2(at < span ? 0u : (at - span) / stride + 1u, min(at / stride + 1u, extent));
}

bool is_tap(uint i, uint o, uint stride, uint dilation, uint pad)
{
    return dilation == 1u || (i + pad - o * stride) % dilation == 0u;
}

uint index_at(uint o) { return INDICES == 2 ? U32x2(push.indices).v[o].x : U32(push.indices).v[o]; }

float part(uint o, uint self, Place p, uint z, uint y, uint x)
{
    float dy = F32(push.from).v[o];
    if (!AVERAGE)
        return index_at(o) == self ? dy : 0.0;
    if (!is_tap(p.z, z, STRIDE_D, DILATION_D, push.pad_d) || !is_tap(p.y, y, STRIDE_H, DILATION_H, push.pad_h) ||
        !is_tap(p.x, x, STRIDE_W, DILATION_W, push.pad_w))
        return 0.0;
    return dy * average_scale(z, y, x);
}

// The most windows that hold one element, along one axis.
const uint MOST_D = (KD - 1) * DILATION_D / STRIDE_D + 1;
const uint MOST_H = (KH - 1) * DILATION_H / STRIDE_H + 1;
const uint MOST_W = (KW - 1) * DILATION_W / STRIDE_W + 1;

void gather(uint i)
{
    Place p = find_place(i, push.in_d, push.in_h, push.in_w);
    uvec2 zs = covering(p.z, KD, STRIDE_D, DILATION_D, push.pad_d, push.out_d);
    uvec2 ys = covering(p.y, KH, STRIDE_H, DILATION_H, push.pad_h, push.out_h);
    uvec2 xs = covering(p.x, KW, STRIDE_W, DILATION_W, push.pad_w, push.out_w);
    uint self = index_of(p.plane, p.z, p.y, p.x);
    float sum = 0.0;
    for (uint d = 0u; d < MOST_D; ++d)
        for (uint r = 0u; r < MOST_H; ++r)
            for (uint s = 0u; s < MOST_W; ++s) {
                uint z = zs.x + d, y = ys.x + r, x = xs.x + s;
                bool inside = z < zs.y && y < ys.y && x < xs.y;
                uint o = inside ? ((p.plane * push.out_d + z) * push.out_h + y) * push.out_w + x : 0u;
                float v = part(o, self, p, z, y, x);
                sum += inside ? v : 0.0;
            }
    F32(push.to).v[i] = sum;
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
