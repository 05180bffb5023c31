/*
 * Training with precision `fast`: activations, gradients between nodes and copies of weights in 16 bits, parameters and
 * sums in float32. Matrix units are emulated where the device has none.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/philox.h"
#include "tests/support/data.h"
#include "tests/support/trainers.h"

enum { ROWS = 64, WIDTH = 64, HIDDEN = 96, CLASSES = 10, STEPS = 6 };

/* A residual block with what transformers have around their products, large enough for matrix units. */
static hk_model *block(void)
{
    hk_model *m = NULL;
    hk_value *x = NULL, *y = NULL;
    const hk_layer branch[] = {{.kind = HK_LAYER_LAYER_NORM, .name = "norm"},
                               {.kind = HK_LAYER_LINEAR, .name = "up", .out = HIDDEN},
                               {.kind = HK_LAYER_GELU},
                               {.kind = HK_LAYER_LINEAR, .name = "down", .out = WIDTH}};
    const hk_layer head[] = {{.kind = HK_LAYER_RELU}, {.kind = HK_LAYER_LINEAR, .name = "head", .out = CLASSES}};
    OK(hk_model_create(ctx, &(hk_build_params){.size = sizeof(hk_build_params), .seed = 3}, &m));
    OK(hk_model_input(m, "x", HK_FLOAT32, 2, (int64_t[]){-1, WIDTH}, &x));
    OK(hk_add_sequence(m, x, &(hk_layer){.kind = HK_LAYER_LINEAR, .name = "in", .out = WIDTH}, 1, &x));
    OK(hk_add_sequence(m, x, branch, sizeof branch / sizeof *branch, &y));
    OK(hk_add(m, y, &(hk_layer){.kind = HK_LAYER_ADD, .with = x}, &y));
    OK(hk_add_sequence(m, y, head, sizeof head / sizeof *head, &y));
    OK(hk_model_output(m, y, "y"));
    return m;
}

typedef struct batch {
    float x[ROWS * WIDTH];
    int64_t labels[ROWS];
    hk_tensor input, target;
} batch;

static void fill(batch *b, uint32_t number)
{
    for (uint32_t i = 0; i < ROWS * WIDTH; i++) {
        uint32_t r[4];
        hk_philox((uint32_t[]){number, 7}, (uint32_t[]){i, 0, 0, 0}, r);
        b->x[i] = (float)(r[0] >> 8) * 0x1p-23f - 1;
        b->labels[i / WIDTH] = r[1] % CLASSES;
    }
    b->input = (hk_tensor){.data = b->x, .dtype = HK_FLOAT32, .rank = 2, .shape = {ROWS, WIDTH}};
    b->target = (hk_tensor){.data = b->labels, .dtype = HK_INT64, .rank = 1, .shape = {ROWS}};
}

static hk_trainer *trainer(const hk_model *m, hk_trainer_params p)
{
    hk_trainer *t = NULL;
    p.size = sizeof p;
    p.lr = 3e-3f;
    OK(hk_trainer_create(dev, m, &p, &t));
    return t;
}

static hk_trainer *trainer_of(const hk_model *m, hk_precision precision)
{
    return trainer(m, (hk_trainer_params){.precision = precision});
}

static float step(hk_trainer *t, uint32_t number)
{
    batch b;
    float loss = NAN;
    fill(&b, number);
    OK(hk_trainer_step(t, &b.input, 1, &b.target, &loss));
    return loss;
}

/* Every store in halves is off by 2^-12 at most; losses follow strict's, whose weights Adam moves by its own lr at
 * first. */
static void follows_strict(void **state)
{
    (void)state;
    hk_model *m = block();
    hk_trainer *strict = trainer_of(m, HK_PRECISION_STRICT), *fast = trainer_of(m, HK_PRECISION_FAST);
    hk_plan_info a, b;
    size_t units = 0;
    for (uint32_t i = 0; i < STEPS; i++) {
        float want = step(strict, i), loss = step(fast, i);
        double apart = gradients_apart(fast, strict, m);
        print_message("strict %.6f fast %.6f, gradients %.1e apart\n", (double)want, (double)loss, apart);
        assert_true(fabs((double)(loss - want)) <= 3e-3 * (double)want);
        if (i == 0)
            assert_true(apart <= 3e-3 && (apart > 0 || !stores_halves()));
    }
    OK(hk_trainer_get_plan(strict, &a));
    OK(hk_trainer_get_plan(fast, &b));
    for (size_t i = 0; i < b.row_count; i++)
        units += strstr(b.rows[i].kernel, " f16") != NULL;
    print_message("%zu products on matrix units, %llu bytes live at once, strict %llu\n", units,
                  (unsigned long long)b.live_bytes, (unsigned long long)a.live_bytes);
    if (stores_halves() && hk_device_get_info(dev)->max_shared_bytes >= 32768)
        assert_true(units >= 8);
    hk_trainer_destroy(&strict);
    hk_trainer_destroy(&fast);
    hk_model_destroy(&m);
}

/* Values in halves cross from one recording to the other as they are. */
static void pieces_are_the_step(void **state)
{
    (void)state;
    hk_model *m = block();
    hk_trainer *one = trainer_of(m, HK_PRECISION_FAST), *two = trainer_of(m, HK_PRECISION_FAST);
    for (uint32_t i = 0; i < 3; i++) {
        batch b;
        float loss = NAN, want = step(one, i);
        hk_tensor out = {.data = &loss, .dtype = HK_FLOAT32};
        fill(&b, i);
        OK(hk_trainer_forward(two, &b.input, 1));
        OK(hk_trainer_loss(two, &b.target, HK_REDUCE_DEFAULT, &out));
        OK(hk_trainer_backward(two, NULL));
        OK(hk_trainer_update(two));
        hk_trainer_zero_grad(two);
        assert_memory_equal(&loss, &want, sizeof loss);
        same_weights(one, two, m);
    }
    hk_trainer_destroy(&one);
    hk_trainer_destroy(&two);
    hk_model_destroy(&m);
}

