/*
 * Lists of tensors: SequenceConstruct, SequenceEmpty, SequenceInsert, SequenceErase, SequenceAt, SequenceLength,
 * SplitToSequence, ConcatFromSequence, Optional, OptionalHasElement, OptionalGetElement. (SequenceMap has a body: it is
 * in control.c.)
 */
#include "ops/support/sequence.h"

#include <string.h>

#include "ops/support/build.h"
#include "ops/support/move.h"
#include "ops/support/move_args.h"

/* ---- what they share */

hk_status hk_infer_list(hk_infer *in, int32_t i, hk_dtype dtype, hk_dtype item, hk_dtype element, int64_t count)
{
    hk_shape s = {.rank = 1, .dim = {count}};
    hk_value *v = hk_out(in->node, i);
    if (!v)
        return HK_OK;
    const hk_list *declared = v->list;
    HK_TRY(hk_infer_output(in, i, dtype, &s));
    if (declared && declared->item != HK_DTYPE_NONE && item != HK_DTYPE_NONE && declared->item != item)
        return hk_infer_fail(in, HK_STATUS_INVALID, "output '%s' is declared to hold %s and gets %s", v->name,
                             hk_dtype_name(declared->item), hk_dtype_name(item));
    if (declared && item == HK_DTYPE_NONE)
        return HK_OK;
    return hk_value_set_list(v, dtype, item, element, NULL, v->shape.dim[0]) ? HK_OK : HK_STATUS_OUT_OF_MEMORY;
}

hk_status hk_expand_list(hk_graph *g, const hk_node *n, int32_t i, hk_value *const *items, int64_t count)
{
    hk_value *v = n->out[i];
    uint64_t *total = &g->list_items;
    if (count > HK_LIST_MAX || (*total += (uint64_t)count) > HK_LIST_TOTAL_MAX)
        return hk_fail(
            g->ctx, HK_STATUS_UNSUPPORTED,
            "node '%s' (%s): a list of %lld items; at most %d, and %d in all lists of a graph, are supported", n->name,
            n->type, (long long)count, HK_LIST_MAX, HK_LIST_TOTAL_MAX);
    hk_value *none = NULL;
    v->producer = NULL;
    return hk_value_set_list(v, v->dtype, v->list->item, v->list->element, count ? items : &none, count)
               ? HK_OK
               : HK_STATUS_OUT_OF_MEMORY;
}

hk_tensor *hk_eval_list(hk_eval *e, int32_t i, hk_dtype dtype, int64_t count)
{
    return hk_eval_output(e, i, dtype, &(hk_shape){.rank = 1, .dim = {count}});
}

static int64_t length(const hk_value *v)
{
    return v->shape.rank == 1 ? v->shape.dim[0] : -1;
}

static hk_status need_sequence(hk_infer *in, int32_t i)
{
    const hk_value *v = in->node->in[i];
    if (v->dtype == HK_SEQUENCE && v->list)
        return HK_OK;
    return hk_infer_fail(in, HK_STATUS_INVALID, "input '%s' is %s, expected a sequence", v->name,
                         hk_dtype_name(v->dtype));
}

static hk_status need_tensor(hk_infer *in, int32_t i)
{
    const hk_value *v = in->node->in[i];
    if (!hk_dtype_is_list(v->dtype))
        return HK_OK;
    return hk_infer_fail(in, HK_STATUS_INVALID, "input '%s' is %s, expected a tensor", v->name,
                         hk_dtype_name(v->dtype));
}

/* Reads a position in [-count, last], negative ones from the end; absent: the last. */
static hk_status read_position(hk_context *ctx, const hk_node *n, const hk_tensor *t, int64_t count, int64_t last,
                               int64_t *out)
{
    int64_t given = t && hk_tensor_count(t) > 0 ? hk_get_int(t, 0) : last;
    *out = given < 0 ? given + count : given;
    if (*out >= 0 && *out <= last)
        return HK_OK;
    return hk_fail(ctx, HK_STATUS_INVALID, "node '%s' (%s): position %lld in a sequence of %lld, expected %lld to %lld",
                   n->name, n->type, (long long)given, (long long)count, (long long)-count, (long long)last);
}

