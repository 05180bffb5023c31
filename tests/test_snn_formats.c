/*
 * Spiking networks in forms that others read: standard ONNX equals hk.Neuron bit for bit, NIR's equations give the same
 * spikes; what is refused and how; and a saved network trains on as the one in memory.
 */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef HK_HAVE_HDF5
#include <hdf5.h>
#endif

#include "importer/import.h"
#include "ops/op.h"
#include "runtime/model.h"
#include "snn/convert.h"
#include "snn/export.h"
#include "tests/support/command.h"
#include "tests/support/nir_run.h"
#include "tests/support/spiking.h"

#define DIGITS HK_TEST_DATA "/digits"
enum { STEPS = 5, BATCH = 2, CHANNELS = 3, WIDTH = 4 };

/* ---- graphs */

/* Multiples of 1/8 in [-1, 1], or, real, anything there. */
static void fill(float *x, size_t n, uint32_t seed, bool real)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        double u = (double)(seed >> 8) / 8388608.0 - 1;
        x[i] = (float)(real ? u : floor(u * 8) / 8);
    }
}

static hk_value *filled(hk_graph *g, const char *name, int32_t rank, const int64_t *dims, uint32_t seed, bool real)
{
    float x[4096];
    size_t n = 1;
    for (int32_t d = 0; d < rank; d++)
        n *= (size_t)dims[d];
    assert_true(n <= HK_COUNT(x));
    fill(x, n, seed, real);
    hk_value *v = hk_snn_floats(g, name, x, rank, dims);
    assert_non_null(v);
    return v;
}

static void same_output(const hk_model *a, const hk_model *b, const char *name, const hk_tensor *x)
{
    hk_tensor y = run_once(a, name, x), z = run_once(b, name, x);
    hk_shape s = hk_tensor_shape(&y), t = hk_tensor_shape(&z);
    assert_true(hk_shape_equal(&s, &t));
    if (memcmp(y.data, z.data, (size_t)hk_tensor_bytes(&y)) != 0)
        fail_msg("output '%s' differs", name);
    hk_tensor_release(&y);
    hk_tensor_release(&z);
}

static void export(const hk_model *m, hk_snn_format format, const char *name)
{
    OK(hk_snn_export(m, &(hk_snn_export_params){.size = sizeof(hk_snn_export_params), .format = format},
                     in_folder(name)));
}

/* The same in standard operators, loaded again; nothing of ours is left in it. */
static hk_model *standard(const hk_model *m, hk_snn_format format)
{
    hk_model *made = NULL;
    export(m, format, "standard.onnx");
    OK(hk_model_load(ctx, in_folder("standard.onnx"), NULL, &made));
    const hk_graph *g = hk_model_graph(made);
    bool scans = false;
    for (size_t i = 0; i < g->node_count; i++) {
        assert_true(strncmp(g->nodes[i]->type, "hk.", 3) != 0);
        scans = scans || !strcmp(g->nodes[i]->type, "Scan");
    }
    assert_int_equal(scans, format == HK_SNN_FORMAT_ONNX_SCAN);
    return made;
}

/* ---- standard ONNX */

typedef struct cell {
    const char *kind, *reset;
    int decay;
    float v_reset;
    bool per_channel, v0;
    int64_t steps;
} cell;

static hk_value *neurons(hk_graph *g, const cell *c, hk_value *x)
{
    const hk_attr_value attrs[] = {HK_SET_INT("steps", c->steps),
                                   HK_SET_STRING("kind", c->kind),
                                   HK_SET_FLOAT("tau", 3),
                                   HK_SET_INT("decay_input", c->decay),
                                   HK_SET_STRING("reset", c->reset),
                                   HK_SET_FLOAT("v_reset", c->v_reset),
                                   HK_SET_FLOAT("v_threshold", 0.5f),
                                   {0}};
    const float theta[CHANNELS] = {0.25f, 0.5f, 0.375f}, w = -0.3f;
    hk_value *s = op(g, "hk.Neuron", "lif", attrs, x, NULL, NULL);
    hk_node *n = s->producer;
    n->in = hk_arena_array(g->arena, 4, sizeof *n->in);
    assert_non_null(n->in);
    n->in[0] = x;
    n->in_count = 4;
    n->in[1] = c->v0 ? filled(g, "v0", 3, (int64_t[]){BATCH, CHANNELS, WIDTH}, 3, true) : NULL;
    n->in[2] = !strcmp(c->kind, "ParametricLIF") ? hk_snn_floats(g, "w", &w, 0, NULL) : NULL;
    n->in[3] = c->per_channel ? hk_snn_floats(g, "theta", theta, 1, (int64_t[]){CHANNELS}) : NULL;
    assert_true(hk_node_want_outputs(n, 3));
    add_output(g, s, "s");
    add_output(g, n->out[1], "v");
    add_output(g, n->out[2], "v_seq");
    return s;
}

