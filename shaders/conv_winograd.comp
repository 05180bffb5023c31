// kernel: conv_winograd_weight -DPART=0
// kernel: conv_winograd_weight_split -DPART=0 -DSPLIT
// kernel: conv_winograd_input -DPART=1
// kernel: conv_winograd_input_split -DPART=1 -DSPLIT
// kernel: conv_winograd_output -DPART=2
// kernel: conv_winograd_gradient_split -DPART=3 -DSPLIT
// kernel: conv_winograd_weight_gradient -DPART=4
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "activation.glsl"
#include "conv_index.glsl"
#include "conv_winograd.push.h"
#include "halves.glsl"

// Winograd's F(4x4, 3x3): tiles of 4 x 4 outputs from 6 x 6 inputs with 36 products for each channel, where a direct
// convolution needs 144. Three transforms with a batch of 36 matrix products in between:
//
//     U[f][k][c] = (G w G')[f],  V[f][c][tile] = (B' x B)[f],  y = A' (sum over c of U V) A
//
// The polynomials are evaluated at 0, +-3/4, +-3/2 and infinity. Lavin's points (0, +-1, +-2; "Fast Algorithms for
// Convolutional Neural Networks", 2016) lose two bits more than a direct sum in float32, these one: relative errors of
// 64 channels of normal numbers are 1.6e-6, 8e-7, and 4e-7 for the direct sum. B and A are exact in binary.
//
// The weight gradient turns that around, with tiles of 4 x 4 of dY:
//
//     Z[f][k][tile] = (A dY A')[f],  dw = G' (sum over tiles of Z V) G
//
// An invocation transforms one tile of one channel; neighbours take neighbouring tiles (weights: channels), whose results
// lie next to each other. Floor: the bytes, 36/16 of x's and y's written and read, x and y once.
//
// With SPLIT U and V come as gemm_coopmat.comp takes them for precision high, in blocks of halves (halves.glsl), with scales
// that the largest |w| or |x| of a workgroup sets before they are known.
layout(constant_id = 3) const uint EPILOGUE = 0; // bit 0: bias, bit 1: residual
layout(constant_id = 4) const uint ACTIVATION = 0;

const float P = 0.75, Q = 1.5; // the points
const float PP = P * P, QQ = Q * Q;

#ifdef SPLIT

const uint SPLIT_LANES = PART == 0 ? 128u : 256u; // the workgroup's size
shared uvec4 numbers[SPLIT_LANES / 4u];
shared uvec4 maxima[SPLIT_LANES / 64u];

uint largest_of_all(uint x)
{
    uint i = gl_LocalInvocationIndex;
    numbers[i / 4u][i % 4u] = x;
    barrier();
    if (i < SPLIT_LANES / 16u) {
        uvec4 m = max(max(numbers[i * 4u], numbers[i * 4u + 1u]), max(numbers[i * 4u + 2u], numbers[i * 4u + 3u]));
        maxima[i / 4u][i % 4u] = max(max(m.x, m.y), max(m.z, m.w));
    }
    barrier();
    uvec4 m = uvec4(0u);
    [[unroll]] for (uint k = 0; k < SPLIT_LANES / 64u; ++k)
        m = max(m, maxima[k]);
    return max(max(m.x, m.y), max(m.z, m.w));
}

uint finite_bits(float x)
{
    uint bits = floatBitsToUint(x) & 0x7fffffffu;
    return bits < 0x7f800000u ? bits : 0u;
}

// Two neighbours of a chunk, scaled.
void store_pair(vec2 x, uint block, uint chunk, uint word)
{
    vec2 high = uintBitsToFloat(floatBitsToUint(x) & 0xffffe000u);
    uint to = (block * BLOCK_WORDS + chunk) * 4u + word;
    U32(push.to).v[to] = packHalf2x16(high);
    U32(push.to).v[to + BLOCK_CHUNKS * 4u] = packHalf2x16(x - high);
}

#endif

#if PART == 4

// G' times six sums.
void collect(float m0, float m1, float m2, float m3, float m4, float m5, out float w[3])
{
    const float p = 1.0 / (2.0 * PP * (PP - QQ)), q = 1.0 / (2.0 * QQ * (QQ - PP));
    float even = p * (m1 + m2), last = q * (m3 + m4);
    w[0] = m0 * (1.0 / (PP * QQ)) + even + last;
    w[1] = p * P * (m1 - m2) + q * Q * (m3 - m4);
    w[2] = PP * even + QQ * last + m5;
}

