/* CumSum and CumProd: running sums and products along an axis. */
#include <stddef.h>
#include <string.h>

#include "kernels.h"
#include "ops/support/build.h"
#include "ops/support/move_args.h"
#include "ops/support/reduce.h"
#include "shaders/cumulative.push.h"

typedef struct cumulative_attrs {
    int64_t exclusive, reverse;
} cumulative_attrs;
static const hk_attr attr_list[] = {
    HK_INT_ATTR(cumulative_attrs, exclusive, 0), HK_INT_ATTR(cumulative_attrs, reverse, 0), {0}};

static bool is_product(const hk_node *n)
{
    return !strcmp(n->op->type, "CumProd");
}

/* [rows / inner][extent][inner] */
typedef struct rows_view {
    int64_t rows, extent, inner;
} rows_view;

/* *axis -1: not known yet. */
static hk_status read_axis(const hk_args *a, int32_t *axis)
{
    int64_t given = 0;
    int32_t count;
    hk_shape x = hk_args_shape(a, 0);
    *axis = -1;
    HK_TRY(hk_args_ints(a, 1, "axis", &given, 1, &count));
    if (count == 0)
        return hk_args_fail(a, "axis is an empty list, expected one element");
    if (count < 0 || x.rank < 0)
        return HK_OK;
    return hk_args_axis(a, given, x.rank, axis);
}

static rows_view view_rows(const hk_shape *s, int32_t axis)
{
    int64_t inner = hk_shape_span(s, axis + 1, s->rank);
    return (rows_view){hk_shape_span(s, 0, axis) * inner, s->dim[axis], inner};
}

static bool can_add(hk_dtype t)
{
    return hk_dtype_is_float(t) || t == HK_INT32 || t == HK_UINT32 || t == HK_INT64 || t == HK_UINT64;
}

static hk_status infer(hk_infer *in)
{
    const hk_value *x = in->node->in[0];
    hk_args a = hk_infer_args(in);
    int32_t axis;
    if (!can_add(x->dtype))
        return hk_infer_fail(in, HK_STATUS_INVALID, "input '%s' is %s, expected a float or 32- or 64-bit integer type",
                             x->name, hk_dtype_name(x->dtype));
    HK_TRY(read_axis(&a, &axis));
    return hk_infer_output(in, 0, x->dtype, &x->shape);
}

static double combine(bool product, double a, double b)
{
    return product ? a * b : a + b;
}

/* Integers wrap modulo their width, and hk_set_int would saturate. */
static void set_wrapped(hk_tensor *y, int64_t i, uint64_t x)
{
    if (hk_dtype_bytes(y->dtype) == 8)
        memcpy((uint64_t *)y->data + i, &x, sizeof x);
    else
        ((uint32_t *)y->data)[i] = (uint32_t)x;
}

static hk_status eval(hk_eval *e)
{
    const cumulative_attrs *c = e->node->attrs;
    const hk_tensor *x = e->in[0];
    const hk_shape shape = hk_tensor_shape(x);
    hk_args a = hk_eval_args(e);
    int32_t axis;
    HK_TRY(read_axis(&a, &axis));
    hk_tensor *y = hk_eval_output(e, 0, x->dtype, &shape);
    if (!y)
        return hk_out_of_memory(e->ctx, "running sums");
    const rows_view v = view_rows(&shape, axis);
    bool product = is_product(e->node), floats = hk_dtype_is_float(x->dtype);
    for (int64_t row = 0; row < v.rows; row++) {
        int64_t base = row / v.inner * v.extent * v.inner + row % v.inner;
        double sum = product;
        uint64_t whole = product;
        for (int64_t k = 0; k < v.extent; k++) {
            int64_t at = base + (c->reverse ? v.extent - 1 - k : k) * v.inner;
            double next = floats ? combine(product, sum, hk_get_double(x, at)) : 0.0;
            uint64_t own = floats ? 0 : (uint64_t)hk_get_int(x, at), next_whole = product ? whole * own : whole + own;
            if (floats)
                hk_set_double(y, at, c->exclusive ? sum : next);
            else
                set_wrapped(y, at, c->exclusive ? whole : next_whole);
            sum = next;
            whole = next_whole;
        }
    }
    return HK_OK;
}

/* ---- the device */

typedef struct cut {
    hk_team team;
    int64_t chunk, chunks; /* chunk: a multiple of 4 */
} cut;

