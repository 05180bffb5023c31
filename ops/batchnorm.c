/* BatchNormalization, its training forms fused with ReLU and 2x2 maximum pooling, and their gradients. */
#include <stddef.h>
#include <string.h>

#include "ops/support/reduce_channels.h"

typedef struct batchnorm_attrs {
    float epsilon, momentum;
    int64_t training_mode;
    int64_t unbiased;         /* "hk.unbiased": the running variance is PyTorch's, with count - 1 */
    int64_t relu, pool;       /* hk.BatchNormAct and hk.BatchNormActGrad */
    int64_t spatial, is_test; /* before opset 9 and 7 */
    hk_ints consumed_inputs;  /* of opset 1: storage advice, of no meaning */
} batchnorm_attrs;

#define UNBIASED                                                                                                       \
    {                                                                                                                  \
        .name = "hk.unbiased", .kind = HK_ATTR_INT, .offset = offsetof(batchnorm_attrs, unbiased)                      \
    }
#define COMMON HK_FLOAT_ATTR(batchnorm_attrs, epsilon, 1e-5), HK_FLOAT_ATTR(batchnorm_attrs, momentum, 0.9)

static const hk_attr attrs_1[] = {COMMON,
                                  HK_INT_ATTR(batchnorm_attrs, spatial, 1),
                                  HK_INT_ATTR(batchnorm_attrs, is_test, 0),
                                  HK_INTS_ATTR(batchnorm_attrs, consumed_inputs),
                                  {0}};
static const hk_attr attrs_7[] = {COMMON, HK_INT_ATTR(batchnorm_attrs, spatial, 1), {0}};
static const hk_attr attrs_9[] = {COMMON, {0}};
static const hk_attr attrs_14[] = {COMMON, HK_INT_ATTR(batchnorm_attrs, training_mode, 0), UNBIASED, {0}};
static const hk_attr attrs_act[] = {COMMON,
                                    HK_INT_ATTR(batchnorm_attrs, training_mode, 0),
                                    UNBIASED,
                                    HK_INT_ATTR(batchnorm_attrs, relu, 0),
                                    HK_INT_ATTR(batchnorm_attrs, pool, 0),
                                    {0}};
static const hk_attr attrs_grad[] = {
    HK_FLOAT_ATTR(batchnorm_attrs, epsilon, 1e-5), HK_INT_ATTR(batchnorm_attrs, training_mode, 1), {0}};
static const hk_attr attrs_act_grad[] = {HK_FLOAT_ATTR(batchnorm_attrs, epsilon, 1e-5),
                                         HK_INT_ATTR(batchnorm_attrs, training_mode, 1),
                                         HK_INT_ATTR(batchnorm_attrs, relu, 0),
                                         HK_INT_ATTR(batchnorm_attrs, pool, 0),
                                         {0}};

/* Before opset 14 asking for the statistics is what makes it training. */
static bool trains(const hk_node *n)
{
    const batchnorm_attrs *a = n->attrs;
    if (n->op->attrs == attrs_1 || n->op->attrs == attrs_7 || n->op->attrs == attrs_9)
        return hk_out(n, 1) || hk_out(n, 2) || hk_out(n, 3) || hk_out(n, 4);
    return a->training_mode != 0;
}

/* Before opset 9, statistics could be per element of a sample. */
static bool is_spatial(const hk_node *n)
{
    const batchnorm_attrs *a = n->attrs;
    return (n->op->attrs != attrs_1 && n->op->attrs != attrs_7) || a->spatial != 0;
}

/* Shape of scale, bias and statistics for an x of known rank. */
static hk_shape parameter_shape(const hk_node *n, const hk_shape *x)
{
    hk_shape s = {.rank = 1, .dim = {x->rank > 1 ? x->dim[1] : 1}};
    if (is_spatial(n) || x->rank < 2)
        return s;
    s.rank = x->rank - 1;
    memcpy(s.dim, x->dim + 1, (size_t)s.rank * sizeof s.dim[0]);
    return s;
}

static hk_channels channels_of(const hk_node *n, const hk_shape *x)
{
    const batchnorm_attrs *a = n->attrs;
    hk_shape parameters = parameter_shape(n, x);
    int64_t channels = hk_shape_count(&parameters);
    hk_channels c = {.samples = x->dim[0],
                     .channels = channels,
                     .extent = is_spatial(n) ? hk_shape_span(x, HK_MIN(2, x->rank), x->rank) : 1,
                     .group = 1,
                     .param_divide = 1,
                     .param_count = channels,
                     .relu = a->relu != 0,
                     .pool = a->pool != 0,
                     .epsilon = (double)a->epsilon};
    c.width = c.pool ? x->dim[3] : 0;
    return c;
}

