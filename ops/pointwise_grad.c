/*
 * Gradients of elementwise operators: the rules, and the few functions that only gradients need. Broadcast axes are
 * summed by hk_gradient_add. At kinks the rules do as PyTorch does: ReLU and Abs have slope 0 at 0, Clip passes the
 * gradient at its bounds, Min and Max share it equally among inputs that tie.
 */
#include "ops/pointwise.h"

#include <string.h>

/* A rule at work: after the first failure the builders return NULL and do nothing. */
typedef struct rule {
    hk_gradient *g;
    hk_graph *graph;
    const hk_node *n;
    hk_value *dy, *y;
    hk_status status;
} rule;

static rule begin(hk_gradient *g, hk_node *n)
{
    return (rule){.g = g, .graph = hk_gradient_graph(g), .n = n, .dy = hk_gradient_of(g, n->out[0]), .y = n->out[0]};
}

static hk_value *build(rule *r, const char *type, const hk_attr_value *attrs, hk_value *const *in, int32_t count)
{
    hk_value *out = NULL;
    for (int32_t i = 0; i < count; i++)
        if (!in[i] && r->status == HK_OK)
            r->status = hk_out_of_memory(r->graph->ctx, "a gradient");
    if (r->status == HK_OK)
        r->status = hk_build(r->graph, type, attrs, in, count, &out, 1);
    return r->status == HK_OK ? out : NULL;
}

static hk_value *unary(rule *r, const char *type, hk_value *a)
{
    return build(r, type, NULL, &a, 1);
}

static hk_value *binary(rule *r, const char *type, hk_value *a, hk_value *b)
{
    return build(r, type, NULL, (hk_value *[]){a, b}, 2);
}

static hk_value *scalar(rule *r, const hk_value *like, double x)
{
    return hk_graph_scalar(r->graph, like->dtype, x);
}

static bool wanted(const rule *r, int32_t i)
{
    return hk_gradient_wanted(r->g, hk_in(r->n, i));
}

/* Adds dx to the gradient of input i; returns the rule's status so far. */
static hk_status add(rule *r, int32_t i, hk_value *dx)
{
    if (r->status == HK_OK)
        r->status = hk_gradient_add(r->g, r->n->in[i], dx);
    return r->status;
}

/* dx = type(dy, other): for one-operand operators with a function of their own. */
static hk_status add_own(rule *r, const char *type, const hk_attr_value *attrs, hk_value *other)
{
    return wanted(r, 0) ? add(r, 0, build(r, type, attrs, (hk_value *[]){r->dy, other}, 2)) : HK_OK;
}

static const hk_pointwise_attrs *attrs_of(const rule *r)
{
    return r->n->attrs;
}

/* ---- one operand */

hk_status hk_relu_backward(hk_gradient *g, hk_node *n)
{
    rule r = begin(g, n);
    return add_own(&r, "hk.ReluGrad", NULL, r.y);
}

hk_status hk_sigmoid_backward(hk_gradient *g, hk_node *n)
{
    rule r = begin(g, n);
    return add_own(&r, "hk.SigmoidGrad", NULL, r.y);
}

hk_status hk_tanh_backward(hk_gradient *g, hk_node *n)
{
    rule r = begin(g, n);
    return add_own(&r, "hk.TanhGrad", NULL, r.y);
}

hk_status hk_hard_swish_backward(hk_gradient *g, hk_node *n)
{
    rule r = begin(g, n);
    return add_own(&r, "hk.HardSwishGrad", NULL, n->in[0]);
}

hk_status hk_mish_backward(hk_gradient *g, hk_node *n)
{
    rule r = begin(g, n);
    return add_own(&r, "hk.MishGrad", NULL, n->in[0]);
}

hk_status hk_gelu_backward(hk_gradient *g, hk_node *n)
{
    rule r = begin(g, n);
    const hk_attr_value attrs[] = {HK_SET_STRING("approximate", attrs_of(&r)->approximate), {0}};
    return add_own(&r, "hk.GeluGrad", attrs, n->in[0]);
}

static hk_status add_alpha(hk_gradient *g, hk_node *n, const char *type, bool of_result)
{
    rule r = begin(g, n);
    const hk_attr_value attrs[] = {HK_SET_FLOAT("alpha", attrs_of(&r)->alpha), {0}};
    return add_own(&r, type, attrs, of_result ? r.y : n->in[0]);
}