/* Rows are cut where there are too few of them to fill the device. */
static cut cut_rows(const hk_lower *l, const rows_view *v)
{
    int64_t fill = HK_MAX((int64_t)l->compute_units_hint, 1);
    int64_t least = l->cpu ? 2048 : v->inner > 1 ? 64 : 4096, most = 256;
    int64_t want = l->cpu ? 64 / HK_MAX(v->rows, 1) : (v->inner > 1 ? 1024 : 4) * fill / HK_MAX(v->rows, 1);
    int64_t chunks = HK_MAX(HK_MIN(HK_MIN(want, v->extent / least), most), 1);
    cut c = {.chunk = ((v->extent + chunks - 1) / chunks + 3) / 4 * 4};
    c.chunks = HK_MAX((v->extent + c.chunk - 1) / c.chunk, 1);
    c.team = hk_team_rows(l, v->rows * c.chunks, c.chunk / 4);
    if (v->inner > 1) {
        c.team = hk_team_columns(l, v->rows, 1);
        c.team.lanes = 1;
    }
    return c;
}

static const hk_kernel *pick_kernel(hk_dtype t)
{
    return t == HK_FLOAT32                   ? &hk_kernel_cumulative_f32
           : t == HK_INT32 || t == HK_UINT32 ? &hk_kernel_cumulative_i32
           : t == HK_INT64 || t == HK_UINT64 ? &hk_kernel_cumulative_i64
                                             : NULL;
}

static void emit(hk_lower *l, const rows_view *v, const cut *c, hk_value *totals, bool first)
{
    const hk_node *n = l->node;
    const cumulative_attrs *a = n->attrs;
    hk_value *x = n->in[0], *y = n->out[0];
    const hk_kernel *kernel = pick_kernel(hk_value_storage(x));
    const struct cumulative_push push = {.rows = (uint32_t)v->rows,
                                         .extent = (uint32_t)v->extent,
                                         .inner = (uint32_t)v->inner,
                                         .chunk = (uint32_t)c->chunk,
                                         .chunks = (uint32_t)c->chunks};
    hk_record *r = hk_team_emit(l, &c->team, (hk_team_kernel){kernel, NULL}, first ? "scan totals" : "scan",
                                v->rows * c->chunks, &push, sizeof push);
    hk_spec(r, HK_TEAM_SPEC, first);
    hk_spec(r, HK_TEAM_SPEC + 1, is_product(n));
    hk_spec(r, HK_TEAM_SPEC + 2, a->exclusive != 0);
    hk_spec(r, HK_TEAM_SPEC + 3, a->reverse != 0);
    hk_spec(r, HK_TEAM_SPEC + 4, v->inner == 1 && v->extent % 4 == 0 && hk_aligned_all((const hk_value *[]){x, y}, 2));
    hk_use(r, x, HK_READ, offsetof(struct cumulative_push, x));
    hk_use(r, first ? NULL : y, HK_WRITE, offsetof(struct cumulative_push, y));
    hk_use(r, totals, first ? HK_WRITE : HK_READ, offsetof(struct cumulative_push, totals));
    r->flops = (double)v->rows * (double)v->extent;
}

static hk_status lower(hk_lower *l)
{
    const hk_node *n = l->node;
    hk_value *x = n->in[0], *totals = NULL;
    hk_args a = hk_node_args(l->ctx, n);
    int32_t axis;
    HK_TRY(read_axis(&a, &axis));
    if (!pick_kernel(hk_value_storage(x)))
        return hk_fail(l->ctx, HK_STATUS_UNSUPPORTED,
                       "node '%s' (%s): no kernel for elements of type %s; cast them to float32", n->name, n->type,
                       hk_dtype_name(hk_value_storage(x)));
    if (hk_shape_count(&x->shape) == 0)
        return HK_OK;
    const rows_view v = view_rows(&x->shape, axis);
    const cut c = cut_rows(l, &v);
    if (c.chunks > 1) {
        totals = hk_scratch(l, x->dtype, v.rows * c.chunks);
        if (!totals)
            return HK_OK;
        emit(l, &v, &c, totals, true);
    }
    emit(l, &v, &c, totals, false);
    return HK_OK;
}

/* ---- differentiation */

static hk_status run(hk_graph *g, const char *type, hk_value *x, const hk_node *like, bool reversed, hk_value **y)
{
    const cumulative_attrs *c = like->attrs;
    const hk_attr_value attrs[] = {
        HK_SET_INT("exclusive", c->exclusive != 0), HK_SET_INT("reverse", (c->reverse != 0) != reversed), {0}};
    return hk_build(g, type, attrs, (hk_value *[]){x, like->in[1]}, 2, y, 1);
}

static hk_status sum_backward(hk_gradient *g, hk_node *n)
{
    hk_value *dy = hk_gradient_of(g, n->out[0]), *dx;
    if (!dy || !hk_gradient_wanted(g, n->in[0]))
        return HK_OK;
    HK_TRY(run(hk_gradient_graph(g), "CumSum", dy, n, true, &dx));
    return hk_gradient_add(g, n->in[0], dx);
}

static hk_status where(hk_graph *g, hk_value *condition, hk_value *a, hk_value *b, hk_value **y)
{
    return hk_build(g, "Where", NULL, (hk_value *[]){condition, a, b}, 3, y, 1);
}

