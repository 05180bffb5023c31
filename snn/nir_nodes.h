/* Inside of the NIR export: nodes as they are made. */
#ifndef HK_SNN_NIR_NODES_H
#define HK_SNN_NIR_NODES_H

#include "snn/nir.h"

/* What a value of the graph is in NIR: the sum of what nodes hand on. */
typedef struct hk_nir_source {
    size_t node;
    bool sole; /* only this value uses it, so that its weights may change */
} hk_nir_source;

typedef struct hk_nir_flow {
    hk_nir_source *from;
    size_t count;
    hk_shape shape; /* of a sample at a step */
    bool read;      /* behind the readout: no time any more */
    bool broken;    /* behind something unsupported */
} hk_nir_flow;

typedef struct hk_nir_builder {
    hk_graph *g;
    hk_nir_params params;
    hk_nir *out;
    hk_arena *arena;
    hk_shape *shapes;        /* by value id */
    const hk_tensor **known; /* by value id */
    hk_nir_flow *flows;      /* by value id; count 0: no data of a sample */
    hk_uses uses;
    int64_t batch;
    hk_snn_node *verdict;         /* of the node at hand */
    const char *encode, *readout; /* for the metadata */
    int64_t steps, delay;
    bool soft, approximated;
} hk_nir_builder;

/* Contents that do not depend on the network's inputs, or NULL. */
const hk_tensor *hk_nir_fixed(const hk_nir_builder *b, const hk_value *v);
/* The node at hand has no counterpart; reason says what to do. */
hk_status hk_nir_refuse(hk_nir_builder *b, const char *reason);
/* The same, unless approximations are welcome: then as says what it becomes. */
hk_status hk_nir_approximate(hk_nir_builder *b, const char *reason, const char *as, bool *go_on);

/* A node that takes the flow; *flow becomes what it hands on, for the value v. */
hk_status hk_nir_emit(hk_nir_builder *b, const char *name, const char *type, const hk_shape *out, const hk_value *v,
                      hk_nir_flow *flow, hk_nir_node **made);
bool hk_nir_add_tensor(hk_nir_node *n, const char *name, const hk_tensor *t);
hk_tensor *hk_nir_floats(hk_nir_builder *b, int32_t rank, const int64_t *dims);
const hk_tensor *hk_nir_integers(hk_nir_builder *b, int32_t rank, const int64_t *x, int64_t count);
/* Element i of a sample of shape s from a constant that broadcasts to it, aligned at the right. */
double hk_nir_broadcast(const hk_tensor *c, const hk_shape *s, int64_t i);
/* Does c differ along the first axis of samples of shape s alone? */
bool hk_nir_is_per_channel(const hk_tensor *c, const hk_shape *s);
/* Multiplies what the flow's nodes hand on: in their weights where these are theirs alone, else by Scale nodes. */
hk_status hk_nir_scale(hk_nir_builder *b, const char *name, const hk_tensor *by, hk_nir_flow *flow);
/* What the flow hands on is read at the last step. */
void hk_nir_read_last(hk_nir_builder *b, hk_nir_flow *flow);
/* Through a node that changes nothing. */
void hk_nir_pass(hk_nir_builder *b, hk_nir_flow *flow, const hk_value *v);

/* ---- operators (snn/nir_ops.c): n is not behind anything broken; flow comes as input `x` of it */

hk_status hk_nir_conv(hk_nir_builder *b, const hk_node *n, hk_nir_flow *flow);
hk_status hk_nir_dense(hk_nir_builder *b, const hk_node *n, hk_nir_flow *flow);
hk_status hk_nir_pool(hk_nir_builder *b, const hk_node *n, hk_nir_flow *flow);
hk_status hk_nir_neuron(hk_nir_builder *b, const hk_node *n, hk_nir_flow *flow);

#endif
