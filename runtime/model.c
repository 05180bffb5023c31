/* Public model calls. */
#include "runtime/model.h"

#include <stdio.h>
#include <string.h>

#include "runtime/passes.h"
#include "runtime/program.h"
#include "train/training.h"

const hk_graph *hk_model_graph(const hk_model *m)
{
    return m->edited ? m->edited : m->import->graph;
}

const hk_import_result *hk_model_import(const hk_model *m)
{
    return m->import;
}

static void describe(hk_value_info *info, const hk_value *v)
{
    *info = (hk_value_info){.name = v->name, .dtype = v->dtype, .rank = v->shape.rank};
    memcpy(info->shape, v->shape.dim, sizeof info->shape);
    info->item = v->list ? v->list->item : HK_DTYPE_NONE;
    memcpy(info->dim_names, v->dim_names, sizeof info->dim_names);
}

static hk_value_info *describe_list(hk_arena *arena, hk_value *const *list, size_t count)
{
    hk_value_info *infos = hk_arena_array(arena, count + 1, sizeof *infos);
    for (size_t i = 0; infos && i < count; i++)
        describe(&infos[i], list[i]);
    return infos;
}

/* Running statistics are no parameters: they are states once they are trained. */
static void find_statistics(const hk_graph *g, bool *of)
{
    for (size_t i = 0; i < g->node_count; i++) {
        const hk_node *n = g->nodes[i];
        for (int32_t k = 3; k < n->in_count && strcmp(n->type, "BatchNormalization") == 0; k++)
            if (n->in[k] && n->in[k]->graph == g)
                of[n->in[k]->id] = true;
    }
}

static bool describe_parameters(hk_model *m)
{
    const hk_graph *g = hk_model_graph(m);
    bool *statistics = hk_arena_array(m->arena, g->value_count + 1, sizeof *statistics);
    hk_uses uses;
    if (!statistics || hk_graph_uses(g, m->arena, &uses) != HK_OK)
        return false;
    find_statistics(g, statistics);
    m->parameter_count = m->other_float_count = 0;
    for (size_t i = 0; i < g->value_count; i++) {
        m->parameter_count += g->values[i]->kind == HK_VALUE_PARAMETER;
        m->other_float_count += !statistics[i] && hk_is_other_float(g->values[i]);
    }
    m->parameters = hk_arena_array(m->arena, m->parameter_count + 1, sizeof *m->parameters);
    m->roles = hk_arena_array(m->arena, m->parameter_count + 1, sizeof *m->roles);
    m->other_floats = hk_arena_array(m->arena, m->other_float_count + 1, sizeof *m->other_floats);
    if (!m->parameters || !m->roles || !m->other_floats)
        return false;
    size_t at = 0, other = 0;
    for (size_t i = 0; i < g->value_count; i++)
        if (g->values[i]->kind == HK_VALUE_PARAMETER) {
            m->roles[at] = hk_role_text(hk_role_of(g, &uses, g->values[i]));
            describe(&m->parameters[at++], g->values[i]);
        } else if (!statistics[i] && hk_is_other_float(g->values[i])) {
            describe(&m->other_floats[other++], g->values[i]);
        }
    return true;
}

const char *hk_model_parameter_role(const hk_model *m, size_t i)
{
    return i < m->parameter_count ? m->roles[i] : "";
}

static bool describe_metadata(hk_model *m)
{
    const hk_import_result *r = m->import;
    m->metadata = hk_arena_array(m->arena, 2 * r->metadata_count + 1, sizeof *m->metadata);
    for (size_t i = 0; m->metadata && i < r->metadata_count; i++) {
        m->metadata[2 * i] = r->metadata[i].key ? r->metadata[i].key : "";
        m->metadata[2 * i + 1] = r->metadata[i].value ? r->metadata[i].value : "";
    }
    return m->metadata != NULL;
}

static hk_value_info *describe_operands(hk_model *m, hk_value *const *list, int32_t count)
{
    hk_value_info *infos = hk_arena_array(m->arena, (size_t)count + 1, sizeof *infos);
    for (int32_t i = 0; infos && i < count; i++)
        if (list[i])
            describe(&infos[i], list[i]);
    return infos;
}

