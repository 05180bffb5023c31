/*
 * ConvTranspose, and hk.ConvTranspose with an epilogue like hk.Conv's: the data gradient of a convolution, run by that
 * pass's kernels with bias in their store phase; its own gradients are a forward convolution and a weight gradient.
 *
 * The convolution whose adjoint this is reads (n, m, out) and makes (n, c, in): hk_conv's X is our output, its Y our
 * input. It never asks where its windows end, so output_padding only makes the output longer.
 */
#include <string.h>

#include "ops/activation.h"
#include "ops/support/build.h"
#include "ops/support/conv_lower.h"
#include "ops/support/move_args.h"

typedef struct transpose_attrs {
    const char *auto_pad;
    hk_ints kernel_shape, strides, dilations, pads, output_padding, output_shape;
    int64_t group;
    int64_t activation; /* hk.ConvTranspose: a code of ops/activation.h with its two parameters */
    float alpha, beta;
} transpose_attrs;

#define TRANSPOSE_ATTRS                                                                                                \
    HK_STRING_ATTR(transpose_attrs, auto_pad, "NOTSET"), HK_INTS_ATTR(transpose_attrs, kernel_shape),                  \
        HK_INTS_ATTR(transpose_attrs, strides), HK_INTS_ATTR(transpose_attrs, dilations),                              \
        HK_INTS_ATTR(transpose_attrs, pads), HK_INTS_ATTR(transpose_attrs, output_padding),                            \
        HK_INTS_ATTR(transpose_attrs, output_shape), HK_INT_ATTR(transpose_attrs, group, 1)
static const hk_attr attr_list[] = {TRANSPOSE_ATTRS, {0}};
static const hk_attr fused_attr_list[] = {TRANSPOSE_ATTRS,
                                          HK_INT_ATTR(transpose_attrs, activation, 0),
                                          HK_FLOAT_ATTR(transpose_attrs, alpha, 0.0),
                                          HK_FLOAT_ATTR(transpose_attrs, beta, 0.0),
                                          {0}};

enum { IN_X, IN_W, IN_BIAS, IN_RESIDUAL };

/* ---- geometry */

#define MOST ((int64_t)1 << 30) /* of attributes: products with extents do not overflow */

static int64_t entry(const hk_ints *list, int32_t i, int64_t absent)
{
    return list->v ? list->v[i] : absent;
}

static hk_status check_lists(const hk_args *a, const hk_shape *x, const hk_shape *w)
{
    const transpose_attrs *t = a->node->attrs;
    int32_t spatial = x->rank - 2;
    const struct {
        const char *name;
        const hk_ints *list;
        int64_t least;
    } lists[] = {{"kernel_shape", &t->kernel_shape, 1},
                 {"strides", &t->strides, 1},
                 {"dilations", &t->dilations, 1},
                 {"output_padding", &t->output_padding, 0}};
    if (spatial < 1 || spatial > HK_AXES || w->rank != x->rank)
        return hk_args_fail(a, "expected input and weight of one rank, 3 to 5, found ranks %d and %d", (int)x->rank,
                            (int)w->rank);
    for (size_t k = 0; k < HK_COUNT(lists); k++) {
        if (lists[k].list->v && lists[k].list->count != spatial)
            return hk_args_fail(a, "%s has %d entries, expected %d", lists[k].name, (int)lists[k].list->count,
                                (int)spatial);
        for (int32_t i = 0; lists[k].list->v && i < spatial; i++)
            if (lists[k].list->v[i] < lists[k].least || lists[k].list->v[i] > MOST)
                return hk_args_fail(a, "%s: expected values from %d to 2^30, found %lld", lists[k].name,
                                    (int)lists[k].least, (long long)lists[k].list->v[i]);
    }
    if (t->pads.v && t->pads.count != 2 * spatial)
        return hk_args_fail(a, "pads has %d entries, expected %d", (int)t->pads.count, (int)(2 * spatial));
    for (int32_t i = 0; t->pads.v && i < t->pads.count; i++)
        if (t->pads.v[i] < 0 || t->pads.v[i] > INT32_MAX)
            return hk_args_fail(a, "pads: expected values from 0 to 2^31-1, found %lld", (long long)t->pads.v[i]);
    return HK_OK;
}

