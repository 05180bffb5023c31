/* The graph: building, reading and rewriting. */
#include "core/graph.h"

#include <string.h>

/* ---- lists in arenas */

static bool push(hk_arena *arena, void *list, size_t *count, size_t *capacity, void *item)
{
    void **items = *(void ***)list;
    if (*count == *capacity && !hk_arena_grow(arena, (void **)list, *count, capacity, sizeof *items))
        return false;
    (*(void ***)list)[(*count)++] = item;
    return true;
}

static void *no_memory(const hk_graph *g)
{
    hk_out_of_memory(g->ctx, "a graph");
    return NULL;
}

/* ---- building */

hk_status hk_graph_create(hk_context *ctx, const char *name, hk_graph **out)
{
    hk_arena *arena = hk_arena_create(ctx);
    hk_graph *g = arena ? hk_arena_new(arena, hk_graph) : NULL;
    if (g) {
        g->ctx = ctx;
        g->arena = arena;
        g->name = hk_arena_string(arena, name ? name : "");
        hk_map_init(&g->names, arena);
    }
    if (!g || !g->name) {
        hk_arena_destroy(&arena);
        return hk_out_of_memory(ctx, "a graph");
    }
    *out = g;
    return HK_OK;
}

void hk_graph_destroy(hk_graph **g)
{
    hk_arena *arena = *g ? (*g)->arena : NULL; /* the graph lies in its own arena */
    *g = NULL;
    hk_arena_destroy(&arena);
}

hk_graph *hk_graph_body(hk_graph *outer, const char *name)
{
    hk_graph *g = hk_arena_new(outer->arena, hk_graph);
    if (!g)
        return no_memory(outer);
    g->ctx = outer->ctx;
    g->arena = outer->arena;
    g->outer = outer;
    g->name = hk_arena_string(outer->arena, name ? name : "");
    hk_map_init(&g->names, outer->arena);
    return g->name ? g : no_memory(outer);
}

static const char *unique_name(hk_graph *g, const char *wish)
{
    if (wish && *wish && !hk_map_get(&g->names, wish))
        return hk_arena_string(g->arena, wish);
    for (size_t i = g->value_count;; i++) {
        char *name = hk_arena_format(g->arena, "%s_%zu", wish && *wish ? wish : "value", i);
        if (!name || !hk_map_get(&g->names, name))
            return name;
    }
}

hk_value *hk_graph_value(hk_graph *g, const char *name, hk_value_kind kind, hk_dtype dtype, const hk_shape *shape)
{
    hk_value *v = hk_arena_new(g->arena, hk_value);
    const char *unique = v ? unique_name(g, name) : NULL;
    if (!unique)
        return no_memory(g);
    *v = (hk_value){.name = unique,
                    .id = (uint32_t)g->value_count,
                    .kind = kind,
                    .dtype = dtype,
                    .shape = shape ? *shape : HK_SHAPE_UNKNOWN,
                    .graph = g};
    if (!hk_map_set(&g->names, unique, v) || !push(g->arena, &g->values, &g->value_count, &g->value_capacity, v))
        return no_memory(g);
    return v;
}

hk_value *hk_graph_constant(hk_graph *g, const char *name, const hk_tensor *data)
{
    hk_shape shape = hk_tensor_shape(data);
    hk_value *v = hk_graph_value(g, name, HK_VALUE_CONSTANT, data->dtype, &shape);
    if (v)
        v->data = data;
    return v;
}

hk_value *hk_graph_scalar(hk_graph *g, hk_dtype dtype, double x)
{
    hk_tensor *t = hk_tensor_new(g->arena, dtype, &HK_SCALAR);
    if (!t)
        return no_memory(g);
    hk_set_double(t, 0, x);
    return hk_graph_constant(g, "scalar", t);
}

hk_value *hk_graph_ints(hk_graph *g, const int64_t *x, int64_t count)
{
    hk_tensor *t = hk_tensor_new(g->arena, HK_INT64, &(hk_shape){.rank = 1, .dim = {count}});
    if (!t)
        return no_memory(g);
    if (count)
        memcpy(t->data, x, (size_t)count * sizeof *x);
    return hk_graph_constant(g, "ints", t);
}

