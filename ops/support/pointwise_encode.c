/* From pointwise nodes to steps of a chain. */
#include <math.h>
#include <string.h>

#include "ops/pointwise.h"

/* ---- building blocks */

static bool same_number(hk_register a, hk_register b)
{
    return memcmp(&a.f, &b.f, sizeof a.f) == 0 && a.i == b.i;
}

static uint8_t add_immediate(hk_chain_build *b, hk_dtype dtype, hk_register x)
{
    hk_chain *c = &b->chain;
    for (int32_t i = 0; i < c->immediate_count; i++)
        if (hk_chain_class_of(c->immediate_dtype[i]) == hk_chain_class_of(dtype) && same_number(c->immediate[i], x))
            return (uint8_t)(CHAIN_FIRST_IMMEDIATE + i);
    if (c->immediate_count == CHAIN_IMMEDIATES) {
        b->full = true;
        return 0;
    }
    c->immediate_dtype[c->immediate_count] = dtype;
    c->immediate[c->immediate_count] = x;
    return (uint8_t)(CHAIN_FIRST_IMMEDIATE + c->immediate_count++);
}

uint8_t hk_chain_immediate(hk_chain_build *b, hk_dtype dtype, double x)
{
    hk_register r = {0};
    if (hk_chain_class_of(dtype) == HK_CLASS_FLOAT)
        r.f = x;
    else
        r.i = (int64_t)x;
    return add_immediate(b, dtype, r);
}

/* The contents of a one-element constant that the shader can take as a word: a float of up to 32 bits, or an integer
 * that fits. */
static bool immediate_of(const hk_value *v, hk_register *x)
{
    if (v->kind != HK_VALUE_CONSTANT || !v->data || hk_tensor_count(v->data) != 1)
        return false;
    *x = (hk_register){0};
    if (hk_chain_class_of(v->dtype) == HK_CLASS_FLOAT) {
        x->f = hk_get_double(v->data, 0);
        return v->dtype == HK_FLOAT32 || hk_dtype_is_half(v->dtype);
    }
    x->i = hk_get_int(v->data, 0);
    bool wide = hk_dtype_bytes(v->dtype) == 8;
    return !wide || (x->i <= INT32_MAX && x->i >= (v->dtype == HK_UINT64 ? 0 : INT32_MIN));
}

uint8_t hk_chain_input(hk_chain_build *b, hk_value *v)
{
    hk_chain *c = &b->chain;
    hk_register x;
    if (b->immediates && immediate_of(v, &x))
        return add_immediate(b, v->dtype, x);
    for (int32_t i = 0; i < c->input_count; i++)
        if (b->input[i] == v)
            return (uint8_t)i;
    if (c->input_count == CHAIN_INPUTS) {
        b->full = true;
        return 0;
    }
    c->in_dtype[c->input_count] = v->dtype;
    b->input[c->input_count] = v;
    return (uint8_t)c->input_count++;
}

uint8_t hk_chain_add(hk_chain_build *b, hk_chain_code code, hk_chain_class class, uint8_t a, uint8_t operand_b,
                     uint8_t operand_c)
{
    hk_chain *c = &b->chain;
    if (c->step_count == CHAIN_STEPS) {
        b->full = true;
        return 0;
    }
    int32_t operands = hk_chain_operands(code);
    c->step[c->step_count] = (hk_chain_step){
        .code = (uint8_t)code,
        .class = (uint8_t) class,
        .operand = {a, operands > 1 ? operand_b : a, operands > 2 ? operand_c : a}};
    return (uint8_t)(CHAIN_FIRST_STEP + c->step_count++);
}

void hk_chain_output(hk_chain_build *b, uint8_t reg, hk_dtype dtype)
{
    hk_chain *c = &b->chain;
    if (c->output_count == CHAIN_OUTPUTS) {
        b->full = true;
        return;
    }
    c->out[c->output_count] = reg;
    c->out_dtype[c->output_count++] = dtype;
}

