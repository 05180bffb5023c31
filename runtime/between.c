/* Between stages: the host reads, evaluates nodes, drives control flow, and plans what is left. */
#include "runtime/stage.h"

#include <string.h>

#include "ops/control.h"

/* ---- values that lie on the device alone */

/* Marks a resident tensor; it owns nothing. */
static void is_resident(hk_tensor *t)
{
    (void)t;
}

static const hk_tensor *resident(hk_arena *arena, const hk_value *v, hk_feed feed)
{
    hk_resident *r = hk_arena_new(arena, hk_resident);
    if (!r)
        return NULL;
    r->feed = feed;
    r->t = (hk_tensor){.dtype = v->dtype, .rank = v->shape.rank, .release = is_resident};
    memcpy(r->t.shape, v->shape.dim, (size_t)v->shape.rank * sizeof *r->t.shape);
    return &r->t;
}

hk_feed hk_feed_of(const hk_tensor *t)
{
    return t && t->release == is_resident ? ((const hk_resident *)t)->feed : (hk_feed){.host = t};
}

/* ---- reading */

hk_status hk_between_read(hk_between *b, uint64_t ticket)
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
static hk_status body_program(hk_between *b, size_t node, const hk_graph *body, hk_program **out)
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
        /* the plan whose results the next iteration takes must outlive the making of another */
        HK_TRY(hk_program_create(b->p->env, NULL, HK_MAX(b->p->max_plans, 2u), b->p->pass, b->p->user, &p));
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

/* NULL: out of memory. On the host, but for what is lent to bodies. */
static const hk_tensor *contents(const hk_between *b, hk_arena *arena, const hk_value *v)
{
    const hk_stage *s = b->stage;
    if (v->graph == s->graph && b->of[v->id])
        return b->of[v->id];
    if (v->graph == s->graph && s->lent[v->id] && s->output[v->id] >= 0)
        return resident(arena, hk_exec_plan(s->exec)->graph->outputs[s->output[v->id]],
                        hk_exec_output(s->exec, (size_t)s->output[v->id]));
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

/* What the next iteration or the continuation takes from where it lies. A view of an input does not outlast the copies
 * before the same recording's next run, which are in no order. */
static bool may_stay(const hk_run *run, const hk_value *v, size_t leaf)
{
    return !v->list && hk_shape_count(&v->shape) > BOUND_MAX_COUNT &&
           (run->first != run->last || !hk_exec_output_is_input(run->exec, leaf));
}

static hk_status take_output(const hk_control_run *c, const hk_run *run, size_t i, hk_arena *arena,
                             const hk_tensor **out)
{
    size_t leaf = 0;
    const hk_value *v = hk_run_output(run, i, &leaf);
    if (!hk_control_hands_back(c, i) || !may_stay(run, v, leaf))
        return hk_run_read(run, i, arena, out);
    *out = resident(arena, v, hk_exec_output(run->exec, leaf));
    return *out ? HK_OK : hk_out_of_memory(c->ctx, "a body's output");
}

/* passing: for outputs that the next iteration ends. */
static hk_status run_body(hk_between *b, size_t node, hk_control_run *c, hk_arena *passing, const hk_tensor **outputs)
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
        HK_TRY(take_output(c, &run, i, hk_control_keeps(c, i) ? b->arena : passing, &outputs[i]));
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

static hk_status keep_outputs(hk_between *b, const hk_node *n, const hk_control_run *c)
{
    for (int32_t i = 0; i < n->out_count; i++) {
        if (!n->out[i])
            continue;
        hk_resident *r = hk_arena_new(b->arena, hk_resident);
        if (r && c->out[i]->release == is_resident)
            *r = *(const hk_resident *)c->out[i];
        else if (!r || keep(b->arena, c->out[i], &r->t) != HK_OK)
            return hk_out_of_memory(b->p->env->ctx, "a result of control flow");
        b->of[n->out[i]->id] = &r->t;
    }
    return HK_OK;
}

enum { LOOPS_AT_MOST = 16 }; /* as long as one loop may be, in one run */

/* What an iteration passes on lives on the device or in one of two arenas, so that long loops do not grow. */
static hk_status run_iterations(hk_between *b, size_t node, hk_control_run *c, hk_arena *passing[2])
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

static hk_status run_control(hk_between *b, size_t node, const hk_tensor *const *in)
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

hk_status hk_between_run(hk_between *b)
{
    for (size_t i = 0; i < b->stage->host_count; i++) {
        hk_node *n = b->stage->host_nodes[i];
        const hk_tensor **in = hk_arena_array(b->arena, (size_t)n->in_count + 1, sizeof *in);
        hk_tensor **out = hk_arena_array(b->arena, (size_t)n->out_count + 1, sizeof *out);
        if (!in || !out)
            return hk_out_of_memory(b->p->env->ctx, "a host step");
        for (int32_t k = 0; k < n->in_count; k++)
            if (n->in[k] && !(in[k] = contents(b, b->arena, n->in[k])))
                return hk_out_of_memory(b->p->env->ctx, "a host step");
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

static hk_status add_sources(hk_graph *rest, hk_source_list *list, size_t before, uint32_t id)
{
    for (size_t i = before; i < rest->input_count; i++) {
        if (list->count == list->capacity &&
            !hk_arena_grow(rest->arena, (void **)&list->sources, list->count, &list->capacity, sizeof *list->sources))
            return hk_out_of_memory(rest->ctx, "a stage");
        list->sources[list->count++] = (hk_source){.id = id, .leaf = i - before};
    }
    return HK_OK;
}

/* What is left: the deferred nodes that the host has not run, with everything from before as inputs. The ids of the
 * copies are those of stage->graph, so inputs[i]->id names the source. */
static hk_status rest_graph(hk_between *b, hk_graph **out, hk_source_list *sources)
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
        hk_mark_wanted(rest, NULL, wanted);
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
            st = hk_bind_value(rest, v, t);
        else if (!hk_graph_add_input(rest, v))
            st = HK_STATUS_OUT_OF_MEMORY;
        if (st == HK_OK && t)
            st = hk_bind_contents(rest, v, t, wanted[v->id]);
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

hk_status hk_between_next(hk_between *b, hk_stage **out)
{
    hk_stage *s = b->stage;
    hk_stage_key k = {.ctx = b->p->env->ctx};
    for (size_t i = 0; i < s->graph->value_count; i++)
        if (b->of[i]) {
            hk_key_add(&k, &i, sizeof i);
            hk_key_add_tensor(&k, b->of[i], s->wanted[i]);
        }
    hk_status st = k.failed ? hk_out_of_memory(k.ctx, "a plan's key") : HK_OK;
    hk_stage *next = st == HK_OK ? hk_stage_find(&s->children, &k) : NULL;
    if (st == HK_OK && !next) {
        hk_graph *rest = NULL;
        hk_source_list sources = {0};
        uint64_t begin = hk_gpu_planning_clock(b->p->env->gpu);
        st = rest_graph(b, &rest, &sources);
        if (st == HK_OK)
            st = hk_stage_create(b->p, rest, &next);
        hk_gpu_count_planning(b->p->env->gpu, begin);
        if (st == HK_OK) {
            next->sources = sources.sources;
            next->key = k.bytes;
            next->key_bytes = k.count;
            k.bytes = NULL;
            next->next = s->children;
            s->children = next;
            hk_stage_evict(k.ctx, s->children, b->p->max_plans);
        }
    }
    hk_free(k.ctx, k.bytes);
    s->last_child = next;
    *out = next;
    return st;
}
