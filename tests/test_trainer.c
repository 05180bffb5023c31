/*
 * The training step against PyTorch: losses, gradients, accumulation, pipelining, checkpoints.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/program.h"
#include "tests/support/repeat.h"
#include "tests/support/simplecnn.h"
#include "tests/support/trainers.h"

static simplecnn fixture;

static hk_trainer *trainer_on(hk_device *device, hk_model *m, uint32_t accumulate, hk_precision precision)
{
    hk_trainer *t = NULL;
    hk_trainer_params params = {.size = sizeof params, .accumulate = accumulate, .seed = 5, .precision = precision};
    OK(hk_trainer_create(device, m, &params, &t));
    return t;
}

static hk_trainer *trainer(hk_model *m, uint32_t accumulate)
{
    return trainer_on(dev, m, accumulate, HK_PRECISION_STRICT);
}

static hk_model *load(void)
{
    hk_model *m = NULL;
    OK(hk_model_load(ctx, fixture.model, NULL, &m));
    return m;
}

static float step(hk_trainer *t, uint32_t b)
{
    hk_tensor images, labels;
    float loss = NAN;
    simplecnn_batch(&fixture, b, &images, &labels);
    OK(hk_trainer_step(t, &images, 1, &labels, &loss));
    return loss;
}

static void ten_losses(void **state)
{
    (void)state;
    hk_model *m = load();
    hk_trainer *t = trainer(m, 1);
    double *want = simplecnn_load(&fixture, "losses.npy", NULL);
    for (uint32_t b = 1; b <= 10; b++) {
        double loss = (double)step(t, b);
        print_message("step %2u loss %.7f PyTorch %.7f difference %.2e\n", b, loss, want[b - 1],
                      fabs(loss - want[b - 1]));
        assert_true(fabs(loss - want[b - 1]) <= 1e-4);
    }
    free(want);
    const char *const stats[] = {"bn1.running_var", "bn2.running_var"};
    for (size_t i = 0; i < 2; i++) {
        char file[64];
        int64_t count = 0;
        hk_tensor got = {0};
        snprintf(file, sizeof file, "%s.npy", stats[i]);
        double *all = simplecnn_load(&fixture, file, &count);
        OK(hk_trainer_read_parameter(t, stats[i], &got));
        assert_int_equal(hk_tensor_count(&got), count / 2);
        for (int64_t k = 0; k < count / 2; k++)
            assert_true(fabs((double)((float *)got.data)[k] - all[k]) <=
                        1e-4 * fabs(all[k])); /* one ReLU turned over: 2e-5 */
        hk_tensor_release(&got);
        free(all);
    }
    hk_trainer_destroy(&t);
    hk_model_destroy(&m);
}

/* ‖g − g64‖ ≤ 1e-5 ‖g64‖ over all parameters, each tensor ≤ 1e-4 max(‖g_t‖, 1e-3 ‖g‖). */
static void check_gradients(hk_trainer *t, size_t set)
{
    double all = 0, total = 0, errors[SIMPLECNN_TENSORS], norms[SIMPLECNN_TENSORS];
    for (size_t i = 0; i < SIMPLECNN_TENSORS; i++) {
        hk_tensor g = {0};
        OK(hk_trainer_read_gradient(t, fixture.tensors[i].name, &g));
        simplecnn_gradient_error(&fixture, set, i, g.data, &errors[i], &norms[i]);
        hk_tensor_release(&g);
        print_message("    %-14s error %.2e of %.2e\n", fixture.tensors[i].name, errors[i], norms[i]);
        all += errors[i] * errors[i];
        total += norms[i] * norms[i];
    }
    print_message("gradient set %zu: relative error %.2e\n", set, sqrt(all / total));
    for (size_t i = 0; i < SIMPLECNN_TENSORS; i++) {
        if (errors[i] > 1e-4 * fmax(norms[i], 1e-3 * sqrt(total)))
            fail_msg("gradient of %s: error %.3e, norm %.3e", fixture.tensors[i].name, errors[i], norms[i]);
    }
    assert_true(sqrt(all) <= 1e-5 * sqrt(total));
}

