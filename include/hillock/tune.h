/*
 * Choosing kernels by measurement. By itself Hillock reckons which kernel is the fastest for a shape; hk_tune times the
 * first few of that list on the device, with a model's own shapes, and writes what it found to a table, a small text
 * file. A session uses a table only if its parameters name one (hk_session_params.tuned).
 *
 * Part of hillock.h, which includes it and says how ownership, errors and options work.
 */
#ifndef HILLOCK_TUNE_H
#define HILLOCK_TUNE_H

#include "hillock.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One problem: a product, convolution or attention of one shape, precision and storage. */
typedef struct hk_tune_row {
    const char *problem;
    const char *kernel;    /* the fastest; the predicted one unless another was faster by more than 2 % */
    uint32_t splits;       /* of its sums, 1: none */
    const char *predicted; /* what is taken without a table */
    uint32_t predicted_splits;
    double ns, predicted_ns; /* of one place in the model, its dispatches one after the other */
    uint32_t places;         /* in the model */
    uint32_t measured;       /* kernels that were timed */
} hk_tune_row;

typedef struct hk_tune_params {
    size_t size;
    hk_precision precision;
    const char *path;    /* the table; default "device": the device's own in the cache folder. A table that is there
                            keeps its other problems */
    uint32_t candidates; /* kernels timed for each problem, from 1 to 8; default: 4 */
    uint32_t runs;       /* of each, of which the least time counts; default: 5 */
    void (*report)(void *user, const hk_tune_row *row); /* of each problem in the end; lent for the call */
    void *user;
} hk_tune_params;

typedef struct hk_tune_result {
    size_t problems, changed; /* changed: another kernel than the predicted one is kept */
    double ns, predicted_ns;  /* a run's dispatches one after the other, by the table and by prediction */
    char path[1024];          /* where the table is */
} hk_tune_result;

/* inputs: the model's, in its order. Runs the model some ten to fifty times. Needs a device with timestamps
 * (HK_STATUS_UNSUPPORTED). HK_STATUS_INVALID or HK_STATUS_USAGE if path is there and is no table, or another device's.
 */
HK_API HK_MUST_USE hk_status hk_tune(hk_device *dev, const hk_model *m, const hk_tensor *inputs, size_t input_count,
                                     const hk_tune_params *params, hk_tune_result *result);

#ifdef __cplusplus
}
#endif
#endif
