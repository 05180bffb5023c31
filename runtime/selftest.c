/* Every operator's kernels against its host evaluator, on the user's device. */
#include <math.h>
#include <string.h>

#include "kernels.h"
#include "runtime/cases.h"
#include "runtime/host.h"
#include "runtime/objects.h"
#include "runtime/once.h"

static const hk_step step = {.seed = {7, 9}, .step = 3, .lr = 1e-3f, .grad_scale = 1};

/* Relative norm error; infinite where types, shapes, integers or NaNs differ. */
static double error_of(const hk_tensor *got, const hk_tensor *want)
{
    hk_shape a = hk_tensor_shape(got), b = hk_tensor_shape(want);
    if (got->dtype != want->dtype || !hk_shape_equal(&a, &b))
        return INFINITY;
    double error = 0, norm = 0;
    for (int64_t i = 0; i < hk_shape_count(&a); i++) {
        double x = hk_get_double(got, i), y = hk_get_double(want, i);
        if (x == y || (isnan(x) && isnan(y))) {
            norm += isfinite(y) ? y * y : 0;
            continue;
        }
        if (!isfinite(x) || !isfinite(y) || !hk_dtype_is_float(got->dtype))
            return INFINITY;
        error += (x - y) * (x - y);
        norm += y * y;
    }
    return error == 0 ? 0 : norm > 0 ? sqrt(error / norm) : sqrt(error) <= 1e-7 ? 0 : INFINITY;
}

typedef struct kernel_use {
    const char **variants;
    size_t count, capacity, dispatches;
} kernel_use;

typedef struct selftest {
    hk_context *ctx;
    hk_device *dev;
    const hk_selftest_params *params;
    hk_selftest_result *result;
    hk_arena *arena;  /* of the whole test */
    kernel_use *uses; /* by place in hk_kernels */
} selftest;

/* Variants are static text, but equal text may lie at several addresses. */
static bool note_record(void *user, const hk_record *r)
{
    selftest *t = user;
    size_t i = 0, k = 0;
    const char *variant = r->variant ? r->variant : "";
    if (r->kind != HK_RECORD_DISPATCH)
        return true;
    while (hk_kernels[i] && hk_kernels[i] != r->kernel)
        i++;
    if (!hk_kernels[i])
        return true;
    kernel_use *u = &t->uses[i];
    u->dispatches++;
    while (k < u->count && strcmp(u->variants[k], variant) != 0)
        k++;
    if (k < u->count)
        return true;
    if (u->count == u->capacity &&
        !hk_arena_grow(t->arena, (void **)&u->variants, u->count, &u->capacity, sizeof *u->variants))
        return false;
    u->variants[u->count++] = variant;
    return true;
}

/* ---- precisions */

static const struct {
    const char *name;
    double tolerance; /* besides the case's own */
} precisions[] = {
    [HK_PRECISION_STRICT] = {"strict", 0}, [HK_PRECISION_HIGH] = {"high", 3e-5}, [HK_PRECISION_FAST] = {"fast", 2e-3}};

static bool matches(const char *pattern, const char *type)
{
    size_t n = strlen(pattern);
    return n && pattern[n - 1] == '*' ? !strncmp(pattern, type, n - 1) : !strcmp(pattern, type);
}

/* Operators whose kernels depend on the precision, and whether they do on this device; without one: on some. */
static bool has_precision(const selftest *t, const hk_op *op, hk_precision precision)
{
    static const char *const patterns[] = {"MatMul", "Gemm",     "hk.Gemm",   "Einsum",
                                           "Conv*",  "hk.Conv*", "Attention", "hk.Attention"};
    bool octets = op->octets_in || op->octets_out; /* images in another layout */
    bool has = precision == HK_PRECISION_STRICT || (precision == HK_PRECISION_FAST && octets);
    for (size_t i = 0; i < HK_COUNT(patterns) && !has; i++)
        has = matches(patterns[i], op->type) && strcmp(op->type, "hk.Convert") != 0;
    if (!has || !t->dev || precision == HK_PRECISION_STRICT)
        return has;
    hk_coopmat_shape units;
    if (precision == HK_PRECISION_FAST)
        return hk_gpu_has(t->dev->gpu, HK_CAP_STORAGE16);
    return hk_gpu_coopmat_shape(t->dev->gpu, &units) || hk_gpu_debug(t->dev->gpu) & HK_DEBUG_GPU_TUNING;
}

