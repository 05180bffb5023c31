/*
 * Offsets: greedy by size. Each storage takes the lowest gap among the placed ones that live at the same time, which a
 * tree over the lifetimes finds.
 */
#include <stdlib.h>
#include <string.h>

#include "gpu/gpu.h"
#include "runtime/plan.h"

/* Neighbours looked at for all storages of a region. What comes after goes behind everything: a graph made to have
 * thousands of values alive at once takes more memory, not minutes. */
enum { LOOKS_MAX = 1 << 21, LOOKS_EACH = 64 };
enum { TRIES_MAX = 32 }; /* other orders, while the arena is larger than what lives at once */

typedef struct region {
    hk_plan *p;
    uint64_t bank_bytes;
    hk_storage **list; /* by size, the largest first */
    size_t count;
    /* a complete binary tree over the storages by first group: last[i] is one more than the latest last group among the
     * placed ones below, 0: none is placed; leaves from leaf_base on */
    hk_storage **by_first;
    uint32_t *last;
    size_t leaf_base;
    hk_storage **alive; /* placed ones that live with the one under way */
    size_t alive_count, looks;
    uint64_t *bytes; /* of each bank so far */
    uint32_t *banks;
} region;

static int by_size(const void *a, const void *b)
{
    const hk_storage *x = *(hk_storage *const *)a, *y = *(hk_storage *const *)b;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? 1 : -1;
    return x->root->id < y->root->id ? -1 : 1;
}

static int by_first_group(const void *a, const void *b)
{
    const hk_storage *x = *(hk_storage *const *)a, *y = *(hk_storage *const *)b;
    if (x->first != y->first)
        return x->first < y->first ? -1 : 1;
    return x->root->id < y->root->id ? -1 : 1;
}

static int by_place(const void *a, const void *b)
{
    const hk_storage *x = *(hk_storage *const *)a, *y = *(hk_storage *const *)b;
    if (x->bank != y->bank)
        return x->bank < y->bank ? -1 : 1;
    return x->offset != y->offset ? x->offset < y->offset ? -1 : 1 : 0;
}

/* ---- who lives at the same time */

