/*
 * Spiking networks made of networks of activations, to be trained; step modes of whole networks; and the command on
 * both.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/command.h"
#include "tests/support/spiking.h"

#define DIGITS HK_TEST_DATA "/digits"
#define COUNT(a) (sizeof(a) / sizeof(a)[0])

static float *noise(size_t count, double high)
{
    float *x = malloc((count + 1) * sizeof *x);
    uint32_t seed = 12;
    assert_non_null(x);
    for (size_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(high * (double)(seed >> 8) / 16777216.0);
    }
    return x;
}

/* ---- neurons in place of activations */

static double accuracy(hk_trainer *t)
{
    hk_dataset *data = NULL;
    hk_loader *l = digits(&data, 60, 0.2, true);
    size_t right = 0, all = 0;
    for (hk_batch b;;) {
        hk_tensor y = {0};
        OK(hk_loader_next(l, &b));
        if (!b.count)
            break;
        OK(hk_trainer_evaluate(t, b.inputs, 1, false));
        OK(hk_trainer_read_output(t, "logits", &y));
        assert_int_equal(y.rank, 2);
        for (size_t i = 0; i < b.count; i++) {
            const float *scores = (const float *)y.data + i * 10;
            int64_t best = 0;
            for (int64_t c = 1; c < 10; c++)
                best = scores[c] > scores[best] ? c : best;
            right += best == ((const int64_t *)b.target->data)[i];
        }
        all += b.count;
        hk_tensor_release(&y);
    }
    hk_loader_destroy(&l);
    hk_dataset_close(&data);
    return (double)right / (double)all;
}

static const struct native_case {
    hk_snn_native_params params;
    hk_layer neuron;
} native_cases[] = {
    {{.steps = 4}, {.kind = HK_LAYER_LIF}},
    {{.steps = 4, .encoding = HK_SNN_ENCODE_POISSON, .readout = HK_SNN_READ_COUNT}, {.kind = HK_LAYER_PARAMETRIC_LIF}},
    {{.steps = 6, .encoding = HK_SNN_ENCODE_LATENCY, .readout = HK_SNN_READ_MEMBRANE},
     {.kind = HK_LAYER_IF, .soft_reset = true, .v_threshold = .5f}},
    {{.steps = 4, .readout = HK_SNN_READ_LAST},
     {.kind = HK_LAYER_LIF, .tau = 4, .decay_input = true, .surrogate = "Erf"}},
};

/* One epoch from the weights of the network, with every encoder and readout: well above chance. */
static void trains_with_every_readout(void **state)
{
    (void)state;
    hk_model *ann = NULL;
    OK(hk_model_load(ctx, DIGITS "/model.onnx", NULL, &ann));
    for (size_t i = 0; i < COUNT(native_cases); i++) {
        hk_snn_native_params p = native_cases[i].params;
        hk_model *m = NULL, *again = NULL;
        hk_trainer *t = NULL;
        hk_dataset *data = NULL;
        hk_loader *l = digits(&data, 60, 0.2, false);
        p.size = sizeof p;
        p.neuron = &native_cases[i].neuron;
        OK(hk_snn_native(ann, &p, &m));
        const char *path = in_folder("native.onnx");
        OK(hk_model_save(m, path));
        OK(hk_model_load(ctx, path, NULL, &again));
        OK(hk_trainer_create(dev, again, &(hk_trainer_params){.size = sizeof(hk_trainer_params), .lr = 3e-3f}, &t));
        for (hk_batch b;;) {
            OK(hk_loader_next(l, &b));
            if (!b.count)
                break;
            OK(hk_trainer_step(t, b.inputs, 1, b.target, NULL));
        }
        double a = accuracy(t);
        print_message("case %zu: accuracy %.3f after one epoch\n", i, a);
        assert_true(a > .6);
        hk_snn_neuron neurons[8];
        size_t count = 0;
        OK(hk_snn_neurons(again, neurons, COUNT(neurons), &count));
        assert_true(count >= 2 && neurons[0].steps == p.steps);
        assert_int_equal(neurons[0].parameter != NULL, p.neuron->kind == HK_LAYER_PARAMETRIC_LIF);
        hk_trainer_destroy(&t);
        hk_loader_destroy(&l);
        hk_dataset_close(&data);
        hk_model_destroy(&again);
        hk_model_destroy(&m);
    }
    hk_model_destroy(&ann);
}

static void what_is_refused(void **state)
{
    (void)state;
    hk_model *ann = NULL, *m = NULL, *again = NULL;
    hk_snn_native_params p = {.size = sizeof p, .steps = -1};
    OK(hk_model_load(ctx, DIGITS "/model.onnx", NULL, &ann));
    refused(hk_snn_native(ann, &p, &m), HK_STATUS_USAGE, "1 to 65536");
    p = (hk_snn_native_params){.size = sizeof p, .neuron = &(hk_layer){.kind = HK_LAYER_LIF, .tau = 1}};
    refused(hk_snn_native(ann, &p, &m), HK_STATUS_USAGE, "above 1");
    p.neuron = &(hk_layer){.kind = HK_LAYER_RELU};
    refused(hk_snn_native(ann, &p, &m), HK_STATUS_USAGE, "is no neuron");
    refused(hk_snn_set_step_mode(ann, HK_STEP_SINGLE, &m), HK_STATUS_USAGE, "no neurons");
    p = (hk_snn_native_params){.size = sizeof p, .encoding = HK_SNN_ENCODE_LATENCY};
    OK(hk_snn_native(ann, &p, &m));
    refused(hk_snn_native(m, &p, &again), HK_STATUS_USAGE, "already");
    refused(hk_snn_set_step_mode(m, HK_STEP_SINGLE, &again), HK_STATUS_UNSUPPORTED, "several steps");
    hk_model_destroy(&m);
    hk_model_destroy(&ann);
}

