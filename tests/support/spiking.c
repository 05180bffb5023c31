/* Small networks for tests of spiking, and how they are run. */
#include "tests/support/spiking.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "importer/import.h"
#include "snn/convert.h"

hk_graph *new_graph(hk_value **x, int32_t rank, const int64_t *dims)
{
    hk_graph *g = NULL;
    hk_shape shape = {.rank = rank};
    memcpy(shape.dim, dims, (size_t)rank * sizeof *dims);
    OK(hk_graph_create(ctx, "g", &g));
    *x = hk_graph_value(g, "x", HK_VALUE_INPUT, HK_FLOAT32, &shape);
    assert_true(*x && hk_graph_add_input(g, *x));
    return g;
}

hk_value *op(hk_graph *g, const char *type, const char *name, const hk_attr_value *attrs, hk_value *a, hk_value *b,
             hk_value *c)
{
    hk_value *in[] = {a, b, c}, *out = NULL;
    OK(hk_snn_node_make(g, OPSET, type, name, attrs, in, c ? 3 : b ? 2 : 1, &out));
    return out;
}

hk_value *floats(hk_graph *g, const char *name, const float *x, int32_t rank, const int64_t *dims)
{
    hk_value *v = hk_snn_floats(g, name, x, rank, dims);
    assert_non_null(v);
    return v;
}

void fill_random(float *x, size_t n, uint32_t seed, double scale)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(((double)(seed >> 8) / 8388608.0 - 1) * scale);
    }
}

hk_value *random_weights(hk_graph *g, const char *name, int32_t rank, const int64_t *dims, uint32_t seed, double scale)
{
    int64_t n = 1;
    for (int32_t d = 0; d < rank; d++)
        n *= dims[d];
    float *x = malloc((size_t)n * sizeof *x);
    assert_non_null(x);
    fill_random(x, (size_t)n, seed, scale);
    hk_value *v = floats(g, name, x, rank, dims);
    free(x);
    return v;
}

void add_output(hk_graph *g, hk_value *y, const char *name)
{
    y->name = name;
    y->dtype = HK_FLOAT32;
    assert_true(hk_graph_add_output(g, y));
}

hk_model *loaded_model(hk_graph *g)
{
    hk_model *m = NULL;
    void *data = NULL;
    size_t bytes = 0;
    OK(hk_export_memory(g, NULL, &data, &bytes));
    OK(hk_model_load_memory(ctx, data, bytes, NULL, &m));
    hk_free(ctx, data);
    hk_graph_destroy(&g);
    return m;
}

hk_model *model_of(hk_graph *g, hk_value *y)
{
    add_output(g, y, "y");
    return loaded_model(g);
}

hk_tensor tensor_of(float *x, int32_t rank, const int64_t *dims)
{
    hk_tensor t = {.data = x, .dtype = HK_FLOAT32, .rank = rank};
    memcpy(t.shape, dims, (size_t)rank * sizeof *dims);
    return t;
}

hk_tensor run_once(const hk_model *m, const char *name, const hk_tensor *x)
{
    hk_session *s = NULL;
    hk_tensor y = {0};
    size_t count = 0;
    OK(hk_session_create(dev, m, NULL, &s));
    OK(hk_session_write(s, hk_model_inputs(m, &count)[0].name, x));
    OK(hk_session_run(s));
    OK(hk_session_read(s, name, &y));
    hk_session_destroy(&s);
    return y;
}

double spikes_in(const hk_model *snn, const hk_tensor *x, size_t *probes)
{
    hk_model *watched = NULL;
    hk_snn_info info;
    size_t count = 0;
    double sum = 0;
    hk_snn_get_info(snn, &info);
    OK(hk_snn_with_steps(snn, info.steps, HK_SNN_MONITOR_COUNTS, &watched));
    const hk_snn_probe *p = hk_snn_probes(watched, &count);
    for (size_t i = 0; i < count; i++) {
        if (p[i].neurons <= 0)
            continue;
        hk_tensor y = run_once(watched, p[i].output, x);
        for (int64_t k = 0; k < hk_tensor_count(&y); k++)
            sum += hk_get_double(&y, k);
        hk_tensor_release(&y);
    }
    hk_model_destroy(&watched);
    if (probes)
        *probes = count;
    return sum;
}

