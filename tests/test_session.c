/*
 * Models end to end through sessions: PyTorch's outputs, behaviours of stages and plans, planted faults.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/plan.h"
#include "tests/support/data.h"
#include "tests/support/program.h"

#define DATA HK_TEST_DATA

typedef struct opened {
    hk_model *model;
    hk_session *session;
} opened;

static opened open_model(const char *folder, bool no_fusion)
{
    opened o = {0};
    char path[512];
    snprintf(path, sizeof path, "%s/model.onnx", folder);
    OK(hk_model_load(ctx, path, NULL, &o.model));
    OK(hk_session_create(dev, o.model,
                         &(hk_session_params){.size = sizeof(hk_session_params), .no_fusion = no_fusion, .seed = 11},
                         &o.session));
    return o;
}

static void close_model(opened *o)
{
    hk_session_destroy(&o->session);
    hk_model_destroy(&o->model);
}

/* All sets of the folder, twice in one session, fused and unfused. */
static void check_folder(const char *folder, double bound)
{
    for (int no_fusion = 0; no_fusion < 2; no_fusion++) {
        opened o = open_model(folder, no_fusion);
        for (int round = 0; round < 2; round++) {
            double error = 0;
            int set = 0;
            for (; data_run_set(ctx, o.session, o.model, folder, set, &error); set++)
                if (!(error <= bound))
                    fail_msg("%s set %d%s: relative error %.3g, allowed %.3g", folder, set, no_fusion ? " unfused" : "",
                             error, bound);
            assert_true(set > 0);
        }
        close_model(&o);
    }
}

static void digits(void **state)
{
    (void)state;
    check_folder(DATA "/digits", 5e-6);
    check_folder(DATA "/digits_script", 5e-6);
}

static void small_models(void **state)
{
    (void)state;
    static const char *const names[] = {"mlp", "resblock", "transformer", "dropout_eval"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char folder[512];
        snprintf(folder, sizeof folder, DATA "/models/%s", names[i]);
        check_folder(folder, 5e-6);
    }
}

/* Output size known only after a host step: the plan says so. */
static void nonzero_cuts_the_run(void **state)
{
    (void)state;
    check_folder(DATA "/models/nonzero", 5e-6);
    opened o = open_model(DATA "/models/nonzero", false);
    double error = 0;
    assert_true(data_run_set(ctx, o.session, o.model, DATA "/models/nonzero", 0, &error));
    hk_plan_info plan;
    OK(hk_session_get_plan(o.session, &plan));
    assert_true(plan.segments > 1);
    bool host = false;
    for (size_t i = 0; i < plan.row_count; i++)
        host |= !strcmp(plan.rows[i].op, "NonZero") && !strcmp(plan.rows[i].where, "host");
    assert_true(host);
    close_model(&o);
}

static void loops(void **state)
{
    (void)state;
    check_folder(DATA "/models/loop", 5e-6);
    check_folder(DATA "/models/loop_cond", 5e-6);
}

static void dropout_statistics(void **state)
{
    (void)state;
    opened o = open_model(DATA "/models/dropout_train", false);
    double error = 0, rate[2];
    float *kept[2];
    for (int round = 0; round < 2; round++) {
        hk_tensor y = {0};
        size_t count = 0;
        assert_true(data_run_set(ctx, o.session, o.model, DATA "/models/dropout_train", 0, &error));
        OK(hk_session_read(o.session, hk_model_outputs(o.model, &count)[0].name, &y));
        int64_t n = hk_tensor_count(&y), zeros = 0;
        kept[round] = malloc((size_t)n * sizeof(float));
        memcpy(kept[round], y.data, (size_t)n * sizeof(float));
        for (int64_t i = 0; i < n; i++) {
            float x = kept[round][i];
            zeros += x == 0;
            assert_true(x == 0 || fabsf(x - 1.0f / 0.75f) < 1e-6f);
        }
        rate[round] = (double)zeros / (double)n;
        assert_true(fabs(rate[round] - 0.25) < 5 * sqrt(0.25 * 0.75 / (double)n)); /* 5 sigma */
        if (round)
            assert_memory_not_equal(kept[0], kept[1], (size_t)n * sizeof(float)); /* the step moves on */
        hk_tensor_release(&y);
    }
    free(kept[0]);
    free(kept[1]);
    close_model(&o);
}

