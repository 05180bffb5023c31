/* Reductions: Reduce*, ArgMax and ArgMin, and hk.SumTo, which undoes broadcasting in backward passes. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "kernels.h"
#include "ops/support/reduce.h"
#include "shaders/reduce_arg.push.h"

typedef struct reduce_attrs {
    hk_ints axes; /* before the axes became an input */
    int64_t keepdims, noop_with_empty_axes;
} reduce_attrs;

static const hk_attr reduce_attr_list[] = {
    HK_INTS_ATTR(reduce_attrs, axes), HK_INT_ATTR(reduce_attrs, keepdims, 1), {0}};
static const hk_attr reduce_attr_input[] = {
    HK_INT_ATTR(reduce_attrs, keepdims, 1), HK_INT_ATTR(reduce_attrs, noop_with_empty_axes, 0), {0}};

/* What one reduction does; the device does the same through these three. */
typedef struct reduce_kind {
    const char *type;
    hk_combine combine;
    hk_before before;
    hk_after after;
} reduce_kind;

static const reduce_kind kinds[] = {
    {"ReduceSum", HK_COMBINE_SUM, HK_BEFORE_NOTHING, HK_AFTER_NOTHING},
    {"ReduceMean", HK_COMBINE_SUM, HK_BEFORE_NOTHING, HK_AFTER_MEAN},
    {"ReduceMax", HK_COMBINE_MAX, HK_BEFORE_NOTHING, HK_AFTER_NOTHING},
    {"ReduceMin", HK_COMBINE_MIN, HK_BEFORE_NOTHING, HK_AFTER_NOTHING},
    {"ReduceProd", HK_COMBINE_PROD, HK_BEFORE_NOTHING, HK_AFTER_NOTHING},
    {"ReduceL1", HK_COMBINE_SUM, HK_BEFORE_ABS, HK_AFTER_NOTHING},
    {"ReduceL2", HK_COMBINE_SUM, HK_BEFORE_SQUARE, HK_AFTER_SQRT},
    {"ReduceSumSquare", HK_COMBINE_SUM, HK_BEFORE_SQUARE, HK_AFTER_NOTHING},
    {"ReduceLogSum", HK_COMBINE_SUM, HK_BEFORE_NOTHING, HK_AFTER_LOG},
    {"ReduceLogSumExp", HK_COMBINE_SUM, HK_BEFORE_EXP_SHIFTED, HK_AFTER_LOG_SHIFTED},
};

static const reduce_kind *kind_of(const hk_node *n)
{
    for (size_t i = 0; i < HK_COUNT(kinds); i++)
        if (!strcmp(kinds[i].type, n->op->type))
            return &kinds[i];
    return &kinds[0]; /* hk.SumTo */
}

/* ---- axes */

typedef enum axes_result { AXES_FOUND, AXES_UNKNOWN, AXES_BAD } axes_result;

/* The set of axes to reduce: from the attribute or the second input. given: that input's contents, if known. */
static axes_result find_axes(const hk_node *n, const hk_tensor *given, int32_t rank, uint32_t *mask)
{
    const reduce_attrs *a = n->attrs;
    bool by_input = hk_in(n, 1) != NULL;
    if (by_input && !given)
        return AXES_UNKNOWN;
    int64_t count = by_input ? hk_tensor_count(given) : a->axes.count;
    if (count == 0) {
        *mask = a->noop_with_empty_axes ? 0 : (1u << rank) - 1;
        return AXES_FOUND;
    }
    *mask = 0;
    for (int64_t i = 0; i < count; i++) {
        int32_t d = hk_axis(by_input ? hk_get_int(given, i) : a->axes.v[i], rank);
        if (d < 0 || *mask >> d & 1u)
            return AXES_BAD;
        *mask |= 1u << d;
    }
    return AXES_FOUND;
}

static hk_shape reduced_shape(const hk_shape *x, uint32_t mask, bool keepdims)
{
    hk_shape y = {.rank = 0};
    for (int32_t d = 0; d < x->rank; d++) {
        if (!(mask >> d & 1u))
            y.dim[y.rank++] = x->dim[d];
        else if (keepdims)
            y.dim[y.rank++] = 1;
    }
    return y;
}

/* ---- Reduce* */

static hk_status reduce_infer(hk_infer *in)
{
    const hk_node *n = in->node;
    const reduce_attrs *a = n->attrs;
    const hk_value *x = n->in[0], *axes = hk_in(n, 1);
    bool picks = kind_of(n)->combine == HK_COMBINE_MAX || kind_of(n)->combine == HK_COMBINE_MIN;
    if (x->dtype == HK_BOOL && !picks)
        return hk_infer_fail(in, HK_STATUS_INVALID, "input '%s' is bool, expected a number type", x->name);
    if (axes && axes->dtype != HK_INT64)
        return hk_infer_fail(in, HK_STATUS_INVALID, "axes '%s' are %s, expected int64", axes->name,
                             hk_dtype_name(axes->dtype));
    if (x->shape.rank < 0)
        return hk_infer_output(in, 0, x->dtype, &HK_SHAPE_UNKNOWN);
    uint32_t mask = 0;
    hk_shape y;
    hk_shape_text text;
    switch (find_axes(n, hk_known(n, 1), x->shape.rank, &mask)) {
    case AXES_FOUND: y = reduced_shape(&x->shape, mask, a->keepdims != 0); return hk_infer_output(in, 0, x->dtype, &y);
    case AXES_UNKNOWN: /* keepdims keeps the rank; without it the number of axes would have to be known too */
        y = a->keepdims ? (hk_shape){.rank = x->shape.rank} : HK_SHAPE_UNKNOWN;
        for (int32_t d = 0; d < y.rank; d++)
            y.dim[d] = -1;
        return hk_infer_output(in, 0, x->dtype, &y);
    case AXES_BAD: break;
    }
    return hk_infer_fail(in, HK_STATUS_INVALID, "an axis is given twice or outside [-%d, %d) of shape %s",
                         (int)x->shape.rank, (int)x->shape.rank, hk_shape_print(&x->shape, &text));
}

