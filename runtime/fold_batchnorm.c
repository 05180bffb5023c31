/* Conv or ConvTranspose followed by BatchNormalization with constant statistics: per output channel
 * W' = W g / sqrt(var + eps), b' = (b - mean) g / sqrt(var + eps) + beta. Needs no shapes, so it runs once on a
 * session's template. */
#include <math.h>
#include <string.h>

#include "runtime/passes.h"

static const hk_tensor *constant(const hk_node *n, int32_t i)
{
    const hk_value *v = hk_in(n, i);
    return v && v->data && !v->producer && v->kind != HK_VALUE_INPUT && v->dtype == HK_FLOAT32 ? v->data : NULL;
}

/* The output channel that element i of the weights belongs to: [out, in, ...], or a transposed convolution's
 * [in, out / group, ...]. */
static bool is_transposed(const hk_node *conv)
{
    return !strcmp(conv->type, "ConvTranspose");
}

static int64_t group_of(const hk_node *conv)
{
    const int64_t *group = hk_node_attr(conv, "group");
    return group && *group > 0 ? *group : 1;
}

static int64_t channel_count(const hk_node *conv, const hk_tensor *w)
{
    return is_transposed(conv) ? w->shape[1] * group_of(conv) : w->shape[0];
}

static int64_t channel_of(const hk_node *conv, const hk_tensor *w, int64_t i)
{
    int64_t row = hk_tensor_count(w) / w->shape[0];
    if (!is_transposed(conv))
        return i / row;
    int64_t group = i / row / HK_MAX(w->shape[0] / group_of(conv), 1);
    return group * w->shape[1] + i % row / (row / w->shape[1]);
}

static bool matches(const hk_node *conv, const hk_node *bn)
{
    const hk_tensor *w = constant(conv, 1);
    const int64_t *training = hk_node_attr(bn, "training_mode");
    if (strcmp(bn->type, "BatchNormalization") != 0 || (training && *training) || bn->out_count != 1 || !w ||
        w->rank < 3 || (hk_in(conv, 2) && !constant(conv, 2)))
        return false;
    for (int32_t i = 1; i < 5; i++)
        if (!constant(bn, i) || hk_tensor_count(constant(bn, i)) != channel_count(conv, w))
            return false;
    return true;
}

static hk_status fold(hk_graph *g, hk_node *conv, hk_node *bn)
{
    const hk_tensor *w = constant(conv, 1), *b = constant(conv, 2);
    int64_t count = channel_count(conv, w);
    hk_shape shape = hk_tensor_shape(w), channels = {.rank = 1, .dim = {count}};
    hk_tensor *w2 = hk_tensor_new(g->arena, HK_FLOAT32, &shape), *b2 = hk_tensor_new(g->arena, HK_FLOAT32, &channels);
    const float *epsilon = hk_node_attr(bn, "epsilon");
    double *scale = hk_arena_array(g->arena, (size_t)count + 1, sizeof *scale);
    if (!w2 || !b2 || !scale)
        return hk_out_of_memory(g->ctx, "folding BatchNormalization");
    for (int64_t c = 0; c < count; c++) {
        scale[c] = hk_get_double(constant(bn, 1), c) /
                   sqrt(hk_get_double(constant(bn, 4), c) + (epsilon ? (double)*epsilon : 1e-5));
        double bias = b ? hk_get_double(b, c) : 0;
        hk_set_double(b2, c, (bias - hk_get_double(constant(bn, 3), c)) * scale[c] + hk_get_double(constant(bn, 2), c));
    }
    float *to = w2->data;
    memcpy(to, w->data, (size_t)hk_tensor_bytes(w2));
    for (int64_t i = 0; i < hk_tensor_count(w); i++)
        to[i] = (float)((double)to[i] * scale[channel_of(conv, w, i)]);
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
        if (!n->op || (strcmp(n->type, "Conv") != 0 && strcmp(n->type, "ConvTranspose") != 0) ||
            uses.count[n->out[0]->id] != 1 || uses.is_output[n->out[0]->id])
            continue;
        hk_node *bn = uses.users[n->out[0]->id][0];
        if (bn->op && bn->in[0] == n->out[0] && matches(n, bn)) {
            HK_TRY(fold(g, n, bn));
            any = true;
        }
    }
    return any ? hk_graph_prune(g) : HK_OK;
}
