/*
 * The step mode of a finished network: from all steps a call to one, and back.
 *
 * A network of one step takes two forms. One made of a network of T steps is that network with T = 1, whose inputs and
 * outputs gain and lose their time axis at the edge. One built of layers in step mode s knows no time at all: to take
 * all steps at once it gets the time axis that layers in step mode m would have, folded into the batch (convert.h).
 */
#include "snn/step_mode.h"

#include <string.h>

#include "ops/op.h"
#include "snn/convert.h"

/* Constants that say which axis the edges of such a network add and take away. */
#define EDGE_NAME "snn.time"

static bool is_neuron(const hk_node *n)
{
    return !strcmp(n->type, "hk.Neuron");
}

static const hk_neuron_attrs *attrs_of(const hk_node *n)
{
    return n->attrs;
}

static hk_status no_memory(const hk_graph *g)
{
    return hk_out_of_memory(g->ctx, "a step mode");
}

/* What makes the two modes different networks. */
static hk_status check(const hk_graph *g)
{
    for (size_t i = 0; i < g->node_count; i++) {
        const hk_node *n = g->nodes[i];
        if (is_neuron(n) && !*attrs_of(n)->state)
            return hk_fail(g->ctx, HK_STATUS_UNSUPPORTED,
                           "node '%s': its potentials do not persist, for it was converted and not built or made "
                           "native; such a network takes all steps at once",
                           n->name);
        if (!strcmp(n->type, "CumSum") || !strcmp(n->type, "Pad") || n->body_count)
            return hk_fail(g->ctx, HK_STATUS_UNSUPPORTED,
                           "node '%s' (%s) looks at several steps: a network with it takes all steps at once", n->name,
                           n->type);
    }
    return HK_OK;
}

/* ---- one step of all */

static hk_status change_axis(hk_graph *g, const char *type, hk_value *x, hk_value **out)
{
    hk_value *in[] = {x, hk_snn_integers(g, EDGE_NAME, (int64_t[]){0}, 1)};
    return hk_snn_node_make(g, hk_snn_opset(g), type, NULL, NULL, in, 2, out);
}

static void drop_time(hk_value *v)
{
    v->shape.rank--;
    memmove(v->shape.dim, v->shape.dim + 1, (size_t)v->shape.rank * sizeof *v->shape.dim);
    memmove(v->dim_names, v->dim_names + 1, (size_t)v->shape.rank * sizeof *v->dim_names);
}

static bool leads_with(const hk_value *v, int64_t steps)
{
    return v->shape.rank > 1 && v->shape.dim[0] == steps;
}

/* With as many samples as steps and no open dimension nothing tells which axis is time. */
static hk_status check_axis(const hk_graph *g, const hk_value *v, int64_t steps)
{
    if (v->shape.dim[1] != steps)
        return HK_OK;
    return hk_fail(
        g->ctx, HK_STATUS_UNSUPPORTED,
        "'%s' has %lld steps and as many samples, so that its axes cannot be told apart: make the network with "
        "an open batch, or with one that is not T",
        v->name, (long long)steps);
}

hk_status hk_snn_make_single(hk_graph *g)
{
    int64_t steps = hk_snn_describe(g).steps;
    hk_value *made = NULL;
    HK_TRY(check(g));
    for (size_t i = 0; i < g->input_count; i++) {
        hk_value *x = g->inputs[i];
        if (!leads_with(x, steps))
            continue;
        HK_TRY(check_axis(g, x, steps));
        HK_TRY(change_axis(g, "Unsqueeze", x, &made));
        hk_snn_redirect(g, x, made, made->producer);
        drop_time(x);
    }
    for (size_t i = 0; i < g->output_count; i++) {
        hk_value *y = g->outputs[i], *inner = NULL;
        if (!leads_with(y, steps))
            continue;
        HK_TRY(check_axis(g, y, steps));
        inner = hk_graph_value(g, NULL, HK_VALUE_ACTIVATION, y->dtype, NULL);
        if (!inner)
            return no_memory(g);
        hk_graph_take_over(y, inner);
        hk_snn_redirect(g, y, inner, NULL);
        HK_TRY(change_axis(g, "Squeeze", inner, &made));
        hk_graph_take_over(made, y);
        drop_time(y);
    }
    HK_TRY(hk_graph_sort(g));
    return hk_snn_set_steps(g, 1);
}

