/* Cutting a graph where the host must look: what runs on the device now, on the host then, and what is left. */
#include "runtime/stage.h"

#include "ops/control.h"
#include "ops/infer.h"
#include "ops/support/membrane.h"
#include "runtime/element_types.h"

/* ---- cutting */

/* Marks, by id, the values that some node needs to know before its output shapes are. */
void hk_mark_wanted(const hk_graph *g, const bool *only, bool *wanted)
{
    for (size_t i = 0; i < g->node_count; i++) {
        const hk_node *n = g->nodes[i];
        for (int32_t k = 0; k < n->in_count && k < 32; k++)
            if (n->in[k] && n->in[k]->graph == g && n->op && n->op->host_inputs >> k & 1u && (!only || only[i]))
                wanted[n->in[k]->id] = true;
    }
}

static bool is_available(const hk_graph *g, const hk_value *v, const bool *available)
{
    if (v->graph == g && !available[v->id])
        return false;
    for (int64_t i = 0; v->list && v->list->items && i < v->shape.dim[0]; i++)
        if (!is_available(g, v->list->items[i], available))
            return false;
    return true;
}

static bool uses_available(const hk_graph *g, const hk_node *n, const bool *available)
{
    for (int32_t i = 0; i < n->in_count; i++)
        if (n->in[i] && !is_available(g, n->in[i], available))
            return false;
    for (int32_t b = 0; b < n->body_count; b++) {
        const hk_graph *body = n->bodies[b];
        for (size_t i = 0; i < body->node_count; i++)
            if (!uses_available(g, body->nodes[i], available))
                return false;
        for (size_t i = 0; i < body->output_count; i++)
            if (!is_available(g, body->outputs[i], available))
                return false;
    }
    return true;
}

/* v is what the host looks at, or, handed_on, what it only gives to a body. */
static void read_value(hk_stage *s, const hk_value *v, bool handed_on)
{
    if (v->graph == s->graph && !v->data) {
        bool lent = handed_on && !v->list && hk_shape_known(&v->shape) && hk_shape_count(&v->shape) > BOUND_MAX_COUNT;
        *(lent ? &s->lent[v->id] : &s->read[v->id]) = true;
    }
    for (int64_t i = 0; v->list && v->list->items && i < v->shape.dim[0]; i++)
        read_value(s, v->list->items[i], false);
}

/* inside: n stands in a body. */
static void read_uses(hk_stage *s, const hk_node *n, bool inside)
{
    for (int32_t i = 0; i < n->in_count; i++)
        if (n->in[i])
            read_value(s, n->in[i], inside || hk_control_hands_on(n, i));
    for (int32_t b = 0; b < n->body_count; b++) {
        for (size_t i = 0; i < n->bodies[b]->node_count; i++)
            read_uses(s, n->bodies[b]->nodes[i], true);
        for (size_t i = 0; i < n->bodies[b]->output_count; i++)
            read_value(s, n->bodies[b]->outputs[i], true);
    }
}

/* Such nodes are replaced when what they need is known: they wait for it. */
static bool has_lists(const hk_node *n)
{
    for (int32_t i = 0; i < n->in_count; i++)
        if (n->in[i] && n->in[i]->list)
            return true;
    for (int32_t i = 0; i < n->out_count; i++)
        if (n->out[i] && n->out[i]->list)
            return true;
    return false;
}

static bool shapes_known(const hk_node *n)
{
    for (int32_t i = 0; i < n->out_count; i++)
        if (n->out[i] && !hk_shape_known(&n->out[i]->shape))
            return false;
    return true;
}

static void make_available(const hk_node *n, bool *available)
{
    for (int32_t k = 0; k < n->out_count; k++)
        if (n->out[k])
            available[n->out[k]->id] = true;
}

static void take_host_node(hk_stage *s, hk_node *n)
{
    s->host_nodes[s->host_count++] = n;
    s->on_host[n->id] = true;
    read_uses(s, n, false);
}

