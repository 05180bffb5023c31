/*
 * Attention as exporters write it, two products with a softmax between, becomes hk.Attention:
 *
 *     softmax(scale q k' + mask) v        PyTorch's scaled_dot_product_attention and what models wrote by hand before
 *
 * The scale may be on q, on k, on the product, by Mul or Div; masks are added, before or after reshapes of the scores,
 * or chosen by Where; rows that see nothing may be set to zero (IsNaN, Where). Transposes, slices, splits and repeats
 * that make q, k and v, and a transpose of the result, are read as strides where they allow it.
 */
#include <math.h>
#include <string.h>

#include "ops/step.h"
#include "ops/support/attention.h"
#include "ops/support/build.h"
#include "runtime/passes.h"
#include "runtime/strided.h"

enum {
    SIZE_MOST = 256,       /* elements of a head: what the kernel's tiles hold */
    FOLDED_MOST = 1 << 22, /* elements of a mask that is computed now if it is constant */
};

/* Axes of the operands' views. */
enum { BATCH, HEAD, ROW, COLUMN };

typedef struct found {
    hk_graph *g;
    const hk_uses *uses;
    uint32_t values;                    /* that uses knows of */
    hk_node *softmax, *scores, *result; /* scores, result: the products */
    hk_value *probabilities;            /* what the second product reads */
    hk_value *mask;                     /* NULL: none */
    double scale;
    bool zero, scaled; /* scaled: between the mask and the first product */
    bool trained;      /* a gradient will be taken */
    hk_strided q, k, v;
} found;

/* The node that alone uses v, besides `also` (may be NULL). */
static hk_node *only_user(const found *f, const hk_value *v, const hk_node *also)
{
    hk_node *user = NULL;
    if (v->id >= f->values || f->uses->is_output[v->id])
        return NULL;
    for (uint32_t i = 0; i < f->uses->count[v->id]; i++) {
        if (f->uses->users[v->id][i] == also)
            continue;
        if (user)
            return NULL;
        user = f->uses->users[v->id][i];
    }
    return user;
}

static bool constant_scalar(const hk_value *v, double *x)
{
    if (!v || !v->data || hk_tensor_count(v->data) != 1 || v->shape.rank > 1)
        return false;
    *x = hk_get_double(v->data, 0);
    return true;
}

/* v as a scaled value: its producer multiplies or divides by a constant number. */
static hk_value *take_scale(hk_value *v, double *scale)
{
    const hk_node *n = v->producer;
    bool product = hk_node_is(n, "Mul"), quotient = hk_node_is(n, "Div");
    double x;
    if ((!product && !quotient) || n->in_count != 2)
        return NULL;
    int32_t at = constant_scalar(n->in[1], &x) ? 1 : product && constant_scalar(n->in[0], &x) ? 0 : -1;
    if (at < 0 || !hk_shape_equal(&n->in[1 - at]->shape, &v->shape) || (quotient && x == 0.0))
        return NULL;
    *scale *= quotient ? 1.0 / x : x;
    return n->in[1 - at];
}

/* ---- forwards: from the softmax to the second product */

static bool find_result(found *f)
{
    hk_value *p = f->softmax->out[0];
    hk_node *user = only_user(f, p, NULL);
    if (!user) { /* Where(IsNaN(p), 0, p) */
        for (uint32_t i = 0; i < f->uses->count[p->id] && i < 2; i++) {
            hk_node *test = f->uses->users[p->id][i], *where = only_user(f, p, test);
            double zero;
            if (hk_node_is(test, "IsNaN") && hk_node_is(where, "Where") && where->in[0] == test->out[0] &&
                constant_scalar(where->in[1], &zero) && zero == 0.0 && where->in[2] == p &&
                only_user(f, test->out[0], NULL) == where) {
                f->zero = true;
                p = where->out[0];
                user = only_user(f, p, NULL);
                break;
            }
        }
    }
    f->probabilities = p;
    f->result = user;
    return hk_node_is(user, "MatMul") && user->in[0] == p && user->in[1] != p;
}

