/*
 * Small networks for tests of spiking, and how they are run. Failures end the test.
 */
#ifndef HK_TEST_SPIKING_H
#define HK_TEST_SPIKING_H

#include "core/graph.h"
#include "ops/op.h"
#include "tests/support/program.h"

enum { OPSET = 18 };

/* A graph with the input "x". */
hk_graph *new_graph(hk_value **x, int32_t rank, const int64_t *dims);
/* A node of opset 18 with its first output; b and c may be NULL. */
hk_value *op(hk_graph *g, const char *type, const char *name, const hk_attr_value *attrs, hk_value *a, hk_value *b,
             hk_value *c);
/* A constant. */
hk_value *floats(hk_graph *g, const char *name, const float *x, int32_t rank, const int64_t *dims);
/* In [-scale, scale). */
void fill_random(float *x, size_t n, uint32_t seed, double scale);
hk_value *random_weights(hk_graph *g, const char *name, int32_t rank, const int64_t *dims, uint32_t seed, double scale);
/* A float output under that name. */
void add_output(hk_graph *g, hk_value *y, const char *name);
/* Ends a graph that has its outputs: exported, loaded. */
hk_model *loaded_model(hk_graph *g);
/* The same with the output "y". */
hk_model *model_of(hk_graph *g, hk_value *y);
/* Lent: x must outlive it. */
hk_tensor tensor_of(float *x, int32_t rank, const int64_t *dims);
/* The output called name; to be released. */
hk_tensor run_once(const hk_model *m, const char *name, const hk_tensor *x);
/* Of all monitored neurons on x; probes (may be NULL) receives the number of monitored layers. */
double spikes_in(const hk_model *snn, const hk_tensor *x, size_t *probes);
hk_snn_params params_of(const hk_tensor *x, int64_t steps, hk_snn_mode mode);
/* UCI digits in [0, 1]: all of them (holdout 0), or without the fifth held out, or that fifth. */
hk_loader *digits(hk_dataset **data, size_t batch, double holdout, bool held_out);
/* Bit for bit; releases both. */
void equal_tensors(hk_tensor *a, hk_tensor *b);
/* Norm of a - b by that of b; releases both. */
double relative_error(hk_tensor *a, hk_tensor *b);
/* 3x3, padded, with bias. */
hk_value *conv(hk_graph *g, const char *name, hk_value *x, int64_t in, int64_t out, uint32_t seed);
/* (N,3,6,6) to five classes: a residual block with the activation `middle` inside. */
hk_model *residual_network(const char *middle, bool pool);

#endif
