/* Attention (opset 23 on), and its gradient as a rule of other operators. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "ops/support/attention.h"
#include "ops/support/gemm.h"
#include "ops/support/move.h"
#include "ops/support/move_args.h"
#include "ops/support/reduce.h"

enum { Q, K, V, MASK, PAST_K, PAST_V, LENGTHS };
enum { Y, PRESENT_K, PRESENT_V, SCORES };

typedef struct attention_attrs {
    int64_t is_causal, q_num_heads, kv_num_heads, qk_matmul_output_mode;
    int64_t softmax_precision; /* accepted: the softmax is computed in float32, float64 by the oracle */
    float scale;               /* 0: 1 / sqrt(size) */
    float softcap;
} attention_attrs;

static const hk_attr attr_list[] = {
    HK_INT_ATTR(attention_attrs, is_causal, 0),         HK_INT_ATTR(attention_attrs, q_num_heads, 0),
    HK_INT_ATTR(attention_attrs, kv_num_heads, 0),      HK_INT_ATTR(attention_attrs, qk_matmul_output_mode, 0),
    HK_INT_ATTR(attention_attrs, softmax_precision, 0), HK_FLOAT_ATTR(attention_attrs, scale, 0.0),
    HK_FLOAT_ATTR(attention_attrs, softcap, 0.0),       {0}};

/* ---- shapes */

/* A node's problem, and what becomes of its past. */
typedef struct problem {
    hk_attention p;                 /* reads keys and values from [batch, kv_heads, keys, size] when there is a past */
    hk_attention_view k_new, v_new; /* where the new ones lie in inputs K and V */
    int64_t new_keys, past_keys;
    bool has_past, by_rows; /* by_rows: operands are [batch, rows, heads * size] */
} problem;

static hk_attention_view view_of(bool by_rows, int64_t heads, int64_t rows, int64_t size)
{
    if (by_rows)
        return (hk_attention_view){.batch = rows * heads * size, .head = size, .row = heads * size};
    return (hk_attention_view){.batch = heads * rows * size, .head = rows * size, .row = size};
}

static hk_status check_ranks(const hk_args *a)
{
    hk_shape q = hk_args_shape(a, Q), k = hk_args_shape(a, K), v = hk_args_shape(a, V);
    const attention_attrs *at = a->node->attrs;
    if ((q.rank != 3 && q.rank != 4) || k.rank != q.rank || v.rank != q.rank)
        return hk_args_fail(a, "expected Q, K and V all of rank 3 or all of rank 4, found ranks %d, %d and %d", q.rank,
                            k.rank, v.rank);
    if (q.rank == 3 && (at->q_num_heads < 1 || at->kv_num_heads < 1))
        return hk_args_fail(a,
                            "expected attributes q_num_heads and kv_num_heads above 0 with operands of rank 3, found "
                            "%lld and %lld",
                            (long long)at->q_num_heads, (long long)at->kv_num_heads);
    if (at->qk_matmul_output_mode < 0 || at->qk_matmul_output_mode > 3)
        return hk_args_fail(a, "expected qk_matmul_output_mode 0 to 3, found %lld",
                            (long long)at->qk_matmul_output_mode);
    if (hk_args_present(a, PAST_K) != hk_args_present(a, PAST_V))
        return hk_args_fail(a, "expected past_key and past_value together, found one of them");
    if (hk_args_present(a, PAST_K) && hk_args_present(a, LENGTHS))
        return hk_args_fail(a, "expected either past_key or nonpad_kv_seqlen, found both");
    return HK_OK;
}

/* Heads and sizes of an operand. */
static hk_status split_heads(const hk_args *a, int32_t i, int64_t heads, hk_shape *s)
{
    *s = hk_args_shape(a, i);
    if (s->rank == 4)
        return HK_OK;
    if (s->dim[2] % heads)
        return hk_args_fail(a, "expected a last dimension of input %d that %lld heads divide, found %lld", i,
                            (long long)heads, (long long)s->dim[2]);
    *s = (hk_shape){.rank = 4, .dim = {s->dim[0], heads, s->dim[1], s->dim[2] / heads}};
    return HK_OK;
}

static hk_status resolve_past(const hk_args *a, problem *r)
{
    const hk_attention *p = &r->p;
    const int64_t sizes[] = {p->size, p->v_size};
    r->has_past = hk_args_present(a, PAST_K);
    for (int32_t i = 0; r->has_past && i < 2; i++) {
        hk_shape s = hk_args_shape(a, PAST_K + i);
        hk_shape_text text;
        if (i == 0 && s.rank == 4)
            r->past_keys = s.dim[2];
        if (s.rank != 4 || s.dim[0] != p->batch || s.dim[1] != p->kv_heads || s.dim[2] != r->past_keys ||
            s.dim[3] != sizes[i])
            return hk_args_fail(a, "expected %s of shape [%lld,%lld,%lld,%lld], found %s",
                                i ? "past_value" : "past_key", (long long)p->batch, (long long)p->kv_heads,
                                (long long)r->past_keys, (long long)sizes[i], hk_shape_print(&s, &text));
    }
    return HK_OK;
}

