/* Trainers: the training step of a model as one recording per input shape, and its states. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/model.h"
#include "runtime/objects.h"
#include "runtime/passes.h"
#include "runtime/report.h"
#include "train/safetensors.h"
#include "train/training.h"

#define MAX_PLANS 4

/* The step for one set of input shapes, with the update and (when accumulating) without. */
typedef struct trainer_plan {
    hk_shape *shapes; /* of the inputs and the labels */
    hk_dtype labels_dtype;
    hk_exec *exec[2]; /* [1]: with the update */
    uint64_t used;    /* for eviction */
} trainer_plan;

struct hk_trainer {
    hk_context *ctx;
    hk_device *dev;
    const hk_model *model;
    hk_env *env;
    hk_arena *arena;
    hk_trainer_params params;
    hk_parameters parameters;
    hk_pass_options passes;
    trainer_plan plans[MAX_PLANS];
    hk_step step;
    uint64_t micro;   /* micro-batches so far */
    uint64_t updates; /* Adam's t */
    hk_exec *last;    /* of the last submit */
    uint64_t last_ticket;
    hk_report report;
};

/* ---- life */

static hk_status take_params(hk_context *ctx, const hk_trainer_params *given, hk_trainer_params *p)
{
    *p = (hk_trainer_params){.size = sizeof *p};
    if (given)
        memcpy(p, given, HK_MIN(given->size, sizeof *p));
    p->lr = p->lr != 0 ? p->lr : 1e-3f;
    p->beta1 = p->beta1 != 0 ? p->beta1 : 0.9f;
    p->beta2 = p->beta2 != 0 ? p->beta2 : 0.999f;
    p->eps = p->eps != 0 ? p->eps : 1e-8f;
    p->weight_decay = p->weight_decay < 0 ? 0 : p->weight_decay != 0 ? p->weight_decay : 0.01f;
    p->accumulate = p->accumulate ? p->accumulate : 1;
    if (!(p->lr > 0) || !(p->beta1 > 0 && p->beta1 < 1) || !(p->beta2 > 0 && p->beta2 < 1) || !(p->eps > 0))
        return hk_fail(ctx, HK_STATUS_USAGE,
                       "AdamW needs lr > 0, 0 < beta1, beta2 < 1 and eps > 0; found %g, %g, %g, %g", (double)p->lr,
                       (double)p->beta1, (double)p->beta2, (double)p->eps);
    return HK_OK;
}

static hk_status start(hk_trainer *t)
{
    const hk_graph *g = hk_model_graph(t->model);
    t->arena = hk_arena_create(t->ctx);
    if (!t->arena)
        return hk_out_of_memory(t->ctx, "a trainer");
    HK_TRY(hk_parameters_create(g, t->arena, &t->parameters));
    HK_TRY(hk_env_create(t->dev->gpu, g, &t->env));
    t->env->precision = t->params.precision == HK_PRECISION_DEFAULT ? HK_PRECISION_STRICT : t->params.precision;
    t->env->profile = t->params.profile;
    t->passes = (hk_pass_options){.device = hk_gpu_info(t->dev->gpu),
                                  .precision = t->params.precision,
                                  .off = hk_gpu_debug(t->dev->gpu) >> HK_DEBUG_PASS_SHIFT};
    t->step = (hk_step){.seed = {(uint32_t)t->params.seed, (uint32_t)(t->params.seed >> 32)},
                        .lr = t->params.lr,
                        .grad_scale = 1.0f / (float)t->params.accumulate};
    return HK_OK;
}

hk_status hk_trainer_create(hk_device *dev, const hk_model *m, const hk_trainer_params *params, hk_trainer **out)
{
    hk_trainer_params p;
    HK_TRY(take_params(dev->ctx, params, &p));
    HK_TRY(hk_model_check_runs(m));
    hk_trainer *t = hk_alloc(dev->ctx, sizeof *t);
    if (!t)
        return hk_out_of_memory(dev->ctx, "a trainer");
    *t = (hk_trainer){.ctx = dev->ctx, .dev = dev, .model = m, .params = p};
    hk_status st = start(t);
    if (st == HK_OK)
        *out = t;
    else
        hk_trainer_destroy(&t);
    return st;
}

