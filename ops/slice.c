/* Slice with its gradient, and Pad: boxes cut out of tensors and tensors set into larger ones. */
#include <string.h>

#include "ops/support/move_args.h"
#include "ops/support/move_pad.h"

/* The lists of a Slice or Pad that name axes: all of them in order when none are given. */
static hk_status read_axes(const hk_args *a, const int64_t *given, int32_t count, int32_t rank,
                           int32_t axes[HK_MAX_RANK])
{
    bool used[HK_MAX_RANK] = {false};
    for (int32_t i = 0; i < count; i++) {
        int64_t axis = given ? given[i] : i;
        HK_TRY(hk_args_axis(a, axis, rank, &axes[i]));
        if (used[axes[i]])
            return hk_args_fail(a, "axis %d is named twice", (int)axes[i]);
        used[axes[i]] = true;
    }
    return HK_OK;
}

/* ---- Slice: lists are attributes before opset 10, inputs from then on */

typedef struct slice_attrs {
    hk_ints starts, ends, axes;
} slice_attrs;
static const hk_attr slice_1_attr_list[] = {
    {.name = "starts", .kind = HK_ATTR_INTS, .offset = offsetof(slice_attrs, starts), .required = true},
    {.name = "ends", .kind = HK_ATTR_INTS, .offset = offsetof(slice_attrs, ends), .required = true},
    HK_INTS_ATTR(slice_attrs, axes),
    {0},
};

typedef struct slice_lists { /* counts: -1 unknown contents */
    int64_t starts[HK_MAX_RANK], ends[HK_MAX_RANK], axes[HK_MAX_RANK], steps[HK_MAX_RANK];
    int32_t count, ends_count, axes_count, steps_count;
    bool has_axes, has_steps;
} slice_lists;

typedef struct slice_box { /* output element c is input element start + c * step, in every dimension */
    hk_shape x, y;
    int64_t start[HK_MAX_RANK], step[HK_MAX_RANK];
} slice_box;

static hk_status slice_lists_read(const hk_args *a, slice_lists *s)
{
    *s = (slice_lists){0};
    if (a->node->op->since >= 10) {
        HK_TRY(hk_args_ints(a, 1, "starts", s->starts, HK_MAX_RANK, &s->count));
        HK_TRY(hk_args_ints(a, 2, "ends", s->ends, HK_MAX_RANK, &s->ends_count));
        HK_TRY(hk_args_ints(a, 3, "axes", s->axes, HK_MAX_RANK, &s->axes_count));
        HK_TRY(hk_args_ints(a, 4, "steps", s->steps, HK_MAX_RANK, &s->steps_count));
        s->has_axes = hk_args_present(a, 3);
        s->has_steps = hk_args_present(a, 4);
    } else {
        const slice_attrs *t = a->node->attrs;
        s->count = t->starts.count;
        s->ends_count = t->ends.count;
        s->axes_count = t->axes.count;
        s->has_axes = t->axes.v != NULL;
        if (HK_MAX(s->count, HK_MAX(s->ends_count, s->axes_count)) > HK_MAX_RANK)
            return hk_args_fail(a, "lists of more than %d entries", HK_MAX_RANK);
        memcpy(s->starts, t->starts.v, (size_t)s->count * sizeof *s->starts);
        memcpy(s->ends, t->ends.v, (size_t)s->ends_count * sizeof *s->ends);
        if (s->axes_count > 0)
            memcpy(s->axes, t->axes.v, (size_t)s->axes_count * sizeof *s->axes);
    }
    int32_t least = HK_MIN(s->count, s->ends_count);
    bool even = s->count == s->ends_count && (!s->has_axes || s->axes_count == s->count) &&
                (!s->has_steps || s->steps_count == s->count);
    if (least >= 0 && s->axes_count >= 0 && s->steps_count >= 0 && !even)
        return hk_args_fail(a, "starts, ends, axes and steps have %d, %d, %d and %d entries, expected equal numbers",
                            (int)s->count, (int)s->ends_count, (int)s->axes_count, (int)s->steps_count);
    return HK_OK;
}

