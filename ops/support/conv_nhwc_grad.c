/* The gradients of convolutions in HK_LAYOUT_NHWC8. */
#include "kernels.h"
#include "ops/support/conv_lower.h"
#include "ops/support/gemm.h"
#include "ops/support/octets.h"
#include "ops/support/tile_time.h"
#include "shaders/conv_nhwc_weight.push.h"

enum { H = HK_AXIS_H, W = HK_AXIS_W };

static bool is_packed(const hk_value *v)
{
    return v->layout == HK_LAYOUT_NHWC8 && hk_stores_halves(v);
}

static bool is_plain(const hk_value *v)
{
    return v->layout == HK_LAYOUT_CONTIGUOUS && hk_value_storage(v) == HK_FLOAT32;
}

/* x or y of a job, whose shapes these are. */
static hk_octets octets_of(const hk_conv *p, bool of_x)
{
    return (hk_octets){.images = p->n,
                       .channels = of_x ? p->c : p->k,
                       .plane = of_x ? hk_window_in_count(&p->w) : hk_window_out_count(&p->w)};
}

/* A contiguous copy of packed x or y, as it is if it is one; NULL when out of memory. */
static hk_value *unpacked(hk_lower *l, const hk_conv *p, bool of_x, hk_value *v)
{
    hk_octets o = octets_of(p, of_x);
    if (!v || v->layout == HK_LAYOUT_CONTIGUOUS)
        return v;
    o.packed = v;
    o.plain = hk_scratch(l, HK_FLOAT32, o.images * o.channels * o.plane);
    if (!o.plain)
        return NULL;
    o.plain->shape = v->shape;
    hk_emit_octets(l, &o);
    return o.plain;
}

/* ---- data gradient */

/* (k, c, taps) to (c, taps, octets of k) in float16: rows of weights as conv_nhwc_matrix.comp reads them, for each
 * channel of dX. */
static hk_value *turn_weights(hk_lower *l, const hk_conv_job *job)
{
    const hk_conv *p = &job->p;
    hk_octets o = {.plain = job->w, .images = 1, .channels = p->k, .plane = p->c * hk_window_taps(&p->w), .pack = true};
    o.packed = hk_scratch(l, HK_FLOAT16, hk_octets_count(1, o.channels, o.plane));
    if (o.packed)
        hk_emit_octets(l, &o)->keep = true;
    return o.packed;
}

/* Without matrix units: by the contiguous kernels, between changes of layout; what is added to the gradient or gates it
 * comes with the last dispatch. */
static hk_status lower_data_plain(hk_lower *l, const hk_conv_job *job)
{
    hk_octets o = octets_of(&job->p, true);
    hk_conv_job plain = {.p = job->p, .pass = HK_CONV_DATA, .w = job->w};
    plain.y = unpacked(l, &job->p, false, job->y);
    plain.x = o.plain = hk_scratch(l, HK_FLOAT32, o.images * o.channels * o.plane);
    o.packed = hk_scratch(l, HK_FLOAT32, hk_octets_count(o.images, o.channels, o.plane));
    o.pack = true;
    if (!plain.y || !plain.x || !o.packed)
        return hk_out_of_memory(l->ctx, "a convolution's gradient");
    plain.x->shape = job->x->shape;
    HK_TRY(hk_conv_lower_gather(l, &plain));
    hk_emit_octets(l, &o);
    hk_conv_emit_nhwc8_sum(l, job, o.packed, 1);
    return HK_OK;
}

static bool data_fits(const hk_lower *l, const hk_conv_job *job)
{
    size_t count;
    const hk_nhwc_tile *tiles = hk_nhwc_tiles(&count);
    for (size_t i = 0; i < count; i++)
        if (hk_nhwc_tile_fits(l, job, &tiles[i]))
            return true;
    return false;
}

