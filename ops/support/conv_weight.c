/* Weight gradient of convolutions in contiguous float32. */
#include "kernels.h"
#include "ops/support/conv_weight.h"
#include "ops/support/conv_tile.h"
#include "ops/support/conv_units.h"
#include "ops/support/gemm.h"
#include "shaders/conv_weight.push.h"
#include "shaders/conv_weight_rows.push.h"

enum { H = HK_AXIS_H, W = HK_AXIS_W };

bool hk_weight_result_begin(hk_lower *l, const hk_conv_job *job, uint32_t splits, hk_weight_result *out)
{
    *out = (hk_weight_result){
        .weights = hk_shape_count(&job->w->shape), .biases = job->bias ? job->p.k : 0, .splits = splits};
    if (splits > 1)
        out->partial = hk_scratch(l, HK_FLOAT32, (out->weights + out->biases) * splits);
    return splits == 1 || out->partial;
}

void hk_weight_result_use(hk_record *r, const hk_conv_job *job, const hk_weight_result *w, size_t dw, size_t db)
{
    if (!w->partial) {
        hk_use(r, job->w, HK_WRITE, dw);
        hk_use(r, job->bias, HK_WRITE, db);
        return;
    }
    uint64_t bytes = hk_value_bytes(w->partial), weights = (uint64_t)w->weights * 4;
    hk_use_range(r, w->partial, 0, bytes, HK_WRITE, dw);
    if (w->biases)
        hk_use_range(r, w->partial, weights, bytes - weights, HK_WRITE, db);
}

void hk_weight_result_end(hk_lower *l, const hk_conv_job *job, const hk_weight_result *w)
{
    if (w->partial)
        hk_conv_emit_sum(l, &(hk_conv_sum){.partial = w->partial,
                                           .splits = w->splits,
                                           .count = w->weights,
                                           .bias_count = w->biases,
                                           .out = job->w,
                                           .bias_out = job->bias});
}

/* ---- the matrix kernel */

/* Limits of the packed taps and masks; narrow groups would fill the smallest tile with padding. */
static bool matrix_fits(const hk_conv *p)
{
    const hk_window *w = &p->w;
    bool narrow = p->groups > 1 && (p->k / p->groups < 16 || p->c / p->groups * hk_window_taps(w) < 16);
    return !narrow && w->in[0] == 1 && w->out[0] == 1 && w->kernel[0] == 1 && w->begin[0] == 0 && w->kernel[H] <= 31 &&
           w->kernel[W] <= 31 && (hk_window_taps(w) < 32 || (w->kernel[H] <= 16 && w->kernel[W] <= 16)) &&
           w->begin[H] < 65536 && w->begin[W] < 65536;
}

void hk_conv_weight_push(const hk_conv *p, const hk_weight_result *result, uint32_t bm, uint32_t bn, uint32_t k_split,
                         struct conv_weight_push *push)
{
    const hk_window *w = &p->w;
    uint32_t m = (uint32_t)(p->k / p->groups), n = (uint32_t)(p->c / p->groups * hk_window_taps(w));
    *push = (struct conv_weight_push){.m = m,
                                      .n = n,
                                      .groups = (uint32_t)p->groups,
                                      .tiles_m = (m + bm - 1) / bm,
                                      .tiles_n = (n + bn - 1) / bn,
                                      .splits = result->splits,
                                      .k = (uint32_t)(p->n * hk_window_out_count(w)),
                                      .k_split = k_split,
                                      .x_h = (uint32_t)w->in[H],
                                      .x_w = (uint32_t)w->in[W],
                                      .x_channels = (uint32_t)p->c,
                                      .y_h = (uint32_t)w->out[H],
                                      .y_w = (uint32_t)w->out[W],
                                      .pads = (uint32_t)w->begin[H] | (uint32_t)w->begin[W] << 16,
                                      .split_stride = (uint32_t)(result->weights + result->biases)};
}

static hk_conv_extent extent_of(const hk_conv *p)
{
    return (hk_conv_extent){.m = p->k / p->groups,
                            .n = p->c / p->groups * hk_window_taps(&p->w),
                            .k = p->n * hk_window_out_count(&p->w),
                            .groups = p->groups,
                            .most_splits = 1056,
                            .weight = true};
}

