/*
 * Conversion to spiking networks: golden vectors of steps and of calibration, the identity of counts with a quantised
 * ReLU, forms that must agree, residuals, pooling, and what is counted.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/op.h"
#include "snn/calibrate.h"
#include "snn/convert.h"
#include "tests/support/command.h"
#include "tests/support/spiking.h"

/* ---- steps. Vectors of SpikingJelly's functional neurons, threshold 1 */

static const float golden_x[8] = {.6f, .6f, .6f, .6f, 2.5f, 0, 0, -1};

static void check_steps(bool lif, hk_neuron_params p, const char *spikes, const double *potentials)
{
    float v = 0;
    p.size = sizeof p;
    for (size_t t = 0; t < 8; t++) {
        float s = -1;
        OK(lif ? hk_lif_step(ctx, &p, 1, &golden_x[t], &v, &s) : hk_if_step(ctx, &p, 1, &golden_x[t], &v, &s));
        if ((s > 0.5f) != (spikes[t] == '1') || fabs((double)v - potentials[t]) > 1e-6)
            fail_msg("step %zu: spike %g, potential %.8g, expected %c, %.8g", t, (double)s, (double)v, spikes[t],
                     potentials[t]);
    }
}

static void golden_steps(void **state)
{
    (void)state;
    check_steps(false, (hk_neuron_params){.soft_reset = true}, "01011100",
                (double[]){.6, .2, .8, .4, 1.9, .9, .9, -.1});
    check_steps(false, (hk_neuron_params){0}, "01011000", (double[]){.6, 0, .6, 0, 0, 0, 0, -1});
    check_steps(true, (hk_neuron_params){.decay_input = true, .soft_reset = true}, "00001000",
                (double[]){.3, .45, .525, .5625, .53125, .265625, .1328125, -.43359375});
    check_steps(true, (hk_neuron_params){.decay_input = true}, "00001000",
                (double[]){.3, .45, .525, .5625, 0, 0, 0, -.5});
    check_steps(true, (hk_neuron_params){.soft_reset = true}, "00101000",
                (double[]){.6, .9, .05, .625, 1.8125, .90625, .453125, -.7734375});
    check_steps(true, (hk_neuron_params){0}, "00101000", (double[]){.6, .9, 0, .6, 0, 0, 0, -1});
    float v = 0, s = 0, x[] = {.5f, .5f, 1};
    const float fires[] = {0, 1, 1};
    for (int t = 0; t < 3; t++) { /* a tie fires */
        OK(hk_if_step(ctx, NULL, 1, &x[t], &v, &s));
        assert_true(s == fires[t]);
    }
    refused(hk_lif_step(ctx, &(hk_neuron_params){.size = sizeof(hk_neuron_params), .tau = 1}, 1, x, &v, &s),
            HK_STATUS_USAGE, "above 1");
}

/* ---- counts are a quantised ReLU: N = clip(floor(T x / theta + 1/2), 0, T) */

static void counts(void **state)
{
    (void)state;
    enum { N = 41, T = 8 };
    hk_value *x = NULL;
    hk_graph *g = new_graph(&x, 2, (int64_t[]){-1, 1});
    hk_model *m = model_of(g, op(g, "Relu", "relu", NULL, x, NULL, NULL)), *snn = NULL;
    float data[N];
    for (int i = 0; i < N; i++) /* ties included: every second one lies on a boundary */
        data[i] = (float)(i - 8) / 8;
    hk_tensor in = tensor_of(data, 2, (int64_t[]){N, 1});
    hk_snn_params p = params_of(&in, T, HK_SNN_MODE_SCALE);
    p.level = 0.5; /* theta 2 */
    p.no_bias_calibration = true;
    OK(hk_snn_convert(dev, m, &p, &snn));
    hk_tensor y = run_once(snn, "y", &in);
    for (int i = 0; i < N; i++) {
        double want = 2.0 / T * fmin(fmax(floor(T * (double)data[i] / 2 + 0.5), 0), T);
        if (fabs(want - hk_get_double(&y, i)) > 1e-6)
            fail_msg("x %g: %g, expected %g", (double)data[i], hk_get_double(&y, i), want);
    }
    hk_tensor_release(&y);
    hk_snn_info info;
    hk_snn_get_info(snn, &info);
    assert_int_equal(info.steps, T);
    assert_int_equal(info.layers, 1);
    hk_model_destroy(&snn);
    hk_model_destroy(&m);
}

