// The main loop on matrix units: what gemm_coopmat.comp and conv_matrix.comp share.
//
// A workgroup of WM x WN subgroups computes BM x BN sums over K, a subgroup (BM / WM) x (BN / WN) of them in fragments of
// FM x FN. Operands are staged in shared memory as halves, in chunks of eight elements: while one K tile is multiplied the
// next is on its way into registers. (With two on their way small products took half as long again on an H200.) Rows of a
// tile are padded by 16 bytes, so that the eight rows of a fragment begin in different banks. Operands in fp32 are rounded on
// the way.
//
// With HALVES 2 (precision high) an element is two halves with a scale for each block (halves.glsl), and the three larger of
// their products are summed. The products of FK k meet the running sums outside of the matrix units: that undoes the
// scales, and rounds where matrix units would cut off what they cannot hold. Operands come split; with SPLIT_HERE they
// are split while they are staged. An operand that is stored in halves is exact in one: it comes as it is, and a product less.
//
// Before including it, a kernel defines BM, BN, BK, FM, FN, FK, WM, WN, THREADS, STAGES, HALVES, the bools A_F32, B_F32 (how
// operands are stored) and A_ACROSS, B_ACROSS (their chunks lie across K, else along it). After it:
//     void load_next(uint k)                     the chunks of the K tile at k into next_a and next_b; of operands that come
//                                                split both halves, and into next_undo the tile's undo of this thread's number
//     uint word_a(uint i), word_b(uint i)        where chunk i of the thread goes, from the start of the operand's tile
//     void store4(SUM4 sums, uint row, uint column)   stores four sums of a row, from the workgroup's corner; or, before it, a
//                                                     macro STORE4 that takes the same
// With ADDENDS it also defines HAS_ADDENDS, uvec4 load_addend4(uint row, uint column), which a thread asks for as often as it
// will store sums of a row of fragments, and vec4 with_addend4(vec4 sums, uvec4 addend), what of them it then stores.
// With APART it defines HALVES_A and HALVES_B too. With WALK, a divisor of FM, above 1 an invocation stores so many rows one
// after the other, by void store4_in_turn(vec4 sums, uint row, uint column).
#ifndef MATRIX_LOOP_GLSL
#define MATRIX_LOOP_GLSL

#include "halves.glsl"
#ifdef BF16
#define ROUND8(x, y) pack8_bfloat(floatBitsToUint(x), floatBitsToUint(y))
#else
#define ROUND8(x, y) pack8(x, y)
#endif

#ifndef APART
const uint HALVES_A = HALVES;
const uint HALVES_B = HALVES;
#endif
const bool SPLIT_A = HALVES_A == 2u;
const bool SPLIT_B = HALVES_B == 2u;
const bool SPLIT = SPLIT_A || SPLIT_B;
const bool OUTSIDE = HALVES == 2u; // products meet the running sums outside of the matrix units
const uint SUBGROUPS = WM * WN;
const uint RM = BM / WM / FM; // fragments of a subgroup
const uint RN = BN / WN / FN;
const uint CHUNKS_A = BM * BK / 8;
const uint CHUNKS_B = BN * BK / 8;
const uint LOADS_A = (CHUNKS_A + THREADS - 1) / THREADS; // chunks that a thread moves per K tile; a last one may be none
const uint LOADS_B = (CHUNKS_B + THREADS - 1) / THREADS;
const uint PARTS_A = A_F32 ? 2 : 1; // 16-byte words of a chunk as it comes
const uint PARTS_B = B_F32 ? 2 : 1;
const uint ROW_A = (A_ACROSS ? BM : BK) / 8 + 1; // 16-byte words of a padded row in shared memory
const uint ROW_B = (B_ACROSS ? BN : BK) / 8 + 1;
const uint TILE_A = (A_ACROSS ? BK : BM) * ROW_A; // of one half
const uint TILE_B = (B_ACROSS ? BK : BN) * ROW_B;
const uint TILE = HALVES_A * TILE_A + HALVES_B * TILE_B;
const uint VECTORS = RN * FN / 4; // of a row of sums that a subgroup finishes at a time
const uint SUMS = SUBGROUPS * FM * (VECTORS + 1);
shared uvec4 tile[STAGES * TILE > SUMS ? STAGES * TILE : SUMS];
#include "matrix.glsl"

// Of the blocks of a tile: those of A, then those of B, all of one k and then the next.
const uint UNDOS_A = SPLIT_A ? BM / SIDE * (BK / SIDE) : 0;
const uint UNDOS_B = SPLIT_B ? BN / SIDE * (BK / SIDE) : 0;
const uint UNDOS = SPLIT ? UNDOS_A + UNDOS_B : 1;
shared float undos[STAGES * UNDOS];

uvec4 next_a[LOADS_A * PARTS_A];
uvec4 next_b[LOADS_B * PARTS_B];
float next_undo;

