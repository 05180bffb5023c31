/*
 * Activations and functions besides ReLU on their way to spiking networks: QCFS, its gradient and its conversion;
 * GELU, LayerNormalization, Softmax and attention on running means; several numbers of steps in one run; how close a
 * conversion says it is.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/spiking.h"

#include "snn/convert.h"

/* ---- QCFS */

enum { LEVELS = 4 };

/* x W -> QCFS: two channels, dyadic numbers. */
static hk_model *qcfs_network(const float theta[2])
{
    hk_value *x = NULL;
    hk_graph *g = new_graph(&x, 2, (int64_t[]){-1, 2});
    const hk_attr_value levels[] = {HK_SET_INT("levels", LEVELS), {0}};
    hk_value *w = floats(g, "w", (float[]){1, -.5f, .25f, 2}, 2, (int64_t[]){2, 2});
    hk_value *h = op(g, "MatMul", "linear", NULL, x, w, NULL);
    return model_of(g, op(g, "hk.QCFS", "qcfs", levels, h, floats(g, "theta", theta, 1, (int64_t[]){2}), NULL));
}

static double qcfs(double h, double theta)
{
    return theta * fmin(fmax(floor(LEVELS * h / theta + 0.5) / LEVELS, 0), 1);
}

/* d/dtheta and d/dh as Bu et al. train: rounding hands its gradient on. */
static void qcfs_gradient(void **state)
{
    (void)state;
    enum { N = 24 };
    const float theta[2] = {2, 1.5f}, w[4] = {1, -.5f, .25f, 2};
    float data[N * 2], upstream[N * 2];
    double dtheta[2] = {0}, dw[4] = {0};
    hk_model *m = qcfs_network(theta);
    hk_trainer *t = NULL;
    fill_random(data, N * 2, 5, 3);
    fill_random(upstream, N * 2, 6, 1);
    hk_tensor x = tensor_of(data, 2, (int64_t[]){N, 2}), dy = tensor_of(upstream, 2, (int64_t[]){N, 2});
    OK(hk_trainer_create(dev, m, &(hk_trainer_params){.size = sizeof(hk_trainer_params), .loss = HK_LOSS_MSE}, &t));
    OK(hk_trainer_forward(t, &x, 1));
    OK(hk_trainer_backward_output(t, &dy));
    for (int i = 0; i < N * 2; i++) {
        int c = i % 2;
        const float *row = &data[i - c];
        double h = (double)row[0] * (double)w[c] + (double)row[1] * (double)w[2 + c], th = (double)theta[c];
        double q = floor(LEVELS * h / th + 0.5) / LEVELS, inside = q >= 0 && q <= 1, g = (double)upstream[i];
        dtheta[c] += g * (fmin(fmax(q, 0), 1) - inside * h / th);
        for (int k = 0; k < 2; k++)
            dw[2 * k + c] += g * inside * (double)row[k];
    }
    hk_tensor got = {0};
    OK(hk_trainer_read_gradient(t, "theta", &got));
    for (int c = 0; c < 2; c++)
        assert_true(fabs(hk_get_double(&got, c) - dtheta[c]) < 1e-5);
    hk_tensor_release(&got);
    OK(hk_trainer_read_gradient(t, "w", &got));
    for (int i = 0; i < 4; i++)
        assert_true(fabs(hk_get_double(&got, i) - dw[i]) < 1e-5);
    hk_tensor_release(&got);
    hk_trainer_destroy(&t);
    hk_model_destroy(&m);
}

