/*
 * Resize and Upsample: geometry becomes a table of taps for every resized axis, and the node hk.Resample nodes (floats)
 * or Gathers (nearest elements of other types).
 *
 * Coordinates are computed in double and rounded to float32 before they decide between neighbours: 3 / 0.6 is 5 for
 * everybody who computes in float32, and 4.9999998 in double.
 */
#include <math.h>
#include <string.h>

#include "ops/support/build.h"
#include "ops/support/conv_geometry.h"
#include "ops/support/move_args.h"
#include "ops/support/resample.h"

typedef enum method { NEAREST, LINEAR, CUBIC } method;
typedef enum rounding { PREFER_FLOOR, PREFER_CEIL, FLOOR, CEIL, OLD /* ceil where it shrinks */ } rounding;
typedef enum coordinates { HALF_PIXEL, SYMMETRIC, PYTORCH, CORNERS, ASYMMETRIC, CROP } coordinates;
typedef enum policy { STRETCH, NOT_LARGER, NOT_SMALLER } policy;

typedef struct resize_attrs {
    const char *mode, *coordinate_transformation_mode, *nearest_mode, *keep_aspect_ratio_policy;
    float cubic_coeff_a, extrapolation_value;
    int64_t exclude_outside, antialias;
    hk_ints axes;
    hk_floats scales; /* Upsample 7 */
} resize_attrs;

static const hk_attr attr_list[] = {HK_STRING_ATTR(resize_attrs, mode, "nearest"),
                                    HK_STRING_ATTR(resize_attrs, coordinate_transformation_mode, "half_pixel"),
                                    HK_STRING_ATTR(resize_attrs, nearest_mode, "round_prefer_floor"),
                                    HK_STRING_ATTR(resize_attrs, keep_aspect_ratio_policy, "stretch"),
                                    HK_FLOAT_ATTR(resize_attrs, cubic_coeff_a, -0.75),
                                    HK_FLOAT_ATTR(resize_attrs, extrapolation_value, 0.0),
                                    HK_INT_ATTR(resize_attrs, exclude_outside, 0),
                                    HK_INT_ATTR(resize_attrs, antialias, 0),
                                    HK_INTS_ATTR(resize_attrs, axes),
                                    {0}};
static const hk_attr old_attr_list[] = {HK_STRING_ATTR(resize_attrs, mode, "nearest"), {0}};
static const hk_attr upsample_7_attr_list[] = {
    HK_STRING_ATTR(resize_attrs, mode, "nearest"),
    {.name = "scales", .kind = HK_ATTR_FLOATS, .offset = offsetof(resize_attrs, scales), .required = true},
    {0}};

/* ---- what a node asks for */

typedef struct resize {
    method method;
    rounding rounding;
    coordinates coordinates;
    policy policy;
    bool known;                                     /* sizes or scales are */
    bool resized[HK_MAX_RANK];                      /* of axes that change or move */
    double scale[HK_MAX_RANK], length[HK_MAX_RANK]; /* length: scale * extent, before it is made whole */
    double start[HK_MAX_RANK], end[HK_MAX_RANK];    /* region of interest */
    hk_shape x, y;
} resize;

static int32_t position(const char *text, const char *const *names, int32_t count)
{
    for (int32_t i = 0; i < count; i++)
        if (!strcmp(text, names[i]))
            return i;
    return -1;
}

static hk_status read_word(const hk_args *a, const char *what, const char *text, const char *const *names,
                           int32_t count, int32_t *out)
{
    *out = position(text, names, count);
    return *out >= 0 ? HK_OK : hk_args_fail(a, "%s is '%s', which no version of the standard has", what, text);
}