hk_value *hk_graph_step(hk_graph *g)
{
    while (g->outer)
        g = g->outer;
    if (!g->step)
        g->step = hk_graph_value(g, "hk.step", HK_VALUE_STEP, HK_UINT32, &(hk_shape){.rank = 1, .dim = {64}});
    return g->step;
}

hk_state *hk_graph_state(hk_graph *g, const char *name, hk_dtype dtype, const hk_shape *shape, const hk_tensor *initial)
{
    hk_state *s = hk_arena_new(g->arena, hk_state);
    hk_value *v = s ? hk_graph_value(g, name, HK_VALUE_STATE, dtype, shape) : NULL;
    if (!v || !push(g->arena, &g->states, &g->state_count, &g->state_capacity, s))
        return no_memory(g);
    *s = (hk_state){.name = v->name, .initial = initial, .first = v, .last = v};
    v->state = s;
    return s;
}

bool hk_value_set_list(hk_value *v, hk_dtype dtype, hk_dtype item, hk_dtype element, hk_value *const *items,
                       int64_t count)
{
    hk_arena *arena = v->graph->arena;
    hk_list *list = hk_arena_new(arena, hk_list);
    if (!list)
        return no_memory(v->graph);
    *list = (hk_list){.item = item, .element = element};
    if (items && !(list->items = hk_arena_array(arena, (size_t)count + 1, sizeof *list->items)))
        return no_memory(v->graph);
    for (int64_t i = 0; items && i < count; i++)
        list->items[i] = items[i];
    v->dtype = dtype;
    v->shape = (hk_shape){.rank = 1, .dim = {count}};
    v->list = list;
    return true;
}

size_t hk_value_leaves(const hk_value *v)
{
    size_t count = 0;
    if (!v->list)
        return 1;
    for (int64_t i = 0; v->list->items && i < v->shape.dim[0]; i++)
        count += hk_value_leaves(v->list->items[i]);
    return count;
}

hk_value *hk_value_leaf(hk_value *v, size_t *at)
{
    if (!v->list)
        return (*at)-- == 0 ? v : NULL;
    for (int64_t i = 0; v->list->items && i < v->shape.dim[0]; i++) {
        hk_value *leaf = hk_value_leaf(v->list->items[i], at);
        if (leaf)
            return leaf;
    }
    return NULL;
}

bool hk_graph_add_input(hk_graph *g, hk_value *v)
{
    return push(g->arena, &g->inputs, &g->input_count, &g->input_capacity, v) || no_memory(g);
}

bool hk_graph_add_output(hk_graph *g, hk_value *v)
{
    return push(g->arena, &g->outputs, &g->output_count, &g->output_capacity, v) || no_memory(g);
}

bool hk_node_want_outputs(hk_node *n, int32_t out_count)
{
    hk_graph *g = NULL;
    for (int32_t i = 0; i < n->out_count && !g; i++)
        g = n->out[i] ? n->out[i]->graph : NULL;
    if (!g)
        return false;
    int32_t count = HK_MAX(out_count, n->out_count);
    hk_value **out = hk_arena_array(g->arena, (size_t)count, sizeof *out);
    if (!out)
        return no_memory(g);
    for (int32_t i = 0; i < count; i++) {
        out[i] = i < n->out_count ? n->out[i] : NULL;
        if (out[i] || i >= out_count)
            continue;
        const char *name = hk_arena_format(g->arena, "%s.%d", n->name, (int)i);
        out[i] = name ? hk_graph_value(g, name, HK_VALUE_ACTIVATION, HK_DTYPE_NONE, NULL) : NULL;
        if (!out[i])
            return no_memory(g);
        out[i]->producer = n;
    }
    n->out = out;
    n->out_count = count;
    return true;
}

bool hk_node_add_input(hk_node *n, hk_value *v)
{
    hk_value **in = hk_arena_array(v->graph->arena, (size_t)n->in_count + 1, sizeof *in);
    if (!in)
        return no_memory(v->graph);
    if (n->in_count)
        memcpy(in, n->in, (size_t)n->in_count * sizeof *in);
    in[n->in_count++] = v;
    n->in = in;
    return true;
}

