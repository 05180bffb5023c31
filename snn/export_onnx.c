/*
 * hk.Neuron as operators of the default domain. Equations, and the order of their roundings, are those of
 * ops/support/neuron.h; a ParametricLIF's 1/tau becomes a constant, so that no other exp than ours decides on spikes.
 */
#include <string.h>

#include "ops/op.h"
#include "ops/support/neuron.h"
#include "snn/convert.h"
#include "snn/export.h"

enum { OPSET_LEAST = 13, UNROLLED_MOST = 1024 };
enum { IN_X, IN_V0, IN_W, IN_THETA };
enum { OUT_S, OUT_V, OUT_V_SEQ, OUT_COUNT };

typedef struct layer {
    hk_graph *g; /* where the nodes of a step go: the graph, or a Scan's body */
    int32_t opset;
    const hk_node *node;
    const hk_neuron_attrs *attrs;
    hk_neuron_rule rule;
    hk_value *theta, *rest, *rate; /* of the graph around */
} layer;

static hk_status make(const layer *l, const char *type, hk_value *a, hk_value *b, hk_value **out)
{
    hk_value *in[] = {a, b};
    return hk_snn_node_make(l->g, l->opset, type, NULL, NULL, in, b ? 2 : 1, out);
}

/* ---- a step */

static hk_status charge(const layer *l, hk_value *v, hk_value *x, hk_value **h)
{
    hk_value *gap = NULL;
    if (l->rule.kind == HK_NEURON_IF)
        return make(l, "Add", v, x, h);
    HK_TRY(make(l, "Sub", v, l->rest, &gap));
    if (l->rule.decay_input) {
        HK_TRY(make(l, "Sub", x, gap, &gap));
        HK_TRY(make(l, "Mul", gap, l->rate, &gap));
        return make(l, "Add", v, gap, h);
    }
    HK_TRY(make(l, "Mul", gap, l->rate, &gap));
    HK_TRY(make(l, "Sub", v, gap, &gap));
    return make(l, "Add", gap, x, h);
}

static hk_status step(const layer *l, hk_value *v, hk_value *x, hk_value **s, hk_value **after)
{
    const hk_attr_value to[] = {HK_SET_INT("to", x->dtype), {0}};
    hk_value *h = NULL, *fires = NULL;
    HK_TRY(charge(l, v, x, &h));
    HK_TRY(make(l, "GreaterOrEqual", h, l->theta, &fires));
    fires->dtype = HK_BOOL;
    HK_TRY(hk_snn_node_make(l->g, l->opset, "Cast", NULL, to, &fires, 1, s));
    (*s)->dtype = x->dtype;
    if (!l->rule.soft) {
        HK_TRY(hk_snn_node_make(l->g, l->opset, "Where", NULL, NULL, (hk_value *[]){fires, l->rest, h}, 3, after));
        (*after)->dtype = x->dtype;
        return HK_OK;
    }
    hk_value *loss = NULL;
    HK_TRY(make(l, "Mul", l->theta, *s, &loss));
    return make(l, "Sub", h, loss, after);
}

/* ---- all steps */

static bool wants(const layer *l, int32_t i)
{
    return hk_out(l->node, i) != NULL;
}

/* values[i] stands for output i of the neuron from now on. */
static void replace(const layer *l, hk_value *const *values)
{
    for (int32_t i = 0; i < OUT_COUNT; i++)
        if (wants(l, i)) {
            values[i]->dtype = l->node->out[i]->dtype;
            hk_graph_take_over(values[i], l->node->out[i]);
        }
}

static hk_status one_step(const layer *l)
{
    hk_value *v0 = hk_in(l->node, IN_V0), *s = NULL, *v = NULL, *made[OUT_COUNT] = {0};
    HK_TRY(step(l, v0 ? v0 : l->rest, l->node->in[IN_X], &s, &v));
    for (int32_t i = 0; i < OUT_COUNT; i++) /* what the step's own nodes read keeps its name */
        if (wants(l, i))
            HK_TRY(make(l, "Identity", i == OUT_S ? s : v, NULL, &made[i]));
    replace(l, made);
    return HK_OK;
}

