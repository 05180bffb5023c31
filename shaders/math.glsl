// Elementary functions with the accuracy of a host's single-precision library (1 to 2 units in the last place), because
// Vulkan promises little about the built-in ones and devices differ. Polynomials were fitted for this file (Lawson's
// iteration on Chebyshev nodes in double precision); the error named is the fit's, relative. Comparisons are written so
// that NaN passes through. What is precise must not be rearranged: its parts cancel.
#ifndef MATH_GLSL
#define MATH_GLSL

bool is_nan(float x) { return (floatBitsToUint(x) & 0x7fffffffu) > 0x7f800000u; }

// a / b correctly rounded where Vulkan allows 2.5 units in the last place: what the quotient leaves, divided in turn. The
// product is taken apart exactly (Dekker 1971), for a device's fma may round twice. Where the result is no number (infinite,
// 0, huge or subnormal operands) the quotient stands, and 0 keeps its sign.
float divide_precise(float a, float b)
{
    precise float q = a / b, product = q * b;
    precise float wide_q = q * 4097.0, wide_b = b * 4097.0;
    precise float high_q = wide_q - (wide_q - q), high_b = wide_b - (wide_b - b);
    precise float low_q = q - high_q, low_b = b - high_b;
    precise float lost = ((high_q * high_b - product) + high_q * low_b + low_q * high_b) + low_q * low_b;
    precise float y = q + ((a - product) - lost) / b;
    return q == 0.0 || is_nan(y) || isinf(q) || isinf(y) ? q : y;
}

// 2^k for -252 <= k <= 254, in two factors because a single one may not be representable.
float scale(float x, int k)
{
    int h = k / 2;
    return x * uintBitsToFloat(uint(h + 127) << 23) * uintBitsToFloat(uint(k - h + 127) << 23);
}

// exp(r) - 1 for |r| <= ln(2)/2: r + r^2 q(r), 1.4e-8.
float expm1_near(float r)
{
    float q = 1.394649618e-03;
    q = q * r + 8.366610855e-03;
    q = q * r + 4.166628048e-02;
    q = q * r + 1.666654348e-01;
    q = q * r + 0.5;
    return r + r * r * q;
}

// x = k ln(2) + r; ln(2) in two parts, the first short enough for its product with k to be exact.
float reduce_exp(float x, out int k)
{
    float n = roundEven(x * 1.44269504);
    k = int(n);
    precise float r = (x - n * 0.693359375) + n * 2.12194440e-04;
    return r;
}

// Beyond these bounds the result is infinite or 0 anyway.
float clamp_exp(float x) { return x > 100.0 ? 100.0 : (x < -110.0 ? -110.0 : x); }

float exp_precise(float x)
{
    int k;
    float r = reduce_exp(clamp_exp(x), k);
    return scale(1.0 + expm1_near(r), k);
}

// x = 2^e (1 + s) with 1 + s between sqrt(1/2) and sqrt(2), for positive normal x.
float split_power(float x, out float e)
{
    int bits = floatBitsToInt(x);
    int k = (bits - 0x3f3504f3) >> 23;
    e = float(k);
    return intBitsToFloat(bits - (k << 23)) - 1.0;
}

// log(1 + s) = s - s^2/2 + s^3 P(s) for the s of split_power, 5.9e-9.
float log1p_near(float s)
{
    float p = -7.634492964e-02;
    p = p * s + 1.276157498e-01;
    p = p * s - 1.316018254e-01;
    p = p * s + 1.420175880e-01;
    p = p * s - 1.662335694e-01;
    p = p * s + 2.000122666e-01;
    p = p * s - 2.500081956e-01;
    p = p * s + 3.333333135e-01;
    return s + s * s * (s * p - 0.5);
}

float log_precise(float x)
{
    bool tiny = x < 1.17549435e-38;
    float e;
    float s = split_power(tiny ? x * 8388608.0 : x, e);
    e -= tiny ? 23.0 : 0.0;
    precise float y = (log1p_near(s) - e * 2.12194440e-04) + e * 0.693359375;
    if (!(x > 0.0))
        return x == 0.0 ? uintBitsToFloat(0xff800000u) : uintBitsToFloat(0x7fc00000u);
    return x < uintBitsToFloat(0x7f800000u) ? y : x;
}