/* After as many steps as it has levels, a layer of constant input says what QCFS says; no data is needed. */
static void qcfs_converts(void **state)
{
    (void)state;
    enum { N = 40 };
    float data[N * 2];
    for (int i = 0; i < N * 2; i++)
        data[i] = (float)((i * 7) % 33 - 12) / 8;
    hk_tensor x = tensor_of(data, 2, (int64_t[]){N, 2});
    hk_model *m = qcfs_network((float[]){2, 1.5f}), *snn = NULL, *bad = qcfs_network((float[]){2, -1});
    OK(hk_snn_convert(dev, m, &(hk_snn_params){.size = sizeof(hk_snn_params), .steps = LEVELS}, &snn));
    hk_tensor y = run_once(snn, "y", &x), z = run_once(m, "y", &x);
    for (int i = 0; i < N * 2; i++) {
        double h = i % 2 ? -.5 * (double)data[i - 1] + 2 * (double)data[i]
                         : (double)data[i] + .25 * (double)data[i + 1];
        double want = qcfs(h, i % 2 ? 1.5 : 2);
        assert_true(fabs(hk_get_double(&z, i) - want) < 1e-6);
        assert_true(fabs(hk_get_double(&y, i) - want) < 1e-6);
    }
    hk_tensor_release(&y);
    hk_tensor_release(&z);
    hk_model_destroy(&snn);
    refused(hk_snn_convert(dev, bad, &(hk_snn_params){.size = sizeof(hk_snn_params)}, &snn), HK_STATUS_UNSUPPORTED,
            "node 'qcfs' (hk.QCFS): its thresholds");
    hk_model_destroy(&bad);
    hk_model_destroy(&m);
}

/* Activations become QCFS whose thresholds are parameters, which training moves. */
static void qcfs_is_inserted(void **state)
{
    (void)state;
    enum { N = 8 };
    static float data[N * 108];
    fill_random(data, N * 108, 3, 1);
    hk_tensor x = tensor_of(data, 4, (int64_t[]){N, 3, 6, 6}), before = {0}, after = {0};
    int64_t classes[N] = {0, 1, 2, 3, 4, 0, 1, 2};
    const hk_tensor labels = {.data = classes, .dtype = HK_INT64, .rank = 1, .shape = {N}};
    hk_model *m = residual_network("Relu", true), *quantised = NULL, *snn = NULL;
    hk_snn_params p = params_of(&x, 0, HK_SNN_MODE_DEFAULT);
    hk_trainer *t = NULL;
    p.qcfs_levels = 4;
    OK(hk_snn_convert(dev, m, &p, &quantised));
    OK(hk_trainer_create(
        dev, quantised, &(hk_trainer_params){.size = sizeof(hk_trainer_params), .lr = 1e-2f, .loss = HK_LOSS_NLL}, &t));
    OK(hk_trainer_read_parameter(t, "relu1.threshold", &before));
    float loss = 0;
    OK(hk_trainer_step(t, &x, 1, &labels, &loss));
    OK(hk_trainer_read_parameter(t, "relu1.threshold", &after));
    print_message("threshold %g, after an update %g\n", hk_get_double(&before, 0), hk_get_double(&after, 0));
    assert_int_equal(hk_tensor_count(&before), 6);
    assert_true(fabs(hk_get_double(&before, 0) - hk_get_double(&after, 0)) > 1e-4);
    hk_tensor_release(&before);
    hk_tensor_release(&after);
    hk_trainer_destroy(&t);
    OK(hk_snn_convert(dev, quantised, &(hk_snn_params){.size = sizeof(hk_snn_params), .steps = 256}, &snn));
    hk_tensor y = run_once(snn, "y", &x), z = run_once(m, "y", &x);
    double error = relative_error(&y, &z);
    print_message("QCFS of 4 levels, converted: error %.4f at T = 256\n", error);
    assert_true(error < 0.25);
    hk_model_destroy(&snn);
    hk_model_destroy(&quantised);
    hk_model_destroy(&m);
}

/* ---- functions on running means */

static hk_value *linear(hk_graph *g, const char *name, hk_value *x, int64_t in, int64_t out, uint32_t seed)
{
    char w[40];
    snprintf(w, sizeof w, "%s.w", name);
    return op(g, "MatMul", name, NULL, x, random_weights(g, w, 2, (int64_t[]){in, out}, seed, 0.7), NULL);
}

static hk_value *normalized(hk_graph *g, const char *name, hk_value *x)
{
    const float ones[6] = {1, 1, 1, 1, 1, 1};
    char scale[40];
    snprintf(scale, sizeof scale, "%s.scale", name);
    return op(g, "LayerNormalization", name, NULL, x, floats(g, scale, ones, 1, (int64_t[]){6}), NULL);
}

