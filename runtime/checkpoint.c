/* Checkpoints: one safetensors file with every state of a trainer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/trainer.h"
#include "train/safetensors.h"

#define CHECKPOINT_FORMAT "hillock-trainer-2"

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
    HK_TRY(hk_trainer_idle(t));
    char micro[24], updates[24], hash[24], lr[32], seed[24], every[24];
    snprintf(micro, sizeof micro, "%llu", (unsigned long long)t->micro);
    snprintf(updates, sizeof updates, "%llu", (unsigned long long)t->updates);
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)model_hash(t));
    snprintf(lr, sizeof lr, "%a", (double)t->params.lr);
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
    if (st == HK_OK)
        st = hk_trainer_idle(t);
    if (st == HK_OK)
        st = put_states(t, &s, path);
    if (st == HK_OK) {
        t->micro = strtoull(hk_safetensors_metadata(&s, "micro"), NULL, 10);
        t->updates = strtoull(hk_safetensors_metadata(&s, "updates"), NULL, 10);
        t->params.lr = strtof(hk_safetensors_metadata(&s, "lr"), NULL);
        uint64_t seed = strtoull(hk_safetensors_metadata(&s, "seed"), NULL, 10);
        t->step.seed[0] = (uint32_t)seed;
        t->step.seed[1] = (uint32_t)(seed >> 32);
        t->params.seed = seed;
    }
    hk_safetensors_finish(&s);
    return st;
}
