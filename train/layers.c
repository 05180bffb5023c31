/* Layers: names, parameters and their first values, and all layers that are a node or two. */
#include "train/layers.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/philox.h"

static const char *const default_names[] = {
#define HK_X(name, text, torch) text,
    HK_LAYER_MAP(HK_X)
#undef HK_X
};
static const char *const torch_names[] = {
#define HK_X(name, text, torch) torch,
    HK_LAYER_MAP(HK_X)
#undef HK_X
};

hk_value *hk_layer_fail(hk_layering *b, const char *format, ...)
{
    char text[400];
    va_list args;
    if (b->st != HK_OK)
        return NULL;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    b->st = hk_fail(b->g->ctx, HK_STATUS_USAGE, "layer '%s' (%s): %s", b->name, torch_names[b->l->kind], text);
    return NULL;
}

hk_value *hk_layer_no_memory(hk_layering *b)
{
    if (b->st == HK_OK)
        b->st = hk_out_of_memory(b->g->ctx, "a layer");
    return NULL;
}

/* ---- nodes */

static const char *fresh_name(const hk_layering *b, const char *type)
{
    const char *name = hk_arena_format(b->g->arena, "%s/%s", b->name, type);
    for (int number = 1; name && (hk_graph_find(b->g, name) || hk_graph_find(b->builder->graph, name)); number++)
        name = hk_arena_format(b->g->arena, "%s/%s_%d", b->name, type, number);
    return name;
}

static hk_value *append(hk_layering *b, hk_node *n, hk_value **outs)
{
    if (!n)
        return hk_layer_no_memory(b);
    n->opset = HK_BUILD_OPSET;
    b->st = hk_node_infer(b->g, n);
    for (int32_t i = 0; outs && i < n->out_count; i++)
        outs[i] = n->out[i];
    return b->st == HK_OK ? n->out[0] : NULL;
}

hk_value *hk_layer_nodes(hk_layering *b, const char *type, const hk_attr_value *attrs, hk_value *const *in,
                         int32_t count, hk_value **outs, int32_t out_count)
{
    const hk_op *op = hk_op_find(NULL, type, HK_BUILD_OPSET, NULL);
    const char *name = fresh_name(b, type);
    size_t given = 0;
    void *decoded = NULL;
    if (b->st != HK_OK)
        return NULL;
    if (!name)
        return hk_layer_no_memory(b);
    if (!op)
        return hk_layer_fail(b, "there is no operator %s", type);
    while (attrs && attrs[given].name)
        given++;
    b->st = hk_op_decode(b->g->ctx, b->g->arena, op, attrs, given, &decoded);
    if (b->st != HK_OK)
        return NULL;
    return append(b, hk_graph_node(b->g, name, type, op, decoded, in, count, out_count), outs);
}

hk_value *hk_layer_body_node(hk_layering *b, const char *type, hk_graph *body, hk_value *const *in, int32_t count,
                             hk_value **outs, int32_t out_count)
{
    const hk_op *op = hk_op_find(NULL, type, HK_BUILD_OPSET, NULL);
    const hk_attr_value attrs[] = {{.name = "body", .kind = HK_ATTR_GRAPH, .graph = body},
                                   HK_SET_INT("num_scan_inputs", count)};
    const char *name = fresh_name(b, type);
    void *decoded = NULL;
    if (b->st != HK_OK)
        return NULL;
    b->st = hk_op_decode(b->g->ctx, b->g->arena, op, attrs, HK_COUNT(attrs), &decoded);
    hk_node *n = b->st == HK_OK && name ? hk_graph_node(b->g, name, type, op, decoded, in, count, out_count) : NULL;
    hk_graph **bodies = n ? hk_arena_array(b->g->arena, 1, sizeof *bodies) : NULL;
    if (!bodies)
        return hk_layer_no_memory(b);
    bodies[0] = body;
    n->bodies = bodies;
    n->body_count = 1;
    return append(b, n, outs);
}

hk_value *hk_layer_node(hk_layering *b, const char *type, const hk_attr_value *attrs, hk_value *const *in,
                        int32_t count)
{
    return hk_layer_nodes(b, type, attrs, in, count, NULL, 1);
}

hk_value *hk_layer_unary(hk_layering *b, const char *type, hk_value *x)
{
    return hk_layer_node(b, type, NULL, &x, 1);
}

