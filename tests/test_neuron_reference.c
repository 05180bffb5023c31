/*
 * Spiking neurons against SpikingJelly in fp64: every kind, reset, decay of the input and detached reset with three
 * surrogates over 1, 4, 32 and 100 steps, from an initial potential, with the gradients of that, of tau (by
 * ParametricLIF's w) and of the threshold; inputs that meet the threshold exactly; and other frameworks' traces.
 * tests/data/README.md has the format; inputs are made here from seeds.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/philox.h"
#include "tests/support/neuron_problem.h"

enum { CASES = 250, NEURONS = 6, OF_CASE = 2 * NEURONS + 2 }; /* V_T, gV0, gw, gtheta */

typedef struct fixture {
    neuron_problem p;
    int ties;
    uint32_t seed;
    long first; /* element of the spikes and of gX */
} fixture;

static uint32_t word(uint32_t seed, uint32_t stream, int64_t i)
{
    uint32_t out[4];
    hk_philox((const uint32_t[2]){seed, stream}, (const uint32_t[4]){(uint32_t)(i / 4), 0, 0, 0}, out);
    return out[i % 4];
}

/* Uniform in [-k, k), float32. */
static float draw(uint32_t seed, uint32_t stream, int64_t i, float k)
{
    return (2 * ((float)(word(seed, stream, i) >> 8) * 0x1p-24f) - 1) * k;
}

static double *drawn(neuron_bench *b, const fixture *f, uint32_t stream, int64_t count, float k)
{
    double *x = hk_arena_array(b->arena, (size_t)count, sizeof *x);
    assert_non_null(x);
    for (int64_t i = 0; i < count; i++)
        x[i] = (double)draw(f->seed, stream, i, k);
    return x;
}

/* Multiples of 1/4 in [-1, 1.75], or numbers around 0.4. */
static double *input(neuron_bench *b, const fixture *f)
{
    int64_t count = f->p.steps * NEURONS;
    float gain = f->p.attrs.decay_input ? 2.5f : 1;
    double *x = hk_arena_array(b->arena, (size_t)count, sizeof *x);
    assert_non_null(x);
    for (int64_t i = 0; i < count; i++) {
        float around = draw(f->seed, 0, i, 1) + .4f;
        x[i] = f->ties ? (double)((word(f->seed, 0, i) >> 8) * UINT64_C(12) >> 24) / 4 - 1 : (double)(around * gain);
    }
    return x;
}

static void read_case(neuron_bench *b, FILE *file, size_t number, fixture *f)
{
    char kind[16], surrogate[16];
    int soft, decay, detach, steps;
    float tau, theta, v_reset;
    assert_int_equal(fscanf(file, "%15s %15s %d %d %d %d %f %f %f %d %u", kind, surrogate, &soft, &decay, &detach,
                            &steps, &tau, &theta, &v_reset, &f->ties, &f->seed),
                     11);
    bool parametric = !strcmp(kind, "ParametricLIF");
    f->p = (neuron_problem){
        .attrs = neuron_defaults, .dtype = HK_FLOAT32, .steps = steps, .neurons = {.rank = 2, .dim = {2, NEURONS / 2}}};
    hk_neuron_attrs *a = &f->p.attrs;
    a->steps = steps;
    a->kind = hk_arena_format(b->arena, "%s", kind);
    a->surrogate = hk_arena_format(b->arena, "%s", surrogate);
    a->reset = soft ? "soft" : "hard";
    a->decay_input = decay;
    a->detach_reset = detach;
    a->tau = parametric ? 2 : tau;
    a->v_threshold = theta;
    a->v_reset = v_reset;
    f->p.in[X] = input(b, f);
    f->p.in[V0] = drawn(b, f, 2, NEURONS, f->ties ? 0 : .5f);
    f->p.in[GS] = drawn(b, f, 1, steps * NEURONS, 1);
    f->p.in[GV] = drawn(b, f, 3, NEURONS, 1);
    double *scalars = hk_arena_array(b->arena, 2, sizeof *scalars);
    assert_true(scalars && a->kind && a->surrogate);
    scalars[0] = (double)tau;
    scalars[1] = (double)theta;
    f->p.in[W] = parametric ? &scalars[0] : NULL;
    f->p.thetas = number % 2; /* the threshold as an attribute and as an operand, which alone has a gradient */
    f->p.in[THETA] = f->p.thetas ? &scalars[1] : NULL;
}

