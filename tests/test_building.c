/*
 * Models built layer by layer: shapes, first weights, equal bits after saving and loading, and the sentences of
 * mistakes. HILLOCK_KEEP=FOLDER keeps every model with its input and output there, for tools/fixtures/building.py.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/philox.h"
#include "hillock/hillock.h"

static hk_context *ctx;
static hk_device *dev;
static char folder[256];

#define OK(call)                                                                                                       \
    do {                                                                                                               \
        hk_status st_ = (call);                                                                                        \
        if (st_ != HK_OK)                                                                                              \
            fail_msg("%s: %s: %s", #call, hk_status_text(st_), hk_context_error(ctx));                                 \
    } while (0)
#define COUNT(a) (sizeof(a) / sizeof(a)[0])

static hk_model *begin(uint64_t seed)
{
    hk_model *m = NULL;
    OK(hk_model_create(ctx, &(hk_build_params){.size = sizeof(hk_build_params), .seed = seed}, &m));
    return m;
}

static hk_value *input(hk_model *m, const char *name, hk_dtype dtype, int32_t rank, const int64_t *shape)
{
    hk_value *x = NULL;
    OK(hk_model_input(m, name, dtype, rank, shape, &x));
    return x;
}

static int64_t parameters(const hk_model *m)
{
    hk_model_info info;
    hk_model_get_info(m, &info);
    return info.parameter_count;
}

/* Uniform in [-1, 1), or small integers. */
static hk_tensor random_tensor(hk_dtype dtype, int32_t rank, const int64_t *shape, int64_t below)
{
    hk_tensor t = {.dtype = dtype, .rank = rank};
    memcpy(t.shape, shape, (size_t)rank * sizeof *shape);
    int64_t count = hk_tensor_count(&t);
    t.data = calloc((size_t)count + 1, 8);
    for (int64_t i = 0; i < count; i++) {
        uint32_t out[4];
        hk_philox((uint32_t[]){7, 8}, (uint32_t[]){(uint32_t)i, 0, 0, 0}, out);
        if (dtype == HK_INT64)
            ((int64_t *)t.data)[i] = out[0] % below;
        else
            ((float *)t.data)[i] = (float)(out[0] >> 8) * 0x1p-23f - 1;
    }
    return t;
}

static void run(const hk_model *m, const hk_tensor *x, hk_tensor *y)
{
    hk_session *s = NULL;
    size_t n = 0;
    OK(hk_session_create(dev, m, NULL, &s));
    OK(hk_session_write(s, hk_model_inputs(m, &n)[0].name, x));
    OK(hk_session_run(s));
    OK(hk_session_read(s, hk_model_outputs(m, &n)[0].name, y));
    hk_session_destroy(&s);
}

/* Runs the model, then the model saved and loaded: the same bits. y is the caller's. */
static void check_saved(hk_model *m, const char *name, const hk_tensor *x, hk_tensor *y)
{
    char path[512], file[600];
    hk_model *again = NULL;
    hk_tensor z = {0};
    snprintf(path, sizeof path, "%s/%s", folder, name);
    mkdir(path, 0777);
    run(m, x, y);
    snprintf(file, sizeof file, "%s/model.onnx", path);
    OK(hk_model_save(m, file));
    OK(hk_model_load(ctx, file, NULL, &again));
    run(again, x, &z);
    assert_int_equal(hk_tensor_count(y), hk_tensor_count(&z));
    assert_memory_equal(y->data, z.data, (size_t)hk_tensor_count(y) * hk_dtype_bytes(y->dtype));
    snprintf(file, sizeof file, "%s/input.npy", path);
    OK(hk_tensor_save(ctx, x, file));
    snprintf(file, sizeof file, "%s/output.npy", path);
    OK(hk_tensor_save(ctx, y, file));
    hk_tensor_release(&z);
    hk_model_destroy(&again);
}

static void check_shape(const hk_value *v, int32_t rank, const int64_t *shape)
{
    hk_value_info info;
    hk_value_get_info(v, &info);
    assert_int_equal(info.rank, rank);
    for (int32_t i = 0; i < rank; i++)
        assert_int_equal(info.shape[i], shape[i]);
}

/* ---- every layer: PyTorch's shape and number of parameters */

typedef struct layer_case {
    hk_layer layer;
    int32_t rank;
    int64_t shape[5];
    int32_t made_rank;
    int64_t made[5];
    int64_t parameters;
} layer_case;

