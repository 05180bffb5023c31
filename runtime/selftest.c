/* Every operator's kernels against its host evaluator, on the user's device. */
#include <math.h>
#include <string.h>

#include "runtime/cases.h"
#include "runtime/host.h"
#include "runtime/objects.h"
#include "runtime/once.h"

static const hk_step step = {
    .seed = {7, 9}, .step = 3, .lr = 1e-3f, .grad_scale = 1};

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

static hk_status run_both(hk_device *dev, hk_arena *arena, const op_case *c, hk_selftest_case *out)
{
    const hk_tensor *tensors[CASE_MAX_INPUTS] = {0}, *feeds[CASE_MAX_INPUTS] = {0};
    case_graph g = {0};
    HK_TRY(case_contents(dev->ctx, arena, c, false, tensors));
    HK_TRY(case_build(dev->ctx, c, tensors, true, &g));
    case_feeds(&g, c, tensors, feeds);
    hk_tensor **want = hk_arena_array(arena, g.graph->output_count + 1, sizeof *want);
    hk_tensor **got = hk_arena_array(arena, g.graph->output_count + 1, sizeof *got);
    hk_status st = want && got ? HK_OK : hk_out_of_memory(dev->ctx, "the self-test");
    if (st == HK_OK)
        st = hk_host_run(g.graph, arena, feeds, want, &step);
    if (st == HK_OK)
        st = hk_run_once(dev->gpu, g.graph, feeds, &step, got, arena);
    for (size_t i = 0; i < g.graph->output_count && st == HK_OK; i++)
        out->error = fmax(out->error, error_of(got[i], want[i]));
    hk_graph_destroy(&g.graph);
    return st;
}

static hk_status run_case(hk_device *dev, const hk_op *op, const char *text, const hk_selftest_params *p,
                          hk_selftest_result *result)
{
    hk_arena *arena = hk_arena_create(dev->ctx);
    op_case *c = arena ? hk_arena_new(arena, op_case) : NULL;
    hk_selftest_case out = {.op = op->type, .text = text};
    hk_status st = c ? case_parse(dev->ctx, arena, op, text, c) : hk_out_of_memory(dev->ctx, "the self-test");
    bool least = !hk_gpu_info(dev->gpu)->caps; /* HILLOCK_CAPS=min */
    if (st == HK_OK && (c->nodevice || (c->min_skip && least))) {
        out.skipped = true;
        out.failure = c->nodevice ? "it runs on the host" : "it needs a capability beyond the least";
    } else if (st == HK_OK) {
        st = run_both(dev, arena, c, &out);
        if (st == HK_OK && !(out.error <= c->tolerance))
            out.failure = "the kernel's result differs from the host's";
        else if (st != HK_OK)
            out.failure = hk_context_error(dev->ctx);
    }
    result->skipped += out.skipped;
    result->failed += out.failure && !out.skipped;
    result->passed += !out.failure;
    if (p->report)
        p->report(p->user, &out);
    hk_arena_destroy(&arena);
    return st == HK_STATUS_OUT_OF_MEMORY || st == HK_STATUS_DEVICE_LOST ? st : HK_OK;
}

hk_status hk_selftest(hk_device *dev, const hk_selftest_params *params, hk_selftest_result *result)
{
    hk_selftest_params p = {.size = sizeof p};
    if (params)
        memcpy(&p, params, HK_MIN(params->size, sizeof p));
    *result = (hk_selftest_result){0};
    const hk_op *op;
    for (size_t i = 0; (op = hk_op_at(i)); i++) {
        if (p.op && strcmp(p.op, op->type) != 0)
            continue;
        result->ops++;
        for (const char *const *text = op->cases; text && *text; text++)
            HK_TRY(run_case(dev, op, *text, &p, result));
    }
    if (p.op && !result->ops)
        return hk_fail(dev->ctx, HK_STATUS_USAGE, "there is no operator '%s'", p.op);
    if (result->failed)
        return hk_fail(dev->ctx, HK_STATUS_MISMATCH, "%zu cases of %zu failed", result->failed,
                       result->failed + result->passed);
    return HK_OK;
}