/* output_shape has the spatial entries, or (some exporters) all. */
static hk_status stated_output(const hk_args *a, int32_t spatial, int32_t i, int64_t *out)
{
    const hk_ints *list = &((const transpose_attrs *)a->node->attrs)->output_shape;
    *out = -1;
    if (!list->v)
        return HK_OK;
    if (list->count != spatial && list->count != spatial + 2)
        return hk_args_fail(a, "output_shape has %d entries, expected %d", (int)list->count, (int)spatial);
    *out = list->v[list->count - spatial + i];
    return *out >= 0 && *out <= INT32_MAX
               ? HK_OK
               : hk_args_fail(a, "output_shape: expected values from 0 to 2^31-1, found %lld", (long long)*out);
}

/* One spatial axis: where the output begins and how long it is, as ONNX derives them. w->out is our input's extent,
 * w->in our output's. */
static hk_status resolve_axis(const hk_args *a, hk_window *w, int32_t i)
{
    const transpose_attrs *t = a->node->attrs;
    int32_t axis = HK_AXES - w->spatial + i;
    bool upper = !strcmp(t->auto_pad, "SAME_UPPER"), same = upper || !strcmp(t->auto_pad, "SAME_LOWER");
    int64_t begin = 0, end = 0, want, x = w->out[axis];
    if (!same && *t->auto_pad && strcmp(t->auto_pad, "NOTSET") != 0 && strcmp(t->auto_pad, "VALID") != 0)
        return hk_args_fail(a, "auto_pad is '%s', expected NOTSET, SAME_UPPER, SAME_LOWER or VALID", t->auto_pad);
    HK_TRY(stated_output(a, w->spatial, i, &want));
    if (x < 0 || w->kernel[axis] < 0)
        return HK_OK;
    if (x > INT32_MAX || w->kernel[axis] > INT32_MAX)
        return hk_args_fail(a, "spatial axis %d is longer than 2^31-1", (int)i);
    if (want < 0 && same)
        want = x * w->stride[axis];
    int64_t whole = (x - 1) * w->stride[axis] + entry(&t->output_padding, i, 0) +
                    (w->kernel[axis] - 1) * w->dilation[axis] + 1;
    if (want >= 0) {
        int64_t total = HK_MAX(whole - want, 0);
        begin = upper ? total / 2 : total - total / 2;
    } else {
        if (*t->auto_pad == 'N' || !*t->auto_pad) {
            begin = entry(&t->pads, i, 0);
            end = entry(&t->pads, w->spatial + i, 0);
        }
        want = whole - begin - end;
    }
    w->begin[axis] = begin;
    w->in[axis] = want;
    if (want < 0)
        return hk_args_fail(a, "spatial axis %d would have %lld elements: pads take more than there are", (int)i,
                            (long long)want);
    return HK_OK;
}

static hk_status resolve(const hk_args *a, hk_conv *p)
{
    const transpose_attrs *t = a->node->attrs;
    hk_shape x = hk_args_shape(a, IN_X), w = hk_args_shape(a, IN_W);
    HK_TRY(check_lists(a, &x, &w));
    if (t->group < 1 || t->group > INT32_MAX || (w.dim[0] >= 0 && (w.dim[0] == 0 || w.dim[0] % t->group)) ||
        w.dim[1] == 0)
        return hk_args_fail(a, "expected channels, and a group that divides the weight's %lld input channels",
                            (long long)w.dim[0]);
    if (x.dim[1] >= 0 && w.dim[0] >= 0 && x.dim[1] != w.dim[0])
        return hk_args_fail(a, "the input has %lld channels, expected %lld like the weight", (long long)x.dim[1],
                            (long long)w.dim[0]);
    *p = (hk_conv){.n = x.dim[0], .k = w.dim[0], .c = w.dim[1] < 0 ? -1 : w.dim[1] * t->group, .groups = t->group};
    p->w.spatial = x.rank - 2;
    for (int32_t axis = 0; axis < HK_AXES; axis++)
        p->w.in[axis] = p->w.out[axis] = p->w.kernel[axis] = p->w.stride[axis] = p->w.dilation[axis] = 1;
    for (int32_t i = 0; i < p->w.spatial; i++) {
        int32_t axis = HK_AXES - p->w.spatial + i;
        p->w.out[axis] = x.dim[2 + i];
        p->w.kernel[axis] = w.dim[2 + i];
        p->w.stride[axis] = entry(&t->strides, i, 1);
        p->w.dilation[axis] = entry(&t->dilations, i, 1);
        p->w.in[axis] = -1;
        if (w.dim[2 + i] == 0 || (t->kernel_shape.v && w.dim[2 + i] >= 0 && w.dim[2 + i] != t->kernel_shape.v[i]))
            return hk_args_fail(a, "the weight's window has extent %lld along spatial axis %d, expected %lld",
                                (long long)w.dim[2 + i], (int)i, (long long)entry(&t->kernel_shape, i, 1));
        HK_TRY(resolve_axis(a, &p->w, i));
    }
    return HK_OK;
}

