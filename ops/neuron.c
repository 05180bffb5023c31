/*
 * hk.Neuron, all time steps of a layer of spiking neurons, and hk.NeuronGrad, backpropagation through them.
 *
 * hk.Neuron: X, V0, w, theta -> S, V, V_seq. With attribute steps = T > 0, X is (T, ...) and one call walks all steps;
 * with steps = 0, X is one step. With attribute state the membrane V0 -> V is kept between runs under that name, where
 * V0 is absent and whoever runs the graph keeps states (ops/support/membrane.h). V0 and V have X's shape without the
 * time axis; V0 absent starts at v_reset (hard reset) or 0 (soft). w is ParametricLIF's parameter, 1/tau = sigmoid(w).
 * theta is the threshold, one or one per channel (axis 1 without time), instead of the attribute. S, and V_seq (the
 * potential after every step), have X's shape.
 *
 * hk.NeuronGrad: X, V0, w, theta, gS, gV, gV_seq -> gX, gV0, gw, gtheta, where gY is dL/dY and absent is 0. Nothing is
 * saved by the forward pass. Equations: ops/support/neuron.h; their gradient, last step first, with r = 1/tau,
 * x = H - theta and the surrogate's g':
 *     gV += gV_seq
 *     A = gS, unless detach_reset + gV (-theta) with a soft reset, + gV (v_reset - H) with a hard one
 *     gH = A g'(x) + gV (soft) or gV (1 - S) (hard)        gtheta -= A g'(x) + gV S (soft alone)
 *     IF: gX = gH, gV = gH
 *     LIF: gX = gH r (decay_input) or gH, gr += gH (X - (V - rest)) or gH (rest - V), gV = gH (1 - r)
 *     gw = r (1 - r) gr
 * as in SpikingJelly's fused kernels (activation_based/triton_kernel/neuron_kernel); verified against dual numbers.
 */
#include <math.h>

#include "ops/support/neuron_lower.h"
#include "ops/support/reduce.h"

enum { IN_X, IN_V0, IN_W, IN_THETA, IN_GS, IN_GV, IN_GV_SEQ, IN_COUNT };
enum { OUT_S, OUT_V, OUT_V_SEQ, OUT_COUNT };
enum { GRAD_X, GRAD_V0, GRAD_W, GRAD_THETA, GRAD_COUNT };

static const hk_attr neuron_attrs[] = {HK_NEURON_ATTRS, HK_STRING_ATTR(hk_neuron_attrs, state, ""), {0}};

/* ---- inference */

/* X's shape without the time axis. */
static hk_shape membrane_shape(const hk_neuron_attrs *a, const hk_shape *x)
{
    hk_shape v = *x;
    if (a->steps && x->rank > 0) {
        v.rank = x->rank - 1;
        for (int32_t d = 0; d < v.rank; d++)
            v.dim[d] = x->dim[d + 1];
    }
    return v;
}

static bool may_equal(const hk_shape *a, const hk_shape *b)
{
    if (a->rank < 0 || b->rank < 0)
        return true;
    bool equal = a->rank == b->rank;
    for (int32_t d = 0; d < a->rank && equal; d++)
        equal = a->dim[d] < 0 || b->dim[d] < 0 || a->dim[d] == b->dim[d];
    return equal;
}

static hk_status check_like(hk_infer *in, int32_t i, const hk_shape *expected, const char *why)
{
    const hk_value *v = hk_in(in->node, i);
    hk_shape_text a, b;
    if (!v || may_equal(&v->shape, expected))
        return HK_OK;
    return hk_infer_fail(in, HK_STATUS_INVALID, "input '%s' has shape %s, expected %s: %s", v->name,
                         hk_shape_print(&v->shape, &a), hk_shape_print(expected, &b), why);
}

static hk_status check_time(hk_infer *in, const hk_neuron_attrs *a)
{
    const hk_value *x = in->node->in[IN_X];
    if (!a->steps || x->shape.rank < 0)
        return HK_OK;
    if (x->shape.rank == 0 || (x->shape.dim[0] >= 0 && x->shape.dim[0] != a->steps)) {
        hk_shape_text text;
        return hk_infer_fail(in, HK_STATUS_INVALID,
                             "input '%s' has shape %s, expected a leading time axis of %lld (attribute 'steps')",
                             x->name, hk_shape_print(&x->shape, &text), (long long)a->steps);
    }
    return HK_OK;
}

