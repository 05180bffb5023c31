/* Operators that change a shape and no element: views. Reshape, Flatten, Squeeze, Unsqueeze, Identity, hk.View. */
#include <math.h>
#include <string.h>

#include "ops/support/move.h"
#include "ops/support/move_args.h"
#include "ops/support/sequence.h"

/* ---- what the views share */

typedef hk_status shape_rule(const hk_args *a, hk_shape *out);

static hk_status infer_by(hk_infer *in, shape_rule *rule)
{
    hk_args a = hk_infer_args(in);
    hk_shape s;
    HK_TRY(rule(&a, &s));
    return hk_infer_output(in, 0, in->node->in[0]->dtype, &s);
}

static hk_status eval_by(hk_eval *e, shape_rule *rule)
{
    hk_args a = hk_eval_args(e);
    hk_shape s;
    HK_TRY(rule(&a, &s));
    return hk_eval_reshaped(e, &s);
}

/* dX = dY under X's shape. */
static hk_status view_backward(hk_gradient *g, hk_node *n)
{
    hk_value *x = n->in[0], *dy = hk_gradient_of(g, n->out[0]), *dx;
    if (!hk_gradient_wanted(g, x) || !dy)
        return HK_OK;
    hk_graph *graph = hk_gradient_graph(g);
    hk_args a = hk_node_args(graph->ctx, n);
    if (!hk_shape_known(&x->shape))
        return hk_args_shape_wanted(&a);
    hk_value *shape = hk_graph_ints(graph, x->shape.dim, x->shape.rank);
    if (!shape)
        return HK_STATUS_OUT_OF_MEMORY;
    const hk_attr_value attrs[] = {HK_SET_INT("allowzero", 1), {0}};
    HK_TRY(hk_build(graph, "Reshape", attrs, (hk_value *[]){dy, shape}, 2, &dx, 1));
    return hk_gradient_add(g, x, dx);
}

/* ---- Reshape: https://onnx.ai/onnx/operators/onnx__Reshape.html. A 0 copies the input's dimension (unless allowzero),
 * one -1 takes what is left. */

typedef struct reshape_attrs {
    int64_t allowzero;
} reshape_attrs;
static const hk_attr reshape_attr_list[] = {HK_INT_ATTR(reshape_attrs, allowzero, 0), {0}};

/* Fills in the -1 at `left`: what the input's dimensions hold that the other entries do not. A dimension copied by a 0
 * is on both sides and may be unknown. */
static hk_status reshape_rest(const hk_args *a, const hk_shape *x, const bool *copied, int32_t left, hk_shape *out)
{
    int64_t have = 1, used = 1;
    bool fits = true;
    if (x->rank < 0)
        return HK_OK;
    for (int32_t i = 0; i < HK_MAX(x->rank, out->rank); i++) {
        if (i < x->rank && !copied[i]) {
            if (x->dim[i] < 0)
                return HK_OK;
            fits &= !__builtin_mul_overflow(have, x->dim[i], &have);
        }
        if (i < out->rank && !copied[i] && i != left)
            fits &= !__builtin_mul_overflow(used, out->dim[i], &used);
    }
    hk_shape_text b;
    if (!fits || used == 0 || have % used)
        return hk_args_fail(a, "input %s cannot be divided among the other dimensions to find the one that is -1",
                            hk_shape_print(x, &b));
    out->dim[left] = have / used;
    return HK_OK;
}

static bool reshape_allowzero(const hk_node *n)
{
    return n->op->since >= 14 && ((const reshape_attrs *)n->attrs)->allowzero != 0;
}

