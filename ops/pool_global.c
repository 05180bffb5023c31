/*
 * Pooling over whole planes: GlobalAveragePool, GlobalMaxPool, and the backward operators
 *
 * hk.GlobalAveragePoolGrad(dY; input_shape) -> dX
 * hk.GlobalMaxPoolGrad(X, Y, dY) -> dX
 */
#include <math.h>

#include "kernels.h"
#include "ops/pool.h"
#include "shaders/pool_global.push.h"
#include "shaders/pool_global_nhwc.push.h"
#include "shaders/pool_spread.push.h"

typedef struct global_attrs {
    hk_ints input_shape; /* of the average's gradient: the spatial extents of X */
} global_attrs;

static const hk_attr average_grad_attrs[] = {
    {.name = "input_shape", .kind = HK_ATTR_INTS, .offset = offsetof(global_attrs, input_shape), .required = true},
    {0}};

/* ---- shapes */

static hk_status infer_global(hk_infer *in)
{
    const hk_value *x = hk_in(in->node, 0);
    if (!hk_dtype_is_float(x->dtype))
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected a float input, found %s", hk_dtype_name(x->dtype));
    if (x->shape.rank >= 0 && x->shape.rank < 3)
        return hk_infer_fail(in, HK_STATUS_INVALID,
                             "expected an input of rank 3 or more (batch, channels, spatial axes), found rank %d",
                             (int)x->shape.rank);
    hk_shape y = x->shape;
    for (int32_t i = 2; i < y.rank; i++)
        y.dim[i] = 1;
    return hk_infer_output(in, 0, x->dtype, &y);
}

static hk_status infer_global_average_grad(hk_infer *in)
{
    const hk_value *dy = hk_in(in->node, 0);
    hk_shape x = HK_SHAPE_UNKNOWN;
    hk_problem_text problem;
    if (dy->shape.rank >= 0 &&
        !hk_pool_input_shape(&((const global_attrs *)in->node->attrs)->input_shape, &dy->shape, &x, &problem))
        return hk_infer_fail(in, HK_STATUS_INVALID, "%s", problem.text);
    return hk_infer_output(in, 0, dy->dtype, &x);
}

static hk_status infer_global_max_grad(hk_infer *in)
{
    const hk_value *x = hk_in(in->node, 0);
    return hk_infer_output(in, 0, x->dtype, &x->shape);
}

/* ---- the oracle */

static bool is_maximum(const hk_node *n)
{
    return n->op->type[0] == 'h' ? n->op->in_max == 3 : n->op->type[6] == 'M';
}

static hk_status eval_global(hk_eval *e)
{
    const hk_tensor *x = e->in[0];
    hk_shape xs = hk_tensor_shape(x), ys = xs;
    for (int32_t i = 2; i < ys.rank; i++)
        ys.dim[i] = 1;
    hk_tensor *y = hk_eval_output(e, 0, x->dtype, &ys);
    if (!y)
        return hk_out_of_memory(e->ctx, "evaluating global pooling");
    int64_t plane = hk_shape_span(&xs, 2, xs.rank), rows = hk_tensor_count(y);
    for (int64_t row = 0; row < rows; row++) {
        double sum = 0, best = -INFINITY;
        for (int64_t i = 0; i < plane; i++) {
            double v = hk_get_double(x, row * plane + i);
            sum += v;
            best = v > best || isnan(v) ? v : best;
        }
        hk_set_double(y, row, is_maximum(e->node) ? best : sum / (double)plane);
    }
    return HK_OK;
}

static hk_status eval_global_average_grad(hk_eval *e)
{
    hk_shape dys = hk_tensor_shape(e->in[0]), xs;
    hk_problem_text problem;
    if (!hk_pool_input_shape(&((const global_attrs *)e->node->attrs)->input_shape, &dys, &xs, &problem))
        return hk_eval_fail(e, HK_STATUS_INTERNAL, "%s", problem.text);
    hk_tensor *dx = hk_eval_output(e, 0, e->in[0]->dtype, &xs);
    if (!dx)
        return hk_out_of_memory(e->ctx, "evaluating a pooling gradient");
    int64_t plane = hk_shape_span(&xs, 2, xs.rank), count = hk_tensor_count(dx);
    for (int64_t i = 0; i < count; i++)
        hk_set_double(dx, i, hk_get_double(e->in[0], i / plane) / (double)plane);
    return HK_OK;
}

