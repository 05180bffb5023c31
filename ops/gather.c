/* Gather, GatherElements, GatherND with their gradients; support/move_gather.h knows the geometry and moves. */
#include "ops/support/move_gather.h"

/* A shape given as an attribute of a gradient node. */
static hk_status attr_shape(const hk_args *a, hk_ints list, hk_shape *out)
{
    *out = (hk_shape){.rank = list.count};
    if (list.count > HK_MAX_RANK)
        return hk_args_fail(a, "attribute shape has %d entries, expected %d at most", (int)list.count, HK_MAX_RANK);
    for (int32_t d = 0; d < list.count; d++)
        out->dim[d] = list.v[d];
    return hk_shape_known(out) ? HK_OK : hk_args_fail(a, "attribute shape has a negative entry");
}

/* ---- Gather: y = x[:axis] + index + x[axis + 1:] */

typedef struct gather_attrs {
    int64_t axis;
} gather_attrs;
static const hk_attr gather_attr_list[] = {HK_INT_ATTR(gather_attrs, axis, 0), {0}};

typedef struct gather_grad_attrs {
    int64_t axis, batch_dims;
    hk_ints shape;
} gather_grad_attrs;
#define SHAPE_ATTR                                                                                                     \
    {                                                                                                                  \
        .name = "shape", .kind = HK_ATTR_INTS, .offset = offsetof(gather_grad_attrs, shape), .required = true          \
    }
static const hk_attr gather_grad_attr_list[] = {HK_INT_ATTR(gather_grad_attrs, axis, 0), SHAPE_ATTR, {0}};
static const hk_attr gather_nd_grad_attr_list[] = {HK_INT_ATTR(gather_grad_attrs, batch_dims, 0), SHAPE_ATTR, {0}};

static hk_status gather_shape(const hk_args *a, const hk_shape *x, const hk_shape *index, int64_t given, hk_shape *y,
                              int32_t *axis)
{
    *y = HK_SHAPE_UNKNOWN;
    *axis = -1;
    if (x->rank < 0)
        return HK_OK;
    HK_TRY(hk_args_axis(a, given, x->rank, axis));
    if (index->rank < 0)
        return HK_OK;
    int32_t rank = x->rank - 1 + index->rank;
    if (rank > HK_MAX_RANK)
        return hk_args_fail(a, "the output would have rank %d, expected %d at most", (int)rank, HK_MAX_RANK);
    hk_shape s = {0};
    for (int32_t d = 0; d < *axis; d++)
        s.dim[s.rank++] = x->dim[d];
    for (int32_t d = 0; d < index->rank; d++)
        s.dim[s.rank++] = index->dim[d];
    for (int32_t d = *axis + 1; d < x->rank; d++)
        s.dim[s.rank++] = x->dim[d];
    *y = s;
    return HK_OK;
}

/* Shapes are known. */
static hk_tuples gather_tuples(const hk_shape *x, const hk_shape *index, int32_t axis)
{
    return (hk_tuples){.depth = 1,
                       .batches = hk_shape_span(x, 0, axis),
                       .rows = hk_shape_count(index),
                       .shared = true,
                       .x_rows = x->dim[axis],
                       .extent = {x->dim[axis]},
                       .stride = {1},
                       .inner = hk_shape_span(x, axis + 1, x->rank)};
}

static hk_status gather_read(const hk_args *a, hk_shape *y, hk_tuples *t)
{
    hk_shape x = hk_args_shape(a, 0), index = hk_args_shape(a, 1);
    int32_t axis;
    HK_TRY(hk_check_index(a, 1));
    HK_TRY(gather_shape(a, &x, &index, ((const gather_attrs *)a->node->attrs)->axis, y, &axis));
    *t = (hk_tuples){0};
    if (hk_shape_known(&x) && hk_shape_known(&index))
        *t = gather_tuples(&x, &index, axis);
    return HK_OK;
}

static hk_status gather_infer(hk_infer *in)
{
    hk_args a = hk_infer_args(in);
    hk_shape y;
    hk_tuples t;
    HK_TRY(gather_read(&a, &y, &t));
    return hk_infer_output(in, 0, in->node->in[0]->dtype, &y);
}

