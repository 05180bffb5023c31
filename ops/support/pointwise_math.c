/* The elementwise functions on the host: the oracle of chain.comp. */
#include <math.h>

#include "ops/pointwise.h"

hk_chain_class hk_chain_class_of(hk_dtype t)
{
    switch (t) {
    case HK_INT2:
    case HK_INT4:
    case HK_INT8:
    case HK_INT16:
    case HK_INT32: return HK_CLASS_INT;
    case HK_BOOL:
    case HK_UINT2:
    case HK_UINT4:
    case HK_UINT8:
    case HK_UINT16:
    case HK_UINT32: return HK_CLASS_UINT;
    case HK_INT64: return HK_CLASS_LONG;
    case HK_UINT64: return HK_CLASS_ULONG;
    default: return HK_CLASS_FLOAT;
    }
}

int32_t hk_chain_operands(hk_chain_code code)
{
    static const uint8_t operands[] = {
#define HK_X(name, number, count, meaning) count,
        CHAIN_CODE_MAP(HK_X)
#undef HK_X
    };
    return operands[code];
}

bool hk_chain_is_costly(hk_chain_code code)
{
    return (code >= HK_CHAIN_POW && code <= HK_CHAIN_ACOS) || code == HK_CHAIN_FMOD || code == HK_CHAIN_MOD;
}

/* ---- floats */

static double clip(double x, double low, double high)
{
    double y = x < low ? low : x;
    return y > high ? high : y;
}

static double sigmoid(double x)
{
    return 1.0 / (1.0 + exp(-x));
}

static double softplus(double x)
{
    return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x));
}

static double normal_cdf(double x)
{
    return 0.5 * erfc(-x * 0.70710678118654752440);
}

static const double gelu_scale = 1.59576912160573071176; /* 2 sqrt(2/pi): (1 + tanh(v)) / 2 = sigmoid(2v) */

static double gelu_tanh_sigmoid(double x)
{
    return sigmoid(gelu_scale * (x + 0.044715 * x * x * x));
}

static double gelu_tanh_derivative(double x)
{
    double s = gelu_tanh_sigmoid(x);
    return s + x * s * (1 - s) * gelu_scale * (1 + 0.134145 * x * x);
}

static double mish_derivative(double x)
{
    double t = tanh(softplus(x));
    return t + x * (1 - t * t) * sigmoid(x);
}

static double swish_derivative(double x, double alpha)
{
    double s = sigmoid(alpha * x);
    return s + alpha * x * s * (1 - s);
}

static double hard_swish_derivative(double x)
{
    return x <= -3 ? 0 : x >= 3 ? 1 : x / 3 + 0.5;
}

/* With y = the operator's result where the table says so. */
static double apply_gradient(hk_chain_code code, double dy, double b, double c)
{
    switch (code) {
    case HK_CHAIN_RELU_GRAD: return b > 0 ? dy : 0;
    case HK_CHAIN_LEAKY_RELU_GRAD: return b <= 0 ? c * dy : dy;
    case HK_CHAIN_SIGMOID_GRAD: return dy * b * (1 - b);
    case HK_CHAIN_TANH_GRAD: return dy * (1 - b * b);
    case HK_CHAIN_HARD_SIGMOID_GRAD: return b > 0 && b < 1 ? c * dy : 0;
    case HK_CHAIN_HARD_SWISH_GRAD: return dy * hard_swish_derivative(b);
    case HK_CHAIN_CLIP_GRAD: return b == c ? dy : 0;
    case HK_CHAIN_ELU_GRAD: return b <= 0 ? dy * c * exp(b) : dy;
    case HK_CHAIN_CELU_GRAD: return b < 0 ? dy * exp(b / c) : dy;
    case HK_CHAIN_GELU_GRAD: return dy * (normal_cdf(b) + b * 0.39894228040143267794 * exp(-0.5 * b * b));
    case HK_CHAIN_GELU_TANH_GRAD: return dy * gelu_tanh_derivative(b);
    case HK_CHAIN_MISH_GRAD: return dy * mish_derivative(b);
    case HK_CHAIN_SWISH_GRAD: return dy * swish_derivative(b, c);
    default: return dy;
    }
}

