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

hk_status hk_run_once(hk_gpu *gpu, const hk_graph *g, const hk_tensor *const *inputs, const hk_step *step,
                      hk_tensor **outputs, hk_arena *arena)
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
        st = hk_widen_halves(clone);
    if (st == HK_OK) {
        st = hk_exec_create(env, clone, &e);
        clone = NULL;
    }
    if (st == HK_OK)
        st = run(e, g, inputs, step, outputs, arena);
    hk_exec_destroy(&e);
    hk_graph_destroy(&clone);
    hk_env_destroy(&env);
    return st;
}
