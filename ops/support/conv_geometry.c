/* Windows, padding and the sizes of a convolution. */
#include "ops/support/conv_geometry.h"

#include <stdio.h>
#include <string.h>

static bool fail(hk_problem_text *problem, const char *what, int64_t expected, int64_t found)
{
    snprintf(problem->text, sizeof problem->text, "%s: expected %lld, found %lld", what, (long long)expected,
             (long long)found);
    return false;
}

static bool complain(hk_problem_text *problem, const char *sentence)
{
    snprintf(problem->text, sizeof problem->text, "%s", sentence);
    return false;
}

/* What an absurd but well-formed attribute may not exceed, so that extents computed from it cannot overflow. */
#define WINDOW_MOST ((int64_t)1 << 31)

/* An attribute list with one entry per axis (or two, for pads) spread into the trailing axes. */
static bool spread(const hk_ints *list, int32_t spatial, const char *name, int64_t least, int64_t *out,
                   hk_problem_text *problem)
{
    if (!list->v)
        return true;
    if (list->count != spatial)
        return fail(problem, name, spatial, list->count);
    for (int32_t i = 0; i < spatial; i++) {
        if (list->v[i] < least || list->v[i] >= WINDOW_MOST)
            return complain(problem, "kernel_shape, strides and dilations: expected values from 1 to 2^31-1");
        out[HK_AXES - spatial + i] = list->v[i];
    }
    return true;
}

static bool spread_pads(const hk_ints *pads, hk_window *w, hk_problem_text *problem)
{
    if (!pads->v)
        return true;
    if (pads->count != 2 * w->spatial)
        return fail(problem, "number of pads", 2 * w->spatial, pads->count);
    for (int32_t i = 0; i < w->spatial; i++) {
        int32_t axis = HK_AXES - w->spatial + i;
        w->begin[axis] = pads->v[i];
        w->end[axis] = pads->v[w->spatial + i];
        if (w->begin[axis] < 0 || w->end[axis] < 0 || w->begin[axis] >= WINDOW_MOST || w->end[axis] >= WINDOW_MOST)
            return complain(problem, "pads: expected values from 0 to 2^31-1");
    }
    return true;
}

typedef enum pad_mode { PAD_NOTSET, PAD_SAME_UPPER, PAD_SAME_LOWER, PAD_VALID, PAD_UNKNOWN } pad_mode;

static pad_mode pad_mode_of(const char *text)
{
    static const char *const names[] = {"NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"};
    if (!text || !*text)
        return PAD_NOTSET;
    for (int i = 0; i < PAD_UNKNOWN; i++)
        if (!strcmp(text, names[i]))
            return (pad_mode)i;
    return PAD_UNKNOWN;
}

/* The padding and the output extent of one axis. */
static bool resolve_axis(hk_window *w, int32_t axis, pad_mode mode, bool ceil_mode, hk_problem_text *problem)
{
    int64_t in = w->in[axis], stride = w->stride[axis];
    w->out[axis] = -1;
    if (in < 0 || w->kernel[axis] < 0)
        return true;
    int64_t span = (w->kernel[axis] - 1) * w->dilation[axis] + 1;
    if (mode == PAD_SAME_UPPER || mode == PAD_SAME_LOWER) {
        int64_t out = (in + stride - 1) / stride;
        int64_t total = HK_MAX((out - 1) * stride + span - in, 0);
        w->begin[axis] = mode == PAD_SAME_UPPER ? total / 2 : total - total / 2;
        w->end[axis] = total - w->begin[axis];
        w->out[axis] = out;
        return true;
    }
    int64_t room = in + w->begin[axis] + w->end[axis] - span;
    if (room < 0)
        return fail(problem, "extent of the padded input, which must hold the window: at least", span, room + span);
    int64_t out = room / stride + 1;
    if (ceil_mode && room % stride && out * stride < in + w->begin[axis])
        out++;
    w->out[axis] = out;
    return true;
}

bool hk_window_resolve(const hk_window_attrs *a, const hk_shape *x, const int64_t *kernel, hk_window *w,
                       hk_problem_text *problem)
{
    int32_t spatial = x->rank - 2;
    if (spatial < 1 || spatial > HK_AXES)
        return complain(problem, "expected an input of rank 3 to 5 (batch, channels, 1 to 3 spatial axes)");
    *w = (hk_window){.spatial = spatial};
    for (int32_t axis = 0; axis < HK_AXES; axis++)
        w->in[axis] = w->kernel[axis] = w->stride[axis] = w->dilation[axis] = 1;
    for (int32_t i = 0; i < spatial; i++) {
        w->in[HK_AXES - spatial + i] = x->dim[2 + i];
        w->kernel[HK_AXES - spatial + i] = kernel[i];
        if (kernel[i] == 0 || kernel[i] >= WINDOW_MOST)
            return complain(problem, "kernel_shape: expected values from 1 to 2^31-1");
    }
    if (!spread(&a->strides, spatial, "number of strides", 1, w->stride, problem) ||
        !spread(&a->dilations, spatial, "number of dilations", 1, w->dilation, problem))
        return false;
    pad_mode mode = pad_mode_of(a->auto_pad);
    if (mode == PAD_UNKNOWN)
        return complain(problem, "auto_pad: expected NOTSET, SAME_UPPER, SAME_LOWER or VALID");
    if (mode == PAD_NOTSET && !spread_pads(&a->pads, w, problem))
        return false;
    for (int32_t axis = 0; axis < HK_AXES; axis++)
        if (!resolve_axis(w, axis, mode, a->ceil_mode != 0, problem))
            return false;
    return true;
}

