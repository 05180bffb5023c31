/* TopK: the k largest or smallest elements along an axis, best first; of equal elements the lower index first. NaN
 * counts as the largest number, as in PyTorch. Also Hardmax, which marks the first of the largest. */
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"
#include "ops/support/build.h"
#include "ops/support/move_args.h"
#include "ops/support/reduce.h"
#include "shaders/topk.push.h"

typedef struct topk_attrs {
    int64_t axis, k, largest, sorted;
} topk_attrs;
static const hk_attr attrs_1[] = {
    HK_INT_ATTR(topk_attrs, axis, -1),
    {.name = "k", .kind = HK_ATTR_INT, .offset = offsetof(topk_attrs, k), .required = true},
    {0},
};
static const hk_attr attrs_10[] = {HK_INT_ATTR(topk_attrs, axis, -1), {0}};
static const hk_attr attrs_11[] = {
    HK_INT_ATTR(topk_attrs, axis, -1), HK_INT_ATTR(topk_attrs, largest, 1), HK_INT_ATTR(topk_attrs, sorted, 1), {0}};

static bool wants_least(const hk_node *n)
{
    return n->op->attrs == attrs_11 && !((const topk_attrs *)n->attrs)->largest;
}

/* *k is -1 while unknown, *axis while the rank is. */
static hk_status read_k(const hk_args *a, int32_t *axis, int64_t *k)
{
    const topk_attrs *t = a->node->attrs;
    hk_shape x = hk_args_shape(a, 0);
    int32_t count = 1;
    *k = t->k;
    if (a->node->op->attrs != attrs_1) {
        HK_TRY(hk_args_ints(a, 1, "k", k, 1, &count));
        if (count == 0)
            return hk_args_fail(a, "k is an empty list, expected one element");
        *k = count < 0 ? -1 : *k;
    }
    *axis = -1;
    if (x.rank >= 0)
        HK_TRY(hk_args_axis(a, t->axis, x.rank, axis));
    if (count >= 0 && *k < 0)
        return hk_args_fail(a, "k is %lld, expected 0 or more", (long long)*k);
    if (*axis >= 0 && x.dim[*axis] >= 0 && *k > x.dim[*axis])
        return hk_args_fail(a, "k is %lld, but the axis has %lld elements", (long long)*k, (long long)x.dim[*axis]);
    return HK_OK;
}

static hk_status infer(hk_infer *in)
{
    const hk_value *x = in->node->in[0];
    hk_args a = hk_infer_args(in);
    hk_shape y = x->shape;
    int32_t axis = -1;
    int64_t k = 0;
    HK_TRY(read_k(&a, &axis, &k));
    if (axis >= 0)
        y.dim[axis] = k;
    HK_TRY(hk_infer_output(in, 0, x->dtype, &y));
    return hk_infer_output(in, 1, HK_INT64, &y);
}

/* ---- host */

typedef struct entry {
    uint64_t key; /* in the order asked for, the best the largest */
    int64_t index;
} entry;

static uint64_t key_of(const hk_tensor *x, int64_t i, bool least)
{
    const uint64_t sign = UINT64_C(1) << 63;
    uint64_t key;
    if (hk_dtype_is_float(x->dtype)) {
        double d = hk_get_double(x, i) + 0.0; /* -0 equals 0 */
        memcpy(&key, &d, sizeof key);
        key = isnan(d) ? UINT64_MAX : key & sign ? ~key : key | sign;
    } else {
        key = (uint64_t)hk_get_int(x, i) ^ (x->dtype == HK_UINT64 ? 0 : sign);
    }
    return least ? ~key : key;
}

