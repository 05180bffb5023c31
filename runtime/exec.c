/* One plan, recorded and replayed. */
#include "runtime/exec.h"

#include <string.h>

#include "runtime/env.h"

typedef struct slot {
    hk_gpu_commands *prologue, *epilogue;
    bool plain;      /* the prologue copies every input from the upload slot */
    uint64_t ticket; /* of the run that used it last, 0: none */
} slot;

struct hk_exec {
    hk_env *env;
    hk_graph *graph; /* owned: the plan and this struct lie in its arena */
    hk_plan *plan;
    hk_store own; /* constants that this plan folded */
    hk_gpu_buffer *pinned[HK_MAX_BANKS];
    hk_gpu_buffer **isolated; /* HILLOCK_DEBUG=isolate: one buffer a storage */
    hk_gpu_buffer *blocks;    /* parameter blocks of all records */
    uint64_t *block_offset;   /* by record */
    hk_gpu_buffer *step;
    hk_gpu_buffer *upload, *readback;       /* HK_SLOTS slots each */
    uint64_t upload_bytes, readback_bytes;  /* of one slot */
    uint64_t *input_offset, *output_offset; /* within a slot */
    hk_gpu_pipeline **pipelines;            /* by record */
    hk_gpu_commands *body;
    uint32_t generation; /* of the activation arena the body was recorded with */
    slot slots[HK_SLOTS];
    uint64_t runs;
    hk_gpu_buffer *canaries;
    size_t canary_count;
    uint64_t random; /* of HILLOCK_DEBUG=shuffle */
};

const hk_plan *hk_exec_plan(const hk_exec *e)
{
    return e->plan;
}

static hk_context *context(const hk_exec *e)
{
    return e->env->ctx;
}

static uint64_t aligned(uint64_t bytes)
{
    return (bytes + HK_ALIGNMENT - 1) / HK_ALIGNMENT * HK_ALIGNMENT;
}

/* ---- where values lie */

static hk_status place_of(const hk_exec *e, const hk_value *v, hk_gpu_buffer **buffer, uint64_t *offset)
{
    const hk_slot *at = &e->plan->slots[v->id];
    const hk_storage *s = &e->plan->storages[at->storage];
    const hk_stored *stored = NULL;
    *buffer = NULL;
    *offset = at->offset;
    switch (s->region) {
    case HK_REGION_ACTIVATIONS:
    case HK_REGION_PINNED:
        if (e->isolated && e->isolated[at->storage]) {
            *buffer = e->isolated[at->storage];
            return HK_OK;
        }
        *buffer = s->region == HK_REGION_PINNED ? e->pinned[s->bank] : e->env->activations[s->bank];
        *offset += s->offset;
        break;
    case HK_REGION_WEIGHTS:
        stored = hk_store_find(&e->env->weights, s->root->data);
        if (!stored)
            stored = hk_store_find(&e->own, s->root->data);
        break;
    case HK_REGION_STATES: stored = s->root->state ? hk_env_place(e->env, s->root->state) : NULL; break;
    case HK_REGION_STEP: *buffer = e->step; break;
    }
    if (stored) {
        *buffer = stored->buffer;
        *offset += stored->offset;
    }
    return *buffer ? HK_OK : hk_fail(context(e), HK_STATUS_INTERNAL, "value '%s' has no memory", v->name);
}

static hk_status make_isolated(hk_exec *e)
{
    const hk_plan *p = e->plan;
    e->isolated = hk_arena_array(p->arena, p->storage_count + 1, sizeof *e->isolated);
    if (!e->isolated)
        return hk_out_of_memory(context(e), "isolated buffers");
    for (size_t i = 0; i < p->storage_count; i++) {
        const hk_storage *s = &p->storages[i];
        if (s->used && (s->region == HK_REGION_ACTIVATIONS || s->region == HK_REGION_PINNED))
            HK_TRY(hk_gpu_buffer_create(e->env->gpu, HK_GPU_DEVICE,
                                        HK_MAX((s->used_bytes + 15) & ~(uint64_t)15, (uint64_t)16), "an isolated value",
                                        &e->isolated[i]));
    }
    return HK_OK;
}

