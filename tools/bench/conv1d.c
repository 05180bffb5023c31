/*
 * Conv1d against Conv2d on the same numbers as (N,C,1,L):
 *
 *     conv1d [SAMPLES CHANNELS LENGTH OUT KERNEL [SECONDS]]    default: 2 16 300 16 5, of a software device
 *
 * Two convolutions with ReLU, an average and a linear layer, as a session and as training steps, both forms taking
 * turns. Prints the medians of device times between two timestamps around the recordings, and their ratio. Fails if a
 * bit of an output, a loss or a trained parameter differs.
 */
#include <hillock/hillock.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"

enum { FORMS = 2, RUNS = 1000, LAYERS = 7, CLASSES = 4, UPDATES = 3 };

typedef struct form {
    hk_model *model;
    hk_session *session;
    hk_trainer *trainer;
    hk_tensor x, y;
    uint64_t ns[RUNS];
} form;

typedef struct bench {
    hk_context *ctx;
    hk_device *dev;
    int64_t samples, channels, length, out, kernel;
    double seconds;
    hk_tensor labels;
    form forms[FORMS];
} bench;

/* axes: 1 or 2 */
static hk_status make_model(bench *b, int axes)
{
    const hk_build_params params = {.size = sizeof params, .seed = 1};
    const int64_t signal[] = {-1, b->channels, b->length}, image[] = {-1, b->channels, 1, b->length};
    hk_layer conv = {.kind = HK_LAYER_CONV1D, .out = b->out, .kernel = {b->kernel}, .padding = {b->kernel / 2}};
    if (axes == 2)
        conv = (hk_layer){.kind = HK_LAYER_CONV2D,
                          .out = b->out,
                          .kernel = {1, b->kernel},
                          .padding = {-1, b->kernel / 2}}; /* negative: none */
    hk_layer layers[LAYERS] = {
        conv,
        {.kind = HK_LAYER_RELU},
        conv,
        {.kind = HK_LAYER_RELU},
        {.kind = axes == 2 ? HK_LAYER_ADAPTIVE_AVG_POOL2D : HK_LAYER_ADAPTIVE_AVG_POOL1D, .size = {1, 1}},
        {.kind = HK_LAYER_FLATTEN},
        {.kind = HK_LAYER_LINEAR, .name = "fc", .out = CLASSES},
    };
    layers[0].name = "conv1";
    layers[2].name = "conv2";
    hk_model **m = &b->forms[axes - 1].model;
    hk_value *x = NULL, *y = NULL;
    hk_status st = hk_model_create(b->ctx, &params, m);
    if (st == HK_OK)
        st = hk_model_input(*m, "x", HK_FLOAT32, axes + 2, axes == 2 ? image : signal, &x);
    if (st == HK_OK)
        st = hk_add_sequence(*m, x, layers, LAYERS, &y);
    return st == HK_OK ? hk_model_output(*m, y, "y") : st;
}

static hk_status open_form(bench *b, int axes, float *numbers)
{
    form *f = &b->forms[axes - 1];
    const hk_session_params session = {.size = sizeof session, .profile = HK_PROFILE_RUNS};
    const hk_trainer_params trainer = {.size = sizeof trainer, .profile = HK_PROFILE_RUNS};
    f->x = (hk_tensor){.data = numbers, .dtype = HK_FLOAT32, .rank = axes + 2};
    f->x.shape[0] = b->samples;
    f->x.shape[1] = b->channels;
    f->x.shape[2] = 1;
    f->x.shape[axes + 1] = b->length;
    hk_status st = make_model(b, axes);
    if (st == HK_OK)
        st = hk_session_create(b->dev, f->model, &session, &f->session);
    if (st == HK_OK)
        st = hk_session_write(f->session, "x", &f->x);
    return st == HK_OK ? hk_trainer_create(b->dev, f->model, &trainer, &f->trainer) : st;
}

/* ---- the same bits */

static hk_status same(const char *what, hk_tensor *one, hk_tensor *two)
{
    int64_t count = 1;
    for (int32_t d = 0; d < one->rank; d++)
        count *= one->shape[d];
    bool equal = !memcmp(one->data, two->data, (size_t)count * sizeof(float));
    hk_tensor_release(one);
    hk_tensor_release(two);
    if (equal)
        return HK_OK;
    fprintf(stderr, "conv1d: %s differs between Conv1d and Conv2d\n", what);
    return HK_STATUS_INTERNAL;
}

static hk_status same_parameters(const bench *b)
{
    static const char *const names[] = {"conv1.weight", "conv1.bias", "conv2.weight", "fc.weight"};
    hk_status st = HK_OK;
    for (size_t i = 0; i < sizeof names / sizeof *names && st == HK_OK; i++) {
        hk_tensor t[FORMS] = {{0}};
        for (int k = 0; k < FORMS && st == HK_OK; k++)
            st = hk_trainer_read_parameter(b->forms[k].trainer, names[i], &t[k]);
        if (st == HK_OK)
            st = same(names[i], &t[0], &t[1]);
    }
    return st;
}

