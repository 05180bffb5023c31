/* Data sets, their loaders, and the trainer. A part of hillock.h, which says the contract. */
#ifndef HILLOCK_TRAIN_H
#define HILLOCK_TRAIN_H

#include "hillock.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------- data */

/* Samples and their targets, read from
 *   - IDX files (MNIST's), gzipped too, or a folder with a pair of them;
 *   - .npy (first dimension: samples), .npz with one array per model input and one named labels, y or targets;
 *   - CSV with a line of column names or without;
 *   - CIFAR-10's and CIFAR-100's binary files, or a folder of them;
 *   - a folder with a folder of PNG, JPEG, PPM or PGM images per class;
 *   - a folder with a folder per class of files of events, N-MNIST's .bin, or .npy with columns or fields t
 *     (microseconds), x, y, p: frames (T,2,H,W) of counts. Without a shape N-MNIST's are (16,2,34,34).
 * Which formats this build reads is in hk_build_info(): gzip and .npz need zlib, PNG libpng, JPEG libjpeg-turbo. */
typedef struct hk_dataset hk_dataset;

/* Which frame an event belongs to. */
typedef enum hk_event_bins {
    HK_EVENT_BINS_DEFAULT, /* by count */
    HK_EVENT_BINS_COUNT,   /* as many events in each frame; the last takes the rest */
    HK_EVENT_BINS_TIME,    /* as much time in each: of the sample's, or frame_time */
} hk_event_bins;

typedef struct hk_dataset_params {
    size_t size;
    const char *labels;       /* file of the targets; default: in the data, or beside it with "labels" for "images" */
    const char *label_column; /* of CSV, its name or number from 0; default: the last */
    int32_t rank;             /* shape of a sample of one input, to which numbers are reshaped and images scaled and */
    int64_t shape[HK_MAX_RANK]; /* cropped, (C,H,W); an image gains or loses colour as C says. Default: as found */
    uint32_t resize;            /* shorter side of an image before the middle is cropped; default: the shape itself */
    bool targets;               /* targets are numbers (float32), not labels of classes */
    float scale;                /* multiplies samples; default: 1/255 for bytes, else 1 */
    const float *mean, *std;    /* of each channel, after scale: (x - mean) / std; copied */
    size_t channels;            /* entries in mean and std: 1 or C */
    uint64_t max_bad;           /* samples that cannot be read and are left out; default: the first is an error */
    hk_event_bins event_bins;   /* of events, whose samples are frames (T,2,H,W): counts of polarity off, on */
    double frame_time; /* microseconds of a frame, binned by TIME; what comes behind the last is left out; default: the
                          sample's time shared among the frames */
    const int64_t *ignore_index; /* label that counts for no class, and may be negative; copied; default: -100 */
} hk_dataset_params;

typedef struct hk_dataset_info {
    const char *format;         /* "IDX", "CIFAR-10" */
    size_t count;               /* samples */
    size_t inputs;              /* arrays per sample */
    const hk_value_info *input; /* by input: name ("" if the format has none), type, shape of one sample */
    hk_value_info target;       /* int64 labels of rank 0, or numbers */
    int64_t classes;            /* of labels: the largest and one, or the folders; else 0 */
    const char *const *class_names;
    uint64_t bad; /* samples left out so far */
} hk_dataset_info;

/* HK_STATUS_INVALID names the file and line or sample: labels that are no numbers or negative, ragged lines, NaN,
 * counts that differ, images of no known format, an empty class. */
HK_API HK_MUST_USE hk_status hk_dataset_open(hk_context *ctx, const char *path, const hk_dataset_params *params,
                                             hk_dataset **out);
HK_API void hk_dataset_close(hk_dataset **d);
HK_API void hk_dataset_get_info(const hk_dataset *d, hk_dataset_info *out);

/* Batches, prepared by threads while the device computes. Their order and augmentation follow from the seed alone. */
typedef struct hk_loader hk_loader;

typedef struct hk_loader_params {
    size_t size;
    size_t batch; /* default: 32 */
    uint64_t seed;
    bool shuffle;     /* anew in each epoch */
    bool drop_last;   /* leave out what does not fill a batch */
    double holdout;   /* share of the samples, drawn by the seed, that is held out; default: none */
    bool held_out;    /* those are loaded, else the others */
    bool flip;        /* mirror every second image */
    uint32_t shift;   /* move images by up to so many pixels, zeros beyond the edge */
    uint32_t threads; /* default: 2 */
    /* What batches hold, such as hk_model_inputs(): of each the array of that name (of one input and one array: that
     * one), converted to its type as hk_tensor_convert does. Default: all arrays as the dataset has them. */
    const hk_value_info *inputs;
    size_t input_count;
} hk_loader_params;

