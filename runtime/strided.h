/*
 * A value read as a strided view of an earlier one: what transposes, slices, splits, broadcasts and reshapes between
 * the two come to. For passes whose fused node takes strides instead of a copy.
 */
#ifndef HK_STRIDED_H
#define HK_STRIDED_H

#include "ops/op.h"

enum { STRIDED_PARTS = 24 };

/* A piece of a logical dimension of the view: extent steps of `stride` elements of the base. */
typedef struct hk_strided_part {
    int32_t axis;
    int64_t extent, stride;
} hk_strided_part;

typedef struct hk_strided {
    hk_value *base; /* contiguous */
    int64_t offset;
    int32_t count;
    hk_strided_part part[STRIDED_PARTS]; /* the parts of an axis outermost first */
} hk_strided;

/* v itself; axes are its dimensions. False if its shape is not known. */
bool hk_strided_of(hk_value *v, hk_strided *s);
/* The same elements seen in the input of the node that produces the base; false (s unchanged) if that node computes
 * something, or if the elements do not lie at strides there. */
bool hk_strided_up(hk_strided *s);
/* An axis as one part, or as two of which the inner repeats the same elements (stride 0): extents and strides of the
 * parts, the inner one 1 and 0 where there is one. False if it is neither. */
bool hk_strided_axis(const hk_strided *s, int32_t axis, int64_t extent[2], int64_t stride[2]);

#endif