/* Element types without a kernel, told once a plan. */
static void log_types(const hk_stage *s, const hk_node *first, hk_dtype lacking, size_t count)
{
    if (count > 0)
        hk_log(s->graph->ctx, HK_LOG_WARN,
               "%zu node%s of element types that no kernel takes run%s on the host, the first is '%s' (%s), %s", count,
               count > 1 ? "s" : "", count > 1 ? "" : "s", first->name, first->type, hk_dtype_name(lacking));
}

/* Decides for every node: on the device now, on the host at the end of this stage, or deferred. */
static hk_status classify(hk_stage *s, const hk_device_info *device, bool *whole)
{
    hk_graph *g = s->graph;
    bool *available = hk_arena_array(g->arena, g->value_count + 1, sizeof *available);
    bool *at_end = hk_arena_array(g->arena, g->value_count + 1,
                                  sizeof *at_end); /* known when the host nodes have run */
    s->deferred = hk_arena_array(g->arena, g->node_count + 1, sizeof *s->deferred);
    s->read = hk_arena_array(g->arena, g->value_count + 1, sizeof *s->read);
    s->lent = hk_arena_array(g->arena, g->value_count + 1, sizeof *s->lent);
    s->wanted = hk_arena_array(g->arena, g->value_count + 1, sizeof *s->wanted);
    s->on_host = hk_arena_array(g->arena, g->node_count + 1, sizeof *s->on_host);
    s->host_nodes = hk_arena_array(g->arena, g->node_count + 1, sizeof *s->host_nodes);
    s->host_ns = hk_arena_array(g->arena, g->node_count + 1, sizeof *s->host_ns);
    if (!available || !at_end || !s->deferred || !s->read || !s->lent || !s->wanted || !s->on_host || !s->host_nodes ||
        !s->host_ns)
        return hk_out_of_memory(g->ctx, "a stage");
    for (size_t i = 0; i < g->value_count; i++)
        available[i] = at_end[i] = !g->values[i]->producer;
    *whole = true;
    bool progress = false;
    hk_dtype lacking = HK_DTYPE_NONE;
    size_t typed = 0, first = 0;
    for (size_t i = 0; i < g->node_count; i++) {
        hk_node *n = g->nodes[i];
        bool ready = uses_available(g, n, available), host = n->op->flags & (HK_OP_HOST | HK_OP_CONTROL);
        hk_dtype lacks = hk_node_lacks(n, device);
        if (ready && !host && lacks == HK_DTYPE_NONE && shapes_known(n) && !has_lists(n)) {
            make_available(n, available);
            make_available(n, at_end);
            continue;
        }
        *whole = false;
        s->deferred[i] = true;
        if (lacks != HK_DTYPE_NONE && shapes_known(n) && uses_available(g, n, at_end)) {
            take_host_node(s, n); /* its inputs may be results of host nodes before it */
            make_available(n, at_end);
            first = typed++ == 0 ? i : first;
            lacking = typed == 1 ? lacks : lacking;
            progress = true;
        } else if (ready && host) {
            take_host_node(s, n);
            progress = true;
        }
        for (int32_t k = 0; ready && !host && k < n->in_count && k < 32; k++)
            if (n->in[k] && !n->in[k]->data && n->op->host_inputs >> k & 1u)
                s->read[n->in[k]->id] = progress = true;
    }
    hk_mark_wanted(g, s->deferred, s->wanted);
    if (g->node_count)
        log_types(s, g->nodes[first], lacking, typed);
    for (size_t i = 0; i < g->node_count && !*whole && !progress; i++)
        if (s->deferred[i])
            return hk_fail(g->ctx, HK_STATUS_UNSUPPORTED,
                           "node '%s' (%s): the shape of its output cannot be determined", g->nodes[i]->name,
                           g->nodes[i]->type);
    return HK_OK;
}

/* Whether bodies and later nodes need what this stage computes, or has as an input. */
static bool needed_later(const hk_stage *s, const hk_uses *uses, size_t id)
{
    const hk_value *v = s->graph->values[id];
    bool later = s->read[id] || s->lent[id] || uses->is_output[id];
    for (uint32_t k = 0; k < uses->count[id] && !later; k++)
        later = s->deferred[uses->users[id][k]->id];
    return later && (v->producer ? !s->deferred[v->producer->id] : v->kind == HK_VALUE_INPUT);
}

