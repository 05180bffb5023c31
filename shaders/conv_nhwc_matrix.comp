// kernel: conv_nhwc_matrix needs=coopmat,fp16,subgroup glslang=15
// kernel: conv_nhwc_matrix_emulated -DEMULATED=1
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
#include "octet.glsl"
#include "conv_nhwc.push.h"

// Convolution in HK_LAYOUT_NHWC8 on matrix units (matrix_loop.glsl): float16 operands, float32 sums. An implicit GEMM
//
//     y[pixel][output] = sum over k of x[k under pixel][...] w[output][k],   k = (tap, channel)
//
// whose operands are loaded as octets of channels, 16 bytes each, without any rearranging: k is innermost in both.
//
// Floor: 2 pixels outputs k operations at the rate of subgroup matrices, or the bytes of x, w, y once.
layout(constant_id = 3) const uint BM = 128; // pixels
layout(constant_id = 4) const uint BN = 128; // outputs
layout(constant_id = 5) const uint BK = 32;  // channels of taps
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
layout(constant_id = 18) const uint EPILOGUE = 0; // bit 0: bias, bit 1: residual, bit 2: none, these are partial sums
layout(constant_id = 19) const uint ACTIVATION = 0;
layout(constant_id = 20) const bool SCALED = false; // channels of x have factors; windows of one tap
#include "conv_nhwc.glsl"

const uint STAGES = 1;
const uint HALVES = 1;
const bool A_F32 = false;
const bool B_F32 = false;
const bool A_ACROSS = false;
const bool B_ACROSS = false;
#include "matrix_loop.glsl"

const uint OCTETS = BK / 8;         // of a row of a tile
const uint STEP = THREADS / OCTETS; // rows between a thread's chunks
const bool POINT = KH * KW == 1u;

uint first_pixel, first_output, split, k_end; // k_end in octets
uint base[LOADS_A];                           // of the thread's pixels
uint masks[LOADS_A];                          // valid rows of taps, and columns << 16
uint images[SCALED ? LOADS_A : 1];

void find_pixels()
{
    UNROLL for (uint i = 0; i < LOADS_A; ++i) {
        uint at = first_pixel + gl_LocalInvocationIndex / OCTETS + i * STEP;
        uint line = at / push.y_w, image = line / push.y_h;
        int y = int((line - image * push.y_h) * STRIDE_H) - int(push.pads & 0xffffu);
        int x = int((at - line * push.y_w) * STRIDE_W) - int(push.pads >> 16);
        base[i] = ((image * push.x_h + uint(y)) * push.x_w + uint(x)) * push.octets_in;
        if (SCALED)
            images[i] = image;
        masks[i] = 0u;
        for (uint r = 0u; r < KH; ++r)
            masks[i] |= at < push.pixels && within(y + int(r * DILATION_H), push.x_h) ? 1u << r : 0u;
        for (uint s = 0u; s < KW; ++s)
            masks[i] |= within(x + int(s * DILATION_W), push.x_w) ? 0x10000u << s : 0u;
    }
}

uvec4 scaled_halves(uint from, uint image, uint octet)
{
    Octet x = scaled(load_octet(push.x, from, true), image, octet);
    return uvec4(pack_half_octet(x.low), pack_half_octet(x.high));
}

void load_next(uint k)
{
    uint at = k / 8u + gl_LocalInvocationIndex % OCTETS, row_octets = KH * KW * push.octets_in;
    uvec2 entry = POINT ? uvec2(at, 0u) : uvec2(0u);
    if (!POINT && at < k_end)
        entry = U32x2(push.table).v[at];
    UNROLL for (uint i = 0; i < LOADS_A; ++i) {
        next_a[i] = uvec4(0u);
        if (at < k_end && ((masks[i] & 0xffffu) >> (entry.y >> 5) & masks[i] >> 16 >> (entry.y & 31u) & 1u) != 0u)
            next_a[i] = SCALED ? scaled_halves(base[i] + at, images[i], at) : U32x4(push.x).v[base[i] + entry.x];
    }
    UNROLL for (uint i = 0; i < LOADS_B; ++i) {
        uint o = first_output + gl_LocalInvocationIndex / OCTETS + i * STEP;
        next_b[i] = uvec4(0u);
        if (at < k_end && o < push.outputs)
            next_b[i] = U32x4(push.w).v[o * row_octets + at];
    }
}

uint word(uint i) { return (gl_LocalInvocationIndex / OCTETS + i * STEP) * ROW_A + gl_LocalInvocationIndex % OCTETS; }
uint word_a(uint i) { return word(i); }
uint word_b(uint i) { return word(i); }

void store4(vec4 sums, uint row, uint column)
{
    uint pixel = first_pixel + row, channel = first_output + column, width = push.octets_out * 2u;
    if (pixel >= push.pixels || channel >= push.octets_out * 8u)
        return;
    if ((EPILOGUE & 4u) != 0u) {
        F32x4(push.y).v[(split * push.pixels + pixel) * width + channel / 4u] = sums;
    } else {
        U32x2(push.y).v[pixel * width + channel / 4u] = pack_half_octet(finish4(sums, pixel, channel, true));
    }
}

void main()
{
    uint tiles_n = (push.octets_out * 8u + BN - 1u) / BN, tiles_m = (push.pixels + BM - 1u) / BM;
    uint g = linear_group(), tile_m = g / tiles_n;
    first_output = (g - tile_m * tiles_n) * BN;
    split = tile_m / tiles_m;
    first_pixel = (tile_m - split * tiles_m) * BM;
    if (split >= push.splits)
        return;
    uint k = KH * KW * push.octets_in * 8u, end = min((split + 1u) * push.k_split, k);
    k_end = end / 8u;
    find_pixels();
    multiply_tiles(split * push.k_split, end);
}
