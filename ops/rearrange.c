/*
 * Operators that only put elements elsewhere and are others: DepthToSpace and SpaceToDepth (a transpose between views),
 * CenterCropPad (Pad), ReverseSequence (Gather of rows), MaxUnpool (ScatterND of elements).
 */
#include <string.h>

#include "ops/support/build.h"
#include "ops/support/move.h"
#include "ops/support/move_args.h"

/* ---- DepthToSpace, SpaceToDepth */

typedef struct block_attrs {
    int64_t blocksize;
    const char *mode; /* DepthToSpace: "DCR" or "CRD" */
} block_attrs;
static const hk_attr depth_attr_list[] = {
    {.name = "blocksize", .kind = HK_ATTR_INT, .offset = offsetof(block_attrs, blocksize), .required = true},
    HK_STRING_ATTR(block_attrs, mode, "DCR"),
    {0}};
static const hk_attr space_attr_list[] = {
    {.name = "blocksize", .kind = HK_ATTR_INT, .offset = offsetof(block_attrs, blocksize), .required = true}, {0}};

static bool is_depth_to_space(const hk_node *n)
{
    return n->op->type[0] == 'D';
}

/* The input seen with blocks as dimensions of their own, how those are permuted, and what is left: a row-major y. */
typedef struct blocks {
    hk_shape split;
    int64_t perm[6];
    hk_shape y;
} blocks;

static hk_status read_blocks(const hk_args *a, blocks *out)
{
    const block_attrs *attrs = a->node->attrs;
    int64_t b = attrs->blocksize;
    hk_shape x = hk_args_shape(a, 0);
    hk_shape_text text;
    bool depth = is_depth_to_space(a->node), columns = depth && !strcmp(attrs->mode, "CRD");
    *out = (blocks){.y = x};
    if (b < 1 || b > 1 << 15)
        return hk_args_fail(a, "blocksize is %lld, expected 1 to 32768", (long long)b);
    if (depth && !columns && strcmp(attrs->mode, "DCR") != 0)
        return hk_args_fail(a, "mode is '%s', expected DCR or CRD", attrs->mode);
    if (x.rank < 0)
        return HK_OK;
    if (x.rank != 4)
        return hk_args_fail(a, "expected an input [batch,channels,height,width], found %s", hk_shape_print(&x, &text));
    int64_t n = x.dim[0], c = x.dim[1], h = x.dim[2], w = x.dim[3];
    if (depth ? c > 0 && c % (b * b) : (h > 0 && h % b) || (w > 0 && w % b))
        return hk_args_fail(a, "blocksize %lld does not divide the input %s", (long long)b, hk_shape_print(&x, &text));
    if (depth) {
        out->y = (hk_shape){4, {n, c < 0 ? -1 : c / (b * b), h < 0 ? -1 : h * b, w < 0 ? -1 : w * b}};
        out->split = columns ? (hk_shape){6, {n, c / (b * b), b, b, h, w}}
                             : (hk_shape){6, {n, b, b, c / (b * b), h, w}};
        const int64_t perms[2][6] = {{0, 3, 4, 1, 5, 2}, {0, 1, 4, 2, 5, 3}};
        memcpy(out->perm, perms[columns], sizeof out->perm);
    } else {
        out->y = (hk_shape){4, {n, c < 0 ? -1 : c * b * b, h < 0 ? -1 : h / b, w < 0 ? -1 : w / b}};
        out->split = (hk_shape){6, {n, c, h / b, b, w / b, b}};
        const int64_t perm[6] = {0, 3, 5, 1, 2, 4};
        memcpy(out->perm, perm, sizeof out->perm);
    }
    return HK_OK;
}

static hk_status blocks_infer(hk_infer *in)
{
    hk_args a = hk_infer_args(in);
    blocks b;
    HK_TRY(read_blocks(&a, &b));
    return hk_infer_output(in, 0, in->node->in[0]->dtype, &b.y);
}

/* Where ONNX says that element (n, c, y, x) of the larger image lies in the deeper one. */
static int64_t deep_index(const block_attrs *a, bool columns, const hk_shape *deep, const int64_t at[4])
{
    int64_t b = a->blocksize, c = deep->dim[1] / (b * b), dy = at[2] % b, dx = at[3] % b;
    int64_t channel = columns ? (at[1] * b + dy) * b + dx : (dy * b + dx) * c + at[1];
    return ((at[0] * deep->dim[1] + channel) * deep->dim[2] + at[2] / b) * deep->dim[3] + at[3] / b;
}

