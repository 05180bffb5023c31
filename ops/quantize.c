/*
 * Quantization: values y stand for (y - zero point) * scale. All of it expands: QuantizeLinear and DequantizeLinear
 * into elementwise nodes that fuse to one pass, integer products into integer MatMul.
 *
 * Scales and zero points lie per tensor (one element), per axis (rank 1), or per block along the axis (rank of x).
 * Results are rounded half to even in the type that divides: that of the scale, or what `precision` says.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "ops/op.h"
#include "ops/support/build.h"
#include "ops/support/quantize.h"

typedef struct quantize_attrs {
    int64_t axis, block_size, output_dtype, saturate, precision;
} quantize_attrs;

static const hk_attr quantize_list[] = {
    HK_INT_ATTR(quantize_attrs, axis, 1),         HK_INT_ATTR(quantize_attrs, block_size, 0),
    HK_INT_ATTR(quantize_attrs, output_dtype, 0), HK_INT_ATTR(quantize_attrs, saturate, 1),
    HK_INT_ATTR(quantize_attrs, precision, 0),    {0}};
static const hk_attr dequantize_list[] = {HK_INT_ATTR(quantize_attrs, axis, 1),
                                          HK_INT_ATTR(quantize_attrs, block_size, 0),
                                          HK_INT_ATTR(quantize_attrs, output_dtype, 0),
                                          {0}};

enum { IN_X, IN_SCALE, IN_ZERO };

static const quantize_attrs *attrs_of(const hk_node *n)
{
    return n->attrs;
}

/* ---- where scale and zero point lie */

typedef struct blocks {
    int32_t axis;
    int64_t size; /* elements of x along the axis that share a scale: 0: all of the tensor */
} blocks;

/* False with a sentence's end in *problem. */
static bool find_blocks(const hk_node *n, const hk_shape *x, const hk_shape *s, blocks *b, const char **problem)
{
    *b = (blocks){.axis = hk_axis(attrs_of(n)->axis, x->rank)};
    if (hk_shape_count(s) == 1 && s->rank <= 1)
        return true;
    *problem = "its axis is outside of x";
    if (b->axis < 0)
        return false;
    *problem = "the scale has neither one element, nor one for each index of the axis, nor one for each block";
    if (s->rank == 1) {
        b->size = 1;
        return s->dim[0] == x->dim[b->axis];
    }
    bool fits = s->rank == x->rank && s->dim[b->axis] > 0;
    for (int32_t i = 0; i < x->rank && fits; i++)
        fits = i == b->axis || s->dim[i] == x->dim[i];
    if (!fits)
        return false;
    int64_t extent = x->dim[b->axis], count = s->dim[b->axis];
    b->size = attrs_of(n)->block_size > 0 ? attrs_of(n)->block_size : (extent + count - 1) / count;
    return (extent + b->size - 1) / b->size == count;
}

/* Which element of the scale belongs to element i of x. */
static int64_t scale_index(const blocks *b, const hk_shape *x, const hk_shape *s, int64_t i)
{
    if (b->size == 0)
        return 0;
    int64_t inner = hk_shape_span(x, b->axis + 1, x->rank), extent = x->dim[b->axis];
    int64_t along = i / inner % extent;
    if (s->rank == 1)
        return along;
    return (i / inner / extent * s->dim[b->axis] + along / b->size) * inner + i % inner;
}

