/*
 * The step mode of a finished network that was trained as a spiking one.
 */
#ifndef HK_SNN_STEP_MODE_H
#define HK_SNN_STEP_MODE_H

#include "core/graph.h"

/* The graph of one step: inputs and outputs with a time axis lose it. */
hk_status hk_snn_make_single(hk_graph *g);
/* The graph of so many steps, of one of a single step. Of one that takes several already: steps must be theirs, or 0.
 */
hk_status hk_snn_make_multi(hk_graph *g, int64_t steps);

#endif
