// kernel: conv_nhwc_matrix needs=coopmat,fp16,storage16,subgroup glslang=15
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#include "common.glsl"
#include "activation.glsl"
#include "conv_index.glsl"
#include "octet.glsl"
#include "conv_nhwc.push.h"

// Convolution in HK_LAYOUT_NHWC8 on matrix units: float16 operands, float32 sums. An implicit GEMM
//
//     y[pixel][output] = sum over k of x[k under pixel][...] w[output][k],   k = (tap, channel)
//
// whose operands are loaded as octets of channels, 16 bytes each, without any rearranging: k is innermost in both. The
// next K tile is on its way into registers while the present one is multiplied. Sums pass through shared memory once, one
// matrix a subgroup, so that bias, residual, activation and 16-byte stores work on octets again.
//
// Floor: 2 pixels outputs k operations at the rate of subgroup matrices, or the bytes of x, w, y once.
layout(constant_id = 3) const uint BM = 128; // pixels
layout(constant_id = 4) const uint BN = 128; // outputs
layout(constant_id = 5) const uint BK = 32;  // channels of taps
layout(constant_id = 6) const uint WARPS_M = 4;
layout(constant_id = 7) const uint WARPS_N = 2;
layout(constant_id = 8) const uint SUBGROUP = 32;
layout(constant_id = 9) const uint MM = 16; // the device's matrix shape
layout(constant_id = 10) const uint MN = 16;
layout(constant_id = 11) const uint MK = 16;
layout(constant_id = 12) const uint KH = 1;
layout(constant_id = 13) const uint KW = 1;
layout(constant_id = 14) const uint STRIDE_H = 1;
layout(constant_id = 15) const uint STRIDE_W = 1;
layout(constant_id = 16) const uint DILATION_H = 1;
layout(constant_id = 17) const uint DILATION_W = 1;
layout(constant_id = 18) const uint EPILOGUE = 0; // bit 0: bias, bit 1: residual
layout(constant_id = 19) const uint ACTIVATION = 0;
layout(constant_id = 20) const uint STAGES = 2; // tiles in shared memory: 2 need one barrier each, 1 half the memory

const uint THREADS = WARPS_M * WARPS_N * SUBGROUP;
const uint OCTETS = BK / 8;                     // of one row of a tile
const uint ROW = OCTETS + 1;                    // one of padding spreads the rows over the banks
const uint LOADS_A = BM * OCTETS / THREADS;
const uint LOADS_B = BN * OCTETS / THREADS;
const uint STEP = THREADS / OCTETS;             // rows between a thread's loads
const uint TILES_M = BM / WARPS_M / MM;         // matrices of one subgroup
const uint TILES_N = BN / WARPS_N / MN;
const uint SUM_ROW = MN + 4;                    // floats

shared uvec4 tile_a[STAGES * BM * ROW];
shared uvec4 tile_b[STAGES * BN * ROW];
shared float sums[WARPS_M * WARPS_N * MM * SUM_ROW];

uvec4 next_a[LOADS_A];
uvec4 next_b[LOADS_B];
uint base[LOADS_A]; // of the thread's pixels
uint masks[LOADS_A]; // valid rows of taps, and columns << 16

void find_pixels(uint first)
{
    [[unroll]] for (uint i = 0; i < LOADS_A; ++i) {
        uint at = first + gl_LocalInvocationIndex / OCTETS + i * STEP, line = at / push.y_w, image = line / push.y_h;
        int y = int((line - image * push.y_h) * STRIDE_H) - int(push.pads & 0xffffu);
        int x = int((at - line * push.y_w) * STRIDE_W) - int(push.pads >> 16);
        base[i] = ((image * push.x_h + uint(y)) * push.x_w + uint(x)) * push.octets_in;
        masks[i] = 0u;
        for (uint r = 0u; r < KH; ++r)
            masks[i] |= at < push.pixels && within(y + int(r * DILATION_H), push.x_h) ? 1u << r : 0u;
        for (uint s = 0u; s < KW; ++s)
            masks[i] |= within(x + int(s * DILATION_W), push.x_w) ? 0x10000u << s : 0u;
    }
}

void load_next(uint k, uint k_end, uint first_output) // in octets
{
    uint at = k + gl_LocalInvocationIndex % OCTETS;
    uvec2 entry = at < k_end ? U32x2(push.table).v[at] : uvec2(0u, 31u << 5); // row 31 is in no mask
    [[unroll]] for (uint i = 0; i < LOADS_A; ++i) {
        bool inside = ((masks[i] & 0xffffu) >> (entry.y >> 5) & masks[i] >> 16 >> (entry.y & 31u) & 1u) != 0u;
        next_a[i] = inside ? U32x4(push.x).v[base[i] + entry.x] : uvec4(0u);
    }
    [[unroll]] for (uint i = 0; i < LOADS_B; ++i) {
        uint o = first_output + gl_LocalInvocationIndex / OCTETS + i * STEP;
        next_b[i] = at < k_end && o < push.outputs ? U32x4(push.w).v[o * k_end + at] : uvec4(0u);
    }
}