/* Each element along the axis `size` times, cut off at x's extent. */
static hk_status build_repeated(hk_graph *g, hk_value *v, const hk_shape *x, const blocks *b, hk_value **out)
{
    hk_shape split = {.rank = x->rank + 1}, spread, joined = v->shape;
    int64_t pads[2 * HK_MAX_RANK] = {0};
    if (split.rank > HK_MAX_RANK)
        return hk_fail(g->ctx, HK_STATUS_UNSUPPORTED, "quantization in blocks is supported up to rank %d",
                       HK_MAX_RANK - 1);
    for (int32_t i = 0; i < split.rank; i++)
        split.dim[i] = i <= b->axis ? v->shape.dim[i] : i == b->axis + 1 ? 1 : v->shape.dim[i - 1];
    spread = split;
    spread.dim[b->axis + 1] = b->size;
    joined.dim[b->axis] *= b->size;
    hk_value *dims = hk_graph_ints(g, spread.dim, spread.rank);
    if (!dims)
        return HK_STATUS_OUT_OF_MEMORY;
    HK_TRY(hk_build_reshape(g, v, &split, &v));
    HK_TRY(hk_build_binary(g, "Expand", v, dims, &v));
    HK_TRY(hk_build_reshape(g, v, &joined, out));
    pads[x->rank + b->axis] = x->dim[b->axis] - joined.dim[b->axis];
    return pads[x->rank + b->axis] ? hk_build_pad(g, *out, pads, out) : HK_OK;
}

/* The scale or zero point under a shape that broadcasts with x. */
static hk_status build_spread(hk_graph *g, const hk_node *n, hk_value *v, hk_value **out)
{
    const hk_value *x = n->in[IN_X];
    const char *problem = NULL;
    blocks b;
    find_blocks(n, &x->shape, &v->shape, &b, &problem);
    hk_shape shape = HK_SCALAR;
    if (b.size == 0)
        return hk_build_reshape(g, v, &shape, out);
    if (v->shape.rank == 1) {
        shape.rank = x->shape.rank - b.axis;
        for (int32_t i = 0; i < shape.rank; i++)
            shape.dim[i] = i == 0 ? v->shape.dim[0] : 1;
        return hk_build_reshape(g, v, &shape, out);
    }
    return build_repeated(g, v, &x->shape, &b, out);
}

/* ---- QuantizeLinear */

static hk_status check_scale(hk_infer *in)
{
    const hk_node *n = in->node;
    const hk_value *x = n->in[IN_X], *s = n->in[IN_SCALE], *z = hk_in(n, IN_ZERO);
    const char *problem = NULL;
    blocks b;
    if (!hk_dtype_is_float(s->dtype))
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected a scale of floats, found %s", hk_dtype_name(s->dtype));
    if (!hk_shape_known(&x->shape) || !hk_shape_known(&s->shape))
        return HK_OK;
    hk_shape_text a, c;
    if (!find_blocks(n, &x->shape, &s->shape, &b, &problem))
        return hk_infer_fail(in, HK_STATUS_INVALID, "x is %s, the scale %s: %s", hk_shape_print(&x->shape, &a),
                             hk_shape_print(&s->shape, &c), problem);
    if (z && hk_shape_known(&z->shape) && hk_shape_count(&z->shape) != hk_shape_count(&s->shape))
        return hk_infer_fail(in, HK_STATUS_INVALID, "the scale is %s, the zero point %s", hk_shape_print(&s->shape, &a),
                             hk_shape_print(&z->shape, &c));
    return HK_OK;
}

static hk_dtype quantized_type(const hk_node *n)
{
    const hk_value *z = hk_in(n, IN_ZERO);
    return z ? z->dtype : attrs_of(n)->output_dtype ? (hk_dtype)attrs_of(n)->output_dtype : HK_UINT8;
}

/* Scales that are powers of two alone divide in float32. */
static hk_dtype dividing_type(const hk_node *n)
{
    hk_dtype type = attrs_of(n)->precision ? (hk_dtype)attrs_of(n)->precision : n->in[IN_SCALE]->dtype;
    return !attrs_of(n)->precision && hk_dtype_is_small(type) ? HK_FLOAT32 : type;
}

static hk_status quantize_infer(hk_infer *in)
{
    const hk_node *n = in->node;
    hk_dtype to = quantized_type(n), type = dividing_type(n);
    double low, high;
    if (!hk_dtype_is_small(to) && !hk_quantized_range(to, &low, &high))
        return hk_infer_fail(in, HK_STATUS_INVALID, "cannot quantize to %s", hk_dtype_name(to));
    if (attrs_of(n)->precision && (!hk_dtype_is_float(type) || hk_dtype_is_small(type)))
        return hk_infer_fail(in, HK_STATUS_INVALID,
                             "expected a precision of float32, float64, float16 or bfloat16, found element type %lld",
                             (long long)attrs_of(n)->precision);
    HK_TRY(check_scale(in));
    return hk_infer_output(in, 0, to, &n->in[IN_X]->shape);
}

