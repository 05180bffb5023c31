// kernel: gemm_split
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "gemm_split.push.h"
#include "halves.glsl"

// A matrix that products of precision high read, split before them (halves.glsl). An invocation makes one chunk, 32 a block;
// edges are filled with zeros.
//
// Floor: the bytes of the matrix, read and written once.
layout(constant_id = 3) const uint THREADS = 128;
layout(constant_id = 4) const bool TURNED = false; // the halves are those of the transposed matrix
layout(constant_id = 5) const bool WIDE = false;   // chunks are read as two vectors
layout(constant_id = 6) const uint PLANE = 0;      // columns are pixels of images that have so many: [image][row][PLANE]
layout(constant_id = 7) const uint LINE = 0;       // and, unless they follow each other, a line of them so many,
layout(constant_id = 8) const uint LINE_STEP = 0;  // lines and pixels so far apart
layout(constant_id = 9) const uint PIXEL_STEP = 0;

const uint BLOCKS = THREADS / BLOCK_CHUNKS;
shared uvec4 numbers[THREADS / 4u];

uint offset_of(uint matrix, uint row, uint column)
{
    if (PLANE == 0u)
        return matrix * push.matrix + row * push.ld + column;
    uint image = column / max(PLANE, 1u), pixel = column - image * PLANE; // compiled with 0 as well
    if (LINE != 0u)
        pixel = pixel / max(LINE, 1u) * LINE_STEP + pixel % max(LINE, 1u) * PIXEL_STEP;
    return image * push.matrix + row * push.ld + pixel;
}

void main()
{
    uint block = linear_group() * BLOCKS + gl_LocalInvocationIndex / BLOCK_CHUNKS, c = gl_LocalInvocationIndex % BLOCK_CHUNKS;
    uint across = blocks_of(TURNED ? push.rows : push.columns), down = blocks_of(TURNED ? push.columns : push.rows);
    uint line_of_blocks = block / across, matrix = line_of_blocks / down;
    uint first_row = (line_of_blocks - matrix * down) * SIDE, first_column = (block - line_of_blocks * across) * SIDE;
    // Where the chunk begins in the matrix as stored.
    uint line = c % SIDE, first = c / SIDE * 8u;
    uint row = TURNED ? first_column + first : first_row + line, column = TURNED ? first_row + line : first_column + first;

    uvec4 x[2] = uvec4[2](uvec4(0u), uvec4(0u));
    if (block < push.blocks) {
        [[unroll]] for (uint h = 0; h < 2; ++h) {
            if (WIDE) {
                if (row < push.rows && column + h * 4u < push.columns)
                    x[h] = U32x4(push.from).v[offset_of(matrix, row, column + h * 4u) / 4u];
                continue;
            }
            [[unroll]] for (uint j = 0; j < 4; ++j) {
                uint e = h * 4u + j, r = row + (TURNED ? e : 0u), s = column + (TURNED ? 0u : e);
                if (r < push.rows && s < push.columns)
                    x[h][j] = U32(push.from).v[offset_of(matrix, r, s)];
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
