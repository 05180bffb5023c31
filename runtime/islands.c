/* Islands of HK_LAYOUT_NHWC8: which nodes are members, and which islands pay. */
#include "runtime/islands.h"

#include "ops/pointwise.h"
#include "ops/support/conv_lower.h"

/* Microseconds, by the rates of an H200: only their ratios matter. */
#define SHORE 2.5       /* a dispatch more, without its bytes */
#define BYTES 2.5e6     /* moved in one */
#define MULTIPLIED 40e6 /* operations of fp32 in one */
#define ON_UNITS 120e6  /* and of matrix units */

/* ---- which nodes can */

bool hk_is_convolution(const hk_node *n)
{
    return hk_node_is(n, "Conv") || hk_node_is(n, "hk.Conv");
}

/* Its result, weight and what it sees. */
typedef struct product {
    const hk_value *x, *w, *y;
} product;

static product product_of(const hk_node *n)
{
    if (hk_is_convolution(n))
        return (product){n->in[0], n->in[1], n->out[0]};
    if (hk_node_is(n, "hk.ConvDataGrad"))
        return (product){n->out[0], n->in[1], n->in[0]};
    if (hk_node_is(n, "hk.ConvWeightGrad"))
        return (product){n->in[0], n->out[0], n->in[1]};
    return (product){NULL, NULL, NULL};
}

uint32_t hk_packed_inputs(const hk_node *n)
{
    if (hk_is_convolution(n))
        return hk_conv_enters_nhwc8(n) ? 8 : 9; /* x, residual */
    if (hk_node_is(n, HK_AFTER))
        return 1;
    uint32_t can = n->op->flags & HK_OP_POINTWISE ? UINT32_MAX : n->op->octets_in, takes = 0;
    if (hk_node_is(n, "hk.ConvWeightGrad") && n->in[0]->shape.rank >= 3 && n->in[0]->shape.dim[1] < 8)
        can &= ~1u; /* the few channels of an image are read as they are */
    for (int32_t i = 0; i < n->in_count && i < 32; i++) {
        const hk_value *v = n->in[i];
        bool image = v && v->shape.rank >= 3 &&
                     (!(n->op->flags & HK_OP_POINTWISE) || hk_shape_equal(&v->shape, &n->out[0]->shape));
        takes |= image ? can & 1u << i : 0;
    }
    return takes;
}

uint32_t hk_packed_outputs(const hk_node *n)
{
    bool first = hk_is_convolution(n) || hk_node_is(n, HK_AFTER) || n->op->flags & HK_OP_POINTWISE;
    return first ? 1 : n->op->octets_out;
}

static bool is_image(const hk_value *v)
{
    return v && v->dtype == HK_FLOAT32 && v->shape.rank >= 3 && hk_shape_known(&v->shape) &&
           hk_shape_count(&v->shape) > 0 && !v->state;
}

/* Convolutions that see single pixels are matrix products of few rows, which have kernels of their own. */
static bool suits_convolution(const hk_node *n)
{
    const hk_shape *x = &n->in[0]->shape, *y = &n->out[0]->shape;
    return hk_shape_count(y) > 0 && hk_conv_accepts_nhwc8(n) && (x->dim[1] >= 8 || hk_conv_enters_nhwc8(n)) &&
           hk_shape_span(x, 2, x->rank) * hk_shape_span(y, 2, y->rank) > 1;
}

/* Its images are values of this graph. */
static bool is_at_home(const hk_node *n)
{
    uint32_t in = hk_packed_inputs(n);
    bool home = true;
    for (int32_t i = 0; i < n->in_count; i++)
        home &= !(in >> i & 1u) || !n->in[i] || n->in[i]->graph == n->out[0]->graph;
    return home;
}

