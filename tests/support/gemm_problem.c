/* One matrix product on the device: values, records, buffers, recording, comparison. */
#include "tests/support/gemm_problem.h"

#include <math.h>
#include <string.h>

#include "runtime/exec.h"

typedef struct run {
    hk_context *ctx;
    hk_gpu *gpu;
    const hk_gemm_case *c;
    hk_graph *graph;
    hk_lower lower;
    hk_gemm problem;         /* as described, before it was simplified */
    hk_gpu_buffer **buffers; /* by value id */
    hk_gpu_buffer **blocks;  /* by record */
    hk_gpu_pipeline **pipelines;
    hk_value *zeros_a, *zeros_b;
    float *a, *b, *bias, *residual; /* what the device holds; of bytes less their zero points */
    uint64_t random;
} run;

static float next_random(run *r) /* xorshift64*, uniform in -1 .. 1 */
{
    r->random ^= r->random >> 12;
    r->random ^= r->random << 25;
    r->random ^= r->random >> 27;
    return (float)(int64_t)(r->random * 0x2545f4914f6cdd1dull) * 0x1p-63f;
}

static bool is_int8(const hk_gemm_case *c)
{
    return hk_dtype_is_integer(c->a);
}

static hk_value *make_value(run *r, const char *name, hk_dtype storage, int64_t count)
{
    bool integers = hk_dtype_is_integer(storage);
    hk_value *v = hk_graph_value(r->graph, name, HK_VALUE_INPUT, integers ? storage : HK_FLOAT32,
                                 &(hk_shape){.rank = 1, .dim = {count}});
    if (v && storage != HK_DTYPE_NONE && !integers)
        v->storage = storage;
    return v;
}

static hk_value *make_zeros(run *r, const char *name, hk_dtype t, int64_t count)
{
    return r->c->zeros ? make_value(r, name, t, r->c->zeros == 1 ? 1 : count) : NULL;
}

static hk_status describe(run *r)
{
    const hk_gemm_case *c = r->c;
    int64_t batches = c->batch ? c->batch : 1;
    int64_t matrices_a = c->share_a ? 1 : batches, matrices_b = c->share_b ? 1 : batches;
    hk_gemm *p = &r->problem;
    *p = (hk_gemm){.m = c->m,
                   .n = c->n,
                   .k = c->k,
                   .trans_a = c->trans_a,
                   .trans_b = c->trans_b,
                   .alpha = c->alpha != 0.0f ? c->alpha : 1.0f,
                   .beta = c->beta != 0.0f ? c->beta : 1.0f,
                   .activation = c->activation,
                   .act_a = 0.1f,
                   .act_b = 0.5f,
                   .lda = c->trans_a ? c->m : c->k,
                   .ldb = c->trans_b ? c->k : c->n,
                   .bias_m = c->bias == 2,
                   .bias_n = c->bias == 1};
    if (c->batch) {
        p->batch_rank = 1;
        p->batch[0] = c->batch;
        p->batch_a[0] = c->share_a ? 0 : c->m * c->k;
        p->batch_b[0] = c->share_b ? 0 : c->k * c->n;
        p->batch_bias[0] = c->bias == 3;
    }
    int64_t bias = c->bias == 1 ? c->n : c->bias == 2 ? c->m : batches;
    p->a = make_value(r, "a", c->a, matrices_a * c->m * c->k);
    p->b = make_value(r, "b", c->b, matrices_b * c->k * c->n);
    if (c->constant && p->a && p->b)
        p->a->kind = p->b->kind = HK_VALUE_CONSTANT;
    p->c = make_value(r, "c", is_int8(c) ? HK_INT32 : c->c, batches * c->m * c->n);
    if (is_int8(c)) {
        r->zeros_a = make_zeros(r, "zeros_a", c->a, c->m);
        r->zeros_b = make_zeros(r, "zeros_b", c->b, c->n);
    }
    p->bias = c->bias ? make_value(r, "bias", HK_FLOAT32, bias) : NULL;
    p->residual = c->residual ? make_value(r, "residual", HK_FLOAT32, batches * c->m * c->n) : NULL;
    return p->a && p->b && p->c ? HK_OK : hk_out_of_memory(r->ctx, "a test");
}

