/*
 * Normalizations and poolings that are others: LpPool, GlobalLpPool, LpNormalization, LRN (all sums of powers) and
 * MeanVarianceNormalization.
 */
#include <math.h>
#include <string.h>

#include "ops/support/build.h"
#include "ops/support/conv_geometry.h"

typedef struct lp_attrs {
    hk_window_attrs window;
    int64_t p, axis, size;
    float alpha, beta, bias;
    hk_ints axes;
} lp_attrs;

static hk_status check_float(const hk_infer *in)
{
    const lp_attrs *a = in->node->attrs;
    if (!hk_dtype_is_float(in->node->in[0]->dtype))
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected a float input, found %s",
                             hk_dtype_name(in->node->in[0]->dtype));
    return a->p >= 1 ? HK_OK : hk_infer_fail(in, HK_STATUS_INVALID, "p is %lld, expected 1 or more", (long long)a->p);
}

/* Sum of |x|^p before the root. */
static double power(double x, int64_t p)
{
    return p == 1 ? fabs(x) : p == 2 ? x * x : pow(fabs(x), (double)p);
}

static double root(double x, int64_t p)
{
    return p == 1 ? x : p == 2 ? sqrt(x) : pow(x, 1 / (double)p);
}

static hk_status build_power(hk_graph *g, hk_value *x, int64_t p, hk_value **out)
{
    if (p == 2)
        return hk_build_binary(g, "Mul", x, x, out);
    HK_TRY(hk_build_unary(g, "Abs", x, out));
    return p == 1 ? HK_OK : hk_build_scalar(g, "Pow", *out, (double)p, out);
}

static hk_status build_root(hk_graph *g, hk_value *x, int64_t p, hk_value **out)
{
    *out = x;
    if (p == 1)
        return HK_OK;
    return p == 2 ? hk_build_unary(g, "Sqrt", x, out) : hk_build_scalar(g, "Pow", x, 1 / (double)p, out);
}

/* Output i as x itself is shaped, or NULL. */
static hk_tensor *like(hk_eval *e, const hk_tensor *x)
{
    hk_shape s = hk_tensor_shape(x);
    return hk_eval_output(e, 0, x->dtype, &s);
}

/* ---- LpPool */

static const hk_attr pool_attr_list[] = {
    {.name = "auto_pad", .kind = HK_ATTR_STRING, .offset = offsetof(lp_attrs, window.auto_pad), .text = "NOTSET"},
    {.name = "kernel_shape", .kind = HK_ATTR_INTS, .offset = offsetof(lp_attrs, window.kernel_shape), .required = true},
    {.name = "strides", .kind = HK_ATTR_INTS, .offset = offsetof(lp_attrs, window.strides)},
    {.name = "dilations", .kind = HK_ATTR_INTS, .offset = offsetof(lp_attrs, window.dilations)},
    {.name = "pads", .kind = HK_ATTR_INTS, .offset = offsetof(lp_attrs, window.pads)},
    {.name = "ceil_mode", .kind = HK_ATTR_INT, .offset = offsetof(lp_attrs, window.ceil_mode)},
    HK_INT_ATTR(lp_attrs, p, 2),
    {0}};

static bool read_window(const lp_attrs *a, const hk_shape *x, hk_window *w, hk_problem_text *problem)
{
    if (a->window.kernel_shape.count == x->rank - 2)
        return hk_window_resolve(&a->window, x, a->window.kernel_shape.v, w, problem);
    *problem = (hk_problem_text){"expected a kernel_shape with an entry per spatial axis of the input"};
    return false;
}

static hk_status pool_infer(hk_infer *in)
{
    const hk_value *x = in->node->in[0];
    hk_shape y = HK_SHAPE_UNKNOWN;
    hk_window w;
    hk_problem_text problem;
    HK_TRY(check_float(in));
    if (x->shape.rank >= 0) {
        if (!read_window(in->node->attrs, &x->shape, &w, &problem))
            return hk_infer_fail(in, HK_STATUS_INVALID, "%s", problem.text);
        y = hk_window_shape(&w, x->shape.dim[0], x->shape.dim[1]);
    }
    return hk_infer_output(in, 0, x->dtype, &y);
}

