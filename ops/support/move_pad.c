/* Padded moves on host and device. */
#include "ops/support/move_pad.h"

#include <stddef.h>
#include <string.h>

#include "kernels.h"
#include "shaders/move_pad.push.h"

enum { TABLE_WORDS = 9, SPEC_MODE = 3, SPEC_STEPS = 4 };

/* After how many elements a mode repeats itself; 0: it does not. */
static int64_t period_of(hk_pad_mode mode, int64_t count)
{
    switch (mode) {
    case HK_PAD_REFLECT: return HK_MAX(2 * (count - 1), 1);
    case HK_PAD_WRAP: return count;
    case HK_PAD_CONSTANT:
    case HK_PAD_EDGE: return 0;
    }
    return 0;
}

/* The source element of destination coordinate c, or -1. */
static int64_t source_of(hk_pad_mode mode, const hk_pad_dim *d, int64_t c)
{
    int64_t t = c - d->before;
    int64_t period = period_of(mode, d->count);
    if (period) {
        t = (t % period + period) % period;
        return t >= d->count ? period - t : t;
    }
    if (mode == HK_PAD_EDGE)
        return HK_MIN(HK_MAX(t, 0), d->count - 1);
    return t >= 0 && t % d->step == 0 && t / d->step < d->count ? t / d->step : -1;
}

void hk_host_pad(const hk_pad *p, const hk_tensor *from, const hk_tensor *value, hk_tensor *to)
{
    int64_t total = 1;
    for (int32_t d = 0; d < p->rank; d++)
        total *= p->dim[d].extent;
    size_t bytes = hk_dtype_bytes(to->dtype);
    int64_t c[HK_MAX_RANK] = {0};
    for (int64_t i = 0; i < total; i++) {
        int64_t at = p->from_offset;
        bool found = true;
        for (int32_t d = 0; d < p->rank && found; d++) {
            int64_t s = source_of(p->mode, &p->dim[d], c[d]);
            found = s >= 0;
            at += s * p->dim[d].stride;
        }
        if (found)
            memcpy((char *)to->data + (size_t)i * bytes, (const char *)from->data + (size_t)at * bytes, bytes);
        else
            hk_set_element(to, i, value);
        for (int32_t d = p->rank - 1; d >= 0 && ++c[d] == p->dim[d].extent; d--)
            c[d] = 0;
    }
}

/* ---- device */

static bool whole(const hk_pad_dim *d)
{
    return d->before == 0 && d->extent == d->count && d->step == 1;
}

/* Neighbours become one dimension when the inner one is taken whole: always if the outer one is too, and with constant
 * padding also if it is not (rows of padding are then just longer). */
static void collapse(hk_pad *p)
{
    int32_t kept = 0;
    for (int32_t i = 0; i < p->rank; i++) {
        hk_pad_dim d = p->dim[i];
        hk_pad_dim *outer = kept ? &p->dim[kept - 1] : NULL;
        bool together = outer && whole(&d) && outer->stride == d.count * d.stride && outer->step == 1 &&
                        (p->mode == HK_PAD_CONSTANT || whole(outer));
        if (together)
            *outer = (hk_pad_dim){.extent = outer->extent * d.extent,
                                  .before = outer->before * d.extent,
                                  .count = outer->count * d.extent,
                                  .stride = d.stride,
                                  .step = 1};
        else
            p->dim[kept++] = d;
    }
    p->rank = kept;
}

static uint32_t *make_table(hk_lower *l, const hk_pad *p)
{
    uint32_t *table = hk_arena_array(l->arena, (size_t)p->rank * TABLE_WORDS, sizeof *table);
    if (!table)
        return NULL;
    for (int32_t k = 0; k < p->rank; k++) {
        const hk_pad_dim *d = &p->dim[p->rank - 1 - k];
        int64_t period = period_of(p->mode, d->count);
        int64_t lead = -d->before;
        if (period) /* whole periods make every index non-negative: the shader divides unsigned numbers */
            lead = (lead % period + period) % period;
        hk_divisor e = hk_divisor_of(d->extent), s = hk_divisor_of(period ? period : d->step);
        uint32_t row[TABLE_WORDS] = {e.extent,       e.multiplier,       e.shift,
                                     (uint32_t)lead, (uint32_t)d->count, (uint32_t)d->stride,
                                     s.extent,       s.multiplier,       s.shift};
        memcpy(table + k * TABLE_WORDS, row, sizeof row);
    }
    return table;
}

