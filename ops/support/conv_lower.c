/* Forward convolution and data gradient in contiguous float32: the matrix kernel, the direct kernel, the end of splits.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels.h"
#include "ops/support/conv_gather.h"
#include "ops/support/conv_tile.h"
#include "ops/support/conv_units.h"
#include "ops/support/gemm.h"
#include "shaders/conv_direct.push.h"
#include "shaders/conv_gemm.push.h"
#include "shaders/conv_sum.push.h"
#include "shaders/conv_thin.push.h"

enum { H = HK_AXIS_H, W = HK_AXIS_W };
enum { EPILOGUE_BIAS = 1, EPILOGUE_RESIDUAL = 2, EPILOGUE_PARTIAL = 4 };

double hk_conv_flops(const hk_conv *p)
{
    return 2.0 * (double)(p->n * p->k) * (double)(p->c / p->groups) *
           (double)(hk_window_out_count(&p->w) * hk_window_taps(&p->w));
}

void hk_conv_window_specs(hk_record *r, const hk_window *w, uint32_t id)
{
    for (uint32_t i = 0; i < 2; i++) {
        hk_spec(r, id + i, (uint32_t)w->kernel[H + i]);
        hk_spec(r, id + 2 + i, (uint32_t)w->stride[H + i]);
        hk_spec(r, id + 4 + i, (uint32_t)w->dilation[H + i]);
    }
}

uint32_t hk_conv_epilogue(const hk_conv_job *job)
{
    return (job->bias ? EPILOGUE_BIAS : 0u) | (job->residual ? EPILOGUE_RESIDUAL : 0u);
}

/* ---- splits */

static int64_t result_plane(const hk_conv_job *job)
{
    return job->pass == HK_CONV_FORWARD ? hk_window_out_count(&job->p.w) : hk_window_in_count(&job->p.w);
}

void hk_conv_emit_sum(hk_lower *l, const hk_conv_sum *s)
{
    hk_record *r = hk_emit(l, &hk_kernel_conv_sum, "conv sum of splits");
    const hk_conv_job *job = s->epilogue;
    struct conv_sum_push push = {
        .splits = s->splits, .count = (uint32_t)s->count, .bias_count = (uint32_t)s->bias_count};
    push.channels = 1;
    push.stride = (uint32_t)(hk_shape_count(&s->partial->shape) / s->splits);
    if (s->taps) {
        hk_divisor d = hk_divisor_of(s->channels);
        push.channels = (uint32_t)s->channels;
        push.plane_magic = d.multiplier;
        push.plane_shift = d.shift;
        push.row = (uint32_t)(s->taps * ((s->channels + 7) / 8 * 8));
        push.bias_first = (uint32_t)(s->count / (s->taps * s->channels)) * push.row;
    }
    if (job) {
        hk_divisor d = hk_divisor_of(result_plane(job));
        push.channels = (uint32_t)(job->pass == HK_CONV_FORWARD ? job->p.k : job->p.c);
        push.plane_magic = d.multiplier;
        push.plane_shift = d.shift;
        push.alpha = job->alpha;
        push.beta = job->beta;
    }
    hk_push(r, &push, sizeof push);
    hk_use(r, s->partial, HK_READ, offsetof(struct conv_sum_push, partial));
    hk_use(r, s->out, HK_WRITE, offsetof(struct conv_sum_push, y));
    hk_use(r, s->bias_out, HK_WRITE, offsetof(struct conv_sum_push, bias_y));
    if (job) {
        hk_use(r, job->bias, HK_READ, offsetof(struct conv_sum_push, bias));
        hk_use(r, job->residual, HK_READ, offsetof(struct conv_sum_push, residual));
    }
    int64_t total = s->count + s->bias_count;
    bool wide = s->taps == 0 && s->count % 4 == 0 && s->bias_count % 4 == 0 && hk_value_alignment(s->out) == 16 &&
                (!s->bias_out || hk_value_alignment(s->bias_out) == 16) &&
                (!job || (result_plane(job) % 4 == 0 && (!job->residual || hk_value_alignment(job->residual) == 16)));
    int64_t units = wide ? total / 4 : total;
    /* Few results with many parts are summed by several lanes each, or they would wait on memory one by one. */
    bool lanes = !l->cpu && s->splits >= 16 && units < 64 * 1024;
    uint32_t x = lanes ? 16 : HK_MIN(128u, l->device->max_invocations),
             y = lanes ? HK_MIN(16u, l->device->max_invocations / 16) : 1;
    hk_workgroup(r, x, y, 1);
    hk_spec(r, 3, job ? hk_conv_epilogue(job) : 0);
    hk_spec(r, 4, job ? job->activation : 0);
    hk_spec(r, 5, y);
    hk_spec(r, 6, x);
    hk_spec(r, 7, wide);
    hk_spec(r, 8, (uint32_t)s->taps);
    hk_grid_1d(l, r, (uint64_t)((units + x - 1) / x));
    r->flops = (double)total * s->splits;
}