static hk_status eval_global_max_grad(hk_eval *e)
{
    hk_shape xs = hk_tensor_shape(e->in[0]);
    hk_tensor *dx = hk_eval_output(e, 0, e->in[0]->dtype, &xs);
    if (!dx)
        return hk_out_of_memory(e->ctx, "evaluating a pooling gradient");
    int64_t plane = hk_shape_span(&xs, 2, xs.rank), rows = hk_tensor_count(e->in[1]);
    for (int64_t row = 0; row < rows; row++) {
        double y = hk_get_double(e->in[1], row);
        int64_t i = 0;
        while (i < plane) {
            double x = hk_get_double(e->in[0], row * plane + i);
            if (x == y || (isnan(x) && isnan(y)))
                break;
            i++;
        }
        if (i < plane)
            hk_set_double(dx, row * plane + i, hk_get_double(e->in[2], row));
    }
    return HK_OK;
}

/* ---- the device */

static bool takes_octets(const hk_node *n)
{
    return n->in[0]->dtype == HK_FLOAT32 && n->out[0]->shape.rank >= 3 && hk_shape_count(&n->in[0]->shape) > 0;
}

/* Lanes for a row: about 16 elements each, as far as one workgroup goes. */
static uint32_t row_lanes(const hk_lower *l, int64_t plane)
{
    if (l->cpu)
        return plane >= 4096 ? 8 : 1;
    uint32_t lanes = 1;
    while (lanes < 128 && (int64_t)lanes * 8 < plane)
        lanes *= 2;
    return lanes;
}

static void row_grid(hk_lower *l, hk_record *r, int64_t rows, int64_t plane)
{
    uint32_t lanes = row_lanes(l, plane), per_group = (l->cpu ? 8u : 128u) / lanes;
    hk_workgroup(r, lanes * per_group, 1, 1);
    hk_spec(r, 3, lanes);
    hk_spec(r, 4, per_group);
    hk_grid_1d(l, r, (uint64_t)((rows + per_group - 1) / per_group));
    r->flops = (double)rows * (double)plane;
}

/* x in HK_LAYOUT_NHWC8, y contiguous. */
static void lower_global_octets(hk_lower *l, int64_t plane)
{
    const hk_node *n = l->node;
    hk_value *x = n->in[0];
    bool maximum = is_maximum(n);
    struct pool_global_nhwc_push push = {.images = (uint32_t)x->shape.dim[0],
                                         .plane = (uint32_t)plane,
                                         .octets = (uint32_t)(x->shape.dim[1] + 7) / 8,
                                         .channels = (uint32_t)x->shape.dim[1]};
    hk_record *r = hk_emit(l, maximum ? &hk_kernel_pool_global_nhwc_max : &hk_kernel_pool_global_nhwc,
                           maximum ? "global max pool nhwc8" : "global average pool nhwc8");
    uint32_t lanes = 1, octets = l->cpu ? 8 : 4, units = HK_MAX(l->compute_units_hint, 1u);
    while (octets > 1 && (uint64_t)push.images * push.octets < (uint64_t)octets * units)
        octets /= 2; /* an octet alone takes half of each 32-byte sector that it reads */
    while (!l->cpu && lanes * octets < 256 && lanes * octets < l->device->max_invocations && (int64_t)lanes * 4 < plane)
        lanes *= 2;
    hk_push(r, &push, sizeof push);
    hk_use(r, x, HK_READ, offsetof(struct pool_global_nhwc_push, x));
    hk_use(r, n->out[0], HK_WRITE, offsetof(struct pool_global_nhwc_push, y));
    hk_workgroup(r, lanes * octets, 1, 1);
    hk_spec(r, 3, octets);
    hk_spec(r, 4, lanes);
    hk_spec(r, 5, hk_stores_halves(x));
    r->flops = (double)push.images * push.channels * push.plane;
    hk_grid_1d(l, r, (uint64_t)push.images * ((push.octets + octets - 1) / octets));
}