hk_node *hk_graph_node(hk_graph *g, const char *name, const char *type, const struct hk_op *op, void *attrs,
                       hk_value *const *in, int32_t in_count, int32_t out_count)
{
    hk_node *n = hk_arena_new(g->arena, hk_node);
    if (!n)
        return no_memory(g);
    *n = (hk_node){.type = hk_arena_string(g->arena, type), .op = op, .attrs = attrs, .id = (uint32_t)g->node_count};
    n->name = name && *name ? hk_arena_string(g->arena, name)
                            : hk_arena_format(g->arena, "%s_%zu", type, g->node_count);
    n->in = hk_arena_array(g->arena, (size_t)HK_MAX(in_count, 1), sizeof *n->in);
    n->out = hk_arena_array(g->arena, (size_t)HK_MAX(out_count, 1), sizeof *n->out);
    if (!n->type || !n->name || !n->in || !n->out)
        return no_memory(g);
    for (int32_t i = 0; i < in_count; i++)
        n->in[i] = in[i];
    n->in_count = in_count;
    n->out_count = out_count;
    for (int32_t i = 0; i < out_count; i++) {
        const char *out_name = hk_arena_format(g->arena, i ? "%s.%d" : "%s", n->name, (int)i);
        n->out[i] = out_name ? hk_graph_value(g, out_name, HK_VALUE_ACTIVATION, HK_DTYPE_NONE, NULL) : NULL;
        if (!n->out[i])
            return no_memory(g);
        n->out[i]->producer = n;
    }
    return push(g->arena, &g->nodes, &g->node_count, &g->node_capacity, n) ? n : no_memory(g);
}

/* ---- reading */

hk_value *hk_graph_find(const hk_graph *g, const char *name)
{
    return hk_map_get(&g->names, name);
}

/* Calls visit for every value of g that node n uses, those captured by its bodies and the items of lists included. */
typedef bool visit_use(void *user, hk_value *v, hk_node *n);

static bool each_part(const hk_graph *g, hk_node *n, hk_value *v, visit_use *visit, void *user)
{
    if (v->graph == g && !visit(user, v, n))
        return false;
    for (int64_t i = 0; v->list && v->list->items && i < v->shape.dim[0]; i++)
        if (!each_part(g, n, v->list->items[i], visit, user))
            return false;
    return true;
}

static bool each_use(const hk_graph *g, hk_node *top, hk_node *n, visit_use *visit, void *user)
{
    for (int32_t i = 0; i < n->in_count; i++)
        if (n->in[i] && !each_part(g, top, n->in[i], visit, user))
            return false;
    for (int32_t b = 0; b < n->body_count; b++) {
        hk_graph *body = n->bodies[b];
        for (size_t i = 0; i < body->node_count; i++)
            if (!each_use(g, top, body->nodes[i], visit, user))
                return false;
        for (size_t i = 0; i < body->output_count; i++)
            if (!each_part(g, top, body->outputs[i], visit, user))
                return false;
    }
    return true;
}

static bool count_use(void *user, hk_value *v, hk_node *n)
{
    (void)n;
    ((hk_uses *)user)->count[v->id]++;
    return true;
}

static bool mark_output(void *user, hk_value *v, hk_node *n)
{
    (void)n;
    ((hk_uses *)user)->is_output[v->id] = true;
    return true;
}

/* A node that uses a value twice follows itself in that list, because nodes are visited in order. */
static bool add_use(void *user, hk_value *v, hk_node *n)
{
    hk_uses *u = user;
    uint32_t *count = &u->count[v->id];
    if (!*count || u->users[v->id][*count - 1] != n)
        u->users[v->id][(*count)++] = n;
    return true;
}

hk_status hk_graph_uses(const hk_graph *g, hk_arena *arena, hk_uses *out)
{
    hk_uses u = {.users = hk_arena_array(arena, g->value_count + 1, sizeof *u.users),
                 .count = hk_arena_array(arena, g->value_count + 1, sizeof *u.count),
                 .is_output = hk_arena_array(arena, g->value_count + 1, sizeof *u.is_output)};
    if (!u.users || !u.count || !u.is_output)
        return hk_out_of_memory(g->ctx, "a graph's uses");
    for (size_t i = 0; i < g->node_count; i++)
        each_use(g, g->nodes[i], g->nodes[i], count_use, &u);
    for (size_t i = 0; i < g->value_count; i++) {
        if (u.count[i] && !(u.users[i] = hk_arena_array(arena, u.count[i], sizeof *u.users[i])))
            return hk_out_of_memory(g->ctx, "a graph's uses");
        u.count[i] = 0;
    }
    for (size_t i = 0; i < g->node_count; i++)
        each_use(g, g->nodes[i], g->nodes[i], add_use, &u);
    for (size_t i = 0; i < g->output_count; i++)
        each_part(g, NULL, g->outputs[i], mark_output, &u);
    for (size_t i = 0; i < g->state_count; i++)
        u.is_output[g->states[i]->last->id] = true;
    *out = u;
    return HK_OK;
}

