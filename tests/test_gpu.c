/*
 * The device layer, on whatever device HILLOCK_DEVICE names. HILLOCK_DEBUG=validate runs all of it under the validation
 * layer, which must stay silent.
 */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "gpu/gpu.h"
#include "kernels.h"
#include "shaders/selftest_copy.push.h"
#include "shaders/selftest_lcg.push.h"

/* Of VkResult, which the device layer's users do not see. */
enum { OUT_OF_HOST_MEMORY = -1, OUT_OF_DEVICE_MEMORY = -2, LOST = -4 };

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif

/* ---------------------------------------------------------------- fixture */

/* A context that counts what is allocated and logged. */
typedef struct bench {
    hk_context *ctx;
    hk_gpu *gpu;
    size_t live;         /* allocations */
    uint64_t fail_after; /* the n-th allocation from now fails; 0: none does */
    unsigned errors, warnings;
    char last[512];
} bench;

static void *counting_realloc(void *user, void *p, size_t bytes)
{
    bench *b = user;
    if (bytes == 0) {
        b->live -= p != NULL;
        free(p);
        return NULL;
    }
    if (b->fail_after > 0 && --b->fail_after == 0)
        return NULL;
    void *q = realloc(p, bytes);
    b->live += p == NULL && q != NULL;
    return q;
}

static void on_log(void *user, hk_log_level level, const char *line)
{
    bench *b = user;
    b->errors += level == HK_LOG_ERROR;
    b->warnings += level == HK_LOG_WARN;
    snprintf(b->last, sizeof b->last, "%s", line);
    if (level == HK_LOG_ERROR)
        print_message("log: %s\n", line);
}

static void bench_start(bench *b)
{
    *b = (bench){0};
    hk_context_params p = {
        .size = sizeof p, .log = on_log, .log_user = b, .log_level = HK_LOG_INFO, .allocator = {counting_realloc, b}};
    assert_int_equal(hk_context_create(&p, &b->ctx), HK_OK);
}

static void bench_end(bench *b)
{
    hk_gpu_close(&b->gpu);
    assert_int_equal(b->live, 1); /* the context */
    hk_context_destroy(&b->ctx);
    assert_null(b->ctx);
    assert_int_equal(b->live, 0);
    assert_int_equal(b->errors, 0);
}

