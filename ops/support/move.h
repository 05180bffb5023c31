/*
 * Strided moves: one description for every operator that only rearranges elements (Transpose, Slice, Expand, Tile,
 * ...), done on the host by hk_host_move and on the device by whichever kernel fits. Also what kernels of movers share.
 *
 * Kernels rely on this: a value that is no view starts at a multiple of 16 bytes in device memory. So place()
 * hands out only such places.
 */
#ifndef HK_MOVE_H
#define HK_MOVE_H

#include "ops/divisor.h"
#include "ops/op.h"

enum { HK_MOVE_RANK = 2 * HK_MAX_RANK }; /* Tile makes two dimensions of one */

typedef struct hk_move_dim {
    int64_t extent, from_stride, to_stride; /* strides in elements; negative and zero ones are fine */
} hk_move_dim;

/* to[to_offset + sum c_d to_stride_d] = from[from_offset + sum c_d from_stride_d] for all c with 0 <= c_d < extent_d,
 * dimensions outermost first. Destinations are distinct. */
typedef struct hk_move {
    int32_t rank;
    int64_t from_offset, to_offset; /* elements */
    hk_move_dim dim[HK_MOVE_RANK];
} hk_move;

/* Appends a dimension inside the present ones; those of extent 1 are left out. */
void hk_move_add(hk_move *m, int64_t extent, int64_t from_stride, int64_t to_stride);
int64_t hk_move_count(const hk_move *m);
/* Sorts dimensions by decreasing distance in the destination and merges those that together are one. */
void hk_move_collapse(hk_move *m);

/* Any element type; both tensors have the same. */
void hk_host_move(const hk_move *m, const hk_tensor *from, hk_tensor *to);
/* Nothing is emitted for a move of no elements. HK_STATUS_UNSUPPORTED when the device has no unit that small. */
hk_status hk_emit_move(hk_lower *l, const hk_move *m, hk_value *from, hk_value *to);

/* ---- parts for other movers' kernels */
/* Kernels of one mover by unit of copying: 2, 4, 8 and 16 bytes; NULL entries: no such kernel. */
typedef struct hk_unit_kernels {
    const hk_kernel *by_log2[5]; /* [1] 2 bytes ... [4] 16 bytes */
} hk_unit_kernels;
/* The widest unit (bytes) that divides every count given, in elements of v's storage, and both values' alignment. */
uint32_t hk_move_unit(const hk_value *from, const hk_value *to, const int64_t *elements, int32_t count);
/* The kernel for that unit; NULL with a sentence (HK_STATUS_UNSUPPORTED) when the device cannot run it. */
const hk_kernel *hk_unit_kernel(hk_lower *l, const hk_unit_kernels *kernels, uint32_t unit);
/* A workgroup for one-dimensional movers on this device. */
uint32_t hk_move_group(const hk_lower *l);
/* Sets workgroup and grid for that many invocations. */
void hk_move_grid(hk_lower *l, hk_record *r, int64_t invocations);

/* Element 0 of t, converted to the storage type, as device words; repeated so that both are always valid. */
void hk_constant_words(const hk_tensor *t, hk_dtype storage, uint32_t words[2]);
/* Sets element i to element 0 of value, converted. */
void hk_set_element(hk_tensor *to, int64_t i, const hk_tensor *value);
/* Writes contents known now, of v's dtype and shape, to all of v. */
hk_status hk_emit_literal(hk_lower *l, const hk_tensor *t, hk_value *v);
/* Fills all of v with element 0 of t, converted. */
hk_status hk_emit_constant(hk_lower *l, const hk_tensor *t, hk_value *v);

#endif