static void gradients_at_step_1(void **state)
{
    (void)state;
    hk_model *m = load();
    hk_trainer *t = trainer(m, 1);
    step(t, 1);
    check_gradients(t, 0);
    hk_trainer_destroy(&t);
    hk_model_destroy(&m);
}

static void gradients_at_step_10(void **state)
{
    (void)state;
    hk_model *m = load();
    hk_trainer *t = trainer(m, 1);
    size_t count = 0;
    const hk_value_info *infos = hk_model_parameters(m, &count);
    assert_int_equal(count, SIMPLECNN_TENSORS);
    for (size_t i = 0; i < SIMPLECNN_TENSORS; i++) {
        float *w = simplecnn_w10(&fixture, i);
        for (size_t k = 0; k < count; k++) {
            if (strcmp(infos[k].name, fixture.tensors[i].name) != 0)
                continue;
            hk_tensor value = {.data = w, .dtype = HK_FLOAT32, .rank = infos[k].rank};
            memcpy(value.shape, infos[k].shape, sizeof value.shape);
            OK(hk_trainer_write_parameter(t, infos[k].name, &value));
        }
        free(w);
    }
    step(t, 10);
    check_gradients(t, 1);
    hk_trainer_destroy(&t);
    hk_model_destroy(&m);
}

static void accumulated_micro_batches(void **state)
{
    (void)state;
    hk_model *m = load();
    hk_trainer *t = trainer(m, 2);
    double *want = simplecnn_load(&fixture, "accum_losses.npy", NULL);
    for (uint32_t b = 1; b <= 6; b++) {
        double loss = (double)step(t, b);
        assert_true(fabs(loss - want[b - 1]) <= 1e-4);
        if (b != 2)
            continue;
        for (size_t i = 0; i < SIMPLECNN_TENSORS; i++) { /* the state holds the sum, PyTorch's gradient is the mean */
            hk_tensor g = {0};
            double error = 0, norm = 0;
            OK(hk_trainer_read_gradient(t, fixture.tensors[i].name, &g));
            for (int64_t k = 0; k < hk_tensor_count(&g); k++)
                ((float *)g.data)[k] *= 0.5f;
            simplecnn_gradient_error(&fixture, 2, i, g.data, &error, &norm);
            assert_true(error <= 1e-4 * fmax(norm, 1e-3));
            hk_tensor_release(&g);
        }
    }
    free(want);
    hk_trainer_destroy(&t);
    hk_model_destroy(&m);
}

/* ---- small steps: the digits network in training mode */

static void *weights_of(hk_trainer *t, hk_model *m, size_t *bytes)
{
    size_t count = 0, used = 0;
    const hk_value_info *infos = hk_model_parameters(m, &count);
    char *all = NULL;
    for (size_t i = 0; i < count; i++) {
        hk_tensor w = {0};
        OK(hk_trainer_read_parameter(t, infos[i].name, &w));
        size_t n = (size_t)hk_tensor_count(&w) * sizeof(float);
        all = realloc(all, used + n);
        assert_non_null(all);
        memcpy(all + used, w.data, n);
        used += n;
        hk_tensor_release(&w);
    }
    *bytes = used;
    return all;
}

typedef struct digits {
    hk_model *model;
    hk_tensor images, labels;
} digits;

static void open_digits(digits *d, int64_t batch)
{
    OK(hk_model_load(ctx, HK_TEST_DATA "/digits_train/model.onnx", NULL, &d->model));
    float *x = malloc((size_t)batch * 64 * sizeof *x);
    int64_t *y = malloc((size_t)batch * sizeof *y);
    assert_true(x && y);
    d->images = (hk_tensor){.data = x, .dtype = HK_FLOAT32, .rank = 4, .shape = {batch, 1, 8, 8}};
    d->labels = (hk_tensor){.data = y, .dtype = HK_INT64, .rank = 1, .shape = {batch}};
}