static const layer_case cases[] = {
    {{.kind = HK_LAYER_LINEAR, .in = 7, .out = 5}, 2, {3, 7}, 2, {3, 5}, 40},
    {{.kind = HK_LAYER_LINEAR, .out = 5, .no_bias = true}, 4, {2, 3, 4, 7}, 4, {2, 3, 4, 5}, 35},
    {{.kind = HK_LAYER_LINEAR, .out = 6}, 3, {2, 3, 7}, 3, {2, 3, 6}, 48},
    {{.kind = HK_LAYER_CONV1D, .out = 32, .kernel = {5}, .padding = {2}}, 3, {4, 16, 100}, 3, {4, 32, 100}, 2592},
    {{.kind = HK_LAYER_CONV2D, .out = 32, .kernel = {3}, .padding = {1}}, 4, {8, 3, 32, 32}, 4, {8, 32, 32, 32}, 896},
    {{.kind = HK_LAYER_CONV2D,
      .out = 6,
      .kernel = {3, 2},
      .stride = {2, 1},
      .padding = {-1, 1},
      .dilation = {1, 2},
      .groups = 2,
      .no_bias = true},
     4,
     {2, 4, 9, 8},
     4,
     {2, 6, 4, 8},
     72},
    {{.kind = HK_LAYER_CONV3D, .out = 4, .kernel = {3, 3, 1}, .padding = {1, 1, -1}},
     5,
     {1, 2, 4, 5, 6},
     5,
     {1, 4, 4, 5, 6},
     76},
    {{.kind = HK_LAYER_CONV_TRANSPOSE1D, .out = 3, .kernel = {4}, .stride = {2}, .padding = {1}},
     3,
     {2, 5, 7},
     3,
     {2, 3, 14},
     63},
    {{.kind = HK_LAYER_CONV_TRANSPOSE2D,
      .out = 4,
      .kernel = {3},
      .stride = {2},
      .padding = {1},
      .output_padding = {1},
      .groups = 2},
     4,
     {2, 6, 5, 4},
     4,
     {2, 4, 10, 8},
     112},
    {{.kind = HK_LAYER_CONV_TRANSPOSE3D, .out = 2, .kernel = {2}, .stride = {2}},
     5,
     {1, 3, 2, 3, 4},
     5,
     {1, 2, 4, 6, 8},
     50},
    {{.kind = HK_LAYER_MAX_POOL1D, .kernel = {3}, .stride = {2}, .padding = {1}}, 3, {2, 3, 9}, 3, {2, 3, 5}, 0},
    {{.kind = HK_LAYER_MAX_POOL2D, .kernel = {2}}, 4, {8, 32, 32, 32}, 4, {8, 32, 16, 16}, 0},
    {{.kind = HK_LAYER_MAX_POOL2D, .kernel = {3}, .stride = {2}, .dilation = {2}, .ceil = true},
     4,
     {1, 2, 10, 9},
     4,
     {1, 2, 4, 3},
     0},
    {{.kind = HK_LAYER_MAX_POOL3D, .kernel = {2}}, 5, {1, 2, 4, 5, 6}, 5, {1, 2, 2, 2, 3}, 0},
    {{.kind = HK_LAYER_AVG_POOL1D, .kernel = {4}, .stride = {3}, .padding = {1}}, 3, {2, 3, 11}, 3, {2, 3, 4}, 0},
    {{.kind = HK_LAYER_AVG_POOL2D, .kernel = {3}, .stride = {2}, .padding = {1}, .exclude_padding = true},
     4,
     {2, 3, 8, 9},
     4,
     {2, 3, 4, 5},
     0},
    {{.kind = HK_LAYER_AVG_POOL3D, .kernel = {2, 1, 3}}, 5, {1, 2, 4, 5, 6}, 5, {1, 2, 2, 5, 2}, 0},
    {{.kind = HK_LAYER_ADAPTIVE_AVG_POOL1D, .size = {5}}, 3, {2, 3, 7}, 3, {2, 3, 5}, 0},
    {{.kind = HK_LAYER_ADAPTIVE_AVG_POOL2D, .size = {1}}, 4, {8, 32, 16, 16}, 4, {8, 32, 1, 1}, 0},
    {{.kind = HK_LAYER_ADAPTIVE_AVG_POOL2D, .size = {4, 2}}, 4, {2, 3, 8, 6}, 4, {2, 3, 4, 2}, 0},
    {{.kind = HK_LAYER_ADAPTIVE_AVG_POOL2D, .size = {7, 3}}, 4, {2, 3, 5, 8}, 4, {2, 3, 7, 3}, 0},
    {{.kind = HK_LAYER_ADAPTIVE_AVG_POOL3D, .size = {3, 7, 2}}, 5, {2, 2, 4, 5, 6}, 5, {2, 2, 3, 7, 2}, 0},
    {{.kind = HK_LAYER_ADAPTIVE_MAX_POOL1D, .size = {3}}, 3, {2, 3, 9}, 3, {2, 3, 3}, 0},
    {{.kind = HK_LAYER_ADAPTIVE_MAX_POOL2D, .size = {1}}, 4, {2, 3, 5, 7}, 4, {2, 3, 1, 1}, 0},
    {{.kind = HK_LAYER_ADAPTIVE_MAX_POOL3D, .size = {2, 5, 1}}, 5, {1, 2, 4, 5, 6}, 5, {1, 2, 2, 5, 1}, 0},
    {{.kind = HK_LAYER_BATCH_NORM}, 4, {8, 32, 16, 16}, 4, {8, 32, 16, 16}, 64},
    {{.kind = HK_LAYER_BATCH_NORM, .no_affine = true}, 3, {4, 5, 6}, 3, {4, 5, 6}, 0},
    {{.kind = HK_LAYER_BATCH_NORM, .in = 5}, 2, {4, 5}, 2, {4, 5}, 10},
    {{.kind = HK_LAYER_LAYER_NORM}, 3, {2, 5, 6}, 3, {2, 5, 6}, 12},
    {{.kind = HK_LAYER_LAYER_NORM, .axes = 2, .eps = 1e-3f}, 4, {2, 3, 5, 6}, 4, {2, 3, 5, 6}, 60},
    {{.kind = HK_LAYER_LAYER_NORM, .no_affine = true}, 2, {3, 6}, 2, {3, 6}, 0},
    {{.kind = HK_LAYER_GROUP_NORM, .groups = 3}, 4, {2, 6, 5, 4}, 4, {2, 6, 5, 4}, 12},
    {{.kind = HK_LAYER_INSTANCE_NORM}, 4, {2, 6, 5, 4}, 4, {2, 6, 5, 4}, 12},
    {{.kind = HK_LAYER_DROPOUT, .p = 0.3f}, 2, {4, 5}, 2, {4, 5}, 0},
    {{.kind = HK_LAYER_EMBEDDING, .in = 11, .out = 6}, 2, {3, 5}, 3, {3, 5, 6}, 66},
    {{.kind = HK_LAYER_LSTM, .out = 6}, 3, {3, 5, 4}, 3, {3, 5, 6}, 288},
    {{.kind = HK_LAYER_LSTM, .out = 5, .layers = 2, .bidirectional = true, .p = 0.1f},
     3,
     {3, 4, 4},
     3,
     {3, 4, 10},
     1120},
    {{.kind = HK_LAYER_LSTM, .out = 5, .layers = 2, .bidirectional = true, .last = true},
     3,
     {3, 4, 4},
     2,
     {3, 10},
     1120},
    {{.kind = HK_LAYER_GRU, .out = 6}, 3, {3, 5, 4}, 3, {3, 5, 6}, 216},
    {{.kind = HK_LAYER_GRU, .out = 6, .no_bias = true, .last = true}, 3, {3, 5, 4}, 2, {3, 6}, 180},
    {{.kind = HK_LAYER_RNN, .out = 6}, 3, {3, 5, 4}, 3, {3, 5, 6}, 72},
    {{.kind = HK_LAYER_ATTENTION, .heads = 2}, 3, {2, 5, 8}, 3, {2, 5, 8}, 288},
    {{.kind = HK_LAYER_ATTENTION, .heads = 4, .causal = true, .no_bias = true, .p = 0.1f},
     3,
     {2, 5, 8},
     3,
     {2, 5, 8},
     256},
    {{.kind = HK_LAYER_RELU}, 2, {3, 4}, 2, {3, 4}, 0},
    {{.kind = HK_LAYER_LEAKY_RELU}, 2, {3, 4}, 2, {3, 4}, 0},
    {{.kind = HK_LAYER_ELU}, 2, {3, 4}, 2, {3, 4}, 0},
    {{.kind = HK_LAYER_GELU}, 2, {3, 4}, 2, {3, 4}, 0},
    {{.kind = HK_LAYER_GELU, .tanh = true}, 2, {3, 4}, 2, {3, 4}, 0},
    {{.kind = HK_LAYER_SILU}, 2, {3, 4}, 2, {3, 4}, 0},
    {{.kind = HK_LAYER_MISH}, 2, {3, 4}, 2, {3, 4}, 0},
    {{.kind = HK_LAYER_HARDSWISH}, 2, {3, 4}, 2, {3, 4}, 0},
    {{.kind = HK_LAYER_HARDSIGMOID}, 2, {3, 4}, 2, {3, 4}, 0},
    {{.kind = HK_LAYER_SOFTPLUS}, 2, {3, 4}, 2, {3, 4}, 0},
    {{.kind = HK_LAYER_TANH}, 2, {3, 4}, 2, {3, 4}, 0},
    {{.kind = HK_LAYER_SIGMOID}, 2, {3, 4}, 2, {3, 4}, 0},
    {{.kind = HK_LAYER_SOFTMAX}, 3, {2, 3, 4}, 3, {2, 3, 4}, 0},
    {{.kind = HK_LAYER_LOG_SOFTMAX, .axis = 1}, 3, {2, 3, 4}, 3, {2, 3, 4}, 0},
    {{.kind = HK_LAYER_FLATTEN}, 4, {2, 3, 4, 5}, 2, {2, 60}, 0},
};