/* ---- the matrix kernel */

static void matrix_specs(hk_record *r, const hk_gather *v, const hk_conv_job *job, const hk_conv_tile *t, bool classes)
{
    const hk_window *w = &v->p->w;
    bool point = hk_gather_is_point(v), dense = point && v->source_plane == v->out_plane && v->source_plane % 4 == 0 &&
                                                hk_value_alignment(v->source) == 16;
    bool wide = !classes && v->out_plane % 4 == 0 && hk_value_alignment(v->result) == 16 &&
                (!job->residual || hk_value_alignment(job->residual) == 16);
    hk_spec(r, 3, t->bm);
    hk_spec(r, 4, t->bn);
    hk_spec(r, 5, t->bk);
    hk_spec(r, 6, t->tm);
    hk_spec(r, 7, t->tn);
    hk_conv_window_specs(r, w, 8);
    hk_spec(r, 14, v->forward);
    hk_spec(r, 15, classes);
    hk_spec(r, 16, dense);
    hk_spec(r, 17, wide);
    bool w_vectors = v->forward && v->w_row % 4 == 0 && hk_value_alignment(job->w) == 16 &&
                     t->bm * t->bk % (4 * hk_conv_tile_threads(t)) == 0;
    hk_spec(r, 18, !v->forward && v->taps == 1 ? 2 : w_vectors ? 1 : 0);
    hk_spec(r, 21, t->slices);
    hk_spec(r, 22, t->stages);
    hk_spec(r, 23, point);
    hk_spec(r, 24, job->scale != NULL);
}

static hk_conv_extent extent_of(const hk_gather *v, const hk_gather_table *table)
{
    return (hk_conv_extent){.m = v->m,
                            .n = v->p->n * v->out_plane,
                            .k = table->most_k,
                            .groups = v->p->groups,
                            .most_splits = 32,
                            .bytes = 4.0 *
                                     (double)(hk_shape_count(&v->source->shape) + hk_shape_count(&v->result->shape))};
}

static hk_status lower_matrix(hk_lower *l, const hk_conv_job *job, const hk_gather *v)
{
    hk_gather_table table = hk_gather_table_size(v);
    char problem[HK_PROBLEM_BYTES];
    hk_conv_extent extent = extent_of(v, &table);
    extent.problem = hk_conv_problem(l, job, problem);
    hk_conv_choice choice = job->tile ? hk_conv_split(&extent, job->tile, job->splits) : hk_conv_choose(l, &extent);
    const hk_conv_tile *t = choice.tile;
    bool point = hk_gather_is_point(v);
    if (!point && !hk_gather_table_fill(l, v, t->bn, t->bk, &table))
        return hk_out_of_memory(l->ctx, "a convolution's table");
    int64_t count = hk_shape_count(&v->result->shape);
    hk_value *result = choice.splits > 1 ? hk_scratch(l, HK_FLOAT32, count * choice.splits) : v->result;
    if (!result)
        return hk_out_of_memory(l->ctx, "a convolution's partial sums");
    hk_record *r = hk_emit(l, &hk_kernel_conv_gemm, v->forward ? t->forward : t->data);
    struct conv_gemm_push push = hk_gather_push(job, v);
    push.k = (uint32_t)table.most_k;
    push.tiles_m = (uint32_t)((v->m + t->bm - 1) / t->bm);
    push.tiles_n = (uint32_t)(point ? (extent.n + t->bn - 1) / t->bn : table.tiles_n);
    push.splits = choice.splits;
    push.k_split = choice.k_split;
    hk_push(r, &push, sizeof push);
    hk_use(r, job->w, HK_READ, offsetof(struct conv_gemm_push, w));
    hk_use(r, v->source, HK_READ, offsetof(struct conv_gemm_push, source));
    hk_use(r, result, HK_WRITE, offsetof(struct conv_gemm_push, result));
    hk_workgroup(r, hk_conv_tile_threads(t), 1, 1);
    matrix_specs(r, v, job, t, table.classes > 1);
    if (choice.splits == 1) {
        hk_use(r, job->bias, HK_READ, offsetof(struct conv_gemm_push, bias));
        hk_use(r, job->residual, HK_READ, offsetof(struct conv_gemm_push, residual));
    }
    hk_spec(r, 19, choice.splits > 1 ? EPILOGUE_PARTIAL : hk_conv_epilogue(job));
    hk_spec(r, 20, choice.splits > 1 ? 0 : job->activation);
    if (point) {
        hk_use(r, job->scale, HK_READ, offsetof(struct conv_gemm_push, table));
    } else {
        r->block = table.words;
        r->block_bytes = table.bytes;
        r->block_offset = offsetof(struct conv_gemm_push, table);
    }
    r->flops = hk_conv_flops(v->p);
    hk_grid_1d(l, r, (uint64_t)push.tiles_m * push.tiles_n * push.groups * push.splits);
    if (choice.splits > 1)
        hk_conv_emit_sum(
            l, &(hk_conv_sum){
                   .partial = result, .splits = choice.splits, .count = count, .out = v->result, .epilogue = job});
    hk_choice_leave(l, HK_CHOICE_TILE);
    return HK_OK;
}

