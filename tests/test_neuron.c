/*
 * Spiking neurons: hk.Neuron and hk.NeuronGrad against golden vectors, finite differences and an independent
 * differentiation by dual numbers, on the host and, where there is a device, on the device. SpikingJelly's results are
 * in test_neuron_reference.c.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/exec.h"
#include "runtime/objects.h"
#include "tests/support/neuron_problem.h"
#include "train/gradient.h"

/* ---------------------------------------------------------------- golden vectors (snn.md 2.5) */

typedef struct golden {
    const char *kind, *reset;
    int decay_input;
    double v_reset, v0;
    int steps;
    double x[8], s[8], v[8];
} golden;

#define GOLDEN_X                                                                                                       \
    {                                                                                                                  \
        .6, .6, .6, .6, 2.5, 0, 0, -1                                                                                  \
    }
static const golden goldens[] = {
    {"IF", "soft", 0, 0, 0, 8, GOLDEN_X, {0, 1, 0, 1, 1, 1, 0, 0}, {.6, .2, .8, .4, 1.9, .9, .9, -.1}},
    {"IF", "hard", 0, 0, 0, 8, GOLDEN_X, {0, 1, 0, 1, 1, 0, 0, 0}, {.6, 0, .6, 0, 0, 0, 0, -1}},
    {"LIF",
     "soft",
     1,
     0,
     0,
     8,
     GOLDEN_X,
     {0, 0, 0, 0, 1, 0, 0, 0},
     {.3, .45, .525, .5625, .53125, .265625, .1328125, -.43359375}},
    {"LIF", "hard", 1, 0, 0, 8, GOLDEN_X, {0, 0, 0, 0, 1, 0, 0, 0}, {.3, .45, .525, .5625, 0, 0, 0, -.5}},
    {"LIF",
     "soft",
     0,
     0,
     0,
     8,
     GOLDEN_X,
     {0, 0, 1, 0, 1, 0, 0, 0},
     {.6, .9, .05, .625, 1.8125, .90625, .453125, -.7734375}},
    {"LIF", "hard", 0, 0, 0, 8, GOLDEN_X, {0, 0, 1, 0, 1, 0, 0, 0}, {.6, .9, 0, .6, 0, 0, 0, -1}},
    {"LIF", "hard", 0, -.2, -.2, 8, GOLDEN_X, {0, 0, 0, 0, 1, 0, 0, 0}, {.4, .7, .85, .925, -.2, -.2, -.2, -1.2}},
    {"IF", "hard", 0, 0, 0, 3, {.5, .5, 1}, {0, 1, 1}, {.5, 0, 0}}, /* ties fire */
};

static void check_golden(neuron_bench *b, hk_dtype dtype, bool device)
{
    for (size_t i = 0; i < HK_COUNT(goldens); i++) {
        const golden *g = &goldens[i];
        double x[8], v0 = g->v0;
        memcpy(x, g->x, sizeof x);
        neuron_problem p = {
            .attrs = neuron_defaults, .dtype = dtype, .steps = g->steps, .neurons = {.rank = 1, .dim = {1}}, .in = {x}};
        p.attrs.kind = g->kind;
        p.attrs.reset = g->reset;
        p.attrs.decay_input = g->decay_input;
        p.attrs.v_reset = (float)g->v_reset;
        p.attrs.steps = g->steps;
        if (g->v0 != 0)
            p.in[V0] = &v0;
        neuron_solve(b, &p, device);
        for (int t = 0; t < g->steps; t++) {
            neuron_near(&p, "S", hk_get_double(p.out[S], t), g->s[t], 0);
            neuron_near(&p, "V", hk_get_double(p.out[V_SEQ], t), g->v[t], 1e-6);
        }
        neuron_near(&p, "V_T", hk_get_double(p.out[V], 0), g->v[g->steps - 1], 1e-6);
    }
}

/* ATan(2), tau 2, X = 1.2 .4 .9, V0 = 0, L = S1 + S2 + S3 + V3 / 2: dL/dX and dL/dr. tau = 2 is w = 0. */
static const struct golden_gradient {
    int decay_input;
    const char *reset;
    int detach;
    double gx[3], gr;
} golden_gradients[] = {
    {1, "soft", 0, {.279660, .280257, .382397}, .864999},  {1, "soft", 1, {.394662, .401597, .514793}, 1.198384},
    {1, "hard", 0, {.318492, .324823, .422116}, .972145},  {1, "hard", 1, {.394662, .401597, .514793}, 1.198384},
    {0, "soft", 0, {.803550, .611873, .909143}, -.576946}, {0, "soft", 1, {1.190729, .947544, 1.318286}, -.848652},
    {0, "hard", 0, {.542121, .406430, .409576}, -.163831}, {0, "hard", 1, {.716957, .674718, .910170}, -.364068},
};

