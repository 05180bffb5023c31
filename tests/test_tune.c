/*
 * Choosing by measurement: the ranking of candidates, hk_tune and its tables, sessions that use one, and what is
 * refused.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ops/support/choice.h"
#include "tests/support/program.h"

#define MODEL HK_TEST_DATA "/models/mlp/model.onnx"
#define OTHER_KERNEL "gemm 64x64x16 f32" /* no device's first choice for products as small as the model's */

static char folder[] = "/tmp/hillock-tune-XXXXXX", table[64], log_line[512];
static hk_model *model;
enum { ROWS = 3, OUT = 5 };
static float input[ROWS * 12];

static int set_up(void **state)
{
    (void)state;
    if (!mkdtemp(folder) || hk_model_load(ctx, MODEL, NULL, &model) != HK_OK)
        return 1;
    snprintf(table, sizeof table, "%s/table", folder);
    for (size_t i = 0; i < sizeof input / sizeof *input; i++)
        input[i] = (float)((i * 37) % 19) / 19 - 0.4f;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    hk_model_destroy(&model);
    unlink(table);
    return rmdir(folder);
}

static void write_table(const char *text)
{
    FILE *f = fopen(table, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

/* The table's text, until the next call. */
static char *read_table(void)
{
    static char text[1 << 16];
    FILE *f = fopen(table, "r");
    assert_non_null(f);
    size_t n = fread(text, 1, sizeof text - 1, f);
    text[n] = '\0';
    fclose(f);
    return text;
}

/* The first lines that a table of this device has. */
static const char *head(void)
{
    static char text[1024];
    const hk_device_info *d = hk_device_get_info(dev);
    snprintf(text, sizeof text, "hillock tune 1\ndevice\t%s\ndriver\t%s\n", d->name, d->driver);
    return text;
}

static hk_tensor rows_of(int64_t rows)
{
    return (hk_tensor){.data = input, .dtype = HK_FLOAT32, .rank = 2, .shape = {rows, 12}};
}

static hk_status run_with(const hk_session_params *params, float *y, hk_session **s)
{
    hk_tensor x = rows_of(ROWS), out = {.data = y, .dtype = HK_FLOAT32, .rank = 2, .shape = {ROWS, OUT}};
    hk_status st = hk_session_create(dev, model, params, s);
    if (st == HK_OK)
        st = hk_session_write(*s, "x", &x);
    if (st == HK_OK)
        st = hk_session_run(*s);
    return st == HK_OK ? hk_session_read(*s, "y", &out) : st;
}

/* Dispatches of the last run that a table chose; whether one of them is that kernel. */
static size_t tuned_rows(hk_session *s, const char *kernel, bool *found)
{
    hk_plan_info plan;
    size_t tuned = 0;
    *found = false;
    OK(hk_session_get_plan(s, &plan));
    for (size_t i = 0; i < plan.row_count; i++) {
        tuned += plan.rows[i].tuned;
        *found |= plan.rows[i].tuned && !strcmp(plan.rows[i].kernel, kernel);
    }
    return tuned;
}

static void agree(const float *a, const float *b)
{
    for (int i = 0; i < ROWS * OUT; i++)
        assert_true(fabsf(a[i] - b[i]) <= 1e-5f * (1 + fabsf(b[i])));
}

static bool has_timestamps(void)
{
    return hk_device_get_info(dev)->caps >> HK_CAP_TIMESTAMPS & 1u;
}

/* ---- candidates */

static void add(hk_choice *c, const char *name, uint32_t splits, double cost)
{
    hk_choice_add(c, &(hk_candidate){.name = name, .variant = name, .splits = splits, .cost = cost});
}

static void ranking(void **state)
{
    (void)state;
    static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"};
    hk_lower l = {0};
    hk_choice c;
    hk_choice_begin(&l, &c, HK_CHOICE_TILE, "%d", 1);
    assert_null(hk_choice_end(&l, &c));
    for (int i = 9; i >= 0; i--)
        add(&c, names[i], 1, 10 + i);
    add(&c, "late", 1, 10); /* equal to the first: behind it */
    assert_int_equal(c.count, HK_CANDIDATES_MOST);
    assert_string_equal(hk_choice_end(&l, &c)->name, "a");
    assert_string_equal(c.best[1].name, "late");
    for (uint32_t i = 1; i < c.count; i++)
        assert_true(c.best[i - 1].cost <= c.best[i].cost);
    add(&c, names[2], 2, 1);
    add(&c, names[2], 3, 2); /* takes the place of the third of one variant, which is dearer */
    add(&c, names[2], 4, 3);
    uint32_t same = 0;
    for (uint32_t i = 0; i < c.count; i++)
        same += c.best[i].variant == names[2];
    assert_int_equal(same, 2);
    assert_int_equal(c.best[0].splits, 2);
    assert_int_equal(c.best[1].splits, 3);
    add(&c, names[2], 3, 0); /* twice the same */
    assert_int_equal(c.best[0].splits, 2);
}

/* ---- making a table */

typedef struct seen {
    size_t rows, changed;
    bool timed;
} seen;

static void see(void *user, const hk_tune_row *r)
{
    seen *s = user;
    s->timed &= r->ns > 0 && r->ns <= r->predicted_ns && r->places > 0 && r->measured > 1;
    s->changed += strcmp(r->kernel, r->predicted) != 0 || r->splits != r->predicted_splits;
    s->rows++;
}

static size_t tune_rows(int64_t rows)
{
    seen s = {.timed = true};
    hk_tune_params params = {
        .size = sizeof params, .path = table, .candidates = 3, .runs = 2, .report = see, .user = &s};
    hk_tune_result result;
    hk_tensor x = rows_of(rows);
    OK(hk_tune(dev, model, &x, 1, &params, &result));
    assert_true(s.timed);
    assert_int_equal(result.problems, s.rows);
    assert_int_equal(result.changed, s.changed);
    assert_true(result.ns > 0 && result.predicted_ns > 0);
    assert_string_equal(result.path, table);
    return s.rows;
}

static size_t lines_with(const char *text, const char *part)
{
    size_t count = 0;
    for (const char *at = text; (at = strstr(at, part)) != NULL; at++)
        count++;
    return count;
}

static void tune_and_use(void **state)
{
    (void)state;
    bool found;
    float plain[ROWS * OUT], tuned[ROWS * OUT];
    hk_session *s = NULL;
    unlink(table);
    hk_tensor x = rows_of(ROWS);
    if (!has_timestamps()) {
        refused(hk_tune(dev, model, &x, 1, NULL, NULL), HK_STATUS_UNSUPPORTED, "has no timestamps");
        return;
    }
    assert_int_equal(tune_rows(ROWS), 2);
    assert_int_equal(tune_rows(2), 2);
    char *text = read_table();
    assert_int_equal(strncmp(text, head(), strlen(head())), 0);
    assert_int_equal(lines_with(text, "\ngemm strict "), 4); /* those of the first call stay */
    OK(run_with(NULL, plain, &s));
    assert_int_equal(tuned_rows(s, "", &found), 0);
    hk_session_destroy(&s);
    OK(run_with(&(hk_session_params){.size = sizeof(hk_session_params), .tuned = table}, tuned, &s));
    assert_int_equal(tuned_rows(s, "", &found), 2);
    hk_session_destroy(&s);
    agree(tuned, plain);
    hk_tune_params params = {.size = sizeof params, .path = table, .candidates = 9};
    refused(hk_tune(dev, model, &x, 1, &params, NULL), HK_STATUS_USAGE, "at most 8");
    refused(hk_tune(dev, model, NULL, 0, &params, NULL), HK_STATUS_USAGE, "got 0 inputs, the model has 1");
}

/* ---- using one */

static void another_kernel(void **state)
{
    (void)state;
    bool found;
    float plain[ROWS * OUT], tuned[ROWS * OUT];
    char text[2048];
    hk_session *s = NULL;
    hk_session_params params = {.size = sizeof params, .tuned = table};
    OK(run_with(NULL, plain, &s));
    hk_session_destroy(&s);
    snprintf(text, sizeof text, "%s# a comment\ngemm strict 1 x 3x24x12 NT float32 float32 float32\t%s\t1\t1.5\t2.5\n",
             head(), OTHER_KERNEL);
    write_table(text);
    OK(run_with(&params, tuned, &s));
    assert_int_equal(tuned_rows(s, OTHER_KERNEL, &found), 1);
    assert_true(found);
    hk_session_destroy(&s);
    agree(tuned, plain);
    /* A kernel that this build does not have, or splits that do not fit, are as if the line were not there. */
    snprintf(text, sizeof text, "%sgemm strict 1 x 3x24x12 NT float32 float32 float32\tgemm 7x7\t1\t1\t1\n", head());
    write_table(text);
    OK(run_with(&params, tuned, &s));
    assert_int_equal(tuned_rows(s, "", &found), 0);
    hk_session_destroy(&s);
    assert_memory_equal(tuned, plain, sizeof plain);
}

static void keep_line(void *user, hk_log_level level, const char *line)
{
    (void)user;
    (void)level;
    snprintf(log_line, sizeof log_line, "%s", line);
}

/* With a context of its own, whose log is read. */
static void deterministic_sessions_ignore_it(void **state)
{
    (void)state;
    char text[2048];
    hk_context *own = NULL;
    hk_device *device = NULL;
    hk_model *m = NULL;
    hk_session *s = NULL;
    hk_plan_info plan;
    snprintf(text, sizeof text, "%sgemm strict 1 x 3x24x12 NT float32 float32 float32\t%s\t1\t1.5\t2.5\n", head(),
             OTHER_KERNEL);
    write_table(text);
    OK(hk_context_create(&(hk_context_params){.size = sizeof(hk_context_params), .log = keep_line}, &own));
    OK(hk_device_open(own, NULL, &device));
    OK(hk_model_load(own, MODEL, NULL, &m));
    hk_session_params params = {.size = sizeof params, .tuned = table, .deterministic = true};
    log_line[0] = '\0';
    OK(hk_session_create(device, m, &params, &s));
    assert_non_null(strstr(log_line, "is not used: the session is deterministic"));
    hk_tensor x = rows_of(ROWS);
    OK(hk_session_write(s, "x", &x));
    OK(hk_session_run(s));
    OK(hk_session_get_plan(s, &plan));
    for (size_t i = 0; i < plan.row_count; i++)
        assert_false(plan.rows[i].tuned || !strcmp(plan.rows[i].kernel, OTHER_KERNEL));
    hk_session_destroy(&s);
    hk_model_destroy(&m);
    hk_device_close(&device);
    hk_context_destroy(&own);
}

/* ---- what is no table */

static void refuse(const char *text, hk_status status, const char *sentence)
{
    hk_session *s = NULL;
    hk_tensor x = rows_of(ROWS);
    hk_tune_params params = {.size = sizeof params, .path = table};
    write_table(text);
    refused(hk_session_create(dev, model, &(hk_session_params){.size = sizeof(hk_session_params), .tuned = table}, &s),
            status, sentence);
    assert_null(s);
    /* Nor is such a file overwritten. */
    if (!has_timestamps())
        return;
    refused(hk_tune(dev, model, &x, 1, &params, NULL), status, sentence);
    assert_string_equal(read_table(), text);
}

static void broken_tables(void **state)
{
    (void)state;
    static const char *const bad_lines[] = {"problem",
                                            "problem\tkernel\t1\t2",
                                            "problem\tkernel\t0\t1\t1",
                                            "problem\tkernel\tone\t1\t1",
                                            "problem\tkernel\t1\t-1\t1",
                                            "\tkernel\t1\t1\t1",
                                            "problem\t\t1\t1\t1",
                                            "problem\tkernel\t1\t1\tx",
                                            "problem\tkernel\t70000\t1\t1"};
    char text[2048];
    hk_session *s = NULL;
    refuse("", HK_STATUS_INVALID, "is no table of measurements");
    refuse("hillock tune 2\n", HK_STATUS_INVALID, "is no table of measurements");
    refuse("hillock tune 1\ndevice\tx\n", HK_STATUS_INVALID, "is no table of measurements");
    refuse("hillock tune 1\ndevice\tSome other GPU\ndriver\t1\n", HK_STATUS_USAGE, "was measured on 'Some other GPU'");
    for (size_t i = 0; i < sizeof bad_lines / sizeof *bad_lines; i++) {
        snprintf(text, sizeof text, "%s%s\n", head(), bad_lines[i]);
        refuse(text, HK_STATUS_INVALID, "line 4: expected a problem, a kernel");
    }
    unlink(table);
    refused(hk_session_create(dev, model, &(hk_session_params){.size = sizeof(hk_session_params), .tuned = table}, &s),
            HK_STATUS_NO_INPUT, table);
}

/* "device" is the device's own table, in a cache folder that may be missing. */
static void own_table(void **state)
{
    (void)state;
    hk_device *device = NULL;
    hk_session *s = NULL;
    hk_tune_result result;
    hk_tensor x = rows_of(ROWS);
    char cache[64];
    hk_tune_params params = {.size = sizeof params, .candidates = 2, .runs = 1};
    const hk_session_params use = {.size = sizeof use, .tuned = "device"};
    if (!has_timestamps())
        return;
    OK(hk_device_open(ctx, &(hk_device_params){.size = sizeof(hk_device_params), .cache_dir = ""}, &device));
    refused(hk_session_create(device, model, &use, &s), HK_STATUS_USAGE, "there is no cache folder");
    refused(hk_tune(device, model, &x, 1, &params, &result), HK_STATUS_USAGE, "there is no cache folder");
    hk_device_close(&device);
    snprintf(cache, sizeof cache, "%s/cache", folder);
    OK(hk_device_open(ctx, &(hk_device_params){.size = sizeof(hk_device_params), .cache_dir = cache}, &device));
    refused(hk_session_create(device, model, &use, &s), HK_STATUS_NO_INPUT, "run hillock tune");
    OK(hk_tune(device, model, &x, 1, &params, &result));
    assert_int_equal(strncmp(result.path, cache, strlen(cache)), 0);
    OK(hk_session_create(device, model, &use, &s));
    hk_session_destroy(&s);
    hk_device_close(&device);
    snprintf(table, sizeof table, "rm -r %s/cache", folder);
    assert_int_equal(system(table), 0);
    snprintf(table, sizeof table, "%s/table", folder);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranking),        cmocka_unit_test(tune_and_use),
        cmocka_unit_test(another_kernel), cmocka_unit_test(deterministic_sessions_ignore_it),
        cmocka_unit_test(broken_tables),  cmocka_unit_test(own_table),
    };
    return test_main(argc, argv, &(test_program){.name = "tune", TESTS(tests), .setup = set_up, .teardown = tear_down});
}
