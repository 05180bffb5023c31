#include "tests/support/program.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXIT_NO_DEVICE = 77 };

hk_context *ctx;
hk_device *dev;

void refused(hk_status got, hk_status expected, const char *text)
{
    if (got != expected || !strstr(hk_context_error(ctx), text))
        fail_msg("%s: '%s', expected %s with '%s'", hk_status_text(got), hk_context_error(ctx),
                 hk_status_text(expected), text);
}

const char *test_modes(const char *own)
{
    static char both[256];
    const char *debug = getenv("HILLOCK_DEBUG");
    if (!own || !debug || !*debug)
        return own;
    snprintf(both, sizeof both, "%s,%s", debug, own);
    return both;
}

static hk_status open_device(const test_program *p)
{
    hk_device_params params = {.size = sizeof params, .debug = test_modes(p->debug)};
    hk_status st = hk_device_open(ctx, &params, &dev);
    if (st != HK_OK)
        fprintf(stderr, "%s: %s\n", hk_status_text(st), hk_context_error(ctx));
    return st;
}

static int run(int argc, char **argv, const test_program *p)
{
    hk_status st = p->device == TEST_HOST ? HK_OK : open_device(p);
    if (st != HK_OK && st != HK_STATUS_NO_DEVICE)
        return 1;
    if (st != HK_OK && p->device == TEST_NEEDS_DEVICE)
        return EXIT_NO_DEVICE;
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    int failed = _cmocka_run_group_tests(p->name, p->tests, p->count, p->setup, p->teardown);
    return failed ? 1 : st == HK_OK ? 0 : EXIT_NO_DEVICE;
}

int test_main(int argc, char **argv, const test_program *program)
{
    if (hk_context_create(NULL, &ctx) != HK_OK)
        return 1;
    int result = run(argc, argv, program);
    hk_device_close(&dev);
    hk_context_destroy(&ctx);
    return result;
}

bool stores_halves(void)
{
    return hk_device_get_info(dev)->caps >> HK_CAP_STORAGE16 & 1u;
}