typedef struct hk_batch {
    const hk_tensor *inputs; /* lent until the next call */
    size_t input_count;
    const hk_tensor *target;
    size_t count;          /* samples; 0: the epoch is over */
    uint64_t epoch, index; /* of the batch in its epoch */
    const size_t *samples; /* their numbers in the dataset */
} hk_batch;

/* The dataset must outlive its loaders. HK_STATUS_INVALID: the part to be loaded is empty, or an input has no array, or
 * one whose numbers do not become its type. */
HK_API HK_MUST_USE hk_status hk_loader_create(hk_dataset *d, const hk_loader_params *params, hk_loader **out);
HK_API void hk_loader_destroy(hk_loader **l);
HK_API size_t hk_loader_samples(const hk_loader *l); /* in an epoch */
HK_API size_t hk_loader_batches(const hk_loader *l);
HK_API HK_MUST_USE hk_status hk_loader_next(hk_loader *l, hk_batch *out);
/* Goes to a batch of an epoch: what follows is what would have followed there. */
HK_API HK_MUST_USE hk_status hk_loader_seek(hk_loader *l, uint64_t epoch, uint64_t batch);

/* ---------------------------------------------------------------- trainer */

typedef struct hk_trainer hk_trainer;

/* Definitions are torch.nn's. Class scores are (N,C) or (N,C,...), labels int64 or int32 (N) or (N,...); scores of a
 * language model, (N,S,C), are taken as such where only that fits the labels (N,S). Other targets are float32 of the
 * output's shape, in which dimensions of 1 may be left out. A Softmax, LogSoftmax or Sigmoid that makes the output is
 * left out where the loss takes logits. */
typedef enum hk_loss {
    HK_LOSS_DEFAULT,       /* cross entropy */
    HK_LOSS_CROSS_ENTROPY, /* of logits with labels, or with probabilities of classes */
    HK_LOSS_NLL,           /* of log-probabilities with labels */
    HK_LOSS_MSE,
    HK_LOSS_L1,
    HK_LOSS_SMOOTH_L1,  /* beta */
    HK_LOSS_HUBER,      /* beta is its delta */
    HK_LOSS_BCE_LOGITS, /* of logits with targets in [0, 1] */
    HK_LOSS_KL,         /* of log-probabilities with probabilities */
} hk_loss;

typedef enum hk_reduce {
    HK_REDUCE_DEFAULT, /* mean */
    HK_REDUCE_MEAN,    /* over elements; of class losses over samples, by their classes' weights */
    HK_REDUCE_SUM,
    HK_REDUCE_BATCHMEAN, /* the sum divided by N (of losses of numbers) */
    HK_REDUCE_NONE,
} hk_reduce;

typedef enum hk_optimizer {
    HK_OPTIMIZER_DEFAULT, /* AdamW */
    HK_OPTIMIZER_ADAMW,   /* torch.optim.AdamW: decoupled weight decay */
    HK_OPTIMIZER_ADAM,    /* torch.optim.Adam: weight decay in the gradient */
    HK_OPTIMIZER_SGD,     /* torch.optim.SGD */
} hk_optimizer;

/* How some of the parameters are trained. */
typedef struct hk_parameter_rule {
    const char *pattern; /* of ONNX names, with * ? [abc], or "role:" and weight, bias, norm, embedding or other;
                            it must match one, but for a role whose decay alone is set */
    bool freeze;
    bool train;         /* float initializers that are in no role too: position embeddings, class tokens, layer scales,
                           which an ONNX file does not tell from masks and other constants */
    float lr_scale;     /* multiplies the learning rate; default: 1 */
    float weight_decay; /* default: the trainer's; negative: none */
} hk_parameter_rule;

typedef enum hk_schedule_kind {
    HK_SCHEDULE_CONSTANT,
    HK_SCHEDULE_STEP,      /* times gamma every `every` updates */
    HK_SCHEDULE_COSINE,    /* from 1 to `least` in a half cosine over `total` updates */
    HK_SCHEDULE_LINEAR,    /* from 1 to `least` in a line */
    HK_SCHEDULE_ONE_CYCLE, /* torch.optim.lr_scheduler.OneCycleLR: 1/25 to 1 over 30 % of total, then to 1/250,000 */
} hk_schedule_kind;

/* The learning rate's factor by the number of the update, from 0. The first warmup updates rise in a line:
 * (update + 1) / (warmup + 1). */
typedef struct hk_schedule {
    hk_schedule_kind kind;
    uint64_t warmup, total; /* updates; total includes the warm-up */
    uint64_t every;         /* of HK_SCHEDULE_STEP */
    float gamma;            /* default: 0.1 */
    float least;            /* what is left at the end */
} hk_schedule;
HK_API double hk_schedule_factor(const hk_schedule *s, uint64_t update);

