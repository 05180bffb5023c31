/*
 * Fusing pointwise nodes, from the outputs backwards: each node not yet in a group becomes the root of one, which then
 * takes in producers of its inputs as long as the program fits a chain.
 *
 * A producer whose value only the group uses is taken in. If others use it too, it is taken in as the group's second
 * result; or, if it is a single cheap step on one operand, it is computed again. Groups with one result can be merged
 * into one node without making a cycle, because every path through them ends in the root; second results need a search.
 */
#include "runtime/fuse_chain.h"

#include <string.h>

#include "ops/pointwise.h"

enum {
    MEMBERS = 2 * CHAIN_STEPS, /* a conversion between types of equal representation takes no step */
    USERS = 64,     /* of a value: beyond, its node stays by itself, so that nobody looks at each of them for each */
    REACHED = 1024, /* nodes that a search for a cycle looks at before it takes one for granted */
    SMALL = 65536,  /* elements up to which computing a costly function for every element is cheaper than a pass */
};

typedef struct group {
    hk_node *member[MEMBERS]; /* the root first */
    hk_value *value[MEMBERS]; /* what each computes */
    bool copy[MEMBERS];       /* computed again, the node stays */
    uint8_t result[MEMBERS];  /* registers, of the last program built */
    int32_t count;
    hk_value *second; /* another result than the root's, or NULL */
} group;

typedef struct node_info {
    bool fusable;
    bool costly;      /* has a step that is not worth computing twice */
    bool cheap;       /* one step on one operand: may be computed again */
    bool constant;    /* depends on constants alone: computed once, so it stays by itself */
    int32_t group;    /* that it is a member of, -1: none */
    uint32_t reached; /* stamp of the search that came by */
} node_info;

typedef struct fusion {
    hk_graph *g;
    hk_arena *arena;
    hk_uses uses;
    node_info *info; /* by node id */
    group **groups;
    size_t group_count, group_capacity;
    hk_node **stack; /* of the search */
    uint32_t stamp;
    uint32_t lowest_second; /* id of the first node that makes a second result of a finished group */
    uint32_t search_end;    /* nodes from this id on lead to no operand of the group under way */
} fusion;

static node_info *info_of(const fusion *f, const hk_node *n)
{
    return &f->info[n->id];
}

/* ---- which nodes */

/* In HK_LAYOUT_NHWC8, whose elements are stored in 16 bits and computed in 32 all the same. */
static bool is_packed(const hk_value *v)
{
    return v->layout == HK_LAYOUT_NHWC8 && v->dtype == HK_FLOAT32 && hk_shape_known(&v->shape);
}

static bool is_plain(const hk_value *v)
{
    hk_dtype t = hk_value_storage(v);
    return v->layout == HK_LAYOUT_CONTIGUOUS && t == v->dtype &&
           (t == HK_FLOAT32 || hk_dtype_is_half(t) || !hk_dtype_is_float(t)) && hk_shape_known(&v->shape);
}

/* Encodes n alone: what it costs, and whether it can be encoded at all. */
static bool examine(const hk_node *n, node_info *info)
{
    hk_chain_build b = {.immediates = true};
    uint8_t in[CHAIN_INPUTS];
    for (int32_t i = 0; i < hk_pointwise_inputs(n); i++)
        in[i] = n->in[i] ? hk_chain_input(&b, n->in[i]) : CHAIN_NONE;
    hk_pointwise_encode(&b, n, in);
    for (int32_t i = 0; i < b.chain.step_count; i++)
        info->costly |= hk_chain_is_costly(b.chain.step[i].code);
    info->cheap = !info->costly && b.chain.step_count <= 1 && b.chain.input_count == 1;
    return !b.full;
}

static bool is_fusable(const hk_node *n, node_info *info)
{
    if (!n->op || !(n->op->flags & HK_OP_POINTWISE) || info->constant || n->in_count > CHAIN_INPUTS || !hk_out(n, 0))
        return false;
    const hk_value *y = n->out[0];
    if ((!is_plain(y) && !is_packed(y)) || y->state || hk_shape_count(&y->shape) == 0)
        return false;
    for (int32_t i = 0; i < hk_pointwise_inputs(n); i++) {
        if (!n->in[i])
            continue;
        hk_shape aligned = hk_pointwise_aligned(n, i, &n->in[i]->shape, &n->in[0]->shape);
        bool alike = is_packed(y) && hk_shape_equal(&n->in[i]->shape, &y->shape) ? is_packed(n->in[i])
                                                                                 : is_plain(n->in[i]);
        if (!alike || n->in[i]->graph != y->graph || !hk_shape_equal(&aligned, &n->in[i]->shape))
            return false;
    }
    return examine(n, info);
}

