/*
 * hk.BatchNormNeuron, BatchNormalization in training whose result spiking neurons take, and perhaps a 2x2 maximum
 * pooling of their spikes: what a convolutional spiking network is made of. Neither the normalized values nor the
 * spikes before pooling are stored; the backward pass makes both again from X, so that X is all that a layer keeps. Nor
 * is the neurons' gradient: it is made once for the sums that BatchNormalization's gradient needs, and once for X's.
 *
 *     X (T N,C,...), scale, bias, mean, variance (C), w -> S, new mean, new variance, saved mean, saved deviation,
 * affine
 *
 * S has X's shape, with pooling half of both image dimensions. w is ParametricLIF's parameter. affine is (C,4): mean,
 * slope, bias, 0 of each channel. Attributes are those of hk.Neuron, with steps T above 0, and of BatchNormalization.
 *
 * hk.BatchNormNeuronGrad: gS, X, deviation, affine, w -> gX, gscale, gbias, gw.
 *
 * It means what the nodes do that it stands for, which is how the host evaluates it.
 */
#include <stddef.h>
#include <string.h>

#include "ops/support/build.h"
#include "ops/support/neuron_lower.h"
#include "ops/support/reduce_channels.h"

typedef struct attrs {
    hk_neuron_attrs neuron; /* first: HK_NEURON_ATTRS */
    float epsilon, momentum;
    int64_t unbiased, pool;
} attrs;

static const hk_attr attr_list[] = {HK_NEURON_ATTRS,
                                    HK_FLOAT_ATTR(attrs, epsilon, 1e-5),
                                    HK_FLOAT_ATTR(attrs, momentum, 0.9),
                                    {.name = "hk.unbiased", .kind = HK_ATTR_INT, .offset = offsetof(attrs, unbiased)},
                                    HK_INT_ATTR(attrs, pool, 0),
                                    {0}};

enum { IN_X, IN_SCALE, IN_BIAS, IN_MEAN, IN_VARIANCE, IN_W, IN_COUNT };
enum { OUT_S, OUT_MEAN, OUT_VARIANCE, OUT_SAVED_MEAN, OUT_DEVIATION, OUT_AFFINE, OUT_COUNT };
enum { GRAD_GS, GRAD_X, GRAD_DEVIATION, GRAD_AFFINE, GRAD_W, GRAD_IN_COUNT };
enum { GRAD_GX, GRAD_GSCALE, GRAD_GBIAS, GRAD_GW, GRAD_OUT_COUNT };

/* ---- inference */

static hk_status check(hk_infer *in, const hk_value *x, int32_t first, int32_t count, const hk_value *w,
                       hk_shape *spikes)
{
    const attrs *a = in->node->attrs;
    const char *wrong = hk_neuron_check(in->graph->arena, &a->neuron);
    hk_shape_text text;
    if (wrong || a->neuron.steps < 1)
        return hk_infer_fail(in, HK_STATUS_INVALID, "%s", wrong ? wrong : "attribute 'steps' is below 1");
    if (!hk_shape_known(&x->shape) || x->shape.rank < 2 || x->shape.rank >= HK_MAX_RANK ||
        x->shape.dim[0] % a->neuron.steps)
        return hk_infer_fail(in, HK_STATUS_INVALID, "'%s' has shape %s, expected (T N,C,...) with T = %lld", x->name,
                             hk_shape_print(&x->shape, &text), (long long)a->neuron.steps);
    bool parametric = hk_neuron_rule_of(&a->neuron, true).kind == HK_NEURON_PARAMETRIC_LIF;
    if (parametric != (w != NULL) || (w && hk_shape_count(&w->shape) != 1))
        return hk_infer_fail(in, HK_STATUS_INVALID, "kind \"%s\" and its parameter w do not fit", a->neuron.kind);
    for (int32_t i = first; i < first + count; i++)
        if (hk_shape_count(&in->node->in[i]->shape) != x->shape.dim[1])
            return hk_infer_fail(in, HK_STATUS_INVALID, "'%s' has shape %s, expected %lld channels",
                                 in->node->in[i]->name, hk_shape_print(&in->node->in[i]->shape, &text),
                                 (long long)x->shape.dim[1]);
    *spikes = x->shape;
    if (!a->pool)
        return HK_OK;
    if (x->shape.rank != 4 || x->shape.dim[2] % 2 || x->shape.dim[3] % 2)
        return hk_infer_fail(in, HK_STATUS_INVALID, "'%s' has shape %s, expected even height and width", x->name,
                             hk_shape_print(&x->shape, &text));
    spikes->dim[2] /= 2;
    spikes->dim[3] /= 2;
    return HK_OK;
}