/* Operands become numbers that float16 has, so that the host computes with what the device reads. */
static hk_status round_operands(hk_context *ctx, hk_arena *arena, const op_case *c, const hk_tensor **tensors)
{
    for (int32_t i = 0; i < c->input_count; i++) {
        const hk_tensor *from = tensors[i];
        if (!from || from->dtype != HK_FLOAT32)
            continue;
        hk_shape shape = hk_tensor_shape(from);
        hk_tensor *half = hk_tensor_new(arena, HK_FLOAT16, &shape), *to = hk_tensor_new(arena, HK_FLOAT32, &shape);
        if (!half || !to)
            return hk_out_of_memory(ctx, "the self-test");
        for (int64_t k = 0; k < hk_tensor_count(from); k++) {
            hk_set_double(half, k, hk_get_double(from, k));
            hk_set_double(to, k, hk_get_double(half, k));
        }
        tensors[i] = to;
    }
    return HK_OK;
}

/* ---- a case */

static hk_status run_both(selftest *t, hk_arena *arena, const op_case *c, hk_precision precision, hk_selftest_case *out)
{
    hk_device *dev = t->dev;
    const hk_once how = {.precision = precision, .visit = note_record, .user = t};
    const hk_tensor *tensors[CASE_MAX_INPUTS] = {0}, *feeds[CASE_MAX_INPUTS] = {0};
    case_graph g = {0};
    HK_TRY(case_contents(dev->ctx, arena, c, false, tensors));
    if (precision == HK_PRECISION_FAST)
        HK_TRY(round_operands(dev->ctx, arena, c, tensors));
    HK_TRY(case_build(dev->ctx, c, tensors, true, &g));
    case_feeds(&g, c, tensors, feeds);
    hk_tensor **want = hk_arena_array(arena, g.graph->output_count + 1, sizeof *want);
    hk_tensor **got = hk_arena_array(arena, g.graph->output_count + 1, sizeof *got);
    hk_status st = want && got ? HK_OK : hk_out_of_memory(dev->ctx, "the self-test");
    if (st == HK_OK)
        st = hk_host_run(g.graph, arena, feeds, want, &step); /* which also expands operators that are others */
    out->skipped = st == HK_OK && !case_on_device(c, &g, hk_gpu_info(dev->gpu));
    if (st == HK_OK && !out->skipped)
        st = hk_run_once_as(dev->gpu, g.graph, feeds, &step, &how, got, arena);
    for (size_t i = 0; i < g.graph->output_count && st == HK_OK && !out->skipped; i++)
        out->error = fmax(out->error, error_of(got[i], want[i]));
    hk_graph_destroy(&g.graph);
    return st;
}

static void count_case(selftest *t, const hk_selftest_case *out)
{
    t->result->skipped += out->skipped;
    t->result->failed += out->failure && !out->skipped;
    t->result->passed += !out->failure && !out->skipped;
    if (t->params->report)
        t->params->report(t->params->user, out);
}

static hk_status run_case(selftest *t, const hk_op *op, const char *text, hk_precision precision)
{
    hk_device *dev = t->dev;
    hk_arena *arena = hk_arena_create(dev->ctx);
    op_case *c = arena ? hk_arena_new(arena, op_case) : NULL;
    hk_selftest_case out = {.op = op->type, .text = text, .precision = precisions[precision].name};
    hk_status st = c ? case_parse(dev->ctx, arena, op, text, c) : hk_out_of_memory(dev->ctx, "the self-test");
    if (st == HK_OK) {
        st = run_both(t, arena, c, precision, &out);
        if (st == HK_OK && out.skipped)
            out.failure = "it runs on the host of this device";
        else if (st == HK_OK && !(out.error <= HK_MAX(c->tolerance, precisions[precision].tolerance)))
            out.failure = "the kernel's result differs from the host's";
    }
    if (st != HK_OK)
        out.failure = hk_context_error(dev->ctx);
    count_case(t, &out);
    hk_arena_destroy(&arena);
    return st == HK_STATUS_OUT_OF_MEMORY || st == HK_STATUS_DEVICE_LOST ? st : HK_OK;
}

/* ---- which operators */

static bool chosen(const hk_selftest_params *p, const char *type)
{
    bool any = !p->op_count;
    for (size_t i = 0; i < p->op_count && !any; i++)
        any = matches(p->ops[i], type);
    return any;
}

