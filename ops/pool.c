/*
 * Pooling over windows: MaxPool, AveragePool, and the backward operators
 *
 * hk.MaxPoolGrad(dY, Indices; input_shape) -> dX
 * hk.AveragePoolGrad(dY; input_shape) -> dX
 * hk.SumPool(X), hk.SumPoolGrad(dY; input_shape): averages that are not divided, which LpPool and LRN are made of
 *
 * MaxPool's gradient reads the indices that the forward pass saved, as 32-bit words: for 2 x 2 windows that moves 2.5
 * words per input element in both passes together, comparing X with Y again would move 2.75 in the backward pass alone.
 */
#include <math.h>

#include "kernels.h"
#include "ops/pool.h"
#include "shaders/pool.push.h"

typedef struct pool_attrs {
    hk_window_attrs window;
    int64_t storage_order, count_include_pad;
    hk_ints input_shape; /* of gradients: the spatial extents of X */
} pool_attrs;

#define WINDOW_ATTRS                                                                                                   \
    {.name = "auto_pad", .kind = HK_ATTR_STRING, .offset = offsetof(pool_attrs, window.auto_pad), .text = "NOTSET"},   \
        {.name = "kernel_shape",                                                                                       \
         .kind = HK_ATTR_INTS,                                                                                         \
         .offset = offsetof(pool_attrs, window.kernel_shape),                                                          \
         .required = true},                                                                                            \
        {.name = "strides", .kind = HK_ATTR_INTS, .offset = offsetof(pool_attrs, window.strides)},                     \
        {.name = "dilations", .kind = HK_ATTR_INTS, .offset = offsetof(pool_attrs, window.dilations)},                 \
        {.name = "pads", .kind = HK_ATTR_INTS, .offset = offsetof(pool_attrs, window.pads)},                           \
    {                                                                                                                  \
        .name = "ceil_mode", .kind = HK_ATTR_INT, .offset = offsetof(pool_attrs, window.ceil_mode)                     \
    }
#define INPUT_SHAPE_ATTR                                                                                               \
    {                                                                                                                  \
        .name = "input_shape", .kind = HK_ATTR_INTS, .offset = offsetof(pool_attrs, input_shape), .required = true     \
    }

static const hk_attr max_attrs[] = {WINDOW_ATTRS, HK_INT_ATTR(pool_attrs, storage_order, 0), {0}};
static const hk_attr average_attrs[] = {WINDOW_ATTRS, HK_INT_ATTR(pool_attrs, count_include_pad, 0), {0}};
static const hk_attr max_grad_attrs[] = {
    WINDOW_ATTRS, HK_INT_ATTR(pool_attrs, storage_order, 0), INPUT_SHAPE_ATTR, {0}};
static const hk_attr average_grad_attrs[] = {
    WINDOW_ATTRS, HK_INT_ATTR(pool_attrs, count_include_pad, 0), INPUT_SHAPE_ATTR, {0}};

static bool is_sum(const hk_node *n)
{
    return n->op->type[0] == 'h' && n->op->type[3] == 'S';
}

/* ---- shapes */

static bool resolve(const pool_attrs *a, const hk_shape *x, hk_window *w, hk_problem_text *problem)
{
    const hk_ints *kernel = &a->window.kernel_shape;
    if (x->rank - 2 != kernel->count) {
        *problem = (hk_problem_text){"expected a kernel_shape with an entry per spatial axis of the input"};
        return false;
    }
    for (int32_t i = 0; i < kernel->count; i++)
        if (kernel->v[i] < 1) {
            *problem = (hk_problem_text){"kernel_shape: expected values from 1 to 2^31-1"};
            return false;
        }
    return hk_window_resolve(&a->window, x, kernel->v, w, problem);
}

bool hk_pool_input_shape(const hk_ints *extents, const hk_shape *dy, hk_shape *x, hk_problem_text *problem)
{
    if (dy->rank != extents->count + 2) {
        *problem = (hk_problem_text){"expected an input_shape with an entry per spatial axis of dY"};
        return false;
    }
    *x = *dy;
    for (int32_t i = 2; i < dy->rank; i++)
        x->dim[i] = extents->v[i - 2];
    return true;
}