hk_status hk_conv_lower_data_nhwc8(hk_lower *l, const hk_conv_job *problem)
{
    hk_conv_job job = *problem;
    bool done = false;
    if (!is_packed(job.x) || !is_packed(job.y) || (job.residual && !is_packed(job.residual)) ||
        (job.gate && !is_packed(job.gate)) || !is_plain(job.w))
        return hk_fail(
            l->ctx, HK_STATUS_INTERNAL,
            "node '%s' (%s): expected dY, residual, gate and dX in NHWC8 and float16 and a contiguous float32 "
            "weight; hk_conv_data_grad_accepts_nhwc8 tells a pass so",
            l->node->name, l->node->type);
    if (!data_fits(l, &job))
        return lower_data_plain(l, &job);
    job.w = turn_weights(l, &job);
    if (!job.w)
        return hk_out_of_memory(l->ctx, "a convolution's turned weights");
    return hk_conv_lower_nhwc8_matrix(l, &job, &done);
}

/* ---- weight gradient */

/* Rates that conv_nhwc.c's tiles of the same size had in their first fit. Of ten 1x1 layers of ResNet-50 they choose
 * the best tile or one within 4 %, but for two, which take a quarter more (H200, conv_tiles 256 fast weight). */
static const hk_nhwc_tile tiles[] = {
    {128, 256, 32, 2, 4, 0.989f, "conv weight nhwc8 128x256x32"},
    {256, 128, 32, 4, 2, 0.907f, "conv weight nhwc8 256x128x32"},
    {128, 128, 32, 2, 2, 0.933f, "conv weight nhwc8 128x128x32"},
    {256, 64, 32, 4, 1, 0.696f, "conv weight nhwc8 256x64x32"},
    {128, 64, 32, 4, 1, 0.647f, "conv weight nhwc8 128x64x32"},
    {64, 128, 32, 1, 4, 1.06f, "conv weight nhwc8 64x128x32"},
    {64, 64, 64, 2, 2, 0.861f, "conv weight nhwc8 64x64x64"},
    {64, 64, 32, 2, 2, 0.941f, "conv weight nhwc8 64x64x32"},
    {32, 32, 32, 2, 2, 0.5f, "conv weight nhwc8 32x32x32"},
};

const hk_nhwc_tile *hk_nhwc_weight_tiles(size_t *count)
{
    *count = HK_COUNT(tiles);
    return tiles;
}

static const hk_kernel *kernel_of(const hk_lower *l)
{
    return l->coopmat_emulated ? &hk_kernel_conv_nhwc_weight_matrix_emulated : &hk_kernel_conv_nhwc_weight_matrix;
}

static uint32_t threads_of(const hk_lower *l, const hk_nhwc_tile *t)
{
    return (uint32_t)t->wm * t->wn * hk_matrix_lanes(l);
}

static uint32_t shared_bytes(const hk_lower *l, const hk_nhwc_tile *t)
{
    uint32_t m = l->coopmat_m, n = l->coopmat_n;
    uint32_t words = t->bk * (t->bm / 8u + t->bn / 8u + 2), sums = t->wm * m * (t->bn / 4u + t->wn);
    uint32_t emulated = l->coopmat_emulated ? 4u * ((uint32_t)t->bm * t->bn + (uint32_t)t->wm * t->wn * m * n) : 0;
    return 16 * HK_MAX(words, sums) + 8 + emulated;
}

/* A thread's octet does not depend on its chunk, and there is room for the threads' sums of dY. */
bool hk_nhwc_weight_tile_fits(const hk_lower *l, const hk_nhwc_tile *t)
{
    const hk_kernel *kernel = kernel_of(l);
    uint32_t threads = threads_of(l, t), a = t->bm / 8u, b = t->bn / 8u;
    return kernel->spirv && (kernel->needs & ~l->device->caps) == 0 && l->coopmat_m && l->device->subgroup_size >= 8 &&
           l->coopmat_m % 8 == 0 && l->coopmat_n % 8 == 0 && l->coopmat_k % 8 == 0 &&
           threads <= l->device->max_invocations && shared_bytes(l, t) <= l->device->max_shared_bytes &&
           threads % a == 0 && threads % b == 0 && t->bk * (a + b + 2) >= 2 * threads &&
           t->bm / t->wm % l->coopmat_m == 0 && t->bn / t->wn % l->coopmat_n == 0 && t->bk % l->coopmat_k == 0;
}

