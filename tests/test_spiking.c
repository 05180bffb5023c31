/*
 * Spiking networks built of layers: shapes and parameters, step modes and containers that must agree bit for bit,
 * potentials between runs, encoders, readouts, backpropagation through time of whole networks, and training again what
 * was saved.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/philox.h"
#include "core/tensor.h"
#include "tests/support/command.h"
#include "tests/support/program.h"

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

/* ---- small models */

static hk_model *begin(hk_value **x, int32_t rank, const int64_t *shape)
{
    hk_model *m = NULL;
    OK(hk_model_create(ctx, &(hk_build_params){.size = sizeof(hk_build_params), .seed = 5}, &m));
    OK(hk_model_input(m, "x", HK_FLOAT32, rank, shape, x));
    return m;
}

static hk_model *sequence(int32_t rank, const int64_t *shape, const hk_layer *layers, size_t count)
{
    hk_value *x = NULL, *y = NULL;
    hk_model *m = begin(&x, rank, shape);
    OK(hk_add_sequence(m, x, layers, count, &y));
    OK(hk_model_output(m, y, "y"));
    return m;
}

static hk_tensor tensor(float *data, int32_t rank, const int64_t *shape)
{
    hk_tensor t = {.data = data, .dtype = HK_FLOAT32, .rank = rank};
    memcpy(t.shape, shape, (size_t)rank * sizeof *shape);
    return t;
}

/* Uniform in [low, high). */
static float *numbers(size_t count, uint32_t seed, double low, double high)
{
    float *x = malloc((count + 1) * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(low + (high - low) * (double)(seed >> 8) / 16777216.0);
    }
    return x;
}

static hk_session *session(const hk_model *m, bool fresh)
{
    hk_session *s = NULL;
    OK(hk_session_create(dev, m, &(hk_session_params){.size = sizeof(hk_session_params), .fresh = fresh}, &s));
    return s;
}

static hk_tensor once(hk_session *s, const hk_tensor *x)
{
    hk_tensor y = {0};
    OK(hk_session_write(s, "x", x));
    OK(hk_session_run(s));
    OK(hk_session_read(s, "y", &y));
    return y;
}

static hk_tensor run(const hk_model *m, const hk_tensor *x)
{
    hk_session *s = session(m, false);
    hk_tensor y = once(s, x);
    hk_session_destroy(&s);
    return y;
}

static void same_bits(const hk_tensor *a, const void *b)
{
    assert_memory_equal(a->data, b, (size_t)hk_tensor_count(a) * sizeof(float));
}

static int64_t parameters(const hk_model *m)
{
    hk_model_info info;
    hk_model_get_info(m, &info);
    return info.parameter_count;
}

static hk_model *saved_and_loaded(hk_model *m)
{
    hk_model *again = NULL;
    const char *path = in_folder("model.onnx");
    OK(hk_model_save(m, path));
    OK(hk_model_load(ctx, path, NULL, &again));
    return again;
}

/* ---- every spiking layer: shape, parameters, equal bits from its file */

enum { T = 6, N = 3 };

static const struct spiking_case {
    hk_layer layer;
    int32_t rank;
    int64_t shape[5];
    int32_t made_rank;
    int64_t made[5];
    int64_t parameters;
} cases[] = {
    {{.kind = HK_LAYER_IF}, 3, {T, -1, 5}, 3, {T, -1, 5}, 0},
    {{.kind = HK_LAYER_LIF, .tau = 3, .soft_reset = true}, 3, {T, -1, 5}, 3, {T, -1, 5}, 0},
    {{.kind = HK_LAYER_LIF, .decay_input = true, .v_reset = -.25f, .v_threshold = .5f, .time = HK_TIME_LOOP},
     4,
     {T, -1, 2, 3},
     4,
     {T, -1, 2, 3},
     0},
    {{.kind = HK_LAYER_PARAMETRIC_LIF, .tau = 4, .surrogate = "Erf"}, 3, {T, -1, 5}, 3, {T, -1, 5}, 1},
    {{.kind = HK_LAYER_LIF, .step_mode = HK_STEP_SINGLE}, 2, {-1, 5}, 2, {-1, 5}, 0},
    {{.kind = HK_LAYER_POISSON, .steps = T}, 2, {-1, 5}, 3, {T, -1, 5}, 0},
    {{.kind = HK_LAYER_POISSON}, 3, {T, -1, 5}, 3, {T, -1, 5}, 0},
    {{.kind = HK_LAYER_LATENCY, .steps = T}, 3, {-1, 5, 2}, 4, {T, -1, 5, 2}, 0},
    {{.kind = HK_LAYER_DIRECT, .steps = T}, 2, {-1, 5}, 3, {T, -1, 5}, 0},
    {{.kind = HK_LAYER_DELTA, .off_spikes = true}, 3, {T, -1, 5}, 3, {T, -1, 5}, 0},
    {{.kind = HK_LAYER_RATE}, 3, {T, -1, 5}, 2, {-1, 5}, 0},
    {{.kind = HK_LAYER_SPIKE_COUNT}, 3, {T, -1, 5}, 2, {-1, 5}, 0},
    {{.kind = HK_LAYER_LAST}, 3, {T, -1, 5}, 2, {-1, 5}, 0},
    {{.kind = HK_LAYER_MEMBRANE, .tau = 5}, 3, {T, -1, 5}, 2, {-1, 5}, 0},
    {{.kind = HK_LAYER_LINEAR, .out = 4, .time = HK_TIME_FOLD}, 3, {T, -1, 5}, 3, {T, -1, 4}, 24},
    {{.kind = HK_LAYER_LINEAR, .out = 4, .time = HK_TIME_LOOP}, 3, {T, -1, 5}, 3, {T, -1, 4}, 24},
    {{.kind = HK_LAYER_CONV2D, .out = 2, .kernel = {3}, .time = HK_TIME_FOLD},
     5,
     {T, -1, 3, 5, 5},
     5,
     {T, -1, 2, 3, 3},
     56},
    {{.kind = HK_LAYER_MAX_POOL2D, .kernel = {2}, .time = HK_TIME_LOOP}, 5, {T, -1, 3, 4, 4}, 5, {T, -1, 3, 2, 2}, 0},
    {{.kind = HK_LAYER_FLATTEN, .time = HK_TIME_FOLD}, 5, {T, -1, 3, 2, 2}, 3, {T, -1, 12}, 0},
};

