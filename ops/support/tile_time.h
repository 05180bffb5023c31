/*
 * What a tiled matrix kernel takes, predicted: rounds of workgroups over a device's units.
 */
#ifndef HK_TILE_TIME_H
#define HK_TILE_TIME_H

#include "ops/op.h"

/* Of a family of kernels, on a device of 132 units: microseconds, and rates in a microsecond. Fitted to measurements.
 */
typedef struct hk_tile_model {
    double registers, registers_per_sum; /* of a thread */
    double multiplies;                   /* of a unit at its full rate */
    double full_threads;                 /* fewer on a unit take turns with their latency */
    double step, step_load, step_stage;  /* latency of a K step: each, for each load of a thread, with one stage */
    double fill, slices;                 /* of a round of workgroups; more with slices */
    double fill_load;                    /* and for each load of a thread in its first K step */
    double dispatch, sum_rate;           /* of splits: one more dispatch, bytes of the partial sums */
    double l2_rate, memory_rate;         /* bytes */
    double apart;                        /* share of the shorter of arithmetic and memory that is not hidden */
} hk_tile_model;

typedef struct hk_tile_shape {
    uint32_t bm, bn, bk, threads;
    double sums, loads; /* of a thread: results, and loads in a K step */
    double rate;        /* of a full unit, as a share of hk_tile_model.multiplies */
    double shared_bytes;
    bool staged, sliced; /* the next K step loads during this one; groups of threads part each K step */
} hk_tile_shape;

typedef struct hk_tile_work {
    int64_t workgroups, k; /* all splits; of one split */
    int64_t splits;
    double results;       /* elements */
    double element_bytes; /* of the operands */
    double bytes;         /* that must be moved at least, 0: few */
} hk_tile_work;

double hk_tile_time(const hk_lower *l, const hk_tile_model *c, const hk_tile_shape *t, const hk_tile_work *w);

#endif
