/*
 * Fuzz target: bytes → model → run, on the device and on the host evaluator, whose results are compared. Models that
 * would take long are only planned; results are compared where both sides must agree.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ops/op.h"
#include "runtime/host.h"
#include "runtime/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerInitialize(int *argc, char ***argv);

enum { ELEMENTS_MAX = 1 << 15, NODES_MAX = 100, WORK_MAX = 1 << 24, NO_DEVICE = 77, RUNS_PER_DEVICE = 1000 };

/* A device costs more than a run, so it is kept. */
static hk_context *ctx;
static hk_device *dev;
static unsigned runs;

static void check(bool holds)
{
    if (!holds)
        abort(); /* the fuzzer keeps the input */
}

static hk_status open_device(void)
{
    hk_device_params params = {.size = sizeof params, .cache_dir = "", .max_memory_bytes = (uint64_t)1 << 30};
    check(hk_context_create(NULL, &ctx) == HK_OK);
    return hk_device_open(ctx, &params, &dev);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    return open_device() == HK_STATUS_NO_DEVICE ? NO_DEVICE : 0;
}

/* ---- which models */

/* Where a rounding error can become any error, or where the two sides draw other numbers than files can ask for. */
static bool is_comparable(const hk_node *n)
{
    static const char *const steps[] = {"ArgMax",
                                        "ArgMin",
                                        "Ceil",
                                        "Equal",
                                        "Floor",
                                        "Greater",
                                        "GreaterOrEqual",
                                        "Less",
                                        "Mod",
                                        "Round",
                                        "LessOrEqual",
                                        "Sign",
                                        "TopK",
                                        "Cast",
                                        "CastLike",
                                        "NonZero",
                                        "QuantizeLinear",
                                        "DynamicQuantizeLinear",
                                        "IsInf",
                                        "IsNaN",
                                        "Hardmax",
                                        "Unique",
                                        "NonMaxSuppression",
                                        "Shrink",
                                        "ThresholdedRelu",
                                        "BitCast",
                                        "MaxPool",
                                        "Resize",
                                        "GridSample",
                                        "Div",
                                        "Reciprocal",
                                        "Pow",
                                        "Tan"};
    for (size_t i = 0; i < HK_COUNT(steps); i++)
        if (!strcmp(n->type, steps[i]))
            return false;
    return !(n->op->flags & HK_OP_RANDOM);
}

/* Small, without loops, everything's shape known: runs soon on both sides. */
static bool is_quick(const hk_graph *g, bool *comparable)
{
    uint64_t elements = 0, work = 0;
    for (size_t i = 0; i < g->value_count; i++) {
        const hk_value *v = g->values[i];
        if (!hk_shape_known(&v->shape) || v->dtype == HK_DTYPE_NONE || hk_dtype_is_list(v->dtype))
            return false;
        elements += (uint64_t)hk_shape_count(&v->shape);
    }
    for (size_t i = 0; i < g->node_count; i++) {
        const hk_node *n = g->nodes[i];
        uint64_t in = 0, out = 0;
        if (!n->op || n->op->flags & HK_OP_CONTROL)
            return false;
        for (int32_t k = 0; k < n->in_count; k++)
            in += n->in[k] ? (uint64_t)hk_shape_count(&n->in[k]->shape) : 0;
        for (int32_t k = 0; k < n->out_count; k++)
            out += n->out[k] ? (uint64_t)hk_shape_count(&n->out[k]->shape) : 0;
        work += in * out;
        *comparable &= is_comparable(n);
    }
    return elements <= ELEMENTS_MAX && work <= WORK_MAX && g->node_count <= NODES_MAX;
}

/* ---- running */

static hk_tensor *make_input(hk_arena *arena, const hk_value *v, uint32_t *random)
{
    hk_tensor *t = hk_tensor_new(arena, v->dtype, &v->shape);
    for (int64_t i = 0; t && i < hk_tensor_count(t); i++) {
        *random = *random * 1664525u + 1013904223u;
        if (hk_dtype_is_float(v->dtype))
            hk_set_double(t, i, (double)(*random >> 16) / 16384 - 2);
        else
            hk_set_int(t, i, *random >> 30);
    }
    return t;
}

