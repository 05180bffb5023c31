/*
 * Precision `fast`: 16-bit storage and operands, fp32 sums.
 *
 * Convolutions, their gradients and what stands between them move into islands of HK_LAYOUT_NHWC8 in fp16 (islands.c
 * says which), where kernels read 16 bytes along the channels. Islands have shores, where a dispatch changes the
 * layout; some need none: an image's few channels are read as they are, and global pooling writes contiguous values. So
 * squeeze-and-excitation, whose products see single pixels, lies between two shores that cost nothing. In a training
 * step an island spans the forward and the backward pass: what the gradient keeps of the forward pass lies in it.
 *
 * Constant operands of matrix products become fp16 once, when an inference plan is made; of other values storage.c
 * decides.
 */
#include <string.h>

#include "ops/support/conv_lower.h"
#include "ops/support/gemm.h"
#include "runtime/islands.h"

typedef struct moving {
    hk_islands islands;
    hk_graph *g;
    hk_value **packed; /* by the id of a value from before: the same in the layout, NULL: none yet */
} moving;

static hk_status relayout(hk_graph *g, hk_value *v, hk_layout layout, hk_value **out)
{
    const hk_attr_value attrs[] = {HK_SET_INT("layout", layout),
                                   HK_SET_INT("storage", layout == HK_LAYOUT_NHWC8 ? HK_FLOAT16 : HK_DTYPE_NONE),
                                   {0}};
    return hk_build(g, "hk.Relayout", attrs, &v, 1, out, 1);
}

/* v as members read it, through one change of layout for all of them where it comes from outside. */
static hk_status enter_island(moving *m, hk_value *v, hk_value **out)
{
    *out = NULL;
    if (!v)
        return HK_OK;
    if (v->id >= m->islands.values)
        return relayout(m->g, v, HK_LAYOUT_NHWC8, out);
    if (!m->packed[v->id])
        HK_TRY(relayout(m->g, v, HK_LAYOUT_NHWC8, &m->packed[v->id]));
    *out = m->packed[v->id];
    return HK_OK;
}

/* y, an activation, is what a member makes of v, which from now on comes from y: who is no member reads v. */
static hk_status leave_island(moving *m, hk_value *y, hk_value *v)
{
    hk_value *back = NULL;
    y->layout = HK_LAYOUT_NHWC8;
    y->storage = HK_FLOAT16;
    HK_TRY(relayout(m->g, y, HK_LAYOUT_CONTIGUOUS, &back));
    hk_graph_take_over(back, v);
    m->packed[v->id] = y;
    return HK_OK;
}

enum { MOST_SUMMED = 2048 }; /* channels whose sums of rows the kernel behind them keeps */

/* ---- moving them */

/* Inputs first to last, where they are. */
static hk_status halve_constants(hk_graph *g, hk_node *n, int32_t first, int32_t last)
{
    const hk_attr_value attrs[] = {HK_SET_INT("to", HK_FLOAT16), {0}};
    for (int32_t i = first; i <= last; i++) {
        const hk_value *v = n->in[i];
        bool constant = v->kind == HK_VALUE_CONSTANT || v->kind == HK_VALUE_PARAMETER;
        if (constant && v->storage == HK_DTYPE_NONE && v->shape.rank >= 2)
            HK_TRY(hk_build(g, "hk.Convert", attrs, &n->in[i], 1, &n->in[i], 1));
    }
    return HK_OK;
}

/* Whether n's result goes to the pooling of squeeze-and-excitation: that node. */
static const hk_node *pooled_by(const hk_islands *s, const hk_node *n)
{
    const hk_value *y = n->out[0];
    const hk_shape *w = &n->in[1]->shape;
    if (w->rank != 4 || w->dim[1] != 1 || w->dim[0] != n->in[0]->shape.dim[1] || w->dim[0] > MOST_SUMMED)
        return NULL;
    for (uint32_t u = 0; u < s->uses.count[y->id]; u++) {
        const hk_node *pool = s->uses.users[y->id][u];
        uint32_t id = pool->out[0]->id;
        if (hk_node_is(pool, "GlobalAveragePool") && s->uses.count[id] == 1 && !s->uses.is_output[id] &&
            hk_node_is(s->uses.users[id][0], "hk.Excite"))
            return pool;
    }
    return NULL;
}