static double apply_arithmetic(hk_chain_code code, double a, double b, double c)
{
    switch (code) {
    case HK_CHAIN_ADD: return a + b;
    case HK_CHAIN_SUB: return a - b;
    case HK_CHAIN_MUL: return a * b;
    case HK_CHAIN_DIV: return a / b;
    case HK_CHAIN_FMOD: return fmod(a, b);
    case HK_CHAIN_MIN: return isnan(a) || a <= b ? a : b;
    case HK_CHAIN_MAX: return isnan(a) || a >= b ? a : b;
    case HK_CHAIN_NEG: return -a;
    case HK_CHAIN_ABS: return fabs(a);
    case HK_CHAIN_SIGN: return a > 0 ? 1 : a < 0 ? -1 : a;
    case HK_CHAIN_CLIP: return clip(a, b, c);
    case HK_CHAIN_RECIPROCAL: return 1 / a;
    case HK_CHAIN_SQRT: return sqrt(a);
    case HK_CHAIN_FLOOR: return floor(a);
    case HK_CHAIN_CEIL: return ceil(a);
    case HK_CHAIN_ROUND: return nearbyint(a); /* halves to even: the default rounding mode */
    case HK_CHAIN_RELU: return a < 0 ? 0 : a;
    case HK_CHAIN_LEAKY_RELU: return a < 0 ? b * a : a;
    case HK_CHAIN_HARD_SIGMOID: return clip(b * a + c, 0, 1);
    case HK_CHAIN_HARD_SWISH: return a * clip(a / 6 + 0.5, 0, 1);
    default: return apply_gradient(code, a, b, c);
    }
}

static double apply_float(hk_chain_code code, double a, double b, double c)
{
    switch (code) {
    case HK_CHAIN_POW: return pow(a, b);
    case HK_CHAIN_POW_BASE_GRAD: return b == 0 ? 0 : b * pow(a, b - 1);
    case HK_CHAIN_POW_EXPONENT_GRAD: return a == 0 && b >= 0 ? 0 : c * log(a);
    case HK_CHAIN_SIN: return sin(a);
    case HK_CHAIN_COS: return cos(a);
    case HK_CHAIN_EXP: return exp(a);
    case HK_CHAIN_TANH: return tanh(a);
    case HK_CHAIN_SIGMOID: return sigmoid(a);
    case HK_CHAIN_ERF: return erf(a);
    case HK_CHAIN_ELU: return a < 0 ? b * expm1(a) : a;
    case HK_CHAIN_CELU: return a < 0 ? b * expm1(a / b) : a;
    case HK_CHAIN_GELU: return a * normal_cdf(a);
    case HK_CHAIN_GELU_TANH: return a * gelu_tanh_sigmoid(a);
    case HK_CHAIN_MISH: return a * tanh(softplus(a));
    case HK_CHAIN_SWISH: return a * sigmoid(b * a);
    case HK_CHAIN_SOFTPLUS: return softplus(a);
    case HK_CHAIN_LOG: return log(a);
    case HK_CHAIN_SINH: return sinh(a);
    case HK_CHAIN_COSH: return cosh(a);
    case HK_CHAIN_ASINH: return asinh(a);
    case HK_CHAIN_ACOSH: return acosh(a);
    case HK_CHAIN_ATANH: return atanh(a);
    case HK_CHAIN_ATAN: return atan(a);
    case HK_CHAIN_ASIN: return asin(a);
    case HK_CHAIN_ACOS: return acos(a);
    case HK_CHAIN_ROUND_HALF: return (double)hk_half_to_float(hk_double_to_half(a));
    case HK_CHAIN_ROUND_BFLOAT: return (double)hk_bfloat_to_float(hk_double_to_bfloat(a));
    default: return apply_arithmetic(code, a, b, c);
    }
}

