/* What each node of a network is to a spiking one. */
#include <math.h>
#include <string.h>

#include "ops/op.h"
#include "snn/convert.h"

bool hk_snn_is_linear(const char *type)
{
    static const char *const types[] = {"Conv",
                                        "ConvTranspose",
                                        "Gemm",
                                        "MatMul",
                                        "BatchNormalization",
                                        "Add",
                                        "Sub",
                                        "Mul",
                                        "Div",
                                        "Neg",
                                        "Sum",
                                        "Mean",
                                        "Concat",
                                        "AveragePool",
                                        "Identity",
                                        "ReduceMean",
                                        "GlobalAveragePool",
                                        "ReduceSum",
                                        "Flatten",
                                        "Reshape",
                                        "Squeeze",
                                        "Unsqueeze",
                                        "Dropout",
                                        "Transpose",
                                        "Pad",
                                        "Slice",
                                        "Split",
                                        "DepthToSpace",
                                        "SpaceToDepth",
                                        "Resize",
                                        "Upsample",
                                        "Cast"};
    for (size_t i = 0; i < HK_COUNT(types); i++)
        if (!strcmp(types[i], type))
            return true;
    return false;
}

bool hk_snn_is_activation(const hk_node *n)
{
    return !strcmp(n->type, "Relu") || !strcmp(n->type, "Clip") || !strcmp(n->type, "hk.QCFS");
}

static bool is_timed(const hk_snn_plan *p, const hk_value *v)
{
    return v && v->graph == p->graph && v->id < p->value_count && p->timed[v->id];
}

static int timed_inputs(const hk_snn_plan *p, const hk_node *n)
{
    int count = 0;
    for (int32_t i = 0; i < n->in_count; i++)
        count += is_timed(p, n->in[i]);
    return count;
}

/* Contents of input i that do not depend on the network's inputs. */
static const hk_tensor *fixed(const hk_snn_plan *p, const hk_node *n, int32_t i)
{
    const hk_value *v = hk_in(n, i);
    return !v ? NULL : v->data ? v->data : v->graph == p->graph ? p->known[v->id] : NULL;
}

static hk_status refuse(hk_snn_plan *p, hk_snn_node *d, const char *reason)
{
    if (!reason)
        return hk_out_of_memory(p->graph->ctx, "a conversion");
    d->verdict = HK_SNN_UNSUPPORTED;
    d->reason = reason;
    return HK_OK;
}

/* ---- activations */

static bool ends_with(const char *s, const char *end)
{
    size_t a = strlen(s), b = strlen(end);
    return a >= b && !strcmp(s + a - b, end);
}

/* The extent of axis 1 where it is that of channels: an image's, a vector's, and what a convolution makes of a signal.
 */
static int64_t channels_of(const hk_node *n, const hk_shape *y)
{
    const hk_node *before = n->in[0]->producer;
    bool channels = y->rank == 2 || y->rank >= 4 ||
                    (y->rank == 3 && before &&
                     (!strcmp(before->type, "Conv") || !strcmp(before->type, "BatchNormalization")));
    return channels ? y->dim[1] : 1;
}

/* A Clip from 0 to a constant above 0; *ceiling receives that. */
static bool clips_as_relu(const hk_snn_plan *p, const hk_node *n, double *ceiling)
{
    const hk_tensor *low = fixed(p, n, 1), *high = fixed(p, n, 2);
    if (!low || hk_get_double(low, 0) < 0 || hk_get_double(low, 0) > 0 || (hk_in(n, 2) && !high) ||
        (high && !(hk_get_double(high, 0) > 0)))
        return false;
    *ceiling = high ? hk_get_double(high, 0) : INFINITY;
    return true;
}

/* Trained thresholds: one, or one per channel; all of them above 0. */
static bool are_thresholds(const hk_tensor *t, int64_t channels)
{
    int64_t count = t ? hk_tensor_count(t) : 0;
    bool fit = count == 1 || (count > 0 && count == channels);
    for (int64_t i = 0; i < count && fit; i++)
        fit = isfinite(hk_get_double(t, i)) && hk_get_double(t, i) > 0;
    return fit;
}

