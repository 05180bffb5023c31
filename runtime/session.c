/* Sessions: a model's program, its inputs and its outputs by name. */
#include <string.h>
#include <unistd.h>

#include "runtime/model.h"
#include "runtime/objects.h"
#include "runtime/passes.h"
#include "runtime/program.h"
#include "ops/support/sequence.h"
#include "runtime/report.h"
#include "runtime/tune.h"

struct hk_session {
    hk_context *ctx;
    hk_device *dev;
    const hk_model *model;
    hk_graph *graph;  /* the model's, with what constant weights allow folded: the plans' template */
    hk_tuning *table; /* owned */
    hk_env *env;
    hk_program *program;
    hk_pass_options passes;
    hk_tensor *inputs; /* packed copies, owned; data NULL until written */
    size_t input_count;
    hk_run run; /* the last submitted */
    bool waited;
    hk_step step;
    hk_report report;
};

static hk_status check_params(hk_context *ctx, const hk_session_params *params)
{
    if (params->size && params->size < offsetof(hk_session_params, precision))
        return hk_fail(ctx, HK_STATUS_USAGE, "hk_session_params.size is %zu: set it to sizeof(hk_session_params)",
                       params->size);
    if (params->precision > HK_PRECISION_FAST)
        return hk_fail(ctx, HK_STATUS_USAGE, "hk_session_params.precision is %d, which is no precision",
                       (int)params->precision);
    if (params->passes_off >> HK_PASS_COUNT)
        return hk_fail(ctx, HK_STATUS_USAGE, "hk_session_params.passes_off is 0x%x: there are %d passes",
                       params->passes_off, HK_PASS_COUNT);
    return HK_OK;
}

static hk_status read_table(hk_session *s, const hk_session_params *p)
{
    const char *path = NULL;
    if (!p->tuned)
        return HK_OK;
    if (p->deterministic) {
        hk_log(s->ctx, HK_LOG_WARN, "the table of measurements '%s' is not used: the session is deterministic",
               p->tuned);
        return HK_OK;
    }
    HK_TRY(hk_tuning_path(s->dev->gpu, s->env->arena, p->tuned, false, &path));
    if (path != p->tuned && access(path, F_OK) != 0)
        return hk_fail(s->ctx, HK_STATUS_NO_INPUT,
                       "this device has no table of measurements ('%s'): run hillock tune on "
                       "the model first",
                       path);
    HK_TRY(hk_tuning_load(s->dev->gpu, path, &s->table));
    s->env->tuning = s->table;
    return HK_OK;
}

hk_status hk_session_create(hk_device *dev, const hk_model *m, const hk_session_params *params, hk_session **out)
{
    hk_session_params p = {.size = sizeof p};
    if (params)
        memcpy(&p, params, HK_MIN(params->size, sizeof p));
    HK_TRY(check_params(dev->ctx, &p));
    HK_TRY(hk_model_check_runs(m));
    const hk_graph *g = hk_model_graph(m);
    uint64_t begin = hk_gpu_planning_clock(dev->gpu);
    hk_session *s = hk_alloc(dev->ctx, sizeof *s);
    if (!s)
        return hk_out_of_memory(dev->ctx, "a session");
    *s = (hk_session){.ctx = dev->ctx, .dev = dev, .model = m, .input_count = g->input_count};
    s->step = (hk_step){.seed = {(uint32_t)p.seed, (uint32_t)(p.seed >> 32)}};
    s->passes = (hk_pass_options){.device = hk_gpu_info(dev->gpu),
                                  .precision = p.precision,
                                  .matrices = hk_gpu_multiplies(dev->gpu),
                                  .off = p.no_fusion ? UINT32_MAX
                                                     : p.passes_off | hk_gpu_debug(dev->gpu) >> HK_DEBUG_PASS_SHIFT,
                                  .inference = true};
    s->inputs = hk_alloc_array(s->ctx, g->input_count + 1, sizeof *s->inputs);
    hk_status st = s->inputs ? hk_graph_clone(g, &s->graph) : hk_out_of_memory(s->ctx, "a session");
    if (st == HK_OK)
        st = hk_run_template_passes(s->graph, &s->passes);
    if (st == HK_OK)
        st = hk_env_create(dev->gpu, s->graph, &s->env);
    if (st == HK_OK) {
        s->env->precision = p.precision == HK_PRECISION_DEFAULT ? HK_PRECISION_STRICT : p.precision;
        s->env->profile = p.profile;
        s->env->fresh = p.fresh;
        s->env->max_iterations = (int64_t)HK_MIN(p.max_iterations, (uint64_t)INT64_MAX);
        st = read_table(s, &p);
    }
    if (st == HK_OK)
        st = hk_program_create(s->env, s->graph, p.max_plans, hk_run_passes, &s->passes, &s->program);
    hk_gpu_count_planning(dev->gpu, begin);
    if (st == HK_OK)
        *out = s;
    else
        hk_session_destroy(&s);
    return st;
}