static uint8_t unary(hk_chain_build *b, hk_chain_code code, hk_chain_class class, uint8_t a)
{
    return hk_chain_add(b, code, class, a, a, a);
}

static uint8_t binary(hk_chain_build *b, hk_chain_code code, hk_chain_class class, uint8_t x, uint8_t y)
{
    return hk_chain_add(b, code, class, x, y, x);
}

/* Cuts a result off at what an 8- or 16-bit type holds. */
static uint8_t wrap(hk_chain_build *b, hk_dtype dtype, uint8_t a)
{
    hk_chain_class class = hk_chain_class_of(dtype);
    switch (dtype) {
    case HK_INT8: return unary(b, HK_CHAIN_WRAP_INT8, class, a);
    case HK_UINT8: return unary(b, HK_CHAIN_WRAP_UINT8, class, a);
    case HK_INT16: return unary(b, HK_CHAIN_WRAP_INT16, class, a);
    case HK_UINT16: return unary(b, HK_CHAIN_WRAP_UINT16, class, a);
    default: return a; /* of types below 8 bits writing the element does it, on the host */
    }
}

/* ---- conversions */

static uint8_t float_to(hk_chain_build *b, hk_dtype to, uint8_t a)
{
    const bool narrow = hk_dtype_bytes(to) < 4;
    const bool is_signed = hk_chain_class_of(to) == HK_CLASS_INT;
    if (narrow) { /* saturates here, for the step below saturates at 32 bits */
        double range = hk_dtype_bytes(to) == 1 ? 256 : 65536;
        double low = is_signed ? -range / 2 : 0;
        uint8_t least = hk_chain_immediate(b, HK_FLOAT32, low),
                most = hk_chain_immediate(b, HK_FLOAT32, low + range - 1);
        a = hk_chain_add(b, HK_CHAIN_CLIP, HK_CLASS_FLOAT, a, least, most);
    }
    static const hk_chain_code codes[] = {[HK_CLASS_INT] = HK_CHAIN_TO_INT,
                                          [HK_CLASS_UINT] = HK_CHAIN_TO_UINT,
                                          [HK_CLASS_LONG] = HK_CHAIN_TO_LONG,
                                          [HK_CLASS_ULONG] = HK_CHAIN_TO_ULONG};
    return unary(b, codes[hk_chain_class_of(to)], HK_CLASS_FLOAT, a);
}

static uint8_t convert(hk_chain_build *b, hk_dtype from, hk_dtype to, uint8_t a)
{
    hk_chain_class class = hk_chain_class_of(from);
    bool was_wide = class == HK_CLASS_LONG || class == HK_CLASS_ULONG;
    bool wide = !hk_dtype_is_float(to) && hk_dtype_bytes(to) == 8;
    if (from == to)
        return a;
    if (to == HK_BOOL)
        return unary(b, HK_CHAIN_TO_BOOL, class, a);
    if (class == HK_CLASS_FLOAT)
        return hk_dtype_is_float(to) ? a : float_to(b, to, a); /* the output's type rounds */
    if (hk_dtype_is_float(to))
        return unary(b, HK_CHAIN_TO_FLOAT, class, a);
    if (wide)
        return was_wide ? a : unary(b, HK_CHAIN_TO_LONG, class, a);
    if (was_wide)
        a = unary(b, HK_CHAIN_TO_INT, class, a);
    return wrap(b, to, a);
}

/* ---- operators. in[] are registers; each function returns the result's. */

typedef uint8_t encode_node(hk_chain_build *b, const hk_node *n, const uint8_t *in, hk_chain_code code);

static hk_chain_class class_of(const hk_node *n, int32_t i)
{
    return hk_chain_class_of(n->in[i]->dtype);
}

static float alpha_of(const hk_node *n)
{
    return ((const hk_pointwise_attrs *)n->attrs)->alpha;
}

