// kernel: conv_winograd_weight -DPART=0
// kernel: conv_winograd_input -DPART=1
// kernel: conv_winograd_output -DPART=2
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "activation.glsl"
#include "conv_index.glsl"
#include "conv_winograd.push.h"

// Winograd's F(4x4, 3x3): tiles of 4 x 4 outputs from 6 x 6 inputs with 36 products for each channel, where a direct
// convolution needs 144. Three transforms with a batch of 36 matrix products in between:
//
//     U[f][k][c] = (G w G')[f],  V[f][c][tile] = (B' x B)[f],  y = A' (sum over c of U V) A
//
// The polynomials are evaluated at 0, +-3/4, +-3/2 and infinity. Lavin's points (0, +-1, +-2; "Fast Algorithms for
// Convolutional Neural Networks", 2016) lose two bits more than a direct sum in float32, these one: relative errors of
// 64 channels of normal numbers are 1.6e-6, 8e-7, and 4e-7 for the direct sum. B and A are exact in binary.
//
// An invocation transforms one tile of one channel; neighbours take neighbouring tiles (weights: channels), whose results
// lie next to each other. Floor: the bytes, 36/16 of x's and y's written and read, x and y once.
layout(constant_id = 3) const uint EPILOGUE = 0; // bit 0: bias, bit 1: residual
layout(constant_id = 4) const uint ACTIVATION = 0;

const float P = 0.75, Q = 1.5; // the points
const float PP = P * P, QQ = Q * Q;

#if PART == 0

layout(constant_id = 6) const bool TURNED = false; // the data gradient's: last tap first

// G times three weights.
void spread(float w0, float w1, float w2, out float g[6])
{
    const float p = 1.0 / (2.0 * PP * (PP - QQ)), q = 1.0 / (2.0 * QQ * (QQ - PP));
    float even = p * (w0 + PP * w2), odd = p * P * w1;
    g[0] = w0 * (1.0 / (PP * QQ));
    g[1] = even + odd;
    g[2] = even - odd;
    even = q * (w0 + QQ * w2);
    odd = q * Q * w1;
    g[3] = even + odd;
    g[4] = even - odd;
    g[5] = w2;
}

void main()
{
    uint i = linear_invocation();
    if (i >= push.count)
        return;
    float w[9], column[6], g[18], row[6];
    [[unroll]] for (uint t = 0; t < 9; ++t)
        w[t] = F32(push.from).v[i * 9u + (TURNED ? 8u - t : t)];
    [[unroll]] for (uint s = 0; s < 3; ++s) {
        spread(w[s], w[3 + s], w[6 + s], column);
        [[unroll]] for (uint r = 0; r < 6; ++r)
            g[r * 3 + s] = column[r];
    }
    [[unroll]] for (uint r = 0; r < 6; ++r) {
        spread(g[r * 3], g[r * 3 + 1], g[r * 3 + 2], row);
        [[unroll]] for (uint s = 0; s < 6; ++s)
            F32(push.to).v[(r * 6u + s) * push.count + i] = row[s];
    }
}

#else

// Where an invocation's tile lies.
struct Tile {
    uint channel;
    uint image;
    uint y;
    uint x;
};

Tile find_tile(uint i, out bool inside)
{
    Tile t;
    t.channel = divide_by(i, push.row_magic, push.row_shift);
    uint tile = i - t.channel * push.row;
    inside = i < push.count && tile < push.tiles;
    t.image = divide_by(tile, push.plane_magic, push.plane_shift);
    uint rest = tile - t.image * push.plane_tiles;
    t.y = divide_by(rest, push.line_magic, push.line_shift);
    t.x = rest - t.y * push.line_tiles;
    return t;
}

#if PART == 1

// B' times six inputs.
void spread(float d0, float d1, float d2, float d3, float d4, float d5, out float b[6])
{
    float even = d4 - QQ * d2, odd = P * (d3 - QQ * d1);
    b[0] = d4 - (PP + QQ) * d2 + PP * QQ * d0;
    b[1] = even + odd;
    b[2] = even - odd;
    even = d4 - PP * d2;
    odd = Q * (d3 - PP * d1);
    b[3] = even + odd;
    b[4] = even - odd;
    b[5] = d5 - (PP + QQ) * d3 + PP * QQ * d1;
}

