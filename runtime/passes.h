/*
 * What happens to an inferred graph before it is planned: fusion, layout, precision. Each pass can be switched off, and
 * results agree with it off.
 */
#ifndef HK_PASSES_H
#define HK_PASSES_H

#include "ops/op.h"

typedef struct hk_pass_options {
    const hk_device_info *device;
    hk_precision precision;
    uint32_t off;            /* bit (1 << HK_PASS_x): without it */
    bool matrices;           /* the device has matrix units, or emulates them */
    bool inference;          /* parameters never change and nothing is differentiated: all passes; else fusion alone */
    bool islands_everywhere; /* nodes without a convolution around them too, whether that pays or not: tests */
} hk_pass_options;

/* Those that need no shapes, once for a session's template. */
hk_status hk_run_template_passes(hk_graph *g, const hk_pass_options *options);
/* The others, in order, on a graph whose shapes are known. user is a hk_pass_options. */
hk_status hk_run_passes(hk_graph *g, void *user);
/* Those that find operators which are differentiated better than what they were made of: on the forward pass of a
 * training step, whose shapes are known, before its gradient. user is a hk_pass_options. */
hk_status hk_run_forward_passes(hk_graph *g, void *user);

/* A node's attributes as a list for hk_build, ended by a NULL name; returns how many. */
size_t hk_copy_attrs(const hk_node *n, hk_attr_value *list, size_t capacity);

/* Constant BatchNormalization after Conv into the convolution's weights and bias (inference only). */
hk_status hk_fold_batchnorm(hk_graph *g);
/* Convolutions of few channels whose windows lie side by side become matrix products. */
hk_status hk_fold_patches(hk_graph *g);
/* Nodes that change nothing go; of nodes that only give a new shape, or only permute, the last of a chain is left. */
hk_status hk_drop_views(hk_graph *g);
/* Nodes of one operator with equal attributes and operands become one; so do small constants of equal contents. */
hk_status hk_merge_common(hk_graph *g);
/* Pad with what the Conv, MaxPool or AveragePool behind it pads with becomes part of its pads. */
hk_status hk_fold_pads(hk_graph *g);
/* GELU, LayerNormalization and RMSNormalization written out become one node. */
hk_status hk_fuse_formulas(hk_graph *g);
/* Products around a softmax become hk.Attention; the second, before a gradient is taken, where that can be taken of it.
 */
hk_status hk_fuse_attention(hk_graph *g);
hk_status hk_fuse_trained_attention(hk_graph *g);
/* Products read transposed matrices as they are (before a gradient is taken too). */
hk_status hk_fold_transposes(hk_graph *g);
/* Bias, activation and residual sum into the store phase of Conv and Gemm. */
hk_status hk_fuse_epilogues(hk_graph *g);
/* The two convolutions of single pixels in squeeze-and-excitation become one node. */
hk_status hk_fuse_excitation(hk_graph *g);
/* Precision `fast`: convolutions in NHWC8 islands of fp16, fp16 weights of matrix products (layout.c). */
hk_status hk_choose_layouts(hk_graph *g, const hk_pass_options *options);
/* Behind layouts: the sum with another gradient and the gradient of Relu into the store phase of a data gradient. */
hk_status hk_fuse_gradients(hk_graph *g);
/* The products that make an attention's operands of one value become one (once weights are stored as they stay). */
hk_status hk_join_products(hk_graph *g);
/* LayerNormalization of a product's rows and the product become hk.GemmNorm. */
hk_status hk_fuse_norms(hk_graph *g);
/* Precisions `fast` and `high`: products with spiking neurons behind them become hk.GemmNeuron. */
hk_status hk_fuse_neurons(hk_graph *g, const hk_pass_options *options);
/* Precision `fast`, when chains are made: values between nodes in fp16 (storage.c). */
hk_status hk_choose_storage(hk_graph *g, const hk_pass_options *options);

#endif