static int compare_entries(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    if (x->key != y->key)
        return x->key > y->key ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

static hk_status eval(hk_eval *e)
{
    const hk_tensor *x = e->in[0];
    hk_args a = hk_eval_args(e);
    hk_shape s = hk_tensor_shape(x), shape = s;
    int32_t axis;
    int64_t k;
    HK_TRY(read_k(&a, &axis, &k));
    shape.dim[axis] = k;
    hk_tensor *values = hk_eval_output(e, 0, x->dtype, &shape), *indices = hk_eval_output(e, 1, HK_INT64, &shape);
    int64_t extent = s.dim[axis], inner = hk_shape_span(&s, axis + 1, s.rank), outer = hk_shape_span(&s, 0, axis);
    entry *row = hk_arena_array(e->arena, (size_t)extent + 1, sizeof *row);
    if ((hk_out(e->node, 0) && !values) || (hk_out(e->node, 1) && !indices) || !row)
        return hk_out_of_memory(e->ctx, "the largest elements");
    size_t bytes = hk_dtype_bytes(x->dtype);
    for (int64_t r = 0; r < outer * inner; r++) {
        int64_t from = r / inner * extent * inner + r % inner, to = r / inner * k * inner + r % inner;
        for (int64_t i = 0; i < extent; i++)
            row[i] = (entry){key_of(x, from + i * inner, wants_least(e->node)), i};
        qsort(row, (size_t)extent, sizeof *row, compare_entries);
        for (int64_t i = 0; i < k; i++) {
            if (values)
                memcpy((char *)values->data + (size_t)(to + i * inner) * bytes,
                       (const char *)x->data + (size_t)(from + row[i].index * inner) * bytes, bytes);
            if (indices)
                hk_set_int(indices, to + i * inner, row[i].index);
        }
    }
    return HK_OK;
}

/* ---- device: groups of up to TILE elements are sorted in shared memory and cut to k; then groups of what is left, as
 * long as two fit a group, else merged in pairs, until one run per row is left. */

enum { TILE = 1024 };

/* Numbers of shaders/topk.glsl; -1: no kernel. */
static int topk_type(hk_dtype t)
{
    switch (t) {
    case HK_FLOAT32: return 0;
    case HK_INT8:
    case HK_INT16:
    case HK_INT32:
    case HK_INT64: return 1;
    case HK_UINT8:
    case HK_UINT16:
    case HK_UINT32:
    case HK_UINT64: return 2;
    default: return -1;
    }
}

typedef struct selection {
    struct topk_push push;
    hk_value *from; /* candidates; NULL: x */
    bool wide;
} selection;

static uint32_t power_above(uint32_t n)
{
    uint32_t p = 2;
    while (p < n)
        p *= 2;
    return p;
}

static hk_value *candidates(hk_lower *l, const selection *s, uint32_t runs)
{
    return hk_scratch(l, HK_UINT32, (int64_t)s->push.rows * runs * s->push.kept * (s->wide ? 4 : 2));
}

/* to: NULL in the last dispatch. */
static void use_operands(const hk_lower *l, hk_record *r, const selection *s, hk_value *to)
{
    const hk_node *n = l->node;
    hk_use(r, !s->from || !to ? n->in[0] : NULL, HK_READ, offsetof(struct topk_push, x));
    hk_use(r, s->from, HK_READ, offsetof(struct topk_push, from));
    hk_use(r, to, HK_READ_WRITE, offsetof(struct topk_push, to));
    hk_use(r, to ? NULL : hk_out(n, 0), HK_WRITE, offsetof(struct topk_push, values));
    hk_use(r, to ? NULL : hk_out(n, 1), HK_WRITE, offsetof(struct topk_push, indices));
}

/* Sorts groups of span elements, of which count are in a row, and keeps kept. */
static void emit_sort(hk_lower *l, selection *s, hk_value *to)
{
    const hk_node *n = l->node;
    uint32_t sort = power_above(HK_MIN(s->push.span, s->push.count)), items = HK_MAX(256 / sort, 1u);
    uint64_t groups = (uint64_t)s->push.rows * s->push.runs;
    hk_record *r = hk_emit(l, s->wide ? &hk_kernel_topk_sort_wide : &hk_kernel_topk_sort,
                           s->from ? "topk sort candidates" : "topk sort");
    hk_workgroup(r, HK_MIN(HK_MIN(l->device->max_invocations, 256u), sort * items / 2), 1, 1);
    hk_spec(r, 3, sort);
    hk_spec(r, 4, items);
    hk_spec(r, 5, (uint32_t)topk_type(hk_value_storage(n->in[0])));
    hk_spec(r, 6, wants_least(n));
    hk_spec(r, 7, !s->from);
    hk_spec(r, 8, !to);
    hk_push(r, &s->push, sizeof s->push);
    hk_grid_1d(l, r, (groups + items - 1) / items);
    use_operands(l, r, s, to);
}

/* The same without barriers; in the last dispatch too it works on candidates of its own. */
static void emit_insert(hk_lower *l, selection *s, hk_value *to)
{
    const hk_node *n = l->node;
    uint32_t threads = 8;
    uint64_t groups = (uint64_t)s->push.rows * s->push.runs;
    hk_value *work = to ? to : candidates(l, s, s->push.runs);
    hk_record *r = hk_emit(l, s->wide ? &hk_kernel_topk_insert_wide : &hk_kernel_topk_insert, "topk insert");
    hk_workgroup(r, threads, 1, 1);
    hk_spec(r, 3, (uint32_t)topk_type(hk_value_storage(n->in[0])));
    hk_spec(r, 4, wants_least(n));
    hk_spec(r, 5, !s->from);
    hk_spec(r, 6, !to);
    hk_push(r, &s->push, sizeof s->push);
    hk_grid_1d(l, r, (groups + threads - 1) / threads);
    use_operands(l, r, s, to);
    if (!to)
        hk_use(r, work, HK_READ_WRITE, offsetof(struct topk_push, to));
}

static void emit_merge(hk_lower *l, selection *s, hk_value *to)
{
    hk_record *r = hk_emit(l, s->wide ? &hk_kernel_topk_merge_wide : &hk_kernel_topk_merge, "topk merge");
    uint32_t threads = l->cpu ? 64 : 128;
    uint64_t work = (uint64_t)s->push.rows * s->push.runs * s->push.span;
    hk_workgroup(r, threads, 1, 1);
    hk_spec(r, 3, !to);
    hk_push(r, &s->push, sizeof s->push);
    hk_grid_1d(l, r, (work + threads - 1) / threads);
    use_operands(l, r, s, to);
}

static void select_rows(hk_lower *l, selection *s)
{
    struct topk_push *p = &s->push;
    p->count = p->extent;
    p->span = TILE;
    p->runs = (p->extent + TILE - 1) / TILE;
    for (;;) {
        bool merge = s->from && p->span > TILE; /* two runs do not fit a group */
        uint32_t left = merge ? (p->runs + 1) / 2 : p->runs;
        if (merge)
            p->span = p->count / p->runs;
        p->kept = HK_MIN(p->k, merge ? 2 * p->span : p->span);
        hk_value *to = left > 1 ? candidates(l, s, left) : NULL;
        if (left > 1 && !to)
            return;
        if (merge)
            emit_merge(l, s, to);
        else if (l->cpu)
            emit_insert(l, s, to);
        else
            emit_sort(l, s, to);
        if (!to)
            return;
        s->from = to;
        p->count = left * p->kept;
        uint32_t fan = HK_MAX(TILE / p->kept, 1u);
        p->span = fan > 1 ? fan * p->kept : 2 * TILE;
        p->runs = fan > 1 ? (left + fan - 1) / fan : left;
    }
}

static hk_status lower(hk_lower *l)
{
    const hk_node *n = l->node;
    const hk_shape *x = &n->in[0]->shape;
    hk_args a = hk_node_args(l->ctx, n);
    int32_t axis;
    int64_t k;
    HK_TRY(read_k(&a, &axis, &k));
    if (topk_type(hk_value_storage(n->in[0])) < 0)
        return hk_fail(l->ctx, HK_STATUS_UNSUPPORTED, "node '%s' (%s): no kernel for element type %s of '%s'", n->name,
                       n->type, hk_dtype_name(hk_value_storage(n->in[0])), n->in[0]->name);
    int64_t inner = hk_shape_span(x, axis + 1, x->rank), rows = hk_shape_span(x, 0, axis) * inner;
    if (rows * k == 0)
        return HK_OK;
    selection s = {
        .wide = hk_dtype_device_bytes(hk_value_storage(n->in[0])) == 8,
        .push = {.rows = (uint32_t)rows, .extent = (uint32_t)x->dim[axis], .inner = (uint32_t)inner, .k = (uint32_t)k}};
    select_rows(l, &s);
    return HK_OK;
}

static hk_status backward(hk_gradient *g, hk_node *n)
{
    const topk_attrs *t = n->attrs;
    hk_value *x = n->in[0], *dy = hk_gradient_of(g, n->out[0]), *dx;
    if (!dy || !hk_gradient_wanted(g, x))
        return HK_OK;
    if (!hk_node_want_outputs(n, 2))
        return HK_STATUS_OUT_OF_MEMORY;
    HK_TRY(hk_node_infer(hk_gradient_graph(g), n));
    const hk_attr_value attrs[] = {HK_SET_INT("axis", t->axis), HK_SET_INTS("shape", x->shape.dim, x->shape.rank), {0}};
    HK_TRY(hk_build(hk_gradient_graph(g), "hk.GatherElementsGrad", attrs, (hk_value *[]){dy, n->out[1]}, 2, &dx, 1));
    return hk_gradient_add(g, x, dx);
}

/* ---- Hardmax: 1 at the first of the largest elements, 0 elsewhere; before opset 13 of the tensor as a matrix */

typedef struct hardmax_attrs {
    int64_t axis;
} hardmax_attrs;
static const hk_attr hardmax_old[] = {HK_INT_ATTR(hardmax_attrs, axis, 1), {0}};
static const hk_attr hardmax_list[] = {HK_INT_ATTR(hardmax_attrs, axis, -1), {0}};

static hk_status hardmax_infer(hk_infer *in)
{
    const hk_value *x = in->node->in[0];
    int64_t axis = ((const hardmax_attrs *)in->node->attrs)->axis;
    if (x->shape.rank >= 0 && hk_axis(axis, x->shape.rank) < 0)
        return hk_infer_fail(in, HK_STATUS_INVALID, "axis %lld, expected %d to %d", (long long)axis,
                             -(int)x->shape.rank, (int)x->shape.rank - 1);
    return hk_infer_output(in, 0, x->dtype, &x->shape);
}

/* [outer][extent][inner] */
static void hardmax_view(const hk_node *n, const hk_shape *s, int64_t view[3])
{
    int32_t axis = hk_axis(((const hardmax_attrs *)n->attrs)->axis, s->rank);
    bool flat = n->op->attrs == hardmax_old;
    view[0] = hk_shape_span(s, 0, axis);
    view[1] = flat ? hk_shape_span(s, axis, s->rank) : s->dim[axis];
    view[2] = flat ? 1 : hk_shape_span(s, axis + 1, s->rank);
}

static hk_status hardmax_eval(hk_eval *e)
{
    const hk_tensor *x = e->in[0];
    hk_shape s = hk_tensor_shape(x);
    int64_t v[3];
    hk_tensor *y = hk_eval_output(e, 0, x->dtype, &s);
    if (!y)
        return hk_out_of_memory(e->ctx, "a Hardmax");
    hardmax_view(e->node, &s, v);
    for (int64_t r = 0; v[1] && r < v[0] * v[2]; r++) {
        int64_t base = r / v[2] * v[1] * v[2] + r % v[2], best = base;
        for (int64_t i = 1; i < v[1]; i++)
            if (key_of(x, base + i * v[2], false) > key_of(x, best, false))
                best = base + i * v[2];
        hk_set_double(y, best, 1.0);
    }
    return HK_OK;
}

static hk_status hardmax_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    hk_value *x = n->in[0], *index, *y;
    const hk_shape shape = x->shape;
    int64_t v[3];
    hardmax_view(n, &shape, v);
    const hk_attr_value axis[] = {HK_SET_INT("axis", 1), {0}};
    const hk_attr_value arg[] = {HK_SET_INT("axis", 1), HK_SET_INT("keepdims", 0), {0}};
    hk_tensor *ends = hk_tensor_new(g->arena, x->dtype, &(hk_shape){.rank = 1, .dim = {2}});
    hk_value *depth = hk_graph_scalar(g, HK_INT64, (double)v[1]), *off_on = NULL;
    if (ends) {
        hk_set_double(ends, 1, 1.0);
        off_on = hk_graph_constant(g, "off_on", ends);
    }
    if (!depth || !off_on)
        return hk_out_of_memory(g->ctx, "a Hardmax");
    if (hk_shape_count(&shape) == 0)
        return hk_build_reshape(g, x, &shape, out);
    HK_TRY(hk_build_reshape(g, x, &(hk_shape){.rank = 3, .dim = {v[0], v[1], v[2]}}, &x));
    HK_TRY(hk_build(g, "ArgMax", arg, &x, 1, &index, 1));
    HK_TRY(hk_build(g, "OneHot", axis, (hk_value *[]){index, depth, off_on}, 3, &y, 1));
    return hk_build_reshape(g, y, &shape, out);
}

