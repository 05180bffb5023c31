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
// Without FORWARD it is the data gradient: x is dY, y is dX and the outputs are dX's channels. With strides dX's pixels
// fall into classes, by what is left when their places are divided: all pixels of a class see the same taps, and only
// those are summed. The table then begins with a record of eight words for each class.
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
layout(constant_id = 18) const uint EPILOGUE = 0; // bit 0: bias, 1: residual, 2: none, these are partial sums, 3: gate
layout(constant_id = 19) const uint ACTIVATION = 0;
layout(constant_id = 20) const bool SCALED = false; // channels of x have factors; windows of one tap
layout(constant_id = 21) const bool FORWARD = true;
layout(constant_id = 22) const bool CLASSES = false;
#include "conv_nhwc.glsl"

const uint STAGES = 1;
const uint HALVES = 1;
const bool A_F32 = false;
const bool B_F32 = false;
const bool A_ACROSS = false;
const bool B_ACROSS = false;
#define ADDENDS
const bool GATED = (EPILOGUE & 8u) != 0u;
#define HAS_ADDENDS ((EPILOGUE & 4u) == 0u && (EPILOGUE & 11u) != 0u)
#include "matrix_loop.glsl"

const uint OCTETS = BK / 8;         // of a row of a tile
const uint STEP = THREADS / OCTETS; // rows between a thread's chunks: a multiple of eight
const bool POINT = KH * KW == 1u && !CLASSES;

uint first_pixel, first_output, split, k_end; // k_end in octets
uint table_first;                             // entry
uvec2 plane;                                  // of the class: rows and columns,
uvec2 origin;                                 // of which the first is this one of y
uint base[LOADS_A];                           // of the thread's pixels
uint masks[LOADS_A];                          // valid rows of taps, and columns << 16
uint images[SCALED ? LOADS_A : 1];

// Image, row and column, counted within the class.
uvec3 place_of(uint at)
{
    uint line = at / plane.y, image = line / plane.x;
    return uvec3(image, line - image * plane.x, at - line * plane.y);
}

uvec2 row_and_column(uvec3 place)
{
    return CLASSES ? origin + place.yz * uvec2(STRIDE_H, STRIDE_W) : place.yz;
}

// Of a tile: the thread's row, of its chunk i.
uint row(uint i) { return line_of(gl_LocalInvocationIndex, OCTETS) + i * STEP; }