static void every_layer(void **state)
{
    (void)state;
    bool seen[HK_LAYER_COUNT] = {false};
    for (size_t i = 0; i < COUNT(cases); i++) {
        const struct spiking_case *c = &cases[i];
        hk_value *x = NULL, *y = NULL;
        hk_value_info info;
        hk_model *m = begin(&x, c->rank, c->shape);
        OK(hk_add(m, x, &c->layer, &y));
        hk_value_get_info(y, &info);
        assert_int_equal(info.rank, c->made_rank);
        assert_memory_equal(info.shape, c->made, (size_t)info.rank * sizeof *info.shape);
        OK(hk_model_output(m, y, "y"));
        assert_int_equal(parameters(m), c->parameters);
        hk_tensor in = tensor(NULL, c->rank, c->shape);
        for (int32_t d = 0; d < c->rank; d++)
            in.shape[d] = in.shape[d] < 0 ? N : in.shape[d];
        in.data = numbers((size_t)hk_tensor_count(&in), 9, 0, 1);
        hk_model *again = saved_and_loaded(m);
        assert_int_equal(parameters(again), c->parameters);
        hk_tensor a = run(m, &in), b = run(again, &in);
        assert_int_equal(a.rank, c->made_rank);
        same_bits(&a, b.data);
        hk_tensor_release(&a);
        hk_tensor_release(&b);
        free(in.data);
        hk_model_destroy(&again);
        hk_model_destroy(&m);
        seen[c->layer.kind] = true;
    }
    for (int k = HK_LAYER_IF; k < HK_LAYER_COUNT; k++)
        if (!seen[k])
            fail_msg("layer kind %d has no case", k);
}

static void mistakes(void **state)
{
    (void)state;
    hk_value *x = NULL, *y = NULL;
    hk_model *m = begin(&x, 3, (int64_t[]){-1, -1, 4});
    refused(hk_add(m, x, &(hk_layer){.kind = HK_LAYER_LIF}, &y), HK_STATUS_USAGE, "dimension 0");
    refused(hk_add(m, x, &(hk_layer){.kind = HK_LAYER_LIF, .step_mode = HK_STEP_SINGLE, .tau = 1}, &y), HK_STATUS_USAGE,
            "above 1");
    refused(hk_add(m, x, &(hk_layer){.kind = HK_LAYER_PARAMETRIC_LIF, .step_mode = HK_STEP_SINGLE, .tau = 1}, &y),
            HK_STATUS_USAGE, "above 1");
    refused(hk_add(m, x, &(hk_layer){.kind = HK_LAYER_IF, .step_mode = HK_STEP_SINGLE, .surrogate = "Atan"}, &y),
            HK_STATUS_USAGE, "expected ATan, Sigmoid");
    refused(hk_add(m, x, &(hk_layer){.kind = HK_LAYER_DIRECT}, &y), HK_STATUS_USAGE, "number of time steps");
    refused(hk_add(m, x, &(hk_layer){.kind = HK_LAYER_RELU, .time = (hk_time)7}, &y), HK_STATUS_USAGE, "HK_TIME_");
    hk_model_destroy(&m);
}

/* ---- one call, a loop of steps in the graph, and a loop of calls */

static const hk_layer neurons[] = {
    {.kind = HK_LAYER_IF, .name = "n", .soft_reset = true},
    {.kind = HK_LAYER_LIF, .name = "n", .tau = 3, .v_reset = -.125f},
    {.kind = HK_LAYER_LIF, .name = "n", .tau = 2.5f, .decay_input = true, .soft_reset = true},
    {.kind = HK_LAYER_PARAMETRIC_LIF, .name = "n", .tau = 1.75f, .v_threshold = .75f},
};