/* Walks x in order together with the index of the output that each element belongs to. */
typedef struct output_walk {
    const hk_shape *shape;
    int64_t stride[HK_MAX_RANK]; /* in the output; 0 for reduced axes */
    int64_t index[HK_MAX_RANK];
    int64_t at;
} output_walk;

static output_walk walk_start(const hk_shape *x, uint32_t mask)
{
    output_walk w = {.shape = x};
    int64_t stride = 1;
    for (int32_t d = x->rank - 1; d >= 0; d--)
        if (!(mask >> d & 1u)) {
            w.stride[d] = stride;
            stride *= x->dim[d];
        }
    return w;
}

static void walk_next(output_walk *w)
{
    for (int32_t d = w->shape->rank - 1; d >= 0; d--) {
        w->at += w->stride[d];
        if (++w->index[d] < w->shape->dim[d])
            return;
        w->at -= w->stride[d] * w->index[d];
        w->index[d] = 0;
    }
}

static double combine_doubles(hk_combine c, double a, double b)
{
    switch (c) {
    case HK_COMBINE_SUM: return a + b;
    case HK_COMBINE_PROD: return a * b;
    case HK_COMBINE_MAX: return isnan(a) || b <= a ? a : b;
    case HK_COMBINE_MIN: return isnan(a) || b >= a ? a : b;
    }
    return a;
}

static hk_status eval_floats(hk_eval *e, const reduce_kind *k, uint32_t mask, const hk_shape *shape, hk_tensor *y)
{
    static const double identities[] = {0.0, 1.0, -INFINITY, INFINITY};
    const hk_tensor *x = e->in[0];
    int64_t outputs = hk_tensor_count(y), count = hk_tensor_count(x);
    double *sum = hk_arena_array(e->arena, (size_t)HK_MAX(outputs, 1), sizeof *sum);
    double *shift = hk_arena_array(e->arena, (size_t)HK_MAX(outputs, 1), sizeof *shift);
    if (!sum || !shift)
        return hk_out_of_memory(e->ctx, "a reduction's sums");
    for (int64_t i = 0; i < outputs; i++) {
        sum[i] = identities[k->combine];
        shift[i] = -INFINITY;
    }
    output_walk w = walk_start(shape, mask);
    if (k->after == HK_AFTER_LOG_SHIFTED) {
        for (int64_t i = 0; i < count; i++, walk_next(&w))
            shift[w.at] = fmax(shift[w.at], hk_get_double(x, i));
        w = walk_start(shape, mask);
    }
    for (int64_t i = 0; i < outputs; i++)
        shift[i] = isfinite(shift[i]) ? shift[i] : 0.0;
    for (int64_t i = 0; i < count; i++, walk_next(&w)) {
        double v = hk_get_double(x, i);
        v = k->before == HK_BEFORE_ABS       ? fabs(v)
            : k->before == HK_BEFORE_SQUARE  ? v * v
            : k->before == HK_BEFORE_NOTHING ? v
                                             : exp(v - shift[w.at]);
        sum[w.at] = combine_doubles(k->combine, sum[w.at], v);
    }
    double each = outputs ? (double)(count / outputs) : 0.0;
    for (int64_t i = 0; i < outputs; i++) {
        double v = sum[i];
        v = k->after == HK_AFTER_MEAN          ? v / each
            : k->after == HK_AFTER_SQRT        ? sqrt(v)
            : k->after == HK_AFTER_LOG         ? log(v)
            : k->after == HK_AFTER_LOG_SHIFTED ? log(v) + shift[i]
                                               : v;
        hk_set_double(y, i, v);
    }
    return HK_OK;
}

static int64_t integer_limit(hk_dtype t, bool most)
{
    switch (t) {
    case HK_BOOL: return most;
    case HK_UINT8: return most ? UINT8_MAX : 0;
    case HK_UINT16: return most ? UINT16_MAX : 0;
    case HK_UINT32: return most ? UINT32_MAX : 0;
    case HK_UINT64: return most ? -1 : 0; /* its bits */
    case HK_INT8: return most ? INT8_MAX : INT8_MIN;
    case HK_INT16: return most ? INT16_MAX : INT16_MIN;
    case HK_INT32: return most ? INT32_MAX : INT32_MIN;
    default: return most ? INT64_MAX : INT64_MIN;
    }
}

