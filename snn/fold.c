/*
 * Amplitudes of spikes into the weights behind them, corrections into the biases before: then neurons hand on zeros and
 * ones. Both look at the graph before it is rewritten.
 */
#include <string.h>

#include "ops/op.h"
#include "snn/fold.h"

static int64_t int_attr(const hk_node *n, const char *name, int64_t otherwise)
{
    const int64_t *i = hk_node_attr(n, name);
    return i ? *i : otherwise;
}

/* Contents of an operand that nobody else uses. */
static hk_value *own_constant(const hk_uses *uses, const hk_node *n, int32_t i)
{
    hk_value *v = hk_in(n, i);
    bool constant = v && v->data && !v->producer && v->kind != HK_VALUE_INPUT && v->dtype == HK_FLOAT32;
    return constant && uses->count[v->id] == 1 && !uses->is_output[v->id] ? v : NULL;
}

static hk_tensor *copy_of(hk_graph *g, const hk_tensor *t)
{
    hk_shape shape = hk_tensor_shape(t);
    hk_tensor *copy = hk_tensor_new(g->arena, t->dtype, &shape);
    if (copy)
        memcpy(copy->data, t->data, (size_t)hk_tensor_bytes(t));
    return copy;
}

static hk_status scale_weight(hk_snn_plan *p, hk_value *w, int64_t inner, int64_t extent, int64_t group_elements,
                              const hk_snn_site *s, int64_t per_channel)
{
    hk_tensor *t = copy_of(p->graph, w->data);
    if (!t)
        return hk_out_of_memory(p->graph->ctx, "weights");
    float *x = t->data;
    for (int64_t i = 0, n = hk_tensor_count(t); i < n; i++) {
        int64_t k = i / inner % extent + i / group_elements * extent;
        x[i] *= s->thresholds[s->channels == 1 ? 0 : k / per_channel];
    }
    w->data = t;
    w->payload = NULL;
    return HK_OK;
}

/* Conv, Gemm or MatMul behind v. *fits tells whether it can; apply: does it. */
static hk_status fold_weight(hk_snn_plan *p, const hk_uses *uses, hk_node *n, const hk_value *v, const hk_snn_site *s,
                             bool apply, bool *fits)
{
    hk_value *w = own_constant(uses, n, 1);
    const hk_shape *x = &p->shapes[v->id];
    int64_t inner = 1, extent = 0, per_channel = 1;
    *fits = false;
    if (n->in[0] != v || !w)
        return HK_OK;
    int64_t count = hk_tensor_count(w->data), group_elements = count;
    if (!strcmp(n->type, "Conv")) {
        int64_t groups = int_attr(n, "group", 1), outs = w->data->shape[0];
        extent = w->data->shape[1];
        inner = count / HK_MAX(outs * extent, (int64_t)1);
        group_elements = count / HK_MAX(groups, (int64_t)1);
        *fits = s->channels == 1 || extent * groups == s->channels;
    } else if (!strcmp(n->type, "Gemm") || !strcmp(n->type, "MatMul")) {
        bool transposed = int_attr(n, "transB", 0) != 0;
        if (w->data->rank != 2 || int_attr(n, "transA", 0))
            return HK_OK;
        extent = w->data->shape[transposed ? 1 : 0];
        inner = transposed ? 1 : w->data->shape[1];
        per_channel = extent / s->channels;
        *fits = s->channels == 1 || (x->rank == 2 && per_channel * s->channels == extent && per_channel > 0);
    }
    return *fits && apply && count > 0 ? scale_weight(p, w, inner, extent, group_elements, s, per_channel) : HK_OK;
}

