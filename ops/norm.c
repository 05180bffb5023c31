/* LayerNormalization, RMSNormalization, InstanceNormalization, GroupNormalization, and their gradients. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "kernels.h"
#include "ops/support/gemm.h"
#include "ops/support/move.h"
#include "ops/support/norm.h"
#include "ops/support/reduce_channels.h"
#include "shaders/norm.push.h"
#include "shaders/norm_columns.push.h"
#include "shaders/norm_grad.push.h"

/* ==== rows: LayerNormalization and RMSNormalization normalize dimensions [axis, rank) */

typedef struct row_attrs {
    int64_t axis, stash_type;
    float epsilon;
} row_attrs;

static const hk_attr row_attr_list[] = {HK_INT_ATTR(row_attrs, axis, -1),
                                        HK_INT_ATTR(row_attrs, stash_type, 1),
                                        HK_FLOAT_ATTR(row_attrs, epsilon, 1e-5),
                                        {0}};
static const hk_attr row_attr_grad[] = {HK_INT_ATTR(row_attrs, axis, -1), {0}};

static bool is_centered(const hk_node *n)
{
    return strstr(n->op->type, "Layer") != NULL;
}

typedef struct rows_view {
    int64_t rows, extent;
    int32_t axis;
} rows_view;

static rows_view view_rows(const hk_node *n, const hk_shape *x)
{
    const row_attrs *a = n->attrs;
    int32_t axis = hk_axis(a->axis, x->rank);
    return (rows_view){.rows = hk_shape_span(x, 0, axis), .extent = hk_shape_span(x, axis, x->rank), .axis = axis};
}

static hk_shape normalized_shape(const hk_shape *x, int32_t axis)
{
    hk_shape s = {.rank = x->rank - axis};
    memcpy(s.dim, x->dim + axis, (size_t)s.rank * sizeof s.dim[0]);
    return s;
}

/* scale or bias must be the same in every row: of a shape that broadcasts to the normalized dimensions. */
static hk_status check_affine(hk_infer *in, const hk_value *v, const hk_shape *normalized)
{
    hk_shape_text a, b;
    if (!v || v->shape.rank < 0)
        return HK_OK;
    bool fits = true;
    for (int32_t d = 1; d <= v->shape.rank; d++) {
        int64_t want = d <= normalized->rank ? normalized->dim[normalized->rank - d] : 1,
                have = v->shape.dim[v->shape.rank - d];
        fits &= have == 1 || have == want || have < 0 || want < 0;
    }
    if (fits)
        return HK_OK;
    return hk_infer_fail(in, HK_STATUS_UNSUPPORTED,
                         "'%s' has shape %s, expected one that broadcasts to the normalized dimensions %s", v->name,
                         hk_shape_print(&v->shape, &a), hk_shape_print(normalized, &b));
}

static hk_status check_rows(hk_infer *in, const hk_value *x, const hk_value *scale, const hk_value *bias)
{
    const row_attrs *a = in->node->attrs;
    hk_shape_text text;
    if (!hk_dtype_is_float(x->dtype))
        return hk_infer_fail(in, HK_STATUS_INVALID, "input '%s' is %s, expected a float type", x->name,
                             hk_dtype_name(x->dtype));
    if (x->shape.rank < 0)
        return HK_OK;
    int32_t axis = hk_axis(a->axis, x->shape.rank);
    if (axis < 0)
        return hk_infer_fail(in, HK_STATUS_INVALID, "axis %lld is outside [-%d, %d) of shape %s", (long long)a->axis,
                             (int)x->shape.rank, (int)x->shape.rank, hk_shape_print(&x->shape, &text));
    hk_shape normalized = normalized_shape(&x->shape, axis);
    HK_TRY(check_affine(in, scale, &normalized));
    return check_affine(in, bias, &normalized);
}

/* ONNX computes statistics in float32 (stash_type 1); float64 is the oracle's and stays float64. */
static hk_dtype stash_dtype(hk_dtype x)
{
    return x == HK_FLOAT64 ? HK_FLOAT64 : HK_FLOAT32;
}

static hk_shape stash_shape(const hk_shape *x, int32_t axis)
{
    hk_shape s = *x;
    for (int32_t d = axis; d < s.rank; d++)
        s.dim[d] = 1;
    return s;
}

static hk_status rows_infer(hk_infer *in)
{
    const hk_node *n = in->node;
    const row_attrs *a = n->attrs;
    const hk_value *x = n->in[0];
    HK_TRY(check_rows(in, x, n->in[1], hk_in(n, 2)));
    hk_shape stash = x->shape.rank < 0 ? HK_SHAPE_UNKNOWN : stash_shape(&x->shape, hk_axis(a->axis, x->shape.rank));
    HK_TRY(hk_infer_output(in, 0, x->dtype, &x->shape));
    HK_TRY(hk_infer_output(in, 1, stash_dtype(x->dtype), &stash));
    return hk_infer_output(in, 2, stash_dtype(x->dtype), &stash);
}

