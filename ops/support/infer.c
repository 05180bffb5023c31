/* Inference and constant folding. */
#include "ops/infer.h"

#include <string.h>

#include "ops/step.h"

static void make_constant(hk_value *v)
{
    v->kind = HK_VALUE_CONSTANT;
    v->producer = NULL;
}

static bool all_known(const hk_node *n)
{
    for (int32_t i = 0; i < n->in_count; i++)
        if (n->in[i] && !n->in[i]->data)
            return false;
    return true;
}

static bool small(const hk_node *n)
{
    for (int32_t i = 0; i < n->out_count; i++)
        if (n->out[i] && hk_shape_known(&n->out[i]->shape) && hk_shape_count(&n->out[i]->shape) > HK_FOLD_MAX_COUNT)
            return false;
    for (int32_t i = 0; i < n->in_count; i++)
        if (n->in[i] && hk_shape_count(&n->in[i]->shape) > HK_FOLD_MAX_COUNT)
            return false;
    return true;
}

static hk_status fold(hk_graph *g, hk_node *n)
{
    static const hk_step no_step;
    const hk_tensor **in = hk_arena_array(g->arena, (size_t)n->in_count + 1, sizeof *in);
    hk_tensor **out = hk_arena_array(g->arena, (size_t)n->out_count + 1, sizeof *out);
    if (!in || !out)
        return hk_out_of_memory(g->ctx, "constant folding");
    for (int32_t i = 0; i < n->in_count; i++)
        in[i] = n->in[i] ? n->in[i]->data : NULL;
    HK_TRY(hk_node_eval(g->ctx, g->arena, n, in, out, &no_step));
    for (int32_t i = 0; i < n->out_count; i++)
        if (n->out[i]) {
            n->out[i]->data = out[i];
            n->out[i]->dtype = out[i]->dtype;
            n->out[i]->shape = hk_tensor_shape(out[i]);
            make_constant(n->out[i]);
        }
    return HK_OK;
}

static bool foldable(const hk_node *n)
{
    return n->op->eval && !(n->op->flags & (HK_OP_RANDOM | HK_OP_CONTROL | HK_OP_KEEP)) && n->in_count > 0 &&
           all_known(n) && small(n);
}

/* Appends the branch's nodes to g with its values; what the branch captured from g is used directly. */
static hk_status inline_branch(hk_graph *g, hk_node *n, hk_graph *body, hk_node ***queue, size_t *count,
                               size_t *capacity)
{
    for (size_t i = 0; i < body->value_count; i++) {
        hk_value *v = body->values[i];
        const char *name = hk_arena_format(g->arena, "%s/%s", n->name, v->name);
        hk_value *copy = name ? hk_graph_value(g, name, v->kind, v->producer ? HK_DTYPE_NONE : v->dtype,
                                               v->producer ? NULL : &v->shape)
                              : NULL;
        if (!copy)
            return hk_out_of_memory(g->ctx, "an inlined branch");
        copy->data = v->data;
        v->mark = copy;
    }
    for (size_t i = 0; i < body->node_count; i++) {
        hk_node *inner = body->nodes[i];
        for (int32_t k = 0; k < inner->in_count; k++)
            if (inner->in[k] && inner->in[k]->graph == body)
                inner->in[k] = inner->in[k]->mark;
        for (int32_t k = 0; k < inner->out_count; k++)
            if (inner->out[k]) {
                inner->out[k] = inner->out[k]->mark;
                inner->out[k]->producer = inner;
            }
        for (int32_t b = 0; b < inner->body_count; b++) {
            inner->bodies[b]->outer = g;
            for (size_t v = 0; v < body->value_count; v++)
                hk_graph_replace(inner->bodies[b], body->values[v], body->values[v]->mark);
        }
        if (*count == *capacity && !hk_arena_grow(g->arena, (void **)queue, *count, capacity, sizeof **queue))
            return hk_out_of_memory(g->ctx, "an inlined branch");
        (*queue)[(*count)++] = inner;
    }
    for (int32_t i = 0; i < n->out_count && (size_t)i < body->output_count; i++) {
        hk_value *to = body->outputs[i]->graph == body ? body->outputs[i]->mark : body->outputs[i];
        if (n->out[i]) {
            n->out[i]->producer = NULL;
            hk_graph_replace(g, n->out[i], to);
        }
    }
    return HK_OK;
}

static hk_status infer_node(hk_graph *g, hk_node *n)
{
    HK_TRY(hk_node_infer(g, n));
    if (foldable(n))
        return fold(g, n);
    bool known = n->out_count > 0; /* Shape's result, found by inference itself */
    for (int32_t i = 0; i < n->out_count; i++)
        known &= !n->out[i] || n->out[i]->data;
    for (int32_t i = 0; known && i < n->out_count; i++)
        if (n->out[i])
            make_constant(n->out[i]);
    return HK_OK;
}

