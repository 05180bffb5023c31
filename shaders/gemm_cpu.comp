// kernel: gemm_cpu
#version 450
#extension GL_GOOGLE_include_directive : require
#include "gemm_common.glsl"

// fp32 GEMM for devices that are processors: no shared memory, no barriers, little code, which is compiled in a moment.
// An invocation computes ROWS rows of COLS vectors of columns in registers. What costs there is loads, for which every
// lane and every component is fetched alone: the more results share them the better. The workgroup's x runs along
// columns, its y along rows.
layout(constant_id = 8) const uint ROWS = 4;
layout(constant_id = 9) const uint COLS = 1;

const uint K_BLOCK = 512; // sums of so many products are added to the total: the error grows with the number of blocks

Part p;
uint row[ROWS]; // offsets of the rows of A and the columns of B, those outside clamped to the last
uint column[COLS * 4];
vec4 sum[ROWS * COLS];

void find_rows_and_columns(uint m, uint n, uint stride)
{
    [[unroll]] for (uint i = 0; i < ROWS; ++i)
        row[i] = p.at.a + min(m + i, push.m - 1u) * (TRANS_A ? 1u : push.lda);
    [[unroll]] for (uint j = 0; j < COLS * 4; ++j) {
        uint first = n + j / 4 * stride, c = j % 4; // vectors read whole begin four before the end at the latest
        uint at = !TRANS_B && WIDE_B ? min(first, push.n - 4u) + c : min(first + c, push.n - 1u);
        column[j] = p.at.b + at * (TRANS_B ? push.ldb : 1u);
    }
}

void add(uint i, float a, vec4 b[COLS])
{
    [[unroll]] for (uint j = 0; j < COLS; ++j)
        sum[i * COLS + j] += a * b[j];
}

void multiply1(uint k)
{
    uint at_a = k * (TRANS_A ? push.lda : 1u), at_b = k * (TRANS_B ? 1u : push.ldb);
    F32 x = F32(push.b);
    vec4 b[COLS];
    [[unroll]] for (uint j = 0; j < COLS; ++j)
        if (!TRANS_B && WIDE_B)
            b[j] = F32x4(push.b).v[(column[4 * j] + at_b) >> 2];
        else
            [[unroll]] for (uint c = 0; c < 4; ++c)
                b[j][c] = x.v[column[4 * j + c] + at_b];
    [[unroll]] for (uint i = 0; i < ROWS; ++i)
        add(i, F32(push.a).v[row[i] + at_a], b);
}

// Four elements along a stored row (step 1, and then wide ones) or across rows.
vec4 load4(uvec2 base, bool wide, uint at, uint step)
{
    if (wide)
        return F32x4(base).v[at >> 2];
    F32 x = F32(base);
    return vec4(x.v[at], x.v[at + step], x.v[at + 2u * step], x.v[at + 3u * step]);
}

// For transposed B, whose columns are far apart in memory: uses four neighbours of each while they are in the cache.
void multiply4(uint k)
{
    vec4 b[4][COLS];
    [[unroll]] for (uint j = 0; j < COLS; ++j) {
        vec4 t[4];
        [[unroll]] for (uint c = 0; c < 4; ++c)
            t[c] = load4(push.b, WIDE_B, column[4 * j + c] + k, 1u);
        [[unroll]] for (uint s = 0; s < 4; ++s)
            b[s][j] = vec4(t[0][s], t[1][s], t[2][s], t[3][s]);
    }
    [[unroll]] for (uint i = 0; i < ROWS; ++i) {
        uint step = TRANS_A ? push.lda : 1u;
        vec4 a = load4(push.a, WIDE_A && !TRANS_A, row[i] + k * step, step);
        [[unroll]] for (uint s = 0; s < 4; ++s)
            add(i, a[s], b[s]);
    }
}

void main()
{
    bool inside = find_part(gl_WorkGroupSize.y * ROWS, gl_WorkGroupSize.x * 4u * COLS, 1u, p);
    uint stride = gl_WorkGroupSize.x * 4u;
    uint m = p.m + gl_LocalInvocationID.y * ROWS, n = p.n + gl_LocalInvocationID.x * 4u;
    if (!inside || m >= push.m || n >= push.n)
        return;
    find_rows_and_columns(m, n, stride);
    vec4 total[ROWS * COLS];
    [[unroll]] for (uint i = 0; i < ROWS * COLS; ++i)
        total[i] = vec4(0.0);
    for (uint block = 0u; block < push.k; block += K_BLOCK) {
        [[unroll]] for (uint i = 0; i < ROWS * COLS; ++i)
            sum[i] = vec4(0.0);
        uint k = block, end = min(block + K_BLOCK, push.k);
        if (TRANS_B)
            for (; k + 4u <= end; k += 4u)
                multiply4(k);
        if (!TRANS_B || !WIDE_B) // else k is a multiple of four
            for (; k < end; ++k)
                multiply1(k);
        [[unroll]] for (uint i = 0; i < ROWS * COLS; ++i)
            total[i] += sum[i];
    }
    [[dont_unroll]] for (uint i = 0; i < ROWS; ++i)
        [[dont_unroll]] for (uint j = 0; j < COLS; ++j)
            store_row4(total[i * COLS + j], addend4(p.at, m + i, n + j * stride), p.at, m + i, n + j * stride);
}
