/*
 * DeformConv as other nodes: the input sampled where every tap of every window says (hk.GridSample in element
 * coordinates), times the mask, times the weights. So offsets and mask have gradients too.
 */
#include <math.h>

#include "ops/support/build.h"
#include "ops/support/conv_geometry.h"
#include "ops/support/move_args.h"

typedef struct deform_attrs {
    hk_conv_attrs conv;
    int64_t offset_group;
} deform_attrs;

static const hk_attr attr_list[] = {
    {.name = "kernel_shape", .kind = HK_ATTR_INTS, .offset = offsetof(deform_attrs, conv.window.kernel_shape)},
    {.name = "strides", .kind = HK_ATTR_INTS, .offset = offsetof(deform_attrs, conv.window.strides)},
    {.name = "dilations", .kind = HK_ATTR_INTS, .offset = offsetof(deform_attrs, conv.window.dilations)},
    {.name = "pads", .kind = HK_ATTR_INTS, .offset = offsetof(deform_attrs, conv.window.pads)},
    {.name = "group", .kind = HK_ATTR_INT, .offset = offsetof(deform_attrs, conv.group), .number = 1},
    HK_INT_ATTR(deform_attrs, offset_group, 1),
    {0}};

enum { IN_X, IN_W, IN_OFFSET, IN_BIAS, IN_MASK, H = HK_AXIS_H, W = HK_AXIS_W };

/* True when s is [n, channels, out height, out width] as far as it is known. */
static bool is_field(const hk_shape *s, const hk_conv *p, int64_t channels)
{
    const int64_t want[] = {p->n, channels, p->w.out[H], p->w.out[W]};
    if (s->rank < 0)
        return true;
    for (int32_t d = 0; d < 4 && s->rank == 4; d++)
        if (s->dim[d] >= 0 && want[d] >= 0 && s->dim[d] != want[d])
            return false;
    return s->rank == 4;
}

static hk_status read_deform(const hk_args *a, hk_conv *p)
{
    const deform_attrs *t = a->node->attrs;
    hk_shape x = hk_args_shape(a, IN_X), w = hk_args_shape(a, IN_W), offset = hk_args_shape(a, IN_OFFSET),
             mask = hk_args_shape(a, IN_MASK);
    hk_problem_text problem;
    if (x.rank != 4 || w.rank != 4)
        return hk_args_fail(a, "expected an input and a weight of rank 4, found %d and %d", (int)x.rank, (int)w.rank);
    if (!hk_conv_resolve(&t->conv, &x, &w, p, &problem))
        return hk_args_fail(a, "%s", problem.text);
    if (t->offset_group < 1 || t->offset_group > INT32_MAX || (p->c >= 0 && p->c % t->offset_group))
        return hk_args_fail(a, "expected an offset_group that divides the input's %lld channels", (long long)p->c);
    int64_t fields = p->w.kernel[H] < 0 || p->w.kernel[W] < 0 ? -1 : hk_window_taps(&p->w) * t->offset_group;
    if (!is_field(&offset, p, fields < 0 ? -1 : 2 * fields) ||
        (hk_args_present(a, IN_MASK) && !is_field(&mask, p, fields)))
        return hk_args_fail(a, "expected offsets with 2 and a mask with 1 channel per tap and offset group, of the "
                               "output's size");
    return HK_OK;
}

static hk_status deform_infer(hk_infer *in)
{
    hk_args a = hk_infer_args(in);
    const hk_value *x = in->node->in[IN_X];
    hk_shape y = HK_SHAPE_UNKNOWN;
    hk_conv p;
    for (int32_t i = 0; i < in->node->in_count; i++)
        if (in->node->in[i] && (!hk_dtype_is_float(x->dtype) || in->node->in[i]->dtype != x->dtype))
            return hk_infer_fail(in, HK_STATUS_INVALID, "expected inputs of one float type");
    if (x->shape.rank >= 0 && in->node->in[IN_W]->shape.rank >= 0) {
        HK_TRY(read_deform(&a, &p));
        y = hk_window_shape(&p.w, p.n, p.k);
    }
    return hk_infer_output(in, 0, x->dtype, &y);
}

/* ---- the oracle */

