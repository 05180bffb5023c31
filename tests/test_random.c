/*
 * Random operators by statistics, on the host: that the device draws the same bits is in test_ops. Bounds are five
 * standard deviations of what is estimated, and the numbers are always the same.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "ops/op.h"
#include "ops/step.h"
#include "runtime/host.h"
#include "shaders/random_math.push.h"

enum { SAMPLES = 100, SIZE = 1000, COUNT = SAMPLES * SIZE };

typedef struct bench {
    hk_context *ctx;
    hk_arena *arena;
} bench;

/* One node's output; x may be NULL. */
static const hk_tensor *made(bench *b, const char *type, const hk_attr_value *attrs, const hk_tensor *x, uint32_t step)
{
    hk_graph *g = NULL;
    hk_tensor *result = NULL;
    const hk_step block = {.seed = {3, 4}, .step = step};
    assert_int_equal(hk_graph_create(b->ctx, "random", &g), HK_OK);
    hk_value *in = NULL, *out = NULL;
    if (x) {
        hk_shape shape = hk_tensor_shape(x);
        in = hk_graph_value(g, "x", HK_VALUE_INPUT, x->dtype, &shape);
        assert_true(in && hk_graph_add_input(g, in));
    }
    assert_int_equal(hk_build(g, type, attrs, &in, x ? 1 : 0, &out, 1), HK_OK);
    assert_true(hk_graph_add_output(g, out));
    assert_int_equal(hk_host_run(g, b->arena, &x, &result, &block), HK_OK);
    hk_graph_destroy(&g);
    return result;
}

static double moment(const hk_tensor *t, double center, int power)
{
    double sum = 0;
    int64_t count = hk_tensor_count(t);
    for (int64_t i = 0; i < count; i++)
        sum += pow(hk_get_double(t, i) - center, power);
    return sum / (double)count;
}

static double correlation(const hk_tensor *x, const hk_tensor *y, int64_t shift)
{
    double mx = moment(x, 0, 1), my = moment(y, 0, 1), sum = 0;
    for (int64_t i = 0; i + shift < COUNT; i++)
        sum += (hk_get_double(x, i) - mx) * (hk_get_double(y, i + shift) - my);
    return sum / (double)COUNT / sqrt(moment(x, mx, 2) * moment(y, my, 2));
}

static const int64_t shape[] = {SAMPLES, SIZE};

static void test_uniform(void **state)
{
    bench *b = *state;
    const hk_attr_value attrs[] = {HK_SET_INTS("shape", shape, 2),
                                   HK_SET_FLOAT("low", -1.0f),
                                   HK_SET_FLOAT("high", 3.0f),
                                   HK_SET_INT("hk.stream", 1),
                                   {0}};
    const hk_attr_value other[] = {HK_SET_INTS("shape", shape, 2), HK_SET_INT("hk.stream", 2), {0}};
    const hk_tensor *x = made(b, "RandomUniform", attrs, NULL, 0), *later = made(b, "RandomUniform", attrs, NULL, 1),
                    *stream = made(b, "RandomUniform", other, NULL, 0);
    int64_t bins[16] = {0};
    double chi = 0, expected = (double)COUNT / 16;
    for (int64_t i = 0; i < COUNT; i++) {
        double v = hk_get_double(x, i);
        assert_true(v >= -1 && v < 3);
        bins[(int)((v + 1) * 4)]++;
    }
    for (int i = 0; i < 16; i++)
        chi += ((double)bins[i] - expected) * ((double)bins[i] - expected) / expected;
    assert_true(chi < 15 + 5 * sqrt(30.0));
    assert_true(fabs(moment(x, 0, 1) - 1) < 5 * sqrt(16.0 / 12 / COUNT));
    assert_true(fabs(moment(x, 1, 2) - 16.0 / 12) < 0.03);
    double bound = 5 / sqrt((double)COUNT);
    for (int64_t shift = 1; shift < 6; shift++) /* neighbours, within a counter and beyond */
        assert_true(fabs(correlation(x, x, shift)) < bound);
    assert_true(fabs(correlation(x, x, SIZE)) < bound); /* samples */
    assert_true(fabs(correlation(x, later, 0)) < bound);
    assert_true(fabs(correlation(x, stream, 0)) < bound);
}

static void test_normal(void **state)
{
    bench *b = *state;
    const hk_attr_value attrs[] = {
        HK_SET_INTS("shape", shape, 2), HK_SET_FLOAT("mean", 2.0f), HK_SET_FLOAT("scale", 3.0f), {0}};
    const hk_tensor *x = made(b, "RandomNormal", attrs, NULL, 0);
    int64_t inside = 0;
    for (int64_t i = 0; i < COUNT; i++)
        inside += fabs(hk_get_double(x, i) - 2) < 3;
    assert_true(fabs(moment(x, 0, 1) - 2) < 5 * 3 / sqrt((double)COUNT));
    assert_true(fabs(moment(x, 2, 2) / 9 - 1) < 5 * sqrt(2.0 / COUNT));
    assert_true(fabs(moment(x, 2, 3) / 27) < 5 * sqrt(15.0 / COUNT));
    assert_true(fabs(moment(x, 2, 4) / 81 - 3) < 5 * sqrt(96.0 / COUNT));
    assert_true(fabs((double)inside / COUNT - 0.6827) < 5 * sqrt(0.22 / COUNT));
    assert_true(fabs(correlation(x, x, 1)) < 5 / sqrt((double)COUNT));
}

