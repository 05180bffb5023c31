/*
 * Spiking neurons, encoders, readouts, and the containers of time. Values with time are (T,N,...); a container shows a
 * layer that knows no time either all steps as one batch, (T N,...), or one after the other.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "ops/support/neuron.h"
#include "train/layers.h"

static hk_value *integers(hk_layering *b, const char *name, const int64_t *x, int64_t count)
{
    hk_graph *g = b->builder->graph;
    hk_tensor *t = hk_tensor_new(g->arena, HK_INT64, &(hk_shape){.rank = 1, .dim = {count}});
    hk_value *v = NULL;
    if (t) {
        memcpy(t->data, x, (size_t)count * sizeof *x);
        v = hk_graph_constant(g, name, t);
    }
    return v ? v : hk_layer_no_memory(b);
}

static hk_value *scalar(hk_layering *b, hk_dtype dtype, double x)
{
    hk_value *v = b->st == HK_OK ? hk_graph_scalar(b->builder->graph, dtype, x) : NULL;
    return v ? v : hk_layer_no_memory(b);
}

static hk_value *cast(hk_layering *b, hk_value *x, hk_dtype to)
{
    const hk_attr_value attrs[] = {HK_SET_INT("to", to), {0}};
    return hk_layer_node(b, "Cast", attrs, &x, 1);
}

/* ---- time */

/* x is (T,N,...) with known T and, where a container wants it, known extents behind N. */
static bool has_time(hk_layering *b, const hk_value *x, bool whole)
{
    if (!hk_layer_rank(b, x, 2, HK_MAX_RANK) || !hk_layer_extent(b, x, 0, 0))
        return false;
    for (int32_t d = 2; whole && d < x->shape.rank; d++)
        if (!hk_layer_extent(b, x, d, 0))
            return false;
    return true;
}

/* (T N,...). What a container before has just made of such a value is taken as it was. */
static hk_value *fold(hk_layering *b, hk_value *x)
{
    const hk_node *n = x->producer;
    int64_t dims[HK_MAX_RANK] = {-1};
    if (n && !strcmp(n->type, "Reshape") && !strncmp(n->in[1]->name, HK_SNN_STEPS_NAME, strlen(HK_SNN_STEPS_NAME)) &&
        n->in[0]->shape.rank == x->shape.rank - 1)
        return n->in[0];
    memcpy(dims + 1, x->shape.dim + 2, (size_t)(x->shape.rank - 2) * sizeof *dims);
    return hk_layer_reshape(b, x, x->shape.rank - 1, dims);
}

static hk_value *unfold(hk_layering *b, hk_value *y, int64_t steps)
{
    int64_t dims[HK_MAX_RANK] = {steps, -1};
    if (!hk_layer_rank(b, y, 1, HK_MAX_RANK - 1))
        return NULL;
    for (int32_t d = 1; d < y->shape.rank; d++)
        dims[d + 1] = hk_layer_extent(b, y, d, 0);
    return hk_layer_binary(b, "Reshape", y, integers(b, HK_SNN_STEPS_NAME, dims, y->shape.rank + 1));
}

hk_value *hk_layer_folded(hk_layering *b, hk_value *x, hk_layer_maker *make)
{
    hk_layer inside = *b->l;
    if (!has_time(b, x, true) || (inside.with && !has_time(b, inside.with, true)))
        return NULL;
    int64_t steps = x->shape.dim[0];
    if (inside.with)
        inside.with = fold(b, inside.with);
    const hk_layer *outside = b->l;
    hk_value *flat = fold(b, x);
    b->l = &inside;
    hk_value *y = b->st == HK_OK ? make(b, flat) : NULL;
    b->l = outside;
    return y ? unfold(b, y, steps) : NULL;
}

