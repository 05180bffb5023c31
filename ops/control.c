/*
 * If, Loop and Scan: what their bodies take and give. The runtime runs them (ops/control.h); here their bodies are
 * inferred with what the node feeds them, and shapes that an iteration may change become unknown. Graphs are read from
 * node->bodies: a cloned graph has its own, while attributes are shared.
 */
#include <string.h>

#include "ops/support/scan.h"
#include "ops/support/unroll.h"
#include "ops/support/sequence.h"

/* ---- bodies */

/* Shapes that a body's values had before inference, to begin anew. */
typedef struct saved_values {
    hk_graph *body;
    hk_dtype *dtype;
    hk_shape *shape;
    const hk_tensor **data;
    size_t count;
} saved_values;

static hk_status save_values(hk_infer *in, hk_graph *body, hk_arena *arena, saved_values *s)
{
    size_t n = body->value_count + 1;
    *s = (saved_values){.body = body, .count = body->value_count};
    s->dtype = hk_arena_array(arena, n, sizeof *s->dtype);
    s->shape = hk_arena_array(arena, n, sizeof *s->shape);
    s->data = hk_arena_array(arena, n, sizeof *s->data);
    if (!s->dtype || !s->shape || !s->data)
        return hk_out_of_memory(in->ctx, "the values of a body");
    for (size_t i = 0; i < s->count; i++) {
        s->dtype[i] = body->values[i]->dtype;
        s->shape[i] = body->values[i]->shape;
        s->data[i] = body->values[i]->data;
    }
    return HK_OK;
}

static void restore_values(const saved_values *s)
{
    for (size_t i = 0; i < s->count; i++) {
        s->body->values[i]->dtype = s->dtype[i];
        s->body->values[i]->shape = s->shape[i];
        s->body->values[i]->data = s->data[i];
    }
}

/* What inference found for a body's inner values is forgotten, because the node's operands may have changed since; the
 * declared types of its inputs stay. */
static void forget_results(hk_graph *body)
{
    for (size_t i = 0; i < body->value_count; i++) {
        hk_value *v = body->values[i];
        if (!v->producer)
            continue;
        v->dtype = HK_DTYPE_NONE;
        v->shape = HK_SHAPE_UNKNOWN;
        v->data = NULL;
    }
}

static hk_status infer_body(hk_infer *in, hk_graph *body)
{
    forget_results(body);
    HK_TRY(hk_graph_sort(body));
    for (size_t i = 0; i < body->node_count; i++) {
        hk_status st = hk_node_infer(body, body->nodes[i]);
        /* Bodies in bodies: the innermost says enough. */
        if (st != HK_OK && strncmp(hk_context_error(in->ctx), "in the body of", 14) != 0)
            st = hk_fail_prefix(in->ctx, st, "in the body of node '%s' (%s)", in->node->name, in->node->type);
        HK_TRY(st);
    }
    return HK_OK;
}

static hk_status check_counts(hk_infer *in, const hk_graph *body, size_t inputs, size_t outputs)
{
    if (body->input_count == inputs && body->output_count == outputs)
        return HK_OK;
    return hk_infer_fail(in, HK_STATUS_INVALID, "the body has %zu inputs and %zu outputs, expected %zu and %zu",
                         body->input_count, body->output_count, inputs, outputs);
}

/* Gives a body's input type and shape; a declared type must agree. list: what a sequence or optional holds. */
static hk_status set_input(hk_infer *in, hk_graph *body, size_t i, hk_dtype dtype, const hk_shape *shape,
                           const hk_list *list)
{
    hk_value *v = body->inputs[i];
    if (v->dtype != HK_DTYPE_NONE && v->dtype != dtype)
        return hk_infer_fail(in, HK_STATUS_INVALID, "input '%s' of the body is declared %s and gets %s", v->name,
                             hk_dtype_name(v->dtype), hk_dtype_name(dtype));
    if (hk_dtype_is_list(dtype) &&
        !hk_value_set_list(v, dtype, list->item, list->element, NULL, shape->rank == 1 ? shape->dim[0] : -1))
        return HK_STATUS_OUT_OF_MEMORY;
    v->dtype = dtype;
    v->shape = *shape;
    return HK_OK;
}