static hk_status judge_activation(hk_snn_plan *p, hk_node *n, hk_snn_node *d)
{
    const hk_shape *y = &p->shapes[n->out[0]->id];
    bool qcfs = !strcmp(n->type, "hk.QCFS");
    double ceiling = INFINITY;
    if (!strcmp(n->type, "Clip") && !clips_as_relu(p, n, &ceiling))
        return refuse(p, d,
                      "a Clip becomes neurons if it clips from 0 to a constant above 0 (ReLU6); use such a one, or "
                      "ReLU, and train again");
    if (n->out[0]->dtype != HK_FLOAT32)
        return refuse(p, d, "neurons take float32; export the model in float32");
    if (!hk_shape_known(y) || y->rank < 2 || y->rank >= HK_MAX_RANK || y->dim[0] != p->batch || hk_shape_count(y) <= 0)
        return refuse(p, d,
                      "its shape is not known, or has no batch in front; export the model with all dimensions but the "
                      "first fixed");
    int64_t channels = channels_of(n, y);
    const hk_value *theta = qcfs ? n->in[1] : NULL;
    if (qcfs && !are_thresholds(theta->data, theta->data && hk_tensor_count(theta->data) > 1 ? y->dim[1] : channels))
        return refuse(p, d,
                      "its thresholds are not constants above 0, one or one per channel; train again at a smaller "
                      "learning rate");
    if (qcfs && hk_tensor_count(theta->data) > 1)
        channels = y->dim[1];
    hk_snn_site *s = &p->sites[p->site_count++];
    *s = (hk_snn_site){.node = n,
                       .x = n->in[0],
                       .y = n->out[0],
                       .channels = channels,
                       .inner = hk_shape_count(y) / (p->batch * channels),
                       .ceiling = ceiling,
                       .given = qcfs ? theta->data : NULL,
                       .may_be_dead = ends_with(n->name, HK_SNN_MINUS) || ends_with(n->name, HK_SNN_PLUS)};
    p->timed[n->out[0]->id] = true;
    d->verdict = HK_SNN_NEURON;
    d->reason = qcfs ? "becomes neurons with the thresholds that were trained" : "becomes neurons";
    return HK_OK;
}

/* ---- what lies between */

static bool keeps_batch(const hk_snn_plan *p, const hk_node *n)
{
    for (int32_t i = 0; i < n->out_count; i++) {
        const hk_shape *y = n->out[i] ? &p->shapes[n->out[i]->id] : NULL;
        if (y && (!hk_shape_known(y) || y->rank < 1 || y->dim[0] != p->batch))
            return false;
    }
    for (int32_t i = 0; i < n->in_count; i++) {
        const hk_shape *x = is_timed(p, n->in[i]) ? &p->shapes[n->in[i]->id] : NULL;
        if (x && (!hk_shape_known(x) || x->rank < 1 || x->dim[0] != p->batch))
            return false;
    }
    return true;
}

static bool is_product(const char *type)
{
    return !strcmp(type, "Mul") || !strcmp(type, "MatMul") || !strcmp(type, "Gemm") || !strcmp(type, "Conv") ||
           !strcmp(type, "ConvTranspose");
}

/* Any function of samples, on the means of what came so far. */
static hk_status judge_functional(hk_snn_plan *p, const hk_node *n, hk_snn_node *d)
{
    bool fits = keeps_batch(p, n) && n->body_count == 0;
    for (int32_t i = 0; i < n->out_count; i++)
        fits = fits && (!n->out[i] || n->out[i]->dtype == HK_FLOAT32 || n->out[i]->dtype == HK_DTYPE_NONE);
    if (!fits)
        return refuse(p, d,
                      "it mixes samples, has no float32 outputs, or its shape is not known; keep the batch as first "
                      "dimension and fix all others");
    for (int32_t i = 0; i < n->out_count; i++)
        if (n->out[i])
            p->timed[n->out[i]->id] = true;
    d->verdict = HK_SNN_EXACT;
    d->reason = "functional, not spike-only: the temporal difference of its values at running means";
    d->spike_only = false;
    return HK_OK;
}