static hk_status resolve_mask(const hk_args *a, hk_attention *p)
{
    hk_shape_text text;
    if (hk_args_present(a, MASK)) {
        hk_shape s = hk_args_shape(a, MASK);
        bool fits = hk_attention_set_mask(p, &s, a->node->op->since >= 24);
        if (!fits || (p->mask_batches != 1 && p->mask_batches != p->batch))
            return hk_args_fail(a, "expected attn_mask to broadcast to [%lld,%lld,%lld,%lld], found %s",
                                (long long)p->batch, (long long)p->heads, (long long)p->rows, (long long)p->keys,
                                hk_shape_print(&s, &text));
    }
    if (hk_args_present(a, LENGTHS)) {
        hk_shape s = hk_args_shape(a, LENGTHS);
        if (s.rank != 1 || s.dim[0] != p->batch)
            return hk_args_fail(a, "expected nonpad_kv_seqlen of shape [%lld], found %s", (long long)p->batch,
                                hk_shape_print(&s, &text));
        p->lengths = true;
    }
    return HK_OK;
}

/* All shapes are known. */
static hk_status resolve(const hk_args *a, problem *r)
{
    const attention_attrs *at = a->node->attrs;
    hk_shape q, k, v;
    HK_TRY(check_ranks(a));
    HK_TRY(split_heads(a, Q, at->q_num_heads, &q));
    HK_TRY(split_heads(a, K, at->kv_num_heads, &k));
    HK_TRY(split_heads(a, V, at->kv_num_heads, &v));
    if (k.dim[0] != q.dim[0] || v.dim[0] != q.dim[0] || k.dim[3] != q.dim[3] || v.dim[1] != k.dim[1] ||
        v.dim[2] != k.dim[2] || k.dim[1] < 1 || q.dim[1] % k.dim[1]) {
        hk_shape_text tq, tk, tv;
        return hk_args_fail(a,
                            "expected Q, K, V of shapes [batch, heads, ...], K's size that of Q, V's length that of K, "
                            "and a multiple of their heads in Q; found %s, %s, %s",
                            hk_shape_print(&q, &tq), hk_shape_print(&k, &tk), hk_shape_print(&v, &tv));
    }
    bool by_rows = hk_args_shape(a, Q).rank == 3;
    *r = (problem){.by_rows = by_rows, .new_keys = k.dim[2]};
    r->p = (hk_attention){.batch = q.dim[0],
                          .heads = q.dim[1],
                          .kv_heads = k.dim[1],
                          .rows = q.dim[2],
                          .size = q.dim[3],
                          .v_size = v.dim[3],
                          .order = by_rows ? HK_ATTENTION_ROWS : HK_ATTENTION_HEADS,
                          .causal = at->is_causal != 0,
                          .softcap = at->softcap,
                          .scale = at->scale};
    if (at->scale == 0.0f)
        r->p.scale = (float)(1.0 / sqrt((double)HK_MAX(r->p.size, (int64_t)1)));
    HK_TRY(resolve_past(a, r));
    r->p.past = r->past_keys;
    r->p.keys = r->past_keys + r->new_keys;
    r->p.q = view_of(by_rows, q.dim[1], q.dim[2], q.dim[3]);
    r->k_new = r->p.k = view_of(by_rows, k.dim[1], k.dim[2], k.dim[3]);
    r->v_new = r->p.v = view_of(by_rows, v.dim[1], v.dim[2], v.dim[3]);
    if (r->has_past) {
        r->p.k = view_of(false, k.dim[1], r->p.keys, k.dim[3]);
        r->p.v = view_of(false, v.dim[1], r->p.keys, v.dim[3]);
    }
    return resolve_mask(a, &r->p);
}

static hk_shape output_shape(const problem *r, int32_t i)
{
    const hk_attention *p = &r->p;
    if (i == Y && r->by_rows)
        return (hk_shape){.rank = 3, .dim = {p->batch, p->rows, p->heads * p->v_size}};
    if (i == Y)
        return (hk_shape){.rank = 4, .dim = {p->batch, p->heads, p->rows, p->v_size}};
    if (i == SCORES)
        return (hk_shape){.rank = 4, .dim = {p->batch, p->heads, p->rows, p->keys}};
    return (hk_shape){.rank = 4, .dim = {p->batch, p->kv_heads, p->keys, i == PRESENT_K ? p->size : p->v_size}};
}