static void destroy_plan(hk_trainer *t, trainer_plan *plan)
{
    for (size_t i = 0; i < 2; i++) {
        if (t->last == plan->exec[i])
            t->last = NULL;
        hk_exec_destroy(&plan->exec[i]);
    }
    hk_free(t->ctx, plan->shapes);
    *plan = (trainer_plan){0};
}

void hk_trainer_destroy(hk_trainer **trainer)
{
    hk_trainer *t = *trainer;
    if (!t)
        return;
    *trainer = NULL;
    for (size_t i = 0; i < MAX_PLANS; i++)
        destroy_plan(t, &t->plans[i]);
    hk_env_destroy(&t->env);
    hk_report_finish(&t->report);
    hk_arena_destroy(&t->arena);
    hk_free(t->ctx, t);
}

/* ---- plans */

static hk_status build_graph(hk_trainer *t, const hk_tensor *inputs, const hk_tensor *labels, bool update,
                             hk_graph **out)
{
    hk_graph *g = NULL;
    HK_TRY(hk_graph_clone(hk_model_graph(t->model), &g));
    for (size_t i = 0; i < g->input_count; i++)
        g->inputs[i]->shape = hk_tensor_shape(&inputs[i]);
    hk_training training = {.parameters = &t->parameters,
                            .output = t->params.output,
                            .beta1 = t->params.beta1,
                            .beta2 = t->params.beta2,
                            .eps = t->params.eps,
                            .weight_decay = t->params.weight_decay,
                            .freeze_bn = t->params.freeze_bn,
                            .accumulate = t->params.accumulate > 1,
                            .update = update};
    hk_status st = hk_make_training(g, &training, labels);
    if (st == HK_OK)
        st = hk_run_passes(g, &t->passes);
    if (st == HK_OK)
        *out = g;
    else
        hk_graph_destroy(&g);
    return st;
}

static bool fits(const trainer_plan *plan, const hk_tensor *inputs, size_t count, const hk_tensor *labels)
{
    if (!plan->shapes || plan->labels_dtype != labels->dtype)
        return false;
    for (size_t i = 0; i <= count; i++) {
        hk_shape shape = hk_tensor_shape(i < count ? &inputs[i] : labels);
        if (!hk_shape_equal(&shape, &plan->shapes[i]))
            return false;
    }
    return true;
}

static hk_status find_plan(hk_trainer *t, const hk_tensor *inputs, size_t count, const hk_tensor *labels,
                           trainer_plan **out)
{
    trainer_plan *oldest = &t->plans[0];
    for (size_t i = 0; i < MAX_PLANS; i++) {
        if (fits(&t->plans[i], inputs, count, labels)) {
            *out = &t->plans[i];
            return HK_OK;
        }
        if (t->plans[i].used < oldest->used)
            oldest = &t->plans[i];
    }
    destroy_plan(t, oldest);
    oldest->shapes = hk_alloc_array(t->ctx, count + 1, sizeof *oldest->shapes);
    if (!oldest->shapes)
        return hk_out_of_memory(t->ctx, "a training plan");
    for (size_t i = 0; i <= count; i++)
        oldest->shapes[i] = hk_tensor_shape(i < count ? &inputs[i] : labels);
    oldest->labels_dtype = labels->dtype;
    *out = oldest;
    return HK_OK;
}

static hk_status find_exec(hk_trainer *t, const hk_tensor *inputs, size_t count, const hk_tensor *labels, bool update,
                           hk_exec **out)
{
    trainer_plan *plan = NULL;
    HK_TRY(find_plan(t, inputs, count, labels, &plan));
    plan->used = t->micro + 1;
    hk_exec **exec = &plan->exec[update];
    hk_graph *g = NULL;
    if (!*exec) {
        HK_TRY(build_graph(t, inputs, labels, update, &g));
        HK_TRY(hk_exec_create(t->env, g, exec));
    }
    *out = *exec;
    return HK_OK;
}