static void every_layer(void **state)
{
    (void)state;
    bool seen[HK_LAYER_COUNT] = {[HK_LAYER_ADD] = true, [HK_LAYER_MUL] = true, [HK_LAYER_CONCAT] = true};
    for (size_t i = 0; i < COUNT(cases); i++) {
        const layer_case *c = &cases[i];
        char name[64];
        bool rows = c->layer.kind == HK_LAYER_EMBEDDING;
        hk_model *m = begin(i);
        hk_value *y = NULL;
        int64_t open[5];
        memcpy(open, c->shape, sizeof open);
        open[0] = -1; /* the batch */
        hk_value *x = input(m, "x", rows ? HK_INT64 : HK_FLOAT32, c->rank, open);
        OK(hk_add(m, x, &c->layer, &y));
        memcpy(open, c->made, sizeof open);
        open[0] = -1;
        check_shape(y, c->made_rank, open);
        OK(hk_model_output(m, y, "y"));
        assert_int_equal(parameters(m), c->parameters);
        hk_tensor from = random_tensor(rows ? HK_INT64 : HK_FLOAT32, c->rank, c->shape, c->layer.in), to = {0};
        snprintf(name, sizeof name, "layer%zu", i);
        check_saved(m, name, &from, &to);
        assert_int_equal(to.rank, c->made_rank);
        assert_memory_equal(to.shape, c->made, (size_t)to.rank * sizeof *to.shape);
        seen[c->layer.kind] = true;
        free(from.data);
        hk_tensor_release(&to);
        hk_model_destroy(&m);
    }
    for (size_t i = 0; i < HK_LAYER_IF; i++) /* those of spiking networks: tests/test_spiking.c */
        if (!seen[i])
            fail_msg("layer kind %zu has no case", i);
}

