/* From nodes to records in barrier groups. The steps, in order: storages, state updates, lowering, groups, lifetimes.
 */
#include "runtime/plan.h"

#include <string.h>

#include "gpu/gpu.h"

typedef struct planner {
    hk_plan *p;
    hk_graph *g;
    const hk_plan_options *options;
    hk_arena *arena;
    size_t once_values; /* of the graph before lowering added scratch */
    bool *once;         /* by value id: depends on constants alone */
    hk_node **order;    /* with the edges of state updates */
    size_t slot_capacity, record_capacity, storage_capacity;
    size_t once_count, run_count;
    hk_record **once_records, **run_records; /* program order */
    size_t once_capacity, run_capacity;
    hk_lower lower; /* of one node after the other */
} planner;

static hk_status no_memory(const planner *c)
{
    return hk_out_of_memory(c->p->ctx, "a plan");
}

/* ---- storages */

/* Slots grow with the graph's values, because lowering adds scratch. */
static hk_status grow_slots(planner *c)
{
    hk_plan *p = c->p;
    if (c->g->value_count <= c->slot_capacity)
        return HK_OK;
    size_t capacity = c->g->value_count + c->g->value_count / 2 + 64;
    hk_slot *slots = hk_arena_array(c->arena, capacity, sizeof *slots);
    if (!slots)
        return no_memory(c);
    if (c->slot_capacity)
        memcpy(slots, p->slots, c->slot_capacity * sizeof *slots);
    for (size_t i = c->slot_capacity; i < capacity; i++)
        slots[i].storage = UINT32_MAX;
    p->slots = slots;
    c->slot_capacity = capacity;
    return HK_OK;
}

static hk_region region_of(const planner *c, const hk_value *v)
{
    switch (v->kind) {
    case HK_VALUE_CONSTANT:
    case HK_VALUE_PARAMETER: return HK_REGION_WEIGHTS;
    case HK_VALUE_STATE: return HK_REGION_STATES;
    case HK_VALUE_STEP: return HK_REGION_STEP;
    case HK_VALUE_INPUT: return HK_REGION_PINNED;
    case HK_VALUE_ACTIVATION: break;
    }
    return v->id < c->once_values && c->once && c->once[v->id] ? HK_REGION_PINNED : HK_REGION_ACTIVATIONS;
}

static hk_status own_storage(planner *c, hk_value *v)
{
    hk_plan *p = c->p;
    if (p->storage_count == c->storage_capacity &&
        !hk_arena_grow(c->arena, (void **)&p->storages, p->storage_count, &c->storage_capacity, sizeof *p->storages))
        return no_memory(c);
    hk_storage *s = &p->storages[p->storage_count];
    *s = (hk_storage){.root = v, .region = region_of(c, v), .used_bytes = hk_value_bytes(v), .first = UINT32_MAX};
    s->bytes = (s->used_bytes + HK_ALIGNMENT - 1) / HK_ALIGNMENT * HK_ALIGNMENT;
    if (s->bytes == 0)
        s->bytes = HK_ALIGNMENT; /* an empty tensor still has an address */
    if (p->debug & HK_DEBUG_POISON)
        s->bytes += HK_CANARY_BYTES;
    p->slots[v->id] = (hk_slot){.storage = (uint32_t)p->storage_count++};
    return HK_OK;
}

static bool has_slot(const planner *c, const hk_value *v)
{
    return v->id < c->slot_capacity && c->p->slots[v->id].storage != UINT32_MAX;
}

/* Concat and Pack: an input that some node computes, that is no view and lies nowhere yet, is computed in place. */
static hk_status place_inputs(planner *c, const hk_node *n)
{
    hk_plan *p = c->p;
    if (!has_slot(c, n->out[0])) /* else it is a state's next version, in place */
        HK_TRY(own_storage(c, n->out[0]));
    hk_slot whole = p->slots[n->out[0]->id];
    uint64_t element = hk_dtype_device_bytes(hk_value_storage(n->out[0]));
    int64_t *offsets = hk_arena_array(c->arena, (size_t)n->in_count + 1, sizeof *offsets);
    if (!offsets)
        return no_memory(c);
    n->op->place(n, offsets);
    for (int32_t i = 0; i < n->in_count; i++) {
        hk_value *v = n->in[i];
        int64_t offset = offsets[i];
        if (offset < 0 || !v || (uint64_t)offset * element % 16 != 0 || !v->producer ||
            v->kind != HK_VALUE_ACTIVATION || v->state || has_slot(c, v) || c->once[v->id] ||
            hk_node_view_offset(v->producer) >= 0)
            continue;
        p->slots[v->id] = (hk_slot){.storage = whole.storage, .offset = whole.offset + (uint64_t)offset * element};
    }
    return HK_OK;
}

