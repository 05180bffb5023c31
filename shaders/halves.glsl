// float32 numbers as two halves, x = (high + low) * undo: what the kernels of precision high share.
//
// 16 rows of A or columns of B and 16 k are a block with one undo, the power of two whose inverse brings the block's largest
// element to 2^14 .. 2^15. An element 2^-17 of the largest keeps 21 bits; below that the error stays 2^-40 of the largest.
// Infinities and NaN do not count and make their sums NaN.
//
// A matrix split before its products lies in blocks of 64 words of 16 bytes: word c, chunk c's eight high halves, word 32 + c
// its low ones. Chunk c is eight neighbours of the block's row c % 16, the first ones or, from chunk 16 on, the last. Blocks
// follow each other as elements do, rows behind each other; behind them all lie their undos in the same order. So whoever reads
// the matrix, as A or B or transposed, finds the same halves.
#ifndef HALVES_GLSL
#define HALVES_GLSL

const uint SIDE = 16u;         // of a block
const uint BLOCK_CHUNKS = 32u; // SIDE * SIDE / 8
const uint BLOCK_WORDS = 64u;  // of 16 bytes

uint blocks_of(uint extent) { return (extent + SIDE - 1u) / SIDE; }

uvec4 pack8(vec4 x, vec4 y)
{
    return uvec4(packHalf2x16(x.xy), packHalf2x16(x.zw), packHalf2x16(y.xy), packHalf2x16(y.zw));
}

// Bits of float32 rounded to the nearest bfloat16, of two equally near the even one; NaN stays one.
uvec4 round_bfloat(uvec4 x)
{
    uvec4 y = x + 0x7fffu + (x >> 16u & 1u);
    return mix(y, x | 0x400000u, greaterThan(x & 0x7fffffffu, uvec4(0x7f800000u))) >> 16u;
}

uvec4 pack8_bfloat(uvec4 x, uvec4 y)
{
    uvec4 f = round_bfloat(x), g = round_bfloat(y);
    return uvec4(f.x | f.y << 16u, f.z | f.w << 16u, g.x | g.y << 16u, g.z | g.w << 16u);
}

// Eight elements: their high halves, and what those leave. The high ones are cut off by their bits, for a compiler may take
// the way to a half and back for nothing.
void split8(uvec4 x, uvec4 y, float scale, out uvec4 high, out uvec4 low)
{
    vec4 f = uintBitsToFloat(x) * scale, g = uintBitsToFloat(y) * scale;
    vec4 fh = uintBitsToFloat(floatBitsToUint(f) & 0xffffe000u), gh = uintBitsToFloat(floatBitsToUint(g) & 0xffffe000u);
    high = pack8(fh, gh);
    low = pack8(f - fh, g - gh);
}

bool is_finite(float x) { return (floatBitsToUint(x) & 0x7fffffffu) < 0x7f800000u; }

uint largest_finite4(uvec4 x)
{
    uvec4 y = x & 0x7fffffffu;
    y = mix(y, uvec4(0u), greaterThanEqual(y, uvec4(0x7f800000u)));
    return max(max(y.x, y.y), max(y.z, y.w));
}

// Bits of the largest absolute value of eight; what is not finite counts as 0.
uint largest8(uvec4 x, uvec4 y)
{
    vec4 f = max(abs(uintBitsToFloat(x)), abs(uintBitsToFloat(y)));
    float most = max(max(f.x, f.y), max(f.z, f.w));
    return is_finite(most) ? floatBitsToUint(most) : max(largest_finite4(x), largest_finite4(y));
}

float power_of_two(uint exponent) { return uintBitsToFloat(exponent << 23); } // biased
// Of a block whose largest element has these bits, or is as much smaller than 2^room times that.
uint scale_exponent(uint largest, uint room) { return min(268u - max(largest >> 23, 1u) - room, 253u); }
float scale_of(uint exponent) { return power_of_two(exponent); }
float undo_of(uint exponent) { return power_of_two(254u - exponent); }

#endif