/* torch.optim.lr_scheduler.ReduceLROnPlateau, threshold 1e-4 relative: a state of the caller, who multiplies the
 * learning rate with what hk_plateau_step returns. */
typedef struct hk_plateau {
    float gamma;       /* default: 0.1 */
    uint32_t patience; /* epochs without improvement that are borne; default: 10 */
    bool larger;       /* the metric is better when larger */
    bool begun;
    double best, factor;
    uint32_t bad;
} hk_plateau;
HK_API double hk_plateau_step(hk_plateau *p, double metric);

typedef struct hk_trainer_params {
    size_t size;
    hk_loss loss;
    hk_reduce reduction;            /* of the loss */
    const char *output;             /* what the loss takes; default: the first output */
    const hk_tensor *class_weights; /* float32 [C], copied; default: none */
    const int64_t *ignore_index;    /* label that does not count; default: -100 */
    float label_smoothing;
    float beta; /* of smooth L1 and Huber; default: 1 */
    hk_optimizer optimizer;
    float lr;                       /* default: 1e-3 */
    float beta1, beta2;             /* default: 0.9, 0.999 */
    float eps;                      /* default: 1e-8 */
    float weight_decay;             /* default: 0.01 with AdamW, else none; negative: none */
    float momentum, dampening;      /* of SGD */
    bool nesterov;                  /* of SGD */
    float clip_norm;                /* of all gradients together; default: none */
    float ema_decay;                /* keeps an exponential moving average of the weights; default: none */
    float loss_scale;               /* first scale of the loss; grows and falls on the device; default: none,
                                       65,536 with precision fast */
    uint32_t growth_interval;       /* good updates before the scale doubles; default: 2000 */
    hk_schedule schedule;           /* multiplies lr */
    const hk_parameter_rule *rules; /* a later one overrides an earlier one */
    size_t rule_count;
    uint32_t accumulate;   /* micro-batches per update, losses averaged; default: 1 */
    bool accumulate_total; /* micro-batches are summed and divided by the total of valid labels */
    uint64_t seed;         /* of Dropout */
    bool freeze_bn;        /* BatchNormalization uses its running statistics instead of the batch's */
    bool
        allow_unreached; /* a parameter that no gradient reaches has the gradient 0 instead of failing the first step */
    bool keep_states;    /* membrane potentials of spiking layers go on from step to step, and to evaluations, until
                            hk_trainer_reset (truncated backpropagation); default: each begins at the initial ones */
    hk_precision precision;
    hk_profile profile;
    bool checkpointing; /* less memory for a second forward pass: activations between few points of the model are not
                           kept for the gradient but computed again; results are the same */
} hk_trainer_params;

/* Forward + loss + backward + update are one recording. Parameters start as the model's. HK_STATUS_USAGE: an option is
 * out of range, or a rule matches nothing. */
HK_API HK_MUST_USE hk_status hk_trainer_create(hk_device *dev, const hk_model *m, const hk_trainer_params *params,
                                               hk_trainer **out);
HK_API void hk_trainer_destroy(hk_trainer **t);
/* One micro-batch; the accumulate-th one updates the weights. inputs are in the model's order; labels int64 or int32
 * (N). loss, when not NULL, receives this micro-batch's mean loss and makes the call wait. */
HK_API HK_MUST_USE hk_status hk_trainer_step(hk_trainer *t, const hk_tensor *inputs, size_t input_count,
                                             const hk_tensor *labels, float *loss);
/* The same without waiting, 2 in flight; wait gives the loss of that ticket if it is the latest or the one before. */
HK_API HK_MUST_USE hk_status hk_trainer_submit(hk_trainer *t, const hk_tensor *inputs, size_t input_count,
                                               const hk_tensor *labels, uint64_t *ticket);
HK_API HK_MUST_USE hk_status hk_trainer_wait(hk_trainer *t, uint64_t ticket, float *loss);
/* The base rate, which the schedule multiplies. */
HK_API HK_MUST_USE hk_status hk_trainer_set_lr(hk_trainer *t, float lr);
/* With keep_states: membrane potentials back to their initial values, for batches of any size. Needed between
 * independent samples; a step or evaluation of another shape is refused before it. */
HK_API HK_MUST_USE hk_status hk_trainer_reset(hk_trainer *t);

typedef struct hk_trainer_stats {
    uint64_t micro;   /* micro-batches so far */
    uint64_t updates; /* applied */
    uint64_t skipped; /* left out because a gradient was not finite */
    float lr;         /* of the next update */
    float loss_scale; /* 1 without */
    size_t parameters;
    int64_t parameter_count; /* elements */
    uint64_t state_bytes;    /* parameters, gradients, moments and statistics on the device */
} hk_trainer_stats;
/* Waits for the last step. */
HK_API HK_MUST_USE hk_status hk_trainer_get_stats(hk_trainer *t, hk_trainer_stats *out);

