/* Operators with weights, pooling and neurons as nodes of NIR. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "ops/support/conv_geometry.h"
#include "ops/support/neuron.h"
#include "snn/nir_nodes.h"

/* NIR's neurons fire above their threshold, ours at it: the threshold loses this share, more than float32 sums of
 * some hundred terms are off, so that a tie fires there as it does here. */
#define TIE_SHARE 0x1p-20

enum { IN_X, IN_W, IN_BIAS };
enum { NEURON_X, NEURON_V0, NEURON_W, NEURON_THETA };
enum { NEURON_S, NEURON_V, NEURON_V_SEQ };

static hk_status no_memory(const hk_nir_builder *b)
{
    return hk_out_of_memory(b->g->ctx, "an export to NIR");
}

/* ---- windows */

/* Numbers of the window's spatial axes. */
static const hk_tensor *axes_of(hk_nir_builder *b, const hk_window *w, const int64_t *x)
{
    return hk_nir_integers(b, w->spatial == 1 ? 0 : 1, x + HK_AXES - w->spatial, w->spatial);
}

static bool is_symmetric(const hk_window *w)
{
    bool same = true;
    for (int32_t d = HK_AXES - w->spatial; d < HK_AXES; d++)
        same = same && w->begin[d] == w->end[d];
    return same;
}

static bool is_square(const hk_window *w)
{
    bool same = true;
    for (int32_t d = HK_AXES - w->spatial; d < HK_AXES; d++)
        same = same && w->kernel[d] == w->kernel[HK_AXIS_W];
    return same;
}

/* x as a sample with a batch of 1. */
static hk_shape with_batch(const hk_shape *x)
{
    hk_shape s = {.rank = x->rank + 1, .dim = {1}};
    memcpy(s.dim + 1, x->dim, (size_t)x->rank * sizeof *x->dim);
    return s;
}

static hk_shape out_shape(const hk_window *w, int64_t channels)
{
    hk_shape full = hk_window_shape(w, 1, channels), s = {.rank = full.rank - 1};
    memcpy(s.dim, full.dim + 1, (size_t)s.rank * sizeof *s.dim);
    return s;
}

/* ---- weights */

/* Room for weights and a bias of zeros, or that of the node's input, times `times`. */
static hk_status make_weights(hk_nir_builder *b, hk_nir_node *n, int32_t rank, const int64_t *dims,
                              const hk_tensor *bias, double times)
{
    n->weight = hk_nir_floats(b, rank, dims);
    n->bias = hk_nir_floats(b, 1, dims);
    if (!hk_nir_add_tensor(n, "weight", n->weight) || !hk_nir_add_tensor(n, "bias", n->bias))
        return no_memory(b);
    for (int64_t i = 0; bias && i < dims[0]; i++)
        hk_set_double(n->bias, i, hk_get_double(bias, hk_tensor_count(bias) > 1 ? i : 0) * times);
    return HK_OK;
}

/* Between groups stand zeros. */
static void spread_groups(hk_tensor *to, const hk_tensor *w, int64_t groups)
{
    int64_t outs = w->shape[0], ins = w->shape[1], taps = hk_tensor_count(w) / (outs * ins);
    for (int64_t o = 0; o < outs; o++) {
        int64_t first = o / (outs / groups) * ins;
        for (int64_t k = 0; k < ins * taps; k++)
            hk_set_double(to, (o * ins * groups + first) * taps + k, hk_get_double(w, o * ins * taps + k));
    }
}