static hk_status lower_global(hk_lower *l)
{
    const hk_node *n = l->node;
    bool gradient = n->in_count == 3, maximum = is_maximum(n);
    hk_value *x = n->in[0];
    HK_TRY(hk_pool_check_type(l, x));
    int64_t plane = hk_shape_span(&x->shape, 2, x->shape.rank), rows = x->shape.dim[0] * x->shape.dim[1];
    if (rows == 0 || (gradient && plane == 0))
        return HK_OK;
    if (x->layout == HK_LAYOUT_NHWC8) {
        lower_global_octets(l, plane);
        return HK_OK;
    }
    const hk_kernel *kernel = gradient  ? &hk_kernel_pool_global_max_grad
                              : maximum ? &hk_kernel_pool_global_max
                                        : &hk_kernel_pool_global;
    hk_record *r = hk_emit(l, kernel,
                           gradient  ? "global max pool gradient"
                           : maximum ? "global max pool"
                                     : "global average pool");
    struct pool_global_push push = {.rows = (uint32_t)rows, .plane = (uint32_t)plane};
    hk_push(r, &push, sizeof push);
    hk_use(r, x, HK_READ, offsetof(struct pool_global_push, x));
    hk_use(r, gradient ? n->in[1] : n->out[0], gradient ? HK_READ : HK_WRITE, offsetof(struct pool_global_push, y));
    hk_use(r, gradient ? n->in[2] : NULL, HK_READ, offsetof(struct pool_global_push, dy));
    hk_use(r, gradient ? n->out[0] : NULL, HK_WRITE, offsetof(struct pool_global_push, dx));
    row_grid(l, r, rows, plane);
    return HK_OK;
}

/* dy contiguous, dx in HK_LAYOUT_NHWC8. */
static void spread_octets(hk_lower *l, int64_t plane)
{
    hk_value *dy = l->node->in[0], *dx = l->node->out[0];
    struct pool_global_nhwc_push push = {.images = (uint32_t)dx->shape.dim[0],
                                         .plane = (uint32_t)plane,
                                         .octets = (uint32_t)(dx->shape.dim[1] + 7) / 8,
                                         .channels = (uint32_t)dx->shape.dim[1]};
    hk_record *r = hk_emit(l, &hk_kernel_pool_spread_nhwc, "global average pool gradient nhwc8");
    uint32_t lanes = l->cpu ? 64 : HK_MIN(256u, l->device->max_invocations);
    hk_push(r, &push, sizeof push);
    hk_use(r, dx, HK_WRITE, offsetof(struct pool_global_nhwc_push, x));
    hk_use(r, dy, HK_READ, offsetof(struct pool_global_nhwc_push, y));
    hk_workgroup(r, lanes, 1, 1);
    hk_spec(r, 3, hk_stores_halves(dx));
    hk_grid_1d(l, r, ((uint64_t)push.images * push.plane * push.octets + lanes - 1) / lanes);
    r->flops = (double)hk_shape_count(&dx->shape);
}

static hk_status lower_global_average_grad(hk_lower *l)
{
    hk_value *dy = l->node->in[0], *dx = l->node->out[0];
    HK_TRY(hk_pool_check_type(l, dy));
    int64_t plane = hk_shape_span(&dx->shape, 2, dx->shape.rank), count = hk_shape_count(&dx->shape);
    if (count == 0)
        return HK_OK;
    if (dx->layout == HK_LAYOUT_NHWC8) {
        spread_octets(l, plane);
        return HK_OK;
    }
    bool wide = plane % 4 == 0 && hk_value_alignment(dx) == 16;
    int64_t units = wide ? count / 4 : count;
    hk_divisor d = hk_divisor_of((uint32_t)(wide ? plane / 4 : plane));
    hk_record *r = hk_emit(l, &hk_kernel_pool_spread, "global average pool gradient");
    struct pool_spread_push push = {.count = (uint32_t)units,
                                    .plane_magic = d.multiplier,
                                    .plane_shift = d.shift,
                                    .scale = (float)(1.0 / (double)plane)};
    hk_push(r, &push, sizeof push);
    hk_use(r, dy, HK_READ, offsetof(struct pool_spread_push, dy));
    hk_use(r, dx, HK_WRITE, offsetof(struct pool_spread_push, dx));
    uint32_t lanes = l->cpu ? 64 : HK_MIN(256u, l->device->max_invocations);
    hk_workgroup(r, lanes, 1, 1);
    hk_spec(r, 3, wide);
    hk_grid_1d(l, r, (uint64_t)((units + lanes - 1) / lanes));
    r->flops = (double)count;
    return HK_OK;
}

