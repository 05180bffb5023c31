/* Inference and constant folding. */
#include "ops/infer.h"

#include <string.h>

#include "ops/step.h"
#include "ops/support/sequence.h"

static void make_constant(hk_value *v)
{
    v->kind = HK_VALUE_CONSTANT;
    v->producer = NULL;
}

static bool all_known(const hk_node *n)
{
    for (int32_t i = 0; i < n->in_count; i++)
        if (n->in[i] && !n->in[i]->data)
            return false;
    return true;
}

/* ---- what folding may take. A file can ask for any amount of it: what is above the bounds is computed on the device.
 */

enum {
    FOLD_STEPS = 1 << 24,      /* of all folds of a graph: some tenths of a second */
    FOLD_STEPS_EACH = 1 << 20, /* of one whose work is not proportional to its operands */
    FOLD_STEPS_NODE = 64,      /* besides its elements */
};
#define FOLD_BYTES_DEFAULT ((uint64_t)64 << 20)

/* Operators that look at each element a bounded number of times. Of the others the worst is assumed: each result
 * depends on every operand. */
static bool is_linear(const hk_node *n)
{
    static const char *const types[] = {"Cast",  "ConstantOfShape", "Expand",    "Gather", "Pad",
                                        "Range", "Slice",           "ScatterND", "Shape",  "Transpose",
                                        "Tile",  "Where",           "Split",     "Trilu"};
    if (n->op->flags & (HK_OP_POINTWISE | HK_OP_VIEW | HK_OP_PLACE))
        return true;
    for (size_t i = 0; i < HK_COUNT(types); i++)
        if (!strcmp(n->type, types[i]))
            return true;
    return false;
}

/* Whether n's work and results fit what is left; then they are taken. */
static bool afford(hk_graph *g, const hk_node *n, int64_t most)
{
    uint64_t in = 0, out = 0, bytes = 0;
    for (int32_t i = 0; i < n->in_count; i++) {
        int64_t count = n->in[i] ? hk_shape_count(&n->in[i]->shape) : 0;
        if (count > most)
            return false;
        in += (uint64_t)HK_MAX(count, (int64_t)0);
    }
    for (int32_t i = 0; i < n->out_count; i++) {
        /* An output whose size depends on contents has no more elements than the operands, for each dimension. */
        int64_t count = !n->out[i] ? 0 : (int64_t)in * HK_MAX_RANK;
        if (n->out[i] && hk_shape_known(&n->out[i]->shape))
            count = hk_shape_count(&n->out[i]->shape);
        if (count > most)
            return false;
        out += (uint64_t)HK_MAX(count, (int64_t)0);
        bytes += n->out[i] ? (uint64_t)count * hk_dtype_bytes(n->out[i]->dtype) : 0;
    }
    uint64_t steps = in + out + FOLD_STEPS_NODE, limit = g->fold_limit ? g->fold_limit : FOLD_BYTES_DEFAULT;
    if (!is_linear(n) && (steps = in * out + FOLD_STEPS_NODE) > FOLD_STEPS_EACH)
        return false;
    if (g->fold_steps + steps > FOLD_STEPS || g->fold_bytes + bytes > limit)
        return false;
    g->fold_steps += steps;
    g->fold_bytes += bytes;
    return true;
}

static hk_status keep_folded(hk_graph *g, hk_value *v, const hk_tensor *t)
{
    hk_shape shape = hk_tensor_shape(t);
    hk_tensor *copy = hk_tensor_new(g->arena, t->dtype, &shape);
    if (!copy)
        return hk_out_of_memory(g->ctx, "constant folding");
    memcpy(copy->data, t->data, (size_t)hk_tensor_bytes(t));
    v->data = copy;
    v->dtype = t->dtype;
    v->shape = shape;
    make_constant(v);
    return HK_OK;
}

/* In an arena of its own, for evaluators leave in it what they needed on the way. */
static hk_status fold_in(hk_graph *g, hk_node *n, hk_arena *arena)
{
    static const hk_step no_step;
    const hk_tensor **in = hk_arena_array(arena, (size_t)n->in_count + 1, sizeof *in);
    hk_tensor **out = hk_arena_array(arena, (size_t)n->out_count + 1, sizeof *out);
    if (!in || !out)
        return hk_out_of_memory(g->ctx, "constant folding");
    for (int32_t i = 0; i < n->in_count; i++)
        in[i] = n->in[i] ? n->in[i]->data : NULL;
    HK_TRY(hk_node_eval(g->ctx, arena, n, in, out, &no_step));
    for (int32_t i = 0; i < n->out_count; i++)
        if (n->out[i])
            HK_TRY(keep_folded(g, n->out[i], out[i]));
    return HK_OK;
}

static hk_status fold(hk_graph *g, hk_node *n)
{
    hk_arena *arena = hk_arena_create(g->ctx);
    if (!arena)
        return hk_out_of_memory(g->ctx, "constant folding");
    hk_status st = fold_in(g, n, arena);
    hk_arena_destroy(&arena);
    return st;
}