static hk_status blocks_eval(hk_eval *e)
{
    hk_args a = hk_eval_args(e);
    const block_attrs *attrs = e->node->attrs;
    blocks b;
    HK_TRY(read_blocks(&a, &b));
    hk_tensor *y = hk_eval_output(e, 0, e->in[0]->dtype, &b.y);
    if (!y)
        return hk_out_of_memory(e->ctx, "a rearranged tensor");
    bool depth = is_depth_to_space(e->node), columns = depth && !strcmp(attrs->mode, "CRD");
    hk_shape x = hk_tensor_shape(e->in[0]);
    const hk_shape *deep = depth ? &x : &b.y, *large = depth ? &b.y : &x;
    int64_t count = hk_tensor_count(y), bytes = (int64_t)hk_dtype_bytes(y->dtype), strides[HK_MAX_RANK];
    hk_shape_strides(large, strides);
    for (int64_t i = 0; i < count; i++) {
        const int64_t at[4] = {i / strides[0], i / strides[1] % large->dim[1], i / strides[2] % large->dim[2],
                               i % large->dim[3]};
        int64_t k = deep_index(attrs, columns, deep, at);
        memcpy((char *)y->data + (depth ? i : k) * bytes, (const char *)e->in[0]->data + (depth ? k : i) * bytes,
               (size_t)bytes);
    }
    return HK_OK;
}

static hk_status blocks_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    hk_args a = hk_node_args(g->ctx, n);
    blocks b;
    hk_value *v;
    HK_TRY(read_blocks(&a, &b));
    HK_TRY(hk_build_reshape(g, n->in[0], &b.split, &v));
    HK_TRY(hk_build_transpose(g, v, b.perm, 6, &v));
    return hk_build_reshape(g, v, &b.y, out);
}

static const char *const depth_cases[] = {
    "f32[2,8,3,5] ; blocksize=2",
    "f32[2,8,3,5] ; blocksize=2 mode=\"CRD\"",
    "f32[1,27,4,4] ; blocksize=3 mode=\"CRD\"",
    "f32[1,4,1,7] ; blocksize=1",
    "i64[1,8,2,3]<99 ; blocksize=2 ; nograd",
    "f16[1,16,2,3] ; blocksize=2 ; nograd storage16",
    "f32[0,8,3,5] ; blocksize=2 ; nograd",
    "f32[1,12,40,56] ; blocksize=2 mode=\"CRD\" ; nograd",
    NULL,
};
static const char *const space_cases[] = {
    "f32[2,3,4,6] ; blocksize=2",
    "f32[1,2,9,6] ; blocksize=3",
    "f32[1,4,2,7] ; blocksize=1",
    "bool[1,2,4,4] ; blocksize=2",
    "f32[1,0,4,6] ; blocksize=2 ; nograd",
    "f32[1,3,80,112] ; blocksize=2 ; nograd",
    NULL,
};

/* ---- CenterCropPad: each axis cropped or zero-padded about its centre */

typedef struct crop_attrs {
    hk_ints axes;
} crop_attrs;
static const hk_attr crop_attr_list[] = {HK_INTS_ATTR(crop_attrs, axes), {0}};

/* pads: what Pad needs for it; both valid when the shape operand is known. */
static hk_status read_crop(const hk_args *a, hk_shape *y, int64_t pads[2 * HK_MAX_RANK])
{
    const hk_ints *axes = &((const crop_attrs *)a->node->attrs)->axes;
    int64_t sizes[HK_MAX_RANK];
    int32_t count;
    hk_shape x = hk_args_shape(a, 0);
    HK_TRY(hk_args_ints(a, 1, "shape", sizes, HK_MAX_RANK, &count));
    *y = x;
    if (x.rank < 0)
        return HK_OK;
    int32_t expected = axes->v ? axes->count : x.rank;
    if (count >= 0 && count != expected)
        return hk_args_fail(a, "shape has %d entries, expected %d", (int)count, (int)expected);
    memset(pads, 0, 2 * HK_MAX_RANK * sizeof *pads);
    for (int32_t i = 0; i < expected; i++) {
        int32_t d = i;
        if (axes->v)
            HK_TRY(hk_args_axis(a, axes->v[i], x.rank, &d));
        y->dim[d] = count < 0 ? -1 : sizes[i];
        if (count < 0 || x.dim[d] < 0)
            continue;
        if (sizes[i] < 0)
            return hk_args_fail(a, "entry %d of the shape is %lld, expected 0 or more", (int)i, (long long)sizes[i]);
        int64_t more = sizes[i] - x.dim[d], half = more < 0 ? -(-more / 2) : more / 2;
        pads[d] = half;
        pads[x.rank + d] = more - half;
    }
    return HK_OK;
}