/* A block of a transformer: (N,5,6), attention of one head, GELU written out, both with a residual. */
static hk_model *transformer(void)
{
    static const int64_t swapped[] = {0, 2, 1}, tokens[] = {1};
    const hk_attr_value perm[] = {HK_SET_INTS("perm", swapped, 3), {0}};
    const hk_attr_value mean[] = {HK_SET_INTS("axes", tokens, 1), HK_SET_INT("keepdims", 0), {0}};
    hk_value *x = NULL;
    hk_graph *g = new_graph(&x, 3, (int64_t[]){-1, 5, 6});
    hk_value *h = normalized(g, "norm1", x);
    hk_value *q = linear(g, "q", h, 6, 6, 3), *k = linear(g, "k", h, 6, 6, 4), *v = linear(g, "v", h, 6, 6, 5);
    hk_value *a = op(g, "MatMul", "scores", NULL, q, op(g, "Transpose", NULL, perm, k, NULL, NULL), NULL);
    a = op(g, "Softmax", "softmax", NULL, a, NULL, NULL);
    a = op(g, "MatMul", "mix", NULL, a, v, NULL);
    x = op(g, "Add", "residual1", NULL, linear(g, "out", a, 6, 6, 6), x, NULL);
    h = linear(g, "up", normalized(g, "norm2", x), 6, 9, 7);
    hk_value *e = op(g, "Mul", NULL, NULL, h, floats(g, NULL, (float[]){0.70710678f}, 0, NULL), NULL);
    e = op(g, "Erf", "erf", NULL, e, NULL, NULL);
    e = op(g, "Add", NULL, NULL, e, floats(g, NULL, (float[]){1}, 0, NULL), NULL);
    h = op(g, "Mul", "gelu", NULL, h, e, NULL);
    h = op(g, "Mul", "half", NULL, h, floats(g, NULL, (float[]){0.5f}, 0, NULL), NULL);
    x = op(g, "Add", "residual2", NULL, linear(g, "down", h, 9, 6, 8), x, NULL);
    x = normalized(g, "norm3", x);
    hk_value *axes[] = {x, hk_snn_integers(g, NULL, tokens, 1)}, *y = NULL;
    OK(hk_snn_node_make(g, OPSET, "ReduceMean", "pool", mean + 1, axes, 2, &y));
    return model_of(g, linear(g, "head", y, 6, 4, 9));
}

typedef struct functional_report {
    size_t functional, spike_only;
} functional_report;

static void count_functional(void *user, const hk_snn_node *n)
{
    functional_report *r = user;
    r->functional += strstr(n->reason, "functional, not spike-only") != NULL;
    r->spike_only += n->spike_only;
}

static void functional(void **state)
{
    (void)state;
    enum { N = 6 };
    static float data[N * 30];
    fill_random(data, N * 30, 8, 1);
    hk_tensor x = tensor_of(data, 3, (int64_t[]){N, 5, 6});
    hk_model *m = transformer(), *snn = NULL, *at = NULL;
    functional_report found = {0};
    hk_snn_params p = params_of(&x, 16, HK_SNN_MODE_MAX);
    p.no_bias_calibration = true;
    refused(hk_snn_convert(dev, m, &p, &snn), HK_STATUS_UNSUPPORTED, "--functional");
    p.functional = true;
    p.report = count_functional;
    p.user = &found;
    OK(hk_snn_convert(dev, m, &p, &snn));
    assert_true(found.functional >= 5 && found.spike_only > 0);
    hk_snn_info info;
    hk_snn_get_info(snn, &info);
    assert_int_equal(info.layers, 10); /* pairs before q k v, out, up, down, head */
    double errors[3];
    for (int i = 0; i < 3; i++) {
        OK(hk_snn_with_steps(snn, 16 << (3 * i), 0, &at));
        hk_tensor a = run_once(at, "y", &x), b = run_once(m, "y", &x);
        errors[i] = relative_error(&a, &b);
        hk_model_destroy(&at);
    }
    print_message("transformer: error %.4f at T = 16, %.4f at 128, %.5f at 1024\n", errors[0], errors[1], errors[2]);
    assert_true(errors[0] < 0.3 && errors[1] < errors[0] && errors[2] < 0.004);
    hk_model_destroy(&snn);
    hk_model_destroy(&m);
}

