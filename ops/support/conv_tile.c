/* The tiles of the convolution GEMMs and the choice among them. */
#include "ops/support/conv_tile.h"

#define TILE(text, bm, bn, bk, tm, tn, slices, rate)                                                                   \
    {                                                                                                                  \
        bm, bn, bk, tm, tn, slices, rate, "conv " text " nchw", "conv data " text " nchw", "conv weight " text " nchw" \
    }

/* The last one fits the specification's minimum. */
static const hk_conv_tile tiles[] = {
    TILE("128x128x8", 128, 128, 8, 8, 8, 1, 0.95),  TILE("128x64x8", 128, 64, 8, 8, 8, 1, 1.00),
    TILE("64x128x8", 64, 128, 8, 8, 8, 1, 1.00),    TILE("64x64x32/4", 64, 64, 32, 8, 8, 4, 0.90),
    TILE("64x64x8", 64, 64, 8, 8, 4, 1, 0.80),      TILE("32x128x8", 32, 128, 8, 8, 4, 1, 0.75),
    TILE("32x32x32/4", 32, 32, 32, 4, 4, 4, 0.50),  TILE("32x32x8", 32, 32, 8, 4, 4, 1, 0.50),
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

/* Two stages of both operands, each row padded by one vector. */
bool hk_conv_tile_fits(const hk_lower *l, const hk_conv_tile *t)
{
    uint32_t bytes = 2 * t->bk * (t->bm + 4 + t->bn + 4) * 4, sums = t->slices > 1 ? t->bm * t->bn * 4 : 0;
    return hk_conv_tile_threads(t) <= l->device->max_invocations && HK_MAX(bytes, sums) <= l->device->max_shared_bytes;
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* Time in multiply-adds of one compute unit (about 225,000 make a microsecond on an H200). A unit needs some 256 threads
 * to keep its pipes busy; every workgroup pays for filling and emptying; splits pay for the partial sums and one more
 * dispatch behind a barrier. */
static double cost(const hk_lower *l, const hk_conv_extent *e, const hk_conv_tile *t, int64_t splits)
{
    const double fill_k = 48.0, unit_threads = 256.0, dispatch = 560e3, per_byte = 225e3 / 3e6;
    double units = HK_MAX(l->compute_units_hint, 1u), threads = hk_conv_tile_threads(t);
    int64_t workgroups = ceil_div(e->m, t->bm) * ceil_div(e->n, t->bn) * e->groups * splits;
    double per_unit = (double)ceil_div(workgroups, (int64_t)units);
    double busy = HK_MIN(1.0, threads * HK_MIN(per_unit, 512.0 / threads) / unit_threads);
    double work = per_unit * t->bm * t->bn * ((double)ceil_div(e->k, splits) + fill_k) / (t->rate * busy);
    if (splits > 1)
        work += dispatch + 8.0 * per_byte * (double)(e->m * e->n * e->groups * splits);
    return work;
}

hk_conv_choice hk_conv_split(const hk_conv_extent *e, const hk_conv_tile *t, uint32_t splits)
{
    int64_t steps = HK_MAX(ceil_div(e->k, t->bk), 1);
    uint32_t k_split = (uint32_t)ceil_div(steps, splits) * t->bk;
    return (hk_conv_choice){t, (uint32_t)ceil_div(steps * t->bk, k_split), k_split};
}

hk_conv_choice hk_conv_choose(const hk_lower *l, const hk_conv_extent *e)
{
    static const uint16_t counts[] = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 264, 396, 528, 1056};
    hk_conv_choice best = {0};
    double least = 0;
    for (size_t i = 0; i < HK_COUNT(tiles); i++) {
        const hk_conv_tile *t = &tiles[i];
        if (!hk_conv_tile_fits(l, t) && i + 1 < HK_COUNT(tiles))
            continue;
        for (size_t j = 0; j < HK_COUNT(counts); j++) {
            uint32_t splits = counts[j];
            /* a split has work, and the partial sums can be indexed */
            if (splits > e->most_splits || (splits > 1 && (e->k / splits < 8 * t->bk || e->m * e->n * e->groups > INT32_MAX / splits)))
                break;
            double c = cost(l, e, t, splits);
            if (best.tile && c >= least)
                continue;
            least = c;
            best = (hk_conv_choice){t, splits, 0};
        }
    }
    return hk_conv_split(e, best.tile, best.splits);
}