/* The factor of an operand's element i: 2^exponent, and 2^slope from one end of K to the other, for B against it. */
static float slope_at(const run *r, const hk_value *v, int64_t i)
{
    const hk_gemm *p = &r->problem;
    if ((!r->c->slope && !r->c->exponent) || (v != p->a && v != p->b))
        return 1.0f;
    bool along = v == p->a ? !p->trans_a : p->trans_b;
    int64_t k = along ? i % p->k : i / (v == p->a ? p->m : p->n) % p->k;
    int step = r->c->exponent + (int)(k * r->c->slope / p->k);
    return ldexpf(1.0f, v == p->a ? step : -step);
}

/* Bytes, a word each, of the whole range; *data gets them less the zero points before them, of which element i has
 * number i / step % count. */
static hk_status fill_bytes(run *r, hk_value *v, const float *zeros, int64_t step, int64_t zero_count, float **data)
{
    int64_t count = v ? v->shape.dim[0] : 0;
    int32_t *words = hk_arena_array(r->graph->arena, (size_t)count + 1, sizeof *words);
    *data = hk_arena_array(r->graph->arena, (size_t)count + 1, sizeof **data);
    if (!*data || !words)
        return hk_out_of_memory(r->ctx, "a test");
    for (int64_t i = 0; i < count; i++) {
        words[i] = (int32_t)floorf(next_random(r) * 128.0f) + (v->dtype == HK_UINT8 ? 128 : 0);
        (*data)[i] = (float)words[i] - (zeros ? zeros[i / step % zero_count] : 0.0f);
    }
    return count ? hk_gpu_upload(r->gpu, r->buffers[v->id], 0, words, hk_value_bytes(v)) : HK_OK;
}

static hk_status fill_operands_of_bytes(run *r)
{
    const hk_gemm_case *c = r->c;
    const hk_gemm *p = &r->problem;
    float *a = NULL, *b = NULL;
    HK_TRY(fill_bytes(r, r->zeros_a, NULL, 1, 1, &a));
    HK_TRY(fill_bytes(r, r->zeros_b, NULL, 1, 1, &b));
    HK_TRY(fill_bytes(r, p->a, r->zeros_a ? a : NULL, c->trans_a ? 1 : c->k, c->zeros == 1 ? 1 : c->m, &r->a));
    return fill_bytes(r, p->b, r->zeros_b ? b : NULL, c->trans_b ? c->k : 1, c->zeros == 1 ? 1 : c->n, &r->b);
}

/* The product as matrix units take it; its records so far are the copies. */
static bool pack(run *r, hk_gemm *p)
{
    const hk_gemm_case *c = r->c;
    int64_t batches = c->batch ? c->batch : 1;
    const hk_int8_operand a = {.v = p->a,
                               .zeros = r->zeros_a,
                               .matrices = c->share_a ? 1 : batches,
                               .outer = c->m,
                               .k = c->k,
                               .ld = p->lda,
                               .matrix = c->m * c->k,
                               .along = !c->trans_a},
                          b = {.v = p->b,
                               .zeros = r->zeros_b,
                               .matrices = c->share_b ? 1 : batches,
                               .outer = c->n,
                               .k = c->k,
                               .ld = p->ldb,
                               .matrix = c->k * c->n,
                               .along = c->trans_b,
                               .second = true};
    p->trans_a = false;
    if (!hk_gemm_pack_int8(&r->lower, &a, p) || !hk_gemm_pack_int8(&r->lower, &b, p))
        return false;
    p->batch_a[0] = c->share_a ? 0 : p->m * p->lda;
    p->batch_b[0] = c->share_b ? 0 : p->n * p->ldb;
    return true;
}