/* ---- adaptive pools against their definition */

static void adaptive_averages(void **state)
{
    (void)state;
    for (int64_t extent = 1; extent <= 9; extent += 2)
        for (int64_t size = 1; size <= 11; size++) {
            hk_model *m = begin(0);
            hk_value *x = input(m, "x", HK_FLOAT32, 4, (int64_t[]){-1, 2, extent, 4}), *y = NULL;
            OK(hk_add(m, x, &(hk_layer){.kind = HK_LAYER_ADAPTIVE_AVG_POOL2D, .size = {size, 3}}, &y));
            OK(hk_model_output(m, y, NULL));
            hk_tensor from = random_tensor(HK_FLOAT32, 4, (int64_t[]){3, 2, extent, 4}, 0), to = {0};
            run(m, &from, &to);
            for (int64_t n = 0; n < 6; n++)
                for (int64_t i = 0; i < size; i++)
                    for (int64_t j = 0; j < 3; j++) {
                        double sum = 0, count = 0;
                        for (int64_t r = i * extent / size; r < ((i + 1) * extent + size - 1) / size; r++)
                            for (int64_t k = j * 4 / 3; k < ((j + 1) * 4 + 2) / 3; k++, count++)
                                sum += (double)((float *)from.data)[(n * extent + r) * 4 + k];
                        double got = (double)((float *)to.data)[(n * size + i) * 3 + j];
                        assert_true(fabs(got - sum / count) < 1e-6);
                    }
            free(from.data);
            hk_tensor_release(&to);
            hk_model_destroy(&m);
        }
}

/* ---- Conv1d is Conv2d on (N,C,1,L) */