static hk_status quantize_eval(hk_eval *e)
{
    const hk_node *n = e->node;
    const hk_tensor *x = e->in[IN_X], *s = e->in[IN_SCALE], *z = n->in_count > IN_ZERO ? e->in[IN_ZERO] : NULL;
    hk_shape shape = hk_tensor_shape(x), scales = hk_tensor_shape(s);
    hk_dtype to = quantized_type(n), type = dividing_type(n);
    hk_tensor *y = hk_eval_output(e, 0, to, &shape);
    const char *problem = NULL;
    double low, high;
    blocks b;
    bool integers = hk_quantized_range(to, &low, &high);
    if (!find_blocks(n, &shape, &scales, &b, &problem))
        return hk_eval_fail(e, HK_STATUS_INVALID, "%s", problem);
    if (!y)
        return hk_out_of_memory(e->ctx, "a quantized tensor");
    for (int64_t i = 0, count = hk_shape_count(&shape); i < count; i++) {
        int64_t k = scale_index(&b, &shape, &scales, i);
        double q = hk_rounded_to(type,
                                 hk_rounded_to(type, hk_get_double(x, i)) / hk_rounded_to(type, hk_get_double(s, k)));
        if (!integers) {
            q = hk_rounded_to(type, q + (z ? hk_get_double(z, k) : 0.0));
            ((uint8_t *)y->data)[i] = hk_small_from_double(to, q, attrs_of(n)->saturate != 0);
            continue;
        }
        q = nearbyint(q) + (z ? hk_get_double(z, k) : 0.0);
        hk_set_double(y, i, q < low ? low : q > high ? high : q);
    }
    return HK_OK;
}

static hk_status quantize_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    hk_dtype type = dividing_type(n), to = quantized_type(n);
    hk_value *x = NULL, *s = NULL, *z = NULL;
    HK_TRY(hk_build_float(g, n->in[IN_X], type, &x));
    HK_TRY(hk_build_float(g, n->in[IN_SCALE], type, &s));
    HK_TRY(build_spread(g, n, s, &s));
    HK_TRY(hk_build_binary(g, "Div", x, s, &x));
    if (hk_in(n, IN_ZERO))
        HK_TRY(build_spread(g, n, n->in[IN_ZERO], &z));
    if (hk_dtype_is_small(to)) {
        if (z) {
            HK_TRY(hk_build_float(g, z, type, &z));
            HK_TRY(hk_build_binary(g, "Add", x, z, &x));
        }
        const hk_attr_value attrs[] = {HK_SET_INT("to", to), HK_SET_INT("saturate", attrs_of(n)->saturate), {0}};
        return hk_build(g, "Cast", attrs, &x, 1, out, 1);
    }
    HK_TRY(hk_build_unary(g, "Round", x, &x));
    HK_TRY(hk_build_float(g, x, HK_FLOAT32, &x));
    return hk_build_saturated(g, x, z, to, out);
}

/* ---- DequantizeLinear */

static hk_dtype dequantized_type(const hk_node *n, hk_dtype scale)
{
    return attrs_of(n)->output_dtype ? (hk_dtype)attrs_of(n)->output_dtype : scale;
}

/* Differences and products are float32, but for a scale of float64. */
static hk_dtype multiplying_type(hk_dtype scale)
{
    return scale == HK_FLOAT64 ? HK_FLOAT64 : HK_FLOAT32;
}

