/*
 * hk.Attention (q, k, v, mask): attention whose operands lie anywhere in their values. What runtime/fuse_attention.c
 * makes when it finds attention written as products and a softmax: transposed, sliced and split operands are read where
 * they are.
 */
#include <math.h>
#include <stddef.h>

#include "ops/support/attention.h"
#include "ops/support/build.h"
#include "ops/support/move_args.h"
#include "ops/support/reduce.h"

enum { Q, K, V, MASK };
enum { Y };

typedef struct view_attrs {
    int64_t batch, heads, kv_heads, rows, keys, size, v_size, is_causal, past;
    int64_t order; /* hk_attention_order */
    int64_t zero;
    hk_ints q_view, k_view, v_view; /* offset and strides of batch, head and row, elements */
    float scale;
} view_attrs;

static const hk_attr view_attr_list[] = {
    HK_INT_ATTR(view_attrs, batch, 1),     HK_INT_ATTR(view_attrs, heads, 1),
    HK_INT_ATTR(view_attrs, kv_heads, 1),  HK_INT_ATTR(view_attrs, rows, 1),
    HK_INT_ATTR(view_attrs, keys, 1),      HK_INT_ATTR(view_attrs, size, 1),
    HK_INT_ATTR(view_attrs, v_size, 1),    HK_INT_ATTR(view_attrs, order, HK_ATTENTION_HEADS),
    HK_INT_ATTR(view_attrs, zero, 0),      HK_INT_ATTR(view_attrs, is_causal, 0),
    HK_INT_ATTR(view_attrs, past, 0),      HK_INTS_ATTR(view_attrs, q_view),
    HK_INTS_ATTR(view_attrs, k_view),      HK_INTS_ATTR(view_attrs, v_view),
    HK_FLOAT_ATTR(view_attrs, scale, 1.0), {0}};

/* The view of an attribute, inside a value of so many elements (-1: unknown). */
static hk_status read_view(const hk_args *a, int32_t i, const hk_ints *list, const int64_t extent[4],
                           hk_attention_view *v)
{
    hk_shape s = hk_args_shape(a, i);
    int64_t count = s.rank < 0 ? -1 : hk_shape_count(&s), last = extent[3] - 1;
    if (list->count != 4)
        return hk_args_fail(a, "expected a view of four numbers for input %d, found %d", i, list->count);
    for (int d = 0; d < 3; d++) {
        if (extent[d] < 1 || list->v[1 + d] < 0 || list->v[1 + d] > INT32_MAX || extent[d] > INT32_MAX)
            return hk_args_fail(a, "expected extents above 0 and strides from 0 on for input %d", i);
        last += (extent[d] - 1) * list->v[1 + d];
    }
    if (extent[3] < 1 || list->v[0] < 0 || (count >= 0 && list->v[0] + last >= count))
        return hk_args_fail(a, "the view of input %d ends beyond its %lld elements", i, (long long)count);
    *v = (hk_attention_view){list->v[0], list->v[1], list->v[2], list->v[3]};
    return HK_OK;
}

static hk_status resolve_views(const hk_args *a, hk_attention *p)
{
    const view_attrs *at = a->node->attrs;
    if (at->kv_heads < 1 || at->heads % at->kv_heads || at->order < 0 || at->order >= HK_ATTENTION_ORDERS)
        return hk_args_fail(a, "expected heads to be a multiple of kv_heads, and a known order");
    *p = (hk_attention){.batch = at->batch,
                        .heads = at->heads,
                        .kv_heads = at->kv_heads,
                        .rows = at->rows,
                        .keys = at->keys,
                        .size = at->size,
                        .v_size = at->v_size,
                        .order = (hk_attention_order)at->order,
                        .zero = at->zero != 0,
                        .causal = at->is_causal != 0,
                        .past = at->past,
                        .scale = at->scale};
    HK_TRY(read_view(a, Q, &at->q_view, (const int64_t[]){p->batch, p->heads, p->rows, p->size}, &p->q));
    HK_TRY(read_view(a, K, &at->k_view, (const int64_t[]){p->batch, p->kv_heads, p->keys, p->size}, &p->k));
    HK_TRY(read_view(a, V, &at->v_view, (const int64_t[]){p->batch, p->kv_heads, p->keys, p->v_size}, &p->v));
    hk_shape mask = hk_args_shape(a, MASK);
    if (hk_args_present(a, MASK) && mask.rank >= 0 && !hk_attention_set_mask(p, &mask, false)) {
        hk_shape_text text;
        return hk_args_fail(a, "expected a mask that fits [%lld,%lld,%lld,%lld], found %s", (long long)p->batch,
                            (long long)p->heads, (long long)p->rows, (long long)p->keys, hk_shape_print(&mask, &text));
    }
    return HK_OK;
}