static hk_status gather_eval(hk_eval *e)
{
    hk_args a = hk_eval_args(e);
    hk_shape s;
    hk_tuples t;
    HK_TRY(gather_read(&a, &s, &t));
    hk_tensor *y = hk_eval_output(e, 0, e->in[0]->dtype, &s);
    if (!y)
        return hk_out_of_memory(e->ctx, "a gathered tensor");
    return hk_host_gather(e, &t, e->in[0], e->in[1], y);
}

/* The one index, if it is one and known (x[:, 0]); -1 if not. */
static int64_t single_index(const hk_node *n, const hk_tuples *t)
{
    const hk_tensor *index = hk_known(n, 1);
    if (!index || t->rows != 1)
        return -1;
    int64_t i = hk_get_int(index, 0);
    i = i < 0 ? i + t->x_rows : i;
    return i >= 0 && i < t->x_rows ? i : -1;
}

static hk_status gather_lower(hk_lower *l)
{
    const hk_node *n = l->node;
    hk_args a = hk_node_args(l->ctx, n);
    hk_shape s;
    hk_tuples t;
    HK_TRY(gather_read(&a, &s, &t));
    int64_t one = single_index(n, &t);
    if (one < 0)
        return hk_emit_gather(l, &t, n->in[0], n->in[1], n->out[0]);
    hk_move m = {.from_offset = one * t.inner};
    hk_move_add(&m, t.batches, t.x_rows * t.inner, t.inner);
    hk_move_add(&m, t.inner, 1, 1);
    return hk_emit_move(l, &m, n->in[0], n->out[0]);
}

/* One known index of the outermost dimension is a contiguous part. */
static int64_t gather_view(const hk_node *n)
{
    hk_args a = hk_node_args(NULL, n);
    hk_shape s;
    hk_tuples t;
    if (!hk_shape_known(&n->in[0]->shape) || gather_read(&a, &s, &t) != HK_OK || t.batches != 1 || t.inner == 0)
        return -1;
    int64_t one = single_index(n, &t);
    return one < 0 ? -1 : one * t.inner;
}

static hk_status gather_backward(hk_gradient *g, hk_node *n)
{
    hk_value *x = n->in[0], *dy = hk_gradient_of(g, n->out[0]), *dx;
    hk_args a = hk_node_args(hk_gradient_graph(g)->ctx, n);
    if (!hk_gradient_wanted(g, x) || !dy)
        return HK_OK;
    if (!hk_shape_known(&x->shape))
        return hk_args_shape_wanted(&a);
    const hk_attr_value attrs[] = {HK_SET_INT("axis", ((const gather_attrs *)n->attrs)->axis),
                                   HK_SET_INTS("shape", x->shape.dim, x->shape.rank),
                                   {0}};
    HK_TRY(hk_build(hk_gradient_graph(g), "hk.GatherGrad", attrs, (hk_value *[]){dy, n->in[1]}, 2, &dx, 1));
    return hk_gradient_add(g, x, dx);
}

static const char *const gather_cases[] = {
    "f32[5,4] i64[3]<5",
    "f32[5,4] i64[2,3]<-5:5 ; axis=0",
    "f32[3,7,2] i64[4]<7 ; axis=1",
    "f32[3,7] i32[2,2]<-7:7 ; axis=-1",
    "f32[3,7,8] i64=2 ; axis=1",
    "f32[3,7,8] i64=-1 ; axis=0",
    "f32[3,7,8] i64={6} ; axis=2",
    "f32[6] i64[]<6",
    "p.f32[50,64] i64[2,9]<50",
    "i64[9]<100 i64[5]<9",
    "bool[4,3] i64[2]<3 ; axis=1",
    "f16[5,6] i64[3]<5 ; ; nograd",
    "f16[5,3] i64[3]<5 ; ; nograd storage16",
    "f32[4,3] i64[0]<1 ; ; nograd",
    "f32[1000,68] i64[33,40]<1000 ; ; nograd",
    "f64[30,20] i32[7]<30 ; axis=0 ; nograd",
    NULL,
};

