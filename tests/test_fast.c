/*
 * Precision `fast`: values between nodes and operands in 16 bits, sums in float32. Results stay within what storing
 * them in half precision costs, and classes are float32's. Matrix units are emulated where the device has none.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/op.h"
#include "runtime/host.h"
#include "runtime/objects.h"
#include "runtime/once.h"
#include "tests/support/data.h"
#include "tests/support/program.h"
#include "tests/support/spiking.h"

#define DATA HK_TEST_DATA

static hk_session *session_of(const hk_model *m, hk_precision precision)
{
    hk_session *s = NULL;
    OK(hk_session_create(dev, m, &(hk_session_params){.size = sizeof(hk_session_params), .precision = precision}, &s));
    return s;
}

/* A half has 11 bits, so each store is off by 2^-12 at most; a few of those add up along a path. */
static void models(void **state)
{
    (void)state;
    static const struct {
        const char *folder;
        double bound;
    } list[] = {
        {"digits", 2e-3},
        {"models/mlp", 2e-3},
        {"models/resblock", 2e-3},
        {"models/transformer", 2e-3},
        {"models/loop", 2e-3},
        {"models/nonzero", 2e-3},
        {"exports/dynamo_attention", 2e-3},
        {"exports/dynamo_cond", 2e-3},
        {"exports/script_gru", 2e-3},
        {"exports/script_fp16", 4e-3},
        {"exports/dynamo_bf16", 2e-2},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        char path[400], file[512];
        hk_model *m = NULL;
        double error = 0;
        int set = 0;
        snprintf(path, sizeof path, DATA "/%s", list[i].folder);
        snprintf(file, sizeof file, "%s/model.onnx", path);
        OK(hk_model_load(ctx, file, NULL, &m));
        hk_session *s = session_of(m, HK_PRECISION_FAST);
        for (; data_run_set(ctx, s, m, path, set, &error); set++)
            if (!(error <= list[i].bound))
                fail_msg("%s set %d: relative error %.3g, allowed %.3g", path, set, error, list[i].bound);
        assert_true(set > 0);
        hk_session_destroy(&s);
        hk_model_destroy(&m);
    }
}

enum { BATCH = 2, ROWS = 40, HEADS = 2, SIZE = 32, WIDTH = HEADS * SIZE };

static hk_value *reshaped(hk_graph *g, const char *name, hk_value *x, int32_t rank, const int64_t *dims)
{
    hk_value *shape = hk_graph_ints(g, dims, rank);
    assert_non_null(shape);
    return op(g, "Reshape", name, NULL, x, shape, NULL);
}

static hk_value *projected(hk_graph *g, const char *name, hk_value *x, int64_t from, int64_t to)
{
    char weight[32], bias[32], product[32];
    snprintf(weight, sizeof weight, "%s.w", name);
    snprintf(bias, sizeof bias, "%s.b", name);
    snprintf(product, sizeof product, "%s.p", name);
    hk_value *w = random_weights(g, weight, 2, (const int64_t[]){from, to}, (uint32_t)(from + to), 0.2);
    hk_value *b = random_weights(g, bias, 1, &to, (uint32_t)to, 0.2);
    return op(g, "Add", name, NULL, op(g, "MatMul", product, NULL, x, w, NULL), b, NULL);
}

static hk_value *normalized(hk_graph *g, const char *name, hk_value *x)
{
    char scale[32], bias[32];
    const int64_t width = WIDTH;
    snprintf(scale, sizeof scale, "%s.s", name);
    snprintf(bias, sizeof bias, "%s.b", name);
    return op(g, "LayerNormalization", name, NULL, x, random_weights(g, scale, 1, &width, 3, 1.0),
              random_weights(g, bias, 1, &width, 4, 0.1));
}

static hk_value *head(hk_graph *g, const char *name, hk_value *x, const int64_t *perm)
{
    char turned[32], wide[32];
    const hk_attr_value attrs[] = {HK_SET_INTS("perm", perm, 4), {0}};
    snprintf(wide, sizeof wide, "%s.p", name);
    snprintf(turned, sizeof turned, "%s.t", name);
    x = projected(g, wide, x, WIDTH, WIDTH);
    return op(g, "Transpose", turned, attrs, reshaped(g, name, x, 4, (const int64_t[]){BATCH, ROWS, HEADS, SIZE}), NULL,
              NULL);
}

