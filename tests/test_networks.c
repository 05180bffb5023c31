/*
 * Training of whole networks against PyTorch in float64 (tools/fixtures/networks.py): the gradients of all parameters,
 * with BatchNormalization in both modes, and the losses of 50 steps of AdamW.
 *
 *     build/test_networks [PATTERN]    resnet.train, *.curve, ...
 */
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/philox.h"
#include "core/tensor.h"
#include "hillock/hillock.h"
#include "tests/support/program.h"
#include "train/safetensors.h"

/* ---- a network: its model, what PyTorch computed, and batches from Philox streams */

#define MAX_INPUTS 3
#define IMAGE_RANGE 1.7320508f

typedef struct network {
    hk_model *model;
    hk_safetensors reference;
    uint32_t seed;
    int64_t classes;
    hk_tensor inputs[MAX_INPUTS], labels;
    size_t input_count;
} network;

static const hk_tensor *reference(const network *n, const char *mode, const char *name)
{
    char full[256];
    snprintf(full, sizeof full, "%s%s", mode, name);
    const hk_tensor *t = hk_safetensors_find(&n->reference, full);
    if (!t)
        fail_msg("the fixture has no '%s'", full);
    return t;
}

static uint32_t word(const network *n, uint32_t stream, int64_t i)
{
    uint32_t out[4];
    hk_philox((const uint32_t[2]){n->seed, stream}, (const uint32_t[4]){(uint32_t)(i / 4), 0, 0, 0}, out);
    return out[i % 4];
}

static void allocate(hk_tensor *t, hk_dtype dtype, int32_t rank, const int64_t *shape)
{
    *t = (hk_tensor){.dtype = dtype, .rank = rank};
    memcpy(t->shape, shape, (size_t)rank * sizeof *shape);
    t->data = calloc((size_t)hk_tensor_count(t), dtype == HK_FLOAT32 ? sizeof(float) : sizeof(int64_t));
    assert_non_null(t->data);
}

static void open_network(network *n, const char *name)
{
    char path[512];
    *n = (network){0};
    snprintf(path, sizeof path, HK_TEST_DATA "/networks/%s/model.onnx", name);
    OK(hk_model_load(ctx, path, NULL, &n->model));
    snprintf(path, sizeof path, HK_TEST_DATA "/networks/%s/reference.safetensors", name);
    OK(hk_safetensors_read(ctx, path, &n->reference));
    n->seed = (uint32_t)hk_get_int(reference(n, "", "seed"), 0);
    const hk_value_info *in = hk_model_inputs(n->model, &n->input_count);
    assert_true(n->input_count <= MAX_INPUTS);
    const hk_tensor *labels = reference(n, "", "labels");
    for (size_t i = 0; i < n->input_count; i++) {
        int64_t shape[HK_MAX_RANK];
        memcpy(shape, in[i].shape, sizeof shape);
        shape[0] = labels->shape[0]; /* it may be open */
        allocate(&n->inputs[i], in[i].dtype, in[i].rank, shape);
    }
    n->classes = hk_get_int(reference(n, "", "classes"), 0);
    allocate(&n->labels, HK_INT64, labels->rank, labels->shape);
}

static void close_network(network *n)
{
    for (size_t i = 0; i < n->input_count; i++)
        free(n->inputs[i].data);
    free(n->labels.data);
    hk_safetensors_finish(&n->reference);
    hk_model_destroy(&n->model);
}

static void fill_tokens(const network *n, const char *name, uint32_t stream, hk_tensor *t)
{
    int64_t *data = t->data, length = t->shape[1];
    int64_t kinds = hk_get_int(reference(n, "", name), 0);
    for (int64_t i = 0; i < hk_tensor_count(t); i++) {
        int64_t half = length / 2, kept = half + word(n, stream, i / length) % (half + 1);
        data[i] = strcmp(name, "attention_mask") != 0 ? word(n, stream, i) % kinds : i % length < kept;
    }
}