static bool is_constant(const fusion *f, const hk_node *n)
{
    bool constant = n->op && !(n->op->flags & (HK_OP_RANDOM | HK_OP_KEEP));
    for (int32_t i = 0; constant && i < n->in_count; i++) {
        const hk_value *v = n->in[i];
        if (!v || v->kind == HK_VALUE_CONSTANT || v->kind == HK_VALUE_PARAMETER)
            continue;
        constant = v->producer && v->graph == f->g && info_of(f, v->producer)->constant;
    }
    return constant;
}

/* ---- one group */

static int32_t place_of(const group *p, const hk_node *n)
{
    for (int32_t i = 0; i < p->count; i++)
        if (p->member[i] == n)
            return i;
    return -1;
}

static bool is_inside(const group *p, const hk_node *n)
{
    int32_t i = place_of(p, n);
    return i >= 0 && !p->copy[i];
}

/* Which member computes v? Asked by value, because producers change while groups are replaced. */
static int32_t place_of_value(const group *p, const hk_value *v)
{
    for (int32_t i = 0; i < p->count; i++)
        if (p->value[i] == v)
            return i;
    return -1;
}

static const hk_value *result_of(const group *p)
{
    return p->value[0];
}

/* Members in topological order, which is that of their ids. */
static hk_node *next_member(const group *p, const hk_node *after)
{
    hk_node *next = NULL;
    for (int32_t i = 0; i < p->count; i++)
        if ((!after || p->member[i]->id > after->id) && (!next || p->member[i]->id < next->id))
            next = p->member[i];
    return next;
}

static bool same_shape(const group *p, const hk_chain_build *b)
{
    hk_shape shape = HK_SCALAR;
    for (int32_t i = 0; i < b->chain.input_count; i++)
        if (!hk_shape_broadcast(&shape, &b->input[i]->shape, &shape))
            return false;
    return hk_shape_equal(&shape, &result_of(p)->shape);
}

static bool build_program(group *p, hk_chain_build *b, bool immediates)
{
    *b = (hk_chain_build){.immediates = immediates};
    for (hk_node *n = next_member(p, NULL); n; n = next_member(p, n)) {
        uint8_t in[CHAIN_INPUTS];
        for (int32_t i = 0; i < hk_pointwise_inputs(n); i++) {
            int32_t from = place_of_value(p, n->in[i]);
            in[i] = !n->in[i] ? CHAIN_NONE : from >= 0 ? p->result[from] : hk_chain_input(b, n->in[i]);
        }
        p->result[place_of(p, n)] = hk_pointwise_encode(b, n, in);
    }
    hk_chain_output(b, p->result[0], result_of(p)->dtype);
    if (p->second)
        hk_chain_output(b, p->result[place_of_value(p, p->second)], p->second->dtype);
    return !b->full && same_shape(p, b);
}

/* A constant of more dimensions than the rest gives the result its shape: then it stays an input. */
static bool fits(group *p, hk_chain_build *b)
{
    return build_program(p, b, true) || build_program(p, b, false);
}

/* ---- cycles. Groups made before count as one node each. */

/* Nodes of a finished group are represented by its root. */
static const hk_node *representative(const fusion *f, const hk_node *n)
{
    int32_t i = info_of(f, n)->group;
    return i < 0 ? n : f->groups[i]->member[0];
}

static void push_users(fusion *f, const group *p, const hk_value *v, size_t *depth)
{
    for (uint32_t i = 0; i < f->uses.count[v->id]; i++) {
        hk_node *user = f->uses.users[v->id][i];
        node_info *info = info_of(f, representative(f, user));
        if (user->id >= f->search_end || is_inside(p, user) || info->reached == f->stamp)
            continue;
        info->reached = f->stamp;
        f->stack[(*depth)++] = user;
    }
}

/* From a node only nodes of higher ids are reached, unless a finished group gives its second result before its root. So
 * the search ends at the last operand, if no such result comes before that. */