static bool suits(const hk_node *n)
{
    if (!n->op || !hk_out(n, 0) || !is_at_home(n))
        return false;
    if (hk_is_convolution(n))
        return suits_convolution(n);
    if (hk_node_is(n, HK_AFTER))
        return is_image(n->in[0]);
    if (n->op->flags & HK_OP_POINTWISE)
        return hk_pointwise_takes_octets(n);
    uint32_t in = n->op->octets_in, out = n->op->octets_out;
    bool images = in || out;
    for (int32_t i = 0; images && i < n->in_count; i++)
        images = !(in >> i & 1u) || is_image(n->in[i]);
    return images && (!(out & 1u) || is_image(n->out[0])) && (!n->op->takes_octets || n->op->takes_octets(n));
}

/* ---- values between members */

bool hk_is_islander(const hk_islands *s, const hk_node *n)
{
    return n && n->id < s->nodes && s->member[n->id];
}

/* A member makes v, in the layout. */
static bool is_made(const hk_islands *s, const hk_value *v)
{
    const hk_node *n = v->graph == s->g ? v->producer : NULL;
    return hk_is_islander(s, n) && hk_packed_outputs(n) & 1u && n->out[0] == v;
}

static bool leaves(const hk_islands *s, const hk_value *v)
{
    return s->uses.is_output[v->id] || s->takers[v->id] < s->uses.count[v->id];
}

static double shore(const hk_value *v)
{
    return SHORE + 6.0 * (double)hk_shape_count(&v->shape) / BYTES;
}

static uint32_t island_of(hk_islands *s, const hk_node *n)
{
    uint32_t i = n->id;
    while (s->same[i] != i)
        i = s->same[i] = s->same[s->same[i]];
    return i;
}

static void join(hk_islands *s, const hk_node *a, const hk_node *b)
{
    if (hk_is_islander(s, a) && hk_is_islander(s, b))
        s->same[island_of(s, a)] = island_of(s, b);
}

/* ---- what a member saves */

static double elements_of(const hk_node *n)
{
    double elements = 0;
    for (int32_t i = 0; i < n->in_count; i++)
        elements += hk_packed_inputs(n) >> i & 1u && n->in[i] ? (double)hk_shape_count(&n->in[i]->shape) : 0;
    return elements + (hk_packed_outputs(n) & 1u ? (double)hk_shape_count(&n->out[0]->shape) : 0);
}

static double saved_by(const hk_islands *s, const hk_node *n)
{
    product p = product_of(n);
    if (!p.y)
        return hk_node_is(n, HK_AFTER) ? 0 : 2.0 * elements_of(n) / BYTES;
    const hk_shape *w = &p.w->shape;
    double elements = (double)hk_shape_count(&p.x->shape) + (double)hk_shape_count(w) +
                      (double)hk_shape_count(&p.y->shape);
    double operations = 2.0 * (double)hk_shape_count(&p.y->shape) * (double)hk_shape_span(w, 1, w->rank);
    bool units = s->options->matrices && w->dim[1] >= 8;
    double wide = HK_MAX(4.0 * elements / BYTES, operations / MULTIPLIED);
    return wide - HK_MAX(2.0 * elements / BYTES, operations / (units ? ON_UNITS : MULTIPLIED));
}

/* ---- members that would rather not: each looks at its neighbours twice */

static bool may_leave(const hk_node *n)
{
    return !product_of(n).y && !hk_node_is(n, "MaxPool") && !hk_node_is(n, "hk.MaxPoolGrad");
}

/* What the island saves because n is a member. */
static double gain(const hk_islands *s, const hk_node *n)
{
    double g = saved_by(s, n);
    uint32_t in = hk_packed_inputs(n);
    for (int32_t i = 0; i < n->in_count; i++) {
        const hk_value *v = n->in[i];
        if (!v || !(in >> i & 1u))
            continue;
        if (is_made(s, v))
            g += leaves(s, v) ? 0 : shore(v);
        else
            g -= s->takers[v->id] > 1 ? 0 : shore(v);
    }
    const hk_value *y = n->out[0];
    if (hk_packed_outputs(n) & 1u)
        g += (s->takers[y->id] ? shore(y) : 0) - (leaves(s, y) ? shore(y) : 0);
    return g;
}

