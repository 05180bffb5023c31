/* Conv, ConvTranspose, MatMul and Gemm take over what follows them: bias, residual sum, activation; and a convolution
 * of single taps the scale of its input's channels. Between a matrix product and what follows may be views that only
 * give its result another shape. While the pass runs, a node's mark is its place in the order of the graph. */
#include <math.h>
#include <string.h>

#include "ops/activation.h"
#include "ops/support/build.h"
#include "ops/support/conv_geometry.h"
#include "ops/support/gemm.h"
#include "runtime/passes.h"

typedef struct epilogue {
    hk_graph *g;
    hk_uses uses;
    hk_node *base;    /* the Conv or Gemm */
    hk_value *result; /* what the fused node computes so far */
    hk_value *x, *bias, *residual, *scale;
    hk_activation activation;
    float a, b;
    bool fused;
} epilogue;

/* What a convolution with an epilogue is called, NULL for matrix products. */
static const char *fused_convolution(const hk_node *n)
{
    return hk_node_is(n, "ConvTranspose")                      ? "hk.ConvTranspose"
           : hk_node_is(n, "Conv") || hk_node_is(n, "hk.Conv") ? "hk.Conv"
                                                               : NULL;
}

/* The only user of the result so far, NULL if there are several or it is a graph output. */
static hk_node *only_user(const epilogue *e)
{
    uint32_t id = e->result->id;
    return id < e->g->value_count && e->uses.count[id] == 1 && !e->uses.is_output[id] ? e->uses.users[id][0] : NULL;
}

static float float_attr(const hk_node *n, const char *name, float otherwise)
{
    const float *f = hk_node_attr(n, name);
    return f ? *f : otherwise;
}

static bool scalar_input(const hk_node *n, int32_t i, float otherwise, float *out)
{
    const hk_value *v = hk_in(n, i);
    *out = otherwise;
    if (!v)
        return true;
    if (!v->data || hk_tensor_count(v->data) != 1)
        return false;
    *out = (float)hk_get_double(v->data, 0);
    return true;
}

static bool clip_bounds(const hk_node *n, float *low, float *high)
{
    if (hk_node_attr(n, "min")) {
        *low = float_attr(n, "min", -INFINITY);
        *high = float_attr(n, "max", INFINITY);
        return true;
    }
    return scalar_input(n, 1, -INFINITY, low) && scalar_input(n, 2, INFINITY, high);
}

static bool take_activation(epilogue *e, const hk_node *n)
{
    const char *const *approximate = hk_node_is(n, "Gelu") ? hk_node_attr(n, "approximate") : NULL;
    if (hk_node_is(n, "Relu"))
        e->activation = HK_ACT_RELU;
    else if (hk_node_is(n, "Sigmoid"))
        e->activation = HK_ACT_SIGMOID;
    else if (hk_node_is(n, "Tanh"))
        e->activation = HK_ACT_TANH;
    else if (hk_node_is(n, "HardSwish"))
        e->activation = HK_ACT_HARDSWISH;
    else if (hk_node_is(n, "Gelu"))
        e->activation = approximate && *approximate && !strcmp(*approximate, "tanh") ? HK_ACT_GELU_TANH
                                                                                     : HK_ACT_GELU_ERF;
    else if (hk_node_is(n, "LeakyRelu")) {
        e->activation = HK_ACT_LEAKY_RELU;
        e->a = float_attr(n, "alpha", 0.01f);
    } else if (hk_node_is(n, "HardSigmoid")) {
        e->activation = HK_ACT_HARDSIGMOID;
        e->a = float_attr(n, "alpha", 0.2f);
        e->b = float_attr(n, "beta", 0.5f);
    } else if (hk_node_is(n, "Clip") && clip_bounds(n, &e->a, &e->b))
        e->activation = HK_ACT_CLIP;
    return e->activation != HK_ACT_NONE;
}

