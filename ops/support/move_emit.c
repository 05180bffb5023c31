/* Strided moves on the device: choosing the unit of copying and the kernel. */
#include <stddef.h>
#include <string.h>

#include "kernels.h"
#include "ops/support/move.h"
#include "shaders/move.push.h"
#include "shaders/move_block.push.h"
#include "shaders/move_literal.push.h"
#include "shaders/transpose.push.h"

enum {
    DIRECT_RANK = 5,    /* dimensions that fit the push block */
    TILE = 32,          /* of the shared-memory transpose */
    TILE_LEAST = 16,    /* extents below fill a tile so badly that plain strided reads are better */
    BLOCK = 4,          /* of the register transpose */
    TRANSPOSE_REST = 3, /* dimensions besides the two that change places */
    UNIT_BYTES = 16,
};

static const uint32_t whole_extent = 1u << 31; /* of an outermost dimension: a divisor that leaves every index to it */

/* ---- parts */

uint32_t hk_move_unit(const hk_value *from, const hk_value *to, const int64_t *elements, int32_t count)
{
    int64_t bytes = (int64_t)hk_dtype_device_bytes(hk_value_storage(to));
    uint32_t unit = HK_MIN(hk_value_alignment(from), hk_value_alignment(to));
    for (int32_t i = 0; i < count; i++)
        while (elements[i] * bytes % unit)
            unit /= 2;
    return unit;
}

const hk_kernel *hk_unit_kernel(hk_lower *l, const hk_unit_kernels *kernels, uint32_t unit)
{
    const hk_kernel *k = NULL;
    for (uint32_t i = 1; i < HK_COUNT(kernels->by_log2); i++)
        if (unit == 1u << i)
            k = kernels->by_log2[i];
    if (k && (k->needs & l->device->caps) == k->needs)
        return k;
    hk_fail(l->ctx, HK_STATUS_UNSUPPORTED,
            "node '%s' (%s): moving single %u-byte elements needs 16-bit storage, which this device lacks; use float32",
            l->node->name, l->node->type, unit);
    return NULL;
}

uint32_t hk_move_group(const hk_lower *l)
{
    return l->cpu ? 64 : HK_MIN(256u, l->device->max_invocations);
}

void hk_move_grid(hk_lower *l, hk_record *r, int64_t invocations)
{
    uint32_t group = hk_move_group(l);
    hk_workgroup(r, group, 1, 1);
    hk_grid_1d(l, r, ((uint64_t)invocations + group - 1) / group);
}

/* ---- one move */

/* A move in units, with the byte ranges it touches. */
typedef struct unit_move {
    hk_move m;     /* collapsed, in units; offsets relative to the ranges below */
    uint32_t unit; /* bytes */
    hk_value *from, *to;
    uint64_t from_first, from_bytes, to_first, to_bytes;
} unit_move;

/* First and last element touched on one side. */
static void touched(const hk_move *m, bool to, int64_t *first, int64_t *last)
{
    *first = *last = to ? m->to_offset : m->from_offset;
    for (int32_t d = 0; d < m->rank; d++) {
        int64_t reach = (m->dim[d].extent - 1) * (to ? m->dim[d].to_stride : m->dim[d].from_stride);
        *(reach < 0 ? first : last) += reach;
    }
}

/* The widest unit: it must divide offsets and strides, and the innermost dimension must be a run on both sides. */
static uint32_t widest_unit(const hk_move *m, const hk_value *from, const hk_value *to, uint32_t element)
{
    const hk_move_dim *inner = m->rank ? &m->dim[m->rank - 1] : NULL;
    if (!inner || inner->from_stride != 1 || inner->to_stride != 1)
        return element;
    int64_t n[3 + 2 * HK_MOVE_RANK] = {m->from_offset, m->to_offset, inner->extent};
    int32_t count = 3;
    for (int32_t d = 0; d + 1 < m->rank; d++) {
        n[count++] = m->dim[d].from_stride;
        n[count++] = m->dim[d].to_stride;
    }
    return hk_move_unit(from, to, n, count);
}

static unit_move in_units(const hk_move *collapsed, hk_value *from, hk_value *to)
{
    uint32_t element = (uint32_t)hk_dtype_device_bytes(hk_value_storage(to));
    unit_move u = {.m = *collapsed, .from = from, .to = to};
    u.unit = widest_unit(&u.m, from, to, element);
    int64_t ratio = u.unit / element;
    if (ratio > 1) {
        for (int32_t d = 0; d + 1 < u.m.rank; d++) {
            u.m.dim[d].from_stride /= ratio;
            u.m.dim[d].to_stride /= ratio;
        }
        u.m.dim[u.m.rank - 1].extent /= ratio;
        u.m.from_offset /= ratio;
        u.m.to_offset /= ratio;
        if (u.m.dim[u.m.rank - 1].extent == 1)
            u.m.rank--;
    }
    int64_t first, last;
    touched(&u.m, false, &first, &last);
    u.from_first = (uint64_t)first * u.unit;
    u.from_bytes = (uint64_t)(last - first + 1) * u.unit;
    u.m.from_offset -= first;
    touched(&u.m, true, &first, &last);
    u.to_first = (uint64_t)first * u.unit;
    u.to_bytes = (uint64_t)(last - first + 1) * u.unit;
    u.m.to_offset -= first;
    return u;
}