static hk_status read_words(const hk_args *a, resize *r)
{
    static const char *const methods[] = {"nearest", "linear", "cubic", "bilinear"};
    static const char *const roundings[] = {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"};
    static const char *const transforms[] = {"half_pixel",    "half_pixel_symmetric", "pytorch_half_pixel",
                                             "align_corners", "asymmetric",           "tf_crop_and_resize"};
    static const char *const policies[] = {"stretch", "not_larger", "not_smaller"};
    const resize_attrs *t = a->node->attrs;
    int32_t found;
    HK_TRY(read_word(a, "mode", t->mode, methods, HK_COUNT(methods), &found));
    r->method = found == 3 ? LINEAR : (method)found;
    r->rounding = OLD;
    r->coordinates = ASYMMETRIC;
    if (a->node->op->attrs != attr_list)
        return HK_OK;
    HK_TRY(read_word(a, "nearest_mode", t->nearest_mode, roundings, HK_COUNT(roundings), &found));
    r->rounding = (rounding)found;
    HK_TRY(read_word(a, "coordinate_transformation_mode", t->coordinate_transformation_mode, transforms,
                     HK_COUNT(transforms), &found));
    r->coordinates = (coordinates)found;
    HK_TRY(read_word(a, "keep_aspect_ratio_policy", t->keep_aspect_ratio_policy, policies, HK_COUNT(policies), &found));
    r->policy = (policy)found;
    return HK_OK;
}

/* Operand i as numbers, one for each of `expected` entries; *count is -1 if they are not known, 0 if there are none (an
 * empty operand counts as absent). */
static hk_status read_numbers(const hk_args *a, int32_t i, const char *what, int32_t expected, double *v,
                              int32_t *count)
{
    *count = 0;
    if (!hk_args_present(a, i))
        return HK_OK;
    const hk_tensor *t = hk_args_known(a, i);
    int64_t entries = t ? hk_tensor_count(t) : hk_shape_count(&a->node->in[i]->shape);
    if (entries == 0)
        return HK_OK;
    *count = -1;
    if (!t)
        return HK_OK;
    if (entries != expected)
        return hk_args_fail(a, "%s has %lld entries, expected %d", what, (long long)entries, (int)expected);
    for (int32_t k = 0; k < expected; k++)
        v[k] = hk_get_double(t, k);
    *count = expected;
    return HK_OK;
}

static hk_status read_axes(const hk_args *a, int32_t rank, int32_t axes[HK_MAX_RANK], int32_t *count)
{
    const hk_ints *list = &((const resize_attrs *)a->node->attrs)->axes;
    bool used[HK_MAX_RANK] = {false};
    *count = list->v ? list->count : rank;
    if (*count > rank)
        return hk_args_fail(a, "axes has %d entries, expected at most the input's rank %d", (int)*count, (int)rank);
    for (int32_t i = 0; i < *count; i++) {
        axes[i] = list->v ? hk_axis(list->v[i], rank) : i;
        if (axes[i] < 0 || used[axes[i]])
            return hk_args_fail(a, "axes: entry %d is %lld, expected every axis of -%d to %d once at most", (int)i,
                                (long long)list->v[i], (int)rank, (int)rank - 1);
        used[axes[i]] = true;
    }
    return HK_OK;
}

/* One scale for all axes, the largest or smallest that the sizes ask for. */
static void keep_aspect(resize *r, const int32_t *axes, int32_t count, double *sizes)
{
    double scale = -1;
    for (int32_t i = 0; i < count; i++) {
        double s = sizes[i] / (double)r->x.dim[axes[i]];
        if (scale < 0 || (r->policy == NOT_LARGER ? s < scale : s > scale))
            scale = s;
    }
    for (int32_t i = 0; i < count; i++) {
        r->scale[axes[i]] = scale;
        sizes[i] = floor(scale * (double)r->x.dim[axes[i]] + 0.5);
    }
}

static hk_status set_axis(const hk_args *a, resize *r, int32_t d, double scale, double size)
{
    int64_t in = r->x.dim[d];
    if (!(scale > 0 && scale <= INT32_MAX) || !(size >= 0 && size <= INT32_MAX))
        return hk_args_fail(a, "axis %d: expected a positive scale and a size from 0 to 2^31-1, found %g and %g",
                            (int)d, scale, size);
    if (in == 0 && size > 0)
        return hk_args_fail(a, "axis %d has no elements to make %g of", (int)d, size);
    r->scale[d] = scale;
    r->y.dim[d] = (int64_t)size;
    r->resized[d] = r->coordinates == CROP || in != r->y.dim[d] || scale != 1.0;
    return HK_OK;
}

static hk_status read_extents(const hk_args *a, resize *r)
{
    const resize_attrs *t = a->node->attrs;
    bool newer = a->node->op->since >= 11, attribute = t->scales.v != NULL;
    int32_t axes[HK_MAX_RANK], count, scale_count, size_count = 0, roi_count = 0;
    double scales[HK_MAX_RANK], sizes[HK_MAX_RANK], roi[2 * HK_MAX_RANK];
    HK_TRY(read_axes(a, r->x.rank, axes, &count));
    if (attribute && t->scales.count != count)
        return hk_args_fail(a, "scales has %d entries, expected %d", (int)t->scales.count, (int)count);
    HK_TRY(read_numbers(a, newer ? 2 : 1, "scales", count, scales, &scale_count));
    for (int32_t i = 0; attribute && i < count; i++)
        scales[i] = (double)t->scales.v[i];
    if (attribute)
        scale_count = count;
    if (newer) {
        HK_TRY(read_numbers(a, 3, "sizes", count, sizes, &size_count));
        if (r->coordinates == CROP)
            HK_TRY(read_numbers(a, 1, "roi", 2 * count, roi, &roi_count));
    }
    if (scale_count == 0 && size_count == 0 && count > 0)
        return hk_args_fail(a, "expected scales or sizes");
    r->known = scale_count >= 0 && size_count >= 0 && roi_count >= 0;
    for (int32_t i = 0; i < count; i++)
        r->known &= r->x.dim[axes[i]] >= 0;
    for (int32_t i = 0; i < count && !r->known; i++)
        r->y.dim[axes[i]] = -1;
    if (!r->known)
        return HK_OK;
    bool sized = size_count > 0, kept = sized && r->policy != STRETCH;
    if (kept)
        keep_aspect(r, axes, count, sizes);
    for (int32_t i = 0; i < count; i++) {
        int32_t d = axes[i];
        double in = (double)r->x.dim[d], scale = kept ? r->scale[d] : sized ? sizes[i] / in : scales[i];
        r->length[d] = sized && !kept ? sizes[i] : scale * in;
        if (sized && (r->x.dim[d] == 0 || sizes[i] == 0))
            scale = r->length[d] = 1; /* nothing is computed with it */
        HK_TRY(set_axis(a, r, d, scale, sized ? sizes[i] : floor((double)((float)scale * (float)in))));
        r->start[d] = roi_count > 0 ? roi[i] : 0;
        r->end[d] = roi_count > 0 ? roi[count + i] : 1;
    }
    return HK_OK;
}

static hk_status read_resize(const hk_args *a, resize *r)
{
    *r = (resize){.x = hk_args_shape(a, 0)};
    r->y = r->x;
    HK_TRY(read_words(a, r));
    return r->x.rank < 0 ? HK_OK : read_extents(a, r);
}

static hk_status resize_infer(hk_infer *in)
{
    hk_args a = hk_infer_args(in);
    resize r;
    HK_TRY(read_resize(&a, &r));
    return hk_infer_output(in, 0, in->node->in[0]->dtype, &r.y);
}

/* ---- taps */

/* The input coordinate of output o. */
static double coordinate(const resize *r, int32_t d, int64_t o)
{
    double in = (double)r->x.dim[d], out = (double)r->y.dim[d], x = (double)o, scale = r->scale[d];
    switch (r->coordinates) {
    case HALF_PIXEL: return (x + 0.5) / scale - 0.5;
    case SYMMETRIC: return in / 2 * (1 - out / r->length[d]) + (x + 0.5) / scale - 0.5;
    case PYTORCH: return out > 1 ? (x + 0.5) / scale - 0.5 : 0;
    case CORNERS: return r->length[d] > 1 && out > 1 ? x * (in - 1) / (r->length[d] - 1) : 0;
    case CROP:
        return out > 1 ? r->start[d] * (in - 1) + x * (r->end[d] - r->start[d]) * (in - 1) / (out - 1)
                       : 0.5 * (r->start[d] + r->end[d]) * (in - 1);
    default: return x / scale;
    }
}

static double nearest(const resize *r, int32_t d, double x)
{
    x = (double)(float)x;
    switch (r->rounding) {
    case PREFER_FLOOR: return ceil(x - 0.5);
    case PREFER_CEIL: return floor(x + 0.5);
    case CEIL: return ceil(x);
    case OLD: return r->scale[d] < 1 ? ceil(x) : floor(x);
    default: return floor(x);
    }
}

/* The filter at distance x. */
static double filter(const resize *r, double a, double x)
{
    x = fabs(x);
    if (r->method == LINEAR)
        return x < 1 ? 1 - x : 0;
    if (x <= 1)
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0;
}

/* Output o's taps: `count` from floor(x) + first on, the filter widened where it shrinks and antialiases. */
static void filter_taps(const resize *r, const resize_attrs *t, int32_t d, int64_t o, int64_t first, double stretch,
                        hk_taps *taps)
{
    double x = coordinate(r, d, o), whole = floor(x), sum = 0;
    int32_t *index = taps->index + o * taps->count;
    double *weight = taps->weight + o * taps->count;
    for (int32_t k = 0; k < taps->count; k++) {
        double at = whole + (double)(first + k);
        bool inside = at >= 0 && at < (double)taps->in;
        index[k] = (int32_t)HK_MIN(HK_MAX(at, 0.0), (double)(taps->in - 1));
        weight[k] = t->exclude_outside && !inside ? 0 : filter(r, (double)t->cubic_coeff_a, (at - x) * stretch);
        sum += weight[k];
    }
    for (int32_t k = 0; k < taps->count && sum != 0 && (t->exclude_outside || stretch < 1); k++)
        weight[k] /= sum;
}

enum { MOST_REACH = 1 << 20, MOST_ENTRIES = 1 << 24 /* of an axis: 200 MiB */ };

static hk_status axis_taps(const hk_args *a, hk_arena *arena, const resize *r, const resize_attrs *t, int32_t d,
                           hk_taps *taps)
{
    double stretch = t->antialias && r->scale[d] < 1 ? r->scale[d] : 1,
           reach = r->method == LINEAR ? 1 / stretch : 2 / stretch;
    if (r->method != NEAREST && reach > MOST_REACH)
        return hk_args_fail(a, "axis %d: a filter over %g elements is too wide, expected at most %d", (int)d, 2 * reach,
                            2 * MOST_REACH);
    int64_t first = (int64_t)floor(-reach) + 1, count = r->method == NEAREST ? 1 : 2 - 2 * first;
    if (count * r->y.dim[d] > MOST_ENTRIES)
        return hk_args_fail(a, "axis %d: %lld weighted elements are too many for a table, expected at most %d", (int)d,
                            (long long)(count * r->y.dim[d]), MOST_ENTRIES);
    if (!hk_taps_new(arena, r->x.dim[d], r->y.dim[d], count, taps))
        return hk_out_of_memory(a->ctx, "a table of taps");
    for (int64_t o = 0; o < taps->out; o++) {
        double x = coordinate(r, d, o), last = (double)(taps->in - 1);
        if (r->method == NEAREST) {
            taps->index[o] = (int32_t)HK_MIN(HK_MAX(nearest(r, d, x), 0.0), last);
            taps->weight[o] = 1;
        } else {
            filter_taps(r, t, d, o, first, stretch, taps);
        }
        for (int64_t k = 0; k < count && r->coordinates == CROP && (x < 0 || x > last); k++) {
            taps->index[o * count + k] = -1;
            taps->weight[o * count + k] = 0;
        }
    }
    return HK_OK;
}

/* Tables of all resized axes, NULL for the others. */
static hk_status all_taps(const hk_args *a, hk_arena *arena, const resize *r, const resize_attrs *t,
                          const hk_taps *list[HK_MAX_RANK])
{
    hk_taps *taps = hk_arena_array(arena, HK_MAX_RANK, sizeof *taps);
    if (!taps)
        return hk_out_of_memory(a->ctx, "tables of taps");
    for (int32_t d = 0; d < HK_MAX_RANK; d++) {
        list[d] = NULL;
        if (d >= r->x.rank || !r->resized[d])
            continue;
        HK_TRY(axis_taps(a, arena, r, t, d, &taps[d]));
        list[d] = &taps[d];
    }
    return HK_OK;
}

/* ---- the oracle */

static hk_status resize_eval(hk_eval *e)
{
    hk_args a = hk_eval_args(e);
    const resize_attrs *t = e->node->attrs;
    const hk_taps *taps[HK_MAX_RANK];
    resize r;
    HK_TRY(read_resize(&a, &r));
    HK_TRY(all_taps(&a, e->arena, &r, t, taps));
    hk_tensor *y = hk_eval_output(e, 0, e->in[0]->dtype, &r.y);
    double *v = hk_tensor_doubles(e->arena, e->in[0]);
    hk_shape s = r.x;
    bool empty = hk_shape_count(&r.y) == 0;
    for (int32_t d = 0; d < r.x.rank && v && !empty; d++)
        if (taps[d])
            v = hk_taps_apply(e->arena, taps[d], v, &s, d, (double)t->extrapolation_value);
    if (!y || !v)
        return hk_out_of_memory(e->ctx, "a resized tensor");
    for (int64_t i = 0; i < hk_tensor_count(y); i++)
        hk_set_double(y, i, v[i]);
    return HK_OK;
}

/* ---- as other nodes */

/* Nearest elements of any type: a Gather an axis. */
static hk_status expand_gathers(hk_graph *g, hk_value *x, const hk_taps *const taps[HK_MAX_RANK], hk_value **out)
{
    HK_TRY(hk_build_unary(g, "Identity", x, out));
    for (int32_t d = 0; d < x->shape.rank; d++) {
        if (!taps[d])
            continue;
        hk_tensor *index = hk_tensor_new(g->arena, HK_INT32, &(hk_shape){1, {taps[d]->out}});
        hk_value *v = index ? hk_graph_constant(g, NULL, index) : NULL;
        if (!v)
            return hk_out_of_memory(g->ctx, "indices of nearest elements");
        memcpy(index->data, taps[d]->index, (size_t)hk_tensor_bytes(index));
        const hk_attr_value attrs[] = {HK_SET_INT("axis", d), {0}};
        HK_TRY(hk_build(g, "Gather", attrs, (hk_value *[]){*out, v}, 2, out, 1));
    }
    return HK_OK;
}

static hk_status resize_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    hk_args a = hk_node_args(g->ctx, n);
    const resize_attrs *t = n->attrs;
    const hk_taps *taps[HK_MAX_RANK];
    hk_value *x = n->in[0];
    resize r;
    HK_TRY(read_resize(&a, &r));
    HK_TRY(all_taps(&a, g->arena, &r, t, taps));
    bool plain = x->dtype == HK_FLOAT32 || x->dtype == HK_FLOAT64;
    if (!plain && r.method == NEAREST && r.coordinates != CROP)
        return expand_gathers(g, x, taps, out);
    if (!plain)
        HK_TRY(hk_build_cast(g, x, HK_FLOAT32, &x));
    HK_TRY(hk_build_resample(g, x, taps, (double)t->extrapolation_value, out));
    return plain ? HK_OK : hk_build_cast(g, *out, n->in[0]->dtype, out);
}