static uint8_t encode_plain(hk_chain_build *b, const hk_node *n, const uint8_t *in, hk_chain_code code)
{
    int32_t operands = hk_chain_operands(code);
    return hk_chain_add(b, code, class_of(n, 0), in[0], operands > 1 ? in[1] : 0, operands > 2 ? in[2] : 0);
}

static uint8_t encode_arithmetic(hk_chain_build *b, const hk_node *n, const uint8_t *in, hk_chain_code code)
{
    return wrap(b, n->in[0]->dtype, encode_plain(b, n, in, code));
}

static uint8_t encode_swapped(hk_chain_build *b, const hk_node *n, const uint8_t *in, hk_chain_code code)
{
    return binary(b, code, class_of(n, 0), in[1], in[0]);
}

static uint8_t encode_where(hk_chain_build *b, const hk_node *n, const uint8_t *in, hk_chain_code code)
{
    return hk_chain_add(b, code, class_of(n, 1), in[0], in[1], in[2]);
}

static uint8_t encode_relu(hk_chain_build *b, const hk_node *n, const uint8_t *in, hk_chain_code code)
{
    hk_chain_class class = class_of(n, 0);
    if (class == HK_CLASS_FLOAT)
        return unary(b, code, class, in[0]);
    return binary(b, HK_CHAIN_MAX, class, in[0], hk_chain_immediate(b, n->in[0]->dtype, 0));
}

/* f(x, alpha) */
static uint8_t encode_alpha(hk_chain_build *b, const hk_node *n, const uint8_t *in, hk_chain_code code)
{
    return binary(b, code, HK_CLASS_FLOAT, in[0], hk_chain_immediate(b, HK_FLOAT32, (double)alpha_of(n)));
}

/* f(dy, x, alpha); PRelu's gradient has its slope in alpha's place. */
static uint8_t encode_alpha_grad(hk_chain_build *b, const hk_node *n, const uint8_t *in, hk_chain_code code)
{
    uint8_t alpha = hk_in(n, 2) ? in[2] : hk_chain_immediate(b, HK_FLOAT32, (double)alpha_of(n));
    return hk_chain_add(b, code, HK_CLASS_FLOAT, in[0], in[1], alpha);
}

static uint8_t encode_hard_sigmoid(hk_chain_build *b, const hk_node *n, const uint8_t *in, hk_chain_code code)
{
    const hk_pointwise_attrs *a = n->attrs;
    uint8_t alpha = hk_chain_immediate(b, HK_FLOAT32, (double)a->alpha),
            beta = hk_chain_immediate(b, HK_FLOAT32, (double)a->beta);
    return hk_chain_add(b, code, HK_CLASS_FLOAT, in[0], alpha, beta);
}

static uint8_t encode_selu(hk_chain_build *b, const hk_node *n, const uint8_t *in, hk_chain_code code)
{
    const hk_pointwise_attrs *a = n->attrs;
    uint8_t gamma = hk_chain_immediate(b, HK_FLOAT32, (double)a->gamma);
    return binary(b, HK_CHAIN_MUL, HK_CLASS_FLOAT, encode_alpha(b, n, in, code), gamma);
}

/* Its form with tanh has the next code. */
static uint8_t encode_gelu(hk_chain_build *b, const hk_node *n, const uint8_t *in, hk_chain_code code)
{
    const hk_pointwise_attrs *a = n->attrs;
    return encode_plain(b, n, in, strcmp(a->approximate, "tanh") ? code : (hk_chain_code)(code + 1));
}

