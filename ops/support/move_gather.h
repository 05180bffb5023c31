/*
 * Moves whose places are read from index tensors. Two forms cover all operators:
 *
 * Tuples  (Gather, GatherND, ScatterND): y[b, m, :] = x[b, row of tuple m, :], whole runs of `inner` elements.
 * Lines   (GatherElements, ScatterElements): y[c] = x[c with one coordinate replaced by index[c]], single elements.
 *
 * On the host an index outside its dimension fails; on the device it is clamped. Sums run in the order of the indices,
 * with duplicates the last one wins where nothing is summed: the same bits in every run.
 */
#ifndef HK_MOVE_GATHER_H
#define HK_MOVE_GATHER_H

#include "ops/support/move.h"
#include "ops/support/move_args.h"

typedef enum hk_scatter { HK_SCATTER_NONE, HK_SCATTER_ADD, HK_SCATTER_MUL, HK_SCATTER_MAX, HK_SCATTER_MIN } hk_scatter;

typedef struct hk_tuples {
    int32_t depth; /* indices of a tuple */
    int64_t batches;
    int64_t rows;                                     /* tuples of a batch */
    bool shared;                                      /* every batch uses the same tuples */
    int64_t x_rows;                                   /* rows of x in a batch */
    int64_t extent[HK_MAX_RANK], stride[HK_MAX_RANK]; /* of every index of a tuple, stride in rows of x */
    int64_t inner;                                    /* elements of a row */
} hk_tuples;

typedef struct hk_lines {
    hk_shape x, index; /* of one rank; off the axis, index is no larger than x */
    int32_t axis;
} hk_lines;

/* int32 or int64, else a sentence. */
hk_status hk_check_index(const hk_args *a, int32_t i);

/* The shape that GatherND makes and ScatterND wants as updates, unknown where x's or the index's rank is. */
hk_status hk_tuples_shape(const hk_args *a, const hk_shape *x, const hk_shape *index, int64_t batch, hk_shape *y);
/* Of shapes that hk_tuples_shape accepted and that are known. */
hk_tuples hk_tuples_of(const hk_shape *x, const hk_shape *index, int64_t batch);
hk_status hk_read_lines(const hk_args *a, const hk_shape *x, const hk_shape *index, int64_t axis, hk_lines *t);

hk_status hk_host_gather(hk_eval *e, const hk_tuples *t, const hk_tensor *x, const hk_tensor *index, hk_tensor *y);
hk_status hk_emit_gather(hk_lower *l, const hk_tuples *t, hk_value *x, hk_value *index, hk_value *y);

/* y = x (NULL: zeros) with row tuple m combined with updates[b, m, :], for every m in order. */
hk_status hk_host_scatter(hk_eval *e, const hk_tuples *t, hk_scatter how, const hk_tensor *x, const hk_tensor *index,
                          const hk_tensor *updates, hk_tensor *y);
hk_status hk_emit_scatter(hk_lower *l, const hk_tuples *t, hk_scatter how, hk_value *x, hk_value *index,
                          hk_value *updates, hk_value *y);

hk_status hk_host_gather_lines(hk_eval *e, const hk_lines *t, const hk_tensor *x, const hk_tensor *index, hk_tensor *y);
hk_status hk_emit_gather_lines(hk_lower *l, const hk_lines *t, hk_value *x, hk_value *index, hk_value *y);
hk_status hk_host_scatter_lines(hk_eval *e, const hk_lines *t, hk_scatter how, const hk_tensor *x,
                                const hk_tensor *index, const hk_tensor *updates, hk_tensor *y);
hk_status hk_emit_scatter_lines(hk_lower *l, const hk_lines *t, hk_scatter how, hk_value *x, hk_value *index,
                                hk_value *updates, hk_value *y);

#endif