/* ---- cases */

static const char *const resize_cases[] = {
    "f32[1,2,4,4] - f32={1,1,2,2}",
    "f32[1,2,5,7] - - i64={1,2,10,8} ; mode=\"linear\"",
    "f32[2,3,6,8] - f32={1,1,0.5,1.5} ; mode=\"linear\" coordinate_transformation_mode=\"align_corners\"",
    "f32[1,2,5,6] - - i64={1,2,7,12} ; mode=\"cubic\"",
    "f32[1,2,8,6] - - i64={1,2,5,4} ; mode=\"cubic\" cubic_coeff_a=-0.5 exclude_outside=1",
    "f32[1,2,8,9] - - i64={1,2,4,3} ; mode=\"linear\" antialias=1",
    "f32[1,1,12,9] - - i64={1,1,3,4} ; mode=\"cubic\" antialias=1 exclude_outside=1",
    "f32[1,3,4,4] - - i64={6,8} ; mode=\"linear\" axes=[2,3] coordinate_transformation_mode=\"pytorch_half_pixel\"",
    "f32[1,6,4,4] - - i64={8,7} ; mode=\"linear\" axes=[-2,1] coordinate_transformation_mode=\"half_pixel_symmetric\"",
    "f32[1,4,6,8] - - i64={1,3,9,8} ; mode=\"linear\"",
    "f32[1,1,4,5] f32={0,0,0.4,0.6,1,1,0.6,1.7} - i64={1,1,3,3} ; mode=\"linear\" extrapolation_value=10.0 "
    "coordinate_transformation_mode=\"tf_crop_and_resize\"",
    "f32[1,1,4,5] f32={0.2,-0.5,0.9,1.2} - i64={4,8} ; axes=[2,3] extrapolation_value=10.0 "
    "coordinate_transformation_mode=\"tf_crop_and_resize\"",
    "f32[1,2,3,4,5] - - i64={1,2,5,6,8} ; mode=\"linear\"",
    "f32[2,3,9] - f32={1,1,2.5} ; mode=\"linear\"",
    "f32[7] - f32={0.6} ; nearest_mode=\"ceil\" coordinate_transformation_mode=\"asymmetric\"",
    "f32[1,1,3,4] - - i64={5,9} ; axes=[2,3] keep_aspect_ratio_policy=\"not_larger\"",
    "f32[1,1,3,4] - - i64={5,9} ; axes=[2,3] keep_aspect_ratio_policy=\"not_smaller\" nearest_mode=\"floor\"",
    "f32[1,1,2,3] - f32={1,1,1,1}",
    "i64[1,1,4,4]<99 - - i64={1,1,7,3} ; nearest_mode=\"round_prefer_ceil\" ; nograd",
    "u8[1,1,4,4]<200 - - i64={1,1,7,3} ; ; nograd",
    "i32[1,1,4,4]<999 - - i64={1,1,8,8} ; mode=\"linear\" ; nograd",
    "f16[1,2,4,6] - - i64={1,2,7,8} ; mode=\"linear\" ; nograd tol=1e-3 storage16",
    "f16[1,2,4,6] - - i64={1,2,7,8} ; ; nograd storage16",
    "f32[0,2,4,4] - f32={1,1,2,2} ; mode=\"linear\" ; nograd",
    "f32[1,2,4,4] - - i64={1,2,0,4} ; mode=\"linear\" ; nograd",
    "f32[8,16,20,24] - f32={1,1,2,2} ; mode=\"linear\" ; nograd",
    NULL,
};
static const char *const resize_10_cases[] = {"f32[1,1,2,4] f32={1,1,0.6,0.6}", "f32[1,1,2,4] f32={1,1,2,3}",
                                              "f32[1,1,2,4] f32={1,1,2,1.5} ; mode=\"linear\"", NULL};
