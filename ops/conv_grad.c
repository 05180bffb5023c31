/*
 * The backward operators of Conv. None is differentiable itself.
 *
 * hk.ConvDataGrad(dY, W, R, gate; input_shape) -> dX   the adjoint of Conv in its input, plus R if that is there; in
 *                                                NHWC8 0 where gate is there and not above 0
 * hk.ConvWeightGrad(X, dY; kernel_shape) -> dW, dB   the adjoint in weight and bias
 * hk.SumChannels(X) -> sums                      (n, c, ...) summed to (c), for a bias without its weight
 */
#include "ops/support/conv_lower.h"
#include "kernels.h"

#include "shaders/conv_channels.push.h"

#define WINDOW_ATTRS                                                                                                   \
    {.name = "auto_pad",                                                                                               \
     .kind = HK_ATTR_STRING,                                                                                           \
     .offset = offsetof(hk_conv_attrs, window.auto_pad),                                                               \
     .text = "NOTSET"},                                                                                                \
        {.name = "strides", .kind = HK_ATTR_INTS, .offset = offsetof(hk_conv_attrs, window.strides)},                  \
        {.name = "dilations", .kind = HK_ATTR_INTS, .offset = offsetof(hk_conv_attrs, window.dilations)},              \
        {.name = "pads", .kind = HK_ATTR_INTS, .offset = offsetof(hk_conv_attrs, window.pads)},                        \
        HK_INT_ATTR(hk_conv_attrs, group, 1)

static const hk_attr data_attrs[] = {
    WINDOW_ATTRS,
    {.name = "input_shape", .kind = HK_ATTR_INTS, .offset = offsetof(hk_conv_attrs, input_shape), .required = true},
    {0},
};
static const hk_attr weight_attrs[] = {
    WINDOW_ATTRS,
    {.name = "kernel_shape",
     .kind = HK_ATTR_INTS,
     .offset = offsetof(hk_conv_attrs, window.kernel_shape),
     .required = true},
    {0},
};

/* ---- shapes: what the forward convolution had */

/* The problem of dY and W; X's shape comes from the attribute. */
static bool resolve_data(const hk_conv_attrs *a, const hk_shape *dy, const hk_shape *w, hk_shape *x, hk_conv *p,
                         hk_problem_text *t)
{
    *x = (hk_shape){.rank = w->rank, .dim = {dy->dim[0], w->dim[1] < 0 ? -1 : w->dim[1] * a->group}};
    if (w->rank < 3 || dy->rank != w->rank || a->input_shape.count != w->rank - 2) {
        *t = (hk_problem_text){
            "expected dY and W of one rank, 3 to 5, and an input_shape with an entry per spatial axis"};
        return false;
    }
    for (int32_t i = 2; i < w->rank; i++)
        x->dim[i] = a->input_shape.v[i - 2];
    return hk_conv_resolve(a, x, w, p, t);
}

/* The problem of X and dY; W's shape comes from the attribute. */
static bool resolve_weight(const hk_conv_attrs *a, const hk_shape *x, const hk_shape *dy, hk_shape *w, hk_conv *p,
                           hk_problem_text *t)
{
    const hk_ints *kernel = &a->window.kernel_shape;
    if (x->rank < 3 || dy->rank != x->rank || kernel->count != x->rank - 2) {
        *t = (hk_problem_text){
            "expected X and dY of one rank, 3 to 5, and a kernel_shape with an entry per spatial axis"};
        return false;
    }
    if (a->group < 1 || (x->dim[1] >= 0 && x->dim[1] % a->group)) {
        *t = (hk_problem_text){"expected a group that divides the input's channels"};
        return false;
    }
    *w = (hk_shape){.rank = x->rank, .dim = {dy->dim[1], x->dim[1] < 0 ? -1 : x->dim[1] / a->group}};
    for (int32_t i = 2; i < x->rank; i++)
        w->dim[i] = kernel->v[i - 2];
    return hk_conv_resolve(a, x, w, p, t);
}

/* dY must be what the forward pass makes. */
static hk_status check_output(const hk_infer *in, const hk_conv *p, const hk_shape *dy)
{
    hk_shape y = hk_window_shape(&p->w, p->n, p->k);
    bool fits = true;
    for (int32_t i = 0; i < y.rank; i++)
        fits &= y.dim[i] < 0 || dy->dim[i] < 0 || y.dim[i] == dy->dim[i];
    if (fits)
        return HK_OK;
    hk_shape_text expected, found;
    return hk_infer_fail(in, HK_STATUS_INVALID, "expected a dY of shape %s, found %s", hk_shape_print(&y, &expected),
                         hk_shape_print(dy, &found));
}

