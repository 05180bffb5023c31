/*
 * 3x3 convolutions by Winograd's F(4x4, 3x3): shaders/conv_winograd.comp and a batch of 36 matrix products. The data
 * gradient is the convolution of dY with the weights turned around, channels exchanged, and padding 2 - pad. The weight
 * gradient, in precision high, has the forward pass's tiles, and the 36 products sum over them.
 */
#include <math.h>

#include "kernels.h"
#include "ops/support/choice.h"
#include "ops/support/conv_lower.h"
#include "ops/support/conv_units.h"
#include "ops/support/gemm.h"
#include "shaders/conv_winograd.push.h"

enum { H = HK_AXIS_H, W = HK_AXIS_W };
enum {
    SIDE = 4,
    PRODUCTS = (SIDE + 2) * (SIDE + 2),
    LANES = 128,
    WEIGHT_LANES = 128,
    INPUT_LANES = 256,
    LEAST_CHANNELS = 64
};

typedef struct winograd {
    bool forward;
    hk_value *source, *result;
    int64_t sources, results; /* channels */
    const int64_t *from, *to; /* extents of a plane */
    int64_t begin[HK_AXES];   /* padding in front of the source */
    int64_t lines, columns;   /* of tiles in an image */
    int64_t tiles, row;       /* of all images; the same in whole vectors */
} winograd;

static winograd winograd_of(const hk_conv_job *job)
{
    const hk_conv *p = &job->p;
    bool forward = job->pass == HK_CONV_FORWARD;
    winograd t = {.forward = forward,
                  .source = forward ? job->x : job->y,
                  .result = forward ? job->y : job->x,
                  .sources = forward ? p->c : p->k,
                  .results = forward ? p->k : p->c,
                  .from = forward ? p->w.in : p->w.out,
                  .to = forward ? p->w.out : p->w.in};
    for (int axis = H; axis <= W; axis++)
        t.begin[axis] = forward ? p->w.begin[axis] : 2 - p->w.begin[axis];
    t.lines = (t.to[H] + SIDE - 1) / SIDE;
    t.columns = (t.to[W] + SIDE - 1) / SIDE;
    t.tiles = p->n * t.lines * t.columns;
    t.row = (t.tiles + 3) / 4 * 4;
    return t;
}

bool hk_conv_fits_winograd(const hk_conv_job *job)
{
    const hk_conv *p = &job->p;
    const hk_window *w = &p->w;
    winograd t = winograd_of(job);
    bool window = w->spatial == 2 && w->kernel[H] == 3 && w->kernel[W] == 3 && w->stride[H] == 1 && w->stride[W] == 1 &&
                  w->dilation[H] == 1 && w->dilation[W] == 1;
    for (int axis = H; axis <= W; axis++)
        window &= t.begin[axis] >= 0 && t.begin[axis] < 65536;
    return job->pass != HK_CONV_WEIGHT && p->groups == 1 && window &&
           PRODUCTS * HK_MAX(HK_MAX(p->c, p->k) * t.row, p->c * p->k) <= INT32_MAX;
}

bool hk_conv_may_winograd(const hk_lower *l, const hk_conv_job *job)
{
    bool halves = l->precision == HK_PRECISION_FAST && l->coopmat_m; /* transforms grow by 32 and round badly as such */
    return !l->cpu && !job->tile && !job->exact && !halves && hk_conv_fits_winograd(job) &&
           HK_MIN(job->p.c, job->p.k) >= LEAST_CHANNELS;
}

/* Microseconds of an H100 or H200 either way: multiplications at the rates measured, bytes of the transforms (of
 * weights too, where they change), two dispatches more. */