/* ---- and all steps again */

static hk_status gain_time(hk_graph *g, hk_value *v, int64_t steps)
{
    if (v->shape.rank < 0)
        return HK_OK;
    if (v->shape.rank == HK_MAX_RANK)
        return hk_fail(g->ctx, HK_STATUS_UNSUPPORTED,
                       "'%s' has %d dimensions, and time needs one of the %d there can be: reshape it", v->name,
                       HK_MAX_RANK, HK_MAX_RANK);
    memmove(v->shape.dim + 1, v->shape.dim, (size_t)v->shape.rank * sizeof *v->shape.dim);
    memmove(v->dim_names + 1, v->dim_names, (size_t)v->shape.rank * sizeof *v->dim_names);
    v->shape.dim[0] = steps;
    v->dim_names[0] = NULL;
    v->shape.rank++;
    return HK_OK;
}

static bool is_edge(const hk_node *n, const char *type)
{
    return !strcmp(n->type, type) && n->in_count == 2 && n->in[1] &&
           !strncmp(n->in[1]->name, EDGE_NAME, strlen(EDGE_NAME));
}

bool hk_snn_is_single(const hk_graph *g)
{
    for (size_t i = 0; i < g->node_count; i++) {
        const hk_node *n = g->nodes[i];
        if (is_edge(n, "Unsqueeze") || (is_neuron(n) && !attrs_of(n)->steps))
            return true;
    }
    return false;
}

/* The edges that hk_snn_make_single has made go; what they stood between meets. */
static hk_status open_edges(hk_graph *g, int64_t steps)
{
    for (size_t i = 0; i < g->node_count; i++) {
        hk_node *n = g->nodes[i];
        if (is_edge(n, "Unsqueeze") && n->in[0]->kind == HK_VALUE_INPUT) {
            hk_snn_redirect(g, n->out[0], n->in[0], NULL);
            HK_TRY(gain_time(g, n->in[0], steps));
        }
    }
    for (size_t i = 0; i < g->output_count; i++) {
        hk_value *y = g->outputs[i];
        hk_node *n = y->producer;
        if (!n || !is_edge(n, "Squeeze"))
            continue;
        hk_snn_redirect(g, n->in[0], y, n);
        hk_graph_take_over(n->in[0], y);
        HK_TRY(gain_time(g, y, steps));
    }
    HK_TRY(hk_graph_prune(g));
    return hk_snn_set_steps(g, steps);
}

/* ---- time in a network that knows none */

typedef struct folding {
    hk_graph *g;
    hk_snn_time time;
    hk_shape *shapes; /* by value id, without time, with a batch of `batch` */
    const hk_tensor **known;
    size_t value_count;
    int64_t batch;
    bool *timed; /* by value id, those of the inputs' folds too: (T N,...) */
} folding;

static bool is_timed(const folding *f, const hk_value *v)
{
    return v && v->graph == f->g && v->id < f->value_count && f->timed[v->id];
}

static bool keeps_batch(const folding *f, const hk_value *v)
{
    const hk_shape *s = &f->shapes[v->id];
    return hk_shape_known(s) && s->rank >= 1 && s->rank < HK_MAX_RANK && s->dim[0] == f->batch;
}

static bool runs_along_batch(const folding *f, const hk_node *n)
{
    const int64_t *axis = hk_node_attr(n, "axis");
    return axis && is_timed(f, n->in[0]) && (*axis == 0 || *axis == -f->shapes[n->out[0]->id].rank);
}

