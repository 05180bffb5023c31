/*
 * One run of a graph on a device, through the same planner and executor as a session: for tests and the self-test.
 */
#ifndef HK_ONCE_H
#define HK_ONCE_H

#include "core/graph.h"
#include "gpu/gpu.h"
#include "ops/record.h"
#include "ops/step.h"

/* Called for every record of a plan. */
typedef bool hk_record_visit(void *user, const hk_record *r); /* false: out of memory */

/* Clones g, infers, plans, runs, and reads g's outputs into tensors of the arena. inputs in g->inputs order. */
hk_status hk_run_once(hk_gpu *gpu, const hk_graph *g, const hk_tensor *const *inputs, const hk_step *step,
                      hk_tensor **outputs, hk_arena *arena);
/* The same in another precision, and with every record shown. In HK_PRECISION_FAST operands and results are stored as
 * float16 where a session would between two nodes. */
typedef struct hk_once {
    hk_precision precision;
    hk_record_visit *visit; /* NULL: nobody */
    void *user;
} hk_once;
hk_status hk_run_once_as(hk_gpu *gpu, const hk_graph *g, const hk_tensor *const *inputs, const hk_step *step,
                         const hk_once *how, hk_tensor **outputs, hk_arena *arena);

#endif
