/* ScatterND, ScatterElements and its older name Scatter; support/move_gather.h knows the geometry and moves. */
#include <string.h>

#include "ops/support/build.h"
#include "ops/support/move_gather.h"

typedef struct scatter_attrs {
    int64_t axis;
    const char *reduction;
} scatter_attrs;

static hk_status read_reduction(const hk_args *a, hk_scatter *how)
{
    static const char *const names[] = {[HK_SCATTER_NONE] = "none",
                                        [HK_SCATTER_ADD] = "add",
                                        [HK_SCATTER_MUL] = "mul",
                                        [HK_SCATTER_MAX] = "max",
                                        [HK_SCATTER_MIN] = "min"};
    const char *given = ((const scatter_attrs *)a->node->attrs)->reduction;
    *how = HK_SCATTER_NONE;
    if (a->node->op->since < 16)
        return HK_OK;
    for (size_t i = 0; i < HK_COUNT(names); i++)
        if (!strcmp(given, names[i])) {
            *how = (hk_scatter)i;
            return HK_OK;
        }
    return hk_args_fail(a, "reduction '%s', expected none, add, mul, max or min", given);
}

/* An evaluation in float64 may mix in float32 constants. */
static hk_status same_types(const hk_args *a)
{
    if (a->tensors || hk_args_dtype(a, 2) == hk_args_dtype(a, 0))
        return HK_OK;
    return hk_args_fail(a, "updates are %s, expected %s like the input", hk_dtype_name(hk_args_dtype(a, 2)),
                        hk_dtype_name(hk_args_dtype(a, 0)));
}

/* ---- differentiation: both operators, by what scatters to their places and what gathers from them */

typedef struct places {
    hk_graph *graph;
    hk_value *index;
    const char *scatter, *gather;
    const hk_attr_value *axis; /* NULL: the operators have none */
} places;

static hk_status scatter_to(const places *p, const char *reduction, hk_value *x, hk_value *updates, hk_value **out)
{
    const hk_attr_value attrs[] = {HK_SET_STRING("reduction", reduction), p->axis ? *p->axis : (hk_attr_value){0}, {0}};
    return hk_build(p->graph, p->scatter, attrs, (hk_value *[]){x, p->index, updates}, 3, out, 1);
}

static hk_status gather_from(const places *p, hk_value *x, hk_value **out)
{
    const hk_attr_value attrs[] = {p->axis ? *p->axis : (hk_attr_value){0}, {0}};
    return hk_build(p->graph, p->gather, attrs, (hk_value *[]){x, p->index}, 2, out, 1);
}

static hk_status filled_like(const places *p, const hk_value *x, double number, hk_value **out)
{
    hk_value *shape = hk_graph_ints(p->graph, x->shape.dim, x->shape.rank);
    if (!shape)
        return HK_STATUS_OUT_OF_MEMORY;
    HK_TRY(hk_build_unary(p->graph, "ConstantOfShape", shape, out));
    return number != 0 ? hk_build_scalar(p->graph, "Add", *out, number, out) : HK_OK;
}

/* 1 where two are equal, 0 elsewhere. */
static hk_status equals(const places *p, hk_value *a, hk_value *b, hk_value **out)
{
    HK_TRY(hk_build_binary(p->graph, "Equal", a, b, out));
    return hk_build_cast(p->graph, *out, a->dtype, out);
}

/* Replacing: the input's gradient is dY with zeros where the updates went, the updates' is gathered from dY (indices
 * that occur twice have none that is defined). Adding: both take dY as it is. */
static hk_status plain_backward(hk_gradient *g, const hk_node *n, const places *p, hk_scatter how, hk_value *dy)
{
    hk_value *x = n->in[0], *u = n->in[2], *zeros, *dx = dy, *du;
    if (hk_gradient_wanted(g, x)) {
        if (how == HK_SCATTER_NONE) {
            HK_TRY(filled_like(p, u, 0, &zeros));
            HK_TRY(scatter_to(p, "none", dy, zeros, &dx));
        }
        HK_TRY(hk_gradient_add(g, x, dx));
    }
    if (!hk_gradient_wanted(g, u))
        return HK_OK;
    HK_TRY(gather_from(p, dy, &du));
    return hk_gradient_add(g, u, du);
}

