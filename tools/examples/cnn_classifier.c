/* cnn_classifier [DATA [EPOCHS]]: builds a convolutional network layer by layer, trains it from scratch, tests it on
 * images it has not seen and writes cnn_classifier.onnx.
 *
 *     cc -std=c11 cnn_classifier.c -o cnn_classifier $(pkg-config --cflags --libs hillock)
 *     ./cnn_classifier tests/data/digits
 *
 * DATA: anything hk_dataset_open reads, images of ten classes; default: the digits of this repository. Ends with 1
 * where fewer than 95 % of the held-out images are recognised.
 */
#include <hillock/hillock.h>
#include <stdio.h>
#include <stdlib.h>

#ifndef DIGITS
#define DIGITS "tests/data/digits"
#endif

enum { BATCH = 64, CLASSES = 10 };

#define TRY(call)                                                                                                      \
    do {                                                                                                               \
        hk_status st_ = (call);                                                                                        \
        if (st_ != HK_OK)                                                                                              \
            return st_;                                                                                                \
    } while (0)

typedef struct run {
    hk_context *ctx;
    hk_device *dev;
    hk_model *model;
    hk_trainer *trainer;
    hk_dataset *data;
    hk_loader *train, *test;
    uint64_t epochs;
    double accuracy; /* of held-out images, in percent */
} run;

/* Two blocks of convolution, normalization, ReLU and pooling, then two linear layers. */
static hk_status build(run *r)
{
    hk_value *x = NULL, *y = NULL;
    hk_model_info info;
    TRY(hk_model_create(r->ctx, &(hk_build_params){.size = sizeof(hk_build_params), .seed = 1}, &r->model));
    TRY(hk_model_input(r->model, "images", HK_FLOAT32, 4, (int64_t[]){-1, 3, 32, 32}, &x));
    const hk_layer layers[] = {
        {.kind = HK_LAYER_CONV2D, .name = "conv1", .in = 3, .out = 32, .kernel = {3}, .padding = {1}},
        {.kind = HK_LAYER_BATCH_NORM, .name = "bn1"},
        {.kind = HK_LAYER_RELU},
        {.kind = HK_LAYER_MAX_POOL2D, .kernel = {2}},
        {.kind = HK_LAYER_CONV2D, .name = "conv2", .in = 32, .out = 64, .kernel = {3}, .padding = {1}},
        {.kind = HK_LAYER_BATCH_NORM, .name = "bn2"},
        {.kind = HK_LAYER_RELU},
        {.kind = HK_LAYER_MAX_POOL2D, .kernel = {2}},
        {.kind = HK_LAYER_FLATTEN},
        {.kind = HK_LAYER_LINEAR, .name = "fc1", .in = 64 * 8 * 8, .out = 256},
        {.kind = HK_LAYER_RELU},
        {.kind = HK_LAYER_LINEAR, .name = "fc2", .in = 256, .out = CLASSES},
    };
    TRY(hk_add_sequence(r->model, x, layers, sizeof layers / sizeof *layers, &y));
    TRY(hk_model_output(r->model, y, "scores"));
    hk_model_get_info(r->model, &info);
    printf("Parameters: %lld\n", (long long)info.parameter_count);
    return HK_OK;
}

/* The digits are 8x8 and grey: hk_dataset scales them and repeats the channel. */
static hk_status open_data(run *r, const char *path)
{
    const hk_dataset_params p = {.size = sizeof p, .rank = 3, .shape = {3, 32, 32}};
    hk_loader_params l = {.size = sizeof l, .batch = BATCH, .seed = 1, .holdout = 0.2, .shuffle = true};
    TRY(hk_dataset_open(r->ctx, path, &p, &r->data));
    TRY(hk_loader_create(r->data, &l, &r->train));
    l.shuffle = false;
    l.held_out = true;
    TRY(hk_loader_create(r->data, &l, &r->test));
    printf("%zu images to train with, %zu held out\n", hk_loader_samples(r->train), hk_loader_samples(r->test));
    return HK_OK;
}