/* ---- rewriting */

static void replace_in_nodes(hk_graph *g, const hk_value *from, hk_value *to)
{
    for (size_t i = 0; i < g->node_count; i++) {
        hk_node *n = g->nodes[i];
        for (int32_t k = 0; k < n->in_count; k++)
            if (n->in[k] == from)
                n->in[k] = to;
        for (int32_t b = 0; b < n->body_count; b++)
            replace_in_nodes(n->bodies[b], from, to);
    }
    for (size_t i = 0; i < g->output_count; i++)
        if (g->outputs[i] == from)
            g->outputs[i] = to;
}

void hk_graph_replace(hk_graph *g, hk_value *from, hk_value *to)
{
    replace_in_nodes(g, from, to);
    for (size_t i = 0; i < g->state_count; i++)
        if (g->states[i]->last == from) {
            g->states[i]->last = to;
            to->state = g->states[i];
        }
}

void hk_graph_take_over(hk_value *from, hk_value *to)
{
    hk_node *n = from->producer, *old = to->producer;
    for (int32_t i = 0; old && i < old->out_count; i++)
        if (old->out[i] == to)
            old->out[i] = NULL;
    for (int32_t i = 0; i < n->out_count; i++)
        if (n->out[i] == from)
            n->out[i] = to;
    to->producer = n;
    from->producer = NULL;
}

/* The node of g that makes v, NULL if there is none or it has been taken out of the list. */
static hk_node *maker(const hk_graph *g, const hk_value *v)
{
    hk_node *n = v->producer;
    return n && n->id < g->node_count && g->nodes[n->id] == n ? n : NULL;
}

static bool is_made_before(void *user, hk_value *v, hk_node *n)
{
    const hk_node *from = maker(user, v);
    return !from || from->id < n->id;
}

/* For every node the nodes that make what it uses: entries first[id] to first[id + 1] of list. */
typedef struct makers {
    const hk_graph *g;
    uint32_t *first, *list; /* no list while they are counted */
    size_t count;
} makers;

static bool note_maker(void *user, hk_value *v, hk_node *n)
{
    makers *m = user;
    const hk_node *from = maker(m->g, v);
    (void)n;
    if (from && m->list)
        m->list[m->count] = from->id;
    m->count += from != NULL;
    return true;
}

static hk_status list_makers(makers *m, hk_arena *arena)
{
    const hk_graph *g = m->g;
    for (size_t i = 0; i < g->node_count; i++)
        each_use(g, g->nodes[i], g->nodes[i], note_maker, m);
    if (m->count > UINT32_MAX)
        return hk_fail(g->ctx, HK_STATUS_UNSUPPORTED, "graph '%s' has more than 2^32 uses of values", g->name);
    m->first = hk_arena_array(arena, g->node_count + 1, sizeof *m->first);
    m->list = hk_arena_array(arena, m->count + 1, sizeof *m->list);
    if (!m->first || !m->list)
        return hk_out_of_memory(g->ctx, "a graph's order");
    m->count = 0;
    for (size_t i = 0; i < g->node_count; i++) {
        m->first[i] = (uint32_t)m->count;
        each_use(g, g->nodes[i], g->nodes[i], note_maker, m);
    }
    m->first[g->node_count] = (uint32_t)m->count;
    return HK_OK;
}

/* A depth-first walk with its own stack: each node comes right after the last of what it needs, linear in nodes and
 * uses whatever order they have. */