/* Element of scale or bias for element j of a row. */
static double affine_at(const hk_tensor *t, const hk_shape *normalized, int64_t j, double absent)
{
    if (!t)
        return absent;
    int64_t at = 0, stride = 1;
    for (int32_t d = 1; d <= normalized->rank; d++) {
        int64_t extent = normalized->dim[normalized->rank - d], index = j % extent;
        j /= extent;
        int64_t own = d <= t->rank ? t->shape[t->rank - d] : 1;
        at += own == 1 ? 0 : index * stride;
        stride *= own;
    }
    return hk_get_double(t, at);
}

static hk_status rows_eval(hk_eval *e)
{
    const hk_node *n = e->node;
    const row_attrs *a = n->attrs;
    const hk_tensor *x = e->in[0], *scale = e->in[1], *bias = hk_in(n, 2) ? e->in[2] : NULL;
    const hk_shape shape = hk_tensor_shape(x);
    const rows_view v = view_rows(n, &shape);
    const hk_shape normalized = normalized_shape(&shape, v.axis), stash = stash_shape(&shape, v.axis);
    hk_tensor *y = hk_eval_output(e, 0, x->dtype, &shape);
    hk_tensor *means = hk_eval_output(e, 1, stash_dtype(x->dtype), &stash);
    hk_tensor *deviations = hk_eval_output(e, 2, stash_dtype(x->dtype), &stash);
    if (!y || (hk_out(n, 1) && !means) || (hk_out(n, 2) && !deviations))
        return hk_out_of_memory(e->ctx, "a normalization's output");
    for (int64_t row = 0; row < v.rows; row++) {
        int64_t first = row * v.extent;
        double mean = 0.0, squares = 0.0;
        for (int64_t j = 0; j < v.extent && is_centered(n); j++)
            mean += hk_get_double(x, first + j) / (double)v.extent;
        for (int64_t j = 0; j < v.extent; j++) {
            double d = hk_get_double(x, first + j) - mean;
            squares += d * d;
        }
        double deviation = 1.0 / sqrt(squares / (double)v.extent + (double)a->epsilon);
        for (int64_t j = 0; j < v.extent; j++)
            hk_set_double(y, first + j,
                          (hk_get_double(x, first + j) - mean) * deviation * affine_at(scale, &normalized, j, 1.0) +
                              affine_at(bias, &normalized, j, 0.0));
        if (means)
            hk_set_double(means, row, mean);
        if (deviations)
            hk_set_double(deviations, row, deviation);
    }
    return HK_OK;
}

/* v with one element per element of a row: v itself, or scratch into which it is broadcast. */
static hk_status whole_affine(hk_lower *l, hk_value *v, const hk_shape *normalized, hk_value **out)
{
    *out = v;
    if (!v || hk_shape_count(&v->shape) == hk_shape_count(normalized))
        return HK_OK;
    *out = hk_scratch(l, v->dtype, hk_shape_count(normalized));
    if (!*out)
        return HK_OK; /* l->failed tells */
    int64_t from[HK_MAX_RANK], to[HK_MAX_RANK];
    hk_shape_strides(&v->shape, from);
    hk_shape_strides(normalized, to);
    hk_move m = {0};
    for (int32_t d = 0; d < normalized->rank; d++) {
        int32_t own = v->shape.rank - normalized->rank + d;
        hk_move_add(&m, normalized->dim[d], own < 0 || v->shape.dim[own] == 1 ? 0 : from[own], to[d]);
    }
    hk_move_collapse(&m);
    return hk_emit_move(l, &m, v, *out);
}

hk_status hk_emit_norm_rows(hk_lower *l, const hk_norm_rows *v)
{
    hk_value *x = v->x, *y = v->y;
    int64_t units = (v->extent + 3) / 4;
    bool vectors = v->extent % 4 == 0 && hk_aligned_all((const hk_value *[]){x, y, v->scale, v->bias}, 4);
    if (!vectors) {
        x = hk_as_float32(l, x);
        y = hk_float32_target(l, y);
        if (!y)
            return HK_OK; /* l->failed tells */
    }
    const hk_team team = hk_team_rows(l, v->rows, units);
    const struct norm_push push = {.rows = (uint32_t)v->rows, .extent = (uint32_t)v->extent, .epsilon = v->epsilon};
    uint32_t held = hk_team_held(l, &team, units);
    hk_record *r = hk_team_emit(l, &team, (hk_team_kernel){&hk_kernel_norm, &hk_kernel_norm_subgroup},
                                held ? "norm held" : "norm long", v->rows, &push, sizeof push);
    hk_spec(r, HK_TEAM_SPEC, held);
    hk_spec(r, HK_TEAM_SPEC + 1, vectors);
    hk_spec(r, HK_TEAM_SPEC + 2, v->centered);
    hk_spec(r, HK_TEAM_SPEC + 3, v->bias != NULL);
    hk_spec(r, HK_TEAM_SPEC + 4, v->mean != NULL);
    hk_spec(r, HK_TEAM_SPEC + 5, v->deviation != NULL);
    hk_spec(r, HK_TEAM_SPEC + 6, hk_stores_halves(x));
    hk_spec(r, HK_TEAM_SPEC + 7, hk_stores_halves(y));
    hk_use(r, x, HK_READ, offsetof(struct norm_push, x));
    hk_use(r, v->scale, HK_READ, offsetof(struct norm_push, scale));
    hk_use(r, v->bias, HK_READ, offsetof(struct norm_push, bias));
    hk_use(r, y, HK_WRITE, offsetof(struct norm_push, y));
    hk_use(r, v->mean, HK_WRITE, offsetof(struct norm_push, mean));
    hk_use(r, v->deviation, HK_WRITE, offsetof(struct norm_push, deviation));
    r->flops = 8.0 * (double)(v->rows * v->extent);
    if (y != v->y)
        hk_emit_convert(l, y, v->y);
    return HK_OK;
}