static hk_status make_memory(hk_exec *e)
{
    const hk_plan *p = e->plan;
    hk_gpu *gpu = e->env->gpu;
    HK_TRY(hk_env_add_weights(e->env, p, &e->own));
    HK_TRY(hk_env_add_states(e->env, p->graph));
    HK_TRY(hk_gpu_buffer_create(gpu, HK_GPU_DEVICE, sizeof(hk_step), "the step block", &e->step));
    if (hk_gpu_debug(gpu) & HK_DEBUG_ISOLATE)
        return make_isolated(e);
    HK_TRY(hk_env_reserve(e->env, p));
    for (uint32_t b = 0; b < p->pinned_banks; b++)
        HK_TRY(hk_gpu_buffer_create(gpu, HK_GPU_DEVICE, p->pinned_bytes[b], "inputs and outputs", &e->pinned[b]));
    return HK_OK;
}

static hk_status make_slots(hk_exec *e)
{
    const hk_graph *g = e->graph;
    e->input_offset = hk_arena_array(e->plan->arena, g->input_count + 1, sizeof *e->input_offset);
    e->output_offset = hk_arena_array(e->plan->arena, g->output_count + 1, sizeof *e->output_offset);
    if (!e->input_offset || !e->output_offset)
        return hk_out_of_memory(context(e), "input and output slots");
    e->upload_bytes = aligned(sizeof(hk_step));
    for (size_t i = g->device_inputs; i < g->input_count; i++) {
        e->input_offset[i] = e->upload_bytes;
        e->upload_bytes += aligned(hk_value_bytes(g->inputs[i]));
    }
    for (size_t i = 0; i + g->device_outputs < g->output_count; i++) {
        e->output_offset[i] = e->readback_bytes;
        e->readback_bytes += aligned(hk_value_bytes(g->outputs[i]));
    }
    HK_TRY(hk_gpu_buffer_create(e->env->gpu, HK_GPU_UPLOAD, e->upload_bytes * HK_SLOTS, "input slots", &e->upload));
    return hk_gpu_buffer_create(e->env->gpu, HK_GPU_READBACK,
                                HK_MAX(e->readback_bytes, (uint64_t)HK_ALIGNMENT) * HK_SLOTS, "output slots",
                                &e->readback);
}

static hk_status make_blocks(hk_exec *e)
{
    const hk_plan *p = e->plan;
    e->block_offset = hk_arena_array(p->arena, p->record_count + 1, sizeof *e->block_offset);
    if (!e->block_offset)
        return hk_out_of_memory(context(e), "parameter blocks");
    uint64_t bytes = 0;
    for (size_t i = 0; i < p->record_count; i++) {
        e->block_offset[i] = bytes;
        bytes += aligned(p->records[i]->block_bytes);
    }
    if (!bytes)
        return HK_OK;
    char *all = hk_alloc(context(e), bytes);
    if (!all)
        return hk_out_of_memory(context(e), "parameter blocks");
    for (size_t i = 0; i < p->record_count; i++)
        if (p->records[i]->block_bytes)
            memcpy(all + e->block_offset[i], p->records[i]->block, p->records[i]->block_bytes);
    hk_status st = hk_gpu_buffer_create(e->env->gpu, HK_GPU_DEVICE, bytes, "parameter blocks", &e->blocks);
    if (st == HK_OK)
        st = hk_gpu_upload(e->env->gpu, e->blocks, 0, all, bytes);
    hk_free(context(e), all);
    return st;
}

hk_gpu_pipeline_key hk_pipeline_key(const hk_record *r)
{
    hk_gpu_pipeline_key key = {.kernel = r->kernel,
                               .spec_count = r->spec_count,
                               .subgroup_size = r->subgroup_size,
                               .keep_loops = r->gpu_tuned};
    memcpy(key.spec, r->spec, r->spec_count * sizeof *r->spec);
    return key;
}