/* x, (T,...), as T values (1,...). */
static hk_status split(const layer *l, int64_t steps, hk_value **x)
{
    hk_value *first = NULL;
    int64_t *sizes = hk_arena_array(l->g->arena, (size_t)steps, sizeof *sizes);
    if (!sizes)
        return hk_out_of_memory(l->g->ctx, "an export");
    for (int64_t t = 0; t < steps; t++)
        sizes[t] = 1;
    HK_TRY(make(l, "Split", l->node->in[IN_X], hk_snn_integers(l->g, NULL, sizes, steps), &first));
    if (!hk_node_want_outputs(first->producer, (int32_t)steps))
        return HK_STATUS_OUT_OF_MEMORY;
    for (int64_t t = 0; t < steps; t++) {
        x[t] = first->producer->out[t];
        x[t]->dtype = l->node->in[IN_X]->dtype;
    }
    return HK_OK;
}

static hk_status join(const layer *l, hk_value *const *steps, int32_t count, hk_value **out)
{
    const hk_attr_value axis[] = {HK_SET_INT("axis", 0), {0}};
    return hk_snn_node_make(l->g, l->opset, "Concat", NULL, axis, steps, count, out);
}

static hk_status unroll(const layer *l)
{
    int64_t count = l->attrs->steps;
    hk_value **x = hk_arena_array(l->g->arena, 3 * (size_t)count, sizeof(hk_value *));
    if (!x)
        return hk_out_of_memory(l->g->ctx, "an export");
    hk_value **s = x + count, **v = s + count, *made[OUT_COUNT] = {0};
    hk_value *before = hk_in(l->node, IN_V0) ? l->node->in[IN_V0] : l->rest;
    HK_TRY(split(l, count, x));
    for (int64_t t = 0; t < count; t++) {
        HK_TRY(step(l, before, x[t], &s[t], &v[t]));
        before = v[t];
    }
    HK_TRY(join(l, s, (int32_t)count, &made[OUT_S]));
    if (wants(l, OUT_V_SEQ))
        HK_TRY(join(l, v, (int32_t)count, &made[OUT_V_SEQ]));
    if (wants(l, OUT_V))
        HK_TRY(make(l, "Squeeze", before, hk_snn_integers(l->g, NULL, (int64_t[]){0}, 1), &made[OUT_V]));
    replace(l, made);
    return HK_OK;
}

/* ---- Scan */

/* Where potentials start, for each neuron. */
static hk_status start(const layer *l, hk_value **out)
{
    hk_graph *g = l->g;
    hk_value *shape = NULL, *inner = NULL;
    if (hk_in(l->node, IN_V0)) {
        *out = l->node->in[IN_V0];
        return HK_OK;
    }
    HK_TRY(make(l, "Shape", l->node->in[IN_X], NULL, &shape));
    shape->dtype = HK_INT64;
    hk_value *in[] = {shape, hk_snn_integers(g, NULL, (int64_t[]){1}, 1),
                      hk_snn_integers(g, NULL, (int64_t[]){INT64_MAX}, 1)};
    HK_TRY(hk_snn_node_make(g, l->opset, "Slice", NULL, NULL, in, 3, &inner));
    return make(l, "Expand", l->rest, inner, out);
}

