/*
 * Optimizers that a model file brings along (ai.onnx.preview.training): Adagrad, Adam and Momentum, for any number of
 * tensors. R is the learning rate, T the number of updates before; the groups that follow are tensors X, gradients G
 * and what the optimizer remembers (V, H). They expand into elementwise nodes that fuse to one pass a tensor.
 */
#include <math.h>
#include <string.h>

#include "ops/op.h"
#include "ops/support/build.h"

typedef struct training_attrs {
    float alpha, beta, epsilon, norm_coefficient, norm_coefficient_post, decay_factor;
    const char *mode;
} training_attrs;

static const hk_attr adagrad_list[] = {HK_FLOAT_ATTR(training_attrs, decay_factor, 0),
                                       HK_FLOAT_ATTR(training_attrs, epsilon, 1e-6),
                                       HK_FLOAT_ATTR(training_attrs, norm_coefficient, 0),
                                       {0}};
static const hk_attr adam_list[] = {HK_FLOAT_ATTR(training_attrs, alpha, 0.9),
                                    HK_FLOAT_ATTR(training_attrs, beta, 0.999),
                                    HK_FLOAT_ATTR(training_attrs, epsilon, 1e-6),
                                    HK_FLOAT_ATTR(training_attrs, norm_coefficient, 0),
                                    HK_FLOAT_ATTR(training_attrs, norm_coefficient_post, 0),
                                    {0}};
static const hk_attr momentum_list[] = {
    {.name = "alpha", .kind = HK_ATTR_FLOAT, .offset = offsetof(training_attrs, alpha), .required = true},
    {.name = "beta", .kind = HK_ATTR_FLOAT, .offset = offsetof(training_attrs, beta), .required = true},
    {.name = "norm_coefficient",
     .kind = HK_ATTR_FLOAT,
     .offset = offsetof(training_attrs, norm_coefficient),
     .required = true},
    {.name = "mode", .kind = HK_ATTR_STRING, .offset = offsetof(training_attrs, mode), .required = true},
    {0}};

enum { IN_RATE, IN_COUNT, FIRST };

static const training_attrs *attrs_of(const hk_node *n)
{
    return n->attrs;
}

/* Groups of inputs: X, G, and the memories that are also outputs behind X. */
static int32_t groups_of(const hk_node *n)
{
    return strcmp(n->op->type, "Adam") ? 3 : 4;
}

static int32_t tensors_of(const hk_node *n)
{
    return (n->in_count - FIRST) / groups_of(n);
}

static hk_status infer(hk_infer *in)
{
    const hk_node *n = in->node;
    int32_t groups = groups_of(n), tensors = tensors_of(n);
    if (tensors < 1 || n->in_count != FIRST + groups * tensors || n->out_count > (groups - 1) * tensors)
        return hk_infer_fail(in, HK_STATUS_INVALID, "%d inputs and %d outputs are no whole number of tensors",
                             (int)n->in_count, (int)n->out_count);
    bool momentum = !strcmp(n->op->type, "Momentum");
    if (momentum && strcmp(attrs_of(n)->mode, "standard") != 0 && strcmp(attrs_of(n)->mode, "nesterov") != 0)
        return hk_infer_fail(in, HK_STATUS_INVALID, "mode is '%s', expected standard or nesterov", attrs_of(n)->mode);
    for (int32_t i = 0; i < n->in_count; i++)
        if (!n->in[i] || (i != IN_COUNT && !hk_dtype_is_float(n->in[i]->dtype)))
            return hk_infer_fail(in, HK_STATUS_INVALID, "input %d is expected to be of floats", (int)i);
    for (int32_t i = 0; i < n->out_count; i++) {
        const hk_value *x = n->in[FIRST + i % tensors];
        HK_TRY(hk_infer_output(in, i, x->dtype, &x->shape));
    }
    return HK_OK;
}

/* ---- the oracle: one element */

typedef struct element {
    double x, g, v, h; /* v: the first memory, h: Adam's second */
} element;

static void adagrad(const training_attrs *a, double rate, double count, element *e)
{
    double g = (double)a->norm_coefficient * e->x + e->g;
    e->v += g * g;
    e->x -= rate / (1 + count * (double)a->decay_factor) * g / (sqrt(e->v) + (double)a->epsilon);
}

static void adam(const training_attrs *a, double rate, double count, element *e)
{
    double alpha = (double)a->alpha, beta = (double)a->beta, g = (double)a->norm_coefficient * e->x + e->g;
    e->v = alpha * e->v + (1 - alpha) * g;
    e->h = beta * e->h + (1 - beta) * g * g;
    if (count > 0)
        rate *= sqrt(1 - pow(beta, count)) / (1 - pow(alpha, count));
    e->x = (1 - (double)a->norm_coefficient_post) * (e->x - rate * e->v / (sqrt(e->h) + (double)a->epsilon));
}