/* Output i, of the type that an iteration or a branch gave it. */
static hk_status set_output(hk_infer *in, int32_t i, const hk_value *from, const hk_shape *shape)
{
    if (from->list)
        return hk_infer_list(in, i, from->dtype, from->list->item, from->list->element,
                             shape->rank == 1 ? shape->dim[0] : -1);
    return hk_infer_output(in, i, from->dtype, shape);
}

/* What is common to two shapes. */
static hk_shape common_shape(const hk_shape *a, const hk_shape *b)
{
    if (a->rank != b->rank)
        return HK_SHAPE_UNKNOWN;
    hk_shape s = *a;
    for (int32_t d = 0; d < s.rank; d++)
        if (a->dim[d] != b->dim[d])
            s.dim[d] = -1;
    return s;
}

/* One more dimension at `axis`. */
static hk_status stacked_shape(hk_infer *in, const hk_shape *row, int64_t axis, int64_t count, hk_shape *out)
{
    *out = HK_SHAPE_UNKNOWN;
    if (row->rank < 0)
        return HK_OK;
    int32_t at = hk_axis(axis, row->rank + 1);
    if (row->rank == HK_MAX_RANK)
        return hk_infer_fail(in, HK_STATUS_UNSUPPORTED, "a scan output would have rank %d, at most %d is supported",
                             (int)row->rank + 1, HK_MAX_RANK);
    if (at < 0)
        return hk_infer_fail(in, HK_STATUS_INVALID, "scan axis %lld, expected %d to %d", (long long)axis,
                             -(int)row->rank - 1, (int)row->rank);
    out->rank = row->rank + 1;
    for (int32_t d = 0; d < out->rank; d++)
        out->dim[d] = d == at ? count : row->dim[d - (d > at)];
    return HK_OK;
}

static hk_status check_scalar(hk_infer *in, int32_t i, hk_dtype dtype, const char *what)
{
    const hk_value *v = hk_in(in->node, i);
    if (v && (v->dtype != dtype || (hk_shape_known(&v->shape) && hk_shape_count(&v->shape) != 1)))
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected the %s as one %s", what, hk_dtype_name(dtype));
    return HK_OK;
}

/* ---- If */

typedef struct if_attrs {
    hk_graph *then_branch, *else_branch;
} if_attrs;
static const hk_attr if_attr_list[] = {HK_GRAPH_ATTR(if_attrs, then_branch), HK_GRAPH_ATTR(if_attrs, else_branch), {0}};

static hk_status if_infer(hk_infer *in)
{
    hk_graph *then_branch = in->node->bodies[0], *else_branch = in->node->bodies[1];
    size_t count = (size_t)in->node->out_count;
    HK_TRY(check_scalar(in, 0, HK_BOOL, "condition"));
    HK_TRY(check_counts(in, then_branch, 0, count));
    HK_TRY(check_counts(in, else_branch, 0, count));
    HK_TRY(infer_body(in, then_branch));
    HK_TRY(infer_body(in, else_branch));
    for (size_t i = 0; i < count; i++) {
        const hk_value *x = then_branch->outputs[i], *y = else_branch->outputs[i];
        hk_shape s = common_shape(&x->shape, &y->shape);
        if (x->dtype != y->dtype)
            return hk_infer_fail(in, HK_STATUS_INVALID, "output %zu is %s in one branch and %s in the other", i,
                                 hk_dtype_name(x->dtype), hk_dtype_name(y->dtype));
        const hk_value *known = x->list && x->list->item == HK_DTYPE_NONE ? y : x;
        if (x->list && y->list && y->list->item != HK_DTYPE_NONE && known->list->item != y->list->item)
            return hk_infer_fail(in, HK_STATUS_INVALID, "output %zu holds %s in one branch and %s in the other", i,
                                 hk_dtype_name(x->list->item), hk_dtype_name(y->list->item));
        HK_TRY(set_output(in, (int32_t)i, known, &s));
    }
    return HK_OK;
}