static hk_status fill_random(run *r, hk_value *v, float **data)
{
    if (!v)
        return HK_OK;
    size_t count = (size_t)v->shape.dim[0];
    hk_dtype type = hk_value_storage(v);
    bool half = hk_dtype_is_half(type);
    *data = hk_arena_array(r->graph->arena, count + 1, sizeof **data);
    uint16_t *halves = half ? hk_arena_array(r->graph->arena, count + 1, sizeof *halves) : NULL;
    if (!*data || (half && !halves))
        return hk_out_of_memory(r->ctx, "a test");
    for (size_t i = 0; i < count; i++) {
        (*data)[i] = next_random(r) * slope_at(r, v, (int64_t)i);
        if (half) {
            bool bfloat = type == HK_BFLOAT16;
            halves[i] = bfloat ? hk_double_to_bfloat((double)(*data)[i]) : hk_float_to_half((*data)[i]);
            (*data)[i] = bfloat ? hk_bfloat_to_float(halves[i]) : hk_half_to_float(halves[i]);
        }
    }
    return count ? hk_gpu_upload(r->gpu, r->buffers[v->id], 0, half ? (void *)halves : (void *)*data, hk_value_bytes(v))
                 : HK_OK;
}

/* Every value has a buffer of its own, filled with NaN: what a kernel should not read shows. */
static hk_status make_buffers(run *r)
{
    size_t count = r->graph->value_count;
    r->buffers = hk_arena_array(r->graph->arena, count + 1, sizeof *r->buffers);
    if (!r->buffers)
        return hk_out_of_memory(r->ctx, "a test");
    hk_gpu_commands *commands = NULL;
    HK_TRY(hk_gpu_commands_create(r->gpu, 0, &commands));
    hk_status st = hk_gpu_begin(commands);
    for (size_t i = 0; i < count && st == HK_OK; i++) {
        uint64_t bytes = (hk_value_bytes(r->graph->values[i]) + 255) / 256 * 256 + 256;
        st = hk_gpu_buffer_create(r->gpu, HK_GPU_DEVICE, bytes, "a test", &r->buffers[i]);
        if (st == HK_OK)
            hk_gpu_fill(commands, r->buffers[i], 0, bytes, UINT32_MAX);
    }
    uint64_t ticket = 0;
    if (st == HK_OK)
        st = hk_gpu_end(commands);
    if (st == HK_OK)
        st = hk_gpu_submit(r->gpu, &commands, 1, &ticket);
    if (st == HK_OK)
        st = hk_gpu_wait(r->gpu, ticket);
    hk_gpu_commands_destroy(r->gpu, &commands);
    return st;
}

static hk_status make_pipelines(run *r)
{
    const hk_lower *l = &r->lower;
    hk_gpu_pipeline_key *keys = hk_arena_array(r->graph->arena, l->record_count + 1, sizeof *keys);
    r->pipelines = hk_arena_array(r->graph->arena, l->record_count + 1, sizeof *r->pipelines);
    r->blocks = hk_arena_array(r->graph->arena, l->record_count + 1, sizeof *r->blocks);
    if (!keys || !r->pipelines || !r->blocks)
        return hk_out_of_memory(r->ctx, "a test");
    for (size_t i = 1; i < l->record_count; i++) {
        const hk_record *record = l->records[i];
        keys[i - 1] = hk_pipeline_key(record);
        if (record->block_bytes) {
            HK_TRY(hk_gpu_buffer_create(r->gpu, HK_GPU_DEVICE, record->block_bytes, "a test", &r->blocks[i]));
            HK_TRY(hk_gpu_upload(r->gpu, r->blocks[i], 0, record->block, record->block_bytes));
        }
    }
    return hk_gpu_pipelines(r->gpu, keys, l->record_count - 1, r->pipelines);
}

