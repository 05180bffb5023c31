/*
 * Running a small graph's records one after another, without planner or session: with the tuning of a device of another
 * kind, with smaller limits, or timed. For tests that must reach kernels which the device at hand would not choose.
 */
#ifndef HK_TEST_RECORDS_H
#define HK_TEST_RECORDS_H

#include "gpu/gpu.h"
#include "ops/op.h"

#define HK_TEST_RECORDS_MAX 192

typedef struct hk_records_run {
    bool gpu_tuning;          /* lower as for a GPU, whatever the device is */
    hk_precision precision;   /* 0: strict; without matrix units these are emulated */
    uint32_t units;           /* compute_units_hint; 0: 132 */
    uint32_t max_invocations; /* 0: the device's */
    uint32_t max_shared_bytes;
    uint32_t repeats; /* > 0: time so many runs of all records */
    uint32_t warm_ms; /* the device is kept busy so long before, 200 before the first; 0: 200 */
    bool no_host;     /* do not evaluate on the host: too large */
    hk_status (*lower)(hk_lower *l, void *user); /* instead of each operator's own; NULL: none */
    void *user;
    const hk_tensor *const *feeds; /* contents of g->inputs, in order; NULL: random */
    /* results */
    double error;          /* largest relative norm error of a graph output against the host; infinite for a NaN */
    const char *worst;     /* its name */
    uint32_t record_count; /* of what was timed */
    const char *variant[HK_TEST_RECORDS_MAX];
    double ns[HK_TEST_RECORDS_MAX];
    double flops[HK_TEST_RECORDS_MAX];
} hk_records_run;

/* Inputs, constants and parameters without data get random contents. Outputs are contiguous. */
hk_status hk_test_records(hk_gpu *gpu, hk_graph *g, hk_records_run *run);

#endif