static void compare_cell(const cell *c, hk_snn_format format, const hk_tensor *x)
{
    hk_value *in = NULL;
    hk_graph *g = new_graph(&in, x->rank, x->shape);
    neurons(g, c, in);
    hk_model *m = loaded_model(g), *other = standard(m, format);
    same_output(m, other, "s", x);
    same_output(m, other, "v", x);
    same_output(m, other, "v_seq", x);
    hk_model_destroy(&other);
    hk_model_destroy(&m);
}

static void cells(void **state)
{
    (void)state;
    static const cell list[] = {
        {.kind = "IF", .reset = "soft", .per_channel = true, .v0 = true},
        {.kind = "IF", .reset = "hard", .v_reset = -0.25f},
        {.kind = "LIF", .reset = "soft", .decay = 1, .v0 = true},
        {.kind = "LIF", .reset = "hard", .decay = 1, .v_reset = 0.125f, .per_channel = true},
        {.kind = "LIF", .reset = "hard", .per_channel = true},
        {.kind = "ParametricLIF", .reset = "soft", .decay = 1},
        {.kind = "ParametricLIF", .reset = "hard", .v0 = true},
    };
    float data[STEPS * BATCH * CHANNELS * WIDTH];
    fill(data, HK_COUNT(data), 7, true);
    hk_tensor all = {.data = data, .dtype = HK_FLOAT32, .rank = 4, .shape = {STEPS, BATCH, CHANNELS, WIDTH}};
    hk_tensor one = {.data = data, .dtype = HK_FLOAT32, .rank = 3, .shape = {BATCH, CHANNELS, WIDTH}};
    for (size_t i = 0; i < HK_COUNT(list); i++) {
        cell c = list[i];
        compare_cell(&c, HK_SNN_FORMAT_ONNX, &one); /* a step alone needs no Scan */
        c.steps = STEPS;
        compare_cell(&c, HK_SNN_FORMAT_ONNX, &all);
        compare_cell(&c, HK_SNN_FORMAT_ONNX_SCAN, &all);
    }
}

/* Scalers around neurons, per channel and not, become Mul in both formats. */
static void scalers(void **state)
{
    (void)state;
    const float factors[CHANNELS] = {2, 0.5f, 4}, one = 0.25f;
    const cell c = {.kind = "IF", .reset = "hard", .steps = 0};
    float data[BATCH * CHANNELS * WIDTH];
    hk_value *in = NULL;
    hk_graph *g = new_graph(&in, 3, (int64_t[]){-1, CHANNELS, WIDTH});
    hk_value *by = hk_snn_floats(g, "by", factors, 1, (int64_t[]){CHANNELS});
    hk_value *x = op(g, "hk.VoltageScaler", "scale", NULL, in, by, NULL);
    neurons(g, &c, op(g, "hk.VoltageScaler", "halve", NULL, x, hk_snn_floats(g, "one", &one, 0, NULL), NULL));
    hk_model *m = loaded_model(g), *other = standard(m, HK_SNN_FORMAT_ONNX);
    fill(data, HK_COUNT(data), 9, true);
    const hk_tensor t = {.data = data, .dtype = HK_FLOAT32, .rank = 3, .shape = {BATCH, CHANNELS, WIDTH}};
    same_output(m, other, "s", &t);
    same_output(m, other, "v", &t);
    hk_model_destroy(&other);
    hk_model_destroy(&m);
}