/* ---- the thin kernel */

enum { THIN_OC = 32, THIN_PIXELS = 2, THIN_MOST_K = 32, THIN_MOST_POINT_K = 16 };

/* Sums so short that a GEMM would only fill and empty its tiles, and pixels enough to fill the device without splits.
 */
static bool thin_fits(const hk_lower *l, const hk_conv_job *job, const hk_gather *v)
{
    const hk_window *w = &v->p->w;
    uint32_t lanes = HK_MIN(128u, l->device->max_invocations);
    int64_t workgroups = v->p->n * v->out_plane / (lanes * THIN_PIXELS) * ((v->m + THIN_OC - 1) / THIN_OC);
    return v->forward && !job->tile && !job->scale && v->p->groups == 1 && w->spatial < 3 &&
           v->channels * v->taps <= (v->taps == 1 ? THIN_MOST_POINT_K : THIN_MOST_K) && v->m > 16 &&
           w->begin[H] < 65536 && w->begin[W] < 65536 && workgroups >= 2 * l->compute_units_hint;
}

static void lower_thin(hk_lower *l, const hk_conv_job *job, const hk_gather *v)
{
    const hk_window *w = &v->p->w;
    hk_record *r = hk_emit(l, &hk_kernel_conv_thin, "conv thin nchw");
    uint32_t lanes = HK_MIN(128u, l->device->max_invocations), columns = (uint32_t)(v->p->n * v->out_plane);
    struct conv_thin_push push = {.m = (uint32_t)v->m,
                                  .blocks = (uint32_t)(v->m + THIN_OC - 1) / THIN_OC,
                                  .columns = columns,
                                  .x_h = (uint32_t)w->in[H],
                                  .x_w = (uint32_t)w->in[W],
                                  .y_h = (uint32_t)w->out[H],
                                  .y_w = (uint32_t)w->out[W],
                                  .pads = (uint32_t)w->begin[H] | (uint32_t)w->begin[W] << 16,
                                  .alpha = job->alpha,
                                  .beta = job->beta};
    hk_push(r, &push, sizeof push);
    hk_use(r, job->w, HK_READ, offsetof(struct conv_thin_push, w));
    hk_use(r, job->x, HK_READ, offsetof(struct conv_thin_push, x));
    hk_use(r, job->y, HK_WRITE, offsetof(struct conv_thin_push, y));
    hk_use(r, job->bias, HK_READ, offsetof(struct conv_thin_push, bias));
    hk_use(r, job->residual, HK_READ, offsetof(struct conv_thin_push, residual));
    hk_workgroup(r, lanes, 1, 1);
    hk_spec(r, 3, THIN_OC);
    hk_spec(r, 4, THIN_PIXELS);
    hk_spec(r, 5, (uint32_t)v->channels);
    hk_conv_window_specs(r, w, 6);
    hk_spec(r, 12, hk_conv_epilogue(job));
    hk_spec(r, 13, job->activation);
    r->flops = hk_conv_flops(v->p);
    uint64_t per_group = (uint64_t)lanes * THIN_PIXELS;
    hk_grid_1d(l, r, (columns + per_group - 1) / per_group * push.blocks);
}