static hk_status make_pipelines(hk_exec *e)
{
    const hk_plan *p = e->plan;
    hk_gpu_pipeline_key *keys = hk_alloc_array(context(e), p->record_count + 1, sizeof *keys);
    hk_gpu_pipeline **made = hk_alloc_array(context(e), p->record_count + 1, sizeof(hk_gpu_pipeline *));
    e->pipelines = hk_arena_array(p->arena, p->record_count + 1, sizeof *e->pipelines);
    hk_status st = keys && made && e->pipelines ? HK_OK : hk_out_of_memory(context(e), "pipelines");
    size_t count = 0;
    for (size_t i = 0; i < p->record_count && st == HK_OK; i++) {
        const hk_record *r = p->records[i];
        if (r->kind != HK_RECORD_DISPATCH)
            continue;
        keys[count++] = hk_pipeline_key(r);
    }
    if (st == HK_OK)
        st = hk_gpu_pipelines(e->env->gpu, keys, count, made);
    count = 0;
    for (size_t i = 0; i < p->record_count && st == HK_OK; i++)
        if (p->records[i]->kind == HK_RECORD_DISPATCH)
            e->pipelines[i] = made[count++];
    hk_free(context(e), keys);
    hk_free(context(e), made);
    return st;
}

/* ---- recording */

static void put_address(unsigned char *push, uint32_t offset, uint64_t address)
{
    if (offset + sizeof address <= HK_PUSH_MAX)
        memcpy(push + offset, &address, sizeof address);
}

static hk_status record_one(hk_exec *e, hk_gpu_commands *c, size_t i)
{
    const hk_record *r = e->plan->records[i];
    hk_gpu_buffer *buffer[HK_OPERAND_MAX];
    uint64_t offset[HK_OPERAND_MAX];
    unsigned char push[HK_PUSH_MAX];
    memcpy(push, r->push, sizeof push);
    for (uint32_t k = 0; k < r->operand_count; k++) {
        HK_TRY(place_of(e, r->operand[k].value, &buffer[k], &offset[k]));
        offset[k] += r->operand[k].offset;
        if (e->env->fault == HK_FAULT_STORE_BEHIND && r->operand[k].access & HK_WRITE &&
            hk_storage_of(e->plan, r->operand[k].value)->region == HK_REGION_ACTIVATIONS)
            offset[k] += 16; /* the planted off-by-one: every kernel writes one vector behind its value */
        if (r->kind == HK_RECORD_DISPATCH)
            put_address(push, r->operand[k].push_offset, hk_gpu_buffer_address(buffer[k]) + offset[k]);
    }
    if (r->block_bytes)
        put_address(push, r->block_offset, hk_gpu_buffer_address(e->blocks) + e->block_offset[i]);
    switch (r->kind) {
    case HK_RECORD_DISPATCH: hk_gpu_dispatch(c, e->pipelines[i], r->grid, push, r->push_bytes); break;
    case HK_RECORD_COPY: hk_gpu_copy(c, buffer[0], offset[0], buffer[1], offset[1], r->operand[0].bytes); break;
    case HK_RECORD_FILL: hk_gpu_fill(c, buffer[0], offset[0], r->operand[0].bytes, r->fill_word); break;
    }
    return HK_OK;
}

static uint64_t next_random(hk_exec *e) /* xorshift64*: any order will do, but the same one in every session */
{
    e->random ^= e->random >> 12;
    e->random ^= e->random << 25;
    e->random ^= e->random >> 27;
    return e->random * 0x2545f4914f6cdd1dull;
}

/* The order within each barrier group is free; HILLOCK_DEBUG=shuffle proves it. */
static hk_status record_order(hk_exec *e, size_t **out)
{
    const hk_plan *p = e->plan;
    size_t *order = hk_arena_array(p->arena, p->record_count + 1, sizeof *order);
    if (!order)
        return hk_out_of_memory(context(e), "a recording");
    for (size_t i = 0; i < p->record_count; i++)
        order[i] = i;
    if (p->debug & HK_DEBUG_SHUFFLE)
        for (size_t from = 0, to; from < p->record_count; from = to) {
            for (to = from; to < p->record_count && p->groups[to] == p->groups[from]; to++) {
            }
            for (size_t n = to - from; n > 1; n--) {
                size_t k = from + (size_t)(next_random(e) % n), swap = order[from + n - 1];
                order[from + n - 1] = order[k];
                order[k] = swap;
            }
        }
    *out = order;
    return HK_OK;
}

