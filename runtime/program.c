/* Stages: cutting a graph where the host must look, and keeping the plans. */
#include "runtime/program.h"

#include <stdlib.h>
#include <string.h>

#include "ops/control.h"
#include "ops/infer.h"
#include "runtime/element_types.h"

#define MOST_BODIES 2        /* of a control node: If has two */
#define BOUND_MAX_COUNT 1024 /* elements of an operand that becomes part of a plan's key */

struct hk_stage {
    struct hk_stage *next; /* of its siblings, the most recently used first */
    void *key;
    size_t key_bytes;
    hk_graph *graph; /* inferred, owned: what this stage and the rest do. NULL in a last stage: the exec has it */
    hk_exec *exec;
    hk_node **host_nodes; /* to run on the host when the recording has ended */
    uint64_t *host_ns;    /* of each in the last run; 0 for control flow, whose bodies are reported */
    size_t host_count;
    bool *on_host;      /* by node id: one of these */
    bool *deferred;     /* by node id: left to the next stage */
    bool *wanted;       /* by value id: a deferred node needs the contents before its shapes are known */
    bool *read;         /* by value id: the host wants the contents */
    int32_t *output;    /* by value id: which output of exec it is, -1: none */
    hk_value **results; /* of a last stage: the graph's outputs, of which exec's are the leaves, in order */
    size_t result_count;
    struct source *sources; /* by input of exec, of a continuation */
    struct hk_stage *children, *last_child;
    hk_program **bodies; /* by host node, MOST_BODIES each: the programs of a control node's bodies */
    hk_program **ran;    /* by host node: that of the last run */
};

/* Where a continuation finds an input: a value of the stage before, or a leaf of a list that the host made. */
typedef struct source {
    uint32_t id;
    size_t leaf;
} source;
typedef struct source_list {
    source *sources;
    size_t count, capacity;
} source_list;

struct hk_program {
    hk_env *env;
    const hk_graph *graph;
    bool *wanted;              /* by value id of graph: some node needs the contents before its shapes are known */
    hk_graph *owned;           /* a control body's template */
    const hk_value **captured; /* by a body's extra inputs */
    size_t captured_count;
    uint32_t max_plans;
    hk_program_pass *pass;
    void *user;
    hk_stage *stages;
    hk_stage *last;
};

/* ---- life */

static void stage_destroy(hk_context *ctx, hk_stage *s)
{
    while (s) {
        hk_stage *next = s->next;
        stage_destroy(ctx, s->children);
        hk_exec_destroy(&s->exec);
        for (size_t i = 0; s->bodies && i < s->host_count * MOST_BODIES; i++)
            hk_program_destroy(&s->bodies[i]);
        hk_graph_destroy(&s->graph);
        hk_free(ctx, s->key);
        hk_free(ctx, s);
        s = next;
    }
}

void hk_program_clear(hk_program *p)
{
    stage_destroy(p->env->ctx, p->stages);
    p->stages = p->last = NULL;
}

hk_status hk_program_create(hk_env *env, const hk_graph *graph, uint32_t max_plans, hk_program_pass *pass, void *user,
                            hk_program **out)
{
    hk_program *p = hk_alloc(env->ctx, sizeof *p);
    if (!p)
        return hk_out_of_memory(env->ctx, "a program");
    *p = (hk_program){.env = env, .graph = graph, .max_plans = max_plans ? max_plans : 8, .pass = pass, .user = user};
    *out = p;
    return HK_OK;
}

void hk_program_destroy(hk_program **p)
{
    if (!*p)
        return;
    hk_program_clear(*p);
    hk_graph_destroy(&(*p)->owned);
    hk_free((*p)->env->ctx, (*p)->wanted);
    hk_free((*p)->env->ctx, *p);
    *p = NULL;
}

const hk_stage *hk_stage_next(const hk_stage *s)
{
    return s->last_child;
}

hk_exec *hk_stage_exec(const hk_stage *s)
{
    return s->exec;
}

hk_node *const *hk_stage_host_nodes(const hk_stage *s, size_t *count)
{
    *count = s->host_count;
    return s->host_nodes;
}