static hk_status infer_pool(hk_infer *in)
{
    const hk_value *x = hk_in(in->node, 0);
    bool maximum = in->node->op->out_max == 2;
    if (!hk_dtype_is_float(x->dtype) && !(maximum && (x->dtype == HK_INT8 || x->dtype == HK_UINT8)))
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected a float%s input, found %s",
                             maximum ? ", int8 or uint8" : "", hk_dtype_name(x->dtype));
    hk_shape y = HK_SHAPE_UNKNOWN;
    if (x->shape.rank >= 0) {
        hk_window w;
        hk_problem_text problem;
        if (!resolve(in->node->attrs, &x->shape, &w, &problem))
            return hk_infer_fail(in, HK_STATUS_INVALID, "%s", problem.text);
        y = hk_window_shape(&w, x->shape.dim[0], x->shape.dim[1]);
    }
    HK_TRY(hk_infer_output(in, 0, x->dtype, &y));
    return maximum ? hk_infer_output(in, 1, HK_INT64, &y) : HK_OK;
}

static hk_status infer_grad(hk_infer *in)
{
    const hk_value *dy = hk_in(in->node, 0), *indices = hk_in(in->node, 1);
    if (!hk_dtype_is_float(dy->dtype) || (indices && indices->dtype != HK_INT64))
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected a float dY and int64 indices");
    if (indices && hk_shape_known(&indices->shape) && hk_shape_known(&dy->shape) &&
        !hk_shape_equal(&indices->shape, &dy->shape))
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected indices of dY's shape");
    hk_shape x = HK_SHAPE_UNKNOWN;
    hk_problem_text problem;
    if (dy->shape.rank >= 0) {
        hk_window w;
        if (!hk_pool_input_shape(&((const pool_attrs *)in->node->attrs)->input_shape, &dy->shape, &x, &problem) ||
            !resolve(in->node->attrs, &x, &w, &problem))
            return hk_infer_fail(in, HK_STATUS_INVALID, "%s", problem.text);
        hk_shape y = hk_window_shape(&w, x.dim[0], x.dim[1]);
        hk_shape_text expected, found;
        if (hk_shape_known(&y) && hk_shape_known(&dy->shape) && !hk_shape_equal(&y, &dy->shape))
            return hk_infer_fail(in, HK_STATUS_INVALID, "expected a dY of shape %s, found %s",
                                 hk_shape_print(&y, &expected), hk_shape_print(&dy->shape, &found));
    }
    return hk_infer_output(in, 0, dy->dtype, &x);
}

/* ---- the oracle */

/* One output and its window, as evaluators walk them. */
typedef struct pool_walk {
    hk_window w;
    const pool_attrs *a;
    bool sum;
    int64_t in, out; /* elements of a plane */
} pool_walk;

static hk_status walk_begin(const hk_eval *e, const hk_shape *x, pool_walk *p)
{
    hk_problem_text problem;
    *p = (pool_walk){.a = e->node->attrs, .sum = is_sum(e->node)};
    if (!resolve(p->a, x, &p->w, &problem))
        return hk_eval_fail(e, HK_STATUS_INTERNAL, "%s", problem.text);
    p->in = hk_window_in_count(&p->w);
    p->out = hk_window_out_count(&p->w);
    return HK_OK;
}

/* Position of tap t of output o in the input's plane, -1 if it lies in the padding; *counts: an average counts it. */
static int64_t tap_position(const pool_walk *p, int64_t o, int64_t t, int64_t at[HK_AXES], bool *counts)
{
    int64_t index = 0;
    bool inside = true;
    *counts = true;
    for (int axis = HK_AXES - 1; axis >= 0; axis--) {
        const hk_window *w = &p->w;
        at[axis] = o % w->out[axis] * w->stride[axis] - w->begin[axis] + t % w->kernel[axis] * w->dilation[axis];
        o /= w->out[axis];
        t /= w->kernel[axis];
        inside &= at[axis] >= 0 && at[axis] < w->in[axis];
        *counts &= at[axis] < w->in[axis] + w->end[axis];
    }
    *counts = p->a->count_include_pad ? *counts : inside;
    for (int axis = 0; axis < HK_AXES; axis++)
        index = index * p->w.in[axis] + at[axis];
    return inside ? index : -1;
}