static hk_status views_infer(hk_infer *in)
{
    const hk_args a = hk_infer_args(in);
    hk_attention p;
    for (int32_t i = 0; i < in->node->in_count; i++) {
        const hk_value *x = in->node->in[i];
        if (x && !hk_dtype_is_float(x->dtype) && (i != MASK || x->dtype != HK_BOOL))
            return hk_infer_fail(in, HK_STATUS_INVALID, "input '%s' is %s, expected a float type", x->name,
                                 hk_dtype_name(x->dtype));
    }
    HK_TRY(resolve_views(&a, &p));
    const hk_shape shapes[HK_ATTENTION_ORDERS] = {
        [HK_ATTENTION_HEADS] = {.rank = 4, .dim = {p.batch, p.heads, p.rows, p.v_size}},
        [HK_ATTENTION_ROWS] = {.rank = 3, .dim = {p.batch, p.rows, p.heads * p.v_size}},
        [HK_ATTENTION_BATCH] = {.rank = 3, .dim = {p.rows, p.batch, p.heads * p.v_size}}};
    return hk_infer_output(in, Y, in->node->in[Q]->dtype, &shapes[p.order]);
}

static hk_status views_eval(hk_eval *e)
{
    const hk_args a = hk_eval_args(e);
    hk_attention p;
    HK_TRY(resolve_views(&a, &p));
    const hk_shape s = e->node->out[Y]->shape;
    const hk_attention_tensors t = {.q = e->in[Q],
                                    .k = e->in[K],
                                    .v = e->in[V],
                                    .mask = hk_in(e->node, MASK) ? e->in[MASK] : NULL,
                                    .y = hk_eval_output(e, Y, e->in[Q]->dtype, &s)};
    return t.y ? hk_attention_eval(e->ctx, e->arena, &p, HK_ATTENTION_PROBABILITIES, &t)
               : hk_out_of_memory(e->ctx, "an attention's output");
}

static hk_status views_lower(hk_lower *l)
{
    const hk_node *n = l->node;
    const hk_args a = hk_node_args(l->ctx, n);
    hk_attention p;
    HK_TRY(resolve_views(&a, &p));
    const hk_attention_values v = {.q = n->in[Q], .k = n->in[K], .v = n->in[V], .y = n->out[Y], .mask = hk_in(n, MASK)};
    if (v.mask && v.mask->dtype != HK_BOOL)
        HK_TRY(hk_require_float32(l, v.mask));
    hk_attention_emit(l, &p, &v);
    return HK_OK;
}

/* ---- backward: scores and probabilities are computed again, when the gradient of the result is there */

typedef struct backward {
    hk_gradient *g;
    hk_graph *graph;
    const hk_node *n;
    hk_attention p;
} backward;

static void extents(const hk_attention *p, int32_t i, int64_t extent[4])
{
    extent[0] = p->batch;
    extent[1] = p->heads;
    extent[2] = i == Q ? p->rows : p->keys;
    extent[3] = i == V ? p->v_size : p->size;
}

/* x, which lies as the view says, as [batch, heads, rows, size]. */
static hk_status heads_first(const backward *b, hk_value *x, const hk_attention_view *v, const int64_t extent[4],
                             hk_value **out)
{
    int64_t order[4], perm[4];
    hk_shape s = {.rank = 4};
    if (!hk_attention_is_whole(v, extent, hk_shape_count(&x->shape), order))
        return hk_fail(b->graph->ctx, HK_STATUS_UNSUPPORTED,
                       "node '%s' (hk.Attention): a gradient needs operands that are read once and whole", b->n->name);
    for (int d = 0; d < 4; d++) {
        s.dim[d] = extent[order[d]];
        perm[order[d]] = d;
    }
    HK_TRY(hk_build_reshape(b->graph, x, &s, &x));
    return hk_build_transpose(b->graph, x, perm, 4, out);
}