/* x lies where a channel's elements are a column of octets, and the parameters are its own. */
static bool takes_octets(const hk_node *n)
{
    const hk_value *x = n->op->in_max > 5 || n->op->attrs == attrs_grad ? n->in[1] : n->in[0];
    bool floats = true;
    for (int32_t i = 0; i < n->in_count; i++)
        floats &= n->in[i]->dtype == HK_FLOAT32;
    return floats && is_spatial(n) && x->shape.rank >= 3 && hk_shape_count(&x->shape) > 0;
}

/* ---- inference of shapes */

/* Merges what is known of the channel shape: from x, and from each operand of that shape. */
static hk_status check_parameters(hk_infer *in, const hk_value *x, int32_t first, int32_t count, hk_shape *shape)
{
    hk_shape_text a, b;
    for (int32_t i = first; i < first + count; i++) {
        const hk_value *v = in->node->in[i];
        bool fits = v->shape.rank < 0 || shape->rank < 0 || v->shape.rank == shape->rank;
        for (int32_t d = 0; fits && v->shape.rank >= 0 && d < shape->rank; d++) {
            fits = v->shape.dim[d] < 0 || shape->dim[d] < 0 || v->shape.dim[d] == shape->dim[d];
            shape->dim[d] = HK_MAX(shape->dim[d], v->shape.dim[d]);
        }
        if (!fits)
            return hk_infer_fail(in, HK_STATUS_INVALID, "'%s' has shape %s, expected %s for the channels of '%s'",
                                 v->name, hk_shape_print(&v->shape, &a), hk_shape_print(shape, &b), x->name);
        if (shape->rank < 0)
            *shape = v->shape;
        if (!hk_dtype_is_float(v->dtype))
            return hk_infer_fail(in, HK_STATUS_INVALID, "'%s' is %s, expected a float type", v->name,
                                 hk_dtype_name(v->dtype));
    }
    return HK_OK;
}

/* Shape of the activation: x's, or with both image dimensions halved. */
static hk_status activation_shape(hk_infer *in, const hk_shape *x, hk_shape *y)
{
    const batchnorm_attrs *a = in->node->attrs;
    hk_shape_text text;
    *y = *x;
    if (!a->pool || x->rank < 0)
        return HK_OK;
    if (x->rank != 4 || (x->dim[2] >= 0 && x->dim[2] % 2) || (x->dim[3] >= 0 && x->dim[3] % 2))
        return hk_infer_fail(in, HK_STATUS_INVALID, "x has shape %s, expected (N,C,H,W) with even H and W for pool=1",
                             hk_shape_print(x, &text));
    for (int32_t d = 2; d < 4; d++)
        y->dim[d] = x->dim[d] < 0 ? -1 : x->dim[d] / 2;
    return HK_OK;
}

static hk_status check_x(hk_infer *in, const hk_value *x)
{
    if (!hk_dtype_is_float(x->dtype))
        return hk_infer_fail(in, HK_STATUS_INVALID, "input '%s' is %s, expected a float type", x->name,
                             hk_dtype_name(x->dtype));
    if (x->shape.rank == 0)
        return hk_infer_fail(in, HK_STATUS_INVALID, "input '%s' is a scalar, expected (N,C,...)", x->name);
    return HK_OK;
}

static hk_status batchnorm_infer(hk_infer *in)
{
    const hk_node *n = in->node;
    const hk_value *x = n->in[0];
    HK_TRY(check_x(in, x));
    hk_shape parameters = x->shape.rank < 0 ? HK_SHAPE_UNKNOWN : parameter_shape(n, &x->shape), y;
    HK_TRY(check_parameters(in, x, 1, 4, &parameters));
    HK_TRY(activation_shape(in, &x->shape, &y));
    HK_TRY(hk_infer_output(in, 0, x->dtype, &y));
    for (int32_t i = 1; i < n->out_count && trains(n); i++)
        HK_TRY(hk_infer_output(in, i, n->in[i < 3 ? i + 2 : 3]->dtype, &parameters));
    if (!trains(n) && (hk_out(n, 1) || hk_out(n, 2)))
        return hk_infer_fail(in, HK_STATUS_INVALID,
                             "asks for running statistics with training_mode=0, expected the output Y alone");
    return HK_OK;
}

