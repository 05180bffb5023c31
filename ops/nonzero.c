/*
 * Operators that select by value or by position: NonZero and hk.Unique, whose output size depends on data (they run on
 * the host), Compress and Unique, which gather what these found, and OneHot, Trilu and EyeLike.
 */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "kernels.h"
#include "ops/support/build.h"
#include "ops/support/move.h"
#include "ops/support/move_args.h"
#include "shaders/gather_one_hot.push.h"
#include "shaders/move_trilu.push.h"

/* ---- NonZero: coordinates of the elements that are not 0, [rank, count]; none for a scalar, which still has a count
 */

static hk_status nonzero_infer(hk_infer *in)
{
    hk_shape y = {.rank = 2, .dim = {in->node->in[0]->shape.rank, -1}};
    return hk_infer_output(in, 0, HK_INT64, &y);
}

static hk_status nonzero_eval(hk_eval *e)
{
    const hk_tensor *x = e->in[0];
    int64_t count = hk_tensor_count(x), found = 0;
    for (int64_t i = 0; i < count; i++)
        found += hk_get_double(x, i) != 0.0;
    hk_tensor *y = hk_eval_output(e, 0, HK_INT64, &(hk_shape){.rank = 2, .dim = {x->rank, found}});
    if (!y)
        return hk_out_of_memory(e->ctx, "coordinates");
    int64_t c[HK_MAX_RANK] = {0}, at = 0;
    for (int64_t i = 0; i < count; i++) {
        if (hk_get_double(x, i) != 0.0) {
            for (int32_t d = 0; d < x->rank; d++)
                hk_set_int(y, d * found + at, c[d]);
            at++;
        }
        for (int32_t d = x->rank - 1; d >= 0 && ++c[d] == x->shape[d]; d--)
            c[d] = 0;
    }
    return HK_OK;
}

static const char *const nonzero_cases[] = {
    "bool[2,3,4] ; ; nodevice", "f32[5] ; ; nodevice",    "i64[3,4]<2 ; ; nodevice",
    "f32[] ; ; nodevice",       "bool[0,3] ; ; nodevice", NULL,
};

/* ---- Compress: slices along axis (elements of the flattened input without one) where a condition holds */

typedef struct compress_attrs {
    int64_t axis;
} compress_attrs;
enum { NO_AXIS = INT32_MIN };
static const hk_attr compress_attr_list[] = {HK_INT_ATTR(compress_attrs, axis, NO_AXIS), {0}};

/* The input as [outer, extent, inner] around an axis, or [1, count, 1]. */
typedef struct slices {
    int64_t outer, extent, inner;
    int32_t axis; /* -1: flattened */
} slices;

static hk_status read_slices(const hk_args *a, int64_t axis, slices *s)
{
    hk_shape x = hk_args_shape(a, 0);
    *s = (slices){.outer = 1, .extent = hk_shape_count(&x), .inner = 1, .axis = -1};
    if (axis == NO_AXIS || x.rank < 0)
        return HK_OK;
    HK_TRY(hk_args_axis(a, axis, x.rank, &s->axis));
    s->outer = hk_shape_span(&x, 0, s->axis);
    s->extent = x.dim[s->axis];
    s->inner = hk_shape_span(&x, s->axis + 1, x.rank);
    return HK_OK;
}

/* The input's shape with `extent` slices. */
static hk_shape sliced_shape(const hk_shape *x, const slices *s, bool has_axis, int64_t extent)
{
    hk_shape y = *x;
    if (!has_axis)
        return (hk_shape){.rank = 1, .dim = {extent}};
    if (s->axis >= 0)
        y.dim[s->axis] = extent;
    return y;
}

static hk_status compress_infer(hk_infer *in)
{
    hk_args a = hk_infer_args(in);
    int64_t axis = ((const compress_attrs *)in->node->attrs)->axis;
    slices s;
    if (hk_args_dtype(&a, 1) != HK_BOOL || hk_args_shape(&a, 1).rank > 1)
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected the condition as a list of bool");
    HK_TRY(read_slices(&a, axis, &s));
    hk_shape y = sliced_shape(&in->node->in[0]->shape, &s, axis != NO_AXIS, -1);
    return hk_infer_output(in, 0, in->node->in[0]->dtype, &y);
}

/* Copies slice `from` of x to slice `to` of y, which has y_extent of them. */
static void copy_slice(const hk_tensor *x, const slices *s, int64_t from, hk_tensor *y, int64_t y_extent, int64_t to)
{
    hk_move m = {.from_offset = from * s->inner, .to_offset = to * s->inner};
    hk_move_add(&m, s->outer, s->extent * s->inner, y_extent * s->inner);
    hk_move_add(&m, s->inner, 1, 1);
    hk_host_move(&m, x, y);
}