static hk_status reshape_shape(const hk_args *a, hk_shape *out)
{
    bool allowzero = reshape_allowzero(a->node);
    hk_shape x = hk_args_shape(a, 0);
    int64_t spec[HK_MAX_RANK];
    int32_t n, left = -1;
    bool copied[HK_MAX_RANK] = {false};
    HK_TRY(hk_args_ints(a, 1, "shape", spec, HK_MAX_RANK, &n));
    if (n < 0) {
        int64_t length = hk_args_length(a, 1);
        *out = (hk_shape){.rank = length >= 0 && length <= HK_MAX_RANK ? (int32_t)length : -1};
        for (int32_t i = 0; i < out->rank; i++)
            out->dim[i] = -1;
        return HK_OK;
    }
    *out = (hk_shape){.rank = n};
    for (int32_t i = 0; i < n; i++) {
        if (spec[i] < -1)
            return hk_args_fail(a, "dimension %d of the shape is %lld, expected -1 or more", (int)i,
                                (long long)spec[i]);
        if (spec[i] == -1 && left >= 0)
            return hk_args_fail(a, "the shape has more than one -1");
        out->dim[i] = spec[i];
        if (spec[i] == -1)
            left = i;
        if (spec[i] == 0 && !allowzero) {
            if (x.rank >= 0 && i >= x.rank)
                return hk_args_fail(a, "dimension %d of the shape copies one of the input, which has rank %d", (int)i,
                                    (int)x.rank);
            copied[i] = true;
            out->dim[i] = x.rank < 0 ? -1 : x.dim[i];
        }
    }
    if (left >= 0)
        return reshape_rest(a, &x, copied, left, out);
    hk_shape_text from, to;
    if (hk_shape_known(&x) && hk_shape_known(out) && hk_shape_count(&x) != hk_shape_count(out))
        return hk_args_fail(a, "input %s has %lld elements, the shape %s has %lld", hk_shape_print(&x, &from),
                            (long long)hk_shape_count(&x), hk_shape_print(out, &to), (long long)hk_shape_count(out));
    return HK_OK;
}

static hk_status reshape_infer(hk_infer *in)
{
    return infer_by(in, reshape_shape);
}

static hk_status reshape_eval(hk_eval *e)
{
    return eval_by(e, reshape_shape);
}

static const char *const reshape_cases[] = {
    "f32[2,3,4] i64={4,-1}", "f32[2,3,4] i64={0,-1}",
    "f32[6] i64={3,2,1}",    "f32[1,1] i64={}",
    "f32[] i64={1,1,1}",     "f32[2,0,3] i64={0,7,0} ; allowzero=1",
    "i64[4,2]<9 i64={-1}",   "bool[4,2] i64={2,2,2}",
    "f64[3,5] i64={15}",     NULL,
};
static const char *const reshape_5_cases[] = {"f32[2,3,4] i64={0,-1}", "f32[2,3,4] i64={-1,12}", NULL};

/* ---- Flatten: dimensions before axis and from axis on */

typedef struct axis_attrs {
    int64_t axis;
} axis_attrs;
static const hk_attr flatten_attr_list[] = {HK_INT_ATTR(axis_attrs, axis, 1), {0}};

static hk_status flatten_shape(const hk_args *a, hk_shape *out)
{
    hk_shape x = hk_args_shape(a, 0);
    int64_t axis = ((const axis_attrs *)a->node->attrs)->axis;
    *out = (hk_shape){.rank = 2, .dim = {-1, -1}};
    if (x.rank < 0)
        return HK_OK;
    if (axis < -(int64_t)x.rank || axis > x.rank)
        return hk_args_fail(a, "axis %lld, expected %d to %d", (long long)axis, -(int)x.rank, (int)x.rank);
    int32_t at = (int32_t)(axis < 0 ? axis + x.rank : axis);
    out->dim[0] = hk_shape_span(&x, 0, at);
    out->dim[1] = hk_shape_span(&x, at, x.rank);
    return HK_OK;
}

static hk_status flatten_infer(hk_infer *in)
{
    return infer_by(in, flatten_shape);
}

static hk_status flatten_eval(hk_eval *e)
{
    return eval_by(e, flatten_shape);
}