static hk_status check_parameter(hk_infer *in, const hk_neuron_attrs *a)
{
    const hk_value *w = hk_in(in->node, IN_W);
    bool parametric = hk_neuron_rule_of(a, true).kind == HK_NEURON_PARAMETRIC_LIF;
    hk_shape_text text;
    if (parametric != (w != NULL))
        return hk_infer_fail(in, HK_STATUS_INVALID,
                             w ? "kind \"%s\" takes no parameter w (input 2), only \"ParametricLIF\" does"
                               : "kind \"%s\" needs its parameter w (input 2), of which 1/tau is the sigmoid",
                             a->kind);
    if (w && (w->shape.rank > 1 || (w->shape.rank == 1 && w->shape.dim[0] >= 0 && w->shape.dim[0] != 1)))
        return hk_infer_fail(in, HK_STATUS_INVALID, "parameter '%s' has shape %s, expected one element", w->name,
                             hk_shape_print(&w->shape, &text));
    return HK_OK;
}

static hk_status check_threshold(hk_infer *in, const hk_shape *v)
{
    const hk_value *theta = hk_in(in->node, IN_THETA);
    if (!theta || theta->shape.rank < 0 || theta->shape.rank == 0)
        return HK_OK;
    int64_t channels = v->rank < 0 ? -1 : v->rank >= 2 ? v->dim[1] : 1;
    int64_t count = theta->shape.dim[0];
    if (theta->shape.rank == 1 && (count < 0 || count == 1 || channels < 0 || count == channels))
        return HK_OK;
    hk_shape_text text;
    return hk_infer_fail(in, HK_STATUS_INVALID,
                         "threshold '%s' has shape %s, expected one element or one for each of %lld channels",
                         theta->name, hk_shape_print(&theta->shape, &text), (long long)channels);
}

/* Checks of both operators; *v receives the membrane's shape. */
static hk_status check_neuron(hk_infer *in, hk_shape *v)
{
    const hk_node *n = in->node;
    const hk_neuron_attrs *a = n->attrs;
    const hk_value *x = n->in[IN_X];
    const char *wrong = hk_neuron_check(in->graph->arena, a);
    if (wrong)
        return hk_infer_fail(in, HK_STATUS_INVALID, "%s", wrong);
    if (x->dtype != HK_FLOAT32 && x->dtype != HK_FLOAT64)
        return hk_infer_fail(in, HK_STATUS_INVALID, "input '%s' is %s, expected float32 or float64", x->name,
                             hk_dtype_name(x->dtype));
    for (int32_t i = 1; i < n->in_count; i++)
        if (n->in[i] && n->in[i]->dtype != x->dtype)
            return hk_infer_fail(in, HK_STATUS_INVALID, "input '%s' is %s, expected %s like '%s'", n->in[i]->name,
                                 hk_dtype_name(n->in[i]->dtype), hk_dtype_name(x->dtype), x->name);
    HK_TRY(check_time(in, a));
    *v = membrane_shape(a, &x->shape);
    HK_TRY(
        check_like(in, IN_V0, v, "the input's, without the time axis if it has one; reset the state after a change"));
    HK_TRY(check_parameter(in, a));
    return check_threshold(in, v);
}

static hk_status infer_neuron(hk_infer *in)
{
    hk_shape v;
    HK_TRY(check_neuron(in, &v));
    const hk_value *x = in->node->in[IN_X];
    HK_TRY(hk_infer_output(in, OUT_S, x->dtype, &x->shape));
    HK_TRY(hk_infer_output(in, OUT_V, x->dtype, &v));
    return hk_infer_output(in, OUT_V_SEQ, x->dtype, &x->shape);
}

static hk_status infer_grad(hk_infer *in)
{
    hk_shape v;
    HK_TRY(check_neuron(in, &v));
    const hk_node *n = in->node;
    const hk_value *x = n->in[IN_X], *w = hk_in(n, IN_W), *theta = hk_in(n, IN_THETA);
    HK_TRY(check_like(in, IN_GS, &x->shape, "the gradient of the spikes"));
    HK_TRY(check_like(in, IN_GV, &v, "the gradient of the last potential"));
    HK_TRY(check_like(in, IN_GV_SEQ, &x->shape, "the gradient of the potentials"));
    if ((hk_out(n, GRAD_W) && !w) || (hk_out(n, GRAD_THETA) && !theta))
        return hk_infer_fail(in, HK_STATUS_INVALID, "a gradient of input %d was asked for, which is absent",
                             hk_out(n, GRAD_W) && !w ? IN_W : IN_THETA);
    HK_TRY(hk_infer_output(in, GRAD_X, x->dtype, &x->shape));
    HK_TRY(hk_infer_output(in, GRAD_V0, x->dtype, &v));
    if (w)
        HK_TRY(hk_infer_output(in, GRAD_W, x->dtype, &w->shape));
    return theta ? hk_infer_output(in, GRAD_THETA, x->dtype, &theta->shape) : HK_OK;
}

