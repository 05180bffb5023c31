/* One run of a graph on the device. */
#include "runtime/once.h"

#include <string.h>

#include "ops/infer.h"
#include "ops/support/build.h"
#include "runtime/element_types.h"
#include "runtime/exec.h"
#include "runtime/passes.h"

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

/* Neighbours for the graph's edges, which stay float32: what lies between them and the rest may be stored as float16.
 */
static hk_status add_neighbours(hk_graph *g)
{
    size_t nodes = g->node_count;
    for (size_t i = 0; i < g->input_count; i++) {
        hk_value *x = g->inputs[i], *between = NULL;
        if (x->dtype != HK_FLOAT32 || hk_shape_count(&x->shape) == 0)
            continue;
        HK_TRY(hk_build_scalar(g, "Mul", x, 1.0, &between));
        for (size_t n = 0; n < nodes; n++)
            for (int32_t k = 0; k < g->nodes[n]->in_count; k++)
                if (g->nodes[n]->in[k] == x)
                    g->nodes[n]->in[k] = between;
    }
    for (size_t i = 0; i < g->output_count; i++) {
        hk_value *y = g->outputs[i];
        if (y->dtype == HK_FLOAT32 && y->producer && hk_shape_count(&y->shape) > 0)
            HK_TRY(hk_build_scalar(g, "Mul", y, 1.0, &g->outputs[i]));
    }
    return hk_graph_sort(g);
}

/* Convolutions have kernels of precision fast in both layouts. */
static bool convolves(const hk_graph *g)
{
    bool found = false;
    for (size_t i = 0; i < g->node_count; i++)
        found |= strstr(g->nodes[i]->type, "Conv") != NULL;
    return found;
}

static hk_status lower_precision(hk_gpu *gpu, hk_graph *g)
{
    hk_coopmat_shape units;
    hk_pass_options passes = {.device = hk_gpu_info(gpu),
                              .precision = HK_PRECISION_FAST,
                              .matrices = hk_gpu_coopmat_shape(gpu, &units) || hk_gpu_debug(gpu) & HK_DEBUG_GPU_TUNING,
                              .off = UINT32_MAX, /* layouts and storage are no such passes */
                              .inference = true,
                              .islands_everywhere = !convolves(g)};
    HK_TRY(add_neighbours(g));
    return hk_run_passes(g, &passes);
}

hk_status hk_run_once(hk_gpu *gpu, const hk_graph *g, const hk_tensor *const *inputs, const hk_step *step,
                      hk_tensor **outputs, hk_arena *arena)
{
    return hk_run_once_as(gpu, g, inputs, step, &(hk_once){.precision = HK_PRECISION_STRICT}, outputs, arena);
}

hk_status hk_run_once_as(hk_gpu *gpu, const hk_graph *g, const hk_tensor *const *inputs, const hk_step *step,
                         const hk_once *how, hk_tensor **outputs, hk_arena *arena)
{
    hk_env *env = NULL;
    hk_exec *e = NULL;
    hk_graph *clone = NULL;
    hk_status st = hk_env_create(gpu, g, &env);
    if (st == HK_OK) {
        env->precision = how->precision;
        st = hk_graph_clone(g, &clone);
    }
    if (st == HK_OK) {
        clone->matrix_types = hk_usable_matrix_types(gpu, how->precision);
        st = hk_infer_graph(clone);
    }
    if (st == HK_OK)
        st = hk_settle_element_types(clone, hk_gpu_info(gpu));
    if (st == HK_OK && how->precision == HK_PRECISION_FAST)
        st = lower_precision(gpu, clone);
    if (st == HK_OK) {
        st = hk_exec_create(env, clone, &e);
        clone = NULL;
    }
    if (st == HK_OK)
        st = run(e, g, inputs, step, outputs, arena);
    if (st == HK_OK)
        st = visit_records(e, how->visit, how->user);
    hk_exec_destroy(&e);
    hk_graph_destroy(&clone);
    hk_env_destroy(&env);
    return st;
}