/* ---- values carried from iteration to iteration: their shape at the body's entry must hold in every iteration */

/* Body inputs from first_in on are carried values that begin as node inputs from first_value on and come back as body
 * outputs from first_out on. */
typedef struct carried_list {
    int32_t first_value;
    size_t first_in, first_out, count;
} carried_list;

/* Infers the body with these shapes at its entry, and widens those that an iteration changes. */
static hk_status infer_iteration(hk_infer *in, hk_graph *body, const carried_list *c, hk_shape *entry, bool *changed)
{
    const hk_node *n = in->node;
    *changed = false;
    for (size_t i = 0; i < c->count; i++)
        HK_TRY(set_input(in, body, c->first_in + i, n->in[c->first_value + (int32_t)i]->dtype, &entry[i],
                         n->in[c->first_value + (int32_t)i]->list));
    HK_TRY(infer_body(in, body));
    for (size_t i = 0; i < c->count; i++) {
        hk_dtype dtype = n->in[c->first_value + (int32_t)i]->dtype;
        const hk_value *out = body->outputs[c->first_out + i];
        hk_shape next = common_shape(&entry[i], &out->shape);
        const hk_list *list = n->in[c->first_value + (int32_t)i]->list;
        bool filled = dtype == HK_OPTIONAL && list->item == out->dtype; /* empty at first: ONNX's own loop over one */
        if (out->dtype != dtype && !filled)
            return hk_infer_fail(in, HK_STATUS_INVALID, "carried value %zu enters the body as %s and leaves it as %s",
                                 i, hk_dtype_name(dtype), hk_dtype_name(out->dtype));
        *changed |= !hk_shape_equal(&next, &entry[i]);
        entry[i] = next;
    }
    return HK_OK;
}

/* Until nothing changes: each round loses a dimension's number or a rank, so there are few. */
static hk_status settle_carried(hk_infer *in, hk_graph *body, const carried_list *c, hk_arena *arena)
{
    const hk_node *n = in->node;
    saved_values saved;
    hk_shape *entry = hk_arena_array(arena, c->count + 1, sizeof *entry);
    if (!entry)
        return hk_out_of_memory(in->ctx, "carried values");
    for (size_t i = 0; i < c->count; i++)
        entry[i] = n->in[c->first_value + (int32_t)i]->shape;
    HK_TRY(save_values(in, body, arena, &saved));
    for (bool changed = true; changed;) {
        restore_values(&saved);
        HK_TRY(infer_iteration(in, body, c, entry, &changed));
    }
    for (size_t i = 0; i < c->count; i++)
        HK_TRY(set_output(in, (int32_t)i, body->outputs[c->first_out + i], &entry[i]));
    return HK_OK;
}

static hk_status infer_carried(hk_infer *in, hk_graph *body, int32_t first_value, size_t first_in, size_t first_out,
                               size_t count)
{
    carried_list c = {first_value, first_in, first_out, count};
    hk_arena *arena = hk_arena_create(in->ctx); /* loops inside each other come here often */
    if (!arena)
        return hk_out_of_memory(in->ctx, "carried values");
    hk_status st = settle_carried(in, body, &c, arena);
    hk_arena_destroy(&arena);
    return st;
}

/* ---- Loop: inputs trip count, condition, carried values; body inputs iteration, condition, carried values; body
 * outputs condition, carried values, scan outputs; outputs carried values, stacked scan outputs */

typedef struct loop_attrs {
    hk_graph *body;
} loop_attrs;
static const hk_attr loop_attr_list[] = {HK_GRAPH_ATTR(loop_attrs, body), {0}};

