/*
 * The step in pieces: bit for bit the one-submission step, with accumulation, Dropout, running statistics and changing
 * shapes; upstream gradients, reductions, modes, and the sentences of mistakes.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/philox.h"
#include "hillock/hillock.h"

static hk_context *ctx;
static hk_device *dev;

#define OK(call)                                                                                                       \
    do {                                                                                                               \
        hk_status st_ = (call);                                                                                        \
        if (st_ != HK_OK)                                                                                              \
            fail_msg("%s: %s: %s", #call, hk_status_text(st_), hk_context_error(ctx));                                 \
    } while (0)
#define COUNT(a) (sizeof(a) / sizeof(a)[0])
enum { CLASSES = 5 };

/* Convolutions with statistics and a residual sum, Dropout at two places, attention over rows, a softmax at the end. */
static hk_model *model(bool softmax)
{
    hk_model *m = NULL;
    hk_value *x = NULL, *a = NULL, *b = NULL;
    OK(hk_model_create(ctx, &(hk_build_params){.size = sizeof(hk_build_params), .seed = 4}, &m));
    OK(hk_model_input(m, "x", HK_FLOAT32, 4, (int64_t[]){-1, 3, 8, 8}, &x));
    const hk_layer stem[] = {{.kind = HK_LAYER_CONV2D, .name = "conv1", .out = 8, .kernel = {3}, .padding = {1}},
                             {.kind = HK_LAYER_BATCH_NORM, .name = "bn1"},
                             {.kind = HK_LAYER_RELU},
                             {.kind = HK_LAYER_MAX_POOL2D, .kernel = {2}},
                             {.kind = HK_LAYER_DROPOUT, .p = 0.2f}};
    OK(hk_add_sequence(m, x, stem, COUNT(stem), &a));
    const hk_layer branch[] = {{.kind = HK_LAYER_CONV2D, .name = "conv2", .out = 8, .kernel = {3}, .padding = {1}},
                               {.kind = HK_LAYER_BATCH_NORM, .name = "bn2"},
                               {.kind = HK_LAYER_GELU}};
    OK(hk_add_sequence(m, a, branch, COUNT(branch), &b));
    OK(hk_add(m, b, &(hk_layer){.kind = HK_LAYER_ADD, .with = a}, &b));
    const hk_layer head[] = {{.kind = HK_LAYER_FLATTEN},
                             {.kind = HK_LAYER_LINEAR, .name = "fc1", .out = 24},
                             {.kind = HK_LAYER_LAYER_NORM, .name = "ln"},
                             {.kind = HK_LAYER_SILU},
                             {.kind = HK_LAYER_DROPOUT},
                             {.kind = HK_LAYER_LINEAR, .name = "fc2", .out = CLASSES},
                             {.kind = HK_LAYER_SOFTMAX}};
    OK(hk_add_sequence(m, b, head, COUNT(head) - !softmax, &b));
    OK(hk_model_output(m, b, "y"));
    return m;
}

typedef struct batch {
    float x[8 * 3 * 8 * 8];
    int64_t label[8];
    hk_tensor input, labels;
} batch;

static void fill_batch(batch *b, uint32_t number, int64_t n)
{
    uint32_t out[4];
    for (uint32_t i = 0; i < COUNT(b->x); i++) {
        hk_philox((uint32_t[]){number, 1}, (uint32_t[]){i, 0, 0, 0}, out);
        b->x[i] = (float)(out[0] >> 8) * 0x1p-23f - 1;
        if (i < COUNT(b->label))
            b->label[i] = out[1] % CLASSES;
    }
    b->input = (hk_tensor){.data = b->x, .dtype = HK_FLOAT32, .rank = 4, .shape = {n, 3, 8, 8}};
    b->labels = (hk_tensor){.data = b->label, .dtype = HK_INT64, .rank = 1, .shape = {n}};
}

static float pieces_loss(hk_trainer *t, const hk_tensor *labels)
{
    float loss = NAN;
    hk_tensor out = {.data = &loss, .dtype = HK_FLOAT32};
    OK(hk_trainer_loss(t, labels, HK_REDUCE_DEFAULT, &out));
    return loss;
}

static void same(hk_trainer *one, hk_trainer *two, const char *name,
                 hk_status (*read)(hk_trainer *, const char *, hk_tensor *))
{
    hk_tensor a = {0}, b = {0};
    OK(read(one, name, &a));
    OK(read(two, name, &b));
    for (int64_t i = 0; i < hk_tensor_count(&a); i++)
        if (memcmp((float *)a.data + i, (float *)b.data + i, sizeof(float)) != 0)
            fail_msg("'%s' differs first in %lld of %lld: %.9g and %.9g", name, (long long)i,
                     (long long)hk_tensor_count(&a), (double)((float *)a.data)[i], (double)((float *)b.data)[i]);
    hk_tensor_release(&a);
    hk_tensor_release(&b);
}

