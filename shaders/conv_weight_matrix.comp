// kernel: conv_weight_matrix needs=coopmat,fp16,subgroup glslang=15
// kernel: conv_weight_matrix_emulated -DEMULATED=1
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
#include "conv_index.glsl"
#include "conv_weight.push.h"

// conv_weight.comp's problem on matrix units (matrix_loop.glsl): contiguous float32 in memory, halves in shared memory.
//
//     dW[m][n] = sum over pixels of dY[m][pixel] X[n under pixel]       n: (input channel, tap)
//
// Pixels follow each other in memory, and their order in the sum is free: neighbouring threads take neighbouring pixels of
// one row, so a chunk of eight halves is not eight neighbours. With FOURS it is two groups of four pixels, which are read
// at once; that needs single taps without padding and planes of a multiple of four.
//
// BIAS: the workgroups of the first column tile also sum dY per channel, which they read anyway.
//
// Floor: two m n pixels operations at the rate of subgroup matrices, or the bytes of X and dY once.
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
layout(constant_id = 14) const bool BIAS = false;
layout(constant_id = 15) const bool FOURS = false;
layout(constant_id = 16) const uint THREADS = 256;
layout(constant_id = 17) const uint FM = 16; // the device's fragment
layout(constant_id = 18) const uint FN = 16;
layout(constant_id = 19) const uint FK = 16;

const uint HALVES = 1;
const uint STAGES = 1;
const bool A_F32 = true;
const bool B_F32 = true;
const bool A_ACROSS = false;
const bool B_ACROSS = false;
#include "matrix_loop.glsl"

const uint CHUNKS = BK / 8;          // of a row; THREADS is a multiple, so that a thread's is always the same
const uint STEP = THREADS / CHUNKS;  // rows between a thread's chunks
const uint NEAR = FOURS ? 4 : 1;     // neighbouring pixels of a chunk
const uint STRIDE = CHUNKS * NEAR;   // pixels from a chunk's group to its next

uint part_m; // first row and column, counted within the group
uint part_n;
uint part_group;
uint part_split;
uint k_last; // end of the split's pixels

// The thread's pixel that is loaded next.
uint pixel;
uint image;
uint oy; // with FOURS: the place in the plane
uint ox;

float bias_sum[BIAS ? LOADS_A : 1];

uint chunk() { return gl_LocalInvocationIndex % CHUNKS; }
uint slot(uint i) { return gl_LocalInvocationIndex / CHUNKS + i * STEP; }
uint word_a(uint i) { return slot(i) * ROW_A + chunk(); }
uint word_b(uint i) { return slot(i) * ROW_B + chunk(); }

void locate(uint at)
{
    uint plane = push.y_h * push.y_w;
    pixel = at;
    image = at / plane;
    oy = at - image * plane;
    ox = 0u;
    if (!FOURS) {
        ox = oy % push.y_w;
        oy /= push.y_w;
    }
}

// To the chunk's next group, without a division.
void advance()
{
    pixel += STRIDE;
    if (FOURS) {
        oy += STRIDE;
        for (; oy >= push.y_h * push.y_w; oy -= push.y_h * push.y_w)
            ++image;
        return;
    }
    ox += STRIDE;
    for (; ox >= push.y_w; ox -= push.y_w)
        ++oy;
    for (; oy >= push.y_h; oy -= push.y_h)
        ++image;
}

// Rows and columns past the end are computed and dropped; pixels past the end must give 0 in both.
uint row_of(uint i) { return part_group * push.m + min(part_m + slot(i), push.m - 1u); }
uint column_of(uint i) { return min(part_n + slot(i), push.n - 1u); }

void load_vectors()
{
    uint plane = push.y_h * push.y_w;
    UNROLL for (uint h = 0; h < 2; ++h) {
        bool inside = pixel < k_last;
        UNROLL for (uint i = 0; i < LOADS_A; ++i) {
            uvec4 y = uvec4(0u);
            if (inside)
                y = U32x4(push.dy).v[((image * push.m * push.groups + row_of(i)) * plane + oy) / 4u];
            next_a[i * 2 + h] = y;
        }
        UNROLL for (uint i = 0; i < LOADS_B; ++i) {
            uvec4 x = uvec4(0u);
            if (inside)
                x = U32x4(push.x).v[((image * push.x_channels + part_group * push.n + column_of(i)) * plane + oy) / 4u];
            next_b[i * 2 + h] = x;
        }
        advance();
    }
}