/* ---- the step in pieces: forward, loss, backward, update, in that order, as often as wanted. They do what
 * hk_trainer_step does, bit for bit, when the gradients are zeroed after each update; Dropout draws anew in each
 * forward pass, running statistics are updated in each, and an update divides the summed gradients by accumulate. Do
 * not change between pieces and whole steps within an accumulation. */

typedef enum hk_mode {
    HK_MODE_TRAIN,    /* batch statistics, which update the running ones; Dropout drops */
    HK_MODE_EVALUATE, /* running statistics; Dropout does nothing */
} hk_mode;

/* Of the forward passes to come; a trainer begins with HK_MODE_TRAIN. */
HK_API void hk_trainer_set_mode(hk_trainer *t, hk_mode mode);
/* Runs the model; hk_trainer_read_output reads its outputs, hk_trainer_loss and _backward go on from them. */
HK_API HK_MUST_USE hk_status hk_trainer_forward(hk_trainer *t, const hk_tensor *inputs, size_t input_count);
/* The trainer's loss of the last forward pass. reduction: the trainer's, or another for this one; with
 * HK_REDUCE_NONE the loss is one number per sample or element. loss, when not NULL, receives it (as hk_session_read
 * does) and makes the call wait. */
HK_API HK_MUST_USE hk_status hk_trainer_loss(hk_trainer *t, const hk_tensor *labels, hk_reduce reduction,
                                             hk_tensor *loss);
/* Adds the gradients of the last loss to those since hk_trainer_zero_grad. upstream: the gradient of something with
 * respect to the loss, float32 of its shape; NULL: ones. */
HK_API HK_MUST_USE hk_status hk_trainer_backward(hk_trainer *t, const hk_tensor *upstream);
/* The same without a loss of the trainer: gradient is that of the caller's loss with respect to the output that is
 * trained, float32 of its shape; of a spiking network's output (T,N,...) also with respect to its mean over time,
 * (N,...). */
HK_API HK_MUST_USE hk_status hk_trainer_backward_output(hk_trainer *t, const hk_tensor *gradient);
/* Gradients begin at zero again. */
HK_API void hk_trainer_zero_grad(hk_trainer *t);
/* One update from the gradients as they are, which stay. */
HK_API HK_MUST_USE hk_status hk_trainer_update(hk_trainer *t);

/* Runs the model in evaluation mode with the weights (or their moving average) and running statistics as they are now;
 * outputs are read by name afterwards. */
HK_API HK_MUST_USE hk_status hk_trainer_evaluate(hk_trainer *t, const hk_tensor *inputs, size_t input_count,
                                                 bool average);
HK_API HK_MUST_USE hk_status hk_trainer_read_output(hk_trainer *t, const char *output, hk_tensor *out);
/* Waits, then copies a parameter (or state such as running statistics) by its ONNX name, its moving average, or its
 * last gradient, which is that of the loss times the loss scale where there is one. */
HK_API HK_MUST_USE hk_status hk_trainer_read_parameter(hk_trainer *t, const char *name, hk_tensor *out);
HK_API HK_MUST_USE hk_status hk_trainer_read_average(hk_trainer *t, const char *name, hk_tensor *out);
HK_API HK_MUST_USE hk_status hk_trainer_read_gradient(hk_trainer *t, const char *name, hk_tensor *out);
HK_API HK_MUST_USE hk_status hk_trainer_write_parameter(hk_trainer *t, const char *name, const hk_tensor *value);
/* One safetensors file with weights, moments, statistics, control state, step, seed and a hash of all of it; atomic:
 * a temporary file, fsync, rename, fsync of the folder. notes: the caller's, or NULL.
 * load needs the same model and options and refuses a file whose hash is wrong; *notes, when not NULL, is lent until
 * the next load and "" when there are none. */
HK_API HK_MUST_USE hk_status hk_trainer_save(hk_trainer *t, const char *path, const char *notes);
HK_API HK_MUST_USE hk_status hk_trainer_load(hk_trainer *t, const char *path, const char **notes);
/* Writes the ONNX file the model was loaded from with the trained weights (or their moving average) in place of the
 * old. */
HK_API HK_MUST_USE hk_status hk_trainer_export(hk_trainer *t, const char *path);
HK_API HK_MUST_USE hk_status hk_trainer_export_average(hk_trainer *t, const char *path);
/* The same weights (or their moving average) and running statistics as one safetensors file, by their ONNX names. */
HK_API HK_MUST_USE hk_status hk_trainer_export_safetensors(hk_trainer *t, bool average, const char *path);
HK_API HK_MUST_USE hk_status hk_trainer_get_plan(hk_trainer *t, hk_plan_info *out);

#ifdef __cplusplus
}
#endif
#endif