/* Widens the unit if the innermost dimension and every stride allow it. Returns its bytes. */
static uint32_t widen(hk_pad *p, const hk_value *from, const hk_value *to)
{
    uint32_t element = (uint32_t)hk_dtype_device_bytes(hk_value_storage(to));
    hk_pad_dim *inner = &p->dim[p->rank - 1];
    if (inner->stride != 1 || inner->step != 1 || !(p->mode == HK_PAD_CONSTANT || whole(inner)))
        return element;
    int64_t n[4 + HK_MAX_RANK] = {inner->extent, inner->before, inner->count, p->from_offset};
    int32_t count = 4;
    for (int32_t d = 0; d + 1 < p->rank; d++)
        n[count++] = p->dim[d].stride;
    uint32_t unit = hk_move_unit(from, to, n, count);
    int64_t ratio = unit / element;
    for (int32_t d = 0; d + 1 < p->rank; d++)
        p->dim[d].stride /= ratio;
    inner->extent /= ratio;
    inner->before /= ratio;
    inner->count /= ratio;
    p->from_offset /= ratio;
    return unit;
}

hk_status hk_emit_pad(hk_lower *l, const hk_pad *pad, hk_value *from, const hk_tensor *value, hk_value *to)
{
    static const hk_unit_kernels kernels = {
        {NULL, &hk_kernel_move_pad_2, &hk_kernel_move_pad_4, &hk_kernel_move_pad_8, &hk_kernel_move_pad_16}};
    if (hk_shape_count(&to->shape) <= 0)
        return HK_OK;
    if (hk_shape_count(&from->shape) == 0)
        return hk_emit_constant(l, value, to);
    hk_pad p = *pad;
    collapse(&p);
    if (p.rank == 0) /* a scalar */
        p.dim[p.rank++] = (hk_pad_dim){.extent = 1, .count = 1, .stride = 1, .step = 1};
    uint32_t unit = widen(&p, from, to);
    const hk_kernel *kernel = hk_unit_kernel(l, &kernels, unit);
    if (!kernel)
        return HK_STATUS_UNSUPPORTED;
    uint32_t *table = make_table(l, &p);
    if (!table)
        return hk_out_of_memory(l->ctx, "a table of paddings");

    int64_t count = (int64_t)(hk_value_bytes(to) / unit);
    uint32_t words[2];
    hk_constant_words(value, hk_value_storage(to), words);
    struct move_pad_push push = {.count = (uint32_t)count,
                                 .rank = (uint32_t)p.rank,
                                 .from_base = (uint32_t)p.from_offset,
                                 .value_low = words[0],
                                 .value_high = words[1]};
    bool steps = false;
    for (int32_t d = 0; d < p.rank; d++)
        steps |= p.dim[d].step != 1;
    hk_record *r = hk_emit(l, kernel, "pad");
    hk_push(r, &push, sizeof push);
    hk_spec(r, SPEC_MODE, (uint32_t)p.mode);
    hk_spec(r, SPEC_STEPS, steps);
    hk_use(r, from, HK_READ, offsetof(struct move_pad_push, from));
    hk_use(r, to, HK_WRITE, offsetof(struct move_pad_push, to));
    r->block = table;
    r->block_bytes = (uint32_t)p.rank * TABLE_WORDS * (uint32_t)sizeof *table;
    r->block_offset = offsetof(struct move_pad_push, table);
    hk_move_grid(l, r, unit == 4 ? (count + 3) / 4 : count);
    return HK_OK;
}
