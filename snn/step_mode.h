/*
 * The step mode of a finished network that was trained as a spiking one.
 */
#ifndef HK_SNN_STEP_MODE_H
#define HK_SNN_STEP_MODE_H

#include "core/graph.h"

/* The graph of one step: inputs and outputs with a time axis lose it, which is a first dimension of T. Refused where
 * the second has T too. */
hk_status hk_snn_make_single(hk_graph *g);
/* Whether the graph takes one step a call: made so, or built of layers in step mode s. */
bool hk_snn_is_single(const hk_graph *g);
/* The graph of so many steps, of one of a single step. Of one that takes several already: steps must be theirs, or 0.
 */
hk_status hk_snn_make_multi(hk_graph *g, int64_t steps);

#endif