hk_value *hk_layer_binary(hk_layering *b, const char *type, hk_value *x, hk_value *y)
{
    return hk_layer_node(b, type, NULL, (hk_value *[]){x, y}, 2);
}

hk_value *hk_layer_transpose(hk_layering *b, hk_value *x, int32_t rank, const int64_t *perm)
{
    const hk_attr_value attrs[] = {HK_SET_INTS("perm", perm, rank), {0}};
    return hk_layer_node(b, "Transpose", attrs, &x, 1);
}

hk_value *hk_layer_reshape(hk_layering *b, hk_value *x, int32_t rank, const int64_t *shape)
{
    hk_value *to = b->st == HK_OK ? hk_graph_ints(b->builder->graph, shape, rank) : NULL;
    return to ? hk_layer_binary(b, "Reshape", x, to) : hk_layer_no_memory(b);
}

/* ---- parameters */

/* Word i of the parameter's own stream: the same in every model, whatever was added before it. */
static uint32_t random_word(const uint32_t seed[2], uint32_t stream, uint64_t i)
{
    uint32_t out[4];
    hk_philox(seed, (uint32_t[]){(uint32_t)(i / 4), (uint32_t)(i / 4 >> 32), stream, 0}, out);
    return out[i % 4];
}

void hk_initial_values(const uint32_t seed[2], const char *name, float *to, int64_t count, hk_initial kind, double x)
{
    const double turn = 6.283185307179586;
    uint32_t stream = hk_philox_stream(name);
    for (int64_t i = 0; i < count; i++) {
        uint32_t word = kind == HK_INITIAL_FILL ? 0 : random_word(seed, stream, (uint64_t)i);
        if (kind == HK_INITIAL_FILL) {
            to[i] = (float)x;
        } else if (kind == HK_INITIAL_UNIFORM) {
            to[i] = (float)(x * (2 * ((double)(word >> 8) * 0x1p-24) - 1));
        } else { /* Box and Muller: two words make two numbers */
            uint32_t other = random_word(seed, stream, (uint64_t)i ^ 1);
            double radius = sqrt(-2 * log(((double)(i % 2 ? other : word) + 1) * 0x1p-32));
            double angle = turn * (double)(i % 2 ? word : other) * 0x1p-32;
            to[i] = (float)(x * radius * (i % 2 ? sin(angle) : cos(angle)));
        }
    }
}

hk_value *hk_layer_constant(hk_layering *b, const char *what, hk_dtype dtype, const hk_shape *shape, void **data)
{
    hk_graph *g = b->builder->graph;
    if (b->st != HK_OK)
        return NULL;
    int64_t count = hk_shape_count(shape);
    if (count < 0 || count > INT32_MAX)
        return hk_layer_fail(b, "'%s' would have more than 2^31 - 1 elements", what);
    const char *name = hk_arena_format(g->arena, "%s.%s", b->name, what);
    if (name && hk_graph_find(g, name))
        return hk_layer_fail(b, "a tensor '%s' is there already: give the layer another name", name);
    hk_tensor *t = name ? hk_tensor_new(g->arena, dtype, shape) : NULL;
    hk_value *v = t ? hk_graph_constant(g, name, t) : NULL;
    if (!v)
        return hk_layer_no_memory(b);
    *data = t->data;
    return v;
}

hk_value *hk_layer_parameter(hk_layering *b, const char *what, const hk_shape *shape, hk_initial kind, double x)
{
    void *data = NULL;
    hk_value *v = hk_layer_constant(b, what, HK_FLOAT32, shape, &data);
    if (!v)
        return NULL;
    v->kind = HK_VALUE_PARAMETER;
    hk_initial_values(b->builder->seed, v->name, data, hk_shape_count(shape), kind, x);
    return v;
}

/* ---- checks */

int64_t hk_layer_extent(hk_layering *b, const hk_value *x, int32_t axis, int64_t want)
{
    hk_shape_text text;
    if (b->st != HK_OK)
        return 0;
    int64_t found = x->shape.dim[axis];
    if (found < 0)
        hk_layer_fail(b, "dimension %d of its input %s must be known", (int)axis, hk_shape_print(&x->shape, &text));
    else if (want && found != want)
        hk_layer_fail(b, "its input %s has %lld in dimension %d, expected %lld", hk_shape_print(&x->shape, &text),
                      (long long)found, (int)axis, (long long)want);
    else if (!found)
        hk_layer_fail(b, "dimension %d of its input %s is empty", (int)axis, hk_shape_print(&x->shape, &text));
    return b->st == HK_OK ? found : 0;
}