static hk_status lower_matrix(hk_lower *l, const hk_conv_job *job)
{
    const hk_conv *p = &job->p;
    const hk_window *w = &p->w;
    hk_conv_extent extent = extent_of(p);
    char problem[HK_PROBLEM_BYTES];
    extent.problem = hk_conv_problem(l, job, problem);
    hk_conv_choice choice = job->tile ? hk_conv_split(&extent, job->tile, job->splits) : hk_conv_choose(l, &extent);
    const hk_conv_tile *t = choice.tile;
    hk_weight_result result;
    if (!hk_weight_result_begin(l, job, choice.splits, &result))
        return hk_out_of_memory(l->ctx, "a convolution's partial sums");
    hk_record *r = hk_emit(l, &hk_kernel_conv_weight, t->weight);
    struct conv_weight_push push;
    hk_conv_weight_push(p, &result, t->bm, t->bn, choice.k_split, &push);
    hk_push(r, &push, sizeof push);
    hk_use(r, job->x, HK_READ, offsetof(struct conv_weight_push, x));
    hk_use(r, job->y, HK_READ, offsetof(struct conv_weight_push, dy));
    hk_weight_result_use(r, job, &result, offsetof(struct conv_weight_push, dw), offsetof(struct conv_weight_push, db));
    hk_workgroup(r, hk_conv_tile_threads(t), 1, 1);
    hk_spec(r, 3, t->bm);
    hk_spec(r, 4, t->bn);
    hk_spec(r, 5, t->bk);
    hk_spec(r, 6, t->tm);
    hk_spec(r, 7, t->tn);
    hk_conv_window_specs(r, w, 8);
    hk_spec(r, 14, job->bias != NULL);
    hk_spec(r, 15, t->slices);
    r->flops = hk_conv_flops(p);
    hk_grid_1d(l, r, (uint64_t)push.tiles_m * push.tiles_n * push.groups * push.splits);
    hk_weight_result_end(l, job, &result);
    hk_choice_leave(l, HK_CHOICE_TILE);
    return HK_OK;
}

/* ---- single taps as a product over the pixels of all images, whose operands precision high splits once for all passes
 */

static hk_gemm points_of(const hk_conv_job *job)
{
    const hk_conv *p = &job->p;
    const hk_window *w = &p->w;
    int64_t in = hk_window_in_count(w), out = hk_window_out_count(w);
    hk_gemm g = {.a = job->y,
                 .b = job->x,
                 .c = job->w,
                 .m = p->k,
                 .n = p->c,
                 .k = p->n * out,
                 .plane_k = out,
                 .lda = out,
                 .ldb = in,
                 .trans_b = true,
                 .batch_a = {p->k * out},
                 .batch_b = {p->c * in},
                 .alpha = 1};
    if (in != out) {
        g.line = w->out[W];
        g.line_step = w->stride[H] * w->in[W];
        g.pixel_step = w->stride[W];
    }
    return g;
}

static bool prefers_points(const hk_lower *l, const hk_conv_job *job, double tiles)
{
    const hk_conv *p = &job->p;
    const hk_window *w = &p->w;
    if (l->precision != HK_PRECISION_HIGH || job->tile || job->bias || p->groups != 1 || !hk_window_is_point(w))
        return false;
    hk_gemm g = points_of(job);
    return hk_gemm_units_time(l, &g) < HK_UNITS_SURE * tiles;
}

/* ---- the general kernel */

enum { ROWS_TAPS = 9 }; /* sums a lane keeps per output channel */

/* Splits so that a lane adds no more than some thousand products in a row (rounding), and that GPUs are filled. */
static uint32_t rows_splits(const hk_lower *l, int64_t workgroups, int64_t pixels, uint32_t lanes)
{
    int64_t exact = (pixels + (int64_t)lanes * 2048 - 1) / ((int64_t)lanes * 2048);
    int64_t fill = (8 * (int64_t)l->compute_units_hint + workgroups - 1) / workgroups;
    fill = HK_MIN(fill, pixels / ((int64_t)lanes * 16));
    return (uint32_t)HK_MAX(HK_MIN(HK_MAX(exact, l->cpu ? 1 : fill), 1024), 1);
}