/* ---- the direct kernel */

/* The most channels an invocation can keep (8) with the least padding. */
static uint32_t direct_channels(int64_t m)
{
    uint32_t best = (uint32_t)HK_MIN(m, 8);
    for (uint32_t oc = best; oc >= 5; oc--)
        if ((m + oc - 1) / oc * oc < (m + best - 1) / best * best)
            best = oc;
    return HK_MAX(best, 1u);
}

static void direct_specs(hk_record *r, const hk_gather *v, const hk_conv_job *job, uint32_t oc)
{
    const hk_window *w = &v->p->w;
    hk_spec(r, 3, oc);
    for (uint32_t axis = 0; axis < HK_AXES; axis++) {
        hk_spec(r, 4 + axis, (uint32_t)w->kernel[axis]);
        hk_spec(r, 7 + axis, (uint32_t)w->stride[axis]);
        hk_spec(r, 10 + axis, (uint32_t)w->dilation[axis]);
    }
    hk_spec(r, 13, v->forward);
    hk_spec(r, 14, w->spatial == 3);
    hk_spec(r, 15, hk_conv_epilogue(job));
    hk_spec(r, 16, job->activation);
    hk_spec(r, 17, job->scale != NULL);
}

void hk_conv_lower_direct(hk_lower *l, const hk_conv_job *job)
{
    hk_gather v = hk_gather_of(job);
    const hk_window *w = &v.p->w;
    uint32_t oc = direct_channels(v.m), blocks = (uint32_t)((v.m + oc - 1) / oc * v.p->groups);
    uint32_t columns = (uint32_t)(v.p->n * v.out_plane), pixels = l->cpu ? 4 : 1;
    uint32_t lanes = l->cpu ? (columns >= 4096 ? 32 : 8) : HK_MIN(128u, l->device->max_invocations);
    hk_record *r = l->cpu ? hk_emit(l, &hk_kernel_conv_direct4, v.forward ? "conv direct x4" : "conv data direct x4")
                          : hk_emit(l, &hk_kernel_conv_direct, v.forward ? "conv direct" : "conv data direct");
    struct conv_direct_push push = {.m = (uint32_t)v.m,
                                    .channels = (uint32_t)v.channels,
                                    .groups = (uint32_t)v.p->groups,
                                    .blocks = blocks,
                                    .columns = columns,
                                    .source_d = (uint32_t)v.source_extent[0],
                                    .source_h = (uint32_t)v.source_extent[H],
                                    .source_w = (uint32_t)v.source_extent[W],
                                    .out_d = (uint32_t)v.out_extent[0],
                                    .out_h = (uint32_t)v.out_extent[H],
                                    .out_w = (uint32_t)v.out_extent[W],
                                    .pad_d = (uint32_t)w->begin[0],
                                    .pad_h = (uint32_t)w->begin[H],
                                    .pad_w = (uint32_t)w->begin[W],
                                    .w_row = v.w_row,
                                    .w_channel = v.w_channel,
                                    .w_group = v.w_group,
                                    .alpha = job->alpha,
                                    .beta = job->beta};
    hk_push(r, &push, sizeof push);
    hk_use(r, job->w, HK_READ, offsetof(struct conv_direct_push, w));
    hk_use(r, v.source, HK_READ, offsetof(struct conv_direct_push, source));
    hk_use(r, v.result, HK_WRITE, offsetof(struct conv_direct_push, result));
    hk_use(r, job->bias, HK_READ, offsetof(struct conv_direct_push, bias));
    hk_use(r, job->residual, HK_READ, offsetof(struct conv_direct_push, residual));
    hk_use(r, job->scale, HK_READ, offsetof(struct conv_direct_push, scale));
    hk_workgroup(r, lanes, 1, 1);
    direct_specs(r, &v, job, oc);
    r->flops = hk_conv_flops(v.p);
    uint64_t column_blocks = (columns + (uint64_t)lanes * pixels - 1) / ((uint64_t)lanes * pixels);
    hk_grid_1d(l, r, column_blocks * blocks);
}

/* ---- matrix products as they are: windows that cover the whole plane, and on software devices single taps */