hk_status hk_leaky_relu_backward(hk_gradient *g, hk_node *n)
{
    return add_alpha(g, n, "hk.LeakyReluGrad", false);
}

hk_status hk_elu_backward(hk_gradient *g, hk_node *n)
{
    return add_alpha(g, n, "hk.EluGrad", false);
}

hk_status hk_celu_backward(hk_gradient *g, hk_node *n)
{
    return add_alpha(g, n, "hk.CeluGrad", false);
}

hk_status hk_swish_backward(hk_gradient *g, hk_node *n)
{
    return add_alpha(g, n, "hk.SwishGrad", false);
}

hk_status hk_hard_sigmoid_backward(hk_gradient *g, hk_node *n)
{
    return add_alpha(g, n, "hk.HardSigmoidGrad", true);
}

/* selu = gamma elu */
hk_status hk_selu_backward(hk_gradient *g, hk_node *n)
{
    rule r = begin(g, n);
    if (!wanted(&r, 0))
        return HK_OK;
    const hk_attr_value attrs[] = {HK_SET_FLOAT("alpha", attrs_of(&r)->alpha), {0}};
    hk_value *scaled = binary(&r, "Mul", r.dy, scalar(&r, r.dy, (double)attrs_of(&r)->gamma));
    return add(&r, 0, build(&r, "hk.EluGrad", attrs, (hk_value *[]){scaled, n->in[0]}, 2));
}

hk_status hk_exp_backward(hk_gradient *g, hk_node *n)
{
    rule r = begin(g, n);
    return add_own(&r, "Mul", NULL, r.y);
}

hk_status hk_log_backward(hk_gradient *g, hk_node *n)
{
    rule r = begin(g, n);
    return add_own(&r, "Div", NULL, n->in[0]);
}

/* dy / (2 y) */
hk_status hk_sqrt_backward(hk_gradient *g, hk_node *n)
{
    rule r = begin(g, n);
    if (!wanted(&r, 0))
        return HK_OK;
    return add(&r, 0, binary(&r, "Div", binary(&r, "Mul", r.dy, scalar(&r, r.dy, 0.5)), r.y));
}

/* -dy y^2 */
hk_status hk_reciprocal_backward(hk_gradient *g, hk_node *n)
{
    rule r = begin(g, n);
    if (!wanted(&r, 0))
        return HK_OK;
    return add(&r, 0, unary(&r, "Neg", binary(&r, "Mul", r.dy, binary(&r, "Mul", r.y, r.y))));
}

hk_status hk_neg_backward(hk_gradient *g, hk_node *n)
{
    rule r = begin(g, n);
    return wanted(&r, 0) ? add(&r, 0, unary(&r, "Neg", r.dy)) : HK_OK;
}

hk_status hk_abs_backward(hk_gradient *g, hk_node *n)
{
    rule r = begin(g, n);
    return wanted(&r, 0) ? add_own(&r, "Mul", NULL, unary(&r, "Sign", n->in[0])) : HK_OK;
}

/* Steps have slope 0 wherever they have one. */
hk_status hk_zero_backward(hk_gradient *g, hk_node *n)
{
    (void)g;
    (void)n;
    return HK_OK;
}

/* The straight-through estimator: as if the operator were the identity. */
hk_status hk_through_backward(hk_gradient *g, hk_node *n)
{
    rule r = begin(g, n);
    return wanted(&r, 0) ? add(&r, 0, r.dy) : HK_OK;
}

/* 2 / sqrt(pi) exp(-x^2) */
hk_status hk_erf_backward(hk_gradient *g, hk_node *n)
{
    rule r = begin(g, n);
    if (!wanted(&r, 0))
        return HK_OK;
    hk_value *x = n->in[0], *e = unary(&r, "Exp", unary(&r, "Neg", binary(&r, "Mul", x, x)));
    return add(&r, 0, binary(&r, "Mul", binary(&r, "Mul", r.dy, scalar(&r, r.dy, 1.12837916709551257390)), e));
}

hk_status hk_sin_backward(hk_gradient *g, hk_node *n)
{
    rule r = begin(g, n);
    return wanted(&r, 0) ? add_own(&r, "Mul", NULL, unary(&r, "Cos", n->in[0])) : HK_OK;
}

hk_status hk_cos_backward(hk_gradient *g, hk_node *n)
{
    rule r = begin(g, n);
    return wanted(&r, 0) ? add(&r, 0, unary(&r, "Neg", binary(&r, "Mul", r.dy, unary(&r, "Sin", n->in[0])))) : HK_OK;
}