/* The index that ONNX gives an element of plane `plane`. */
static int64_t onnx_index(const pool_walk *p, int64_t plane, const int64_t at[HK_AXES])
{
    const int64_t *in = p->w.in;
    int64_t inner = p->a->storage_order ? (at[2] * in[1] + at[1]) * in[0] + at[0]
                                        : (at[0] * in[1] + at[1]) * in[2] + at[2];
    return plane * p->in + inner;
}

static hk_status eval_max(hk_eval *e)
{
    const hk_tensor *x = e->in[0];
    hk_shape xs = hk_tensor_shape(x);
    pool_walk p;
    HK_TRY(walk_begin(e, &xs, &p));
    hk_shape ys = hk_window_shape(&p.w, xs.dim[0], xs.dim[1]);
    hk_tensor *y = hk_eval_output(e, 0, x->dtype, &ys);
    hk_tensor *indices = hk_out(e->node, 1) ? hk_eval_output(e, 1, HK_INT64, &ys) : NULL;
    if (!y || (hk_out(e->node, 1) && !indices))
        return hk_out_of_memory(e->ctx, "evaluating MaxPool");
    int64_t count = hk_tensor_count(y), taps = hk_window_taps(&p.w), at[HK_AXES];
    bool counts;
    for (int64_t i = 0; i < count; i++) {
        double best = -INFINITY;
        int64_t where = -1, plane = i / p.out;
        for (int64_t t = 0; t < taps; t++) {
            int64_t position = tap_position(&p, i % p.out, t, at, &counts);
            double v = position < 0 ? 0 : hk_get_double(x, plane * p.in + position);
            if (position >= 0 && (where < 0 || v > best || isnan(v))) {
                best = v;
                where = onnx_index(&p, plane, at);
            }
        }
        hk_set_double(y, i, best);
        if (indices)
            hk_set_int(indices, i, where);
    }
    return HK_OK;
}

static hk_status eval_average(hk_eval *e)
{
    const hk_tensor *x = e->in[0];
    hk_shape xs = hk_tensor_shape(x);
    pool_walk p;
    HK_TRY(walk_begin(e, &xs, &p));
    hk_shape ys = hk_window_shape(&p.w, xs.dim[0], xs.dim[1]);
    hk_tensor *y = hk_eval_output(e, 0, x->dtype, &ys);
    if (!y)
        return hk_out_of_memory(e->ctx, "evaluating AveragePool");
    int64_t count = hk_tensor_count(y), taps = hk_window_taps(&p.w), at[HK_AXES];
    for (int64_t i = 0; i < count; i++) {
        double sum = 0;
        int64_t n = 0;
        for (int64_t t = 0; t < taps; t++) {
            bool counts;
            int64_t position = tap_position(&p, i % p.out, t, at, &counts);
            sum += position < 0 ? 0 : hk_get_double(x, i / p.out * p.in + position);
            n += counts;
        }
        hk_set_double(y, i, p.sum ? sum : sum / (double)HK_MAX(n, 1));
    }
    return HK_OK;
}

/* dY of output i spread over its window's taps; with indices, given to the one they name. */
static void spread_output(const pool_walk *p, const hk_tensor *indices, int64_t i, double dy, double *dx)
{
    int64_t taps = hk_window_taps(&p->w), at[HK_AXES], n = 0, plane = i / p->out;
    bool counts;
    for (int64_t t = 0; t < taps; t++) {
        tap_position(p, i % p->out, t, at, &counts);
        n += counts;
    }
    for (int64_t t = 0; t < taps; t++) {
        int64_t position = tap_position(p, i % p->out, t, at, &counts);
        if (position < 0 || (indices && hk_get_int(indices, i) != onnx_index(p, plane, at)))
            continue;
        dx[plane * p->in + position] += indices || p->sum ? dy : dy / (double)n;
    }
}