/* Other readers refuse two nodes of one name. */
static void unique_names(const hk_graph *g)
{
    for (size_t i = 0; i < g->node_count; i++)
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(g->nodes[i]->name, g->nodes[k]->name);
}

/* ---- converted networks */

/* Calibrated on one batch. */
static hk_model *converted(hk_loader *l, bool hard, int64_t steps)
{
    hk_model *m = NULL, *snn = NULL;
    hk_batch b;
    OK(hk_loader_seek(l, 0, 0));
    OK(hk_loader_next(l, &b));
    const hk_snn_params p = {.size = sizeof p,
                             .inputs = b.inputs,
                             .input_count = b.input_count,
                             .hard_reset = hard,
                             .average_pool = true,
                             .steps = steps};
    OK(hk_model_load(ctx, DIGITS "/model.onnx", NULL, &m));
    OK(hk_snn_convert(dev, m, &p, &snn));
    hk_model_destroy(&m);
    return snn;
}

static void digits_in_standard_form(void **state)
{
    (void)state;
    hk_dataset *data = NULL;
    hk_loader *l = digits(&data, 16, 0, false);
    hk_model *snn = converted(l, false, 8);
    hk_batch b;
    size_t count = 0;
    OK(hk_loader_seek(l, 0, 0));
    OK(hk_loader_next(l, &b));
    const char *name = hk_model_outputs(snn, &count)[0].name;
    for (int i = 0; i < 2; i++) {
        hk_model *other = standard(snn, i ? HK_SNN_FORMAT_ONNX_SCAN : HK_SNN_FORMAT_ONNX);
        same_output(snn, other, name, &b.inputs[0]);
        unique_names(hk_model_graph(other));
        hk_model_destroy(&other);
    }
    hk_model_destroy(&snn);
    hk_loader_destroy(&l);
    hk_dataset_close(&data);
}

/* ---- NIR */

/* Convolution, pooling, residual sum, a scale, and a dense readout: everything but LIF. */
static hk_model *dyadic_network(void)
{
    hk_value *x = NULL;
    hk_graph *g = new_graph(&x, 4, (int64_t[]){-1, 2, 6, 6});
    const hk_attr_value pads[] = {HK_SET_INTS("pads", ((const int64_t[]){1, 1, 1, 1}), 4), {0}};
    const hk_attr_value groups[] = {
        HK_SET_INTS("pads", ((const int64_t[]){1, 1, 1, 1}), 4), HK_SET_INT("group", 2), {0}};
    const hk_attr_value two[] = {HK_SET_INTS("kernel_shape", ((const int64_t[]){2, 2}), 2),
                                 HK_SET_INTS("strides", ((const int64_t[]){2, 2}), 2),
                                 {0}};
    const hk_attr_value turned[] = {HK_SET_INT("transB", 1), {0}};
    hk_value *a = op(g, "Conv", "/a/Conv", pads, x, filled(g, "wa", 4, (int64_t[]){4, 2, 3, 3}, 11, false),
                     filled(g, "ba", 1, (int64_t[]){4}, 12, false));
    a = op(g, "Relu", "/a/Relu", NULL, a, NULL, NULL);
    hk_value *b = op(g, "Conv", "b", groups, a, filled(g, "wb", 4, (int64_t[]){4, 2, 3, 3}, 13, false), NULL);
    b = op(g, "Relu", "rb", NULL, b, NULL, NULL);
    hk_value *c = op(g, "Add", "sum", NULL, a, b, NULL);
    c = op(g, "AveragePool", "pool", two, c, NULL, NULL);
    c = op(g, "Flatten", "flat", NULL, c, NULL, NULL);
    c = op(g, "Gemm", "dense", turned, c, filled(g, "wc", 2, (int64_t[]){5, 36}, 14, false),
           filled(g, "bc", 1, (int64_t[]){5}, 15, false));
    c = op(g, "Relu", "rc", NULL, c, NULL, NULL);
    c = op(g, "MatMul", "last", NULL, c, filled(g, "wd", 2, (int64_t[]){5, 3}, 16, false), NULL);
    add_output(g, op(g, "Add", "bias", NULL, c, filled(g, "bd", 1, (int64_t[]){3}, 17, false), NULL), "y");
    return loaded_model(g);
}

