/*
 * Potentials that outlive a run. A layer of neurons whose attribute `state` has a name begins where the last node of
 * that name ended: the one before it in this run (a loop container's copies), else the last run, if these are kept.
 */
#ifndef HK_MEMBRANE_H
#define HK_MEMBRANE_H

#include "core/graph.h"

typedef enum hk_membranes {
    HK_MEMBRANES_FRESH,    /* every run begins at the initial potential */
    HK_MEMBRANES_KEPT,     /* states of the graph */
    HK_MEMBRANES_RECALLED, /* the same where a backward pass reads what the forward pass began with */
} hk_membranes;

/* Joins the nodes of an inferred graph whose shapes are known, in their order; those that have an initial potential are
 * left alone. HK_STATUS_UNSUPPORTED names a loop that was not unrolled around such neurons. */
hk_status hk_join_membranes(hk_graph *g, hk_membranes kind);

#endif
