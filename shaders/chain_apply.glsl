// The elementwise functions of chain_codes.push.h, on one element's bits. Code and class are specialization constants in
// every caller, so a driver keeps one case of each switch.
#ifndef CHAIN_APPLY_GLSL
#define CHAIN_APPLY_GLSL

#include "math.glsl"
#include "chain_codes.push.h"

#define CHAIN_CODE(name, number, operands, meaning) const uint CODE_##name = number;
CHAIN_CODE_MAP(CHAIN_CODE)
#define CHAIN_CLASS(name, number) const uint CLASS_##name = number;
CHAIN_CLASS_MAP(CHAIN_CLASS)

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
    switch (code) {
    case CODE_ADD: return a + b;
    case CODE_SUB: return a - b;
    case CODE_MUL: return a * b;
    case CODE_DIV: return a / b;
    case CODE_FMOD: return fmod_precise(a, b);
    case CODE_MIN: return min_nan(a, b);
    case CODE_MAX: return max_nan(a, b);
    case CODE_NEG: return -a;
    case CODE_ABS: return abs(a);
    case CODE_SIGN: return a > 0.0 ? 1.0 : (a < 0.0 ? -1.0 : a);
    case CODE_CLIP: return clip(a, b, c);
    case CODE_RECIPROCAL: return 1.0 / a;
    case CODE_SQRT: return sqrt(a);
    case CODE_FLOOR: return floor(a);
    case CODE_CEIL: return ceil(a);
    case CODE_ROUND: return roundEven(a);
    case CODE_RELU: return a < 0.0 ? 0.0 : a;
    case CODE_LEAKY_RELU: return a < 0.0 ? b * a : a;
    case CODE_HARD_SIGMOID: return clip(b * a + c, 0.0, 1.0);
    case CODE_HARD_SWISH: return a * clip(a / 6.0 + 0.5, 0.0, 1.0);
    case CODE_RELU_GRAD: return b > 0.0 ? a : 0.0;
    case CODE_LEAKY_RELU_GRAD: return b < 0.0 ? c * a : a;
    case CODE_SIGMOID_GRAD: return a * b * (1.0 - b);
    case CODE_TANH_GRAD: return a * (1.0 - b * b);
    case CODE_HARD_SIGMOID_GRAD: return b > 0.0 && b < 1.0 ? c * a : 0.0;
    case CODE_HARD_SWISH_GRAD: return b <= -3.0 ? 0.0 : (b >= 3.0 ? a : a * (b / 3.0 + 0.5));
    case CODE_CLIP_GRAD: return b == c ? a : 0.0;
    default: return a;
    }
}

// u of x / (1 + exp(-u)), the tanh form of Gelu: (1 + tanh(v)) / 2 = 1 / (1 + exp(-2v)).
float gelu_tanh_argument(float x) { return 1.59576912 * (x + 0.044715 * x * x * x); }

