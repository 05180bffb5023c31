/*
 * What a reader of NIR computes: its equations by Euler's method, step by step, in double precision. See
 * tools/fixtures/snn_formats.py, which does the same to files.
 */
#ifndef HK_TEST_NIR_RUN_H
#define HK_TEST_NIR_RUN_H

#include "snn/nir.h"

/* One sample: x + t stride is what the input hands on at step t. outputs, steps times its size, receives what reaches
 * the output; returns how many spikes there were. Fails the test on a type of node that it does not know. */
double nir_run(const hk_nir *n, const double *x, int64_t stride, int64_t steps, double *outputs);

#endif