/* ---- forward */

static hk_status batchnorm_eval(hk_eval *e)
{
    const hk_node *n = e->node;
    const batchnorm_attrs *a = n->attrs;
    const hk_shape x = hk_tensor_shape(e->in[0]), parameters = hk_tensor_shape(e->in[1]);
    const hk_channels c = channels_of(n, &x);
    hk_shape y = x;
    if (c.pool) {
        y.dim[2] /= 2;
        y.dim[3] /= 2;
    }
    if (!hk_eval_output(e, 0, e->in[0]->dtype, &y))
        return hk_out_of_memory(e->ctx, "a BatchNormalization output");
    for (int32_t i = 1; i < 5 && trains(n); i++)
        if (hk_out(n, i) && !hk_eval_output(e, i, e->in[i < 3 ? i + 2 : 3]->dtype, &parameters))
            return hk_out_of_memory(e->ctx, "a BatchNormalization output");
    const hk_host_norm norm = {.x = e->in[0],
                               .scale = e->in[1],
                               .bias = e->in[2],
                               .mean = e->in[3],
                               .variance = e->in[4],
                               .y = e->out[0],
                               .mean_out = hk_out(n, 1) ? e->out[1] : NULL,
                               .variance_out = hk_out(n, 2) ? e->out[2] : NULL,
                               .saved_mean = hk_out(n, 3) ? e->out[3] : NULL,
                               .saved_deviation = hk_out(n, 4) ? e->out[4] : NULL,
                               .training = trains(n),
                               .unbiased = a->unbiased != 0,
                               .momentum = (double)a->momentum};
    return hk_host_channel_norm(e, &c, &norm);
}

static hk_status batchnorm_lower(hk_lower *l)
{
    const hk_node *n = l->node;
    const batchnorm_attrs *a = n->attrs;
    const hk_channels c = channels_of(n, &n->in[0]->shape);
    for (int32_t i = 1; i < 5; i++)
        HK_TRY(hk_require_float32(l, n->in[i]));
    const hk_channel_norm norm = {.x = n->in[0],
                                  .scale = n->in[1],
                                  .bias = n->in[2],
                                  .mean = n->in[3],
                                  .variance = n->in[4],
                                  .y = n->out[0],
                                  .mean_out = hk_out(n, 1),
                                  .variance_out = hk_out(n, 2),
                                  .saved_mean = hk_out(n, 3),
                                  .saved_deviation = hk_out(n, 4),
                                  .training = trains(n),
                                  .unbiased = a->unbiased != 0,
                                  .momentum = (double)a->momentum};
    return hk_emit_channel_norm(l, &c, &norm);
}

/* ---- backward */

/* Gradients of given statistics, where somebody asks for them: y = (x - m) s k + b with k = 1 / sqrt(v + epsilon), so
 * dL/dm = -s k dL/db and dL/dv = -s k^2 / 2 dL/ds. */
static hk_status statistics_gradient(hk_gradient *g, hk_node *n, hk_value *dscale, hk_value *dbias)
{
    hk_graph *graph = hk_gradient_graph(g);
    const batchnorm_attrs *a = n->attrs;
    if (!hk_gradient_wanted(g, n->in[3]) && !hk_gradient_wanted(g, n->in[4]))
        return HK_OK;
    hk_value *epsilon = hk_graph_scalar(graph, n->in[4]->dtype, (double)a->epsilon);
    hk_value *half = hk_graph_scalar(graph, n->in[4]->dtype, -0.5);
    if (!epsilon || !half)
        return HK_STATUS_OUT_OF_MEMORY;
    hk_value *v, *root, *slope, *t;
    HK_TRY(hk_build(graph, "Add", NULL, (hk_value *[]){n->in[4], epsilon}, 2, &v, 1));
    HK_TRY(hk_build(graph, "Sqrt", NULL, &v, 1, &root, 1));
    HK_TRY(hk_build(graph, "Div", NULL, (hk_value *[]){n->in[1], root}, 2, &slope, 1));
    HK_TRY(hk_build(graph, "Mul", NULL, (hk_value *[]){slope, dbias}, 2, &t, 1));
    HK_TRY(hk_build(graph, "Neg", NULL, &t, 1, &t, 1));
    HK_TRY(hk_gradient_add(g, n->in[3], t));
    HK_TRY(hk_build(graph, "Mul", NULL, (hk_value *[]){n->in[1], dscale}, 2, &t, 1));
    HK_TRY(hk_build(graph, "Div", NULL, (hk_value *[]){t, v}, 2, &t, 1));
    HK_TRY(hk_build(graph, "Mul", NULL, (hk_value *[]){t, half}, 2, &t, 1));
    return hk_gradient_add(g, n->in[4], t);
}