/* ---- sizes, shared by evaluation and lowering; all shapes are known */

typedef struct sizes {
    int64_t steps, neurons, channels, inner;
    int64_t thetas; /* 0: the attribute, 1, or one per channel */
} sizes;

static sizes sizes_of(const hk_neuron_attrs *a, const hk_shape *x, const hk_shape *theta)
{
    hk_shape v = membrane_shape(a, x);
    sizes z = {.steps = a->steps ? a->steps : 1,
               .neurons = hk_shape_count(&v),
               .channels = v.rank >= 2 ? v.dim[1] : 1,
               .inner = v.rank >= 2 ? hk_shape_span(&v, 2, v.rank) : 1,
               .thetas = theta ? hk_shape_count(theta) : 0};
    if (z.thetas == 1)
        z.channels = 1;
    return z;
}

/* ---- evaluation */

/* One evaluation: the operands' contents, and the rule with 1/tau filled in. */
typedef struct run {
    sizes z;
    hk_neuron_rule rule;
    double fixed_theta;
    const hk_tensor *x, *v0, *w, *theta, *gs, *gv, *gv_seq;
} run;

static const hk_tensor *input(const hk_eval *e, int32_t i)
{
    return hk_in(e->node, i) ? e->in[i] : NULL;
}

static run run_of(const hk_eval *e)
{
    const hk_neuron_attrs *a = e->node->attrs;
    run r = {.x = e->in[IN_X],
             .w = input(e, IN_W),
             .v0 = input(e, IN_V0),
             .theta = input(e, IN_THETA),
             .gs = input(e, IN_GS),
             .gv = input(e, IN_GV),
             .gv_seq = input(e, IN_GV_SEQ),
             .fixed_theta = (double)a->v_threshold};
    hk_shape x = hk_tensor_shape(r.x), theta = r.theta ? hk_tensor_shape(r.theta) : HK_SCALAR;
    r.z = sizes_of(a, &x, r.theta ? &theta : NULL);
    bool single = r.x->dtype == HK_FLOAT32;
    r.rule = hk_neuron_rule_of(a, single);
    if (r.w)
        r.rule.rate = hk_neuron_rate(hk_get_double(r.w, 0), single);
    return r;
}

static int64_t channel_of(const run *r, int64_t i)
{
    return r->z.thetas > 1 ? i / r->z.inner % r->z.channels : 0;
}

static double theta_of(const run *r, int64_t i)
{
    return r->z.thetas ? hk_get_double(r->theta, channel_of(r, i)) : r->fixed_theta;
}

static double get(const hk_tensor *t, int64_t i)
{
    return t ? hk_get_double(t, i) : 0;
}

static double start_of(const run *r, int64_t i)
{
    return r->v0 ? hk_get_double(r->v0, i) : r->rule.rest;
}

static void put(hk_tensor *t, int64_t i, double x)
{
    if (t)
        hk_set_double(t, i, x);
}

/* Allocates the outputs that were asked for; false when out of memory. */
static bool make_outputs(hk_eval *e, hk_tensor **out, int32_t count, const hk_shape *const *shapes)
{
    for (int32_t i = 0; i < count; i++) {
        out[i] = shapes[i] ? hk_eval_output(e, i, e->in[IN_X]->dtype, shapes[i]) : NULL;
        if (hk_out(e->node, i) && !out[i])
            return false;
    }
    return true;
}

