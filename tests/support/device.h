/*
 * Running a graph on the device in a test, through the same planner and executor as a session.
 */
#ifndef HK_TEST_DEVICE_H
#define HK_TEST_DEVICE_H

#include "core/graph.h"

/* Clones g, infers, plans, runs once, reads g's outputs (arena-allocated). inputs in g->inputs order. */
hk_status hk_test_run_graph(hk_device *dev, hk_graph *g, const hk_tensor *const *inputs, hk_tensor **outputs,
                            hk_arena *arena);

#endif