static void conv1d_is_conv2d(void **state)
{
    (void)state;
    hk_tensor x1 = random_tensor(HK_FLOAT32, 3, (int64_t[]){4, 16, 100}, 0), x2 = x1, y1 = {0}, y2 = {0};
    hk_model *one = begin(3), *two = begin(3);
    hk_value *y = NULL;
    hk_layer layer = {.kind = HK_LAYER_CONV1D, .name = "conv", .out = 32, .kernel = {5}, .padding = {2}};
    OK(hk_add(one, input(one, "x", HK_FLOAT32, 3, (int64_t[]){-1, 16, 100}), &layer, &y));
    OK(hk_model_output(one, y, "y"));
    layer = (hk_layer){.kind = HK_LAYER_CONV2D, .name = "conv", .out = 32, .kernel = {1, 5}, .padding = {-1, 2}};
    OK(hk_add(two, input(two, "x", HK_FLOAT32, 4, (int64_t[]){-1, 16, 1, 100}), &layer, &y));
    OK(hk_model_output(two, y, "y"));
    x2.rank = 4;
    memcpy(x2.shape, (int64_t[]){4, 16, 1, 100}, 4 * sizeof(int64_t));
    run(one, &x1, &y1);
    run(two, &x2, &y2);
    assert_int_equal(hk_tensor_count(&y1), 4 * 32 * 100);
    assert_memory_equal(y1.data, y2.data, (size_t)hk_tensor_count(&y1) * sizeof(float));
    hk_tensor_release(&y1);
    hk_tensor_release(&y2);
    free(x1.data);
    hk_model_destroy(&one);
    hk_model_destroy(&two);
}

/* ---- a network with branches: residual sum, gate, concatenation, memory */

static void branches(void **state)
{
    (void)state;
    hk_model *m = begin(11);
    hk_value *x = input(m, "x", HK_FLOAT32, 4, (int64_t[]){-1, 8, 6, 6}), *a = NULL, *b = NULL, *y = NULL;
    OK(hk_add_sequence(m, x,
                       (hk_layer[]){{.kind = HK_LAYER_CONV2D, .name = "conv1", .out = 8, .kernel = {3}, .padding = {1}},
                                    {.kind = HK_LAYER_GROUP_NORM, .name = "norm1", .groups = 4},
                                    {.kind = HK_LAYER_SILU}},
                       3, &a));
    OK(hk_add(m, a, &(hk_layer){.kind = HK_LAYER_ADD, .with = x}, &a));
    OK(hk_add(m, a, &(hk_layer){.kind = HK_LAYER_ADAPTIVE_AVG_POOL2D, .size = {1}}, &b));
    OK(hk_add(m, b, &(hk_layer){.kind = HK_LAYER_SIGMOID}, &b));
    OK(hk_add(m, a, &(hk_layer){.kind = HK_LAYER_MUL, .with = b}, &b));
    OK(hk_add(m, a, &(hk_layer){.kind = HK_LAYER_CONCAT, .with = b}, &y));
    check_shape(y, 4, (int64_t[]){-1, 16, 6, 6});
    OK(hk_model_output(m, y, "y"));
    OK(hk_model_output(m, y, "again"));
    size_t count = 0;
    hk_model_outputs(m, &count);
    assert_int_equal(count, 2);
    hk_tensor from = random_tensor(HK_FLOAT32, 4, (int64_t[]){2, 8, 6, 6}, 0), to = {0};
    check_saved(m, "branches", &from, &to);
    free(from.data);
    hk_tensor_release(&to);
    hk_model_destroy(&m);

    m = begin(12);
    x = input(m, "x", HK_FLOAT32, 3, (int64_t[]){-1, 6, 8});
    OK(hk_add(m, x, &(hk_layer){.kind = HK_LAYER_LINEAR, .name = "memory", .out = 12}, &a));
    OK(hk_add(m, x, &(hk_layer){.kind = HK_LAYER_ATTENTION, .name = "attn", .heads = 2, .with = a}, &y));
    OK(hk_add(m, y, &(hk_layer){.kind = HK_LAYER_ADD, .with = x}, &y));
    OK(hk_add(m, y, &(hk_layer){.kind = HK_LAYER_LAYER_NORM, .name = "ln"}, &y));
    OK(hk_model_output(m, y, "y"));
    assert_int_equal(parameters(m), 8 * 12 + 12 + 8 * 8 + 2 * 8 * 12 + 3 * 8 + 8 * 8 + 8 + 16);
    from = random_tensor(HK_FLOAT32, 3, (int64_t[]){2, 6, 8}, 0);
    check_saved(m, "memory", &from, &to);
    free(from.data);
    hk_tensor_release(&to);
    hk_model_destroy(&m);
}

/* ---- first weights */

static const hk_value_info *parameter(const hk_model *m, const char *name)
{
    size_t count = 0;
    const hk_value_info *list = hk_model_parameters(m, &count);
    for (size_t i = 0; i < count; i++)
        if (!strcmp(list[i].name, name))
            return &list[i];
    fail_msg("there is no parameter '%s'", name);
    return NULL;
}

typedef struct moments {
    double mean, deviation, least, most;
} moments;

