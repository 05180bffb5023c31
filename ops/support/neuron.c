/* One step of a spiking neuron on the host. */
#include "ops/support/neuron.h"

#include <math.h>
#include <string.h>

#define PI 3.14159265358979323846

/* A float32 sum, difference or product is the double one rounded: double has more than twice float's digits, so
 * rounding twice changes nothing. */
static double rounded(bool single, double x)
{
    return single ? (double)(float)x : x;
}

/* ---- surrogates */

static const struct surrogate_name {
    const char *name;
    double alpha;
    hk_surrogate_form form;
} surrogate_names[] = {
    {"ATan", 2, HK_SURROGATE_RATIONAL},          {"Sigmoid", 4, HK_SURROGATE_LOGISTIC},
    {"FastSigmoid", 2, HK_SURROGATE_HYPERBOLIC}, {"SoftSign", 2, HK_SURROGATE_HYPERBOLIC},
    {"SuperSpike", 1, HK_SURROGATE_HYPERBOLIC},  {"PiecewiseQuadratic", 1, HK_SURROGATE_TRIANGLE},
    {"Triangle", 1, HK_SURROGATE_TRIANGLE},      {"PiecewiseExp", 1, HK_SURROGATE_EXPONENTIAL},
    {"Erf", 2, HK_SURROGATE_GAUSSIAN},           {"Rect", 1, HK_SURROGATE_BOX},
};

/* The three with 1 / (1 + slope |x|)^2 differ in which of the two constants is alpha. */
static void set_hyperbolic(const char *name, double alpha, double *height, double *slope)
{
    *height = !strcmp(name, "FastSigmoid") ? 1 : !strcmp(name, "SoftSign") ? alpha / 2 : alpha;
    *slope = !strcmp(name, "SuperSpike") ? 1 : alpha;
}

bool hk_surrogate_set(const char *name, double alpha, hk_surrogate_form *form, double *height, double *slope)
{
    const struct surrogate_name *s = surrogate_names;
    const struct surrogate_name *end = s + HK_COUNT(surrogate_names);
    while (s < end && strcmp(s->name, name) != 0)
        s++;
    if (s == end)
        return false;
    double a = alpha == 0 ? s->alpha : alpha;
    *form = s->form;
    *height = a;
    *slope = a;
    switch (s->form) {
    case HK_SURROGATE_RATIONAL:
        *height = a / 2;
        *slope = PI / 2 * a;
        break;
    case HK_SURROGATE_LOGISTIC: break;
    case HK_SURROGATE_HYPERBOLIC: set_hyperbolic(name, a, height, slope); break;
    case HK_SURROGATE_TRIANGLE: *slope = a * a; break;
    case HK_SURROGATE_EXPONENTIAL: *height = a / 2; break;
    case HK_SURROGATE_GAUSSIAN: *height = a / sqrt(PI); break;
    case HK_SURROGATE_BOX: *slope = 1 / (2 * a); break;
    }
    return true;
}

double hk_surrogate_gradient(const hk_neuron_rule *r, double x)
{
    double y = r->slope * x, away = fabs(y);
    switch (r->form) {
    case HK_SURROGATE_RATIONAL: return r->height / (1 + y * y);
    case HK_SURROGATE_LOGISTIC: {
        double e = exp(-away);
        return r->height * e / ((1 + e) * (1 + e));
    }
    case HK_SURROGATE_HYPERBOLIC: return r->height / ((1 + away) * (1 + away));
    case HK_SURROGATE_TRIANGLE: return away < r->height ? r->height - away : 0;
    case HK_SURROGATE_EXPONENTIAL: return r->height * exp(-away);
    case HK_SURROGATE_GAUSSIAN: return r->height * exp(-y * y);
    case HK_SURROGATE_BOX: return fabs(x) < r->slope ? r->height : 0;
    }
    return 0;
}

/* ---- attributes */

static hk_neuron_kind find_kind(const char *name)
{
    static const char *const names[] = {"IF", "LIF", "ParametricLIF"};
    int i = 0;
    while (i < HK_NEURON_KIND_COUNT && strcmp(names[i], name) != 0)
        i++;
    return (hk_neuron_kind)i;
}

static bool is_flag(int64_t x)
{
    return x == 0 || x == 1;
}

