/*
 * GridSample, AffineGrid, and operators of our own:
 *
 * hk.GridSample(X, grid; pixels) -> Y             GridSample whose grid may count elements instead of going from -1 to
 * 1 hk.GridSampleGrad(dY, X, grid) -> dgrid hk.GridTaps(grid; input_shape) -> indices, weights     what every grid
 * position reads of an input plane
 *
 * X's gradient scatters dY times the taps' weights by hk.GatherNDGrad, whose sums have a fixed order.
 */
#include <math.h>
#include <string.h>

#include "kernels.h"
#include "ops/support/build.h"
#include "ops/support/conv_geometry.h"
#include "ops/support/move.h"
#include "ops/support/move_args.h"
#include "ops/support/reduce.h"
#include "shaders/grid_sample.push.h"

typedef enum method { NEAREST, LINEAR, CUBIC } method;
typedef enum padding { ZEROS, BORDER, REFLECTION } padding;
typedef enum scale { EDGES, CORNERS, PIXELS } scale; /* what -1 and 1 are, or that the grid counts elements */

typedef struct grid_attrs {
    const char *mode, *padding_mode;
    int64_t align_corners;
    int64_t pixels;      /* of our own operators: grid coordinates are element numbers */
    hk_ints input_shape; /* hk.GridTaps: spatial extents of X */
} grid_attrs;

#define GRID_ATTRS                                                                                                     \
    HK_STRING_ATTR(grid_attrs, mode, "linear"), HK_STRING_ATTR(grid_attrs, padding_mode, "zeros"),                     \
        HK_INT_ATTR(grid_attrs, align_corners, 0)
static const hk_attr attr_list[] = {GRID_ATTRS, {0}};
static const hk_attr own_attr_list[] = {GRID_ATTRS, HK_INT_ATTR(grid_attrs, pixels, 0), {0}};
static const hk_attr taps_attr_list[] = {
    GRID_ATTRS,
    HK_INT_ATTR(grid_attrs, pixels, 0),
    {.name = "input_shape", .kind = HK_ATTR_INTS, .offset = offsetof(grid_attrs, input_shape), .required = true},
    {0}};

/* ---- geometry */

typedef struct sampling {
    method method;
    padding padding;
    scale scale;
    int32_t axes, taps; /* taps: of one axis */
    int64_t n, places;  /* grids, positions in each */
    int64_t in[HK_AXES];
} sampling;

static hk_status read_words(const hk_args *a, sampling *s)
{
    static const char *const modes[] = {"nearest", "linear", "cubic", "bilinear", "bicubic"};
    static const method methods[] = {NEAREST, LINEAR, CUBIC, LINEAR, CUBIC};
    static const char *const paddings[] = {"zeros", "border", "reflection"};
    const grid_attrs *t = a->node->attrs;
    int32_t m = 0, p = 0;
    while (m < (int32_t)HK_COUNT(modes) && strcmp(modes[m], t->mode) != 0)
        m++;
    while (p < (int32_t)HK_COUNT(paddings) && strcmp(paddings[p], t->padding_mode) != 0)
        p++;
    if (m == HK_COUNT(modes) || p == HK_COUNT(paddings))
        return hk_args_fail(a, "mode '%s' with padding_mode '%s' is none that the standard has", t->mode,
                            t->padding_mode);
    *s = (sampling){.method = methods[m],
                    .padding = (padding)p,
                    .scale = t->pixels          ? PIXELS
                             : t->align_corners ? CORNERS
                                                : EDGES,
                    .in = {1, 1, 1}};
    s->taps = s->method == NEAREST ? 1 : s->method == LINEAR ? 2 : 4;
    return HK_OK;
}

/* x: (batch, channels, spatial) or only the spatial extents with leading zeros; unknown shapes are for the caller. */
static hk_status read_sampling(const hk_args *a, const hk_shape *x, const hk_shape *grid, sampling *s)
{
    hk_shape_text tx, tg;
    HK_TRY(read_words(a, s));
    s->axes = x->rank - 2;
    if (s->axes < 1 || s->axes > HK_AXES || grid->rank != x->rank ||
        (grid->dim[grid->rank - 1] >= 0 && grid->dim[grid->rank - 1] != s->axes) ||
        (x->dim[0] >= 0 && grid->dim[0] >= 0 && x->dim[0] != grid->dim[0]))
        return hk_args_fail(a,
                            "expected an input (batch, channels, 1 to 3 spatial axes) and a grid (batch, output axes, "
                            "coordinates), found %s and %s",
                            hk_shape_print(x, &tx), hk_shape_print(grid, &tg));
    s->n = grid->dim[0];
    s->places = hk_shape_known(grid) ? hk_shape_span(grid, 1, grid->rank - 1) : -1;
    for (int32_t i = 0; i < s->axes; i++) {
        s->in[HK_AXES - s->axes + i] = x->dim[2 + i];
        if (x->dim[2 + i] == 0 && s->places != 0)
            return hk_args_fail(a, "the input %s has no elements to sample", hk_shape_print(x, &tx));
    }
    return HK_OK;
}

