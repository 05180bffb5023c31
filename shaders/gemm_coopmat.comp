// kernel: gemm_coopmat needs=coopmat,fp16,subgroup glslang=15
// kernel: gemm_coopmat_emulated -DEMULATED=1
// kernel: gemm_coopmat_bf16 -DBF16=1 needs=coopmat,bf16,subgroup glslang=15
// kernel: gemm_coopmat_bf16_emulated -DBF16=1 -DEMULATED=1
// kernel: gemm_coopmat_int8 -DINT8=1 needs=coopmat,int8-matrix,subgroup glslang=15
// kernel: gemm_coopmat_int8_emulated -DINT8=1 -DEMULATED=1
#version 450
#extension GL_GOOGLE_include_directive : require
#ifndef EMULATED
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#ifdef INT8
#extension GL_EXT_shader_explicit_arithmetic_types_int8 : require
#elif defined(BF16)
#extension GL_EXT_bfloat16 : require
#else
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#endif
#define UNROLL [[unroll]]
#else
#define UNROLL [[dont_unroll]] // software devices compile it
#endif
#include "gemm_common.glsl"

// GEMM on matrix units: fp16 operands, with HALVES 2 also fp32 ones that gemm_split.comp has split, and fp32 sums. Operands are
// staged in the orientation in which they are stored; matrix_loop.glsl says the rest. With BF16 operands are bfloat16.
// With INT8 they are what pack_int8.comp has made: signed bytes along K, and sums are int32. There k, lda, ldb and all that
// counts along K counts pairs of bytes, which take the place of the halves.
//
// Floor: 2 m n k operations (HALVES 2: for each split operand as many more) at the rate of subgroup matrices, or the bytes of A, B and C once.
layout(constant_id = 8) const uint BM = 128;
layout(constant_id = 9) const uint BN = 128;
layout(constant_id = 10) const uint BK = 32;
layout(constant_id = 11) const uint FM = 16; // the device's fragment
layout(constant_id = 12) const uint FN = 16;
#ifdef INT8
layout(constant_id = 13) const uint FRAGMENT_K = 32;
const uint FK = FRAGMENT_K / 2;
#else
layout(constant_id = 13) const uint FK = 16;
#endif
layout(constant_id = 14) const uint WM = 2;
layout(constant_id = 15) const uint WN = 4;
layout(constant_id = 16) const uint THREADS = 256;
layout(constant_id = 17) const uint STAGES = 1;
#ifdef INT8
const uint FLOATS = 0;
#else
layout(constant_id = 18) const uint FLOATS = 0; // bit 0: A is stored as fp32 (else in 16 bits), bit 1: B is
#endif
#if defined(INT8) || defined(BF16)
const uint HALVES = 1;
#else
layout(constant_id = 19) const uint HALVES = 1; // of an element that is stored as fp32: 2 is precision high
#endif

// Spiking neurons that take C: their steps, or 0. Rows of A and C are samples of a step, those of a step behind each other; the
// product's rows are the steps of a sample, so that a row's neighbours in a fragment are one walk. C receives spikes, the
// residual's place holds potentials to begin with, the batches' thresholds.
#if defined(INT8) || defined(BF16)
const uint SCAN = 0;
#else
#define FIRES
#define WALK (SCAN == 0u ? 1u : SCAN)
layout(constant_id = 20) const uint SCAN = 0;
layout(constant_id = 21) const float RATE = 0.0;
layout(constant_id = 22) const float REST = 0.0;
layout(constant_id = 23) const float FIXED_THRESHOLD = 1.0;
#define VEC 4
#define NEURON_CONSTANTS 24
#include "neuron.glsl"
const uint V0 = 0; // bit of PRESENT
#endif

const bool A_F32 = (FLOATS & 1u) != 0u; // or two halves: as many words
const bool B_F32 = (FLOATS & 2u) != 0u;
const bool A_ACROSS = TRANS_A;
const bool B_ACROSS = !TRANS_B;
#define APART
const uint HALVES_A = A_F32 ? HALVES : 1;
const uint HALVES_B = B_F32 ? HALVES : 1;
const uint BAND = 8; // rows of tiles that neighbouring workgroups walk together
Part part;
#ifdef INT8
#define STORE4(sums, row, column) store_row4(sums, part.at, part.m + (row), part.n + (column))
#else
#define STORE4(sums, row, column)                                                                                      \
    {                                                                                                                  \
        if (has_addends())                                                                                             \
            store_sums4(sums, part.m + (row), part.n + (column));                                                      \
        else                                                                                                           \
            store_row4(sums, vec4(0.0), part.at, part.m + (row), part.n + (column));                                   \
    }
#define ADDENDS
#define HAS_ADDENDS has_addends()

bool has_addends()
{
    if (SCAN > 0u)
        return false;
    return WIDE_C && !PARTIAL && (EPILOGUE & (EPILOGUE_BIAS | EPILOGUE_RESIDUAL)) != 0u;
}

void store_sums4(vec4 sums, uint m, uint n)
{
    if (m < push.m && n < push.n)
        store_c4(part.at.c + c_index(m, n), activate(ACTIVATION, sums, push.act_a, push.act_b));
}
#endif
#include "matrix_loop.glsl"