static void step_modes_agree(void **state)
{
    (void)state;
    enum { STEPS = 10, BATCH = 2, WIDTH = 7 };
    const int64_t whole[] = {STEPS, BATCH, WIDTH}, half[] = {STEPS / 2, BATCH, WIDTH}, one[] = {BATCH, WIDTH};
    float *x = numbers(STEPS * BATCH * WIDTH, 3, -.5, 2.5);
    for (size_t i = 0; i < COUNT(neurons); i++) {
        hk_layer looped = neurons[i], single = neurons[i];
        looped.time = HK_TIME_LOOP;
        single.step_mode = HK_STEP_SINGLE;
        hk_model *m = sequence(3, (int64_t[]){STEPS, -1, WIDTH}, &neurons[i], 1);
        hk_model *h = sequence(3, (int64_t[]){STEPS / 2, -1, WIDTH}, &neurons[i], 1);
        hk_model *l = sequence(3, (int64_t[]){STEPS, -1, WIDTH}, &looped, 1);
        hk_model *s = sequence(2, (int64_t[]){-1, WIDTH}, &single, 1);
        hk_tensor all = tensor(x, 3, whole), y = run(m, &all), z = run(l, &all);
        same_bits(&y, z.data);
        double fired = 0;
        for (int64_t k = 0; k < hk_tensor_count(&y); k++)
            fired += (double)((float *)y.data)[k];
        assert_true(fired > STEPS && fired < STEPS * BATCH * WIDTH - STEPS);
        hk_session *steps = session(s, false), *halves = session(h, false);
        for (int round = 0; round < 2; round++) { /* the second begins as the first did */
            for (int t = 0; t < STEPS; t++) {
                hk_tensor now = tensor(x + t * BATCH * WIDTH, 2, one), spikes = once(steps, &now);
                same_bits(&spikes, (float *)y.data + t * BATCH * WIDTH);
                hk_tensor_release(&spikes);
            }
            for (int k = 0; k < 2; k++) {
                hk_tensor now = tensor(x + k * STEPS / 2 * BATCH * WIDTH, 3, half), spikes = once(halves, &now);
                same_bits(&spikes, (float *)y.data + k * STEPS / 2 * BATCH * WIDTH);
                hk_tensor_release(&spikes);
            }
            OK(hk_session_reset(steps));
            OK(hk_session_reset(halves));
        }
        hk_session_destroy(&steps);
        hk_session_destroy(&halves);
        hk_tensor_release(&y);
        hk_tensor_release(&z);
        hk_model_destroy(&m);
        hk_model_destroy(&h);
        hk_model_destroy(&l);
        hk_model_destroy(&s);
    }
    free(x);
}

static void potentials_persist(void **state)
{
    (void)state;
    const hk_layer layer = {.kind = HK_LAYER_LIF, .name = "n", .v_reset = -.5f};
    hk_model *m = sequence(3, (int64_t[]){2, -1, 2}, &layer, 1);
    float x[] = {.9f, 0, .9f, 0, .9f, 0, .9f, 0}; /* T = 2, one sample of two neurons, or two samples */
    hk_tensor one = tensor(x, 3, (int64_t[]){2, 1, 2}), two = tensor(x, 3, (int64_t[]){2, 2, 2});
    hk_session *s = session(m, false), *fresh = session(m, true);
    for (int round = 0; round < 3; round++) {
        hk_tensor a = once(s, &one), b = once(s, &one), f = once(fresh, &one), g = once(fresh, &two);
        /* H = -.5 + .9 = .4, .85; then .175 + .9 = 1.075 fires, and H = .4 again */
        same_bits(&a, (float[]){0, 0, 0, 0});
        same_bits(&b, (float[]){1, 0, 0, 0});
        same_bits(&f, (float[]){0, 0, 0, 0});
        hk_tensor_release(&a);
        hk_tensor_release(&b);
        hk_tensor_release(&f);
        hk_tensor_release(&g);
        OK(hk_session_write(s, "x", &two));
        refused(hk_session_run(s), HK_STATUS_USAGE, "hk_session_reset");
        if (round == 1) { /* other samples in between */
            OK(hk_session_reset(s));
            hk_tensor c = once(s, &two);
            assert_int_equal(c.shape[1], 2);
            hk_tensor_release(&c);
        }
        OK(hk_session_reset(s));
    }
    hk_session_destroy(&s);
    hk_session_destroy(&fresh);
    hk_model_destroy(&m);
}

static void membrane_is_an_output(void **state)
{
    (void)state;
    static const float x[8] = {.6f, .6f, .6f, .6f, 2.5f, 0, 0, -1};
    static const double v[8] = {.6, .9, .05, .625, 1.8125, .90625, .453125, -.7734375};
    for (int looped = 0; looped < 2; looped++) {
        hk_value *in = NULL, *y = NULL, *potential = NULL;
        hk_model *m = begin(&in, 3, (int64_t[]){8, -1, 1});
        OK(hk_add(m, in,
                  &(hk_layer){.kind = HK_LAYER_LIF,
                              .soft_reset = true,
                              .membrane = &potential,
                              .time = looped ? HK_TIME_LOOP : HK_TIME_WHOLE},
                  &y));
        OK(hk_model_output(m, potential, "y"));
        OK(hk_model_output(m, y, "spikes"));
        hk_tensor t = tensor((float *)(uintptr_t)x, 3, (int64_t[]){8, 1, 1}), out = run(m, &t);
        for (int k = 0; k < 8; k++)
            assert_true(fabs((double)((float *)out.data)[k] - v[k]) < 1e-6);
        hk_tensor_release(&out);
        hk_model_destroy(&m);
    }
}