typedef struct weight_problem {
    const hk_conv_job *job;
    int64_t columns, pixels; /* channels of taps in whole octets */
    int64_t stride;          /* elements of a split's sums: weights, then biases */
} weight_problem;

typedef struct weight_choice {
    const hk_nhwc_tile *tile;
    uint32_t splits, k_split;
} weight_choice;

static weight_choice split_by(const weight_problem *w, const hk_nhwc_tile *t, int64_t splits)
{
    int64_t steps = (w->pixels + t->bk - 1) / t->bk, each = (steps + splits - 1) / splits;
    return (weight_choice){t, (uint32_t)((steps + each - 1) / each), (uint32_t)(each * t->bk)};
}

static int64_t places(const weight_problem *w, const hk_nhwc_tile *t)
{
    return (w->job->p.k + t->bm - 1) / t->bm * ((w->columns + t->bn - 1) / t->bn);
}

/* Measured for the forward kernel (conv_nhwc.c), whose loop this is. */
static const hk_tile_model model = {.registers = 22.8,
                                    .registers_per_sum = 1.25,
                                    .multiplies = 1e6,
                                    .full_threads = 162,
                                    .step = 0.172,
                                    .step_load = 0.0406,
                                    .fill = 3.73,
                                    .dispatch = 2.82,
                                    .sum_rate = 6.03e6,
                                    .l2_rate = 5.33e6,
                                    .memory_rate = 3.6e6,
                                    .apart = 0.466};

static double time_of(const hk_lower *l, const weight_problem *w, const weight_choice *c)
{
    const hk_nhwc_tile *t = c->tile;
    const hk_conv *p = &w->job->p;
    uint32_t threads = threads_of(l, t);
    double x = (double)hk_octets_count(p->n, p->c, hk_window_in_count(&p->w));
    double dy = (double)hk_octets_count(p->n, p->k, hk_window_out_count(&p->w));
    const hk_tile_shape shape = {.bm = t->bm,
                                 .bn = t->bn,
                                 .bk = t->bk,
                                 .threads = threads,
                                 .sums = (double)t->bm * t->bn / threads,
                                 .loads = (t->bm + t->bn) * (t->bk / 8.0) / threads,
                                 .rate = (double)t->rate,
                                 .shared_bytes = shared_bytes(l, t),
                                 .staged = true};
    const hk_tile_work work = {.workgroups = places(w, t) * c->splits,
                               .k = c->k_split,
                               .splits = c->splits,
                               .results = (double)w->stride,
                               .element_bytes = 2,
                               .bytes = 2.0 * (x + dy)};
    return hk_tile_time(l, &model, &shape, &work);
}

/* Each tile with so many splits of the pixels that they fill the units once, twice, ... */
static weight_choice choose(hk_lower *l, const weight_problem *w)
{
    static const int64_t rounds[] = {0, 1, 2, 3, 4, 6, 8};
    int64_t units = HK_MAX(l->compute_units_hint, 1u);
    char problem[HK_PROBLEM_BYTES];
    hk_choice choice;
    hk_choice_begin(l, &choice, HK_CHOICE_TILE, "conv weight nhwc8 %s", hk_conv_problem(l, w->job, problem));
    for (size_t i = 0; i < HK_COUNT(tiles); i++) {
        uint32_t last = 0;
        for (size_t r = 0; r < HK_COUNT(rounds) && hk_nhwc_weight_tile_fits(l, &tiles[i]); r++) {
            int64_t steps = (w->pixels + tiles[i].bk - 1) / tiles[i].bk;
            int64_t wanted = HK_MIN(rounds[r] * units / places(w, &tiles[i]), steps / 8);
            weight_choice c = split_by(w, &tiles[i], HK_MAX(wanted, 1));
            if (c.splits == last || (c.splits > 1 && w->stride > INT32_MAX / c.splits))
                continue;
            last = c.splits;
            hk_choice_add(&choice, &(hk_candidate){.name = tiles[i].name,
                                                   .variant = &tiles[i],
                                                   .splits = c.splits,
                                                   .cost = time_of(l, w, &c)});
        }
    }
    const hk_candidate *taken = hk_choice_end(l, &choice);
    return taken ? split_by(w, taken->variant, taken->splits) : (weight_choice){0};
}

