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

#define HK_TRAINER_PLANS 8

/* What a trainer records for one set of input shapes. */
typedef enum hk_trainer_recording {
    HK_RECORD_MICRO,    /* a micro-batch without the update */
    HK_RECORD_STEP,     /* a micro-batch with the update */
    HK_RECORD_EVALUATE, /* inference with the weights as they are */
    HK_RECORD_AVERAGE,  /* inference with their moving average */
    /* the step in pieces (trainer_pieces.c) */
    HK_RECORD_FORWARD,
    HK_RECORD_BACKWARD,
    HK_RECORD_FORWARD_EVALUATION,
    HK_RECORD_BACKWARD_EVALUATION,
    HK_RECORD_TAIL, /* of the output's gradient, before the backward pass */
    HK_RECORD_UPDATE,
    HK_RECORD_LOSS,                                                /* one for each hk_reduce */
    HK_RECORD_LOSS_GRADIENT = HK_RECORD_LOSS + HK_REDUCE_NONE + 1, /* the same */
    HK_RECORDINGS = HK_RECORD_LOSS_GRADIENT + HK_REDUCE_NONE + 1
} hk_trainer_recording;

typedef struct hk_trainer_plan {
    hk_shape *shapes;      /* of the inputs, and of the labels when there are any */
    size_t count;          /* of the inputs */
    hk_dtype labels_dtype; /* HK_DTYPE_NONE: without labels */
    hk_exec *exec[HK_RECORDINGS];
    hk_graph *cut[2]; /* whole passes, by mode, whose names and attributes forward and backward share */
    uint64_t used;    /* for eviction */
} hk_trainer_plan;

/* Where a step in pieces stands. */
typedef struct hk_pieces {
    hk_mode mode;
    hk_trainer_plan *forward; /* of the last forward pass, with the mode it ran in; NULL: none, or evicted */
    hk_trainer_recording pass;
    size_t prediction; /* the output of it that the loss takes */
    uint32_t step;     /* its number, for Dropout */
    hk_trainer_plan *loss;
    hk_trainer_recording reduction;
    bool summed;    /* gradients are in HK_STATE_ACCUMULATED because of a backward pass in pieces */
    bool unsettled; /* not zeroed since the last backward pass: the next one adds */
} hk_pieces;

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
    hk_pieces pieces;
    hk_report report;
};

/* The plan of those shapes; an old one makes room for a new one. labels NULL: without. */
hk_status hk_trainer_find_plan(hk_trainer *t, const hk_tensor *inputs, size_t count, const hk_tensor *labels,
                               hk_trainer_plan **out);
hk_status hk_trainer_check_inputs(const hk_trainer *t, const hk_tensor *inputs, size_t count);
hk_status hk_trainer_check_labels(const hk_trainer *t, const hk_tensor *labels);
/* feeds of the host may be strided. */
hk_status hk_trainer_run(hk_trainer *t, hk_exec *exec, const hk_feed *feeds, size_t count, uint64_t *ticket);
float hk_trainer_rate(const hk_trainer *t);

/* Waits for the last submitted step or evaluation. */
hk_status hk_trainer_idle(hk_trainer *t);
/* A state's floats [offset, offset + count), waited for. */
hk_status hk_trainer_state(hk_trainer *t, const char *state, uint64_t offset, float *data, uint64_t count);

#endif