/* Axes of a ReduceMean that all lie behind the channels. */
static bool reduces_inner(const hk_snn_plan *p, const hk_node *n, int32_t rank)
{
    const hk_ints *list = hk_node_attr(n, "axes");
    const hk_value *v = hk_in(n, 1);
    const hk_tensor *t = v ? v->data ? v->data : p->known[v->id] : NULL;
    int64_t count = t ? hk_tensor_count(t) : list && list->v ? list->count : 0;
    for (int64_t i = 0; i < count; i++)
        if (hk_axis(t ? hk_get_int(t, i) : list->v[i], rank) < 2)
            return false;
    return count > 0;
}

/* Operators that hand a positive factor of a channel on to the same channel. */
static bool hands_on(const hk_snn_plan *p, const hk_node *n, const hk_value *v, const hk_snn_site *s)
{
    static const char *const pools[] = {"AveragePool",   "GlobalAveragePool", "MaxPool",
                                        "GlobalMaxPool", "Identity",          "Dropout"};
    if (n->in[0] != v || n->out_count < 1 || !n->out[0] || (n->out_count > 1 && n->out[1]))
        return false;
    for (size_t i = 0; i < HK_COUNT(pools); i++)
        if (!strcmp(n->type, pools[i]))
            return true;
    const hk_shape *x = &p->shapes[v->id], *y = &p->shapes[n->out[0]->id];
    if (!strcmp(n->type, "ReduceMean"))
        return reduces_inner(p, n, x->rank);
    if (!strcmp(n->type, "Flatten") || !strcmp(n->type, "Reshape") || !strcmp(n->type, "Squeeze"))
        return y->rank == 2 || (y->rank > 2 && y->dim[1] == s->channels);
    return false;
}

static hk_status fold_users(hk_snn_plan *p, const hk_uses *uses, const hk_value *v, const hk_snn_site *s, bool apply,
                            bool *fits)
{
    *fits = !uses->is_output[v->id] && uses->count[v->id] > 0;
    for (uint32_t i = 0; i < uses->count[v->id] && *fits; i++) {
        hk_node *n = uses->users[v->id][i];
        if (hands_on(p, n, v, s))
            HK_TRY(fold_users(p, uses, n->out[0], s, apply, fits));
        else
            HK_TRY(fold_weight(p, uses, n, v, s, apply, fits));
    }
    return HK_OK;
}

hk_status hk_snn_fold_amplitude(hk_snn_plan *p, const hk_uses *uses, hk_snn_site *s)
{
    HK_TRY(fold_users(p, uses, s->y, s, false, &s->folded));
    return s->folded ? fold_users(p, uses, s->y, s, true, &s->folded) : HK_OK;
}

hk_status hk_snn_fold_correction(hk_snn_plan *p, const hk_uses *uses, hk_snn_site *s, bool *folded)
{
    hk_graph *g = p->graph;
    hk_node *n = s->x->producer;
    *folded = false;
    bool fits = n && (!strcmp(n->type, "Conv") || !strcmp(n->type, "Gemm")) && uses->count[s->x->id] == 1 &&
                !uses->is_output[s->x->id] && s->channels > 1;
    const float *beta = fits ? hk_node_attr(n, "beta") : NULL;
    hk_value *b = fits ? own_constant(uses, n, 2) : NULL;
    if (!fits || (beta && (*beta < 1 || *beta > 1)) || (hk_in(n, 2) && !b) ||
        (b && (b->data->rank != 1 || b->data->shape[0] != s->channels)))
        return HK_OK;
    *folded = true;
    if (!b) {
        b = hk_snn_floats(g, NULL, s->corrections, 1, &s->channels);
        if (b && n->in_count > 2)
            n->in[2] = b;
        else if (b && !hk_node_add_input(n, b))
            b = NULL;
        return b ? HK_OK : hk_out_of_memory(g->ctx, "a bias");
    }
    hk_tensor *t = copy_of(g, b->data);
    if (!t)
        return hk_out_of_memory(g->ctx, "a bias");
    for (int64_t c = 0; c < s->channels; c++)
        ((float *)t->data)[c] += s->corrections[c];
    b->data = t;
    b->payload = NULL;
    return HK_OK;
}