static hk_status check_position(hk_infer *in, int32_t i)
{
    const hk_value *v = hk_in(in->node, i);
    if (!v || ((v->dtype == HK_INT64 || v->dtype == HK_INT32) &&
               (!hk_shape_known(&v->shape) || hk_shape_count(&v->shape) == 1)))
        return HK_OK;
    return hk_infer_fail(in, HK_STATUS_INVALID, "the position is %s, expected one int32 or int64",
                         hk_dtype_name(v->dtype));
}

/* ---- SequenceConstruct, SequenceEmpty */

static hk_status construct_infer(hk_infer *in)
{
    const hk_node *n = in->node;
    for (int32_t i = 0; i < n->in_count; i++) {
        if (!n->in[i])
            return hk_infer_fail(in, HK_STATUS_INVALID, "input %d is absent", (int)i);
        HK_TRY(need_tensor(in, i));
        if (n->in[i]->dtype != n->in[0]->dtype)
            return hk_infer_fail(in, HK_STATUS_INVALID, "input %d is %s, expected %s as the first", (int)i,
                                 hk_dtype_name(n->in[i]->dtype), hk_dtype_name(n->in[0]->dtype));
    }
    return hk_infer_list(in, 0, HK_SEQUENCE, n->in[0]->dtype, HK_DTYPE_NONE, n->in_count);
}

static hk_status construct_eval(hk_eval *e)
{
    hk_tensor *list = hk_eval_list(e, 0, HK_SEQUENCE, e->node->in_count);
    for (int32_t i = 0; list && i < e->node->in_count; i++)
        ((hk_tensor *)list->data)[i] = *e->in[i];
    return list ? HK_OK : hk_out_of_memory(e->ctx, "a sequence");
}

static hk_status construct_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    (void)out;
    return hk_expand_list(g, n, 0, n->in, n->in_count);
}

typedef struct empty_attrs {
    int64_t dtype;
} empty_attrs;
static const hk_attr empty_attr_list[] = {HK_INT_ATTR(empty_attrs, dtype, HK_FLOAT32), {0}};

static hk_status empty_infer(hk_infer *in)
{
    hk_dtype dtype = (hk_dtype)((const empty_attrs *)in->node->attrs)->dtype;
    if (!hk_dtype_bytes(dtype) || hk_dtype_is_list(dtype))
        return hk_infer_fail(in, HK_STATUS_UNSUPPORTED, "element type %d is not supported", (int)dtype);
    return hk_infer_list(in, 0, HK_SEQUENCE, dtype, HK_DTYPE_NONE, 0);
}

static hk_status empty_eval(hk_eval *e)
{
    return hk_eval_list(e, 0, HK_SEQUENCE, 0) ? HK_OK : hk_out_of_memory(e->ctx, "a sequence");
}

static hk_status empty_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    (void)out;
    return hk_expand_list(g, n, 0, NULL, 0);
}

/* ---- SequenceInsert, SequenceErase */

static hk_status insert_infer(hk_infer *in)
{
    const hk_value *list = in->node->in[0], *x = in->node->in[1];
    HK_TRY(need_sequence(in, 0));
    HK_TRY(need_tensor(in, 1));
    HK_TRY(check_position(in, 2));
    if (list->list->item != HK_DTYPE_NONE && list->list->item != x->dtype)
        return hk_infer_fail(in, HK_STATUS_INVALID, "inserts %s into a sequence of %s", hk_dtype_name(x->dtype),
                             hk_dtype_name(list->list->item));
    int64_t count = length(list);
    return hk_infer_list(in, 0, HK_SEQUENCE, x->dtype, HK_DTYPE_NONE, count < 0 ? -1 : count + 1);
}

static hk_status insert_eval(hk_eval *e)
{
    int64_t count = hk_tensor_count(e->in[0]), at = 0;
    HK_TRY(read_position(e->ctx, e->node, e->node->in_count > 2 ? e->in[2] : NULL, count, count, &at));
    hk_tensor *list = hk_eval_list(e, 0, HK_SEQUENCE, count + 1), *items = list ? list->data : NULL;
    for (int64_t i = 0; items && i <= count; i++)
        items[i] = i == at ? *e->in[1] : *hk_list_item(e->in[0], i - (i > at));
    return list ? HK_OK : hk_out_of_memory(e->ctx, "a sequence");
}