static hk_status loop_infer(hk_infer *in)
{
    hk_node *n = in->node;
    hk_graph *body = n->bodies[0];
    int32_t carried = HK_MAX(n->in_count - 2, 0), scans = n->out_count - carried;
    HK_TRY(check_scalar(in, 0, HK_INT64, "trip count"));
    HK_TRY(check_scalar(in, 1, HK_BOOL, "condition"));
    if (scans < 0)
        return hk_infer_fail(in, HK_STATUS_INVALID,
                             "has %d outputs, expected at least one for each of %d carried values", (int)n->out_count,
                             (int)carried);
    HK_TRY(check_counts(in, body, (size_t)carried + 2, (size_t)n->out_count + 1));
    for (int32_t i = 0; i < carried; i++)
        if (!n->in[2 + i])
            return hk_infer_fail(in, HK_STATUS_INVALID, "carried value %d is absent", (int)i);
    HK_TRY(set_input(in, body, 0, HK_INT64, &HK_SCALAR, NULL));
    HK_TRY(set_input(in, body, 1, HK_BOOL, &HK_SCALAR, NULL));
    HK_TRY(infer_carried(in, body, 2, 2, 1, (size_t)carried));
    if (body->outputs[0]->dtype != HK_BOOL)
        return hk_infer_fail(in, HK_STATUS_INVALID, "the body's first output is %s, expected the condition as bool",
                             hk_dtype_name(body->outputs[0]->dtype));
    for (int32_t i = 0; i < scans; i++) {
        const hk_value *row = body->outputs[1 + carried + i];
        hk_shape s;
        HK_TRY(stacked_shape(in, &row->shape, 0, hk_loop_trips(n), &s));
        HK_TRY(hk_infer_output(in, carried + i, row->dtype, &s));
    }
    return HK_OK;
}

/* ---- Scan: inputs carried values, then num_scan_inputs sequences of which the body sees one element at a time */

static const hk_attr scan_attr_list[] = {
    HK_GRAPH_ATTR(hk_scan_attrs, body),
    {.name = "num_scan_inputs",
     .kind = HK_ATTR_INT,
     .offset = offsetof(hk_scan_attrs, num_scan_inputs),
     .required = true},
    HK_INTS_ATTR(hk_scan_attrs, scan_input_axes),
    HK_INTS_ATTR(hk_scan_attrs, scan_input_directions),
    HK_INTS_ATTR(hk_scan_attrs, scan_output_axes),
    HK_INTS_ATTR(hk_scan_attrs, scan_output_directions),
    {0},
};

static hk_status check_list(hk_infer *in, hk_ints list, int32_t count, const char *what)
{
    if (!list.v || list.count == count)
        return HK_OK;
    return hk_infer_fail(in, HK_STATUS_INVALID, "%s has %d entries, expected %d", what, (int)list.count, (int)count);
}

/* Sets the body's input for scan input i, and *length to the sequence's length if it is known. */
static hk_status scan_element(hk_infer *in, const hk_scan_attrs *a, int32_t carried, int32_t i, int64_t *length)
{
    const hk_node *n = in->node;
    const hk_value *x = n->in[carried + i];
    if (!x)
        return hk_infer_fail(in, HK_STATUS_INVALID, "scan input %d is absent", (int)i);
    hk_shape s = x->shape;
    if (s.rank >= 0) {
        int64_t given = a->scan_input_axes.v ? a->scan_input_axes.v[i] : 0;
        int32_t axis = hk_axis(given, s.rank);
        if (axis < 0)
            return hk_infer_fail(in, HK_STATUS_INVALID, "scan axis %lld of an input of rank %d", (long long)given,
                                 (int)s.rank);
        if (*length >= 0 && s.dim[axis] >= 0 && s.dim[axis] != *length)
            return hk_infer_fail(in, HK_STATUS_INVALID, "scan inputs of %lld and %lld elements, expected equal lengths",
                                 (long long)*length, (long long)s.dim[axis]);
        *length = HK_MAX(*length, s.dim[axis]);
        for (int32_t d = axis; d + 1 < s.rank; d++)
            s.dim[d] = s.dim[d + 1];
        s.rank--;
    }
    return set_input(in, n->bodies[0], (size_t)(carried + i), x->dtype, &s, NULL);
}