static void use_both(hk_record *r, const unit_move *u, size_t from, size_t to)
{
    hk_use_range(r, u->from, u->from_first, u->from_bytes, HK_READ, from);
    hk_use_range(r, u->to, u->to_first, u->to_bytes, HK_WRITE, to);
}

/* ---- transposed moves */

/* The two dimensions that change places, and whether the rest fits. Where the innermost one repeats its source there is
 * nothing to gain: plain moves read the same word again. */
static bool find_transposed(const hk_move *m, int32_t *a, int32_t *b)
{
    *a = *b = -1;
    for (int32_t d = 0; d < m->rank; d++) {
        if (m->dim[d].from_stride < 0 || m->dim[d].to_stride < 0)
            return false;
        if (m->dim[d].to_stride == 1 && m->dim[d].from_stride > 0)
            *a = d;
        if (m->dim[d].from_stride == 1)
            *b = d;
    }
    return *a >= 0 && *b >= 0 && *a != *b && m->rank - 2 <= TRANSPOSE_REST;
}

/* Words can be turned in 4 x 4 blocks when every row of both sides starts at a multiple of 16 bytes. */
static bool blocks_fit(const unit_move *u, int32_t a, int32_t b)
{
    const hk_move *m = &u->m;
    if (u->unit != 4 || m->dim[a].extent % BLOCK || m->dim[b].extent % BLOCK)
        return false;
    if (u->from_first % UNIT_BYTES || u->to_first % UNIT_BYTES || hk_value_alignment(u->from) < UNIT_BYTES ||
        hk_value_alignment(u->to) < UNIT_BYTES)
        return false;
    for (int32_t d = 0; d < m->rank; d++)
        if ((d != b && m->dim[d].from_stride % BLOCK) || (d != a && m->dim[d].to_stride % BLOCK))
            return false;
    return true;
}

static bool emit_transposed(hk_lower *l, const unit_move *u)
{
    const hk_move *m = &u->m;
    int32_t a, b;
    if (!find_transposed(m, &a, &b))
        return false;
    bool block = l->cpu && blocks_fit(u, a, b);
    bool tile = !l->cpu && (u->unit == 4 || u->unit == 8) && m->dim[a].extent >= TILE_LEAST &&
                m->dim[b].extent >= TILE_LEAST;
    if (!block && !tile)
        return false;
    int64_t edge = block ? BLOCK : TILE;
    hk_divisor b_tiles = hk_divisor_of((m->dim[b].extent + edge - 1) / edge);
    hk_divisor a_tiles = hk_divisor_of((m->dim[a].extent + edge - 1) / edge);
    hk_move_dim rest[TRANSPOSE_REST] = {{1, 0, 0}, {1, 0, 0}, {1, 0, 0}};
    int32_t count = 0;
    for (int32_t d = m->rank - 1; d >= 0; d--)
        if (d != a && d != b)
            rest[count++] = m->dim[d];
    hk_divisor e0 = hk_divisor_of(rest[0].extent), e1 = hk_divisor_of(rest[1].extent);
    int64_t groups = (int64_t)b_tiles.extent * a_tiles.extent * rest[0].extent * rest[1].extent * rest[2].extent;
    struct transpose_push p = {
        .count = (uint32_t)groups,
        .a_extent = (uint32_t)m->dim[a].extent,
        .b_extent = (uint32_t)m->dim[b].extent,
        .from_a = (uint32_t)m->dim[a].from_stride,
        .to_b = (uint32_t)m->dim[b].to_stride,
        .b_tiles = b_tiles.extent,
        .b_multiplier = b_tiles.multiplier,
        .b_shift = b_tiles.shift,
        .a_tiles = a_tiles.extent,
        .a_multiplier = a_tiles.multiplier,
        .a_shift = a_tiles.shift,
        .extent_0 = e0.extent,
        .multiplier_0 = e0.multiplier,
        .shift_0 = e0.shift,
        .extent_1 = e1.extent,
        .multiplier_1 = e1.multiplier,
        .shift_1 = e1.shift,
        .from_0 = (uint32_t)rest[0].from_stride,
        .to_0 = (uint32_t)rest[0].to_stride,
        .from_1 = (uint32_t)rest[1].from_stride,
        .to_1 = (uint32_t)rest[1].to_stride,
        .from_2 = (uint32_t)rest[2].from_stride,
        .to_2 = (uint32_t)rest[2].to_stride,
    };
    const hk_kernel *kernel = block          ? &hk_kernel_transpose_block4
                              : u->unit == 8 ? &hk_kernel_transpose_tile8
                                             : &hk_kernel_transpose_tile4;
    hk_record *r = hk_emit(l, kernel, block ? "transpose 4x4 registers" : "transpose 32x32 tile");
    hk_push(r, &p, sizeof p);
    use_both(r, u, offsetof(struct transpose_push, from), offsetof(struct transpose_push, to));
    if (block) {
        hk_move_grid(l, r, groups);
    } else {
        hk_workgroup(r, TILE, HK_MIN(8u, l->device->max_invocations / TILE), 1);
        hk_grid_1d(l, r, (uint64_t)groups);
    }
    return true;
}

