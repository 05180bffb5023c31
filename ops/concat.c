/* Concat, Split, and hk.Pack, which lays tensors into one flat value. */
#include <stddef.h>
#include <string.h>

#include "kernels.h"
#include "ops/support/move.h"
#include "ops/support/move_args.h"
#include "shaders/move_concat.push.h"
#include "shaders/move_gaps.push.h"

enum { MOST_PARTS = 8, SPEC_SPLIT = 3, PLACE_BYTES = 16 /* see move.h */ };

/* ---- parts side by side in rows of a whole */

typedef struct part {
    hk_value *value;
    int64_t begin, span; /* elements of a row */
} part;

/* At most eight parts that lie side by side. */
static hk_status emit_run(hk_lower *l, hk_value *whole, int64_t rows, int64_t row, const part *parts, int32_t count,
                          bool split)
{
    static const hk_unit_kernels kernels = {{NULL, &hk_kernel_move_concat_2, &hk_kernel_move_concat_4,
                                             &hk_kernel_move_concat_8, &hk_kernel_move_concat_16}};
    int64_t n[2 * MOST_PARTS + 1] = {row};
    uint32_t unit = PLACE_BYTES;
    for (int32_t k = 0; k < count; k++) {
        n[1 + 2 * k] = parts[k].begin;
        n[2 + 2 * k] = parts[k].span;
    }
    for (int32_t k = 0; k < count; k++)
        unit = HK_MIN(unit, hk_move_unit(parts[k].value, whole, n, 1 + 2 * count));
    const hk_kernel *kernel = hk_unit_kernel(l, &kernels, unit);
    if (!kernel)
        return HK_STATUS_UNSUPPORTED;

    uint64_t element = hk_dtype_device_bytes(hk_value_storage(whole));
    int64_t width = 0;
    uint32_t ends[MOST_PARTS];
    for (int32_t k = 0; k < MOST_PARTS; k++) {
        width += k < count ? parts[k].span : 0;
        ends[k] = (uint32_t)((uint64_t)width * element / unit);
    }
    hk_divisor d = hk_divisor_of((int64_t)((uint64_t)width * element / unit));
    struct move_concat_push p = {
        .end_0 = ends[0],
        .end_1 = ends[1],
        .end_2 = ends[2],
        .end_3 = ends[3],
        .end_4 = ends[4],
        .end_5 = ends[5],
        .end_6 = ends[6],
        .end_7 = ends[7],
        .count = d.extent * (uint32_t)rows,
        .width = d.extent,
        .multiplier = d.multiplier,
        .shift = d.shift,
        .row = (uint32_t)((uint64_t)row * element / unit),
    };
    hk_record *r = hk_emit(l, kernel, split ? "split" : "concat");
    hk_push(r, &p, sizeof p);
    hk_spec(r, SPEC_SPLIT, split);
    hk_use_range(r, whole, (uint64_t)parts[0].begin * element, (uint64_t)((rows - 1) * row + width) * element,
                 split ? HK_READ : HK_WRITE, offsetof(struct move_concat_push, whole));
    for (int32_t k = 0; k < count; k++)
        hk_use(r, parts[k].value, split ? HK_WRITE : HK_READ,
               offsetof(struct move_concat_push, part_0) + (size_t)k * sizeof(uint64_t));
    hk_move_grid(l, r, (int64_t)p.count);
    return HK_OK;
}

/* Cuts the list where parts are not neighbours (an output nobody wants) and after eight. */
static hk_status emit_parts(hk_lower *l, hk_value *whole, int64_t rows, int64_t row, const part *parts, int32_t count,
                            bool split)
{
    for (int32_t from = 0; from < count;) {
        int32_t to = from + 1;
        while (to < count && to - from < MOST_PARTS && parts[to].begin == parts[to - 1].begin + parts[to - 1].span)
            to++;
        HK_TRY(emit_run(l, whole, rows, row, parts + from, to - from, split));
        from = to;
    }
    return HK_OK;
}

/* ---- Concat */

typedef struct concat_attrs {
    int64_t axis;
} concat_attrs;
static const hk_attr concat_attr_list[] = {
    {.name = "axis", .kind = HK_ATTR_INT, .offset = offsetof(concat_attrs, axis), .required = true}, {0}};
