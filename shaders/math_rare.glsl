// Elementary functions that few networks have; see math.glsl for the rules. Errors are the fits', relative.
#ifndef MATH_RARE_GLSL
#define MATH_RARE_GLSL

// sinh and cosh with e = exp(|x|), above 80 exp(|x| / 2). Near 0 the series, 2.2e-8 at 1.
float sinh_from(float x, float e)
{
    float s = x * x;
    float p = 2.755731922e-06;
    p = p * s + 1.984126984e-04;
    p = p * s + 8.333333333e-03;
    p = p * s + 1.666666667e-01;
    float near = x + x * s * p;
    float far = abs(x) > 80.0 ? (0.5 * e) * e : 0.5 * (e - 1.0 / e);
    return abs(x) < 1.0 ? near : (x < 0.0 ? -far : far);
}

float cosh_from(float x, float e) { return abs(x) > 80.0 ? (0.5 * e) * e : 0.5 * (e + 1.0 / e); }

// |x| <= tan(pi/8): x + x^3 P(x^2), 3e-9; beyond, what atan of a quotient adds to pi/4 or pi/2.
float atan_precise(float x)
{
    float m = abs(x);
    bool far = m > 2.41421356, middle = m > 0.414213562;
    float t = far ? -1.0 / m : (middle ? (m - 1.0) / (m + 1.0) : m);
    float base = far ? 1.57079633 : (middle ? 0.785398163 : 0.0);
    float rest = far ? -4.37113883e-08 : (middle ? -2.18556941e-08 : 0.0); // what base lost
    float s = t * t;
    float p = -6.078221276e-02;
    p = p * s + 1.059381366e-01;
    p = p * s - 1.424353272e-01;
    p = p * s + 1.999847144e-01;
    p = p * s - 3.333331645e-01;
    float y = base + (rest + (t + t * s * p));
    return is_nan(x) ? x : (x < 0.0 ? -y : (x == 0.0 ? x : y));
}

// |x| <= 1/2: x + x^3 P(x^2), 1.1e-9.
float asin_near(float x)
{
    float s = x * x;
    float p = 3.751647845e-02;
    p = p * s + 1.443858631e-02;
    p = p * s + 3.180772439e-02;
    p = p * s + 4.451695457e-02;
    p = p * s + 7.500503957e-02;
    p = p * s + 1.666665971e-01;
    return x + x * s * p;
}

// Of |x| > 1/2: acos(|x|) = 2 asin(sqrt((1 - |x|) / 2)), NaN beyond 1.
float acos_far(float m)
{
    float y = 2.0 * asin_near(sqrt(max(0.5 * (1.0 - m), 0.0)));
    return m <= 1.0 ? y : uintBitsToFloat(0x7fc00000u);
}

float asin_precise(float x)
{
    float m = abs(x);
    float far = 1.57079633 - (acos_far(m) + 4.37113883e-08);
    return m <= 0.5 ? asin_near(x) : (x < 0.0 ? -far : far);
}

float acos_precise(float x)
{
    float far = acos_far(abs(x));
    float near = 1.57079633 - (asin_near(x) + 4.37113883e-08);
    return abs(x) <= 0.5 ? near : (x < 0.0 ? 3.14159265 - (far + 8.74227766e-08) : far);
}

#endif