static bool makes_list(const hk_node *n)
{
    for (int32_t i = 0; i < n->out_count; i++)
        if (n->out[i] && n->out[i]->list)
            return true;
    return false;
}

static bool foldable(hk_graph *g, const hk_node *n)
{
    return n->op->eval && !(n->op->flags & (HK_OP_RANDOM | HK_OP_CONTROL | HK_OP_KEEP | HK_OP_PARTS_FOLD)) &&
           n->in_count > 0 && all_known(n) && !makes_list(n) && afford(g, n, HK_FOLD_MAX_COUNT);
}

hk_status hk_fold_large(hk_graph *g, hk_node *n, bool *folded)
{
    bool may = n->op->eval && !(n->op->flags & (HK_OP_RANDOM | HK_OP_CONTROL | HK_OP_KEEP)) && n->in_count > 0;
    *folded = may && all_known(n) && !makes_list(n) && afford(g, n, INT32_MAX);
    return *folded ? fold(g, n) : HK_OK;
}

/* ---- an If whose condition is known */

/* In nodes of bodies inside the branch: its values are now those of the graph around. */
static void use_copies(const hk_graph *branch, hk_graph *inner)
{
    for (size_t i = 0; i < inner->node_count; i++) {
        hk_node *n = inner->nodes[i];
        for (int32_t k = 0; k < n->in_count; k++)
            if (n->in[k] && n->in[k]->graph == branch)
                n->in[k] = n->in[k]->mark;
        for (int32_t b = 0; b < n->body_count; b++)
            use_copies(branch, n->bodies[b]);
    }
    for (size_t i = 0; i < inner->output_count; i++)
        if (inner->outputs[i]->graph == branch)
            inner->outputs[i] = inner->outputs[i]->mark;
}

typedef struct node_list {
    hk_node **nodes;
    size_t count, capacity;
} node_list;

static bool push(hk_arena *arena, node_list *list, hk_node *n)
{
    if (list->count == list->capacity &&
        !hk_arena_grow(arena, (void **)&list->nodes, list->count, &list->capacity, sizeof *list->nodes))
        return false;
    list->nodes[list->count++] = n;
    return true;
}

/* The If's own outputs stay, so that nobody who uses them has to be found. */
static hk_status copy_output(hk_graph *g, hk_value *from, hk_value *to, node_list *list)
{
    const hk_op *op = hk_op_find(NULL, "Identity", INT16_MAX, NULL);
    hk_node *n = hk_arena_new(g->arena, hk_node);
    hk_value **ends = hk_arena_array(g->arena, 2, sizeof *ends);
    if (!n || !ends)
        return hk_out_of_memory(g->ctx, "an inlined branch");
    *n = (hk_node){.name = to->name,
                   .type = "Identity",
                   .op = op,
                   .opset = INT16_MAX,
                   .in = ends,
                   .in_count = 1,
                   .out = ends + 1,
                   .out_count = 1};
    ends[0] = from;
    ends[1] = to;
    to->producer = n;
    HK_TRY(hk_op_decode(g->ctx, g->arena, op, NULL, 0, &n->attrs));
    return push(g->arena, list, n) ? HK_OK : hk_out_of_memory(g->ctx, "an inlined branch");
}

/* Appends the branch's nodes to the list with its values in g; what the branch captured from g is used directly. */
static hk_status inline_branch(hk_graph *g, hk_node *n, hk_graph *body, node_list *list)
{
    for (size_t i = 0; i < body->value_count; i++) {
        hk_value *v = body->values[i];
        const char *name = hk_arena_format(g->arena, "%s/%s", n->name, v->name);
        hk_value *copy = name ? hk_graph_value(g, name, v->kind, v->producer ? HK_DTYPE_NONE : v->dtype,
                                               v->producer ? NULL : &v->shape)
                              : NULL;
        if (!copy)
            return hk_out_of_memory(g->ctx, "an inlined branch");
        copy->data = v->producer ? NULL : v->data;
        copy->list = v->producer ? NULL : v->list;
        v->mark = copy;
    }
    for (size_t i = 0; i < body->node_count; i++) {
        hk_node *inner = body->nodes[i];
        for (int32_t k = 0; k < inner->in_count; k++)
            if (inner->in[k] && inner->in[k]->graph == body)
                inner->in[k] = inner->in[k]->mark;
        for (int32_t k = 0; k < inner->out_count; k++)
            if (inner->out[k]) {
                inner->out[k] = inner->out[k]->mark;
                inner->out[k]->producer = inner;
            }
        for (int32_t b = 0; b < inner->body_count; b++) {
            inner->bodies[b]->outer = g;
            use_copies(body, inner->bodies[b]);
        }
        if (!push(g->arena, list, inner))
            return hk_out_of_memory(g->ctx, "an inlined branch");
    }
    for (int32_t i = 0; i < n->out_count && (size_t)i < body->output_count; i++)
        if (n->out[i])
            HK_TRY(copy_output(g, body->outputs[i]->graph == body ? body->outputs[i]->mark : body->outputs[i],
                               n->out[i], list));
    return HK_OK;
}