static hk_status check_types(hk_infer *in)
{
    const hk_node *n = in->node;
    for (int32_t i = 0; i < n->in_count; i++) {
        const hk_value *x = n->in[i];
        if (!x)
            continue;
        bool fits = i == LENGTHS
                        ? x->dtype == HK_INT64
                        : (hk_dtype_is_float(x->dtype) && (i == V || i >= MASK || x->dtype == n->in[Q]->dtype)) ||
                              (i == MASK && x->dtype == HK_BOOL);
        if (!fits)
            return hk_infer_fail(in, HK_STATUS_INVALID, "input '%s' is %s, expected %s", x->name,
                                 hk_dtype_name(x->dtype),
                                 i == LENGTHS ? "int64"
                                 : i == MASK  ? "bool or a float type"
                                              : "a float type, the same for Q and K");
    }
    return HK_OK;
}

static hk_status attention_infer(hk_infer *in)
{
    const hk_node *n = in->node;
    const hk_args a = hk_infer_args(in);
    HK_TRY(check_types(in));
    bool known = true;
    for (int32_t i = 0; i < n->in_count; i++)
        known &= !n->in[i] || hk_shape_known(&n->in[i]->shape);
    problem r;
    if (known)
        HK_TRY(resolve(&a, &r));
    for (int32_t i = Y; i <= SCORES; i++) {
        hk_shape s = {.rank = i == Y ? n->in[Q]->shape.rank : 4, .dim = {-1, -1, -1, -1}};
        if (known)
            s = output_shape(&r, i);
        HK_TRY(hk_infer_output(in, i, n->in[i == PRESENT_K ? K : i == PRESENT_V ? V : Q]->dtype, &s));
    }
    return HK_OK;
}

/* ---- the present: past keys (or values) and then the new ones, heads first */

/* Moves `count` keys that lie at `from` to key `at` of the present. */
static hk_move present_move(const problem *r, const hk_attention_view *from, int64_t count, int64_t at, int64_t size)
{
    const hk_attention_view to = view_of(false, r->p.kv_heads, r->p.keys, size);
    hk_move m = {.to_offset = at * size};
    hk_move_add(&m, r->p.batch, from->batch, to.batch);
    hk_move_add(&m, r->p.kv_heads, from->head, to.head);
    hk_move_add(&m, count, from->row, to.row);
    hk_move_add(&m, size, 1, 1);
    hk_move_collapse(&m);
    return m;
}

/* The moves that make present i of input and past: [0] of the past, [1] of the new. */
static void present_moves(const problem *r, int32_t i, hk_move m[2])
{
    int64_t size = i == PRESENT_K ? r->p.size : r->p.v_size;
    const hk_attention_view past = view_of(false, r->p.kv_heads, r->past_keys, size);
    m[0] = present_move(r, &past, r->past_keys, 0, size);
    m[1] = present_move(r, i == PRESENT_K ? &r->k_new : &r->v_new, r->new_keys, r->past_keys, size);
}

static hk_status eval_present(hk_eval *e, const problem *r, int32_t i, const hk_tensor **read)
{
    const hk_tensor *fresh = e->in[i == PRESENT_K ? K : V];
    const hk_shape s = output_shape(r, i);
    hk_tensor *t = hk_out(e->node, i) ? hk_eval_output(e, i, fresh->dtype, &s)
                                      : hk_tensor_new(e->arena, fresh->dtype, &s);
    hk_move m[2];
    if (!t)
        return hk_out_of_memory(e->ctx, "an attention's keys and values");
    present_moves(r, i, m);
    if (r->has_past) {
        const hk_tensor *past = hk_eval_as(e, e->in[i == PRESENT_K ? PAST_K : PAST_V], fresh->dtype);
        if (!past)
            return hk_out_of_memory(e->ctx, "an attention's keys and values");
        hk_host_move(&m[0], past, t);
        *read = t;
    }
    hk_host_move(&m[1], fresh, t);
    return HK_OK;
}