/* Batch 0 is the gradients', 1, 2, ... are the curve's. */
static void fill_batch(network *n, uint32_t number)
{
    size_t count = 0;
    const hk_value_info *in = hk_model_inputs(n->model, &count);
    for (size_t i = 0; i < count; i++) {
        uint32_t stream = 1000 * ((uint32_t)i + 1) + number;
        if (in[i].dtype != HK_FLOAT32) {
            fill_tokens(n, in[i].name, stream, &n->inputs[i]);
            continue;
        }
        float *x = n->inputs[i].data;
        for (int64_t k = 0; k < hk_tensor_count(&n->inputs[i]); k++)
            x[k] = (2.0f * ((float)(word(n, stream, k) >> 8) * 0x1p-24f) - 1.0f) * IMAGE_RANGE;
    }
    for (int64_t i = 0; i < hk_tensor_count(&n->labels); i++)
        ((int64_t *)n->labels.data)[i] = word(n, 9000 + number, i) % n->classes;
}

/* What PyTorch has as parameters of its own, outside of layers. */
static const hk_parameter_rule own_parameters[] = {
    {.pattern = "*.scale", .train = true},
    {.pattern = "cls", .train = true},
    {.pattern = "position", .train = true},
};

static bool has_parameter(const network *n, const char *pattern)
{
    for (size_t i = 0; i < n->reference.count; i++)
        if (!strncmp(n->reference.tensors[i].name, "eval/", 5) &&
            fnmatch(pattern, n->reference.tensors[i].name + 5, 0) == 0)
            return true;
    return false;
}

static hk_trainer *trainer_with(const network *n, bool freeze_bn, bool checkpointing)
{
    hk_trainer *t = NULL;
    hk_parameter_rule rules[HK_COUNT(own_parameters)];
    size_t count = 0;
    for (size_t i = 0; i < HK_COUNT(own_parameters); i++)
        if (has_parameter(n, own_parameters[i].pattern))
            rules[count++] = own_parameters[i];
    OK(hk_trainer_create(dev, n->model,
                         &(hk_trainer_params){.size = sizeof(hk_trainer_params),
                                              .lr = 1e-4f,
                                              .freeze_bn = freeze_bn,
                                              .rules = rules,
                                              .rule_count = count,
                                              .checkpointing = checkpointing},
                         &t));
    return t;
}

static hk_trainer *trainer(const network *n, bool freeze_bn)
{
    return trainer_with(n, freeze_bn, false);
}

/* The exporters put dropout nowhere here, so a training step is deterministic. */
static double step(network *n, hk_trainer *t, uint32_t number)
{
    float loss = NAN;
    fill_batch(n, number);
    OK(hk_trainer_step(t, n->inputs, n->input_count, &n->labels, &loss));
    return (double)loss;
}

/* ---- gradients */

static double distance(const hk_tensor *a, const hk_tensor *b)
{
    double sum = 0;
    assert_int_equal(hk_tensor_count(a), hk_tensor_count(b));
    for (int64_t i = 0; i < hk_tensor_count(a); i++) {
        double d = hk_get_double(a, i) - hk_get_double(b, i);
        sum += d * d;
    }
    return sqrt(sum);
}

static double norm(const hk_tensor *a)
{
    double sum = 0;
    for (int64_t i = 0; i < hk_tensor_count(a); i++)
        sum += hk_get_double(a, i) * hk_get_double(a, i);
    return sqrt(sum);
}

/* |g - g64| <= 1e-5 |g64| over all parameters, each tensor <= 1e-4 max(|g_t|, 1e-3 |g|); and what is trained are
 * exactly PyTorch's parameters. */
static void check_gradients(const network *n, hk_trainer *t, const char *mode)
{
    double error = 0, total = 0;
    size_t count = 0, wrong = 0, skip = strlen(mode);
    for (size_t i = 0; i < n->reference.count; i++) {
        const hk_safetensor *s = &n->reference.tensors[i];
        if (strncmp(s->name, mode, skip) != 0)
            continue;
        count++;
        total = hypot(total, norm(&s->tensor));
    }
    for (size_t i = 0; i < n->reference.count; i++) {
        const hk_safetensor *s = &n->reference.tensors[i];
        hk_tensor got = {0};
        if (strncmp(s->name, mode, skip) != 0)
            continue;
        OK(hk_trainer_read_gradient(t, s->name + skip, &got));
        double e = distance(&got, &s->tensor);
        hk_tensor_release(&got);
        error = hypot(error, e);
        if (e <= 1e-4 * fmax(norm(&s->tensor), 1e-3 * total))
            continue;
        wrong++;
        print_message("    %s: error %.2e of %.2e\n", s->name, e, norm(&s->tensor));
    }
    print_message("    %zu tensors, relative error %.2e\n", count, error / total);
    hk_trainer_stats stats;
    OK(hk_trainer_get_stats(t, &stats));
    assert_int_equal(stats.parameters, count);
    assert_int_equal(wrong, 0);
    assert_true(error <= 1e-5 * total);
}