static uint32_t end_of_search(const fusion *f, const group *p)
{
    uint32_t last = 0;
    for (int32_t i = 0; i < p->count; i++)
        for (int32_t k = 0; k < p->member[i]->in_count; k++) {
            const hk_value *v = p->member[i]->in[k];
            if (v && v->producer && place_of_value(p, v) < 0)
                last = HK_MAX(last, v->producer->id);
        }
    return last < f->lowest_second ? last + 1 : UINT32_MAX;
}

/* Does something that uses the second result reach an operand of the group? */
static bool makes_cycle(fusion *f, const group *p)
{
    size_t depth = 0;
    if (!p->second)
        return false;
    f->stamp++;
    f->search_end = end_of_search(f, p);
    push_users(f, p, p->second, &depth);
    for (size_t looked_at = 0; depth > 0; looked_at++) {
        hk_node *n = f->stack[--depth];
        if (looked_at == REACHED)
            return true;
        const group *other = info_of(f, n)->group < 0 ? NULL : f->groups[info_of(f, n)->group];
        for (int32_t i = 0; !other && i < n->out_count; i++)
            if (n->out[i])
                push_users(f, p, n->out[i], &depth);
        if (other)
            push_users(f, p, result_of(other), &depth);
        if (other && other->second)
            push_users(f, p, other->second, &depth);
    }
    for (int32_t i = 0; i < p->count; i++)
        for (int32_t k = 0; k < p->member[i]->in_count; k++) {
            const hk_value *v = p->member[i]->in[k];
            if (v && v->producer && place_of_value(p, v) < 0 &&
                info_of(f, representative(f, v->producer))->reached == f->stamp)
                return true;
        }
    return false;
}

/* ---- growing */

/* Is v used by a node outside the group, or after the run? Nodes that stay although the group computes them again are
 * outside. */
static bool used_outside(const fusion *f, const group *p, const hk_value *v)
{
    bool outside = f->uses.is_output[v->id];
    for (uint32_t i = 0; !outside && i < f->uses.count[v->id]; i++)
        outside = !is_inside(p, f->uses.users[v->id][i]);
    return outside;
}

static bool all_users_fusable(const fusion *f, const hk_value *v)
{
    bool all = !f->uses.is_output[v->id];
    for (uint32_t i = 0; all && i < f->uses.count[v->id]; i++)
        all = info_of(f, f->uses.users[v->id][i])->fusable;
    return all;
}

static bool try_member(fusion *f, group *p, hk_node *n, bool copy, bool second)
{
    hk_chain_build b;
    p->member[p->count] = n;
    p->value[p->count] = n->out[0];
    p->copy[p->count++] = copy;
    if (second)
        p->second = n->out[0];
    if (fits(p, &b) && !makes_cycle(f, p))
        return true;
    p->count--;
    if (second)
        p->second = NULL;
    return false;
}

static bool take(fusion *f, group *p, hk_node *n)
{
    const node_info *info = info_of(f, n);
    const hk_value *v = n->out[0];
    int64_t count = hk_shape_count(&result_of(p)->shape);
    if (!info->fusable || info->group >= 0 || p->count == MEMBERS || place_of(p, n) >= 0 ||
        f->uses.count[v->id] > USERS)
        return false;
    if (info->costly && hk_shape_count(&v->shape) < count && count > SMALL)
        return false;
    if (!used_outside(f, p, v))
        return try_member(f, p, n, false, false);
    if (!p->second && hk_shape_equal(&v->shape, &result_of(p)->shape) && try_member(f, p, n, false, true))
        return true;
    return info->cheap && all_users_fusable(f, v) && try_member(f, p, n, true, false);
}

/* Members taken in later are looked at later: the list grows while it is walked, and a producer that was refused
 * because of another user may be taken once that user is inside, hence the repetition. */
static void grow(fusion *f, group *p)
{
    for (bool progress = true; progress;) {
        progress = false;
        for (int32_t i = 0; i < p->count; i++) {
            const hk_node *n = p->member[i];
            for (int32_t k = 0; k < hk_pointwise_inputs(n); k++)
                if (n->in[k] && n->in[k]->producer)
                    progress |= take(f, p, n->in[k]->producer);
        }
    }
}