static hk_status check_types(const hk_infer *in)
{
    const hk_value *a = hk_in(in->node, 0), *b = hk_in(in->node, 1);
    if (hk_dtype_is_float(a->dtype) && a->dtype == b->dtype)
        return HK_OK;
    return hk_infer_fail(in, HK_STATUS_INVALID, "expected two inputs of one float type, found %s and %s",
                         hk_dtype_name(a->dtype), hk_dtype_name(b->dtype));
}

static hk_status infer_data(hk_infer *in)
{
    const hk_value *dy = hk_in(in->node, 0), *w = hk_in(in->node, 1);
    HK_TRY(check_types(in));
    if (dy->shape.rank < 0 || w->shape.rank < 0)
        return hk_infer_output(in, 0, dy->dtype, &HK_SHAPE_UNKNOWN);
    hk_conv p;
    hk_shape x;
    hk_problem_text problem;
    if (!resolve_data(in->node->attrs, &dy->shape, &w->shape, &x, &p, &problem))
        return hk_infer_fail(in, HK_STATUS_INVALID, "%s", problem.text);
    HK_TRY(check_output(in, &p, &dy->shape));
    for (int32_t i = 2; i < 4; i++) {
        const hk_value *v = hk_in(in->node, i);
        hk_shape_text expected, found;
        if (v && hk_shape_known(&v->shape) && hk_shape_known(&x) && !hk_shape_equal(&v->shape, &x))
            return hk_infer_fail(in, HK_STATUS_INVALID, "expected a residual and a gate of dX's shape %s, found %s",
                                 hk_shape_print(&x, &expected), hk_shape_print(&v->shape, &found));
    }
    return hk_infer_output(in, 0, dy->dtype, &x);
}

static hk_status infer_weight(hk_infer *in)
{
    const hk_value *x = hk_in(in->node, 0), *dy = hk_in(in->node, 1);
    HK_TRY(check_types(in));
    hk_shape w = HK_SHAPE_UNKNOWN, b = {.rank = 1, .dim = {-1}};
    if (x->shape.rank >= 0 && dy->shape.rank >= 0) {
        hk_conv p;
        hk_problem_text problem;
        if (!resolve_weight(in->node->attrs, &x->shape, &dy->shape, &w, &p, &problem))
            return hk_infer_fail(in, HK_STATUS_INVALID, "%s", problem.text);
        HK_TRY(check_output(in, &p, &dy->shape));
        b.dim[0] = p.k;
    }
    HK_TRY(hk_infer_output(in, 0, x->dtype, &w));
    return hk_infer_output(in, 1, x->dtype, &b);
}

static hk_status infer_channels(hk_infer *in)
{
    const hk_value *x = hk_in(in->node, 0);
    if (!hk_dtype_is_float(x->dtype))
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected a float input, found %s", hk_dtype_name(x->dtype));
    if (x->shape.rank >= 0 && x->shape.rank < 2)
        return hk_infer_fail(in, HK_STATUS_INVALID,
                             "expected an input of rank 2 or more (batch, channels, ...), found rank %d",
                             (int)x->shape.rank);
    return hk_infer_output(in, 0, x->dtype, &(hk_shape){.rank = 1, .dim = {x->shape.rank < 0 ? -1 : x->shape.dim[1]}});
}

/* ---- the oracle */

static void store_doubles(hk_tensor *t, const double *v)
{
    int64_t count = hk_tensor_count(t);
    for (int64_t i = 0; i < count; i++)
        hk_set_double(t, i, v[i]);
}