static void check_golden_gradients(neuron_bench *b, hk_dtype dtype, bool device)
{
    double x[] = {(double)1.2f, (double).4f, (double).9f}, w = 0, gs[] = {1, 1, 1}, gv = .5;
    for (size_t i = 0; i < HK_COUNT(golden_gradients); i++)
        for (int parametric = 0; parametric < 2; parametric++) {
            const struct golden_gradient *g = &golden_gradients[i];
            neuron_problem p = {
                .attrs = neuron_defaults, .dtype = dtype, .steps = 3, .neurons = {.rank = 1, .dim = {1}}};
            p.attrs.steps = 3;
            p.attrs.kind = parametric ? "ParametricLIF" : "LIF";
            p.attrs.decay_input = g->decay_input;
            p.attrs.reset = g->reset;
            p.attrs.detach_reset = g->detach;
            p.in[X] = x;
            p.in[GS] = gs;
            p.in[GV] = &gv;
            p.in[W] = parametric ? &w : NULL;
            neuron_solve(b, &p, device);
            for (int t = 0; t < 3; t++)
                neuron_near(&p, "gX", hk_get_double(p.out[GX], t), g->gx[t], 1e-6);
            if (parametric)
                neuron_near(&p, "gr", hk_get_double(p.out[GW], 0) / .25, g->gr, 1e-6);
        }
}

static void test_golden_vectors_on_the_host(void **state)
{
    check_golden(*state, HK_FLOAT64, false);
    check_golden(*state, HK_FLOAT32, false);
}

static void test_golden_gradients_on_the_host(void **state)
{
    check_golden_gradients(*state, HK_FLOAT64, false);
    check_golden_gradients(*state, HK_FLOAT32, false);
}

static void test_golden_vectors_on_the_device(void **state)
{
    neuron_bench *b = *state;
    if (!b->dev)
        skip();
    check_golden(b, HK_FLOAT32, true);
    check_golden_gradients(b, HK_FLOAT32, true);
}

/* ---------------------------------------------------------------- neuron_surrogates */

/* The function whose derivative the surrogate is. */
static double primitive(const char *name, double a, double x)
{
    double away = fabs(x), sign = x < 0 ? -1 : 1;
    if (!strcmp(name, "ATan"))
        return atan(acos(-1.0) / 2 * a * x) / acos(-1.0);
    if (!strcmp(name, "Sigmoid"))
        return 1 / (1 + exp(-a * x));
    if (!strcmp(name, "FastSigmoid"))
        return x / (1 + a * away);
    if (!strcmp(name, "SoftSign"))
        return a * x / (1 + a * away) / 2;
    if (!strcmp(name, "SuperSpike"))
        return a * x / (1 + away);
    if (!strcmp(name, "PiecewiseQuadratic") || !strcmp(name, "Triangle"))
        return away < 1 / a ? a * x - a * a * x * away / 2 : sign / 2;
    if (!strcmp(name, "PiecewiseExp"))
        return sign * (1 - exp(-a * away)) / 2;
    if (!strcmp(name, "Erf"))
        return erf(a * x) / 2;
    assert_string_equal(name, "Rect");
    return fmin(fmax(a * x, -.5), .5);
}

static double slope_of(const char *name, double a, double x)
{
    double h = 1e-6;
    return (primitive(name, a, x + h) - primitive(name, a, x - h)) / (2 * h);
}

/* One IF step from V = 0 has H = X: gX is the surrogate at X - theta. */
static void check_surrogates(neuron_bench *b, hk_dtype dtype, bool device)
{
    static const double at[] = {-.75, -.25, .25, .75};
    double x[] = {.25, .75, 1.25, 1.75}, gs[] = {1, 1, 1, 1};
    for (size_t i = 0; i < NEURON_SURROGATES; i++)
        for (int given = 0; given < 2; given++) {
            neuron_problem p = {
                .attrs = neuron_defaults, .dtype = dtype, .steps = 1, .neurons = {.rank = 1, .dim = {4}}};
            p.attrs.kind = "IF";
            p.attrs.surrogate = neuron_surrogates[i].name;
            p.attrs.alpha = given ? 1.5f : 0;
            p.in[X] = x;
            p.in[GS] = gs;
            neuron_solve(b, &p, device);
            for (int k = 0; k < 4; k++) {
                neuron_near(&p, "S", hk_get_double(p.out[S], k), x[k] >= 1, 0);
                neuron_near(&p, "g'", hk_get_double(p.out[GX], k),
                            slope_of(neuron_surrogates[i].name, given ? 1.5 : neuron_surrogates[i].alpha, at[k]),
                            dtype == HK_FLOAT64 ? 1e-8 : 1e-6);
            }
        }
}

