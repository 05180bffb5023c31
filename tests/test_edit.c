/*
 * Edits of a model before training, and the file that comes back: what is trained, what is written, and that the
 * written file, loaded again, computes what the trainer did. HILLOCK_TEST_KEEP: a folder that keeps the files, for
 * tools/fixtures/edits.py --check.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "runtime/model.h"
#include "train/safetensors.h"

#define EDITS HK_TEST_DATA "/edits/"
#define SEEDED(...)                                                                                                    \
    &(hk_model_edit_params)                                                                                            \
    {                                                                                                                  \
        .size = sizeof(hk_model_edit_params), .seed = 3, __VA_ARGS__                                                   \
    }

static hk_context *ctx;
static hk_device *dev;
static char folder[64], path[400];

#define OK(call)                                                                                                       \
    do {                                                                                                               \
        hk_status st_ = (call);                                                                                        \
        if (st_ != HK_OK)                                                                                              \
            fail_msg("%s: %s: %s", #call, hk_status_text(st_), hk_context_error(ctx));                                 \
    } while (0)

/* ---- one fine-tuning: a model, its edit, a trainer, and the file it writes */

typedef struct tuning {
    hk_model *file, *model, *back;
    hk_trainer *trainer;
    hk_tensor x, labels;
    int64_t classes;
} tuning;

static hk_model *load(const char *name)
{
    hk_model *m = NULL;
    char from[400];
    snprintf(from, sizeof from, *name == '/' ? "%s" : EDITS "%s/model.onnx", name);
    OK(hk_model_load(ctx, from, NULL, &m));
    return m;
}

/* A batch for the model's only input, and labels. */
static void make_batch(tuning *t, int64_t batch)
{
    size_t count = 0;
    const hk_value_info *in = hk_model_inputs(t->model, &count), *out = hk_model_outputs(t->model, &count);
    hk_shape shape = {.rank = in->rank};
    memcpy(shape.dim, in->shape, sizeof in->shape);
    shape.dim[0] = batch;
    OK(hk_tensor_create(ctx, in->dtype, &shape, &t->x));
    for (int64_t i = 0, n = hk_tensor_count(&t->x); i < n; i++)
        hk_set_double(&t->x, i, sin((double)(i * 7 + 1)));
    t->classes = out->shape[1];
    OK(hk_tensor_create(ctx, HK_INT64, &(hk_shape){.rank = 1, .dim = {batch}}, &t->labels));
    for (int64_t i = 0; i < batch; i++)
        hk_set_int(&t->labels, i, i * 5 % t->classes);
}

static tuning begin(const char *name, const hk_model_edit_params *edit, const hk_trainer_params *params, int64_t batch)
{
    tuning t = {.file = load(name)};
    hk_trainer_params p = params ? *params : (hk_trainer_params){0};
    p.size = sizeof p;
    p.lr = p.lr > 0 ? p.lr : 0.02f;
    OK(hk_model_edit(t.file, edit, &t.model));
    OK(hk_trainer_create(dev, t.model, &p, &t.trainer));
    make_batch(&t, batch);
    return t;
}

static float train(tuning *t, int steps)
{
    float loss = NAN;
    for (int i = 0; i < steps; i++)
        OK(hk_trainer_step(t->trainer, &t->x, 1, &t->labels, &loss));
    return loss;
}

static hk_tensor outputs_of(const hk_model *m, const hk_tensor *x)
{
    size_t count = 0;
    hk_session *s = NULL;
    hk_tensor y = {0};
    OK(hk_session_create(dev, m, NULL, &s));
    OK(hk_session_write(s, hk_model_inputs(m, &count)->name, x));
    OK(hk_session_run(s));
    OK(hk_session_read(s, hk_model_outputs(m, &count)->name, &y));
    hk_session_destroy(&s);
    return y;
}

static void assert_close(const hk_tensor *a, const hk_tensor *b, double bound)
{
    double difference = 0, size = 0;
    assert_int_equal(hk_tensor_count(a), hk_tensor_count(b));
    for (int64_t i = 0, n = hk_tensor_count(a); i < n; i++) {
        double x = hk_get_double(a, i), y = hk_get_double(b, i);
        assert_true(isfinite(x) && isfinite(y));
        difference += (x - y) * (x - y);
        size += y * y;
    }
    if (sqrt(difference) > bound * sqrt(size))
        fail_msg("relative difference %g, allowed %g", sqrt(difference / size), bound);
}