static const hk_attr concat_1_attr_list[] = {HK_INT_ATTR(concat_attrs, axis, 1), {0}};

/* The shape that input i adds to what is known so far. */
static hk_status join_shape(const hk_args *a, int32_t i, int32_t axis, hk_shape *out)
{
    hk_shape x = hk_args_shape(a, i);
    hk_shape_text t;
    if (!a->tensors && hk_args_dtype(a, i) != hk_args_dtype(a, 0))
        return hk_args_fail(a, "input %d is %s, expected %s like input 0", (int)i, hk_dtype_name(hk_args_dtype(a, i)),
                            hk_dtype_name(hk_args_dtype(a, 0)));
    if (x.rank >= 0 && x.rank != out->rank)
        return hk_args_fail(a, "input %d has rank %d, expected %d like the others", (int)i, (int)x.rank,
                            (int)out->rank);
    for (int32_t d = 0; d < out->rank; d++) {
        int64_t dim = x.rank < 0 ? -1 : x.dim[d];
        if (d == axis && (dim < 0 || out->dim[d] < 0))
            out->dim[d] = -1;
        else if (d == axis && __builtin_add_overflow(out->dim[d], dim, &out->dim[d]))
            return hk_args_fail(a, "dimension %d of the result is above 2^63", (int)d);
        else if (d == axis)
            continue;
        else if (out->dim[d] < 0)
            out->dim[d] = dim;
        else if (dim >= 0 && dim != out->dim[d])
            return hk_args_fail(a, "input %d is %s, expected %lld in dimension %d like the others", (int)i,
                                hk_shape_print(&x, &t), (long long)out->dim[d], (int)d);
    }
    return HK_OK;
}

/* *axis is -1 when no input's rank is known. */
static hk_status concat_shape(const hk_args *a, hk_shape *out, int32_t *axis)
{
    int64_t given = ((const concat_attrs *)a->node->attrs)->axis;
    *out = HK_SHAPE_UNKNOWN;
    *axis = -1;
    for (int32_t i = 0; i < a->node->in_count; i++) {
        if (!hk_args_present(a, i))
            return hk_args_fail(a, "input %d is absent", (int)i);
        out->rank = HK_MAX(out->rank, hk_args_shape(a, i).rank);
    }
    if (out->rank < 0)
        return HK_OK;
    HK_TRY(hk_args_axis(a, given, out->rank, axis));
    for (int32_t d = 0; d < out->rank; d++)
        out->dim[d] = d == *axis ? 0 : -1;
    for (int32_t i = 0; i < a->node->in_count; i++)
        HK_TRY(join_shape(a, i, *axis, out));
    return HK_OK;
}

static hk_status concat_infer(hk_infer *in)
{
    hk_args a = hk_infer_args(in);
    hk_shape s;
    int32_t axis;
    HK_TRY(concat_shape(&a, &s, &axis));
    return hk_infer_output(in, 0, in->node->in[0]->dtype, &s);
}

static hk_dtype widest_input(const hk_eval *e)
{
    hk_dtype t = e->in[0]->dtype;
    for (int32_t i = 1; i < e->node->in_count; i++)
        t = hk_wider(t, e->in[i]->dtype);
    return t;
}

static hk_status concat_eval(hk_eval *e)
{
    hk_args a = hk_eval_args(e);
    hk_shape s;
    int32_t axis;
    HK_TRY(concat_shape(&a, &s, &axis));
    hk_tensor *y = hk_eval_output(e, 0, widest_input(e), &s);
    if (!y)
        return hk_out_of_memory(e->ctx, "a concatenation");
    int64_t rows = hk_shape_span(&s, 0, axis), row = hk_shape_span(&s, axis, s.rank), at = 0;
    for (int32_t i = 0; i < e->node->in_count; i++) {
        hk_shape x = hk_tensor_shape(e->in[i]);
        int64_t span = hk_shape_span(&x, axis, x.rank);
        hk_move m = {.to_offset = at};
        hk_move_add(&m, rows, span, row);
        hk_move_add(&m, span, 1, 1);
        const hk_tensor *from = hk_eval_as(e, e->in[i], y->dtype);
        if (!from)
            return hk_out_of_memory(e->ctx, "a concatenation");
        hk_host_move(&m, from, y);
        at += span;
    }
    return HK_OK;
}