static void test_surrogates_are_derivatives(void **state)
{
    neuron_bench *b = *state;
    check_surrogates(b, HK_FLOAT64, false);
    if (b->dev)
        check_surrogates(b, HK_FLOAT32, true);
}

/* ---------------------------------------------------------------- dual numbers: an independent differentiation */

typedef struct dual {
    double x, d;
} dual;

static dual plus(dual a, dual b)
{
    return (dual){a.x + b.x, a.d + b.d};
}

static dual minus(dual a, dual b)
{
    return (dual){a.x - b.x, a.d - b.d};
}

static dual times(dual a, dual b)
{
    return (dual){a.x * b.x, a.x * b.d + a.d * b.x};
}

static dual constant(double x)
{
    return (dual){x, 0};
}

/* What of neuron i is differentiated: X at a step (>= 0), or one of these. */
enum { WRT_V0 = -1, WRT_W = -2, WRT_THETA = -3 };

static double alpha_of(const neuron_problem *p)
{
    for (size_t i = 0; i < NEURON_SURROGATES; i++)
        if (!strcmp(neuron_surrogates[i].name, p->attrs.surrogate))
            return p->attrs.alpha != 0 ? (double)p->attrs.alpha : neuron_surrogates[i].alpha;
    fail();
    return 0;
}

static int64_t channel_of(const neuron_problem *p, int64_t i)
{
    int64_t inner = 1;
    for (int32_t d = 2; d < p->neurons.rank; d++)
        inner *= p->neurons.dim[d];
    return p->thetas > 1 ? i / inner % p->thetas : 0;
}

/* d/dwrt of L = sum gS S + gV V_T + sum gV_seq V, for neuron i. s and v (of all steps) receive its trace. */
static double differentiate(const neuron_problem *p, int64_t i, int64_t wrt, double *s_seq, double *v_seq)
{
    const hk_neuron_attrs *a = &p->attrs;
    bool soft = !strcmp(a->reset, "soft"), leaks = strcmp(a->kind, "IF") != 0;
    int64_t n = neuron_count(p);
    dual rest = constant(soft ? 0 : (double)a->v_reset), r = constant(1 / (double)a->tau);
    dual theta = constant(p->in[THETA] ? p->in[THETA][channel_of(p, i)] : (double)a->v_threshold);
    dual v = p->in[V0] ? constant(p->in[V0][i]) : rest, loss = {0};
    theta.d = wrt == WRT_THETA;
    v.d = wrt == WRT_V0;
    if (p->in[W]) {
        r.x = 1 / (1 + exp(-p->in[W][0]));
        r.d = wrt == WRT_W ? r.x * (1 - r.x) : 0;
    }
    for (int64_t t = 0; t < p->steps; t++) {
        dual x = {p->in[X][t * n + i], t == wrt};
        dual h = plus(v, x);
        if (leaks && a->decay_input)
            h = plus(v, times(minus(x, minus(v, rest)), r));
        else if (leaks)
            h = plus(minus(v, times(minus(v, rest), r)), x);
        dual over = minus(h, theta);
        dual s = {h.x >= theta.x, slope_of(a->surrogate, alpha_of(p), over.x) * over.d};
        dual resetting = a->detach_reset ? constant(s.x) : s;
        v = soft ? minus(h, times(theta, resetting))
                 : plus(times(resetting, rest), times(minus(constant(1), resetting), h));
        s_seq[t] = s.x;
        v_seq[t] = v.x;
        loss = plus(loss, times(constant(p->in[GS] ? p->in[GS][t * n + i] : 0), s));
        loss = plus(loss, times(constant(p->in[GV_SEQ] ? p->in[GV_SEQ][t * n + i] : 0), v));
    }
    return loss.d + (p->in[GV] ? p->in[GV][i] * v.d : 0);
}

