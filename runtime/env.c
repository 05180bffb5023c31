/* What the plans of a session share: weights, states, the activation arena. */
#include "runtime/env.h"

#include <stdlib.h>
#include <string.h>

static size_t count_tensors(const hk_graph *g)
{
    size_t count = g->value_count;
    for (size_t i = 0; i < g->node_count; i++)
        for (int32_t b = 0; b < g->nodes[i]->body_count; b++)
            count += count_tensors(g->nodes[i]->bodies[b]);
    return count;
}

static void collect_tensors(hk_env *env, const hk_graph *g)
{
    for (size_t i = 0; i < g->value_count; i++)
        if (g->values[i]->data)
            env->base[env->base_count++] = g->values[i]->data;
    for (size_t i = 0; i < g->node_count; i++)
        for (int32_t b = 0; b < g->nodes[i]->body_count; b++)
            collect_tensors(env, g->nodes[i]->bodies[b]);
}

static int by_address(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t) * (const hk_tensor *const *)a, y = (uintptr_t) * (const hk_tensor *const *)b;
    return (x > y) - (x < y);
}

hk_status hk_env_create(hk_gpu *gpu, const hk_graph *base, hk_env **out)
{
    hk_context *ctx = hk_gpu_context(gpu);
    hk_arena *arena = hk_arena_create(ctx);
    hk_env *env = arena ? hk_arena_new(arena, hk_env) : NULL;
    if (env)
        env->base = hk_arena_array(arena, count_tensors(base) + 1, sizeof *env->base);
    if (!env || !env->base) {
        hk_arena_destroy(&arena);
        return hk_out_of_memory(ctx, "a session");
    }
    env->ctx = ctx;
    env->gpu = gpu;
    env->arena = arena;
    collect_tensors(env, base);
    qsort(env->base, env->base_count, sizeof *env->base, by_address);
    *out = env;
    return HK_OK;
}

void hk_env_destroy(hk_env **env)
{
    hk_env *e = *env;
    if (!e)
        return;
    *env = NULL;
    if (e->last_ticket && hk_gpu_wait(e->gpu, e->last_ticket) != HK_OK)
        hk_log(e->ctx, HK_LOG_WARN, "the device did not finish before its session ended: %s", hk_context_error(e->ctx));
    for (size_t i = 0; i < HK_MAX_BANKS; i++)
        hk_gpu_buffer_destroy(e->gpu, &e->activations[i]);
    hk_store_finish(e->gpu, &e->weights);
    hk_store_finish(e->gpu, &e->state_store);
    hk_arena *arena = e->arena;
    hk_arena_destroy(&arena);
}

void hk_store_finish(hk_gpu *gpu, hk_store *store)
{
    for (size_t i = 0; i < store->buffer_count; i++)
        hk_gpu_buffer_destroy(gpu, &store->buffers[i]);
    store->buffer_count = 0;
}

static hk_status add_buffer(hk_env *env, hk_arena *arena, hk_store *store, uint64_t bytes, const char *purpose,
                            hk_gpu_buffer **out)
{
    if (store->buffer_count == store->buffer_capacity &&
        !hk_arena_grow(arena, (void **)&store->buffers, store->buffer_count, &store->buffer_capacity,
                       sizeof *store->buffers))
        return hk_out_of_memory(env->ctx, purpose);
    HK_TRY(hk_gpu_buffer_create(env->gpu, HK_GPU_DEVICE, bytes, purpose, out));
    store->buffers[store->buffer_count++] = *out;
    store->bytes += bytes;
    return HK_OK;
}

/* ---- storages that get their memory here: packed into as few buffers as the device's largest allocation allows */

static uint64_t padded(uint64_t bytes)
{
    return (HK_MAX(bytes, (uint64_t)1) + HK_ALIGNMENT - 1) / HK_ALIGNMENT * HK_ALIGNMENT;
}

/* Fills stored[i].buffer and .offset for count entries whose .bytes are set. */
static hk_status allocate(hk_env *env, hk_arena *arena, hk_store *store, hk_stored **stored, size_t count,
                          const char *purpose)
{
    uint64_t limit = hk_gpu_info(env->gpu)->max_allocation_bytes;
    for (size_t i = 0; i < count;) {
        uint64_t bytes = padded(stored[i]->bytes);
        size_t end = i + 1;
        while (end < count && bytes + padded(stored[end]->bytes) <= limit)
            bytes += padded(stored[end++]->bytes);
        hk_gpu_buffer *buffer = NULL;
        HK_TRY(add_buffer(env, arena, store, bytes, purpose, &buffer));
        uint64_t offset = 0;
        for (; i < end; i++) {
            stored[i]->buffer = buffer;
            stored[i]->offset = offset;
            offset += padded(stored[i]->bytes);
        }
    }
    return HK_OK;
}