static hk_status infer(hk_infer *in)
{
    const hk_node *n = in->node;
    const hk_value *x = n->in[IN_X];
    hk_shape spikes;
    HK_TRY(check(in, x, IN_SCALE, 4, hk_in(n, IN_W), &spikes));
    const hk_shape channels = {.rank = 1, .dim = {x->shape.dim[1]}}, affine = {.rank = 2, .dim = {x->shape.dim[1], 4}};
    HK_TRY(hk_infer_output(in, OUT_S, x->dtype, &spikes));
    for (int32_t i = OUT_MEAN; i < OUT_AFFINE; i++)
        HK_TRY(hk_infer_output(in, i, x->dtype, &channels));
    return hk_infer_output(in, OUT_AFFINE, x->dtype, &affine);
}

static hk_status infer_grad(hk_infer *in)
{
    const hk_node *n = in->node;
    const hk_value *x = n->in[GRAD_X], *w = hk_in(n, GRAD_W);
    hk_shape spikes;
    HK_TRY(check(in, x, GRAD_DEVIATION, 1, w, &spikes));
    hk_shape_text a, b;
    if (!hk_shape_equal(&n->in[GRAD_GS]->shape, &spikes))
        return hk_infer_fail(in, HK_STATUS_INVALID, "gradient '%s' has shape %s, expected %s", n->in[GRAD_GS]->name,
                             hk_shape_print(&n->in[GRAD_GS]->shape, &a), hk_shape_print(&spikes, &b));
    HK_TRY(hk_infer_output(in, GRAD_GX, x->dtype, &x->shape));
    if (hk_shape_count(&n->in[GRAD_AFFINE]->shape) != 4 * x->shape.dim[1])
        return hk_infer_fail(in, HK_STATUS_INVALID, "'%s' has shape %s, expected (%lld,4)", n->in[GRAD_AFFINE]->name,
                             hk_shape_print(&n->in[GRAD_AFFINE]->shape, &a), (long long)x->shape.dim[1]);
    HK_TRY(hk_infer_output(in, GRAD_GSCALE, x->dtype, &n->in[GRAD_DEVIATION]->shape));
    HK_TRY(hk_infer_output(in, GRAD_GBIAS, x->dtype, &n->in[GRAD_DEVIATION]->shape));
    return w ? hk_infer_output(in, GRAD_GW, x->dtype, &w->shape) : HK_OK;
}

/* ---- evaluation, by the operators it stands for */

static const int64_t two[] = {2, 2};
static const hk_attr_value pool_list[] = {HK_SET_INTS("kernel_shape", two, 2), HK_SET_INTS("strides", two, 2), {0}};

/* (T N,...) and (T,N,...) */
static hk_tensor split(const hk_tensor *t, int64_t steps)
{
    hk_tensor s = *t;
    s.rank = t->rank + 1;
    s.shape[0] = steps;
    s.shape[1] = t->shape[0] / steps;
    for (int32_t d = 1; d < t->rank; d++)
        s.shape[d + 1] = t->shape[d];
    return s;
}

static hk_tensor join(const hk_tensor *t)
{
    hk_tensor j = *t;
    j.rank = t->rank - 1;
    j.shape[0] = t->shape[0] * t->shape[1];
    for (int32_t d = 2; d < t->rank; d++)
        j.shape[d - 1] = t->shape[d];
    return j;
}

