/* Unrolling of loops. */
#include "ops/support/unroll.h"

#include <string.h>

#include "ops/step.h"
#include "ops/support/scan.h"

enum {
    TRIPS_MOST = 1024,
    NODES_MOST = 4096,   /* copies of all nodes of the body */
    VALUES_MOST = 65536, /* of the graph after unrolling: loops in loops multiply */
    VISITS_MOST = 64,    /* nodes that decide on a condition */
};

static bool has_list(const hk_node *n)
{
    for (int32_t i = 0; i < n->in_count + n->out_count; i++) {
        const hk_value *v = i < n->in_count ? n->in[i] : n->out[i - n->in_count];
        if (v && v->list)
            return true;
    }
    return false;
}

/* ---- a Loop's condition on the host, as far as it depends on the iteration's number alone */

typedef struct condition {
    const hk_graph *body;
    hk_arena *arena;
    const hk_tensor *trip, *entered;
    int visits;
} condition;

static bool decides(const hk_node *n)
{
    return n->op && n->op->eval && !(n->op->flags & (HK_OP_RANDOM | HK_OP_CONTROL | HK_OP_KEEP)) && !has_list(n);
}

/* NULL: it depends on something else, or is too much work. */
static const hk_tensor *contents(condition *c, const hk_value *v)
{
    static const hk_step no_step;
    if (v == c->body->inputs[0])
        return c->trip;
    if (v == c->body->inputs[1])
        return c->entered;
    if (v->graph != c->body || !v->producer)
        return v->kind == HK_VALUE_INPUT ? NULL : v->data;
    const hk_node *n = v->producer;
    if (!decides(n) || c->visits-- <= 0 || !hk_shape_known(&v->shape) || hk_shape_count(&v->shape) > 64)
        return NULL;
    const hk_tensor **in = hk_arena_array(c->arena, (size_t)n->in_count + 1, sizeof *in);
    hk_tensor **out = hk_arena_array(c->arena, (size_t)n->out_count + 1, sizeof *out);
    if (!in || !out)
        return NULL;
    for (int32_t i = 0; i < n->in_count; i++)
        if (n->in[i] && !(in[i] = contents(c, n->in[i])))
            return NULL;
    if (hk_node_eval(c->body->ctx, c->arena, n, in, out, &no_step) != HK_OK)
        return NULL;
    for (int32_t i = 0; i < n->out_count; i++)
        if (n->out[i] == v)
            return out[i];
    return NULL;
}

static int64_t count_trips(condition *c, int64_t most)
{
    hk_tensor *trip = hk_tensor_new(c->arena, HK_INT64, &HK_SCALAR),
              *one = hk_tensor_new(c->arena, HK_BOOL, &HK_SCALAR);
    if (!trip || !one)
        return -1;
    *(uint8_t *)one->data = 1;
    c->trip = trip;
    c->entered = one;
    for (int64_t k = 0; k < most; k++) {
        c->visits = VISITS_MOST;
        *(int64_t *)trip->data = k;
        const hk_tensor *again = contents(c, c->body->outputs[0]);
        if (!again || hk_tensor_count(again) != 1)
            return -1;
        if (!hk_get_int(again, 0))
            return k + 1;
    }
    return most;
}

int64_t hk_loop_trips(const hk_node *n)
{
    const hk_tensor *trips = hk_known(n, 0), *entered = hk_known(n, 1);
    const hk_graph *body = n->bodies[0];
    if (hk_in(n, 1) && !entered)
        return -1;
    if (entered && !hk_get_int(entered, 0))
        return 0;
    if (!trips)
        return -1;
    int64_t most = HK_MAX(hk_get_int(trips, 0), 0);
    if (body->outputs[0] == body->inputs[1])
        return most;
    if (most > TRIPS_MOST)
        return -1;
    condition c = {.body = body, .arena = hk_arena_create(body->ctx)};
    int64_t count = c.arena ? count_trips(&c, most) : -1;
    hk_arena_destroy(&c.arena);
    return count;
}

/* ---- what pays */

/* Nodes that run on the host would cut each copy off. */
static bool stays_on_device(const hk_graph *body)
{
    for (size_t i = 0; i < body->node_count; i++) {
        const hk_node *n = body->nodes[i];
        if (!n->op || n->op->flags & (HK_OP_HOST | HK_OP_CONTROL) || has_list(n))
            return false;
    }
    return true;
}

