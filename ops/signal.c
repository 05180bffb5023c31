/*
 * Spectra: DFT and STFT as matrix products (ops/support/dft.h), windows and the mel filter bank, which are constants
 * once their sizes are known.
 */
#include <math.h>
#include <string.h>

#include "ops/op.h"
#include "ops/support/build.h"
#include "ops/support/dft.h"

typedef struct signal_attrs {
    int64_t axis, inverse, onesided, periodic, output_datatype;
} signal_attrs;

static const hk_attr dft_17_list[] = {HK_INT_ATTR(signal_attrs, axis, 1),
                                      HK_INT_ATTR(signal_attrs, inverse, 0),
                                      HK_INT_ATTR(signal_attrs, onesided, 0),
                                      {0}};
static const hk_attr dft_list[] = {HK_INT_ATTR(signal_attrs, inverse, 0), HK_INT_ATTR(signal_attrs, onesided, 0), {0}};
static const hk_attr stft_list[] = {HK_INT_ATTR(signal_attrs, onesided, 1), {0}};
static const hk_attr window_list[] = {
    HK_INT_ATTR(signal_attrs, output_datatype, 1), HK_INT_ATTR(signal_attrs, periodic, 1), {0}};
static const hk_attr mel_list[] = {HK_INT_ATTR(signal_attrs, output_datatype, 1), {0}};

enum { TABLE = 1 << 24 }; /* elements of what is made on the host, at most */

static const signal_attrs *attrs_of(const hk_node *n)
{
    return n->attrs;
}

/* An input of one element, known on the host; otherwise the default. */
static int64_t known_int(const hk_node *n, int32_t i, int64_t otherwise)
{
    const hk_tensor *t = hk_known(n, i);
    return t && hk_tensor_count(t) == 1 ? hk_get_int(t, 0) : otherwise;
}

static double *doubles_of(hk_arena *arena, const hk_tensor *t)
{
    int64_t count = hk_tensor_count(t);
    double *x = hk_arena_array(arena, (size_t)count + 1, sizeof *x);
    for (int64_t i = 0; x && i < count; i++)
        x[i] = hk_get_double(t, i);
    return x;
}

/* ---- DFT */

enum { DFT_X, DFT_LENGTH, DFT_AXIS };

/* -1: outside, or not known yet. The last axis holds the parts of a number. */
static int32_t dft_axis(const hk_node *n)
{
    int32_t rank = n->in[DFT_X]->shape.rank;
    int64_t axis = n->opset < 20 ? attrs_of(n)->axis : known_int(n, DFT_AXIS, -2);
    int32_t found = rank < 2 ? -1 : hk_axis(axis, rank);
    return found == rank - 1 ? -1 : found;
}

/* From one side back to a real signal: the real part of the inverse of both sides, with zeros for the other side and
 * twice what stands for two elements. */
static bool is_real_inverse(const hk_node *n)
{
    return attrs_of(n)->inverse && attrs_of(n)->onesided;
}

static double side_weight(int64_t k, int64_t length)
{
    return 2 * k > length ? 0 : k == 0 || 2 * k == length ? 1 : 2;
}

/* Where no length is given; -1: not known yet. */
static int64_t default_length(const hk_node *n, int64_t extent)
{
    return extent >= 0 && is_real_inverse(n) ? 2 * (extent - 1) : extent;
}

/* Results along the axis. */
static int64_t dft_results(const hk_node *n, int64_t length)
{
    return length >= 0 && attrs_of(n)->onesided && !attrs_of(n)->inverse ? length / 2 + 1 : length;
}

static hk_status check_parts(hk_infer *in, const hk_value *x, bool may_lack)
{
    const hk_shape *s = &x->shape;
    if (x->dtype != HK_FLOAT32 && x->dtype != HK_FLOAT64 && !hk_dtype_is_half(x->dtype))
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected floats, found %s", hk_dtype_name(x->dtype));
    hk_shape_text text;
    int64_t last = s->rank > 1 ? s->dim[s->rank - 1] : 1;
    if (s->rank >= 0 && (s->rank < 2 || last > 2 || last == 0) && !may_lack)
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected a last dimension of 1 (real) or 2 (complex), found %s",
                             hk_shape_print(s, &text));
    return HK_OK;
}

