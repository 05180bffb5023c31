/*
 * Training convolutional networks with precision `fast`: from the first convolution to the last gradient images lie in
 * HK_LAYOUT_NHWC8 and float16. Compared with strict; matrix units are emulated where the device has none.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/philox.h"
#include "tests/support/trainers.h"

enum { IMAGES = 4, CHANNELS = 3, HEIGHT = 12, WIDTH = 10, CLASSES = 10, PIXELS = IMAGES * CHANNELS * HEIGHT * WIDTH };

typedef struct batch {
    float x[PIXELS];
    int64_t labels[IMAGES];
    hk_tensor input, target;
} batch;

static void fill(batch *b, uint32_t number)
{
    for (uint32_t i = 0; i < PIXELS; i++) {
        uint32_t r[4];
        hk_philox((uint32_t[]){number, 11}, (uint32_t[]){i, 0, 0, 0}, r);
        b->x[i] = (float)(r[0] >> 8) * 0x1p-23f - 1;
        b->labels[i % IMAGES] = r[1] % CLASSES;
    }
    b->input = (hk_tensor){.data = b->x, .dtype = HK_FLOAT32, .rank = 4, .shape = {IMAGES, CHANNELS, HEIGHT, WIDTH}};
    b->target = (hk_tensor){.data = b->labels, .dtype = HK_INT64, .rank = 1, .shape = {IMAGES}};
}

static hk_value *convolved(hk_model *m, hk_value *x, const char *name, int64_t out, int64_t kernel, int64_t stride,
                           int64_t groups)
{
    char norm[32];
    snprintf(norm, sizeof norm, "%s.bn", name);
    const hk_layer layers[] = {{.kind = HK_LAYER_CONV2D,
                                .name = name,
                                .out = out,
                                .kernel = {kernel},
                                .stride = {stride},
                                .padding = {kernel / 2},
                                .groups = groups,
                                .no_bias = true},
                               {.kind = HK_LAYER_BATCH_NORM, .name = norm}};
    OK(hk_add_sequence(m, x, layers, 2, &x));
    return x;
}

static hk_value *activated(hk_model *m, hk_value *x)
{
    OK(hk_add(m, x, &(hk_layer){.kind = HK_LAYER_RELU}, &x));
    return x;
}

/* A network's residual block: three convolutions, the middle one with groups, and one beside them where shapes differ.
 */
static hk_value *block(hk_model *m, hk_value *x, const char *name, int64_t width, int64_t stride, int64_t groups,
                       bool beside)
{
    char names[4][32];
    for (int i = 0; i < 4; i++)
        snprintf(names[i], sizeof names[i], "%s.%d", name, i);
    hk_value *y = activated(m, convolved(m, x, names[0], width, 1, 1, 1));
    y = activated(m, convolved(m, y, names[1], width, 3, stride, groups));
    y = convolved(m, y, names[2], 2 * width, 1, 1, 1);
    if (beside)
        x = convolved(m, x, names[3], 2 * width, 1, stride, 1);
    OK(hk_add(m, y, &(hk_layer){.kind = HK_LAYER_ADD, .with = x}, &y));
    return activated(m, y);
}

static hk_value *headed(hk_model *m, hk_value *x)
{
    const hk_layer head[] = {{.kind = HK_LAYER_ADAPTIVE_AVG_POOL2D, .size = {1}},
                             {.kind = HK_LAYER_FLATTEN},
                             {.kind = HK_LAYER_LINEAR, .name = "head", .out = CLASSES}};
    OK(hk_add_sequence(m, x, head, 3, &x));
    return x;
}

static hk_model *begun(hk_value **x)
{
    hk_model *m = NULL;
    OK(hk_model_create(ctx, &(hk_build_params){.size = sizeof(hk_build_params), .seed = 5}, &m));
    OK(hk_model_input(m, "x", HK_FLOAT32, 4, (int64_t[]){-1, CHANNELS, HEIGHT, WIDTH}, x));
    return m;
}