/* Inputs (T,N,...) are one batch for those who read them. */
static hk_status fold_inputs(folding *f)
{
    hk_graph *g = f->g;
    hk_value **flat = hk_arena_array(g->arena, g->input_count + 1, sizeof(hk_value *));
    for (size_t i = 0; flat && i < g->input_count; i++) {
        hk_value *x = g->inputs[i];
        const hk_shape s = f->shapes[x->id];
        if (!keeps_batch(f, x))
            return hk_fail(g->ctx, HK_STATUS_UNSUPPORTED,
                           "input '%s' must have the batch as its first dimension and every other one fixed", x->name);
        HK_TRY(hk_snn_join_time(&f->time, x, &s, &flat[i]));
        hk_snn_redirect(g, x, flat[i], flat[i]->producer);
    }
    f->value_count = g->value_count;
    f->timed = hk_arena_array(g->arena, f->value_count + 1, sizeof *f->timed);
    if (!flat || !f->timed)
        return no_memory(g);
    for (size_t i = 0; i < g->input_count; i++)
        f->timed[flat[i]->id] = true;
    return HK_OK;
}

/* Readers of output `from` of neurons, (N,...) each step, read (T N,...) of what `made` holds for all of them. */
static hk_status join_output(folding *f, hk_value *from, hk_value *made)
{
    const hk_shape s = f->shapes[from->id];
    hk_value *flat = NULL;
    HK_TRY(hk_snn_join_time(&f->time, made, &s, &flat));
    hk_graph_take_over(flat, from);
    f->timed[from->id] = true;
    return HK_OK;
}

/* The potential after a step is one of the sequence's: output 1 is what output 2 is. */
static hk_status fold_neurons(folding *f, hk_node *n)
{
    hk_graph *g = f->g;
    hk_value *x = n->in[0], *old[3] = {n->out[0], hk_out(n, 1), hk_out(n, 2)}, *split = NULL;
    const hk_shape s = f->shapes[old[0]->id];
    if (hk_in(n, 1))
        return hk_fail(g->ctx, HK_STATUS_UNSUPPORTED,
                       "node '%s' is handed its potential by '%s' at every step: let it keep it itself", n->name,
                       n->in[1]->name);
    HK_TRY(hk_snn_split_time(&f->time, x, &s, &split));
    HK_TRY(hk_node_own_attrs(g, n));
    *(int64_t *)hk_node_attr(n, "steps") = f->time.steps;
    hk_value **in = hk_arena_array(g->arena, (size_t)n->in_count, sizeof(hk_value *));
    hk_value **out = hk_arena_array(g->arena, 3, sizeof(hk_value *));
    if (!in || !out)
        return no_memory(g);
    memcpy(in, n->in, (size_t)n->in_count * sizeof *in);
    in[0] = split;
    n->in = in;
    bool potentials = old[1] || old[2];
    for (int i = 0; i < 3; i += 2) {
        if (i && !potentials)
            continue;
        out[i] = hk_graph_value(g, NULL, HK_VALUE_ACTIVATION, old[0]->dtype, NULL);
        if (!out[i])
            return no_memory(g);
        out[i]->producer = n;
    }
    n->out = out;
    n->out_count = potentials ? 3 : 1;
    for (int i = 0; i < 3; i++)
        if (old[i])
            HK_TRY(join_output(f, old[i], out[i ? 2 : 0]));
    return HK_OK;
}