enum { PIECE_BYTES = 1 << 20 }; /* of what is made on the way to the device */

static hk_status upload_tensor(hk_env *env, const hk_stored *to, const hk_tensor *t)
{
    int64_t count = hk_tensor_count(t);
    uint64_t bytes = (uint64_t)count * hk_dtype_device_bytes(t->dtype);
    if (!bytes)
        return HK_OK;
    if (hk_dtype_device_bytes(t->dtype) == hk_dtype_bytes(t->dtype))
        return hk_gpu_upload(env->gpu, to->buffer, to->offset, t->data, bytes);
    int64_t piece = HK_MIN(count, (int64_t)PIECE_BYTES / (int64_t)hk_dtype_device_bytes(t->dtype));
    uint64_t piece_bytes = (uint64_t)piece * hk_dtype_device_bytes(t->dtype);
    void *wide = hk_alloc(env->ctx, (size_t)piece_bytes);
    hk_status st = wide ? HK_OK : hk_out_of_memory(env->ctx, "an upload");
    for (int64_t done = 0, k = 0; done < count && st == HK_OK; done += piece, k++) {
        const char *from = (const char *)t->data + (size_t)done * hk_dtype_bytes(t->dtype);
        int64_t now = HK_MIN(piece, count - done);
        hk_widen(t->dtype, from, wide, now);
        st = hk_gpu_upload(env->gpu, to->buffer, to->offset + (uint64_t)k * piece_bytes, wide,
                           (uint64_t)now * hk_dtype_device_bytes(t->dtype));
    }
    hk_free(env->ctx, wide);
    return st;
}

/* ---- weights */

static size_t weight_place(const hk_store *store, const hk_tensor *t)
{
    size_t low = 0, high = store->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if ((uintptr_t)store->weights[middle].tensor < (uintptr_t)t)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const hk_stored *hk_store_find(const hk_store *store, const hk_tensor *t)
{
    size_t at = weight_place(store, t);
    return at < store->count && store->weights[at].tensor == t ? &store->weights[at].stored : NULL;
}

/* Appends; hk_env_add_weights sorts when all are there. sorted: how many entries were there before. */
static hk_status add_weight(hk_env *env, hk_arena *arena, hk_store *store, size_t sorted, const hk_tensor *t,
                            uint64_t bytes)
{
    hk_store before = *store;
    before.count = sorted;
    if (hk_store_find(&before, t))
        return HK_OK;
    if (store->count == store->capacity &&
        !hk_arena_grow(arena, (void **)&store->weights, store->count, &store->capacity, sizeof *store->weights))
        return hk_out_of_memory(env->ctx, "weights");
    store->weights[store->count++] = (hk_weight){.tensor = t, .stored = {.bytes = bytes}};
    return HK_OK;
}

static int by_tensor(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t)((const hk_weight *)a)->tensor, y = (uintptr_t)((const hk_weight *)b)->tensor;
    return (x > y) - (x < y);
}

/* Several values may be one tensor: among equals, which are new, the first stays. */
static void sort_weights(hk_store *store)
{
    size_t kept = 0;
    if (store->count == 0)
        return;
    qsort(store->weights, store->count, sizeof *store->weights, by_tensor);
    for (size_t i = 0; i < store->count; i++)
        if (kept == 0 || store->weights[kept - 1].tensor != store->weights[i].tensor)
            store->weights[kept++] = store->weights[i];
    store->count = kept;
}

static hk_status upload_new(hk_env *env, hk_arena *arena, hk_store *store)
{
    hk_stored **fresh = hk_alloc_array(env->ctx, store->count + 1, sizeof(hk_stored *));
    if (!fresh)
        return hk_out_of_memory(env->ctx, "weights");
    size_t count = 0;
    for (size_t i = 0; i < store->count; i++)
        if (!store->weights[i].stored.buffer)
            fresh[count++] = &store->weights[i].stored;
    hk_status st = allocate(env, arena, store, fresh, count, "weights");
    for (size_t i = 0, k = 0; i < store->count && st == HK_OK && k < count; i++)
        if (&store->weights[i].stored == fresh[k]) {
            k++;
            st = upload_tensor(env, &store->weights[i].stored, store->weights[i].tensor);
        }
    hk_free(env->ctx, fresh);
    return st;
}