static hk_status walk(hk_graph *g, hk_arena *arena)
{
    enum { WAITING, OPEN, PLACED };
    struct {
        uint32_t node, next;
    } *stack = hk_arena_array(arena, g->node_count + 1, sizeof *stack);
    hk_node **sorted = hk_arena_array(arena, g->node_count + 1, sizeof *sorted);
    makers m = {.g = g};
    if (!stack || !sorted)
        return hk_out_of_memory(g->ctx, "a graph's order");
    HK_TRY(list_makers(&m, arena));
    for (size_t i = 0; i < g->node_count; i++)
        g->nodes[i]->mark = WAITING;
    size_t done = 0, depth = 0;
    for (uint32_t i = 0; i < g->node_count; i++) {
        uint32_t open = i;
        bool push = g->nodes[i]->mark == WAITING;
        while (push || depth > 0) {
            if (push) {
                g->nodes[open]->mark = OPEN;
                stack[depth].node = open;
                stack[depth++].next = m.first[open];
            }
            uint32_t top = stack[depth - 1].node;
            push = false;
            if (stack[depth - 1].next == m.first[top + 1]) {
                g->nodes[top]->mark = PLACED;
                sorted[done++] = g->nodes[top];
                depth--;
                continue;
            }
            open = m.list[stack[depth - 1].next++];
            push = g->nodes[open]->mark == WAITING;
            if (g->nodes[open]->mark == OPEN)
                return hk_fail(g->ctx, HK_STATUS_INVALID,
                               "node '%s' (%s) lies on a cycle: its inputs depend on its outputs", g->nodes[open]->name,
                               g->nodes[open]->type);
        }
    }
    for (size_t i = 0; i < done; i++) {
        g->nodes[i] = sorted[i];
        g->nodes[i]->id = (uint32_t)i;
    }
    return HK_OK;
}

hk_status hk_graph_sort(hk_graph *g)
{
    bool sorted = true;
    for (size_t i = 0; i < g->node_count; i++)
        g->nodes[i]->id = (uint32_t)i;
    for (size_t i = 0; i < g->node_count && sorted; i++)
        sorted = each_use(g, g->nodes[i], g->nodes[i], is_made_before, g);
    if (sorted)
        return HK_OK;
    hk_arena *arena = hk_arena_create(g->ctx);
    if (!arena)
        return hk_out_of_memory(g->ctx, "a graph's order");
    hk_status st = walk(g, arena);
    hk_arena_destroy(&arena);
    return st;
}

static bool need_producer(void *user, hk_value *v, hk_node *n)
{
    (void)user;
    (void)n;
    if (v->producer)
        v->producer->mark = 1;
    return true;
}

/* graph.h must not know ops/: a node that is kept for its effect says so by defining a state's last version. */
hk_status hk_graph_prune(hk_graph *g)
{
    HK_TRY(hk_graph_sort(g));
    for (size_t i = 0; i < g->node_count; i++)
        g->nodes[i]->mark = 0;
    for (size_t i = 0; i < g->output_count; i++)
        each_part(g, NULL, g->outputs[i], need_producer, NULL);
    for (size_t i = 0; i < g->state_count; i++)
        need_producer(NULL, g->states[i]->last, NULL);
    for (size_t i = g->node_count; i-- > 0;)
        if (g->nodes[i]->mark)
            each_use(g, g->nodes[i], g->nodes[i], need_producer, NULL);
    size_t kept = 0;
    for (size_t i = 0; i < g->node_count; i++) {
        hk_node *n = g->nodes[i];
        if (n->mark) {
            n->id = (uint32_t)kept;
            g->nodes[kept++] = n;
            continue;
        }
        for (int32_t k = 0; k < n->out_count; k++)
            if (n->out[k])
                n->out[k]->producer = NULL;
    }
    g->node_count = kept;
    return HK_OK;
}

/* ---- cloning. A copy has its source's id, so source and clone are walked side by side and the source, which may be a
 * shared model, is not written. */

typedef struct clone {
    hk_graph *main;            /* of the copies */
    const hk_value **captured; /* values around the source, in the order of the copies' extra inputs */
    size_t captured_count, capacity;
    const hk_graph *inlined; /* a body whose values become the map's and whose surroundings stay; NULL: none */
    hk_value **map;          /* by value id of it */
} clone;

