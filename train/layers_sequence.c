/* Recurrent layers and attention, batch first. */
#include <math.h>
#include <stdio.h>

#include "train/layers.h"

/* ---- LSTM, GRU, RNN: layers on one another. Weights lie as ONNX has them, both directions in one tensor. */

typedef struct recurrence {
    const char *type;
    int64_t gates, directions, hidden, layers;
} recurrence;

static hk_value *recurrent_parameter(hk_layering *b, const recurrence *r, const char *what, int64_t layer,
                                     hk_shape shape)
{
    char name[64];
    snprintf(name, sizeof name, "%s_l%lld", what, (long long)layer);
    return hk_layer_parameter(b, name, &shape, HK_INITIAL_UNIFORM, 1 / sqrt((double)r->hidden));
}

/* x is (T,N,in); *y is (T,D,N,H), *last (D,N,H). */
static bool one_layer(hk_layering *b, const recurrence *r, int64_t layer, hk_value *x, hk_value *outs[2])
{
    int64_t rows = r->gates * r->hidden, in = hk_layer_extent(b, x, 2, 0);
    bool gru = b->l->kind == HK_LAYER_GRU;
    const hk_attr_value attrs[] = {HK_SET_INT("hidden_size", r->hidden),
                                   HK_SET_STRING("direction", r->directions == 2 ? "bidirectional" : "forward"),
                                   gru ? (hk_attr_value)HK_SET_INT("linear_before_reset", 1) : (hk_attr_value){0},
                                   {0}};
    hk_value *operands[] = {
        x, recurrent_parameter(b, r, "weight_ih", layer, (hk_shape){.rank = 3, .dim = {r->directions, rows, in}}),
        recurrent_parameter(b, r, "weight_hh", layer, (hk_shape){.rank = 3, .dim = {r->directions, rows, r->hidden}}),
        b->l->no_bias
            ? NULL
            : recurrent_parameter(b, r, "bias", layer, (hk_shape){.rank = 2, .dim = {r->directions, 2 * rows}})};
    return hk_layer_nodes(b, r->type, attrs, operands, operands[3] ? 4 : 3, outs, 2) != NULL;
}

hk_value *hk_layer_recurrent(hk_layering *b, hk_value *x)
{
    const hk_layer *l = b->l;
    static const int64_t swap[] = {1, 0, 2}, beside[] = {0, 2, 1, 3};
    recurrence r = {.type = l->kind == HK_LAYER_LSTM  ? "LSTM"
                            : l->kind == HK_LAYER_GRU ? "GRU"
                                                      : "RNN",
                    .gates = l->kind == HK_LAYER_LSTM  ? 4
                             : l->kind == HK_LAYER_GRU ? 3
                                                       : 1,
                    .directions = l->bidirectional ? 2 : 1,
                    .hidden = l->out,
                    .layers = l->layers ? l->layers : 1};
    if (!hk_layer_rank(b, x, 3, 3) || !hk_layer_extent(b, x, 2, l->in))
        return NULL;
    if (r.hidden < 1 || r.layers < 1 || r.layers > 1024)
        return hk_layer_fail(b, "out is %lld and layers %lld, expected features of one direction and 1 to 1024 layers",
                             (long long)r.hidden, (long long)r.layers);
    hk_value *outs[2] = {0}, *y = hk_layer_transpose(b, x, 3, swap);
    for (int64_t i = 0; i < r.layers && b->st == HK_OK; i++) {
        if (!one_layer(b, &r, i, y, outs) || (l->last && i + 1 == r.layers))
            break;
        y = hk_layer_transpose(b, outs[0], 4, beside);
        y = hk_layer_reshape(b, y, 3, (int64_t[]){0, 0, r.directions * r.hidden});
        if (l->p > 0 && i + 1 < r.layers)
            y = hk_layer_dropout(b, y, (double)l->p);
    }
    if (!l->last || b->st != HK_OK)
        return b->st == HK_OK ? hk_layer_transpose(b, y, 3, swap) : NULL;
    y = hk_layer_transpose(b, outs[1], 3, swap);
    return hk_layer_reshape(b, y, 2, (int64_t[]){0, r.directions * r.hidden});
}

/* ---- attention, as its parts: passes make one node of them */

static hk_value *matrix(hk_layering *b, const char *what, int64_t out, int64_t in, double bound)
{
    return hk_layer_parameter(b, what, &(hk_shape){.rank = 2, .dim = {out, in}}, HK_INITIAL_UNIFORM, bound);
}

static hk_value *zero_bias(hk_layering *b, const char *what, int64_t count)
{
    const hk_shape shape = {.rank = 1, .dim = {count}};
    return b->l->no_bias ? NULL : hk_layer_parameter(b, what, &shape, HK_INITIAL_FILL, 0);
}

