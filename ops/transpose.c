/* Transpose, Expand, Tile: whole tensors moved by strides; views when nothing really moves or repeats. */
#include "ops/support/move.h"
#include "ops/support/move_args.h"

/* ---- Transpose */

typedef struct transpose_attrs {
    hk_ints perm;
} transpose_attrs;
static const hk_attr transpose_attr_list[] = {HK_INTS_ATTR(transpose_attrs, perm), {0}};

/* Dimension i of the output is dimension perm[i] of the input; reversed by default. rank: the input's. */
static hk_status read_perm(const hk_args *a, int32_t rank, int32_t perm[HK_MAX_RANK])
{
    hk_ints p = ((const transpose_attrs *)a->node->attrs)->perm;
    bool used[HK_MAX_RANK] = {false};
    if (p.v && p.count != rank)
        return hk_args_fail(a, "perm has %d entries, expected the input's rank %d", (int)p.count, (int)rank);
    for (int32_t i = 0; i < rank; i++) {
        int32_t from = p.v ? hk_axis(p.v[i], rank) : rank - 1 - i;
        if (from < 0 || used[from])
            return hk_args_fail(a, "perm is no permutation of 0 to %d: entry %d is %lld", (int)rank - 1, (int)i,
                                (long long)p.v[i]);
        used[from] = true;
        perm[i] = from;
    }
    return HK_OK;
}

static hk_status transposed_shape(const hk_args *a, hk_shape *out)
{
    hk_shape x = hk_args_shape(a, 0);
    hk_ints p = ((const transpose_attrs *)a->node->attrs)->perm;
    *out = x;
    if (x.rank < 0) { /* the rank is still perm's length */
        out->rank = p.v && p.count <= HK_MAX_RANK ? p.count : -1;
        for (int32_t i = 0; i < out->rank; i++)
            out->dim[i] = -1;
        return HK_OK;
    }
    int32_t perm[HK_MAX_RANK] = {0};
    HK_TRY(read_perm(a, x.rank, perm));
    for (int32_t i = 0; i < x.rank; i++)
        out->dim[i] = x.dim[perm[i]];
    return HK_OK;
}

static hk_status transpose_infer(hk_infer *in)
{
    hk_args a = hk_infer_args(in);
    hk_shape s;
    HK_TRY(transposed_shape(&a, &s));
    return hk_infer_output(in, 0, in->node->in[0]->dtype, &s);
}

static hk_status transpose_move(const hk_args *a, hk_move *m)
{
    hk_shape x = hk_args_shape(a, 0), y;
    int32_t perm[HK_MAX_RANK] = {0};
    int64_t from[HK_MAX_RANK], to[HK_MAX_RANK];
    HK_TRY(transposed_shape(a, &y));
    HK_TRY(read_perm(a, x.rank, perm));
    hk_shape_strides(&x, from);
    hk_shape_strides(&y, to);
    *m = (hk_move){0};
    for (int32_t i = 0; i < y.rank; i++)
        hk_move_add(m, y.dim[i], from[perm[i]], to[i]);
    return HK_OK;
}

static hk_status transpose_eval(hk_eval *e)
{
    hk_args a = hk_eval_args(e);
    hk_shape s;
    hk_move m;
    HK_TRY(transposed_shape(&a, &s));
    HK_TRY(transpose_move(&a, &m));
    hk_tensor *y = hk_eval_output(e, 0, e->in[0]->dtype, &s);
    if (!y)
        return hk_out_of_memory(e->ctx, "a transposed tensor");
    hk_host_move(&m, e->in[0], y);
    return HK_OK;
}

static hk_status transpose_lower(hk_lower *l)
{
    hk_args a = hk_node_args(l->ctx, l->node);
    hk_move m;
    HK_TRY(transpose_move(&a, &m));
    return hk_emit_move(l, &m, l->node->in[0], l->node->out[0]);
}