bool hk_layer_rank(hk_layering *b, const hk_value *x, int32_t least, int32_t most)
{
    hk_shape_text text;
    if (b->st != HK_OK)
        return false;
    if (x->dtype != HK_FLOAT32)
        hk_layer_fail(b, "its input is %s, expected float32", hk_dtype_name(x->dtype));
    else if (x->shape.rank < least || x->shape.rank > most)
        hk_layer_fail(b,
                      least == most ? "its input %s has %d dimensions, expected %d"
                                    : "its input %s has %d dimensions, expected %d or more",
                      hk_shape_print(&x->shape, &text), (int)x->shape.rank, (int)least);
    return b->st == HK_OK;
}

/* ---- linear */

hk_value *hk_layer_product(hk_layering *b, hk_value *x, hk_value *weight, hk_value *bias)
{
    const hk_attr_value gemm[] = {HK_SET_INT("transB", 1), {0}};
    if (b->st != HK_OK)
        return NULL;
    if (x->shape.rank == 2)
        return hk_layer_node(b, "Gemm", gemm, (hk_value *[]){x, weight, bias}, bias ? 3 : 2);
    hk_value *y = hk_layer_binary(b, "MatMul", x, hk_layer_transpose(b, weight, 2, (int64_t[]){1, 0}));
    return bias && y ? hk_layer_binary(b, "Add", y, bias) : y;
}

static hk_value *linear(hk_layering *b, hk_value *x)
{
    if (!hk_layer_rank(b, x, 2, HK_MAX_RANK))
        return NULL;
    int64_t in = hk_layer_extent(b, x, x->shape.rank - 1, b->l->in), out = b->l->out;
    if (out < 1)
        return hk_layer_fail(b, "out is %lld, expected the number of features it makes", (long long)out);
    double bound = in ? 1 / sqrt((double)in) : 0;
    hk_value *weight = hk_layer_parameter(b, "weight", &(hk_shape){.rank = 2, .dim = {out, in}}, HK_INITIAL_UNIFORM,
                                          bound);
    hk_value *bias = b->l->no_bias ? NULL
                                   : hk_layer_parameter(b, "bias", &(hk_shape){.rank = 1, .dim = {out}},
                                                        HK_INITIAL_UNIFORM, bound);
    return hk_layer_product(b, x, weight, bias);
}

static hk_value *embedding(hk_layering *b, hk_value *x)
{
    const hk_layer *l = b->l;
    if (x->dtype != HK_INT64 && x->dtype != HK_INT32)
        return hk_layer_fail(b, "its input is %s, expected int64 or int32 rows", hk_dtype_name(x->dtype));
    if (l->in < 1 || l->out < 1)
        return hk_layer_fail(b, "in and out are %lld and %lld, expected rows and numbers in a row", (long long)l->in,
                             (long long)l->out);
    const hk_shape shape = {.rank = 2, .dim = {l->in, l->out}};
    return hk_layer_binary(b, "Gather", hk_layer_parameter(b, "weight", &shape, HK_INITIAL_NORMAL, 1), x);
}

/* ---- norms and dropout */

/* A weight or bias of a norm. Without affine it comes from bytes: a float operand in that place would be trained by
 * whoever loads the file. */
static hk_value *affine(hk_layering *b, const char *what, const hk_shape *shape, int value)
{
    void *data = NULL;
    if (!b->l->no_affine)
        return hk_layer_parameter(b, what, shape, HK_INITIAL_FILL, value);
    hk_value *bytes = hk_layer_constant(b, what, HK_UINT8, shape, &data);
    if (!bytes)
        return NULL;
    memset(data, value, (size_t)hk_shape_count(shape));
    const hk_attr_value attrs[] = {HK_SET_INT("to", HK_FLOAT32), {0}};
    return hk_layer_node(b, "Cast", attrs, &bytes, 1);
}

static float epsilon(hk_layering *b)
{
    if (!(b->l->eps >= 0))
        hk_layer_fail(b, "eps is %g, expected a positive number", (double)b->l->eps);
    return b->l->eps > 0 ? b->l->eps : 1e-5f;
}