// |a|^b for a > 0, finite and normal. b log2(a) is taken apart so that its whole part loses no digits.
float power(float a, float b)
{
    float e;
    float l = log1p_near(split_power(a, e)) * 1.44269504;
    float whole = roundEven(b * (e + l));
    float n = whole > 200.0 ? 200.0 : (whole < -200.0 ? -200.0 : whole);
    float upper = uintBitsToFloat(floatBitsToUint(b) & 0xfffff000u); // products of either half with e are exact
    precise float r = ((upper * e - n) + (b - upper) * e) + b * l;
    float near = clamp(r, -0.51, 0.51); // does something only where n was clamped
    return scale(1.0 + expm1_near(near * 0.693147181), int(n));
}

float pow_precise(float a, float b)
{
    const float infinity = uintBitsToFloat(0x7f800000u);
    float m = abs(a);
    bool whole = floor(b) == b;
    bool odd = whole && abs(b) < 16777216.0 && (int(b) & 1) != 0;
    float y = power(m, b);
    if (m == 0.0 || m == infinity)
        y = (m == 0.0) == (b < 0.0) ? infinity : 0.0;
    if (b == infinity || b == -infinity)
        y = (m > 1.0) == (b > 0.0) ? infinity : 0.0;
    if (m == 1.0)
        y = 1.0;
    if (is_nan(a) || is_nan(b) || (a < 0.0 && !whole && m != infinity))
        y = uintBitsToFloat(0x7fc00000u);
    if (b == 0.0 || a == 1.0)
        return 1.0;
    return a < 0.0 && odd ? -y : y;
}

// r and quadrant of a large x: its mantissa times those 96 bits of 2/pi that matter, for the bits above only add
// multiples of 4 quadrants (Payne and Hanek).
float reduce_large_angle(float x, out uint quadrant)
{
    uint bits = floatBitsToUint(x);
    uint mantissa = (bits & 0x7fffffu) | 0x800000u;
    uint from = min((bits >> 23 & 255u) - 120u, 159u); // |x| = mantissa 2^(exponent - 150); 32 zeros stand before 2/pi
    // words from / 32 to from / 32 + 3 of {0, a2f9836e, 4e441529, fc2757d1, f534ddc0, db629599, 3c439041, fe5163ab}
    bool four = (from & 128u) != 0u, two = (from & 64u) != 0u, one = (from & 32u) != 0u;
    uvec4 a = four ? uvec4(0xf534ddc0u, 0xdb629599u, 0x3c439041u, 0xfe5163abu)
                   : uvec4(0u, 0xa2f9836eu, 0x4e441529u, 0xfc2757d1u);
    a = two ? uvec4(a.zw, 0xf534ddc0u, 0xdb629599u) : a;
    a = one ? uvec4(a.yzw, two ? 0x3c439041u : 0xf534ddc0u) : a;
    uint s = from & 31u;
    uvec3 w = a.xyz << s | (a.yzw >> 1) >> (31u - s);
    uint h1, l1, h2, l2, carry;
    umulExtended(mantissa, w.y, h1, l1);
    umulExtended(mantissa, w.z, h2, l2);
    uint low = uaddCarry(l1, h2, carry);
    uint high = mantissa * w.x + h1 + carry; // in units of 2^-30 quadrants, modulo 4
    int fraction = int(high << 2 | low >> 30);
    quadrant = (high >> 30) + (fraction < 0 ? 1u : 0u);
    quadrant = x < 0.0 ? 0u - quadrant : quadrant;
    float r = float(x < 0.0 ? -fraction : fraction) * 3.657295198e-10; // pi/2 2^-32
    return (bits & 0x7fffffffu) >= 0x7f800000u ? uintBitsToFloat(0x7fc00000u) : r;
}