#define assert_ok(b, call)                                                                                             \
    do {                                                                                                               \
        hk_status st_ = (call);                                                                                        \
        if (st_ != HK_OK)                                                                                              \
            fail_msg("%s: status %d: %s", #call, (int)st_, hk_context_error((b)->ctx));                                \
    } while (0)

#define assert_fails(b, call, status, words)                                                                           \
    do {                                                                                                               \
        assert_int_equal((call), (status));                                                                            \
        if (strstr(hk_context_error((b)->ctx), (words)) == NULL)                                                       \
            fail_msg("'%s' is not in '%s'", (words), hk_context_error((b)->ctx));                                      \
    } while (0)

/* Opens without a disk cache; caps and debug come from the environment. */
static void bench_open(bench *b)
{
    bench_start(b);
    hk_device_params p = {.size = sizeof p, .cache_dir = ""};
    assert_ok(b, hk_gpu_open(b->ctx, &p, &b->gpu));
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static uint8_t pattern(uint64_t i, uint32_t seed)
{
    return (uint8_t)((i * 2654435761u + seed) >> 13);
}

/* ---------------------------------------------------------------- work */

enum { GROUP = 64, COUNT = 1000 };
#define LCG_MULTIPLIER 1664525u

static hk_gpu_pipeline_key lcg_key(uint32_t group, uint32_t multiplier)
{
    return (hk_gpu_pipeline_key){
        .kernel = &hk_kernel_selftest_lcg, .spec_count = 4, .spec = {group, 1, 1, multiplier}};
}

static hk_gpu_pipeline *lcg_pipeline(bench *b)
{
    hk_gpu_pipeline_key key = lcg_key(GROUP, LCG_MULTIPLIER);
    hk_gpu_pipeline *p = NULL;
    assert_ok(b, hk_gpu_pipelines(b->gpu, &key, 1, &p));
    assert_non_null(p);
    return p;
}

static void lcg_dispatch(hk_gpu_commands *c, hk_gpu_pipeline *p, const hk_gpu_buffer *x, uint32_t count, uint32_t add,
                         uint32_t rounds)
{
    struct selftest_lcg_push push = {hk_gpu_buffer_address(x), count, add, rounds};
    uint32_t grid[3] = {(count + GROUP - 1) / GROUP, 1, 1};
    /* The struct's tail padding is no part of the block. */
    hk_gpu_dispatch(c, p, grid, &push, (uint32_t)(offsetof(struct selftest_lcg_push, rounds) + 4));
}

/* A buffer of COUNT words 0, 1, 2... */
static hk_gpu_buffer *counting_buffer(bench *b)
{
    uint32_t words[COUNT];
    for (uint32_t i = 0; i < COUNT; i++)
        words[i] = i;
    hk_gpu_buffer *x = NULL;
    assert_ok(b, hk_gpu_buffer_create(b->gpu, HK_GPU_DEVICE, sizeof words, "words", &x));
    assert_ok(b, hk_gpu_upload(b->gpu, x, 0, words, sizeof words));
    return x;
}

static void expect_words(bench *b, const hk_gpu_buffer *x, uint32_t (*expected)(uint32_t i, uint32_t steps), uint32_t steps)
{
    uint32_t words[COUNT] = {0};
    assert_ok(b, hk_gpu_download(b->gpu, x, 0, words, sizeof words));
    for (uint32_t i = 0; i < COUNT; i++)
        assert_int_equal(words[i], expected(i, steps));
}

/* What steps dispatches with add = 0, 1, 2... make of word i. */
static uint32_t chained(uint32_t i, uint32_t steps)
{
    for (uint32_t s = 0; s < steps; s++)
        i = i * LCG_MULTIPLIER + s;
    return i;
}

/* The same with add = 7 each time. */
static uint32_t repeated(uint32_t i, uint32_t steps)
{
    for (uint32_t s = 0; s < steps; s++)
        i = i * LCG_MULTIPLIER + 7;
    return i;
}

/* ---------------------------------------------------------------- device */

static void test_list(void **state)
{
    (void)state;
    bench b;
    bench_start(&b);
    size_t count = 99;
    assert_ok(&b, hk_gpu_list(b.ctx, NULL, 0, &count));
    assert_in_range(count, 1, 64);
    hk_device_info infos[64];
    size_t again = 0;
    assert_ok(&b, hk_gpu_list(b.ctx, infos, 64, &again));
    assert_int_equal(again, count);
    for (size_t i = 0; i < count; i++) {
        assert_true(infos[i].name[0] != '\0');
        assert_int_equal(infos[i].usable, infos[i].why[0] == '\0');
        if (!infos[i].usable)
            continue;
        assert_int_equal(strlen(infos[i].uuid), 32);
        assert_true(infos[i].max_invocations >= 128);
        assert_true(infos[i].max_shared_bytes >= 16384);
        assert_true(infos[i].max_grid >= 65535);
        assert_true(infos[i].memory_bytes > 0);
        assert_true(infos[i].max_allocation_bytes >= 1u << 30);
    }
    bench_end(&b);
}

static void test_no_driver(void **state)
{
    (void)state;
    bench b;
    bench_start(&b);
    /* The loader's own variables; both names, for older loaders know one only. */
    setenv("VK_DRIVER_FILES", "/nonexistent/driver.json", 1);
    setenv("VK_ICD_FILENAMES", "/nonexistent/driver.json", 1);
    size_t count = 99;
    hk_status listed = hk_gpu_list(b.ctx, NULL, 0, &count);
    hk_gpu *gpu = NULL;
    hk_status opened = hk_gpu_open(b.ctx, NULL, &gpu);
    unsetenv("VK_DRIVER_FILES");
    unsetenv("VK_ICD_FILENAMES");
    assert_int_equal(listed, HK_OK);
    assert_int_equal(count, 0);
    assert_fails(&b, opened, HK_STATUS_NO_DEVICE, "found no device");
    assert_null(gpu);
    bench_end(&b);
}

static void open_as(bench *b, const char *select)
{
    hk_device_params p = {.size = sizeof p, .cache_dir = "", .select = select};
    assert_ok(b, hk_gpu_open(b->ctx, &p, &b->gpu));
}

static void test_select(void **state)
{
    (void)state;
    bench b;
    bench_start(&b);
    hk_device_info infos[64];
    size_t count = 0;
    assert_ok(&b, hk_gpu_list(b.ctx, infos, 64, &count));
    for (size_t i = 0; i < count; i++) {
        if (!infos[i].usable)
            continue;
        char text[40];
        snprintf(text, sizeof text, "%zu", i);
        open_as(&b, text);
        assert_string_equal(hk_gpu_info(b.gpu)->uuid, infos[i].uuid);
        hk_gpu_close(&b.gpu);
        assert_null(b.gpu);
        snprintf(text, sizeof text, "%.8s-%.24s", infos[i].uuid, infos[i].uuid + 8);
        open_as(&b, text);
        assert_string_equal(hk_gpu_info(b.gpu)->uuid, infos[i].uuid);
        hk_gpu_close(&b.gpu);
        snprintf(text, sizeof text, "%.5s", infos[i].name + 1);
        for (char *c = text; *c != '\0'; c++)
            *c = (char)(*c >= 'a' && *c <= 'z' ? *c - 32 : *c);
        open_as(&b, text);
        assert_memory_equal(hk_gpu_info(b.gpu)->name, infos[i].name, 6);
        assert_ptr_equal(hk_gpu_context(b.gpu), b.ctx);
        hk_gpu_close(&b.gpu);
    }
    hk_device_params p = {.size = sizeof p, .cache_dir = "", .select = "no such device"};
    assert_fails(&b, hk_gpu_open(b.ctx, &p, &b.gpu), HK_STATUS_NO_DEVICE, infos[0].name);
    assert_null(b.gpu);
    bench_end(&b);
}

static void test_options(void **state)
{
    (void)state;
    bench b;
    bench_start(&b);
    hk_device_params p = {.size = sizeof p, .cache_dir = "", .caps = "-fp16,-nonsense"};
    assert_fails(&b, hk_gpu_open(b.ctx, &p, &b.gpu), HK_STATUS_USAGE, "-nonsense");
    p.caps = "fp16"; /* a capability cannot be switched on */
    assert_fails(&b, hk_gpu_open(b.ctx, &p, &b.gpu), HK_STATUS_USAGE, "'fp16'");
    p.caps = NULL;
    p.debug = "shuffle,shufle";
    assert_fails(&b, hk_gpu_open(b.ctx, &p, &b.gpu), HK_STATUS_USAGE, "shufle");
    p.debug = "shuffle, poison,";
    assert_ok(&b, hk_gpu_open(b.ctx, &p, &b.gpu));
    assert_int_equal(hk_gpu_debug(b.gpu), HK_DEBUG_SHUFFLE | HK_DEBUG_POISON);
    hk_gpu_close(&b.gpu);
    p.size = 0;
    assert_fails(&b, hk_gpu_open(b.ctx, &p, &b.gpu), HK_STATUS_USAGE, "size");

    static const char *const bad[][2] = {
        {"HILLOCK_CAPS", "minimum"}, {"HILLOCK_DEBUG", "all"}, {"HILLOCK_TIMEOUT_MS", "0"},
        {"HILLOCK_TIMEOUT_MS", "-1"}, {"HILLOCK_TIMEOUT_MS", "5s"}, {"HILLOCK_TIMEOUT_MS", "99999999999999999999"},
    };
    for (size_t i = 0; i < HK_COUNT(bad); i++) {
        char *before = getenv(bad[i][0]) != NULL ? strdup(getenv(bad[i][0])) : NULL;
        setenv(bad[i][0], bad[i][1], 1);
        hk_status st = hk_gpu_open(b.ctx, NULL, &b.gpu);
        if (before != NULL)
            setenv(bad[i][0], before, 1);
        else
            unsetenv(bad[i][0]);
        free(before);
        assert_fails(&b, st, HK_STATUS_CONFIG, bad[i][1]);
        assert_null(b.gpu);
    }
    bench_end(&b);
}

static void test_caps(void **state)
{
    (void)state;
    static const char *const names[] = {
#define X(name, text) text,
        HK_CAP_MAP(X)
#undef X
    };
    bench b;
    bench_start(&b);
    hk_device_params p = {.size = sizeof p, .cache_dir = "", .caps = ""};
    assert_ok(&b, hk_gpu_open(b.ctx, &p, &b.gpu));
    hk_device_info all = *hk_gpu_info(b.gpu);
    hk_coopmat_shape shape = {0, 0, 0};
    assert_int_equal(hk_gpu_coopmat_shape(b.gpu, &shape), hk_gpu_has(b.gpu, HK_CAP_COOPMAT));
    if (hk_gpu_has(b.gpu, HK_CAP_COOPMAT))
        assert_true(shape.m > 0 && shape.n > 0 && shape.k > 0);
    hk_gpu_close(&b.gpu);

    for (unsigned i = 0; i < HK_CAP_COUNT; i++) {
        if ((all.caps & 1u << i) == 0)
            continue;
        char text[32];
        snprintf(text, sizeof text, "-%s", names[i]);
        p.caps = text;
        assert_ok(&b, hk_gpu_open(b.ctx, &p, &b.gpu));
        uint32_t left = hk_gpu_info(b.gpu)->caps;
        assert_false(hk_gpu_has(b.gpu, (hk_cap)i));
        assert_int_equal(left & ~all.caps, 0);
        bool needed_by_others = i == HK_CAP_FP16 || i == HK_CAP_STORAGE16 || i == HK_CAP_COOPMAT;
        if (needed_by_others)
            assert_int_equal(left & (1u << HK_CAP_COOPMAT | 1u << HK_CAP_COOPMAT2 | 1u << HK_CAP_BF16), 0);
        else
            assert_int_equal(left, all.caps & ~(1u << i));
        hk_gpu_close(&b.gpu);
    }

    p.caps = "min";
    assert_ok(&b, hk_gpu_open(b.ctx, &p, &b.gpu));
    const hk_device_info *least = hk_gpu_info(b.gpu);
    assert_int_equal(least->caps, 0);
    assert_int_equal(least->max_invocations, 128);
    assert_int_equal(least->max_shared_bytes, 16384);
    assert_int_equal(least->max_grid, 65535);
    assert_false(hk_gpu_coopmat_shape(b.gpu, &shape));
    hk_gpu_buffer *x = counting_buffer(&b);
    hk_gpu_commands *c = NULL;
    assert_ok(&b, hk_gpu_commands_create(b.gpu, 2, &c));
    assert_ok(&b, hk_gpu_begin(c));
    hk_gpu_timestamp(c, 0);
    lcg_dispatch(c, lcg_pipeline(&b), x, COUNT, 0, 1);
    hk_gpu_barrier(c);
    assert_ok(&b, hk_gpu_end(c));
    uint64_t ticket = 0, ns;
    assert_ok(&b, hk_gpu_submit(b.gpu, &c, 1, &ticket));
    assert_ok(&b, hk_gpu_wait(b.gpu, ticket));
    expect_words(&b, x, chained, 1);
    assert_fails(&b, hk_gpu_timestamps(c, 1, &ns), HK_STATUS_UNSUPPORTED, "timestamps");
    hk_gpu_pipeline_key key = lcg_key(256, 1);
    hk_gpu_pipeline *none = NULL;
    assert_fails(&b, hk_gpu_pipelines(b.gpu, &key, 1, &none), HK_STATUS_INTERNAL, "selftest_lcg");
    hk_gpu_commands_destroy(b.gpu, &c);
    hk_gpu_buffer_destroy(b.gpu, &x);
    bench_end(&b);
}

/* ---------------------------------------------------------------- memory */

static void test_round_trips(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {1, 2, 3, 4, 5, 15, 16, 17, 255, 1023, 65535, 65536, 65537, 1000003};
    bench b;
    bench_open(&b);
    uint8_t *out = malloc(1000003), *back = malloc(1000003);
    assert_non_null(out);
    assert_non_null(back);
    for (int kind = HK_GPU_DEVICE; kind <= HK_GPU_READBACK; kind++) {
        for (size_t s = 0; s < HK_COUNT(sizes); s++) {
            uint64_t bytes = sizes[s];
            hk_gpu_buffer *x = NULL;
            assert_ok(&b, hk_gpu_buffer_create(b.gpu, (hk_gpu_memory)kind, bytes, "round trip", &x));
            assert_int_equal(hk_gpu_buffer_bytes(x), bytes);
            assert_true(hk_gpu_buffer_address(x) != 0 && hk_gpu_buffer_address(x) % 16 == 0);
            assert_int_equal(hk_gpu_buffer_mapped(x) == NULL, kind == HK_GPU_DEVICE);
            for (uint64_t i = 0; i < bytes; i++)
                out[i] = pattern(i, (uint32_t)s);
            assert_ok(&b, hk_gpu_upload(b.gpu, x, 0, out, bytes));
            /* A part in the middle, at odd places. */
            uint64_t at = bytes / 3, part = bytes / 2;
            for (uint64_t i = 0; i < part; i++)
                out[at + i] = pattern(i, 77);
            assert_ok(&b, hk_gpu_upload(b.gpu, x, at, out + at, part));
            memset(back, 0, (size_t)bytes);
            assert_ok(&b, hk_gpu_download(b.gpu, x, 0, back, bytes));
            assert_memory_equal(out, back, bytes);
            if (part > 0) {
                assert_ok(&b, hk_gpu_download(b.gpu, x, at, back, part));
                assert_memory_equal(out + at, back, part);
            }
            assert_fails(&b, hk_gpu_download(b.gpu, x, 1, back, bytes), HK_STATUS_INTERNAL, "beyond");
            assert_fails(&b, hk_gpu_upload(b.gpu, x, bytes + 1, out, UINT64_MAX), HK_STATUS_INTERNAL, "beyond");
            hk_gpu_buffer_destroy(b.gpu, &x);
            assert_null(x);
        }
    }
    free(out);
    free(back);
    bench_end(&b);
}

/* More pieces than staging has halves, so that both are used again. */
static void test_large_transfer(void **state)
{
    (void)state;
    const uint64_t bytes = 5 * 16 * 1024 * 1024 + 12345, offset = 7;
    bench b;
    bench_open(&b);
    uint8_t *out = malloc(bytes), *back = calloc(1, bytes);
    assert_non_null(out);
    assert_non_null(back);
    for (uint64_t i = 0; i < bytes; i++)
        out[i] = pattern(i, 3);
    hk_gpu_buffer *x = NULL;
    assert_ok(&b, hk_gpu_buffer_create(b.gpu, HK_GPU_DEVICE, bytes + offset, "large", &x));
    assert_ok(&b, hk_gpu_upload(b.gpu, x, offset, out, bytes));
    assert_ok(&b, hk_gpu_download(b.gpu, x, offset, back, bytes));
    assert_memory_equal(out, back, bytes);
    hk_device_stats stats;
    hk_gpu_stats(b.gpu, &stats);
    assert_true(stats.memory_bytes >= bytes && stats.memory_bytes <= bytes + 65 * 1024 * 1024);
    assert_int_equal(stats.peak_memory_bytes, stats.memory_bytes);
    assert_int_equal(stats.submits, 12);
    hk_gpu_buffer_destroy(b.gpu, &x);
    hk_gpu_stats(b.gpu, &stats);
    assert_true(stats.memory_bytes <= 65 * 1024 * 1024);
    free(out);
    free(back);
    bench_end(&b);
}

static void test_copy_and_fill(void **state)
{
    (void)state;
    bench b;
    bench_open(&b);
    hk_gpu_buffer *x = counting_buffer(&b), *y = NULL;
    assert_ok(&b, hk_gpu_buffer_create(b.gpu, HK_GPU_READBACK, 4 * COUNT, "copy", &y));
    hk_gpu_commands *c = NULL;
    assert_ok(&b, hk_gpu_commands_create(b.gpu, 0, &c));
    assert_ok(&b, hk_gpu_begin(c));
    hk_gpu_fill(c, y, 0, 4 * COUNT, 0xdeadbeef);
    hk_gpu_barrier(c);
    hk_gpu_copy(c, x, 40, y, 80, 400);
    hk_gpu_barrier_host(c);
    assert_ok(&b, hk_gpu_end(c));
    uint64_t ticket = 0;
    assert_ok(&b, hk_gpu_submit(b.gpu, &c, 1, &ticket));
    assert_ok(&b, hk_gpu_wait(b.gpu, ticket));
    assert_int_equal(hk_gpu_completed(b.gpu), ticket);
    const uint32_t *words = hk_gpu_buffer_mapped(y);
    for (uint32_t i = 0; i < COUNT; i++)
        assert_int_equal(words[i], i >= 20 && i < 120 ? i - 10 : 0xdeadbeef);
    hk_gpu_commands_destroy(b.gpu, &c);
    hk_gpu_buffer_destroy(b.gpu, &x);
    hk_gpu_buffer_destroy(b.gpu, &y);
    bench_end(&b);
}

static void test_over_budget(void **state)
{
    (void)state;
    bench b;
    bench_start(&b);
    hk_device_params p = {.size = sizeof p, .cache_dir = "", .max_memory_bytes = 1 << 20};
    assert_ok(&b, hk_gpu_open(b.ctx, &p, &b.gpu));
    hk_gpu_buffer *x = NULL, *y = NULL;
    assert_ok(&b, hk_gpu_buffer_create(b.gpu, HK_GPU_DEVICE, 600 * 1024, "weights", &x));
    assert_fails(&b, hk_gpu_buffer_create(b.gpu, HK_GPU_DEVICE, 600 * 1024, "activations", &y),
                 HK_STATUS_OUT_OF_MEMORY, "'activations' of 614400 bytes");
    assert_null(y);
    assert_fails(&b, hk_gpu_buffer_create(b.gpu, HK_GPU_DEVICE, (uint64_t)1 << 50, "absurd", &y),
                 HK_STATUS_OUT_OF_MEMORY, "absurd");
    assert_fails(&b, hk_gpu_buffer_create(b.gpu, HK_GPU_DEVICE, UINT64_MAX, "absurd", &y), HK_STATUS_OUT_OF_MEMORY,
                 "absurd");
    /* What is given back can be used again. */
    hk_gpu_buffer_destroy(b.gpu, &x);
    assert_ok(&b, hk_gpu_buffer_create(b.gpu, HK_GPU_DEVICE, 900 * 1024, "activations", &y));
    hk_gpu_buffer_destroy(b.gpu, &y);
    bench_end(&b);
}

/* Until the driver's own budget ends: software devices would go on for ever. */
static void test_heap_budget(void **state)
{
    (void)state;
#ifdef SANITIZED
    skip(); /* the sanitizer's allocator touches what the software device allocates */
#endif
    bench b;
    bench_open(&b);
    const hk_device_info *info = hk_gpu_info(b.gpu);
    uint64_t piece = info->max_allocation_bytes / 4096 * 4096;
    hk_gpu_buffer *list[128] = {NULL};
    size_t most = (size_t)HK_MIN(info->memory_bytes / piece + 1, (uint64_t)128), n = 0;
    hk_status st = HK_OK;
    while (n < most && st == HK_OK) {
        st = hk_gpu_buffer_create(b.gpu, HK_GPU_DEVICE, piece, "piece", &list[n]);
        n += st == HK_OK;
    }
    if (most < 128)
        assert_fails(&b, st, HK_STATUS_OUT_OF_MEMORY, "'piece'");
    for (size_t i = 0; i < n; i++)
        hk_gpu_buffer_destroy(b.gpu, &list[i]);
    bench_end(&b);
}

/* ---------------------------------------------------------------- recordings */

static void test_dispatch(void **state)
{
    (void)state;
    enum { FLOATS = 4 * 777 };
    bench b;
    bench_open(&b);
    float in[FLOATS], out[FLOATS] = {0};
    for (int i = 0; i < FLOATS; i++)
        in[i] = (float)i - 1000.0f;
    hk_gpu_buffer *x = NULL, *y = NULL;
    assert_ok(&b, hk_gpu_buffer_create(b.gpu, HK_GPU_UPLOAD, sizeof in, "x", &x));
    assert_ok(&b, hk_gpu_buffer_create(b.gpu, HK_GPU_DEVICE, sizeof in, "y", &y));
    memcpy(hk_gpu_buffer_mapped(x), in, sizeof in);
    hk_gpu_pipeline_key key = {.kernel = &hk_kernel_selftest_copy, .spec_count = 3, .spec = {32, 1, 1}};
    hk_gpu_pipeline *p = NULL;
    assert_ok(&b, hk_gpu_pipelines(b.gpu, &key, 1, &p));
    hk_gpu_commands *c = NULL;
    assert_ok(&b, hk_gpu_commands_create(b.gpu, 0, &c));
    assert_ok(&b, hk_gpu_begin(c));
    struct selftest_copy_push push = {hk_gpu_buffer_address(x), hk_gpu_buffer_address(y), FLOATS / 4, 0.5f};
    uint32_t grid[3] = {5, 5, 1}; /* 25 x 32 >= 777, folded */
    hk_gpu_dispatch(c, p, grid, &push, sizeof push);
    hk_gpu_barrier(c);
    assert_ok(&b, hk_gpu_end(c));
    uint64_t ticket = 0;
    assert_ok(&b, hk_gpu_submit(b.gpu, &c, 1, &ticket));
    assert_ok(&b, hk_gpu_download(b.gpu, y, 0, out, sizeof out));
    for (int i = 0; i < FLOATS; i++)
        assert_true(out[i] == in[i] * 0.5f);
    hk_gpu_commands_destroy(b.gpu, &c);
    hk_gpu_buffer_destroy(b.gpu, &x);
    hk_gpu_buffer_destroy(b.gpu, &y);
    bench_end(&b);
}

static void test_chain(void **state)
{
    (void)state;
    bench b;
    bench_open(&b);
    hk_gpu_buffer *x = counting_buffer(&b);
    hk_gpu_pipeline *p = lcg_pipeline(&b);
    hk_gpu_commands *c = NULL;
    assert_ok(&b, hk_gpu_commands_create(b.gpu, 0, &c));
    assert_ok(&b, hk_gpu_begin(c));
    for (uint32_t i = 0; i < 1000; i++) {
        lcg_dispatch(c, p, x, COUNT, i, 1);
        hk_gpu_barrier(c);
    }
    assert_ok(&b, hk_gpu_end(c));
    uint64_t ticket = 0;
    assert_ok(&b, hk_gpu_submit(b.gpu, &c, 1, &ticket));
    assert_ok(&b, hk_gpu_wait(b.gpu, ticket));
    expect_words(&b, x, chained, 1000);
    hk_gpu_commands_destroy(b.gpu, &c);
    hk_gpu_buffer_destroy(b.gpu, &x);
    bench_end(&b);
}

/* One recording submitted again and again while it is still running, several per submit. */
static void test_replay(void **state)
{
    (void)state;
    bench b;
    bench_open(&b);
    hk_gpu_buffer *x = counting_buffer(&b);
    hk_gpu_pipeline *p = lcg_pipeline(&b);
    hk_gpu_commands *list[20];
    for (size_t i = 0; i < HK_COUNT(list); i++)
        list[i] = NULL;
    assert_ok(&b, hk_gpu_commands_create(b.gpu, 0, &list[0]));
    assert_ok(&b, hk_gpu_begin(list[0]));
    hk_gpu_barrier(list[0]);
    lcg_dispatch(list[0], p, x, COUNT, 7, 1);
    assert_ok(&b, hk_gpu_end(list[0]));
    for (size_t i = 1; i < HK_COUNT(list); i++)
        list[i] = list[0];

    uint64_t tickets[51] = {0};
    assert_ok(&b, hk_gpu_download(b.gpu, x, 0, tickets, 4)); /* its recordings exist before the count */
    hk_device_stats before, after;
    hk_gpu_stats(b.gpu, &before);
    for (size_t i = 0; i < 50; i++)
        assert_ok(&b, hk_gpu_submit(b.gpu, list, 1 + i % HK_COUNT(list), &tickets[i]));
    assert_ok(&b, hk_gpu_submit(b.gpu, NULL, 0, &tickets[50]));
    for (size_t i = 1; i < HK_COUNT(tickets); i++)
        assert_true(tickets[i] > tickets[i - 1]);
    assert_ok(&b, hk_gpu_wait(b.gpu, tickets[20]));
    assert_true(hk_gpu_completed(b.gpu) >= tickets[20]);
    assert_ok(&b, hk_gpu_wait(b.gpu, tickets[50]));
    assert_ok(&b, hk_gpu_wait(b.gpu, tickets[3]));
    hk_gpu_stats(b.gpu, &after);
    assert_int_equal(after.submits - before.submits, 51);
    expect_words(&b, x, repeated, 2 * 210 + 55);

    /* Recorded anew, it does something else. */
    assert_ok(&b, hk_gpu_begin(list[0]));
    hk_gpu_fill(list[0], x, 0, 4 * COUNT, 0);
    hk_gpu_barrier(list[0]);
    assert_ok(&b, hk_gpu_end(list[0]));
    uint64_t ticket = 0;
    assert_ok(&b, hk_gpu_submit(b.gpu, list, 1, &ticket));
    uint32_t word = 1;
    assert_ok(&b, hk_gpu_download(b.gpu, x, 400, &word, 4));
    assert_int_equal(word, 0);
    hk_gpu_commands_destroy(b.gpu, &list[0]);
    hk_gpu_buffer_destroy(b.gpu, &x);
    bench_end(&b);
}

static void test_timestamps(void **state)
{
    (void)state;
    enum { STAMPS = 20 };
    bench b;
    bench_open(&b);
    if (!hk_gpu_has(b.gpu, HK_CAP_TIMESTAMPS)) {
        bench_end(&b);
        skip();
    }
    hk_gpu_buffer *x = counting_buffer(&b);
    hk_gpu_pipeline *p = lcg_pipeline(&b);
    hk_gpu_commands *c = NULL;
    assert_ok(&b, hk_gpu_commands_create(b.gpu, STAMPS, &c));
    uint64_t ns[STAMPS + 1] = {0}, ticket = 0;
    for (int recorded = 0; recorded < 2; recorded++) {
        assert_ok(&b, hk_gpu_begin(c));
        for (uint32_t i = 0; i < STAMPS; i++) {
            hk_gpu_timestamp(c, i);
            lcg_dispatch(c, p, x, COUNT, 1, 1000);
            hk_gpu_barrier(c);
        }
        assert_ok(&b, hk_gpu_end(c));
        for (int run = 0; run < 2; run++) { /* the recording resets its own timestamps */
            assert_ok(&b, hk_gpu_submit(b.gpu, &c, 1, &ticket));
            assert_ok(&b, hk_gpu_wait(b.gpu, ticket));
            assert_ok(&b, hk_gpu_timestamps(c, STAMPS, ns));
            for (size_t i = 1; i < STAMPS; i++)
                assert_true(ns[i] >= ns[i - 1]);
            assert_true(ns[STAMPS - 1] > ns[0]);
            assert_true(ns[STAMPS - 1] - ns[0] < 60000000000u);
        }
    }
    assert_fails(&b, hk_gpu_timestamps(c, STAMPS + 1, ns), HK_STATUS_UNSUPPORTED, "timestamps");
    hk_gpu_commands_destroy(b.gpu, &c);
    hk_gpu_buffer_destroy(b.gpu, &x);
    bench_end(&b);
}

static void test_misuse(void **state)
{
    (void)state;
    bench b;
    bench_open(&b);
    hk_gpu_buffer *x = counting_buffer(&b);
    hk_gpu_pipeline *p = lcg_pipeline(&b);
    hk_gpu_commands *c = NULL;
    assert_ok(&b, hk_gpu_commands_create(b.gpu, b.gpu != NULL, &c));
    uint64_t ticket = 77;
    assert_fails(&b, hk_gpu_submit(b.gpu, &c, 1, &ticket), HK_STATUS_INTERNAL, "not recorded");
    assert_int_equal(ticket, 77);
    assert_fails(&b, hk_gpu_wait(b.gpu, 1000), HK_STATUS_USAGE, "1000");

    uint32_t huge[3] = {hk_gpu_info(b.gpu)->max_grid, hk_gpu_info(b.gpu)->max_grid, 1}, word = 0;
    huge[1] += huge[1] < UINT32_MAX;
    for (int mistake = 0; mistake < 6; mistake++) {
        assert_ok(&b, hk_gpu_begin(c));
        switch (mistake) {
        case 0:
            hk_gpu_dispatch(c, p, huge, NULL, 0);
            break;
        case 1:
            hk_gpu_dispatch(c, p, (uint32_t[]){1, 1, 1}, &word, 3);
            break;
        case 2:
            hk_gpu_copy(c, x, 4 * COUNT - 3, x, 0, 4);
            break;
        case 3:
            hk_gpu_fill(c, x, 2, 4, 0);
            break;
        case 4:
            hk_gpu_fill(c, x, 4 * COUNT, 4, 0);
            break;
        default:
            hk_gpu_dispatch(c, p, (uint32_t[]){1, 1, 1}, &word, HK_PUSH_MAX + 4);
            break;
        }
        assert_fails(&b, hk_gpu_end(c), HK_STATUS_INTERNAL, "recording");
        assert_fails(&b, hk_gpu_submit(b.gpu, &c, 1, &ticket), HK_STATUS_INTERNAL, "not recorded");
    }
    /* Nothing to do is no mistake. */
    assert_ok(&b, hk_gpu_begin(c));
    hk_gpu_dispatch(c, p, (uint32_t[]){4, 0, 1}, NULL, 0);
    hk_gpu_copy(c, x, 0, x, 0, 0);
    hk_gpu_fill(c, x, 0, 0, 0);
    assert_ok(&b, hk_gpu_end(c));
    assert_ok(&b, hk_gpu_submit(b.gpu, &c, 1, &ticket));
    expect_words(&b, x, chained, 0);

    hk_gpu_buffer *none = NULL;
    assert_fails(&b, hk_gpu_buffer_create(b.gpu, HK_GPU_DEVICE, 0, "empty", &none), HK_STATUS_INTERNAL, "empty");
    hk_gpu_commands_destroy(b.gpu, &c);
    hk_gpu_buffer_destroy(b.gpu, &x);
    bench_end(&b);
}

/* ---------------------------------------------------------------- pipelines */

static void test_pipelines_shared(void **state)
{
    (void)state;
    enum { KEYS = 12 };
    bench b;
    bench_open(&b);
    hk_gpu_pipeline_key keys[KEYS];
    for (uint32_t i = 0; i < KEYS; i++)
        keys[i] = lcg_key(i % 2 == 0 ? 32 : 64, i / 2 % 3);
    hk_gpu_pipeline *out[KEYS] = {NULL}, *again[KEYS] = {NULL};
    assert_ok(&b, hk_gpu_pipelines(b.gpu, keys, KEYS, out));
    for (size_t i = 0; i < KEYS; i++)
        for (size_t j = 0; j < KEYS; j++)
            assert_int_equal(out[i] == out[j], i % 6 == j % 6);
    hk_device_stats stats;
    hk_gpu_stats(b.gpu, &stats);
    assert_int_equal(stats.pipelines_created, 6);
    keys[3].spec[40] = 9; /* behind spec_count: no part of the key */
    assert_ok(&b, hk_gpu_pipelines(b.gpu, keys, KEYS, again));
    assert_memory_equal(out, again, sizeof out);
    hk_gpu_stats(b.gpu, &stats);
    assert_int_equal(stats.pipelines_created, 6);

    /* A required subgroup size is another pipeline where the device can require one. */
    keys[0].subgroup_size = hk_gpu_info(b.gpu)->subgroup_size;
    assert_ok(&b, hk_gpu_pipelines(b.gpu, keys, 1, again));
    assert_int_equal(again[0] != out[0], hk_gpu_has(b.gpu, HK_CAP_SUBGROUP_SIZE));

    /* Each of them does what its constants say. */
    for (uint32_t i = 0; i < 6; i++) {
        hk_gpu_buffer *x = counting_buffer(&b);
        hk_gpu_commands *c = NULL;
        assert_ok(&b, hk_gpu_commands_create(b.gpu, 0, &c));
        assert_ok(&b, hk_gpu_begin(c));
        struct selftest_lcg_push push = {hk_gpu_buffer_address(x), COUNT, 5, 2};
        hk_gpu_dispatch(c, out[i], (uint32_t[]){(COUNT + 31) / 32, 1, 1}, &push, 20);
        hk_gpu_barrier(c);
        assert_ok(&b, hk_gpu_end(c));
        uint64_t ticket = 0;
        assert_ok(&b, hk_gpu_submit(b.gpu, &c, 1, &ticket));
        uint32_t words[COUNT];
        assert_ok(&b, hk_gpu_download(b.gpu, x, 0, words, sizeof words));
        uint32_t m = i / 2 % 3;
        for (uint32_t w = 0; w < COUNT; w++)
            assert_int_equal(words[w], (w * m + 5) * m + 5);
        hk_gpu_commands_destroy(b.gpu, &c);
        hk_gpu_buffer_destroy(b.gpu, &x);
    }
    bench_end(&b);
}

static void test_pipelines_refused(void **state)
{
    (void)state;
    bench b;
    bench_open(&b);
    hk_kernel missing = {"missing_kernel", NULL, 0, 0};
    hk_gpu_pipeline_key keys[2] = {lcg_key(GROUP, 1), {.kernel = &missing, .spec_count = 3, .spec = {1, 1, 1}}};
    hk_gpu_pipeline *out[2] = {NULL, NULL};
    assert_fails(&b, hk_gpu_pipelines(b.gpu, keys, 2, out), HK_STATUS_UNSUPPORTED, "missing_kernel");
    hk_kernel needy = hk_kernel_selftest_lcg;
    needy.name = "needy_kernel";
    needy.needs = 1u << HK_CAP_COUNT;
    keys[1].kernel = &needy;
    assert_fails(&b, hk_gpu_pipelines(b.gpu, keys, 2, out), HK_STATUS_INTERNAL, "needy_kernel");
    keys[1] = lcg_key(0, 1);
    assert_fails(&b, hk_gpu_pipelines(b.gpu, keys, 2, out), HK_STATUS_INTERNAL, "workgroup size 0");
    keys[1] = lcg_key(1u << 20, 1);
    assert_fails(&b, hk_gpu_pipelines(b.gpu, keys, 2, out), HK_STATUS_INTERNAL, "selftest_lcg");
    assert_null(out[0]);
    hk_device_stats stats;
    hk_gpu_stats(b.gpu, &stats);
    assert_int_equal(stats.pipelines_created, 0);
    assert_ok(&b, hk_gpu_pipelines(b.gpu, keys, 1, out));
    bench_end(&b);
}

/* ---------------------------------------------------------------- disk cache */

static char cache_dir[64];

/* The only file in the cache folder; false when there is none. Two or more are a failure: temporary ones were left. */
static bool cache_file(char path[512])
{
    DIR *d = opendir(cache_dir);
    if (d == NULL)
        return false;
    bool found = false;
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        if (e->d_name[0] == '.')
            continue;
        assert_false(found);
        found = true;
        snprintf(path, 512, "%s/%s", cache_dir, e->d_name);
    }
    closedir(d);
    return found;
}

static void remove_cache(void)
{
    char path[512];
    if (cache_file(path))
        remove(path);
    rmdir(cache_dir);
}

/* Opens with the cache folder, makes two pipelines, closes; the stats in between. */
static hk_device_stats use_cache(bench *b)
{
    bench_start(b);
    hk_device_params p = {.size = sizeof p, .cache_dir = cache_dir};
    assert_ok(b, hk_gpu_open(b->ctx, &p, &b->gpu));
    hk_gpu_pipeline_key keys[2] = {lcg_key(GROUP, 11), lcg_key(GROUP, 12)};
    hk_gpu_pipeline *out[2];
    assert_ok(b, hk_gpu_pipelines(b->gpu, keys, 2, out));
    hk_device_stats stats;
    hk_gpu_stats(b->gpu, &stats);
    hk_gpu_close(&b->gpu);
    bench_end(b);
    return stats;
}

static size_t read_whole(const char *path, unsigned char **data)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    *data = malloc(16 << 20);
    assert_non_null(*data);
    size_t n = fread(*data, 1, 16 << 20, f);
    fclose(f);
    return n;
}

