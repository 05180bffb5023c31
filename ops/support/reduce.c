/* Teams, and emitting reductions. */
#include "ops/support/reduce.h"

#include <stddef.h>

#include "kernels.h"
#include "ops/support/move.h"
#include "shaders/reduce.push.h"

enum {
    CPU_ITEMS = 8,   /* one subgroup of lavapipe: no barrier ever, and the smallest task its threads share */
    GPU_LIMIT = 256, /* invocations of a workgroup */
    HELD_MOST = 8,   /* vectors per invocation: 32 registers */
    CHUNKS_MOST = 1024,
    ONE_PASS = 32, /* loads of an invocation that take less time than a second dispatch */
};

/* Numbers of reduce_form in shaders/reduce.comp. */
enum { FORM_SINGLE, FORM_ALONG, FORM_ACROSS };

/* ---- teams */

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* The largest power of two that is not above n, for n >= 1. */
static uint32_t power_below(int64_t n)
{
    uint32_t p = 1;
    while (p < 1u << 30 && 2 * (int64_t)p <= n)
        p *= 2;
    return p;
}

static uint32_t power_above(int64_t n)
{
    uint32_t p = power_below(HK_MAX(n, 1));
    return p < n ? 2 * p : p;
}

static uint32_t workgroup_limit(const hk_lower *l)
{
    return power_below(HK_MIN((int64_t)l->device->max_invocations, GPU_LIMIT));
}

hk_team hk_team_rows(const hk_lower *l, int64_t items, int64_t units)
{
    if (l->cpu)
        return (hk_team){.items = CPU_ITEMS, .lanes = 1};
    uint32_t limit = workgroup_limit(l), hint = HK_MAX(l->compute_units_hint, 1u);
    uint32_t lanes = HK_MIN(power_above(ceil_div(units, 4)), limit);
    while (lanes < limit && lanes < units && items * lanes < (int64_t)hint * 128)
        lanes *= 2;
    uint32_t together = HK_MAX(HK_MIN(limit, 128u) / lanes, 1u);
    while (together > 1 && together * lanes > 32 && ceil_div(items, together) < hint)
        together /= 2;
    return (hk_team){.items = together, .lanes = lanes};
}

hk_team hk_team_columns(const hk_lower *l, int64_t items, int64_t units)
{
    if (l->cpu)
        return (hk_team){.items = CPU_ITEMS, .lanes = 1};
    uint32_t wide = HK_MIN(power_above(items), 32u);
    uint32_t lanes = HK_MIN(power_below(HK_MAX(units / 8, 1)), workgroup_limit(l) / wide);
    return (hk_team){.items = wide, .lanes = HK_MAX(lanes, 1u), .spread = true};
}

int64_t hk_team_chunks(const hk_lower *l, const hk_team *t, int64_t items, int64_t units)
{
    int64_t groups = ceil_div(items, t->items), want, least;
    if (l->cpu) {
        want = ceil_div(8 * (int64_t)CPU_ITEMS, items);
        least = 256;
    } else if (units <= ONE_PASS * (int64_t)t->lanes) {
        return 1;
    } else {
        want = 4 * (int64_t)l->compute_units_hint / groups;
        least = 8 * (int64_t)t->lanes;
    }
    return HK_MAX(HK_MIN(HK_MIN(want, units / least), CHUNKS_MOST), 1);
}

uint32_t hk_team_held(const hk_lower *l, const hk_team *t, int64_t units)
{
    int64_t each = ceil_div(units, t->lanes);
    return l->cpu || each > HELD_MOST ? 0 : (uint32_t)HK_MAX(each, 1);
}

hk_record *hk_team_emit(hk_lower *l, const hk_team *t, hk_team_kernel kernel, const char *variant, int64_t items,
                        const void *push, size_t push_bytes)
{
    uint32_t size = t->items * t->lanes, width = l->device->subgroup_size;
    bool subgroup = kernel.subgroup && kernel.subgroup->spirv && t->lanes > 1 && !t->spread && !l->cpu &&
                    hk_lower_has(l, HK_CAP_SUBGROUP) && hk_lower_has(l, HK_CAP_SUBGROUP_SIZE) && width &&
                    size % width == 0;
    hk_record *r = hk_emit(l, subgroup ? kernel.subgroup : kernel.plain, variant);
    hk_workgroup(r, size, 1, 1);
    hk_spec(r, 3, t->items);
    hk_spec(r, 4, t->lanes);
    hk_spec(r, 5, t->spread);
    hk_spec(r, 6, subgroup ? width : 0);
    r->subgroup_size = subgroup ? width : 0;
    hk_grid_1d(l, r, (uint64_t)ceil_div(items, t->items));
    hk_push(r, push, push_bytes);
    return r;
}