static void momentum(const training_attrs *a, double rate, double count, element *e)
{
    double alpha = (double)a->alpha, g = (double)a->norm_coefficient * e->x + e->g;
    e->v = alpha * e->v + (count > 0 ? (double)a->beta : 1) * g;
    e->x -= rate * (strcmp(a->mode, "nesterov") ? e->v : g + alpha * e->v);
}

static hk_status eval(hk_eval *e)
{
    const hk_node *n = e->node;
    int32_t groups = groups_of(n), tensors = tensors_of(n);
    double rate = hk_get_double(e->in[IN_RATE], 0), count = hk_get_double(e->in[IN_COUNT], 0);
    for (int32_t t = 0; t < tensors; t++) {
        const hk_tensor *const *in = &e->in[FIRST + t];
        hk_shape shape = hk_tensor_shape(in[0]);
        hk_tensor *out[3] = {NULL, NULL, NULL};
        for (int32_t k = 0; k < groups - 1; k++)
            if (hk_out(n, k * tensors + t) && !(out[k] = hk_eval_output(e, k * tensors + t, in[0]->dtype, &shape)))
                return hk_out_of_memory(e->ctx, "an update");
        for (int64_t i = 0, size = hk_shape_count(&shape); i < size; i++) {
            element x = {hk_get_double(in[0], i), hk_get_double(in[tensors], i), hk_get_double(in[2 * tensors], i),
                         groups > 3 ? hk_get_double(in[3 * tensors], i) : 0};
            (groups > 3 ? adam : !strcmp(n->op->type, "Adagrad") ? adagrad : momentum)(n->attrs, rate, count, &x);
            const double results[] = {x.x, x.v, x.h};
            for (int32_t k = 0; k < groups - 1; k++)
                if (out[k])
                    hk_set_double(out[k], i, results[k]);
        }
    }
    return HK_OK;
}

/* ---- expansion: a builder that stops at the first failure */

typedef struct builder {
    hk_graph *g;
    hk_status status;
} builder;

static hk_value *with(builder *b, const char *type, hk_value *x, hk_value *y)
{
    hk_value *out = NULL;
    if (b->status == HK_OK)
        b->status = hk_build_binary(b->g, type, x, y, &out);
    return out;
}

static hk_value *with_scalar(builder *b, const char *type, hk_value *x, double y)
{
    hk_value *out = NULL;
    if (b->status == HK_OK)
        b->status = hk_build_scalar(b->g, type, x, y, &out);
    return out;
}

static hk_value *of(builder *b, const char *type, hk_value *x)
{
    hk_value *out = NULL;
    if (b->status == HK_OK)
        b->status = hk_build_unary(b->g, type, x, &out);
    return out;
}

/* a x + y */
static hk_value *scaled_sum(builder *b, double a, hk_value *x, hk_value *y)
{
    return a == 0 ? y : with(b, "Add", with_scalar(b, "Mul", x, a), y);
}

static hk_value *chosen(builder *b, hk_value *condition, hk_value *x, hk_value *y)
{
    hk_value *out = NULL;
    if (b->status == HK_OK)
        b->status = hk_build(b->g, "Where", NULL, (hk_value *[]){condition, x, y}, 3, &out, 1);
    return out;
}

/* 1 - x^count */
static hk_value *correction(builder *b, double x, hk_value *count)
{
    hk_value *base = hk_graph_scalar(b->g, count->dtype, x), *one = hk_graph_scalar(b->g, count->dtype, 1);
    if (!base || !one)
        b->status = HK_STATUS_OUT_OF_MEMORY;
    return with(b, "Sub", one, with(b, "Pow", base, count));
}

/* A scalar input as float of type t. */
static hk_value *scalar_of(builder *b, hk_value *v, hk_dtype t)
{
    hk_value *out = NULL;
    if (b->status == HK_OK)
        b->status = hk_build_reshape(b->g, v, &HK_SCALAR, &out);
    if (b->status == HK_OK && out->dtype != t)
        b->status = hk_build_cast(b->g, out, t, &out);
    return out;
}

/* The rate that all tensors share; for Momentum beta, or 1 in the first update. */
static hk_value *shared_factor(builder *b, const hk_node *n, hk_value *rate, hk_value *count)
{
    const training_attrs *a = n->attrs;
    if (!strcmp(n->op->type, "Adagrad"))
        return with(b, "Div", rate, with_scalar(b, "Add", with_scalar(b, "Mul", count, (double)a->decay_factor), 1));
    hk_value *later = with_scalar(b, "Greater", count, 0);
    if (!strcmp(n->op->type, "Adam")) {
        hk_value *adjusted = with(b, "Mul", rate, of(b, "Sqrt", correction(b, (double)a->beta, count)));
        return chosen(b, later, with(b, "Div", adjusted, correction(b, (double)a->alpha, count)), rate);
    }
    hk_value *beta = hk_graph_scalar(b->g, count->dtype, (double)a->beta),
             *one = hk_graph_scalar(b->g, count->dtype, 1);
    if (!beta || !one)
        b->status = HK_STATUS_OUT_OF_MEMORY;
    return chosen(b, later, beta, one);
}