static void write_whole(const char *path, const void *data, size_t bytes)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, bytes, f), bytes);
    assert_int_equal(fclose(f), 0);
}

static void test_disk_cache(void **state)
{
    (void)state;
    snprintf(cache_dir, sizeof cache_dir, "test-gpu-cache-%d/deep/er", (int)getpid());
    char path[512];
    bench b;
    hk_device_stats first = use_cache(&b);
    assert_int_equal(first.pipelines_created, 2);
    assert_true(cache_file(path));
    struct stat before, after;
    assert_int_equal(stat(path, &before), 0);
    assert_int_equal(before.st_mode & 077, 0);

    hk_device_stats second = use_cache(&b);
    assert_int_equal(second.pipelines_created, 2);
    assert_int_equal(b.warnings, 0);
    /* Mesa's software device keeps its own cache and hands over an empty one: 64 bytes are ours, 32 Vulkan's header. */
    if (before.st_size > 64 + 32)
        assert_int_equal(second.pipelines_compiled, 0);
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(after.st_ino, before.st_ino); /* it did not grow, so it was not written */

    unsigned char *good;
    size_t bytes = read_whole(path, &good);
    unsigned char *bad = malloc(bytes + 1);
    assert_non_null(bad);
    size_t places[] = {0, 9, 13, 17, 25, 41, 49, 57, 64, bytes / 2, bytes - 1};
    for (size_t i = 0; i < HK_COUNT(places); i++) {
        memcpy(bad, good, bytes);
        bad[places[i]] ^= 0x10;
        write_whole(path, bad, bytes);
        hk_device_stats stats = use_cache(&b);
        assert_int_equal(stats.pipelines_created, 2);
        assert_int_equal(b.warnings, 1); /* ignored, with a line, then written anew */
        use_cache(&b);
        assert_int_equal(b.warnings, 0);
    }
    const size_t lengths[] = {0, 1, 63, 64, bytes - 1, bytes + 1};
    memcpy(bad, good, bytes);
    bad[bytes] = 0;
    for (size_t i = 0; i < HK_COUNT(lengths); i++) {
        write_whole(path, bad, lengths[i]);
        use_cache(&b);
        assert_int_equal(b.warnings, 1);
    }
    /* Something that is no file at all, which cannot be replaced, either. */
    assert_int_equal(remove(path), 0);
    assert_int_equal(mkdir(path, 0700), 0);
    use_cache(&b);
    assert_int_equal(b.warnings, 2);
    free(good);
    free(bad);
    remove_cache();
    char *slash = strrchr(cache_dir, '/');
    *slash = '\0';
    rmdir(cache_dir);
    *strrchr(cache_dir, '/') = '\0';
    assert_int_equal(rmdir(cache_dir), 0);
}

