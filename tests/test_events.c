/*
 * Events as frames: three formats and two ways to bin against SpikingJelly, time that overflows, frames of a given
 * time, what is corrupt, and a spiking network trained on them with the command.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "importer/import.h"
#include "ops/op.h"
#include "snn/convert.h"
#include "tests/support/command.h"
#include "tests/support/program.h"
#include "train/dataset.h"

#define EVENTS HK_TEST_DATA "/events/"
enum { T = 4, H = 7, W = 8, FRAMES = T * 2 * H * W };

static hk_dataset_params params_of(hk_event_bins bins, double frame_time)
{
    return (hk_dataset_params){.size = sizeof(hk_dataset_params),
                               .rank = 4,
                               .shape = {T, 2, H, W},
                               .event_bins = bins,
                               .frame_time = frame_time};
}

static const float *frames(hk_dataset *d, size_t i)
{
    static float x[FRAMES];
    char error[256];
    if (!hk_dataset_sample(d, &d->fields[0], i, x, error))
        fail_msg("sample %zu: %s", i, error);
    return x;
}

/* ---- SpikingJelly's frames of the same events (tools/fixtures/snn_formats.py) */

static void equal_frames(const float *x, const char *split, size_t i)
{
    char path[600];
    hk_tensor want = {0};
    snprintf(path, sizeof path, EVENTS "%s-%zu.npy", split, i);
    OK(hk_tensor_load(ctx, path, &want));
    const uint8_t *counts = want.data;
    assert_true(want.rank == 4 && want.shape[0] == T && want.shape[3] == W && want.dtype == HK_UINT8);
    for (size_t k = 0; k < FRAMES; k++)
        if ((int)x[k] != counts[k])
            fail_msg("%s: element %zu is %g, expected %d", path, k, (double)x[k], counts[k]);
    hk_tensor_release(&want);
}

static void formats(void **state)
{
    (void)state;
    static const char *const kinds[] = {"bin", "columns", "records"}, *const splits[] = {"number", "time"};
    for (size_t k = 0; k < HK_COUNT(kinds); k++)
        for (int by_time = 0; by_time < 2; by_time++) {
            char path[600];
            hk_dataset *d = NULL;
            hk_dataset_info info;
            hk_dataset_params p = params_of(by_time ? HK_EVENT_BINS_TIME : HK_EVENT_BINS_DEFAULT, 0);
            snprintf(path, sizeof path, EVENTS "%s", kinds[k]);
            OK(hk_dataset_open(ctx, path, &p, &d));
            hk_dataset_get_info(d, &info);
            assert_string_equal(info.format, "events");
            assert_true(info.count == 2 && info.classes == 2 && info.input[0].rank == 4);
            for (size_t i = 0; i < 2; i++)
                equal_frames(frames(d, i), splits[by_time], i);
            hk_dataset_close(&d);
        }
}

/* ---- files made here */

static const char *class_folder(const char *set)
{
    static char path[300];
    snprintf(path, sizeof path, "%s/%s", folder, set);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/%s/a", folder, set);
    mkdir(path, 0700);
    return path;
}

/* The only sample of a set, and that set. */
static hk_dataset *set_of(const char *set, const char *name, const void *data, size_t bytes, const hk_dataset_params *p)
{
    char path[400];
    hk_dataset *d = NULL;
    snprintf(path, sizeof path, "%s/%s", class_folder(set), name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, bytes, f), bytes);
    fclose(f);
    snprintf(path, sizeof path, "%s/%s", folder, set);
    OK(hk_dataset_open(ctx, path, p, &d));
    return d;
}

static void put_atis(uint8_t *at, int t, int x, int y, int p)
{
    const uint8_t event[] = {(uint8_t)x, (uint8_t)y, (uint8_t)(p << 7 | t >> 16), (uint8_t)(t >> 8), (uint8_t)t};
    memcpy(at, event, sizeof event);
}

static double total(const float *x, int frame)
{
    double sum = 0;
    for (int k = 0; k < 2 * H * W; k++)
        sum += (double)x[frame * 2 * H * W + k];
    return sum;
}

/* An event at y = 240 says that 8,192 microseconds have been lost. */
static void time_overflows(void **state)
{
    (void)state;
    uint8_t data[5 * 4];
    put_atis(data, 100, 1, 2, 1);
    put_atis(data + 5, 0, 0, 240, 0);
    put_atis(data + 10, 50, 3, 4, 0);
    put_atis(data + 15, 8192 * 3, 5, 6, 1);
    hk_dataset_params p = params_of(HK_EVENT_BINS_TIME, 8192);
    hk_dataset *d = set_of("overflow", "x.bin", data, sizeof data, &p);
    const float *x = frames(d, 0);
    assert_true(x[(1 * H + 2) * W + 1] > 0);           /* 0 us: frame 0, on */
    assert_true(total(x, 0) > 1 && total(x, 0) < 3);   /* 8,142 us after the first, still in frame 0 */
    assert_true(x[4 * W + 3] > 0);                     /* off */
    assert_true(x[((3 * 2 + 1) * H + 6) * W + 5] > 0); /* 32,668 us: the last frame */
    assert_true(total(x, 1) <= 0 && total(x, 2) <= 0);
    hk_dataset_close(&d);
    p.frame_time = 1000; /* four frames are over before the last event */
    d = set_of("short", "x.bin", data, sizeof data, &p);
    x = frames(d, 0);
    assert_true(total(x, 0) + total(x, 1) + total(x, 2) + total(x, 3) < 1.5);
    hk_dataset_close(&d);
}