/* Sums wrap around, as they do on the device and in numpy. */
static int64_t combine_ints(hk_combine c, bool wide_unsigned, int64_t a, int64_t b)
{
    bool below = wide_unsigned ? (uint64_t)a < (uint64_t)b : a < b;
    switch (c) {
    case HK_COMBINE_SUM: return (int64_t)((uint64_t)a + (uint64_t)b);
    case HK_COMBINE_PROD: return (int64_t)((uint64_t)a * (uint64_t)b);
    case HK_COMBINE_MAX: return below ? b : a;
    case HK_COMBINE_MIN: return below ? a : b;
    }
    return a;
}

static void eval_ints(hk_eval *e, const reduce_kind *k, uint32_t mask, const hk_shape *shape, hk_tensor *y)
{
    const hk_tensor *x = e->in[0];
    bool wide = x->dtype == HK_UINT64;
    int64_t outputs = hk_tensor_count(y), count = hk_tensor_count(x);
    int64_t first = k->combine == HK_COMBINE_SUM    ? 0
                    : k->combine == HK_COMBINE_PROD ? 1
                                                    : integer_limit(x->dtype, k->combine == HK_COMBINE_MIN);
    for (int64_t i = 0; i < outputs; i++)
        hk_set_int(y, i, first);
    output_walk w = walk_start(shape, mask);
    for (int64_t i = 0; i < count; i++, walk_next(&w)) {
        int64_t v = hk_get_int(x, i);
        if (k->before == HK_BEFORE_ABS && v < 0 && !wide)
            v = (int64_t)(0 - (uint64_t)v);
        if (k->before == HK_BEFORE_SQUARE)
            v = (int64_t)((uint64_t)v * (uint64_t)v);
        hk_set_int(y, w.at, combine_ints(k->combine, wide, hk_get_int(y, w.at), v));
    }
    int64_t each = outputs ? HK_MAX(count / outputs, 1) : 1;
    for (int64_t i = 0; i < outputs && k->after == HK_AFTER_MEAN; i++) {
        int64_t v = hk_get_int(y, i);
        hk_set_int(y, i, wide ? (int64_t)((uint64_t)v / (uint64_t)each) : v / each);
    }
}

/* Integers whose result is a root or logarithm go through double, like their kinds. */
static bool stays_integer(hk_dtype t, const reduce_kind *k)
{
    return !hk_dtype_is_float(t) && (k->after == HK_AFTER_NOTHING || k->after == HK_AFTER_MEAN);
}

static hk_status eval_reduction(hk_eval *e, uint32_t mask, const hk_shape *y_shape)
{
    const hk_tensor *x = e->in[0];
    const reduce_kind *k = kind_of(e->node);
    hk_shape shape = hk_tensor_shape(x);
    hk_tensor *y = hk_eval_output(e, 0, x->dtype, y_shape);
    if (!y)
        return hk_out_of_memory(e->ctx, "a reduction's output");
    if (!stays_integer(x->dtype, k))
        return eval_floats(e, k, mask, &shape, y);
    eval_ints(e, k, mask, &shape, y);
    return HK_OK;
}

static hk_status reduce_eval(hk_eval *e)
{
    const reduce_attrs *a = e->node->attrs;
    uint32_t mask = 0;
    hk_shape x = hk_tensor_shape(e->in[0]);
    if (find_axes(e->node, hk_in(e->node, 1) ? e->in[1] : NULL, x.rank, &mask) != AXES_FOUND)
        return hk_eval_fail(e, HK_STATUS_INVALID, "an axis is given twice or outside the %d dimensions", (int)x.rank);
    hk_shape y = reduced_shape(&x, mask, a->keepdims != 0);
    return eval_reduction(e, mask, &y);
}

static hk_status lower_reduction(hk_lower *l, uint32_t mask)
{
    const hk_node *n = l->node;
    const reduce_kind *k = kind_of(n);
    hk_value *x = n->in[0];
    if (!hk_dtype_is_float(x->dtype) && !stays_integer(x->dtype, k))
        return hk_fail(l->ctx, HK_STATUS_UNSUPPORTED,
                       "node '%s' (%s): no kernel for %s; cast '%s' to float32 before it", n->name, n->type,
                       hk_dtype_name(x->dtype), x->name);
    hk_reduction r = {.x = x,
                      .y = n->out[0],
                      .rank = x->shape.rank,
                      .axes = mask,
                      .combine = k->combine,
                      .before = k->before,
                      .after = k->after};
    memcpy(r.extent, x->shape.dim, sizeof r.extent);
    if (k->after == HK_AFTER_LOG_SHIFTED && hk_shape_count(&n->out[0]->shape) > 0) {
        hk_reduction largest = r;
        r.shift = largest.y = hk_scratch(l, x->dtype, hk_shape_count(&n->out[0]->shape));
        if (!r.shift)
            return HK_OK; /* l->failed tells */
        largest.combine = HK_COMBINE_MAX;
        largest.before = HK_BEFORE_NOTHING;
        largest.after = HK_AFTER_NOTHING;
        HK_TRY(hk_emit_reduction(l, &largest));
    }
    return hk_emit_reduction(l, &r);
}

static hk_status reduce_lower(hk_lower *l)
{
    uint32_t mask = 0;
    if (find_axes(l->node, hk_known(l->node, 1), l->node->in[0]->shape.rank, &mask) != AXES_FOUND)
        return hk_fail(l->ctx, HK_STATUS_INTERNAL, "node '%s' (%s): its axes are not known when it is planned",
                       l->node->name, l->node->type);
    return lower_reduction(l, mask);
}

