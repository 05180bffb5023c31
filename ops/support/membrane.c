/* Potentials that outlive a run. */
#include "ops/support/membrane.h"

#include <string.h>

#include "ops/op.h"
#include "ops/support/neuron.h"

enum { V0 = 1, V = 1 }; /* of hk.Neuron: an input and an output */

typedef struct membrane {
    const char *name;
    hk_state *state; /* NULL: fresh */
    hk_node *last;   /* of this run */
} membrane;

typedef struct joiner {
    hk_graph *g;
    hk_membranes kind;
    membrane *list;
    size_t count, capacity;
} joiner;

/* "": none. */
static const char *state_of(const hk_node *n)
{
    return strcmp(n->type, "hk.Neuron") ? "" : ((const hk_neuron_attrs *)n->attrs)->state;
}

static bool has_membranes(const hk_graph *g)
{
    for (size_t i = 0; i < g->node_count; i++) {
        if (*state_of(g->nodes[i]))
            return true;
        for (int32_t b = 0; b < g->nodes[i]->body_count; b++)
            if (has_membranes(g->nodes[i]->bodies[b]))
                return true;
    }
    return false;
}

static hk_status check_bodies(const hk_graph *g, const hk_node *n)
{
    for (int32_t b = 0; b < n->body_count; b++)
        if (has_membranes(n->bodies[b]))
            return hk_fail(g->ctx, HK_STATUS_UNSUPPORTED,
                           "node '%s' (%s): neurons that keep their potential stand in a body that is too long or too "
                           "uncertain to be unrolled; let them take all steps at once (step mode m)",
                           n->name, n->type);
    return HK_OK;
}

/* The membrane's shape is X's, without the time axis. */
static bool membrane_shape(const hk_node *n, hk_shape *v)
{
    const hk_shape *x = &n->in[0]->shape;
    int32_t time = ((const hk_neuron_attrs *)n->attrs)->steps > 0;
    if (!hk_shape_known(x) || x->rank < time)
        return false;
    *v = (hk_shape){.rank = x->rank - time};
    memcpy(v->dim, x->dim + time, (size_t)v->rank * sizeof *v->dim);
    return true;
}

static hk_status find(joiner *j, const char *name, membrane **out)
{
    for (size_t i = 0; i < j->count; i++)
        if (!strcmp(j->list[i].name, name)) {
            *out = &j->list[i];
            return HK_OK;
        }
    if (j->count == j->capacity &&
        !hk_arena_grow(j->g->arena, (void **)&j->list, j->count, &j->capacity, sizeof *j->list))
        return hk_out_of_memory(j->g->ctx, "membrane potentials");
    *out = &j->list[j->count++];
    **out = (membrane){.name = name};
    return HK_OK;
}

static hk_status make_state(joiner *j, const hk_node *n, membrane *m)
{
    hk_graph *g = j->g;
    hk_shape shape;
    if (!membrane_shape(n, &shape))
        return HK_OK;
    m->state = hk_graph_state(g, m->name, n->in[0]->dtype, &shape, NULL);
    if (!m->state)
        return hk_out_of_memory(g->ctx, "membrane potentials");
    m->state->follows = true;
    m->state->fill = hk_neuron_rule_of(n->attrs, true).rest;
    return HK_OK;
}

/* The update may overwrite the state before the backward pass reads it: that gets a copy. */
static hk_status first_version(joiner *j, const membrane *m, hk_value **v)
{
    *v = m->state->first;
    if (j->kind != HK_MEMBRANES_RECALLED)
        return HK_OK;
    hk_value *in[] = {*v, hk_graph_scalar(j->g, (*v)->dtype, 1)};
    return in[1] ? hk_build(j->g, "Mul", NULL, in, 2, v, 1) : HK_STATUS_OUT_OF_MEMORY;
}

static hk_status end_of(joiner *j, hk_node *n, hk_value **v)
{
    if (!hk_out(n, V)) {
        if (!hk_node_want_outputs(n, V + 1))
            return HK_STATUS_OUT_OF_MEMORY;
        HK_TRY(hk_node_infer(j->g, n));
    }
    *v = n->out[V];
    return HK_OK;
}

static hk_status set_start(joiner *j, hk_node *n, hk_value *v)
{
    hk_value **in = hk_arena_array(j->g->arena, (size_t)HK_MAX(n->in_count, V0 + 1), sizeof *in);
    if (!in)
        return hk_out_of_memory(j->g->ctx, "membrane potentials");
    memcpy(in, n->in, (size_t)n->in_count * sizeof *in);
    in[V0] = v;
    n->in = in;
    n->in_count = HK_MAX(n->in_count, V0 + 1);
    return HK_OK;
}

static hk_status join(joiner *j, hk_node *n)
{
    membrane *m = NULL;
    hk_value *v = NULL;
    HK_TRY(find(j, state_of(n), &m));
    if (m->last)
        HK_TRY(end_of(j, m->last, &v));
    else if (j->kind != HK_MEMBRANES_FRESH)
        HK_TRY(make_state(j, n, m));
    if (m->state && !v)
        HK_TRY(first_version(j, m, &v));
    m->last = n;
    return v ? set_start(j, n, v) : HK_OK;
}

static hk_status store(joiner *j, const membrane *m)
{
    hk_value *v = NULL;
    if (!m->state)
        return HK_OK;
    HK_TRY(end_of(j, m->last, &v));
    m->state->last = v;
    v->state = m->state;
    return HK_OK;
}

hk_status hk_join_membranes(hk_graph *g, hk_membranes kind)
{
    joiner j = {.g = g, .kind = kind};
    for (size_t i = 0, count = g->node_count; i < count; i++) {
        hk_node *n = g->nodes[i];
        HK_TRY(check_bodies(g, n));
        if (*state_of(n) && !hk_in(n, V0))
            HK_TRY(join(&j, n));
    }
    for (size_t i = 0; i < j.count; i++)
        HK_TRY(store(&j, &j.list[i]));
    return j.count ? hk_graph_sort(g) : HK_OK;
}
