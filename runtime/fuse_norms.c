/*
 * LayerNormalization of the rows of a matrix product, and the product with its bias and residual, become hk.GemmNorm:
 * where K is split, as it is for few rows, the dispatch that adds up partial sums normalizes them too. What else reads
 * the product (a transformer's residual) has it as the second output. Epilogues were made before.
 */
#include "ops/activation.h"
#include "ops/support/build.h"
#include "ops/support/gemm.h"
#include "runtime/passes.h"

static float float_attr(const hk_node *n, const char *name, float otherwise)
{
    const float *f = hk_node_attr(n, name);
    return f ? *f : otherwise;
}

static bool is_set(const hk_node *n, const char *name)
{
    const int64_t *i = hk_node_attr(n, name);
    return i && *i;
}

static int64_t last_of(const hk_shape *s)
{
    return s->rank >= 1 ? s->dim[s->rank - 1] : -1;
}

static bool is_row(const hk_value *v, int64_t extent)
{
    return !v || (last_of(&v->shape) == extent && hk_shape_count(&v->shape) == extent);
}

/* Contents that are there before any node runs. */
static bool is_constant(const hk_value *v)
{
    return !v || (!v->producer && !v->state && (v->kind == HK_VALUE_CONSTANT || v->kind == HK_VALUE_PARAMETER));
}

/* Of the last axis, its statistics wanted by nobody. */
static bool is_plain_norm(const hk_node *n)
{
    const hk_value *x = hk_in(n, 0);
    const int64_t *axis = hk_node_is(n, "LayerNormalization") ? hk_node_attr(n, "axis") : NULL;
    return axis && x->dtype == HK_FLOAT32 && hk_shape_known(&x->shape) && x->shape.rank >= 1 &&
           hk_axis(*axis, x->shape.rank) == x->shape.rank - 1 && !hk_out(n, 1) && !hk_out(n, 2) &&
           is_row(n->in[1], last_of(&x->shape)) && is_row(hk_in(n, 2), last_of(&x->shape)) && is_constant(n->in[1]) &&
           is_constant(hk_in(n, 2));
}

/* The product whose rows x shows, at most in another shape; *alone: nothing else reads it. */
static hk_node *find_product(const hk_uses *uses, uint32_t values, const hk_value *x, bool *alone)
{
    int64_t extent = last_of(&x->shape);
    *alone = true;
    for (;; x = x->producer->in[0]) {
        hk_node *n = x->producer;
        if (!n || x->id >= values || last_of(&x->shape) != extent)
            return NULL;
        *alone &= uses->count[x->id] == 1 && !uses->is_output[x->id];
        if (hk_is_product(n))
            return !is_set(n, "transA") && !is_set(n, "activation") && n->in[1]->shape.rank == 2 &&
                           hk_product_suits_units(n) && is_row(hk_in(n, 2), extent)
                       ? n
                       : NULL;
        if (hk_node_view_offset(n) != 0 || hk_node_is(n, HK_AFTER) ||
            hk_shape_count(&n->in[0]->shape) != hk_shape_count(&x->shape))
            return NULL;
    }
}

static hk_status fuse(hk_graph *g, const hk_node *product, const hk_node *norm, bool alone)
{
    hk_value *in[6] = {product->in[0], product->in[1],    norm->in[1],
                       hk_in(norm, 2), hk_in(product, 2), hk_in(product, 3)},
             *out[2] = {NULL, NULL};
    const hk_attr_value attrs[] = {HK_SET_INT("transB", is_set(product, "transB")),
                                   HK_SET_FLOAT("alpha", float_attr(product, "alpha", 1.0f)),
                                   HK_SET_FLOAT("beta", float_attr(product, "beta", 1.0f)),
                                   HK_SET_FLOAT("epsilon", float_attr(norm, "epsilon", 1e-5f)),
                                   {0}};
    HK_TRY(hk_build(g, "hk.GemmNorm", attrs, in, 6, out, alone ? 1 : 2));
    out[0]->producer->name = norm->name;
    if (!alone)
        hk_graph_take_over(out[1], product->out[0]);
    if (!hk_shape_equal(&out[0]->shape, &norm->out[0]->shape))
        HK_TRY(hk_build_reshape(g, out[0], &norm->out[0]->shape, &out[0]));
    hk_graph_take_over(out[0], norm->out[0]);
    return HK_OK;
}

hk_status hk_fuse_norms(hk_graph *g)
{
    hk_uses uses;
    HK_TRY(hk_graph_uses(g, g->arena, &uses));
    size_t count = g->node_count;
    uint32_t values = (uint32_t)g->value_count;
    for (size_t i = 0; i < count; i++) {
        bool alone;
        const hk_node *n = g->nodes[i];
        const hk_node *product = is_plain_norm(n) ? find_product(&uses, values, n->in[0], &alone) : NULL;
        if (product)
            HK_TRY(fuse(g, product, n, alone));
    }
    if (g->node_count == count)
        return HK_OK;
    HK_TRY(hk_graph_sort(g));
    return hk_graph_prune(g);
}
