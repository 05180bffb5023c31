/* Spiking networks. A part of hillock.h, which says the contract. */
#ifndef HILLOCK_SNN_H
#define HILLOCK_SNN_H

#include "build.h"
#include "train.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------- spiking */

/* One step of spiking neurons on the host, in place of a node: the same arithmetic, float32, bit for bit. Zero in a
 * field is its default, so hk_lif_step with NULL is F.lif_step with tau 2, threshold 1 and a hard reset to 0. */
typedef struct hk_neuron_params {
    size_t size;
    float tau;         /* of LIF, in steps, above 1; default: 2 */
    bool decay_input;  /* the input leaks too: H = V + (X - (V - v_reset)) / tau; else H = V - (V - v_reset)/tau + X */
    float v_threshold; /* default: 1 */
    float v_reset;     /* of the hard reset */
    bool soft_reset;   /* V loses the threshold instead of becoming v_reset */
} hk_neuron_params;

/* v (count membrane potentials) takes the input x and is replaced; spike receives 0 or 1. A potential that reaches the
 * threshold fires. spike may be x. HK_STATUS_USAGE: a parameter is out of range. */
HK_API HK_MUST_USE hk_status hk_if_step(hk_context *ctx, const hk_neuron_params *params, size_t count, const float *x,
                                        float *v, float *spike);
HK_API HK_MUST_USE hk_status hk_lif_step(hk_context *ctx, const hk_neuron_params *params, size_t count, const float *x,
                                         float *v, float *spike);

/* How thresholds are found from the activations of the original on calibration data. */
typedef enum hk_snn_mode {
    HK_SNN_MODE_DEFAULT,    /* MMSE */
    HK_SNN_MODE_MMSE,       /* least squared error of the activation quantised to `steps` levels, among 95 shares of its
                               maximum */
    HK_SNN_MODE_MAX,        /* its maximum */
    HK_SNN_MODE_PERCENTILE, /* `level` percent of its elements are not above it; exact over all data, interpolated */
    HK_SNN_MODE_SCALE,      /* `level` times its maximum */
} hk_snn_mode;

typedef enum hk_snn_grain {
    HK_SNN_GRAIN_DEFAULT, /* with MMSE a threshold per channel, else per layer */
    HK_SNN_GRAIN_CHANNEL,
    HK_SNN_GRAIN_LAYER,
} hk_snn_grain;

typedef enum hk_snn_verdict {
    HK_SNN_PASSES,      /* works on spikes as it is, or before the first neuron */
    HK_SNN_EXACT,       /* replaced; its sum over time is the original's function of sums */
    HK_SNN_NEURON,      /* an activation that becomes neurons: as exact as its number of steps */
    HK_SNN_READOUT,     /* computed once, of the mean over time */
    HK_SNN_APPROXIMATE, /* replaced by something else */
    HK_SNN_UNSUPPORTED,
} hk_snn_verdict;
/* "exact", "unsupported", ... */
HK_API const char *hk_snn_verdict_text(hk_snn_verdict v);

typedef struct hk_snn_node {
    const char *node, *op;
    hk_snn_verdict verdict;
    const char *reason; /* what it becomes, or what to do about it */
    bool spike_only;    /* false: hands on numbers that are no spikes */
} hk_snn_node;

/* A layer of neurons. */
typedef struct hk_snn_layer {
    const char *node, *op;   /* of the activation */
    const float *thresholds; /* one, or one per channel */
    size_t threshold_count;
    size_t dead;               /* channels that were never above 0 in calibration */
    double greatest;           /* activation of the original */
    double ann_mean, snn_mean; /* mean activation in bias calibration, before correction; 0 without */
    double error;              /* of the activations that the finished network's spikes say: norm of the difference from
                                  the original's, by the norm of those, on bias_samples; NAN without data */
} hk_snn_layer;

/* How close the finished network is to the original, on bias_samples of the calibration data. */
typedef struct hk_snn_fidelity {
    int64_t samples;
    double error;      /* of the first output: norm of the difference by norm of the original's */
    double same_class; /* share of rows whose largest element is at the same place; NAN: the output is no matrix */
} hk_snn_fidelity;