static hk_status compress_eval(hk_eval *e)
{
    hk_args a = hk_eval_args(e);
    int64_t axis = ((const compress_attrs *)e->node->attrs)->axis, kept = 0, at = 0;
    slices s;
    HK_TRY(read_slices(&a, axis, &s));
    hk_shape x = hk_tensor_shape(e->in[0]);
    int64_t length = HK_MIN(hk_tensor_count(e->in[1]), s.extent);
    for (int64_t i = 0; i < length; i++)
        kept += hk_get_int(e->in[1], i);
    hk_shape shape = sliced_shape(&x, &s, axis != NO_AXIS, kept);
    hk_tensor *y = hk_eval_output(e, 0, e->in[0]->dtype, &shape);
    if (!y)
        return hk_out_of_memory(e->ctx, "a compressed tensor");
    for (int64_t i = 0; i < length; i++)
        if (hk_get_int(e->in[1], i))
            copy_slice(e->in[0], &s, i, y, kept, at++);
    return HK_OK;
}

/* Where the condition holds, and a Gather of that: the host sees the condition alone. */
static hk_status compress_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    hk_args a = hk_node_args(g->ctx, n);
    int64_t axis = ((const compress_attrs *)n->attrs)->axis;
    slices s;
    HK_TRY(read_slices(&a, axis, &s));
    hk_value *x = n->in[0], *condition = n->in[1], *where = NULL;
    int64_t length = HK_MIN(hk_shape_count(&condition->shape), s.extent);
    if (axis == NO_AXIS)
        HK_TRY(hk_build_reshape(g, x, &(hk_shape){.rank = 1, .dim = {s.extent}}, &x));
    HK_TRY(
        hk_build_reshape(g, condition, &(hk_shape){.rank = 1, .dim = {hk_shape_count(&condition->shape)}}, &condition));
    hk_value *range[] = {condition, hk_graph_ints(g, &(int64_t){0}, 1), hk_graph_ints(g, &length, 1)};
    if (!range[1] || !range[2])
        return HK_STATUS_OUT_OF_MEMORY;
    HK_TRY(hk_build(g, "Slice", NULL, range, 3, &condition, 1));
    HK_TRY(hk_build_unary(g, "NonZero", condition, &where));
    HK_TRY(hk_build_binary(g, "Squeeze", where, range[1], &where));
    const hk_attr_value attrs[] = {HK_SET_INT("axis", HK_MAX(s.axis, 0)), {0}};
    return hk_build(g, "Gather", attrs, (hk_value *[]){x, where}, 2, out, 1);
}

static const char *const compress_cases[] = {
    "f32[3,2] bool={0,1,1} ; axis=0 ; nograd nodevice",
    "f32[3,2] bool={0,1} ; axis=1 ; nograd nodevice",
    "f32[3,2] bool={0,1,0,0,1} ; ; nograd nodevice",
    "i64[3,2]<9 bool[3] ; axis=-2 ; nodevice",
    NULL,
};

/* ---- Unique: distinct elements, or slices along axis, sorted or in order of first occurrence */

typedef struct unique_attrs {
    int64_t axis, sorted;
} unique_attrs;
static const hk_attr unique_attr_list[] = {
    HK_INT_ATTR(unique_attrs, axis, NO_AXIS), HK_INT_ATTR(unique_attrs, sorted, 1), {0}};

static hk_status unique_infer(hk_infer *in)
{
    hk_args a = hk_infer_args(in);
    int64_t axis = ((const unique_attrs *)in->node->attrs)->axis;
    slices s;
    HK_TRY(read_slices(&a, axis, &s));
    hk_shape list = {.rank = 1, .dim = {-1}}, inverse = {.rank = 1, .dim = {s.extent}};
    hk_shape y = sliced_shape(&in->node->in[0]->shape, &s, axis != NO_AXIS, -1);
    HK_TRY(hk_infer_output(in, 0, in->node->in[0]->dtype, &y));
    HK_TRY(hk_infer_output(in, 1, HK_INT64, &list));
    HK_TRY(hk_infer_output(in, 2, HK_INT64, &inverse));
    return hk_infer_output(in, 3, HK_INT64, &list);
}