static hk_status insert_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    int64_t count = length(n->in[0]), at = 0;
    (void)out;
    HK_TRY(read_position(g->ctx, n, hk_known(n, 2), count, count, &at));
    hk_value **items = hk_arena_array(g->arena, (size_t)count + 1, sizeof *items);
    if (!items)
        return hk_out_of_memory(g->ctx, "a sequence");
    for (int64_t i = 0; i <= count; i++)
        items[i] = i == at ? n->in[1] : n->in[0]->list->items[i - (i > at)];
    return hk_expand_list(g, n, 0, items, count + 1);
}

static hk_status erase_infer(hk_infer *in)
{
    HK_TRY(need_sequence(in, 0));
    HK_TRY(check_position(in, 1));
    int64_t count = length(in->node->in[0]);
    if (count == 0)
        return hk_infer_fail(in, HK_STATUS_INVALID, "the sequence is empty");
    return hk_infer_list(in, 0, HK_SEQUENCE, in->node->in[0]->list->item, HK_DTYPE_NONE, count < 0 ? -1 : count - 1);
}

static hk_status erase_eval(hk_eval *e)
{
    int64_t count = hk_tensor_count(e->in[0]), at = 0;
    HK_TRY(read_position(e->ctx, e->node, e->node->in_count > 1 ? e->in[1] : NULL, count, count - 1, &at));
    hk_tensor *list = hk_eval_list(e, 0, HK_SEQUENCE, count - 1), *items = list ? list->data : NULL;
    for (int64_t i = 0; items && i < count - 1; i++)
        items[i] = *hk_list_item(e->in[0], i + (i >= at));
    return list ? HK_OK : hk_out_of_memory(e->ctx, "a sequence");
}

static hk_status erase_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    int64_t count = length(n->in[0]), at = 0;
    (void)out;
    HK_TRY(read_position(g->ctx, n, hk_known(n, 1), count, count - 1, &at));
    hk_value **items = hk_arena_array(g->arena, (size_t)count, sizeof *items);
    if (!items)
        return hk_out_of_memory(g->ctx, "a sequence");
    for (int64_t i = 0; i < count - 1; i++)
        items[i] = n->in[0]->list->items[i + (i >= at)];
    return hk_expand_list(g, n, 0, items, count - 1);
}

/* ---- SequenceAt, SequenceLength */

static hk_status at_infer(hk_infer *in)
{
    HK_TRY(need_sequence(in, 0));
    HK_TRY(check_position(in, 1));
    hk_dtype item = in->node->in[0]->list->item;
    if (item == HK_DTYPE_NONE)
        return hk_infer_fail(in, HK_STATUS_UNSUPPORTED, "what the sequence holds is not known");
    return hk_infer_output(in, 0, item, &HK_SHAPE_UNKNOWN);
}

static hk_status at_eval(hk_eval *e)
{
    int64_t count = hk_tensor_count(e->in[0]), at = 0;
    HK_TRY(read_position(e->ctx, e->node, e->in[1], count, count - 1, &at));
    e->out[0] = (hk_tensor *)e->in[0]->data + at;
    return HK_OK;
}

static hk_status at_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    int64_t count = length(n->in[0]), at = 0;
    HK_TRY(read_position(g->ctx, n, hk_known(n, 1), count, count - 1, &at));
    out[0] = n->in[0]->list->items[at];
    return HK_OK;
}

static hk_status length_infer(hk_infer *in)
{
    HK_TRY(need_sequence(in, 0));
    return hk_infer_output(in, 0, HK_INT64, &HK_SCALAR);
}

static hk_status length_eval(hk_eval *e)
{
    hk_tensor *y = hk_eval_output(e, 0, HK_INT64, &HK_SCALAR);
    if (y)
        hk_set_int(y, 0, hk_tensor_count(e->in[0]));
    return y ? HK_OK : hk_out_of_memory(e->ctx, "a length");
}

static hk_status length_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    out[0] = hk_graph_scalar(g, HK_INT64, (double)length(n->in[0]));
    return out[0] ? HK_OK : HK_STATUS_OUT_OF_MEMORY;
}

/* ---- SplitToSequence: into pieces of 1 (keepdims = 0 drops the axis), of one size with a smaller last, or of given
 * sizes */

