/*
 * One GEMM for MatMul, Gemm, hk.Gemm and whoever else multiplies matrices:
 *
 *     C = activation(alpha op(A) op(B) + beta bias + residual)        op(X) = X or its transpose
 *
 * row-major and batched. A lowering describes its problem as an hk_gemm and calls hk_gemm_lower, which simplifies it,
 * chooses among the kernels (hk_gemm_variants) by a cost model, and emits the records. Tests and the bench call
 * hk_gemm_emit with a variant of their own choice.
 */
#ifndef HK_GEMM_H
#define HK_GEMM_H

#include "ops/activation.h"
#include "ops/op.h"
#include "ops/support/gemm_split.h"

/* Partial sums that a product leaves to who follows it: [count][m][n], float32. No value: K was not split. */
typedef struct hk_gemm_sums {
    hk_value *value;
    int64_t count;
} hk_gemm_sums;

typedef struct hk_gemm {
    hk_value *a, *b;           /* float32, or stored in 16 bits; or 32- or 64-bit integers without any epilogue */
    hk_value *bias, *residual; /* NULL: none. residual has C's shape */
    hk_value *c;
    int64_t m, n, k;
    int64_t plane; /* 0, or columns are pixels of images that have so many: B is [image][k][plane], C [image][m][plane],
                      images batch_b[0] apart; only hk_gemm_fold makes it so */
    int64_t plane_k; /* 0, or k are pixels of images that have so many: A is [image][m][plane_k], B transposed
                        [image][n][plane_k], images batch_a[0] and batch_b[0] apart; split */
    int64_t line, line_step, pixel_step; /* line not 0: these pixels of B are strided, a line of them so many, lines and
                                            pixels so far apart; split */
    int64_t lda, ldb;                    /* elements from one stored row to the next; C's rows follow each other */
    bool trans_a;                        /* A is stored [k][m] */
    bool trans_b;                        /* B is stored [n][k] */
    bool trans_c;                        /* C is stored [n][m]: only hk_gemm_swap makes it so */
    bool int8;                           /* as hk_gemm_pack_int8 says */
    bool split;                          /* for COOPMAT of two halves alone */
    bool split_a, split_b;               /* the operand is hk_split_scratch's, filled: for COOPMAT of two halves */
    int32_t batch_rank;
    int64_t batch[HK_MAX_RANK]; /* extents, outermost first; C's batches follow each other */
    int64_t batch_a[HK_MAX_RANK], batch_b[HK_MAX_RANK],
        batch_bias[HK_MAX_RANK]; /* element strides, 0 where broadcast */
    int64_t bias_m, bias_n;      /* element strides of the bias along rows and columns, 0 where broadcast */
    float alpha, beta;
    int64_t activation; /* hk_activation, with its parameters */
    float act_a, act_b;
    hk_gemm_sums *sums; /* not NULL, without batches: what adds up the partial sums runs anyway; they are left there */
    /* NULL, or spiking neurons, which take the product at once; C receives their spikes. Rows are steps times samples,
     * a step's behind each other. Of the job steps, v0 and theta count. For COOPMAT alone. */
    const struct hk_neuron_job *neurons;
} hk_gemm;

typedef enum hk_gemm_kind {
    HK_GEMM_TILE,    /* fp32, tiles in shared memory (shaders/gemm.comp) */
    HK_GEMM_ROWS,    /* few rows or few columns (gemv.comp) */
    HK_GEMM_CPU,     /* registers only (gemm_cpu.comp) */
    HK_GEMM_COOPMAT, /* operands in 16 bits, halves of fp32 ones, or int8, on matrix units (gemm_coopmat.comp) */
    HK_GEMM_INTEGER, /* gemm_int.comp */
} hk_gemm_kind;

typedef struct hk_gemm_variant {
    const char *name; /* hk_record.variant, and of operands of another type: */
    const char *bf16_name, *int8_name;
    hk_gemm_kind kind;
    uint16_t bm, bn, bk;            /* tile of a workgroup; of int8 operands bk counts pairs of bytes */
    uint8_t tm, tn, slices, stages; /* TILE: of a thread, groups of threads along K, tiles in shared memory */
    uint8_t wm, wn, halves;         /* COOPMAT: subgroups along m and n; 2: operands split in two (precision high) */
    float rate;                     /* share of the units' peak in a full device, for the cost model */
} hk_gemm_variant;

/* All of them, for bench and tests. */
const hk_gemm_variant *hk_gemm_variants(size_t *count);
/* Whether this device can run p with v. p is simplified. */
bool hk_gemm_fits(const hk_lower *l, const hk_gemm *p, const hk_gemm_variant *v);
/* The variant the cost model takes and its number of K splits, both functions of shape, device limits, precision and
 * the session's table alone: results do not change from run to run. Never NULL. What is emitted from here on belongs to
 * the choice, until hk_choice_leave. */
