/*
 * From an inferred inference graph to a training step: parameters become views of one flat state, BatchNormalization
 * and Dropout switch to training, and loss, gradients and the optimizer are appended.
 */
#ifndef HK_TRAINING_H
#define HK_TRAINING_H

#include "ops/op.h"
#include "ops/optimizer.h"

/* ---- parameters (parameters.c) */

#define HK_FLAT_ALIGNMENT 64 /* elements: parameters start 256-byte aligned in the flat arenas */

/* What a parameter is to the operators that use it; also what patterns of parameter rules may name ("role:bias"). */
typedef enum hk_role { HK_ROLE_WEIGHT, HK_ROLE_BIAS, HK_ROLE_NORM, HK_ROLE_EMBEDDING, HK_ROLE_OTHER } hk_role;
const char *hk_role_text(hk_role role);
/* By its first use, through views and casts. */
hk_role hk_role_of(const hk_graph *g, const hk_uses *uses, const hk_value *v);

/* One trainable tensor in the flat arenas. */
typedef struct hk_parameter {
    const hk_value *source; /* in the model's graph */
    hk_role role;
    int64_t offset, count; /* elements */
    int32_t group;
} hk_parameter;

/* Parameters with the same learning rate and weight decay lie side by side. */
typedef struct hk_group {
    float lr_scale, weight_decay;
    int64_t end; /* elements */
} hk_group;

typedef struct hk_parameters {
    hk_parameter *list; /* by group, then in the model's order */
    size_t count;
    hk_group groups[HK_MAX_GROUPS];
    int32_t group_count;
    int64_t total;            /* elements of a flat arena */
    const hk_tensor *initial; /* the model's contents, flat */
} hk_parameters;

/* An initializer of floats that is no parameter by its role; a rule with train set may make it one. */
bool hk_is_other_float(const hk_value *v);
/* Lays out every HK_VALUE_PARAMETER of the model that no rule freezes, and what rules train besides. A later rule
 * overrides an earlier one. HK_STATUS_USAGE: a pattern of names matches nothing, or everything is frozen. */
hk_status hk_parameters_create(const hk_graph *model, const hk_parameter_rule *rules, size_t rule_count,
                               float weight_decay, hk_arena *arena, hk_parameters *out);

/* ---- the loss (loss.c) */

typedef struct hk_loss_options {
    hk_loss loss;
    hk_reduce reduction;
    const hk_tensor *class_weights; /* float32 [C], or NULL */
    int64_t ignore_index;
    float label_smoothing, beta;
} hk_loss_options;

/* Appends the loss of prediction against target: a scalar, or one number per sample without reduction. valid, when not
 * NULL: also the number by which the mean divides, as a scalar, for sums over several micro-batches. A Softmax (or
 * Sigmoid) that makes the prediction is left out where the loss takes logits. Class scores are (N,C) or (N,C,...), or
 * (N,...,C) where only that fits the labels' shape. */
hk_status hk_append_loss(hk_graph *g, const hk_loss_options *o, hk_value *prediction, hk_value *target, hk_value **loss,
                         hk_value **valid);

/* What the loss of that prediction takes, whatever the labels will be: the loss of a probability takes what the
 * probability was made of. The other: whether that is right for these labels, whose shape tells where classes are. */
hk_value *hk_loss_input(const hk_loss_options *o, hk_value *prediction);
bool hk_loss_fits(const hk_loss_options *o, const hk_value *prediction, const hk_value *input, const hk_value *target);

/* ---- the step (training.c) */

typedef struct hk_training {
    const hk_parameters *parameters;
    const char *output; /* name of the logits; NULL: the first output */
    hk_loss_options loss;
    hk_optimizer_kind optimizer;
    double beta1, beta2; /* beta1 is SGD's momentum */
    double dampening;
    double ema_decay; /* 0: none */
    float eps;
    bool nesterov;
    float clip_norm;  /* 0: none */
    float loss_scale; /* initial; 0: none */
    int64_t growth_interval;
    bool freeze_bn;
    bool accumulate; /* gradients are added to a state of their own */
    bool total;      /* of micro-batches: sums of losses, divided by the total of valid labels */
    bool update;     /* the optimizer runs in this step */
    bool allow_unreached;
    bool checkpointing; /* the forward pass is computed again, in segments */
    /* What the runtime does to the forward pass before it is differentiated (runtime/passes.h), with its argument. */
    hk_status (*simplify)(hk_graph *g, void *user);
    void *user;
    bool keep_membranes; /* potentials of spiking layers outlive a step */
} hk_training;

/* States the step keeps, by name. */
#define HK_STATE_PARAMETERS "hk.parameters"
#define HK_STATE_GRADIENTS "hk.gradients"
#define HK_STATE_ACCUMULATED "hk.accumulated"
#define HK_STATE_VALID "hk.valid"
#define HK_STATE_MOMENT1 "hk.moment1"
#define HK_STATE_MOMENT2 "hk.moment2"
#define HK_STATE_AVERAGE "hk.average"
#define HK_STATE_CONTROL "hk.control"