static hk_status eval_data(hk_eval *e)
{
    hk_shape dys = hk_tensor_shape(e->in[0]), ws = hk_tensor_shape(e->in[1]), xs;
    hk_conv p;
    hk_problem_text problem;
    if (!resolve_data(e->node->attrs, &dys, &ws, &xs, &p, &problem))
        return hk_eval_fail(e, HK_STATUS_INTERNAL, "%s", problem.text);
    hk_tensor *out = hk_eval_output(e, 0, e->in[0]->dtype, &xs);
    double *dy = hk_tensor_doubles(e->arena, e->in[0]), *w = hk_tensor_doubles(e->arena, e->in[1]);
    double *dx = out ? hk_tensor_doubles(e->arena, out) : NULL;
    if (!dx || !dy || !w)
        return hk_out_of_memory(e->ctx, "evaluating a convolution's gradient");
    hk_conv_reference(&p, HK_CONV_DATA, dx, w, dy);
    const hk_tensor *residual = e->node->in_count > 2 ? e->in[2] : NULL;
    const hk_tensor *gate = e->node->in_count > 3 ? e->in[3] : NULL;
    for (int64_t i = 0; i < hk_tensor_count(out); i++) {
        dx[i] += residual ? hk_get_double(residual, i) : 0.0;
        dx[i] = gate && !(hk_get_double(gate, i) > 0) ? 0.0 : dx[i];
    }
    store_doubles(out, dx);
    return HK_OK;
}

/* x (n, c, plane) summed over n and plane. */
static void sum_channels(const double *x, int64_t n, int64_t c, int64_t plane, double *sums)
{
    for (int64_t row = 0; row < n * c; row++)
        for (int64_t i = 0; i < plane; i++)
            sums[row % c] += x[row * plane + i];
}

static hk_status eval_weight(hk_eval *e)
{
    hk_shape xs = hk_tensor_shape(e->in[0]), dys = hk_tensor_shape(e->in[1]), ws;
    hk_conv p;
    hk_problem_text problem;
    if (!resolve_weight(e->node->attrs, &xs, &dys, &ws, &p, &problem))
        return hk_eval_fail(e, HK_STATUS_INTERNAL, "%s", problem.text);
    hk_tensor *out = hk_eval_output(e, 0, e->in[0]->dtype, &ws);
    double *x = hk_tensor_doubles(e->arena, e->in[0]), *dy = hk_tensor_doubles(e->arena, e->in[1]);
    double *dw = out ? hk_tensor_doubles(e->arena, out) : NULL;
    if (!x || !dy || !dw)
        return hk_out_of_memory(e->ctx, "evaluating a convolution's gradient");
    hk_conv_reference(&p, HK_CONV_WEIGHT, x, dw, dy);
    store_doubles(out, dw);
    if (!hk_out(e->node, 1))
        return HK_OK;
    hk_tensor *bias = hk_eval_output(e, 1, e->in[0]->dtype, &(hk_shape){.rank = 1, .dim = {p.k}});
    double *db = bias ? hk_tensor_doubles(e->arena, bias) : NULL;
    if (!db)
        return hk_out_of_memory(e->ctx, "evaluating a convolution's gradient");
    sum_channels(dy, p.n, p.k, hk_window_out_count(&p.w), db);
    store_doubles(bias, db);
    return HK_OK;
}

static hk_status eval_channels(hk_eval *e)
{
    hk_shape xs = hk_tensor_shape(e->in[0]);
    hk_tensor *out = hk_eval_output(e, 0, e->in[0]->dtype, &(hk_shape){.rank = 1, .dim = {xs.dim[1]}});
    double *x = hk_tensor_doubles(e->arena, e->in[0]), *sums = out ? hk_tensor_doubles(e->arena, out) : NULL;
    if (!x || !sums)
        return hk_out_of_memory(e->ctx, "evaluating hk.SumChannels");
    sum_channels(x, xs.dim[0], xs.dim[1], hk_shape_span(&xs, 2, xs.rank), sums);
    store_doubles(out, sums);
    return HK_OK;
}

/* ---- the device */

static hk_status lower_data(hk_lower *l)
{
    const hk_node *n = l->node;
    hk_conv_job job = {.pass = HK_CONV_DATA,
                       .x = n->out[0],
                       .w = n->in[1],
                       .y = n->in[0],
                       .residual = hk_in(n, 2),
                       .gate = hk_in(n, 3)};
    hk_shape x;
    hk_problem_text problem;
    if (!resolve_data(n->attrs, &job.y->shape, &job.w->shape, &x, &job.p, &problem))
        return hk_fail(l->ctx, HK_STATUS_INTERNAL, "node '%s' (%s): %s", n->name, n->type, problem.text);
    if (hk_shape_count(&job.x->shape) == 0)
        return HK_OK;
    if (job.x->layout == HK_LAYOUT_NHWC8)
        return hk_conv_lower_data_nhwc8(l, &job);
    if (job.gate)
        return hk_fail(l->ctx, HK_STATUS_INTERNAL, "node '%s' (%s): gradients have gates in NHWC8 alone", n->name,
                       n->type);
    return hk_conv_lower_gather(l, &job);
}

