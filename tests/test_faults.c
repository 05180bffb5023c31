/*
 * Every allocation and every Vulkan call of loading, planning and running the digits model fails once: a status each
 * time, nothing leaked, everything can be destroyed, and the next run is right.
 */
#include "tests/support/gpu_bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define DIGITS HK_TEST_DATA "/digits/"

enum { OUT_OF_HOST_MEMORY = -1, LOST = -4, SIZE = 8 };

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* The first image's logits; memory of the C library's, so that the counted allocations are the model's alone. */
static float image[SIZE * SIZE];
static float first_logits[10];

/* Load, plan, run, read. dev NULL: on a device of its own. Gives everything back, whatever fails. */
static hk_status scenario(bench *b, hk_device *dev, float logits[10])
{
    hk_device *own = NULL;
    hk_model *m = NULL;
    hk_session *s = NULL;
    hk_device_params params = {.size = sizeof params, .cache_dir = ""};
    hk_tensor x = {.data = image, .dtype = HK_FLOAT32, .rank = 4, .shape = {1, 1, SIZE, SIZE}};
    hk_tensor y = {.data = logits, .dtype = HK_FLOAT32, .rank = 2, .shape = {1, 10}};
    hk_status st = hk_model_load(b->ctx, DIGITS "model.onnx", NULL, &m);
    size_t count = 0;
    const char *in = st == HK_OK ? hk_model_inputs(m, &count)[0].name : "";
    const char *out = st == HK_OK ? hk_model_outputs(m, &count)[0].name : "";
    if (st == HK_OK && dev == NULL)
        st = hk_device_open(b->ctx, &params, &own);
    if (st == HK_OK)
        st = hk_session_create(dev == NULL ? own : dev, m, NULL, &s);
    if (st == HK_OK)
        st = hk_session_write(s, in, &x);
    if (st == HK_OK)
        st = hk_session_run(s);
    if (st == HK_OK)
        st = hk_session_read(s, out, &y);
    if (st == HK_OK && first_logits[0] != 0 && memcmp(logits, first_logits, sizeof first_logits) != 0)
        st = HK_STATUS_MISMATCH;
    hk_session_destroy(&s);
    hk_device_close(&own);
    hk_model_destroy(&m);
    return st;
}

/* Runs once undisturbed, so that later runs have something to agree with. */
static void begin(bench *b, hk_device **dev)
{
    hk_device_params params = {.size = sizeof params, .cache_dir = ""};
    float logits[10];
    for (int i = 0; i < SIZE * SIZE; i++)
        image[i] = (float)(i % 7) / 7;
    bench_start(b);
    hk_context_split_arenas(b->ctx);
    assert_ok(b, hk_device_open(b->ctx, &params, dev));
    assert_ok(b, scenario(b, *dev, logits));
    memcpy(first_logits, logits, sizeof logits);
}

static void end(bench *b, hk_device **dev)
{
    float logits[10];
    assert_ok(b, scenario(b, *dev, logits));
    hk_device_close(dev);
    bench_end(b);
}

/* Allocations on a device that has the pipelines already. */
static void test_allocations(void **state)
{
    (void)state;
    bench b;
    hk_device *dev = NULL;
    double start = seconds();
    begin(&b, &dev);
    size_t live = b.live;
    uint64_t n = 1;
    for (;; n++) {
        float logits[10] = {0};
        b.fail_after = n;
        hk_status st = scenario(&b, dev, logits);
        bool reached = b.fail_after == 0;
        b.fail_after = 0;
        if (b.live != live)
            fail_msg("allocation %llu: %zu blocks were leaked", (unsigned long long)n, b.live - live);
        if (!reached) {
            assert_ok(&b, st);
            break;
        }
        if (st != HK_OK)
            assert_fails(&b, st, HK_STATUS_OUT_OF_MEMORY, "out of host memory");
    }
    print_message("%llu allocations failed once each, in %.1f s\n", (unsigned long long)(n - 1), seconds() - start);
    assert_in_range(n, 1000, 100000);
    end(&b, &dev);
}

/* Vulkan calls on a device that survives them. */
static void test_calls(void **state)
{
    (void)state;
    bench b;
    hk_device *dev = NULL;
    double start = seconds();
    begin(&b, &dev);
    size_t live = b.live;
    uint64_t n = 1;
    for (;; n++) {
        float logits[10] = {0};
        hk_gpu_fail_call(NULL, n, OUT_OF_HOST_MEMORY);
        hk_status st = scenario(&b, dev, logits);
        bool pending = hk_gpu_fail_pending();
        hk_gpu_fail_call(NULL, 0, 0);
        if (b.live != live)
            fail_msg("call %llu: %zu blocks were leaked", (unsigned long long)n, b.live - live);
        if (pending) {
            assert_ok(&b, st);
            break;
        }
        if (st != HK_OK) /* else other memory was there */
            assert_fails(&b, st, HK_STATUS_OUT_OF_MEMORY, "vk");
    }
    print_message("%llu calls failed once each, in %.1f s\n", (unsigned long long)(n - 1), seconds() - start);
    assert_in_range(n, 50, 10000);
    end(&b, &dev);
}

/* All of it from the start, a device of its own each time: every call once, with the device lost. */
static void test_lost(void **state)
{
    (void)state;
    bench b;
    hk_device *dev = NULL;
    double start = seconds();
    uint64_t n = 1;
    begin(&b, &dev);
    end(&b, &dev);
    for (;; n++) {
        float logits[10] = {0};
        bench_start(&b);
        hk_gpu_fail_call(NULL, n, LOST);
        hk_status st = scenario(&b, NULL, logits);
        bool pending = hk_gpu_fail_pending();
        hk_gpu_fail_call(NULL, 0, 0);
        if (pending)
            assert_ok(&b, st);
        else
            assert_fails(&b, st, HK_STATUS_DEVICE_LOST, "");
        bench_end(&b);
        if (pending)
            break;
    }
    print_message("%llu calls lost the device once each, in %.1f s\n", (unsigned long long)(n - 1), seconds() - start);
    assert_in_range(n, 50, 10000);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_allocations),
    cmocka_unit_test(test_calls),
    cmocka_unit_test(test_lost),
};
BENCH_MAIN("faults", tests)