static hk_status eval_neuron(hk_eval *e)
{
    run r = run_of(e);
    hk_shape x = hk_tensor_shape(r.x), v = membrane_shape(e->node->attrs, &x);
    hk_tensor *out[OUT_COUNT];
    if (!make_outputs(e, out, OUT_COUNT, (const hk_shape *[]){&x, &v, &x}))
        return hk_out_of_memory(e->ctx, "spikes");
    for (int64_t i = 0; i < r.z.neurons; i++) {
        double potential = start_of(&r, i), theta = theta_of(&r, i);
        for (int64_t t = 0; t < r.z.steps; t++) {
            int64_t at = t * r.z.neurons + i;
            put(out[OUT_S], at, hk_neuron_step(&r.rule, hk_get_double(r.x, at), theta, &potential));
            put(out[OUT_V_SEQ], at, potential);
        }
        put(out[OUT_V], i, potential);
    }
    return HK_OK;
}

typedef struct grads {
    double *h, *before;    /* per step: H, and V before it */
    double v, rate, theta; /* of one neuron: dL/dV0, dL/dr, dL/dtheta */
} grads;

static void walk_back(const run *r, int64_t i, grads *g, hk_tensor *gx)
{
    const hk_neuron_rule *rule = &r->rule;
    double potential = start_of(r, i), theta = theta_of(r, i);
    for (int64_t t = 0; t < r->z.steps; t++) {
        g->before[t] = potential;
        g->h[t] = hk_neuron_charge(rule, potential, hk_get_double(r->x, t * r->z.neurons + i));
        potential = hk_neuron_reset(rule, g->h[t], theta);
    }
    double carry = rule->kind == HK_NEURON_IF ? 1 : 1 - rule->rate;
    double gain = rule->kind != HK_NEURON_IF && rule->decay_input ? rule->rate : 1;
    double gv = get(r->gv, i);
    g->rate = g->theta = 0;
    for (int64_t t = r->z.steps - 1; t >= 0; t--) {
        int64_t at = t * r->z.neurons + i;
        double h = g->h[t], fired = h >= theta;
        gv += get(r->gv_seq, at);
        double through = get(r->gs, at) + (rule->detach_reset ? 0 : gv * (rule->soft ? -theta : rule->rest - h));
        through *= hk_surrogate_gradient(rule, h - theta);
        g->theta -= through + (rule->soft ? gv * fired : 0);
        double gh = through + gv * (rule->soft ? 1 : 1 - fired);
        g->rate += gh * ((rule->decay_input ? hk_get_double(r->x, at) : 0) - (g->before[t] - rule->rest));
        put(gx, at, gh * gain);
        gv = gh * carry;
    }
    g->v = gv;
}

static hk_status eval_grad(hk_eval *e)
{
    run r = run_of(e);
    hk_shape x = hk_tensor_shape(r.x), v = membrane_shape(e->node->attrs, &x);
    hk_shape w = r.w ? hk_tensor_shape(r.w) : HK_SCALAR;
    hk_shape theta = r.theta ? hk_tensor_shape(r.theta) : HK_SCALAR;
    hk_tensor *out[GRAD_COUNT];
    double *sums = hk_arena_array(e->arena, (size_t)r.z.channels + 1, sizeof *sums);
    grads g = {.h = hk_arena_array(e->arena, (size_t)r.z.steps, sizeof *g.h),
               .before = hk_arena_array(e->arena, (size_t)r.z.steps, sizeof *g.before)};
    if (!make_outputs(e, out, GRAD_COUNT, (const hk_shape *[]){&x, &v, &w, &theta}) || !sums || !g.h || !g.before)
        return hk_out_of_memory(e->ctx, "gradients of spiking neurons");
    double rate_sum = 0;
    for (int64_t i = 0; i < r.z.neurons; i++) {
        walk_back(&r, i, &g, out[GRAD_X]);
        put(out[GRAD_V0], i, g.v);
        rate_sum += g.rate;
        sums[channel_of(&r, i)] += g.theta;
    }
    put(out[GRAD_W], 0, rate_sum * r.rule.rate * (1 - r.rule.rate));
    for (int64_t c = 0; c < r.z.thetas; c++)
        put(out[GRAD_THETA], c, sums[c]);
    return HK_OK;
}

/* ---- lowering */

static hk_neuron_job job_of(const hk_lower *l)
{
    const hk_node *n = l->node;
    const hk_value *theta = hk_in(n, IN_THETA);
    const sizes z = sizes_of(n->attrs, &n->in[IN_X]->shape, theta ? &theta->shape : NULL);
    return (hk_neuron_job){.attrs = n->attrs,
                           .steps = z.steps,
                           .neurons = z.neurons,
                           .channels = z.channels,
                           .inner = z.inner,
                           .thetas = z.thetas,
                           .x = n->in[IN_X],
                           .v0 = hk_in(n, IN_V0),
                           .w = hk_in(n, IN_W),
                           .theta = hk_in(n, IN_THETA)};
}

