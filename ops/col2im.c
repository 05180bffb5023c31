/*
 * Col2Im(columns, image_shape, block_shape): (n, c * taps, blocks) put back into (n, c, image), overlaps summed; and
 * its gradient hk.Im2Col(image; ...), which is Col2Im's once more.
 */
#include <string.h>

#include "kernels.h"
#include "ops/divisor.h"
#include "ops/support/build.h"
#include "ops/support/conv_geometry.h"
#include "ops/support/move.h"
#include "ops/support/move_args.h"
#include "ops/support/reduce.h"
#include "shaders/columns.push.h"

typedef struct columns_attrs {
    hk_window_attrs window; /* kernel_shape: of hk.Im2Col, the block */
} columns_attrs;

#define COLUMNS_ATTRS                                                                                                  \
    {.name = "dilations", .kind = HK_ATTR_INTS, .offset = offsetof(columns_attrs, window.dilations)},                  \
        {.name = "pads", .kind = HK_ATTR_INTS, .offset = offsetof(columns_attrs, window.pads)},                        \
    {                                                                                                                  \
        .name = "strides", .kind = HK_ATTR_INTS, .offset = offsetof(columns_attrs, window.strides)                     \
    }
static const hk_attr sum_attr_list[] = {COLUMNS_ATTRS, {0}};
static const hk_attr gather_attr_list[] = {COLUMNS_ATTRS,
                                           {.name = "kernel_shape",
                                            .kind = HK_ATTR_INTS,
                                            .offset = offsetof(columns_attrs, window.kernel_shape),
                                            .required = true},
                                           {0}};

/* ---- geometry */

/* image: (n, c, extents), the window's input; block: extents of the window. */
static hk_status resolve(const hk_args *a, const hk_shape *image, const int64_t *block, int32_t count, hk_window *w)
{
    hk_problem_text problem;
    if (image->rank != count + 2)
        return hk_args_fail(a, "expected a block of as many extents as the image has, found %d and %d", (int)count,
                            (int)image->rank - 2);
    for (int32_t i = 0; i < count; i++)
        if (block[i] < 1 || image->dim[2 + i] < 1)
            return hk_args_fail(a, "expected positive extents of image and block");
    if (!hk_window_resolve(&((const columns_attrs *)a->node->attrs)->window, image, block, w, &problem))
        return hk_args_fail(a, "%s", problem.text);
    double taps = 1, places = 1;
    for (int32_t d = 0; d < HK_AXES; d++) {
        taps *= (double)w->kernel[d];
        places *= (double)w->out[d];
    }
    if (taps > INT32_MAX || places > INT32_MAX)
        return hk_args_fail(a, "%g elements of a block and %g blocks are too many", taps, places);
    return HK_OK;
}

/* image is of unknown rank while the operands are not known. */
static hk_status read_sum(const hk_args *a, hk_shape *image, hk_window *w)
{
    hk_shape x = hk_args_shape(a, 0);
    int64_t size[HK_AXES], block[HK_AXES];
    int32_t sizes, blocks;
    *image = HK_SHAPE_UNKNOWN;
    HK_TRY(hk_args_ints(a, 1, "image_shape", size, HK_AXES, &sizes));
    HK_TRY(hk_args_ints(a, 2, "block_shape", block, HK_AXES, &blocks));
    if (sizes < 0 || blocks < 0 || x.rank < 0)
        return HK_OK;
    if (x.rank != 3 || sizes < 1)
        return hk_args_fail(a, "expected columns of rank 3 and an image_shape of 1 to 3 entries");
    hk_shape y = {.rank = sizes + 2, .dim = {x.dim[0], -1}};
    memcpy(y.dim + 2, size, (size_t)sizes * sizeof *size);
    HK_TRY(resolve(a, &y, block, blocks, w));
    int64_t taps = hk_window_taps(w), places = hk_window_out_count(w);
    if ((x.dim[1] >= 0 && x.dim[1] % taps) || (x.dim[2] >= 0 && x.dim[2] != places))
        return hk_args_fail(a, "expected columns [batch,channels * %lld,%lld], found [?,%lld,%lld]", (long long)taps,
                            (long long)places, (long long)x.dim[1], (long long)x.dim[2]);
    y.dim[1] = x.dim[1] < 0 ? -1 : x.dim[1] / taps;
    *image = y;
    return HK_OK;
}

static hk_status read_gather(const hk_args *a, hk_shape *columns, hk_window *w)
{
    hk_ints block = ((const columns_attrs *)a->node->attrs)->window.kernel_shape;
    hk_shape image = hk_args_shape(a, 0);
    if (!hk_shape_known(&image))
        return hk_args_fail(a, "expected an image of known shape");
    HK_TRY(resolve(a, &image, block.v, block.count, w));
    *columns = (hk_shape){3, {image.dim[0], image.dim[1] * hk_window_taps(w), hk_window_out_count(w)}};
    return HK_OK;
}

