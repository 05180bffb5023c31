/*
 * Pointwise nodes that follow one another become one hk.Chain (ops/chain.c): one pass over memory instead of several.
 */
#ifndef HK_FUSE_CHAIN_H
#define HK_FUSE_CHAIN_H

#include "core/graph.h"

/* Rewrites g, whose shapes are known. Results keep their names; a chain's name is its nodes' names joined by '+'. */
hk_status hk_fuse_chains(hk_graph *g);

#endif
