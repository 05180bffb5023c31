// kernel: conv_weight
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "conv_index.glsl"
#include "conv_weight.push.h"

// Weight gradient of a convolution on contiguous float32 (NCHW), as a GEMM. For every group
//
//     dW[m][n] = sum over pixels of dY[m][pixel] X[n under pixel]
//
// m: output channel; n: (input channel, tap); pixel: of any image, so the sum is long while m and n are few. The pixels
// are split over workgroups; conv_sum adds the partial sums in a fixed order. A thread loads one pixel of each K tile,
// whose coordinates it steps forward without division, and always the same columns n, whose offsets stay in registers.
//
// SLICES > 1: groups of threads share the tile but take different parts of each K tile; their sums meet in shared memory
// at the end, in order of slice: larger thread tiles where m and n are small.
//
// BIAS: the workgroups of the first column tile also sum dY per channel, which they read anyway.
//
// Floor: 2 m n pixels operations at the device's fma rate, or the bytes of X and dY once, whichever is longer.
layout(constant_id = 3) const uint BM = 64;
layout(constant_id = 4) const uint BN = 64;
layout(constant_id = 5) const uint BK = 16;
layout(constant_id = 6) const uint TM = 8;
layout(constant_id = 7) const uint TN = 4;
layout(constant_id = 8) const uint KH = 1;
layout(constant_id = 9) const uint KW = 1;
layout(constant_id = 10) const uint STRIDE_H = 1;
layout(constant_id = 11) const uint STRIDE_W = 1;
layout(constant_id = 12) const uint DILATION_H = 1;
layout(constant_id = 13) const uint DILATION_W = 1;
layout(constant_id = 14) const bool BIAS = false;
layout(constant_id = 15) const uint SLICES = 1;

const uint THREADS_M = BM / TM;
const uint THREADS_N = BN / TN;
const uint SLICE_THREADS = THREADS_M * THREADS_N;
const uint THREADS = SLICE_THREADS * SLICES;
const uint SLICE_K = BK / SLICES;
const uint LOADS_A = BM * BK / THREADS;
const uint LOADS_B = BN * BK / THREADS;
const uint STEP = THREADS / BK; // rows, or columns, between a thread's loads
const uint ROW_A = BM / 4 + 1;  // vectors; one of padding spreads the transposing stores over the banks
const uint ROW_B = BN / 4 + 1;
const uint TILE_A = BK * ROW_A;
const uint TILE = TILE_A + BK * ROW_B;
const uint SUMS = SLICES > 1 ? BM * BN / 4 : 0;

shared vec4 tile[2 * TILE > SUMS ? 2 * TILE : SUMS];

vec4 acc[TM * TN / 4];
float next_a[LOADS_A];
float next_b[LOADS_B];
float bias_sum[BIAS ? LOADS_A : 1];
uint column_offset[LOADS_B]; // of (channel, tap) in X
uint column_tap[LOADS_B];    // its bit in the mask, see tap_mask(); a column past the end has none

// TAP_BITS: a bit for each tap; else a bit for each row of taps, and for each column in the upper half.
const bool TAP_BITS = KH * KW < 32;

// The thread's pixel of the tile that is loaded next.
uint pixel;
uint image;
uint oy;
uint ox;
uint k_end;

// The pixels of one tile as a mixed-radix number that advance() adds.
uint step_image;
uint step_y;
uint step_x;

void locate(uint at)
{
    uint plane = push.y_h * push.y_w;
    pixel = at;
    image = at / plane;
    uint rest = at - image * plane;
    oy = rest / push.y_w;
    ox = rest - oy * push.y_w;
    step_image = BK / plane;
    rest = BK - step_image * plane;
    step_y = rest / push.y_w;
    step_x = rest - step_y * push.y_w;
}

void advance()
{
    pixel += BK;
    ox += step_x;
    oy += step_y;
    image += step_image;
    if (ox >= push.y_w) {
        ox -= push.y_w;
        oy += 1u;
    }
    if (oy >= push.y_h) {
        oy -= push.y_h;
        image += 1u;
    }
}