/* Shapes A, B, A: the same bits, no growth, and no pipeline for a second batch size of the same tile class. */
static void shapes_a_b_a(void **state)
{
    (void)state;
    opened o = open_model(DATA "/digits", false);
    size_t count = 0;
    const char *input = hk_model_inputs(o.model, &count)[0].name, *output = hk_model_outputs(o.model, &count)[0].name;
    static const int64_t batches[] = {40, 48, 40};
    hk_tensor y[3] = {{0}};
    hk_device_stats before, after[3];
    hk_device_get_stats(dev, &before);
    for (int r = 0; r < 3; r++) {
        float *x = malloc((size_t)batches[r] * 64 * sizeof *x);
        for (int64_t i = 0; i < batches[r] * 64; i++)
            x[i] = (float)(i * 7919 % 17) / 16.0f;
        OK(hk_session_write(o.session, input,
                            &(hk_tensor){.data = x, .dtype = HK_FLOAT32, .rank = 4, .shape = {batches[r], 1, 8, 8}}));
        OK(hk_session_run(o.session));
        OK(hk_session_read(o.session, output, &y[r]));
        hk_device_get_stats(dev, &after[r]);
        free(x);
    }
    assert_int_equal(y[1].shape[0], 48);
    assert_memory_equal(y[0].data, y[2].data, (size_t)hk_tensor_count(&y[0]) * sizeof(float));
    assert_memory_equal(y[0].data, y[1].data, (size_t)hk_tensor_count(&y[0]) * sizeof(float));
    assert_int_equal(after[1].pipelines_created, after[0].pipelines_created);
    assert_int_equal(after[2].memory_bytes, after[1].memory_bytes);
    assert_true(after[0].plans_ns > before.plans_ns && after[0].weights_ns > before.weights_ns);
    assert_true(after[1].plans_ns > after[0].plans_ns && after[1].pipelines_ns >= after[0].pipelines_ns);
    assert_true(after[2].plans_ns == after[1].plans_ns && after[2].pipelines_ns == after[1].pipelines_ns);
    for (int r = 0; r < 3; r++)
        hk_tensor_release(&y[r]);
    close_model(&o);
}

/* What each planted fault must be caught by. */
void hk_session_plant_fault(hk_session *s, int fault);

static hk_status run_with_fault(hk_plan_fault fault, const char *debug)
{
    hk_device *checked = NULL;
    OK(hk_device_open(ctx, &(hk_device_params){.size = sizeof(hk_device_params), .debug = debug}, &checked));
    opened o = {0};
    OK(hk_model_load(ctx, DATA "/digits/model.onnx", NULL, &o.model));
    OK(hk_session_create(checked, o.model, NULL, &o.session));
    hk_session_plant_fault(o.session, (int)fault);
    size_t count = 0;
    static float x[64];
    OK(hk_session_write(o.session, hk_model_inputs(o.model, &count)[0].name,
                        &(hk_tensor){.data = x, .dtype = HK_FLOAT32, .rank = 4, .shape = {1, 1, 8, 8}}));
    hk_status st = hk_session_run(o.session);
    close_model(&o);
    hk_device_close(&checked);
    return st;
}

static void planted_faults(void **state)
{
    (void)state;
    assert_int_equal(run_with_fault(HK_FAULT_NONE, "check-plan,poison"), HK_OK);
    assert_int_equal(run_with_fault(HK_FAULT_MISSING_BARRIER, "check-plan"), HK_STATUS_INTERNAL);
    assert_non_null(strstr(hk_context_error(ctx), "no barrier"));
    assert_int_equal(run_with_fault(HK_FAULT_SHORT_LIFETIME, "check-plan"), HK_STATUS_INTERNAL);
    assert_non_null(strstr(hk_context_error(ctx), "alive at once"));
    assert_int_equal(run_with_fault(HK_FAULT_STORE_BEHIND, "poison"), HK_STATUS_INTERNAL);
    assert_non_null(strstr(hk_context_error(ctx), "behind value"));
}

