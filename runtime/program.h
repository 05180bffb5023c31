/*
 * A program: a graph template and the plans made of it, one per set of input shapes.
 *
 * Most graphs are one stage: one recording. A node whose output size depends on data (NonZero), run-time control flow
 * (Loop, If), or an operand that must be known before shapes are (a computed Reshape shape) cuts the graph: the stage
 * before the cut runs on the device, the host reads what it needs, evaluates those nodes, and the rest of the graph is
 * planned with what is now known. Each stage keeps its continuations like the program keeps its first stages. Values
 * that later stages need stay on the device.
 */
#ifndef HK_PROGRAM_H
#define HK_PROGRAM_H

#include "runtime/exec.h"

typedef struct hk_program hk_program;

/* One run: outputs are read from it after the wait. */
typedef struct hk_run {
    hk_exec *exec; /* of the last stage */
    uint64_t ticket;
    uint32_t segments; /* device recordings and host steps */
    struct hk_stage *first, *last;
} hk_run;

/* A pass over the inferred graph of a stage before it is planned: fusion and layout. */
typedef hk_status hk_program_pass(hk_graph *g, void *user);

/* The template is borrowed and must outlive the program. max_plans 0: 8. */
hk_status hk_program_create(hk_env *env, const hk_graph *graph, uint32_t max_plans, hk_program_pass *pass, void *user,
                            hk_program **out);
void hk_program_destroy(hk_program **p);
/* inputs: contiguous host tensors in graph input order, shapes checked against the template's. A program of one stage
 * returns at once; the others run all stages but the last to the end. */
hk_status hk_program_submit(hk_program *p, const hk_tensor *const *inputs, const hk_step *step, hk_run *run);
hk_status hk_program_wait(hk_program *p, const hk_run *run);
/* Type and shape of the graph's output i, and which output of run->exec it, or the first tensor in it, is. */
const hk_value *hk_run_output(const hk_run *run, size_t i, size_t *leaf);
/* Contents of the graph's output i, after the wait; lists with their items. */
hk_status hk_run_read(const hk_run *run, size_t i, hk_arena *arena, const hk_tensor **out);
/* Forgets the plans (states of another shape are wanted). */
void hk_program_clear(hk_program *p);

/* Infers, folds and, when all inputs have known shapes, plans the first stage of a copy of the graph, and forgets it:
 * what a run would fail with before it touches a device. */
hk_status hk_program_check(const hk_graph *graph, hk_program_pass *pass, void *user, const hk_plan_options *options,
                           hk_estimate *estimate); /* of that stage; NULL: not wanted */

/* Walks the stages of the last run, first to last; exec may be NULL for a stage without device work. */
typedef struct hk_stage hk_stage;
const hk_stage *hk_stage_next(const hk_stage *s); /* the continuation that ran last, NULL at the end */
hk_exec *hk_stage_exec(const hk_stage *s);
hk_node *const *hk_stage_host_nodes(const hk_stage *s, size_t *count);
uint64_t hk_stage_host_ns(const hk_stage *s, size_t i); /* of its last run */
/* First stage of the last run of the body that host node i owns; NULL if it owns none or none ran. */
const hk_stage *hk_stage_body(const hk_stage *s, size_t i);

#endif