static hk_status dft_infer(hk_infer *in)
{
    const hk_node *n = in->node;
    const hk_value *x = n->in[DFT_X];
    HK_TRY(check_parts(in, x, false));
    bool known = (!hk_in(n, DFT_LENGTH) || hk_known(n, DFT_LENGTH)) && (!hk_in(n, DFT_AXIS) || hk_known(n, DFT_AXIS));
    if (x->shape.rank < 0 || !known)
        return hk_infer_output(in, 0, x->dtype, &HK_SHAPE_UNKNOWN);
    int32_t axis = dft_axis(n);
    if (axis < 0)
        return hk_infer_fail(in, HK_STATUS_INVALID, "its axis is outside of the signal's %d dimensions",
                             (int)x->shape.rank - 1);
    hk_shape y = x->shape;
    if (is_real_inverse(n) && y.dim[y.rank - 1] == 1)
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected complex numbers to invert one side of, found real ones");
    y.dim[y.rank - 1] = is_real_inverse(n) ? 1 : 2;
    int64_t length = known_int(n, DFT_LENGTH, default_length(n, y.dim[axis]));
    if (length < 1 && x->shape.dim[axis] >= 0)
        return hk_infer_fail(in, HK_STATUS_INVALID, "its length is %lld, expected 1 or more", (long long)length);
    y.dim[axis] = dft_results(n, length);
    return hk_infer_output(in, 0, x->dtype, &y);
}

/* One axis of x, zero behind its end, transformed into y. */
static void transform_axis(const hk_tensor *x, const hk_shape *ys, int32_t axis, const hk_dft *d, const double *from,
                           double *row, double *line, hk_tensor *y)
{
    hk_shape xs = hk_tensor_shape(x);
    int parts = (int)xs.dim[xs.rank - 1], made = (int)ys->dim[xs.rank - 1];
    int64_t outer = hk_shape_span(&xs, 0, axis), inner = hk_shape_span(&xs, axis + 1, xs.rank - 1);
    int64_t have = HK_MIN(xs.dim[axis], d->length), results = ys->dim[axis];
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < inner; i++) {
            memset(row, 0, (size_t)(d->length * parts) * sizeof *row);
            for (int64_t j = 0; j < have; j++)
                for (int p = 0; p < parts; p++)
                    row[j * parts + p] = from[((o * xs.dim[axis] + j) * inner + i) * parts + p];
            hk_dft_reference(d, row, parts, line);
            for (int64_t k = 0; k < results; k++)
                for (int p = 0; p < made; p++)
                    hk_set_double(y, ((o * results + k) * inner + i) * made + p, line[2 * k + p]);
        }
}