/* With S(v) the sum of v over the elements behind, in the scan's order, dx = S(dy y) / x. Where x is 0 that says
 * nothing: at a row's first zero, y without that factor takes y's place, and behind it dx is 0. */
static hk_status product_backward(hk_gradient *g, hk_node *n)
{
    hk_graph *graph = hk_gradient_graph(g);
    hk_value *dy = hk_gradient_of(g, n->out[0]), *x = n->in[0], *y = n->out[0];
    if (!dy || !hk_gradient_wanted(g, x))
        return HK_OK;
    hk_value *zero = hk_graph_scalar(graph, x->dtype, 0.0), *one = hk_graph_scalar(graph, x->dtype, 1.0), *is_zero,
             *count, *before, *first, *safe, *rest, *at_first, *sum, *dx;
    if (!zero || !one)
        return hk_out_of_memory(graph->ctx, "a gradient");
    const cumulative_attrs *c = n->attrs;
    const hk_attr_value inclusive[] = {HK_SET_INT("reverse", c->reverse != 0), {0}};
    HK_TRY(hk_build_binary(graph, "Equal", x, zero, &is_zero));
    HK_TRY(where(graph, is_zero, one, zero, &count));
    HK_TRY(hk_build(graph, "CumSum", inclusive, (hk_value *[]){count, n->in[1]}, 2, &before, 1));
    HK_TRY(hk_build_binary(graph, "Equal", before, one, &first));
    HK_TRY(hk_build_binary(graph, "And", first, is_zero, &first));
    HK_TRY(where(graph, first, one, x, &safe));
    HK_TRY(run(graph, "CumProd", safe, n, false, &rest));
    HK_TRY(hk_build_binary(graph, "Mul", dy, rest, &rest));
    HK_TRY(run(graph, "CumSum", rest, n, true, &at_first));
    HK_TRY(hk_build_binary(graph, "Mul", dy, y, &sum));
    HK_TRY(run(graph, "CumSum", sum, n, true, &sum));
    HK_TRY(where(graph, is_zero, one, x, &safe));
    HK_TRY(hk_build_binary(graph, "Div", sum, safe, &sum));
    HK_TRY(hk_build_binary(graph, "Equal", before, zero, &count));
    HK_TRY(where(graph, count, sum, zero, &dx));
    HK_TRY(where(graph, first, at_first, dx, &dx));
    return hk_gradient_add(g, x, dx);
}

/* ---- the table */

#define CASES(name, ...) static const char *const name[] = {__VA_ARGS__, NULL}

CASES(sum_cases, "f16[3,5] i64=1 ;; nograd tol=1e-3", "f64[3,5] i64=1 ;; nograd", "f32[7] i64=0",
      "f32[3,5] i32={1} ; exclusive=1", "f32[2,5,3] i64=-2 ; reverse=1", "f32[2,8] i64=1 ; reverse=1 exclusive=1",
      "f32[2,0,3] i64=1", "f32[0,4] i32=1", "i32[5,6]<-9:9 i64=0", "i64[3,40]<-9:9 i64=1 ; exclusive=1",
      "u32[7]<9 i64=0 ; reverse=1", "f32[5,1000] i64=1 ;; nograd", "f32[3,1001] i64=1 ; reverse=1 ; nograd",
      "f32[1,20000] i64=1 ; exclusive=1 ; nograd", "f32[2,16390] i64=1 ; reverse=1 ; nograd",
      "f32[2,4200,5] i64=1 ;; nograd", "i64[40003]<-9:9 i64=0 ; reverse=1");
CASES(product_cases, "f32[7] i64=0", "f32[3,5] i64=1 ; exclusive=1", "f32[2,5,3]+ i64=1 ; reverse=1",
      "f32[2,5] i64=1 ; reverse=1 exclusive=1", "i32[3,6]<-4:4 i64=1", "i64[2,30]<1:3 i64=1", "f32[6,5]<-1:3 i64=1",
      "f32[6,5]<-1:3 i64=0 ; exclusive=1 reverse=1", "f32[4,3000]+ i64=1 ; ; nograd tol=1e-4");

#define OP(name, first, rule, list)                                                                                    \
    {                                                                                                                  \
        .type = name, .since = first, .in_min = 2, .in_max = 2, .out_min = 1, .out_max = 1, .host_inputs = 2,          \
        .attrs_bytes = sizeof(cumulative_attrs), .attrs = attr_list, .infer = infer, .eval = eval, .lower = lower,     \
        .backward = rule, .cases = list                                                                                \
    }

const hk_op hk_ops_cumulative[] = {
    OP("CumSum", 11, sum_backward, sum_cases),
    OP("CumProd", 26, product_backward, product_cases),
    {0},
};
