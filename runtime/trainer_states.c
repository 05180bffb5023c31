/* A trainer's states by name: parameters, statistics, gradients; and the model file with them in it. */
#include <stdio.h>
#include <string.h>

#include "runtime/trainer.h"
#include "ops/step.h"
#include "train/safetensors.h"

/* ---- states by name */

static const hk_parameter *find_parameter(const hk_trainer *t, const char *name)
{
    for (size_t i = 0; i < t->parameters.count; i++)
        if (!strcmp(t->parameters.list[i].source->name, name))
            return &t->parameters.list[i];
    return NULL;
}

static hk_status no_such(const hk_trainer *t, const char *name)
{
    return hk_fail(t->ctx, HK_STATUS_USAGE, "there is no trained tensor '%s'; the first of %zu is '%s'", name,
                   t->parameters.count, t->parameters.list[0].source->name);
}

hk_status hk_trainer_state(hk_trainer *t, const char *state, uint64_t offset, float *data, uint64_t count)
{
    HK_TRY(hk_trainer_idle(t));
    return hk_env_read_state(t->env, state, offset * sizeof(float), data, count * sizeof(float));
}

/* Before the first step nothing lies on the device: then what would be uploaded is the answer. */
static hk_status read_state(hk_trainer *t, const char *name, const char *state, const hk_value *v, int64_t offset,
                            const hk_tensor *before, hk_tensor *out)
{
    bool made = false;
    HK_TRY(hk_fill_output(t->ctx, name, HK_FLOAT32, &v->shape, out, &made));
    uint64_t count = (uint64_t)hk_shape_count(&v->shape);
    hk_status st = HK_OK;
    if (hk_env_state(t->env, state))
        st = hk_trainer_state(t, state, (uint64_t)offset, out->data, count);
    else if (before)
        for (uint64_t i = 0; i < count; i++)
            hk_set_double(out, (int64_t)i, hk_get_double(before, offset + (int64_t)i));
    else
        st = hk_fail(t->ctx, HK_STATUS_USAGE, "'%s' is known after the first step", name);
    if (st != HK_OK && made)
        hk_tensor_release(out);
    return st;
}

static const hk_value *find_running(const hk_trainer *t, const char *name, char state[256])
{
    const hk_value *v = hk_graph_find(hk_model_graph(t->model), name);
    snprintf(state, 256, "%s.running", name);
    return v && v->data && hk_dtype_is_float(v->dtype) ? v : NULL;
}

hk_status hk_trainer_read_parameter(hk_trainer *t, const char *name, hk_tensor *out)
{
    const hk_parameter *p = find_parameter(t, name);
    if (p)
        return read_state(t, name, HK_STATE_PARAMETERS, p->source, p->offset, t->parameters.initial, out);
    char state[256];
    const hk_value *v = find_running(t, name, state);
    return v ? read_state(t, name, state, v, 0, v->data, out) : no_such(t, name);
}

hk_status hk_trainer_read_average(hk_trainer *t, const char *name, hk_tensor *out)
{
    const hk_parameter *p = find_parameter(t, name);
    if (!(t->params.ema_decay > 0))
        return hk_fail(t->ctx, HK_STATUS_USAGE, "this trainer keeps no moving average: ema_decay is 0");
    return p ? read_state(t, name, HK_STATE_AVERAGE, p->source, p->offset, t->parameters.initial, out)
             : no_such(t, name);
}

hk_status hk_trainer_read_gradient(hk_trainer *t, const char *name, hk_tensor *out)
{
    const hk_parameter *p = find_parameter(t, name);
    const char *state = t->params.accumulate > 1 || t->pieces.summed ? HK_STATE_ACCUMULATED : HK_STATE_GRADIENTS;
    if (p && t->pieces.summed && !t->pieces.unsettled) { /* zeroed */
        bool made = false;
        HK_TRY(hk_fill_output(t->ctx, name, HK_FLOAT32, &p->source->shape, out, &made));
        memset(out->data, 0, (size_t)p->count * sizeof(float));
        return HK_OK;
    }
    return p ? read_state(t, name, state, p->source, p->offset, NULL, out) : no_such(t, name);
}

/* States come to the device with the first plan; a parameter written before changes what that plan uploads. */
hk_status hk_trainer_write_parameter(hk_trainer *t, const char *name, const hk_tensor *value)
{
    const hk_parameter *p = find_parameter(t, name);
    if (!p)
        return no_such(t, name);
    hk_shape shape = hk_tensor_shape(value);
    hk_shape_text a, b;
    if (value->dtype != HK_FLOAT32 || !hk_shape_equal(&shape, &p->source->shape))
        return hk_fail(t->ctx, HK_STATUS_USAGE, "parameter '%s' is float32 %s, the value is %s %s", name,
                       hk_shape_print(&p->source->shape, &a), hk_dtype_name(value->dtype), hk_shape_print(&shape, &b));
    float *packed = (float *)t->parameters.initial->data + p->offset;
    hk_tensor_pack(value, packed);
    if (!hk_env_state(t->env, HK_STATE_PARAMETERS))
        return HK_OK;
    HK_TRY(hk_trainer_idle(t));
    return hk_env_write_state(t->env, HK_STATE_PARAMETERS, (uint64_t)p->offset * sizeof(float), packed,
                              (uint64_t)p->count * sizeof(float));
}

/* ---- writing the model back */

typedef hk_status read_call(hk_trainer *t, const char *name, hk_tensor *out);