static void check_duals(neuron_bench *b, neuron_problem *p)
{
    enum { MOST = 100 };
    double s[MOST], v[MOST], gw = 0, gtheta[8] = {0};
    int64_t n = neuron_count(p);
    neuron_solve(b, p, false);
    for (int64_t i = 0; i < n; i++) {
        for (int64_t t = 0; t < p->steps; t++)
            neuron_near(p, "gX", hk_get_double(p->out[GX], t * n + i), differentiate(p, i, t, s, v), 1e-6);
        neuron_near(p, "gV0", hk_get_double(p->out[GV0], i), differentiate(p, i, WRT_V0, s, v), 1e-6);
        for (int64_t t = 0; t < p->steps; t++) {
            neuron_near(p, "S", hk_get_double(p->out[S], t * n + i), s[t], 0);
            neuron_near(p, "V", hk_get_double(p->out[V_SEQ], t * n + i), v[t], 1e-12);
        }
        neuron_near(p, "V_T", hk_get_double(p->out[V], i), v[p->steps - 1], 1e-12);
        gw += differentiate(p, i, WRT_W, s, v);
        gtheta[channel_of(p, i)] += differentiate(p, i, WRT_THETA, s, v);
    }
    if (p->in[W])
        neuron_near(p, "gw", hk_get_double(p->out[GW], 0), gw, 1e-6);
    for (int64_t c = 0; c < p->thetas; c++)
        neuron_near(p, "gtheta", hk_get_double(p->out[GTHETA], c), gtheta[c], 1e-6);
}

static void test_gradients_equal_dual_numbers(void **state)
{
    static const int64_t steps[] = {1, 4, 32, 100};
    const hk_shape neurons = {.rank = 3, .dim = {2, 3, 1}};
    size_t k = 0;
    for (size_t r = 0; r < NEURON_RULES; r++)
        for (size_t t = 0; t < HK_COUNT(steps); t++)
            for (size_t s = 0; s < NEURON_SURROGATES; s++, k++) {
                neuron_problem p = neuron_random_problem(*state, HK_FLOAT64, &neuron_rules[r], steps[t], k, neurons);
                p.attrs.surrogate = neuron_surrogates[s].name;
                check_duals(*state, &p);
            }
}

/* ---------------------------------------------------------------- host and device */

/* Spikes and potentials bit for bit, gradients within rounding. The graph holds the problems. */
static void compare(neuron_bench *b, neuron_problem *problems, size_t count)
{
    hk_tensor **on_host = neuron_run(b, false), **on_device = neuron_run(b, true);
    for (size_t i = 0; i < count; i++) {
        neuron_problem *host = &problems[i], device = *host;
        neuron_take(host, on_host);
        neuron_take(&device, on_device);
        for (int k = 0; k < OUTPUTS; k++) {
            if (!host->out[k])
                continue;
            bool same = neuron_same_bits(host->out[k], device.out[k]);
            if (k < GX && !same)
                print_error("%s: output %d differs\n", neuron_describe(host), k);
            assert_true(k >= GX || same);
            for (int64_t e = 0; !same && e < hk_tensor_count(host->out[k]); e++)
                neuron_near(host, "a gradient", hk_get_double(device.out[k], e), hk_get_double(host->out[k], e), 2e-5);
        }
    }
}

/* Every rule at several lengths and sizes. */
static void test_device_equals_host_bit_for_bit(void **state)
{
    static const int64_t steps[] = {1, 4, 33, 100};
    static const hk_shape neurons[] = {
        {.rank = 2, .dim = {5, 3}}, {.rank = 3, .dim = {2, 3, 4}}, {.rank = 4, .dim = {4, 3, 2, 3}}};
    neuron_bench *b = *state;
    if (!b->dev)
        skip();
    enum { COUNT = NEURON_RULES * 4 };
    neuron_problem *problems = hk_arena_array(b->arena, COUNT, sizeof *problems);
    assert_non_null(problems);
    for (size_t i = 0; i < COUNT; i++) {
        size_t r = i / 4, t = i % 4;
        problems[i] = neuron_random_problem(b, HK_FLOAT32, &neuron_rules[r], steps[t], r + t, neurons[(r + t) % 3]);
        neuron_add(b, &problems[i]);
    }
    compare(b, problems, COUNT);
}

/* A software device gets kernels of its own. Called something else, it runs the GPUs': one and four neurons a lane, one
 * segment, several, and several with a short one, with and without X kept. */
