/*
 * hk.GemmNeuron, a matrix product whose result spiking neurons take, in one dispatch: what the hidden layers of a
 * network of products are in inference (runtime/fuse_neurons.c).
 *
 *     A (T N,K), B (K,F), bias (F), V0 (N,F), theta (F or 1) -> S (T N,F)
 *
 * Attributes are those of hk.Neuron, with steps T above 0, and of Gemm. It means what the two nodes do that it stands
 * for, which is how the host evaluates it, and where matrix units do not take both what the device runs.
 */
#include <stddef.h>

#include "ops/support/build.h"
#include "ops/support/gemm.h"
#include "ops/support/neuron_lower.h"
#include "ops/support/reduce.h"

typedef struct attrs {
    hk_neuron_attrs neuron; /* first: HK_NEURON_ATTRS */
    int64_t transB;
    float alpha, beta;
} attrs;

static const hk_attr attr_list[] = {
    HK_NEURON_ATTRS, HK_INT_ATTR(attrs, transB, 0), HK_FLOAT_ATTR(attrs, alpha, 1), HK_FLOAT_ATTR(attrs, beta, 1), {0}};

enum { IN_A, IN_B, IN_BIAS, IN_V0, IN_THETA, IN_COUNT };

static hk_status check_count(hk_infer *in, int32_t i, int64_t count, int64_t other)
{
    const hk_value *v = hk_in(in->node, i);
    hk_shape_text text;
    if (!v || hk_shape_count(&v->shape) == count || hk_shape_count(&v->shape) == other)
        return HK_OK;
    return hk_infer_fail(in, HK_STATUS_INVALID, "input '%s' has shape %s, expected %lld elements", v->name,
                         hk_shape_print(&v->shape, &text), (long long)count);
}

static hk_status infer(hk_infer *in)
{
    const hk_node *n = in->node;
    const attrs *a = n->attrs;
    const hk_value *x = n->in[IN_A], *w = n->in[IN_B];
    const char *wrong = hk_neuron_check(in->graph->arena, &a->neuron);
    hk_shape_text text_a, text_b;
    if (wrong || a->neuron.steps < 1 || hk_neuron_rule_of(&a->neuron, true).kind == HK_NEURON_PARAMETRIC_LIF)
        return hk_infer_fail(in, HK_STATUS_INVALID, "%s",
                             wrong ? wrong : "expected steps above 0 and a kind with a fixed tau");
    bool known = hk_shape_known(&x->shape) && hk_shape_known(&w->shape) && x->shape.rank == 2 && w->shape.rank == 2;
    if (!known || x->shape.dim[1] != w->shape.dim[a->transB != 0] || x->shape.dim[0] % a->neuron.steps)
        return hk_infer_fail(in, HK_STATUS_INVALID,
                             "expected matrices (T N,K) with T = %lld and (K,F), found '%s' %s and '%s' %s",
                             (long long)a->neuron.steps, x->name, hk_shape_print(&x->shape, &text_a), w->name,
                             hk_shape_print(&w->shape, &text_b));
    const hk_shape y = {.rank = 2, .dim = {x->shape.dim[0], w->shape.dim[a->transB == 0]}};
    HK_TRY(check_count(in, IN_BIAS, y.dim[1], y.dim[1]));
    HK_TRY(check_count(in, IN_V0, y.dim[0] / a->neuron.steps * y.dim[1], -1));
    HK_TRY(check_count(in, IN_THETA, y.dim[1], 1));
    return hk_infer_output(in, 0, x->dtype, &y);
}

static const hk_tensor *input(const hk_eval *e, int32_t i)
{
    return hk_in(e->node, i) ? e->in[i] : NULL;
}

static hk_tensor reshaped(const hk_tensor *t, int32_t rank, int64_t d0, int64_t d1, int64_t d2)
{
    hk_tensor r = *t;
    const int64_t dims[] = {d0, d1, d2};
    r.rank = rank;
    for (int32_t d = 0; d < rank; d++)
        r.shape[d] = dims[d];
    return r;
}