static void gradients(const char *name, const char *mode)
{
    network n;
    char prefix[16];
    open_network(&n, name);
    snprintf(prefix, sizeof prefix, "%s/", mode);
    hk_trainer *t = trainer(&n, !strcmp(mode, "eval"));
    double loss = step(&n, t, 0), want = hk_get_double(reference(&n, mode, ".loss"), 0);
    print_message("    loss %.7f, PyTorch %.7f\n", loss, want);
    check_gradients(&n, t, prefix);
    assert_true(fabs(loss - want) <= 1e-5 * want);
    hk_trainer_destroy(&t);
    close_network(&n);
}

static void evaluation_mode(void **state)
{
    gradients(*state, "eval");
}

static void training_mode(void **state)
{
    gradients(*state, "train");
}

/* ---- curves */

typedef struct deviation {
    double first, all; /* largest over steps 1 to 5, over all steps */
} deviation;

static deviation follow_curve(network *n, hk_trainer *t)
{
    const hk_tensor *want = reference(n, "", "curve");
    deviation d = {0};
    for (int64_t i = 0; i < hk_tensor_count(want); i++) {
        double error = fabs(step(n, t, (uint32_t)i + 1) - hk_get_double(want, i));
        d.first = i < 5 ? fmax(d.first, error) : d.first;
        d.all = fmax(d.all, error);
    }
    print_message("    %lld steps from %.4f to %.4f: steps 1 to 5 within %.1e, all within %.1e (PyTorch in float32 "
                  "%.1e)\n",
                  (long long)hk_tensor_count(want), hk_get_double(want, 0),
                  hk_get_double(want, hk_tensor_count(want) - 1), d.first, d.all,
                  hk_get_double(reference(n, "", "curve.float32_error"), 0));
    return d;
}

static void check_curve(network *n, hk_trainer *t)
{
    deviation d = follow_curve(n, t);
    assert_true(d.first <= 1e-5);
    assert_true(d.all <= fmax(1e-3, 3 * hk_get_double(reference(n, "", "curve.float32_error"), 0)));
}

static void curve(void **state)
{
    network n;
    open_network(&n, *state);
    hk_trainer *t = trainer(&n, false);
    check_curve(&n, t);
    hk_trainer_destroy(&t);
    close_network(&n);
}

/* ---- checkpointing: what is computed again is what was computed before */

static double gradient_distance(const network *n, hk_trainer *const *t, double *size)
{
    size_t count = 0;
    const hk_value_info *infos = hk_model_parameters(n->model, &count);
    double all = 0;
    *size = 0;
    for (size_t i = 0; i < count; i++) {
        hk_tensor kept = {0}, again = {0};
        OK(hk_trainer_read_gradient(t[0], infos[i].name, &kept));
        OK(hk_trainer_read_gradient(t[1], infos[i].name, &again));
        all = hypot(all, distance(&kept, &again));
        *size = hypot(*size, norm(&kept));
        hk_tensor_release(&kept);
        hk_tensor_release(&again);
    }
    return all;
}

