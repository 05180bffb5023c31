/*
 * The device of a test program that runs kernels without a session: cmocka's group setup and teardown.
 */
#ifndef HK_TEST_GPU_H
#define HK_TEST_GPU_H

#include "gpu/gpu.h"

typedef struct fixture {
    hk_context *ctx;
    hk_gpu *gpu;
} fixture;

/* *state is a fixture. Fails without a device. */
int open_device(void **state);
int close_device(void **state);

#endif