static hk_status check(bench *b)
{
    hk_status st = HK_OK;
    hk_tensor y[FORMS] = {{0}};
    float loss[FORMS] = {0};
    for (int k = 0; k < FORMS && st == HK_OK; k++) {
        st = hk_session_run(b->forms[k].session);
        if (st == HK_OK)
            st = hk_session_read(b->forms[k].session, "y", &y[k]);
        for (int i = 0; i < UPDATES && st == HK_OK; i++)
            st = hk_trainer_step(b->forms[k].trainer, &b->forms[k].x, 1, &b->labels, &loss[k]);
    }
    if (st == HK_OK)
        st = same("the output", &y[0], &y[1]);
    if (st == HK_OK)
        st = same_parameters(b);
    if (st == HK_OK)
        printf("the same bits: output, and parameters after %d updates (loss %.9g)\n", UPDATES, (double)loss[0]);
    return st;
}

/* ---- time */

static hk_status run_once(bench *b, form *f, bool train, uint64_t *ns)
{
    hk_plan_info plan = {0};
    uint64_t ticket = 0;
    hk_status st = train ? hk_trainer_submit(f->trainer, &f->x, 1, &b->labels, &ticket) : hk_session_run(f->session);
    if (st == HK_OK && train)
        st = hk_trainer_wait(f->trainer, ticket, NULL);
    if (st == HK_OK)
        st = train ? hk_trainer_get_plan(f->trainer, &plan) : hk_session_get_plan(f->session, &plan);
    *ns = plan.device_ns;
    return st;
}

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* The first half second does not count: the clock ramps up. */
static hk_status measure(bench *b, bool train)
{
    size_t count = 0;
    hk_status st = HK_OK;
    double begin = now(), ms[FORMS];
    for (bool warm = false; st == HK_OK && (count < 5 || (count < RUNS && now() - begin < b->seconds));) {
        for (int k = 0; k < FORMS && st == HK_OK; k++)
            st = run_once(b, &b->forms[k], train, &b->forms[k].ns[count]);
        if (warm) {
            count++;
        } else if (now() - begin > 0.5) {
            warm = true;
            begin = now();
        }
    }
    for (int k = 0; k < FORMS; k++) {
        qsort(b->forms[k].ns, count, sizeof *b->forms[k].ns, ascending);
        ms[k] = (double)b->forms[k].ns[count / 2] * 1e-6;
    }
    if (st == HK_OK)
        printf("%s: Conv1d %.4f ms, Conv2d on (N,C,1,L) %.4f ms, ratio %.3f, asked 0.95 to 1.05 (%zu runs)\n",
               train ? "training step" : "forward", ms[0], ms[1], ms[0] / ms[1], count);
    return st;
}

static hk_status run(bench *b, float *numbers)
{
    uint32_t random = 1;
    for (int64_t i = 0; i < b->samples * b->channels * b->length; i++) {
        random = random * 1664525u + 1013904223u;
        numbers[i] = (float)(random >> 8) * 0x1p-23f - 1;
    }
    hk_status st = HK_OK;
    for (int axes = 1; axes <= FORMS && st == HK_OK; axes++)
        st = open_form(b, axes, numbers);
    if (st == HK_OK)
        st = check(b);
    for (int train = 0; train < 2 && st == HK_OK; train++)
        st = measure(b, train);
    for (int k = 0; k < FORMS; k++) {
        hk_trainer_destroy(&b->forms[k].trainer);
        hk_session_destroy(&b->forms[k].session);
        hk_model_destroy(&b->forms[k].model);
    }
    return st;
}

int main(int argc, char **argv)
{
    static bench b = {.samples = 2, .channels = 16, .length = 300, .out = 16, .kernel = 5, .seconds = 5};
    int64_t *sizes[] = {&b.samples, &b.channels, &b.length, &b.out, &b.kernel};
    if (argc != 1 && argc != 6 && argc != 7) {
        fprintf(stderr, "usage: conv1d [SAMPLES CHANNELS LENGTH OUT KERNEL [SECONDS]]\n");
        return 64;
    }
    for (int i = 1; i < argc && i < 6; i++)
        *sizes[i - 1] = strtoll(argv[i], NULL, 10);
    for (int i = 0; i < 5; i++)
        if (*sizes[i] < 1 || *sizes[i] > 1 << 16) {
            fprintf(stderr, "conv1d: a size is outside 1 to 65536\n");
            return 64;
        }
    b.seconds = argc == 7 ? strtod(argv[6], NULL) : b.seconds;
    float *numbers = malloc((size_t)(b.samples * b.channels * b.length) * sizeof *numbers);
    int64_t *labels = calloc((size_t)b.samples, sizeof *labels);
    for (int64_t i = 0; labels && i < b.samples; i++)
        labels[i] = i % CLASSES;
    b.labels = (hk_tensor){.data = labels, .dtype = HK_INT64, .rank = 1, .shape = {b.samples}};
    hk_status st = numbers && labels ? hk_context_create(NULL, &b.ctx) : HK_STATUS_OUT_OF_MEMORY;
    if (st == HK_OK)
        st = hk_device_open(b.ctx, NULL, &b.dev);
    if (st == HK_OK)
        st = run(&b, numbers);
    if (st != HK_OK)
        fprintf(stderr, "conv1d: %s: %s\n", hk_status_text(st), b.ctx ? hk_context_error(b.ctx) : "");
    hk_device_close(&b.dev);
    hk_context_destroy(&b.ctx);
    free(numbers);
    free(labels);
    return st == HK_OK ? 0 : 1;
}