// The line of a tile in which number n of its chunks lies, if threads take chunks line by line. Shared memory takes what
// eight threads store in one go if their words differ modulo eight: not so those of two neighbouring lines of four chunks,
// which are five words apart, but those of lines with four between them. (Tiles have lines in multiples of eight.)
uint line_of(uint n, uint chunks)
{
    uint line = n / chunks;
    return chunks == 4u ? (line & ~7u) | (line & 1u) << 2 | (line >> 1 & 3u) : line;
}

bool has_chunk(uint i, uint chunks) { return chunks % THREADS == 0u || gl_LocalInvocationIndex + i * THREADS < chunks; }

void load_next(uint k);
uint word_a(uint i);
uint word_b(uint i);
#ifdef ADDENDS
const uint STORES = FM * VECTORS / LANES; // of an invocation
uvec4 load_addend4(uint row, uint column);
vec4 with_addend4(vec4 sums, uvec4 addend);
#endif
#ifndef STORE4
void store4(SUM4 sums, uint row, uint column);
#define STORE4 store4
#endif
#ifdef WALK
void store4_in_turn(vec4 sums, uint row, uint column);
#endif

#ifdef SPLIT_HERE

// Chunk i of the thread, of an operand with so many rows or columns and chunks for each thread: (row, chunk along k). Two
// chunks of the thread and those of its 31 neighbours make two blocks, which then have one undo.
uvec2 split_slot(uint i, uint extent, uint loads)
{
    return uvec2(gl_LocalInvocationIndex % extent, gl_LocalInvocationIndex / extent * loads + i);
}

#define SPLIT_PAIR(next, i, to, half_tile, first_undo, extent, loads)                                                  \
    {                                                                                                                  \
        uint most = max(largest8(next[i * 2], next[i * 2 + 1]), largest8(next[i * 2 + 2], next[i * 2 + 3]));           \
        uint exponent = scale_exponent(largest_of_32(most), 0u);                                                       \
        uvec2 s = split_slot(i, extent, loads);                                                                        \
        if (s.x % SIDE == 0u)                                                                                          \
            undos[first_undo + s.y / 2u * (extent / SIDE) + s.x / SIDE] = undo_of(exponent);                           \
        UNROLL for (uint h = 0; h < 2; ++h) {                                                                          \
            uvec4 high, low;                                                                                           \
            split8(next[(i + h) * 2], next[(i + h) * 2 + 1], scale_of(exponent), high, low);                           \
            tile[to(i + h)] = high;                                                                                    \
            tile[to(i + h) + half_tile] = low;                                                                         \
        }                                                                                                              \
    }

#endif

void place_next(uint at, uint undo_at)
{
    uint at_b = at + HALVES_A * TILE_A;
#ifdef SPLIT_HERE
    if (SPLIT) {
#define TO_A(i) at + word_a(i)
#define TO_B(i) at_b + word_b(i)
        UNROLL for (uint i = 0; i < LOADS_A; i += 2)
            SPLIT_PAIR(next_a, i, TO_A, TILE_A, undo_at, BM, LOADS_A)
        UNROLL for (uint i = 0; i < LOADS_B; i += 2)
            SPLIT_PAIR(next_b, i, TO_B, TILE_B, undo_at + UNDOS_A, BN, LOADS_B)
        return;
    }
#endif
    UNROLL for (uint i = 0; i < LOADS_A; ++i) {
        if (!has_chunk(i, CHUNKS_A))
            break;
        uvec4 x = next_a[i * PARTS_A], y = next_a[i * PARTS_A + PARTS_A - 1];
        tile[at + word_a(i)] = A_F32 && !SPLIT_A ? ROUND8(uintBitsToFloat(x), uintBitsToFloat(y)) : x;
        if (SPLIT_A)
            tile[at + TILE_A + word_a(i)] = y;
    }
    UNROLL for (uint i = 0; i < LOADS_B; ++i) {
        if (!has_chunk(i, CHUNKS_B))
            break;
        uvec4 x = next_b[i * PARTS_B], y = next_b[i * PARTS_B + PARTS_B - 1];
        tile[at_b + word_b(i)] = B_F32 && !SPLIT_B ? ROUND8(uintBitsToFloat(x), uintBitsToFloat(y)) : x;
        if (SPLIT_B)
            tile[at_b + TILE_B + word_b(i)] = y;
    }
    if (SPLIT && gl_LocalInvocationIndex < UNDOS)
        undos[undo_at + gl_LocalInvocationIndex] = next_undo;
}

