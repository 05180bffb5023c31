/* What the kernels of the weight gradient share: where their partial sums go. */
#ifndef HK_CONV_WEIGHT_H
#define HK_CONV_WEIGHT_H

#include "ops/support/conv_lower.h"

/* The partial sums of all splits, or the results themselves, and where a kernel puts them. */
typedef struct hk_weight_result {
    hk_value *partial; /* NULL: no splits */
    int64_t weights, biases;
    uint32_t splits;
} hk_weight_result;

/* False: out of memory. */
bool hk_weight_result_begin(hk_lower *l, const hk_conv_job *job, uint32_t splits, hk_weight_result *out);
/* Declares where the kernel writes, as push offsets dw and db: both operands lie in one scratch value when there are
 * splits, all weights of a split before its biases. */
void hk_weight_result_use(hk_record *r, const hk_conv_job *job, const hk_weight_result *w, size_t dw, size_t db);
/* The sum of the splits. */
void hk_weight_result_end(hk_lower *l, const hk_conv_job *job, const hk_weight_result *w);

/* The push block of conv_weight.comp and conv_weight_matrix.comp, for a tile of bm x bn. */
struct conv_weight_push;
void hk_conv_weight_push(const hk_conv *p, const hk_weight_result *w, uint32_t bm, uint32_t bn, uint32_t k_split,
                         struct conv_weight_push *push);

/* On matrix units (conv_weight_matrix.c), for the windows that conv_weight.comp takes: whether that is possible and
 * faster, and the records. */
bool hk_conv_weight_prefers_units(const hk_lower *l, const hk_conv_job *job);
hk_status hk_conv_lower_weight_units(hk_lower *l, const hk_conv_job *job);

#endif
