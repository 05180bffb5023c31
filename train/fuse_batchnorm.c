/*
 * BatchNormalization in training mode takes over the ReLU, or the spiking neurons, and the 2x2 max-pooling behind it:
 * one pass over the convolution's result instead of three, and backward recomputes the decisions instead of saving
 * them. Done before differentiation, because hk.BatchNormAct and hk.BatchNormNeuron have backward rules of their own.
 */
#include <string.h>

#include "ops/support/build.h"
#include "ops/support/neuron_lower.h"
#include "train/training.h"

static hk_node *only_user(const hk_graph *g, const hk_uses *uses, const hk_value *v)
{
    return v->graph == g && uses->count[v->id] == 1 && !uses->is_output[v->id] ? uses->users[v->id][0] : NULL;
}

static bool all_equal(const hk_node *n, const char *name, int64_t wanted, bool absent)
{
    const hk_ints *list = hk_node_attr(n, name);
    if (!list || !list->v)
        return absent;
    for (int32_t i = 0; i < list->count; i++)
        if (list->v[i] != wanted)
            return false;
    return true;
}

/* Windows of 2x2 that tile the plane. */
static bool is_tiling_pool(const hk_node *n)
{
    if (!hk_node_is(n, "MaxPool") || hk_out(n, 1))
        return false;
    const hk_shape *x = &n->in[0]->shape;
    const char *const *auto_pad = hk_node_attr(n, "auto_pad");
    return x->rank == 4 && x->dim[2] % 2 == 0 && x->dim[3] % 2 == 0 && all_equal(n, "kernel_shape", 2, false) &&
           all_equal(n, "strides", 2, false) && all_equal(n, "pads", 0, true) && all_equal(n, "dilations", 1, true) &&
           (!auto_pad || !*auto_pad || !strcmp(*auto_pad, "NOTSET") || !strcmp(*auto_pad, "VALID"));
}

/* New running statistics are outputs of the fused node. */
static void take_states(const hk_node *bn, hk_value *const *out)
{
    for (int i = 1; i < 3; i++)
        if (bn->out[i]->state) {
            out[i]->state = bn->out[i]->state;
            out[i]->state->last = out[i];
        }
}

static hk_status fuse(hk_graph *g, hk_node *bn, const hk_node *relu, const hk_node *pool)
{
    const float *epsilon = hk_node_attr(bn, "epsilon"), *momentum = hk_node_attr(bn, "momentum");
    const int64_t *unbiased = hk_node_attr(bn, "hk.unbiased");
    const hk_attr_value attrs[] = {HK_SET_FLOAT("epsilon", *epsilon),
                                   HK_SET_FLOAT("momentum", *momentum),
                                   HK_SET_INT("training_mode", 1),
                                   HK_SET_INT("hk.unbiased", *unbiased),
                                   HK_SET_INT("relu", 1),
                                   HK_SET_INT("pool", pool != NULL),
                                   {0}};
    hk_value *out[3];
    HK_TRY(hk_build(g, "hk.BatchNormAct", attrs, bn->in, 5, out, 3));
    take_states(bn, out);
    hk_graph_replace(g, (pool ? pool : relu)->out[0], out[0]);
    return HK_OK;
}

/* ---- spiking neurons: BatchNormalization, time split from the batch, hk.Neuron, time joined again, pooling */

/* A node that gives v, which nobody else reads, another shape. */
static const hk_node *reshaping(const hk_graph *g, const hk_uses *uses, const hk_value *v)
{
    const hk_node *n = only_user(g, uses, v);
    return n && n->in[0] == v && n->op && (n->op->flags & HK_OP_VIEW) && hk_node_view_offset(n) == 0 ? n : NULL;
}

/* (T,N,...) of (T N,...) */
static bool splits(const hk_shape *split, const hk_shape *x, int64_t steps)
{
    bool equal = split->rank == x->rank + 1 && split->dim[0] == steps && steps * split->dim[1] == x->dim[0];
    for (int32_t d = 1; d < x->rank && equal; d++)
        equal = split->dim[d + 1] == x->dim[d];
    return equal;
}

