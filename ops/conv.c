/*
 * Conv, and hk.Conv, which is Conv with an epilogue: y = activation(conv(x scale, w) + bias + residual). The scale, a
 * factor for each channel of each image, is for windows of one tap without padding. A second output, for 2-D
 * convolutions in HK_LAYOUT_NHWC8 with a group for each channel, holds y summed along its rows: (batch, rows,
 * channels), contiguous.
 *
 * One set of rules serves 1-D, 2-D and 3-D convolutions of all opsets: the opset bumps changed type lists only.
 */
#include "ops/activation.h"
#include "ops/support/conv_lower.h"

/* ---- attributes */

#define WINDOW_ATTRS                                                                                                   \
    {.name = "auto_pad",                                                                                               \
     .kind = HK_ATTR_STRING,                                                                                           \
     .offset = offsetof(hk_conv_attrs, window.auto_pad),                                                               \
     .text = "NOTSET"},                                                                                                \
        {.name = "kernel_shape", .kind = HK_ATTR_INTS, .offset = offsetof(hk_conv_attrs, window.kernel_shape)},        \
        {.name = "strides", .kind = HK_ATTR_INTS, .offset = offsetof(hk_conv_attrs, window.strides)},                  \
        {.name = "dilations", .kind = HK_ATTR_INTS, .offset = offsetof(hk_conv_attrs, window.dilations)},              \
        {.name = "pads", .kind = HK_ATTR_INTS, .offset = offsetof(hk_conv_attrs, window.pads)},                        \
        HK_INT_ATTR(hk_conv_attrs, group, 1),                                                                          \
    {                                                                                                                  \
        .name = "hk.exact", .kind = HK_ATTR_INT, .offset = offsetof(hk_conv_attrs, exact)                              \
    }

static const hk_attr conv_attrs[] = {WINDOW_ATTRS, {0}};
static const hk_attr fused_attrs[] = {
    WINDOW_ATTRS,
    HK_INT_ATTR(hk_conv_attrs, activation, 0),
    HK_FLOAT_ATTR(hk_conv_attrs, alpha, 0.0),
    HK_FLOAT_ATTR(hk_conv_attrs, beta, 0.0),
    {0},
};

enum { IN_X, IN_W, IN_BIAS, IN_RESIDUAL, IN_SCALE };

/* ---- shapes */

static hk_status infer_bias(hk_infer *in, const hk_conv *p)
{
    const hk_value *bias = hk_in(in->node, IN_BIAS);
    if (!bias || bias->shape.rank < 0)
        return HK_OK;
    if (bias->shape.rank != 1 || (bias->shape.dim[0] >= 0 && p->k >= 0 && bias->shape.dim[0] != p->k)) {
        hk_shape_text text;
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected a bias of shape [%lld], found %s", (long long)p->k,
                             hk_shape_print(&bias->shape, &text));
    }
    return HK_OK;
}

/* [n, c, 1, ...] on a convolution that has one group, one tap and no padding. */
static hk_status infer_scale(hk_infer *in, const hk_conv *p)
{
    const hk_value *scale = hk_in(in->node, IN_SCALE);
    if (!scale || !hk_shape_known(&scale->shape) || p->n < 0)
        return HK_OK;
    hk_shape expected = hk_in(in->node, IN_X)->shape;
    for (int32_t i = 2; i < expected.rank; i++)
        expected.dim[i] = 1;
    bool padded = false;
    for (int axis = 0; axis < HK_AXES; axis++)
        padded |= p->w.begin[axis] > 0 || p->w.end[axis] > 0;
    if (p->groups == 1 && hk_window_taps(&p->w) == 1 && !padded && hk_shape_equal(&scale->shape, &expected))
        return HK_OK;
    hk_shape_text wanted, found;
    return hk_infer_fail(
        in, HK_STATUS_INVALID,
        "expected a scale of shape %s on a convolution with one group, one tap and no padding, found %s",
        hk_shape_print(&expected, &wanted), hk_shape_print(&scale->shape, &found));
}