/* Exports, loads the file again and compares its outputs with the trainer's. */
static void export_equals(tuning *t, const char *name, double bound)
{
    size_t count = 0;
    hk_tensor trained = {0}, written;
    snprintf(path, sizeof path, "%s/%s.onnx", folder, name);
    OK(hk_trainer_export(t->trainer, path));
    t->back = load(path);
    OK(hk_trainer_evaluate(t->trainer, &t->x, 1, false));
    OK(hk_trainer_read_output(t->trainer, hk_model_outputs(t->model, &count)->name, &trained));
    written = outputs_of(t->back, &t->x);
    assert_close(&written, &trained, bound);
    if (getenv("HILLOCK_TEST_KEEP")) {
        char beside[420];
        snprintf(beside, sizeof beside, "%s.x.pb", path);
        OK(hk_tensor_save(ctx, &t->x, beside));
        snprintf(beside, sizeof beside, "%s.y.pb", path);
        OK(hk_tensor_save(ctx, &written, beside));
    }
    hk_tensor_release(&trained);
    hk_tensor_release(&written);
}

static void end(tuning *t)
{
    hk_trainer_destroy(&t->trainer);
    hk_model_destroy(&t->back);
    hk_model_destroy(&t->model);
    hk_model_destroy(&t->file);
    hk_tensor_release(&t->x);
    hk_tensor_release(&t->labels);
}

static const hk_value_info *parameter(const hk_model *m, const char *name)
{
    size_t count = 0;
    const hk_value_info *p = hk_model_parameters(m, &count);
    for (size_t i = 0; i < count; i++)
        if (!strcmp(p[i].name, name))
            return &p[i];
    return NULL;
}

static size_t parameters(const hk_model *m)
{
    size_t count = 0;
    hk_model_parameters(m, &count);
    return count;
}

/* Every parameter of the first model is in the second, of the same shape but for what `renewed` says. */
static void same_names(const hk_model *a, const hk_model *b)
{
    size_t count = 0;
    const hk_value_info *p = hk_model_parameters(a, &count);
    for (size_t i = 0; i < count; i++)
        if (!parameter(b, p[i].name))
            fail_msg("parameter '%s' is not in the written file", p[i].name);
}

static void assert_same_about(const hk_model *a, const hk_model *b)
{
    hk_model_info x, y;
    hk_model_get_info(a, &x);
    hk_model_get_info(b, &y);
    assert_int_equal(x.opset, y.opset);
    assert_int_equal(x.ir_version, y.ir_version);
    assert_int_equal(x.metadata_count, y.metadata_count);
    for (size_t i = 0; i < 2 * x.metadata_count; i++)
        assert_string_equal(x.metadata[i], y.metadata[i]);
    assert_string_equal(x.producer, y.producer);
    assert_string_equal(x.graph_name, y.graph_name);
}

static void refused(const char *name, const hk_model_edit_params *edit, hk_status expected, const char *says)
{
    hk_model *m = load(name), *edited = NULL;
    hk_status st = hk_model_edit(m, edit, &edited);
    if (st != expected || !strstr(hk_context_error(ctx), says))
        fail_msg("%s: %s: '%s', expected '%s'", name, hk_status_text(st), hk_context_error(ctx), says);
    assert_null(edited);
    hk_model_destroy(&m);
}

/* ---- a new head */

static void new_head(void **state)
{
    (void)state;
    static const struct {
        const char *name, *weight, *bias;
        int64_t weight_shape[4], classes;
        double bound; /* of the new weights */
    } cases[] = {{HK_TEST_DATA "/five_digits/model.onnx", "10.weight", "10.bias", {10, 48}, 10, 0.14434},
                 {"pointwise", "w3", "b3", {7, 6, 1, 1}, 7, 0.40825},
                 {"transposed", "w2", "b2", {8, 9}, 9, 0.35356},
                 {"shared", "w3", "last", {6, 2}, 2, 0.40825}};
    for (size_t i = 0; i < HK_COUNT(cases); i++) {
        tuning t = begin(cases[i].name, SEEDED(.new_head = cases[i].classes), NULL, 5);
        const hk_value_info *w = parameter(t.model, cases[i].weight), *b = parameter(t.model, cases[i].bias);
        assert_true(w && b && t.classes == cases[i].classes);
        assert_memory_equal(w->shape, cases[i].weight_shape, (size_t)w->rank * sizeof(int64_t));
        assert_int_equal(b->shape[b->rank - 1], cases[i].classes);
        hk_tensor fresh = {0};
        double largest = 0;
        OK(hk_trainer_read_parameter(t.trainer, cases[i].weight, &fresh));
        for (int64_t k = 0; k < hk_tensor_count(&fresh); k++)
            largest = fmax(largest, fabs(hk_get_double(&fresh, k)));
        assert_true(largest <= cases[i].bound && largest > 0.5 * cases[i].bound);
        hk_tensor_release(&fresh);
        float first = train(&t, 1);
        assert_true(train(&t, 30) < first);
        char name[32];
        snprintf(name, sizeof name, "head-%zu", i);
        export_equals(&t, name, 1e-5);
        same_names(t.model, t.back);
        assert_same_about(t.file, t.back);
        end(&t);
    }
    refused("shared", SEEDED(.new_head = 3, .output = "absent"), HK_STATUS_USAGE, "no output 'absent'");
    refused("shared", SEEDED(.new_head = -1), HK_STATUS_USAGE, "1 class or more");
    refused(HK_TEST_DATA "/models/loop/model.onnx", SEEDED(.new_head = 3), HK_STATUS_UNSUPPORTED,
            "where a linear layer");
}