static hk_status eval_grad(hk_eval *e)
{
    const hk_tensor *dy = e->in[0], *indices = e->node->in_count > 1 ? e->in[1] : NULL;
    hk_shape dys = hk_tensor_shape(dy), xs;
    hk_problem_text problem;
    if (!hk_pool_input_shape(&((const pool_attrs *)e->node->attrs)->input_shape, &dys, &xs, &problem))
        return hk_eval_fail(e, HK_STATUS_INTERNAL, "%s", problem.text);
    pool_walk p;
    HK_TRY(walk_begin(e, &xs, &p));
    hk_tensor *out = hk_eval_output(e, 0, dy->dtype, &xs);
    double *dx = out ? hk_tensor_doubles(e->arena, out) : NULL;
    if (!dx)
        return hk_out_of_memory(e->ctx, "evaluating a pooling gradient");
    int64_t count = hk_tensor_count(dy);
    for (int64_t i = 0; i < count; i++)
        spread_output(&p, indices, i, hk_get_double(dy, i), dx);
    for (int64_t i = 0; i < hk_tensor_count(out); i++)
        hk_set_double(out, i, dx[i]);
    return HK_OK;
}

/* ---- the device */

/* Windows over at most two axes; the places of maxima are kept only for the gradient, as numbers of taps. */
static bool takes_octets(const hk_node *n)
{
    const pool_attrs *a = n->attrs;
    const hk_value *y = hk_out(n, 0), *indices = n->op->out_max == 2 ? hk_out(n, 1) : hk_in(n, 1);
    const hk_ints *kernel = &a->window.kernel_shape;
    int64_t taps = 1;
    for (int32_t i = 0; i < kernel->count; i++)
        taps *= HK_MIN(kernel->v[i], 256);
    if (!y || n->in[0]->dtype != HK_FLOAT32 || kernel->count > 2 || taps > 255 || a->storage_order)
        return false;
    return !indices || indices->storage == HK_INT32;
}

hk_status hk_pool_check_type(const hk_lower *l, const hk_value *v)
{
    if (v->dtype == HK_FLOAT32 || v->dtype == HK_INT8 || v->dtype == HK_UINT8)
        return HK_OK;
    return hk_fail(l->ctx, HK_STATUS_UNSUPPORTED,
                   "node '%s' (%s): pooling runs on the device in float32, found %s; export the model "
                   "in float32",
                   l->node->name, l->node->type, hk_dtype_name(v->dtype));
}

/* The 2 x 2 windows that tile the plane: exactly, for the gradient, which must write every element. */
static bool is_tiling(const hk_window *w, bool exact)
{
    bool square = w->spatial == 2 && w->kernel[1] == 2 && w->kernel[2] == 2 && w->stride[1] == 2 && w->stride[2] == 2;
    bool plain = w->dilation[1] == 1 && w->dilation[2] == 1 && w->begin[1] == 0 && w->begin[2] == 0;
    return square && plain && w->in[2] % 4 == 0 && w->out[2] * 2 == w->in[2] &&
           (exact ? w->out[1] * 2 == w->in[1] : w->out[1] * 2 <= w->in[1]);
}

/* What forward and backward share. split: the extents that a lane's number is taken apart with. */
static void pool_record(hk_lower *l, hk_record *r, const hk_window *w, const pool_attrs *a,
                        const int64_t split[HK_AXES], int64_t count)
{
    struct pool_push push = {.count = (uint32_t)count};
    uint32_t *in = &push.in_d, *out = &push.out_d, *pad = &push.pad_d, *limit = &push.limit_d, *divisor = &push.magic_d;
    for (uint32_t axis = 0; axis < HK_AXES; axis++) {
        hk_divisor d = hk_divisor_of((uint32_t)split[axis]);
        in[axis] = (uint32_t)w->in[axis];
        out[axis] = (uint32_t)w->out[axis];
        pad[axis] = (uint32_t)w->begin[axis];
        limit[axis] = (uint32_t)(w->in[axis] + (a->count_include_pad ? w->end[axis] : 0));
        divisor[2 * axis] = d.multiplier;
        divisor[2 * axis + 1] = d.shift;
        hk_spec(r, 3 + axis, (uint32_t)w->kernel[axis]);
        hk_spec(r, 6 + axis, (uint32_t)w->stride[axis]);
        hk_spec(r, 9 + axis, (uint32_t)w->dilation[axis]);
    }
    hk_push(r, &push, sizeof push);
    hk_spec(r, 13, a->count_include_pad != 0);
    hk_spec(r, 15, a->storage_order != 0);
    uint32_t lanes = l->cpu ? 64 : HK_MIN(256u, l->device->max_invocations);
    hk_workgroup(r, lanes, 1, 1);
    hk_grid_1d(l, r, (uint64_t)((count + lanes - 1) / lanes));
}