/* Result i becomes what was computed, in its own shape. */
static hk_status deliver(hk_eval *e, int32_t i, const hk_tensor *t)
{
    if (!hk_out(e->node, i) || !t)
        return HK_OK;
    hk_tensor *out = hk_eval_output(e, i, t->dtype, &hk_out(e->node, i)->shape);
    if (!out)
        return hk_out_of_memory(e->ctx, "a spiking layer");
    memcpy(out->data, t->data, (size_t)hk_tensor_bytes(out));
    return HK_OK;
}

static hk_status eval(hk_eval *e)
{
    const attrs *a = e->node->attrs;
    const hk_attr_value norm[] = {HK_SET_FLOAT("epsilon", a->epsilon),
                                  HK_SET_FLOAT("momentum", a->momentum),
                                  HK_SET_INT("training_mode", 1),
                                  HK_SET_INT("hk.unbiased", a->unbiased),
                                  {0}};
    hk_attr_value neuron[HK_NEURON_LIST + 1];
    hk_tensor *out[5] = {0}, *spikes[1] = {0}, *pooled[1] = {0};
    hk_neuron_list(&a->neuron, neuron);
    HK_TRY(hk_eval_part(e, "BatchNormalization", norm, e->in, 5, out, 5));
    hk_tensor z = split(out[0], a->neuron.steps), s;
    const hk_tensor *in[] = {&z, NULL, hk_in(e->node, IN_W) ? e->in[IN_W] : NULL};
    HK_TRY(hk_eval_part(e, "hk.Neuron", neuron, in, 3, spikes, 1));
    s = join(spikes[0]);
    if (a->pool)
        HK_TRY(hk_eval_part(e, "MaxPool", pool_list, (const hk_tensor *[]){&s}, 1, pooled, 1));
    HK_TRY(deliver(e, OUT_S, a->pool ? pooled[0] : &s));
    for (int32_t i = OUT_MEAN; i <= OUT_DEVIATION; i++)
        HK_TRY(deliver(e, i, out[i]));
    hk_shape shape = {.rank = 2, .dim = {hk_tensor_count(e->in[IN_SCALE]), 4}};
    hk_tensor *affine = hk_out(e->node, OUT_AFFINE) ? hk_eval_output(e, OUT_AFFINE, z.dtype, &shape) : NULL;
    for (int64_t c = 0; affine && c < shape.dim[0]; c++) {
        hk_set_double(affine, 4 * c, hk_get_double(out[3], c));
        hk_set_double(affine, 4 * c + 1, hk_get_double(out[4], c) * hk_get_double(e->in[IN_SCALE], c));
        hk_set_double(affine, 4 * c + 2, hk_get_double(e->in[IN_BIAS], c));
    }
    return affine || !hk_out(e->node, OUT_AFFINE) ? HK_OK : hk_out_of_memory(e->ctx, "a spiking layer");
}

/* z = (x - mean) slope + bias, and the spikes of it. */
static hk_status eval_again(hk_eval *e, hk_tensor *z, hk_tensor **spikes, const hk_attr_value *neuron)
{
    const attrs *a = e->node->attrs;
    const hk_tensor *x = e->in[GRAD_X], *affine = e->in[GRAD_AFFINE];
    hk_shape shape = hk_tensor_shape(x);
    hk_tensor *y = hk_tensor_new(e->arena, x->dtype, &shape);
    if (!y)
        return hk_out_of_memory(e->ctx, "a spiking layer");
    int64_t inner = hk_shape_span(&shape, 2, shape.rank);
    bool single = x->dtype == HK_FLOAT32;
    for (int64_t i = 0; i < hk_tensor_count(x); i++) {
        int64_t c = i / inner % shape.dim[1];
        double centered = hk_get_double(x, i) - hk_get_double(affine, 4 * c);
        double scaled = (single ? (double)(float)centered : centered) * hk_get_double(affine, 4 * c + 1);
        hk_set_double(y, i, (single ? (double)(float)scaled : scaled) + hk_get_double(affine, 4 * c + 2));
    }
    *z = split(y, a->neuron.steps);
    const hk_tensor *in[] = {z, NULL, hk_in(e->node, GRAD_W) ? e->in[GRAD_W] : NULL};
    return hk_eval_part(e, "hk.Neuron", neuron, in, 3, spikes, 1);
}

