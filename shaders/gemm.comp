// kernel: gemm
#version 450
#extension GL_GOOGLE_include_directive : require
#include "gemm_common.glsl"

// fp32 GEMM on shared-memory tiles. A workgroup computes BM x BN of C, a thread TM x TN of it as 4 x 4 blocks that lie
// THREADS_M * 4 rows and THREADS_N * 4 columns apart, so that the threads of a warp (4 rows of 8) read neighbouring
// vectors from shared memory: no bank conflicts. While one K tile is multiplied the next is on its way into registers.
//
// SLICES > 1: groups of threads share the tile but take different parts of each K tile; their sums meet in shared
// memory at the end, in order of slice. That fills an SM where the problem has few tiles. STAGES 2: two tiles in shared
// memory and one barrier for each; 1: half the memory, two barriers.
layout(constant_id = 8) const uint BM = 64;
layout(constant_id = 9) const uint BN = 64;
layout(constant_id = 10) const uint BK = 16;
layout(constant_id = 11) const uint TM = 4;
layout(constant_id = 12) const uint TN = 4;
layout(constant_id = 13) const uint SLICES = 1;
layout(constant_id = 14) const uint STAGES = 1;

const uint THREADS_M = BM / TM;
const uint THREADS_N = BN / TN;
const uint SLICE_THREADS = THREADS_M * THREADS_N;
const uint THREADS = SLICE_THREADS * SLICES;
const uint LOADS_A = BM * BK / 4 / THREADS; // vectors a thread moves per K tile
const uint LOADS_B = BN * BK / 4 / THREADS;
const uint SLICE_K = BK / SLICES;
// A tile is [BK][extent] with 128 / BK floats of padding after every fourth k: the scattered stores of operands whose
// rows run along K (BK / 4 vectors of k times 128 / BK rows in a warp) then touch all 32 banks once.
const uint PAD = 128 / BK;
const uint TILE_A = BK * BM + 32; // floats
const uint TILE_B = BK * BN + 32;
const uint TILE = TILE_A + TILE_B;
const uint SUMS = SLICES > 1 ? BM * BN : 0;
shared vec4 tile[(STAGES * TILE > SUMS ? STAGES * TILE : SUMS) / 4];

vec4 acc[TM * TN / 4];
vec4 next_a[LOADS_A];
vec4 next_b[LOADS_B];
uint from_a[LOADS_A];
uint from_b[LOADS_B];

// The place of vector i of this thread in an operand's tile: (outer, k).
uvec2 slot(uint i, bool along, uint extent)
{
    uint s = gl_LocalInvocationIndex + i * THREADS;
    return along ? uvec2(s / (BK / 4u), s % (BK / 4u) * 4u) : uvec2(s % (extent / 4u) * 4u, s / (extent / 4u));
}

uint tile_row(uint k, uint extent) { return k * extent + (k >> 2) * PAD; } // floats

void load_next(Part p, uint k0)
{
    [[unroll]] for (uint i = 0; i < LOADS_A; ++i) {
        uvec2 s = slot(i, !TRANS_A, BM);
        next_a[i] = fetch(push.a, !TRANS_A, WIDE_A, from_a[i], p.m + s.x, push.m, k0 + s.y, p.k_end);
        from_a[i] += TRANS_A ? BK * push.lda : BK;
    }
    [[unroll]] for (uint i = 0; i < LOADS_B; ++i) {
        uvec2 s = slot(i, TRANS_B, BN);
        next_b[i] = fetch(push.b, TRANS_B, WIDE_B, from_b[i], p.n + s.x, push.n, k0 + s.y, p.k_end);
        from_b[i] += TRANS_B ? BK : BK * push.ldb;
    }
}

void place(uint at, bool along, uint extent, uvec2 s, vec4 x)
{
    uint to = at + tile_row(s.y, extent) + s.x;
    if (along) {
        [[unroll]] for (uint j = 0; j < 4; ++j)
            tile[(to + j * extent) >> 2][s.x & 3u] = x[j]; // the row's padding is the same for all four k
    } else {
        tile[to >> 2] = x;
    }
}