typedef struct hk_snn_params {
    size_t size;
    int64_t steps; /* T; default: 16 */
    hk_snn_mode mode;
    double level; /* of PERCENTILE, in (0,100]; of SCALE, in (0,1] */
    hk_snn_grain grain;
    bool average_pool; /* MaxPool becomes AveragePool; else the difference of maxima of sums, which is exact but
                          hands on numbers */
    double tau;        /* above 1: neurons leak (LIF, decay_input false), so rates lie below activations; default: IF */
    bool hard_reset;   /* to 0, from 0; else soft, from half the threshold */
    bool scalers;      /* keep weights and put a scale before and behind each neuron; else thresholds are scaled
                          and the amplitudes of spikes are in the weights behind them */
    bool no_bias_calibration; /* else biases are corrected layer by layer by the mean error on calibration data */
    int64_t bias_samples;     /* how many samples at least that takes; default: 256 */
    int64_t delay;            /* steps that the readout leaves out */
    hk_loader *loader;        /* calibration data: one epoch of it, */
    const hk_tensor *inputs;  /* or one batch, in the order of the model's inputs */
    size_t input_count;
    void (*report)(void *user, const hk_snn_node *n); /* every node, before anything is made; lent for the call */
    void (*layer)(void *user, const hk_snn_layer *l); /* every layer of neurons, at the end */
    void *user;
    void (*fidelity)(void *user, const hk_snn_fidelity *f); /* after the layers, when there is data */
    bool functional; /* functions without spiking counterpart (GELU, LayerNormalization, Softmax, products of two values
                        in time) are computed on the mean of what came so far, y_t = t f(m_t) - (t-1) f(m_(t-1)), so
                        that the mean of y is f of the mean: exact, but not spike-only. Signed pairs of neurons go
                        in front of the layers of weights that take what they hand on */
    int64_t
        qcfs_levels; /* above 0: no neurons yet, but hk.QCFS with so many levels in place of the activations, whose
                        thresholds are parameters. Fine-tune that model, then convert it: it brings its thresholds */
} hk_snn_params;

/* Turns a trained network into a spiking one: ReLU and Clip (ReLU6) become integrate-and-fire neurons, everything that
 * is linear in time stays. Input and output are the original's: the input is given at every step, the output is the
 * mean over time. The result is a model like any other: it runs, is trained, and is saved with hk_model_save.
 * A model of hk.QCFS activations alone needs no calibration data; with data its biases are calibrated.
 * HK_STATUS_USAGE: no calibration data, or an option is out of range. HK_STATUS_UNSUPPORTED names every node that has
 * no counterpart. HK_STATUS_INVALID: a layer is dead or not finite on the data. */
HK_API HK_MUST_USE hk_status hk_snn_convert(hk_device *dev, const hk_model *m, const hk_snn_params *params,
                                            hk_model **out);

typedef struct hk_snn_info {
    int64_t steps; /* T; 0: the model has no neurons that walk through time */
    int64_t delay;
    size_t layers; /* of neurons */
    bool readouts; /* its outputs are means over time, so that hk_snn_with_readouts can take them earlier */
} hk_snn_info;
HK_API void hk_snn_get_info(const hk_model *m, hk_snn_info *out);

/* What is watched; several are added up. */
enum {
    HK_SNN_MONITOR_COUNTS = 1,     /* spikes and synaptic operations, and each neuron's spikes */
    HK_SNN_MONITOR_SPIKES = 2,     /* the spikes themselves */
    HK_SNN_MONITOR_POTENTIALS = 4, /* membrane potentials after every step */
};

/* A layer of synapses or of neurons of a model with monitors. Names are those of outputs to read, NULL: not watched. */
typedef struct hk_snn_probe {
    const char *node, *op;
    const char *output; /* float32 [T], of each step, the batch's sum: spikes, or synaptic operations; NULL: synapses
                           before the first neurons, which take numbers, once */
    double neurons;     /* per sample: the rate is spikes / (samples T neurons); 0: synapses */
    double macs;        /* of synapses: multiply-accumulates of the original per sample */
    const char *each;   /* of neurons: float32 [neurons], spikes of each over batch and steps */
    const char *charge; /* of neurons: float32 [1], the sum of potentials after the last step; not finite: one of them
                           is not, and such a neuron is silent */
    const char *spikes, *potentials; /* of neurons: float32 (T,N,...) */
} hk_snn_probe;

/* The same network with another number of steps, which inputs (T,N,...) then have, watched as monitors say (0: not at
 * all). The probes, in the order of the graph, live as long as the model. */
HK_API HK_MUST_USE hk_status hk_snn_with_steps(const hk_model *m, int64_t steps, uint32_t monitors, hk_model **out);
/* Several numbers of steps in one run, for a network's past does not depend on its future: it runs the largest, and for
 * each smaller one T has outputs that are its own after T steps, called NAME@T. */
HK_API HK_MUST_USE hk_status hk_snn_with_readouts(const hk_model *m, const int64_t *steps, size_t count,
                                                  uint32_t monitors, hk_model **out);
HK_API const hk_snn_probe *hk_snn_probes(const hk_model *m, size_t *count);

/* ---- spiking networks trained as such: built of layers (hk_layer), or made of a network of activations */

typedef enum hk_snn_encoding {
    HK_SNN_ENCODE_DEFAULT, /* direct */
    HK_SNN_ENCODE_DIRECT,  /* the input at every step; what comes before the first neurons is computed once */
    HK_SNN_ENCODE_POISSON, /* spikes drawn with the input as probability, anew in every step and run */
    HK_SNN_ENCODE_LATENCY, /* one spike, in step round((T - 1)(1 - x)) */
} hk_snn_encoding;