hk_status hk_model_nodes(hk_model *m, const hk_node_info **nodes, size_t *count)
{
    const hk_graph *g = hk_model_graph(m);
    hk_node_info *list = m->nodes ? m->nodes : hk_arena_array(m->arena, g->node_count + 1, sizeof *list);
    for (size_t i = 0; list && !m->nodes && i < g->node_count; i++) {
        const hk_node *n = g->nodes[i];
        list[i] = (hk_node_info){.name = n->name,
                                 .op = n->type,
                                 .inputs = describe_operands(m, n->in, n->in_count),
                                 .outputs = describe_operands(m, n->out, n->out_count),
                                 .input_count = (size_t)n->in_count,
                                 .output_count = (size_t)n->out_count};
        if (!list[i].inputs || !list[i].outputs)
            list = NULL;
    }
    if (!list)
        return hk_out_of_memory(m->ctx, "a list of nodes");
    m->nodes = list;
    *nodes = list;
    *count = g->node_count;
    return HK_OK;
}

hk_status hk_model_lost_ties(hk_model *m, const hk_lost_tie **ties, size_t *count)
{
    hk_tie *found = NULL;
    *count = 0;
    hk_arena *arena = hk_arena_create(m->ctx);
    hk_status st = arena ? hk_edit_find_ties(hk_model_graph(m), arena, &found, count) : HK_STATUS_OUT_OF_MEMORY;
    hk_lost_tie *list = st == HK_OK ? hk_arena_array(m->arena, *count + 1, sizeof *list) : NULL;
    for (size_t i = 0; list && i < *count; i++)
        list[i] = (hk_lost_tie){found[i].kept->name, found[i].copy->name, found[i].transposed};
    hk_arena_destroy(&arena);
    *ties = list;
    return list ? HK_OK : hk_out_of_memory(m->ctx, "a list of matrices");
}

hk_status hk_model_describe(hk_model *m)
{
    const hk_graph *g = hk_model_graph(m);
    m->input_count = g->input_count;
    m->output_count = g->output_count;
    m->inputs = describe_list(m->arena, g->inputs, g->input_count);
    m->outputs = describe_list(m->arena, g->outputs, g->output_count);
    m->nodes = NULL;
    if (!m->inputs || !m->outputs || !describe_parameters(m) || !describe_metadata(m))
        return hk_out_of_memory(m->ctx, "a model");
    return HK_OK;
}

static hk_status load(hk_context *ctx, const char *path, const void *data, size_t bytes, const hk_model_params *params,
                      hk_model **out)
{
    hk_model *m = hk_alloc(ctx, sizeof *m);
    if (!m)
        return hk_out_of_memory(ctx, "a model");
    m->ctx = ctx;
    hk_status st = hk_import(ctx, path, data, bytes, params, &m->import);
    m->arena = st == HK_OK ? hk_arena_create(ctx) : NULL;
    if (st == HK_OK)
        st = m->arena ? hk_model_describe(m) : hk_out_of_memory(ctx, "a model");
    if (st == HK_OK)
        *out = m;
    else
        hk_model_destroy(&m);
    return st;
}

hk_status hk_model_load(hk_context *ctx, const char *path, const hk_model_params *params, hk_model **out)
{
    return load(ctx, path, NULL, 0, params, out);
}

hk_status hk_model_load_memory(hk_context *ctx, const void *data, size_t bytes, const hk_model_params *params,
                               hk_model **out)
{
    return load(ctx, NULL, data, bytes, params, out);
}

/* The new contents in the type that the value has. */
static hk_status store(hk_graph *g, hk_value *v, const hk_tensor *data)
{
    v->data = hk_tensor_as(g->arena, data, v->dtype);
    return v->data ? HK_OK : hk_out_of_memory(g->ctx, "an export");
}

hk_status hk_model_write(const hk_model *m, const hk_export_patch *patches, size_t count, const char *path)
{
    const hk_import_result *r = m->import;
    hk_graph *g = NULL;
    if (r->file_count)
        return hk_export_patched(r, patches, count, path);
    if (m->build && !m->output_count)
        return hk_fail(m->ctx, HK_STATUS_USAGE, "the model has no output yet: hk_model_output names one");
    hk_export_params params = {.producer = m->build ? NULL : r->producer,
                               .ir_version = r->ir_version,
                               .metadata = r->metadata,
                               .metadata_count = r->metadata_count};
    HK_TRY(hk_graph_clone(r->graph, &g));
    hk_status st = HK_OK;
    for (size_t i = 0; i < count && st == HK_OK; i++)
        st = store(g, g->values[patches[i].value->id], patches[i].data);
    if (st == HK_OK && m->build) /* what layers left behind: reshapes that the next one took back */
        st = hk_graph_prune(g);
    if (st == HK_OK)
        st = hk_export_graph(g, &params, path);
    hk_graph_destroy(&g);
    return st;
}