uint64_t hk_stage_host_ns(const hk_stage *s, size_t i)
{
    return s->host_ns[i];
}

const hk_stage *hk_stage_body(const hk_stage *s, size_t i)
{
    return s->ran && s->ran[i] ? s->ran[i]->last : NULL;
}

/* ---- keys: what a plan depends on */

typedef struct key {
    hk_context *ctx;
    char *bytes;
    size_t count, capacity;
    bool failed;
} key;

static void key_add(key *k, const void *bytes, size_t count)
{
    if (k->count + count > k->capacity) {
        size_t capacity = (k->count + count) * 2;
        char *grown = hk_realloc(k->ctx, k->bytes, capacity);
        k->failed |= !grown;
        if (!grown)
            return;
        k->bytes = grown;
        k->capacity = capacity;
    }
    memcpy(k->bytes + k->count, bytes, count);
    k->count += count;
}

static void key_add_tensor(key *k, const hk_tensor *t, bool contents)
{
    key_add(k, &t->dtype, sizeof t->dtype);
    key_add(k, &t->rank, sizeof t->rank);
    key_add(k, t->shape, (size_t)t->rank * sizeof *t->shape);
    if (hk_dtype_is_list(t->dtype)) {
        for (int64_t i = 0; i < hk_tensor_count(t); i++)
            key_add_tensor(k, (const hk_tensor *)t->data + i, false);
        return;
    }
    if (contents)
        key_add(k, t->data, (size_t)hk_tensor_bytes(t));
}

/* Finds the stage with that key and makes it the most recent; takes the key over if there is none. */
static hk_stage *find_stage(hk_stage **list, const key *k)
{
    for (hk_stage **at = list; *at; at = &(*at)->next) {
        hk_stage *s = *at;
        if (s->key_bytes != k->count || (k->count && memcmp(s->key, k->bytes, k->count) != 0))
            continue;
        *at = s->next;
        s->next = *list;
        *list = s;
        return s;
    }
    return NULL;
}

static void evict(hk_context *ctx, hk_stage *list, uint32_t keep)
{
    for (; list; list = list->next)
        if (--keep == 0) {
            stage_destroy(ctx, list->next);
            list->next = NULL;
            return;
        }
}

/* ---- cutting */

/* Marks, by id, the values that some node needs to know before its output shapes are. */
static void mark_wanted(const hk_graph *g, const bool *only, bool *wanted)
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

static void read_value(const hk_graph *g, const hk_value *v, bool *read)
{
    if (v->graph == g && !v->data)
        read[v->id] = true;
    for (int64_t i = 0; v->list && v->list->items && i < v->shape.dim[0]; i++)
        read_value(g, v->list->items[i], read);
}

