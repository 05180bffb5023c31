// kernel: conv_gemm
// kernel: conv_gemm_alt -DALT
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "activation.glsl"
#include "conv_index.glsl"
#include "conv_gemm.push.h"

// Implicit-GEMM convolution on contiguous float32 (NCHW): forward, and the data gradient. For every group
//
//     out[m][column] = sum over k of W[m][k] source[k under column]
//
// m: destination channel; column: destination pixel of any image; k: (source channel, tap). The source matrix is never
// built: a thread owns one column, whose base address and valid rows and columns of taps (one bit each) it finds once,
// and a table, the same for all columns, gives each k its offset: no division and no multiplication in the loop.
//
// Floor: 2 m k columns operations at the device's fma rate (60 TFLOP/s on an H200), or the bytes of X, W and Y once,
// whichever is longer. Layers with few channels (3 -> 32) are bound by the bytes of Y.
//
// Data gradient with a stride: destination pixels fall into stride x stride classes that see different taps. Each class
// is a GEMM of its own with only those taps (CLASSES; a record in the table says which), so nothing is masked away.
layout(constant_id = 3) const uint BM = 64;
layout(constant_id = 4) const uint BN = 64;
layout(constant_id = 5) const uint BK = 8;
layout(constant_id = 6) const uint TM = 8;
layout(constant_id = 7) const uint TN = 4;
layout(constant_id = 8) const uint KH = 1;
layout(constant_id = 9) const uint KW = 1;
layout(constant_id = 10) const uint STRIDE_H = 1;
layout(constant_id = 11) const uint STRIDE_W = 1;
layout(constant_id = 12) const uint DILATION_H = 1;
layout(constant_id = 13) const uint DILATION_W = 1;
layout(constant_id = 14) const bool FORWARD = true;
layout(constant_id = 15) const bool CLASSES = false;
layout(constant_id = 16) const bool DENSE = false;    // one tap, stride 1, no padding: columns are read four at a time
layout(constant_id = 17) const bool WIDE = false;     // four columns of a row are stored at once
layout(constant_id = 18) const bool BY_ROW = false;   // W's neighbours in memory are rows, not k
layout(constant_id = 19) const uint EPILOGUE = 0;     // bit 0: bias, 1: residual, 2: none, these are partial sums
layout(constant_id = 20) const uint ACTIVATION = 0;

const uint THREADS_M = BM / TM;
const uint THREADS_N = BN / TN;
const uint THREADS = THREADS_M * THREADS_N;
const uint LOADS_A = BM * BK / THREADS;
const uint LOADS_B = BN * BK / THREADS;
const uint STEP_A = BY_ROW ? THREADS / BM : THREADS / BK; // in k, or in rows
const uint STEP_B = DENSE ? THREADS / (BN / 4) : THREADS / BN;
const uint ROW_A = BM / 4 + 1; // vectors; one of padding spreads the transposing stores over the banks
const uint ROW_B = BN / 4;

// Two tiles of each operand: while one is multiplied, the next goes from memory to registers to the other.
shared vec4 tile_a[2 * BK * ROW_A];
shared vec4 tile_b[2 * BK * ROW_B];

vec4 acc[TM * TN / 4];
float next_a[LOADS_A];
float next_b[DENSE ? 1 : LOADS_B];
vec4 wide_b[DENSE ? LOADS_B / 4 : 1];

// What of the problem a workgroup computes. With CLASSES: pixels (y0 + i STRIDE_H, x0 + j STRIDE_W).
uint part_m;      // first row
uint part_column; // first column
uint part_group;
uint part_split;
uint k_first;
uint k_end;
uint table_first;
uint grid_h;
uint grid_w;
uint y0;
uint x0;

bool find_part()
{
    uint g = linear_group();
    uint rest = g / push.tiles_m;
    part_m = (g - rest * push.tiles_m) * BM;
    uint tile = rest % push.tiles_n;
    rest /= push.tiles_n;
    part_split = rest / push.groups;
    part_group = rest - part_split * push.groups;
    if (part_split >= push.splits)
        return false;
    table_first = 0u;
    grid_h = push.out_h;
    grid_w = push.out_w;
    y0 = 0u;
    x0 = 0u;
    uint k = push.k;
    if (CLASSES) {
        uint at = 0u;
        while (tile >= U32(push.table).v[at]) {
            tile -= U32(push.table).v[at];
            at += 8u;
        }
        table_first = U32(push.table).v[at + 1u];
        k = U32(push.table).v[at + 2u];
        grid_h = U32(push.table).v[at + 3u];
        grid_w = U32(push.table).v[at + 4u];
        y0 = U32(push.table).v[at + 5u];
        x0 = U32(push.table).v[at + 6u];
    }
    part_column = tile * BN;
    k_first = part_split * push.k_split;
    k_end = min(k_first + push.k_split, k);
    return true;
}

