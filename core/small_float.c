/*
 * Floats of 4 and 8 bits, by their fields: sign, exponent, mantissa. Values are as in ONNX: "fn" types have no
 * infinities, "uz" types one zero and their NaN where the other zero would be. float8e8m0 is a power of two alone.
 */
#include <math.h>
#include <string.h>

#include "core/tensor.h"

typedef struct format {
    int mantissa;     /* bits */
    int bias;         /* of the exponent */
    double most;      /* largest finite number */
    uint8_t sign;     /* bit */
    uint8_t nan;      /* bits of a NaN; 0: there is none */
    uint8_t infinity; /* bits; 0: there is none */
    bool negative_zero;
} format;

static format format_of(hk_dtype t)
{
    switch (t) {
    case HK_FLOAT8E4M3FN: return (format){3, 7, 448, 0x80, 0x7f, 0, true};
    case HK_FLOAT8E4M3FNUZ: return (format){3, 8, 240, 0x80, 0x80, 0, false};
    case HK_FLOAT8E5M2: return (format){2, 15, 57344, 0x80, 0x7e, 0x7c, true};
    case HK_FLOAT8E5M2FNUZ: return (format){2, 16, 57344, 0x80, 0x80, 0, false};
    default: return (format){1, 1, 6, 0x08, 0, 0, true}; /* float4e2m1 */
    }
}

static bool is_nan(const format *f, uint8_t bits)
{
    uint8_t magnitude = bits & (uint8_t)(f->sign - 1u);
    if (!f->negative_zero)
        return bits == f->nan;
    return f->nan && (f->infinity ? magnitude > f->infinity : magnitude == f->nan);
}

double hk_small_to_double(hk_dtype t, uint8_t bits)
{
    if (t == HK_FLOAT8E8M0)
        return bits == 0xff ? NAN : ldexp(1.0, bits - 127);
    const format f = format_of(t);
    int magnitude = bits & (f.sign - 1), exponent = magnitude >> f.mantissa;
    if (is_nan(&f, bits))
        return NAN;
    int fraction = magnitude & ((1 << f.mantissa) - 1);
    double x = exponent ? ldexp((1 << f.mantissa) + fraction, exponent - f.bias - f.mantissa)
                        : ldexp(fraction, 1 - f.bias - f.mantissa);
    if (f.infinity && magnitude == f.infinity)
        x = INFINITY;
    return bits & f.sign ? -x : x;
}

/* Beyond the largest number, after rounding. */
static uint8_t overflow(const format *f, uint8_t sign, uint8_t largest, bool saturate)
{
    if (saturate || (!f->nan && !f->infinity))
        return sign | largest;
    if (f->infinity)
        return sign | f->infinity;
    return f->negative_zero ? sign | f->nan : f->nan;
}

uint8_t hk_small_from_double(hk_dtype t, double x, bool saturate)
{
    if (t == HK_FLOAT8E8M0)
        return hk_e8m0_from_float((float)x, saturate, HK_E8M0_UP);
    const format f = format_of(t);
    uint8_t sign = signbit(x) ? f.sign : 0;
    if (isnan(x)) /* float4e2m1 has none: its negative zero, as in the reference implementation */
        return f.nan ? (f.negative_zero ? sign | f.nan : f.nan) : f.sign;
    int least = 1 - f.bias;
    double most = f.most, a = fabs(x);
    uint8_t largest = (uint8_t)(((ilogb(most) + f.bias) << f.mantissa) |
                                ((int)ldexp(most, f.mantissa - ilogb(most)) & ((1 << f.mantissa) - 1)));
    if (isinf(a))
        return overflow(&f, sign, largest, saturate);
    int exponent = a > 0 ? HK_MAX(ilogb(a), least) : least;
    double unit = ldexp(1.0, exponent - f.mantissa), rounded = nearbyint(a / unit) * unit; /* halves to even */
    if (rounded > most)
        return overflow(&f, sign, largest, saturate);
    if (rounded == 0)
        return f.negative_zero ? sign : 0;
    exponent = ilogb(rounded);
    if (exponent < least)
        return sign | (uint8_t)ldexp(rounded, f.mantissa - least);
    int fraction = (int)ldexp(rounded, f.mantissa - exponent) & ((1 << f.mantissa) - 1);
    return sign | (uint8_t)(((exponent + f.bias) << f.mantissa) | fraction);
}

uint8_t hk_e8m0_from_float(float x, bool saturate, hk_e8m0_rounding rounding)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    uint32_t exponent = u >> 23 & 0xffu, fraction = u & 0x7fffffu;
    if (exponent == 0xff)
        return 0xff;
    bool up = rounding == HK_E8M0_UP && fraction != 0;
    if (rounding == HK_E8M0_NEAREST) /* half way between two powers goes up, but for the least one */
        up = fraction > 0x400000u || (fraction == 0x400000u && exponent > 0);
    if (up && exponent == 0xfe && saturate)
        up = false;
    return (uint8_t)(exponent + up);
}