static hk_status dft_eval(hk_eval *e)
{
    const hk_node *n = e->node;
    const hk_tensor *x = e->in[DFT_X];
    hk_shape ys = hk_tensor_shape(x);
    const hk_tensor *l = n->in_count > DFT_LENGTH ? e->in[DFT_LENGTH] : NULL,
                    *a = n->in_count > DFT_AXIS ? e->in[DFT_AXIS] : NULL;
    int32_t axis = hk_axis(n->opset < 20 ? attrs_of(n)->axis : a ? hk_get_int(a, 0) : -2, ys.rank);
    if (axis < 0 || axis >= ys.rank - 1) /* an axis that only the run knows has not been checked yet */
        return hk_eval_fail(e, HK_STATUS_INVALID, "its axis is outside of the signal's %d dimensions",
                            (int)ys.rank - 1);
    bool real = is_real_inverse(n);
    hk_dft d = {l ? hk_get_int(l, 0) : default_length(n, ys.dim[axis]), attrs_of(n)->inverse != 0,
                attrs_of(n)->onesided && !real};
    int64_t extent = ys.dim[axis], inside = hk_shape_span(&ys, axis + 1, ys.rank);
    if (real && ys.dim[ys.rank - 1] != 2)
        return hk_eval_fail(e, HK_STATUS_INVALID, "expected complex numbers to invert one side of");
    if (d.length < 1 || d.length > TABLE)
        return hk_eval_fail(e, HK_STATUS_INVALID, "its length is %lld, expected 1 to %d", (long long)d.length, TABLE);
    ys.dim[axis] = dft_results(n, d.length);
    ys.dim[ys.rank - 1] = real ? 1 : 2;
    hk_tensor *y = hk_eval_output(e, 0, x->dtype, &ys);
    double *from = doubles_of(e->arena, x), *row = hk_arena_array(e->arena, (size_t)d.length * 2 + 1, sizeof *row),
           *line = hk_arena_array(e->arena, (size_t)d.length * 2 + 2, sizeof *line);
    if (!y || !from || !row || !line)
        return hk_out_of_memory(e->ctx, "a Fourier transform");
    for (int64_t i = 0; real && i < hk_tensor_count(x); i++)
        from[i] *= side_weight(i / inside % extent, d.length);
    transform_axis(x, &ys, axis, &d, from, row, line, y);
    return HK_OK;
}

/* x [outer, length, parts] of float32, then the transform, then x's type. */
static hk_status build_spectrum(hk_graph *g, hk_value *x, const hk_dft *d, hk_value **out)
{
    hk_dtype t = x->dtype;
    if (t != HK_FLOAT32)
        HK_TRY(hk_build_cast(g, x, HK_FLOAT32, &x));
    HK_TRY(hk_build_dft(g, x, d, out));
    return t == HK_FLOAT32 ? HK_OK : hk_build_cast(g, *out, t, out);
}

/* x [outer, length, 2] → [outer, length, 1] */
static hk_status build_real_inverse(hk_graph *g, hk_value *x, int64_t length, hk_value **out)
{
    const int64_t last[6] = {0, 0, 0, 0, 0, -1};
    hk_tensor *weights = hk_tensor_new(g->arena, x->dtype, &(hk_shape){.rank = 2, .dim = {length, 1}});
    for (int64_t k = 0; weights && k < length; k++)
        hk_set_double(weights, k, side_weight(k, length));
    hk_value *w = weights ? hk_graph_constant(g, NULL, weights) : NULL;
    if (!w)
        return hk_out_of_memory(g->ctx, "a Fourier transform");
    HK_TRY(hk_build_binary(g, "Mul", x, w, &x));
    HK_TRY(build_spectrum(g, x, &(hk_dft){length, true, false}, &x));
    return hk_build_pad(g, x, last, out);
}

static hk_status dft_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    hk_value *x = n->in[DFT_X];
    int32_t axis = dft_axis(n), rank = x->shape.rank;
    hk_shape y = n->out[0]->shape;
    hk_dft d = {known_int(n, DFT_LENGTH, default_length(n, x->shape.dim[axis])), attrs_of(n)->inverse != 0,
                attrs_of(n)->onesided != 0};
    int64_t pads[2 * HK_MAX_RANK] = {0}, perm[HK_MAX_RANK];
    pads[rank + axis] = d.length - x->shape.dim[axis];
    if (pads[rank + axis] != 0)
        HK_TRY(hk_build_pad(g, x, pads, &x));
    for (int32_t i = 0; i < rank; i++) /* the axis changes places with the last but one: its own inverse */
        perm[i] = i == axis ? rank - 2 : i == rank - 2 ? axis : i;
    HK_TRY(hk_build_transpose(g, x, perm, rank, &x));
    hk_shape moved = x->shape,
             flat = {.rank = 3, .dim = {hk_shape_span(&moved, 0, rank - 2), d.length, moved.dim[rank - 1]}};
    HK_TRY(hk_build_reshape(g, x, &flat, &x));
    HK_TRY(is_real_inverse(n) ? build_real_inverse(g, x, d.length, &x) : build_spectrum(g, x, &d, &x));
    moved.dim[rank - 2] = y.dim[axis];
    moved.dim[rank - 1] = y.dim[rank - 1];
    HK_TRY(hk_build_reshape(g, x, &moved, &x));
    return hk_build_transpose(g, x, perm, rank, out);
}