static hk_status attention_eval(hk_eval *e)
{
    const hk_node *n = e->node;
    const attention_attrs *at = n->attrs;
    const hk_args a = hk_eval_args(e);
    problem r;
    HK_TRY(resolve(&a, &r));
    hk_attention_tensors t = {.q = e->in[Q], .k = e->in[K], .v = e->in[V]};
    t.mask = hk_in(n, MASK) ? e->in[MASK] : NULL;
    t.lengths = hk_in(n, LENGTHS) ? e->in[LENGTHS] : NULL;
    if (r.has_past || hk_out(n, PRESENT_K))
        HK_TRY(eval_present(e, &r, PRESENT_K, &t.k));
    if (r.has_past || hk_out(n, PRESENT_V))
        HK_TRY(eval_present(e, &r, PRESENT_V, &t.v));
    const hk_shape y = output_shape(&r, Y), scores = output_shape(&r, SCORES);
    if (!(t.y = hk_eval_output(e, Y, t.q->dtype, &y)))
        return hk_out_of_memory(e->ctx, "an attention's output");
    if (hk_out(n, SCORES) && !(t.scores = hk_eval_output(e, SCORES, t.q->dtype, &scores)))
        return hk_out_of_memory(e->ctx, "an attention's scores");
    return hk_attention_eval(e->ctx, e->arena, &r.p, (hk_attention_stage)at->qk_matmul_output_mode, &t);
}

/* ---- the device */

/* Fills present i; *read becomes what the kernel reads keys or values from. */
static hk_status lower_present(hk_lower *l, const problem *r, int32_t i, hk_value **read)
{
    hk_value *out = hk_out(l->node, i), *fresh = l->node->in[i == PRESENT_K ? K : V];
    const hk_shape s = output_shape(r, i);
    hk_move m[2];
    if (!out && !r->has_past)
        return HK_OK;
    fresh = hk_as_float32(l, fresh);
    if (!out && !(out = hk_scratch(l, HK_FLOAT32, hk_shape_count(&s))))
        return HK_OK; /* l->failed tells */
    present_moves(r, i, m);
    if (r->has_past) {
        HK_TRY(hk_emit_move(l, &m[0], l->node->in[i == PRESENT_K ? PAST_K : PAST_V], out));
        *read = out;
    }
    return hk_emit_move(l, &m[1], fresh, out);
}

static hk_status attention_lower(hk_lower *l)
{
    const hk_node *n = l->node;
    const attention_attrs *at = n->attrs;
    const hk_args a = hk_node_args(l->ctx, n);
    problem r;
    HK_TRY(resolve(&a, &r));
    hk_value *k = n->in[K], *v = n->in[V], *scores = hk_out(n, SCORES);
    HK_TRY(lower_present(l, &r, PRESENT_K, &k));
    HK_TRY(lower_present(l, &r, PRESENT_V, &v));
    const hk_attention_values values = {
        .q = n->in[Q], .k = k, .v = v, .mask = hk_in(n, MASK), .lengths = hk_in(n, LENGTHS), .y = n->out[Y]};
    if (l->failed)
        return HK_OK;
    if (values.mask && values.mask->dtype != HK_BOOL)
        HK_TRY(hk_require_float32(l, values.mask));
    hk_attention_emit(l, &r.p, &values);
    if (!scores)
        return HK_OK;
    return hk_attention_emit_scores(l, &r.p, &values, (hk_attention_stage)at->qk_matmul_output_mode, scores);
}

/* ---- differentiation: the scores are computed again, and all products are matrix products */

typedef struct backward {
    hk_gradient *g;
    hk_graph *graph;
    hk_node *n;
    problem r;
    hk_value *q, *k, *v;     /* heads first; q is [batch, kv_heads, group * rows, size] */
    hk_value *tanh;          /* of the capped scores; NULL without a cap */
    hk_value *probabilities; /* [batch, heads, rows, keys] */
} backward;

static hk_status build2(const backward *b, const char *type, hk_value *x, hk_value *y, hk_value **out)
{
    if (!x || !y)
        return hk_out_of_memory(b->graph->ctx, "a gradient");
    return hk_build(b->graph, type, NULL, (hk_value *[]){x, y}, 2, out, 1);
}

static hk_status reshape(const backward *b, hk_value *x, int32_t rank, const int64_t *dim, hk_value **y)
{
    hk_value *shape = hk_graph_ints(b->graph, dim, rank);
    const hk_attr_value attrs[] = {HK_SET_INT("allowzero", 1), {0}};
    if (!shape)
        return hk_out_of_memory(b->graph->ctx, "a gradient");
    return hk_build(b->graph, "Reshape", attrs, (hk_value *[]){x, shape}, 2, y, 1);
}

static hk_status swap_rows_heads(const backward *b, hk_value *x, hk_value **y)
{
    static const int64_t perm[] = {0, 2, 1, 3};
    const hk_attr_value attrs[] = {HK_SET_INTS("perm", perm, 4), {0}};
    return hk_build(b->graph, "Transpose", attrs, &x, 1, y, 1);
}

