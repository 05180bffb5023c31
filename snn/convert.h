/*
 * From a trained network to a spiking one, as steps from graph to graph; runtime/snn_convert.c runs what lies between.
 *
 * The time axis is folded into the batch: a value behind a neuron, (N,...) in the original, is (T N,...) here, time
 * outermost, and every operator that treats samples alone runs on it unchanged. Only neurons, MaxPool's sums and the
 * readout see (T,N,...). What lies before the first neurons is computed once, for its input is the same at every step.
 */
#ifndef HK_SNN_CONVERT_H
#define HK_SNN_CONVERT_H

#include "core/graph.h"
#include "ops/support/neuron.h"

/* Names of the ReLUs of a signed pair end so. */
#define HK_SNN_PLUS ".plus"
#define HK_SNN_MINUS ".minus"

/* An activation that becomes neurons. */
typedef struct hk_snn_site {
    hk_node *node;
    hk_value *x, *y;        /* its input and output */
    int64_t channels;       /* thresholds a layer can have: axis 1, or 1 */
    int64_t inner;          /* elements of a channel, per sample */
    double ceiling;         /* of Clip; infinity of Relu */
    float *thresholds;      /* [channels], set by calibration */
    float *corrections;     /* [channels] added to x; NULL: none */
    bool folded;            /* amplitudes are in the weights behind it */
    const hk_tensor *given; /* thresholds that were trained (hk.QCFS); NULL: calibration finds them */
    bool may_be_dead;       /* one half of a signed pair: the other carries the values */
} hk_snn_site;

/* What a conversion may do with what has no spiking counterpart. */
typedef struct hk_snn_choice {
    bool average_pool;
    bool functional; /* other functions of values in time are computed on running means */
} hk_snn_choice;

typedef struct hk_snn_plan {
    hk_graph *graph;         /* the one to be rewritten */
    hk_arena *arena;         /* the graph's */
    hk_shape *shapes;        /* by value id, with a batch of `batch`; rank -1: not known */
    const hk_tensor **known; /* by value id: contents that do not depend on the input's */
    size_t value_count;
    int64_t batch;
    int32_t opset;
    hk_snn_choice choice;
    bool *timed;        /* by value id: has a time axis */
    bool *downstream;   /* by value id: an activation to be replaced lies behind it */
    hk_snn_node *nodes; /* verdicts, one per node of the graph, in order: */
    hk_node **of;       /* those */
    size_t node_count;
    hk_snn_site *sites;
    size_t site_count;
} hk_snn_plan;

/* Judges every node of g, whose batch normalizations are folded, and finds the activations. Fails only where nothing
 * can be said at all: an input without known shape, an opset below 13. */
hk_status hk_snn_plan_make(hk_graph *g, hk_snn_choice choice, hk_snn_plan *out);
/* All unsupported nodes in one sentence, HK_STATUS_UNSUPPORTED; HK_OK when there are none. */
hk_status hk_snn_plan_check(const hk_snn_plan *p);
/* For functional conversions, before a plan: what functions other than activations hand to layers of weights becomes
 * the difference of two ReLUs, relu(x) - relu(-x), so that these layers take spikes, of either sign. */
hk_status hk_snn_sign_pairs(hk_graph *g);
/* Linear in each operand that has a time axis, or moves its elements. */
bool hk_snn_is_linear(const char *type);
/* Relu, Clip, hk.QCFS. */
bool hk_snn_is_activation(const hk_node *n);
/* Any function of one number that networks are trained with between layers of weights. */
bool hk_snn_bends(const hk_node *n);
/* Each activation becomes hk.QCFS of so many levels, with the plan's thresholds as parameters: one per layer, or per
 * channel. */
hk_status hk_snn_insert_qcfs(hk_snn_plan *p, int64_t levels, bool per_channel);
/* MaxPool becomes AveragePool. */
hk_status hk_snn_average_pools(hk_snn_plan *p);
/* The graph takes any number of samples: shapes that the batch is written into lose it. */
hk_status hk_snn_free_batch(hk_snn_plan *p);

typedef struct hk_snn_form {
    int64_t steps, delay;
    double tau; /* 0: IF */
    bool hard_reset, scalers;
    bool probe; /* for bias calibration: corrections are graph inputs [1,C,1,...], mean spikes [C] graph outputs */
    bool rates; /* mean spikes over time (N,...) of each site are graph outputs, after the network's own */
} hk_snn_form;