static hk_shape output_shape(const hk_conv *p)
{
    hk_shape y = {.rank = 2 + p->w.spatial, .dim = {p->n, p->c}};
    for (int32_t i = 0; i < p->w.spatial; i++)
        y.dim[2 + i] = p->w.in[HK_AXES - p->w.spatial + i];
    return y;
}

static hk_status transpose_infer(hk_infer *in)
{
    hk_args a = hk_infer_args(in);
    const hk_value *x = hk_in(in->node, IN_X), *w = hk_in(in->node, IN_W), *bias = hk_in(in->node, IN_BIAS);
    if (!hk_dtype_is_float(x->dtype) || x->dtype != w->dtype)
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected input and weight of one float type, found %s and %s",
                             hk_dtype_name(x->dtype), hk_dtype_name(w->dtype));
    if (x->shape.rank < 0 || w->shape.rank < 0)
        return hk_infer_output(in, 0, x->dtype, &HK_SHAPE_UNKNOWN);
    hk_conv p;
    HK_TRY(resolve(&a, &p));
    if (bias && hk_shape_known(&bias->shape) && p.c >= 0 && (bias->shape.rank != 1 || bias->shape.dim[0] != p.c))
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected a bias of shape [%lld]", (long long)p.c);
    hk_shape y = output_shape(&p);
    const hk_value *residual = hk_in(in->node, IN_RESIDUAL);
    if (!hk_activation_valid(((const transpose_attrs *)in->node->attrs)->activation))
        return hk_infer_fail(in, HK_STATUS_INVALID, "the activation's code is not known");
    if (residual && hk_shape_known(&residual->shape) && hk_shape_known(&y) && !hk_shape_equal(&residual->shape, &y))
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected a residual of the output's shape");
    return hk_infer_output(in, 0, x->dtype, &y);
}

/* ---- the oracle, the device */

static hk_status transpose_eval(hk_eval *e)
{
    hk_args a = hk_eval_args(e);
    const transpose_attrs *t = e->node->attrs;
    const hk_tensor *bias = hk_in(e->node, IN_BIAS) ? e->in[IN_BIAS] : NULL;
    const hk_tensor *residual = hk_in(e->node, IN_RESIDUAL) ? e->in[IN_RESIDUAL] : NULL;
    hk_conv p;
    HK_TRY(resolve(&a, &p));
    hk_shape s = output_shape(&p);
    hk_tensor *out = hk_eval_output(e, 0, e->in[IN_X]->dtype, &s);
    double *x = hk_tensor_doubles(e->arena, e->in[IN_X]), *w = hk_tensor_doubles(e->arena, e->in[IN_W]);
    double *y = out ? hk_tensor_doubles(e->arena, out) : NULL;
    if (!x || !w || !y)
        return hk_out_of_memory(e->ctx, "evaluating a transposed convolution");
    hk_conv_reference(&p, HK_CONV_DATA, y, w, x);
    int64_t plane = hk_window_in_count(&p.w), count = hk_tensor_count(out);
    for (int64_t i = 0; i < count; i++) {
        double v = y[i] + (bias ? hk_get_double(bias, i / plane % p.c) : 0.0) +
                   (residual ? hk_get_double(residual, i) : 0.0);
        hk_set_double(out, i, hk_activation_apply(t->activation, v, (double)t->alpha, (double)t->beta));
    }
    return HK_OK;
}

static hk_status transpose_lower(hk_lower *l)
{
    const hk_node *n = l->node;
    hk_args a = hk_node_args(l->ctx, n);
    hk_conv_job job = {
        .pass = HK_CONV_DATA, .x = n->out[0], .w = n->in[IN_W], .y = n->in[IN_X], .bias = hk_in(n, IN_BIAS)};
    const transpose_attrs *t = n->attrs;
    job.residual = hk_in(n, IN_RESIDUAL);
    job.activation = (uint32_t)t->activation;
    job.alpha = t->alpha;
    job.beta = t->beta;
    HK_TRY(resolve(&a, &job.p));
    if (hk_shape_count(&job.x->shape) == 0)
        return HK_OK;
    return hk_conv_lower_gather(l, &job);
}

