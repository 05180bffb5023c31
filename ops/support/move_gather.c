/* Indexed moves on the device. */
#include "ops/support/move_gather.h"

#include <stddef.h>
#include <string.h>

#include "kernels.h"
#include "shaders/gather.push.h"
#include "shaders/gather_elements.push.h"
#include "shaders/gather_grad.push.h"
#include "shaders/gather_rows.push.h"
#include "shaders/gather_scatter.push.h"
#include "shaders/gather_select.push.h"

/* Constant ids 3 and up; 3 is the index type in every gather kernel (shaders/gather_index.glsl). */
enum {
    SPEC_INDEX64 = 3,
    SPEC_DEPTH = 4,
    SPEC_SHARED = 5,
    SPEC_LAST = 4,
    SPEC_REDUCTION = 4,
    SPEC_FROM_ZERO = 5,
    SPEC_LINES = 6
};
enum {
    CPU_LANES = 256, /* invocations that a sum over rows aims at on a software device */
    MOST_BLOCK = 32, /* rows that one workgroup sums */
    WAVES = 8,       /* workgroups for each compute unit before blocks of rows grow */
    MANY = 1024,     /* indices from which a workgroup of the sums has at least MANY_GROUP invocations to read them */
    MANY_GROUP = 128,
    DIRECT_DEPTH = 4, /* indices of a tuple whose extents fit the push block */
};
_Static_assert(offsetof(struct gather_push, stride_3) - offsetof(struct gather_push, extent_0) == 7 * sizeof(uint32_t),
               "extents and strides alternate");

static void use_index(hk_record *r, hk_value *index, size_t push_offset)
{
    hk_spec(r, SPEC_INDEX64, hk_value_storage(index) == HK_INT64);
    hk_use(r, index, HK_READ, push_offset);
}

static hk_status set_block(hk_lower *l, hk_record *r, const uint32_t *words, size_t count, size_t push_offset)
{
    uint32_t *copy = hk_arena_array(l->arena, HK_MAX(count, (size_t)1), sizeof *copy);
    if (!copy)
        return hk_out_of_memory(l->ctx, "a table of extents");
    memcpy(copy, words, count * sizeof *copy);
    r->block = copy;
    r->block_bytes = (uint32_t)(count * sizeof *copy);
    r->block_offset = (uint16_t)push_offset;
    return HK_OK;
}

/* {extent, stride in units} of every index of a tuple. */
static size_t tuple_table(const hk_tuples *t, int64_t units, uint32_t table[2 * HK_MAX_RANK])
{
    for (int32_t k = 0; k < t->depth; k++) {
        table[2 * k] = (uint32_t)t->extent[k];
        table[2 * k + 1] = (uint32_t)(t->stride[k] * units);
    }
    return 2 * (size_t)t->depth;
}

hk_status hk_emit_gather(hk_lower *l, const hk_tuples *t, hk_value *x, hk_value *index, hk_value *y)
{
    static const hk_unit_kernels kernels = {
        {NULL, &hk_kernel_gather_2, &hk_kernel_gather_4, &hk_kernel_gather_8, &hk_kernel_gather_16}};
    if (hk_shape_count(&y->shape) <= 0)
        return HK_OK;
    uint32_t unit = hk_move_unit(x, y, &t->inner, 1);
    const hk_kernel *kernel = hk_unit_kernel(l, &kernels, unit);
    if (!kernel)
        return HK_STATUS_UNSUPPORTED;
    int64_t units = t->inner * (int64_t)hk_dtype_device_bytes(hk_value_storage(y)) / unit;
    hk_divisor inner = hk_divisor_of(units), rows = hk_divisor_of(t->rows);
    struct gather_push p = {
        .count = (uint32_t)(t->batches * t->rows * units),
        .inner = inner.extent,
        .inner_multiplier = inner.multiplier,
        .inner_shift = inner.shift,
        .rows = rows.extent,
        .rows_multiplier = rows.multiplier,
        .rows_shift = rows.shift,
        .batch_stride = (uint32_t)(t->x_rows * units),
    };
    uint32_t table[2 * HK_MAX_RANK] = {0};
    size_t words = tuple_table(t, units, table);
    memcpy(&p.extent_0, table, DIRECT_DEPTH * 2 * sizeof *table); /* extent_0, stride_0, extent_1, ... */
    hk_record *r = hk_emit(l, kernel, unit == 16 ? "gather 16-byte units" : "gather");
    hk_push(r, &p, sizeof p);
    hk_spec(r, SPEC_DEPTH, (uint32_t)t->depth);
    hk_spec(r, SPEC_SHARED, t->shared);
    hk_use(r, x, HK_READ, offsetof(struct gather_push, x));
    use_index(r, index, offsetof(struct gather_push, indices));
    hk_use(r, y, HK_WRITE, offsetof(struct gather_push, y));
    hk_move_grid(l, r, p.count);
    if (t->depth <= DIRECT_DEPTH)
        return HK_OK;
    return set_block(l, r, table + 2 * DIRECT_DEPTH, words - 2 * DIRECT_DEPTH, offsetof(struct gather_push, table));
}