/* One axis of known extent, as ONNX clamps it: starts and ends beyond either side are legal. */
static hk_status slice_axis(const hk_args *a, int64_t dim, int64_t start, int64_t end, int64_t step, int32_t d,
                            slice_box *b)
{
    if (step == 0)
        return hk_args_fail(a, "the step of axis %d is 0", (int)d);
    step = HK_MAX(HK_MIN(step, (int64_t)INT32_MAX), -(int64_t)INT32_MAX); /* as good as any above a tensor's extent */
    int64_t low = step > 0 ? 0 : -1, high = step > 0 ? dim : dim - 1;
    start = start < 0 ? start + dim : start;
    end = end < 0 ? end + dim : end;
    start = HK_MIN(HK_MAX(start, 0), high);
    end = HK_MIN(HK_MAX(end, low), high);
    int64_t span = step > 0 ? end - start : start - end, stride = step > 0 ? step : -step;
    b->y.dim[d] = span > 0 ? (span + stride - 1) / stride : 0;
    b->start[d] = start;
    b->step[d] = step;
    return HK_OK;
}

static hk_status slice_read(const hk_args *a, slice_box *b)
{
    slice_lists s;
    int32_t axes[HK_MAX_RANK];
    HK_TRY(slice_lists_read(a, &s));
    b->x = hk_args_shape(a, 0);
    b->y = b->x;
    for (int32_t d = 0; d < HK_MAX_RANK; d++) {
        b->start[d] = 0;
        b->step[d] = 1;
    }
    if (b->x.rank < 0)
        return HK_OK;
    int32_t count = HK_MAX(s.count, s.ends_count);
    bool which = s.axes_count >= 0 && (s.has_axes || count >= 0);
    if (!which) {
        for (int32_t d = 0; d < b->x.rank; d++)
            b->y.dim[d] = -1;
        return HK_OK;
    }
    count = s.has_axes ? s.axes_count : count;
    HK_TRY(read_axes(a, s.has_axes ? s.axes : NULL, count, b->x.rank, axes));
    for (int32_t i = 0; i < count; i++) {
        int32_t d = axes[i];
        bool known = s.count >= 0 && s.ends_count >= 0 && s.steps_count >= 0 && b->x.dim[d] >= 0;
        if (known)
            HK_TRY(slice_axis(a, b->x.dim[d], s.starts[i], s.ends[i], s.has_steps ? s.steps[i] : 1, d, b));
        else
            b->y.dim[d] = -1;
    }
    return HK_OK;
}

static hk_status slice_infer(hk_infer *in)
{
    hk_args a = hk_infer_args(in);
    slice_box b;
    HK_TRY(slice_read(&a, &b));
    return hk_infer_output(in, 0, in->node->in[0]->dtype, &b.y);
}

static hk_move slice_move(const slice_box *b)
{
    int64_t from[HK_MAX_RANK], to[HK_MAX_RANK];
    hk_shape_strides(&b->x, from);
    hk_shape_strides(&b->y, to);
    hk_move m = {0};
    for (int32_t d = 0; d < b->x.rank; d++) {
        m.from_offset += b->start[d] * from[d];
        hk_move_add(&m, b->y.dim[d], b->step[d] * from[d], to[d]);
    }
    return m;
}

static hk_status slice_eval(hk_eval *e)
{
    hk_args a = hk_eval_args(e);
    slice_box b;
    HK_TRY(slice_read(&a, &b));
    hk_tensor *y = hk_eval_output(e, 0, e->in[0]->dtype, &b.y);
    if (!y)
        return hk_out_of_memory(e->ctx, "a slice");
    hk_move m = slice_move(&b);
    hk_host_move(&m, e->in[0], y);
    return HK_OK;
}

static hk_status slice_lower(hk_lower *l)
{
    hk_args a = hk_node_args(l->ctx, l->node);
    slice_box b;
    HK_TRY(slice_read(&a, &b));
    hk_move m = slice_move(&b);
    return hk_emit_move(l, &m, l->node->in[0], l->node->out[0]);
}

/* A view when what is taken is one run: inner dimensions whole, at most one partly, those outside it at one place. */
static int64_t slice_view(const hk_node *n)
{
    hk_args a = hk_node_args(NULL, n);
    slice_box b;
    if (!hk_shape_known(&n->in[0]->shape) || slice_read(&a, &b) != HK_OK || hk_shape_count(&b.y) <= 0)
        return -1;
    bool partial = false;
    int64_t stride = 1, offset = 0;
    for (int32_t d = b.x.rank - 1; d >= 0; d--) {
        if (b.y.dim[d] > 1 && (b.step[d] != 1 || partial))
            return -1;
        partial |= b.y.dim[d] != b.x.dim[d];
        offset += b.start[d] * stride;
        stride *= b.x.dim[d];
    }
    return offset;
}

