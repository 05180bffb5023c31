/*
 * Inside of hk_trainer: trainer.c plans and runs steps, trainer_states.c reads, writes and exports what they keep,
 * checkpoint.c saves and restores it.
 */
#ifndef HK_TRAINER_H
#define HK_TRAINER_H

#include "runtime/model.h"
#include "runtime/objects.h"
#include "runtime/passes.h"
#include "runtime/report.h"
#include "train/training.h"

#define HK_TRAINER_PLANS 4

/* What a trainer records for one set of input shapes. */
typedef enum hk_trainer_recording {
    HK_RECORD_MICRO,    /* a micro-batch without the update */
    HK_RECORD_STEP,     /* a micro-batch with the update */
    HK_RECORD_EVALUATE, /* inference with the weights as they are */
    HK_RECORD_AVERAGE,  /* inference with their moving average */
    HK_RECORDINGS
} hk_trainer_recording;

typedef struct hk_trainer_plan {
    hk_shape *shapes;      /* of the inputs, and of the labels when there are any */
    hk_dtype labels_dtype; /* HK_DTYPE_NONE: without labels */
    hk_exec *exec[HK_RECORDINGS];
    uint64_t used; /* for eviction */
} hk_trainer_plan;

struct hk_trainer {
    hk_context *ctx;
    hk_device *dev;
    const hk_model *model;
    hk_env *env;
    hk_arena *arena;
    hk_trainer_params params;
    hk_training training; /* what steps are made of, but for update */
    hk_parameters parameters;
    hk_pass_options passes;
    hk_trainer_plan plans[HK_TRAINER_PLANS];
    hk_step step;
    uint64_t micro;   /* micro-batches so far */
    uint64_t updates; /* of those, with an update, skipped ones included */
    uint64_t uses;    /* of plans */
    hk_exec *last;    /* of the last submit */
    uint64_t last_ticket;
    hk_exec *evaluated; /* of the last evaluation */
    uint64_t evaluated_ticket;
    hk_report report;
};

/* Waits for the last submitted step or evaluation. */
hk_status hk_trainer_idle(hk_trainer *t);
/* A state's floats [offset, offset + count), waited for. */
hk_status hk_trainer_state(hk_trainer *t, const char *state, uint64_t offset, float *data, uint64_t count);

#endif
