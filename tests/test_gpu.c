/*
 * The device layer, on whatever device HILLOCK_DEVICE names. HILLOCK_DEBUG=validate runs all of it under the validation
 * layer, which must stay silent.
 */
#include "tests/support/gpu_bench.h"

#include <stdio.h>
#include <stdlib.h>

#include "gpu/internal.h"
#include "shaders/selftest_copy.push.h"
#include "shaders/selftest_lcg.push.h"

static uint8_t pattern(uint64_t i, uint32_t seed)
{
    return (uint8_t)((i * 2654435761u + seed) >> 13);
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
        {"HILLOCK_CAPS", "minimum"},  {"HILLOCK_DEBUG", "all"},     {"HILLOCK_TIMEOUT_MS", "0"},
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
    assert_int_equal(hk_gpu_int8_shape(b.gpu, &shape), hk_gpu_has(b.gpu, HK_CAP_INT8_MATRIX));
    if (hk_gpu_has(b.gpu, HK_CAP_INT8_MATRIX))
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
            assert_int_equal(
                left & (1u << HK_CAP_COOPMAT | 1u << HK_CAP_COOPMAT2 | 1u << HK_CAP_BF16 | 1u << HK_CAP_INT8_MATRIX),
                0);
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
    assert_fails(&b, hk_gpu_buffer_create(b.gpu, HK_GPU_DEVICE, 600 * 1024, "activations", &y), HK_STATUS_OUT_OF_MEMORY,
                 "'activations' of 614400 bytes");
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
        case 0: hk_gpu_dispatch(c, p, huge, NULL, 0); break;
        case 1: hk_gpu_dispatch(c, p, (uint32_t[]){1, 1, 1}, &word, 3); break;
        case 2: hk_gpu_copy(c, x, 4 * COUNT - 3, x, 0, 4); break;
        case 3: hk_gpu_fill(c, x, 2, 4, 0); break;
        case 4: hk_gpu_fill(c, x, 4 * COUNT, 4, 0); break;
        default: hk_gpu_dispatch(c, p, (uint32_t[]){1, 1, 1}, &word, HK_PUSH_MAX + 4); break;
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

/* Software devices get pruned modules; here the validation layer, if it is on, sees each kernel as it is. */
static void test_kernels_whole(void **state)
{
    (void)state;
    bench b;
    bench_open(&b);
    hk_vk *vk = &b.gpu->vk;
    for (size_t i = 0; hk_kernels[i] != NULL; i++) {
        const hk_kernel *k = hk_kernels[i];
        if (k->spirv == NULL || (k->needs & ~b.gpu->info.caps) != 0)
            continue;
        VkShaderModuleCreateInfo info = {
            .sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO, .codeSize = k->spirv_bytes, .pCode = k->spirv};
        VkShaderModule module = VK_NULL_HANDLE;
        assert_int_equal(vk->vkCreateShaderModule(b.gpu->device, &info, NULL, &module), VK_SUCCESS);
        vk->vkDestroyShaderModule(b.gpu->device, module, NULL);
        hk_status st = hk_vk_settle(vk, HK_OK);
        if (st != HK_OK)
            fail_msg("kernel '%s': %s", k->name, hk_context_error(b.ctx));
    }
    bench_end(&b);
}

static const struct CMUnitTest tests[] = {
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
    cmocka_unit_test(test_kernels_whole),
};
BENCH_MAIN("gpu", tests)