static uint8_t encode_clip(hk_chain_build *b, const hk_node *n, const uint8_t *in, hk_chain_code code)
{
    const hk_pointwise_attrs *a = n->attrs;
    hk_chain_class class = class_of(n, 0);
    if (n->opset < 11)
        return hk_chain_add(b, code, class, in[0], hk_chain_immediate(b, HK_FLOAT32, (double)a->min),
                            hk_chain_immediate(b, HK_FLOAT32, (double)a->max));
    bool low = hk_in(n, 1) != NULL, high = hk_in(n, 2) != NULL;
    if (low && high)
        return hk_chain_add(b, code, class, in[0], in[1], in[2]);
    if (low)
        return binary(b, HK_CHAIN_MAX, class, in[0], in[1]);
    return high ? binary(b, HK_CHAIN_MIN, class, in[0], in[2]) : in[0];
}

static uint8_t encode_cast(hk_chain_build *b, const hk_node *n, const uint8_t *in, hk_chain_code code)
{
    (void)code;
    return convert(b, n->in[0]->dtype, (hk_dtype)((const hk_pointwise_attrs *)n->attrs)->to, in[0]);
}

static uint8_t encode_cast_like(hk_chain_build *b, const hk_node *n, const uint8_t *in, hk_chain_code code)
{
    (void)code;
    return convert(b, n->in[0]->dtype, n->in[1]->dtype, in[0]);
}

static uint8_t encode_mod(hk_chain_build *b, const hk_node *n, const uint8_t *in, hk_chain_code code)
{
    bool like_c = ((const hk_pointwise_attrs *)n->attrs)->fmod != 0;
    return binary(b, like_c ? HK_CHAIN_FMOD : code, class_of(n, 0), in[0], in[1]);
}

/* The powers that networks are written with, as the cheaper functions that they are. CHAIN_NONE: another one. */
static uint8_t known_power(hk_chain_build *b, double exponent, uint8_t x)
{
    if (exponent == 1)
        return x;
    if (exponent == 2 || exponent == 3) {
        uint8_t square = binary(b, HK_CHAIN_MUL, HK_CLASS_FLOAT, x, x);
        return exponent == 2 ? square : binary(b, HK_CHAIN_MUL, HK_CLASS_FLOAT, square, x);
    }
    if (fabs(exponent) == 0.5)
        x = unary(b, HK_CHAIN_SQRT, HK_CLASS_FLOAT, x);
    if (exponent == 0.5)
        return x;
    return exponent == -1 || exponent == -0.5 ? unary(b, HK_CHAIN_RECIPROCAL, HK_CLASS_FLOAT, x) : CHAIN_NONE;
}

static uint8_t encode_pow(hk_chain_build *b, const hk_node *n, const uint8_t *in, hk_chain_code code)
{
    const hk_value *exponent = n->in[1];
    hk_dtype base = n->in[0]->dtype;
    if (class_of(n, 0) != HK_CLASS_FLOAT && class_of(n, 1) != HK_CLASS_FLOAT) {
        uint8_t e = convert(b, exponent->dtype, hk_dtype_bytes(base) == 8 ? HK_INT64 : HK_INT32, in[1]);
        return wrap(b, base, binary(b, code, class_of(n, 0), in[0], e));
    }
    uint8_t x = convert(b, base, HK_FLOAT32, in[0]), y = CHAIN_NONE;
    if (exponent->kind == HK_VALUE_CONSTANT && exponent->data && hk_tensor_count(exponent->data) == 1)
        y = known_power(b, hk_get_double(exponent->data, 0), x);
    if (y == CHAIN_NONE)
        y = binary(b, code, HK_CLASS_FLOAT, x, convert(b, exponent->dtype, HK_FLOAT32, in[1]));
    return hk_dtype_is_float(base) ? y : convert(b, HK_FLOAT32, base, y);
}

static uint8_t encode_tan(hk_chain_build *b, const hk_node *n, const uint8_t *in, hk_chain_code code)
{
    (void)n;
    uint8_t sine = unary(b, HK_CHAIN_SIN, HK_CLASS_FLOAT, in[0]),
            cosine = unary(b, HK_CHAIN_COS, HK_CLASS_FLOAT, in[0]);
    return binary(b, code, HK_CLASS_FLOAT, sine, cosine);
}

