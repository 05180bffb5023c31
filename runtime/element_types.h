/*
 * What becomes of element types that a node's kernels do not take. Kernels take float32, bool and integers of 8 bits
 * and more; movers (HK_OP_ANY_TYPE, views) take everything; float16 and bfloat16 are storage of elementwise chains and
 * of movers, where the device has 16-bit storage. For all else there is one rule each:
 *
 * - a node with 16-bit floats computes in float32, between casts that fuse with its elementwise neighbours; but a large
 *   product with weights of bfloat16 reads both operands as they are, where matrix units take them and precision is not
 *   strict (hk.Widened);
 * - a node with another type (float64, floats of 4 and 8 bits, integers of 2 and 4 bits) runs on the host through its
 *   evaluator, as a host step between recordings that reports name and the log tells of. Never one with float32 alone.
 *   So does a node with an integer type that its own kernels lack (hk_op.lacks).
 */
#ifndef HK_ELEMENT_TYPES_H
#define HK_ELEMENT_TYPES_H

#include "core/graph.h"
#include "gpu/gpu.h"

/* The first element type of an inferred node that its kernels do not take on this device; HK_DTYPE_NONE: they take all.
 */
hk_dtype hk_node_lacks(const hk_node *n, const hk_device_info *device);
/* What a graph's nodes may ask of matrix units in that precision (hk_graph.matrix_types). */
uint32_t hk_usable_matrix_types(const hk_gpu *gpu, hk_precision precision);
/* Puts casts around the nodes of an inferred graph that take no 16-bit floats, and evaluates nodes of constants alone
 * that would run on the host. */
hk_status hk_settle_element_types(hk_graph *g, const hk_device_info *device);

#endif