bool hk_conv_prefers_winograd(const hk_lower *l, const hk_conv_job *job)
{
    bool high = l->precision == HK_PRECISION_HIGH && l->coopmat_m;
    const double direct_rate = 33e6, product_rate = high ? 80e6 : 36e6, bytes_rate = 4.5e6, dispatches = 8;
    const hk_conv *p = &job->p;
    if (!hk_conv_may_winograd(l, job))
        return false;
    winograd t = winograd_of(job);
    double direct = hk_conv_flops(p) / direct_rate, slow = (double)HK_MIN(HK_MIN(p->c, p->k), 128) / 128;
    double bytes = 2.0 * 4 * PRODUCTS * (double)((p->c + p->k) * t.row) +
                   4.0 * (double)(hk_shape_count(&job->x->shape) + hk_shape_count(&job->y->shape)) +
                   (job->w->data ? 0 : 4.0 * (PRODUCTS + 9) * (double)(p->c * p->k));
    double products = 2.0 * PRODUCTS * (double)(p->c * p->k) * (double)t.row / (product_rate * slow);
    return direct > 100 && products + bytes / bytes_rate + dispatches < 0.9 * direct;
}

static struct conv_winograd_push push_of(const winograd *t, int64_t channels, const int64_t *plane)
{
    hk_divisor row = hk_divisor_of(t->row), image = hk_divisor_of(t->lines * t->columns),
               line = hk_divisor_of(t->columns);
    return (struct conv_winograd_push){.count = (uint32_t)(channels * t->row),
                                       .channels = (uint32_t)channels,
                                       .tiles = (uint32_t)t->tiles,
                                       .row = (uint32_t)t->row,
                                       .height = (uint32_t)plane[H],
                                       .width = (uint32_t)plane[W],
                                       .row_magic = row.multiplier,
                                       .row_shift = row.shift,
                                       .plane_tiles = (uint32_t)(t->lines * t->columns),
                                       .plane_magic = image.multiplier,
                                       .plane_shift = image.shift,
                                       .line_tiles = (uint32_t)t->columns,
                                       .line_magic = line.multiplier,
                                       .line_shift = line.shift};
}

static hk_record *emit(hk_lower *l, const hk_kernel *kernel, const char *name, const struct conv_winograd_push *push,
                       hk_value *from, hk_value *to)
{
    hk_record *r = hk_emit(l, kernel, name);
    hk_push(r, push, sizeof *push);
    hk_use(r, from, HK_READ, offsetof(struct conv_winograd_push, from));
    hk_use(r, to, HK_WRITE, offsetof(struct conv_winograd_push, to));
    uint32_t lanes = HK_MIN((uint32_t)LANES, l->device->max_invocations);
    hk_workgroup(r, lanes, 1, 1);
    hk_grid_1d(l, r, (push->count + (uint64_t)lanes - 1) / lanes);
    return r;
}

static void emit_output(hk_lower *l, const hk_conv_job *job, const winograd *t, hk_value *products)
{
    struct conv_winograd_push push = push_of(t, t->results, t->to);
    push.alpha = job->alpha;
    push.beta = job->beta;
    hk_record *r = emit(l, &hk_kernel_conv_winograd_output,
                        t->forward ? "conv winograd output" : "conv data winograd output", &push, products, t->result);
    hk_use(r, job->bias, HK_READ, offsetof(struct conv_winograd_push, bias));
    hk_use(r, job->residual, HK_READ, offsetof(struct conv_winograd_push, residual));
    hk_spec(r, 3, hk_conv_epilogue(job));
    hk_spec(r, 4, job->activation);
    hk_spec(r, 5,
            t->to[W] % SIDE == 0 && hk_value_alignment(t->result) >= 16 &&
                (!job->residual || hk_value_alignment(job->residual) >= 16));
}

/* The transforms of operands, as the product reads them; split: in blocks of halves. */