static hk_status judge_linear(hk_snn_plan *p, const hk_node *n, hk_snn_node *d)
{
    if (!keeps_batch(p, n))
        return refuse(p, d,
                      "it mixes samples or its shape is not known, so that time cannot be folded into the batch; "
                      "keep the batch as first dimension and fix all others");
    bool product = is_product(n->type) && timed_inputs(p, n) > 1;
    bool divides = !strcmp(n->type, "Div") && is_timed(p, n->in[1]);
    if ((product || divides) && p->choice.functional)
        return judge_functional(p, n, d);
    if (product)
        return refuse(p, d,
                      "a product of two spiking values has no spiking counterpart; one operand must come from "
                      "before the first activation or be constant, or allow functional operators (--functional)");
    const int64_t *training = hk_node_attr(n, "training_mode");
    if (training && *training)
        return refuse(p, d, "it is in training mode; export the model in evaluation mode");
    if (divides)
        return refuse(p, d,
                      "division by a spiking value has no spiking counterpart; allow functional operators "
                      "(--functional)");
    for (int32_t i = 0; i < n->out_count; i++)
        if (n->out[i])
            p->timed[n->out[i]->id] = true;
    d->verdict = HK_SNN_PASSES;
    d->reason = "is linear: works on each step";
    return HK_OK;
}

/* AveragePool has no dilations before opset 19. */
static bool can_average(const hk_snn_plan *p, const hk_node *n)
{
    const hk_ints *dilations = hk_node_attr(n, "dilations");
    for (int32_t i = 0; dilations && dilations->v && i < dilations->count; i++)
        if (dilations->v[i] != 1 && p->opset < 19)
            return false;
    return n->out_count == 1;
}

static hk_status judge_max_pool(hk_snn_plan *p, const hk_node *n, bool average, hk_snn_node *d)
{
    if (!keeps_batch(p, n) || n->out_count > 1)
        return refuse(p, d, "its shape is not known or its indices are used; fix all dimensions but the first");
    if (average && !can_average(p, n))
        return refuse(p, d, "AveragePool has no dilations before opset 19; export the model with a newer one");
    p->timed[n->out[0]->id] = true;
    d->verdict = average ? HK_SNN_APPROXIMATE : HK_SNN_EXACT;
    d->reason = average ? "becomes AveragePool: train the network with it for accuracy"
                        : "becomes the difference of maxima of sums over time: exact, but not spike-only";
    d->spike_only = average;
    return HK_OK;
}

/* An operator that is neither: of the mean over time, if no neurons follow. */
static hk_status judge_other(hk_snn_plan *p, const hk_node *n, hk_snn_node *d)
{
    bool follows = n->body_count > 0;
    for (int32_t i = 0; i < n->out_count; i++)
        follows = follows || (n->out[i] && p->downstream[n->out[i]->id]);
    if (follows && p->choice.functional)
        return judge_functional(p, n, d);
    if (follows)
        return refuse(p, d,
                      "it is not linear and has no spiking counterpart here; train the network with ReLU or ReLU6 "
                      "in its place, or allow functional operators (--functional), which are not spike-only");
    d->verdict = HK_SNN_READOUT;
    d->reason = "is computed once, of the mean over time";
    return HK_OK;
}

static hk_status judge(hk_snn_plan *p, hk_node *n, hk_snn_node *d)
{
    bool average = p->choice.average_pool;
    *d = (hk_snn_node){.node = n->name, .op = n->type, .verdict = HK_SNN_PASSES, .spike_only = true};
    d->reason = "comes before the first neurons: computed once";
    bool known = n->out_count > 0;
    for (int32_t i = 0; i < n->out_count; i++)
        known = known && (!n->out[i] || p->known[n->out[i]->id]);
    if (known) {
        d->reason = "is known beforehand";
        return HK_OK;
    }
    if (hk_snn_is_activation(n) && n->op)
        return judge_activation(p, n, d);
    if (!timed_inputs(p, n)) {
        if (!strcmp(n->type, "MaxPool") && average && can_average(p, n)) {
            d->verdict = HK_SNN_APPROXIMATE;
            d->reason = "becomes AveragePool: train the network with it for accuracy";
        }
        return HK_OK;
    }
    if (!strcmp(n->type, "MaxPool") || !strcmp(n->type, "GlobalMaxPool"))
        return judge_max_pool(p, n, average && !strcmp(n->type, "MaxPool"), d);
    return hk_snn_is_linear(n->type) ? judge_linear(p, n, d) : judge_other(p, n, d);
}