static hk_status sum_infer(hk_infer *in)
{
    hk_args a = hk_infer_args(in);
    hk_shape image;
    hk_window w;
    if (!hk_dtype_is_float(in->node->in[0]->dtype))
        return hk_infer_fail(in, HK_STATUS_UNSUPPORTED, "expected a float input, found %s",
                             hk_dtype_name(in->node->in[0]->dtype));
    HK_TRY(read_sum(&a, &image, &w));
    return hk_infer_output(in, 0, in->node->in[0]->dtype, &image);
}

static hk_status gather_infer(hk_infer *in)
{
    hk_args a = hk_infer_args(in);
    hk_shape columns;
    hk_window w;
    HK_TRY(read_gather(&a, &columns, &w));
    return hk_infer_output(in, 0, in->node->in[0]->dtype, &columns);
}

/* ---- the oracle */

/* The image's element that element i of the columns is, or -1. */
static int64_t element_of(const hk_window *w, int64_t i)
{
    int64_t places = hk_window_out_count(w), taps = hk_window_taps(w), at[HK_AXES];
    int64_t place = i % places, tap = i / places % taps, index = i / (places * taps);
    bool inside = true;
    for (int32_t d = HK_AXES - 1; d >= 0; d--) {
        at[d] = place % w->out[d] * w->stride[d] - w->begin[d] + tap % w->kernel[d] * w->dilation[d];
        place /= w->out[d];
        tap /= w->kernel[d];
        inside &= at[d] >= 0 && at[d] < w->in[d];
    }
    for (int32_t d = 0; d < HK_AXES; d++)
        index = index * w->in[d] + at[d];
    return inside ? index : -1;
}

static hk_status sum_eval(hk_eval *e)
{
    hk_args a = hk_eval_args(e);
    hk_shape image;
    hk_window w;
    HK_TRY(read_sum(&a, &image, &w));
    hk_tensor *out = hk_eval_output(e, 0, e->in[0]->dtype, &image);
    double *y = out ? hk_tensor_doubles(e->arena, out) : NULL;
    if (!y)
        return hk_out_of_memory(e->ctx, "evaluating Col2Im");
    for (int64_t i = 0; i < hk_tensor_count(e->in[0]); i++) {
        int64_t to = element_of(&w, i);
        if (to >= 0)
            y[to] += hk_get_double(e->in[0], i);
    }
    for (int64_t i = 0; i < hk_tensor_count(out); i++)
        hk_set_double(out, i, y[i]);
    return HK_OK;
}

static hk_status gather_eval(hk_eval *e)
{
    hk_args a = hk_eval_args(e);
    hk_shape columns;
    hk_window w;
    HK_TRY(read_gather(&a, &columns, &w));
    hk_tensor *y = hk_eval_output(e, 0, e->in[0]->dtype, &columns);
    if (!y)
        return hk_out_of_memory(e->ctx, "evaluating hk.Im2Col");
    for (int64_t i = 0; i < hk_tensor_count(y); i++) {
        int64_t from = element_of(&w, i);
        hk_set_double(y, i, from < 0 ? 0 : hk_get_double(e->in[0], from));
    }
    return HK_OK;
}

/* ---- the device */

static hk_status emit(hk_lower *l, const hk_kernel *kernel, const char *variant, const hk_window *w,
                      const int64_t split[HK_AXES])
{
    hk_value *from = l->node->in[0], *to = l->node->out[0];
    int64_t count = hk_shape_count(&to->shape);
    struct columns_push push = {.count = (uint32_t)count};
    uint32_t *in = &push.in_d, *out = &push.out_d, *pad = &push.pad_d, *divisor = &push.magic_d;
    HK_TRY(hk_require_float32(l, from));
    if (count == 0)
        return HK_OK;
    hk_record *r = hk_emit(l, kernel, variant);
    for (uint32_t axis = 0; axis < HK_AXES; axis++) {
        hk_divisor d = hk_divisor_of(split[axis]);
        in[axis] = (uint32_t)w->in[axis];
        out[axis] = (uint32_t)w->out[axis];
        pad[axis] = (uint32_t)w->begin[axis];
        divisor[2 * axis] = d.multiplier;
        divisor[2 * axis + 1] = d.shift;
        hk_spec(r, 3 + axis, (uint32_t)w->kernel[axis]);
        hk_spec(r, 6 + axis, (uint32_t)w->stride[axis]);
        hk_spec(r, 9 + axis, (uint32_t)w->dilation[axis]);
    }
    hk_push(r, &push, sizeof push);
    hk_use(r, from, HK_READ, offsetof(struct columns_push, from));
    hk_use(r, to, HK_WRITE, offsetof(struct columns_push, to));
    hk_move_grid(l, r, count);
    r->flops = (double)hk_shape_count(&from->shape);
    return HK_OK;
}

