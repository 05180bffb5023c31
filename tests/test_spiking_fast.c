/*
 * Spikes on matrix units: stored as float16 between neurons and products, in precision high taken without a low half,
 * and made in the product's epilogue in inference. Weights and inputs are dyadic, so that every sum is exact and all
 * precisions have the same spikes. Matrix units are emulated where the device has none.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/program.h"
#include "tests/support/spiking.h"

enum { STEPS = 4, SAMPLES = 16, ROWS = STEPS * SAMPLES, WIDTH = 64, HIDDEN = 96 };

/* Multiples of 1/16 in [-1, 1). */
static void fill_dyadic(float *x, size_t n, uint32_t seed)
{
    fill_random(x, n, seed, 1.0);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(int)(x[i] * 16) / 16;
}

static hk_value *dyadic(hk_graph *g, const char *name, int32_t rank, const int64_t *dims, uint32_t seed)
{
    static float numbers[HIDDEN * HIDDEN];
    size_t n = 1;
    for (int32_t d = 0; d < rank; d++)
        n *= (size_t)dims[d];
    fill_dyadic(numbers, n, seed);
    return floats(g, name, numbers, rank, dims);
}

static hk_value *reshaped(hk_graph *g, const char *name, hk_value *x, int32_t rank, const int64_t *dims)
{
    hk_value *shape = hk_graph_ints(g, dims, rank);
    assert_non_null(shape);
    return op(g, "Reshape", name, NULL, x, shape, NULL);
}

/* A product with bias, and the spikes of neurons that take it. */
static hk_value *layer(hk_graph *g, const char *name, hk_value *x, int64_t from, int64_t to, const char *kind)
{
    char text[4][32];
    const hk_attr_value attrs[] = {HK_SET_INT("steps", STEPS), HK_SET_STRING("kind", kind), {0}};
    const hk_attr_value transposed[] = {HK_SET_INT("transB", 1), {0}};
    for (int i = 0; i < 4; i++)
        snprintf(text[i], sizeof text[i], "%s.%d", name, i);
    x = op(g, "Gemm", text[0], transposed, x, dyadic(g, text[1], 2, (const int64_t[]){to, from}, (uint32_t)(from + to)),
           dyadic(g, text[2], 1, &to, (uint32_t)to));
    x = reshaped(g, text[3], x, 3, (const int64_t[]){STEPS, SAMPLES, to});
    hk_value *in[] = {x}, *s = NULL;
    OK(hk_build(g, "hk.Neuron", attrs, in, 1, &s, 1));
    snprintf(text[0], sizeof text[0], "%s.s", name);
    return reshaped(g, text[0], s, 2, (const int64_t[]){ROWS, to});
}

static hk_model *network(void)
{
    hk_value *x = NULL;
    hk_graph *g = new_graph(&x, 2, (const int64_t[]){ROWS, WIDTH});
    hk_value *y = layer(g, "first", x, WIDTH, HIDDEN, "LIF");
    y = layer(g, "second", y, HIDDEN, HIDDEN, "IF");
    y = layer(g, "third", y, HIDDEN, WIDTH, "LIF");
    y = op(g, "MatMul", "head", NULL, y, dyadic(g, "head.w", 2, (const int64_t[]){WIDTH, WIDTH}, 9), NULL);
    return model_of(g, y);
}

static hk_plan_info run(const hk_model *m, hk_precision precision, uint32_t off, hk_tensor *y)
{
    static float numbers[ROWS * WIDTH];
    hk_session *s = NULL;
    hk_plan_info plan;
    const hk_session_params params = {.size = sizeof params, .precision = precision, .passes_off = off};
    hk_tensor x = tensor_of(numbers, 2, (const int64_t[]){ROWS, WIDTH});
    fill_dyadic(numbers, ROWS * WIDTH, 5);
    OK(hk_session_create(dev, m, &params, &s));
    OK(hk_session_write(s, "x", &x));
    OK(hk_session_run(s));
    OK(hk_session_read(s, "y", y));
    OK(hk_session_get_plan(s, &plan));
    hk_session_destroy(&s);
    return plan;
}

static double share_of_ones(const hk_tensor *y)
{
    int64_t other = 0;
    for (int64_t i = 0; i < hk_tensor_count(y); i++)
        other += ((const float *)y->data)[i] != 0;
    return (double)other / (double)hk_tensor_count(y);
}

static void spikes_are_equal_in_all_precisions(void **state)
{
    (void)state;
    static const struct {
        hk_precision precision;
        uint32_t off;
        const char *name;
    } list[] = {{HK_PRECISION_HIGH, 0, "high"},
                {HK_PRECISION_HIGH, 1u << HK_PASS_EPILOGUES, "high, products and neurons apart"},
                {HK_PRECISION_FAST, 0, "fast"},
                {HK_PRECISION_FAST, 1u << HK_PASS_EPILOGUES, "fast, products and neurons apart"}};
    hk_model *m = network();
    hk_tensor want = {0};
    const hk_plan_info strict = run(m, HK_PRECISION_STRICT, 0, &want);
    assert_true(share_of_ones(&want) > 0.5);
    size_t dispatches[sizeof list / sizeof *list];
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        hk_tensor got = {0};
        const hk_plan_info plan = run(m, list[i].precision, list[i].off, &got);
        dispatches[i] = plan.dispatches;
        print_message("%s: %zu dispatches, %llu bytes live at once (strict %zu, %llu)\n", list[i].name, plan.dispatches,
                      (unsigned long long)plan.live_bytes, strict.dispatches, (unsigned long long)strict.live_bytes);
        if (list[i].precision == HK_PRECISION_FAST)
            assert_true(plan.live_bytes < strict.live_bytes);
        assert_int_equal(hk_tensor_bytes(&got), hk_tensor_bytes(&want));
        assert_memory_equal(got.data, want.data, (size_t)hk_tensor_bytes(&want));
        hk_tensor_release(&got);
    }
    assert_true(dispatches[2] < dispatches[3]);
    hk_tensor_release(&want);
    hk_model_destroy(&m);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(spikes_are_equal_in_all_precisions)};
    return test_main(argc, argv, &(test_program){.name = "spiking_fast", TESTS(tests), .debug = "gpu-tuning"});
}
