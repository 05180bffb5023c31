/*
 * What the gradient takes from the forward pass is kept until then, or computed again. Elementwise results are computed
 * again where only elementwise nodes of the gradient read them and their operands are kept anyway: those become part of
 * the chains that read them. With checkpointing the forward pass is cut where little is alive; what lies between two
 * cuts is computed again, from the first of them, when the gradient arrives at the second.
 */
#include <math.h>
#include <string.h>

#include "train/training.h"

enum { LEAST_BYTES = 16384, DEPTH_MOST = 4 /* elementwise nodes computed again for one value, one after the other */ };

typedef struct value_info {
    bool needed;  /* by the gradient */
    bool plainly; /* by elementwise nodes alone */
    bool kept, again;
    bool there;   /* kept, or can be computed from what is */
    bool wanted;  /* a copy is under way */
    int8_t depth; /* elementwise nodes from what is kept */
    hk_value *copy;
} value_info;

typedef struct recomputation {
    hk_graph *g;
    hk_arena *arena;
    size_t forward; /* nodes of the forward pass */
    size_t nodes;   /* of both */
    value_info *info;
    size_t values;
    uint32_t *segment; /* by node of the forward pass, 0: not of one that is computed again; NULL without checkpoints */
    hk_value **stack;
} recomputation;

static hk_status no_memory(const recomputation *c)
{
    return hk_out_of_memory(c->g->ctx, "a training step");
}

static bool is_view(const hk_node *n)
{
    return n && hk_node_view_offset(n) >= 0;
}

/* v is of the forward pass, and a node of it makes it. */
static value_info *made(const recomputation *c, const hk_value *v)
{
    bool made = v && v->id < c->values && v->producer && v->producer->id < c->forward;
    return made ? &c->info[v->id] : NULL;
}

static const hk_value *root_of(const hk_value *v)
{
    while (is_view(v->producer))
        v = v->producer->in[0];
    return v;
}

static void find_needs(const recomputation *c)
{
    for (size_t i = 0; i < c->values; i++)
        c->info[i].plainly = true;
    for (size_t i = c->forward; i < c->nodes; i++) {
        const hk_node *n = c->g->nodes[i];
        bool plain = n->op->flags & HK_OP_POINTWISE;
        for (int32_t k = 0; k < n->in_count; k++) {
            value_info *v = made(c, n->in[k]);
            if (v) {
                v->needed = true;
                v->plainly &= plain;
            }
        }
    }
    for (size_t i = 0; i < c->g->output_count; i++)
        if (made(c, c->g->outputs[i]))
            c->info[c->g->outputs[i]->id].kept = true;
    for (size_t i = c->forward; i-- > 0;) { /* who needs a view needs what it shows */
        const hk_node *n = c->g->nodes[i];
        value_info *x = is_view(n) ? made(c, n->in[0]) : NULL;
        if (x && c->info[n->out[0]->id].needed) {
            x->needed = true;
            x->plainly &= c->info[n->out[0]->id].plainly;
        }
    }
}

/* ---- what is computed again */

static bool operands_there(const recomputation *c, const hk_node *n, int8_t *depth)
{
    for (int32_t k = 0; k < n->in_count; k++) {
        const value_info *v = made(c, n->in[k]);
        if (!v)
            continue;
        if (!v->there)
            return false;
        *depth = HK_MAX(*depth, v->depth);
    }
    return true;
}

static void choose_elementwise(const recomputation *c, const hk_node *n)
{
    value_info *v = &c->info[n->out[0]->id];
    if (is_view(n)) {
        const value_info *x = made(c, n->in[0]);
        v->there = !x || x->there;
        v->again = x && x->again && v->needed;
        v->depth = x ? x->depth : 0;
        return;
    }
    int8_t depth = 0;
    bool cheap = (n->op->flags & HK_OP_POINTWISE) && !(n->op->flags & HK_OP_RANDOM) && n->out_count == 1 &&
                 !n->out[0]->state && !v->kept;
    bool can = cheap && operands_there(c, n, &depth) && depth < DEPTH_MOST;
    v->again = can && v->needed && v->plainly && hk_value_bytes(n->out[0]) >= LEAST_BYTES;
    v->kept |= v->needed && !v->again;
    v->there = v->kept || can;
    v->depth = v->kept ? 0 : (int8_t)(depth + 1);
}

/* Normalizations by the batch, whose inputs RUNNING and outputs NEW_RUNNING are running statistics. */
enum { RUNNING = 3, NEW_RUNNING = 1, STATISTICS = 2 };

static bool has_statistics(const hk_node *n)
{
    static const char *const types[] = {"BatchNormalization", "hk.BatchNormAct", "hk.BatchNormNeuron"};
    for (size_t i = 0; i < HK_COUNT(types); i++)
        if (hk_node_is(n, types[i]))
            return n->out_count > 1;
    return false;
}

static bool is_statistic(int32_t k, int32_t first)
{
    return k >= first && k < first + STATISTICS;
}

/* Nodes whose copy does what they do: nothing that runs on the host, and of states only running statistics, which the
 * copy leaves alone. Dropout draws by its name. */
