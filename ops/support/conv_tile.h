/*
 * Which tile and how many splits: one small cost model for the forward, data-gradient and weight-gradient GEMM.
 */
#ifndef HK_CONV_TILE_H
#define HK_CONV_TILE_H

#include "ops/op.h"

typedef struct hk_conv_tile {
    uint32_t bm, bn, bk, tm, tn; /* workgroup tile, K step, thread tile */
    uint32_t stages;             /* tiles of the operands in shared memory */
    uint32_t slices;             /* groups of threads that share the tile and part each K step */
    double rate, weight_rate;    /* of a full unit, as shares of its fma rate: gather passes, weight gradient, whose
                                  * kernel has no such tile if 0 */
    const char *forward, *data, *weight; /* names in reports */
} hk_conv_tile;

/* The GEMM to place: m x n results per group, sums of length k. */
typedef struct hk_conv_extent {
    const char *problem; /* hk_conv_problem, for tables of measurements */
    int64_t m, n, k, groups;
    uint32_t most_splits;
    bool weight;
    double bytes; /* that must be moved at least, 0: few */
} hk_conv_extent;

typedef struct hk_conv_choice {
    const hk_conv_tile *tile;
    uint32_t splits, k_split; /* k_split: a multiple of the tile's bk */
} hk_conv_choice;

const hk_conv_tile *hk_conv_tiles(size_t *count);
uint32_t hk_conv_tile_threads(const hk_conv_tile *t);
/* Whether the device can run the tile. */
bool hk_conv_tile_fits(const hk_lower *l, const hk_conv_tile *t);
/* This tile with at most so many splits, none of them empty. */
hk_conv_choice hk_conv_split(const hk_conv_extent *e, const hk_conv_tile *t, uint32_t splits);
/* Never fails: the smallest tile fits the specification's minimum (128 invocations, 16 KiB). Depends on the shape, the
 * device's limits and the session's table alone, so equal plans split equally. What is emitted from here on belongs to
 * the choice, until hk_choice_leave. */
hk_conv_choice hk_conv_choose(hk_lower *l, const hk_conv_extent *e);
/* Microseconds that the model gives the tile it would choose. */
double hk_conv_tiles_time(const hk_lower *l, const hk_conv_extent *e);

#endif