/* The sums of a convolution's rows take the pooling's place. */
static hk_status take_sums(const hk_islands *s, const hk_node *pool, hk_value *sums)
{
    hk_node *old = s->uses.users[pool->out[0]->id][0];
    const hk_shape *x = &pool->in[0]->shape;
    hk_attr_value attrs[32];
    hk_value *in[5] = {sums}, *y = NULL;
    size_t count = hk_copy_attrs(old, attrs, HK_COUNT(attrs));
    for (size_t i = 0; i < count; i++) {
        if (!strcmp(attrs[i].name, "row_sums"))
            attrs[i].i = 1;
        if (!strcmp(attrs[i].name, "factor"))
            attrs[i].f = 1.0f / (float)(x->dim[2] * x->dim[3]);
    }
    for (int32_t i = 1; i < old->in_count; i++)
        in[i] = old->in[i];
    HK_TRY(hk_build(s->g, "hk.Excite", attrs, in, old->in_count, &y, 1));
    y->producer->name = old->name;
    hk_graph_replace(s->g, old->out[0], y);
    return halve_constants(s->g, y->producer, 1, 1);
}

static hk_status move_convolution(moving *m, hk_node *n)
{
    hk_graph *g = m->g;
    const hk_node *pool = pooled_by(&m->islands, n);
    hk_attr_value attrs[32];
    hk_value *in[5] = {n->in[0], n->in[1], hk_in(n, 2), NULL, hk_in(n, 4)}, *out[2] = {NULL, NULL};
    const hk_attr_value pack[] = {HK_SET_INT("storage", HK_FLOAT16), {0}};
    hk_copy_attrs(n, attrs, HK_COUNT(attrs));
    if (!hk_conv_enters_nhwc8(n)) {
        HK_TRY(enter_island(m, n->in[0], &in[0]));
        if (in[1]->shape.dim[1] == n->in[0]->shape.dim[1]) /* one group */
            HK_TRY(hk_build(g, "hk.PackConvWeight", pack, &n->in[1], 1, &in[1], 1));
    }
    HK_TRY(enter_island(m, hk_in(n, 3), &in[3]));
    HK_TRY(hk_build(g, "hk.Conv", attrs, in, in[4] ? 5 : in[3] ? 4 : in[2] ? 3 : 2, out, pool ? 2 : 1));
    out[0]->producer->name = n->name;
    HK_TRY(leave_island(m, out[0], n->out[0]));
    return pool ? take_sums(&m->islands, pool, out[1]) : HK_OK;
}

static hk_status move_node(moving *m, hk_node *n)
{
    hk_graph *g = m->g;
    uint32_t in = hk_packed_inputs(n), out = hk_packed_outputs(n);
    for (int32_t i = 0; i < n->in_count; i++)
        if (in >> i & 1u)
            HK_TRY(enter_island(m, n->in[i], &n->in[i]));
    if (hk_node_is(n, HK_AFTER) && n->in[1]->id < m->islands.values && m->packed[n->in[1]->id])
        n->in[1] = m->packed[n->in[1]->id]; /* it only waits for that */
    if (hk_node_is(n, "MaxPool") && hk_out(n, 1)) {
        n->out[1]->layout = HK_LAYOUT_TAPS;
        n->out[1]->storage = HK_DTYPE_NONE;
    }
    if (!(out & 1u))
        return HK_OK;
    hk_value *v = n->out[0], *y = hk_graph_value(g, v->name, HK_VALUE_ACTIVATION, v->dtype, &v->shape);
    if (!y)
        return hk_out_of_memory(g->ctx, "choosing layouts");
    n->out[0] = y;
    y->producer = n;
    v->producer = NULL;
    return leave_island(m, y, v);
}

static hk_status choose(moving *m)
{
    hk_graph *g = m->g;
    hk_islands *s = &m->islands;
    HK_TRY(hk_find_islands(s));
    m->packed = hk_arena_array(s->arena, s->values + 1, sizeof(hk_value *));
    if (!m->packed)
        return hk_out_of_memory(g->ctx, "choosing layouts");
    for (size_t i = 0; i < s->nodes; i++) {
        hk_node *n = g->nodes[i];
        if (hk_is_islander(s, n))
            HK_TRY(hk_is_convolution(n) ? move_convolution(m, n) : move_node(m, n));
        else if (!s->options->inference)
            continue;
        else if (s->options->matrices && hk_is_product(n) && hk_product_suits_units(n))
            HK_TRY(halve_constants(g, n, 0, 1));
        else if (hk_node_is(n, "hk.Excite"))
            HK_TRY(halve_constants(g, n, 1, 1));
    }
    return hk_graph_prune(g);
}

hk_status hk_choose_layouts(hk_graph *g, const hk_pass_options *options)
{
    if (options->precision != HK_PRECISION_FAST || !(options->device->caps >> HK_CAP_STORAGE16 & 1u))
        return HK_OK;
    HK_TRY(hk_graph_sort(g));
    moving m = {.g = g, .islands = {.g = g, .options = options, .arena = hk_arena_create(g->ctx)}};
    hk_status st = m.islands.arena ? choose(&m) : hk_out_of_memory(g->ctx, "choosing layouts");
    hk_arena_destroy(&m.islands.arena);
    return st;
}
