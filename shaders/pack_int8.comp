// kernel: pack_int8
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "pack_int8.push.h"

// An operand of a product of int8 or uint8, one to a word as they are stored, as matrix units take it (gemm_coopmat.comp):
// signed bytes along K, rows filled up with zeros to 16 bytes. Of uint8 elements and zero points both are less 128. Behind
// each row what less_zeros() of gemm_common.glsl needs of it. With TAPS columns are the pixels that a convolution's windows see;
// what lies outside of the image is the zero point.
//
// Floor: the bytes of the operand read once, a quarter of them written (TAPS: times the taps, most of them from caches).
layout(constant_id = 3) const uint THREADS = 128;
layout(constant_id = 4) const uint LANES = 32;   // along K; the other invocations of a workgroup have rows of their own
layout(constant_id = 5) const bool ALONG = true; // it is stored along K: [outer][k], else [k][outer]
layout(constant_id = 6) const bool UNSIGNED = false;
layout(constant_id = 7) const uint ZEROS = 0; // zero points: row r has number r % ZEROS
layout(constant_id = 8) const bool SECOND = false; // it is B
layout(constant_id = 9) const uint TAPS = 0;
layout(constant_id = 10) const uint KERNEL_W = 1;
layout(constant_id = 11) const uint STRIDE_H = 1;
layout(constant_id = 12) const uint STRIDE_W = 1;
layout(constant_id = 13) const uint DILATION_H = 1;
layout(constant_id = 14) const uint DILATION_W = 1;
layout(constant_id = 15) const uint PAD_H = 0;
layout(constant_id = 16) const uint PAD_W = 0;

const uint ROWS = THREADS / LANES;
shared int sums[THREADS];

int as_signed(uint word) { return bitfieldExtract(int(UNSIGNED ? word ^ 0x80u : word), 0, 8); }

// Where a row's elements begin, of images its channels; and its window's corner.
uint start;
ivec2 corner;

void find_row(uint matrix, uint outer)
{
    if (TAPS == 0u) {
        start = matrix * push.matrix + (ALONG ? outer * push.ld : outer);
        return;
    }
    uint image = matrix / push.groups, y = outer / push.out_w;
    start = image * push.image + (matrix - image * push.groups) * push.matrix;
    corner = ivec2(y * STRIDE_H, (outer - y * push.out_w) * STRIDE_W) - ivec2(PAD_H, PAD_W);
}

int element(uint k, int zero)
{
    if (TAPS == 0u)
        return as_signed(U32(push.from).v[start + (ALONG ? k : k * push.ld)]);
    uint channel = k / max(TAPS, 1u), tap = k - channel * TAPS, line = tap / KERNEL_W;
    ivec2 at = corner + ivec2(line * DILATION_H, (tap - line * KERNEL_W) * DILATION_W);
    if (any(lessThan(at, ivec2(0))) || any(greaterThanEqual(at, ivec2(push.in_h, push.in_w))))
        return zero;
    return as_signed(U32(push.from).v[start + channel * push.ld + uint(at.x) * push.in_w + uint(at.y)]);
}

void main()
{
    // Neighbours read what lies side by side.
    uint t = gl_LocalInvocationIndex, local = ALONG ? t / LANES : t % ROWS, lane = ALONG ? t % LANES : t / ROWS;
    uint row = linear_group() * ROWS + local, matrix = row / push.outer;
    bool inside = matrix < push.matrices;
    int zero = UNSIGNED ? -128 : 0, sum = 0;
    if (inside) {
        if (ZEROS != 0u)
            zero = as_signed(U32(push.zeros).v[row % max(ZEROS, 1u)]);
        find_row(matrix, row - matrix * push.outer);
        for (uint w = lane; w < push.row; w += LANES) {
            uint word = 0u;
            [[unroll]] for (uint j = 0u; j < 4u; ++j)
                if (w * 4u + j < push.k) {
                    int x = element(w * 4u + j, zero);
                    sum += x;
                    word |= (uint(x) & 0xffu) << (8u * j);
                }
            U32(push.to).v[row * push.row + w] = word;
        }
    }
    sums[local * LANES + lane] = sum;
    barrier();
    if (!inside || lane != 0u)
        return;
    sum = 0;
    for (uint i = 0u; i < LANES; ++i)
        sum += sums[local * LANES + i];
    ivec2 edge = SECOND ? ivec2(sum, zero) : ivec2(zero, sum - int(push.k) * zero);
    U32x2(push.edges).v[row] = uvec2(edge);
}