static double window_power(const hk_window *w, const hk_tensor *x, int64_t plane, int64_t o, int64_t p)
{
    double sum = 0;
    for (int64_t t = 0; t < hk_window_taps(w); t++) {
        int64_t rest_o = o, rest_t = t, at[HK_AXES], index = 0;
        bool inside = true;
        for (int32_t d = HK_AXES - 1; d >= 0; d--) {
            at[d] = rest_o % w->out[d] * w->stride[d] - w->begin[d] + rest_t % w->kernel[d] * w->dilation[d];
            rest_o /= w->out[d];
            rest_t /= w->kernel[d];
            inside &= at[d] >= 0 && at[d] < w->in[d];
        }
        for (int32_t d = 0; d < HK_AXES; d++)
            index = index * w->in[d] + at[d];
        sum += inside ? power(hk_get_double(x, plane * hk_window_in_count(w) + index), p) : 0;
    }
    return sum;
}

static hk_status pool_eval(hk_eval *e)
{
    const lp_attrs *a = e->node->attrs;
    hk_shape x = hk_tensor_shape(e->in[0]);
    hk_window w;
    hk_problem_text problem;
    if (!read_window(a, &x, &w, &problem))
        return hk_eval_fail(e, HK_STATUS_INTERNAL, "%s", problem.text);
    hk_shape s = hk_window_shape(&w, x.dim[0], x.dim[1]);
    hk_tensor *y = hk_eval_output(e, 0, e->in[0]->dtype, &s);
    if (!y)
        return hk_out_of_memory(e->ctx, "evaluating LpPool");
    int64_t out = hk_window_out_count(&w);
    for (int64_t i = 0; i < hk_tensor_count(y); i++)
        hk_set_double(y, i, root(window_power(&w, e->in[0], i / out, i % out, a->p), a->p));
    return HK_OK;
}

static hk_status pool_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    const lp_attrs *a = n->attrs;
    const hk_window_attrs *w = &a->window;
    hk_value *v;
    int k = 3;
    hk_attr_value values[8] = {HK_SET_STRING("auto_pad", w->auto_pad),
                               HK_SET_INTS("kernel_shape", w->kernel_shape.v, w->kernel_shape.count),
                               HK_SET_INT("ceil_mode", w->ceil_mode)};
    if (w->strides.v)
        values[k++] = (hk_attr_value)HK_SET_INTS("strides", w->strides.v, w->strides.count);
    if (w->dilations.v)
        values[k++] = (hk_attr_value)HK_SET_INTS("dilations", w->dilations.v, w->dilations.count);
    if (w->pads.v)
        values[k++] = (hk_attr_value)HK_SET_INTS("pads", w->pads.v, w->pads.count);
    HK_TRY(build_power(g, n->in[0], a->p, &v));
    HK_TRY(hk_build(g, "hk.SumPool", values, &v, 1, &v, 1));
    return build_root(g, v, a->p, out);
}

static const char *const pool_cases[] = {
    "f32[1,3,9] ; kernel_shape=[2]",
    "f32[2,2,8,9] ; kernel_shape=[3,3] strides=[2,2] pads=[1,1,1,1] p=3",
    "f32[1,2,7,8] ; kernel_shape=[2,2] dilations=[2,2] ceil_mode=1 strides=[2,2]",
    "f32[1,2,7,8] ; kernel_shape=[3,2] auto_pad=\"SAME_LOWER\" p=1 ; nograd",
    "f32[1,2,4,5,6] ; kernel_shape=[2,2,2] p=4",
    NULL,
};

/* ---- GlobalLpPool, LpNormalization: reductions over some axes */

static const hk_attr global_attr_list[] = {HK_INT_ATTR(lp_attrs, p, 2), {0}};
static const hk_attr norm_attr_list[] = {HK_INT_ATTR(lp_attrs, axis, -1), HK_INT_ATTR(lp_attrs, p, 2), {0}};

static bool is_norm(const hk_node *n)
{
    return n->op->type[0] == 'L';
}