static hk_status one_epoch(run *r, double *mean)
{
    hk_trainer *t = r->trainer;
    double sum = 0, count = 0;
    for (hk_batch b = {0};;) {
        float loss = 0;
        hk_tensor out = {.data = &loss, .dtype = HK_FLOAT32};
        TRY(hk_loader_next(r->train, &b));
        if (!b.count)
            break;
        hk_trainer_zero_grad(t);
        TRY(hk_trainer_forward(t, b.inputs, b.input_count));
        TRY(hk_trainer_loss(t, b.target, HK_REDUCE_MEAN, &out));
        TRY(hk_trainer_backward(t, NULL));
        TRY(hk_trainer_update(t));
        sum += (double)loss * (double)b.count;
        count += (double)b.count;
    }
    *mean = sum / count;
    return HK_OK;
}

static hk_status train(run *r)
{
    const hk_trainer_params p = {
        .size = sizeof p,
        .optimizer = HK_OPTIMIZER_ADAMW,
        .lr = 1e-3f,
        .schedule = {.kind = HK_SCHEDULE_COSINE, .total = r->epochs * hk_loader_batches(r->train)}};
    TRY(hk_trainer_create(r->dev, r->model, &p, &r->trainer));
    for (uint64_t epoch = 1; epoch <= r->epochs; epoch++) {
        double loss = 0;
        TRY(one_epoch(r, &loss));
        printf("Epoch %2llu: loss=%.4f\n", (unsigned long long)epoch, loss);
        fflush(stdout);
    }
    return HK_OK;
}

static int64_t likeliest(const float *scores)
{
    int64_t best = 0;
    for (int64_t c = 1; c < CLASSES; c++)
        if (scores[c] > scores[best])
            best = c;
    return best;
}

static hk_status test(run *r)
{
    size_t right = 0, count = 0;
    for (hk_batch b = {0};;) {
        hk_tensor scores = {0};
        TRY(hk_loader_next(r->test, &b));
        if (!b.count)
            break;
        TRY(hk_trainer_evaluate(r->trainer, b.inputs, b.input_count, false));
        TRY(hk_trainer_read_output(r->trainer, "scores", &scores));
        for (size_t i = 0; i < b.count; i++)
            right += likeliest((const float *)scores.data + i * CLASSES) == ((const int64_t *)b.target->data)[i];
        count += b.count;
        hk_tensor_release(&scores);
    }
    r->accuracy = 100 * (double)right / (double)count;
    printf("accuracy %.2f %%\n", r->accuracy);
    return HK_OK;
}

static hk_status all(run *r, const char *path)
{
    TRY(hk_device_open(r->ctx, NULL, &r->dev));
    TRY(build(r));
    TRY(open_data(r, path));
    TRY(train(r));
    TRY(test(r));
    return hk_trainer_export(r->trainer, "cnn_classifier.onnx");
}

int main(int argc, char **argv)
{
    run r = {.epochs = argc > 2 ? strtoull(argv[2], NULL, 10) : 5};
    if (argc > 3 || r.epochs < 1 || hk_context_create(NULL, &r.ctx) != HK_OK)
        return fprintf(stderr, "usage: cnn_classifier [DATA [EPOCHS]]\n"), 64;
    hk_status st = all(&r, argc > 1 ? argv[1] : DIGITS);
    if (st != HK_OK)
        fprintf(stderr, "cnn_classifier: %s\n", hk_context_error(r.ctx));
    hk_loader_destroy(&r.train);
    hk_loader_destroy(&r.test);
    hk_dataset_close(&r.data);
    hk_trainer_destroy(&r.trainer);
    hk_model_destroy(&r.model);
    hk_device_close(&r.dev);
    hk_context_destroy(&r.ctx);
    return st != HK_OK ? hk_status_exit_code(st) : r.accuracy < 95;
}