/* One row: plain copies, each of which the planner drops if the input was computed in place. */
static void copy_parts(hk_lower *l, hk_value *whole, const part *parts, int32_t count)
{
    uint64_t element = hk_dtype_device_bytes(hk_value_storage(whole));
    for (int32_t k = 0; k < count; k++)
        hk_emit_copy(l, parts[k].value, 0, whole, (uint64_t)parts[k].begin * element,
                     (uint64_t)parts[k].span * element);
}

static hk_status concat_lower(hk_lower *l)
{
    const hk_node *n = l->node;
    hk_value *y = n->out[0];
    hk_args a = hk_node_args(l->ctx, n);
    hk_shape s;
    int32_t axis, count = 0;
    HK_TRY(concat_shape(&a, &s, &axis));
    int64_t rows = hk_shape_span(&s, 0, axis), at = 0;
    part *parts = hk_arena_array(l->arena, (size_t)n->in_count, sizeof *parts);
    if (!parts)
        return hk_out_of_memory(l->ctx, "a concatenation's parts");
    for (int32_t i = 0; i < n->in_count; i++) {
        int64_t span = hk_shape_span(&n->in[i]->shape, axis, s.rank);
        if (span > 0 && rows > 0)
            parts[count++] = (part){n->in[i], at, span};
        at += span;
    }
    if (rows != 1)
        return emit_parts(l, y, rows, at, parts, count, false);
    copy_parts(l, y, parts, count);
    return HK_OK;
}

static int64_t placed_at(const hk_node *n, int64_t at)
{
    return at * (int64_t)hk_dtype_device_bytes(hk_value_storage(n->out[0])) % PLACE_BYTES ? -1 : at;
}

static void concat_place(const hk_node *n, int64_t *offset)
{
    hk_args a = hk_node_args(NULL, n);
    hk_shape s;
    int32_t axis;
    int64_t at = 0;
    bool flat = concat_shape(&a, &s, &axis) == HK_OK && axis >= 0 && hk_shape_known(&s) &&
                hk_shape_span(&s, 0, axis) == 1;
    for (int32_t i = 0; i < n->in_count; i++) {
        offset[i] = flat ? placed_at(n, at) : -1;
        at += flat ? hk_shape_count(&n->in[i]->shape) : 0;
    }
}

/* The part of dy that input i became. */
static hk_status slice_back(hk_gradient *g, hk_value *x, hk_value *dy, int32_t axis, int64_t begin)
{
    hk_graph *graph = hk_gradient_graph(g);
    int64_t end = begin + x->shape.dim[axis], axis_entry = axis;
    hk_value *in[4] = {dy, hk_graph_ints(graph, &begin, 1), hk_graph_ints(graph, &end, 1),
                       hk_graph_ints(graph, &axis_entry, 1)};
    hk_value *dx;
    if (!in[1] || !in[2] || !in[3])
        return HK_STATUS_OUT_OF_MEMORY;
    HK_TRY(hk_build(graph, "Slice", NULL, in, 4, &dx, 1));
    return hk_gradient_add(g, x, dx);
}

/* dX_i = the i-th part of dY: views where the parts are contiguous, else one Split. */
static hk_status concat_backward(hk_gradient *g, hk_node *n)
{
    hk_graph *graph = hk_gradient_graph(g);
    hk_value *dy = hk_gradient_of(g, n->out[0]);
    hk_args a = hk_node_args(graph->ctx, n);
    hk_shape s;
    int32_t axis, wanted = 0;
    if (!dy)
        return HK_OK;
    HK_TRY(concat_shape(&a, &s, &axis));
    if (!hk_shape_known(&s))
        return hk_args_shape_wanted(&a);
    for (int32_t i = 0; i < n->in_count; i++)
        wanted += hk_gradient_wanted(g, n->in[i]);
    bool slices = wanted < 2 || hk_shape_span(&s, 0, axis) == 1;
    int64_t *sizes = hk_arena_array(graph->arena, (size_t)n->in_count, sizeof *sizes);
    hk_value **parts = hk_arena_array(graph->arena, (size_t)n->in_count, sizeof *parts);
    if (!sizes || !parts)
        return hk_out_of_memory(graph->ctx, "a gradient");
    for (int32_t i = 0; i < n->in_count; i++)
        sizes[i] = n->in[i]->shape.dim[axis];
    if (!slices) {
        const hk_attr_value attrs[] = {HK_SET_INT("axis", axis), {0}};
        hk_value *in[2] = {dy, hk_graph_ints(graph, sizes, n->in_count)};
        if (!in[1])
            return HK_STATUS_OUT_OF_MEMORY;
        HK_TRY(hk_build(graph, "Split", attrs, in, 2, parts, n->in_count));
    }
    for (int32_t i = 0, begin = 0; i < n->in_count; begin += (int32_t)sizes[i], i++) {
        if (!hk_gradient_wanted(g, n->in[i]))
            continue;
        HK_TRY(slices ? slice_back(g, n->in[i], dy, axis, begin) : hk_gradient_add(g, n->in[i], parts[i]));
    }
    return HK_OK;
}