static hk_status check_storage(hk_lower *l)
{
    for (int32_t i = 0; i < l->node->in_count; i++)
        HK_TRY(hk_require_float32(l, l->node->in[i]));
    return HK_OK;
}

static hk_status lower_neuron(hk_lower *l)
{
    const hk_node *n = l->node;
    hk_neuron_job j = job_of(l);
    HK_TRY(check_storage(l));
    j.s = hk_out(n, OUT_S);
    j.v = hk_out(n, OUT_V);
    j.v_seq = hk_out(n, OUT_V_SEQ);
    return hk_emit_neuron(l, &j);
}

static hk_status lower_grad(hk_lower *l)
{
    const hk_node *n = l->node;
    hk_neuron_job j = job_of(l);
    HK_TRY(check_storage(l));
    j.gs = hk_in(n, IN_GS);
    j.gv = hk_in(n, IN_GV);
    j.gv_seq = hk_in(n, IN_GV_SEQ);
    j.gx = hk_out(n, GRAD_X);
    j.gv0 = hk_out(n, GRAD_V0);
    j.gw = hk_out(n, GRAD_W);
    j.gtheta = hk_out(n, GRAD_THETA);
    return hk_emit_neuron_grad(l, &j);
}

/* ---- differentiation */

static hk_status backward_neuron(hk_gradient *g, hk_node *n)
{
    hk_graph *graph = hk_gradient_graph(g);
    const hk_op *op = hk_op_find(NULL, "hk.NeuronGrad", INT16_MAX, NULL);
    hk_value *in[IN_COUNT] = {n->in[IN_X],
                              hk_in(n, IN_V0),
                              hk_in(n, IN_W),
                              hk_in(n, IN_THETA),
                              hk_gradient_of(g, n->out[OUT_S]),
                              hk_gradient_of(g, hk_out(n, OUT_V)),
                              hk_gradient_of(g, hk_out(n, OUT_V_SEQ))};
    /* The forward node's attributes are the gradient's too. */
    hk_node *d = hk_graph_node(graph, NULL, op->type, op, n->attrs, in, IN_COUNT, GRAD_COUNT);
    if (!d)
        return hk_out_of_memory(graph->ctx, "the gradient of spiking neurons");
    d->opset = INT16_MAX;
    for (int32_t i = 0; i < GRAD_COUNT; i++)
        if (!hk_gradient_wanted(g, in[i])) {
            d->out[i]->producer = NULL;
            d->out[i] = NULL;
        }
    HK_TRY(hk_node_infer(graph, d));
    for (int32_t i = 0; i < GRAD_COUNT; i++)
        HK_TRY(hk_gradient_add(g, in[i], d->out[i]));
    return HK_OK;
}

/* ---- the operators */

static const char *const neuron_cases[] = {
    "f32[4,3,5] ; steps=4 ; nograd",
    "f32[8,2,4,6] f32[2,4,6] ; steps=8 kind=\"IF\" reset=\"soft\" ; nograd out=3",
    "f32[3] ; kind=\"IF\" v_threshold=0.25 ; nograd out=2",
    "f32[] f32[] ; tau=1.25 decay_input=1 v_reset=-0.25 ; nograd out=2",
    "f32[5,4,7] f32[4,7] p.f32[] ; steps=5 kind=\"ParametricLIF\" reset=\"soft\" ; nograd out=3",
    "f32[9,3,8] - p.f32[1] ; steps=9 kind=\"ParametricLIF\" decay_input=1 v_reset=-0.5 ; nograd out=2",
    "f32[6,2,3,5] - - p.f32[3]+ ; steps=6 tau=5.0 ; nograd out=2",
    "f32[6,2,3,4] - - f32[3]+ ; steps=6 reset=\"soft\" decay_input=1 ; nograd",
    "f32[2,16] f32[2,16] - f32[16]+ ; kind=\"IF\" ; nograd out=2",
    "f32[33,2,6] - - f32[]+ ; steps=33 tau=20.0 reset=\"soft\" ; nograd out=3",
    "f32[100,4,8] ; steps=100 tau=10.0 ; nograd out=2",
    "f32[16,32,1028] ; steps=16 ; nograd",
    "f32[4,0,7] ; steps=4 ; nograd out=3",
    "f32[4194369] ; kind=\"IF\" ; nograd out=2",
    NULL,
};

