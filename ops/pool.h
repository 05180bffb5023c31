/* What pooling over windows and over whole planes share. */
#ifndef HK_POOL_H
#define HK_POOL_H

#include "ops/support/conv_geometry.h"

/* X's shape from dY's batch and channels and the extents that an attribute of the gradient names. */
bool hk_pool_input_shape(const hk_ints *extents, const hk_shape *dy, hk_shape *x, hk_problem_text *problem);
/* HK_STATUS_UNSUPPORTED unless the kernels take v's type. */
hk_status hk_pool_check_type(const hk_lower *l, const hk_value *v);
/* The spatial extents of n's X as attribute input_shape: they must be known when the gradient is built. */
hk_status hk_pool_extents(hk_graph *g, const hk_node *n, hk_attr_value *out);

#endif