hk_status hk_nir_conv(hk_nir_builder *b, const hk_node *n, hk_nir_flow *flow)
{
    const hk_tensor *w = hk_nir_fixed(b, n->in[IN_W]), *bias = hk_nir_fixed(b, hk_in(n, IN_BIAS));
    const hk_conv_attrs *a = n->attrs;
    hk_shape x = with_batch(&flow->shape), ws = w ? hk_tensor_shape(w) : HK_SCALAR;
    hk_problem_text problem;
    hk_nir_node *made = NULL;
    hk_conv p;
    if (!w || (hk_in(n, IN_BIAS) && !bias))
        return hk_nir_refuse(b, "its weights are computed; NIR takes constants alone");
    if (w->rank < 3 || w->rank > 4)
        return hk_nir_refuse(b, "NIR convolves along one axis or two");
    if (!hk_conv_resolve(a, &x, &ws, &p, &problem))
        return hk_nir_refuse(b, "its geometry does not fit its input");
    if (!is_symmetric(&p.w))
        return hk_nir_refuse(b, "NIR pads both sides alike; pad the input before it, or change the kernel");
    b->verdict->reason = !is_square(&p.w) ? "has its counterpart; nir's type check takes kernels for square, so read "
                                            "the file with type_check=False"
                         : a->group > 1   ? "becomes a convolution of all channels, zeros between its groups"
                                          : b->verdict->reason;
    hk_shape out = out_shape(&p.w, p.k);
    HK_TRY(hk_nir_emit(b, n->name, w->rank == 3 ? "Conv1d" : "Conv2d", &out, n->out[0], flow, &made));
    ws.dim[1] *= a->group;
    HK_TRY(make_weights(b, made, ws.rank, ws.dim, bias, 1));
    spread_groups(made->weight, w, a->group);
    return hk_nir_add_tensor(made, "input_shape", axes_of(b, &p.w, p.w.in)) &&
                   hk_nir_add_tensor(made, "stride", axes_of(b, &p.w, p.w.stride)) &&
                   hk_nir_add_tensor(made, "padding", axes_of(b, &p.w, p.w.begin)) &&
                   hk_nir_add_tensor(made, "dilation", axes_of(b, &p.w, p.w.dilation)) &&
                   hk_nir_add_tensor(made, "groups", hk_nir_integers(b, 0, (int64_t[]){1}, 1))
               ? HK_OK
               : no_memory(b);
}

hk_status hk_nir_dense(hk_nir_builder *b, const hk_node *n, hk_nir_flow *flow)
{
    bool gemm = !strcmp(n->type, "Gemm");
    const hk_tensor *w = hk_nir_fixed(b, n->in[IN_W]), *bias = hk_nir_fixed(b, hk_in(n, IN_BIAS));
    const int64_t *turned = gemm ? hk_node_attr(n, "transB") : NULL, *flipped = gemm ? hk_node_attr(n, "transA") : NULL;
    const float *alpha = gemm ? hk_node_attr(n, "alpha") : NULL, *beta = gemm ? hk_node_attr(n, "beta") : NULL;
    hk_nir_node *made = NULL;
    if (!w || w->rank != 2 || (hk_in(n, IN_BIAS) && !bias) || (flipped && *flipped))
        return hk_nir_refuse(b, "NIR multiplies by a constant matrix; these weights are computed, or of another rank");
    if (flow->shape.rank != 1)
        return hk_nir_refuse(b, "NIR's Affine takes a vector; flatten its input");
    bool rows_are_outputs = turned && *turned;
    int64_t outs = w->shape[rows_are_outputs ? 0 : 1], ins = w->shape[rows_are_outputs ? 1 : 0];
    hk_shape out = {.rank = 1, .dim = {outs}};
    if (bias && hk_tensor_count(bias) != 1 && hk_tensor_count(bias) != outs)
        return hk_nir_refuse(b, "NIR's bias is one number per output");
    HK_TRY(hk_nir_emit(b, n->name, "Affine", &out, n->out[0], flow, &made));
    HK_TRY(make_weights(b, made, 2, (int64_t[]){outs, ins}, bias, beta ? (double)*beta : 1));
    for (int64_t o = 0; o < outs; o++)
        for (int64_t i = 0; i < ins; i++)
            hk_set_double(made->weight, o * ins + i,
                          hk_get_double(w, rows_are_outputs ? o * ins + i : i * outs + o) *
                              (alpha ? (double)*alpha : 1));
    return HK_OK;
}

/* ---- pooling */

static hk_status emit_pool(hk_nir_builder *b, const hk_node *n, const hk_window *w, const hk_value *v,
                           hk_nir_flow *flow)
{
    hk_shape out = out_shape(w, flow->shape.dim[0]);
    hk_nir_node *made = NULL;
    HK_TRY(hk_nir_emit(b, n->name, "AvgPool2d", &out, v, flow, &made));
    return hk_nir_add_tensor(made, "kernel_size", axes_of(b, w, w->kernel)) &&
                   hk_nir_add_tensor(made, "stride", axes_of(b, w, w->stride)) &&
                   hk_nir_add_tensor(made, "padding", axes_of(b, w, w->begin))
               ? HK_OK
               : no_memory(b);
}

