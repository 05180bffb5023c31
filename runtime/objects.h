/*
 * The public handles' insides.
 */
#ifndef HK_OBJECTS_H
#define HK_OBJECTS_H

#include "gpu/gpu.h"

struct hk_device {
    hk_context *ctx;
    hk_gpu *gpu;
};

#endif