/* Scan, whose body is the layer on one step. */
hk_value *hk_layer_looped(hk_layering *b, hk_value *x, hk_layer_maker *make)
{
    hk_graph *g = b->g, *body = NULL;
    if (b->l->with)
        return hk_layer_fail(b, "a layer with a second operand cannot be looped: fold time instead");
    if (!has_time(b, x, false))
        return NULL;
    hk_shape one = {.rank = x->shape.rank - 1};
    memcpy(one.dim, x->shape.dim + 1, (size_t)one.rank * sizeof *one.dim);
    const char *name = hk_arena_format(g->arena, "%s/step", b->name);
    body = name ? hk_graph_body(g, name) : NULL;
    hk_value *element = body ? hk_graph_value(body, name, HK_VALUE_INPUT, x->dtype, &one) : NULL;
    if (!element || !hk_graph_add_input(body, element))
        return hk_layer_no_memory(b);
    b->g = body;
    hk_value *made[2] = {make(b, element), NULL}, *out[2] = {NULL};
    b->g = g;
    if (b->st != HK_OK)
        return NULL;
    made[1] = b->l->membrane ? *b->l->membrane : NULL;
    int32_t count = made[1] ? 2 : 1;
    for (int32_t i = 0; i < count; i++)
        if (!hk_graph_add_output(body, made[i]))
            return hk_layer_no_memory(b);
    if (!hk_layer_body_node(b, "Scan", body, &x, 1, out, count))
        return NULL;
    if (made[1])
        *b->l->membrane = out[1];
    return out[0];
}

/* ---- neurons */

/* w of which 1/tau is the sigmoid. */
static hk_value *learned_tau(hk_layering *b, double tau)
{
    return hk_layer_parameter(b, "w", &HK_SCALAR, HK_INITIAL_FILL, -log(tau - 1));
}

static hk_value *neurons(hk_layering *b, hk_value *x)
{
    static const char *const kinds[] = {"IF", "LIF", "ParametricLIF"};
    const hk_layer *l = b->l;
    bool multi = l->step_mode != HK_STEP_SINGLE && b->g == b->builder->graph;
    double tau = l->tau != 0 ? (double)l->tau : 2;
    hk_neuron_attrs check = {.kind = kinds[l->kind - HK_LAYER_IF],
                             .tau = (float)tau,
                             .decay_input = l->decay_input,
                             .reset = l->soft_reset ? "soft" : "hard",
                             .v_reset = l->v_reset,
                             .v_threshold = l->v_threshold != 0 ? l->v_threshold : 1,
                             .detach_reset = l->detach_reset,
                             .surrogate = l->surrogate ? l->surrogate : "ATan",
                             .alpha = l->alpha,
                             .state = hk_arena_format(b->g->arena, "%s.v", b->name)};
    if (!(multi ? has_time(b, x, false) : hk_layer_rank(b, x, 1, HK_MAX_RANK)))
        return NULL;
    if (!check.state)
        return hk_layer_no_memory(b);
    const char *wrong = hk_neuron_check(b->g->arena, &check);
    if (wrong || (l->kind != HK_LAYER_IF && !(tau > 1 && isfinite(tau))))
        return hk_layer_fail(b, "%s", wrong ? wrong : "tau must be a finite number of steps above 1");
    const hk_attr_value attrs[] = {HK_SET_INT("steps", multi ? x->shape.dim[0] : 0),
                                   HK_SET_STRING("kind", check.kind),
                                   HK_SET_FLOAT("tau", l->kind == HK_LAYER_LIF ? check.tau : 2.0f),
                                   HK_SET_INT("decay_input", check.decay_input),
                                   HK_SET_STRING("reset", check.reset),
                                   HK_SET_FLOAT("v_reset", check.v_reset),
                                   HK_SET_FLOAT("v_threshold", check.v_threshold),
                                   HK_SET_INT("detach_reset", check.detach_reset),
                                   HK_SET_STRING("surrogate", check.surrogate),
                                   HK_SET_FLOAT("alpha", check.alpha),
                                   HK_SET_STRING("state", check.state),
                                   {0}};
    bool learned = l->kind == HK_LAYER_PARAMETRIC_LIF;
    hk_value *in[] = {x, NULL, learned ? learned_tau(b, tau) : NULL}, *out[3] = {NULL};
    hk_layer_nodes(b, "hk.Neuron", attrs, in, learned ? 3 : 1, out, l->membrane ? 3 : 1);
    if (b->st == HK_OK && l->membrane)
        *l->membrane = out[2];
    return b->st == HK_OK ? out[0] : NULL;
}