static hk_status batchnorm_backward(hk_gradient *g, hk_node *n)
{
    const batchnorm_attrs *a = n->attrs;
    hk_graph *graph = hk_gradient_graph(g);
    hk_value *dy = hk_gradient_of(g, n->out[0]), *out[3] = {NULL};
    bool training = trains(n), act = a->relu || a->pool;
    if (!dy)
        return HK_OK; /* running statistics carry no gradient */
    if (!is_spatial(n))
        return hk_fail(graph->ctx, HK_STATUS_UNSUPPORTED,
                       "node '%s' (BatchNormalization): spatial=0 has no gradient; export it with opset 9", n->name);
    if (training) {
        if (!hk_node_want_outputs(n, 5))
            return HK_STATUS_OUT_OF_MEMORY;
        HK_TRY(hk_node_infer(graph, n));
    }
    hk_value *mean = training ? n->out[3] : n->in[3], *deviation = training ? n->out[4] : n->in[4];
    hk_value *const plain_in[] = {dy, n->in[0], n->in[1], mean, deviation}, *const act_in[] = {dy,       n->in[0],
                                                                                               n->in[1], n->in[2],
                                                                                               mean,     deviation};
    const hk_attr_value attrs[] = {HK_SET_FLOAT("epsilon", a->epsilon), HK_SET_INT("training_mode", training), {0}};
    const hk_attr_value act_attrs[] = {HK_SET_FLOAT("epsilon", a->epsilon),
                                       HK_SET_INT("training_mode", training),
                                       HK_SET_INT("relu", a->relu),
                                       HK_SET_INT("pool", a->pool),
                                       {0}};
    bool only_x = true;
    for (int32_t i = 1; i < 5; i++)
        only_x &= !hk_gradient_wanted(g, n->in[i]);
    HK_TRY(hk_build(graph, act ? "hk.BatchNormActGrad" : "hk.BatchNormGrad", act ? act_attrs : attrs,
                    act ? act_in : plain_in, act ? 6 : 5, out, only_x ? 1 : 3));
    for (int32_t i = 0; i < 3; i++)
        HK_TRY(hk_gradient_add(g, n->in[i], out[i]));
    return training || only_x ? HK_OK : statistics_gradient(g, n, out[1], out[2]);
}

/* ---- hk.BatchNormGrad(dY, X, scale, mean, deviation), hk.BatchNormActGrad(dY, X, scale, bias, mean, deviation)
 *      → dX, dscale, dbias. With training_mode=0 the last input is the variance and statistics are constants. */

static bool has_bias(const hk_node *n)
{
    return n->op->attrs == attrs_act_grad;
}

static hk_status grad_infer(hk_infer *in)
{
    const hk_node *n = in->node;
    const hk_value *dy = n->in[0], *x = n->in[1];
    hk_shape y;
    hk_shape_text a, b;
    HK_TRY(check_x(in, x));
    hk_shape parameters = x->shape.rank < 0 ? HK_SHAPE_UNKNOWN : parameter_shape(n, &x->shape);
    HK_TRY(check_parameters(in, x, 2, has_bias(n) ? 4 : 3, &parameters));
    HK_TRY(activation_shape(in, &x->shape, &y));
    if (hk_shape_known(&dy->shape) && hk_shape_known(&y) && !hk_shape_equal(&dy->shape, &y))
        return hk_infer_fail(in, HK_STATUS_INVALID, "gradient '%s' has shape %s, expected %s", dy->name,
                             hk_shape_print(&dy->shape, &a), hk_shape_print(&y, &b));
    HK_TRY(hk_infer_output(in, 0, x->dtype, &x->shape));
    HK_TRY(hk_infer_output(in, 1, n->in[2]->dtype, &parameters));
    return hk_infer_output(in, 2, n->in[2]->dtype, &parameters);
}

