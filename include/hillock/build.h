/* Models built of layers, and edits of loaded ones. A part of hillock.h, which says the contract. */
#ifndef HILLOCK_BUILD_H
#define HILLOCK_BUILD_H

#include "hillock.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------- building: a model layer by layer */

/* A tensor of a model under construction: an input or what a layer makes. Lent by the model. */
typedef struct hk_value hk_value;

/* kind, default name, torch.nn's class. Shapes are (N,C,...) as there; exceptions are said below. */
#define HK_LAYER_MAP(X)                                                                                                \
    X(LINEAR, "linear", "Linear")                                                                                      \
    X(CONV1D, "conv1d", "Conv1d")                                                                                      \
    X(CONV2D, "conv2d", "Conv2d")                                                                                      \
    X(CONV3D, "conv3d", "Conv3d")                                                                                      \
    X(CONV_TRANSPOSE1D, "conv_transpose1d", "ConvTranspose1d")                                                         \
    X(CONV_TRANSPOSE2D, "conv_transpose2d", "ConvTranspose2d")                                                         \
    X(CONV_TRANSPOSE3D, "conv_transpose3d", "ConvTranspose3d")                                                         \
    X(MAX_POOL1D, "max_pool1d", "MaxPool1d")                                                                           \
    X(MAX_POOL2D, "max_pool2d", "MaxPool2d")                                                                           \
    X(MAX_POOL3D, "max_pool3d", "MaxPool3d")                                                                           \
    X(AVG_POOL1D, "avg_pool1d", "AvgPool1d")                                                                           \
    X(AVG_POOL2D, "avg_pool2d", "AvgPool2d")                                                                           \
    X(AVG_POOL3D, "avg_pool3d", "AvgPool3d")                                                                           \
    X(ADAPTIVE_AVG_POOL1D, "adaptive_avg_pool1d", "AdaptiveAvgPool1d")                                                 \
    X(ADAPTIVE_AVG_POOL2D, "adaptive_avg_pool2d", "AdaptiveAvgPool2d")                                                 \
    X(ADAPTIVE_AVG_POOL3D, "adaptive_avg_pool3d", "AdaptiveAvgPool3d")                                                 \
    X(ADAPTIVE_MAX_POOL1D, "adaptive_max_pool1d", "AdaptiveMaxPool1d")                                                 \
    X(ADAPTIVE_MAX_POOL2D, "adaptive_max_pool2d", "AdaptiveMaxPool2d")                                                 \
    X(ADAPTIVE_MAX_POOL3D, "adaptive_max_pool3d", "AdaptiveMaxPool3d")                                                 \
    X(BATCH_NORM, "batch_norm", "BatchNorm") /* 1d, 2d and 3d */                                                       \
    X(LAYER_NORM, "layer_norm", "LayerNorm") /* over the last `axes` dimensions */                                     \
    X(GROUP_NORM, "group_norm", "GroupNorm")                                                                           \
    X(INSTANCE_NORM, "instance_norm", "InstanceNorm") /* with weight and bias */                                       \
    X(DROPOUT, "dropout", "Dropout")                                                                                   \
    X(EMBEDDING, "embedding", "Embedding") /* of int64 or int32; `in` rows of `out` numbers */                         \
    X(LSTM, "lstm", "LSTM")                /* (N,T,C) to (N,T,directions*out): batch_first=True */                     \
    X(GRU, "gru", "GRU")                                                                                               \
    X(RNN, "rnn", "RNN")                            /* tanh */                                                         \
    X(ATTENTION, "attention", "MultiheadAttention") /* (N,T,C), queries x; keys and values: `with`, default x */       \
    X(RELU, "relu", "ReLU")                                                                                            \
    X(LEAKY_RELU, "leaky_relu", "LeakyReLU") /* alpha 0.01 */                                                          \
    X(ELU, "elu", "ELU")                     /* alpha 1 */                                                             \
    X(GELU, "gelu", "GELU")                                                                                            \
    X(SILU, "silu", "SiLU")                                                                                            \
    X(MISH, "mish", "Mish")                                                                                            \
    X(HARDSWISH, "hardswish", "Hardswish")                                                                             \
    X(HARDSIGMOID, "hardsigmoid", "Hardsigmoid")                                                                       \
    X(SOFTPLUS, "softplus", "Softplus")                                                                                \
    X(TANH, "tanh", "Tanh")                                                                                            \
    X(SIGMOID, "sigmoid", "Sigmoid")                                                                                   \
    X(SOFTMAX, "softmax", "Softmax")            /* over `axis` */                                                      \
    X(LOG_SOFTMAX, "log_softmax", "LogSoftmax") /* over `axis` */                                                      \
    X(FLATTEN, "flatten", "Flatten")            /* (N,...) to (N,C) */                                                 \
    X(ADD, "add", "torch.add")                  /* x and `with`, broadcast: a residual sum */                          \
    X(MUL, "mul", "torch.mul")                  /* x and `with`, broadcast: a gate */                                  \
    X(CONCAT, "concat", "torch.cat")            /* x and `with`, along `axis` */                                       \
    /* spiking: names are SpikingJelly's, values with time are (T,N,...) */                                            \
    X(IF, "if", "IFNode")                                    /* integrate-and-fire neurons */                          \
    X(LIF, "lif", "LIFNode")                                 /* with a leak of 1/tau */                                \
    X(PARAMETRIC_LIF, "parametric_lif", "ParametricLIFNode") /* which is trained, one for the layer */                 \
    X(POISSON, "poisson", "PoissonEncoder")                  /* x: probabilities of a spike, drawn in each step */     \
    X(LATENCY, "latency", "LatencyEncoder")                  /* one spike, earlier for larger x in [0, 1] */           \
    X(DIRECT, "direct", "repeat")                            /* x in every step; what made it is computed once */      \
    X(DELTA, "delta", "delta")                               /* of (T,N,...): where x has grown by v_threshold */      \
    X(RATE, "rate", "mean")                                  /* readouts, (T,N,...) to (N,...): the mean over time, */ \
    X(SPIKE_COUNT, "count", "sum")                           /* the sum, */                                            \
    X(LAST, "last", "last")                                  /* the last step, */                                      \
    X(MEMBRANE, "membrane", "NonSpikingLIFNode")             /* or the last potential of neurons that never fire */