/* x and the memories of one tensor, in place. */
static void build_update(builder *b, const hk_node *n, hk_value *rate, hk_value *factor, hk_value *g, hk_value *x[3])
{
    const training_attrs *a = n->attrs;
    double alpha = (double)a->alpha, beta = (double)a->beta;
    g = scaled_sum(b, (double)a->norm_coefficient, x[0], g);
    if (!strcmp(n->op->type, "Adagrad")) {
        x[1] = with(b, "Add", x[1], with(b, "Mul", g, g));
        hk_value *size = with_scalar(b, "Add", of(b, "Sqrt", x[1]), (double)a->epsilon);
        x[0] = with(b, "Sub", x[0], with(b, "Div", with(b, "Mul", factor, g), size));
    } else if (!strcmp(n->op->type, "Adam")) {
        x[1] = scaled_sum(b, 1 - alpha, g, with_scalar(b, "Mul", x[1], alpha));
        x[2] = scaled_sum(b, 1 - beta, with(b, "Mul", g, g), with_scalar(b, "Mul", x[2], beta));
        hk_value *size = with_scalar(b, "Add", of(b, "Sqrt", x[2]), (double)a->epsilon);
        x[0] = with(b, "Sub", x[0], with(b, "Div", with(b, "Mul", factor, x[1]), size));
        x[0] = with_scalar(b, "Mul", x[0], 1 - (double)a->norm_coefficient_post);
    } else {
        bool nesterov = !strcmp(a->mode, "nesterov");
        x[1] = with(b, "Add", with_scalar(b, "Mul", x[1], alpha), with(b, "Mul", factor, g));
        x[0] = with(b, "Sub", x[0], with(b, "Mul", rate, nesterov ? scaled_sum(b, alpha, x[1], g) : x[1]));
    }
}

static hk_status expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    int32_t groups = groups_of(n), tensors = tensors_of(n);
    builder b = {.g = g};
    hk_dtype t = n->in[FIRST]->dtype;
    hk_value *rate = scalar_of(&b, n->in[IN_RATE], t), *count = scalar_of(&b, n->in[IN_COUNT], t);
    if (b.status != HK_OK)
        return b.status;
    hk_value *factor = shared_factor(&b, n, rate, count);
    for (int32_t i = 0; i < tensors && b.status == HK_OK; i++) {
        hk_value *const *in = &n->in[FIRST + i], *x[3] = {in[0], in[2 * tensors], groups > 3 ? in[3 * tensors] : NULL};
        build_update(&b, n, rate, factor, in[tensors], x);
        for (int32_t k = 0; k < groups - 1; k++)
            out[k * tensors + i] = x[k];
    }
    return b.status;
}

/* ---- the table */

static const char *const adagrad_cases[] = {
    "f32=0.1 i64=3 f32[5] f32[5] f32[5]+ ; norm_coefficient=0.001 epsilon=1e-5 decay_factor=0.1 ; out=2 nograd",
    "f32=0.1 i64=0 f32[5] f32[2,3] f32[5] f32[2,3] f32[5]+ f32[2,3]+ ; epsilon=1e-5 ; out=4 nograd", NULL};
static const char *const adam_cases[] = {
    "f32=0.1 i64=0 f32[5] f32[5] f32[5] f32[5]+ ; norm_coefficient=0.001 alpha=0.95 beta=0.1 epsilon=1e-7 ; out=3 "
    "nograd",
    "f32[1]+ i64[1]<1:5 f32[5] f32[2,3] f32[5] f32[2,3] f32[5] f32[2,3] f32[5]+ f32[2,3]+ ; epsilon=1e-5 "
    "norm_coefficient_post=0.1 ; out=6 nograd tol=1e-5",
    NULL};
static const char *const momentum_cases[] = {
    "f32=0.1 i64=0 f32[5] f32[5] f32[5] ; norm_coefficient=0.001 alpha=0.95 beta=0.1 mode=\"standard\" ; out=2 nograd",
    "f32=0.1 i64[]<1:9 f32[5] f32[5] f32[5] ; norm_coefficient=0.01 alpha=0.95 beta=0.5 mode=\"nesterov\" ; out=2 "
    "nograd",
    NULL};

#define OP(name, fn)                                                                                                   \
    {                                                                                                                  \
        .type = name, .domain = "ai.onnx.preview.training", .since = 1, .in_min = 5, .in_max = -1, .out_min = 1,       \
        .out_max = -1, .attrs_bytes = sizeof(training_attrs), .attrs = fn##_list, .infer = infer, .eval = eval,        \
        .expand = expand, .cases = fn##_cases                                                                          \
    }

const hk_op hk_ops_onnx_training[] = {OP("Adagrad", adagrad), OP("Adam", adam), OP("Momentum", momentum), {0}};