static hk_status lower_weight(hk_lower *l)
{
    const hk_node *n = l->node;
    hk_conv_job job = {.pass = HK_CONV_WEIGHT, .x = n->in[0], .w = n->out[0], .y = n->in[1], .bias = hk_out(n, 1)};
    hk_shape w;
    hk_problem_text problem;
    if (!resolve_weight(n->attrs, &job.x->shape, &job.y->shape, &w, &job.p, &problem))
        return hk_fail(l->ctx, HK_STATUS_INTERNAL, "node '%s' (%s): %s", n->name, n->type, problem.text);
    bool nhwc8 = job.x->layout == HK_LAYOUT_NHWC8 || job.y->layout == HK_LAYOUT_NHWC8;
    return nhwc8 ? hk_conv_lower_weight_nhwc8(l, &job) : hk_conv_lower_weight(l, &job);
}

/* What the kernels in NHWC8 can do: two spatial axes, one group, taps that fit the packed masks and table. */
static bool fits_nhwc8(const hk_value *v, const hk_conv *p)
{
    const hk_window *w = &p->w;
    return v->dtype == HK_FLOAT32 && w->spatial <= 2 && p->groups == 1 && w->kernel[HK_AXIS_H] <= 16 &&
           w->kernel[HK_AXIS_W] <= 16 && w->begin[HK_AXIS_H] < 65536 && w->begin[HK_AXIS_W] < 65536 &&
           w->stride[HK_AXIS_H] * w->stride[HK_AXIS_W] <= 64 && hk_window_taps(w) * (p->k + 7) / 8 < 1 << 22;
}

bool hk_conv_data_grad_accepts_nhwc8(const hk_node *n)
{
    const hk_value *dy = hk_in(n, 0), *w = hk_in(n, 1);
    hk_conv p;
    hk_shape x;
    hk_problem_text problem;
    return hk_node_is(n, "hk.ConvDataGrad") && hk_shape_known(&dy->shape) && hk_shape_known(&w->shape) &&
           resolve_data(n->attrs, &dy->shape, &w->shape, &x, &p, &problem) && fits_nhwc8(dy, &p);
}

bool hk_conv_weight_grad_accepts_nhwc8(const hk_node *n)
{
    const hk_value *x = hk_in(n, 0), *dy = hk_in(n, 1);
    hk_conv p;
    hk_shape w;
    hk_problem_text problem;
    return hk_node_is(n, "hk.ConvWeightGrad") && hk_shape_known(&x->shape) && hk_shape_known(&dy->shape) &&
           resolve_weight(n->attrs, &x->shape, &dy->shape, &w, &p, &problem) && fits_nhwc8(x, &p);
}

/* Workgroups per channel: so many that the device's memory is kept busy, none with less than some thousand elements,
 * and so that no lane adds very many numbers in a row (rounding). */
static uint32_t channel_splits(const hk_lower *l, int64_t channels, int64_t per_channel, uint32_t lanes)
{
    int64_t fill = (16 * (int64_t)l->compute_units_hint + channels - 1) / channels;
    int64_t exact = (per_channel + (int64_t)lanes * 4096 - 1) / ((int64_t)lanes * 4096);
    return (uint32_t)HK_MIN(HK_MAX(HK_MIN(fill, HK_MAX(per_channel / 2048, 1)), exact), 1024);
}

