// kernel: gemm_int
#version 450
#extension GL_GOOGLE_include_directive : require
#include "gemm_common.glsl"

// MatMul of integers, modulo 2^32 or 2^64 as two's complement wraps; signed and unsigned are the same bits. One result
// per invocation: models use it for shapes and masks, never for bulk.
layout(constant_id = 8) const uint WORDS = 1; // of 32 bits per element

void main()
{
    uint i = linear_invocation(), size = push.m * push.n;
    if (i >= push.work)
        return;
    uint z = i / size, rest = i - z * size;
    Batch at = batch_offsets(z);
    uint m = rest / push.n, n = rest - m * push.n;
    uint a = at.a + (TRANS_A ? m : m * push.lda), b = at.b + (TRANS_B ? n * push.ldb : n);
    uint step_a = TRANS_A ? push.lda : 1u, step_b = TRANS_B ? 1u : push.ldb;
    if (WORDS == 1) {
        uint sum = 0u;
        for (uint k = 0u; k < push.k; ++k)
            sum += U32(push.a).v[a + k * step_a] * U32(push.b).v[b + k * step_b];
        U32(push.c).v[i] = sum;
    } else {
        uvec2 sum = uvec2(0u);
        for (uint k = 0u; k < push.k; ++k) {
            uvec2 x = U32x2(push.a).v[a + k * step_a], y = U32x2(push.b).v[b + k * step_b];
            uint high, low, carry;
            umulExtended(x.x, y.x, high, low);
            high += x.x * y.y + x.y * y.x;
            sum.x = uaddCarry(sum.x, low, carry);
            sum.y += high + carry;
        }
        U32x2(push.c).v[i] = sum;
    }
}