static const char *const concat_cases[] = {
    "f32[2,3] f32[4,3] ; axis=0",
    "f32[2,3] f32[2,5] ; axis=1",
    "f32[2,3,4] f32[2,1,4] f32[2,7,4] ; axis=-2",
    "f32[1,3,4] f32[1,5,4] ; axis=1",
    "f32[3]; axis=0",
    "f32[2,0] f32[2,5] ; axis=1",
    "f32[3,1,7] f32[3,2,7] p.f32[3,1,7] f32[3,1,7] f32[3,3,7] f32[3,1,7] f32[3,1,7] f32[3,2,7] f32[3,1,7] f32[3,4,7] ; "
    "axis=1",
    "i64[5]<9 i64={1,2} i64[1]<3 ; axis=0 ; nograd",
    "bool[2,3] bool[2,2] ; axis=1 ; nograd",
    "i64[3,2]<9 i64[3,5]<9 ; axis=1 ; nograd",
    "f16[3,4] f16[3,6] ; axis=1 ; nograd",
    "f16[3,3] f16[3,5] ; axis=1 ; nograd storage16",
    "f32[64,129,40] f32[64,3,40] ; axis=1 ; nograd",
    NULL,
};
static const char *const concat_1_cases[] = {"f32[2,3] f32[2,5]", NULL};

/* ---- Split: sizes from an attribute before opset 13, an input from then on; else equal parts, the last smaller (18)
 */

typedef struct split_attrs {
    int64_t axis;
    hk_ints split;
    int64_t num_outputs;
} split_attrs;
static const hk_attr split_2_attr_list[] = {HK_INT_ATTR(split_attrs, axis, 0), HK_INTS_ATTR(split_attrs, split), {0}};
static const hk_attr split_13_attr_list[] = {HK_INT_ATTR(split_attrs, axis, 0), {0}};
static const hk_attr split_18_attr_list[] = {
    HK_INT_ATTR(split_attrs, axis, 0), HK_INT_ATTR(split_attrs, num_outputs, 0), {0}};

enum { MOST_OUTPUTS = 4096 };

/* sizes[] gets a node's out_count entries; -1: unknown. */
static hk_status equal_parts(const hk_args *a, int64_t dim, int64_t *sizes)
{
    int32_t count = a->node->out_count;
    const split_attrs *s = a->node->attrs;
    if (s->num_outputs && s->num_outputs != count)
        return hk_args_fail(a, "num_outputs is %lld, and the node has %d outputs", (long long)s->num_outputs,
                            (int)count);
    int64_t chunk = dim < 0 ? -1 : (dim + count - 1) / count;
    if (dim >= 0 && a->node->op->since < 18 && dim % count)
        return hk_args_fail(a, "%lld elements do not divide into %d equal parts", (long long)dim, (int)count);
    for (int32_t i = 0; i < count; i++)
        sizes[i] = dim < 0 ? -1 : HK_MAX(HK_MIN(chunk, dim - i * chunk), 0);
    return HK_OK;
}