static hk_value *statistics(hk_layering *b, const char *what, const hk_shape *shape, double value)
{
    void *data = NULL;
    hk_value *v = hk_layer_constant(b, what, HK_FLOAT32, shape, &data);
    if (v)
        hk_initial_values(b->builder->seed, v->name, data, hk_shape_count(shape), HK_INITIAL_FILL, value);
    return v;
}

static hk_value *batch_norm(hk_layering *b, hk_value *x)
{
    if (!hk_layer_rank(b, x, 2, 5))
        return NULL;
    hk_shape shape = {.rank = 1, .dim = {hk_layer_extent(b, x, 1, b->l->in)}};
    double momentum = b->l->momentum != 0 ? (double)b->l->momentum : 0.1;
    if (!(momentum > 0 && momentum <= 1))
        return hk_layer_fail(b, "momentum is %g, expected a share of the new statistics in (0, 1]", momentum);
    /* to the decimal that was meant: 1 - 0.1f is none */
    const hk_attr_value attrs[] = {
        HK_SET_FLOAT("epsilon", epsilon(b)), HK_SET_FLOAT("momentum", (float)(round((1 - momentum) * 1e7) / 1e7)), {0}};
    hk_value *in[] = {x, affine(b, "weight", &shape, 1), affine(b, "bias", &shape, 0),
                      statistics(b, "running_mean", &shape, 0), statistics(b, "running_var", &shape, 1)};
    return hk_layer_node(b, "BatchNormalization", attrs, in, 5);
}

static hk_value *layer_norm(hk_layering *b, hk_value *x)
{
    int32_t axes = b->l->axes ? b->l->axes : 1;
    if (!hk_layer_rank(b, x, 1, HK_MAX_RANK))
        return NULL;
    if (axes < 1 || axes > x->shape.rank)
        return hk_layer_fail(b, "axes is %d, expected 1 to %d", (int)axes, (int)x->shape.rank);
    hk_shape shape = {.rank = axes};
    for (int32_t i = 0; i < axes; i++)
        shape.dim[i] = hk_layer_extent(b, x, x->shape.rank - axes + i, i + 1 == axes ? b->l->in : 0);
    const hk_attr_value attrs[] = {HK_SET_INT("axis", -axes), HK_SET_FLOAT("epsilon", epsilon(b)), {0}};
    hk_value *in[] = {x, affine(b, "weight", &shape, 1), affine(b, "bias", &shape, 0)};
    return hk_layer_node(b, "LayerNormalization", attrs, in, 3);
}

static hk_value *channel_norm(hk_layering *b, hk_value *x)
{
    bool groups = b->l->kind == HK_LAYER_GROUP_NORM;
    if (!hk_layer_rank(b, x, 3, HK_MAX_RANK))
        return NULL;
    hk_shape shape = {.rank = 1, .dim = {hk_layer_extent(b, x, 1, b->l->in)}};
    if (groups && (b->l->groups < 1 || shape.dim[0] % b->l->groups))
        return hk_layer_fail(b, "groups is %lld, expected a divisor of %lld channels", (long long)b->l->groups,
                             (long long)shape.dim[0]);
    const hk_attr_value attrs[] = {HK_SET_FLOAT("epsilon", epsilon(b)), HK_SET_INT("num_groups", b->l->groups), {0}},
                        plain[] = {attrs[0], {0}};
    hk_value *in[] = {x, affine(b, "weight", &shape, 1), affine(b, "bias", &shape, 0)};
    return hk_layer_node(b, groups ? "GroupNormalization" : "InstanceNormalization", groups ? attrs : plain, in, 3);
}

hk_value *hk_layer_dropout(hk_layering *b, hk_value *x, double p)
{
    if (!(p >= 0 && p < 1))
        return hk_layer_fail(b, "p is %g, expected a probability below 1", p);
    hk_value *ratio = b->st == HK_OK ? hk_graph_scalar(b->builder->graph, HK_FLOAT32, p) : NULL;
    return ratio ? hk_layer_binary(b, "Dropout", x, ratio) : hk_layer_no_memory(b);
}

static hk_value *dropout(hk_layering *b, hk_value *x)
{
    float p = b->l->p;
    return hk_layer_rank(b, x, 1, HK_MAX_RANK) ? hk_layer_dropout(b, x, p != 0 ? (double)HK_MAX(p, 0.0f) : 0.5) : NULL;
}