/* The other way, and into the gradient of input i. */
static hk_status add_operand_gradient(const backward *b, int32_t i, const hk_attention_view *v, hk_value *dx)
{
    hk_value *x = b->n->in[i];
    int64_t order[4], extent[4];
    extents(&b->p, i, extent);
    if (!hk_attention_is_whole(v, extent, hk_shape_count(&x->shape), order))
        return HK_STATUS_INTERNAL; /* heads_first has told */
    HK_TRY(hk_build_transpose(b->graph, dx, order, 4, &dx));
    HK_TRY(hk_build_reshape(b->graph, dx, &x->shape, &dx));
    return hk_gradient_add(b->g, x, dx);
}

static hk_status product(const backward *b, hk_value *x, bool turn_x, hk_value *y, bool turn_y, float alpha,
                         hk_value **z)
{
    const hk_attr_value attrs[] = {
        HK_SET_INT("transA", turn_x), HK_SET_INT("transB", turn_y), HK_SET_FLOAT("alpha", alpha), {0}};
    return hk_build(b->graph, "hk.Gemm", attrs, (hk_value *[]){x, y}, 2, z, 1);
}

static hk_status probabilities(const backward *b, hk_value *q, hk_value *k, hk_value **out)
{
    const hk_attr_value axis[] = {HK_SET_INT("axis", -1), {0}};
    hk_value *mask = hk_in(b->n, MASK), *s, *other;
    HK_TRY(product(b, q, false, k, true, b->p.scale, &s));
    if (mask && mask->dtype == HK_BOOL) {
        if (!(other = hk_graph_scalar(b->graph, s->dtype, -INFINITY)))
            return hk_out_of_memory(b->graph->ctx, "a gradient");
        HK_TRY(hk_build(b->graph, "Where", NULL, (hk_value *[]){mask, s, other}, 3, &s, 1));
    } else if (mask) {
        HK_TRY(hk_build_binary(b->graph, "Add", s, mask, &s));
    }
    HK_TRY(hk_build(b->graph, "Softmax", axis, &s, 1, out, 1));
    if (!b->p.zero)
        return HK_OK;
    if (!(other = hk_graph_scalar(b->graph, s->dtype, 0.0)))
        return hk_out_of_memory(b->graph->ctx, "a gradient");
    HK_TRY(hk_build_unary(b->graph, "IsNaN", *out, &s));
    return hk_build(b->graph, "Where", NULL, (hk_value *[]){s, other, *out}, 3, out, 1);
}

/* The view of y as its order says. */
static hk_attention_view result_view(const hk_attention *p)
{
    int64_t row = p->heads * p->v_size;
    if (p->order == HK_ATTENTION_HEADS)
        return (hk_attention_view){.batch = p->rows * row, .head = p->rows * p->v_size, .row = p->v_size};
    if (p->order == HK_ATTENTION_ROWS)
        return (hk_attention_view){.batch = p->rows * row, .head = p->v_size, .row = row};
    return (hk_attention_view){.batch = row, .head = p->v_size, .row = p->batch * row};
}