static hk_status rows_lower(hk_lower *l)
{
    const hk_node *n = l->node;
    const row_attrs *a = n->attrs;
    const rows_view v = view_rows(n, &n->in[0]->shape);
    const hk_shape normalized = normalized_shape(&n->in[0]->shape, v.axis);
    hk_norm_rows rows = {.x = n->in[0],
                         .y = n->out[0],
                         .mean = hk_out(n, 1),
                         .deviation = hk_out(n, 2),
                         .rows = v.rows,
                         .extent = v.extent,
                         .epsilon = a->epsilon,
                         .centered = is_centered(n)};
    for (int32_t i = 1; i < n->in_count; i++)
        HK_TRY(hk_require_float32(l, n->in[i]));
    if (v.rows * v.extent == 0) {
        for (int32_t i = 1; i < 3 && v.rows; i++)
            if (hk_out(n, i))
                hk_emit_fill(l, hk_out(n, i), 0x7fc00000u); /* the statistics of no elements are NaN */
        return HK_OK;
    }
    HK_TRY(whole_affine(l, n->in[1], &normalized, &rows.scale));
    HK_TRY(whole_affine(l, hk_in(n, 2), &normalized, &rows.bias));
    return hk_emit_norm_rows(l, &rows);
}

static hk_status no_stash_gradient(hk_gradient *g, const hk_node *n)
{
    for (int32_t i = 1; i < n->out_count; i++)
        if (hk_gradient_of(g, n->out[i]))
            return hk_fail(hk_gradient_graph(g)->ctx, HK_STATUS_UNSUPPORTED,
                           "node '%s' (%s): the loss depends on its statistics '%s', which has no gradient; compute "
                           "them by ReduceMean",
                           n->name, n->type, n->out[i]->name);
    return HK_OK;
}

/* dv has the normalized shape, v may have leading ones besides. */
static hk_status add_affine_gradient(hk_gradient *g, hk_value *v, hk_value *dv)
{
    if (!v || !dv || !hk_gradient_wanted(g, v))
        return HK_OK;
    if (v->shape.rank > dv->shape.rank) {
        hk_shape s = {.rank = v->shape.rank};
        for (int32_t d = 0; d < s.rank; d++) {
            int32_t own = d - s.rank + dv->shape.rank;
            s.dim[d] = own < 0 ? 1 : dv->shape.dim[own];
        }
        const hk_attr_value attrs[] = {HK_SET_INT("allowzero", 1), {0}};
        hk_value *shape = hk_graph_ints(hk_gradient_graph(g), s.dim, s.rank);
        if (!shape)
            return HK_STATUS_OUT_OF_MEMORY;
        HK_TRY(hk_build(hk_gradient_graph(g), "Reshape", attrs, (hk_value *[]){dv, shape}, 2, &dv, 1));
    }
    return hk_gradient_add(g, v, dv);
}

static hk_status rows_backward(hk_gradient *g, hk_node *n)
{
    const row_attrs *a = n->attrs;
    hk_graph *graph = hk_gradient_graph(g);
    HK_TRY(no_stash_gradient(g, n));
    hk_value *dy = hk_gradient_of(g, n->out[0]), *out[3] = {NULL};
    if (!dy)
        return HK_OK;
    if (!hk_node_want_outputs(n, 3))
        return HK_STATUS_OUT_OF_MEMORY;
    HK_TRY(hk_node_infer(graph, n));
    bool parameters = hk_gradient_wanted(g, n->in[1]) || hk_gradient_wanted(g, hk_in(n, 2));
    const hk_attr_value attrs[] = {HK_SET_INT("axis", a->axis), {0}};
    HK_TRY(hk_build(graph, is_centered(n) ? "hk.LayerNormGrad" : "hk.RMSNormGrad", attrs,
                    (hk_value *[]){dy, n->in[0], n->in[1], n->out[1], n->out[2]}, 5, out,
                    !parameters   ? 1
                    : hk_in(n, 2) ? 3
                                  : 2));
    HK_TRY(hk_gradient_add(g, n->in[0], out[0]));
    HK_TRY(add_affine_gradient(g, n->in[1], out[1]));
    return add_affine_gradient(g, hk_in(n, 2), out[2]);
}

/* ---- hk.LayerNormGrad, hk.RMSNormGrad (dY, X, scale, mean, deviation) → dX, and dscale, dbias of the row's shape */

