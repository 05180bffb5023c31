/*
 * The step block: whatever changes from step to step, read by kernels from one small buffer, so that a recording can be
 * replayed unchanged. Host and device see the same 256 bytes (shaders/step.glsl).
 */
#ifndef HK_STEP_H
#define HK_STEP_H

#include <stdint.h>

typedef struct hk_step {
    uint32_t seed[2]; /* Philox key */
    uint32_t step;    /* number of this run or micro-batch: Philox counter word */
    uint32_t sample;  /* global number of the first sample, so that bits do not depend on micro-batching */
    float lr;         /* of this update */
    float grad_scale; /* multiplies gradients before the update: 1/accumulate */
    float accumulate; /* beta of gradient accumulation: 0 on the first micro-batch, 1 on the others */
    uint32_t pad[57];
} hk_step;

_Static_assert(sizeof(hk_step) == 256, "shared with shaders/step.glsl");

/* The control state of a trainer (float32 [HK_CONTROL_WORDS], shaders/control.glsl): what an update needs to know and
 * only the device can, because a step whose gradients overflowed is skipped without the host. Counts are floats: exact
 * up to 2^24 updates. The rests are kept instead of powers, because 1 - 0.999f is wrong in the fifth digit. */
typedef enum hk_control {
    HK_CONTROL_UPDATES,    /* Adam's t: updates applied */
    HK_CONTROL_REST1,      /* 1 - beta1^t */
    HK_CONTROL_REST2,      /* 1 - beta2^t */
    HK_CONTROL_LOSS_SCALE, /* what the loss is multiplied with before the backward pass */
    HK_CONTROL_GOOD,       /* finite updates since the scale changed last */
    HK_CONTROL_SKIPPED,    /* updates left out */
    HK_CONTROL_MULTIPLIER, /* of the gradients in this update: averaging, clipping, unscaling */
    HK_CONTROL_APPLY,      /* 1, or 0: this update is skipped */
    HK_CONTROL_WORDS
} hk_control;

#endif