static hk_status axis_infer(hk_infer *in)
{
    const lp_attrs *a = in->node->attrs;
    const hk_value *x = in->node->in[0];
    hk_shape y = x->shape;
    HK_TRY(check_float(in));
    if (is_norm(in->node) && a->p > 2)
        return hk_infer_fail(in, HK_STATUS_INVALID, "p is %lld, expected 1 or 2", (long long)a->p);
    if (is_norm(in->node) && y.rank >= 0 && hk_axis(a->axis, y.rank) < 0)
        return hk_infer_fail(in, HK_STATUS_INVALID, "axis %lld is outside [-%d, %d)", (long long)a->axis, (int)y.rank,
                             (int)y.rank);
    if (!is_norm(in->node) && y.rank >= 0 && y.rank < 3)
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected an input of rank 3 or more, found rank %d", (int)y.rank);
    for (int32_t d = 2; d < y.rank && !is_norm(in->node); d++)
        y.dim[d] = 1;
    return hk_infer_output(in, 0, x->dtype, &y);
}

static hk_status global_eval(hk_eval *e)
{
    const lp_attrs *a = e->node->attrs;
    const hk_tensor *x = e->in[0];
    hk_shape s = hk_tensor_shape(x);
    int64_t plane = hk_shape_span(&s, 2, s.rank);
    for (int32_t d = 2; d < s.rank; d++)
        s.dim[d] = 1;
    hk_tensor *y = hk_eval_output(e, 0, x->dtype, &s);
    if (!y)
        return hk_out_of_memory(e->ctx, "evaluating GlobalLpPool");
    for (int64_t i = 0; i < hk_tensor_count(y); i++) {
        double sum = 0;
        for (int64_t k = 0; k < plane; k++)
            sum += power(hk_get_double(x, i * plane + k), a->p);
        hk_set_double(y, i, root(sum, a->p));
    }
    return HK_OK;
}

static hk_status norm_eval(hk_eval *e)
{
    const lp_attrs *a = e->node->attrs;
    const hk_tensor *x = e->in[0];
    hk_tensor *y = like(e, x);
    hk_shape s = hk_tensor_shape(x);
    if (!y)
        return hk_out_of_memory(e->ctx, "evaluating LpNormalization");
    int32_t axis = hk_axis(a->axis, s.rank);
    int64_t extent = s.dim[axis], inner = hk_shape_span(&s, axis + 1, s.rank), count = hk_tensor_count(x);
    for (int64_t i = 0; i < count; i++) {
        int64_t first = i / (extent * inner) * extent * inner + i % inner;
        double sum = 0;
        for (int64_t k = 0; k < extent; k++)
            sum += power(hk_get_double(x, first + k * inner), a->p);
        hk_set_double(y, i, hk_get_double(x, i) / root(sum, a->p)); /* no length: NaN, as the standard's data have it */
    }
    return HK_OK;
}

static hk_status build_norm(hk_graph *g, hk_value *x, int64_t p, const int64_t *axes, int32_t count, hk_value **out)
{
    if (p <= 2)
        return hk_build_reduce(g, p == 1 ? "ReduceL1" : "ReduceL2", x, axes, count, out);
    HK_TRY(build_power(g, x, p, out));
    HK_TRY(hk_build_reduce(g, "ReduceSum", *out, axes, count, out));
    return build_root(g, *out, p, out);
}

static hk_status global_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    int64_t axes[HK_MAX_RANK];
    int32_t rank = n->in[0]->shape.rank;
    for (int32_t d = 2; d < rank; d++)
        axes[d - 2] = d;
    return build_norm(g, n->in[0], ((const lp_attrs *)n->attrs)->p, axes, rank - 2, out);
}

static hk_status norm_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    const lp_attrs *a = n->attrs;
    hk_value *v;
    HK_TRY(build_norm(g, n->in[0], a->p, &a->axis, 1, &v));
    return hk_build_binary(g, "Div", n->in[0], v, out);
}

static const char *const global_cases[] = {"f32[2,3,7,6]", "f32[2,3,5] ; p=1", "f32[1,2,3,4,5] ; p=3",
                                           "f32[0,2,3] ; ; nograd", NULL};
static const char *const norm_cases[] = {"f32[3,4]",
                                         "f32[2,5,3] ; axis=1 p=1",
                                         "f32[2,5,3] ; axis=0",
                                         "f32[2,3]={0,0,0,1,2,3} ; ; nograd",
                                         "f32[0,3] ; ; nograd",
                                         NULL};

/* ---- LRN: x / (bias + alpha / size * sum of squares of neighbouring channels) ^ beta */

static const hk_attr lrn_attr_list[] = {
    {.name = "size", .kind = HK_ATTR_INT, .offset = offsetof(lp_attrs, size), .required = true},
    HK_FLOAT_ATTR(lp_attrs, alpha, 0.0001),
    HK_FLOAT_ATTR(lp_attrs, beta, 0.75),
    HK_FLOAT_ATTR(lp_attrs, bias, 1.0),
    {0}};

