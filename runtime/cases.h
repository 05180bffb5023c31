/*
 * Operator test cases: parsing the strings of hk_op.cases (grammar below) and making graphs and inputs of
 * them.
 *
 * The grammar of hk_op.cases, one string a case, parsed by runtime/cases.c:
 *
 *     inputs ; attributes ; options
 *
 * inputs, separated by spaces:
 *     f32[2,3,8]      random normal        f32[2,3]+       random in 0.1 .. 2
 *     i64[4]<7        random in 0 .. 6     i64[4]<-3:5     random in -3 .. 4     bool[2,2]  random
 *     i64={1,-2}      these contents, rank 1, known on the host (an initializer)
 *     f32=0.5         a scalar known on the host
 *     i64[2,1]={0,3}  contents with a shape, known on the host
 *     f32[]           a random scalar (rank 0)
 *     -               absent
 *     p.f32[4,3]      any of the above, kind PARAMETER instead of a graph input
 *     step            the step block
 * dtypes: f32 f64 f16 bf16 i64 i32 i16 i8 i4 i2 u64 u32 u16 u8 u4 u2 bool e4m3fn e4m3fnuz e5m2 e5m2fnuz e8m0 e2m1.
 * attributes: name=3 (int), name=0.5 (float: has a '.' or 'e'), name=[1,2] (ints), name=[0.5,1.0] (floats),
 * name="text", name=["a","b"], name=i64={1,2}, name=i64[2,1]={1,2} and name=f32=0.5 (tensors); the operator's table
 * decides between int and float where 3 is written options: out=3 (ask for 3 outputs; default out_min), nograd (no
 * gradient check: kinks or no rule), gradall (check gradients through all float outputs instead of the first), tol=1e-4
 * (relative norm error allowed instead of 5e-6, or of 0 for operators that draw random numbers), opset=13, nodevice
 * (host op: device run left out), storage16 (the same where the device has no 16-bit storage)
 *
 * What the generic test (tests/test_ops.c) does with each: infer; host evaluation in float32; lowering and a run on the
 * device, NaN-poisoned buffers, every output compared (norm and shape, integers equal); and, unless nograd, the
 * gradient graph of sum(y * r) for random r evaluated on the host in float64 against central differences for every
 * float input. `test_ops Relu` runs one operator.
 *
 */
#ifndef HK_CASES_H
#define HK_CASES_H

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
    bool nograd, nodevice, storage16, grad_all;
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

/* False: the case runs on the host, by its own word, by its operator's nature, or for an element type without a kernel.
 */
bool case_on_device(const op_case *c, const case_graph *g, const hk_device_info *device);

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
