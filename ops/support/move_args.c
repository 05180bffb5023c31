/* One face for an operator's operands at inference, evaluation and lowering. */
#include "ops/support/move_args.h"

#include <stdio.h>
#include <string.h>

hk_args hk_infer_args(const hk_infer *in)
{
    return (hk_args){.ctx = in->ctx, .node = in->node};
}

hk_args hk_eval_args(const hk_eval *e)
{
    return (hk_args){.ctx = e->ctx, .node = e->node, .tensors = e->in};
}

hk_args hk_node_args(hk_context *ctx, const hk_node *n)
{
    return (hk_args){.ctx = ctx, .node = n};
}

bool hk_args_present(const hk_args *a, int32_t i)
{
    return hk_in(a->node, i) != NULL;
}

const hk_tensor *hk_args_known(const hk_args *a, int32_t i)
{
    if (!hk_args_present(a, i))
        return NULL;
    return a->tensors ? a->tensors[i] : a->node->in[i]->data;
}

hk_shape hk_args_shape(const hk_args *a, int32_t i)
{
    if (!hk_args_present(a, i))
        return HK_SHAPE_UNKNOWN;
    return a->tensors ? hk_tensor_shape(a->tensors[i]) : a->node->in[i]->shape;
}

hk_dtype hk_args_dtype(const hk_args *a, int32_t i)
{
    if (!hk_args_present(a, i))
        return HK_DTYPE_NONE;
    return a->tensors ? a->tensors[i]->dtype : a->node->in[i]->dtype;
}

hk_status hk_args_fail(const hk_args *a, const char *format, ...)
{
    char text[512];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    return hk_fail(a->ctx, HK_STATUS_INVALID, "node '%s' (%s): %s", a->node->name, a->node->type, text);
}

hk_status hk_args_axis(const hk_args *a, int64_t axis, int32_t rank, int32_t *out)
{
    *out = hk_axis(axis, rank);
    return *out >= 0 ? HK_OK
                     : hk_args_fail(a, "axis %lld, expected %d to %d", (long long)axis, -(int)rank, (int)rank - 1);
}

hk_status hk_args_shape_wanted(const hk_args *a)
{
    return hk_args_fail(a, "its gradient needs the input's shape, which is not known yet; bind every input's shape");
}

hk_status hk_args_ints(const hk_args *a, int32_t i, const char *what, int64_t *v, int32_t capacity, int32_t *count)
{
    *count = 0;
    if (!hk_args_present(a, i))
        return HK_OK;
    hk_shape s = hk_args_shape(a, i);
    hk_dtype t = hk_args_dtype(a, i);
    if (!hk_dtype_is_integer(t))
        return hk_args_fail(a, "expected %s as int64, found %s", what, hk_dtype_name(t));
    if (s.rank > 1)
        return hk_args_fail(a, "expected %s as a list, found rank %d", what, (int)s.rank);
    const hk_tensor *known = hk_args_known(a, i);
    if (!known) {
        *count = -1;
        return HK_OK;
    }
    int64_t n = hk_tensor_count(known);
    if (n < 0 || n > capacity)
        return hk_args_fail(a, "%s has %lld entries, expected at most %d", what, (long long)n, (int)capacity);
    for (int64_t k = 0; k < n; k++)
        v[k] = hk_get_int(known, k);
    *count = (int32_t)n;
    return HK_OK;
}

int64_t hk_args_length(const hk_args *a, int32_t i)
{
    if (!hk_args_present(a, i))
        return 0;
    hk_shape s = hk_args_shape(a, i);
    return s.rank == 0 ? 1 : s.rank == 1 ? s.dim[0] : -1;
}

hk_dtype hk_wider(hk_dtype a, hk_dtype b)
{
    return b == HK_FLOAT64 ? b : a;
}

const hk_tensor *hk_eval_as(hk_eval *e, const hk_tensor *t, hk_dtype dtype)
{
    if (t->dtype == dtype)
        return t;
    hk_shape s = hk_tensor_shape(t);
    hk_tensor *wide = hk_tensor_new(e->arena, dtype, &s);
    int64_t count = hk_tensor_count(t);
    for (int64_t i = 0; wide && i < count; i++)
        hk_set_double(wide, i, hk_get_double(t, i));
    return wide;
}

hk_status hk_eval_reshaped(hk_eval *e, const hk_shape *shape)
{
    const hk_tensor *x = e->in[0];
    if (hk_shape_count(shape) != hk_tensor_count(x)) {
        hk_shape from = hk_tensor_shape(x);
        hk_shape_text a, b;
        return hk_eval_fail(e, HK_STATUS_INVALID, "%s cannot become %s: the numbers of elements differ",
                            hk_shape_print(&from, &a), hk_shape_print(shape, &b));
    }
    if (!hk_out(e->node, 0))
        return HK_OK;
    hk_tensor *y = hk_eval_output(e, 0, x->dtype, shape);
    if (!y)
        return hk_out_of_memory(e->ctx, "a reshaped tensor");
    int64_t bytes = hk_tensor_bytes(x);
    if (bytes > 0)
        memcpy(y->data, x->data, (size_t)bytes);
    return HK_OK;
}