static hk_status grad_eval(hk_eval *e)
{
    const hk_node *n = e->node;
    const batchnorm_attrs *a = n->attrs;
    const hk_shape x = hk_tensor_shape(e->in[1]), parameters = hk_tensor_shape(e->in[2]);
    const hk_channels c = channels_of(n, &x);
    int32_t k = has_bias(n);
    for (int32_t i = 0; i < 3; i++)
        if (hk_out(n, i) && !hk_eval_output(e, i, e->in[i ? 2 : 1]->dtype, i ? &parameters : &x))
            return hk_out_of_memory(e->ctx, "a BatchNormalization gradient");
    const hk_host_grad grad = {.dy = e->in[0],
                               .x = e->in[1],
                               .scale = e->in[2],
                               .bias = k ? e->in[3] : NULL,
                               .mean = e->in[3 + k],
                               .deviation = e->in[4 + k],
                               .dx = hk_out(n, 0) ? e->out[0] : NULL,
                               .dscale = hk_out(n, 1) ? e->out[1] : NULL,
                               .dbias = hk_out(n, 2) ? e->out[2] : NULL,
                               .frozen = a->training_mode == 0};
    return hk_host_channel_grad(e, &c, &grad);
}

static hk_status grad_lower(hk_lower *l)
{
    const hk_node *n = l->node;
    const batchnorm_attrs *a = n->attrs;
    const hk_channels c = channels_of(n, &n->in[1]->shape);
    int32_t k = has_bias(n);
    const hk_channel_grad grad = {.dy = n->in[0],
                                  .x = n->in[1],
                                  .scale = n->in[2],
                                  .bias = k ? n->in[3] : NULL,
                                  .mean = n->in[3 + k],
                                  .deviation = n->in[4 + k],
                                  .dx = hk_out(n, 0),
                                  .dscale = hk_out(n, 1),
                                  .dbias = hk_out(n, 2),
                                  .frozen = a->training_mode == 0};
    return hk_emit_channel_grad(l, &c, &grad);
}

/* ---- the table */

#define CASES(name, ...) static const char *const name[] = {__VA_ARGS__, NULL}
#define P(c) " f32[" #c "] f32[" #c "] f32[" #c "] f32[" #c "]+" /* scale, bias, mean, variance */

CASES(old_cases, "f32[2,3,4,5]" P(3) ";epsilon=1e-3;opset=6", "f32[2,3]" P(3) ";;opset=6",
      "f32[4,2,3] f32[2,3] f32[2,3] f32[2,3] f32[2,3]+;spatial=0;opset=6 nograd");
CASES(cases_7, "f32[2,3,4,5]" P(3) ";;opset=7",
      "f32[4,2,3] f32[2,3] f32[2,3] f32[2,3] f32[2,3]+;spatial=0;opset=8 nograd");
CASES(cases_9, "f32[2,3,4,5]" P(3) ";;opset=9", "f32[3,4,5]" P(4) ";;opset=13 out=3 nograd");
CASES(cases_14, "f32[2,3,4,5]" P(3), "f32[5,7]" P(7), "f32[9]" P(1), "f32[2,3,2,3,2]" P(3),
      "f32[2,3,4,5]" P(3) ";training_mode=1", "f32[2,3,4,5]" P(3) ";training_mode=1 momentum=0.7;out=3 nograd",
      "f32[8,5]" P(5) ";training_mode=1", "f32[8,5]" P(5) ";training_mode=1 hk.unbiased=1;out=3 nograd",
      "f32[4,6,3,3]" P(6) ";training_mode=1;out=5 nograd", "f32[16,8,16,16]" P(8) ";training_mode=1;out=5 nograd",
      "f32[3,2,100]" P(2) ";training_mode=1", "f32[300,40]" P(40) ";training_mode=1;out=5 nograd", "f32[0,3,4]" P(3),
      "f32[2,5,37,41]" P(5) ";training_mode=1;out=3 nograd", "f32[1,70000,2,2]" P(70000) ";;nograd");
CASES(act_cases, "f32[2,3,4,6]" P(3) ";training_mode=1 relu=1 pool=1", "f32[2,3,4,6]" P(3) ";training_mode=1 relu=1",
      "f32[2,3,4,6]" P(3) ";training_mode=1 pool=1", "f32[2,3,4,6]" P(3) ";relu=1 pool=1",
      "f32[2,3,4,8]" P(3) ";relu=1", "f32[6,5]" P(5) ";training_mode=1 relu=1",
      "f32[16,8,16,16]" P(8) ";training_mode=1 relu=1 pool=1;out=5 nograd",
      "f32[3,2,10,14]" P(2) ";training_mode=1 relu=1 pool=1;out=3 nograd", "f32[0,2,4,4]" P(2) ";relu=1 pool=1");