/* The mean of what a function hands on is the function of the mean: exactly, at any T. */
static void functions_are_exact(void **state)
{
    (void)state;
    enum { N = 7, T = 5 };
    float data[N * 6];
    fill_random(data, N * 6, 21, 1);
    hk_tensor x = tensor_of(data, 2, (int64_t[]){N, 6}), y[2];
    for (int i = 0; i < 2; i++) {
        hk_value *in = NULL;
        hk_graph *g = new_graph(&in, 2, (int64_t[]){-1, 6});
        hk_value *h = op(g, "Relu", "relu", NULL, in, NULL, NULL);
        if (i) { /* relu behind it, so that it is computed in time */
            h = normalized(g, "norm", h);
            h = op(g, "Mul", "square", NULL, h, h, NULL);
            h = op(g, "Exp", "exp", NULL, h, NULL, NULL);
            hk_value *r = op(g, "Relu", "unused", NULL, h, NULL, NULL);
            r = op(g, "Mul", NULL, NULL, r, floats(g, NULL, (float[]){0}, 0, NULL), NULL);
            h = op(g, "Add", NULL, NULL, h, r, NULL);
        }
        hk_model *m = model_of(g, h), *snn = NULL;
        hk_snn_params p = params_of(&x, T, HK_SNN_MODE_MAX);
        p.no_bias_calibration = true;
        p.functional = true;
        OK(hk_snn_convert(dev, m, &p, &snn));
        y[i] = run_once(snn, "y", &x);
        hk_model_destroy(&snn);
        hk_model_destroy(&m);
    }
    for (int n = 0; n < N; n++) {
        double mean = 0, variance = 0;
        for (int k = 0; k < 6; k++)
            mean += hk_get_double(&y[0], n * 6 + k) / 6;
        for (int k = 0; k < 6; k++)
            variance += pow(hk_get_double(&y[0], n * 6 + k) - mean, 2) / 6;
        for (int k = 0; k < 6; k++) {
            double z = (hk_get_double(&y[0], n * 6 + k) - mean) / sqrt(variance + 1e-5), want = exp(z * z);
            assert_true(fabs(hk_get_double(&y[1], n * 6 + k) - want) < 1e-4 * want);
        }
    }
    hk_tensor_release(&y[0]);
    hk_tensor_release(&y[1]);
}

/* ---- several numbers of steps in one run */

static void readouts(void **state)
{
    (void)state;
    enum { N = 3 };
    static float data[N * 108];
    fill_random(data, N * 108, 17, 1);
    hk_tensor x = tensor_of(data, 4, (int64_t[]){N, 3, 6, 6});
    hk_model *m = residual_network("Relu", true), *snn = NULL, *all = NULL, *one = NULL;
    for (int delay = 0; delay < 3; delay += 2) {
        hk_snn_params p = params_of(&x, 8, HK_SNN_MODE_DEFAULT);
        p.delay = delay;
        OK(hk_snn_convert(dev, m, &p, &snn));
        OK(hk_snn_with_readouts(snn, (int64_t[]){16, 3, 5}, 3, HK_SNN_MONITOR_COUNTS, &all));
        for (int64_t steps = 3; steps <= 5; steps += 2) {
            char name[16];
            snprintf(name, sizeof name, "y@%d", (int)steps);
            OK(hk_snn_with_steps(snn, steps, 0, &one));
            hk_tensor a = run_once(all, name, &x), b = run_once(one, "y", &x);
            double error = relative_error(&a, &b);
            if (error > 1e-6)
                fail_msg("delay %d, %s: differs by %g", delay, name, error);
            hk_model_destroy(&one);
        }
        refused(hk_snn_with_readouts(snn, (int64_t[]){delay, 16}, 2, 0, &one), HK_STATUS_USAGE, "time steps");
        hk_model_destroy(&all);
        hk_model_destroy(&snn);
    }
    hk_model_destroy(&m);
}

/* ---- monitors: each neuron's spikes, potentials, and what is no number */

