// The elementwise functions of chain_codes.push.h, on one element's bits. Code and class are specialization constants
// in every caller, so a driver keeps one case. Selections instead of branches, because a driver pays for every branch
// before it knows that it is constant; only what has a loop in it is in one.
#ifndef CHAIN_APPLY_GLSL
#define CHAIN_APPLY_GLSL

#include "math.glsl"
#ifdef HALF
#include "half.glsl"
#endif
#ifdef RARE
#include "math_rare.glsl"
#endif
#include "chain_codes.push.h"

#define CHAIN_CODE(name, number, operands, meaning) const uint CODE_##name = number;
CHAIN_CODE_MAP(CHAIN_CODE)
#define CHAIN_CLASS(name, number) const uint CLASS_##name = number;
CHAIN_CLASS_MAP(CHAIN_CLASS)

#define CASE(name, value) y = mix(y, value, code == CODE_##name);
#define CASE_LONG(name, value) y = mix(y, value, bvec2(code == CODE_##name));

// ---- floats. All that need an exponential, a logarithm or a power share one instance of it: what a pipeline costs to
// create is the size of this code times the steps, before the driver drops what the constants rule out.

float clip(float x, float low, float high)
{
    float y = x < low ? low : x;
    return y > high ? high : y;
}

float min_nan(float a, float b) { return is_nan(a) || a <= b ? a : b; }
float max_nan(float a, float b) { return is_nan(a) || a >= b ? a : b; }

float arithmetic(uint code, float a, float b, float c)
{
    float y = a;
    CASE(ADD, a + b)
    CASE(SUB, a - b)
    CASE(MUL, a * b)
    CASE(DIV, divide_precise(a, b))
    CASE(MIN, min_nan(a, b))
    CASE(MAX, max_nan(a, b))
    CASE(NEG, -a)
    CASE(ABS, abs(a))
    CASE(SIGN, a > 0.0 ? 1.0 : (a < 0.0 ? -1.0 : a))
    CASE(CLIP, clip(a, b, c))
    CASE(RECIPROCAL, 1.0 / a)
    CASE(SQRT, sqrt(a))
    CASE(FLOOR, floor(a))
    CASE(CEIL, ceil(a))
    CASE(ROUND, roundEven(a))
    CASE(RELU, a < 0.0 ? 0.0 : a)
    CASE(LEAKY_RELU, a < 0.0 ? b * a : a)
    CASE(HARD_SIGMOID, clip(b * a + c, 0.0, 1.0))
    CASE(HARD_SWISH, a * clip(a / 6.0 + 0.5, 0.0, 1.0))
    CASE(RELU_GRAD, b > 0.0 ? a : 0.0)
    CASE(LEAKY_RELU_GRAD, b <= 0.0 ? c * a : a)
    CASE(SIGMOID_GRAD, a * b * (1.0 - b))
    CASE(TANH_GRAD, a * (1.0 - b * b))
    CASE(HARD_SIGMOID_GRAD, b > 0.0 && b < 1.0 ? c * a : 0.0)
    CASE(HARD_SWISH_GRAD, b <= -3.0 ? 0.0 : (b >= 3.0 ? a : a * (b / 3.0 + 0.5)))
    CASE(CLIP_GRAD, b == c ? a : 0.0)
    if (code == CODE_FMOD)
        y = fmod_precise(a, b);
    return y;
}

// u of x / (1 + exp(-u)), the tanh form of Gelu: (1 + tanh(v)) / 2 = 1 / (1 + exp(-2v)).
float gelu_tanh_argument(float x) { return 1.59576912 * (x + 0.044715 * x * x * x); }

