/*
 * Inside of hk_model, for sessions and trainers.
 */
#ifndef HK_RUNTIME_MODEL_H
#define HK_RUNTIME_MODEL_H

#include "core/graph.h"
#include "importer/import.h"

const hk_graph *hk_model_graph(const hk_model *m);
const hk_import_result *hk_model_import(const hk_model *m);
/* HK_STATUS_UNSUPPORTED with all problems in one sentence, or HK_OK. */
hk_status hk_model_check_runs(const hk_model *m);

/* Shared by session and trainer: does the tensor fit the input; room for an output. */
hk_status hk_check_input(hk_context *ctx, const hk_value *v, const hk_tensor *t);
hk_status hk_fill_output(hk_context *ctx, const char *name, hk_dtype dtype, const hk_shape *shape, hk_tensor *out,
                         bool *made);

#endif