/* ---- STFT: signal [batch, length, parts], frames of it times a window */

enum { STFT_SIGNAL, STFT_STEP, STFT_WINDOW, STFT_LENGTH };

/* 0: not known yet. */
static int64_t frame_length(const hk_node *n)
{
    const hk_value *w = hk_in(n, STFT_WINDOW);
    if (hk_in(n, STFT_LENGTH))
        return known_int(n, STFT_LENGTH, 0);
    return w && w->shape.rank == 1 && w->shape.dim[0] > 0 ? w->shape.dim[0] : 0;
}

static hk_status stft_infer(hk_infer *in)
{
    const hk_node *n = in->node;
    const hk_value *x = n->in[STFT_SIGNAL], *w = hk_in(n, STFT_WINDOW);
    HK_TRY(check_parts(in, x, true));
    int64_t step = known_int(n, STFT_STEP, 0), length = frame_length(n);
    if (!w && !hk_in(n, STFT_LENGTH))
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected a window or a frame length, found neither");
    if ((hk_known(n, STFT_STEP) && step < 1) || (hk_known(n, STFT_LENGTH) && length < 1))
        return hk_infer_fail(in, HK_STATUS_INVALID, "frames of %lld elements, %lld apart, expected 1 or more",
                             (long long)length, (long long)step);
    if (x->shape.rank < 0 || !step || !length)
        return hk_infer_output(in, 0, x->dtype, &HK_SHAPE_UNKNOWN);
    int64_t have = x->shape.rank > 1 ? x->shape.dim[1] : 0;
    if (x->shape.rank < 2 || x->shape.rank > 3 || step < 1 || length < 1 || (have >= 0 && have < length) ||
        (w && w->shape.rank == 1 && w->shape.dim[0] >= 0 && w->shape.dim[0] != length))
        return hk_infer_fail(
            in, HK_STATUS_INVALID,
            "expected a signal [batch, length, 1 or 2] that is no shorter than a frame of %lld, and a window "
            "as long as the frame",
            (long long)length);
    hk_shape y = {.rank = 4,
                  .dim = {x->shape.dim[0], have < 0 ? -1 : (have - length) / step + 1,
                          attrs_of(n)->onesided ? length / 2 + 1 : length, 2}};
    return hk_infer_output(in, 0, x->dtype, &y);
}

static hk_status stft_eval(hk_eval *e)
{
    const hk_node *n = e->node;
    const hk_tensor *x = e->in[STFT_SIGNAL], *w = n->in_count > STFT_WINDOW ? e->in[STFT_WINDOW] : NULL,
                    *l = n->in_count > STFT_LENGTH ? e->in[STFT_LENGTH] : NULL;
    int64_t step = hk_get_int(e->in[STFT_STEP], 0);
    hk_dft d = {l ? hk_get_int(l, 0) : w->shape[0], false, attrs_of(n)->onesided != 0};
    int parts = x->rank > 2 ? (int)x->shape[2] : 1;
    if (step < 1 || d.length < 1 || d.length > x->shape[1] || (w && hk_tensor_count(w) != d.length))
        return hk_eval_fail(e, HK_STATUS_INVALID,
                            "frames of %lld elements, %lld apart, do not fit a signal of %lld and its window",
                            (long long)d.length, (long long)step, (long long)x->shape[1]);
    int64_t frames = (x->shape[1] - d.length) / step + 1, results = d.onesided ? d.length / 2 + 1 : d.length;
    hk_shape ys = {.rank = 4, .dim = {x->shape[0], frames, results, 2}};
    hk_tensor *y = hk_eval_output(e, 0, x->dtype, &ys);
    double *row = hk_arena_array(e->arena, (size_t)d.length * 2 + 1, sizeof *row),
           *line = hk_arena_array(e->arena, (size_t)d.length * 2 + 2, sizeof *line);
    if (!y || !row || !line)
        return hk_out_of_memory(e->ctx, "a Fourier transform");
    for (int64_t f = 0; f < x->shape[0] * frames; f++) {
        for (int64_t j = 0; j < d.length * parts; j++)
            row[j] = hk_get_double(x, (f / frames * x->shape[1] + f % frames * step) * parts + j) *
                     (w ? hk_get_double(w, j / parts) : 1.0);
        hk_dft_reference(&d, row, parts, line);
        for (int64_t k = 0; k < 2 * results; k++)
            hk_set_double(y, f * 2 * results + k, line[k]);
    }
    return HK_OK;
}