/* hk.GatherGrad: inputs dY and index; zeros of `shape` with dY's rows added where the index says */
static hk_status gather_grad_read(const hk_args *a, hk_shape *x, hk_tuples *t)
{
    const gather_grad_attrs *s = a->node->attrs;
    hk_shape index = hk_args_shape(a, 1), dy = hk_args_shape(a, 0), want;
    int32_t axis;
    HK_TRY(hk_check_index(a, 1));
    HK_TRY(attr_shape(a, s->shape, x));
    HK_TRY(gather_shape(a, x, &index, s->axis, &want, &axis));
    if (!hk_shape_known(&index) || !hk_shape_equal(&dy, &want))
        return hk_args_fail(a, "expected the gradient to have the shape that gathering gave");
    *t = gather_tuples(x, &index, axis);
    return HK_OK;
}

typedef hk_status tuples_reader(const hk_args *a, hk_shape *x, hk_tuples *t);

static hk_status grad_infer(hk_infer *in, tuples_reader *read)
{
    hk_args a = hk_infer_args(in);
    hk_shape s;
    hk_tuples t;
    HK_TRY(read(&a, &s, &t));
    return hk_infer_output(in, 0, in->node->in[0]->dtype, &s);
}

static hk_status grad_eval(hk_eval *e, tuples_reader *read)
{
    hk_args a = hk_eval_args(e);
    hk_shape s;
    hk_tuples t;
    HK_TRY(read(&a, &s, &t));
    hk_tensor *y = hk_eval_output(e, 0, e->in[0]->dtype, &s);
    if (!y)
        return hk_out_of_memory(e->ctx, "a gradient");
    return hk_host_scatter(e, &t, HK_SCATTER_ADD, NULL, e->in[1], e->in[0], y);
}

static hk_status grad_lower(hk_lower *l, tuples_reader *read)
{
    hk_args a = hk_node_args(l->ctx, l->node);
    hk_shape s;
    hk_tuples t;
    HK_TRY(read(&a, &s, &t));
    return hk_emit_scatter(l, &t, HK_SCATTER_ADD, NULL, l->node->in[1], l->node->in[0], l->node->out[0]);
}

static hk_status gather_grad_infer(hk_infer *in)
{
    return grad_infer(in, gather_grad_read);
}

static hk_status gather_grad_eval(hk_eval *e)
{
    return grad_eval(e, gather_grad_read);
}

static hk_status gather_grad_lower(hk_lower *l)
{
    return grad_lower(l, gather_grad_read);
}

static const char *const gather_grad_cases[] = {
    "f32[3,4] i64[3]<5 ; shape=[5,4] ; nograd",
    "f32[40,64] i64[40]<-9:9 ; shape=[9,64] ; nograd",
    "f32[5,10,6] i64[10]<7 ; axis=1 shape=[5,7,6] ; nograd",
    "f32[3,2,2] i32[2,2]<-7:7 ; axis=1 shape=[3,7] ; nograd",
    "f32[3,8] i64=2 ; axis=1 shape=[3,7,8] ; nograd",
    "f32[0,3] i64[0]<1 ; shape=[4,3] ; nograd",
    "f32[9000,8] i64[9000]<30 ; shape=[30,8] ; nograd",
    "f32[700,300] i64[700]<1000 ; shape=[1000,300] ; nograd",
    "f32[64,3] i64[64]<3000 ; shape=[3000,3] ; nograd",
    NULL,
};

/* ---- GatherND: the last dimension of the index is a tuple of positions in x, behind batch_dims common dimensions */

typedef struct gather_nd_attrs {
    int64_t batch_dims;
} gather_nd_attrs;
static const hk_attr gather_nd_attr_list[] = {HK_INT_ATTR(gather_nd_attrs, batch_dims, 0), {0}};

static hk_status gather_nd_read(const hk_args *a, hk_shape *y, hk_tuples *t)
{
    hk_shape x = hk_args_shape(a, 0), index = hk_args_shape(a, 1);
    int64_t batch = a->node->op->since >= 12 ? ((const gather_nd_attrs *)a->node->attrs)->batch_dims : 0;
    HK_TRY(hk_check_index(a, 1));
    HK_TRY(hk_tuples_shape(a, &x, &index, batch, y));
    *t = (hk_tuples){0};
    if (hk_shape_known(&x) && hk_shape_known(&index))
        *t = hk_tuples_of(&x, &index, batch);
    return HK_OK;
}

