/*
 * The operands of an operator that moves elements, seen alike from inference (shapes, sometimes contents), host
 * evaluation (tensors) and lowering (values): what an output looks like is then computed by one function.
 */
#ifndef HK_MOVE_ARGS_H
#define HK_MOVE_ARGS_H

#include "ops/op.h"

typedef struct hk_args {
    hk_context *ctx;
    const hk_node *node;
    const hk_tensor *const *tensors; /* of an evaluation; NULL: shapes and contents are those of the node's values */
} hk_args;

hk_args hk_infer_args(const hk_infer *in);
hk_args hk_eval_args(const hk_eval *e);
/* For view_offset(), place() and backward rules: ctx may be NULL, then failures leave no sentence. */
hk_args hk_node_args(hk_context *ctx, const hk_node *n);

bool hk_args_present(const hk_args *a, int32_t i);
hk_shape hk_args_shape(const hk_args *a, int32_t i); /* unknown rank when the input is absent */
hk_dtype hk_args_dtype(const hk_args *a, int32_t i); /* HK_DTYPE_NONE when the input is absent */
const hk_tensor *hk_args_known(const hk_args *a, int32_t i);

/* "node 'x' (Slice): ...", HK_STATUS_INVALID. */
hk_status hk_args_fail(const hk_args *a, const char *format, ...) HK_PRINTF(2, 3);

/* An axis that may count from the end, -rank to rank - 1; *out is -1 if it fails. */
hk_status hk_args_axis(const hk_args *a, int64_t axis, int32_t rank, int32_t *out);

/* For backward rules that need the input's shape. */
hk_status hk_args_shape_wanted(const hk_args *a);

/* Reads input i as a list: rank 0 or 1, any integer type, at most capacity entries (else it fails, calling it `what`).
 * *count is -1 when the input is present and its contents are unknown, 0 when it is absent. */
hk_status hk_args_ints(const hk_args *a, int32_t i, const char *what, int64_t *v, int32_t capacity, int32_t *count);
/* The entries that the list will have, also when only its shape is known; -1: unknown; 0 when absent. */
int64_t hk_args_length(const hk_args *a, int32_t i);

/* Evaluation in float64 mixes float64 values with float32 constants: the type of what both go into, and a tensor in
 * that type (the same one, or new in the arena; NULL when out of memory). */
hk_dtype hk_wider(hk_dtype a, hk_dtype b);
const hk_tensor *hk_eval_as(hk_eval *e, const hk_tensor *t, hk_dtype dtype);

/* Copies input 0's elements into output 0 under another shape, dtype unchanged: the evaluator of views. */
hk_status hk_eval_reshaped(hk_eval *e, const hk_shape *shape);

#endif
