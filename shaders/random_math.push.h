/*
 * Random words into numbers, one text for C (ops/random.c) and GLSL (random.comp), so that host and device give the same
 * bits: additions, multiplications and conversions alone, which Vulkan and IEEE 754 round alike, each rounded by itself
 * (EXACT; the C side is compiled without contraction), and a square root that is mended where a device's may be off.
 * Polynomials are those of math.glsl, with the errors named there.
 */
#ifdef GL_core_profile
#define EXACT precise float
#define FUNCTION(type) type
#define WORD uint
#define TO_INT(w) int(w)
#define TO_FLOAT(i) float(i)
#define BITS_OF(x) floatBitsToInt(x)
#define FLOAT_OF(bits) intBitsToFloat(bits)

// The square root of x = 0 or 2^-60 <= x < 2^60, correctly rounded; a built-in one may be off by units in the last place.
// x is an integer m of 47 or 48 bits times 4^k; its last 32 bits are enough to see how far root^2 is from it.
float random_root(float x)
{
    int bits = floatBitsToInt(x), e = (bits >> 23) - 127, places = 23 + (e & 1), k = (e - 23 - places) / 2;
    uint m = (uint(bits & 0x7fffff) | 0x800000u) << places;
    uint root = uint(sqrt(x) * intBitsToFloat((127 - k) << 23));
    int rest = int(m - root * root);
    for (int i = 0; i < 16 && (rest < 0 || rest > int(2u * root)); i++) {
        root = rest < 0 ? root - 1u : root + 1u;
        rest = int(m - root * root);
    }
    root += rest > int(root) ? 1u : 0u; // above root + 1/2
    return x > 0.0 ? float(root) * intBitsToFloat((127 + k) << 23) : x;
}
#else
#include <math.h>
#include <stdint.h>
#include <string.h>
#define EXACT float
#define FUNCTION(type) static inline type
#define WORD uint32_t
#define TO_INT(w) (int32_t)(w)
#define TO_FLOAT(i) (float)(i)
#define BITS_OF(x) random_bits(x)
#define FLOAT_OF(bits) random_float(bits)

static inline int32_t random_bits(float x)
{
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float random_float(int32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline float random_root(float x)
{
    return sqrtf(x);
}
#endif

#define RANDOM_UNIFORM 0u
#define RANDOM_NORMAL 1u
#define RANDOM_GUMBEL 2u

/* The natural logarithm of a positive normal x = 2^k (1 + s), 1 + s between sqrt(1/2) and sqrt(2). */
FUNCTION(float) random_log(float x)
{
    int bits = BITS_OF(x), k = (bits - 0x3f3504f3) >> 23;
    EXACT e = TO_FLOAT(k);
    EXACT s = FLOAT_OF(bits - k * 0x800000) - 1.0f;
    EXACT p = -7.634492964e-02f;
    p = p * s + 1.276157498e-01f;
    p = p * s - 1.316018254e-01f;
    p = p * s + 1.420175880e-01f;
    p = p * s - 1.662335694e-01f;
    p = p * s + 2.000122666e-01f;
    p = p * s - 2.500081956e-01f;
    p = p * s + 3.333333135e-01f;
    p = s + s * s * (s * p - 0.5f);
    p = (p - e * 2.12194440e-04f) + e * 0.693359375f;
    return p;
}

/* sin(2 pi w / 2^32) of the highest 24 bits of w: the nearest quarter turn, and what is left of it, at most pi/4. */
FUNCTION(float) random_sine(WORD w)
{
    WORD turned = w + 0x20000000u;
    EXACT r = TO_FLOAT(TO_INT((turned >> 8) & 0x3fffffu) - 0x200000) * 3.745070282e-07f; /* pi/2 2^-22 */
    EXACT s = r * r;
    EXACT odd = 2.718237283e-06f;
    odd = odd * s - 1.983932743e-04f;
    odd = odd * s + 8.333329111e-03f;
    odd = odd * s - 1.666666716e-01f;
    odd = r + r * s * odd;
    EXACT even = -2.720954626e-07f;
    even = even * s + 2.479951218e-05f;
    even = even * s - 1.388888340e-03f;
    even = even * s + 4.166666791e-02f;
    even = 1.0f + s * (s * even - 0.5f);
    EXACT y = (turned & 0x40000000u) == 0u ? odd : even;
    return (turned & 0x80000000u) == 0u ? y : -y;
}

/* In [0, 1), a multiple of 2^-24. */
FUNCTION(float) random_unit(WORD w) { return TO_FLOAT(w >> 8) * 0.000000059604644775390625f; }

/* Two words, two numbers of mean 0 and deviation 1 (Box and Muller): the one with the cosine, or the other. */
FUNCTION(float) random_normal(WORD w0, WORD w1, bool cosine)
{
    EXACT square = -2.0f * random_log(TO_FLOAT((w0 >> 8) + 1u) * 0.000000059604644775390625f);
    EXACT y = random_root(square) * random_sine(cosine ? w1 + 0x40000000u : w1);
    return y;
}

/* -log(-log(u)) of an odd multiple u of 2^-24. */
FUNCTION(float) random_gumbel(WORD w)
{
    EXACT u = TO_FLOAT((w >> 8) | 1u) * 0.000000059604644775390625f;
    return -random_log(-random_log(u));
}
