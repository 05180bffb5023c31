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
    refused(hk_snn_set_step_mode(ann, HK_STEP_SINGLE, 0, &m), HK_STATUS_USAGE, "no neurons");
    p = (hk_snn_native_params){.size = sizeof p, .encoding = HK_SNN_ENCODE_LATENCY};
    OK(hk_snn_native(ann, &p, &m));
    refused(hk_snn_native(m, &p, &again), HK_STATUS_USAGE, "already");
    refused(hk_snn_set_step_mode(m, HK_STEP_SINGLE, 0, &again), HK_STATUS_UNSUPPORTED, "several steps");
    refused(hk_snn_set_step_mode(m, HK_STEP_MULTI, 4, &again), HK_STATUS_USAGE, "hk_snn_with_steps");
    hk_model_destroy(&m);
    hk_model_destroy(&ann);
}

/* ---- step modes of a whole network */

enum { T = 5, N = 2, SIDE = 6, PIXELS = SIDE * SIDE, OUT = 7 };

static void copy_of(hk_session *s, const char *name, hk_tensor *y)
{
    *y = (hk_tensor){0};
    OK(hk_session_read(s, name, y));
}

/* Two convolutional and linear layers of neurons, built for that step mode; outputs: spikes "y" and potentials "v". */
static hk_model *network(hk_step_mode mode)
{
    bool single = mode == HK_STEP_SINGLE;
    hk_time fold = single ? HK_TIME_WHOLE : HK_TIME_FOLD;
    hk_value *x = NULL, *y = NULL, *v = NULL;
    hk_model *m = NULL;
    const hk_layer layers[] = {
        {.kind = HK_LAYER_CONV2D, .name = "c", .out = 3, .kernel = {3}, .padding = {1}, .time = fold},
        {.kind = HK_LAYER_BATCH_NORM, .name = "b", .time = fold},
        {.kind = HK_LAYER_LIF, .name = "n1", .v_threshold = .25f, .step_mode = mode},
        {.kind = HK_LAYER_MAX_POOL2D, .kernel = {2}, .time = fold},
        {.kind = HK_LAYER_FLATTEN, .time = fold},
        {.kind = HK_LAYER_LINEAR, .name = "l", .out = OUT, .time = fold},
        {.kind = HK_LAYER_PARAMETRIC_LIF, .name = "n2", .v_threshold = .25f, .step_mode = mode, .membrane = &v},
    };
    OK(hk_model_create(ctx, &(hk_build_params){.size = sizeof(hk_build_params), .seed = 3}, &m));
    OK(hk_model_input(m, "x", HK_FLOAT32, single ? 4 : 5,
                      single ? (int64_t[]){-1, 1, SIDE, SIDE} : (int64_t[]){T, -1, 1, SIDE, SIDE}, &x));
    OK(hk_add_sequence(m, x, layers, COUNT(layers), &y));
    OK(hk_model_output(m, y, "y"));
    OK(hk_model_output(m, v, "v"));
    return m;
}

static hk_model *in_mode(const hk_model *m, hk_step_mode mode, int64_t steps)
{
    hk_model *other = NULL, *again = NULL;
    OK(hk_snn_set_step_mode(m, mode, steps, &other));
    const char *path = in_folder("mode.onnx");
    OK(hk_model_save(other, path));
    OK(hk_model_load(ctx, path, NULL, &again));
    hk_model_destroy(&other);
    return again;
}

/* Twice all steps, potentials going on between them: spikes and potentials. */
static void run_calls(const hk_model *m, float *data, hk_tensor out[4])
{
    hk_session *s = NULL;
    hk_tensor x = {.data = data, .dtype = HK_FLOAT32, .rank = 5, .shape = {T, N, 1, SIDE, SIDE}};
    OK(hk_session_create(dev, m, NULL, &s));
    for (int call = 0; call < 2; call++) {
        OK(hk_session_write(s, "x", &x));
        OK(hk_session_run(s));
        copy_of(s, "y", &out[2 * call]);
        copy_of(s, "v", &out[2 * call + 1]);
    }
    hk_session_destroy(&s);
}

