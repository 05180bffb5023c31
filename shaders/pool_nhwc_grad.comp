// kernel: pool_nhwc_grad
#version 450
#extension GL_GOOGLE_include_directive : require
#include "pool_window.glsl"
#include "octet.glsl"

// Backward of pool_nhwc.comp: an octet of dX gathers from the outputs whose windows hold its pixel, always in the same
// order. Floor: the bytes of dX, dY and the indices.
layout(constant_id = 20) const uint OCTETS = 1;
layout(constant_id = 21) const bool HALVES = false;

// The most windows that hold one pixel, along one axis.
const uint MOST_H = (KH - 1) * DILATION_H / STRIDE_H + 1;
const uint MOST_W = (KW - 1) * DILATION_W / STRIDE_W + 1;

uvec4 taps_of(uint word) { return uvec4(word, word >> 8, word >> 16, word >> 24) & 0xffu; }

void main()
{
    uint i = linear_invocation();
    if (i >= push.count)
        return;
    Place p = find_place(i, push.in_h, push.in_w, OCTETS); // plane: image, z: row, y: column, x: octet
    uvec2 ys = covering(p.z, KH, STRIDE_H, DILATION_H, push.pad_h, push.out_h);
    uvec2 xs = covering(p.y, KW, STRIDE_W, DILATION_W, push.pad_w, push.out_w);
    Octet sum = Octet(vec4(0.0), vec4(0.0));
    for (uint r = 0u; r < MOST_H; ++r)
        for (uint s = 0u; s < MOST_W; ++s) {
            uint y = ys.x + r, x = xs.x + s;
            if (y >= ys.y || x >= xs.y || !is_tap(p.z, y, KH, STRIDE_H, DILATION_H, push.pad_h) ||
                !is_tap(p.y, x, KW, STRIDE_W, DILATION_W, push.pad_w))
                continue;
            uint from = ((p.plane * push.out_h + y) * push.out_w + x) * OCTETS + p.x;
            Octet dy = load_octet(push.from, from, HALVES);
            if (AVERAGE) {
                float scale = average_scale(0u, y, x);
                sum.low += dy.low * scale;
                sum.high += dy.high * scale;
            } else {
                uvec2 chosen = U32x2(push.indices).v[from];
                uint tap = (p.z + push.pad_h - y * STRIDE_H) / DILATION_H * KW + (p.y + push.pad_w - x * STRIDE_W) / DILATION_W;
                sum.low += mix(vec4(0.0), dy.low, equal(taps_of(chosen.x), uvec4(tap)));
                sum.high += mix(vec4(0.0), dy.high, equal(taps_of(chosen.y), uvec4(tap)));
            }
        }
    store_octet(push.to, i, HALVES, sum);
}
