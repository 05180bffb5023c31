/*
 * Conversion to spiking networks of a trained one: digits over T, training on, what is refused and how, and the
 * command.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ops/op.h"
#include "tests/support/command.h"
#include "tests/support/repeat.h"
#include "tests/support/spiking.h"

#define DIGITS HK_TEST_DATA "/digits"

/* ---- digits */

static int64_t best_class(const hk_tensor *y, int64_t row)
{
    int64_t best = 0;
    for (int64_t c = 1; c < 10; c++)
        if (hk_get_double(y, row * 10 + c) > hk_get_double(y, row * 10 + best))
            best = c;
    return best;
}

/* Images of the held-out part on which both say the same class, and on which each is right. */
static size_t compare_classes(const hk_model *a, const hk_model *b, size_t right[2], size_t *all)
{
    hk_dataset *data = NULL;
    hk_loader *l = digits(&data, 120, 0.2, true);
    size_t same = 0;
    *all = right[0] = right[1] = 0;
    for (hk_batch batch;;) {
        OK(hk_loader_next(l, &batch));
        if (!batch.count)
            break;
        hk_tensor x = run_once(a, "logits", &batch.inputs[0]), y = run_once(b, "logits", &batch.inputs[0]);
        for (int64_t i = 0; i < (int64_t)batch.count; i++) {
            same += best_class(&x, i) == best_class(&y, i);
            right[0] += best_class(&x, i) == hk_get_int(batch.target, i);
            right[1] += best_class(&y, i) == hk_get_int(batch.target, i);
        }
        *all += batch.count;
        hk_tensor_release(&x);
        hk_tensor_release(&y);
    }
    hk_loader_destroy(&l);
    hk_dataset_close(&data);
    return same;
}

static hk_model *digits_model(void)
{
    hk_model *m = NULL;
    OK(hk_model_load(ctx, DIGITS "/model.onnx", NULL, &m));
    return m;
}

static void digits_over_time(void **state)
{
    (void)state;
    static const double least[] = {.85, .90, .95, .98, .99, .99, .99}; /* equal classes */
    hk_dataset *data = NULL;
    hk_loader *l = digits(&data, 120, 0.2, false);
    hk_model *m = digits_model(), *snn = NULL, *at = NULL;
    OK(hk_snn_convert(dev, m, &(hk_snn_params){.size = sizeof(hk_snn_params), .loader = l}, &snn));
    for (int i = 0; i < repeats(7, 3); i++) {
        size_t right[2], all;
        OK(hk_snn_with_steps(snn, 1 << i, false, &at));
        size_t same = compare_classes(m, at, right, &all);
        print_message("T = %2d: accuracy %.4f, of the original %.4f, same class %.4f\n", 1 << i,
                      (double)right[1] / (double)all, (double)right[0] / (double)all, (double)same / (double)all);
        assert_true((double)same >= least[i] * (double)all);
        hk_model_destroy(&at);
    }
    hk_model_destroy(&snn);
    hk_model_destroy(&m);
    hk_loader_destroy(&l);
    hk_dataset_close(&data);
}

/* The converted network is a model like any other: its loss falls when it is trained. */
static void trains(void **state)
{
    (void)state;
    hk_dataset *data = NULL;
    hk_loader *l = digits(&data, 120, 0.2, false);
    hk_model *m = digits_model(), *snn = NULL;
    hk_trainer *t = NULL;
    hk_batch b;
    float first = 0, last = 0;
    OK(hk_snn_convert(dev, m, &(hk_snn_params){.size = sizeof(hk_snn_params), .loader = l, .steps = 2}, &snn));
    OK(hk_loader_seek(l, 0, 0));
    OK(hk_loader_next(l, &b));
    OK(hk_trainer_create(dev, snn, &(hk_trainer_params){.size = sizeof(hk_trainer_params), .lr = 1e-3f}, &t));
    OK(hk_trainer_step(t, b.inputs, 1, b.target, &first));
    for (int i = 0; i < 9; i++)
        OK(hk_trainer_step(t, b.inputs, 1, b.target, &last));
    print_message("loss of one batch: %.4f, after ten updates %.4f\n", (double)first, (double)last);
    assert_true(last < 0.7f * first);
    hk_trainer_destroy(&t);
    hk_model_destroy(&snn);
    hk_model_destroy(&m);
    hk_loader_destroy(&l);
    hk_dataset_close(&data);
}

/* ---- refusals */