/* After differentiation: of what the gradient takes from the forward pass, the first `forward` nodes of g, decides what
 * is kept and what is computed again. (recompute.c) */
hk_status hk_recompute(hk_graph *g, size_t forward, bool checkpointing);

/* BatchNormalization in training mode with the ReLU and 2x2 MaxPool behind it into hk.BatchNormAct. */
hk_status hk_fuse_batchnorm(hk_graph *g);

/* Everything of 16-bit floats becomes float32, inputs too. (widen.c) */
hk_status hk_widen_halves(hk_graph *g);

/* Rewrites g, a clone of the model with bound input shapes: afterwards its inputs are the model's and the labels, its
 * only output the loss. labels gives the labels' type and shape. */
hk_status hk_make_training(hk_graph *g, const hk_training *t, const hk_tensor *labels);

/* Rewrites g, a clone of the model, to infer with a trainer's states: parameters are views of a flat state (the
 * parameters or their moving average), running statistics are the trainer's. Nothing is updated. */
hk_status hk_make_evaluation(hk_graph *g, const hk_training *t, const char *state);

/* ---- the step in pieces (pieces.c, cut.c): the same nodes in recordings of their own */

/* Rewrites g, a clone of the model with bound input shapes, to forward and backward passes: its outputs are the
 * model's and, unless it is one of them, what the loss takes; its last input is the gradient of that, which reaches the
 * accumulated gradients. *prediction: the number of that output. evaluation: BatchNormalization and Dropout as in
 * hk_make_evaluation. */
hk_status hk_make_passes(hk_graph *g, const hk_training *t, bool evaluation, size_t *prediction);
/* Stands between the passes, so that nothing fuses across: its first input, once the others are computed. */
#define HK_BETWEEN_PASSES "hk.BetweenPasses"
/* Cuts that graph, passes of the runtime done, in two. *forward has its outputs and behind them what the other needs,
 * which stays on the device; *backward takes those, then the gradient. */
hk_status hk_cut_passes(hk_graph *g, hk_graph **forward, hk_graph **backward);
/* The loss of the model's output, from its input as in the passes: inputs are that and labels, the output is the loss
 * and, for the other graph, the labels. Or its gradient: inputs are prediction, labels and the gradient of the loss,
 * and the output is the prediction's. */
hk_status hk_make_loss(hk_context *ctx, const hk_training *t, const hk_value *output, const hk_shape *input,
                       const hk_tensor *labels, bool gradient, hk_graph **out);
/* From the gradient of the model's trained output to that of what the loss takes, where these differ. */
hk_status hk_make_tail(const hk_graph *model, const hk_training *t, const hk_shape *shape, hk_graph **out);
/* The update alone, from the accumulated gradients. */
hk_status hk_make_update(hk_context *ctx, const hk_training *t, hk_graph **out);

/* Parts of training.c that pieces.c shares. */
typedef struct hk_step_builder {
    hk_graph *g;
    const hk_training *t;
    hk_shape flat;
    hk_state *parameters;
    hk_value **views;   /* of each parameter */
    const char *output; /* name of what is trained */
    hk_value *valid;    /* sums over micro-batches: by what they divide, else NULL */
} hk_step_builder;
hk_status hk_step_begin(hk_step_builder *b, hk_graph *g, const hk_training *t); /* parameters become views */
hk_status hk_step_infer(hk_step_builder *b);                                    /* shapes, and membrane potentials */
/* BatchNormalization and Dropout switch to training, unless in evaluation mode; then t->simplify. */
hk_status hk_step_train(hk_step_builder *b, bool evaluation);
hk_status hk_step_use_statistics(hk_graph *g);
hk_status hk_step_find_output(const hk_graph *g, const hk_training *t, hk_value **out);
/* *shown is the loss, *root what is differentiated. */
hk_status hk_step_loss(hk_step_builder *b, hk_value *prediction, hk_value *target, hk_value **shown, hk_value **root);
/* From the gradients of the views to the flat one, accumulated where t says so. */
hk_status hk_step_gather(hk_step_builder *b, hk_value **grads, hk_value **gradient);
/* The sum over the micro-batches so far, kept in a state. */
hk_status hk_step_accumulate(hk_step_builder *b, const char *name, hk_value **x);

/* Appends clipping, the optimizer and the moving average to g: gradient is flat. (update.c) */
hk_status hk_append_update(hk_graph *g, const hk_training *t, hk_state *parameters, hk_value *gradient,
                           hk_value *valid);
/* The control state, shared by all steps of a trainer: made on first use. */
hk_state *hk_control_state(hk_graph *g, const hk_training *t);

#endif