static hk_status rows_grad_infer(hk_infer *in)
{
    const hk_node *n = in->node;
    const row_attrs *a = n->attrs;
    const hk_value *dy = n->in[0], *x = n->in[1];
    hk_shape_text s, t;
    HK_TRY(check_rows(in, x, n->in[2], NULL));
    if (hk_shape_known(&dy->shape) && hk_shape_known(&x->shape) && !hk_shape_equal(&dy->shape, &x->shape))
        return hk_infer_fail(in, HK_STATUS_INVALID, "gradient '%s' has shape %s, expected %s", dy->name,
                             hk_shape_print(&dy->shape, &s), hk_shape_print(&x->shape, &t));
    hk_shape normalized = x->shape.rank < 0 ? HK_SHAPE_UNKNOWN
                                            : normalized_shape(&x->shape, hk_axis(a->axis, x->shape.rank));
    HK_TRY(hk_infer_output(in, 0, x->dtype, &x->shape));
    HK_TRY(hk_infer_output(in, 1, x->dtype, &normalized));
    return hk_infer_output(in, 2, x->dtype, &normalized);
}

static void add_to(hk_tensor *t, int64_t i, double x)
{
    if (t)
        hk_set_double(t, i, hk_get_double(t, i) + x);
}

static hk_status rows_grad_eval(hk_eval *e)
{
    const hk_node *n = e->node;
    const hk_tensor *dy = e->in[0], *x = e->in[1], *scale = e->in[2], *means = e->in[3], *deviations = e->in[4];
    const hk_shape shape = hk_tensor_shape(x);
    const rows_view v = view_rows(n, &shape);
    const hk_shape normalized = normalized_shape(&shape, v.axis);
    hk_tensor *dx = hk_eval_output(e, 0, x->dtype, &shape);
    hk_tensor *sums[2]; /* in float64, so that a long sum is rounded once */
    for (int32_t i = 0; i < 2; i++)
        sums[i] = hk_tensor_new(e->arena, HK_FLOAT64, &normalized);
    if (!dx || !sums[0] || !sums[1])
        return hk_out_of_memory(e->ctx, "a normalization's gradient");
    for (int64_t row = 0; row < v.rows; row++) {
        double mean = is_centered(n) ? hk_get_double(means, row) : 0.0, deviation = hk_get_double(deviations, row);
        double g_mean = 0.0, gn_mean = 0.0;
        for (int64_t j = 0; j < v.extent; j++) {
            double d = hk_get_double(dy, row * v.extent + j),
                   z = (hk_get_double(x, row * v.extent + j) - mean) * deviation;
            double g = d * affine_at(scale, &normalized, j, 1.0);
            g_mean += is_centered(n) ? g / (double)v.extent : 0.0;
            gn_mean += g * z / (double)v.extent;
            add_to(sums[0], j, d * z);
            add_to(sums[1], j, d);
        }
        for (int64_t j = 0; j < v.extent; j++) {
            double d = hk_get_double(dy, row * v.extent + j),
                   z = (hk_get_double(x, row * v.extent + j) - mean) * deviation;
            hk_set_double(dx, row * v.extent + j,
                          deviation * (d * affine_at(scale, &normalized, j, 1.0) - g_mean - z * gn_mean));
        }
    }
    for (int32_t i = 0; i < 2; i++) {
        hk_tensor *out = hk_eval_output(e, 1 + i, x->dtype, &normalized);
        if (!out && hk_out(n, 1 + i))
            return hk_out_of_memory(e->ctx, "a normalization's gradient");
        for (int64_t j = 0; out && j < v.extent; j++)
            hk_set_double(out, j, hk_get_double(sums[i], j));
    }
    return HK_OK;
}

static void emit_rows_dx(hk_lower *l, const rows_view *v, hk_value *scale)
{
    const hk_node *n = l->node;
    hk_value *dy = n->in[0], *x = n->in[1], *dx = n->out[0];
    int64_t units = (v->extent + 3) / 4;
    const hk_team team = hk_team_rows(l, v->rows, units);
    uint32_t held = hk_team_held(l, &team, units);
    if (held > 4)
        held = 0; /* two operands: more would take 64 registers */
    const struct norm_grad_push push = {.rows = (uint32_t)v->rows, .extent = (uint32_t)v->extent};
    hk_record *r = hk_team_emit(l, &team, (hk_team_kernel){&hk_kernel_norm_grad, &hk_kernel_norm_grad_subgroup},
                                held ? "norm_grad held" : "norm_grad long", v->rows, &push, sizeof push);
    hk_spec(r, HK_TEAM_SPEC, held);
    hk_spec(r, HK_TEAM_SPEC + 1, v->extent % 4 == 0 && hk_aligned_all((const hk_value *[]){dy, x, dx, scale}, 4));
    hk_spec(r, HK_TEAM_SPEC + 2, is_centered(n));
    hk_use(r, dy, HK_READ, offsetof(struct norm_grad_push, dy));
    hk_use(r, x, HK_READ, offsetof(struct norm_grad_push, x));
    hk_use(r, scale, HK_READ, offsetof(struct norm_grad_push, scale));
    hk_use(r, is_centered(n) ? n->in[3] : NULL, HK_READ, offsetof(struct norm_grad_push, mean));
    hk_use(r, n->in[4], HK_READ, offsetof(struct norm_grad_push, deviation));
    hk_use(r, dx, HK_WRITE, offsetof(struct norm_grad_push, dx));
    r->flops = 10.0 * (double)(v->rows * v->extent);
}