/* V, x -> V after, s, and V after once more, for all of its values. */
static hk_status make_body(const layer *l, hk_graph **out)
{
    layer inner = *l;
    hk_graph *body = hk_graph_body(l->g, l->node->name);
    hk_dtype dtype = l->node->in[IN_X]->dtype;
    hk_value *v = body ? hk_graph_value(body, "v", HK_VALUE_INPUT, dtype, NULL) : NULL;
    hk_value *x = v ? hk_graph_value(body, "x", HK_VALUE_INPUT, dtype, NULL) : NULL;
    hk_value *results[OUT_COUNT] = {0}; /* in the order of Scan: V, S, V_seq */
    if (!x || !hk_graph_add_input(body, v) || !hk_graph_add_input(body, x))
        return hk_out_of_memory(l->g->ctx, "an export");
    inner.g = body;
    HK_TRY(step(&inner, v, x, &results[1], &results[0]));
    if (wants(l, OUT_V_SEQ))
        HK_TRY(make(&inner, "Identity", results[0], NULL, &results[2]));
    for (int32_t i = 0; i < OUT_COUNT && results[i]; i++)
        if (!hk_graph_add_output(body, results[i]))
            return hk_out_of_memory(l->g->ctx, "an export");
    *out = body;
    return HK_OK;
}

static hk_status scan(const layer *l)
{
    hk_value *v0 = NULL, *first = NULL;
    hk_graph *body = NULL;
    HK_TRY(start(l, &v0));
    HK_TRY(make_body(l, &body));
    const hk_attr_value attrs[] = {
        {.name = "body", .kind = HK_ATTR_GRAPH, .graph = body}, HK_SET_INT("num_scan_inputs", 1), {0}};
    hk_value *in[] = {v0, l->node->in[IN_X]};
    HK_TRY(hk_snn_node_make(l->g, l->opset, "Scan", l->node->name, attrs, in, 2, &first));
    hk_node *n = first->producer;
    n->bodies = hk_arena_array(l->g->arena, 1, sizeof(hk_graph *));
    if (!n->bodies || !hk_node_want_outputs(n, wants(l, OUT_V_SEQ) ? 3 : 2))
        return hk_out_of_memory(l->g->ctx, "an export");
    n->bodies[n->body_count++] = body;
    replace(l, (hk_value *[]){n->out[1], n->out[0], n->out_count > 2 ? n->out[2] : NULL});
    return HK_OK;
}

/* ---- layers */

/* x, one element or one per channel (axis 1) of values of a rank, in a shape that broadcasts to them. */
static hk_status along_channels(hk_graph *g, int32_t opset, const hk_node *n, hk_value *x, int32_t rank, hk_value **out)
{
    int64_t dims[HK_MAX_RANK] = {hk_shape_count(&x->shape)};
    *out = x;
    if (x->shape.rank < 1 || dims[0] == 1 || rank == 2)
        return HK_OK;
    if (rank < 2)
        return hk_fail(g->ctx, HK_STATUS_UNSUPPORTED,
                       "node '%s' (%s) has '%s' per channel, and the rank of its input '%s' is not known; export the "
                       "model with all dimensions but the first fixed",
                       n->name, n->type, x->name, n->in[IN_X]->name);
    for (int32_t d = 1; d < rank - 1; d++)
        dims[d] = 1;
    if (!x->data)
        return hk_snn_reshape(g, opset, x, NULL, dims, rank - 1, out);
    hk_tensor *t = hk_arena_new(g->arena, hk_tensor);
    if (!t)
        return hk_out_of_memory(g->ctx, "an export");
    *t = *x->data; /* the elements are shared */
    t->rank = rank - 1;
    memcpy(t->shape, dims, sizeof dims);
    *out = hk_graph_constant(g, x->name, t);
    return *out ? HK_OK : HK_STATUS_OUT_OF_MEMORY;
}

static hk_status threshold(layer *l)
{
    hk_value *theta = hk_in(l->node, IN_THETA);
    const hk_value *x = l->node->in[IN_X];
    if (theta)
        return along_channels(l->g, l->opset, l->node, theta, x->shape.rank - (l->attrs->steps > 0), &l->theta);
    l->theta = hk_graph_scalar(l->g, x->dtype, (double)l->attrs->v_threshold);
    return l->theta ? HK_OK : HK_STATUS_OUT_OF_MEMORY;
}