/* Rewrites the graph. */
hk_status hk_snn_rewrite(hk_snn_plan *p, const hk_snn_form *form);
/* In a graph that hk_snn_rewrite made: T, and the readout's delay; 0 without neurons. */
hk_snn_info hk_snn_describe(const hk_graph *g);
hk_status hk_snn_set_steps(hk_graph *g, int64_t steps);
/* Adds outputs per layer (see hk_snn_probe); *probes in the graph's arena. */
hk_status hk_snn_add_probes(hk_graph *g, uint32_t monitors, hk_snn_probe **probes, size_t *count);
/* Adds what the network's outputs are after fewer steps, see hk_snn_with_readouts. */
hk_status hk_snn_add_readouts(hk_graph *g, const int64_t *steps, size_t count);
/* By value id: has a time axis folded into its batch. In the graph's arena; NULL: out of memory. */
bool *hk_snn_find_timed(const hk_graph *g);

/* ---- nodes of the opset of the graph (snn/build.c) */

hk_status hk_snn_node_make(hk_graph *g, int32_t opset, const char *type, const char *name,
                           const struct hk_attr_value *attrs, hk_value *const *in, int32_t in_count, hk_value **out);
hk_status hk_snn_reshape(hk_graph *g, int32_t opset, hk_value *x, const char *name, const int64_t *dims, int32_t rank,
                         hk_value **out);
/* The mean, or the sum, over axes, which go. */
hk_status hk_snn_reduce(hk_graph *g, int32_t opset, const char *type, hk_value *x, const int64_t *axes, int32_t count,
                        hk_value **out);
hk_value *hk_snn_floats(hk_graph *g, const char *name, const float *x, int32_t rank, const int64_t *dims);
hk_value *hk_snn_integers(hk_graph *g, const char *name, const int64_t *x, int64_t count);
/* HK_STATUS_UNSUPPORTED with what is said of all nodes that have this verdict, or HK_OK. */
hk_status hk_snn_refuse_unsupported(hk_graph *g, const hk_snn_node *nodes, size_t count);
/* Newest version of the default domain among the nodes of a file. */
int32_t hk_snn_opset(const hk_graph *g);

/* ---- time in a graph (snn/time.c). s is the shape without time, its first dimension the batch */

typedef struct hk_snn_time {
    hk_graph *g;
    int32_t opset;
    int64_t steps;
} hk_snn_time;

/* (T N,...) as (T,N,...), and back. */
hk_status hk_snn_split_time(const hk_snn_time *t, hk_value *x, const hk_shape *s, hk_value **out);
hk_status hk_snn_join_time(const hk_snn_time *t, hk_value *x, const hk_shape *s, hk_value **out);
/* (N,...) at every step: (T,N,...). */
hk_status hk_snn_repeat(const hk_snn_time *t, hk_value *x, const hk_shape *s, hk_value **out);
/* The extents (T,1,...) of that rank; NULL: out of memory. */
hk_value *hk_snn_times(const hk_snn_time *t, int32_t rank);
/* Who reads `from`, except one node (NULL: none), reads `to`. */
void hk_snn_redirect(hk_graph *g, const hk_value *from, hk_value *to, const hk_node *but);
/* An output y keeps its name for what will be read out: what made it, and its readers, have *in_steps. */
hk_status hk_snn_give_up_name(hk_graph *g, hk_value *y, hk_value **in_steps);

/* Found again in shapes: no extent of a network, so a dimension of it is the batch. */
enum { HK_SNN_PROBE_BATCH = 1009 };

/* Shapes of g with the batch of its inputs bound: the first open dimension or, all fixed, the second of (T,N,...), else
 * the first. NULL shapes entries: not known. */
hk_status hk_snn_shapes(const hk_graph *g, int64_t batch, hk_arena *arena, hk_shape **shapes, const hk_tensor ***known);
/* With HK_SNN_PROBE_BATCH, or the batch that the file fixes where its nodes allow no other. */
hk_status hk_snn_bind(const hk_graph *g, int64_t *batch, hk_shape **shapes, const hk_tensor ***known);

#endif