typedef struct split_attrs {
    int64_t axis, keepdims;
} split_attrs;
static const hk_attr split_attr_list[] = {
    HK_INT_ATTR(split_attrs, axis, 0), HK_INT_ATTR(split_attrs, keepdims, 1), {0}};

typedef struct pieces {
    int32_t axis;
    bool drop; /* the axis goes */
    int64_t count;
    int64_t *sizes; /* NULL: all of `chunk`, the last may be smaller */
    int64_t chunk, extent;
} pieces;

static int64_t piece_size(const pieces *p, int64_t i)
{
    return p->sizes ? p->sizes[i] : HK_MIN(p->chunk, p->extent - i * p->chunk);
}

static hk_status read_pieces(const hk_args *a, hk_arena *arena, const hk_shape *x, const hk_tensor *split, pieces *p)
{
    const split_attrs *s = a->node->attrs;
    *p = (pieces){.chunk = 1};
    HK_TRY(hk_args_axis(a, s->axis, x->rank, &p->axis));
    p->extent = x->dim[p->axis];
    p->drop = !split && !s->keepdims;
    if (split && split->rank == 0)
        p->chunk = hk_get_int(split, 0);
    if (p->chunk < 1)
        return hk_args_fail(a, "split is %lld, expected at least 1", (long long)p->chunk);
    p->count = split && split->rank > 0 ? hk_tensor_count(split) : p->extent / p->chunk + (p->extent % p->chunk != 0);
    if (p->count > HK_LIST_MAX)
        return hk_args_fail(a, "splits into %lld pieces, at most %d are supported", (long long)p->count, HK_LIST_MAX);
    if (!split || split->rank == 0)
        return HK_OK;
    p->sizes = hk_arena_array(arena, (size_t)p->count + 1, sizeof *p->sizes);
    if (!p->sizes)
        return hk_out_of_memory(a->ctx, "the sizes of a split");
    int64_t left = p->extent;
    for (int64_t i = 0; i < p->count; i++) {
        p->sizes[i] = hk_get_int(split, i);
        if (p->sizes[i] < 0 || p->sizes[i] > left)
            return hk_args_fail(a, "entry %lld of split is %lld, expected 0 to the %lld that are left", (long long)i,
                                (long long)p->sizes[i], (long long)left);
        left -= p->sizes[i];
    }
    return left == 0 ? HK_OK : hk_args_fail(a, "split leaves %lld elements of the axis over", (long long)left);
}

static hk_status split_infer(hk_infer *in)
{
    const hk_node *n = in->node;
    const hk_value *x = n->in[0], *split = hk_in(n, 1);
    hk_args a = hk_infer_args(in);
    int64_t count = -1;
    HK_TRY(need_tensor(in, 0));
    if (split && split->dtype != HK_INT64 && split->dtype != HK_INT32)
        return hk_infer_fail(in, HK_STATUS_INVALID, "split is %s, expected int32 or int64",
                             hk_dtype_name(split->dtype));
    if (split && split->shape.rank > 1)
        return hk_infer_fail(in, HK_STATUS_INVALID, "split has rank %d, expected 0 or 1", (int)split->shape.rank);
    if (hk_shape_known(&x->shape) && (!split || split->data)) {
        pieces p;
        HK_TRY(read_pieces(&a, in->graph->arena, &x->shape, split ? split->data : NULL, &p));
        count = p.count;
    }
    return hk_infer_list(in, 0, HK_SEQUENCE, x->dtype, HK_DTYPE_NONE, count);
}

static hk_status split_eval(hk_eval *e)
{
    hk_args a = hk_eval_args(e);
    hk_shape x = hk_tensor_shape(e->in[0]), y = x;
    pieces p;
    HK_TRY(read_pieces(&a, e->arena, &x, e->node->in_count > 1 ? e->in[1] : NULL, &p));
    hk_tensor *list = hk_eval_list(e, 0, HK_SEQUENCE, p.count), *items = list ? list->data : NULL;
    int64_t outer = hk_shape_span(&x, 0, p.axis), inner = hk_shape_span(&x, p.axis + 1, x.rank), at = 0;
    if (p.drop)
        memmove(y.dim + p.axis, y.dim + p.axis + 1, (size_t)(--y.rank - p.axis) * sizeof *y.dim);
    for (int64_t i = 0; items && i < p.count; at += piece_size(&p, i) * inner, i++) {
        int64_t row = piece_size(&p, i) * inner;
        if (!p.drop)
            y.dim[p.axis] = piece_size(&p, i);
        hk_tensor *piece = hk_tensor_new(e->arena, e->in[0]->dtype, &y);
        if (!piece)
            return hk_out_of_memory(e->ctx, "a piece");
        hk_move m = {.from_offset = at};
        hk_move_add(&m, outer, p.extent * inner, row);
        hk_move_add(&m, row, 1, 1);
        hk_host_move(&m, e->in[0], piece);
        items[i] = *piece;
    }
    return list ? HK_OK : hk_out_of_memory(e->ctx, "a sequence");
}

