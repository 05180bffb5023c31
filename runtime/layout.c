/*
 * Precision `fast` (inference): 16-bit storage and operands, fp32 sums.
 *
 * Convolutions move into islands of HK_LAYOUT_NHWC8 in fp16, where their kernels read 16 bytes along the channels;
 * relayouts that undo each other between neighbours vanish, so they stay at the islands' shores. Constant operands of
 * matrix products become fp16 once, when the plan is made; of other values storage.c decides.
 */
#include <string.h>

#include "ops/support/conv_lower.h"
#include "ops/support/gemm.h"
#include "runtime/passes.h"

static hk_status relayout(hk_graph *g, hk_value *v, hk_layout layout, hk_value **out)
{
    if (!v) {
        *out = NULL;
        return HK_OK;
    }
    const hk_attr_value attrs[] = {HK_SET_INT("layout", layout),
                                   HK_SET_INT("storage", layout == HK_LAYOUT_NHWC8 ? HK_FLOAT16 : HK_DTYPE_NONE),
                                   {0}};
    return hk_build(g, "hk.Relayout", attrs, &v, 1, out, 1);
}

/* x from the island if that is where it comes from, else through a relayout. */
static hk_status enter_island(hk_graph *g, hk_value *v, hk_value **out)
{
    if (v && v->producer && hk_node_is(v->producer, "hk.Relayout") && v->producer->in[0]->layout == HK_LAYOUT_NHWC8) {
        *out = v->producer->in[0];
        return HK_OK;
    }
    return relayout(g, v, HK_LAYOUT_NHWC8, out);
}

static hk_status move_convolution(hk_graph *g, hk_node *n)
{
    hk_attr_value attrs[32];
    hk_value *in[4] = {NULL, NULL, hk_in(n, 2), NULL}, *y = NULL, *back = NULL;
    const hk_attr_value pack[] = {HK_SET_INT("storage", HK_FLOAT16), {0}};
    hk_copy_attrs(n, attrs, HK_COUNT(attrs));
    HK_TRY(enter_island(g, n->in[0], &in[0]));
    in[1] = n->in[1];
    if (in[1]->shape.dim[1] == n->in[0]->shape.dim[1]) /* one group */
        HK_TRY(hk_build(g, "hk.PackConvWeight", pack, &n->in[1], 1, &in[1], 1));
    HK_TRY(enter_island(g, hk_in(n, 3), &in[3]));
    HK_TRY(hk_build(g, "hk.Conv", attrs, in, in[3] ? 4 : in[2] ? 3 : 2, &y, 1));
    y->layout = HK_LAYOUT_NHWC8;
    y->storage = HK_FLOAT16;
    y->producer->name = n->name;
    HK_TRY(relayout(g, y, HK_LAYOUT_CONTIGUOUS, &back));
    hk_graph_replace(g, n->out[0], back);
    return HK_OK;
}

static hk_status halve_constants(hk_graph *g, hk_node *n)
{
    const hk_attr_value attrs[] = {HK_SET_INT("to", HK_FLOAT16), {0}};
    for (int32_t i = 0; i < 2; i++) {
        const hk_value *v = n->in[i];
        bool constant = v->kind == HK_VALUE_CONSTANT || v->kind == HK_VALUE_PARAMETER;
        if (constant && v->storage == HK_DTYPE_NONE && v->shape.rank >= 2)
            HK_TRY(hk_build(g, "hk.Convert", attrs, &n->in[i], 1, &n->in[i], 1));
    }
    return HK_OK;
}

hk_status hk_choose_layouts(hk_graph *g, const hk_pass_options *options)
{
    if (options->precision != HK_PRECISION_FAST || !options->inference ||
        !(options->device->caps >> HK_CAP_STORAGE16 & 1u))
        return HK_OK;
    HK_TRY(hk_graph_sort(g));
    size_t count = g->node_count;
    for (size_t i = 0; i < count; i++) {
        hk_node *n = g->nodes[i];
        bool convolution = hk_node_is(n, "Conv") || hk_node_is(n, "hk.Conv");
        if (convolution && hk_shape_count(&n->out[0]->shape) > 0 && n->in[0]->shape.dim[1] >= 8 &&
            hk_conv_accepts_nhwc8(n))
            HK_TRY(move_convolution(g, n));
        else if (options->matrices && hk_is_product(n) && hk_product_suits_units(n))
            HK_TRY(halve_constants(g, n));
    }
    return hk_graph_prune(g);
}