static bool can_repeat(const hk_node *n)
{
    bool statistics = has_statistics(n);
    if (n->body_count || (n->op->flags & (HK_OP_HOST | HK_OP_CONTROL | HK_OP_KEEP | HK_OP_LIST)))
        return false;
    for (int32_t k = 0; k < n->out_count; k++)
        if (n->out[k] && n->out[k]->state && !(statistics && is_statistic(k, NEW_RUNNING)))
            return false;
    return true;
}

static void choose_in_segment(const recomputation *c, const hk_node *n)
{
    for (int32_t k = 0; k < n->out_count; k++) {
        value_info *v = n->out[k] ? &c->info[n->out[k]->id] : NULL;
        if (!v)
            continue;
        v->there = true;
        if (is_view(n) && !made(c, root_of(n->out[k]))) /* of a parameter: it lies there */
            continue;
        v->kept |= v->needed && !can_repeat(n);
        v->again = v->needed && !v->kept;
    }
}

static void choose(const recomputation *c)
{
    for (size_t i = 0; i < c->forward; i++) {
        const hk_node *n = c->g->nodes[i];
        if (c->segment && c->segment[i])
            choose_in_segment(c, n);
        else if (n->out_count > 0 && n->out[0])
            choose_elementwise(c, n);
        for (int32_t k = 1; k < n->out_count; k++)
            if (n->out[k] && !(c->segment && c->segment[i]))
                c->info[n->out[k]->id].there = c->info[n->out[k]->id].kept = true;
    }
}

/* ---- segments */

/* Bytes alive before each node of the forward pass that this pass will use. */
static hk_status bytes_alive(const recomputation *c, double *alive)
{
    uint32_t *last = hk_arena_array(c->arena, c->values + 1, sizeof *last);
    if (!last)
        return no_memory(c);
    for (size_t i = 0; i < c->forward; i++)
        for (int32_t k = 0; k < c->g->nodes[i]->in_count; k++)
            if (made(c, c->g->nodes[i]->in[k]))
                last[root_of(c->g->nodes[i]->in[k])->id] = (uint32_t)i;
    for (size_t i = 0; i < c->values; i++) {
        const hk_value *v = c->g->values[i];
        if (!made(c, v) || is_view(v->producer) || last[i] <= v->producer->id)
            continue;
        alive[v->producer->id + 1] += (double)hk_value_bytes(v);
        alive[last[i] + 1] -= (double)hk_value_bytes(v);
    }
    for (size_t i = 1; i <= c->forward; i++)
        alive[i] += alive[i - 1];
    return HK_OK;
}

static double needed_bytes(const recomputation *c, const hk_node *n)
{
    double bytes = 0;
    for (int32_t k = 0; k < n->out_count && !is_view(n); k++)
        if (n->out[k] && c->info[n->out[k]->id].needed)
            bytes += (double)hk_value_bytes(n->out[k]);
    return bytes;
}

/* What is alive at a cut stays. */
static void keep_alive(const recomputation *c, size_t cut)
{
    for (size_t i = cut; i < c->forward; i++)
        for (int32_t k = 0; k < c->g->nodes[i]->in_count; k++) {
            const hk_value *v = c->g->nodes[i]->in[k];
            for (value_info *x; (x = made(c, v)) && v->producer->id < cut; v = v->producer->in[0]) {
                x->kept = x->needed = true;
                if (!is_view(v->producer))
                    break;
            }
        }
}

/* Segments that save so much that cuts and the largest segment take about the same: the square root of all bytes times
 * what a cut keeps. The last one is not computed again: its gradient comes at once. */
static hk_status cut_segments(recomputation *c)
{
    double *alive = hk_arena_array(c->arena, c->forward + 2, sizeof *alive), all = 0, mean = 0, saved = 0;
    c->segment = hk_arena_array(c->arena, c->forward + 1, sizeof *c->segment);
    if (!alive || !c->segment)
        return no_memory(c);
    HK_TRY(bytes_alive(c, alive));
    for (size_t i = 0; i < c->forward; i++) {
        all += needed_bytes(c, c->g->nodes[i]);
        mean += alive[i] / (double)c->forward;
    }
    double target = sqrt(all * mean);
    uint32_t count = 0;
    for (size_t i = 0, begin = 0, best = 0; i < c->forward; i++) {
        saved += needed_bytes(c, c->g->nodes[i]);
        if (saved < target)
            continue;
        if (best <= begin || alive[i + 1] < alive[best])
            best = i + 1;
        if (saved < 1.5 * target)
            continue;
        count++;
        for (size_t k = begin; k < best; k++)
            c->segment[k] = count;
        keep_alive(c, best);
        begin = i = best;
        i--;
        saved = 0;
    }
    return HK_OK;
}

/* ---- copies */

/* Has to be computed again to compute v's users again. */
static bool wants_copy(const recomputation *c, const hk_value *v)
{
    const value_info *x = made(c, v);
    return x && !x->kept && (!is_view(v->producer) || wants_copy(c, v->producer->in[0])) && !x->copy;
}

