/* RotaryEmbedding: pairs of a head's elements turned by an angle that depends on the position (opset 23 on). */
#include <stddef.h>
#include <string.h>

#include "kernels.h"
#include "ops/divisor.h"
#include "ops/support/build.h"
#include "ops/support/move.h"
#include "ops/support/move_args.h"
#include "ops/support/reduce.h"
#include "shaders/rotary.push.h"

enum { X, COSINE, SINE, POSITIONS };

typedef struct rotary_attrs {
    int64_t interleaved, num_heads, rotary_embedding_dim; /* the last 0: the whole head */
} rotary_attrs;

static const hk_attr attr_list[] = {HK_INT_ATTR(rotary_attrs, interleaved, 0),
                                    HK_INT_ATTR(rotary_attrs, num_heads, 0),
                                    HK_INT_ATTR(rotary_attrs, rotary_embedding_dim, 0),
                                    {0}};

typedef struct rotary {
    int64_t batch, heads, rows, size, turned, caches;
    bool by_rows; /* x is [batch, rows, heads * size], else [batch, heads, rows, size] */
} rotary;

static hk_status check_caches(const hk_args *a, rotary *r)
{
    bool positions = hk_args_present(a, POSITIONS);
    for (int32_t i = COSINE; i <= SINE; i++) {
        hk_shape s = hk_args_shape(a, i);
        hk_shape_text text;
        const int64_t want[] = {r->batch, r->rows, r->turned / 2};
        bool fits = s.rank == (positions ? 2 : 3) && s.dim[s.rank - 1] == want[2] &&
                    (positions || (s.dim[0] == want[0] && s.dim[1] == want[1])) &&
                    (i == COSINE || s.dim[0] == r->caches);
        if (!fits)
            return hk_args_fail(a, "expected %s of shape %s%lld], found %s", i == COSINE ? "cos_cache" : "sin_cache",
                                positions ? "[positions," : "[batch,length,", (long long)want[2],
                                hk_shape_print(&s, &text));
        r->caches = s.dim[0];
    }
    hk_shape s = positions ? hk_args_shape(a, POSITIONS) : HK_SCALAR;
    hk_shape_text text;
    if (positions && (s.rank != 2 || s.dim[0] != r->batch || s.dim[1] != r->rows))
        return hk_args_fail(a, "expected position_ids of shape [%lld,%lld], found %s", (long long)r->batch,
                            (long long)r->rows, hk_shape_print(&s, &text));
    if (positions && r->caches == 0 && r->batch * r->rows > 0)
        return hk_args_fail(a, "expected caches of at least one position, found none");
    return HK_OK;
}

/* All shapes are known. */
static hk_status resolve(const hk_args *a, rotary *r)
{
    const rotary_attrs *at = a->node->attrs;
    hk_shape s = hk_args_shape(a, X);
    hk_shape_text text;
    if (s.rank != 4 && (s.rank != 3 || at->num_heads < 1 || s.dim[2] % at->num_heads))
        return hk_args_fail(a,
                            "expected [batch,heads,length,size], or [batch,length,heads*size] and num_heads; found %s "
                            "and num_heads %lld",
                            hk_shape_print(&s, &text), (long long)at->num_heads);
    *r = s.rank == 4 ? (rotary){.batch = s.dim[0], .heads = s.dim[1], .rows = s.dim[2], .size = s.dim[3]}
                     : (rotary){.batch = s.dim[0],
                                .heads = at->num_heads,
                                .rows = s.dim[1],
                                .size = s.dim[2] / at->num_heads,
                                .by_rows = true};
    r->turned = at->rotary_embedding_dim ? at->rotary_embedding_dim : r->size;
    if (r->turned < 0 || r->turned > r->size || r->turned % 2)
        return hk_args_fail(a, "expected an even rotary_embedding_dim up to the head's %lld elements, found %lld",
                            (long long)r->size, (long long)r->turned);
    return check_caches(a, r);
}

