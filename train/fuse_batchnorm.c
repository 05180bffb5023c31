/*
 * BatchNormalization in training mode takes over the ReLU and the 2x2 max-pooling behind it: one pass over the
 * convolution's result instead of three, and backward recomputes both decisions instead of saving them. Done before
 * differentiation, because hk.BatchNormAct has a backward rule of its own.
 */
#include <string.h>

#include "train/training.h"

static bool is_type(const hk_node *n, const char *type)
{
    return n && n->op && !strcmp(n->type, type);
}

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
    if (!is_type(n, "MaxPool") || hk_out(n, 1))
        return false;
    const hk_shape *x = &n->in[0]->shape;
    const char *const *auto_pad = hk_node_attr(n, "auto_pad");
    return x->rank == 4 && x->dim[2] % 2 == 0 && x->dim[3] % 2 == 0 && all_equal(n, "kernel_shape", 2, false) &&
           all_equal(n, "strides", 2, false) && all_equal(n, "pads", 0, true) && all_equal(n, "dilations", 1, true) &&
           (!auto_pad || !*auto_pad || !strcmp(*auto_pad, "NOTSET") || !strcmp(*auto_pad, "VALID"));
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
    for (int i = 1; i < 3; i++)
        if (bn->out[i]->state) {
            out[i]->state = bn->out[i]->state;
            out[i]->state->last = out[i];
        }
    hk_graph_replace(g, (pool ? pool : relu)->out[0], out[0]);
    return HK_OK;
}

hk_status hk_fuse_batchnorm(hk_graph *g)
{
    hk_uses uses;
    HK_TRY(hk_graph_uses(g, g->arena, &uses));
    size_t count = g->node_count;
    for (size_t i = 0; i < count; i++) {
        hk_node *n = g->nodes[i];
        const int64_t *training = is_type(n, "BatchNormalization") ? hk_node_attr(n, "training_mode") : NULL;
        if (!training || !*training || n->out_count != 3 || n->in[0]->dtype != HK_FLOAT32)
            continue;
        hk_node *relu = only_user(g, &uses, n->out[0]);
        if (!is_type(relu, "Relu"))
            continue;
        hk_node *pool = only_user(g, &uses, relu->out[0]);
        HK_TRY(fuse(g, n, relu, pool && is_tiling_pool(pool) ? pool : NULL));
    }
    return hk_graph_prune(g);
}