static int compare_elements(const hk_tensor *x, int64_t i, int64_t k)
{
    if (hk_dtype_is_float(x->dtype)) {
        double a = hk_get_double(x, i), b = hk_get_double(x, k);
        return isnan(a) || isnan(b) ? isnan(a) - isnan(b) : (a > b) - (a < b);
    }
    if (x->dtype == HK_UINT64) {
        uint64_t a = (uint64_t)hk_get_int(x, i), b = (uint64_t)hk_get_int(x, k);
        return (a > b) - (a < b);
    }
    int64_t a = hk_get_int(x, i), b = hk_get_int(x, k);
    return (a > b) - (a < b);
}

static int compare_slices(const hk_tensor *x, const slices *s, int64_t a, int64_t b)
{
    for (int64_t o = 0; o < s->outer; o++)
        for (int64_t j = 0; j < s->inner; j++) {
            int64_t row = o * s->extent;
            int c = compare_elements(x, (row + a) * s->inner + j, (row + b) * s->inner + j);
            if (c)
                return c;
        }
    return 0;
}

/* Merge sort, stable, so that the first of equal slices is the one that occurs first. order and spare: extent entries.
 */
static int64_t *sort_slices(const hk_tensor *x, const slices *s, int64_t *order, int64_t *spare)
{
    for (int64_t i = 0; i < s->extent; i++)
        order[i] = i;
    for (int64_t width = 1; width < s->extent; width *= 2) {
        for (int64_t from = 0; from < s->extent; from += 2 * width) {
            int64_t middle = HK_MIN(from + width, s->extent), end = HK_MIN(from + 2 * width, s->extent);
            int64_t a = from, b = middle;
            for (int64_t k = from; k < end; k++) {
                bool left = a < middle && (b == end || compare_slices(x, s, order[a], order[b]) <= 0);
                spare[k] = left ? order[a++] : order[b++];
            }
        }
        int64_t *t = order;
        order = spare;
        spare = t;
    }
    return order;
}

typedef struct groups { /* equal slices, in output order */
    int64_t count;
    int64_t *first, *size; /* [count]: slice that occurs first, and how many there are */
    int64_t *of;           /* [extent]: group of each slice */
} groups;

static bool find_groups(hk_eval *e, const slices *s, bool sorted, groups *g)
{
    const hk_tensor *x = e->in[0];
    size_t n = (size_t)s->extent + 1;
    int64_t *lists = hk_arena_array(e->arena, n, 6 * sizeof *lists);
    if (!lists)
        return false;
    int64_t *order = sort_slices(x, s, lists, lists + n), *rank = lists + 2 * n;
    *g = (groups){.first = lists + 3 * n, .size = lists + 4 * n, .of = lists + 5 * n};
    for (int64_t k = 0; k < s->extent; k++) {
        if (k == 0 || compare_slices(x, s, order[k - 1], order[k]) != 0)
            g->first[g->count++] = order[k];
        g->size[g->count - 1]++;
        g->of[order[k]] = g->count - 1;
    }
    if (sorted)
        return true;
    /* Number groups anew as their first slices come by; first and size follow through the sorted lists' copies. */
    int64_t next = 0;
    for (int64_t i = 0; i < s->extent; i++)
        if (g->first[g->of[i]] == i)
            rank[g->of[i]] = next++;
    int64_t *size = order == lists ? lists + n : lists; /* the half of the sort's lists that is free */
    memcpy(size, g->size, (size_t)g->count * sizeof *size);
    for (int64_t k = 0; k < g->count; k++)
        order[k] = g->first[k];
    for (int64_t k = 0; k < g->count; k++) {
        g->first[rank[k]] = order[k];
        g->size[rank[k]] = size[k];
    }
    for (int64_t i = 0; i < s->extent; i++)
        g->of[i] = rank[g->of[i]];
    return true;
}

static hk_status list_output(hk_eval *e, int32_t i, const int64_t *v, int64_t count)
{
    if (!hk_out(e->node, i))
        return HK_OK;
    hk_tensor *y = hk_eval_output(e, i, HK_INT64, &(hk_shape){.rank = 1, .dim = {count}});
    if (!y)
        return hk_out_of_memory(e->ctx, "unique elements");
    for (int64_t k = 0; k < count; k++)
        hk_set_int(y, k, v[k]);
    return HK_OK;
}

static hk_status unique_eval(hk_eval *e)
{
    const unique_attrs *u = e->node->attrs;
    hk_args a = hk_eval_args(e);
    slices s;
    groups g;
    HK_TRY(read_slices(&a, u->axis, &s));
    if (!find_groups(e, &s, u->sorted != 0, &g))
        return hk_out_of_memory(e->ctx, "unique elements");
    hk_shape x = hk_tensor_shape(e->in[0]), shape = sliced_shape(&x, &s, u->axis != NO_AXIS, g.count);
    if (hk_out(e->node, 0)) {
        hk_tensor *y = hk_eval_output(e, 0, e->in[0]->dtype, &shape);
        if (!y)
            return hk_out_of_memory(e->ctx, "unique elements");
        for (int64_t k = 0; k < g.count; k++)
            copy_slice(e->in[0], &s, g.first[k], y, g.count, k);
    }
    HK_TRY(list_output(e, 1, g.first, g.count));
    HK_TRY(list_output(e, 2, g.of, s.extent));
    return list_output(e, 3, g.size, g.count);
}

