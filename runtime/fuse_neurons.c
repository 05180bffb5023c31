/*
 * Spiking neurons whose only result is spikes take over the matrix product before them: hk.GemmNeuron, whose kernel on
 * matrix units scans the steps where the sums are. Part of the pass `epilogues`, but after layouts, which make constant
 * operands 16 bits.
 */
#include "ops/activation.h"
#include "ops/support/build.h"
#include "ops/support/gemm.h"
#include "ops/support/neuron_lower.h"
#include "runtime/passes.h"

enum { STEPS_MOST = 16 }; /* rows of a fragment */

typedef struct fuser {
    hk_graph *g;
    hk_uses uses;
    bool all; /* products of any size that suits */
} fuser;

static bool is_used_once(const fuser *f, const hk_value *v)
{
    return v->graph == f->g && f->uses.count[v->id] == 1 && !f->uses.is_output[v->id];
}

static bool fires_alone(const fuser *f, const hk_node *n)
{
    const int64_t *steps = hk_node_attr(n, "steps");
    bool alone = n->in[0]->dtype == HK_FLOAT32 && !hk_in(n, 2) && *steps > 1 && STEPS_MOST % *steps == 0;
    for (int32_t i = 1; i < n->out_count; i++) {
        const hk_value *v = n->out[i];
        alone = alone && (!v || (f->uses.count[v->id] == 0 && !f->uses.is_output[v->id] && !v->state));
    }
    return alone;
}

/* The product whose result x is, or a view of it. */
static hk_node *product_of(const fuser *f, const hk_value *x)
{
    hk_node *n = x->producer;
    while (n && is_used_once(f, x) && n->op && n->op->flags & HK_OP_VIEW && hk_node_view_offset(n) == 0) {
        x = n->in[0];
        n = x->producer;
    }
    return n && is_used_once(f, x) && hk_is_product(n) ? n : NULL;
}

static float number(const hk_node *n, const char *name, float absent)
{
    const float *x = hk_node_attr(n, name);
    return x ? *x : absent;
}

static bool is_set(const hk_node *n, const char *name)
{
    const int64_t *x = hk_node_attr(n, name);
    return x && *x;
}

/* One matrix of T N rows, a bias along them at most, nothing else behind it. */
static bool is_plain(const fuser *f, const hk_node *n, int64_t steps)
{
    const hk_shape *a = &n->in[0]->shape, *b = &n->in[1]->shape;
    const hk_value *bias = hk_in(n, 2);
    if (!hk_shape_known(a) || !hk_shape_known(b) || a->rank < 2 || b->rank != 2 || is_set(n, "transA") ||
        is_set(n, "activation") || hk_in(n, 3))
        return false;
    int64_t width = b->dim[is_set(n, "transB") ? 0 : 1];
    bool plain = !bias || (bias->shape.rank > 0 && bias->shape.dim[bias->shape.rank - 1] == width &&
                           hk_shape_count(&bias->shape) == width);
    return plain && hk_shape_span(a, 0, a->rank - 1) % steps == 0 &&
           (f->all ? hk_product_suits_units(n) : hk_product_repays_high(n));
}

static hk_status fuse(fuser *f, const hk_node *product, hk_node *neuron)
{
    const hk_shape *a = &product->in[0]->shape;
    const hk_shape rows = {.rank = 2, .dim = {hk_shape_span(a, 0, a->rank - 1), a->dim[a->rank - 1]}};
    hk_attr_value list[HK_NEURON_LIST + 4];
    size_t count = hk_neuron_list(neuron->attrs, list);
    list[count++] = (hk_attr_value)HK_SET_INT("transB", is_set(product, "transB"));
    list[count++] = (hk_attr_value)HK_SET_FLOAT("alpha", number(product, "alpha", 1));
    list[count++] = (hk_attr_value)HK_SET_FLOAT("beta", number(product, "beta", 1));
    list[count] = (hk_attr_value){0};
    hk_value *in[] = {product->in[0], product->in[1], hk_in(product, 2), hk_in(neuron, 1), hk_in(neuron, 3)}, *s;
    if (a->rank != 2)
        HK_TRY(hk_build_reshape(f->g, in[0], &rows, &in[0]));
    HK_TRY(hk_build(f->g, "hk.GemmNeuron", list, in, in[4] ? 5 : in[3] ? 4 : in[2] ? 3 : 2, &s, 1));
    s->producer->name = neuron->name;
    HK_TRY(hk_build_reshape(f->g, s, &neuron->out[0]->shape, &s));
    hk_graph_replace(f->g, neuron->out[0], s);
    return HK_OK;
}

hk_status hk_fuse_neurons(hk_graph *g, const hk_pass_options *options)
{
    fuser f = {.g = g, .all = options->precision == HK_PRECISION_FAST || options->device->type == HK_DEVICE_SOFTWARE};
    if (!options->inference || !options->matrices || options->precision == HK_PRECISION_STRICT ||
        options->off >> HK_PASS_EPILOGUES & 1u)
        return HK_OK;
    HK_TRY(hk_graph_sort(g));
    HK_TRY(hk_graph_uses(g, g->arena, &f.uses));
    size_t count = g->node_count;
    for (size_t i = 0; i < count; i++) {
        hk_node *neuron = g->nodes[i];
        if (!hk_node_is(neuron, "hk.Neuron") || !fires_alone(&f, neuron))
            continue;
        const hk_node *product = product_of(&f, neuron->in[0]);
        const int64_t *steps = hk_node_attr(neuron, "steps");
        if (product && is_plain(&f, product, *steps))
            HK_TRY(fuse(&f, product, neuron));
    }
    return hk_graph_prune(g);
}