static hk_status slice_backward(hk_gradient *g, hk_node *n)
{
    hk_graph *graph = hk_gradient_graph(g);
    hk_value *x = n->in[0], *dy = hk_gradient_of(g, n->out[0]), *dx;
    hk_args a = hk_node_args(graph->ctx, n);
    slice_box b;
    if (!hk_gradient_wanted(g, x) || !dy)
        return HK_OK;
    HK_TRY(slice_read(&a, &b));
    if (!hk_shape_known(&b.x) || !hk_shape_known(&b.y))
        return hk_args_shape_wanted(&a);
    const hk_attr_value attrs[] = {HK_SET_INTS("starts", b.start, b.x.rank),
                                   HK_SET_INTS("steps", b.step, b.x.rank),
                                   HK_SET_INTS("shape", b.x.dim, b.x.rank),
                                   {0}};
    HK_TRY(hk_build(graph, "hk.SliceGrad", attrs, &dy, 1, &dx, 1));
    return hk_gradient_add(g, x, dx);
}

static const char *const slice_cases[] = {
    "f32[4,5] i64={1,0} i64={3,5}",
    "f32[4,5] i64={1} i64={9223372036854775807} i64={1}",
    "f32[4,5] i64={-3} i64={-1} i64={-1}",
    "f32[20,10,5] i64={0,0} i64={3,10} i64={0,1} i64={1,1}",
    "f32[4,12] i64={0} i64={12} i64={1} i64={3}",
    "f32[4,11] i64={10} i64={-9223372036854775807} i64={1} i64={-1}",
    "f32[4,11] i64={8} i64={1} i64={1} i64={-3}",
    "f32[7,6,5] i64={6,-1,0} i64={0,-7,5} i64={0,1,2} i64={-2,-1,2}",
    "f32[4,5] i64={3} i64={1} i64={0}",
    "f32[3,8,16] i64={4} i64={12} i64={2}",
    "f32[3,1,16] i64={1} i64={3} i64={0}",
    "f32[6] i32={1} i32={5} - i32={2}",
    "f32[2,0] i64={0} i64={1} i64={0}",
    "i64[6,4]<50 i64={1} i64={4} i64={1} ; ; nograd",
    "bool[6,4] i64={1} i64={4} i64={0} ; ; nograd",
    "f16[6,4] i64={1} i64={3} i64={0} ; ; nograd",
    "f32[130,65,36] i64={1} i64={64} i64={1} ; ; nograd",
    "f32[130,65,35] i64={2} i64={35} i64={2} ; ; nograd",
    NULL,
};
static const char *const slice_1_cases[] = {
    "f32[4,5] ; starts=[1,0] ends=[3,1000]",
    "f32[4,5] ; axes=[1] starts=[-3] ends=[-1]",
    NULL,
};

/* ---- hk.SliceGrad: zeros of `shape`, with dY at starts + c * steps (as the forward resolved them) */

typedef struct slice_grad_attrs {
    hk_ints starts, steps, shape;
} slice_grad_attrs;
static const hk_attr slice_grad_attr_list[] = {
    {.name = "starts", .kind = HK_ATTR_INTS, .offset = offsetof(slice_grad_attrs, starts), .required = true},
    {.name = "steps", .kind = HK_ATTR_INTS, .offset = offsetof(slice_grad_attrs, steps), .required = true},
    {.name = "shape", .kind = HK_ATTR_INTS, .offset = offsetof(slice_grad_attrs, shape), .required = true},
    {0},
};
static const float zero_float[1];
static const hk_tensor zero = {.data = (void *)(uintptr_t)zero_float, .dtype = HK_FLOAT32};

