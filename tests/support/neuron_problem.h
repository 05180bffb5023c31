/*
 * Problems of spiking neurons for tests: a hk.Neuron node and its hk.NeuronGrad with operands given as doubles, run by
 * the host evaluators or on the device. Every helper fails the running test when something goes wrong.
 */
#ifndef HK_TEST_NEURON_PROBLEM_H
#define HK_TEST_NEURON_PROBLEM_H

#include "ops/op.h"
#include "ops/support/neuron.h"

/* What a test works with; cmocka's state. */
typedef struct neuron_bench {
    hk_context *ctx;
    hk_device *dev; /* NULL: there is none, and tests of the device are skipped */
    hk_arena *arena;
    hk_graph *graph;
    const hk_tensor *feeds[2048]; /* in the order of the graph's inputs */
    uint64_t random;
} neuron_bench;

int neuron_bench_open(void **state); /* of the group */
int neuron_bench_close(void **state);
int neuron_bench_begin(void **state); /* of each test: a new arena and graph */
int neuron_bench_end(void **state);

void neuron_need(neuron_bench *b, hk_status st);
hk_tensor *neuron_tensor(neuron_bench *b, hk_dtype dtype, const hk_shape *shape, const double *x);
/* An input of the graph, fed with t. */
hk_value *neuron_feed(neuron_bench *b, const hk_tensor *t);
/* All outputs of the graph, from the host evaluators or from the device. */
hk_tensor **neuron_run(neuron_bench *b, bool device);
bool neuron_same_bits(const hk_tensor *a, const hk_tensor *b);

/* ---- problems */

enum { X, V0, W, THETA, GS, GV, GV_SEQ, INPUTS };
enum { S, V, V_SEQ, GX, GV0, GW, GTHETA, OUTPUTS };

typedef struct neuron_problem {
    hk_neuron_attrs attrs;
    hk_dtype dtype;
    int64_t steps; /* T; attrs.steps is T, or 0 with T = 1 */
    hk_shape neurons;
    int64_t thetas;          /* 0: the attribute */
    double *in[INPUTS];      /* NULL: absent */
    hk_tensor *out[OUTPUTS]; /* after neuron_take */
    size_t first_output;     /* in the graph */
} neuron_problem;

extern const hk_neuron_attrs neuron_defaults;

int64_t neuron_count(const neuron_problem *p);
hk_shape neuron_input_shape(const neuron_problem *p, int i);
double *neuron_random_input(neuron_bench *b, const neuron_problem *p, int i, double low, double high);
hk_node *neuron_node(neuron_bench *b, const char *type, const neuron_problem *p, hk_value *const *in, int32_t in_count,
                     int32_t out_count);
/* Adds both nodes; their outputs become the graph's. */
void neuron_add(neuron_bench *b, neuron_problem *p);
void neuron_take(neuron_problem *p, hk_tensor **outputs);
/* One problem in a graph of its own. */
void neuron_solve(neuron_bench *b, neuron_problem *p, bool device);
const char *neuron_describe(const neuron_problem *p);
/* |found - expected| <= tolerance (1 + |expected|), else the test fails and says of what. */
void neuron_near(const neuron_problem *p, const char *what, double found, double expected, double tolerance);

/* ---- every rule and surrogate */

typedef struct neuron_rule {
    const char *kind, *reset;
    int decay_input, detach;
} neuron_rule;

enum { NEURON_RULES = 20, NEURON_SURROGATES = 10 };
extern const neuron_rule neuron_rules[NEURON_RULES];
extern const struct neuron_surrogate {
    const char *name;
    double alpha; /* default */
} neuron_surrogates[NEURON_SURROGATES];

/* A random problem of that rule; operands and thresholds vary with k. */
neuron_problem neuron_random_problem(neuron_bench *b, hk_dtype dtype, const neuron_rule *r, int64_t steps, size_t k,
                                     hk_shape neurons);

#endif