static hk_status views_backward(hk_gradient *g, hk_node *n)
{
    backward b = {.g = g, .graph = hk_gradient_graph(g), .n = n};
    const hk_args a = hk_node_args(b.graph->ctx, n);
    const hk_attr_value axis[] = {HK_SET_INT("axis", -1), {0}};
    hk_value *dy = hk_gradient_of(g, n->out[Y]), *x[3], *weights, *ds, *dq, *dk, *dv;
    HK_TRY(resolve_views(&a, &b.p));
    if (b.p.causal || b.p.heads != b.p.kv_heads)
        return hk_fail(b.graph->ctx, HK_STATUS_UNSUPPORTED,
                       "node '%s' (hk.Attention): causal or with keys that heads share it has no gradient", n->name);
    const hk_attention_view views[] = {b.p.q, b.p.k, b.p.v}, y = result_view(&b.p);
    for (int32_t i = Q; i <= V; i++) {
        int64_t extent[4];
        extents(&b.p, i, extent);
        HK_TRY(hk_build_binary(b.graph, HK_AFTER, n->in[i], dy, &x[i]));
        HK_TRY(heads_first(&b, x[i], &views[i], extent, &x[i]));
    }
    HK_TRY(heads_first(&b, dy, &y, (const int64_t[]){b.p.batch, b.p.heads, b.p.rows, b.p.v_size}, &dy));
    HK_TRY(probabilities(&b, x[Q], x[K], &weights));
    HK_TRY(product(&b, dy, false, x[V], true, 1.0f, &ds));
    HK_TRY(hk_build(b.graph, "hk.SoftmaxGrad", axis, (hk_value *[]){ds, weights}, 2, &ds, 1));
    HK_TRY(hk_in(n, MASK) && n->in[MASK]->dtype != HK_BOOL ? hk_gradient_add(g, n->in[MASK], ds) : HK_OK);
    HK_TRY(product(&b, ds, false, x[K], false, b.p.scale, &dq));
    HK_TRY(product(&b, ds, true, x[Q], false, b.p.scale, &dk));
    HK_TRY(product(&b, weights, true, dy, false, 1.0f, &dv));
    HK_TRY(add_operand_gradient(&b, Q, &views[Q], dq));
    HK_TRY(add_operand_gradient(&b, K, &views[K], dk));
    return add_operand_gradient(&b, V, &views[V], dv);
}

#define CASES(name, ...) static const char *const name[] = {__VA_ARGS__, NULL}

CASES(
    view_cases,
    "f32[2,5,3,2,8] f32[2,5,3,2,8] f32[2,5,3,2,8] f32[1,2,1,5];batch=2 heads=2 kv_heads=2 rows=5 keys=5 size=8 "
    "v_size=8 "
    "order=1 scale=0.4 q_view=[0,240,8,48] k_view=[16,240,8,48] v_view=[32,240,8,48];nograd",
    "f32[200] f32[300] f32[300] f32[2,1,3,5];batch=4 heads=2 rows=3 keys=5 size=7 v_size=6 is_causal=1 past=2 "
    "q_view=[1,30,14,8] k_view=[3,50,0,9] v_view=[0,50,0,8];nograd",
    "f32[2,33,2,8] f32[2,33,2,8] f32[2,33,2,8] bool[33,33];batch=2 heads=2 kv_heads=2 rows=33 keys=33 size=8 "
    "v_size=8 order=2 zero=1 q_view=[0,528,8,16] k_view=[0,528,8,16] v_view=[0,528,8,16];nograd",
    "f32[2,5,3,8] f32[2,5,3,8] f32[5,2,3,6] f32[1,1,5,5];batch=2 heads=3 kv_heads=3 rows=5 keys=5 size=8 v_size=6 "
    "order=1 scale=0.4 q_view=[0,120,8,24] k_view=[0,120,8,24] v_view=[0,18,6,36]",
    "f32[2,3,4,7] f32[2,3,6,7] f32[2,3,6,7] bool[4,6];batch=2 heads=3 kv_heads=3 rows=4 keys=6 size=7 v_size=7 order=2 "
    "zero=1 q_view=[0,84,28,7] k_view=[0,126,42,7] v_view=[0,126,42,7]",
    "f32[3,1,6] f32[2,6] f32[2,6];rows=3 keys=2 size=6 v_size=6 scale=0.5 q_view=[0,0,0,6] k_view=[0,0,0,6] "
    "v_view=[0,0,0,6]",
    "f32[1,1,5,8] f32[1,1,3,8] f32[1,1,3,8] bool[5,1];rows=5 keys=3 size=8 v_size=8 zero=1 q_view=[0,0,0,8] "
    "k_view=[0,0,0,8] v_view=[0,0,0,8];nograd");

const hk_op hk_ops_attention_views[] = {
    {.type = "hk.Attention",
     .since = 1,
     .in_min = 3,
     .in_max = 4,
     .out_min = 1,
     .out_max = 1,
     .attrs_bytes = sizeof(view_attrs),
     .attrs = view_attr_list,
     .infer = views_infer,
     .eval = views_eval,
     .half_in = 7,
     .half_out = 1,
     .lower = views_lower,
     .backward = views_backward,
     .cases = view_cases},
    {0},
};