/* ResNet's parts: a stem with overlapping maxima, a block with another beside it, one without. */
static hk_model *residual(void)
{
    hk_value *x = NULL;
    hk_model *m = begun(&x);
    x = activated(m, convolved(m, x, "stem", 16, 3, 1, 1));
    OK(hk_add(m, x, &(hk_layer){.kind = HK_LAYER_MAX_POOL2D, .kernel = {3}, .stride = {2}, .padding = {1}}, &x));
    x = block(m, x, "a", 8, 2, 1, true);
    x = block(m, x, "b", 8, 1, 1, false);
    OK(hk_model_output(m, headed(m, x), "y"));
    return m;
}

/* A window for each channel, whose gradients have no kernels in the layout; channels that fill no octet; averages. */
static hk_model *depthwise(void)
{
    hk_value *x = NULL;
    hk_model *m = begun(&x);
    x = activated(m, convolved(m, x, "stem", 20, 3, 1, 1));
    OK(hk_add(m, x, &(hk_layer){.kind = HK_LAYER_AVG_POOL2D, .kernel = {2}}, &x));
    x = block(m, x, "a", 10, 1, 10, false);
    OK(hk_model_output(m, headed(m, x), "y"));
    return m;
}

/* What BatchNormalization takes over: ReLU and 2x2 maxima. */
static hk_model *pooled(void)
{
    hk_value *x = NULL;
    hk_model *m = begun(&x);
    const hk_layer pool = {.kind = HK_LAYER_MAX_POOL2D, .kernel = {2}};
    OK(hk_add(m, activated(m, convolved(m, x, "one", 16, 3, 1, 1)), &pool, &x));
    x = activated(m, convolved(m, x, "two", 24, 3, 1, 1));
    const hk_layer head[] = {{.kind = HK_LAYER_FLATTEN}, {.kind = HK_LAYER_LINEAR, .name = "head", .out = CLASSES}};
    OK(hk_add_sequence(m, x, head, 2, &x));
    OK(hk_model_output(m, x, "y"));
    return m;
}

static const struct network {
    const char *name;
    hk_model *(*make)(void);
    size_t changes, packed; /* changes of layout in a step, and the least dispatches without one */
} networks[] = {{"residual", residual, 0, 60}, {"depthwise", depthwise, 3, 30}, {"pooled", pooled, 2, 12}};

static hk_trainer *trainer(const hk_model *m, hk_trainer_params p)
{
    hk_trainer *t = NULL;
    p.size = sizeof p;
    p.lr = 1e-3f;
    OK(hk_trainer_create(dev, m, &p, &t));
    return t;
}

static float step(hk_trainer *t, uint32_t number)
{
    batch b;
    float loss = NAN;
    fill(&b, number);
    OK(hk_trainer_step(t, &b.input, 1, &b.target, &loss));
    return loss;
}

/* Software devices move all that can be moved; GPUs what pays, of networks as small as these the residual one. */
static bool moves_all(void)
{
    return stores_halves() && hk_device_get_info(dev)->type == HK_DEVICE_SOFTWARE;
}

/* A ReLU or a maximum decides otherwise where rounding has turned an order over, and gives its whole gradient to
 * another place: some hundred of some ten thousand here. */