/* The same in HK_LAYOUT_NHWC8: an invocation makes the octet of a pixel of `to`, whose rows and columns are given. */
static void pool_octets(hk_lower *l, const hk_window *w, hk_value *from, hk_value *to, hk_value *indices, bool gradient)
{
    const hk_node *n = l->node;
    int64_t octets = (to->shape.dim[1] + 7) / 8, rows = gradient ? w->in[1] : w->out[1],
            columns = gradient ? w->in[2] : w->out[2];
    const int64_t split[HK_AXES] = {rows, columns, octets};
    bool average = n->op->out_max == 1 && !indices;
    hk_record *r = hk_emit(l, gradient ? &hk_kernel_pool_nhwc_grad : &hk_kernel_pool_nhwc,
                           gradient  ? average ? "average pool gradient nhwc8" : "max pool gradient nhwc8"
                           : average ? "average pool nhwc8"
                                     : "max pool nhwc8");
    pool_record(l, r, w, n->attrs, split, to->shape.dim[0] * rows * columns * octets);
    hk_use(r, from, HK_READ, offsetof(struct pool_push, from));
    hk_use(r, to, HK_WRITE, offsetof(struct pool_push, to));
    hk_use(r, indices, gradient ? HK_READ : HK_WRITE, offsetof(struct pool_push, indices));
    hk_spec(r, 12, average);
    hk_spec(r, 14, indices != NULL);
    hk_spec(r, 18, is_sum(n));
    hk_spec(r, 20, (uint32_t)octets);
    hk_spec(r, 21, hk_stores_halves(to));
    r->flops = (double)hk_shape_count(&to->shape) * (gradient ? 1.0 : (double)hk_window_taps(w));
}

static uint32_t index_words(const hk_value *indices)
{
    return !indices ? 0 : hk_value_storage(indices) == HK_INT32 ? 1 : 2;
}

static hk_status lower_pool(hk_lower *l)
{
    const hk_node *n = l->node;
    const pool_attrs *a = n->attrs;
    hk_value *x = n->in[0], *y = hk_out(n, 0), *indices = hk_out(n, 1);
    hk_window w;
    hk_problem_text problem;
    HK_TRY(hk_pool_check_type(l, x));
    if (!resolve(a, &x->shape, &w, &problem))
        return hk_fail(l->ctx, HK_STATUS_INTERNAL, "node '%s' (%s): %s", n->name, n->type, problem.text);
    bool average = n->op->out_max == 1;
    int64_t planes = x->shape.dim[0] * x->shape.dim[1], count = planes * hk_window_out_count(&w);
    if (count == 0)
        return HK_OK;
    if (x->layout == HK_LAYOUT_NHWC8) {
        pool_octets(l, &w, x, y, indices, false);
        return HK_OK;
    }
    if (!y) /* only the indices are asked for */
        y = hk_scratch(l, x->dtype, count);
    bool tiles = is_tiling(&w, false) && !is_sum(n) && hk_value_alignment(x) == 16 && hk_value_alignment(y) == 16 &&
                 (!indices || hk_value_alignment(indices) == 16);
    hk_record *r = hk_emit(l, &hk_kernel_pool, is_sum(n) ? "sum pool" : average ? "average pool" : "max pool");
    int64_t split[HK_AXES] = {w.out[0], w.out[1], tiles ? w.out[2] / 2 : w.out[2]};
    pool_record(l, r, &w, a, split, tiles ? count / 2 : count);
    hk_use(r, x, HK_READ, offsetof(struct pool_push, from));
    hk_use(r, y, HK_WRITE, offsetof(struct pool_push, to));
    hk_use(r, indices, HK_WRITE, offsetof(struct pool_push, indices));
    hk_spec(r, 12, average);
    hk_spec(r, 14, index_words(indices));
    hk_spec(r, 16, x->dtype == HK_INT8 ? 1 : x->dtype == HK_UINT8 ? 2 : 0);
    hk_spec(r, 17, tiles);
    hk_spec(r, 18, is_sum(n));
    r->flops = (double)count * (double)hk_window_taps(&w);
    return HK_OK;
}

