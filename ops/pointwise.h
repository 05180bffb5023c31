/*
 * Elementwise functions and chains of them. There is one table of functions (shaders/chain_codes.push.h), one host
 * interpreter and one shader; operators of one node are chains of one step, and runtime/fuse_chain.c makes longer ones.
 */
#ifndef HK_POINTWISE_H
#define HK_POINTWISE_H

#include "ops/op.h"
#include "shaders/chain_codes.push.h"

typedef enum hk_chain_code {
#define HK_X(name, code, operands, meaning) HK_CHAIN_##name = (code),
    CHAIN_CODE_MAP(HK_X)
#undef HK_X
        HK_CHAIN_CODE_COUNT
} hk_chain_code;

typedef enum hk_chain_class {
#define HK_X(name, number) HK_CLASS_##name = (number),
    CHAIN_CLASS_MAP(HK_X)
#undef HK_X
} hk_chain_class;

/* Class of an element type in registers: all floats are FLOAT, bool and unsigned ones up to 32 bits UINT, and so on. */
hk_chain_class hk_chain_class_of(hk_dtype t);
int32_t hk_chain_operands(hk_chain_code code);
/* Transcendental functions and loops: not worth computing twice to save a read. */
bool hk_chain_is_costly(hk_chain_code code);

/* What lies in a register on the host: f for class FLOAT, i for the others (ULONG as its bits). */
typedef struct hk_register {
    double f;
    int64_t i;
} hk_register;
/* One step in double, or in 64-bit integers that wrap at the class's width. */
hk_register hk_chain_apply(hk_chain_code code, hk_chain_class class, hk_register a, hk_register b, hk_register c);

/* ---- programs */

typedef struct hk_chain_step {
    uint8_t code, class;
    uint8_t operand[3]; /* registers; unused ones repeat the first */
} hk_chain_step;

/* Registers 0.. are inputs, CHAIN_FIRST_IMMEDIATE.. immediates, CHAIN_FIRST_STEP.. results of steps. */
typedef struct hk_chain {
    int32_t input_count, immediate_count, step_count, output_count;
    hk_dtype in_dtype[CHAIN_INPUTS];
    hk_dtype immediate_dtype[CHAIN_IMMEDIATES];
    hk_register immediate[CHAIN_IMMEDIATES];
    hk_chain_step step[CHAIN_STEPS];
    hk_dtype out_dtype[CHAIN_OUTPUTS];
    uint8_t out[CHAIN_OUTPUTS]; /* registers */
} hk_chain;

/* A program under construction. Constants of one element that fit 32 bits become immediates, everything else becomes an
 * input; full says that something did not fit and the program is of no use. */
typedef struct hk_chain_build {
    hk_chain chain;
    hk_value *input[CHAIN_INPUTS];
    bool immediates; /* constants may become immediates */
    bool full;
} hk_chain_build;

uint8_t hk_chain_input(hk_chain_build *b, hk_value *v);
uint8_t hk_chain_immediate(hk_chain_build *b, hk_dtype dtype, double x);
/* operand entries beyond the code's number are ignored. */
uint8_t hk_chain_add(hk_chain_build *b, hk_chain_code code, hk_chain_class class, uint8_t a, uint8_t operand_b,
                     uint8_t operand_c);
/* Appends what pointwise node n computes; in[] are the registers of its inputs (CHAIN_NONE: absent). */
uint8_t hk_pointwise_encode(hk_chain_build *b, const hk_node *n, const uint8_t *in);
/* Of a variadic operator with more inputs than a chain takes, one part: folds count registers; the last part also does
 * what the operator does in the end (Mean divides). */
uint8_t hk_pointwise_fold(hk_chain_build *b, const hk_node *n, const uint8_t *in, int32_t count, bool last);
void hk_chain_output(hk_chain_build *b, uint8_t reg, hk_dtype dtype);

/* The shape under which input i of n broadcasts: its own, or for opsets below 7 what `axis` makes of it. */
hk_shape hk_pointwise_aligned(const hk_node *n, int32_t i, const hk_shape *shape, const hk_shape *first);

/* n runs where its result, and the operands of the result's shape, lie in HK_LAYOUT_NHWC8, while the others are
 * contiguous and broadcast. */
bool hk_pointwise_takes_octets(const hk_node *n);

/* ---- running them */