/* ---- gradients */

enum { CONV_VALUES = 7 };

/* The attributes of the convolution whose adjoint this is, its output being our input; ends: its padding at the ends,
 * negative where the last elements of our output lie behind every window. */
static hk_status conv_values(hk_graph *g, const hk_node *n, const hk_conv *p, hk_attr_value values[CONV_VALUES],
                             int64_t ends[HK_AXES])
{
    const transpose_attrs *t = n->attrs;
    int64_t *pads = hk_arena_array(g->arena, 2 * HK_AXES, sizeof *pads),
            *kernel = hk_arena_array(g->arena, HK_AXES, sizeof *kernel);
    int32_t spatial = p->w.spatial;
    if (!pads || !kernel)
        return hk_out_of_memory(g->ctx, "the gradient of a transposed convolution");
    for (int32_t i = 0; i < spatial; i++) {
        int32_t axis = HK_AXES - spatial + i;
        const hk_window *w = &p->w;
        ends[i] = (w->out[axis] - 1) * w->stride[axis] + (w->kernel[axis] - 1) * w->dilation[axis] + 1 - w->in[axis] -
                  w->begin[axis];
        pads[i] = w->begin[axis];
        pads[spatial + i] = HK_MAX(ends[i], 0);
        kernel[i] = w->kernel[axis];
    }
    int k = 0;
    values[k++] = (hk_attr_value)HK_SET_INTS("kernel_shape", kernel, spatial);
    values[k++] = (hk_attr_value)HK_SET_INTS("pads", pads, 2 * spatial);
    values[k++] = (hk_attr_value)HK_SET_INT("group", t->group);
    if (t->strides.v)
        values[k++] = (hk_attr_value)HK_SET_INTS("strides", t->strides.v, t->strides.count);
    if (t->dilations.v)
        values[k++] = (hk_attr_value)HK_SET_INTS("dilations", t->dilations.v, t->dilations.count);
    return HK_OK;
}

/* dY without what lies a stride or more behind the last window: a forward convolution would put windows there. */
static hk_status crop_ends(hk_graph *g, const hk_conv *p, const int64_t ends[HK_AXES], hk_value **dy)
{
    int64_t pads[2 * HK_MAX_RANK] = {0};
    bool crop = false;
    for (int32_t i = 0; i < p->w.spatial; i++)
        if (-ends[i] >= p->w.stride[HK_AXES - p->w.spatial + i]) {
            pads[(*dy)->shape.rank + 2 + i] = ends[i];
            crop = true;
        }
    return crop ? hk_build_pad(g, *dy, pads, dy) : HK_OK;
}

static hk_status transpose_backward(hk_gradient *g, hk_node *n)
{
    hk_graph *graph = hk_gradient_graph(g);
    hk_args a = hk_node_args(graph->ctx, n);
    hk_value *dy = hk_gradient_of(g, n->out[0]), *bias = hk_in(n, IN_BIAS), *d = NULL;
    hk_attr_value values[CONV_VALUES] = {{0}};
    int64_t ends[HK_AXES];
    hk_conv p;
    if (!hk_shape_known(&n->in[IN_X]->shape) || !hk_shape_known(&n->in[IN_W]->shape))
        return hk_args_shape_wanted(&a);
    HK_TRY(resolve(&a, &p));
    if (bias && hk_gradient_wanted(g, bias)) {
        HK_TRY(hk_build_unary(graph, "hk.SumChannels", dy, &d));
        HK_TRY(hk_gradient_add(g, bias, d));
    }
    HK_TRY(conv_values(graph, n, &p, values, ends));
    HK_TRY(crop_ends(graph, &p, ends, &dy));
    if (hk_gradient_wanted(g, n->in[IN_X])) {
        HK_TRY(hk_build(graph, "Conv", values, (hk_value *[]){dy, n->in[IN_W]}, 2, &d, 1));
        HK_TRY(hk_gradient_add(g, n->in[IN_X], d));
    }
    if (!hk_gradient_wanted(g, n->in[IN_W]))
        return HK_OK;
    HK_TRY(hk_build(graph, "hk.ConvWeightGrad", values, (hk_value *[]){dy, n->in[IN_X]}, 2, &d, 1));
    return hk_gradient_add(g, n->in[IN_W], d);
}