typedef enum hk_layer_kind {
#define HK_X(name, text, torch) HK_LAYER_##name,
    HK_LAYER_MAP(HK_X)
#undef HK_X
        HK_LAYER_COUNT
} hk_layer_kind;

/* How a layer takes a value with time, (T,N,...). */
typedef enum hk_time {
    HK_TIME_WHOLE, /* as it is: spiking layers, and linear ones, which look at the last dimension alone */
    HK_TIME_FOLD,  /* SeqToANNContainer: all steps as one batch (T N,...); statistics of norms are over all of it */
    HK_TIME_LOOP,  /* MultiStepContainer: one step (N,...) after the other; neurons in step mode s */
} hk_time;

typedef enum hk_step_mode {
    HK_STEP_DEFAULT, /* multi */
    HK_STEP_MULTI,   /* m: all T steps (T,N,...) in one call; T must be known */
    HK_STEP_SINGLE,  /* s: one step (N,...) a call */
} hk_step_mode;

/* Zero is torch.nn's default. Of the lists of three, one per spatial dimension, a 0 behind the first repeats it: {2}
 * is {2, 2, 2}; where 0 is a number of its own (padding, output_padding), -1 says it. */
typedef struct hk_layer {
    hk_layer_kind kind;
    const char *name;   /* what its parameters begin with, "conv1" of conv1.weight; default: kind and a number */
    int64_t in;         /* features or channels that x must have; default: those it has. Of EMBEDDING: rows */
    int64_t out;        /* features or channels made; of recurrent layers: of one direction */
    int64_t kernel[3];  /* of convolutions and pools */
    int64_t stride[3];  /* default: 1, of pools the kernel */
    int64_t padding[3]; /* on both sides; default: none */
    int64_t dilation[3];
    int64_t output_padding[3]; /* of transposed convolutions */
    int64_t groups;            /* of convolutions (default: 1) and GROUP_NORM */
    int64_t size[3];           /* of what adaptive pools make */
    bool ceil;                 /* pools: the last window may reach over the edge */
    bool exclude_padding;      /* average pools: what lies in the padding does not count */
    bool no_bias;              /* of linear layers, convolutions, attention and recurrent layers */
    bool no_affine;            /* norms without weight and bias, which are then ones and zeros that are not trained */
    float eps;                 /* of norms; default: 1e-5 */
    float momentum;            /* of the new statistics in BATCH_NORM's running ones; default: 0.1 */
    float p;                   /* of DROPOUT, default: 0.5, negative: 0; between recurrent layers and of attention's
                                  weights, default: 0 */
    float alpha;               /* of LEAKY_RELU, ELU, and of the surrogate (0: its default) */
    bool tanh;                 /* GELU's approximation */
    int64_t layers;            /* recurrent layers on one another; default: 1 */
    bool bidirectional;
    bool last;      /* of recurrent layers: only the last hidden state (N,directions*out), of the last layer */
    int64_t heads;  /* of ATTENTION, which must divide its features; default: 1 */
    bool causal;    /* ATTENTION: a query sees no later keys; needs known T */
    int32_t axes;   /* of LAYER_NORM; default: 1 */
    int32_t axis;   /* of SOFTMAX and LOG_SOFTMAX (default: the last) and CONCAT (default: 1); negative: from the end */
    hk_value *with; /* the second operand of ADD, MUL, CONCAT; ATTENTION's memory */
    /* Spiking neurons: H = V - (V - v_reset)/tau + X, a spike where H >= v_threshold, then V = v_reset. Potentials
     * begin at v_reset (0 with a soft reset) and persist between runs of a session until hk_session_reset. */
    hk_time time;
    hk_step_mode step_mode;
    float tau;         /* in steps, above 1, of PARAMETRIC_LIF the first; default: 2. Of MEMBRANE, default: no leak */
    bool decay_input;  /* the input leaks too: H = V + (X - (V - v_reset))/tau */
    float v_threshold; /* default: 1; of DELTA: 0.1 */
    float v_reset;     /* of the hard reset */
    bool soft_reset;   /* V loses the threshold instead */
    bool detach_reset; /* no gradient through the reset */
    const char *surrogate; /* of the spike's gradient: "ATan" (default; alpha 2), "Sigmoid" (4), "FastSigmoid" (2),
                              "SoftSign" (2), "SuperSpike" (1), "PiecewiseQuadratic" or "Triangle" (1),
                              "PiecewiseExp" (1), "Erf" (2), "Rect" (1) */
    hk_value **membrane;   /* receives the potentials after every step, in x's shape; NULL: nobody wants them */
    int64_t steps;         /* T that an encoder gives to (N,...); 0: its input has time */
    bool off_spikes;       /* DELTA: -1 where x has fallen by v_threshold */
} hk_layer;