static void build_nir(const hk_model *m, bool approximate, hk_graph **g, hk_nir *n)
{
    OK(hk_graph_clone(hk_model_graph(m), g));
    OK(hk_snn_standard_scalers(*g)); /* as an export does */
    OK(hk_nir_build(*g, &(hk_nir_params){.dt = 1e-4, .approximate = approximate}, n));
}

/* Outputs and spikes of the network and of NIR's equations; returns the worst difference of an output. */
static double compare_nir(const hk_model *snn, const hk_nir *n, const hk_tensor *x, double *ours, double *theirs)
{
    hk_snn_info info;
    double in[4096], out[1024], worst = 0;
    size_t count = 0;
    hk_snn_get_info(snn, &info);
    hk_tensor y = run_once(snn, hk_model_outputs(snn, &count)[0].name, x);
    int64_t samples = x->shape[0], width = hk_tensor_count(x) / samples, wide = hk_tensor_count(&y) / samples;
    *theirs = 0;
    for (int64_t i = 0; i < samples; i++) {
        for (int64_t k = 0; k < width; k++)
            in[k] = hk_get_double(x, i * width + k);
        *theirs += nir_run(n, in, 0, info.steps, out);
        for (int64_t k = 0; k < wide; k++) {
            double mean = 0;
            for (int64_t t = 0; t < info.steps; t++)
                mean += out[t * wide + k] / (double)info.steps;
            worst = fmax(worst, fabs(mean - hk_get_double(&y, i * wide + k)));
        }
    }
    hk_tensor_release(&y);
    *ours = spikes_in(snn, x, NULL);
    return worst;
}

static const hk_nir_node *node_of(const hk_nir *n, const char *name, const char *type)
{
    for (size_t i = 0; i < n->node_count; i++)
        if (!strcmp(n->nodes[i]->name, name)) {
            assert_string_equal(n->nodes[i]->type, type);
            return n->nodes[i];
        }
    fail_msg("NIR has no node '%s'", name);
    return NULL;
}

/* With dyadic numbers every sum is exact and ties are common: what fires here fires there, though NIR fires above its
 * threshold and 1/dt is no dyadic number. */
static void nir_of_dyadic_network(void **state)
{
    (void)state;
    float data[8 * 72];
    double ours = 0, theirs = 0;
    hk_tensor x = {.data = data, .dtype = HK_FLOAT32, .rank = 4, .shape = {8, 2, 6, 6}};
    hk_graph *g = NULL;
    hk_nir n;
    for (int form = 0; form < 3; form++) { /* IF; IF between scalers; LIF */
        hk_model *m = dyadic_network(), *snn = NULL;
        const hk_snn_params p = {.size = sizeof p,
                                 .inputs = &x,
                                 .input_count = 1,
                                 .steps = 8,
                                 .mode = HK_SNN_MODE_SCALE,
                                 .level = 0.5,
                                 .hard_reset = true,
                                 .scalers = form == 1,
                                 .tau = form == 2 ? 2 : 0,
                                 .no_bias_calibration = true};
        fill(data, HK_COUNT(data), 21, false);
        OK(hk_snn_convert(dev, m, &p, &snn));
        build_nir(snn, false, &g, &n);
        double worst = compare_nir(snn, &n, &x, &ours, &theirs);
        print_message("form %d: %g spikes, by NIR's equations %g, outputs differ by %.2g\n", form, ours, theirs, worst);
        assert_true(ours > 100 && fabs(ours - theirs) < 0.5 && worst < 1e-5);
        node_of(&n, "a_Conv", "Conv2d");
        node_of(&n, "a_Relu", form == 2 ? "LIF" : "IF");
        node_of(&n, "flat", "Flatten");
        hk_graph_destroy(&g);
        hk_model_destroy(&snn);
        hk_model_destroy(&m);
    }
}