/* ---- backward rules of Reduce*: with keepdims the gradient broadcasts against x by itself */

typedef struct rule {
    hk_gradient *gradient;
    hk_graph *g;
    hk_node *n;
    uint32_t mask;
    hk_value *x, *y, *dy; /* y and dy with the reduced axes kept as 1 */
    hk_status status;     /* of the first call that failed; later ones do nothing */
} rule;

static hk_value *apply(rule *r, const char *type, hk_value *a, hk_value *b)
{
    hk_value *out = NULL;
    if (r->status == HK_OK)
        r->status = hk_build(r->g, type, NULL, (hk_value *[]){a, b}, b ? 2 : 1, &out, 1);
    return out;
}

static hk_value *scalar(rule *r, double v)
{
    hk_value *s = r->status == HK_OK ? hk_graph_scalar(r->g, r->x->dtype, v) : NULL;
    if (r->status == HK_OK && !s)
        r->status = HK_STATUS_OUT_OF_MEMORY;
    return s;
}

static hk_value *to_float(rule *r, hk_value *v)
{
    hk_value *out = NULL;
    if (r->status == HK_OK)
        r->status = hk_build(r->g, "Cast", (hk_attr_value[]){HK_SET_INT("to", r->x->dtype), {0}}, &v, 1, &out, 1);
    return out;
}

static hk_value *with_shape(rule *r, const char *type, const hk_attr_value *attrs, hk_value *v, const hk_shape *s)
{
    hk_value *out = NULL, *shape = r->status == HK_OK ? hk_graph_ints(r->g, s->dim, s->rank) : NULL;
    if (r->status == HK_OK)
        r->status = shape ? hk_build(r->g, type, attrs, (hk_value *[]){v, shape}, 2, &out, 1) : HK_STATUS_OUT_OF_MEMORY;
    return out;
}

static hk_value *expand(rule *r, hk_value *v)
{
    return with_shape(r, "Expand", NULL, v, &r->x->shape);
}

static hk_value *keep_axes(rule *r, hk_value *v)
{
    const hk_shape kept = reduced_shape(&r->x->shape, r->mask, true);
    const hk_attr_value attrs[] = {HK_SET_INT("allowzero", 1), {0}};
    return hk_shape_equal(&v->shape, &kept) ? v : with_shape(r, "Reshape", attrs, v, &kept);
}

static hk_value *sum_kept(rule *r, hk_value *v)
{
    hk_shape s = reduced_shape(&r->x->shape, r->mask, true);
    hk_value *out = NULL;
    if (r->status == HK_OK)
        r->status = hk_build(r->g, "hk.SumTo", (hk_attr_value[]){HK_SET_INTS("shape", s.dim, s.rank), {0}}, &v, 1, &out,
                             1);
    return out;
}

static hk_value *product_gradient(rule *r)
{
    /* d(prod)/dx_i is the product of the other elements. Zeros are counted and left out of a product P of the rest: one
     * zero makes P the derivative at its place and 0 elsewhere, two make all 0. */
    hk_value *zero = to_float(r, apply(r, "Equal", r->x, scalar(r, 0.0)));
    hk_value *rest = apply(r, "Add", r->x, zero);
    hk_value *product = NULL;
    int64_t axes[HK_MAX_RANK];
    int32_t count = 0;
    for (int32_t d = 0; d < r->x->shape.rank; d++)
        if (r->mask >> d & 1u)
            axes[count++] = d;
    hk_value *list = r->status == HK_OK ? hk_graph_ints(r->g, axes, count) : NULL;
    if (r->status == HK_OK)
        r->status = hk_build(r->g, "ReduceProd", (hk_attr_value[]){HK_SET_INT("noop_with_empty_axes", 1), {0}},
                             (hk_value *[]){rest, list}, 2, &product, 1);
    hk_value *others = apply(r, "Sub", sum_kept(r, zero), zero);
    hk_value *alone = to_float(r, apply(r, "Equal", others, scalar(r, 0.0)));
    hk_value *scaled = apply(r, "Mul", r->dy, product);
    return apply(r, "Mul", alone, apply(r, "Div", scaled, rest));
}

static hk_value *local_gradient(rule *r, const char *type)
{
    if (!strcmp(type, "ReduceL1"))
        return apply(r, "Mul", r->dy, apply(r, "Sign", r->x, NULL));
    if (!strcmp(type, "ReduceSumSquare"))
        return apply(r, "Mul", apply(r, "Mul", r->dy, scalar(r, 2.0)), r->x);
    if (!strcmp(type, "ReduceL2")) { /* x / |x|, and 0 at 0 as in PyTorch: there, x is 0 and 1 is added below it */
        hk_value *none = to_float(r, apply(r, "Equal", r->y, scalar(r, 0.0)));
        return apply(r, "Mul", r->x, apply(r, "Div", r->dy, apply(r, "Add", r->y, none)));
    }
    if (!strcmp(type, "ReduceLogSum")) /* 1 / sum, the same for every element */
        return expand(r, apply(r, "Div", r->dy, apply(r, "Exp", r->y, NULL)));
    if (!strcmp(type, "ReduceLogSumExp"))
        return apply(r, "Mul", r->dy, apply(r, "Exp", apply(r, "Sub", r->x, r->y), NULL));
    if (!strcmp(type, "ReduceProd"))
        return product_gradient(r);
    /* Maximum and minimum: shared evenly among equal elements, as torch.amax does. */
    hk_value *hit = to_float(r, apply(r, "Equal", r->x, r->y));
    return apply(r, "Mul", hit, apply(r, "Div", r->dy, sum_kept(r, hit)));
}