/* dU = dY times the product without this update: Y / U, or, where this update is the only zero among those of its
 * place, the product with a one in its stead. */
static hk_status product_updates(const places *p, const hk_node *n, hk_value *dy, hk_value **du)
{
    hk_graph *g = p->graph;
    hk_value *u = n->in[2], *one = hk_graph_scalar(g, u->dtype, 1), *none = hk_graph_scalar(g, u->dtype, 0);
    hk_value *is_zero, *alone, *count, *without, *divisor;
    if (!one || !none)
        return HK_STATUS_OUT_OF_MEMORY;
    HK_TRY(hk_build_binary(g, "Equal", u, none, &is_zero));
    HK_TRY(hk_build_cast(g, is_zero, u->dtype, &count));
    HK_TRY(filled_like(p, n->in[0], 0, &without));
    HK_TRY(scatter_to(p, "add", without, count, &count));
    HK_TRY(gather_from(p, count, &count));
    HK_TRY(hk_build_binary(g, "Equal", count, one, &alone));
    HK_TRY(hk_build_binary(g, "And", alone, is_zero, &alone));
    HK_TRY(hk_build(g, "Where", NULL, (hk_value *[]){alone, one, u}, 3, &without, 1));
    HK_TRY(scatter_to(p, "mul", n->in[0], without, &without));
    HK_TRY(hk_build_binary(g, "Mul", dy, without, &without));
    HK_TRY(gather_from(p, without, &without));
    HK_TRY(hk_build(g, "Where", NULL, (hk_value *[]){is_zero, one, u}, 3, &divisor, 1));
    HK_TRY(hk_build_binary(g, "Mul", dy, n->out[0], du));
    HK_TRY(gather_from(p, *du, du));
    HK_TRY(hk_build_binary(g, "Div", *du, divisor, du));
    return hk_build(g, "Where", NULL, (hk_value *[]){alone, without, *du}, 3, du, 1);
}

/* dX = dY times the product of the updates. */
static hk_status product_backward(hk_gradient *g, const hk_node *n, const places *p, hk_value *dy)
{
    hk_value *x = n->in[0], *u = n->in[2], *dx, *du;
    if (hk_gradient_wanted(g, x)) {
        HK_TRY(filled_like(p, x, 1, &dx));
        HK_TRY(scatter_to(p, "mul", dx, u, &dx));
        HK_TRY(hk_build_binary(p->graph, "Mul", dy, dx, &dx));
        HK_TRY(hk_gradient_add(g, x, dx));
    }
    if (!hk_gradient_wanted(g, u))
        return HK_OK;
    HK_TRY(product_updates(p, n, dy, &du));
    return hk_gradient_add(g, u, du);
}

/* All that equal the extremum share dY evenly, X among them (torch.scatter_reduce). */
static hk_status extremum_backward(hk_gradient *g, const hk_node *n, const places *p, hk_value *dy)
{
    hk_value *x = n->in[0], *u = n->in[2], *y = n->out[0], *taken, *x_is, *u_is, *share, *dx, *du;
    HK_TRY(gather_from(p, y, &taken));
    HK_TRY(equals(p, x, y, &x_is));
    HK_TRY(equals(p, u, taken, &u_is));
    HK_TRY(scatter_to(p, "add", x_is, u_is, &share));
    HK_TRY(hk_build_binary(p->graph, "Div", dy, share, &share));
    if (hk_gradient_wanted(g, x)) {
        HK_TRY(hk_build_binary(p->graph, "Mul", x_is, share, &dx));
        HK_TRY(hk_gradient_add(g, x, dx));
    }
    if (!hk_gradient_wanted(g, u))
        return HK_OK;
    HK_TRY(gather_from(p, share, &du));
    HK_TRY(hk_build_binary(p->graph, "Mul", u_is, du, &du));
    return hk_gradient_add(g, u, du);
}

