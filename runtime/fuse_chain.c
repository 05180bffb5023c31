/* The pass is being written: see ops/chain.c. */
#include "runtime/fuse_chain.h"

hk_status hk_fuse_chains(hk_graph *g)
{
    (void)g;
    return HK_OK;
}