void find_columns(uint n0)
{
    [[unroll]] for (uint i = 0; i < LOADS_B; ++i) {
        uint n = n0 + gl_LocalInvocationIndex / BK + i * STEP;
        uint c = n / (KH * KW), tap = n - c * (KH * KW), r = tap / KW, s = tap - r * KW;
        column_offset[i] = (c * push.x_h + r * DILATION_H) * push.x_w + s * DILATION_W;
        column_tap[i] = n < push.n ? (TAP_BITS ? tap : r << 5 | s) : (TAP_BITS ? 31u : 31u << 5);
    }
}

// Which taps of the window at (y, x) lie inside.
uint tap_mask(int y, int x)
{
    uint rows = 0u, columns = 0u, taps = 0u;
    [[unroll]] for (uint r = 0; r < KH; ++r)
        rows |= within(y + int(r * DILATION_H), push.x_h) ? 1u << r : 0u;
    [[unroll]] for (uint s = 0; s < KW; ++s)
        columns |= within(x + int(s * DILATION_W), push.x_w) ? 1u << s : 0u;
    if (!TAP_BITS)
        return rows | columns << 16;
    [[unroll]] for (uint r = 0; r < KH; ++r)
        taps |= (rows >> r & 1u) != 0u ? columns << (r * KW) : 0u;
    return taps;
}

bool tap_inside(uint m, uint tap)
{
    if (TAP_BITS)
        return (m >> tap & 1u) != 0u;
    return ((m & 0xffffu) >> (tap >> 5) & m >> 16 >> (tap & 31u) & 1u) != 0u;
}

// Loads the tile at the thread's pixel: m0 is the first row, counted over all groups.
void load_next(uint m0, uint m_last, uint x_first)
{
    bool inside = pixel < k_end;
    uint plane = push.y_h * push.y_w, from = image * (push.m * push.groups) * plane + oy * push.y_w + ox;
    [[unroll]] for (uint i = 0; i < LOADS_A; ++i) {
        uint m = min(m0 + gl_LocalInvocationIndex / BK + i * STEP, m_last); // rows past the end are computed and dropped
        next_a[i] = 0.0;
        if (inside)
            next_a[i] = F32(push.dy).v[from + m * plane];
        if (BIAS)
            bias_sum[i] += next_a[i];
    }
    int y = int(oy * STRIDE_H) - int(push.pads & 0xffffu), x = int(ox * STRIDE_W) - int(push.pads >> 16);
    uint mask = inside ? tap_mask(y, x) : 0u;
    uint base = image * push.x_channels * push.x_h * push.x_w + x_first + uint(y) * push.x_w + uint(x);
    [[unroll]] for (uint i = 0; i < LOADS_B; ++i) {
        next_b[i] = 0.0;
        if (tap_inside(mask, column_tap[i]))
            next_b[i] = F32(push.x).v[base + column_offset[i]];
    }
}

void store_next(uint at)
{
    uint k = gl_LocalInvocationIndex % BK;
    [[unroll]] for (uint i = 0; i < LOADS_A; ++i) {
        uint m = gl_LocalInvocationIndex / BK + i * STEP;
        tile[at + k * ROW_A + (m >> 2)][m & 3u] = next_a[i];
    }
    [[unroll]] for (uint i = 0; i < LOADS_B; ++i) {
        uint n = gl_LocalInvocationIndex / BK + i * STEP;
        tile[at + TILE_A + k * ROW_B + (n >> 2)][n & 3u] = next_b[i];
    }
}

// The slice's part of the tile at `at`.
void multiply(uint at, uint slice, uint tm, uint tn)
{
    uint row_a = at + slice * SLICE_K * ROW_A + tm, row_b = at + TILE_A + slice * SLICE_K * ROW_B + tn;
    [[unroll]] for (uint k = 0; k < SLICE_K; ++k) {
        vec4 a[TM / 4], b[TN / 4];
        [[unroll]] for (uint i = 0; i < TM / 4; ++i)
            a[i] = tile[row_a + k * ROW_A + i * THREADS_M];
        [[unroll]] for (uint j = 0; j < TN / 4; ++j)
            b[j] = tile[row_b + k * ROW_B + j * THREADS_N];
        [[unroll]] for (uint i = 0; i < TM; ++i)
            [[unroll]] for (uint j = 0; j < TN / 4; ++j)
                acc[i * (TN / 4) + j] = fma(vec4(a[i / 4][i % 4]), b[j], acc[i * (TN / 4) + j]);
    }
}