static hk_status assign_storages(planner *c)
{
    hk_graph *g = c->g;
    hk_plan *p = c->p;
    for (size_t i = 0; i < g->value_count; i++)
        if (!g->values[i]->producer && g->values[i]->kind != HK_VALUE_ACTIVATION && !has_slot(c, g->values[i]))
            HK_TRY(own_storage(c, g->values[i]));
    for (size_t i = g->node_count; i-- > 0;) /* the outermost Concat first */
        if (g->nodes[i]->op->flags & HK_OP_PLACE)
            HK_TRY(place_inputs(c, g->nodes[i]));
    for (size_t i = 0; i < g->node_count; i++) {
        hk_node *n = c->order[i];
        int64_t offset = hk_node_view_offset(n);
        for (int32_t k = 0; k < n->out_count; k++) {
            hk_value *v = n->out[k];
            if (!v || has_slot(c, v))
                continue;
            if (k == 0 && offset >= 0) {
                p->slots[v->id] = p->slots[n->in[0]->id];
                p->slots[v->id].offset += (uint64_t)offset * hk_dtype_device_bytes(hk_value_storage(v));
            } else {
                HK_TRY(own_storage(c, v));
            }
        }
    }
    return HK_OK;
}

/* ---- state updates: in place when every reader of the old version can run first */

static bool reads_through_view(const hk_value *v, const hk_value *old)
{
    while (v != old && v->producer && hk_node_view_offset(v->producer) >= 0)
        v = v->producer->in[0];
    return v == old;
}

static bool reads(const hk_node *n, const hk_value *old)
{
    for (int32_t i = 0; i < n->in_count; i++)
        if (n->in[i] && reads_through_view(n->in[i], old))
            return true;
    return false;
}

/* Marks every node that depends on n, n included. Nodes are in topological order. */
static void mark_behind(hk_graph *g, hk_node *n)
{
    for (size_t i = 0; i < g->node_count; i++)
        g->nodes[i]->mark = g->nodes[i] == n;
    for (size_t i = n->id; i < g->node_count; i++) {
        hk_node *m = g->nodes[i];
        for (int32_t k = 0; k < m->in_count && !m->mark; k++)
            if (m->in[k] && m->in[k]->producer && m->in[k]->producer->mark)
                m->mark = 1;
    }
}

typedef struct edge {
    hk_node *reader, *update;
} edge;

/* A topological order that also puts each reader of an old version before its update. */
static hk_status order_nodes(planner *c, const edge *edges, size_t edge_count)
{
    hk_graph *g = c->g;
    size_t done = 0;
    for (size_t i = 0; i < g->node_count; i++)
        g->nodes[i]->mark = 0;
    while (done < g->node_count) {
        size_t before = done;
        for (size_t i = 0; i < g->node_count; i++) {
            hk_node *n = g->nodes[i];
            bool ready = !n->mark;
            for (int32_t k = 0; ready && k < n->in_count; k++)
                ready = !n->in[k] || !n->in[k]->producer || n->in[k]->producer->mark;
            for (size_t e = 0; ready && e < edge_count; e++)
                ready = edges[e].update != n || edges[e].reader->mark;
            if (ready) {
                n->mark = 1;
                c->order[done++] = n;
            }
        }
        if (done == before)
            return hk_fail(c->p->ctx, HK_STATUS_INTERNAL, "state updates of graph '%s' cannot be ordered", g->name);
    }
    return HK_OK;
}

static hk_status place_states(planner *c)
{
    hk_graph *g = c->g;
    edge *edges = NULL;
    size_t count = 0, capacity = 0;
    for (size_t i = 0; i < g->state_count; i++) {
        hk_value *old = g->states[i]->first, *new = g->states[i]->last;
        hk_node *update = new->producer;
        if (new == old || !update || hk_node_view_offset(update) >= 0 || has_slot(c, new) ||
            hk_value_bytes(new) != hk_value_bytes(old))
            continue;
        mark_behind(g, update);
        bool in_place = true;
        size_t first_edge = count;
        for (size_t k = 0; k < g->node_count && in_place; k++) {
            hk_node *n = g->nodes[k];
            if (n == update || hk_node_view_offset(n) >= 0 || !reads(n, old))
                continue;
            in_place = !n->mark;
            if (in_place && count == capacity &&
                !hk_arena_grow(c->arena, (void **)&edges, count, &capacity, sizeof *edges))
                return no_memory(c);
            if (in_place)
                edges[count++] = (edge){n, update};
        }
        if (in_place)
            c->p->slots[new->id] = c->p->slots[old->id];
        else
            count = first_edge;
    }
    return order_nodes(c, edges, count);
}

