/*
 * The queries, keys and values of an attention are products of one left operand (all three, or keys and values) by
 * constant weights. They become one product, whose columns are those of the parts side by side, and the attention reads
 * its operands as strided views of the result: one dispatch fills a device where each of three does not.
 *
 * Weights are put side by side when the plan is made. In precision `fast` alone, after layout.c has made them float16:
 * only there have joined products been reckoned to be faster.
 */
#include "ops/activation.h"
#include "ops/support/gemm.h"
#include "runtime/passes.h"

enum { OPERANDS = 3 }; /* of an attention: queries, keys, values */

static const char *const view_names[OPERANDS] = {"q_view", "k_view", "v_view"};

typedef struct join {
    hk_graph *g;
    hk_uses uses;
    uint32_t values; /* that uses knows of */
    hk_node *attention;
    hk_node *product[OPERANDS]; /* NULL: cannot be joined */
} join;

static int64_t int_attr(const hk_node *n, const char *name, int64_t otherwise)
{
    const int64_t *i = hk_node_attr(n, name);
    return i ? *i : otherwise;
}

static float float_attr(const hk_node *n, const char *name, float otherwise)
{
    const float *f = hk_node_attr(n, name);
    return f ? *f : otherwise;
}

/* Contents never change: a constant, or its copy in another storage. */
static bool is_constant(const hk_value *v)
{
    if (v && hk_node_is(v->producer, "hk.Convert"))
        v = v->producer->in[0];
    return v && !v->producer && !v->state && (v->kind == HK_VALUE_CONSTANT || v->kind == HK_VALUE_PARAMETER);
}

static int64_t columns(const hk_node *product)
{
    const hk_shape *y = &product->out[0]->shape;
    return y->dim[y->rank - 1];
}

static bool is_row(const hk_value *bias, int64_t extent)
{
    return is_constant(bias) && bias->shape.rank >= 1 && bias->shape.dim[bias->shape.rank - 1] == extent &&
           hk_shape_count(&bias->shape) == extent;
}

/* The product that alone makes operand i, which nothing else reads; only its shape may be another. */
static hk_node *find_product(const join *j, int32_t i)
{
    const hk_value *v = j->attention->in[i];
    for (;;) {
        if (v->id >= j->values || j->uses.count[v->id] != 1 || j->uses.is_output[v->id] || !v->producer)
            return NULL;
        if (hk_is_product(v->producer))
            break;
        if (hk_node_view_offset(v->producer) != 0)
            return NULL;
        v = v->producer->in[0];
    }
    hk_node *n = v->producer;
    for (int32_t k = 0; k < OPERANDS; k++)
        if (k != i && j->attention->in[k] == j->attention->in[i])
            return NULL;
    const hk_value *weight = n->in[1], *bias = hk_in(n, 2);
    bool plain = !int_attr(n, "transA", 0) && int_attr(n, "activation", HK_ACT_NONE) == HK_ACT_NONE && !hk_in(n, 3);
    return plain && n->out[0]->dtype == HK_FLOAT32 && n->out[0]->shape.rank >= 2 && weight->shape.rank == 2 &&
                   is_constant(weight) && (!bias || is_row(bias, columns(n)))
               ? n
               : NULL;
}

static bool fit_together(const hk_node *a, const hk_node *b)
{
    const hk_value *x = hk_in(a, 2), *y = hk_in(b, 2);
    return a && b && a != b && a->in[0] == b->in[0] && !x == !y && (!x || x->shape.rank == y->shape.rank) &&
           hk_value_storage(a->in[1]) == hk_value_storage(b->in[1]) &&
           int_attr(a, "transB", 0) == int_attr(b, "transB", 0) &&
           float_attr(a, "alpha", 1.0f) == float_attr(b, "alpha", 1.0f) &&
           float_attr(a, "beta", 1.0f) == float_attr(b, "beta", 1.0f);
}

/* A view of rows of `width` elements as one of rows of `joined`, of which they are those from `first` on: offset, and
 * strides of batch, head and row, for so many of each. False: it does not keep to rows. */
static bool move_view(const int64_t view[4], const int64_t extent[4], int64_t width, int64_t first, int64_t joined,
                      int64_t moved[4])
{
    int64_t inside = view[0] % width + extent[3] - 1; /* the last column */
    moved[0] = view[0] / width * joined + view[0] % width + first;
    for (int d = 1; d < 4; d++) {
        bool rows = view[d] % width == 0;
        moved[d] = rows ? view[d] / width * joined : view[d];
        inside += rows ? 0 : (extent[d - 1] - 1) * view[d];
    }
    return inside < width;
}