void store_next(uint stage)
{
    uint octet = gl_LocalInvocationIndex % OCTETS, row = gl_LocalInvocationIndex / OCTETS;
    [[unroll]] for (uint i = 0; i < LOADS_A; ++i)
        tile_a[(stage * BM + row + i * STEP) * ROW + octet] = next_a[i];
    [[unroll]] for (uint i = 0; i < LOADS_B; ++i)
        tile_b[(stage * BN + row + i * STEP) * ROW + octet] = next_b[i];
}

void finish(uint pixel, uint octet, Octet y)
{
    uint at = pixel * push.octets_out + octet, outputs = push.outputs - octet * 8u;
    if ((EPILOGUE & 1u) != 0u) {
        [[unroll]] for (uint o = 0; o < 4; ++o) {
            y.low[o] += F32(push.bias).v[min(octet * 8u + o, push.outputs - 1u)];
            y.high[o] += F32(push.bias).v[min(octet * 8u + 4u + o, push.outputs - 1u)];
        }
    }
    if ((EPILOGUE & 2u) != 0u) {
        Octet r = load_octet(push.residual, at, true);
        y.low += r.low;
        y.high += r.high;
    }
    y.low = activate(ACTIVATION, y.low, push.alpha, push.beta);
    y.high = activate(ACTIVATION, y.high, push.alpha, push.beta);
    [[unroll]] for (uint o = 0; o < 4; ++o) { // the layout's padding is zero
        y.low[o] = o < outputs ? y.low[o] : 0.0;
        y.high[o] = o + 4u < outputs ? y.high[o] : 0.0;
    }
    store_octet(push.y, at, true, y);
}

void main()
{
    uint tiles_n = (push.octets_out * 8u + BN - 1u) / BN, g = linear_group(), tile_m = g / tiles_n;
    uint first_pixel = tile_m * BM, first_output = (g - tile_m * tiles_n) * BN;
    if (first_pixel >= push.pixels)
        return;
    uint k_end = KH * KW * push.octets_in;
    uint warp_m = gl_SubgroupID / WARPS_N * TILES_M, warp_n = gl_SubgroupID % WARPS_N * TILES_N; // in matrices
    find_pixels(first_pixel);
    coopmat<float, gl_ScopeSubgroup, MM, MN, gl_MatrixUseAccumulator> acc[TILES_M * TILES_N];
    [[unroll]] for (uint i = 0; i < TILES_M * TILES_N; ++i)
        acc[i] = coopmat<float, gl_ScopeSubgroup, MM, MN, gl_MatrixUseAccumulator>(0.0);

    load_next(0u, k_end, first_output);
    store_next(0u);
    barrier();
    uint stage = 0u;
    for (uint k = 0u; k < k_end; k += OCTETS) {
        bool more = k + OCTETS < k_end;
        if (more)
            load_next(k + OCTETS, k_end, first_output);
        [[unroll]] for (uint kk = 0; kk < BK / MK; ++kk) {
            coopmat<float16_t, gl_ScopeSubgroup, MM, MK, gl_MatrixUseA> a[TILES_M];
            [[unroll]] for (uint i = 0; i < TILES_M; ++i)
                coopMatLoad(a[i], tile_a, (stage * BM + (warp_m + i) * MM) * ROW + kk * (MK / 8), ROW,
                            gl_CooperativeMatrixLayoutRowMajor);
            [[unroll]] for (uint j = 0; j < TILES_N; ++j) {
                coopmat<float16_t, gl_ScopeSubgroup, MK, MN, gl_MatrixUseB> b;
                coopMatLoad(b, tile_b, (stage * BN + (warp_n + j) * MN) * ROW + kk * (MK / 8), ROW,
                            gl_CooperativeMatrixLayoutColumnMajor);
                [[unroll]] for (uint i = 0; i < TILES_M; ++i)
                    acc[i * TILES_N + j] = coopMatMulAdd(a[i], b, acc[i * TILES_N + j]);
            }
        }
        if (STAGES == 1)
            barrier();
        else
            stage ^= 1u;
        if (more)
            store_next(stage);
        barrier();
    }

    // A matrix's elements lie in unknown lanes: each goes through the subgroup's own shared rows and comes back as octets.
    uint mine = gl_SubgroupID * MM * SUM_ROW;
    [[unroll]] for (uint f = 0; f < TILES_M * TILES_N; ++f) {
        coopMatStore(acc[f], sums, mine, SUM_ROW, gl_CooperativeMatrixLayoutRowMajor);
        barrier();
        for (uint t = gl_SubgroupInvocationID; t < MM * MN / 8; t += SUBGROUP) {
            uint m = t / (MN / 8), n = t % (MN / 8), at = mine + m * SUM_ROW + n * 8u;
            uint pixel = first_pixel + (warp_m + f / TILES_N) * MM + m;
            uint octet = (first_output + (warp_n + f % TILES_N) * MN) / 8u + n;
            if (pixel < push.pixels && octet < push.octets_out)
                finish(pixel, octet, Octet(vec4(sums[at], sums[at + 1u], sums[at + 2u], sums[at + 3u]),
                                           vec4(sums[at + 4u], sums[at + 5u], sums[at + 6u], sums[at + 7u])));
        }
        barrier();
    }
}