static hk_status lrn_infer(hk_infer *in)
{
    const lp_attrs *a = in->node->attrs;
    const hk_value *x = in->node->in[0];
    if (!hk_dtype_is_float(x->dtype))
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected a float input, found %s", hk_dtype_name(x->dtype));
    if (a->size < 1 || a->size > 1 << 20 || (x->shape.rank >= 0 && x->shape.rank < 2))
        return hk_infer_fail(
            in, HK_STATUS_INVALID,
            "expected an input (batch, channels, ...) and a positive size, found rank %d and size %lld",
            (int)x->shape.rank, (long long)a->size);
    return hk_infer_output(in, 0, x->dtype, &x->shape);
}

static hk_status lrn_eval(hk_eval *e)
{
    const lp_attrs *a = e->node->attrs;
    const hk_tensor *x = e->in[0];
    hk_tensor *y = like(e, x);
    hk_shape s = hk_tensor_shape(x);
    if (!y)
        return hk_out_of_memory(e->ctx, "evaluating LRN");
    int64_t plane = hk_shape_span(&s, 2, s.rank), channels = s.dim[1], before = (a->size - 1) / 2,
            after = a->size - 1 - before;
    for (int64_t i = 0; i < hk_tensor_count(y); i++) {
        int64_t c = i / plane % channels;
        double sum = 0;
        for (int64_t k = HK_MAX(c - before, 0); k <= HK_MIN(c + after, channels - 1); k++)
            sum += power(hk_get_double(x, i + (k - c) * plane), 2);
        hk_set_double(y, i,
                      hk_get_double(x, i) /
                          pow((double)a->bias + (double)a->alpha / (double)a->size * sum, (double)a->beta));
    }
    return HK_OK;
}

static hk_status lrn_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    const lp_attrs *a = n->attrs;
    hk_value *x = n->in[0], *v;
    const hk_shape *s = &x->shape;
    int64_t before = (a->size - 1) / 2;
    const int64_t kernel[] = {a->size, 1}, pads[] = {before, 0, a->size - 1 - before, 0};
    const hk_shape columns = {4, {s->dim[0], 1, s->dim[1], hk_shape_span(s, 2, s->rank)}};
    const hk_attr_value values[] = {HK_SET_INTS("kernel_shape", kernel, 2), HK_SET_INTS("pads", pads, 4), {0}};
    if (hk_shape_count(s) == 0)
        return hk_build_unary(g, "Identity", x, out);
    HK_TRY(hk_build_binary(g, "Mul", x, x, &v));
    HK_TRY(hk_build_reshape(g, v, &columns, &v));
    HK_TRY(hk_build(g, "hk.SumPool", values, &v, 1, &v, 1));
    HK_TRY(hk_build_reshape(g, v, s, &v));
    HK_TRY(hk_build_scalar(g, "Mul", v, (double)a->alpha / (double)a->size, &v));
    HK_TRY(hk_build_scalar(g, "Add", v, (double)a->bias, &v));
    HK_TRY(hk_build_scalar(g, "Pow", v, (double)a->beta, &v));
    return hk_build_binary(g, "Div", x, v, out);
}

static const char *const lrn_cases[] = {
    "f32[2,7,3,4] ; size=3 alpha=0.5",
    "f32[1,5,6] ; size=4 alpha=1.0 beta=0.5 bias=2.0",
    "f32[3,4] ; size=9 alpha=0.3",
    "f32[0,5,6] ; size=3 ; nograd",
    NULL,
};

/* ---- MeanVarianceNormalization */

static const hk_attr mvn_attr_list[] = {HK_INTS_ATTR(lp_attrs, axes), {0}};

static hk_ints mvn_axes(const hk_node *n)
{
    static const int64_t usual[] = {0, 2, 3};
    hk_ints axes = ((const lp_attrs *)n->attrs)->axes;
    return axes.v ? axes : (hk_ints){usual, 3};
}

