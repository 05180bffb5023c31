/* Problems of spiking neurons. */
#include "tests/support/neuron_problem.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ops/step.h"
#include "tests/support/device.h"

int neuron_bench_open(void **state)
{
    neuron_bench *b = calloc(1, sizeof *b);
    if (!b || hk_context_create(NULL, &b->ctx) != HK_OK)
        return -1;
    *state = b;
    size_t count = 0;
    if (hk_device_list(b->ctx, NULL, 0, &count) != HK_OK || count == 0)
        return 0;
    if (hk_device_open(b->ctx, NULL, &b->dev) == HK_OK)
        return 0;
    print_error("%s\n", hk_context_error(b->ctx));
    return -1;
}

int neuron_bench_close(void **state)
{
    neuron_bench *b = *state;
    hk_device_close(&b->dev);
    hk_context_destroy(&b->ctx);
    free(b);
    return 0;
}

int neuron_bench_begin(void **state)
{
    neuron_bench *b = *state;
    b->random = 88172645463325252u;
    b->arena = hk_arena_create(b->ctx);
    return b->arena && hk_graph_create(b->ctx, "neurons", &b->graph) == HK_OK ? 0 : -1;
}

int neuron_bench_end(void **state)
{
    neuron_bench *b = *state;
    hk_graph_destroy(&b->graph);
    hk_arena_destroy(&b->arena);
    return 0;
}

void neuron_need(neuron_bench *b, hk_status st)
{
    if (st != HK_OK)
        print_error("%s\n", hk_context_error(b->ctx));
    assert_int_equal(st, HK_OK);
}

static double uniform(neuron_bench *b, double low, double high)
{
    b->random ^= b->random << 13;
    b->random ^= b->random >> 7;
    b->random ^= b->random << 17;
    return low + (high - low) * (double)(b->random >> 11) * 0x1p-53;
}

hk_value *neuron_feed(neuron_bench *b, const hk_tensor *t)
{
    hk_shape shape = hk_tensor_shape(t);
    hk_value *v = hk_graph_value(b->graph, "feed", HK_VALUE_INPUT, t->dtype, &shape);
    assert_true(b->graph->input_count < HK_COUNT(b->feeds));
    assert_true(v && hk_graph_add_input(b->graph, v));
    b->feeds[b->graph->input_count - 1] = t;
    return v;
}

/* ---- problems */

const hk_neuron_attrs neuron_defaults = {
    .kind = "LIF", .tau = 2, .reset = "hard", .v_threshold = 1, .surrogate = "ATan"};

int64_t neuron_count(const neuron_problem *p)
{
    return hk_shape_count(&p->neurons);
}

static int64_t input_count(const neuron_problem *p, int i)
{
    int64_t n = neuron_count(p);
    return i == W ? 1 : i == THETA ? p->thetas : i == V0 || i == GV ? n : n * p->steps;
}

hk_shape neuron_input_shape(const neuron_problem *p, int i)
{
    if (i == W)
        return HK_SCALAR;
    if (i == THETA)
        return p->thetas == 1 ? HK_SCALAR : (hk_shape){.rank = 1, .dim = {p->thetas}};
    if (i == V0 || i == GV || !p->attrs.steps)
        return p->neurons;
    hk_shape s = {.rank = p->neurons.rank + 1, .dim = {p->steps}};
    for (int32_t d = 0; d < p->neurons.rank; d++)
        s.dim[d + 1] = p->neurons.dim[d];
    return s;
}

double *neuron_random_input(neuron_bench *b, const neuron_problem *p, int i, double low, double high)
{
    int64_t n = input_count(p, i);
    double *x = hk_arena_array(b->arena, (size_t)n, sizeof *x);
    assert_non_null(x);
    for (int64_t k = 0; k < n; k++)
        x[k] = p->dtype == HK_FLOAT32 ? (double)(float)uniform(b, low, high) : uniform(b, low, high);
    return x;
}

hk_tensor *neuron_tensor(neuron_bench *b, hk_dtype dtype, const hk_shape *shape, const double *x)
{
    hk_tensor *t = hk_tensor_new(b->arena, dtype, shape);
    assert_non_null(t);
    for (int64_t k = 0; k < hk_shape_count(shape); k++)
        hk_set_double(t, k, x[k]);
    return t;
}

