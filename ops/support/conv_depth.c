/*
 * Convolutions in three axes as convolutions in two: the taps along depth become channels. What a pass reads is
 * gathered along depth into (images * depths, channels * depth taps, height, width), which is how the weights lie
 * already, and the passes in two axes, with their matrix kernels, do the rest. It costs the source read once more and
 * its copy written and read for every tap of depth, which the matrix kernels win back many times over the direct
 * kernel.
 *
 * Windows of one element in height and width need no gathering: depth and plane are two axes as they lie.
 *
 * The data gradient gathers dY, with the strides' gaps as zeros, and takes the weights' depth taps backwards.
 */
#include "ops/support/conv_lower.h"
#include "ops/support/move.h"
#include "ops/support/move_pad.h"

enum { D = HK_AXIS_D, LEAST_CHANNELS = 9 /* below, the matrix kernels pass anyway */ };
#define MOST_ELEMENTS ((int64_t)1 << 28) /* of the gathered source: 1 GiB */

/* How a source [images, channels, extent, plane] is gathered: row z, tap d reads coordinate
 * (z * stride + d * dilation - before) / step, where step divides it. */
typedef struct depth_gather {
    int64_t images, channels, extent, plane;
    int64_t rows, taps, stride, dilation, before, step;
} depth_gather;

static depth_gather gather_of(const hk_conv_job *job)
{
    const hk_conv *p = &job->p;
    const hk_window *w = &p->w;
    if (job->pass == HK_CONV_DATA)
        return (depth_gather){.images = p->n,
                              .channels = p->k,
                              .extent = w->out[D],
                              .plane = w->out[1] * w->out[2],
                              .rows = w->in[D],
                              .taps = w->kernel[D],
                              .stride = 1,
                              .dilation = w->dilation[D],
                              .before = (w->kernel[D] - 1) * w->dilation[D] - w->begin[D],
                              .step = w->stride[D]};
    return (depth_gather){.images = p->n,
                          .channels = p->c,
                          .extent = w->in[D],
                          .plane = w->in[1] * w->in[2],
                          .rows = w->out[D],
                          .taps = w->kernel[D],
                          .stride = w->stride[D],
                          .dilation = w->dilation[D],
                          .before = w->begin[D],
                          .step = 1};
}

/* Height and width are nothing but a plane to windows of one element there: then depth and plane are two axes already.
 */
static bool is_plane(const hk_window *w)
{
    bool plane = true;
    for (int axis = 1; axis < HK_AXES; axis++)
        plane &= w->kernel[axis] == 1 && w->stride[axis] == 1 && w->begin[axis] == 0 && w->in[axis] == w->out[axis];
    return plane;
}

static hk_conv_job over_planes(const hk_conv_job *job)
{
    hk_conv_job flat = *job;
    hk_window *w = &flat.p.w;
    w->spatial = 2;
    w->in[2] *= w->in[1];
    w->out[2] *= w->out[1];
    w->in[1] = w->in[D];
    w->out[1] = w->out[D];
    w->kernel[1] = w->kernel[D];
    w->stride[1] = w->stride[D];
    w->dilation[1] = w->dilation[D];
    w->begin[1] = w->begin[D];
    w->end[1] = w->end[D];
    w->in[D] = w->out[D] = w->kernel[D] = w->stride[D] = w->dilation[D] = 1;
    w->begin[D] = w->end[D] = 0;
    return flat;
}

bool hk_conv_prefers_depth(const hk_lower *l, const hk_conv_job *job)
{
    const hk_conv *p = &job->p;
    depth_gather g = gather_of(job);
    int64_t made = (job->pass == HK_CONV_DATA ? p->c : p->k) / p->groups;
    double elements = (double)(g.images * g.rows) * (double)(g.channels * g.taps) * (double)g.plane;
    bool flat = p->w.in[D] == 1 && p->w.out[D] == 1 && p->w.kernel[D] == 1;
    if (l->cpu || p->w.spatial != 3 || job->tile)
        return false;
    return is_plane(&p->w) || (!flat && !job->scale && made >= LEAST_CHANNELS && elements <= (double)MOST_ELEMENTS);
}

/* The source with everything a window reaches, zeros where there is no element: [images * channels, reach, plane]. */
static hk_status padded(hk_lower *l, const depth_gather *g, hk_value *from, int64_t reach, hk_value **out)
{
    *out = from;
    if (g->before == 0 && g->step == 1 && reach == g->extent)
        return HK_OK;
    hk_tensor *zero = hk_tensor_new(l->arena, HK_FLOAT32, &HK_SCALAR);
    *out = hk_scratch(l, HK_FLOAT32, g->images * g->channels * reach * g->plane);
    if (!zero || !*out)
        return hk_out_of_memory(l->ctx, "a padded volume");
    int64_t rows = g->images * g->channels;
    hk_pad pad = {
        .mode = HK_PAD_CONSTANT,
        .rank = 3,
        .dim = {{.extent = rows, .count = rows, .stride = g->extent * g->plane, .step = 1},
                {.extent = reach, .before = g->before, .count = g->extent, .stride = g->plane, .step = g->step},
                {.extent = g->plane, .count = g->plane, .stride = 1, .step = 1}}};
    return hk_emit_pad(l, &pad, from, zero, *out);
}

