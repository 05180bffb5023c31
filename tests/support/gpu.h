/*
 * For test programs that run kernels without a session: the device, cmocka's group setup and teardown, and the nodes of
 * graphs made by hand.
 */
#ifndef HK_TEST_GPU_H
#define HK_TEST_GPU_H

#include "gpu/gpu.h"
#include "ops/op.h"

typedef struct fixture {
    hk_context *ctx;
    hk_gpu *gpu;
} fixture;

/* *state is a fixture. Fails without a device. */
int open_device(void **state);
int close_device(void **state);

/* A software device takes a second or two to compile a GPU's kernel: short runs take samples, HILLOCK_TEST_ALL all. */
bool thorough(void);

/* A float32 input, and the first output of a new node; the test fails where that does. */
hk_value *test_input(hk_graph *g, const char *name, int32_t rank, const int64_t *dims);
hk_value *test_node(hk_graph *g, const char *type, const hk_attr_value *attrs, hk_value *const *in, int32_t count);

#endif