static moments weights_of(hk_trainer *t, const char *name)
{
    hk_tensor w = {0};
    OK(hk_trainer_read_parameter(t, name, &w));
    int64_t n = hk_tensor_count(&w);
    moments r = {.least = INFINITY, .most = -INFINITY};
    for (int64_t i = 0; i < n; i++) {
        double x = (double)((float *)w.data)[i];
        r.mean += x / (double)n;
        r.deviation += x * x / (double)n;
        r.least = fmin(r.least, x);
        r.most = fmax(r.most, x);
    }
    r.deviation = sqrt(r.deviation - r.mean * r.mean);
    hk_tensor_release(&w);
    return r;
}

/* Uniform in [-bound, bound): nothing outside, something near both ends, deviation bound/sqrt(3). */
static void check_uniform(hk_trainer *t, const char *name, double bound)
{
    moments w = weights_of(t, name);
    print_message("%-24s bound %.5f: %.5f to %.5f, mean %.5f, deviation %.5f\n", name, bound, w.least, w.most, w.mean,
                  w.deviation);
    assert_true(w.least >= -bound && w.most <= bound && w.least < -0.9 * bound && w.most > 0.9 * bound);
    assert_true(fabs(w.mean) < 0.08 * bound && fabs(w.deviation - bound / sqrt(3)) < 0.08 * bound);
}

static hk_model *weighted(uint64_t seed, bool more)
{
    hk_model *m = begin(seed);
    hk_value *rows = input(m, "rows", HK_INT64, 2, (int64_t[]){-1, 5}), *y = NULL, *z = NULL;
    if (more)
        OK(hk_add(m, rows, &(hk_layer){.kind = HK_LAYER_EMBEDDING, .name = "other", .in = 3, .out = 64}, &y));
    OK(hk_add_sequence(m, rows,
                       (hk_layer[]){{.kind = HK_LAYER_EMBEDDING, .name = "table", .in = 100, .out = 64},
                                    {.kind = HK_LAYER_LSTM, .name = "lstm", .out = 64},
                                    {.kind = HK_LAYER_ATTENTION, .name = "attn", .heads = 4},
                                    {.kind = HK_LAYER_CONV1D, .name = "conv", .out = 48, .kernel = {3}},
                                    {.kind = HK_LAYER_CONV_TRANSPOSE1D, .name = "up", .out = 32, .kernel = {3}},
                                    {.kind = HK_LAYER_BATCH_NORM, .name = "bn"},
                                    {.kind = HK_LAYER_FLATTEN},
                                    {.kind = HK_LAYER_LINEAR, .name = "fc", .out = 300}},
                       8, &z));
    OK(hk_model_output(m, z, NULL));
    return m;
}

static void first_weights(void **state)
{
    (void)state;
    hk_model *m = weighted(5, false), *same = weighted(5, true), *other = weighted(6, false);
    hk_trainer *t = NULL, *u = NULL, *v = NULL;
    OK(hk_trainer_create(dev, m, NULL, &t));
    OK(hk_trainer_create(dev, same, NULL, &u));
    OK(hk_trainer_create(dev, other, NULL, &v));
    moments table = weights_of(t, "table.weight");
    print_message("table.weight: mean %.4f, deviation %.4f, %.3f to %.3f\n", table.mean, table.deviation, table.least,
                  table.most);
    assert_true(fabs(table.mean) < 0.05 && fabs(table.deviation - 1) < 0.03 && table.most > 3 && table.least < -3);
    check_uniform(t, "lstm.weight_ih_l0", 1 / sqrt(64));
    check_uniform(t, "lstm.bias_l0", 1 / sqrt(64));
    check_uniform(t, "attn.in_proj_weight", sqrt(6.0 / 256));
    check_uniform(t, "attn.out_proj.weight", 1 / sqrt(64));
    check_uniform(t, "conv.weight", 1 / sqrt(5 * 3));
    check_uniform(t, "up.weight", 1 / sqrt(32 * 3));
    check_uniform(t, "fc.weight", 1 / sqrt(64 * 32));
    check_uniform(t, "fc.bias", 1 / sqrt(64 * 32));
    moments zero = weights_of(t, "attn.in_proj_bias"), one = weights_of(t, "bn.weight");
    assert_true(zero.least == 0 && zero.most == 0 && one.least == 1 && one.most == 1);
    /* a parameter's first values follow from seed and name alone */
    assert_true(weights_of(u, "fc.weight").mean == weights_of(t, "fc.weight").mean);
    assert_true(weights_of(v, "fc.weight").mean != weights_of(t, "fc.weight").mean);
    assert_int_equal(parameter(m, "conv.weight")->shape[0], 48);
    hk_trainer_destroy(&t);
    hk_trainer_destroy(&u);
    hk_trainer_destroy(&v);
    hk_model_destroy(&m);
    hk_model_destroy(&same);
    hk_model_destroy(&other);
}