/* x / (1 + |x|) */
static uint8_t encode_softsign(hk_chain_build *b, const hk_node *n, const uint8_t *in, hk_chain_code code)
{
    (void)n;
    uint8_t size = unary(b, HK_CHAIN_ABS, HK_CLASS_FLOAT, in[0]);
    size = binary(b, HK_CHAIN_ADD, HK_CLASS_FLOAT, size, hk_chain_immediate(b, HK_FLOAT32, 1));
    return binary(b, code, HK_CLASS_FLOAT, in[0], size);
}

static uint8_t encode_thresholded_relu(hk_chain_build *b, const hk_node *n, const uint8_t *in, hk_chain_code code)
{
    uint8_t alpha = hk_chain_immediate(b, HK_FLOAT32, (double)alpha_of(n)), zero = hk_chain_immediate(b, HK_FLOAT32, 0);
    return hk_chain_add(b, HK_CHAIN_WHERE, HK_CLASS_FLOAT, binary(b, code, HK_CLASS_FLOAT, alpha, in[0]), in[0], zero);
}

/* x + bias below -lambd, x - bias above lambd, else 0; integers through float32. */
static uint8_t encode_shrink(hk_chain_build *b, const hk_node *n, const uint8_t *in, hk_chain_code code)
{
    const hk_pointwise_attrs *a = n->attrs;
    hk_dtype t = n->in[0]->dtype;
    uint8_t x = convert(b, t, HK_FLOAT32, in[0]), bias = hk_chain_immediate(b, HK_FLOAT32, (double)a->bias);
    uint8_t low = hk_chain_immediate(b, HK_FLOAT32, -(double)a->lambd),
            high = hk_chain_immediate(b, HK_FLOAT32, (double)a->lambd), zero = hk_chain_immediate(b, HK_FLOAT32, 0);
    uint8_t y = hk_chain_add(b, HK_CHAIN_WHERE, HK_CLASS_FLOAT, binary(b, code, HK_CLASS_FLOAT, high, x),
                             binary(b, HK_CHAIN_SUB, HK_CLASS_FLOAT, x, bias), zero);
    y = hk_chain_add(b, HK_CHAIN_WHERE, HK_CLASS_FLOAT, binary(b, code, HK_CLASS_FLOAT, x, low),
                     binary(b, HK_CHAIN_ADD, HK_CLASS_FLOAT, x, bias), y);
    return hk_dtype_is_float(t) ? y : convert(b, HK_FLOAT32, t, y);
}

static uint8_t encode_is_inf(hk_chain_build *b, const hk_node *n, const uint8_t *in, hk_chain_code code)
{
    const hk_pointwise_attrs *a = n->attrs;
    bool plus = a->detect_positive != 0, minus = a->detect_negative != 0;
    if (!plus && !minus)
        return binary(b, HK_CHAIN_LESS, HK_CLASS_FLOAT, in[0], in[0]); /* never */
    uint8_t x = plus && minus ? unary(b, HK_CHAIN_ABS, HK_CLASS_FLOAT, in[0]) : in[0];
    return binary(b, code, HK_CLASS_FLOAT, x, hk_chain_immediate(b, HK_FLOAT32, plus ? INFINITY : -INFINITY));
}

static uint8_t encode_shift(hk_chain_build *b, const hk_node *n, const uint8_t *in, hk_chain_code code)
{
    bool left = !strcmp(((const hk_pointwise_attrs *)n->attrs)->direction, "LEFT");
    return wrap(b, n->in[0]->dtype, binary(b, left ? code : HK_CHAIN_SHIFT_RIGHT, class_of(n, 0), in[0], in[1]));
}

static uint8_t encode_fold(hk_chain_build *b, const hk_node *n, const uint8_t *in, hk_chain_code code)
{
    (void)code;
    return hk_pointwise_fold(b, n, in, n->in_count, true);
}

enum { FIRST_LETTERS = 8 };