/* The functions behind the numbers against double precision: units of 2^-23 relative to what a rounding could lose. */
static void test_functions(void **state)
{
    (void)state;
    double log_worst = 0, sine_worst = 0;
    for (uint32_t i = 1; i <= 1u << 24; i += 61) {
        float u = (float)i * 0x1p-24f;
        double want = log((double)u), least = fmax(fabs(want), 0x1p-24);
        log_worst = fmax(log_worst, fabs((double)random_log(u) - want) / least);
        want = sin(6.283185307179586 * (double)i * 0x1p-24);
        sine_worst = fmax(sine_worst, fabs((double)random_sine(i << 8) - want));
    }
    assert_true(log_worst < 3 * 0x1p-23);
    assert_true(sine_worst < 0x1p-23);
    /* the ends: u = 1 and 2^-24, and Gumbel's shortest and longest */
    assert_true(random_normal(0xffffffffu, 0, true) == 0);
    assert_true(fabs((double)random_normal(0, 0, true) - sqrt(48 * 0.6931471805599453)) < 1e-5);
    assert_true(fabs((double)random_gumbel(0) + log(24 * 0.6931471805599453)) < 1e-6);
    assert_true(fabs((double)random_gumbel(0xffffffffu) - 24 * 0.6931471805599453) < 1e-5);
    assert_true(random_unit(0xffffffffu) < 1 && random_unit(0) == 0);
}

static void test_gumbel(void **state)
{
    bench *b = *state;
    const hk_attr_value attrs[] = {HK_SET_INTS("shape", shape, 2), HK_SET_INT("distribution", RANDOM_GUMBEL), {0}};
    const hk_tensor *x = made(b, "hk.Random", attrs, NULL, 0);
    double mean = 0.5772156649015329, variance = 9.869604401089358 / 6, at_most_0 = 0;
    for (int64_t i = 0; i < COUNT; i++)
        at_most_0 += hk_get_double(x, i) <= 0;
    assert_true(fabs(moment(x, 0, 1) - mean) < 5 * sqrt(variance / COUNT));
    assert_true(fabs(moment(x, mean, 2) / variance - 1) < 5 * sqrt(4.4 / COUNT)); /* its kurtosis is 5.4 */
    assert_true(fabs(at_most_0 / COUNT - exp(-1)) < 5 * sqrt(0.2326 / COUNT));
}

static void test_bernoulli(void **state)
{
    bench *b = *state;
    const hk_shape s = {.rank = 2, .dim = {SAMPLES, SIZE}};
    hk_tensor *p = hk_tensor_new(b->arena, HK_FLOAT32, &s);
    assert_non_null(p);
    const double levels[] = {0, 0.1, 0.5, 0.9, 1};
    for (int64_t i = 0; i < COUNT; i++)
        hk_set_double(p, i, levels[i % 5]);
    const hk_tensor *y = made(b, "Bernoulli", NULL, p, 0);
    double ones[5] = {0};
    for (int64_t i = 0; i < COUNT; i++)
        ones[i % 5] += hk_get_double(y, i);
    for (int k = 0; k < 5; k++) {
        double n = COUNT / 5.0, deviation = sqrt(n * levels[k] * (1 - levels[k]));
        assert_true(fabs(ones[k] - n * levels[k]) <= 5 * deviation + 0.01 * deviation);
    }
}

static void test_multinomial(void **state)
{
    bench *b = *state;
    const hk_shape s = {.rank = 2, .dim = {1, 4}};
    const double p[] = {0.1, 0.2, 0.3, 0.4};
    hk_tensor *x = hk_tensor_new(b->arena, HK_FLOAT32, &s);
    assert_non_null(x);
    for (int64_t i = 0; i < 4; i++)
        hk_set_double(x, i, log(p[i]) + 7); /* probabilities need not be normalized */
    const hk_attr_value attrs[] = {HK_SET_INT("sample_size", 20000), {0}};
    const hk_tensor *y = made(b, "Multinomial", attrs, x, 0);
    double drawn[4] = {0};
    assert_int_equal(y->dtype, HK_INT32);
    for (int64_t i = 0; i < 20000; i++)
        drawn[hk_get_int(y, i)]++;
    for (int k = 0; k < 4; k++)
        assert_true(fabs(drawn[k] - 20000 * p[k]) < 5 * sqrt(20000 * p[k] * (1 - p[k])));
}

static int start(void **state)
{
    static bench b;
    if (hk_context_create(NULL, &b.ctx) != HK_OK)
        return -1;
    b.arena = hk_arena_create(b.ctx);
    *state = &b;
    return b.arena ? 0 : -1;
}

static int stop(void **state)
{
    bench *b = *state;
    hk_arena_destroy(&b->arena);
    hk_context_destroy(&b->ctx);
    return 0;
}

/* An argument is a pattern of test names to run. */
int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_uniform, start, stop),
        cmocka_unit_test_setup_teardown(test_normal, start, stop),
        cmocka_unit_test(test_functions),
        cmocka_unit_test_setup_teardown(test_gumbel, start, stop),
        cmocka_unit_test_setup_teardown(test_bernoulli, start, stop),
        cmocka_unit_test_setup_teardown(test_multinomial, start, stop),
    };
    return cmocka_run_group_tests_name("random", tests, NULL, NULL);
}