static hk_shape sampled_shape(const hk_shape *x, const hk_shape *grid)
{
    hk_shape y = *x;
    for (int32_t i = 2; i < y.rank; i++)
        y.dim[i] = grid->dim[i - 1];
    return y;
}

static hk_status check_types(const hk_infer *in)
{
    for (int32_t i = 0; i < in->node->in_count; i++)
        if (!hk_dtype_is_float(in->node->in[i]->dtype))
            return hk_infer_fail(in, HK_STATUS_UNSUPPORTED, "expected float inputs, found %s",
                                 hk_dtype_name(in->node->in[i]->dtype));
    return HK_OK;
}

static hk_status sample_infer(hk_infer *in)
{
    hk_args a = hk_infer_args(in);
    const hk_value *x = in->node->in[0], *grid = in->node->in[1];
    hk_shape y = HK_SHAPE_UNKNOWN;
    sampling s;
    HK_TRY(check_types(in));
    if (x->shape.rank >= 0 && grid->shape.rank >= 0) {
        HK_TRY(read_sampling(&a, &x->shape, &grid->shape, &s));
        y = sampled_shape(&x->shape, &grid->shape);
    }
    return hk_infer_output(in, 0, x->dtype, &y);
}

static hk_status grad_infer(hk_infer *in)
{
    HK_TRY(check_types(in));
    return hk_infer_output(in, 0, in->node->in[2]->dtype, &in->node->in[2]->shape);
}

static hk_status read_taps(const hk_args *a, sampling *s)
{
    hk_ints in = ((const grid_attrs *)a->node->attrs)->input_shape;
    hk_shape grid = hk_args_shape(a, 0), x = {.rank = in.count + 2, .dim = {-1, -1}};
    if (in.count > HK_AXES || !hk_shape_known(&grid))
        return hk_args_fail(a, "expected a grid of known shape and an input_shape of 1 to 3 entries");
    memcpy(x.dim + 2, in.v, (size_t)in.count * sizeof *x.dim);
    return read_sampling(a, &x, &grid, s);
}

static int64_t tap_count(const sampling *s)
{
    return s->axes == 1 ? s->taps : s->axes == 2 ? s->taps * s->taps : s->taps * s->taps * s->taps;
}

static hk_status taps_infer(hk_infer *in)
{
    hk_args a = hk_infer_args(in);
    sampling s;
    HK_TRY(read_taps(&a, &s));
    const hk_shape index = {3, {s.n, s.places * tap_count(&s), 1}}, weight = {4, {s.n, s.places, tap_count(&s), 1}};
    HK_TRY(hk_infer_output(in, 0, HK_INT32, &index));
    return hk_infer_output(in, 1, in->node->in[0]->dtype, &weight);
}

/* ---- the oracle: what one axis reads for one grid coordinate */

typedef struct line {
    int64_t index[4];
    double weight[4], slope[4]; /* slope: of weight, by the grid's coordinate */
} line;

static double mirrored(double x, double low, double high, double *slope)
{
    double over = x < low ? low - x : x - high, range = high - low;
    if (over <= 0)
        return x;
    if (range <= 0) {
        *slope = 0;
        return low;
    }
    double turns = floor(over / range), rest = over - turns * range;
    bool below = x < low, from_low = below == (fmod(turns, 2) == 0);
    *slope = from_low == below ? -*slope : *slope;
    return from_low ? low + rest : high - rest;
}

static void filter_at(method m, double x, double at, double *value, double *slope)
{
    const double a = -0.75;
    double d = fabs(x - at), side = x < at ? -1 : 1;
    *value = m == NEAREST ? 1 : 1 - d;
    *slope = m == NEAREST ? 0 : -side;
    if (m != CUBIC)
        return;
    *value = d <= 1 ? ((a + 2) * d - (a + 3)) * d * d + 1 : ((a * d - 5 * a) * d + 8 * a) * d - 4 * a;
    *slope = side * (d <= 1 ? (3 * (a + 2) * d - 2 * (a + 3)) * d : (3 * a * d - 10 * a) * d + 8 * a);
}