static void record_all(run *r, hk_gpu_commands *commands)
{
    for (size_t i = 1; i < r->lower.record_count; i++) {
        const hk_record *record = r->lower.records[i];
        unsigned char push[HK_PUSH_MAX];
        memcpy(push, record->push, sizeof push);
        for (uint32_t k = 0; k < record->operand_count; k++) {
            uint64_t address = hk_gpu_buffer_address(r->buffers[record->operand[k].value->id]) +
                               record->operand[k].offset;
            memcpy(push + record->operand[k].push_offset, &address, sizeof address);
        }
        if (record->block_bytes) {
            uint64_t address = hk_gpu_buffer_address(r->blocks[i]);
            memcpy(push + record->block_offset, &address, sizeof address);
        }
        hk_gpu_dispatch(commands, r->pipelines[i - 1], record->grid, push, record->push_bytes);
        hk_gpu_barrier(commands);
    }
}

static hk_status run_once(run *r, uint32_t repeats, double *ns)
{
    hk_gpu_commands *commands = NULL;
    uint64_t ticket = 0, times[2] = {0, 0};
    bool timed = ns && hk_gpu_has(r->gpu, HK_CAP_TIMESTAMPS);
    HK_TRY(hk_gpu_commands_create(r->gpu, timed ? 2 : 0, &commands));
    hk_status st = hk_gpu_begin(commands);
    if (timed)
        hk_gpu_timestamp(commands, 0);
    for (uint32_t i = 0; i < repeats; i++)
        record_all(r, commands);
    if (timed)
        hk_gpu_timestamp(commands, 1);
    if (st == HK_OK)
        st = hk_gpu_end(commands);
    /* An idle device is slow to raise its clock: half a second of work comes before the one that is timed. */
    uint64_t begin = hk_now_ns();
    for (int i = 0; st == HK_OK && (i < (ns ? 2 : 1) || (timed && hk_now_ns() - begin < 500000000u)); i++) {
        st = hk_gpu_submit(r->gpu, &commands, 1, &ticket);
        if (st == HK_OK)
            st = hk_gpu_wait(r->gpu, ticket);
    }
    if (st == HK_OK && timed) {
        st = hk_gpu_timestamps(commands, 2, times);
        *ns = (double)(times[1] - times[0]) / repeats;
    }
    hk_gpu_commands_destroy(r->gpu, &commands);
    return st;
}

static double expected(const run *r, int64_t i)
{
    const hk_gemm *p = &r->problem;
    int64_t size = p->m * p->n, z = i / size, m = i % size / p->n, n = i % p->n;
    const float *a = r->a + z * p->batch_a[0], *b = r->b + z * p->batch_b[0];
    double sum = 0.0;
    for (int64_t k = 0; k < p->k; k++)
        sum += (double)a[p->trans_a ? k * p->lda + m : m * p->lda + k] *
               (double)b[p->trans_b ? n * p->ldb + k : k * p->ldb + n];
    sum *= (double)p->alpha;
    if (p->bias)
        sum += (double)p->beta * (double)r->bias[z * p->batch_bias[0] + m * p->bias_m + n * p->bias_n];
    if (p->residual)
        sum += (double)r->residual[i];
    return hk_activation_apply(p->activation, sum, (double)p->act_a, (double)p->act_b);
}

/* Root mean square error over root mean square; infinite when an element is NaN. */
static hk_status compare(run *r, double *error)
{
    const hk_value *v = r->problem.c;
    int64_t count = v->shape.dim[0], most = HK_MIN(count, (int64_t)(r->problem.k > 4096 ? 1024 : 4096));
    bool half = hk_value_storage(v) == HK_FLOAT16;
    void *found = hk_arena_alloc(r->graph->arena, hk_value_bytes(v) + 8);
    if (!found)
        return hk_out_of_memory(r->ctx, "a test");
    HK_TRY(hk_gpu_download(r->gpu, r->buffers[v->id], 0, found, hk_value_bytes(v)));
    double difference = 0.0, norm = 0.0;
    bool finite = true;
    for (int64_t i = 0; i < count; i++) {
        double x = half            ? (double)hk_half_to_float(((uint16_t *)found)[i])
                   : is_int8(r->c) ? (double)((int32_t *)found)[i]
                                   : (double)((float *)found)[i];
        finite &= x == x;
        /* All of a small result, else elements spread over it, its end included. */
        if (count > most && (i * 7919 + 1) % (count / most) && i < count - 32)
            continue;
        double y = expected(r, i);
        difference += (x - y) * (x - y);
        norm += y * y;
    }
    *error = finite ? sqrt(difference / fmax(norm, 1e-30)) : (double)INFINITY;
    return HK_OK;
}