static hk_status sum_lower(hk_lower *l)
{
    hk_args a = hk_node_args(l->ctx, l->node);
    hk_shape image;
    hk_window w;
    HK_TRY(read_sum(&a, &image, &w));
    return emit(l, &hk_kernel_columns_sum, "columns to image", &w, w.in);
}

static hk_status gather_lower(hk_lower *l)
{
    hk_args a = hk_node_args(l->ctx, l->node);
    hk_shape columns;
    hk_window w;
    HK_TRY(read_gather(&a, &columns, &w));
    return emit(l, &hk_kernel_columns_gather, "image to columns", &w, w.out);
}

/* ---- gradients: each is the other's */

static int window_values(const hk_node *n, hk_attr_value values[5])
{
    const hk_window_attrs *t = &((const columns_attrs *)n->attrs)->window;
    int k = 0;
    if (t->strides.v)
        values[k++] = (hk_attr_value)HK_SET_INTS("strides", t->strides.v, t->strides.count);
    if (t->dilations.v)
        values[k++] = (hk_attr_value)HK_SET_INTS("dilations", t->dilations.v, t->dilations.count);
    if (t->pads.v)
        values[k++] = (hk_attr_value)HK_SET_INTS("pads", t->pads.v, t->pads.count);
    return k;
}

static hk_status sum_backward(hk_gradient *g, hk_node *n)
{
    hk_graph *graph = hk_gradient_graph(g);
    hk_args a = hk_node_args(graph->ctx, n);
    hk_attr_value values[5] = {{0}};
    int64_t block[HK_AXES];
    int32_t count;
    hk_value *dx;
    HK_TRY(hk_args_ints(&a, 2, "block_shape", block, HK_AXES, &count));
    if (count < 0 || !hk_shape_known(&n->in[0]->shape))
        return hk_args_shape_wanted(&a);
    values[window_values(n, values)] = (hk_attr_value)HK_SET_INTS("kernel_shape", block, count);
    HK_TRY(hk_build(graph, "hk.Im2Col", values, (hk_value *[]){hk_gradient_of(g, n->out[0])}, 1, &dx, 1));
    return hk_gradient_add(g, n->in[0], dx);
}

static hk_status gather_backward(hk_gradient *g, hk_node *n)
{
    hk_graph *graph = hk_gradient_graph(g);
    hk_attr_value values[5] = {{0}};
    hk_ints block = ((const columns_attrs *)n->attrs)->window.kernel_shape;
    const hk_shape *x = &n->in[0]->shape;
    hk_value *size = hk_graph_ints(graph, x->dim + 2, x->rank - 2),
             *extents = hk_graph_ints(graph, block.v, block.count), *dx;
    if (!size || !extents)
        return HK_STATUS_OUT_OF_MEMORY;
    window_values(n, values);
    HK_TRY(hk_build(graph, "Col2Im", values, (hk_value *[]){hk_gradient_of(g, n->out[0]), size, extents}, 3, &dx, 1));
    return hk_gradient_add(g, n->in[0], dx);
}

static const char *const sum_cases[] = {
    "f32[1,5,5] i64={5,5} i64={1,5}",
    "f32[2,18,12] i64={5,6} i64={3,3}",
    "f32[1,8,4] i64={5,7} i64={2,2} ; strides=[2,3] dilations=[1,2] pads=[0,0,0,0]",
    "f32[1,6,25] i64={6,5} i64={2,3} ; pads=[0,1,0,1]",
    "f32[2,6,4] i64={9} i64={3} ; strides=[2]",
    "f32[1,8,8] i64={3,3,3} i64={2,2,2}",
    "f32[0,6,4] i64={9} i64={3} ; strides=[2] ; nograd",
    NULL,
};
static const char *const gather_cases[] = {
    "f32[2,3,5,6] ; kernel_shape=[3,2] strides=[2,1] pads=[1,0,1,1]",
    "f32[1,2,9] ; kernel_shape=[3] dilations=[2]",
    "f32[1,2,3,4,3] ; kernel_shape=[2,2,3]",
    "f32[0,2,9] ; kernel_shape=[3] ; nograd",
    NULL,
};

#define OP(name, from, ins, hosts, list, fn, case_list)                                                                \
    {                                                                                                                  \
        .type = name, .since = from, .in_min = ins, .in_max = ins, .out_min = 1, .out_max = 1, .host_inputs = hosts,   \
        .attrs_bytes = sizeof(columns_attrs), .attrs = list, .infer = fn##_infer, .eval = fn##_eval,                   \
        .lower = fn##_lower, .backward = fn##_backward, .cases = case_list                                             \
    }

const hk_op hk_ops_col2im[] = {
    OP("Col2Im", 18, 3, 6, sum_attr_list, sum, sum_cases),
    OP("hk.Im2Col", 1, 1, 0, gather_attr_list, gather, gather_cases),
    {0},
};