static hk_status rotary_infer(hk_infer *in)
{
    const hk_node *n = in->node;
    const hk_args a = hk_infer_args(in);
    bool known = true;
    for (int32_t i = 0; i < n->in_count; i++) {
        const hk_value *v = n->in[i];
        if (v && (i == POSITIONS ? v->dtype != HK_INT64 : !hk_dtype_is_float(v->dtype)))
            return hk_infer_fail(in, HK_STATUS_INVALID, "input '%s' is %s, expected %s", v->name,
                                 hk_dtype_name(v->dtype), i == POSITIONS ? "int64" : "a float type");
        known &= !v || hk_shape_known(&v->shape);
    }
    rotary r;
    if (known)
        HK_TRY(resolve(&a, &r));
    return hk_infer_output(in, 0, n->in[X]->dtype, &n->in[X]->shape);
}

/* Where the cache row of a head's row lies. */
static int64_t cache_row(const rotary *r, const hk_tensor *positions, int64_t index)
{
    int64_t row = r->by_rows ? index / r->heads % r->rows : index % r->rows;
    int64_t position = index / r->heads / r->rows * r->rows + row;
    if (positions) {
        position = hk_get_int(positions, position);
        position = HK_MAX(HK_MIN(position < 0 ? position + r->caches : position, r->caches - 1), (int64_t)0);
    }
    return position * (r->turned / 2);
}

static hk_status rotary_eval(hk_eval *e)
{
    const hk_args a = hk_eval_args(e);
    const rotary_attrs *at = e->node->attrs;
    const hk_tensor *x = e->in[X], *positions = hk_in(e->node, POSITIONS) ? e->in[POSITIONS] : NULL;
    const hk_shape s = hk_tensor_shape(x);
    rotary r;
    HK_TRY(resolve(&a, &r));
    hk_tensor *y = hk_eval_output(e, 0, x->dtype, &s);
    if (!y)
        return hk_out_of_memory(e->ctx, "a RotaryEmbedding output");
    for (int64_t index = 0; index < r.batch * r.heads * r.rows; index++) {
        int64_t cache = cache_row(&r, positions, index), first = index * r.size, half = r.turned / 2;
        for (int64_t i = 0; i < half; i++) {
            int64_t p = first + (at->interleaved ? 2 * i : i), q = at->interleaved ? p + 1 : p + half;
            double c = hk_get_double(e->in[COSINE], cache + i), d = hk_get_double(e->in[SINE], cache + i);
            double u = hk_get_double(x, p), v = hk_get_double(x, q);
            hk_set_double(y, p, u * c - v * d);
            hk_set_double(y, q, u * d + v * c);
        }
        for (int64_t i = r.turned; i < r.size; i++)
            hk_set_double(y, first + i, hk_get_double(x, first + i));
    }
    return HK_OK;
}

static hk_status rotary_lower(hk_lower *l)
{
    const hk_node *n = l->node;
    const hk_args a = hk_node_args(l->ctx, n);
    const rotary_attrs *at = n->attrs;
    rotary r;
    HK_TRY(resolve(&a, &r));
    for (int32_t i = X; i <= SINE; i++)
        HK_TRY(hk_require_float32(l, n->in[i]));
    bool vectors = !at->interleaved && r.size % 4 == 0 && r.turned % 8 == 0 &&
                   hk_aligned_all((const hk_value *[]){n->in[X], n->in[COSINE], n->in[SINE], n->out[0]}, 4);
    int64_t width = vectors ? 4 : 1, units = (r.turned / 2 + r.size - r.turned) / width,
            work = r.batch * r.heads * r.rows * units;
    if (work == 0)
        return HK_OK;
    const struct rotary_push push = {.rows = (uint32_t)r.rows,
                                     .heads = (uint32_t)r.heads,
                                     .size = (uint32_t)r.size,
                                     .turned = (uint32_t)r.turned,
                                     .caches = (uint32_t)r.caches,
                                     .work = (uint32_t)work};
    hk_record *rec = hk_emit(l, &hk_kernel_rotary, vectors ? "rotary vectors" : "rotary");
    hk_push(rec, &push, sizeof push);
    hk_use(rec, n->in[X], HK_READ, offsetof(struct rotary_push, x));
    hk_use(rec, n->out[0], HK_WRITE, offsetof(struct rotary_push, y));
    hk_use(rec, n->in[COSINE], HK_READ, offsetof(struct rotary_push, cosine));
    hk_use(rec, n->in[SINE], HK_READ, offsetof(struct rotary_push, sine));
    hk_use(rec, hk_in(n, POSITIONS), HK_READ, offsetof(struct rotary_push, positions));
    hk_move_grid(l, rec, work);
    const uint32_t spec[] = {r.by_rows, at->interleaved != 0, hk_in(n, POSITIONS) != NULL, (uint32_t)width};
    for (uint32_t i = 0; i < HK_COUNT(spec); i++)
        hk_spec(rec, 3 + i, spec[i]);
    rec->flops = 6.0 * (double)(r.batch * r.heads * r.rows * (r.turned / 2));
    return HK_OK;
}

