/* Tensors of one element type as those of another. */
#include <math.h>
#include <string.h>

#include "core/tensor.h"

bool hk_dtype_converts(hk_dtype from, hk_dtype to)
{
    bool whole = hk_dtype_is_integer(from) || from == HK_BOOL;
    return hk_dtype_is_float(from) ? hk_dtype_is_float(to) : whole && (hk_dtype_is_integer(to) || to == HK_BOOL);
}

/* Integers of 64 bits without a sign read as negative ones above INT64_MAX. */
static bool whole_fits(const hk_tensor *from, hk_tensor *to, int64_t i)
{
    int64_t x = hk_get_int(from, i);
    hk_set_int(to, i, x);
    return hk_get_int(to, i) == x && (x >= 0 || (from->dtype == HK_UINT64) == (to->dtype == HK_UINT64));
}

int64_t hk_tensor_fill_from(hk_tensor *to, const hk_tensor *from)
{
    bool floats = hk_dtype_is_float(from->dtype);
    int64_t count = hk_tensor_count(from), misfit = count;
    if (from->dtype == to->dtype) {
        memcpy(to->data, from->data, (size_t)count * hk_dtype_bytes(to->dtype));
        return -1;
    }
    for (int64_t i = 0; i < count; i++) {
        double x = floats ? hk_get_double(from, i) : 0;
        if (floats)
            hk_set_double(to, i, x);
        bool fits = floats ? !isfinite(x) || isfinite(hk_get_double(to, i)) : whole_fits(from, to, i);
        misfit = fits || misfit < count ? misfit : i;
    }
    return misfit < count ? misfit : -1;
}

static hk_status convert(hk_context *ctx, const hk_tensor *t, hk_tensor *out)
{
    hk_tensor dense = {0};
    HK_TRY(hk_tensor_copy(ctx, t, &dense));
    int64_t misfit = hk_tensor_fill_from(out, &dense);
    hk_status st = misfit < 0 ? HK_OK
                              : hk_fail(ctx, HK_STATUS_INVALID, "element %lld is %.17g, which %s cannot hold",
                                        (long long)misfit, hk_get_double(&dense, misfit), hk_dtype_name(out->dtype));
    hk_tensor_release(&dense);
    return st;
}

hk_status hk_tensor_convert(hk_context *ctx, const hk_tensor *t, hk_dtype dtype, hk_tensor *out)
{
    hk_tensor made = {0};
    const hk_shape shape = hk_tensor_shape(t);
    if (!hk_dtype_converts(t->dtype, dtype))
        return hk_fail(ctx, HK_STATUS_USAGE,
                       "%s does not become %s: floats become floats, integers and bools become integers and bools",
                       hk_dtype_name(t->dtype), hk_dtype_name(dtype));
    HK_TRY(hk_tensor_create(ctx, dtype, &shape, &made));
    hk_status st = convert(ctx, t, &made);
    if (st == HK_OK)
        *out = made;
    else
        hk_tensor_release(&made);
    return st;
}