static hk_status crop_infer(hk_infer *in)
{
    hk_args a = hk_infer_args(in);
    hk_shape y;
    int64_t pads[2 * HK_MAX_RANK];
    HK_TRY(read_crop(&a, &y, pads));
    return hk_infer_output(in, 0, in->node->in[0]->dtype, &y);
}

static hk_status crop_eval(hk_eval *e)
{
    hk_args a = hk_eval_args(e);
    hk_shape y, x = hk_tensor_shape(e->in[0]);
    int64_t pads[2 * HK_MAX_RANK], from[HK_MAX_RANK], to[HK_MAX_RANK];
    HK_TRY(read_crop(&a, &y, pads));
    hk_tensor *out = hk_eval_output(e, 0, e->in[0]->dtype, &y);
    if (!out)
        return hk_out_of_memory(e->ctx, "a cropped tensor");
    hk_shape_strides(&x, from);
    hk_shape_strides(&y, to);
    hk_move m = {0};
    for (int32_t d = 0; d < x.rank; d++) {
        m.from_offset += HK_MAX(-pads[d], 0) * from[d];
        m.to_offset += HK_MAX(pads[d], 0) * to[d];
        hk_move_add(&m, HK_MIN(x.dim[d], y.dim[d]), from[d], to[d]);
    }
    if (hk_move_count(&m) > 0)
        hk_host_move(&m, e->in[0], out);
    return HK_OK;
}

static hk_status crop_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    hk_args a = hk_node_args(g->ctx, n);
    hk_shape y;
    int64_t pads[2 * HK_MAX_RANK], list[2 * HK_MAX_RANK];
    HK_TRY(read_crop(&a, &y, pads));
    memcpy(list, pads, 2 * (size_t)y.rank * sizeof *list);
    return hk_build_pad(g, n->in[0], list, out);
}

static const char *const crop_cases[] = {
    "f32[10,8] i64={6,5}",
    "f32[4,5] i64={9,8}",
    "f32[9,3,6] i64={4,8} ; axes=[0,1]",
    "f32[9,3,6] i64={7,2} ; axes=[-1,-2]",
    "i64[5,4]<50 i64={2,7} ; ; nograd",
    "f32[4,5] i64={0,5} ; ; nograd",
    NULL,
};

/* ---- ReverseSequence: the first lengths[b] entries of sequence b backwards */

typedef struct reverse_attrs {
    int64_t batch_axis, time_axis;
} reverse_attrs;
static const hk_attr reverse_attr_list[] = {
    HK_INT_ATTR(reverse_attrs, batch_axis, 1), HK_INT_ATTR(reverse_attrs, time_axis, 0), {0}};

static hk_status reverse_infer(hk_infer *in)
{
    const reverse_attrs *r = in->node->attrs;
    const hk_value *x = in->node->in[0], *lengths = in->node->in[1];
    if (r->batch_axis + r->time_axis != 1 || r->batch_axis * r->time_axis != 0)
        return hk_infer_fail(in, HK_STATUS_INVALID,
                             "batch_axis is %lld and time_axis %lld, expected 0 and 1 in some order",
                             (long long)r->batch_axis, (long long)r->time_axis);
    if (lengths->dtype != HK_INT64 && lengths->dtype != HK_INT32)
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected int64 sequence lengths, found %s",
                             hk_dtype_name(lengths->dtype));
    if (x->shape.rank >= 0 && x->shape.rank < 2)
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected an input of rank 2 or more, found %d",
                             (int)x->shape.rank);
    if (x->shape.rank >= 0 && hk_shape_known(&lengths->shape) && x->shape.dim[r->batch_axis] >= 0 &&
        (lengths->shape.rank != 1 || lengths->shape.dim[0] != x->shape.dim[r->batch_axis]))
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected one length for each of %lld sequences",
                             (long long)x->shape.dim[r->batch_axis]);
    return hk_infer_output(in, 0, x->dtype, &x->shape);
}