/* A transformer's block, large enough for matrix units. */
static hk_model *transformer(void)
{
    static const int64_t rows[] = {0, 2, 1, 3}, columns[] = {0, 2, 3, 1};
    const hk_attr_value back[] = {HK_SET_INTS("perm", rows, 4), {0}};
    hk_value *x = NULL;
    hk_graph *g = new_graph(&x, 3, (const int64_t[]){BATCH, ROWS, WIDTH});
    hk_value *n = normalized(g, "norm1", x), *v = head(g, "v", n, rows);
    hk_value *s = op(g, "MatMul", "scores", NULL, head(g, "q", n, rows), head(g, "k", n, columns), NULL);
    hk_value *y = op(g, "MatMul", "mixed", NULL, op(g, "Softmax", "softmax", NULL, s, NULL, NULL), v, NULL);
    y = reshaped(g, "joined", op(g, "Transpose", "back", back, y, NULL, NULL), 3,
                 (const int64_t[]){BATCH, ROWS, WIDTH});
    x = op(g, "Add", "sum1", NULL, x, projected(g, "out", y, WIDTH, WIDTH), NULL);
    y = projected(g, "up", normalized(g, "norm2", x), WIDTH, 2 * WIDTH);
    y = op(g, "Mul", "swish", NULL, y, op(g, "Sigmoid", "gate", NULL, y, NULL, NULL), NULL);
    x = op(g, "Add", "sum2", NULL, x, projected(g, "down", y, 2 * WIDTH, WIDTH), NULL);
    return model_of(g, normalized(g, "norm3", x));
}

static uint64_t run_transformer(const hk_model *m, const hk_session_params *params, hk_tensor *y)
{
    static float numbers[BATCH * ROWS * WIDTH];
    hk_session *s = NULL;
    hk_plan_info plan;
    const hk_tensor x = {.data = numbers, .dtype = HK_FLOAT32, .rank = 3, .shape = {BATCH, ROWS, WIDTH}};
    fill_random(numbers, sizeof numbers / sizeof *numbers, 7, 1.0);
    OK(hk_session_create(dev, m, params, &s));
    OK(hk_session_write(s, "x", &x));
    OK(hk_session_run(s));
    OK(hk_session_read(s, "y", y));
    OK(hk_session_get_plan(s, &plan));
    uint64_t bytes = plan.live_bytes;
    hk_session_destroy(&s);
    return bytes;
}

/* What lives at once in a transformer are its activations, which need little more than half the room. Passes that are
 * off leave other operators between them: movers, products of batches, a softmax that reads float32. */
static void activations_are_halves(void **state)
{
    (void)state;
    hk_model *m = transformer();
    static const uint32_t without[] = {0, 1u << HK_PASS_ATTENTION, 1u << HK_PASS_EPILOGUES | 1u << HK_PASS_CHAINS};
    for (size_t i = 0; i < sizeof without / sizeof *without; i++) {
        hk_session_params params = {.size = sizeof params, .passes_off = without[i]};
        hk_tensor a = {0}, b = {0};
        uint64_t whole = run_transformer(m, &params, &a);
        params.precision = HK_PRECISION_FAST;
        uint64_t halves = run_transformer(m, &params, &b);
        double error = data_error(&b, &a);
        print_message("without passes %x: %llu bytes live at once, %llu with halves, relative error %.2e\n", without[i],
                      (unsigned long long)whole, (unsigned long long)halves, error);
        assert_true(error <= 2e-3);
        if (stores_halves() && i == 0)
            assert_true(error > 0 && halves < whole * 3 / 4);
        hk_tensor_release(&a);
        hk_tensor_release(&b);
    }
    hk_model_destroy(&m);
}

/* Rows of the plan whose kernel's name has this in it. */
static size_t dispatches_of(hk_session *s, const char *kernel)
{
    hk_plan_info plan;
    size_t count = 0;
    OK(hk_session_get_plan(s, &plan));
    for (size_t i = 0; i < plan.row_count; i++)
        count += strstr(plan.rows[i].kernel, kernel) != NULL;
    return count;
}