/* ---- encoders: from (N,...), or of what has time already */

/* (1,N,...) */
static hk_value *before_time(hk_layering *b, hk_value *x)
{
    int64_t dims[HK_MAX_RANK] = {1, -1};
    if (!hk_layer_rank(b, x, 1, HK_MAX_RANK - 1))
        return NULL;
    for (int32_t d = 1; d < x->shape.rank; d++)
        dims[d + 1] = hk_layer_extent(b, x, d, 0);
    return hk_layer_reshape(b, x, x->shape.rank + 1, dims);
}

/* T,1,1,... which set the number of steps when they change. */
static hk_value *repeats(hk_layering *b, int32_t rank)
{
    int64_t times[HK_MAX_RANK] = {b->l->steps, 1, 1, 1, 1, 1, 1, 1};
    return integers(b, HK_SNN_STEPS_NAME, times, rank);
}

static hk_value *repeat(hk_layering *b, hk_value *x)
{
    hk_value *once = before_time(b, x);
    return once ? hk_layer_binary(b, "Expand", once, repeats(b, once->shape.rank)) : NULL;
}

/* x is the probability of a spike, in each step drawn anew. */
static hk_value *poisson(hk_layering *b, hk_value *x)
{
    hk_value *p = b->l->steps ? repeat(b, x) : has_time(b, x, false) ? x : NULL;
    return p ? hk_layer_unary(b, "Bernoulli", p) : NULL;
}

/* One spike, in step round((T - 1) (1 - x)): the earlier the larger x is. */
static hk_value *latency(hk_layering *b, hk_value *x)
{
    hk_value *once = before_time(b, x);
    if (!once)
        return NULL;
    int32_t rank = once->shape.rank;
    const hk_attr_value before[] = {HK_SET_INT("exclusive", 1), {0}};
    hk_value *one = scalar(b, HK_FLOAT32, 1), *steps = repeats(b, rank);
    hk_value *count = hk_layer_binary(b, "Gather", cast(b, steps, HK_FLOAT32), scalar(b, HK_INT64, 0));
    hk_value *ones = hk_layer_binary(b, "Expand", one, steps);
    hk_value *step = hk_layer_node(b, "CumSum", before, (hk_value *[]){ones, scalar(b, HK_INT64, 0)}, 2);
    hk_value *late = hk_layer_binary(b, "Mul", hk_layer_binary(b, "Sub", one, once),
                                     hk_layer_binary(b, "Sub", count, one));
    hk_value *hit = hk_layer_binary(b, "Equal", hk_layer_unary(b, "Round", late), step);
    return cast(b, hit, HK_FLOAT32);
}

/* Spikes where x has grown by the threshold since the step before, from 0; off_spikes: -1 where it has fallen. */
static hk_value *delta(hk_layering *b, hk_value *x)
{
    double threshold = b->l->v_threshold != 0 ? (double)b->l->v_threshold : 0.1;
    int64_t pads[2 * HK_MAX_RANK] = {1};
    if (b->l->steps)
        return hk_layer_fail(b, "steps is %lld, but it encodes the changes of what has time: (T,N,...)",
                             (long long)b->l->steps);
    if (!has_time(b, x, false))
        return NULL;
    pads[x->shape.rank] = -1;
    hk_value *before = hk_layer_binary(b, "Pad", x, integers(b, NULL, pads, 2 * x->shape.rank));
    hk_value *change = hk_layer_binary(b, "Sub", x, before);
    hk_value *on = cast(b, hk_layer_binary(b, "GreaterOrEqual", change, scalar(b, HK_FLOAT32, threshold)), HK_FLOAT32);
    if (!b->l->off_spikes)
        return on;
    hk_value *fallen = hk_layer_binary(b, "LessOrEqual", change, scalar(b, HK_FLOAT32, -threshold));
    return hk_layer_binary(b, "Sub", on, cast(b, fallen, HK_FLOAT32));
}

