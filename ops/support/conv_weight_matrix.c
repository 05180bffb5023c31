/* Weight gradient of contiguous float32 on matrix units in precision fast: shaders/conv_weight_matrix.comp. */
#include "kernels.h"
#include "ops/support/choice.h"
#include "ops/support/conv_units.h"
#include "ops/support/conv_weight.h"
#include "shaders/conv_weight.push.h"

enum { H = HK_AXIS_H, W = HK_AXIS_W };

typedef struct weight_tile {
    hk_units_tile t;
    const char *name;
} weight_tile;

#define TILE(text, bm, bn, bk, wm, wn, rate)                                                                           \
    {                                                                                                                  \
        {bm, bn, bk, wm, wn, rate}, "conv weight matrix " text " f16"                                                  \
    }

static const weight_tile tiles[] = {
    TILE("128x128x32", 128, 128, 32, 2, 4, 1.0), TILE("64x128x32", 64, 128, 32, 2, 4, 0.8),
    TILE("128x64x32", 128, 64, 32, 4, 2, 0.8),   TILE("64x64x32", 64, 64, 32, 2, 2, 0.65),
    TILE("32x32x32", 32, 32, 32, 2, 2, 0.25),
};

static const hk_kernel *kernel_of(const hk_lower *l)
{
    return l->coopmat_emulated ? &hk_kernel_conv_weight_matrix_emulated : &hk_kernel_conv_weight_matrix;
}

/* Narrower gradients fill a tile with padding. Precision high would split both operands in each workgroup: on an H200
 * that took 172 us where the fp32 kernel takes 116 (64 to 32 channels, 3x3), and 14.2 ms of 16.0 in ResNet-50. */
enum { LEAST = 32 };

bool hk_conv_weight_prefers_units(const hk_lower *l, const hk_conv_job *job)
{
    const hk_conv *p = &job->p;
    bool may = !job->tile && l->precision == HK_PRECISION_FAST && hk_units_run(l, kernel_of(l)) &&
               p->k / p->groups >= LEAST && p->c / p->groups * hk_window_taps(&p->w) >= LEAST;
    bool fits = false;
    for (size_t i = 0; may && i < HK_COUNT(tiles) && !fits; i++)
        fits = hk_units_tile_fits(l, &tiles[i].t);
    return fits;
}

/* Each tile with so many splits of the pixels that they fill the units once, twice, ... */
static void add_candidates(const hk_lower *l, const hk_conv_job *job, int64_t pixels, hk_choice *choice)
{
    const hk_conv *p = &job->p;
    int64_t units = HK_MAX(l->compute_units_hint, 1u), m = p->k / p->groups,
            n = p->c / p->groups * hk_window_taps(&p->w);
    for (size_t i = 0; i < HK_COUNT(tiles); i++) {
        const hk_units_tile *t = &tiles[i].t;
        if (!hk_units_tile_fits(l, t))
            continue;
        int64_t steps = (pixels + t->bk - 1) / t->bk, last = 0;
        int64_t places = ((m + t->bm - 1) / t->bm) * ((n + t->bn - 1) / t->bn) * p->groups;
        for (int64_t rounds = 0; rounds <= 4; rounds++) {
            int64_t wanted = HK_MIN(HK_MAX(rounds * units / places, 1), HK_MAX(steps / 8, 1));
            int64_t each = (steps + wanted - 1) / wanted, splits = (steps + each - 1) / each;
            if (splits == last || (splits > 1 && m * n * p->groups > INT32_MAX / splits))
                continue;
            last = splits;
            hk_choice_add(choice, &(hk_candidate){.name = tiles[i].name,
                                                  .variant = &tiles[i],
                                                  .splits = (uint32_t)splits,
                                                  .cost = hk_units_cost(l, t, places * splits, each, (uint32_t)splits,
                                                                        m * n * p->groups)});
        }
    }
}

/* Four pixels at once: single taps that lie over the pixels of dY themselves. */
static bool reads_fours(const hk_conv_job *job)
{
    const hk_window *w = &job->p.w;
    bool same = hk_window_taps(w) == 1 && w->stride[H] == 1 && w->stride[W] == 1;
    for (int axis = 0; axis < HK_AXES; axis++)
        same &= w->begin[axis] == 0 && w->in[axis] == w->out[axis];
    return same && hk_window_out_count(w) % 4 == 0 && hk_value_alignment(job->x) == 16 &&
           hk_value_alignment(job->y) == 16;
}

hk_status hk_conv_lower_weight_units(hk_lower *l, const hk_conv_job *job)
{
    int64_t pixels = job->p.n * hk_window_out_count(&job->p.w);
    char problem[HK_PROBLEM_BYTES];
    hk_choice choice;
    hk_choice_begin(l, &choice, HK_CHOICE_TILE, "conv weight matrix %s", hk_conv_problem(l, job, problem));
    add_candidates(l, job, pixels, &choice);
    const hk_candidate *taken = hk_choice_end(l, &choice);
    const weight_tile *tile = taken->variant;
    const hk_units_tile *t = &tile->t;
    hk_weight_result result;
    if (!hk_weight_result_begin(l, job, taken->splits, &result))
        return hk_out_of_memory(l->ctx, "a convolution's partial sums");
    int64_t steps = (pixels + t->bk - 1) / t->bk;
    uint32_t threads = hk_units_threads(l, t);
    struct conv_weight_push push;
    hk_conv_weight_push(&job->p, &result, t->bm, t->bn, (uint32_t)((steps + taken->splits - 1) / taken->splits) * t->bk,
                        &push);
    hk_record *r = hk_emit(l, kernel_of(l), tile->name);
    hk_push(r, &push, sizeof push);
    hk_use(r, job->x, HK_READ, offsetof(struct conv_weight_push, x));
    hk_use(r, job->y, HK_READ, offsetof(struct conv_weight_push, dy));
    hk_weight_result_use(r, job, &result, offsetof(struct conv_weight_push, dw), offsetof(struct conv_weight_push, db));
    hk_workgroup(r, threads, 1, 1);
    r->subgroup_size = hk_lower_has(l, HK_CAP_SUBGROUP_SIZE) ? l->device->subgroup_size : 0;
    const uint32_t sizes[] = {t->bm, t->bn, t->bk, t->wm, t->wn};
    for (uint32_t i = 0; i < HK_COUNT(sizes); i++)
        hk_spec(r, 3 + i, sizes[i]);
    hk_conv_window_specs(r, &job->p.w, 8);
    const uint32_t rest[] = {job->bias != NULL, reads_fours(job), threads, l->coopmat_m, l->coopmat_n, l->coopmat_k};
    for (uint32_t i = 0; i < HK_COUNT(rest); i++)
        hk_spec(r, 14 + i, rest[i]);
    r->flops = hk_conv_flops(&job->p);
    hk_grid_1d(l, r, (uint64_t)push.tiles_m * push.tiles_n * push.groups * push.splits);
    hk_weight_result_end(l, job, &result);
    hk_choice_leave(l, HK_CHOICE_TILE);
    return HK_OK;
}
