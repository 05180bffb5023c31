/*
 * If and Loop as a protocol, so that the host interpreter and the session drive the same semantics:
 *
 *     begin; while (next) { run c->body with c->body_in; step(its outputs); } end → c->out
 *
 * If runs one body once. Loop runs its body while the trip count and condition allow, carries values, and stacks scan
 * outputs. Tensors are host tensors, but a driver may keep contents elsewhere where nobody here looks into them:
 * hk_control_hands_on of operands, hk_control_hands_back of what a body gives.
 */
#ifndef HK_CONTROL_H
#define HK_CONTROL_H

#include "ops/op.h"

#define HK_LOOP_MAX_TRIPS 1000000 /* a hostile trip count ends with a sentence, not a hang */

typedef struct hk_control_run {
    hk_context *ctx;
    hk_arena *arena;
    const hk_node *node;
    const hk_tensor *const *in;
    const hk_tensor **out; /* [out_count], set by hk_control_end */
    /* of the next body run */
    hk_graph *body;
    const hk_tensor **body_in;
    size_t body_in_count;
    /* inner */
    int64_t most_trips; /* of a Loop, set before hk_control_begin; 0: HK_LOOP_MAX_TRIPS */
    int64_t trip, trips;
    bool condition;
    int32_t carried, scans;
    hk_tensor *iteration, *condition_in;
    const hk_tensor ***rows; /* [scans][trip]: scan outputs so far */
    size_t row_capacity;
    hk_status status;
} hk_control_run;

bool hk_control_begin(hk_control_run *c); /* false: out of memory */
bool hk_control_next(hk_control_run *c);
hk_status hk_control_step(hk_control_run *c, const hk_tensor *const *body_outputs);
hk_status hk_control_end(hk_control_run *c);
/* Whether the body's output i is needed after the next iteration, so to the end. */
bool hk_control_keeps(const hk_control_run *c, size_t i);
/* Whether operand k begins a carried value, and whether body output i becomes one, or a result, as it is. */
bool hk_control_hands_on(const hk_node *n, int32_t k);
bool hk_control_hands_back(const hk_control_run *c, size_t i);

#endif