static hk_status finish_rule(rule *r)
{
    hk_value *dx = NULL;
    const hk_shape kept = reduced_shape(&r->x->shape, r->mask, true);
    const char *type = r->n->op->type;
    bool needs_y = strstr("ReduceMax ReduceMin ReduceL2 ReduceLogSum ReduceLogSumExp", type) != NULL;
    r->dy = keep_axes(r, r->dy);
    if (needs_y)
        r->y = keep_axes(r, r->y);
    if (!strcmp(type, "ReduceMean")) {
        int64_t count = hk_shape_count(&r->x->shape) / HK_MAX(hk_shape_count(&kept), 1);
        r->dy = apply(r, "Mul", r->dy, scalar(r, 1.0 / (double)HK_MAX(count, 1)));
    }
    if (!strcmp(type, "ReduceMean") || !strcmp(type, "ReduceSum") || !strcmp(type, "hk.SumTo"))
        dx = expand(r, r->dy);
    else
        dx = local_gradient(r, type);
    HK_TRY(r->status);
    return hk_gradient_add(r->gradient, r->x, dx);
}

static hk_status start_rule(hk_gradient *g, hk_node *n, rule *r)
{
    *r = (rule){.gradient = g,
                .g = hk_gradient_graph(g),
                .n = n,
                .x = n->in[0],
                .y = n->out[0],
                .dy = hk_gradient_of(g, n->out[0])};
    if (!hk_shape_known(&r->x->shape))
        return hk_fail(r->g->ctx, HK_STATUS_UNSUPPORTED, "node '%s' (%s): its gradient needs a known shape of '%s'",
                       n->name, n->type, r->x->name);
    return HK_OK;
}

static hk_status reduce_backward(hk_gradient *g, hk_node *n)
{
    rule r;
    if (!hk_gradient_of(g, n->out[0]) || !hk_gradient_wanted(g, n->in[0]))
        return HK_OK;
    HK_TRY(start_rule(g, n, &r));
    if (find_axes(n, hk_known(n, 1), r.x->shape.rank, &r.mask) != AXES_FOUND)
        return hk_fail(r.g->ctx, HK_STATUS_UNSUPPORTED, "node '%s' (%s): its gradient needs axes known before the run",
                       n->name, n->type);
    return finish_rule(&r);
}

/* ---- hk.SumTo(x; shape): sums the axes in which x is broadcast from shape */

typedef struct sum_to_attrs {
    hk_ints shape;
} sum_to_attrs;
static const hk_attr sum_to_attr_list[] = {
    {.name = "shape", .kind = HK_ATTR_INTS, .offset = offsetof(sum_to_attrs, shape), .required = true}, {0}};

static hk_shape sum_to_shape(const hk_node *n)
{
    const sum_to_attrs *a = n->attrs;
    hk_shape s = {.rank = HK_MIN(a->shape.count, HK_MAX_RANK)};
    for (int32_t d = 0; d < s.rank; d++)
        s.dim[d] = a->shape.v[d];
    return s;
}

/* False if target does not broadcast to x. */
static bool sum_to_axes(const hk_shape *x, const hk_shape *target, uint32_t *mask)
{
    int32_t lead = x->rank - target->rank;
    *mask = 0;
    for (int32_t d = 0; d < x->rank; d++) {
        int64_t want = d < lead ? 1 : target->dim[d - lead];
        if (d < lead || (want == 1 && x->dim[d] != 1))
            *mask |= 1u << d;
        else if (want != x->dim[d] && x->dim[d] >= 0)
            return false;
    }
    return lead >= 0;
}

static hk_status sum_to_infer(hk_infer *in)
{
    const hk_value *x = in->node->in[0];
    const hk_shape target = sum_to_shape(in->node);
    uint32_t mask;
    hk_shape_text a, b;
    if (!hk_dtype_is_float(x->dtype) && !hk_dtype_is_integer(x->dtype))
        return hk_infer_fail(in, HK_STATUS_INVALID, "input '%s' is %s, expected a number type", x->name,
                             hk_dtype_name(x->dtype));
    if (x->shape.rank >= 0 && !sum_to_axes(&x->shape, &target, &mask))
        return hk_infer_fail(in, HK_STATUS_INVALID, "input '%s' has shape %s, expected one that %s broadcasts to",
                             x->name, hk_shape_print(&x->shape, &a), hk_shape_print(&target, &b));
    return hk_infer_output(in, 0, x->dtype, &target);
}

static hk_status sum_to_eval(hk_eval *e)
{
    hk_shape x = hk_tensor_shape(e->in[0]), target = sum_to_shape(e->node);
    uint32_t mask = 0;
    if (!sum_to_axes(&x, &target, &mask))
        return hk_eval_fail(e, HK_STATUS_INVALID, "the input's shape is no broadcast of attribute 'shape'");
    return eval_reduction(e, mask, &target);
}

