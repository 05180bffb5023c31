/* The tiles of the convolution GEMMs and the choice among them. */
#include "ops/support/conv_tile.h"

#include "ops/support/choice.h"
#include "ops/support/tile_time.h"

#define TILE(text, bm, bn, bk, tm, tn, stages, slices, rate, weight_rate)                                              \
    {                                                                                                                  \
        bm, bn, bk, tm, tn, stages, slices, rate, weight_rate, "conv " text " nchw", "conv data " text " nchw",        \
            "conv weight " text " nchw"                                                                                \
    }

/* Rates were fitted to the times of tools/bench/conv_tiles (an H100, 50 layers), those of the weight gradient measured
 * on an H200. The last tile fits the specification's minimum. */
/* clang-format off */
static const hk_conv_tile tiles[] = {
    TILE("64x128x16", 64, 128, 16, 8, 8, 1, 1, 0.56, 0),
    TILE("128x128x8 16x8", 128, 128, 8, 16, 8, 2, 1, 0.565, 0),
    TILE("128x128x8", 128, 128, 8, 8, 8, 2, 1, 0.50, 0.48),
    TILE("128x64x8", 128, 64, 8, 8, 8, 2, 1, 0.49, 0.45),
    TILE("64x128x8", 64, 128, 8, 8, 8, 2, 1, 0.51, 0.42),
    TILE("64x64x16", 64, 64, 16, 8, 4, 1, 1, 0.45, 0),
    TILE("64x64x8", 64, 64, 8, 8, 4, 2, 1, 0.44, 0.37),
    TILE("32x128x8", 32, 128, 8, 8, 4, 2, 1, 0.46, 0.30),
    TILE("16x128x16", 16, 128, 16, 4, 4, 2, 1, 0.29, 0),
    TILE("64x64x32/4", 64, 64, 32, 8, 8, 2, 4, 0.375, 0.26),
    TILE("32x32x32/4", 32, 32, 32, 4, 4, 2, 4, 0.27, 0.22),
    TILE("16x64x64/4", 16, 64, 64, 4, 4, 1, 4, 0.34, 0),
    TILE("32x32x128/8", 32, 32, 128, 4, 4, 1, 8, 0.29, 0),
    TILE("16x32x128/8", 16, 32, 128, 4, 4, 1, 8, 0.21, 0),
    TILE("32x32x8", 32, 32, 8, 4, 4, 2, 1, 0.355, 0.28),
};
/* clang-format on */

uint32_t hk_conv_tile_threads(const hk_conv_tile *t)
{
    return t->bm / t->tm * (t->bn / t->tn) * t->slices;
}

const hk_conv_tile *hk_conv_tiles(size_t *count)
{
    *count = HK_COUNT(tiles);
    return tiles;
}

