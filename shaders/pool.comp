// kernel: pool
#version 450
#extension GL_GOOGLE_include_directive : require
#include "pool_window.glsl"

// Maximum and average pooling, one output a lane, lanes along a row. Floor: the bytes of X and Y, and of the indices.
//
// The first of equal maxima wins, as in PyTorch, and a NaN beats everything. Values are compared as loaded; integers as
// integers (the device holds 8-bit ones widened to 32).

bool beats(uint value, uint best)
{
    if (KIND == 1)
        return int(value) > int(best);
    if (KIND == 2)
        return value > best;
    precise float v = uintBitsToFloat(value), b = uintBitsToFloat(best);
    return v > b || v != v;
}

void store_index(uint i, uint index)
{
    if (INDICES == 1)
        U32(push.indices).v[i] = index;
    else if (INDICES == 2)
        U32x2(push.indices).v[i] = uvec2(index, 0u);
}

void average(uint i, Place p)
{
    float sum = 0.0;
    for (uint d = 0u; d < KD; ++d) {
        int z = tap_source(true, int(p.z), d, STRIDE_D, DILATION_D, push.pad_d);
        for (uint r = 0u; r < KH; ++r) {
            int y = tap_source(true, int(p.y), r, STRIDE_H, DILATION_H, push.pad_h);
            if (!within(z, push.in_d) || !within(y, push.in_h))
                continue;
            uint row = ((p.plane * push.in_d + uint(z)) * push.in_h + uint(y)) * push.in_w;
            for (uint s = 0u; s < KW; ++s) {
                int x = tap_source(true, int(p.x), s, STRIDE_W, DILATION_W, push.pad_w);
                if (within(x, push.in_w))
                    sum += F32(push.from).v[row + uint(x)];
            }
        }
    }
    F32(push.to).v[i] = sum * average_scale(p.z, p.y, p.x);
}

// What a window that lies in the padding alone gives: the least value, and an index that is none.
uint least_value() { return KIND == 0 ? 0xff800000u : KIND == 1 ? 0x80000000u : 0u; }

void maximum(uint i, Place p)
{
    uint best = least_value(), at = 0xffffffffu;
    for (uint d = 0u; d < KD; ++d) {
        int z = tap_source(true, int(p.z), d, STRIDE_D, DILATION_D, push.pad_d);
        for (uint r = 0u; r < KH; ++r) {
            int y = tap_source(true, int(p.y), r, STRIDE_H, DILATION_H, push.pad_h);
            if (!within(z, push.in_d) || !within(y, push.in_h))
                continue;
            uint row = ((p.plane * push.in_d + uint(z)) * push.in_h + uint(y)) * push.in_w;
            for (uint s = 0u; s < KW; ++s) {
                int x = tap_source(true, int(p.x), s, STRIDE_W, DILATION_W, push.pad_w);
                if (!within(x, push.in_w))
                    continue;
                uint value = U32(push.from).v[row + uint(x)];
                if (at == 0xffffffffu || beats(value, best)) {
                    best = value;
                    at = index_of(p.plane, uint(z), uint(y), uint(x));
                }
            }
        }
    }
    U32(push.to).v[i] = best;
    store_index(i, at);
}

// One 2 x 2 window: its maximum and where it lies.
uvec2 tile_maximum(uvec4 window, Place p, uint x)
{
    uvec2 best = uvec2(window.x, index_of(p.plane, 0u, p.y * 2u, x));
    if (beats(window.y, best.x))
        best = uvec2(window.y, index_of(p.plane, 0u, p.y * 2u, x + 1u));
    if (beats(window.z, best.x))
        best = uvec2(window.z, index_of(p.plane, 0u, p.y * 2u + 1u, x));
    if (beats(window.w, best.x))
        best = uvec2(window.w, index_of(p.plane, 0u, p.y * 2u + 1u, x + 1u));
    return best;
}

void tiles(uint i)
{
    Place p = find_place(i, 1u, push.out_h, push.out_w / 2u);
    uint row = ((p.plane * push.in_h + p.y * 2u) * push.in_w >> 2) + p.x;
    uvec4 top = U32x4(push.from).v[row], bottom = U32x4(push.from).v[row + (push.in_w >> 2)];
    if (AVERAGE) {
        vec4 t = uintBitsToFloat(top), b = uintBitsToFloat(bottom);
        F32x2(push.to).v[i] = 0.25 * vec2(t.x + t.y + b.x + b.y, t.z + t.w + b.z + b.w);
        return;
    }
    uvec2 left = tile_maximum(uvec4(top.xy, bottom.xy), p, p.x * 4u);
    uvec2 right = tile_maximum(uvec4(top.zw, bottom.zw), p, p.x * 4u + 2u);
    U32x2(push.to).v[i] = uvec2(left.x, right.x);
    if (INDICES == 1)
        U32x2(push.indices).v[i] = uvec2(left.y, right.y);
    else if (INDICES == 2)
        U32x4(push.indices).v[i] = uvec4(left.y, 0u, right.y, 0u);
}

void main()
{
    uint i = linear_invocation();
    if (i >= push.count)
        return;
    if (TILES) {
        tiles(i);
        return;
    }
    Place p = find_place(i, push.out_d, push.out_h, push.out_w);
    if (AVERAGE)
        average(i, p);
    else
        maximum(i, p);
}