/* Are spikes the only result that is used, from no initial potential, with the threshold as an attribute? */
static bool fires_alone(const hk_graph *g, const hk_uses *uses, const hk_node *n)
{
    bool alone = !hk_in(n, 1) && !hk_in(n, 3) && !uses->is_output[n->out[0]->id];
    for (int32_t i = 1; i < n->out_count; i++) {
        const hk_value *v = n->out[i];
        alone = alone && (!v || (v->graph == g && uses->count[v->id] == 0 && !uses->is_output[v->id] && !v->state));
    }
    return alone;
}

static hk_status fuse_neuron(hk_graph *g, const hk_uses *uses, hk_node *bn)
{
    const hk_shape *x = &bn->in[0]->shape;
    const hk_node *split = reshaping(g, uses, bn->out[0]), *neuron = split ? only_user(g, uses, split->out[0]) : NULL;
    if (!hk_node_is(neuron, "hk.Neuron") || neuron->in[0] != split->out[0] || !hk_shape_known(x) || x->rank < 2 ||
        !fires_alone(g, uses, neuron))
        return HK_OK;
    const int64_t *steps = hk_node_attr(neuron, "steps");
    if (*steps < 1 || !splits(&split->out[0]->shape, x, *steps))
        return HK_OK;
    const hk_node *join = reshaping(g, uses, neuron->out[0]);
    if (join && !hk_shape_equal(&join->out[0]->shape, x))
        join = NULL;
    const hk_node *pool = join ? only_user(g, uses, join->out[0]) : NULL;
    if (pool && !is_tiling_pool(pool))
        pool = NULL;
    hk_attr_value list[HK_NEURON_LIST + 5];
    size_t count = hk_neuron_list(neuron->attrs, list);
    list[count++] = (hk_attr_value)HK_SET_FLOAT("epsilon", *(const float *)hk_node_attr(bn, "epsilon"));
    list[count++] = (hk_attr_value)HK_SET_FLOAT("momentum", *(const float *)hk_node_attr(bn, "momentum"));
    list[count++] = (hk_attr_value)HK_SET_INT("hk.unbiased", *(const int64_t *)hk_node_attr(bn, "hk.unbiased"));
    list[count++] = (hk_attr_value)HK_SET_INT("pool", pool != NULL);
    list[count] = (hk_attr_value){0};
    hk_value *in[6], *out[3], *spikes;
    memcpy(in, bn->in, 5 * sizeof *in);
    in[5] = hk_in(neuron, 2);
    HK_TRY(hk_build(g, "hk.BatchNormNeuron", list, in, in[5] ? 6 : 5, out, 3));
    take_states(bn, out);
    spikes = out[0];
    if (!join)
        HK_TRY(hk_build_reshape(g, out[0], &neuron->out[0]->shape, &spikes));
    hk_graph_replace(g, pool ? pool->out[0] : join ? join->out[0] : neuron->out[0], spikes);
    return HK_OK;
}

hk_status hk_fuse_batchnorm(hk_graph *g)
{
    hk_uses uses;
    HK_TRY(hk_graph_uses(g, g->arena, &uses));
    size_t count = g->node_count;
    for (size_t i = 0; i < count; i++) {
        hk_node *n = g->nodes[i];
        const int64_t *training = hk_node_is(n, "BatchNormalization") ? hk_node_attr(n, "training_mode") : NULL;
        if (!training || !*training || n->out_count != 3 || n->in[0]->dtype != HK_FLOAT32)
            continue;
        hk_node *relu = only_user(g, &uses, n->out[0]);
        if (!hk_node_is(relu, "Relu")) {
            HK_TRY(fuse_neuron(g, &uses, n));
            continue;
        }
        hk_node *pool = only_user(g, &uses, relu->out[0]);
        HK_TRY(fuse(g, n, relu, pool && is_tiling_pool(pool) ? pool : NULL));
    }
    return hk_graph_prune(g);
}