static hk_status split_sizes(const hk_args *a, int64_t dim, int64_t *sizes)
{
    const split_attrs *s = a->node->attrs;
    int32_t count = a->node->out_count, given = s->split.v ? s->split.count : 0;
    bool listed = s->split.v != NULL;
    if (count < 1 || count > MOST_OUTPUTS)
        return hk_args_fail(a, "has %d outputs, expected 1 to %d", (int)count, MOST_OUTPUTS);
    if (hk_args_present(a, 1)) {
        listed = true;
        HK_TRY(hk_args_ints(a, 1, "split", sizes, count, &given));
    } else if (given == count) {
        memcpy(sizes, s->split.v, (size_t)given * sizeof *sizes);
    }
    if (!listed)
        return equal_parts(a, dim, sizes);
    if (given >= 0 && given != count)
        return hk_args_fail(a, "split has %d entries, expected one for each of %d outputs", (int)given, (int)count);
    int64_t total = 0;
    for (int32_t i = 0; i < count; i++) {
        if (given < 0)
            sizes[i] = -1;
        else if (sizes[i] < 0 || sizes[i] > INT32_MAX)
            return hk_args_fail(a, "entry %d of split is %lld, expected 0 or more", (int)i, (long long)sizes[i]);
        total += sizes[i];
    }
    if (given >= 0 && dim >= 0 && total != dim)
        return hk_args_fail(a, "split adds up to %lld, the axis has %lld elements", (long long)total, (long long)dim);
    return HK_OK;
}

typedef struct split_shapes {
    hk_shape x;
    int32_t axis;   /* -1: the input's rank is unknown */
    int64_t *sizes; /* in the arena given */
} split_shapes;

static hk_status split_read(const hk_args *a, hk_arena *arena, split_shapes *s)
{
    int64_t axis = ((const split_attrs *)a->node->attrs)->axis;
    s->x = hk_args_shape(a, 0);
    s->axis = -1;
    s->sizes = hk_arena_array(arena, (size_t)HK_MAX(a->node->out_count, 1), sizeof *s->sizes);
    if (!s->sizes)
        return hk_out_of_memory(a->ctx, "the sizes of a split");
    if (s->x.rank >= 0)
        HK_TRY(hk_args_axis(a, axis, s->x.rank, &s->axis));
    return split_sizes(a, s->axis < 0 ? -1 : s->x.dim[s->axis], s->sizes);
}

static hk_shape split_shape(const split_shapes *s, int32_t i)
{
    hk_shape y = s->x;
    if (s->axis >= 0)
        y.dim[s->axis] = s->sizes[i];
    return y;
}

static hk_status split_infer(hk_infer *in)
{
    hk_args a = hk_infer_args(in);
    split_shapes s;
    HK_TRY(split_read(&a, in->graph->arena, &s));
    for (int32_t i = 0; i < in->node->out_count; i++) {
        hk_shape y = split_shape(&s, i);
        HK_TRY(hk_infer_output(in, i, in->node->in[0]->dtype, &y));
    }
    return HK_OK;
}

static hk_status split_eval(hk_eval *e)
{
    hk_args a = hk_eval_args(e);
    split_shapes s;
    HK_TRY(split_read(&a, e->arena, &s));
    int64_t rows = hk_shape_span(&s.x, 0, s.axis), row = hk_shape_span(&s.x, s.axis, s.x.rank), at = 0;
    int64_t inner = hk_shape_span(&s.x, s.axis + 1, s.x.rank);
    for (int32_t i = 0; i < e->node->out_count; at += s.sizes[i] * inner, i++) {
        if (!hk_out(e->node, i))
            continue;
        hk_shape shape = split_shape(&s, i);
        hk_tensor *y = hk_eval_output(e, i, e->in[0]->dtype, &shape);
        if (!y)
            return hk_out_of_memory(e->ctx, "a part of a split");
        hk_move m = {.from_offset = at};
        hk_move_add(&m, rows, row, s.sizes[i] * inner);
        hk_move_add(&m, s.sizes[i] * inner, 1, 1);
        hk_host_move(&m, e->in[0], y);
    }
    return HK_OK;
}

static hk_status split_lower(hk_lower *l)
{
    const hk_node *n = l->node;
    hk_args a = hk_node_args(l->ctx, n);
    split_shapes s;
    HK_TRY(split_read(&a, l->arena, &s));
    int64_t rows = hk_shape_span(&s.x, 0, s.axis), inner = hk_shape_span(&s.x, s.axis + 1, s.x.rank), at = 0;
    part *parts = hk_arena_array(l->arena, (size_t)n->out_count, sizeof *parts);
    if (!parts)
        return hk_out_of_memory(l->ctx, "a split's parts");
    int32_t count = 0;
    for (int32_t i = 0; i < n->out_count; at += s.sizes[i] * inner, i++)
        if (n->out[i] && rows > 0 && inner > 0 && s.sizes[i] > 0)
            parts[count++] = (part){n->out[i], at, s.sizes[i] * inner};
    return emit_parts(l, n->in[0], rows, at, parts, count, true);
}