/* x or y, packed if it is not. */
static hk_value *packed(hk_lower *l, const hk_conv *p, bool of_x, hk_value *v)
{
    hk_octets o = octets_of(p, of_x);
    if (v->layout == HK_LAYOUT_NHWC8)
        return v;
    o.plain = v;
    o.packed = hk_scratch(l, HK_FLOAT16, hk_octets_count(o.images, o.channels, o.plane));
    o.pack = true;
    if (o.packed)
        hk_emit_octets(l, &o);
    return o.packed;
}

static struct conv_nhwc_weight_push push_of(const weight_problem *w, const weight_choice *c)
{
    const hk_conv *p = &w->job->p;
    const hk_window *win = &p->w;
    hk_divisor line = hk_divisor_of(win->out[W]), image = hk_divisor_of(win->out[H]);
    return (struct conv_nhwc_weight_push){.outputs = (uint32_t)p->k,
                                          .octets_out = (uint32_t)(p->k + 7) / 8,
                                          .octets_in = (uint32_t)(p->c + 7) / 8,
                                          .tiles_m = (uint32_t)((p->k + c->tile->bm - 1) / c->tile->bm),
                                          .tiles_n = (uint32_t)((w->columns + c->tile->bn - 1) / c->tile->bn),
                                          .splits = c->splits,
                                          .pixels = (uint32_t)w->pixels,
                                          .k_split = c->k_split,
                                          .x_h = (uint32_t)win->in[H],
                                          .x_w = (uint32_t)win->in[W],
                                          .y_h = (uint32_t)win->out[H],
                                          .y_w = (uint32_t)win->out[W],
                                          .pads = (uint32_t)win->begin[H] | (uint32_t)win->begin[W] << 16,
                                          .split_stride = (uint32_t)w->stride,
                                          .line_magic = line.multiplier,
                                          .line_shift = line.shift,
                                          .image_magic = image.multiplier,
                                          .image_shift = image.shift};
}

/* Single taps, each over the pixel of x with the same number. */
static bool same_pixels(const hk_window *w)
{
    bool same = hk_window_taps(w) == 1;
    for (int axis = H; axis <= W; axis++)
        same &= w->begin[axis] == 0 && w->stride[axis] == 1 && w->in[axis] == w->out[axis];
    return same;
}