static hk_status stft_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    hk_value *x = n->in[STFT_SIGNAL], *w = hk_in(n, STFT_WINDOW), *index = NULL;
    hk_shape y = n->out[0]->shape;
    int64_t step = known_int(n, STFT_STEP, 1), length = frame_length(n), frames = y.dim[1];
    int64_t parts = x->shape.rank > 2 ? x->shape.dim[2] : 1, batch = x->shape.dim[0];
    hk_shape grid = {.rank = 2, .dim = {frames, length}};
    if (frames > 0 && length > TABLE / frames)
        return hk_fail(g->ctx, HK_STATUS_UNSUPPORTED, "node '%s' (STFT): %lld frames of %lld are more than %d elements",
                       n->name, (long long)frames, (long long)length, TABLE);
    hk_tensor *at = hk_tensor_new(g->arena, HK_INT32, &grid);
    for (int64_t i = 0; at && i < frames * length; i++)
        hk_set_int(at, i, i / length * step + i % length);
    index = at ? hk_graph_constant(g, NULL, at) : NULL;
    if (!index)
        return hk_out_of_memory(g->ctx, "a Fourier transform");
    const hk_attr_value attrs[] = {HK_SET_INT("axis", 1), {0}};
    HK_TRY(hk_build(g, "Gather", attrs, (hk_value *[]){x, index}, 2, &x, 1));
    if (w) {
        HK_TRY(hk_build_reshape(g, x, &(hk_shape){.rank = 4, .dim = {batch, frames, length, parts}}, &x));
        HK_TRY(hk_build_reshape(g, w, &(hk_shape){.rank = 2, .dim = {length, 1}}, &w));
        HK_TRY(hk_build_binary(g, "Mul", x, w, &x));
    }
    HK_TRY(hk_build_reshape(g, x, &(hk_shape){.rank = 3, .dim = {batch * frames, length, parts}}, &x));
    HK_TRY(build_spectrum(g, x, &(hk_dft){length, false, attrs_of(n)->onesided != 0}, &x));
    return hk_build_reshape(g, x, &y, out);
}

/* ---- constants */

/* What eval makes of inputs that are known: no node is left. */
static hk_status constant_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    const hk_tensor *in[8];
    hk_tensor *made = NULL;
    for (int32_t i = 0; i < n->in_count; i++)
        in[i] = n->in[i]->data;
    HK_TRY(hk_node_eval(g->ctx, g->arena, n, in, &made, NULL));
    *out = hk_graph_constant(g, NULL, made);
    return *out ? HK_OK : HK_STATUS_OUT_OF_MEMORY;
}

static hk_status window_infer(hk_infer *in)
{
    const hk_node *n = in->node;
    hk_shape y = {.rank = 1, .dim = {known_int(n, 0, -1)}};
    if (hk_known(n, 0) && (y.dim[0] < 0 || y.dim[0] > TABLE))
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected a size up to %d, found %lld", TABLE, (long long)y.dim[0]);
    return hk_infer_output(in, 0, (hk_dtype)attrs_of(n)->output_datatype, &y);
}

