/*
 * From an inferred inference graph to a training step: parameters become views of one flat state, BatchNormalization
 * and Dropout switch to training, and loss, gradients and the optimizer are appended.
 */
#ifndef HK_TRAINING_H
#define HK_TRAINING_H

#include "ops/op.h"

#define HK_FLAT_ALIGNMENT 64 /* elements: parameters start 256-byte aligned in the flat arenas */

/* One trainable tensor in the flat arenas. */
typedef struct hk_parameter {
    const hk_value *source; /* in the model's graph */
    int64_t offset, count;  /* elements */
} hk_parameter;

typedef struct hk_parameters {
    hk_parameter *list;
    size_t count;
    int64_t total;            /* elements of a flat arena */
    const hk_tensor *initial; /* the model's contents, flat */
} hk_parameters;

/* Lays out every HK_VALUE_PARAMETER of the model. */
hk_status hk_parameters_create(const hk_graph *model, hk_arena *arena, hk_parameters *out);

typedef struct hk_training {
    const hk_parameters *parameters;
    const char *output; /* name of the logits; NULL: the first output */
    float beta1, beta2, eps, weight_decay;
    bool freeze_bn;
    bool accumulate; /* gradients are added to a state of their own */
    bool update;     /* the optimizer runs in this step */
} hk_training;

/* States the step keeps, by name. */
#define HK_STATE_PARAMETERS "hk.parameters"
#define HK_STATE_GRADIENTS "hk.gradients"
#define HK_STATE_ACCUMULATED "hk.accumulated"
#define HK_STATE_MOMENT1 "hk.moment1"
#define HK_STATE_MOMENT2 "hk.moment2"

/* BatchNormalization in training mode with the ReLU and 2x2 MaxPool behind it into hk.BatchNormAct. */
hk_status hk_fuse_batchnorm(hk_graph *g);

/* Rewrites g, a clone of the model with bound input shapes: afterwards its inputs are the model's and the labels, its
 * only output the mean loss. labels gives the labels' type and shape. */
hk_status hk_make_training(hk_graph *g, const hk_training *t, const hk_tensor *labels);

#endif