/* One of the columns' sums: written by the pass itself if it is one chunk, else by a reduction of its chunks. */
static hk_value *column_target(hk_lower *l, hk_value *out, int64_t chunks, int64_t extent)
{
    return out && chunks > 1 ? hk_scratch(l, HK_FLOAT32, chunks * extent) : out;
}

static hk_status emit_rows_parameters(hk_lower *l, const rows_view *v)
{
    const hk_node *n = l->node;
    hk_value *dy = n->in[0], *x = n->in[1], *outs[2] = {hk_out(n, 1), hk_out(n, 2)}, *targets[2];
    int64_t units = (v->extent + 3) / 4;
    const hk_team team = hk_team_columns(l, units, v->rows);
    int64_t chunk = (v->rows - 1) / hk_team_chunks(l, &team, units, v->rows) + 1, chunks = (v->rows - 1) / chunk + 1;
    for (int i = 0; i < 2; i++)
        targets[i] = column_target(l, outs[i], chunks, v->extent);
    if (l->failed)
        return HK_OK;
    const struct norm_columns_push push = {
        .rows = (uint32_t)v->rows, .extent = (uint32_t)v->extent, .chunks = (uint32_t)chunks, .chunk = (uint32_t)chunk};
    hk_record *r = hk_team_emit(l, &team, (hk_team_kernel){&hk_kernel_norm_columns, NULL}, "norm_grad columns",
                                units * chunks, &push, sizeof push);
    hk_spec(r, HK_TEAM_SPEC, 0);
    hk_spec(r, HK_TEAM_SPEC + 1,
            v->extent % 4 == 0 && hk_aligned_all((const hk_value *[]){dy, x, targets[0], targets[1]}, 4));
    hk_spec(r, HK_TEAM_SPEC + 2, is_centered(n));
    hk_spec(r, HK_TEAM_SPEC + 3, targets[0] != NULL);
    hk_spec(r, HK_TEAM_SPEC + 4, targets[1] != NULL);
    hk_use(r, dy, HK_READ, offsetof(struct norm_columns_push, dy));
    if (targets[0]) {
        hk_use(r, x, HK_READ, offsetof(struct norm_columns_push, x));
        hk_use(r, is_centered(n) ? n->in[3] : NULL, HK_READ, offsetof(struct norm_columns_push, mean));
        hk_use(r, n->in[4], HK_READ, offsetof(struct norm_columns_push, deviation));
    }
    hk_use(r, targets[0], HK_WRITE, offsetof(struct norm_columns_push, dscale));
    hk_use(r, targets[1], HK_WRITE, offsetof(struct norm_columns_push, dbias));
    r->flops = 4.0 * (double)(v->rows * v->extent);
    for (int i = 0; i < 2 && chunks > 1; i++)
        if (outs[i]) {
            const hk_reduction sum = {
                .x = targets[i], .y = outs[i], .rank = 2, .extent = {chunks, v->extent}, .axes = 1};
            HK_TRY(hk_emit_reduction(l, &sum));
        }
    return HK_OK;
}

static hk_status rows_grad_lower(hk_lower *l)
{
    const hk_node *n = l->node;
    hk_value *scale = NULL;
    const rows_view v = view_rows(n, &n->in[1]->shape);
    const hk_shape normalized = normalized_shape(&n->in[1]->shape, v.axis);
    for (int32_t i = 0; i < n->in_count; i++)
        HK_TRY(hk_require_float32(l, n->in[i]));
    if (v.rows * v.extent == 0) {
        for (int32_t i = 1; i < 3 && v.extent; i++)
            if (hk_out(n, i))
                hk_emit_fill(l, hk_out(n, i), 0);
        return HK_OK;
    }
    if (hk_out(n, 0)) {
        HK_TRY(whole_affine(l, n->in[2], &normalized, &scale));
        emit_rows_dx(l, &v, scale);
    }
    return hk_out(n, 1) || hk_out(n, 2) ? emit_rows_parameters(l, &v) : HK_OK;
}

/* ==== groups: InstanceNormalization and GroupNormalization normalize groups of channels of each sample */

typedef struct group_attrs {
    int64_t num_groups; /* 0: as many as channels (InstanceNormalization) */
    int64_t per_group;  /* gradients: scale and bias have one element per group (opset 18 to 20) */
    int64_t stash_type;
    float epsilon;
    hk_ints consumed_inputs; /* of opset 1: storage advice, of no meaning */
} group_attrs;

static const hk_attr instance_attr_1[] = {
    HK_FLOAT_ATTR(group_attrs, epsilon, 1e-5), HK_INTS_ATTR(group_attrs, consumed_inputs), {0}};
static const hk_attr instance_attr_list[] = {HK_FLOAT_ATTR(group_attrs, epsilon, 1e-5), {0}};
#define NUM_GROUPS                                                                                                     \
    {                                                                                                                  \
        .name = "num_groups", .kind = HK_ATTR_INT, .offset = offsetof(group_attrs, num_groups), .required = true       \
    }
static const hk_attr group_attr_18[] = {HK_FLOAT_ATTR(group_attrs, epsilon, 1e-5), NUM_GROUPS, {0}};
static const hk_attr group_attr_21[] = {
    HK_FLOAT_ATTR(group_attrs, epsilon, 1e-5), NUM_GROUPS, HK_INT_ATTR(group_attrs, stash_type, 1), {0}};
