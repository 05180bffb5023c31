/*
 * Padded moves: a contiguous destination each of whose elements has at most one source element per dimension. Pad in
 * all modes, and the gradient of Slice (a constant padding of zeros with gaps).
 */
#ifndef HK_MOVE_PAD_H
#define HK_MOVE_PAD_H

#include "ops/support/move.h"

typedef enum hk_pad_mode { HK_PAD_CONSTANT, HK_PAD_REFLECT, HK_PAD_EDGE, HK_PAD_WRAP } hk_pad_mode;

/* Coordinate c of the destination stands at t = c - before: source element t / step if step divides it (step > 1 in
 * constant mode only), 0 <= t / step < count; elsewhere the mode decides. */
typedef struct hk_pad_dim {
    int64_t extent; /* of the destination */
    int64_t before; /* negative: cropped */
    int64_t count;  /* source elements */
    int64_t stride; /* of the source, elements; may be negative */
    int64_t step;
} hk_pad_dim;

typedef struct hk_pad {
    hk_pad_mode mode;
    int32_t rank;
    int64_t from_offset; /* elements: where source element 0 of every dimension lies */
    hk_pad_dim dim[HK_MAX_RANK];
} hk_pad;

/* value: element 0 is written where there is no source; converted to the destination's dtype. */
void hk_host_pad(const hk_pad *p, const hk_tensor *from, const hk_tensor *value, hk_tensor *to);
hk_status hk_emit_pad(hk_lower *l, const hk_pad *p, hk_value *from, const hk_tensor *value, hk_value *to);

#endif
