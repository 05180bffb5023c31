/*
 * What expansions and backward rules build most often. All return a status and set *out to the new value.
 */
#ifndef HK_BUILD_H
#define HK_BUILD_H

#include "ops/op.h"

hk_status hk_build_unary(hk_graph *g, const char *type, hk_value *x, hk_value **out);
hk_status hk_build_binary(hk_graph *g, const char *type, hk_value *a, hk_value *b, hk_value **out);
/* With a scalar of x's type on the right. */
hk_status hk_build_scalar(hk_graph *g, const char *type, hk_value *x, double scalar, hk_value **out);
hk_status hk_build_reshape(hk_graph *g, hk_value *x, const hk_shape *shape, hk_value **out);
hk_status hk_build_transpose(hk_graph *g, hk_value *x, const int64_t *perm, int32_t rank, hk_value **out);
/* Reduces the axes, which stay as extents of 1. */
hk_status hk_build_reduce(hk_graph *g, const char *type, hk_value *x, const int64_t *axes, int32_t count,
                          hk_value **out);
/* pads: begins of all axes, then ends; negative ones crop. Filled with zeros. */
hk_status hk_build_pad(hk_graph *g, hk_value *x, const int64_t *pads, hk_value **out);
hk_status hk_build_cast(hk_graph *g, hk_value *x, hk_dtype to, hk_value **out);

/* Evaluates one operator on given tensors: for operators that are evaluated as others. in: NULL entries are absent. */
hk_status hk_eval_part(hk_eval *e, const char *type, const hk_attr_value *list, const hk_tensor *const *in,
                       int32_t in_count, hk_tensor **out, int32_t out_count);

#endif