static hk_status collect_weights(hk_env *env, const hk_plan *p, hk_store *own)
{
    size_t shared_before = env->weights.count, own_before = own->count;
    for (size_t i = 0; i < p->storage_count; i++) {
        const hk_storage *s = &p->storages[i];
        const hk_tensor *t = s->root->data;
        if (s->region != HK_REGION_WEIGHTS || !t || !(s->used || s->pinned))
            continue;
        bool shared = env->base_count && bsearch(&t, env->base, env->base_count, sizeof *env->base, by_address);
        hk_status st = shared ? add_weight(env, env->arena, &env->weights, shared_before, t, s->used_bytes)
                              : add_weight(env, p->arena, own, own_before, t, s->used_bytes);
        if (st != HK_OK) { /* what is not sorted cannot be found */
            env->weights.count = shared_before;
            own->count = own_before;
            return st;
        }
    }
    sort_weights(&env->weights);
    sort_weights(own);
    return HK_OK;
}

static uint64_t bytes_to_come(const hk_store *store)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < store->count; i++)
        bytes += store->weights[i].stored.buffer ? 0 : padded(store->weights[i].stored.bytes);
    return bytes;
}

static void forget_new(hk_store *store)
{
    size_t kept = 0;
    for (size_t i = 0; i < store->count; i++)
        if (store->weights[i].stored.buffer)
            store->weights[kept++] = store->weights[i];
    store->count = kept;
}

/* Everything the plan will allocate on the device, before the first of it is. */
static hk_status check_room(hk_env *env, const hk_plan *p, uint64_t weights)
{
    uint64_t activations = 0, pinned = 0, room = hk_gpu_memory_room(env->gpu);
    for (uint32_t b = 0; b < p->activation_banks; b++) {
        uint64_t there = env->activations[b] ? hk_gpu_buffer_bytes(env->activations[b]) : 0;
        activations += p->activation_bytes[b] > there ? p->activation_bytes[b] - there : 0;
    }
    for (uint32_t b = 0; b < p->pinned_banks; b++)
        pinned += p->pinned_bytes[b];
    if (weights + activations + pinned <= room)
        return HK_OK;
    return hk_fail(
        env->ctx, HK_STATUS_OUT_OF_MEMORY,
        "the run needs %llu bytes of device memory (%llu for weights, %llu for intermediate values, %llu for "
        "inputs, outputs and what is computed once), there is room for %llu: use a smaller batch",
        (unsigned long long)(weights + activations + pinned), (unsigned long long)weights,
        (unsigned long long)activations, (unsigned long long)pinned, (unsigned long long)room);
}

hk_status hk_env_add_weights(hk_env *env, const hk_plan *p, hk_store *own)
{
    HK_TRY(collect_weights(env, p, own));
    hk_status st = check_room(env, p, bytes_to_come(&env->weights) + bytes_to_come(own));
    if (st != HK_OK) {
        forget_new(&env->weights);
        forget_new(own);
        return st;
    }
    uint64_t begin = hk_now_ns();
    HK_TRY(upload_new(env, env->arena, &env->weights));
    HK_TRY(upload_new(env, p->arena, own));
    hk_gpu_count_weights(env->gpu, begin);
    return HK_OK;
}

/* ---- states */

/* By name; of several that follow the inputs the one in use. */
static hk_named_state *find_state(const hk_env *env, const char *name)
{
    hk_named_state *found = NULL;
    for (size_t i = 0; i < env->state_count; i++) {
        hk_named_state *s = &env->states[i];
        if (!strcmp(s->name, name) && (!found || s->live))
            found = s;
    }
    return found;
}

/* That of a plan: of several the one of its shape, or one that is not made yet. */
static hk_named_state *find_declared(const hk_env *env, const hk_state *declared)
{
    for (size_t i = 0; i < env->state_count; i++) {
        hk_named_state *s = &env->states[i];
        bool fits = !declared->follows || !s->stored.buffer || hk_shape_equal(&s->shape, &declared->first->shape);
        if (fits && !strcmp(s->name, declared->name))
            return s;
    }
    return NULL;
}

const hk_stored *hk_env_state(const hk_env *env, const char *name)
{
    const hk_named_state *s = find_state(env, name);
    return s && s->stored.buffer ? &s->stored : NULL;
}