void hk_conv_lower_weight_rows(hk_lower *l, const hk_conv_job *job)
{
    const hk_conv *p = &job->p;
    const hk_window *w = &p->w;
    uint32_t m = (uint32_t)(p->k / p->groups), channels = (uint32_t)(p->c / p->groups),
             taps = (uint32_t)hk_window_taps(w);
    uint32_t oc = HK_MIN(m, l->cpu ? 8u : 4u), chunks = (taps + ROWS_TAPS - 1) / ROWS_TAPS;
    uint32_t lanes = l->cpu ? 8 : HK_MIN(128u, l->device->max_invocations), blocks = (m + oc - 1) / oc;
    int64_t pixels = p->n * hk_window_out_count(w), workgroups = (int64_t)chunks * channels * blocks * p->groups;
    uint32_t k_split = (uint32_t)((pixels + rows_splits(l, workgroups, pixels, lanes) - 1) /
                                  rows_splits(l, workgroups, pixels, lanes));
    uint32_t splits = (uint32_t)((pixels + k_split - 1) / k_split);
    hk_weight_result result;
    if (!hk_weight_result_begin(l, job, splits, &result)) {
        l->failed = true;
        return;
    }
    hk_record *r = hk_emit(l, &hk_kernel_conv_weight_rows, "conv weight rows");
    struct conv_weight_rows_push push = {.m = m,
                                         .channels = channels,
                                         .groups = (uint32_t)p->groups,
                                         .blocks = blocks,
                                         .splits = splits,
                                         .k = (uint32_t)pixels,
                                         .k_split = k_split,
                                         .x_d = (uint32_t)w->in[0],
                                         .x_h = (uint32_t)w->in[H],
                                         .x_w = (uint32_t)w->in[W],
                                         .y_d = (uint32_t)w->out[0],
                                         .y_h = (uint32_t)w->out[H],
                                         .y_w = (uint32_t)w->out[W],
                                         .pad_d = (uint32_t)w->begin[0],
                                         .pad_h = (uint32_t)w->begin[H],
                                         .pad_w = (uint32_t)w->begin[W],
                                         .split_stride = (uint32_t)(result.weights + result.biases)};
    hk_push(r, &push, sizeof push);
    hk_use(r, job->x, HK_READ, offsetof(struct conv_weight_rows_push, x));
    hk_use(r, job->y, HK_READ, offsetof(struct conv_weight_rows_push, dy));
    hk_weight_result_use(r, job, &result, offsetof(struct conv_weight_rows_push, dw),
                         offsetof(struct conv_weight_rows_push, db));
    hk_workgroup(r, lanes, 1, 1);
    hk_spec(r, 3, oc);
    hk_spec(r, 4, (taps + chunks - 1) / chunks);
    hk_spec(r, 5, chunks);
    for (uint32_t axis = 0; axis < HK_AXES; axis++) {
        hk_spec(r, 6 + axis, (uint32_t)w->kernel[axis]);
        hk_spec(r, 9 + axis, (uint32_t)w->stride[axis]);
        hk_spec(r, 12 + axis, (uint32_t)w->dilation[axis]);
    }
    hk_spec(r, 15, job->bias != NULL);
    hk_spec(r, 16, lanes);
    r->flops = hk_conv_flops(p);
    hk_grid_1d(l, r, (uint64_t)workgroups * splits);
    hk_weight_result_end(l, job, &result);
}

hk_status hk_conv_lower_weight(hk_lower *l, const hk_conv_job *job)
{
    if (job->x->dtype != HK_FLOAT32)
        return hk_fail(l->ctx, HK_STATUS_UNSUPPORTED,
                       "node '%s' (%s): convolutions run on the device in float32, found %s; export "
                       "the model in float32",
                       l->node->name, l->node->type, hk_dtype_name(job->x->dtype));
    if (hk_shape_count(&job->y->shape) == 0) { /* sums over no pixel */
        hk_emit_fill(l, job->w, 0);
        if (job->bias)
            hk_emit_fill(l, job->bias, 0);
        return HK_OK;
    }
    if (hk_conv_prefers_depth(l, job))
        return hk_conv_lower_depth(l, job);
    if (!l->cpu && matrix_fits(&job->p) && hk_matrix_halves(l) == 2) {
        hk_conv_extent extent = extent_of(&job->p);
        double tiles = hk_conv_tiles_time(l, &extent);
        hk_gemm points = points_of(job);
        if (prefers_points(l, job, tiles))
            return hk_gemm_lower(l, &points);
        if (hk_conv_weight_prefers_winograd(l, job, tiles))
            return hk_conv_lower_weight_winograd(l, job);
    }
    if (!l->cpu && matrix_fits(&job->p))
        return hk_conv_weight_prefers_units(l, job) ? hk_conv_lower_weight_units(l, job) : lower_matrix(l, job);
    hk_conv_lower_weight_rows(l, job);
    return HK_OK;
}
