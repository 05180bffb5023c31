/*
 * Squeeze-and-excitation: two convolutions of single pixels, the second one's only user of the first, become hk.Excite,
 * one dispatch. Epilogues, with the convolutions' activations, were made before.
 */
#include "ops/activation.h"
#include "ops/support/conv_lower.h"
#include "ops/support/excite.h"
#include "runtime/passes.h"

/* A plain product of constant weights with a pixel's channels, and what of hk.Conv follows it. */
static bool is_product(const hk_node *n)
{
    hk_conv p;
    hk_problem_text problem;
    if (!n || (!hk_node_is(n, "Conv") && !hk_node_is(n, "hk.Conv")) || hk_in(n, 3) || hk_in(n, 4))
        return false;
    const hk_value *x = n->in[0], *w = n->in[1], *y = n->out[0];
    const hk_conv_attrs *a = n->attrs;
    return (w->kind == HK_VALUE_CONSTANT || w->kind == HK_VALUE_PARAMETER) && x->dtype == HK_FLOAT32 && !a->exact &&
           hk_shape_known(&x->shape) && hk_conv_resolve(a, &x->shape, &w->shape, &p, &problem) && p.groups == 1 &&
           hk_window_taps(&p.w) == 1 && hk_shape_span(&x->shape, 2, x->shape.rank) == 1 &&
           hk_shape_span(&y->shape, 2, y->shape.rank) == 1;
}

static hk_status fuse(hk_graph *g, const hk_node *first, hk_node *second)
{
    const hk_conv_attrs *a = first->attrs, *b = second->attrs;
    const hk_attr_value attrs[] = {HK_SET_INT("activation_1", a->activation),
                                   HK_SET_FLOAT("alpha_1", a->alpha),
                                   HK_SET_FLOAT("beta_1", a->beta),
                                   HK_SET_INT("activation_2", b->activation),
                                   HK_SET_FLOAT("alpha_2", b->alpha),
                                   HK_SET_FLOAT("beta_2", b->beta),
                                   {0}};
    hk_value *in[] = {first->in[0], first->in[1], second->in[1], hk_in(first, 2), hk_in(second, 2)}, *y = NULL;
    HK_TRY(hk_build(g, "hk.Excite", attrs, in, in[4] ? 5 : in[3] ? 4 : 3, &y, 1));
    y->producer->name = second->name;
    hk_graph_replace(g, second->out[0], y);
    return HK_OK;
}

hk_status hk_fuse_excitation(hk_graph *g)
{
    hk_uses uses;
    HK_TRY(hk_graph_sort(g));
    HK_TRY(hk_graph_uses(g, g->arena, &uses));
    size_t count = g->node_count;
    for (size_t i = 0; i < count; i++) {
        hk_node *second = g->nodes[i];
        if (!is_product(second) || second->in[0]->graph != g)
            continue;
        const hk_value *between = second->in[0];
        const hk_node *first = between->producer;
        if (!is_product(first) || uses.count[between->id] != 1 || uses.is_output[between->id] ||
            first->in[0]->shape.dim[1] % HK_EXCITE_OCTET || between->shape.dim[1] > HK_EXCITE_SQUEEZED)
            continue;
        HK_TRY(fuse(g, first, second));
    }
    return hk_graph_prune(g);
}