/* The mean of whole planes; ReduceMean may take their axes away. */
static hk_status pool_planes(hk_nir_builder *b, const hk_node *n, hk_nir_flow *flow)
{
    const hk_shape *y = &b->shapes[n->out[0]->id];
    hk_shape x = with_batch(&flow->shape);
    bool keeps = y->rank == 4 && y->dim[1] == x.dim[1] && y->dim[2] == 1 && y->dim[3] == 1;
    hk_nir_node *made = NULL;
    hk_window w;
    hk_problem_text problem;
    if (!keeps && !(y->rank == 2 && y->dim[1] == x.dim[1]))
        return hk_nir_refuse(b, "NIR's means are those of whole planes, or of windows");
    if (!hk_window_resolve(&(hk_window_attrs){.auto_pad = "VALID"}, &x, x.dim + 2, &w, &problem))
        return hk_nir_refuse(b, "its geometry does not fit its input");
    HK_TRY(emit_pool(b, n, &w, keeps ? n->out[0] : NULL, flow));
    if (keeps)
        return HK_OK;
    hk_shape planes = flow->shape, out = {.rank = 1, .dim = {planes.dim[0]}};
    const char *name = hk_arena_format(b->arena, "%s_flatten", n->name);
    if (!name)
        return no_memory(b);
    HK_TRY(hk_nir_emit(b, name, "Flatten", &out, n->out[0], flow, &made));
    return hk_nir_add_tensor(made, "start_dim", hk_nir_integers(b, 0, (int64_t[]){0}, 1)) &&
                   hk_nir_add_tensor(made, "end_dim", hk_nir_integers(b, 0, (int64_t[]){-1}, 1)) &&
                   hk_nir_add_tensor(made, "input_type", hk_nir_integers(b, 1, planes.dim, planes.rank))
               ? HK_OK
               : no_memory(b);
}

hk_status hk_nir_pool(hk_nir_builder *b, const hk_node *n, hk_nir_flow *flow)
{
    hk_shape x = with_batch(&flow->shape);
    hk_problem_text problem;
    hk_window w;
    if (flow->shape.rank != 3)
        return hk_nir_refuse(b, "NIR pools images, (C,H,W), alone");
    if (strcmp(n->type, "AveragePool") != 0)
        return pool_planes(b, n, flow);
    const hk_window_attrs *a = n->attrs;
    const int64_t *counts = hk_node_attr(n, "count_include_pad");
    if (!hk_window_resolve(a, &x, a->kernel_shape.v, &w, &problem))
        return hk_nir_refuse(b, "its geometry does not fit its input");
    bool padded = false, dilated = false, cut = false;
    for (int32_t d = HK_AXIS_H; d < HK_AXES; d++) {
        padded = padded || w.begin[d] > 0 || w.end[d] > 0;
        dilated = dilated || w.dilation[d] != 1;
        cut = cut || (w.out[d] - 1) * w.stride[d] + w.kernel[d] > w.in[d] + w.begin[d] + w.end[d];
    }
    if (!is_symmetric(&w) || dilated || cut || (padded && !*counts))
        return hk_nir_refuse(b, "NIR's AvgPool2d counts its padding, which is alike on both sides, and has neither "
                                "dilation nor ceil_mode; pool without them");
    return emit_pool(b, n, &w, n->out[0], flow);
}

/* ---- neurons */

static bool starts_at_rest(const hk_nir_builder *b, const hk_node *n, double rest)
{
    const hk_tensor *v0 = hk_nir_fixed(b, hk_in(n, NEURON_V0));
    bool same = v0 || !hk_in(n, NEURON_V0);
    for (int64_t i = 0; v0 && i < hk_tensor_count(v0); i++)
        same = same && fabs(hk_get_double(v0, i) - rest) <= 0;
    return same;
}

static bool is_read(const hk_nir_builder *b, const hk_node *n, int32_t i)
{
    const hk_value *v = hk_out(n, i);
    return v && (b->uses.count[v->id] || b->uses.is_output[v->id]);
}

/* Neurons that never fire, of which the last potential is read. */
static bool integrates(const hk_nir_builder *b, const hk_node *n)
{
    const hk_neuron_attrs *a = n->attrs;
    return !hk_in(n, NEURON_THETA) && a->v_threshold >= FLT_MAX && !is_read(b, n, NEURON_S) &&
           is_read(b, n, NEURON_V) && !is_read(b, n, NEURON_V_SEQ);
}

