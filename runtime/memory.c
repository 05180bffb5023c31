/* Offsets: greedy by size. Each storage takes the lowest gap among the placed ones that live at the same time. */
#include <stdlib.h>

#include "gpu/gpu.h"
#include "runtime/plan.h"

static int by_size(const void *a, const void *b)
{
    const hk_storage *x = *(hk_storage *const *)a, *y = *(hk_storage *const *)b;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? 1 : -1;
    return x->root->id < y->root->id ? -1 : 1;
}

static bool live_together(const hk_storage *a, const hk_storage *b)
{
    return a->first <= b->last && b->first <= a->last;
}

/* placed is kept sorted by (bank, offset), so one walk finds the lowest gap. */
static size_t find_gap(hk_storage *const *placed, size_t count, const hk_storage *s, uint64_t bank_bytes, bool reuse,
                       uint32_t *bank, uint64_t *offset)
{
    uint32_t b = 0;
    uint64_t end = 0;
    size_t i = 0;
    for (; i < count; i++) {
        const hk_storage *other = placed[i];
        if (reuse && !live_together(other, s))
            continue;
        if (other->bank == b && other->offset >= end + s->bytes)
            break;
        if (other->bank > b) {
            if (end + s->bytes <= bank_bytes)
                break;
            b = other->bank;
            end = 0;
            if (other->offset >= s->bytes)
                break;
        }
        end = HK_MAX(end, other->offset + other->bytes);
    }
    if (i == count && end + s->bytes > bank_bytes) {
        b++;
        end = 0;
    }
    *bank = b;
    *offset = end;
    size_t at = 0;
    while (at < count && (placed[at]->bank < b || (placed[at]->bank == b && placed[at]->offset <= end)))
        at++;
    return at;
}

static hk_status place_region(hk_plan *p, hk_region region, uint64_t bank_bytes, bool reuse, uint64_t *bytes,
                              uint32_t *banks)
{
    hk_storage **list = hk_arena_array(p->arena, p->storage_count + 1, sizeof *list);
    hk_storage **placed = hk_arena_array(p->arena, p->storage_count + 1, sizeof *placed);
    if (!list || !placed)
        return hk_out_of_memory(p->ctx, "a memory plan");
    size_t count = 0;
    for (size_t i = 0; i < p->storage_count; i++)
        if (p->storages[i].region == region && p->storages[i].used)
            list[count++] = &p->storages[i];
    qsort(list, count, sizeof *list, by_size);
    for (size_t i = 0; i < count; i++) {
        hk_storage *s = list[i];
        if (s->bytes > bank_bytes)
            return hk_fail(p->ctx, HK_STATUS_OUT_OF_MEMORY,
                           "value '%s' needs %llu bytes, more than the device's largest allocation of %llu",
                           s->root->name, (unsigned long long)s->bytes, (unsigned long long)bank_bytes);
        size_t at = find_gap(placed, i, s, bank_bytes, reuse, &s->bank, &s->offset);
        if (s->bank >= HK_MAX_BANKS)
            return hk_fail(p->ctx, HK_STATUS_OUT_OF_MEMORY, "more than %d arenas are needed; use a smaller batch",
                           HK_MAX_BANKS);
        for (size_t k = i; k > at; k--)
            placed[k] = placed[k - 1];
        placed[at] = s;
        bytes[s->bank] = HK_MAX(bytes[s->bank], s->offset + s->bytes);
        *banks = HK_MAX(*banks, s->bank + 1);
    }
    return HK_OK;
}

hk_status hk_plan_memory(hk_plan *p, const hk_plan_options *options)
{
    bool reuse = !(options->debug & HK_DEBUG_POISON); /* a canary must not be another value's data */
    uint64_t *alive = hk_arena_array(p->arena, p->group_count + 2u, sizeof *alive);
    if (!alive)
        return hk_out_of_memory(p->ctx, "a memory plan");
    for (size_t i = 0; i < p->storage_count; i++) {
        const hk_storage *s = &p->storages[i];
        if (s->region == HK_REGION_ACTIVATIONS && s->used)
            for (uint32_t g = s->first; g <= s->last; g++)
                alive[g] += s->bytes;
    }
    for (uint32_t g = 0; g <= p->group_count; g++)
        p->live_bytes = HK_MAX(p->live_bytes, alive[g]);
    HK_TRY(
        place_region(p, HK_REGION_ACTIVATIONS, options->bank_bytes, reuse, p->activation_bytes, &p->activation_banks));
    return place_region(p, HK_REGION_PINNED, options->bank_bytes, false, p->pinned_bytes, &p->pinned_banks);
}
