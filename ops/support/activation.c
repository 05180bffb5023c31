/*
 * The host's side of ops/activation.h: the oracle of fused activations, in double.
 */
#include "ops/activation.h"

#include <math.h>

bool hk_activation_valid(int64_t code)
{
    return code >= 0 && code < HK_ACT_COUNT;
}

const char *hk_activation_name(int64_t code)
{
    static const char *const names[] = {"none",      "relu", "leaky_relu", "sigmoid",     "tanh",     "gelu",
                                        "gelu_tanh", "silu", "clip",       "hardsigmoid", "hardswish"};
    _Static_assert(sizeof names / sizeof *names == HK_ACT_COUNT, "one name per code");
    return hk_activation_valid(code) ? names[code] : "?";
}

/* Comparisons are written so that NaN passes through, as PyTorch and ONNX Runtime let it. */
static double clip(double x, double low, double high)
{
    double y = x < low ? low : x;
    return y > high ? high : y;
}

double hk_activation_apply(int64_t code, double x, double a, double b)
{
    switch (code) {
    case HK_ACT_RELU: return x < 0.0 ? 0.0 : x;
    case HK_ACT_LEAKY_RELU: return x < 0.0 ? a * x : x;
    case HK_ACT_SIGMOID: return 1.0 / (1.0 + exp(-x));
    case HK_ACT_TANH: return tanh(x);
    case HK_ACT_GELU_ERF: /* erfc keeps the negative tail, where 1 + erf would cancel */
        return 0.5 * x * erfc(-x * 0.70710678118654752440);
    case HK_ACT_GELU_TANH: return 0.5 * x * (1.0 + tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x)));
    case HK_ACT_SILU: return x / (1.0 + exp(-x));
    case HK_ACT_CLIP: return clip(x, a, b);
    case HK_ACT_HARDSIGMOID: return clip(a * x + b, 0.0, 1.0);
    case HK_ACT_HARDSWISH: return x * clip(x / 6.0 + 0.5, 0.0, 1.0);
    default: return x;
    }
}