static hk_status gather_nd_infer(hk_infer *in)
{
    hk_args a = hk_infer_args(in);
    hk_shape y;
    hk_tuples t;
    HK_TRY(gather_nd_read(&a, &y, &t));
    return hk_infer_output(in, 0, in->node->in[0]->dtype, &y);
}

static hk_status gather_nd_eval(hk_eval *e)
{
    hk_args a = hk_eval_args(e);
    hk_shape s;
    hk_tuples t;
    HK_TRY(gather_nd_read(&a, &s, &t));
    hk_tensor *y = hk_eval_output(e, 0, e->in[0]->dtype, &s);
    if (!y)
        return hk_out_of_memory(e->ctx, "a gathered tensor");
    return hk_host_gather(e, &t, e->in[0], e->in[1], y);
}

static hk_status gather_nd_lower(hk_lower *l)
{
    hk_args a = hk_node_args(l->ctx, l->node);
    hk_shape s;
    hk_tuples t;
    HK_TRY(gather_nd_read(&a, &s, &t));
    return hk_emit_gather(l, &t, l->node->in[0], l->node->in[1], l->node->out[0]);
}

static hk_status gather_nd_backward(hk_gradient *g, hk_node *n)
{
    hk_value *x = n->in[0], *dy = hk_gradient_of(g, n->out[0]), *dx;
    hk_args a = hk_node_args(hk_gradient_graph(g)->ctx, n);
    if (!hk_gradient_wanted(g, x) || !dy)
        return HK_OK;
    if (!hk_shape_known(&x->shape))
        return hk_args_shape_wanted(&a);
    int64_t batch = n->op->since >= 12 ? ((const gather_nd_attrs *)n->attrs)->batch_dims : 0;
    const hk_attr_value attrs[] = {
        HK_SET_INT("batch_dims", batch), HK_SET_INTS("shape", x->shape.dim, x->shape.rank), {0}};
    HK_TRY(hk_build(hk_gradient_graph(g), "hk.GatherNDGrad", attrs, (hk_value *[]){dy, n->in[1]}, 2, &dx, 1));
    return hk_gradient_add(g, x, dx);
}

static const char *const gather_nd_cases[] = {
    "f32[2,2] i64[2,2]={0,0,1,1}",
    "f32[4,5,3] i64[6,2]<4",
    "f32[4,5,3] i64[2,3,1]<-4:4",
    "f32[2,3,4] i64[2,5,1]<3 ; batch_dims=1",
    "f32[2,3,4,5] i64[2,3,2,1]<4 ; batch_dims=2",
    "f32[4,4,4] i64[7,3]<-4:4",
    "i64[5,6]<99 i64[3,2]<5 ; ; nograd",
    "f32[40,50,60] i64[70,2]<40 ; ; nograd",
    "f32[3,3] i64[0,2]<1 ; ; nograd",
    NULL,
};
static const char *const gather_nd_11_cases[] = {"f16[4,5,3] i64[6,2]<4 ; ; nograd", "f32[4,5,3] i64[6,2]<4", NULL};

static hk_status gather_nd_grad_read(const hk_args *a, hk_shape *x, hk_tuples *t)
{
    const gather_grad_attrs *s = a->node->attrs;
    hk_shape index = hk_args_shape(a, 1), dy = hk_args_shape(a, 0), want;
    HK_TRY(hk_check_index(a, 1));
    HK_TRY(attr_shape(a, s->shape, x));
    HK_TRY(hk_tuples_shape(a, x, &index, s->batch_dims, &want));
    if (!hk_shape_known(&index) || !hk_shape_equal(&dy, &want))
        return hk_args_fail(a, "expected the gradient to have the shape that gathering gave");
    *t = hk_tuples_of(x, &index, s->batch_dims);
    return HK_OK;
}

static hk_status gather_nd_grad_infer(hk_infer *in)
{
    return grad_infer(in, gather_nd_grad_read);
}

static hk_status gather_nd_grad_eval(hk_eval *e)
{
    return grad_eval(e, gather_nd_grad_read);
}

static hk_status gather_nd_grad_lower(hk_lower *l)
{
    return grad_lower(l, gather_nd_grad_read);
}

