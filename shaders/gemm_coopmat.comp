// kernel: gemm_coopmat needs=coopmat,fp16 glslang=15
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#include "gemm_common.glsl"

// GEMM on matrix units: fp16 operands, fp32 sums. A workgroup of WM x WN subgroups computes BM x BN of C, a subgroup
// (BM / WM) x (BN / WN) of it in fragments of FM x FN. Operands are staged in shared memory as fp16, in the orientation
// in which they are stored (a transposed one is loaded column-major), 16 bytes at a time; fp32 operands are rounded on
// the way. While one K tile is multiplied the next is on its way into registers. Rows of a tile are padded by 16 bytes,
// so that the eight rows of a fragment begin in different banks.
layout(constant_id = 8) const uint BM = 128;
layout(constant_id = 9) const uint BN = 128;
layout(constant_id = 10) const uint BK = 32;
layout(constant_id = 11) const uint FM = 16; // the device's fragment
layout(constant_id = 12) const uint FN = 16;
layout(constant_id = 13) const uint FK = 16;
layout(constant_id = 14) const uint WM = 2;
layout(constant_id = 15) const uint WN = 4;
layout(constant_id = 16) const uint THREADS = 256;
layout(constant_id = 17) const uint STAGES = 1;
layout(constant_id = 18) const uint FLOATS = 0; // bit 0: A is stored as fp32, bit 1: B is, bit 2: C is (else fp16)

const bool A_F32 = (FLOATS & 1u) != 0u;
const bool B_F32 = (FLOATS & 2u) != 0u;
const bool C_F32 = (FLOATS & 4u) != 0u;
const uint RM = BM / WM / FM; // fragments of a subgroup
const uint RN = BN / WN / FN;
const uint LOADS_A = BM * BK / 8 / THREADS; // chunks of eight elements a thread moves per K tile
const uint LOADS_B = BN * BK / 8 / THREADS;
const uint PARTS_A = A_F32 ? 2 : 1; // 16-byte words of a chunk as stored
const uint PARTS_B = B_F32 ? 2 : 1;
const uint ROW_A = (TRANS_A ? BM : BK) / 8 + 1; // 16-byte words of a padded row in shared memory
const uint ROW_B = (TRANS_B ? BK : BN) / 8 + 1;
const uint TILE_A = (TRANS_A ? BK : BM) * ROW_A;
const uint TILE_B = (TRANS_B ? BN : BK) * ROW_B;
const uint TILE = TILE_A + TILE_B;
shared uvec4 tile[STAGES * TILE];
shared float sums[WM * WN * FM * FN]; // one fragment of each subgroup, for the epilogue

uvec4 next_a[LOADS_A * PARTS_A];
uvec4 next_b[LOADS_B * PARTS_B];
uint from_a[LOADS_A];
uint from_b[LOADS_B];

// The place of chunk i of this thread in an operand's tile: (outer, k).
uvec2 slot(uint i, bool along, uint extent)
{
    uint s = gl_LocalInvocationIndex + i * THREADS;
    return along ? uvec2(s / (BK / 8u), s % (BK / 8u) * 8u) : uvec2(s % (extent / 8u) * 8u, s / (extent / 8u));
}

uint chunk_offset(bool along, bool wide, uint outer, uint k, uint extent, uint ld)
{
    uint o = min(outer, extent - (wide && !along ? 8u : 1u));
    return along ? o * ld + k : k * ld + o;
}

uint half_at(uvec2 base, uint i) // bits of one fp16 element, by 32-bit access
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
        [[unroll]] for (uint j = 0; j < 4; ++j)
            if (k + (along ? first + j : 0u) < k_end)
                x[j] = U32(base).v[offset + (along ? first + j : min(first + j, room))];
    } else {
        [[unroll]] for (uint j = 0; j < 8; ++j)
            if (k + (along ? j : 0u) < k_end)
                x[j / 2] |= half_at(base, offset + (along ? j : min(j, room))) << (16u * (j & 1u));
    }
    return x;
}

void load_next(Part p, uint k0)
{
    [[unroll]] for (uint i = 0; i < LOADS_A; ++i) {
        uvec2 s = slot(i, !TRANS_A, BM);
        [[unroll]] for (uint h = 0; h < PARTS_A; ++h)
            next_a[i * PARTS_A + h] =
                fetch_chunk(push.a, A_F32, !TRANS_A, WIDE_A, from_a[i], h, p.m + s.x, push.m, k0 + s.y, p.k_end);
        from_a[i] += TRANS_A ? BK * push.lda : BK;
    }
    [[unroll]] for (uint i = 0; i < LOADS_B; ++i) {
        uvec2 s = slot(i, TRANS_B, BN);
        [[unroll]] for (uint h = 0; h < PARTS_B; ++h)
            next_b[i * PARTS_B + h] =
                fetch_chunk(push.b, B_F32, TRANS_B, WIDE_B, from_b[i], h, p.n + s.x, push.n, k0 + s.y, p.k_end);
        from_b[i] += TRANS_B ? BK : BK * push.ldb;
    }
}

uvec4 round8(uvec4 x, uvec4 y)
{
    vec4 f = uintBitsToFloat(x), g = uintBitsToFloat(y);
    return uvec4(packHalf2x16(f.xy), packHalf2x16(f.zw), packHalf2x16(g.xy), packHalf2x16(g.zw));
}

