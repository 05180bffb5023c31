/*
 * Every file of tests/hostile through loading, inference, folding and planning, and through `hillock inspect` with 3 GB
 * of address space: the exit code and sentence of list.txt, in bounded time and memory.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "tests/support/hostile.h"

#define FOLDER HK_TEST_DATA "/../hostile"

enum { LINE = 512, MESSAGE = 8192 };

typedef struct expectation {
    char file[128], phrase[256];
    int code;
} expectation;

/* Reads the next line of list.txt; false at its end. */
static bool next_expectation(FILE *list, expectation *e)
{
    char line[LINE];
    while (fgets(line, sizeof line, list) != NULL) {
        int used = 0;
        line[strcspn(line, "\n")] = '\0';
        if (line[0] == '#')
            continue;
        assert_int_equal(sscanf(line, "%127s %d %n", e->file, &e->code, &used), 2);
        snprintf(e->phrase, sizeof e->phrase, "%.255s", line + used);
        return true;
    }
    return false;
}

static size_t file_bytes(const char *path)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    long bytes = ftell(f);
    fclose(f);
    return (size_t)bytes;
}

typedef void each_file(const expectation *e, const char *path);

static void for_each(each_file *visit)
{
    FILE *list = fopen(FOLDER "/list.txt", "r");
    expectation e;
    size_t count = 0;
    assert_non_null(list);
    for (; next_expectation(list, &e); count++) {
        char path[1024];
        snprintf(path, sizeof path, "%s/%s", FOLDER, e.file);
        visit(&e, path);
    }
    fclose(list);
    print_message("%zu files\n", count);
    assert_true(count >= 40);
}

static void load_one(const expectation *e, const char *path)
{
    hostile_load h;
    char text[160];
    hostile_open(&h, path, NULL, 0);
    const char *broken = hostile_bounds(&h, file_bytes(path), text);
    if (broken != NULL)
        fail_msg("%s: %s", e->file, broken);
    int code = h.status != HK_OK ? hk_status_exit_code(h.status) : h.problems != 0 ? 65 : 0;
    if (code != e->code || strstr(h.error, e->phrase) == NULL)
        fail_msg("%s: %d '%s', expected %d '%s'", e->file, code, h.error, e->code, e->phrase);
}

static void test_load(void **state)
{
    (void)state;
    for_each(load_one);
}

static void inspect_one(const expectation *e, const char *path)
{
    char command[2048], output[MESSAGE];
#ifdef SANITIZED
    const char *limit = ""; /* shadow memory takes more */
#else
    const char *limit = "ulimit -v 3000000; ";
#endif
    snprintf(command, sizeof command, "%s%s inspect %s 2>&1", limit, HK_COMMAND, path);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    size_t n = fread(output, 1, sizeof output - 1, f);
    output[n] = '\0';
    while (fgetc(f) != EOF) {
    }
    int status = pclose(f), code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    if (code != e->code || strstr(output, e->phrase) == NULL)
        fail_msg("%s: %d '%s', expected %d '%s'", e->file, code, output, e->code, e->phrase);
}

static void test_inspect(void **state)
{
    (void)state;
    struct rusage all;
    for_each(inspect_one);
    assert_int_equal(getrusage(RUSAGE_CHILDREN, &all), 0);
    print_message("the largest took %ld MiB\n", all.ru_maxrss / 1024);
#ifndef SANITIZED
    assert_in_range(all.ru_maxrss, 1, 256 * 1024);
#endif
}

