// The main loop on matrix units: what gemm_coopmat.comp and conv_matrix.comp share.
//
// A workgroup of WM x WN subgroups computes BM x BN sums over K, a subgroup (BM / WM) x (BN / WN) of them in fragments of
// FM x FN. Operands are staged in shared memory as halves, in chunks of eight elements: while one K tile is multiplied the
// next is on its way into registers. Rows of a tile are padded by 16 bytes, so that the eight rows of a fragment begin in
// different banks. Operands in fp32 are rounded on the way, or with HALVES 2 split into two halves whose three larger
// products are summed (precision high); those sums reach the running ones rounded, where matrix units would cut off
// what they cannot hold.
//
// Before including it, a kernel defines BM, BN, BK, FM, FN, FK, WM, WN, THREADS, STAGES, HALVES, the bools A_F32, B_F32 (how
// operands are stored) and A_ACROSS, B_ACROSS (their chunks lie across K, else along it). After it:
//     void load_next(uint k)                     the chunks of the K tile at k into next_a and next_b
//     uint word_a(uint i), word_b(uint i)        where chunk i of the thread goes, from the start of the operand's tile
//     void store4(vec4 sums, uint row, uint column)   four sums of a row, from the workgroup's corner
#ifndef MATRIX_LOOP_GLSL
#define MATRIX_LOOP_GLSL

const bool SPLIT = HALVES == 2u;
const uint SUBGROUPS = WM * WN;
const uint RM = BM / WM / FM; // fragments of a subgroup
const uint RN = BN / WN / FN;
const uint LOADS_A = BM * BK / 8 / THREADS; // chunks that a thread moves per K tile
const uint LOADS_B = BN * BK / 8 / THREADS;
const uint PARTS_A = A_F32 ? 2 : 1; // 16-byte words of a chunk as stored
const uint PARTS_B = B_F32 ? 2 : 1;
const uint ROW_A = (A_ACROSS ? BM : BK) / 8 + 1; // 16-byte words of a padded row in shared memory
const uint ROW_B = (B_ACROSS ? BN : BK) / 8 + 1;
const uint TILE_A = (A_ACROSS ? BK : BM) * ROW_A; // of one half
const uint TILE_B = (B_ACROSS ? BK : BN) * ROW_B;
const uint TILE = HALVES * (TILE_A + TILE_B);
const uint VECTORS = RN * FN / 4; // of a row of sums that a subgroup finishes at a time
const uint SUMS = SUBGROUPS * FM * (VECTORS + 1);
shared uvec4 tile[STAGES * TILE > SUMS ? STAGES * TILE : SUMS];
#include "matrix.glsl"

uvec4 next_a[LOADS_A * PARTS_A];
uvec4 next_b[LOADS_B * PARTS_B];

void load_next(uint k);
uint word_a(uint i);
uint word_b(uint i);
void store4(vec4 sums, uint row, uint column);

// An operand's chunk to word `to` of its high tile, and to its low tile if there is one.
void place(uint to, uint half_tile, uvec4 x, uvec4 y, bool f32, float scale)
{
    if (SPLIT) {
        uvec4 high, low;
        split8(x, y, scale, high, low);
        tile[to] = high;
        tile[to + half_tile] = low;
    } else {
        tile[to] = f32 ? pack8(uintBitsToFloat(x), uintBitsToFloat(y)) : x;
    }
}

void place_next(uint at, float scale_a, float scale_b)
{
    UNROLL for (uint i = 0; i < LOADS_A; ++i)
        place(at + word_a(i), TILE_A, next_a[i * PARTS_A], next_a[i * PARTS_A + PARTS_A - 1], A_F32, scale_a);
    UNROLL for (uint i = 0; i < LOADS_B; ++i)
        place(at + HALVES * TILE_A + word_b(i), TILE_B, next_b[i * PARTS_B], next_b[i * PARTS_B + PARTS_B - 1], B_F32, scale_b);
}

// Before the barrier that precedes place_next: what its scales must fit.
void note_next()
{
    float a = 0.0, b = 0.0;
    UNROLL for (uint i = 0; i < LOADS_A * PARTS_A; ++i)
        a = max(a, largest4(next_a[i]));
    UNROLL for (uint i = 0; i < LOADS_B * PARTS_B; ++i)
        b = max(b, largest4(next_b[i]));
    if (!is_finite(a)) {
        a = 0.0;
        UNROLL for (uint i = 0; i < LOADS_A * PARTS_A; ++i)
            a = max(a, largest_finite4(next_a[i]));
    }
    if (!is_finite(b)) {
        b = 0.0;
        UNROLL for (uint i = 0; i < LOADS_B * PARTS_B; ++i)
            b = max(b, largest_finite4(next_b[i]));
    }
    note_largest(0u, a);
    note_largest(1u, b);
}

