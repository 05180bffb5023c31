/* Softmax and LogSoftmax, and their gradients. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "kernels.h"
#include "ops/support/reduce.h"
#include "shaders/softmax.push.h"
#include "shaders/softmax_grad.push.h"

typedef struct softmax_attrs {
    int64_t axis;
    int64_t flatten; /* gradients only: the forward op is of opset 1 to 12 */
} softmax_attrs;

static const hk_attr attr_old[] = {HK_INT_ATTR(softmax_attrs, axis, 1), {0}};
static const hk_attr attr_list[] = {HK_INT_ATTR(softmax_attrs, axis, -1), {0}};
static const hk_attr attr_grad[] = {HK_INT_ATTR(softmax_attrs, axis, -1), HK_INT_ATTR(softmax_attrs, flatten, 0), {0}};

/* Before opset 13 a tensor is seen as a matrix [dimensions before axis][axis and all after it]. */
static bool flattens(const hk_node *n)
{
    const softmax_attrs *a = n->attrs;
    return n->op->attrs == attr_grad ? a->flatten != 0 : n->op->until != 0;
}

static bool is_log(const hk_node *n)
{
    return strstr(n->op->type, "Log") != NULL;
}

/* A tensor as rows [rows / inner][extent][inner] over which probabilities sum to 1. */
typedef struct rows_view {
    int64_t rows, extent, inner;
} rows_view;

static rows_view view_rows(const hk_node *n, const hk_shape *s)
{
    const softmax_attrs *a = n->attrs;
    if (s->rank == 0)
        return (rows_view){1, 1, 1};
    int32_t d = hk_axis(a->axis, s->rank);
    int64_t outer = hk_shape_span(s, 0, d);
    if (flattens(n))
        return (rows_view){outer, hk_shape_span(s, d, s->rank), 1};
    int64_t inner = hk_shape_span(s, d + 1, s->rank);
    return (rows_view){outer * inner, s->dim[d], inner};
}

/* ---- forward */

static hk_status check_axis(hk_infer *in, const hk_value *x)
{
    const softmax_attrs *a = in->node->attrs;
    hk_shape_text text;
    if (!hk_dtype_is_float(x->dtype))
        return hk_infer_fail(in, HK_STATUS_INVALID, "input '%s' is %s, expected a float type", x->name,
                             hk_dtype_name(x->dtype));
    /* A scalar has no axis; PyTorch exports its softmax, which is 1, with axis 0 or -1. */
    bool scalar = x->shape.rank == 0 && (a->axis == 0 || a->axis == -1);
    if (x->shape.rank >= 0 && !scalar && hk_axis(a->axis, x->shape.rank) < 0)
        return hk_infer_fail(in, HK_STATUS_INVALID, "axis %lld is outside [-%d, %d) of shape %s", (long long)a->axis,
                             (int)x->shape.rank, (int)x->shape.rank, hk_shape_print(&x->shape, &text));
    return HK_OK;
}

static hk_status softmax_infer(hk_infer *in)
{
    const hk_value *x = in->node->in[0];
    HK_TRY(check_axis(in, x));
    return hk_infer_output(in, 0, x->dtype, &x->shape);
}

static int64_t row_start(const rows_view *v, int64_t row)
{
    return row / v->inner * v->extent * v->inner + row % v->inner;
}

static hk_status softmax_eval(hk_eval *e)
{
    const hk_tensor *x = e->in[0];
    const hk_shape shape = hk_tensor_shape(x);
    hk_tensor *y = hk_eval_output(e, 0, x->dtype, &shape);
    if (!y)
        return hk_out_of_memory(e->ctx, "a Softmax output");
    if (hk_shape_count(&shape) == 0)
        return HK_OK;
    const rows_view v = view_rows(e->node, &shape);
    for (int64_t row = 0; row < v.rows; row++) {
        int64_t first = row_start(&v, row);
        double largest = -INFINITY, sum = 0.0;
        for (int64_t j = 0; j < v.extent; j++)
            largest = fmax(largest, hk_get_double(x, first + j * v.inner));
        for (int64_t j = 0; j < v.extent; j++)
            sum += exp(hk_get_double(x, first + j * v.inner) - largest);
        for (int64_t j = 0; j < v.extent; j++) {
            double shifted = hk_get_double(x, first + j * v.inner) - largest;
            hk_set_double(y, first + j * v.inner, is_log(e->node) ? shifted - log(sum) : exp(shifted) / sum);
        }
    }
    return HK_OK;
}

/* Team and the two constants of shaders/reduce_rows.glsl for rows that these values hold. */
typedef struct rows_plan {
    hk_team team;
    uint32_t held;
    bool vector;
} rows_plan;

