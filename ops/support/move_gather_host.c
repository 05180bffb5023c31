/* Indexed moves on the host. */
#include <string.h>

#include "ops/support/move_gather.h"

hk_status hk_check_index(const hk_args *a, int32_t i)
{
    hk_dtype t = hk_args_dtype(a, i);
    return t == HK_INT32 || t == HK_INT64
               ? HK_OK
               : hk_args_fail(a, "input %d is %s, expected indices as int32 or int64", (int)i, hk_dtype_name(t));
}

/* Entry i of an index tensor, counted from the end if negative. */
static hk_status index_at(const hk_eval *e, const hk_tensor *index, int64_t i, int64_t extent, int64_t *out)
{
    int64_t v = hk_get_int(index, i);
    *out = v < 0 ? v + extent : v;
    if (*out >= 0 && *out < extent)
        return HK_OK;
    return hk_eval_fail(e, HK_STATUS_INVALID, "index %lld lies outside a dimension of %lld", (long long)v,
                        (long long)extent);
}

/* The row of x that tuple m of batch b names. */
static hk_status row_of(const hk_eval *e, const hk_tuples *t, const hk_tensor *index, int64_t b, int64_t m,
                        int64_t *row)
{
    int64_t first = (t->shared ? m : b * t->rows + m) * t->depth;
    *row = b * t->x_rows;
    for (int32_t k = 0; k < t->depth; k++) {
        int64_t i;
        HK_TRY(index_at(e, index, first + k, t->extent[k], &i));
        *row += i * t->stride[k];
    }
    return HK_OK;
}

hk_status hk_host_gather(hk_eval *e, const hk_tuples *t, const hk_tensor *x, const hk_tensor *index, hk_tensor *y)
{
    size_t bytes = hk_dtype_bytes(x->dtype) * (size_t)t->inner;
    if (bytes == 0)
        return HK_OK;
    for (int64_t b = 0; b < t->batches; b++)
        for (int64_t m = 0; m < t->rows; m++) {
            int64_t row;
            HK_TRY(row_of(e, t, index, b, m, &row));
            memcpy((char *)y->data + (size_t)(b * t->rows + m) * bytes, (const char *)x->data + (size_t)row * bytes,
                   bytes);
        }
    return HK_OK;
}

/* ---- scattering: floats are combined in double precision and rounded once, at the end */

typedef struct accumulator {
    hk_tensor *y;
    double *wide; /* NULL: y is no float */
} accumulator;

static hk_status begin(hk_eval *e, const hk_tensor *x, hk_tensor *y, accumulator *a)
{
    int64_t count = hk_tensor_count(y);
    *a = (accumulator){.y = y};
    if (x && x->dtype == y->dtype && count > 0)
        memcpy(y->data, x->data, (size_t)hk_tensor_bytes(y));
    for (int64_t i = 0; x && x->dtype != y->dtype && i < count; i++)
        hk_set_double(y, i, hk_get_double(x, i));
    if (!hk_dtype_is_float(y->dtype))
        return HK_OK;
    a->wide = hk_arena_array(e->arena, (size_t)HK_MAX(count, 1), sizeof *a->wide);
    if (!a->wide)
        return hk_out_of_memory(e->ctx, "a scatter's sums");
    for (int64_t i = 0; i < count; i++)
        a->wide[i] = hk_get_double(y, i);
    return HK_OK;
}