static hk_status mvn_infer(hk_infer *in)
{
    const hk_value *x = in->node->in[0];
    hk_ints axes = mvn_axes(in->node);
    if (!hk_dtype_is_float(x->dtype))
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected a float input, found %s", hk_dtype_name(x->dtype));
    for (int32_t i = 0; i < axes.count && x->shape.rank >= 0; i++)
        if (hk_axis(axes.v[i], x->shape.rank) < 0)
            return hk_infer_fail(in, HK_STATUS_INVALID, "axis %lld is outside of the input's %d dimensions",
                                 (long long)axes.v[i], (int)x->shape.rank);
    return hk_infer_output(in, 0, x->dtype, &x->shape);
}

/* The group of element i: its index with the reduced axes left out. */
static int64_t mvn_group(const hk_shape *s, uint32_t reduced, int64_t i)
{
    int64_t strides[HK_MAX_RANK], group = 0;
    hk_shape_strides(s, strides);
    for (int32_t d = 0; d < s->rank; d++)
        if (!(reduced >> d & 1u))
            group = group * s->dim[d] + i / strides[d] % s->dim[d];
    return group;
}

static hk_status mvn_eval(hk_eval *e)
{
    const hk_tensor *x = e->in[0];
    hk_ints axes = mvn_axes(e->node);
    hk_tensor *y = like(e, x);
    hk_shape s = hk_tensor_shape(x);
    int64_t count = hk_tensor_count(x), per_group = 1;
    uint32_t reduced = 0;
    double *mean = hk_arena_array(e->arena, (size_t)count + 1, sizeof *mean),
           *variance = hk_arena_array(e->arena, (size_t)count + 1, sizeof *variance);
    if (!y || !mean || !variance)
        return hk_out_of_memory(e->ctx, "evaluating MeanVarianceNormalization");
    for (int32_t k = 0; k < axes.count; k++)
        reduced |= 1u << hk_axis(axes.v[k], s.rank);
    for (int32_t d = 0; d < s.rank; d++)
        per_group *= reduced >> d & 1u ? s.dim[d] : 1;
    for (int64_t i = 0; i < count; i++)
        mean[mvn_group(&s, reduced, i)] += hk_get_double(x, i) / (double)per_group;
    for (int64_t i = 0; i < count; i++) {
        int64_t group = mvn_group(&s, reduced, i);
        variance[group] += power(hk_get_double(x, i) - mean[group], 2) / (double)per_group;
    }
    for (int64_t i = 0; i < count; i++) {
        int64_t group = mvn_group(&s, reduced, i);
        hk_set_double(y, i, (hk_get_double(x, i) - mean[group]) / (sqrt(variance[group]) + 1e-9));
    }
    return HK_OK;
}

static hk_status mvn_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    hk_ints axes = mvn_axes(n);
    hk_value *v, *centered;
    HK_TRY(hk_build_reduce(g, "ReduceMean", n->in[0], axes.v, axes.count, &v));
    HK_TRY(hk_build_binary(g, "Sub", n->in[0], v, &centered));
    HK_TRY(hk_build_binary(g, "Mul", centered, centered, &v));
    HK_TRY(hk_build_reduce(g, "ReduceMean", v, axes.v, axes.count, &v));
    HK_TRY(hk_build_unary(g, "Sqrt", v, &v));
    HK_TRY(hk_build_scalar(g, "Add", v, 1e-9, &v));
    return hk_build_binary(g, "Div", centered, v, out);
}

static const char *const mvn_cases[] = {
    "f32[3,2,4,5]", "f32[4,6] ; axes=[-1]", "f32[2,3,4] ; axes=[0,2]", "f32[0,2,4,5] ; ; nograd", NULL,
};

#define OP(name, from, list, infer_rule, fn, case_list)                                                                \
    {                                                                                                                  \
        .type = name, .since = from, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1,                             \
        .attrs_bytes = sizeof(lp_attrs), .attrs = list, .infer = infer_rule, .eval = fn##_eval, .expand = fn##_expand, \
        .cases = case_list                                                                                             \
    }

const hk_op hk_ops_lp[] = {
    OP("LpPool", 2, pool_attr_list, pool_infer, pool, pool_cases),
    OP("GlobalLpPool", 2, global_attr_list, axis_infer, global, global_cases),
    OP("LpNormalization", 1, norm_attr_list, axis_infer, norm, norm_cases),
    OP("LRN", 1, lrn_attr_list, lrn_infer, lrn, lrn_cases),
    OP("MeanVarianceNormalization", 9, mvn_attr_list, mvn_infer, mvn, mvn_cases),
    {0},
};