static const char *const flatten_cases[] = {
    "f32[2,3,4,5]", "i64[2,3,4]<9 ; axis=0", "f32[2,3,4] ; axis=3", "f32[2,3,4] ; axis=-1", "f32[7]", "f32[0,3]", NULL,
};

/* ---- Squeeze and Unsqueeze: axes are an attribute before opset 13, an input from then on */

typedef struct axes_attrs {
    hk_ints axes;
} axes_attrs;
static const hk_attr axes_attr_list[] = {HK_INTS_ATTR(axes_attrs, axes), {0}};
static const hk_attr axes_required_list[] = {
    {.name = "axes", .kind = HK_ATTR_INTS, .offset = offsetof(axes_attrs, axes), .required = true}, {0}};

/* *count: -1 unknown, -2 absent. */
static hk_status read_axes(const hk_args *a, int64_t axes[HK_MAX_RANK], int32_t *count)
{
    if (a->node->op->since >= 13) {
        if (!hk_args_present(a, 1)) {
            *count = -2;
            return HK_OK;
        }
        return hk_args_ints(a, 1, "axes", axes, HK_MAX_RANK, count);
    }
    hk_ints list = ((const axes_attrs *)a->node->attrs)->axes;
    if (list.count > HK_MAX_RANK)
        return hk_args_fail(a, "axes has %d entries, expected at most %d", (int)list.count, HK_MAX_RANK);
    *count = list.v ? list.count : -2;
    if (list.count > 0)
        memcpy(axes, list.v, (size_t)list.count * sizeof *axes);
    return HK_OK;
}

static hk_status mark_axes(const hk_args *a, const int64_t *axes, int32_t count, int32_t rank, bool marked[HK_MAX_RANK])
{
    for (int32_t i = 0; i < count; i++) {
        int32_t axis;
        HK_TRY(hk_args_axis(a, axes[i], rank, &axis));
        if (marked[axis])
            return hk_args_fail(a, "axis %d is named twice", (int)axis);
        marked[axis] = true;
    }
    return HK_OK;
}

static hk_status squeeze_shape(const hk_args *a, hk_shape *out)
{
    hk_shape x = hk_args_shape(a, 0);
    int64_t axes[HK_MAX_RANK];
    int32_t count;
    bool marked[HK_MAX_RANK] = {false};
    *out = HK_SHAPE_UNKNOWN;
    HK_TRY(read_axes(a, axes, &count));
    if (x.rank < 0 || count == -1)
        return HK_OK;
    if (count == -2 && !hk_shape_known(&x))
        return HK_OK;
    if (count >= 0)
        HK_TRY(mark_axes(a, axes, count, x.rank, marked));
    hk_shape s = {0};
    for (int32_t d = 0; d < x.rank; d++) {
        bool drop = count == -2 ? x.dim[d] == 1 : marked[d];
        if (drop && x.dim[d] > 1)
            return hk_args_fail(a, "axis %d has %lld elements, expected 1", (int)d, (long long)x.dim[d]);
        if (!drop)
            s.dim[s.rank++] = x.dim[d];
    }
    *out = s;
    return HK_OK;
}

static hk_status squeeze_infer(hk_infer *in)
{
    return infer_by(in, squeeze_shape);
}

static hk_status squeeze_eval(hk_eval *e)
{
    return eval_by(e, squeeze_shape);
}

static const char *const squeeze_cases[] = {
    "f32[1,3,1,5] i64={0,2}", "f32[1,3,1,5]", "f32[1,3,1,5] i64={-2}", "f32[1,1]", "i64[1,4]<5 i64={0}", NULL,
};
static const char *const squeeze_1_cases[] = {"f32[1,3,1,5] ; axes=[0,2]", "f32[1,3,1,5]", NULL};