static void test_kernels_of_gpus_on_any_device(void **state)
{
    static const struct {
        size_t rule;
        int64_t steps, channels, inner;
    } sizes[] = {{0, 4, 3, 5},   {6, 32, 3, 5},  {10, 37, 3, 5},   {4, 100, 3, 5},    {18, 12, 3, 5},
                 {14, 20, 3, 5}, {18, 37, 3, 5}, {5, 4, 3, 24000}, {2, 37, 3, 24000}, {19, 18, 3, 24000}};
    neuron_bench *b = *state;
    neuron_problem problems[HK_COUNT(sizes)];
    if (!b->dev)
        skip();
    for (size_t i = 0; i < HK_COUNT(sizes); i++) {
        const hk_shape neurons = {.rank = 3, .dim = {1, sizes[i].channels, sizes[i].inner}};
        problems[i] = neuron_random_problem(b, HK_FLOAT32, &neuron_rules[sizes[i].rule], sizes[i].steps, i, neurons);
        neuron_add(b, &problems[i]);
    }
    hk_device_info *info = (hk_device_info *)(uintptr_t)hk_gpu_info(b->dev->gpu);
    hk_device_type type = info->type;
    info->type = HK_DEVICE_OTHER;
    compare(b, problems, HK_COUNT(sizes));
    info->type = type;
}

/* ---------------------------------------------------------------- step modes and state */

enum { LOOP_STEPS = 4, LOOP_NEURONS = 30 };

static neuron_problem loop_problem(neuron_bench *b, const neuron_rule *r)
{
    neuron_problem p = {
        .attrs = neuron_defaults, .dtype = HK_FLOAT32, .steps = LOOP_STEPS, .neurons = {.rank = 2, .dim = {10, 3}}};
    p.attrs.steps = LOOP_STEPS;
    p.attrs.kind = r->kind;
    p.attrs.reset = r->reset;
    p.attrs.decay_input = r->decay_input;
    p.attrs.tau = 3;
    p.attrs.v_reset = -.25f;
    p.in[X] = neuron_random_input(b, &p, X, -.5, 2);
    if (!strcmp(r->kind, "ParametricLIF"))
        p.in[W] = neuron_random_input(b, &p, W, -2, 2);
    return p;
}

/* One node of T steps and T nodes of one step, the potential handed on, in one graph: outputs S, V, then S, V of each.
 */
static void check_step_loop(neuron_bench *b, bool device)
{
    for (size_t r = 0; r < NEURON_RULES; r++) {
        if (neuron_rules[r].detach)
            continue;
        hk_graph_destroy(&b->graph);
        neuron_need(b, hk_graph_create(b->ctx, "neurons", &b->graph));
        neuron_problem p = loop_problem(b, &neuron_rules[r]), one = p;
        hk_shape all = neuron_input_shape(&p, X), w = HK_SCALAR;
        one.attrs.steps = 0;
        hk_value *in[] = {neuron_feed(b, neuron_tensor(b, HK_FLOAT32, &all, p.in[X])), NULL,
                          p.in[W] ? neuron_feed(b, neuron_tensor(b, HK_FLOAT32, &w, p.in[W])) : NULL};
        hk_node *n = neuron_node(b, "hk.Neuron", &p, in, 3, 2);
        for (int t = 0; t <= LOOP_STEPS; t++) {
            neuron_need(b, hk_node_infer(b->graph, n));
            assert_true(hk_graph_add_output(b->graph, n->out[0]) && hk_graph_add_output(b->graph, n->out[1]));
            if (t == LOOP_STEPS)
                break;
            in[0] = neuron_feed(b, neuron_tensor(b, HK_FLOAT32, &p.neurons, p.in[X] + t * LOOP_NEURONS));
            in[1] = t ? n->out[1] : NULL;
            n = neuron_node(b, "hk.Neuron", &one, in, 3, 2);
        }
        hk_tensor **out = neuron_run(b, device);
        assert_true(neuron_same_bits(out[1], out[2 * LOOP_STEPS + 1]));
        for (size_t t = 0; t < LOOP_STEPS; t++)
            assert_memory_equal((const float *)out[0]->data + t * LOOP_NEURONS, out[2 + 2 * t]->data,
                                LOOP_NEURONS * sizeof(float));
    }
}

static void test_steps_in_one_call_equal_a_loop(void **state)
{
    neuron_bench *b = *state;
    check_step_loop(b, false);
    if (b->dev)
        check_step_loop(b, true);
}