static void same_states(const hk_model *m, hk_trainer *one, hk_trainer *two)
{
    static const char *const statistics[] = {"bn1.running_mean", "bn1.running_var", "bn2.running_mean",
                                             "bn2.running_var"};
    size_t count = 0;
    const hk_value_info *list = hk_model_parameters(m, &count);
    for (size_t i = 0; i < count; i++) {
        same(one, two, list[i].name, hk_trainer_read_gradient);
        same(one, two, list[i].name, hk_trainer_read_parameter);
    }
    for (size_t i = 0; i < COUNT(statistics); i++)
        same(one, two, statistics[i], hk_trainer_read_parameter);
}

static void ten_steps(hk_trainer_params p, bool softmax)
{
    hk_model *m = model(softmax);
    hk_trainer *one = NULL, *two = NULL;
    uint32_t per_update = p.accumulate ? p.accumulate : 1;
    p.size = sizeof p;
    p.seed = 9;
    OK(hk_trainer_create(dev, m, &p, &one));
    OK(hk_trainer_create(dev, m, &p, &two));
    for (uint32_t i = 0; i < 10 * per_update; i++) {
        batch b;
        float loss = NAN;
        fill_batch(&b, i, i % 4 == 3 ? 5 : 8);
        OK(hk_trainer_step(one, &b.input, 1, &b.labels, &loss));
        OK(hk_trainer_forward(two, &b.input, 1));
        float other = pieces_loss(two, &b.labels);
        if (memcmp(&loss, &other, sizeof loss) != 0)
            fail_msg("step %u: loss %.9g in one, %.9g in pieces", i, (double)loss, (double)other);
        OK(hk_trainer_backward(two, NULL));
        if ((i + 1) % per_update)
            continue;
        OK(hk_trainer_update(two));
        same_states(m, one, two);
        hk_trainer_zero_grad(two);
    }
    hk_trainer_stats s = {0}, r = {0};
    OK(hk_trainer_get_stats(one, &s));
    OK(hk_trainer_get_stats(two, &r));
    assert_int_equal(s.updates, 10);
    assert_int_equal(r.updates, 10);
    assert_int_equal(r.micro, s.micro);
    hk_trainer_destroy(&one);
    hk_trainer_destroy(&two);
    hk_model_destroy(&m);
}

static void equal_one_submission(void **state)
{
    (void)state;
    const float weights[CLASSES] = {1, 2, 0.5f, 1, 1};
    const hk_tensor w = {.data = (void *)(uintptr_t)weights, .dtype = HK_FLOAT32, .rank = 1, .shape = {CLASSES}};
    ten_steps((hk_trainer_params){0}, false);
    ten_steps((hk_trainer_params){.accumulate = 3}, true);
    ten_steps(
        (hk_trainer_params){
            .accumulate = 2, .accumulate_total = true, .class_weights = &w, .label_smoothing = 0.1f, .clip_norm = 1},
        false);
    ten_steps((hk_trainer_params){.optimizer = HK_OPTIMIZER_SGD,
                                  .momentum = 0.9f,
                                  .nesterov = true,
                                  .reduction = HK_REDUCE_SUM,
                                  .loss_scale = 1024,
                                  .ema_decay = 0.9f},
              true);
    ten_steps((hk_trainer_params){.freeze_bn = true, .optimizer = HK_OPTIMIZER_ADAM}, false);
}

/* A whole step after pieces goes on where they ended. */
static void mixed(void **state)
{
    (void)state;
    hk_model *m = model(false);
    hk_trainer *one = NULL, *two = NULL;
    OK(hk_trainer_create(dev, m, NULL, &one));
    OK(hk_trainer_create(dev, m, NULL, &two));
    for (uint32_t i = 0; i < 6; i++) {
        batch b;
        fill_batch(&b, i, 8);
        OK(hk_trainer_step(one, &b.input, 1, &b.labels, NULL));
        if (i % 2) {
            OK(hk_trainer_step(two, &b.input, 1, &b.labels, NULL));
            continue;
        }
        hk_trainer_zero_grad(two);
        OK(hk_trainer_forward(two, &b.input, 1));
        OK(hk_trainer_loss(two, &b.labels, HK_REDUCE_DEFAULT, NULL));
        OK(hk_trainer_backward(two, NULL));
        OK(hk_trainer_update(two));
    }
    same_states(m, one, two);
    hk_trainer_destroy(&one);
    hk_trainer_destroy(&two);
    hk_model_destroy(&m);
}