/* ---- operators that are others */

static bool expandable(const hk_node *n)
{
    if (!n->op || !n->op->expand)
        return false;
    for (int32_t i = 0; i < n->in_count; i++)
        if (n->in[i] && (!hk_shape_known(&n->in[i]->shape) || (n->op->host_inputs >> i & 1u && !n->in[i]->data)))
            return false;
    for (int32_t i = 0; i < n->out_count; i++)
        if (n->out[i] && n->out[i]->producer == n)
            return true;
    return false; /* folded */
}

/* Makes the new nodes define n's own output `to` where they define `from`. */
static hk_status take_output(hk_graph *g, size_t first, hk_value *from, hk_value *to)
{
    for (size_t i = first; i < g->node_count; i++) {
        hk_node *n = g->nodes[i];
        for (int32_t k = 0; k < n->out_count; k++) {
            if (n->out[k] != from)
                continue;
            n->out[k] = to;
            to->producer = n;
            for (size_t j = first; j < g->node_count; j++)
                for (int32_t i_in = 0; i_in < g->nodes[j]->in_count; i_in++)
                    if (g->nodes[j]->in[i_in] == from)
                        g->nodes[j]->in[i_in] = to;
            return HK_OK;
        }
    }
    hk_value *copy;
    HK_TRY(hk_build(g, "Identity", NULL, &from, 1, &copy, 1));
    return take_output(g, first, copy, to);
}

/* The nodes that take n's place, in order; they are taken off g's list again. */
static hk_status expand(hk_graph *g, const hk_node *n, hk_node ***nodes, size_t *count)
{
    size_t first = g->node_count;
    hk_value **out = hk_arena_array(g->arena, (size_t)n->out_count + 1, sizeof *out);
    if (!out)
        return hk_out_of_memory(g->ctx, "an operator's expansion");
    HK_TRY(n->op->expand(g, n, out));
    for (int32_t i = 0; i < n->out_count; i++)
        if (n->out[i])
            HK_TRY(take_output(g, first, out[i], n->out[i]));
    *count = g->node_count - first;
    *nodes = hk_arena_array(g->arena, *count + 1, sizeof **nodes);
    if (!*nodes)
        return hk_out_of_memory(g->ctx, "an operator's expansion");
    for (size_t i = 0; i < *count; i++) {
        (*nodes)[i] = g->nodes[first + i];
        (*nodes)[i]->name = n->name; /* what reports and errors call them */
    }
    g->node_count = first;
    return HK_OK;
}

/* Replaces the If nodes with a known condition and the operators that are others, and infers what comes in their place.
 */
static hk_status infer_list(hk_graph *g, hk_node **nodes, size_t count, hk_node ***kept, size_t *kept_count,
                            size_t *capacity)
{
    for (size_t i = 0; i < count; i++) {
        hk_node *n = nodes[i];
        const hk_tensor *condition = n->op && !strcmp(n->type, "If") ? hk_known(n, 0) : NULL;
        if (condition) {
            hk_node **inner = NULL;
            size_t inner_count = 0, inner_capacity = 0;
            HK_TRY(inline_branch(g, n, n->bodies[hk_get_int(condition, 0) ? 0 : 1], &inner, &inner_count,
                                 &inner_capacity));
            HK_TRY(infer_list(g, inner, inner_count, kept, kept_count, capacity));
            continue;
        }
        HK_TRY(infer_node(g, n));
        if (expandable(n)) {
            hk_node **inner = NULL;
            size_t inner_count = 0;
            HK_TRY(expand(g, n, &inner, &inner_count));
            HK_TRY(infer_list(g, inner, inner_count, kept, kept_count, capacity));
            continue;
        }
        if (*kept_count == *capacity && !hk_arena_grow(g->arena, (void **)kept, *kept_count, capacity, sizeof **kept))
            return hk_out_of_memory(g->ctx, "a graph");
        (*kept)[(*kept_count)++] = n;
    }
    return HK_OK;
}

hk_status hk_infer_graph(hk_graph *g)
{
    HK_TRY(hk_graph_sort(g));
    for (size_t i = 0; i < g->value_count; i++)
        if (g->values[i]->producer) {
            g->values[i]->dtype = HK_DTYPE_NONE;
            g->values[i]->shape = HK_SHAPE_UNKNOWN;
            g->values[i]->data = NULL;
        }
    hk_node **kept = NULL;
    size_t count = 0, capacity = 0;
    HK_TRY(infer_list(g, g->nodes, g->node_count, &kept, &count, &capacity));
    g->nodes = kept;
    g->node_count = count;
    g->node_capacity = capacity;
    return hk_graph_prune(g);
}