/* Plans the graph and runs it once per step: spikes and the state after the last are those of p, solved before. */
static void run_steps(neuron_bench *b, hk_env *env, const neuron_problem *p)
{
    hk_exec *e = NULL;
    hk_graph *clone = NULL;
    hk_step step = {.step = 1};
    float s[LOOP_NEURONS], last[LOOP_NEURONS];
    neuron_need(b, hk_graph_clone(b->graph, &clone));
    neuron_need(b, hk_exec_create(env, clone, &e));
    for (size_t t = 0; t < LOOP_STEPS; t++) {
        uint64_t ticket = 0;
        hk_feed feeds = {.host = neuron_tensor(b, HK_FLOAT32, &p->neurons, p->in[X] + t * LOOP_NEURONS)};
        neuron_need(b, hk_exec_submit(e, &feeds, &step, &ticket));
        neuron_need(b, hk_exec_wait(e, ticket));
        neuron_need(b, hk_exec_read(e, ticket, 0, s));
        assert_memory_equal(s, (const float *)p->out[S]->data + t * LOOP_NEURONS, sizeof s);
    }
    neuron_need(b, hk_env_read_state(env, "v", 0, last, sizeof last));
    assert_memory_equal(last, p->out[V]->data, sizeof last);
    hk_exec_destroy(&e);
}

/* Step mode 's': the potential is a state of the graph, kept between runs. */
static void check_kept_state(neuron_bench *b, const neuron_rule *r)
{
    neuron_problem p = loop_problem(b, r);
    neuron_solve(b, &p, false);
    hk_graph_destroy(&b->graph);
    neuron_need(b, hk_graph_create(b->ctx, "neurons", &b->graph));
    neuron_problem one = p;
    one.attrs.steps = 0;
    double start[LOOP_NEURONS];
    for (int i = 0; i < LOOP_NEURONS; i++)
        start[i] = !strcmp(r->reset, "hard") ? (double)p.attrs.v_reset : 0;
    hk_state *v = hk_graph_state(b->graph, "v", HK_FLOAT32, &p.neurons,
                                 neuron_tensor(b, HK_FLOAT32, &p.neurons, start));
    assert_non_null(v);
    hk_value *in[] = {neuron_feed(b, neuron_tensor(b, HK_FLOAT32, &p.neurons, p.in[X])), v->first};
    hk_node *n = neuron_node(b, "hk.Neuron", &one, in, 2, 2);
    neuron_need(b, hk_node_infer(b->graph, n));
    n->out[1]->state = v;
    v->last = n->out[1];
    assert_true(hk_graph_add_output(b->graph, n->out[0]));
    hk_env *env = NULL;
    neuron_need(b, hk_env_create(b->dev->gpu, b->graph, &env));
    run_steps(b, env, &p);
    neuron_need(b, hk_env_reset_states(env));
    run_steps(b, env, &p);
    hk_env_destroy(&env);
}

static void test_kept_state_equals_one_call(void **state)
{
    neuron_bench *b = *state;
    if (!b->dev)
        skip();
    check_kept_state(b, &(neuron_rule){"LIF", "hard", 0, 0});
    check_kept_state(b, &(neuron_rule){"IF", "soft", 0, 0});
}

/* ---------------------------------------------------------------- the backward rule */

/* L = sum(S) reaches X and theta through hk_differentiate; w, V0 and what nobody wants get no gradient. */
static void test_backward_rule_wires_the_gradient(void **state)
{
    neuron_bench *b = *state;
    const neuron_rule r = {"ParametricLIF", "soft", 1, 0};
    neuron_problem p = neuron_random_problem(b, HK_FLOAT64, &r, 5, 2, (hk_shape){.rank = 2, .dim = {2, 3}});
    hk_value *in[THETA + 1], *grads[2] = {0}, *loss = NULL;
    assert_int_equal(p.thetas, 3);
    p.in[GV] = p.in[GV_SEQ] = NULL;
    for (int64_t k = 0; k < neuron_count(&p) * p.steps; k++)
        p.in[GS][k] = 1;
    for (int i = 0; i <= THETA; i++) {
        hk_shape shape = neuron_input_shape(&p, i);
        in[i] = neuron_feed(b, neuron_tensor(b, p.dtype, &shape, p.in[i]));
    }
    hk_node *n = neuron_node(b, "hk.Neuron", &p, in, THETA + 1, 1);
    neuron_need(b, hk_node_infer(b->graph, n));
    const hk_attr_value all[] = {HK_SET_INT("keepdims", 0), {0}};
    neuron_need(b, hk_build(b->graph, "ReduceSum", all, n->out, 1, &loss, 1));
    neuron_need(b, hk_differentiate(b->graph, loss, (hk_value *[]){in[X], in[THETA]}, 2, grads));
    assert_true(grads[0] && grads[1]);
    const hk_node *d = grads[0]->producer;
    assert_string_equal(d->type, "hk.NeuronGrad");
    assert_null(d->out[1]);
    assert_null(d->out[2]);
    assert_true(hk_graph_add_output(b->graph, grads[0]) && hk_graph_add_output(b->graph, grads[1]));
    neuron_need(b, hk_graph_sort(b->graph));
    hk_tensor **out = neuron_run(b, false);
    neuron_solve(b, &p, false);
    assert_true(neuron_same_bits(out[0], p.out[GX]));
    assert_true(neuron_same_bits(out[1], p.out[GTHETA]));
}

