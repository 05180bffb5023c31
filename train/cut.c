/*
 * Cutting a graph of forward and backward passes in two recordings. What an output or a running statistic depends on is
 * the first; the rest, which needs the gradient of an output, is the second. Values that cross stay on the device;
 * views of parameters stand in both.
 */
#include <string.h>

#include "train/training.h"

typedef struct cut {
    const hk_graph *g;
    hk_arena *arena;
    bool *first;                      /* by node: of the first recording */
    bool *both;                       /* by node: a view that the second makes again */
    bool *crosses;                    /* by value */
    const hk_value *upstream, *given; /* the gradient behind and before the node between the passes */
} cut;

static bool of_backward(const hk_state *s)
{
    return !strcmp(s->name, HK_STATE_GRADIENTS) || !strcmp(s->name, HK_STATE_ACCUMULATED);
}

static bool is_first(const cut *c, const hk_value *v)
{
    return v->producer && c->first[v->producer->id];
}

/* The graph is sorted: users come after what they use. */
static void mark_first(cut *c)
{
    const hk_graph *g = c->g;
    for (size_t i = 0; i < g->output_count; i++)
        if (g->outputs[i]->producer)
            c->first[g->outputs[i]->producer->id] = true;
    for (size_t i = 0; i < g->state_count; i++)
        if (!of_backward(g->states[i]) && g->states[i]->last->producer)
            c->first[g->states[i]->last->producer->id] = true;
    for (size_t i = g->node_count; i-- > 0;)
        for (int32_t k = 0; c->first[i] && k < g->nodes[i]->in_count; k++)
            if (g->nodes[i]->in[k] && g->nodes[i]->in[k]->producer)
                c->first[g->nodes[i]->in[k]->producer->id] = true;
}

/* Whether the second recording has v without being given it. */
static bool has(const cut *c, const hk_value *v)
{
    if (v->data || v == c->given)
        return true;
    if (v->producer)
        return !c->first[v->producer->id] || c->both[v->producer->id];
    if (v->kind == HK_VALUE_STATE) /* as long as the first does not change it */
        return !is_first(c, v->state->last);
    return v->kind != HK_VALUE_INPUT;
}

static void mark_crossing(cut *c)
{
    const hk_graph *g = c->g;
    for (size_t i = 0; i < g->node_count; i++) {
        const hk_node *n = g->nodes[i];
        if (n == c->upstream->producer)
            continue;
        c->both[i] = c->first[i] && hk_node_view_offset(n) >= 0;
        for (int32_t k = 0; k < n->in_count; k++) {
            bool there = !n->in[k] || has(c, n->in[k]);
            c->both[i] &= there;
            if (!c->first[i] && !there)
                c->crosses[n->in[k]->id] = true;
        }
    }
}

static hk_status make_first(const cut *c, hk_graph *g)
{
    g->input_count--; /* the gradient */
    for (size_t i = 0; i < c->g->value_count; i++)
        if (c->crosses[i]) {
            if (!hk_graph_add_output(g, g->values[i]))
                return hk_out_of_memory(g->ctx, "a recording");
            g->device_outputs++;
        }
    for (size_t i = 0; i < g->state_count; i++)
        if (of_backward(g->states[i]))
            g->states[i]->last = g->states[i]->first;
    return hk_graph_prune(g);
}

static hk_status make_second(const cut *c, hk_graph *g)
{
    hk_value **in = hk_arena_array(c->arena, c->g->value_count + 1, sizeof *in);
    if (!in)
        return hk_out_of_memory(g->ctx, "a recording");
    g->output_count = g->input_count = 0;
    for (size_t i = 0; i < c->g->value_count; i++) {
        if (!c->crosses[i])
            continue;
        const hk_value *from = g->values[i];
        in[i] = hk_graph_value(g, from->name, HK_VALUE_INPUT, from->dtype, &from->shape);
        if (!in[i] || !hk_graph_add_input(g, in[i]))
            return hk_out_of_memory(g->ctx, "a recording");
        in[i]->storage = from->storage;
        in[i]->layout = from->layout;
    }
    g->device_inputs = g->input_count;
    c->crosses[c->upstream->id] = true;
    in[c->upstream->id] = g->values[c->given->id];
    size_t kept = 0;
    for (size_t i = 0; i < c->g->node_count; i++) {
        hk_node *n = g->nodes[i];
        for (int32_t k = 0; c->first[i] && !c->both[i] && k < n->out_count; k++)
            if (n->out[k])
                n->out[k]->producer = NULL;
        if ((c->first[i] && !c->both[i]) || c->g->nodes[i] == c->upstream->producer)
            continue;
        for (int32_t k = 0; k < n->in_count; k++)
            if (n->in[k] && n->in[k]->id < c->g->value_count && c->crosses[n->in[k]->id])
                n->in[k] = in[n->in[k]->id];
        g->nodes[kept++] = n;
    }
    g->node_count = kept;
    for (size_t i = 0; i < g->state_count; i++)
        if (!of_backward(g->states[i]))
            g->states[i]->last = g->states[i]->first;
    if (!hk_graph_add_input(g, g->values[c->given->id]))
        return hk_out_of_memory(g->ctx, "a recording");
    return hk_graph_prune(g);
}

static hk_status cut_with(cut *c, hk_graph **parts)
{
    c->first = hk_arena_array(c->arena, c->g->node_count + 1, sizeof *c->first);
    c->both = hk_arena_array(c->arena, c->g->node_count + 1, sizeof *c->both);
    c->crosses = hk_arena_array(c->arena, c->g->value_count + 1, sizeof *c->crosses);
    if (!c->first || !c->both || !c->crosses)
        return hk_out_of_memory(c->g->ctx, "recordings");
    mark_first(c);
    mark_crossing(c);
    for (int i = 0; i < 2; i++) {
        HK_TRY(hk_graph_clone(c->g, &parts[i]));
        HK_TRY(i ? make_second(c, parts[i]) : make_first(c, parts[i]));
    }
    return HK_OK;
}

hk_status hk_cut_passes(hk_graph *g, hk_graph **forward, hk_graph **backward)
{
    HK_TRY(hk_graph_prune(g));
    cut c = {.g = g, .given = g->inputs[g->input_count - 1]};
    for (size_t i = 0; i < g->node_count; i++)
        if (!strcmp(g->nodes[i]->type, HK_BETWEEN_PASSES))
            c.upstream = g->nodes[i]->out[0];
    if (!c.upstream)
        return hk_fail(g->ctx, HK_STATUS_INTERNAL, "the passes of '%s' cannot be told apart", g->name);
    c.arena = hk_arena_create(g->ctx);
    hk_graph *parts[2] = {NULL, NULL};
    hk_status st = c.arena ? cut_with(&c, parts) : hk_out_of_memory(g->ctx, "recordings");
    hk_arena_destroy(&c.arena);
    if (st == HK_OK) {
        *forward = parts[0];
        *backward = parts[1];
    }
    for (int i = 0; i < 2 && st != HK_OK; i++)
        if (parts[i])
            hk_graph_destroy(&parts[i]);
    return st;
}
