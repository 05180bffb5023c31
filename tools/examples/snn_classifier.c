/* snn_classifier [--cnn] [DATA [EPOCHS [SEED]]]: builds a spiking network, trains it from scratch, tests it on images
 * it has not seen and writes snn_classifier.onnx.
 *
 *     cc -std=c11 snn_classifier.c -o snn_classifier $(pkg-config --cflags --libs hillock)
 *     ./snn_classifier MNIST_FOLDER
 *
 * 784-256-LIF-10-LIF, Poisson spike trains of 16 steps, rates of the output spikes as class scores. --cnn: two
 * convolutions with normalization and neurons instead, the image in each of 4 steps. DATA: anything hk_dataset_open
 * reads, images of ten classes, MNIST's IDX files say; default: the digits of this repository, scaled to 28x28. EPOCHS:
 * 10; 0 writes the network as it begins. Ends with 1 where fewer than 90 % of the held-out images are recognised.
 */
#include <hillock/hillock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef DIGITS
#define DIGITS "tests/data/digits"
#endif

enum { BATCH = 32, CLASSES = 10, STEPS = 16, CNN_STEPS = 4 };

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
    bool cnn;
    const char *path;
    uint64_t epochs, seed;
    double accuracy; /* of held-out images, in percent */
} run;

/* The tutorial's network. What knows no time takes all steps as one batch. */
static hk_status add_perceptron(run *r, hk_value *x, hk_value **y)
{
    const hk_layer layers[] = {
        {.kind = HK_LAYER_FLATTEN},
        {.kind = HK_LAYER_POISSON, .steps = STEPS},
        {.kind = HK_LAYER_LINEAR, .name = "fc1", .in = 28 * 28, .out = 256, .time = HK_TIME_FOLD},
        {.kind = HK_LAYER_LIF, .name = "lif1", .tau = 2},
        {.kind = HK_LAYER_LINEAR, .name = "fc2", .out = CLASSES, .time = HK_TIME_FOLD},
        {.kind = HK_LAYER_LIF, .name = "lif2", .tau = 2},
        {.kind = HK_LAYER_RATE},
    };
    return hk_add_sequence(r->model, x, layers, sizeof layers / sizeof *layers, y);
}

/* The first convolution sees the same image at every step: it stands before time and is computed once. */
static hk_status add_cnn(run *r, hk_value *x, hk_value **y)
{
    const hk_layer layers[] = {
        {.kind = HK_LAYER_CONV2D, .name = "conv1", .out = 32, .kernel = {3}, .padding = {1}, .no_bias = true},
        {.kind = HK_LAYER_BATCH_NORM, .name = "bn1"},
        {.kind = HK_LAYER_DIRECT, .steps = CNN_STEPS},
        {.kind = HK_LAYER_LIF, .name = "lif1", .tau = 2},
        {.kind = HK_LAYER_MAX_POOL2D, .kernel = {2}, .time = HK_TIME_FOLD},
        {.kind = HK_LAYER_CONV2D,
         .name = "conv2",
         .out = 32,
         .kernel = {3},
         .padding = {1},
         .no_bias = true,
         .time = HK_TIME_FOLD},
        {.kind = HK_LAYER_BATCH_NORM, .name = "bn2", .time = HK_TIME_FOLD},
        {.kind = HK_LAYER_LIF, .name = "lif2", .tau = 2},
        {.kind = HK_LAYER_MAX_POOL2D, .kernel = {2}, .time = HK_TIME_FOLD},
        {.kind = HK_LAYER_FLATTEN, .time = HK_TIME_FOLD},
        {.kind = HK_LAYER_LINEAR, .name = "fc1", .out = 128, .time = HK_TIME_FOLD},
        {.kind = HK_LAYER_LIF, .name = "lif3", .tau = 2},
        {.kind = HK_LAYER_LINEAR, .name = "fc2", .out = CLASSES, .time = HK_TIME_FOLD},
        {.kind = HK_LAYER_RATE},
    };
    return hk_add_sequence(r->model, x, layers, sizeof layers / sizeof *layers, y);
}