static void fill_digits(digits *d, uint32_t n)
{
    for (int64_t i = 0; i < hk_tensor_count(&d->images); i++)
        ((float *)d->images.data)[i] = (float)((uint32_t)(i * 2654435761u + n * 40503u) >> 16 & 0xffu) / 255.0f;
    for (int64_t i = 0; i < hk_tensor_count(&d->labels); i++)
        ((int64_t *)d->labels.data)[i] = (i * 7 + n) % 10;
}

static void close_digits(digits *d)
{
    free(d->images.data);
    free(d->labels.data);
    hk_model_destroy(&d->model);
}

static int pipeline_steps(void)
{
    const char *n = getenv("HILLOCK_TEST_STEPS");
    return n ? atoi(n) : 1000;
}

static void pipelined_equals_waited(void **state)
{
    (void)state;
    digits d;
    open_digits(&d, 32);
    size_t bytes[2];
    void *weights[2];
    for (int pipelined = 0; pipelined < 2; pipelined++) {
        hk_trainer *t = trainer(d.model, 1);
        uint64_t ticket = 0;
        for (int i = 0; i < pipeline_steps(); i++) {
            float loss;
            fill_digits(&d, (uint32_t)i);
            if (pipelined)
                OK(hk_trainer_submit(t, &d.images, 1, &d.labels, &ticket));
            else
                OK(hk_trainer_step(t, &d.images, 1, &d.labels, &loss));
        }
        weights[pipelined] = weights_of(t, d.model, &bytes[pipelined]);
        hk_trainer_destroy(&t);
    }
    assert_int_equal(bytes[0], bytes[1]);
    assert_memory_equal(weights[0], weights[1], bytes[0]);
    free(weights[0]);
    free(weights[1]);
    close_digits(&d);
}

/* A layer whose products are worth their operands' splitting on a large device. */
static hk_model *wide_layer(void)
{
    static const hk_layer layers[] = {
        {.kind = HK_LAYER_LINEAR, .out = 512}, {.kind = HK_LAYER_RELU}, {.kind = HK_LAYER_LINEAR, .out = 10}};
    hk_model *m = NULL;
    hk_value *x = NULL;
    OK(hk_model_create(ctx, &(hk_build_params){.size = sizeof(hk_build_params), .seed = 3}, &m));
    OK(hk_model_input(m, "x", HK_FLOAT32, 2, (int64_t[]){512, 512}, &x));
    OK(hk_add_sequence(m, x, layers, sizeof layers / sizeof *layers, &x));
    OK(hk_model_output(m, x, "y"));
    return m;
}

/* Products of the forward pass and of a weight's gradient on matrix units, which devices without them emulate: loss and
 * every gradient as near to strict's as twice what strict may be from PyTorch's. Both products read x: it is split
 * once, beside the weight and the gradient of the result. */
static void precision_high(void **state)
{
    (void)state;
    digits d = {.model = wide_layer()};
    hk_device *tuned = NULL;
    hk_plan_info plan;
    size_t units = 0, splits = 0;
    float want, loss;
    d.images = (hk_tensor){.dtype = HK_FLOAT32, .rank = 2, .shape = {512, 512}};
    d.labels = (hk_tensor){.dtype = HK_INT64, .rank = 1, .shape = {512}};
    d.images.data = calloc((size_t)hk_tensor_count(&d.images), sizeof(float));
    d.labels.data = calloc(512, sizeof(int64_t));
    assert_true(d.images.data && d.labels.data);
    OK(hk_device_open(ctx, &(hk_device_params){.size = sizeof(hk_device_params), .debug = "gpu-tuning,check-plan"},
                      &tuned));
    hk_trainer *strict = trainer(d.model, 1), *high = trainer_on(tuned, d.model, 1, HK_PRECISION_HIGH);
    fill_digits(&d, 1);
    OK(hk_trainer_step(strict, &d.images, 1, &d.labels, &want));
    OK(hk_trainer_step(high, &d.images, 1, &d.labels, &loss));
    double apart = gradients_apart(high, strict, d.model);
    print_message("strict %.7f high %.7f, gradients %.1e apart\n", (double)want, (double)loss, apart);
    assert_true(fabs((double)(loss - want)) <= 2e-5 * (double)want);
    assert_true(apart <= 2e-5);
    OK(hk_trainer_get_plan(high, &plan));
    for (size_t i = 0; i < plan.row_count; i++) {
        units += strstr(plan.rows[i].kernel, " high") != NULL;
        splits += strcmp(plan.rows[i].kernel, "gemm split") == 0;
    }
    print_message("%zu of %zu dispatches on matrix units, %zu matrices split\n", units, plan.dispatches, splits);
    if (hk_device_get_info(tuned)->max_shared_bytes >= 32768) {
        assert_int_equal(units, 2);
        assert_int_equal(splits, 3);
    }
    hk_trainer_destroy(&strict);
    hk_trainer_destroy(&high);
    hk_device_close(&tuned);
    close_digits(&d);
}

