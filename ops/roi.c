/*
 * RoiAlign and MaxRoiPool, and
 *
 * hk.RoiAlignGrad(dY, rois, batch_indices; input_shape) -> dX     of mode avg
 *
 * An average over a bin's samples is separable, so the gradient is a gather: weights of every element of an axis in
 * every bin first, then for every element a sum over the regions of its image.
 */
#include <math.h>
#include <string.h>

#include "kernels.h"
#include "ops/support/conv_geometry.h"
#include "ops/support/move.h"
#include "ops/support/move_args.h"
#include "ops/support/reduce.h"
#include "shaders/roi.push.h"

typedef struct roi_attrs {
    const char *mode, *coordinate_transformation_mode;
    int64_t output_height, output_width, sampling_ratio;
    float spatial_scale;
    hk_ints pooled_shape, input_shape; /* input_shape: of the gradient, batch and spatial extents */
} roi_attrs;

#define ALIGN_ATTRS(transform)                                                                                         \
    HK_STRING_ATTR(roi_attrs, mode, "avg"), HK_INT_ATTR(roi_attrs, output_height, 1),                                  \
        HK_INT_ATTR(roi_attrs, output_width, 1), HK_INT_ATTR(roi_attrs, sampling_ratio, 0),                            \
        HK_FLOAT_ATTR(roi_attrs, spatial_scale, 1.0),                                                                  \
        HK_STRING_ATTR(roi_attrs, coordinate_transformation_mode, transform)
static const hk_attr old_attr_list[] = {ALIGN_ATTRS("output_half_pixel"), {0}};
static const hk_attr attr_list[] = {ALIGN_ATTRS("half_pixel"), {0}};
static const hk_attr grad_attr_list[] = {
    ALIGN_ATTRS("half_pixel"),
    {.name = "input_shape", .kind = HK_ATTR_INTS, .offset = offsetof(roi_attrs, input_shape), .required = true},
    {0}};
static const hk_attr pool_attr_list[] = {
    {.name = "pooled_shape", .kind = HK_ATTR_INTS, .offset = offsetof(roi_attrs, pooled_shape), .required = true},
    HK_FLOAT_ATTR(roi_attrs, spatial_scale, 1.0),
    {0}};

static bool half_pixel(const roi_attrs *a)
{
    return !strcmp(a->coordinate_transformation_mode, "half_pixel");
}

/* ---- shapes */

static hk_status check_attrs(const hk_infer *in)
{
    const roi_attrs *a = in->node->attrs;
    bool align = in->node->op->attrs != pool_attr_list;
    if (align && ((strcmp(a->mode, "avg") != 0 && strcmp(a->mode, "max") != 0) ||
                  (!half_pixel(a) && strcmp(a->coordinate_transformation_mode, "output_half_pixel") != 0)))
        return hk_infer_fail(in, HK_STATUS_INVALID, "mode '%s' with coordinates '%s' is none that the standard has",
                             a->mode, a->coordinate_transformation_mode);
    if (align && (a->output_height < 1 || a->output_width < 1 || a->sampling_ratio < 0 || a->sampling_ratio > 4096))
        return hk_infer_fail(in, HK_STATUS_INVALID,
                             "expected a positive output size and a sampling_ratio from 0 to 4096");
    if (!align && (a->pooled_shape.count != 2 || a->pooled_shape.v[0] < 1 || a->pooled_shape.v[1] < 1))
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected a pooled_shape of two positive entries");
    return HK_OK;
}

/* rois [regions, entries], batch_indices [regions] where there are any. */
static hk_status check_regions(const hk_infer *in, int32_t rois_at, int64_t entries, int64_t *regions)
{
    const hk_value *rois = in->node->in[rois_at], *batch = hk_in(in->node, rois_at + 1);
    hk_shape_text text;
    *regions = rois->shape.rank < 0 ? -1 : rois->shape.dim[0];
    if (!hk_dtype_is_float(rois->dtype) || (batch && batch->dtype != HK_INT64 && batch->dtype != HK_INT32))
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected float regions and int64 batch indices");
    if (rois->shape.rank >= 0 && (rois->shape.rank != 2 || (rois->shape.dim[1] >= 0 && rois->shape.dim[1] != entries)))
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected regions [count,%lld], found %s", (long long)entries,
                             hk_shape_print(&rois->shape, &text));
    if (batch && batch->shape.rank >= 0 &&
        (batch->shape.rank != 1 || (*regions >= 0 && batch->shape.dim[0] >= 0 && batch->shape.dim[0] != *regions)))
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected one batch index for each of %lld regions",
                             (long long)*regions);
    return HK_OK;
}