const hk_stored *hk_env_place(const hk_env *env, const hk_state *declared)
{
    const hk_named_state *s = find_declared(env, declared);
    return s && s->stored.buffer ? &s->stored : NULL;
}

const char *hk_env_state_name(const hk_env *env, size_t i, const hk_stored **stored)
{
    const hk_named_state *s = &env->states[i];
    *stored = &s->stored;
    return s->stored.buffer && (s->live || !s->follows) ? s->name : NULL;
}

static hk_status fill_state(hk_env *env, const hk_named_state *s)
{
    uint64_t piece = HK_MIN(s->stored.bytes, (uint64_t)PIECE_BYTES);
    void *filled = hk_alloc(env->ctx, (size_t)HK_MAX(piece, (uint64_t)1));
    hk_status st = filled ? HK_OK : hk_out_of_memory(env->ctx, "a state");
    if (st == HK_OK && s->fill != 0) { /* states with a fill are float32 */
        hk_tensor t = {.data = filled, .dtype = s->dtype, .rank = 1};
        t.shape[0] = (int64_t)(piece / hk_dtype_device_bytes(s->dtype));
        for (int64_t i = 0; i < t.shape[0]; i++)
            hk_set_double(&t, i, s->fill);
    }
    for (uint64_t done = 0; done < s->stored.bytes && st == HK_OK; done += piece)
        st = hk_gpu_upload(env->gpu, s->stored.buffer, s->stored.offset + done, filled,
                           HK_MIN(piece, s->stored.bytes - done));
    hk_free(env->ctx, filled);
    return st;
}

static hk_status reset_state(hk_env *env, const hk_named_state *s)
{
    return s->initial ? upload_tensor(env, &s->stored, s->initial) : fill_state(env, s);
}

static hk_named_state *new_state(hk_env *env, const char *name, uint64_t bytes)
{
    if (env->state_count == env->state_capacity &&
        !hk_arena_grow(env->arena, (void **)&env->states, env->state_count, &env->state_capacity, sizeof *env->states))
        return NULL;
    const char *copy = hk_arena_string(env->arena, name);
    if (!copy)
        return NULL;
    hk_named_state *s = &env->states[env->state_count++];
    *s = (hk_named_state){.name = copy, .stored = {.bytes = bytes}};
    return s;
}

static hk_status realise_state(hk_env *env, hk_named_state *s, const hk_state *declared)
{
    if (s->stored.bytes != hk_value_bytes(declared->first))
        return hk_fail(env->ctx, HK_STATUS_INVALID, "state '%s' was restored with %llu bytes, the model needs %llu",
                       s->name, (unsigned long long)s->stored.bytes,
                       (unsigned long long)hk_value_bytes(declared->first));
    s->shape = declared->first->shape;
    s->initial = declared->initial;
    s->fill = declared->fill;
    s->dtype = declared->first->dtype;
    s->follows = declared->follows;
    hk_stored *list[] = {&s->stored};
    HK_TRY(allocate(env, env->arena, &env->state_store, list, 1, "states"));
    if (!s->restored)
        return reset_state(env, s);
    s->live = true;
    HK_TRY(hk_gpu_upload(env->gpu, s->stored.buffer, s->stored.offset, s->restored, s->stored.bytes));
    s->restored = NULL;
    return HK_OK;
}

hk_status hk_env_add_states(hk_env *env, const hk_graph *g)
{
    for (size_t i = 0; i < g->state_count; i++) {
        const hk_state *declared = g->states[i];
        hk_named_state *s = find_declared(env, declared);
        hk_shape_text a, b;
        if (s && s->stored.buffer && !hk_shape_equal(&s->shape, &declared->first->shape))
            return hk_fail(env->ctx, HK_STATUS_INVALID,
                           "state '%s' has shape %s from earlier runs, this run needs %s: reset first", s->name,
                           hk_shape_print(&s->shape, &a), hk_shape_print(&declared->first->shape, &b));
        if (!s && !(s = new_state(env, declared->name, hk_value_bytes(declared->first))))
            return hk_out_of_memory(env->ctx, "states");
        if (!s->stored.buffer)
            HK_TRY(realise_state(env, s, declared));
    }
    return HK_OK;
}