/* An operand as [batch, heads, rows, size]. */
static hk_status heads_first(const backward *b, hk_value *x, int64_t heads, int64_t rows, int64_t size, hk_value **y)
{
    *y = x;
    if (!b->r.by_rows)
        return HK_OK;
    HK_TRY(reshape(b, x, 4, (const int64_t[]){b->r.p.batch, rows, heads, size}, y));
    return swap_rows_heads(b, *y, y);
}

static hk_status heads_back(const backward *b, hk_value *x, hk_value **y)
{
    *y = x;
    if (!b->r.by_rows)
        return HK_OK;
    HK_TRY(swap_rows_heads(b, x, y));
    const int64_t *d = (*y)->shape.dim;
    return reshape(b, *y, 3, (const int64_t[]){d[0], d[1], d[2] * d[3]}, y);
}

/* x with the heads that share keys side by side along rows: [batch, kv_heads, group * rows, last]. */
static hk_status grouped(const backward *b, hk_value *x, int64_t last, hk_value **y)
{
    const hk_attention *p = &b->r.p;
    return reshape(b, x, 4, (const int64_t[]){p->batch, p->kv_heads, p->heads / p->kv_heads * p->rows, last}, y);
}

static hk_status ungrouped(const backward *b, hk_value *x, int64_t last, hk_value **y)
{
    const hk_attention *p = &b->r.p;
    return reshape(b, x, 4, (const int64_t[]){p->batch, p->heads, p->rows, last}, y);
}

static hk_status product(const backward *b, hk_value *x, bool trans_x, hk_value *y, bool trans_y, float alpha,
                         hk_value **z)
{
    const hk_attr_value attrs[] = {
        HK_SET_INT("transA", trans_x), HK_SET_INT("transB", trans_y), HK_SET_FLOAT("alpha", alpha), {0}};
    return hk_build(b->graph, "hk.Gemm", attrs, (hk_value *[]){x, y}, 2, z, 1);
}

static hk_status keys_and_values(backward *b)
{
    const hk_attention *p = &b->r.p;
    hk_node *n = b->n;
    const hk_attr_value axis[] = {HK_SET_INT("axis", 2), {0}};
    HK_TRY(heads_first(b, n->in[Q], p->heads, p->rows, p->size, &b->q));
    HK_TRY(grouped(b, b->q, p->size, &b->q));
    HK_TRY(heads_first(b, n->in[K], p->kv_heads, b->r.new_keys, p->size, &b->k));
    HK_TRY(heads_first(b, n->in[V], p->kv_heads, b->r.new_keys, p->v_size, &b->v));
    if (!b->r.has_past)
        return HK_OK;
    HK_TRY(hk_build(b->graph, "Concat", axis, (hk_value *[]){n->in[PAST_K], b->k}, 2, &b->k, 1));
    return hk_build(b->graph, "Concat", axis, (hk_value *[]){n->in[PAST_V], b->v}, 2, &b->v, 1);
}

/* What causality lets each query see, [rows, keys], true or false; only without lengths. */
static hk_status causal_mask(const backward *b, hk_value **out)
{
    const hk_attention *p = &b->r.p;
    hk_tensor *t = hk_tensor_new(b->graph->arena, HK_BOOL, &(hk_shape){.rank = 2, .dim = {p->rows, p->keys}});
    for (int64_t i = 0; t && i < p->rows * p->keys; i++)
        hk_set_int(t, i, i % p->keys <= p->past + i / p->keys);
    *out = t ? hk_graph_constant(b->graph, "causal", t) : NULL;
    return *out ? HK_OK : hk_out_of_memory(b->graph->ctx, "a gradient");
}

/* What lengths and causality with them let each query see: j < min(length, length - rows + i + 1). */
static hk_status length_mask(const backward *b, hk_value **out)
{
    const hk_attention *p = &b->r.p;
    const hk_shape s = {.rank = 2, .dim = {p->causal ? p->rows : 1, p->keys}};
    hk_tensor *t = hk_tensor_new(b->graph->arena, HK_INT64, &s);
    for (int64_t i = 0; t && i < s.dim[0] * s.dim[1]; i++) /* the length from which on j is seen, less one */
        hk_set_int(t, i, i % p->keys + (p->causal ? p->rows - 1 - i / p->keys : 0));
    hk_value *least = t ? hk_graph_constant(b->graph, "least", t) : NULL, *lengths;
    HK_TRY(reshape(b, b->n->in[LENGTHS], 4, (const int64_t[]){p->batch, 1, 1, 1}, &lengths));
    return build2(b, "Less", least, lengths, out);
}

static hk_status also(const backward *b, hk_value **seen, hk_value *x)
{
    if (!*seen) {
        *seen = x;
        return HK_OK;
    }
    return build2(b, "And", *seen, x, seen);
}