/* ---- plain moves */

static void push_dims(struct move_push *p, const hk_move *m)
{
    hk_divisor e[DIRECT_RANK];
    uint32_t from[DIRECT_RANK] = {0}, to[DIRECT_RANK] = {0};
    for (int32_t k = 0; k < DIRECT_RANK; k++) {
        e[k] = (hk_divisor){whole_extent, 1, 31};
        if (k < m->rank) {
            const hk_move_dim *d = &m->dim[m->rank - 1 - k];
            from[k] = (uint32_t)d->from_stride;
            to[k] = (uint32_t)d->to_stride;
            if (k + 1 < m->rank)
                e[k] = hk_divisor_of(d->extent);
        }
    }
    p->rank = (uint32_t)m->rank;
    p->extent_0 = e[0].extent, p->multiplier_0 = e[0].multiplier, p->shift_0 = e[0].shift;
    p->extent_1 = e[1].extent, p->multiplier_1 = e[1].multiplier, p->shift_1 = e[1].shift;
    p->extent_2 = e[2].extent, p->multiplier_2 = e[2].multiplier, p->shift_2 = e[2].shift;
    p->extent_3 = e[3].extent, p->multiplier_3 = e[3].multiplier, p->shift_3 = e[3].shift;
    p->from_0 = from[0], p->from_1 = from[1], p->from_2 = from[2], p->from_3 = from[3], p->from_4 = from[4];
    p->to_0 = to[0], p->to_1 = to[1], p->to_2 = to[2], p->to_3 = to[3], p->to_4 = to[4];
}

/* Is the destination contiguous, aligned, and walked in order? Then four words can be stored at once. */
static bool dense(const unit_move *u)
{
    int64_t stride = 1;
    for (int32_t d = u->m.rank - 1; d >= 0; d--) {
        if (u->m.dim[d].to_stride != stride)
            return false;
        stride *= u->m.dim[d].extent;
    }
    return u->unit == 4 && u->to_first % UNIT_BYTES == 0 && hk_value_alignment(u->to) == UNIT_BYTES;
}

static hk_status emit_direct(hk_lower *l, const unit_move *u)
{
    static const hk_unit_kernels kernels = {
        {NULL, &hk_kernel_move_2, &hk_kernel_move_4, &hk_kernel_move_8, &hk_kernel_move_16}};
    int64_t count = hk_move_count(&u->m);
    bool gather = dense(u);
    const hk_kernel *kernel = gather ? &hk_kernel_move_gather4 : hk_unit_kernel(l, &kernels, u->unit);
    if (!kernel)
        return HK_STATUS_UNSUPPORTED;
    struct move_push p = {
        .count = (uint32_t)count, .from_base = (uint32_t)u->m.from_offset, .to_base = (uint32_t)u->m.to_offset};
    push_dims(&p, &u->m);
    hk_record *r = hk_emit(l, kernel, gather ? "move gather x4" : u->unit == 16 ? "move 16-byte units" : "move");
    hk_push(r, &p, sizeof p);
    use_both(r, u, offsetof(struct move_push, from), offsetof(struct move_push, to));
    hk_move_grid(l, r, gather ? (count + 3) / 4 : count);
    return HK_OK;
}

