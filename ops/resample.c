/*
 * hk.Resample(X) -> Y: separable resampling along up to three neighbouring axes by tables (support/resample.h); its
 * gradient is itself with the tables transposed. Resize becomes one or more of these.
 */
#include <string.h>

#include "kernels.h"
#include "ops/divisor.h"
#include "ops/support/conv_geometry.h"
#include "ops/support/move.h"
#include "ops/support/reduce.h"
#include "ops/support/resample.h"
#include "shaders/resample.push.h"

enum { AXES = 3, MOST_TAPS_ALONG = 4 };

typedef struct resample_attrs {
    int64_t axis;
    const hk_tensor *index[AXES], *weight[AXES]; /* of dimension axis + i; [outputs, taps]; NULL: it stays */
    float outside;
} resample_attrs;

#define TABLE_ATTR(i)                                                                                                  \
    {.name = "index" #i, .kind = HK_ATTR_TENSOR, .offset = offsetof(resample_attrs, index[i])},                        \
    {                                                                                                                  \
        .name = "weight" #i, .kind = HK_ATTR_TENSOR, .offset = offsetof(resample_attrs, weight[i])                     \
    }
static const hk_attr attr_list[] = {HK_INT_ATTR(resample_attrs, axis, 0),
                                    HK_FLOAT_ATTR(resample_attrs, outside, 0.0),
                                    TABLE_ATTR(0),
                                    TABLE_ATTR(1),
                                    TABLE_ATTR(2),
                                    {0}};

static hk_taps taps_of(const resample_attrs *a, int32_t i, int64_t in)
{
    return (hk_taps){.in = in,
                     .out = a->index[i]->shape[0],
                     .count = (int32_t)a->index[i]->shape[1],
                     .index = a->index[i]->data,
                     .weight = a->weight[i]->data};
}

static bool table_fits(const hk_tensor *index, const hk_tensor *weight, int64_t in)
{
    if (!weight || index->rank != 2 || weight->rank != 2 || index->dtype != HK_INT32 || weight->dtype != HK_FLOAT64 ||
        index->shape[0] != weight->shape[0] || index->shape[1] != weight->shape[1] || index->shape[1] < 1)
        return false;
    const int32_t *v = index->data;
    for (int64_t k = 0; k < hk_tensor_count(index); k++)
        if (v[k] < -1 || (in >= 0 && v[k] >= in))
            return false;
    return true;
}

static hk_status resample_infer(hk_infer *in)
{
    const resample_attrs *a = in->node->attrs;
    const hk_value *x = in->node->in[0];
    hk_shape y = x->shape;
    if (!hk_dtype_is_float(x->dtype))
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected a float input, found %s", hk_dtype_name(x->dtype));
    for (int32_t i = 0; i < AXES && y.rank >= 0; i++) {
        if (!a->index[i])
            continue;
        if (a->axis < 0 || a->axis + i >= y.rank || !table_fits(a->index[i], a->weight[i], x->shape.dim[a->axis + i]))
            return hk_infer_fail(in, HK_STATUS_INVALID,
                                 "expected int32 indices of the input's axis %lld and weights, "
                                 "[outputs, taps] both",
                                 (long long)a->axis + i);
        y.dim[a->axis + i] = a->index[i]->shape[0];
    }
    return hk_infer_output(in, 0, x->dtype, &y);
}

static hk_status resample_eval(hk_eval *e)
{
    const resample_attrs *a = e->node->attrs;
    hk_shape s = hk_tensor_shape(e->in[0]);
    double *v = hk_tensor_doubles(e->arena, e->in[0]);
    for (int32_t i = 0; i < AXES && v; i++) {
        if (!a->index[i])
            continue;
        int32_t axis = (int32_t)a->axis + i;
        hk_taps t = taps_of(a, i, s.dim[axis]);
        v = hk_taps_apply(e->arena, &t, v, &s, axis, (double)a->outside);
    }
    hk_tensor *y = v ? hk_eval_output(e, 0, e->in[0]->dtype, &s) : NULL;
    if (!y)
        return hk_out_of_memory(e->ctx, "a resampled tensor");
    for (int64_t i = 0; i < hk_tensor_count(y); i++)
        hk_set_double(y, i, v[i]);
    return HK_OK;
}

/* ---- the device */

/* The tensor as [outer][d][h][w][inner]; tables missing at the front, so that one axis is w. */
typedef struct view {
    int64_t outer, inner, in[AXES], out[AXES];
    const hk_tensor *index[AXES], *weight[AXES];
} view;

static view view_of(const resample_attrs *a, const hk_shape *x, const hk_shape *y)
{
    view v = {.in = {1, 1, 1}, .out = {1, 1, 1}};
    int32_t axes = 1;
    for (int32_t i = 0; i < AXES; i++)
        axes = a->index[i] ? i + 1 : axes;
    int32_t first = (int32_t)a->axis;
    for (int32_t i = 0; i < axes; i++) {
        int32_t to = AXES - axes + i;
        v.in[to] = x->dim[first + i];
        v.out[to] = y->dim[first + i];
        v.index[to] = a->index[i];
        v.weight[to] = a->weight[i];
    }
    v.outer = hk_shape_span(x, 0, first);
    v.inner = hk_shape_span(x, first + axes, x->rank);
    return v;
}

/* All tables as {index, weight} entries, one behind the other; sets from which entry each begins. */
static bool make_table(hk_lower *l, hk_record *r, const view *v, uint32_t first[AXES], bool *outside)
{
    size_t entries = 0, at = 0;
    for (int32_t i = 0; i < AXES; i++)
        entries += v->index[i] ? (size_t)hk_tensor_count(v->index[i]) : 0;
    uint32_t *words = hk_arena_array(l->arena, 2 * entries + 1, sizeof *words);
    *outside = false;
    if (!words)
        return false;
    for (int32_t i = 0; i < AXES; i++) {
        first[i] = (uint32_t)at;
        for (int64_t k = 0; v->index[i] && k < hk_tensor_count(v->index[i]); k++, at++) {
            float weight = (float)hk_get_double(v->weight[i], k);
            int32_t index = ((const int32_t *)v->index[i]->data)[k];
            memcpy(words + 2 * at, &index, sizeof index);
            memcpy(words + 2 * at + 1, &weight, sizeof weight);
            *outside |= index < 0;
        }
    }
    r->block = words;
    r->block_bytes = (uint32_t)(8 * entries);
    r->block_offset = offsetof(struct resample_push, table);
    return true;
}

static uint32_t tap_count(const view *v, int32_t i)
{
    return v->index[i] ? (uint32_t)v->index[i]->shape[1] : 0;
}

enum { MODE_ONE, MODE_INNER, MODE_ALONG };

/* Planes that an invocation makes: as many as leave the device full. */
static uint32_t planes_of(const hk_lower *l, int64_t outer, int64_t invocations)
{
    uint32_t planes = 4;
    while (planes > 1 && (outer % planes || (!l->cpu && invocations / planes < 1024 * (int64_t)l->compute_units_hint)))
        planes /= 2;
    return planes;
}

static hk_status resample_lower(hk_lower *l)
{
    const resample_attrs *a = l->node->attrs;
    hk_value *x = l->node->in[0], *y = l->node->out[0];
    const view v = view_of(a, &x->shape, &y->shape);
    int64_t count = hk_shape_count(&y->shape);
    uint32_t first[AXES] = {0}, mode = MODE_ONE, planes = 1;
    bool outside;
    HK_TRY(hk_require_float32(l, x));
    if (count == 0)
        return HK_OK;
    if (v.inner % 4 == 0 && hk_value_alignment(x) == 16 && hk_value_alignment(y) == 16)
        mode = MODE_INNER;
    else if (v.inner == 1 && v.out[2] % 4 == 0 && hk_value_alignment(y) == 16 && tap_count(&v, 2) <= MOST_TAPS_ALONG)
        mode = MODE_ALONG;
    if (mode == MODE_ALONG)
        planes = planes_of(l, v.outer, count / 4);
    int64_t units = count / (mode == MODE_ONE ? 1 : 4 * (int64_t)planes), inner = mode ? v.inner / 4 : v.inner,
            w = mode == MODE_ALONG ? v.out[2] / 4 : v.out[2];
    hk_record *r = hk_emit(l, &hk_kernel_resample, mode == MODE_ONE ? "resample" : "resample by four");
    if (!make_table(l, r, &v, first, &outside))
        return hk_out_of_memory(l->ctx, "a table of taps");
    hk_divisor dd = hk_divisor_of(v.out[0]), dh = hk_divisor_of(v.out[1]), dw = hk_divisor_of(w),
               di = hk_divisor_of(HK_MAX(inner, 1));
    struct resample_push push = {.count = (uint32_t)units,
                                 .in_d = (uint32_t)v.in[0],
                                 .in_h = (uint32_t)v.in[1],
                                 .in_w = (uint32_t)v.in[2],
                                 .out_d = (uint32_t)v.out[0],
                                 .out_h = (uint32_t)v.out[1],
                                 .out_w = (uint32_t)w,
                                 .inner = (uint32_t)inner,
                                 .table_h = first[1],
                                 .table_w = first[2],
                                 .magic_d = dd.multiplier,
                                 .shift_d = dd.shift,
                                 .magic_h = dh.multiplier,
                                 .shift_h = dh.shift,
                                 .magic_w = dw.multiplier,
                                 .shift_w = dw.shift,
                                 .magic_inner = di.multiplier,
                                 .shift_inner = di.shift,
                                 .outside = a->outside};
    hk_push(r, &push, sizeof push);
    hk_use(r, x, HK_READ, offsetof(struct resample_push, x));
    hk_use(r, y, HK_WRITE, offsetof(struct resample_push, y));
    for (uint32_t i = 0; i < AXES; i++)
        hk_spec(r, 3 + i, tap_count(&v, (int32_t)i));
    hk_spec(r, 6, mode);
    hk_spec(r, 7, outside);
    hk_spec(r, 8, planes);
    hk_move_grid(l, r, units);
    r->flops = 2.0 * (double)count * HK_MAX(tap_count(&v, 0), 1u) * HK_MAX(tap_count(&v, 1), 1u) *
               HK_MAX(tap_count(&v, 2), 1u);
    return HK_OK;
}

/* ---- the gradient */

static hk_status resample_backward(hk_gradient *g, hk_node *n)
{
    const resample_attrs *a = n->attrs;
    hk_graph *graph = hk_gradient_graph(g);
    const hk_shape *x = &n->in[0]->shape;
    hk_taps back[AXES];
    const hk_taps *taps[HK_MAX_RANK] = {NULL};
    hk_value *dx;
    if (!hk_gradient_wanted(g, n->in[0]))
        return HK_OK;
    for (int32_t i = 0; i < AXES; i++) {
        if (!a->index[i])
            continue;
        int32_t axis = (int32_t)a->axis + i;
        if (x->rank < 0 || x->dim[axis] < 0)
            return hk_fail(
                graph->ctx, HK_STATUS_UNSUPPORTED,
                "node '%s' (%s): its gradient needs the extents of '%s', which are not known; give the model "
                "fixed image sizes",
                n->name, n->type, n->in[0]->name);
        hk_taps t = taps_of(a, i, x->dim[axis]);
        if (!hk_taps_transpose(graph->arena, &t, &back[i]))
            return hk_out_of_memory(graph->ctx, "the gradient of a resampling");
        taps[axis] = &back[i];
    }
    HK_TRY(hk_build_resample(graph, hk_gradient_of(g, n->out[0]), taps, 0.0, &dx));
    return hk_gradient_add(g, n->in[0], dx);
}

#define TABLE_2_4 "index0=i32[4,2]={0,1,1,2,2,2,0,2} weight0=f64[4,2]={0.25,0.75,0.5,0.5,1.25,-0.25,1.0,0.5}"

static const char *const resample_cases[] = {
    "f32[3] ; " TABLE_2_4,
    "f32[2,3,5] ; axis=1 " TABLE_2_4,
    "f32[2,3,8] ; axis=1 " TABLE_2_4,
    "f32[3,2,3] ; axis=2 " TABLE_2_4,
    "f32[3,3,3,2] ; axis=0 " TABLE_2_4 " index2=i32[2,1]={2,0} weight2=f64[2,1]={1.0,-2.0}",
    "f32[2,5,3] ; axis=2 outside=0.5 index0=i32[4,1]={-1,2,0,-1} weight0=f64[4,1]={0.0,1.0,1.0,0.0}",
    "f32[2,3,5] ; axis=1 outside=0.5 index0=i32[4,1]={-1,2,0,-1} weight0=f64[4,1]={0.0,1.0,1.0,0.0}",
    "f32[0,3] ; axis=1 " TABLE_2_4 " ; nograd",
    NULL,
};

const hk_op hk_ops_resample[] = {
    {
        .type = "hk.Resample",
        .since = 1,
        .in_min = 1,
        .in_max = 1,
        .out_min = 1,
        .out_max = 1,
        .attrs_bytes = sizeof(resample_attrs),
        .attrs = attr_list,
        .infer = resample_infer,
        .eval = resample_eval,
        .lower = resample_lower,
        .backward = resample_backward,
        .cases = resample_cases,
    },
    {0},
};
