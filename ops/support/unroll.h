/*
 * Loop and Scan whose number of iterations is known when planning become copies of their body, one after the other, so
 * that all of them are in one recording and a gradient goes through them like through any other nodes. Long loops, and
 * bodies that need the host anyway, stay loops.
 */
#ifndef HK_UNROLL_H
#define HK_UNROLL_H

#include "ops/op.h"

/* Iterations of a Loop, if its trip count is known and its condition depends on the iteration's number alone; -1: not
 * known. */
int64_t hk_loop_trips(const hk_node *n);

bool hk_loop_unrolls(const hk_graph *g, const hk_node *n);
hk_status hk_loop_unroll(hk_graph *g, const hk_node *n, hk_value **out);
bool hk_scan_unrolls(const hk_graph *g, const hk_node *n);
hk_status hk_scan_unroll(hk_graph *g, const hk_node *n, hk_value **out);

#endif