static hk_status slice_grad_read(const hk_args *a, hk_shape *out, hk_pad *p)
{
    const slice_grad_attrs *s = a->node->attrs;
    hk_shape dy = hk_args_shape(a, 0);
    int64_t stride[HK_MAX_RANK];
    int32_t rank = s->shape.count;
    if (rank > HK_MAX_RANK || dy.rank != rank || s->starts.count != rank || s->steps.count != rank ||
        !hk_shape_known(&dy))
        return hk_args_fail(a, "expected starts, steps, shape and the input's known shape to have one rank");
    hk_shape_strides(&dy, stride);
    *out = (hk_shape){.rank = rank};
    *p = (hk_pad){.mode = HK_PAD_CONSTANT, .rank = rank};
    for (int32_t d = 0; d < rank; d++) {
        int64_t start = s->starts.v[d], step = s->steps.v[d], last = start + (dy.dim[d] - 1) * step;
        out->dim[d] = s->shape.v[d];
        if (out->dim[d] < 0 || step == 0 ||
            (dy.dim[d] > 0 && (HK_MIN(start, last) < 0 || HK_MAX(start, last) >= out->dim[d])))
            return hk_args_fail(a, "%lld elements from %lld by %lld do not lie in a dimension of %lld",
                                (long long)dy.dim[d], (long long)start, (long long)step, (long long)out->dim[d]);
        p->dim[d] = (hk_pad_dim){
            .extent = out->dim[d], .before = start, .count = dy.dim[d], .stride = stride[d], .step = step};
        if (dy.dim[d] <= 1)
            p->dim[d].step = 1;
        if (p->dim[d].step < 0) { /* the same elements seen from the other end */
            p->from_offset += (dy.dim[d] - 1) * stride[d];
            p->dim[d].before = last;
            p->dim[d].stride = -stride[d];
            p->dim[d].step = -step;
        }
    }
    return HK_OK;
}

static hk_status slice_grad_infer(hk_infer *in)
{
    hk_args a = hk_infer_args(in);
    hk_shape s;
    hk_pad p;
    HK_TRY(slice_grad_read(&a, &s, &p));
    return hk_infer_output(in, 0, in->node->in[0]->dtype, &s);
}

static hk_status slice_grad_eval(hk_eval *e)
{
    hk_args a = hk_eval_args(e);
    hk_shape s;
    hk_pad p;
    HK_TRY(slice_grad_read(&a, &s, &p));
    hk_tensor *y = hk_eval_output(e, 0, e->in[0]->dtype, &s);
    if (!y)
        return hk_out_of_memory(e->ctx, "the gradient of a slice");
    hk_host_pad(&p, e->in[0], &zero, y);
    return HK_OK;
}

static hk_status slice_grad_lower(hk_lower *l)
{
    hk_args a = hk_node_args(l->ctx, l->node);
    hk_shape s;
    hk_pad p;
    HK_TRY(slice_grad_read(&a, &s, &p));
    return hk_emit_pad(l, &p, l->node->in[0], &zero, l->node->out[0]);
}

static const char *const slice_grad_cases[] = {
    "f32[2,5] ; starts=[1,0] steps=[1,1] shape=[4,5] ; nograd",
    "f32[4,4] ; starts=[0,0] steps=[1,3] shape=[4,12] ; nograd",
    "f32[4,3] ; starts=[0,8] steps=[1,-3] shape=[4,11] ; nograd",
    "f32[3,6,3] ; starts=[6,5,0] steps=[-2,-1,2] shape=[7,6,5] ; nograd",
    "f32[3,8,8] ; starts=[0,0,4] steps=[1,1,1] shape=[3,8,16] ; nograd",
    "f32[0,5] ; starts=[3,0] steps=[1,1] shape=[4,5] ; nograd",
    "f32[5] ; starts=[2] steps=[1] shape=[9] ; nograd",
    "f32[130,63,36] ; starts=[0,1,0] steps=[1,1,1] shape=[130,65,36] ; nograd",
    NULL,
};

/* ---- Pad: https://onnx.ai/onnx/operators/onnx__Pad.html. Negative pads crop. */