static hk_status sum_to_lower(hk_lower *l)
{
    hk_shape target = sum_to_shape(l->node);
    uint32_t mask = 0;
    (void)sum_to_axes(&l->node->in[0]->shape, &target, &mask);
    return lower_reduction(l, mask);
}

static hk_status sum_to_backward(hk_gradient *g, hk_node *n)
{
    rule r;
    if (!hk_gradient_of(g, n->out[0]) || !hk_gradient_wanted(g, n->in[0]))
        return HK_OK;
    HK_TRY(start_rule(g, n, &r));
    hk_shape target = sum_to_shape(n);
    (void)sum_to_axes(&r.x->shape, &target, &r.mask);
    return finish_rule(&r);
}

/* ---- ArgMax, ArgMin */

typedef struct arg_attrs {
    int64_t axis, keepdims, select_last_index;
} arg_attrs;
static const hk_attr arg_attr_old[] = {HK_INT_ATTR(arg_attrs, axis, 0), HK_INT_ATTR(arg_attrs, keepdims, 1), {0}};
static const hk_attr arg_attr_list[] = {HK_INT_ATTR(arg_attrs, axis, 0),
                                        HK_INT_ATTR(arg_attrs, keepdims, 1),
                                        HK_INT_ATTR(arg_attrs, select_last_index, 0),
                                        {0}};

static hk_status arg_infer(hk_infer *in)
{
    const arg_attrs *a = in->node->attrs;
    const hk_value *x = in->node->in[0];
    hk_shape_text text;
    if (x->dtype == HK_BOOL)
        return hk_infer_fail(in, HK_STATUS_INVALID, "input '%s' is bool, expected a number type", x->name);
    if (x->shape.rank < 0)
        return hk_infer_output(in, 0, HK_INT64, &HK_SHAPE_UNKNOWN);
    /* A scalar has one element and no axis; PyTorch exports argmax of it with axis 0 or -1. */
    int32_t axis = x->shape.rank == 0 && (a->axis == 0 || a->axis == -1) ? 0 : hk_axis(a->axis, x->shape.rank);
    if (axis < 0)
        return hk_infer_fail(in, HK_STATUS_INVALID, "axis %lld is outside [-%d, %d) of shape %s", (long long)a->axis,
                             (int)x->shape.rank, (int)x->shape.rank, hk_shape_print(&x->shape, &text));
    if (x->shape.rank && x->shape.dim[axis] == 0)
        return hk_infer_fail(in, HK_STATUS_INVALID, "axis %d of shape %s is empty: it has no largest or least element",
                             (int)axis, hk_shape_print(&x->shape, &text));
    hk_shape y = reduced_shape(&x->shape, 1u << axis, a->keepdims != 0);
    return hk_infer_output(in, 0, HK_INT64, &y);
}

/* x as [outer][extent][inner] around the axis. */
typedef struct axis_view {
    int64_t outer, extent, inner;
    int32_t axis;
} axis_view;

static axis_view view_axis(const hk_shape *x, int64_t axis)
{
    int32_t d = x->rank ? hk_axis(axis, x->rank) : 0;
    return (axis_view){.outer = hk_shape_span(x, 0, d),
                       .extent = x->rank ? x->dim[d] : 1,
                       .inner = hk_shape_span(x, d + 1, x->rank),
                       .axis = d};
}

static bool wins(const hk_tensor *x, int64_t candidate, int64_t best, bool least, bool last)
{
    if (hk_dtype_is_float(x->dtype)) {
        double c = hk_get_double(x, candidate), b = hk_get_double(x, best);
        if (isnan(b) || isnan(c))
            return isnan(c) && (last || !isnan(b));
        return c == b ? last : (least ? c < b : c > b);
    }
    int64_t c = hk_get_int(x, candidate), b = hk_get_int(x, best);
    bool below = x->dtype == HK_UINT64 ? (uint64_t)c < (uint64_t)b : c < b;
    return c == b ? last : below == least;
}

static hk_status arg_eval(hk_eval *e)
{
    const arg_attrs *a = e->node->attrs;
    const hk_tensor *x = e->in[0];
    bool least = !strcmp(e->node->op->type, "ArgMin");
    hk_shape shape = hk_tensor_shape(x);
    axis_view v = view_axis(&shape, a->axis);
    hk_shape y_shape = reduced_shape(&shape, 1u << v.axis, a->keepdims != 0);
    hk_tensor *y = hk_eval_output(e, 0, HK_INT64, &y_shape);
    if (!y)
        return hk_out_of_memory(e->ctx, "ArgMax output");
    for (int64_t o = 0; o < v.outer; o++)
        for (int64_t i = 0; i < v.inner; i++) {
            int64_t first = o * v.extent * v.inner + i, best = 0;
            for (int64_t j = 1; j < v.extent; j++)
                if (wins(x, first + j * v.inner, first + best * v.inner, least, a->select_last_index != 0))
                    best = j;
            hk_set_int(y, o * v.inner + i, best);
        }
    return HK_OK;
}

/* Numbers of shaders/reduce_arg.comp; -1: no kernel. */
static int arg_type(hk_dtype t)
{
    switch (t) {
    case HK_FLOAT32: return 0;
    case HK_INT8:
    case HK_INT16:
    case HK_INT32: return 1;
    case HK_UINT8:
    case HK_UINT16:
    case HK_UINT32: return 2;
    case HK_INT64: return 3;
    case HK_UINT64: return 4;
    default: return -1;
    }
}