static bool pays(const hk_graph *g, const hk_node *n, int64_t trips)
{
    const hk_graph *body = n->bodies[0];
    return trips > 0 && trips <= TRIPS_MOST && (uint64_t)trips * HK_MAX(body->node_count, (size_t)1) <= NODES_MOST &&
           (uint64_t)trips * body->value_count + g->value_count <= VALUES_MOST && stays_on_device(body) && !has_list(n);
}

/* ---- building. The copies are inferred when all are there, so nothing is inferred here. */

static hk_status add_node(hk_graph *g, const char *type, const hk_attr_value *attr, hk_value *const *in,
                          int32_t in_count, int32_t out_count, hk_value **out)
{
    const hk_op *op = hk_op_find(NULL, type, INT16_MAX, NULL);
    void *attrs = NULL;
    HK_TRY(hk_op_decode(g->ctx, g->arena, op, attr, attr ? 1 : 0, &attrs));
    hk_node *n = hk_graph_node(g, NULL, type, op, attrs, in, in_count, out_count);
    if (!n)
        return hk_out_of_memory(g->ctx, "an unrolled loop");
    n->opset = INT16_MAX;
    for (int32_t i = 0; i < out_count; i++)
        out[i] = n->out[i];
    return HK_OK;
}

/* Unsqueeze or Squeeze. */
static hk_status change_axis(hk_graph *g, const char *type, hk_value *x, int64_t axis, hk_value **y)
{
    hk_value *axes = hk_graph_ints(g, &axis, 1);
    if (!axes)
        return hk_out_of_memory(g->ctx, "an unrolled loop");
    return add_node(g, type, NULL, (hk_value *[]){x, axes}, 2, 1, y);
}

/* rows[k * stride] for every k, along a new axis. */
static hk_status stack_rows(hk_graph *g, hk_value *const *rows, size_t stride, int64_t trips, int64_t axis,
                            bool backward, hk_value **y)
{
    const hk_attr_value attr = HK_SET_INT("axis", axis);
    hk_value **list = hk_arena_array(g->arena, (size_t)trips, sizeof *list);
    if (!list)
        return hk_out_of_memory(g->ctx, "an unrolled loop");
    for (int64_t k = 0; k < trips; k++)
        HK_TRY(change_axis(g, "Unsqueeze", rows[(size_t)k * stride], axis, &list[backward ? trips - 1 - k : k]));
    return add_node(g, "Concat", &attr, list, (int32_t)trips, 1, y);
}

typedef struct unrolling {
    hk_graph *g;
    const hk_node *n;
    const hk_graph *body;
    int64_t trips;
    hk_value **in;   /* of the next copy */
    hk_value **made; /* [trips][outputs of the body] */
} unrolling;

static hk_status begin(unrolling *u)
{
    u->in = hk_arena_array(u->g->arena, u->body->input_count + 1, sizeof *u->in);
    u->made = hk_arena_array(u->g->arena, (size_t)u->trips * u->body->output_count + 1, sizeof *u->made);
    return u->in && u->made ? HK_OK : hk_out_of_memory(u->g->ctx, "an unrolled loop");
}

static hk_status copy_body(unrolling *u, int64_t k, hk_value ***outputs)
{
    char *prefix = hk_arena_format(u->g->arena, "%s/%lld/", u->n->name, (long long)k);
    *outputs = u->made + (size_t)k * u->body->output_count;
    if (!prefix)
        return hk_out_of_memory(u->g->ctx, "an unrolled loop");
    return hk_graph_inline(u->g, u->body, prefix, u->in, *outputs);
}

/* An expansion's outputs are distinct values. */
static hk_status set_outputs(hk_graph *g, hk_value *const *from, int32_t count, hk_value **out)
{
    for (int32_t i = 0; i < count; i++) {
        out[i] = from[i];
        for (int32_t k = 0; k < i; k++)
            if (from[k] == from[i])
                HK_TRY(add_node(g, "Identity", NULL, &from[i], 1, 1, &out[i]));
    }
    return HK_OK;
}

/* ---- Loop */

bool hk_loop_unrolls(const hk_graph *g, const hk_node *n)
{
    return pays(g, n, hk_loop_trips(n));
}

