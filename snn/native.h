/*
 * Networks that are trained as spiking ones: neurons in place of the activations of a graph. Time is folded into the
 * batch as in a conversion (convert.h).
 */
#ifndef HK_SNN_NATIVE_H
#define HK_SNN_NATIVE_H

#include "core/graph.h"

/* Rewrites g; report as in hk_snn_native_params. */
hk_status hk_snn_make_native(hk_graph *g, const hk_snn_native_params *params);

#endif