static hk_status unsqueeze_shape(const hk_args *a, hk_shape *out)
{
    hk_shape x = hk_args_shape(a, 0);
    int64_t axes[HK_MAX_RANK];
    int32_t count;
    bool marked[HK_MAX_RANK] = {false};
    *out = HK_SHAPE_UNKNOWN;
    HK_TRY(read_axes(a, axes, &count));
    if (x.rank < 0 || count < 0)
        return HK_OK;
    int32_t rank = x.rank + count;
    if (rank > HK_MAX_RANK)
        return hk_args_fail(a, "the output would have rank %d, expected at most %d", (int)rank, HK_MAX_RANK);
    HK_TRY(mark_axes(a, axes, count, rank, marked));
    hk_shape s = {.rank = rank};
    for (int32_t d = 0, from = 0; d < rank; d++)
        s.dim[d] = marked[d] ? 1 : x.dim[from++];
    *out = s;
    return HK_OK;
}

static hk_status unsqueeze_infer(hk_infer *in)
{
    return infer_by(in, unsqueeze_shape);
}

static hk_status unsqueeze_eval(hk_eval *e)
{
    return eval_by(e, unsqueeze_shape);
}

static const char *const unsqueeze_cases[] = {
    "f32[3,5] i64={0}",
    "f32[3,5] i64={-1,1}",
    "f32[] i64={0}",
    "f32[3] i64={2,0}",
    "i64[3]<4 i64={1}",
    "f32[3,5] i64=-1",
    NULL,
};
static const char *const unsqueeze_1_cases[] = {"f32[3,5] ; axes=[0,3]", NULL};

/* ---- Identity, and hk.View: elements [offset, offset + count of shape) of a flat value, under a shape */

static hk_status identity_infer(hk_infer *in)
{
    const hk_value *x = in->node->in[0];
    if (x->list)
        return hk_infer_list(in, 0, x->dtype, x->list->item, x->list->element, x->shape.dim[0]);
    return hk_infer_output(in, 0, in->node->in[0]->dtype, &in->node->in[0]->shape);
}

static hk_status identity_eval(hk_eval *e)
{
    if (hk_dtype_is_list(e->in[0]->dtype)) {
        e->out[0] = (hk_tensor *)(uintptr_t)e->in[0];
        return HK_OK;
    }
    hk_shape s = hk_tensor_shape(e->in[0]);
    return hk_eval_reshaped(e, &s);
}

static const char *const identity_cases[] = {"f32[2,3]", "f32[]", "i64[3]<9", "bool[2,2]", "f32[0]", NULL};

typedef struct view_attrs {
    int64_t offset;
    hk_ints shape;
} view_attrs;
static const hk_attr view_attr_list[] = {
    HK_INT_ATTR(view_attrs, offset, 0),
    {.name = "shape", .kind = HK_ATTR_INTS, .offset = offsetof(view_attrs, shape), .required = true},
    {0},
};

static hk_status view_shape(const hk_args *a, hk_shape *out)
{
    const view_attrs *v = a->node->attrs;
    hk_shape x = hk_args_shape(a, 0);
    if (x.rank != 1 || v->shape.count > HK_MAX_RANK)
        return hk_args_fail(a, "expected a flat value and a shape of rank %d at most, found rank %d and %d",
                            HK_MAX_RANK, (int)x.rank, (int)v->shape.count);
    *out = (hk_shape){.rank = v->shape.count};
    for (int32_t i = 0; i < v->shape.count; i++)
        out->dim[i] = v->shape.v[i];
    int64_t count = hk_shape_count(out);
    if (v->offset < 0 || count < 0 || (x.dim[0] >= 0 && v->offset > x.dim[0] - count))
        return hk_args_fail(a, "%lld elements at %lld do not lie inside the value's %lld", (long long)count,
                            (long long)v->offset, (long long)x.dim[0]);
    return HK_OK;
}

static hk_status view_infer(hk_infer *in)
{
    return infer_by(in, view_shape);
}