void find_pixels()
{
    uvec2 pads = uvec2(push.pads & 0xffffu, push.pads >> 16);
    UNROLL for (uint i = 0; i < LOADS_A; ++i) {
        uvec3 place = place_of(first_pixel + row(i));
        uvec2 at = row_and_column(place), from = place.yz; // the pixel of x from which the table counts
        if (FORWARD)
            from = at * uvec2(STRIDE_H, STRIDE_W) - pads;
        else if (POINT)
            from = at + pads;
        base[i] = ((place.x * push.x_h + from.x) * push.x_w + from.y) * push.octets_in;
        if (SCALED)
            images[i] = place.x;
        masks[i] = 0u;
        for (uint r = 0u; r < KH; ++r) {
            int y = tap_source(FORWARD, int(at.x), r, STRIDE_H, DILATION_H, pads.x);
            masks[i] |= place.x < push.images && within(y, push.x_h) ? 1u << r : 0u;
        }
        for (uint s = 0u; s < KW; ++s) {
            int x = tap_source(FORWARD, int(at.y), s, STRIDE_W, DILATION_W, pads.y);
            masks[i] |= within(x, push.x_w) ? 0x10000u << s : 0u;
        }
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
        entry = U32x2(push.table).v[table_first + at];
    uint w_octet = CLASSES ? entry.y >> 10 : at, row_tap = entry.y >> 5 & 31u, column_tap = entry.y & 31u;
    UNROLL for (uint i = 0; i < LOADS_A; ++i) {
        next_a[i] = uvec4(0u);
        if (at < k_end && ((masks[i] & 0xffffu) >> row_tap & masks[i] >> 16 >> column_tap & 1u) != 0u)
            next_a[i] = SCALED ? scaled_halves(base[i] + at, images[i], at) : U32x4(push.x).v[base[i] + entry.x];
    }
    UNROLL for (uint i = 0; i < LOADS_B; ++i) {
        uint o = first_output + row(i);
        next_b[i] = uvec4(0u);
        if (at < k_end && o < push.outputs)
            next_b[i] = U32x4(push.w).v[o * row_octets + w_octet];
    }
}

uint word(uint i) { return row(i) * ROW_A + gl_LocalInvocationIndex % OCTETS; }
uint word_a(uint i) { return word(i); }
uint word_b(uint i) { return word(i); }

// The pixel and the channel of four sums; false: they are outside.
bool find_place(uint row, uint column, out uint pixel, out uint channel)
{
    pixel = first_pixel + row;
    channel = first_output + column;
    if (CLASSES) {
        uvec3 place = place_of(pixel);
        uvec2 at = row_and_column(place);
        pixel = place.x < push.images ? (place.x * push.y_h + at.x) * push.y_w + at.y : push.pixels;
    }
    return pixel < push.pixels && channel < push.octets_out * 8u;
}

// With a gate residual and gate as they are stored, else the sum of bias and residual.
uvec4 load_addend4(uint row, uint column)
{
    uint pixel, channel;
    if (!find_place(row, column, pixel, channel))
        return uvec4(0u);
    uint at = pixel * push.octets_out * 2u + channel / 4u;
    uvec2 residual = (EPILOGUE & 2u) != 0u ? U32x2(push.residual).v[at] : uvec2(0u);
    if (GATED)
        return uvec4(residual, U32x2(push.scale).v[at]);
    vec4 y = vec4(unpackHalf2x16(residual.x), unpackHalf2x16(residual.y));
    if ((EPILOGUE & 1u) != 0u)
        UNROLL for (uint o = 0; o < 4; ++o)
            y[o] += F32(push.bias).v[min(channel + o, push.outputs - 1u)];
    return floatBitsToUint(y);
}

vec4 with_addend4(vec4 sums, uvec4 addend)
{
    if (!GATED)
        return sums + uintBitsToFloat(addend);
    vec4 y = sums + vec4(unpackHalf2x16(addend.x), unpackHalf2x16(addend.y));
    vec4 gate = vec4(unpackHalf2x16(addend.z), unpackHalf2x16(addend.w));
    return mix(vec4(0.0), y, greaterThan(gate, vec4(0.0)));
}

void store4(vec4 sums, uint row, uint column)
{
    uint pixel, channel, width = push.octets_out * 2u;
    if (!find_place(row, column, pixel, channel))
        return;
    if ((EPILOGUE & 4u) != 0u) {
        F32x4(push.y).v[(split * push.pixels + pixel) * width + channel / 4u] = sums;
        return;
    }
    vec4 y = activate(ACTIVATION, sums, push.alpha, push.beta);
    UNROLL for (uint o = 0; o < 4; ++o)
        y[o] = channel + o < push.outputs ? y[o] : 0.0; // the layout's padding
    U32x2(push.y).v[pixel * width + channel / 4u] = pack_half_octet(y);
}

void main()
{
    uint classes = CLASSES ? STRIDE_H * STRIDE_W : 1u, tiles_n = (push.octets_out * 8u + BN - 1u) / BN;
    uint most = CLASSES ? push.images * ((push.y_h + STRIDE_H - 1u) / STRIDE_H) * ((push.y_w + STRIDE_W - 1u) / STRIDE_W)
                        : push.pixels;
    uint tiles_m = (most + BM - 1u) / BM * classes, g = linear_group(), tile_m = g / tiles_n;
    first_output = (g - tile_m * tiles_n) * BN;
    split = tile_m / tiles_m;
    tile_m -= split * tiles_m;
    if (split >= push.splits)
        return;
    uint k = KH * KW * push.octets_in;
    table_first = 0u;
    plane = uvec2(push.y_h, push.y_w);
    origin = uvec2(0u);
    if (CLASSES) { // they take turns, so that those whose pixels share a line are written at about the same time
        uint record = tile_m % classes * 8u;
        tile_m /= classes;
        table_first = U32(push.table).v[record];
        k = U32(push.table).v[record + 1u];
        plane = uvec2(U32(push.table).v[record + 2u], U32(push.table).v[record + 3u]);
        origin = uvec2(U32(push.table).v[record + 4u], U32(push.table).v[record + 5u]);
        if (plane.x * plane.y == 0u)
            return;
    }
    first_pixel = tile_m * BM;
    uint first = min(split * push.k_split, k * 8u), end = min((split + 1u) * push.k_split, k * 8u);
    k_end = end / 8u;
    find_pixels();
    multiply_tiles(first, end); // of a class with fewer taps a split may be empty: zeros
}
