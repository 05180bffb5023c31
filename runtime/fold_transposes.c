/*
 * The transpose of a matrix in front of a product: the product reads the matrix the other way round instead. Exporters
 * write it for Linear, whose weight is [out,in]; where that is no constant, as in training, it would be turned around
 * in every step, and its gradient back.
 */
#include "ops/support/gemm.h"
#include "runtime/passes.h"

/* What b is the transpose of, NULL if it is none. */
static hk_value *turned(const hk_value *b)
{
    const hk_node *n = b->producer;
    const hk_ints *perm = hk_node_is(n, "Transpose") ? hk_node_attr(n, "perm") : NULL;
    bool swaps = perm && n->in[0]->shape.rank == 2 && (!perm->v || (perm->v[0] == 1 && perm->v[1] == 0));
    return swaps ? n->in[0] : NULL;
}

static hk_status fold(hk_graph *g, hk_node *n)
{
    hk_attr_value attrs[32];
    hk_value *in[4] = {n->in[0], turned(n->in[1]), hk_in(n, 2), hk_in(n, 3)}, *y = NULL;
    const int64_t *turns = hk_node_attr(n, "transB");
    size_t count = hk_copy_attrs(n, attrs, HK_COUNT(attrs) - 1);
    attrs[count++] = (hk_attr_value)HK_SET_INT("transB", !turns || !*turns);
    attrs[count] = (hk_attr_value){0};
    HK_TRY(hk_build(g, "hk.Gemm", attrs, in, in[3] ? 4 : in[2] ? 3 : 2, &y, 1));
    y->producer->name = n->name;
    hk_graph_take_over(y, n->out[0]);
    return HK_OK;
}

hk_status hk_fold_transposes(hk_graph *g)
{
    size_t count = g->node_count;
    for (size_t i = 0; i < count; i++) {
        hk_node *n = g->nodes[i];
        if (hk_is_product(n) && n->in[0]->dtype == HK_FLOAT32 && n->in[0]->shape.rank >= 2 && turned(n->in[1]))
            HK_TRY(fold(g, n));
    }
    if (g->node_count == count)
        return HK_OK;
    HK_TRY(hk_graph_sort(g));
    return hk_graph_prune(g);
}