static hk_status run_variant(run *r, const hk_gemm_variant *v, uint32_t splits, uint32_t repeats, hk_gemm_result *out)
{
    static const hk_node node = {.name = "product", .type = "MatMul"};
    r->lower.node = &node;
    HK_TRY(describe(r));
    hk_gemm p = r->problem;
    if (!hk_lower_begin(&r->lower) || (is_int8(r->c) && !pack(r, &p)))
        return hk_out_of_memory(r->ctx, "a test");
    if (!is_int8(r->c))
        hk_gemm_simplify(&p);
    if (!v)
        v = hk_gemm_choose(&r->lower, &p, &splits);
    *out = (hk_gemm_result){
        .fits = hk_gemm_fits(&r->lower, &p, v), .name = hk_gemm_variant_name(&p, v), .splits = splits};
    if (!out->fits)
        return HK_OK;
    hk_gemm_emit(&r->lower, &p, v, splits);
    if (r->lower.failed)
        return hk_out_of_memory(r->ctx, "a test");
    HK_TRY(make_buffers(r));
    if (is_int8(r->c)) {
        HK_TRY(fill_operands_of_bytes(r));
    } else {
        HK_TRY(fill_random(r, r->problem.a, &r->a));
        HK_TRY(fill_random(r, r->problem.b, &r->b));
    }
    HK_TRY(fill_random(r, r->problem.bias, &r->bias));
    HK_TRY(fill_random(r, r->problem.residual, &r->residual));
    HK_TRY(make_pipelines(r));
    HK_TRY(run_once(r, 1, NULL));
    HK_TRY(compare(r, &out->error));
    return repeats ? run_once(r, repeats, &out->ns) : HK_OK;
}

hk_status hk_test_gemm(hk_gpu *gpu, const hk_gemm_case *c, const hk_gemm_variant *v, uint32_t splits, uint32_t units,
                       uint32_t repeats, hk_gemm_result *out)
{
    run r = {.ctx = hk_gpu_context(gpu), .gpu = gpu, .c = c, .random = 88172645463325252ull};
    HK_TRY(hk_graph_create(r.ctx, "gemm", &r.graph));
    hk_coopmat_shape shape = {0, 0, 0}, bytes = {0, 0, 0};
    bool emulated = !hk_gpu_coopmat_shape(gpu, &shape);
    if (emulated) {
        shape = (hk_coopmat_shape){16, 16, 16};
        bytes = (hk_coopmat_shape){16, 16, 32};
    } else if (!hk_gpu_int8_shape(gpu, &bytes)) {
        bytes = (hk_coopmat_shape){0, 0, 0};
    }
    bool for_gpus = v && (v->kind == HK_GEMM_TILE || v->kind == HK_GEMM_COOPMAT);
    r.lower = (hk_lower){.ctx = r.ctx,
                         .arena = r.graph->arena,
                         .graph = r.graph,
                         .device = hk_gpu_info(gpu),
                         .cpu = hk_gpu_info(gpu)->type == HK_DEVICE_SOFTWARE && !for_gpus,
                         .coopmat_m = shape.m,
                         .coopmat_n = shape.n,
                         .coopmat_k = shape.k,
                         .int8_m = bytes.m,
                         .int8_n = bytes.n,
                         .int8_k = bytes.k,
                         .coopmat_emulated = emulated,
                         .compute_units_hint = units,
                         .precision = c->precision};
    hk_status st = run_variant(&r, v, splits, repeats, out);
    for (size_t i = 0; r.buffers && i < r.graph->value_count; i++)
        hk_gpu_buffer_destroy(gpu, &r.buffers[i]);
    for (size_t i = 0; r.blocks && i < r.lower.record_count; i++)
        hk_gpu_buffer_destroy(gpu, &r.blocks[i]);
    hk_graph_destroy(&r.graph);
    return st;
}