/* The host finds the places (hk.Unique, whose output 0 nobody asks for); the elements stay on the device. */
static hk_status unique_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    const unique_attrs *attrs = n->attrs;
    hk_args a = hk_node_args(g->ctx, n);
    hk_value *x = n->in[0], *found[4] = {NULL};
    slices s;
    HK_TRY(read_slices(&a, attrs->axis, &s));
    const hk_attr_value list[] = {HK_SET_INT("axis", attrs->axis), HK_SET_INT("sorted", attrs->sorted), {0}};
    HK_TRY(hk_build(g, "hk.Unique", list, &x, 1, found, HK_MAX(n->out_count, 2)));
    hk_node *places = found[0]->producer;
    for (int32_t i = 0; i < places->out_count; i++) {
        bool wanted = hk_out(n, i) || (i == 1 && n->out[0]);
        if (i > 0 && wanted)
            continue;
        found[i]->producer = NULL;
        places->out[i] = NULL;
    }
    for (int32_t i = 1; i < n->out_count; i++)
        out[i] = found[i];
    if (!n->out[0])
        return HK_OK;
    if (attrs->axis == NO_AXIS)
        HK_TRY(hk_build_reshape(g, x, &(hk_shape){.rank = 1, .dim = {s.extent}}, &x));
    const hk_attr_value axis[] = {HK_SET_INT("axis", HK_MAX(s.axis, 0)), {0}};
    return hk_build(g, "Gather", axis, (hk_value *[]){x, found[1]}, 2, out, 1);
}

static const char *const unique_cases[] = {
    "i64[9]<4 ; ; out=4 nograd nodevice",   "f32={2.0,1.0,1.0,3.0,4.0,3.0} ; sorted=0 ; out=4 nograd nodevice",
    "i64[6,2]<2 ; axis=0 ; out=4 nodevice", "i64[2,6,2]<2 ; axis=1 sorted=0 ; out=3 nodevice",
    "f32[0] ; ; out=4 nograd nodevice",     NULL,
};

/* ---- OneHot: values[1] where a position along a new axis equals the index, values[0] elsewhere */

typedef struct one_hot_attrs {
    int64_t axis;
} one_hot_attrs;
static const hk_attr one_hot_attr_list[] = {HK_INT_ATTR(one_hot_attrs, axis, -1), {0}};

/* *depth is -1 while unknown; *axis is -1 while the indices' rank is unknown. */
static hk_status one_hot_shape(const hk_args *a, hk_shape *y, int32_t *axis, int64_t *depth)
{
    hk_shape index = hk_args_shape(a, 0), values = hk_args_shape(a, 2), size = hk_args_shape(a, 1);
    const hk_tensor *known = hk_args_known(a, 1);
    int64_t given = ((const one_hot_attrs *)a->node->attrs)->axis;
    *y = HK_SHAPE_UNKNOWN;
    *axis = -1;
    if (hk_shape_known(&values) && (values.rank != 1 || values.dim[0] != 2))
        return hk_args_fail(a, "expected two values, for off and on");
    if (hk_shape_known(&size) && hk_shape_count(&size) != 1)
        return hk_args_fail(a, "depth has %lld elements, expected 1", (long long)hk_shape_count(&size));
    *depth = known ? (int64_t)hk_get_double(known, 0) : -1;
    if (known && (*depth < 0 || *depth > INT32_MAX))
        return hk_args_fail(a, "depth is %lld, expected 0 to 2^31 - 1", (long long)*depth);
    if (index.rank < 0)
        return HK_OK;
    if (index.rank == HK_MAX_RANK)
        return hk_args_fail(a, "indices of rank %d, expected %d at most", (int)index.rank, HK_MAX_RANK - 1);
    HK_TRY(hk_args_axis(a, given, index.rank + 1, axis));
    y->rank = index.rank + 1;
    for (int32_t d = 0; d < y->rank; d++)
        y->dim[d] = d == *axis ? *depth : index.dim[d - (d > *axis)];
    return HK_OK;
}