/* Mean and scale of each channel, as affine has them. */
static hk_status channel_parameters(hk_eval *e, hk_tensor **mean, hk_tensor **scale)
{
    const hk_tensor *affine = e->in[GRAD_AFFINE], *deviation = e->in[GRAD_DEVIATION];
    const hk_shape shape = hk_tensor_shape(deviation);
    *mean = hk_tensor_new(e->arena, affine->dtype, &shape);
    *scale = hk_tensor_new(e->arena, affine->dtype, &shape);
    if (!*mean || !*scale)
        return hk_out_of_memory(e->ctx, "a spiking layer");
    for (int64_t c = 0; c < hk_tensor_count(deviation); c++) {
        hk_set_double(*mean, c, hk_get_double(affine, 4 * c));
        hk_set_double(*scale, c, hk_get_double(affine, 4 * c + 1) / hk_get_double(deviation, c));
    }
    return HK_OK;
}

static hk_status eval_grad(hk_eval *e)
{
    const attrs *a = e->node->attrs;
    const hk_tensor *w = hk_in(e->node, GRAD_W) ? e->in[GRAD_W] : NULL;
    hk_attr_value neuron[HK_NEURON_LIST + 1];
    hk_tensor *spikes[1] = {0}, *pooled[2] = {0}, *gs[1] = {0}, *gz[3] = {0}, *out[3] = {0}, z, s, g = *e->in[GRAD_GS];
    hk_neuron_list(&a->neuron, neuron);
    HK_TRY(eval_again(e, &z, spikes, neuron));
    s = join(spikes[0]);
    if (a->pool) {
        const hk_attr_value list[] = {HK_SET_INTS("input_shape", s.shape + 2, 2),
                                      HK_SET_INTS("kernel_shape", two, 2),
                                      HK_SET_INTS("strides", two, 2),
                                      {0}};
        HK_TRY(hk_eval_part(e, "MaxPool", pool_list, (const hk_tensor *[]){&s}, 1, pooled, 2));
        HK_TRY(hk_eval_part(e, "hk.MaxPoolGrad", list, (const hk_tensor *[]){&g, pooled[1]}, 2, gs, 1));
        g = *gs[0];
    }
    g = split(&g, a->neuron.steps);
    HK_TRY(hk_eval_part(e, "hk.NeuronGrad", neuron, (const hk_tensor *[]){&z, NULL, w, NULL, &g}, 5, gz, w ? 3 : 1));
    hk_tensor dz = join(gz[0]), *mean, *scale;
    HK_TRY(channel_parameters(e, &mean, &scale));
    const hk_attr_value norm[] = {HK_SET_FLOAT("epsilon", a->epsilon), {0}};
    const hk_tensor *in[] = {&dz, e->in[GRAD_X], scale, mean, e->in[GRAD_DEVIATION]};
    HK_TRY(hk_eval_part(e, "hk.BatchNormGrad", norm, in, 5, out, 3));
    for (int32_t i = GRAD_GX; i <= GRAD_GBIAS; i++)
        HK_TRY(deliver(e, i, out[i]));
    return deliver(e, GRAD_GW, gz[2]);
}

/* ---- lowering */

static hk_channels channels_of(const attrs *a, const hk_shape *x)
{
    return (hk_channels){.samples = x->dim[0],
                         .channels = x->dim[1],
                         .extent = hk_shape_span(x, 2, x->rank),
                         .group = 1,
                         .param_divide = 1,
                         .param_count = x->dim[1],
                         .epsilon = (double)a->epsilon};
}