// x = (4 n + quadrant) pi/2 + r, |r| <= pi/4; up to some thousand by subtracting pi/2 in three parts that are short
// enough for exact products (Cody and Waite).
float reduce_angle(float x, out uint quadrant)
{
    float n = roundEven(x * 0.636619772);
    precise float r = ((x - n * 1.5703125) - n * 4.83751297e-04) - n * 7.54978995e-08;
    quadrant = uint(int(n));
    return abs(x) < 3000.0 ? r : reduce_large_angle(x, quadrant);
}

// sin(r) and cos(r) for |r| <= pi/4, 5e-12.
float sin_near(float r)
{
    float s = r * r;
    float p = 2.718237283e-06;
    p = p * s - 1.983932743e-04;
    p = p * s + 8.333329111e-03;
    p = p * s - 1.666666716e-01;
    return r + r * s * p;
}

float cos_near(float r)
{
    float s = r * r;
    float p = -2.720954626e-07;
    p = p * s + 2.479951218e-05;
    p = p * s - 1.388888340e-03;
    p = p * s + 4.166666791e-02;
    return 1.0 + s * (s * p - 0.5);
}

// sin(x + turns pi/2): 0 is the sine, 1 the cosine.
float sin_turned(float x, uint turns)
{
    uint quadrant;
    float r = reduce_angle(x, quadrant);
    quadrant += turns;
    float y = (quadrant & 1u) == 0u ? sin_near(r) : cos_near(r);
    return (quadrant & 2u) == 0u ? y : -y;
}

// The error function in two parts. |x| <= 1: erf(x) = x P(x^2), 4.0e-8.
float erf_near(float x)
{
    float s = x * x;
    float p = -5.631421809e-04;
    p = p * s + 4.917551298e-03;
    p = p * s - 2.671131119e-02;
    p = p * s + 1.128017977e-01;
    p = p * s - 3.761232495e-01;
    p = p * s + 1.128379107e+00;
    return x * p;
}

// 1 <= t <= 10: erfc(t) = exp(-t^2) k Q(k) with k = 1 / (1 + 0.4 t), 3.1e-8; without the exponential. The product keeps
// its relative precision down to the smallest float, which 1 - erf(t) would not.
float erfc_factor(float t)
{
    float k = 1.0 / (1.0 + 0.4 * t);
    float q = -1.167987287e-01;
    q = q * k + 2.450633794e-01;
    q = q * k + 6.664021406e-03;
    q = q * k + 2.139567882e-01;
    q = q * k + 1.985026002e-01;
    q = q * k + 2.267371267e-01;
    q = q * k + 2.256241590e-01;
    return k * q;
}

// tanh(x) for |x| <= 0.6, where forms with an exponential cancel: x P(x^2), 2.5e-9.
float tanh_near(float x)
{
    float s = x * x;
    float p = -5.852168426e-03;
    p = p * s + 2.075362764e-02;
    p = p * s - 5.376870558e-02;
    p = p * s + 1.333168894e-01;
    p = p * s - 3.333328366e-01;
    return x + x * s * p;
}

// a modulo b with the sign of a, exact: long division of the mantissas, 8 bits at a time.
float fmod_precise(float a, float b)
{
    uint x = floatBitsToUint(a) & 0x7fffffffu, y = floatBitsToUint(b) & 0x7fffffffu;
    if (x >= 0x7f800000u || y > 0x7f800000u || y < 0x800000u)
        return uintBitsToFloat(0x7fc00000u);
    if (x < y)
        return a;
    uint n = (x >> 23) - (y >> 23);
    uint d = (y & 0x7fffffu) | 0x800000u;
    uint r = ((x & 0x7fffffu) | 0x800000u) % d;
    while (n > 0u) {
        uint s = min(n, 8u);
        r = (r << s) % d;
        n -= s;
    }
    // r 2^(exponent of b - 23), built from two exact factors
    float z = scale(float(r), int(y >> 23) - 150);
    return a < 0.0 ? -z : z;
}

#endif