/* The tiles of both operands, each row padded by one vector. */
bool hk_conv_tile_fits(const hk_lower *l, const hk_conv_tile *t)
{
    uint32_t bytes = t->stages * t->bk * (t->bm + 4 + t->bn + 4) * 4, sums = t->slices > 1 ? t->bm * t->bn * 4 : 0;
    return hk_conv_tile_threads(t) <= l->device->max_invocations && HK_MAX(bytes, sums) <= l->device->max_shared_bytes;
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static const hk_tile_model gather_model = {.registers = 77,
                                           .registers_per_sum = 1.37,
                                           .multiplies = 217.6e3,
                                           .full_threads = 152,
                                           .step = 0.44,
                                           .step_load = 0.007,
                                           .step_stage = 0.44,
                                           .fill = 0.74,
                                           .slices = 0.25,
                                           .dispatch = 2.8,
                                           .sum_rate = 5.6e6,
                                           .l2_rate = 2.8e6,
                                           .memory_rate = 1.7e6};
static const hk_tile_model weight_model = {.registers = 48,
                                           .registers_per_sum = 1.75,
                                           .multiplies = 250e3,
                                           .full_threads = 320,
                                           .step = 0.44,
                                           .fill = 2.4,
                                           .dispatch = 2.4,
                                           .sum_rate = 3e6,
                                           .l2_rate = 1e12,
                                           .memory_rate = 1e12};

static double time_of(const hk_lower *l, const hk_conv_extent *e, const hk_conv_tile *t, uint32_t splits)
{
    uint32_t threads = hk_conv_tile_threads(t);
    const hk_tile_shape shape = {.bm = t->bm,
                                 .bn = t->bn,
                                 .bk = t->bk,
                                 .threads = threads,
                                 .sums = t->tm * t->tn,
                                 .loads = (double)(t->bm + t->bn) * t->bk / threads,
                                 .rate = e->weight ? t->weight_rate : t->rate,
                                 .shared_bytes = 4.0 * t->stages * t->bk * (t->bm + t->bn + 8),
                                 .staged = t->stages > 1,
                                 .sliced = t->slices > 1};
    const hk_tile_work work = {.workgroups = ceil_div(e->m, t->bm) * ceil_div(e->n, t->bn) * e->groups * splits,
                               .k = ceil_div(e->k, splits),
                               .splits = splits,
                               .results = (double)(e->m * e->n * e->groups),
                               .element_bytes = 4,
                               .bytes = e->bytes};
    return hk_tile_time(l, e->weight ? &weight_model : &gather_model, &shape, &work);
}

hk_conv_choice hk_conv_split(const hk_conv_extent *e, const hk_conv_tile *t, uint32_t splits)
{
    int64_t steps = HK_MAX(ceil_div(e->k, t->bk), 1);
    uint32_t k_split = (uint32_t)ceil_div(steps, splits) * t->bk;
    return (hk_conv_choice){t, (uint32_t)ceil_div(steps * t->bk, k_split), k_split};
}

/* Numbers of splits worth a look: small ones, then those that make whole rounds of workgroups. 0 ends the list. */
static uint32_t split_candidate(const hk_lower *l, const hk_conv_extent *e, const hk_conv_tile *t, uint32_t i)
{
    static const uint8_t small[] = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32};
    enum { ROUNDS = 16 };
    if (i < HK_COUNT(small))
        return small[i];
    int64_t rounds = i - (int64_t)HK_COUNT(small) + 1,
            tiles_all = ceil_div(e->m, t->bm) * ceil_div(e->n, t->bn) * e->groups;
    return rounds > ROUNDS ? 0 : (uint32_t)HK_MAX(rounds * HK_MAX(l->compute_units_hint, 1u) / HK_MAX(tiles_all, 1), 1);
}

/* A split has work, and the partial sums can be indexed. */
static bool split_fits(const hk_conv_extent *e, const hk_conv_tile *t, uint32_t splits)
{
    return splits == 1 ||
           (splits <= e->most_splits && e->k / splits >= 8 * t->bk && e->m * e->n * e->groups <= INT32_MAX / splits);
}

static void add_candidates(const hk_lower *l, const hk_conv_extent *e, hk_choice *c)
{
    uint32_t splits;
    for (size_t i = 0; i < HK_COUNT(tiles); i++) {
        const hk_conv_tile *t = &tiles[i];
        if ((!hk_conv_tile_fits(l, t) && i + 1 < HK_COUNT(tiles)) || (e->weight && t->weight_rate <= 0))
            continue;
        for (uint32_t j = 0; (splits = split_candidate(l, e, t, j)) != 0; j++)
            if (split_fits(e, t, splits))
                hk_choice_add(c, &(hk_candidate){.name = e->weight ? t->weight : t->forward,
                                                 .variant = t,
                                                 .splits = splits,
                                                 .cost = time_of(l, e, t, splits)});
    }
}

double hk_conv_tiles_time(const hk_lower *l, const hk_conv_extent *e)
{
    hk_choice c = {.kind = HK_CHOICE_TILE};
    add_candidates(l, e, &c);
    return c.best[0].cost;
}

hk_conv_choice hk_conv_choose(hk_lower *l, const hk_conv_extent *e)
{
    hk_choice c;
    hk_choice_begin(l, &c, HK_CHOICE_TILE, "conv tile %s", e->problem);
    add_candidates(l, e, &c);
    const hk_candidate *taken = hk_choice_end(l, &c);
    return hk_conv_split(e, taken->variant, taken->splits);
}
