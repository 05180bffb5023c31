/* Values into buffers, nodes into records, records into one recording, outputs against the host. */
#include "tests/support/records.h"

#include <math.h>
#include <string.h>
#include <time.h>

#include "ops/step.h"
#include "runtime/exec.h"

typedef struct state {
    hk_context *ctx;
    hk_gpu *gpu;
    hk_graph *g;
    hk_records_run *run;
    hk_device_info info;
    hk_record **records;
    size_t count, capacity;
    const hk_tensor **host;  /* by value id: what the host has */
    hk_gpu_buffer **buffers; /* by value id */
    hk_gpu_buffer **blocks;  /* by record */
    hk_gpu_pipeline **pipelines;
    uint64_t random;
} state;

static double next_random(state *s) /* xorshift64*, uniform in -1 .. 1 */
{
    s->random ^= s->random >> 12;
    s->random ^= s->random << 25;
    s->random ^= s->random >> 27;
    return (double)(int64_t)(s->random * 0x2545f4914f6cdd1dull) * 0x1p-63;
}

static bool is_source(const hk_value *v)
{
    return v->kind != HK_VALUE_ACTIVATION;
}

static hk_status make_sources(state *s)
{
    hk_graph *g = s->g;
    s->host = hk_arena_array(g->arena, g->value_count + 1, sizeof *s->host);
    if (!s->host)
        return hk_out_of_memory(s->ctx, "a test");
    for (size_t i = 0; i < g->value_count; i++) {
        const hk_value *v = g->values[i];
        if (!is_source(v) || (s->run->feeds && v->kind == HK_VALUE_INPUT))
            continue;
        hk_tensor *t = hk_tensor_new(g->arena, v->dtype, &v->shape);
        if (!t)
            return hk_out_of_memory(s->ctx, "a test");
        for (int64_t k = 0; k < hk_tensor_count(t); k++)
            hk_set_double(t, k, next_random(s));
        s->host[i] = v->data ? v->data : t;
    }
    for (size_t i = 0; s->run->feeds && i < g->input_count; i++)
        s->host[g->inputs[i]->id] = s->run->feeds[i];
    return HK_OK;
}

static hk_status evaluate(state *s)
{
    static const hk_step step = {0};
    for (size_t i = 0; i < s->g->node_count; i++) {
        const hk_node *n = s->g->nodes[i];
        const hk_tensor *in[16] = {NULL};
        hk_tensor *out[16] = {NULL};
        for (int32_t k = 0; k < n->in_count; k++)
            in[k] = n->in[k] ? s->host[n->in[k]->id] : NULL;
        HK_TRY(hk_node_eval(s->ctx, s->g->arena, n, in, out, &step));
        for (int32_t k = 0; k < n->out_count; k++)
            if (n->out[k])
                s->host[n->out[k]->id] = out[k];
    }
    return HK_OK;
}

static hk_status lower_all(state *s)
{
    hk_coopmat_shape shape = {0, 0, 0};
    bool emulated = !hk_gpu_coopmat_shape(s->gpu, &shape) && s->run->precision > HK_PRECISION_STRICT;
    if (emulated)
        shape = (hk_coopmat_shape){16, 16, 16};
    s->info = *hk_gpu_info(s->gpu);
    if (s->run->max_invocations)
        s->info.max_invocations = HK_MIN(s->info.max_invocations, s->run->max_invocations);
    if (s->run->max_shared_bytes)
        s->info.max_shared_bytes = HK_MIN(s->info.max_shared_bytes, s->run->max_shared_bytes);
    bool cpu = s->info.type == HK_DEVICE_SOFTWARE && !s->run->gpu_tuning;
    size_t node_count = s->g->node_count;
    for (size_t i = 0; i < node_count; i++) {
        hk_lower l = {.ctx = s->ctx,
                      .arena = s->g->arena,
                      .graph = s->g,
                      .node = s->g->nodes[i],
                      .device = &s->info,
                      .cpu = cpu,
                      .coopmat_m = shape.m,
                      .coopmat_n = shape.n,
                      .coopmat_k = shape.k,
                      .coopmat_emulated = emulated,
                      .compute_units_hint = s->run->units ? s->run->units : 132,
                      .precision = s->run->precision ? s->run->precision : HK_PRECISION_STRICT};
        if (!hk_lower_begin(&l))
            return hk_out_of_memory(s->ctx, "a test");
        HK_TRY(s->run->lower ? s->run->lower(&l, s->run->user) : l.node->op->lower(&l));
        if (l.failed)
            return hk_out_of_memory(s->ctx, "a test");
        for (size_t k = 1; k < l.record_count; k++) {
            if (s->count == s->capacity &&
                !hk_arena_grow(s->g->arena, (void **)&s->records, s->count, &s->capacity, sizeof *s->records))
                return hk_out_of_memory(s->ctx, "a test");
            s->records[s->count++] = l.records[k];
        }
    }
    return HK_OK;
}

static hk_status submit(state *s, hk_gpu_commands *commands)
{
    uint64_t ticket = 0;
    HK_TRY(hk_gpu_submit(s->gpu, &commands, 1, &ticket));
    return hk_gpu_wait(s->gpu, ticket);
}