typedef struct encoding {
    char type[24];
    encode_node *encode;
    hk_chain_code code;
    hk_pointwise_types types;
} encoding;

/* name, function, code, element types, rule of types */
#define ROW(type, encode, code, takes, rule)                                                                           \
    {                                                                                                                  \
        type, encode_##encode, HK_CHAIN_##code,                                                                        \
        {                                                                                                              \
            HK_TAKES_##takes, HK_TYPES_##rule                                                                          \
        }                                                                                                              \
    }
static const encoding encodings[] = {
    ROW("Relu", relu, RELU, NUMBERS, SAME),
    ROW("LeakyRelu", alpha, LEAKY_RELU, FLOATS, SAME),
    ROW("Sigmoid", plain, SIGMOID, FLOATS, SAME),
    ROW("Tanh", plain, TANH, FLOATS, SAME),
    ROW("Exp", plain, EXP, FLOATS, SAME),
    ROW("Log", plain, LOG, FLOATS, SAME),
    ROW("Sqrt", plain, SQRT, FLOATS, SAME),
    ROW("Reciprocal", plain, RECIPROCAL, FLOATS, SAME),
    ROW("Neg", arithmetic, NEG, NUMBERS, SAME),
    ROW("Abs", arithmetic, ABS, NUMBERS, SAME),
    ROW("Floor", plain, FLOOR, FLOATS, SAME),
    ROW("hk.FloorThrough", plain, FLOOR, FLOATS, SAME),
    ROW("Ceil", plain, CEIL, FLOATS, SAME),
    ROW("Round", plain, ROUND, FLOATS, SAME),
    ROW("Sign", plain, SIGN, NUMBERS, SAME),
    ROW("Erf", plain, ERF, FLOATS, SAME),
    ROW("Sin", plain, SIN, FLOATS, SAME),
    ROW("Cos", plain, COS, FLOATS, SAME),
    ROW("Softplus", plain, SOFTPLUS, FLOATS, SAME),
    ROW("HardSigmoid", hard_sigmoid, HARD_SIGMOID, FLOATS, SAME),
    ROW("HardSwish", plain, HARD_SWISH, FLOATS, SAME),
    ROW("Gelu", gelu, GELU, FLOATS, SAME),
    ROW("Elu", alpha, ELU, FLOATS, SAME),
    ROW("Selu", selu, ELU, FLOATS, SAME),
    ROW("Celu", alpha, CELU, FLOATS, SAME),
    ROW("Mish", plain, MISH, FLOATS, SAME),
    ROW("Swish", alpha, SWISH, FLOATS, SAME),
    ROW("Not", plain, NOT, BOOLS, TEST),
    ROW("IsNaN", plain, IS_NAN, FLOATS, TEST),
    ROW("IsInf", is_inf, EQUAL, FLOATS, TEST),
    ROW("Tan", tan, DIV, FLOATS, SAME),
    ROW("Sinh", plain, SINH, FLOATS, SAME),
    ROW("Cosh", plain, COSH, FLOATS, SAME),
    ROW("Asinh", plain, ASINH, FLOATS, SAME),
    ROW("Acosh", plain, ACOSH, FLOATS, SAME),
    ROW("Atanh", plain, ATANH, FLOATS, SAME),
    ROW("Atan", plain, ATAN, FLOATS, SAME),
    ROW("Asin", plain, ASIN, FLOATS, SAME),
    ROW("Acos", plain, ACOS, FLOATS, SAME),
    ROW("Softsign", softsign, DIV, FLOATS, SAME),
    ROW("ThresholdedRelu", thresholded_relu, LESS, FLOATS, SAME),
    ROW("Shrink", shrink, LESS, NUMBERS, SAME),
    ROW("BitShift", shift, SHIFT_LEFT, INTS, SAME),
    ROW("BitwiseAnd", plain, BIT_AND, INTS, SAME),
    ROW("BitwiseOr", plain, BIT_OR, INTS, SAME),
    ROW("BitwiseXor", plain, BIT_XOR, INTS, SAME),
    ROW("BitwiseNot", arithmetic, BIT_NOT, INTS, SAME),
    ROW("Add", arithmetic, ADD, NUMBERS, SAME),
    ROW("Sub", arithmetic, SUB, NUMBERS, SAME),
    ROW("Mul", arithmetic, MUL, NUMBERS, SAME),
    ROW("Div", arithmetic, DIV, NUMBERS, SAME),
    ROW("Pow", pow, POW, NUMBERS, POW),
    ROW("Mod", mod, MOD, NUMBERS, SAME),
    ROW("Min", fold, MIN, NUMBERS, SAME),
    ROW("Max", fold, MAX, NUMBERS, SAME),
    ROW("Sum", fold, ADD, FLOATS, SAME),
    ROW("Mean", fold, ADD, FLOATS, SAME),
    ROW("Equal", plain, EQUAL, ALL, TEST),
    ROW("Less", plain, LESS, NUMBERS, TEST),
    ROW("Greater", swapped, LESS, NUMBERS, TEST),
    ROW("LessOrEqual", plain, LESS_EQUAL, NUMBERS, TEST),
    ROW("GreaterOrEqual", swapped, LESS_EQUAL, NUMBERS, TEST),
    ROW("And", plain, AND, BOOLS, TEST),
    ROW("Or", plain, OR, BOOLS, TEST),
    ROW("Xor", plain, XOR, BOOLS, TEST),
    ROW("Where", where, WHERE, ALL, WHERE),
    ROW("Clip", clip, CLIP, NUMBERS, SAME),
    ROW("Cast", cast, TO_FLOAT, ALL, CAST),
    ROW("CastLike", cast_like, TO_FLOAT, ALL, LIKE),
    ROW("PRelu", plain, LEAKY_RELU, NUMBERS, SAME),
    ROW("hk.ReluGrad", plain, RELU_GRAD, FLOATS, SAME),
    ROW("hk.LeakyReluGrad", alpha_grad, LEAKY_RELU_GRAD, FLOATS, SAME),
    ROW("hk.SigmoidGrad", plain, SIGMOID_GRAD, FLOATS, SAME),
    ROW("hk.TanhGrad", plain, TANH_GRAD, FLOATS, SAME),
    ROW("hk.HardSigmoidGrad", alpha_grad, HARD_SIGMOID_GRAD, FLOATS, SAME),
    ROW("hk.HardSwishGrad", plain, HARD_SWISH_GRAD, FLOATS, SAME),
    ROW("hk.ClipGrad", plain, CLIP_GRAD, FLOATS, SAME),
    ROW("hk.EluGrad", alpha_grad, ELU_GRAD, FLOATS, SAME),
    ROW("hk.CeluGrad", alpha_grad, CELU_GRAD, FLOATS, SAME),
    ROW("hk.GeluGrad", gelu, GELU_GRAD, FLOATS, SAME),
    ROW("hk.MishGrad", plain, MISH_GRAD, FLOATS, SAME),
    ROW("hk.SwishGrad", alpha_grad, SWISH_GRAD, FLOATS, SAME),
    ROW("hk.PowBaseGrad", plain, POW_BASE_GRAD, FLOATS, SAME),
    ROW("hk.PowExponentGrad", plain, POW_EXPONENT_GRAD, FLOATS, SAME),
};
#undef ROW