/* Truncates and saturates; NaN gives 0. Unsigned 64-bit results are their bits. */
static int64_t to_integer(double x, double least, double most)
{
    if (isnan(x))
        return 0;
    if (x <= least)
        return least < 0 ? (least <= -0x1p63 ? INT64_MIN : (int64_t)least) : 0;
    if (x >= most)
        return most >= 0x1p64 ? -1 : most >= 0x1p63 ? INT64_MAX : (int64_t)(most - 1);
    return x >= 0x1p63 ? (int64_t)(uint64_t)x : (int64_t)x;
}

static hk_register apply_to_float(hk_chain_code code, hk_register a, hk_register b, hk_register c)
{
    hk_register r = {0};
    switch (code) {
    case HK_CHAIN_EQUAL: r.i = a.f == b.f; break;
    case HK_CHAIN_LESS: r.i = a.f < b.f; break;
    case HK_CHAIN_LESS_EQUAL: r.i = a.f <= b.f; break;
    case HK_CHAIN_TO_BOOL: r.i = a.f != 0; break;
    case HK_CHAIN_IS_NAN: r.i = isnan(a.f) != 0; break;
    case HK_CHAIN_WHERE: r.f = a.i ? b.f : c.f; break;
    case HK_CHAIN_TO_INT: r.i = to_integer(a.f, -0x1p31, 0x1p31); break;
    case HK_CHAIN_TO_UINT: r.i = to_integer(a.f, 0, 0x1p32); break;
    case HK_CHAIN_TO_LONG: r.i = to_integer(a.f, -0x1p63, 0x1p63); break;
    case HK_CHAIN_TO_ULONG: r.i = to_integer(a.f, 0, 0x1p64); break;
    default: r.f = apply_float(code, a.f, b.f, c.f); break;
    }
    return r;
}

/* ---- integers: arithmetic in uint64_t, which wraps; what a class cannot hold is cut off before and after */

static int64_t wrap(hk_chain_class class, int64_t x)
{
    switch (class) {
    case HK_CLASS_INT: return (int32_t)(uint32_t)(uint64_t)x;
    case HK_CLASS_UINT: return (uint32_t)(uint64_t)x;
    case HK_CLASS_FLOAT:
    case HK_CLASS_LONG:
    case HK_CLASS_ULONG: break;
    }
    return x;
}

static bool less(hk_chain_class class, int64_t a, int64_t b)
{
    return class == HK_CLASS_ULONG ? (uint64_t)a < (uint64_t)b : a < b;
}

static int64_t quotient(hk_chain_class class, int64_t a, int64_t b)
{
    if (b == 0)
        return 0;
    if (class == HK_CLASS_ULONG)
        return (int64_t)((uint64_t)a / (uint64_t)b);
    return b == -1 ? (int64_t)(0 - (uint64_t)a) : a / b;
}

static int64_t remainder_of(hk_chain_code code, hk_chain_class class, int64_t a, int64_t b)
{
    int64_t r = b == 0 ? 0 : (int64_t)((uint64_t)a - (uint64_t)quotient(class, a, b) * (uint64_t)b);
    bool turn = code == HK_CHAIN_MOD && class != HK_CLASS_ULONG && r != 0 && (r < 0) != (b < 0);
    return turn ? r + b : r;
}

/* A negative exponent leaves 1, -1 and otherwise 0, which is 1 / a^-b truncated. */
static int64_t power(hk_chain_class class, int64_t a, int64_t b)
{
    bool negative = class != HK_CLASS_ULONG && b < 0;
    if (negative)
        return a == 1 || (a == -1 && b % 2 == 0) ? 1 : a == -1 ? -1 : 0;
    uint64_t y = 1, base = (uint64_t)a;
    for (uint64_t e = (uint64_t)b; e; e >>= 1, base *= base)
        if (e & 1)
            y *= base;
    return (int64_t)y;
}

static int64_t smaller(hk_chain_class class, int64_t a, int64_t b)
{
    return less(class, b, a) ? b : a;
}

static int64_t larger(hk_chain_class class, int64_t a, int64_t b)
{
    return less(class, a, b) ? b : a;
}

static int64_t sign(hk_chain_class class, int64_t a)
{
    return less(class, a, 0) ? -1 : a != 0;
}