void place_next(uint at)
{
    [[unroll]] for (uint i = 0; i < LOADS_A; ++i)
        place(at, !TRANS_A, BM, slot(i, !TRANS_A, BM), next_a[i]);
    [[unroll]] for (uint i = 0; i < LOADS_B; ++i)
        place(at + TILE_A, TRANS_B, BN, slot(i, TRANS_B, BN), next_b[i]);
}

void multiply(uint at, uint tm, uint tn, uint k_first)
{
    uint row_a = (at + tile_row(k_first, BM)) / 4u + tm;
    uint row_b = (at + TILE_A + tile_row(k_first, BN)) / 4u + tn;
    [[unroll]] for (uint k = 0; k < SLICE_K; ++k) {
        vec4 a[TM / 4], b[TN / 4];
        [[unroll]] for (uint i = 0; i < TM / 4; ++i)
            a[i] = tile[row_a + tile_row(k, BM) / 4u + i * THREADS_M];
        [[unroll]] for (uint j = 0; j < TN / 4; ++j)
            b[j] = tile[row_b + tile_row(k, BN) / 4u + j * THREADS_N];
        [[unroll]] for (uint i = 0; i < TM; ++i)
            [[unroll]] for (uint j = 0; j < TN / 4; ++j)
                acc[i * (TN / 4) + j] = fma(vec4(a[i / 4][i % 4]), b[j], acc[i * (TN / 4) + j]);
    }
}

// Adds the sums of slices 1, 2, ... to those of slice 0, one after another.
void add_slices(uint slice, uint thread)
{
    for (uint s = 1; s < SLICES; ++s) {
        barrier();
        if (slice == s) {
            [[unroll]] for (uint i = 0; i < TM * TN / 4; ++i)
                tile[i * SLICE_THREADS + thread] = acc[i];
        }
        barrier();
        if (slice == 0) {
            [[unroll]] for (uint i = 0; i < TM * TN / 4; ++i)
                acc[i] += tile[i * SLICE_THREADS + thread];
        }
    }
}

void main()
{
    Part p;
    if (!find_part(BM, BN, 1u, p))
        return;
    [[unroll]] for (uint i = 0; i < LOADS_A; ++i) {
        uvec2 s = slot(i, !TRANS_A, BM);
        from_a[i] = p.at.a + fetch_offset(!TRANS_A, WIDE_A, p.m + s.x, p.k + s.y, push.m, push.lda);
    }
    [[unroll]] for (uint i = 0; i < LOADS_B; ++i) {
        uvec2 s = slot(i, TRANS_B, BN);
        from_b[i] = p.at.b + fetch_offset(TRANS_B, WIDE_B, p.n + s.x, p.k + s.y, push.n, push.ldb);
    }
    [[unroll]] for (uint i = 0; i < TM * TN / 4; ++i)
        acc[i] = vec4(0.0);

    uint slice = gl_LocalInvocationIndex / SLICE_THREADS, thread = gl_LocalInvocationIndex % SLICE_THREADS;
    uint warp = thread / 32u, lane = thread % 32u;
    uint tn = warp % (THREADS_N / 8u) * 8u + lane % 8u, tm = warp / (THREADS_N / 8u) * 4u + lane / 8u;

    load_next(p, p.k);
    place_next(0);
    barrier();
    uint at = 0;
    for (uint k = p.k; k < p.k_end; k += BK) {
        bool more = k + BK < p.k_end;
        if (more)
            load_next(p, k + BK);
        multiply(at, tm, tn, slice * SLICE_K);
        if (STAGES == 1)
            barrier();
        else
            at = TILE - at;
        if (more) {
            place_next(at);
            barrier();
        }
    }
    if (SLICES > 1)
        add_slices(slice, thread);
    if (slice > 0)
        return;
    [[unroll]] for (uint i = 0; i < TM; ++i) {
        uint m = p.m + (i / 4 * THREADS_M + tm) * 4 + i % 4;
        [[unroll]] for (uint j = 0; j < TN / 4; ++j) {
            uint n = p.n + (j * THREADS_N + tn) * 4;
            store_row4(acc[i * (TN / 4) + j], addend4(p.at, m, n), p.at, m, n);
        }
    }
}