static hk_status emit_weight(hk_lower *l, const hk_conv_job *job, const winograd *t, hk_gemm *product, bool split)
{
    const hk_conv *p = &job->p;
    hk_value *u = split ? hk_split_scratch(l, PRODUCTS, t->results, t->sources)
                        : hk_scratch(l, HK_FLOAT32, PRODUCTS * p->k * p->c);
    if (!u)
        return hk_out_of_memory(l->ctx, "a convolution's transforms");
    struct conv_winograd_push push = {.count = (uint32_t)(p->k * p->c),
                                      .channels = (uint32_t)t->sources,
                                      .row = (uint32_t)t->results,
                                      .height = (uint32_t)(t->forward ? 1 : p->c),
                                      .width = (uint32_t)(t->forward ? p->c : 1)};
    hk_record *r = emit(l, split ? &hk_kernel_conv_winograd_weight_split : &hk_kernel_conv_winograd_weight,
                        t->forward ? "conv winograd weight" : "conv data winograd weight", &push, job->w, u);
    hk_spec(r, 6, !t->forward);
    r->keep = true;
    if (split) {
        hk_workgroup(r, WEIGHT_LANES, 1, 1);
        hk_grid_1d(l, r, (uint64_t)hk_split_blocks(t->results, t->sources));
        product->trans_a = false;
    }
    product->a = u;
    product->split_a = split;
    return HK_OK;
}

/* Of x, into whole pairs of blocks of halves. */
static void fit_split(hk_lower *l, hk_record *r, const winograd *t, int64_t channels)
{
    hk_workgroup(r, INPUT_LANES, 1, 1);
    hk_grid_1d(l, r, (uint64_t)hk_split_blocks(channels, (t->row + 1) / 2));
}

static hk_status emit_input(hk_lower *l, const winograd *t, const char *name, hk_gemm *product, bool split)
{
    hk_value *v = split ? hk_split_scratch(l, PRODUCTS, t->sources, t->row)
                        : hk_scratch(l, HK_FLOAT32, PRODUCTS * t->sources * t->row);
    if (!v)
        return hk_out_of_memory(l->ctx, "a convolution's transforms");
    struct conv_winograd_push push = push_of(t, t->sources, t->from);
    push.pads = (uint32_t)t->begin[H] | (uint32_t)t->begin[W] << 16;
    hk_record *r = emit(l, split ? &hk_kernel_conv_winograd_input_split : &hk_kernel_conv_winograd_input, name, &push,
                        t->source, v);
    if (split)
        fit_split(l, r, t, t->sources);
    product->b = v;
    product->split_b = split;
    return HK_OK;
}

hk_status hk_conv_lower_winograd(hk_lower *l, const hk_conv_job *job)
{
    const hk_conv *p = &job->p;
    winograd t = winograd_of(job);
    hk_value *m = hk_scratch(l, HK_FLOAT32, PRODUCTS * t.results * t.row);
    if (!m)
        return hk_out_of_memory(l->ctx, "a convolution's transforms");
    hk_gemm product = {.a = m, /* float32 like the transforms that take their places */
                       .b = m,
                       .c = m,
                       .m = t.results,
                       .n = t.row,
                       .k = t.sources,
                       .lda = p->c, /* [k][c] as the weights lie */
                       .ldb = t.row,
                       .trans_a = !t.forward,
                       .batch_rank = 1,
                       .batch = {PRODUCTS},
                       .batch_a = {p->k * p->c},
                       .batch_b = {t.sources * t.row},
                       .split_a = l->precision == HK_PRECISION_HIGH, /* the transforms can do that at no cost */
                       .split_b = l->precision == HK_PRECISION_HIGH,
                       .alpha = 1};
    uint32_t splits;
    hk_gemm_simplify(&product);
    const hk_gemm_variant *variant = hk_gemm_choose(l, &product, &splits);
    bool split = variant->halves == 2 && l->device->max_invocations >= INPUT_LANES;
    HK_TRY(emit_weight(l, job, &t, &product, split));
    HK_TRY(emit_input(l, &t, t.forward ? "conv winograd input" : "conv data winograd input", &product, split));
    hk_gemm_emit(l, &product, variant, splits);
    hk_choice_leave(l, HK_CHOICE_TILE);
    emit_output(l, job, &t, m);
    return HK_OK;
}

