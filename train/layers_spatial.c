/* Convolutions and pools, adaptive ones too. */
#include <math.h>
#include <stdio.h>

#include "train/layers.h"

enum { SPATIAL = 3 };

/* Kinds stand in threes, for one, two and three spatial dimensions. */
static int32_t spatial_rank(const hk_layering *b)
{
    return (int32_t)(b->l->kind - HK_LAYER_CONV1D) % SPATIAL + 1;
}

typedef struct window {
    int32_t rank;
    int64_t kernel[SPATIAL], stride[SPATIAL], dilation[SPATIAL], output_padding[SPATIAL];
    int64_t pads[2 * SPATIAL]; /* begins, then ends */
} window;

/* One number per dimension: a 0 behind the first repeats it, -1 is a 0 that is meant. */
static void spread(const int64_t *from, int32_t rank, int64_t unset, int64_t *to)
{
    for (int32_t i = 0; i < rank; i++) {
        int64_t given = i && !from[i] ? from[0] : from[i];
        to[i] = !given ? unset : given == -1 ? 0 : given;
    }
}

static bool read_window(hk_layering *b, bool pool, window *w)
{
    const hk_layer *l = b->l;
    int64_t padding[SPATIAL];
    w->rank = spatial_rank(b);
    spread(l->kernel, w->rank, 0, w->kernel);
    spread(l->stride, w->rank, 0, w->stride);
    spread(l->dilation, w->rank, 1, w->dilation);
    spread(l->padding, w->rank, 0, padding);
    spread(l->output_padding, w->rank, 0, w->output_padding);
    for (int32_t i = 0; i < w->rank; i++) {
        w->stride[i] = w->stride[i] ? w->stride[i] : pool ? w->kernel[i] : 1;
        w->pads[i] = w->pads[w->rank + i] = padding[i];
        if (w->kernel[i] < 1 || w->stride[i] < 1 || w->dilation[i] < 1 || padding[i] < 0 || w->output_padding[i] < 0) {
            hk_layer_fail(b,
                          "kernel %lld, stride %lld, dilation %lld, padding %lld in dimension %d: the first three "
                          "begin at 1, padding at 0",
                          (long long)w->kernel[i], (long long)w->stride[i], (long long)w->dilation[i],
                          (long long)padding[i], (int)i);
            return false;
        }
        if (pool && padding[i] > w->kernel[i] / 2) {
            hk_layer_fail(b, "padding %lld is more than half of kernel %lld", (long long)padding[i],
                          (long long)w->kernel[i]);
            return false;
        }
    }
    return true;
}

hk_value *hk_layer_conv(hk_layering *b, hk_value *x)
{
    const hk_layer *l = b->l;
    bool transposed = l->kind >= HK_LAYER_CONV_TRANSPOSE1D;
    int64_t groups = l->groups ? l->groups : 1, out = l->out;
    window w;
    if (!hk_layer_rank(b, x, spatial_rank(b) + 2, spatial_rank(b) + 2) || !read_window(b, false, &w))
        return NULL;
    int64_t in = hk_layer_extent(b, x, 1, l->in);
    if (out < 1)
        return hk_layer_fail(b, "out is %lld, expected the number of channels it makes", (long long)out);
    if (in && (groups < 1 || in % groups || out % groups))
        return hk_layer_fail(b, "groups is %lld, expected a divisor of %lld and %lld channels", (long long)groups,
                             (long long)in, (long long)out);
    hk_shape shape = {.rank = w.rank + 2, .dim = {transposed ? in : out, (transposed ? out : in) / groups}};
    double fan_in = (double)shape.dim[1];
    for (int32_t i = 0; i < w.rank; i++) {
        shape.dim[2 + i] = w.kernel[i];
        fan_in *= (double)w.kernel[i];
    }
    double bound = fan_in > 0 ? 1 / sqrt(fan_in) : 0;
    hk_value *weight = hk_layer_parameter(b, "weight", &shape, HK_INITIAL_UNIFORM, bound);
    hk_value *bias = l->no_bias ? NULL
                                : hk_layer_parameter(b, "bias", &(hk_shape){.rank = 1, .dim = {out}},
                                                     HK_INITIAL_UNIFORM, bound);
    const hk_attr_value attrs[] = {HK_SET_INTS("kernel_shape", w.kernel, w.rank),
                                   HK_SET_INTS("strides", w.stride, w.rank),
                                   HK_SET_INTS("dilations", w.dilation, w.rank),
                                   HK_SET_INTS("pads", w.pads, 2 * w.rank),
                                   HK_SET_INT("group", groups),
                                   transposed ? (hk_attr_value)HK_SET_INTS("output_padding", w.output_padding, w.rank)
                                              : (hk_attr_value){0},
                                   {0}};
    return hk_layer_node(b, transposed ? "ConvTranspose" : "Conv", attrs, (hk_value *[]){x, weight, bias},
                         bias ? 3 : 2);
}