typedef enum hk_snn_readout {
    HK_SNN_READ_DEFAULT,  /* rate */
    HK_SNN_READ_RATE,     /* neurons behind the outputs, their mean over time */
    HK_SNN_READ_COUNT,    /* the same, their sum */
    HK_SNN_READ_MEMBRANE, /* the last potential of neurons without leak that never fire: the sum over time */
    HK_SNN_READ_LAST,     /* what the last step makes */
} hk_snn_readout;

typedef struct hk_snn_native_params {
    size_t size;
    int64_t steps; /* T; default: 16 */
    hk_snn_encoding encoding;
    hk_snn_readout readout;
    const hk_layer *neuron;                           /* IF, LIF or PARAMETRIC_LIF with its options; default: LIF */
    void (*report)(void *user, const hk_snn_node *n); /* every node; lent for the call */
    void *user;
} hk_snn_native_params;

/* Neurons in place of all activations, for training from where the weights are: unlike a conversion it keeps nothing of
 * what the network computed and needs no data. Inputs (N,...) and outputs keep names and shapes; a Softmax or Sigmoid
 * that ends the network comes behind the readout. The result is a model like any other. HK_STATUS_UNSUPPORTED names the
 * node that mixes samples. params NULL: defaults. */
HK_API HK_MUST_USE hk_status hk_snn_native(const hk_model *m, const hk_snn_native_params *params, hk_model **out);

/* F.set_step_mode: the same network for one step a run (HK_STEP_SINGLE), or for all `steps` in one call. Single: inputs
 * and outputs (T,N,...) become (N,...), potentials persist between runs until hk_session_reset, and T runs give the
 * bits of one call; a readout is that of its step. Multi is the way back, and makes of layers in step mode s what they
 * are in step mode m: (N,...) becomes (T,N,...), for any number of samples; a BatchNormalization that is trained then
 * normalizes all steps together. steps is for HK_STEP_MULTI: 1 to 65536, 0 where the network is multi-step already.
 * HK_STATUS_USAGE: steps is out of range, or another number than the network has. HK_STATUS_UNSUPPORTED names what is
 * in the way: an encoder or pooling that looks at several steps, potentials that do not persist, a node that mixes
 * samples.
 */
HK_API HK_MUST_USE hk_status hk_snn_set_step_mode(const hk_model *m, hk_step_mode mode, int64_t steps, hk_model **out);

/* A layer of neurons of a model. */
typedef struct hk_snn_neuron {
    const char *node, *kind; /* "IF", "LIF" or "ParametricLIF" */
    double tau;              /* in steps; 0: no leak */
    const char *parameter;   /* of which a ParametricLIF's 1/tau is the sigmoid, else NULL */
    double v_threshold;
    int64_t steps; /* 0: step mode s */
} hk_snn_neuron;

/* Writes at most capacity entries and always the true number in *count. */
HK_API HK_MUST_USE hk_status hk_snn_neurons(const hk_model *m, hk_snn_neuron *list, size_t capacity, size_t *count);

/* ---- forms that others read */

typedef enum hk_snn_format {
    HK_SNN_FORMAT_ONNX,      /* standard operators alone, a step after the other: at most 1024 steps */
    HK_SNN_FORMAT_ONNX_SCAN, /* standard operators alone, the steps of a layer in a Scan */
    HK_SNN_FORMAT_NIR,       /* neuroir.org's, as its package nir 1.0 reads it; needs libhdf5 (see hk_build_info) */
} hk_snn_format;

typedef struct hk_snn_export_params {
    size_t size;
    hk_snn_format format;
    double dt;        /* of NIR, seconds that a step takes there; default: 1e-4, which some of its readers assume */
    bool approximate; /* of NIR: soft resets become hard ones, neurons start at rest; else both are refused */
    void (*report)(void *user, const hk_snn_node *n); /* of NIR, every node before anything is written */
    void *user;
} hk_snn_export_params;

/* Writes a spiking network to a file of a format that other programs read. In ONNX of standard operators it computes
 * what it computes here, with the same roundings in each neuron; names of inputs, outputs and spikes stay.
 *
 * A NIR file holds what happens to a sample in a step: IF and LIF with r = 1 and tau = dt times ours, whose missing
 * gain is in the weights before them (1/dt for IF, tau for LIF without decay_input); means of the readout, steps, dt
 * and reset stand in its metadata. NIR's neurons fire above their threshold and ours at it, so it is written 2^-20 of
 * itself lower.
 *
 * HK_STATUS_USAGE: the model has no neurons. HK_STATUS_UNSUPPORTED names every node that the format cannot express, or
 * the library that the build lacks. No file is left on failure. params NULL: defaults. */
HK_API HK_MUST_USE hk_status hk_snn_export(const hk_model *m, const hk_snn_export_params *params, const char *path);

#ifdef __cplusplus
}
#endif
#endif
