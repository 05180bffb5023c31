// What the GEMM kernels share: C = activation(alpha op(A) op(B) + beta bias + residual), row-major, batched.
//
// op(A) is M x K: A is stored [M][K], or [K][M] if TRANS_A; op(B) is K x N: B is stored [K][N], or [N][K] if TRANS_B.
// C is [M][N], or [N][M] if TRANS_C (the caller swapped the operands). With split-K the sums of split s of batch z go
// to c[(z * splits + s) * m * n ...] without epilogue, and gemm_reduce finishes them: always in the same order.
#ifndef GEMM_COMMON_GLSL
#define GEMM_COMMON_GLSL

#include "common.glsl"
#include "activation.glsl"
#include "gemm.push.h"

layout(constant_id = 3) const uint TRANS = 0;      // bit 0: A, bit 1: B, bit 2: C
layout(constant_id = 4) const uint WIDE = 0;       // operands read and written 16 bytes at a time: bit 0: A, 1: B, 2: C
layout(constant_id = 5) const uint EPILOGUE = 0;   // EPILOGUE_*
layout(constant_id = 6) const uint ACTIVATION = 0; // ACT_*
layout(constant_id = 7) const uint PLANE = 0;      // columns are pixels of images that have so many: C is [image][M][PLANE]

const uint EPILOGUE_BIAS = 1u;
const uint EPILOGUE_RESIDUAL = 2u;
const uint EPILOGUE_PARTIAL = 4u;        // none, these are the partial sums of split-K
const uint EPILOGUE_HALF_RESIDUAL = 8u;  // stored as fp16; with WIDE_C alone
const uint EPILOGUE_HALF_C = 16u;

const bool TRANS_A = (TRANS & 1u) != 0u;
const bool TRANS_B = (TRANS & 2u) != 0u;
const bool TRANS_C = (TRANS & 4u) != 0u;
const bool WIDE_A = (WIDE & 1u) != 0u;
const bool WIDE_B = (WIDE & 2u) != 0u;
const bool WIDE_C = (WIDE & 4u) != 0u;
const bool PARTIAL = (EPILOGUE & EPILOGUE_PARTIAL) != 0u;

uint ceil_div(uint a, uint b) { return (a + b - 1u) / b; }

// Where the matrices of one batch begin, in elements.
struct Batch {
    uint a;
    uint b;
    uint bias;
    uint c;
};

Batch batch_offsets(uint z)
{
    Batch o = Batch(0u, 0u, 0u, z * push.m * push.n);
    if (push.batch_inner != 0u) {
        uint outer = z / push.batch_inner, inner = z - outer * push.batch_inner;
        o.a = outer * push.a_outer + inner * push.a_inner;
        o.b = outer * push.b_outer + inner * push.b_inner;
        o.bias = outer * push.bias_outer + inner * push.bias_inner;
    } else { // more than two dimensions: rank, then (extent, strides of A, B, bias) of each, innermost first
        U32 table = U32(push.batch);
        uint rank = table.v[0];
        for (uint d = 0u; d < rank; ++d) {
            uint at = 1u + 4u * d, extent = table.v[at], i = z % extent;
            z /= extent;
            o.a += i * table.v[at + 1u];
            o.b += i * table.v[at + 2u];
            o.bias += i * table.v[at + 3u];
        }
    }
    return o;
}

// One workgroup's part: a tile of C, a batch, a range of K.
struct Part {
    uint m;
    uint n;
    uint k;
    uint k_end;
    Batch at;
};

// Workgroups walk bands of so many tile rows column by column, so that those that run together share rows of A and columns
// of B. False: the grid is larger than the work.
bool find_part(uint bm, uint bn, uint band, out Part p)
{
    uint g = linear_group();
    uint columns = ceil_div(push.n, bn), rows = ceil_div(push.m, bm);
    uint z = g / (columns * rows), t = g - z * columns * rows;
    uint first = t / (band * columns) * band, high = min(band, rows - first);
    t -= first * columns;
    p.n = t / high * bn;
    p.m = (first + t % high) * bm;
    p.k = 0u;
    p.k_end = push.k;
    if (PARTIAL) {
        uint splits = ceil_div(push.k, push.k_split), batch = z / splits;
        p.k = (z - batch * splits) * push.k_split;
        p.k_end = min(p.k + push.k_split, push.k);
        p.at = batch_offsets(batch);
        p.at.c = z * push.m * push.n;
    } else {
        p.at = batch_offsets(z);
    }
    return g < push.work;
}

uint c_index(uint m, uint n)
{
    if (PLANE != 0u && !PARTIAL)
        return (n / PLANE * push.m + m) * PLANE + n % PLANE;
    return TRANS_C ? n * push.m + m : m * push.n + n;
}

// index: into C, batch included.
float epilogue(float sum, Batch at, uint m, uint n, uint index)
{
    if (PARTIAL)
        return sum;
    float y = push.alpha * sum;
    if ((EPILOGUE & EPILOGUE_BIAS) != 0u)
        y += push.beta * F32(push.bias).v[at.bias + m * push.bias_m + n * push.bias_n];
    if ((EPILOGUE & EPILOGUE_RESIDUAL) != 0u)
        y += F32(push.residual).v[index];
    return activate(ACTIVATION, y, push.act_a, push.act_b);
}

