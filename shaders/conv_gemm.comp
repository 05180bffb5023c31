// kernel: conv_gemm
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
// built: a thread owns a few columns, whose base addresses and valid taps (one bit each) it finds once, and a table, the
// same for all columns, gives each k its offset: no division and no multiplication in the loop. All 32 threads of a warp
// load the same k, so that one look into the table serves all their columns.
//
// SLICES > 1: groups of threads share the tile but take different parts of each K tile, for problems with few tiles; their
// sums meet in shared memory at the end, in order of slice. STAGES 2: two tiles in shared memory and one barrier for each;
// 1: half the memory, two barriers, so that small tiles can be long in K and have many loads on their way.
//
// POINT: one tap without padding needs no table. There a vector of scales, one for each image and channel, may multiply
// the source (what squeeze-and-excitation does to the input of its last convolution).
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
layout(constant_id = 16) const bool DENSE = false; // POINT with stride 1: columns are read four at a time
layout(constant_id = 17) const bool WIDE = false;  // four columns of a row are stored at once
layout(constant_id = 18) const uint W_ORDER = 0;   // how W is read: 0 along k, 1 along k by vectors, 2 along m
layout(constant_id = 19) const uint EPILOGUE = 0;  // bit 0: bias, 1: residual, 2: none, these are partial sums
layout(constant_id = 20) const uint ACTIVATION = 0;
layout(constant_id = 21) const uint SLICES = 1;
layout(constant_id = 22) const uint STAGES = 2;
layout(constant_id = 23) const bool POINT = false; // one tap, no padding, no classes
layout(constant_id = 24) const bool SCALED = false;

const uint THREADS_M = BM / TM;
const uint THREADS_N = BN / TN;
const uint SLICE_THREADS = THREADS_M * THREADS_N;
const uint THREADS = SLICE_THREADS * SLICES;
const uint SLICE_K = BK / SLICES;
const uint LOADS_A = BM * BK / THREADS;
const uint LOADS_B = BN * BK / THREADS;
const bool W_WIDE = W_ORDER == 1;
const bool W_ROWS = W_ORDER == 2;
const uint STEP_A = W_ROWS ? THREADS / BM : THREADS / BK; // in k, or in rows
const uint STEP_DENSE = THREADS / (BN / 4);
const uint WARPS = THREADS / 32;
const uint COLUMNS = DENSE ? 1 : BN / 32;      // that a thread owns
const uint ROWS_B = BK / WARPS;                // k that a warp loads
const uint ROW_A = BM / 4 + 1; // vectors; one of padding spreads the transposing stores over the banks
const uint ROW_B = BN / 4;
const uint TILE_A = BK * ROW_A;
const uint TILE = TILE_A + BK * ROW_B;
const uint SUMS = SLICES > 1 ? BM * BN / 4 : 0;
const uint ROOM = STAGES * TILE / (BM * BN / 4); // for the sums of so many slices
const uint SUMS_FIT = ROOM > 1 ? ROOM : 1;

#include "conv_gather.glsl"

// While one tile of the operands is multiplied, the next goes from memory to registers, then to the other tile.
shared vec4 tile[STAGES * TILE > SUMS ? STAGES * TILE : SUMS];

vec4 acc[TM * TN / 4];
float next_a[LOADS_A];
float next_b[LOADS_B];

// The table's entries of the K tile that is loaded next, which are read one tile earlier still: one latency, not two, lies
// between tiles. Every class's entries end with some that are in no mask, so that its last tile is whole.
uvec2 entry_b[POINT ? 1 : ROWS_B];
uint entry_a;

void load_entries(uint k0)
{
    if (POINT)
        return;
    if (!FORWARD && !W_ROWS)
        entry_a = U32x2(push.table).v[table_first + k0 + gl_LocalInvocationIndex % BK].y;
    [[unroll]] for (uint i = 0; i < ROWS_B; ++i)
        entry_b[i] = U32x2(push.table).v[table_first + k0 + gl_LocalInvocationIndex / 32 + i * WARPS];
}

