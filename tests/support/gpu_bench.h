/*
 * What the tests of the device layer share: a context that counts, a device in it, and a kernel whose work can be
 * checked.
 */
#ifndef HK_TEST_GPU_BENCH_H
#define HK_TEST_GPU_BENCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "gpu/gpu.h"
#include "kernels.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

/* A context that counts what is allocated and logged. */
typedef struct bench {
    hk_context *ctx;
    hk_gpu *gpu;
    size_t live;                             /* allocations */
    uint64_t fail_after;                     /* the n-th allocation from now fails; 0: none does */
    unsigned errors, warnings, failed_calls; /* lines of the log; the last: that tell of a failed Vulkan call */
    char last[512];                          /* line */
} bench;

void bench_start(bench *b);
/* Starts and opens a device without a disk cache; which one, caps and debug come from the environment. */
void bench_open(bench *b);
/* Closes everything; fails if anything was leaked or an error logged. */
void bench_end(bench *b);
/* The bench's allocator; bytes 0 frees. */
void *bench_realloc(void *user, void *p, size_t bytes);

#define assert_ok(b, call)                                                                                             \
    do {                                                                                                               \
        hk_status st_ = (call);                                                                                        \
        if (st_ != HK_OK)                                                                                              \
            fail_msg("%s: status %d: %s", #call, (int)st_, hk_context_error((b)->ctx));                                \
    } while (0)

/* words must be in the sentence. */
#define assert_fails(b, call, status, words)                                                                           \
    do {                                                                                                               \
        assert_int_equal((call), (status));                                                                            \
        if (strstr(hk_context_error((b)->ctx), (words)) == NULL)                                                       \
            fail_msg("'%s' is not in '%s'", (words), hk_context_error((b)->ctx));                                      \
    } while (0)

/* ---- work: x = x * multiplier + add, rounds times, of words in a buffer */

enum { GROUP = 64, COUNT = 1000 };
#define LCG_MULTIPLIER 1664525u

hk_gpu_pipeline_key lcg_key(uint32_t group, uint32_t multiplier);
/* The pipeline with GROUP and LCG_MULTIPLIER. */
hk_gpu_pipeline *lcg_pipeline(bench *b);
void lcg_dispatch(hk_gpu_commands *c, hk_gpu_pipeline *p, const hk_gpu_buffer *x, uint32_t count, uint32_t add,
                  uint32_t rounds);
/* A buffer of COUNT words 0, 1, 2... */
hk_gpu_buffer *counting_buffer(bench *b);
void expect_words(bench *b, const hk_gpu_buffer *x, uint32_t (*expected)(uint32_t i, uint32_t steps), uint32_t steps);
/* What steps dispatches with add = 0, 1, 2... make of word i. */
uint32_t chained(uint32_t i, uint32_t steps);

/* Runs tests as main does: an argument is a pattern of their names. 77 without a device. */
#define BENCH_MAIN(name, tests)                                                                                        \
    int main(int argc, char **argv)                                                                                    \
    {                                                                                                                  \
        if (argc > 1)                                                                                                  \
            cmocka_set_test_filter(argv[1]);                                                                           \
        return bench_has_device() ? cmocka_run_group_tests_name(name, tests, NULL, NULL) : 77;                         \
    }
/* Says why if there is none. */
bool bench_has_device(void);

#endif