/* A network with time in its input, a learned leak, and potentials that are read in the last step. */
static void nir_of_native_network(void **state)
{
    (void)state;
    enum { N = 3, IN = 6, OUT = 4, HIDDEN = 8, TIME = 8 };
    const hk_attr_value plif[] = {HK_SET_INT("steps", TIME), HK_SET_STRING("kind", "ParametricLIF"), {0}};
    const hk_attr_value last[] = {HK_SET_INT("steps", TIME),
                                  HK_SET_STRING("kind", "LIF"),
                                  HK_SET_FLOAT("tau", 4),
                                  HK_SET_FLOAT("v_threshold", FLT_MAX),
                                  {0}};
    const float w = 0.4f;
    float data[TIME * N * IN];
    double in[TIME * IN], out[TIME * OUT];
    hk_value *x = NULL;
    hk_graph *g = new_graph(&x, 3, (int64_t[]){TIME, -1, IN}), *copy = NULL;
    hk_nir n;
    hk_value *y = op(g, "MatMul", "one", NULL, x, filled(g, "a", 2, (int64_t[]){IN, HIDDEN}, 31, true), NULL);
    y = op(g, "Add", "bias", NULL, y, filled(g, "c", 1, (int64_t[]){HIDDEN}, 33, true), NULL);
    y = op(g, "hk.Neuron", "plif", plif, y, NULL, NULL);
    hk_node *neuron = y->producer;
    neuron->in = hk_arena_array(g->arena, 3, sizeof *neuron->in);
    assert_non_null(neuron->in);
    neuron->in[0] = g->nodes[1]->out[0];
    neuron->in[2] = hk_snn_floats(g, "w", &w, 0, NULL);
    neuron->in_count = 3;
    y = op(g, "MatMul", "two", NULL, y, filled(g, "b", 2, (int64_t[]){HIDDEN, OUT}, 32, true), NULL);
    y = op(g, "hk.Neuron", "read", last, y, NULL, NULL);
    assert_true(hk_node_want_outputs(y->producer, 2));
    add_output(g, y->producer->out[1], "y");
    hk_model *m = loaded_model(g);
    fill(data, HK_COUNT(data), 34, true);
    const hk_tensor t = {.data = data, .dtype = HK_FLOAT32, .rank = 3, .shape = {TIME, N, IN}};
    hk_tensor ours = run_once(m, "y", &t);
    build_nir(m, false, &copy, &n);
    node_of(&n, "plif", "LIF");
    node_of(&n, "read", "LI");
    double spikes = 0, worst = 0;
    for (int64_t i = 0; i < N; i++) {
        for (int64_t k = 0; k < TIME * IN; k++)
            in[k] = (double)data[(k / IN * N + i) * IN + k % IN];
        spikes += nir_run(&n, in, IN, TIME, out);
        for (int64_t k = 0; k < OUT; k++)
            worst = fmax(worst, fabs(out[(TIME - 1) * OUT + k] - hk_get_double(&ours, i * OUT + k)));
    }
    print_message("native: %g spikes, potentials differ by %.2g\n", spikes, worst);
    assert_true(spikes > 20 && worst < 1e-5);
    hk_tensor_release(&ours);
    hk_graph_destroy(&copy);
    for (int i = 0; i < 2; i++) {
        hk_model *other = standard(m, i ? HK_SNN_FORMAT_ONNX_SCAN : HK_SNN_FORMAT_ONNX);
        same_output(m, other, "y", &t);
        hk_model_destroy(&other);
    }
    hk_model_destroy(&m);
}

static void nir_of_digits(void **state)
{
    (void)state;
    hk_dataset *data = NULL;
    hk_loader *l = digits(&data, 16, 0, false);
    hk_model *snn = converted(l, true, 8);
    hk_graph *g = NULL;
    hk_nir n;
    hk_batch b;
    double ours = 0, theirs = 0;
    OK(hk_loader_seek(l, 0, 0));
    OK(hk_loader_next(l, &b));
    build_nir(snn, false, &g, &n);
    double worst = compare_nir(snn, &n, &b.inputs[0], &ours, &theirs);
    print_message("digits: %g spikes, by NIR's equations %g, outputs differ by %.2g\n", ours, theirs, worst);
    assert_true(ours > 1000 && fabs(ours - theirs) <= 1e-4 * ours);
    hk_graph_destroy(&g);
    hk_model_destroy(&snn);
    hk_loader_destroy(&l);
    hk_dataset_close(&data);
}