/* x's plane at a place between elements; 0 outside. */
static double between(const hk_tensor *x, int64_t plane, const hk_window *w, double y, double z)
{
    double sum = 0;
    for (int k = 0; k < 4; k++) {
        double r = floor(y) + k / 2, c = floor(z) + k % 2;
        if (r >= 0 && r < (double)w->in[H] && c >= 0 && c < (double)w->in[W])
            sum += (1 - fabs(y - r)) * (1 - fabs(z - c)) *
                   hk_get_double(x, (plane * w->in[H] + (int64_t)r) * w->in[W] + (int64_t)c);
    }
    return sum;
}

/* What tap t of the window at place o reads of channel c of image n, times the mask. */
static double deformed(const hk_eval *e, const hk_conv *p, int64_t n, int64_t c, int64_t t, int64_t o)
{
    const hk_window *w = &p->w;
    const hk_tensor *mask = hk_in(e->node, IN_MASK) ? e->in[IN_MASK] : NULL;
    int64_t groups = ((const deform_attrs *)e->node->attrs)->offset_group, taps = hk_window_taps(w),
            places = hk_window_out_count(w), field = (n * groups + c / (p->c / groups)) * taps + t;
    double y = (double)(o / w->out[W] * w->stride[H] - w->begin[H] + t / w->kernel[W] * w->dilation[H]),
           z = (double)(o % w->out[W] * w->stride[W] - w->begin[W] + t % w->kernel[W] * w->dilation[W]);
    y += hk_get_double(e->in[IN_OFFSET], 2 * field * places + o);
    z += hk_get_double(e->in[IN_OFFSET], (2 * field + 1) * places + o);
    return between(e->in[IN_X], n * p->c + c, w, y, z) * (mask ? hk_get_double(mask, field * places + o) : 1);
}

static hk_status deform_eval(hk_eval *e)
{
    hk_args a = hk_eval_args(e);
    const hk_tensor *bias = hk_in(e->node, IN_BIAS) ? e->in[IN_BIAS] : NULL;
    hk_conv p;
    HK_TRY(read_deform(&a, &p));
    hk_shape s = hk_window_shape(&p.w, p.n, p.k);
    hk_tensor *y = hk_eval_output(e, 0, e->in[IN_X]->dtype, &s);
    if (!y)
        return hk_out_of_memory(e->ctx, "evaluating a deformed convolution");
    int64_t places = hk_window_out_count(&p.w), taps = hk_window_taps(&p.w), cg = p.c / p.groups, kg = p.k / p.groups;
    for (int64_t i = 0; i < hk_tensor_count(y); i++) {
        int64_t k = i / places % p.k, n = i / places / p.k;
        double sum = bias ? hk_get_double(bias, k) : 0;
        for (int64_t j = 0; j < cg * taps; j++)
            sum += hk_get_double(e->in[IN_W], k * cg * taps + j) *
                   deformed(e, &p, n, k / kg * cg + j / taps, j % taps, i % places);
        hk_set_double(y, i, sum);
    }
    return HK_OK;
}

/* ---- as other nodes */

/* A constant of shape [1, taps, rows, columns, 2] with extents of 1 where it does not change: what taps (which 0), rows
 * (1) or columns (2) add to a place, the column first. Their sum is where windows rest without offsets. */
static hk_value *resting(hk_graph *g, const hk_window *w, hk_dtype dtype, int which)
{
    hk_shape s = {5, {1, 1, 1, 1, 2}};
    int64_t count = which == 0 ? hk_window_taps(w) : w->out[which];
    s.dim[1 + which] = count;
    hk_tensor *t = hk_tensor_new(g->arena, dtype, &s);
    for (int64_t i = 0; t && i < count; i++) {
        int64_t column = which == 0 ? i % w->kernel[W] * w->dilation[W] : i * w->stride[W] - w->begin[W],
                row = which == 0 ? i / w->kernel[W] * w->dilation[H] : i * w->stride[H] - w->begin[H];
        hk_set_double(t, 2 * i, which == 1 ? 0 : (double)column);
        hk_set_double(t, 2 * i + 1, which == 2 ? 0 : (double)row);
    }
    return t ? hk_graph_constant(g, NULL, t) : NULL;
}