/* ---- readouts: (T,N,...) to (N,...) */

static hk_value *named_readout(hk_layering *b, hk_value *y)
{
    const char *name = y ? hk_arena_format(b->g->arena, "%s.%s", HK_SNN_READOUT_NAME, b->name) : NULL;
    if (y && !name)
        return hk_layer_no_memory(b);
    if (y)
        y->producer->name = name;
    return y;
}

/* The potential behind the last step of neurons that never fire. */
static hk_value *integrate(hk_layering *b, hk_value *x)
{
    const hk_layer *l = b->l;
    if (l->tau != 0 && !(l->tau > 1 && isfinite(l->tau)))
        return hk_layer_fail(b, "tau is %g, expected a finite number of steps above 1, or 0 for no leak",
                             (double)l->tau);
    const char *state = hk_arena_format(b->g->arena, "%s.v", b->name);
    const hk_attr_value attrs[] = {HK_SET_INT("steps", x->shape.dim[0]),
                                   HK_SET_STRING("kind", l->tau > 0 ? "LIF" : "IF"),
                                   HK_SET_FLOAT("tau", l->tau > 0 ? l->tau : 2.0f),
                                   HK_SET_INT("decay_input", l->decay_input),
                                   HK_SET_FLOAT("v_threshold", FLT_MAX),
                                   HK_SET_INT("detach_reset", 1),
                                   HK_SET_STRING("state", state),
                                   {0}};
    hk_value *out[2] = {NULL};
    if (!state)
        return hk_layer_no_memory(b);
    hk_layer_nodes(b, "hk.Neuron", attrs, &x, 1, out, 2);
    return b->st == HK_OK ? out[1] : NULL;
}

static hk_value *readout(hk_layering *b, hk_value *x)
{
    const hk_attr_value attrs[] = {HK_SET_INT("keepdims", 0), {0}};
    if (!has_time(b, x, false))
        return NULL;
    switch (b->l->kind) {
    case HK_LAYER_MEMBRANE: return named_readout(b, integrate(b, x));
    case HK_LAYER_LAST: return named_readout(b, hk_layer_binary(b, "Gather", x, scalar(b, HK_INT64, -1)));
    default: break;
    }
    hk_value *in[] = {x, integers(b, NULL, (int64_t[]){0}, 1)};
    return named_readout(b, hk_layer_node(b, b->l->kind == HK_LAYER_RATE ? "ReduceMean" : "ReduceSum", attrs, in, 2));
}

/* ---- any of them */

static bool check_steps(hk_layering *b)
{
    int64_t steps = b->l->steps;
    bool wanted = b->l->kind == HK_LAYER_LATENCY || b->l->kind == HK_LAYER_DIRECT;
    if (steps < 0 || steps > 65536 || (wanted && !steps))
        hk_layer_fail(b, "steps is %lld, expected the number of time steps, 1 to 65536%s", (long long)steps,
                      wanted ? "" : ", or 0 where its input has time");
    return b->st == HK_OK;
}

hk_value *hk_layer_spiking(hk_layering *b, hk_value *x)
{
    if (!check_steps(b))
        return NULL;
    switch (b->l->kind) {
    case HK_LAYER_IF:
    case HK_LAYER_LIF:
    case HK_LAYER_PARAMETRIC_LIF: return neurons(b, x);
    case HK_LAYER_POISSON: return poisson(b, x);
    case HK_LAYER_LATENCY: return latency(b, x);
    case HK_LAYER_DIRECT: return repeat(b, x);
    case HK_LAYER_DELTA: return delta(b, x);
    default: return readout(b, x);
    }
}