static void follows_strict(void **state)
{
    (void)state;
    enum { STEPS = 2 };
    for (size_t k = 0; k < sizeof networks / sizeof *networks; k++) {
        hk_model *m = networks[k].make();
        hk_trainer *strict = trainer(m, (hk_trainer_params){0}),
                   *fast = trainer(m, (hk_trainer_params){.precision = HK_PRECISION_FAST});
        hk_plan_info a, b;
        size_t changes = 0, packed = 0;
        for (uint32_t i = 0; i < STEPS; i++) {
            float want = step(strict, i), loss = step(fast, i);
            double apart = gradients_apart(fast, strict, m);
            print_message("%s: strict %.6f fast %.6f, gradients %.1e apart\n", networks[k].name, (double)want,
                          (double)loss, apart);
            assert_true(fabs((double)(loss - want)) <= 1e-2 * (double)want);
            if (i == 0)
                assert_true(apart <= 8e-2 && (apart > 0 || !(k == 0 ? stores_halves() : moves_all())));
        }
        OK(hk_trainer_get_plan(strict, &a));
        OK(hk_trainer_get_plan(fast, &b));
        for (size_t i = 0; i < b.row_count; i++) {
            changes += !strcmp(b.rows[i].op, "hk.Relayout"); /* weights do not count */
            packed += strstr(b.rows[i].kernel, "nhwc8") != NULL;
        }
        print_message("%s: %zu of %zu in NHWC8, %zu change the layout, %llu bytes live at once, strict %llu\n",
                      networks[k].name, packed, b.row_count, changes, (unsigned long long)b.live_bytes,
                      (unsigned long long)a.live_bytes);
        if (k == 0 ? stores_halves() : moves_all())
            assert_true(changes == networks[k].changes && packed >= networks[k].packed && b.live_bytes < a.live_bytes);
        hk_trainer_destroy(&strict);
        hk_trainer_destroy(&fast);
        hk_model_destroy(&m);
    }
}

/* The bits of one step and of its pieces, and of the same again. */
static void pieces_are_the_step(void **state)
{
    (void)state;
    hk_model *m = residual();
    hk_trainer *one = trainer(m, (hk_trainer_params){.precision = HK_PRECISION_FAST}),
               *two = trainer(m, (hk_trainer_params){.precision = HK_PRECISION_FAST}),
               *three = trainer(m, (hk_trainer_params){.precision = HK_PRECISION_FAST});
    for (uint32_t i = 0; i < 2; i++) {
        batch b;
        float loss = NAN, want = step(one, i), again = step(three, i);
        hk_tensor out = {.data = &loss, .dtype = HK_FLOAT32};
        fill(&b, i);
        OK(hk_trainer_forward(two, &b.input, 1));
        OK(hk_trainer_loss(two, &b.target, HK_REDUCE_DEFAULT, &out));
        OK(hk_trainer_backward(two, NULL));
        OK(hk_trainer_update(two));
        hk_trainer_zero_grad(two);
        assert_memory_equal(&again, &want, sizeof want);
        same_weights(one, three, m);
        assert_memory_equal(&loss, &want, sizeof loss);
        same_weights(one, two, m);
    }
    hk_trainer_destroy(&one);
    hk_trainer_destroy(&two);
    hk_trainer_destroy(&three);
    hk_model_destroy(&m);
}

/* Gradients that halves cannot hold leave the update out and halve the scale, until they fit. */
static void scale_finds_its_place(void **state)
{
    (void)state;
    enum { MOST = 40 };
    if (!stores_halves())
        skip();
    hk_model *m = residual();
    hk_trainer *t = trainer(m, (hk_trainer_params){.precision = HK_PRECISION_FAST, .loss_scale = 0x1p29f});
    hk_trainer_stats s = {0};
    for (uint32_t steps = 0; steps < MOST && s.updates == 0; steps++) {
        assert_true(isfinite(step(t, 0)));
        OK(hk_trainer_get_stats(t, &s));
        assert_int_equal(s.updates + s.skipped, steps + 1);
        assert_true(s.loss_scale == 0x1p29f / (float)(1u << s.skipped));
    }
    print_message("%llu steps skipped, loss scale %g\n", (unsigned long long)s.skipped, (double)s.loss_scale);
    assert_true(s.skipped > 0 && s.updates == 1);
    hk_trainer_destroy(&t);
    hk_model_destroy(&m);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(follows_strict), cmocka_unit_test(pieces_are_the_step),
                                       cmocka_unit_test(scale_finds_its_place)};
    return test_main(argc, argv, &(test_program){.name = "train_layout", .debug = "gpu-tuning", TESTS(tests)});
}
