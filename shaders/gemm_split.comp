// kernel: gemm_split
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "gemm_split.push.h"
#include "halves.glsl"

// An operand of a product of precision high, split before it (halves.glsl). An invocation makes one chunk, 32 a block; edges
// are filled with zeros.
//
// Floor: the bytes of the operand, read and written once.
layout(constant_id = 3) const uint THREADS = 128;
layout(constant_id = 4) const bool ALONG = false;  // it is stored along k: [outer][k], else [k][outer]
layout(constant_id = 5) const bool ACROSS = false; // chunks lie across k: B's
layout(constant_id = 6) const bool WIDE = false;   // chunks are read as two vectors
layout(constant_id = 7) const uint PLANE = 0;      // columns are pixels of images that have so many: [image][k][PLANE]
layout(constant_id = 8) const uint LINE = 0;       // and, unless they follow each other, a line of them so many,
layout(constant_id = 9) const uint LINE_STEP = 0;  // lines and pixels so far apart
layout(constant_id = 10) const uint PIXEL_STEP = 0;

const uint BLOCKS = THREADS / BLOCK_CHUNKS;
shared uvec4 numbers[THREADS / 4];

uint offset_of(uint matrix, uint slow, uint fast)
{
    if (PLANE == 0u)
        return matrix * push.matrix + slow * push.ld + fast;
    uint image = fast / max(PLANE, 1u), pixel = fast - image * PLANE; // compiled with 0 as well
    if (LINE != 0u)
        pixel = pixel / max(LINE, 1u) * LINE_STEP + pixel % max(LINE, 1u) * PIXEL_STEP;
    return image * push.matrix + slow * push.ld + pixel;
}

void main()
{
    uint block = linear_group() * BLOCKS + gl_LocalInvocationIndex / BLOCK_CHUNKS, c = gl_LocalInvocationIndex % BLOCK_CHUNKS;
    uint along_k = blocks_of(push.k), rows = blocks_of(push.outer);
    uint row = block / along_k, matrix = row / rows;
    uint outer0 = (row - matrix * rows) * SIDE, k0 = (block - row * along_k) * SIDE;
    uint line = c % SIDE, first = c / SIDE * 8u;
    // The stored row and column where the chunk begins, and whether its elements follow each other there.
    uint outer = outer0 + (ACROSS ? first : line), k = k0 + (ACROSS ? line : first);
    uint slow = ALONG ? outer : k, fast = ALONG ? k : outer;
    uint slow_end = ALONG ? push.outer : push.k, fast_end = ALONG ? push.k : push.outer;
    bool follow = ALONG != ACROSS;

    uvec4 x[2] = uvec4[2](uvec4(0u), uvec4(0u));
    if (block < push.blocks) {
        [[unroll]] for (uint h = 0; h < 2; ++h) {
            if (WIDE && follow) {
                if (slow < slow_end && fast + h * 4u < fast_end)
                    x[h] = U32x4(push.from).v[offset_of(matrix, slow, fast + h * 4u) / 4u];
                continue;
            }
            [[unroll]] for (uint j = 0; j < 4; ++j) {
                uint e = h * 4u + j, s = slow + (follow ? 0u : e), f = fast + (follow ? e : 0u);
                if (s < slow_end && f < fast_end)
                    x[h][j] = U32(push.from).v[offset_of(matrix, s, f)];
            }
        }
    }

    uint most = largest8(x[0], x[1]);
    numbers[gl_LocalInvocationIndex / 4u][gl_LocalInvocationIndex % 4u] = most;
    barrier();
    uvec4 all = uvec4(0u);
    [[unroll]] for (uint i = 0; i < BLOCK_CHUNKS / 4u; ++i)
        all = max(all, numbers[gl_LocalInvocationIndex / BLOCK_CHUNKS * (BLOCK_CHUNKS / 4u) + i]);
    if (block >= push.blocks)
        return;
    uint exponent = scale_exponent(max(max(all.x, all.y), max(all.z, all.w)), 0u);
    uvec4 high, low;
    split8(x[0], x[1], scale_of(exponent), high, low);
    U32x4(push.to).v[block * BLOCK_WORDS + c] = high;
    U32x4(push.to).v[block * BLOCK_WORDS + BLOCK_CHUNKS + c] = low;
    if (c == 0u)
        F32(push.to).v[push.blocks * BLOCK_WORDS * 4u + block] = undo_of(exponent);
}