static hk_status infer_conv(hk_infer *in)
{
    const hk_conv_attrs *a = in->node->attrs;
    const hk_value *x = hk_in(in->node, IN_X), *w = hk_in(in->node, IN_W);
    if (!hk_dtype_is_float(x->dtype) || x->dtype != w->dtype)
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected input and weight of one float type, found %s and %s",
                             hk_dtype_name(x->dtype), hk_dtype_name(w->dtype));
    if (!hk_activation_valid(a->activation))
        return hk_infer_fail(in, HK_STATUS_INVALID, "activation code %lld is not known", (long long)a->activation);
    if (x->shape.rank < 0 || w->shape.rank < 0)
        return hk_infer_output(in, 0, x->dtype, &HK_SHAPE_UNKNOWN);
    hk_conv p;
    hk_problem_text problem;
    if (!hk_conv_resolve(a, &x->shape, &w->shape, &p, &problem))
        return hk_infer_fail(in, HK_STATUS_INVALID, "%s", problem.text);
    HK_TRY(infer_bias(in, &p));
    HK_TRY(infer_scale(in, &p));
    hk_shape y = hk_window_shape(&p.w, p.n, p.k);
    const hk_value *residual = hk_in(in->node, IN_RESIDUAL);
    if (residual && hk_shape_known(&residual->shape) && hk_shape_known(&y) && !hk_shape_equal(&residual->shape, &y)) {
        hk_shape_text expected, found;
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected a residual of the output's shape %s, found %s",
                             hk_shape_print(&y, &expected), hk_shape_print(&residual->shape, &found));
    }
    if (hk_out(in->node, 1) && p.w.spatial != 2)
        return hk_infer_fail(in, HK_STATUS_INVALID,
                             "expected two spatial axes where sums of rows are asked for, found %d", (int)p.w.spatial);
    const hk_shape sums = {.rank = 3, .dim = {p.n, p.w.out[HK_AXIS_H], p.k}};
    HK_TRY(hk_infer_output(in, 1, x->dtype, &sums));
    return hk_infer_output(in, 0, x->dtype, &y);
}

/* ---- the oracle */

static hk_status resolve_node(hk_context *ctx, const hk_node *n, const hk_shape *x, const hk_shape *w, hk_conv *p)
{
    hk_problem_text problem;
    if (!hk_conv_resolve(n->attrs, x, w, p, &problem))
        return hk_fail(ctx, HK_STATUS_INTERNAL, "node '%s' (%s): %s", n->name, n->type, problem.text);
    return HK_OK;
}

static hk_status eval_row_sums(hk_eval *e, const hk_conv *p, const hk_tensor *y)
{
    int64_t rows = p->w.out[HK_AXIS_H], width = p->w.out[HK_AXIS_W];
    const hk_shape shape = {.rank = 3, .dim = {p->n, rows, p->k}};
    hk_tensor *sums = hk_eval_output(e, 1, y->dtype, &shape);
    if (!sums)
        return hk_out_of_memory(e->ctx, "evaluating a convolution");
    for (int64_t i = 0; i < hk_tensor_count(sums); i++) {
        int64_t image = i / p->k / rows, row = i / p->k % rows,
                first = ((image * p->k + i % p->k) * rows + row) * width;
        double sum = 0.0;
        for (int64_t x = 0; x < width; x++)
            sum += hk_get_double(y, first + x);
        hk_set_double(sums, i, sum);
    }
    return HK_OK;
}

static hk_status eval_conv(hk_eval *e)
{
    const hk_conv_attrs *a = e->node->attrs;
    const hk_tensor *bias = e->node->in_count > IN_BIAS ? e->in[IN_BIAS] : NULL;
    const hk_tensor *residual = e->node->in_count > IN_RESIDUAL ? e->in[IN_RESIDUAL] : NULL;
    const hk_tensor *scale = e->node->in_count > IN_SCALE ? e->in[IN_SCALE] : NULL;
    hk_shape xs = hk_tensor_shape(e->in[IN_X]), ws = hk_tensor_shape(e->in[IN_W]);
    hk_conv p;
    HK_TRY(resolve_node(e->ctx, e->node, &xs, &ws, &p));
    hk_shape ys = hk_window_shape(&p.w, p.n, p.k);
    hk_tensor *out = hk_eval_output(e, 0, e->in[IN_X]->dtype, &ys);
    double *x = hk_tensor_doubles(e->arena, e->in[IN_X]), *w = hk_tensor_doubles(e->arena, e->in[IN_W]);
    double *y = out ? hk_tensor_doubles(e->arena, out) : NULL;
    if (!x || !w || !y)
        return hk_out_of_memory(e->ctx, "evaluating a convolution");
    int64_t in_plane = hk_window_in_count(&p.w);
    for (int64_t i = 0; scale && i < hk_tensor_count(e->in[IN_X]); i++)
        x[i] *= hk_get_double(scale, i / in_plane);
    hk_conv_reference(&p, HK_CONV_FORWARD, x, w, y);
    int64_t plane = hk_window_out_count(&p.w), count = hk_tensor_count(out);
    for (int64_t i = 0; i < count; i++) {
        double v = y[i] + (bias ? hk_get_double(bias, i / plane % p.k) : 0.0) +
                   (residual ? hk_get_double(residual, i) : 0.0);
        hk_set_double(out, i, hk_activation_apply(a->activation, v, (double)a->alpha, (double)a->beta));
    }
    return hk_out(e->node, 1) ? eval_row_sums(e, &p, out) : HK_OK;
}