static hk_status lower_channels(hk_lower *l)
{
    hk_value *x = l->node->in[0], *y = l->node->out[0];
    int64_t c = x->shape.dim[1], plane = hk_shape_span(&x->shape, 2, x->shape.rank),
            per_channel = x->shape.dim[0] * plane;
    if (c == 0)
        return HK_OK;
    if (per_channel == 0) {
        hk_emit_fill(l, y, 0);
        return HK_OK;
    }
    uint32_t lanes = l->cpu ? 8 : HK_MIN(128u, l->device->max_invocations),
             splits = channel_splits(l, c, per_channel, lanes);
    uint32_t chunk = (uint32_t)((per_channel + splits - 1) / splits);
    hk_value *out = splits > 1 ? hk_scratch(l, HK_FLOAT32, splits * c) : y;
    if (!out)
        return hk_out_of_memory(l->ctx, "the sum over channels");
    hk_record *r = hk_emit(l, &hk_kernel_conv_channels, "channel sums");
    hk_divisor d = hk_divisor_of((uint32_t)plane);
    struct conv_channels_push push = {.channels = (uint32_t)c,
                                      .plane = (uint32_t)plane,
                                      .per_channel = (uint32_t)per_channel,
                                      .chunk = chunk,
                                      .groups = splits * (uint32_t)c,
                                      .plane_magic = d.multiplier,
                                      .plane_shift = d.shift};
    hk_push(r, &push, sizeof push);
    hk_use(r, x, HK_READ, offsetof(struct conv_channels_push, x));
    hk_use(r, out, HK_WRITE, offsetof(struct conv_channels_push, y));
    hk_workgroup(r, lanes, 1, 1);
    hk_grid_1d(l, r, (uint64_t)splits * (uint64_t)c);
    r->flops = (double)per_channel * (double)c;
    if (splits > 1)
        hk_conv_emit_sum(l, &(hk_conv_sum){.partial = out, .splits = splits, .count = c, .out = y});
    return HK_OK;
}

/* ---- cases */

static const char *const data_cases[] = {
    "f32[2,4,7,9] f32[4,3,3,3]; pads=[1,1,1,1] input_shape=[7,9]; nograd",
    "f32[2,6,5,8] f32[6,5,3,3]; pads=[1,0,2,1] strides=[2,1] input_shape=[9,9]; nograd",
    "f32[2,5,4,4] f32[5,6,1,1]; strides=[2,2] input_shape=[7,7]; nograd",
    "f32[1,10,8,8] f32[10,6,1,1]; input_shape=[8,8]; nograd",
    "f32[1,8,9,10] f32[8,3,7,7]; strides=[2,2] pads=[3,3,3,3] input_shape=[17,19]; nograd",
    "f32[1,6,12,11] f32[6,4,3,3]; dilations=[2,2] pads=[2,2,2,2] input_shape=[12,11]; nograd",
    "f32[1,6,6,3] f32[6,4,3,3]; dilations=[2,3] strides=[2,3] pads=[2,2,2,2] input_shape=[12,11]; nograd",
    "f32[2,8,8,9] f32[8,3,3,3]; group=2 pads=[1,1,1,1] input_shape=[8,9]; nograd",
    "f32[2,6,5,4] f32[6,1,3,3]; group=6 pads=[1,1,1,1] strides=[2,2] input_shape=[9,8]; nograd",
    "f32[1,4,4,4] f32[4,3,4,4]; auto_pad=\"SAME_LOWER\" strides=[2,2] input_shape=[8,7]; nograd",
    "f32[3,5,11] f32[5,4,3]; pads=[1,2] strides=[2] input_shape=[21]; nograd",
    "f32[1,3,4,3,6] f32[3,2,2,3,3]; pads=[0,1,1,1,1,1] strides=[1,2,1] input_shape=[4,5,6]; nograd",
    "f32[3,64,16,16] f32[64,32,3,3]; pads=[1,1,1,1] input_shape=[16,16]; nograd",
    "f32[2,136,7,7] f32[136,70,3,3]; pads=[1,1,1,1] strides=[2,2] input_shape=[14,14]; nograd",
    "f32[2,136,14,14] f32[136,64,1,1]; input_shape=[14,14]; nograd",
    "f32[2,12,3,6,4] f32[12,10,3,3,3]; pads=[1,1,1,1,1,1] strides=[2,1,2] input_shape=[5,6,8]; nograd",
    "f32[1,20,4,5,5] f32[20,10,2,1,3]; group=2 dilations=[3,1,2] pads=[0,0,1,0,0,2] input_shape=[7,5,6]; nograd",
    "f32[0,4,8,8] f32[4,3,3,3]; pads=[1,1,1,1] input_shape=[8,8]; nograd",
    "f32[2,12,6,5] f32[12,10,3,3] f32[2,10,6,5]; pads=[1,1,1,1] input_shape=[6,5]; nograd",
    "f32[2,12,4,4] f32[12,5,1,1] f32[2,5,7,8]; strides=[2,2] input_shape=[7,8]; nograd",
    NULL,
};

