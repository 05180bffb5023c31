/*
 * What files that were made for inference bring into training: a Softmax or Sigmoid at the end, constants that look
 * like weights, parameters that no gradient reaches. Pitfalls that have tests elsewhere: BatchNormalization folded,
 * dropout absent, small initializers merged, weight tying lost, a batch that is fixed, 16-bit weights (test_edit);
 * BatchNormalization's two conventions (test_train_ops); normalizations and activations written out (test_networks);
 * names kept and external data in place (test_export).
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/tensor.h"
#include "hillock/hillock.h"
#include "tests/support/onnx_bytes.h"

enum { BATCH = 4, FEATURES = 3, CLASSES = 5 };

static hk_context *ctx;
static hk_device *dev;

#define OK(call)                                                                                                       \
    do {                                                                                                               \
        hk_status st_ = (call);                                                                                        \
        if (st_ != HK_OK)                                                                                              \
            fail_msg("%s: %s: %s", #call, hk_status_text(st_), hk_context_error(ctx));                                 \
    } while (0)

/* ---- small models: x [4,3] W [3,5] = scores, to be continued */

static const float weight[FEATURES * CLASSES] = {0.5f,  -0.25f, 0.75f, 0.1f,  -0.6f, 0.3f,  0.9f, -0.4f,
                                                 -0.8f, 0.2f,   0.7f,  -0.1f, 0.05f, 0.35f, -0.9f};
static const float samples[BATCH * FEATURES] = {1, 2, -1, 0.5f, -1.5f, 2, 3, 0, 1, -2, 1, 0.25f};
static const int64_t classes[BATCH] = {1, 4, 0, 2};

static void begin(onnx_bytes *b, const char *weights_name)
{
    *b = (onnx_bytes){0};
    ob_model(b, 17);
    ob_open(b, 7);
    ob_text(b, 2, "g");
    ob_input(b, "x", "4,3");
    ob_output(b, "y", "4,5");
    ob_floats(b, 5, weights_name, "3,5", weight, FEATURES * CLASSES);
}

static hk_model *end(onnx_bytes *b)
{
    char path[] = "/tmp/hillock-pitfall-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    while (b->depth)
        ob_close(b);
    ob_save(b, path);
    ob_free(b);
    hk_model *m = NULL;
    OK(hk_model_load(ctx, path, NULL, &m));
    unlink(path);
    return m;
}

static const hk_tensor x = {.data = (void *)samples, .dtype = HK_FLOAT32, .rank = 2, .shape = {BATCH, FEATURES}};
static const hk_tensor y = {.data = (void *)classes, .dtype = HK_INT64, .rank = 1, .shape = {BATCH}};

static hk_status train_labels(hk_model *m, hk_trainer_params p, const hk_tensor *labels, hk_trainer **t, float *loss)
{
    p.size = sizeof p;
    *t = NULL;
    HK_TRY(hk_trainer_create(dev, m, &p, t));
    return hk_trainer_step(*t, &x, 1, labels, loss);
}

static hk_status train_once(hk_model *m, hk_trainer_params p, hk_trainer **t, float *loss)
{
    return train_labels(m, p, &y, t, loss);
}

static void finish(hk_trainer **t, hk_model **m)
{
    hk_trainer_destroy(t);
    hk_model_destroy(m);
}

/* Loss and gradient of W of the cross entropy of scale * x W. */
static double expected(double scale, double g[FEATURES * CLASSES])
{
    double loss = 0;
    memset(g, 0, FEATURES * CLASSES * sizeof *g);
    for (int i = 0; i < BATCH; i++) {
        double score[CLASSES], most = -INFINITY, sum = 0;
        for (int c = 0; c < CLASSES; c++) {
            score[c] = 0;
            for (int k = 0; k < FEATURES; k++)
                score[c] += scale * (double)samples[i * FEATURES + k] * (double)weight[k * CLASSES + c];
            most = fmax(most, score[c]);
        }
        for (int c = 0; c < CLASSES; c++)
            sum += exp(score[c] - most);
        loss += (most + log(sum) - score[classes[i]]) / BATCH;
        for (int c = 0; c < CLASSES; c++)
            for (int k = 0; k < FEATURES; k++)
                g[k * CLASSES + c] += scale * (double)samples[i * FEATURES + k] *
                                      (exp(score[c] - most) / sum - (c == classes[i])) / BATCH;
    }
    return loss;
}