/* 0 where b is no less than the class's width. The operands of narrower classes have no bits above theirs. */
static int64_t shift(hk_chain_code code, hk_chain_class class, uint64_t a, uint64_t b)
{
    bool wide = class == HK_CLASS_LONG || class == HK_CLASS_ULONG;
    if (b >= (wide ? 64u : 32u))
        return 0;
    return (int64_t)(code == HK_CHAIN_SHIFT_LEFT ? a << b : a >> b);
}

static int64_t apply_int(hk_chain_code code, hk_chain_class class, int64_t a, int64_t b, int64_t c)
{
    uint64_t ua = (uint64_t)a, ub = (uint64_t)b;
    switch (code) {
    case HK_CHAIN_ADD: return (int64_t)(ua + ub);
    case HK_CHAIN_SUB: return (int64_t)(ua - ub);
    case HK_CHAIN_MUL: return (int64_t)(ua * ub);
    case HK_CHAIN_DIV: return quotient(class, a, b);
    case HK_CHAIN_MOD:
    case HK_CHAIN_FMOD: return remainder_of(code, class, a, b);
    case HK_CHAIN_POW: return power(class, a, b);
    case HK_CHAIN_MIN: return smaller(class, a, b);
    case HK_CHAIN_MAX: return larger(class, a, b);
    case HK_CHAIN_NEG: return (int64_t)(0 - ua);
    case HK_CHAIN_ABS: return less(class, a, 0) ? (int64_t)(0 - ua) : a;
    case HK_CHAIN_SIGN: return sign(class, a);
    case HK_CHAIN_EQUAL: return a == b;
    case HK_CHAIN_LESS: return less(class, a, b);
    case HK_CHAIN_LESS_EQUAL: return !less(class, b, a);
    case HK_CHAIN_CLIP: return smaller(class, larger(class, a, b), c);
    case HK_CHAIN_NOT: return a == 0;
    case HK_CHAIN_AND: return a && b;
    case HK_CHAIN_OR: return a || b;
    case HK_CHAIN_XOR: return (a != 0) != (b != 0);
    case HK_CHAIN_TO_BOOL: return a != 0;
    case HK_CHAIN_SHIFT_LEFT:
    case HK_CHAIN_SHIFT_RIGHT: return shift(code, class, ua, ub);
    case HK_CHAIN_BIT_AND: return (int64_t)(ua & ub);
    case HK_CHAIN_BIT_OR: return (int64_t)(ua | ub);
    case HK_CHAIN_BIT_XOR: return (int64_t)(ua ^ ub);
    case HK_CHAIN_BIT_NOT: return (int64_t)~ua;
    case HK_CHAIN_WRAP_INT8: return (int8_t)(uint8_t)ua;
    case HK_CHAIN_WRAP_UINT8: return (uint8_t)ua;
    case HK_CHAIN_WRAP_INT16: return (int16_t)(uint16_t)ua;
    case HK_CHAIN_WRAP_UINT16: return (uint16_t)ua;
    case HK_CHAIN_TO_INT: return wrap(HK_CLASS_INT, a);
    case HK_CHAIN_TO_UINT: return wrap(HK_CLASS_UINT, a);
    default: return a; /* TO_LONG and TO_ULONG: the host's registers are wide already */
    }
}

hk_register hk_chain_apply(hk_chain_code code, hk_chain_class class, hk_register a, hk_register b, hk_register c)
{
    if (class == HK_CLASS_FLOAT)
        return apply_to_float(code, a, b, c);
    if (code == HK_CHAIN_WHERE)
        return (hk_register){.i = wrap(class, a.i ? b.i : c.i)};
    int64_t x = wrap(class, a.i);
    if (code == HK_CHAIN_TO_FLOAT)
        return (hk_register){.f = class == HK_CLASS_ULONG ? (double)(uint64_t)x : (double)x};
    bool converts = code >= HK_CHAIN_TO_INT && code <= HK_CHAIN_TO_ULONG;
    int64_t y = apply_int(code, class, x, wrap(class, b.i), wrap(class, c.i));
    return (hk_register){.i = converts ? y : wrap(class, y)};
}