static hk_status one_hot_infer(hk_infer *in)
{
    hk_args a = hk_infer_args(in);
    hk_shape y;
    int32_t axis;
    int64_t depth;
    HK_TRY(one_hot_shape(&a, &y, &axis, &depth));
    return hk_infer_output(in, 0, in->node->in[2]->dtype, &y);
}

static hk_status one_hot_eval(hk_eval *e)
{
    hk_args a = hk_eval_args(e);
    hk_shape s;
    int32_t axis;
    int64_t depth;
    HK_TRY(one_hot_shape(&a, &s, &axis, &depth));
    hk_tensor *y = hk_eval_output(e, 0, e->in[2]->dtype, &s);
    if (!y)
        return hk_out_of_memory(e->ctx, "a one-hot tensor");
    int64_t inner = hk_shape_span(&s, axis + 1, s.rank), count = hk_tensor_count(y),
            entries = hk_tensor_count(e->in[0]);
    size_t bytes = hk_dtype_bytes(y->dtype);
    for (int64_t i = 0; i < count; i++)
        memcpy((char *)y->data + (size_t)i * bytes, e->in[2]->data, bytes);
    for (int64_t i = 0; i < entries; i++) {
        double p = trunc(hk_get_double(e->in[0], i));
        p = p < 0 ? p + (double)depth : p;
        if (!(p >= 0 && p < (double)depth))
            continue;
        int64_t at = (i / inner * depth + (int64_t)p) * inner + i % inner;
        memcpy((char *)y->data + (size_t)at * bytes, (const char *)e->in[2]->data + bytes, bytes);
    }
    return HK_OK;
}

/* The kernel's number for an index type; -1: none. */
static int32_t index_type(hk_dtype storage)
{
    if (storage == HK_INT64)
        return 1;
    if (storage == HK_FLOAT32)
        return 2;
    return hk_dtype_is_integer(storage) && hk_dtype_device_bytes(storage) == 4 ? 0 : -1;
}

static hk_status one_hot_lower(hk_lower *l)
{
    static const hk_unit_kernels kernels = {
        {NULL, NULL, &hk_kernel_gather_one_hot_4, &hk_kernel_gather_one_hot_8, NULL}};
    const hk_node *n = l->node;
    hk_args a = hk_node_args(l->ctx, n);
    hk_shape s;
    int32_t axis, type = index_type(hk_value_storage(n->in[0]));
    int64_t depth;
    HK_TRY(one_hot_shape(&a, &s, &axis, &depth));
    int64_t count = hk_shape_count(&s);
    if (count <= 0)
        return HK_OK;
    if (type < 0)
        return hk_fail(l->ctx, HK_STATUS_UNSUPPORTED,
                       "node '%s' (OneHot): indices of %s, expected int32, int64 or float32 on the device", n->name,
                       hk_dtype_name(n->in[0]->dtype));
    const hk_kernel *kernel = hk_unit_kernel(l, &kernels, (uint32_t)hk_dtype_device_bytes(hk_value_storage(n->out[0])));
    if (!kernel)
        return HK_STATUS_UNSUPPORTED;
    hk_divisor inner = hk_divisor_of(hk_shape_span(&s, axis + 1, s.rank)), extent = hk_divisor_of(depth);
    struct gather_one_hot_push p = {
        .count = (uint32_t)count,
        .inner = inner.extent,
        .inner_multiplier = inner.multiplier,
        .inner_shift = inner.shift,
        .depth = extent.extent,
        .depth_multiplier = extent.multiplier,
        .depth_shift = extent.shift,
    };
    bool words = hk_dtype_device_bytes(hk_value_storage(n->out[0])) == 4; /* four to an invocation */
    hk_record *r = hk_emit(l, kernel, "one hot");
    hk_push(r, &p, sizeof p);
    hk_spec(r, 3, (uint32_t)type);
    hk_use(r, n->in[0], HK_READ, offsetof(struct gather_one_hot_push, indices));
    hk_use(r, n->in[2], HK_READ, offsetof(struct gather_one_hot_push, values));
    hk_use(r, n->out[0], HK_WRITE, offsetof(struct gather_one_hot_push, y));
    hk_move_grid(l, r, words ? (count + 3) / 4 : count);
    return HK_OK;
}

