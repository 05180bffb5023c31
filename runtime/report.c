/* Reports. */
#include "runtime/report.h"

#include "runtime/element_types.h"

typedef struct rows {
    hk_arena *arena;
    hk_plan_row *list;
    size_t count, capacity;
    uint32_t group; /* first free group number */
} rows;

static hk_plan_row *add(rows *r)
{
    if (r->count == r->capacity && !hk_arena_grow(r->arena, (void **)&r->list, r->count, &r->capacity, sizeof *r->list))
        return NULL;
    return &r->list[r->count++];
}

static hk_dtype output_dtype(const hk_node *n)
{
    return n->out_count && n->out[0] ? n->out[0]->dtype : HK_DTYPE_NONE;
}

static hk_status add_views(hk_context *ctx, rows *r, const hk_graph *g)
{
    for (size_t i = 0; i < g->node_count; i++) {
        const hk_node *n = g->nodes[i];
        hk_plan_row *row = hk_node_view_offset(n) < 0 ? NULL : add(r);
        if (row)
            *row = (hk_plan_row){.node = hk_arena_string(r->arena, n->name),
                                 .op = hk_arena_string(r->arena, n->type),
                                 .where = "view",
                                 .kernel = "",
                                 .dtype = output_dtype(n)};
        if (row ? !row->node || !row->op : hk_node_view_offset(n) >= 0)
            return hk_out_of_memory(ctx, "a report");
    }
    return HK_OK;
}

static hk_status add_exec(hk_context *ctx, hk_report *report, rows *r, hk_exec *e)
{
    const hk_plan *p = hk_exec_plan(e);
    hk_plan_info *info = &report->info;
    uint64_t *ns = hk_arena_array(r->arena, p->record_count + 1, sizeof *ns);
    if (!ns)
        return hk_out_of_memory(ctx, "a report");
    uint64_t body_ns = 0;
    HK_TRY(hk_exec_profile(e, &body_ns, ns));
    info->device_ns += body_ns;
    for (size_t i = p->once_count; i < p->record_count; i++) {
        const hk_record *record = p->records[i];
        hk_plan_row *row = add(r);
        if (!row)
            return hk_out_of_memory(ctx, "a report");
        *row = (hk_plan_row){.node = hk_arena_string(r->arena, record->node->name),
                             .op = hk_arena_string(r->arena, record->node->type),
                             .where = "device",
                             .kernel = hk_arena_string(r->arena, record->variant ? record->variant : ""),
                             .dtype = output_dtype(record->node),
                             .group = r->group + p->groups[i],
                             .ns = ns[i],
                             .tuned = record->choice[0] || record->choice[1],
                             .flops = record->flops};
        if (!row->node || !row->op || !row->kernel)
            return hk_out_of_memory(ctx, "a report");
        for (uint32_t k = 0; k < record->operand_count; k++)
            row->bytes += record->operand[k].bytes * (record->operand[k].access == HK_READ_WRITE ? 2u : 1u);
        info->dispatches += record->kind == HK_RECORD_DISPATCH;
    }
    r->group += p->group_count;
    info->groups += p->group_count;
    uint64_t bytes = 0;
    for (uint32_t b = 0; b < p->activation_banks; b++)
        bytes += p->activation_bytes[b];
    info->activation_bytes = HK_MAX(info->activation_bytes, bytes);
    info->live_bytes = HK_MAX(info->live_bytes, p->live_bytes);
    return add_views(ctx, r, p->graph);
}

static hk_status begin(hk_context *ctx, hk_report *report, rows *r)
{
    hk_report_finish(report);
    report->arena = hk_arena_create(ctx);
    *r = (rows){.arena = report->arena};
    return report->arena ? HK_OK : hk_out_of_memory(ctx, "a report");
}

static void end(hk_report *report, const hk_env *env, const rows *r, uint32_t segments)
{
    report->info.rows = r->list;
    report->info.row_count = r->count;
    report->info.segments = segments;
    report->info.weight_bytes = env->weights.bytes + env->state_store.bytes;
}

static hk_status add_host(hk_context *ctx, rows *r, const hk_env *env, const hk_node *n, uint64_t ns)
{
    hk_plan_row *row = add(r);
    if (!row)
        return hk_out_of_memory(ctx, "a report");
    *row = (hk_plan_row){.node = hk_arena_string(r->arena, n->name),
                         .op = hk_arena_string(r->arena, n->type),
                         .where = n->op->flags & HK_OP_CONTROL ? "control" : "host",
                         .kernel = "",
                         .dtype = output_dtype(n),
                         .lacking = hk_node_lacks(n, hk_gpu_info(env->gpu)),
                         .group = r->group++,
                         .ns = ns};
    return row->node && row->op ? HK_OK : hk_out_of_memory(ctx, "a report");
}

/* A body's program follows the node that owns it, as it ran last. */
static hk_status add_stages(hk_context *ctx, hk_report *report, rows *r, const hk_env *env, const hk_stage *first)
{
    for (const hk_stage *s = first; s; s = hk_stage_next(s)) {
        HK_TRY(add_exec(ctx, report, r, hk_stage_exec(s)));
        size_t count = 0;
        hk_node *const *nodes = hk_stage_host_nodes(s, &count);
        for (size_t i = 0; i < count; i++) {
            HK_TRY(add_host(ctx, r, env, nodes[i], hk_stage_host_ns(s, i)));
            HK_TRY(add_stages(ctx, report, r, env, hk_stage_body(s, i)));
        }
    }
    return HK_OK;
}

static hk_status visit_exec(hk_context *ctx, hk_exec *e, void (*visit)(void *user, const hk_record *r, uint64_t ns),
                            void *user)
{
    const hk_plan *p = hk_exec_plan(e);
    uint64_t body_ns = 0, *ns = hk_alloc_array(ctx, p->record_count + 1, sizeof *ns);
    if (!ns)
        return hk_out_of_memory(ctx, "a report");
    hk_status st = hk_exec_profile(e, &body_ns, ns);
    for (size_t i = p->once_count; i < p->record_count && st == HK_OK; i++)
        visit(user, p->records[i], ns[i]);
    hk_free(ctx, ns);
    return st;
}

hk_status hk_report_visit(hk_context *ctx, const hk_stage *first,
                          void (*visit)(void *user, const hk_record *r, uint64_t ns), void *user)
{
    for (const hk_stage *s = first; s; s = hk_stage_next(s)) {
        size_t count = 0;
        HK_TRY(visit_exec(ctx, hk_stage_exec(s), visit, user));
        (void)hk_stage_host_nodes(s, &count);
        for (size_t i = 0; i < count; i++)
            HK_TRY(hk_report_visit(ctx, hk_stage_body(s, i), visit, user));
    }
    return HK_OK;
}

hk_status hk_report_make(hk_context *ctx, hk_report *report, const hk_env *env, const hk_stage *first,
                         uint32_t segments)
{
    rows r;
    HK_TRY(begin(ctx, report, &r));
    HK_TRY(add_stages(ctx, report, &r, env, first));
    end(report, env, &r, segments);
    return HK_OK;
}

hk_status hk_report_exec(hk_context *ctx, hk_report *report, const hk_env *env, hk_exec *e)
{
    rows r;
    HK_TRY(begin(ctx, report, &r));
    HK_TRY(add_exec(ctx, report, &r, e));
    end(report, env, &r, 1);
    return HK_OK;
}

void hk_report_finish(hk_report *report)
{
    hk_arena_destroy(&report->arena);
    report->info = (hk_plan_info){0};
}