static hk_status record_range(hk_exec *e, hk_gpu_commands *c, size_t from, size_t to, hk_profile profile)
{
    bool each = profile == HK_PROFILE_DISPATCHES;
    size_t *order = NULL;
    HK_TRY(record_order(e, &order));
    HK_TRY(hk_gpu_begin(c));
    hk_gpu_barrier(c);
    for (size_t i = from; i < to; i++) {
        if (i > from && (each || e->plan->groups[i] != e->plan->groups[i - 1]))
            hk_gpu_barrier(c);
        if (each || (profile && i == from))
            hk_gpu_timestamp(c, (uint32_t)(i - from));
        HK_TRY(record_one(e, c, order[i]));
    }
    if (profile && to > from) {
        hk_gpu_barrier(c);
        hk_gpu_timestamp(c, each ? (uint32_t)(to - from) : 1);
    }
    return hk_gpu_end(c);
}

/* Timestamps that the body takes: one before each record and one at the end, or only the first and the last. */
static uint32_t timestamp_count(const hk_exec *e)
{
    size_t records = e->plan->record_count - e->plan->once_count;
    if (!e->env->profile || !records || !hk_gpu_has(e->env->gpu, HK_CAP_TIMESTAMPS))
        return 0;
    return e->env->profile == HK_PROFILE_DISPATCHES ? (uint32_t)records + 1 : 2;
}

static hk_status record_body(hk_exec *e)
{
    const hk_plan *p = e->plan;
    uint32_t count = timestamp_count(e);
    if (!e->body)
        HK_TRY(hk_gpu_commands_create(e->env->gpu, count, &e->body));
    e->generation = e->env->generation;
    return record_range(e, e->body, p->once_count, p->record_count, count ? e->env->profile : HK_PROFILE_OFF);
}

/* ---- prologue and epilogue */

static void poison(hk_exec *e, hk_gpu_commands *c)
{
    for (uint32_t b = 0; b < e->plan->activation_banks && e->env->activations[b]; b++)
        hk_gpu_fill(c, e->env->activations[b], 0, hk_gpu_buffer_bytes(e->env->activations[b]) & ~(uint64_t)3,
                    UINT32_MAX);
    hk_gpu_barrier(c);
}

static hk_status record_prologue(hk_exec *e, size_t index, const hk_feed *feeds)
{
    slot *s = &e->slots[index];
    hk_gpu_commands *c = s->prologue;
    HK_TRY(hk_gpu_begin(c));
    hk_gpu_barrier(c);
    if (e->plan->debug & HK_DEBUG_POISON)
        poison(e, c);
    hk_gpu_copy(c, e->upload, index * e->upload_bytes, e->step, 0, sizeof(hk_step));
    s->plain = true;
    for (size_t i = 0; i < e->graph->input_count; i++) {
        hk_gpu_buffer *to = NULL;
        uint64_t offset = 0, bytes = hk_value_bytes(e->graph->inputs[i]);
        if (!bytes || (e->isolated && !hk_storage_of(e->plan, e->graph->inputs[i])->used))
            continue;
        HK_TRY(place_of(e, e->graph->inputs[i], &to, &offset));
        bool host = i >= e->graph->device_inputs && (!feeds || feeds[i].host);
        s->plain &= host;
        if (!host && !feeds)
            continue; /* known at the first submit */
        if (host)
            hk_gpu_copy(c, e->upload, index * e->upload_bytes + e->input_offset[i], to, offset, bytes);
        else
            hk_gpu_copy(c, feeds[i].buffer, feeds[i].offset, to, offset, bytes);
    }
    return hk_gpu_end(c);
}