/* A value around the cloned graph becomes an input of the copy, or a constant where its contents are known. */
static hk_value *capture(clone *c, const hk_value *v)
{
    hk_graph *g = c->main;
    for (size_t i = 0; i < c->captured_count; i++)
        if (c->captured[i] == v)
            return g->inputs[g->input_count - c->captured_count + i];
    bool constant = v->data && (v->kind == HK_VALUE_CONSTANT || v->kind == HK_VALUE_PARAMETER);
    hk_value *copy = hk_graph_value(g, v->name, constant ? v->kind : HK_VALUE_INPUT, v->dtype, &v->shape);
    if (!copy)
        return NULL;
    copy->data = constant ? v->data : NULL;
    if (constant)
        return copy;
    if (v->list && !hk_value_set_list(copy, v->dtype, v->list->item, v->list->element, NULL, v->shape.dim[0]))
        return NULL;
    if (!push(g->arena, &c->captured, &c->captured_count, &c->capacity, (void *)(uintptr_t)v) ||
        !hk_graph_add_input(g, copy))
        return no_memory(g);
    return copy;
}

static hk_value *copy_of(clone *c, const hk_graph *from, const hk_graph *to, const hk_value *v)
{
    while (to && v->graph != from && from != c->inlined) {
        from = from->outer;
        to = to->outer;
    }
    if (c->inlined && from == c->inlined)
        return v->graph == from ? c->map[v->id] : (hk_value *)(uintptr_t)v;
    return to ? to->values[v->id] : capture(c, v);
}

static hk_status clone_into(clone *c, const hk_graph *from, hk_graph *to);

static hk_status clone_values(const hk_graph *from, hk_graph *to)
{
    to->values = hk_arena_array(to->arena, from->value_count + 1, sizeof *to->values);
    to->value_capacity = from->value_count + 1;
    if (!to->values)
        return hk_out_of_memory(to->ctx, "a graph");
    for (size_t i = 0; i < from->value_count; i++) {
        hk_value *v = hk_arena_new(to->arena, hk_value);
        if (!v || !hk_map_set(&to->names, from->values[i]->name, v))
            return hk_out_of_memory(to->ctx, "a graph");
        *v = *from->values[i];
        v->graph = to;
        v->producer = NULL;
        v->state = NULL;
        v->mark = NULL;
        to->values[to->value_count++] = v;
    }
    return HK_OK;
}

/* Known items belong to the same graph: bodies know none. */
static hk_status clone_lists(const hk_graph *from, hk_graph *to)
{
    for (size_t i = 0; i < from->value_count; i++) {
        const hk_list *list = from->values[i]->list;
        if (!list || !list->items)
            continue;
        hk_value *v = to->values[i];
        int64_t count = v->shape.dim[0];
        hk_value **items = hk_arena_array(to->arena, (size_t)count + 1, sizeof *items);
        if (!items)
            return hk_out_of_memory(to->ctx, "a graph");
        for (int64_t k = 0; k < count; k++)
            items[k] = to->values[list->items[k]->id];
        if (!hk_value_set_list(v, v->dtype, list->item, list->element, items, count))
            return HK_STATUS_OUT_OF_MEMORY;
    }
    return HK_OK;
}

static hk_status clone_node(clone *c, const hk_graph *from, hk_graph *to, const hk_node *source)
{
    hk_node *n = hk_arena_new(to->arena, hk_node);
    if (!n || !push(to->arena, &to->nodes, &to->node_count, &to->node_capacity, n))
        return hk_out_of_memory(to->ctx, "a graph");
    *n = *source;
    n->in = hk_arena_array(to->arena, (size_t)HK_MAX(n->in_count, 1), sizeof *n->in);
    n->out = hk_arena_array(to->arena, (size_t)HK_MAX(n->out_count, 1), sizeof *n->out);
    n->bodies = hk_arena_array(to->arena, (size_t)HK_MAX(n->body_count, 1), sizeof *n->bodies);
    if (!n->in || !n->out || !n->bodies)
        return hk_out_of_memory(to->ctx, "a graph");
    for (int32_t i = 0; i < n->in_count; i++)
        if (source->in[i] && !(n->in[i] = copy_of(c, from, to, source->in[i])))
            return HK_STATUS_OUT_OF_MEMORY;
    for (int32_t i = 0; i < n->out_count; i++)
        if (source->out[i]) {
            n->out[i] = copy_of(c, from, to, source->out[i]);
            n->out[i]->producer = n;
        }
    for (int32_t i = 0; i < n->body_count; i++) {
        n->bodies[i] = hk_graph_body(to, source->bodies[i]->name);
        if (!n->bodies[i])
            return HK_STATUS_OUT_OF_MEMORY;
        HK_TRY(clone_into(c, source->bodies[i], n->bodies[i]));
    }
    return HK_OK;
}