/* ---- calibration */

static void measure(hk_snn_rule rule, int64_t channels, const float *x, int64_t count, float *thresholds)
{
    hk_arena *arena = hk_arena_create(ctx);
    hk_snn_meter *meter = NULL;
    OK(hk_snn_meter_create(arena, &rule, channels, INFINITY, &meter));
    for (int pass = 0; pass < hk_snn_meter_passes(&rule); pass++) {
        hk_snn_meter_begin(meter, pass);
        for (int64_t half = 0; half < 2; half++) { /* two batches, of unequal size */
            int64_t from = half ? count / 3 : 0, to = half ? count : count / 3;
            hk_tensor t = tensor_of((float *)(uintptr_t)x + from * channels, 2, (int64_t[]){to - from, channels});
            hk_snn_meter_add(meter, &t);
        }
        hk_snn_meter_end(meter);
    }
    assert_true(hk_snn_meter_thresholds(meter, thresholds));
    hk_arena_destroy(&arena);
}

static int compare_floats(const void *a, const void *b)
{
    const float *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static void calibration(void **state)
{
    (void)state;
    float range[101], theta[4];
    for (int i = 0; i <= 100; i++)
        range[i] = (float)((i * 37) % 101);
    measure((hk_snn_rule){HK_SNN_MODE_MAX, 0, false, 8}, 1, (float[]){1, 2, 3}, 3, theta);
    assert_true(theta[0] == 3);
    measure((hk_snn_rule){HK_SNN_MODE_PERCENTILE, 50, false, 8}, 1, range, 101, theta);
    assert_true(theta[0] == 50);
    measure((hk_snn_rule){HK_SNN_MODE_PERCENTILE, 99.9, false, 8}, 1, range, 101, theta);
    assert_true(fabs((double)theta[0] - 99.9) < 1e-5);
    measure((hk_snn_rule){HK_SNN_MODE_SCALE, 0.5, false, 8}, 1, (float[]){1, 10, 3}, 3, theta);
    assert_true(theta[0] == 5);
    enum { N = 3001, C = 4 };
    static float x[N * C], one[N];
    fill_random(x, N * C, 7, 3);
    for (int q = 0; q < 5; q++) { /* percentiles per channel against sorting */
        const double percent[] = {60, 75.3, 99, 99.9, 100};
        measure((hk_snn_rule){HK_SNN_MODE_PERCENTILE, percent[q], true, 8}, C, x, N, theta);
        for (int c = 0; c < C; c++) {
            for (int i = 0; i < N; i++)
                one[i] = fmaxf(x[i * C + c], 0);
            qsort(one, N, sizeof *one, compare_floats);
            double at = percent[q] / 100 * (N - 1), low = (double)one[(int)at];
            double want = low + ((double)one[HK_MIN((int)at + 1, N - 1)] - low) * (at - floor(at));
            assert_true(fabs((double)theta[c] - want) < 1e-6);
        }
    }
    double best = INFINITY, found = 0, largest = 0; /* least squared error, by trying */
    for (int i = 0; i < N; i++)
        largest = fmax(largest, (double)x[i]);
    measure((hk_snn_rule){HK_SNN_MODE_MMSE, 0, true, 4}, 1, x, N, theta);
    double error_at[2] = {0};
    for (int k = 0; k < 96; k++) {
        double t = k < 95 ? largest * (1 - 0.01 * k) : (double)theta[0], error = 0;
        for (int i = 0; i < N; i++) {
            double y = fmax((double)x[i], 0), q = t / 4 * fmin(floor(4 * y / t + 0.5), 4);
            error += (y - q) * (y - q);
        }
        if (k < 95 && error < best) {
            best = error;
            found = t;
        }
        error_at[1] = error;
    }
    print_message("MMSE threshold %.4f, by trying %.4f; errors %.6g, %.6g\n", (double)theta[0], found, error_at[1],
                  best);
    assert_true(error_at[1] <= best * 1.001);
}

/* ---- both forms, on dyadic numbers: equal spikes, equal bits */

static hk_model *dyadic_network(void)
{
    hk_value *x = NULL;
    hk_graph *g = new_graph(&x, 2, (int64_t[]){-1, 4});
    float w[12], v[6];
    for (int i = 0; i < 12; i++)
        w[i] = (float)((i * 7) % 9 - 3) / 4;
    for (int i = 0; i < 6; i++)
        v[i] = (float)((i * 5) % 7 - 2) / 2;
    const hk_attr_value transposed[] = {HK_SET_INT("transB", 1), {0}};
    hk_value *h = op(g, "Gemm", "first", transposed, x, floats(g, "w", w, 2, (int64_t[]){3, 4}), NULL);
    h = op(g, "Relu", "relu", NULL, h, NULL, NULL);
    return model_of(g, op(g, "Gemm", "second", transposed, h, floats(g, "v", v, 2, (int64_t[]){2, 3}), NULL));
}

static void forms_agree(void **state)
{
    (void)state;
    enum { N = 16 };
    hk_model *m = dyadic_network(), *folded = NULL, *scalers = NULL, *back = NULL;
    float data[N * 4];
    for (int i = 0; i < N * 4; i++)
        data[i] = (float)((i * 11) % 17) / 8;
    hk_tensor x = tensor_of(data, 2, (int64_t[]){N, 4});
    hk_tensor y = run_once(m, "y", &x);
    hk_tensor_release(&y);
    hk_snn_params p = params_of(&x, 16, HK_SNN_MODE_SCALE);
    p.no_bias_calibration = true;
    p.level = 1;
    float greatest = 0;
    for (int n = 0; n < N; n++) /* the largest activation, to make the threshold 2 */
        for (int c = 0; c < 3; c++) {
            float sum = 0;
            for (int k = 0; k < 4; k++)
                sum += data[n * 4 + k] * (float)(((c * 4 + k) * 7) % 9 - 3) / 4;
            greatest = fmaxf(greatest, sum);
        }
    assert_true(greatest > 2);
    p.level = 2 / (double)greatest;
    OK(hk_snn_convert(dev, m, &p, &folded));
    p.scalers = true;
    OK(hk_snn_convert(dev, m, &p, &scalers));
    size_t probes = 0;
    double a = spikes_in(folded, &x, &probes), b = spikes_in(scalers, &x, &probes);
    print_message("spikes: folded %g, scaler-neuron-scaler %g\n", a, b);
    assert_true(a > 0 && a == b);
    assert_int_equal(probes, 3);
    hk_tensor ya = run_once(folded, "y", &x), yb = run_once(scalers, "y", &x);
    equal_tensors(&ya, &yb);
    const char *path = in_folder("snn.onnx");
    OK(hk_model_save(folded, path));
    OK(hk_model_load(ctx, path, NULL, &back));
    assert_true(spikes_in(back, &x, &probes) == a);
    ya = run_once(folded, "y", &x), yb = run_once(back, "y", &x);
    equal_tensors(&ya, &yb);
    hk_model_destroy(&back);
    hk_model_destroy(&folded);
    hk_model_destroy(&scalers);
    hk_model_destroy(&m);
}

/* ---- residuals, convolution, pooling */

static void residuals(void **state)
{
    (void)state;
    enum { N = 5 };
    hk_model *m = residual_network("Relu", true), *snn = NULL, *longer = NULL;
    static float data[N * 108];
    fill_random(data, N * 108, 3, 1);
    hk_tensor x = tensor_of(data, 4, (int64_t[]){N, 3, 6, 6});
    hk_snn_params p = params_of(&x, 64, HK_SNN_MODE_MAX);
    p.grain = HK_SNN_GRAIN_CHANNEL;
    p.no_bias_calibration = true;
    OK(hk_snn_convert(dev, m, &p, &snn));
    double errors[2];
    for (int i = 0; i < 2; i++) {
        OK(hk_snn_with_steps(snn, i ? 1024 : 64, false, &longer));
        hk_tensor a = run_once(longer, "y", &x), b = run_once(m, "y", &x);
        errors[i] = relative_error(&a, &b);
        hk_model_destroy(&longer);
    }
    print_message("residual network: relative error %.4f at T = 64, %.5f at T = 1024\n", errors[0], errors[1]);
    assert_true(errors[0] < 3.0 * 4 / 64 && errors[1] < 3.0 * 4 / 1024);
    hk_model_destroy(&snn);
    hk_model_destroy(&m);
}

/* The readout behind MaxPool is the maximum of the readouts before it. */
static void max_pool_is_exact(void **state)
{
    (void)state;
    enum { N = 4 };
    static const int64_t three[] = {3, 3}, two[] = {2, 2}, ones[] = {1, 1, 1, 1};
    const hk_attr_value window[] = {
        HK_SET_INTS("kernel_shape", three, 2), HK_SET_INTS("strides", two, 2), HK_SET_INTS("pads", ones, 4), {0}};
    hk_tensor y[2];
    static float data[N * 108];
    fill_random(data, N * 108, 5, 1);
    hk_tensor x = tensor_of(data, 4, (int64_t[]){N, 3, 6, 6});
    for (int pooled = 0; pooled < 2; pooled++) {
        hk_value *in = NULL;
        hk_graph *g = new_graph(&in, 4, (int64_t[]){-1, 3, 6, 6});
        hk_value *h = op(g, "Relu", "relu", NULL, conv(g, "c", in, 3, 4, 61), NULL, NULL);
        h = pooled ? op(g, "MaxPool", "pool", window, h, NULL, NULL) : h;
        hk_model *m = model_of(g, h), *snn = NULL;
        hk_snn_params p = params_of(&x, 13, HK_SNN_MODE_MAX);
        p.no_bias_calibration = true;
        OK(hk_snn_convert(dev, m, &p, &snn));
        y[pooled] = run_once(snn, "y", &x);
        hk_model_destroy(&snn);
        hk_model_destroy(&m);
    }
    for (int64_t i = 0; i < N * 4 * 9; i++) {
        int64_t row = i / 3 % 3, column = i % 3, plane = i / 9;
        double want = -INFINITY;
        for (int64_t k = 0; k < 9; k++) {
            int64_t r = row * 2 - 1 + k / 3, c = column * 2 - 1 + k % 3;
            if (r >= 0 && r < 6 && c >= 0 && c < 6)
                want = fmax(want, hk_get_double(&y[0], plane * 36 + r * 6 + c));
        }
        assert_true(fabs(want - hk_get_double(&y[1], i)) < 1e-5);
    }
    hk_tensor_release(&y[0]);
    hk_tensor_release(&y[1]);
}

/* ---- other ways of writing networks */

/* How far the spiking network is from the original at T = 256, on the calibration data. */
static double distance(const hk_model *m, const hk_tensor *x, const char *name)
{
    hk_model *snn = NULL;
    hk_snn_params p = params_of(x, 256, HK_SNN_MODE_MAX);
    p.no_bias_calibration = true;
    OK(hk_snn_convert(dev, m, &p, &snn));
    hk_tensor a = run_once(snn, name, x), b = run_once(m, name, x);
    double error = relative_error(&a, &b);
    hk_model_destroy(&snn);
    return error;
}

/* ReLU6, batch normalization, groups, concatenation, average pooling, and a batch of 2 written into the file. */
static void many_operators(void **state)
{
    (void)state;
    static const int64_t two[] = {2, 2}, ones[] = {1, 1, 1, 1};
    const hk_attr_value window[] = {HK_SET_INTS("kernel_shape", two, 2), HK_SET_INTS("strides", two, 2), {0}};
    const hk_attr_value grouped[] = {HK_SET_INTS("pads", ones, 4), HK_SET_INT("group", 2), {0}};
    const hk_attr_value axis[] = {HK_SET_INT("axis", 1), {0}};
    const float statistics[4][6] = {
        {1, .5f, 2, 1, 1, .7f}, {0, .1f, -.1f, 0, .2f, 0}, {.1f, 0, .2f, -.1f, 0, 0}, {1, .5f, 2, 1, 1.5f, 1}};
    const int64_t six = 6;
    hk_value *x = NULL, *bn[5];
    hk_graph *g = new_graph(&x, 4, (int64_t[]){2, 3, 6, 6});
    bn[0] = conv(g, "c1", x, 3, 6, 11);
    for (int i = 0; i < 4; i++)
        bn[i + 1] = floats(g, NULL, statistics[i], 1, &six);
    hk_value *h = NULL, *low = floats(g, "low", (float[]){0}, 0, NULL),
             *high = floats(g, "high", (float[]){0.6f}, 0, NULL);
    OK(hk_snn_node_make(g, OPSET, "BatchNormalization", "bn", NULL, bn, 5, &h));
    h = op(g, "Clip", "relu6", NULL, h, low, high);
    hk_value *a = op(g, "Conv", "grouped", grouped, h, random_weights(g, "gw", 4, (int64_t[]){4, 3, 3, 3}, 71, .4),
                     NULL);
    a = op(g, "Relu", "relu2", NULL, a, NULL, NULL);
    h = op(g, "Concat", "both", axis, a, h, NULL);
    h = op(g, "AveragePool", "pool", window, h, NULL, NULL);
    h = op(g, "Relu", "relu3", NULL, conv(g, "c4", h, 10, 4, 81), NULL, NULL);
    const int64_t shape[] = {2, 36};
    h = op(g, "Reshape", "flat", NULL, h, hk_snn_integers(g, "shape", shape, 2), NULL);
    h = op(g, "Gemm", "head", NULL, h, random_weights(g, "hw", 2, (int64_t[]){36, 5}, 91, 1), NULL);
    hk_model *m = model_of(g, h), *snn = NULL;
    static float data[3 * 108];
    fill_random(data, 3 * 108, 9, 1);
    hk_tensor pair = tensor_of(data, 4, (int64_t[]){2, 3, 6, 6}), three = tensor_of(data, 4, (int64_t[]){3, 3, 6, 6});
    double error = distance(m, &pair, "y");
    print_message("ReLU6, BN, groups, Concat: relative error %.5f at T = 256\n", error);
    assert_true(error < 0.02);
    hk_snn_params p = params_of(&three, 16, HK_SNN_MODE_DEFAULT); /* another batch than the file's */
    OK(hk_snn_convert(dev, m, &p, &snn));
    hk_tensor y = run_once(snn, "y", &three), z = run_once(snn, "y", &pair);
    assert_int_equal(y.shape[0], 3);
    assert_memory_equal(y.data, z.data, 10 * sizeof(float));
    hk_tensor_release(&y);
    hk_tensor_release(&z);
    hk_model_destroy(&snn);
    hk_model_destroy(&m);
}

static void built_models(void **state)
{
    (void)state;
    hk_model *m = NULL;
    hk_value *x = NULL, *y = NULL;
    const hk_layer layers[] = {{.kind = HK_LAYER_CONV1D, .out = 4, .kernel = {3}, .padding = {1}},
                               {.kind = HK_LAYER_BATCH_NORM},
                               {.kind = HK_LAYER_RELU},
                               {.kind = HK_LAYER_MAX_POOL1D, .kernel = {2}},
                               {.kind = HK_LAYER_DROPOUT},
                               {.kind = HK_LAYER_FLATTEN},
                               {.kind = HK_LAYER_LINEAR, .out = 8},
                               {.kind = HK_LAYER_RELU},
                               {.kind = HK_LAYER_LINEAR, .out = 3}};
    OK(hk_model_create(ctx, NULL, &m));
    OK(hk_model_input(m, "x", HK_FLOAT32, 3, (int64_t[]){-1, 2, 10}, &x));
    OK(hk_add_sequence(m, x, layers, sizeof layers / sizeof *layers, &y));
    OK(hk_model_output(m, y, "y"));
    float data[5 * 20];
    fill_random(data, 100, 13, 1);
    hk_tensor t = tensor_of(data, 3, (int64_t[]){5, 2, 10});
    double error = distance(m, &t, "y");
    print_message("a model built of layers: relative error %.5f at T = 256\n", error);
    assert_true(error < 0.02);
    hk_model_destroy(&m);
}

/* ---- synaptic operations: elements other than 0 times what each reaches */

static void synaptic_operations(void **state)
{
    (void)state;
    hk_value *in = NULL;
    hk_graph *g = new_graph(&in, 2, (int64_t[]){-1, 4});
    hk_value *h = op(g, "Relu", "relu", NULL, in, NULL, NULL);
    float w[4 * 50] = {0};
    hk_model *m = model_of(g, op(g, "MatMul", "head", NULL, h, floats(g, "w", w, 2, (int64_t[]){4, 50}), NULL)),
             *snn = NULL, *watched = NULL;
    float data[] = {1, 0, 1, -1, 0, 0, 1, 0};
    hk_tensor x = tensor_of(data, 2, (int64_t[]){2, 4});
    hk_snn_params p = params_of(&x, 1, HK_SNN_MODE_MAX);
    p.no_bias_calibration = true;
    OK(hk_snn_convert(dev, m, &p, &snn));
    OK(hk_snn_with_steps(snn, 3, HK_SNN_MONITOR_COUNTS, &watched));
    size_t count = 0;
    const hk_snn_probe *probes = hk_snn_probes(watched, &count);
    assert_int_equal(count, 2);
    assert_string_equal(probes[0].op, "hk.Neuron");
    assert_true(probes[0].neurons == 4 && probes[1].macs == 200);
    for (size_t i = 0; i < 2; i++) {
        hk_tensor y = run_once(watched, probes[i].output, &x);
        assert_int_equal(hk_tensor_count(&y), 3);
        for (int64_t t = 0; t < 3; t++)
            assert_true(hk_get_double(&y, t) == (i ? 3 * 50 : 3));
        hk_tensor_release(&y);
    }
    hk_model_destroy(&watched);
    hk_model_destroy(&snn);
    hk_model_destroy(&m);
}

/* Time is one more than a tensor may have. */
static void eight_dimensions(void **state)
{
    (void)state;
    static const int64_t eight[] = {-1, 1, 1, 2, 1, 1, 1, 2};
    float data[] = {1, 2, 3, 4, 4, 3, 2, 1};
    hk_value *x = NULL;
    hk_graph *g = new_graph(&x, 2, (int64_t[]){-1, 4});
    hk_value *h = op(g, "Relu", "relu", NULL, x, NULL, NULL);
    hk_model *m = model_of(g, op(g, "Reshape", "deep", NULL, h, hk_snn_integers(g, "eight", eight, 8), NULL)),
             *snn = NULL;
    hk_tensor t = tensor_of(data, 2, (int64_t[]){2, 4});
    hk_snn_params p = params_of(&t, 4, HK_SNN_MODE_MAX);
    refused(hk_snn_convert(dev, m, &p, &snn), HK_STATUS_UNSUPPORTED, "8 dimensions");
    hk_model_destroy(&m);
    g = new_graph(&x, 8, (int64_t[]){-1, 1, 1, 2, 1, 1, 1, 2});
    m = model_of(g, op(g, "Relu", "relu", NULL, x, NULL, NULL));
    refused(hk_snn_native(m,
                          &(hk_snn_native_params){
                              .size = sizeof(hk_snn_native_params), .steps = 4, .encoding = HK_SNN_ENCODE_POISSON},
                          &snn),
            HK_STATUS_UNSUPPORTED, "8 dimensions");
    hk_model_destroy(&m);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(golden_steps),        cmocka_unit_test(counts),
                                       cmocka_unit_test(calibration),         cmocka_unit_test(forms_agree),
                                       cmocka_unit_test(residuals),           cmocka_unit_test(max_pool_is_exact),
                                       cmocka_unit_test(synaptic_operations), cmocka_unit_test(many_operators),
                                       cmocka_unit_test(built_models),        cmocka_unit_test(eight_dimensions)};
    return test_main(argc, argv,
                     &(test_program){.name = "convert", TESTS(tests), .setup = make_folder, .teardown = remove_folder});
}