/* ---- the weight gradient, in precision high */

static hk_conv_job forward_of(const hk_conv_job *job)
{
    hk_conv_job forward = *job;
    forward.pass = HK_CONV_FORWARD;
    return forward;
}

/* 36 products over the tiles of all images; operands are the transforms'. */
static hk_gemm weight_product(const hk_conv *p, const winograd *t, hk_value *sums)
{
    return (hk_gemm){.a = sums,
                     .b = sums,
                     .c = sums,
                     .m = p->k,
                     .n = p->c,
                     .k = t->row,
                     .lda = t->row,
                     .ldb = t->row,
                     .trans_b = true,
                     .batch_rank = 1,
                     .batch = {PRODUCTS},
                     .batch_a = {p->k * t->row},
                     .batch_b = {p->c * t->row},
                     .split = true,
                     .split_a = true,
                     .split_b = true,
                     .alpha = 1};
}

bool hk_conv_weight_fits_winograd(const hk_lower *l, const hk_conv_job *job)
{
    hk_conv_job forward = forward_of(job);
    if (l->precision != HK_PRECISION_HIGH || !l->coopmat_m || job->bias || !hk_conv_fits_winograd(&forward) ||
        l->device->max_invocations < INPUT_LANES)
        return false;
    winograd t = winograd_of(&forward);
    hk_gemm product = weight_product(&job->p, &t, job->w);
    return isfinite(hk_gemm_units_time(l, &product));
}

/* Microseconds of an H200: bytes of the transforms at the rate of those that split, three dispatches more. */
bool hk_conv_weight_prefers_winograd(const hk_lower *l, const hk_conv_job *job, double otherwise)
{
    const hk_conv *p = &job->p;
    if (l->cpu || job->tile || job->exact || HK_MIN(p->c, p->k) < LEAST_CHANNELS ||
        !hk_conv_weight_fits_winograd(l, job))
        return false;
    hk_conv_job forward = forward_of(job);
    winograd t = winograd_of(&forward);
    hk_gemm product = weight_product(p, &t, job->w);
    double bytes = 4.0 * PRODUCTS * (double)((p->c + p->k) * t.row) +
                   4.0 * (double)(hk_shape_count(&job->x->shape) + hk_shape_count(&job->y->shape));
    return hk_gemm_units_time(l, &product) + bytes / 1.9e6 + 8 < HK_UNITS_SURE * otherwise;
}

hk_status hk_conv_lower_weight_winograd(hk_lower *l, const hk_conv_job *job)
{
    const hk_conv *p = &job->p;
    hk_conv_job forward = forward_of(job);
    winograd t = winograd_of(&forward);
    hk_value *sums = hk_scratch(l, HK_FLOAT32, PRODUCTS * p->k * p->c), *z = hk_split_scratch(l, PRODUCTS, p->k, t.row);
    if (!sums || !z)
        return hk_out_of_memory(l->ctx, "a convolution's transforms");
    hk_gemm product = weight_product(p, &t, sums);
    uint32_t splits;
    const hk_gemm_variant *variant = hk_gemm_choose(l, &product, &splits);
    HK_TRY(emit_input(l, &t, "conv weight winograd input", &product, true));
    struct conv_winograd_push push = push_of(&t, p->k, t.to);
    fit_split(l, emit(l, &hk_kernel_conv_winograd_gradient_split, "conv weight winograd gradient", &push, job->y, z),
              &t, p->k);
    product.a = z;
    hk_gemm_emit(l, &product, variant, splits);
    hk_choice_leave(l, HK_CHOICE_TILE);
    push = (struct conv_winograd_push){.count = (uint32_t)(p->k * p->c)};
    emit(l, &hk_kernel_conv_winograd_weight_gradient, "conv weight winograd output", &push, sums, job->w);
    return HK_OK;
}