/* ---- the table */

#define CASES(name, ...) static const char *const name[] = {__VA_ARGS__, NULL}

CASES(cases_1, "f32[3,7] ; k=3 ; out=2 opset=9", "f32[4,5,2] ; k=2 axis=1 ; out=2 opset=1");
CASES(cases_10, "f32[3,7] i64={3} ; ; out=2 opset=10", "f32[4,5,2] i64={3} ; axis=0 ; out=2 opset=10");
CASES(cases_11, "f16[3,7] i64={3} ;; out=2 nograd", "f64[3,7] i64={3} ;; out=2 nograd", "f32[3,7] i64={3} ;; out=2",
      "f32[3,7] i64={3} ; largest=0 ; out=2", "f32[4,5,2] i64={2} ; axis=1 sorted=0 ; out=2",
      "f32[9] i64={9} ; axis=0 largest=0 ; out=2", "f32[3,4] i64={0} ;; out=2 nograd",
      "f32[0,4] i64={2} ;; out=2 nograd", "i32[5,40]<-4:4 i64={11} ;; out=2", "u8[5,40]<9 i64={40} ; largest=0 ; out=2",
      "i64[3,300]<-9:9 i64={7} ;; out=2", "i64[2,3000]<-2000:2000 i64={1500} ; largest=0 ; out=2",
      "f32[300,1000] i64={5} ;; out=2 nograd", "f32[2,1025] i64={1} ;; out=2 nograd",
      "f32[1,40000] i64={10} ;; out=2 nograd", "f32[2,9000] i64={700} ; largest=0 ; out=2 nograd",
      "f32[3,5000,2] i64={3000} ; axis=1 ; out=2 nograd", "f32[7001] i64={7001} ;; out=2 nograd",
      "f32[2,6]={1,1,2,2,0,0,3,3,3,3,3,3} i64={4} ;; out=2 nograd");