static void bad_input(void **state)
{
    (void)state;
    hk_model *m = NULL;
    hk_session *s = NULL;
    assert_int_equal(hk_model_load(ctx, DATA "/models/absent.onnx", NULL, &m), HK_STATUS_NO_INPUT);
    assert_int_equal(hk_model_load(ctx, DATA "/models/truncated.onnx", NULL, &m), HK_STATUS_INVALID);
    assert_null(m);
    static const char *const refused[][2] = {{"unknown_op", "Frobnicate"}, {"custom_domain", "Twist"}};
    for (size_t i = 0; i < 2; i++) {
        char path[512];
        size_t count = 0;
        snprintf(path, sizeof path, DATA "/models/%s/model.onnx", refused[i][0]);
        OK(hk_model_load(ctx, path, NULL, &m));
        assert_non_null(strstr(hk_model_problems(m, &count)[0].op, refused[i][1]));
        assert_int_equal(hk_session_create(dev, m, NULL, &s), HK_STATUS_UNSUPPORTED);
        assert_non_null(strstr(hk_context_error(ctx), refused[i][1]));
        hk_model_destroy(&m);
    }
    opened o = open_model(DATA "/digits", false);
    size_t count = 0;
    const char *input = hk_model_inputs(o.model, &count)[0].name;
    float x[64] = {0};
    hk_tensor t = {.data = x, .dtype = HK_FLOAT32, .rank = 4, .shape = {1, 1, 8, 8}};
    assert_int_equal(hk_session_run(o.session), HK_STATUS_USAGE);
    assert_int_equal(hk_session_write(o.session, "absent", &t), HK_STATUS_USAGE);
    t.shape[3] = 4;
    assert_int_equal(hk_session_write(o.session, input, &t), HK_STATUS_USAGE);
    assert_non_null(strstr(hk_context_error(ctx), "expects"));
    t.shape[3] = 8;
    t.dtype = HK_INT32;
    assert_int_equal(hk_session_write(o.session, input, &t), HK_STATUS_USAGE);
    close_model(&o);
}

/* More memory than allowed: the sentence names what for and how much, and everything can be ended. */
static void out_of_memory(void **state)
{
    (void)state;
    hk_device *small = NULL;
    OK(hk_device_open(ctx, &(hk_device_params){.size = sizeof(hk_device_params), .max_memory_bytes = 1 << 20}, &small));
    uint64_t left[2];
    float *x = calloc(4096 * 64, sizeof *x);
    for (int round = 0; round < 2; round++) {
        opened o = {0};
        hk_device_stats stats;
        size_t count = 0;
        OK(hk_model_load(ctx, DATA "/digits/model.onnx", NULL, &o.model));
        OK(hk_session_create(small, o.model, NULL, &o.session));
        OK(hk_session_write(o.session, hk_model_inputs(o.model, &count)[0].name,
                            &(hk_tensor){.data = x, .dtype = HK_FLOAT32, .rank = 4, .shape = {4096, 1, 8, 8}}));
        assert_int_equal(hk_session_run(o.session), HK_STATUS_OUT_OF_MEMORY);
        assert_non_null(strstr(hk_context_error(ctx), "bytes"));
        close_model(&o);
        hk_device_get_stats(small, &stats);
        left[round] = stats.memory_bytes; /* the device's own staging buffer, nothing of the session's */
    }
    assert_int_equal(left[0], left[1]);
    free(x);
    hk_device_close(&small);
}

/* 16-bit storage in NHWC8 islands: the same classes as PyTorch, within half precision. */
static void fast_precision(void **state)
{
    (void)state;
    opened o = {0};
    OK(hk_model_load(ctx, DATA "/digits/model.onnx", NULL, &o.model));
    OK(hk_session_create(dev, o.model,
                         &(hk_session_params){.size = sizeof(hk_session_params), .precision = HK_PRECISION_FAST},
                         &o.session));
    double error = 0;
    assert_true(data_run_set(ctx, o.session, o.model, DATA "/digits", 0, &error));
    print_message("fast: relative error %.2e\n", error);
    assert_true(error <= 5e-3);
    /* A GPU does not change the layout of a model as small as this. */
    const hk_device_info *info = hk_device_get_info(dev);
    if (info->type == HK_DEVICE_SOFTWARE && (info->caps >> HK_CAP_STORAGE16 & 1u)) {
        hk_plan_info plan;
        bool packed = false;
        OK(hk_session_get_plan(o.session, &plan));
        for (size_t i = 0; i < plan.row_count; i++)
            packed |= strstr(plan.rows[i].kernel, "nhwc8") != NULL;
        assert_true(packed);
    }
    close_model(&o);
}

static void run_layer(hk_model *m, hk_device *device, hk_precision precision, const hk_tensor *x, hk_tensor *y,
                      size_t *units)
{
    hk_session *s = NULL;
    hk_plan_info plan;
    OK(hk_session_create(device, m, &(hk_session_params){.size = sizeof(hk_session_params), .precision = precision},
                         &s));
    OK(hk_session_write(s, "x", x));
    OK(hk_session_run(s));
    OK(hk_session_read(s, "y", y));
    OK(hk_session_get_plan(s, &plan));
    for (size_t i = 0; i < plan.row_count; i++)
        *units += strstr(plan.rows[i].kernel, " high") != NULL;
    hk_session_destroy(&s);
}

