/*
 * Reverse-mode differentiation as a graph step: walks the nodes backwards and lets each op's backward rule add nodes.
 */
#ifndef HK_GRADIENT_H
#define HK_GRADIENT_H

#include "ops/op.h"

/* Adds to g the nodes that compute dloss/dwrt[i] into grads[i] (NULL where no gradient reaches). loss is a float
 * scalar. HK_STATUS_UNSUPPORTED names the first node on a path from wrt to loss that has no backward rule. */
hk_status hk_differentiate(hk_graph *g, hk_value *loss, hk_value *const *wrt, size_t count, hk_value **grads);

/* The same of a value of any shape, given its gradient. */
hk_status hk_differentiate_from(hk_graph *g, hk_value *y, hk_value *dy, hk_value *const *wrt, size_t count,
                                hk_value **grads);

#endif