static hk_status roi_infer(hk_infer *in)
{
    const roi_attrs *a = in->node->attrs;
    const hk_value *x = in->node->in[0];
    bool pool = in->node->op->attrs == pool_attr_list;
    int64_t regions;
    HK_TRY(check_attrs(in));
    HK_TRY(check_regions(in, 1, pool ? 5 : 4, &regions));
    if (!hk_dtype_is_float(x->dtype) || (x->shape.rank >= 0 && x->shape.rank != 4))
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected a float input [batch,channels,height,width]");
    hk_shape y = {4,
                  {regions, x->shape.rank < 0 ? -1 : x->shape.dim[1], pool ? a->pooled_shape.v[0] : a->output_height,
                   pool ? a->pooled_shape.v[1] : a->output_width}};
    return hk_infer_output(in, 0, x->dtype, &y);
}

static hk_status grad_infer(hk_infer *in)
{
    const roi_attrs *a = in->node->attrs;
    const hk_value *dy = in->node->in[0];
    int64_t regions;
    HK_TRY(check_attrs(in));
    HK_TRY(check_regions(in, 1, 4, &regions));
    if (!hk_dtype_is_float(dy->dtype) || dy->shape.rank != 4 || a->input_shape.count != 3)
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected a float dY of rank 4 and an input_shape of 3 entries");
    const int64_t *s = a->input_shape.v;
    return hk_infer_output(in, 0, dy->dtype, &(hk_shape){4, {s[0], dy->shape.dim[1], s[1], s[2]}});
}

/* ---- the oracle */

typedef struct bins {
    double start, size;
    int64_t samples;
} bins;

static bins bins_of(const roi_attrs *a, const hk_tensor *rois, int64_t r, int32_t axis, int64_t count)
{
    double shift = half_pixel(a) ? 0.5 : 0, scale = (double)a->spatial_scale;
    double low = hk_get_double(rois, 4 * r + axis) * scale - shift,
           extent = hk_get_double(rois, 4 * r + axis + 2) * scale - shift - low;
    if (!half_pixel(a))
        extent = HK_MAX(extent, 1.0);
    bins b = {.start = low, .size = extent / (double)count, .samples = a->sampling_ratio};
    if (b.samples == 0)
        b.samples = (int64_t)HK_MIN(HK_MAX(ceil((double)(float)b.size), 0.0), 4096.0);
    return b;
}

/* False: outside. */
static bool sample_at(const bins *b, int64_t bin, int64_t k, int64_t extent, int64_t at[2], double weight[2])
{
    double x = b->start + (double)bin * b->size + ((double)k + 0.5) * b->size / (double)b->samples;
    at[0] = at[1] = 0;
    weight[0] = weight[1] = 0;
    if (!(x >= -1 && x <= (double)extent))
        return false;
    x = HK_MAX(x, 0.0);
    at[0] = HK_MIN((int64_t)x, extent - 1);
    at[1] = HK_MIN(at[0] + 1, extent - 1);
    weight[1] = at[0] + 1 >= extent ? 0 : x - (double)at[0];
    weight[0] = 1 - weight[1];
    return true;
}

/* Calls `visit` with element, weight for the four neighbours of every sample of a bin; returns how many samples. */
typedef struct visitor {
    double *plane; /* of x or dX */
    double result, dy;
    bool maximum, backward, any;
} visitor;

static void visit_bin(const bins *by, const bins *bx, int64_t row, int64_t column, const hk_shape *x, visitor *v)
{
    for (int64_t i = 0; i < by->samples * bx->samples; i++) {
        int64_t ys[2], xs[2];
        double wy[2], wx[2], best = -INFINITY;
        bool inside = sample_at(by, row, i / bx->samples, x->dim[2], ys, wy);
        inside &= sample_at(bx, column, i % bx->samples, x->dim[3], xs, wx);
        for (int k = 0; k < 4; k++) {
            double w = inside ? wy[k / 2] * wx[k % 2] : 0, *at = &v->plane[ys[k / 2] * x->dim[3] + xs[k % 2]];
            best = HK_MAX(best, w * *at);
            if (v->backward)
                *at += w * v->dy;
            else if (!v->maximum)
                v->result += w * *at;
        }
        if (v->maximum)
            v->result = v->any ? HK_MAX(v->result, best) : best;
        v->any = true;
    }
}