/* Row r of x: bands of 16, whose elements split with one scale. What is not finite reaches its own row alone. */
enum { ROWS = 512, IN = 512, OUT = 1024, INFINITE_ROW = 3, NAN_ROW = 20 };

static float row_scale(size_t r)
{
    static const float scales[] = {1.0f, 1.0f, 1e30f, 1e-30f, 1e-39f, 0.0f};
    return r / 16 < sizeof scales / sizeof *scales ? scales[r / 16] : 1.0f;
}

/* The row's results as near to strict's as float32 is to its largest, or denormal floats are to each other; where
 * strict's is not finite, neither is this. */
static double row_error(size_t r, const float *strict, const float *high)
{
    double most = 0, apart = 0;
    for (size_t i = 0; i < OUT; i++) {
        bool both = !isfinite(strict[i]) && !isfinite(high[i]);
        if (isfinite(strict[i]) != isfinite(high[i]))
            fail_msg("row %zu: %g in strict, %g in high", r, (double)strict[i], (double)high[i]);
        most = fmax(most, both ? 0 : fabs((double)strict[i]));
        apart = fmax(apart, both ? 0 : fabs((double)strict[i] - (double)high[i]));
    }
    return most > 1e-37 ? apart / most : apart > 1e-43 ? 1.0 : 0.0;
}

/* Split operands on matrix units, which software devices emulate under gpu-tuning: as near to strict as float32 is, far
 * from 1 too. Smaller products than this one are not worth the splitting. */
static void high_precision(void **state)
{
    (void)state;
    hk_device *tuned = NULL;
    hk_model *m = NULL;
    hk_value *v = NULL;
    OK(hk_device_open(ctx, &(hk_device_params){.size = sizeof(hk_device_params), .debug = "gpu-tuning"}, &tuned));
    OK(hk_model_create(ctx, &(hk_build_params){.size = sizeof(hk_build_params), .seed = 5}, &m));
    OK(hk_model_input(m, "x", HK_FLOAT32, 2, (int64_t[]){-1, IN}, &v));
    OK(hk_add(m, v, &(hk_layer){.kind = HK_LAYER_LINEAR, .out = OUT, .no_bias = true}, &v));
    OK(hk_model_output(m, v, "y"));
    float *x = malloc(sizeof(float) * ROWS * IN);
    assert_non_null(x);
    for (size_t i = 0; i < (size_t)ROWS * IN; i++)
        x[i] = sinf((float)i * 0.37f) * row_scale(i / IN);
    x[INFINITE_ROW * IN + 5] = INFINITY;
    x[NAN_ROW * IN + 70] = NAN;
    hk_tensor in = {.dtype = HK_FLOAT32, .rank = 2, .shape = {ROWS, IN}, .data = x}, strict = {0}, high = {0};
    size_t none = 0, units = 0;
    run_layer(m, tuned, HK_PRECISION_STRICT, &in, &strict, &none);
    run_layer(m, tuned, HK_PRECISION_HIGH, &in, &high, &units);
    double error = 0;
    for (size_t r = 0; r < ROWS; r++)
        error = fmax(error, row_error(r, (float *)strict.data + r * OUT, (float *)high.data + r * OUT));
    print_message("high: %zu kernels on matrix units, relative error %.2e\n", units, error);
    assert_true(error <= 3e-6);
    assert_true(!isfinite(((float *)high.data)[INFINITE_ROW * OUT]));
    assert_true(isnan(((float *)high.data)[NAN_ROW * OUT]));
    assert_int_equal(none, 0);
    assert_true(units > 0 || hk_device_get_info(tuned)->max_shared_bytes < 32768);
    hk_tensor_release(&strict);
    hk_tensor_release(&high);
    free(x);
    hk_model_destroy(&m);
    hk_device_close(&tuned);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digits),         cmocka_unit_test(small_models),       cmocka_unit_test(nonzero_cuts_the_run),
        cmocka_unit_test(loops),          cmocka_unit_test(dropout_statistics), cmocka_unit_test(shapes_a_b_a),
        cmocka_unit_test(planted_faults), cmocka_unit_test(fast_precision),     cmocka_unit_test(bad_input),
        cmocka_unit_test(out_of_memory),  cmocka_unit_test(high_precision),
    };
    return test_main(argc, argv, &(test_program){.name = "session", TESTS(tests)});
}