static hk_status gathered(hk_lower *l, const depth_gather *g, hk_value *from, hk_value **out)
{
    int64_t reach = (g->rows - 1) * g->stride + (g->taps - 1) * g->dilation + 1;
    HK_TRY(padded(l, g, from, reach, &from));
    *out = hk_scratch(l, HK_FLOAT32, g->images * g->rows * g->channels * g->taps * g->plane);
    if (!*out)
        return hk_out_of_memory(l->ctx, "a volume's taps");
    int64_t extent = g->before == 0 && g->step == 1 && reach == g->extent ? g->extent : reach,
            volume = extent * g->plane;
    hk_move m = {0};
    hk_move_add(&m, g->images, g->channels * volume, g->rows * g->channels * g->taps * g->plane);
    hk_move_add(&m, g->rows, g->stride * g->plane, g->channels * g->taps * g->plane);
    hk_move_add(&m, g->channels, volume, g->taps * g->plane);
    hk_move_add(&m, g->taps, g->dilation * g->plane, g->plane);
    hk_move_add(&m, g->plane, 1, 1);
    return hk_emit_move(l, &m, from, *out);
}

/* [a, b, c, plane] to [a, c, b, plane]; the same value where nothing moves. */
static hk_status swapped(hk_lower *l, hk_value *from, int64_t a, int64_t b, int64_t c, int64_t plane, hk_value **out)
{
    *out = from;
    if (!from || b == 1 || c == 1)
        return HK_OK;
    *out = hk_scratch(l, HK_FLOAT32, a * b * c * plane);
    if (!*out)
        return hk_out_of_memory(l->ctx, "a transposed volume");
    hk_move m = {0};
    hk_move_add(&m, a, b * c * plane, b * c * plane);
    hk_move_add(&m, b, c * plane, plane);
    hk_move_add(&m, c, plane, b * plane);
    hk_move_add(&m, plane, 1, 1);
    return hk_emit_move(l, &m, from, *out);
}

/* Weights [k, c / groups, depth, taps] as [k, depth backwards, c / groups, taps]. */
static hk_status backward_weights(hk_lower *l, const hk_conv *p, hk_value *w, hk_value **out)
{
    int64_t cg = p->c / p->groups, depth = p->w.kernel[D], taps = p->w.kernel[1] * p->w.kernel[2];
    *out = w;
    if (depth == 1)
        return HK_OK;
    *out = hk_scratch(l, HK_FLOAT32, p->k * cg * depth * taps);
    if (!*out)
        return hk_out_of_memory(l->ctx, "turned weights");
    hk_move m = {.from_offset = (depth - 1) * taps};
    hk_move_add(&m, p->k, cg * depth * taps, cg * depth * taps);
    hk_move_add(&m, depth, -taps, cg * taps);
    hk_move_add(&m, cg, depth * taps, taps);
    hk_move_add(&m, taps, 1, 1);
    return hk_emit_move(l, &m, w, *out);
}

/* The problem in two axes. */
static hk_conv flattened(const hk_conv *p, const depth_gather *g, hk_conv_pass pass)
{
    hk_conv flat = *p;
    flat.n = g->images * g->rows;
    *(pass == HK_CONV_DATA ? &flat.k : &flat.c) *= g->taps;
    flat.w.spatial = 2;
    flat.w.in[D] = flat.w.out[D] = flat.w.kernel[D] = flat.w.stride[D] = flat.w.dilation[D] = 1;
    flat.w.begin[D] = flat.w.end[D] = 0;
    return flat;
}

hk_status hk_conv_lower_depth(hk_lower *l, const hk_conv_job *job)
{
    const hk_conv *p = &job->p;
    if (is_plane(&p->w)) {
        hk_conv_job planes = over_planes(job);
        return job->pass == HK_CONV_WEIGHT ? hk_conv_lower_weight(l, &planes) : hk_conv_lower_gather(l, &planes);
    }
    bool data = job->pass == HK_CONV_DATA, weight = job->pass == HK_CONV_WEIGHT;
    depth_gather g = gather_of(job);
    hk_conv_job flat = *job;
    hk_value *source;
    int64_t channels = data ? p->c : p->k, plane = data ? p->w.in[1] * p->w.in[2] : p->w.out[1] * p->w.out[2];
    flat.p = flattened(p, &g, job->pass);
    HK_TRY(gathered(l, &g, data ? job->y : job->x, &source));
    if (weight) {
        HK_TRY(swapped(l, job->y, g.images, channels, g.rows, plane, &flat.y));
        flat.x = source;
        return hk_conv_lower_weight(l, &flat);
    }
    hk_value *result = data ? job->x : job->y, *made = result;
    if (channels > 1 && g.rows > 1)
        made = hk_scratch(l, HK_FLOAT32, g.images * g.rows * channels * plane);
    if (!made)
        return hk_out_of_memory(l->ctx, "a convolution's planes");
    HK_TRY(swapped(l, job->residual, g.images, channels, g.rows, plane, &flat.residual));
    if (data)
        HK_TRY(backward_weights(l, p, job->w, &flat.w));
    flat.x = data ? made : source;
    flat.y = data ? source : made;
    HK_TRY(hk_conv_lower_gather(l, &flat));
    if (made == result)
        return HK_OK;
    hk_move m = {0};
    hk_move_add(&m, g.images, g.rows * channels * plane, g.rows * channels * plane);
    hk_move_add(&m, g.rows, channels * plane, plane);
    hk_move_add(&m, channels, plane, g.rows * plane);
    hk_move_add(&m, plane, 1, 1);
    return hk_emit_move(l, &m, made, result);
}