/* Every extent is fixed, and the potential is an output of the network's own: what is counted are its spikes. */
static void monitored(void **state)
{
    (void)state;
    enum { STEPS = 16, BATCH = 2, WIDTH = 5 };
    hk_value *in = NULL, *y = NULL, *potential = NULL;
    hk_model *m = begin(&in, 3, (int64_t[]){STEPS, BATCH, WIDTH}), *watched = NULL;
    OK(hk_add(m, in, &(hk_layer){.kind = HK_LAYER_LIF, .membrane = &potential}, &y));
    OK(hk_model_output(m, y, "y"));
    OK(hk_model_output(m, potential, "potential"));
    float *x = numbers(STEPS * BATCH * WIDTH, 3, 0, 3);
    hk_tensor t = tensor(x, 3, (int64_t[]){STEPS, BATCH, WIDTH}), spikes = run(m, &t), counts = {0}, v = {0};
    double all = 0, counted = 0;
    size_t probes = 0;
    OK(hk_snn_with_steps(m, STEPS, HK_SNN_MONITOR_COUNTS, &watched));
    const hk_snn_probe *probe = hk_snn_probes(watched, &probes);
    assert_int_equal(probes, 1);
    assert_true(probe->neurons == WIDTH);
    hk_session *s = session(watched, false);
    hk_tensor again = once(s, &t);
    same_bits(&again, spikes.data);
    OK(hk_session_read(s, probe->output, &counts));
    OK(hk_session_read(s, "potential", &v));
    for (int64_t i = 0; i < hk_tensor_count(&spikes); i++)
        all += hk_get_double(&spikes, i);
    for (int64_t i = 0; i < hk_tensor_count(&counts); i++)
        counted += hk_get_double(&counts, i);
    assert_true(all > 0 && all == counted && hk_tensor_count(&v) == STEPS * BATCH * WIDTH);
    hk_tensor_release(&v);
    hk_tensor_release(&counts);
    hk_tensor_release(&again);
    hk_tensor_release(&spikes);
    hk_session_destroy(&s);
    hk_model_destroy(&watched);
    hk_model_destroy(&m);
    free(x);
}

/* ---- encoders */

static void poisson(void **state)
{
    (void)state;
    enum { STEPS = 50, BATCH = 3, WIDTH = 40 };
    const hk_layer layer = {.kind = HK_LAYER_POISSON, .name = "code", .steps = STEPS};
    hk_model *m = sequence(2, (int64_t[]){-1, WIDTH}, &layer, 1);
    float *p = numbers(BATCH * WIDTH, 7, 0, 1);
    p[0] = 0;
    p[1] = 1;
    hk_tensor x = tensor(p, 2, (int64_t[]){BATCH, WIDTH});
    hk_session *s = NULL;
    uint32_t seed[2] = {77, 1}, stream = hk_philox_stream("code/Bernoulli");
    OK(hk_session_create(dev, m,
                         &(hk_session_params){.size = sizeof(hk_session_params), .seed = (uint64_t)1 << 32 | 77}, &s));
    for (uint32_t call = 0; call < 2; call++) {
        hk_tensor y = once(s, &x);
        double sums[BATCH * WIDTH] = {0};
        for (uint32_t t = 0; t < STEPS; t++)
            for (uint32_t i = 0; i < BATCH * WIDTH; i++) { /* the host's bits are the device's */
                uint32_t w[4];
                hk_philox(seed, (uint32_t[]){i / 4, t, stream, call}, w);
                float expected = (float)(w[i % 4] >> 8) * 0x1p-24f < p[i];
                assert_true(((float *)y.data)[t * BATCH * WIDTH + i] == expected);
                sums[i] += (double)expected;
            }
        assert_true(sums[0] == 0 && sums[1] == STEPS);
        double error = 0, variance = 0;
        for (int i = 0; i < BATCH * WIDTH; i++) {
            error += sums[i] - STEPS * (double)p[i];
            variance += STEPS * (double)p[i] * (1 - (double)p[i]);
        }
        assert_true(fabs(error) < 4 * sqrt(variance));
        hk_tensor_release(&y);
    }
    hk_session_destroy(&s);
    hk_model_destroy(&m);
    free(p);
}

static void latency_and_delta(void **state)
{
    (void)state;
    hk_model *m = sequence(2, (int64_t[]){-1, 4}, &(hk_layer){.kind = HK_LAYER_LATENCY, .steps = 4}, 1);
    float x[] = {0, 1, .4f, .9f}; /* steps 3, 0, 2 (1.8), 0 (0.3) */
    hk_tensor in = tensor(x, 2, (int64_t[]){1, 4}), y = run(m, &in);
    same_bits(&y, (float[]){0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0});
    hk_tensor_release(&y);
    hk_model_destroy(&m);
    float curve[] = {.05f, .5f, .25f, .75f, .0f, .6875f};
    in = tensor(curve, 3, (int64_t[]){3, 1, 2});
    for (int off = 0; off < 2; off++) {
        m = sequence(3, (int64_t[]){3, -1, 2},
                     &(hk_layer){.kind = HK_LAYER_DELTA, .v_threshold = .0625f, .off_spikes = off}, 1);
        y = run(m, &in);
        float minus = off ? -1 : 0;
        same_bits(&y, (float[]){0, 1, 1, 1, minus, minus});
        hk_tensor_release(&y);
        hk_model_destroy(&m);
    }
}