static rows_plan plan_rows(const hk_lower *l, const rows_view *v, const hk_value *const *values, size_t count)
{
    int64_t units = (v->extent + 3) / 4;
    rows_plan p = {.vector = v->inner == 1 && v->extent % 4 == 0 && hk_aligned_all(values, count)};
    p.team = v->inner > 1 ? hk_team_columns(l, v->rows, v->extent) : hk_team_rows(l, v->rows, units);
    p.held = hk_team_held(l, &p.team, units);
    return p;
}

void hk_emit_softmax(hk_lower *l, hk_value *x, hk_value *y, int64_t rows, int64_t extent, int64_t inner, bool logarithm)
{
    const rows_view v = {rows, extent, inner};
    const rows_plan p = plan_rows(l, &v, (const hk_value *[]){x, y}, 2);
    const struct softmax_push push = {.rows = (uint32_t)rows, .extent = (uint32_t)extent, .inner = (uint32_t)inner};
    const hk_team_kernel kernel = {&hk_kernel_softmax, &hk_kernel_softmax_subgroup};
    hk_record *r = hk_team_emit(l, &p.team, kernel, p.held ? "softmax held" : "softmax long", rows, &push, sizeof push);
    hk_spec(r, HK_TEAM_SPEC, p.held);
    hk_spec(r, HK_TEAM_SPEC + 1, p.vector);
    hk_spec(r, HK_TEAM_SPEC + 2, logarithm);
    hk_use(r, x, HK_READ, offsetof(struct softmax_push, x));
    hk_use(r, y, HK_WRITE, offsetof(struct softmax_push, y));
    r->flops = 4.0 * (double)(rows * extent);
}

static hk_status softmax_lower(hk_lower *l)
{
    const hk_node *n = l->node;
    hk_value *x = n->in[0];
    HK_TRY(hk_require_float32(l, x));
    if (hk_shape_count(&x->shape) == 0)
        return HK_OK;
    const rows_view v = view_rows(n, &x->shape);
    hk_emit_softmax(l, x, n->out[0], v.rows, v.extent, v.inner, is_log(n));
    return HK_OK;
}

static hk_status softmax_backward(hk_gradient *g, hk_node *n)
{
    const softmax_attrs *a = n->attrs;
    hk_value *dy = hk_gradient_of(g, n->out[0]), *dx = NULL;
    if (!dy || !hk_gradient_wanted(g, n->in[0]))
        return HK_OK;
    const hk_attr_value attrs[] = {HK_SET_INT("axis", a->axis), HK_SET_INT("flatten", flattens(n)), {0}};
    HK_TRY(hk_build(hk_gradient_graph(g), is_log(n) ? "hk.LogSoftmaxGrad" : "hk.SoftmaxGrad", attrs,
                    (hk_value *[]){dy, n->out[0]}, 2, &dx, 1));
    return hk_gradient_add(g, n->in[0], dx);
}

/* ---- hk.SoftmaxGrad(dy, y), hk.LogSoftmaxGrad(dy, y) */

static hk_status grad_infer(hk_infer *in)
{
    const hk_value *dy = in->node->in[0], *y = in->node->in[1];
    hk_shape shape;
    hk_shape_text a, b;
    HK_TRY(check_axis(in, y));
    if (dy->dtype != y->dtype || !hk_shape_broadcast(&dy->shape, &y->shape, &shape) || dy->shape.rank != y->shape.rank)
        return hk_infer_fail(in, HK_STATUS_INVALID, "gradient is %s %s, expected the output's %s %s",
                             hk_dtype_name(dy->dtype), hk_shape_print(&dy->shape, &a), hk_dtype_name(y->dtype),
                             hk_shape_print(&y->shape, &b));
    return hk_infer_output(in, 0, y->dtype, &y->shape);
}

static hk_status grad_eval(hk_eval *e)
{
    const hk_tensor *dy = e->in[0], *y = e->in[1];
    const hk_shape shape = hk_tensor_shape(y);
    hk_tensor *dx = hk_eval_output(e, 0, y->dtype, &shape);
    if (!dx)
        return hk_out_of_memory(e->ctx, "a Softmax gradient");
    if (hk_shape_count(&shape) == 0)
        return HK_OK;
    const rows_view v = view_rows(e->node, &shape);
    for (int64_t row = 0; row < v.rows; row++) {
        int64_t first = row_start(&v, row), end = first + v.extent * v.inner;
        double sum = 0.0;
        for (int64_t i = first; i < end; i += v.inner)
            sum += hk_get_double(dy, i) * (is_log(e->node) ? 1.0 : hk_get_double(y, i));
        for (int64_t i = first; i < end; i += v.inner) {
            double d = hk_get_double(dy, i), p = hk_get_double(y, i);
            hk_set_double(dx, i, is_log(e->node) ? d - exp(p) * sum : p * (d - sum));
        }
    }
    return HK_OK;
}