static void line_at(const sampling *s, double g, int64_t extent, line *out)
{
    bool corners = s->scale == CORNERS, pixels = s->scale == PIXELS;
    double n = (double)extent, low = corners ? 0 : -0.5, high = corners ? n - 1 : n - 0.5, ignored;
    double x = pixels ? g : corners ? (g + 1) * 0.5 * (n - 1) : ((g + 1) * n - 1) * 0.5;
    double slope = pixels ? 1 : corners ? (n - 1) * 0.5 : n * 0.5;
    if (!(fabs(x) < 1e9))
        x = -1e6;
    if (s->method == NEAREST)
        x = rint((double)(float)x);
    /* Cubic taps are bounded one by one, as in PyTorch; two elements beyond the border all are the border's. */
    double beyond = s->method == CUBIC ? 2 : 0;
    if (s->padding == BORDER && (x < low - beyond || x > high + beyond)) {
        x = HK_MIN(HK_MAX(x, -beyond), n - 1 + beyond);
        slope = 0;
    }
    if (s->padding == REFLECTION)
        x = mirrored(x, low, high, &slope);
    if (s->method == NEAREST)
        x = rint(x);
    for (int32_t k = 0; k < s->taps; k++) {
        double at = floor(x) + k - (s->method == CUBIC);
        bool inside = at >= 0 && at <= n - 1;
        filter_at(s->method, x, at, &out->weight[k], &out->slope[k]);
        out->slope[k] *= slope;
        if (s->padding == ZEROS && !inside)
            out->weight[k] = out->slope[k] = 0;
        ignored = 0;
        if (s->padding == REFLECTION && !inside)
            at = trunc(mirrored(at, low, high, &ignored));
        out->index[k] = (int64_t)HK_MIN(HK_MAX(at, 0.0), n - 1);
    }
}

/* All taps of one grid position: index in a plane, weight, and the weight's slope by each coordinate (as the grid has
 * them: the last axis first). */
typedef struct tap {
    int64_t index;
    double weight, slope[HK_AXES];
} tap;

static void taps_at(const sampling *s, const hk_tensor *grid, int64_t place, tap *taps)
{
    line lines[HK_AXES];
    int64_t count = tap_count(s);
    for (int32_t d = 0; d < s->axes; d++)
        line_at(s, hk_get_double(grid, place * s->axes + d), s->in[HK_AXES - 1 - d], &lines[d]);
    for (int64_t t = 0; t < count; t++) {
        int64_t rest = t, stride = 1;
        taps[t] = (tap){.weight = 1, .slope = {1, 1, 1}};
        for (int32_t d = 0; d < s->axes; d++) {
            int64_t k = rest % s->taps;
            rest /= s->taps;
            taps[t].index += lines[d].index[k] * stride;
            stride *= s->in[HK_AXES - 1 - d];
            taps[t].weight *= lines[d].weight[k];
            for (int32_t e = 0; e < s->axes; e++)
                taps[t].slope[e] *= d == e ? lines[d].slope[k] : lines[d].weight[k];
        }
    }
}

enum { MOST_TAPS = 64 };

static hk_status sample_eval(hk_eval *e)
{
    hk_args a = hk_eval_args(e);
    hk_shape x = hk_tensor_shape(e->in[0]), grid = hk_tensor_shape(e->in[1]);
    sampling s;
    HK_TRY(read_sampling(&a, &x, &grid, &s));
    hk_shape ys = sampled_shape(&x, &grid);
    hk_tensor *y = hk_eval_output(e, 0, hk_wider(e->in[0]->dtype, e->in[1]->dtype), &ys);
    if (!y)
        return hk_out_of_memory(e->ctx, "a sampled tensor");
    int64_t plane = hk_shape_span(&x, 2, x.rank), count = tap_count(&s);
    for (int64_t i = 0; i < s.n * s.places; i++) {
        tap taps[MOST_TAPS];
        taps_at(&s, e->in[1], i, taps);
        for (int64_t c = 0; c < x.dim[1]; c++) {
            int64_t from = i / s.places * x.dim[1] + c;
            double sum = 0;
            for (int64_t t = 0; t < count; t++)
                if (taps[t].weight != 0)
                    sum += taps[t].weight * hk_get_double(e->in[0], from * plane + taps[t].index);
            hk_set_double(y, from * s.places + i % s.places, sum);
        }
    }
    return HK_OK;
}