static bool covers_plane(const hk_conv_job *job)
{
    const hk_window *w = &job->p.w;
    bool covered = job->pass == HK_CONV_FORWARD && !job->tile && !job->scale && job->p.groups == 1;
    for (int axis = 0; axis < HK_AXES; axis++)
        covered &= w->out[axis] == 1 && w->kernel[axis] == w->in[axis] && w->begin[axis] == 0 &&
                   (w->dilation[axis] == 1 || w->kernel[axis] == 1);
    return covered;
}

static hk_gemm product_of(const hk_conv_job *job)
{
    return (hk_gemm){.bias = job->bias,
                     .residual = job->residual,
                     .c = job->y,
                     .alpha = 1,
                     .beta = 1,
                     .activation = job->activation,
                     .act_a = job->alpha,
                     .act_b = job->beta};
}

/* Rows are images, columns are channels. */
static hk_status lower_covered(hk_lower *l, const hk_conv_job *job)
{
    hk_gemm p = product_of(job);
    p.a = job->x;
    p.b = job->w;
    p.m = job->p.n;
    p.n = job->p.k;
    p.k = p.lda = p.ldb = job->p.c * hk_window_taps(&job->p.w);
    p.trans_b = true;
    p.bias_n = 1;
    return hk_gemm_lower(l, &p);
}

/* Rows are channels, columns are pixels, images are a batch. */
static hk_gemm points_of(const hk_conv_job *job, const hk_gather *v)
{
    hk_gemm p = product_of(job);
    p.a = job->w;
    p.b = v->source;
    p.c = v->result;
    p.m = v->m;
    p.n = v->out_plane;
    p.ldb = v->source_plane;
    p.k = v->channels;
    p.lda = job->p.c; /* weights are [k][c] in both directions */
    p.trans_a = !v->forward;
    p.bias_m = 1;
    p.batch_rank = 1;
    p.batch[0] = job->p.n;
    p.batch_b[0] = p.k * p.ldb;
    if (v->source_plane != v->out_plane) {
        p.line = v->out_extent[W];
        p.line_step = v->p->w.stride[H] * v->source_extent[W];
        p.pixel_step = v->p->w.stride[W];
    }
    return p;
}

static hk_status lower_points(hk_lower *l, const hk_conv_job *job, const hk_gather *v)
{
    hk_gemm p = points_of(job, v);
    p.split = hk_matrix_halves(l) == 2 && l->coopmat_m;
    return hk_gemm_lower(l, &p);
}

/* Single taps of software devices, and of matrix units where they take less than the tiles of float32, the splitting of
 * operands included. */
static bool prefers_points(const hk_lower *l, const hk_conv_job *job, const hk_gather *v, double tiles)
{
    if (!hk_gather_is_point(v) || v->p->groups != 1 || job->scale)
        return false;
    if (l->cpu)
        return v->forward && v->source_plane == v->out_plane;
    if (l->precision != HK_PRECISION_HIGH || job->tile || job->exact)
        return false;
    hk_gemm p = points_of(job, v);
    p.residual = NULL; /* which the tiles' model does not count either */
    hk_gemm_simplify(&p);
    return hk_gemm_units_time(l, &p) < HK_UNITS_SURE * tiles;
}

/* ---- ways */

typedef enum way { PRODUCT, POINTS, DEPTHWISE, WINOGRAD, UNITS, THIN, TILES, DIRECT, WAYS } way;
static const char *const way_names[WAYS] = {"product", "points",     "depthwise", "winograd",
                                            "matrix",  "short sums", "tiles",     "direct"};

