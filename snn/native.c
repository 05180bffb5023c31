/*
 * Spiking neurons in place of activations, for training. Unlike a conversion nothing has to be kept of what the
 * network computed, so every activation may go and everything that treats samples alone may stay.
 */
#include "snn/native.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "ops/op.h"
#include "snn/convert.h"

typedef struct native {
    hk_graph *g;
    hk_snn_native_params p;
    hk_layer neuron;
    int32_t opset;
    hk_snn_time time;
    hk_shape *shapes; /* by value id, with a batch of `batch` */
    const hk_tensor **known;
    size_t value_count;
    int64_t batch;
    bool *timed;         /* by value id: (T N,...) */
    hk_value **repeated; /* by value id: a value without time at every step */
    hk_value **encoded;  /* by value id: of inputs */
    size_t layers;
} native;

static hk_status make(native *n, const char *type, const char *name, const hk_attr_value *attrs, hk_value *const *in,
                      int32_t count, hk_value **out)
{
    return hk_snn_node_make(n->g, n->opset, type, name, attrs, in, count, out);
}

static hk_status binary(native *n, const char *type, hk_value *a, hk_value *b, hk_value **out)
{
    return make(n, type, NULL, NULL, (hk_value *[]){a, b}, 2, out);
}

static hk_status cast(native *n, hk_value *x, hk_dtype to, hk_value **out)
{
    const hk_attr_value attrs[] = {HK_SET_INT("to", to), {0}};
    HK_TRY(make(n, "Cast", NULL, attrs, &x, 1, out));
    (*out)->dtype = to;
    return HK_OK;
}

static hk_value *number(native *n, double x)
{
    return hk_graph_scalar(n->g, HK_FLOAT32, x);
}

/* ---- time */

static bool is_timed(const native *n, const hk_value *v)
{
    return v && v->graph == n->g && v->id < n->value_count && n->timed[v->id];
}

static hk_status repeated(native *n, hk_value *v, hk_value **out)
{
    hk_value *x = NULL;
    if (!n->repeated[v->id]) {
        HK_TRY(hk_snn_repeat(&n->time, v, &n->shapes[v->id], &x));
        HK_TRY(hk_snn_join_time(&n->time, x, &n->shapes[v->id], &n->repeated[v->id]));
    }
    *out = n->repeated[v->id];
    return HK_OK;
}

/* ---- encoders */

/* A spike with probability x, drawn anew in every step. */
static hk_status poisson(native *n, const hk_value *input, hk_value *x, hk_value **out)
{
    hk_value *drawn = NULL;
    const char *name = hk_arena_format(n->g->arena, "%s.poisson", input->name);
    HK_TRY(make(n, "RandomUniformLike", name, NULL, &x, 1, &drawn));
    HK_TRY(binary(n, "Less", drawn, x, out));
    return cast(n, *out, HK_FLOAT32, out);
}

/* One spike in step round((T - 1) (1 - x)). */
static hk_status latency(native *n, hk_value *x, int32_t rank, hk_value **out)
{
    const hk_attr_value before[] = {HK_SET_INT("exclusive", 1), {0}};
    hk_value *steps = hk_snn_times(&n->time, rank), *zero = hk_graph_scalar(n->g, HK_INT64, 0), *one = number(n, 1),
             *count = NULL;
    hk_value *step = NULL, *late = NULL;
    if (!steps || !zero || !one)
        return HK_STATUS_OUT_OF_MEMORY;
    HK_TRY(cast(n, steps, HK_FLOAT32, &count));
    HK_TRY(binary(n, "Gather", count, zero, &count));
    HK_TRY(binary(n, "Sub", count, one, &count));
    HK_TRY(binary(n, "Expand", one, steps, &step));
    HK_TRY(make(n, "CumSum", NULL, before, (hk_value *[]){step, zero}, 2, &step));
    HK_TRY(binary(n, "Sub", one, x, &late));
    HK_TRY(binary(n, "Mul", late, count, &late));
    HK_TRY(make(n, "Round", NULL, NULL, &late, 1, &late));
    HK_TRY(binary(n, "Equal", late, step, out));
    return cast(n, *out, HK_FLOAT32, out);
}

static hk_status encode(native *n, hk_value *input)
{
    const hk_shape *s = &n->shapes[input->id];
    hk_value *x = NULL;
    if (input->dtype != HK_FLOAT32)
        return hk_fail(n->g->ctx, HK_STATUS_UNSUPPORTED,
                       "input '%s' is %s: it takes float32 to be encoded as spikes; encode directly", input->name,
                       hk_dtype_name(input->dtype));
    HK_TRY(hk_snn_repeat(&n->time, input, s, &x));
    HK_TRY(n->p.encoding == HK_SNN_ENCODE_POISSON ? poisson(n, input, x, &x) : latency(n, x, s->rank + 1, &x));
    HK_TRY(hk_snn_join_time(&n->time, x, s, &x));
    n->encoded[input->id] = x;
    n->timed[input->id] = true;
    return HK_OK;
}