static const char *const upsample_7_cases[] = {"f32[1,1,2,2] ; scales=[1.0,1.0,2.0,3.0]",
                                               "f32[1,1,2,2] ; scales=[1.0,1.0,2.0,3.0] mode=\"bilinear\"", NULL};

#define RESIZE_OP(name, first, last, ins_min, ins_max, hosts, list, case_list)                                         \
    {                                                                                                                  \
        .type = name, .since = first, .until = last, .in_min = ins_min, .in_max = ins_max, .out_min = 1, .out_max = 1, \
        .host_inputs = hosts, .attrs_bytes = sizeof(resize_attrs), .attrs = list, .infer = resize_infer,               \
        .eval = resize_eval, .expand = resize_expand, .cases = case_list                                               \
    }

const hk_op hk_ops_resize[] = {
    RESIZE_OP("Resize", 10, 10, 2, 2, 2, old_attr_list, resize_10_cases),
    RESIZE_OP("Resize", 11, 0, 1, 4, 0xe, attr_list, resize_cases),
    RESIZE_OP("Upsample", 7, 8, 1, 1, 0, upsample_7_attr_list, upsample_7_cases),
    RESIZE_OP("Upsample", 9, 9, 2, 2, 2, old_attr_list, resize_10_cases),
    {0},
};