/* ---- scattering rows */

/* Row numbers of all tuples ([batches * rows] words), or, for every row of y, 1 + the last tuple that names it. */
static hk_value *emit_rows(hk_lower *l, const hk_tuples *t, hk_value *index, bool last)
{
    int64_t count = t->batches * t->rows;
    hk_value *out = hk_scratch(l, HK_UINT32, last ? t->batches * t->x_rows : count);
    if (!out)
        return NULL;
    if (last)
        hk_emit_fill(l, out, 0);
    if (count == 0)
        return out;
    hk_divisor rows = hk_divisor_of(t->rows);
    struct gather_rows_push p = {
        .count = (uint32_t)count,
        .depth = (uint32_t)t->depth,
        .rows = rows.extent,
        .rows_multiplier = rows.multiplier,
        .rows_shift = rows.shift,
        .batch_stride = (uint32_t)t->x_rows,
    };
    hk_record *r = hk_emit(l, &hk_kernel_gather_rows, last ? "scatter, last index of each row" : "scatter, rows");
    hk_push(r, &p, sizeof p);
    hk_spec(r, SPEC_LAST, last);
    use_index(r, index, offsetof(struct gather_rows_push, indices));
    hk_use(r, out, last ? HK_READ_WRITE : HK_WRITE, offsetof(struct gather_rows_push, rows_out));
    hk_move_grid(l, r, count);
    uint32_t table[2 * HK_MAX_RANK];
    return set_block(l, r, table, tuple_table(t, 1, table), offsetof(struct gather_rows_push, table)) == HK_OK ? out
                                                                                                               : NULL;
}

static hk_status emit_select(hk_lower *l, const hk_tuples *t, hk_value *x, hk_value *index, hk_value *updates,
                             hk_value *y)
{
    static const hk_unit_kernels kernels = {{NULL, &hk_kernel_gather_select_2, &hk_kernel_gather_select_4,
                                             &hk_kernel_gather_select_8, &hk_kernel_gather_select_16}};
    uint32_t unit = HK_MIN(hk_move_unit(x, y, &t->inner, 1), hk_move_unit(updates, y, &t->inner, 1));
    const hk_kernel *kernel = hk_unit_kernel(l, &kernels, unit);
    if (!kernel)
        return HK_STATUS_UNSUPPORTED;
    hk_value *last = emit_rows(l, t, index, true);
    if (!last)
        return hk_out_of_memory(l->ctx, "a scatter");
    int64_t units = t->inner * (int64_t)hk_dtype_device_bytes(hk_value_storage(y)) / unit;
    hk_divisor inner = hk_divisor_of(units);
    struct gather_select_push p = {.count = (uint32_t)(t->batches * t->x_rows * units),
                                   .inner = inner.extent,
                                   .inner_multiplier = inner.multiplier,
                                   .inner_shift = inner.shift};
    hk_record *r = hk_emit(l, kernel, "scatter, select");
    hk_push(r, &p, sizeof p);
    hk_use(r, x, HK_READ, offsetof(struct gather_select_push, x));
    hk_use(r, updates, HK_READ, offsetof(struct gather_select_push, updates));
    hk_use(r, last, HK_READ, offsetof(struct gather_select_push, last));
    hk_use(r, y, HK_WRITE, offsetof(struct gather_select_push, y));
    hk_move_grid(l, r, p.count);
    return HK_OK;
}

/* How many rows one workgroup (or invocation) sums: the fewer, the more of them read all indices; the more, the fewer
 * workgroups there are. */
static int64_t choose_block(const hk_lower *l, int64_t rows, int64_t parallel)
{
    int64_t wanted = l->cpu ? CPU_LANES : (int64_t)l->compute_units_hint * WAVES;
    int64_t block = rows * parallel / HK_MAX(wanted, 1);
    return HK_MIN(HK_MAX(block, 1), l->cpu ? rows : HK_MIN(rows, MOST_BLOCK));
}

