/*
 * Model folders in the layout of the ONNX backend tests, run through a session and compared.
 */
#ifndef HK_TEST_DATA_H
#define HK_TEST_DATA_H

#include "hillock/hillock.h"

/* Runs one test set of a folder in a session made before: writes the inputs, runs, and returns the worst relative norm
 * error over the float outputs; integers and bools must be equal. Fails the test on errors. False: there is no such
 * set. */
bool data_run_set(hk_context *ctx, hk_session *s, const hk_model *m, const char *folder, int set, double *error);

/* ‖a − b‖ / ‖b‖ of two tensors of equal dtype and shape; 1e300 if those differ or a NaN stands alone. Integers: 0 or
 * 1e300. Lists: the worst of their items. */
double data_error(const hk_tensor *a, const hk_tensor *b);

#endif
