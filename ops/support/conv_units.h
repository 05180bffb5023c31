/* What the convolution kernels on matrix units share (conv_matrix.comp, conv_weight_matrix.comp). */
#ifndef HK_CONV_UNITS_H
#define HK_CONV_UNITS_H

#include "ops/op.h"

/* Times of different models are compared: precision high leaves the tiles of float32 where it would take less than this
 * of theirs, so that what one of them has wrong does not make it the slower precision. */
#define HK_UNITS_SURE 0.85

/* A workgroup's tile, the step along K, subgroups along rows and columns. */
typedef struct hk_units_tile {
    uint32_t bm, bn, bk, wm, wn;
    double rate; /* share of the best tile's rate that its inner loop reaches */
} hk_units_tile;

/* Whether the device can run a kernel of shaders/matrix_loop.glsl, and with this tile. */
bool hk_units_run(const hk_lower *l, const hk_kernel *kernel);
bool hk_units_tile_fits(const hk_lower *l, const hk_units_tile *t);
uint32_t hk_units_threads(const hk_lower *l, const hk_units_tile *t);
/* Multiplications of a round, in those of a unit: rounds of workgroups over the units with their padding, and for
 * splits of K a second pass over so many results. Only ratios count; they were measured on an H100. */
double hk_units_cost(const hk_lower *l, const hk_units_tile *t, int64_t workgroups, int64_t steps, uint32_t splits,
                     int64_t results);

#endif