/* ---- differentiation: the gradient is turned back; that of the caches is summed over heads, and over positions that
 * share a row of a cache */

/* Halves of the turned elements, a and b of the pairs: [batch, heads, rows, turned / 2]. */
static hk_status halves(hk_graph *g, const rotary *r, bool interleaved, hk_value *x, hk_value *half[2])
{
    static const int64_t perm[] = {0, 2, 1, 3};
    const hk_shape split = {.rank = 4, .dim = {r->batch, r->rows, r->heads, r->size}};
    if (r->by_rows) {
        HK_TRY(hk_build_reshape(g, x, &split, &x));
        HK_TRY(hk_build_transpose(g, x, perm, 4, &x));
    }
    for (int64_t i = 0; i < 2; i++) {
        int64_t start = interleaved ? i : i * (r->turned / 2), end = interleaved ? r->turned : start + r->turned / 2;
        hk_value *in[] = {x, hk_graph_ints(g, &start, 1), hk_graph_ints(g, &end, 1),
                          hk_graph_ints(g, (const int64_t[]){3}, 1),
                          hk_graph_ints(g, (const int64_t[]){interleaved ? 2 : 1}, 1)};
        if (!in[1] || !in[2] || !in[3] || !in[4])
            return hk_out_of_memory(g->ctx, "a gradient");
        HK_TRY(hk_build(g, "Slice", NULL, in, 5, &half[i], 1));
    }
    return HK_OK;
}

/* The sum (cosine) or difference (sine) of two products, summed over the heads, is the gradient of the cache's rows. */
static hk_status add_cache_gradient(hk_gradient *g, const hk_node *n, const rotary *r, int32_t cache,
                                    hk_value *const product[2])
{
    hk_graph *graph = hk_gradient_graph(g);
    hk_value *sum, *zero;
    const hk_shape rows = {.rank = 3, .dim = {r->batch, r->rows, r->turned / 2}};
    HK_TRY(hk_build_binary(graph, cache == COSINE ? "Add" : "Sub", product[0], product[1], &sum));
    HK_TRY(hk_build_reduce(graph, "ReduceSum", sum, (const int64_t[]){1}, 1, &sum));
    HK_TRY(hk_build_reshape(graph, sum, &rows, &sum));
    if (hk_in(n, POSITIONS)) {
        const hk_shape index = {.rank = 3, .dim = {r->batch, r->rows, 1}};
        const hk_attr_value add[] = {HK_SET_STRING("reduction", "add"), {0}};
        hk_value *positions;
        HK_TRY(hk_build_reshape(graph, n->in[POSITIONS], &index, &positions));
        HK_TRY(hk_build_scalar(graph, "Mul", n->in[cache], 0.0, &zero));
        HK_TRY(hk_build(graph, "ScatterND", add, (hk_value *[]){zero, positions, sum}, 3, &sum, 1));
    }
    return hk_gradient_add(g, n->in[cache], sum);
}