/* ---- lowering */

static hk_status append(planner *c, bool once, hk_record *r)
{
    hk_record ***list = once ? &c->once_records : &c->run_records;
    size_t *count = once ? &c->once_count : &c->run_count;
    size_t *capacity = once ? &c->once_capacity : &c->run_capacity;
    if (*count == *capacity && !hk_arena_grow(c->arena, (void **)list, *count, capacity, sizeof **list))
        return no_memory(c);
    (*list)[(*count)++] = r;
    return HK_OK;
}

static uint64_t operand_start(const hk_plan *p, const hk_operand *o)
{
    return p->slots[o->value->id].offset + o->offset;
}

/* A copy of something onto itself: an input of Concat that was computed in place. */
static bool is_no_copy(const hk_plan *p, const hk_record *r)
{
    const hk_operand *a = &r->operand[0], *b = &r->operand[1];
    return r->kind == HK_RECORD_COPY && p->slots[a->value->id].storage == p->slots[b->value->id].storage &&
           operand_start(p, a) == operand_start(p, b);
}

static hk_status check_record(const planner *c, const hk_record *r)
{
    const hk_device_info *d = c->options->device;
    if (r->kind != HK_RECORD_DISPATCH)
        return HK_OK;
    if (!r->kernel || !r->kernel->spirv)
        return hk_fail(c->p->ctx, HK_STATUS_INTERNAL, "node '%s' (%s): kernel '%s' has no code in this build",
                       r->node->name, r->node->type, r->kernel ? r->kernel->name : "?");
    if (r->kernel->needs & ~d->caps)
        return hk_fail(c->p->ctx, HK_STATUS_INTERNAL, "node '%s' (%s): kernel '%s' needs a capability the device lacks",
                       r->node->name, r->node->type, r->kernel->name);
    uint64_t invocations = (uint64_t)r->spec[0] * r->spec[1] * r->spec[2];
    uint32_t most = HK_MAX(r->grid[0], HK_MAX(r->grid[1], r->grid[2]));
    if (invocations > d->max_invocations || most > d->max_grid)
        return hk_fail(
            c->p->ctx, HK_STATUS_INTERNAL,
            "node '%s' (%s): kernel '%s' asks for %llu invocations and a grid of %u, the device allows %u and %u",
            r->node->name, r->node->type, r->kernel->name, (unsigned long long)invocations, most, d->max_invocations,
            d->max_grid);
    return HK_OK;
}

/* A record that makes scratch from constants, and asks to run once. */
static bool is_kept(const planner *c, const hk_record *r)
{
    bool kept = r->keep;
    for (uint32_t k = 0; k < r->operand_count && kept; k++) {
        const hk_operand *o = &r->operand[k];
        kept = o->access == HK_WRITE ? o->value->id >= c->once_values
                                     : o->access == HK_READ && o->value->id < c->once_values && c->once[o->value->id];
    }
    return kept;
}

static hk_status take_records(planner *c, const hk_lower *l, bool node_once)
{
    HK_TRY(grow_slots(c));
    for (size_t i = 1; i < l->record_count; i++) {
        hk_record *r = l->records[i];
        bool once = node_once || is_kept(c, r);
        HK_TRY(check_record(c, r));
        for (uint32_t k = 0; k < r->operand_count; k++) {
            hk_value *v = r->operand[k].value;
            if (!has_slot(c, v))
                HK_TRY(own_storage(c, v));
            if (once && c->p->storages[c->p->slots[v->id].storage].region == HK_REGION_ACTIVATIONS)
                c->p->storages[c->p->slots[v->id].storage].region = HK_REGION_PINNED;
        }
        bool empty = r->kind == HK_RECORD_DISPATCH ? !r->grid[0] || !r->grid[1] || !r->grid[2] : !r->operand[0].bytes;
        if (!empty && !is_no_copy(c->p, r))
            HK_TRY(append(c, once, r));
    }
    return HK_OK;
}

