/*
 * Models of 16-bit floats are trained in float32: weights have float32 masters, which an export rounds to what the file
 * stores, and gradients keep their range. The trainer converts inputs on their way.
 */
#include <string.h>

#include "train/training.h"

static bool widen_type(int64_t *type)
{
    bool half = *type == HK_FLOAT16 || *type == HK_BFLOAT16;
    *type = half ? HK_FLOAT32 : *type;
    return half;
}

/* Attributes that name the type of a result, or hold a tensor of it. */
static hk_status widen_attributes(hk_graph *g, hk_node *n)
{
    static const char *const types[] = {"to", "dtype", "output_dtype", "stash_type", "softmax_precision"};
    for (size_t i = 0; n->op && n->attrs && i < HK_COUNT(types); i++) {
        const int64_t *type = hk_node_attr(n, types[i]);
        int64_t wide = type ? *type : 0;
        if (!widen_type(&wide))
            continue;
        HK_TRY(hk_node_own_attrs(g, n));
        *(int64_t *)hk_node_attr(n, types[i]) = wide;
    }
    for (const hk_attr *a = n->op && n->attrs ? n->op->attrs : NULL; a && a->name; a++) {
        if (a->kind != HK_ATTR_TENSOR)
            continue;
        const hk_tensor *t = *(const hk_tensor **)hk_node_attr(n, a->name);
        if (!t || !hk_dtype_is_half(t->dtype))
            continue;
        HK_TRY(hk_node_own_attrs(g, n));
        if (!(t = hk_tensor_as(g->arena, t, HK_FLOAT32)))
            return hk_out_of_memory(g->ctx, "a training step");
        *(const hk_tensor **)hk_node_attr(n, a->name) = t;
    }
    return HK_OK;
}

hk_status hk_widen_halves(hk_graph *g)
{
    for (size_t i = 0; i < g->value_count; i++) {
        hk_value *v = g->values[i];
        if (!hk_dtype_is_half(v->dtype))
            continue;
        v->dtype = HK_FLOAT32;
        if (v->data && !(v->data = hk_tensor_as(g->arena, v->data, HK_FLOAT32)))
            return hk_out_of_memory(g->ctx, "a training step");
    }
    for (size_t i = 0; i < g->node_count; i++) {
        HK_TRY(widen_attributes(g, g->nodes[i]));
        for (int32_t b = 0; b < g->nodes[i]->body_count; b++)
            HK_TRY(hk_widen_halves(g->nodes[i]->bodies[b]));
    }
    return HK_OK;
}