static hk_status grad_eval(hk_eval *e)
{
    hk_args a = hk_eval_args(e);
    hk_shape x = hk_tensor_shape(e->in[1]), grid = hk_tensor_shape(e->in[2]);
    sampling s;
    HK_TRY(read_sampling(&a, &x, &grid, &s));
    hk_tensor *out = hk_eval_output(e, 0, e->in[2]->dtype, &grid);
    if (!out)
        return hk_out_of_memory(e->ctx, "a grid's gradient");
    int64_t plane = hk_shape_span(&x, 2, x.rank), count = tap_count(&s);
    for (int64_t i = 0; i < s.n * s.places; i++) {
        tap taps[MOST_TAPS];
        double sum[HK_AXES] = {0};
        taps_at(&s, e->in[2], i, taps);
        for (int64_t k = 0; k < x.dim[1] * count; k++) {
            int64_t from = i / s.places * x.dim[1] + k / count;
            const tap *t = &taps[k % count];
            double v = hk_get_double(e->in[0], from * s.places + i % s.places) *
                       hk_get_double(e->in[1], from * plane + t->index);
            for (int32_t d = 0; d < s.axes; d++)
                sum[d] += v * t->slope[d];
        }
        for (int32_t d = 0; d < s.axes; d++)
            hk_set_double(out, i * s.axes + d, sum[d]);
    }
    return HK_OK;
}

static hk_status taps_eval(hk_eval *e)
{
    hk_args a = hk_eval_args(e);
    sampling s;
    HK_TRY(read_taps(&a, &s));
    int64_t count = tap_count(&s);
    hk_tensor *index = hk_eval_output(e, 0, HK_INT32, &(hk_shape){3, {s.n, s.places * count, 1}});
    hk_tensor *weight = hk_eval_output(e, 1, e->in[0]->dtype, &(hk_shape){4, {s.n, s.places, count, 1}});
    if (!index || !weight)
        return hk_out_of_memory(e->ctx, "a grid's taps");
    for (int64_t i = 0; i < s.n * s.places; i++) {
        tap taps[MOST_TAPS];
        taps_at(&s, e->in[0], i, taps);
        for (int64_t t = 0; t < count; t++) {
            hk_set_int(index, i * count + t, taps[t].index);
            hk_set_double(weight, i * count + t, taps[t].weight);
        }
    }
    return HK_OK;
}

/* ---- the device */

/* channels 0: no chunks of them. */
static hk_record *emit(hk_lower *l, const hk_kernel *kernel, const char *variant, const sampling *s, int64_t channels,
                       int64_t chunk)
{
    int64_t chunks = channels ? (channels + chunk - 1) / chunk : 1, count = s->n * s->places * chunks;
    hk_divisor places = hk_divisor_of(s->places), divisor = hk_divisor_of(chunks);
    struct grid_sample_push push = {.count = (uint32_t)count,
                                    .channels = (uint32_t)channels,
                                    .chunks = (uint32_t)chunks,
                                    .places = (uint32_t)s->places,
                                    .in_d = (uint32_t)s->in[0],
                                    .in_h = (uint32_t)s->in[1],
                                    .in_w = (uint32_t)s->in[2],
                                    .magic_places = places.multiplier,
                                    .shift_places = places.shift,
                                    .magic_chunks = divisor.multiplier,
                                    .shift_chunks = divisor.shift};
    hk_record *r = hk_emit(l, kernel, variant);
    hk_push(r, &push, sizeof push);
    hk_spec(r, 3, (uint32_t)s->axes);
    hk_spec(r, 4, s->method);
    hk_spec(r, 5, s->padding);
    hk_spec(r, 6, s->scale);
    hk_spec(r, 7, (uint32_t)HK_MAX(chunk, 1));
    hk_move_grid(l, r, count);
    r->flops = 2.0 * (double)(count * HK_MAX(chunk, 1) * tap_count(s));
    return r;
}

/* Channels that an invocation makes with the coordinates it has worked out: as many as leave the device full. */
static int64_t chunk_of(const hk_lower *l, const sampling *s, int64_t channels)
{
    int64_t chunk = HK_MIN(channels, 16);
    while (!l->cpu && chunk > 1 && s->n * s->places * channels / chunk < 512 * (int64_t)l->compute_units_hint)
        chunk = (chunk + 1) / 2;
    return chunk;
}