/* ---------------------------------------------------------------- failures */

/* Everything once. Fails at the first failure, after giving everything back, though the device may be at work on it. */
static hk_status scenario(bench *b)
{
    enum { STAMPS = 2 };
    hk_gpu *gpu = NULL;
    hk_gpu_buffer *x = NULL, *y = NULL;
    hk_gpu_commands *c = NULL;
    uint32_t words[COUNT] = {1, 2, 3};
    uint64_t ticket = 0, ns[STAMPS];
    hk_device_params p = {.size = sizeof p, .cache_dir = cache_dir};
#define STEP(call)                                                                                                     \
    do {                                                                                                               \
        st = (call);                                                                                                   \
        if (st != HK_OK)                                                                                               \
            goto out;                                                                                                  \
    } while (0)
    hk_status st;
    size_t count = 0;
    hk_device_info info;
    STEP(hk_gpu_list(b->ctx, &info, 1, &count));
    STEP(hk_gpu_open(b->ctx, &p, &gpu));
    STEP(hk_gpu_buffer_create(gpu, HK_GPU_DEVICE, sizeof words, "x", &x));
    STEP(hk_gpu_buffer_create(gpu, HK_GPU_READBACK, sizeof words, "y", &y));
    STEP(hk_gpu_upload(gpu, x, 0, words, sizeof words));
    hk_gpu_pipeline_key keys[3] = {lcg_key(GROUP, 1), lcg_key(GROUP, 2), lcg_key(GROUP, 3)};
    hk_gpu_pipeline *pipelines[3] = {NULL};
    STEP(hk_gpu_pipelines(gpu, keys, 3, pipelines));
    STEP(hk_gpu_commands_create(gpu, STAMPS, &c));
    STEP(hk_gpu_begin(c));
    hk_gpu_timestamp(c, 0);
    lcg_dispatch(c, pipelines[2], x, COUNT, 1, 20000); /* long enough to be running when the wait fails */
    hk_gpu_timestamp(c, 1);
    hk_gpu_barrier(c);
    hk_gpu_copy(c, x, 0, y, 0, sizeof words);
    hk_gpu_barrier_host(c);
    STEP(hk_gpu_end(c));
    STEP(hk_gpu_submit(gpu, &c, 1, &ticket));
    STEP(hk_gpu_submit(gpu, &c, 1, &ticket));
    STEP(hk_gpu_wait(gpu, ticket));
    if (hk_gpu_has(gpu, HK_CAP_TIMESTAMPS))
        STEP(hk_gpu_timestamps(c, STAMPS, ns));
    STEP(hk_gpu_download(gpu, x, 0, words, sizeof words));
    if (memcmp(words, hk_gpu_buffer_mapped(y), sizeof words) != 0)
        st = HK_STATUS_MISMATCH;
#undef STEP
out:
    hk_gpu_commands_destroy(gpu, &c);
    hk_gpu_buffer_destroy(gpu, &x);
    hk_gpu_buffer_destroy(gpu, &y);
    hk_gpu_close(&gpu);
    return st;
}