/* Without a device nothing is lost: inspect asks for none. */
static void test_no_device(void **state)
{
    (void)state;
    int status = system("VK_DRIVER_FILES=/nowhere VK_ICD_FILENAMES=/nowhere " HK_COMMAND " inspect " FOLDER
                        "/if_nested_17.onnx >/dev/null");
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* An axis that no check before the run sees. */
static void test_axis_of_run(void **state)
{
    (void)state;
    counted c = {0};
    hk_device *dev = NULL;
    hk_model *m = NULL;
    hk_session *s = NULL;
    hk_device_params device = {.size = sizeof device, .cache_dir = ""};
    float x[18] = {1, 2, 3, 4, 5, 6};
    hk_tensor in = {.data = x, .dtype = HK_FLOAT32, .rank = 3, .shape = {1, 18, 1}};
    counted_open(&c);
    hk_status st = hk_device_open(c.ctx, &device, &dev);
    if (st == HK_OK) {
        assert_int_equal(hk_model_load(c.ctx, FOLDER "/dft_axis_of_run.onnx", NULL, &m), HK_OK);
        assert_int_equal(hk_session_create(dev, m, NULL, &s), HK_OK);
        assert_int_equal(hk_session_write(s, "s", &in), HK_OK);
    }
    for (int64_t axis = -5; axis <= 5 && st == HK_OK; axis++) {
        hk_tensor a = {.data = &axis, .dtype = HK_INT64};
        bool inside = (axis >= -3 && axis <= -2) || axis == 0 || axis == 1; /* the last one holds the parts */
        assert_int_equal(hk_session_write(s, "a", &a), HK_OK);
        hk_status run = hk_session_run(s);
        if (inside ? run != HK_OK : run != HK_STATUS_INVALID)
            fail_msg("axis %d: %d '%s'", (int)axis, (int)run, hk_context_error(c.ctx));
        if (!inside)
            assert_non_null(strstr(hk_context_error(c.ctx), "DFT"));
    }
    hk_session_destroy(&s);
    hk_model_destroy(&m);
    hk_device_close(&dev);
    assert_true(counted_close(&c));
    if (st == HK_STATUS_NO_DEVICE)
        skip();
    assert_int_equal(st, HK_OK);
}

/* 60 times 60 iterations, each loop within its bound. */
static void test_nested_loops(void **state)
{
    (void)state;
    counted c = {0};
    hk_device *dev = NULL;
    hk_model *m = NULL;
    hk_session *s = NULL;
    hk_device_params device = {.size = sizeof device, .cache_dir = ""};
    float x[6] = {1, 2, 3, 4, 5, 6};
    hk_tensor in = {.data = x, .dtype = HK_FLOAT32, .rank = 2, .shape = {2, 3}};
    counted_open(&c);
    hk_status st = hk_device_open(c.ctx, &device, &dev);
    for (uint64_t most = 100; most <= 1000 && st == HK_OK; most *= 10) {
        hk_session_params params = {.size = sizeof params, .max_iterations = most};
        assert_int_equal(hk_model_load(c.ctx, FOLDER "/loop_nested.onnx", NULL, &m), HK_OK);
        assert_int_equal(hk_session_create(dev, m, &params, &s), HK_OK);
        assert_int_equal(hk_session_write(s, "x", &in), HK_OK);
        hk_status ran = hk_session_run(s);
        assert_int_equal(ran, most == 100 ? HK_STATUS_UNSUPPORTED : HK_OK);
        if (ran != HK_OK)
            assert_non_null(strstr(hk_context_error(c.ctx), "bodies have run 1600 times"));
        hk_session_destroy(&s);
        hk_model_destroy(&m);
    }
    hk_device_close(&dev);
    assert_true(counted_close(&c));
    if (st == HK_STATUS_NO_DEVICE)
        skip();
    assert_int_equal(st, HK_OK);
}

/* What can be said of a run is said before any memory is taken for it. */
static void test_max_memory(void **state)
{
    (void)state;
    char folder[] = "/tmp/hillock-memory-XXXXXX", command[2048], line[LINE] = "";
    assert_non_null(mkdtemp(folder));
    snprintf(command, sizeof command,
             "%s run %s/digits/model.onnx --input image=%s/digits/test_data_set_0/input_0.pb --output-dir %s "
             "--max-memory 1000 2>&1",
             HK_COMMAND, HK_TEST_DATA, HK_TEST_DATA, folder);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f) != NULL && strstr(line, "bytes of device memory") == NULL) {
    }
    while (fgetc(f) != EOF) {
    }
    int status = pclose(f);
    rmdir(folder);
    if (WEXITSTATUS(status) == 69)
        skip(); /* no device */
    assert_int_equal(WEXITSTATUS(status), 71);
    assert_non_null(strstr(line, "the run needs "));
    assert_non_null(strstr(line, "there is room for "));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_load),        cmocka_unit_test(test_inspect),      cmocka_unit_test(test_no_device),
        cmocka_unit_test(test_axis_of_run), cmocka_unit_test(test_nested_loops), cmocka_unit_test(test_max_memory),
    };
    return cmocka_run_group_tests_name("hostile files", tests, NULL, NULL);
}