static void resumed_equals_straight(void **state)
{
    (void)state;
    digits d;
    open_digits(&d, 32);
    char path[300];
    snprintf(path, sizeof path, "%s/resume.safetensors", fixture.folder);
    size_t bytes[2];
    void *weights[2];
    for (int resume = 0; resume < 2; resume++) {
        hk_trainer *t = trainer(d.model, 2);
        float loss;
        for (int i = 0; i < 9; i++) {
            if (resume && i == 5) { /* in the middle of an accumulation */
                OK(hk_trainer_save(t, path, "best=0.5"));
                hk_trainer_destroy(&t);
                t = trainer(d.model, 2);
                const char *notes = NULL;
                OK(hk_trainer_load(t, path, &notes));
                assert_string_equal(notes, "best=0.5");
            }
            fill_digits(&d, (uint32_t)i);
            OK(hk_trainer_step(t, &d.images, 1, &d.labels, &loss));
        }
        weights[resume] = weights_of(t, d.model, &bytes[resume]);
        hk_trainer_destroy(&t);
    }
    assert_int_equal(bytes[0], bytes[1]);
    assert_memory_equal(weights[0], weights[1], bytes[0]);
    free(weights[0]);
    free(weights[1]);
    hk_trainer *other = NULL;
    hk_model *m = load();
    other = trainer(m, 2);
    assert_int_equal(hk_trainer_load(other, path, NULL), HK_STATUS_INVALID);
    assert_non_null(strstr(hk_context_error(ctx), "another model"));
    hk_trainer_destroy(&other);
    hk_model_destroy(&m);
    unlink(path);
    close_digits(&d);
}

/* ---- resumed anywhere, with each optimizer: the last checkpoints are equal byte for byte, so weights, statistics,
 * moments, average, schedule and counters are */

enum { RESUME_STEPS = 24, RESUMES = 20 };

static hk_trainer *resumable(const digits *d, hk_trainer_params p)
{
    hk_trainer *t = NULL;
    p.size = sizeof p;
    p.seed = 5;
    p.accumulate = 3;
    p.clip_norm = 1;
    p.ema_decay = 0.9f;
    p.loss_scale = 1024;
    p.growth_interval = 3;
    p.schedule = (hk_schedule){.kind = HK_SCHEDULE_COSINE, .warmup = 2, .total = RESUME_STEPS / 3};
    OK(hk_trainer_create(dev, d->model, &p, &t));
    return t;
}

static void steps_to(hk_trainer *t, digits *d, uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i < to; i++) {
        fill_digits(d, i);
        OK(hk_trainer_step(t, &d->images, 1, &d->labels, NULL));
    }
}

static void *saved_bytes(hk_trainer *t, size_t *bytes)
{
    char path[300];
    snprintf(path, sizeof path, "%s/last.safetensors", fixture.folder);
    OK(hk_trainer_save(t, path, "end"));
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    *bytes = (size_t)ftell(f);
    rewind(f);
    void *data = malloc(*bytes);
    assert_true(data && fread(data, 1, *bytes, f) == *bytes);
    fclose(f);
    unlink(path);
    return data;
}

