/* Normalization of rows: what LayerNormalization, RMSNormalization and hk.GemmNorm share. */
#ifndef HK_NORM_H
#define HK_NORM_H

#include "ops/op.h"

/* y = (x - mean) deviation scale + bias for rows of `extent` elements, deviation = 1 / sqrt(variance + epsilon). */
typedef struct hk_norm_rows {
    hk_value *x, *y;            /* float32, or stored as float16 */
    hk_value *scale, *bias;     /* float32, as long as a row; bias NULL: none */
    hk_value *mean, *deviation; /* float32, one of each row; NULL: not wanted */
    int64_t rows, extent;       /* neither is 0 */
    float epsilon;
    bool centered; /* false: around 0 (RMSNormalization) */
} hk_norm_rows;

hk_status hk_emit_norm_rows(hk_lower *l, const hk_norm_rows *v);

#endif