/* Every value has a buffer of its own with 256 bytes behind it, all NaN at first. */
static hk_status make_buffers(state *s)
{
    size_t count = s->g->value_count;
    hk_gpu_commands *commands = NULL;
    s->buffers = hk_arena_array(s->g->arena, count + 1, sizeof *s->buffers);
    if (!s->buffers)
        return hk_out_of_memory(s->ctx, "a test");
    HK_TRY(hk_gpu_commands_create(s->gpu, 0, &commands));
    hk_status st = hk_gpu_begin(commands);
    for (size_t i = 0; i < count && st == HK_OK; i++) {
        uint64_t bytes = (hk_value_bytes(s->g->values[i]) + 255) / 256 * 256 + 256;
        st = hk_gpu_buffer_create(s->gpu, HK_GPU_DEVICE, bytes, "a test", &s->buffers[i]);
        if (st == HK_OK)
            hk_gpu_fill(commands, s->buffers[i], 0, bytes, UINT32_MAX);
    }
    if (st == HK_OK)
        st = hk_gpu_end(commands);
    if (st == HK_OK)
        st = submit(s, commands);
    hk_gpu_commands_destroy(s->gpu, &commands);
    return st;
}

static hk_status upload_sources(state *s)
{
    for (size_t i = 0; i < s->g->value_count; i++) {
        const hk_value *v = s->g->values[i];
        uint64_t bytes = hk_value_bytes(v);
        if (!is_source(v) || !bytes)
            continue;
        void *device = hk_arena_alloc(s->g->arena, bytes);
        if (!device)
            return hk_out_of_memory(s->ctx, "a test");
        hk_widen(v->dtype, s->host[i]->data, device, hk_tensor_count(s->host[i]));
        HK_TRY(hk_gpu_upload(s->gpu, s->buffers[i], 0, device, bytes));
    }
    return HK_OK;
}

static hk_status make_pipelines(state *s)
{
    hk_gpu_pipeline_key *keys = hk_arena_array(s->g->arena, s->count + 1, sizeof *keys);
    s->pipelines = hk_arena_array(s->g->arena, s->count + 1, sizeof *s->pipelines);
    s->blocks = hk_arena_array(s->g->arena, s->count + 1, sizeof *s->blocks);
    size_t *of = hk_arena_array(s->g->arena, s->count + 1, sizeof *of);
    hk_gpu_pipeline **made = hk_arena_array(s->g->arena, s->count + 1, sizeof *made);
    if (!keys || !s->pipelines || !s->blocks || !of || !made)
        return hk_out_of_memory(s->ctx, "a test");
    size_t keyed = 0;
    for (size_t i = 0; i < s->count; i++) {
        const hk_record *r = s->records[i];
        if (r->kind != HK_RECORD_DISPATCH)
            continue;
        keys[keyed] = hk_pipeline_key(r);
        of[keyed++] = i;
        if (r->block_bytes) {
            HK_TRY(hk_gpu_buffer_create(s->gpu, HK_GPU_DEVICE, r->block_bytes, "a test", &s->blocks[i]));
            HK_TRY(hk_gpu_upload(s->gpu, s->blocks[i], 0, r->block, r->block_bytes));
        }
    }
    HK_TRY(hk_gpu_pipelines(s->gpu, keys, keyed, made));
    for (size_t i = 0; i < keyed; i++)
        s->pipelines[of[i]] = made[i];
    return HK_OK;
}

static void record_one(state *s, hk_gpu_commands *commands, size_t i)
{
    const hk_record *r = s->records[i];
    hk_gpu_buffer *first = r->operand_count ? s->buffers[r->operand[0].value->id] : NULL;
    if (r->kind == HK_RECORD_FILL) {
        hk_gpu_fill(commands, first, r->operand[0].offset, r->operand[0].bytes, r->fill_word);
    } else if (r->kind == HK_RECORD_COPY) {
        hk_gpu_copy(commands, first, r->operand[0].offset, s->buffers[r->operand[1].value->id], r->operand[1].offset,
                    r->operand[0].bytes);
    } else {
        unsigned char push[HK_PUSH_MAX];
        memcpy(push, r->push, sizeof push);
        for (uint32_t k = 0; k < r->operand_count; k++) {
            uint64_t address = hk_gpu_buffer_address(s->buffers[r->operand[k].value->id]) + r->operand[k].offset;
            memcpy(push + r->operand[k].push_offset, &address, sizeof address);
        }
        if (r->block_bytes) {
            uint64_t address = hk_gpu_buffer_address(s->blocks[i]);
            memcpy(push + r->block_offset, &address, sizeof address);
        }
        hk_gpu_dispatch(commands, s->pipelines[i], r->grid, push, r->push_bytes);
    }
    hk_gpu_barrier(commands);
}

static hk_status run_once(state *s)
{
    hk_gpu_commands *commands = NULL;
    HK_TRY(hk_gpu_commands_create(s->gpu, 0, &commands));
    hk_status st = hk_gpu_begin(commands);
    for (size_t i = 0; i < s->count; i++)
        record_one(s, commands, i);
    if (st == HK_OK)
        st = hk_gpu_end(commands);
    if (st == HK_OK)
        st = submit(s, commands);
    hk_gpu_commands_destroy(s->gpu, &commands);
    return st;
}