static hk_status infer_node(hk_graph *g, hk_node *n)
{
    HK_TRY(hk_node_infer(g, n));
    if (foldable(g, n))
        return fold(g, n);
    bool known = n->out_count > 0; /* Shape's result, found by inference itself */
    for (int32_t i = 0; i < n->out_count; i++)
        known &= !n->out[i] || n->out[i]->data;
    for (int32_t i = 0; known && i < n->out_count; i++)
        if (n->out[i])
            make_constant(n->out[i]);
    return HK_OK;
}

/* ---- operators that are others */

static bool expandable(const hk_graph *g, const hk_node *n)
{
    if (!n->op || !n->op->expand)
        return false;
    for (int32_t i = 0; i < n->in_count; i++)
        if (n->in[i] && (!hk_shape_known(&n->in[i]->shape) || (n->in[i]->list && !n->in[i]->list->items) ||
                         (i < 32 && n->op->host_inputs >> i & 1u && !n->in[i]->data)))
            return false;
    for (int32_t i = 0; i < n->out_count; i++)
        if (n->out[i] && n->out[i]->producer == n)
            return !n->op->expands || n->op->expands(g, n);
    return false; /* folded */
}

/* Makes the new nodes define n's own output `to` where they define `from`. */
static hk_status take_output(hk_graph *g, size_t first, hk_value *from, hk_value *to)
{
    for (size_t i = first; i < g->node_count; i++) {
        hk_node *n = g->nodes[i];
        for (int32_t k = 0; k < n->out_count; k++) {
            if (n->out[k] != from)
                continue;
            n->out[k] = to;
            to->producer = n;
            for (size_t j = first; j < g->node_count; j++)
                for (int32_t i_in = 0; i_in < g->nodes[j]->in_count; i_in++)
                    if (g->nodes[j]->in[i_in] == from)
                        g->nodes[j]->in[i_in] = to;
            return HK_OK;
        }
    }
    hk_value *copy;
    HK_TRY(hk_build(g, "Identity", NULL, &from, 1, &copy, 1));
    return take_output(g, first, copy, to);
}

/* The nodes that take n's place, in order; they are taken off g's list again. */
static hk_status expand(hk_graph *g, const hk_node *n, node_list *list)
{
    size_t first = g->node_count;
    hk_value **out = hk_arena_array(g->arena, (size_t)n->out_count + 1, sizeof *out);
    if (!out)
        return hk_out_of_memory(g->ctx, "an operator's expansion");
    HK_TRY(n->op->expand(g, n, out));
    for (int32_t i = 0; i < n->out_count; i++)
        if (n->out[i] && !n->out[i]->list)
            HK_TRY(take_output(g, first, out[i], n->out[i]));
    for (size_t i = first; i < g->node_count; i++) {
        g->nodes[i]->name = n->name; /* what reports and errors call them */
        if (!push(g->arena, list, g->nodes[i]))
            return hk_out_of_memory(g->ctx, "an operator's expansion");
    }
    g->node_count = first;
    return HK_OK;
}

/* Replaces the If nodes with a known condition and the operators that are others, and infers what comes in their place.
 */
static hk_status infer_list(hk_graph *g, hk_node **nodes, size_t count, node_list *kept)
{
    for (size_t i = 0; i < count; i++) {
        hk_node *n = nodes[i];
        const hk_tensor *condition = n->op && !strcmp(n->type, "If") ? hk_known(n, 0) : NULL;
        if (condition && hk_tensor_count(condition) == 1 && n->body_count == 2) {
            node_list inner = {0};
            HK_TRY(inline_branch(g, n, n->bodies[hk_get_int(condition, 0) ? 0 : 1], &inner));
            HK_TRY(infer_list(g, inner.nodes, inner.count, kept));
            continue;
        }
        HK_TRY(infer_node(g, n));
        if (n->op->flags & HK_OP_VIEW && n->in[0]->list && n->in[0]->list->items) { /* Identity of a list */
            HK_TRY(hk_expand_list(g, n, 0, n->in[0]->list->items, n->in[0]->shape.dim[0]));
            continue;
        }
        if (expandable(g, n)) {
            node_list inner = {0};
            HK_TRY(expand(g, n, &inner));
            HK_TRY(infer_list(g, inner.nodes, inner.count, kept));
            continue;
        }
        if (!push(g->arena, kept, n))
            return hk_out_of_memory(g->ctx, "a graph");
    }
    return HK_OK;
}

hk_status hk_infer_graph(hk_graph *g)
{
    HK_TRY(hk_graph_sort(g));
    for (size_t i = 0; i < g->value_count; i++)
        if (g->values[i]->producer) {
            g->values[i]->dtype = HK_DTYPE_NONE;
            g->values[i]->shape = HK_SHAPE_UNKNOWN;
            g->values[i]->data = NULL;
            g->values[i]->list = NULL;
        }
    node_list kept = {0};
    HK_TRY(infer_list(g, g->nodes, g->node_count, &kept));
    g->nodes = kept.nodes;
    g->node_count = kept.count;
    g->node_capacity = kept.capacity;
    return hk_graph_prune(g);
}
