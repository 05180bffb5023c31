/*
 * Shapes and host-known contents of a whole graph.
 */
#ifndef HK_INFER_H
#define HK_INFER_H

#include "ops/op.h"

/* Infers every node in order. Nodes whose inputs are all known on the host and whose result is small are evaluated and
 * become constants; an If whose condition is known is replaced by its branch, an operator that is others by those
 * (hk_op.expand), as soon as it knows what it needs to. Shapes that depend on data, or on
 * operands that are only known at run time, stay unknown, and so does everything behind them. Shapes that the file
 * declared for activations are forgotten first: inference knows better. */
hk_status hk_infer_graph(hk_graph *g);

/* Evaluates a node whose inputs are all known, of any size that the graph's bounds on folding leave; its outputs become
 * constants, the node is left for pruning. */
hk_status hk_fold_large(hk_graph *g, hk_node *n, bool *folded);

#define HK_FOLD_MAX_COUNT 65536 /* elements of a folded result; larger ones are computed once on the device */

#endif
