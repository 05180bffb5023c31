// 16-bit floats in the low half of a word, from the bits of a float32, rounded to nearest even: what packHalf2x16 rounds
// to is the driver's choice.
#ifndef HALF_GLSL
#define HALF_GLSL

uint half_bits(uint u)
{
    uint sign = u >> 16 & 0x8000u, m = u & 0x7fffffffu;
    uint normal = (m + 0xfffu + (m >> 13 & 1u) - 0x38000000u) >> 13;
    uint tiny = floatBitsToUint(uintBitsToFloat(m) + 0.5) - 0x3f000000u; // the addition rounds at 2^-24
    uint y = m < 0x38800000u ? tiny : normal;
    y = m >= 0x477ff000u ? 0x7c00u : y; // rounds to 65536 or above
    y = m > 0x7f800000u ? 0x7e00u : y;
    return sign | y;
}

uint bfloat_bits(uint u)
{
    bool nan = (u & 0x7fffffffu) > 0x7f800000u;
    return nan ? u >> 16 | 0x40u : (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
}

#endif