/* The same seed draws the same weights, another seed others. */
static void new_head_seed(void **state)
{
    (void)state;
    hk_tensor w[3] = {0};
    for (uint64_t i = 0; i < 3; i++) {
        const hk_model_edit_params edit = {.size = sizeof edit, .new_head = 6, .seed = i / 2};
        tuning t = begin("pointwise", &edit, NULL, 2);
        OK(hk_trainer_read_parameter(t.trainer, "w3", &w[i]));
        end(&t);
    }
    assert_memory_equal(w[0].data, w[1].data, (size_t)hk_tensor_bytes(&w[0]));
    assert_memory_not_equal(w[0].data, w[2].data, (size_t)hk_tensor_bytes(&w[0]));
    for (size_t i = 0; i < 3; i++)
        hk_tensor_release(&w[i]);
}

/* ---- shared tensors */

static void unshared(void **state)
{
    (void)state;
    tuning t = begin("shared", NULL, NULL, 4), tied = begin("shared", SEEDED(.tie = true), NULL, 4);
    /* w1 w2 w3, last, ones (of the norm) and zero; zero has four uses, two of them on w2 */
    assert_int_equal(parameters(tied.model), 6);
    assert_int_equal(parameters(t.model), 9);
    assert_non_null(parameter(t.model, "zero_again")); /* the Identity's output is the parameter's name */
    assert_null(parameter(t.model, "ones"));           /* what multiplies stays a constant */
    hk_tensor a = outputs_of(t.file, &t.x), b = outputs_of(t.model, &t.x);
    assert_close(&a, &b, 1e-6);
    hk_tensor_release(&a);
    hk_tensor_release(&b);
    train(&t, 10);
    train(&tied, 10);
    export_equals(&t, "unshared", 1e-5);
    assert_int_equal(parameters(t.back), 9);
    same_names(t.model, t.back);
    assert_same_about(t.file, t.back);
    export_equals(&tied, "tied", 1e-5);
    assert_int_equal(parameters(tied.back), 6);
    size_t nodes = 0, before = 0;
    const hk_node_info *list = NULL;
    OK(hk_model_nodes(t.file, &list, &before));
    OK(hk_model_nodes(t.back, &list, &nodes));
    assert_int_equal(nodes, before - 1);
    end(&t);
    end(&tied);
}

/* A model that no edit changes is its file, byte for byte. */
static void unchanged(void **state)
{
    (void)state;
    hk_model *m = load("pointwise"), *edited = NULL;
    char command[1000];
    OK(hk_model_edit(m, NULL, &edited));
    snprintf(path, sizeof path, "%s/unchanged.onnx", folder);
    OK(hk_model_save(edited, path));
    snprintf(command, sizeof command, "cmp -s '%s' '%s'", path, EDITS "pointwise/model.onnx");
    assert_int_equal(system(command), 0);
    hk_model_destroy(&edited);
    hk_model_destroy(&m);
}

/* ---- adapters */

static bool same_size(const char *a, const char *b)
{
    char command[1000];
    snprintf(command, sizeof command, "test $(stat -c %%s '%s') = $(stat -c %%s '%s')", a, b);
    return system(command) == 0;
}

static void same_before(const tuning *t, double bound)
{
    hk_tensor a = outputs_of(t->file, &t->x), b = outputs_of(t->model, &t->x);
    assert_close(&b, &a, bound);
    hk_tensor_release(&a);
    hk_tensor_release(&b);
}

