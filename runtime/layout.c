/*
 * Precision `fast` (inference): 16-bit storage and operands, fp32 sums.
 *
 * Convolutions move into islands of HK_LAYOUT_NHWC8 in fp16, where their kernels read 16 bytes along the channels.
 * Islands have shores, where a dispatch changes the layout; some need none: an image's few channels are read as they
 * are, and global pooling writes contiguous values. So squeeze-and-excitation, whose products see single pixels, lies
 * between two shores that cost nothing. Neighbouring convolutions are one island, which pays if what it saves by
 * narrower values and matrix units is more than its shores take.
 *
 * Constant operands of matrix products become fp16 once, when the plan is made; of other values storage.c decides.
 */
#include <string.h>

#include "ops/support/conv_lower.h"
#include "ops/support/gemm.h"
#include "runtime/passes.h"

static hk_status relayout(hk_graph *g, hk_value *v, hk_layout layout, hk_value **out)
{
    if (!v) {
        *out = NULL;
        return HK_OK;
    }
    const hk_attr_value attrs[] = {HK_SET_INT("layout", layout),
                                   HK_SET_INT("storage", layout == HK_LAYOUT_NHWC8 ? HK_FLOAT16 : HK_DTYPE_NONE),
                                   {0}};
    return hk_build(g, "hk.Relayout", attrs, &v, 1, out, 1);
}

/* v left an island. */
static bool from_island(const hk_value *v)
{
    return v && v->producer && hk_node_is(v->producer, "hk.Relayout") && v->producer->in[0]->layout == HK_LAYOUT_NHWC8;
}

/* x from the island if that is where it comes from, else through a relayout. */
static hk_status enter_island(hk_graph *g, hk_value *v, hk_value **out)
{
    if (from_island(v)) {
        *out = v->producer->in[0];
        return HK_OK;
    }
    return relayout(g, v, HK_LAYOUT_NHWC8, out);
}

/* ---- which convolutions */

/* Microseconds, by the rates of an H200: only their ratios matter. */
#define SHORE 2.5       /* a dispatch more, without its bytes */
#define BYTES 2.5e6     /* moved in one */
#define MULTIPLIED 40e6 /* operations of fp32 in one */
#define ON_UNITS 120e6  /* and of matrix units */

enum { MOST_SUMMED = 2048 }; /* channels whose sums of rows the kernel behind them keeps */

typedef struct islands {
    hk_graph *g;
    hk_uses uses;
    const hk_pass_options *options;
    size_t count;   /* of nodes, before any moves */
    uint32_t *same; /* by node id: another convolution of the same island, or itself */
    bool *member;
    double *saved; /* by island: microseconds that it is worth */
} islands;

static bool is_convolution(const hk_node *n)
{
    return hk_node_is(n, "Conv") || hk_node_is(n, "hk.Conv");
}

static bool is_member(const islands *s, const hk_node *n)
{
    return n && n->id < s->count && s->member[n->id];
}

static bool made_by_member(const islands *s, const hk_value *v)
{
    return v && v->graph == s->g && is_member(s, v->producer);
}

static uint32_t island_of(islands *s, const hk_node *n)
{
    uint32_t i = n->id;
    while (s->same[i] != i)
        i = s->same[i] = s->same[s->same[i]];
    return i;
}

/* Convolutions that see single pixels are matrix products of few rows, which have kernels of their own. */
static bool suits_island(const hk_node *n)
{
    const hk_shape *x = &n->in[0]->shape, *y = &n->out[0]->shape;
    return is_convolution(n) && hk_shape_count(y) > 0 && hk_conv_accepts_nhwc8(n) &&
           (x->dim[1] >= 8 || hk_conv_enters_nhwc8(n)) &&
           hk_shape_span(x, 2, x->rank) * hk_shape_span(y, 2, y->rank) > 1;
}

/* n takes v in NHWC8, if v lies so. */
static bool reads_packed(const islands *s, const hk_node *n, const hk_value *v)
{
    if (hk_node_is(n, "GlobalAveragePool") || hk_node_is(n, "GlobalMaxPool"))
        return true;
    return is_member(s, n) && (n->in[0] == v || hk_in(n, 3) == v) && hk_in(n, 2) != v && hk_in(n, 4) != v;
}

static double shore(const hk_value *v)
{
    return SHORE + 6.0 * (double)hk_shape_count(&v->shape) / BYTES;
}

static double worth(const islands *s, const hk_node *n)
{
    const hk_shape *x = &n->in[0]->shape, *w = &n->in[1]->shape, *y = &n->out[0]->shape;
    double elements = (double)hk_shape_count(x) + (double)hk_shape_count(w) + (double)hk_shape_count(y);
    double operations = 2.0 * (double)hk_shape_count(y) * (double)hk_shape_span(w, 1, w->rank);
    bool units = s->options->matrices && w->dim[1] >= 8;
    double wide = HK_MAX(4.0 * elements / BYTES, operations / MULTIPLIED);
    double narrow = HK_MAX(2.0 * elements / BYTES, operations / (units ? ON_UNITS : MULTIPLIED));
    double saved = wide - narrow;
    for (int32_t i = 0; i < 4; i += 3) {
        const hk_value *v = hk_in(n, i);
        if (v && !made_by_member(s, v) && (i || x->dim[1] >= 8))
            saved -= shore(v);
    }
    const hk_value *out = n->out[0];
    bool leaves = s->uses.is_output[out->id];
    for (uint32_t u = 0; u < s->uses.count[out->id]; u++)
        leaves |= !reads_packed(s, s->uses.users[out->id][u], out);
    return leaves ? saved - shore(out) : saved;
}