/* ---- backwards: from the softmax to the first product */

/* Does v come from a product of its own size? */
static bool leads_to_product(const hk_value *v)
{
    for (int depth = 0; depth < 12 && v->producer; depth++) {
        const hk_node *n = v->producer;
        if (hk_node_is(n, "MatMul"))
            return true;
        bool changes = hk_node_is(n, "Add") || hk_node_is(n, "Mul") || hk_node_is(n, "Div") || hk_node_is(n, "Where") ||
                       hk_node_view_offset(n) == 0;
        const hk_value *from = NULL;
        for (int32_t i = 0; changes && i < n->in_count && !from; i++)
            if (n->in[i] && n->in[i]->producer && hk_shape_count(&n->in[i]->shape) == hk_shape_count(&v->shape))
                from = n->in[i];
        if (!from)
            return false;
        v = from;
    }
    return false;
}

/* A mask that is added to scores of this shape, for scores of four dimensions: leading ones go, and if the scores had
 * their batch split in two, the mask may be the same for all of the outer part. */
static bool mask_fits(const found *f, const hk_value *mask, const hk_shape *scores, hk_shape *out)
{
    const hk_shape *final = &f->softmax->in[0]->shape, *m = &mask->shape;
    int32_t first = 0;
    if (mask->dtype != HK_FLOAT32 && mask->dtype != HK_BOOL)
        return false;
    while (m->rank - first > 4 && m->dim[first] == 1)
        first++;
    *out = (hk_shape){.rank = m->rank - first};
    memcpy(out->dim, m->dim + first, (size_t)(m->rank - first) * sizeof out->dim[0]);
    if (hk_shape_equal(scores, final))
        return out->rank <= final->rank;
    /* [outer * inner, heads, rows, keys] as [outer, inner, heads, rows, keys], mask [inner, 1 or heads, rows, keys] */
    bool split = scores->rank == 5 && final->rank == 4 && scores->dim[0] * scores->dim[1] == final->dim[0];
    for (int32_t d = 1; split && d < 4; d++)
        split = scores->dim[1 + d] == final->dim[d];
    return split && out->rank <= 4 && (out->rank < 4 || out->dim[0] == 1 || out->dim[0] == scores->dim[1]);
}

/* v, or what it comes to if that can be computed now. */
static hk_status fold(found *f, hk_value **v)
{
    const hk_node *n = (*v)->producer;
    const hk_tensor *in[3] = {NULL};
    const hk_step step = {0};
    hk_tensor *t = NULL;
    for (int32_t i = 0; i < n->in_count; i++)
        if (!(in[i] = n->in[i]->data))
            return HK_OK;
    if (hk_shape_count(&(*v)->shape) > FOLDED_MOST)
        return HK_OK;
    HK_TRY(hk_node_eval(f->g->ctx, f->g->arena, n, in, &t, &step));
    *v = hk_graph_constant(f->g, "mask", t);
    return *v ? HK_OK : HK_STATUS_OUT_OF_MEMORY;
}

/* Adds a mask to those found; *taken false: it cannot be one. */
static hk_status take_mask(found *f, hk_value *mask, const hk_shape *scores, bool *taken)
{
    hk_shape s, both;
    *taken = mask_fits(f, mask, scores, &s) && mask->dtype == HK_FLOAT32 &&
             (!f->mask || hk_shape_broadcast(&s, &f->mask->shape, &both));
    if (!*taken)
        return HK_OK;
    if (!hk_shape_equal(&s, &mask->shape)) {
        HK_TRY(hk_build_reshape(f->g, mask, &s, &mask));
        HK_TRY(fold(f, &mask));
    }
    if (f->mask) {
        HK_TRY(hk_build_binary(f->g, "Add", f->mask, mask, &mask));
        HK_TRY(fold(f, &mask));
    }
    f->mask = mask;
    return HK_OK;
}

/* Where(condition, scores, c) or Where(condition, c, scores): scores + Where(condition, 0, c), or the other way. c is
 * so low that the sum is c. */