static const char *const transpose_cases[] = {
    "f32[1,1,3,3] f32[1,2,3,3]",
    "f32[2,4,5,7] p.f32[4,3,2,2] p.f32[3] ; strides=[2,2]",
    "f32[2,4,5,6] p.f32[4,3,3,3] p.f32[3] ; strides=[2,2] pads=[1,1,1,1] output_padding=[1,1]",
    "f32[1,6,5,4] p.f32[6,2,3,3] p.f32[4] ; group=2 strides=[2,1] pads=[1,0,0,1]",
    "f32[1,5,6,5] p.f32[5,1,3,3] ; group=5 strides=[2,2] dilations=[2,2]",
    "f32[1,3,4,4] p.f32[3,2,3,3] ; dilations=[2,3] pads=[1,2,1,1]",
    "f32[1,3,3,4] p.f32[3,2,3,3] ; strides=[3,2] output_shape=[10,8]",
    "f32[1,3,3,4] p.f32[3,2,3,3] ; strides=[3,2] output_shape=[1,2,10,8] output_padding=[1,1]",
    "f32[1,3,3,4] p.f32[3,2,3,3] p.f32[2] ; strides=[2,2] auto_pad=\"SAME_UPPER\"",
    "f32[1,3,3,4] p.f32[3,2,4,3] ; strides=[2,2] auto_pad=\"SAME_LOWER\"",
    "f32[1,3,4,4] p.f32[3,2,2,2] ; dilations=[3,3] strides=[2,2] output_padding=[2,1]",
    "f32[2,4,9] p.f32[4,3,4] p.f32[3] ; strides=[2] pads=[1,1]",
    "f32[1,3,3,2,4] p.f32[3,2,2,3,2] p.f32[2] ; strides=[2,1,2] pads=[0,1,0,1,0,1]",
    "f32[1,5,3,2,4] f32[5,12,3,2,2] f32[12] ; strides=[2,2,1] pads=[1,0,0,0,0,1] output_padding=[1,1,0] ; nograd",
    "f32[0,3,4,4] f32[3,2,2,2] ; ; nograd",
    "f32[2,3,0,4] f32[3,2,2,2] ; strides=[2,2] pads=[0,0,0,0] output_shape=[0,8] ; nograd",
    "f32[1,64,14,14] f32[64,32,2,2] f32[32] ; strides=[2,2] ; nograd",
    "f32[2,70,7,7] f32[70,136,3,3] f32[136] ; strides=[2,2] pads=[1,1,1,1] output_padding=[1,1] ; nograd",
    "f32[1,600,4,4] f32[600,16,1,1] f32[16] ; ; nograd",
    NULL,
};

static const char *const fused_cases[] = {
    "f32[2,4,5,7] f32[4,3,2,2] f32[3] ; strides=[2,2] activation=1 ; nograd",
    "f32[1,20,5,6] f32[20,12,3,3] - f32[1,12,9,11] ; strides=[2,2] pads=[1,1,1,1] activation=2 alpha=0.1 ; nograd",
    "f32[1,600,3,4] f32[600,16,1,1] f32[16] f32[1,16,3,4] ; activation=8 alpha=-0.5 beta=0.75 ; nograd",
    "f32[1,5,3,2,4] f32[5,12,3,2,2] f32[12] f32[1,12,5,4,4] ; strides=[2,2,1] pads=[1,0,0,1,0,1] activation=1 ; nograd",
    NULL,
};

const hk_op hk_ops_conv_transpose[] = {
    {
        .type = "ConvTranspose",
        .since = 1,
        .in_min = 2,
        .in_max = 3,
        .out_min = 1,
        .out_max = 1,
        .parameters = 1u << IN_W | 1u << IN_BIAS,
        .attrs_bytes = sizeof(transpose_attrs),
        .attrs = attr_list,
        .infer = transpose_infer,
        .eval = transpose_eval,
        .lower = transpose_lower,
        .backward = transpose_backward,
        .cases = transpose_cases,
    },
    {
        .type = "hk.ConvTranspose",
        .since = 1,
        .in_min = 2,
        .in_max = 4,
        .out_min = 1,
        .out_max = 1,
        .parameters = 1u << IN_W | 1u << IN_BIAS,
        .attrs_bytes = sizeof(transpose_attrs),
        .attrs = fused_attr_list,
        .infer = transpose_infer,
        .eval = transpose_eval,
        .lower = transpose_lower,
        .cases = fused_cases,
    },
    {0},
};