/* ---- neurons */

static hk_value *leak(native *n, const char *name)
{
    double tau = n->neuron.tau > 0 ? (double)n->neuron.tau : 2;
    float w = (float)-log(tau - 1);
    const char *full = hk_arena_format(n->g->arena, "%s.w", name);
    return full ? hk_snn_floats(n->g, full, &w, 1, (int64_t[]){1}) : NULL;
}

/* x is (T,N,...); readout: neurons that never fire, of which *out is the last potential. */
static hk_status add_neurons(native *n, hk_value *x, const char *name, bool readout, hk_value **out)
{
    static const char *const kinds[] = {"IF", "LIF", "ParametricLIF"};
    const hk_layer *l = &n->neuron;
    bool learned = l->kind == HK_LAYER_PARAMETRIC_LIF && !readout;
    const char *kind = readout ? "IF" : kinds[l->kind - HK_LAYER_IF];
    const char *state = hk_arena_format(n->g->arena, "%s.v", name);
    const hk_attr_value attrs[] = {HK_SET_INT("steps", n->p.steps),
                                   HK_SET_STRING("kind", kind),
                                   HK_SET_FLOAT("tau", l->kind == HK_LAYER_LIF && l->tau > 0 ? l->tau : 2.0f),
                                   HK_SET_INT("decay_input", l->decay_input),
                                   HK_SET_STRING("reset", l->soft_reset ? "soft" : "hard"),
                                   HK_SET_FLOAT("v_reset", readout ? 0 : l->v_reset),
                                   HK_SET_FLOAT("v_threshold", readout               ? FLT_MAX
                                                               : l->v_threshold != 0 ? l->v_threshold
                                                                                     : 1.0f),
                                   HK_SET_INT("detach_reset", readout || l->detach_reset),
                                   HK_SET_STRING("surrogate", l->surrogate ? l->surrogate : "ATan"),
                                   HK_SET_FLOAT("alpha", l->alpha),
                                   HK_SET_STRING("state", state),
                                   {0}};
    HK_TRY(make(n, "hk.Neuron", name, attrs, &x, 1, out));
    hk_node *made = (*out)->producer;
    hk_value **in = hk_arena_array(n->g->arena, 3, sizeof *in);
    if (!in || !state)
        return hk_out_of_memory(n->g->ctx, "a spiking network");
    const char *wrong = hk_neuron_check(n->g->arena, made->attrs);
    if (wrong)
        return hk_fail(n->g->ctx, HK_STATUS_USAGE, "neurons of '%s': %s", name, wrong);
    in[0] = x;
    made->in = in;
    if (learned && !(in[2] = leak(n, name)))
        return hk_out_of_memory(n->g->ctx, "a spiking network");
    made->in_count = learned ? 3 : 1;
    n->layers += !readout;
    if (!readout)
        return HK_OK;
    if (!hk_node_want_outputs(made, 2))
        return HK_STATUS_OUT_OF_MEMORY;
    *out = made->out[1];
    (*out)->dtype = x->dtype;
    return HK_OK;
}

static hk_status replace_activation(native *n, hk_node *node)
{
    hk_value *x = node->in[0], *y = node->out[0], *spikes = NULL;
    const hk_shape *s = &n->shapes[y->id];
    HK_TRY(is_timed(n, x) ? hk_snn_split_time(&n->time, n->encoded[x->id] ? n->encoded[x->id] : x, s, &x)
                          : hk_snn_repeat(&n->time, x, s, &x));
    HK_TRY(add_neurons(n, x, node->name, false, &spikes));
    HK_TRY(hk_snn_join_time(&n->time, spikes, s, &x));
    hk_graph_take_over(x, y);
    n->timed[y->id] = true;
    return HK_OK;
}

/* ---- readouts */

