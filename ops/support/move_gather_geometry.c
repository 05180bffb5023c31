/* What index tensors mean: the shapes and strides behind indexed moves. */
#include "ops/support/move_gather.h"

hk_status hk_tuples_shape(const hk_args *a, const hk_shape *x, const hk_shape *index, int64_t batch, hk_shape *y)
{
    *y = HK_SHAPE_UNKNOWN;
    if (x->rank < 0 || index->rank < 0)
        return HK_OK;
    if (index->rank < 1 || batch < 0 || batch >= HK_MIN(x->rank, index->rank))
        return hk_args_fail(a, "batch_dims is %lld and the index has rank %d, expected less than the ranks",
                            (long long)batch, (int)index->rank);
    int64_t depth = index->dim[index->rank - 1];
    if (depth < 0)
        return HK_OK;
    if (depth < 1 || depth > x->rank - batch)
        return hk_args_fail(a, "index tuples have %lld entries, expected 1 to %lld", (long long)depth,
                            (long long)(x->rank - batch));
    hk_shape s = {0};
    int64_t rank = index->rank - 1 + x->rank - batch - depth;
    if (rank > HK_MAX_RANK)
        return hk_args_fail(a, "the output would have rank %lld, expected %d at most", (long long)rank, HK_MAX_RANK);
    for (int32_t d = 0; d < index->rank - 1; d++) {
        s.dim[s.rank++] = index->dim[d];
        if (d < batch && x->dim[d] >= 0 && index->dim[d] >= 0 && x->dim[d] != index->dim[d])
            return hk_args_fail(a, "batch dimension %d has %lld entries in the input and %lld in the index", (int)d,
                                (long long)x->dim[d], (long long)index->dim[d]);
    }
    for (int32_t d = (int32_t)(batch + depth); d < x->rank; d++)
        s.dim[s.rank++] = x->dim[d];
    *y = s;
    return HK_OK;
}

hk_tuples hk_tuples_of(const hk_shape *x, const hk_shape *index, int64_t batch)
{
    int32_t first = (int32_t)batch, depth = (int32_t)index->dim[index->rank - 1];
    hk_tuples t = {.depth = depth,
                   .batches = hk_shape_span(x, 0, first),
                   .rows = hk_shape_span(index, first, index->rank - 1),
                   .x_rows = hk_shape_span(x, first, first + depth),
                   .inner = hk_shape_span(x, first + depth, x->rank)};
    for (int32_t k = 0; k < depth; k++) {
        t.extent[k] = x->dim[first + k];
        t.stride[k] = hk_shape_span(x, first + k + 1, first + depth);
    }
    return t;
}

hk_status hk_read_lines(const hk_args *a, const hk_shape *x, const hk_shape *index, int64_t axis, hk_lines *t)
{
    *t = (hk_lines){.x = *x, .index = *index, .axis = -1};
    if (x->rank < 0)
        return HK_OK;
    HK_TRY(hk_args_axis(a, axis, x->rank, &t->axis));
    if (index->rank < 0)
        return HK_OK;
    if (index->rank != x->rank)
        return hk_args_fail(a, "the index has rank %d, expected %d like the input", (int)index->rank, (int)x->rank);
    for (int32_t d = 0; d < x->rank; d++)
        if (d != t->axis && x->dim[d] >= 0 && index->dim[d] > x->dim[d])
            return hk_args_fail(a, "dimension %d of the index has %lld elements, expected %lld at most", (int)d,
                                (long long)index->dim[d], (long long)x->dim[d]);
    return HK_OK;
}
