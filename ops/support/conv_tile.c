/* The tiles of the convolution GEMMs and the choice among them. */
#include "ops/support/conv_tile.h"

#include <math.h>

#define TILE(text, bm, bn, bk, tm, tn, stages, slices, rate, weight_rate)                                              \
    {                                                                                                                  \
        bm, bn, bk, tm, tn, stages, slices, rate, weight_rate, "conv " text " nchw", "conv data " text " nchw",        \
            "conv weight " text " nchw"                                                                                \
    }

/* Rates were measured on an H200 at 1.98 GHz. The last tile fits the specification's minimum. */
static const hk_conv_tile tiles[] = {
    TILE("128x128x8", 128, 128, 8, 8, 8, 2, 1, 0.42, 0.48), TILE("128x64x8", 128, 64, 8, 8, 8, 2, 1, 0.54, 0.45),
    TILE("64x128x8", 64, 128, 8, 8, 8, 2, 1, 0.49, 0.42),   TILE("64x64x8", 64, 64, 8, 8, 4, 2, 1, 0.47, 0.37),
    TILE("32x128x8", 32, 128, 8, 8, 4, 2, 1, 0.42, 0.30),   TILE("64x64x32/4", 64, 64, 32, 8, 8, 2, 4, 0.30, 0.26),
    TILE("32x32x32/4", 32, 32, 32, 4, 4, 2, 4, 0.24, 0.22), TILE("32x32x8", 32, 32, 8, 4, 4, 2, 1, 0.31, 0.28),
};

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

/* Workgroups that a unit holds at once, by registers: 65,536 of them, and a thread needs its sums, their operands and
 * the addresses. */
static double resident(const hk_conv_tile *t)
{
    uint32_t registers = 48 + 7 * t->tm * t->tn / 4;
    return HK_MAX(65536 / (hk_conv_tile_threads(t) * registers), 1u);
}

/* Time of one compute unit in multiply-adds at its full rate (about 250,000 make a microsecond on an H200). Workgroups
 * run in rounds of as many as fit. A round takes what its multiplications take, but fewer than some 320 threads cannot
 * keep a unit busy, and each K step costs the latency of its loads. Every round pays for filling and emptying; splits
 * pay for the partial sums and for one more dispatch behind a barrier. */
static double cost(const hk_lower *l, const hk_conv_extent *e, const hk_conv_tile *t, int64_t splits)
{
    const double full_threads = 320, step_latency = 110e3, fill = 600e3, dispatch = 600e3, per_byte = 250e3 / 3e6;
    int64_t units = HK_MAX(l->compute_units_hint, 1u);
    int64_t workgroups = ceil_div(e->m, t->bm) * ceil_div(e->n, t->bn) * e->groups * splits;
    double left = (double)ceil_div(workgroups, units), most = resident(t), time = 0;
    double steps = (double)ceil_div(ceil_div(e->k, splits), t->bk);
    double work = steps * t->bk * t->bm * t->bn / (e->weight ? t->weight_rate : t->rate);
    double alone = HK_MAX(work * HK_MAX(full_threads / hk_conv_tile_threads(t), 1.0), steps * step_latency);
    double full_rounds = floor(left / most), rest = left - full_rounds * most;
    time += full_rounds * (HK_MAX(most * work, alone) + fill);
    time += rest > 0 ? HK_MAX(rest * work, alone) + fill : 0;
    if (splits > 1)
        time += dispatch + 8.0 * per_byte * (double)(e->m * e->n * e->groups * splits);
    return time;
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

hk_conv_choice hk_conv_choose(const hk_lower *l, const hk_conv_extent *e)
{
    const hk_conv_tile *best = NULL;
    uint32_t best_splits = 1, splits;
    double least = 0;
    for (size_t i = 0; i < HK_COUNT(tiles); i++) {
        if ((!hk_conv_tile_fits(l, &tiles[i]) && i + 1 < HK_COUNT(tiles)) || (e->weight && tiles[i].weight_rate <= 0))
            continue;
        for (uint32_t j = 0; (splits = split_candidate(l, e, &tiles[i], j)) != 0; j++) {
            double c = split_fits(e, &tiles[i], splits) ? cost(l, e, &tiles[i], splits) : 0;
            if (c > 0 && (!best || c < least)) {
                least = c;
                best = &tiles[i];
                best_splits = splits;
            }
        }
    }
    return hk_conv_split(e, best, best_splits);
}