/* Forward, or backward: x is then dX. */
static hk_status walk(hk_eval *e, const hk_shape *xs, const hk_tensor *rois, const hk_tensor *batch, double *x,
                      hk_tensor *y, const hk_tensor *dy)
{
    const roi_attrs *a = e->node->attrs;
    int64_t plane = xs->dim[2] * xs->dim[3], count = hk_tensor_count(dy ? dy : y),
            per = a->output_height * a->output_width;
    for (int64_t i = 0; i < count; i++) {
        int64_t bin = i % per, c = i / per % xs->dim[1], r = i / per / xs->dim[1], n = hk_get_int(batch, r);
        if (n < 0 || n >= xs->dim[0])
            return hk_eval_fail(e, HK_STATUS_INVALID, "region %lld is of image %lld, there are %lld", (long long)r,
                                (long long)n, (long long)xs->dim[0]);
        bins by = bins_of(a, rois, r, 1, a->output_height), bx = bins_of(a, rois, r, 0, a->output_width);
        double samples = (double)HK_MAX(by.samples * bx.samples, 1);
        visitor v = {.plane = x + (n * xs->dim[1] + c) * plane,
                     .maximum = !dy && !strcmp(a->mode, "max"),
                     .backward = dy != NULL,
                     .dy = dy ? hk_get_double(dy, i) / samples : 0};
        visit_bin(&by, &bx, bin / a->output_width, bin % a->output_width, xs, &v);
        if (y)
            hk_set_double(y, i, v.maximum ? v.result : v.result / samples);
    }
    return HK_OK;
}

static hk_status align_eval(hk_eval *e)
{
    const roi_attrs *a = e->node->attrs;
    hk_shape xs = hk_tensor_shape(e->in[0]),
             ys = {4, {e->in[1]->shape[0], xs.dim[1], a->output_height, a->output_width}};
    hk_tensor *y = hk_eval_output(e, 0, e->in[0]->dtype, &ys);
    double *x = hk_tensor_doubles(e->arena, e->in[0]);
    if (!y || !x)
        return hk_out_of_memory(e->ctx, "evaluating RoiAlign");
    return walk(e, &xs, e->in[1], e->in[2], x, y, NULL);
}

static hk_status grad_eval(hk_eval *e)
{
    const int64_t *s = ((const roi_attrs *)e->node->attrs)->input_shape.v;
    hk_shape xs = {4, {s[0], e->in[0]->shape[1], s[1], s[2]}};
    hk_tensor *out = hk_eval_output(e, 0, e->in[0]->dtype, &xs);
    double *dx = out ? hk_tensor_doubles(e->arena, out) : NULL;
    if (!dx)
        return hk_out_of_memory(e->ctx, "evaluating RoiAlign's gradient");
    HK_TRY(walk(e, &xs, e->in[1], e->in[2], dx, NULL, e->in[0]));
    for (int64_t i = 0; i < hk_tensor_count(out); i++)
        hk_set_double(out, i, dx[i]);
    return HK_OK;
}

/* First and end of a bin whose region has whole corners. */
static void bin_of(int64_t low, int64_t high, int64_t bin, int64_t count, int64_t extent, int64_t out[2])
{
    int64_t size = HK_MAX(high - low + 1, 1);
    out[0] = HK_MIN(HK_MAX(bin * size / count + low, 0), extent);
    out[1] = HK_MIN(HK_MAX(((bin + 1) * size + count - 1) / count + low, 0), extent);
}