/* A vector along the last axis of a matrix product, [N] or [1,..,N]. */
static bool is_row_bias(const hk_value *v, const hk_value *result)
{
    int32_t rank = result->shape.rank;
    return v->shape.rank >= 1 && v->shape.rank <= rank && rank >= 1 &&
           v->shape.dim[v->shape.rank - 1] == result->shape.dim[rank - 1] &&
           hk_shape_count(&v->shape) == result->shape.dim[rank - 1];
}

/* Does v depend on the result? Then it cannot be an operand of the node that computes it. Nodes are sorted, so anything
 * produced before the base node cannot; neither can a view of such a value, wherever its node stands (a trainer's
 * parameters stand before their first user). */
static bool computed_before(const epilogue *e, const hk_value *v)
{
    while (v->producer && hk_node_view_offset(v->producer) >= 0)
        v = v->producer->in[0];
    return !v->producer || v->producer->mark < e->base->mark;
}

static bool take_add(epilogue *e, const hk_node *n)
{
    bool product = !fused_convolution(e->base);
    if (!hk_node_is(n, "Add") || n->in[0] == n->in[1])
        return false;
    hk_value *other = n->in[0] == e->result ? n->in[1] : n->in[0];
    if (!computed_before(e, other) || other->dtype != e->result->dtype ||
        !hk_shape_equal(&n->out[0]->shape, &e->result->shape))
        return false;
    if (product && !e->bias && !e->residual && is_row_bias(other, e->result) && is_row_bias(other, e->base->out[0])) {
        e->bias = other;
        return true;
    }
    if (e->residual || !hk_shape_equal(&other->shape, &e->result->shape))
        return false;
    e->residual = other;
    return true;
}

/* n only gives the matrix product's result another shape. */
static bool is_view(const epilogue *e, const hk_node *n)
{
    const hk_value *y = hk_out(n, 0);
    return hk_is_product(e->base) && !hk_node_is(n, HK_AFTER) && y && n->out_count == 1 && !y->state &&
           y->dtype == e->result->dtype && hk_shape_known(&y->shape) && hk_node_view_offset(n) == 0 &&
           hk_shape_count(&y->shape) == hk_shape_count(&e->result->shape);
}

static bool near(float a, float b)
{
    return fabsf(a - b) <= 1e-6f;
}

/* x sigmoid(x) and x hardsigmoid(x), as exporters write SiLU and HardSwish: the result's two users are the gate and the
 * product of both. */
static hk_node *take_gate(epilogue *e)
{
    uint32_t id = e->result->id;
    if (id >= e->g->value_count || e->uses.count[id] != 2 || e->uses.is_output[id])
        return NULL;
    hk_node *const *users = e->uses.users[id];
    const hk_node *gate = hk_node_is(users[0], "Mul") ? users[1] : users[0];
    hk_node *product = hk_node_is(users[0], "Mul") ? users[0] : users[1];
    bool hard = hk_node_is(gate, "HardSigmoid") && near(float_attr(gate, "alpha", 0.2f), 1.0f / 6.0f) &&
                near(float_attr(gate, "beta", 0.5f), 0.5f);
    if ((!hard && !hk_node_is(gate, "Sigmoid")) || !hk_node_is(product, "Mul"))
        return NULL;
    const hk_value *y = gate->out[0];
    bool both = (product->in[0] == e->result && product->in[1] == y) ||
                (product->in[0] == y && product->in[1] == e->result);
    if (!both || e->uses.count[y->id] != 1 || e->uses.is_output[y->id])
        return NULL;
    e->activation = hard ? HK_ACT_HARDSWISH : HK_ACT_SILU;
    return product;
}

static void collect(epilogue *e)
{
    hk_value *taken = e->result;
    while (e->activation == HK_ACT_NONE) {
        hk_node *n = only_user(e);
        bool view = n && is_view(e, n);
        if ((n && !view && !take_add(e, n) && !take_activation(e, n)) || (!n && !(n = take_gate(e))))
            break;
        e->result = n->out[0];
        if (!view) {
            taken = e->result;
            e->fused = true;
        }
    }
    e->result = taken; /* views behind the last node taken stay */
}