/* ---- steps */

static hk_status check_batch(const hk_trainer *t, const hk_tensor *inputs, size_t count, const hk_tensor *labels)
{
    const hk_graph *g = hk_model_graph(t->model);
    if (count != g->input_count)
        return hk_fail(t->ctx, HK_STATUS_USAGE, "%zu inputs were given, the model has %zu", count, g->input_count);
    for (size_t i = 0; i < count; i++)
        HK_TRY(hk_check_input(t->ctx, g->inputs[i], &inputs[i]));
    if (!labels || !labels->data || (labels->dtype != HK_INT64 && labels->dtype != HK_INT32))
        return hk_fail(t->ctx, HK_STATUS_USAGE, "labels must be an int64 or int32 tensor");
    return HK_OK;
}

/* Adam's bias corrections are powers, computed in double on the host and handed over in the step block. */
static void set_step(hk_trainer *t, bool update)
{
    t->step.step = (uint32_t)t->micro;
    t->step.accumulate = t->micro % t->params.accumulate ? 1.0f : 0.0f;
    if (!update)
        return;
    double n = (double)(t->updates + 1);
    t->step.beta1_power = (float)pow((double)t->params.beta1, n);
    t->step.beta2_power = (float)pow((double)t->params.beta2, n);
}

hk_status hk_trainer_submit(hk_trainer *t, const hk_tensor *inputs, size_t input_count, const hk_tensor *labels,
                            uint64_t *ticket)
{
    HK_TRY(check_batch(t, inputs, input_count, labels));
    bool update = (t->micro + 1) % t->params.accumulate == 0;
    hk_exec *exec = NULL;
    HK_TRY(find_exec(t, inputs, input_count, labels, update, &exec));
    hk_arena *arena = hk_arena_create(t->ctx);
    hk_feed *feeds = arena ? hk_arena_array(arena, input_count + 1, sizeof *feeds) : NULL;
    hk_status st = feeds ? HK_OK : hk_out_of_memory(t->ctx, "a step");
    for (size_t i = 0; i <= input_count && st == HK_OK; i++) {
        const hk_tensor *from = i < input_count ? &inputs[i] : labels;
        hk_shape shape = hk_tensor_shape(from);
        feeds[i].host = from;
        if (from->strides[0] || (from->rank > 1 && from->strides[1])) { /* the executor takes contiguous tensors */
            hk_tensor *packed = hk_tensor_new(arena, from->dtype, &shape);
            if (packed)
                hk_tensor_pack(from, packed->data);
            else
                st = hk_out_of_memory(t->ctx, "a step");
            feeds[i].host = packed;
        }
    }
    if (st == HK_OK) {
        set_step(t, update);
        st = hk_exec_submit(exec, feeds, &t->step, ticket);
    }
    hk_arena_destroy(&arena);
    if (st != HK_OK)
        return st;
    t->last = exec;
    t->last_ticket = *ticket;
    t->micro++;
    t->updates += update;
    return HK_OK;
}

hk_status hk_trainer_wait(hk_trainer *t, uint64_t ticket, float *loss)
{
    if (!t->last)
        return hk_fail(t->ctx, HK_STATUS_USAGE, "no step has been submitted");
    HK_TRY(hk_exec_wait(t->last, ticket));
    if (!loss)
        return HK_OK;
    for (size_t i = 0; i < MAX_PLANS; i++)
        for (size_t k = 0; k < 2; k++)
            if (t->plans[i].exec[k] && hk_exec_read(t->plans[i].exec[k], ticket, 0, loss) == HK_OK)
                return HK_OK;
    return hk_fail(t->ctx, HK_STATUS_USAGE, "the loss of step %llu is gone: wait for it before the second next step",
                   (unsigned long long)ticket);
}

