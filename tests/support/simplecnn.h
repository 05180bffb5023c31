/*
 * The SimpleCNN training fixture (tests/data/README.md): weights and batches that PyTorch and this test make from the
 * same counter-based generator, and what PyTorch computed from them.
 */
#ifndef HK_TEST_SIMPLECNN_H
#define HK_TEST_SIMPLECNN_H

#include "hillock/hillock.h"

#define SIMPLECNN_TENSORS 12
#define SIMPLECNN_BATCH 32

typedef struct simplecnn_tensor {
    char name[64];
    uint32_t stream;
    float k, fill;
    int64_t count;
    int64_t first;        /* among all elements */
    int64_t small_offset; /* in a row of grad_small, or -1 */
    float *initial;
} simplecnn_tensor;

typedef struct simplecnn {
    hk_context *ctx;
    char folder[256]; /* temporary: model.onnx and weights.bin */
    char model[300];
    uint32_t seed;
    int64_t total;
    simplecnn_tensor tensors[SIMPLECNN_TENSORS];
    float *images;
    int64_t *labels;
} simplecnn;

/* Fails the test on any error. */
void simplecnn_open(simplecnn *f, hk_context *ctx);
void simplecnn_close(simplecnn *f);
/* Batch b = 1, 2, ...: the tensors point into f and are overwritten by the next call. */
void simplecnn_batch(simplecnn *f, uint32_t b, hk_tensor *images, hk_tensor *labels);
/* The fp32 "w10" weights of tensor i, to be freed. */
float *simplecnn_w10(simplecnn *f, size_t i);
/* The estimate of ||g - g64|| and ||g64|| for tensor i of gradient set s, from projections or the stored gradient. */
void simplecnn_gradient_error(simplecnn *f, size_t set, size_t i, const float *g, double *error, double *norm);
/* One of the fixture's .npy files as doubles, to be freed. */
double *simplecnn_load(simplecnn *f, const char *name, int64_t *count);

#endif