/* The mask with a column for every key; those it lacks are filled. */
static hk_status whole_mask(const backward *b, hk_value *fill, hk_value **out)
{
    hk_value *mask = *out = b->n->in[MASK];
    int64_t lack = b->r.p.keys - b->r.p.mask_columns, pads[2 * HK_MAX_RANK] = {0};
    if (lack == 0)
        return HK_OK;
    pads[2 * mask->shape.rank - 1] = lack;
    hk_value *list = hk_graph_ints(b->graph, pads, 2 * mask->shape.rank);
    if (!list || !fill)
        return hk_out_of_memory(b->graph->ctx, "a gradient");
    return hk_build(b->graph, "Pad", NULL, (hk_value *[]){mask, list, fill}, 3, out, 1);
}

static hk_status hide(const backward *b, hk_value *seen, hk_value **s)
{
    hk_value *nothing = hk_graph_scalar(b->graph, (*s)->dtype, -INFINITY);
    if (!nothing)
        return hk_out_of_memory(b->graph->ctx, "a gradient");
    return seen ? hk_build(b->graph, "Where", NULL, (hk_value *[]){seen, *s, nothing}, 3, s, 1) : HK_OK;
}

static hk_status mask_scores(const backward *b, hk_value **s, hk_value **seen)
{
    const hk_attention *p = &b->r.p;
    hk_value *mask, *part;
    if (p->mask && b->n->in[MASK]->dtype == HK_BOOL) {
        HK_TRY(whole_mask(b, hk_graph_scalar(b->graph, HK_BOOL, 0.0), &mask));
        HK_TRY(also(b, seen, mask));
    } else if (p->mask) {
        hk_value *nothing = hk_graph_scalar(b->graph, b->n->in[MASK]->dtype, -INFINITY);
        HK_TRY(whole_mask(b, nothing, &mask));
        HK_TRY(build2(b, "Add", *s, mask, s));
        if (p->softcap > 0) {
            HK_TRY(build2(b, "Greater", mask, nothing, &part));
            HK_TRY(also(b, seen, part));
        }
    }
    if (p->lengths) {
        HK_TRY(length_mask(b, &part));
        HK_TRY(also(b, seen, part));
    } else if (p->causal) {
        HK_TRY(causal_mask(b, &part));
        HK_TRY(also(b, seen, part));
    }
    return HK_OK;
}

static hk_status probabilities(backward *b)
{
    const hk_attention *p = &b->r.p;
    hk_value *s, *seen = NULL;
    HK_TRY(product(b, b->q, false, b->k, true, p->scale, &s));
    HK_TRY(ungrouped(b, s, p->keys, &s));
    HK_TRY(mask_scores(b, &s, &seen));
    if (p->softcap > 0) {
        hk_value *cap = hk_graph_scalar(b->graph, s->dtype, (double)p->softcap);
        HK_TRY(build2(b, "Div", s, cap, &s));
        HK_TRY(hk_build(b->graph, "Tanh", NULL, &s, 1, &b->tanh, 1));
        HK_TRY(build2(b, "Mul", b->tanh, cap, &s));
    }
    HK_TRY(hide(b, seen, &s));
    const hk_attr_value axis[] = {HK_SET_INT("axis", -1), {0}};
    return hk_build(b->graph, "Softmax", axis, &s, 1, &b->probabilities, 1);
}

/* Of the sum of products and mask, [batch, heads, rows, keys]. */
static hk_status score_gradient(const backward *b, hk_value *dy, hk_value **ds)
{
    const hk_attr_value axis[] = {HK_SET_INT("axis", -1), {0}};
    HK_TRY(product(b, dy, false, b->v, true, 1.0f, ds));
    HK_TRY(ungrouped(b, *ds, b->r.p.keys, ds));
    HK_TRY(hk_build(b->graph, "hk.SoftmaxGrad", axis, (hk_value *[]){*ds, b->probabilities}, 2, ds, 1));
    if (!b->tanh)
        return HK_OK;
    hk_value *one = hk_graph_scalar(b->graph, (*ds)->dtype, 1.0), *square;
    HK_TRY(build2(b, "Mul", b->tanh, b->tanh, &square));
    HK_TRY(build2(b, "Sub", one, square, &square));
    return build2(b, "Mul", *ds, square, ds);
}