// Where element i of the thread's share of A lies in the tile. Along k by vectors: a warp takes 16 rows of 2 vectors, a
// whole sector of each row, and its transposing stores meet all 32 banks once; its next vectors are a constant further.
const uint BLOCKS = BM / 16;
const uint STEPS_M = WARPS < BLOCKS ? BLOCKS / WARPS : 1;
const uint STEP_K = WARPS > BLOCKS ? WARPS / BLOCKS * 8 : 8;

uint a_k(uint i)
{
    uint t = gl_LocalInvocationIndex;
    if (W_WIDE)
        return t / 16 % 2 * 4 + (WARPS > BLOCKS ? t / 32 / BLOCKS * 8 : 0) + i / 4 / STEPS_M * STEP_K + i % 4;
    return W_ROWS ? t / BM + i * STEP_A : t % BK;
}
uint a_m(uint i)
{
    uint t = gl_LocalInvocationIndex;
    if (W_WIDE)
        return t % 16 + (WARPS > BLOCKS ? t / 32 % BLOCKS : t / 32) * 16 + i / 4 % STEPS_M * (WARPS * 16);
    return W_ROWS ? t % BM : t / BK + i * STEP_A;
}

// Rows past the end are computed and dropped; k past the end must give 0, for 0 times another operand's NaN is NaN.
void load_a(uint k0)
{
    uint w = part_group * push.w_group;
    if (W_WIDE) {
        [[unroll]] for (uint i = 0; i < LOADS_A / 4; ++i) {
            uint m = min(part_m + a_m(i * 4), push.m - 1u), k = k0 + a_k(i * 4);
            vec4 x = vec4(0.0);
            if (k < k_end)
                x = F32x4(push.w).v[(w + m * push.w_row + k) >> 2];
            [[unroll]] for (uint j = 0; j < 4; ++j)
                next_a[i * 4 + j] = x[j];
        }
        return;
    }
    uint k = k0 + a_k(0);
    if (FORWARD && !W_ROWS)
        w += k;
    if (!FORWARD && !W_ROWS) {
        uint tap = TAP_BITS ? entry_a & 31u : (entry_a >> 5 & 31u) * KW + (entry_a & 31u);
        w += (entry_a >> 10) * push.w_channel + tap;
    }
    [[unroll]] for (uint i = 0; i < LOADS_A; ++i) {
        uint m = min(part_m + a_m(i), push.m - 1u);
        next_a[i] = 0.0;
        if (k0 + a_k(i) < k_end)
            next_a[i] = F32(push.w).v[w + m * push.w_row + (W_ROWS ? (k0 + a_k(i)) * push.w_channel : 0u)];
    }
}

void load_dense(uint k0)
{
    uint plane = push.source_h * push.source_w, row = gl_LocalInvocationIndex / (BN / 4);
    [[unroll]] for (uint i = 0; i < LOADS_B / 4; ++i) {
        uint k = k0 + row + i * STEP_DENSE;
        vec4 x = vec4(0.0);
        if (k < k_end && mask[0] != 0u) {
            x = F32x4(push.source).v[(base[0] + k * plane) >> 2];
            if (SCALED)
                x *= F32(push.table).v[scale_base[0] + k];
        }
        [[unroll]] for (uint j = 0; j < 4; ++j)
            next_b[i * 4 + j] = x[j];
    }
}

void load_points(uint k0)
{
    uint plane = push.source_h * push.source_w;
    [[unroll]] for (uint i = 0; i < ROWS_B; ++i) {
        uint k = k0 + gl_LocalInvocationIndex / 32 + i * WARPS;
        [[unroll]] for (uint j = 0; j < COLUMNS; ++j) {
            bool inside = k < k_end && mask[j] != 0u;
            float x = inside ? F32(push.source).v[base[j] + k * plane] : 0.0;
            if (SCALED)
                x *= inside ? F32(push.table).v[scale_base[j] + k] : 0.0;
            next_b[i * COLUMNS + j] = x;
        }
    }
}