/* The same by single steps. */
static void run_steps(const hk_model *m, float *data, const hk_tensor expected[4])
{
    hk_session *s = NULL;
    OK(hk_session_create(dev, m, NULL, &s));
    for (int t = 0; t < 2 * T; t++) {
        hk_tensor x = {.data = data + t % T * N * PIXELS, .dtype = HK_FLOAT32, .rank = 4, .shape = {N, 1, SIDE, SIDE}};
        OK(hk_session_write(s, "x", &x));
        OK(hk_session_run(s));
        for (int k = 0; k < 2; k++) {
            hk_tensor got;
            copy_of(s, k ? "v" : "y", &got);
            assert_int_equal(got.rank, 2);
            assert_memory_equal(got.data, (float *)expected[t / T * 2 + k].data + t % T * N * OUT,
                                N * OUT * sizeof(float));
            hk_tensor_release(&got);
        }
    }
    hk_session_destroy(&s);
}

/* Losses of three training steps. */
static void losses_of(const hk_model *m, float *data, float loss[3])
{
    hk_trainer *t = NULL;
    float target[T * N * OUT] = {0};
    hk_tensor x = {.data = data, .dtype = HK_FLOAT32, .rank = 5, .shape = {T, N, 1, SIDE, SIDE}};
    const hk_tensor y = {.data = target, .dtype = HK_FLOAT32, .rank = 3, .shape = {T, N, OUT}};
    const hk_trainer_params p = {.size = sizeof p, .loss = HK_LOSS_MSE, .output = "v", .lr = .01f};
    OK(hk_trainer_create(dev, m, &p, &t));
    for (int i = 0; i < 3; i++)
        OK(hk_trainer_step(t, &x, 1, &y, &loss[i]));
    hk_trainer_destroy(&t);
}

/* Built in either mode and brought into the other, once and back: always the same bits, and the same
 * training. */
static void step_modes_of_a_network(void **state)
{
    (void)state;
    float *data = noise(T * N * PIXELS, 2), expected_loss[3];
    hk_model *built = network(HK_STEP_MULTI), *stepwise = network(HK_STEP_SINGLE);
    hk_model *single = in_mode(built, HK_STEP_SINGLE, 0);
    hk_model *multi[] = {in_mode(single, HK_STEP_MULTI, T), in_mode(stepwise, HK_STEP_MULTI, T),
                         in_mode(built, HK_STEP_MULTI, 0)};
    hk_model *singles[] = {single, stepwise, in_mode(stepwise, HK_STEP_SINGLE, 0),
                           in_mode(multi[1], HK_STEP_SINGLE, 0)};
    hk_tensor expected[4];
    double spikes = 0;
    run_calls(built, data, expected);
    losses_of(built, data, expected_loss);
    assert_true(expected_loss[2] != expected_loss[0]);
    for (int64_t i = 0; i < hk_tensor_count(&expected[0]); i++)
        spikes += (double)((float *)expected[0].data)[i];
    assert_true(spikes > 0 && spikes < (double)hk_tensor_count(&expected[0]));
    for (size_t i = 0; i < COUNT(singles); i++)
        run_steps(singles[i], data, expected);
    for (size_t i = 0; i < COUNT(multi); i++) {
        hk_tensor got[4];
        float loss[3];
        run_calls(multi[i], data, got);
        for (int k = 0; k < 4; k++) {
            assert_int_equal(got[k].rank, 3);
            assert_int_equal(hk_tensor_count(&got[k]), T * N * OUT);
            assert_memory_equal(got[k].data, expected[k].data, T * N * OUT * sizeof(float));
            hk_tensor_release(&got[k]);
        }
        losses_of(multi[i], data, loss);
        for (int k = 0; k < 3; k++)
            assert_true(fabsf(loss[k] - expected_loss[k]) <= 1e-5f * fabsf(expected_loss[k]));
        hk_model_destroy(&multi[i]);
    }
    for (size_t i = 0; i < COUNT(singles); i++)
        hk_model_destroy(&singles[i]);
    for (int k = 0; k < 4; k++)
        hk_tensor_release(&expected[k]);
    hk_model_destroy(&built);
    free(data);
}