static void read_uses(const hk_graph *g, const hk_node *n, bool *read)
{
    for (int32_t i = 0; i < n->in_count; i++)
        if (n->in[i])
            read_value(g, n->in[i], read);
    for (int32_t b = 0; b < n->body_count; b++) {
        for (size_t i = 0; i < n->bodies[b]->node_count; i++)
            read_uses(g, n->bodies[b]->nodes[i], read);
        for (size_t i = 0; i < n->bodies[b]->output_count; i++)
            read_value(g, n->bodies[b]->outputs[i], read);
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
    read_uses(s->graph, n, s->read);
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
    s->wanted = hk_arena_array(g->arena, g->value_count + 1, sizeof *s->wanted);
    s->on_host = hk_arena_array(g->arena, g->node_count + 1, sizeof *s->on_host);
    s->host_nodes = hk_arena_array(g->arena, g->node_count + 1, sizeof *s->host_nodes);
    s->host_ns = hk_arena_array(g->arena, g->node_count + 1, sizeof *s->host_ns);
    if (!available || !at_end || !s->deferred || !s->read || !s->wanted || !s->on_host || !s->host_nodes || !s->host_ns)
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
    mark_wanted(g, s->deferred, s->wanted);
    if (g->node_count)
        log_types(s, g->nodes[first], lacking, typed);
    for (size_t i = 0; i < g->node_count && !*whole && !progress; i++)
        if (s->deferred[i])
            return hk_fail(g->ctx, HK_STATUS_UNSUPPORTED,
                           "node '%s' (%s): the shape of its output cannot be determined", g->nodes[i]->name,
                           g->nodes[i]->type);
    return HK_OK;
}

/* The device part as a graph of its own; its outputs are what the host reads or later nodes use. */
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
    for (size_t i = 0; i < g->value_count && !failed; i++) {
        const hk_value *v = g->values[i];
        bool later = s->read[i] || uses.is_output[i];
        for (uint32_t k = 0; k < uses.count[i] && !later; k++)
            later = s->deferred[uses.users[i][k]->id];
        s->output[i] = -1;
        bool here = v->producer ? !s->deferred[v->producer->id] : v->kind == HK_VALUE_INPUT;
        if (!later || !here)
            continue;
        s->output[i] = (int32_t)part->output_count;
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
static hk_status stage_create(hk_program *p, hk_graph *g, hk_stage **out)
{
    hk_context *ctx = p->env->ctx;
    hk_stage *s = hk_alloc(ctx, sizeof *s);
    hk_status st = s ? HK_OK : hk_out_of_memory(ctx, "a stage");
    hk_graph *part = g;
    bool whole = false;
    if (st == HK_OK) {
        s->graph = g;
        st = hk_infer_graph(g);
    } else {
        hk_graph_destroy(&g);
    }
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
        stage_destroy(ctx, s);
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
    mark_wanted(g, NULL, wanted);
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

/* ---- the first stage, by input shapes */

static size_t count_leaves(const hk_tensor *t)
{
    size_t count = 0;
    if (!hk_dtype_is_list(t->dtype))
        return 1;
    for (int64_t i = 0; i < hk_tensor_count(t); i++)
        count += count_leaves((const hk_tensor *)t->data + i);
    return count;
}

static const hk_tensor *find_leaf(const hk_tensor *t, size_t *at)
{
    if (!hk_dtype_is_list(t->dtype))
        return (*at)-- == 0 ? t : NULL;
    for (int64_t i = 0; i < hk_tensor_count(t); i++) {
        const hk_tensor *leaf = find_leaf((const hk_tensor *)t->data + i, at);
        if (leaf)
            return leaf;
    }
    return NULL;
}

/* Gives an input type and shape of what it is fed with. A list is no input any more: its leaves are. */
static hk_status bind_value(hk_graph *g, hk_value *v, const hk_tensor *t)
{
    v->dtype = t->dtype;
    v->shape = hk_tensor_shape(t);
    if (!hk_dtype_is_list(t->dtype)) {
        v->kind = HK_VALUE_INPUT;
        return hk_graph_add_input(g, v) ? HK_OK : HK_STATUS_OUT_OF_MEMORY;
    }
    int64_t count = hk_tensor_count(t);
    const hk_tensor *first = count ? t->data : NULL;
    hk_list held = v->list ? *v->list : (hk_list){0};
    hk_value **items = hk_arena_array(g->arena, (size_t)count + 1, sizeof *items);
    if (!items)
        return hk_out_of_memory(g->ctx, "a list");
    for (int64_t i = 0; i < count; i++) {
        char *name = hk_arena_format(g->arena, "%s[%lld]", v->name, (long long)i);
        items[i] = name ? hk_graph_value(g, name, HK_VALUE_ACTIVATION, HK_DTYPE_NONE, NULL) : NULL;
        if (!items[i])
            return hk_out_of_memory(g->ctx, "a list");
        HK_TRY(bind_value(g, items[i], first + i));
    }
    v->kind = HK_VALUE_ACTIVATION;
    hk_dtype item = first ? first->dtype : held.item;
    hk_dtype element = first && items[0]->list ? items[0]->list->item : held.element;
    return hk_value_set_list(v, t->dtype, item, element, items, count) ? HK_OK : HK_STATUS_OUT_OF_MEMORY;
}

/* What some node must know before shapes are; it stays an input too: nodes on the device may read it. */
static hk_status bind_contents(hk_graph *g, hk_value *v, const hk_tensor *t, bool wanted)
{
    if (!wanted || hk_dtype_is_list(t->dtype) || hk_tensor_count(t) > BOUND_MAX_COUNT)
        return HK_OK;
    hk_tensor *copy = hk_tensor_new(g->arena, t->dtype, &v->shape);
    if (!copy)
        return hk_out_of_memory(g->ctx, "an operand");
    memcpy(copy->data, t->data, (size_t)hk_tensor_bytes(t));
    v->data = copy;
    return HK_OK;
}

static hk_status bind_inputs(hk_program *p, const hk_tensor *const *inputs, hk_graph **out)
{
    hk_graph *g = NULL;
    HK_TRY(hk_graph_clone(p->graph, &g));
    hk_value **given = hk_arena_array(g->arena, g->input_count + 1, sizeof *given);
    size_t count = g->input_count;
    hk_status st = given ? HK_OK : hk_out_of_memory(g->ctx, "a stage");
    for (size_t i = 0; given && i < count; i++)
        given[i] = g->inputs[i];
    g->input_count = 0;
    for (size_t i = 0; i < count && st == HK_OK; i++) {
        st = bind_value(g, given[i], inputs[i]);
        if (st == HK_OK)
            st = bind_contents(g, given[i], inputs[i], p->wanted[given[i]->id]);
    }
    if (st != HK_OK)
        hk_graph_destroy(&g);
    else
        *out = g;
    return st;
}

static hk_status first_stage(hk_program *p, const hk_tensor *const *inputs, hk_stage **out)
{
    key k = {.ctx = p->env->ctx};
    if (!p->wanted) {
        p->wanted = hk_alloc_array(k.ctx, p->graph->value_count + 1, sizeof *p->wanted);
        if (!p->wanted)
            return hk_out_of_memory(k.ctx, "a program");
        mark_wanted(p->graph, NULL, p->wanted);
    }
    for (size_t i = 0; i < p->graph->input_count; i++)
        key_add_tensor(&k, inputs[i], p->wanted[p->graph->inputs[i]->id]);
    hk_status st = k.failed ? hk_out_of_memory(k.ctx, "a plan's key") : HK_OK;
    hk_stage *s = st == HK_OK ? find_stage(&p->stages, &k) : NULL;
    if (st == HK_OK && !s) {
        hk_graph *g = NULL;
        st = bind_inputs(p, inputs, &g);
        if (st == HK_OK)
            st = stage_create(p, g, &s);
        if (st == HK_OK) {
            s->key = k.bytes;
            s->key_bytes = k.count;
            k.bytes = NULL;
            s->next = p->stages;
            p->stages = s;
            evict(k.ctx, p->stages, p->max_plans);
        }
    }
    hk_free(k.ctx, k.bytes);
    *out = s;
    return st;
}

/* ---- between stages */

typedef struct between {
    hk_program *p;
    hk_stage *stage;
    hk_arena *arena;
    const hk_step *step;
    const hk_tensor **of; /* by value id of stage->graph: contents on the host */
} between;

static hk_status read_values(between *b, uint64_t ticket)
{
    hk_stage *s = b->stage;
    const hk_graph *planned = hk_exec_plan(s->exec)->graph;
    for (size_t i = 0; i < s->graph->value_count; i++) {
        if (!s->read[i] || s->output[i] < 0)
            continue;
        const hk_value *v = planned->outputs[s->output[i]];
        hk_tensor *t = hk_tensor_new(b->arena, v->dtype, &v->shape);
        if (!t)
            return hk_out_of_memory(b->p->env->ctx, "an operand");
        HK_TRY(hk_exec_read(s->exec, ticket, (size_t)s->output[i], t->data));
        b->of[i] = t;
    }
    return HK_OK;
}

/* Both branches of an If keep their plans. */
static hk_status body_program(between *b, size_t node, const hk_graph *body, hk_program **out)
{
    hk_stage *s = b->stage;
    const hk_node *n = s->host_nodes[node];
    size_t at = node * MOST_BODIES;
    if (!s->bodies)
        s->bodies = hk_arena_array(s->graph->arena, s->host_count * MOST_BODIES, sizeof(hk_program *));
    if (!s->bodies)
        return hk_out_of_memory(b->p->env->ctx, "a body");
    for (int32_t i = 0; i < n->body_count; i++)
        at += n->bodies[i] == body ? (size_t)i : 0;
    if (!s->bodies[at]) {
        hk_program *p = NULL;
        HK_TRY(hk_program_create(b->p->env, NULL, b->p->max_plans, b->p->pass, b->p->user, &p));
        hk_status st = hk_graph_clone_body(body, &p->owned, &p->captured, &p->captured_count);
        if (st != HK_OK) {
            hk_program_destroy(&p);
            return st;
        }
        p->graph = p->owned;
        s->bodies[at] = p;
    }
    *out = s->bodies[at];
    return HK_OK;
}

/* NULL: out of memory. */
static const hk_tensor *contents(const between *b, hk_arena *arena, const hk_value *v)
{
    if (v->graph == b->stage->graph && b->of[v->id])
        return b->of[v->id];
    if (!v->list || !v->list->items)
        return v->data;
    hk_tensor *list = hk_tensor_new(arena, v->dtype, &v->shape);
    for (int64_t i = 0; list && i < v->shape.dim[0]; i++) {
        const hk_tensor *item = contents(b, arena, v->list->items[i]);
        if (!item)
            return NULL;
        ((hk_tensor *)list->data)[i] = *item;
    }
    return list;
}

/* passing: for outputs that the next iteration ends. */
static hk_status run_body(between *b, size_t node, hk_control_run *c, hk_arena *passing, const hk_tensor **outputs)
{
    hk_program *p = NULL;
    HK_TRY(body_program(b, node, c->body, &p));
    const hk_tensor **inputs = hk_arena_array(passing, p->graph->input_count + 1, sizeof(hk_tensor *));
    if (!inputs)
        return hk_out_of_memory(b->p->env->ctx, "a body");
    for (size_t i = 0; i < c->body_in_count; i++)
        inputs[i] = c->body_in[i];
    for (size_t i = 0; i < p->captured_count; i++)
        inputs[p->graph->input_count - p->captured_count + i] = contents(b, passing, p->captured[i]);
    for (size_t i = 0; i < p->graph->input_count; i++)
        if (!inputs[i])
            return hk_out_of_memory(b->p->env->ctx, "a body's input");
    hk_run run = {0};
    b->stage->ran[node] = p;
    HK_TRY(hk_program_submit(p, inputs, b->step, &run));
    HK_TRY(hk_program_wait(p, &run));
    for (size_t i = 0; i < c->body->output_count; i++)
        HK_TRY(hk_run_read(&run, i, hk_control_keeps(c, i) ? b->arena : passing, &outputs[i]));
    return HK_OK;
}

/* A tensor of its own in the arena, items included. */
static hk_status keep(hk_arena *arena, const hk_tensor *from, hk_tensor *to)
{
    hk_shape s = hk_tensor_shape(from);
    hk_tensor *t = hk_tensor_new(arena, from->dtype, &s);
    if (!t)
        return HK_STATUS_OUT_OF_MEMORY;
    *to = *t;
    if (!hk_dtype_is_list(from->dtype))
        memcpy(to->data, from->data, (size_t)hk_tensor_bytes(from));
    for (int64_t i = 0; hk_dtype_is_list(from->dtype) && i < hk_tensor_count(from); i++)
        HK_TRY(keep(arena, (const hk_tensor *)from->data + i, (hk_tensor *)to->data + i));
    return HK_OK;
}

static hk_status keep_outputs(between *b, const hk_node *n, const hk_control_run *c)
{
    for (int32_t i = 0; i < n->out_count; i++) {
        hk_tensor *t = n->out[i] ? hk_arena_new(b->arena, hk_tensor) : NULL;
        if (!n->out[i])
            continue;
        if (!t || keep(b->arena, c->out[i], t) != HK_OK)
            return hk_out_of_memory(b->p->env->ctx, "a result of control flow");
        b->of[n->out[i]->id] = t;
    }
    return HK_OK;
}

enum { LOOPS_AT_MOST = 16 }; /* as long as one loop may be, in one run */

/* What an iteration passes on lives in one of two arenas, so that long loops do not grow. */
static hk_status run_iterations(between *b, size_t node, hk_control_run *c, hk_arena *passing[2])
{
    hk_env *env = b->p->env;
    uint64_t each = env->max_iterations ? (uint64_t)env->max_iterations : HK_LOOP_MAX_TRIPS;
    uint64_t most = each > UINT64_MAX / LOOPS_AT_MOST ? UINT64_MAX : each * LOOPS_AT_MOST;
    for (size_t i = 0; hk_control_next(c); i++) {
        if (++env->iterations > most) /* loops inside each other: each may be within its bound */
            return hk_fail(env->ctx, HK_STATUS_UNSUPPORTED,
                           "node '%s' (%s): bodies have run %llu times, the most that are allowed in one run: if it "
                           "should take longer, raise hk_session_params.max_iterations",
                           c->node->name, c->node->type, (unsigned long long)most);
        hk_arena **arena = &passing[i % 2];
        hk_arena_destroy(arena);
        *arena = hk_arena_create(b->p->env->ctx);
        const hk_tensor **outputs = *arena ? hk_arena_array(*arena, c->body->output_count + 1, sizeof *outputs) : NULL;
        if (!outputs)
            return hk_out_of_memory(b->p->env->ctx, "control flow");
        HK_TRY(run_body(b, node, c, *arena, outputs));
        HK_TRY(hk_control_step(c, outputs));
    }
    HK_TRY(hk_control_end(c));
    return keep_outputs(b, b->stage->host_nodes[node], c);
}

static hk_status run_control(between *b, size_t node, const hk_tensor *const *in)
{
    hk_node *n = b->stage->host_nodes[node];
    hk_control_run c = {
        .ctx = b->p->env->ctx, .arena = b->arena, .node = n, .in = in, .most_trips = b->p->env->max_iterations};
    hk_arena *passing[2] = {NULL, NULL};
    c.out = hk_arena_array(b->arena, (size_t)n->out_count + 1, sizeof *c.out);
    if (!b->stage->ran)
        b->stage->ran = hk_arena_array(b->stage->graph->arena, b->stage->host_count, sizeof(hk_program *));
    if (!c.out || !b->stage->ran || !hk_control_begin(&c))
        return hk_out_of_memory(b->p->env->ctx, "control flow");
    b->stage->ran[node] = NULL;
    hk_status st = run_iterations(b, node, &c, passing);
    hk_arena_destroy(&passing[0]);
    hk_arena_destroy(&passing[1]);
    return st;
}

static hk_status run_host_nodes(between *b)
{
    for (size_t i = 0; i < b->stage->host_count; i++) {
        hk_node *n = b->stage->host_nodes[i];
        const hk_tensor **in = hk_arena_array(b->arena, (size_t)n->in_count + 1, sizeof *in);
        hk_tensor **out = hk_arena_array(b->arena, (size_t)n->out_count + 1, sizeof *out);
        if (!in || !out)
            return hk_out_of_memory(b->p->env->ctx, "a host step");
        for (int32_t k = 0; k < n->in_count; k++)
            in[k] = n->in[k] ? contents(b, b->arena, n->in[k]) : NULL;
        if (n->op->flags & HK_OP_CONTROL) {
            HK_TRY(run_control(b, i, in));
            continue;
        }
        uint64_t begin = hk_now_ns();
        HK_TRY(hk_node_eval(b->p->env->ctx, b->arena, n, in, out, b->step));
        b->stage->host_ns[i] = hk_now_ns() - begin;
        for (int32_t k = 0; k < n->out_count; k++)
            if (n->out[k])
                b->of[n->out[k]->id] = out[k];
    }
    return HK_OK;
}

static hk_status add_sources(hk_graph *rest, source_list *list, size_t before, uint32_t id)
{
    for (size_t i = before; i < rest->input_count; i++) {
        if (list->count == list->capacity &&
            !hk_arena_grow(rest->arena, (void **)&list->sources, list->count, &list->capacity, sizeof *list->sources))
            return hk_out_of_memory(rest->ctx, "a stage");
        list->sources[list->count++] = (source){.id = id, .leaf = i - before};
    }
    return HK_OK;
}

/* What is left: the deferred nodes that the host has not run, with everything from before as inputs. The ids of the
 * copies are those of stage->graph, so inputs[i]->id names the source. */
static hk_status rest_graph(between *b, hk_graph **out, source_list *sources)
{
    hk_stage *s = b->stage;
    hk_graph *g = s->graph, *rest = NULL;
    HK_TRY(hk_graph_clone(g, &rest));
    size_t kept = 0;
    for (size_t i = 0; i < g->node_count; i++) {
        bool left = s->deferred[i] && !s->on_host[i];
        if (left)
            rest->nodes[kept++] = rest->nodes[i];
        for (int32_t k = 0; !left && k < rest->nodes[i]->out_count; k++)
            if (g->nodes[i]->out[k])
                rest->values[g->nodes[i]->out[k]->id]->producer = NULL;
    }
    rest->node_count = kept;
    hk_uses uses;
    bool *wanted = hk_arena_array(rest->arena, rest->value_count + 1, sizeof *wanted);
    hk_status st = wanted ? hk_graph_uses(rest, rest->arena, &uses) : hk_out_of_memory(rest->ctx, "a stage");
    if (st == HK_OK)
        mark_wanted(rest, NULL, wanted);
    rest->input_count = 0;
    for (size_t i = 0; i < g->value_count && st == HK_OK; i++) {
        hk_value *v = rest->values[i];
        const hk_tensor *t = b->of[i];
        bool from_before = !v->producer && (v->kind == HK_VALUE_INPUT || v->kind == HK_VALUE_ACTIVATION) &&
                           !(v->list && v->list->items); /* whose items come themselves */
        if (!from_before || !(uses.count[i] || uses.is_output[i]))
            continue;
        size_t before = rest->input_count;
        v->kind = HK_VALUE_INPUT;
        if (t)
            st = bind_value(rest, v, t);
        else if (!hk_graph_add_input(rest, v))
            st = HK_STATUS_OUT_OF_MEMORY;
        if (st == HK_OK && t)
            st = bind_contents(rest, v, t, wanted[v->id]);
        if (st == HK_OK)
            st = add_sources(rest, sources, before, (uint32_t)i);
    }
    for (size_t i = 0; i < rest->state_count; i++) {
        hk_state *state = rest->states[i];
        if (state->last->kind == HK_VALUE_INPUT)
            state->last = state->first;
    }
    if (st != HK_OK)
        hk_graph_destroy(&rest);
    else
        *out = rest;
    return st;
}

static hk_status next_stage(between *b, hk_stage **out)
{
    hk_stage *s = b->stage;
    key k = {.ctx = b->p->env->ctx};
    for (size_t i = 0; i < s->graph->value_count; i++)
        if (b->of[i]) {
            key_add(&k, &i, sizeof i);
            key_add_tensor(&k, b->of[i], s->wanted[i] && hk_tensor_count(b->of[i]) <= BOUND_MAX_COUNT);
        }
    hk_status st = k.failed ? hk_out_of_memory(k.ctx, "a plan's key") : HK_OK;
    hk_stage *next = st == HK_OK ? find_stage(&s->children, &k) : NULL;
    if (st == HK_OK && !next) {
        hk_graph *rest = NULL;
        source_list sources = {0};
        st = rest_graph(b, &rest, &sources);
        if (st == HK_OK)
            st = stage_create(b->p, rest, &next);
        if (st == HK_OK) {
            next->sources = sources.sources;
            next->key = k.bytes;
            next->key_bytes = k.count;
            k.bytes = NULL;
            next->next = s->children;
            s->children = next;
            evict(k.ctx, s->children, b->p->max_plans);
        }
    }
    hk_free(k.ctx, k.bytes);
    s->last_child = next;
    *out = next;
    return st;
}

/* ---- running */

static const hk_graph *stage_graph(const hk_stage *s)
{
    return hk_exec_plan(s->exec)->graph;
}

static hk_status continue_run(hk_program *p, hk_stage *s, const hk_step *step, hk_arena *arena, hk_run *run)
{
    while (s->graph) {
        between b = {.p = p, .stage = s, .arena = arena, .step = step};
        b.of = hk_arena_array(arena, s->graph->value_count + 1, sizeof(hk_tensor *));
        if (!b.of)
            return hk_out_of_memory(p->env->ctx, "a run");
        HK_TRY(hk_exec_wait(s->exec, run->ticket));
        HK_TRY(read_values(&b, run->ticket));
        HK_TRY(run_host_nodes(&b));
        hk_stage *next = NULL;
        HK_TRY(next_stage(&b, &next));
        const hk_graph *g = stage_graph(next);
        hk_feed *feeds = hk_arena_array(arena, g->input_count + 1, sizeof *feeds);
        if (!feeds)
            return hk_out_of_memory(p->env->ctx, "a run");
        for (size_t i = 0; i < g->input_count; i++) {
            source from = next->sources[i];
            if (b.of[from.id])
                feeds[i].host = find_leaf(b.of[from.id], &from.leaf);
            else
                feeds[i] = hk_exec_output(s->exec, (size_t)s->output[from.id]);
        }
        HK_TRY(hk_exec_submit(next->exec, feeds, step, &run->ticket));
        run->segments += 1 + (uint32_t)s->host_count;
        s = next;
    }
    run->exec = s->exec;
    run->last = s;
    return HK_OK;
}

hk_status hk_program_submit(hk_program *p, const hk_tensor *const *inputs, const hk_step *step, hk_run *run)
{
    hk_stage *s = NULL;
    if (!p->owned) /* not a body */
        p->env->iterations = 0;
    HK_TRY(first_stage(p, inputs, &s));
    hk_arena *arena = hk_arena_create(p->env->ctx);
    size_t leaves = 0, filled = 0;
    for (size_t i = 0; i < p->graph->input_count; i++)
        leaves += count_leaves(inputs[i]);
    hk_feed *feeds = arena ? hk_arena_array(arena, leaves + 1, sizeof *feeds) : NULL;
    if (!feeds) {
        hk_arena_destroy(&arena);
        return hk_out_of_memory(p->env->ctx, "a run");
    }
    for (size_t i = 0; i < p->graph->input_count; i++)
        for (size_t k = 0; k < count_leaves(inputs[i]); k++) {
            size_t at = k;
            feeds[filled++].host = find_leaf(inputs[i], &at);
        }
    *run = (hk_run){.segments = 1, .first = s};
    p->last = s;
    hk_status st = hk_exec_submit(s->exec, feeds, step, &run->ticket);
    if (st == HK_OK)
        st = continue_run(p, s, step, arena, run);
    hk_arena_destroy(&arena);
    return st;
}

hk_status hk_program_wait(hk_program *p, const hk_run *run)
{
    (void)p;
    return hk_exec_wait(run->exec, run->ticket);
}

static hk_status read_result(const hk_run *run, const hk_value *v, size_t *at, hk_arena *arena, hk_tensor *out)
{
    hk_context *ctx = stage_graph(run->last)->ctx;
    const hk_value *leaf = v->list ? v : stage_graph(run->last)->outputs[*at];
    hk_tensor *t = hk_tensor_new(arena, leaf->dtype, &leaf->shape);
    if (!t)
        return hk_out_of_memory(ctx, "an output");
    *out = *t;
    if (!v->list)
        return hk_exec_read(run->exec, run->ticket, (*at)++, t->data);
    for (int64_t i = 0; i < v->shape.dim[0]; i++)
        HK_TRY(read_result(run, v->list->items[i], at, arena, (hk_tensor *)t->data + i));
    return HK_OK;
}

const hk_value *hk_run_output(const hk_run *run, size_t i, size_t *leaf)
{
    *leaf = 0;
    for (size_t k = 0; k < i; k++)
        *leaf += hk_value_leaves(run->last->results[k]);
    const hk_value *v = run->last->results[i];
    return v->list ? v : stage_graph(run->last)->outputs[*leaf];
}

hk_status hk_run_read(const hk_run *run, size_t i, hk_arena *arena, const hk_tensor **out)
{
    size_t leaf = 0;
    hk_run_output(run, i, &leaf);
    hk_tensor *t = hk_arena_new(arena, hk_tensor);
    if (!t)
        return hk_out_of_memory(stage_graph(run->last)->ctx, "an output");
    *out = t;
    return read_result(run, run->last->results[i], &leaf, arena, t);
}