hk_node *neuron_node(neuron_bench *b, const char *type, const neuron_problem *p, hk_value *const *in, int32_t in_count,
                     int32_t out_count)
{
    const hk_op *op = hk_op_find(NULL, type, INT16_MAX, NULL);
    hk_neuron_attrs *attrs = hk_arena_new(b->graph->arena, hk_neuron_attrs);
    assert_true(op && attrs);
    *attrs = p->attrs;
    hk_node *n = hk_graph_node(b->graph, NULL, type, op, attrs, in, in_count, out_count);
    assert_non_null(n);
    return n;
}

/* Adds both nodes; their outputs become the graph's. */
void neuron_add(neuron_bench *b, neuron_problem *p)
{
    hk_value *in[INPUTS] = {0};
    for (int i = 0; i < INPUTS; i++) {
        hk_shape shape = neuron_input_shape(p, i);
        if (p->in[i])
            in[i] = neuron_feed(b, neuron_tensor(b, p->dtype, &shape, p->in[i]));
    }
    hk_node *forward = neuron_node(b, "hk.Neuron", p, in, THETA + 1, GX);
    hk_node *back = neuron_node(b, "hk.NeuronGrad", p, in, INPUTS, OUTPUTS - GX);
    for (int i = GW; i <= GTHETA; i++)
        if (!p->in[i == GW ? W : THETA]) {
            back->out[i - GX]->producer = NULL;
            back->out[i - GX] = NULL;
        }
    neuron_need(b, hk_node_infer(b->graph, forward));
    neuron_need(b, hk_node_infer(b->graph, back));
    p->first_output = b->graph->output_count;
    for (int i = 0; i < OUTPUTS; i++) {
        hk_value *v = i < GX ? forward->out[i] : back->out[i - GX];
        if (v)
            assert_true(hk_graph_add_output(b->graph, v));
    }
}

static void run_host(neuron_bench *b, hk_tensor **outputs)
{
    static const hk_step step;
    hk_graph *g = b->graph;
    const hk_tensor **at = hk_arena_array(b->arena, g->value_count, sizeof *at);
    assert_non_null(at);
    for (size_t i = 0; i < g->input_count; i++)
        at[g->inputs[i]->id] = b->feeds[i];
    for (size_t i = 0; i < g->node_count; i++) {
        const hk_node *n = g->nodes[i];
        const hk_tensor *in[INPUTS] = {0};
        hk_tensor *out[OUTPUTS] = {0};
        for (int32_t k = 0; k < n->in_count; k++)
            in[k] = n->in[k] ? n->in[k]->data ? n->in[k]->data : at[n->in[k]->id] : NULL;
        neuron_need(b, hk_node_eval(b->ctx, b->arena, n, in, out, &step));
        for (int32_t k = 0; k < n->out_count; k++)
            if (n->out[k])
                at[n->out[k]->id] = out[k];
    }
    for (size_t i = 0; i < g->output_count; i++) {
        outputs[i] = hk_arena_new(b->arena, hk_tensor);
        assert_non_null(outputs[i]);
        *outputs[i] = *at[g->outputs[i]->id];
    }
}

hk_tensor **neuron_run(neuron_bench *b, bool device)
{
    hk_tensor **outputs = hk_arena_array(b->arena, b->graph->output_count, sizeof *outputs);
    assert_non_null(outputs);
    if (device)
        neuron_need(b, hk_test_run_graph(b->dev, b->graph, b->feeds, outputs, b->arena));
    else
        run_host(b, outputs);
    return outputs;
}

void neuron_take(neuron_problem *p, hk_tensor **outputs)
{
    size_t at = p->first_output;
    for (int i = 0; i < OUTPUTS; i++) {
        bool absent = (i == GW && !p->in[W]) || (i == GTHETA && !p->in[THETA]);
        p->out[i] = absent ? NULL : outputs[at++];
    }
}

/* One neuron_problem in a graph of its own. */
void neuron_solve(neuron_bench *b, neuron_problem *p, bool device)
{
    hk_graph_destroy(&b->graph);
    neuron_need(b, hk_graph_create(b->ctx, "neurons", &b->graph));
    neuron_add(b, p);
    neuron_take(p, neuron_run(b, device));
}