void main()
{
    uint i = linear_invocation();
    bool inside;
    Tile t = find_tile(i, inside);
    if (i >= push.count)
        return;
    int y = int(t.y) * 4 - int(push.pads & 0xffffu), x = int(t.x) * 4 - int(push.pads >> 16);
    uint from = ((t.image * push.channels + t.channel) * push.height + uint(y)) * push.width + uint(x);
    float d[36], b[6];
    [[unroll]] for (uint r = 0; r < 6; ++r)
        [[unroll]] for (uint s = 0; s < 6; ++s) {
            bool valid = inside && within(y + int(r), push.height) && within(x + int(s), push.width);
            float v = F32(push.from).v[valid ? from + r * push.width + s : 0u];
            d[r * 6 + s] = valid ? v : 0.0;
        }
    [[unroll]] for (uint s = 0; s < 6; ++s) {
        spread(d[s], d[6 + s], d[12 + s], d[18 + s], d[24 + s], d[30 + s], b);
        [[unroll]] for (uint r = 0; r < 6; ++r)
            d[r * 6 + s] = b[r];
    }
    [[unroll]] for (uint r = 0; r < 6; ++r) {
        spread(d[r * 6], d[r * 6 + 1], d[r * 6 + 2], d[r * 6 + 3], d[r * 6 + 4], d[r * 6 + 5], b);
        [[unroll]] for (uint s = 0; s < 6; ++s)
            F32(push.to).v[(r * 6u + s) * push.count + i] = b[s];
    }
}

#else

layout(constant_id = 5) const bool WIDE = false; // rows of y are stored four at a time

// A' times six products.
vec4 gather(float m0, float m1, float m2, float m3, float m4, float m5)
{
    float s = m1 + m2, t = m3 + m4, d = m1 - m2, e = m3 - m4;
    return vec4(m0 + s + t, P * d + Q * e, PP * s + QQ * t, P * PP * d + Q * QQ * e + m5);
}

void finish(vec4 v, uint to, uint count, float bias)
{
    if ((EPILOGUE & 1u) != 0u)
        v += bias;
    if ((EPILOGUE & 2u) != 0u) {
        if (WIDE)
            v += F32x4(push.residual).v[to >> 2];
        else
            [[unroll]] for (uint s = 0; s < 4; ++s)
                v[s] += s < count ? F32(push.residual).v[to + s] : 0.0;
    }
    [[unroll]] for (uint s = 0; s < 4; ++s)
        v[s] = activate(ACTIVATION, v[s], push.alpha, push.beta);
    if (WIDE) {
        F32x4(push.to).v[to >> 2] = v;
    } else {
        [[unroll]] for (uint s = 0; s < 4; ++s)
            if (s < count)
                F32(push.to).v[to + s] = v[s];
    }
}

void main()
{
    uint i = linear_invocation();
    bool inside;
    Tile t = find_tile(i, inside);
    if (!inside)
        return;
    float m[36];
    vec4 a[6];
    [[unroll]] for (uint f = 0; f < 36; ++f)
        m[f] = F32(push.from).v[f * push.count + i];
    [[unroll]] for (uint s = 0; s < 6; ++s) // columns of A' m
        a[s] = gather(m[s], m[6 + s], m[12 + s], m[18 + s], m[24 + s], m[30 + s]);
    float bias = (EPILOGUE & 1u) != 0u ? F32(push.bias).v[t.channel] : 0.0;
    uint y = t.y * 4u, x = t.x * 4u;
    uint to = ((t.image * push.channels + t.channel) * push.height + y) * push.width + x;
    [[unroll]] for (uint r = 0; r < 4; ++r)
        if (y + r < push.height)
            finish(gather(a[0][r], a[1][r], a[2][r], a[3][r], a[4][r], a[5][r]), to + r * push.width, push.width - x, bias);
}

#endif
#endif