/* values[on] takes the sum of dY at its places. */
static hk_status one_hot_sum(hk_graph *g, const hk_node *n, hk_value *dy, bool on, hk_value **sum)
{
    const hk_attr_value axis[] = {HK_SET_INT("axis", ((const one_hot_attrs *)n->attrs)->axis), {0}};
    const hk_attr_value all[] = {HK_SET_INT("keepdims", 0), {0}};
    hk_tensor *ends = hk_tensor_new(g->arena, dy->dtype, &(hk_shape){.rank = 1, .dim = {2}});
    hk_value *off_on = NULL, *there;
    if (ends) {
        hk_set_double(ends, on, 1.0);
        off_on = hk_graph_constant(g, "off_on", ends);
    }
    if (!off_on)
        return hk_out_of_memory(g->ctx, "a gradient");
    HK_TRY(hk_build(g, "OneHot", axis, (hk_value *[]){n->in[0], n->in[1], off_on}, 3, &there, 1));
    HK_TRY(hk_build_binary(g, "Mul", dy, there, sum));
    HK_TRY(hk_build(g, "ReduceSum", all, sum, 1, sum, 1));
    return hk_build_reshape(g, *sum, &(hk_shape){.rank = 1, .dim = {1}}, sum);
}

static hk_status one_hot_backward(hk_gradient *g, hk_node *n)
{
    const hk_attr_value axis[] = {HK_SET_INT("axis", 0), {0}};
    hk_graph *graph = hk_gradient_graph(g);
    hk_value *dy = hk_gradient_of(g, n->out[0]), *sums[2], *dvalues;
    if (!dy || !hk_gradient_wanted(g, n->in[2])) /* indices have none */
        return HK_OK;
    for (int on = 0; on < 2; on++)
        HK_TRY(one_hot_sum(graph, n, dy, on, &sums[on]));
    HK_TRY(hk_build(graph, "Concat", axis, sums, 2, &dvalues, 1));
    return hk_gradient_add(g, n->in[2], dvalues);
}

static const char *const one_hot_cases[] = {
    "i64[3]<5 i64=5 f32[2]",
    "i64[3,5]<-4:9 i64=7 f32[2] ; axis=1",
    "i32[7,1]<3 i64=3 f32[2] ; axis=0",
    "i64[1,3,1]<5 i64=5 f32[2] ; axis=-2",
    "i64[9]<1 i64=1 f32[2]",
    "i64[5]<-4:9 i64=7 f16={0.0,1.0} ; ; nograd",
    "i64[5]<-4:9 i64=6 f32={0.0,1.0} ; ; nograd",
    "i64[2,3]<7 i64={7} f32={2.0,5.0} ; axis=1 ; nograd",
    "i32[4]<5 f32=5.0 i64={3,-1} ; axis=0 ; nograd",
    "f32[3,2] i64=4 i32={0,1} ; axis=-2 ; nograd",
    "i64[]<3 i64=3 bool={0,1} ; ; nograd",
    "i64[70,40]<30 i64=30 f32={0.0,1.0} ; ; nograd",
    "i64[4]<3 i64=0 f32={0.0,1.0} ; ; nograd",
    NULL,
};

/* ---- Trilu: the upper or lower triangle of matrices, from diagonal k on */

typedef struct trilu_attrs {
    int64_t upper;
} trilu_attrs;
static const hk_attr trilu_attr_list[] = {HK_INT_ATTR(trilu_attrs, upper, 1), {0}};

static hk_status trilu_infer(hk_infer *in)
{
    const hk_shape *x = &in->node->in[0]->shape;
    if (x->rank >= 0 && x->rank < 2)
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected matrices (rank 2 or more), found rank %d", (int)x->rank);
    return hk_infer_output(in, 0, in->node->in[0]->dtype, x);
}

/* Far outside any matrix is as good as farther. */
static hk_status trilu_diagonal(const hk_args *a, int64_t *k)
{
    int32_t count;
    *k = 0;
    HK_TRY(hk_args_ints(a, 1, "k", k, 1, &count));
    if (count < 0)
        return hk_args_fail(a, "k must be known when planning");
    *k = HK_MIN(HK_MAX(*k, -(int64_t)INT32_MAX), (int64_t)INT32_MAX);
    return HK_OK;
}

static hk_status trilu_eval(hk_eval *e)
{
    hk_args a = hk_eval_args(e);
    const hk_tensor *x = e->in[0];
    hk_shape s = hk_tensor_shape(x);
    int64_t k;
    HK_TRY(trilu_diagonal(&a, &k));
    hk_tensor *y = hk_eval_output(e, 0, x->dtype, &s);
    if (!y)
        return hk_out_of_memory(e->ctx, "a triangle");
    bool upper = ((const trilu_attrs *)e->node->attrs)->upper != 0;
    int64_t count = hk_tensor_count(x), rows = s.dim[s.rank - 2], columns = s.dim[s.rank - 1];
    size_t bytes = hk_dtype_bytes(x->dtype);
    for (int64_t i = 0; i < count; i++) {
        int64_t distance = i % columns - i / columns % rows;
        if (upper ? distance >= k : distance <= k)
            memcpy((char *)y->data + (size_t)i * bytes, (const char *)x->data + (size_t)i * bytes, bytes);
    }
    return HK_OK;
}

