/*
 * A compiled shader variant, as the build embeds it: known to operators, which choose one, and to the device layer,
 * which makes pipelines from it.
 */
#ifndef HK_KERNEL_H
#define HK_KERNEL_H

#include "hillock/hillock.h"

#define HK_SPEC_MAX 64  /* specialization constants of one pipeline */
#define HK_PUSH_MAX 128 /* bytes of push constants: the specification's minimum */

typedef struct hk_kernel {
    const char *name;
    const uint32_t *spirv; /* NULL: this build's glslang could not compile it and no committed SPIR-V was found */
    size_t spirv_bytes;
    uint32_t needs; /* bits (1 << HK_CAP_x) */
} hk_kernel;

/* What elements of a product's operands are on matrix units; sums are float32, of int8 int32. */
typedef enum hk_matrix_type { HK_MATRIX_FLOAT16, HK_MATRIX_BFLOAT16, HK_MATRIX_INT8, HK_MATRIX_TYPES } hk_matrix_type;

#endif