typedef struct pad_attrs {
    const char *mode;
    hk_ints pads;
    float value;
} pad_attrs;
static const hk_attr pad_1_attr_list[] = {
    HK_STRING_ATTR(pad_attrs, mode, "constant"),
    {.name = "paddings", .kind = HK_ATTR_INTS, .offset = offsetof(pad_attrs, pads), .required = true},
    HK_FLOAT_ATTR(pad_attrs, value, 0.0),
    {0},
};
static const hk_attr pad_2_attr_list[] = {
    HK_STRING_ATTR(pad_attrs, mode, "constant"),
    {.name = "pads", .kind = HK_ATTR_INTS, .offset = offsetof(pad_attrs, pads), .required = true},
    HK_FLOAT_ATTR(pad_attrs, value, 0.0),
    {0},
};
static const hk_attr pad_11_attr_list[] = {HK_STRING_ATTR(pad_attrs, mode, "constant"), {0}};

static hk_status pad_mode(const hk_args *a, hk_pad_mode *mode)
{
    static const char *const names[] = {
        [HK_PAD_CONSTANT] = "constant", [HK_PAD_REFLECT] = "reflect", [HK_PAD_EDGE] = "edge", [HK_PAD_WRAP] = "wrap"};
    const char *given = ((const pad_attrs *)a->node->attrs)->mode;
    for (size_t i = 0; i < HK_COUNT(names); i++)
        if (!strcmp(given, names[i])) {
            *mode = (hk_pad_mode)i;
            return HK_OK;
        }
    return hk_args_fail(a, "mode '%s', expected constant, reflect, edge or wrap", given);
}

/* before[d] and after[d] of every dimension of a known rank; *known false: the contents are not known yet. */
static hk_status read_pads(const hk_args *a, int32_t rank, int64_t before[HK_MAX_RANK], int64_t after[HK_MAX_RANK],
                           bool *known)
{
    const pad_attrs *p = a->node->attrs;
    int64_t pads[2 * HK_MAX_RANK], given[HK_MAX_RANK];
    int32_t count = p->pads.count, axes_count = rank, axes[HK_MAX_RANK];
    bool has_axes = hk_args_present(a, 3);
    *known = false;
    if (a->node->op->since >= 11)
        HK_TRY(hk_args_ints(a, 1, "pads", pads, 2 * HK_MAX_RANK, &count));
    else if (count <= 2 * HK_MAX_RANK && count > 0)
        memcpy(pads, p->pads.v, (size_t)count * sizeof *pads);
    if (has_axes)
        HK_TRY(hk_args_ints(a, 3, "axes", given, HK_MAX_RANK, &axes_count));
    if (count < 0 || axes_count < 0)
        return HK_OK;
    if (count != 2 * axes_count)
        return hk_args_fail(a, "pads has %d entries, expected two for each of %d axes", (int)count, (int)axes_count);
    HK_TRY(read_axes(a, has_axes ? given : NULL, axes_count, rank, axes));
    for (int32_t d = 0; d < rank; d++)
        before[d] = after[d] = 0;
    for (int32_t i = 0; i < axes_count; i++) {
        before[axes[i]] = pads[i];
        after[axes[i]] = pads[axes_count + i];
        if (HK_MAX(pads[i], pads[axes_count + i]) > INT32_MAX || HK_MIN(pads[i], pads[axes_count + i]) < -INT32_MAX)
            return hk_args_fail(a, "axis %d is padded by %lld and %lld, at most 2^31 - 1 is supported", (int)axes[i],
                                (long long)pads[i], (long long)pads[axes_count + i]);
    }
    *known = true;
    return HK_OK;
}

/* The output's shape; *p describes the move if the input's shape and the pads are known (p->rank is -1 if not). */
static hk_status pad_read(const hk_args *a, hk_shape *out, hk_pad *p)
{
    hk_shape x = hk_args_shape(a, 0);
    int64_t before[HK_MAX_RANK], after[HK_MAX_RANK], stride[HK_MAX_RANK];
    bool known;
    *out = x;
    *p = (hk_pad){.rank = -1};
    HK_TRY(pad_mode(a, &p->mode));
    if (x.rank < 0)
        return HK_OK;
    HK_TRY(read_pads(a, x.rank, before, after, &known));
    for (int32_t d = 0; d < x.rank; d++) {
        out->dim[d] = known && x.dim[d] >= 0 ? x.dim[d] + before[d] + after[d] : -1;
        if (known && x.dim[d] >= 0 && out->dim[d] < 0)
            return hk_args_fail(a, "dimension %d of %lld elements is cropped by %lld and %lld", (int)d,
                                (long long)x.dim[d], (long long)-before[d], (long long)-after[d]);
        if (p->mode != HK_PAD_CONSTANT && x.dim[d] == 0 && out->dim[d] > 0)
            return hk_args_fail(a, "dimension %d is empty: there is nothing to pad it with in mode %s", (int)d,
                                ((const pad_attrs *)a->node->attrs)->mode);
    }
    if (!known || !hk_shape_known(&x))
        return HK_OK;
    p->rank = x.rank;
    hk_shape_strides(&x, stride);
    for (int32_t d = 0; d < x.rank; d++)
        p->dim[d] = (hk_pad_dim){
            .extent = out->dim[d], .before = before[d], .count = x.dim[d], .stride = stride[d], .step = 1};
    return HK_OK;
}