hk_status hk_snn_standard_scalers(hk_graph *g)
{
    int32_t opset = hk_snn_opset(g);
    for (size_t i = 0, count = g->node_count; i < count; i++) {
        const hk_node *n = g->nodes[i];
        hk_value *y = NULL, *scale = NULL;
        if (strcmp(n->type, "hk.VoltageScaler") != 0)
            continue;
        HK_TRY(along_channels(g, opset, n, n->in[1], n->in[0]->shape.rank, &scale));
        hk_value *in[] = {n->in[0], scale};
        HK_TRY(hk_snn_node_make(g, opset, "Mul", n->name, NULL, in, 2, &y));
        y->dtype = n->out[0]->dtype;
        hk_graph_take_over(y, n->out[0]);
    }
    return hk_graph_prune(g);
}

static hk_status convert_layer(hk_graph *g, int32_t opset, const hk_node *n, bool unrolled)
{
    layer l = {.g = g, .opset = opset, .node = n, .attrs = n->attrs};
    const hk_value *w = hk_in(n, IN_W);
    hk_dtype dtype = n->in[IN_X]->dtype;
    bool single = dtype == HK_FLOAT32;
    l.rule = hk_neuron_rule_of(l.attrs, single);
    if (w)
        l.rule.rate = hk_neuron_rate(hk_get_double(w->data, 0), single);
    l.rest = hk_graph_scalar(g, dtype, l.rule.rest);
    l.rate = hk_graph_scalar(g, dtype, l.rule.rate);
    if (!l.rest || !l.rate)
        return HK_STATUS_OUT_OF_MEMORY;
    HK_TRY(threshold(&l));
    return l.attrs->steps == 0 ? one_step(&l) : unrolled ? unroll(&l) : scan(&l);
}

static bool is_standard(const hk_node *n)
{
    bool all = strncmp(n->type, "hk.", 3) != 0 && (!n->domain || !strncmp(n->domain, "ai.onnx", 7));
    for (int32_t b = 0; b < n->body_count; b++)
        for (size_t i = 0; i < n->bodies[b]->node_count; i++)
            all = all && is_standard(n->bodies[b]->nodes[i]);
    return all;
}

static const char *why_not(const hk_node *n, bool unrolled)
{
    const hk_neuron_attrs *a = !strcmp(n->type, "hk.Neuron") ? n->attrs : NULL;
    if (!a && n->body_count && !is_standard(n))
        return "has neurons in its body; let them take all steps at once (step mode m)";
    if (!a)
        return is_standard(n) ? NULL : "is no operator of ONNX; take it out of the network";
    if (hk_in(n, IN_W) && !n->in[IN_W]->data)
        return "has a parameter w that is computed; make it a constant";
    if (unrolled && a->steps > UNROLLED_MOST)
        return "walks more than 1024 steps, too many to write out; export it as Scan";
    return NULL;
}

hk_status hk_snn_standard(hk_graph *g, bool unrolled)
{
    int32_t opset = hk_snn_opset(g);
    const char *reason = NULL;
    size_t count = g->node_count;
    for (size_t i = 0; i < count; i++)
        if ((reason = why_not(g->nodes[i], unrolled)) != NULL)
            return hk_fail(g->ctx, HK_STATUS_UNSUPPORTED, "node '%s' (%s) %s", g->nodes[i]->name, g->nodes[i]->type,
                           reason);
    if (opset < OPSET_LEAST)
        return hk_fail(g->ctx, HK_STATUS_UNSUPPORTED,
                       "the model has opset %d, and neurons in standard operators need %d or newer; raise it with "
                       "onnx.version_converter",
                       (int)opset, OPSET_LEAST);
    for (size_t i = 0; i < count; i++)
        if (!strcmp(g->nodes[i]->type, "hk.Neuron"))
            HK_TRY(convert_layer(g, opset, g->nodes[i], unrolled));
    HK_TRY(hk_graph_prune(g));
    return hk_graph_sort(g);
}