static hk_status view_eval(hk_eval *e)
{
    hk_args a = hk_eval_args(e);
    hk_shape s;
    HK_TRY(view_shape(&a, &s));
    const hk_tensor *x = e->in[0];
    hk_tensor *y = hk_eval_output(e, 0, x->dtype, &s);
    if (!y)
        return hk_out_of_memory(e->ctx, "a view");
    size_t bytes = hk_dtype_bytes(x->dtype);
    memcpy(y->data, (const char *)x->data + (size_t)((const view_attrs *)e->node->attrs)->offset * bytes,
           (size_t)hk_shape_count(&s) * bytes);
    return HK_OK;
}

static int64_t view_offset(const hk_node *n)
{
    return ((const view_attrs *)n->attrs)->offset;
}

static const char *const view_cases[] = {
    "f32[100] ; offset=7 shape=[3,5] ; nograd",
    "f32[64] ; offset=63 shape=[] ; nograd",
    "i64[9]<5 ; offset=1 shape=[8] ; nograd",
    "f32[8] ; offset=8 shape=[0,2] ; nograd",
    NULL,
};

/* ---- hk.After(x, other): x, for users that shall not run before `other` is there. For what a gradient computes from
 * the forward pass alone, which would else be made early and kept. */

static const char *const after_cases[] = {"f32[2,3] f32[4] ; ; nograd", NULL};

#define VIEW_OP(name, first, last, ins_min, ins_max, hosts, attr_struct, list, fn, case_list)                          \
    {                                                                                                                  \
        .type = name, .since = first, .until = last, .in_min = ins_min, .in_max = ins_max, .out_min = 1, .out_max = 1, \
        .flags = HK_OP_VIEW, .host_inputs = hosts, .attrs_bytes = sizeof(attr_struct), .attrs = list,                  \
        .infer = fn##_infer, .eval = fn##_eval, .backward = view_backward, .cases = case_list                          \
    }

const hk_op hk_ops_shape[] = {
    VIEW_OP("Reshape", 5, 13, 2, 2, 2, reshape_attrs, NULL, reshape, reshape_5_cases),
    VIEW_OP("Reshape", 14, 0, 2, 2, 2, reshape_attrs, reshape_attr_list, reshape, reshape_cases),
    VIEW_OP("Flatten", 1, 0, 1, 1, 0, axis_attrs, flatten_attr_list, flatten, flatten_cases),
    VIEW_OP("Squeeze", 1, 12, 1, 1, 0, axes_attrs, axes_attr_list, squeeze, squeeze_1_cases),
    VIEW_OP("Squeeze", 13, 0, 1, 2, 2, axes_attrs, NULL, squeeze, squeeze_cases),
    VIEW_OP("Unsqueeze", 1, 12, 1, 1, 0, axes_attrs, axes_required_list, unsqueeze, unsqueeze_1_cases),
    VIEW_OP("Unsqueeze", 13, 0, 2, 2, 2, axes_attrs, NULL, unsqueeze, unsqueeze_cases),
    {.type = "Identity",
     .since = 1,
     .in_min = 1,
     .in_max = 1,
     .out_min = 1,
     .out_max = 1,
     .flags = HK_OP_VIEW | HK_OP_LIST,
     .infer = identity_infer,
     .eval = identity_eval,
     .backward = view_backward,
     .cases = identity_cases},
    {.type = "hk.View",
     .since = 1,
     .in_min = 1,
     .in_max = 1,
     .out_min = 1,
     .out_max = 1,
     .flags = HK_OP_VIEW,
     .attrs_bytes = sizeof(view_attrs),
     .attrs = view_attr_list,
     .infer = view_infer,
     .eval = view_eval,
     .view_offset = view_offset,
     .cases = view_cases},
    {.type = HK_AFTER,
     .since = 1,
     .in_min = 2,
     .in_max = 2,
     .out_min = 1,
     .out_max = 1,
     .flags = HK_OP_VIEW,
     .infer = identity_infer,
     .eval = identity_eval,
     .cases = after_cases},
    {0},
};