static hk_status sample_lower(hk_lower *l)
{
    const hk_node *n = l->node;
    hk_args a = hk_node_args(l->ctx, n);
    hk_value *x = n->in[0], *grid = n->in[1], *y = n->out[0];
    sampling s;
    HK_TRY(hk_require_float32(l, x));
    HK_TRY(hk_require_float32(l, grid));
    HK_TRY(read_sampling(&a, &x->shape, &grid->shape, &s));
    if (hk_shape_count(&y->shape) == 0)
        return HK_OK;
    hk_record *r = emit(l, &hk_kernel_grid_sample, "grid sample", &s, x->shape.dim[1],
                        chunk_of(l, &s, x->shape.dim[1]));
    hk_use(r, x, HK_READ, offsetof(struct grid_sample_push, x));
    hk_use(r, grid, HK_READ, offsetof(struct grid_sample_push, grid));
    hk_use(r, y, HK_WRITE, offsetof(struct grid_sample_push, y));
    return HK_OK;
}

static hk_status grad_lower(hk_lower *l)
{
    const hk_node *n = l->node;
    hk_args a = hk_node_args(l->ctx, n);
    hk_value *dy = n->in[0], *x = n->in[1], *grid = n->in[2], *out = n->out[0];
    sampling s;
    for (int32_t i = 0; i < 3; i++)
        HK_TRY(hk_require_float32(l, n->in[i]));
    HK_TRY(read_sampling(&a, &x->shape, &grid->shape, &s));
    if (hk_shape_count(&out->shape) == 0)
        return HK_OK;
    if (x->shape.dim[1] == 0) {
        hk_emit_fill(l, out, 0);
        return HK_OK;
    }
    hk_record *r = emit(l, &hk_kernel_grid_sample_grad, "grid sample, gradient of the grid", &s, x->shape.dim[1],
                        x->shape.dim[1]);
    hk_use(r, x, HK_READ, offsetof(struct grid_sample_push, x));
    hk_use(r, grid, HK_READ, offsetof(struct grid_sample_push, grid));
    hk_use(r, dy, HK_READ, offsetof(struct grid_sample_push, dy));
    hk_use(r, out, HK_WRITE, offsetof(struct grid_sample_push, y));
    return HK_OK;
}

static hk_status taps_lower(hk_lower *l)
{
    const hk_node *n = l->node;
    hk_args a = hk_node_args(l->ctx, n);
    sampling s;
    HK_TRY(hk_require_float32(l, n->in[0]));
    HK_TRY(read_taps(&a, &s));
    if (s.n * s.places == 0)
        return HK_OK;
    hk_record *r = emit(l, &hk_kernel_grid_taps, "grid taps", &s, 0, 0);
    hk_use(r, n->in[0], HK_READ, offsetof(struct grid_sample_push, grid));
    hk_use(r, n->out[0], HK_WRITE, offsetof(struct grid_sample_push, y));
    hk_use(r, n->out[1], HK_WRITE, offsetof(struct grid_sample_push, weight));
    return HK_OK;
}

/* ---- gradients */

static hk_status input_gradient(hk_gradient *g, hk_node *n, hk_value *dy, const sampling *s)
{
    hk_graph *graph = hk_gradient_graph(g);
    const grid_attrs *t = n->attrs;
    const hk_shape *x = &n->in[0]->shape;
    int64_t taps = tap_count(s), plane = hk_shape_span(x, 2, x->rank), channels = x->dim[1];
    const int64_t swap[] = {0, 2, 1}, whole[] = {s->n, plane, channels};
    hk_value *list[2], *v;
    const hk_attr_value taps_values[] = {HK_SET_STRING("mode", t->mode),
                                         HK_SET_STRING("padding_mode", t->padding_mode),
                                         HK_SET_INT("align_corners", t->align_corners),
                                         HK_SET_INT("pixels", t->pixels),
                                         HK_SET_INTS("input_shape", x->dim + 2, x->rank - 2),
                                         {0}};
    const hk_attr_value scatter_values[] = {HK_SET_INT("batch_dims", 1), HK_SET_INTS("shape", whole, 3), {0}};
    HK_TRY(hk_build(graph, "hk.GridTaps", taps_values, &n->in[1], 1, list, 2));
    HK_TRY(hk_build_reshape(graph, dy, &(hk_shape){3, {s->n, channels, s->places}}, &v));
    HK_TRY(hk_build_transpose(graph, v, swap, 3, &v));
    HK_TRY(hk_build_reshape(graph, v, &(hk_shape){4, {s->n, s->places, 1, channels}}, &v));
    HK_TRY(hk_build_binary(graph, "Mul", v, list[1], &v));
    HK_TRY(hk_build_reshape(graph, v, &(hk_shape){3, {s->n, s->places * taps, channels}}, &v));
    HK_TRY(hk_build(graph, "hk.GatherNDGrad", scatter_values, (hk_value *[]){v, list[0]}, 2, &v, 1));
    HK_TRY(hk_build_transpose(graph, v, swap, 3, &v));
    HK_TRY(hk_build_reshape(graph, v, x, &v));
    return hk_gradient_add(g, n->in[0], v);
}

