/*
 * A convolution of an image's few channels whose windows lie side by side (vision transformers' patches) is one matrix
 * product: rows are patches, columns outputs, and the weight's bytes are its matrix as they lie. The rows are gathered
 * by one transpose; the result is transposed back, which meets the model's own transpose into rows.
 *
 *     x [n,c,h,w] -> [n,h/r,w/s,c,r,s] -> [patches, c r s]     y = x w' + b     [n, patches of an image, k] ->
 * [n,k,...]
 */
#include <string.h>

#include "ops/support/build.h"
#include "ops/support/conv_lower.h"
#include "ops/support/gemm.h"
#include "runtime/passes.h"

enum { MOST_CHANNELS = 8 }; /* from that many on convolutions have islands of their own (layout.c) */

static bool is_constant(const hk_value *v)
{
    return v && v->data && !v->producer && !v->state && v->dtype == HK_FLOAT32 &&
           (v->kind == HK_VALUE_CONSTANT || v->kind == HK_VALUE_PARAMETER);
}

static bool is_patches(const hk_node *n, hk_conv *p)
{
    hk_problem_text problem;
    const hk_value *x = hk_in(n, 0);
    const hk_conv_attrs *a = n->attrs;
    if (!hk_node_is(n, "Conv") || x->dtype != HK_FLOAT32 || !is_constant(n->in[1]) || a->exact ||
        !hk_shape_known(&x->shape) || !hk_conv_resolve(a, &x->shape, &n->in[1]->shape, p, &problem) || p->groups != 1 ||
        p->c >= MOST_CHANNELS || hk_conv_enters_nhwc8(n))
        return false;
    const hk_window *w = &p->w;
    for (int axis = 0; axis < HK_AXES; axis++)
        if (w->begin[axis] || w->end[axis] || w->kernel[axis] != w->stride[axis] || w->dilation[axis] != 1 ||
            w->in[axis] != w->out[axis] * w->kernel[axis])
            return false;
    const hk_gemm product = {
        .m = p->n * hk_window_out_count(w), .n = p->k, .k = p->c * hk_window_taps(w)}; /* enough of them */
    return hk_gemm_suits_units(&product);
}

/* The weight as [outputs, elements of a patch]: its bytes under another shape. */
static hk_value *weight_matrix(hk_graph *g, const hk_value *w, int64_t rows, int64_t columns)
{
    hk_tensor *t = hk_arena_new(g->arena, hk_tensor);
    if (!t)
        return NULL;
    *t = (hk_tensor){.data = w->data->data, .dtype = w->data->dtype, .rank = 2, .shape = {rows, columns}};
    return hk_graph_constant(g, w->name, t);
}

/* x as one row for each patch. */
static hk_status gather(hk_graph *g, hk_value *x, const hk_conv *p, hk_value **rows)
{
    const hk_window *w = &p->w;
    int32_t d = w->spatial;
    hk_shape cut = {.rank = 2 + 2 * d, .dim = {p->n, p->c}}, matrix = {.rank = 2};
    int64_t perm[HK_MAX_RANK];
    for (int32_t i = 0; i < d; i++) {
        int axis = HK_AXES - d + i;
        cut.dim[2 + 2 * i] = w->out[axis];
        cut.dim[3 + 2 * i] = w->kernel[axis];
        perm[1 + i] = 2 + 2 * i;
        perm[2 + d + i] = 3 + 2 * i;
    }
    perm[0] = 0;
    perm[1 + d] = 1;
    matrix.dim[0] = p->n * hk_window_out_count(w);
    matrix.dim[1] = p->c * hk_window_taps(w);
    HK_TRY(hk_build_reshape(g, x, &cut, rows));
    HK_TRY(hk_build_transpose(g, *rows, perm, cut.rank, rows));
    return hk_build_reshape(g, *rows, &matrix, rows);
}

static hk_status replace(hk_graph *g, hk_node *n, const hk_conv *p)
{
    static const int64_t channels_first[] = {0, 2, 1};
    const hk_attr_value attrs[] = {HK_SET_INT("transB", 1), {0}};
    int64_t patches = hk_window_out_count(&p->w);
    const hk_shape images = {.rank = 3, .dim = {p->n, patches, p->k}}, own = n->out[0]->shape;
    hk_value *in[3] = {NULL, weight_matrix(g, n->in[1], p->k, p->c * hk_window_taps(&p->w)), hk_in(n, 2)}, *y;
    if (!in[1])
        return hk_out_of_memory(g->ctx, "a convolution as a product");
    HK_TRY(gather(g, n->in[0], p, &in[0]));
    HK_TRY(hk_build(g, "hk.Gemm", attrs, in, in[2] ? 3 : 2, &y, 1));
    y->producer->name = n->name;
    HK_TRY(hk_build_reshape(g, y, &images, &y));
    HK_TRY(hk_build_transpose(g, y, channels_first, 3, &y));
    HK_TRY(hk_build_reshape(g, y, &own, &y));
    hk_graph_take_over(y, n->out[0]);
    return HK_OK;
}

hk_status hk_fold_patches(hk_graph *g)
{
    size_t count = g->node_count;
    for (size_t i = 0; i < count; i++) {
        hk_conv p;
        if (is_patches(g->nodes[i], &p))
            HK_TRY(replace(g, g->nodes[i], &p));
    }
    if (g->node_count == count)
        return HK_OK;
    HK_TRY(hk_graph_sort(g));
    return hk_graph_prune(g);
}
