/* Parts of quantization operators. */
#include "ops/support/quantize.h"

#include <math.h>

#include "ops/support/build.h"

bool hk_quantized_range(hk_dtype t, double *low, double *high)
{
    unsigned bits = hk_dtype_bits(t);
    bool is_signed = t == HK_INT8 || t == HK_INT16 || t == HK_INT4 || t == HK_INT2;
    bool is_unsigned = t == HK_UINT8 || t == HK_UINT16 || t == HK_UINT4 || t == HK_UINT2;
    *low = is_signed ? -ldexp(1, (int)bits - 1) : 0;
    *high = is_signed ? ldexp(1, (int)bits - 1) - 1 : ldexp(1, (int)bits) - 1;
    return is_signed || is_unsigned;
}

double hk_rounded_to(hk_dtype t, double x)
{
    switch (t) {
    case HK_FLOAT16: return (double)hk_half_to_float(hk_double_to_half(x));
    case HK_BFLOAT16: return (double)hk_bfloat_to_float(hk_double_to_bfloat(x));
    case HK_FLOAT64: return x;
    default: return (double)(float)x;
    }
}

hk_status hk_build_float(hk_graph *g, hk_value *v, hk_dtype to, hk_value **out)
{
    *out = v;
    return v->dtype == to ? HK_OK : hk_build_cast(g, v, to, out);
}

hk_status hk_build_saturated(hk_graph *g, hk_value *q, hk_value *zero, hk_dtype to, hk_value **out)
{
    double low, high;
    hk_quantized_range(to, &low, &high);
    if (zero) {
        hk_value *z = NULL;
        HK_TRY(hk_build_cast(g, zero, HK_FLOAT32, &z));
        HK_TRY(hk_build_binary(g, "Add", q, z, &q));
    }
    hk_value *in[] = {q, hk_graph_scalar(g, HK_FLOAT32, low), hk_graph_scalar(g, HK_FLOAT32, high)};
    if (!in[1] || !in[2])
        return HK_STATUS_OUT_OF_MEMORY;
    HK_TRY(hk_build(g, "Clip", NULL, in, 3, &q, 1));
    return hk_build_cast(g, q, to, out);
}

/* ---- products */

/* x = 16 high + low, 0 <= low < 16. */
static hk_status split(hk_graph *g, hk_value *x, hk_value **high, hk_value **low)
{
    hk_value *whole = NULL;
    HK_TRY(hk_build_scalar(g, "Mul", x, 1.0 / 16, high));
    HK_TRY(hk_build_unary(g, "Floor", *high, high));
    HK_TRY(hk_build_scalar(g, "Mul", *high, 16, &whole));
    return hk_build_binary(g, "Sub", x, whole, low);
}

static hk_status product(hk_graph *g, const char *type, const hk_attr_value *attrs, hk_value *a, hk_value *b,
                         hk_value **out)
{
    hk_value *y = NULL;
    HK_TRY(hk_build(g, type, attrs, (hk_value *[]){a, b}, 2, &y, 1));
    return hk_build_cast(g, y, HK_INT32, out);
}

/* 16 high + low, of int32. */
static hk_status put_together(hk_graph *g, hk_value *high, hk_value *low, hk_value **out)
{
    HK_TRY(hk_build_scalar(g, "Mul", high, 16, &high));
    return hk_build_binary(g, "Add", high, low, out);
}

/* b in two parts. */
static hk_status product_2(hk_graph *g, const char *type, const hk_attr_value *attrs, hk_value *a, hk_value *b,
                           hk_value **out)
{
    hk_value *high = NULL, *low = NULL;
    HK_TRY(split(g, b, &high, &low));
    HK_TRY(product(g, type, attrs, a, high, &high));
    HK_TRY(product(g, type, attrs, a, low, &low));
    return put_together(g, high, low, out);
}

hk_status hk_build_integer_product(hk_graph *g, const char *type, const hk_attr_value *attrs, hk_value *a, hk_value *b,
                                   int64_t sum, hk_value **out)
{
    const int64_t exact = 1 << 24;
    hk_value *high = NULL, *low = NULL;
    if (sum <= exact / (255 * 255))
        return product(g, type, attrs, a, b, out);
    if (sum <= exact / (255 * 16))
        return product_2(g, type, attrs, a, b, out);
    if (sum > exact / (16 * 16))
        return hk_fail(g->ctx, HK_STATUS_UNSUPPORTED,
                       "an integer %s that sums %lld products is not supported, at most %lld", type, (long long)sum,
                       (long long)exact / 256);
    HK_TRY(split(g, a, &high, &low));
    HK_TRY(product_2(g, type, attrs, high, b, &high));
    HK_TRY(product_2(g, type, attrs, low, b, &low));
    return put_together(g, high, low, out);
}
