/*
 * Pad in front of Conv, AveragePool or MaxPool: the pass over memory goes when the node pads by itself with the same
 * number. Exporters write it for padding that differs between the two sides.
 */
#include <math.h>
#include <string.h>

#include "runtime/passes.h"

typedef struct padding {
    int64_t before[HK_MAX_RANK], after[HK_MAX_RANK]; /* of spatial dimensions */
    double value;
} padding;

/* pads of one dimension's two sides, from the attribute or the operand. */
static bool read_list(const hk_node *pad, int64_t *list, int32_t *count)
{
    const hk_ints *attribute = hk_node_attr(pad, "pads"), *old = hk_node_attr(pad, "paddings");
    const hk_tensor *given = pad->op->since >= 11 ? hk_known(pad, 1) : NULL;
    attribute = attribute ? attribute : old;
    if (!given && (pad->op->since >= 11 || !attribute || !attribute->v))
        return false;
    int64_t n = given ? hk_tensor_count(given) : attribute->count;
    if (n < 0 || n > 2 * HK_MAX_RANK)
        return false;
    *count = (int32_t)n;
    for (int32_t i = 0; i < *count; i++)
        list[i] = given ? hk_get_int(given, i) : attribute->v[i];
    return true;
}

static bool read_value(const hk_node *pad, double *value)
{
    const float *attribute = hk_node_attr(pad, "value");
    const hk_tensor *given = hk_known(pad, 2);
    *value = given ? hk_get_double(given, 0) : attribute ? (double)*attribute : 0;
    return given || !hk_in(pad, 2);
}

/* Constant padding of spatial dimensions alone, nothing cropped. */
static bool read_padding(const hk_node *pad, padding *p)
{
    const char *const *mode = hk_node_attr(pad, "mode");
    int32_t rank = pad->in[0]->shape.rank, count = 0;
    int64_t list[2 * HK_MAX_RANK];
    const hk_tensor *axes = hk_known(pad, 3);
    *p = (padding){0};
    if (rank < 3 || (mode && *mode && strcmp(*mode, "constant") != 0) || (hk_in(pad, 3) && !axes) ||
        !read_list(pad, list, &count) || count % 2 || count / 2 != (axes ? hk_tensor_count(axes) : rank) ||
        !read_value(pad, &p->value))
        return false;
    for (int32_t i = 0; i < count / 2; i++) {
        int64_t axis = axes ? hk_get_int(axes, i) : i;
        axis += axis < 0 ? rank : 0;
        int64_t before = list[i], after = list[count / 2 + i];
        if (before < 0 || after < 0 || axis < 0 || axis >= rank || (axis < 2 && (before || after)))
            return false;
        if (axis >= 2) {
            p->before[axis - 2] = before;
            p->after[axis - 2] = after;
        }
    }
    return true;
}

static int64_t at_or(const hk_ints *list, int32_t i, int64_t otherwise)
{
    return list && list->v && i < list->count ? list->v[i] : otherwise;
}

static bool has_pads(const hk_node *n)
{
    const hk_ints *pads = hk_node_attr(n, "pads");
    for (int32_t i = 0; pads && pads->v && i < pads->count; i++)
        if (pads->v[i])
            return true;
    return false;
}

/* Windows must touch a real element: the standard's pooling pads less than a window on either side. */
static bool within_window(const hk_node *n, const padding *p, int32_t spatial)
{
    const hk_ints *kernel = hk_node_attr(n, "kernel_shape"), *pads = hk_node_attr(n, "pads");
    for (int32_t d = 0; d < spatial; d++) {
        int64_t extent = at_or(kernel, d, 0);
        if (at_or(pads, d, 0) + p->before[d] >= extent || at_or(pads, d + spatial, 0) + p->after[d] >= extent)
            return false;
    }
    return true;
}

/* An average counts Pad's zeros: so it must count its own padding, of which there is none yet or which it counts. */
static bool fits_average(const hk_node *n, const padding *p)
{
    const int64_t *counted = hk_node_attr(n, "count_include_pad"), *ceil_mode = hk_node_attr(n, "ceil_mode");
    return p->value == 0 && counted && (*counted || !has_pads(n)) && !(ceil_mode && *ceil_mode);
}

static bool fits(const hk_node *n, const padding *p)
{
    const char *const *automatic = hk_node_attr(n, "auto_pad");
    const int64_t *ceil_mode = hk_node_attr(n, "ceil_mode");
    int32_t spatial = n->in[0]->shape.rank - 2;
    if (automatic && *automatic && strcmp(*automatic, "NOTSET") != 0)
        return false;
    if (hk_node_is(n, "Conv"))
        return p->value == 0;
    if (hk_node_is(n, "AveragePool"))
        return fits_average(n, p) && within_window(n, p, spatial);
    return hk_node_is(n, "MaxPool") && n->out_count == 1 && p->value == -INFINITY && !(ceil_mode && *ceil_mode) &&
           within_window(n, p, spatial);
}

static hk_status fold(hk_graph *g, hk_node *n, const padding *p)
{
    int32_t spatial = n->in[0]->shape.rank - 2;
    int64_t *pads = hk_arena_array(g->arena, 2 * (size_t)spatial, sizeof *pads);
    if (!pads)
        return hk_out_of_memory(g->ctx, "folding a Pad");
    HK_TRY(hk_node_own_attrs(g, n));
    hk_ints *list = hk_node_attr(n, "pads");
    int64_t *counted = hk_node_attr(n, "count_include_pad");
    for (int32_t d = 0; d < spatial; d++) {
        pads[d] = at_or(list, d, 0) + p->before[d];
        pads[d + spatial] = at_or(list, d + spatial, 0) + p->after[d];
    }
    *list = (hk_ints){.v = pads, .count = 2 * spatial};
    if (counted)
        *counted = 1;
    n->in[0] = n->in[0]->producer->in[0];
    return HK_OK;
}

hk_status hk_fold_pads(hk_graph *g)
{
    bool any = false;
    for (size_t i = 0; i < g->node_count; i++) {
        hk_node *n = g->nodes[i];
        const hk_value *x = hk_in(n, 0);
        padding p;
        if (!x || !x->producer || !hk_node_is(x->producer, "Pad") || !hk_shape_known(&x->shape) ||
            !hk_node_attr(n, "pads") || !read_padding(x->producer, &p) || !fits(n, &p))
            continue;
        HK_TRY(fold(g, n, &p));
        any = true;
    }
    return any ? hk_graph_prune(g) : HK_OK;
}
