/* One run of a graph on the device. */
#include "runtime/once.h"

#include "runtime/element_types.h"

#include "ops/infer.h"
#include "runtime/exec.h"

static hk_status run(hk_exec *e, const hk_graph *g, const hk_tensor *const *inputs, const hk_step *step,
                     hk_tensor **outputs, hk_arena *arena)
{
    hk_feed *feeds = hk_arena_array(arena, g->input_count + 1, sizeof *feeds);
    if (!feeds)
        return hk_out_of_memory(g->ctx, "a run");
    for (size_t i = 0; i < g->input_count; i++)
        feeds[i].host = inputs[i];
    uint64_t ticket = 0;
    HK_TRY(hk_exec_submit(e, feeds, step, &ticket));
    HK_TRY(hk_exec_wait(e, ticket));
    const hk_graph *planned = hk_exec_plan(e)->graph;
    for (size_t i = 0; i < g->output_count; i++) {
        outputs[i] = hk_tensor_new(arena, planned->outputs[i]->dtype, &planned->outputs[i]->shape);
        if (!outputs[i])
            return hk_out_of_memory(g->ctx, "a run");
        HK_TRY(hk_exec_read(e, ticket, i, outputs[i]->data));
    }
    return HK_OK;
}

static hk_status visit_records(const hk_exec *e, hk_record_visit *visit, void *user)
{
    const hk_plan *p = hk_exec_plan(e);
    for (size_t i = 0; visit && i < p->record_count; i++)
        if (!visit(user, p->records[i]))
            return hk_out_of_memory(p->ctx, "a list of kernels");
    return HK_OK;
}

hk_status hk_run_once(hk_gpu *gpu, const hk_graph *g, const hk_tensor *const *inputs, const hk_step *step,
                      hk_tensor **outputs, hk_arena *arena)
{
    return hk_run_once_visited(gpu, g, inputs, step, outputs, arena, NULL, NULL);
}

hk_status hk_run_once_visited(hk_gpu *gpu, const hk_graph *g, const hk_tensor *const *inputs, const hk_step *step,
                              hk_tensor **outputs, hk_arena *arena, hk_record_visit *visit, void *user)
{
    hk_env *env = NULL;
    hk_exec *e = NULL;
    hk_graph *clone = NULL;
    hk_status st = hk_env_create(gpu, g, &env);
    if (st == HK_OK)
        st = hk_graph_clone(g, &clone);
    if (st == HK_OK)
        st = hk_infer_graph(clone);
    if (st == HK_OK)
        st = hk_settle_element_types(clone, hk_gpu_info(gpu));
    if (st == HK_OK) {
        st = hk_exec_create(env, clone, &e);
        clone = NULL;
    }
    if (st == HK_OK)
        st = run(e, g, inputs, step, outputs, arena);
    if (st == HK_OK)
        st = visit_records(e, visit, user);
    hk_exec_destroy(&e);
    hk_graph_destroy(&clone);
    hk_env_destroy(&env);
    return st;
}