static float *gradient(hk_trainer *t, const char *name, int64_t *count)
{
    hk_tensor g = {0};
    OK(hk_trainer_read_gradient(t, name, &g));
    *count = hk_tensor_count(&g);
    float *copy = malloc((size_t)*count * sizeof *copy);
    memcpy(copy, g.data, (size_t)*count * sizeof *copy);
    hk_tensor_release(&g);
    return copy;
}

static double distance(const float *a, const float *b, int64_t count, float factor)
{
    double d = 0, n = 0;
    for (int64_t i = 0; i < count; i++) {
        d += pow((double)a[i] - (double)factor * (double)b[i], 2);
        n += pow((double)a[i], 2);
    }
    return sqrt(d / n);
}

/* The same gradient in four ways: of the mean; of the sum with 1/N upstream; of single losses with 1/N upstream; and of
 * the output, softmax included, from the caller's own derivative. Then sums, and zeros. */
static void upstream(void **state)
{
    (void)state;
    enum { N = 8 };
    hk_model *m = model(true);
    hk_trainer *t = NULL;
    batch b;
    float factor[N], y[N * CLASSES], dy[N * CLASSES] = {0}, each[N], sum = 0, mean = 0;
    int64_t count = 0;
    hk_tensor out = {.data = y, .dtype = HK_FLOAT32, .rank = 2, .shape = {N, CLASSES}}, none = {0};
    fill_batch(&b, 3, N);
    OK(hk_trainer_create(dev, m, NULL, &t));
    hk_trainer_set_mode(t, HK_MODE_EVALUATE); /* the same weights and masks each time */
    OK(hk_trainer_forward(t, &b.input, 1));
    OK(hk_trainer_read_output(t, "y", &out));
    mean = pieces_loss(t, &b.labels);
    OK(hk_trainer_backward(t, NULL));
    float *want = gradient(t, "conv1.weight", &count), *got = NULL;

    hk_trainer_zero_grad(t);
    float *zero = gradient(t, "conv1.weight", &count);
    for (int64_t i = 0; i < count; i++)
        assert_true(zero[i] == 0);
    hk_tensor scalar = {.data = factor, .dtype = HK_FLOAT32}, total = {.data = &sum, .dtype = HK_FLOAT32};
    for (int i = 0; i < N; i++)
        factor[i] = 1.0f / N;
    OK(hk_trainer_loss(t, &b.labels, HK_REDUCE_SUM, &total));
    assert_true(fabsf(sum - N * mean) < 1e-5f * sum);
    OK(hk_trainer_backward(t, &scalar));
    got = gradient(t, "conv1.weight", &count);
    assert_true(distance(want, got, count, 1) < 1e-6);
    free(got);

    hk_tensor losses = {0}, row = {.data = factor, .dtype = HK_FLOAT32, .rank = 1, .shape = {N}};
    OK(hk_trainer_loss(t, &b.labels, HK_REDUCE_NONE, &losses));
    assert_int_equal(losses.rank, 1);
    assert_int_equal(losses.shape[0], N);
    memcpy(each, losses.data, sizeof each);
    hk_tensor_release(&losses);
    hk_trainer_zero_grad(t);
    OK(hk_trainer_backward(t, &row));
    got = gradient(t, "conv1.weight", &count);
    assert_true(distance(want, got, count, 1) < 1e-6);
    free(got);

    for (int i = 0; i < N; i++) {
        float p = y[i * CLASSES + (int)b.label[i]];
        assert_true(fabsf(each[i] + logf(p)) < 1e-5f);
        dy[i * CLASSES + (int)b.label[i]] = -1 / (N * p);
    }
    out.data = dy;
    hk_trainer_zero_grad(t);
    OK(hk_trainer_backward_output(t, &out));
    got = gradient(t, "conv1.weight", &count);
    assert_true(distance(want, got, count, 1) < 1e-5);
    free(got);
    OK(hk_trainer_backward_output(t, &out)); /* not zeroed: twice as much */
    got = gradient(t, "conv1.weight", &count);
    assert_true(distance(got, want, count, 2) < 1e-5);

    none = (hk_tensor){.data = factor, .dtype = HK_FLOAT32, .rank = 1, .shape = {N - 1}};
    assert_int_equal(hk_trainer_backward(t, &none), HK_STATUS_USAGE);
    assert_non_null(strstr(hk_context_error(ctx), "expected float32 [8]"));
    free(got);
    free(want);
    free(zero);
    hk_trainer_destroy(&t);
    hk_model_destroy(&m);
}