static hk_status scatter_backward(hk_gradient *g, hk_node *n, const char *scatter, const char *gather,
                                  const hk_attr_value *axis)
{
    const places p = {hk_gradient_graph(g), n->in[1], scatter, gather, axis};
    hk_value *dy = hk_gradient_of(g, n->out[0]);
    hk_args a = hk_node_args(p.graph->ctx, n);
    hk_scatter how;
    if (!dy)
        return HK_OK;
    HK_TRY(read_reduction(&a, &how));
    if (!hk_shape_known(&n->in[0]->shape) || !hk_shape_known(&n->in[2]->shape))
        return hk_args_shape_wanted(&a);
    if (how == HK_SCATTER_MUL)
        return product_backward(g, n, &p, dy);
    if (how == HK_SCATTER_MAX || how == HK_SCATTER_MIN)
        return extremum_backward(g, n, &p, dy);
    return plain_backward(g, n, &p, how, dy);
}

/* ---- ScatterND: x with the rows that index tuples name replaced by, or combined with, those of updates */

static const hk_attr scatter_nd_attr_list[] = {HK_STRING_ATTR(scatter_attrs, reduction, "none"), {0}};

static hk_status scatter_nd_read(const hk_args *a, hk_scatter *how, hk_tuples *t)
{
    hk_shape x = hk_args_shape(a, 0), index = hk_args_shape(a, 1), updates = hk_args_shape(a, 2), want;
    hk_shape_text found, expected;
    HK_TRY(hk_check_index(a, 1));
    HK_TRY(same_types(a));
    HK_TRY(read_reduction(a, how));
    HK_TRY(hk_tuples_shape(a, &x, &index, 0, &want));
    *t = (hk_tuples){0};
    if (!hk_shape_known(&x) || !hk_shape_known(&index) || !hk_shape_known(&updates))
        return HK_OK;
    if (!hk_shape_equal(&updates, &want))
        return hk_args_fail(a, "updates are %s, expected %s", hk_shape_print(&updates, &found),
                            hk_shape_print(&want, &expected));
    *t = hk_tuples_of(&x, &index, 0);
    return HK_OK;
}

static hk_status scatter_nd_infer(hk_infer *in)
{
    hk_args a = hk_infer_args(in);
    hk_scatter how;
    hk_tuples t;
    HK_TRY(scatter_nd_read(&a, &how, &t));
    return hk_infer_output(in, 0, in->node->in[0]->dtype, &in->node->in[0]->shape);
}

static hk_status scatter_nd_eval(hk_eval *e)
{
    hk_args a = hk_eval_args(e);
    hk_shape s = hk_tensor_shape(e->in[0]);
    hk_scatter how;
    hk_tuples t;
    HK_TRY(scatter_nd_read(&a, &how, &t));
    hk_tensor *y = hk_eval_output(e, 0, hk_wider(e->in[0]->dtype, e->in[2]->dtype), &s);
    if (!y)
        return hk_out_of_memory(e->ctx, "a scattered tensor");
    return hk_host_scatter(e, &t, how, e->in[0], e->in[1], e->in[2], y);
}

static hk_status scatter_nd_lower(hk_lower *l)
{
    const hk_node *n = l->node;
    hk_args a = hk_node_args(l->ctx, n);
    hk_scatter how;
    hk_tuples t;
    HK_TRY(scatter_nd_read(&a, &how, &t));
    return hk_emit_scatter(l, &t, how, n->in[0], n->in[1], n->in[2], n->out[0]);
}

/* Rows are combined in float32 alone. */
static hk_dtype scatter_nd_lacks(const hk_node *n)
{
    hk_dtype t = n->in[0]->dtype;
    return t != HK_FLOAT32 && strcmp(((const scatter_attrs *)n->attrs)->reduction, "none") ? t : HK_DTYPE_NONE;
}