/* More dimensions than the push block holds: words, with the dimensions in a table. */
static hk_status emit_tabled(hk_lower *l, unit_move *u)
{
    if (u->unit > 4) { /* the words of a unit become the innermost dimension */
        int64_t words = u->unit / 4;
        for (int32_t d = 0; d < u->m.rank; d++) {
            u->m.dim[d].from_stride *= words;
            u->m.dim[d].to_stride *= words;
        }
        u->m.from_offset *= words;
        u->m.to_offset *= words;
        u->m.dim[u->m.rank++] = (hk_move_dim){words, 1, 1};
    } else if (u->unit < 4) {
        return hk_fail(l->ctx, HK_STATUS_UNSUPPORTED,
                       "node '%s' (%s): 16-bit elements in %d dimensions that do not collapse to 5; use float32",
                       l->node->name, l->node->type, (int)u->m.rank);
    }
    int32_t rank = u->m.rank;
    uint32_t *table = hk_arena_array(l->arena, (size_t)rank, 5 * sizeof *table);
    if (!table)
        return hk_out_of_memory(l->ctx, "a table of strides");
    for (int32_t k = 0; k < rank; k++) {
        const hk_move_dim *d = &u->m.dim[rank - 1 - k];
        hk_divisor e = hk_divisor_of(d->extent);
        uint32_t row[5] = {e.extent, e.multiplier, e.shift, (uint32_t)d->from_stride, (uint32_t)d->to_stride};
        memcpy(table + 5 * k, row, sizeof row);
    }
    int64_t count = hk_move_count(&u->m);
    struct move_block_push p = {.count = (uint32_t)count,
                                .rank = (uint32_t)rank,
                                .from_base = (uint32_t)u->m.from_offset,
                                .to_base = (uint32_t)u->m.to_offset};
    hk_record *r = hk_emit(l, &hk_kernel_move_block, "move, any rank");
    hk_push(r, &p, sizeof p);
    use_both(r, u, offsetof(struct move_block_push, from), offsetof(struct move_block_push, to));
    r->block = table;
    r->block_bytes = (uint32_t)rank * 5 * (uint32_t)sizeof *table;
    r->block_offset = offsetof(struct move_block_push, table);
    hk_move_grid(l, r, count);
    return HK_OK;
}

hk_status hk_emit_move(hk_lower *l, const hk_move *move, hk_value *from, hk_value *to)
{
    hk_move m = *move;
    if (hk_move_count(&m) == 0)
        return HK_OK;
    hk_move_collapse(&m);
    unit_move u = in_units(&m, from, to);
    if (u.m.rank == 0 || (u.m.rank == 1 && u.m.dim[0].from_stride == 1 && u.m.dim[0].to_stride == 1)) {
        hk_emit_copy(l, from, u.from_first, to, u.to_first, u.from_bytes);
        return HK_OK;
    }
    if (emit_transposed(l, &u))
        return HK_OK;
    return u.m.rank <= DIRECT_RANK ? emit_direct(l, &u) : emit_tabled(l, &u);
}

/* ---- contents known while planning */

static hk_status emit_words(hk_lower *l, hk_value *v, const void *words, uint64_t bytes, uint32_t mask)
{
    uint64_t count = (hk_value_bytes(v) + 3) / 4;
    struct move_literal_push p = {.count = (uint32_t)count, .mask = mask};
    hk_record *r = hk_emit(l, &hk_kernel_move_literal, "literal");
    hk_push(r, &p, sizeof p);
    hk_use(r, v, HK_WRITE, offsetof(struct move_literal_push, to));
    r->block = words;
    r->block_bytes = (uint32_t)bytes;
    r->block_offset = offsetof(struct move_literal_push, words);
    hk_move_grid(l, r, (int64_t)count);
    return HK_OK;
}

hk_status hk_emit_literal(hk_lower *l, const hk_tensor *t, hk_value *v)
{
    int64_t count = hk_tensor_count(t);
    if (count <= 0)
        return HK_OK;
    uint64_t bytes = ((uint64_t)count * hk_dtype_device_bytes(t->dtype) + 3) & ~(uint64_t)3;
    void *words = bytes <= UINT32_MAX ? hk_arena_alloc(l->arena, (size_t)bytes) : NULL;
    if (!words)
        return hk_out_of_memory(l->ctx, "a tensor known while planning");
    hk_widen(t->dtype, t->data, words, count);
    return emit_words(l, v, words, bytes, UINT32_MAX);
}

hk_status hk_emit_constant(hk_lower *l, const hk_tensor *t, hk_value *v)
{
    if (hk_shape_count(&v->shape) <= 0)
        return HK_OK;
    uint32_t words[2];
    hk_constant_words(t, hk_value_storage(v), words);
    if (words[0] == words[1]) {
        hk_emit_fill(l, v, words[0]);
        return HK_OK;
    }
    uint32_t *pattern = hk_arena_array(l->arena, 2, sizeof *pattern);
    if (!pattern)
        return hk_out_of_memory(l->ctx, "a constant of 8 bytes");
    memcpy(pattern, words, sizeof words);
    return emit_words(l, v, pattern, sizeof words, 1);
}
