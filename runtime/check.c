/* HILLOCK_DEBUG=check-plan: proves a plan right from what will be recorded, not from how it was made. */
#include "runtime/plan.h"

typedef struct range {
    hk_region region;
    uint32_t bank;
    uint64_t start, end;
    uint32_t storage;
    uint32_t program, group;
    bool read, write;
    const hk_record *record;
    const hk_value *value;
} range;

/* Weights, states and the step block are laid out by their owner, one range a storage: the storage tells them apart. */
static bool shares_memory(const range *a, const range *b)
{
    if (a->region != b->region || a->start >= b->end || b->start >= a->end)
        return false;
    bool planned = a->region == HK_REGION_ACTIVATIONS || a->region == HK_REGION_PINNED;
    return planned ? a->bank == b->bank : a->storage == b->storage;
}

static hk_status conflict(const hk_plan *p, const range *a, const range *b, const char *what)
{
    return hk_fail(p->ctx, HK_STATUS_INTERNAL,
                   "check-plan: %s: '%s' of node '%s' (group %u) and '%s' of node '%s' (group %u) share memory", what,
                   a->value->name, a->record->node->name, a->group, b->value->name, b->record->node->name, b->group);
}

/* first comes before second in program order. */
static hk_status check_pair(const hk_plan *p, const range *first, const range *second)
{
    if (first->record == second->record || !(first->write || second->write) || !shares_memory(first, second))
        return HK_OK;
    if (first->group == second->group)
        return conflict(p, first, second, "no barrier between dependent accesses");
    if (first->storage == second->storage && first->group > second->group)
        return conflict(p, first, second, "accesses out of program order");
    return HK_OK;
}

/* A storage that lives at the same time as another in the same memory: some access of either lies between two of the
 * other's. Groups of all accesses to both must not interleave. */
static hk_status check_lives(const hk_plan *p, const range *ranges, size_t count)
{
    uint32_t *first = hk_arena_array(p->arena, p->storage_count + 1, sizeof *first);
    uint32_t *last = hk_arena_array(p->arena, p->storage_count + 1, sizeof *last);
    if (!first || !last)
        return hk_out_of_memory(p->ctx, "check-plan");
    for (size_t i = 0; i < p->storage_count; i++)
        first[i] = UINT32_MAX;
    for (size_t i = 0; i < count; i++) {
        first[ranges[i].storage] = HK_MIN(first[ranges[i].storage], ranges[i].group);
        last[ranges[i].storage] = HK_MAX(last[ranges[i].storage], ranges[i].group);
    }
    for (size_t i = 0; i < count; i++)
        for (size_t k = i + 1; k < count; k++) {
            const range *a = &ranges[i], *b = &ranges[k];
            if (a->storage == b->storage || !shares_memory(a, b))
                continue;
            if (first[a->storage] <= last[b->storage] && first[b->storage] <= last[a->storage])
                return conflict(p, a, b, "two values alive at once");
        }
    return HK_OK;
}

hk_status hk_plan_check(const hk_plan *p)
{
    size_t count = 0;
    for (size_t i = 0; i < p->record_count; i++)
        count += p->records[i]->operand_count;
    range *ranges = hk_arena_array(p->arena, count + 1, sizeof *ranges);
    if (!ranges)
        return hk_out_of_memory(p->ctx, "check-plan");
    count = 0;
    for (size_t i = 0; i < p->record_count; i++)
        for (uint32_t k = 0; k < p->records[i]->operand_count; k++) {
            const hk_operand *o = &p->records[i]->operand[k];
            const hk_slot *slot = &p->slots[o->value->id];
            const hk_storage *s = &p->storages[slot->storage];
            uint64_t start = slot->offset + o->offset;
            if (start + o->bytes > s->bytes)
                return hk_fail(p->ctx, HK_STATUS_INTERNAL,
                               "check-plan: node '%s' reaches %llu bytes into '%s', which has %llu",
                               p->records[i]->node->name, (unsigned long long)(start + o->bytes), o->value->name,
                               (unsigned long long)s->bytes);
            ranges[count++] = (range){
                s->region,     s->bank,      s->offset + start,   s->offset + start + o->bytes, slot->storage,
                p->program[i], p->groups[i], o->access & HK_READ, o->access & HK_WRITE,         p->records[i],
                o->value};
        }
    for (size_t i = 0; i < count; i++)
        for (size_t k = i + 1; k < count; k++) {
            const range *a = &ranges[i], *b = &ranges[k];
            HK_TRY(a->program < b->program ? check_pair(p, a, b) : check_pair(p, b, a));
        }
    return check_lives(p, ranges, count);
}