/* How many dispatches have that name with the passes that are off, and that the result is still the strict one. */
static size_t run_without(const hk_model *m, const hk_tensor *x, uint32_t off, const char *kernel)
{
    hk_tensor y[2] = {{0}, {0}};
    size_t count = 0;
    for (int fast = 0; fast < 2; fast++) {
        hk_session_params params = {.size = sizeof params, .passes_off = fast ? off : 0};
        hk_session *s = NULL;
        params.precision = fast ? HK_PRECISION_FAST : HK_PRECISION_STRICT;
        OK(hk_session_create(dev, m, &params, &s));
        OK(hk_session_write(s, "x", x));
        OK(hk_session_run(s));
        OK(hk_session_read(s, "y", &y[fast]));
        count = dispatches_of(s, kernel);
        hk_session_destroy(&s);
    }
    double error = data_error(&y[1], &y[0]);
    print_message("without passes %x: %zu times '%s', relative error %.2e\n", off, count, kernel, error);
    assert_true(error <= 2e-3);
    hk_tensor_release(&y[0]);
    hk_tensor_release(&y[1]);
    return count;
}

/* Queries, keys and values are one product, where their matrices are constant and lie in rows. */
static void attention_reads_one_product(void **state)
{
    (void)state;
    static float numbers[BATCH * ROWS * WIDTH];
    const hk_tensor x = {.data = numbers, .dtype = HK_FLOAT32, .rank = 3, .shape = {BATCH, ROWS, WIDTH}};
    hk_model *m = transformer();
    fill_random(numbers, sizeof numbers / sizeof *numbers, 7, 1.0);
    size_t with = run_without(m, &x, 0, "f16"), without = run_without(m, &x, 1u << HK_PASS_JOINS, "f16");
    if (stores_halves())
        assert_int_equal(with + 2, without);
    hk_model_destroy(&m);
}

/* The rows of a product that is split are added up and normalized at once; what else reads the product has it too. */
static void split_products_are_normalized(void **state)
{
    (void)state;
    enum { LONG = 4096 };
    static float numbers[ROWS * LONG];
    const hk_tensor rows = {.data = numbers, .dtype = HK_FLOAT32, .rank = 2, .shape = {ROWS, LONG}};
    hk_value *x = NULL;
    hk_graph *g = new_graph(&x, 2, rows.shape);
    hk_value *z = projected(g, "long", x, LONG, WIDTH);
    hk_model *m = model_of(g, op(g, "Add", "sum", NULL, normalized(g, "norm", z), z, NULL));
    fill_random(numbers, sizeof numbers / sizeof *numbers, 7, 1.0);
    assert_int_equal(run_without(m, &rows, 0, "sum of splits, norm"), 1);
    assert_int_equal(run_without(m, &rows, 1u << HK_PASS_NORMS, "sum of splits, norm"), 0);
    hk_model_destroy(&m);
}

/* A vision transformer's first convolution, then its rows as the model turns them. */
static void patches_are_a_product(void **state)
{
    (void)state;
    enum { PATCH = 8, HIGH = 5, WIDE = 4, CHANNELS = 3, OUTPUTS = 40 };
    static const int64_t turn[] = {0, 2, 1}, side[] = {PATCH, PATCH};
    static float numbers[BATCH * CHANNELS * HIGH * PATCH * WIDE * PATCH];
    const hk_tensor images = {
        .data = numbers, .dtype = HK_FLOAT32, .rank = 4, .shape = {BATCH, CHANNELS, HIGH * PATCH, WIDE * PATCH}};
    const int64_t outputs = OUTPUTS;
    const hk_attr_value attrs[] = {HK_SET_INTS("strides", side, 2), {0}}, perm[] = {HK_SET_INTS("perm", turn, 3), {0}};
    hk_value *x = NULL;
    hk_graph *g = new_graph(&x, 4, images.shape);
    hk_value *w = random_weights(g, "w", 4, (const int64_t[]){OUTPUTS, CHANNELS, PATCH, PATCH}, 5, 0.1);
    hk_value *y = op(g, "Conv", "patches", attrs, x, w, random_weights(g, "b", 1, &outputs, 6, 0.2));
    y = reshaped(g, "rows", y, 3, (const int64_t[]){BATCH, OUTPUTS, HIGH * WIDE});
    hk_model *m = model_of(g, op(g, "Transpose", "turned", perm, y, NULL, NULL));
    fill_random(numbers, sizeof numbers / sizeof *numbers, 9, 1.0);
    assert_int_equal(run_without(m, &images, 0, "conv"), 0);
    assert_int_equal(run_without(m, &images, 0, "transpose") + run_without(m, &images, 0, "move"), 1);
    assert_true(run_without(m, &images, 1u << HK_PASS_PATCHES, "conv") > 0);
    hk_model_destroy(&m);
}