/* From the end: what has an activation behind it. */
static void find_downstream(hk_snn_plan *p)
{
    const hk_graph *g = p->graph;
    for (size_t k = g->node_count; k-- > 0;) {
        const hk_node *n = g->nodes[k];
        bool found = hk_snn_is_activation(n);
        for (int32_t i = 0; i < n->out_count; i++)
            found = found || (n->out[i] && p->downstream[n->out[i]->id]);
        for (int32_t i = 0; found && i < n->in_count; i++)
            if (n->in[i] && n->in[i]->graph == g)
                p->downstream[n->in[i]->id] = true;
    }
}

static hk_status check_inputs(hk_snn_plan *p)
{
    const hk_graph *g = p->graph;
    hk_shape_text text;
    if (p->opset < 13)
        return hk_fail(g->ctx, HK_STATUS_UNSUPPORTED,
                       "the model is of opset %d, a conversion needs 13 or newer: export it again", (int)p->opset);
    for (size_t i = 0; i < g->input_count; i++) {
        const hk_shape *s = &g->inputs[i]->shape;
        bool fits = s->rank >= 1;
        for (int32_t d = 1; d < s->rank; d++)
            fits = fits && s->dim[d] >= 0;
        if (!fits)
            return hk_fail(g->ctx, HK_STATUS_UNSUPPORTED,
                           "input '%s' has shape %s; a conversion needs every dimension but the first fixed: export it "
                           "so",
                           g->inputs[i]->name, hk_shape_print(s, &text));
    }
    return HK_OK;
}

hk_status hk_snn_plan_make(hk_graph *g, hk_snn_choice choice, hk_snn_plan *out)
{
    hk_snn_plan p = {.graph = g, .arena = g->arena, .opset = hk_snn_opset(g), .choice = choice};
    HK_TRY(check_inputs(&p));
    HK_TRY(hk_graph_sort(g));
    HK_TRY(hk_snn_bind(g, &p.batch, &p.shapes, &p.known));
    p.value_count = g->value_count;
    p.node_count = g->node_count;
    p.timed = hk_arena_array(p.arena, g->value_count + 1, sizeof *p.timed);
    p.downstream = hk_arena_array(p.arena, g->value_count + 1, sizeof *p.downstream);
    p.nodes = hk_arena_array(p.arena, g->node_count + 1, sizeof *p.nodes);
    p.sites = hk_arena_array(p.arena, g->node_count + 1, sizeof *p.sites);
    p.of = hk_arena_array(p.arena, g->node_count + 1, sizeof(hk_node *));
    if (!p.timed || !p.downstream || !p.nodes || !p.sites || !p.of)
        return hk_out_of_memory(g->ctx, "a conversion");
    find_downstream(&p);
    for (size_t i = 0; i < g->node_count; i++) {
        p.of[i] = g->nodes[i];
        HK_TRY(judge(&p, g->nodes[i], &p.nodes[i]));
    }
    for (size_t i = 0; i < g->node_count && !p.site_count; i++)
        if (hk_snn_bends(p.of[i])) {
            p.nodes[i].verdict = HK_SNN_UNSUPPORTED;
            p.nodes[i].reason = "no neuron counts what it says, and the model has no Relu or Clip that could become "
                                "neurons; put ReLU in its place and train again, or convert with --functional, which "
                                "puts neurons in front of layers of weights";
        }
    *out = p;
    return HK_OK;
}