/* The device part as a graph of its own; its outputs are what the host reads, and then what only the device does. */
static hk_status device_part(hk_stage *s, hk_graph **out)
{
    hk_graph *g = s->graph, *part = NULL;
    hk_uses uses;
    HK_TRY(hk_graph_uses(g, g->arena, &uses));
    HK_TRY(hk_graph_clone(g, &part));
    size_t kept = 0;
    for (size_t i = 0; i < g->node_count; i++)
        if (!s->deferred[i])
            part->nodes[kept++] = part->nodes[i];
    part->node_count = kept;
    part->output_count = 0;
    s->output = hk_arena_array(g->arena, g->value_count + 1, sizeof *s->output);
    bool failed = !s->output;
    for (int32_t device = 0; device < 2; device++)
        for (size_t i = 0; i < g->value_count && !failed; i++) {
            if (device == s->read[i])
                continue;
            s->output[i] = -1;
            if (!needed_later(s, &uses, i))
                continue;
            s->output[i] = (int32_t)part->output_count;
            part->device_outputs += (size_t)device;
            failed = !hk_graph_add_output(part, part->values[i]);
        }
    for (size_t i = 0; i < part->state_count; i++) {
        const hk_value *last = g->states[i]->last;
        if (last->producer && s->deferred[last->producer->id])
            part->states[i]->last = part->states[i]->first;
    }
    if (failed) {
        hk_graph_destroy(&part);
        return hk_out_of_memory(g->ctx, "a stage");
    }
    *out = part;
    return HK_OK;
}

/* Lists come out as their leaves. */
static hk_status flatten_outputs(hk_stage *s, hk_graph *g)
{
    s->result_count = g->output_count;
    s->results = hk_arena_array(g->arena, g->output_count + 1, sizeof *s->results);
    if (!s->results)
        return hk_out_of_memory(g->ctx, "a stage");
    for (size_t i = 0; i < g->output_count; i++)
        s->results[i] = g->outputs[i];
    g->output_count = 0;
    for (size_t i = 0; i < s->result_count; i++)
        for (size_t k = 0; k < hk_value_leaves(s->results[i]); k++) {
            size_t at = k;
            if (!hk_graph_add_output(g, hk_value_leaf(s->results[i], &at)))
                return HK_STATUS_OUT_OF_MEMORY;
        }
    return HK_OK;
}

/* Takes g over. */
hk_status hk_stage_create(hk_program *p, hk_graph *g, hk_stage **out)
{
    hk_context *ctx = p->env->ctx;
    hk_stage *s = hk_alloc(ctx, sizeof *s);
    hk_status st = s ? HK_OK : hk_out_of_memory(ctx, "a stage");
    hk_graph *part = g;
    bool whole = false;
    if (st == HK_OK) {
        s->graph = g;
        g->matrix_types = hk_usable_matrix_types(p->env->gpu, p->env->precision);
        st = hk_infer_graph(g);
    } else {
        hk_graph_destroy(&g);
    }
    if (st == HK_OK)
        st = hk_join_membranes(g, p->env->fresh ? HK_MEMBRANES_FRESH : HK_MEMBRANES_KEPT);
    if (st == HK_OK)
        st = hk_settle_element_types(g, hk_gpu_info(p->env->gpu));
    if (st == HK_OK)
        st = classify(s, hk_gpu_info(p->env->gpu), &whole);
    if (st == HK_OK && whole)
        st = flatten_outputs(s, g);
    else if (st == HK_OK)
        st = device_part(s, &part);
    if (st == HK_OK && whole)
        s->graph = NULL;
    if (st == HK_OK && p->pass) {
        st = p->pass(part, p->user);
        if (st != HK_OK)
            hk_graph_destroy(&part);
    }
    if (st == HK_OK)
        st = hk_exec_create(p->env, part, &s->exec);
    if (st == HK_OK)
        *out = s;
    else
        hk_stage_destroy(ctx, s);
    return st;
}

/* ---- what can be said without a device */