typedef struct hk_build_params {
    size_t size;
    uint64_t seed;    /* of the initial weights, which depend on it and the parameter's name alone */
    const char *name; /* of the graph; default: "model" */
} hk_build_params;

/* An empty model, to which inputs and layers are added until a session or trainer is made of it. Weights begin as
 * torch.nn's do: uniform in 1/sqrt(fan_in), recurrent ones in 1/sqrt(out), embeddings normal, attention's projection
 * by Xavier's rule. It is saved and exported as ONNX (opset 21). */
HK_API HK_MUST_USE hk_status hk_model_create(hk_context *ctx, const hk_build_params *params, hk_model **out);
/* shape: -1 for what stays open; a first such dimension is called "batch". */
HK_API HK_MUST_USE hk_status hk_model_input(hk_model *m, const char *name, hk_dtype dtype, int32_t rank,
                                            const int64_t *shape, hk_value **out);
/* One layer on x. HK_STATUS_USAGE: x has the wrong shape or type, an option is missing or out of range, or the name is
 * taken. */
HK_API HK_MUST_USE hk_status hk_add(hk_model *m, hk_value *x, const hk_layer *layer, hk_value **y);
/* One after the other: each on what the one before made. After a failure those before the refused layer stay. */
HK_API HK_MUST_USE hk_status hk_add_sequence(hk_model *m, hk_value *x, const hk_layer *layers, size_t count,
                                             hk_value **y);
/* Makes y an output of that name (NULL: "output"). Only then hk_model_inputs, _outputs and _parameters tell of what has
 * been added. */
HK_API HK_MUST_USE hk_status hk_model_output(hk_model *m, hk_value *y, const char *name);
/* Name, type and shape of what a layer made, for instance to print them. */
HK_API void hk_value_get_info(const hk_value *v, hk_value_info *out);

/* ---------------------------------------------------------------- edits */

typedef struct hk_model_edit_params {
    size_t size;
    const char *output; /* whose last layer new_head and dropout mean; default: the first */
    uint64_t seed;      /* of new weights */
    /* Classes: the last Gemm, MatMul or 1x1 Conv before output gets so many, with torch.nn's default weights and the
     * old names. Default: it stays. */
    int64_t new_head;
    /* Small tensors that exporters merged because they were equal stay one parameter. Default: each layer gets its own.
     */
    bool tie;
    /* Matrices of equal contents (hk_model_lost_ties) become one parameter again, read transposed where it must be. */
    bool tie_matrices;
    /* A number of samples that the file fixes, in inputs, Reshape and Expand, becomes open; refused with advice where
     * the graph does not show how. */
    bool open_batch;
    /* Trains adapters x A B alpha/rank beside the weights of Gemm and MatMul, A as torch.nn.Linear's weights and B 0,
     * and the new head; all else is frozen. Export adds them to the weights. alpha's default: the rank. */
    uint32_t lora_rank;
    float lora_alpha;
    float dropout; /* of what the last layer takes, in training; the file has none */
    /* Puts BatchNormalization behind convolutions, where exporters have folded it; export folds it again, or with
     * keep_bn does not. Results stay what they are: statistics come from a batch of calibration, scale and shift undo
     * them; without one they are 0 and 1, and training begins with another function. */
    bool rebuild_bn, keep_bn;
    hk_device *device;            /* for calibration */
    const hk_tensor *calibration; /* the model's inputs, in its order */
    size_t calibration_count;
} hk_model_edit_params;

/* A model to be trained in another form than its file has: what hk_model_save and hk_trainer_export write then is the
 * file with weights in place if no edit changed its structure, else the whole graph, with names, metadata and opset as
 * they were and functions inlined. m must outlive *out and is not changed. HK_STATUS_UNSUPPORTED names the node that is
 * in the way. */
HK_API HK_MUST_USE hk_status hk_model_edit(const hk_model *m, const hk_model_edit_params *params, hk_model **out);

#ifdef __cplusplus
}
#endif
#endif