static hk_status dequantize_infer(hk_infer *in)
{
    const hk_node *n = in->node;
    const hk_value *x = n->in[IN_X], *z = hk_in(n, IN_ZERO);
    double low, high;
    if (!hk_dtype_is_small(x->dtype) && !hk_quantized_range(x->dtype, &low, &high) && x->dtype != HK_INT32)
        return hk_infer_fail(in, HK_STATUS_INVALID, "cannot dequantize %s", hk_dtype_name(x->dtype));
    if (z && z->dtype != x->dtype)
        return hk_infer_fail(in, HK_STATUS_INVALID, "x is %s, the zero point %s", hk_dtype_name(x->dtype),
                             hk_dtype_name(z->dtype));
    if (!hk_dtype_is_float(dequantized_type(n, n->in[IN_SCALE]->dtype)))
        return hk_infer_fail(in, HK_STATUS_INVALID, "cannot dequantize to %s",
                             hk_dtype_name(dequantized_type(n, n->in[IN_SCALE]->dtype)));
    HK_TRY(check_scale(in));
    return hk_infer_output(in, 0, dequantized_type(n, n->in[IN_SCALE]->dtype), &x->shape);
}

static hk_status dequantize_eval(hk_eval *e)
{
    const hk_node *n = e->node;
    const hk_tensor *x = e->in[IN_X], *s = e->in[IN_SCALE], *z = n->in_count > IN_ZERO ? e->in[IN_ZERO] : NULL;
    hk_shape shape = hk_tensor_shape(x), scales = hk_tensor_shape(s);
    hk_dtype type = multiplying_type(s->dtype);
    hk_tensor *y = hk_eval_output(e, 0, dequantized_type(n, s->dtype), &shape);
    const char *problem = NULL;
    blocks b;
    if (!find_blocks(n, &shape, &scales, &b, &problem))
        return hk_eval_fail(e, HK_STATUS_INVALID, "%s", problem);
    if (!y)
        return hk_out_of_memory(e->ctx, "a dequantized tensor");
    for (int64_t i = 0, count = hk_shape_count(&shape); i < count; i++) {
        int64_t k = scale_index(&b, &shape, &scales, i);
        double q = hk_rounded_to(type, hk_get_double(x, i)), zero = z ? hk_rounded_to(type, hk_get_double(z, k)) : 0.0;
        hk_set_double(y, i, hk_rounded_to(type, hk_rounded_to(type, q - zero) * hk_get_double(s, k)));
    }
    return HK_OK;
}

static hk_status dequantize_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    hk_value *x = n->in[IN_X], *z = hk_in(n, IN_ZERO), *s = NULL;
    hk_dtype type = multiplying_type(n->in[IN_SCALE]->dtype);
    HK_TRY(hk_build_float(g, x, type, &x));
    if (z) {
        HK_TRY(build_spread(g, n, z, &z));
        HK_TRY(hk_build_float(g, z, type, &z));
        HK_TRY(hk_build_binary(g, "Sub", x, z, &x));
    }
    HK_TRY(hk_build_float(g, n->in[IN_SCALE], type, &s));
    HK_TRY(build_spread(g, n, s, &s));
    HK_TRY(hk_build_binary(g, "Mul", x, s, &x));
    return hk_build_float(g, x, dequantized_type(n, n->in[IN_SCALE]->dtype), out);
}

/* ---- DynamicQuantizeLinear: to uint8, with the scale that the data asks for */

static hk_status dynamic_infer(hk_infer *in)
{
    const hk_value *x = in->node->in[0];
    if (x->dtype != HK_FLOAT32)
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected float32, found %s", hk_dtype_name(x->dtype));
    HK_TRY(hk_infer_output(in, 0, HK_UINT8, &x->shape));
    HK_TRY(hk_infer_output(in, 1, HK_FLOAT32, &HK_SCALAR));
    return hk_infer_output(in, 2, HK_UINT8, &HK_SCALAR);
}