static const hk_attr group_attr_grad[] = {
    HK_INT_ATTR(group_attrs, num_groups, 0), HK_INT_ATTR(group_attrs, per_group, 0), {0}};

static bool has_group_parameters(const hk_node *n)
{
    const group_attrs *a = n->attrs;
    return n->op->attrs == group_attr_18 || a->per_group != 0;
}

/* Every channel of every sample is a channel of one sample, so that groups are per sample. */
static hk_channels group_channels(const hk_node *n, const hk_shape *x)
{
    const group_attrs *a = n->attrs;
    int64_t channels = x->dim[1], groups = a->num_groups ? a->num_groups : HK_MAX(channels, 1);
    int64_t each = HK_MAX(channels / groups, 1);
    bool per_group = has_group_parameters(n);
    return (hk_channels){.samples = 1,
                         .channels = x->dim[0] * channels,
                         .extent = hk_shape_span(x, 2, x->rank),
                         .group = each,
                         .param_divide = per_group ? each : 1,
                         .param_count = per_group ? groups : channels,
                         .epsilon = (double)a->epsilon};
}

static hk_status check_groups(hk_infer *in, const hk_value *x, int32_t first, int32_t count)
{
    const group_attrs *a = in->node->attrs;
    hk_shape_text s, t;
    if (!hk_dtype_is_float(x->dtype))
        return hk_infer_fail(in, HK_STATUS_INVALID, "input '%s' is %s, expected a float type", x->name,
                             hk_dtype_name(x->dtype));
    if (x->shape.rank >= 0 && x->shape.rank < 2)
        return hk_infer_fail(in, HK_STATUS_INVALID, "input '%s' has shape %s, expected (N,C,...)", x->name,
                             hk_shape_print(&x->shape, &s));
    int64_t channels = x->shape.rank < 0 ? -1 : x->shape.dim[1], groups = a->num_groups ? a->num_groups : channels;
    bool group_attr = in->node->op->attrs == group_attr_18 || in->node->op->attrs == group_attr_21;
    if ((group_attr && a->num_groups < 1) || (channels > 0 && groups > 0 && channels % groups))
        return hk_infer_fail(in, HK_STATUS_INVALID,
                             "num_groups is %lld, expected a divisor of the %lld channels of '%s'",
                             (long long)a->num_groups, (long long)channels, x->name);
    const hk_shape want = {.rank = 1, .dim = {has_group_parameters(in->node) ? groups : channels}};
    for (int32_t i = first; i < first + count; i++) {
        const hk_value *v = in->node->in[i];
        if (v->shape.rank >= 0 &&
            (v->shape.rank != 1 || (v->shape.dim[0] >= 0 && want.dim[0] >= 0 && v->shape.dim[0] != want.dim[0])))
            return hk_infer_fail(in, HK_STATUS_INVALID, "'%s' has shape %s, expected %s", v->name,
                                 hk_shape_print(&v->shape, &s), hk_shape_print(&want, &t));
    }
    return HK_OK;
}

static hk_shape group_stash_shape(const hk_node *n, const hk_shape *x)
{
    const group_attrs *a = n->attrs;
    return x->rank < 0 ? HK_SHAPE_UNKNOWN
                       : (hk_shape){.rank = 2, .dim = {x->dim[0], a->num_groups ? a->num_groups : x->dim[1]}};
}

static hk_status groups_infer(hk_infer *in)
{
    const hk_value *x = in->node->in[0];
    HK_TRY(check_groups(in, x, 1, 2));
    const hk_shape stash = group_stash_shape(in->node, &x->shape);
    HK_TRY(hk_infer_output(in, 0, x->dtype, &x->shape));
    HK_TRY(hk_infer_output(in, 1, stash_dtype(x->dtype), &stash));
    return hk_infer_output(in, 2, stash_dtype(x->dtype), &stash);
}

static hk_status groups_eval(hk_eval *e)
{
    const hk_node *n = e->node;
    const hk_shape x = hk_tensor_shape(e->in[0]), stash = group_stash_shape(n, &x);
    const hk_channels c = group_channels(n, &x);
    hk_host_norm norm = {.x = e->in[0], .scale = e->in[1], .bias = e->in[2], .training = true};
    norm.y = hk_eval_output(e, 0, e->in[0]->dtype, &x);
    norm.saved_mean = hk_eval_output(e, 1, stash_dtype(e->in[0]->dtype), &stash);
    norm.saved_deviation = hk_eval_output(e, 2, stash_dtype(e->in[0]->dtype), &stash);
    if (!norm.y || (hk_out(n, 1) && !norm.saved_mean) || (hk_out(n, 2) && !norm.saved_deviation))
        return hk_out_of_memory(e->ctx, "a normalization's output");
    return hk_host_channel_norm(e, &c, &norm);
}

static hk_status groups_lower(hk_lower *l)
{
    const hk_node *n = l->node;
    const hk_channels c = group_channels(n, &n->in[0]->shape);
    HK_TRY(hk_require_float32(l, n->in[1]));
    HK_TRY(hk_require_float32(l, n->in[2]));
    const hk_channel_norm norm = {.x = n->in[0],
                                  .scale = n->in[1],
                                  .bias = n->in[2],
                                  .y = n->out[0],
                                  .saved_mean = hk_out(n, 1),
                                  .saved_deviation = hk_out(n, 2),
                                  .training = true};
    return hk_emit_channel_norm(l, &c, &norm);
}

