/* Conv followed by BatchNormalization with constant statistics: W' = W g / sqrt(var + eps), b' = (b - mean) g /
 * sqrt(var
 * + eps) + beta, per output channel. Needs no shapes, so it runs once on a session's template. */
#include <math.h>
#include <string.h>

#include "runtime/passes.h"

static const hk_tensor *constant(const hk_node *n, int32_t i)
{
    const hk_value *v = hk_in(n, i);
    return v && v->data && !v->producer && v->kind != HK_VALUE_INPUT && v->dtype == HK_FLOAT32 ? v->data : NULL;
}

static bool matches(const hk_node *conv, const hk_node *bn)
{
    const hk_tensor *w = constant(conv, 1);
    const int64_t *training = hk_node_attr(bn, "training_mode");
    if (strcmp(bn->type, "BatchNormalization") != 0 || (training && *training) || bn->out_count != 1 || !w ||
        w->rank < 3 || (hk_in(conv, 2) && !constant(conv, 2)))
        return false;
    for (int32_t i = 1; i < 5; i++)
        if (!constant(bn, i) || hk_tensor_count(constant(bn, i)) != w->shape[0])
            return false;
    return true;
}

static hk_status fold(hk_graph *g, hk_node *conv, hk_node *bn)
{
    const hk_tensor *w = constant(conv, 1), *b = constant(conv, 2);
    hk_shape shape = hk_tensor_shape(w), channels = {.rank = 1, .dim = {w->shape[0]}};
    hk_tensor *w2 = hk_tensor_new(g->arena, HK_FLOAT32, &shape), *b2 = hk_tensor_new(g->arena, HK_FLOAT32, &channels);
    const float *epsilon = hk_node_attr(bn, "epsilon");
    if (!w2 || !b2)
        return hk_out_of_memory(g->ctx, "folding BatchNormalization");
    int64_t each = hk_tensor_count(w) / HK_MAX(w->shape[0], (int64_t)1);
    for (int64_t c = 0; c < w->shape[0]; c++) {
        double scale = hk_get_double(constant(bn, 1), c) /
                       sqrt(hk_get_double(constant(bn, 4), c) + (epsilon ? (double)*epsilon : 1e-5));
        double bias = b ? hk_get_double(b, c) : 0;
        hk_set_double(b2, c, (bias - hk_get_double(constant(bn, 3), c)) * scale + hk_get_double(constant(bn, 2), c));
        float *to = (float *)w2->data + c * each;
        memcpy(to, (const char *)w->data + c * each * (int64_t)sizeof *to, (size_t)each * sizeof *to);
        for (int64_t i = 0; i < each; i++)
            to[i] = (float)((double)to[i] * scale);
    }
    hk_value *values[2] = {hk_graph_constant(g, conv->in[1]->name, w2), hk_graph_constant(g, bn->in[2]->name, b2)};
    if (!values[0] || !values[1])
        return HK_STATUS_OUT_OF_MEMORY;
    conv->in[1] = values[0];
    if (conv->in_count > 2)
        conv->in[2] = values[1];
    else if (!hk_node_add_input(conv, values[1]))
        return HK_STATUS_OUT_OF_MEMORY;
    hk_graph_take_over(conv->out[0], bn->out[0]);
    return HK_OK;
}

hk_status hk_fold_batchnorm(hk_graph *g)
{
    hk_uses uses;
    HK_TRY(hk_graph_uses(g, g->arena, &uses));
    bool any = false;
    for (size_t i = 0; i < g->node_count; i++) {
        hk_node *n = g->nodes[i];
        if (!n->op || strcmp(n->type, "Conv") != 0 || uses.count[n->out[0]->id] != 1 || uses.is_output[n->out[0]->id])
            continue;
        hk_node *bn = uses.users[n->out[0]->id][0];
        if (bn->op && bn->in[0] == n->out[0] && matches(n, bn)) {
            HK_TRY(fold(g, n, bn));
            any = true;
        }
    }
    return any ? hk_graph_prune(g) : HK_OK;
}
