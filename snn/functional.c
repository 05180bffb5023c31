/*
 * Networks whose functions have no spiking counterpart (GELU, LayerNormalization, Softmax, attention): before a plan is
 * made, signed pairs of ReLUs go in front of the layers of weights that take what such functions hand on. The pairs
 * become neurons, so that weights are driven by spikes; the functions themselves are computed on running means
 * (snn/rewrite.c).
 */
#include <string.h>

#include "ops/op.h"
#include "snn/convert.h"

static bool is_constant(const hk_value *v)
{
    return !v || v->data;
}

static bool has_weights(const hk_node *n)
{
    return (!strcmp(n->type, "Conv") || !strcmp(n->type, "Gemm") || !strcmp(n->type, "MatMul")) && n->in_count > 1 &&
           n->in[1]->data;
}

/* The one operand that is no constant; NULL: several, or none. */
static hk_value *only_operand(const hk_node *n)
{
    hk_value *found = NULL;
    for (int32_t i = 0; i < n->in_count; i++) {
        if (is_constant(n->in[i]))
            continue;
        if (found && found != n->in[i])
            return NULL;
        found = n->in[i];
    }
    return found;
}

/* Comes, through operators that move or scale, from a function that is neither linear nor an activation. */
static bool comes_from_function(const hk_value *x)
{
    while (x && x->producer) {
        const hk_node *n = x->producer;
        bool product = !strcmp(n->type, "Mul") || !strcmp(n->type, "Div") || !strcmp(n->type, "MatMul");
        const hk_value *before = only_operand(n);
        if (hk_snn_is_activation(n) || has_weights(n))
            return false;
        if (product && !before)
            return true;
        if (!hk_snn_is_linear(n->type) && strcmp(n->type, "MaxPool") != 0 && strcmp(n->type, "GlobalMaxPool") != 0)
            return n->op != NULL;
        x = before;
    }
    return false;
}

static hk_status relu_of(hk_graph *g, int32_t opset, hk_value *x, const char *of, const char *end, hk_value **out)
{
    const char *name = hk_arena_format(g->arena, "%s%s", of, end);
    return name ? hk_snn_node_make(g, opset, "Relu", name, NULL, &x, 1, out) : hk_out_of_memory(g->ctx, "a conversion");
}

/* relu(x) - relu(-x) */
static hk_status make_pair(hk_graph *g, int32_t opset, hk_value *x, hk_value **out)
{
    hk_value *minus = NULL, *half[2] = {NULL, NULL};
    HK_TRY(hk_snn_node_make(g, opset, "Neg", NULL, NULL, &x, 1, &minus));
    HK_TRY(relu_of(g, opset, x, x->name, HK_SNN_PLUS, &half[0]));
    HK_TRY(relu_of(g, opset, minus, x->name, HK_SNN_MINUS, &half[1]));
    return hk_snn_node_make(g, opset, "Sub", NULL, NULL, half, 2, out);
}

hk_status hk_snn_sign_pairs(hk_graph *g)
{
    int32_t opset = hk_snn_opset(g);
    size_t values = g->value_count, nodes = g->node_count;
    hk_value **pairs = hk_arena_array(g->arena, values + 1, sizeof(hk_value *));
    if (!pairs)
        return hk_out_of_memory(g->ctx, "a conversion");
    for (size_t i = 0; i < nodes; i++) {
        hk_node *n = g->nodes[i];
        if (!has_weights(n) || n->in[0]->id >= values || !comes_from_function(n->in[0]))
            continue;
        hk_value **pair = &pairs[n->in[0]->id];
        if (!*pair)
            HK_TRY(make_pair(g, opset, n->in[0], pair));
        n->in[0] = *pair;
    }
    return hk_graph_sort(g);
}