static const char *check_numbers(hk_arena *arena, const hk_neuron_attrs *a)
{
    if (a->steps < 0)
        return hk_arena_format(
            arena, "attribute 'steps' is %lld, expected the length of the time axis, or 0 for one step without it",
            (long long)a->steps);
    if (find_kind(a->kind) == HK_NEURON_LIF && !(a->tau > 1 && isfinite(a->tau)))
        return hk_arena_format(
            arena,
            "attribute 'tau' is %g, expected a finite number above 1: a step keeps the share 1 - 1/tau of the "
            "potential (kind \"IF\" keeps all of it)",
            (double)a->tau);
    if (!is_flag(a->decay_input) || !is_flag(a->detach_reset))
        return hk_arena_format(arena, "attribute '%s' is %lld, expected 0 or 1",
                               is_flag(a->decay_input) ? "detach_reset" : "decay_input",
                               (long long)(is_flag(a->decay_input) ? a->detach_reset : a->decay_input));
    if (!isfinite(a->v_threshold) || !isfinite(a->v_reset))
        return hk_arena_format(arena, "attribute '%s' is %g, expected a finite number",
                               isfinite(a->v_threshold) ? "v_reset" : "v_threshold",
                               (double)(isfinite(a->v_threshold) ? a->v_reset : a->v_threshold));
    if (!(a->alpha >= 0 && isfinite(a->alpha)))
        return hk_arena_format(
            arena, "attribute 'alpha' is %g, expected a finite number above 0, or 0 for the surrogate's default",
            (double)a->alpha);
    return NULL;
}

const char *hk_neuron_check(hk_arena *arena, const hk_neuron_attrs *a)
{
    hk_neuron_rule r;
    if (find_kind(a->kind) == HK_NEURON_KIND_COUNT)
        return hk_arena_format(arena, "attribute 'kind' is \"%s\", expected \"IF\", \"LIF\" or \"ParametricLIF\"",
                               a->kind);
    if (strcmp(a->reset, "hard") != 0 && strcmp(a->reset, "soft") != 0)
        return hk_arena_format(arena, "attribute 'reset' is \"%s\", expected \"hard\" or \"soft\"", a->reset);
    if (!hk_surrogate_set(a->surrogate, 0, &r.form, &r.height, &r.slope))
        return hk_arena_format(
            arena,
            "attribute 'surrogate' is \"%s\", expected ATan, Sigmoid, FastSigmoid, SoftSign, SuperSpike, "
            "PiecewiseQuadratic (or Triangle), PiecewiseExp, Erf or Rect",
            a->surrogate);
    return check_numbers(arena, a);
}

hk_neuron_rule hk_neuron_rule_of(const hk_neuron_attrs *a, bool single)
{
    hk_neuron_rule r = {.kind = find_kind(a->kind),
                        .decay_input = a->decay_input != 0,
                        .soft = !strcmp(a->reset, "soft"),
                        .detach_reset = a->detach_reset != 0,
                        .single = single};
    r.rate = r.kind == HK_NEURON_LIF ? rounded(single, 1 / (double)a->tau) : 0;
    r.rest = r.soft ? 0 : (double)a->v_reset;
    hk_surrogate_set(a->surrogate, (double)a->alpha, &r.form, &r.height, &r.slope);
    return r;
}

/* ---- the step */

/* The formula of shaders/neuron.glsl, learned_rate: exp(-|w|) by the split of |w| into n ln 2 + f and a polynomial in f
 * (Cephes, expf), then 1 / (1 + e) by Newton's iteration from the line through the reciprocal. Every constant and every
 * product is a float32. */
static float rate_single(float w)
{
    static const float terms[] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                                  4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
    float away = fminf(fabsf(w), 80.0f); /* beyond, the exponent leaves float32 */
    float n = floorf(away * 1.44269504f + 0.5f);
    float f = n * 0.693359375f - away;
    f = f - n * 2.12194440e-4f;
    float p = terms[0];
    for (size_t i = 1; i < HK_COUNT(terms); i++)
        p = p * f + terms[i];
    uint32_t bits = (uint32_t)(127 - (int)n) << 23;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    float square = f * f;
    float e = ((p * square + f) + 1.0f) * scale;
    float d = 1.0f + e;
    float y = 1.41176471f - 0.470588235f * d;
    for (int i = 0; i < 4; i++)
        y = y + y * (1.0f - d * y);
    return w < 0 ? e * y : y;
}

double hk_neuron_rate(double w, bool single)
{
    if (isnan(w))
        return w;
    return single ? (double)rate_single((float)w) : 1 / (1 + exp(-w));
}

double hk_neuron_charge(const hk_neuron_rule *r, double v, double x)
{
    bool s = r->single;
    if (r->kind == HK_NEURON_IF)
        return rounded(s, v + x);
    double gap = rounded(s, v - r->rest);
    if (r->decay_input)
        return rounded(s, v + rounded(s, rounded(s, x - gap) * r->rate));
    return rounded(s, rounded(s, v - rounded(s, gap * r->rate)) + x);
}

double hk_neuron_reset(const hk_neuron_rule *r, double h, double theta)
{
    if (!(h >= theta))
        return h;
    return r->soft ? rounded(r->single, h - theta) : r->rest;
}

bool hk_neuron_step(const hk_neuron_rule *r, double x, double theta, double *v)
{
    double h = hk_neuron_charge(r, *v, x);
    *v = hk_neuron_reset(r, h, theta);
    return h >= theta;
}