/* ---- what is corrupt */

static void corrupt(const char *name, const void *data, size_t bytes, hk_event_bins bins, const char *text)
{
    static int number;
    char set[40], error[256] = "";
    float x[FRAMES];
    snprintf(set, sizeof set, "corrupt-%d", number++);
    hk_dataset_params p = params_of(bins, 0);
    hk_dataset *d = set_of(set, name, data, bytes, &p);
    if (hk_dataset_sample(d, &d->fields[0], 0, x, error) || !strstr(error, text))
        fail_msg("%s: '%s', expected '%s'", name, error, text);
    hk_dataset_close(&d);
}

/* A version 1.0 header of an .npy, and data. */
static size_t npy(uint8_t *out, const char *header, const void *data, size_t bytes)
{
    size_t length = strlen(header);
    memcpy(out, "\x93NUMPY\1\0", 8);
    out[8] = (uint8_t)length;
    out[9] = (uint8_t)(length >> 8);
    memcpy(out + 10, header, length);
    memcpy(out + 10 + length, data, bytes);
    return 10 + length + bytes;
}

static void corrupt_npy(const char *header, const void *data, size_t bytes, const char *text)
{
    uint8_t file[1024];
    corrupt("x.npy", file, npy(file, header, data, bytes), HK_EVENT_BINS_COUNT, text);
}

static void corrupt_files(void **state)
{
    (void)state;
    uint8_t data[10];
    const double half[] = {0, 0.5, 0, 1}, bad[] = {0, 1, -1, 1};
    put_atis(data, 100, 1, 2, 1);
    put_atis(data + 5, 99, 1, 2, 1);
    corrupt("x.bin", data, 9, HK_EVENT_BINS_COUNT, "cut off");
    corrupt("x.bin", data, 0, HK_EVENT_BINS_COUNT, "no events");
    corrupt("x.bin", data, 10, HK_EVENT_BINS_TIME, "sort them by t");
    put_atis(data + 5, 101, 8, 2, 1);
    corrupt("x.bin", data, 10, HK_EVENT_BINS_COUNT, "event 1 is at x = 8");
    corrupt("x.npy", data, 10, HK_EVENT_BINS_COUNT, "no .npy");
    corrupt("x.npy", "\x93NUMPY\1\0\xff\xff", 10, HK_EVENT_BINS_COUNT, "header is cut off");
    corrupt_npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1, 4), }", half, sizeof half, "x = 0.5");
    corrupt_npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1, 4), }", bad, sizeof bad, "y = -1");
    corrupt_npy("{'descr': '<f8', 'fortran_order': False, 'shape': (2, 4), }", bad, sizeof bad, "announces 2 events");
    corrupt_npy("{'descr': '<f8', 'fortran_order': False, 'shape': (4, 1), }", bad, sizeof bad, "four columns");
    corrupt_npy("{'descr': '<f8', 'fortran_order': True, 'shape': (1, 4), }", bad, sizeof bad, "four columns");
    corrupt_npy("{'descr': '|O', 'fortran_order': False, 'shape': (1, 4), }", bad, sizeof bad, "little-endian");
    corrupt_npy("{'descr': [('t', '<i8'), ('x', '<i8'), ('y', '<i8')], 'fortran_order': False, 'shape': (1,), }", bad,
                sizeof bad, "lack one of the fields");
    corrupt_npy("{'descr': [('t', '>i8')], 'fortran_order': False, 'shape': (1,), }", bad, sizeof bad, "little-endian");
    corrupt_npy("{'shape': (1,), }", bad, sizeof bad, "header is not");
}