static void test_every_call_fails(void **state)
{
    (void)state;
    static const int results[] = {OUT_OF_HOST_MEMORY, LOST};
    static const hk_status expected[] = {HK_STATUS_OUT_OF_MEMORY, HK_STATUS_DEVICE_LOST};
    snprintf(cache_dir, sizeof cache_dir, "test-gpu-cache-%d", (int)getpid());
    for (size_t r = 0; r < HK_COUNT(results); r++) {
        uint64_t n = 1;
        for (;; n++) {
            remove_cache(); /* so that it is written each time */
            bench b;
            bench_start(&b);
            hk_gpu_fail_call(NULL, n, results[r]);
            hk_status st = scenario(&b);
            bool pending = hk_gpu_fail_pending();
            hk_gpu_fail_call(NULL, 0, 0);
            if (pending) {
                assert_ok(&b, st);
                bench_end(&b);
                break;
            }
            if (st == HK_OK)
                assert_int_equal(b.warnings, 1); /* the disk cache of a device that is being closed */
            else
                assert_fails(&b, st, expected[r], "vk");
            bench_end(&b);
        }
        print_message("%llu calls failed once each with %d\n", (unsigned long long)(n - 1), results[r]);
        assert_in_range(n, 50, 1000);
    }
    remove_cache();
}