/* What stands before the direct encoder is computed once, and the same. */
static void direct(void **state)
{
    (void)state;
    const hk_layer linear = {.kind = HK_LAYER_LINEAR, .name = "fc", .out = 6}, lif = {.kind = HK_LAYER_LIF},
                   repeat = {.kind = HK_LAYER_DIRECT, .steps = T};
    hk_layer folded = linear;
    folded.time = HK_TIME_FOLD;
    const hk_layer early[] = {linear, repeat, lif}, late[] = {repeat, folded, lif};
    hk_model *a = sequence(2, (int64_t[]){-1, 9}, early, 3), *b = sequence(2, (int64_t[]){-1, 9}, late, 3);
    float *x = numbers(N * 9, 5, 0, 3);
    hk_tensor in = tensor(x, 2, (int64_t[]){N, 9}), y = run(a, &in), z = run(b, &in);
    assert_int_equal(hk_tensor_count(&y), T * N * 6);
    same_bits(&y, z.data);
    hk_tensor_release(&y);
    hk_tensor_release(&z);
    free(x);
    hk_model_destroy(&a);
    hk_model_destroy(&b);
}

/* ---- readouts */

static void readouts(void **state)
{
    (void)state;
    static const hk_layer_kind kinds[] = {HK_LAYER_RATE, HK_LAYER_SPIKE_COUNT, HK_LAYER_LAST, HK_LAYER_MEMBRANE,
                                          HK_LAYER_MEMBRANE};
    static const float taus[] = {0, 0, 0, 0, 2};
    static const float x[] = {1, 0, .5f, .25f, 0, 1, 1, 1}; /* T = 4, two outputs */
    static const float expected[][2] = {{.625f, .5625f}, {2.5f, 2.25f}, {1, 1}, {2.5f, 2.25f}, {1.25f, 1.5625f}};
    for (size_t i = 0; i < COUNT(kinds); i++) {
        hk_model *m = sequence(3, (int64_t[]){4, -1, 2}, &(hk_layer){.kind = kinds[i], .tau = taus[i]}, 1);
        hk_tensor in = tensor((float *)(uintptr_t)x, 3, (int64_t[]){4, 1, 2}), y = run(m, &in);
        same_bits(&y, expected[i]);
        hk_tensor_release(&y);
        hk_model_destroy(&m);
    }
}

/* ---- training */

static hk_trainer *trainer(const hk_model *m, hk_trainer_params p)
{
    hk_trainer *t = NULL;
    p.size = sizeof p;
    OK(hk_trainer_create(dev, m, &p, &t));
    return t;
}

/* Linear, ParametricLIF, Linear, LIF, as in the reference below. */
enum { STEPS = 5, BATCH = 2, IN = 3, HIDDEN = 4, OUT = 2 };

static hk_model *two_layers(bool rate)
{
    const hk_layer layers[] = {
        {.kind = HK_LAYER_LINEAR, .name = "fc1", .out = HIDDEN, .no_bias = true, .time = HK_TIME_FOLD},
        {.kind = HK_LAYER_PARAMETRIC_LIF, .name = "plif", .tau = 3, .v_threshold = .25f},
        {.kind = HK_LAYER_LINEAR, .name = "fc2", .out = OUT, .no_bias = true, .time = HK_TIME_FOLD},
        {.kind = HK_LAYER_LIF, .name = "lif", .v_threshold = .25f},
        {.kind = HK_LAYER_RATE, .name = "rate"},
    };
    return sequence(3, (int64_t[]){STEPS, -1, IN}, layers, rate ? 5 : 4);
}

/* One neuron through time in double: gx from gs, hard reset to 0, ATan(2), the leak r; returns dL/dr. */
static double back_through_time(const double *x, const double *gs, size_t stride, double r, double theta, double *gx)
{
    double h[STEPS], before[STEPS], v = 0, gv = 0, gr = 0;
    for (size_t t = 0; t < STEPS; t++) {
        before[t] = v;
        h[t] = v - v * r + x[t * stride];
        v = h[t] >= theta ? 0 : h[t];
    }
    for (size_t t = STEPS; t-- > 0;) {
        double away = 3.14159265358979 * (h[t] - theta), fired = h[t] >= theta;
        double gh = (gs[t * stride] - gv * h[t]) / (1 + away * away) + gv * (1 - fired);
        gx[t * stride] = gh;
        gr -= gh * before[t];
        gv = gh * (1 - r);
    }
    return gr;
}

static void spikes_of(const double *x, size_t stride, double r, double theta, double *s)
{
    double v = 0;
    for (size_t t = 0; t < STEPS; t++) {
        v = v - v * r + x[t * stride];
        s[t * stride] = v >= theta;
        v = s[t * stride] > 0 ? 0 : v;
    }
}

typedef struct gradients {
    double fc1[HIDDEN * IN], fc2[OUT * HIDDEN], w;
} gradients;