hk_status hk_model_save(hk_model *m, const char *path)
{
    return hk_model_write(m, NULL, 0, path);
}

void hk_model_destroy(hk_model **model)
{
    hk_model *m = *model;
    if (!m)
        return;
    *model = NULL;
    if (m->edited)
        hk_graph_destroy(&m->edited);
    if (!m->borrowed)
        hk_import_destroy(&m->import);
    hk_free(m->ctx, m->build);
    hk_arena_destroy(&m->arena);
    hk_free(m->ctx, m);
}

void hk_model_get_info(const hk_model *m, hk_model_info *out)
{
    const hk_import_result *r = m->import;
    *out = (hk_model_info){.producer = r->producer ? r->producer : "",
                           .graph_name = r->graph->name,
                           .ir_version = r->ir_version,
                           .opset = r->opset,
                           .nodes = r->graph->node_count,
                           .parameters = m->parameter_count,
                           .metadata_count = r->metadata_count,
                           .metadata = m->metadata};
    for (size_t i = 0; i < m->parameter_count; i++) {
        hk_shape shape = {.rank = m->parameters[i].rank};
        memcpy(shape.dim, m->parameters[i].shape, sizeof shape.dim);
        out->parameter_count += hk_shape_count(&shape);
    }
}

const hk_value_info *hk_model_inputs(const hk_model *m, size_t *count)
{
    *count = m->input_count;
    return m->inputs;
}

const hk_value_info *hk_model_outputs(const hk_model *m, size_t *count)
{
    *count = m->output_count;
    return m->outputs;
}

const hk_value_info *hk_model_other_floats(const hk_model *m, size_t *count)
{
    *count = m->other_float_count;
    return m->other_floats;
}

const hk_value_info *hk_model_parameters(const hk_model *m, size_t *count)
{
    *count = m->parameter_count;
    return m->parameters;
}

const hk_problem *hk_model_problems(const hk_model *m, size_t *count)
{
    *count = m->import->problem_count;
    return m->import->problems;
}

const hk_op_count *hk_model_ops(const hk_model *m, size_t *count)
{
    *count = m->import->op_count;
    return m->import->ops;
}

hk_status hk_model_of_graph(const hk_graph *g, hk_model **out)
{
    void *data = NULL;
    size_t bytes = 0;
    HK_TRY(hk_export_memory(g, NULL, &data, &bytes));
    hk_status st = hk_model_load_memory(g->ctx, data, bytes, NULL, out);
    hk_free(g->ctx, data);
    return st;
}

static bool keep_text(hk_arena *arena, const char **text)
{
    const char *given = *text;
    *text = given ? hk_arena_string(arena, given) : NULL;
    return !given || *text;
}

hk_status hk_model_keep_probes(hk_model *m, const hk_snn_probe *list, size_t count)
{
    m->probes = hk_arena_array(m->arena, count + 1, sizeof *m->probes);
    if (!m->probes)
        return hk_out_of_memory(m->ctx, "a monitor");
    for (size_t i = 0; i < count; i++) {
        hk_snn_probe *p = &m->probes[i];
        *p = list[i];
        if (!keep_text(m->arena, &p->node) || !keep_text(m->arena, &p->op) || !keep_text(m->arena, &p->output) ||
            !keep_text(m->arena, &p->each) || !keep_text(m->arena, &p->charge) || !keep_text(m->arena, &p->spikes) ||
            !keep_text(m->arena, &p->potentials))
            return hk_out_of_memory(m->ctx, "a monitor");
    }
    m->probe_count = count;
    return HK_OK;
}

const hk_snn_probe *hk_snn_probes(const hk_model *m, size_t *count)
{
    *count = m->probe_count;
    return m->probes;
}

/* ---- what a run would fail with */