/* A view when the dimensions above 1 keep their order. */
static int64_t transpose_view(const hk_node *n)
{
    hk_args a = hk_node_args(NULL, n);
    const hk_shape *x = &n->in[0]->shape;
    int32_t perm[HK_MAX_RANK] = {0}, last = -1;
    if (!hk_shape_known(x) || read_perm(&a, x->rank, perm) != HK_OK)
        return -1;
    for (int32_t i = 0; i < x->rank; i++) {
        if (x->dim[perm[i]] == 1)
            continue;
        if (perm[i] < last)
            return -1;
        last = perm[i];
    }
    return 0;
}

/* dX = Transpose(dY) with the inverse permutation. */
static hk_status transpose_backward(hk_gradient *g, hk_node *n)
{
    hk_graph *graph = hk_gradient_graph(g);
    hk_value *x = n->in[0], *dy = hk_gradient_of(g, n->out[0]), *dx;
    hk_args a = hk_node_args(graph->ctx, n);
    int32_t perm[HK_MAX_RANK] = {0};
    int64_t inverse[HK_MAX_RANK];
    if (!hk_gradient_wanted(g, x) || !dy)
        return HK_OK;
    int32_t rank = dy->shape.rank;
    HK_TRY(read_perm(&a, rank, perm));
    for (int32_t i = 0; i < rank; i++)
        inverse[perm[i]] = i;
    const hk_attr_value attrs[] = {HK_SET_INTS("perm", inverse, rank), {0}};
    HK_TRY(hk_build(graph, "Transpose", attrs, &dy, 1, &dx, 1));
    return hk_gradient_add(g, x, dx);
}

static const char *const transpose_cases[] = {
    "f32[2,3,4]",
    "f32[5,7] ; perm=[1,0]",
    "f32[33,65] ; perm=[1,0]",
    "f32[64,32] ; perm=[1,0] ; nograd",
    "f32[2,40,3,36] ; perm=[0,3,2,1] ; nograd",
    "f32[3,17,5,19] ; perm=[0,3,1,2]",
    "f32[2,8,4,16] ; perm=[0,2,1,3]",
    "f32[2,5,3,7] ; perm=[0,2,1,3]",
    "f32[2,1,3] ; perm=[1,0,2]",
    "f32[1,4,1,5] ; perm=[2,1,0,3]",
    "f32[]",
    "f32[6]",
    "f32[0,3] ; perm=[1,0]",
    "f32[2,3,2,3,2,3] ; perm=[5,3,1,4,2,0]",
    "f32[2,3,2,3,2,3,2,2] ; perm=[7,5,3,1,6,4,2,0]",
    "i64[2,2,2,2,2,3,2,3]<100 ; perm=[7,0,5,2,3,4,1,6]",
    "i64[40,70]<1000 ; perm=[1,0]",
    "bool[9,4] ; perm=[1,0]",
    "f16[6,10] ; perm=[1,0] ; nograd storage16",
    "f16[6,4,10] ; perm=[1,0,2] ; nograd",
    "f32[3,130,260] ; perm=[0,2,1] ; nograd",
    "f32[2400,1000] ; perm=[1,0] ; nograd",
    NULL,
};

/* ---- Expand: numpy broadcasting to a shape, both ways */

static hk_status expand_shape(const hk_args *a, hk_shape *out)
{
    hk_shape x = hk_args_shape(a, 0), target = {0};
    int32_t n;
    HK_TRY(hk_args_ints(a, 1, "shape", target.dim, HK_MAX_RANK, &n));
    if (n < 0) {
        int64_t length = hk_args_length(a, 1);
        *out = HK_SHAPE_UNKNOWN;
        if (length >= 0 && length <= HK_MAX_RANK && x.rank >= 0)
            out->rank = HK_MAX((int32_t)length, x.rank);
        for (int32_t d = 0; d < out->rank; d++)
            out->dim[d] = -1;
        return HK_OK;
    }
    target.rank = n;
    hk_shape_text from, to;
    for (int32_t d = 0; d < n; d++)
        if (target.dim[d] < 0)
            return hk_args_fail(a, "dimension %d of the shape is %lld, expected 0 or more", (int)d,
                                (long long)target.dim[d]);
    if (!hk_shape_broadcast(&x, &target, out))
        return hk_args_fail(a, "input %s cannot be broadcast to %s", hk_shape_print(&x, &from),
                            hk_shape_print(&target, &to));
    return HK_OK;
}