static hk_status pad_infer(hk_infer *in)
{
    hk_args a = hk_infer_args(in);
    hk_shape s, value = hk_args_shape(&a, 2);
    hk_pad p;
    if (hk_args_present(&a, 2) && hk_shape_known(&value) && hk_shape_count(&value) != 1)
        return hk_infer_fail(in, HK_STATUS_INVALID, "constant_value has %lld elements, expected 1",
                             (long long)hk_shape_count(&value));
    HK_TRY(pad_read(&a, &s, &p));
    return hk_infer_output(in, 0, in->node->in[0]->dtype, &s);
}

/* The element written outside: an input, an attribute (then *local holds it), or 0. */
static hk_tensor pad_value(const hk_args *a, float *local)
{
    const hk_tensor *given = hk_args_known(a, 2);
    *local = a->node->op->since < 11 ? ((const pad_attrs *)a->node->attrs)->value : 0.0f;
    return given ? *given : (hk_tensor){.data = local, .dtype = HK_FLOAT32};
}

static hk_status pad_eval(hk_eval *e)
{
    hk_args a = hk_eval_args(e);
    hk_shape s;
    hk_pad p;
    float local;
    HK_TRY(pad_read(&a, &s, &p));
    hk_tensor *y = hk_eval_output(e, 0, e->in[0]->dtype, &s);
    if (!y)
        return hk_out_of_memory(e->ctx, "a padded tensor");
    hk_tensor value = pad_value(&a, &local);
    hk_host_pad(&p, e->in[0], &value, y);
    return HK_OK;
}

static hk_status pad_lower(hk_lower *l)
{
    hk_args a = hk_node_args(l->ctx, l->node);
    hk_shape s;
    hk_pad p;
    float local;
    HK_TRY(pad_read(&a, &s, &p));
    if (p.rank < 0 || (hk_args_present(&a, 2) && !hk_args_known(&a, 2)))
        return hk_args_fail(&a, "pads and constant_value must be known when planning");
    hk_tensor value = pad_value(&a, &local);
    return hk_emit_pad(l, &p, l->node->in[0], &value, l->node->out[0]);
}

/* A piece [from, to) of dy along an axis, turned round if `reversed`. */
static hk_status cut(hk_graph *g, hk_value *dy, int64_t axis, int64_t from, int64_t to, bool reversed, hk_value **out)
{
    int64_t start = reversed ? to - 1 : from, end = reversed ? from - 1 : to, step = reversed ? -1 : 1;
    if (end < 0)
        end = INT64_MIN + 1; /* -1 would count from the end */
    hk_value *in[5] = {dy, hk_graph_ints(g, &start, 1), hk_graph_ints(g, &end, 1), hk_graph_ints(g, &axis, 1),
                       hk_graph_ints(g, &step, 1)};
    if (!in[1] || !in[2] || !in[3] || !in[4])
        return HK_STATUS_OUT_OF_MEMORY;
    return hk_build(g, "Slice", NULL, in, 5, out, 1);
}

/* *sum += piece, which lies at `at` in an axis of n elements. */
static hk_status put(hk_graph *g, hk_value *piece, int64_t axis, int64_t at, int64_t n, hk_value **sum)
{
    int64_t pads[2] = {at, n - at - piece->shape.dim[axis]};
    hk_value *in[4] = {piece, hk_graph_ints(g, pads, 2), NULL, hk_graph_ints(g, &axis, 1)}, *padded;
    if (!in[1] || !in[3])
        return HK_STATUS_OUT_OF_MEMORY;
    HK_TRY(hk_build(g, "Pad", NULL, in, 4, &padded, 1));
    return hk_build(g, "Add", NULL, (hk_value *[]){*sum, padded}, 2, sum, 1);
}

