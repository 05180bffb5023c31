/*
 * What every operator that sums shares: teams (the shape of a workgroup that works on rows or columns,
 * shaders/reduce.glsl) and one reduction over any set of axes (shaders/reduce.comp).
 */
#ifndef HK_REDUCE_H
#define HK_REDUCE_H

#include "ops/op.h"

/* ---- teams */

typedef struct hk_team {
    uint32_t items; /* work items of a workgroup, side by side */
    uint32_t lanes; /* invocations on each: a power of two; 1 needs no barrier */
    bool spread; /* neighbouring invocations take neighbouring items (columns), else neighbouring parts of one (rows) */
} hk_team;

/* For items whose elements lie side by side in memory, `units` loads each; lanes * items never exceeds the device's
 * workgroup limit nor 256. */
hk_team hk_team_rows(const hk_lower *l, int64_t items, int64_t units);
/* For items of which neighbours lie side by side. */
hk_team hk_team_columns(const hk_lower *l, int64_t items, int64_t units);
/* Into how many equal chunks, each an item of its own, to split items of `units` loads so that the device is busy.
 * Depends on sizes and device only. */
int64_t hk_team_chunks(const hk_lower *l, const hk_team *t, int64_t items, int64_t units);
/* Vectors (units) that each invocation keeps in registers to read its row once; 0: too many, or a CPU: read again. */
uint32_t hk_team_held(const hk_lower *l, const hk_team *t, int64_t units);

/* A kernel and the same built with subgroup operations (NULL: none). */
typedef struct hk_team_kernel {
    const hk_kernel *plain, *subgroup;
} hk_team_kernel;

/* Emits a dispatch of `items` work items: sets workgroup, team constants (ids 3..6) and grid, and the push block. The
 * kernel's own constants begin at id HK_TEAM_SPEC. */
#define HK_TEAM_SPEC 8
hk_record *hk_team_emit(hk_lower *l, const hk_team *t, hk_team_kernel kernel, const char *variant, int64_t items,
                        const void *push, size_t push_bytes);

/* ---- reductions. Numbers are shared with shaders/reduce.comp. */

typedef enum hk_combine { HK_COMBINE_SUM, HK_COMBINE_PROD, HK_COMBINE_MAX, HK_COMBINE_MIN } hk_combine;
typedef enum hk_before { HK_BEFORE_NOTHING, HK_BEFORE_ABS, HK_BEFORE_SQUARE, HK_BEFORE_EXP_SHIFTED } hk_before;
typedef enum hk_after { HK_AFTER_NOTHING, HK_AFTER_MEAN, HK_AFTER_SQRT, HK_AFTER_LOG, HK_AFTER_LOG_SHIFTED } hk_after;

/* y = after(combine over the axes of before(x)). x is row-major with these extents, beginning at element x_first of the
 * value; y has one element per combination of the axes kept, in their order, all of the value, and x's element type.
 * EXP_SHIFTED and LOG_SHIFTED take the maximum of each output from shift (y's size; infinite ones count as 0):
 * log(sum(exp(x - shift))) + shift. NaN elements make maximum and minimum NaN; sums start from 0, products from 1. */
typedef struct hk_reduction {
    hk_value *x, *y, *shift;
    int64_t x_first;
    int32_t rank;
    int64_t extent[HK_MAX_RANK];
    uint32_t axes; /* bit d: dimension d is reduced */
    hk_combine combine;
    hk_before before;
    hk_after after;
} hk_reduction;

/* One or two dispatches; none when y is empty. HK_STATUS_UNSUPPORTED names an element type without a kernel. */
hk_status hk_emit_reduction(hk_lower *l, const hk_reduction *r);

/* ---- parts */

/* y = softmax of x, or its logarithm, over rows [rows / inner][extent][inner]; float32, not empty (ops/softmax.c). */
void hk_emit_softmax(hk_lower *l, hk_value *x, hk_value *y, int64_t rows, int64_t extent, int64_t inner,
                     bool logarithm);
/* HK_STATUS_UNSUPPORTED unless v is float32 on the device (NULL passes). */
hk_status hk_require_float32(hk_lower *l, const hk_value *v);
/* Do all of these (NULL ones pass) begin at a multiple of 16 bytes? */
bool hk_aligned_all(const hk_value *const *values, size_t count);

#endif