// A destination column taken apart; image = push.images and more: no such column.
struct Pixel {
    uint image;
    uint y;
    uint x;
};

Pixel find_pixel(uint column)
{
    Pixel p;
    uint plane = grid_h * grid_w;
    p.image = column / plane;
    uint rest = column - p.image * plane;
    p.y = rest / grid_w;
    p.x = rest - p.y * grid_w;
    if (CLASSES) {
        p.y = y0 + p.y * STRIDE_H;
        p.x = x0 + p.x * STRIDE_W;
    }
    return p;
}

// The thread's column as a source: address of tap offset 0, and which rows and columns of taps lie inside.
uint base;
uint row_mask = 0u;
uint column_mask = 0u;

void find_source(uint column)
{
    Pixel p = find_pixel(column);
    base = (p.image * push.groups + part_group) * push.source_group;
    if (DENSE) {
        base += p.y * push.source_w + p.x;
        row_mask = p.image < push.images ? 1u : 0u;
        return;
    }
    uint pad_h = push.pads & 0xffffu, pad_w = push.pads >> 16;
    for (uint r = 0u; r < KH; ++r)
        if (uint(tap_source(FORWARD, int(p.y), r, STRIDE_H, DILATION_H, pad_h)) < push.source_h)
            row_mask |= 1u << r;
    for (uint s = 0u; s < KW; ++s)
        if (uint(tap_source(FORWARD, int(p.x), s, STRIDE_W, DILATION_W, pad_w)) < push.source_w)
            column_mask |= 1u << s;
    if (p.image >= push.images)
        row_mask = 0u;
    // Tap offsets in the table count from here; the sum with one is inside wherever the masks say so.
    if (FORWARD)
        base += (p.y * STRIDE_H - pad_h) * push.source_w + p.x * STRIDE_W - pad_w;
    else
        base += p.y / STRIDE_H * push.source_w + p.x / STRIDE_W;
}

uvec2 table_entry(uint k) { return U32x2(push.table).v[table_first + k]; }

uint a_k(uint i) { return BY_ROW ? gl_LocalInvocationIndex / BM + i * STEP_A : gl_LocalInvocationIndex % BK; }
uint a_m(uint i) { return BY_ROW ? gl_LocalInvocationIndex % BM : gl_LocalInvocationIndex / BK + i * STEP_A; }

void load_a(uint k0)
{
    uint w = part_group * push.w_group;
    if (!BY_ROW) {
        uint k = k0 + a_k(0);
        if (FORWARD) {
            w += k;
        } else if (k < k_end) {
            uint e = table_entry(k).y;
            w += (e >> 10) * push.w_channel + (e >> 5 & 31u) * KW + (e & 31u);
        }
    }
    [[unroll]] for (uint i = 0; i < LOADS_A; ++i) {
        uint k = k0 + a_k(i), m = min(part_m + a_m(i), push.m - 1u); // rows past the end are computed and dropped
#ifdef ALT
        float v = F32(push.w).v[k < k_end ? w + m * push.w_row + (BY_ROW ? k * push.w_channel : 0u) : 0u];
        next_a[i] = k < k_end ? v : 0.0;
#else
        next_a[i] = k < k_end ? F32(push.w).v[w + m * push.w_row + (BY_ROW ? k * push.w_channel : 0u)] : 0.0;
#endif
    }
}

void load_b(uint k0)
{
    if (DENSE) {
        uint plane = push.source_h * push.source_w, row = gl_LocalInvocationIndex / (BN / 4);
        [[unroll]] for (uint i = 0; i < LOADS_B / 4; ++i) {
            uint k = k0 + row + i * STEP_B;
            wide_b[i] = k < k_end && row_mask != 0u ? F32x4(push.source).v[(base + k * plane) >> 2] : vec4(0.0);
        }
    } else {
        uint row = gl_LocalInvocationIndex / BN;
        [[unroll]] for (uint i = 0; i < LOADS_B; ++i) {
            uint k = k0 + row + i * STEP_B;
#ifdef ALT
            uvec2 e = table_entry(min(k, k_end - 1u));
            bool hit = k < k_end && (row_mask >> (e.y >> 5 & 31u) & column_mask >> (e.y & 31u) & 1u) != 0u;
            float v = F32(push.source).v[hit ? base + e.x : 0u];
            next_b[i] = hit ? v : 0.0;
#else
            next_b[i] = 0.0;
            if (k < k_end) {
                uvec2 e = table_entry(k);
                if ((row_mask >> (e.y >> 5 & 31u) & column_mask >> (e.y & 31u) & 1u) != 0u)
                    next_b[i] = F32(push.source).v[base + e.x];
            }
#endif
        }
    }
}