// What is exponentiated. Mish needs no more than 20: tanh(softplus(20)) is 1 in single precision.
float exponent(uint code, float a, float b, float c)
{
    float y = a;
    CASE(SIGMOID, -a)
    CASE(TANH, -2.0 * abs(a))
    CASE(ERF, -a * a)
    CASE(GELU, -0.5 * a * a)
    CASE(GELU_GRAD, -0.5 * b * b)
    CASE(GELU_TANH, -gelu_tanh_argument(a))
    CASE(GELU_TANH_GRAD, -gelu_tanh_argument(b))
    CASE(SWISH, -b * a)
    CASE(SWISH_GRAD, -c * b)
    CASE(SOFTPLUS, -abs(a))
    CASE(MISH, min(a, 20.0))
    CASE(MISH_GRAD, min(b, 20.0))
    CASE(ELU_GRAD, b)
    CASE(CELU, a / b)
    CASE(CELU_GRAD, b / c)
#ifdef RARE // above 80 the half, whose square does not overflow before the result does
    if (code == CODE_SINH || code == CODE_COSH)
        y = abs(a) > 80.0 ? 0.5 * abs(a) : abs(a);
#endif
    return y;
}

// exp(t) - 1 for t <= 0, e = exp(t).
float expm1_from(float t, float e) { return t > -0.34 ? expm1_near(t) : e - 1.0; }

float tanh_from(float x, float e)
{
    float far = (1.0 - e) / (1.0 + e);
    return abs(x) < 0.6 ? tanh_near(x) : (x < 0.0 ? -far : far);
}

// erf(z) and the normal distribution function (1 + erf(z)) / 2, e = exp(-z^2).
float erf_from(float z, float e)
{
    float far = 1.0 - erfc_factor(abs(z)) * e;
    return abs(z) < 1.0 ? erf_near(z) : (z < 0.0 ? -far : far);
}
float cdf_from(float z, float e)
{
    float far = 0.5 * (erfc_factor(abs(z)) * e);
    return abs(z) < 1.0 ? 0.5 + 0.5 * erf_near(z) : (z < 0.0 ? far : 1.0 - far);
}

// tanh(softplus(x)) = n / (n + 2) with n = e (e + 2), e = exp(x).
float mish_factor(float e)
{
    float n = e * (e + 2.0);
    return n / (n + 2.0);
}

float mish_derivative(float x, float e)
{
    float n = e * (e + 2.0);
    float d = mish_factor(e) + x * (4.0 * (n + 1.0) / ((n + 2.0) * (n + 2.0))) * (e / (1.0 + e));
    return x > 20.0 ? 1.0 : d;
}

float exponential(uint code, float a, float b, float c)
{
    const float root = 0.707106781;
    float t = exponent(code, a, b, c);
    float e = exp_precise(t);
    float s = 1.0 / (1.0 + e); // the sigmoid of -t
    float z = code == CODE_ERF ? a : (code == CODE_GELU ? a * root : b * root);
    float y = e;
    CASE(TANH, tanh_from(a, e))
    CASE(SIGMOID, s)
    CASE(ERF, erf_from(z, e))
    CASE(GELU, a * cdf_from(z, e))
    CASE(GELU_GRAD, a * (cdf_from(z, e) + b * (0.398942280 * e)))
    CASE(GELU_TANH, a * s)
    CASE(GELU_TANH_GRAD, a * (s + b * s * (1.0 - s) * (1.59576912 * (1.0 + 0.134145 * b * b))))
    CASE(SWISH, a * s)
    CASE(SWISH_GRAD, a * (s + c * b * s * (1.0 - s)))
    CASE(MISH, a > 20.0 ? a : a * mish_factor(e))
    CASE(MISH_GRAD, a * mish_derivative(b, e))
    CASE(ELU, a < 0.0 ? b * expm1_from(t, e) : a)
    CASE(ELU_GRAD, b <= 0.0 ? a * c * e : a)
    CASE(CELU, a < 0.0 ? b * expm1_from(t, e) : a)
    CASE(CELU_GRAD, b < 0.0 ? a * e : a)
#ifdef RARE
    CASE(SINH, sinh_from(a, e))
    CASE(COSH, cosh_from(a, e))
#endif
    return y;
}

// Log of what it is for; for Softplus log(1 + e) with e = exp(-|a|), and what rounding 1 + e lost is put back.
float logarithm(uint code, float a, float b, float c, float e)
{
    precise float u = 1.0 + e;
    precise float lost = e - (u - 1.0);
    float y = log_precise(code == CODE_SOFTPLUS ? u : a);
    if (code == CODE_SOFTPLUS)
        return max(a, 0.0) + (y + lost / u);
    if (code == CODE_POW_EXPONENT_GRAD)
        return a == 0.0 && b >= 0.0 ? 0.0 : c * y;
    return y;
}