// What is exponentiated. Mish needs no more than 20: tanh(softplus(20)) is 1 in single precision.
float exponent(uint code, float a, float b, float c)
{
    switch (code) {
    case CODE_SIGMOID: return -a;
    case CODE_TANH: return -2.0 * abs(a);
    case CODE_ERF: return -a * a;
    case CODE_GELU: return -0.5 * a * a;
    case CODE_GELU_GRAD: return -0.5 * b * b;
    case CODE_GELU_TANH: return -gelu_tanh_argument(a);
    case CODE_GELU_TANH_GRAD: return -gelu_tanh_argument(b);
    case CODE_SWISH: return -b * a;
    case CODE_SWISH_GRAD: return -c * b;
    case CODE_SOFTPLUS: return -abs(a);
    case CODE_MISH: return min(a, 20.0);
    case CODE_MISH_GRAD: return min(b, 20.0);
    case CODE_ELU_GRAD: return b;
    case CODE_CELU: return a / b;
    case CODE_CELU_GRAD: return b / c;
    default: return a; // Exp, Elu
    }
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
    switch (code) {
    case CODE_TANH: return tanh_from(a, e);
    case CODE_SIGMOID: return s;
    case CODE_ERF: return erf_from(z, e);
    case CODE_GELU: return a * cdf_from(z, e);
    case CODE_GELU_GRAD: return a * (cdf_from(z, e) + b * (0.398942280 * e)); // cdf(x) + x pdf(x)
    case CODE_GELU_TANH: return a * s;
    case CODE_GELU_TANH_GRAD: return a * (s + b * s * (1.0 - s) * (1.59576912 * (1.0 + 0.134145 * b * b)));
    case CODE_SWISH: return a * s;
    case CODE_SWISH_GRAD: return a * (s + c * b * s * (1.0 - s));
    case CODE_MISH: return a > 20.0 ? a : a * mish_factor(e);
    case CODE_MISH_GRAD: return a * mish_derivative(b, e);
    case CODE_ELU: return a < 0.0 ? b * expm1_from(t, e) : a;
    case CODE_ELU_GRAD: return b < 0.0 ? a * c * e : a;
    case CODE_CELU: return a < 0.0 ? b * expm1_from(t, e) : a;
    case CODE_CELU_GRAD: return b < 0.0 ? a * e : a;
    default: return e; // Exp, Softplus
    }
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
    switch (code) { // those whose result, or first operand, is no float
    case CODE_EQUAL: return a == b ? 1u : 0u;
    case CODE_LESS: return a < b ? 1u : 0u;
    case CODE_LESS_EQUAL: return a <= b ? 1u : 0u;
    case CODE_WHERE: return abits != 0u ? bbits : cbits;
    case CODE_TO_INT: return int_from_float(a);
    case CODE_TO_UINT: return uint_from_float(a);
    case CODE_TO_BOOL: return a != 0.0 ? 1u : 0u;
    case CODE_IS_NAN: return is_nan(a) ? 1u : 0u;
    }
    return floatBitsToUint(float_function(code, a, b, c));
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
    switch (code) {
    case CODE_ADD: return a + b;
    case CODE_SUB: return a - b;
    case CODE_MUL: return a * b;
    case CODE_DIV: return int_quotient(a, b, is_signed);
    case CODE_MOD: return int_mod(code, a, b, is_signed);
    case CODE_FMOD: return int_mod(code, a, b, is_signed);
    case CODE_POW: return int_pow(a, b, is_signed);
    case CODE_MIN: return int_min(a, b, is_signed);
    case CODE_MAX: return int_max(a, b, is_signed);
    case CODE_NEG: return 0u - a;
    case CODE_ABS: return is_signed && int(a) < 0 ? 0u - a : a;
    case CODE_SIGN: return is_signed && int(a) < 0 ? 0xffffffffu : (a != 0u ? 1u : 0u);
    case CODE_EQUAL: return a == b ? 1u : 0u;
    case CODE_LESS: return int_less(a, b, is_signed) ? 1u : 0u;
    case CODE_LESS_EQUAL: return int_less(b, a, is_signed) ? 0u : 1u;
    case CODE_WHERE: return a != 0u ? b : c;
    case CODE_CLIP: return int_min(int_max(a, b, is_signed), c, is_signed);
    case CODE_NOT: return a == 0u ? 1u : 0u;
    case CODE_AND: return a != 0u && b != 0u ? 1u : 0u;
    case CODE_OR: return (a | b) != 0u ? 1u : 0u;
    case CODE_XOR: return (a != 0u) != (b != 0u) ? 1u : 0u;
    case CODE_TO_FLOAT: return floatBitsToUint(is_signed ? float(int(a)) : float(a));
    case CODE_TO_BOOL: return a != 0u ? 1u : 0u;
    case CODE_WRAP_INT8: return uint(bitfieldExtract(int(a), 0, 8));
    case CODE_WRAP_UINT8: return a & 0xffu;
    case CODE_WRAP_INT16: return uint(bitfieldExtract(int(a), 0, 16));
    case CODE_WRAP_UINT16: return a & 0xffffu;
    default: return a;
    }
}

// ---- 64-bit integers: registers are then (low, high) pairs, and 32-bit results leave the upper half alone

#ifdef WIDE
#include "chain_long.glsl"

uvec2 long_mod(uint code, uvec2 a, uvec2 b, bool is_signed)
{
    uvec2 r;
    long_quotient(a, b, is_signed, r);
    bool turn = code == CODE_MOD && is_signed && (r.x | r.y) != 0u && int(r.y ^ b.y) < 0;
    return turn ? long_add(r, b) : r;
}

uvec2 apply_long(uint code, bool is_signed, uvec2 a, uvec2 b, uvec2 c)
{
    uvec2 r;
    switch (code) {
    case CODE_ADD: return long_add(a, b);
    case CODE_SUB: return long_sub(a, b);
    case CODE_MUL: return long_mul(a, b);
    case CODE_DIV: return long_quotient(a, b, is_signed, r);
    case CODE_MOD: return long_mod(code, a, b, is_signed);
    case CODE_FMOD: return long_mod(code, a, b, is_signed);
    case CODE_POW: return long_pow(a, b, is_signed);
    case CODE_MIN: return long_less(b, a, is_signed) ? b : a;
    case CODE_MAX: return long_less(a, b, is_signed) ? b : a;
    case CODE_NEG: return long_neg(a);
    case CODE_ABS: return long_abs(a, is_signed);
    case CODE_SIGN: return long_negative(a, is_signed) ? uvec2(0xffffffffu) : uvec2((a.x | a.y) != 0u ? 1u : 0u, 0u);
    case CODE_EQUAL: return uvec2(a == b ? 1u : 0u, 0u);
    case CODE_LESS: return uvec2(long_less(a, b, is_signed) ? 1u : 0u, 0u);
    case CODE_LESS_EQUAL: return uvec2(long_less(b, a, is_signed) ? 0u : 1u, 0u);
    case CODE_WHERE: return a.x != 0u ? b : c;
    case CODE_CLIP:
        a = long_less(a, b, is_signed) ? b : a;
        return long_less(c, a, is_signed) ? c : a;
    case CODE_TO_FLOAT: return uvec2(floatBitsToUint(long_to_float(a, is_signed)), 0u);
    case CODE_TO_BOOL: return uvec2((a.x | a.y) != 0u ? 1u : 0u, 0u);
    default: return a; // TO_INT and TO_UINT: the low word
    }
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