/* in: tensors of the shapes given, which broadcast to shape; out: results, allocated by the caller. Where an input is
 * float64 although the program says float32, nothing is rounded to float32 on the way. */
void hk_chain_eval(const hk_chain *c, const hk_tensor *const *in, const hk_shape *in_shape, const hk_shape *shape,
                   hk_tensor *const *out);
/* float64 instead of float32 outputs, see above. */
hk_dtype hk_chain_out_dtype(const hk_chain *c, int32_t i, const hk_tensor *const *in);

typedef struct hk_chain_job {
    const hk_chain *chain;
    hk_value *in[CHAIN_INPUTS];
    hk_shape in_shape[CHAIN_INPUTS];
    hk_value *out[CHAIN_OUTPUTS]; /* of the shape below */
    hk_shape shape;
} hk_chain_job;
/* HK_STATUS_UNSUPPORTED for element types or layouts the device kernels do not know. */
hk_status hk_chain_lower(hk_lower *l, const hk_chain_job *job);

/* hk.Chain's attribute `program`, at most HK_CHAIN_WORDS long. */
#define HK_CHAIN_WORDS 128
int32_t hk_chain_encode(const hk_chain *c, int64_t words[HK_CHAIN_WORDS]);
bool hk_chain_decode(hk_ints words, hk_chain *c);

/* ---- rows of pointwise operators */

typedef struct hk_pointwise_attrs {
    float alpha, beta, gamma, min, max, bias, lambd;
    const char *approximate;
    const char *round_mode;
    const char *direction;
    int64_t fmod, to, saturate, axis, broadcast, detect_positive, detect_negative;
    hk_ints consumed_inputs; /* of opset 1, without meaning */
} hk_pointwise_attrs;

enum { HK_TAKES_FLOATS = 1, HK_TAKES_INTS = 2, HK_TAKES_BOOLS = 4, HK_TAKES_NUMBERS = 3, HK_TAKES_ALL = 7 };

typedef enum hk_type_rule {
    HK_TYPES_SAME,  /* all inputs and the output are of one type */
    HK_TYPES_TEST,  /* all inputs are of one type, the output is bool */
    HK_TYPES_WHERE, /* a bool, then two of the output's type */
    HK_TYPES_POW,   /* the second input may be any number, the output is of the first's type */
    HK_TYPES_CAST,  /* the output is of the type that `to` says */
    HK_TYPES_LIKE,  /* the output is of the second input's type, whose contents do not matter */
} hk_type_rule;

/* What the table of encodings knows of an operator besides the steps. */
typedef struct hk_pointwise_types {
    uint8_t takes; /* HK_TAKES_* */
    hk_type_rule rule;
} hk_pointwise_types;
hk_pointwise_types hk_pointwise_types_of(const hk_node *n);
/* Inputs whose elements the operator reads, and whose shapes broadcast. */
int32_t hk_pointwise_inputs(const hk_node *n);

/* Shared by every row. */
hk_status hk_pointwise_infer(hk_infer *in);
hk_status hk_pointwise_eval(hk_eval *e);
hk_status hk_pointwise_lower(hk_lower *l);

/* Rules that the rows of ops/pointwise.c name; they are in ops/pointwise_grad.c. */
/* clang-format off */
#define HK_POINTWISE_BACKWARDS(X)                                                                                      \
    X(relu)                                                                                                            \
    X(leaky_relu)                                                                                                      \
    X(sigmoid)                                                                                                         \
    X(tanh)                                                                                                            \
    X(exp)                                                                                                             \
    X(log) X(sqrt) X(reciprocal) X(neg) X(abs) X(zero) X(erf) X(sin) X(cos) X(softplus) X(hard_sigmoid) X(hard_swish)  \
        X(gelu) X(elu) X(selu) X(celu) X(mish) X(swish) X(add) X(sub) X(mul) X(div) X(pow) X(mod) X(extremum) X(where) \
            X(clip) X(cast) X(prelu) X(mean) X(tan) X(sinh) X(cosh) X(asinh) X(acosh) X(atanh) X(atan) X(asin) X(acos)      \
                X(softsign) X(thresholded_relu) X(shrink) X(through)
/* clang-format on */
#define HK_X(name) hk_status hk_##name##_backward(hk_gradient *g, hk_node *n);
HK_POINTWISE_BACKWARDS(HK_X)
#undef HK_X

#endif