static hk_value *convolved(hk_graph *g, const char *name, hk_value *x, int64_t from, int64_t to, int64_t kernel,
                           int64_t stride, int64_t groups)
{
    char weight[32], bias[32];
    snprintf(weight, sizeof weight, "%s.w", name);
    snprintf(bias, sizeof bias, "%s.b", name);
    const int64_t pad = kernel / 2, pads[] = {pad, pad, pad, pad}, strides[] = {stride, stride};
    const hk_attr_value attrs[] = {
        HK_SET_INTS("pads", pads, 4), HK_SET_INTS("strides", strides, 2), HK_SET_INT("group", groups), {0}};
    hk_value *w = random_weights(g, weight, 4, (const int64_t[]){to, from / groups, kernel, kernel},
                                 (uint32_t)(to + kernel), 0.3);
    return op(g, "Conv", name, attrs, x, w, random_weights(g, bias, 1, &to, (uint32_t)to, 0.2));
}

static hk_value *swished(hk_graph *g, const char *name, hk_value *x)
{
    char gate[32];
    snprintf(gate, sizeof gate, "%s.g", name);
    return op(g, "Mul", name, NULL, x, op(g, "Sigmoid", gate, NULL, x, NULL, NULL), NULL);
}

/* EfficientNet's block between a stem and a head: narrow channels wide, a window for each channel,
 * squeeze-and-excitation, and back. */
static hk_model *excited_network(void)
{
    hk_value *x = NULL;
    hk_graph *g = new_graph(&x, 4, (const int64_t[]){2, 3, 21, 18});
    x = swished(g, "s1", convolved(g, "stem", x, 3, 16, 3, 2, 1));
    hk_value *y = swished(g, "s2", convolved(g, "expand", x, 16, 48, 1, 1, 1));
    y = swished(g, "s3", convolved(g, "depthwise", y, 48, 48, 3, 1, 48));
    hk_value *s = op(g, "GlobalAveragePool", "squeeze", NULL, y, NULL, NULL);
    s = convolved(g, "fc2", swished(g, "s4", convolved(g, "fc1", s, 48, 6, 1, 1, 1)), 6, 48, 1, 1, 1);
    y = op(g, "Mul", "scaled", NULL, op(g, "Sigmoid", "excitation", NULL, s, NULL, NULL), y, NULL);
    x = op(g, "Add", "sum", NULL, convolved(g, "project", y, 48, 16, 1, 1, 1), x, NULL);
    x = op(g, "GlobalMaxPool", "pool", NULL,
           op(g, "Relu", "relu", NULL, convolved(g, "head", x, 16, 40, 1, 1, 1), NULL, NULL), NULL, NULL);
    return model_of(g, x);
}

/* One island of convolutions without a change of layout, whatever stands between them; and a network is the same with
 * the passes off that make it so. */
