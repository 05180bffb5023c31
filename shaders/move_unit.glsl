// What the movers share: a unit of copying (UNIT bytes, by -DUNIT), and division by a number the host prepared.
#ifndef MOVE_UNIT_GLSL
#define MOVE_UNIT_GLSL

#if UNIT == 16
#define Unit uvec4
#define Units U32x4
#define UNIT_ZERO uvec4(0u)
#elif UNIT == 8
#define Unit uvec2
#define Units U32x2
#define UNIT_ZERO uvec2(0u)
#elif UNIT == 4
#define Unit uint
#define Units U32
#define UNIT_ZERO 0u
#elif UNIT == 2
#extension GL_EXT_shader_16bit_storage : require
#extension GL_EXT_shader_explicit_arithmetic_types_int16 : require
layout(buffer_reference, std430, buffer_reference_align = 2) buffer Halves { uint16_t v[]; };
#define Unit uint16_t
#define Units Halves
#define UNIT_ZERO uint16_t(0)
#endif

// n / d for n < 2^31, with multiplier floor(2^32 (2^shift - d) / d) + 1 and shift = ceil(log2 d) of the divisor d:
// Granlund and Montgomery, "Division by Invariant Integers using Multiplication", 1994, figure 4.1.
uint divide(uint n, uint multiplier, uint shift)
{
    uint high, low;
    umulExtended(n, multiplier, high, low);
    return (high + n) >> shift;
}

#endif