/* The end of squeeze-and-excitation: x is a product with a factor for each channel of each image. */
static void take_scale(epilogue *e)
{
    const hk_node *product = e->x->producer;
    hk_conv p;
    hk_problem_text problem;
    if (!hk_node_is(e->base, "Conv") || !product || !hk_node_is(product, "Mul") || e->uses.count[e->x->id] != 1 ||
        e->uses.is_output[e->x->id] || !hk_shape_known(&e->x->shape) ||
        !hk_conv_resolve(e->base->attrs, &e->x->shape, &e->base->in[1]->shape, &p, &problem) || p.groups != 1 ||
        hk_window_taps(&p.w) != 1)
        return;
    for (int axis = 0; axis < HK_AXES; axis++)
        if (p.w.begin[axis] || p.w.end[axis])
            return;
    hk_shape scale = e->x->shape;
    for (int32_t i = 2; i < scale.rank; i++)
        scale.dim[i] = 1;
    for (int i = 0; i < 2 && !e->scale; i++)
        if (hk_shape_equal(&product->in[i]->shape, &scale) &&
            hk_shape_equal(&product->in[1 - i]->shape, &e->x->shape)) {
            e->scale = product->in[i];
            e->x = product->in[1 - i];
            e->fused = true;
        }
}

static hk_status rebuild(epilogue *e)
{
    const char *conv = fused_convolution(e->base);
    hk_attr_value attrs[32];
    size_t count = hk_copy_attrs(e->base, attrs, HK_COUNT(attrs) - 4);
    attrs[count++] = (hk_attr_value)HK_SET_INT("activation", e->activation);
    attrs[count++] = (hk_attr_value)HK_SET_FLOAT(conv ? "alpha" : "activation_a", e->a);
    attrs[count++] = (hk_attr_value)HK_SET_FLOAT(conv ? "beta" : "activation_b", e->b);
    attrs[count] = (hk_attr_value){0};
    hk_value *in[5] = {e->x, e->base->in[1], e->bias, e->residual, e->scale}, *out = NULL;
    const hk_shape *own = &e->base->out[0]->shape;
    if (e->residual && !hk_shape_equal(&e->residual->shape, own)) {
        HK_TRY(hk_build_reshape(e->g, e->residual, own, &in[3]));
        in[3]->producer->mark = e->base->mark;
    }
    int32_t count_in = e->scale ? 5 : e->residual ? 4 : e->bias ? 3 : 2;
    HK_TRY(hk_build(e->g, conv ? conv : "hk.Gemm", attrs, in, count_in, &out, 1));
    out->producer->name = e->result->producer->name;
    out->producer->mark = e->base->mark;
    if (!hk_shape_equal(&out->shape, &e->result->shape)) {
        HK_TRY(hk_build_reshape(e->g, out, &e->result->shape, &out));
        out->producer->mark = e->base->mark;
    }
    hk_graph_take_over(out, e->result);
    return HK_OK;
}

hk_status hk_fuse_epilogues(hk_graph *g)
{
    HK_TRY(hk_graph_sort(g));
    epilogue all = {.g = g};
    HK_TRY(hk_graph_uses(g, g->arena, &all.uses));
    size_t count = g->node_count;
    for (size_t i = 0; i < count; i++)
        g->nodes[i]->mark = (int32_t)i;
    for (size_t i = 0; i < count; i++) {
        hk_node *n = g->nodes[i];
        const int64_t *applied = hk_is_product(n) ? hk_node_attr(n, "activation") : NULL;
        bool convolution = hk_node_is(n, "Conv") || hk_node_is(n, "ConvTranspose");
        if ((!convolution && !hk_is_product(n)) || (applied && *applied != HK_ACT_NONE))
            continue;
        epilogue e = all;
        e.base = n;
        e.result = n->out[0];
        e.x = n->in[0];
        e.bias = hk_in(n, 2);
        e.residual = convolution ? NULL : hk_in(n, 3);
        if (n->out[0]->dtype != HK_FLOAT32)
            continue;
        take_scale(&e);
        collect(&e);
        if (e.fused)
            HK_TRY(rebuild(&e));
    }
    return hk_graph_prune(g);
}
