/* Programs: what is kept of stages and found again, the first stage, and running. */
#include "runtime/program.h"

#include <string.h>

#include "runtime/stage.h"

/* ---- life */

void hk_stage_destroy(hk_context *ctx, hk_stage *s)
{
    while (s) {
        hk_stage *next = s->next;
        hk_stage_destroy(ctx, s->children);
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
    hk_stage_destroy(p->env->ctx, p->stages);
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

void hk_key_add(hk_stage_key *k, const void *bytes, size_t count)
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

void hk_key_add_tensor(hk_stage_key *k, const hk_tensor *t, bool contents)
{
    hk_key_add(k, &t->dtype, sizeof t->dtype);
    hk_key_add(k, &t->rank, sizeof t->rank);
    hk_key_add(k, t->shape, (size_t)t->rank * sizeof *t->shape);
    if (hk_dtype_is_list(t->dtype)) {
        for (int64_t i = 0; i < hk_tensor_count(t); i++)
            hk_key_add_tensor(k, (const hk_tensor *)t->data + i, false);
        return;
    }
    if (contents && hk_tensor_count(t) <= BOUND_MAX_COUNT)
        hk_key_add(k, t->data, (size_t)hk_tensor_bytes(t));
}

/* Finds the stage with that key and makes it the most recent; takes the key over if there is none. */
hk_stage *hk_stage_find(hk_stage **list, const hk_stage_key *k)
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

void hk_stage_evict(hk_context *ctx, hk_stage *list, uint32_t keep)
{
    for (; list; list = list->next)
        if (--keep == 0) {
            hk_stage_destroy(ctx, list->next);
            list->next = NULL;
            return;
        }
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
hk_status hk_bind_value(hk_graph *g, hk_value *v, const hk_tensor *t)
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
        HK_TRY(hk_bind_value(g, items[i], first + i));
    }
    v->kind = HK_VALUE_ACTIVATION;
    hk_dtype item = first ? first->dtype : held.item;
    hk_dtype element = first && items[0]->list ? items[0]->list->item : held.element;
    return hk_value_set_list(v, t->dtype, item, element, items, count) ? HK_OK : HK_STATUS_OUT_OF_MEMORY;
}

/* What some node must know before shapes are; it stays an input too: nodes on the device may read it. */
hk_status hk_bind_contents(hk_graph *g, hk_value *v, const hk_tensor *t, bool wanted)
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
        st = hk_bind_value(g, given[i], inputs[i]);
        if (st == HK_OK)
            st = hk_bind_contents(g, given[i], inputs[i], p->wanted[given[i]->id]);
    }
    if (st != HK_OK)
        hk_graph_destroy(&g);
    else
        *out = g;
    return st;
}

static hk_status first_stage(hk_program *p, const hk_tensor *const *inputs, hk_stage **out)
{
    hk_stage_key k = {.ctx = p->env->ctx};
    if (!p->wanted) {
        p->wanted = hk_alloc_array(k.ctx, p->graph->value_count + 1, sizeof *p->wanted);
        if (!p->wanted)
            return hk_out_of_memory(k.ctx, "a program");
        hk_mark_wanted(p->graph, NULL, p->wanted);
    }
    for (size_t i = 0; i < p->graph->input_count; i++)
        hk_key_add_tensor(&k, inputs[i], p->wanted[p->graph->inputs[i]->id]);
    hk_status st = k.failed ? hk_out_of_memory(k.ctx, "a plan's key") : HK_OK;
    hk_stage *s = st == HK_OK ? hk_stage_find(&p->stages, &k) : NULL;
    if (st == HK_OK && !s) {
        hk_graph *g = NULL;
        uint64_t begin = hk_gpu_planning_clock(p->env->gpu);
        st = bind_inputs(p, inputs, &g);
        if (st == HK_OK)
            st = hk_stage_create(p, g, &s);
        hk_gpu_count_planning(p->env->gpu, begin);
        if (st == HK_OK) {
            s->key = k.bytes;
            s->key_bytes = k.count;
            k.bytes = NULL;
            s->next = p->stages;
            p->stages = s;
            hk_stage_evict(k.ctx, p->stages, p->max_plans);
        }
    }
    hk_free(k.ctx, k.bytes);
    *out = s;
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
        hk_between b = {.p = p, .stage = s, .arena = arena, .step = step};
        b.of = hk_arena_array(arena, s->graph->value_count + 1, sizeof(hk_tensor *));
        if (!b.of)
            return hk_out_of_memory(p->env->ctx, "a run");
        HK_TRY(hk_exec_wait(s->exec, run->ticket));
        HK_TRY(hk_between_read(&b, run->ticket));
        HK_TRY(hk_between_run(&b));
        hk_stage *next = NULL;
        HK_TRY(hk_between_next(&b, &next));
        const hk_graph *g = stage_graph(next);
        hk_feed *feeds = hk_arena_array(arena, g->input_count + 1, sizeof *feeds);
        if (!feeds)
            return hk_out_of_memory(p->env->ctx, "a run");
        for (size_t i = 0; i < g->input_count; i++) {
            hk_source from = next->sources[i];
            if (b.of[from.id])
                feeds[i] = hk_feed_of(find_leaf(b.of[from.id], &from.leaf));
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
            feeds[filled++] = hk_feed_of(find_leaf(inputs[i], &at));
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
