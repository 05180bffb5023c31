/* The device of a test program that runs kernels without a session. */
#include "tests/support/gpu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

int open_device(void **state)
{
    static fixture f;
    assert_int_equal(hk_context_create(NULL, &f.ctx), HK_OK);
    hk_status st = hk_gpu_open(f.ctx, NULL, &f.gpu);
    if (st == HK_STATUS_NO_DEVICE)
        return -1;
    assert_int_equal(st, HK_OK);
    *state = &f;
    return 0;
}

int close_device(void **state)
{
    fixture *f = *state;
    hk_gpu_close(&f->gpu);
    hk_context_destroy(&f->ctx);
    return 0;
}