static hk_status scatter_nd_backward(hk_gradient *g, hk_node *n)
{
    return scatter_backward(g, n, "ScatterND", "GatherND", NULL);
}

static const char *const scatter_nd_cases[] = {
    "i64[7,3]<99 i64[4,1]={4,3,1,6} i64[4,3]<99 ; ; nograd",
    "f32[8] i64[4,1]={4,3,1,7} f32[4]",
    "f32[4,4,4] i64[2,1]={0,2} f32[2,4,4]",
    "f32[4,5,3] i64[3,2]={0,1,3,4,2,-1} f32[3,3]",
    "f32[4,4] i64[9,1]<4 f32[9,4] ; ; nograd",
    "f32[6,4] i64[9,1]<-6:6 f32[9,4] ; reduction=\"add\"",
    "f32[6,5] i64[9,1]<6 f32[9,5] ; reduction=\"mul\"",
    "f32[6,5] i64[9,1]<6 f32[9,5] ; reduction=\"max\"",
    "f32[6,5] i64[9,1]<6 f32[9,5] ; reduction=\"min\"",
    "f32[3,4] i64[8,2]<3 f32[8] ; reduction=\"add\"",
    "i64[5,4]<9 i64[3,1]<5 i64[3,4]<99 ; ; nograd",
    "f32[5,4] i64[0,1]<1 f32[0,4] ; ; nograd",
    "f32[500,64] i64[3000,1]<500 f32[3000,64] ; ; nograd",
    NULL,
};
static const char *const scatter_nd_11_cases[] = {"f16[7,3] i64[4,1]={4,3,1,6} f16[4,3] ; ; nograd",
                                                  "f32[8] i64[4,1]={4,3,1,7} f32[4]", NULL};

/* ---- ScatterElements: the index has the rank of x */

static const hk_attr scatter_11_attr_list[] = {HK_INT_ATTR(scatter_attrs, axis, 0), {0}};
static const hk_attr scatter_16_attr_list[] = {
    HK_INT_ATTR(scatter_attrs, axis, 0), HK_STRING_ATTR(scatter_attrs, reduction, "none"), {0}};

static hk_status scatter_elements_read(const hk_args *a, hk_scatter *how, hk_lines *t)
{
    hk_shape x = hk_args_shape(a, 0), index = hk_args_shape(a, 1), updates = hk_args_shape(a, 2);
    hk_shape_text found, expected;
    HK_TRY(hk_check_index(a, 1));
    HK_TRY(same_types(a));
    HK_TRY(read_reduction(a, how));
    if (hk_shape_known(&index) && hk_shape_known(&updates) && !hk_shape_equal(&index, &updates))
        return hk_args_fail(a, "updates are %s, expected %s like the index", hk_shape_print(&updates, &found),
                            hk_shape_print(&index, &expected));
    return hk_read_lines(a, &x, &index, ((const scatter_attrs *)a->node->attrs)->axis, t);
}

static hk_status scatter_elements_infer(hk_infer *in)
{
    hk_args a = hk_infer_args(in);
    hk_scatter how;
    hk_lines t;
    HK_TRY(scatter_elements_read(&a, &how, &t));
    return hk_infer_output(in, 0, in->node->in[0]->dtype, &t.x);
}

static hk_status scatter_elements_eval(hk_eval *e)
{
    hk_args a = hk_eval_args(e);
    hk_scatter how;
    hk_lines t;
    HK_TRY(scatter_elements_read(&a, &how, &t));
    hk_tensor *y = hk_eval_output(e, 0, hk_wider(e->in[0]->dtype, e->in[2]->dtype), &t.x);
    if (!y)
        return hk_out_of_memory(e->ctx, "a scattered tensor");
    return hk_host_scatter_lines(e, &t, how, e->in[0], e->in[1], e->in[2], y);
}

static hk_status scatter_elements_lower(hk_lower *l)
{
    const hk_node *n = l->node;
    hk_args a = hk_node_args(l->ctx, n);
    hk_scatter how;
    hk_lines t;
    HK_TRY(scatter_elements_read(&a, &how, &t));
    return hk_emit_scatter_lines(l, &t, how, n->in[0], n->in[1], n->in[2], n->out[0]);
}

