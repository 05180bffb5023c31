/*
 * The context that counts, and the checkable work.
 */
#include "tests/support/gpu_bench.h"

#include <stdio.h>
#include <stdlib.h>

#include "shaders/selftest_lcg.push.h"

void *bench_realloc(void *user, void *p, size_t bytes)
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
    b->failed_calls += strstr(line, "returned VK_ERROR") != NULL;
    snprintf(b->last, sizeof b->last, "%s", line);
    if (level == HK_LOG_ERROR)
        print_message("log: %s\n", line);
}

void bench_start(bench *b)
{
    *b = (bench){0};
    hk_context_params p = {
        .size = sizeof p, .log = on_log, .log_user = b, .log_level = HK_LOG_INFO, .allocator = {bench_realloc, b}};
    assert_int_equal(hk_context_create(&p, &b->ctx), HK_OK);
}

void bench_end(bench *b)
{
    hk_gpu_close(&b->gpu);
    assert_int_equal(b->live, 1); /* the context */
    hk_context_destroy(&b->ctx);
    assert_null(b->ctx);
    assert_int_equal(b->live, 0);
    assert_int_equal(b->errors, 0);
}

void bench_open(bench *b)
{
    bench_start(b);
    hk_device_params p = {.size = sizeof p, .cache_dir = ""};
    assert_ok(b, hk_gpu_open(b->ctx, &p, &b->gpu));
}

hk_gpu_pipeline_key lcg_key(uint32_t group, uint32_t multiplier)
{
    return (hk_gpu_pipeline_key){.kernel = &hk_kernel_selftest_lcg, .spec_count = 4, .spec = {group, 1, 1, multiplier}};
}

hk_gpu_pipeline *lcg_pipeline(bench *b)
{
    hk_gpu_pipeline_key key = lcg_key(GROUP, LCG_MULTIPLIER);
    hk_gpu_pipeline *p = NULL;
    assert_ok(b, hk_gpu_pipelines(b->gpu, &key, 1, &p));
    assert_non_null(p);
    return p;
}

void lcg_dispatch(hk_gpu_commands *c, hk_gpu_pipeline *p, const hk_gpu_buffer *x, uint32_t count, uint32_t add,
                  uint32_t rounds)
{
    struct selftest_lcg_push push = {hk_gpu_buffer_address(x), count, add, rounds};
    uint32_t grid[3] = {(count + GROUP - 1) / GROUP, 1, 1};
    /* The struct's tail padding is no part of the block. */
    hk_gpu_dispatch(c, p, grid, &push, (uint32_t)(offsetof(struct selftest_lcg_push, rounds) + 4));
}

hk_gpu_buffer *counting_buffer(bench *b)
{
    uint32_t words[COUNT];
    for (uint32_t i = 0; i < COUNT; i++)
        words[i] = i;
    hk_gpu_buffer *x = NULL;
    assert_ok(b, hk_gpu_buffer_create(b->gpu, HK_GPU_DEVICE, sizeof words, "words", &x));
    assert_ok(b, hk_gpu_upload(b->gpu, x, 0, words, sizeof words));
    return x;
}

void expect_words(bench *b, const hk_gpu_buffer *x, uint32_t (*expected)(uint32_t i, uint32_t steps), uint32_t steps)
{
    uint32_t words[COUNT] = {0};
    assert_ok(b, hk_gpu_download(b->gpu, x, 0, words, sizeof words));
    for (uint32_t i = 0; i < COUNT; i++)
        assert_int_equal(words[i], expected(i, steps));
}

uint32_t chained(uint32_t i, uint32_t steps)
{
    for (uint32_t s = 0; s < steps; s++)
        i = i * LCG_MULTIPLIER + s;
    return i;
}

bool bench_has_device(void)
{
    bench b;
    bench_start(&b);
    hk_status st = hk_gpu_open(b.ctx, NULL, &b.gpu);
    if (st == HK_STATUS_NO_DEVICE)
        print_message("skipped: %s\n", hk_context_error(b.ctx));
    bench_end(&b);
    return st != HK_STATUS_NO_DEVICE; /* whatever else is wrong, the tests shall tell */
}
