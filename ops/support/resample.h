/*
 * Separable resampling: along an axis every output element is a short weighted sum of input elements, which ones and
 * how much being known on the host. Resize in all its modes is that, and so is its gradient: the transposed table.
 */
#ifndef HK_RESAMPLE_H
#define HK_RESAMPLE_H

#include "ops/op.h"

/* y[o] = sum over t < count of weight[o * count + t] * x[index[o * count + t]]. An output whose indices are -1 lies
 * outside of the input and gets a stated value. */
typedef struct hk_taps {
    int64_t in, out;
    int32_t count;
    int32_t *index;
    double *weight;
} hk_taps;

/* Zeroed arrays in the arena; false when out of memory. */
bool hk_taps_new(hk_arena *arena, int64_t in, int64_t out, int64_t count, hk_taps *t);
/* dx from dy as x was made into y. */
bool hk_taps_transpose(hk_arena *arena, const hk_taps *t, hk_taps *back);
/* x of *shape resampled along an axis into a new array, and *shape changed; NULL when out of memory. */
double *hk_taps_apply(hk_arena *arena, const hk_taps *t, const double *x, hk_shape *shape, int32_t axis,
                      double outside);
/* Adds the hk.Resample nodes that do so along every axis whose entry of taps is not NULL: one for a few taps of axes
 * that lie side by side, else one an axis, those that shrink most first. */
hk_status hk_build_resample(hk_graph *g, hk_value *x, const hk_taps *const taps[HK_MAX_RANK], double outside,
                            hk_value **out);

#endif