static hk_status find_islands(islands *s, hk_arena *arena)
{
    hk_graph *g = s->g;
    size_t count = s->count = g->node_count;
    HK_TRY(hk_graph_uses(g, arena, &s->uses));
    s->same = hk_arena_array(arena, count + 1, sizeof *s->same);
    s->member = hk_arena_array(arena, count + 1, sizeof *s->member);
    s->saved = hk_arena_array(arena, count + 1, sizeof *s->saved);
    if (!s->same || !s->member || !s->saved)
        return hk_out_of_memory(g->ctx, "choosing layouts");
    for (size_t i = 0; i < count; i++) {
        s->same[i] = (uint32_t)i;
        s->member[g->nodes[i]->id] = suits_island(g->nodes[i]);
    }
    for (size_t i = 0; i < count; i++)
        for (int32_t k = 0; k < 4 && is_member(s, g->nodes[i]); k += 3) {
            const hk_value *v = hk_in(g->nodes[i], k);
            if (made_by_member(s, v))
                s->same[island_of(s, v->producer)] = island_of(s, g->nodes[i]);
        }
    for (size_t i = 0; i < count; i++)
        if (is_member(s, g->nodes[i]))
            s->saved[island_of(s, g->nodes[i])] += worth(s, g->nodes[i]);
    return HK_OK;
}

/* Software devices are there for tests, which want islands everywhere. */
static bool pays(islands *s, const hk_node *n)
{
    return is_member(s, n) && (s->options->device->type == HK_DEVICE_SOFTWARE || s->saved[island_of(s, n)] > 0.0);
}

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
static const hk_node *pooled_by(const islands *s, const hk_node *n)
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
static hk_status take_sums(islands *s, const hk_node *pool, hk_value *sums)
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

static hk_status move_convolution(islands *s, hk_node *n)
{
    hk_graph *g = s->g;
    const hk_node *pool = pooled_by(s, n);
    hk_attr_value attrs[32];
    hk_value *in[5] = {n->in[0], n->in[1], hk_in(n, 2), NULL, hk_in(n, 4)}, *out[2] = {NULL, NULL}, *back = NULL;
    const hk_attr_value pack[] = {HK_SET_INT("storage", HK_FLOAT16), {0}};
    hk_copy_attrs(n, attrs, HK_COUNT(attrs));
    if (!hk_conv_enters_nhwc8(n)) {
        HK_TRY(enter_island(g, n->in[0], &in[0]));
        if (in[1]->shape.dim[1] == n->in[0]->shape.dim[1]) /* one group */
            HK_TRY(hk_build(g, "hk.PackConvWeight", pack, &n->in[1], 1, &in[1], 1));
    }
    HK_TRY(enter_island(g, hk_in(n, 3), &in[3]));
    HK_TRY(hk_build(g, "hk.Conv", attrs, in, in[4] ? 5 : in[3] ? 4 : in[2] ? 3 : 2, out, pool ? 2 : 1));
    hk_value *y = out[0];
    y->layout = HK_LAYOUT_NHWC8;
    y->storage = HK_FLOAT16;
    y->producer->name = n->name;
    HK_TRY(relayout(g, y, HK_LAYOUT_CONTIGUOUS, &back));
    hk_graph_replace(g, n->out[0], back);
    return pool ? take_sums(s, pool, out[1]) : HK_OK;
}

static hk_status choose(islands *s, hk_arena *arena)
{
    hk_graph *g = s->g;
    HK_TRY(find_islands(s, arena));
    for (size_t i = 0; i < s->count; i++) {
        hk_node *n = g->nodes[i];
        if (pays(s, n))
            HK_TRY(move_convolution(s, n));
        else if ((hk_node_is(n, "GlobalAveragePool") || hk_node_is(n, "GlobalMaxPool")) && from_island(n->in[0]))
            n->in[0] = n->in[0]->producer->in[0];
        else if (s->options->matrices && hk_is_product(n) && hk_product_suits_units(n))
            HK_TRY(halve_constants(g, n, 0, 1));
        else if (hk_node_is(n, "hk.Excite"))
            HK_TRY(halve_constants(g, n, 1, 1));
    }
    return hk_graph_prune(g);
}

hk_status hk_choose_layouts(hk_graph *g, const hk_pass_options *options)
{
    if (options->precision != HK_PRECISION_FAST || !options->inference ||
        !(options->device->caps >> HK_CAP_STORAGE16 & 1u))
        return HK_OK;
    HK_TRY(hk_graph_sort(g));
    islands s = {.g = g, .options = options};
    hk_arena *arena = hk_arena_create(g->ctx);
    hk_status st = arena ? choose(&s, arena) : hk_out_of_memory(g->ctx, "choosing layouts");
    hk_arena_destroy(&arena);
    return st;
}