static void check_gradient(hk_trainer *t, double scale, double loss)
{
    double want[FEATURES * CLASSES], norm = 0, error = 0;
    hk_tensor got = {0};
    assert_true(fabs(loss - expected(scale, want)) <= 1e-5 * fabs(loss));
    OK(hk_trainer_read_gradient(t, "W", &got));
    assert_int_equal(hk_tensor_count(&got), FEATURES * CLASSES);
    for (int i = 0; i < FEATURES * CLASSES; i++) {
        norm = hypot(norm, want[i]);
        error = hypot(error, (double)((float *)got.data)[i] - want[i]);
    }
    hk_tensor_release(&got);
    assert_true(error <= 1e-5 * norm);
}

/* ---- the end of the network */

/* The loss takes the logits: of scores as large as 300, probabilities would be 0 and their logarithm lost. */
static void last_softmax(void **state)
{
    (void)state;
    static const char *const ends[] = {"Softmax", "LogSoftmax"};
    const float hundred = 100;
    for (size_t i = 0; i < 2; i++) {
        onnx_bytes b;
        hk_trainer *t = NULL;
        float loss = 0;
        begin(&b, "W");
        ob_floats(&b, 5, "hundred", "", &hundred, 1);
        ob_node(&b, 1, "MatMul", "x,W", "s");
        ob_node(&b, 1, "Mul", "s,hundred", "scores");
        ob_node_open(&b, 1, ends[i], "scores", "y");
        ob_attr_int(&b, "axis", i == 0 ? -1 : 1);
        hk_model *m = end(&b);
        OK(train_once(m, (hk_trainer_params){0}, &t, &loss));
        assert_true(loss > 100);
        check_gradient(t, 100, (double)loss);
        finish(&t, &m);
    }
}

/* The binary cross entropy takes the logits too: the Sigmoid of 300 is 1, and the logarithm of the rest was lost. */
static void last_sigmoid(void **state)
{
    (void)state;
    static const float targets[BATCH * CLASSES] = {1, 0, 0, 1};
    const hk_tensor t = {.data = (void *)targets, .dtype = HK_FLOAT32, .rank = 2, .shape = {BATCH, CLASSES}};
    const float hundred = 100;
    onnx_bytes b;
    hk_trainer *trainer = NULL;
    float loss = 0;
    double want = 0;
    begin(&b, "W");
    ob_floats(&b, 5, "hundred", "", &hundred, 1);
    ob_node(&b, 1, "MatMul", "x,W", "s");
    ob_node(&b, 1, "Mul", "s,hundred", "scores");
    ob_node(&b, 1, "Sigmoid", "scores", "y");
    hk_model *m = end(&b);
    OK(train_labels(m, (hk_trainer_params){.loss = HK_LOSS_BCE_LOGITS}, &t, &trainer, &loss));
    for (int i = 0; i < BATCH * CLASSES; i++) {
        double z = 0;
        for (int k = 0; k < FEATURES; k++)
            z += 100 * (double)samples[i / CLASSES * FEATURES + k] * (double)weight[k * CLASSES + i % CLASSES];
        want += (fmax(z, 0) - z * (double)targets[i] + log1p(exp(-fabs(z)))) / (BATCH * CLASSES);
    }
    assert_true(want > 20 && fabs((double)loss - want) <= 1e-5 * want);
    finish(&trainer, &m);
}

/* Scores (N,S,C) with labels (N,S), as language models have them, with and without probabilities at the end. */
static void classes_last(void **state)
{
    (void)state;
    static const int64_t shape[] = {2, 2, CLASSES};
    const hk_tensor labels = {.data = (void *)classes, .dtype = HK_INT64, .rank = 2, .shape = {2, 2}};
    static const float weights[CLASSES] = {1, 1, 1, 1, 1};
    const hk_tensor ones = {.data = (void *)weights, .dtype = HK_FLOAT32, .rank = 1, .shape = {CLASSES}};
    for (int i = 0; i < 3; i++) {
        onnx_bytes b;
        hk_trainer *t = NULL;
        float loss = 0;
        b = (onnx_bytes){0};
        ob_model(&b, 17);
        ob_open(&b, 7);
        ob_input(&b, "x", "4,3");
        ob_output(&b, "y", "2,2,5");
        ob_floats(&b, 5, "W", "3,5", weight, FEATURES * CLASSES);
        ob_tensor_open(&b, 5, "shape", HK_INT64, "3");
        ob_blob(&b, 9, shape, sizeof shape);
        ob_close(&b);
        ob_node(&b, 1, "MatMul", "x,W", "s");
        ob_node(&b, 1, "Reshape", "s,shape", i == 0 ? "y" : "scores");
        if (i > 0) {
            ob_node_open(&b, 1, "Softmax", "scores", "y");
            ob_attr_int(&b, "axis", -1);
        }
        hk_model *m = end(&b);
        OK(train_labels(m, (hk_trainer_params){.class_weights = i == 2 ? &ones : NULL}, &labels, &t, &loss));
        check_gradient(t, 1, (double)loss);
        finish(&t, &m);
    }
}