static hk_status trilu_lower(hk_lower *l)
{
    static const hk_unit_kernels kernels = {
        {NULL, &hk_kernel_move_trilu_2, &hk_kernel_move_trilu_4, &hk_kernel_move_trilu_8, NULL}};
    const hk_node *n = l->node;
    hk_args a = hk_node_args(l->ctx, n);
    const hk_shape *s = &n->out[0]->shape;
    int64_t k, count = hk_shape_count(s);
    HK_TRY(trilu_diagonal(&a, &k));
    const hk_kernel *kernel = hk_unit_kernel(l, &kernels, (uint32_t)hk_dtype_device_bytes(hk_value_storage(n->out[0])));
    if (!kernel)
        return HK_STATUS_UNSUPPORTED;
    if (count <= 0)
        return HK_OK;
    hk_divisor columns = hk_divisor_of(s->dim[s->rank - 1]), rows = hk_divisor_of(s->dim[s->rank - 2]);
    struct move_trilu_push p = {
        .count = (uint32_t)count,
        .columns = columns.extent,
        .columns_multiplier = columns.multiplier,
        .columns_shift = columns.shift,
        .rows = rows.extent,
        .rows_multiplier = rows.multiplier,
        .rows_shift = rows.shift,
        .k = (int32_t)k,
    };
    bool words = hk_dtype_device_bytes(hk_value_storage(n->out[0])) == 4; /* four to an invocation */
    hk_record *r = hk_emit(l, kernel, "triangle");
    hk_push(r, &p, sizeof p);
    hk_spec(r, 3, ((const trilu_attrs *)n->attrs)->upper != 0);
    hk_spec(r, 4, hk_value_alignment(n->in[0]) == 16);
    hk_use(r, n->in[0], HK_READ, offsetof(struct move_trilu_push, x));
    hk_use(r, n->out[0], HK_WRITE, offsetof(struct move_trilu_push, y));
    hk_move_grid(l, r, words ? (count + 3) / 4 : count);
    return HK_OK;
}

static hk_status trilu_backward(hk_gradient *g, hk_node *n)
{
    hk_value *x = n->in[0], *in[2] = {hk_gradient_of(g, n->out[0]), hk_in(n, 1)}, *dx;
    if (!hk_gradient_wanted(g, x) || !in[0])
        return HK_OK;
    const hk_attr_value attrs[] = {HK_SET_INT("upper", ((const trilu_attrs *)n->attrs)->upper), {0}};
    HK_TRY(hk_build(hk_gradient_graph(g), "Trilu", attrs, in, in[1] ? 2 : 1, &dx, 1));
    return hk_gradient_add(g, x, dx);
}

static const char *const trilu_cases[] = {
    "f16[3,5] ; ; nograd",
    "f32[4,5]",
    "f32[4,5] ; upper=0",
    "f32[2,3,5] i64=1",
    "f32[2,5,3] i64=-2 ; upper=0",
    "f32[4,5] i64=9",
    "f32[4,5] i64=-9 ; upper=0",
    "i64[3,3]<9 ; ; nograd",
    "bool[3,4] i64={1} ; upper=0 ; nograd",
    "f32[0,3]",
    "f32[3,200,170] i64=-3 ; ; nograd",
    NULL,
};

/* ---- EyeLike: ones on diagonal k of a matrix of the input's shape */

typedef struct eye_attrs {
    int64_t dtype, k;
} eye_attrs;
static const hk_attr eye_attr_list[] = {HK_INT_ATTR(eye_attrs, dtype, 0), HK_INT_ATTR(eye_attrs, k, 0), {0}};

static hk_dtype eye_dtype(const hk_node *n, hk_dtype input)
{
    const eye_attrs *y = n->attrs;
    return y->dtype ? (hk_dtype)y->dtype : input;
}

static hk_status eye_infer(hk_infer *in)
{
    const hk_value *x = in->node->in[0];
    hk_dtype t = eye_dtype(in->node, x->dtype);
    if (x->shape.rank >= 0 && x->shape.rank != 2)
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected a matrix, found rank %d", (int)x->shape.rank);
    if (hk_dtype_bytes(t) == 0)
        return hk_infer_fail(in, HK_STATUS_UNSUPPORTED, "dtype %d is none that is supported", (int)t);
    return hk_infer_output(in, 0, t, &x->shape);
}