/* The gradients of the first step and the losses of three, which depend on running statistics updated once. */
static void compare_checkpointing(const char *name, bool smaller)
{
    network n;
    hk_trainer *t[2];
    hk_plan_info plan[2];
    double size = 0, apart = 0;
    open_network(&n, name);
    for (int i = 0; i < 2; i++)
        t[i] = trainer_with(&n, false, i);
    for (uint32_t b = 1; b <= 3; b++) {
        double kept = step(&n, t[0], b), again = step(&n, t[1], b);
        print_message("    loss %.9g, with checkpoints %.9g\n", kept, again);
        assert_true(fabs(kept - again) <= 2e-6 * fabs(kept));
        if (b == 1)
            apart = gradient_distance(&n, t, &size);
    }
    for (int i = 0; i < 2; i++)
        OK(hk_trainer_get_plan(t[i], &plan[i]));
    print_message("    gradients %.1e apart; %zu and %zu dispatches, activations of %.2f and %.2f MiB\n", apart / size,
                  plan[0].dispatches, plan[1].dispatches, (double)plan[0].live_bytes / 0x1p20,
                  (double)plan[1].live_bytes / 0x1p20);
    assert_true(apart <= 2e-6 * size);
    assert_true(plan[1].dispatches > plan[0].dispatches);
    assert_true(!smaller || plan[1].live_bytes < plan[0].live_bytes);
    hk_trainer_destroy(&t[0]);
    hk_trainer_destroy(&t[1]);
    close_network(&n);
}

static void checkpointing(void **state)
{
    compare_checkpointing(*state, true);
}

static void shallow_checkpointing(void **state) /* two layers: no memory to save */
{
    compare_checkpointing(*state, false);
}

/* A network as it begins: the exporter has merged all biases of 0 and all scales of 1 of a size. Trained apart they are
 * PyTorch's parameters; tied they are another model, whose losses are others. */
static void merged_parameters(void **state)
{
    network n;
    open_network(&n, *state);
    const hk_parameter_rule positions = {.pattern = "embedding_2", .train = true}; /* looked up when exporting */
    for (int tie = 0; tie < 2; tie++) {
        hk_model *edited = NULL;
        hk_trainer *t = NULL;
        hk_trainer_stats stats;
        OK(hk_model_edit(n.model, &(hk_model_edit_params){.size = sizeof(hk_model_edit_params), .tie = tie}, &edited));
        OK(hk_trainer_create(
            dev, edited,
            &(hk_trainer_params){.size = sizeof(hk_trainer_params), .lr = 1e-4f, .rules = &positions, .rule_count = 1},
            &t));
        OK(hk_trainer_get_stats(t, &stats));
        int64_t all = hk_get_int(reference(&n, "", "parameters"), 0);
        if (tie) {
            assert_true((int64_t)stats.parameters < all);
            assert_true(follow_curve(&n, t).all > 1e-3);
        } else {
            assert_int_equal(stats.parameters, all);
            check_curve(&n, t);
        }
        hk_trainer_destroy(&t);
        hk_model_destroy(&edited);
    }
    close_network(&n);
}

#define EVAL(n)                                                                                                        \
    {                                                                                                                  \
        n ".eval", evaluation_mode, NULL, NULL, n                                                                      \
    }
#define TRAIN(n)                                                                                                       \
    {                                                                                                                  \
        n ".train", training_mode, NULL, NULL, n                                                                       \
    }
#define CURVE(n)                                                                                                       \
    {                                                                                                                  \
        n ".curve", curve, NULL, NULL, n                                                                               \
    }

#define CHECKPOINTING(n, test)                                                                                         \
    {                                                                                                                  \
        n ".checkpointing", test, NULL, NULL, n                                                                        \
    }

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        CHECKPOINTING("resnet", checkpointing),
        CHECKPOINTING("efficientnet", checkpointing),
        CHECKPOINTING("vit", shallow_checkpointing),
        CHECKPOINTING("bert", shallow_checkpointing),
        EVAL("simplecnn"),
        TRAIN("simplecnn"),
        CURVE("simplecnn"),
        EVAL("resnet"),
        TRAIN("resnet"),
        CURVE("resnet"),
        EVAL("mobilenet_v2"),
        EVAL("mobilenet_v3"),
        TRAIN("mobilenet_v3"),
        EVAL("efficientnet"),
        TRAIN("efficientnet"),
        EVAL("convnext"),
        EVAL("vit"),
        CURVE("vit"),
        EVAL("swin"),
        EVAL("bert"),
        CURVE("bert"),
        {"fresh.curve", merged_parameters, NULL, NULL, "fresh"},
        EVAL("gpt2"),
        EVAL("lstm"),
        CURVE("lstm"),
        EVAL("unet"),
        TRAIN("unet"),
        EVAL("groups"),
        CURVE("groups"),
        EVAL("groups_dynamo"),
    };
    return test_main(argc, argv, &(test_program){.name = "networks", TESTS(tests)});
}