static hk_status split_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    hk_args a = hk_node_args(g->ctx, n);
    pieces p;
    (void)out;
    HK_TRY(read_pieces(&a, g->arena, &n->in[0]->shape, hk_known(n, 1), &p));
    hk_value **items = hk_arena_array(g->arena, (size_t)p.count + 1, sizeof *items);
    int64_t *sizes = hk_arena_array(g->arena, (size_t)p.count + 1, sizeof *sizes);
    if (!items || !sizes)
        return hk_out_of_memory(g->ctx, "a sequence");
    for (int64_t i = 0; i < p.count; i++)
        sizes[i] = piece_size(&p, i);
    hk_value *in[] = {n->in[0], p.count ? hk_graph_ints(g, sizes, p.count) : NULL};
    const hk_attr_value attrs[] = {HK_SET_INT("axis", p.axis), {0}};
    if (p.count && !in[1])
        return HK_STATUS_OUT_OF_MEMORY;
    if (p.count)
        HK_TRY(hk_build(g, "Split", attrs, in, 2, items, (int32_t)p.count));
    hk_shape y = n->in[0]->shape;
    if (p.drop)
        memmove(y.dim + p.axis, y.dim + p.axis + 1, (size_t)(--y.rank - p.axis) * sizeof *y.dim);
    for (int64_t i = 0; p.drop && i < p.count; i++)
        HK_TRY(hk_build_reshape(g, items[i], &y, &items[i]));
    return hk_expand_list(g, n, 0, items, p.count);
}

/* ---- ConcatFromSequence: along an axis there is, or (new_axis) one that is made */

typedef struct concat_attrs {
    int64_t axis, new_axis;
} concat_attrs;
static const hk_attr concat_attr_list[] = {
    {.name = "axis", .kind = HK_ATTR_INT, .offset = offsetof(concat_attrs, axis), .required = true},
    HK_INT_ATTR(concat_attrs, new_axis, 0),
    {0}};

static hk_status concat_infer(hk_infer *in)
{
    HK_TRY(need_sequence(in, 0));
    hk_dtype item = in->node->in[0]->list->item;
    if (length(in->node->in[0]) == 0)
        return hk_infer_fail(in, HK_STATUS_INVALID, "the sequence is empty: its concatenation has no shape");
    if (item == HK_DTYPE_NONE)
        return hk_infer_fail(in, HK_STATUS_UNSUPPORTED, "what the sequence holds is not known");
    return hk_infer_output(in, 0, item, &HK_SHAPE_UNKNOWN);
}

/* The axis in the result, and the item's shape with the new axis, which may have rank + 1 dimensions. */
static hk_status concat_axis(hk_context *ctx, const hk_node *n, hk_shape *item, int32_t *axis)
{
    const concat_attrs *a = n->attrs;
    int32_t rank = item->rank + (a->new_axis ? 1 : 0);
    *axis = hk_axis(a->axis, rank);
    if (*axis < 0 || rank > HK_MAX_RANK)
        return hk_fail(ctx, HK_STATUS_INVALID,
                       "node '%s' (%s): axis %lld of a result of rank %d, at most rank %d is supported", n->name,
                       n->type, (long long)a->axis, (int)rank, HK_MAX_RANK);
    if (!a->new_axis)
        return HK_OK;
    memmove(item->dim + *axis + 1, item->dim + *axis, (size_t)(item->rank - *axis) * sizeof *item->dim);
    item->dim[*axis] = 1;
    item->rank = rank;
    return HK_OK;
}