/* ---- reductions */

typedef struct level {
    int64_t extent, stride;
} level;

/* Kept and reduced dimensions, each innermost first; neighbours of one kind are merged and extents of 1 left out. */
typedef struct walk {
    level kept[HK_MAX_RANK], reduced[HK_MAX_RANK];
    int32_t kept_count, reduced_count;
    int64_t outputs, total;
    bool across; /* the innermost dimension is kept */
} walk;

static void collapse(const hk_reduction *r, walk *w)
{
    *w = (walk){.outputs = 1, .total = 1};
    int64_t stride = 1;
    int last = -1;
    for (int32_t d = r->rank - 1; d >= 0; d--) {
        int64_t extent = r->extent[d];
        int reduced = r->axes >> d & 1u;
        *(reduced ? &w->total : &w->outputs) *= extent;
        if (extent == 1)
            continue;
        level *list = reduced ? w->reduced : w->kept;
        int32_t *count = reduced ? &w->reduced_count : &w->kept_count;
        if (last == reduced)
            list[*count - 1].extent *= extent;
        else
            list[(*count)++] = (level){extent, stride};
        if (last < 0)
            w->across = !reduced;
        last = reduced;
        stride *= extent;
    }
}

static uint32_t pick_form(const hk_reduction *r, const walk *w)
{
    if (hk_dtype_device_bytes(hk_value_storage(r->x)) != 4 || r->x_first % 4 || hk_value_alignment(r->x) < 16)
        return FORM_SINGLE;
    if (w->across && w->kept[0].extent % 4 == 0 && hk_value_alignment(r->y) == 16 &&
        (!r->shift || hk_value_alignment(r->shift) == 16))
        return FORM_ACROSS;
    return !w->across && w->reduced_count && w->reduced[0].extent % 4 == 0 ? FORM_ALONG : FORM_SINGLE;
}

/* From here on in units of the form. */
static void to_units(walk *w, uint32_t form)
{
    if (form == FORM_SINGLE)
        return;
    level *inner = form == FORM_ALONG ? &w->reduced[0] : &w->kept[0];
    inner->extent /= 4;
    *(form == FORM_ALONG ? &w->total : &w->outputs) /= 4;
    for (int32_t i = 0; i < HK_MAX_RANK; i++) {
        if (&w->reduced[i] != inner)
            w->reduced[i].stride /= 4;
        if (&w->kept[i] != inner)
            w->kept[i].stride /= 4;
    }
}

static hk_team_kernel pick_kernel(hk_dtype t)
{
    switch (t) {
    case HK_FLOAT32: return (hk_team_kernel){&hk_kernel_reduce_f32, &hk_kernel_reduce_f32_subgroup};
    case HK_INT8:
    case HK_INT16:
    case HK_INT32: return (hk_team_kernel){&hk_kernel_reduce_i32, NULL};
    case HK_BOOL:
    case HK_UINT8:
    case HK_UINT16:
    case HK_UINT32: return (hk_team_kernel){&hk_kernel_reduce_u32, NULL};
    case HK_INT64:
    case HK_UINT64: return (hk_team_kernel){&hk_kernel_reduce_i64, NULL};
    default: return (hk_team_kernel){0};
    }
}

static const char *variant_name(uint32_t form, bool across)
{
    return form == FORM_ALONG    ? "reduce rows x4"
           : form == FORM_ACROSS ? "reduce columns x4"
           : across              ? "reduce columns"
                                 : "reduce rows";
}

