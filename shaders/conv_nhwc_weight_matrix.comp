// kernel: conv_nhwc_weight_matrix needs=coopmat,fp16,subgroup glslang=15
// kernel: conv_nhwc_weight_matrix_emulated -DEMULATED=1
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
#include "conv_nhwc_weight.push.h"

// Weight gradient of a convolution in HK_LAYOUT_NHWC8 on matrix units (matrix_loop.glsl): float16 operands, float32 sums.
//
//     dW[output][n] = sum over pixels of dY[pixel][output] X[pixel under tap][channel]      n: (tap, channel)
//
// Both operands are read as octets of channels, 16 bytes each, and lie in shared memory as they come, pixel by pixel: across
// the sum. A thread's octet is always the same, and with it the output or the tap and channel; only its pixels change.
//
// BIAS: the workgroups of the first columns also sum dY, which they read anyway.
//
// Floor: 2 outputs n pixels operations at the rate of subgroup matrices, or the bytes of X and dY once.
layout(constant_id = 3) const uint BM = 128; // outputs
layout(constant_id = 4) const uint BN = 128; // channels of taps
layout(constant_id = 5) const uint BK = 32;  // pixels
layout(constant_id = 6) const uint WM = 2;
layout(constant_id = 7) const uint WN = 2;
layout(constant_id = 8) const uint THREADS = 128;
layout(constant_id = 9) const uint FM = 16; // the device's fragment
layout(constant_id = 10) const uint FN = 16;
layout(constant_id = 11) const uint FK = 16;
layout(constant_id = 12) const uint KH = 1;
layout(constant_id = 13) const uint KW = 1;
layout(constant_id = 14) const uint STRIDE_H = 1;
layout(constant_id = 15) const uint STRIDE_W = 1;
layout(constant_id = 16) const uint DILATION_H = 1;
layout(constant_id = 17) const uint DILATION_W = 1;
layout(constant_id = 18) const bool BIAS = false;
layout(constant_id = 19) const bool SAME = false; // single taps, each over the pixel of its number

const uint STAGES = 1;
const uint HALVES = 1;
const bool A_F32 = false;
const bool B_F32 = false;
const bool A_ACROSS = true;
const bool B_ACROSS = true;
#include "matrix_loop.glsl"

const uint OCTETS_A = BM / 8; // of a pixel of a tile; THREADS is a multiple
const uint OCTETS_B = BN / 8;

uint first_output, first_column, split, k_end;
uint octet_a; // the thread's, octets_out or more: none
uint octet_b; // channels,
ivec2 tap_at; // and where the tap lies from the corner of its window
bool has_b;
vec4 bias_sums[BIAS ? 2 : 1];

uint pixel_a(uint i) { return (gl_LocalInvocationIndex + i * THREADS) / OCTETS_A; }
uint pixel_b(uint i) { return (gl_LocalInvocationIndex + i * THREADS) / OCTETS_B; }
uint word_a(uint i) { return pixel_a(i) * ROW_A + gl_LocalInvocationIndex % OCTETS_A; }
uint word_b(uint i) { return pixel_b(i) * ROW_B + gl_LocalInvocationIndex % OCTETS_B; }

void find_octets()
{
    octet_a = first_output / 8u + gl_LocalInvocationIndex % OCTETS_A;
    uint n = first_column / 8u + gl_LocalInvocationIndex % OCTETS_B, tap = n / push.octets_in, r = tap / KW;
    octet_b = n - tap * push.octets_in;
    has_b = tap < KH * KW;
    tap_at = ivec2(r * DILATION_H, (tap - r * KW) * DILATION_W) - ivec2(push.pads & 0xffffu, push.pads >> 16);
}

uvec4 load_x(uint pixel)
{
    uint from = pixel;
    bool inside = has_b && pixel < k_end;
    if (!SAME) {
        uint line = divide_by(pixel, push.line_magic, push.line_shift);
        uint image = divide_by(line, push.image_magic, push.image_shift);
        int y = int((line - image * push.y_h) * STRIDE_H) + tap_at.x;
        int x = int((pixel - line * push.y_w) * STRIDE_W) + tap_at.y;
        inside = inside && within(y, push.x_h) && within(x, push.x_w);
        from = (image * push.x_h + uint(y)) * push.x_w + uint(x);
    }
    uvec4 octet = uvec4(0u);
    if (inside)
        octet = U32x4(push.x).v[from * push.octets_in + octet_b];
    return octet;
}

void load_next(uint k)
{
    UNROLL for (uint i = 0; i < LOADS_A; ++i) {
        uint pixel = k + pixel_a(i);
        next_a[i] = uvec4(0u);
        if (has_chunk(i, CHUNKS_A) && octet_a < push.octets_out && pixel < k_end)
            next_a[i] = U32x4(push.dy).v[pixel * push.octets_out + octet_a];
        if (BIAS) {
            bias_sums[0] += vec4(unpackHalf2x16(next_a[i].x), unpackHalf2x16(next_a[i].y));
            bias_sums[BIAS ? 1 : 0] += vec4(unpackHalf2x16(next_a[i].z), unpackHalf2x16(next_a[i].w));
        }
    }
    UNROLL for (uint i = 0; i < LOADS_B; ++i) {
        next_b[i] = uvec4(0u);
        if (has_chunk(i, CHUNKS_B))
            next_b[i] = load_x(k + pixel_b(i));
    }
}

void store4(vec4 sums, uint row, uint column)
{
    uint output_channel = first_output + row, n = first_column + column, columns = KH * KW * push.octets_in * 8u;
    if (output_channel < push.outputs && n < columns)
        F32x4(push.dw).v[(split * push.split_stride + output_channel * columns + n) / 4u] = sums;
}

// An octet's sums lie in the threads that have it.
void store_bias()
{
    barrier();
    UNROLL for (uint h = 0; h < 2; ++h)
        tile[gl_LocalInvocationIndex * 2u + h] = floatBitsToUint(bias_sums[BIAS ? h : 0]);
    barrier();
    for (uint row = gl_LocalInvocationIndex; row < BM; row += THREADS) {
        float sum = 0.0;
        for (uint t = row / 8u; t < THREADS; t += OCTETS_A)
            sum += uintBitsToFloat(tile[t * 2u + row / 4u % 2u][row % 4u]);
        if (first_output + row < push.outputs)
            F32(push.db).v[split * push.split_stride + first_output + row] = sum;
    }
}

void main()
{
    uint g = linear_group(), rest = g / push.tiles_m;
    first_output = (g - rest * push.tiles_m) * BM;
    split = rest / push.tiles_n;
    first_column = (rest - split * push.tiles_n) * BN;
    if (split >= push.splits)
        return;
    uint first = split * push.k_split;
    k_end = min(first + push.k_split, push.pixels);
    find_octets();
    bias_sums[0] = vec4(0.0);
    bias_sums[BIAS ? 1 : 0] = vec4(0.0);
    multiply_tiles(first, k_end);
    if (BIAS && first_column == 0u)
        store_bias();
}