void load_pixels()
{
    uint plane = push.y_h * push.y_w, x_plane = push.x_h * push.x_w;
    UNROLL for (uint j = 0; j < 8; ++j) {
        bool inside = pixel < k_last;
        uint from = image * push.m * push.groups * plane + oy * push.y_w + ox;
        UNROLL for (uint i = 0; i < LOADS_A; ++i) {
            uint y = 0u;
            if (inside)
                y = U32(push.dy).v[from + row_of(i) * plane];
            next_a[i * 2 + j / 4][j % 4] = y;
        }
        int top = int(oy * STRIDE_H) - int(push.pads & 0xffffu), left = int(ox * STRIDE_W) - int(push.pads >> 16);
        uint base = (image * push.x_channels + part_group * (push.n / (KH * KW))) * x_plane;
        UNROLL for (uint i = 0; i < LOADS_B; ++i) {
            uint n = column_of(i), c = n / (KH * KW), tap = n - c * (KH * KW), r = tap / KW, s = tap - r * KW, x = 0u;
            int iy = top + int(r * DILATION_H), ix = left + int(s * DILATION_W);
            if (inside && within(iy, push.x_h) && within(ix, push.x_w))
                x = U32(push.x).v[base + c * x_plane + uint(iy) * push.x_w + uint(ix)];
            next_b[i * 2 + j / 4][j % 4] = x;
        }
        advance();
    }
}

// Tiles come one after the other: the thread's pixel is where the last one left it.
void load_next(uint k)
{
    if (FOURS)
        load_vectors();
    else
        load_pixels();
    if (BIAS) {
        UNROLL for (uint i = 0; i < LOADS_A; ++i) {
            vec4 sum = uintBitsToFloat(next_a[i * 2]) + uintBitsToFloat(next_a[i * 2 + 1]);
            bias_sum[i] += (sum.x + sum.y) + (sum.z + sum.w);
        }
    }
}

void store4(vec4 sums, uint row, uint column)
{
    uint m = part_m + row, n = part_n + column, at = part_split * push.split_stride + (part_group * push.m + m) * push.n + n;
    if (m >= push.m)
        return;
    UNROLL for (uint c = 0; c < 4u; ++c)
        if (n + c < push.n)
            F32(push.dw).v[at + c] = sums[c];
}

// A row's sums lie in the threads that have its chunks.
void store_bias()
{
    barrier();
    UNROLL for (uint i = 0; i < LOADS_A; ++i)
        tile[slot(i) * ROW_A + chunk() / 4u][chunk() % 4u] = floatBitsToUint(bias_sum[i]);
    barrier();
    for (uint row = gl_LocalInvocationIndex; row < BM; row += THREADS) {
        float sum = 0.0;
        UNROLL for (uint q = 0; q < CHUNKS; ++q)
            sum += uintBitsToFloat(tile[row * ROW_A + q / 4u][q % 4u]);
        if (part_m + row < push.m)
            F32(push.db).v[part_split * push.split_stride + part_group * push.m + part_m + row] = sum;
    }
}

void main()
{
    uint g = linear_group(), rest = g / push.tiles_m;
    part_m = (g - rest * push.tiles_m) * BM;
    part_n = rest % push.tiles_n * BN;
    rest /= push.tiles_n;
    part_split = rest / push.groups;
    part_group = rest - part_split * push.groups;
    if (part_split >= push.splits)
        return;
    uint first = part_split * push.k_split;
    k_last = min(first + push.k_split, push.k);
    locate(first + chunk() * NEAR);
    if (BIAS) {
        UNROLL for (uint i = 0; i < LOADS_A; ++i)
            bias_sum[i] = 0.0;
    }
    multiply_tiles(first, k_last);
    if (BIAS && part_n == 0u)
        store_bias();
}