static void test_every_allocation_fails(void **state)
{
    (void)state;
    snprintf(cache_dir, sizeof cache_dir, "test-gpu-cache-%d", (int)getpid());
    uint64_t n = 1;
    for (;; n++) {
        bench b;
        bench_start(&b);
        b.fail_after = n;
        hk_status st = scenario(&b);
        if (b.fail_after > 0) {
            assert_ok(&b, st);
            bench_end(&b);
            break;
        }
        if (st != HK_OK) /* without memory there is no disk cache, but everything else */
            assert_fails(&b, st, HK_STATUS_OUT_OF_MEMORY, "out of host memory");
        bench_end(&b);
    }
    print_message("%llu allocations failed once each\n", (unsigned long long)(n - 1));
    assert_in_range(n, 15, 1000);
    remove_cache();
}

static void test_named_call_fails(void **state)
{
    (void)state;
    bench b;
    bench_open(&b);
    hk_gpu_buffer *x = NULL;
    hk_gpu_fail_call("vkMapMemory", 2, -5);
    assert_ok(&b, hk_gpu_buffer_create(b.gpu, HK_GPU_UPLOAD, 100, "first", &x));
    hk_gpu_buffer_destroy(b.gpu, &x);
    assert_true(hk_gpu_fail_pending());
    assert_fails(&b, hk_gpu_buffer_create(b.gpu, HK_GPU_UPLOAD, 100, "second", &x), HK_STATUS_OUT_OF_MEMORY,
                 "buffer 'second' of 100 bytes (0.0 MiB): vkMapMemory returned VK_ERROR_MEMORY_MAP_FAILED (-5)");
    assert_false(hk_gpu_fail_pending());
    /* Out of one memory, the other is tried: on devices with one type of memory alone this fails. */
    hk_gpu_fail_call("vkAllocateMemory", 1, OUT_OF_DEVICE_MEMORY);
    hk_status st = hk_gpu_buffer_create(b.gpu, HK_GPU_UPLOAD, 100, "third", &x);
    assert_true(st == HK_OK || st == HK_STATUS_OUT_OF_MEMORY);
    hk_gpu_fail_call(NULL, 0, 0);
    hk_device_stats stats;
    hk_gpu_buffer_destroy(b.gpu, &x);
    hk_gpu_stats(b.gpu, &stats);
    assert_int_equal(stats.memory_bytes, 0);
    bench_end(&b);
}