#ifdef HK_HAVE_HDF5
static void has_text(hid_t f, const char *path, const char *want)
{
    char *text = NULL;
    hid_t set = H5Dopen2(f, path, H5P_DEFAULT), type = H5Dget_type(set);
    assert_true(set >= 0 && H5Tis_variable_str(type) > 0 && H5Tget_cset(type) == H5T_CSET_UTF8);
    assert_true(H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, &text) >= 0);
    assert_string_equal(text, want);
    H5free_memory(text);
    H5Tclose(type);
    H5Dclose(set);
}

/* The size of an array, and its first element. */
static double first_of(hid_t f, const char *path, int rank, const hsize_t *dims)
{
    double x[4096];
    hsize_t found[HK_MAX_RANK];
    hid_t set = H5Dopen2(f, path, H5P_DEFAULT), space = H5Dget_space(set);
    assert_true(set >= 0 && H5Sget_simple_extent_npoints(space) <= (hssize_t)HK_COUNT(x));
    assert_int_equal(H5Sget_simple_extent_ndims(space), rank);
    H5Sget_simple_extent_dims(space, found, NULL);
    for (int d = 0; d < rank; d++)
        assert_int_equal(found[d], dims[d]);
    assert_true(H5Dread(set, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, x) >= 0);
    H5Sclose(space);
    H5Dclose(set);
    return x[0];
}

static void nir_file(void **state)
{
    (void)state;
    float data[72];
    hk_model *m = dyadic_network(), *snn = NULL;
    hk_tensor x = {.data = data, .dtype = HK_FLOAT32, .rank = 4, .shape = {1, 2, 6, 6}};
    const hk_snn_params p = {
        .size = sizeof p, .inputs = &x, .input_count = 1, .hard_reset = true, .no_bias_calibration = true};
    const hk_snn_export_params e = {.size = sizeof e, .format = HK_SNN_FORMAT_NIR, .dt = 0.5};
    fill(data, HK_COUNT(data), 21, false);
    OK(hk_snn_convert(dev, m, &p, &snn));
    OK(hk_snn_export(snn, &e, in_folder("file.nir")));
    hid_t f = H5Fopen(in_folder("file.nir"), H5F_ACC_RDONLY, H5P_DEFAULT);
    assert_true(f >= 0);
    has_text(f, "version", "1.0.8");
    has_text(f, "node/type", "NIRGraph");
    has_text(f, "node/metadata/reset", "hard");
    has_text(f, "node/metadata/readout", "mean");
    has_text(f, "node/nodes/a_Relu/type", "IF");
    assert_true(fabs(first_of(f, "node/metadata/dt", 0, NULL) - 0.5) <= 0);
    assert_true(fabs(first_of(f, "node/nodes/a_Relu/r", 3, (const hsize_t[]){4, 6, 6}) - 1) <= 0);
    assert_true(first_of(f, "node/nodes/a_Relu/v_threshold", 3, (const hsize_t[]){4, 6, 6}) > 0);
    assert_true(fabs(first_of(f, "node/nodes/a_Conv/padding", 1, (const hsize_t[]){2}) - 1) <= 0);
    first_of(f, "node/nodes/b/weight", 4, (const hsize_t[]){4, 4, 3, 3}); /* groups are spread */
    hid_t edges = H5Dopen2(f, "node/edges", H5P_DEFAULT);
    assert_true(edges >= 0);
    H5Dclose(edges);
    H5Fclose(f);
    refused(hk_snn_export(snn, &e, "/nowhere/file.nir"), HK_STATUS_CANNOT_CREATE, "/nowhere");
    hk_model_destroy(&snn);
    hk_model_destroy(&m);
}
#endif