/* Evaluation mode equals hk_trainer_evaluate and changes no statistics; training mode does. */
static void modes(void **state)
{
    (void)state;
    hk_model *m = model(false);
    hk_trainer *t = NULL, *fresh = NULL;
    batch b;
    hk_tensor a = {0}, c = {0}, d = {0};
    fill_batch(&b, 1, 8);
    OK(hk_trainer_create(dev, m, NULL, &t));
    OK(hk_trainer_create(dev, m, NULL, &fresh));
    OK(hk_trainer_step(t, &b.input, 1, &b.labels, NULL));
    OK(hk_trainer_step(fresh, &b.input, 1, &b.labels, NULL));
    OK(hk_trainer_evaluate(t, &b.input, 1, false));
    OK(hk_trainer_read_output(t, "y", &a));
    hk_trainer_set_mode(t, HK_MODE_EVALUATE);
    OK(hk_trainer_forward(t, &b.input, 1));
    OK(hk_trainer_read_output(t, "y", &c));
    for (int64_t i = 0; i < hk_tensor_count(&a); i++)
        if (fabsf(((float *)a.data)[i] - ((float *)c.data)[i]) > 1e-5f)
            fail_msg("output %lld: %.9g and %.9g", (long long)i, (double)((float *)a.data)[i],
                     (double)((float *)c.data)[i]);
    same(t, fresh, "bn1.running_mean", hk_trainer_read_parameter);
    hk_trainer_set_mode(t, HK_MODE_TRAIN);
    OK(hk_trainer_forward(t, &b.input, 1));
    OK(hk_trainer_read_output(t, "y", &d));
    assert_memory_not_equal(c.data, d.data, (size_t)hk_tensor_count(&c) * sizeof(float));
    hk_tensor e = {0}, f = {0};
    OK(hk_trainer_read_parameter(t, "bn1.running_mean", &e));
    OK(hk_trainer_read_parameter(fresh, "bn1.running_mean", &f));
    assert_memory_not_equal(e.data, f.data, (size_t)hk_tensor_count(&e) * sizeof(float));
    hk_tensor *all[] = {&a, &c, &d, &e, &f};
    for (size_t i = 0; i < COUNT(all); i++)
        hk_tensor_release(all[i]);
    hk_trainer_destroy(&t);
    hk_trainer_destroy(&fresh);
    hk_model_destroy(&m);
}

static void mistakes(void **state)
{
    (void)state;
    hk_model *m = model(false);
    hk_trainer *t = NULL;
    batch b;
    float g[8 * CLASSES] = {0};
    hk_tensor gradient_of = {.data = g, .dtype = HK_FLOAT32, .rank = 2, .shape = {8, CLASSES}};
    fill_batch(&b, 1, 8);
    OK(hk_trainer_create(dev, m, NULL, &t));
    assert_int_equal(hk_trainer_loss(t, &b.labels, HK_REDUCE_DEFAULT, NULL), HK_STATUS_USAGE);
    assert_non_null(strstr(hk_context_error(ctx), "hk_trainer_forward comes first"));
    assert_int_equal(hk_trainer_backward(t, NULL), HK_STATUS_USAGE);
    assert_int_equal(hk_trainer_backward_output(t, &gradient_of), HK_STATUS_USAGE);
    assert_int_equal(hk_trainer_update(t), HK_STATUS_USAGE);
    assert_non_null(strstr(hk_context_error(ctx), "no gradients"));
    OK(hk_trainer_forward(t, &b.input, 1));
    assert_int_equal(hk_trainer_backward(t, NULL), HK_STATUS_USAGE);
    assert_non_null(strstr(hk_context_error(ctx), "no loss of the last forward pass"));
    assert_int_equal(hk_trainer_loss(t, &gradient_of, (hk_reduce)9, NULL), HK_STATUS_USAGE);
    gradient_of.shape[1] = 4;
    assert_int_equal(hk_trainer_backward_output(t, &gradient_of), HK_STATUS_USAGE);
    assert_non_null(strstr(hk_context_error(ctx), "expected float32 [8,5]"));
    assert_int_equal(hk_trainer_loss(t, &gradient_of, HK_REDUCE_DEFAULT, NULL), HK_STATUS_USAGE);
    assert_non_null(strstr(hk_context_error(ctx), "'y'"));
    OK(hk_trainer_loss(t, &b.labels, HK_REDUCE_DEFAULT, NULL)); /* and all goes on */
    OK(hk_trainer_backward(t, NULL));
    OK(hk_trainer_update(t));
    hk_trainer_destroy(&t);
    hk_model_destroy(&m);
}

static int setup(void **state)
{
    (void)state;
    size_t count = 0;
    if (hk_context_create(NULL, &ctx) != HK_OK || hk_device_list(ctx, NULL, 0, &count) != HK_OK)
        return -1;
    if (!count)
        exit(77);
    return hk_device_open(ctx, NULL, &dev) == HK_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    hk_device_close(&dev);
    hk_context_destroy(&ctx);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_one_submission),
        cmocka_unit_test(mixed),
        cmocka_unit_test(upstream),
        cmocka_unit_test(modes),
        cmocka_unit_test(mistakes),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