/* ---- the device */

static hk_status lower_conv(hk_lower *l)
{
    const hk_node *n = l->node;
    const hk_conv_attrs *a = n->attrs;
    hk_conv_job job = {.pass = HK_CONV_FORWARD, .x = hk_in(n, IN_X), .w = hk_in(n, IN_W), .y = n->out[0]};
    job.bias = hk_in(n, IN_BIAS);
    job.residual = hk_in(n, IN_RESIDUAL);
    job.scale = hk_in(n, IN_SCALE);
    job.row_sums = hk_out(n, 1);
    job.exact = a->exact != 0;
    job.activation = (uint32_t)a->activation;
    job.alpha = a->alpha;
    job.beta = a->beta;
    HK_TRY(resolve_node(l->ctx, n, &job.x->shape, &job.w->shape, &job.p));
    if (hk_shape_count(&job.y->shape) == 0)
        return HK_OK;
    if (job.x->layout == HK_LAYOUT_NHWC8 || job.y->layout == HK_LAYOUT_NHWC8)
        return hk_conv_lower_nhwc8(l, &job);
    if (job.row_sums)
        return hk_fail(l->ctx, HK_STATUS_INTERNAL, "node '%s' (%s): sums of rows are made in NHWC8 alone", n->name,
                       n->type);
    return hk_conv_lower_gather(l, &job);
}

/* ---- the gradient: one op per operand that wants one. The weight's kernel reads dY anyway, so it sums the bias's
 * gradient on the way. */

static void window_values(const hk_conv_attrs *a, hk_attr_value *v)
{
    const hk_window_attrs *w = &a->window;
    int32_t i = 0;
    v[i++] = (hk_attr_value)HK_SET_STRING("auto_pad", w->auto_pad);
    v[i++] = (hk_attr_value)HK_SET_INT("group", a->group);
    if (w->strides.v)
        v[i++] = (hk_attr_value)HK_SET_INTS("strides", w->strides.v, w->strides.count);
    if (w->dilations.v)
        v[i++] = (hk_attr_value)HK_SET_INTS("dilations", w->dilations.v, w->dilations.count);
    if (w->pads.v)
        v[i++] = (hk_attr_value)HK_SET_INTS("pads", w->pads.v, w->pads.count);
}

/* The spatial extents of a value, which must be known when the gradient is built: they become an attribute. */
static hk_status spatial_extents(hk_graph *g, const hk_node *n, const hk_value *v, hk_ints *out)
{
    int64_t *extents = hk_arena_array(g->arena, HK_MAX_RANK, sizeof *extents);
    if (!extents)
        return hk_out_of_memory(g->ctx, "the gradient of a convolution");
    for (int32_t i = 2; i < v->shape.rank; i++) {
        extents[i - 2] = v->shape.dim[i];
        if (extents[i - 2] < 0)
            return hk_fail(
                g->ctx, HK_STATUS_UNSUPPORTED,
                "node '%s' (Conv): its gradient needs the spatial extents of '%s', which are not known; give the "
                "model fixed image sizes",
                n->name, v->name);
    }
    *out = (hk_ints){extents, v->shape.rank - 2};
    return HK_OK;
}

enum { WINDOW_VALUES = 8 };

static hk_status build_data_gradient(hk_gradient *g, hk_node *n, hk_value *dy)
{
    hk_attr_value values[WINDOW_VALUES] = {{0}};
    hk_ints extents = {0};
    hk_value *dx = NULL;
    HK_TRY(spatial_extents(hk_gradient_graph(g), n, n->in[IN_X], &extents));
    window_values(n->attrs, values + 1);
    values[0] = (hk_attr_value)HK_SET_INTS("input_shape", extents.v, extents.count);
    HK_TRY(hk_build(hk_gradient_graph(g), "hk.ConvDataGrad", values, (hk_value *[]){dy, n->in[IN_W]}, 2, &dx, 1));
    return hk_gradient_add(g, n->in[IN_X], dx);
}