/* Gradient of the mask: that of the scores, without the columns it lacks. */
static hk_status add_mask_gradient(const backward *b, hk_value *ds)
{
    hk_value *mask = hk_in(b->n, MASK);
    if (!mask || mask->dtype == HK_BOOL || !hk_gradient_wanted(b->g, mask))
        return HK_OK;
    if (b->r.p.mask_columns < b->r.p.keys) {
        hk_value *in[] = {ds, hk_graph_ints(b->graph, (const int64_t[]){0}, 1),
                          hk_graph_ints(b->graph, &b->r.p.mask_columns, 1),
                          hk_graph_ints(b->graph, (const int64_t[]){3}, 1)};
        if (!in[1] || !in[2] || !in[3])
            return hk_out_of_memory(b->graph->ctx, "a gradient");
        HK_TRY(hk_build(b->graph, "Slice", NULL, in, 4, &ds, 1));
    }
    return hk_gradient_add(b->g, mask, ds);
}

/* dx: of present i, [batch, kv_heads, keys, size], or NULL; what reaches the present itself is added. */
static hk_status add_present_gradient(const backward *b, int32_t i, hk_value *dx)
{
    hk_node *n = b->n;
    hk_value *seen = hk_out(n, i) ? hk_gradient_of(b->g, n->out[i]) : NULL, *x = n->in[i == PRESENT_K ? K : V];
    if (dx && seen)
        HK_TRY(build2(b, "Add", dx, seen, &dx));
    else if (!dx)
        dx = seen;
    if (!dx)
        return HK_OK;
    if (b->r.has_past) {
        const int64_t at[] = {0, b->r.past_keys, b->r.p.keys};
        hk_value *part[2], *axis = hk_graph_ints(b->graph, (const int64_t[]){2}, 1);
        for (int j = 0; j < 2; j++) {
            hk_value *in[] = {dx, hk_graph_ints(b->graph, at + j, 1), hk_graph_ints(b->graph, at + j + 1, 1), axis};
            if (!in[1] || !in[2] || !axis)
                return hk_out_of_memory(b->graph->ctx, "a gradient");
            HK_TRY(hk_build(b->graph, "Slice", NULL, in, 4, &part[j], 1));
        }
        HK_TRY(hk_gradient_add(b->g, n->in[i == PRESENT_K ? PAST_K : PAST_V], part[0]));
        dx = part[1];
    }
    HK_TRY(heads_back(b, dx, &dx));
    return hk_gradient_add(b->g, x, dx);
}

static hk_status operand_gradients(backward *b, hk_value *dy, hk_value **dk, hk_value **dv)
{
    const hk_attention *p = &b->r.p;
    hk_value *ds, *rows, *dq, *weights;
    HK_TRY(keys_and_values(b));
    HK_TRY(probabilities(b));
    HK_TRY(heads_first(b, dy, p->heads, p->rows, p->v_size, &dy));
    HK_TRY(grouped(b, dy, p->v_size, &dy));
    HK_TRY(score_gradient(b, dy, &ds));
    HK_TRY(add_mask_gradient(b, ds));
    HK_TRY(grouped(b, ds, p->keys, &rows));
    HK_TRY(grouped(b, b->probabilities, p->keys, &weights));
    HK_TRY(product(b, rows, false, b->k, false, p->scale, &dq));
    HK_TRY(product(b, rows, true, b->q, false, p->scale, dk));
    HK_TRY(product(b, weights, true, dy, false, 1.0f, dv));
    HK_TRY(ungrouped(b, dq, p->size, &dq));
    HK_TRY(heads_back(b, dq, &dq));
    return hk_gradient_add(b->g, b->n->in[Q], dq);
}

static hk_status attention_backward(hk_gradient *g, hk_node *n)
{
    backward b = {.g = g, .graph = hk_gradient_graph(g), .n = n};
    const hk_args a = hk_node_args(b.graph->ctx, n);
    hk_value *dy = hk_gradient_of(g, n->out[Y]), *dk = NULL, *dv = NULL;
    for (int32_t i = 0; i < n->in_count; i++)
        if (n->in[i] && !hk_shape_known(&n->in[i]->shape))
            return hk_args_shape_wanted(&a);
    HK_TRY(resolve(&a, &b.r));
    if (hk_out(n, SCORES) && hk_gradient_of(g, n->out[SCORES]))
        return hk_fail(
            b.graph->ctx, HK_STATUS_UNSUPPORTED,
            "node '%s' (Attention): the loss depends on its scores '%s', which have no gradient; compute them "
            "by MatMul",
            n->name, n->out[SCORES]->name);
    if (dy)
        HK_TRY(operand_gradients(&b, dy, &dk, &dv));
    HK_TRY(add_present_gradient(&b, PRESENT_K, dk));
    return add_present_gradient(&b, PRESENT_V, dv);
}

/* ---- the table */

#define CASES(name, ...) static const char *const name[] = {__VA_ARGS__, NULL}