hk_status hk_env_use_states(hk_env *env, const hk_graph *g)
{
    for (size_t i = 0; i < g->state_count; i++) {
        const hk_state *declared = g->states[i];
        hk_named_state *mine = declared->follows ? find_declared(env, declared) : NULL;
        hk_shape_text a, b;
        for (size_t k = 0; mine && k < env->state_count; k++) {
            const hk_named_state *s = &env->states[k];
            if (s != mine && s->live && !strcmp(s->name, mine->name))
                return hk_fail(env->ctx, HK_STATUS_USAGE,
                               "membrane potentials '%s' have shape %s from earlier runs, this run needs %s: call "
                               "hk_session_reset, or hk_trainer_reset, before inputs of another shape or other samples",
                               s->name, hk_shape_print(&s->shape, &a), hk_shape_print(&declared->first->shape, &b));
        }
        if (mine)
            mine->live = true;
    }
    return HK_OK;
}

hk_status hk_env_restore_state(hk_env *env, const char *name, const void *data, uint64_t bytes)
{
    hk_named_state *s = find_state(env, name);
    if (s && s->stored.buffer)
        return hk_env_write_state(env, name, 0, data, bytes);
    if (!s && !(s = new_state(env, name, bytes)))
        return hk_out_of_memory(env->ctx, "states");
    void *copy = hk_arena_alloc(env->arena, (size_t)HK_MAX(bytes, (uint64_t)1));
    if (!copy)
        return hk_out_of_memory(env->ctx, "states");
    memcpy(copy, data, (size_t)bytes);
    s->restored = copy;
    s->stored.bytes = bytes;
    return HK_OK;
}

hk_status hk_env_reset_states(hk_env *env)
{
    if (env->last_ticket)
        HK_TRY(hk_gpu_wait(env->gpu, env->last_ticket));
    hk_store_finish(env->gpu, &env->state_store);
    env->state_count = 0;
    return HK_OK;
}

hk_status hk_env_restart_states(hk_env *env)
{
    if (env->last_ticket)
        HK_TRY(hk_gpu_wait(env->gpu, env->last_ticket));
    for (size_t i = 0; i < env->state_count; i++) {
        hk_named_state *s = &env->states[i];
        if (!s->live || !s->follows)
            continue;
        HK_TRY(reset_state(env, s));
        s->live = false;
    }
    return HK_OK;
}

static hk_status state_range(const hk_env *env, const char *name, uint64_t offset, uint64_t bytes,
                             const hk_stored **out)
{
    const hk_stored *s = hk_env_state(env, name);
    if (!s)
        return hk_fail(env->ctx, HK_STATUS_USAGE, "there is no state '%s'", name);
    if (offset > s->bytes || bytes > s->bytes - offset)
        return hk_fail(env->ctx, HK_STATUS_USAGE, "state '%s' has %llu bytes, %llu at %llu were asked for", name,
                       (unsigned long long)s->bytes, (unsigned long long)bytes, (unsigned long long)offset);
    *out = s;
    return HK_OK;
}

hk_status hk_env_read_state(hk_env *env, const char *name, uint64_t offset_bytes, void *data, uint64_t bytes)
{
    const hk_stored *s = NULL;
    HK_TRY(state_range(env, name, offset_bytes, bytes, &s));
    return bytes ? hk_gpu_download(env->gpu, s->buffer, s->offset + offset_bytes, data, bytes) : HK_OK;
}

hk_status hk_env_write_state(hk_env *env, const char *name, uint64_t offset_bytes, const void *data, uint64_t bytes)
{
    const hk_stored *s = NULL;
    HK_TRY(state_range(env, name, offset_bytes, bytes, &s));
    return bytes ? hk_gpu_upload(env->gpu, s->buffer, s->offset + offset_bytes, data, bytes) : HK_OK;
}

/* ---- the activation arena grows to the largest plan's need; who recorded the old one records again */

hk_status hk_env_reserve(hk_env *env, const hk_plan *p)
{
    for (uint32_t b = 0; b < p->activation_banks; b++) {
        hk_gpu_buffer **bank = &env->activations[b];
        if (*bank && hk_gpu_buffer_bytes(*bank) >= p->activation_bytes[b])
            continue;
        if (env->last_ticket)
            HK_TRY(hk_gpu_wait(env->gpu, env->last_ticket));
        hk_gpu_buffer_destroy(env->gpu, bank);
        env->generation++;
        HK_TRY(hk_gpu_buffer_create(env->gpu, HK_GPU_DEVICE, p->activation_bytes[b], "activations", bank));
    }
    return HK_OK;
}
