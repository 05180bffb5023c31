/*
 * Matrices of precision high, split into halves before the products that read them (shaders/halves.glsl). A plan splits
 * a matrix once: whoever asks for it again, other nodes included, gets the same halves, for A as for B and transposed.
 */
#ifndef HK_GEMM_SPLIT_H
#define HK_GEMM_SPLIT_H

#include "ops/op.h"

enum { HK_SPLIT_SIDE = 16 }; /* of a block */

/* Matrices of float32 as they are stored. */
typedef struct hk_split {
    hk_value *from;
    int64_t rows, columns;
    int64_t ld;             /* elements from one row to the next */
    int64_t matrices, step; /* how many, and elements from one to the next */
    int64_t plane;          /* 0, or columns are pixels of images that have so many: [image][row][plane], images `step`
                               apart, one matrix */
    int64_t line, line_step, pixel_step; /* line not 0: a line of them so many, lines and pixels so far apart */
    bool turned;                         /* the halves of the transposed matrices are wanted */
} hk_split;

int64_t hk_split_blocks(int64_t rows, int64_t columns); /* of one matrix */
/* Where so many matrices of halves go: a value of float32 words. NULL: out of memory. */
hk_value *hk_split_scratch(hk_lower *l, int64_t matrices, int64_t rows, int64_t columns);
/* The halves, by a record of their own unless an earlier one of the plan made them. NULL: out of memory. */
hk_value *hk_split_lower(hk_lower *l, const hk_split *s);
/* Bytes that hk_split_lower would move in each run: none for constants and for what is split already. */
double hk_split_bytes(const hk_lower *l, const hk_split *s);
/* Weights, and views of them. */
bool hk_split_is_constant(const hk_split *s);

#endif