static void excitation_stays_in_the_island(void **state)
{
    (void)state;
    static const uint32_t without[] = {0, 1u << HK_PASS_EXCITATION, 1u << HK_PASS_EPILOGUES};
    static float numbers[2 * 3 * 21 * 18];
    const hk_tensor x = {.data = numbers, .dtype = HK_FLOAT32, .rank = 4, .shape = {2, 3, 21, 18}};
    hk_model *m = excited_network();
    hk_tensor want = {0};
    fill_random(numbers, sizeof numbers / sizeof *numbers, 11, 1.0);
    for (size_t i = 0; i <= sizeof without / sizeof *without; i++) {
        hk_session_params params = {.size = sizeof params, .precision = i ? HK_PRECISION_FAST : HK_PRECISION_STRICT};
        hk_session *s = NULL;
        hk_plan_info plan;
        hk_tensor got = {0};
        size_t changes = 0, packed = 0;
        params.passes_off = i ? without[i - 1] : 0;
        OK(hk_session_create(dev, m, &params, &s));
        OK(hk_session_write(s, "x", &x));
        OK(hk_session_run(s));
        OK(hk_session_read(s, "y", i ? &got : &want));
        OK(hk_session_get_plan(s, &plan));
        for (size_t k = 0; k < plan.row_count; k++) {
            changes += strstr(plan.rows[k].kernel, "NHWC8") != NULL;
            packed += strstr(plan.rows[k].kernel, "nhwc8") != NULL;
        }
        print_message("%s, without passes %x: %zu dispatches, %zu in NHWC8, %zu change the layout\n",
                      i ? "fast" : "strict", params.passes_off, plan.dispatches, packed, changes);
        if (i) {
            assert_true(data_error(&got, &want) <= 2e-3);
            if (i == 1 && stores_halves())
                assert_true(packed >= 6 && changes == 0);
        }
        hk_tensor_release(&got);
        hk_session_destroy(&s);
    }
    hk_tensor_release(&want);
    hk_model_destroy(&m);
}

static size_t largest(const float *x, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        best = x[i] > x[best] ? i : best;
    return best;
}

static void classify(hk_session *s, const hk_tensor *images, hk_tensor *scores)
{
    OK(hk_session_write(s, "image", images));
    OK(hk_session_run(s));
    OK(hk_session_read(s, "logits", scores));
}

/* At least 99.5 % of the images are in the class that float32 finds. */
static void agrees(const char *images, float scale)
{
    enum { IMAGES = 250, CLASSES = 10 };
    hk_model *m = NULL;
    hk_dataset *data = NULL;
    hk_loader *loader = NULL;
    hk_batch batch;
    size_t same = 0, all = 0;
    const hk_dataset_params shape = {.size = sizeof shape, .rank = 3, .shape = {1, 8, 8}, .scale = scale};
    OK(hk_model_load(ctx, DATA "/digits/model.onnx", NULL, &m));
    hk_session *strict = session_of(m, HK_PRECISION_STRICT), *fast = session_of(m, HK_PRECISION_FAST);
    OK(hk_dataset_open(ctx, images, &shape, &data));
    OK(hk_loader_create(data, &(hk_loader_params){.size = sizeof(hk_loader_params), .batch = IMAGES, .threads = 1},
                        &loader));
    for (;;) {
        hk_tensor a = {0}, b = {0};
        OK(hk_loader_next(loader, &batch));
        if (batch.count == 0)
            break;
        classify(strict, batch.inputs, &a);
        classify(fast, batch.inputs, &b);
        for (size_t i = 0; i < batch.count; i++)
            same += largest((const float *)a.data + i * CLASSES, CLASSES) ==
                    largest((const float *)b.data + i * CLASSES, CLASSES);
        all += batch.count;
        hk_tensor_release(&a);
        hk_tensor_release(&b);
    }
    print_message("%s: %zu of %zu images in the same class\n", images, same, all);
    assert_true(all >= 1797 && (double)same >= 0.995 * (double)all);
    hk_loader_destroy(&loader);
    hk_dataset_close(&data);
    hk_session_destroy(&strict);
    hk_session_destroy(&fast);
    hk_model_destroy(&m);
}

static void classes_of_digits(void **state)
{
    (void)state;
    agrees(DATA "/digits", 0.0625f);
}

static void classes_of_mnist(void **state)
{
    (void)state;
    char path[512];
    const char *folder = getenv("HILLOCK_TEST_DATA");
    if (!folder) {
        print_message("skipped: no data (HILLOCK_TEST_DATA is not set)\n");
        skip();
    }
    snprintf(path, sizeof path, "%s/mnist10k", folder);
    agrees(path, 1.0f / 255);
}

