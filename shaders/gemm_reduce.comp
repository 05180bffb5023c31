// kernel: gemm_reduce
// kernel: gemm_reduce_int8 -DINT8=1
#version 450
#extension GL_GOOGLE_include_directive : require
#include "gemm_common.glsl"

// The second half of split-K: adds the splits' partial sums in order and applies the epilogue. An invocation finishes
// VALUES neighbours of the result (4 if WIDE_C, then n is a multiple of four, else 1). push.a: partial sums
// [batch][split][m][n]; push.k and push.k_split give the number of splits. With INT8 sums are int32.
void main()
{
    const uint values = WIDE_C ? 4u : 1u;
    uint i = linear_invocation() * values, size = push.m * push.n;
    if (i >= push.work)
        return;
    uint z = i / size, rest = i - z * size;
    uint splits = ceil_div(push.k, push.k_split), from = z * splits * size + rest;
    Batch at = batch_offsets(z);
#ifdef INT8
    uint row = rest / push.n, column = rest - row * push.n;
    if (WIDE_C) {
        uvec4 sum = U32x4(push.a).v[from >> 2];
        for (uint s = 1; s < splits; ++s)
            sum += U32x4(push.a).v[(from + s * size) >> 2];
        store_row4(ivec4(sum), at, row, column);
    } else {
        uint sum = U32(push.a).v[from];
        for (uint s = 1; s < splits; ++s)
            sum += U32(push.a).v[from + s * size];
        U32(push.c).v[i] = less_zeros(int(sum), at, row, column);
    }
#else
    uint row = rest / (TRANS_C ? push.m : push.n), column = rest - row * (TRANS_C ? push.m : push.n);
    if (WIDE_C) {
        vec4 sum = F32x4(push.a).v[from >> 2];
        for (uint s = 1; s < splits; ++s)
            sum += F32x4(push.a).v[(from + s * size) >> 2];
        store_row4(sum, addend4(at, row, column), at, row, column);
    } else {
        float sum = F32(push.a).v[from];
        for (uint s = 1; s < splits; ++s)
            sum += F32(push.a).v[from + s * size];
        uint index = PLANE != 0u ? c_index(row, column) : i;
        F32(push.c).v[index] = TRANS_C ? epilogue(sum, at, column, row, index) : epilogue(sum, at, row, column, index);
    }
#endif
}