// Adds the sums of slices 1, 2, ... to those of slice 0, one after another.
void add_slices(uint slice, uint thread)
{
    for (uint s = 1u; s < SLICES; ++s) {
        if (slice == s) {
            [[unroll]] for (uint i = 0; i < TM * TN / 4; ++i)
                tile[i * SLICE_THREADS + thread] = acc[i];
        }
        barrier();
        if (slice == 0u) {
            [[unroll]] for (uint i = 0; i < TM * TN / 4; ++i)
                acc[i] += tile[i * SLICE_THREADS + thread];
        }
        barrier();
    }
}

void store_tile(uint at, uint m0, uint n0, uint tm, uint tn)
{
    [[unroll]] for (uint i = 0; i < TM; ++i) {
        uint m = m0 + (i / 4 * THREADS_M + tm) * 4u + i % 4;
        if (m >= push.m)
            continue;
        [[unroll]] for (uint j = 0; j < TN / 4; ++j) {
            uint n = n0 + (j * THREADS_N + tn) * 4u;
            [[unroll]] for (uint c = 0; c < 4; ++c)
                if (n + c < push.n)
                    F32(push.dw).v[at + m * push.n + n + c] = acc[i * (TN / 4) + j][c];
        }
    }
}

// Adds the bias sums of the BK threads that share a row, in order of k.
void store_bias(uint at, uint m0)
{
    uint k = gl_LocalInvocationIndex % BK;
    [[unroll]] for (uint i = 0; i < LOADS_A; ++i) {
        uint m = gl_LocalInvocationIndex / BK + i * STEP;
        tile[k * ROW_A + (m >> 2)][m & 3u] = bias_sum[i];
    }
    barrier();
    for (uint m = gl_LocalInvocationIndex; m < BM && m0 + m < push.m; m += THREADS) {
        float sum = 0.0;
        for (uint i = 0u; i < BK; ++i)
            sum += tile[i * ROW_A + (m >> 2)][m & 3u];
        F32(push.db).v[at + m0 + m] = sum;
    }
}

void main()
{
    uint g = linear_group();
    uint rest = g / push.tiles_m;
    uint m0 = (g - rest * push.tiles_m) * BM;
    uint tile_n = rest % push.tiles_n;
    rest /= push.tiles_n;
    uint split = rest / push.groups, group = rest - split * push.groups;
    if (split >= push.splits)
        return;
    uint n0 = tile_n * BN, t = gl_LocalInvocationIndex;
    k_end = min((split + 1u) * push.k_split, push.k);
    locate(split * push.k_split + t % BK);
    find_columns(n0);
    [[unroll]] for (uint i = 0; i < TM * TN / 4; ++i)
        acc[i] = vec4(0.0);
    if (BIAS) {
        [[unroll]] for (uint i = 0; i < LOADS_A; ++i)
            bias_sum[i] = 0.0;
    }
    // A warp covers 4 x 8 threads of the tile, so that it reads few different vectors from shared memory.
    uint slice = t / SLICE_THREADS, thread = t % SLICE_THREADS, warp = thread / 32u, lane = thread % 32u;
    uint tn = warp % (THREADS_N / 8u) * 8u + lane % 8u, tm = warp / (THREADS_N / 8u) * 4u + lane / 8u;
    uint x_first = group * (push.x_channels / push.groups) * push.x_h * push.x_w;
    uint row_first = group * push.m + m0, row_last = group * push.m + push.m - 1u;

    load_next(row_first, row_last, x_first);
    store_next(0u);
    barrier();
    uint at = 0u;
    for (uint k = split * push.k_split; k < k_end; k += BK) {
        bool more = k + BK < k_end;
        if (more) {
            advance();
            load_next(row_first, row_last, x_first);
        }
        multiply(at, slice, tm, tn);
        at = TILE - at;
        if (more)
            store_next(at);
        barrier();
    }
    if (SLICES > 1)
        add_slices(slice, thread);
    if (slice == 0u)
        store_tile(split * push.split_stride + group * push.m * push.n, m0, n0, tm, tn);
    if (BIAS && tile_n == 0u)
        store_bias(split * push.split_stride + group * push.m, m0);
}
