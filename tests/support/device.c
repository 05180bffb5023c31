/* One run of a graph on the device. */
#include "tests/support/device.h"

#include "runtime/exec.h"
#include "ops/infer.h"
#include "runtime/objects.h"

static hk_status run(hk_exec *e, const hk_graph *g, const hk_tensor *const *inputs, hk_tensor **outputs, hk_arena *arena)
{
    hk_feed *feeds = hk_arena_array(arena, g->input_count + 1, sizeof *feeds);
    if (!feeds)
        return hk_out_of_memory(g->ctx, "a test");
    for (size_t i = 0; i < g->input_count; i++)
        feeds[i].host = inputs[i];
    hk_step step = {.seed = {7, 9}, .step = 3, .lr = 1e-3f, .grad_scale = 1, .beta1_power = 0.9f, .beta2_power = 0.999f};
    uint64_t ticket = 0;
    HK_TRY(hk_exec_submit(e, feeds, &step, &ticket));
    HK_TRY(hk_exec_wait(e, ticket));
    const hk_graph *planned = hk_exec_plan(e)->graph;
    for (size_t i = 0; i < g->output_count; i++) {
        outputs[i] = hk_tensor_new(arena, planned->outputs[i]->dtype, &planned->outputs[i]->shape);
        if (!outputs[i])
            return hk_out_of_memory(g->ctx, "a test");
        HK_TRY(hk_exec_read(e, ticket, i, outputs[i]->data));
    }
    return HK_OK;
}

hk_status hk_test_run_graph(hk_device *dev, hk_graph *g, const hk_tensor *const *inputs, hk_tensor **outputs, hk_arena *arena)
{
    hk_env *env = NULL;
    hk_exec *e = NULL;
    hk_graph *clone = NULL;
    hk_status st = hk_env_create(dev->gpu, g, &env);
    if (st == HK_OK)
        st = hk_graph_clone(g, &clone);
    if (st == HK_OK)
        st = hk_infer_graph(clone);
    if (st == HK_OK) {
        st = hk_exec_create(env, clone, &e);
        clone = NULL;
    }
    if (st == HK_OK)
        st = run(e, g, inputs, outputs, arena);
    hk_exec_destroy(&e);
    hk_graph_destroy(&clone);
    hk_env_destroy(&env);
    return st;
}