/* NIR's own example (paper/01_lif, lif_norse): tau 2.5 ms, dt 0.1 ms, threshold 0.1, 1,000 steps. */
static void nir_golden_trace(void **state)
{
    (void)state;
    static const int single[] = {60, 220, 270, 310, 320, 350, 370, 400, 410, 840, 850}, golden[] = {460, 510, 710, 760};
    float x[1000] = {0}, v = 0, s = 0;
    size_t fired = 0;
    double sum = 0;
    for (size_t i = 0; i < HK_COUNT(single); i++)
        x[single[i]] = 1;
    for (int t = 430; t <= 780; t += 10)
        x[t] = t <= 530 || t >= 670;
    const hk_neuron_params p = {.size = sizeof p, .tau = 25, .decay_input = true, .v_threshold = 0.1f};
    for (int t = 0; t < 1000; t++) {
        OK(hk_lif_step(ctx, &p, 1, &x[t], &v, &s));
        sum += (double)v;
        if (s > 0)
            assert_true(fired < HK_COUNT(golden) && golden[fired++] == t);
    }
    assert_int_equal(fired, HK_COUNT(golden));
    assert_true(fabs(sum - 23.547) < 5e-4);
}

/* ---- what is refused */

static void wants_nir(const hk_model *m, hk_status expected, const char *text)
{
    const hk_snn_export_params p = {.size = sizeof p, .format = HK_SNN_FORMAT_NIR};
    refused(hk_snn_export(m, &p, in_folder("refused.nir")), expected, text);
    assert_int_not_equal(access(in_folder("refused.nir"), F_OK), 0);
}

/* Neurons that a loop of steps holds. */
static void refuse_loops(void)
{
    hk_value *in = NULL;
    hk_graph *g = new_graph(&in, 3, (int64_t[]){STEPS, -1, WIDTH}), *body = hk_graph_body(g, "step");
    const hk_attr_value attrs[] = {
        {.name = "body", .kind = HK_ATTR_GRAPH, .graph = body}, HK_SET_INT("num_scan_inputs", 1), {0}};
    assert_non_null(body);
    hk_value *x = hk_graph_value(body, "step.x", HK_VALUE_INPUT, HK_FLOAT32, NULL);
    assert_true(x && hk_graph_add_input(body, x));
    assert_true(hk_graph_add_output(body, op(body, "hk.Neuron", "inner", NULL, x, NULL, NULL)));
    hk_value *y = op(g, "Scan", "loop", attrs, in, NULL, NULL);
    hk_node *n = y->producer;
    n->bodies = hk_arena_array(g->arena, 1, sizeof(hk_graph *));
    assert_non_null(n->bodies);
    n->bodies[n->body_count++] = body;
    add_output(g, y, "y");
    hk_model *m = loaded_model(g);
    refused(hk_snn_export(m, NULL, in_folder("refused.onnx")), HK_STATUS_UNSUPPORTED, "step mode m");
    wants_nir(m, HK_STATUS_UNSUPPORTED, "step mode m");
    hk_model_destroy(&m);
}

static void refusals(void **state)
{
    (void)state;
    refuse_loops();
    hk_dataset *data = NULL;
    hk_loader *l = digits(&data, 16, 0, false);
    hk_model *plain = NULL, *soft = converted(l, false, 4), *pooled = NULL, *many = NULL;
    hk_graph *g = NULL;
    hk_nir n;
    OK(hk_model_load(ctx, DIGITS "/model.onnx", NULL, &plain));
    wants_nir(plain, HK_STATUS_USAGE, "no spiking neurons");
    wants_nir(soft, HK_STATUS_UNSUPPORTED, "--reset hard");
    build_nir(soft, true, &g, &n);
    node_of(&n, "output", "Output");
    hk_graph_destroy(&g);
    hk_batch b;
    OK(hk_loader_seek(l, 0, 0));
    OK(hk_loader_next(l, &b));
    const hk_snn_params p = {.size = sizeof p, .inputs = b.inputs, .input_count = 1, .hard_reset = true, .steps = 4};
    OK(hk_snn_convert(dev, plain, &p, &pooled));
    wants_nir(pooled, HK_STATUS_UNSUPPORTED, "--pool avg");
    OK(hk_snn_with_steps(soft, 2000, false, &many));
    refused(hk_snn_export(many, NULL, in_folder("refused.onnx")), HK_STATUS_UNSUPPORTED, "1024 steps");
    refused(hk_snn_export(soft, &(hk_snn_export_params){.size = sizeof(hk_snn_export_params), .dt = -1},
                          in_folder("refused.onnx")),
            HK_STATUS_USAGE, "dt is -1");
    assert_int_not_equal(access(in_folder("refused.onnx"), F_OK), 0);
    hk_model_destroy(&many);
    hk_model_destroy(&pooled);
    hk_model_destroy(&soft);
    hk_model_destroy(&plain);
    hk_loader_destroy(&l);
    hk_dataset_close(&data);
}