static hk_status pool_eval(hk_eval *e)
{
    const roi_attrs *a = e->node->attrs;
    hk_shape xs = hk_tensor_shape(e->in[0]);
    int64_t h = a->pooled_shape.v[0], w = a->pooled_shape.v[1];
    hk_tensor *y = hk_eval_output(e, 0, e->in[0]->dtype, &(hk_shape){4, {e->in[1]->shape[0], xs.dim[1], h, w}});
    if (!y)
        return hk_out_of_memory(e->ctx, "evaluating MaxRoiPool");
    for (int64_t i = 0; i < hk_tensor_count(y); i++) {
        int64_t c = i / (h * w) % xs.dim[1], r = i / (h * w) / xs.dim[1], box[4], rows[2], columns[2];
        int64_t n = (int64_t)hk_get_double(e->in[1], 5 * r);
        if (n < 0 || n >= xs.dim[0])
            return hk_eval_fail(e, HK_STATUS_INVALID, "region %lld is of image %lld, there are %lld", (long long)r,
                                (long long)n, (long long)xs.dim[0]);
        for (int k = 0; k < 4; k++)
            box[k] = (int64_t)round((double)((float)hk_get_double(e->in[1], 5 * r + 1 + k) * a->spatial_scale));
        bin_of(box[1], box[3], i / w % h, h, xs.dim[2], rows);
        bin_of(box[0], box[2], i % w, w, xs.dim[3], columns);
        double best = 0;
        bool any = false;
        for (int64_t p = rows[0]; p < rows[1]; p++)
            for (int64_t q = columns[0]; q < columns[1]; q++) {
                double v = hk_get_double(e->in[0], ((n * xs.dim[1] + c) * xs.dim[2] + p) * xs.dim[3] + q);
                best = !any || v > best || isnan(v) ? v : best;
                any = true;
            }
        hk_set_double(y, i, best);
    }
    return HK_OK;
}

/* ---- the device */

static struct roi_push push_of(const roi_attrs *a, const hk_shape *x, const hk_shape *y)
{
    return (struct roi_push){.regions = (uint32_t)y->dim[0],
                             .channels = (uint32_t)x->dim[1],
                             .images = (uint32_t)x->dim[0],
                             .in_h = (uint32_t)x->dim[2],
                             .in_w = (uint32_t)x->dim[3],
                             .out_h = (uint32_t)y->dim[2],
                             .out_w = (uint32_t)y->dim[3],
                             .samples = (int32_t)a->sampling_ratio,
                             .scale = a->spatial_scale};
}

/* A dispatch over `places` times chunks of channels. */
static hk_record *emit(hk_lower *l, const hk_kernel *kernel, const char *variant, const roi_attrs *a,
                       struct roi_push *push, int64_t places, uint32_t chunk)
{
    const hk_node *n = l->node;
    hk_record *r = hk_emit(l, kernel, variant);
    push->chunks = (push->channels + chunk - 1) / chunk;
    push->count = (uint32_t)(places * push->chunks);
    push->shift = half_pixel(a) ? 0.5f : 0.0f;
    hk_push(r, push, sizeof *push);
    hk_use(r, n->in[1], HK_READ, offsetof(struct roi_push, rois));
    hk_use(r, n->in[2], HK_READ, offsetof(struct roi_push, batch));
    hk_spec(r, 3, hk_value_storage(n->in[2]) == HK_INT64);
    hk_spec(r, 4, !half_pixel(a));
    hk_spec(r, 5, !strcmp(a->mode, "max"));
    hk_spec(r, 6, chunk);
    hk_move_grid(l, r, push->count);
    return r;
}

/* Channels of an invocation: as many as leave the device full. */
static uint32_t chunk_of(const hk_lower *l, int64_t places, int64_t channels)
{
    uint32_t chunk = 4;
    while (chunk > 1 &&
           (chunk > channels || (!l->cpu && places * channels / chunk < 512 * (int64_t)l->compute_units_hint)))
        chunk /= 2;
    return chunk;
}

static hk_status align_lower(hk_lower *l)
{
    const hk_node *n = l->node;
    const roi_attrs *a = n->attrs;
    hk_value *x = n->in[0], *y = n->out[0];
    HK_TRY(hk_require_float32(l, x));
    HK_TRY(hk_require_float32(l, n->in[1]));
    if (hk_shape_count(&y->shape) == 0)
        return HK_OK;
    if (hk_shape_count(&x->shape) == 0) {
        hk_emit_fill(l, y, 0);
        return HK_OK;
    }
    struct roi_push push = push_of(a, &x->shape, &y->shape);
    int64_t places = y->shape.dim[0] * y->shape.dim[2] * y->shape.dim[3];
    hk_record *r = emit(l, &hk_kernel_roi_align, "roi align", a, &push, places, chunk_of(l, places, x->shape.dim[1]));
    hk_use(r, x, HK_READ, offsetof(struct roi_push, x));
    hk_use(r, y, HK_WRITE, offsetof(struct roi_push, y));
    return HK_OK;
}