static hk_neuron_job job_of(const attrs *a, const hk_shape *x)
{
    return (hk_neuron_job){.attrs = &a->neuron,
                           .steps = a->neuron.steps,
                           .neurons = hk_shape_count(x) / a->neuron.steps,
                           .channels = x->dim[1],
                           .inner = hk_shape_span(x, 2, x->rank),
                           .pool_width = a->pool ? x->dim[3] : 0};
}

static hk_status lower(hk_lower *l)
{
    const hk_node *n = l->node;
    const attrs *a = n->attrs;
    const hk_channels c = channels_of(a, &n->in[IN_X]->shape);
    hk_neuron_job j = job_of(a, &n->in[IN_X]->shape);
    for (int32_t i = 0; i < n->in_count; i++)
        HK_TRY(hk_require_float32(l, n->in[i]));
    j.x = n->in[IN_X];
    j.w = hk_in(n, IN_W);
    j.s = hk_out(n, OUT_S);
    j.norm = hk_out(n, OUT_AFFINE);
    if (!j.norm && !(j.norm = hk_scratch(l, HK_FLOAT32, 4 * c.channels)))
        return hk_out_of_memory(l->ctx, "a spiking layer");
    const hk_channel_norm norm = {.x = n->in[IN_X],
                                  .scale = n->in[IN_SCALE],
                                  .bias = n->in[IN_BIAS],
                                  .mean = n->in[IN_MEAN],
                                  .variance = n->in[IN_VARIANCE],
                                  .mean_out = hk_out(n, OUT_MEAN),
                                  .variance_out = hk_out(n, OUT_VARIANCE),
                                  .saved_mean = hk_out(n, OUT_SAVED_MEAN),
                                  .saved_deviation = hk_out(n, OUT_DEVIATION),
                                  .affine = j.norm,
                                  .training = true,
                                  .unbiased = a->unbiased != 0,
                                  .momentum = (double)a->momentum};
    HK_TRY(hk_emit_channel_norm(l, &c, &norm));
    return hk_emit_neuron(l, &j);
}

static hk_status lower_grad(hk_lower *l)
{
    const hk_node *n = l->node;
    const attrs *a = n->attrs;
    hk_neuron_norm_job j = {.neurons = job_of(a, &n->in[GRAD_X]->shape),
                            .deviation = n->in[GRAD_DEVIATION],
                            .gscale = hk_out(n, GRAD_GSCALE),
                            .gbias = hk_out(n, GRAD_GBIAS)};
    for (int32_t i = 0; i < n->in_count; i++)
        HK_TRY(hk_require_float32(l, n->in[i]));
    j.neurons.x = n->in[GRAD_X];
    j.neurons.norm = n->in[GRAD_AFFINE];
    j.neurons.w = hk_in(n, GRAD_W);
    j.neurons.gs = n->in[GRAD_GS];
    j.neurons.gw = hk_out(n, GRAD_GW);
    j.neurons.gx = hk_out(n, GRAD_GX);
    return hk_emit_neuron_norm_grad(l, &j);
}

/* ---- differentiation */

static hk_status backward(hk_gradient *g, hk_node *n)
{
    hk_graph *graph = hk_gradient_graph(g);
    const attrs *a = n->attrs;
    hk_value *gs = hk_gradient_of(g, n->out[OUT_S]), *w = hk_in(n, IN_W), *out[GRAD_OUT_COUNT] = {0};
    hk_attr_value list[HK_NEURON_LIST + 3];
    if (!gs)
        return HK_OK; /* running statistics carry no gradient */
    if (!hk_node_want_outputs(n, OUT_COUNT))
        return HK_STATUS_OUT_OF_MEMORY;
    HK_TRY(hk_node_infer(graph, n));
    size_t count = hk_neuron_list(&a->neuron, list);
    list[count++] = (hk_attr_value)HK_SET_FLOAT("epsilon", a->epsilon);
    list[count++] = (hk_attr_value)HK_SET_INT("pool", a->pool);
    list[count] = (hk_attr_value){0};
    hk_value *in[] = {gs, n->in[IN_X], n->out[OUT_DEVIATION], n->out[OUT_AFFINE], w};
    HK_TRY(hk_build(graph, "hk.BatchNormNeuronGrad", list, in, GRAD_IN_COUNT, out,
                    w ? GRAD_OUT_COUNT : GRAD_OUT_COUNT - 1));
    HK_TRY(hk_gradient_add(g, n->in[IN_X], out[GRAD_GX]));
    HK_TRY(hk_gradient_add(g, n->in[IN_SCALE], out[GRAD_GSCALE]));
    HK_TRY(hk_gradient_add(g, n->in[IN_BIAS], out[GRAD_GBIAS]));
    return w ? hk_gradient_add(g, w, out[GRAD_GW]) : HK_OK;
}

