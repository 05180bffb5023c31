/* What a spiking network would have said after fewer steps: its readouts, and what follows them, once more. */
#include <string.h>

#include "ops/op.h"
#include "snn/convert.h"

typedef struct twins {
    hk_graph *g;
    int32_t opset;
    int64_t steps, delay;
    const bool *timed;
    size_t values, nodes, outputs; /* those of the network itself */
    hk_value **twin;               /* by value id: of so few steps; NULL: it does not depend on them */
} twins;

static bool begins(const char *s, const char *with)
{
    return !strncmp(s, with, strlen(with));
}

/* The first steps of x, whose first axis is time, without those that the delay has left out before. */
static hk_status first_steps(const twins *t, hk_value *x, hk_value **out)
{
    const hk_node *before = x->producer;
    bool delayed = before && !strcmp(before->type, "Slice") && hk_in(before, 1) &&
                   begins(before->in[1]->name, HK_SNN_DELAY_NAME);
    int64_t count = t->steps - (delayed ? t->delay : 0);
    hk_value *in[] = {x, hk_snn_integers(t->g, NULL, (int64_t[]){0}, 1), hk_snn_integers(t->g, NULL, &count, 1),
                      hk_snn_integers(t->g, NULL, (int64_t[]){0}, 1)};
    return hk_snn_node_make(t->g, t->opset, "Slice", NULL, NULL, in, 4, out);
}

static hk_status add_twin(twins *t, const hk_node *n)
{
    hk_value *first = NULL;
    bool readout = begins(n->name, HK_SNN_READOUT_NAME) && n->in_count > 0 && t->timed[n->in[0]->id], follows = readout;
    for (int32_t i = 0; i < n->in_count; i++)
        follows = follows || (n->in[i] && t->twin[n->in[i]->id]);
    if (!follows)
        return HK_OK;
    hk_value **in = hk_arena_array(t->g->arena, (size_t)n->in_count + 1, sizeof(hk_value *));
    if (readout)
        HK_TRY(first_steps(t, n->in[0], &first));
    for (int32_t i = 0; in && i < n->in_count; i++)
        in[i] = n->in[i] && t->twin[n->in[i]->id] ? t->twin[n->in[i]->id] : n->in[i];
    if (in && readout)
        in[0] = first;
    hk_node *twin = in ? hk_graph_node(t->g, NULL, n->type, n->op, n->attrs, in, n->in_count, n->out_count) : NULL;
    if (!twin)
        return hk_out_of_memory(t->g->ctx, "a readout");
    twin->opset = n->opset;
    twin->domain = n->domain;
    if (readout && !strcmp(n->type, "hk.Neuron")) { /* a potential that is read: of so many steps, and not kept */
        HK_TRY(hk_node_own_attrs(t->g, twin));
        ((hk_neuron_attrs *)twin->attrs)->steps = t->steps;
        ((hk_neuron_attrs *)twin->attrs)->state = "";
    }
    for (int32_t i = 0; i < n->out_count; i++) {
        twin->out[i]->dtype = n->out[i] ? n->out[i]->dtype : HK_DTYPE_NONE;
        if (n->out[i])
            t->twin[n->out[i]->id] = twin->out[i];
    }
    return HK_OK;
}

static hk_status add_output(const twins *t, const hk_value *y)
{
    hk_graph *g = t->g;
    const char *name = hk_arena_format(g->arena, "%s@%lld", y->name, (long long)t->steps);
    hk_value *out = name ? hk_graph_value(g, name, HK_VALUE_ACTIVATION, y->dtype, NULL) : NULL;
    if (!out || !hk_graph_add_output(g, out))
        return hk_out_of_memory(g->ctx, "a readout");
    hk_graph_take_over(t->twin[y->id], out);
    return HK_OK;
}

static hk_status add_readouts(twins *t)
{
    memset(t->twin, 0, t->values * sizeof *t->twin);
    for (size_t i = 0; i < t->nodes; i++)
        if (t->g->nodes[i]->body_count == 0)
            HK_TRY(add_twin(t, t->g->nodes[i]));
    for (size_t i = 0; i < t->outputs; i++)
        if (t->g->outputs[i]->id < t->values && t->twin[t->g->outputs[i]->id])
            HK_TRY(add_output(t, t->g->outputs[i]));
    return HK_OK;
}

hk_status hk_snn_add_readouts(hk_graph *g, const int64_t *steps, size_t count)
{
    HK_TRY(hk_graph_sort(g));
    hk_snn_info info = hk_snn_describe(g);
    twins t = {.g = g,
               .opset = hk_snn_opset(g),
               .delay = info.delay,
               .timed = hk_snn_find_timed(g),
               .values = g->value_count,
               .nodes = g->node_count,
               .outputs = g->output_count};
    t.twin = hk_arena_array(g->arena, t.values + 1, sizeof(hk_value *));
    if (!t.timed || !t.twin)
        return hk_out_of_memory(g->ctx, "readouts");
    for (size_t i = 0; i < count; i++) {
        t.steps = steps[i];
        HK_TRY(add_readouts(&t));
    }
    return hk_graph_sort(g);
}