static hk_status record_epilogue(hk_exec *e, size_t index)
{
    hk_gpu_commands *c = e->slots[index].epilogue;
    HK_TRY(hk_gpu_begin(c));
    hk_gpu_barrier(c);
    for (size_t i = 0; i + e->graph->device_outputs < e->graph->output_count; i++) {
        hk_gpu_buffer *from = NULL;
        uint64_t offset = 0, bytes = hk_value_bytes(e->graph->outputs[i]);
        if (!bytes)
            continue;
        HK_TRY(place_of(e, e->graph->outputs[i], &from, &offset));
        hk_gpu_copy(c, from, offset, e->readback, index * e->readback_bytes + e->output_offset[i], bytes);
    }
    size_t n = 0;
    for (size_t i = 0; i < e->plan->storage_count && e->canaries; i++) {
        const hk_storage *s = &e->plan->storages[i];
        if (s->region != HK_REGION_ACTIVATIONS || !s->used)
            continue;
        hk_gpu_copy(c, e->env->activations[s->bank], s->offset + s->bytes - HK_CANARY_BYTES, e->canaries,
                    n++ * HK_CANARY_BYTES, HK_CANARY_BYTES);
    }
    hk_gpu_barrier_host(c);
    return hk_gpu_end(c);
}

static hk_status make_canaries(hk_exec *e)
{
    if (!(e->plan->debug & HK_DEBUG_POISON) || e->isolated)
        return HK_OK;
    for (size_t i = 0; i < e->plan->storage_count; i++)
        e->canary_count += e->plan->storages[i].region == HK_REGION_ACTIVATIONS && e->plan->storages[i].used;
    if (!e->canary_count)
        return HK_OK;
    return hk_gpu_buffer_create(e->env->gpu, HK_GPU_READBACK, e->canary_count * HK_CANARY_BYTES, "canaries",
                                &e->canaries);
}

static hk_status check_canaries(const hk_exec *e)
{
    const uint32_t *words = e->canaries ? hk_gpu_buffer_mapped(e->canaries) : NULL;
    size_t n = 0;
    for (size_t i = 0; i < e->plan->storage_count && words; i++) {
        const hk_storage *s = &e->plan->storages[i];
        if (s->region != HK_REGION_ACTIVATIONS || !s->used)
            continue;
        for (size_t k = 0; k < HK_CANARY_BYTES / 4; k++)
            if (words[n * HK_CANARY_BYTES / 4 + k] != UINT32_MAX)
                return hk_fail(context(e), HK_STATUS_INTERNAL,
                               "poison: a kernel wrote %zu bytes behind value '%s' (%llu bytes)", k * 4, s->root->name,
                               (unsigned long long)s->used_bytes);
        n++;
    }
    return HK_OK;
}

/* ---- life */

static hk_status run_once(hk_exec *e)
{
    if (!e->plan->once_count)
        return HK_OK;
    hk_gpu_commands *c = NULL;
    uint64_t ticket = 0;
    HK_TRY(hk_gpu_commands_create(e->env->gpu, 0, &c));
    hk_status st = record_range(e, c, 0, e->plan->once_count, HK_PROFILE_OFF);
    if (st == HK_OK)
        st = hk_gpu_submit(e->env->gpu, &c, 1, &ticket);
    if (st == HK_OK)
        st = hk_gpu_wait(e->env->gpu, ticket);
    hk_gpu_commands_destroy(e->env->gpu, &c);
    return st;
}

static hk_status prepare(hk_exec *e)
{
    HK_TRY(make_memory(e));
    HK_TRY(make_slots(e));
    HK_TRY(make_blocks(e));
    HK_TRY(make_pipelines(e));
    HK_TRY(make_canaries(e));
    uint64_t begin = hk_now_ns();
    HK_TRY(run_once(e));
    hk_gpu_count_weights(e->env->gpu, begin);
    HK_TRY(record_body(e));
    for (size_t i = 0; i < HK_SLOTS; i++) {
        HK_TRY(hk_gpu_commands_create(e->env->gpu, 0, &e->slots[i].prologue));
        HK_TRY(hk_gpu_commands_create(e->env->gpu, 0, &e->slots[i].epilogue));
        HK_TRY(record_prologue(e, i, NULL));
        HK_TRY(record_epilogue(e, i));
    }
    return HK_OK;
}