CASES(old_cases, "f32[2,3,4,8] f32[2,3,6,8] f32[2,3,6,10]",
      "f32[2,4,24] f32[2,6,24] f32[2,6,30];q_num_heads=3 kv_num_heads=3",
      "f32[2,3,4,8] f32[2,3,6,8] f32[2,3,6,8] f32[4,1];is_causal=1;gradall",
      "f32[1,2,3,8] f32[1,2,5,8] f32[1,2,5,8] f32[1,2,3,5];softcap=2.0 qk_matmul_output_mode=2;out=4 nograd");
CASES(
    cases, "f32[2,3,4,8] f32[2,3,6,8] f32[2,3,6,8];;opset=24",
    "f32[2,9,4,8] f32[2,3,6,8] f32[2,3,6,5] f32[4,6];scale=0.3 softcap=1.5;opset=24",
    "f32[2,5,12] f32[2,7,6] f32[2,7,10] bool[2,4,5,7];q_num_heads=4 kv_num_heads=2 is_causal=1;opset=24 nograd",
    "f32[2,5,12] f32[2,7,6] f32[2,7,10] bool[7];q_num_heads=4 kv_num_heads=2;opset=24",
    "f32[2,4,3,6] f32[2,2,5,6] f32[2,2,5,7] f32[2,1,3,9] f32[2,2,4,6] f32[2,2,4,7];is_causal=1;opset=24 out=3 gradall",
    "f32[2,3,8] f32[2,5,4] f32[2,5,6] - f32[2,2,3,2] f32[2,2,3,3];q_num_heads=4 kv_num_heads=2;opset=24 out=3 gradall",
    "f32[2,3,8] f32[2,5,4] f32[2,5,6];q_num_heads=4 kv_num_heads=2;opset=24 out=3 gradall",
    "f32[3,2,4,8] f32[3,2,6,8] f32[3,2,6,5] f32[2,4,4] - - i64={6,2,5};softcap=3.0;opset=24",
    "f32[3,2,4,8] f32[3,2,6,8] f32[3,2,6,5] - - - i64={6,4,5};is_causal=1;opset=24",
    "f32[2,3,4,8] f32[2,3,6,8] f32[2,3,6,8] f32[4,6];;opset=24 out=4 nograd",
    "f32[2,6,4,8] f32[2,3,6,8] f32[2,3,6,8] f32[4,6];qk_matmul_output_mode=1 is_causal=1;opset=24 out=4 nograd "
    "tol=5e-6",
    "f32[2,4,24] f32[2,6,24] f32[2,6,24] f32[4,6];qk_matmul_output_mode=3 softcap=2.0 q_num_heads=3 "
    "kv_num_heads=3;opset=24 out=4 nograd",
    "f32[2,3,70,64] f32[2,3,150,64] f32[2,3,150,64];;opset=24 nograd",
    "f32[1,2,197,64] f32[1,2,197,64] f32[1,2,197,64] f32[1,1,1,197];;opset=24 nograd",
    "f32[1,2,33,128] f32[1,1,77,128] f32[1,1,77,96] f32[33,77];is_causal=1;opset=24 nograd",
    "f32[1,2,19,256] f32[1,2,40,256] f32[1,2,40,256];;opset=24 nograd",
    "f32[1,1,5,300] f32[1,1,9,300] f32[1,1,9,290];;opset=24 nograd",
    "f32[40,4,33,32] f32[40,4,35,32] f32[40,4,35,32];;opset=24 nograd",
    "f32[2,2,1,17] f32[2,2,99,17] f32[2,2,99,33];;opset=24 nograd",
    "f32[300,1,65,20] f32[300,1,33,20] f32[300,1,33,20];;opset=24 nograd",
    "f32[1,40,640] f32[1,130,640] f32[1,130,640];q_num_heads=10 kv_num_heads=10 is_causal=1;opset=24 nograd",
    "f32[0,2,3,4] f32[0,2,3,4] f32[0,2,3,4];;opset=24", "f32[1,2,3,4] f32[1,2,0,4] f32[1,2,0,4];;opset=24 nograd");
#define ATTENTION(...)                                                                                                 \
    {                                                                                                                  \
        .type = "Attention", .in_min = 3, .out_min = 1, .out_max = 4, .half_in = 7, .half_out = 1,                     \
        .attrs_bytes = sizeof(attention_attrs), .attrs = attr_list, .infer = attention_infer, .eval = attention_eval,  \
        .lower = attention_lower, .backward = attention_backward, __VA_ARGS__                                          \
    }

const hk_op hk_ops_attention[] = {
    ATTENTION(.since = 23, .until = 23, .in_max = 6, .cases = old_cases),
    ATTENTION(.since = 24, .in_max = 7, .cases = cases),
    {0},
};