static bool can_run(const hk_node *n)
{
    return n->op && (n->op->lower || n->op->expand || n->op->flags & (HK_OP_HOST | HK_OP_CONTROL | HK_OP_VIEW));
}

/* Bodies are planned when they run. */
static hk_status check_bodies(const hk_graph *g)
{
    for (size_t i = 0; i < g->node_count; i++)
        for (int32_t b = 0; b < g->nodes[i]->body_count; b++) {
            const hk_graph *body = g->nodes[i]->bodies[b];
            for (size_t k = 0; k < body->node_count; k++)
                if (!can_run(body->nodes[k]))
                    return hk_fail(g->ctx, HK_STATUS_UNSUPPORTED, "node '%s' (%s): it cannot run in the body of '%s'",
                                   body->nodes[k]->name, body->nodes[k]->type, g->nodes[i]->name);
            HK_TRY(check_bodies(body));
        }
    return HK_OK;
}

/* Whether planning has what it needs of the inputs: their shapes, and no contents. */
static hk_status inputs_suffice(const hk_graph *g, bool *out)
{
    bool *wanted = hk_arena_array(g->arena, g->value_count + 1, sizeof *wanted);
    if (!wanted)
        return hk_out_of_memory(g->ctx, "a check");
    hk_mark_wanted(g, NULL, wanted);
    *out = true;
    for (size_t i = 0; i < g->input_count; i++)
        *out &= hk_shape_known(&g->inputs[i]->shape) && !wanted[g->inputs[i]->id];
    return HK_OK;
}

static uint64_t sum(const uint64_t *bytes, uint32_t banks)
{
    uint64_t all = 0;
    for (uint32_t b = 0; b < banks; b++)
        all += bytes[b];
    return all;
}

static void estimate_plan(const hk_plan *p, bool whole, hk_estimate *e)
{
    *e = (hk_estimate){.known = true, .whole = whole, .live_bytes = p->live_bytes};
    e->activation_bytes = sum(p->activation_bytes, p->activation_banks);
    e->input_output_bytes = sum(p->pinned_bytes, p->pinned_banks);
    for (size_t i = 0; i < p->storage_count; i++)
        if (p->storages[i].used && p->storages[i].region == HK_REGION_WEIGHTS)
            e->weight_bytes += p->storages[i].bytes;
    for (size_t i = p->once_count; i < p->record_count; i++) {
        const hk_record *r = p->records[i];
        e->flops += r->flops;
        e->dispatches += r->kind == HK_RECORD_DISPATCH;
        for (uint32_t k = 0; k < r->operand_count; k++)
            e->moved_bytes += r->operand[k].bytes * (r->operand[k].access == HK_READ_WRITE ? 2u : 1u);
    }
}

static hk_status check_first_stage(hk_graph *g, hk_program_pass *pass, void *user, const hk_plan_options *options,
                                   hk_estimate *estimate)
{
    hk_stage s = {.graph = g};
    hk_graph *part = g;
    hk_plan *plan = NULL;
    bool whole = false;
    HK_TRY(hk_settle_element_types(g, options->device));
    HK_TRY(classify(&s, options->device, &whole));
    HK_TRY(whole ? flatten_outputs(&s, g) : device_part(&s, &part));
    hk_status st = pass(part, user);
    if (st == HK_OK)
        st = hk_plan_create(part, options, &plan);
    if (st == HK_OK && estimate)
        estimate_plan(plan, whole, estimate);
    if (part != g)
        hk_graph_destroy(&part);
    return st;
}

hk_status hk_program_check(const hk_graph *graph, hk_program_pass *pass, void *user, const hk_plan_options *options,
                           hk_estimate *estimate)
{
    hk_graph *g = NULL;
    bool plannable = false;
    HK_TRY(hk_graph_clone(graph, &g));
    hk_status st = hk_infer_graph(g);
    if (st == HK_OK)
        st = check_bodies(g);
    if (st == HK_OK)
        st = inputs_suffice(g, &plannable);
    if (st == HK_OK && plannable)
        st = check_first_stage(g, pass, user, options, estimate);
    hk_graph_destroy(&g);
    return st;
}
