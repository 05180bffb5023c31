/*
 * The step block: whatever changes from step to step, read by kernels from one small buffer, so that a recording can be
 * replayed unchanged. Host and device see the same 256 bytes (shaders/step.glsl).
 */
#ifndef HK_STEP_H
#define HK_STEP_H

#include <stdint.h>

typedef struct hk_step {
    uint32_t seed[2];  /* Philox key */
    uint32_t step;     /* number of this run or micro-batch: Philox counter word */
    uint32_t sample;   /* global number of the first sample, so that bits do not depend on micro-batching */
    float lr;          /* of this update */
    float grad_scale;  /* multiplies gradients before the update: 1/accumulate */
    float accumulate;  /* beta of gradient accumulation: 0 on the first micro-batch, 1 on the others */
    float beta1_power; /* beta1^t and beta2^t of Adam's bias correction, computed in double on the host */
    float beta2_power;
    uint32_t pad[55];
} hk_step;

_Static_assert(sizeof(hk_step) == 256, "shared with shaders/step.glsl");

#endif