static hk_status split_backward(hk_gradient *g, hk_node *n)
{
    hk_graph *graph = hk_gradient_graph(g);
    hk_args a = hk_node_args(graph->ctx, n);
    hk_value *x = n->in[0], *dx;
    split_shapes s;
    if (!hk_gradient_wanted(g, x))
        return HK_OK;
    HK_TRY(split_read(&a, graph->arena, &s));
    if (!hk_shape_known(&x->shape))
        return hk_args_shape_wanted(&a);
    hk_value **dy = hk_arena_array(graph->arena, (size_t)n->out_count, sizeof *dy);
    if (!dy)
        return hk_out_of_memory(graph->ctx, "a gradient");
    bool all = true;
    for (int32_t i = 0; i < n->out_count; i++) {
        dy[i] = hk_gradient_of(g, n->out[i]);
        all &= dy[i] != NULL;
    }
    if (all) {
        const hk_attr_value attrs[] = {HK_SET_INT("axis", s.axis), {0}};
        HK_TRY(hk_build(graph, "Concat", attrs, dy, n->out_count, &dx, 1));
        return hk_gradient_add(g, x, dx);
    }
    int64_t starts[HK_MAX_RANK] = {0}, steps[HK_MAX_RANK];
    for (int32_t d = 0; d < x->shape.rank; d++)
        steps[d] = 1;
    for (int32_t i = 0; i < n->out_count; starts[s.axis] += s.sizes[i], i++) {
        if (!dy[i])
            continue;
        const hk_attr_value attrs[] = {HK_SET_INTS("starts", starts, x->shape.rank),
                                       HK_SET_INTS("steps", steps, x->shape.rank),
                                       HK_SET_INTS("shape", x->shape.dim, x->shape.rank),
                                       {0}};
        HK_TRY(hk_build(graph, "hk.SliceGrad", attrs, &dy[i], 1, &dx, 1));
        HK_TRY(hk_gradient_add(g, x, dx));
    }
    return HK_OK;
}

static const char *const split_cases[] = {
    "f32[6,4] ; num_outputs=2 ; out=2 gradall",
    "f32[7,4] ; num_outputs=3 ; out=3 gradall",
    "f32[2,9] i64={2,3,4} ; axis=1 ; out=3 gradall",
    "f32[2,9,8] i64={4,5} ; axis=-2 ; out=2 gradall",
    "f32[4] i64={4} ; ; out=1 gradall",
    "f32[2,6] i64={0,6} ; axis=1 ; out=2 gradall",
    "f32[3,20,5] i64={1,2,3,1,2,3,1,2,3,2} ; axis=1 ; out=10 gradall",
    "i64[4,6]<9 ; axis=1 num_outputs=3 ; out=3 nograd",
    "bool[6] ; num_outputs=2 ; out=2 nograd",
    "f32[64,5,96] i64={2,3} ; axis=1 ; out=2 nograd",
    "f16[3,8] ; axis=1 num_outputs=2 ; out=2 nograd",
    NULL,
};
static const char *const split_13_cases[] = {"f32[6,4] ; axis=1 ; out=2 gradall",
                                             "f32[2,9] i64={2,3,4} ; axis=1 ; out=3 gradall", NULL};
static const char *const split_2_cases[] = {"f32[6,4] ; axis=1 ; out=2 gradall",
                                            "f32[2,9] ; axis=1 split=[2,3,4] ; out=3 gradall", NULL};

/* ---- hk.Pack: inputs, flattened, at element offsets of one flat value of `total` elements; zero between them */

typedef struct pack_attrs {
    hk_ints offsets;
    int64_t total;
} pack_attrs;
static const hk_attr pack_attr_list[] = {
    {.name = "offsets", .kind = HK_ATTR_INTS, .offset = offsetof(pack_attrs, offsets), .required = true},
    {.name = "total", .kind = HK_ATTR_INT, .offset = offsetof(pack_attrs, total), .required = true},
    {0},
};