/* dy (1 + y^2) */
hk_status hk_tan_backward(hk_gradient *g, hk_node *n)
{
    rule r = begin(g, n);
    if (!wanted(&r, 0))
        return HK_OK;
    hk_value *slope = binary(&r, "Add", binary(&r, "Mul", r.y, r.y), scalar(&r, r.dy, 1));
    return add(&r, 0, binary(&r, "Mul", r.dy, slope));
}

hk_status hk_sinh_backward(hk_gradient *g, hk_node *n)
{
    rule r = begin(g, n);
    return wanted(&r, 0) ? add_own(&r, "Mul", NULL, unary(&r, "Cosh", n->in[0])) : HK_OK;
}

hk_status hk_cosh_backward(hk_gradient *g, hk_node *n)
{
    rule r = begin(g, n);
    return wanted(&r, 0) ? add_own(&r, "Mul", NULL, unary(&r, "Sinh", n->in[0])) : HK_OK;
}

/* dy / s, s = of_square x^2 + constant, or its square root. */
static hk_status add_quotient(hk_gradient *g, hk_node *n, double of_square, double constant, bool root, bool minus)
{
    rule r = begin(g, n);
    if (!wanted(&r, 0))
        return HK_OK;
    hk_value *x = n->in[0], *square = binary(&r, "Mul", x, x);
    hk_value *s = binary(&r, of_square > 0 ? "Add" : "Sub", scalar(&r, x, constant), square);
    s = root ? unary(&r, "Sqrt", s) : s;
    return add(&r, 0, binary(&r, "Div", minus ? unary(&r, "Neg", r.dy) : r.dy, s));
}

hk_status hk_asinh_backward(hk_gradient *g, hk_node *n)
{
    return add_quotient(g, n, 1, 1, true, false);
}

hk_status hk_acosh_backward(hk_gradient *g, hk_node *n)
{
    return add_quotient(g, n, 1, -1, true, false);
}

hk_status hk_atanh_backward(hk_gradient *g, hk_node *n)
{
    return add_quotient(g, n, -1, 1, false, false);
}

hk_status hk_atan_backward(hk_gradient *g, hk_node *n)
{
    return add_quotient(g, n, 1, 1, false, false);
}

hk_status hk_asin_backward(hk_gradient *g, hk_node *n)
{
    return add_quotient(g, n, -1, 1, true, false);
}

hk_status hk_acos_backward(hk_gradient *g, hk_node *n)
{
    return add_quotient(g, n, -1, 1, true, true);
}

/* dy / (1 + |x|)^2 */
hk_status hk_softsign_backward(hk_gradient *g, hk_node *n)
{
    rule r = begin(g, n);
    if (!wanted(&r, 0))
        return HK_OK;
    hk_value *s = binary(&r, "Add", unary(&r, "Abs", n->in[0]), scalar(&r, r.dy, 1));
    return add(&r, 0, binary(&r, "Div", r.dy, binary(&r, "Mul", s, s)));
}

/* dy where the condition holds, else 0. */
static hk_status add_where(rule *r, hk_value *condition)
{
    return add(r, 0, build(r, "Where", NULL, (hk_value *[]){condition, r->dy, scalar(r, r->dy, 0)}, 3));
}

hk_status hk_thresholded_relu_backward(hk_gradient *g, hk_node *n)
{
    rule r = begin(g, n);
    if (!wanted(&r, 0))
        return HK_OK;
    return add_where(&r, binary(&r, "Greater", n->in[0], scalar(&r, n->in[0], (double)attrs_of(&r)->alpha)));
}

hk_status hk_shrink_backward(hk_gradient *g, hk_node *n)
{
    rule r = begin(g, n);
    if (!wanted(&r, 0) || !hk_dtype_is_float(n->in[0]->dtype))
        return HK_OK;
    double lambd = (double)attrs_of(&r)->lambd;
    hk_value *above = binary(&r, "Greater", n->in[0], scalar(&r, n->in[0], lambd));
    return add_where(&r, binary(&r, "Or", above, binary(&r, "Less", n->in[0], scalar(&r, n->in[0], -lambd))));
}

hk_status hk_softplus_backward(hk_gradient *g, hk_node *n)
{
    rule r = begin(g, n);
    return wanted(&r, 0) ? add_own(&r, "Mul", NULL, unary(&r, "Sigmoid", n->in[0])) : HK_OK;
}