vec4 residual4(uint i)
{
    if ((EPILOGUE & EPILOGUE_HALF_RESIDUAL) == 0u)
        return F32x4(push.residual).v[i];
    uvec2 w = U32x2(push.residual).v[i];
    return vec4(unpackHalf2x16(w.x), unpackHalf2x16(w.y));
}

// The residual of four neighbours along a row, if they are stored at once: who stores many asks for all of them first, for a
// load behind a store waits for it.
bool has_wide_residual() { return WIDE_C && !PARTIAL && (EPILOGUE & EPILOGUE_RESIDUAL) != 0u; }

vec4 addend4(Batch at, uint m, uint n)
{
    vec4 x = vec4(0.0);
    if (has_wide_residual() && m < push.m && n < push.n)
        x = residual4((at.c + c_index(m, n)) >> 2);
    return x;
}

vec4 bias4(Batch at, uint m, uint n)
{
    uint from = at.bias + m * push.bias_m + n * push.bias_n;
    F32 bias = F32(push.bias);
    return push.beta * vec4(bias.v[from], bias.v[from + push.bias_n], bias.v[from + 2u * push.bias_n],
                            bias.v[from + 3u * push.bias_n]);
}

// Four neighbours along a row, finished. With WIDE_C alone, and not for partial sums.
vec4 finish4(vec4 sum, vec4 addend, Batch at, uint m, uint n)
{
    vec4 y = push.alpha * sum;
    if ((EPILOGUE & EPILOGUE_BIAS) != 0u)
        y += bias4(at, m, n);
    if ((EPILOGUE & EPILOGUE_RESIDUAL) != 0u)
        y += addend;
    return activate(ACTIVATION, y, push.act_a, push.act_b);
}

void store_c4(uint index, vec4 y)
{
    if ((EPILOGUE & EPILOGUE_HALF_C) != 0u)
        U32x2(push.c).v[index >> 2] = uvec2(packHalf2x16(y.xy), packHalf2x16(y.zw));
    else
        F32x4(push.c).v[index >> 2] = y;
}

// Finishes and stores four neighbours along a row; what lies outside of C is dropped. Not for TRANS_C with WIDE_C.
void store_row4(vec4 sum, vec4 addend, Batch at, uint m, uint n)
{
    if (m >= push.m || n >= push.n)
        return;
    if (WIDE_C) {
        uint index = at.c + c_index(m, n);
        store_c4(index, PARTIAL ? sum : finish4(sum, addend, at, m, n));
    } else {
        for (uint j = 0u; j < 4u; ++j)
            if (n + j < push.n) {
                uint index = at.c + c_index(m, n + j);
                F32(push.c).v[index] = epilogue(sum[j], at, m, n + j, index);
            }
    }
}

// A sum of products of bytes that pack_int8.comp has made, whose zero points are off: sum (a - za) (b - zb) =
// sum a b - za sum b - (sum a - K za) zb. bias: (za, sum a - K za) of each row of A, residual: (sum b, zb) of each column of B.
uint less_zeros(int sum, Batch at, uint m, uint n)
{
    if (PARTIAL)
        return uint(sum);
    uvec2 a = U32x2(push.bias).v[at.a / push.lda + m], b = U32x2(push.residual).v[at.b / push.ldb + n];
    return uint(sum) - a.x * b.x - a.y * b.y;
}

void store_row4(ivec4 sum, Batch at, uint m, uint n)
{
    if (m >= push.m || n >= push.n)
        return;
    uint index = at.c + m * push.n + n;
    if (WIDE_C) {
        uvec4 y;
        [[unroll]] for (uint j = 0u; j < 4u; ++j)
            y[j] = less_zeros(sum[j], at, m, n + j);
        U32x4(push.c).v[index >> 2] = y;
    } else {
        for (uint j = 0u; j < 4u; ++j)
            if (n + j < push.n)
                U32(push.c).v[index + j] = less_zeros(sum[j], at, m, n + j);
    }
}

// Reading an operand four elements at a time. Its stored rows either run along K ("along": [outer][K], A untransposed
// or B transposed) or along its outer dimension ([K][outer]). Reads outside are kept inside: the outer index is
// clamped, because those sums are dropped, and elements beyond k_end are zero in both operands.
uint fetch_offset(bool along, bool wide, uint outer, uint k, uint extent, uint ld)
{
    uint o = min(outer, extent - (wide && !along ? 4u : 1u));
    return along ? o * ld + k : k * ld + o;
}

vec4 fetch(uvec2 base, bool along, bool wide, uint offset, uint outer, uint extent, uint k, uint k_end)
{
    vec4 x = vec4(0.0);
    if (wide) {
        if (k < k_end)
            x = F32x4(base).v[offset >> 2];
    } else {
        uint room = extent - 1u - min(outer, extent - 1u);
        [[unroll]] for (uint j = 0u; j < 4u; ++j)
            if (k + (along ? j : 0u) < k_end)
                x[j] = F32(base).v[offset + (along ? j : min(j, room))];
    }
    return x;
}

#endif