static void adapters(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t trained; /* adapters, a pair for each product */
    } cases[] = {{"transposed", 4}, {"pointwise", 0}, {HK_TEST_DATA "/five_digits/model.onnx", 4}};
    for (size_t i = 0; i < HK_COUNT(cases); i++) {
        const hk_model_edit_params edit = {.size = sizeof edit, .lora_rank = 2, .lora_alpha = 5, .tie = true};
        if (!cases[i].trained) {
            refused(cases[i].name, &edit, HK_STATUS_UNSUPPORTED, "no Gemm or MatMul");
            continue;
        }
        tuning t = begin(cases[i].name, &edit, NULL, 6);
        assert_int_equal(parameters(t.model), cases[i].trained);
        same_before(&t, 1e-6);
        float first = train(&t, 1);
        assert_true(train(&t, 30) < first);
        char name[32], from[400];
        snprintf(name, sizeof name, "lora-%zu", i);
        export_equals(&t, name, 1e-5);
        snprintf(from, sizeof from, *cases[i].name == '/' ? "%s" : EDITS "%s/model.onnx", cases[i].name);
        assert_true(same_size(path, from)); /* weights in place: nothing else was written */
        assert_int_equal(parameters(t.back), parameters(t.file));
        end(&t);
    }
    refused("shared", SEEDED(.lora_rank = 1, .lora_alpha = -1), HK_STATUS_USAGE, "alpha > 0");
}

/* A new head is trained whole beside the adapters, and has none. */
static void adapters_and_head(void **state)
{
    (void)state;
    const hk_trainer_params p = {.ema_decay = 0.5f};
    tuning t = begin("transposed", SEEDED(.lora_rank = 3, .new_head = 6, .dropout = 0.25f), &p, 6);
    assert_int_equal(parameters(t.model), 4);
    assert_true(parameter(t.model, "w1.lora_A") && parameter(t.model, "w2") && parameter(t.model, "b2"));
    train(&t, 20);
    export_equals(&t, "lora-head", 1e-5);
    snprintf(path, sizeof path, "%s/lora-average.onnx", folder);
    OK(hk_trainer_export_average(t.trainer, path));
    OK(hk_trainer_evaluate(t.trainer, &t.x, 1, true));
    hk_tensor average = {0};
    hk_model *m = load(path);
    OK(hk_trainer_read_output(t.trainer, "y", &average));
    hk_tensor written = outputs_of(m, &t.x);
    assert_close(&written, &average, 1e-5);
    hk_tensor_release(&average);
    hk_tensor_release(&written);
    hk_model_destroy(&m);
    end(&t);
}

/* ---- Dropout */

static void dropout(void **state)
{
    (void)state;
    tuning with = begin("transposed", SEEDED(.dropout = 0.9f), NULL, 6), without = begin("transposed", NULL, NULL, 6);
    same_before(&with, 1e-6);
    assert_true(train(&with, 1) != train(&without, 1));
    train(&with, 10);
    export_equals(&with, "dropout", 1e-5);
    assert_true(same_size(path, EDITS "transposed/model.onnx"));
    end(&with);
    end(&without);
    refused("transposed", SEEDED(.dropout = 1), HK_STATUS_USAGE, "below 1");
}

/* ---- BatchNormalization */

static void batchnorms(void **state)
{
    (void)state;
    tuning plain = begin("pointwise", NULL, NULL, 5);
    for (int kept = 0; kept < 2; kept++)
        for (int measured = 0; measured < 2; measured++) {
            const hk_model_edit_params edit = {.size = sizeof edit,
                                               .rebuild_bn = true,
                                               .keep_bn = kept,
                                               .device = dev,
                                               .calibration = &plain.x,
                                               .calibration_count = (size_t)measured};
            tuning t = begin("pointwise", &edit, NULL, 5);
            same_before(&t, 1e-5);
            assert_int_equal(parameters(t.model), 9); /* weight, scale and shift of each of three */
            float first = train(&t, 1);
            /* with the batch that was measured, training mode computes the same function too */
            float loss = train(&plain, 1);
            if (measured)
                assert_true(fabsf(first - loss) <= 1e-3f * loss);
            assert_true(train(&t, 30) < first);
            char name[32];
            snprintf(name, sizeof name, "bn-%d-%d", kept, measured);
            export_equals(&t, name, 1e-5);
            size_t nodes = 0, before = 0;
            const hk_node_info *list = NULL;
            OK(hk_model_nodes(t.file, &list, &before));
            OK(hk_model_nodes(t.back, &list, &nodes));
            assert_int_equal(nodes, before + (kept ? 3 : 0));
            assert_int_equal(same_size(path, EDITS "pointwise/model.onnx"), !kept);
            end(&t);
            end(&plain);
            plain = begin("pointwise", NULL, NULL, 5);
        }
    end(&plain);
    refused("transposed", SEEDED(.rebuild_bn = true), HK_STATUS_UNSUPPORTED, "no convolution");
}