// The sums over k = first .. end - 1, stored.
void multiply_tiles(uint first, uint end)
{
    Sums acc[RM * RN];
    UNROLL for (uint i = 0; i < RM * RN; ++i)
        CLEAR_SUMS(acc[i], i);
    uint subgroup_m = SUBGROUP_INDEX / WN * (BM / WM), subgroup_n = SUBGROUP_INDEX % WN * (BN / WN);
    uint exponent_a = 127u, exponent_b = 127u; // of the scales, biased

    load_next(first);
    if (SPLIT) {
        if (gl_LocalInvocationIndex < 2u)
            largest[gl_LocalInvocationIndex] = 0u;
        barrier();
        note_next();
        barrier();
        exponent_a = scale_exponent(0u);
        exponent_b = scale_exponent(1u);
    }
    place_next(0, power_of_two(exponent_a), power_of_two(exponent_b));
    barrier();
    uint at = 0;
    for (uint k = first; k < end; k += BK) {
        bool more = k + BK < end;
        if (more)
            load_next(k + BK);
        UNROLL for (uint kk = 0; kk < BK; kk += FK) {
            OperandA a[RM * HALVES];
            UNROLL for (uint i = 0; i < RM * HALVES; ++i) {
                uint m = subgroup_m + i % RM * FM, from = at + i / RM * TILE_A;
                LOAD_OPERAND(a[i], from + (A_ACROSS ? kk * ROW_A + m / 8u : m * ROW_A + kk / 8u), ROW_A, A_ACROSS);
            }
            UNROLL for (uint j = 0; j < RN; ++j) {
                OperandB b[HALVES];
                UNROLL for (uint h = 0; h < HALVES; ++h) {
                    uint n = subgroup_n + j * FN, from = at + HALVES * TILE_A + h * TILE_B;
                    LOAD_OPERAND(b[h], from + (B_ACROSS ? kk * ROW_B + n / 8u : n * ROW_B + kk / 8u), ROW_B, !B_ACROSS);
                }
                UNROLL for (uint i = 0; i < RM; ++i) {
                    if (SPLIT) {
                        // Matrix units cut off what their sums cannot hold; added here, it is rounded.
                        Sums few;
                        CLEAR_SUMS(few, RM * RN);
                        MULTIPLY(a[i + RM * (HALVES - 1)], b[0], few);
                        MULTIPLY(a[i], b[HALVES - 1], few);
                        MULTIPLY(a[i], b[0], few);
                        ADD_SUMS(acc[i * RN + j], few);
                    } else {
                        MULTIPLY(a[i], b[0], acc[i * RN + j]);
                    }
                }
            }
        }
        if (SPLIT && more)
            note_next();
        if (STAGES == 1 || SPLIT)
            barrier();
        if (STAGES > 1)
            at = TILE - at;
        if (more) {
            if (SPLIT) {
                uint sa = scale_exponent(0u), sb = scale_exponent(1u);
                if (sa != exponent_a || sb != exponent_b) {
                    float fa = scale_change(exponent_a, sa), fb = scale_change(exponent_b, sb);
                    UNROLL for (uint i = 0; i < RM * RN; ++i) {
                        SCALE_SUMS(acc[i], fa);
                        SCALE_SUMS(acc[i], fb);
                    }
                    exponent_a = sa;
                    exponent_b = sb;
                }
            }
            place_next(at, power_of_two(exponent_a), power_of_two(exponent_b));
            barrier();
        }
    }

    // A fragment's elements lie in unknown lanes, so a row of fragments goes through shared memory and from there in
    // rows to the result.
    if (STAGES > 1 && !SPLIT)
        barrier();
    float undo_a = power_of_two(254u - exponent_a), undo_b = power_of_two(254u - exponent_b);
    uint lane = SUBGROUP_LANE, base = SUBGROUP_INDEX * FM * (VECTORS + 1);
    UNROLL for (uint i = 0; i < RM; ++i) {
        UNROLL for (uint j = 0; j < RN; ++j)
            STORE_SUMS(acc[i * RN + j], base + j * FN / 4, VECTORS + 1);
        SUBGROUP_BARRIER;
        for (uint v = lane; v < FM * VECTORS; v += THREADS / SUBGROUPS) {
            uint row = v / VECTORS, column = v % VECTORS;
            vec4 sum = uintBitsToFloat(tile[base + row * (VECTORS + 1) + column]);
            if (SPLIT)
                sum = sum * undo_a * undo_b;
            store4(sum, subgroup_m + i * FM + row, subgroup_n + column * 4u);
        }
        SUBGROUP_BARRIER;
    }
}

#endif