hk_status hk_trainer_step(hk_trainer *t, const hk_tensor *inputs, size_t input_count, const hk_tensor *labels,
                          float *loss)
{
    uint64_t ticket = 0;
    HK_TRY(hk_trainer_submit(t, inputs, input_count, labels, &ticket));
    return loss ? hk_trainer_wait(t, ticket, loss) : HK_OK;
}

hk_status hk_trainer_set_lr(hk_trainer *t, float lr)
{
    if (!(lr > 0))
        return hk_fail(t->ctx, HK_STATUS_USAGE, "a learning rate must be positive; found %g", (double)lr);
    t->step.lr = lr;
    return HK_OK;
}

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

/* Before the first step nothing lies on the device: then the model's contents are the answer. */
static hk_status read_state(hk_trainer *t, const char *name, const char *state, const hk_value *v, int64_t offset,
                            const float *before, hk_tensor *out)
{
    bool made = false;
    HK_TRY(hk_fill_output(t->ctx, name, HK_FLOAT32, &v->shape, out, &made));
    uint64_t bytes = (uint64_t)hk_shape_count(&v->shape) * sizeof(float);
    hk_status st = HK_OK;
    if (hk_env_state(t->env, state)) {
        st = t->last_ticket ? hk_gpu_wait(t->dev->gpu, t->last_ticket) : HK_OK;
        if (st == HK_OK)
            st = hk_env_read_state(t->env, state, (uint64_t)offset * sizeof(float), out->data, bytes);
    } else if (before) {
        memcpy(out->data, before, (size_t)bytes);
    } else {
        st = hk_fail(t->ctx, HK_STATUS_USAGE, "'%s' is known after the first step", name);
    }
    if (st != HK_OK && made)
        hk_tensor_release(out);
    return st;
}

static const hk_value *find_running(const hk_trainer *t, const char *name, char state[256])
{
    const hk_value *v = hk_graph_find(hk_model_graph(t->model), name);
    snprintf(state, 256, "%s.running", name);
    return v && v->data && v->dtype == HK_FLOAT32 ? v : NULL;
}

hk_status hk_trainer_read_parameter(hk_trainer *t, const char *name, hk_tensor *out)
{
    const hk_parameter *p = find_parameter(t, name);
    if (p)
        return read_state(t, name, HK_STATE_PARAMETERS, p->source, p->offset, p->source->data->data, out);
    char state[256];
    const hk_value *v = find_running(t, name, state);
    return v ? read_state(t, name, state, v, 0, v->data->data, out) : no_such(t, name);
}

hk_status hk_trainer_read_gradient(hk_trainer *t, const char *name, hk_tensor *out)
{
    const hk_parameter *p = find_parameter(t, name);
    const char *state = t->params.accumulate > 1 ? HK_STATE_ACCUMULATED : HK_STATE_GRADIENTS;
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
    if (t->last_ticket)
        HK_TRY(hk_gpu_wait(t->dev->gpu, t->last_ticket));
    return hk_env_write_state(t->env, HK_STATE_PARAMETERS, (uint64_t)p->offset * sizeof(float), packed,
                              (uint64_t)p->count * sizeof(float));
}

/* ---- checkpoints */

#define CHECKPOINT_FORMAT "hillock-trainer-1"

/* FNV-1a over the names and shapes of what is trained: a checkpoint of another model is refused. */
static uint64_t model_hash(const hk_trainer *t)
{
    uint64_t h = 0xcbf29ce484222325ull;
    for (size_t i = 0; i < t->parameters.count; i++) {
        const hk_value *v = t->parameters.list[i].source;
        for (const char *c = v->name; *c; c++)
            h = (h ^ (unsigned char)*c) * 0x100000001b3ull;
        for (int32_t d = 0; d < v->shape.rank; d++)
            h = (h ^ (uint64_t)v->shape.dim[d]) * 0x100000001b3ull;
    }
    return h;
}