uint from_a[LOADS_A];
uint from_b[LOADS_B];

// The place of chunk i of this thread in an operand's tile: (outer, k).
uvec2 slot(uint i, bool along, uint extent)
{
    uint s = gl_LocalInvocationIndex + i * THREADS;
    return along ? uvec2(line_of(s, BK / 8u), s % (BK / 8u) * 8u) : uvec2(s % (extent / 8u) * 8u, line_of(s, extent / 8u));
}

uint chunk_offset(bool along, bool wide, uint outer, uint k, uint extent, uint ld)
{
    uint o = min(outer, extent - (wide && !along ? 8u : 1u));
    return along ? o * ld + k : k * ld + o;
}

uint half_at(uvec2 base, uint i) // bits of one element of 16, by 32-bit access
{
    uint word = U32(base).v[i >> 1];
    return (i & 1u) == 0u ? word & 0xffffu : word >> 16;
}

// A chunk, or half of one whose elements are fp32, kept as stored; like fetch() of gemm_common.glsl.
uvec4 fetch_chunk(uvec2 base, bool f32, bool along, bool wide, uint offset, uint part, uint outer, uint extent, uint k,
                  uint k_end)
{
    uvec4 x = uvec4(0u);
    if (wide) {
        if (k < k_end)
            x = U32x4(base).v[f32 ? (offset >> 2) + part : offset >> 3];
        return x;
    }
    uint room = extent - 1u - min(outer, extent - 1u), first = part * 4u;
    if (f32) {
        UNROLL for (uint j = 0; j < 4; ++j)
            if (k + (along ? first + j : 0u) < k_end)
                x[j] = U32(base).v[offset + (along ? first + j : min(first + j, room))];
    } else {
        UNROLL for (uint j = 0; j < 8; ++j)
            if (k + (along ? j : 0u) < k_end)
                x[j / 2] |= half_at(base, offset + (along ? j : min(j, room))) << (16u * (j & 1u));
    }
    return x;
}

// ---- split operands: chunk i of the thread is chunk split_chunk() of the tile's block split_block()
//
// Blocks lie as the elements of the matrix do: along k, or across it. The sums of rows and columns outside of C are dropped, so
// blocks there may be any; blocks behind k_end are not read.

uint split_block(uint i) { return (gl_LocalInvocationIndex + i * THREADS) / BLOCK_CHUNKS; }
uint split_chunk() { return gl_LocalInvocationIndex % BLOCK_CHUNKS; } // THREADS is a multiple of 32

// The operand's block that is block `at` of its tile: rows or columns from `outer`, of so many, and k.
uint find_block(bool across, uint first, uint at, uint tile_extent, uint outer, uint extent, uint k)
{
    uint side = tile_extent / SIDE, blocks = blocks_of(extent);
    uint o = min(outer / SIDE + at % side, blocks - 1u), i = k / SIDE + at / side;
    return first + (across ? i * blocks + o : o * blocks_of(push.k) + i);
}

// Words from a block to that of the next tile.
uint split_step(bool across, uint extent) { return BK / SIDE * BLOCK_WORDS * (across ? blocks_of(extent) : 1u); }

uint split_word(uint i, bool across, uint tile_extent, uint row)
{
    uint at = split_block(i), side = tile_extent / SIDE, outer = at % side, k = at / side;
    uint line = split_chunk() % SIDE, chunk = split_chunk() / SIDE;
    return across ? (k * SIDE + line) * row + outer * 2u + chunk : (outer * SIDE + line) * row + k * 2u + chunk;
}

void load_next_split(uint k)
{
    UNROLL for (uint i = 0; i < LOADS_A && SPLIT_A; ++i) {
        bool inside = has_chunk(i, CHUNKS_A) && k + split_block(i) / (BM / SIDE) * SIDE < part.k_end;
        UNROLL for (uint h = 0; h < 2; ++h)
            next_a[i * PARTS_A + h % PARTS_A] =
                inside ? U32x4(push.a).v[from_a[i] + h * BLOCK_CHUNKS] : uvec4(0u);
        from_a[i] += split_step(A_ACROSS, push.m);
    }
    UNROLL for (uint i = 0; i < LOADS_B && SPLIT_B; ++i) {
        bool inside = has_chunk(i, CHUNKS_B) && k + split_block(i) / (BN / SIDE) * SIDE < part.k_end;
        UNROLL for (uint h = 0; h < 2; ++h)
            next_b[i * PARTS_B + h % PARTS_B] =
                inside ? U32x4(push.b).v[from_b[i] + h * BLOCK_CHUNKS] : uvec4(0u);
        from_b[i] += split_step(B_ACROSS, push.n);
    }
    uint t = gl_LocalInvocationIndex;
    bool of_a = t < UNDOS_A;
    uint at = of_a ? t : t - UNDOS_A, side = (of_a ? BM : BN) / SIDE;
    next_undo = 1.0;
    if (t < UNDOS && k + at / side * SIDE < part.k_end)
        next_undo = of_a ? F32(push.a).v[push.lda + find_block(A_ACROSS, part.at.a, at, BM, part.m, push.m, k)]
                         : F32(push.b).v[push.ldb + find_block(B_ACROSS, part.at.b, at, BN, part.n, push.n, k)];
}