static hk_status sample_backward(hk_gradient *g, hk_node *n)
{
    hk_graph *graph = hk_gradient_graph(g);
    hk_args a = hk_node_args(graph->ctx, n);
    const grid_attrs *t = n->attrs;
    hk_value *dy = hk_gradient_of(g, n->out[0]), *dgrid;
    sampling s;
    if (!hk_shape_known(&n->in[0]->shape) || !hk_shape_known(&n->in[1]->shape))
        return hk_args_shape_wanted(&a);
    HK_TRY(read_sampling(&a, &n->in[0]->shape, &n->in[1]->shape, &s));
    if (hk_gradient_wanted(g, n->in[0]))
        HK_TRY(input_gradient(g, n, dy, &s));
    if (!hk_gradient_wanted(g, n->in[1]) || s.method == NEAREST)
        return HK_OK;
    const hk_attr_value values[] = {HK_SET_STRING("mode", t->mode),
                                    HK_SET_STRING("padding_mode", t->padding_mode),
                                    HK_SET_INT("align_corners", t->align_corners),
                                    HK_SET_INT("pixels", t->pixels),
                                    {0}};
    HK_TRY(hk_build(graph, "hk.GridSampleGrad", values, (hk_value *[]){dy, n->in[0], n->in[1]}, 3, &dgrid, 1));
    return hk_gradient_add(g, n->in[1], dgrid);
}

/* ---- AffineGrid: theta times the homogeneous coordinates of all positions */

static const hk_attr affine_attr_list[] = {HK_INT_ATTR(grid_attrs, align_corners, 0), {0}};

static hk_status read_affine(const hk_args *a, hk_shape *size, hk_shape *y)
{
    hk_shape theta = hk_args_shape(a, 0);
    int32_t count;
    *y = HK_SHAPE_UNKNOWN;
    HK_TRY(hk_args_ints(a, 1, "size", size->dim, HK_MAX_RANK, &count));
    size->rank = count;
    if (count < 0)
        return HK_OK;
    int32_t axes = count - 2;
    if (axes < 2 || axes > 3 || !hk_shape_known(size) ||
        (theta.rank >= 0 &&
         (theta.rank != 3 || (theta.dim[0] >= 0 && theta.dim[0] != size->dim[0]) ||
          (theta.dim[1] >= 0 && theta.dim[1] != axes) || (theta.dim[2] >= 0 && theta.dim[2] != axes + 1))))
        return hk_args_fail(a, "expected a size of 4 or 5 entries and theta [batch,2,3] or [batch,3,4] to match");
    *y = *size;
    for (int32_t i = 0; i < axes; i++)
        y->dim[1 + i] = size->dim[2 + i];
    y->dim[1 + axes] = axes;
    return HK_OK;
}

static hk_status affine_infer(hk_infer *in)
{
    hk_args a = hk_infer_args(in);
    hk_shape size, y;
    if (!hk_dtype_is_float(in->node->in[0]->dtype))
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected a float theta");
    HK_TRY(read_affine(&a, &size, &y));
    return hk_infer_output(in, 0, in->node->in[0]->dtype, &y);
}

