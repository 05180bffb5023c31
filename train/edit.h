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
const hk_tensor *hk_edit_uniform(hk_graph *g, hk_dtype dtype, const hk_shape *shape, double bound, uint64_t seed,
                                 const char *name);
/* A new parameter of the graph. name NULL or taken: a unique one is made from it. */
hk_value *hk_edit_parameter(hk_graph *g, const char *name, const hk_tensor *data);
/* Gives operand k of n, a constant, a copy of its own unless it has no other use. NULL: out of memory. */
hk_value *hk_edit_own(hk_graph *g, const hk_uses *uses, hk_node *n, int32_t k);
/* Forgets type and shape of everything that depends on the roots (indexed by value id), and infers them anew. */
hk_status hk_edit_infer(hk_graph *g, bool *roots, hk_arena *arena);
/* What makes v makes *before from now on; the caller's new node makes v of it (hk_graph_take_over). */
hk_status hk_edit_behind(hk_graph *g, hk_value *v, hk_value **before);

/* ---- edits of what is written */

/* Small parameters that several layers use (exporters merge equal ones) become one per use; tied matrices stay tied. */
hk_status hk_edit_unshare(hk_graph *g, hk_arena *arena, bool *changed);

/* Matrices in a weight's role with the same contents, element by element or transposed. (edit_ties.c) */
typedef struct hk_tie {
    hk_value *kept, *copy;
    bool transposed;
} hk_tie;
hk_status hk_edit_find_ties(const hk_graph *g, hk_arena *arena, hk_tie **out, size_t *count);
/* Makes one parameter of each pair. */
hk_status hk_edit_tie(hk_graph *g, hk_arena *arena, bool *changed);

/* A fixed first dimension of the inputs becomes open. HK_STATUS_UNSUPPORTED: something depends on it that cannot be
 * mended. (edit_batch.c) */
hk_status hk_edit_open_batch(hk_graph *g, hk_arena *arena, bool *changed);

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
/* A constant behind operators that hand it on: *use and *operand are where it is read. *flipped: behind an odd number
 * of transpositions. */
bool hk_edit_find_stored(hk_node *n, int32_t k, hk_node **use, int32_t *operand, bool *flipped);

/* ---- edits of what is trained alone */

/* How a tensor of the written graph comes from trained ones. */
typedef struct hk_derived {
    const hk_value *target;   /* of the written graph; its own contents, trained or not, are what is changed */
    const hk_value *parts[4]; /* of the trained graph: A and B; or scale, shift, mean and variance */
    double factor;            /* of A B; or the normalization's epsilon */
    bool flipped;             /* of A B: the target is stored as [out, in] */
    bool norm, shift;         /* a normalization behind it is folded in; the target is the bias */
} hk_derived;
typedef struct hk_derived_list {
    hk_derived *v;
    size_t count, capacity;
} hk_derived_list;
/* Changes t, float32 contents of the target, by the parts' contents (float32). */
void hk_derive(const hk_derived *d, hk_tensor *t, const hk_tensor *const parts[4]);

/* Dropout before the last layer. */
hk_status hk_edit_dropout(hk_graph *g, const char *output, float ratio);

/* Adapters x A B alpha/rank beside the weights of Gemm and MatMul; all other parameters are frozen. g is a clone of
 * written; heads, of written, stay trained and get none. */
hk_status hk_edit_lora(hk_graph *g, const hk_graph *written, hk_value *const heads[2], int64_t rank, double alpha,
                       uint64_t seed, hk_arena *arena, hk_derived_list *out);

/* A convolution behind which a BatchNormalization can be put: constant weight and bias of its own. */
typedef struct hk_folded {
    hk_node *conv;
    const hk_tensor *mean, *variance; /* float32 [channels] of its results; NULL: not measured */
} hk_folded;
hk_status hk_edit_find_folded(const hk_graph *g, hk_arena *arena, hk_folded **out, size_t *count);
/* Makes mean and variance of each convolution's results the graph's only outputs, in turn. */
hk_status hk_edit_measure(hk_graph *g, const hk_folded *list, size_t count);
/* Puts BatchNormalization behind each. The results stay what they are, with running statistics as with those of the
 * batch: the statistics are the measured ones, scale and shift undo them; without, statistics are 0 and 1. written,
 * when not NULL: the graph g was cloned from, in which they are folded again. */
hk_status hk_edit_batchnorms(hk_graph *g, const hk_graph *written, const hk_folded *list, size_t count,
                             hk_derived_list *out);

#endif