static hk_status build_weight_gradient(hk_gradient *g, hk_node *n, hk_value *dy, bool bias_wanted)
{
    hk_attr_value values[WINDOW_VALUES] = {{0}};
    hk_ints extents = {0};
    hk_value *out[2] = {NULL, NULL};
    HK_TRY(spatial_extents(hk_gradient_graph(g), n, n->in[IN_W], &extents));
    window_values(n->attrs, values + 1);
    values[0] = (hk_attr_value)HK_SET_INTS("kernel_shape", extents.v, extents.count);
    HK_TRY(hk_build(hk_gradient_graph(g), "hk.ConvWeightGrad", values, (hk_value *[]){n->in[IN_X], dy}, 2, out,
                    bias_wanted ? 2 : 1));
    HK_TRY(hk_gradient_add(g, n->in[IN_W], out[0]));
    return bias_wanted ? hk_gradient_add(g, n->in[IN_BIAS], out[1]) : HK_OK;
}

static hk_status backward_conv(hk_gradient *g, hk_node *n)
{
    hk_value *dy = hk_gradient_of(g, n->out[0]), *bias = hk_in(n, IN_BIAS);
    bool bias_wanted = bias && hk_gradient_wanted(g, bias);
    if (hk_gradient_wanted(g, n->in[IN_X]))
        HK_TRY(build_data_gradient(g, n, dy));
    if (hk_gradient_wanted(g, n->in[IN_W]))
        return build_weight_gradient(g, n, dy, bias_wanted);
    if (!bias_wanted)
        return HK_OK;
    hk_value *db = NULL;
    HK_TRY(hk_build(hk_gradient_graph(g), "hk.SumChannels", NULL, &dy, 1, &db, 1));
    return hk_gradient_add(g, bias, db);
}

/* ---- cases */

static const char *const conv_cases[] = {
    "f32[1,1,5,5] f32[1,1,3,3]",
    "f32[2,3,7,9] p.f32[4,3,3,3] p.f32[4]; pads=[1,1,1,1]",
    "f32[2,5,9,7] p.f32[6,5,3,3] p.f32[6]; pads=[1,0,2,1] strides=[2,1]",
    "f32[1,6,8,8] p.f32[10,6,1,1] p.f32[10]",
    "f32[2,6,7,7] p.f32[5,6,1,1]; strides=[2,2]",
    "f32[1,3,17,19] p.f32[8,3,7,7] p.f32[8]; strides=[2,2] pads=[3,3,3,3]",
    "f32[1,4,12,11] p.f32[6,4,3,3]; dilations=[2,2] pads=[2,2,2,2]",
    "f32[2,6,8,9] p.f32[8,3,3,3] p.f32[8]; group=2 pads=[1,1,1,1]",
    "f32[2,6,9,8] p.f32[6,1,3,3] p.f32[6]; group=6 pads=[1,1,1,1] strides=[2,2]",
    "f32[2,4,6,6] p.f32[12,1,5,5]; group=4 auto_pad=\"SAME_UPPER\"",
    "f32[1,3,8,7] p.f32[4,3,4,4]; auto_pad=\"SAME_LOWER\" strides=[2,2]",
    "f32[1,3,8,7] p.f32[4,3,3,2]; auto_pad=\"VALID\" strides=[3,1]",
    "f32[3,4,21] p.f32[5,4,3] p.f32[5]; pads=[1,2] strides=[2]",
    "f32[2,4,40] p.f32[4,1,9]; group=4 dilations=[3] pads=[12,12]",
    "f32[1,2,4,5,6] p.f32[3,2,2,3,3] p.f32[3]; pads=[0,1,1,1,1,1] strides=[1,2,1]",
    "f32[2,3,5,6,8] f32[12,3,3,3,3] f32[12]; pads=[1,1,1,1,1,1] strides=[2,1,2]; nograd",
    "f32[1,4,7,5,6] f32[20,2,2,1,3] f32[20]; group=2 dilations=[3,1,2] pads=[0,0,1,2,0,1]; nograd",
    "f32[1,10,3,4,4] f32[9,10,3,1,1]; ; nograd",
    "f32[2,10,4,3,5] f32[12,10,1,1,1] f32[12]; ; nograd",
    "f32[1,10,4,4,5] f32[12,10,1,3,3]; strides=[2,1,1] pads=[0,1,1,0,1,1]; nograd",
    "f32[0,3,8,8] p.f32[4,3,3,3] p.f32[4]; ; nograd",
    "f32[2,3,32,32] f32[32,3,3,3] f32[32]; pads=[1,1,1,1]; nograd",
    "f32[3,32,16,16] f32[64,32,3,3] f32[64]; pads=[1,1,1,1]; nograd",
    "f32[1,130,7,7] f32[70,130,3,3] f32[70]; pads=[1,1,1,1]; nograd",
    "f32[2,64,14,14] f32[136,64,1,1]; ; nograd",
    "f32[1,2,300,260] f32[3,2,3,3]; pads=[1,1,1,1]; nograd",
    "f32[1,12,94,95] f32[12,1,3,3] f32[12]; group=12 pads=[1,1,1,1]; nograd",
    "f32[1,12,95,94] f32[24,1,5,5]; group=12 pads=[2,2,2,2] strides=[2,2]; nograd",
    "f32[1,40,42,43] f32[40,1,3,5] f32[40]; group=40 pads=[2,4,2,4] dilations=[2,2]; nograd",
    "f32[2,36,13,13] f32[40,36,1,1] f32[40]; strides=[2,2]; nograd",
    "f32[2,3,48,33] f32[20,3,16,16] f32[20]; strides=[16,16]; nograd",
    "f32[20,3,30,31] f32[40,3,3,3] f32[40]; pads=[1,1,1,1] strides=[2,2]; nograd",
    "f32[1,300,7,7] f32[48,300,1,1] f32[48]; ; nograd",
    NULL,
};