static hk_status reverse_eval(hk_eval *e)
{
    const reverse_attrs *r = e->node->attrs;
    const hk_tensor *x = e->in[0], *lengths = e->in[1];
    hk_shape s = hk_tensor_shape(x);
    hk_tensor *y = hk_eval_output(e, 0, x->dtype, &s);
    if (!y)
        return hk_out_of_memory(e->ctx, "reversed sequences");
    size_t row = (size_t)hk_shape_span(&s, 2, s.rank) * hk_dtype_bytes(x->dtype);
    for (int64_t i = 0; i < s.dim[0]; i++)
        for (int64_t j = 0; j < s.dim[1]; j++) {
            int64_t t = r->time_axis ? j : i, b = r->time_axis ? i : j, n = hk_get_int(lengths, b);
            if (n < 0 || n > s.dim[r->time_axis])
                return hk_eval_fail(e, HK_STATUS_INVALID, "length %lld of sequence %lld is outside of 0 to %lld",
                                    (long long)n, (long long)b, (long long)s.dim[r->time_axis]);
            int64_t from = t < n ? n - 1 - t : t, source = r->time_axis ? b * s.dim[1] + from : from * s.dim[1] + b;
            if (row)
                memcpy((char *)y->data + (size_t)(i * s.dim[1] + j) * row, (const char *)x->data + (size_t)source * row,
                       row);
        }
    return HK_OK;
}

/* Row numbers: (t < n ? n - 1 - t : t) * (rows from one time step to the next) + (row of the sequence at time 0). */
static hk_status reverse_rows(hk_graph *g, const hk_node *n, hk_value **rows)
{
    const reverse_attrs *r = n->attrs;
    const hk_shape *s = &n->in[0]->shape;
    bool time_inner = r->time_axis == 1;
    int64_t steps = s->dim[r->time_axis], batch = s->dim[r->batch_axis];
    hk_shape times = {2, {time_inner ? 1 : steps, time_inner ? steps : 1}},
             batches = {2, {time_inner ? batch : 1, time_inner ? 1 : batch}};
    hk_tensor *t = hk_tensor_new(g->arena, HK_INT32, &times), *base = hk_tensor_new(g->arena, HK_INT32, &batches);
    if (!t || !base)
        return hk_out_of_memory(g->ctx, "row numbers of sequences");
    for (int64_t i = 0; i < steps; i++)
        hk_set_int(t, i, i);
    for (int64_t i = 0; i < batch; i++)
        hk_set_int(base, i, time_inner ? i * steps : i);
    hk_value *time = hk_graph_constant(g, NULL, t), *first = hk_graph_constant(g, NULL, base);
    hk_value *length, *within, *back, *v;
    if (!time || !first)
        return HK_STATUS_OUT_OF_MEMORY;
    HK_TRY(hk_build_cast(g, n->in[1], HK_INT32, &length));
    HK_TRY(hk_build_reshape(g, length, &batches, &length));
    HK_TRY(hk_build_binary(g, "Less", time, length, &within));
    HK_TRY(hk_build_binary(g, "Sub", length, time, &back));
    HK_TRY(hk_build_scalar(g, "Sub", back, 1, &back));
    HK_TRY(hk_build(g, "Where", NULL, (hk_value *[]){within, back, time}, 3, &v, 1));
    HK_TRY(hk_build_scalar(g, "Mul", v, time_inner ? 1 : (double)batch, &v));
    return hk_build_binary(g, "Add", v, first, rows);
}

static hk_status reverse_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    const hk_shape *s = &n->in[0]->shape;
    hk_shape flat = {.rank = s->rank - 1, .dim = {s->dim[0] * s->dim[1]}};
    hk_value *rows, *v;
    if (hk_shape_count(s) == 0)
        return hk_build_unary(g, "Identity", n->in[0], out);
    memcpy(flat.dim + 1, s->dim + 2, (size_t)(s->rank - 2) * sizeof *flat.dim);
    HK_TRY(reverse_rows(g, n, &rows));
    HK_TRY(hk_build_reshape(g, n->in[0], &flat, &v));
    HK_TRY(hk_build_binary(g, "Gather", v, rows, &v));
    return hk_build_reshape(g, v, s, out);
}