static size_t leaf_of(const region *r, const hk_storage *s)
{
    size_t low = 0, high = r->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (by_first_group(&r->by_first[middle], &s) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return r->leaf_base + low;
}

static void note_placed(region *r, const hk_storage *s)
{
    for (size_t i = leaf_of(r, s); i > 0; i /= 2)
        r->last[i] = HK_MAX(r->last[i], s->last + 1);
}

/* Collects below node, whose leaves are from .. from + width. */
static void collect_alive(region *r, size_t node, size_t from, size_t width, const hk_storage *s)
{
    if (from >= r->count || r->last[node] <= s->first || r->by_first[from]->first > s->last)
        return;
    if (width == 1) {
        r->alive[r->alive_count++] = r->by_first[from];
        return;
    }
    collect_alive(r, 2 * node, from, width / 2, s);
    collect_alive(r, 2 * node + 1, from + width / 2, width / 2, s);
}

/* ---- where */

/* The lowest gap among those alive, which are sorted by place. */
static void lowest_gap(const region *r, hk_storage *s)
{
    s->bank = 0;
    s->offset = 0;
    for (size_t i = 0; i < r->alive_count; i++) {
        const hk_storage *other = r->alive[i];
        for (; other->bank > s->bank; s->bank++, s->offset = 0)
            if (s->offset + s->bytes <= r->bank_bytes)
                return;
        if (other->offset >= s->offset + s->bytes)
            return;
        s->offset = HK_MAX(s->offset, other->offset + other->bytes);
    }
    if (s->offset + s->bytes > r->bank_bytes) {
        s->bank++;
        s->offset = 0;
    }
}

/* Behind everything, in the first bank with room. */
static void behind(const region *r, hk_storage *s)
{
    s->bank = 0;
    while (s->bank < HK_MAX_BANKS && r->bytes[s->bank] + s->bytes > r->bank_bytes)
        s->bank++;
    s->offset = s->bank < HK_MAX_BANKS ? r->bytes[s->bank] : 0;
}

static void place(region *r, hk_storage *s, bool reuse)
{
    r->alive_count = 0;
    if (!reuse || r->looks > LOOKS_MAX + LOOKS_EACH * r->count) {
        behind(r, s);
        return;
    }
    collect_alive(r, 1, 0, r->leaf_base, s);
    r->looks += r->alive_count;
    if (r->alive_count > 1)
        qsort(r->alive, r->alive_count, sizeof *r->alive, by_place);
    lowest_gap(r, s);
}

static hk_status place_all(region *r, bool reuse)
{
    for (size_t i = 0; i < r->count; i++) {
        hk_storage *s = r->list[i];
        if (s->bytes > r->bank_bytes)
            return hk_fail(r->p->ctx, HK_STATUS_OUT_OF_MEMORY,
                           "value '%s' needs %llu bytes, more than the device's largest allocation of %llu",
                           s->root->name, (unsigned long long)s->bytes, (unsigned long long)r->bank_bytes);
        place(r, s, reuse);
        if (s->bank >= HK_MAX_BANKS)
            return hk_fail(r->p->ctx, HK_STATUS_OUT_OF_MEMORY, "more than %d arenas are needed; use a smaller batch",
                           HK_MAX_BANKS);
        if (reuse)
            note_placed(r, s);
        r->bytes[s->bank] = HK_MAX(r->bytes[s->bank], s->offset + s->bytes);
        *r->banks = HK_MAX(*r->banks, s->bank + 1);
    }
    return HK_OK;
}

/* ---- a better order. The storage that ends highest found no gap because others came before it: it becomes the first.
 * Each try costs a placement, so there are few, and none in a graph that already took long. */

static uint64_t total_bytes(const region *r)
{
    uint64_t total = 0;
    for (uint32_t b = 0; b < *r->banks; b++)
        total += r->bytes[b];
    return total;
}

static void highest_first(region *r)
{
    size_t at = 0;
    for (size_t i = 1; i < r->count; i++) {
        const hk_storage *a = r->list[at], *b = r->list[i];
        if (b->bank > a->bank || (b->bank == a->bank && b->offset + b->bytes > a->offset + a->bytes))
            at = i;
    }
    hk_storage *first = r->list[at];
    memmove(r->list + 1, r->list, at * sizeof(hk_storage *));
    r->list[0] = first;
}

static hk_status place_again(region *r)
{
    memset(r->last, 0, 2 * r->leaf_base * sizeof *r->last);
    memset(r->bytes, 0, *r->banks * sizeof *r->bytes);
    *r->banks = 0;
    return place_all(r, true);
}

/* least: no arena can be smaller. The best order found is placed once more at the end. */
static hk_status improve(region *r, uint64_t least)
{
    hk_storage **best = hk_arena_array(r->p->arena, r->count, sizeof(hk_storage *));
    uint64_t best_bytes = total_bytes(r);
    size_t each = r->looks;
    if (!best)
        return hk_out_of_memory(r->p->ctx, "a memory plan");
    memcpy(best, r->list, r->count * sizeof(hk_storage *));
    for (int i = 0; i < TRIES_MAX && best_bytes > least && r->looks + 2 * each < LOOKS_MAX; i++) {
        highest_first(r);
        HK_TRY(place_again(r));
        if (total_bytes(r) >= best_bytes)
            continue;
        best_bytes = total_bytes(r);
        memcpy(best, r->list, r->count * sizeof(hk_storage *));
    }
    if (total_bytes(r) == best_bytes)
        return HK_OK;
    memcpy(r->list, best, r->count * sizeof(hk_storage *));
    return place_again(r);
}

/* least: bytes that live at once, towards which other orders are tried; 0: none is. */
static hk_status place_region(hk_plan *p, hk_region which, uint64_t bank_bytes, bool reuse, uint64_t least,
                              uint64_t *bytes, uint32_t *banks)
{
    region r = {.p = p, .bank_bytes = bank_bytes, .bytes = bytes, .banks = banks, .leaf_base = 1};
    r.list = hk_arena_array(p->arena, p->storage_count + 1, sizeof(hk_storage *));
    if (!r.list)
        return hk_out_of_memory(p->ctx, "a memory plan");
    for (size_t i = 0; i < p->storage_count; i++)
        if (p->storages[i].region == which && p->storages[i].used)
            r.list[r.count++] = &p->storages[i];
    if (r.count == 0)
        return HK_OK;
    while (r.leaf_base < r.count)
        r.leaf_base *= 2;
    r.by_first = hk_arena_array(p->arena, r.count, sizeof(hk_storage *));
    r.alive = hk_arena_array(p->arena, r.count, sizeof(hk_storage *));
    r.last = hk_arena_array(p->arena, 2 * r.leaf_base, sizeof *r.last);
    if (!r.by_first || !r.alive || !r.last)
        return hk_out_of_memory(p->ctx, "a memory plan");
    memcpy(r.by_first, r.list, r.count * sizeof(hk_storage *));
    qsort(r.list, r.count, sizeof *r.list, by_size);
    qsort(r.by_first, r.count, sizeof *r.by_first, by_first_group);
    HK_TRY(place_all(&r, reuse));
    return reuse && least && *banks == 1 ? improve(&r, least) : HK_OK;
}

/* The most activation bytes alive in one group. */
static hk_status count_live(hk_plan *p)
{
    uint64_t alive = 0;
    uint64_t *change = hk_arena_array(p->arena, p->group_count + 2u, sizeof *change); /* modulo 2^64 */
    if (!change)
        return hk_out_of_memory(p->ctx, "a memory plan");
    for (size_t i = 0; i < p->storage_count; i++) {
        const hk_storage *s = &p->storages[i];
        if (s->region != HK_REGION_ACTIVATIONS || !s->used)
            continue;
        change[s->first] += s->bytes;
        change[s->last + 1] -= s->bytes;
    }
    for (uint32_t g = 0; g <= p->group_count; g++) {
        alive += change[g];
        p->live_bytes = HK_MAX(p->live_bytes, alive);
    }
    return HK_OK;
}

hk_status hk_plan_memory(hk_plan *p, const hk_plan_options *options)
{
    bool reuse = !(options->debug & HK_DEBUG_POISON); /* a canary must not be another value's data */
    HK_TRY(count_live(p));
    HK_TRY(place_region(p, HK_REGION_ACTIVATIONS, options->bank_bytes, reuse, p->live_bytes, p->activation_bytes,
                        &p->activation_banks));
    return place_region(p, HK_REGION_PINNED, options->bank_bytes, false, 0, p->pinned_bytes, &p->pinned_banks);
}