void load_b(uint k0)
{
    if (DENSE) {
        load_dense(k0);
        return;
    }
    if (POINT) {
        load_points(k0);
        return;
    }
    [[unroll]] for (uint i = 0; i < ROWS_B; ++i)
        [[unroll]] for (uint j = 0; j < COLUMNS; ++j) {
            // Compilers make one predicated load of this: 2 to 10 % faster than selecting an address and a value.
            bool inside = tap_inside(mask[j], entry_b[i].y);
            next_b[i * COLUMNS + j] = inside ? F32(push.source).v[base[j] + entry_b[i].x] : 0.0;
        }
}

void store_next(uint at)
{
    [[unroll]] for (uint i = 0; i < LOADS_A; ++i) {
        uint m = a_m(i);
        tile[at + a_k(i) * ROW_A + (m >> 2)][m & 3u] = next_a[i];
    }
    uint t = gl_LocalInvocationIndex;
    if (DENSE) {
        [[unroll]] for (uint i = 0; i < LOADS_B / 4; ++i)
            tile[at + TILE_A + (t / (BN / 4) + i * STEP_DENSE) * ROW_B + t % (BN / 4)] =
                vec4(next_b[i * 4], next_b[i * 4 + 1], next_b[i * 4 + 2], next_b[i * 4 + 3]);
    } else {
        [[unroll]] for (uint i = 0; i < ROWS_B; ++i)
            [[unroll]] for (uint j = 0; j < COLUMNS; ++j) {
                uint n = j * 32 + t % 32;
                tile[at + TILE_A + (t / 32 + i * WARPS) * ROW_B + (n >> 2)][n & 3u] = next_b[i * COLUMNS + j];
            }
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

// Adds the sums of slices 1, 2, ... to those of slice 0, one after another, as many at once as the tiles' memory holds.
void add_slices(uint slice, uint thread)
{
    [[unroll]] for (uint first = 1; first < SLICES; first += SUMS_FIT) {
        if (STAGES == 2 || first > 1u)
            barrier();
        if (slice >= first && slice < first + SUMS_FIT) {
            [[unroll]] for (uint i = 0; i < TM * TN / 4; ++i)
                tile[((slice - first) * (TM * TN / 4) + i) * SLICE_THREADS + thread] = acc[i];
        }
        barrier();
        if (slice == 0u) {
            [[unroll]] for (uint s = first; s < min(first + SUMS_FIT, SLICES); ++s)
                [[unroll]] for (uint i = 0; i < TM * TN / 4; ++i)
                    acc[i] += tile[((s - first) * (TM * TN / 4) + i) * SLICE_THREADS + thread];
        }
    }
}

// ---- the store phase: four neighbouring columns of one row at a time

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
    [[unroll]] for (uint i = 0; i < COLUMNS; ++i)
        find_source(i, part_column + (DENSE ? t % (BN / 4) * 4u : i * 32 + t % 32));
    [[unroll]] for (uint i = 0; i < TM * TN / 4; ++i)
        acc[i] = vec4(0.0);
    // A warp covers 4 x 8 threads of the tile, so that it reads few different vectors from shared memory.
    uint slice = t / SLICE_THREADS, thread = t % SLICE_THREADS, warp = thread / 32u, lane = thread % 32u;
    uint tn = warp % (THREADS_N / 8u) * 8u + lane % 8u, tm = warp / (THREADS_N / 8u) * 4u + lane / 8u;

    load_entries(k_first);
    load_a(k_first);
    load_b(k_first);
    if (k_first + BK < k_end)
        load_entries(k_first + BK);
    store_next(0u);
    barrier();
    uint at = 0u;
    for (uint k = k_first; k < k_end; k += BK) {
        bool more = k + BK < k_end;
        if (more) {
            load_a(k + BK);
            load_b(k + BK);
            if (k + 2 * BK < k_end)
                load_entries(k + 2 * BK);
        }
        multiply(at, slice, tm, tn);
        if (STAGES == 1)
            barrier();
        else
            at = TILE - at;
        if (more) {
            store_next(at);
            barrier();
        }
    }
    if (SLICES > 1)
        add_slices(slice, thread);
    if (slice == 0u)
        store_tile(tm, tn);
}
