/*
 * Precision `fast`: float32 values between nodes are stored as float16 wherever the kernels on both sides take that
 * (hk_op.half_in, half_out), gradients of a training step too. Sums, statistics and the functions of a chain are
 * computed in float32 all the same; parameters and what is summed into their gradients stay float32.
 *
 * Views and movers keep their storage, so what they connect is decided together. Float32 remain: inputs, outputs and
 * constants of the graph, what nodes with bodies use, and whatever takes part in deciding or addressing, which is to
 * say that it was made of integers or that integers are made of it: float16 has no odd numbers beyond 2048.
 *
 * Precision `high`: the same for spikes alone, which are zeros and ones. Products then take them as they are, without a
 * low half.
 */
#include "ops/support/gemm.h"
#include "runtime/passes.h"

#define REUSE 512 /* readings of an operand from which converting it pays: four tiles of 128 */

typedef struct storages {
    hk_graph *g;
    hk_arena *arena;
    hk_uses uses;
    uint32_t *same;                /* by value id: another of the same class, or itself */
    bool *wide;                    /* by class: stays float32 */
    bool matrices, fast, software; /* software devices are there for tests, which want halves everywhere */
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
        return s->matrices && (s->fast || s->software ? hk_product_suits_units(n) : hk_product_repays_high(n));
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

/* ---- spikes */

/* Moves spikes alone. */
static bool keeps_spikes(const storages *s, const hk_node *n, const bool *spikes)
{
    if (!n->op || !(n->op->flags & (HK_OP_VIEW | HK_OP_ANY_TYPE)) || hk_node_attr(n, "reduction"))
        return false;
    bool some = false;
    for (int32_t i = 0; i < n->in_count; i++) {
        const hk_value *v = n->in[i];
        if (!v || v->dtype != HK_FLOAT32)
            continue;
        if (v->graph != s->g || !spikes[v->id])
            return false;
        some = true;
    }
    return some;
}

static bool *find_spikes(const storages *s)
{
    const hk_graph *g = s->g;
    bool *spikes = hk_arena_array(s->arena, g->value_count + 1, sizeof *spikes);
    for (size_t k = 0; spikes && k < g->node_count; k++) {
        const hk_node *n = g->nodes[k];
        bool kept = keeps_spikes(s, n, spikes);
        for (int32_t i = 0; i < n->out_count; i++)
            if (n->out[i])
                spikes[n->out[i]->id] = kept || (n->op && n->op->spikes_out >> HK_MIN(i, 31) & 1u);
    }
    return spikes;
}

/* All else keeps its bits. */
static hk_status keep_but_spikes(storages *s)
{
    const bool *spikes = find_spikes(s);
    if (!spikes)
        return hk_out_of_memory(s->g->ctx, "choosing storage");
    for (size_t i = 0; i < s->g->value_count; i++)
        if (!spikes[s->g->values[i]->id])
            keep_wide(s, s->g->values[i]);
    return HK_OK;
}

/* ---- operands of products that stayed float32 (inputs, parameters of a training step) */

/* How often a product reads its operand i: the rows or columns of the result that need all of it. */
static int64_t readings(const hk_node *n, int32_t i)
{
    const hk_shape *y = &n->out[0]->shape;
    if (y->rank < 2)
        return 0;
    return i == 0                      ? y->dim[y->rank - 1]
           : n->in[1]->shape.rank == 2 ? hk_shape_span(y, 0, y->rank - 1)
                                       : y->dim[y->rank - 2];
}

static bool is_wide_operand(const hk_value *v)
{
    bool varies = v->kind == HK_VALUE_ACTIVATION || v->kind == HK_VALUE_INPUT;
    return varies && v->dtype == HK_FLOAT32 && hk_value_storage(v) == HK_FLOAT32 && v->shape.rank >= 2;
}

/* One copy in 16 bits for all products that read v, where together they read it often enough. A training step makes
 * those of its weights once, for the product and for the gradient of its other operand. */
static hk_status halve_operands(storages *s, size_t products)
{
    const hk_attr_value attrs[] = {HK_SET_INT("to", HK_FLOAT16), {0}};
    hk_graph *g = s->g;
    size_t count = g->value_count;
    int64_t *often = hk_arena_array(s->arena, count + 1, sizeof *often);
    hk_value **copy = hk_arena_array(s->arena, count + 1, sizeof(hk_value *));
    if (!often || !copy)
        return hk_out_of_memory(g->ctx, "choosing storage");
    for (int pass = 0; pass < 2; pass++) /* count, then replace */
        for (size_t k = 0; k < products; k++) {
            hk_node *n = g->nodes[k];
            for (int32_t i = 0; i < 2 && hk_is_product(n) && takes_halves(s, n); i++) {
                hk_value *v = n->in[i];
                if (v->id >= count || !is_wide_operand(v))
                    continue;
                if (pass == 0)
                    often[v->id] += readings(n, i);
                else if (often[v->id] >= REUSE) {
                    if (!copy[v->id])
                        HK_TRY(hk_build(g, "hk.Convert", attrs, &v, 1, &copy[v->id], 1));
                    n->in[i] = copy[v->id];
                }
            }
        }
    return HK_OK;
}

static hk_status choose(storages *s)
{
    hk_graph *g = s->g;
    HK_TRY(hk_graph_sort(g));
    HK_TRY(hk_graph_uses(g, s->arena, &s->uses));
    s->same = hk_arena_array(s->arena, g->value_count + 1, sizeof *s->same);
    s->wide = hk_arena_array(s->arena, g->value_count + 1, sizeof *s->wide);
    if (!s->same || !s->wide)
        return hk_out_of_memory(g->ctx, "choosing storage");
    for (size_t i = 0; i < g->value_count; i++)
        s->same[i] = (uint32_t)i;
    keep_edges(s);
    if (!s->fast)
        HK_TRY(keep_but_spikes(s));
    for (size_t i = 0; i < g->node_count; i++)
        examine(s, g->nodes[i]);
    for (size_t i = 0; i < g->value_count; i++)
        if (is_candidate(s, g->values[i]) && !s->wide[class_of(s, g->values[i])])
            g->values[i]->storage = HK_FLOAT16;
    if (!s->fast)
        return HK_OK;
    HK_TRY(halve_operands(s, g->node_count));
    return hk_graph_sort(g);
}

hk_status hk_choose_storage(hk_graph *g, const hk_pass_options *options)
{
    bool fast = options->precision == HK_PRECISION_FAST, high = options->precision == HK_PRECISION_HIGH;
    if ((!fast && !(high && options->matrices)) || !(options->device->caps >> HK_CAP_STORAGE16 & 1u))
        return HK_OK;
    storages s = {.g = g,
                  .arena = hk_arena_create(g->ctx),
                  .matrices = options->matrices,
                  .fast = fast,
                  .software = options->device->type == HK_DEVICE_SOFTWARE};
    hk_status st = s.arena ? choose(&s) : hk_out_of_memory(g->ctx, "choosing storage");
    hk_arena_destroy(&s.arena);
    return st;
}