static void refusals(void **state)
{
    (void)state;
    static float data[2 * 108];
    fill_random(data, 2 * 108, 3, 1);
    hk_tensor x = tensor_of(data, 4, (int64_t[]){2, 3, 6, 6});
    hk_model *m = residual_network("Sigmoid", false), *snn = NULL, *good = residual_network("Relu", false);
    hk_snn_params p = params_of(&x, 4, HK_SNN_MODE_MAX);
    refused(hk_snn_convert(dev, m, &p, &snn), HK_STATUS_UNSUPPORTED, "node 'middle' (Sigmoid)");
    refused(hk_snn_convert(dev, good, NULL, &snn), HK_STATUS_USAGE, "needs calibration data");
    refused(hk_snn_convert(dev, good, &(hk_snn_params){.size = sizeof p, .mode = HK_SNN_MODE_MAX}, &snn),
            HK_STATUS_USAGE, "Give some hundred samples");
    const struct {
        hk_snn_mode mode;
        double level, tau;
        int64_t steps, delay;
        const char *text;
    } wrong[] = {
        {HK_SNN_MODE_PERCENTILE, 0, 0, 4, 0, "percentile of 0 %"}, {HK_SNN_MODE_PERCENTILE, 100.5, 0, 4, 0, "(0, 100]"},
        {HK_SNN_MODE_SCALE, 1.5, 0, 4, 0, "share of the maximum"}, {HK_SNN_MODE_MAX, 0, 1, 4, 0, "tau is 1"},
        {HK_SNN_MODE_MAX, 0, 0, -1, 0, "-1 time steps"},           {HK_SNN_MODE_MAX, 0, 0, 4, 4, "delayed by 4 of 4"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        p = params_of(&x, wrong[i].steps, wrong[i].mode);
        p.level = wrong[i].level;
        p.tau = wrong[i].tau;
        p.delay = wrong[i].delay;
        refused(hk_snn_convert(dev, good, &p, &snn), HK_STATUS_USAGE, wrong[i].text);
    }
    refused(hk_snn_with_steps(good, 4, false, &snn), HK_STATUS_USAGE, "hillock convert");
    p = params_of(&x, 4, HK_SNN_MODE_MAX);
    hk_tensor none = tensor_of(data, 4, (int64_t[]){0, 3, 6, 6});
    p.inputs = &none;
    refused(hk_snn_convert(dev, good, &p, &snn), HK_STATUS_INVALID, "no samples");
    data[5] = NAN;
    p.inputs = &x;
    refused(hk_snn_convert(dev, good, &p, &snn), HK_STATUS_INVALID, "not finite");
    assert_null(snn);
    hk_model_destroy(&m);
    hk_model_destroy(&good);
}

static void dead_layers(void **state)
{
    (void)state;
    hk_value *in = NULL;
    hk_graph *g = new_graph(&in, 2, (int64_t[]){-1, 3});
    hk_model *m = model_of(g, op(g, "Relu", "quiet", NULL, in, NULL, NULL)), *snn = NULL;
    float data[] = {-1, -2, 0, -1, 0, -3};
    hk_tensor x = tensor_of(data, 2, (int64_t[]){2, 3});
    hk_snn_params p = params_of(&x, 4, HK_SNN_MODE_DEFAULT);
    refused(hk_snn_convert(dev, m, &p, &snn), HK_STATUS_INVALID, "node 'quiet' (Relu) is never above 0");
    data[0] = 1;
    p = params_of(&x, 4, HK_SNN_MODE_PERCENTILE);
    p.level = 50;
    refused(hk_snn_convert(dev, m, &p, &snn), HK_STATUS_INVALID, "choose a larger one");
    hk_model_destroy(&m);
}

/* ---- the command */

static void command(void **state)
{
    (void)state;
#define DATA " --scale 0.0625 --val 0.2 "
    const char *path = in_folder("c.onnx");
    expect("convert " DIGITS "/model.onnx --out c.onnx", 64, "needs calibration data");
    expect("convert " DIGITS "/model.onnx --calibrate " DIGITS DATA "--mode 0% --out c.onnx", 64, "(0, 100]");
    expect("convert " DIGITS "/model.onnx --calibrate " DIGITS DATA "--steps 0 --out c.onnx", 64, "'--steps'");
    expect("convert " DIGITS "/model.onnx --calibrate " DIGITS DATA "--neuron lif,tau=1 --out c.onnx", 64, "above 1");
    assert_int_not_equal(access(path, F_OK), 0); /* nothing is written on failure */
    expect("convert " DIGITS "/model.onnx --calibrate " DIGITS DATA "--steps 8 --out c.onnx", 0, "not spike-only");
    expect("eval c.onnx --data " DIGITS DATA "--steps 1,8 --json", 0, "\"synops\":");
    expect("eval c.onnx --data " DIGITS DATA "--steps 4", 0, "node_relu_1");
    expect("eval c.onnx --data " DIGITS DATA, 0, "accuracy");
    expect("eval c.onnx --data " DIGITS DATA "--steps 1,x", 64, "time steps");
    expect("eval " DIGITS "/model.onnx --data " DIGITS DATA "--steps 4", 64, "hillock convert");
}

static void present(const char *name)
{
    const char *path = in_folder(name);
    if (access(path, R_OK) != 0)
        fail_msg("'%s' was not written", path);
}

static void reports(void **state)
{
    (void)state;
    expect("convert " DIGITS "/model.onnx --calibrate " DIGITS DATA "--steps 8 --neuron lif,tau=8 --out lif.onnx", 0,
           "same class on");
    expect("convert " DIGITS "/model.onnx --calibrate " DIGITS DATA "--steps 8 --json --out r.onnx", 0,
           "\"same_class\":");
    expect("eval r.onnx --data " DIGITS DATA "--steps 1,2,8 --against " DIGITS "/model.onnx", 0, "same class");
    expect("eval r.onnx --data " DIGITS DATA "--steps 2,8 --out report --monitor spikes,v", 0, "saturated");
    static const char *const files[] = {"report.json", "curves.svg", "raster.svg", "node_relu.spikes.npy",
                                        "node_relu.v.npy"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char name[64];
        snprintf(name, sizeof name, "report/%s", files[i]);
        present(name);
    }
    expect("eval r.onnx --data " DIGITS DATA "--steps 2 --monitor spikes", 64, "--out names the folder");
    expect("eval r.onnx --data " DIGITS DATA "--steps 2 --out report --monitor rate", 64, "takes spikes, v or both");
    expect("eval r.onnx --data " DIGITS DATA "--against " DIGITS "/model.onnx", 64, "belong to --steps");
}

/* Names of nodes are whatever the file says, and pictures are XML. */
static void pictures(void **state)
{
    (void)state;
    static const char *const files[] = {"pictures/curves.svg", "pictures/raster.svg"};
    hk_value *in = NULL;
    hk_graph *g = new_graph(&in, 4, (int64_t[]){-1, 1, 8, 8});
    hk_value *y = op(g, "Relu", "a<b>&'c\"\x01", NULL, in, NULL, NULL);
    hk_model *m = model_of(g, op(g, "Flatten", "flat", NULL, y, NULL, NULL));
    OK(hk_model_save(m, in_folder("awkward.onnx")));
    expect("convert awkward.onnx --calibrate " DIGITS DATA "--steps 2 --out p.onnx", 0, "2 steps");
    expect("eval p.onnx --data " DIGITS DATA "--steps 1,2 --out pictures --monitor spikes", 0, "saturated");
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        expect_file(files[i], "a&lt;b&gt;&amp;&#39;c&quot;\xEF\xBF\xBD");
        assert_null(strstr(output, "a<b"));
        assert_null(strchr(output, 1));
    }
    hk_model_destroy(&m);
}