/* Cosines with these amplitudes, the first constant. */
static hk_status window_eval(hk_eval *e, double a0, double a1, double a2)
{
    int64_t size = hk_get_int(e->in[0], 0);
    hk_shape shape = {.rank = 1, .dim = {size}};
    if (size < 0 || size > TABLE)
        return hk_eval_fail(e, HK_STATUS_INVALID, "its size is %lld, expected 0 to %d", (long long)size, TABLE);
    hk_tensor *y = hk_eval_output(e, 0, e->node->out[0]->dtype, &shape);
    double period = (double)HK_MAX(attrs_of(e->node)->periodic ? size : size - 1, 1);
    if (!y)
        return hk_out_of_memory(e->ctx, "a window");
    for (int64_t i = 0; i < size; i++) {
        double angle = 6.28318530717958647692 * (double)i / period;
        hk_set_double(y, i, a0 - a1 * cos(angle) + a2 * cos(2 * angle));
    }
    return HK_OK;
}

static hk_status hann_eval(hk_eval *e)
{
    return window_eval(e, 0.5, 0.5, 0);
}

static hk_status hamming_eval(hk_eval *e)
{
    return window_eval(e, 25.0 / 46, 21.0 / 46, 0);
}

static hk_status blackman_eval(hk_eval *e)
{
    return window_eval(e, 0.42, 0.5, 0.08);
}

/* MelWeightMatrix: triangles between neighbouring mel frequencies, rows are the bins of a one-sided spectrum. */

enum { MEL_BINS, MEL_LENGTH, MEL_RATE, MEL_LOW, MEL_HIGH };

static hk_status mel_infer(hk_infer *in)
{
    const hk_node *n = in->node;
    int64_t bins = known_int(n, MEL_BINS, -1), length = known_int(n, MEL_LENGTH, -1);
    hk_shape y = {.rank = 2, .dim = {length < 0 ? -1 : length / 2 + 1, bins}};
    bool known = hk_known(n, MEL_BINS) && hk_known(n, MEL_LENGTH);
    if (known && (bins < 0 || length < 0 || (hk_known(n, MEL_RATE) && known_int(n, MEL_RATE, 0) <= 0)))
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected numbers of bins, length and a sample rate above 0");
    if (known && bins > 0 && y.dim[0] > TABLE / bins)
        return hk_infer_fail(in, HK_STATUS_UNSUPPORTED, "its matrix has more than %d elements", TABLE);
    return hk_infer_output(in, 0, (hk_dtype)attrs_of(n)->output_datatype, &y);
}

static int64_t mel_point(hk_eval *e, int64_t k)
{
    int64_t bins = hk_get_int(e->in[MEL_BINS], 0), length = hk_get_int(e->in[MEL_LENGTH], 0);
    double low = 2595 * log10(1 + hk_get_double(e->in[MEL_LOW], 0) / 700),
           high = 2595 * log10(1 + hk_get_double(e->in[MEL_HIGH], 0) / 700);
    double mel = (double)k * (high - low) / (double)(bins + 2) + low;
    double hertz = 700 * (pow(10, mel / 2595) - 1);
    double at = floor((double)(length + 1) * hertz / hk_get_double(e->in[MEL_RATE], 0));
    return (int64_t)(!(at > 0) ? 0 : at > (double)(length / 2) ? (double)(length / 2) : at); /* NaN gives 0 */
}

static hk_status mel_eval(hk_eval *e)
{
    int64_t bins = hk_get_int(e->in[MEL_BINS], 0), rows = hk_get_int(e->in[MEL_LENGTH], 0) / 2 + 1;
    hk_shape shape = {.rank = 2, .dim = {rows, bins}};
    if (bins < 0 || rows < 1 || (bins > 0 && rows > TABLE / bins))
        return hk_eval_fail(e, HK_STATUS_INVALID, "%lld bins of %lld are no matrix", (long long)bins, (long long)rows);
    hk_tensor *y = hk_eval_output(e, 0, e->node->out[0]->dtype, &shape);
    if (!y)
        return hk_out_of_memory(e->ctx, "a filter bank");
    for (int64_t i = 0; i < bins; i++) {
        int64_t left = mel_point(e, i), center = mel_point(e, i + 1), right = mel_point(e, i + 2);
        if (left == center)
            hk_set_double(y, center * bins + i, 1);
        for (int64_t j = left; left < center && j <= center; j++)
            hk_set_double(y, j * bins + i, (double)(j - left) / (double)(center - left));
        for (int64_t j = center; j < right; j++)
            hk_set_double(y, j * bins + i, (double)(right - j) / (double)(right - center));
    }
    return HK_OK;
}