static hk_lower lowering(const planner *c)
{
    const hk_plan_options *o = c->options;
    bool cpu = o->device->type == HK_DEVICE_SOFTWARE && !(o->debug & HK_DEBUG_GPU_TUNING);
    bool emulated = !o->coopmat[0] && o->debug & HK_DEBUG_GPU_TUNING;
    bool bytes = emulated && o->matrix_types >> HK_MATRIX_INT8 & 1u;
    return (hk_lower){.ctx = c->p->ctx,
                      .arena = c->arena,
                      .graph = c->g,
                      .device = o->device,
                      .cpu = cpu,
                      .coopmat_m = emulated ? 16 : o->coopmat[0],
                      .coopmat_n = emulated ? 16 : o->coopmat[1],
                      .coopmat_k = emulated ? 16 : o->coopmat[2],
                      .int8_m = bytes ? 16 : o->int8[0],
                      .int8_n = bytes ? 16 : o->int8[1],
                      .int8_k = bytes ? 32 : o->int8[2],
                      .matrix_types = o->matrix_types,
                      .coopmat_emulated = emulated,
                      .compute_units_hint = cpu ? 4 : 132,
                      .precision = o->precision,
                      .tuning = o->tuning};
}

static hk_status lower_node(planner *c, hk_node *n)
{
    if (hk_node_view_offset(n) >= 0)
        return HK_OK;
    if (!n->op->lower)
        return hk_fail(c->p->ctx, HK_STATUS_UNSUPPORTED, "node '%s' (%s) cannot run on the device", n->name, n->type);
    hk_lower *l = &c->lower;
    l->node = n;
    if (!hk_lower_begin(l))
        return no_memory(c);
    HK_TRY(n->op->lower(l));
    if (l->failed)
        return no_memory(c);
    bool once = n->out_count > 0;
    for (int32_t k = 0; k < n->out_count; k++)
        once &= !n->out[k] || c->once[n->out[k]->id];
    return take_records(c, l, once);
}

/* States whose last version lies elsewhere are copied into place behind everything. */
static hk_status copy_states(planner *c)
{
    static const hk_node copy_node = {.name = "state", .type = "hk.StateCopy"};
    for (size_t i = 0; i < c->g->state_count; i++) {
        hk_value *old = c->g->states[i]->first, *new = c->g->states[i]->last;
        if (old == new || (c->p->slots[old->id].storage == c->p->slots[new->id].storage &&
                           c->p->slots[old->id].offset == c->p->slots[new->id].offset))
            continue;
        hk_lower *l = &c->lower;
        l->node = &copy_node;
        if (!hk_lower_begin(l))
            return no_memory(c);
        hk_emit_copy(l, new, 0, old, 0, hk_value_bytes(old));
        if (l->failed)
            return no_memory(c);
        HK_TRY(take_records(c, l, false));
    }
    return HK_OK;
}

/* ---- groups */

/* One or several earlier accesses of a storage, as a later one sees them: whoever conflicts comes behind this group. */
typedef struct access {
    uint64_t start, end;
    uint32_t group;
    bool write;
    struct access *next; /* of the same storage */
} access;

typedef struct access_list {
    access *first;
    size_t count;
} access_list;

static bool conflicts(const access *a, uint64_t start, uint64_t end, bool write)
{
    return (a->write || write) && a->start < end && start < a->end;
}

/* The first group behind everything that v waits for (hk.After), or v itself is a view of. made: by value id, the group
 * behind its last writer. */
static uint32_t group_behind(const hk_value *v, const uint32_t *made)
{
    uint32_t group = 0;
    for (; v->producer && hk_node_view_offset(v->producer) >= 0; v = v->producer->in[0]) {
        const hk_value *other = strcmp(v->producer->type, HK_AFTER) != 0 ? NULL : v->producer->in[1];
        while (other && other->producer && hk_node_view_offset(other->producer) >= 0)
            other = other->producer->in[0];
        group = other ? HK_MAX(group, made[other->id]) : group;
    }
    return group;
}

static uint32_t earliest_group(const planner *c, const access_list *lists, const hk_record *r, const uint32_t *made)
{
    uint32_t group = 0;
    for (uint32_t k = 0; k < r->operand_count; k++) {
        const hk_operand *o = &r->operand[k];
        group = HK_MAX(group, group_behind(o->value, made));
        uint64_t start = operand_start(c->p, o), end = start + o->bytes;
        for (const access *a = lists[c->p->slots[o->value->id].storage].first; a; a = a->next)
            if (conflicts(a, start, end, o->access & HK_WRITE))
                group = HK_MAX(group, a->group + 1);
    }
    return group;
}