static hk_status scan_infer(hk_infer *in)
{
    const hk_scan_attrs *a = in->node->attrs;
    hk_node *n = in->node;
    int64_t length = -1;
    if (a->num_scan_inputs < 1 || a->num_scan_inputs > n->in_count)
        return hk_infer_fail(in, HK_STATUS_INVALID, "num_scan_inputs is %lld, expected 1 to %d",
                             (long long)a->num_scan_inputs, (int)n->in_count);
    int32_t sequences = (int32_t)a->num_scan_inputs, carried = n->in_count - sequences, stacks = n->out_count - carried;
    if (stacks < 0)
        return hk_infer_fail(in, HK_STATUS_INVALID,
                             "has %d outputs, expected at least one for each of %d carried values", (int)n->out_count,
                             (int)carried);
    HK_TRY(check_counts(in, n->bodies[0], (size_t)n->in_count, (size_t)n->out_count));
    HK_TRY(check_list(in, a->scan_input_axes, sequences, "scan_input_axes"));
    HK_TRY(check_list(in, a->scan_input_directions, sequences, "scan_input_directions"));
    HK_TRY(check_list(in, a->scan_output_axes, stacks, "scan_output_axes"));
    HK_TRY(check_list(in, a->scan_output_directions, stacks, "scan_output_directions"));
    for (int32_t i = 0; i < carried; i++)
        if (!n->in[i])
            return hk_infer_fail(in, HK_STATUS_INVALID, "carried value %d is absent", (int)i);
    for (int32_t i = 0; i < sequences; i++)
        HK_TRY(scan_element(in, a, carried, i, &length));
    HK_TRY(infer_carried(in, n->bodies[0], 0, 0, 0, (size_t)carried));
    for (int32_t i = 0; i < stacks; i++) {
        const hk_value *row = n->bodies[0]->outputs[carried + i];
        hk_shape s;
        HK_TRY(stacked_shape(in, &row->shape, a->scan_output_axes.v ? a->scan_output_axes.v[i] : 0, length, &s));
        HK_TRY(hk_infer_output(in, carried + i, row->dtype, &s));
    }
    return HK_OK;
}

/* ---- Scan of opset 8, over a batch of sequences (ops/support/scan.h) */

static const hk_attr batched_scan_attr_list[] = {
    HK_GRAPH_ATTR(hk_scan_attrs, body),
    {.name = "num_scan_inputs",
     .kind = HK_ATTR_INT,
     .offset = offsetof(hk_scan_attrs, num_scan_inputs),
     .required = true},
    {.name = "directions", .kind = HK_ATTR_INTS, .offset = offsetof(hk_scan_attrs, scan_input_directions)},
    {0},
};

/* Sets a body input that sees input i of the node without its first `cut` dimensions, which must agree. */
static hk_status set_batched_input(hk_infer *in, int32_t i, int32_t cut, int64_t outer[2])
{
    const hk_value *x = in->node->in[1 + i];
    if (!x)
        return hk_infer_fail(in, HK_STATUS_INVALID, "input %d is absent", (int)i + 1);
    hk_shape s = x->shape;
    if (s.rank >= 0 && s.rank < cut)
        return hk_infer_fail(in, HK_STATUS_INVALID, "input '%s' has %d dimensions, expected at least %d", x->name,
                             (int)s.rank, (int)cut);
    for (int32_t d = 0; d < cut && s.rank >= 0; d++) {
        if (outer[d] >= 0 && s.dim[d] >= 0 && outer[d] != s.dim[d])
            return hk_infer_fail(in, HK_STATUS_INVALID, "input '%s' has extent %lld in dimension %d, expected %lld",
                                 x->name, (long long)s.dim[d], (int)d, (long long)outer[d]);
        outer[d] = HK_MAX(outer[d], s.dim[d]);
    }
    for (int32_t d = cut; d < s.rank; d++)
        s.dim[d - cut] = s.dim[d];
    s.rank = s.rank < 0 ? -1 : s.rank - cut;
    return set_input(in, in->node->bodies[0], (size_t)i, x->dtype, &s, NULL);
}