static hk_status groups_backward(hk_gradient *g, hk_node *n)
{
    const group_attrs *a = n->attrs;
    hk_graph *graph = hk_gradient_graph(g);
    HK_TRY(no_stash_gradient(g, n));
    hk_value *dy = hk_gradient_of(g, n->out[0]), *out[3] = {NULL};
    if (!dy)
        return HK_OK;
    if (!hk_node_want_outputs(n, 3))
        return HK_STATUS_OUT_OF_MEMORY;
    HK_TRY(hk_node_infer(graph, n));
    bool parameters = hk_gradient_wanted(g, n->in[1]) || hk_gradient_wanted(g, n->in[2]);
    const hk_attr_value attrs[] = {
        HK_SET_INT("num_groups", a->num_groups), HK_SET_INT("per_group", has_group_parameters(n)), {0}};
    HK_TRY(hk_build(graph, "hk.GroupNormGrad", attrs, (hk_value *[]){dy, n->in[0], n->in[1], n->out[1], n->out[2]}, 5,
                    out, parameters ? 3 : 1));
    for (int32_t i = 0; i < 3; i++)
        HK_TRY(hk_gradient_add(g, n->in[i], out[i]));
    return HK_OK;
}

/* ---- hk.GroupNormGrad(dY, X, scale, mean, deviation) → dX, dscale, dbias */

static hk_status groups_grad_infer(hk_infer *in)
{
    const hk_node *n = in->node;
    const hk_value *dy = n->in[0], *x = n->in[1];
    hk_shape_text s, t;
    HK_TRY(check_groups(in, x, 2, 1));
    if (hk_shape_known(&dy->shape) && hk_shape_known(&x->shape) && !hk_shape_equal(&dy->shape, &x->shape))
        return hk_infer_fail(in, HK_STATUS_INVALID, "gradient '%s' has shape %s, expected %s", dy->name,
                             hk_shape_print(&dy->shape, &s), hk_shape_print(&x->shape, &t));
    HK_TRY(hk_infer_output(in, 0, x->dtype, &x->shape));
    HK_TRY(hk_infer_output(in, 1, x->dtype, &n->in[2]->shape));
    return hk_infer_output(in, 2, x->dtype, &n->in[2]->shape);
}

static hk_status groups_grad_eval(hk_eval *e)
{
    const hk_node *n = e->node;
    const hk_shape x = hk_tensor_shape(e->in[1]), parameters = hk_tensor_shape(e->in[2]);
    const hk_channels c = group_channels(n, &x);
    hk_host_grad grad = {.dy = e->in[0], .x = e->in[1], .scale = e->in[2], .mean = e->in[3], .deviation = e->in[4]};
    grad.dx = hk_eval_output(e, 0, e->in[1]->dtype, &x);
    grad.dscale = hk_eval_output(e, 1, e->in[1]->dtype, &parameters);
    grad.dbias = hk_eval_output(e, 2, e->in[1]->dtype, &parameters);
    if ((hk_out(n, 0) && !grad.dx) || (hk_out(n, 1) && !grad.dscale) || (hk_out(n, 2) && !grad.dbias))
        return hk_out_of_memory(e->ctx, "a normalization's gradient");
    return hk_host_channel_grad(e, &c, &grad);
}

static hk_status groups_grad_lower(hk_lower *l)
{
    const hk_node *n = l->node;
    const hk_channels c = group_channels(n, &n->in[1]->shape);
    const hk_channel_grad grad = {.dy = n->in[0],
                                  .x = n->in[1],
                                  .scale = n->in[2],
                                  .mean = n->in[3],
                                  .deviation = n->in[4],
                                  .dx = hk_out(n, 0),
                                  .dscale = hk_out(n, 1),
                                  .dbias = hk_out(n, 2)};
    return hk_emit_channel_grad(l, &c, &grad);
}

/* ==== the table */

#define CASES(name, ...) static const char *const name[] = {__VA_ARGS__, NULL}

CASES(layer_cases, "f32[3,5] f32[5] f32[5]", "f32[2,3,8] f32[8]", "f32[2,3,4,5] f32[4,5] f32[4,5];axis=2",
      "f32[2,3,4] f32[2,3,4];axis=0", "f32[2,3,4] f32[4] f32[1];axis=1", "f32[6] f32[6] f32[6];axis=-1 epsilon=0.1",
      "f32[7,64] f32[64] f32[64]", "f32[3,1000] f32[1000] f32[1000];;out=3 nograd",
      "f32[2,9001] f32[9001] f32[9001];;nograd", "f32[0,4] f32[4] f32[4]", "f32[66000,4] f32[4] f32[4];;nograd",
      "f32[130,768] f32[768] f32[768];;nograd");
CASES(rms_cases, "f32[3,5] f32[5]", "f32[2,3,4,5] f32[4,5];axis=2", "f32[2,3,4] f32[1,1,4];axis=-1",
      "f32[7,64] f32[64];epsilon=1e-6", "f32[2,4100] f32[4100];;nograd");