static hk_status concat_eval(hk_eval *e)
{
    int64_t count = hk_tensor_count(e->in[0]), total = 0, at = 0;
    hk_shape y = HK_SCALAR;
    int32_t axis = 0;
    if (count == 0)
        return hk_eval_fail(e, HK_STATUS_INVALID, "the sequence is empty: its concatenation has no shape");
    for (int64_t i = 0; i < count; i++) {
        hk_shape s = hk_tensor_shape(hk_list_item(e->in[0], i));
        HK_TRY(concat_axis(e->ctx, e->node, &s, &axis));
        total += s.dim[axis];
        hk_shape rest = s;
        rest.dim[axis] = y.dim[axis];
        if (i > 0 &&
            (!hk_shape_equal(&rest, &y) || hk_list_item(e->in[0], i)->dtype != hk_list_item(e->in[0], 0)->dtype))
            return hk_eval_fail(e, HK_STATUS_INVALID, "item %lld has another shape than the first", (long long)i);
        y = i > 0 ? y : s;
    }
    y.dim[axis] = total;
    hk_tensor *to = hk_eval_output(e, 0, hk_list_item(e->in[0], 0)->dtype, &y);
    if (!to)
        return hk_out_of_memory(e->ctx, "a concatenation");
    int64_t outer = hk_shape_span(&y, 0, axis), inner = hk_shape_span(&y, axis + 1, y.rank);
    for (int64_t i = 0; i < count; i++) {
        const hk_tensor *item = hk_list_item(e->in[0], i);
        int64_t row = outer ? hk_tensor_count(item) / outer : 0;
        hk_move m = {.to_offset = at};
        hk_move_add(&m, outer, row, total * inner);
        hk_move_add(&m, row, 1, 1);
        hk_host_move(&m, item, to);
        at += row;
    }
    return HK_OK;
}

static hk_status concat_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    const concat_attrs *a = n->attrs;
    int64_t count = length(n->in[0]);
    int32_t axis = 0;
    hk_value **parts = hk_arena_array(g->arena, (size_t)count, sizeof *parts);
    if (!parts)
        return hk_out_of_memory(g->ctx, "a concatenation");
    for (int64_t i = 0; i < count; i++) {
        parts[i] = n->in[0]->list->items[i];
        hk_shape s = parts[i]->shape;
        HK_TRY(concat_axis(g->ctx, n, &s, &axis));
        if (a->new_axis)
            HK_TRY(hk_build_reshape(g, parts[i], &s, &parts[i]));
    }
    const hk_attr_value attrs[] = {HK_SET_INT("axis", axis), {0}};
    return hk_build(g, "Concat", attrs, parts, (int32_t)count, out, 1);
}

/* ---- Optional, OptionalHasElement, OptionalGetElement */

typedef struct optional_attrs {
    hk_type type;
} optional_attrs;
static const hk_attr optional_attr_list[] = {HK_TYPE_ATTR(optional_attrs, type), {0}};

static hk_status optional_infer(hk_infer *in)
{
    const hk_value *x = hk_in(in->node, 0);
    hk_type t = ((const optional_attrs *)in->node->attrs)->type;
    if (x && x->dtype == HK_OPTIONAL)
        return hk_infer_fail(in, HK_STATUS_INVALID, "input '%s' is an optional itself", x->name);
    if (x)
        return hk_infer_list(in, 0, HK_OPTIONAL, x->dtype, x->list ? x->list->item : HK_DTYPE_NONE, 1);
    return hk_infer_list(in, 0, HK_OPTIONAL, t.dtype, t.item, 0);
}

static hk_status optional_eval(hk_eval *e)
{
    const hk_tensor *x = e->node->in_count > 0 ? e->in[0] : NULL;
    hk_tensor *list = hk_eval_list(e, 0, HK_OPTIONAL, x ? 1 : 0);
    if (list && x)
        *(hk_tensor *)list->data = *x;
    return list ? HK_OK : hk_out_of_memory(e->ctx, "an optional");
}

static hk_status optional_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    (void)out;
    return hk_expand_list(g, n, 0, n->in, hk_in(n, 0) ? 1 : 0);
}

static hk_status has_infer(hk_infer *in)
{
    return hk_infer_output(in, 0, HK_BOOL, &HK_SCALAR);
}