/* Sums go to `to`, or to the weights themselves if that is NULL. */
static void emit_weight(hk_lower *l, const weight_problem *w, const weight_choice *c, hk_value *to)
{
    const hk_conv_job *job = w->job;
    const hk_nhwc_tile *t = c->tile;
    struct conv_nhwc_weight_push push = push_of(w, c);
    hk_record *r = hk_emit(l, kernel_of(l), t->name);
    hk_push(r, &push, sizeof push);
    hk_use(r, job->x, HK_READ, offsetof(struct conv_nhwc_weight_push, x));
    hk_use(r, job->y, HK_READ, offsetof(struct conv_nhwc_weight_push, dy));
    hk_use(r, to ? to : job->w, HK_WRITE, offsetof(struct conv_nhwc_weight_push, dw));
    if (!to) {
        hk_use(r, job->bias, HK_WRITE, offsetof(struct conv_nhwc_weight_push, db));
    } else if (job->bias) {
        uint64_t first = 4 * (uint64_t)(job->p.k * w->columns);
        hk_use_range(r, to, first, hk_value_bytes(to) - first, HK_WRITE, offsetof(struct conv_nhwc_weight_push, db));
    }
    hk_workgroup(r, threads_of(l, t), 1, 1);
    r->subgroup_size = hk_lower_has(l, HK_CAP_SUBGROUP_SIZE) ? l->device->subgroup_size : 0;
    const uint32_t specs[] = {t->bm,        t->bn,        t->bk,       t->wm, t->wn, threads_of(l, t),
                              l->coopmat_m, l->coopmat_n, l->coopmat_k};
    for (uint32_t i = 0; i < HK_COUNT(specs); i++)
        hk_spec(r, 3 + i, specs[i]);
    hk_conv_window_specs(r, &job->p.w, 12);
    hk_spec(r, 18, job->bias != NULL);
    hk_spec(r, 19, same_pixels(&job->p.w));
    r->flops = hk_conv_flops(&job->p);
    hk_grid_1d(l, r, (uint64_t)(places(w, t) * c->splits));
}

static hk_status lower_weight(hk_lower *l, const weight_problem *w, const weight_choice *c)
{
    const hk_conv_job *job = w->job;
    const hk_conv *p = &job->p;
    int64_t taps = hk_window_taps(&p->w), biases = job->bias ? p->k : 0, count = p->k * p->c * taps;
    bool as_it_is = taps == 1 && p->c % 8 == 0 && w->stride == count + biases;
    if (as_it_is && c->splits == 1 && hk_value_alignment(job->w) == 16) {
        emit_weight(l, w, c, NULL);
        return HK_OK;
    }
    hk_value *sums = hk_scratch(l, HK_FLOAT32, w->stride * c->splits);
    if (!sums)
        return hk_out_of_memory(l->ctx, "a convolution's partial sums");
    emit_weight(l, w, c, sums);
    hk_conv_emit_sum(l, &(hk_conv_sum){.partial = sums,
                                       .splits = c->splits,
                                       .count = count,
                                       .bias_count = biases,
                                       .out = job->w,
                                       .bias_out = job->bias,
                                       .taps = as_it_is ? 0 : taps,
                                       .channels = p->c});
    return HK_OK;
}

hk_status hk_conv_lower_weight_nhwc8(hk_lower *l, const hk_conv_job *problem)
{
    hk_conv_job job = *problem;
    const hk_conv *p = &job.p;
    if (!(is_packed(job.x) || is_plain(job.x)) || !(is_packed(job.y) || is_plain(job.y)) || !is_plain(job.w))
        return hk_fail(l->ctx, HK_STATUS_INTERNAL,
                       "node '%s' (%s): expected X and dY in NHWC8 and float16 or contiguous float32, and a contiguous "
                       "float32 dW; hk_conv_weight_grad_accepts_nhwc8 tells a pass so",
                       l->node->name, l->node->type);
    weight_problem w = {&job, hk_octets_count(1, p->c, hk_window_taps(&p->w)), p->n * hk_window_out_count(&p->w), 0};
    w.stride = p->k * w.columns + (job.bias ? (p->k + 3) / 4 * 4 : 0);
    weight_choice c = job.nhwc_tile ? split_by(&w, job.nhwc_tile, HK_MAX(job.splits, 1u)) : choose(l, &w);
    bool units = c.tile && w.pixels > 0;
    job.x = units ? packed(l, p, true, job.x) : unpacked(l, p, true, job.x);
    job.y = units ? packed(l, p, false, job.y) : unpacked(l, p, false, job.y);
    if (!job.x || !job.y)
        return hk_out_of_memory(l->ctx, "a convolution's gradient");
    HK_TRY(units ? lower_weight(l, &w, &c) : hk_conv_lower_weight(l, &job));
    if (c.tile)
        hk_choice_leave(l, HK_CHOICE_TILE);
    return HK_OK;
}