static const char *const weight_cases[] = {
    "f32[2,3,7,9] f32[2,4,7,9]; pads=[1,1,1,1] kernel_shape=[3,3]; nograd",
    "f32[2,3,7,9] f32[2,4,7,9]; pads=[1,1,1,1] kernel_shape=[3,3]; out=2 nograd",
    "f32[2,5,9,9] f32[2,6,5,8]; pads=[1,0,2,1] strides=[2,1] kernel_shape=[3,3]; out=2 nograd",
    "f32[2,6,7,7] f32[2,5,4,4]; strides=[2,2] kernel_shape=[1,1]; out=2 nograd",
    "f32[1,3,17,19] f32[1,8,9,10]; strides=[2,2] pads=[3,3,3,3] kernel_shape=[7,7]; out=2 nograd",
    "f32[1,4,12,11] f32[1,6,12,11]; dilations=[2,2] pads=[2,2,2,2] kernel_shape=[3,3]; nograd",
    "f32[2,6,8,9] f32[2,8,8,9]; group=2 pads=[1,1,1,1] kernel_shape=[3,3]; out=2 nograd",
    "f32[2,6,9,8] f32[2,6,5,4]; group=6 pads=[1,1,1,1] strides=[2,2] kernel_shape=[3,3]; out=2 nograd",
    "f32[3,4,21] f32[3,5,11]; pads=[1,2] strides=[2] kernel_shape=[3]; out=2 nograd",
    "f32[1,2,4,5,6] f32[1,3,4,3,6]; pads=[0,1,1,1,1,1] strides=[1,2,1] kernel_shape=[2,3,3]; out=2 nograd",
    "f32[4,3,32,32] f32[4,32,32,32]; pads=[1,1,1,1] kernel_shape=[3,3]; out=2 nograd",
    "f32[3,32,16,16] f32[3,64,16,16]; pads=[1,1,1,1] kernel_shape=[3,3]; out=2 nograd",
    "f32[2,70,7,7] f32[2,136,7,7]; pads=[1,1,1,1] kernel_shape=[3,3]; out=2 nograd",
    "f32[2,3,5,6,8] f32[2,12,3,6,4]; pads=[1,1,1,1,1,1] strides=[2,1,2] kernel_shape=[3,3,3]; out=2 nograd",
    "f32[1,4,7,5,6] f32[1,20,4,5,5]; group=2 dilations=[3,1,2] pads=[0,0,1,0,0,2] kernel_shape=[2,1,3]; nograd",
    "f32[0,3,8,8] f32[0,4,8,8]; pads=[1,1,1,1] kernel_shape=[3,3]; out=2 nograd",
    NULL,
};

static const char *const channel_cases[] = {
    "f32[3,5]; ; nograd",         "f32[2,3,7,9]; ; nograd", "f32[1,1,4]; ; nograd",      "f32[64,40,1,1]; ; nograd",
    "f32[5,3,3,50,41]; ; nograd", "f32[0,3,4]; ; nograd",   "f32[16,2,64,64]; ; nograd", NULL,
};

const hk_op hk_ops_conv_grad[] = {
    {
        .type = "hk.ConvDataGrad",
        .since = 1,
        .in_min = 2,
        .in_max = 4,
        .out_min = 1,
        .out_max = 1,
        .attrs_bytes = sizeof(hk_conv_attrs),
        .attrs = data_attrs,
        .infer = infer_data,
        .eval = eval_data,
        .lower = lower_data,
        .octets_in = 1u << 0 | 1u << 2,
        .octets_out = 1,
        .takes_octets = hk_conv_data_grad_accepts_nhwc8,
        .cases = data_cases,
    },
    {
        .type = "hk.ConvWeightGrad",
        .since = 1,
        .in_min = 2,
        .in_max = 2,
        .out_min = 1,
        .out_max = 2,
        .attrs_bytes = sizeof(hk_conv_attrs),
        .attrs = weight_attrs,
        .infer = infer_weight,
        .eval = eval_weight,
        .lower = lower_weight,
        .octets_in = 3,
        .takes_octets = hk_conv_weight_grad_accepts_nhwc8,
        .cases = weight_cases,
    },
    {
        .type = "hk.SumChannels",
        .since = 1,
        .in_min = 1,
        .in_max = 1,
        .out_min = 1,
        .out_max = 1,
        .infer = infer_channels,
        .eval = eval_channels,
        .lower = lower_channels,
        .cases = channel_cases,
    },
    {0},
};