static hk_status grad_lower(hk_lower *l)
{
    const hk_node *n = l->node;
    const roi_attrs *a = n->attrs;
    hk_value *dy = n->in[0], *dx = n->out[0];
    HK_TRY(hk_require_float32(l, dy));
    HK_TRY(hk_require_float32(l, n->in[1]));
    if (hk_shape_count(&dx->shape) == 0)
        return HK_OK;
    if (hk_shape_count(&dy->shape) == 0) {
        hk_emit_fill(l, dx, 0);
        return HK_OK;
    }
    struct roi_push push = push_of(a, &dx->shape, &dy->shape);
    int64_t rows_count = dy->shape.dim[0] * dy->shape.dim[2] * dx->shape.dim[2],
            columns_count = dy->shape.dim[0] * dy->shape.dim[3] * dx->shape.dim[3],
            places = dx->shape.dim[0] * dx->shape.dim[2] * dx->shape.dim[3];
    if (rows_count + columns_count > INT32_MAX)
        return hk_fail(l->ctx, HK_STATUS_UNSUPPORTED,
                       "node '%s' (%s): too many regions for its gradient; use fewer at a time", n->name, n->type);
    hk_value *rows = hk_scratch(l, HK_FLOAT32, rows_count), *columns = hk_scratch(l, HK_FLOAT32, columns_count);
    if (!rows || !columns)
        return hk_out_of_memory(l->ctx, "the weights of regions");
    struct roi_push weights = push;
    weights.channels = 1;
    hk_record *r = emit(l, &hk_kernel_roi_weights, "roi weights", a, &weights, rows_count + columns_count, 1);
    hk_use(r, rows, HK_WRITE, offsetof(struct roi_push, rows));
    hk_use(r, columns, HK_WRITE, offsetof(struct roi_push, columns));
    r = emit(l, &hk_kernel_roi_grad, "roi align gradient", a, &push, places, chunk_of(l, places, dx->shape.dim[1]));
    hk_use(r, dy, HK_READ, offsetof(struct roi_push, x));
    hk_use(r, rows, HK_READ, offsetof(struct roi_push, rows));
    hk_use(r, columns, HK_READ, offsetof(struct roi_push, columns));
    hk_use(r, dx, HK_WRITE, offsetof(struct roi_push, y));
    return HK_OK;
}

static hk_status pool_lower(hk_lower *l)
{
    const hk_node *n = l->node;
    hk_value *x = n->in[0], *y = n->out[0];
    HK_TRY(hk_require_float32(l, x));
    HK_TRY(hk_require_float32(l, n->in[1]));
    int64_t count = hk_shape_count(&y->shape);
    if (count == 0)
        return HK_OK;
    if (hk_shape_count(&x->shape) == 0) {
        hk_emit_fill(l, y, 0);
        return HK_OK;
    }
    struct roi_push push = push_of(n->attrs, &x->shape, &y->shape);
    push.count = (uint32_t)count;
    hk_record *r = hk_emit(l, &hk_kernel_roi_pool, "max roi pool");
    hk_push(r, &push, sizeof push);
    hk_use(r, x, HK_READ, offsetof(struct roi_push, x));
    hk_use(r, n->in[1], HK_READ, offsetof(struct roi_push, rois));
    hk_use(r, y, HK_WRITE, offsetof(struct roi_push, y));
    hk_move_grid(l, r, count);
    return HK_OK;
}

/* ---- the gradient: regions are constants of the loss, as in PyTorch */