/* Between floats; an integer passes no gradient on. */
hk_status hk_cast_backward(hk_gradient *g, hk_node *n)
{
    rule r = begin(g, n);
    if (!wanted(&r, 0) || !hk_dtype_is_float(n->in[0]->dtype) || !hk_dtype_is_float(n->out[0]->dtype))
        return HK_OK;
    if (n->in[0]->dtype == n->out[0]->dtype)
        return add(&r, 0, r.dy);
    const hk_attr_value attrs[] = {HK_SET_INT("to", n->in[0]->dtype), {0}};
    return add(&r, 0, build(&r, "Cast", attrs, &r.dy, 1));
}

/* ---- several operands */

/* Add and Sum. The legacy form's second operand does not broadcast by itself: its gradient is summed over the axes that
 * its aligned shape lacks, then gets its own shape back. */
static hk_status add_aligned(rule *r, int32_t i, hk_value *dx)
{
    hk_value *v = r->n->in[i];
    hk_shape aligned = hk_pointwise_aligned(r->n, i, &v->shape, &r->n->in[0]->shape);
    if (hk_shape_equal(&aligned, &v->shape) || r->status != HK_OK)
        return add(r, i, dx);
    const hk_attr_value to_aligned[] = {HK_SET_INTS("shape", aligned.dim, aligned.rank), {0}};
    hk_value *sum = build(r, "hk.SumTo", to_aligned, &dx, 1),
             *own = hk_graph_ints(r->graph, v->shape.dim, v->shape.rank);
    return add(r, i, binary(r, "Reshape", sum, own));
}

/* Input i under the shape it broadcasts with. */
static hk_value *aligned_input(rule *r, int32_t i)
{
    hk_value *v = r->n->in[i];
    hk_shape aligned = hk_pointwise_aligned(r->n, i, &v->shape, &r->n->in[0]->shape);
    if (hk_shape_equal(&aligned, &v->shape))
        return v;
    return binary(r, "Reshape", v, hk_graph_ints(r->graph, aligned.dim, aligned.rank));
}

hk_status hk_add_backward(hk_gradient *g, hk_node *n)
{
    rule r = begin(g, n);
    for (int32_t i = 0; i < n->in_count; i++)
        if (wanted(&r, i))
            HK_TRY(add_aligned(&r, i, r.dy));
    return r.status;
}

hk_status hk_sub_backward(hk_gradient *g, hk_node *n)
{
    rule r = begin(g, n);
    if (wanted(&r, 0))
        HK_TRY(add(&r, 0, r.dy));
    return wanted(&r, 1) ? add_aligned(&r, 1, unary(&r, "Neg", r.dy)) : HK_OK;
}

hk_status hk_mul_backward(hk_gradient *g, hk_node *n)
{
    rule r = begin(g, n);
    if (wanted(&r, 0))
        HK_TRY(add(&r, 0, binary(&r, "Mul", r.dy, aligned_input(&r, 1))));
    return wanted(&r, 1) ? add_aligned(&r, 1, binary(&r, "Mul", r.dy, n->in[0])) : HK_OK;
}

/* dy / b, and -dy y / b */
hk_status hk_div_backward(hk_gradient *g, hk_node *n)
{
    rule r = begin(g, n);
    hk_value *da = wanted(&r, 0) || wanted(&r, 1) ? binary(&r, "Div", r.dy, aligned_input(&r, 1)) : NULL;
    if (wanted(&r, 0))
        HK_TRY(add(&r, 0, da));
    return wanted(&r, 1) ? add_aligned(&r, 1, unary(&r, "Neg", binary(&r, "Mul", da, r.y))) : r.status;
}

/* b a^(b-1), where b is known without the general power. */
static hk_value *pow_slope(rule *r, hk_value *a, hk_value *b)
{
    const hk_value *exponent = r->n->in[1];
    bool known = exponent->kind == HK_VALUE_CONSTANT && exponent->data && hk_tensor_count(exponent->data) == 1;
    if (!known)
        return binary(r, "hk.PowBaseGrad", a, b);
    double e = hk_get_double(exponent->data, 0);
    if (e == 0 || e == 1) /* also at 0, where a^(e-1) is infinite or 0^0 */
        return scalar(r, a, e);
    return binary(r, "Mul", binary(r, "Pow", a, scalar(r, a, e - 1)), scalar(r, a, e));
}