/* Elements are combined in float32 and int32. */
static hk_dtype scatter_elements_lacks(const hk_node *n)
{
    return n->in[0]->dtype == HK_INT32 ? HK_DTYPE_NONE : scatter_nd_lacks(n);
}

static hk_status scatter_elements_backward(hk_gradient *g, hk_node *n)
{
    const hk_attr_value axis = HK_SET_INT("axis", ((const scatter_attrs *)n->attrs)->axis);
    return scatter_backward(g, n, "ScatterElements", "GatherElements", &axis);
}

static const char *const scatter_elements_cases[] = {
    "f32[3,3] i64[2,3]={1,0,2,0,2,1} f32[2,3]",
    "f32[1,5] i64[1,2]={1,-1} f32[1,2] ; axis=1",
    "f32[4,5,6] i64[4,3,6]<5 f32[4,3,6] ; axis=1 ; nograd",
    "f32[5,4] i64[7,3]<-5:5 f32[7,3] ; reduction=\"add\"",
    "f32[5,4] i64[7,3]<5 f32[7,3] ; reduction=\"mul\"",
    "f32[5,4] i64[7,3]<5 f32[7,3] ; reduction=\"max\"",
    "f32[5,4] i64[7,3]<5 f32[7,3] ; reduction=\"min\"",
    "i32[6]<50 i32[4]<6 i32[4]<50 ; reduction=\"add\" ; nograd",
    "i64[6]<50 i64[4]<6 i64[4]<50 ; ; nograd",
    "i64[6]<50 i64[4]<6 i64[4]<50 ; reduction=\"add\" ; nograd",
    "f32[4,3] i64[0,3]<1 f32[0,3] ; ; nograd",
    "f32[300,300] i64[20,300]<300 f32[20,300] ; reduction=\"add\" ; nograd",
    NULL,
};
static const char *const scatter_11_cases[] = {"f16[3,3] i64[2,3]={1,0,2,0,2,1} f16[2,3] ; ; nograd",
                                               "f32[3,3] i64[2,3]={1,0,2,0,2,1} f32[2,3]",
                                               "f32[2,5] i64[2,1]={4,1} f32[2,1] ; axis=-1", NULL};

#define OP(name, first, last, ins, any, attr_struct, list, fn, back, absent, case_list)                                \
    {                                                                                                                  \
        .type = name, .since = first, .until = last, .in_min = ins, .in_max = ins, .out_min = 1, .out_max = 1,         \
        .flags = any, .attrs_bytes = sizeof(attr_struct), .attrs = list, .infer = fn##_infer, .eval = fn##_eval,       \
        .lower = fn##_lower, .backward = back, .lacks = absent, .cases = case_list                                     \
    }

enum { MOVES = HK_OP_ANY_TYPE, COMPUTES = 0 }; /* a reduction is arithmetic */

const hk_op hk_ops_scatter[] = {
    OP("ScatterND", 11, 15, 3, MOVES, scatter_attrs, NULL, scatter_nd, scatter_nd_backward, NULL, scatter_nd_11_cases),
    OP("ScatterND", 16, 0, 3, COMPUTES, scatter_attrs, scatter_nd_attr_list, scatter_nd, scatter_nd_backward,
       scatter_nd_lacks, scatter_nd_cases),
    OP("Scatter", 9, 10, 3, MOVES, scatter_attrs, scatter_11_attr_list, scatter_elements, scatter_elements_backward,
       NULL, scatter_11_cases),
    OP("ScatterElements", 11, 15, 3, MOVES, scatter_attrs, scatter_11_attr_list, scatter_elements,
       scatter_elements_backward, NULL, scatter_11_cases),
    OP("ScatterElements", 16, 0, 3, COMPUTES, scatter_attrs, scatter_16_attr_list, scatter_elements,
       scatter_elements_backward, scatter_elements_lacks, scatter_elements_cases),
    {0},
};
