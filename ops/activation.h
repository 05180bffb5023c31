/*
 * Activations that GEMM and convolution apply in their epilogue. Codes, formulas and parameters are shared with
 * shaders/activation.glsl, whose constants must have these numbers.
 */
#ifndef HK_ACTIVATION_H
#define HK_ACTIVATION_H

#include <stdbool.h>
#include <stdint.h>

/* name, code, formula of y in x with parameters a and b (ONNX's definitions and defaults) */
#define HK_ACT_MAP(X)                                                                                                  \
    X(NONE, 0, "x")                                                                                                    \
    X(RELU, 1, "max(x, 0)")                                                                                            \
    X(LEAKY_RELU, 2, "x < 0 ? a x : x")                                                                                \
    X(SIGMOID, 3, "1 / (1 + exp(-x))")                                                                                 \
    X(TANH, 4, "tanh(x)")                                                                                              \
    X(GELU_ERF, 5, "x/2 (1 + erf(x / sqrt 2))")                                                                        \
    X(GELU_TANH, 6, "x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))")                                                   \
    X(SILU, 7, "x / (1 + exp(-x))")                                                                                    \
    X(CLIP, 8, "min(max(x, a), b)")                                                                                    \
    X(HARDSIGMOID, 9, "min(max(a x + b, 0), 1)")                                                                       \
    X(HARDSWISH, 10, "x min(max(x/6 + 1/2, 0), 1)")

typedef enum hk_activation {
#define HK_X(name, code, formula) HK_ACT_##name = (code),
    HK_ACT_MAP(HK_X)
#undef HK_X
        HK_ACT_COUNT
} hk_activation;

/* True for a code of the table above: what `infer` of an op with an activation attribute checks. */
bool hk_activation_valid(int64_t code);
/* "relu"; static text, "?" for no code. For kernel variants in reports. */
const char *hk_activation_name(int64_t code);
/* y of one element in double; NaN stays NaN. Codes outside the table return x. */
double hk_activation_apply(int64_t code, double x, double a, double b);

#endif