typedef struct extent {
    double largest; /* of all values of a run */
    bool finite;
} extent;

static hk_status note_extent(void *user, const hk_value *v, const hk_tensor **t)
{
    extent *e = user;
    for (int64_t i = 0, n = hk_tensor_count(*t); i < n && hk_dtype_is_float(v->dtype); i++) {
        double x = fabs(hk_get_double(*t, i));
        e->finite &= isfinite(x) && x < 1e6;
        e->largest = fmax(e->largest, x);
    }
    return HK_OK;
}

static void compare(const hk_tensor *device, const hk_tensor *host, const extent *e)
{
    hk_shape a = hk_tensor_shape(device), b = hk_tensor_shape(host);
    check(hk_shape_equal(&a, &b) && device->dtype == host->dtype);
    for (int64_t i = 0, n = hk_tensor_count(host); i < n && e->finite; i++)
        check(fabs(hk_get_double(device, i) - hk_get_double(host, i)) <= 2e-2 * (1 + e->largest));
}

static hk_status run_device(hk_session *s, const hk_graph *g, const hk_tensor *const *inputs)
{
    for (size_t i = 0; i < g->input_count; i++)
        HK_TRY(hk_session_write(s, g->inputs[i]->name, inputs[i]));
    return hk_session_run(s);
}

static void run_both(hk_model *m, hk_graph *copy, hk_arena *arena, bool comparable)
{
    const hk_graph *g = hk_model_graph(m);
    const hk_tensor **inputs = hk_arena_array(arena, g->input_count + 1, sizeof *inputs);
    hk_tensor **outputs = hk_arena_array(arena, g->output_count + 1, sizeof *outputs);
    uint32_t random = 1;
    extent e = {.finite = true};
    hk_session *s = NULL;
    check(inputs != NULL && outputs != NULL);
    for (size_t i = 0; i < g->input_count; i++)
        check((inputs[i] = make_input(arena, g->inputs[i], &random)) != NULL);
    hk_status host = hk_host_trace(copy, arena, inputs, outputs, NULL, note_extent, &e);
    check(host != HK_STATUS_INTERNAL);
    hk_status st = hk_session_create(dev, m, NULL, &s);
    if (st == HK_OK)
        st = run_device(s, g, inputs);
    check(st == HK_OK || (st != HK_STATUS_INTERNAL && st != HK_STATUS_DEVICE_LOST));
    for (size_t i = 0; i < g->output_count && st == HK_OK && host == HK_OK; i++) {
        hk_tensor t = {0};
        check(hk_session_read(s, g->outputs[i]->name, &t) == HK_OK);
        if (comparable)
            compare(&t, outputs[i], &e);
        hk_tensor_release(&t);
    }
    hk_session_destroy(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    hk_model *m = NULL;
    hk_graph *copy = NULL;
    size_t problems = 0;
    bool comparable = true;
    if (runs++ % RUNS_PER_DEVICE == 0 && runs > 1) { /* so that pipelines do not gather without end */
        hk_device_close(&dev);
        hk_context_destroy(&ctx);
        check(open_device() == HK_OK);
    }
    if (hk_model_load_memory(ctx, data, bytes, NULL, &m) != HK_OK)
        return 0;
    check(hk_model_check(m) == HK_OK);
    hk_model_problems(m, &problems);
    if (problems == 0 && is_quick(hk_model_graph(m), &comparable)) {
        hk_arena *arena = hk_arena_create(ctx);
        check(arena != NULL && hk_graph_clone(hk_model_graph(m), &copy) == HK_OK);
        run_both(m, copy, arena, comparable);
        hk_graph_destroy(&copy);
        hk_arena_destroy(&arena);
    }
    hk_model_destroy(&m);
    return 0;
}