/* Of L = sum over samples and classes of c times the rate. */
static gradients reference(const float *x, const float *w1, const float *w2, const double *c)
{
    static double a[STEPS * BATCH * HIDDEN], s[STEPS * BATCH * HIDDEN], gs[STEPS * BATCH * HIDDEN],
        ga[STEPS * BATCH * HIDDEN], b[STEPS * BATCH * OUT], gy[STEPS * BATCH * OUT], gb[STEPS * BATCH * OUT];
    gradients g = {0};
    double r = 1.0 / 3;
    for (size_t i = 0; i < STEPS * BATCH; i++)
        for (size_t k = 0; k < HIDDEN; k++) {
            a[i * HIDDEN + k] = gs[i * HIDDEN + k] = 0;
            for (size_t j = 0; j < IN; j++)
                a[i * HIDDEN + k] += (double)x[i * IN + j] * (double)w1[k * IN + j];
        }
    for (size_t i = 0; i < BATCH * HIDDEN; i++)
        spikes_of(a + i, BATCH * HIDDEN, r, .25, s + i);
    for (size_t i = 0; i < STEPS * BATCH; i++)
        for (size_t k = 0; k < OUT; k++) {
            b[i * OUT + k] = 0;
            gy[i * OUT + k] = c[i % BATCH * OUT + k] / STEPS;
            for (size_t j = 0; j < HIDDEN; j++)
                b[i * OUT + k] += s[i * HIDDEN + j] * (double)w2[k * HIDDEN + j];
        }
    for (size_t i = 0; i < BATCH * OUT; i++)
        back_through_time(b + i, gy + i, BATCH * OUT, .5, .25, gb + i);
    for (size_t i = 0; i < STEPS * BATCH; i++)
        for (size_t k = 0; k < OUT; k++)
            for (size_t j = 0; j < HIDDEN; j++) {
                g.fc2[k * HIDDEN + j] += gb[i * OUT + k] * s[i * HIDDEN + j];
                gs[i * HIDDEN + j] += gb[i * OUT + k] * (double)w2[k * HIDDEN + j];
            }
    for (size_t i = 0; i < BATCH * HIDDEN; i++)
        g.w += r * (1 - r) * back_through_time(a + i, gs + i, BATCH * HIDDEN, r, .25, ga + i);
    for (size_t i = 0; i < STEPS * BATCH; i++)
        for (size_t k = 0; k < HIDDEN; k++)
            for (size_t j = 0; j < IN; j++)
                g.fc1[k * IN + j] += ga[i * HIDDEN + k] * (double)x[i * IN + j];
    return g;
}

static void check_gradient(hk_trainer *t, const char *name, const double *expected)
{
    hk_tensor g = {0};
    double error = 0, norm = 0;
    OK(hk_trainer_read_gradient(t, name, &g));
    for (int64_t i = 0; i < hk_tensor_count(&g); i++) {
        double d = (double)((float *)g.data)[i] - expected[i];
        error += d * d;
        norm += expected[i] * expected[i];
    }
    if (!(norm > 1e-8) || !(error < 1e-10 * norm))
        fail_msg("gradient of %s: relative error %.3g, norm %.3g", name, sqrt(error / norm), sqrt(norm));
    hk_tensor_release(&g);
}

/* Backpropagation through time of the whole network, with a gradient (T,N,C), one of the mean (N,C), and a readout. */
static void whole_network_gradients(void **state)
{
    (void)state;
    float *x = numbers(STEPS * BATCH * IN, 21, 0, 1), each[STEPS * BATCH * OUT], mean[BATCH * OUT];
    double c[BATCH * OUT] = {1, -.5, .25, 2};
    const int64_t shape[] = {STEPS, BATCH, OUT};
    for (size_t i = 0; i < BATCH * OUT; i++)
        mean[i] = (float)c[i];
    for (size_t i = 0; i < STEPS * BATCH * OUT; i++)
        each[i] = mean[i % (BATCH * OUT)] / STEPS;
    for (int form = 0; form < 3; form++) { /* of each step, of the mean, of the rate */
        hk_model *m = two_layers(form == 2);
        assert_int_equal(parameters(m), HIDDEN * IN + 1 + OUT * HIDDEN);
        hk_trainer *t = trainer(m, (hk_trainer_params){0});
        hk_tensor in = tensor(x, 3, (int64_t[]){STEPS, BATCH, IN}), w1 = {0}, w2 = {0};
        hk_tensor g = form == 0 ? tensor(each, 3, shape) : tensor(mean, 2, shape + 1);
        OK(hk_trainer_read_parameter(t, "fc1.weight", &w1));
        OK(hk_trainer_read_parameter(t, "fc2.weight", &w2));
        gradients expected = reference(x, w1.data, w2.data, c);
        OK(hk_trainer_forward(t, &in, 1));
        OK(hk_trainer_backward_output(t, &g));
        check_gradient(t, "fc1.weight", expected.fc1);
        check_gradient(t, "fc2.weight", expected.fc2);
        check_gradient(t, "plif.w", &expected.w);
        g.shape[0]++;
        refused(hk_trainer_backward_output(t, &g), HK_STATUS_USAGE, "the gradient of the output is");
        hk_tensor_release(&w1);
        hk_tensor_release(&w2);
        hk_trainer_destroy(&t);
        hk_model_destroy(&m);
    }
    free(x);
}

static void train_some(hk_trainer *t, const hk_tensor *x, const hk_tensor *y, int steps, float *losses)
{
    for (int i = 0; i < steps; i++)
        OK(hk_trainer_step(t, x, 1, y, &losses[i]));
}

