/*
 * Fuzz target: bytes → model → plan, TensorProto and .npy, without a device. With libFuzzer (clang -fsanitize=fuzzer),
 * or, compiled with -DHK_FUZZ_STANDALONE, a program that runs it on the files it is given, to replay a corpus.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static void check(bool holds)
{
    if (!holds)
        abort(); /* the fuzzer keeps the input */
}

/* What every imported graph promises to those who work on it; all constants are read, so that a view outside of the
 * file is seen. Returns a sum nobody needs, to keep the reads. */
static uint8_t look_at(const hk_graph *g)
{
    uint8_t sum = 0;
    for (size_t i = 0; i < g->value_count; i++) {
        const hk_value *v = g->values[i];
        check(v->name[0] != '\0' && v->graph == g && v->id == i && v->shape.rank <= HK_MAX_RANK);
        if (v->data == NULL)
            continue;
        check(v->data->dtype == v->dtype);
        for (int64_t k = 0, n = hk_tensor_bytes(v->data); k < n; k++)
            sum = (uint8_t)(sum + ((const uint8_t *)v->data->data)[k]);
    }
    for (size_t i = 0; i < g->node_count; i++) {
        const hk_node *n = g->nodes[i];
        check(n->id == i);
        for (int32_t k = 0; k < n->in_count; k++)
            check(n->in[k] == NULL || n->in[k]->producer == NULL || n->in[k]->graph != g || n->in[k]->producer->id < i);
        for (int32_t k = 0; k < n->out_count; k++)
            check(n->out[k] == NULL || n->out[k]->producer == n);
        for (int32_t k = 0; k < n->body_count; k++)
            sum = (uint8_t)(sum + look_at(n->bodies[k]));
    }
    return sum;
}

static void run_model(hk_context *ctx, const uint8_t *data, size_t bytes)
{
    hk_model *m = NULL;
    hk_status st = hk_model_load_memory(ctx, data, bytes, NULL, &m);
    check(st == HK_OK || hk_context_error(ctx)[0] != '\0');
    check(st != HK_STATUS_INTERNAL);
    if (st != HK_OK)
        return;
    volatile uint8_t sum = look_at(hk_model_graph(m));
    (void)sum;
    hk_graph *copy = NULL;
    check(hk_graph_clone(hk_model_graph(m), &copy) == HK_OK);
    hk_graph_destroy(&copy);
    st = hk_model_check(m);
    check(st == HK_OK || st == HK_STATUS_OUT_OF_MEMORY);
    hk_model_destroy(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    hk_context *ctx = NULL;
    hk_tensor t = {0};
    if (hk_context_create(NULL, &ctx) != HK_OK)
        return 0;
    run_model(ctx, data, bytes);
    for (hk_dtype list = HK_SEQUENCE; list <= HK_OPTIONAL; list++)
        if (hk_pb_read(ctx, "input", data, bytes, list, &t) == HK_OK)
            hk_tensor_release(&t);
    if (hk_pb_read(ctx, "input", data, bytes, HK_DTYPE_NONE, &t) == HK_OK)
        hk_tensor_release(&t);
    if (hk_npy_read(ctx, "input", data, bytes, &t) == HK_OK)
        hk_tensor_release(&t);
    hk_context_destroy(&ctx);
    return 0;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    return 0;
}