static void combine(accumulator *a, hk_scatter how, int64_t i, const hk_tensor *updates, int64_t k)
{
    if (a->wide) {
        double old = a->wide[i], new = hk_get_double(updates, k);
        switch (how) {
        case HK_SCATTER_NONE: a->wide[i] = new; break;
        case HK_SCATTER_ADD: a->wide[i] = old + new; break;
        case HK_SCATTER_MUL: a->wide[i] = old * new; break;
        case HK_SCATTER_MAX: a->wide[i] = HK_MAX(old, new); break;
        case HK_SCATTER_MIN: a->wide[i] = HK_MIN(old, new); break;
        }
        return;
    }
    int64_t old = hk_get_int(a->y, i), new = hk_get_int(updates, k);
    switch (how) {
    case HK_SCATTER_NONE: break;
    case HK_SCATTER_ADD: new = (int64_t)((uint64_t)old + (uint64_t) new); break;
    case HK_SCATTER_MUL: new = (int64_t)((uint64_t)old * (uint64_t) new); break;
    case HK_SCATTER_MAX: new = HK_MAX(old, new); break;
    case HK_SCATTER_MIN: new = HK_MIN(old, new); break;
    }
    hk_set_int(a->y, i, new);
}

static void finish(accumulator *a)
{
    int64_t count = hk_tensor_count(a->y);
    for (int64_t i = 0; a->wide && i < count; i++)
        hk_set_double(a->y, i, a->wide[i]);
}

hk_status hk_host_scatter(hk_eval *e, const hk_tuples *t, hk_scatter how, const hk_tensor *x, const hk_tensor *index,
                          const hk_tensor *updates, hk_tensor *y)
{
    accumulator a;
    HK_TRY(begin(e, x, y, &a));
    for (int64_t b = 0; b < t->batches; b++)
        for (int64_t m = 0; m < t->rows; m++) {
            int64_t row;
            HK_TRY(row_of(e, t, index, b, m, &row));
            for (int64_t j = 0; j < t->inner; j++)
                combine(&a, how, row * t->inner + j, updates, (b * t->rows + m) * t->inner + j);
        }
    finish(&a);
    return HK_OK;
}

/* ---- lines */

/* Position in x of index element c (coordinates), whose linear number is i. */
static hk_status line_place(const hk_eval *e, const hk_lines *t, const int64_t *strides, const int64_t *c,
                            const hk_tensor *index, int64_t i, int64_t *place)
{
    int64_t at;
    HK_TRY(index_at(e, index, i, t->x.dim[t->axis], &at));
    *place = at * strides[t->axis];
    for (int32_t d = 0; d < t->x.rank; d++)
        if (d != t->axis)
            *place += c[d] * strides[d];
    return HK_OK;
}

static void advance(const hk_shape *s, int64_t *c)
{
    for (int32_t d = s->rank - 1; d >= 0 && ++c[d] == s->dim[d]; d--)
        c[d] = 0;
}

hk_status hk_host_gather_lines(hk_eval *e, const hk_lines *t, const hk_tensor *x, const hk_tensor *index, hk_tensor *y)
{
    int64_t strides[HK_MAX_RANK], c[HK_MAX_RANK] = {0}, count = hk_shape_count(&t->index), place;
    size_t bytes = hk_dtype_bytes(x->dtype);
    hk_shape_strides(&t->x, strides);
    for (int64_t i = 0; i < count; i++, advance(&t->index, c)) {
        HK_TRY(line_place(e, t, strides, c, index, i, &place));
        memcpy((char *)y->data + (size_t)i * bytes, (const char *)x->data + (size_t)place * bytes, bytes);
    }
    return HK_OK;
}

hk_status hk_host_scatter_lines(hk_eval *e, const hk_lines *t, hk_scatter how, const hk_tensor *x,
                                const hk_tensor *index, const hk_tensor *updates, hk_tensor *y)
{
    int64_t strides[HK_MAX_RANK], c[HK_MAX_RANK] = {0}, count = hk_shape_count(&t->index), place;
    accumulator a;
    HK_TRY(begin(e, x, y, &a));
    hk_shape_strides(&t->x, strides);
    for (int64_t i = 0; i < count; i++, advance(&t->index, c)) {
        HK_TRY(line_place(e, t, strides, c, index, i, &place));
        combine(&a, how, place, updates, i);
    }
    finish(&a);
    return HK_OK;
}