static const char *const gather_nd_grad_cases[] = {
    "f32[6,3] i64[6,2]<4 ; shape=[4,5,3] ; nograd",
    "f32[2,5,4] i64[2,5,1]<-3:3 ; batch_dims=1 shape=[2,3,4] ; nograd",
    "f32[50] i64[50,3]<-4:4 ; shape=[4,4,4] ; nograd",
    "f32[0] i64[0,2]<1 ; shape=[3,3] ; nograd",
    NULL,
};

/* ---- GatherElements: the index has the rank of x */

static hk_status gather_elements_read(const hk_args *a, hk_lines *t)
{
    hk_shape x = hk_args_shape(a, 0), index = hk_args_shape(a, 1);
    HK_TRY(hk_check_index(a, 1));
    return hk_read_lines(a, &x, &index, ((const gather_attrs *)a->node->attrs)->axis, t);
}

static hk_status gather_elements_infer(hk_infer *in)
{
    hk_args a = hk_infer_args(in);
    hk_lines t;
    HK_TRY(gather_elements_read(&a, &t));
    return hk_infer_output(in, 0, in->node->in[0]->dtype, &t.index);
}

static hk_status gather_elements_eval(hk_eval *e)
{
    hk_args a = hk_eval_args(e);
    hk_lines t;
    HK_TRY(gather_elements_read(&a, &t));
    hk_tensor *y = hk_eval_output(e, 0, e->in[0]->dtype, &t.index);
    if (!y)
        return hk_out_of_memory(e->ctx, "a gathered tensor");
    return hk_host_gather_lines(e, &t, e->in[0], e->in[1], y);
}

static hk_status gather_elements_lower(hk_lower *l)
{
    hk_args a = hk_node_args(l->ctx, l->node);
    hk_lines t;
    HK_TRY(gather_elements_read(&a, &t));
    return hk_emit_gather_lines(l, &t, l->node->in[0], l->node->in[1], l->node->out[0]);
}

static hk_status gather_elements_backward(hk_gradient *g, hk_node *n)
{
    hk_value *x = n->in[0], *dy = hk_gradient_of(g, n->out[0]), *dx;
    hk_args a = hk_node_args(hk_gradient_graph(g)->ctx, n);
    if (!hk_gradient_wanted(g, x) || !dy)
        return HK_OK;
    if (!hk_shape_known(&x->shape))
        return hk_args_shape_wanted(&a);
    const hk_attr_value attrs[] = {HK_SET_INT("axis", ((const gather_attrs *)n->attrs)->axis),
                                   HK_SET_INTS("shape", x->shape.dim, x->shape.rank),
                                   {0}};
    HK_TRY(hk_build(hk_gradient_graph(g), "hk.GatherElementsGrad", attrs, (hk_value *[]){dy, n->in[1]}, 2, &dx, 1));
    return hk_gradient_add(g, x, dx);
}

static const char *const gather_elements_cases[] = {
    "f16[3,3] i64[2,3]<3 ; ; nograd",
    "f32[3,3] i64[2,3]<3",
    "f32[3,4] i64[3,6]<-4:4 ; axis=1",
    "f32[4,5,6] i32[2,3,4]<6 ; axis=-1",
    "f32[5] i64[9]<5",
    "f32[4,7,6] i64[3,11,5]<7 ; axis=1",
    "i64[4,5]<99 i64[4,2]<5 ; axis=1 ; nograd",
    "bool[4,5] i64[2,5]<4 ; ; nograd",
    "f32[300,70] i64[300,300]<70 ; axis=1 ; nograd",
    "f32[3,3] i64[0,3]<1 ; ; nograd",
    NULL,
};

static hk_status elements_grad_read(const hk_args *a, hk_lines *t)
{
    const gather_grad_attrs *s = a->node->attrs;
    hk_shape x, index = hk_args_shape(a, 1), dy = hk_args_shape(a, 0);
    HK_TRY(hk_check_index(a, 1));
    HK_TRY(attr_shape(a, s->shape, &x));
    if (!hk_shape_known(&index) || !hk_shape_equal(&dy, &index))
        return hk_args_fail(a, "expected the gradient to have the index's shape");
    return hk_read_lines(a, &x, &index, s->axis, t);
}