static hk_status expand_infer(hk_infer *in)
{
    hk_args a = hk_infer_args(in);
    hk_shape s;
    HK_TRY(expand_shape(&a, &s));
    return hk_infer_output(in, 0, in->node->in[0]->dtype, &s);
}

static hk_move expand_move(const hk_shape *x, const hk_shape *y)
{
    int64_t from[HK_MAX_RANK], to[HK_MAX_RANK];
    hk_shape_strides(x, from);
    hk_shape_strides(y, to);
    hk_move m = {0};
    for (int32_t d = 0; d < y->rank; d++) {
        int32_t k = d - (y->rank - x->rank);
        hk_move_add(&m, y->dim[d], k < 0 || x->dim[k] == 1 ? 0 : from[k], to[d]);
    }
    return m;
}

static hk_status expand_eval(hk_eval *e)
{
    hk_args a = hk_eval_args(e);
    hk_shape s, x = hk_tensor_shape(e->in[0]);
    HK_TRY(expand_shape(&a, &s));
    hk_tensor *y = hk_eval_output(e, 0, e->in[0]->dtype, &s);
    if (!y)
        return hk_out_of_memory(e->ctx, "an expanded tensor");
    hk_move m = expand_move(&x, &s);
    hk_host_move(&m, e->in[0], y);
    return HK_OK;
}

static hk_status expand_lower(hk_lower *l)
{
    hk_move m = expand_move(&l->node->in[0]->shape, &l->node->out[0]->shape);
    return hk_emit_move(l, &m, l->node->in[0], l->node->out[0]);
}

/* Expand and Tile are views when they repeat nothing. */
static int64_t same_size_view(const hk_node *n)
{
    int64_t x = hk_shape_count(&n->in[0]->shape), y = n->out[0] ? hk_shape_count(&n->out[0]->shape) : -1;
    return x > 0 && x == y ? 0 : -1;
}

/* hk_gradient_add sums over what was broadcast. */
static hk_status expand_backward(hk_gradient *g, hk_node *n)
{
    return hk_gradient_add(g, n->in[0], hk_gradient_of(g, n->out[0]));
}

static const char *const expand_cases[] = {
    "f32[3,1] i64={2,1,6}",
    "f32[3,1] i64={3,4}",
    "f32[4] i64={1}",
    "f32[] i64={2,3}",
    "f32[1,5] i64={3,1}",
    "f32[2,1,4] i64={2,3,4}",
    "f32[1,1] i64={0,4} ; ; nograd",
    "i64[2,1]<7 i64={2,5} ; ; nograd",
    "bool[1,3] i64={4,3} ; ; nograd",
    "f32[1,64,1] i64={33,64,65} ; ; nograd",
    "f32[2,1,2,1,2,1,2] i64={2,3,2,3,2,3,2}",
    "f32[1] i64={70000} ; ; nograd",
    "f32[1] i64={257}",
    "f32[1] i64={1025} ; ; nograd",
    NULL,
};

/* ---- Tile */