static hk_status take_choice(found *f, const hk_node *n, int32_t at, const hk_shape *scores, bool *taken)
{
    hk_value *condition = n->in[0], *low = n->in[3 - at], *mask, *in[3];
    double x;
    *taken = constant_scalar(low, &x) && x <= -1e9 && low->dtype == HK_FLOAT32;
    hk_value *zero = hk_graph_scalar(f->g, HK_FLOAT32, 0.0);
    if (!zero)
        return HK_STATUS_OUT_OF_MEMORY;
    if (!*taken)
        return HK_OK;
    in[0] = condition;
    in[at] = zero;
    in[3 - at] = low;
    HK_TRY(hk_build(f->g, "Where", NULL, in, 3, &mask, 1));
    HK_TRY(fold(f, &mask));
    return take_mask(f, mask, scores, taken);
}

/* One step from x towards the product; NULL where the pattern ends. */
static hk_status step_back(found *f, hk_value *x, hk_value **next)
{
    hk_node *n = x->producer;
    bool taken = false;
    *next = NULL;
    hk_value *inner = take_scale(x, &f->scale);
    if (inner) {
        f->scaled = true;
        *next = inner;
        return HK_OK;
    }
    if (hk_node_view_offset(n) == 0) {
        *next = n->in[0];
        return HK_OK;
    }
    bool add = hk_node_is(n, "Add"), where = hk_node_is(n, "Where");
    if ((!add && !where) || f->scaled) /* a mask inside a scale would be scaled too */
        return HK_OK;
    for (int32_t at = add ? 0 : 1; at < n->in_count; at++) {
        hk_value *other = add ? n->in[1 - at] : NULL;
        if (!hk_shape_equal(&n->in[at]->shape, &x->shape) || !leads_to_product(n->in[at]))
            continue;
        HK_TRY(add ? take_mask(f, other, &x->shape, &taken) : take_choice(f, n, at, &x->shape, &taken));
        *next = taken ? n->in[at] : NULL;
        return HK_OK;
    }
    return HK_OK;
}

static hk_status find_scores(found *f, bool *whole)
{
    hk_value *x = f->softmax->in[0];
    *whole = false;
    for (int depth = 0; depth < 12 && x && x->producer; depth++) {
        if (hk_node_is(x->producer, "MatMul")) {
            f->scores = x->producer;
            *whole = hk_shape_equal(&x->shape, &f->softmax->in[0]->shape);
            return HK_OK;
        }
        if (!leads_to_product(x))
            return HK_OK;
        HK_TRY(step_back(f, x, &x));
    }
    return HK_OK;
}

/* ---- operands */

/* A gradient is brought back to where the operand lies, so that must be all of a value. */
static bool shows_each_once(const hk_strided *s)
{
    int64_t extent[4][2], each[4], stride[4][2], order[4];
    for (int32_t axis = BATCH; axis <= COLUMN; axis++) {
        hk_strided_axis(s, axis, extent[axis], stride[axis]);
        each[axis] = extent[axis][0];
    }
    const hk_attention_view v = {
        .offset = s->offset, .batch = stride[BATCH][0], .head = stride[HEAD][0], .row = stride[ROW][0]};
    return hk_attention_is_whole(&v, each, hk_shape_count(&s->base->shape), order);
}

/* v with its axes named, as far up as its elements lie at strides that the kernel can read. A constant factor on the
 * way goes into *scale (NULL: not taken). */
static bool trace(const found *f, hk_value *v, const int32_t *axes, double *scale, bool repeats, hk_strided *out)
{
    hk_strided s;
    double factor = 1.0;
    if (!hk_strided_of(v, &s))
        return false;
    for (int32_t i = 0; i < s.count; i++)
        s.part[i].axis = axes[i];
    *out = s;
    for (;;) {
        hk_value *inner = scale ? take_scale(s.base, &factor) : NULL;
        if (inner)
            s.base = inner;
        else if (!hk_strided_up(&s))
            return true;
        int64_t extent[2], stride[2];
        bool usable = true;
        for (int32_t axis = BATCH; axis <= COLUMN && usable; axis++) {
            usable = hk_strided_axis(&s, axis, extent, stride) && (extent[1] == 1 || (axis == HEAD && repeats));
            if (axis == COLUMN)
                usable &= extent[0] == 1 || stride[0] == 1;
        }
        if (usable && (!f->trained || shows_each_once(&s))) {
            *out = s;
            if (scale)
                *scale *= factor;
            factor = 1.0;
        }
    }
}