/* A spiking CNN with normalization learns, and its file goes on where it stands, to the bit. */
static void saved_and_trained_again(void **state)
{
    (void)state;
    enum { SAMPLES = 6, CLASSES = 3, ROUNDS = 12 };
    const hk_layer layers[] = {
        {.kind = HK_LAYER_CONV2D, .name = "conv", .out = 4, .kernel = {3}, .padding = {1}},
        {.kind = HK_LAYER_BATCH_NORM, .name = "bn"},
        {.kind = HK_LAYER_DIRECT, .name = "code", .steps = 4},
        {.kind = HK_LAYER_LIF, .name = "lif1"},
        {.kind = HK_LAYER_AVG_POOL2D, .kernel = {2}, .time = HK_TIME_FOLD},
        {.kind = HK_LAYER_CONV2D, .name = "conv2", .out = 8, .kernel = {3}, .padding = {1}, .time = HK_TIME_FOLD},
        {.kind = HK_LAYER_BATCH_NORM, .name = "bn2", .time = HK_TIME_FOLD},
        {.kind = HK_LAYER_PARAMETRIC_LIF, .name = "plif"},
        {.kind = HK_LAYER_FLATTEN, .time = HK_TIME_FOLD},
        {.kind = HK_LAYER_LINEAR, .name = "fc", .out = CLASSES, .time = HK_TIME_FOLD},
        {.kind = HK_LAYER_RATE, .name = "rate"},
    };
    float *x = numbers(SAMPLES * 2 * 6 * 6, 2, 0, 1), first[ROUNDS], second[ROUNDS];
    int64_t labels[SAMPLES] = {0, 1, 2, 2, 1, 0};
    hk_tensor in = tensor(x, 4, (int64_t[]){SAMPLES, 2, 6, 6});
    hk_tensor to = {.data = labels, .dtype = HK_INT64, .rank = 1, .shape = {SAMPLES}}, a = {0}, b = {0};
    hk_model *m = sequence(4, (int64_t[]){-1, 2, 6, 6}, layers, COUNT(layers)), *again = saved_and_loaded(m);
    hk_trainer *t = trainer(m, (hk_trainer_params){.lr = 1e-2f}), *u = trainer(again, (hk_trainer_params){.lr = 1e-2f});
    train_some(t, &in, &to, ROUNDS, first);
    train_some(u, &in, &to, ROUNDS, second);
    assert_memory_equal(first, second, sizeof first);
    assert_true(first[ROUNDS - 1] < .7f * first[0]);
    static const char *const names[] = {"conv.weight", "bn2.running_var", "plif.w", "fc.bias"};
    for (size_t i = 0; i < COUNT(names); i++) {
        OK(hk_trainer_read_parameter(t, names[i], &a));
        OK(hk_trainer_read_parameter(u, names[i], &b));
        same_bits(&a, b.data);
        hk_tensor_release(&a);
        hk_tensor_release(&b);
    }
    const char *path = in_folder("trained.onnx");
    OK(hk_trainer_evaluate(t, &in, 1, false));
    OK(hk_trainer_read_output(t, "y", &a));
    OK(hk_trainer_export(t, path));
    hk_model_destroy(&again);
    hk_trainer_destroy(&u);
    OK(hk_model_load(ctx, path, NULL, &again));
    assert_int_equal(parameters(again), parameters(m));
    b = run(again, &in);
    for (int64_t i = 0; i < hk_tensor_count(&a); i++)
        assert_true(fabsf(((float *)a.data)[i] - ((float *)b.data)[i]) < 1e-4f);
    hk_tensor_release(&a);
    hk_tensor_release(&b);
    free(x);
    hk_trainer_destroy(&t);
    hk_model_destroy(&again);
    hk_model_destroy(&m);
}

/* With checkpoints a deep network computes its layers of BatchNormalization and neurons again: the same bits, running
 * statistics counted once, less memory. */
static void checkpoints(void **state)
{
    (void)state;
    enum { DEPTH = 8, EACH = 3, SAMPLES = 2, CLASSES = 3, ROUNDS = 3 };
    hk_layer layers[2 + DEPTH * EACH + 3] = {{.kind = HK_LAYER_DIRECT, .name = "code", .steps = 4}};
    size_t count = 1;
    char names[DEPTH][EACH][16];
    for (size_t i = 0; i < DEPTH; i++) {
        for (size_t k = 0; k < EACH; k++)
            snprintf(names[i][k], sizeof names[i][k], "%s%zu", (const char *[]){"conv", "bn", "sn"}[k], i);
        layers[count++] = (hk_layer){.kind = HK_LAYER_CONV2D,
                                     .name = names[i][0],
                                     .out = 8,
                                     .kernel = {3},
                                     .padding = {1},
                                     .time = HK_TIME_FOLD};
        layers[count++] = (hk_layer){.kind = HK_LAYER_BATCH_NORM, .name = names[i][1], .time = HK_TIME_FOLD};
        layers[count++] = (hk_layer){.kind = i % 2 ? HK_LAYER_PARAMETRIC_LIF : HK_LAYER_LIF, .name = names[i][2]};
    }
    layers[count++] = (hk_layer){.kind = HK_LAYER_MAX_POOL2D, .kernel = {2}, .time = HK_TIME_FOLD};
    layers[count++] = (hk_layer){.kind = HK_LAYER_FLATTEN, .time = HK_TIME_FOLD};
    layers[count++] = (hk_layer){.kind = HK_LAYER_LINEAR, .name = "fc", .out = CLASSES, .time = HK_TIME_FOLD};
    layers[count++] = (hk_layer){.kind = HK_LAYER_RATE, .name = "rate"};
    float *x = numbers(SAMPLES * 2 * 16 * 16, 2, 0, 1), losses[2][ROUNDS];
    int64_t labels[SAMPLES] = {0, 2};
    hk_tensor in = tensor(x, 4, (int64_t[]){SAMPLES, 2, 16, 16}), a = {0}, b = {0};
    hk_tensor to = {.data = labels, .dtype = HK_INT64, .rank = 1, .shape = {SAMPLES}};
    hk_model *m = sequence(4, (int64_t[]){-1, 2, 16, 16}, layers, count);
    hk_trainer *t[2];
    hk_plan_info plan[2];
    for (int i = 0; i < 2; i++) {
        t[i] = trainer(m, (hk_trainer_params){.lr = 1e-2f, .checkpointing = i});
        train_some(t[i], &in, &to, ROUNDS, losses[i]);
        OK(hk_trainer_get_plan(t[i], &plan[i]));
    }
    print_message("    %zu and %zu dispatches, activations of %.2f and %.2f MiB\n", plan[0].dispatches,
                  plan[1].dispatches, (double)plan[0].live_bytes / 0x1p20, (double)plan[1].live_bytes / 0x1p20);
    assert_memory_equal(losses[0], losses[1], sizeof losses[0]);
    assert_true(plan[1].dispatches >= plan[0].dispatches + DEPTH);
    assert_true((double)plan[1].live_bytes < .6 * (double)plan[0].live_bytes);
    static const char *const seen[] = {"conv0.weight", "bn0.running_mean", "bn4.running_var", "sn1.w", "fc.bias"};
    for (size_t i = 0; i < COUNT(seen); i++) {
        OK(hk_trainer_read_parameter(t[0], seen[i], &a));
        OK(hk_trainer_read_parameter(t[1], seen[i], &b));
        same_bits(&a, b.data);
        hk_tensor_release(&a);
        hk_tensor_release(&b);
    }
    for (int i = 0; i < 2; i++)
        hk_trainer_destroy(&t[i]);
    hk_model_destroy(&m);
    free(x);
}