static hk_status dynamic_eval(hk_eval *e)
{
    const hk_tensor *x = e->in[0];
    hk_shape shape = hk_tensor_shape(x);
    float least = 0, most = 0;
    int64_t count = hk_shape_count(&shape);
    for (int64_t i = 0; i < count; i++) {
        least = fminf(least, (float)hk_get_double(x, i));
        most = fmaxf(most, (float)hk_get_double(x, i));
    }
    float scale = (most - least) / 255.0f;
    float divisor = fmaxf(scale, FLT_MIN); /* of zeros alone the range is none: they stay zeros */
    float zero = nearbyintf(fminf((0.0f - least) / divisor, 255.0f));
    hk_tensor *y = hk_eval_output(e, 0, HK_UINT8, &shape), *s = hk_eval_output(e, 1, HK_FLOAT32, &HK_SCALAR),
              *z = hk_eval_output(e, 2, HK_UINT8, &HK_SCALAR);
    if (!y || !s || !z)
        return hk_out_of_memory(e->ctx, "a quantized tensor");
    hk_set_double(s, 0, (double)scale);
    hk_set_double(z, 0, (double)zero);
    for (int64_t i = 0; i < count; i++)
        hk_set_double(y, i, (double)(nearbyintf((float)hk_get_double(x, i) / divisor) + zero));
    return HK_OK;
}

/* The least or greatest element and 0. */
static hk_status build_bound(hk_graph *g, const char *reduce, const char *with_zero, hk_value *x, hk_value **out)
{
    const hk_attr_value attrs[] = {HK_SET_INT("keepdims", 0), {0}};
    HK_TRY(hk_build(g, reduce, attrs, &x, 1, out, 1));
    return hk_build_scalar(g, with_zero, *out, 0, out);
}

static hk_status dynamic_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    hk_value *x = n->in[0], *least = NULL, *most = NULL, *scale = NULL, *divisor = NULL, *q = NULL;
    if (hk_shape_count(&x->shape) == 0)
        return hk_fail(g->ctx, HK_STATUS_INVALID, "node '%s' (DynamicQuantizeLinear): an empty tensor has no range",
                       n->name);
    HK_TRY(build_bound(g, "ReduceMin", "Min", x, &least));
    HK_TRY(build_bound(g, "ReduceMax", "Max", x, &most));
    HK_TRY(hk_build_binary(g, "Sub", most, least, &scale));
    HK_TRY(hk_build_scalar(g, "Div", scale, 255, &scale));
    HK_TRY(hk_build_scalar(g, "Max", scale, (double)FLT_MIN, &divisor));
    HK_TRY(hk_build_unary(g, "Neg", least, &least));
    HK_TRY(hk_build_binary(g, "Div", least, divisor, &q));
    HK_TRY(
        hk_build_unary(g, "Round", q, &q)); /* after the division nothing is below 0: rounding and clipping commute */
    HK_TRY(hk_build_saturated(g, q, NULL, HK_UINT8, &out[2]));
    HK_TRY(hk_build_binary(g, "Div", x, divisor, &q));
    HK_TRY(hk_build_unary(g, "Round", q, &q));
    HK_TRY(hk_build_saturated(g, q, out[2], HK_UINT8, &out[0]));
    out[1] = scale;
    return HK_OK;
}

/* ---- the table */