static const char *const reverse_cases[] = {
    "f32[4,4] i64={4,3,2,1}",
    "f32[5,3,2] i64[3]<6",
    "f32[3,5,4] i64[3]<6 ; batch_axis=0 time_axis=1",
    "i64[4,3]<50 i64={0,1,4} ; ; nograd",
    "f32[0,3] i64={0,0,0} ; ; nograd",
    NULL,
};

/* ---- MaxUnpool: values put back where MaxPool's indices say they came from */

typedef struct unpool_attrs {
    hk_ints kernel_shape, strides, pads;
} unpool_attrs;
static const hk_attr unpool_attr_list[] = {
    {.name = "kernel_shape", .kind = HK_ATTR_INTS, .offset = offsetof(unpool_attrs, kernel_shape), .required = true},
    HK_INTS_ATTR(unpool_attrs, strides),
    HK_INTS_ATTR(unpool_attrs, pads),
    {0}};

/* pooled: the shape that indices count in; y: the output's, which a given output_shape pads or crops at the ends. */
static hk_status read_unpool(const hk_args *a, hk_shape *pooled, hk_shape *y)
{
    const unpool_attrs *u = a->node->attrs;
    hk_shape x = hk_args_shape(a, 0);
    int32_t given, spatial = x.rank - 2;
    *pooled = x;
    *y = x;
    if (x.rank < 0)
        return HK_OK;
    if (spatial < 1 || u->kernel_shape.count != spatial || (u->strides.v && u->strides.count != spatial) ||
        (u->pads.v && u->pads.count != 2 * spatial))
        return hk_args_fail(a,
                            "expected an entry of kernel_shape and strides, and two of pads, per spatial axis of a "
                            "rank %d input",
                            (int)x.rank);
    for (int32_t i = 0; i < spatial; i++) {
        int64_t k = u->kernel_shape.v[i], s = u->strides.v ? u->strides.v[i] : 1,
                p = u->pads.v ? u->pads.v[i] + u->pads.v[spatial + i] : 0;
        if (k < 1 || s < 1 || k > INT32_MAX || s > INT32_MAX || p < 0)
            return hk_args_fail(a, "kernel_shape and strides must be positive, pads not negative");
        if (x.dim[2 + i] >= 0)
            pooled->dim[2 + i] = HK_MAX((x.dim[2 + i] - 1) * s - p + k, 0);
    }
    *y = *pooled;
    HK_TRY(hk_args_ints(a, 2, "output_shape", y->dim, HK_MAX_RANK, &given));
    if (given > 0 && given != x.rank)
        return hk_args_fail(a, "output_shape has %d entries, expected the input's rank %d", (int)given, (int)x.rank);
    for (int32_t d = 0; d < x.rank; d++) {
        if (given < 0)
            y->dim[d] = -1;
        else if (given == x.rank && y->dim[d] < 0)
            return hk_args_fail(a, "output_shape has a negative entry");
    }
    return HK_OK;
}

static hk_status unpool_infer(hk_infer *in)
{
    hk_args a = hk_infer_args(in);
    const hk_value *x = in->node->in[0], *index = in->node->in[1];
    hk_shape pooled, y;
    if (index->dtype != HK_INT64)
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected int64 indices, found %s", hk_dtype_name(index->dtype));
    if (hk_shape_known(&x->shape) && hk_shape_known(&index->shape) && !hk_shape_equal(&x->shape, &index->shape))
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected indices of the input's shape");
    HK_TRY(read_unpool(&a, &pooled, &y));
    return hk_infer_output(in, 0, x->dtype, &y);
}