static void resumed_with(digits *d, const char *name, hk_trainer_params p)
{
    char path[300];
    size_t bytes = 0, again = 0;
    /* three that follow each other: each place of an accumulation of three */
    const uint32_t resumes = (uint32_t)repeats(RESUMES, 3);
    hk_trainer *t = resumable(d, p);
    for (uint32_t k = 0; k < RESUME_STEPS; k++) { /* the uninterrupted run, which is saved before each step */
        snprintf(path, sizeof path, "%s/at-%u.safetensors", fixture.folder, k);
        if (k > 0)
            OK(hk_trainer_save(t, path, NULL));
        steps_to(t, d, k, k + 1);
    }
    void *straight = saved_bytes(t, &bytes);
    hk_trainer_destroy(&t);
    for (uint32_t k = 0; k < RESUME_STEPS; k++) {
        snprintf(path, sizeof path, "%s/at-%u.safetensors", fixture.folder, k);
        if (k >= RESUME_STEPS - 1 - resumes && k < RESUME_STEPS - 1) {
            t = resumable(d, p);
            OK(hk_trainer_load(t, path, NULL));
            steps_to(t, d, k, RESUME_STEPS);
            void *resumed = saved_bytes(t, &again);
            if (again != bytes || memcmp(straight, resumed, bytes) != 0)
                fail_msg("%s: resumed after step %u, the end is another", name, k);
            free(resumed);
            hk_trainer_destroy(&t);
        }
        unlink(path);
    }
    free(straight);
}

static void resumed_anywhere(void **state)
{
    (void)state;
    digits d;
    open_digits(&d, 32);
    resumed_with(&d, "AdamW", (hk_trainer_params){0});
    resumed_with(&d, "Adam", (hk_trainer_params){.optimizer = HK_OPTIMIZER_ADAM, .weight_decay = 0.1f});
    resumed_with(&d, "SGD", (hk_trainer_params){.optimizer = HK_OPTIMIZER_SGD, .lr = 0.01f});
    resumed_with(&d, "momentum",
                 (hk_trainer_params){.optimizer = HK_OPTIMIZER_SGD, .lr = 0.01f, .momentum = 0.9f, .dampening = 0.1f});
    resumed_with(&d, "Nesterov",
                 (hk_trainer_params){.optimizer = HK_OPTIMIZER_SGD, .lr = 0.01f, .momentum = 0.9f, .nesterov = true});
    close_digits(&d);
}

static void exported_model_has_the_weights(void **state)
{
    (void)state;
    digits d;
    open_digits(&d, 32);
    char path[300];
    float loss;
    snprintf(path, sizeof path, "%s/tuned.onnx", fixture.folder);
    hk_trainer *t = trainer(d.model, 1);
    fill_digits(&d, 1);
    OK(hk_trainer_step(t, &d.images, 1, &d.labels, &loss));
    OK(hk_trainer_export(t, path));
    size_t bytes[2];
    void *trained = weights_of(t, d.model, &bytes[0]);
    hk_trainer_destroy(&t);
    hk_model *again = NULL;
    OK(hk_model_load(ctx, path, NULL, &again));
    t = trainer(again, 1);
    void *loaded = weights_of(t, again, &bytes[1]);
    assert_int_equal(bytes[0], bytes[1]);
    assert_memory_equal(trained, loaded, bytes[0]);
    free(trained);
    free(loaded);
    hk_trainer_destroy(&t);
    hk_model_destroy(&again);
    unlink(path);
    close_digits(&d);
}

static int open_fixture(void **state)
{
    (void)state;
    simplecnn_open(&fixture, ctx);
    return 0;
}

static int close_fixture(void **state)
{
    (void)state;
    simplecnn_close(&fixture);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ten_losses),
        cmocka_unit_test(gradients_at_step_1),
        cmocka_unit_test(gradients_at_step_10),
        cmocka_unit_test(precision_high),
        cmocka_unit_test(accumulated_micro_batches),
        cmocka_unit_test(pipelined_equals_waited),
        cmocka_unit_test(resumed_equals_straight),
        cmocka_unit_test(resumed_anywhere),
        cmocka_unit_test(exported_model_has_the_weights),
    };
    return test_main(
        argc, argv, &(test_program){.name = "trainer", TESTS(tests), .setup = open_fixture, .teardown = close_fixture});
}