static hk_status has_eval(hk_eval *e)
{
    const hk_tensor *x = e->node->in_count > 0 ? e->in[0] : NULL;
    hk_tensor *y = hk_eval_output(e, 0, HK_BOOL, &HK_SCALAR);
    if (y)
        hk_set_int(y, 0, x && (x->dtype != HK_OPTIONAL || hk_tensor_count(x) > 0));
    return y ? HK_OK : hk_out_of_memory(e->ctx, "a condition");
}

static hk_status has_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    const hk_value *x = hk_in(n, 0);
    out[0] = hk_graph_scalar(g, HK_BOOL, x && (x->dtype != HK_OPTIONAL || length(x) > 0));
    return out[0] ? HK_OK : HK_STATUS_OUT_OF_MEMORY;
}

static hk_status get_infer(hk_infer *in)
{
    const hk_value *x = in->node->in[0];
    if (x->dtype == HK_SEQUENCE)
        return hk_infer_list(in, 0, HK_SEQUENCE, x->list->item, HK_DTYPE_NONE, length(x));
    if (x->dtype != HK_OPTIONAL)
        return hk_infer_output(in, 0, x->dtype, &x->shape);
    if (x->list->item == HK_DTYPE_NONE)
        return hk_infer_fail(in, HK_STATUS_UNSUPPORTED, "what the optional '%s' holds is not known", x->name);
    if (x->list->item == HK_SEQUENCE)
        return hk_infer_list(in, 0, HK_SEQUENCE, x->list->element, HK_DTYPE_NONE, -1);
    return hk_infer_output(in, 0, x->list->item, &HK_SHAPE_UNKNOWN);
}

static hk_status get_eval(hk_eval *e)
{
    bool optional = e->in[0]->dtype == HK_OPTIONAL;
    if (optional && hk_tensor_count(e->in[0]) == 0)
        return hk_eval_fail(e, HK_STATUS_INVALID, "the optional is empty");
    e->out[0] = optional ? e->in[0]->data : (hk_tensor *)(uintptr_t)e->in[0];
    return HK_OK;
}

static hk_status get_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    hk_value *x = n->in[0];
    if (x->dtype == HK_OPTIONAL && length(x) == 0)
        return hk_fail(g->ctx, HK_STATUS_INVALID, "node '%s' (%s): the optional '%s' is empty", n->name, n->type,
                       x->name);
    x = x->dtype == HK_OPTIONAL ? x->list->items[0] : x;
    if (x->list)
        return hk_expand_list(g, n, 0, x->list->items, length(x));
    out[0] = x;
    return HK_OK;
}

#define LIST_OP(type_, since_, ins_least, ins_most, host, name)                                                        \
    .type = (type_), .since = (since_), .in_min = (ins_least), .in_max = (ins_most), .out_min = 1, .out_max = 1,       \
    .flags = HK_OP_LIST, .host_inputs = (host), .infer = name##_infer, .eval = name##_eval, .expand = name##_expand

const hk_op hk_ops_sequence[] = {
    {LIST_OP("SequenceConstruct", 11, 1, -1, 0, construct)},
    {LIST_OP("SequenceEmpty", 11, 0, 0, 0, empty), .attrs_bytes = sizeof(empty_attrs), .attrs = empty_attr_list},
    {LIST_OP("SequenceInsert", 11, 2, 3, 1u << 2, insert)},
    {LIST_OP("SequenceErase", 11, 1, 2, 1u << 1, erase)},
    {LIST_OP("SequenceAt", 11, 2, 2, 1u << 1, at)},
    {LIST_OP("SequenceLength", 11, 1, 1, 0, length)},
    {LIST_OP("SplitToSequence", 11, 1, 2, 1u << 1, split), .attrs_bytes = sizeof(split_attrs),
     .attrs = split_attr_list},
    {LIST_OP("ConcatFromSequence", 11, 1, 1, 0, concat), .attrs_bytes = sizeof(concat_attrs),
     .attrs = concat_attr_list},
    {LIST_OP("Optional", 15, 0, 1, 0, optional), .attrs_bytes = sizeof(optional_attrs), .attrs = optional_attr_list},
    {LIST_OP("OptionalHasElement", 15, 0, 1, 0, has)},
    {LIST_OP("OptionalGetElement", 15, 1, 1, 0, get)},
    {0},
};