/* Coordinate `axis` (0: along the last dimension) of a position; 1 behind the last. */
static double base_at(const hk_node *n, const hk_shape *size, int64_t place, int32_t axis)
{
    int32_t axes = size->rank - 2;
    if (axis == axes)
        return 1;
    for (int32_t d = 0; d < axis; d++)
        place /= HK_MAX(size->dim[size->rank - 1 - d], 1);
    int64_t extent = size->dim[size->rank - 1 - axis], i = place % extent;
    if (((const grid_attrs *)n->attrs)->align_corners)
        return extent > 1 ? -1 + 2.0 * (double)i / (double)(extent - 1) : 0;
    return (2.0 * (double)i + 1) / (double)extent - 1;
}

static hk_status affine_eval(hk_eval *e)
{
    hk_args a = hk_eval_args(e);
    hk_shape size, s;
    HK_TRY(read_affine(&a, &size, &s));
    hk_tensor *y = hk_eval_output(e, 0, e->in[0]->dtype, &s);
    if (!y)
        return hk_out_of_memory(e->ctx, "an affine grid");
    int32_t axes = size.rank - 2;
    int64_t places = hk_shape_span(&size, 2, size.rank), count = hk_tensor_count(y);
    for (int64_t i = 0; i < count; i++) {
        int64_t row = i / (axes * places) * axes + i % axes;
        double sum = 0;
        for (int32_t k = 0; k <= axes; k++)
            sum += hk_get_double(e->in[0], row * (axes + 1) + k) * base_at(e->node, &size, i / axes % places, k);
        hk_set_double(y, i, sum);
    }
    return HK_OK;
}

/* Coordinate `axis` of all positions along its dimension, 1 everywhere else: a constant that broadcasts. */
static hk_value *affine_axis(hk_graph *g, const hk_node *n, const hk_shape *size, int32_t axis)
{
    int32_t axes = size->rank - 2, d = axes - axis; /* dimension of the output */
    hk_shape s = {.rank = axes + 2, .dim = {1, 1, 1, 1, 1}};
    s.dim[d] = size->dim[d + 1];
    hk_tensor *t = hk_tensor_new(g->arena, n->in[0]->dtype, &s);
    int64_t stride = 1;
    for (int32_t k = 0; k < axis; k++)
        stride *= HK_MAX(size->dim[size->rank - 1 - k], 1);
    for (int64_t i = 0; t && i < s.dim[d]; i++)
        hk_set_double(t, i, base_at(n, size, i * stride, axis));
    return t ? hk_graph_constant(g, NULL, t) : NULL;
}

/* A sum of columns of theta times coordinates: one chain of broadcasting nodes, no table of positions. */
static hk_status affine_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    hk_args a = hk_node_args(g->ctx, n);
    hk_shape size, y;
    HK_TRY(read_affine(&a, &size, &y));
    int32_t axes = size.rank - 2;
    hk_shape column = {.rank = axes + 2, .dim = {size.dim[0], 1, 1, 1, 1}};
    column.dim[axes + 1] = axes;
    const hk_attr_value attrs[] = {HK_SET_INT("axis", 2), {0}};
    *out = NULL;
    for (int32_t k = 0; k <= axes; k++) {
        int32_t which = (k + axes) % (axes + 1); /* the translation first */
        int64_t index = which;
        hk_value *v, *i = hk_graph_ints(g, &index, 1);
        if (!i)
            return HK_STATUS_OUT_OF_MEMORY;
        HK_TRY(hk_build(g, "Gather", attrs, (hk_value *[]){n->in[0], i}, 2, &v, 1));
        HK_TRY(hk_build_reshape(g, v, &column, &v));
        if (which < axes) {
            hk_value *coordinate = affine_axis(g, n, &size, which);
            if (!coordinate)
                return hk_out_of_memory(g->ctx, "an affine grid");
            HK_TRY(hk_build_binary(g, "Mul", coordinate, v, &v));
            HK_TRY(hk_build_binary(g, "Add", *out, v, &v));
        }
        *out = v;
    }
    return HK_OK;
}

/* ---- cases */

