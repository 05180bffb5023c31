/* See gpu.h. */
#include "tests/support/gpu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

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

bool thorough(void)
{
    return getenv("HILLOCK_TEST_ALL") != NULL;
}

hk_value *test_input(hk_graph *g, const char *name, int32_t rank, const int64_t *dims)
{
    hk_shape s = {.rank = rank};
    memcpy(s.dim, dims, (size_t)rank * sizeof *dims);
    hk_value *v = hk_graph_value(g, name, HK_VALUE_INPUT, HK_FLOAT32, &s);
    assert_non_null(v);
    assert_true(hk_graph_add_input(g, v));
    return v;
}

hk_value *test_node(hk_graph *g, const char *type, const hk_attr_value *attrs, hk_value *const *in, int32_t count)
{
    hk_value *out = NULL;
    if (hk_build(g, type, attrs, in, count, &out, 1) != HK_OK)
        fail_msg("%s", hk_context_error(g->ctx));
    return out;
}