#ifdef RARE
// log(1 + u) for u > -1.
float log1p_of(float u)
{
    precise float w = 1.0 + u;
    precise float lost = u - (w - 1.0);
    return u > 1e9 ? log_precise(u) : log_precise(w) + lost / w;
}

float area(uint code, float a)
{
    const float ln2 = 0.693147181, infinity = uintBitsToFloat(0x7f800000u), nan = uintBitsToFloat(0x7fc00000u);
    float m = abs(a), t = a - 1.0, far = log_precise(m) + ln2;
    float u = m + m * m / (1.0 + sqrt(1.0 + m * m)); // of asinh
    if (code == CODE_ACOSH)
        u = t + sqrt(max(t, 0.0) * (t + 2.0));
    if (code == CODE_ATANH)
        u = 2.0 * m / (1.0 - m);
    float y = log1p_of(u);
    if (code == CODE_ATANH)
        y = m < 1.0 ? 0.5 * y : (m == 1.0 ? infinity : nan);
    else
        y = m > 1e9 ? far : y;
    if (code == CODE_ACOSH)
        return a >= 1.0 ? y : nan;
    return a < 0.0 ? -y : (a == 0.0 ? a : y);
}
#endif

// The branches are on constants.
float float_function(uint code, float a, float b, float c)
{
    float y = arithmetic(code, a, b, c);
    if (code >= CODE_EXP && code <= CODE_SOFTPLUS)
        y = exponential(code, a, b, c);
    if (code >= CODE_SOFTPLUS && code <= CODE_POW_EXPONENT_GRAD)
        y = logarithm(code, a, b, c, y);
    if (code == CODE_POW || code == CODE_POW_BASE_GRAD)
        y = pow_precise(a, code == CODE_POW ? b : b - 1.0);
    if (code == CODE_POW_BASE_GRAD)
        y = b == 0.0 ? 0.0 : b * y;
    if (code == CODE_SIN || code == CODE_COS)
        y = sin_turned(a, code == CODE_SIN ? 0u : 1u);
#ifdef RARE
    if (code >= CODE_ASINH && code <= CODE_ATANH)
        y = area(code, a);
    if (code == CODE_ATAN)
        y = atan_precise(a);
    if (code == CODE_ASIN || code == CODE_ACOS)
        y = code == CODE_ASIN ? asin_precise(a) : acos_precise(a);
#endif
    return y;
}

uint int_from_float(float x)
{
    if (x >= 2147483648.0)
        return 0x7fffffffu;
    return x <= -2147483648.0 ? 0x80000000u : (is_nan(x) ? 0u : uint(int(x)));
}

uint uint_from_float(float x)
{
    if (x >= 4294967296.0)
        return 0xffffffffu;
    return x > 0.0 ? uint(x) : 0u;
}

uint apply_float(uint code, uint abits, uint bbits, uint cbits)
{
    float a = uintBitsToFloat(abits), b = uintBitsToFloat(bbits), c = uintBitsToFloat(cbits);
    uint y = floatBitsToUint(float_function(code, a, b, c));
    CASE(EQUAL, a == b ? 1u : 0u)
    CASE(LESS, a < b ? 1u : 0u)
    CASE(LESS_EQUAL, a <= b ? 1u : 0u)
    CASE(WHERE, abits != 0u ? bbits : cbits)
    CASE(TO_INT, int_from_float(a))
    CASE(TO_UINT, uint_from_float(a))
    CASE(TO_BOOL, a != 0.0 ? 1u : 0u)
    CASE(IS_NAN, is_nan(a) ? 1u : 0u)
#ifdef HALF
    CASE(ROUND_HALF, floatBitsToUint(unpackHalf2x16(half_bits(abits)).x))
    CASE(ROUND_BFLOAT, bfloat_bits(abits) << 16)
#endif
    return y;
}