CASES(rows_grad_cases, "f32[3,5] f32[3,5] f32[5] f32[3,1] f32[3,1]+;;out=3 nograd",
      "f32[2,3,8] f32[2,3,8] f32[8] f32[2,3,1] f32[2,3,1]+;;out=2 nograd",
      "f32[300,64] f32[300,64] f32[64] f32[300,1] f32[300,1]+;;out=3 nograd",
      "f32[3000,8] f32[3000,8] f32[8] f32[3000,1] f32[3000,1]+;;out=3 nograd",
      "f32[2,3] f32[2,3] f32[1] f32[2,1] f32[2,1]+;;nograd",
      "f32[2,9001] f32[2,9001] f32[9001] f32[2,1] f32[2,1]+;;out=3 nograd",
      "f32[0,4] f32[0,4] f32[4] f32[0,1] f32[0,1]+;;out=3 nograd");
CASES(instance_cases, "f32[2,3,4,5] f32[3] f32[3]", "f32[2,3,7] f32[3] f32[3];epsilon=1e-2",
      "f32[1,2,33,40] f32[2] f32[2];;nograd", "f32[2,5,4,4,4] f32[5] f32[5];;nograd");
CASES(instance_old_cases, "f32[2,3,4,5] f32[3] f32[3];;opset=1");
CASES(group_old_cases, "f32[2,6,3,4] f32[2] f32[2];num_groups=2;opset=18",
      "f32[2,4,5] f32[4] f32[4];num_groups=4;opset=20");
CASES(group_cases, "f32[2,6,3,4] f32[6] f32[6];num_groups=2", "f32[3,4,5] f32[4] f32[4];num_groups=1",
      "f32[2,8] f32[8] f32[8];num_groups=4", "f32[2,32,16,16] f32[32] f32[32];num_groups=4;nograd",
      "f32[0,4,3] f32[4] f32[4];num_groups=2", "f32[1,4,65,64] f32[4] f32[4];num_groups=2;out=3 nograd");
CASES(groups_grad_cases, "f32[2,6,3,4] f32[2,6,3,4] f32[6] f32[2,2] f32[2,2]+;num_groups=2;out=3 nograd",
      "f32[2,6,3,4] f32[2,6,3,4] f32[2] f32[2,2] f32[2,2]+;num_groups=2 per_group=1;out=3 nograd",
      "f32[2,6,32,33] f32[2,6,32,33] f32[6] f32[2,6] f32[2,6]+;;out=3 nograd",
      "f32[3,16,16,16] f32[3,16,16,16] f32[16] f32[3,4] f32[3,4]+;num_groups=4;out=3 nograd");

#define ROWS(name, first, most, cases_)                                                                                \
    {                                                                                                                  \
        .type = name, .since = first, .in_min = 2, .in_max = most, .out_min = 1, .out_max = 3, .parameters = 6,        \
        .attrs_bytes = sizeof(row_attrs), .attrs = row_attr_list, .infer = rows_infer, .eval = rows_eval,              \
        .half_in = 1, .half_out = 1, .lower = rows_lower, .backward = rows_backward, .cases = cases_                   \
    }
#define ROWS_GRAD(name)                                                                                                \
    {                                                                                                                  \
        .type = name, .since = 1, .in_min = 5, .in_max = 5, .out_min = 1, .out_max = 3,                                \
        .attrs_bytes = sizeof(row_attrs), .attrs = row_attr_grad, .infer = rows_grad_infer, .eval = rows_grad_eval,    \
        .lower = rows_grad_lower, .cases = rows_grad_cases                                                             \
    }
#define GROUPS(name, first, last, list, cases_)                                                                        \
    {                                                                                                                  \
        .type = name, .since = first, .until = last, .in_min = 3, .in_max = 3, .out_min = 1, .out_max = 3,             \
        .parameters = 6, .attrs_bytes = sizeof(group_attrs), .attrs = list, .infer = groups_infer,                     \
        .eval = groups_eval, .lower = groups_lower, .backward = groups_backward, .cases = cases_                       \
    }

const hk_op hk_ops_norm[] = {
    ROWS("LayerNormalization", 17, 3, layer_cases),
    ROWS("RMSNormalization", 23, 2, rms_cases),
    ROWS_GRAD("hk.LayerNormGrad"),
    ROWS_GRAD("hk.RMSNormGrad"),
    GROUPS("InstanceNormalization", 1, 5, instance_attr_1, instance_old_cases),
    GROUPS("InstanceNormalization", 6, 0, instance_attr_list, instance_cases),
    GROUPS("GroupNormalization", 18, 20, group_attr_18, group_old_cases),
    GROUPS("GroupNormalization", 21, 0, group_attr_21, group_cases),
    {.type = "hk.GroupNormGrad",
     .since = 1,
     .in_min = 5,
     .in_max = 5,
     .out_min = 1,
     .out_max = 3,
     .attrs_bytes = sizeof(group_attrs),
     .attrs = group_attr_grad,
     .infer = groups_grad_infer,
     .eval = groups_grad_eval,
     .lower = groups_grad_lower,
     .cases = groups_grad_cases},
    {0},
};