/* ---- activations */

static hk_value *activation(hk_layering *b, hk_value *x)
{
    static const char *const types[HK_LAYER_COUNT] = {
        [HK_LAYER_RELU] = "Relu",
        [HK_LAYER_LEAKY_RELU] = "LeakyRelu",
        [HK_LAYER_ELU] = "Elu",
        [HK_LAYER_GELU] = "Gelu",
        [HK_LAYER_SILU] = "Sigmoid",
        [HK_LAYER_MISH] = "Mish",
        [HK_LAYER_HARDSWISH] = "HardSwish",
        [HK_LAYER_HARDSIGMOID] = "HardSigmoid",
        [HK_LAYER_SOFTPLUS] = "Softplus",
        [HK_LAYER_TANH] = "Tanh",
        [HK_LAYER_SIGMOID] = "Sigmoid",
    };
    const hk_layer *l = b->l;
    hk_attr_value attrs[2] = {{0}};
    if (!hk_layer_rank(b, x, 0, HK_MAX_RANK))
        return NULL;
    if (l->kind == HK_LAYER_LEAKY_RELU)
        attrs[0] = (hk_attr_value)HK_SET_FLOAT("alpha", l->alpha != 0 ? l->alpha : 0.01f);
    if (l->kind == HK_LAYER_ELU)
        attrs[0] = (hk_attr_value)HK_SET_FLOAT("alpha", l->alpha != 0 ? l->alpha : 1.0f);
    if (l->kind == HK_LAYER_HARDSIGMOID)
        attrs[0] = (hk_attr_value)HK_SET_FLOAT("alpha", 1.0f / 6);
    if (l->kind == HK_LAYER_GELU && l->tanh)
        attrs[0] = (hk_attr_value)HK_SET_STRING("approximate", "tanh");
    hk_value *y = hk_layer_node(b, types[l->kind], attrs, &x, 1);
    return l->kind == HK_LAYER_SILU && y ? hk_layer_binary(b, "Mul", x, y) : y;
}

static bool check_axis(hk_layering *b, const hk_value *x, int64_t axis)
{
    if (hk_axis(axis, x->shape.rank) >= 0)
        return true;
    hk_shape_text text;
    hk_layer_fail(b, "axis is %lld, its input %s has none such", (long long)axis, hk_shape_print(&x->shape, &text));
    return false;
}

static hk_value *softmax(hk_layering *b, hk_value *x)
{
    int64_t axis = b->l->axis ? b->l->axis : -1;
    const hk_attr_value attrs[] = {HK_SET_INT("axis", axis), {0}};
    if (!hk_layer_rank(b, x, 1, HK_MAX_RANK) || !check_axis(b, x, axis))
        return NULL;
    return hk_layer_node(b, b->l->kind == HK_LAYER_SOFTMAX ? "Softmax" : "LogSoftmax", attrs, &x, 1);
}

/* ---- shape, and two operands */

static hk_value *flatten(hk_layering *b, hk_value *x)
{
    return x->shape.rank < 1 ? hk_layer_fail(b, "its input is a scalar") : hk_layer_unary(b, "Flatten", x);
}

static hk_value *two(hk_layering *b, hk_value *x)
{
    const hk_layer *l = b->l;
    hk_shape_text p, q;
    hk_shape shape;
    if (!l->with)
        return hk_layer_fail(b, "with is NULL, expected the second operand");
    if (l->kind == HK_LAYER_CONCAT) {
        int64_t axis = l->axis ? l->axis : 1;
        const hk_attr_value attrs[] = {HK_SET_INT("axis", axis), {0}};
        return check_axis(b, x, axis) ? hk_layer_node(b, "Concat", attrs, (hk_value *[]){x, l->with}, 2) : NULL;
    }
    if (!hk_shape_broadcast(&x->shape, &l->with->shape, &shape))
        return hk_layer_fail(b, "%s and %s do not broadcast", hk_shape_print(&x->shape, &p),
                             hk_shape_print(&l->with->shape, &q));
    return hk_layer_binary(b, l->kind == HK_LAYER_ADD ? "Add" : "Mul", x, l->with);
}

/* ---- any layer */