static hk_status elements_grad_infer(hk_infer *in)
{
    hk_args a = hk_infer_args(in);
    hk_lines t;
    HK_TRY(elements_grad_read(&a, &t));
    return hk_infer_output(in, 0, in->node->in[0]->dtype, &t.x);
}

static hk_status elements_grad_eval(hk_eval *e)
{
    hk_args a = hk_eval_args(e);
    hk_lines t;
    HK_TRY(elements_grad_read(&a, &t));
    hk_tensor *y = hk_eval_output(e, 0, e->in[0]->dtype, &t.x);
    if (!y)
        return hk_out_of_memory(e->ctx, "a gradient");
    return hk_host_scatter_lines(e, &t, HK_SCATTER_ADD, NULL, e->in[1], e->in[0], y);
}

static hk_status elements_grad_lower(hk_lower *l)
{
    hk_args a = hk_node_args(l->ctx, l->node);
    hk_lines t;
    HK_TRY(elements_grad_read(&a, &t));
    return hk_emit_scatter_lines(l, &t, HK_SCATTER_ADD, NULL, l->node->in[1], l->node->in[0], l->node->out[0]);
}

static const char *const elements_grad_cases[] = {
    "f32[2,3] i64[2,3]<3 ; shape=[3,3] ; nograd",
    "f32[3,6] i64[3,6]<-4:4 ; axis=1 shape=[3,4] ; nograd",
    "f32[2,3,4] i32[2,3,4]<6 ; axis=-1 shape=[4,5,6] ; nograd",
    "f32[64,1] i64[64,1]<100 ; axis=1 shape=[64,100] ; nograd",
    "f32[0,3] i64[0,3]<1 ; shape=[3,3] ; nograd",
    NULL,
};

#define OP(name, first, last, ins, any, attr_struct, list, fn, back, case_list)                                        \
    {                                                                                                                  \
        .type = name, .since = first, .until = last, .in_min = ins, .in_max = ins, .out_min = 1, .out_max = 1,         \
        .flags = any, .attrs_bytes = sizeof(attr_struct), .attrs = list, .infer = fn##_infer, .eval = fn##_eval,       \
        .lower = fn##_lower, .backward = back, .cases = case_list                                                      \
    }
#define GATHER_OP(first, last)                                                                                         \
    {                                                                                                                  \
        .type = "Gather", .since = first, .until = last, .in_min = 2, .in_max = 2, .out_min = 1, .out_max = 1,         \
        .flags = HK_OP_VIEW | HK_OP_ANY_TYPE, .parameters = 1, .attrs_bytes = sizeof(gather_attrs),                    \
        .attrs = gather_attr_list, .infer = gather_infer, .eval = gather_eval, .lower = gather_lower,                  \
        .backward = gather_backward, .view_offset = gather_view, .cases = gather_cases                                 \
    }

enum { MOVES = HK_OP_ANY_TYPE, COMPUTES = 0 }; /* gradients are sums */

const hk_op hk_ops_gather[] = {
    GATHER_OP(1, 0),
    OP("hk.GatherGrad", 1, 0, 2, COMPUTES, gather_grad_attrs, gather_grad_attr_list, gather_grad, NULL,
       gather_grad_cases),
    OP("GatherND", 11, 11, 2, MOVES, gather_nd_attrs, NULL, gather_nd, gather_nd_backward, gather_nd_11_cases),
    OP("GatherND", 12, 0, 2, MOVES, gather_nd_attrs, gather_nd_attr_list, gather_nd, gather_nd_backward,
       gather_nd_cases),
    OP("hk.GatherNDGrad", 1, 0, 2, COMPUTES, gather_grad_attrs, gather_nd_grad_attr_list, gather_nd_grad, NULL,
       gather_nd_grad_cases),
    OP("GatherElements", 11, 0, 2, MOVES, gather_attrs, gather_attr_list, gather_elements, gather_elements_backward,
       gather_elements_cases),
    OP("hk.GatherElementsGrad", 1, 0, 2, COMPUTES, gather_grad_attrs, gather_grad_attr_list, elements_grad, NULL,
       elements_grad_cases),
    {0},
};