static hk_status lower_grad(hk_lower *l)
{
    const hk_node *n = l->node;
    const pool_attrs *a = n->attrs;
    hk_value *dy = n->in[0], *indices = hk_in(n, 1), *dx = n->out[0];
    hk_window w;
    hk_problem_text problem;
    HK_TRY(hk_pool_check_type(l, dy));
    if (!resolve(a, &dx->shape, &w, &problem))
        return hk_fail(l->ctx, HK_STATUS_INTERNAL, "node '%s' (%s): %s", n->name, n->type, problem.text);
    int64_t planes = dx->shape.dim[0] * dx->shape.dim[1], count = planes * hk_window_in_count(&w);
    if (count == 0)
        return HK_OK;
    if (dx->layout == HK_LAYOUT_NHWC8) {
        pool_octets(l, &w, dy, dx, indices, true);
        return HK_OK;
    }
    bool tiles = is_tiling(&w, true) && !is_sum(n) && hk_value_alignment(dy) == 16 && hk_value_alignment(dx) == 16 &&
                 (!indices || hk_value_alignment(indices) == 16);
    hk_record *r = hk_emit(l, &hk_kernel_pool_grad, indices ? "max pool gradient" : "average pool gradient");
    bool wide = !tiles && w.in[2] % 4 == 0 && hk_value_alignment(dx) == 16;
    const int64_t tile_split[HK_AXES] = {1, w.out[1], HK_MAX(w.out[2] / 2, 1)};
    const int64_t split[HK_AXES] = {w.in[0], w.in[1], wide ? w.in[2] / 4 : w.in[2]};
    pool_record(l, r, &w, a, tiles ? tile_split : split, tiles ? count / 8 : wide ? count / 4 : count);
    hk_spec(r, 18, is_sum(n));
    hk_spec(r, 19, wide ? 4 : 1);
    hk_use(r, dy, HK_READ, offsetof(struct pool_push, from));
    hk_use(r, dx, HK_WRITE, offsetof(struct pool_push, to));
    hk_use(r, indices, HK_READ, offsetof(struct pool_push, indices));
    hk_spec(r, 12, indices == NULL);
    hk_spec(r, 14, index_words(indices));
    hk_spec(r, 17, tiles);
    r->flops = (double)count;
    return HK_OK;
}

/* ---- gradients */

hk_status hk_pool_extents(hk_graph *g, const hk_node *n, hk_attr_value *out)
{
    const hk_shape *x = &n->in[0]->shape;
    int64_t *extents = hk_arena_array(g->arena, HK_MAX_RANK, sizeof *extents);
    if (!extents)
        return hk_out_of_memory(g->ctx, "the gradient of pooling");
    for (int32_t i = 2; i < x->rank; i++)
        extents[i - 2] = x->dim[i];
    for (int32_t i = 2; i < x->rank || x->rank < 3; i++)
        if (x->rank < 3 || x->dim[i] < 0)
            return hk_fail(g->ctx, HK_STATUS_UNSUPPORTED,
                           "node '%s' (%s): its gradient needs the spatial extents of '%s', which are not known; give "
                           "the model fixed "
                           "image sizes",
                           n->name, n->type, n->in[0]->name);
    *out = (hk_attr_value)HK_SET_INTS("input_shape", extents, x->rank - 2);
    return HK_OK;
}

enum { POOL_VALUES = 9 };

static hk_status grad_values(hk_graph *g, const hk_node *n, hk_attr_value values[POOL_VALUES])
{
    const pool_attrs *a = n->attrs;
    const hk_window_attrs *w = &a->window;
    int i = 1;
    HK_TRY(hk_pool_extents(g, n, &values[0]));
    values[i++] = (hk_attr_value)HK_SET_STRING("auto_pad", w->auto_pad);
    values[i++] = (hk_attr_value)HK_SET_INTS("kernel_shape", w->kernel_shape.v, w->kernel_shape.count);
    values[i++] = (hk_attr_value)HK_SET_INT("ceil_mode", w->ceil_mode);
    values[i++] = n->op->out_max == 2 ? (hk_attr_value)HK_SET_INT("storage_order", a->storage_order)
                                      : (hk_attr_value)HK_SET_INT("count_include_pad", a->count_include_pad);
    if (w->strides.v)
        values[i++] = (hk_attr_value)HK_SET_INTS("strides", w->strides.v, w->strides.count);
    if (w->dilations.v)
        values[i++] = (hk_attr_value)HK_SET_INTS("dilations", w->dilations.v, w->dilations.count);
    if (w->pads.v)
        values[i++] = (hk_attr_value)HK_SET_INTS("pads", w->pads.v, w->pads.count);
    return HK_OK;
}

