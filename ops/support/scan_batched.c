/* Scan of opset 8 on the host: a trip is one step of one sequence of the batch; steps behind a sequence's end are left
 * out. */
#include <string.h>

#include "ops/support/scan.h"

static int32_t sequences(const hk_control_run *c)
{
    return (int32_t)((const hk_scan_attrs *)c->node->attrs)->num_scan_inputs;
}

static const hk_tensor *sequence(const hk_control_run *c, int32_t i)
{
    return c->in[1 + c->carried + i];
}

static int64_t padded(const hk_control_run *c)
{
    return sequence(c, 0)->shape[1];
}

static int64_t batches(const hk_control_run *c)
{
    return sequence(c, 0)->shape[0];
}

static int64_t length_of(const hk_control_run *c, int64_t b)
{
    if (!c->in[0])
        return padded(c);
    return HK_MIN(HK_MAX(hk_get_int(c->in[0], b), 0), padded(c));
}

/* Block `at` of x without its first `cut` dimensions. */
static const hk_tensor *block(hk_control_run *c, const hk_tensor *x, int32_t cut, int64_t at)
{
    hk_shape s = {.rank = x->rank - cut};
    memcpy(s.dim, x->shape + cut, (size_t)s.rank * sizeof *s.dim);
    hk_tensor *t = hk_tensor_new(c->arena, x->dtype, &s);
    size_t bytes = t ? (size_t)hk_tensor_bytes(t) : 0;
    if (bytes)
        memcpy(t->data, (const char *)x->data + (size_t)at * bytes, bytes);
    return t;
}

static hk_status check_sizes(const hk_control_run *c)
{
    for (int32_t i = -c->carried; i < sequences(c); i++) {
        const hk_tensor *x = sequence(c, i);
        if (x->rank < (i < 0 ? 1 : 2) || x->shape[0] != sequence(c, 0)->shape[0] ||
            (i >= 0 && x->shape[1] != sequence(c, 0)->shape[1]))
            return hk_fail(c->ctx, HK_STATUS_INVALID,
                           "node '%s' (Scan): the size of input %d is not that of the others", c->node->name,
                           (int)(1 + c->carried + i));
    }
    if (c->in[0] && hk_tensor_count(c->in[0]) != sequence(c, 0)->shape[0])
        return hk_fail(c->ctx, HK_STATUS_INVALID, "node '%s' (Scan): expected one length for each sequence",
                       c->node->name);
    return HK_OK;
}

/* rows: the scan outputs by trip, then the states that each sequence ends with. */
bool hk_batched_scan_begin(hk_control_run *c)
{
    c->carried = c->node->in_count - 1 - sequences(c);
    c->scans = c->node->out_count - c->carried;
    c->condition = true;
    c->body = c->node->bodies[0];
    c->body_in_count = (size_t)(c->carried + sequences(c));
    c->status = check_sizes(c);
    if (c->status != HK_OK)
        return true;
    c->trips = batches(c) * padded(c);
    c->body_in = hk_arena_array(c->arena, c->body_in_count + 1, sizeof *c->body_in);
    c->rows = hk_arena_array(c->arena, (size_t)c->node->out_count + 1, sizeof *c->rows);
    if (!c->body_in || !c->rows)
        return false;
    for (int32_t i = 0; i < c->node->out_count; i++) {
        c->rows[i] = hk_arena_array(c->arena, (size_t)(i < c->scans ? c->trips : batches(c)) + 1, sizeof *c->rows[i]);
        if (!c->rows[i])
            return false;
    }
    for (int32_t i = 0; i < c->carried; i++) /* what sequences of no steps end with */
        for (int64_t b = 0; b < batches(c); b++)
            if (!(c->rows[c->scans + i][b] = block(c, c->in[1 + i], 1, b)))
                return false;
    return true;
}

bool hk_batched_scan_next(hk_control_run *c)
{
    const hk_scan_attrs *a = c->node->attrs;
    while (c->trip < c->trips && c->trip % padded(c) >= length_of(c, c->trip / padded(c)))
        c->trip++;
    if (c->trip >= c->trips)
        return false;
    int64_t b = c->trip / padded(c), t = c->trip % padded(c);
    bool ok = true;
    for (int32_t i = 0; i < c->carried && t == 0; i++)
        c->body_in[i] = c->rows[c->scans + i][b];
    for (int32_t i = 0; i < sequences(c); i++) {
        bool backward = a->scan_input_directions.v && a->scan_input_directions.v[i];
        int64_t at = b * padded(c) + (backward ? length_of(c, b) - 1 - t : t);
        c->body_in[c->carried + i] = block(c, sequence(c, i), 2, at);
        ok = ok && c->body_in[c->carried + i];
    }
    if (!ok)
        c->status = hk_out_of_memory(c->ctx, "a scan");
    return ok;
}

hk_status hk_batched_scan_step(hk_control_run *c, const hk_tensor *const *outputs)
{
    for (int32_t i = 0; i < c->carried; i++) {
        c->body_in[i] = outputs[i];
        c->rows[c->scans + i][c->trip / padded(c)] = outputs[i];
    }
    for (int32_t i = 0; i < c->scans; i++)
        c->rows[i][c->trip] = outputs[c->carried + i];
    return HK_OK;
}

/* rows[i] of `count` blocks under the outer dimensions; absent blocks are zeros. */
static hk_status stack(hk_control_run *c, int32_t row, int32_t output, int64_t count, const hk_shape *outer)
{
    const hk_value *declared = c->body->outputs[output];
    const hk_tensor *like = NULL;
    for (int64_t k = 0; k < count && !like; k++)
        like = c->rows[row][k];
    hk_shape one = like ? hk_tensor_shape(like) : declared->shape, shape = *outer;
    if (one.rank > HK_MAX_RANK - outer->rank)
        return hk_fail(c->ctx, HK_STATUS_UNSUPPORTED, "node '%s' (Scan): output %d has more than %d dimensions",
                       c->node->name, (int)output, HK_MAX_RANK);
    for (int32_t d = 0; d < one.rank; d++)
        shape.dim[shape.rank++] = HK_MAX(one.dim[d], 0);
    hk_tensor *y = hk_tensor_new(c->arena, like ? like->dtype : declared->dtype, &shape);
    if (!y)
        return hk_out_of_memory(c->ctx, "a scan's output");
    for (int64_t k = 0; k < count; k++) {
        const hk_tensor *t = c->rows[row][k];
        hk_shape s = t ? hk_tensor_shape(t) : one;
        if (!hk_shape_equal(&s, &one))
            return hk_fail(c->ctx, HK_STATUS_INVALID, "node '%s' (Scan): output %d changes its shape", c->node->name,
                           (int)output);
        size_t bytes = t ? (size_t)hk_tensor_bytes(t) : 0;
        if (bytes)
            memcpy((char *)y->data + (size_t)k * bytes, t->data, bytes);
    }
    c->out[output] = y;
    return HK_OK;
}

hk_status hk_batched_scan_end(hk_control_run *c)
{
    const hk_shape batch = {.rank = 1, .dim = {batches(c)}}, steps = {.rank = 2, .dim = {batches(c), padded(c)}};
    for (int32_t i = 0; i < c->carried; i++)
        HK_TRY(stack(c, c->scans + i, i, batches(c), &batch));
    for (int32_t i = 0; i < c->scans; i++)
        HK_TRY(stack(c, i, c->carried + i, c->trips, &steps));
    return HK_OK;
}