static const char *const quantize_cases[] = {
    "f32[3,5] f32=0.03 u8=120",
    "f32[3,5] f32=0.02 i8=3",
    "f32[2,3,4] f32[3]+ u8[3]<0:200",
    "f32[2,3,4] f32[4]+ i8[4]<-9:9 ; axis=-1",
    "f32[2,3,5] f32[2,3,2]+ u8[2,3,2]<0:200 ; axis=2 block_size=3",
    "f32[4,6] f32[2,6]+ ; axis=0 block_size=2 output_dtype=3",
    "f32[3,5] f32=0.0003 u16=30000",
    "f32[3,5] f32[]+ ; output_dtype=5",
    "i32[9]<-900:900 f32=3.0 i8=3",
    "f16[3,5] f16=0.03 u8=120",
    "f32={nan,inf,-inf,1e30,0.5,1.5,2.5,-0.5} f32=1.0 i8=0 ; ; nodevice",
    "f32={inf,-inf,1e30,0.5,1.5,2.5,-0.5} f32=1.0 i8=0",
    "f32[0,4] f32=0.03 u8=1",
    "f32[3,5] f32=0.3 ; output_dtype=22",
    "f32[3,5] f32=0.3 i16=-7 ; precision=10 ; storage16",
    "f32[3,5] e8m0=0.5 i8=3",
    "f32[3,5] f32=0.3 e4m3fn=1.5 ; ; nograd",
    "f32[3,5] f32=0.3 e2m1=-0.5 ; ; nograd",
    "f32[3,5] f32[5]+ e5m2[5] ; saturate=0 ; nograd",
    "f32[3,5] f32=0.3 ; output_dtype=17 ; nograd",
    NULL,
};
static const char *const dequantize_cases[] = {
    "u8[3,5]<0:256 f32=0.03 u8=120",
    "i8[3,5]<-128:128 f32=0.02 i8=3",
    "u8[2,3,4]<0:256 f32[3]+ u8[3]<0:200",
    "i8[2,3,4]<-128:128 f32[4]+ ; axis=-1",
    "u8[2,3,5]<0:256 f32[2,3,2]+ u8[2,3,2]<0:200 ; axis=2 block_size=3",
    "i32[9]<-900:900 f32=3.0",
    "u16[9]<0:65536 f32=0.25 u16=7",
    "i16[9]<-900:900 f16=0.25",
    "i4[3,5]<-8:8 f32=0.3 i4=1",
    "u4[2,6]<0:16 f32[2,3]+ u4[2,3]<0:16 ; axis=1 block_size=2",
    "e4m3fn[9] f32=0.3",
    "e2m1[9] f32=0.3",
    "e4m3fn[9] f32=0.3 e4m3fn=1.5",
    "e2m1[9] f32=0.3 e2m1=-0.5",
    "e5m2[3,5] f32[5]+ e5m2[5]",
    "e5m2fnuz[2,6] f32[2,3]+ e5m2fnuz[2,3] ; axis=1 block_size=2",
    "e4m3fnuz={0.0,448.0,-240.0,0.001} f16=0.25 e4m3fnuz=2.0",
    "u8[3,5]<0:256 e8m0=0.5 u8=9 ; output_dtype=1",
    "u8[3,5]<0:256 f64=0.3 u8=9",
    "i32={2147483647,-2147483648,16777217} f32=0.5 i32=16777217",
    "u8[0,4]<0:256 f32=0.03 u8=1",
    NULL,
};
static const char *const dynamic_cases[] = {"f32[3,5] ; ; out=3", "f32[2000]+ ; ; out=3",
                                            "f32={-3.0,-1.0,-0.5} ; ; out=3", "f32={0.0,0.0,0.0} ; ; out=3", NULL};

const hk_op hk_ops_quantize[] = {
    {.type = "QuantizeLinear",
     .since = 10,
     .in_min = 2,
     .in_max = 3,
     .out_min = 1,
     .out_max = 1,
     .attrs_bytes = sizeof(quantize_attrs),
     .attrs = quantize_list,
     .infer = quantize_infer,
     .eval = quantize_eval,
     .expand = quantize_expand,
     .cases = quantize_cases},
    {.type = "DequantizeLinear",
     .since = 10,
     .in_min = 2,
     .in_max = 3,
     .out_min = 1,
     .out_max = 1,
     .attrs_bytes = sizeof(quantize_attrs),
     .attrs = dequantize_list,
     .infer = dequantize_infer,
     .eval = dequantize_eval,
     .expand = dequantize_expand,
     .cases = dequantize_cases},
    {.type = "DynamicQuantizeLinear",
     .since = 11,
     .in_min = 1,
     .in_max = 1,
     .out_min = 3,
     .out_max = 3,
     .infer = dynamic_infer,
     .eval = dynamic_eval,
     .expand = dynamic_expand,
     .cases = dynamic_cases},
    {0},
};