static hk_status batched_scan_infer(hk_infer *in)
{
    const hk_scan_attrs *a = in->node->attrs;
    hk_node *n = in->node;
    const hk_graph *body = n->bodies[0];
    int64_t outer[2] = {-1, -1};
    if (a->num_scan_inputs < 1 || a->num_scan_inputs >= n->in_count)
        return hk_infer_fail(in, HK_STATUS_INVALID, "num_scan_inputs is %lld, expected 1 to %d",
                             (long long)a->num_scan_inputs, (int)n->in_count - 1);
    int32_t sequences = (int32_t)a->num_scan_inputs, carried = n->in_count - 1 - sequences;
    if (n->out_count < carried)
        return hk_infer_fail(in, HK_STATUS_INVALID,
                             "has %d outputs, expected at least one for each of %d carried values", (int)n->out_count,
                             (int)carried);
    HK_TRY(check_counts(in, body, (size_t)(carried + sequences), (size_t)n->out_count));
    HK_TRY(check_list(in, a->scan_input_directions, sequences, "directions"));
    if (hk_in(n, 0) && n->in[0]->dtype != HK_INT64)
        return hk_infer_fail(in, HK_STATUS_INVALID, "lengths '%s' are %s, expected int64", n->in[0]->name,
                             hk_dtype_name(n->in[0]->dtype));
    for (int32_t i = 0; i < carried + sequences; i++)
        HK_TRY(set_batched_input(in, i, i < carried ? 1 : 2, outer));
    HK_TRY(infer_body(in, n->bodies[0]));
    for (int32_t i = 0; i < n->out_count; i++) {
        const hk_value *row = body->outputs[i];
        hk_shape steps = row->shape, s;
        if (i >= carried)
            HK_TRY(stacked_shape(in, &row->shape, 0, outer[1], &steps));
        HK_TRY(stacked_shape(in, &steps, 0, outer[0], &s));
        HK_TRY(hk_infer_output(in, i, row->dtype, &s));
    }
    return HK_OK;
}

/* ---- SequenceMap: the body once for each item of the first input; of further sequences it sees the item at the same
 * place, and further tensors as they are. The items are known when it is this node's turn, so it runs as copies of the
 * body (the host interpreter drives it like a loop). */

static const hk_attr map_attr_list[] = {HK_GRAPH_ATTR(loop_attrs, body), {0}};

static hk_status map_infer(hk_infer *in)
{
    hk_node *n = in->node;
    hk_graph *body = n->bodies[0];
    int64_t count = -1;
    HK_TRY(check_counts(in, body, (size_t)n->in_count, (size_t)n->out_count));
    for (int32_t i = 0; i < n->in_count; i++) {
        const hk_value *v = n->in[i];
        if (!v || v->dtype == HK_OPTIONAL || (i == 0 && !v->list))
            return hk_infer_fail(in, HK_STATUS_INVALID, "input %d is %s, expected a sequence%s", (int)i,
                                 v ? hk_dtype_name(v->dtype) : "absent", i ? " or a tensor" : "");
        if (!v->list) {
            HK_TRY(set_input(in, body, (size_t)i, v->dtype, &v->shape, NULL));
            continue;
        }
        if (v->list->item == HK_DTYPE_NONE)
            return hk_infer_fail(in, HK_STATUS_UNSUPPORTED, "what the sequence '%s' holds is not known", v->name);
        HK_TRY(set_input(in, body, (size_t)i, v->list->item, &HK_SHAPE_UNKNOWN, NULL));
        if (count >= 0 && v->shape.dim[0] >= 0 && v->shape.dim[0] != count)
            return hk_infer_fail(in, HK_STATUS_INVALID, "sequences of %lld and %lld items, expected equal lengths",
                                 (long long)count, (long long)v->shape.dim[0]);
        count = HK_MAX(count, v->shape.dim[0]);
    }
    HK_TRY(infer_body(in, body));
    for (int32_t i = 0; i < n->out_count; i++) {
        const hk_value *item = body->outputs[i];
        if (item->list)
            return hk_infer_fail(in, HK_STATUS_INVALID, "output %d of the body is %s, expected a tensor", (int)i,
                                 hk_dtype_name(item->dtype));
        HK_TRY(hk_infer_list(in, i, HK_SEQUENCE, item->dtype, HK_DTYPE_NONE, count));
    }
    return HK_OK;
}