static hk_status take_states(hk_trainer *t, hk_arena *arena, hk_safetensor **out, size_t *count)
{
    size_t n = t->env->state_count;
    hk_safetensor *list = hk_arena_array(arena, n + 1, sizeof *list);
    if (!list)
        return hk_out_of_memory(t->ctx, "a checkpoint");
    for (size_t i = 0; i < n; i++) {
        const char *name = hk_env_state_name(t->env, i);
        hk_shape shape = {.rank = 1, .dim = {(int64_t)(hk_env_state(t->env, name)->bytes / sizeof(float))}};
        hk_tensor *data = hk_tensor_new(arena, HK_FLOAT32, &shape);
        if (!data)
            return hk_out_of_memory(t->ctx, "a checkpoint");
        HK_TRY(hk_env_read_state(t->env, name, 0, data->data, (uint64_t)hk_tensor_bytes(data)));
        list[i] = (hk_safetensor){.name = name, .tensor = *data};
    }
    *out = list;
    *count = n;
    return HK_OK;
}

hk_status hk_trainer_save(hk_trainer *t, const char *path)
{
    if (!t->env->state_count)
        return hk_fail(t->ctx, HK_STATUS_USAGE, "a checkpoint can be saved after the first step");
    if (t->last_ticket)
        HK_TRY(hk_gpu_wait(t->dev->gpu, t->last_ticket));
    char micro[24], updates[24], hash[24], lr[32], seed[24], every[24];
    snprintf(micro, sizeof micro, "%llu", (unsigned long long)t->micro);
    snprintf(updates, sizeof updates, "%llu", (unsigned long long)t->updates);
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)model_hash(t));
    snprintf(lr, sizeof lr, "%a", (double)t->step.lr);
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)t->params.seed);
    snprintf(every, sizeof every, "%u", t->params.accumulate);
    const hk_metadata metadata[] = {{"format", CHECKPOINT_FORMAT}, {"model", hash}, {"micro", micro},
                                    {"updates", updates},          {"lr", lr},      {"seed", seed},
                                    {"accumulate", every}};
    hk_arena *arena = hk_arena_create(t->ctx);
    hk_safetensor *list = NULL;
    size_t count = 0;
    hk_status st = arena ? take_states(t, arena, &list, &count) : hk_out_of_memory(t->ctx, "a checkpoint");
    if (st == HK_OK)
        st = hk_safetensors_write(t->ctx, path, list, count, metadata, HK_COUNT(metadata));
    hk_arena_destroy(&arena);
    return st;
}

static hk_status check_checkpoint(const hk_trainer *t, const hk_safetensors *s, const char *path)
{
    char hash[24], every[24];
    const char *format = hk_safetensors_metadata(s, "format"), *model = hk_safetensors_metadata(s, "model");
    const char *accumulate = hk_safetensors_metadata(s, "accumulate");
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)model_hash(t));
    snprintf(every, sizeof every, "%u", t->params.accumulate);
    if (!format || strcmp(format, CHECKPOINT_FORMAT) != 0 || !hk_safetensors_metadata(s, "micro") ||
        !hk_safetensors_metadata(s, "updates") || !hk_safetensors_metadata(s, "lr") ||
        !hk_safetensors_metadata(s, "seed"))
        return hk_fail(t->ctx, HK_STATUS_INVALID, "'%s' is no checkpoint of a trainer (format %s)", path,
                       format ? format : "absent");
    if (!model || strcmp(model, hash) != 0)
        return hk_fail(t->ctx, HK_STATUS_INVALID,
                       "'%s' is a checkpoint of another model: its parameters' names and shapes hash to %s, "
                       "this model's to %s",
                       path, model ? model : "nothing", hash);
    if (!accumulate || strcmp(accumulate, every) != 0)
        return hk_fail(t->ctx, HK_STATUS_INVALID, "'%s' was written with accumulate %s, this trainer has %s", path,
                       accumulate ? accumulate : "unknown", every);
    return HK_OK;
}