static hk_status fold_node(folding *f, hk_node *n)
{
    bool timed = false, known = n->out_count > 0;
    for (int32_t i = 0; i < n->in_count; i++)
        timed |= is_timed(f, n->in[i]);
    for (int32_t i = 0; i < n->out_count; i++)
        known &= !n->out[i] || f->known[n->out[i]->id];
    if (is_neuron(n) && !timed)
        return hk_fail(f->g->ctx, HK_STATUS_UNSUPPORTED, "node '%s': it takes nothing of the network's inputs",
                       n->name);
    if (!timed || known)
        return HK_OK;
    for (int32_t i = 0; i < n->out_count; i++)
        if (n->out[i] && (!keeps_batch(f, n->out[i]) || runs_along_batch(f, n)))
            return hk_fail(f->g->ctx, HK_STATUS_UNSUPPORTED,
                           "node '%s' (%s): it mixes samples or its shape is not known, so that time cannot be folded "
                           "into the batch; keep the batch as first dimension and fix all others",
                           n->name, n->type);
    if (is_neuron(n))
        return fold_neurons(f, n);
    for (int32_t i = 0; i < n->out_count; i++)
        if (n->out[i])
            f->timed[n->out[i]->id] = true;
    return HK_OK;
}

/* An output keeps its name: what made it gets another. */
static hk_status unfold_output(folding *f, hk_value *y)
{
    const hk_shape s = f->shapes[y->id];
    hk_value *flat = NULL, *split = NULL;
    HK_TRY(hk_snn_give_up_name(f->g, y, &flat));
    HK_TRY(hk_snn_split_time(&f->time, flat, &s, &split));
    hk_graph_take_over(split, y);
    return HK_OK;
}

static hk_status fold(hk_graph *g, int64_t steps)
{
    folding f = {.g = g, .time = {g, hk_snn_opset(g), steps}};
    HK_TRY(hk_graph_sort(g));
    HK_TRY(hk_snn_bind(g, &f.batch, &f.shapes, &f.known));
    size_t count = g->node_count;
    hk_node **nodes = hk_arena_array(g->arena, count + 1, sizeof(hk_node *));
    bool *unfolds = hk_arena_array(g->arena, g->output_count + 1, sizeof *unfolds);
    if (!nodes || !unfolds)
        return no_memory(g);
    memcpy(nodes, g->nodes, count * sizeof(hk_node *));
    HK_TRY(fold_inputs(&f));
    for (size_t i = 0; i < count; i++)
        HK_TRY(fold_node(&f, nodes[i]));
    for (size_t i = 0; i < g->output_count; i++) {
        unfolds[i] = is_timed(&f, g->outputs[i]);
        if (unfolds[i])
            HK_TRY(unfold_output(&f, g->outputs[i]));
        f.timed[g->outputs[i]->id] = false; /* it may be listed again */
    }
    hk_snn_plan frame = {
        .graph = g, .arena = g->arena, .shapes = f.shapes, .batch = f.batch, .of = nodes, .node_count = count};
    HK_TRY(hk_snn_free_batch(&frame));
    for (size_t i = 0; i < g->input_count; i++)
        HK_TRY(gain_time(g, g->inputs[i], steps));
    for (size_t i = 0; i < g->output_count; i++)
        if (unfolds[i])
            HK_TRY(gain_time(g, g->outputs[i], steps));
    return HK_OK;
}

hk_status hk_snn_make_multi(hk_graph *g, int64_t steps)
{
    int64_t own = hk_snn_describe(g).steps;
    const hk_node *without = NULL;
    for (size_t i = 0; i < g->node_count; i++)
        if (is_neuron(g->nodes[i]) && !attrs_of(g->nodes[i])->steps)
            without = g->nodes[i];
    if (own > 1 && (!steps || steps == own) && !without)
        return HK_OK;
    if (own > 1 && !without)
        return hk_fail(g->ctx, HK_STATUS_USAGE,
                       "the network takes %lld steps a call already; hk_snn_with_steps changes their number",
                       (long long)own);
    if (own && without)
        return hk_fail(g->ctx, HK_STATUS_UNSUPPORTED,
                       "node '%s' takes one step a call and other neurons %lld: a network has one step mode",
                       without->name, (long long)own);
    if (steps < 1 || steps > 65536)
        return hk_fail(g->ctx, HK_STATUS_USAGE, "%lld time steps: step mode m takes 1 to 65536", (long long)steps);
    HK_TRY(check(g));
    return without ? fold(g, steps) : open_edges(g, steps);
}