void store_next(uint stage)
{
    [[unroll]] for (uint i = 0; i < LOADS_A; ++i) {
        uint m = a_m(i);
        tile_a[(stage * BK + a_k(i)) * ROW_A + (m >> 2)][m & 3u] = next_a[i];
    }
    if (DENSE) {
        uint quad = gl_LocalInvocationIndex % (BN / 4), row = gl_LocalInvocationIndex / (BN / 4);
        [[unroll]] for (uint i = 0; i < LOADS_B / 4; ++i)
            tile_b[(stage * BK + row + i * STEP_B) * ROW_B + quad] = wide_b[i];
    } else {
        uint n = gl_LocalInvocationIndex % BN, row = gl_LocalInvocationIndex / BN;
        [[unroll]] for (uint i = 0; i < LOADS_B; ++i)
            tile_b[(stage * BK + row + i * STEP_B) * ROW_B + (n >> 2)][n & 3u] = next_b[i];
    }
}

void multiply(uint stage, uint tm, uint tn)
{
    [[unroll]] for (uint k = 0; k < BK; ++k) {
        vec4 a[TM / 4], b[TN / 4];
        [[unroll]] for (uint i = 0; i < TM / 4; ++i)
            a[i] = tile_a[(stage * BK + k) * ROW_A + i * THREADS_M + tm];
        [[unroll]] for (uint j = 0; j < TN / 4; ++j)
            b[j] = tile_b[(stage * BK + k) * ROW_B + j * THREADS_N + tn];
        [[unroll]] for (uint i = 0; i < TM; ++i)
            [[unroll]] for (uint j = 0; j < TN / 4; ++j)
                acc[i * (TN / 4) + j] = fma(vec4(a[i / 4][i % 4]), b[j], acc[i * (TN / 4) + j]);
    }
}

// ---- the store phase: four neighbouring columns of one row at a time

uint out_index(Pixel p, uint m)
{
    return ((p.image * push.groups + part_group) * push.m + m) * push.out_h * push.out_w + p.y * push.out_w + p.x;
}

void store_wide(vec4 y, uint index, uint channel)
{
    if ((EPILOGUE & 4u) == 0u) {
        if ((EPILOGUE & 1u) != 0u)
            y += F32(push.bias).v[channel];
        if ((EPILOGUE & 2u) != 0u)
            y += F32x4(push.residual).v[index >> 2];
        y = activate(ACTIVATION, y, push.alpha, push.beta);
    }
    F32x4(push.result).v[index >> 2] = y;
}

void store_one(float y, uint index, uint channel)
{
    if ((EPILOGUE & 4u) == 0u) {
        if ((EPILOGUE & 1u) != 0u)
            y += F32(push.bias).v[channel];
        if ((EPILOGUE & 2u) != 0u)
            y += F32(push.residual).v[index];
        y = activate(ACTIVATION, y, push.alpha, push.beta);
    }
    F32(push.result).v[index] = y;
}

void store_tile(uint tm, uint tn)
{
    uint plane = push.out_h * push.out_w;
    uint partial = part_split * push.images * push.groups * push.m * plane; // 0 without splits
    uint m0 = part_m + tm * 4u;
    [[unroll]] for (uint j = 0; j < TN / 4; ++j) {
        uint column = part_column + (j * THREADS_N + tn) * 4u;
        [[unroll]] for (uint c = 0; c < (WIDE ? 1u : 4u); ++c) {
            Pixel p = find_pixel(column + c);
            if (p.image >= push.images)
                continue;
            uint index = partial + out_index(p, m0);
            [[unroll]] for (uint i = 0; i < TM; ++i) {
                uint row = i / 4 * THREADS_M * 4 + i % 4;
                if (m0 + row < push.m) {
                    uint channel = part_group * push.m + m0 + row;
                    if (WIDE)
                        store_wide(acc[i * (TN / 4) + j], index + row * plane, channel);
                    else
                        store_one(acc[i * (TN / 4) + j][c], index + row * plane, channel);
                }
            }
        }
    }
}

void main()
{
    if (!find_part())
        return;
    uint t = gl_LocalInvocationIndex;
    find_source(part_column + (DENSE ? t % (BN / 4) * 4u : t % BN));
    [[unroll]] for (uint i = 0; i < TM * TN / 4; ++i)
        acc[i] = vec4(0.0);
    // A warp covers 4 x 8 threads of the tile, so that it reads few different vectors from shared memory.
    uint warp = t / 32u, lane = t % 32u;
    uint tn = warp % (THREADS_N / 8u) * 8u + lane % 8u, tm = warp / (THREADS_N / 8u) * 4u + lane / 8u;

    load_a(k_first);
    load_b(k_first);
    store_next(0u);
    barrier();
    uint stage = 0u;
    for (uint k = k_first; k < k_end; k += BK) {
        bool more = k + BK < k_end;
        if (more) {
            load_a(k + BK);
            load_b(k + BK);
        }
        multiply(stage, tm, tn);
        stage ^= 1u;
        if (more)
            store_next(stage);
        barrier();
    }
    store_tile(tm, tn);
}
