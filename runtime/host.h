/*
 * A whole graph on the host: the oracle of tests and of `verify --layers`.
 */
#ifndef HK_HOST_H
#define HK_HOST_H

#include "ops/op.h"
#include "ops/step.h"

/* Evaluates g (inferred or not; shapes may be unknown). inputs in g->inputs order, outputs in g->outputs order, in
 * arena. state: contents of g->states, in order; NULL: their initial values. Versions after the run are not kept. Float
 * inputs may be float64 where the graph says float32: then everything behind them is computed in float64. */
hk_status hk_host_run(hk_graph *g, hk_arena *arena, const hk_tensor *const *inputs, hk_tensor **outputs,
                      const hk_step *step);

/* Called with the contents of every value of the main graph as they become known; what it puts in their place is what
 * later nodes read. */
typedef hk_status hk_host_visit(void *user, const hk_value *v, const hk_tensor **t);
hk_status hk_host_trace(hk_graph *g, hk_arena *arena, const hk_tensor *const *inputs, hk_tensor **outputs,
                        const hk_step *step, hk_host_visit *visit, void *user);

#endif
