/*
 * Operator test cases: parsing the strings of hk_op.cases (grammar in tests/cases.h) and making graphs and inputs of
 * them.
 */
#ifndef HK_TEST_CASES_H
#define HK_TEST_CASES_H

#include "ops/op.h"

enum { CASE_MAX_INPUTS = 64, CASE_MAX_ATTRS = 24 };

typedef enum case_fill { CASE_NORMAL, CASE_POSITIVE, CASE_INTEGERS, CASE_CONTENTS } case_fill;

typedef struct case_input {
    bool absent, step, parameter;
    hk_dtype dtype;
    hk_shape shape;
    case_fill fill;
    int64_t low, high;         /* CASE_INTEGERS: low .. high - 1 */
    const hk_tensor *contents; /* CASE_CONTENTS: known on the host */
} case_input;

typedef struct op_case {
    const char *text;
    const hk_op *op;
    case_input inputs[CASE_MAX_INPUTS];
    int32_t input_count;
    hk_attr_value attrs[CASE_MAX_ATTRS];
    size_t attr_count;
    int32_t out_count, opset;
    bool nograd, nodevice, min_skip, grad_all;
    double tolerance;
    uint64_t seed; /* from op and text: a case's inputs are the same in every run, alone or not */
} op_case;

/* HK_STATUS_USAGE with a sentence that shows where the string stops making sense. Everything lies in arena. */
hk_status case_parse(hk_context *ctx, hk_arena *arena, const hk_op *op, const char *text, op_case *out);

/* A graph with the case's one node and its outputs. inputs: the graph's values by case input, NULL where absent. With
 * all_inputs every random operand is a graph input, else parameters are of that kind with contents from tensors. */
typedef struct case_graph {
    hk_graph *graph;
    hk_node *node;
    hk_value *inputs[CASE_MAX_INPUTS];
} case_graph;
hk_status case_build(hk_context *ctx, const op_case *c, const hk_tensor *const *tensors, bool all_inputs,
                     case_graph *out);

/* Contents for every operand: random where the case says so, NULL for absent ones and the step block. wide:
 * float32 becomes float64 with the same numbers. */
hk_status case_contents(hk_context *ctx, hk_arena *arena, const op_case *c, bool wide, const hk_tensor **tensors);

/* The contents in the order of g->inputs. */
void case_feeds(const case_graph *g, const op_case *c, const hk_tensor *const *tensors, const hk_tensor **feeds);

/* xorshift64*; uniform in [0, 1) and standard normal. */
typedef struct case_random {
    uint64_t state;
} case_random;
double case_uniform(case_random *r);
double case_normal(case_random *r);

#endif