static hk_status arg_lower(hk_lower *l)
{
    const hk_node *n = l->node;
    const arg_attrs *a = n->attrs;
    int type = arg_type(hk_value_storage(n->in[0]));
    if (type < 0)
        return hk_fail(l->ctx, HK_STATUS_UNSUPPORTED, "node '%s' (%s): no kernel for element type %s of '%s'", n->name,
                       n->type, hk_dtype_name(hk_value_storage(n->in[0])), n->in[0]->name);
    axis_view v = view_axis(&n->in[0]->shape, a->axis);
    int64_t outputs = v.outer * v.inner;
    if (outputs == 0)
        return HK_OK;
    hk_team team = v.inner > 1 ? hk_team_columns(l, outputs, v.extent) : hk_team_rows(l, outputs, v.extent);
    struct reduce_arg_push push = {
        .outputs = (uint32_t)outputs, .extent = (uint32_t)v.extent, .inner = (uint32_t)v.inner};
    hk_record *r = hk_team_emit(l, &team, (hk_team_kernel){&hk_kernel_reduce_arg, NULL}, "argmax", outputs, &push,
                                sizeof push);
    hk_spec(r, HK_TEAM_SPEC, (uint32_t)type);
    hk_spec(r, HK_TEAM_SPEC + 1, !strcmp(n->op->type, "ArgMin"));
    hk_spec(r, HK_TEAM_SPEC + 2, a->select_last_index != 0);
    hk_use(r, n->in[0], HK_READ, offsetof(struct reduce_arg_push, x));
    hk_use(r, n->out[0], HK_WRITE, offsetof(struct reduce_arg_push, y));
    return HK_OK;
}

/* ---- the table */

#define CASES(name, ...) static const char *const name[] = {__VA_ARGS__, NULL}

CASES(sum_old_cases, "f32[3,4,5];axes=[0,2];opset=11", "f32[7];;opset=11", "f32[2,3];axes=[-1] keepdims=0;opset=11");
CASES(sum_cases, "f32[3,4,5] i64={1}", "f32[7,33] i64={0};keepdims=0", "f32[2,3,4,5] i64={0,2,3}",
      "f32[2,3,4,5,6] i64={0,2,4}", "f32[2,3,2,3,2,3,2,3] i64={1,3,5,7};keepdims=0",
      "f32[2,3,2,3,2,3,2,3] i64={0,2,4,6}", "f32[]", "f32[4,3];noop_with_empty_axes=1", "f32[1,40000] i64={1}",
      "f32[40000,3] i64={0};;nograd", "f32[5,1024] i64={-1}", "f32[1024,64] i64={0};;nograd", "f32[16,8,64] i64={0,2}",
      "f32[3,0,2] i64={1}", "f32[3,0,2] i64={0};keepdims=0", "i32[5,6]<-9:9 i64={1}", "i64[3,50]<-9:9 i64={1}",
      "i64[50,3]<-9:9 i64={0}", "u32[4,4]<90", "i32[8,64]<-9:9 i64={0}", "f32[530000,2] i64={1};;nograd");
CASES(mean_old_cases, "f32[3,4,5];axes=[0,2];opset=13", "f32[2,3];axes=[1] keepdims=0;opset=13");
CASES(mean_cases, "f32[3,4,5] i64={1}", "f32[2,3,7,7] i64={2,3};keepdims=0", "f32[9]", "f32[]",
      "i32[3,5]<-50:50 i64={1}", "i64[3,5]<-50:50 i64={1}", "f32[4,3];noop_with_empty_axes=1",
      "f32[2,6,16,16] i64={2,3}", "f32[128,260] i64={-1};;nograd");
CASES(max_old_cases, "f32[3,4,5];axes=[0,2];opset=13", "f32[2,3];axes=[1] keepdims=0;opset=13");
CASES(max_cases, "f32[3,4,5] i64={1}", "f32[7,65];keepdims=0", "f32[5]", "i32[4,6]<-9:9 i64={0}",
      "i64[4,60]<-9:9 i64={1}", "u8[4,6]<200 i64={1}", "i8[4,6]<-90:90 i64={1}", "bool[4,3] i64={1}",
      "f32[3,0] i64={1};;nograd", "f32[2,20000] i64={1}");
CASES(prod_old_cases, "f32[3,4]+;axes=[1];opset=13");
CASES(prod_cases, "f32[3,4]+ i64={1}", "f32[2,3,4]+ i64={0,2};keepdims=0", "f32[6]", "i32[3,4]<1:4 i64={1}",
      "i64[3,7]<-3:3 i64={0}");
CASES(norm_old_cases, "f32[3,4];axes=[1];opset=13", "f32[3,4];keepdims=0;opset=13");
CASES(norm_cases, "f32[3,4] i64={1}", "f32[2,3,40] i64={0,2};keepdims=0", "f32[6]", "f32[2,3];noop_with_empty_axes=1",
      "f32[33,8] i64={0}");
CASES(l1_cases, "f32[3,4] i64={1}", "f32[2,3,40] i64={0,2};keepdims=0", "i32[3,7]<-9:9 i64={1}",
      "i64[3,7]<-9:9 i64={1}");