CASES(grad_cases, "f32[2,3,4,5] f32[2,3,4,5] f32[3] f32[3] f32[3]+;;nograd",
      "f32[2,3,4,5] f32[2,3,4,5] f32[3] f32[3] f32[3]+;;out=3 nograd",
      "f32[2,3,4,5] f32[2,3,4,5] f32[3] f32[3] f32[3]+;training_mode=0;out=3 nograd",
      "f32[16,8,16,16] f32[16,8,16,16] f32[8] f32[8] f32[8]+;;out=3 nograd",
      "f32[90,40] f32[90,40] f32[40] f32[40] f32[40]+;;out=3 nograd",
      "f32[0,3,4] f32[0,3,4] f32[3] f32[3] f32[3]+;;out=3 nograd");
CASES(act_grad_cases, "f32[2,3,2,3] f32[2,3,4,6] f32[3] f32[3] f32[3] f32[3]+;relu=1 pool=1;out=3 nograd",
      "f32[2,3,2,3] f32[2,3,4,6] f32[3] f32[3] f32[3] f32[3]+;relu=1 pool=1 training_mode=0;out=3 nograd",
      "f32[2,3,4,6] f32[2,3,4,6] f32[3] f32[3] f32[3] f32[3]+;relu=1;out=3 nograd",
      "f32[16,8,8,8] f32[16,8,16,16] f32[8] f32[8] f32[8] f32[8]+;relu=1 pool=1;out=3 nograd",
      "f32[3,2,5,7] f32[3,2,10,14] f32[2] f32[2] f32[2] f32[2]+;pool=1;out=3 nograd",
      "f32[64,20] f32[64,20] f32[20] f32[20] f32[20] f32[20]+;relu=1;out=3 nograd");

#define ROW(first, last, list, cases_)                                                                                 \
    {                                                                                                                  \
        .type = "BatchNormalization", .since = first, .until = last, .in_min = 5, .in_max = 5, .out_min = 1,           \
        .out_max = 5, .parameters = 6, .attrs_bytes = sizeof(batchnorm_attrs), .attrs = list,                          \
        .infer = batchnorm_infer, .eval = batchnorm_eval, .lower = batchnorm_lower, .backward = batchnorm_backward,    \
        .octets_in = 1, .octets_out = 1, .takes_octets = takes_octets, .cases = cases_                                 \
    }

const hk_op hk_ops_batchnorm[] = {
    ROW(1, 6, attrs_1, old_cases),
    ROW(7, 8, attrs_7, cases_7),
    ROW(9, 13, attrs_9, cases_9),
    ROW(14, 0, attrs_14, cases_14),
    {.type = "hk.BatchNormAct",
     .since = 1,
     .in_min = 5,
     .in_max = 5,
     .out_min = 1,
     .out_max = 5,
     .parameters = 6,
     .attrs_bytes = sizeof(batchnorm_attrs),
     .attrs = attrs_act,
     .infer = batchnorm_infer,
     .eval = batchnorm_eval,
     .lower = batchnorm_lower,
     .backward = batchnorm_backward,
     .octets_in = 1,
     .octets_out = 1,
     .takes_octets = takes_octets,
     .cases = act_cases},
    {.type = "hk.BatchNormGrad",
     .since = 1,
     .in_min = 5,
     .in_max = 5,
     .out_min = 1,
     .out_max = 3,
     .attrs_bytes = sizeof(batchnorm_attrs),
     .attrs = attrs_grad,
     .infer = grad_infer,
     .eval = grad_eval,
     .lower = grad_lower,
     .octets_in = 3,
     .octets_out = 1,
     .takes_octets = takes_octets,
     .cases = grad_cases},
    {.type = "hk.BatchNormActGrad",
     .since = 1,
     .in_min = 6,
     .in_max = 6,
     .out_min = 1,
     .out_max = 3,
     .attrs_bytes = sizeof(batchnorm_attrs),
     .attrs = attrs_act_grad,
     .infer = grad_infer,
     .eval = grad_eval,
     .lower = grad_lower,
     .octets_in = 3,
     .octets_out = 1,
     .takes_octets = takes_octets,
     .cases = act_grad_cases},
    {0},
};