/* Lost once, lost for good; another device is not. */
static void test_device_lost(void **state)
{
    (void)state;
    bench b;
    bench_open(&b);
    hk_gpu_buffer *x = counting_buffer(&b), *y = NULL;
    hk_gpu_pipeline *p = lcg_pipeline(&b);
    hk_gpu_commands *c = NULL, *d = NULL;
    assert_ok(&b, hk_gpu_commands_create(b.gpu, 0, &c));
    assert_ok(&b, hk_gpu_begin(c));
    lcg_dispatch(c, p, x, COUNT, 1, 1000);
    hk_gpu_barrier(c);
    assert_ok(&b, hk_gpu_end(c));
    uint64_t ticket = 0;
    assert_ok(&b, hk_gpu_submit(b.gpu, &c, 1, &ticket));
    hk_gpu_fail_call("vkQueueSubmit", 1, LOST);
    uint64_t unused = 0;
    assert_fails(&b, hk_gpu_submit(b.gpu, &c, 1, &unused), HK_STATUS_DEVICE_LOST, "vkQueueSubmit");
    assert_fails(&b, hk_gpu_submit(b.gpu, &c, 1, &unused), HK_STATUS_DEVICE_LOST, "lost earlier");
    assert_fails(&b, hk_gpu_wait(b.gpu, ticket), HK_STATUS_DEVICE_LOST, "lost earlier");
    assert_fails(&b, hk_gpu_begin(c), HK_STATUS_DEVICE_LOST, "lost earlier");
    assert_fails(&b, hk_gpu_buffer_create(b.gpu, HK_GPU_DEVICE, 4, "y", &y), HK_STATUS_DEVICE_LOST, "lost earlier");
    assert_fails(&b, hk_gpu_commands_create(b.gpu, 0, &d), HK_STATUS_DEVICE_LOST, "lost earlier");
    assert_fails(&b, hk_gpu_upload(b.gpu, x, 0, &ticket, 4), HK_STATUS_DEVICE_LOST, "lost earlier");
    hk_gpu_buffer_destroy(b.gpu, &x);
    hk_gpu_commands_destroy(b.gpu, &c);
    hk_gpu_close(&b.gpu);
    hk_device_params params = {.size = sizeof params, .cache_dir = ""};
    assert_ok(&b, hk_gpu_open(b.ctx, &params, &b.gpu));
    x = counting_buffer(&b);
    expect_words(&b, x, chained, 0);
    hk_gpu_buffer_destroy(b.gpu, &x);
    bench_end(&b);
}

/* A recording of one invocation that runs for about the wished time, measured on the way. */
static hk_gpu_commands *slow_commands(bench *b, const hk_gpu_buffer *x, double wished)
{
    hk_gpu_pipeline *p = lcg_pipeline(b);
    hk_gpu_commands *c = NULL;
    assert_ok(b, hk_gpu_commands_create(b->gpu, 0, &c));
    double took = 0;
    uint32_t rounds = 1000000;
    for (;;) {
        assert_ok(b, hk_gpu_begin(c));
        lcg_dispatch(c, p, x, 1, 1, rounds);
        hk_gpu_barrier(c);
        assert_ok(b, hk_gpu_end(c));
        if (took > 0.03)
            return c;
        double start = seconds();
        uint64_t ticket = 0;
        assert_ok(b, hk_gpu_submit(b->gpu, &c, 1, &ticket));
        assert_ok(b, hk_gpu_wait(b->gpu, ticket));
        took = seconds() - start;
        double factor = took > 0.03 ? wished / took : 4.0;
        rounds = (uint32_t)HK_MIN((double)rounds * factor, 4e9);
    }
}