// ---- 32-bit integers and bools

bool int_less(uint a, uint b, bool is_signed) { return is_signed ? int(a) < int(b) : a < b; }

// Truncating; 0 for b = 0, and the one overflow wraps instead of trapping.
uint int_quotient(uint a, uint b, bool is_signed)
{
    if (b == 0u)
        return 0u;
    if (!is_signed)
        return a / b;
    return b == 0xffffffffu ? 0u - a : uint(int(a) / int(b));
}

uint int_mod(uint code, uint a, uint b, bool is_signed)
{
    uint r = b == 0u ? 0u : a - int_quotient(a, b, is_signed) * b;
    bool turn = code == CODE_MOD && is_signed && r != 0u && int(r ^ b) < 0; // the remainder has the dividend's sign
    return turn ? r + b : r;
}

uint int_pow(uint a, uint b, bool is_signed)
{
    if (is_signed && int(b) < 0)
        return a == 1u || (a == 0xffffffffu && (b & 1u) == 0u) ? 1u : (a == 0xffffffffu ? a : 0u);
    uint y = 1u;
    for (int i = 0; i < 32 && b != 0u; i++) {
        y *= (b & 1u) != 0u ? a : 1u;
        a *= a;
        b >>= 1;
    }
    return y;
}

uint int_max(uint a, uint b, bool is_signed) { return int_less(a, b, is_signed) ? b : a; }
uint int_min(uint a, uint b, bool is_signed) { return int_less(b, a, is_signed) ? b : a; }

uint apply_int(uint code, bool is_signed, uint a, uint b, uint c)
{
    uint y = a;
    CASE(ADD, a + b)
    CASE(SUB, a - b)
    CASE(MUL, a * b)
    CASE(MIN, int_min(a, b, is_signed))
    CASE(MAX, int_max(a, b, is_signed))
    CASE(NEG, 0u - a)
    CASE(ABS, is_signed && int(a) < 0 ? 0u - a : a)
    CASE(SIGN, is_signed && int(a) < 0 ? 0xffffffffu : (a != 0u ? 1u : 0u))
    CASE(EQUAL, a == b ? 1u : 0u)
    CASE(LESS, int_less(a, b, is_signed) ? 1u : 0u)
    CASE(LESS_EQUAL, int_less(b, a, is_signed) ? 0u : 1u)
    CASE(WHERE, a != 0u ? b : c)
    CASE(CLIP, int_min(int_max(a, b, is_signed), c, is_signed))
    CASE(NOT, a == 0u ? 1u : 0u)
    CASE(AND, a != 0u && b != 0u ? 1u : 0u)
    CASE(OR, (a | b) != 0u ? 1u : 0u)
    CASE(XOR, (a != 0u) != (b != 0u) ? 1u : 0u)
    CASE(TO_FLOAT, floatBitsToUint(is_signed ? float(int(a)) : float(a)))
    CASE(TO_BOOL, a != 0u ? 1u : 0u)
    CASE(WRAP_INT8, uint(bitfieldExtract(int(a), 0, 8)))
    CASE(WRAP_UINT8, a & 0xffu)
    CASE(WRAP_INT16, uint(bitfieldExtract(int(a), 0, 16)))
    CASE(WRAP_UINT16, a & 0xffffu)
#ifdef RARE
    CASE(SHIFT_LEFT, b < 32u ? a << (b & 31u) : 0u)
    CASE(SHIFT_RIGHT, b < 32u ? a >> (b & 31u) : 0u)
    CASE(BIT_AND, a & b)
    CASE(BIT_OR, a | b)
    CASE(BIT_XOR, a ^ b)
    CASE(BIT_NOT, ~a)
#endif
    if (code == CODE_DIV)
        y = int_quotient(a, b, is_signed);
    if (code == CODE_MOD || code == CODE_FMOD)
        y = int_mod(code, a, b, is_signed);
    if (code == CODE_POW)
        y = int_pow(a, b, is_signed);
    return y;
}

// ---- 64-bit integers: registers are then (low, high) pairs, and 32-bit results leave the upper half alone

