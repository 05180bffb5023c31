/* If and Loop, driven from outside: ONNX's semantics in one place. Scan's part is in scan.c. */
#include "ops/control.h"

#include <string.h>

#include "ops/support/scan.h"

static bool is_map(const hk_control_run *c)
{
    return !strcmp(c->node->type, "SequenceMap");
}

static bool is_loop_node(const hk_node *n)
{
    return !strcmp(n->type, "Loop");
}

static bool is_loop(const hk_control_run *c)
{
    return is_loop_node(c->node);
}

static bool begin_loop(hk_control_run *c)
{
    const hk_tensor *trips = c->node->in_count > 0 ? c->in[0] : NULL;
    const hk_tensor *condition = c->node->in_count > 1 ? c->in[1] : NULL;
    c->trips = trips ? hk_get_int(trips, 0) : INT64_MAX;
    c->condition = condition ? hk_get_int(condition, 0) != 0 : true;
    c->carried = c->node->in_count - 2;
    c->scans = c->node->out_count - c->carried;
    c->body = c->node->bodies[0];
    c->body_in_count = (size_t)c->carried + 2;
    c->body_in = hk_arena_array(c->arena, c->body_in_count, sizeof *c->body_in);
    c->condition_in = hk_tensor_new(c->arena, HK_BOOL, &HK_SCALAR);
    c->rows = hk_arena_array(c->arena, (size_t)HK_MAX(c->scans, 1), sizeof *c->rows);
    if (!c->body_in || !c->condition_in || !c->rows)
        return false;
    for (int32_t i = 0; i < c->carried; i++)
        c->body_in[2 + i] = c->in[2 + i];
    return true;
}

static bool begin_map(hk_control_run *c)
{
    c->trips = hk_tensor_count(c->in[0]);
    c->condition = true;
    c->body = c->node->bodies[0];
    c->body_in_count = (size_t)c->node->in_count;
    c->body_in = hk_arena_array(c->arena, c->body_in_count + 1, sizeof *c->body_in);
    if (!c->body_in)
        return false;
    for (int32_t i = 0; i < c->node->out_count; i++) {
        hk_tensor *list = hk_tensor_new(c->arena, HK_SEQUENCE, &(hk_shape){.rank = 1, .dim = {c->trips}});
        if (!list)
            return false;
        c->out[i] = list;
    }
    for (int32_t i = 0; i < c->node->in_count; i++)
        if (c->in[i]->dtype == HK_SEQUENCE && hk_tensor_count(c->in[i]) != c->trips)
            c->status = hk_fail(c->ctx, HK_STATUS_INVALID,
                                "node '%s' (SequenceMap): sequences of %lld and %lld items, expected equal lengths",
                                c->node->name, (long long)c->trips, (long long)hk_tensor_count(c->in[i]));
    return true;
}

static void next_map(hk_control_run *c)
{
    for (int32_t i = 0; i < c->node->in_count; i++)
        c->body_in[i] = c->in[i]->dtype == HK_SEQUENCE ? (const hk_tensor *)c->in[i]->data + c->trip : c->in[i];
}

bool hk_control_begin(hk_control_run *c)
{
    if (is_loop(c))
        return begin_loop(c);
    if (is_map(c))
        return begin_map(c);
    if (hk_is_scan(c->node))
        return hk_scan_begin(c);
    c->trips = 1;
    c->condition = true;
    c->body =
        c->node->bodies[hk_get_int(c->in[0], 0) ? 0 : 1]; /* attributes in table order: then_branch, else_branch */
    return true;
}

bool hk_control_next(hk_control_run *c)
{
    if (c->status != HK_OK || !c->condition || c->trip >= c->trips)
        return false;
    if (hk_is_scan(c->node))
        return hk_scan_next(c);
    if (is_map(c))
        next_map(c);
    if (!is_loop(c))
        return true;
    int64_t most = c->most_trips ? c->most_trips : HK_LOOP_MAX_TRIPS;
    if (c->trip >= most) {
        c->status = hk_fail(c->ctx, HK_STATUS_UNSUPPORTED,
                            "node '%s' (Loop): does not end after %lld iterations, the most that are allowed: if it "
                            "should take longer, raise hk_session_params.max_iterations",
                            c->node->name, (long long)most);
        return false;
    }
    c->iteration = hk_tensor_new(c->arena, HK_INT64, &HK_SCALAR);
    if (!c->iteration) {
        c->status = hk_out_of_memory(c->ctx, "a loop");
        return false;
    }
    *(int64_t *)c->iteration->data = c->trip;
    *(uint8_t *)c->condition_in->data = 1;
    c->body_in[0] = c->iteration;
    c->body_in[1] = c->condition_in;
    return true;
}