hk_status hk_exec_create(hk_env *env, hk_graph *g, hk_exec **out)
{
    hk_coopmat_shape shape = {0}, bytes = {0};
    if (!hk_gpu_coopmat_shape(env->gpu, &shape))
        shape = (hk_coopmat_shape){0};
    if (!hk_gpu_int8_shape(env->gpu, &bytes))
        bytes = (hk_coopmat_shape){0};
    const hk_device_info *device = hk_gpu_info(env->gpu);
    hk_plan_options options = {.device = device,
                               .coopmat = {shape.m, shape.n, shape.k},
                               .int8 = {bytes.m, bytes.n, bytes.k},
                               .matrix_types = hk_gpu_matrix_types(env->gpu),
                               .precision = env->precision,
                               .tuning = env->tuning,
                               .debug = hk_gpu_debug(env->gpu),
                               .bank_bytes = device->max_allocation_bytes / HK_ALIGNMENT * HK_ALIGNMENT,
                               .fault = env->fault};
    hk_exec *e = hk_arena_new(g->arena, hk_exec);
    if (!e) {
        hk_graph_destroy(&g);
        return hk_out_of_memory(env->ctx, "a plan");
    }
    *e = (hk_exec){.env = env, .graph = g, .random = 0x9e3779b97f4a7c15ull};
    hk_status st = hk_plan_create(g, &options, &e->plan);
    if (st == HK_OK)
        st = prepare(e);
    if (st == HK_OK)
        *out = e;
    else
        hk_exec_destroy(&e);
    return st;
}

void hk_exec_destroy(hk_exec **exec)
{
    hk_exec *e = *exec;
    if (!e)
        return;
    *exec = NULL;
    hk_gpu *gpu = e->env->gpu;
    for (size_t i = 0; i < HK_SLOTS; i++)
        if (e->slots[i].ticket && hk_gpu_wait(gpu, e->slots[i].ticket) != HK_OK)
            hk_log(context(e), HK_LOG_WARN, "the device did not finish: %s", hk_context_error(context(e)));
    for (size_t i = 0; i < HK_SLOTS; i++) {
        hk_gpu_commands_destroy(gpu, &e->slots[i].prologue);
        hk_gpu_commands_destroy(gpu, &e->slots[i].epilogue);
    }
    hk_gpu_commands_destroy(gpu, &e->body);
    for (size_t i = 0; i < HK_MAX_BANKS; i++)
        hk_gpu_buffer_destroy(gpu, &e->pinned[i]);
    for (size_t i = 0; e->isolated && i < e->plan->storage_count; i++)
        hk_gpu_buffer_destroy(gpu, &e->isolated[i]);
    hk_gpu_buffer **buffers[] = {&e->blocks, &e->step, &e->upload, &e->readback, &e->canaries};
    for (size_t i = 0; i < HK_COUNT(buffers); i++)
        hk_gpu_buffer_destroy(gpu, buffers[i]);
    hk_store_finish(gpu, &e->own);
    hk_graph *g = e->graph;
    hk_graph_destroy(&g);
}

/* ---- running */

static void write_slot(hk_exec *e, size_t index, const hk_feed *feeds, const hk_step *step)
{
    char *mapped = (char *)hk_gpu_buffer_mapped(e->upload) + index * e->upload_bytes;
    memcpy(mapped, step, sizeof *step);
    for (size_t i = 0; i < e->graph->input_count; i++)
        if (feeds[i].host && feeds[i].host->data)
            hk_widen(feeds[i].host->dtype, feeds[i].host->data, mapped + e->input_offset[i],
                     hk_tensor_count(feeds[i].host));
}

static bool all_host(const hk_exec *e, const hk_feed *feeds)
{
    for (size_t i = 0; i < e->graph->input_count; i++)
        if (!feeds[i].host)
            return false;
    return true;
}

/* The body writes the activation arena the recording names. After a larger plan has made the arena grow, record again.
 */