void hk_session_destroy(hk_session **session)
{
    hk_session *s = *session;
    if (!s)
        return;
    *session = NULL;
    hk_program_destroy(&s->program);
    hk_env_destroy(&s->env);
    hk_tuning_destroy(&s->table);
    hk_graph_destroy(&s->graph);
    for (size_t i = 0; s->inputs && i < s->input_count; i++)
        hk_tensor_release(&s->inputs[i]);
    hk_report_finish(&s->report);
    hk_free(s->ctx, s->inputs);
    hk_free(s->ctx, s);
}

/* ---- inputs */

static size_t find_value(hk_value *const *list, size_t count, const char *name)
{
    size_t i = 0;
    while (i < count && strcmp(list[i]->name, name) != 0)
        i++;
    return i;
}

static hk_status check_items(hk_context *ctx, const char *name, hk_dtype item, hk_dtype element, const hk_tensor *t)
{
    int64_t count = hk_tensor_count(t);
    if (t->rank != 1 || count > (t->dtype == HK_OPTIONAL ? 1 : HK_LIST_MAX))
        return hk_fail(
            ctx, HK_STATUS_USAGE, "input '%s': %s of rank %d with %lld items, expected rank 1 and at most %d", name,
            hk_dtype_name(t->dtype), (int)t->rank, (long long)count, t->dtype == HK_OPTIONAL ? 1 : HK_LIST_MAX);
    for (int64_t i = 0; i < count; i++) {
        const hk_tensor *x = (const hk_tensor *)t->data + i;
        hk_dtype expected = item != HK_DTYPE_NONE ? item : ((const hk_tensor *)t->data)->dtype;
        bool shaped = x->rank >= 0 && x->rank <= HK_MAX_RANK && hk_tensor_count(x) >= 0;
        if (x->dtype != expected || !shaped || (!x->data && hk_tensor_count(x) > 0) ||
            (hk_dtype_is_list(x->dtype) && (t->dtype != HK_OPTIONAL || x->dtype != HK_SEQUENCE)))
            return hk_fail(ctx, HK_STATUS_USAGE, "input '%s': item %lld is no usable %s (it is %s)", name, (long long)i,
                           hk_dtype_name(expected), hk_dtype_name(x->dtype));
        if (hk_dtype_is_list(x->dtype))
            HK_TRY(check_items(ctx, name, element, HK_DTYPE_NONE, x));
    }
    return HK_OK;
}

hk_status hk_check_input(hk_context *ctx, const hk_value *v, const hk_tensor *t)
{
    hk_shape shape = hk_tensor_shape(t);
    hk_shape_text a, b;
    if (t->rank < 0 || t->rank > HK_MAX_RANK || hk_shape_count(&shape) < 0 || (!t->data && hk_shape_count(&shape) > 0))
        return hk_fail(ctx, HK_STATUS_USAGE, "input '%s': the tensor has no data or an impossible shape", v->name);
    if (t->dtype != v->dtype)
        return hk_fail(ctx, HK_STATUS_USAGE, "input '%s' is %s, the model expects %s", v->name, hk_dtype_name(t->dtype),
                       hk_dtype_name(v->dtype));
    if (v->list)
        return check_items(ctx, v->name, v->list->item, v->list->element, t);
    bool fits = v->shape.rank < 0 || v->shape.rank == shape.rank;
    for (int32_t d = 0; fits && d < v->shape.rank; d++)
        fits = v->shape.dim[d] < 0 || v->shape.dim[d] == shape.dim[d];
    return fits ? HK_OK
                : hk_fail(ctx, HK_STATUS_USAGE, "input '%s' has shape %s, the model expects %s", v->name,
                          hk_shape_print(&shape, &a), hk_shape_print(&v->shape, &b));
}

hk_status hk_session_write(hk_session *s, const char *input, const hk_tensor *t)
{
    const hk_graph *g = hk_model_graph(s->model);
    size_t i = find_value(g->inputs, g->input_count, input);
    if (i == g->input_count)
        return hk_fail(s->ctx, HK_STATUS_USAGE, "the model has no input '%s'; its first is '%s'", input,
                       g->input_count ? g->inputs[0]->name : "none");
    HK_TRY(hk_check_input(s->ctx, g->inputs[i], t));
    hk_tensor *mine = &s->inputs[i];
    if (hk_dtype_is_list(t->dtype)) {
        hk_tensor copy = {0};
        HK_TRY(hk_tensor_copy(s->ctx, t, &copy));
        hk_tensor_release(mine);
        *mine = copy;
        return HK_OK;
    }
    hk_shape shape = hk_tensor_shape(t), have = hk_tensor_shape(mine);
    if (!mine->data || !hk_shape_equal(&shape, &have) || mine->dtype != t->dtype) {
        hk_tensor fresh = {0};
        HK_TRY(hk_tensor_create(s->ctx, t->dtype, &shape, &fresh));
        hk_tensor_release(mine);
        *mine = fresh;
    }
    hk_tensor_pack(t, mine->data);
    return HK_OK;
}

/* ---- runs */

