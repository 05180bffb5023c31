/*
 * What quantization operators share: ranges, rounding, the last steps of a result, and products of integers.
 */
#ifndef HK_QUANTIZE_H
#define HK_QUANTIZE_H

#include "ops/op.h"

/* The range of an integer type that quantized numbers have; false: it is none. */
bool hk_quantized_range(hk_dtype t, double *low, double *high);
/* x as a tensor of float type t would hold it. */
double hk_rounded_to(hk_dtype t, double x);
/* q + zero (which may be NULL), cut off at the type's range; q is float32 and whole. */
hk_status hk_build_saturated(hk_graph *g, hk_value *q, hk_value *zero, hk_dtype to, hk_value **out);
/* A float type's cast, or v itself. */
hk_status hk_build_float(hk_graph *g, hk_value *v, hk_dtype to, hk_value **out);

/*
 * The int32 result of MatMul or Conv (type, attrs) of a and b, float32 that hold whole numbers within +-255, each
 * element a sum of `sum` products. float32 kernels do it exactly while sums stay below 2^24: where they would not, one
 * factor or both are taken apart into sixteen-folds and rest, and the products are put together as int32.
 */
hk_status hk_build_integer_product(hk_graph *g, const char *type, const hk_attr_value *attrs, hk_value *a, hk_value *b,
                                   int64_t sum, hk_value **out);

#endif