static hk_status step_loop(hk_control_run *c, const hk_tensor *const *outputs)
{
    c->condition = hk_get_int(outputs[0], 0) != 0;
    for (int32_t i = 0; i < c->carried; i++)
        c->body_in[2 + i] = outputs[1 + i];
    size_t capacity = c->row_capacity;
    for (int32_t i = 0; i < c->scans; i++) {
        capacity = c->row_capacity;
        if ((size_t)c->trip == capacity &&
            !hk_arena_grow(c->arena, (void **)&c->rows[i], (size_t)c->trip, &capacity, sizeof *c->rows[i]))
            return hk_out_of_memory(c->ctx, "a loop");
        c->rows[i][c->trip] = outputs[1 + c->carried + i];
    }
    c->row_capacity = capacity;
    return HK_OK;
}

hk_status hk_control_step(hk_control_run *c, const hk_tensor *const *outputs)
{
    if (is_loop(c)) {
        HK_TRY(step_loop(c, outputs));
    } else if (hk_is_scan(c->node)) {
        HK_TRY(hk_scan_step(c, outputs));
    } else if (is_map(c)) {
        for (int32_t i = 0; i < c->node->out_count; i++)
            ((hk_tensor *)c->out[i]->data)[c->trip] = *outputs[i];
    } else {
        for (int32_t i = 0; i < c->node->out_count; i++)
            c->out[i] = outputs[i];
    }
    c->trip++;
    return HK_OK;
}

/* Scan outputs are stacked along a new first axis. With no iteration the row's shape is the body's, unknown dimensions
 * 0. */
static hk_status stack(hk_control_run *c, int32_t i)
{
    const hk_value *declared = c->body->outputs[1 + c->carried + i];
    hk_shape row = c->trip ? hk_tensor_shape(c->rows[i][0]) : declared->shape;
    hk_dtype dtype = c->trip ? c->rows[i][0]->dtype : declared->dtype;
    hk_shape shape = {.rank = HK_MAX(row.rank, 0) + 1, .dim = {c->trip}};
    if (shape.rank > HK_MAX_RANK)
        return hk_fail(c->ctx, HK_STATUS_UNSUPPORTED,
                       "node '%s' (Loop): scan output %d has rank %d, at most %d is supported", c->node->name, (int)i,
                       shape.rank, HK_MAX_RANK);
    for (int32_t d = 1; d < shape.rank; d++)
        shape.dim[d] = HK_MAX(row.dim[d - 1], 0);
    hk_tensor *t = hk_tensor_new(c->arena, dtype, &shape);
    if (!t)
        return hk_out_of_memory(c->ctx, "a loop's scan output");
    for (int64_t k = 0; k < c->trip; k++) {
        hk_shape this_row = hk_tensor_shape(c->rows[i][k]);
        int64_t bytes = hk_tensor_bytes(c->rows[i][k]);
        if (!hk_shape_equal(&this_row, &row) || c->rows[i][k]->dtype != dtype)
            return hk_fail(c->ctx, HK_STATUS_INVALID,
                           "node '%s' (Loop): scan output %d changes its shape in iteration %lld", c->node->name,
                           (int)i, (long long)k);
        memcpy((char *)t->data + k * bytes, c->rows[i][k]->data, (size_t)bytes);
    }
    c->out[c->carried + i] = t;
    return HK_OK;
}

bool hk_control_keeps(const hk_control_run *c, size_t i)
{
    if (is_loop(c))
        return i >= (size_t)c->carried + 1;
    if (hk_is_scan(c->node))
        return i >= (size_t)c->carried;
    return true;
}

/* Scan of opset 8 cuts its carried values by batch. */
bool hk_control_hands_on(const hk_node *n, int32_t k)
{
    if (is_loop_node(n))
        return k >= 2;
    return hk_is_scan(n) && !hk_is_batched_scan(n) &&
           k < n->in_count - (int32_t)((const hk_scan_attrs *)n->attrs)->num_scan_inputs;
}

bool hk_control_hands_back(const hk_control_run *c, size_t i)
{
    if (is_loop(c))
        return i >= 1 && i <= (size_t)c->carried;
    if (hk_is_scan(c->node))
        return !hk_is_batched_scan(c->node) && i < (size_t)c->carried;
    return !is_map(c);
}

hk_status hk_control_end(hk_control_run *c)
{
    HK_TRY(c->status);
    if (hk_is_scan(c->node))
        return hk_scan_end(c);
    if (!is_loop(c))
        return HK_OK;
    for (int32_t i = 0; i < c->carried && i < c->node->out_count; i++)
        c->out[i] = c->body_in[2 + i];
    for (int32_t i = 0; i < c->scans; i++)
        HK_TRY(stack(c, i));
    return HK_OK;
}