/* The gradient of padding one axis by reflection, edge or wrapping: the middle, plus both borders folded back to where
 * their elements came from. */
static hk_status pad_axis_back(hk_graph *g, const hk_pad *p, int32_t d, hk_value *dy, hk_value **out)
{
    int64_t b = p->dim[d].before, n = p->dim[d].count, total = p->dim[d].extent, a = total - b - n, axis = d;
    HK_TRY(cut(g, dy, axis, b, b + n, false, out));
    for (int32_t side = 0; side < 2; side++) {
        int64_t width = side ? a : b, first = side ? b + n : 0, at = 0;
        hk_value *piece;
        if (width == 0)
            continue;
        HK_TRY(cut(g, dy, axis, first, first + width, p->mode == HK_PAD_REFLECT, &piece));
        if (p->mode == HK_PAD_EDGE) {
            const hk_attr_value attrs[] = {HK_SET_INT("keepdims", 1), {0}};
            hk_value *axes = hk_graph_ints(g, &axis, 1);
            if (!axes)
                return HK_STATUS_OUT_OF_MEMORY;
            HK_TRY(hk_build(g, "ReduceSum", attrs, (hk_value *[]){piece, axes}, 2, &piece, 1));
            at = side ? n - 1 : 0;
        } else if (p->mode == HK_PAD_REFLECT) {
            at = side ? n - 1 - width : 1;
        } else {
            at = side ? 0 : n - width;
        }
        HK_TRY(put(g, piece, axis, at, n, out));
    }
    return HK_OK;
}

/* Constant: what lies inside, so padding by the negated pads. Other modes: axis by axis. */
static hk_status pad_backward(hk_gradient *g, hk_node *n)
{
    hk_graph *graph = hk_gradient_graph(g);
    hk_value *x = n->in[0], *dx = hk_gradient_of(g, n->out[0]);
    hk_args a = hk_node_args(graph->ctx, n);
    hk_shape s;
    hk_pad p;
    if (!hk_gradient_wanted(g, x) || !dx)
        return HK_OK;
    HK_TRY(pad_read(&a, &s, &p));
    if (p.rank < 0)
        return hk_args_shape_wanted(&a);
    int64_t pads[2 * HK_MAX_RANK];
    for (int32_t d = 0; d < p.rank; d++) {
        int64_t b = p.dim[d].before, after = p.dim[d].extent - b - p.dim[d].count;
        int64_t most = p.mode == HK_PAD_REFLECT ? p.dim[d].count - 1
                       : p.mode == HK_PAD_WRAP  ? p.dim[d].count
                                                : INT32_MAX;
        pads[d] = -b;
        pads[p.rank + d] = -after;
        if (p.mode == HK_PAD_CONSTANT || (b == 0 && after == 0))
            continue;
        if (HK_MIN(b, after) < 0 || HK_MAX(b, after) > most)
            return hk_fail(
                graph->ctx, HK_STATUS_UNSUPPORTED,
                "node '%s' (Pad): no gradient for axis %d of %lld elements padded by %lld and %lld in mode %s", n->name,
                (int)d, (long long)p.dim[d].count, (long long)b, (long long)after, ((const pad_attrs *)n->attrs)->mode);
        HK_TRY(pad_axis_back(graph, &p, d, dx, &dx));
    }
    if (p.mode == HK_PAD_CONSTANT) {
        hk_value *in[2] = {dx, hk_graph_ints(graph, pads, 2 * p.rank)};
        if (!in[1])
            return HK_STATUS_OUT_OF_MEMORY;
        HK_TRY(hk_build(graph, "Pad", NULL, in, 2, &dx, 1));
    }
    return hk_gradient_add(g, x, dx);
}