static hk_status eval(hk_eval *e)
{
    const attrs *a = e->node->attrs;
    const hk_attr_value gemm[] = {
        HK_SET_INT("transB", a->transB), HK_SET_FLOAT("alpha", a->alpha), HK_SET_FLOAT("beta", a->beta), {0}};
    hk_attr_value neuron[HK_NEURON_LIST + 1];
    hk_tensor *product[1] = {0}, *spikes[1] = {0}, *out;
    hk_neuron_list(&a->neuron, neuron);
    HK_TRY(hk_eval_part(e, "Gemm", gemm, (const hk_tensor *[]){e->in[IN_A], e->in[IN_B], input(e, IN_BIAS)}, 3, product,
                        1));
    int64_t steps = a->neuron.steps, rows = product[0]->shape[0], width = product[0]->shape[1];
    hk_tensor x = reshaped(product[0], 3, steps, rows / steps, width), v0, theta;
    const hk_tensor *in[] = {&x, input(e, IN_V0), NULL, input(e, IN_THETA)};
    if (in[1]) {
        v0 = reshaped(in[1], 2, rows / steps, width, 0);
        in[1] = &v0;
    }
    if (in[3]) {
        theta = reshaped(in[3], 1, hk_tensor_count(in[3]), 0, 0);
        in[3] = &theta;
    }
    HK_TRY(hk_eval_part(e, "hk.Neuron", neuron, in, 4, spikes, 1));
    out = hk_eval_output(e, 0, x.dtype, &(hk_shape){.rank = 2, .dim = {rows, width}});
    if (!out)
        return hk_out_of_memory(e->ctx, "a spiking layer");
    for (int64_t i = 0; i < rows * width; i++)
        hk_set_double(out, i, hk_get_double(spikes[0], i));
    return HK_OK;
}

static hk_status lower(hk_lower *l)
{
    const hk_node *n = l->node;
    const attrs *a = n->attrs;
    const hk_shape *x = &n->in[IN_A]->shape, *w = &n->in[IN_B]->shape;
    hk_value *theta = hk_in(n, IN_THETA), *s = n->out[0];
    int64_t width = w->dim[a->transB == 0], steps = a->neuron.steps;
    if (hk_shape_count(&s->shape) == 0)
        return HK_OK;
    for (int32_t i = IN_V0; i < n->in_count; i++)
        HK_TRY(hk_require_float32(l, n->in[i]));
    hk_neuron_job j = {.attrs = &a->neuron,
                       .steps = steps,
                       .neurons = x->dim[0] / steps * width,
                       .channels = width,
                       .inner = 1,
                       .thetas = theta ? hk_shape_count(&theta->shape) : 0,
                       .v0 = hk_in(n, IN_V0),
                       .theta = theta,
                       .s = s};
    hk_gemm p = {.a = n->in[IN_A],
                 .b = n->in[IN_B],
                 .c = s,
                 .bias = hk_in(n, IN_BIAS),
                 .m = x->dim[0],
                 .n = width,
                 .k = x->dim[1],
                 .lda = x->dim[1],
                 .ldb = w->dim[1],
                 .trans_b = a->transB != 0,
                 .bias_n = 1,
                 .alpha = a->alpha,
                 .beta = a->beta,
                 .neurons = &j};
    if (j.thetas == 1)
        j.channels = 1;
    if (hk_gemm_prefers_neurons(l, &p))
        return hk_gemm_lower(l, &p);
    p.neurons = NULL;
    p.c = j.x = hk_scratch(l, HK_FLOAT32, p.m * p.n);
    if (!p.c)
        return hk_out_of_memory(l->ctx, "a spiking layer");
    HK_TRY(hk_gemm_lower(l, &p));
    return hk_emit_neuron(l, &j);
}

static const char *const cases[] = {
    "f32[64,40] f32[40,36] ; steps=4 ; nograd",
    "f32[64,40] f32[36,40] f32[36] ; steps=8 transB=1 alpha=0.5 ; nograd",
    "f32[48,33] f32[33,64] f32[64] f32[3,64] f32[64]+ ; steps=16 kind=\"IF\" reset=\"soft\" ; nograd",
    "f32[66,64] f32[64,48] - - f32[1]+ ; steps=2 decay_input=1 v_reset=-0.25 ; nograd",
    "f32[15,7] f32[7,5] f32[5] ; steps=5 ; nograd",
    "f32[0,7] f32[7,5] f32[5] ; steps=5 ; nograd",
    NULL,
};

const hk_op hk_ops_gemm_neuron[] = {
    {.type = "hk.GemmNeuron",
     .since = 1,
     .in_min = 2,
     .in_max = IN_COUNT,
     .out_min = 1,
     .out_max = 1,
     .parameters = 6,
     .half_in = 1u << IN_A | 1u << IN_B,
     .half_out = 1,
     .spikes_out = 1,
     .attrs_bytes = sizeof(attrs),
     .attrs = attr_list,
     .infer = infer,
     .eval = eval,
     .lower = lower,
     .cases = cases},
    {0},
};