/* Queries, keys and values: of x alone one product, of a memory three. */
static void project(hk_layering *b, hk_value *x, int64_t e, hk_value *out[3])
{
    static const char *const weights[] = {"q_proj_weight", "k_proj_weight", "v_proj_weight"};
    static const char *const biases[] = {"q_proj_bias", "k_proj_bias", "v_proj_bias"};
    hk_value *memory = b->l->with;
    if (!memory) {
        hk_value *w = matrix(b, "in_proj_weight", 3 * e, e, sqrt(6.0 / (double)(4 * e)));
        hk_value *y = hk_layer_product(b, x, w, zero_bias(b, "in_proj_bias", 3 * e));
        const hk_attr_value attrs[] = {HK_SET_INT("axis", -1), HK_SET_INT("num_outputs", 3), {0}};
        hk_layer_nodes(b, "Split", attrs, &y, 1, out, 3);
        return;
    }
    int64_t width = hk_layer_rank(b, memory, 3, 3) ? hk_layer_extent(b, memory, 2, 0) : 0;
    for (int i = 0; i < 3 && b->st == HK_OK; i++) {
        int64_t in = i ? width : e;
        hk_value *w = matrix(b, weights[i], e, in, sqrt(6.0 / (double)(e + in)));
        out[i] = hk_layer_product(b, i ? memory : x, w, zero_bias(b, biases[i], e));
    }
}

/* (N,T,E) to (N,heads,T,E/heads), of keys with the last two swapped. */
static hk_value *split_heads(hk_layering *b, hk_value *x, int64_t heads, int64_t width, bool keys)
{
    hk_value *y = hk_layer_reshape(b, x, 4, (int64_t[]){0, 0, heads, width});
    return hk_layer_transpose(b, y, 4, keys ? (const int64_t[]){0, 2, 3, 1} : (const int64_t[]){0, 2, 1, 3});
}

/* 0 where key j is not behind query i, else minus infinity. */
static hk_value *causal_mask(hk_layering *b, const hk_value *x, const hk_value *memory)
{
    hk_shape shape = {.rank = 2, .dim = {hk_layer_extent(b, x, 1, 0), hk_layer_extent(b, memory, 1, 0)}};
    void *data = NULL;
    hk_value *v = hk_layer_constant(b, "mask", HK_FLOAT32, &shape, &data);
    for (int64_t i = 0; v && i < shape.dim[0]; i++)
        for (int64_t j = i + 1; j < shape.dim[1]; j++)
            ((float *)data)[i * shape.dim[1] + j] = -INFINITY;
    return v;
}

hk_value *hk_layer_attention(hk_layering *b, hk_value *x)
{
    const hk_layer *l = b->l;
    int64_t heads = l->heads ? l->heads : 1;
    hk_value *part[3] = {0};
    if (!hk_layer_rank(b, x, 3, 3))
        return NULL;
    int64_t e = hk_layer_extent(b, x, 2, l->in ? l->in : l->out);
    if (e && (heads < 1 || e % heads))
        return hk_layer_fail(b, "heads is %lld, expected a divisor of %lld features", (long long)heads, (long long)e);
    if (e && l->out && l->out != e)
        return hk_layer_fail(b, "out is %lld, expected the %lld features of its queries", (long long)l->out,
                             (long long)e);
    project(b, x, e, part);
    if (b->st != HK_OK)
        return NULL;
    int64_t width = e / heads;
    hk_value *scale = hk_graph_scalar(b->builder->graph, HK_FLOAT32, 1 / sqrt((double)width));
    if (!scale)
        return hk_layer_no_memory(b);
    hk_value *q = hk_layer_binary(b, "Mul", split_heads(b, part[0], heads, width, false), scale);
    hk_value *scores = hk_layer_binary(b, "MatMul", q, split_heads(b, part[1], heads, width, true));
    if (l->causal)
        scores = hk_layer_binary(b, "Add", scores, causal_mask(b, x, l->with ? l->with : x));
    hk_value *weights = hk_layer_unary(b, "Softmax", scores);
    if (l->p > 0)
        weights = hk_layer_dropout(b, weights, (double)l->p);
    hk_value *y = hk_layer_binary(b, "MatMul", weights, split_heads(b, part[2], heads, width, false));
    y = hk_layer_reshape(b, hk_layer_transpose(b, y, 4, (int64_t[]){0, 2, 1, 3}), 3, (int64_t[]){0, 0, e});
    hk_value *out = matrix(b, "out_proj.weight", e, e, 1 / sqrt((double)e));
    return hk_layer_product(b, y, out, zero_bias(b, "out_proj.bias", e));
}