static hk_status grad_lower(hk_lower *l)
{
    const hk_node *n = l->node;
    hk_value *dy = n->in[0], *y = n->in[1], *dx = n->out[0];
    HK_TRY(hk_require_float32(l, y));
    if (hk_shape_count(&y->shape) == 0)
        return HK_OK;
    const rows_view v = view_rows(n, &y->shape);
    rows_plan p = plan_rows(l, &v, (const hk_value *[]){dy, y, dx}, 3);
    if (p.held > 4)
        p.held = 0; /* two operands: more would take 64 registers */
    const struct softmax_grad_push push = {
        .rows = (uint32_t)v.rows, .extent = (uint32_t)v.extent, .inner = (uint32_t)v.inner};
    const hk_team_kernel kernel = {&hk_kernel_softmax_grad, &hk_kernel_softmax_grad_subgroup};
    hk_record *r = hk_team_emit(l, &p.team, kernel, p.held ? "softmax_grad held" : "softmax_grad long", v.rows, &push,
                                sizeof push);
    hk_spec(r, HK_TEAM_SPEC, p.held);
    hk_spec(r, HK_TEAM_SPEC + 1, p.vector);
    hk_spec(r, HK_TEAM_SPEC + 2, is_log(n));
    hk_use(r, dy, HK_READ, offsetof(struct softmax_grad_push, dy));
    hk_use(r, y, HK_READ, offsetof(struct softmax_grad_push, y));
    hk_use(r, dx, HK_WRITE, offsetof(struct softmax_grad_push, dx));
    r->flops = 4.0 * (double)hk_shape_count(&y->shape);
    return HK_OK;
}

/* ---- the table */

#define CASES(name, ...) static const char *const name[] = {__VA_ARGS__, NULL}

CASES(old_cases, "f32[3,4,5];;opset=12", "f32[3,4,5];axis=2;opset=12", "f32[7,33];axis=0;opset=11",
      "f32[2,3,4];axis=-2;opset=12", "f32[2,3,4];axis=1;opset=8");
CASES(cases, "f32[3,5]", "f32[2,3,4,5];axis=1", "f32[2,3,4,5];axis=0", "f32[]", "f32[17];axis=0", "f32[5,64]",
      "f32[3,1000]", "f32[2,5000];;nograd", "f32[2,2,12,40]", "f32[4,21,7,5];axis=1", "f32[3,0]", "f32[0,3]",
      "f32[66001,3];;nograd", "f32[70,128];axis=0");
CASES(grad_cases, "f32[3,5] f32[3,5];;nograd", "f32[2,3,4] f32[2,3,4];axis=1;nograd",
      "f32[2,3,4] f32[2,3,4];axis=1 flatten=1;nograd", "f32[5,512] f32[5,512];;nograd",
      "f32[2,4099] f32[2,4099];;nograd", "f32[2,21,7,5] f32[2,21,7,5];axis=1;nograd", "f32[0,3] f32[0,3];;nograd");

#define FORWARD(name)                                                                                                  \
    {.type = name,                                                                                                     \
     .since = 1,                                                                                                       \
     .until = 12,                                                                                                      \
     .in_min = 1,                                                                                                      \
     .in_max = 1,                                                                                                      \
     .out_min = 1,                                                                                                     \
     .out_max = 1,                                                                                                     \
     .attrs_bytes = sizeof(softmax_attrs),                                                                             \
     .attrs = attr_old,                                                                                                \
     .infer = softmax_infer,                                                                                           \
     .eval = softmax_eval,                                                                                             \
     .lower = softmax_lower,                                                                                           \
     .backward = softmax_backward,                                                                                     \
     .cases = old_cases},                                                                                              \
    {                                                                                                                  \
        .type = name, .since = 13, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1,                               \
        .attrs_bytes = sizeof(softmax_attrs), .attrs = attr_list, .infer = softmax_infer, .eval = softmax_eval,        \
        .lower = softmax_lower, .backward = softmax_backward, .cases = cases                                           \
    }
#define GRADIENT(name)                                                                                                 \
    {                                                                                                                  \
        .type = name, .since = 1, .in_min = 2, .in_max = 2, .out_min = 1, .out_max = 1,                                \
        .attrs_bytes = sizeof(softmax_attrs), .attrs = attr_grad, .infer = grad_infer, .eval = grad_eval,              \
        .lower = grad_lower, .cases = grad_cases                                                                       \
    }

const hk_op hk_ops_softmax[] = {
    FORWARD("Softmax"), FORWARD("LogSoftmax"), GRADIENT("hk.SoftmaxGrad"), GRADIENT("hk.LogSoftmaxGrad"), {0},
};
