/*
 * The device layer when things go wrong: broken cache files, every call and allocation failing once, lost and hanging
 * devices, mistakes that the validation layer sees, several threads.
 */
#include "tests/support/gpu_bench.h"

#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Of VkResult, which the device layer's users do not see. */
enum { OUT_OF_HOST_MEMORY = -1, OUT_OF_DEVICE_MEMORY = -2, LOST = -4 };

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
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
            if (st == HK_OK) /* the disk cache of a device that is being closed, or other memory was there */
                assert_int_equal(b.failed_calls, 1);
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

enum { TIMEOUT_MS = 150 };

static hk_gpu_commands *record_slow(bench *b, const hk_gpu_buffer *x, uint32_t rounds)
{
    hk_gpu_commands *c = NULL;
    assert_ok(b, hk_gpu_commands_create(b->gpu, 0, &c));
    assert_ok(b, hk_gpu_begin(c));
    lcg_dispatch(c, lcg_pipeline(b), x, 1, 1, rounds);
    hk_gpu_barrier(c);
    assert_ok(b, hk_gpu_end(c));
    return c;
}

/* How many rounds keep one invocation busy for about the wished time. */
static uint32_t rounds_for(double wished)
{
    bench b;
    bench_open(&b);
    hk_gpu_buffer *x = counting_buffer(&b);
    double rounds = 1e6, took = 0;
    while (took < 0.1 && rounds < 4e9) {
        rounds *= took > 0 ? 4 : 1;
        hk_gpu_commands *c = record_slow(&b, x, (uint32_t)rounds);
        double start = seconds();
        uint64_t ticket = 0;
        assert_ok(&b, hk_gpu_submit(b.gpu, &c, 1, &ticket));
        assert_ok(&b, hk_gpu_wait(b.gpu, ticket));
        took = seconds() - start;
        hk_gpu_commands_destroy(b.gpu, &c);
    }
    hk_gpu_buffer_destroy(b.gpu, &x);
    bench_end(&b);
    return (uint32_t)HK_MIN(rounds * wished / took, 4.2e9);
}

/* The layer's instrumented shaders make every submit wait for its end: then none can time out. */
static bool submits_wait(void)
{
    bench b;
    bench_open(&b);
    const unsigned both = HK_DEBUG_VALIDATE | HK_DEBUG_ISOLATE;
    bool waits = (hk_gpu_debug(b.gpu) & both) == both;
    bench_end(&b);
    return waits;
}

/* Leaves b with a device that was given up while it worked for about the wished time. */
static void submit_until_timeout(bench *b, double wished)
{
    uint32_t rounds = rounds_for(wished);
    char text[16];
    snprintf(text, sizeof text, "%d", TIMEOUT_MS);
    setenv("HILLOCK_TIMEOUT_MS", text, 1);
    bench_start(b);
    hk_device_params p = {.size = sizeof p, .cache_dir = ""};
    hk_status st = hk_gpu_open(b->ctx, &p, &b->gpu);
    unsetenv("HILLOCK_TIMEOUT_MS");
    assert_ok(b, st);
    hk_gpu_buffer *x = counting_buffer(b);
    hk_gpu_commands *c = record_slow(b, x, rounds);
    uint64_t ticket = 0;
    assert_ok(b, hk_gpu_submit(b->gpu, &c, 1, &ticket));
    assert_fails(b, hk_gpu_wait(b->gpu, ticket), HK_STATUS_DEVICE_LOST, "within 150 ms");
    assert_fails(b, hk_gpu_wait(b->gpu, ticket), HK_STATUS_DEVICE_LOST, "lost earlier");
    /* Whoever gives up gives everything back at once, though the device still works on it. */
    hk_gpu_buffer_destroy(b->gpu, &x);
    hk_gpu_commands_destroy(b->gpu, &c);
}

static void test_timeout(void **state)
{
    (void)state;
    if (submits_wait())
        skip();
    bench b;
    submit_until_timeout(&b, 0.5);
    bench_end(&b); /* waits for the end, which comes */
    assert_int_equal(b.warnings, 0);
}

static void test_abandoned(void **state)
{
    (void)state;
#ifdef SANITIZED
    skip(); /* what is abandoned is leaked, on purpose */
#endif
    if (submits_wait())
        skip();
    bench b;
    submit_until_timeout(&b, 8.0);
    double start = seconds();
    bench_end(&b); /* does not wait for ever */
    assert_true(seconds() - start < 4.0);
    assert_int_equal(b.warnings, 1);
    assert_non_null(strstr(b.last, "still running"));
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
#ifdef SANITIZED
    skip(); /* the layer (1.3.239) leaks what it knows about submits */
#endif
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

    /* A leaked buffer is told when the device is closed. */
    hk_gpu_buffer *leaked = y;
    hk_gpu_commands_destroy(b.gpu, &c);
    hk_gpu_buffer_destroy(b.gpu, &x);
    hk_gpu_close(&b.gpu);
    assert_int_equal(b.errors, 1);
    assert_non_null(strstr(b.last, "VUID-vkDestroyDevice"));
    b.errors = 0;
    bench_realloc(&b, leaked, 0);
    bench_end(&b);
}

/* An access outside every buffer: the layer's instrumented shaders, which the debug mode isolate adds. */
static void test_out_of_bounds_reports(void **state)
{
    (void)state;
#ifdef SANITIZED
    skip(); /* as above */
#endif
    bench b;
    if (!open_validated(&b, "validate,isolate"))
        skip();
    if (!hk_gpu_has(b.gpu, HK_CAP_INT64)) {
        bench_end(&b);
        skip(); /* the layer computes with addresses in 64 bits */
    }
    hk_gpu_buffer *x = counting_buffer(&b);
    hk_gpu_commands *c = NULL;
    assert_ok(&b, hk_gpu_commands_create(b.gpu, 0, &c));
    for (uint32_t beyond = 0; beyond <= 64; beyond += 64) {
        assert_ok(&b, hk_gpu_begin(c));
        lcg_dispatch(c, lcg_pipeline(&b), x, COUNT + beyond, 1, 1);
        hk_gpu_barrier(c);
        assert_ok(&b, hk_gpu_end(c));
        uint64_t ticket = 0;
        hk_status st = hk_gpu_submit(b.gpu, &c, 1, &ticket);
        if (st == HK_OK)
            st = hk_gpu_wait(b.gpu, ticket);
        if (beyond == 0)
            assert_ok(&b, st);
        else
            assert_fails(&b, st, HK_STATUS_INTERNAL, "UNASSIGNED-Device address out of bounds");
    }
    hk_gpu_commands_destroy(b.gpu, &c);
    hk_gpu_buffer_destroy(b.gpu, &x);
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

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_disk_cache),
    cmocka_unit_test(test_every_call_fails),
    cmocka_unit_test(test_every_allocation_fails),
    cmocka_unit_test(test_named_call_fails),
    cmocka_unit_test(test_device_lost),
    cmocka_unit_test(test_timeout),
    cmocka_unit_test(test_validation_reports),
    cmocka_unit_test(test_out_of_bounds_reports),
    cmocka_unit_test(test_contexts_in_threads),
    cmocka_unit_test(test_abandoned),
};
BENCH_MAIN("gpu faults", tests)