static void command(void **state)
{
    (void)state;
#define DATA " --scale 0.0625 --val 0.2 "
    expect("convert " DIGITS "/model.onnx --calibrate " DIGITS DATA "--reset hard --pool avg --steps 8 --out hard.onnx",
           0, "8 steps");
    expect("eval hard.onnx --data " DIGITS DATA, 0, "accuracy");
    expect("convert hard.onnx --export onnx-scan --out scan.onnx", 0, "Scan");
    expect("convert hard.onnx --export onnx --out plain.onnx --json", 0, "\"written\":true");
    expect("eval scan.onnx --data " DIGITS DATA, 0, "accuracy");
    expect("convert hard.onnx --export lava --out x", 64, "onnx, onnx-scan or nir");
    expect("convert hard.onnx --export onnx", 64, "--out");
#ifdef HK_HAVE_HDF5
    expect("convert hard.onnx --export nir --out hard.nir", 0, "exact");
    expect("--version", 0, "writes NIR");
    assert_int_equal(access(in_folder("hard.nir"), F_OK), 0);
#else
    expect("convert hard.onnx --export nir --out hard.nir", 65, "libhdf5-dev");
    expect("--version", 0, "no NIR");
    assert_int_not_equal(access(in_folder("hard.nir"), F_OK), 0);
#endif
}

/* ---- the way back: saved, loaded and trained again is the same */

static void train(hk_model *m, hk_loader *l, const char *path)
{
    hk_trainer *t = NULL;
    hk_batch b;
    float loss = 0;
    const hk_trainer_params p = {.size = sizeof p, .lr = 1e-3f};
    OK(hk_trainer_create(dev, m, &p, &t));
    OK(hk_loader_seek(l, 0, 0));
    for (int i = 0; i < 3; i++) {
        OK(hk_loader_next(l, &b));
        OK(hk_trainer_step(t, b.inputs, 1, b.target, &loss));
    }
    OK(hk_trainer_export(t, path));
    hk_trainer_destroy(&t);
}

static void same_file(const char *a, const char *b)
{
    char command[700], first[300];
    snprintf(first, sizeof first, "%s", in_folder(a));
    snprintf(command, sizeof command, "cmp '%s' '%s'", first, in_folder(b));
    assert_int_equal(system(command), 0);
}

static void trains_again(void **state)
{
    (void)state;
    hk_dataset *data = NULL;
    hk_loader *l = digits(&data, 16, 0, false);
    hk_model *snn = converted(l, false, 2), *loaded = NULL;
    OK(hk_model_save(snn, in_folder("saved.onnx")));
    OK(hk_model_load(ctx, in_folder("saved.onnx"), NULL, &loaded));
    train(snn, l, in_folder("trained-1.onnx"));
    train(loaded, l, in_folder("trained-2.onnx"));
    same_file("trained-1.onnx", "trained-2.onnx");
    hk_model_destroy(&loaded);
    OK(hk_model_load(ctx, in_folder("trained-1.onnx"), NULL, &loaded)); /* and once more */
    train(loaded, l, in_folder("trained-3.onnx"));
    hk_model_destroy(&loaded);
    hk_model_destroy(&snn);
    hk_loader_destroy(&l);
    hk_dataset_close(&data);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cells),
        cmocka_unit_test(scalers),
        cmocka_unit_test(digits_in_standard_form),
        cmocka_unit_test(nir_of_dyadic_network),
        cmocka_unit_test(nir_of_native_network),
        cmocka_unit_test(nir_of_digits),
#ifdef HK_HAVE_HDF5
        cmocka_unit_test(nir_file),
#endif
        cmocka_unit_test(nir_golden_trace),
        cmocka_unit_test(refusals),
        cmocka_unit_test(trains_again),
        cmocka_unit_test(command),
    };
    const test_program program = {.name = "snn_formats", TESTS(tests), .setup = make_folder, .teardown = remove_folder};
    return test_main(argc, argv, &program);
}
