/*
 * Conv, ConvTranspose or Gemm followed by BatchNormalization with constant statistics: W' = W g / sqrt(var + eps),
 * b' = (b - mean) g / sqrt(var + eps) + beta, per output channel. Needs no shapes, so it runs once on a session's
 * template.
 */
#include <math.h>
#include <string.h>

#include "runtime/passes.h"

static const hk_tensor *constant(const hk_node *n, int32_t i)
{
    const hk_value *v = hk_in(n, i);
    return v && v->data && !v->producer && v->kind != HK_VALUE_INPUT && v->dtype == HK_FLOAT32 ? v->data : NULL;
}

/* How elements of a weight belong to output channels: element i to (i / inner) % extent, plus extent for each whole
 * `group` of elements (ConvTranspose's groups; else 0). */
typedef struct channel_map {
    int64_t channels, inner, extent, group;
} channel_map;

static int64_t int_attr(const hk_node *n, const char *name, int64_t otherwise)
{
    const int64_t *i = hk_node_attr(n, name);
    return i ? *i : otherwise;
}

static float float_attr(const hk_node *n, const char *name, float otherwise)
{
    const float *f = hk_node_attr(n, name);
    return f ? *f : otherwise;
}

static bool map_channels(const hk_node *n, const hk_tensor *w, channel_map *m)
{
    int64_t count = hk_tensor_count(w), groups = int_attr(n, "group", 1);
    bool transposed = int_attr(n, "transB", 0) != 0;
    if (count <= 0)
        return false;
    if (!strcmp(n->type, "Conv") && w->rank >= 3) {
        *m = (channel_map){.channels = w->shape[0], .inner = count / w->shape[0], .extent = w->shape[0]};
    } else if (!strcmp(n->type, "ConvTranspose") && w->rank >= 3 && groups > 0 && w->shape[0] % groups == 0) {
        *m = (channel_map){.channels = w->shape[1] * groups,
                           .inner = count / w->shape[0] / w->shape[1],
                           .extent = w->shape[1],
                           .group = count / groups};
    } else if (!strcmp(n->type, "Gemm") && w->rank == 2 && float_attr(n, "beta", 1) == 1.0f) {
        *m = (channel_map){.channels = w->shape[transposed ? 0 : 1], .inner = transposed ? w->shape[1] : 1};
        m->extent = m->channels;
    } else {
        return false;
    }
    return true;
}

static int64_t channel_of(const channel_map *m, int64_t i)
{
    return i / m->inner % m->extent + (m->group ? i / m->group * m->extent : 0);
}

static bool matches(const hk_node *base, const hk_node *bn, channel_map *m)
{
    const hk_tensor *w = constant(base, 1), *b = constant(base, 2);
    const int64_t *training = hk_node_attr(bn, "training_mode");
    if (strcmp(bn->type, "BatchNormalization") != 0 || (training && *training) || bn->out_count != 1 || !w ||
        (hk_in(base, 2) && !b) || !map_channels(base, w, m))
        return false;
    if (b && (b->rank != 1 || b->shape[0] != m->channels))
        return false;
    for (int32_t i = 1; i < 5; i++)
        if (!constant(bn, i) || hk_tensor_count(constant(bn, i)) != m->channels)
            return false;
    return true;
}

static hk_status fold(hk_graph *g, hk_node *base, hk_node *bn, const channel_map *m)
{
    const hk_tensor *w = constant(base, 1), *b = constant(base, 2);
    hk_shape shape = hk_tensor_shape(w), channels = {.rank = 1, .dim = {m->channels}};
    hk_tensor *w2 = hk_tensor_new(g->arena, HK_FLOAT32, &shape), *b2 = hk_tensor_new(g->arena, HK_FLOAT32, &channels);
    double *scale = hk_arena_array(g->arena, (size_t)m->channels, sizeof *scale);
    double epsilon = (double)float_attr(bn, "epsilon", 1e-5f);
    if (!w2 || !b2 || !scale)
        return hk_out_of_memory(g->ctx, "folding BatchNormalization");
    for (int64_t c = 0; c < m->channels; c++) {
        scale[c] = hk_get_double(constant(bn, 1), c) / sqrt(hk_get_double(constant(bn, 4), c) + epsilon);
        double bias = b ? hk_get_double(b, c) : 0;
        hk_set_double(b2, c, (bias - hk_get_double(constant(bn, 3), c)) * scale[c] + hk_get_double(constant(bn, 2), c));
    }
    float *to = w2->data;
    memcpy(to, w->data, (size_t)hk_tensor_bytes(w)); /* in a file it need not be aligned */
    for (int64_t i = 0; i < hk_tensor_count(w); i++)
        to[i] = (float)((double)to[i] * scale[channel_of(m, i)]);
    hk_value *values[2] = {hk_graph_constant(g, base->in[1]->name, w2), hk_graph_constant(g, bn->in[2]->name, b2)};
    if (!values[0] || !values[1])
        return HK_STATUS_OUT_OF_MEMORY;
    base->in[1] = values[0];
    if (base->in_count > 2)
        base->in[2] = values[1];
    else if (!hk_node_add_input(base, values[1]))
        return HK_STATUS_OUT_OF_MEMORY;
    hk_graph_take_over(base->out[0], bn->out[0]);
    return HK_OK;
}

hk_status hk_fold_batchnorm(hk_graph *g)
{
    hk_uses uses;
    HK_TRY(hk_graph_uses(g, g->arena, &uses));
    bool any = false;
    for (size_t i = 0; i < g->node_count; i++) {
        hk_node *n = g->nodes[i];
        if (!n->op || n->in_count < 2 || !hk_out(n, 0) || uses.count[n->out[0]->id] != 1 ||
            uses.is_output[n->out[0]->id])
            continue;
        hk_node *bn = uses.users[n->out[0]->id][0];
        channel_map m;
        if (bn->op && bn->in[0] == n->out[0] && matches(n, bn, &m)) {
            HK_TRY(fold(g, n, bn, &m));
            any = true;
        }
    }
    return any ? hk_graph_prune(g) : HK_OK;
}