/* ---- the table */

static const char *const dft_17_cases[] = {"f32[1,10,10,1] ; axis=1 ; opset=17", "f32[2,8,2] ; inverse=1 ; opset=19",
                                           "f32[2,9,3,2] i64=12 ; axis=-2 ; opset=17",
                                           "f32[2,9,3,1] i64=6 ; onesided=1 ; opset=17", NULL};
static const char *const dft_cases[] = {"f32[1,10,10,1] - i64=2",
                                        "f32[2,8,2]",
                                        "f32[3,1] - i64=0",
                                        "f32[2,300,1] i64=300 ; onesided=1 ; nograd",
                                        "f32[2,1024,2] ; ; nograd",
                                        "f32[1,1000,2] ; inverse=1 ; nograd",
                                        "f32[2,5,2] i64=8 i64=1 ; inverse=1 onesided=1",
                                        "f32[2,4,3,2] - i64=1 ; inverse=1 onesided=1",
                                        "f32[1,7,2] i64=9 ; inverse=1 onesided=1",
                                        "f16[2,3,2] ; inverse=1 onesided=1 ; nograd",
                                        "f32[1,257,2] ; ; nograd",
                                        "f16[2,8,1] ; ; nograd tol=1e-2",
                                        NULL};
static const char *const stft_cases[] = {"f32[1,128,1] i64=8 - i64=16", "f32[2,60,1] i64=5 f32[12] ; onesided=0",
                                         "f32[2,40,2] i64=7 f32[10] i64=10 ; onesided=0", "f32[1,33] i64=4 f32[8]",
                                         NULL};
static const char *const window_cases[] = {"i64=10", "i32=7 ; periodic=0",         "i64=1 ; periodic=0",
                                           "i64=0",  "i64=5 ; output_datatype=10", NULL};
static const char *const mel_cases[] = {"i64=8 i64=16 i64=8192 f32=0.0 f32=4096.0",
                                        "i64=40 i64=400 i64=16000 f32=20.0 f32=8000.0", NULL};

#define OP(name, first, last, least, most, hosts, list, fn, expansion, case_list)                                      \
    {                                                                                                                  \
        .type = name, .since = first, .until = last, .in_min = least, .in_max = most, .out_min = 1, .out_max = 1,      \
        .host_inputs = hosts, .attrs_bytes = sizeof(signal_attrs), .attrs = list, .infer = fn##_infer,                 \
        .eval = expansion##_eval, .expand = fn##_expand, .cases = case_list                                            \
    }
#define WINDOW(name, fn)                                                                                               \
    {                                                                                                                  \
        .type = name, .since = 17, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1, .host_inputs = 1,             \
        .attrs_bytes = sizeof(signal_attrs), .attrs = window_list, .infer = window_infer, .eval = fn##_eval,           \
        .expand = constant_expand, .cases = window_cases                                                               \
    }

const hk_op hk_ops_signal[] = {
    OP("DFT", 17, 19, 1, 2, 2, dft_17_list, dft, dft, dft_17_cases),
    OP("DFT", 20, 0, 1, 3, 6, dft_list, dft, dft, dft_cases),
    OP("STFT", 17, 0, 2, 4, 10, stft_list, stft, stft, stft_cases),
    WINDOW("HannWindow", hann),
    WINDOW("HammingWindow", hamming),
    WINDOW("BlackmanWindow", blackman),
    {.type = "MelWeightMatrix",
     .since = 17,
     .in_min = 5,
     .in_max = 5,
     .out_min = 1,
     .out_max = 1,
     .host_inputs = 31,
     .attrs_bytes = sizeof(signal_attrs),
     .attrs = mel_list,
     .infer = mel_infer,
     .eval = mel_eval,
     .expand = constant_expand,
     .cases = mel_cases},
    {0},
};