/* What NIR cannot say. */
static hk_status check_neuron(hk_nir_builder *b, const hk_node *n, const hk_neuron_rule *rule, bool *go_on)
{
    *go_on = false;
    if (is_read(b, n, NEURON_V) || is_read(b, n, NEURON_V_SEQ))
        return hk_nir_refuse(b, "its potentials are read, and NIR's neurons hand on spikes alone; read spikes");
    if (hk_in(n, NEURON_W) && !hk_nir_fixed(b, n->in[NEURON_W]))
        return hk_nir_refuse(b, "its time constant is computed; NIR takes constants alone");
    if (hk_in(n, NEURON_THETA) && !hk_nir_fixed(b, n->in[NEURON_THETA]))
        return hk_nir_refuse(b, "its threshold is computed; NIR takes constants alone");
    *go_on = true;
    if (rule->soft) {
        b->soft = true;
        return hk_nir_approximate(
            b,
            "NIR's neurons reset hard; convert the network with a hard reset (hillock convert "
            "--reset hard), or ask for an approximate file (--approximate), whose rates are lower",
            "written with a hard reset, and from rest: rates will be lower", go_on);
    }
    if (!starts_at_rest(b, n, rule->rest))
        return hk_nir_approximate(b,
                                  "NIR's neurons start at rest; leave the initial potential out, or ask for an "
                                  "approximate file (--approximate)",
                                  "starts at rest", go_on);
    return HK_OK;
}

/* A parameter with an element per neuron. */
static bool add_parameter(hk_nir_builder *b, hk_nir_node *n, const char *name, double x)
{
    hk_tensor *t = hk_nir_floats(b, n->out.rank, n->out.dim);
    for (int64_t i = 0; t && i < hk_tensor_count(t); i++)
        hk_set_double(t, i, x);
    return hk_nir_add_tensor(n, name, t);
}

static bool add_threshold(hk_nir_builder *b, hk_nir_node *n, const hk_node *of)
{
    const hk_neuron_attrs *a = of->attrs;
    const hk_tensor *theta = hk_nir_fixed(b, hk_in(of, NEURON_THETA));
    hk_tensor *t = hk_nir_floats(b, n->out.rank, n->out.dim);
    int64_t inner = hk_shape_span(&n->out, HK_MIN(n->out.rank, 1), n->out.rank);
    for (int64_t i = 0; t && i < hk_tensor_count(t); i++) {
        int64_t channel = theta && hk_tensor_count(theta) > 1 ? i / inner : 0;
        double x = theta ? hk_get_double(theta, channel) : (double)a->v_threshold;
        hk_set_double(t, i, x - fmax(fabs(x), (double)FLT_MIN) * TIE_SHARE);
    }
    return hk_nir_add_tensor(n, "v_threshold", t);
}

/*
 * A step of dt by Euler's method, as readers take it: IF v += dt r I; LIF v += dt/tau ((v_leak - v) + r I), with r = 1.
 * So tau is ours times dt, and what our neuron takes as X is to come as I = X / dt (IF), X (LIF with decay_input) or
 * tau X (LIF without, ours in steps).
 */
hk_status hk_nir_neuron(hk_nir_builder *b, const hk_node *n, hk_nir_flow *flow)
{
    hk_neuron_rule rule = hk_neuron_rule_of(n->attrs, false);
    const hk_tensor *w = hk_nir_fixed(b, hk_in(n, NEURON_W));
    bool go_on = false, leaks = rule.kind != HK_NEURON_IF, fires = !integrates(b, n);
    hk_nir_node *made = NULL;
    if (fires)
        HK_TRY(check_neuron(b, n, &rule, &go_on));
    if (fires && !go_on)
        return HK_OK;
    double rate = w ? hk_neuron_rate(hk_get_double(w, 0), false) : rule.rate;
    double gain = !leaks ? 1 / b->params.dt : rule.decay_input ? 1 : 1 / rate;
    hk_tensor *by = hk_tensor_new(b->arena, HK_FLOAT64, &HK_SCALAR);
    if (!by)
        return no_memory(b);
    hk_set_double(by, 0, gain);
    if (gain < 1 || gain > 1)
        HK_TRY(hk_nir_scale(b, n->name, by, flow));
    const char *type = fires ? leaks ? "LIF" : "IF" : leaks ? "LI" : "I";
    HK_TRY(hk_nir_emit(b, n->name, type, &flow->shape, n->out[fires ? NEURON_S : NEURON_V], flow, &made));
    bool ok = add_parameter(b, made, "r", 1);
    if (fires)
        ok = ok && add_parameter(b, made, "v_reset", rule.rest) && add_threshold(b, made, n);
    else
        hk_nir_read_last(b, flow);
    if (leaks)
        ok = ok && add_parameter(b, made, "tau", b->params.dt / rate) && add_parameter(b, made, "v_leak", rule.rest);
    return ok ? HK_OK : no_memory(b);
}