/* ---- a batch that the file fixes */

static void fixed_batch(void **state)
{
    (void)state;
    tuning t = begin("fixed", SEEDED(.open_batch = true), NULL, 5);
    size_t count = 0;
    assert_int_equal(hk_model_inputs(t.model, &count)->shape[0], -1);
    assert_string_equal(hk_model_inputs(t.model, &count)->dim_names[0], "batch");
    assert_string_equal(hk_model_outputs(t.model, &count)->dim_names[0], "batch");
    /* five samples are what two, two and one (twice) were */
    hk_tensor all = outputs_of(t.model, &t.x);
    for (int64_t i = 0; i < 5; i++) {
        hk_tensor two = {0}, y, row;
        OK(hk_tensor_create(ctx, HK_FLOAT32, &(hk_shape){.rank = 4, .dim = {2, 3, 4, 4}}, &two));
        memcpy(two.data, (float *)t.x.data + i * 48, 48 * sizeof(float));
        memcpy((float *)two.data + 48, t.x.data, 48 * sizeof(float));
        y = outputs_of(t.file, &two);
        y.shape[0] = 1;
        row = (hk_tensor){.data = (float *)all.data + i * 3, .dtype = HK_FLOAT32, .rank = 2, .shape = {1, 3}};
        assert_close(&row, &y, 1e-5);
        hk_tensor_release(&two);
        hk_tensor_release(&y);
    }
    hk_tensor_release(&all);
    float first = train(&t, 1);
    assert_true(train(&t, 20) < first);
    export_equals(&t, "fixed", 1e-5);
    assert_int_equal(hk_model_inputs(t.back, &count)->shape[0], -1);
    end(&t);
    refused("mixed", SEEDED(.open_batch = true), HK_STATUS_UNSUPPORTED, "dynamic batch axis");
}

/* ---- an embedding and the head that was its transpose */

static tuning begin_tied(const hk_model_edit_params *edit)
{
    tuning t = begin("tied", edit, NULL, 6);
    for (int64_t i = 0; i < 6; i++)
        hk_set_int(&t.x, i, i * 3 % 7);
    train(&t, 1);
    return t;
}

static void ties(void **state)
{
    (void)state;
    const hk_lost_tie *lost = NULL;
    size_t count = 0;
    hk_tensor of_embedding = {0}, of_head = {0}, of_both = {0};
    tuning apart = begin_tied(NULL), one = begin_tied(SEEDED(.tie_matrices = true));
    OK(hk_model_lost_ties(apart.file, &lost, &count));
    assert_int_equal(count, 1);
    assert_string_equal(lost->kept, "embedding");
    assert_string_equal(lost->copy, "val_3");
    assert_true(lost->transposed);
    OK(hk_model_lost_ties(one.model, &lost, &count));
    assert_int_equal(count, 0);
    assert_null(parameter(one.model, "val_3"));
    /* one parameter's gradient is the sum of what the two had */
    OK(hk_trainer_read_gradient(apart.trainer, "embedding", &of_embedding));
    OK(hk_trainer_read_gradient(apart.trainer, "val_3", &of_head));
    OK(hk_trainer_read_gradient(one.trainer, "embedding", &of_both));
    for (int64_t i = 0; i < 7; i++)
        for (int64_t k = 0; k < 5; k++)
            ((float *)of_embedding.data)[i * 5 + k] += ((float *)of_head.data)[k * 7 + i];
    assert_close(&of_both, &of_embedding, 1e-6);
    hk_tensor_release(&of_embedding);
    hk_tensor_release(&of_head);
    hk_tensor_release(&of_both);
    train(&one, 10);
    export_equals(&one, "tied", 1e-5);
    assert_null(parameter(one.back, "val_3"));
    assert_non_null(parameter(one.back, "embedding"));
    end(&apart);
    end(&one);
}

/* ---- 16-bit weights: float32 masters, rounded when written */