static bool note_bfloats(void *user, const hk_record *r)
{
    if (r->kind == HK_RECORD_DISPATCH && strstr(r->kernel->name, "gemm_coopmat_bf16"))
        ++*(int *)user;
    return true;
}

/* x w + b of bfloat16, w constant: large products read both as they are, small ones and strict ones are widened.
 * Results are rounded once more than the host's, and lie where float16 has no numbers. */
static void bfloats_are_multiplied(void **state)
{
    (void)state;
    enum { K = 64, COLUMNS = 48 };
    static const hk_step step;
    for (int i = 0; i < 4; i++) {
        int64_t rows = i == 3 ? 2 : 40;
        hk_precision precision = i == 0 ? HK_PRECISION_STRICT : i == 1 ? HK_PRECISION_HIGH : HK_PRECISION_FAST;
        hk_arena *arena = hk_arena_create(ctx);
        hk_graph *g = NULL;
        OK(hk_graph_create(ctx, "bfloat", &g));
        hk_shape xs = {.rank = 2, .dim = {rows, K}}, ws = {.rank = 2, .dim = {K, COLUMNS}};
        hk_value *x = hk_graph_value(g, "x", HK_VALUE_INPUT, HK_BFLOAT16, &xs), *y = NULL;
        hk_tensor *w = hk_tensor_new(g->arena, HK_BFLOAT16, &ws), *data = hk_tensor_new(arena, HK_BFLOAT16, &xs);
        hk_tensor *b = hk_tensor_new(g->arena, HK_BFLOAT16, &(hk_shape){.rank = 1, .dim = {COLUMNS}});
        assert_true(x && w && data && b && hk_graph_add_input(g, x));
        for (int64_t k = 0; k < K * COLUMNS; k++)
            hk_set_double(w, k, (double)(k * 31 % 61 - 30) * 1024);
        for (int64_t k = 0; k < rows * K; k++)
            hk_set_double(data, k, (double)(k * 37 % 53 - 26) * 64);
        for (int64_t k = 0; k < COLUMNS; k++)
            hk_set_double(b, k, (double)k * 1e6);
        hk_value *in[] = {x, hk_graph_constant(g, "w", w), hk_graph_constant(g, "b", b)};
        OK(hk_build(g, "Gemm", NULL, in, 3, &y, 1));
        OK(hk_build(g, "Relu", NULL, &y, 1, &y, 1));
        assert_true(hk_graph_add_output(g, y));
        hk_tensor *want[1], *got[1];
        int products = 0;
        const hk_once how = {.precision = precision, .visit = note_bfloats, .user = &products};
        OK(hk_host_run(g, arena, (const hk_tensor *[]){data}, want, &step));
        OK(hk_run_once_as(dev->gpu, g, (const hk_tensor *[]){data}, &step, &how, got, arena));
        double error = 0, norm = 0;
        for (int64_t k = 0; k < rows * COLUMNS; k++) {
            double a = hk_get_double(got[0], k), e = hk_get_double(want[0], k);
            error += (a - e) * (a - e);
            norm += e * e;
        }
        assert_true(norm > 0);
        bool units = hk_gpu_matrix_types(dev->gpu) >> HK_MATRIX_BFLOAT16 & 1u;
        assert_int_equal(products, units && (i == 1 || i == 2));
        if (products || precision != HK_PRECISION_FAST)
            assert_true(sqrt(error / norm) < 4e-3);
        hk_graph_destroy(&g);
        hk_arena_destroy(&arena);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(models),
        cmocka_unit_test(activations_are_halves),
        cmocka_unit_test(attention_reads_one_product),
        cmocka_unit_test(split_products_are_normalized),
        cmocka_unit_test(patches_are_a_product),
        cmocka_unit_test(excitation_stays_in_the_island),
        cmocka_unit_test(bfloats_are_multiplied),
        cmocka_unit_test(classes_of_digits),
        cmocka_unit_test(classes_of_mnist),
    };
    return test_main(argc, argv, &(test_program){.name = "fast", .debug = "gpu-tuning", TESTS(tests)});
}
