/*
 * The arithmetic of spiking neurons on the host: what hk.Neuron's host evaluator and single steps in C share. The
 * kernels' side is shaders/neuron.glsl; for float32 both take the same decisions bit for bit, because both use + - x
 * alone, each rounded to float32, with constants computed here.
 *
 * Equations are those of SpikingJelly's functional neurons (activation_based/functional/neuron.py): per neuron, input
 * X, membrane potential V before the step, H after charging, S the spike; r = 1/tau, rest = v_reset, 0 with a soft
 * reset:
 *     IF                       H = V + X
 *     LIF, decay_input         H = V + (X - (V - rest)) r
 *     LIF, no decay_input      H = V - (V - rest) r + X
 *     S = H >= theta           (a tie fires; NaN does not)
 *     soft reset V' = H - theta S        hard reset V' = v_reset if S, else H
 * ParametricLIF is LIF with r = sigmoid(w).
 */
#ifndef HK_NEURON_H
#define HK_NEURON_H

#include "core/tensor.h"

typedef enum hk_neuron_kind {
    HK_NEURON_IF,
    HK_NEURON_LIF,
    HK_NEURON_PARAMETRIC_LIF,
    HK_NEURON_KIND_COUNT
} hk_neuron_kind;

/* Surrogates of dS/dH at x = H - theta. Names with one formula share a form; see hk_surrogate_set. */
typedef enum hk_surrogate_form {
    HK_SURROGATE_RATIONAL,    /* height / (1 + (slope x)^2)       ATan */
    HK_SURROGATE_LOGISTIC,    /* height s (1 - s), s = sigmoid(slope x) */
    HK_SURROGATE_HYPERBOLIC,  /* height / (1 + slope |x|)^2       FastSigmoid, SoftSign, SuperSpike */
    HK_SURROGATE_TRIANGLE,    /* max(0, height - slope |x|) */
    HK_SURROGATE_EXPONENTIAL, /* height exp(-slope |x|) */
    HK_SURROGATE_GAUSSIAN,    /* height exp(-(slope x)^2)         Erf */
    HK_SURROGATE_BOX,         /* height where |x| < slope, else 0 */
} hk_surrogate_form;

/* Attributes of hk.Neuron and hk.NeuronGrad, as the graph holds them. */
typedef struct hk_neuron_attrs {
    int64_t steps;    /* > 0: X has a leading time axis of that many steps; 0: X is one step */
    const char *kind; /* "IF", "LIF", "ParametricLIF" */
    float tau;        /* of LIF, in steps, > 1 */
    int64_t decay_input;
    const char *reset; /* "hard", "soft" */
    float v_reset;     /* of the hard reset */
    float v_threshold; /* unless a threshold tensor is given */
    int64_t detach_reset;
    const char *surrogate;
    float alpha;       /* of the surrogate; 0: its default */
    const char *state; /* by what name the potential is kept between runs; "": it is not (ops/support/membrane.h) */
} hk_neuron_attrs;

/* What is to be found again in a graph, wherever it has been written to and read from, has names that begin so: */
#define HK_SNN_STEPS_NAME "snn.steps"     /* constants whose first element is T */
#define HK_SNN_READOUT_NAME "snn.readout" /* nodes of the readout: behind them there is no time */
#define HK_SNN_DELAY_NAME "snn.delay"     /* the first step that the readout takes */

/* What a step needs, made from the attributes. */
typedef struct hk_neuron_rule {
    hk_neuron_kind kind;
    bool decay_input, soft, detach_reset;
    bool single; /* round every operation to float32, as the kernels compute; else double throughout */
    double rate; /* 1 / tau; of ParametricLIF hk_neuron_rate of the parameter */
    double rest; /* v_reset, 0 with a soft reset: where V starts, and where it leaks to */
    hk_surrogate_form form;
    double height, slope;
} hk_neuron_rule;

/* NULL when the attributes are valid, else what is wrong, in arena-held text ("attribute 'tau' is 1, expected ..."). */
const char *hk_neuron_check(hk_arena *arena, const hk_neuron_attrs *a);
/* Of valid attributes. */
hk_neuron_rule hk_neuron_rule_of(const hk_neuron_attrs *a, bool single);

/* sigmoid(w): 1/tau of ParametricLIF. single: the kernels' own formula and bits, of + - x alone. */
double hk_neuron_rate(double w, bool single);
/* H from V and X. */
double hk_neuron_charge(const hk_neuron_rule *r, double v, double x);
/* V after the step from H. */
double hk_neuron_reset(const hk_neuron_rule *r, double h, double theta);
/* Charge, fire and reset; *v is replaced. True when the neuron fires. */
bool hk_neuron_step(const hk_neuron_rule *r, double x, double theta, double *v);

/* Looks a surrogate up by name and sets form, height and slope; alpha 0 is the surrogate's default. False when there is
 * no such name. Names, derivatives and defaults (those of SpikingJelly, for FastSigmoid snnTorch's form):
 *     ATan 2               alpha/2 / (1 + (pi/2 alpha x)^2)
 *     Sigmoid 4            alpha s (1 - s), s = sigmoid(alpha x)
 *     FastSigmoid 2        1 / (1 + alpha |x|)^2
 *     SoftSign 2           alpha/2 / (1 + alpha |x|)^2
 *     SuperSpike 1         alpha / (1 + |x|)^2
 *     PiecewiseQuadratic 1 max(0, alpha - alpha^2 |x|), also called Triangle
 *     PiecewiseExp 1       alpha/2 exp(-alpha |x|)
 *     Erf 2                alpha / sqrt(pi) exp(-(alpha x)^2)
 *     Rect 1               alpha where |x| < 1 / (2 alpha), else 0 */
bool hk_surrogate_set(const char *name, double alpha, hk_surrogate_form *form, double *height, double *slope);
double hk_surrogate_gradient(const hk_neuron_rule *r, double x);

#endif