static const char *const sample_cases[] = {
    "f32[1,2,4,5] f32[1,3,6,2]",
    "f32[2,3,4,4] f32[2,3,2,2] ; align_corners=1",
    "f32[1,2,5,4] f32[1,4,3,2] ; padding_mode=\"border\"",
    "f32[1,2,5,4] f32[1,4,3,2] ; padding_mode=\"reflection\"",
    "f32[1,2,5,4] f32[1,4,3,2] ; padding_mode=\"reflection\" align_corners=1",
    "f32[1,2,5,4] f32[1,4,3,2] ; mode=\"cubic\"",
    "f32[1,2,5,4] f32[1,4,3,2] ; mode=\"bicubic\" padding_mode=\"reflection\"",
    "f32[1,2,5,4] f32[1,4,3,2] ; mode=\"cubic\" padding_mode=\"border\" align_corners=1",
    "f32[1,2,5,4] f32[1,4,3,2] ; mode=\"nearest\"",
    "f32[1,2,5,4] f32[1,4,3,2] ; mode=\"nearest\" padding_mode=\"reflection\"",
    "f32[1,2,3,4,5] f32[1,2,3,2,3]",
    "f32[1,2,3,2,4] f32[1,2,1,3,3] ; mode=\"nearest\" padding_mode=\"border\"",
    "f32[1,1,3,2,4] f32[1,2,1,3,3] ; mode=\"cubic\" padding_mode=\"reflection\"",
    "f32[2,3,7] f32[2,5,1]",
    "f32[1,1,1,1] f32[1,2,2,2] ; padding_mode=\"reflection\" align_corners=1 ; nograd",
    "f32[0,2,4,4] f32[0,3,3,2] ; ; nograd",
    "f32[1,70,20,30] f32[1,40,50,2] ; mode=\"bilinear\" ; nograd",
    NULL,
};
static const char *const own_cases[] = {
    "f32[1,2,4,5] f32[1,3,6,2] ; pixels=1",
    "f32[2,3,7] f32[2,5,1]+ ; pixels=1 mode=\"cubic\" padding_mode=\"reflection\"",
    NULL,
};
static const char *const grad_cases[] = {
    "f32[1,2,3,6] f32[1,2,4,5] f32[1,3,6,2] ; ; nograd",
    "f32[1,2,4,3] f32[1,2,5,4] f32[1,4,3,2] ; mode=\"cubic\" padding_mode=\"reflection\" ; nograd",
    "f32[1,2,4,3] f32[1,2,5,4] f32[1,4,3,2] ; padding_mode=\"border\" align_corners=1 ; nograd",
    "f32[1,2,2,3,2] f32[1,2,3,4,5] f32[1,2,3,2,3] ; ; nograd",
    "f32[1,0,4,3] f32[1,0,5,4] f32[1,4,3,2] ; ; nograd",
    NULL,
};
static const char *const taps_cases[] = {
    "f32[1,3,6,2] ; input_shape=[4,5] ; out=2 nograd",
    "f32[2,2,3,2,3] ; input_shape=[3,4,2] padding_mode=\"reflection\" ; out=2 nograd",
    "f32[1,5,4,2] ; input_shape=[6,7] mode=\"cubic\" align_corners=1 padding_mode=\"border\" ; out=2 nograd",
    "f32[0,3,6,2] ; input_shape=[4,5] ; out=2 nograd",
    NULL,
};
static const char *const affine_cases[] = {
    "f32[2,2,3] i64={2,3,4,5}",
    "f32[1,3,4] i64={1,2,2,3,4} ; align_corners=1",
    "f32[2,2,3] i64={2,1,1,3} ; align_corners=1",
    "f32[1,2,3] i64={1,3,0,5} ; ; nograd",
    NULL,
};

#define OP(name, from, ins, outs, list, fn, back, case_list)                                                           \
    {                                                                                                                  \
        .type = name, .since = from, .in_min = ins, .in_max = ins, .out_min = 1, .out_max = outs,                      \
        .attrs_bytes = sizeof(grid_attrs), .attrs = list, .infer = fn##_infer, .eval = fn##_eval, .lower = fn##_lower, \
        .backward = back, .cases = case_list                                                                           \
    }

const hk_op hk_ops_grid_sample[] = {
    OP("GridSample", 16, 2, 1, attr_list, sample, sample_backward, sample_cases),
    OP("hk.GridSample", 1, 2, 1, own_attr_list, sample, sample_backward, own_cases),
    OP("hk.GridSampleGrad", 1, 3, 1, own_attr_list, grad, NULL, grad_cases),
    OP("hk.GridTaps", 1, 1, 2, taps_attr_list, taps, NULL, taps_cases),
    {.type = "AffineGrid",
     .since = 20,
     .in_min = 2,
     .in_max = 2,
     .out_min = 1,
     .out_max = 1,
     .host_inputs = 2,
     .attrs_bytes = sizeof(grid_attrs),
     .attrs = affine_attr_list,
     .infer = affine_infer,
     .eval = affine_eval,
     .expand = affine_expand,
     .cases = affine_cases},
    {0},
};