/* d cos = da x_a + db x_b, d sin = db x_a - da x_b, for the gradients da, db of a pair. */
static hk_status cache_gradients(hk_gradient *g, hk_node *n, hk_value *dy)
{
    hk_graph *graph = hk_gradient_graph(g);
    const hk_args a = hk_node_args(graph->ctx, n);
    const rotary_attrs *at = n->attrs;
    hk_value *x[2], *d[2], *product[2];
    rotary r;
    HK_TRY(resolve(&a, &r));
    HK_TRY(halves(graph, &r, at->interleaved != 0, n->in[X], x));
    HK_TRY(halves(graph, &r, at->interleaved != 0, dy, d));
    for (int32_t cache = COSINE; cache <= SINE; cache++) {
        if (!hk_gradient_wanted(g, n->in[cache]))
            continue;
        HK_TRY(hk_build_binary(graph, "Mul", d[cache == SINE], x[0], &product[0]));
        HK_TRY(hk_build_binary(graph, "Mul", d[cache == COSINE], x[1], &product[1]));
        HK_TRY(add_cache_gradient(g, n, &r, cache, product));
    }
    return HK_OK;
}

static hk_status rotary_backward(hk_gradient *g, hk_node *n)
{
    const rotary_attrs *at = n->attrs;
    hk_graph *graph = hk_gradient_graph(g);
    const hk_args a = hk_node_args(graph->ctx, n);
    hk_value *dy = hk_gradient_of(g, n->out[0]), *back, *dx;
    if (!dy)
        return HK_OK;
    for (int32_t i = 0; i < n->in_count; i++)
        if (n->in[i] && !hk_shape_known(&n->in[i]->shape))
            return hk_args_shape_wanted(&a);
    if (hk_gradient_wanted(g, n->in[COSINE]) || hk_gradient_wanted(g, n->in[SINE]))
        HK_TRY(cache_gradients(g, n, dy));
    if (!hk_gradient_wanted(g, n->in[X]))
        return HK_OK;
    const hk_attr_value attrs[] = {HK_SET_INT("interleaved", at->interleaved),
                                   HK_SET_INT("num_heads", at->num_heads),
                                   HK_SET_INT("rotary_embedding_dim", at->rotary_embedding_dim),
                                   {0}};
    HK_TRY(hk_build_unary(graph, "Neg", n->in[SINE], &back));
    HK_TRY(hk_build(graph, "RotaryEmbedding", attrs, (hk_value *[]){dy, n->in[COSINE], back, hk_in(n, POSITIONS)},
                    hk_in(n, POSITIONS) ? 4 : 3, &dx, 1));
    return hk_gradient_add(g, n->in[X], dx);
}

#define CASES(name, ...) static const char *const name[] = {__VA_ARGS__, NULL}

CASES(cases, "f32[2,3,4,4] f32[3,2]={0.1,0.2,0.3,0.4,0.5,0.6} f32[3,2]={0.9,0.8,0.7,0.6,-0.5,0.4} i64[2,4]<3",
      "f32[1,2,12] f32[3,2]={0.1,0.2,0.3,0.4,0.5,0.6} f32[3,2]={0.9,0.8,0.7,0.6,-0.5,0.4} i64[1,2]<3;num_heads=2 "
      "rotary_embedding_dim=4 interleaved=1",
      "f32[2,3,5,8] f32[2,5,4] f32[2,5,4]", "f32[2,3,5,8] f32[2,5,4] f32[2,5,4];interleaved=1",
      "f32[2,3,20] f32[4,3] f32[4,3] i64[2,3]<4;num_heads=2 rotary_embedding_dim=6",
      "f32[2,6,72] f32[9,16] f32[9,16] i64[2,6]<9;num_heads=2 rotary_embedding_dim=32;nograd",
      "f32[2,6,72] f32[2,6,6] f32[2,6,6];num_heads=2 rotary_embedding_dim=12;nograd",
      "f32[3,7,65,64] f32[99,32] f32[99,32] i64[3,65]<99;;nograd", "f32[0,2,3,4] f32[0,3,2] f32[0,3,2];;nograd");

const hk_op hk_ops_rotary[] = {
    {.type = "RotaryEmbedding",
     .since = 23,
     .in_min = 3,
     .in_max = 4,
     .out_min = 1,
     .out_max = 1,
     .attrs_bytes = sizeof(rotary_attrs),
     .attrs = attr_list,
     .infer = rotary_infer,
     .eval = rotary_eval,
     .lower = rotary_lower,
     .backward = rotary_backward,
     .cases = cases},
    {0},
};