static hk_status map_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    const hk_graph *body = n->bodies[0];
    int64_t count = n->in[0]->shape.dim[0];
    size_t outs = (size_t)n->out_count;
    hk_value **in = hk_arena_array(g->arena, (size_t)n->in_count + 1, sizeof *in);
    hk_value **made = hk_arena_array(g->arena, outs * (size_t)count + 1, sizeof *made);
    hk_value **items = hk_arena_array(g->arena, (size_t)count + 1, sizeof *items);
    (void)out;
    if (!in || !made || !items)
        return hk_out_of_memory(g->ctx, "a sequence's map");
    g->list_items += HK_MAP_WEIGHT * (uint64_t)count * (body->node_count + 1);
    if (g->list_items > HK_LIST_TOTAL_MAX)
        return hk_fail(
            g->ctx, HK_STATUS_UNSUPPORTED,
            "node '%s' (%s): a body of %zu nodes for %lld items; at most %d nodes in all maps of a graph are "
            "supported",
            n->name, n->type, body->node_count, (long long)count, HK_LIST_TOTAL_MAX / HK_MAP_WEIGHT);
    for (int64_t k = 0; k < count; k++) {
        char *prefix = hk_arena_format(g->arena, "%s/%lld/", n->name, (long long)k);
        if (!prefix)
            return hk_out_of_memory(g->ctx, "a sequence's map");
        for (int32_t i = 0; i < n->in_count; i++)
            in[i] = n->in[i]->list ? n->in[i]->list->items[k] : n->in[i];
        HK_TRY(hk_graph_inline(g, body, prefix, in, made + (size_t)k * outs));
    }
    for (size_t i = 0; i < outs; i++) {
        for (int64_t k = 0; k < count; k++)
            items[k] = made[(size_t)k * outs + i];
        if (n->out[i])
            HK_TRY(hk_expand_list(g, n, (int32_t)i, items, count));
    }
    return HK_OK;
}

const hk_op hk_ops_control[] = {
    {.type = "If",
     .since = 1,
     .in_min = 1,
     .in_max = 1,
     .out_min = 1,
     .out_max = -1,
     .flags = HK_OP_CONTROL | HK_OP_LIST,
     .attrs_bytes = sizeof(if_attrs),
     .attrs = if_attr_list,
     .infer = if_infer},
    {.type = "Loop",
     .since = 1,
     .in_min = 0,
     .in_max = -1,
     .out_min = 1,
     .out_max = -1,
     .flags = HK_OP_CONTROL | HK_OP_LIST,
     .attrs_bytes = sizeof(loop_attrs),
     .attrs = loop_attr_list,
     .infer = loop_infer,
     .expand = hk_loop_unroll,
     .expands = hk_loop_unrolls},
    {.type = "Scan",
     .since = 8,
     .until = 8,
     .in_min = 0,
     .in_max = -1,
     .out_min = 1,
     .out_max = -1,
     .flags = HK_OP_CONTROL,
     .attrs_bytes = sizeof(hk_scan_attrs),
     .attrs = batched_scan_attr_list,
     .infer = batched_scan_infer},
    {.type = "Scan",
     .since = 9,
     .in_min = 1,
     .in_max = -1,
     .out_min = 1,
     .out_max = -1,
     .flags = HK_OP_CONTROL,
     .attrs_bytes = sizeof(hk_scan_attrs),
     .attrs = scan_attr_list,
     .infer = scan_infer,
     .expand = hk_scan_unroll,
     .expands = hk_scan_unrolls},
    {.type = "SequenceMap",
     .since = 17,
     .in_min = 1,
     .in_max = -1,
     .out_min = 1,
     .out_max = -1,
     .flags = HK_OP_CONTROL | HK_OP_LIST,
     .attrs_bytes = sizeof(loop_attrs),
     .attrs = map_attr_list,
     .infer = map_infer,
     .expand = map_expand},
    {0},
};