static hk_status emit_sums(hk_lower *l, const hk_tuples *t, hk_scatter how, hk_value *x, hk_value *index,
                           hk_value *updates, hk_value *y)
{
    bool direct = t->depth == 1 && (t->shared || t->batches == 1);
    if (hk_value_storage(y) != HK_FLOAT32)
        return hk_fail(l->ctx, HK_STATUS_UNSUPPORTED,
                       "node '%s' (%s): rows of %s are combined on the device, only float32 is supported",
                       l->node->name, l->node->type, hk_dtype_name(hk_value_storage(y)));
    hk_value *rows = direct ? index : emit_rows(l, t, index, false);
    if (!rows)
        return hk_out_of_memory(l->ctx, "a scatter");
    int64_t outer = direct ? t->batches : 1;
    int64_t y_rows = direct ? t->x_rows : t->batches * t->x_rows;
    int64_t entries = direct ? t->rows : t->batches * t->rows;
    uint32_t unit = hk_move_unit(updates, y, &t->inner, 1);
    if (x)
        unit = HK_MIN(unit, hk_move_unit(x, y, &t->inner, 1));
    bool wide = unit == 16;
    int64_t columns = t->inner / (wide ? 4 : 1);
    uint32_t least = entries >= MANY ? MANY_GROUP : 32;
    uint32_t group = (uint32_t)HK_MIN(HK_MAX((columns + 31) / 32 * 32, (int64_t)least),
                                      (int64_t)HK_MIN(256u, l->device->max_invocations));
    int64_t chunks = l->cpu ? columns : (columns + group - 1) / group;
    int64_t block = choose_block(l, y_rows, outer * chunks);
    hk_divisor c = hk_divisor_of(chunks), b = hk_divisor_of((y_rows + block - 1) / block);
    int64_t count = chunks * b.extent * outer;
    struct gather_grad_push p = {
        .count = (uint32_t)count,
        .columns = (uint32_t)columns,
        .chunks = c.extent,
        .chunks_multiplier = c.multiplier,
        .chunks_shift = c.shift,
        .blocks = b.extent,
        .blocks_multiplier = b.multiplier,
        .blocks_shift = b.shift,
        .rows = (uint32_t)y_rows,
        .block = (uint32_t)block,
        .entries = (uint32_t)entries,
    };
    const hk_kernel *kernel = l->cpu ? (wide ? &hk_kernel_gather_grad_plain_f32x4 : &hk_kernel_gather_grad_plain_f32)
                                     : (wide ? &hk_kernel_gather_grad_f32x4 : &hk_kernel_gather_grad_f32);
    hk_record *r = hk_emit(l, kernel, wide ? "row sums x4" : "row sums");
    hk_push(r, &p, sizeof p);
    hk_spec(r, SPEC_REDUCTION, (uint32_t)how);
    hk_spec(r, SPEC_FROM_ZERO, x == NULL);
    r->flops = (double)(outer * entries * t->inner);
    hk_use(r, updates, HK_READ, offsetof(struct gather_grad_push, dy));
    use_index(r, rows, offsetof(struct gather_grad_push, indices));
    hk_use(r, x, HK_READ, offsetof(struct gather_grad_push, x));
    hk_use(r, y, HK_READ_WRITE, offsetof(struct gather_grad_push, dx));
    if (l->cpu) {
        hk_move_grid(l, r, count);
    } else {
        hk_workgroup(r, group, 1, 1);
        hk_grid_1d(l, r, (uint64_t)count);
    }
    return HK_OK;
}

hk_status hk_emit_scatter(hk_lower *l, const hk_tuples *t, hk_scatter how, hk_value *x, hk_value *index,
                          hk_value *updates, hk_value *y)
{
    if (hk_shape_count(&y->shape) <= 0)
        return HK_OK;
    if (t->batches * t->rows == 0) { /* nothing is named */
        if (x)
            hk_emit_copy(l, x, 0, y, 0, hk_value_bytes(y));
        else
            hk_emit_fill(l, y, 0);
        return HK_OK;
    }
    return how == HK_SCATTER_NONE && x ? emit_select(l, t, x, index, updates, y)
                                       : emit_sums(l, t, how, x, index, updates, y);
}

/* ---- lines */

