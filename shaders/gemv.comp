// kernel: gemv
#version 450
#extension GL_GOOGLE_include_directive : require
#include "gemm_common.glsl"

// GEMM with few rows (M <= 8, or N after the caller swapped the operands), bound by reading B once. A workgroup computes
// ROWS x (LANES * COLS) of C; all its threads walk K side by side and meet in a tree in shared memory.
//
// DOT (TRANS_B, B is [N][K]): LANES is 1, each thread takes vectors along K of COLS columns.
// Else (B is [K][N]): LANES threads read a row's LANES * 4 neighbouring columns (COLS is 4), the threads of equal lane
// take K in turn. Workgroup size and LANES are powers of two.
layout(constant_id = 8) const uint THREADS = 128;
layout(constant_id = 9) const uint ROWS = 1;
layout(constant_id = 10) const uint COLS = 4;
layout(constant_id = 11) const uint LANES = 1;
layout(constant_id = 12) const uint UNROLL = 4; // loads in flight per thread

shared float sums[ROWS * COLS * THREADS];
float acc[ROWS * COLS];

float element_a(Part p, uint r, uint k)
{
    uint m = min(p.m + r, push.m - 1u);
    return F32(push.a).v[p.at.a + (TRANS_A ? k * push.lda + m : m * push.lda + k)];
}

vec4 vector_a(Part p, uint r, uint k) // k .. k + 3, zero beyond the end
{
    if (WIDE_A && !TRANS_A)
        return F32x4(push.a).v[(p.at.a + min(p.m + r, push.m - 1u) * push.lda + k) >> 2];
    vec4 x = vec4(0.0);
    [[unroll]] for (uint j = 0; j < 4; ++j)
        if (k + j < p.k_end)
            x[j] = element_a(p, r, k + j);
    return x;
}

void walk_dot(Part p, uint thread)
{
    for (uint k0 = p.k + thread * 4u; k0 < p.k_end; k0 += THREADS * 4u * UNROLL) {
        vec4 b[UNROLL * COLS];
        [[unroll]] for (uint u = 0; u < UNROLL; ++u)
            [[unroll]] for (uint c = 0; c < COLS; ++c) {
                uint k = k0 + u * THREADS * 4u;
                uint at = p.at.b + fetch_offset(true, WIDE_B, p.n + c, k, push.n, push.ldb);
                b[u * COLS + c] = fetch(push.b, true, WIDE_B, at, p.n + c, push.n, k, p.k_end);
            }
        [[unroll]] for (uint u = 0; u < UNROLL; ++u) {
            uint k = k0 + u * THREADS * 4u;
            if (k < p.k_end) {
                [[unroll]] for (uint r = 0; r < ROWS; ++r) {
                    vec4 a = vector_a(p, r, k);
                    [[unroll]] for (uint c = 0; c < COLS; ++c)
                        acc[r * COLS + c] += dot(a, b[u * COLS + c]);
                }
            }
        }
    }
}

void walk_rows(Part p, uint n, uint slice)
{
    const uint step = THREADS / LANES;
    for (uint k0 = p.k + slice; k0 < p.k_end; k0 += step * UNROLL) {
        vec4 b[UNROLL];
        [[unroll]] for (uint u = 0; u < UNROLL; ++u) {
            uint k = k0 + u * step;
            b[u] = fetch(push.b, false, WIDE_B, p.at.b + fetch_offset(false, WIDE_B, n, k, push.n, push.ldb), n, push.n, k, p.k_end);
        }
        [[unroll]] for (uint u = 0; u < UNROLL; ++u) {
            uint k = k0 + u * step;
            if (k < p.k_end) {
                [[unroll]] for (uint r = 0; r < ROWS; ++r) {
                    float a = element_a(p, r, k);
                    [[unroll]] for (uint c = 0; c < COLS; ++c)
                        acc[r * COLS + c] += a * b[u][c];
                }
            }
        }
    }
}

void main()
{
    Part p;
    if (!find_part(ROWS, LANES * COLS, 1u, p))
        return;
    uint thread = gl_LocalInvocationIndex, lane = thread % LANES;
    [[unroll]] for (uint i = 0; i < ROWS * COLS; ++i)
        acc[i] = 0.0;
    if (TRANS_B)
        walk_dot(p, thread);
    else
        walk_rows(p, p.n + lane * 4u, thread / LANES);

    [[unroll]] for (uint i = 0; i < ROWS * COLS; ++i)
        sums[i * THREADS + thread] = acc[i];
    barrier();
    for (uint half_count = THREADS / 2; half_count >= LANES; half_count /= 2) { // halves each of the ROWS * COLS lists
        for (uint i = thread; i < ROWS * COLS * half_count; i += THREADS) {
            uint at = i / half_count * THREADS + i % half_count;
            sums[at] += sums[at + half_count];
        }
        barrier();
    }
    for (uint i = thread; i < ROWS * COLS * LANES; i += THREADS) {
        uint m = p.m + i / (COLS * LANES), column = i % (COLS * LANES), n = p.n + column;
        if (m < push.m && n < push.n) {
            uint index = p.at.c + c_index(m, n);
            float sum = sums[(i / (COLS * LANES) * COLS + column % COLS) * THREADS + column / COLS];
            F32(push.c).v[index] = epilogue(sum, p.at, m, n, index);
        }
    }
}