hk_status hk_loop_unroll(hk_graph *g, const hk_node *n, hk_value **out)
{
    unrolling u = {.g = g, .n = n, .body = n->bodies[0], .trips = hk_loop_trips(n)};
    int32_t carried = HK_MAX(n->in_count - 2, 0);
    hk_value *entered = hk_graph_scalar(g, HK_BOOL, 1.0), **outputs = NULL;
    HK_TRY(begin(&u));
    u.in[1] = entered;
    for (int32_t i = 0; i < carried; i++)
        u.in[2 + i] = n->in[2 + i];
    for (int64_t k = 0; k < u.trips; k++) {
        u.in[0] = hk_graph_scalar(g, HK_INT64, (double)k);
        if (!u.in[0] || !entered)
            return hk_out_of_memory(g->ctx, "an unrolled loop");
        HK_TRY(copy_body(&u, k, &outputs));
        for (int32_t i = 0; i < carried; i++)
            u.in[2 + i] = outputs[1 + i];
    }
    HK_TRY(set_outputs(g, u.in + 2, HK_MIN(carried, n->out_count), out));
    for (int32_t i = carried; i < n->out_count; i++)
        if (n->out[i])
            HK_TRY(stack_rows(g, u.made + 1 + i, u.body->output_count, u.trips, 0, false, &out[i]));
    return HK_OK;
}

/* ---- Scan */

static int64_t entry(hk_ints list, int32_t i)
{
    return list.v && i < list.count ? list.v[i] : 0;
}

static int64_t scan_trips(const hk_node *n)
{
    const hk_scan_attrs *a = n->attrs;
    const hk_value *x = n->in[n->in_count - (int32_t)a->num_scan_inputs];
    return x->shape.dim[hk_axis(entry(a->scan_input_axes, 0), x->shape.rank)];
}

bool hk_scan_unrolls(const hk_graph *g, const hk_node *n)
{
    return pays(g, n, scan_trips(n));
}

/* Elements of sequence i in the order of its direction. */
static hk_status cut_sequence(const unrolling *u, int32_t i, hk_value **elements)
{
    const hk_scan_attrs *a = u->n->attrs;
    hk_value *x = u->n->in[u->n->in_count - (int32_t)a->num_scan_inputs + i];
    int64_t axis = hk_axis(entry(a->scan_input_axes, i), x->shape.rank);
    const hk_attr_value attr = HK_SET_INT("axis", axis);
    bool backward = entry(a->scan_input_directions, i) != 0;
    hk_shape ones = {.rank = 1, .dim = {u->trips}};
    hk_tensor *sizes = hk_tensor_new(u->g->arena, HK_INT64, &ones);
    hk_value *split = NULL, **parts = hk_arena_array(u->g->arena, (size_t)u->trips, sizeof *parts);
    if (!sizes || !parts)
        return hk_out_of_memory(u->g->ctx, "an unrolled scan");
    for (int64_t k = 0; k < u->trips; k++)
        hk_set_int(sizes, k, 1);
    split = hk_graph_constant(u->g, "ones", sizes);
    if (!split)
        return hk_out_of_memory(u->g->ctx, "an unrolled scan");
    HK_TRY(add_node(u->g, "Split", &attr, (hk_value *[]){x, split}, 2, (int32_t)u->trips, parts));
    for (int64_t k = 0; k < u->trips; k++)
        HK_TRY(change_axis(u->g, "Squeeze", parts[backward ? u->trips - 1 - k : k], axis, &elements[k]));
    return HK_OK;
}

hk_status hk_scan_unroll(hk_graph *g, const hk_node *n, hk_value **out)
{
    const hk_scan_attrs *a = n->attrs;
    unrolling u = {.g = g, .n = n, .body = n->bodies[0], .trips = scan_trips(n)};
    int32_t sequences = (int32_t)a->num_scan_inputs, carried = n->in_count - sequences;
    hk_value **elements = hk_arena_array(g->arena, (size_t)sequences * (size_t)u.trips, sizeof *elements), **outputs;
    HK_TRY(begin(&u));
    if (!elements)
        return hk_out_of_memory(g->ctx, "an unrolled scan");
    for (int32_t i = 0; i < sequences; i++)
        HK_TRY(cut_sequence(&u, i, elements + (size_t)i * (size_t)u.trips));
    for (int32_t i = 0; i < carried; i++)
        u.in[i] = n->in[i];
    for (int64_t k = 0; k < u.trips; k++) {
        for (int32_t i = 0; i < sequences; i++)
            u.in[carried + i] = elements[(int64_t)i * u.trips + k];
        HK_TRY(copy_body(&u, k, &outputs));
        for (int32_t i = 0; i < carried; i++)
            u.in[i] = outputs[i];
    }
    HK_TRY(set_outputs(g, u.in, HK_MIN(carried, n->out_count), out));
    for (int32_t i = carried; i < n->out_count; i++)
        if (n->out[i])
            HK_TRY(stack_rows(g, u.made + i, u.body->output_count, u.trips, entry(a->scan_output_axes, i - carried),
                              entry(a->scan_output_directions, i - carried) != 0, &out[i]));
    return HK_OK;
}