static hk_status clone_states(const hk_graph *from, hk_graph *to)
{
    for (size_t i = 0; i < from->state_count; i++) {
        hk_state *s = hk_arena_new(to->arena, hk_state);
        if (!s || !push(to->arena, &to->states, &to->state_count, &to->state_capacity, s))
            return hk_out_of_memory(to->ctx, "a graph");
        *s = *from->states[i];
        s->first = to->values[s->first->id];
        s->last = to->values[s->last->id];
        for (size_t k = 0; k < from->value_count; k++)
            if (from->values[k]->state == from->states[i])
                to->values[k]->state = s;
    }
    return HK_OK;
}

static hk_status clone_into(clone *c, const hk_graph *from, hk_graph *to)
{
    HK_TRY(clone_values(from, to));
    HK_TRY(clone_lists(from, to));
    for (size_t i = 0; i < from->input_count; i++)
        if (!hk_graph_add_input(to, to->values[from->inputs[i]->id]))
            return HK_STATUS_OUT_OF_MEMORY;
    for (size_t i = 0; i < from->node_count; i++)
        HK_TRY(clone_node(c, from, to, from->nodes[i]));
    for (size_t i = 0; i < from->output_count; i++) {
        hk_value *v = copy_of(c, from, to, from->outputs[i]);
        if (!v || !hk_graph_add_output(to, v))
            return HK_STATUS_OUT_OF_MEMORY;
    }
    to->step = from->step ? to->values[from->step->id] : NULL;
    to->fold_limit = from->fold_limit;
    to->matrix_types = from->matrix_types;
    return clone_states(from, to);
}

hk_status hk_graph_clone(const hk_graph *g, hk_graph **out)
{
    return hk_graph_clone_body(g, out, NULL, NULL);
}

hk_status hk_graph_clone_body(const hk_graph *body, hk_graph **out, const hk_value ***captured, size_t *captured_count)
{
    clone c = {0};
    HK_TRY(hk_graph_create(body->ctx, body->name, &c.main));
    hk_status st = clone_into(&c, body, c.main);
    if (st != HK_OK) {
        hk_graph_destroy(&c.main);
        return st;
    }
    *out = c.main;
    if (captured) {
        *captured = c.captured;
        *captured_count = c.captured_count;
    }
    return HK_OK;
}

/* ---- a body's nodes in the graph around it */

static hk_status inline_values(hk_graph *g, const hk_graph *body, const char *prefix, hk_value **map)
{
    for (size_t i = 0; i < body->value_count; i++) {
        const hk_value *v = body->values[i];
        const char *name = map[i] ? NULL : hk_arena_format(g->arena, "%s%s", prefix, v->name);
        if (map[i])
            continue;
        map[i] = name ? hk_graph_value(g, name, v->kind, v->producer ? HK_DTYPE_NONE : v->dtype,
                                       v->producer ? NULL : &v->shape)
                      : NULL;
        if (!map[i])
            return hk_out_of_memory(g->ctx, "an inlined body");
        map[i]->data = v->producer ? NULL : v->data;
        map[i]->payload = v->payload;
        map[i]->list = v->producer ? NULL : v->list;
    }
    return HK_OK;
}

hk_status hk_graph_inline(hk_graph *g, const hk_graph *body, const char *prefix, hk_value *const *inputs,
                          hk_value **outputs)
{
    clone c = {.main = g, .inlined = body};
    c.map = hk_arena_array(g->arena, body->value_count + 1, sizeof *c.map);
    if (!c.map)
        return hk_out_of_memory(g->ctx, "an inlined body");
    for (size_t i = 0; i < body->input_count; i++)
        c.map[body->inputs[i]->id] = inputs[i];
    HK_TRY(inline_values(g, body, prefix, c.map));
    for (size_t i = 0; i < body->node_count; i++)
        HK_TRY(clone_node(&c, body, g, body->nodes[i]));
    for (size_t i = 0; i < body->output_count; i++)
        outputs[i] = copy_of(&c, body, g, body->outputs[i]);
    return HK_OK;
}

bool hk_node_is(const hk_node *n, const char *type)
{
    return n && n->op && !n->domain && strcmp(n->type, type) == 0;
}