static hk_status pack_check(const hk_args *a)
{
    const pack_attrs *p = a->node->attrs;
    int64_t end = 0;
    if (p->offsets.count != a->node->in_count)
        return hk_args_fail(a, "offsets has %d entries, expected one for each of %d inputs", (int)p->offsets.count,
                            (int)a->node->in_count);
    for (int32_t i = 0; i < a->node->in_count; i++) {
        hk_shape x = hk_args_shape(a, i);
        if (!hk_args_present(a, i) || !hk_shape_known(&x) ||
            (!a->tensors && hk_args_dtype(a, i) != hk_args_dtype(a, 0)))
            return hk_args_fail(a, "expected inputs of known shape and one type");
        if (p->offsets.v[i] < end)
            return hk_args_fail(a, "input %d would lie at %lld, inside the one before it, which ends at %lld", (int)i,
                                (long long)p->offsets.v[i], (long long)end);
        end = p->offsets.v[i] + hk_shape_count(&x);
    }
    if (end > p->total)
        return hk_args_fail(a, "the inputs end at %lld, expected %lld at most", (long long)end, (long long)p->total);
    return HK_OK;
}

static hk_status pack_infer(hk_infer *in)
{
    hk_args a = hk_infer_args(in);
    HK_TRY(pack_check(&a));
    hk_shape s = {.rank = 1, .dim = {((const pack_attrs *)in->node->attrs)->total}};
    return hk_infer_output(in, 0, in->node->in[0]->dtype, &s);
}

static hk_status pack_eval(hk_eval *e)
{
    const pack_attrs *p = e->node->attrs;
    hk_args a = hk_eval_args(e);
    HK_TRY(pack_check(&a));
    hk_tensor *y = hk_eval_output(e, 0, widest_input(e), &(hk_shape){.rank = 1, .dim = {p->total}});
    if (!y)
        return hk_out_of_memory(e->ctx, "a packed tensor");
    for (int32_t i = 0; i < e->node->in_count; i++) {
        hk_move m = {.to_offset = p->offsets.v[i]};
        hk_move_add(&m, hk_tensor_count(e->in[i]), 1, 1);
        const hk_tensor *from = hk_eval_as(e, e->in[i], y->dtype);
        if (!from)
            return hk_out_of_memory(e->ctx, "a packed tensor");
        hk_host_move(&m, from, y);
    }
    return HK_OK;
}

/* What no input covers is zeroed, so that sums over the flat value are sums over the tensors. */
static hk_status pack_gaps(hk_lower *l)
{
    const hk_node *n = l->node;
    const pack_attrs *p = n->attrs;
    uint64_t element = hk_dtype_device_bytes(hk_value_storage(n->out[0]));
    uint32_t *table = hk_arena_array(l->arena, (size_t)n->in_count + 1, 2 * sizeof *table);
    if (!table)
        return hk_out_of_memory(l->ctx, "the gaps of a packed tensor");
    uint32_t count = 0;
    int64_t end = 0;
    for (int32_t i = 0; i <= n->in_count; i++) {
        int64_t next = i < n->in_count ? p->offsets.v[i] : p->total;
        if (next > end) {
            table[2 * count] = (uint32_t)((uint64_t)end * element / 4);
            table[2 * count + 1] = (uint32_t)((uint64_t)(next - end) * element / 4);
            count++;
        }
        if (i < n->in_count)
            end = next + hk_shape_count(&n->in[i]->shape);
    }
    if (count == 0)
        return HK_OK;
    struct move_gaps_push push = {.count = count};
    hk_record *r = hk_emit(l, &hk_kernel_move_gaps, "zero gaps");
    hk_push(r, &push, sizeof push);
    hk_use(r, n->out[0], HK_WRITE, offsetof(struct move_gaps_push, to));
    r->block = table;
    r->block_bytes = count * 2 * (uint32_t)sizeof *table;
    r->block_offset = offsetof(struct move_gaps_push, table);
    hk_workgroup(r, 64, 1, 1);
    hk_grid_1d(l, r, count);
    return HK_OK;
}