static void halves(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        hk_dtype dtype;
        double bound;
    } cases[] = {{"half", HK_FLOAT16, 2e-3}, {"bfloat", HK_BFLOAT16, 2e-2}};
    for (size_t i = 0; i < HK_COUNT(cases); i++) {
        const hk_trainer_params tiny = {.lr = 1e-5f}; /* below what the stored type can add to a weight */
        tuning t = begin(cases[i].name, NULL, NULL, 6), slow = begin(cases[i].name, NULL, &tiny, 6);
        char name[32], from[400];
        float first = train(&t, 1);
        assert_true(train(&t, 30) < first);
        snprintf(name, sizeof name, "half-%zu", i);
        export_equals(&t, name, cases[i].bound);
        snprintf(from, sizeof from, EDITS "%s/model.onnx", cases[i].name);
        assert_true(same_size(path, from));
        assert_int_equal(parameter(t.back, "w1")->dtype, cases[i].dtype);
        float before = train(&slow, 1), after = train(&slow, 200);
        assert_true(after < before);
        end(&t);
        end(&slow);
        t = begin(cases[i].name, SEEDED(.new_head = 7), NULL, 6);
        train(&t, 5);
        snprintf(name, sizeof name, "half-head-%zu", i);
        export_equals(&t, name, cases[i].bound);
        assert_int_equal(parameter(t.back, "w2")->dtype, cases[i].dtype);
        end(&t);
    }
}

/* ---- weights alone */

static void safetensors(void **state)
{
    (void)state;
    const char *const models[] = {"pointwise", "half"};
    for (size_t i = 0; i < HK_COUNT(models); i++) {
        const hk_model_edit_params edit = {.size = sizeof edit, .keep_bn = i == 0, .lora_rank = i == 1};
        tuning t = begin(models[i], &edit, NULL, 5);
        hk_safetensors s;
        size_t count = 0;
        train(&t, 5);
        export_equals(&t, "weights", 2e-3);
        const hk_value_info *p = hk_model_parameters(t.back, &count);
        snprintf(path, sizeof path, "%s/weights.safetensors", folder);
        OK(hk_trainer_export_safetensors(t.trainer, false, path));
        OK(hk_safetensors_read(ctx, path, &s));
        assert_int_equal(s.count, count + (i == 0 ? 6 : 0)); /* running statistics */
        for (size_t k = 0; k < count; k++) {
            const hk_tensor *w = hk_safetensors_find(&s, p[k].name);
            const hk_value *v = hk_graph_find(hk_model_graph(t.back), p[k].name);
            assert_true(w && w->dtype == p[k].dtype && hk_tensor_count(w) == hk_tensor_count(v->data));
            for (int64_t e = 0; e < hk_tensor_count(w); e++)
                assert_true(hk_get_double(w, e) == hk_get_double(v->data, e));
        }
        hk_safetensors_finish(&s);
        assert_int_equal(hk_trainer_export_safetensors(t.trainer, true, path), HK_STATUS_USAGE);
        end(&t);
    }
}

/* ---- the program */

static int open_device(void **state)
{
    (void)state;
    const char *keep = getenv("HILLOCK_TEST_KEEP");
    snprintf(folder, sizeof folder, "%s", keep ? keep : "/tmp/hillock-edit-XXXXXX");
    if (!keep && !mkdtemp(folder))
        return -1;
    if (hk_context_create(NULL, &ctx) != HK_OK)
        return -1;
    hk_status st = hk_device_open(ctx, NULL, &dev);
    if (st == HK_STATUS_NO_DEVICE) {
        print_message("skipped: %s\n", hk_context_error(ctx));
        exit(77);
    }
    return st == HK_OK ? 0 : -1;
}

static int close_device(void **state)
{
    (void)state;
    char command[128];
    hk_device_close(&dev);
    hk_context_destroy(&ctx);
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return getenv("HILLOCK_TEST_KEEP") ? 0 : system(command);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(new_head),  cmocka_unit_test(new_head_seed), cmocka_unit_test(unshared),
        cmocka_unit_test(unchanged), cmocka_unit_test(adapters),      cmocka_unit_test(adapters_and_head),
        cmocka_unit_test(dropout),   cmocka_unit_test(batchnorms),    cmocka_unit_test(fixed_batch),
        cmocka_unit_test(ties),      cmocka_unit_test(halves),        cmocka_unit_test(safetensors),
    };
    return cmocka_run_group_tests_name("edit", tests, open_device, close_device);
}