/* One dispatch. chunks: 0 to choose their number, else that many (1: this is the last pass). Returns the number. */
static int64_t emit_pass(hk_lower *l, const hk_reduction *r, int64_t chunks, int64_t count, hk_value **partial)
{
    walk w;
    collapse(r, &w);
    uint32_t form = pick_form(r, &w);
    to_units(&w, form);
    hk_team team = w.across ? hk_team_columns(l, w.outputs, w.total) : hk_team_rows(l, w.outputs, w.total);
    if (!chunks) {
        chunks = hk_team_chunks(l, &team, w.outputs, w.total);
        chunks = ceil_div(w.total, HK_MAX(ceil_div(w.total, chunks), 1));
        chunks = HK_MAX(chunks, 1);
    }
    bool split = chunks > 1;
    hk_value *y = r->y;
    if (split) {
        y = *partial = hk_scratch(l, r->y->dtype, w.outputs * (form == FORM_ACROSS ? 4 : 1) * chunks);
        if (!y)
            return 0;
        y->storage = r->y->storage;
    }
    struct reduce_push push = {
        .outputs = (uint32_t)w.outputs,
        .chunks = (uint32_t)chunks,
        .chunk = (uint32_t)ceil_div(w.total, chunks),
        .total = (uint32_t)w.total,
        .count = (uint32_t)count,
        .k_extent0 = (uint32_t)w.kept[0].extent,
        .k_extent1 = (uint32_t)w.kept[1].extent,
        .k_extent2 = (uint32_t)w.kept[2].extent,
        .k_stride0 = (uint32_t)w.kept[0].stride,
        .k_stride1 = (uint32_t)w.kept[1].stride,
        .k_stride2 = (uint32_t)w.kept[2].stride,
        .k_stride3 = (uint32_t)w.kept[3].stride,
        .r_extent0 = (uint32_t)w.reduced[0].extent,
        .r_extent1 = (uint32_t)w.reduced[1].extent,
        .r_extent2 = (uint32_t)w.reduced[2].extent,
        .r_stride0 = (uint32_t)w.reduced[0].stride,
        .r_stride1 = (uint32_t)w.reduced[1].stride,
        .r_stride2 = (uint32_t)w.reduced[2].stride,
        .r_stride3 = (uint32_t)w.reduced[3].stride,
    };
    hk_record *rec = hk_team_emit(l, &team, pick_kernel(hk_value_storage(r->x)), variant_name(form, w.across),
                                  w.outputs * chunks, &push, sizeof push);
    hk_spec(rec, HK_TEAM_SPEC, r->combine);
    hk_spec(rec, HK_TEAM_SPEC + 1, r->before);
    hk_spec(rec, HK_TEAM_SPEC + 2, split ? HK_AFTER_NOTHING : (uint32_t)r->after);
    hk_spec(rec, HK_TEAM_SPEC + 3, form);
    hk_spec(rec, HK_TEAM_SPEC + 4, (uint32_t)HK_MAX(w.kept_count, 1));
    hk_spec(rec, HK_TEAM_SPEC + 5, (uint32_t)HK_MAX(w.reduced_count, 1));
    hk_spec(rec, HK_TEAM_SPEC + 6, r->x->dtype == HK_UINT64);
    uint64_t bytes = hk_dtype_device_bytes(hk_value_storage(r->x));
    uint64_t elements = (uint64_t)(w.outputs * w.total) * (form == FORM_SINGLE ? 1 : 4);
    if (elements)
        hk_use_range(rec, r->x, (uint64_t)r->x_first * bytes, elements * bytes, HK_READ,
                     offsetof(struct reduce_push, x));
    hk_use(rec, y, HK_WRITE, offsetof(struct reduce_push, y));
    hk_use(rec, r->shift, HK_READ, offsetof(struct reduce_push, shift));
    rec->flops = (double)elements;
    return chunks;
}

hk_status hk_emit_reduction(hk_lower *l, const hk_reduction *r)
{
    if (!pick_kernel(hk_value_storage(r->x)).plain)
        return hk_fail(l->ctx, HK_STATUS_UNSUPPORTED,
                       "node '%s' (%s): no kernel reduces element type %s of '%s'; expected float32 or an integer type",
                       l->node->name, l->node->type, hk_dtype_name(hk_value_storage(r->x)), r->x->name);
    int64_t outputs = 1, total = 1;
    for (int32_t d = 0; d < r->rank; d++)
        *(r->axes >> d & 1u ? &total : &outputs) *= r->extent[d];
    if (outputs == 0)
        return HK_OK;
    int64_t count = hk_dtype_is_float(r->x->dtype) ? total : HK_MAX(total, 1); /* integers have no NaN for 0 / 0 */
    hk_value *partial = NULL;
    int64_t chunks = emit_pass(l, r, 0, count, &partial);
    if (chunks <= 1)
        return HK_OK;
    hk_reduction last = {.x = partial,
                         .y = r->y,
                         .rank = 2,
                         .extent = {chunks, outputs},
                         .axes = 1,
                         .combine = r->combine,
                         .after = r->after,
                         .shift = r->after == HK_AFTER_LOG_SHIFTED ? r->shift : NULL};
    emit_pass(l, &last, 1, count, NULL);
    return HK_OK;
}

/* ---- parts */

hk_status hk_require_float32(hk_lower *l, const hk_value *v)
{
    if (!v || hk_value_storage(v) == HK_FLOAT32)
        return HK_OK;
    return hk_fail(l->ctx, HK_STATUS_UNSUPPORTED,
                   "node '%s' (%s): element type %s of '%s' has no kernel; expected float32", l->node->name,
                   l->node->type, hk_dtype_name(hk_value_storage(v)), v->name);
}

bool hk_aligned_all(const hk_value *const *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (values[i] && hk_value_alignment(values[i]) < 16)
            return false;
    return true;
}