static hk_status align_backward(hk_gradient *g, hk_node *n)
{
    hk_graph *graph = hk_gradient_graph(g);
    const roi_attrs *a = n->attrs;
    const hk_shape *x = &n->in[0]->shape;
    hk_args args = hk_node_args(graph->ctx, n);
    hk_value *dx;
    if (!hk_gradient_wanted(g, n->in[0]))
        return HK_OK;
    if (!hk_shape_known(x))
        return hk_args_shape_wanted(&args);
    if (strcmp(a->mode, "avg") != 0)
        return hk_fail(graph->ctx, HK_STATUS_UNSUPPORTED,
                       "node '%s' (RoiAlign): mode max has no gradient; export the model with mode avg", n->name);
    const int64_t shape[] = {x->dim[0], x->dim[2], x->dim[3]};
    const hk_attr_value values[] = {HK_SET_STRING("mode", a->mode),
                                    HK_SET_STRING("coordinate_transformation_mode", a->coordinate_transformation_mode),
                                    HK_SET_INT("output_height", a->output_height),
                                    HK_SET_INT("output_width", a->output_width),
                                    HK_SET_INT("sampling_ratio", a->sampling_ratio),
                                    HK_SET_FLOAT("spatial_scale", a->spatial_scale),
                                    HK_SET_INTS("input_shape", shape, 3),
                                    {0}};
    HK_TRY(hk_build(graph, "hk.RoiAlignGrad", values, (hk_value *[]){hk_gradient_of(g, n->out[0]), n->in[1], n->in[2]},
                    3, &dx, 1));
    return hk_gradient_add(g, n->in[0], dx);
}

/* ---- cases */

#define ROIS "f32[3,4]={0.5,1.0,4.5,5.0,-1.5,0.0,7.0,3.25,2.0,2.0,2.25,2.5}"

static const char *const align_cases[] = {
    "f32[2,3,6,7] " ROIS " i64={1,0,1} ; output_height=2 output_width=3 sampling_ratio=2",
    "f32[2,3,6,7] " ROIS " i64={1,0,1} ; output_height=2 output_width=2",
    "f32[2,5,6,7] " ROIS " i64={0,0,1} ; output_height=3 output_width=1 spatial_scale=0.5 sampling_ratio=3 "
    "coordinate_transformation_mode=\"output_half_pixel\"",
    "f32[2,3,6,7] " ROIS " i64={1,0,1} ; output_height=2 output_width=2 mode=\"max\" sampling_ratio=2 ; nograd",
    "f32[2,3,6,7] f32[0,4] i64[0]<2 ; ; nograd",
    "f32[1,64,20,20] f32[40,4]+ i64[40]<1 ; output_height=7 output_width=7 sampling_ratio=2 spatial_scale=8.0 ; nograd",
    NULL,
};
static const char *const align_old_cases[] = {
    "f32[2,3,6,7] " ROIS " i64={1,0,1} ; output_height=2 output_width=3 sampling_ratio=2", NULL};
static const char *const grad_cases[] = {
    "f32[3,3,2,3] " ROIS " i64={1,0,1} ; output_height=2 output_width=3 sampling_ratio=2 input_shape=[2,6,7] ; nograd",
    "f32[3,5,2,2] " ROIS " i64={1,0,1} ; output_height=2 output_width=2 input_shape=[2,6,7] "
    "coordinate_transformation_mode=\"output_half_pixel\" ; nograd",
    "f32[0,3,1,1] f32[0,4] i64[0]<2 ; input_shape=[2,6,7] ; nograd",
    NULL,
};
static const char *const pool_cases[] = {
    "f32[2,3,6,7] f32[3,5]={1,0,0,4,5,0,1,2,9,9,1,5.5,4.5,6,5} ; pooled_shape=[2,3] ; nograd",
    "f32[1,2,8,8] f32[2,5]={0,2,2,2,2,0,-9,-9,-5,30} ; pooled_shape=[3,3] spatial_scale=0.5 ; nograd",
    "f32[1,2,8,8] f32[0,5] ; pooled_shape=[1,1] ; nograd",
    NULL,
};

#define OP(name, first, last, ins, list, infer_rule, fn, back, case_list)                                              \
    {                                                                                                                  \
        .type = name, .since = first, .until = last, .in_min = ins, .in_max = ins, .out_min = 1, .out_max = 1,         \
        .attrs_bytes = sizeof(roi_attrs), .attrs = list, .infer = infer_rule, .eval = fn##_eval, .lower = fn##_lower,  \
        .backward = back, .cases = case_list                                                                           \
    }

const hk_op hk_ops_roi[] = {
    OP("RoiAlign", 10, 15, 3, old_attr_list, roi_infer, align, align_backward, align_old_cases),
    OP("RoiAlign", 16, 0, 3, attr_list, roi_infer, align, align_backward, align_cases),
    OP("hk.RoiAlignGrad", 1, 0, 3, grad_attr_list, grad_infer, grad, NULL, grad_cases),
    OP("MaxRoiPool", 1, 0, 2, pool_attr_list, roi_infer, pool, NULL, pool_cases),
    {0},
};