#ifdef WIDE
#include "chain_long.glsl"

uvec2 long_min(uvec2 a, uvec2 b, bool is_signed) { return long_less(b, a, is_signed) ? b : a; }
uvec2 long_max(uvec2 a, uvec2 b, bool is_signed) { return long_less(a, b, is_signed) ? b : a; }

uvec2 long_mod(uint code, uvec2 a, uvec2 b, bool is_signed)
{
    uvec2 r;
    long_quotient(a, b, is_signed, r);
    bool turn = code == CODE_MOD && is_signed && (r.x | r.y) != 0u && int(r.y ^ b.y) < 0;
    return turn ? long_add(r, b) : r;
}

uvec2 apply_long(uint code, bool is_signed, uvec2 a, uvec2 b, uvec2 c)
{
    uvec2 y = a; // TO_INT and TO_UINT: the low word
    CASE_LONG(ADD, long_add(a, b))
    CASE_LONG(SUB, long_sub(a, b))
    CASE_LONG(MUL, long_mul(a, b))
    CASE_LONG(MIN, long_min(a, b, is_signed))
    CASE_LONG(MAX, long_max(a, b, is_signed))
    CASE_LONG(NEG, long_neg(a))
    CASE_LONG(ABS, long_abs(a, is_signed))
    CASE_LONG(SIGN, long_negative(a, is_signed) ? uvec2(0xffffffffu) : uvec2((a.x | a.y) != 0u ? 1u : 0u, 0u))
    CASE_LONG(EQUAL, uvec2(a == b ? 1u : 0u, 0u))
    CASE_LONG(LESS, uvec2(long_less(a, b, is_signed) ? 1u : 0u, 0u))
    CASE_LONG(LESS_EQUAL, uvec2(long_less(b, a, is_signed) ? 0u : 1u, 0u))
    CASE_LONG(WHERE, a.x != 0u ? b : c)
    CASE_LONG(CLIP, long_min(long_max(a, b, is_signed), c, is_signed))
    CASE_LONG(TO_FLOAT, uvec2(floatBitsToUint(long_to_float(a, is_signed)), 0u))
    CASE_LONG(TO_BOOL, uvec2((a.x | a.y) != 0u ? 1u : 0u, 0u))
#ifdef RARE
    CASE_LONG(SHIFT_LEFT, long_shift_left(a, b))
    CASE_LONG(SHIFT_RIGHT, long_shift_right(a, b))
    CASE_LONG(BIT_AND, a & b)
    CASE_LONG(BIT_OR, a | b)
    CASE_LONG(BIT_XOR, a ^ b)
    CASE_LONG(BIT_NOT, ~a)
#endif
    if (code == CODE_DIV) {
        uvec2 r;
        y = long_quotient(a, b, is_signed, r);
    }
    if (code == CODE_MOD || code == CODE_FMOD)
        y = long_mod(code, a, b, is_signed);
    if (code == CODE_POW)
        y = long_pow(a, b, is_signed);
    return y;
}

uvec2 apply(uint code, uint kind, uvec2 a, uvec2 b, uvec2 c)
{
    if (kind == CLASS_LONG || kind == CLASS_ULONG)
        return apply_long(code, kind == CLASS_LONG, a, b, c);
    if (kind == CLASS_FLOAT) {
        if (code == CODE_TO_LONG || code == CODE_TO_ULONG)
            return long_from_float(uintBitsToFloat(a.x), code == CODE_TO_LONG);
        return uvec2(apply_float(code, a.x, b.x, c.x), 0u);
    }
    if (code == CODE_TO_LONG || code == CODE_TO_ULONG)
        return uvec2(a.x, kind == CLASS_INT && int(a.x) < 0 ? 0xffffffffu : 0u);
    return uvec2(apply_int(code, kind == CLASS_INT, a.x, b.x, c.x), 0u);
}
#else
uint apply(uint code, uint kind, uint a, uint b, uint c)
{
    return kind == CLASS_FLOAT ? apply_float(code, a, b, c) : apply_int(code, kind == CLASS_INT, a, b, c);
}
#endif

#endif