/* Whoever conflicts with a conflicts with b, which is not earlier. */
static bool is_covered(const access *a, const access *b)
{
    return (b->write || !a->write) && a->start >= b->start && a->end <= b->end && a->group <= b->group;
}

/* Both are the same to everybody else, and together one range. */
static bool are_neighbours(const access *a, const access *b)
{
    return a->write == b->write && a->group == b->group && a->start <= b->end && b->start <= a->end;
}

/* Above this many, a storage's accesses are taken for one: a few barriers more, but no walk that grows with the graph.
 */
enum { ACCESSES_MAX = 256 };

static hk_status note_access(const planner *c, access_list *list, access new)
{
    bool crowded = list->count >= ACCESSES_MAX;
    for (access **at = &list->first; *at;) {
        access *a = *at;
        bool joins = crowded || are_neighbours(a, &new);
        if (!joins && !is_covered(a, &new)) {
            at = &a->next;
            continue;
        }
        if (joins)
            new = (access){.start = HK_MIN(a->start, new.start),
                           .end = HK_MAX(a->end, new.end),
                           .group = HK_MAX(a->group, new.group),
                           .write = a->write || new.write};
        *at = a->next;
        list->count--;
    }
    access *a = hk_arena_new(c->arena, access);
    if (!a)
        return no_memory(c);
    *a = new;
    a->next = list->first;
    list->first = a;
    list->count++;
    return HK_OK;
}

static hk_status note_accesses(const planner *c, access_list *lists, const hk_record *r, uint32_t group)
{
    for (uint32_t k = 0; k < r->operand_count; k++) {
        const hk_operand *o = &r->operand[k];
        uint64_t start = operand_start(c->p, o);
        access new = {.start = start, .end = start + o->bytes, .group = group, .write = o->access & HK_WRITE};
        HK_TRY(note_access(c, &lists[c->p->slots[o->value->id].storage], new));
    }
    return HK_OK;
}

static hk_status group_records(planner *c, hk_record *const *records, size_t count, uint32_t base, uint32_t *groups,
                               uint32_t *most)
{
    access_list *lists = hk_arena_array(c->arena, c->p->storage_count + 1, sizeof *lists);
    uint32_t *made = hk_arena_array(c->arena, c->g->value_count + 1, sizeof *made);
    if (!lists || !made)
        return no_memory(c);
    for (size_t i = 0; i < count; i++) {
        const hk_record *r = records[i];
        uint32_t group = earliest_group(c, lists, r, made);
        groups[i] = base + group;
        *most = HK_MAX(*most, groups[i]);
        HK_TRY(note_accesses(c, lists, r, group));
        for (uint32_t k = 0; k < r->operand_count; k++)
            if (r->operand[k].access & HK_WRITE)
                made[r->operand[k].value->id] = HK_MAX(made[r->operand[k].value->id], group + 1);
    }
    return HK_OK;
}

/* Counting sort by group; what runs once comes first, in groups of its own. */
static hk_status sort_records(planner *c)
{
    hk_plan *p = c->p;
    p->record_count = c->once_count + c->run_count;
    p->once_count = c->once_count;
    uint32_t *groups = hk_arena_array(c->arena, p->record_count + 1, sizeof *groups);
    p->groups = hk_arena_array(c->arena, p->record_count + 1, sizeof *p->groups);
    p->program = hk_arena_array(c->arena, p->record_count + 1, sizeof *p->program);
    p->records = hk_arena_array(c->arena, p->record_count + 1, sizeof *p->records);
    if (!groups || !p->groups || !p->program || !p->records)
        return no_memory(c);
    uint32_t most = 0;
    HK_TRY(group_records(c, c->once_records, c->once_count, 0, groups, &most));
    uint32_t base = c->once_count ? most + 1 : 0;
    most = base;
    HK_TRY(group_records(c, c->run_records, c->run_count, base, groups + c->once_count, &most));
    p->group_count = p->record_count ? most + 1 : 0;
    if (c->options->fault == HK_FAULT_MISSING_BARRIER)
        for (size_t i = 0; i < p->record_count; i++)
            if (groups[i] == most && most > 0)
                groups[i]--;
    size_t *at = hk_arena_array(c->arena, p->group_count + 2u, sizeof *at);
    if (!at)
        return no_memory(c);
    for (size_t i = 0; i < p->record_count; i++)
        at[groups[i] + 1]++;
    for (uint32_t g = 0; g < p->group_count; g++)
        at[g + 1] += at[g];
    for (size_t i = 0; i < p->record_count; i++) {
        size_t to = at[groups[i]]++;
        p->records[to] = i < c->once_count ? c->once_records[i] : c->run_records[i - c->once_count];
        p->groups[to] = groups[i];
        p->program[to] = (uint32_t)i;
    }
    return HK_OK;
}