static hk_status read_out(native *n, hk_value *v, const hk_shape *s, bool spikes, hk_value **out)
{
    hk_snn_readout how = n->p.readout;
    const char *name = hk_arena_format(n->g->arena, "%s.%s", HK_SNN_READOUT_NAME, v->name);
    const char *neurons = hk_arena_format(n->g->arena, "%s.neurons", v->name);
    hk_value *x = NULL;
    if (!name || !neurons)
        return hk_out_of_memory(n->g->ctx, "a readout");
    HK_TRY(hk_snn_split_time(&n->time, v, s, &x));
    if (!spikes && (how == HK_SNN_READ_RATE || how == HK_SNN_READ_COUNT))
        HK_TRY(add_neurons(n, x, neurons, false, &x));
    if (how == HK_SNN_READ_MEMBRANE)
        HK_TRY(add_neurons(n, x, name, true, out));
    else if (how == HK_SNN_READ_LAST)
        HK_TRY(binary(n, "Gather", x, hk_graph_scalar(n->g, HK_INT64, -1), out));
    else
        HK_TRY(hk_snn_reduce(n->g, n->opset, how == HK_SNN_READ_COUNT ? "ReduceSum" : "ReduceMean", x, (int64_t[]){0},
                             1, out));
    (*out)->producer->name = name;
    return HK_OK;
}

/* An output keeps its name: what had it gets another. */
static hk_status read_output(native *n, hk_value *y)
{
    hk_graph *g = n->g;
    hk_value *in_steps = NULL, *read = NULL;
    const hk_node *maker = y->producer;
    bool spikes = maker && !strcmp(maker->type, "Reshape") && maker->in[0]->producer &&
                  !strcmp(maker->in[0]->producer->type, "hk.Neuron");
    HK_TRY(hk_snn_give_up_name(g, y, &in_steps));
    HK_TRY(read_out(n, in_steps, &n->shapes[y->id], spikes, &read));
    hk_graph_take_over(read, y);
    return HK_OK;
}

/* ---- nodes */

static bool one_of(const char *type, const char *const *list)
{
    while (*list && strcmp(*list, type) != 0)
        list++;
    return *list != NULL;
}

/* What makes probabilities of the scores comes behind the readout. */
static bool is_ending(const native *n, const hk_node *node)
{
    static const char *const types[] = {"Softmax", "LogSoftmax", "Sigmoid", NULL};
    bool output = false;
    for (size_t i = 0; i < n->g->output_count; i++)
        output |= n->g->outputs[i] == node->out[0];
    return output && one_of(node->type, types);
}

static bool keeps_batch(const native *n, const hk_value *v)
{
    const hk_shape *s = &n->shapes[v->id];
    return hk_shape_known(s) && s->rank >= 1 && s->rank < HK_MAX_RANK && s->dim[0] == n->batch;
}

/* Operands with a batch and no time are repeated, encoded inputs put in. */
static hk_status give_time(native *n, hk_node *node)
{
    for (int32_t i = 0; i < node->in_count; i++) {
        hk_value *v = node->in[i];
        if (!v || v->graph != n->g || v->id >= n->value_count || v->data || n->known[v->id])
            continue;
        if (n->encoded[v->id])
            node->in[i] = n->encoded[v->id];
        else if (!n->timed[v->id] && keeps_batch(n, v))
            HK_TRY(repeated(n, v, &node->in[i]));
    }
    return HK_OK;
}

static void report(const native *n, const hk_node *node, hk_snn_verdict verdict, const char *reason)
{
    const hk_snn_node d = {
        .node = node->name, .op = node->type, .verdict = verdict, .reason = reason, .spike_only = true};
    if (n->p.report)
        n->p.report(n->p.user, &d);
}

static hk_status take_node(native *n, hk_node *node)
{
    bool timed = false, known = node->out_count > 0;
    for (int32_t i = 0; i < node->in_count; i++)
        timed |= is_timed(n, node->in[i]);
    for (int32_t i = 0; i < node->out_count; i++)
        known &= !node->out[i] || n->known[node->out[i]->id];
    if (known)
        return HK_OK;
    if (is_ending(n, node) && timed) {
        report(n, node, HK_SNN_READOUT, "is computed once, of the readout");
        return read_out(n, node->in[0], &n->shapes[node->in[0]->id], false, &node->in[0]);
    }
    bool batched = true;
    for (int32_t i = 0; i < node->out_count; i++)
        batched &= !node->out[i] || keeps_batch(n, node->out[i]);
    bool activation = hk_snn_bends(node);
    if (!batched && (timed || activation))
        return hk_fail(n->g->ctx, HK_STATUS_UNSUPPORTED,
                       "node '%s' (%s): it mixes samples or its shape is not known, so that time cannot be folded into "
                       "the batch; keep the batch as first dimension and fix all others",
                       node->name, node->type);
    if (activation) {
        report(n, node, HK_SNN_NEURON, "becomes neurons, to be trained");
        return replace_activation(n, node);
    }
    report(n, node, HK_SNN_PASSES, timed ? "works on each step" : "comes before time: computed once");
    if (!timed)
        return HK_OK;
    HK_TRY(give_time(n, node));
    for (int32_t i = 0; i < node->out_count; i++)
        if (node->out[i])
            n->timed[node->out[i]->id] = true;
    return HK_OK;
}