static hk_status tile_repeats(const hk_args *a, int32_t rank, int64_t repeats[HK_MAX_RANK], bool *known)
{
    int32_t n;
    *known = false;
    for (int32_t d = 0; d < HK_MAX_RANK; d++)
        repeats[d] = 1;
    if (a->node->op->since >= 6) {
        HK_TRY(hk_args_ints(a, 1, "repeats", repeats, HK_MAX_RANK, &n));
        if (n < 0)
            return HK_OK;
        if (n != rank)
            return hk_args_fail(a, "repeats has %d entries, expected one for each of %d dimensions", (int)n, (int)rank);
    } else {
        int64_t tiles, axis;
        int32_t axes;
        HK_TRY(hk_args_ints(a, 1, "tiles", &tiles, 1, &n));
        HK_TRY(hk_args_ints(a, 2, "axis", &axis, 1, &axes));
        if (n != 1 || axes != 1)
            return HK_OK;
        if (hk_axis(axis, rank) < 0)
            return hk_args_fail(a, "axis %lld, expected 0 to %d", (long long)axis, (int)rank - 1);
        repeats[hk_axis(axis, rank)] = tiles;
    }
    for (int32_t d = 0; d < rank; d++)
        if (repeats[d] < 0 || repeats[d] > INT32_MAX)
            return hk_args_fail(a, "dimension %d is repeated %lld times, expected 0 to 2^31 - 1", (int)d,
                                (long long)repeats[d]);
    *known = true;
    return HK_OK;
}

static hk_status tile_shape(const hk_args *a, hk_shape *out)
{
    int64_t repeats[HK_MAX_RANK];
    bool known;
    *out = hk_args_shape(a, 0);
    if (out->rank < 0)
        return HK_OK;
    HK_TRY(tile_repeats(a, out->rank, repeats, &known));
    for (int32_t d = 0; d < out->rank; d++) {
        if (!known || out->dim[d] < 0)
            out->dim[d] = -1;
        else if (__builtin_mul_overflow(out->dim[d], repeats[d], &out->dim[d]))
            return hk_args_fail(a, "dimension %d grows beyond any tensor", (int)d);
    }
    return HK_OK;
}

static hk_status tile_infer(hk_infer *in)
{
    hk_args a = hk_infer_args(in);
    hk_shape s;
    HK_TRY(tile_shape(&a, &s));
    return hk_infer_output(in, 0, in->node->in[0]->dtype, &s);
}

/* Every dimension of the output is two: which repetition, and where in it. */
static hk_move tile_move(const hk_shape *x, const hk_shape *y)
{
    int64_t from[HK_MAX_RANK], to[HK_MAX_RANK];
    hk_shape_strides(x, from);
    hk_shape_strides(y, to);
    hk_move m = {0};
    for (int32_t d = 0; d < x->rank; d++) {
        hk_move_add(&m, x->dim[d] ? y->dim[d] / x->dim[d] : 0, 0, x->dim[d] * to[d]);
        hk_move_add(&m, x->dim[d], from[d], to[d]);
    }
    return m;
}

static hk_status tile_eval(hk_eval *e)
{
    hk_args a = hk_eval_args(e);
    hk_shape s, x = hk_tensor_shape(e->in[0]);
    HK_TRY(tile_shape(&a, &s));
    hk_tensor *y = hk_eval_output(e, 0, e->in[0]->dtype, &s);
    if (!y)
        return hk_out_of_memory(e->ctx, "a tiled tensor");
    hk_move m = tile_move(&x, &s);
    hk_host_move(&m, e->in[0], y);
    return HK_OK;
}

static hk_status tile_lower(hk_lower *l)
{
    hk_move m = tile_move(&l->node->in[0]->shape, &l->node->out[0]->shape);
    return hk_emit_move(l, &m, l->node->in[0], l->node->out[0]);
}

static hk_status reshape_to(hk_graph *g, hk_value *v, const int64_t *dims, int32_t rank, hk_value **out)
{
    const hk_attr_value attrs[] = {HK_SET_INT("allowzero", 1), {0}};
    hk_value *shape = hk_graph_ints(g, dims, rank);
    return shape ? hk_build(g, "Reshape", attrs, (hk_value *[]){v, shape}, 2, out, 1) : HK_STATUS_OUT_OF_MEMORY;
}