const char *neuron_describe(const neuron_problem *p)
{
    static char text[256];
    snprintf(text, sizeof text, "%s tau %g decay_input %d %s reset to %g, detach %d, %s(%g), T %d, %d thresholds",
             p->attrs.kind, (double)p->attrs.tau, (int)p->attrs.decay_input, p->attrs.reset, (double)p->attrs.v_reset,
             (int)p->attrs.detach_reset, p->attrs.surrogate, (double)p->attrs.alpha, (int)p->steps, (int)p->thetas);
    return text;
}

/* |found - expected| <= tolerance (1 + |expected|) */
void neuron_near(const neuron_problem *p, const char *what, double found, double expected, double tolerance)
{
    if (fabs(found - expected) <= tolerance * (1 + fabs(expected)))
        return;
    print_error("%s: %s is %.9g, expected %.9g\n", neuron_describe(p), what, found, expected);
    fail();
}

bool neuron_same_bits(const hk_tensor *a, const hk_tensor *b)
{
    return hk_tensor_bytes(a) == hk_tensor_bytes(b) && !memcmp(a->data, b->data, (size_t)hk_tensor_bytes(a));
}

/* ---- every rule and surrogate */

const struct neuron_surrogate neuron_surrogates[NEURON_SURROGATES] = {
    {"ATan", 2},     {"Sigmoid", 4},      {"FastSigmoid", 2},
    {"SoftSign", 2}, {"SuperSpike", 1},   {"PiecewiseQuadratic", 1},
    {"Triangle", 1}, {"PiecewiseExp", 1}, {"Erf", 2},
    {"Rect", 1},
};

const neuron_rule neuron_rules[NEURON_RULES] = {
    {"IF", "hard", 0, 0},
    {"IF", "hard", 0, 1},
    {"IF", "soft", 0, 0},
    {"IF", "soft", 0, 1},
    {"LIF", "hard", 0, 0},
    {"LIF", "hard", 0, 1},
    {"LIF", "hard", 1, 0},
    {"LIF", "hard", 1, 1},
    {"LIF", "soft", 0, 0},
    {"LIF", "soft", 0, 1},
    {"LIF", "soft", 1, 0},
    {"LIF", "soft", 1, 1},
    {"ParametricLIF", "hard", 0, 0},
    {"ParametricLIF", "hard", 0, 1},
    {"ParametricLIF", "hard", 1, 0},
    {"ParametricLIF", "hard", 1, 1},
    {"ParametricLIF", "soft", 0, 0},
    {"ParametricLIF", "soft", 0, 1},
    {"ParametricLIF", "soft", 1, 0},
    {"ParametricLIF", "soft", 1, 1},
};

/* A random neuron_problem of that rule; operands and thresholds vary with k. */
neuron_problem neuron_random_problem(neuron_bench *b, hk_dtype dtype, const neuron_rule *r, int64_t steps, size_t k,
                                     hk_shape neurons)
{
    static const int64_t channels[] = {0, 1, 3};
    neuron_problem p = {.attrs = neuron_defaults, .dtype = dtype, .steps = steps, .neurons = neurons};
    p.attrs.steps = steps == 1 && k % 2 ? 0 : steps;
    p.attrs.kind = r->kind;
    p.attrs.reset = r->reset;
    p.attrs.decay_input = r->decay_input;
    p.attrs.detach_reset = r->detach;
    p.attrs.tau = k % 3 == 0 ? 1.25f : k % 3 == 1 ? 2 : 5;
    p.attrs.v_reset = k % 2 ? -.25f : 0;
    p.attrs.v_threshold = k % 4 < 2 ? 1 : .5f;
    p.attrs.surrogate = neuron_surrogates[k % NEURON_SURROGATES].name;
    p.thetas = channels[k % 3];
    double drive = r->decay_input ? 2.5 : 1;
    p.in[X] = neuron_random_input(b, &p, X, -.4 * drive, drive);
    p.in[GS] = neuron_random_input(b, &p, GS, -1, 1);
    if (k % 5 != 0)
        p.in[V0] = neuron_random_input(b, &p, V0, -.5, .9);
    if (k % 5 != 1)
        p.in[GV] = neuron_random_input(b, &p, GV, -1, 1);
    if (k % 5 < 3)
        p.in[GV_SEQ] = neuron_random_input(b, &p, GV_SEQ, -.5, .5);
    if (p.thetas)
        p.in[THETA] = neuron_random_input(b, &p, THETA, .3, 1.2);
    if (!strcmp(r->kind, "ParametricLIF"))
        p.in[W] = neuron_random_input(b, &p, W, -2, 2);
    return p;
}