static bool find_operands(found *f)
{
    const hk_shape *s = &f->scores->out[0]->shape, *y = &f->result->out[0]->shape;
    hk_value *q = f->scores->in[0], *k = f->scores->in[1], *v = f->result->in[1];
    if (s->rank < 3 || s->rank > 4 || q->shape.rank != s->rank || k->shape.rank != s->rank ||
        v->shape.rank != s->rank || y->rank != s->rank || q->dtype != HK_FLOAT32 || v->dtype != HK_FLOAT32)
        return false;
    for (int32_t d = 0; d < s->rank - 2; d++)
        if (q->shape.dim[d] != s->dim[d] || k->shape.dim[d] != s->dim[d] || v->shape.dim[d] != s->dim[d])
            return false;
    if (hk_shape_count(&q->shape) <= 0 || hk_shape_count(&k->shape) <= 0 || hk_shape_count(&v->shape) <= 0 ||
        q->shape.dim[s->rank - 1] > SIZE_MOST || v->shape.dim[s->rank - 1] > SIZE_MOST)
        return false;
    static const int32_t straight[] = {BATCH, HEAD, ROW, COLUMN}, turned[] = {BATCH, HEAD, COLUMN, ROW},
                         flat[] = {BATCH, ROW, COLUMN}, flat_turned[] = {BATCH, COLUMN, ROW};
    bool heads = s->rank == 4;
    if (!trace(f, q, heads ? straight : flat, &f->scale, false, &f->q) ||
        !trace(f, k, heads ? turned : flat_turned, &f->scale, !f->trained, &f->k) ||
        !trace(f, v, heads ? straight : flat, NULL, !f->trained, &f->v))
        return false;
    int64_t extent[2], stride[2]; /* keys were transposed by a node of their own: it must have been passed */
    return hk_strided_axis(&f->k, COLUMN, extent, stride) && (extent[0] == 1 || stride[0] == 1);
}

static void view_of(const hk_strided *s, int64_t view[4], int64_t *kv_heads)
{
    int64_t extent[2], stride[2];
    view[0] = s->offset;
    for (int32_t axis = BATCH; axis <= ROW; axis++) {
        hk_strided_axis(s, axis, extent, stride);
        view[1 + axis] = stride[0];
        if (axis == HEAD)
            *kv_heads = stride[0] == 0 ? 1 : extent[0];
    }
}

/* ---- the new node */

/* The order in which a transpose that alone reads the result wants it. */
static hk_attention_order wanted_order(const found *f, hk_node **transpose)
{
    static const int64_t perms[][4] = {{0, 2, 1, 3}, {2, 0, 1, 3}};
    static const hk_attention_order orders[] = {HK_ATTENTION_ROWS, HK_ATTENTION_BATCH};
    hk_node *user = only_user(f, f->result->out[0], NULL);
    const hk_ints *perm = hk_node_is(user, "Transpose") ? hk_node_attr(user, "perm") : NULL;
    *transpose = NULL;
    for (size_t i = 0; i < HK_COUNT(perms) && perm && perm->count == 4; i++)
        if (!memcmp(perm->v, perms[i], sizeof perms[i])) {
            *transpose = user;
            return orders[i];
        }
    return HK_ATTENTION_HEADS;
}