enum { WARM_MS = 200 };

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Times record i alone, repeated. A device that has idled clocks down and takes its time to come back: it is kept busy
 * with the same work first, and the measured submit follows without a gap. */
static hk_status time_record(state *s, size_t i, double *ns)
{
    hk_gpu_commands *commands[2] = {NULL, NULL}; /* warming up, measured */
    uint64_t times[2] = {0, 0}, ticket = 0, before = 0;
    hk_status st = HK_OK;
    for (int c = 0; c < 2 && st == HK_OK; c++) {
        st = hk_gpu_commands_create(s->gpu, 2, &commands[c]);
        if (st == HK_OK)
            st = hk_gpu_begin(commands[c]);
        if (st != HK_OK)
            break;
        hk_gpu_timestamp(commands[c], 0);
        for (uint32_t k = 0; k < s->run->repeats; k++)
            record_one(s, commands[c], i);
        hk_gpu_timestamp(commands[c], 1);
        st = hk_gpu_end(commands[c]);
    }
    uint64_t warm_ns = 1000000u * (uint64_t)(s->run->warm_ms && i ? s->run->warm_ms : WARM_MS);
    for (uint64_t start = now_ns(); st == HK_OK && now_ns() - start < warm_ns;) {
        before = ticket;
        st = hk_gpu_submit(s->gpu, &commands[0], 1, &ticket);
        if (st == HK_OK && before)
            st = hk_gpu_wait(s->gpu, before);
    }
    if (st == HK_OK)
        st = submit(s, commands[1]);
    if (st == HK_OK)
        st = hk_gpu_timestamps(commands[1], 2, times);
    *ns = (double)(times[1] - times[0]) / s->run->repeats;
    for (int c = 0; c < 2; c++)
        hk_gpu_commands_destroy(s->gpu, &commands[c]);
    return st;
}

static hk_status time_all(state *s)
{
    hk_records_run *run = s->run;
    run->record_count = (uint32_t)HK_MIN(s->count, (size_t)HK_TEST_RECORDS_MAX);
    for (uint32_t i = 0; i < run->record_count; i++) {
        run->variant[i] = s->records[i]->variant;
        run->flops[i] = s->records[i]->flops;
        if (run->repeats && hk_gpu_has(s->gpu, HK_CAP_TIMESTAMPS))
            HK_TRY(time_record(s, i, &run->ns[i]));
    }
    return HK_OK;
}

static hk_status compare(state *s, const hk_value *v)
{
    uint64_t bytes = hk_value_bytes(v);
    hk_tensor *found = hk_tensor_new(s->g->arena, v->dtype, &v->shape);
    void *device = hk_arena_alloc(s->g->arena, bytes + 256);
    if (!found || !device)
        return hk_out_of_memory(s->ctx, "a test");
    /* 256 bytes behind the value must be as they were */
    HK_TRY(hk_gpu_download(s->gpu, s->buffers[v->id], 0, device, bytes + 256));
    bool intact = true;
    for (size_t i = 0; i < 60; i++)
        intact &= ((const uint32_t *)((const char *)device + (bytes + 3) / 4 * 4))[i] == UINT32_MAX;
    hk_narrow(v->dtype, device, found->data, hk_tensor_count(found));
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < hk_tensor_count(found); i++) {
        double x = hk_get_double(found, i), y = hk_get_double(s->host[v->id], i);
        difference += (x - y) * (x - y);
        norm += y * y;
    }
    double error = intact ? sqrt(difference / (norm > 0 ? norm : 1.0)) : (double)INFINITY;
    if (!(error <= s->run->error)) {
        s->run->error = isnan(error) ? (double)INFINITY : error;
        s->run->worst = v->name;
    }
    return HK_OK;
}

static hk_status run_all(state *s)
{
    HK_TRY(make_sources(s));
    if (!s->run->no_host)
        HK_TRY(evaluate(s));
    size_t output_count = s->g->output_count;
    HK_TRY(lower_all(s));
    HK_TRY(make_buffers(s));
    HK_TRY(upload_sources(s));
    HK_TRY(make_pipelines(s));
    HK_TRY(run_once(s));
    s->run->error = 0;
    for (size_t i = 0; i < output_count && !s->run->no_host; i++)
        HK_TRY(compare(s, s->g->outputs[i]));
    return time_all(s);
}

hk_status hk_test_records(hk_gpu *gpu, hk_graph *g, hk_records_run *run)
{
    state s = {.ctx = hk_gpu_context(gpu), .gpu = gpu, .g = g, .run = run, .random = 88172645463325252ull};
    hk_status st = run_all(&s);
    for (size_t i = 0; s.buffers && i < g->value_count; i++)
        hk_gpu_buffer_destroy(gpu, &s.buffers[i]);
    for (size_t i = 0; s.blocks && i < s.count; i++)
        hk_gpu_buffer_destroy(gpu, &s.blocks[i]);
    return st;
}