// push.count: weights of one tap.
void main()
{
    uint i = linear_invocation();
    if (i >= push.count)
        return;
    float m[36], row[3], half_way[18];
    [[unroll]] for (uint f = 0; f < 36; ++f)
        m[f] = F32(push.from).v[f * push.count + i];
    [[unroll]] for (uint s = 0; s < 6; ++s) {
        collect(m[s], m[6 + s], m[12 + s], m[18 + s], m[24 + s], m[30 + s], row);
        [[unroll]] for (uint r = 0; r < 3; ++r)
            half_way[r * 6 + s] = row[r];
    }
    [[unroll]] for (uint r = 0; r < 3; ++r) {
        collect(half_way[r * 6], half_way[r * 6 + 1], half_way[r * 6 + 2], half_way[r * 6 + 3], half_way[r * 6 + 4],
                half_way[r * 6 + 5], row);
        [[unroll]] for (uint s = 0; s < 3; ++s)
            F32(push.to).v[i * 9u + r * 3u + s] = row[s];
    }
}

#elif PART == 0

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

// U of the weight at `at`.
void transform(uint at, out float u[36])
{
    float w[9], column[6], g[18], row[6];
    [[unroll]] for (uint t = 0; t < 9; ++t)
        w[t] = F32(push.from).v[at + (TURNED ? 8u - t : t)];
    [[unroll]] for (uint s = 0; s < 3; ++s) {
        spread(w[s], w[3 + s], w[6 + s], column);
        [[unroll]] for (uint r = 0; r < 6; ++r)
            g[r * 3 + s] = column[r];
    }
    [[unroll]] for (uint r = 0; r < 6; ++r) {
        spread(g[r * 3], g[r * 3 + 1], g[r * 3 + 2], row);
        [[unroll]] for (uint s = 0; s < 6; ++s)
            u[r * 6 + s] = row[s];
    }
}

#ifndef SPLIT

void main()
{
    uint i = linear_invocation();
    if (i >= push.count)
        return;
    float u[36];
    transform(i * 9u, u);
    [[unroll]] for (uint f = 0; f < 36; ++f)
        F32(push.to).v[f * push.count + i] = u[f];
}

#else

// A workgroup of 128 makes one block of each product, an invocation two neighbours along the sum. |U| is below 1.5 times the
// largest |w|. push.channels: along the sum; push.row: of the result; push.height and push.width: weights from one of the
// sum to the next, and of the result.
const uint ROOM = 1u;

void main()
{
    uint along_k = blocks_of(push.channels), rows = blocks_of(push.row), group = linear_group();
    uint row_block = group / along_k, k_block = group - row_block * along_k, lane = gl_LocalInvocationIndex;
    uint line = lane / 8u, pair = lane % 8u, row = row_block * SIDE + line, most = 0u;
    float u[2][36];
    [[unroll]] for (uint h = 0; h < 2; ++h) {
        uint k = k_block * SIDE + pair * 2u + h, at = (k * push.height + row * push.width) * 9u;
        bool inside = k < push.channels && row < push.row;
        [[unroll]] for (uint f = 0; f < 36; ++f)
            u[h][f] = 0.0;
        if (inside) {
            for (uint t = 0; t < 9; ++t)
                most = max(most, finite_bits(F32(push.from).v[at + t]));
            transform(at, u[h]);
        }
    }
    uint exponent = scale_exponent(largest_of_all(most), ROOM);
    float scale = scale_of(exponent);
    if (row_block >= rows)
        return;
    uint block = row_block * along_k + k_block, chunk = pair / 4u * SIDE + line;
    [[unroll]] for (uint f = 0; f < 36; ++f)
        store_pair(vec2(u[0][f], u[1][f]) * scale, f * rows * along_k + block, chunk, pair % 4u);
    if (lane < 36u)
        F32(push.to).v[36u * rows * along_k * BLOCK_WORDS * 4u + lane * rows * along_k + block] = undo_of(exponent);
}

#endif

#else

// Where an invocation's tile lies.
struct Tile {
    uint channel;
    uint image;
    uint y;
    uint x;
};

// Of invocation number channel * row + tile.
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

#if PART != 2

#if PART == 3

// A times four gradients.
void spread(float y0, float y1, float y2, float y3, out float z[6])
{
    float even = y0 + PP * y2, odd = P * (y1 + PP * y3);
    z[0] = y0;
    z[1] = even + odd;
    z[2] = even - odd;
    even = y0 + QQ * y2;
    odd = Q * (y1 + QQ * y3);
    z[3] = even + odd;
    z[4] = even - odd;
    z[5] = y3;
}

// The 4 x 4 elements of dY; zeros outside of it, or of everything.
void load_tile(uint channel, Tile t, bool inside, out float d[36])
{
    uint y = t.y * 4u, x = t.x * 4u;
    uint from = ((t.image * push.channels + channel) * push.height + y) * push.width + x;
    [[unroll]] for (uint f = 0; f < 36; ++f)
        d[f] = 0.0;
    [[unroll]] for (uint r = 0; r < 4; ++r)
        [[unroll]] for (uint s = 0; s < 4; ++s) {
            bool valid = inside && y + r < push.height && x + s < push.width;
            float v = F32(push.from).v[valid ? from + r * push.width + s : 0u];
            d[r * 6 + s] = valid ? v : 0.0;
        }
}