CASES(square_cases, "f32[3,4] i64={1}", "f32[2,3,40] i64={0,2};keepdims=0", "i32[3,7]<-9:9 i64={1}",
      "i64[3,7]<-9:9 i64={1}");
CASES(log_old_cases, "f32[3,4]+;axes=[1];opset=13", "f32[3,4]+;keepdims=0;opset=13");
CASES(log_cases, "f32[3,4]+ i64={1}", "f32[2,3,40]+ i64={0,2};keepdims=0", "f32[6]+", "f32[33,8]+ i64={0}");
CASES(lse_cases, "f32[3,4] i64={1}", "f32[2,3,40] i64={0,2};keepdims=0", "f32[6]", "f32[33,8] i64={0}",
      "f32[1,30000] i64={1}");
CASES(sum_to_cases, "f32[3,4,5];shape=[4,1]", "f32[3,4];shape=[3,4]", "f32[3,4];shape=[]", "f32[6,5,4,3];shape=[5,1,3]",
      "f32[64,16,12,12];shape=[16,1,1];nograd", "f32[300,128];shape=[128];nograd");
CASES(arg_old_cases, "f32[3,4];axis=1;opset=11", "f32[3,4];keepdims=0;opset=11");
CASES(arg_cases, "f32[3,4];axis=1", "f32[5,6,7];axis=-2 keepdims=0", "i32[4,9]<3;axis=1",
      "i32[4,9]<3;axis=1 select_last_index=1", "i64[9,40]<-5:5;axis=0", "u8[3,300]<200;axis=1", "f32[2,3000];axis=-1",
      "f32[70,33];axis=0 select_last_index=1", "f32[]");

#define REDUCE(name, first_input, old_cases, cases_)                                                                   \
    {.type = name,                                                                                                     \
     .since = 1,                                                                                                       \
     .until = (first_input)-1,                                                                                         \
     .in_min = 1,                                                                                                      \
     .in_max = 1,                                                                                                      \
     .out_min = 1,                                                                                                     \
     .out_max = 1,                                                                                                     \
     .attrs_bytes = sizeof(reduce_attrs),                                                                              \
     .attrs = reduce_attr_list,                                                                                        \
     .infer = reduce_infer,                                                                                            \
     .eval = reduce_eval,                                                                                              \
     .lower = reduce_lower,                                                                                            \
     .backward = reduce_backward,                                                                                      \
     .cases = old_cases},                                                                                              \
    {                                                                                                                  \
        .type = name, .since = first_input, .in_min = 1, .in_max = 2, .out_min = 1, .out_max = 1, .host_inputs = 2,    \
        .attrs_bytes = sizeof(reduce_attrs), .attrs = reduce_attr_input, .infer = reduce_infer, .eval = reduce_eval,   \
        .lower = reduce_lower, .backward = reduce_backward, .cases = cases_                                            \
    }
#define ARG(name)                                                                                                      \
    {.type = name,                                                                                                     \
     .since = 1,                                                                                                       \
     .until = 11,                                                                                                      \
     .in_min = 1,                                                                                                      \
     .in_max = 1,                                                                                                      \
     .out_min = 1,                                                                                                     \
     .out_max = 1,                                                                                                     \
     .attrs_bytes = sizeof(arg_attrs),                                                                                 \
     .attrs = arg_attr_old,                                                                                            \
     .infer = arg_infer,                                                                                               \
     .eval = arg_eval,                                                                                                 \
     .lower = arg_lower,                                                                                               \
     .cases = arg_old_cases},                                                                                          \
    {                                                                                                                  \
        .type = name, .since = 12, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1,                               \
        .attrs_bytes = sizeof(arg_attrs), .attrs = arg_attr_list, .infer = arg_infer, .eval = arg_eval,                \
        .lower = arg_lower, .cases = arg_cases                                                                         \
    }

const hk_op hk_ops_reduce[] = {
    REDUCE("ReduceSum", 13, sum_old_cases, sum_cases),
    REDUCE("ReduceMean", 18, mean_old_cases, mean_cases),
    REDUCE("ReduceMax", 18, max_old_cases, max_cases),
    REDUCE("ReduceMin", 18, max_old_cases, max_cases),
    REDUCE("ReduceProd", 18, prod_old_cases, prod_cases),
    REDUCE("ReduceL1", 18, norm_old_cases, l1_cases),
    REDUCE("ReduceL2", 18, norm_old_cases, norm_cases),
    REDUCE("ReduceSumSquare", 18, norm_old_cases, square_cases),
    REDUCE("ReduceLogSum", 18, log_old_cases, log_cases),
    REDUCE("ReduceLogSumExp", 18, norm_old_cases, lse_cases),
    {.type = "hk.SumTo",
     .since = 1,
     .in_min = 1,
     .in_max = 1,
     .out_min = 1,
     .out_max = 1,
     .attrs_bytes = sizeof(sum_to_attrs),
     .attrs = sum_to_attr_list,
     .infer = sum_to_infer,
     .eval = sum_to_eval,
     .lower = sum_to_lower,
     .backward = sum_to_backward,
     .cases = sum_to_cases},
    ARG("ArgMax"),
    ARG("ArgMin"),
    {0},
};
