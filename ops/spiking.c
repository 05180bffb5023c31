/*
 * What networks have on their way to spiking ones and back, as operators that are others.
 *
 * hk.QCFS: X, threshold -> Y, the quantization-clip-floor-shift activation of Bu et al., "Optimal ANN-SNN Conversion
 * for High-accuracy and Ultra-low-latency Spiking Neural Networks", ICLR 2022: y = theta clip(floor(L x / theta + 1/2)
 * / L, 0, 1) with L = attribute `levels` and a threshold that is learned, one or one per channel (axis 1). It is what
 * neurons with soft reset that start at half their threshold say after L steps of a constant input. Rounding hands its
 * gradient on, so dy/dx = 1 inside the clip and 0 outside, and dy/dtheta = y/theta - x/theta inside, 1 above, 0 below.
 *
 * hk.VoltageScaler: X, scale -> Y = X scale, the scale one or one per channel (axis 1), as SpikingJelly's
 * VoltageScaler and ChannelVoltageScaler around a neuron.
 */
#include <math.h>

#include "ops/support/build.h"

enum { IN_X, IN_SCALE };

typedef struct qcfs_attrs {
    int64_t levels;
} qcfs_attrs;

static const hk_attr qcfs_attr_list[] = {HK_INT_ATTR(qcfs_attrs, levels, 4), {0}};

/* Both: the second input is one element, or one per channel. */
static hk_status scaled_infer(hk_infer *in)
{
    const hk_value *x = in->node->in[IN_X], *scale = in->node->in[IN_SCALE];
    hk_shape_text a, b;
    if (!hk_dtype_is_float(x->dtype) || scale->dtype != x->dtype)
        return hk_infer_fail(in, HK_STATUS_INVALID, "inputs are %s and %s, expected two of one float type",
                             hk_dtype_name(x->dtype), hk_dtype_name(scale->dtype));
    int64_t channels = x->shape.rank < 0 ? -1 : x->shape.rank >= 2 ? x->shape.dim[1] : 1;
    int64_t count = scale->shape.rank == 1 ? scale->shape.dim[0] : scale->shape.rank == 0 ? 1 : -1;
    if (scale->shape.rank > 1 || (count > 1 && channels >= 0 && count != channels) || count == 0)
        return hk_infer_fail(in, HK_STATUS_INVALID,
                             "'%s' has shape %s, expected one element or one per channel (axis 1) of %s", scale->name,
                             hk_shape_print(&scale->shape, &a), hk_shape_print(&x->shape, &b));
    return hk_infer_output(in, 0, x->dtype, &x->shape);
}

static hk_status qcfs_infer(hk_infer *in)
{
    const qcfs_attrs *a = in->node->attrs;
    if (a->levels < 1 || a->levels > 65536)
        return hk_infer_fail(in, HK_STATUS_INVALID, "attribute 'levels' is %lld, expected 1 to 65536",
                             (long long)a->levels);
    return scaled_infer(in);
}

/* y = f(x, scale of x's channel) */
static hk_status scaled_eval(hk_eval *e, double (*f)(double x, double scale, double levels), double levels)
{
    hk_shape s = hk_tensor_shape(e->in[IN_X]);
    hk_tensor *y = hk_eval_output(e, 0, e->in[IN_X]->dtype, &s);
    if (!y)
        return hk_out_of_memory(e->ctx, "evaluating an activation");
    int64_t scales = hk_tensor_count(e->in[IN_SCALE]);
    int64_t inner = s.rank >= 2 ? hk_shape_span(&s, 2, s.rank) : 1;
    for (int64_t i = 0, n = hk_tensor_count(y); i < n; i++) {
        int64_t channel = scales > 1 ? i / inner % scales : 0;
        hk_set_double(y, i, f(hk_get_double(e->in[IN_X], i), hk_get_double(e->in[IN_SCALE], channel), levels));
    }
    return HK_OK;
}

static double quantized(double x, double theta, double levels)
{
    return theta * fmin(fmax(floor(levels * (x / theta) + 0.5) / levels, 0), 1);
}