static void monitors(void **state)
{
    (void)state;
    enum { N = 2, T = 4 };
    hk_value *in = NULL;
    hk_graph *g = new_graph(&in, 2, (int64_t[]){-1, 3});
    hk_model *m = model_of(g, op(g, "Relu", "relu", NULL, in, NULL, NULL)), *snn = NULL, *watched = NULL;
    float data[] = {-1, 2, .5f, -1, 2, .25f};
    hk_tensor x = tensor_of(data, 2, (int64_t[]){N, 3});
    hk_snn_params p = params_of(&x, T, HK_SNN_MODE_MAX); /* theta 2 */
    p.no_bias_calibration = true;
    OK(hk_snn_convert(dev, m, &p, &snn));
    OK(hk_snn_with_steps(snn, T, HK_SNN_MONITOR_COUNTS | HK_SNN_MONITOR_SPIKES | HK_SNN_MONITOR_POTENTIALS, &watched));
    size_t count = 0;
    const hk_snn_probe *probe = hk_snn_probes(watched, &count);
    assert_int_equal(count, 1);
    hk_tensor each = run_once(watched, probe->each, &x), s = run_once(watched, probe->spikes, &x),
              v = run_once(watched, probe->potentials, &x);
    const double want[3] = {0, N * T, 2}; /* dead, saturated, once in each sample: 1 + 4/2, 1 + 4/4 */
    double potential = 1;
    for (int k = 0; k < 3; k++)
        assert_true(fabs(hk_get_double(&each, k) - want[k]) < 1e-9);
    for (int t = 0; t < T; t++) { /* the third neuron of the first sample, by hand */
        potential += .5;
        bool fires = potential >= 2;
        potential -= fires ? 2 : 0;
        assert_true((hk_get_double(&s, t * N * 3 + 2) > 0.5) == fires);
        assert_true(fabs(hk_get_double(&v, t * N * 3 + 2) - potential) < 1e-6);
    }
    hk_tensor_release(&each);
    hk_tensor_release(&s);
    hk_tensor_release(&v);
    data[4] = NAN;
    hk_tensor charge = run_once(watched, probe->charge, &x);
    assert_true(isnan(hk_get_double(&charge, 0)));
    hk_tensor_release(&charge);
    hk_model_destroy(&watched);
    hk_model_destroy(&snn);
    hk_model_destroy(&m);
}

/* ---- what a conversion says of itself */

typedef struct said {
    double layer_error, error, same;
    int64_t samples;
} said;

static void keep_layer(void *user, const hk_snn_layer *l)
{
    ((said *)user)->layer_error = l->error;
}

static void keep_fidelity(void *user, const hk_snn_fidelity *f)
{
    said *s = user;
    s->error = f->error;
    s->same = f->same_class;
    s->samples = f->samples;
}

static void fidelity(void **state)
{
    (void)state;
    enum { N = 60 };
    float data[N * 4];
    fill_random(data, N * 4, 31, 1);
    hk_tensor x = tensor_of(data, 2, (int64_t[]){N, 4});
    hk_value *in = NULL;
    hk_graph *g = new_graph(&in, 2, (int64_t[]){-1, 4});
    hk_model *m = model_of(g, op(g, "Relu", "relu", NULL, in, NULL, NULL)), *snn = NULL;
    said kept[3];
    for (int i = 0; i < 3; i++) { /* IF, LIF, and IF for longer */
        hk_snn_params p = params_of(&x, i == 2 ? 64 : 8, HK_SNN_MODE_MAX);
        p.tau = i == 1 ? 4 : 0;
        p.no_bias_calibration = true;
        p.layer = keep_layer;
        p.fidelity = keep_fidelity;
        p.user = &kept[i];
        OK(hk_snn_convert(dev, m, &p, &snn));
        hk_tensor a = run_once(snn, "y", &x), b = run_once(m, "y", &x);
        double error = relative_error(&a, &b);
        print_message("said error %.5f, same class %.3f\n", kept[i].error, kept[i].same);
        assert_true(fabs(kept[i].error - error) < 1e-6 && fabs(kept[i].layer_error - error) < 1e-6);
        assert_int_equal(kept[i].samples, N);
        hk_model_destroy(&snn);
    }
    assert_true(kept[0].error < 0.3 && kept[1].error > 2 * kept[0].error && kept[2].error < kept[0].error / 4);
    assert_true(kept[2].same > 0.9);
    hk_model_destroy(&m);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(qcfs_gradient),
                                       cmocka_unit_test(qcfs_converts),
                                       cmocka_unit_test(qcfs_is_inserted),
                                       cmocka_unit_test(functional),
                                       cmocka_unit_test(functions_are_exact),
                                       cmocka_unit_test(readouts),
                                       cmocka_unit_test(monitors),
                                       cmocka_unit_test(fidelity)};
    return test_main(argc, argv, &(test_program){.name = "convert_functions", TESTS(tests)});
}