static void refusals(void **state)
{
    (void)state;
    hk_dataset *d = NULL;
    hk_dataset_params p = {.size = sizeof p, .rank = 3, .shape = {2, H, W}};
    assert_int_equal(hk_dataset_open(ctx, EVENTS "bin", &p, &d), HK_STATUS_INVALID);
    assert_non_null(strstr(hk_context_error(ctx), "(T,2,H,W)"));
    assert_int_equal(hk_dataset_open(ctx, EVENTS "columns", NULL, &d), HK_STATUS_INVALID);
    OK(hk_dataset_open(ctx, EVENTS "bin", NULL, &d)); /* N-MNIST's sensor */
    assert_true(d->fields[0].info.shape[0] == 16 && d->fields[0].info.shape[3] == 34);
    hk_dataset_close(&d);
    p = params_of(HK_EVENT_BINS_TIME, -1);
    assert_int_equal(hk_dataset_open(ctx, EVENTS "bin", &p, &d), HK_STATUS_USAGE);
    /* through a loader: the sentence names the file, max_bad leaves the sample out */
    uint8_t data[10] = {0};
    hk_batch b;
    hk_loader *l = NULL;
    p = params_of(HK_EVENT_BINS_COUNT, 0);
    d = set_of("loaded", "a.bin", data, 5, &p);
    hk_dataset_close(&d);
    d = set_of("loaded", "b.bin", data, 9, &p);
    OK(hk_loader_create(d, &(hk_loader_params){.size = sizeof(hk_loader_params), .batch = 2}, &l));
    assert_int_equal(hk_loader_next(l, &b), HK_STATUS_INVALID);
    assert_non_null(strstr(hk_context_error(ctx), "b.bin"));
    hk_loader_destroy(&l);
    hk_dataset_close(&d);
}

/* ---- training */

static hk_value *op(hk_graph *g, const char *type, const char *name, const hk_attr_value *attrs, hk_value *a,
                    hk_value *b)
{
    hk_value *in[] = {a, b}, *out = NULL;
    OK(hk_snn_node_make(g, 18, type, name, attrs, in, b ? 2 : 1, &out));
    return out;
}

/* (N,T,2,H,W): frames, a dense layer of LIF neurons, their rates. */
static void save_network(const char *path)
{
    enum { INPUTS = 2 * H * W, CLASSES = 2 };
    float w[INPUTS * CLASSES];
    hk_graph *g = NULL;
    hk_value *y = NULL;
    const hk_shape shape = {.rank = 5, .dim = {-1, T, 2, H, W}};
    const hk_attr_value swap[] = {HK_SET_INTS("perm", ((const int64_t[]){1, 0, 2, 3, 4}), 5), {0}};
    const hk_attr_value lif[] = {HK_SET_INT("steps", T), HK_SET_STRING("kind", "LIF"), {0}};
    for (int i = 0; i < INPUTS * CLASSES; i++)
        w[i] = 0.05f + 0.01f * (float)(i * 7 % 11);
    OK(hk_graph_create(ctx, "events", &g));
    hk_value *x = hk_graph_value(g, "x", HK_VALUE_INPUT, HK_FLOAT32, &shape);
    assert_true(x && hk_graph_add_input(g, x));
    y = op(g, "Transpose", "swap", swap, x, NULL);
    OK(hk_snn_reshape(g, 18, y, NULL, (int64_t[]){T, -1, INPUTS}, 3, &y));
    y = op(g, "MatMul", "dense", NULL, y, hk_snn_floats(g, "w", w, 2, (int64_t[]){INPUTS, CLASSES}));
    y = op(g, "hk.Neuron", "lif", lif, y, NULL);
    OK(hk_snn_reduce(g, 18, "ReduceMean", y, (int64_t[]){0}, 1, &y));
    y->name = "y";
    assert_true(hk_graph_add_output(g, y));
    OK(hk_export_graph(g, NULL, path));
    hk_graph_destroy(&g);
}

/* Class 0 sees the left half, class 1 the right. */
static void save_samples(void)
{
    uint32_t seed = 5;
    for (int i = 0; i < 40; i++) {
        uint8_t data[5 * 60];
        char path[300];
        for (int k = 0; k < 60; k++) {
            seed = seed * 1664525u + 1013904223u;
            put_atis(data + 5 * k, 100 * k, (int)(seed >> 8) % 4 + i % 2 * 4, (int)(seed >> 16) % H,
                     (int)(seed >> 24) % 2);
        }
        snprintf(path, sizeof path, "%s/moves/%d", folder, i % 2);
        mkdir(path, 0700);
        snprintf(path, sizeof path, "%s/moves/%d/%02d.bin", folder, i % 2, i);
        FILE *f = fopen(path, "wb");
        assert_true(f && fwrite(data, 1, sizeof data, f) == sizeof data);
        fclose(f);
    }
}

static void command(void **state)
{
    (void)state;
    const char *path = in_folder("moves");
    mkdir(path, 0700);
    save_samples();
    path = in_folder("net.onnx");
    save_network(path);
    expect("train net.onnx --data moves --epochs 8 --batch 8 --lr 0.02 --val 0.2 --event-bins time --out t", 0,
           "accuracy");
    expect("eval t/model.onnx --data moves --event-bins time", 0, "accuracy 1.0000");
    expect("eval t/model.onnx --data moves --event-bins 1500", 0, "accuracy");
    expect("eval t/model.onnx --data moves --event-bins sometimes", 64, "'--event-bins' is count, time");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(formats), cmocka_unit_test(time_overflows),
                                       cmocka_unit_test(corrupt_files), cmocka_unit_test(refusals),
                                       cmocka_unit_test(command)};
    const test_program program = {.name = "events", TESTS(tests), .setup = make_folder, .teardown = remove_folder};
    return test_main(argc, argv, &program);
}