int64_t hk_window_taps(const hk_window *w)
{
    return w->kernel[0] * w->kernel[1] * w->kernel[2];
}

bool hk_window_is_point(const hk_window *w)
{
    bool point = hk_window_taps(w) == 1;
    for (int axis = 0; axis < HK_AXES; axis++)
        point &= w->begin[axis] == 0 && (w->out[axis] - 1) * w->stride[axis] < w->in[axis];
    return point;
}

int64_t hk_window_in_count(const hk_window *w)
{
    return w->in[0] * w->in[1] * w->in[2];
}

int64_t hk_window_out_count(const hk_window *w)
{
    return w->out[0] * w->out[1] * w->out[2];
}

hk_shape hk_window_shape(const hk_window *w, int64_t batch, int64_t channels)
{
    hk_shape s = {.rank = 2 + w->spatial, .dim = {batch, channels}};
    for (int32_t i = 0; i < w->spatial; i++)
        s.dim[2 + i] = w->out[HK_AXES - w->spatial + i];
    return s;
}

bool hk_conv_resolve(const hk_conv_attrs *a, const hk_shape *x, const hk_shape *w, hk_conv *p, hk_problem_text *problem)
{
    if (x->rank != w->rank)
        return fail(problem, "rank of the weight, which must be the input's", x->rank, w->rank);
    if (a->group < 1)
        return fail(problem, "group: at least", 1, a->group);
    const hk_ints *stated = &a->window.kernel_shape;
    int64_t kernel[HK_MAX_RANK];
    for (int32_t i = 2; i < w->rank; i++) {
        kernel[i - 2] = w->dim[i];
        if (!stated->v || stated->count != w->rank - 2)
            continue;
        if (w->dim[i] >= 0 && w->dim[i] != stated->v[i - 2])
            return fail(problem, "kernel_shape, which must be the weight's", w->dim[i], stated->v[i - 2]);
        kernel[i - 2] = stated->v[i - 2];
    }
    if (stated->v && stated->count != w->rank - 2)
        return fail(problem, "number of entries in kernel_shape", w->rank - 2, stated->count);
    *p = (hk_conv){.n = x->dim[0], .c = x->dim[1], .k = w->dim[0], .groups = a->group};
    if (p->c >= 0 && w->dim[1] >= 0 && p->c != w->dim[1] * a->group)
        return fail(problem, "input channels, which must be the weight's second dimension times group",
                    w->dim[1] * a->group, p->c);
    if (p->c < 0 && w->dim[1] >= 0)
        p->c = w->dim[1] * a->group;
    if (p->c == 0 || p->k == 0)
        return complain(problem, "expected at least one input channel and one output channel");
    if (p->k >= 0 && p->k % a->group)
        return complain(problem, "expected a number of output channels that group divides");
    return hk_window_resolve(&a->window, x, kernel, &p->w, problem);
}

/* The input coordinates under one window are visited through three nested axes; this is one tap of them. */
static bool tap_position(const hk_window *w, const int64_t o[HK_AXES], const int64_t tap[HK_AXES], int64_t *index)
{
    *index = 0;
    for (int32_t axis = 0; axis < HK_AXES; axis++) {
        int64_t i = o[axis] * w->stride[axis] - w->begin[axis] + tap[axis] * w->dilation[axis];
        if (i < 0 || i >= w->in[axis])
            return false;
        *index = *index * w->in[axis] + i;
    }
    return true;
}

/* One output position against all channels: the loop that all three passes share. */
static void reference_position(const hk_conv *p, hk_conv_pass pass, double *x, double *w, double *y,
                               const int64_t o[HK_AXES])
{
    int64_t in = hk_window_in_count(&p->w), out = hk_window_out_count(&p->w), taps = hk_window_taps(&p->w);
    int64_t cg = p->c / p->groups, kg = p->k / p->groups;
    int64_t at = (o[0] * p->w.out[1] + o[1]) * p->w.out[2] + o[2];
    for (int64_t t = 0; t < taps; t++) {
        int64_t s = p->w.kernel[2], r = p->w.kernel[1], index;
        const int64_t tap[HK_AXES] = {t / (r * s), t / s % r, t % s};
        if (!tap_position(&p->w, o, tap, &index))
            continue;
        for (int64_t k = 0; k < p->k; k++) {
            for (int64_t c = 0; c < cg; c++) {
                double *xp = &x[(k / kg * cg + c) * in + index], *wp = &w[(k * cg + c) * taps + t],
                       *yp = &y[k * out + at];
                if (pass == HK_CONV_FORWARD)
                    *yp += *xp * *wp;
                else if (pass == HK_CONV_DATA)
                    *xp += *yp * *wp;
                else
                    *wp += *yp * *xp;
            }
        }
    }
}

void hk_conv_reference(const hk_conv *p, hk_conv_pass pass, double *x, double *w, double *y)
{
    int64_t in = hk_window_in_count(&p->w), out = hk_window_out_count(&p->w);
    for (int64_t n = 0; n < p->n; n++)
        for (int64_t z = 0; z < p->w.out[0]; z++)
            for (int64_t i = 0; i < p->w.out[1]; i++)
                for (int64_t j = 0; j < p->w.out[2]; j++)
                    reference_position(p, pass, x + n * p->c * in, w, y + n * p->k * out, (const int64_t[]){z, i, j});
}

double *hk_tensor_doubles(hk_arena *arena, const hk_tensor *t)
{
    int64_t count = hk_tensor_count(t);
    double *x = hk_arena_array(arena, (size_t)HK_MAX(count, 1), sizeof *x);
    for (int64_t i = 0; x && i < count; i++)
        x[i] = hk_get_double(t, i);
    return x;
}
