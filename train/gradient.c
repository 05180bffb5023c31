/* The gradient builder. Broadcast axes and several users of a value are summed here, and nowhere else. */
#include "train/gradient.h"

struct hk_gradient {
    hk_graph *graph;
    hk_value **of; /* by value id: the gradient so far */
    bool *wanted;  /* by value id: a wrt value lies behind it */
    size_t count;  /* values before differentiation: later ones have no gradient */
};

hk_graph *hk_gradient_graph(hk_gradient *g)
{
    return g->graph;
}

hk_value *hk_gradient_of(hk_gradient *g, const hk_value *v)
{
    return v && v->id < g->count ? g->of[v->id] : NULL;
}

bool hk_gradient_wanted(const hk_gradient *g, const hk_value *v)
{
    return v && v->id < g->count && v->graph == g->graph && g->wanted[v->id];
}

hk_status hk_gradient_add(hk_gradient *g, hk_value *v, hk_value *dv)
{
    if (!dv || !hk_gradient_wanted(g, v))
        return HK_OK;
    if (!hk_shape_equal(&dv->shape, &v->shape)) {
        const hk_attr_value attrs[] = {HK_SET_INTS("shape", v->shape.dim, v->shape.rank), {0}};
        HK_TRY(hk_build(g->graph, "hk.SumTo", attrs, &dv, 1, &dv, 1));
    }
    hk_value **sum = &g->of[v->id];
    if (!*sum) {
        *sum = dv;
        return HK_OK;
    }
    return hk_build(g->graph, "Add", NULL, (hk_value *[]){*sum, dv}, 2, sum, 1);
}

static void mark_wanted(hk_gradient *g, hk_value *const *wrt, size_t count)
{
    for (size_t i = 0; i < count; i++)
        g->wanted[wrt[i]->id] = true;
    for (size_t i = 0; i < g->graph->node_count; i++) {
        const hk_node *n = g->graph->nodes[i];
        bool behind = false;
        for (int32_t k = 0; k < n->in_count; k++)
            behind |= n->in[k] && n->in[k]->graph == g->graph && g->wanted[n->in[k]->id];
        for (int32_t k = 0; behind && k < n->out_count; k++)
            if (n->out[k])
                g->wanted[n->out[k]->id] = hk_dtype_is_float(n->out[k]->dtype);
    }
}

static hk_status walk_back(hk_gradient *g)
{
    for (size_t i = g->graph->node_count; i-- > 0;) {
        hk_node *n = g->graph->nodes[i];
        bool reached = false, wanted = false;
        for (int32_t k = 0; k < n->out_count; k++)
            reached |= hk_gradient_of(g, n->out[k]) != NULL;
        for (int32_t k = 0; k < n->in_count; k++)
            wanted |= hk_gradient_wanted(g, n->in[k]);
        if (!reached || !wanted)
            continue;
        if (!n->op || !n->op->backward)
            return hk_fail(g->graph->ctx, HK_STATUS_UNSUPPORTED,
                           "node '%s' (%s) has no backward rule, and a trainable parameter lies behind it", n->name,
                           n->type);
        HK_TRY(n->op->backward(g, n));
    }
    return HK_OK;
}

hk_status hk_differentiate_from(hk_graph *g, hk_value *y, hk_value *dy, hk_value *const *wrt, size_t count,
                                hk_value **grads)
{
    HK_TRY(hk_graph_sort(g));
    hk_gradient state = {.graph = g,
                         .of = hk_arena_array(g->arena, g->value_count, sizeof(hk_value *)),
                         .wanted = hk_arena_array(g->arena, g->value_count, sizeof(bool)),
                         .count = g->value_count};
    if (!state.of || !state.wanted)
        return hk_out_of_memory(g->ctx, "the gradient");
    state.of[y->id] = dy;
    mark_wanted(&state, wrt, count);
    HK_TRY(walk_back(&state));
    for (size_t i = 0; i < count; i++)
        grads[i] = state.of[wrt[i]->id];
    return HK_OK;
}

hk_status hk_differentiate(hk_graph *g, hk_value *loss, hk_value *const *wrt, size_t count, hk_value **grads)
{
    hk_value *one = hk_graph_scalar(g, loss->dtype, 1.0);
    return one ? hk_differentiate_from(g, loss, one, wrt, count, grads) : hk_out_of_memory(g->ctx, "the gradient");
}