static hk_status check_names(hk_context *ctx, const hk_selftest_params *p)
{
    for (size_t i = 0; i < p->op_count; i++) {
        const hk_op *op = hk_op_at(0);
        for (size_t k = 1; op && !matches(p->ops[i], op->type); k++)
            op = hk_op_at(k);
        if (!op)
            return hk_fail(ctx, HK_STATUS_USAGE, "there is no operator '%s'", p->ops[i]);
    }
    return HK_OK;
}

static hk_status each_precision(selftest *t, const hk_op *op, const char *text)
{
    for (hk_precision p = HK_PRECISION_STRICT; p <= HK_PRECISION_FAST; p++) {
        if (!has_precision(t, op, p))
            continue;
        if (t->dev)
            HK_TRY(run_case(t, op, text, p));
        else
            count_case(
                t, &(hk_selftest_case){.op = op->type, .text = text, .precision = precisions[p].name, .skipped = true});
    }
    return HK_OK;
}

static hk_status each_case(selftest *t)
{
    const hk_op *op;
    HK_TRY(check_names(t->ctx, t->params));
    for (size_t i = 0; (op = hk_op_at(i)); i++) {
        if (!chosen(t->params, op->type))
            continue;
        t->result->ops++;
        for (const char *const *text = op->cases; text && *text; text++)
            HK_TRY(each_precision(t, op, *text));
    }
    return HK_OK;
}

/* ---- which kernels */

static const char *why_not(const selftest *t, const hk_kernel *k)
{
    const hk_device_info *d = hk_gpu_info(t->dev->gpu);
    uint32_t lacking = k->needs & ~d->caps;
    static const char *const needs[] = {
#define HK_X(name, text) "the device lacks " text,
        HK_CAP_MAP(HK_X)
#undef HK_X
    };
    if (k == &hk_kernel_fma_rate || k == &hk_kernel_selftest_copy || k == &hk_kernel_selftest_lcg)
        return "it is no operator's: hk_device_measure or the tests of the device layer run it";
    if (!k->spirv)
        return "this build has no code for it";
    for (int i = 0; i < HK_CAP_COUNT; i++)
        if (lacking >> i & 1u)
            return needs[i];
    return d->type == HK_DEVICE_SOFTWARE ? "no case chose it: most of these are kernels for GPUs" : "no case chose it";
}

static void report_kernels(const selftest *t)
{
    for (size_t i = 0; hk_kernels[i]; i++) {
        const kernel_use *u = &t->uses[i];
        t->result->kernels++;
        t->result->kernels_run += u->dispatches > 0;
        t->result->variants_run += u->count;
        hk_selftest_kernel k = {.name = hk_kernels[i]->name,
                                .variants = u->variants,
                                .variant_count = u->count,
                                .dispatches = u->dispatches,
                                .why = u->dispatches ? NULL : why_not(t, hk_kernels[i])};
        if (t->params->kernel)
            t->params->kernel(t->params->user, &k);
    }
}

static hk_selftest_params read_params(const hk_selftest_params *params)
{
    hk_selftest_params p = {.size = sizeof p};
    if (params)
        memcpy(&p, params, HK_MIN(params->size, sizeof p));
    return p;
}

hk_status hk_selftest(hk_device *dev, const hk_selftest_params *params, hk_selftest_result *result)
{
    hk_selftest_params p = read_params(params);
    selftest t = {.ctx = dev->ctx, .dev = dev, .params = &p, .result = result, .arena = hk_arena_create(dev->ctx)};
    size_t kernels = 0;
    *result = (hk_selftest_result){0};
    while (hk_kernels[kernels])
        kernels++;
    t.uses = t.arena ? hk_arena_array(t.arena, kernels + 1, sizeof *t.uses) : NULL;
    hk_status st = t.uses ? each_case(&t) : hk_out_of_memory(dev->ctx, "the self-test");
    if (st == HK_OK)
        report_kernels(&t);
    hk_arena_destroy(&t.arena);
    if (st == HK_OK && result->failed)
        return hk_fail(dev->ctx, HK_STATUS_MISMATCH, "%zu cases of %zu failed", result->failed,
                       result->failed + result->passed);
    return st;
}

hk_status hk_selftest_list(hk_context *ctx, const hk_selftest_params *params, hk_selftest_result *result)
{
    hk_selftest_params p = read_params(params);
    selftest t = {.ctx = ctx, .params = &p, .result = result};
    *result = (hk_selftest_result){0};
    return each_case(&t);
}
