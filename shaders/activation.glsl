// Activations of GEMM and convolution epilogues, and the special functions behind them. Codes: ops/activation.h.
// All forms use exp alone: GLSL's own tanh may overflow for large arguments, GLSL has no erf, and exp is what both
// GPUs and lavapipe do fast. Comparisons are written so that NaN passes through.
#ifndef ACTIVATION_GLSL
#define ACTIVATION_GLSL

const uint ACT_NONE = 0;
const uint ACT_RELU = 1;
const uint ACT_LEAKY_RELU = 2;
const uint ACT_SIGMOID = 3;
const uint ACT_TANH = 4;
const uint ACT_GELU_ERF = 5;
const uint ACT_GELU_TANH = 6;
const uint ACT_SILU = 7;
const uint ACT_CLIP = 8;
const uint ACT_HARDSIGMOID = 9;
const uint ACT_HARDSWISH = 10;

// The error function in two minimax fits, which were made for this file (Lawson's iteration on Chebyshev nodes, double
// precision, weighted for relative error).
//
// |x| <= 1: erf(x) = x P(x^2), degree 6, relative error of the fit 1.2e-9, with float rounding 1.8e-7.
float erf_odd(float x)
{
    float s = x * x;
    float p = 7.853860734e-05;
    p = p * s - 8.010193706e-04;
    p = p * s + 5.188327748e-03;
    p = p * s - 2.685381286e-02;
    p = p * s + 1.128358543e-01;
    p = p * s - 3.761262596e-01;
    p = p * s + 1.128379107e+00;
    return x * p;
}

// t >= 0: erfc(t) = exp(-t^2) k Q(k), k = 1 / (1 + t/2), degree 8 on t <= 10, relative error of the fit 4.3e-8; with
// float rounding 4e-7 near 1 and 4e-6 at t = 9, where t^2 = 81 loses the digits. The product keeps its relative
// precision down to the smallest float, which 1 - erf(t) would not.
float erfc_tail(float t)
{
    float k = 1.0 / (1.0 + 0.5 * t);
    float q = -5.906896666e-02;
    q = q * k + 2.845749855e-01;
    q = q * k - 4.871999621e-01;
    q = q * k + 2.780672014e-01;
    q = q * k - 2.662569657e-02;
    q = q * k + 2.026868761e-01;
    q = q * k + 2.431037575e-01;
    q = q * k + 2.823753059e-01;
    q = q * k + 2.820864320e-01;
    return k * q * exp(-t * t);
}

float erf_precise(float x)
{
    float t = abs(x);
    float tail = 1.0 - erfc_tail(t);
    return t < 1.0 ? erf_odd(x) : (x < 0.0 ? -tail : tail);
}

// The standard normal distribution function, (1 + erf(x / sqrt 2)) / 2.
float normal_cdf(float x)
{
    float z = x * 0.7071067811865476;
    float t = abs(z);
    float tail = 0.5 * erfc_tail(t);
    return t < 1.0 ? 0.5 + 0.5 * erf_odd(z) : (z < 0.0 ? tail : 1.0 - tail);
}

float sigmoid(float x) { return 1.0 / (1.0 + exp(-x)); }

// Near 0 the exp form cancels, so an odd polynomial takes over (degree 5 in x^2 on |x| <= 0.6, error 2.5e-9).
float tanh_precise(float x)
{
    float t = abs(x);
    float s = x * x;
    float p = -5.852168426e-03;
    p = p * s + 2.075362764e-02;
    p = p * s - 5.376870558e-02;
    p = p * s + 1.333168894e-01;
    p = p * s - 3.333328366e-01;
    p = p * s + 1.0;
    float far = 1.0 - 2.0 / (1.0 + exp(2.0 * t));
    return t < 0.6 ? x * p : (x < 0.0 ? -far : far);
}

float clip(float x, float low, float high)
{
    float y = x < low ? low : x;
    return y > high ? high : y;
}

// code is a specialization constant in every caller, so the driver keeps one branch.
float activate(uint code, float x, float a, float b)
{
    switch (code) {
    case ACT_RELU:
        return x < 0.0 ? 0.0 : x;
    case ACT_LEAKY_RELU:
        return x < 0.0 ? a * x : x;
    case ACT_SIGMOID:
        return sigmoid(x);
    case ACT_TANH:
        return tanh_precise(x);
    case ACT_GELU_ERF:
        return x * normal_cdf(x);
    case ACT_GELU_TANH: // (1 + tanh(u)) / 2 is sigmoid(2u)
        return x * sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x));
    case ACT_SILU:
        return x * sigmoid(x);
    case ACT_CLIP:
        return clip(x, a, b);
    case ACT_HARDSIGMOID:
        return clip(a * x + b, 0.0, 1.0);
    case ACT_HARDSWISH:
        return x * clip(x / 6.0 + 0.5, 0.0, 1.0);
    default:
        return x;
    }
}

vec4 activate(uint code, vec4 x, float a, float b)
{
    return vec4(activate(code, x.x, a, b), activate(code, x.y, a, b), activate(code, x.z, a, b),
                activate(code, x.w, a, b));
}

#endif
