/* Host interpreter: nodes in order through their evaluators; If and Loop by running their bodies. */
#include "runtime/host.h"

#include <string.h>

#include "ops/control.h"

typedef struct frame {
    hk_graph *graph;
    const hk_tensor **of; /* contents by value id */
    struct frame *outer;
    hk_arena *arena;
    const hk_step *step;
    hk_host_visit *visit;
    void *user;
} frame;

static const hk_tensor *contents(const frame *f, const hk_value *v)
{
    while (f && f->graph != v->graph)
        f = f->outer;
    return f && f->of[v->id] ? f->of[v->id] : v->data;
}

static hk_status set(frame *f, hk_value *v, const hk_tensor *t)
{
    if (f->visit)
        HK_TRY(f->visit(f->user, v, &t));
    f->of[v->id] = t;
    return HK_OK;
}

static hk_status run_nodes(frame *f);

static hk_status run_body(frame *outer, hk_graph *body, const hk_tensor *const *inputs, size_t count,
                          const hk_tensor **outputs)
{
    frame f = *outer;
    f.graph = body;
    f.outer = outer;
    f.visit = NULL;
    f.of = hk_arena_array(f.arena, body->value_count + 1, sizeof *f.of);
    if (!f.of)
        return hk_out_of_memory(body->ctx, "a body's values");
    for (size_t i = 0; i < count && i < body->input_count; i++)
        f.of[body->inputs[i]->id] = inputs[i];
    HK_TRY(run_nodes(&f));
    for (size_t i = 0; i < body->output_count; i++)
        outputs[i] = contents(&f, body->outputs[i]);
    return HK_OK;
}

static hk_status run_control(frame *f, hk_node *n, const hk_tensor *const *in)
{
    hk_control_run c = {.ctx = f->graph->ctx, .arena = f->arena, .node = n, .in = in};
    c.out = hk_arena_array(f->arena, (size_t)n->out_count + 1, sizeof *c.out);
    if (!c.out || !hk_control_begin(&c))
        return hk_out_of_memory(f->graph->ctx, "control flow");
    while (hk_control_next(&c)) {
        const hk_tensor **outputs = hk_arena_array(f->arena, c.body->output_count + 1, sizeof *outputs);
        if (!outputs)
            return hk_out_of_memory(f->graph->ctx, "control flow");
        HK_TRY(run_body(f, c.body, c.body_in, c.body_in_count, outputs));
        HK_TRY(hk_control_step(&c, outputs));
    }
    HK_TRY(hk_control_end(&c));
    for (int32_t i = 0; i < n->out_count; i++)
        if (n->out[i])
            HK_TRY(set(f, n->out[i], c.out[i]));
    return HK_OK;
}

static hk_status run_node(frame *f, hk_node *n)
{
    const hk_tensor **in = hk_arena_array(f->arena, (size_t)n->in_count + 1, sizeof *in);
    hk_tensor **out = hk_arena_array(f->arena, (size_t)n->out_count + 1, sizeof *out);
    if (!in || !out)
        return hk_out_of_memory(f->graph->ctx, "a node's values");
    for (int32_t i = 0; i < n->in_count; i++)
        in[i] = n->in[i] ? contents(f, n->in[i]) : NULL;
    if (n->op && n->op->flags & HK_OP_CONTROL)
        return run_control(f, n, in);
    HK_TRY(hk_node_eval(f->graph->ctx, f->arena, n, in, out, f->step));
    for (int32_t i = 0; i < n->out_count; i++)
        if (n->out[i])
            HK_TRY(set(f, n->out[i], out[i]));
    return HK_OK;
}

static hk_status run_nodes(frame *f)
{
    for (size_t i = 0; i < f->graph->node_count; i++)
        HK_TRY(run_node(f, f->graph->nodes[i]));
    return HK_OK;
}

/* A step block lies in the graph as a value: nodes take it as an operand, evaluators read e->step. */
static hk_status set_step(frame *f)
{
    hk_value *v = f->graph->step;
    hk_tensor *t = v ? hk_tensor_new(f->arena, v->dtype, &v->shape) : NULL;
    if (!v)
        return HK_OK;
    if (!t)
        return hk_out_of_memory(f->graph->ctx, "the step block");
    memcpy(t->data, f->step, sizeof *f->step);
    f->of[v->id] = t;
    return HK_OK;
}

hk_status hk_host_trace(hk_graph *g, hk_arena *arena, const hk_tensor *const *inputs, hk_tensor **outputs,
                        const hk_step *step, hk_host_visit *visit, void *user)
{
    static const hk_step no_step;
    frame f = {.graph = g, .arena = arena, .step = step ? step : &no_step, .visit = visit, .user = user};
    f.of = hk_arena_array(arena, g->value_count + 1, sizeof *f.of);
    if (!f.of)
        return hk_out_of_memory(g->ctx, "a graph's values");
    for (size_t i = 0; i < g->input_count; i++)
        HK_TRY(set(&f, g->inputs[i], inputs[i]));
    for (size_t i = 0; i < g->state_count; i++) {
        hk_state *s = g->states[i];
        hk_tensor *filled = s->initial ? NULL : hk_tensor_new(arena, s->first->dtype, &s->first->shape);
        if (!s->initial && !filled)
            return hk_out_of_memory(g->ctx, "a state");
        for (int64_t k = 0; filled && s->fill != 0 && k < hk_tensor_count(filled); k++)
            hk_set_double(filled, k, s->fill);
        f.of[s->first->id] = filled ? filled : s->initial;
    }
    HK_TRY(set_step(&f));
    HK_TRY(hk_graph_sort(g));
    HK_TRY(run_nodes(&f));
    for (size_t i = 0; i < g->output_count; i++)
        outputs[i] = (hk_tensor *)(uintptr_t)contents(&f, g->outputs[i]);
    return HK_OK;
}

hk_status hk_host_run(hk_graph *g, hk_arena *arena, const hk_tensor *const *inputs, hk_tensor **outputs,
                      const hk_step *step)
{
    return hk_host_trace(g, arena, inputs, outputs, step, NULL, NULL);
}