hk_status hk_emit_gather_lines(hk_lower *l, const hk_lines *t, hk_value *x, hk_value *index, hk_value *y)
{
    static const hk_unit_kernels kernels = {
        {NULL, &hk_kernel_gather_elements_2, &hk_kernel_gather_elements_4, &hk_kernel_gather_elements_8, NULL}};
    int64_t strides[HK_MAX_RANK], to[HK_MAX_RANK], count = hk_shape_count(&y->shape);
    if (count <= 0)
        return HK_OK;
    const hk_kernel *kernel = hk_unit_kernel(l, &kernels, (uint32_t)hk_dtype_device_bytes(hk_value_storage(y)));
    if (!kernel)
        return HK_STATUS_UNSUPPORTED;
    hk_shape_strides(&t->x, strides);
    hk_shape_strides(&t->index, to);
    hk_move m = {0};
    for (int32_t d = 0; d < t->index.rank; d++)
        hk_move_add(&m, t->index.dim[d], d == t->axis ? 0 : strides[d], to[d]);
    hk_move_collapse(&m);
    uint32_t table[4 * HK_MAX_RANK];
    for (int32_t k = 0; k < m.rank; k++) {
        const hk_move_dim *d = &m.dim[m.rank - 1 - k];
        hk_divisor e = hk_divisor_of(d->extent);
        uint32_t row[4] = {e.extent, e.multiplier, e.shift, (uint32_t)d->from_stride};
        memcpy(table + 4 * k, row, sizeof row);
    }
    struct gather_elements_push p = {.count = (uint32_t)count,
                                     .rank = (uint32_t)m.rank,
                                     .extent = (uint32_t)t->x.dim[t->axis],
                                     .stride = (uint32_t)strides[t->axis]};
    hk_record *r = hk_emit(l, kernel, "gather elements");
    hk_push(r, &p, sizeof p);
    hk_use(r, x, HK_READ, offsetof(struct gather_elements_push, x));
    use_index(r, index, offsetof(struct gather_elements_push, indices));
    hk_use(r, y, HK_WRITE, offsetof(struct gather_elements_push, y));
    hk_move_grid(l, r, count);
    return set_block(l, r, table, 4 * (size_t)m.rank, offsetof(struct gather_elements_push, table));
}

static const hk_kernel *scatter_lines_kernel(hk_lower *l, hk_scatter how, hk_dtype storage)
{
    static const hk_unit_kernels kernels = {
        {NULL, &hk_kernel_gather_scatter_2, &hk_kernel_gather_scatter_4, &hk_kernel_gather_scatter_8, NULL}};
    if (how == HK_SCATTER_NONE)
        return hk_unit_kernel(l, &kernels, (uint32_t)hk_dtype_device_bytes(storage));
    if (storage == HK_FLOAT32)
        return &hk_kernel_gather_scatter_f32;
    if (storage == HK_INT32)
        return &hk_kernel_gather_scatter_i32;
    hk_fail(l->ctx, HK_STATUS_UNSUPPORTED,
            "node '%s' (%s): %s is combined on the device, only float32 and int32 are supported", l->node->name,
            l->node->type, hk_dtype_name(storage));
    return NULL;
}

hk_status hk_emit_scatter_lines(hk_lower *l, const hk_lines *t, hk_scatter how, hk_value *x, hk_value *index,
                                hk_value *updates, hk_value *y)
{
    int64_t strides[HK_MAX_RANK], count = hk_shape_count(&y->shape);
    if (count <= 0)
        return HK_OK;
    const hk_kernel *kernel = scatter_lines_kernel(l, how, hk_value_storage(y));
    if (!kernel)
        return HK_STATUS_UNSUPPORTED;
    hk_shape_strides(&t->index, strides);
    int32_t rank = t->x.rank;
    uint32_t table[5 * HK_MAX_RANK];
    for (int32_t k = 0; k < rank; k++) {
        int32_t d = rank - 1 - k;
        bool axis = d == t->axis;
        hk_divisor e = hk_divisor_of(t->x.dim[d]);
        uint32_t row[5] = {e.extent, e.multiplier, e.shift, axis ? 0 : (uint32_t)strides[d],
                           axis ? (uint32_t)INT32_MAX : (uint32_t)t->index.dim[d]};
        memcpy(table + 5 * k, row, sizeof row);
    }
    struct gather_scatter_push p = {.count = (uint32_t)count,
                                    .rank = (uint32_t)rank,
                                    .axis = (uint32_t)(rank - 1 - t->axis),
                                    .extent = (uint32_t)t->x.dim[t->axis],
                                    .entries = (uint32_t)t->index.dim[t->axis],
                                    .stride = (uint32_t)strides[t->axis]};
    bool lines = t->axis == rank - 1 && hk_dtype_device_bytes(hk_value_storage(y)) == 4;
    hk_record *r = hk_emit(l, kernel, "scatter elements");
    hk_push(r, &p, sizeof p);
    hk_spec(r, SPEC_REDUCTION, (uint32_t)how);
    hk_spec(r, SPEC_FROM_ZERO, x == NULL);
    hk_spec(r, SPEC_LINES, lines);
    hk_use(r, x, HK_READ, offsetof(struct gather_scatter_push, x));
    use_index(r, index, offsetof(struct gather_scatter_push, indices));
    hk_use(r, updates, HK_READ, offsetof(struct gather_scatter_push, updates));
    hk_use(r, y, HK_WRITE, offsetof(struct gather_scatter_push, y));
    hk_move_grid(l, r, lines ? (count + 3) / 4 : count);
    return set_block(l, r, table, 5 * (size_t)rank, offsetof(struct gather_scatter_push, table));
}