/* ---- the table */

#define P(c) " f32[" #c "] f32[" #c "] f32[" #c "] f32[" #c "]+" /* scale, bias, mean, variance */
static const char *const cases[] = {
    "f32[8,3,4,6]" P(3) ";steps=4;out=6 nograd",
    "f32[8,3,4,6]" P(3) ";steps=4 pool=1;out=6 nograd",
    "f32[8,3,4,6]" P(3) " f32[1];steps=2 kind=\"ParametricLIF\" decay_input=1 pool=1 hk.unbiased=1;out=3 nograd",
    "f32[12,5,7]" P(5) ";steps=3 kind=\"IF\" reset=\"soft\";out=3 nograd",
    "f32[40,6]" P(6) ";steps=10;nograd",
    "f32[32,16,12,20]" P(16) ";steps=4 pool=1;out=6 nograd",
    "f32[33,2,2,2]" P(2) ";steps=33 pool=1;nograd",
    "f32[16,16,60,60]" P(16) ";steps=4;nograd",
    NULL,
};
#define G(c) " f32[" #c "]+ f32[" #c ",4]+" /* deviation, affine */
static const char *const grad_cases[] = {
    "f32[8,3,4,6] f32[8,3,4,6]" G(3) ";steps=4;out=3 nograd",
    "f32[8,3,2,3] f32[8,3,4,6]" G(3) ";steps=4 pool=1;out=3 nograd",
    "f32[8,3,2,3] f32[8,3,4,6]" G(3) " f32[1];steps=2 kind=\"ParametricLIF\" decay_input=1 pool=1;out=4 nograd",
    "f32[12,5,7] f32[12,5,7]" G(5) ";steps=3 kind=\"IF\" reset=\"soft\" surrogate=\"Sigmoid\";out=3 nograd",
    "f32[40,6] f32[40,6]" G(6) ";steps=10 detach_reset=1;out=3 nograd",
    "f32[32,16,6,10] f32[32,16,12,20]" G(16) ";steps=4 pool=1;out=3 nograd",
    "f32[66,2,1,2] f32[66,2,2,4]" G(2) ";steps=33 pool=1;out=3 nograd",
    "f32[4,16,48,48] f32[4,16,48,48]" G(16) ";steps=2;out=3 nograd",
    NULL,
};

const hk_op hk_ops_batchnorm_neuron[] = {
    {.type = "hk.BatchNormNeuron",
     .since = 1,
     .in_min = 5,
     .in_max = IN_COUNT,
     .out_min = 1,
     .out_max = OUT_COUNT,
     .parameters = 6 | 1u << IN_W,
     .half_out = 1u << OUT_S,
     .spikes_out = 1u << OUT_S,
     .attrs_bytes = sizeof(attrs),
     .attrs = attr_list,
     .infer = infer,
     .eval = eval,
     .lower = lower,
     .backward = backward,
     .cases = cases},
    {.type = "hk.BatchNormNeuronGrad",
     .since = 1,
     .in_min = GRAD_W,
     .in_max = GRAD_IN_COUNT,
     .out_min = 1,
     .out_max = GRAD_OUT_COUNT,
     .attrs_bytes = sizeof(attrs),
     .attrs = attr_list,
     .infer = infer_grad,
     .eval = eval_grad,
     .lower = lower_grad,
     .cases = grad_cases},
    {0},
};