/* ---------------------------------------------------------------- NaN, empty, and refusals */

static void check_nan(neuron_bench *b, bool device)
{
    for (size_t r = 0; r < NEURON_RULES; r++) {
        double x[] = {.4, NAN, .4, .4, .9, .9}, gs[] = {1, 1, 1, 1, 1, 1};
        double w = .5;
        neuron_problem p = {
            .attrs = neuron_defaults, .dtype = HK_FLOAT32, .steps = 3, .neurons = {.rank = 1, .dim = {2}}};
        p.attrs.steps = 3;
        p.attrs.kind = neuron_rules[r].kind;
        p.attrs.reset = neuron_rules[r].reset;
        p.attrs.decay_input = neuron_rules[r].decay_input;
        p.attrs.detach_reset = neuron_rules[r].detach;
        p.in[X] = x;
        p.in[GS] = gs;
        p.in[W] = !strcmp(neuron_rules[r].kind, "ParametricLIF") ? &w : NULL;
        neuron_solve(b, &p, device);
        for (int t = 0; t < 3; t++) {
            neuron_near(&p, "S of a NaN potential", hk_get_double(p.out[S], 2 * t + 1), 0, 0);
            assert_true(isnan(hk_get_double(p.out[V_SEQ], 2 * t + 1)));
            assert_true(isfinite(hk_get_double(p.out[V_SEQ], 2 * t)));
            assert_true(isfinite(hk_get_double(p.out[GX], 2 * t)));
        }
    }
}

static void test_nan_stays_in_its_neuron(void **state)
{
    neuron_bench *b = *state;
    check_nan(b, false);
    if (b->dev)
        check_nan(b, true);
}

static void test_rate_is_the_sigmoid(void **state)
{
    (void)state;
    for (double w = -80; w <= 80; w += .0625) {
        double expected = 1 / (1 + exp(-w));
        assert_true(fabs(hk_neuron_rate(w, true) - expected) <= 4e-7 * expected);
        assert_true(fabs(hk_neuron_rate(w, false) - expected) <= 1e-15);
    }
    assert_true(hk_neuron_rate(0, true) == .5);
    assert_true(hk_neuron_rate(INFINITY, true) == 1);
    assert_true(isnan(hk_neuron_rate(NAN, true)));
}

static void refuse(neuron_bench *b, const neuron_problem *p, hk_value *const *in, int32_t count, const char *sentence)
{
    hk_node *n = neuron_node(b, "hk.Neuron", p, in, count, 1);
    assert_int_equal(hk_node_infer(b->graph, n), HK_STATUS_INVALID);
    if (!strstr(hk_context_error(b->ctx), sentence))
        print_error("\"%s\" lacks \"%s\"\n", hk_context_error(b->ctx), sentence);
    assert_non_null(strstr(hk_context_error(b->ctx), sentence));
    assert_non_null(strstr(hk_context_error(b->ctx), n->name));
}

#define REFUSE_ATTR(member, value, sentence)                                                                           \
    do {                                                                                                               \
        neuron_problem q = p;                                                                                          \
        q.attrs.member = (value);                                                                                      \
        refuse(b, &q, (hk_value *[]){x}, 1, sentence);                                                                 \
    } while (0)