/* A network whose input has time takes the first steps as it takes all. */
static void fewer_steps_of_a_network(void **state)
{
    (void)state;
    enum { FEW = 3 };
    float *data = noise(T * N * PIXELS, 2);
    hk_model *all = network(HK_STEP_MULTI), *few = NULL;
    hk_tensor expected[4], got, x = {.data = data, .dtype = HK_FLOAT32, .rank = 5, .shape = {FEW, N, 1, SIDE, SIDE}};
    hk_session *s = NULL;
    OK(hk_snn_with_steps(all, FEW, 0, &few));
    run_calls(all, data, expected);
    OK(hk_session_create(dev, few, NULL, &s));
    OK(hk_session_write(s, "x", &x));
    OK(hk_session_run(s));
    for (int k = 0; k < 2; k++) {
        copy_of(s, k ? "v" : "y", &got);
        assert_int_equal(hk_tensor_count(&got), FEW * N * OUT);
        assert_memory_equal(got.data, expected[k].data, FEW * N * OUT * sizeof(float));
        hk_tensor_release(&got);
    }
    for (int k = 0; k < 4; k++)
        hk_tensor_release(&expected[k]);
    hk_session_destroy(&s);
    hk_model_destroy(&few);
    hk_model_destroy(&all);
    free(data);
}

static void step_modes_that_are_refused(void **state)
{
    (void)state;
    hk_model *stepwise = network(HK_STEP_SINGLE), *m = NULL;
    hk_value *x = NULL, *y = NULL;
    refused(hk_snn_set_step_mode(stepwise, HK_STEP_MULTI, 0, &m), HK_STATUS_USAGE, "1 to 65536");
    refused(hk_snn_set_step_mode(stepwise, HK_STEP_MULTI, 65537, &m), HK_STATUS_USAGE, "1 to 65536");
    refused(hk_snn_with_steps(stepwise, T, 0, &m), HK_STATUS_USAGE, "HK_STEP_MULTI");
    hk_model *all = network(HK_STEP_MULTI), *one = NULL;
    OK(hk_snn_set_step_mode(all, HK_STEP_SINGLE, 0, &one));
    refused(hk_snn_with_steps(one, T, 0, &m), HK_STATUS_USAGE, "HK_STEP_MULTI");
    hk_model_destroy(&one);
    hk_model_destroy(&all);
    for (int k = 0; k < 2; k++) { /* as many samples as steps, or one more */
        hk_graph *g = new_graph(&x, 3, (int64_t[]){T, T + k, 6});
        y = op(
            g, "hk.Neuron", "n",
            (hk_attr_value[]){HK_SET_STRING("kind", "IF"), HK_SET_STRING("state", "n.v"), HK_SET_INT("steps", T), {0}},
            x, NULL, NULL);
        hk_model *fixed = model_of(g, y);
        if (k)
            OK(hk_snn_set_step_mode(fixed, HK_STEP_SINGLE, 0, &m));
        else
            refused(hk_snn_set_step_mode(fixed, HK_STEP_SINGLE, 0, &m), HK_STATUS_UNSUPPORTED, "cannot be told apart");
        hk_model_destroy(&m);
        hk_model_destroy(&fixed);
    }
    for (int k = 0; k < 3; k++) { /* without a state; along the samples; and across them */
        hk_graph *g = new_graph(&x, 2, (int64_t[]){-1, 6});
        y = op(g, "hk.Neuron", "n",
               (hk_attr_value[]){HK_SET_STRING("kind", "IF"), HK_SET_STRING("state", k ? "n.v" : ""), {0}}, x, NULL,
               NULL);
        if (k)
            y = op(g, k == 1 ? "Softmax" : "Transpose", "mixed",
                   k == 1 ? (hk_attr_value[]){HK_SET_INT("axis", 0), {0}} : NULL, y, NULL, NULL);
        hk_model *mixing = model_of(g, y);
        refused(hk_snn_set_step_mode(mixing, HK_STEP_MULTI, T, &m), HK_STATUS_UNSUPPORTED,
                k ? "node 'mixed'" : "do not persist");
        hk_model_destroy(&mixing);
    }
    hk_model_destroy(&stepwise);
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
        cmocka_unit_test(trains_with_every_readout),   cmocka_unit_test(what_is_refused),
        cmocka_unit_test(step_modes_of_a_network),     cmocka_unit_test(fewer_steps_of_a_network),
        cmocka_unit_test(step_modes_that_are_refused), cmocka_unit_test(the_command),
    };
    const test_program program = {
        .name = "spiking_native", TESTS(tests), .setup = make_folder, .teardown = remove_folder};
    return test_main(argc, argv, &program);
}