/* Offsets [n, groups * taps * 2, out] (row first) added to the resting places: [n * groups, taps, places, 2]. */
static hk_status build_grid(hk_graph *g, hk_value *offset, const hk_window *w, int64_t fields, hk_value **grid)
{
    const int64_t perm[] = {0, 1, 3, 4, 2}, swap[] = {1, 0};
    int64_t taps = hk_window_taps(w);
    hk_value *order = hk_graph_ints(g, swap, 2), *v;
    const hk_attr_value attrs[] = {HK_SET_INT("axis", 2), {0}};
    if (!order)
        return hk_out_of_memory(g->ctx, "a deformed convolution");
    HK_TRY(hk_build_reshape(g, offset, &(hk_shape){5, {fields, taps, 2, w->out[H], w->out[W]}}, &v));
    HK_TRY(hk_build(g, "Gather", attrs, (hk_value *[]){v, order}, 2, &v, 1));
    HK_TRY(hk_build_transpose(g, v, perm, 5, &v));
    for (int which = 0; which < 3; which++) {
        hk_value *c = resting(g, w, offset->dtype, which);
        if (!c)
            return hk_out_of_memory(g->ctx, "a deformed convolution");
        HK_TRY(hk_build_binary(g, "Add", v, c, &v));
    }
    return hk_build_reshape(g, v, &(hk_shape){4, {fields, taps, hk_window_out_count(w), 2}}, grid);
}

static hk_status deform_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    hk_args a = hk_node_args(g->ctx, n);
    int64_t groups = ((const deform_attrs *)n->attrs)->offset_group;
    hk_conv p;
    hk_value *v, *grid, *x, *weights;
    HK_TRY(read_deform(&a, &p));
    const hk_window *w = &p.w;
    int64_t taps = hk_window_taps(w), places = hk_window_out_count(w), fields = p.n * groups, cg = p.c / p.groups;
    hk_shape y = hk_window_shape(w, p.n, p.k);
    const hk_attr_value pixels[] = {HK_SET_INT("pixels", 1), {0}};
    HK_TRY(build_grid(g, n->in[IN_OFFSET], w, fields, &grid));
    HK_TRY(hk_build_reshape(g, n->in[IN_X], &(hk_shape){4, {fields, p.c / groups, w->in[H], w->in[W]}}, &x));
    HK_TRY(hk_build(g, "hk.GridSample", pixels, (hk_value *[]){x, grid}, 2, &v, 1));
    if (hk_in(n, IN_MASK)) {
        HK_TRY(hk_build_reshape(g, n->in[IN_MASK], &(hk_shape){4, {fields, 1, taps, places}}, &x));
        HK_TRY(hk_build_binary(g, "Mul", v, x, &v));
    }
    HK_TRY(hk_build_reshape(g, v, &(hk_shape){4, {p.n, p.groups, cg * taps, places}}, &v));
    HK_TRY(hk_build_reshape(g, n->in[IN_W], &(hk_shape){3, {p.groups, p.k / p.groups, cg * taps}}, &weights));
    HK_TRY(hk_build_binary(g, "MatMul", weights, v, &v));
    HK_TRY(hk_build_reshape(g, v, &y, out));
    if (!hk_in(n, IN_BIAS))
        return HK_OK;
    HK_TRY(hk_build_reshape(g, n->in[IN_BIAS], &(hk_shape){4, {1, p.k, 1, 1}}, &v));
    return hk_build_binary(g, "Add", *out, v, out);
}

static const char *const deform_cases[] = {
    "f32[1,1,4,4] f32[1,1,2,2] f32[1,8,3,3]",
    "f32[1,2,4,5] f32[3,2,3,3] f32[1,18,4,5] f32[3] ; pads=[1,1,1,1]",
    "f32[2,4,5,5] f32[6,2,2,2] f32[2,16,3,2] f32[6] f32[2,8,3,2] ; group=2 offset_group=2 strides=[2,2] pads=[1,0,1,0]",
    "f32[1,2,6,5] f32[1,2,2,2] f32[1,8,4,3] - f32[1,4,4,3] ; dilations=[2,2]",
    "f32[0,1,4,4] f32[1,1,2,2] f32[0,8,3,3] ; ; nograd",
    NULL,
};

const hk_op hk_ops_deform_conv[] = {
    {
        .type = "DeformConv",
        .since = 19,
        .in_min = 3,
        .in_max = 5,
        .out_min = 1,
        .out_max = 1,
        .parameters = 1u << IN_W | 1u << IN_BIAS,
        .attrs_bytes = sizeof(deform_attrs),
        .attrs = attr_list,
        .infer = deform_infer,
        .eval = deform_eval,
        .expand = deform_expand,
        .cases = deform_cases,
    },
    {0},
};