static double scaled(double x, double scale, double levels)
{
    (void)levels;
    return x * scale;
}

static hk_status qcfs_eval(hk_eval *e)
{
    return scaled_eval(e, quantized, (double)((const qcfs_attrs *)e->node->attrs)->levels);
}

static hk_status scaler_eval(hk_eval *e)
{
    return scaled_eval(e, scaled, 0);
}

/* The second input in a shape that broadcasts along the channels of the first. */
static hk_status along_channels(hk_graph *g, const hk_node *n, hk_value **out)
{
    const hk_shape *x = &n->in[IN_X]->shape, *scale = &n->in[IN_SCALE]->shape;
    hk_shape shape = {.rank = x->rank};
    for (int32_t d = 0; d < shape.rank; d++)
        shape.dim[d] = d == 1 ? hk_shape_count(scale) : 1;
    *out = n->in[IN_SCALE];
    return scale->rank == 0 ? HK_OK : hk_build_reshape(g, n->in[IN_SCALE], &shape, out);
}

static hk_status qcfs_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    double levels = (double)((const qcfs_attrs *)n->attrs)->levels;
    hk_value *theta = NULL, *y = NULL;
    HK_TRY(along_channels(g, n, &theta));
    HK_TRY(hk_build_binary(g, "Div", n->in[IN_X], theta, &y));
    HK_TRY(hk_build_scalar(g, "Mul", y, levels, &y));
    HK_TRY(hk_build_scalar(g, "Add", y, 0.5, &y));
    HK_TRY(hk_build_unary(g, "hk.FloorThrough", y, &y));
    HK_TRY(hk_build_scalar(g, "Div", y, levels, &y));
    hk_value *in[] = {y, hk_graph_scalar(g, y->dtype, 0), hk_graph_scalar(g, y->dtype, 1)};
    if (!in[1] || !in[2])
        return HK_STATUS_OUT_OF_MEMORY;
    HK_TRY(hk_build(g, "Clip", NULL, in, 3, &y, 1));
    return hk_build_binary(g, "Mul", y, theta, out);
}

static hk_status scaler_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    hk_value *scale = NULL;
    HK_TRY(along_channels(g, n, &scale));
    return hk_build_binary(g, "Mul", n->in[IN_X], scale, out);
}

static const char *const qcfs_cases[] = {"f32[37] f32[]+ ; levels=2 ; nograd",
                                         "f32[2,3,5,7] f32[3]+ ; ; nograd",
                                         "f32[4,9] f32[1]+ ; levels=16 ; nograd",
                                         "f32[3,4] f32[4]+ ; levels=1 ; nograd",
                                         "f32[2,3,1031] f32[3]+ ; levels=8 ; nograd",
                                         "f32[0,3] f32[3]+ ; ; nograd",
                                         "f32={-1.0,0.0,0.24,0.25,0.5,0.75,0.76,1.0,9.0} f32=1.0 ; levels=2 ; nograd",
                                         NULL};
static const char *const scaler_cases[] = {"f32[7] f32[]", "f32[2,3,5,7] f32[3]",  "f32[4,9] f32[1]", "f32[3,4] f32[4]",
                                           "f32[] f32[]",  "f32[2,3,1031] f32[3]", "f32[0,3] f32[3]", NULL};

const hk_op hk_ops_spiking[] = {
    {.type = "hk.QCFS",
     .since = 1,
     .in_min = 2,
     .in_max = 2,
     .out_min = 1,
     .out_max = 1,
     .parameters = 1u << IN_SCALE,
     .attrs_bytes = sizeof(qcfs_attrs),
     .attrs = qcfs_attr_list,
     .infer = qcfs_infer,
     .eval = qcfs_eval,
     .expand = qcfs_expand,
     .cases = qcfs_cases},
    {.type = "hk.VoltageScaler",
     .since = 1,
     .in_min = 2,
     .in_max = 2,
     .out_min = 1,
     .out_max = 1,
     .infer = scaled_infer,
     .eval = scaler_eval,
     .expand = scaler_expand,
     .cases = scaler_cases},
    {0},
};