static void count_takers(hk_islands *s, const hk_node *n, int32_t by)
{
    uint32_t in = hk_packed_inputs(n);
    for (int32_t i = 0; i < n->in_count; i++) {
        bool again = false;
        for (int32_t k = 0; k < i; k++)
            again |= n->in[k] == n->in[i] && in >> k & 1u;
        if (n->in[i] && in >> i & 1u && !again)
            s->takers[n->in[i]->id] += (uint32_t)by;
    }
}

static void consider_leaving(hk_islands *s, const hk_node *n)
{
    if (!hk_is_islander(s, n) || !may_leave(n) || gain(s, n) >= 0)
        return;
    s->member[n->id] = false;
    count_takers(s, n, -1);
}

/* ---- islands */

/* An island's members and values between them; microseconds that it saves, by the island's number. */
static void add_up(hk_islands *s, double *saved, bool *convolves)
{
    for (size_t k = 0; k < s->nodes; k++) {
        const hk_node *n = s->g->nodes[k];
        if (!hk_is_islander(s, n))
            continue;
        uint32_t island = island_of(s, n), in = hk_packed_inputs(n);
        convolves[island] |= product_of(n).y != NULL;
        saved[island] += saved_by(s, n);
        for (int32_t i = 0; i < n->in_count; i++)
            if (n->in[i] && in >> i & 1u && !is_made(s, n->in[i]))
                saved[island] -= shore(n->in[i]) / s->takers[n->in[i]->id];
        if (hk_packed_outputs(n) & 1u && leaves(s, n->out[0]))
            saved[island] -= shore(n->out[0]);
    }
}

static void find_neighbours(hk_islands *s)
{
    for (size_t k = 0; k < s->nodes; k++) {
        const hk_node *n = s->g->nodes[k];
        uint32_t in = hk_is_islander(s, n) ? hk_packed_inputs(n) : 0;
        for (int32_t i = 0; i < n->in_count; i++)
            if (n->in[i] && in >> i & 1u && is_made(s, n->in[i]))
                join(s, n->in[i]->producer, n);
        if (hk_node_is(n, "hk.MaxPoolGrad"))
            join(s, n->in[1]->producer, n); /* places of maxima, which lie in the layout's order */
    }
}

hk_status hk_find_islands(hk_islands *s)
{
    hk_graph *g = s->g;
    size_t count = s->nodes = g->node_count;
    s->values = g->value_count;
    HK_TRY(hk_graph_uses(g, s->arena, &s->uses));
    s->same = hk_arena_array(s->arena, count + 1, sizeof *s->same);
    s->member = hk_arena_array(s->arena, count + 1, sizeof *s->member);
    s->takers = hk_arena_array(s->arena, s->values + 1, sizeof *s->takers);
    double *saved = hk_arena_array(s->arena, count + 1, sizeof *saved);
    bool *convolves = hk_arena_array(s->arena, count + 1, sizeof *convolves);
    if (!s->same || !s->member || !s->takers || !saved || !convolves)
        return hk_out_of_memory(g->ctx, "choosing layouts");
    for (size_t i = 0; i < count; i++) {
        s->same[i] = (uint32_t)i;
        s->member[i] = suits(g->nodes[i]);
        if (s->member[i])
            count_takers(s, g->nodes[i], 1);
    }
    /* Software devices are there for tests, which want islands everywhere. */
    bool software = s->options->device->type == HK_DEVICE_SOFTWARE, all = software || s->options->islands_everywhere;
    for (size_t i = 0; i < count && !all; i++)
        consider_leaving(s, g->nodes[i]);
    for (size_t i = count; i-- > 0 && !all;)
        consider_leaving(s, g->nodes[i]);
    find_neighbours(s);
    add_up(s, saved, convolves);
    for (size_t i = 0; i < count; i++) {
        uint32_t island = island_of(s, g->nodes[i]);
        bool pays = convolves[island] && (software || saved[island] > 0);
        s->member[i] = s->member[i] && (pays || s->options->islands_everywhere);
    }
    return HK_OK;
}
