/*
 * What PyTorch's exporters write (tests/data/exports), and that every pass can be left out: all folders, all their test
 * sets, with each pass switched off and with all of them. `test_exports NAME` runs one folder.
 */
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/data.h"
#include "tests/support/program.h"

#define DATA HK_TEST_DATA

static const char *only; /* one folder */

/* Exports whose values are 16-bit: each operator's result is rounded to 2^-11 or 2^-8 of itself, and the references are
 * rounded from fp64. A few such roundings add up along the longest path. */
static const struct {
    const char *folder;
    double bound;
} bounds[] = {{"dynamo_fp16", 2e-3}, {"script_fp16", 2e-3}, {"dynamo_bf16", 1.5e-2}};

static double bound_of(const char *folder)
{
    for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++)
        if (!strcmp(bounds[i].folder, folder))
            return bounds[i].bound;
    return 5e-6;
}

/* Every test set once in one session; the number of sets. */
static int run_sets(const char *path, const hk_session_params *params, double bound, const char *what)
{
    char file[512];
    hk_model *m = NULL;
    hk_session *s = NULL;
    double error = 0;
    int set = 0;
    snprintf(file, sizeof file, "%s/model.onnx", path);
    OK(hk_model_load(ctx, file, NULL, &m));
    OK(hk_session_create(dev, m, params, &s));
    for (; data_run_set(ctx, s, m, path, set, &error); set++)
        if (!(error <= bound))
            fail_msg("%s set %d %s: relative error %.3g, allowed %.3g", path, set, what, error, bound);
    hk_session_destroy(&s);
    hk_model_destroy(&m);
    return set;
}

static void with_every_pass_off(const char *path, double bound)
{
    static const char *const names[] = {
#define HK_X(name, text) "without " text,
        HK_PASS_MAP(HK_X)
#undef HK_X
    };
    hk_session_params params = {.size = sizeof params};
    assert_true(run_sets(path, &params, bound, "") > 0);
    for (int i = 0; i < HK_PASS_COUNT; i++) {
        params.passes_off = 1u << i;
        run_sets(path, &params, bound, names[i]);
    }
    params.passes_off = (1u << HK_PASS_COUNT) - 1;
    run_sets(path, &params, bound, "without all passes");
}

static void exports(void **state)
{
    (void)state;
    DIR *d = opendir(DATA "/exports");
    assert_non_null(d);
    size_t count = 0;
    for (const struct dirent *e = readdir(d); e; e = readdir(d)) {
        char path[400];
        if (e->d_name[0] == '.' || (only && strcmp(only, e->d_name) != 0))
            continue;
        snprintf(path, sizeof path, DATA "/exports/%.200s", e->d_name);
        count++;
        with_every_pass_off(path, bound_of(e->d_name));
    }
    closedir(d);
    assert_true(only ? count == 1 : count >= 15);
}

static void other_models(void **state)
{
    (void)state;
    static const char *const names[] = {"digits",          "digits_script",    "models/mlp",
                                        "models/resblock", "models/nonzero",   "models/transformer",
                                        "models/loop",     "models/loop_cond", "models/dropout_eval"};
    for (size_t i = 0; i < sizeof names / sizeof *names && !only; i++) {
        char path[400];
        snprintf(path, sizeof path, DATA "/%s", names[i]);
        with_every_pass_off(path, 5e-6);
    }
}

/* TrainingMode.PRESERVE: Dropout drops. What it lets through is its input divided by 1 - p, and the share that it drops
 * is p within five standard deviations; another run drops others, the same run the same. */
static void dropout_drops(void **state)
{
    (void)state;
    enum { RUNS = 12 };
    hk_model *m = NULL;
    hk_session *s = NULL;
    int64_t dropped = 0, count = 0;
    size_t differing = 0;
    char pattern[RUNS][512] = {{0}};
    OK(hk_model_load(ctx, DATA "/exports/script_preserve/model.onnx", NULL, &m));
    OK(hk_session_create(dev, m, NULL, &s));
    hk_tensor x = {0};
    OK(hk_tensor_load(ctx, DATA "/exports/script_preserve/test_data_set_0/input_0.pb", &x));
    OK(hk_session_write(s, "image", &x));
    for (int r = 0; r < RUNS; r++) {
        hk_tensor before = {0}, after = {0};
        if (r == RUNS / 2)
            OK(hk_session_reset(s));
        OK(hk_session_run(s));
        OK(hk_session_read(s, "features", &before));
        OK(hk_session_read(s, "dropped", &after));
        int64_t n = hk_tensor_count(&after);
        assert_true(n == hk_tensor_count(&before) && n < (int64_t)sizeof pattern[0]);
        for (int64_t i = 0; i < n; i++) {
            float a = ((const float *)before.data)[i], b = ((const float *)after.data)[i];
            pattern[r][i] = b == 0 ? '0' : '1';
            if (b != 0)
                assert_true(fabsf(b - a / 0.75f) <= 1e-6f * fabsf(b));
            dropped += b == 0;
        }
        count += n;
        differing += r > 0 && memcmp(pattern[r], pattern[r - 1], (size_t)n) != 0;
        hk_tensor_release(&before);
        hk_tensor_release(&after);
    }
    double deviation = sqrt((double)count * 0.25 * 0.75);
    assert_true(fabs((double)dropped - 0.25 * (double)count) <= 5 * deviation);
    assert_int_equal(differing, RUNS - 1);
    hk_tensor_release(&x);
    hk_session_destroy(&s);
    hk_model_destroy(&m);
}

static void unknown_pass(void **state)
{
    (void)state;
    hk_model *m = NULL;
    hk_session *s = NULL;
    hk_session_params params = {.size = sizeof params, .passes_off = 1u << HK_PASS_COUNT};
    OK(hk_model_load(ctx, DATA "/digits/model.onnx", NULL, &m));
    assert_int_equal(hk_session_create(dev, m, &params, &s), HK_STATUS_USAGE);
    assert_non_null(strstr(hk_context_error(ctx), "passes_off"));
    hk_model_destroy(&m);
}

int main(int argc, char **argv)
{
    only = argc > 1 ? argv[1] : NULL;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exports),
        cmocka_unit_test(other_models),
        cmocka_unit_test(dropout_drops),
        cmocka_unit_test(unknown_pass),
    };
    return test_main(1, argv, &(test_program){.name = "exports", TESTS(tests)});
}