// The sums over k = first .. end - 1, stored.
void multiply_tiles(uint first, uint end)
{
    Sums acc[RM * RN];
    UNROLL for (uint i = 0; i < RM * RN; ++i)
        CLEAR_SUMS(acc[i], i);
    uint subgroup_m = SUBGROUP_INDEX / WN * (BM / WM), subgroup_n = SUBGROUP_INDEX % WN * (BN / WN);

    load_next(first);
    place_next(0, 0);
    barrier();
    uint at = 0, undo_at = 0;
    for (uint k = first; k < end; k += BK) {
        bool more = k + BK < end;
        if (more)
            load_next(k + BK);
        UNROLL for (uint kk = 0; kk < BK; kk += FK) {
            OperandA a[RM * HALVES_A];
            float undo_a[RM];
            UNROLL for (uint i = 0; i < RM * HALVES_A; ++i) {
                uint m = subgroup_m + i % RM * FM, from = at + i / RM * TILE_A;
                LOAD_OPERAND(a[i], from + (A_ACROSS ? kk * ROW_A + m / 8u : m * ROW_A + kk / 8u), ROW_A, A_ACROSS);
            }
            if (OUTSIDE)
                UNROLL for (uint i = 0; i < RM; ++i)
                    undo_a[i] = SPLIT_A ? undos[undo_at + kk / SIDE * (BM / SIDE) + (subgroup_m + i * FM) / SIDE] : 1.0;
            UNROLL for (uint j = 0; j < RN; ++j) {
                OperandB b[HALVES_B];
                uint n = subgroup_n + j * FN;
                UNROLL for (uint h = 0; h < HALVES_B; ++h) {
                    uint from = at + HALVES_A * TILE_A + h * TILE_B;
                    LOAD_OPERAND(b[h], from + (B_ACROSS ? kk * ROW_B + n / 8u : n * ROW_B + kk / 8u), ROW_B, !B_ACROSS);
                }
                float undo_b = SPLIT_B ? undos[undo_at + UNDOS_A + kk / SIDE * (BN / SIDE) + n / SIDE] : 1.0;
                UNROLL for (uint i = 0; i < RM; ++i) {
                    if (OUTSIDE) {
                        Sums few;
                        CLEAR_SUMS(few, RM * RN);
                        if (SPLIT_A)
                            MULTIPLY(a[i + RM * (HALVES_A - 1)], b[0], few);
                        if (SPLIT_B)
                            MULTIPLY(a[i], b[HALVES_B - 1], few);
                        MULTIPLY(a[i], b[0], few);
                        ADD_SCALED(acc[i * RN + j], few, undo_a[i], undo_b);
                    } else {
                        MULTIPLY(a[i], b[0], acc[i * RN + j]);
                    }
                }
            }
        }
        if (STAGES == 1)
            barrier();
        if (STAGES > 1) {
            at = TILE - at;
            undo_at = UNDOS - undo_at;
        }
        if (more) {
            place_next(at, undo_at);
            barrier();
        }
    }

    // A fragment's elements lie in unknown lanes, so a row of fragments goes through shared memory and from there in
    // rows to the result. STORE4 may call what calls the activation, and no deeper: NVIDIA's compiler (580) inlines calls to a
    // depth alone, and one that stays in this loop sends all fragments to memory. Everything on matrix units then takes
    // eight times as long.
    if (STAGES > 1)
        barrier();
    uint lane = SUBGROUP_LANE, base = SUBGROUP_INDEX * FM * (VECTORS + 1);
    UNROLL for (uint i = 0; i < RM; ++i) {
        UNROLL for (uint j = 0; j < RN; ++j)
            STORE_SUMS(acc[i * RN + j], base + j * FN / 4, VECTORS + 1);
        SUBGROUP_BARRIER;
        uint first_row = subgroup_m + i * FM;
#ifdef ADDENDS
        if (HAS_ADDENDS) { // all at once: a load behind a store waits for it
            uvec4 addends[STORES];
            UNROLL for (uint s = 0; s < STORES; ++s) {
                uint v = lane + s * LANES;
                addends[s] = load_addend4(first_row + v / VECTORS, subgroup_n + v % VECTORS * 4u);
            }
            UNROLL for (uint s = 0; s < STORES; ++s) {
                uint v = lane + s * LANES, at = base + v / VECTORS * (VECTORS + 1) + v % VECTORS;
                tile[at] = SUM_BITS(with_addend4(SUM4_OF(tile[at]), addends[s]));
            }
        }
#endif
#ifdef WALK
        for (uint v = lane; v < FM / WALK * VECTORS && WALK > 1u; v += LANES) {
            uint row = v / VECTORS * WALK, column = v % VECTORS;
            for (uint r = row; r < row + WALK; ++r)
                store4_in_turn(SUM4_OF(tile[base + r * (VECTORS + 1) + column]), first_row + r, subgroup_n + column * 4u);
        }
        if (WALK == 1u)
#endif
            for (uint v = lane; v < FM * VECTORS; v += LANES) {
                uint row = v / VECTORS, column = v % VECTORS;
                STORE4(SUM4_OF(tile[base + row * (VECTORS + 1) + column]), first_row + row, subgroup_n + column * 4u);
            }
        SUBGROUP_BARRIER;
    }
}

#endif