/* NULL: no such row. test_chain.c walks all of them. */
static const encoding *encoding_of(const hk_node *n)
{
    char first[FIRST_LETTERS] = {0}; /* compared at once: every node comes here several times */
    for (size_t i = 0; n->op && i < FIRST_LETTERS && n->op->type[i]; i++)
        first[i] = n->op->type[i];
    for (size_t i = 0; n->op && i < HK_COUNT(encodings); i++)
        if (!memcmp(encodings[i].type, first, FIRST_LETTERS) && !strcmp(encodings[i].type, n->op->type))
            return &encodings[i];
    return NULL;
}

/* Results that are 16-bit floats when their operands are. */
static bool keeps_halves(const hk_chain_step *s)
{
    switch (s->code) {
    case HK_CHAIN_WHERE:
    case HK_CHAIN_MIN:
    case HK_CHAIN_MAX:
    case HK_CHAIN_NEG:
    case HK_CHAIN_ABS:
    case HK_CHAIN_SIGN:
    case HK_CHAIN_FLOOR:
    case HK_CHAIN_CEIL:
    case HK_CHAIN_ROUND:
    case HK_CHAIN_RELU: return true;
    default: return false;
    }
}

/* A chain computes 16-bit floats in float32; each node's result is rounded, as it would be without fusion. */
static uint8_t round_half(hk_chain_build *b, const hk_node *n, uint8_t y)
{
    hk_dtype t = n->out[0] ? n->out[0]->dtype : HK_DTYPE_NONE;
    bool step = y >= CHAIN_FIRST_STEP && y < CHAIN_FIRST_STEP + CHAIN_STEPS;
    bool cast = t != n->in[0]->dtype && hk_pointwise_types_of(n).rule != HK_TYPES_WHERE;
    if (!hk_dtype_is_half(t) || (!cast && (!step || keeps_halves(&b->chain.step[y - CHAIN_FIRST_STEP]))))
        return y;
    return unary(b, t == HK_FLOAT16 ? HK_CHAIN_ROUND_HALF : HK_CHAIN_ROUND_BFLOAT, HK_CLASS_FLOAT, y);
}