static hk_layer_maker *maker_of(hk_layer_kind kind)
{
    if (kind >= HK_LAYER_RELU && kind <= HK_LAYER_SIGMOID)
        return activation;
    if (kind >= HK_LAYER_CONV1D && kind <= HK_LAYER_CONV_TRANSPOSE3D)
        return hk_layer_conv;
    if (kind >= HK_LAYER_MAX_POOL1D && kind <= HK_LAYER_AVG_POOL3D)
        return hk_layer_pool;
    if (kind >= HK_LAYER_IF && kind <= HK_LAYER_MEMBRANE)
        return hk_layer_spiking;
    if (kind >= HK_LAYER_ADAPTIVE_AVG_POOL1D && kind <= HK_LAYER_ADAPTIVE_MAX_POOL3D)
        return hk_layer_adaptive;
    switch (kind) {
    case HK_LAYER_LINEAR: return linear;
    case HK_LAYER_EMBEDDING: return embedding;
    case HK_LAYER_BATCH_NORM: return batch_norm;
    case HK_LAYER_LAYER_NORM: return layer_norm;
    case HK_LAYER_GROUP_NORM:
    case HK_LAYER_INSTANCE_NORM: return channel_norm;
    case HK_LAYER_DROPOUT: return dropout;
    case HK_LAYER_LSTM:
    case HK_LAYER_GRU:
    case HK_LAYER_RNN: return hk_layer_recurrent;
    case HK_LAYER_ATTENTION: return hk_layer_attention;
    case HK_LAYER_SOFTMAX:
    case HK_LAYER_LOG_SOFTMAX: return softmax;
    case HK_LAYER_FLATTEN: return flatten;
    default: return two;
    }
}

static hk_value *make(hk_layering *b, hk_value *x)
{
    hk_layer_maker *maker = maker_of(b->l->kind);
    switch (b->l->time) {
    case HK_TIME_WHOLE: return maker(b, x);
    case HK_TIME_FOLD: return hk_layer_folded(b, x, maker);
    case HK_TIME_LOOP: return hk_layer_looped(b, x, maker);
    }
    return hk_layer_fail(b, "time is %d, expected HK_TIME_WHOLE, _FOLD or _LOOP", (int)b->l->time);
}

/* Takes back what a failed layer has added. */
static void restore(hk_graph *g, size_t values, size_t nodes)
{
    for (size_t i = values; i < g->value_count; i++)
        (void)hk_map_set(&g->names, g->values[i]->name, NULL); /* the key is there: nothing is allocated */
    g->value_count = values;
    g->node_count = nodes;
}

static hk_status choose_name(hk_builder *b, const hk_layer *l, const char **name)
{
    if (l->name && *l->name) {
        *name = hk_arena_string(b->graph->arena, l->name);
        if (*name && hk_map_get(&b->names, *name))
            return hk_fail(b->ctx, HK_STATUS_USAGE, "layer '%s' (%s): there is a layer of that name already", *name,
                           torch_names[l->kind]);
    } else {
        do
            *name = hk_arena_format(b->graph->arena, "%s_%zu", default_names[l->kind], ++b->numbers[l->kind]);
        while (*name && hk_map_get(&b->names, *name));
    }
    return *name ? HK_OK : hk_out_of_memory(b->ctx, "a layer");
}

hk_status hk_layer_add(hk_builder *b, hk_value *x, const hk_layer *l, hk_value **y)
{
    hk_graph *g = b->graph;
    hk_layering state = {.builder = b, .g = g, .l = l};
    size_t values = g->value_count, nodes = g->node_count;
    if ((unsigned)l->kind >= HK_LAYER_COUNT)
        return hk_fail(b->ctx, HK_STATUS_USAGE, "layer kind %d does not exist", (int)l->kind);
    size_t number = b->numbers[l->kind];
    HK_TRY(choose_name(b, l, &state.name));
    if (!x || x->graph != g || (l->with && l->with->graph != g))
        return hk_fail(b->ctx, HK_STATUS_USAGE, "layer '%s' (%s): its input is %s", state.name, torch_names[l->kind],
                       x ? "a tensor of another model" : "missing");
    hk_value *made = make(&state, x);
    if (state.st == HK_OK && !hk_map_set(&b->names, state.name, (void *)(uintptr_t)state.name))
        state.st = hk_out_of_memory(b->ctx, "a layer");
    if (state.st != HK_OK) {
        restore(g, values, nodes);
        b->numbers[l->kind] = number;
        return state.st;
    }
    *y = made;
    return HK_OK;
}