void transform(inout float d[36])
{
    float z[6];
    [[unroll]] for (uint s = 0; s < 4; ++s) {
        spread(d[s], d[6 + s], d[12 + s], d[18 + s], z);
        [[unroll]] for (uint r = 0; r < 6; ++r)
            d[r * 6 + s] = z[r];
    }
    [[unroll]] for (uint r = 0; r < 6; ++r) {
        spread(d[r * 6], d[r * 6 + 1], d[r * 6 + 2], d[r * 6 + 3], z);
        [[unroll]] for (uint s = 0; s < 6; ++s)
            d[r * 6 + s] = z[s];
    }
}

#else

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

// The 6 x 6 elements of x from (y, x); zeros outside of it, or of everything.
void load_tile(uint channel, Tile t, bool inside, out float d[36])
{
    int y = int(t.y) * 4 - int(push.pads & 0xffffu), x = int(t.x) * 4 - int(push.pads >> 16);
    uint from = ((t.image * push.channels + channel) * push.height + uint(y)) * push.width + uint(x);
    [[unroll]] for (uint r = 0; r < 6; ++r)
        [[unroll]] for (uint s = 0; s < 6; ++s) {
            bool valid = inside && within(y + int(r), push.height) && within(x + int(s), push.width);
            float v = F32(push.from).v[valid ? from + r * push.width + s : 0u];
            d[r * 6 + s] = valid ? v : 0.0;
        }
}

void transform(inout float d[36])
{
    float b[6];
    [[unroll]] for (uint s = 0; s < 6; ++s) {
        spread(d[s], d[6 + s], d[12 + s], d[18 + s], d[24 + s], d[30 + s], b);
        [[unroll]] for (uint r = 0; r < 6; ++r)
            d[r * 6 + s] = b[r];
    }
    [[unroll]] for (uint r = 0; r < 6; ++r) {
        spread(d[r * 6], d[r * 6 + 1], d[r * 6 + 2], d[r * 6 + 3], d[r * 6 + 4], d[r * 6 + 5], b);
        [[unroll]] for (uint s = 0; s < 6; ++s)
            d[r * 6 + s] = b[s];
    }
}

#endif

#ifndef SPLIT

void main()
{
    uint i = linear_invocation();
    bool inside;
    Tile t = find_tile(i, inside);
    if (i >= push.count)
        return;
    float d[36];
    load_tile(t.channel, t, inside, d);
    transform(d);
    [[unroll]] for (uint f = 0; f < 36; ++f)
        F32(push.to).v[f * push.count + i] = d[f];
}

#else

// A workgroup of 256 makes two blocks of each product, 32 tiles of 16 channels, an invocation two tiles of a channel. |V| is
// below 33 times the largest |x|, |Z| below 67 times the largest |dY|; halves hold twice what the scale aims at.
const uint ROOM = PART == 3 ? 6u : 5u;

void main()
{
    uint along_k = blocks_of(push.channels), columns = blocks_of(push.row), group = linear_group();
    uint tile_group = group / along_k, k_block = group - tile_group * along_k, lane = gl_LocalInvocationIndex;
    uint pair = lane / 64u * 4u + lane % 4u, line = lane / 4u % SIDE, channel = k_block * SIDE + line;
    float d[2][36];
    uint most = 0u;
    [[unroll]] for (uint h = 0; h < 2; ++h) {
        bool inside;
        uint tile = tile_group * 32u + pair * 2u + h;
        Tile t = find_tile(tile, inside);
        load_tile(channel, t, inside && tile < push.tiles && channel < push.channels, d[h]);
        [[unroll]] for (uint f = 0; f < 36; ++f)
            most = max(most, finite_bits(d[h][f]));
    }
    uint exponent = scale_exponent(largest_of_all(most), ROOM);
    float scale = scale_of(exponent);
    uint column = tile_group * 2u + pair / 8u;
    if (column < columns) {
        uint block = k_block * columns + column, chunk = pair % 8u / 4u * SIDE + line;
        transform(d[0]);
        transform(d[1]);
        [[unroll]] for (uint f = 0; f < 36; ++f)
            store_pair(vec2(d[0][f], d[1][f]) * scale, f * columns * along_k + block, chunk, pair % 4u);
    }
    if (lane < 72u && tile_group * 2u + lane % 2u < columns)
        F32(push.to).v[36u * columns * along_k * BLOCK_WORDS * 4u + (lane / 2u * along_k + k_block) * columns + tile_group * 2u +
                       lane % 2u] = undo_of(exponent);
}

#endif

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