/* ---- step modes of a whole network */

static hk_tensor run(hk_session *s, const hk_tensor *x)
{
    hk_tensor y = {0};
    OK(hk_session_write(s, "x", x));
    OK(hk_session_run(s));
    OK(hk_session_read(s, "y", &y));
    return y;
}

static void single_steps_are_the_call(void **state)
{
    (void)state;
    enum { T = 5, N = 2, PIXELS = 36, OUT = 7 };
    const hk_layer layers[] = {
        {.kind = HK_LAYER_CONV2D, .out = 3, .kernel = {3}, .padding = {1}, .time = HK_TIME_FOLD},
        {.kind = HK_LAYER_LIF, .v_threshold = .25f},
        {.kind = HK_LAYER_MAX_POOL2D, .kernel = {2}, .time = HK_TIME_FOLD},
        {.kind = HK_LAYER_FLATTEN, .time = HK_TIME_FOLD},
        {.kind = HK_LAYER_LINEAR, .out = OUT, .time = HK_TIME_FOLD},
        {.kind = HK_LAYER_PARAMETRIC_LIF, .v_threshold = .25f},
    };
    hk_model *m = NULL, *single = NULL;
    hk_value *x = NULL, *y = NULL;
    hk_session *all = NULL, *steps = NULL;
    float *data = noise(T * N * PIXELS, 2);
    hk_tensor whole = {.data = data, .dtype = HK_FLOAT32, .rank = 5, .shape = {T, N, 1, 6, 6}};
    OK(hk_model_create(ctx, &(hk_build_params){.size = sizeof(hk_build_params), .seed = 3}, &m));
    OK(hk_model_input(m, "x", HK_FLOAT32, 5, (int64_t[]){T, -1, 1, 6, 6}, &x));
    OK(hk_add_sequence(m, x, layers, COUNT(layers), &y));
    OK(hk_model_output(m, y, "y"));
    OK(hk_snn_set_step_mode(m, HK_STEP_SINGLE, &single));
    OK(hk_session_create(dev, m, NULL, &all));
    OK(hk_session_create(dev, single, NULL, &steps));
    hk_tensor expected = run(all, &whole);
    double spikes = 0;
    for (int64_t i = 0; i < hk_tensor_count(&expected); i++)
        spikes += (double)((float *)expected.data)[i];
    assert_true(spikes > 0 && spikes < (double)hk_tensor_count(&expected));
    for (int t = 0; t < T; t++) {
        hk_tensor now = {.data = data + t * N * PIXELS, .dtype = HK_FLOAT32, .rank = 4, .shape = {N, 1, 6, 6}};
        hk_tensor got = run(steps, &now);
        assert_int_equal(got.rank, 2);
        assert_memory_equal(got.data, (float *)expected.data + t * N * OUT, N * OUT * sizeof(float));
        hk_tensor_release(&got);
    }
    hk_tensor_release(&expected);
    hk_session_destroy(&all);
    hk_session_destroy(&steps);
    hk_model_destroy(&single);
    hk_model_destroy(&m);
    free(data);
}

/* ---- the command */

static void the_command(void **state)
{
    (void)state;
    char line[900];
    expect("convert '" DIGITS "/model.onnx' --native --neuron plif,tau=2 --steps 4 --encode poisson --readout rate "
           "--out native.onnx",
           0, "native.onnx: 4 steps");
    expect("inspect native.onnx", 0, "ParametricLIF  tau 2 ");
    snprintf(line, sizeof line,
             "train native.onnx --data '%s' --scale 0.0625 --val 0.2 --epochs 2 --lr 3e-3 --batch 64 --out tuned",
             DIGITS);
    expect(line, 0, ": tau ");
    snprintf(line, sizeof line, "eval tuned/model.onnx --data '%s' --scale 0.0625 --val 0.2 --steps 1,4", DIGITS);
    expect(line, 0, "layers at T = 4");
    snprintf(line, sizeof line, "eval tuned/model.onnx --data '%s' --scale 0.0625 --val 0.2 --batch 50", DIGITS);
    expect(line, 0, "accuracy 0.");
    expect("convert '" DIGITS "/model.onnx' --native --neuron lif,tau=1 --out no.onnx", 64, "above 1");
    expect("convert '" DIGITS "/model.onnx' --native --encode rate --out no.onnx", 64,
           "direct, poisson or latency, found 'rate'");
    expect("convert native.onnx --native --out no.onnx", 64, "already");
    assert_false(is_there("no.onnx"));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trains_with_every_readout),
        cmocka_unit_test(what_is_refused),
        cmocka_unit_test(single_steps_are_the_call),
        cmocka_unit_test(the_command),
    };
    const test_program program = {
        .name = "spiking_native", TESTS(tests), .setup = make_folder, .teardown = remove_folder};
    return test_main(argc, argv, &program);
}