static hk_status backward_max(hk_gradient *g, hk_node *n)
{
    hk_graph *graph = hk_gradient_graph(g);
    hk_value *dx = NULL;
    if (!hk_gradient_wanted(g, n->in[0]))
        return HK_OK;
    if (!hk_out(n, 1)) {
        if (!hk_node_want_outputs(n, 2))
            return hk_out_of_memory(graph->ctx, "the gradient of MaxPool");
        n->out[1]->storage = HK_INT32; /* nobody else reads it */
        HK_TRY(hk_node_infer(graph, n));
    }
    hk_attr_value values[POOL_VALUES + 1] = {{0}};
    HK_TRY(grad_values(graph, n, values));
    HK_TRY(
        hk_build(graph, "hk.MaxPoolGrad", values, (hk_value *[]){hk_gradient_of(g, n->out[0]), n->out[1]}, 2, &dx, 1));
    return hk_gradient_add(g, n->in[0], dx);
}

static hk_status backward_average(hk_gradient *g, hk_node *n)
{
    hk_graph *graph = hk_gradient_graph(g);
    hk_value *dx = NULL;
    if (!hk_gradient_wanted(g, n->in[0]))
        return HK_OK;
    hk_attr_value values[POOL_VALUES + 1] = {{0}};
    HK_TRY(grad_values(graph, n, values));
    HK_TRY(hk_build(graph, is_sum(n) ? "hk.SumPoolGrad" : "hk.AveragePoolGrad", values,
                    (hk_value *[]){hk_gradient_of(g, n->out[0])}, 1, &dx, 1));
    return hk_gradient_add(g, n->in[0], dx);
}

/* ---- cases */

