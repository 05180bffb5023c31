/*
 * One matrix product on the device with a kernel of the caller's choice, without planner or session: for the test of
 * all GEMM kernels and for timing them.
 */
#ifndef HK_TEST_GEMM_PROBLEM_H
#define HK_TEST_GEMM_PROBLEM_H

#include "gpu/gpu.h"
#include "ops/support/gemm.h"

typedef struct hk_gemm_case {
    int64_t m, n, k;
    int64_t batch; /* 0: no batch dimension */
    bool trans_a, trans_b;
    bool share_a, share_b; /* an operand without the batch dimension */
    int bias;              /* 0: none, 1: along rows [n], 2: along columns [m][1], 3: one number for each batch */
    bool residual;
    hk_activation activation;
    float alpha, beta; /* 0: 1 */
    hk_dtype a, b, c;  /* storage: HK_FLOAT32 (or 0), HK_FLOAT16 or, operands, HK_BFLOAT16; or operands of HK_INT8 or
                          HK_UINT8, and C is int32 */
    int zeros;         /* of those: 0: no zero points, 1: one for each operand, 2: for each row and column */
    hk_precision precision;
    bool constant; /* operands are weights to the lowering */
    int exponent;  /* operand A is 2^exponent times as large, B as much smaller */
    int slope;     /* operand A grows by 2^slope along K, B falls as much: what scaled halves must follow */
} hk_gemm_case;

typedef struct hk_gemm_result {
    bool fits;        /* false: the device cannot run this variant on this problem, and nothing else is set */
    const char *name; /* of the variant */
    uint32_t splits;
    double error; /* largest absolute error over the norm of what was compared, per sqrt(element) */
    double ns;    /* of one product, with barriers, when timed */
} hk_gemm_result;

/* Runs c with v (NULL: what the cost model chooses, and its splits) on random operands and compares up to 4096 results
 * with sums in double. repeats > 0: then times as many products in one recording by timestamps. units: hk_lower's
 * compute_units_hint. */
hk_status hk_test_gemm(hk_gpu *gpu, const hk_gemm_case *c, const hk_gemm_variant *v, uint32_t splits, uint32_t units,
                       uint32_t repeats, hk_gemm_result *out);

#endif
