/*
 * Optimizers over flat arenas: what trainers build and ops/optimizer.c computes.
 */
#ifndef HK_OPTIMIZER_H
#define HK_OPTIMIZER_H

/* Attribute `kind` of hk.Update; numbers are shared with shaders/optimizer.comp. */
typedef enum hk_optimizer_kind {
    HK_UPDATE_ADAMW,
    HK_UPDATE_ADAM,
    HK_UPDATE_SGD,      /* no state */
    HK_UPDATE_MOMENTUM, /* SGD with momentum: the first moment is its buffer */
} hk_optimizer_kind;

#define HK_MAX_GROUPS 64 /* parameter groups of an update */

#endif
