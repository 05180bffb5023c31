/*
 * Nodes that compute nothing. Views cost nothing by themselves, but they stand between nodes that could be fused, and a
 * Transpose behind a Transpose moves everything twice.
 *
 * Nothing is rewritten where a value belongs to a state: its versions are told apart by their values.
 */
#include <string.h>

#include "runtime/passes.h"

static bool same_element(const hk_value *a, const hk_value *b)
{
    return a->dtype == b->dtype && hk_value_storage(a) == hk_value_storage(b) && a->layout == b->layout;
}

/* Output 0 is input 0's elements in the same order: at most the shape is new. */
static bool is_relabel(const hk_node *n)
{
    const hk_value *x = hk_in(n, 0), *y = hk_out(n, 0);
    if (!n->op || !x || !y || !hk_shape_known(&x->shape) || !hk_shape_known(&y->shape) || x->state || y->state)
        return false;
    for (int32_t i = 1; i < n->out_count; i++)
        if (n->out[i])
            return false;
    return hk_node_view_offset(n) == 0 && same_element(x, y) && hk_shape_count(&x->shape) == hk_shape_count(&y->shape);
}

static bool pads_nothing(const hk_node *n)
{
    const hk_ints *pads = hk_node_attr(n, "pads"), *old = hk_node_attr(n, "paddings");
    const hk_tensor *given = n->op->since >= 11 ? hk_known(n, 1) : NULL;
    pads = pads ? pads : old;
    bool nothing = given || (pads && pads->v);
    for (int64_t i = 0; nothing && i < (given ? hk_tensor_count(given) : pads->count); i++)
        nothing = (given ? hk_get_int(given, i) : pads->v[i]) == 0;
    return nothing;
}

/* Operators that are no views in general and copy in a special case. */
static bool is_copy(const hk_node *n)
{
    static const char *const joins[] = {"Concat", "Sum", "Max", "Min", "Mean"};
    const hk_value *x = hk_in(n, 0), *y = hk_out(n, 0);
    if (!n->op || !x || !y || x->state || y->state || !same_element(x, y) || !hk_shape_known(&x->shape) ||
        !hk_shape_equal(&x->shape, &y->shape))
        return false;
    for (size_t i = 0; i < HK_COUNT(joins); i++)
        if (hk_node_is(n, joins[i]))
            return n->in_count == 1;
    if (hk_node_is(n, "Split"))
        return n->out_count == 1;
    return hk_node_is(n, "Cast") || hk_node_is(n, "CastLike") || (hk_node_is(n, "Pad") && pads_nothing(n));
}

/* perm of a Transpose, written out. */
static void read_perm(const hk_node *n, int32_t rank, int64_t *perm)
{
    const hk_ints *p = hk_node_attr(n, "perm");
    for (int32_t i = 0; i < rank; i++) {
        int64_t from = p && p->v ? p->v[i] : rank - 1 - i;
        perm[i] = from < 0 ? from + rank : from;
    }
}

/* ---- replacing. mark of a value: the value that stands for it from now on. */

static hk_value *resolve(hk_value *v)
{
    while (v && v->mark)
        v = v->mark;
    return v;
}

static bool has_bodies(const hk_graph *g)
{
    for (size_t i = 0; i < g->node_count; i++)
        if (g->nodes[i]->body_count)
            return true;
    return false;
}

static void replace(hk_graph *g, hk_value *from, hk_value *to, bool bodies)
{
    from->mark = to;
    if (bodies)
        hk_graph_replace(g, from, to);
}

static hk_status replace_by(hk_graph *g, hk_node *n, const char *type, const hk_attr_value *attrs, hk_value *const *in,
                            int32_t in_count, bool bodies)
{
    hk_value *out = NULL;
    HK_TRY(hk_build(g, type, attrs, in, in_count, &out, 1));
    out->producer->name = n->name;
    out->producer->mark = 0;
    replace(g, n->out[0], out, bodies);
    return HK_OK;
}

/* n relabels what another node relabelled: from the first of them to n's shape at once. */
static hk_status relabel(hk_graph *g, hk_node *n, bool bodies)
{
    hk_value *root = n->in[0];
    const hk_shape *shape = &n->out[0]->shape;
    while (root->producer && is_relabel(root->producer))
        root = resolve(root->producer->in[0]);
    if (hk_shape_equal(&root->shape, shape)) {
        replace(g, n->out[0], root, bodies);
        return HK_OK;
    }
    if (root == n->in[0])
        return HK_OK;
    hk_value *in[2] = {root, hk_graph_ints(g, shape->dim, shape->rank)};
    const hk_attr_value attrs[] = {HK_SET_INT("allowzero", 1), {0}};
    return in[1] ? replace_by(g, n, "Reshape", attrs, in, 2, bodies) : HK_STATUS_OUT_OF_MEMORY;
}

/* Two permutations in a row are one. */
static hk_status compose(hk_graph *g, hk_node *n, bool bodies)
{
    hk_node *first = n->in[0]->producer;
    int32_t rank = n->in[0]->shape.rank;
    int64_t outer[HK_MAX_RANK], inner[HK_MAX_RANK], both[HK_MAX_RANK];
    bool identity = true;
    read_perm(n, rank, outer);
    read_perm(first, rank, inner);
    for (int32_t i = 0; i < rank; i++) {
        both[i] = inner[outer[i]];
        identity &= both[i] == i;
    }
    hk_value *x = resolve(first->in[0]);
    if (identity) {
        replace(g, n->out[0], x, bodies);
        return HK_OK;
    }
    const hk_attr_value attrs[] = {HK_SET_INTS("perm", both, rank), {0}};
    return replace_by(g, n, "Transpose", attrs, &x, 1, bodies);
}

static bool follows_transpose(const hk_node *n)
{
    const hk_value *x = hk_in(n, 0);
    return hk_node_is(n, "Transpose") && x && x->producer && hk_node_is(x->producer, "Transpose") &&
           hk_shape_known(&x->shape) && !x->state && !n->out[0]->state && !x->producer->in[0]->state;
}

static hk_status visit(hk_graph *g, hk_node *n, bool bodies)
{
    for (int32_t i = 0; i < n->in_count; i++)
        n->in[i] = resolve(n->in[i]);
    if (is_relabel(n))
        return relabel(g, n, bodies);
    if (is_copy(n)) {
        replace(g, n->out[0], n->in[0], bodies);
        return HK_OK;
    }
    return follows_transpose(n) ? compose(g, n, bodies) : HK_OK;
}

hk_status hk_drop_views(hk_graph *g)
{
    HK_TRY(hk_graph_sort(g));
    for (size_t i = 0; i < g->value_count; i++)
        g->values[i]->mark = NULL;
    size_t count = g->node_count; /* what is built comes behind */
    bool bodies = has_bodies(g);
    for (size_t i = 0; i < count; i++)
        HK_TRY(visit(g, g->nodes[i], bodies));
    for (size_t i = 0; i < g->output_count; i++)
        g->outputs[i] = resolve(g->outputs[i]);
    for (size_t i = 0; i < g->value_count; i++)
        g->values[i]->mark = NULL;
    return hk_graph_prune(g);
}