/* The view of operand i, if it may be one of the joined rows. */
static bool view_of(const join *j, int32_t i, int64_t first, int64_t joined, int64_t moved[4])
{
    const hk_node *n = j->attention;
    const hk_ints *view = hk_node_attr(n, view_names[i]);
    const int64_t extent[4] = {int_attr(n, "batch", 1), int_attr(n, i ? "kv_heads" : "heads", 1),
                               int_attr(n, i ? "keys" : "rows", 1), int_attr(n, i == 2 ? "v_size" : "size", 1)};
    return view->count == 4 && move_view(view->v, extent, columns(j->product[i]), first, joined, moved);
}

static hk_status put_side_by_side(hk_graph *g, hk_value **parts, int32_t count, int64_t axis, hk_value **out)
{
    const hk_attr_value attrs[] = {HK_SET_INT("axis", axis), {0}};
    HK_TRY(hk_build(g, "Concat", attrs, parts, count, out, 1));
    (*out)->storage = parts[0]->storage;
    return HK_OK;
}

/* The operands of these numbers, whose products fit together. */
static hk_status join_some(join *j, const int32_t *number, int32_t count)
{
    const hk_node *first = j->product[number[0]];
    hk_value *weights[OPERANDS], *biases[OPERANDS], *in[3] = {first->in[0], NULL, NULL}, *y = NULL;
    int64_t joined = 0, at = 0, moved[OPERANDS][4];
    for (int32_t i = 0; i < count; i++) {
        weights[i] = j->product[number[i]]->in[1];
        biases[i] = hk_in(j->product[number[i]], 2);
        joined += columns(j->product[number[i]]);
    }
    for (int32_t i = 0; i < count; at += columns(j->product[number[i++]]))
        if (!view_of(j, number[i], at, joined, moved[i]))
            return HK_OK;
    int64_t turned = int_attr(first, "transB", 0) != 0;
    const hk_attr_value attrs[] = {HK_SET_INT("transB", turned),
                                   HK_SET_FLOAT("alpha", float_attr(first, "alpha", 1.0f)),
                                   HK_SET_FLOAT("beta", float_attr(first, "beta", 1.0f)),
                                   {0}};
    HK_TRY(put_side_by_side(j->g, weights, count, turned ? 0 : 1, &in[1]));
    if (biases[0])
        HK_TRY(put_side_by_side(j->g, biases, count, biases[0]->shape.rank - 1, &in[2]));
    HK_TRY(hk_build(j->g, "hk.Gemm", attrs, in, in[2] ? 3 : 2, &y, 1));
    y->producer->name = first->name;
    HK_TRY(hk_node_own_attrs(j->g, j->attention));
    for (int32_t i = 0; i < count; i++) {
        int64_t *view = hk_arena_array(j->g->arena, 4, sizeof *view);
        hk_ints *attr = hk_node_attr(j->attention, view_names[number[i]]);
        if (!view)
            return hk_out_of_memory(j->g->ctx, "a joined product");
        for (int d = 0; d < 4; d++)
            view[d] = moved[i][d];
        *attr = (hk_ints){view, 4};
        j->attention->in[number[i]] = y;
    }
    return HK_OK;
}

static hk_status join_operands(join *j)
{
    bool done[OPERANDS] = {false};
    for (int32_t i = 0; i < OPERANDS; i++)
        j->product[i] = find_product(j, i);
    for (int32_t i = 0; i < OPERANDS; i++) {
        int32_t number[OPERANDS] = {i}, count = 1;
        for (int32_t k = i + 1; k < OPERANDS && j->product[i] && !done[i]; k++)
            if (j->product[k] && fit_together(j->product[i], j->product[k])) {
                number[count++] = k;
                done[k] = true;
            }
        if (count > 1)
            HK_TRY(join_some(j, number, count));
    }
    return HK_OK;
}

hk_status hk_join_products(hk_graph *g)
{
    join j = {.g = g, .values = (uint32_t)g->value_count};
    HK_TRY(hk_graph_uses(g, g->arena, &j.uses));
    size_t count = g->node_count;
    for (size_t i = 0; i < count; i++)
        if (hk_node_is(g->nodes[i], "hk.Attention")) {
            j.attention = g->nodes[i];
            HK_TRY(join_operands(&j));
        }
    if (g->node_count == count)
        return HK_OK;
    HK_TRY(hk_graph_sort(g));
    return hk_graph_prune(g);
}