static hk_tensor *load(neuron_bench *b, const char *name)
{
    char path[512];
    hk_tensor *t = hk_arena_new(b->arena, hk_tensor);
    snprintf(path, sizeof path, "%s/neuron/%s", HK_TEST_DATA, name);
    assert_non_null(t);
    neuron_need(b, hk_tensor_load(b->ctx, path, t));
    return t;
}

/* The root of the sum of squares of count elements. */
static double norm_of(const hk_tensor *t, long at, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += hk_get_double(t, at + i) * hk_get_double(t, at + i);
    return sqrt(sum);
}

/* Every error is at most 1e-5 of its element, or of what is usual for elements near 0. */
static void near_relative(const fixture *f, const char *what, const hk_tensor *found, const hk_tensor *expected,
                          long at, double usual)
{
    for (int64_t i = 0; i < hk_tensor_count(found); i++) {
        double x = hk_get_double(found, i), y = hk_get_double(expected, at + i);
        if (fabs(x - y) <= 1e-5 * fmax(fabs(y), usual))
            continue;
        print_error("%s, seed %u: %s[%d] is %.9g, expected %.9g\n", neuron_describe(&f->p), f->seed, what, (int)i, x,
                    y);
        fail();
    }
}

static void check_case(const fixture *f, long number, const hk_tensor *spikes, const hk_tensor *gx,
                       const hk_tensor *rest)
{
    const neuron_problem *p = &f->p;
    const uint8_t *bits = spikes->data;
    for (int64_t k = 0; k < p->steps * NEURONS; k++) {
        long at = f->first + (long)k;
        neuron_near(p, "S", hk_get_double(p->out[S], k), bits[at / 8] >> at % 8 & 1, 0);
    }
    long at = number * OF_CASE;
    if (f->ties) /* nothing is rounded */
        for (int64_t k = 0; k < NEURONS; k++)
            assert_true(hk_get_double(p->out[V], k) == hk_get_double(rest, at + k));
    double whole = norm_of(gx, f->first, p->steps * NEURONS), root = sqrt((double)NEURONS);
    near_relative(f, "gX", p->out[GX], gx, f->first, whole / sqrt((double)p->steps * NEURONS));
    near_relative(f, "V_T", p->out[V], rest, at, norm_of(rest, at, NEURONS) / root);
    near_relative(f, "gV0", p->out[GV0], rest, at + NEURONS, norm_of(rest, at + NEURONS, NEURONS) / root);
    if (p->out[GW]) /* sums over all steps and neurons, whose terms cancel */
        near_relative(f, "gw", p->out[GW], rest, at + 2 * NEURONS, whole);
    if (p->out[GTHETA])
        near_relative(f, "gtheta", p->out[GTHETA], rest, at + 2 * NEURONS + 1, whole);
}

/* All of them in one graph, so that the device makes one plan. */
static void check_fixtures(neuron_bench *b, bool device)
{
    hk_tensor *spikes = load(b, "spikes.npy"), *gx = load(b, "gx.npy"), *rest = load(b, "rest.npy");
    FILE *file = fopen(HK_TEST_DATA "/neuron/cases.txt", "r");
    fixture *f = hk_arena_array(b->arena, CASES, sizeof *f);
    int count = 0, neurons = 0;
    long first = 0;
    assert_true(file && f);
    assert_int_equal(fscanf(file, "%d %d", &count, &neurons), 2);
    assert_int_equal(count, CASES);
    assert_int_equal(neurons, NEURONS);
    for (size_t i = 0; i < CASES; i++) {
        read_case(b, file, i, &f[i]);
        f[i].first = first;
        first += (long)f[i].p.steps * NEURONS;
        neuron_add(b, &f[i].p);
    }
    fclose(file);
    assert_int_equal(hk_tensor_count(gx), first);
    hk_tensor **outputs = neuron_run(b, device);
    for (long i = 0; i < CASES; i++) {
        neuron_take(&f[i].p, outputs);
        check_case(&f[i], i, spikes, gx, rest);
    }
    hk_tensor_release(spikes);
    hk_tensor_release(gx);
    hk_tensor_release(rest);
}

