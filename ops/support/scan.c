/* Scan on the host: its body sees one element of every sequence at a time, and carries the other values along. */
#include "ops/support/scan.h"

#include <string.h>

#include "ops/support/move.h"

bool hk_is_scan(const hk_node *n)
{
    return !strcmp(n->type, "Scan");
}

bool hk_is_batched_scan(const hk_node *n)
{
    return n->op->until == 8;
}

static int32_t sequences(const hk_control_run *c)
{
    return (int32_t)((const hk_scan_attrs *)c->node->attrs)->num_scan_inputs;
}

static int64_t entry(hk_ints list, int32_t i)
{
    return list.v && i < list.count ? list.v[i] : 0;
}

static hk_status fail(hk_control_run *c, const char *what, int32_t i)
{
    return hk_fail(c->ctx, HK_STATUS_INVALID, "node '%s' (Scan): %s %d", c->node->name, what, (int)i);
}

/* The dimension along which sequence i is cut. */
static int32_t input_axis(const hk_control_run *c, int32_t i)
{
    return hk_axis(entry(((const hk_scan_attrs *)c->node->attrs)->scan_input_axes, i), c->in[c->carried + i]->rank);
}

/* All sequences have one length, which is how often the body runs. */
static hk_status find_length(hk_control_run *c)
{
    for (int32_t i = 0; i < sequences(c); i++) {
        int32_t axis = input_axis(c, i);
        if (axis < 0)
            return fail(c, "there is no such axis as asked for in scan input", i);
        int64_t length = c->in[c->carried + i]->shape[axis];
        if (i > 0 && length != c->trips)
            return fail(c, "the length differs from the first sequence's in scan input", i);
        c->trips = length;
    }
    return HK_OK;
}

bool hk_scan_begin(hk_control_run *c)
{
    if (hk_is_batched_scan(c->node))
        return hk_batched_scan_begin(c);
    c->carried = c->node->in_count - sequences(c);
    c->scans = c->node->out_count - c->carried;
    c->condition = true;
    c->body = c->node->bodies[0];
    c->body_in_count = (size_t)c->node->in_count;
    c->body_in = hk_arena_array(c->arena, c->body_in_count, sizeof *c->body_in);
    c->rows = hk_arena_array(c->arena, (size_t)HK_MAX(c->scans, 1), sizeof *c->rows);
    if (!c->body_in || !c->rows)
        return false;
    for (int32_t i = 0; i < c->carried; i++)
        c->body_in[i] = c->in[i];
    c->status = find_length(c);
    for (int32_t i = 0; i < c->scans; i++) {
        c->rows[i] = hk_arena_array(c->arena, (size_t)c->trips + 1, sizeof *c->rows[i]);
        if (!c->rows[i])
            return false;
    }
    return true;
}

/* Element number c->trip of sequence i, in its direction. */
static const hk_tensor *cut(hk_control_run *c, int32_t i)
{
    const hk_tensor *x = c->in[c->carried + i];
    int32_t axis = input_axis(c, i);
    hk_shape s = hk_tensor_shape(x);
    int64_t outer = hk_shape_span(&s, 0, axis), inner = hk_shape_span(&s, axis + 1, s.rank);
    bool backward = entry(((const hk_scan_attrs *)c->node->attrs)->scan_input_directions, i) != 0;
    hk_move m = {.from_offset = (backward ? c->trips - 1 - c->trip : c->trip) * inner};
    hk_move_add(&m, outer, c->trips * inner, inner);
    hk_move_add(&m, inner, 1, 1);
    s.rank--;
    memmove(s.dim + axis, s.dim + axis + 1, (size_t)(s.rank - axis) * sizeof *s.dim);
    hk_tensor *element = hk_tensor_new(c->arena, x->dtype, &s);
    if (element)
        hk_host_move(&m, x, element);
    return element;
}

bool hk_scan_next(hk_control_run *c)
{
    if (hk_is_batched_scan(c->node))
        return hk_batched_scan_next(c);
    for (int32_t i = 0; i < sequences(c); i++) {
        c->body_in[c->carried + i] = cut(c, i);
        if (!c->body_in[c->carried + i]) {
            c->status = hk_out_of_memory(c->ctx, "a scan");
            return false;
        }
    }
    return true;
}

hk_status hk_scan_step(hk_control_run *c, const hk_tensor *const *outputs)
{
    if (hk_is_batched_scan(c->node))
        return hk_batched_scan_step(c, outputs);
    for (int32_t i = 0; i < c->carried; i++)
        c->body_in[i] = outputs[i];
    for (int32_t i = 0; i < c->scans; i++)
        c->rows[i][c->trip] = outputs[c->carried + i];
    return HK_OK;
}

/* With no iteration the rows' shape is the body's, unknown dimensions 0. */
static hk_status stack(hk_control_run *c, int32_t i)
{
    const hk_scan_attrs *a = c->node->attrs;
    const hk_value *declared = c->body->outputs[c->carried + i];
    hk_shape row = c->trips ? hk_tensor_shape(c->rows[i][0]) : declared->shape;
    hk_dtype dtype = c->trips ? c->rows[i][0]->dtype : declared->dtype;
    row.rank = HK_MAX(row.rank, 0);
    int32_t axis = hk_axis(entry(a->scan_output_axes, i), row.rank + 1);
    if (axis < 0 || row.rank == HK_MAX_RANK)
        return fail(c, "there is no such axis as asked for in scan output", i);
    hk_shape shape = {.rank = row.rank + 1};
    for (int32_t d = 0; d < shape.rank; d++)
        shape.dim[d] = d == axis ? c->trips : HK_MAX(row.dim[d - (d > axis)], 0);
    hk_tensor *y = hk_tensor_new(c->arena, dtype, &shape);
    if (!y)
        return hk_out_of_memory(c->ctx, "a scan's output");
    int64_t outer = hk_shape_span(&shape, 0, axis), inner = hk_shape_span(&shape, axis + 1, shape.rank);
    bool backward = entry(a->scan_output_directions, i) != 0;
    for (int64_t k = 0; k < c->trips; k++) {
        hk_shape this_row = hk_tensor_shape(c->rows[i][k]);
        if (!hk_shape_equal(&this_row, &row) || c->rows[i][k]->dtype != dtype)
            return fail(c, "its shape changes between iterations in scan output", i);
        hk_move m = {.to_offset = (backward ? c->trips - 1 - k : k) * inner};
        hk_move_add(&m, outer, inner, c->trips * inner);
        hk_move_add(&m, inner, 1, 1);
        hk_host_move(&m, c->rows[i][k], y);
    }
    c->out[c->carried + i] = y;
    return HK_OK;
}

hk_status hk_scan_end(hk_control_run *c)
{
    if (hk_is_batched_scan(c->node))
        return hk_batched_scan_end(c);
    for (int32_t i = 0; i < c->carried; i++)
        c->out[i] = c->body_in[i];
    for (int32_t i = 0; i < c->scans; i++)
        HK_TRY(stack(c, i));
    return HK_OK;
}