hk_value *hk_layer_pool(hk_layering *b, hk_value *x)
{
    bool average = b->l->kind >= HK_LAYER_AVG_POOL1D;
    window w;
    if (!hk_layer_rank(b, x, spatial_rank(b) + 2, spatial_rank(b) + 2) || !read_window(b, true, &w))
        return NULL;
    const hk_attr_value attrs[] = {HK_SET_INTS("kernel_shape", w.kernel, w.rank),
                                   HK_SET_INTS("strides", w.stride, w.rank),
                                   HK_SET_INTS("dilations", w.dilation, w.rank),
                                   HK_SET_INTS("pads", w.pads, 2 * w.rank),
                                   HK_SET_INT("ceil_mode", b->l->ceil),
                                   average ? (hk_attr_value)HK_SET_INT("count_include_pad", !b->l->exclude_padding)
                                           : (hk_attr_value){0},
                                   {0}};
    return hk_layer_node(b, average ? "AveragePool" : "MaxPool", attrs, &x, 1);
}

/* ---- adaptive: window i of n covers [floor(i L / n), ceil((i + 1) L / n)) */

static int64_t window_begin(int64_t i, int64_t extent, int64_t windows)
{
    return i * extent / windows;
}

static int64_t window_end(int64_t i, int64_t extent, int64_t windows)
{
    return ((i + 1) * extent + windows - 1) / windows;
}

/* (windows, extent) for a product from the left, else (extent, windows): each window's elements have the weight
 * 1/count. Integers until the division, so that whoever loads the file sees no weight to train. */
static hk_value *averages(hk_layering *b, int32_t axis, int64_t extent, int64_t windows, bool left)
{
    const hk_attr_value to_float[] = {HK_SET_INT("to", HK_FLOAT32), {0}};
    hk_shape shape = {.rank = 2, .dim = {left ? windows : extent, left ? extent : windows}};
    hk_shape counts = {.rank = 2, .dim = {left ? windows : 1, left ? 1 : windows}};
    char what[2][32];
    void *inside = NULL, *count = NULL;
    snprintf(what[0], sizeof what[0], "windows%d", (int)axis);
    snprintf(what[1], sizeof what[1], "counts%d", (int)axis);
    hk_value *mask = hk_layer_constant(b, what[0], HK_UINT8, &shape, &inside);
    hk_value *divisor = hk_layer_constant(b, what[1], HK_INT32, &counts, &count);
    if (!mask || !divisor)
        return NULL;
    for (int64_t i = 0; i < windows; i++) {
        int64_t begin = window_begin(i, extent, windows), end = window_end(i, extent, windows);
        ((int32_t *)count)[i] = (int32_t)(end - begin);
        for (int64_t k = begin; k < end; k++)
            ((uint8_t *)inside)[left ? i * extent + k : k * windows + i] = 1;
    }
    mask = hk_layer_node(b, "Cast", to_float, &mask, 1);
    divisor = hk_layer_node(b, "Cast", to_float, &divisor, 1);
    return hk_layer_binary(b, "Div", mask, divisor);
}

static hk_value *matrices(hk_layering *b, hk_value *x, int32_t rank, const int64_t *size)
{
    int64_t extent[SPATIAL] = {0};
    for (int32_t i = 0; i < rank; i++)
        extent[i] = hk_layer_extent(b, x, 2 + i, 0);
    if (b->st != HK_OK)
        return NULL;
    hk_value *y = x;
    if (rank == 3) { /* depth first, over rows of a plane */
        y = hk_layer_reshape(b, y, 4, (int64_t[]){0, 0, extent[0], extent[1] * extent[2]});
        y = hk_layer_binary(b, "MatMul", averages(b, 0, extent[0], size[0], true), y);
        y = hk_layer_reshape(b, y, 5, (int64_t[]){0, 0, size[0], extent[1], extent[2]});
    }
    if (rank >= 2)
        y = hk_layer_binary(b, "MatMul", averages(b, rank - 2, extent[rank - 2], size[rank - 2], true), y);
    return hk_layer_binary(b, "MatMul", y, averages(b, rank - 1, extent[rank - 1], size[rank - 1], false));
}

hk_value *hk_layer_adaptive(hk_layering *b, hk_value *x)
{
    bool average = b->l->kind <= HK_LAYER_ADAPTIVE_AVG_POOL3D, one = true, even = true;
    int32_t rank = spatial_rank(b);
    int64_t size[SPATIAL], kernel[SPATIAL] = {0};
    hk_shape_text text;
    spread(b->l->size, rank, 0, size);
    if (!hk_layer_rank(b, x, rank + 2, rank + 2))
        return NULL;
    for (int32_t i = 0; i < rank; i++) {
        int64_t extent = x->shape.dim[2 + i];
        if (size[i] < 1)
            return hk_layer_fail(b, "size is %lld in dimension %d, expected 1 or more", (long long)size[i], (int)i);
        one &= size[i] == 1;
        even &= extent > 0 && extent % size[i] == 0;
        kernel[i] = extent / size[i];
    }
    if (one)
        return hk_layer_unary(b, average ? "GlobalAveragePool" : "GlobalMaxPool", x);
    const hk_attr_value attrs[] = {
        HK_SET_INTS("kernel_shape", kernel, rank), HK_SET_INTS("strides", kernel, rank), {0}};
    if (even)
        return hk_layer_node(b, average ? "AveragePool" : "MaxPool", attrs, &x, 1);
    if (average)
        return matrices(b, x, rank, size);
    return hk_layer_fail(b,
                         "its input %s does not divide evenly into windows, which ONNX's MaxPool needs: choose sizes "
                         "that divide it, or average",
                         hk_shape_print(&x->shape, &text));
}
