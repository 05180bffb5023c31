/*
 * Edits of a model before it is trained: each is a step from graph to graph, on a clone that keeps the source's ids.
 * Some change what is written back (a new head, tensors no longer shared); the others only what is trained, and
 * hk_derived tells how the written tensors come from the trained ones.
 */
#ifndef HK_EDIT_H
#define HK_EDIT_H

#include "core/graph.h"

/* ---- tensors (edit.c) */

/* torch.nn's default of weights and biases of linear layers and convolutions: uniform in +-bound. The bits follow from
 * the seed and the name, for every float type. NULL: out of memory. */
hk_tensor *hk_edit_uniform(hk_graph *g, hk_dtype dtype, const hk_shape *shape, double bound, uint64_t seed,
                           const char *name);
/* A new parameter of the graph. name NULL or taken: a unique one is made from it. */
hk_value *hk_edit_parameter(hk_graph *g, const char *name, const hk_tensor *data);
/* Gives operand k of n, a constant, a copy of its own unless it has no other use. NULL: out of memory. */
hk_value *hk_edit_own(hk_graph *g, const hk_uses *uses, hk_node *n, int32_t k);
/* Forgets type and shape of everything that depends on the roots (indexed by value id), and infers them anew. */
hk_status hk_edit_infer(hk_graph *g, bool *roots, hk_arena *arena);
/* Puts a new node of the model's own opset behind v, which the node makes from now on from *before, what v was. */
hk_status hk_edit_behind(hk_graph *g, hk_value *v, hk_value **before);

/* ---- edits of what is written */

/* Small parameters that several layers use (exporters merge equal ones) become one per use; tied matrices stay tied. */
hk_status hk_edit_unshare(hk_graph *g, hk_arena *arena, bool *changed);

/* The last layer before an output. */
typedef struct hk_head {
    hk_node *node;       /* Gemm, MatMul or a 1x1 Conv */
    hk_node *weight_use; /* whose operand weight_operand is the stored weight: node, or what rearranges it */
    int32_t weight_operand;
    int32_t class_dim; /* of the stored weight */
    hk_node *bias_use; /* NULL: no bias */
    int32_t bias_operand;
} hk_head;
/* output NULL: the first. HK_STATUS_UNSUPPORTED names the node that stands where a linear layer was expected. */
hk_status hk_edit_find_head(const hk_graph *g, const char *output, hk_head *out);
/* The last layer gets a number of classes, with torch.nn's default weights; weight and bias, when not NULL, receive
 * them. */
hk_status hk_edit_new_head(hk_graph *g, const char *output, int64_t classes, uint64_t seed, hk_arena *arena,
                           hk_value **weight, hk_value **bias);

#endif
