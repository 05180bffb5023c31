/* Public calls that build a model. */
#include <string.h>

#include "importer/import.h"
#include "runtime/model.h"

hk_status hk_model_create(hk_context *ctx, const hk_build_params *given, hk_model **out)
{
    hk_build_params p = {.size = sizeof p};
    if (given)
        memcpy(&p, given, HK_MIN(given->size, sizeof p));
    hk_model *m = hk_alloc(ctx, sizeof *m);
    if (!m)
        return hk_out_of_memory(ctx, "a model");
    m->ctx = ctx;
    hk_status st = hk_import_begin(ctx, p.name ? p.name : "model", &m->import);
    if (st == HK_OK) {
        m->arena = hk_arena_create(ctx);
        m->build = hk_alloc(ctx, sizeof *m->build);
        st = m->arena && m->build ? HK_OK : hk_out_of_memory(ctx, "a model");
    }
    if (st == HK_OK) {
        m->import->opset = HK_BUILD_OPSET;
        m->build->builder = (hk_builder){
            .ctx = ctx, .graph = m->import->graph, .seed = {(uint32_t)p.seed, (uint32_t)(p.seed >> 32)}};
        hk_map_init(&m->build->builder.names, m->import->graph->arena);
        st = hk_model_describe(m);
    }
    if (st == HK_OK)
        *out = m;
    else
        hk_model_destroy(&m);
    return st;
}

/* Sessions and trainers go on with the graph as it was when they were made. */
static hk_status check_open(const hk_model *m)
{
    if (!m->build)
        return hk_fail(m->ctx, HK_STATUS_USAGE,
                       "nothing can be added to a model that was loaded: hk_model_create begins one that can grow");
    if (m->build->used)
        return hk_fail(m->ctx, HK_STATUS_USAGE,
                       "nothing can be added to this model any more: a session or trainer has been made of it");
    return HK_OK;
}

hk_status hk_model_input(hk_model *m, const char *name, hk_dtype dtype, int32_t rank, const int64_t *shape,
                         hk_value **out)
{
    hk_graph *g = m->import->graph;
    HK_TRY(check_open(m));
    if (!name || !*name || hk_graph_find(g, name))
        return hk_fail(m->ctx, HK_STATUS_USAGE,
                       name && *name ? "there is a tensor '%s' already" : "an input needs a name%s",
                       name && *name ? name : "");
    if (rank < 0 || rank > HK_MAX_RANK || !hk_dtype_bytes(dtype) || hk_dtype_is_list(dtype))
        return hk_fail(m->ctx, HK_STATUS_USAGE, "input '%s': type %s and rank %d, expected a tensor of at most %d",
                       name, hk_dtype_name(dtype), (int)rank, HK_MAX_RANK);
    hk_shape s = {.rank = rank};
    for (int32_t i = 0; i < rank; i++) {
        s.dim[i] = shape[i];
        if (shape[i] < -1)
            return hk_fail(m->ctx, HK_STATUS_USAGE, "input '%s': dimension %d is %lld, expected an extent or -1", name,
                           (int)i, (long long)shape[i]);
    }
    hk_value *v = hk_graph_value(g, name, HK_VALUE_INPUT, dtype, &s);
    if (!v || !hk_graph_add_input(g, v))
        return hk_out_of_memory(m->ctx, "an input");
    for (int32_t i = 0; i < rank; i++)
        if (shape[i] < 0) {
            v->dim_names[i] = i ? hk_arena_format(g->arena, "%s_%d", name, (int)i) : "batch";
            if (!v->dim_names[i])
                return hk_out_of_memory(m->ctx, "an input");
        }
    *out = v;
    return HK_OK;
}

hk_status hk_add(hk_model *m, hk_value *x, const hk_layer *layer, hk_value **y)
{
    HK_TRY(check_open(m));
    return hk_layer_add(&m->build->builder, x, layer, y);
}

hk_status hk_add_sequence(hk_model *m, hk_value *x, const hk_layer *layers, size_t count, hk_value **y)
{
    for (size_t i = 0; i < count; i++)
        HK_TRY(hk_add(m, x, &layers[i], &x));
    *y = x;
    return HK_OK;
}

/* What is no plain result of a layer goes out through a node of its own, as do second names. */
static hk_status copy_out(hk_graph *g, hk_value **y)
{
    hk_node *n = hk_graph_node(g, NULL, "Identity", hk_op_find(NULL, "Identity", HK_BUILD_OPSET, NULL), NULL, y, 1, 1);
    if (!n)
        return hk_out_of_memory(g->ctx, "an output");
    n->opset = HK_BUILD_OPSET;
    *y = n->out[0];
    return hk_node_infer(g, n);
}

hk_status hk_model_output(hk_model *m, hk_value *y, const char *name)
{
    hk_graph *g = m->import->graph;
    bool plain = y && y->producer;
    HK_TRY(check_open(m));
    name = name && *name ? name : "output";
    if (!y || y->graph != g)
        return hk_fail(m->ctx, HK_STATUS_USAGE, "output '%s' is %s", name, y ? "a tensor of another model" : "missing");
    if (hk_graph_find(g, name))
        return hk_fail(m->ctx, HK_STATUS_USAGE, "output '%s': there is a tensor of that name already", name);
    for (size_t i = 0; i < g->output_count; i++)
        plain &= g->outputs[i] != y;
    if (!plain)
        HK_TRY(copy_out(g, &y));
    const char *copy = hk_arena_string(g->arena, name);
    if (!copy || !hk_map_set(&g->names, y->name, NULL) || !hk_map_set(&g->names, copy, y) || !hk_graph_add_output(g, y))
        return hk_out_of_memory(m->ctx, "an output");
    y->name = copy;
    if (y->shape.rank > 0 && y->shape.dim[0] < 0)
        y->dim_names[0] = "batch";
    HK_TRY(hk_import_recount(m->import));
    return hk_model_describe(m);
}

void hk_value_get_info(const hk_value *v, hk_value_info *out)
{
    *out = (hk_value_info){.name = v->name, .dtype = v->dtype, .rank = v->shape.rank};
    memcpy(out->shape, v->shape.dim, sizeof out->shape);
    memcpy(out->dim_names, v->dim_names, sizeof out->dim_names);
}