/* The contents of a value as they are now, float32: trained, running statistics, or what they always were. */
static hk_status contents_now(hk_trainer *t, read_call *read, const hk_value *v, hk_arena *arena, hk_tensor **out)
{
    char state[256];
    bool trained = find_parameter(t, v->name) != NULL;
    *out = hk_tensor_new(arena, HK_FLOAT32, &v->shape);
    if (!*out)
        return hk_out_of_memory(t->ctx, "an export");
    if (trained || find_running(t, v->name, state))
        return (trained ? read : hk_trainer_read_parameter)(t, v->name, *out);
    for (int64_t i = 0, n = hk_tensor_count(*out); i < n; i++)
        hk_set_double(*out, i, hk_get_double(v->data, i));
    return HK_OK;
}

static hk_status derive(hk_trainer *t, read_call *read, const hk_derived *d, hk_arena *arena, hk_tensor *to)
{
    hk_tensor *parts[4] = {0};
    for (size_t i = 0; i < 4 && d->parts[i]; i++)
        HK_TRY(contents_now(t, read, d->parts[i], arena, &parts[i]));
    hk_derive(d, to, (const hk_tensor *const *)parts);
    return HK_OK;
}

/* What is to be written for a value; *out NULL: what it was. */
static hk_status contents_of(hk_trainer *t, read_call *read, const hk_value *v, hk_arena *arena, hk_tensor **out)
{
    const hk_model *m = t->model;
    char state[256];
    *out = NULL;
    bool changed = find_parameter(t, v->name) || (find_running(t, v->name, state) && hk_env_state(t->env, state));
    for (size_t i = 0; i < m->derived_count; i++)
        changed |= m->derived[i].target == v;
    if (!changed)
        return HK_OK;
    HK_TRY(contents_now(t, read, v, arena, out));
    for (size_t i = 0; i < m->derived_count; i++)
        if (m->derived[i].target == v)
            HK_TRY(derive(t, read, &m->derived[i], arena, *out));
    return HK_OK;
}

static hk_status export_with(hk_trainer *t, read_call *read, const char *path)
{
    hk_arena *arena = hk_arena_create(t->ctx);
    const hk_graph *g = hk_model_import(t->model)->graph;
    hk_export_patch *patches = arena ? hk_arena_array(arena, g->value_count + 1, sizeof *patches) : NULL;
    hk_status st = patches ? HK_OK : hk_out_of_memory(t->ctx, "an export");
    size_t count = 0;
    for (size_t i = 0; i < g->value_count && st == HK_OK; i++) {
        hk_tensor *data = NULL;
        st = contents_of(t, read, g->values[i], arena, &data);
        if (data)
            patches[count++] = (hk_export_patch){.value = g->values[i], .data = data};
    }
    if (st == HK_OK)
        st = hk_model_write(t->model, patches, count, path);
    hk_arena_destroy(&arena);
    return st;
}

hk_status hk_trainer_export(hk_trainer *t, const char *path)
{
    return export_with(t, hk_trainer_read_parameter, path);
}

hk_status hk_trainer_export_average(hk_trainer *t, const char *path)
{
    if (!(t->params.ema_decay > 0))
        return hk_fail(t->ctx, HK_STATUS_USAGE, "this trainer keeps no moving average: ema_decay is 0");
    return export_with(t, hk_trainer_read_average, path);
}

/* Parameters of the written model and the statistics of its normalizations, in the types the file has. */
static bool is_weight(const hk_trainer *t, const hk_value *v)
{
    const hk_graph *g = hk_model_graph(t->model);
    bool statistics = false;
    for (size_t i = 0; i < g->node_count && v->kind == HK_VALUE_CONSTANT && v->data; i++) {
        const hk_node *n = g->nodes[i];
        for (int32_t k = 3; k < 5 && k < n->in_count && !strcmp(n->type, "BatchNormalization"); k++)
            statistics |= n->in[k] && !strcmp(n->in[k]->name, v->name);
    }
    return statistics || v->kind == HK_VALUE_PARAMETER;
}

static hk_status collect(hk_trainer *t, read_call *read, hk_arena *arena, hk_safetensor *list, size_t *count)
{
    const hk_graph *g = hk_model_import(t->model)->graph;
    for (size_t i = 0; i < g->value_count; i++) {
        const hk_value *v = g->values[i];
        hk_tensor *now = NULL;
        if (!is_weight(t, v))
            continue;
        HK_TRY(contents_of(t, read, v, arena, &now));
        const hk_tensor *stored = hk_tensor_as(arena, now ? now : v->data, v->dtype);
        if (!stored)
            return hk_out_of_memory(t->ctx, "an export");
        list[(*count)++] = (hk_safetensor){.name = v->name, .tensor = *stored};
    }
    return HK_OK;
}

hk_status hk_trainer_export_safetensors(hk_trainer *t, bool average, const char *path)
{
    const hk_metadata metadata = {"format", "pt"};
    if (average && !(t->params.ema_decay > 0))
        return hk_fail(t->ctx, HK_STATUS_USAGE, "this trainer keeps no moving average: ema_decay is 0");
    hk_arena *arena = hk_arena_create(t->ctx);
    size_t count = 0, most = hk_model_import(t->model)->graph->value_count;
    hk_safetensor *list = arena ? hk_arena_array(arena, most + 1, sizeof *list) : NULL;
    hk_status st = list ? collect(t, average ? hk_trainer_read_average : hk_trainer_read_parameter, arena, list, &count)
                        : hk_out_of_memory(t->ctx, "an export");
    if (st == HK_OK)
        st = hk_safetensors_write(t->ctx, path, list, count, &metadata, 1);
    hk_arena_destroy(&arena);
    return st;
}