/* What the copy of a node reads: copies, and what was kept, once the gradient has come so far. */
static hk_status copy_operand(const recomputation *c, hk_value *v, hk_value *behind, hk_value **out)
{
    const value_info *x = made(c, v);
    *out = x && x->copy ? x->copy : v;
    hk_value_kind kind = v ? root_of(v)->kind : HK_VALUE_CONSTANT;
    bool waits = *out == v && behind && !v->data && (kind == HK_VALUE_INPUT || kind == HK_VALUE_ACTIVATION);
    return waits ? hk_build(c->g, HK_AFTER, NULL, (hk_value *[]){v, behind}, 2, out, 1) : HK_OK;
}

static hk_status copy_node(const recomputation *c, const hk_node *n, hk_value *behind)
{
    hk_value **in = hk_arena_array(c->arena, (size_t)n->in_count + 1, sizeof *in);
    bool statistics = has_statistics(n);
    if (!in)
        return no_memory(c);
    for (int32_t k = 0; k < n->in_count; k++) {
        hk_value *v = n->in[k];
        if (statistics && is_statistic(k, RUNNING)) /* neither read nor changed, but one of that shape must be there */
            v = n->in[k - STATISTICS];
        HK_TRY(copy_operand(c, v, behind, &in[k]));
    }
    hk_node *copy = hk_graph_node(c->g, n->name, n->type, n->op, n->attrs, in, n->in_count, n->out_count);
    if (!copy)
        return no_memory(c);
    copy->domain = n->domain;
    copy->opset = n->opset;
    for (int32_t k = 0; k < n->out_count; k++)
        if (!n->out[k] || (statistics && is_statistic(k, NEW_RUNNING)))
            copy->out[k] = NULL;
    HK_TRY(hk_node_infer(c->g, copy));
    for (int32_t k = 0; k < n->out_count; k++)
        if (n->out[k])
            c->info[n->out[k]->id].copy = copy->out[k];
    return HK_OK;
}

/* v and what it is made of, behind a value of the gradient. */
static hk_status copy_value(const recomputation *c, hk_value *v, hk_value *behind)
{
    size_t depth = 0;
    uint32_t first = v->producer->id, last = first;
    c->stack[depth++] = v;
    c->info[v->id].wanted = true;
    while (depth > 0) {
        const hk_node *n = c->stack[--depth]->producer;
        first = HK_MIN(first, n->id);
        for (int32_t k = 0; k < n->in_count; k++)
            if (wants_copy(c, n->in[k]) && !c->info[n->in[k]->id].wanted) {
                c->info[n->in[k]->id].wanted = true;
                c->stack[depth++] = n->in[k];
            }
    }
    for (uint32_t i = first; i <= last; i++) {
        const hk_node *n = c->g->nodes[i];
        bool wanted = false;
        for (int32_t k = 0; k < n->out_count; k++)
            wanted |= n->out[k] && c->info[n->out[k]->id].wanted && !c->info[n->out[k]->id].copy;
        if (wanted)
            HK_TRY(copy_node(c, n, behind));
    }
    return HK_OK;
}

/* A value of the gradient that this node takes. Nodes before it depend on none of the copies that it is the first to
 * need, so copies may wait for it. */
static hk_value *gradient_operand(const recomputation *c, const hk_node *n)
{
    for (int32_t k = 0; k < n->in_count; k++)
        if (n->in[k] && n->in[k]->producer && n->in[k]->producer->id >= c->forward && n->in[k]->id < c->values)
            return n->in[k];
    return NULL;
}

static hk_status replace_uses(const recomputation *c)
{
    for (size_t i = c->forward; i < c->nodes; i++) {
        hk_node *n = c->g->nodes[i];
        hk_value *behind = gradient_operand(c, n);
        for (int32_t k = 0; k < n->in_count; k++) {
            value_info *v = made(c, n->in[k]);
            if (!v || !v->again || v->kept)
                continue;
            if (!v->copy)
                HK_TRY(copy_value(c, n->in[k], behind));
            n->in[k] = v->copy;
        }
    }
    return HK_OK;
}

static hk_status recompute(recomputation *c, bool checkpointing)
{
    c->info = hk_arena_array(c->arena, c->values + 1, sizeof *c->info);
    c->stack = hk_arena_array(c->arena, c->values + 1, sizeof *c->stack);
    if (!c->info || !c->stack)
        return no_memory(c);
    for (size_t i = 0; i < c->nodes; i++)
        c->g->nodes[i]->id = (uint32_t)i;
    find_needs(c);
    if (checkpointing)
        HK_TRY(cut_segments(c));
    choose(c);
    HK_TRY(replace_uses(c));
    return hk_graph_sort(c->g);
}

hk_status hk_recompute(hk_graph *g, size_t forward, bool checkpointing)
{
    recomputation c = {
        .g = g, .arena = hk_arena_create(g->ctx), .forward = forward, .nodes = g->node_count, .values = g->value_count};
    if (!c.arena)
        return no_memory(&c);
    hk_status st = recompute(&c, checkpointing);
    hk_arena_destroy(&c.arena);
    return st;
}