void place_next(uint at)
{
    [[unroll]] for (uint i = 0; i < LOADS_A; ++i) {
        uvec2 s = slot(i, !TRANS_A, BM);
        uint to = at + (TRANS_A ? s.y * ROW_A + s.x / 8u : s.x * ROW_A + s.y / 8u);
        uvec4 x = next_a[i * PARTS_A];
        tile[to] = A_F32 ? round8(x, next_a[i * PARTS_A + PARTS_A - 1]) : x;
    }
    [[unroll]] for (uint i = 0; i < LOADS_B; ++i) {
        uvec2 s = slot(i, TRANS_B, BN);
        uint to = at + TILE_A + (TRANS_B ? s.x * ROW_B + s.y / 8u : s.y * ROW_B + s.x / 8u);
        uvec4 x = next_b[i * PARTS_B];
        tile[to] = B_F32 ? round8(x, next_b[i * PARTS_B + PARTS_B - 1]) : x;
    }
}

// Four neighbours of a row of C in fp16; WIDE_C holds whenever C is stored so.
void store_half4(vec4 sum, Batch at, uint m, uint n)
{
    if (m >= push.m || n >= push.n)
        return;
    uint index = at.c + m * push.n + n;
    vec4 y;
    [[unroll]] for (uint j = 0; j < 4; ++j) {
        y[j] = push.alpha * sum[j];
        if ((EPILOGUE & 1u) != 0u)
            y[j] += push.beta * F32(push.bias).v[at.bias + m * push.bias_m + (n + j) * push.bias_n];
        if ((EPILOGUE & 2u) != 0u)
            y[j] += F32(push.residual).v[index + j];
    }
    y = activate(ACTIVATION, y, push.act_a, push.act_b);
    U32x2(push.c).v[index >> 2] = uvec2(packHalf2x16(y.xy), packHalf2x16(y.zw));
}

void main()
{
    Part p;
    if (!find_part(BM, BN, p))
        return;
    [[unroll]] for (uint i = 0; i < LOADS_A; ++i) {
        uvec2 s = slot(i, !TRANS_A, BM);
        from_a[i] = p.at.a + chunk_offset(!TRANS_A, WIDE_A, p.m + s.x, p.k + s.y, push.m, push.lda);
    }
    [[unroll]] for (uint i = 0; i < LOADS_B; ++i) {
        uvec2 s = slot(i, TRANS_B, BN);
        from_b[i] = p.at.b + chunk_offset(TRANS_B, WIDE_B, p.n + s.x, p.k + s.y, push.n, push.ldb);
    }
    coopmat<float, gl_ScopeSubgroup, FM, FN, gl_MatrixUseAccumulator> acc[RM * RN];
    [[unroll]] for (uint i = 0; i < RM * RN; ++i)
        acc[i] = coopmat<float, gl_ScopeSubgroup, FM, FN, gl_MatrixUseAccumulator>(0.0);
    uint subgroup_m = gl_SubgroupID / WN * (BM / WM), subgroup_n = gl_SubgroupID % WN * (BN / WN);

    load_next(p, p.k);
    place_next(0);
    barrier();
    uint at = 0;
    for (uint k = p.k; k < p.k_end; k += BK) {
        bool more = k + BK < p.k_end;
        if (more)
            load_next(p, k + BK);
        [[unroll]] for (uint kk = 0; kk < BK; kk += FK) {
            coopmat<float16_t, gl_ScopeSubgroup, FM, FK, gl_MatrixUseA> a[RM];
            [[unroll]] for (uint i = 0; i < RM; ++i) {
                uint m = subgroup_m + i * FM;
                if (TRANS_A)
                    coopMatLoad(a[i], tile, at + kk * ROW_A + m / 8u, ROW_A, gl_CooperativeMatrixLayoutColumnMajor);
                else
                    coopMatLoad(a[i], tile, at + m * ROW_A + kk / 8u, ROW_A, gl_CooperativeMatrixLayoutRowMajor);
            }
            [[unroll]] for (uint j = 0; j < RN; ++j) {
                coopmat<float16_t, gl_ScopeSubgroup, FK, FN, gl_MatrixUseB> b;
                uint n = subgroup_n + j * FN, from = at + TILE_A;
                if (TRANS_B)
                    coopMatLoad(b, tile, from + n * ROW_B + kk / 8u, ROW_B, gl_CooperativeMatrixLayoutColumnMajor);
                else
                    coopMatLoad(b, tile, from + kk * ROW_B + n / 8u, ROW_B, gl_CooperativeMatrixLayoutRowMajor);
                [[unroll]] for (uint i = 0; i < RM; ++i)
                    acc[i * RN + j] = coopMatMulAdd(a[i], b, acc[i * RN + j]);
            }
        }
        if (STAGES == 1)
            barrier();
        else
            at = TILE - at;
        if (more) {
            place_next(at);
            barrier();
        }
    }

    // A fragment's elements lie in unknown lanes, so each goes through shared memory and from there in rows to C.
    uint lane = gl_SubgroupInvocationID, base = gl_SubgroupID * FM * FN;
    [[unroll]] for (uint f = 0; f < RM * RN; ++f) {
        coopMatStore(acc[f], sums, base, FN, gl_CooperativeMatrixLayoutRowMajor);
        barrier();
        for (uint i = lane * 4u; i < FM * FN; i += THREADS / (WM * WN) * 4u) {
            vec4 sum = vec4(sums[base + i], sums[base + i + 1u], sums[base + i + 2u], sums[base + i + 3u]);
            uint m = p.m + subgroup_m + f / RN * FM + i / FN, n = p.n + subgroup_n + f % RN * FN + i % FN;
            if (C_F32)
                store_row4(sum, p.at, m, n);
            else
                store_half4(sum, p.at, m, n);
        }
        barrier();
    }
}