/* Axis by axis, so that no rank grows: [before, repeats, one tile and all inside it] summed over the repeats. */
static hk_status tile_backward(hk_gradient *g, hk_node *n)
{
    hk_graph *graph = hk_gradient_graph(g);
    hk_value *x = n->in[0], *dx = hk_gradient_of(g, n->out[0]);
    hk_args a = hk_node_args(graph->ctx, n);
    int64_t repeats[HK_MAX_RANK];
    bool known = false;
    if (!hk_gradient_wanted(g, x) || !dx)
        return HK_OK;
    if (hk_shape_known(&x->shape))
        HK_TRY(tile_repeats(&a, x->shape.rank, repeats, &known));
    if (!known)
        return hk_args_shape_wanted(&a);
    hk_shape now = dx->shape;
    for (int32_t d = 0; d < now.rank; d++) {
        if (repeats[d] == 1)
            continue;
        int64_t one = 1;
        int64_t dims[3] = {hk_shape_span(&now, 0, d), repeats[d],
                           x->shape.dim[d] * hk_shape_span(&now, d + 1, now.rank)};
        const hk_attr_value attrs[] = {HK_SET_INT("keepdims", 0), {0}};
        hk_value *axes = hk_graph_ints(graph, &one, 1);
        if (!axes)
            return HK_STATUS_OUT_OF_MEMORY;
        HK_TRY(reshape_to(graph, dx, dims, 3, &dx));
        HK_TRY(hk_build(graph, "ReduceSum", attrs, (hk_value *[]){dx, axes}, 2, &dx, 1));
        now.dim[d] = x->shape.dim[d];
    }
    HK_TRY(reshape_to(graph, dx, x->shape.dim, x->shape.rank, &dx));
    return hk_gradient_add(g, x, dx);
}

static const char *const tile_cases[] = {
    "f32[2,3] i64={2,1}",
    "f32[2,3] i64={1,3}",
    "f32[2,3,4] i64={2,3,2}",
    "f32[5] i64={1}",
    "f32[] i64={}",
    "f32[2,3] i64={0,2} ; ; nograd",
    "i64[3]<9 i64={4} ; ; nograd",
    "f32[2,3,2,3,2] i64={2,2,2,2,2}",
    "f32[3,64] i64={1,40} ; ; nograd",
    "i64[2,2,2,2,2]<9 i64={2,3,2,3,2} ; ; nograd",
    NULL,
};
static const char *const tile_1_cases[] = {"f32[2,3] i64=3 i64=1", NULL};

const hk_op hk_ops_transpose[] = {
    {.type = "Transpose",
     .since = 1,
     .in_min = 1,
     .in_max = 1,
     .out_min = 1,
     .out_max = 1,
     .flags = HK_OP_VIEW | HK_OP_ANY_TYPE,
     .attrs_bytes = sizeof(transpose_attrs),
     .attrs = transpose_attr_list,
     .infer = transpose_infer,
     .eval = transpose_eval,
     .lower = transpose_lower,
     .backward = transpose_backward,
     .view_offset = transpose_view,
     .cases = transpose_cases},
    {.type = "Expand",
     .since = 8,
     .in_min = 2,
     .in_max = 2,
     .out_min = 1,
     .out_max = 1,
     .flags = HK_OP_VIEW | HK_OP_ANY_TYPE,
     .host_inputs = 2,
     .infer = expand_infer,
     .eval = expand_eval,
     .lower = expand_lower,
     .backward = expand_backward,
     .view_offset = same_size_view,
     .cases = expand_cases},
    {.type = "Tile",
     .since = 1,
     .until = 5,
     .in_min = 3,
     .in_max = 3,
     .out_min = 1,
     .out_max = 1,
     .flags = HK_OP_VIEW | HK_OP_ANY_TYPE,
     .host_inputs = 6,
     .infer = tile_infer,
     .eval = tile_eval,
     .lower = tile_lower,
     .backward = tile_backward,
     .view_offset = same_size_view,
     .cases = tile_1_cases},
    {.type = "Tile",
     .since = 6,
     .in_min = 2,
     .in_max = 2,
     .out_min = 1,
     .out_max = 1,
     .flags = HK_OP_VIEW | HK_OP_ANY_TYPE,
     .host_inputs = 2,
     .infer = tile_infer,
     .eval = tile_eval,
     .lower = tile_lower,
     .backward = tile_backward,
     .view_offset = same_size_view,
     .cases = tile_cases},
    {0},
};
