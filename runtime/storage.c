/*
 * Precision `fast` (inference): float32 values between nodes are stored as float16 wherever the kernels on both sides
 * take that (hk_op.half_in, half_out). Sums, statistics and the functions of a chain are computed in float32 all the
 * same.
 *
 * Views and movers keep their storage, so what they connect is decided together. Float32 remain: inputs, outputs and
 * constants of the graph, what nodes with bodies use, and whatever takes part in deciding or addressing, which is to
 * say that it was made of integers or that integers are made of it: float16 has no odd numbers beyond 2048.
 */
#include "ops/support/gemm.h"
#include "runtime/passes.h"

#define REUSE 512 /* columns of the result from which converting an operand pays: four tiles of 128 */

typedef struct storages {
    hk_graph *g;
    hk_uses uses;
    uint32_t *same; /* by value id: another of the same class, or itself */
    bool *wide;     /* by class: stays float32 */
    bool matrices;
} storages;

static uint32_t class_of(storages *s, const hk_value *v)
{
    uint32_t i = v->id;
    while (s->same[i] != i)
        i = s->same[i] = s->same[s->same[i]];
    return i;
}

static bool is_candidate(const storages *s, const hk_value *v)
{
    return v && v->dtype == HK_FLOAT32 && v->graph == s->g;
}

static void keep_wide(storages *s, const hk_value *v)
{
    if (is_candidate(s, v))
        s->wide[class_of(s, v)] = true;
}

static void join(storages *s, const hk_value *a, const hk_value *b)
{
    if (!is_candidate(s, a) || !is_candidate(s, b)) {
        keep_wide(s, a);
        keep_wide(s, b);
        return;
    }
    uint32_t from = class_of(s, a), to = class_of(s, b);
    s->wide[to] |= s->wide[from];
    s->same[from] = to;
}

/* Made of integers, or integers made of it. */
static bool meets_integers(const hk_node *n)
{
    bool integers = false;
    for (int32_t i = 0; i < n->in_count + n->out_count; i++) {
        const hk_value *v = i < n->in_count ? n->in[i] : n->out[i - n->in_count];
        integers |= v && hk_dtype_is_integer(v->dtype);
    }
    return integers;
}

static bool takes_halves(const storages *s, const hk_node *n)
{
    if (!n->op || n->body_count || n->op->flags & (HK_OP_CONTROL | HK_OP_HOST | HK_OP_LIST | HK_OP_KEEP))
        return false;
    if (hk_is_product(n))
        return s->matrices && hk_product_suits_units(n);
    return !meets_integers(n);
}

static void examine(storages *s, const hk_node *n)
{
    bool views = n->op && (hk_node_view_offset(n) >= 0 || (n->op->flags & HK_OP_VIEW && !n->op->lower));
    if (views) {
        join(s, n->in[0], n->out[0]);
        return;
    }
    if (n->op && n->op->flags & HK_OP_ANY_TYPE && !hk_node_is(n, "hk.Convert")) {
        const hk_value *first = hk_out(n, 0);
        for (int32_t i = 0; i < n->in_count + n->out_count; i++) {
            const hk_value *v = i < n->in_count ? n->in[i] : n->out[i - n->in_count];
            if (v && v->dtype == HK_FLOAT32)
                join(s, v, first);
        }
        return;
    }
    bool takes = takes_halves(s, n);
    for (int32_t i = 0; i < n->in_count; i++)
        if (!takes || !(n->op->half_in >> HK_MIN(i, 31) & 1u))
            keep_wide(s, n->in[i]);
    for (int32_t i = 0; i < n->out_count; i++)
        if (!takes || !(n->op->half_out >> HK_MIN(i, 31) & 1u))
            keep_wide(s, n->out[i]);
}

static void keep_edges(storages *s)
{
    const hk_graph *g = s->g;
    for (size_t i = 0; i < g->value_count; i++) {
        const hk_value *v = g->values[i];
        bool wide = v->kind != HK_VALUE_ACTIVATION || !v->producer || v->state || v->layout != HK_LAYOUT_CONTIGUOUS ||
                    v->storage != HK_DTYPE_NONE || v->data || s->uses.is_output[v->id] || !hk_shape_known(&v->shape);
        for (uint32_t u = 0; !wide && u < s->uses.count[v->id]; u++)
            wide = s->uses.users[v->id][u]->body_count > 0;
        if (wide)
            keep_wide(s, v);
    }
}

/* Operands that stayed float32 although many tiles read them. */
static hk_status halve_operands(storages *s, hk_node *n)
{
    const hk_attr_value attrs[] = {HK_SET_INT("to", HK_FLOAT16), {0}};
    const hk_shape *y = &n->out[0]->shape;
    for (int32_t i = 0; i < 2; i++) {
        const hk_value *v = n->in[i];
        int64_t readers = y->rank >= 2 ? y->dim[y->rank - (i ? 2 : 1)] : 0;
        bool activation = v->kind == HK_VALUE_ACTIVATION || v->kind == HK_VALUE_INPUT;
        if (activation && v->dtype == HK_FLOAT32 && v->storage == HK_DTYPE_NONE && v->shape.rank >= 2 &&
            readers >= REUSE)
            HK_TRY(hk_build(s->g, "hk.Convert", attrs, &n->in[i], 1, &n->in[i], 1));
    }
    return HK_OK;
}

static hk_status choose(storages *s, hk_arena *arena)
{
    hk_graph *g = s->g;
    HK_TRY(hk_graph_uses(g, arena, &s->uses));
    s->same = hk_arena_array(arena, g->value_count + 1, sizeof *s->same);
    s->wide = hk_arena_array(arena, g->value_count + 1, sizeof *s->wide);
    if (!s->same || !s->wide)
        return hk_out_of_memory(g->ctx, "choosing storage");
    for (size_t i = 0; i < g->value_count; i++)
        s->same[i] = (uint32_t)i;
    keep_edges(s);
    for (size_t i = 0; i < g->node_count; i++)
        examine(s, g->nodes[i]);
    for (size_t i = 0; i < g->value_count; i++)
        if (is_candidate(s, g->values[i]) && !s->wide[class_of(s, g->values[i])])
            g->values[i]->storage = HK_FLOAT16;
    size_t count = g->node_count;
    for (size_t i = 0; i < count; i++)
        if (hk_is_product(g->nodes[i]) && takes_halves(s, g->nodes[i]))
            HK_TRY(halve_operands(s, g->nodes[i]));
    return hk_graph_sort(g);
}

hk_status hk_choose_storage(hk_graph *g, const hk_pass_options *options)
{
    if (options->precision != HK_PRECISION_FAST || !options->inference ||
        !(options->device->caps >> HK_CAP_STORAGE16 & 1u))
        return HK_OK;
    storages s = {.g = g, .matrices = options->matrices};
    hk_arena *arena = hk_arena_create(g->ctx);
    hk_status st = arena ? choose(&s, arena) : hk_out_of_memory(g->ctx, "choosing storage");
    hk_arena_destroy(&arena);
    return st;
}