void find_split()
{
    UNROLL for (uint i = 0; i < LOADS_A && SPLIT_A; ++i)
        from_a[i] = find_block(A_ACROSS, part.at.a, split_block(i), BM, part.m, push.m, part.k) * BLOCK_WORDS + split_chunk();
    UNROLL for (uint i = 0; i < LOADS_B && SPLIT_B; ++i)
        from_b[i] = find_block(B_ACROSS, part.at.b, split_block(i), BN, part.n, push.n, part.k) * BLOCK_WORDS + split_chunk();
}

// ---- what matrix_loop.glsl asks for

void load_next(uint k)
{
    if (SPLIT)
        load_next_split(k);
    UNROLL for (uint i = 0; i < LOADS_A && !SPLIT_A; ++i) {
        uvec2 s = slot(i, !TRANS_A, BM);
        UNROLL for (uint h = 0; h < PARTS_A; ++h)
            next_a[i * PARTS_A + h] =
                fetch_chunk(push.a, A_F32, !TRANS_A, WIDE_A, from_a[i], h, part.m + s.x, push.m, k + s.y, part.k_end);
        from_a[i] += TRANS_A ? BK * push.lda : BK;
    }
    UNROLL for (uint i = 0; i < LOADS_B && !SPLIT_B; ++i) {
        uvec2 s = slot(i, TRANS_B, BN);
        UNROLL for (uint h = 0; h < PARTS_B; ++h)
            next_b[i * PARTS_B + h] =
                fetch_chunk(push.b, B_F32, TRANS_B, WIDE_B, from_b[i], h, part.n + s.x, push.n, k + s.y, part.k_end);
        from_b[i] += TRANS_B ? BK : BK * push.ldb;
    }
}

uint word_a(uint i)
{
    if (SPLIT_A)
        return split_word(i, A_ACROSS, BM, ROW_A);
    uvec2 s = slot(i, !TRANS_A, BM);
    return TRANS_A ? s.y * ROW_A + s.x / 8u : s.x * ROW_A + s.y / 8u;
}

uint word_b(uint i)
{
    if (SPLIT_B)
        return split_word(i, B_ACROSS, BN, ROW_B);
    uvec2 s = slot(i, TRANS_B, BN);
    return TRANS_B ? s.x * ROW_B + s.y / 8u : s.y * ROW_B + s.x / 8u;
}

// Where row m of the product is in A and C.
uint stored_row(uint m)
{
    if (SCAN == 0u)
        return m;
    uint row = min(m, push.m - 1u), image = row / SCAN;
    return (row - image * SCAN) * (push.m / SCAN) + image;
}

#ifdef FIRES
vec4 potential; // of the four neurons whose steps this invocation stores one after the other

void store4_in_turn(vec4 sums, uint row_of_tile, uint column)
{
    uint m = part.m + row_of_tile, n = part.n + column;
    if (m >= push.m || n >= push.n)
        return;
    if (m % SCAN == 0u) {
        potential = vec4(REST);
        if (present(V0))
            potential = F32x4(push.residual).v[(m / SCAN * push.n + n) / 4u];
    }
    uint row = stored_row(m), index = c_index(row, n);
    vec4 theta = threshold(push.batch, FIXED_THRESHOLD, n / 4u, 1u, push.n);
    vec4 h = charge(potential, finish4(sums, vec4(0.0), part.at, row, n), RATE, REST);
    potential = after_reset(h, theta, REST);
    store_c4(index, vec4(greaterThanEqual(h, theta)));
}
#endif

#ifndef INT8
uvec4 load_addend4(uint row, uint column)
{
    uint m = part.m + row, n = part.n + column;
    vec4 addend = vec4(0.0);
    if (m < push.m && n < push.n) {
        addend = addend4(part.at, m, n);
        if ((EPILOGUE & EPILOGUE_BIAS) != 0u)
            addend += bias4(part.at, m, n);
    }
    return floatBitsToUint(addend);
}

vec4 with_addend4(vec4 sums, uvec4 addend) { return push.alpha * sums + uintBitsToFloat(addend); }
#endif

void main()
{
    if (!find_part(BM, BN, BAND, part))
        return;
    if (SPLIT)
        find_split();
    UNROLL for (uint i = 0; i < LOADS_A && !SPLIT_A; ++i) {
        uvec2 s = slot(i, !TRANS_A, BM);
        from_a[i] = part.at.a + chunk_offset(!TRANS_A, WIDE_A, stored_row(part.m + s.x), part.k + s.y, push.m, push.lda);
    }
    UNROLL for (uint i = 0; i < LOADS_B && !SPLIT_B; ++i) {
        uvec2 s = slot(i, TRANS_B, BN);
        from_b[i] = part.at.b + chunk_offset(TRANS_B, WIDE_B, part.n + s.x, part.k + s.y, push.n, push.ldb);
    }
    multiply_tiles(part.k, part.k_end);
}