static hk_status build(run *r)
{
    hk_value *x = NULL, *y = NULL;
    hk_model_info info;
    TRY(hk_model_create(r->ctx, &(hk_build_params){.size = sizeof(hk_build_params), .seed = r->seed}, &r->model));
    TRY(hk_model_input(r->model, "images", HK_FLOAT32, 4, (int64_t[]){-1, 1, 28, 28}, &x));
    TRY(r->cnn ? add_cnn(r, x, &y) : add_perceptron(r, x, &y));
    TRY(hk_model_output(r->model, y, "scores"));
    hk_model_get_info(r->model, &info);
    printf("Parameters: %lld\n", (long long)info.parameter_count);
    return HK_OK;
}

/* Bytes become probabilities of a spike; the repository's digits are 8x8 with values up to 16. */
static hk_status open_data(run *r)
{
    hk_dataset_params p = {.size = sizeof p, .rank = 3, .shape = {1, 28, 28}};
    hk_loader_params l = {.size = sizeof l, .batch = BATCH, .seed = 1, .holdout = 0.2, .shuffle = true};
    if (!r->path)
        p.scale = 1.0f / 16;
    TRY(hk_dataset_open(r->ctx, r->path ? r->path : DIGITS, &p, &r->data));
    TRY(hk_loader_create(r->data, &l, &r->train));
    l.shuffle = false;
    l.held_out = true;
    TRY(hk_loader_create(r->data, &l, &r->test));
    printf("%zu images to train with, %zu held out\n", hk_loader_samples(r->train), hk_loader_samples(r->test));
    return HK_OK;
}

/* The trainer resets potentials between batches itself. */
static hk_status one_epoch(run *r, double *mean)
{
    double sum = 0, count = 0;
    for (hk_batch b = {0};;) {
        float loss = 0;
        TRY(hk_loader_next(r->train, &b));
        if (!b.count)
            break;
        TRY(hk_trainer_step(r->trainer, b.inputs, b.input_count, b.target, &loss));
        sum += (double)loss * (double)b.count;
        count += (double)b.count;
    }
    *mean = sum / count;
    return HK_OK;
}

static hk_status train(run *r)
{
    const hk_trainer_params p = {.size = sizeof p, .optimizer = HK_OPTIMIZER_ADAMW, .lr = 1e-3f, .seed = r->seed};
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

static hk_status all(run *r)
{
    TRY(hk_device_open(r->ctx, NULL, &r->dev));
    TRY(build(r));
    TRY(open_data(r));
    TRY(train(r));
    TRY(test(r));
    return hk_trainer_export(r->trainer, "snn_classifier.onnx");
}

int main(int argc, char **argv)
{
    int cnn = argc > 1 && !strcmp(argv[1], "--cnn"), given = argc - cnn;
    run r = {.cnn = cnn,
             .path = given > 1 && *argv[1 + cnn] ? argv[1 + cnn] : NULL,
             .epochs = given > 2 ? strtoull(argv[2 + cnn], NULL, 10) : 10,
             .seed = given > 3 ? strtoull(argv[3 + cnn], NULL, 10) : 1};
    if (given > 4 || hk_context_create(NULL, &r.ctx) != HK_OK)
        return fprintf(stderr, "usage: snn_classifier [--cnn] [DATA [EPOCHS [SEED]]]\n"), 64;
    hk_status st = all(&r);
    if (st != HK_OK)
        fprintf(stderr, "snn_classifier: %s\n", hk_context_error(r.ctx));
    hk_loader_destroy(&r.train);
    hk_loader_destroy(&r.test);
    hk_dataset_close(&r.data);
    hk_trainer_destroy(&r.trainer);
    hk_model_destroy(&r.model);
    hk_device_close(&r.dev);
    hk_context_destroy(&r.ctx);
    return st != HK_OK ? hk_status_exit_code(st) : r.accuracy < 90;
}
