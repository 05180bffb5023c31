// kernel: conv_winograd_weight -DPART=0
// kernel: conv_winograd_input -DPART=1
// kernel: conv_winograd_output -DPART=2
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "activation.glsl"
#include "conv_index.glsl"
#include "conv_winograd.push.h"

// Winograd's F(2x2, 3x3): tiles of 2 x 2 outputs from 4 x 4 inputs with 16 products for each channel, where a direct
// convolution needs 36. Three transforms with a batch of 16 matrix products in between:
//
//     U[f][k][c] = (G w G')[f],  V[f][c][tile] = (B' x B)[f],  y = A' (sum over c of U V) A
//
// All factors are 0, 1 or 1/2, so that the sums lose little: about one bit against a direct convolution. An invocation
// transforms one tile of one channel; neighbours take neighbouring tiles (weights: channels), whose results lie next to
// each other. Floor: the bytes, 4 times V's and x, y once.
layout(constant_id = 3) const uint EPILOGUE = 0; // bit 0: bias, bit 1: residual
layout(constant_id = 4) const uint ACTIVATION = 0;

#if PART == 0

void main()
{
    uint i = linear_invocation();
    if (i >= push.count)
        return;
    float w[9], g[12];
    [[unroll]] for (uint t = 0; t < 9; ++t)
        w[t] = F32(push.from).v[i * 9u + t];
    [[unroll]] for (uint s = 0; s < 3; ++s) { // G down the columns
        g[s] = w[s];
        g[3 + s] = 0.5 * (w[s] + w[6 + s] + w[3 + s]);
        g[6 + s] = 0.5 * (w[s] + w[6 + s] - w[3 + s]);
        g[9 + s] = w[6 + s];
    }
    [[unroll]] for (uint r = 0; r < 4; ++r) {
        uint to = r * 4u * push.count + i;
        F32(push.to).v[to] = g[r * 3];
        F32(push.to).v[to + push.count] = 0.5 * (g[r * 3] + g[r * 3 + 2] + g[r * 3 + 1]);
        F32(push.to).v[to + 2u * push.count] = 0.5 * (g[r * 3] + g[r * 3 + 2] - g[r * 3 + 1]);
        F32(push.to).v[to + 3u * push.count] = g[r * 3 + 2];
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

void main()
{
    uint i = linear_invocation();
    bool inside;
    Tile t = find_tile(i, inside);
    if (i >= push.count)
        return;
    int y = int(t.y) * 2 - int(push.pads & 0xffffu), x = int(t.x) * 2 - int(push.pads >> 16);
    uint from = ((t.image * push.channels + t.channel) * push.height + uint(y)) * push.width + uint(x);
    float d[16], b[16];
    [[unroll]] for (uint r = 0; r < 4; ++r)
        [[unroll]] for (uint s = 0; s < 4; ++s) {
            bool valid = inside && within(y + int(r), push.height) && within(x + int(s), push.width);
            float v = F32(push.from).v[valid ? from + r * push.width + s : 0u];
            d[r * 4 + s] = valid ? v : 0.0;
        }
    [[unroll]] for (uint s = 0; s < 4; ++s) { // B' down the columns
        b[s] = d[s] - d[8 + s];
        b[4 + s] = d[4 + s] + d[8 + s];
        b[8 + s] = d[8 + s] - d[4 + s];
        b[12 + s] = d[4 + s] - d[12 + s];
    }
    [[unroll]] for (uint r = 0; r < 4; ++r) {
        uint to = r * 4u * push.count + i;
        F32(push.to).v[to] = b[r * 4] - b[r * 4 + 2];
        F32(push.to).v[to + push.count] = b[r * 4 + 1] + b[r * 4 + 2];
        F32(push.to).v[to + 2u * push.count] = b[r * 4 + 2] - b[r * 4 + 1];
        F32(push.to).v[to + 3u * push.count] = b[r * 4 + 1] - b[r * 4 + 3];
    }
}

#else

layout(constant_id = 5) const bool WIDE = false; // rows of y are stored two at a time

void finish(vec2 v, uint to, bool second, float bias)
{
    if ((EPILOGUE & 1u) != 0u)
        v += bias;
    if ((EPILOGUE & 2u) != 0u) {
        if (WIDE)
            v += F32x2(push.residual).v[to >> 1];
        else
            v += vec2(F32(push.residual).v[to], second ? F32(push.residual).v[to + 1u] : 0.0);
    }
    v = vec2(activate(ACTIVATION, v.x, push.alpha, push.beta), activate(ACTIVATION, v.y, push.alpha, push.beta));
    if (WIDE) {
        F32x2(push.to).v[to >> 1] = v;
    } else {
        F32(push.to).v[to] = v.x;
        if (second)
            F32(push.to).v[to + 1u] = v.y;
    }
}

void main()
{
    uint i = linear_invocation();
    bool inside;
    Tile t = find_tile(i, inside);
    if (!inside)
        return;
    float m[16], a[8];
    [[unroll]] for (uint f = 0; f < 16; ++f)
        m[f] = F32(push.from).v[f * push.count + i];
    [[unroll]] for (uint s = 0; s < 4; ++s) { // A' down the columns
        a[s] = m[s] + m[4 + s] + m[8 + s];
        a[4 + s] = m[4 + s] - m[8 + s] - m[12 + s];
    }
    float bias = (EPILOGUE & 1u) != 0u ? F32(push.bias).v[t.channel] : 0.0;
    uint y = t.y * 2u, x = t.x * 2u;
    uint to = ((t.image * push.channels + t.channel) * push.height + y) * push.width + x;
    [[unroll]] for (uint r = 0; r < 2; ++r)
        if (y + r < push.height)
            finish(vec2(a[r * 4] + a[r * 4 + 1] + a[r * 4 + 2], a[r * 4 + 1] - a[r * 4 + 2] - a[r * 4 + 3]),
                   to + r * push.width, x + 1u < push.width, bias);
}

#endif
#endif