static const hk_tensor empty_optional = {.dtype = HK_OPTIONAL, .rank = 1};

hk_status hk_session_submit(hk_session *s, uint64_t *ticket)
{
    const hk_graph *g = hk_model_graph(s->model);
    const hk_tensor **inputs = hk_alloc_array(s->ctx, g->input_count + 1, sizeof(hk_tensor *));
    if (!inputs)
        return hk_out_of_memory(s->ctx, "a run");
    hk_status st = HK_OK;
    for (size_t i = 0; i < g->input_count && st == HK_OK; i++) {
        inputs[i] = &s->inputs[i];
        if (!s->inputs[i].data && g->inputs[i]->dtype == HK_OPTIONAL)
            inputs[i] = &empty_optional;
        else if (!s->inputs[i].data)
            st = hk_fail(s->ctx, HK_STATUS_USAGE, "input '%s' was not written before the run", g->inputs[i]->name);
    }
    if (st == HK_OK)
        st = hk_program_submit(s->program, inputs, &s->step, &s->run);
    hk_free(s->ctx, inputs);
    if (st != HK_OK)
        return st;
    s->step.step++;
    s->waited = false;
    *ticket = s->run.ticket;
    return HK_OK;
}

hk_status hk_session_wait(hk_session *s, uint64_t ticket)
{
    HK_TRY(s->run.exec && s->run.ticket == ticket ? hk_program_wait(s->program, &s->run)
                                                  : hk_gpu_wait(s->dev->gpu, ticket));
    s->waited |= ticket == s->run.ticket;
    return HK_OK;
}

hk_status hk_session_run(hk_session *s)
{
    uint64_t ticket = 0;
    HK_TRY(hk_session_submit(s, &ticket));
    return hk_session_wait(s, ticket);
}

hk_status hk_session_reset(hk_session *s)
{
    return hk_env_restart_states(s->env);
}

/* ---- outputs */

hk_status hk_fill_output(hk_context *ctx, const char *name, hk_dtype dtype, const hk_shape *shape, hk_tensor *out,
                         bool *made)
{
    *made = !out->data;
    if (*made)
        return hk_tensor_create(ctx, dtype, shape, out);
    hk_shape have = hk_tensor_shape(out);
    hk_shape_text a, b;
    if (out->dtype == dtype && hk_shape_equal(&have, shape))
        return HK_OK;
    return hk_fail(ctx, HK_STATUS_USAGE, "'%s' is %s %s, the tensor to fill is %s %s", name, hk_dtype_name(dtype),
                   hk_shape_print(shape, &a), hk_dtype_name(out->dtype), hk_shape_print(&have, &b));
}

static hk_status read_list(hk_session *s, size_t i, hk_tensor *out)
{
    hk_arena *arena = hk_arena_create(s->ctx);
    const hk_tensor *t = NULL;
    if (!arena)
        return hk_out_of_memory(s->ctx, "an output");
    hk_status st = hk_run_read(&s->run, i, arena, &t);
    if (st == HK_OK)
        st = hk_tensor_copy(s->ctx, t, out);
    hk_arena_destroy(&arena);
    return st;
}

hk_status hk_session_read(hk_session *s, const char *output, hk_tensor *out)
{
    const hk_graph *g = hk_model_graph(s->model);
    size_t i = find_value(g->outputs, g->output_count, output);
    if (i == g->output_count)
        return hk_fail(s->ctx, HK_STATUS_USAGE, "the model has no output '%s'; its first is '%s'", output,
                       g->output_count ? g->outputs[0]->name : "none");
    if (!s->waited)
        return hk_fail(s->ctx, HK_STATUS_USAGE, "no run has been waited for: call hk_session_run before reading '%s'",
                       output);
    size_t leaf = 0;
    const hk_value *v = hk_run_output(&s->run, i, &leaf);
    bool made = false;
    if (v->list)
        return read_list(s, i, out);
    HK_TRY(hk_fill_output(s->ctx, output, v->dtype, &v->shape, out, &made));
    hk_status st = hk_exec_read(s->run.exec, s->run.ticket, leaf, out->data);
    if (st != HK_OK && made)
        hk_tensor_release(out);
    return st;
}

hk_status hk_session_get_plan(hk_session *s, hk_plan_info *out)
{
    if (!s->run.exec)
        return hk_fail(s->ctx, HK_STATUS_USAGE, "no run has been submitted yet: there is no plan");
    HK_TRY(hk_report_make(s->ctx, &s->report, s->env, s->run.first, s->run.segments));
    *out = s->report.info;
    return HK_OK;
}

void hk_session_use_tuning(hk_session *s, hk_tuning *t)
{
    s->env->tuning = t;
}

hk_status hk_session_each_record(hk_session *s, void (*visit)(void *user, const hk_record *r, uint64_t ns), void *user)
{
    return hk_report_visit(s->ctx, s->run.first, visit, user);
}

/* Tests plant a fault before the first run. */
void hk_session_plant_fault(hk_session *s, int fault)
{
    s->env->fault = (hk_plan_fault)fault;
}