hk_status hk_pow_backward(hk_gradient *g, hk_node *n)
{
    rule r = begin(g, n);
    hk_value *a = n->in[0], *b = aligned_input(&r, 1);
    const hk_attr_value to_base[] = {HK_SET_INT("to", a->dtype), {0}};
    if (n->in[1]->dtype != a->dtype)
        b = build(&r, "Cast", to_base, &b, 1);
    if (wanted(&r, 0))
        HK_TRY(add(&r, 0, binary(&r, "Mul", r.dy, pow_slope(&r, a, b))));
    if (!wanted(&r, 1))
        return r.status;
    hk_value *slope = build(&r, "hk.PowExponentGrad", NULL, (hk_value *[]){a, b, r.y}, 3);
    return add_aligned(&r, 1, binary(&r, "Mul", r.dy, slope));
}

/* a mod b = a - b q with a constant q: -dy q = dy (y - a) / b. */
hk_status hk_mod_backward(hk_gradient *g, hk_node *n)
{
    rule r = begin(g, n);
    if (wanted(&r, 0))
        HK_TRY(add(&r, 0, r.dy));
    if (!wanted(&r, 1))
        return HK_OK;
    return add(&r, 1, binary(&r, "Div", binary(&r, "Mul", r.dy, binary(&r, "Sub", r.y, n->in[0])), n->in[1]));
}

/* 1 where input i is the extremum. */
static hk_value *is_extremum(rule *r, int32_t i)
{
    const hk_attr_value to_float[] = {HK_SET_INT("to", r->y->dtype), {0}};
    hk_value *hit = binary(r, "Equal", r->n->in[i], r->y);
    return build(r, "Cast", to_float, &hit, 1);
}

hk_status hk_extremum_backward(hk_gradient *g, hk_node *n)
{
    rule r = begin(g, n);
    if (n->in_count == 1)
        return wanted(&r, 0) ? add(&r, 0, r.dy) : HK_OK;
    hk_value **hits = hk_arena_array(r.graph->arena, (size_t)n->in_count, sizeof *hits);
    if (!hits)
        return hk_out_of_memory(r.graph->ctx, "a gradient");
    for (int32_t i = 0; i < n->in_count; i++)
        hits[i] = is_extremum(&r, i);
    hk_value *share = binary(&r, "Div", r.dy, build(&r, "Sum", NULL, hits, n->in_count));
    for (int32_t i = 0; i < n->in_count; i++)
        if (wanted(&r, i))
            HK_TRY(add(&r, i, binary(&r, "Mul", share, hits[i])));
    return r.status;
}

hk_status hk_where_backward(hk_gradient *g, hk_node *n)
{
    rule r = begin(g, n);
    hk_value *zero = scalar(&r, r.dy, 0);
    if (wanted(&r, 1))
        HK_TRY(add(&r, 1, build(&r, "Where", NULL, (hk_value *[]){n->in[0], r.dy, zero}, 3)));
    if (wanted(&r, 2))
        HK_TRY(add(&r, 2, build(&r, "Where", NULL, (hk_value *[]){n->in[0], zero, r.dy}, 3)));
    return r.status;
}

/* A bound gets the gradient where it cuts off. */
hk_status hk_clip_backward(hk_gradient *g, hk_node *n)
{
    rule r = begin(g, n);
    hk_value *x = n->in[0], *zero = scalar(&r, r.dy, 0);
    if (wanted(&r, 0))
        HK_TRY(add(&r, 0, build(&r, "hk.ClipGrad", NULL, (hk_value *[]){r.dy, x, r.y}, 3)));
    if (wanted(&r, 1)) {
        hk_value *cut = binary(&r, "Less", x, n->in[1]);
        HK_TRY(add(&r, 1, build(&r, "Where", NULL, (hk_value *[]){cut, r.dy, zero}, 3)));
    }
    if (wanted(&r, 2)) {
        hk_value *cut = binary(&r, "Less", n->in[2], x);
        HK_TRY(add(&r, 2, build(&r, "Where", NULL, (hk_value *[]){cut, r.dy, zero}, 3)));
    }
    return r.status;
}

hk_status hk_prelu_backward(hk_gradient *g, hk_node *n)
{
    rule r = begin(g, n);
    hk_value *x = n->in[0];
    if (wanted(&r, 0))
        HK_TRY(add(&r, 0, build(&r, "hk.LeakyReluGrad", NULL, (hk_value *[]){r.dy, x, aligned_input(&r, 1)}, 3)));
    if (!wanted(&r, 1))
        return r.status;
    return add_aligned(&r, 1, binary(&r, "Mul", r.dy, binary(&r, "Min", x, scalar(&r, x, 0))));
}