/* Ways that a job can take, the one to be preferred first. */
static uint32_t ways_of(const hk_lower *l, const hk_conv_job *job, const hk_gather *v, way *list)
{
    bool tiles = !l->cpu && hk_gather_fits(v), winograd = hk_conv_prefers_winograd(l, job);
    hk_gather_table table = tiles && hk_matrix_halves(l) == 2 ? hk_gather_table_size(v) : (hk_gather_table){0};
    hk_conv_extent extent = extent_of(v, &table);
    double time = table.most_k ? hk_conv_tiles_time(l, &extent) : (double)INFINITY; /* of TILES, for precision high */
    bool units = hk_conv_prefers_units(l, job, v, time);
    const struct {
        way way;
        bool can;
    } all[] = {{PRODUCT, covers_plane(job)},
               {POINTS, prefers_points(l, job, v, time)},
               {DEPTHWISE, !l->cpu && hk_conv_is_depthwise(job)},
               {WINOGRAD, winograd},
               {UNITS, units},
               {THIN, !l->cpu && thin_fits(l, job, v)},
               {TILES, tiles},
               {DIRECT, true},
               {UNITS, !units && hk_conv_may_units(l, job, v)},
               {WINOGRAD, !winograd && hk_conv_may_winograd(l, job)}};
    uint32_t count = 0;
    for (size_t i = 0; i < HK_COUNT(all); i++)
        if (all[i].can && !(all[i].way == DIRECT && tiles)) /* slower by far where tiles fit */
            list[count++] = all[i].way;
    return count;
}

static hk_status lower_way(hk_lower *l, const hk_conv_job *job, const hk_gather *v, way taken)
{
    switch (taken) {
    case PRODUCT: return lower_covered(l, job);
    case POINTS: return lower_points(l, job, v);
    case DEPTHWISE: hk_conv_lower_depthwise(l, job); return HK_OK;
    case WINOGRAD: return hk_conv_lower_winograd(l, job);
    case UNITS: return hk_conv_lower_units(l, job, v);
    case THIN: lower_thin(l, job, v); return HK_OK;
    case TILES: return lower_matrix(l, job, v);
    case DIRECT:
    case WAYS: break;
    }
    hk_conv_lower_direct(l, job);
    return HK_OK;
}

/* Appends " name 1x2x3", of the axes that the window has. */
static void put_axes(char text[HK_PROBLEM_BYTES], const char *name, const hk_window *w, const int64_t extent[HK_AXES])
{
    for (int axis = HK_AXES - w->spatial; axis < HK_AXES; axis++) {
        size_t n = strlen(text);
        bool first = axis == HK_AXES - w->spatial;
        snprintf(text + n, HK_PROBLEM_BYTES - n, "%s%s%s%lld", first ? " " : "x", first ? name : "", first ? " " : "",
                 (long long)extent[axis]);
    }
}

const char *hk_conv_problem(const hk_lower *l, const hk_conv_job *job, char text[HK_PROBLEM_BYTES])
{
    static const char *const passes[] = {"forward", "data", "weight"};
    const hk_conv *p = &job->p;
    const hk_window *w = &p->w;
    text[0] = '\0';
    if (!l->tuning)
        return text;
    snprintf(text, HK_PROBLEM_BYTES, "%s %s n%lld c%lld k%lld groups %lld", hk_choice_precision(l), passes[job->pass],
             (long long)p->n, (long long)p->c, (long long)p->k, (long long)p->groups);
    put_axes(text, "in", w, w->in);
    put_axes(text, "kernel", w, w->kernel);
    put_axes(text, "stride", w, w->stride);
    put_axes(text, "dilation", w, w->dilation);
    put_axes(text, "pad", w, w->begin);
    return text;
}

hk_status hk_conv_lower_gather(hk_lower *l, const hk_conv_job *job)
{
    hk_gather v = hk_gather_of(job);
    way list[WAYS];
    char problem[HK_PROBLEM_BYTES];
    hk_choice c;
    if (v.source->dtype != HK_FLOAT32)
        return hk_fail(l->ctx, HK_STATUS_UNSUPPORTED,
                       "node '%s' (%s): convolutions run on the device in float32, found %s; export "
                       "the model in float32",
                       l->node->name, l->node->type, hk_dtype_name(v.source->dtype));
    if (hk_conv_prefers_depth(l, job) && !covers_plane(job))
        return hk_conv_lower_depth(l, job); /* whose parts choose their ways */
    hk_choice_begin(l, &c, HK_CHOICE_WAY, "conv way %s", hk_conv_problem(l, job, problem));
    uint32_t count = ways_of(l, job, &v, list);
    for (uint32_t i = 0; i < count; i++)
        hk_choice_add(
            &c, &(hk_candidate){.name = way_names[list[i]], .variant = &way_names[list[i]], .splits = 1, .cost = i});
    const hk_candidate *taken = hk_choice_end(l, &c);
    HK_TRY(lower_way(l, job, &v, (way)((const char *const *)taken->variant - way_names)));
    hk_choice_leave(l, HK_CHOICE_WAY);
    return HK_OK;
}
