/*
 * From a complete graph to a model's: shapes inferred, trainable roles, operators counted.
 */
#include <stdlib.h>
#include <string.h>

#include "importer/internal.h"
#include "ops/roles.h"

/* ---- inference */

/* Behind and around something unsupported nothing is known; that is reported once, where it begins. */
static bool has_unknown_input(const hk_node *n)
{
    for (int32_t i = 0; i < n->in_count; i++)
        if (n->in[i] != NULL && n->in[i]->dtype == HK_DTYPE_NONE)
            return true;
    return false;
}

static bool has_unknown_operator(const hk_node *n)
{
    for (int32_t b = 0; b < n->body_count; b++)
        for (size_t i = 0; i < n->bodies[b]->node_count; i++)
            if (n->bodies[b]->nodes[i]->op == NULL || has_unknown_operator(n->bodies[b]->nodes[i]))
                return true;
    return false;
}

/* The sentence of a failed inference without the node's name, which a problem has in a member of its own. */
static const char *without_node(const char *sentence)
{
    const char *end = strncmp(sentence, "node '", 6) == 0 ? strstr(sentence, "): ") : NULL;
    return end == NULL ? sentence : end + 3;
}

hk_status hk_import_infer(hk_importer *imp)
{
    hk_graph *g = imp->result->graph;
    for (size_t i = 0; i < g->node_count; i++) {
        hk_node *n = g->nodes[i];
        if (n->op == NULL || (imp->result->problem_count != 0 && (has_unknown_input(n) || has_unknown_operator(n))))
            continue;
        hk_status st = hk_node_infer(g, n);
        if (st == HK_STATUS_UNSUPPORTED)
            st = hk_import_problem(imp, n->name, n->type, without_node(hk_context_error(imp->ctx)));
        HK_TRY(st);
    }
    return HK_OK;
}

/* ---- roles: a float initializer that reaches a weight operand, through operators that only rearrange it, is trainable
 */

/* The operands of n that hold weights: of a rearrangement of weights, the data that is rearranged. */
static bool is_weight(const hk_node *n, int32_t k, bool weights_result)
{
    return hk_node_is_parametric(n, k) || (weights_result && hk_node_hands_on(n, k));
}

/* One number is a factor or a bound and no weight, but the parameter of an operator that has just such a one, and the
 * bias, scale or slope of a layer of one output or channel, which is a vector of one. */
static bool is_single_weight(const hk_node *n, int32_t k, bool weights_result)
{
    if (!hk_node_is_parametric(n, k))
        return weights_result && n->out[0]->mark != n->out[0];
    if (strcmp(n->type, "hk.Neuron") == 0 || strcmp(n->type, "hk.QCFS") == 0)
        return true;
    bool lookup = strcmp(n->type, "Gather") == 0 || strcmp(n->type, "Einsum") == 0;
    if (n->in[k]->shape.rank < 1 || lookup)
        return false;
    const hk_value *y = n->out[0];
    return strcmp(n->type, "Add") != 0 || (y->shape.rank > 0 && y->shape.dim[y->shape.rank - 1] == 1);
}

/* Marks values of g that nodes of the graph, g or the body of a Scan in it (which training unrolls), take as weights:
 * with themselves, or with the node that takes one number. */
static void mark_weights(const hk_graph *g, const hk_graph *graph)
{
    for (size_t i = graph->node_count; i-- > 0;) {
        hk_node *n = graph->nodes[i];
        bool weights_result = n->out_count != 0 && n->out[0] != NULL && n->out[0]->mark != NULL;
        for (int32_t k = 0; n->op != NULL && k < n->in_count && k < 32; k++) {
            hk_value *v = n->in[k];
            if (v != NULL && v->graph == g && is_weight(n, k, weights_result))
                v->mark = is_single_weight(n, k, weights_result) ? (void *)n : v;
        }
        for (int32_t b = 0; b < n->body_count && strcmp(n->type, "Scan") == 0; b++)
            mark_weights(g, n->bodies[b]);
    }
}

/* Backwards, from weight operands to what they are made of. */
hk_status hk_import_roles(hk_importer *imp)
{
    hk_graph *g = imp->result->graph;
    for (size_t i = 0; i < g->value_count; i++)
        g->values[i]->mark = NULL;
    mark_weights(g, g);
    for (size_t i = 0; i < imp->initializer_count; i++) {
        hk_value *v = imp->initializers[i];
        bool several = v->shape.rank >= 1 && hk_shape_count(&v->shape) > 1, single = v->mark != v;
        if (v->mark != NULL && hk_dtype_is_float(v->dtype) && (several || single))
            v->kind = HK_VALUE_PARAMETER;
    }
    for (size_t i = 0; i < g->value_count; i++)
        g->values[i]->mark = NULL;
    return HK_OK;
}

/* ---- counts */

static hk_status count_nodes(hk_importer *imp, const hk_graph *g, hk_map *counts, size_t *kinds)
{
    for (size_t i = 0; i < g->node_count; i++) {
        const hk_node *n = g->nodes[i];
        const char *name = n->type;
        if (n->domain != NULL && (name = hk_arena_format(imp->temporary, "%s.%s", n->domain, n->type)) == NULL)
            return hk_out_of_memory(imp->ctx, "the operators' names");
        hk_op_count *c = hk_map_get(counts, name);
        if (c == NULL) {
            c = hk_arena_new(imp->temporary, hk_op_count);
            if (c == NULL || !hk_map_set(counts, name, c))
                return hk_out_of_memory(imp->ctx, "the operators' names");
            c->op = name;
            (*kinds)++;
        }
        c->nodes++;
        for (int32_t b = 0; b < n->body_count; b++)
            HK_TRY(count_nodes(imp, n->bodies[b], counts, kinds));
    }
    return HK_OK;
}

/* The list is filled while walking again: what has been taken is set to 0. */
static hk_status list_counts(hk_importer *imp, const hk_graph *g, const hk_map *counts)
{
    hk_import_result *r = imp->result;
    for (size_t i = 0; i < g->node_count; i++) {
        const hk_node *n = g->nodes[i];
        const char *name = n->domain == NULL ? n->type : hk_arena_format(imp->temporary, "%s.%s", n->domain, n->type);
        hk_op_count *c = name == NULL ? NULL : hk_map_get(counts, name);
        if (c == NULL)
            return hk_out_of_memory(imp->ctx, "the operators' names");
        if (c->nodes != 0) {
            hk_op_count *to = &r->ops[r->op_count++];
            *to = (hk_op_count){.op = hk_arena_string(imp->arena, name), .nodes = c->nodes};
            if (to->op == NULL)
                return hk_out_of_memory(imp->ctx, "the operators' names");
            c->nodes = 0;
        }
        for (int32_t b = 0; b < n->body_count; b++)
            HK_TRY(list_counts(imp, n->bodies[b], counts));
    }
    return HK_OK;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const hk_op_count *)a)->op, ((const hk_op_count *)b)->op);
}

hk_status hk_import_count(hk_importer *imp)
{
    hk_import_result *r = imp->result;
    hk_map counts;
    size_t kinds = 0;
    hk_map_init(&counts, imp->temporary);
    HK_TRY(count_nodes(imp, r->graph, &counts, &kinds));
    r->ops = hk_arena_array(imp->arena, kinds + 1, sizeof *r->ops);
    if (r->ops == NULL)
        return hk_out_of_memory(imp->ctx, "the operators' names");
    HK_TRY(list_counts(imp, r->graph, &counts));
    qsort(r->ops, r->op_count, sizeof *r->ops, compare_names);
    return HK_OK;
}