uint8_t hk_pointwise_encode(hk_chain_build *b, const hk_node *n, const uint8_t *in)
{
    const encoding *e = encoding_of(n);
    b->full |= !e;
    return e ? round_half(b, n, e->encode(b, n, in, e->code)) : 0;
}

uint8_t hk_pointwise_fold(hk_chain_build *b, const hk_node *n, const uint8_t *in, int32_t count, bool last)
{
    const encoding *e = encoding_of(n);
    uint8_t y = in[0];
    for (int32_t i = 1; i < count; i++)
        y = binary(b, e->code, class_of(n, 0), y, in[i]);
    bool divide = last && n->in_count > 1 && !strcmp(e->type, "Mean");
    return divide ? binary(b, HK_CHAIN_DIV, HK_CLASS_FLOAT, y, hk_chain_immediate(b, HK_FLOAT32, n->in_count)) : y;
}

hk_pointwise_types hk_pointwise_types_of(const hk_node *n)
{
    const encoding *e = encoding_of(n);
    return e ? e->types : (hk_pointwise_types){0, HK_TYPES_SAME};
}

int32_t hk_pointwise_inputs(const hk_node *n)
{
    return hk_pointwise_types_of(n).rule == HK_TYPES_LIKE ? 1 : n->in_count;
}

/* ---- broadcasting before opset 7 */

hk_shape hk_pointwise_aligned(const hk_node *n, int32_t i, const hk_shape *shape, const hk_shape *first)
{
    const hk_pointwise_attrs *a = n->attrs;
    bool slope = !strcmp(n->op->type, "PRelu");
    if (n->opset >= 7 || i != 1 || n->in_count != 2 || shape->rank < 0 || first->rank < shape->rank)
        return *shape;
    int64_t axis = slope ? (shape->rank == 1 && shape->dim[0] != 1 && first->rank > 1 ? 1 : -1) : a->axis;
    if (!slope && !a->broadcast)
        return *shape;
    if (axis < 0 || axis + shape->rank > first->rank)
        return *shape;
    hk_shape s = {.rank = first->rank};
    for (int32_t d = 0; d < s.rank; d++)
        s.dim[d] = d < axis || d >= axis + shape->rank ? 1 : shape->dim[d - axis];
    return s;
}