CASES(hardmax_old_cases, "f32[3,4,5] ;; opset=12 nograd", "f32[3,4,5] ; axis=2 ; opset=11 nograd");
CASES(hardmax_cases, "f16[3,5] ;; nograd", "f32[3,5] ;; nograd", "f32[3,4,5] ; axis=1 ; nograd",
      "f32[2,4]={1,3,3,0,2,2,2,2} ; axis=-1 ; nograd", "f32[0,3] ;; nograd", "f32[6] ; axis=0 ; nograd");

#define TOPK(first, last, ins, host, list, case_list)                                                                  \
    {                                                                                                                  \
        .type = "TopK", .since = first, .until = last, .in_min = ins, .in_max = ins, .out_min = 1, .out_max = 2,       \
        .host_inputs = host, .attrs_bytes = sizeof(topk_attrs), .attrs = list, .infer = infer, .eval = eval,           \
        .lower = lower, .backward = backward, .cases = case_list                                                       \
    }
#define HARDMAX(first, last, list, case_list)                                                                          \
    {                                                                                                                  \
        .type = "Hardmax", .since = first, .until = last, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1,        \
        .attrs_bytes = sizeof(hardmax_attrs), .attrs = list, .infer = hardmax_infer, .eval = hardmax_eval,             \
        .expand = hardmax_expand, .cases = case_list                                                                   \
    }

const hk_op hk_ops_topk[] = {
    TOPK(1, 9, 1, 0, attrs_1, cases_1),          TOPK(10, 10, 2, 2, attrs_10, cases_10),
    TOPK(11, 0, 2, 2, attrs_11, cases_11),       HARDMAX(1, 12, hardmax_old, hardmax_old_cases),
    HARDMAX(13, 0, hardmax_list, hardmax_cases), {0},
};