const hk_gemm_variant *hk_gemm_choose(hk_lower *l, const hk_gemm *p, uint32_t *splits);
/* Microseconds on matrix units as the cost model has it, the splitting of operands included; infinite where they do not
 * run. p is simplified. */
double hk_gemm_units_time(const hk_lower *l, const hk_gemm *p);
/* Whether p, simplified and with neurons, should run as one dispatch; else product and neurons are two. */
bool hk_gemm_prefers_neurons(const hk_lower *l, const hk_gemm *p);
/* Merges batch dimensions, folds them into rows where B is shared, picks the orientation of single rows and columns. */
void hk_gemm_simplify(hk_gemm *p);
/* What COOPMAT variants read p's operands as. */
hk_matrix_type hk_gemm_operand_type(const hk_gemm *p);
const char *hk_gemm_variant_name(const hk_gemm *p, const hk_gemm_variant *v);
/* The kernel of COOPMAT variants for p: on a device without matrix units one that emulates them, if the lowering asks
 * for it. */
const hk_kernel *hk_gemm_coopmat_kernel(const hk_lower *l, const hk_gemm *p);
/* A batch that shares A, with bias along columns alone, as one product: for COOPMAT of two halves. */
void hk_gemm_fold(hk_gemm *p);
/* An operand as precision high splits it, p simplified and folded. */
hk_split hk_gemm_operand(const hk_gemm *p, bool a);
/* The transposed problem, C' = op(B)' op(A)'. */
void hk_gemm_swap(hk_gemm *p);
int64_t hk_gemm_batches(const hk_gemm *p);
/* Element strides of an operand's batch dimensions in the result's, 0 where it is broadcast; its matrices have so many
 * elements. */
void hk_gemm_batch_strides(const hk_shape *batch, int64_t matrix, const hk_shape *result, int64_t strides[HK_MAX_RANK]);
/* Halves that an operand has on matrix units in this precision: 2 high, 1 fast, 0 strict. */
static inline uint8_t hk_matrix_halves(const hk_lower *l)
{
    return l->precision == HK_PRECISION_HIGH ? 2 : l->precision == HK_PRECISION_FAST ? 1 : 0;
}
/* Invocations of a subgroup of the kernels on matrix units; those that emulate them have subgroups of their own. */
static inline uint32_t hk_matrix_lanes(const hk_lower *l)
{
    return l->coopmat_emulated ? 32 : l->device->subgroup_size;
}
/* An operand of a product of int8 or uint8 less their zero points. */
typedef struct hk_int8_operand {
    hk_value *v, *zeros; /* zeros NULL: 0; row or column r of all matrices has zero point r % their count */
    int64_t matrices, outer, k;
    int64_t ld, matrix; /* elements from one stored row, one matrix to the next; of images: one channel, one group */
    bool along;         /* stored [outer][k] */
    bool second;        /* it is B */
    const struct hk_conv *windows; /* NULL, or B's columns are the pixels that its windows see: a matrix for each image
                                      and group */
} hk_int8_operand;
/* Emits the copies that matrix units read: x as p's A or B, its edges (zero points and sums) as p's bias or residual.
 * Then p is a product of int8: C is int32, k, lda and ldb count pairs, and trans_b is true. False: out of memory. */
bool hk_gemm_pack_int8(hk_lower *l, const hk_int8_operand *x, hk_gemm *p);
/* Emits the records of p (simplified) with v: conversion of operands that v cannot read, the product, the sum over
 * splits, conversion of the result. splits 0 or 1: none; TILE, ROWS and COOPMAT take more, at most one for each K tile.
 */
void hk_gemm_emit(hk_lower *l, const hk_gemm *p, const hk_gemm_variant *v, uint32_t splits);
/* Too small for matrix units otherwise. */
bool hk_gemm_suits_units(const hk_gemm *p);
/* All of it. HK_STATUS_UNSUPPORTED for element types the device does not multiply. Nothing is emitted for an empty C.
 */
hk_status hk_gemm_lower(hk_lower *l, const hk_gemm *p);
/* MatMul, Gemm, hk.Gemm; and whether such a node of known shapes is large enough for matrix units, which read float16.
 */
bool hk_is_product(const hk_node *n);
bool hk_product_is_large(const hk_node *n); /* the same of any element type */
bool hk_product_suits_units(const hk_node *n);
/* And so large that precision high takes them, as far as its size tells. */
bool hk_product_repays_high(const hk_node *n);
/* Emits y = x with x's elements in y's storage (float32 <-> float16). */
void hk_emit_convert(hk_lower *l, hk_value *x, hk_value *y);
/* For kernels that read float32 alone: x itself (NULL too), or a float32 copy of it if it is stored as float16. */
hk_value *hk_as_float32(hk_lower *l, hk_value *x);
/* Where a float32 result for y goes: y itself or, if it is stored as float16, scratch that is to be converted then.
 * NULL: out of memory. */
hk_value *hk_float32_target(hk_lower *l, hk_value *y);

#endif