/* Takes "node 'a' (Conv): why" apart; any other sentence is about the whole model. */
static hk_status add_problem(hk_model *m, const char *sentence)
{
    hk_import_result *r = m->import;
    hk_arena *arena = r->graph->arena;
    const char *node = strncmp(sentence, "node '", 6) == 0 ? sentence + 6 : NULL;
    const char *op = node ? strstr(node, "' (") : NULL, *why = op ? strstr(op, "): ") : NULL;
    hk_problem p = {.node = why ? hk_arena_format(arena, "%.*s", (int)(op - node), node) : "the model",
                    .op = why ? hk_arena_format(arena, "%.*s", (int)(why - op - 3), op + 3) : "ai.onnx",
                    .reason = hk_arena_string(arena, why ? why + 3 : sentence)};
    if (!p.node || !p.op || !p.reason ||
        !hk_arena_grow(arena, (void **)&r->problems, r->problem_count, &r->problem_capacity, sizeof *r->problems))
        return hk_out_of_memory(m->ctx, "the list of problems");
    r->problems[r->problem_count++] = p;
    return HK_OK;
}

/* The least that Vulkan 1.2 promises, except for memory, of which nothing is known here. */
static const hk_device_info least_device = {
    .name = "a device of minimal limits",
    .type = HK_DEVICE_OTHER,
    .usable = true,
    .max_invocations = 128,
    .max_shared_bytes = 16384,
    .max_grid = 65535,
    .max_allocation_bytes = (uint64_t)1 << 62,
};

hk_status hk_model_check(hk_model *m)
{
    hk_pass_options passes = {.device = &least_device, .precision = HK_PRECISION_STRICT, .inference = true};
    hk_plan_options options = {
        .device = &least_device, .precision = HK_PRECISION_STRICT, .bank_bytes = least_device.max_allocation_bytes};
    if (m->import->problem_count)
        return HK_OK; /* nothing is known behind the first */
    hk_status st = hk_program_check(hk_model_graph(m), hk_run_passes, &passes, &options, NULL);
    if (st == HK_OK || st == HK_STATUS_OUT_OF_MEMORY)
        return st;
    return add_problem(m, hk_context_error(m->ctx));
}

hk_status hk_model_estimate(hk_model *m, const hk_value_info *inputs, hk_estimate *out)
{
    hk_pass_options passes = {.device = &least_device, .precision = HK_PRECISION_STRICT, .inference = true};
    hk_plan_options options = {
        .device = &least_device, .precision = HK_PRECISION_STRICT, .bank_bytes = least_device.max_allocation_bytes};
    hk_graph *g = NULL;
    hk_estimate estimate = {0};
    HK_TRY(hk_model_check_runs(m));
    HK_TRY(hk_graph_clone(hk_model_graph(m), &g));
    for (size_t i = 0; inputs && i < g->input_count; i++) {
        if (inputs[i].rank < 0 || inputs[i].rank > HK_MAX_RANK)
            continue;
        g->inputs[i]->shape = (hk_shape){.rank = inputs[i].rank};
        memcpy(g->inputs[i]->shape.dim, inputs[i].shape, sizeof inputs[i].shape);
    }
    hk_status st = hk_run_template_passes(g, &passes);
    if (st == HK_OK)
        st = hk_program_check(g, hk_run_passes, &passes, &options, &estimate);
    hk_graph_destroy(&g);
    if (st == HK_OK)
        *out = estimate;
    return st;
}

hk_status hk_model_check_runs(const hk_model *m)
{
    const hk_import_result *r = m->import;
    if (m->build && !m->output_count)
        return hk_fail(m->ctx, HK_STATUS_USAGE, "the model has no output yet: hk_model_output names one");
    if (m->build)
        m->build->used = true;
    if (!r->problem_count)
        return HK_OK;
    char text[700];
    size_t used = 0;
    for (size_t i = 0; i < r->problem_count && used < sizeof text - 1; i++) {
        const hk_problem *p = &r->problems[i];
        int n = snprintf(text + used, sizeof text - used, "%snode '%s' (%s): %s", i ? "; " : "", p->node, p->op,
                         p->reason);
        used = HK_MIN(used + (size_t)HK_MAX(n, 0), sizeof text - 1);
    }
    return hk_fail(m->ctx, HK_STATUS_UNSUPPORTED, "the model cannot run, %zu problem%s: %s", r->problem_count,
                   r->problem_count == 1 ? "" : "s", text);
}