/* ---- trained and exported: the file computes what the trainer evaluates */

static void exported(void **state)
{
    (void)state;
    char path[300];
    hk_model *m = begin(2), *again = NULL;
    hk_value *x = input(m, "x", HK_FLOAT32, 4, (int64_t[]){-1, 3, 8, 8}), *y = NULL;
    const hk_layer layers[] = {{.kind = HK_LAYER_CONV2D, .name = "conv", .out = 8, .kernel = {3}},
                               {.kind = HK_LAYER_BATCH_NORM, .name = "bn"},
                               {.kind = HK_LAYER_RELU},
                               {.kind = HK_LAYER_ADAPTIVE_AVG_POOL2D, .size = {4, 5}},
                               {.kind = HK_LAYER_FLATTEN},
                               {.kind = HK_LAYER_LINEAR, .name = "fc", .out = 3}};
    OK(hk_add_sequence(m, x, layers, COUNT(layers), &y));
    OK(hk_model_output(m, y, "y"));
    hk_trainer *t = NULL;
    int64_t label[4] = {0, 1, 2, 1};
    hk_tensor images = random_tensor(HK_FLOAT32, 4, (int64_t[]){4, 3, 8, 8}, 0), want = {0}, got = {0};
    hk_tensor labels = {.data = label, .dtype = HK_INT64, .rank = 1, .shape = {4}};
    OK(hk_trainer_create(dev, m, NULL, &t));
    for (int i = 0; i < 3; i++)
        OK(hk_trainer_step(t, &images, 1, &labels, NULL));
    OK(hk_trainer_evaluate(t, &images, 1, false));
    OK(hk_trainer_read_output(t, "y", &want));
    snprintf(path, sizeof path, "%s.onnx", folder);
    OK(hk_trainer_export(t, path));
    OK(hk_model_load(ctx, path, NULL, &again));
    assert_int_equal(parameters(again), parameters(m));
    run(again, &images, &got);
    double error = 0, norm = 0;
    for (int i = 0; i < 12; i++) {
        error += pow((double)((float *)got.data)[i] - (double)((float *)want.data)[i], 2);
        norm += pow((double)((float *)want.data)[i], 2);
    }
    assert_true(sqrt(error) <= 1e-6 * sqrt(norm));
    remove(path);
    free(images.data);
    hk_tensor_release(&want);
    hk_tensor_release(&got);
    hk_trainer_destroy(&t);
    hk_model_destroy(&m);
    hk_model_destroy(&again);
}

/* ---- mistakes */

static void refuse(hk_model *m, hk_value *x, hk_layer layer, const char *words)
{
    hk_value *y = NULL;
    hk_status st = hk_add(m, x, &layer, &y);
    print_message("  %s\n", hk_context_error(ctx));
    assert_int_equal(st, HK_STATUS_USAGE);
    assert_null(y);
    if (!strstr(hk_context_error(ctx), words))
        fail_msg("expected '%s' in: %s", words, hk_context_error(ctx));
}