bool hk_snn_bends(const hk_node *n)
{
    static const char *const types[] = {"Relu", "Clip",     "LeakyRelu",       "PRelu",       "Elu",      "Selu",
                                        "Celu", "Gelu",     "ThresholdedRelu", "HardSigmoid", "Softplus", "Sigmoid",
                                        "Tanh", "Softsign", "HardSwish",       "Mish"};
    for (size_t i = 0; i < HK_COUNT(types); i++)
        if (!strcmp(types[i], n->type))
            return true;
    return false;
}

hk_status hk_snn_plan_check(const hk_snn_plan *p)
{
    hk_context *ctx = p->graph->ctx;
    HK_TRY(hk_snn_refuse_unsupported(p->graph, p->nodes, p->node_count));
    if (!p->site_count)
        return hk_fail(ctx, HK_STATUS_UNSUPPORTED,
                       "the model has no Relu or Clip that could become neurons; a spiking network needs one at least. "
                       "Functional operators (--functional) put neurons in front of layers of weights");
    return HK_OK;
}

/* MaxPool's attributes are AveragePool's but storage_order; padding does not count, as with maxima. */
static size_t average_attrs(const hk_snn_plan *p, const hk_node *n, hk_attr_value *list, size_t capacity)
{
    size_t count = 0;
    for (const hk_attr *a = n->op->attrs; a && a->name && count + 1 < capacity; a++) {
        const void *field = hk_node_attr(n, a->name);
        hk_attr_value v = {.name = a->name, .kind = a->kind};
        bool given = strcmp(a->name, "storage_order") != 0 && (strcmp(a->name, "dilations") != 0 || p->opset >= 19);
        if (a->kind == HK_ATTR_INT)
            v.i = *(const int64_t *)field;
        else if (a->kind == HK_ATTR_INTS)
            given = given && (v.ints = *(const hk_ints *)field).v;
        else
            given = given && a->kind == HK_ATTR_STRING && (v.s = *(const char *const *)field);
        if (given)
            list[count++] = v;
    }
    list[count] = (hk_attr_value){0};
    return count;
}

hk_status hk_snn_average_pools(hk_snn_plan *p)
{
    hk_graph *g = p->graph;
    for (size_t i = 0; i < p->node_count; i++) {
        hk_node *n = p->of[i];
        hk_attr_value list[12];
        hk_value *y = NULL;
        if (p->nodes[i].verdict != HK_SNN_APPROXIMATE || strcmp(n->type, "MaxPool") != 0)
            continue;
        average_attrs(p, n, list, HK_COUNT(list));
        HK_TRY(hk_snn_node_make(g, p->opset, "AveragePool", n->name, list, n->in, 1, &y));
        hk_graph_take_over(y, n->out[0]);
    }
    return hk_graph_prune(g);
}

hk_status hk_snn_free_batch(hk_snn_plan *p)
{
    hk_graph *g = p->graph;
    for (size_t i = 0; i < p->node_count; i++) {
        hk_node *n = p->of[i];
        const hk_shape *s = n->out_count > 0 && n->out[0] ? &p->shapes[n->out[0]->id] : NULL;
        if (strcmp(n->type, "Reshape") != 0 || !s || !hk_shape_known(s) || s->rank < 1 || s->dim[0] != p->batch)
            continue;
        int64_t dims[HK_MAX_RANK] = {-1};
        memcpy(dims + 1, s->dim + 1, (size_t)(s->rank - 1) * sizeof *dims);
        n->in[1] = hk_snn_integers(g, NULL, dims, s->rank);
        if (!n->in[1])
            return hk_out_of_memory(g->ctx, "a conversion");
    }
    for (size_t i = 0; i < g->value_count; i++)
        if (g->values[i]->kind == HK_VALUE_ACTIVATION && g->values[i]->shape.rank > 0) {
            g->values[i]->shape.dim[0] = -1; /* of any number of samples, or of steps and samples */
            g->values[i]->dim_names[0] = NULL;
        }
    for (size_t i = 0; i < g->input_count; i++)
        g->inputs[i]->shape.dim[0] = -1;
    for (size_t i = 0; i < g->output_count; i++)
        if (g->outputs[i]->shape.rank > 0)
            g->outputs[i]->shape.dim[0] = -1;
    return hk_graph_prune(g);
}
