/*
 * Layers as nodes: what hk_add appends to the graph of a model under construction. Operators are those of one opset, so
 * that the graph can be written as it stands.
 */
#ifndef HK_LAYERS_H
#define HK_LAYERS_H

#include "ops/op.h"

#define HK_BUILD_OPSET 21

/* A model under construction. */
typedef struct hk_builder {
    hk_context *ctx;
    hk_graph *graph;
    uint32_t seed[2];
    hk_map names; /* of layers */
    size_t numbers[HK_LAYER_COUNT];
} hk_builder;

/* x or a layer's operands must be values of the builder's graph. On failure the graph is as it was. */
hk_status hk_layer_add(hk_builder *b, hk_value *x, const hk_layer *l, hk_value **y);

/* ---- inside of the layers. A failed call yields NULL and sets st, and everything after it does nothing. */

typedef struct hk_layering {
    hk_builder *builder;
    hk_graph *g; /* the builder's, or a body in it; parameters and constants are the builder's */
    const hk_layer *l;
    const char *name;
    hk_status st;
} hk_layering;

typedef hk_value *hk_layer_maker(hk_layering *b, hk_value *x);

/* "layer 'conv1' (Conv2d): ..." */
hk_value *hk_layer_fail(hk_layering *b, const char *format, ...) HK_PRINTF(2, 3);
hk_value *hk_layer_no_memory(hk_layering *b);
/* A node; outs, when not NULL, receives out_count values. Returns the first. */
hk_value *hk_layer_nodes(hk_layering *b, const char *type, const hk_attr_value *attrs, hk_value *const *in,
                         int32_t count, hk_value **outs, int32_t out_count);
/* The same of a node that runs a body for each of its inputs' first elements. */
hk_value *hk_layer_body_node(hk_layering *b, const char *type, hk_graph *body, hk_value *const *in, int32_t count,
                             hk_value **outs, int32_t out_count);
hk_value *hk_layer_node(hk_layering *b, const char *type, const hk_attr_value *attrs, hk_value *const *in,
                        int32_t count);
hk_value *hk_layer_unary(hk_layering *b, const char *type, hk_value *x);
hk_value *hk_layer_binary(hk_layering *b, const char *type, hk_value *x, hk_value *y);
hk_value *hk_layer_transpose(hk_layering *b, hk_value *x, int32_t rank, const int64_t *perm);
/* 0 keeps an extent, -1 is what is left. */
hk_value *hk_layer_reshape(hk_layering *b, hk_value *x, int32_t rank, const int64_t *shape);

typedef enum hk_initial { HK_INITIAL_FILL, HK_INITIAL_UNIFORM, HK_INITIAL_NORMAL } hk_initial;
/* First values of a parameter, which follow from seed and name. */
void hk_initial_values(const uint32_t seed[2], const char *name, float *to, int64_t count, hk_initial kind, double x);
/* A trainable tensor "layer.what": filled with x, uniform in [-x, x), or normal with deviation x. */
hk_value *hk_layer_parameter(hk_layering *b, const char *what, const hk_shape *shape, hk_initial kind, double x);
/* A constant "layer.what" with zeroed contents. */
hk_value *hk_layer_constant(hk_layering *b, const char *what, hk_dtype dtype, const hk_shape *shape, void **data);

/* The extent of that dimension, which must be known and, unless want is 0, equal to it; 0 after a failure. */
int64_t hk_layer_extent(hk_layering *b, const hk_value *x, int32_t axis, int64_t want);
bool hk_layer_rank(hk_layering *b, const hk_value *x, int32_t least, int32_t most);
/* x W^T + b over the last dimension; the parameters' names begin with prefix. Bias NULL: none. */
hk_value *hk_layer_product(hk_layering *b, hk_value *x, hk_value *weight, hk_value *bias);
hk_value *hk_layer_dropout(hk_layering *b, hk_value *x, double p);

/* layers_spatial.c */
hk_layer_maker hk_layer_conv, hk_layer_pool, hk_layer_adaptive;
/* layers_sequence.c */
hk_layer_maker hk_layer_recurrent, hk_layer_attention;
/* layers_spiking.c */
hk_layer_maker hk_layer_spiking;
/* make on the steps of x (T,N,...): as one batch, or one after the other. */
hk_value *hk_layer_folded(hk_layering *b, hk_value *x, hk_layer_maker *make);
hk_value *hk_layer_looped(hk_layering *b, hk_value *x, hk_layer_maker *make);

#endif