static void test_bad_attributes_are_refused(void **state)
{
    neuron_bench *b = *state;
    neuron_problem p = {.attrs = neuron_defaults};
    p.attrs.steps = 4;
    hk_value *x = hk_graph_value(b->graph, "x", HK_VALUE_INPUT, HK_FLOAT32, &(hk_shape){.rank = 3, .dim = {4, 2, 3}});
    assert_non_null(x);
    REFUSE_ATTR(kind, "QIF", "attribute 'kind' is \"QIF\", expected \"IF\", \"LIF\" or \"ParametricLIF\"");
    REFUSE_ATTR(reset, "none", "attribute 'reset' is \"none\", expected \"hard\" or \"soft\"");
    REFUSE_ATTR(surrogate, "Atan", "attribute 'surrogate' is \"Atan\", expected ATan, Sigmoid, FastSigmoid");
    REFUSE_ATTR(tau, 1, "attribute 'tau' is 1, expected a finite number above 1");
    REFUSE_ATTR(tau, NAN, "attribute 'tau' is nan");
    REFUSE_ATTR(tau, INFINITY, "attribute 'tau' is inf");
    REFUSE_ATTR(decay_input, 2, "attribute 'decay_input' is 2, expected 0 or 1");
    REFUSE_ATTR(detach_reset, -1, "attribute 'detach_reset' is -1, expected 0 or 1");
    REFUSE_ATTR(v_threshold, NAN, "attribute 'v_threshold' is nan, expected a finite number");
    REFUSE_ATTR(v_reset, INFINITY, "attribute 'v_reset' is inf, expected a finite number");
    REFUSE_ATTR(alpha, -2, "attribute 'alpha' is -2, expected a finite number above 0");
    REFUSE_ATTR(steps, -1, "attribute 'steps' is -1");
    REFUSE_ATTR(steps, 5, "input 'x' has shape [4,2,3], expected a leading time axis of 5");
    REFUSE_ATTR(kind, "ParametricLIF", "needs its parameter w (input 2)");
}

static void test_bad_operands_are_refused(void **state)
{
    neuron_bench *b = *state;
    neuron_problem p = {.attrs = neuron_defaults}, parametric = p;
    p.attrs.steps = parametric.attrs.steps = 4;
    parametric.attrs.kind = "ParametricLIF";
    hk_graph *g = b->graph;
    hk_value *x = hk_graph_value(g, "x", HK_VALUE_INPUT, HK_FLOAT32, &(hk_shape){.rank = 3, .dim = {4, 2, 3}});
    hk_value *ints = hk_graph_value(g, "ints", HK_VALUE_INPUT, HK_INT32, &(hk_shape){.rank = 3, .dim = {4, 2, 3}});
    hk_value *v0 = hk_graph_value(g, "v0", HK_VALUE_INPUT, HK_FLOAT32, &(hk_shape){.rank = 2, .dim = {5, 3}});
    hk_value *wide = hk_graph_value(g, "wide", HK_VALUE_INPUT, HK_FLOAT64, &(hk_shape){.rank = 2, .dim = {2, 3}});
    hk_value *two = hk_graph_value(g, "two", HK_VALUE_INPUT, HK_FLOAT32, &(hk_shape){.rank = 1, .dim = {2}});
    assert_true(x && ints && v0 && wide && two);
    refuse(b, &p, (hk_value *[]){ints}, 1, "input 'ints' is int32, expected float32 or float64");
    refuse(b, &p, (hk_value *[]){x, v0}, 2, "input 'v0' has shape [5,3], expected [2,3]");
    refuse(b, &p, (hk_value *[]){x, wide}, 2, "input 'wide' is float64, expected float32 like 'x'");
    refuse(b, &p, (hk_value *[]){x, NULL, two}, 3, "takes no parameter w");
    refuse(b, &parametric, (hk_value *[]){x, NULL, two}, 3, "parameter 'two' has shape [2], expected one element");
    refuse(b, &p, (hk_value *[]){x, NULL, NULL, two}, 4,
           "threshold 'two' has shape [2], expected one element or one for each of 3 channels");
}

int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
#define TEST(name) cmocka_unit_test_setup_teardown(name, neuron_bench_begin, neuron_bench_end)
    const struct CMUnitTest tests[] = {
        TEST(test_golden_vectors_on_the_host),    TEST(test_golden_gradients_on_the_host),
        TEST(test_golden_vectors_on_the_device),  TEST(test_surrogates_are_derivatives),
        TEST(test_gradients_equal_dual_numbers),  TEST(test_device_equals_host_bit_for_bit),
        TEST(test_kernels_of_gpus_on_any_device), TEST(test_steps_in_one_call_equal_a_loop),
        TEST(test_kept_state_equals_one_call),    TEST(test_backward_rule_wires_the_gradient),
        TEST(test_nan_stays_in_its_neuron),       TEST(test_rate_is_the_sigmoid),
        TEST(test_bad_attributes_are_refused),    TEST(test_bad_operands_are_refused),
    };
    return cmocka_run_group_tests(tests, neuron_bench_open, neuron_bench_close);
}
