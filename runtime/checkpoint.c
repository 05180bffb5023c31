/* Checkpoints: one safetensors file with every state of a trainer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/trainer.h"
#include "train/safetensors.h"

#define CHECKPOINT_FORMAT "hillock-trainer-2"

/* FNV-1a, eight bytes at a time. */
static uint64_t hash(uint64_t h, const void *data, size_t bytes)
{
    const unsigned char *p = data;
    for (; bytes >= 8; p += 8, bytes -= 8) {
        uint64_t word;
        memcpy(&word, p, sizeof word);
        h = (h ^ word) * 0x100000001b3ull;
        h ^= h >> 32; /* the multiplication alone carries nothing down */
    }
    for (; bytes; p++, bytes--)
        h = (h ^ *p) * 0x100000001b3ull;
    return h;
}
#define HASH_START 0xcbf29ce484222325ull

/* Of the names and shapes of what is trained and of the states that are kept: a checkpoint of another model, or of
 * another optimizer, is refused. */
static uint64_t model_hash(const hk_trainer *t)
{
    const int32_t kept[] = {(int32_t)t->training.optimizer, t->training.ema_decay > 0, t->training.total};
    uint64_t h = hash(HASH_START, kept, sizeof kept);
    for (size_t i = 0; i < t->parameters.count; i++) {
        const hk_value *v = t->parameters.list[i].source;
        h = hash(h, v->name, strlen(v->name));
        h = hash(h, v->shape.dim, (size_t)v->shape.rank * sizeof *v->shape.dim);
    }
    return h;
}

static uint64_t contents_hash(const hk_safetensor *list, size_t count, const char *notes)
{
    uint64_t h = hash(HASH_START, notes, strlen(notes));
    for (size_t i = 0; i < count; i++) {
        h = hash(h, list[i].name, strlen(list[i].name));
        h = hash(h, list[i].tensor.data, (size_t)hk_tensor_bytes(&list[i].tensor));
    }
    return h;
}

static hk_status take_states(hk_trainer *t, hk_arena *arena, hk_safetensor **out, size_t *count)
{
    size_t n = t->env->state_count;
    hk_safetensor *list = hk_arena_array(arena, n + 1, sizeof *list);
    if (!list)
        return hk_out_of_memory(t->ctx, "a checkpoint");
    *count = 0;
    for (size_t i = 0; i < n; i++) {
        const hk_stored *stored = NULL;
        const char *name = hk_env_state_name(t->env, i, &stored);
        hk_shape shape = {.rank = 1, .dim = {(int64_t)(stored->bytes / sizeof(float))}};
        if (!name)
            continue;
        hk_tensor *data = hk_tensor_new(arena, HK_FLOAT32, &shape);
        if (!data)
            return hk_out_of_memory(t->ctx, "a checkpoint");
        HK_TRY(hk_env_read_state(t->env, name, 0, data->data, (uint64_t)hk_tensor_bytes(data)));
        list[(*count)++] = (hk_safetensor){.name = name, .tensor = *data};
    }
    *out = list;
    return HK_OK;
}

hk_status hk_trainer_save(hk_trainer *t, const char *path, const char *notes)
{
    notes = notes ? notes : "";
    if (!t->env->state_count)
        return hk_fail(t->ctx, HK_STATUS_USAGE, "a checkpoint can be saved after the first step");
    HK_TRY(hk_trainer_idle(t));
    char micro[24], updates[24], model[24], contents[24], lr[32], seed[24], every[24];
    snprintf(micro, sizeof micro, "%llu", (unsigned long long)t->micro);
    snprintf(updates, sizeof updates, "%llu", (unsigned long long)t->updates);
    snprintf(model, sizeof model, "%016llx", (unsigned long long)model_hash(t));
    snprintf(lr, sizeof lr, "%a", (double)t->params.lr);
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)t->params.seed);
    snprintf(every, sizeof every, "%u", t->params.accumulate);
    hk_arena *arena = hk_arena_create(t->ctx);
    hk_safetensor *list = NULL;
    size_t count = 0;
    hk_status st = arena ? take_states(t, arena, &list, &count) : hk_out_of_memory(t->ctx, "a checkpoint");
    if (st == HK_OK) {
        snprintf(contents, sizeof contents, "%016llx", (unsigned long long)contents_hash(list, count, notes));
        const hk_metadata metadata[] = {{"format", CHECKPOINT_FORMAT},
                                        {"model", model},
                                        {"contents", contents},
                                        {"micro", micro},
                                        {"updates", updates},
                                        {"lr", lr},
                                        {"seed", seed},
                                        {"accumulate", every},
                                        {"notes", notes}};
        st = hk_safetensors_write(t->ctx, path, list, count, metadata, HK_COUNT(metadata));
    }
    hk_arena_destroy(&arena);
    return st;
}

static hk_status check_checkpoint(const hk_trainer *t, const hk_safetensors *s, const char *path)
{
    char hash_text[24], contents[24], every[24];
    const char *format = hk_safetensors_metadata(s, "format"), *model = hk_safetensors_metadata(s, "model");
    const char *accumulate = hk_safetensors_metadata(s, "accumulate");
    snprintf(hash_text, sizeof hash_text, "%016llx", (unsigned long long)model_hash(t));
    snprintf(every, sizeof every, "%u", t->params.accumulate);
    if (!format || strcmp(format, CHECKPOINT_FORMAT) != 0 || !hk_safetensors_metadata(s, "micro") ||
        !hk_safetensors_metadata(s, "updates") || !hk_safetensors_metadata(s, "lr") ||
        !hk_safetensors_metadata(s, "seed"))
        return hk_fail(t->ctx, HK_STATUS_INVALID, "'%s' is no checkpoint of a trainer (format %s)", path,
                       format ? format : "absent");
    if (!model || strcmp(model, hash_text) != 0)
        return hk_fail(
            t->ctx, HK_STATUS_INVALID,
            "'%s' is a checkpoint of another model or optimizer: the names and shapes of what it trains hash "
            "to %s, this trainer's to %s",
            path, model ? model : "nothing", hash_text);
    const char *sum = hk_safetensors_metadata(s, "contents"), *notes = hk_safetensors_metadata(s, "notes");
    snprintf(contents, sizeof contents, "%016llx",
             (unsigned long long)contents_hash(s->tensors, s->count, notes ? notes : ""));
    if (!sum || strcmp(sum, contents) != 0)
        return hk_fail(t->ctx, HK_STATUS_INVALID, "'%s' is damaged: its contents hash to %s, they were %s", path,
                       contents, sum ? sum : "nothing");
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

hk_status hk_trainer_load(hk_trainer *t, const char *path, const char **notes)
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
        const char *kept = hk_safetensors_metadata(&s, "notes");
        kept = hk_arena_string(t->arena, kept ? kept : "");
        if (!kept)
            st = hk_out_of_memory(t->ctx, "a checkpoint");
        else if (notes)
            *notes = kept;
    }
    hk_safetensors_finish(&s);
    return st;
}