static void find_lifetimes(planner *c)
{
    hk_plan *p = c->p;
    for (size_t i = 0; i < p->record_count; i++)
        for (uint32_t k = 0; k < p->records[i]->operand_count; k++) {
            hk_storage *s = &p->storages[p->slots[p->records[i]->operand[k].value->id].storage];
            s->first = HK_MIN(s->first, p->groups[i]);
            s->last = HK_MAX(s->last, p->groups[i]);
            s->used = true;
        }
    for (size_t i = 0; i < p->storage_count; i++)
        if (p->storages[i].region == HK_REGION_PINNED)
            p->storages[i].used = true;
    if (c->options->fault == HK_FAULT_SHORT_LIFETIME)
        for (size_t i = 0; i < p->storage_count; i++)
            if (p->storages[i].used)
                p->storages[i].last = p->storages[i].first;
}

/* Results of a run are read after it: their storages are pinned. */
static void pin_outputs(planner *c)
{
    for (size_t i = 0; i < c->g->output_count; i++) {
        hk_storage *s = &c->p->storages[c->p->slots[c->g->outputs[i]->id].storage];
        s->pinned = true;
        if (s->region == HK_REGION_ACTIVATIONS)
            s->region = HK_REGION_PINNED;
    }
}

/* What depends on constants alone is computed when the plan is made, not in every run. */
static void find_once(planner *c)
{
    for (size_t i = 0; i < c->g->value_count; i++)
        c->once[i] = c->g->values[i]->kind == HK_VALUE_CONSTANT || c->g->values[i]->kind == HK_VALUE_PARAMETER;
    for (size_t i = 0; i < c->g->node_count; i++) {
        const hk_node *n = c->g->nodes[i];
        bool once = !(n->op->flags & (HK_OP_RANDOM | HK_OP_KEEP));
        for (int32_t k = 0; k < n->in_count; k++)
            once &= !n->in[k] || c->once[n->in[k]->id];
        for (int32_t k = 0; k < n->out_count; k++)
            if (n->out[k])
                c->once[n->out[k]->id] = once;
    }
}

static hk_status build(planner *c)
{
    c->once_values = c->g->value_count;
    c->once = hk_arena_array(c->arena, c->g->value_count + 1, sizeof *c->once);
    c->order = hk_arena_array(c->arena, c->g->node_count + 1, sizeof *c->order);
    if (!c->once || !c->order)
        return no_memory(c);
    find_once(c);
    HK_TRY(grow_slots(c));
    for (size_t i = 0; i < c->g->state_count; i++)
        HK_TRY(own_storage(c, c->g->states[i]->first));
    HK_TRY(place_states(c));
    HK_TRY(assign_storages(c));
    size_t nodes = c->g->node_count;
    c->lower = lowering(c);
    for (size_t i = 0; i < nodes; i++)
        HK_TRY(lower_node(c, c->order[i]));
    HK_TRY(copy_states(c));
    pin_outputs(c);
    HK_TRY(sort_records(c));
    find_lifetimes(c);
    return hk_plan_memory(c->p, c->options);
}

hk_status hk_plan_create(hk_graph *g, const hk_plan_options *options, hk_plan **out)
{
    hk_plan *p = hk_arena_new(g->arena, hk_plan);
    if (!p)
        return hk_out_of_memory(g->ctx, "a plan");
    *p = (hk_plan){.ctx = g->ctx, .arena = g->arena, .graph = g, .debug = options->debug};
    HK_TRY(hk_graph_prune(g));
    for (size_t i = 0; i < g->node_count; i++)
        for (int32_t k = 0; k < g->nodes[i]->out_count; k++)
            if (g->nodes[i]->out[k] && !hk_shape_known(&g->nodes[i]->out[k]->shape))
                return hk_fail(g->ctx, HK_STATUS_INTERNAL, "node '%s' (%s): the shape of '%s' is not known at planning",
                               g->nodes[i]->name, g->nodes[i]->type, g->nodes[i]->out[k]->name);
    planner c = {.p = p, .g = g, .options = options, .arena = g->arena};
    HK_TRY(build(&c));
    if (options->debug & HK_DEBUG_CHECK_PLAN)
        HK_TRY(hk_plan_check(p));
    *out = p;
    return HK_OK;
}