static const char *const fused_cases[] = {
    "f32[1,3,4,5,6] f32[10,3,3,3,3] f32[10] f32[1,10,4,5,6]; pads=[1,1,1,1,1,1] activation=1; nograd",
    "f32[2,3,7,9] f32[4,3,3,3] f32[4]; pads=[1,1,1,1] activation=1; nograd",
    "f32[2,3,7,9] f32[4,3,3,3] - f32[2,4,7,9]; pads=[1,1,1,1] activation=2 alpha=0.1; nograd",
    "f32[1,8,6,6] f32[5,8,1,1] f32[5] f32[1,5,6,6]; activation=8 alpha=-0.5 beta=0.75; nograd",
    "f32[1,96,8,8] f32[40,96,3,3] f32[40] f32[1,40,8,8]; pads=[1,1,1,1] activation=7; nograd",
    "f32[2,6,9,8] f32[6,1,3,3] f32[6]; group=6 pads=[1,1,1,1] activation=10; nograd",
    "f32[2,8,15,14] f32[16,1,3,3] f32[16] f32[2,16,8,7]; group=8 pads=[1,1,1,1] strides=[2,2] activation=1; nograd",
    "f32[2,48,8,8] f32[20,48,1,1] f32[20] f32[2,20,8,8] f32[2,48,1,1]; activation=7; nograd",
    "f32[3,50,7,7] f32[30,50,1,1] f32[30] - f32[3,50,1,1]; activation=0; nograd",
    "f32[2,6,9,7] f32[5,6,1,1] - - f32[2,6,1,1]; strides=[2,2]; nograd",
    "f32[3,40,1,1] f32[10,40,1,1] f32[10]; activation=7; nograd",
    "f32[12,16,3,5] f32[36,16,3,5] f32[36] f32[12,36,1,1]; activation=1; nograd",
    NULL,
};

const hk_op hk_ops_conv[] = {
    {
        .type = "Conv",
        .since = 1,
        .in_min = 2,
        .in_max = 3,
        .out_min = 1,
        .out_max = 1,
        .parameters = 1u << IN_W | 1u << IN_BIAS,
        .attrs_bytes = sizeof(hk_conv_attrs),
        .attrs = conv_attrs,
        .infer = infer_conv,
        .eval = eval_conv,
        .lower = lower_conv,
        .backward = backward_conv,
        .cases = conv_cases,
    },
    {
        .type = "hk.Conv",
        .since = 1,
        .in_min = 2,
        .in_max = 5,
        .out_min = 1,
        .out_max = 2,
        .parameters = 1u << IN_W | 1u << IN_BIAS,
        .attrs_bytes = sizeof(hk_conv_attrs),
        .attrs = fused_attrs,
        .infer = infer_conv,
        .eval = eval_conv,
        .lower = lower_conv,
        .cases = fused_cases,
    },
    {0},
};
