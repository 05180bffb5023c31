/*
 * Attention on matrix units, emulated where the device has none: float16 operands through graphs that are lowered as
 * precision `fast` lowers them. The host's evaluation is the reference.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/gpu.h"
#include "tests/support/records.h"

typedef struct attention_case {
    int64_t batch, heads, kv_heads, rows, keys, size, v_size;
    int64_t mask[4]; /* its shape; all 0: none */
    bool causal, lengths;
    uint32_t units; /* few make a workgroup take more queries */
} attention_case;

static hk_value *operand(hk_graph *g, const char *name, const int64_t *dims, hk_dtype dtype)
{
    hk_shape s = {.rank = 4};
    memcpy(s.dim, dims, 4 * sizeof *dims);
    hk_value *v = hk_graph_value(g, name, HK_VALUE_INPUT, dtype, &s);
    assert_non_null(v);
    assert_true(hk_graph_add_input(g, v));
    return v;
}

static hk_value *halved(hk_graph *g, const char *name, const int64_t *dims)
{
    const hk_attr_value attrs[] = {HK_SET_INT("to", HK_FLOAT16), {0}};
    hk_value *v = operand(g, name, dims, HK_FLOAT32), *y = NULL;
    assert_int_equal(hk_build(g, "hk.Convert", attrs, &v, 1, &y, 1), HK_OK);
    return y;
}

static void run_case(fixture *f, const attention_case *c, bool half_result)
{
    hk_graph *g = NULL;
    assert_int_equal(hk_graph_create(f->ctx, "attention", &g), HK_OK);
    const int64_t q[] = {c->batch, c->heads, c->rows, c->size}, k[] = {c->batch, c->kv_heads, c->keys, c->size},
                  v[] = {c->batch, c->kv_heads, c->keys, c->v_size};
    const hk_attr_value attrs[] = {HK_SET_INT("is_causal", c->causal), {0}},
                        back[] = {HK_SET_INT("to", HK_FLOAT32), {0}};
    hk_value *in[4] = {halved(g, "q", q), halved(g, "k", k), halved(g, "v", v), NULL}, *y = NULL;
    if (c->mask[0])
        in[3] = operand(g, "mask", c->mask, HK_FLOAT32);
    assert_int_equal(hk_build(g, "Attention", attrs, in, in[3] ? 4 : 3, &y, 1), HK_OK);
    if (half_result) {
        y->storage = HK_FLOAT16;
        assert_int_equal(hk_build(g, "hk.Convert", back, &y, 1, &y, 1), HK_OK);
    }
    assert_true(hk_graph_add_output(g, y));
    hk_records_run run = {
        .gpu_tuning = true, .precision = HK_PRECISION_FAST, .units = c->units, .repeats = 1, .warm_ms = 1};
    if (hk_test_records(f->gpu, g, &run) != HK_OK)
        fail_msg("%s", hk_context_error(f->ctx));
    print_message("[%d,%d,%d,%d] keys %d: relative error %.1e\n", (int)c->batch, (int)c->heads, (int)c->rows,
                  (int)c->size, (int)c->keys, run.error);
    /* probabilities and, where asked for, results are rounded to 11 bits */
    if (!(run.error <= 6e-4))
        fail_msg("[%d,%d,%d,%d] keys %d: relative error %g", (int)c->batch, (int)c->heads, (int)c->rows, (int)c->size,
                 (int)c->keys, run.error);
    bool found = false;
    for (uint32_t i = 0; i < run.record_count; i++)
        found |= strstr(run.variant[i], "attention matrix") != NULL;
    if (hk_gpu_info(f->gpu)->max_shared_bytes >= 32768)
        assert_true(found);
    hk_graph_destroy(&g);
}

static void test_attention_on_units(void **state)
{
    static const attention_case cases[] = {
        {1, 2, 2, 37, 37, 64, 64, {0}, false, false, 0},
        {2, 3, 1, 20, 150, 32, 32, {2, 1, 1, 150}, false, false, 0},
        {1, 2, 2, 70, 70, 32, 32, {0}, true, false, 1},
        {1, 1, 1, 16, 64, 80, 80, {0}, false, false, 0},
        {1, 2, 1, 5, 9, 96, 96, {1, 2, 5, 9}, true, false, 0},
        {1, 1, 1, 33, 130, 128, 128, {0}, false, false, 0},
        {1, 1, 1, 18, 65, 40, 24, {0}, true, false, 0},
    };
    for (size_t i = 0; i < HK_COUNT(cases); i++)
        run_case(*state, &cases[i], i % 2 == 0);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention_on_units),
    };
    int failed = cmocka_run_group_tests(tests, open_device, close_device);
    return failed == (int)HK_COUNT(tests) ? 77 : failed;
}