static void resumes_bit_for_bit(void **state)
{
    (void)state;
    hk_model *m = block();
    hk_trainer *straight = trainer_of(m, HK_PRECISION_FAST), *resumed = trainer_of(m, HK_PRECISION_FAST);
    char path[64];
    snprintf(path, sizeof path, "/tmp/hillock-train-fast-%ld", (long)getpid());
    for (uint32_t i = 0; i < STEPS; i++) {
        if (i == STEPS / 2) {
            OK(hk_trainer_save(straight, path, NULL));
            OK(hk_trainer_load(resumed, path, NULL));
        }
        step(straight, i);
        if (i >= STEPS / 2)
            step(resumed, i);
    }
    same_weights(straight, resumed, m);
    unlink(path);
    hk_trainer_destroy(&straight);
    hk_trainer_destroy(&resumed);
    hk_model_destroy(&m);
}

/* Gradients that halves cannot hold are infinite: the update is left out and the scale halved, until they fit. Then it
 * doubles after every two updates. */
static void scale_finds_its_place(void **state)
{
    (void)state;
    enum { MOST = 40 };
    hk_model *m = block();
    hk_trainer *t = trainer(
        m, (hk_trainer_params){.precision = HK_PRECISION_FAST, .loss_scale = 0x1p29f, .growth_interval = 2});
    hk_trainer_stats s = {0};
    if (!stores_halves()) {
        hk_trainer_destroy(&t);
        hk_model_destroy(&m);
        skip();
    }
    uint32_t steps = 0;
    for (; steps < MOST && s.updates == 0; steps++) {
        assert_true(isfinite(step(t, 0)));
        OK(hk_trainer_get_stats(t, &s));
        assert_int_equal(s.updates + s.skipped, steps + 1);
        assert_true(s.loss_scale == 0x1p29f / (float)(1u << s.skipped));
    }
    print_message("%llu steps skipped, loss scale %g\n", (unsigned long long)s.skipped, (double)s.loss_scale);
    assert_true(s.skipped > 0 && s.updates == 1);
    float before = s.loss_scale;
    uint64_t skipped = s.skipped;
    step(t, 0);
    OK(hk_trainer_get_stats(t, &s));
    assert_true(s.skipped > skipped ? s.loss_scale == before / 2 : s.loss_scale == before * 2);
    hk_trainer_destroy(&t);
    hk_model_destroy(&m);
}

/* ---- accuracy */

enum { IMAGES = 64, EPOCHS = 3 };

static double accuracy_after(const hk_model *m, hk_dataset *data, hk_precision precision)
{
    hk_trainer *t = trainer_of(m, precision);
    hk_loader *loader = NULL;
    hk_batch b;
    size_t right = 0, all = 0;
    OK(hk_loader_create(
        data,
        &(hk_loader_params){
            .size = sizeof(hk_loader_params), .batch = IMAGES, .shuffle = true, .drop_last = true, .threads = 1},
        &loader));
    for (uint64_t batches = hk_loader_batches(loader) * EPOCHS; batches > 0;) {
        OK(hk_loader_next(loader, &b));
        if (b.count == 0)
            continue;
        OK(hk_trainer_step(t, b.inputs, 1, b.target, NULL));
        batches--;
    }
    OK(hk_loader_seek(loader, 0, 0));
    for (;;) {
        hk_tensor y = {0};
        OK(hk_loader_next(loader, &b));
        if (b.count == 0)
            break;
        OK(hk_trainer_evaluate(t, b.inputs, 1, false));
        OK(hk_trainer_read_output(t, "y", &y));
        for (size_t i = 0; i < b.count; i++) {
            const float *scores = (const float *)y.data + i * CLASSES;
            int64_t best = 0;
            for (int64_t c = 1; c < CLASSES; c++)
                best = scores[c] > scores[best] ? c : best;
            right += best == ((const int64_t *)b.target->data)[i];
        }
        all += b.count;
        hk_tensor_release(&y);
    }
    hk_loader_destroy(&loader);
    hk_trainer_destroy(&t);
    return (double)right / (double)all;
}

static void learns_digits(void **state)
{
    (void)state;
    const hk_dataset_params shape = {.size = sizeof shape, .rank = 1, .shape = {WIDTH}, .scale = 0.0625f};
    hk_model *m = block();
    hk_dataset *data = NULL;
    OK(hk_dataset_open(ctx, HK_TEST_DATA "/digits", &shape, &data));
    double strict = accuracy_after(m, data, HK_PRECISION_STRICT), fast = accuracy_after(m, data, HK_PRECISION_FAST);
    print_message("accuracy on the digits trained with: strict %.4f, fast %.4f\n", strict, fast);
    assert_true(strict >= 0.95 && fast >= strict - 0.005);
    hk_dataset_close(&data);
    hk_model_destroy(&m);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_strict),      cmocka_unit_test(pieces_are_the_step),
        cmocka_unit_test(resumes_bit_for_bit), cmocka_unit_test(scale_finds_its_place),
        cmocka_unit_test(learns_digits),
    };
    return test_main(argc, argv, &(test_program){.name = "train_fast", .debug = "gpu-tuning", TESTS(tests)});
}