/* ---- gradients that stop */

/* scores = x W + argmax(x V): the position of the largest is an integer. */
static hk_model *with_decision(void)
{
    onnx_bytes b;
    begin(&b, "W");
    ob_floats(&b, 5, "V", "3,5", weight, FEATURES * CLASSES);
    ob_node(&b, 1, "MatMul", "x,W", "s");
    ob_node(&b, 1, "MatMul", "x,V", "v");
    ob_node_open(&b, 1, "ArgMax", "v", "at");
    ob_attr_int(&b, "axis", 1);
    ob_close(&b);
    ob_node_open(&b, 1, "Cast", "at", "number");
    ob_attr_int(&b, "to", 1);
    ob_close(&b);
    ob_node(&b, 1, "Add", "s,number", "y");
    return end(&b);
}

static void integers_stop_the_gradient(void **state)
{
    (void)state;
    hk_model *m = with_decision();
    hk_trainer *t = NULL;
    hk_tensor g = {0};
    float loss = 0;
    assert_int_equal(train_once(m, (hk_trainer_params){0}, &t, &loss), HK_STATUS_USAGE);
    assert_non_null(strstr(hk_context_error(ctx), "'V'"));
    assert_non_null(strstr(hk_context_error(ctx), "output 'y'"));
    hk_trainer_destroy(&t);

    const hk_parameter_rule freeze = {.pattern = "V", .freeze = true};
    OK(train_once(m, (hk_trainer_params){.rules = &freeze, .rule_count = 1}, &t, &loss));
    check_gradient(t, 1, (double)loss); /* the same number for all classes of a sample changes nothing */
    hk_trainer_destroy(&t);

    OK(train_once(m, (hk_trainer_params){.allow_unreached = true}, &t, &loss));
    check_gradient(t, 1, (double)loss);
    OK(hk_trainer_read_gradient(t, "V", &g));
    for (int i = 0; i < FEATURES * CLASSES; i++)
        assert_true(((float *)g.data)[i] == 0);
    hk_tensor_release(&g);
    finish(&t, &m);
}

/* What is quantized on its way has no gradient: told, with the parameter's name, not trained by chance. */
static void quantized(void **state)
{
    (void)state;
    const float scale = 0.05f;
    onnx_bytes b;
    hk_trainer *t = NULL;
    float loss = 0;
    begin(&b, "W");
    ob_floats(&b, 5, "scale", "", &scale, 1);
    ob_node(&b, 1, "MatMul", "x,W", "s");
    ob_node(&b, 1, "QuantizeLinear", "s,scale", "q");
    ob_node(&b, 1, "DequantizeLinear", "q,scale", "y");
    hk_model *m = end(&b);
    assert_int_equal(train_once(m, (hk_trainer_params){0}, &t, &loss), HK_STATUS_USAGE);
    assert_non_null(strstr(hk_context_error(ctx), "'W'"));
    finish(&t, &m);
}

/* Of two outputs one is trained; the other's head has no gradient. */
static void unused_head(void **state)
{
    (void)state;
    onnx_bytes b;
    hk_trainer *t = NULL;
    float loss = 0;
    begin(&b, "W");
    ob_output(&b, "other", "4,5");
    ob_floats(&b, 5, "head.weight", "3,5", weight, FEATURES * CLASSES);
    ob_node(&b, 1, "MatMul", "x,W", "y");
    ob_node(&b, 1, "MatMul", "x,head.weight", "other");
    hk_model *m = end(&b);
    assert_int_equal(train_once(m, (hk_trainer_params){0}, &t, &loss), HK_STATUS_USAGE);
    assert_non_null(strstr(hk_context_error(ctx), "'head.weight'"));
    hk_trainer_destroy(&t);
    assert_int_equal(train_once(m, (hk_trainer_params){.output = "other"}, &t, &loss), HK_STATUS_USAGE);
    assert_non_null(strstr(hk_context_error(ctx), "'W'"));
    finish(&t, &m);
}