/* ---- the whole */

static hk_status check(native *n, const hk_snn_native_params *given)
{
    hk_graph *g = n->g;
    memcpy(&n->p, given, HK_MIN(given->size, sizeof n->p));
    n->neuron = n->p.neuron ? *n->p.neuron : (hk_layer){.kind = HK_LAYER_LIF};
    n->p.steps = n->p.steps ? n->p.steps : 16;
    n->p.encoding = n->p.encoding ? n->p.encoding : HK_SNN_ENCODE_DIRECT;
    n->p.readout = n->p.readout ? n->p.readout : HK_SNN_READ_RATE;
    if (n->p.steps < 1 || n->p.steps > 65536)
        return hk_fail(g->ctx, HK_STATUS_USAGE, "%lld time steps: a spiking network takes 1 to 65536; 16 is usual",
                       (long long)n->p.steps);
    if (n->neuron.kind < HK_LAYER_IF || n->neuron.kind > HK_LAYER_PARAMETRIC_LIF)
        return hk_fail(g->ctx, HK_STATUS_USAGE, "layer kind %d is no neuron: IF, LIF or PARAMETRIC_LIF",
                       (int)n->neuron.kind);
    if (n->neuron.tau != 0 && !(n->neuron.tau > 1 && isfinite(n->neuron.tau)))
        return hk_fail(g->ctx, HK_STATUS_USAGE, "tau is %g: it must be a finite number of steps above 1",
                       (double)n->neuron.tau);
    if (n->opset < 13)
        return hk_fail(g->ctx, HK_STATUS_UNSUPPORTED,
                       "the model is of opset %d, neurons need 13 or newer: export it "
                       "again",
                       (int)n->opset);
    for (size_t i = 0; i < g->input_count; i++)
        for (int32_t d = 0; d < HK_MAX(g->inputs[i]->shape.rank, 1); d++)
            if (g->inputs[i]->shape.rank < 1 || (d && g->inputs[i]->shape.dim[d] < 0))
                return hk_fail(g->ctx, HK_STATUS_UNSUPPORTED,
                               "input '%s' must have a batch and every other dimension fixed: export it so",
                               g->inputs[i]->name);
    return HK_OK;
}

static hk_status bind(native *n)
{
    hk_graph *g = n->g;
    HK_TRY(hk_snn_bind(g, &n->batch, &n->shapes, &n->known));
    n->value_count = g->value_count;
    n->timed = hk_arena_array(g->arena, n->value_count + 1, sizeof *n->timed);
    n->repeated = hk_arena_array(g->arena, n->value_count + 1, sizeof(hk_value *));
    n->encoded = hk_arena_array(g->arena, n->value_count + 1, sizeof(hk_value *));
    return n->timed && n->repeated && n->encoded ? HK_OK : hk_out_of_memory(g->ctx, "a spiking network");
}

static hk_status rewrite(native *n)
{
    hk_graph *g = n->g;
    size_t count = g->node_count, outputs = g->output_count;
    hk_node **nodes = hk_arena_array(g->arena, count + 1, sizeof *nodes);
    if (!nodes)
        return hk_out_of_memory(g->ctx, "a spiking network");
    memcpy(nodes, g->nodes, count * sizeof *nodes);
    hk_snn_plan frame = {
        .graph = g, .arena = g->arena, .shapes = n->shapes, .batch = n->batch, .of = nodes, .node_count = count};
    for (size_t i = 0; i < g->input_count && n->p.encoding != HK_SNN_ENCODE_DIRECT; i++)
        HK_TRY(encode(n, g->inputs[i]));
    for (size_t i = 0; i < count; i++)
        HK_TRY(take_node(n, nodes[i]));
    if (!n->layers)
        return hk_fail(g->ctx, HK_STATUS_UNSUPPORTED,
                       "the model has no activation that neurons could take the place of");
    for (size_t i = 0; i < outputs; i++) {
        bool first = is_timed(n, g->outputs[i]);
        for (size_t k = 0; k < i; k++)
            first &= g->outputs[k] != g->outputs[i];
        if (first)
            HK_TRY(read_output(n, g->outputs[i]));
    }
    return hk_snn_free_batch(&frame);
}

hk_status hk_snn_make_native(hk_graph *g, const hk_snn_native_params *params)
{
    native n = {.g = g, .opset = hk_snn_opset(g)};
    HK_TRY(check(&n, params));
    n.time = (hk_snn_time){g, n.opset, n.p.steps};
    HK_TRY(hk_graph_sort(g));
    HK_TRY(bind(&n));
    return rewrite(&n);
}