/* The quality path: quantised activations, fine-tuned, converted without data. */
static void fine_tuning(void **state)
{
    (void)state;
    expect("convert " DIGITS "/model.onnx --calibrate " DIGITS DATA "--qcfs 0 --out q.onnx", 64, "'--qcfs'");
    expect("convert " DIGITS "/model.onnx --calibrate " DIGITS DATA "--qcfs 4 --out q.onnx", 0, "hillock train");
    expect("convert " DIGITS "/model.onnx --calibrate " DIGITS DATA "--qcfs 4 --per layer --out q1.onnx", 0,
           "hillock train");
    expect("inspect q1.onnx", 0, "node_relu.threshold  float32 [1]  other");
    expect("train q.onnx --data " DIGITS DATA "--epochs 2 --lr 1e-3 --out tuned --quiet", 0, "");
    expect("convert tuned/model.onnx --steps 2 --out two.onnx", 0, "thresholds that were trained");
    expect("eval two.onnx --data " DIGITS DATA "--steps 2 --json", 0, "\"accuracy\":");
    double accuracy = atof(strstr(output, "\"accuracy\":") + 11);
    print_message("fine-tuned with QCFS of 4 levels: accuracy %.4f at T = 2\n", accuracy);
    assert_true(accuracy > 0.95);
}

/* ---- bad input of the command: node and remedy are named, and nothing is written */

static void save_array(const char *name, hk_dtype dtype, void *data, int32_t rank, const int64_t *dims)
{
    hk_tensor t = {.data = data, .dtype = dtype, .rank = rank};
    memcpy(t.shape, dims, (size_t)rank * sizeof *dims);
    const char *path = in_folder(name);
    OK(hk_tensor_save(ctx, &t, path));
}

/* A model of one activation, (N,1,8,8) to the same, as a file. */
static void save_activation(const char *name, const char *type)
{
    hk_value *in = NULL;
    hk_graph *g = new_graph(&in, 4, (int64_t[]){-1, 1, 8, 8});
    hk_model *m = model_of(g, op(g, type, "quiet", NULL, in, NULL, NULL));
    OK(hk_model_save(m, in_folder(name)));
    hk_model_destroy(&m);
}