static hk_status replace(found *f, const hk_attr_value *attrs, hk_node *transpose)
{
    hk_value *old = transpose ? transpose->out[0] : f->result->out[0], *y, *view;
    hk_value *in[] = {f->q.base, f->k.base, f->v.base, f->mask};
    HK_TRY(hk_build(f->g, "hk.Attention", attrs, in, f->mask ? 4 : 3, &y, 1));
    y->producer->name = f->softmax->name;
    if (hk_shape_equal(&y->shape, &old->shape)) {
        hk_graph_take_over(y, old);
        return HK_OK;
    }
    HK_TRY(hk_build_reshape(f->g, y, &old->shape, &view));
    hk_graph_take_over(view, old);
    return HK_OK;
}

static hk_status fuse(found *f)
{
    const hk_shape *s = &f->scores->out[0]->shape, *v = &f->result->in[1]->shape;
    int32_t rank = s->rank;
    int64_t q_view[4], k_view[4], v_view[4], heads = rank == 4 ? s->dim[1] : 1, k_heads, v_heads, q_heads;
    view_of(&f->q, q_view, &q_heads);
    view_of(&f->k, k_view, &k_heads);
    view_of(&f->v, v_view, &v_heads);
    int64_t kv_heads = HK_MAX(k_heads, v_heads);
    if (heads % k_heads || heads % v_heads || (k_heads != v_heads && HK_MIN(k_heads, v_heads) != 1))
        return HK_OK;
    hk_attention p = {.batch = s->dim[0], .heads = heads, .rows = s->dim[rank - 2], .keys = s->dim[rank - 1]};
    if (f->mask && !hk_attention_set_mask(&p, &f->mask->shape, false))
        return HK_OK;
    bool own_mask = !f->mask || p.mask_batches == 1 || p.mask_batches == p.batch;
    if (f->trained && (k_heads != heads || v_heads != heads || !own_mask))
        return HK_OK;
    hk_node *transpose;
    const hk_attr_value attrs[] = {HK_SET_INT("batch", p.batch),
                                   HK_SET_INT("heads", heads),
                                   HK_SET_INT("kv_heads", kv_heads),
                                   HK_SET_INT("rows", p.rows),
                                   HK_SET_INT("keys", p.keys),
                                   HK_SET_INT("size", f->scores->in[0]->shape.dim[rank - 1]),
                                   HK_SET_INT("v_size", v->dim[rank - 1]),
                                   HK_SET_INT("order", wanted_order(f, &transpose)),
                                   HK_SET_INT("zero", f->zero),
                                   HK_SET_INTS("q_view", q_view, 4),
                                   HK_SET_INTS("k_view", k_view, 4),
                                   HK_SET_INTS("v_view", v_view, 4),
                                   HK_SET_FLOAT("scale", (float)f->scale),
                                   {0}};
    return replace(f, attrs, transpose);
}

static bool is_last_axis(const hk_node *n)
{
    const int64_t *axis = hk_node_attr(n, "axis");
    int32_t rank = n->in[0]->shape.rank;
    return axis && rank >= 3 && n->op->until == 0 && hk_axis(*axis, rank) == rank - 1;
}

static hk_status fuse_all(hk_graph *g, bool trained)
{
    hk_uses uses;
    HK_TRY(hk_graph_uses(g, g->arena, &uses));
    size_t count = g->node_count;
    uint32_t values = (uint32_t)g->value_count;
    for (size_t i = 0; i < count; i++) {
        hk_node *n = g->nodes[i];
        if (!hk_node_is(n, "Softmax") || !is_last_axis(n) || !hk_shape_known(&n->in[0]->shape))
            continue;
        found f = {.g = g, .uses = &uses, .values = values, .trained = trained, .softmax = n, .scale = 1.0};
        bool whole = false;
        if (find_result(&f))
            HK_TRY(find_scores(&f, &whole));
        if (whole && find_operands(&f))
            HK_TRY(fuse(&f));
    }
    if (g->node_count == count)
        return HK_OK;
    HK_TRY(hk_graph_sort(g));
    return hk_graph_prune(g);
}

hk_status hk_fuse_attention(hk_graph *g)
{
    return fuse_all(g, false);
}

hk_status hk_fuse_trained_attention(hk_graph *g)
{
    return fuse_all(g, true);
}