/* States wait here until the first plan makes them on the device, unless it has. */
static hk_status put_states(hk_trainer *t, const hk_safetensors *s, const char *path)
{
    for (size_t i = 0; i < s->count; i++) {
        const hk_tensor *data = &s->tensors[i].tensor;
        const hk_stored *there = hk_env_state(t->env, s->tensors[i].name);
        if (data->dtype != HK_FLOAT32 || (there && there->bytes != (uint64_t)hk_tensor_bytes(data)))
            return hk_fail(t->ctx, HK_STATUS_INVALID, "'%s': state '%s' has another size than this trainer's", path,
                           s->tensors[i].name);
        HK_TRY(hk_env_restore_state(t->env, s->tensors[i].name, data->data, (uint64_t)hk_tensor_bytes(data)));
    }
    return HK_OK;
}

hk_status hk_trainer_load(hk_trainer *t, const char *path)
{
    hk_safetensors s = {0};
    HK_TRY(hk_safetensors_read(t->ctx, path, &s));
    hk_status st = check_checkpoint(t, &s, path);
    if (st == HK_OK && t->last_ticket)
        st = hk_gpu_wait(t->dev->gpu, t->last_ticket);
    if (st == HK_OK)
        st = put_states(t, &s, path);
    if (st == HK_OK) {
        t->micro = strtoull(hk_safetensors_metadata(&s, "micro"), NULL, 10);
        t->updates = strtoull(hk_safetensors_metadata(&s, "updates"), NULL, 10);
        t->step.lr = strtof(hk_safetensors_metadata(&s, "lr"), NULL);
        uint64_t seed = strtoull(hk_safetensors_metadata(&s, "seed"), NULL, 10);
        t->step.seed[0] = (uint32_t)seed;
        t->step.seed[1] = (uint32_t)(seed >> 32);
        t->params.seed = seed;
    }
    hk_safetensors_finish(&s);
    return st;
}

/* ---- writing the model back */

static hk_status add_patch(hk_trainer *t, hk_arena *arena, const hk_value *v, hk_export_patch *patch)
{
    hk_tensor *data = hk_tensor_new(arena, HK_FLOAT32, &v->shape);
    if (!data)
        return hk_out_of_memory(t->ctx, "an export");
    HK_TRY(hk_trainer_read_parameter(t, v->name, data));
    *patch = (hk_export_patch){.value = v, .data = data};
    return HK_OK;
}

hk_status hk_trainer_export(hk_trainer *t, const char *path)
{
    const hk_graph *g = hk_model_graph(t->model);
    hk_arena *arena = hk_arena_create(t->ctx);
    hk_export_patch *patches = arena ? hk_arena_array(arena, g->value_count + 1, sizeof *patches) : NULL;
    hk_status st = patches ? HK_OK : hk_out_of_memory(t->ctx, "an export");
    size_t count = 0;
    for (size_t i = 0; i < g->value_count && st == HK_OK; i++) {
        const hk_value *v = g->values[i];
        char state[256];
        bool trained = v->kind == HK_VALUE_PARAMETER ||
                       (find_running(t, v->name, state) == v && hk_env_state(t->env, state));
        if (trained && v->payload)
            st = add_patch(t, arena, v, &patches[count++]);
        else if (trained)
            st = hk_fail(t->ctx, HK_STATUS_UNSUPPORTED, "parameter '%s' has no place of its own in the model file",
                         v->name);
    }
    if (st == HK_OK)
        st = hk_export_patched(hk_model_import(t->model), patches, count, path);
    hk_arena_destroy(&arena);
    return st;
}

hk_status hk_trainer_get_plan(hk_trainer *t, hk_plan_info *out)
{
    if (!t->last)
        return hk_fail(t->ctx, HK_STATUS_USAGE, "no step has been submitted yet: there is no plan");
    HK_TRY(hk_report_exec(t->ctx, &t->report, t->env, t->last));
    *out = t->report.info;
    return HK_OK;
}