static hk_status find_group(fusion *f, hk_node *root)
{
    group *p = hk_arena_new(f->arena, group);
    if (!p)
        return hk_out_of_memory(f->g->ctx, "fusing elementwise operators");
    p->member[0] = root;
    p->value[0] = root->out[0];
    p->count = 1;
    grow(f, p);
    if (p->count == 1)
        return HK_OK;
    if (f->group_count == f->group_capacity &&
        !hk_arena_grow(f->arena, (void **)&f->groups, f->group_count, &f->group_capacity, sizeof *f->groups))
        return hk_out_of_memory(f->g->ctx, "fusing elementwise operators");
    for (int32_t i = 0; i < p->count; i++)
        if (!p->copy[i])
            info_of(f, p->member[i])->group = (int32_t)f->group_count;
    f->groups[f->group_count++] = p;
    if (p->second)
        f->lowest_second = HK_MIN(f->lowest_second, p->second->producer->id);
    return HK_OK;
}

/* ---- rewriting */

static const char *joined_name(hk_graph *g, const group *p)
{
    const char *name = NULL;
    for (hk_node *n = next_member(p, NULL); n; n = next_member(p, n))
        name = name ? hk_arena_format(g->arena, "%s+%s", name, n->name) : n->name;
    return name;
}

/* The chain takes over the value itself, so that graph outputs keep their names. */
static void move_output(hk_node *from, hk_node *to, int32_t i)
{
    hk_value *v = from->out[0];
    from->out[0] = NULL;
    to->out[i] = v;
    v->producer = to;
}

static hk_status replace_group(hk_graph *g, group *p, const hk_op *op)
{
    hk_chain_build b;
    int64_t words[HK_CHAIN_WORDS];
    void *attrs = NULL;
    if (!fits(p, &b))
        return hk_fail(g->ctx, HK_STATUS_INTERNAL, "the chain at node '%s' does not fit any more", p->member[0]->name);
    const hk_attr_value program[] = {HK_SET_INTS("program", words, hk_chain_encode(&b.chain, words)), {0}};
    HK_TRY(hk_op_decode(g->ctx, g->arena, op, program, 1, &attrs));
    hk_node *n = hk_graph_node(g, joined_name(g, p), op->type, op, attrs, b.input, b.chain.input_count, 0);
    hk_value **out = n ? hk_arena_array(g->arena, CHAIN_OUTPUTS, sizeof *out) : NULL;
    if (!out)
        return hk_out_of_memory(g->ctx, "fusing elementwise operators");
    n->out = out;
    n->out_count = b.chain.output_count;
    n->opset = INT16_MAX;
    move_output(p->member[0], n, 0);
    if (p->second)
        move_output(p->member[place_of_value(p, p->second)], n, 1);
    return hk_node_infer(g, n);
}

static hk_status fuse(fusion *f)
{
    hk_graph *g = f->g;
    const hk_op *op = hk_op_find(NULL, "hk.Chain", INT16_MAX, NULL);
    size_t nodes = g->node_count;
    HK_TRY(hk_graph_uses(g, f->arena, &f->uses));
    f->info = hk_arena_array(f->arena, nodes + 1, sizeof *f->info);
    f->stack = hk_arena_array(f->arena, nodes + 1, sizeof *f->stack);
    if (!f->info || !f->stack || !op)
        return hk_out_of_memory(g->ctx, "fusing elementwise operators");
    for (size_t i = 0; i < nodes; i++) {
        f->info[i].group = -1;
        f->info[i].constant = is_constant(f, g->nodes[i]);
        f->info[i].fusable = is_fusable(g->nodes[i], &f->info[i]);
    }
    for (size_t i = nodes; i-- > 0;)
        if (f->info[i].fusable && f->info[i].group < 0)
            HK_TRY(find_group(f, g->nodes[i]));
    for (size_t i = 0; i < f->group_count; i++)
        HK_TRY(replace_group(g, f->groups[i], op));
    return f->group_count ? hk_graph_prune(g) : HK_OK;
}

hk_status hk_fuse_chains(hk_graph *g)
{
    fusion f = {.g = g, .arena = hk_arena_create(g->ctx), .lowest_second = UINT32_MAX};
    if (!f.arena)
        return hk_out_of_memory(g->ctx, "fusing elementwise operators");
    hk_status st = hk_graph_sort(g);
    if (st == HK_OK)
        st = fuse(&f);
    hk_arena_destroy(&f.arena);
    return st;
}