static void submit_until_timeout(bench *b, double wished)
{
    setenv("HILLOCK_TIMEOUT_MS", "150", 1);
    bench_start(b);
    hk_device_params p = {.size = sizeof p, .cache_dir = ""};
    hk_status st = hk_gpu_open(b->ctx, &p, &b->gpu);
    unsetenv("HILLOCK_TIMEOUT_MS");
    assert_ok(b, st);
    hk_gpu_buffer *x = counting_buffer(b);
    hk_gpu_commands *c = slow_commands(b, x, wished);
    uint64_t ticket = 0;
    assert_ok(b, hk_gpu_submit(b->gpu, &c, 1, &ticket));
    double start = seconds();
    assert_fails(b, hk_gpu_wait(b->gpu, ticket), HK_STATUS_DEVICE_LOST, "within 150 ms");
    assert_true(seconds() - start < 1.0);
    assert_fails(b, hk_gpu_wait(b->gpu, ticket), HK_STATUS_DEVICE_LOST, "lost earlier");
    /* Whoever gives up gives everything back at once, though the device still works on it. */
    hk_gpu_buffer_destroy(b->gpu, &x);
    hk_gpu_commands_destroy(b->gpu, &c);
}

static void test_timeout(void **state)
{
    (void)state;
    bench b;
    submit_until_timeout(&b, 1.0);
    bench_end(&b); /* waits for the end, which comes */
    assert_int_equal(b.warnings, 0);
}

static void test_abandoned(void **state)
{
    (void)state;
#ifdef SANITIZED
    skip(); /* what is abandoned is leaked, on purpose */
#endif
    bench b;
    double start = seconds();
    submit_until_timeout(&b, 6.0);
    bench_end(&b); /* does not wait for ever */
    assert_int_equal(b.warnings, 1);
    assert_non_null(strstr(b.last, "still running"));
    assert_true(seconds() - start < 6.0);
}

/* ---------------------------------------------------------------- validation */

static bool open_validated(bench *b, const char *debug)
{
    bench_start(b);
    hk_device_params p = {.size = sizeof p, .cache_dir = "", .debug = debug};
    hk_status st = hk_gpu_open(b->ctx, &p, &b->gpu);
    if (st == HK_STATUS_CONFIG) {
        assert_non_null(strstr(hk_context_error(b->ctx), "VK_LAYER_KHRONOS_validation"));
        bench_end(b);
        return false; /* this machine has no validation layer */
    }
    assert_ok(b, st);
    return true;
}

/* A planted mistake of each kind fails the call in which the layer sees it. */
static void test_validation_reports(void **state)
{
    (void)state;
    bench b;
    if (!open_validated(&b, "validate"))
        skip();
    hk_gpu_buffer *x = counting_buffer(&b), *y = counting_buffer(&b);
    hk_gpu_commands *c = NULL;
    assert_ok(&b, hk_gpu_commands_create(b.gpu, 0, &c));

    /* A copy onto itself: a valid-usage rule. */
    assert_ok(&b, hk_gpu_begin(c));
    hk_gpu_copy(c, x, 0, x, 4, 400);
    assert_fails(&b, hk_gpu_end(c), HK_STATUS_INTERNAL, "validation layer reports");
    assert_non_null(strstr(hk_context_error(b.ctx), "VUID-vkCmdCopyBuffer"));

    /* A missing barrier: synchronization validation. */
    assert_ok(&b, hk_gpu_begin(c));
    hk_gpu_copy(c, x, 0, y, 0, 400);
    hk_gpu_copy(c, y, 0, x, 400, 400);
    assert_fails(&b, hk_gpu_end(c), HK_STATUS_INTERNAL, "SYNC-HAZARD-READ-AFTER-WRITE");

    /* With it, nothing is said. */
    assert_ok(&b, hk_gpu_begin(c));
    hk_gpu_copy(c, x, 0, y, 0, 400);
    hk_gpu_barrier(c);
    hk_gpu_copy(c, y, 0, x, 400, 400);
    assert_ok(&b, hk_gpu_end(c));

    hk_gpu_commands_destroy(b.gpu, &c);
    hk_gpu_buffer_destroy(b.gpu, &x);
#ifdef SANITIZED
    hk_gpu_buffer_destroy(b.gpu, &y);
#else
    /* A leaked buffer is told when the device is closed. */
    hk_gpu_buffer *leaked = y;
    hk_gpu_close(&b.gpu);
    assert_int_equal(b.errors, 1);
    assert_non_null(strstr(b.last, "VUID-vkDestroyDevice"));
    b.errors = 0;
    counting_realloc(&b, leaked, 0);
#endif
    bench_end(&b);
}

/* ---------------------------------------------------------------- threads */

/* A thread must not use cmocka's assertions: it only says how it went. */
static void *run_scenarios(void *argument)
{
    bench *b = argument;
    for (int i = 0; i < 3; i++)
        if (scenario(b) != HK_OK)
            return "failed";
    return NULL;
}

static void test_contexts_in_threads(void **state)
{
    (void)state;
    snprintf(cache_dir, sizeof cache_dir, "test-gpu-cache-%d", (int)getpid());
    bench benches[3];
    pthread_t threads[3];
    for (size_t i = 0; i < HK_COUNT(threads); i++) {
        bench_start(&benches[i]);
        assert_int_equal(pthread_create(&threads[i], NULL, run_scenarios, &benches[i]), 0);
    }
    for (size_t i = 0; i < HK_COUNT(threads); i++) {
        void *result = "not joined";
        assert_int_equal(pthread_join(threads[i], &result), 0);
        if (result != NULL)
            fail_msg("thread %zu: %s", i, hk_context_error(benches[i].ctx));
        bench_end(&benches[i]);
    }
    remove_cache();
}

/* An argument is a pattern of test names to run. */
int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    bench b;
    bench_start(&b);
    hk_gpu *gpu = NULL;
    if (hk_gpu_open(b.ctx, NULL, &gpu) == HK_STATUS_NO_DEVICE) {
        print_message("skipped: %s\n", hk_context_error(b.ctx));
        hk_context_destroy(&b.ctx);
        return 77;
    }
    hk_gpu_close(&gpu);
    hk_context_destroy(&b.ctx);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_no_driver),
        cmocka_unit_test(test_select),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_caps),
        cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_large_transfer),
        cmocka_unit_test(test_copy_and_fill),
        cmocka_unit_test(test_over_budget),
        cmocka_unit_test(test_heap_budget),
        cmocka_unit_test(test_dispatch),
        cmocka_unit_test(test_chain),
        cmocka_unit_test(test_replay),
        cmocka_unit_test(test_timestamps),
        cmocka_unit_test(test_misuse),
        cmocka_unit_test(test_pipelines_shared),
        cmocka_unit_test(test_pipelines_refused),
        cmocka_unit_test(test_disk_cache),
        cmocka_unit_test(test_every_call_fails),
        cmocka_unit_test(test_every_allocation_fails),
        cmocka_unit_test(test_named_call_fails),
        cmocka_unit_test(test_device_lost),
        cmocka_unit_test(test_timeout),
        cmocka_unit_test(test_validation_reports),
        cmocka_unit_test(test_contexts_in_threads),
        cmocka_unit_test(test_abandoned),
    };
    return cmocka_run_group_tests_name("gpu", tests, NULL, NULL);
}