static const char *const grad_cases[] = {
    "f32[4,3,5] - - - f32[4,3,5] ; steps=4 ; nograd",
    "f32[4,3,5] f32[3,5] - - f32[4,3,5] f32[3,5] f32[4,3,5] ; steps=4 kind=\"IF\" reset=\"soft\" ; nograd out=2",
    "f32[8,2,4,6] f32[2,4,6] - - f32[8,2,4,6] f32[2,4,6] ; steps=8 v_reset=-0.25 surrogate=\"Sigmoid\" ; nograd out=2",
    "f32[5,4,7] f32[4,7] f32[] f32[]+ f32[5,4,7] f32[4,7] ; steps=5 kind=\"ParametricLIF\" ; nograd out=4",
    "f32[5,4,8] f32[4,8] f32[1] f32[8]+ f32[5,4,8] f32[4,8] f32[5,4,8] ; steps=5 kind=\"ParametricLIF\" decay_input=1 "
    "reset=\"soft\" ; nograd out=4",
    "f32[24,4,8] - f32[] f32[8]+ f32[24,4,8] ; steps=24 kind=\"ParametricLIF\" decay_input=1 ; nograd out=4",
    "f32[3,2,3,7] - - f32[3]+ - f32[2,3,7] ; steps=3 decay_input=1 detach_reset=1 surrogate=\"FastSigmoid\" ; nograd",
    "f32[32,2,12] - - - f32[32,2,12] ; steps=32 tau=8.0 surrogate=\"SoftSign\" ; nograd",
    "f32[100,2,6] f32[2,6] f32[] f32[6]+ f32[100,2,6] f32[2,6] f32[100,2,6] ; steps=100 kind=\"ParametricLIF\" "
    "decay_input=1 "
    "surrogate=\"SuperSpike\" ; nograd out=4",
    "f32[100,4,8] - - - f32[100,4,8] ; steps=100 tau=10.0 surrogate=\"PiecewiseQuadratic\" alpha=0.5 ; nograd out=2",
    "f32[37,3,4] f32[3,4] - - f32[37,3,4] f32[3,4] ; steps=37 reset=\"soft\" surrogate=\"PiecewiseExp\" ; nograd out=2",
    "f32[61,3,5] - - - f32[61,3,5] - f32[61,3,5] ; steps=61 kind=\"IF\" detach_reset=1 surrogate=\"Erf\" ; nograd",
    "f32[3] f32[3] - - f32[3] f32[3] ; surrogate=\"Rect\" ; nograd out=2",
    "f32[] f32[] - f32[]+ f32[] ; surrogate=\"Triangle\" alpha=0.5 reset=\"soft\" ; nograd",
    "f32[16,32,1028] - - f32[1028]+ f32[16,32,1028] ; steps=16 ; nograd",
    "f32[4,0,7] f32[0,7] f32[] f32[7]+ f32[4,0,7] ; steps=4 kind=\"ParametricLIF\" ; nograd out=4",
    "f32[4194369] f32[4194369] - - f32[4194369] ; kind=\"IF\" ; nograd out=2",
    NULL,
};

const hk_op hk_ops_neuron[] = {
    {.type = "hk.Neuron",
     .since = 1,
     .in_min = 1,
     .in_max = IN_THETA + 1,
     .out_min = 1,
     .out_max = OUT_COUNT,
     .parameters = 1u << IN_W,
     .half_out = 1u << OUT_S,
     .spikes_out = 1u << OUT_S,
     .attrs_bytes = sizeof(hk_neuron_attrs),
     .attrs = neuron_attrs,
     .infer = infer_neuron,
     .eval = eval_neuron,
     .lower = lower_neuron,
     .backward = backward_neuron,
     .cases = neuron_cases},
    {.type = "hk.NeuronGrad",
     .since = 1,
     .in_min = 1,
     .in_max = IN_COUNT,
     .out_min = 1,
     .out_max = GRAD_COUNT,
     .attrs_bytes = sizeof(hk_neuron_attrs),
     .attrs = neuron_attrs,
     .infer = infer_grad,
     .eval = eval_grad,
     .lower = lower_grad,
     .cases = grad_cases},
    {0},
};