static void test_spikingjelly_on_the_host(void **state)
{
    check_fixtures(*state, false);
}

static void test_spikingjelly_on_the_device(void **state)
{
    neuron_bench *b = *state;
    if (!b->dev)
        skip();
    check_fixtures(b, true);
}

/* ---------------------------------------------------------------- other people's traces */

/* NIR's golden trace of an Affine and a LIF (its paper's 01_lif/lif_norse): tau 0.0025 and dt 1e-4 are 25 steps, v_leak
 * and v_reset 0, threshold 0.1. Its file has the spikes, and the potentials' sum is that of a hard reset alone. */
static void check_nir_trace(neuron_bench *b, hk_dtype dtype, bool device)
{
    static const int once[] = {60, 220, 270, 310, 320, 350, 370, 400, 410, 840, 850}, fires[] = {460, 510, 710, 760};
    enum { STEPS = 1000 };
    double x[STEPS] = {0}, sum = 0;
    neuron_problem p = {
        .attrs = neuron_defaults, .dtype = dtype, .steps = STEPS, .neurons = {.rank = 1, .dim = {1}}, .in = {x}};
    p.attrs.steps = STEPS;
    p.attrs.tau = 25;
    p.attrs.decay_input = 1;
    p.attrs.v_threshold = .1f;
    for (size_t i = 0; i < HK_COUNT(once); i++)
        x[once[i]] = 1;
    for (int t = 430; t <= 530; t += 10)
        x[t] = 1;
    for (int t = 670; t <= 780; t += 10)
        x[t] = 1;
    neuron_solve(b, &p, device);
    for (int t = 0; t < STEPS; t++) {
        bool fired = false;
        for (size_t i = 0; i < HK_COUNT(fires); i++)
            fired = fired || t == fires[i];
        neuron_near(&p, "S", hk_get_double(p.out[S], t), fired, 0);
        sum += hk_get_double(p.out[V_SEQ], t);
    }
    assert_true(fabs(sum - 23.547) < 5e-4);
}

static void test_nir_trace(void **state)
{
    neuron_bench *b = *state;
    check_nir_trace(b, HK_FLOAT64, false);
    check_nir_trace(b, HK_FLOAT32, false);
    if (b->dev)
        check_nir_trace(b, HK_FLOAT32, true);
}

/* A constant input x makes IF neurons that start at half the threshold fire T clip(x, 0, 1) times, rounded:
 * SpikingJelly's HalfThresholdIF at T = 1, and a rate within 1/T of the activation at any. */
static void test_rates_follow_the_input(void **state)
{
    enum { COUNT = 8, STEPS = 32 };
    static const double level[COUNT] = {.6, .4, -.3, 1.7, .31, .77, 0, 1};
    neuron_bench *b = *state;
    double x[COUNT * STEPS], v0[COUNT];
    for (int i = 0; i < COUNT * STEPS; i++)
        x[i] = level[i % COUNT];
    for (int i = 0; i < COUNT; i++)
        v0[i] = .5;
    for (int steps = 1; steps <= STEPS; steps *= 2) {
        neuron_problem p = {.attrs = neuron_defaults,
                            .dtype = HK_FLOAT32,
                            .steps = steps,
                            .neurons = {.rank = 1, .dim = {COUNT}},
                            .in = {x, v0}};
        p.attrs.kind = "IF";
        p.attrs.reset = "soft";
        p.attrs.steps = steps;
        neuron_solve(b, &p, b->dev != NULL);
        for (int i = 0; i < COUNT; i++) {
            double count = 0, clipped = fmin(fmax(level[i], 0), 1);
            for (int t = 0; t < steps; t++)
                count += hk_get_double(p.out[S], t * COUNT + i);
            assert_true(fabs(count / steps - clipped) <= .5 / steps + 1e-6);
        }
    }
}

int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
#define TEST(name) cmocka_unit_test_setup_teardown(name, neuron_bench_begin, neuron_bench_end)
    const struct CMUnitTest tests[] = {
        TEST(test_spikingjelly_on_the_host),
        TEST(test_spikingjelly_on_the_device),
        TEST(test_nir_trace),
        TEST(test_rates_follow_the_input),
    };
    return cmocka_run_group_tests(tests, neuron_bench_open, neuron_bench_close);
}