/* ---- gradients */

static hk_status backward_global_average(hk_gradient *g, hk_node *n)
{
    hk_graph *graph = hk_gradient_graph(g);
    hk_value *dx = NULL;
    if (!hk_gradient_wanted(g, n->in[0]))
        return HK_OK;
    hk_attr_value values[2] = {{0}};
    HK_TRY(hk_pool_extents(graph, n, &values[0]));
    HK_TRY(
        hk_build(graph, "hk.GlobalAveragePoolGrad", values, (hk_value *[]){hk_gradient_of(g, n->out[0])}, 1, &dx, 1));
    return hk_gradient_add(g, n->in[0], dx);
}

static hk_status backward_global_max(hk_gradient *g, hk_node *n)
{
    hk_value *dx = NULL;
    if (!hk_gradient_wanted(g, n->in[0]))
        return HK_OK;
    hk_value *const in[] = {n->in[0], n->out[0], hk_gradient_of(g, n->out[0])};
    HK_TRY(hk_build(hk_gradient_graph(g), "hk.GlobalMaxPoolGrad", NULL, in, 3, &dx, 1));
    return hk_gradient_add(g, n->in[0], dx);
}

/* ---- cases */

static const char *const global_cases[] = {
    "f32[2,3,7,7]",           "f32[1,5,8,8]", "f32[3,2,11]", "f32[1,2,3,4,5]", "f32[2,2,70,80]; ; nograd",
    "f32[0,3,4,4]; ; nograd", NULL,
};
static const char *const global_average_grad_cases[] = {
    "f32[2,3,1,1]; input_shape=[7,7]; nograd",
    "f32[2,5,1,1]; input_shape=[8,8]; nograd",
    "f32[2,5,1]; input_shape=[9]; nograd",
    NULL,
};
static const char *const global_max_grad_cases[] = {
    "f32[2,3,7,7] f32[2,3,1,1] f32[2,3,1,1]; ; nograd",
    "f32[0,3,7,7] f32[0,3,1,1] f32[0,3,1,1]; ; nograd",
    NULL,
};

/* octets: which images lie in HK_LAYOUT_NHWC8, those read or those made. */
#define GLOBAL_OP(name, ins, attr_table, infer_rule, eval_rule, lower_rule, backward_rule, case_list, octets)          \
    {                                                                                                                  \
        .type = name, .since = 1, .in_min = ins, .in_max = ins, .out_min = 1, .out_max = 1,                            \
        .attrs_bytes = sizeof(global_attrs), .attrs = attr_table, .infer = infer_rule, .eval = eval_rule,              \
        .lower = lower_rule, .backward = backward_rule, .cases = case_list, .octets = 1, .takes_octets = takes_octets  \
    }

const hk_op hk_ops_pool_global[] = {
    GLOBAL_OP("GlobalAveragePool", 1, NULL, infer_global, eval_global, lower_global, backward_global_average,
              global_cases, octets_in),
    GLOBAL_OP("GlobalMaxPool", 1, NULL, infer_global, eval_global, lower_global, backward_global_max, global_cases,
              octets_in),
    GLOBAL_OP("hk.GlobalAveragePoolGrad", 1, average_grad_attrs, infer_global_average_grad, eval_global_average_grad,
              lower_global_average_grad, NULL, global_average_grad_cases, octets_out),
    {.type = "hk.GlobalMaxPoolGrad",
     .since = 1,
     .in_min = 3,
     .in_max = 3,
     .out_min = 1,
     .out_max = 1,
     .attrs_bytes = sizeof(global_attrs),
     .infer = infer_global_max_grad,
     .eval = eval_global_max_grad,
     .lower = lower_global,
     .cases = global_max_grad_cases},
    {0},
};
