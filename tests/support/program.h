/*
 * A test program around one context and one device, for tests of what stands above the device: their main(), and the
 * context and device that all of its tests share.
 */
#ifndef HK_TEST_PROGRAM_H
#define HK_TEST_PROGRAM_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hillock/hillock.h"

extern hk_context *ctx;
extern hk_device *dev; /* NULL: there is none */

/* Fails the test with the context's sentence. */
#define OK(call)                                                                                                       \
    do {                                                                                                               \
        hk_status st_ = (call);                                                                                        \
        if (st_ != HK_OK)                                                                                              \
            fail_msg("%s: %s: %s", #call, hk_status_text(st_), hk_context_error(ctx));                                 \
    } while (0)

/* Fails unless a call was refused so, with a sentence that has text in it. */
void refused(hk_status got, hk_status expected, const char *text);

/* Needs: without a device nothing runs. Uses: the tests also say something where dev is NULL. */
typedef enum test_device { TEST_NEEDS_DEVICE, TEST_USES_DEVICE, TEST_HOST } test_device;

typedef struct test_program {
    const char *name;
    const struct CMUnitTest *tests;
    size_t count;
    CMFixtureFunction setup, teardown; /* may be NULL; both have ctx and dev */
    test_device device;
    const char *debug; /* modes of the device, besides those of HILLOCK_DEBUG */
} test_program;

/* Modes for a device: own, besides those of HILLOCK_DEBUG; NULL for those alone. Valid until the next call. */
const char *test_modes(const char *own);
/* Runs all tests, or those that match argv[1]. The program's exit status: 77 where the device was missing. */
int test_main(int argc, char **argv, const test_program *program);

#define TESTS(list) .tests = (list), .count = sizeof(list) / sizeof *(list)

/* Whether dev stores float16 between nodes (HK_CAP_STORAGE16). */
bool stores_halves(void);

#endif