static hk_status refresh(hk_exec *e)
{
    if (e->generation == e->env->generation)
        return HK_OK;
    for (size_t i = 0; i < HK_SLOTS; i++)
        if (e->slots[i].ticket)
            HK_TRY(hk_gpu_wait(e->env->gpu, e->slots[i].ticket));
    HK_TRY(record_body(e));
    for (size_t i = 0; i < HK_SLOTS; i++) {
        HK_TRY(record_prologue(e, i, NULL));
        HK_TRY(record_epilogue(e, i));
    }
    return HK_OK;
}

hk_status hk_exec_submit(hk_exec *e, const hk_feed *feeds, const hk_step *step, uint64_t *ticket)
{
    size_t index = e->runs % HK_SLOTS;
    slot *s = &e->slots[index];
    HK_TRY(hk_env_use_states(e->env, e->plan->graph));
    HK_TRY(refresh(e));
    if (s->ticket)
        HK_TRY(hk_gpu_wait(e->env->gpu, s->ticket));
    write_slot(e, index, feeds, step);
    if (!s->plain || !all_host(e, feeds))
        HK_TRY(record_prologue(e, index, feeds));
    hk_gpu_commands *list[] = {s->prologue, e->body, s->epilogue};
    HK_TRY(hk_gpu_submit(e->env->gpu, list, HK_COUNT(list), &s->ticket));
    e->env->last_ticket = s->ticket;
    e->runs++;
    *ticket = s->ticket;
    return HK_OK;
}

bool hk_exec_holds(const hk_exec *e, uint64_t ticket)
{
    for (size_t k = 0; k < HK_SLOTS; k++)
        if (e->slots[k].ticket == ticket)
            return true;
    return false;
}

hk_status hk_exec_wait(hk_exec *e, uint64_t ticket)
{
    HK_TRY(hk_gpu_wait(e->env->gpu, ticket));
    return e->canaries ? check_canaries(e) : HK_OK;
}

hk_status hk_exec_read(hk_exec *e, uint64_t ticket, size_t i, void *data)
{
    for (size_t k = 0; k < HK_SLOTS; k++) {
        if (e->slots[k].ticket != ticket)
            continue;
        const hk_value *v = e->graph->outputs[i];
        const char *mapped = (const char *)hk_gpu_buffer_mapped(e->readback) + k * e->readback_bytes;
        hk_narrow(v->dtype, mapped + e->output_offset[i], data, hk_shape_count(&v->shape));
        return HK_OK;
    }
    return hk_fail(context(e), HK_STATUS_USAGE,
                   "the outputs of run %llu are gone: read them before the second next run",
                   (unsigned long long)ticket);
}

hk_feed hk_exec_output(const hk_exec *e, size_t i)
{
    hk_gpu_buffer *buffer = NULL;
    uint64_t offset = 0;
    if (place_of(e, e->graph->outputs[i], &buffer, &offset) != HK_OK)
        return (hk_feed){0};
    return (hk_feed){.buffer = buffer, .offset = offset};
}

bool hk_exec_output_is_input(const hk_exec *e, size_t i)
{
    const hk_storage *s = hk_storage_of(e->plan, e->graph->outputs[i]);
    for (size_t k = 0; k < e->graph->input_count; k++)
        if (hk_storage_of(e->plan, e->graph->inputs[k]) == s)
            return true;
    return false;
}

hk_status hk_exec_profile(hk_exec *e, uint64_t *body_ns, uint64_t *ns)
{
    uint32_t count = timestamp_count(e);
    *body_ns = 0;
    memset(ns, 0, e->plan->record_count * sizeof *ns);
    if (!count || !e->runs)
        return HK_OK;
    uint64_t *times = hk_alloc_array(context(e), count, sizeof *times);
    if (!times)
        return hk_out_of_memory(context(e), "timestamps");
    hk_status st = hk_gpu_timestamps(e->body, count, times);
    if (st == HK_OK)
        *body_ns = times[count - 1] - times[0];
    for (size_t i = 0; i + 1 < count && st == HK_OK && e->env->profile == HK_PROFILE_DISPATCHES; i++)
        ns[e->plan->once_count + i] = times[i + 1] - times[i];
    hk_free(context(e), times);
    return st;
}