hk_status hk_mean_backward(hk_gradient *g, hk_node *n)
{
    rule r = begin(g, n);
    hk_value *share = binary(&r, "Div", r.dy, scalar(&r, r.dy, n->in_count));
    for (int32_t i = 0; i < n->in_count; i++)
        if (wanted(&r, i))
            HK_TRY(add(&r, i, share));
    return r.status;
}

/* ---- functions of gradients alone */

static const hk_attr no_attrs[] = {{0}};
static const hk_attr alpha_attrs[] = {HK_FLOAT_ATTR(hk_pointwise_attrs, alpha, 1.0), {0}};
static const hk_attr gelu_attrs[] = {HK_STRING_ATTR(hk_pointwise_attrs, approximate, "none"), {0}};

static const char *const two_cases[] = {"f32[7] f32[7] ; ; nograd", "f32[] f32[] ; ; nograd",
                                        "f32[2,3,5,7] f32[2,3,5,7] ; ; nograd", "f32[2,1030] f32[2,1030] ; ; nograd",
                                        NULL};
static const char *const alpha_cases[] = {"f32[7] f32[7] ; alpha=0.3 ; nograd",
                                          "f32[2,3,5,7] f32[2,3,5,7] ; alpha=1.5 ; nograd", NULL};
static const char *const slope_cases[] = {"f32[7] f32[7] ; alpha=0.3 ; nograd",
                                          "f32[2,3,5] f32[2,3,5] f32[3,1] ; ; nograd", NULL};
static const char *const gelu_cases[] = {"f32[7] f32[7] ; ; nograd",
                                         "f32[2,1030] f32[2,1030] ; approximate=\"tanh\" ; nograd",
                                         "f32={1.0,1.0,1.0,1.0} f32={-8.0,0.0,3.0,30.0} ; ; nograd", NULL};
static const char *const three_cases[] = {"f32[7] f32[7] f32[7] ; ; nograd",
                                          "f32={1.0,2.0,3.0} f32={0.5,-2.0,9.0} f32={0.5,-1.0,1.0} ; ; nograd", NULL};
static const char *const base_cases[] = {"f32[7]+ f32[7] ; ; nograd", "f32={0.0,2.0,-3.0} f32={0.0,0.0,3.0} ; ; nograd",
                                         NULL};
static const char *const exponent_cases[] = {"f32[7]+ f32[7] f32[7] ; ; nograd",
                                             "f32={0.0,2.0,1.0} f32={0.0,1.0,1.0} f32={1.0,2.0,1.0} ; ; nograd", NULL};

#define ROW(name, least, most, attributes, cases_name)                                                                 \
    {                                                                                                                  \
        .type = name, .since = 1, .in_min = least, .in_max = most, .out_min = 1, .out_max = 1,                         \
        .flags = HK_OP_POINTWISE, .attrs_bytes = sizeof(hk_pointwise_attrs), .attrs = attributes,                      \
        .infer = hk_pointwise_infer, .eval = hk_pointwise_eval, .lower = hk_pointwise_lower,                           \
        .cases = cases_name##_cases                                                                                    \
    }

const hk_op hk_ops_pointwise_grad[] = {
    ROW("hk.ReluGrad", 2, 2, no_attrs, two),
    ROW("hk.LeakyReluGrad", 2, 3, alpha_attrs, slope),
    ROW("hk.SigmoidGrad", 2, 2, no_attrs, two),
    ROW("hk.TanhGrad", 2, 2, no_attrs, two),
    ROW("hk.HardSigmoidGrad", 2, 2, alpha_attrs, alpha),
    ROW("hk.HardSwishGrad", 2, 2, no_attrs, two),
    ROW("hk.ClipGrad", 3, 3, no_attrs, three),
    ROW("hk.EluGrad", 2, 2, alpha_attrs, alpha),
    ROW("hk.CeluGrad", 2, 2, alpha_attrs, alpha),
    ROW("hk.GeluGrad", 2, 2, gelu_attrs, gelu),
    ROW("hk.MishGrad", 2, 2, no_attrs, two),
    ROW("hk.SwishGrad", 2, 2, alpha_attrs, alpha),
    ROW("hk.PowBaseGrad", 2, 2, no_attrs, base),
    ROW("hk.PowExponentGrad", 3, 3, no_attrs, exponent),
    {0},
};