hk_loader *digits(hk_dataset **data, size_t batch, double holdout, bool held_out)
{
    hk_loader *l = NULL;
    OK(hk_dataset_open(
        ctx, HK_TEST_DATA "/digits",
        &(hk_dataset_params){.size = sizeof(hk_dataset_params), .rank = 3, .shape = {1, 8, 8}, .scale = 0.0625f},
        data));
    OK(hk_loader_create(
        *data,
        &(hk_loader_params){
            .size = sizeof(hk_loader_params), .batch = batch, .holdout = holdout, .held_out = held_out, .threads = 1},
        &l));
    return l;
}

hk_snn_params params_of(const hk_tensor *x, int64_t steps, hk_snn_mode mode)
{
    return (hk_snn_params){.size = sizeof(hk_snn_params), .inputs = x, .input_count = 1, .steps = steps, .mode = mode};
}

void equal_tensors(hk_tensor *a, hk_tensor *b)
{
    hk_shape x = hk_tensor_shape(a), y = hk_tensor_shape(b);
    assert_true(hk_shape_equal(&x, &y));
    assert_memory_equal(a->data, b->data, (size_t)hk_tensor_bytes(a));
    hk_tensor_release(a);
    hk_tensor_release(b);
}

double relative_error(hk_tensor *a, hk_tensor *b)
{
    double error = 0, norm = 0;
    assert_int_equal(hk_tensor_count(a), hk_tensor_count(b));
    for (int64_t i = 0; i < hk_tensor_count(a); i++) {
        double d = hk_get_double(a, i) - hk_get_double(b, i);
        error += d * d;
        norm += hk_get_double(b, i) * hk_get_double(b, i);
    }
    hk_tensor_release(a);
    hk_tensor_release(b);
    return sqrt(error / norm);
}

hk_value *conv(hk_graph *g, const char *name, hk_value *x, int64_t in, int64_t out, uint32_t seed)
{
    static const int64_t ones[] = {1, 1, 1, 1};
    const hk_attr_value attrs[] = {HK_SET_INTS("pads", ones, 4), {0}};
    char w[40], b[40];
    snprintf(w, sizeof w, "%s.w", name);
    snprintf(b, sizeof b, "%s.b", name);
    return op(g, "Conv", name, attrs, x, random_weights(g, w, 4, (int64_t[]){out, in, 3, 3}, seed, 0.35),
              random_weights(g, b, 1, &out, seed + 1, 0.2));
}

hk_model *residual_network(const char *middle, bool pool)
{
    static const int64_t two[] = {2, 2};
    const hk_attr_value window[] = {HK_SET_INTS("kernel_shape", two, 2), HK_SET_INTS("strides", two, 2), {0}};
    hk_value *x = NULL;
    hk_graph *g = new_graph(&x, 4, (int64_t[]){-1, 3, 6, 6});
    hk_value *h = op(g, "Relu", "relu1", NULL, conv(g, "c1", x, 3, 6, 11), NULL, NULL), *skip = h;
    h = op(g, middle, "middle", NULL, conv(g, "c2", h, 6, 6, 21), NULL, NULL);
    h = op(g, "Add", "join", NULL, conv(g, "c3", h, 6, 6, 31), skip, NULL);
    h = op(g, "Add", "side", NULL, h, conv(g, "c4", x, 3, 6, 41), NULL); /* from before the first neurons */
    h = op(g, "Relu", "relu3", NULL, h, NULL, NULL);
    if (pool)
        h = op(g, "MaxPool", "pool", window, h, NULL, NULL);
    h = op(g, "GlobalAveragePool", "mean", NULL, h, NULL, NULL);
    h = op(g, "Flatten", "flat", NULL, h, NULL, NULL);
    h = op(g, "MatMul", "head", NULL, h, random_weights(g, "head.w", 2, (int64_t[]){6, 5}, 51, 1), NULL);
    return model_of(g, op(g, "Softmax", "classes", NULL, h, NULL, NULL));
}