static void eye_fill(hk_tensor *y, int64_t k)
{
    for (int64_t row = 0; row < y->shape[0]; row++)
        if (k >= -row && k < y->shape[1] - row)
            hk_set_int(y, row * y->shape[1] + row + k, 1);
}

static hk_status eye_eval(hk_eval *e)
{
    hk_shape s = hk_tensor_shape(e->in[0]);
    hk_tensor *y = hk_eval_output(e, 0, eye_dtype(e->node, e->in[0]->dtype), &s);
    if (!y)
        return hk_out_of_memory(e->ctx, "an identity matrix");
    eye_fill(y, ((const eye_attrs *)e->node->attrs)->k);
    return HK_OK;
}

/* The contents depend on the shape alone. */
static hk_status eye_lower(hk_lower *l)
{
    hk_value *y = l->node->out[0];
    hk_tensor *t = hk_tensor_new(l->arena, y->dtype, &y->shape);
    if (!t)
        return hk_out_of_memory(l->ctx, "an identity matrix");
    eye_fill(t, ((const eye_attrs *)l->node->attrs)->k);
    return hk_emit_literal(l, t, y);
}

/* Of x only the shape is read. */
static hk_status eye_backward(hk_gradient *g, hk_node *n)
{
    (void)g;
    (void)n;
    return HK_OK;
}

static const char *const eye_cases[] = {
    "f32[4,5]",
    "f32[1,3] ; k=1",
    "f32[7,7]",
    "f32[5,1] ; k=-2",
    "f32[3,2]",
    "i64[3,3]<5 ; k=1 ; nograd",
    "f32[4,3] ; dtype=7 k=-2 ; nograd",
    "f32[2,2] ; k=9 ; nograd",
    "f32[2,3] ; dtype=9 ; nograd",
    "f32[0,3] ; ; nograd",
    NULL,
};

#define HOST_OP(name, first, ins, outs, attr_bytes, list, fn, case_list)                                               \
    {                                                                                                                  \
        .type = name, .since = first, .in_min = ins, .in_max = ins, .out_min = 1, .out_max = outs,                     \
        .flags = HK_OP_HOST, .attrs_bytes = attr_bytes, .attrs = list, .infer = fn##_infer, .eval = fn##_eval,         \
        .cases = case_list                                                                                             \
    }

const hk_op hk_ops_nonzero[] = {
    HOST_OP("NonZero", 9, 1, 1, 0, NULL, nonzero, nonzero_cases),
    {.type = "Compress",
     .since = 9,
     .in_min = 2,
     .in_max = 2,
     .out_min = 1,
     .out_max = 1,
     .attrs_bytes = sizeof(compress_attrs),
     .attrs = compress_attr_list,
     .infer = compress_infer,
     .eval = compress_eval,
     .expand = compress_expand,
     .cases = compress_cases},
    {.type = "Unique",
     .since = 11,
     .in_min = 1,
     .in_max = 1,
     .out_min = 1,
     .out_max = 4,
     .attrs_bytes = sizeof(unique_attrs),
     .attrs = unique_attr_list,
     .infer = unique_infer,
     .eval = unique_eval,
     .expand = unique_expand,
     .cases = unique_cases},
    HOST_OP("hk.Unique", 1, 1, 4, sizeof(unique_attrs), unique_attr_list, unique, unique_cases),
    {.type = "OneHot",
     .since = 9,
     .in_min = 3,
     .in_max = 3,
     .out_min = 1,
     .out_max = 1,
     .host_inputs = 2,
     .attrs_bytes = sizeof(one_hot_attrs),
     .attrs = one_hot_attr_list,
     .infer = one_hot_infer,
     .eval = one_hot_eval,
     .lower = one_hot_lower,
     .backward = one_hot_backward,
     .cases = one_hot_cases},
    {.type = "Trilu",
     .since = 14,
     .in_min = 1,
     .in_max = 2,
     .out_min = 1,
     .out_max = 1,
     .flags = HK_OP_ANY_TYPE,
     .host_inputs = 2,
     .attrs_bytes = sizeof(trilu_attrs),
     .attrs = trilu_attr_list,
     .infer = trilu_infer,
     .eval = trilu_eval,
     .lower = trilu_lower,
     .backward = trilu_backward,
     .cases = trilu_cases},
    {.type = "EyeLike",
     .since = 9,
     .in_min = 1,
     .in_max = 1,
     .out_min = 1,
     .out_max = 1,
     .attrs_bytes = sizeof(eye_attrs),
     .attrs = eye_attr_list,
     .infer = eye_infer,
     .eval = eye_eval,
     .lower = eye_lower,
     .backward = eye_backward,
     .cases = eye_cases},
    {0},
};