static void mistakes(void **state)
{
    (void)state;
    hk_model *m = begin(0), *other = begin(0);
    hk_value *image = input(m, "image", HK_FLOAT32, 4, (int64_t[]){-1, 3, 8, 8}), *y = NULL;
    hk_value *open = input(m, "open", HK_FLOAT32, 4, (int64_t[]){-1, 3, -1, 8});
    hk_value *rows = input(m, "rows", HK_INT64, 2, (int64_t[]){-1, 4});
    hk_value *series = input(m, "series", HK_FLOAT32, 3, (int64_t[]){-1, 4, 6});
    hk_value *elsewhere = input(other, "x", HK_FLOAT32, 4, (int64_t[]){-1, 3, 8, 8});
    OK(hk_add(m, image, &(hk_layer){.kind = HK_LAYER_CONV2D, .name = "conv", .out = 4, .kernel = {3}}, &y));
    const hk_layer conv = {.kind = HK_LAYER_CONV2D, .out = 4, .kernel = {3}};
    y = NULL;
    refuse(m, series, conv, "3 dimensions, expected 4");
    refuse(m, rows, (hk_layer){.kind = HK_LAYER_LINEAR, .out = 3}, "int64, expected float32");
    refuse(m, image, (hk_layer){.kind = HK_LAYER_CONV2D, .kernel = {3}}, "out is 0");
    refuse(m, image, (hk_layer){.kind = HK_LAYER_CONV2D, .out = 4}, "kernel 0");
    refuse(m, image, (hk_layer){.kind = HK_LAYER_CONV2D, .in = 4, .out = 4, .kernel = {3}},
           "3 in dimension 1, expected 4");
    refuse(m, image, (hk_layer){.kind = HK_LAYER_CONV2D, .out = 4, .kernel = {3}, .groups = 2}, "divisor of 3 and 4");
    refuse(m, image, (hk_layer){.kind = HK_LAYER_CONV2D, .name = "conv", .out = 4, .kernel = {3}}, "name already");
    refuse(m, NULL, conv, "missing");
    refuse(m, elsewhere, conv, "another model");
    refuse(m, image, (hk_layer){.kind = HK_LAYER_MAX_POOL2D, .kernel = {2}, .padding = {2}}, "more than half");
    refuse(m, image, (hk_layer){.kind = HK_LAYER_ADAPTIVE_MAX_POOL2D, .size = {3}}, "does not divide evenly");
    refuse(m, open, (hk_layer){.kind = HK_LAYER_ADAPTIVE_AVG_POOL2D, .size = {3}}, "must be known");
    refuse(m, image, (hk_layer){.kind = HK_LAYER_ADAPTIVE_AVG_POOL2D}, "size is 0");
    refuse(m, image, (hk_layer){.kind = HK_LAYER_ADD}, "with is NULL");
    refuse(m, image, (hk_layer){.kind = HK_LAYER_ADD, .with = series}, "do not broadcast");
    refuse(m, image, (hk_layer){.kind = HK_LAYER_GROUP_NORM, .groups = 2}, "divisor of 3 channels");
    refuse(m, image, (hk_layer){.kind = HK_LAYER_DROPOUT, .p = 1}, "probability below 1");
    refuse(m, image, (hk_layer){.kind = HK_LAYER_SOFTMAX, .axis = 4}, "axis is 4");
    refuse(m, image, (hk_layer){.kind = HK_LAYER_LAYER_NORM, .axes = 5}, "axes is 5");
    refuse(m, rows, (hk_layer){.kind = HK_LAYER_EMBEDDING, .out = 4}, "in and out are 0 and 4");
    refuse(m, image, (hk_layer){.kind = HK_LAYER_EMBEDDING, .in = 4, .out = 4}, "expected int64 or int32");
    refuse(m, series, (hk_layer){.kind = HK_LAYER_ATTENTION, .heads = 4}, "divisor of 6 features");
    refuse(m, series, (hk_layer){.kind = HK_LAYER_LSTM}, "out is 0");
    refuse(m, image, (hk_layer){.kind = HK_LAYER_COUNT}, "does not exist");
    hk_session *s = NULL;
    assert_int_equal(hk_session_create(dev, m, NULL, &s), HK_STATUS_USAGE); /* no output yet */
    assert_non_null(strstr(hk_context_error(ctx), "no output"));
    assert_int_equal(hk_model_input(m, "rows", HK_FLOAT32, 1, (int64_t[]){1}, &y), HK_STATUS_USAGE);
    assert_int_equal(hk_model_output(m, elsewhere, NULL), HK_STATUS_USAGE);
    assert_int_equal(hk_model_output(m, image, "rows"), HK_STATUS_USAGE);
    OK(hk_add(m, image, &conv, &y)); /* what was refused left nothing behind */
    OK(hk_model_output(m, y, NULL));
    assert_int_equal(parameters(m), 2 * (4 * 27 + 4));
    OK(hk_session_create(dev, m, NULL, &s));
    refuse(m, image, conv, "session or trainer has been made");
    hk_session_destroy(&s);
    hk_model_destroy(&m);
    hk_model_destroy(&other);
}

static int setup(void **state)
{
    (void)state;
    size_t count = 0;
    const char *keep = getenv("HILLOCK_KEEP");
    snprintf(folder, sizeof folder, "%s", keep ? keep : "/tmp/hillock-building-XXXXXX");
    if (keep ? mkdir(folder, 0777) && access(folder, W_OK) : !mkdtemp(folder))
        return -1;
    if (hk_context_create(NULL, &ctx) != HK_OK || hk_device_list(ctx, NULL, 0, &count) != HK_OK)
        return -1;
    if (!count)
        exit(77);
    return hk_device_open(ctx, NULL, &dev) == HK_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    char command[300];
    hk_device_close(&dev);
    hk_context_destroy(&ctx);
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return getenv("HILLOCK_KEEP") ? 0 : system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_layer), cmocka_unit_test(adaptive_averages), cmocka_unit_test(conv1d_is_conv2d),
        cmocka_unit_test(branches),    cmocka_unit_test(first_weights),     cmocka_unit_test(exported),
        cmocka_unit_test(mistakes),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
