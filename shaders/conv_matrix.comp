// kernel: conv_matrix needs=coopmat,fp16,subgroup glslang=15
// kernel: conv_matrix_emulated -DEMULATED=1
#version 450
#extension GL_GOOGLE_include_directive : require
#ifndef EMULATED
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#define UNROLL [[unroll]]
#else
#define UNROLL [[dont_unroll]] // software devices compile it
#endif
#include "common.glsl"
#include "activation.glsl"
#include "conv_index.glsl"
#include "conv_gemm.push.h"

// conv_gemm.comp's problem, forward and data gradient, on matrix units (matrix_loop.glsl): contiguous float32 in memory,
// halves in shared memory. The source matrix lies there along K, so that a thread makes whole chunks of one column: eight
// loads, each of which the 32 threads of a warp make for neighbouring pixels under the same k.
//
// Floor: HALVES 2: six m k columns operations, else two, at the rate of subgroup matrices, or the bytes of X, W and Y once.
layout(constant_id = 3) const uint BM = 128;
layout(constant_id = 4) const uint BN = 128;
layout(constant_id = 5) const uint BK = 32;
layout(constant_id = 6) const uint WM = 2;
layout(constant_id = 7) const uint WN = 4;
layout(constant_id = 8) const uint KH = 1;
layout(constant_id = 9) const uint KW = 1;
layout(constant_id = 10) const uint STRIDE_H = 1;
layout(constant_id = 11) const uint STRIDE_W = 1;
layout(constant_id = 12) const uint DILATION_H = 1;
layout(constant_id = 13) const uint DILATION_W = 1;
layout(constant_id = 14) const bool FORWARD = true;
layout(constant_id = 15) const bool CLASSES = false;
layout(constant_id = 16) const uint THREADS = 256;
layout(constant_id = 17) const bool WIDE = false;    // four columns of a row are stored at once
layout(constant_id = 18) const bool W_WIDE = false;  // W is read along k by vectors
layout(constant_id = 19) const uint EPILOGUE = 0;    // bit 0: bias, 1: residual, 2: none, these are partial sums
layout(constant_id = 20) const uint ACTIVATION = 0;
layout(constant_id = 21) const uint FM = 16; // the device's fragment
layout(constant_id = 22) const uint FN = 16;
layout(constant_id = 23) const bool POINT = false; // one tap, no padding, no classes
layout(constant_id = 24) const bool SCALED = false;
layout(constant_id = 25) const uint FK = 16;
layout(constant_id = 26) const uint STAGES = 1;
layout(constant_id = 27) const uint HALVES = 1; // of an element: 2 is precision high

const uint COLUMNS = 1;
const bool A_F32 = true;
const bool B_F32 = true;
const bool A_ACROSS = false;
const bool B_ACROSS = false;
#define SPLIT_HERE
#include "conv_gather.glsl"
#include "matrix_loop.glsl"

// Chunk i of the thread: (row, chunk of it), and (column, chunk of it). The threads of a warp take the same k of neighbouring
// rows and columns; those of a thread do not depend on i, for THREADS is a multiple of BM and BN.
uvec2 slot_a(uint i) { return split_slot(i, BM, LOADS_A); }
uvec2 slot_b(uint i) { return split_slot(i, BN, LOADS_B); }
uint word_a(uint i) { return slot_a(i).x * ROW_A + slot_a(i).y; }
uint word_b(uint i) { return slot_b(i).x * ROW_B + slot_b(i).y; }

// Two neighbouring entries of the table: offset in the source and tap of each.
uvec4 entries(uint k) { return U32x4(push.table).v[(table_first + k) / 2u]; }

uint w_offset(uint k, uint entry)
{
    if (FORWARD)
        return k;
    if (POINT)
        return k * push.w_channel;
    uint tap = TAP_BITS ? entry & 31u : (entry >> 5 & 31u) * KW + (entry & 31u);
    return (entry >> 10) * push.w_channel + tap;
}

// Rows past the end are computed and dropped; k past the end must give 0, for 0 times another operand's NaN is NaN.
void load_a(uint k_tile)
{
    UNROLL for (uint i = 0; i < LOADS_A; ++i) {
        uvec2 s = slot_a(i);
        uint row = part_group * push.w_group + min(part_m + s.x, push.m - 1u) * push.w_row, k = k_tile + s.y * 8u;
        UNROLL for (uint h = 0; h < 2; ++h) {
            uvec4 x = uvec4(0u);
            if (W_WIDE) {
                if (k + h * 4u < k_end)
                    x = U32x4(push.w).v[(row + k) / 4u + h];
            } else {
                UNROLL for (uint j = 0; j < 4; ++j) {
                    uint at = k + h * 4u + j, entry = 0u;
                    if (!FORWARD && !POINT)
                        entry = U32x2(push.table).v[table_first + at].y;
                    if (at < k_end)
                        x[j] = U32(push.w).v[row + w_offset(at, entry)];
                }
            }
            next_a[i * 2 + h] = x;
        }
    }
}

void load_b(uint k_tile)
{
    uint plane = push.source_h * push.source_w;
    UNROLL for (uint i = 0; i < LOADS_B; ++i) {
        uint k = k_tile + slot_b(i).y * 8u;
        UNROLL for (uint j = 0; j < 8; j += 2) {
            uvec2 x = uvec2(0u);
            if (POINT) {
                UNROLL for (uint e = 0; e < 2; ++e)
                    if (k + j + e < k_end && mask[0] != 0u) {
                        float y = F32(push.source).v[base[0] + (k + j + e) * plane];
                        x[e] = floatBitsToUint(SCALED ? y * F32(push.table).v[scale_base[0] + k + j + e] : y);
                    }
            } else {
                uvec4 two = entries(k + j);
                if (tap_inside(mask[0], two.y))
                    x.x = U32(push.source).v[base[0] + two.x];
                if (tap_inside(mask[0], two.w))
                    x.y = U32(push.source).v[base[0] + two.z];
            }
            next_b[i * 2 + j / 4][j % 4] = x.x;
            next_b[i * 2 + j / 4][j % 4 + 1] = x.y;
        }
    }
}

void load_next(uint k)
{
    load_a(k);
    load_b(k);
}

void store4(vec4 sums, uint row, uint column)
{
    uint m = part_m + row, plane = push.out_h * push.out_w;
    if (m >= push.m)
        return;
    uint partial = part_split * push.images * push.groups * push.m * plane; // 0 without splits
    UNROLL for (uint c = 0; c < (WIDE ? 1u : 4u); ++c) {
        Pixel p = find_pixel(part_column + column + c);
        if (p.image >= push.images)
            continue;
        uint index = partial + out_index(p, m), channel = part_group * push.m + m;
        if (WIDE)
            store_wide(sums, index, channel);
        else
            store_one(sums[c], index, channel);
    }
}

void main()
{
    if (!find_part())
        return;
    find_source(0u, part_column + gl_LocalInvocationIndex % BN);
    multiply_tiles(k_first, k_end);
}