static void bad_options(void **state)
{
    (void)state;
    static const char *const wrong[][2] = {{"--mode 100.5%", "a percentile of 100.5 %: it lies in (0, 100]; 99.9"},
                                           {"--mode -1%", "a percentile of -1 %: it lies in (0, 100]; 99.9"},
                                           {"--mode nan%", "a percentile of nan %: it lies in (0, 100]; 99.9"},
                                           {"--mode 0", "a scale of 0: it is a share of the maximum, in (0, 1]"},
                                           {"--mode most", "mmse, max, a percentile such as 99.9% or a share"},
                                           {"--steps 0", "'--steps' must be a number from 1 to 65536, found '0'"},
                                           {"--neuron lif,tau=0.5", "T above 1, found 'lif,tau=0.5'"},
                                           {"--neuron lif,tau=inf", "tau is inf: it must be above 1"},
                                           {"--delay 16", "delayed by 16 of 16 steps has nothing to read; delay fewer"},
                                           {"--pool max", "'--pool' must be exact or avg, found 'max'"},
                                           {"--reset none", "'--reset' must be soft or hard, found 'none'"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char line[512];
        snprintf(line, sizeof line, "convert " DIGITS "/model.onnx --calibrate " DIGITS DATA "%s --out bad.onnx",
                 wrong[i][0]);
        expect(line, 64, wrong[i][1]);
        assert_false(is_there("bad.onnx"));
    }
}

static void bad_data(void **state)
{
    (void)state;
    enum { N = 8 };
    static float x[N * 64];
    int64_t labels[N] = {0};
    fill_random(x, N * 64, 3, 1);
    save_array("labels.npy", HK_INT64, labels, 1, (int64_t[]){N});
    for (int i = 0; i < 64; i++)
        x[i] = 3e38f; /* the next layer's sums are beyond float32 */
    save_array("huge.npy", HK_FLOAT32, x, 4, (int64_t[]){N, 1, 8, 8});
    save_array("none.npy", HK_FLOAT32, x, 4, (int64_t[]){0, 1, 8, 8});
    save_array("nothing.npy", HK_INT64, labels, 1, (int64_t[]){0});
    memset(x, 0, sizeof x);
    save_array("zeros.npy", HK_FLOAT32, x, 4, (int64_t[]){N, 1, 8, 8});
    expect("convert " DIGITS "/model.onnx --calibrate huge.npy --labels labels.npy --out bad.onnx", 65, "not finite");
    expect("convert " DIGITS "/model.onnx --calibrate none.npy --labels nothing.npy --out bad.onnx", 65, "no samples");
    expect("convert " DIGITS "/model.onnx --calibrate nowhere --out bad.onnx", 66, "nowhere");
    save_activation("relu.onnx", "Relu");
    save_activation("sigmoid.onnx", "Sigmoid");
    expect("convert relu.onnx --calibrate zeros.npy --labels labels.npy --out bad.onnx", 65,
           "node 'quiet' (Relu) is never above 0 on the calibration data: a dead layer has no threshold; give other "
           "data");
    expect("convert sigmoid.onnx --calibrate zeros.npy --labels labels.npy --out bad.onnx", 65,
           "node 'quiet' (Sigmoid): no neuron counts what it says");
    assert_non_null(strstr(output, "put ReLU in its place and train again"));
    hk_model *mixed = residual_network("Sigmoid", false);
    OK(hk_model_save(mixed, in_folder("mixed.onnx")));
    hk_model_destroy(&mixed);
    save_array("images.npy", HK_FLOAT32, x, 4, (int64_t[]){N / 2, 3, 6, 6});
    save_array("four.npy", HK_INT64, labels, 1, (int64_t[]){N / 2});
    expect("convert mixed.onnx --calibrate images.npy --labels four.npy --out bad.onnx", 65,
           "node 'middle' (Sigmoid): ");
    assert_non_null(strstr(output, "train"));
    assert_false(is_there("bad.onnx"));
    expect("convert " DIGITS "/model.onnx --calibrate " DIGITS DATA "--steps 4 --out good.onnx", 0, "4 steps");
    expect("eval good.onnx --data huge.npy --labels labels.npy --steps 2", 65, "membrane potential is not finite");
    expect("eval good.onnx --data huge.npy --labels labels.npy", 65, "membrane potential is not finite");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(digits_over_time), cmocka_unit_test(trains),
                                       cmocka_unit_test(refusals),         cmocka_unit_test(dead_layers),
                                       cmocka_unit_test(command),          cmocka_unit_test(reports),
                                       cmocka_unit_test(fine_tuning),      cmocka_unit_test(bad_options),
                                       cmocka_unit_test(bad_data),         cmocka_unit_test(pictures)};
    return test_main(
        argc, argv,
        &(test_program){.name = "convert_command", TESTS(tests), .setup = make_folder, .teardown = remove_folder});
}