static hk_status unpool_eval(hk_eval *e)
{
    hk_args a = hk_eval_args(e);
    hk_shape pooled, s;
    HK_TRY(read_unpool(&a, &pooled, &s));
    hk_tensor *y = hk_eval_output(e, 0, e->in[0]->dtype, &s);
    if (!y)
        return hk_out_of_memory(e->ctx, "an unpooled tensor");
    int64_t count = hk_tensor_count(e->in[0]), most = hk_shape_count(&pooled), at[HK_MAX_RANK];
    for (int64_t i = 0; i < count; i++) {
        int64_t k = hk_get_int(e->in[1], i), to = 0;
        bool inside = true;
        if (k < 0 || k >= most)
            return hk_eval_fail(e, HK_STATUS_INVALID, "index %lld is outside of the %lld elements of the output",
                                (long long)k, (long long)most);
        for (int32_t d = s.rank - 1; d >= 0; d--) {
            at[d] = k % pooled.dim[d];
            k /= pooled.dim[d];
            inside &= at[d] < s.dim[d];
        }
        for (int32_t d = 0; d < s.rank; d++)
            to = to * s.dim[d] + at[d];
        if (inside)
            hk_set_double(y, to, hk_get_double(e->in[0], i));
    }
    return HK_OK;
}

static hk_status unpool_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    hk_args a = hk_node_args(g->ctx, n);
    hk_shape pooled, y;
    HK_TRY(read_unpool(&a, &pooled, &y));
    int64_t from = hk_shape_count(&n->in[0]->shape), to = hk_shape_count(&pooled), pads[2 * HK_MAX_RANK] = {0};
    hk_value *size = hk_graph_ints(g, &to, 1), *zeros, *x, *index, *v;
    if (!size)
        return HK_STATUS_OUT_OF_MEMORY;
    HK_TRY(hk_build_unary(g, "ConstantOfShape", size, &zeros));
    HK_TRY(hk_build_cast(g, zeros, n->in[0]->dtype, &zeros));
    HK_TRY(hk_build_reshape(g, n->in[0], &(hk_shape){1, {from}}, &x));
    HK_TRY(hk_build_reshape(g, n->in[1], &(hk_shape){2, {from, 1}}, &index));
    HK_TRY(hk_build(g, "ScatterND", NULL, (hk_value *[]){zeros, index, x}, 3, &v, 1));
    HK_TRY(hk_build_reshape(g, v, &pooled, out));
    if (hk_shape_equal(&pooled, &y))
        return HK_OK;
    for (int32_t d = 0; d < y.rank; d++)
        pads[y.rank + d] = y.dim[d] - pooled.dim[d];
    return hk_build_pad(g, *out, pads, out);
}

static const char *const unpool_cases[] = {
    "f32[1,1,2,2] i64[1,1,2,2]={5,7,13,15} ; kernel_shape=[2,2] strides=[2,2]",
    "f32[1,1,2,2] i64[1,1,2,2]={5,7,13,15} i64={1,1,5,5} ; kernel_shape=[2,2] strides=[2,2]",
    "f32[1,2,3] i64[1,2,3]={0,3,4,7,9,10} ; kernel_shape=[3] strides=[2] pads=[1,0]",
    "f32[0,1,2,2] i64[0,1,2,2]<1 ; kernel_shape=[2,2] strides=[2,2] ; nograd",
    NULL,
};

#define OP(name, from, ins_min, ins_max, hosts, attr_struct, list, fn, case_list)                                      \
    {                                                                                                                  \
        .type = name, .since = from, .in_min = ins_min, .in_max = ins_max, .out_min = 1, .out_max = 1,                 \
        .host_inputs = hosts, .attrs_bytes = sizeof(attr_struct), .attrs = list, .infer = fn##_infer,                  \
        .eval = fn##_eval, .expand = fn##_expand, .cases = case_list                                                   \
    }

const hk_op hk_ops_rearrange[] = {
    OP("DepthToSpace", 1, 1, 1, 0, block_attrs, depth_attr_list, blocks, depth_cases),
    OP("SpaceToDepth", 1, 1, 1, 0, block_attrs, space_attr_list, blocks, space_cases),
    OP("CenterCropPad", 18, 2, 2, 2, crop_attrs, crop_attr_list, crop, crop_cases),
    OP("ReverseSequence", 10, 2, 2, 0, reverse_attrs, reverse_attr_list, reverse, reverse_cases),
    OP("MaxUnpool", 9, 2, 3, 4, unpool_attrs, unpool_attr_list, unpool, unpool_cases),
    {0},
};
