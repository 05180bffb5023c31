/*
 * Common subexpressions: nodes of one operator with equal attributes and operands compute the same values, so all but
 * the first go. Exports repeat shape arithmetic, masks, casts and position tables for every layer.
 *
 * Nodes that draw random numbers, update states or own bodies are left alone. Constants up to SMALL_BYTES are compared
 * by contents, larger ones by address; parameters are never merged.
 */
#include <string.h>

#include "runtime/passes.h"

enum { SMALL_BYTES = 1024 };

typedef struct table {
    hk_arena *arena;
    void **slot; /* hk_node or hk_value; open addressing, a power of two */
    size_t mask;
} table;

static uint64_t mix(uint64_t h, uint64_t x)
{
    h = (h ^ x) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

static uint64_t mix_bytes(uint64_t h, const void *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        h = mix(h, ((const unsigned char *)bytes)[i]);
    return h;
}

static bool table_create(table *t, hk_arena *arena, size_t count)
{
    size_t capacity = 16;
    while (capacity < 2 * count)
        capacity *= 2;
    *t = (table){.arena = arena, .slot = hk_arena_array(arena, capacity, sizeof(void *)), .mask = capacity - 1};
    return t->slot != NULL;
}

/* ---- constants */

static bool is_small_constant(const hk_value *v)
{
    return v->kind == HK_VALUE_CONSTANT && v->data && !v->producer && !v->state && v->layout == HK_LAYOUT_CONTIGUOUS &&
           hk_tensor_bytes(v->data) <= SMALL_BYTES;
}

static bool same_contents(const hk_value *a, const hk_value *b)
{
    return a->dtype == b->dtype && a->storage == b->storage && hk_shape_equal(&a->shape, &b->shape) &&
           a->data->dtype == b->data->dtype && hk_tensor_bytes(a->data) == hk_tensor_bytes(b->data) &&
           !memcmp(a->data->data, b->data->data, (size_t)hk_tensor_bytes(a->data));
}

static void merge_constants(hk_graph *g, table *t)
{
    for (size_t i = 0; i < g->value_count; i++) {
        hk_value *v = g->values[i];
        v->mark = NULL;
        if (!is_small_constant(v))
            continue;
        uint64_t h = mix_bytes((uint64_t)v->dtype, v->shape.dim, (size_t)v->shape.rank * sizeof *v->shape.dim);
        h = mix_bytes(h, v->data->data, (size_t)hk_tensor_bytes(v->data));
        size_t at = h & t->mask;
        while (t->slot[at] && !same_contents(t->slot[at], v))
            at = (at + 1) & t->mask;
        if (t->slot[at])
            v->mark = t->slot[at];
        else
            t->slot[at] = v;
    }
}

/* ---- nodes */

static bool mergeable(const hk_node *n)
{
    if (!n->op || n->body_count || n->op->flags & (HK_OP_RANDOM | HK_OP_CONTROL | HK_OP_KEEP))
        return false;
    for (int32_t i = 0; i < n->out_count; i++)
        if (n->out[i] && n->out[i]->state)
            return false;
    return true;
}

static bool same_tensor(const hk_tensor *a, const hk_tensor *b)
{
    return a == b ||
           (a && b && a->dtype == b->dtype && a->rank == b->rank &&
            !memcmp(a->shape, b->shape, (size_t)a->rank * sizeof *a->shape) &&
            hk_tensor_bytes(a) == hk_tensor_bytes(b) && !memcmp(a->data, b->data, (size_t)hk_tensor_bytes(a)));
}

static bool same_list(const void *a, int32_t a_count, const void *b, int32_t b_count, size_t bytes)
{
    return !a == !b && a_count == b_count && (!a_count || !memcmp(a, b, (size_t)a_count * bytes));
}

static bool same_attr(const hk_attr *a, const void *x, const void *y)
{
    switch (a->kind) {
    case HK_ATTR_INT: return *(const int64_t *)x == *(const int64_t *)y;
    case HK_ATTR_FLOAT: return !memcmp(x, y, sizeof(float));
    case HK_ATTR_STRING: {
        const char *s = *(const char *const *)x, *t = *(const char *const *)y;
        return s == t || (s && t && !strcmp(s, t));
    }
    case HK_ATTR_INTS: {
        const hk_ints *p = x, *q = y;
        return same_list(p->v, p->count, q->v, q->count, sizeof *p->v);
    }
    case HK_ATTR_FLOATS: {
        const hk_floats *p = x, *q = y;
        return same_list(p->v, p->count, q->v, q->count, sizeof *p->v);
    }
    case HK_ATTR_STRINGS: {
        const hk_strings *p = x, *q = y;
        bool same = !p->v == !q->v && p->count == q->count;
        for (int32_t i = 0; same && i < p->count; i++)
            same = !strcmp(p->v[i], q->v[i]);
        return same;
    }
    case HK_ATTR_TYPE: return !memcmp(x, y, sizeof(hk_type));
    case HK_ATTR_TENSOR: return same_tensor(*(const hk_tensor *const *)x, *(const hk_tensor *const *)y);
    case HK_ATTR_GRAPH: break;
    }
    return false;
}

/* b's every output is one that a has. */
static bool computes_same(const hk_node *a, const hk_node *b)
{
    if (a->op != b->op || a->in_count != b->in_count || b->out_count > a->out_count || a->opset != b->opset)
        return false;
    if (memcmp(a->in, b->in, (size_t)a->in_count * sizeof(hk_value *)) != 0)
        return false;
    for (int32_t i = 0; i < b->out_count; i++)
        if (b->out[i] && (!a->out[i] || a->out[i]->dtype != b->out[i]->dtype ||
                          hk_value_storage(a->out[i]) != hk_value_storage(b->out[i])))
            return false;
    for (const hk_attr *t = a->op->attrs; t && t->name; t++)
        if (!same_attr(t, (const char *)a->attrs + t->offset, (const char *)b->attrs + t->offset))
            return false;
    return true;
}

static hk_value *resolve(hk_value *v)
{
    while (v && v->mark)
        v = v->mark;
    return v;
}

/* Operands first, so that equal subexpressions meet as equal operands. */
static void merge_nodes(hk_graph *g, table *t)
{
    for (size_t i = 0; i < g->node_count; i++) {
        hk_node *n = g->nodes[i];
        uint64_t h = (uint64_t)(uintptr_t)n->op;
        for (int32_t k = 0; k < n->in_count; k++) {
            n->in[k] = resolve(n->in[k]);
            h = mix(h, n->in[k] ? n->in[k]->id + 1u : 0u);
        }
        if (!mergeable(n))
            continue;
        size_t at = h & t->mask;
        while (t->slot[at] && !computes_same(t->slot[at], n))
            at = (at + 1) & t->mask;
        if (!t->slot[at]) {
            t->slot[at] = n;
            continue;
        }
        const hk_node *first = t->slot[at];
        for (int32_t k = 0; k < n->out_count; k++)
            if (n->out[k])
                n->out[k]->mark = first->out[k];
    }
}

/* Bodies use values of this graph too. */
static void replace_in_bodies(hk_graph *g)
{
    bool bodies = false;
    for (size_t i = 0; i < g->node_count; i++)
        bodies |= g->nodes[i]->body_count > 0;
    for (size_t i = 0; i < g->value_count && bodies; i++)
        if (g->values[i]->mark)
            hk_graph_replace(g, g->values[i], resolve(g->values[i]));
}

static hk_status merge(hk_graph *g, hk_arena *arena)
{
    table constants, nodes;
    if (!table_create(&constants, arena, g->value_count) || !table_create(&nodes, arena, g->node_count))
        return hk_out_of_memory(g->ctx, "merging common subexpressions");
    HK_TRY(hk_graph_sort(g));
    merge_constants(g, &constants);
    merge_nodes(g, &nodes);
    replace_in_bodies(g);
    for (size_t i = 0; i < g->output_count; i++)
        g->outputs[i] = resolve(g->outputs[i]);
    for (size_t i = 0; i < g->value_count; i++)
        g->values[i]->mark = NULL;
    return hk_graph_prune(g);
}

hk_status hk_merge_common(hk_graph *g)
{
    hk_arena *arena = hk_arena_create(g->ctx);
    if (!arena)
        return hk_out_of_memory(g->ctx, "merging common subexpressions");
    hk_status st = merge(g, arena);
    hk_arena_destroy(&arena);
    return st;
}