static hk_status pack_lower(hk_lower *l)
{
    const hk_node *n = l->node;
    const pack_attrs *p = n->attrs;
    uint64_t element = hk_dtype_device_bytes(hk_value_storage(n->out[0]));
    if (element < 4)
        return hk_fail(l->ctx, HK_STATUS_UNSUPPORTED,
                       "node '%s' (hk.Pack): flat values hold elements of 4 or 8 bytes, found %s", n->name,
                       hk_dtype_name(n->out[0]->dtype));
    for (int32_t i = 0; i < n->in_count; i++) {
        uint64_t bytes = (uint64_t)hk_shape_count(&n->in[i]->shape) * element;
        if (bytes)
            hk_emit_copy(l, n->in[i], 0, n->out[0], (uint64_t)p->offsets.v[i] * element, bytes);
    }
    return pack_gaps(l);
}

static void pack_place(const hk_node *n, int64_t *offset)
{
    for (int32_t i = 0; i < n->in_count; i++)
        offset[i] = placed_at(n, ((const pack_attrs *)n->attrs)->offsets.v[i]);
}

static const char *const pack_cases[] = {
    "f32[3,5] f32[7] f32[] ; offsets=[0,64,128] total=192 ; nograd",
    "f32[64] f32[64] ; offsets=[0,64] total=128 ; nograd",
    "p.f32[2,3] f32[130] ; offsets=[3,64] total=200 ; nograd",
    "i64[5]<9 i64[2,2]<9 ; offsets=[1,6] total=10 ; nograd",
    NULL,
};

const hk_op hk_ops_concat[] = {
    {.type = "Concat",
     .since = 1,
     .until = 3,
     .in_min = 1,
     .in_max = -1,
     .out_min = 1,
     .out_max = 1,
     .flags = HK_OP_PLACE | HK_OP_ANY_TYPE,
     .attrs_bytes = sizeof(concat_attrs),
     .attrs = concat_1_attr_list,
     .infer = concat_infer,
     .eval = concat_eval,
     .lower = concat_lower,
     .backward = concat_backward,
     .place = concat_place,
     .cases = concat_1_cases},
    {.type = "Concat",
     .since = 4,
     .in_min = 1,
     .in_max = -1,
     .out_min = 1,
     .out_max = 1,
     .flags = HK_OP_PLACE | HK_OP_ANY_TYPE,
     .attrs_bytes = sizeof(concat_attrs),
     .attrs = concat_attr_list,
     .infer = concat_infer,
     .eval = concat_eval,
     .lower = concat_lower,
     .backward = concat_backward,
     .place = concat_place,
     .cases = concat_cases},
    {.type = "Split",
     .since = 1,
     .until = 12,
     .in_min = 1,
     .in_max = 2,
     .out_min = 1,
     .out_max = -1,
     .host_inputs = 2,
     .flags = HK_OP_ANY_TYPE,
     .attrs_bytes = sizeof(split_attrs),
     .attrs = split_2_attr_list,
     .infer = split_infer,
     .eval = split_eval,
     .lower = split_lower,
     .backward = split_backward,
     .cases = split_2_cases},
    {.type = "Split",
     .since = 13,
     .until = 17,
     .in_min = 1,
     .in_max = 2,
     .out_min = 1,
     .out_max = -1,
     .host_inputs = 2,
     .flags = HK_OP_ANY_TYPE,
     .attrs_bytes = sizeof(split_attrs),
     .attrs = split_13_attr_list,
     .infer = split_infer,
     .eval = split_eval,
     .lower = split_lower,
     .backward = split_backward,
     .cases = split_13_cases},
    {.type = "Split",
     .since = 18,
     .in_min = 1,
     .in_max = 2,
     .out_min = 1,
     .out_max = -1,
     .host_inputs = 2,
     .flags = HK_OP_ANY_TYPE,
     .attrs_bytes = sizeof(split_attrs),
     .attrs = split_18_attr_list,
     .infer = split_infer,
     .eval = split_eval,
     .lower = split_lower,
     .backward = split_backward,
     .cases = split_cases},
    {.type = "hk.Pack",
     .since = 1,
     .in_min = 1,
     .in_max = -1,
     .out_min = 1,
     .out_max = 1,
     .flags = HK_OP_PLACE | HK_OP_ANY_TYPE,
     .attrs_bytes = sizeof(pack_attrs),
     .attrs = pack_attr_list,
     .infer = pack_infer,
     .eval = pack_eval,
     .lower = pack_lower,
     .place = pack_place,
     .cases = pack_cases},
    {0},
};
