/* Which nodes run in HK_LAYOUT_NHWC8 and float16 (precision `fast`): what layout.c moves. */
#ifndef HK_ISLANDS_H
#define HK_ISLANDS_H

#include "runtime/passes.h"

typedef struct hk_islands {
    hk_graph *g;
    const hk_pass_options *options;
    hk_arena *arena;
    hk_uses uses;
    size_t nodes, values; /* before any moves */
    bool *member;         /* by node id */
    uint32_t *same;       /* by node id: another node of the same island, or itself */
    uint32_t *takers;     /* by value id: members that read it in the layout */
} hk_islands;

/* g is sorted. Nodes that are neighbours in the layout are one island; it pays if what it saves by narrower values and
 * matrix units is more than the changes of layout at its shores take. */
hk_status hk_find_islands(hk_islands *s);
bool hk_is_islander(const hk_islands *s, const hk_node *n);

bool hk_is_convolution(const hk_node *n);
/* Bit i: input i, output i of a member lies in the layout. */
uint32_t hk_packed_inputs(const hk_node *n);
uint32_t hk_packed_outputs(const hk_node *n);

#endif