static const char *const pad_cases[] = {
    "f16[3,5] i64={1,2,3,4} f16=1.25 ; ; nograd",
    "f32[3,4] i64={0,2,0,1}",
    "f32[3,4] i64={1,2,3,4} f32=1.25",
    "f32[2,3,5,6] i64={0,0,1,1,0,0,1,1}",
    "f32[2,3,8] i64={1,0,2,1} - i64={-1,0}",
    "f32[2,3,8] i64={4,8} f32=-0.5 i64={2}",
    "f32[5,6] i64={-1,2,1,-3}",
    "f32[4,5] i64={2,3,3,4} ; mode=\"reflect\"",
    "f32[4,5] i64={0,3,0,0} ; mode=\"reflect\"",
    "f32[3,4] i64={7,0,9,0} ; mode=\"reflect\" ; nograd",
    "f32[3,5] i64={2,1,0,4} ; mode=\"edge\"",
    "f32[3,5] i64={2,1,3,5} ; mode=\"wrap\"",
    "f32[3,5] i64={7,0,8,11} ; mode=\"wrap\" ; nograd",
    "f32[1,4] i64={2,0,2,0} ; mode=\"reflect\" ; nograd",
    "f32[0,2] i64={1,0,1,1} f32=3.0",
    "f32[] i64={}",
    "i64[3,4]<50 i64={1,1,1,1} i64=-7000000000 ; ; nograd",
    "i32[3,4]<50 i64={1,1,1,1} ; mode=\"edge\" ; nograd",
    "bool[3,4] i64={1,1,1,1} bool=1 ; ; nograd",
    "f16[2,3,4] i64={0,1,0,0,1,0} ; ; nograd",
    "f32[3,129,131] i64={0,1,1,0,1,1} ; ; nograd",
    "f32[70,3,8] i64={0,1,0,0,2,0} f32=2.0 ; ; nograd",
    NULL,
};
static const char *const pad_2_cases[] = {"f32[3,4] ; pads=[1,2,3,4] value=1.5",
                                          "f32[3,4] ; pads=[1,2,1,2] mode=\"edge\"", NULL};
static const char *const pad_1_cases[] = {"f32[3,4] ; paddings=[1,2,3,4] value=1.5", NULL};

#define PAD_OP(first, last, ins, hosts, list, case_list)                                                               \
    {                                                                                                                  \
        .type = "Pad", .since = first, .until = last, .in_min = 1 + (first >= 11), .in_max = ins, .out_min = 1,        \
        .out_max = 1, .flags = HK_OP_ANY_TYPE, .host_inputs = hosts, .attrs_bytes = sizeof(pad_attrs), .attrs = list,  \
        .infer = pad_infer, .eval = pad_eval, .lower = pad_lower, .backward = pad_backward, .cases = case_list         \
    }

const hk_op hk_ops_slice[] = {
    {.type = "Slice",
     .since = 1,
     .until = 9,
     .in_min = 1,
     .in_max = 1,
     .out_min = 1,
     .out_max = 1,
     .flags = HK_OP_VIEW | HK_OP_ANY_TYPE,
     .attrs_bytes = sizeof(slice_attrs),
     .attrs = slice_1_attr_list,
     .infer = slice_infer,
     .eval = slice_eval,
     .lower = slice_lower,
     .backward = slice_backward,
     .view_offset = slice_view,
     .cases = slice_1_cases},
    {.type = "Slice",
     .since = 10,
     .in_min = 3,
     .in_max = 5,
     .out_min = 1,
     .out_max = 1,
     .flags = HK_OP_VIEW | HK_OP_ANY_TYPE,
     .host_inputs = 0x1e,
     .infer = slice_infer,
     .eval = slice_eval,
     .lower = slice_lower,
     .backward = slice_backward,
     .view_offset = slice_view,
     .cases = slice_cases},
    {.type = "hk.SliceGrad",
     .since = 1,
     .in_min = 1,
     .in_max = 1,
     .out_min = 1,
     .out_max = 1,
     .attrs_bytes = sizeof(slice_grad_attrs),
     .attrs = slice_grad_attr_list,
     .infer = slice_grad_infer,
     .eval = slice_grad_eval,
     .lower = slice_grad_lower,
     .cases = slice_grad_cases},
    PAD_OP(1, 1, 1, 0, pad_1_attr_list, pad_1_cases),
    PAD_OP(2, 10, 1, 0, pad_2_attr_list, pad_2_cases),
    PAD_OP(11, 0, 4, 0xe, pad_11_attr_list, pad_cases),
    {0},
};