static const char *const max_cases[] = {
    "f32[2,3,8,8]; kernel_shape=[2,2] strides=[2,2]",
    "f32[2,3,9,12]; kernel_shape=[2,2] strides=[2,2]; out=2 nograd",
    "f32[2,3,8,12]; kernel_shape=[2,2] strides=[2,2]; out=2",
    "f32[1,2,9,7]; kernel_shape=[3,3] strides=[2,2] pads=[1,1,1,1]",
    "f32[1,2,9,7]; kernel_shape=[3,3] strides=[2,2] pads=[1,1,1,1] storage_order=1; out=2",
    "f32[1,2,10,8]; kernel_shape=[3,3] strides=[2,2] ceil_mode=1; out=2",
    "f32[1,2,10,9]; kernel_shape=[3,2] dilations=[2,3] strides=[1,2] pads=[2,1,1,0]",
    "f32[1,2,7,7]; kernel_shape=[3,3] strides=[2,2] auto_pad=\"SAME_UPPER\"",
    "f32[1,2,7,8]; kernel_shape=[2,4] auto_pad=\"SAME_LOWER\"",
    "f32[1,2,7,8]; kernel_shape=[2,4] strides=[2,3] auto_pad=\"VALID\"",
    "f32[2,3,17]; kernel_shape=[3] strides=[2]; out=2",
    "f32[1,2,5,6,7]; kernel_shape=[2,2,3] strides=[2,1,2] pads=[0,1,1,1,0,1]; out=2",
    "i8[1,2,6,6]<-90:90; kernel_shape=[3,3] strides=[2,2]; out=2 nograd",
    "u8[1,2,6,6]<250; kernel_shape=[2,2] strides=[2,2]; nograd",
    "f32[0,3,8,8]; kernel_shape=[2,2] strides=[2,2]; nograd",
    "f32[70,40,16,100]; kernel_shape=[2,2] strides=[2,2]; nograd",
    NULL,
};
static const char *const average_cases[] = {
    "f32[2,3,8,8]; kernel_shape=[2,2] strides=[2,2]",
    "f32[1,2,9,7]; kernel_shape=[3,3] strides=[2,2] pads=[1,1,1,1]",
    "f32[1,2,9,7]; kernel_shape=[3,3] strides=[2,2] pads=[1,1,1,1] count_include_pad=1",
    "f32[1,2,10,8]; kernel_shape=[3,3] strides=[2,2] ceil_mode=1 pads=[1,0,1,1] count_include_pad=1",
    "f32[1,2,10,9]; kernel_shape=[3,2] dilations=[2,3] strides=[1,2] pads=[2,1,1,0]",
    "f32[1,2,10,9]; kernel_shape=[3,2] dilations=[2,3] strides=[1,2] pads=[2,1,1,0] count_include_pad=1",
    "f32[1,2,7,7]; kernel_shape=[3,3] strides=[2,2] auto_pad=\"SAME_LOWER\"",
    "f32[2,3,17]; kernel_shape=[4] strides=[3] pads=[1,2]",
    "f32[1,2,5,6,7]; kernel_shape=[2,2,3] strides=[2,1,2] pads=[0,1,1,1,0,1]",
    "f32[0,3,8,8]; kernel_shape=[2,2]; nograd",
    NULL,
};
static const char *const sum_cases[] = {
    "f32[2,3,8,8]; kernel_shape=[2,2] strides=[2,2]",
    "f32[1,2,9,7]; kernel_shape=[3,1] strides=[2,1] pads=[1,0,1,0]",
    "f32[1,2,10,9]; kernel_shape=[3,2] dilations=[2,3] strides=[1,2] pads=[2,1,1,0] ceil_mode=1",
    NULL,
};
static const char *const sum_grad_cases[] = {
    "f32[2,3,4,4]; kernel_shape=[2,2] strides=[2,2] input_shape=[8,8]; nograd",
    "f32[1,2,5,4]; kernel_shape=[3,3] strides=[2,2] pads=[1,1,1,1] input_shape=[9,7]; nograd",
    NULL,
};
static const char *const max_grad_cases[] = {
    "f32[2,3,4,4] i64[2,3,4,4]<384; kernel_shape=[2,2] strides=[2,2] input_shape=[8,8]; nograd",
    "f32[1,2,5,4] i64[1,2,5,4]<126; kernel_shape=[3,3] strides=[2,2] pads=[1,1,1,1] input_shape=[9,7]; nograd",
    "f32[1,1,3,3] i64[1,1,3,3]<25; kernel_shape=[3,3] input_shape=[5,5]; nograd",
    NULL,
};
static const char *const average_grad_cases[] = {
    "f32[2,3,4,4]; kernel_shape=[2,2] strides=[2,2] input_shape=[8,8]; nograd",
    "f32[1,2,5,4]; kernel_shape=[3,3] strides=[2,2] pads=[1,1,1,1] count_include_pad=1 input_shape=[9,7]; nograd",
    "f32[1,2,9,4]; kernel_shape=[3,2] dilations=[2,3] strides=[1,2] pads=[2,1,1,1] input_shape=[10,9]; nograd",
    NULL,
};

#define POOL_OP(name, ins, outs_max, attr_table, infer_rule, eval_rule, lower_rule, backward_rule, case_list)          \
    {                                                                                                                  \
        .type = name, .since = 1, .in_min = ins, .in_max = ins, .out_min = 1, .out_max = outs_max,                     \
        .attrs_bytes = sizeof(pool_attrs), .attrs = attr_table, .infer = infer_rule, .eval = eval_rule,                \
        .lower = lower_rule, .backward = backward_rule, .cases = case_list, .octets_in = 1, .octets_out = 1,           \
        .takes_octets = takes_octets                                                                                   \
    }

const hk_op hk_ops_pool[] = {
    POOL_OP("MaxPool", 1, 2, max_attrs, infer_pool, eval_max, lower_pool, backward_max, max_cases),
    POOL_OP("AveragePool", 1, 1, average_attrs, infer_pool, eval_average, lower_pool, backward_average, average_cases),
    POOL_OP("hk.SumPool", 1, 1, average_attrs, infer_pool, eval_average, lower_pool, backward_average, sum_cases),
    POOL_OP("hk.SumPoolGrad", 1, 1, average_grad_attrs, infer_grad, eval_grad, lower_grad, NULL, sum_grad_cases),
    POOL_OP("hk.MaxPoolGrad", 2, 1, max_grad_attrs, infer_grad, eval_grad, lower_grad, NULL, max_grad_cases),
    POOL_OP("hk.AveragePoolGrad", 1, 1, average_grad_attrs, infer_grad, eval_grad, lower_grad, NULL,
            average_grad_cases),
    {0},
};