/* A trainer begins every step and evaluation anew unless it is told to keep potentials. */
static void trainers_reset(void **state)
{
    (void)state;
    hk_model *m = two_layers(false);
    float *x = numbers(2 * STEPS * BATCH * IN, 33, 0, 1);
    hk_tensor one = tensor(x, 3, (int64_t[]){STEPS, BATCH, IN}), small = tensor(x, 3, (int64_t[]){STEPS, 1, IN});
    hk_trainer *t = trainer(m, (hk_trainer_params){0}), *k = trainer(m, (hk_trainer_params){.keep_states = true});
    hk_session *s = session(m, false);
    for (int i = 0; i < 3; i++) {
        hk_tensor expected = once(s, &one), kept = {0}, fresh = {0};
        OK(hk_trainer_evaluate(k, &one, 1, false));
        OK(hk_trainer_read_output(k, "y", &kept));
        same_bits(&kept, expected.data);
        OK(hk_trainer_forward(t, &one, 1));
        OK(hk_trainer_read_output(t, "y", &fresh));
        if (i == 0)
            same_bits(&fresh, expected.data);
        OK(hk_trainer_evaluate(t, &small, 1, false)); /* another batch: nothing is kept */
        hk_tensor_release(&expected);
        hk_tensor_release(&kept);
        hk_tensor_release(&fresh);
    }
    refused(hk_trainer_evaluate(k, &small, 1, false), HK_STATUS_USAGE, "hk_trainer_reset");
    OK(hk_trainer_reset(k));
    OK(hk_trainer_evaluate(k, &small, 1, false));
    OK(hk_trainer_reset(k));
    /* kept through forward and backward passes: the second begins where the first ended */
    hk_tensor g = tensor(x, 3, (int64_t[]){STEPS, BATCH, OUT}), first = {0}, second = {0};
    OK(hk_session_reset(s));
    for (int i = 0; i < 2; i++) {
        hk_tensor expected = once(s, &one), y = {0};
        OK(hk_trainer_forward(k, &one, 1));
        OK(hk_trainer_read_output(k, "y", &y));
        same_bits(&y, expected.data);
        hk_trainer_zero_grad(k);
        OK(hk_trainer_backward_output(k, &g));
        OK(hk_trainer_read_gradient(k, "fc1.weight", i ? &second : &first));
        hk_tensor_release(&expected);
        hk_tensor_release(&y);
    }
    assert_memory_not_equal(first.data, second.data, HIDDEN * IN * sizeof(float));
    hk_tensor_release(&first);
    hk_tensor_release(&second);
    hk_session_destroy(&s);
    hk_trainer_destroy(&t);
    hk_trainer_destroy(&k);
    hk_model_destroy(&m);
    free(x);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_layer),
        cmocka_unit_test(mistakes),
        cmocka_unit_test(step_modes_agree),
        cmocka_unit_test(potentials_persist),
        cmocka_unit_test(membrane_is_an_output),
        cmocka_unit_test(monitored),
        cmocka_unit_test(poisson),
        cmocka_unit_test(latency_and_delta),
        cmocka_unit_test(direct),
        cmocka_unit_test(readouts),
        cmocka_unit_test(whole_network_gradients),
        cmocka_unit_test(saved_and_trained_again),
        cmocka_unit_test(checkpoints),
        cmocka_unit_test(trainers_reset),
    };
    const test_program program = {.name = "spiking", TESTS(tests), .setup = make_folder, .teardown = remove_folder};
    return test_main(argc, argv, &program);
}