/* ---- constants and parameters look alike */

/* y = (x W) scale + mask: neither is in a weight's role. */
static void only_rules_train_constants(void **state)
{
    (void)state;
    static const float ones[CLASSES] = {1, 1, 1, 1, 1}, mask[CLASSES] = {0, 0, 0, 0, 0};
    onnx_bytes b;
    hk_trainer *t = NULL;
    hk_tensor value = {0}, g = {0};
    hk_trainer_stats stats;
    float loss = 0;
    begin(&b, "W");
    ob_floats(&b, 5, "block.scale", "5", ones, CLASSES);
    ob_floats(&b, 5, "mask", "1,5", mask, CLASSES);
    ob_node(&b, 1, "MatMul", "x,W", "s");
    ob_node(&b, 1, "Mul", "s,block.scale", "m");
    ob_node(&b, 1, "Add", "m,mask", "y");
    hk_model *m = end(&b);
    OK(train_once(m, (hk_trainer_params){0}, &t, &loss));
    OK(hk_trainer_get_stats(t, &stats));
    assert_int_equal(stats.parameters, 1);
    check_gradient(t, 1, (double)loss);
    hk_trainer_destroy(&t);

    /* the sum over samples and classes of scale's gradient times scale is that of W's times W */
    const hk_parameter_rule scale[] = {{.pattern = "*.scale", .train = true}, {.pattern = "*", .lr_scale = 0.5f}};
    OK(train_once(m, (hk_trainer_params){.rules = scale, .rule_count = 2}, &t, &loss));
    OK(hk_trainer_get_stats(t, &stats));
    assert_int_equal(stats.parameters, 2);
    check_gradient(t, 1, (double)loss);
    double want[FEATURES * CLASSES];
    expected(1, want);
    OK(hk_trainer_read_gradient(t, "block.scale", &g));
    for (int c = 0; c < CLASSES; c++) {
        double sum = 0;
        for (int k = 0; k < FEATURES; k++)
            sum += want[k * CLASSES + c] * (double)weight[k * CLASSES + c];
        assert_true(fabs((double)((float *)g.data)[c] - sum) <= 1e-5);
    }
    OK(hk_trainer_read_parameter(t, "block.scale", &value));
    for (int c = 0; c < CLASSES; c++) /* AdamW's first step is lr with the gradient's sign */
        assert_true(fabsf(((float *)value.data)[c] - 1) > 3e-4f);
    hk_tensor_release(&g);
    hk_tensor_release(&value);
    hk_trainer_destroy(&t);

    const hk_parameter_rule wrong[] = {{.pattern = "scale*", .train = true}, {.pattern = "role:norm", .train = true}};
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(train_once(m, (hk_trainer_params){.rules = &wrong[i], .rule_count = 1}, &t, &loss),
                         HK_STATUS_USAGE);
        assert_non_null(strstr(hk_context_error(ctx), wrong[i].pattern));
        hk_trainer_destroy(&t);
    }
    hk_model_destroy(&m);
}

static int open_device(void **state)
{
    (void)state;
    if (hk_context_create(NULL, &ctx) != HK_OK)
        return -1;
    if (hk_device_open(ctx, NULL, &dev) != HK_OK) {
        fprintf(stderr, "skipped: %s\n", hk_context_error(ctx));
        exit(77);
    }
    return 0;
}

static int close_device(void **state)
{
    (void)state;
    hk_device_close(&dev);
    hk_context_destroy(&ctx);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(last_softmax),
        cmocka_unit_test(last_sigmoid),
        cmocka_unit_test(classes_last),
        cmocka_unit_test(integers_stop_the_gradient),
        cmocka_unit_test(quantized),
        cmocka_unit_test(unused_head),
        cmocka_unit_test(only_rules_train_constants),
    };
    return cmocka_run_group_tests_name("pitfalls", tests, open_device, close_device);
}
