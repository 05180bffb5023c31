/* The rewriting: neurons, sums of MaxPool, readout. */
#include <string.h>

#include "ops/op.h"
#include "snn/convert.h"
#include "snn/fold.h"

typedef struct rewriter {
    hk_snn_plan *p;
    hk_graph *g;
    hk_snn_form form;
    hk_value *samples;   /* int64 [1]: N, made on demand */
    hk_value **repeated; /* by value id: a value without time at every step, (T N,...) */
    hk_value **read;     /* by value id: its mean over time */
    bool *corrected;     /* by site: the correction is in a bias */
} rewriter;

static hk_status make(rewriter *r, const char *type, hk_value *const *in, int32_t count, hk_value **out)
{
    return hk_snn_node_make(r->g, r->p->opset, type, NULL, NULL, in, count, out);
}

/* ---- time. A shape's first dimension is always the batch. */

/* (T N,...) as (T,N,...). */
static hk_status split_time(rewriter *r, hk_value *x, const hk_shape *s, hk_value **out)
{
    int64_t dims[HK_MAX_RANK] = {r->form.steps, -1};
    memcpy(dims + 2, s->dim + 1, (size_t)(s->rank - 1) * sizeof *dims);
    return hk_snn_reshape(r->g, r->p->opset, x, HK_SNN_STEPS_NAME, dims, s->rank + 1, out);
}

static hk_status join_time(rewriter *r, hk_value *x, const hk_shape *s, hk_value **out)
{
    int64_t dims[HK_MAX_RANK] = {-1};
    memcpy(dims + 1, s->dim + 1, (size_t)(s->rank - 1) * sizeof *dims);
    return hk_snn_reshape(r->g, r->p->opset, x, NULL, dims, s->rank, out);
}

/* (N,...) at every step: (T,N,...). */
static hk_status repeat(rewriter *r, hk_value *x, const hk_shape *s, hk_value **out)
{
    int64_t dims[HK_MAX_RANK] = {1, -1}, times[HK_MAX_RANK] = {r->form.steps};
    memcpy(dims + 2, s->dim + 1, (size_t)(s->rank - 1) * sizeof *dims);
    for (int32_t d = 1; d <= s->rank; d++)
        times[d] = 1;
    hk_value *one = NULL;
    HK_TRY(hk_snn_reshape(r->g, r->p->opset, x, NULL, dims, s->rank + 1, &one));
    hk_value *in[] = {one, hk_snn_integers(r->g, HK_SNN_STEPS_NAME, times, s->rank + 1)};
    return make(r, "Expand", in, 2, out);
}

static bool is_timed(const rewriter *r, const hk_value *v)
{
    return v->graph == r->g && v->id < r->p->value_count && r->p->timed[v->id];
}

/* (T,N,...) of either. */
static hk_status in_time(rewriter *r, hk_value *x, bool timed, const hk_shape *s, hk_value **out)
{
    return timed ? split_time(r, x, s, out) : repeat(r, x, s, out);
}

/* ---- neurons */

/* A constant per channel that broadcasts to the values of a shape. */
static hk_value *per_channel(rewriter *r, const hk_snn_site *s, const char *name, const float *x, const hk_shape *shape)
{
    int64_t dims[HK_MAX_RANK];
    for (int32_t d = 0; d < shape->rank; d++)
        dims[d] = d == 1 ? s->channels : 1;
    return hk_snn_floats(r->g, name, x, shape->rank, dims);
}

/* Half the threshold for each neuron of each sample: what makes counts round instead of truncate. */
static hk_status start_values(rewriter *r, const hk_snn_site *s, const hk_shape *shape, hk_value **out)
{
    hk_graph *g = r->g;
    float *half = hk_arena_array(r->p->arena, (size_t)s->channels, sizeof *half);
    if (!half)
        return hk_out_of_memory(g->ctx, "potentials");
    for (int64_t c = 0; c < s->channels; c++)
        half[c] = r->form.scalers ? 0.5f : s->thresholds[c] * 0.5f;
    if (!r->samples) {
        hk_value *shape_of = NULL;
        HK_TRY(make(r, "Shape", &g->inputs[0], 1, &shape_of));
        shape_of->dtype = HK_INT64;
        hk_value *in[] = {shape_of, hk_snn_integers(g, NULL, (int64_t[]){0}, 1),
                          hk_snn_integers(g, NULL, (int64_t[]){1}, 1)};
        HK_TRY(make(r, "Slice", in, 3, &r->samples));
    }
    const hk_attr_value axis[] = {HK_SET_INT("axis", 0), {0}};
    hk_value *dims[] = {r->samples, hk_snn_integers(g, NULL, shape->dim + 1, shape->rank - 1)}, *full = NULL;
    HK_TRY(hk_snn_node_make(g, r->p->opset, "Concat", NULL, axis, dims, 2, &full));
    hk_value *in[] = {per_channel(r, s, NULL, half, shape), full};
    return make(r, "Expand", in, 2, out);
}

static hk_status correct(rewriter *r, size_t i, const hk_shape *shape, hk_value **x)
{
    const hk_snn_site *s = &r->p->sites[i];
    hk_value *b = NULL;
    if (r->form.probe) {
        hk_shape dims = {.rank = shape->rank};
        for (int32_t d = 0; d < dims.rank; d++)
            dims.dim[d] = d == 1 ? s->channels : 1;
        const char *name = hk_arena_format(r->p->arena, "snn.correction.%zu", i);
        b = name ? hk_graph_value(r->g, name, HK_VALUE_INPUT, HK_FLOAT32, &dims) : NULL;
        if (!b || !hk_graph_add_input(r->g, b))
            return hk_out_of_memory(r->g->ctx, "a conversion");
    } else if (s->corrections && !r->corrected[i]) {
        b = per_channel(r, s, NULL, s->corrections, shape);
    } else {
        return HK_OK;
    }
    hk_value *in[] = {*x, b};
    return make(r, "Add", in, 2, x);
}

static hk_status scale(rewriter *r, const hk_snn_site *s, bool inverse, const hk_shape *shape, hk_value **x)
{
    float *by = hk_arena_array(r->p->arena, (size_t)s->channels, sizeof *by);
    for (int64_t c = 0; by && c < s->channels; c++)
        by[c] = inverse ? 1 / s->thresholds[c] : s->thresholds[c];
    hk_value *in[] = {*x, by ? per_channel(r, s, NULL, by, shape) : NULL};
    return make(r, "Mul", in, 2, x);
}

static hk_status fire(rewriter *r, hk_snn_site *s, const hk_shape *shape, hk_value *current, hk_value **spikes)
{
    const hk_attr_value attrs[] = {HK_SET_INT("steps", r->form.steps),
                                   HK_SET_STRING("kind", r->form.tau > 0 ? "LIF" : "IF"),
                                   HK_SET_FLOAT("tau", r->form.tau > 0 ? (float)r->form.tau : 2.0f),
                                   HK_SET_STRING("reset", r->form.hard_reset ? "hard" : "soft"),
                                   {0}};
    hk_value *v0 = NULL, *out = NULL;
    if (!r->form.hard_reset)
        HK_TRY(start_values(r, s, shape, &v0));
    HK_TRY(hk_snn_node_make(r->g, r->p->opset, "hk.Neuron", s->node->name, attrs, &current, 1, &out));
    hk_node *n = out->producer;
    n->in = hk_arena_array(r->p->arena, 4, sizeof *n->in);
    if (!n->in)
        return hk_out_of_memory(r->g->ctx, "a conversion");
    n->in[0] = current;
    n->in[1] = v0;
    n->in_count = v0 ? 2 : 1;
    if (!r->form.scalers) {
        n->in[3] = hk_snn_floats(r->g, NULL, s->thresholds, 1, &s->channels);
        n->in_count = 4;
        if (!n->in[3])
            return hk_out_of_memory(r->g->ctx, "a conversion");
    }
    *spikes = out;
    return HK_OK;
}

/* The mean of spikes per channel, [channels]. */
static hk_status add_mean(rewriter *r, const hk_snn_site *s, hk_value *spikes, int32_t rank)
{
    int64_t axes[HK_MAX_RANK], count = 0;
    hk_value *mean = NULL;
    for (int32_t d = 0; d <= rank; d++)
        if (d != 2 || s->channels == 1)
            axes[count++] = d;
    HK_TRY(hk_snn_reduce(r->g, r->p->opset, "ReduceMean", spikes, axes, (int32_t)count, &mean));
    return hk_graph_add_output(r->g, mean) ? HK_OK : hk_out_of_memory(r->g->ctx, "a conversion");
}

static hk_status convert_site(rewriter *r, size_t i)
{
    hk_snn_site *s = &r->p->sites[i];
    const hk_shape *shape = &r->p->shapes[s->y->id];
    bool timed = is_timed(r, s->x);
    hk_value *x = s->x, *spikes = NULL, *y = NULL;
    HK_TRY(correct(r, i, shape, &x));
    if (r->form.scalers)
        HK_TRY(scale(r, s, true, shape, &x));
    HK_TRY(in_time(r, x, timed, shape, &x));
    HK_TRY(fire(r, s, shape, x, &spikes));
    if (r->form.probe)
        HK_TRY(add_mean(r, s, spikes, shape->rank));
    HK_TRY(join_time(r, spikes, shape, &y));
    if (r->form.scalers || !s->folded)
        HK_TRY(scale(r, s, false, shape, &y));
    y->dtype = s->y->dtype;
    hk_graph_take_over(y, s->y);
    return HK_OK;
}

/* ---- MaxPool: y_t = max(x_1 + ... + x_t) - max(x_1 + ... + x_(t-1)), so that the sum of y is the maximum of sums */

static hk_status convert_max_pool(rewriter *r, hk_node *n)
{
    hk_value *y = n->out[0], *x = NULL, *pooled = hk_graph_value(r->g, NULL, HK_VALUE_ACTIVATION, HK_FLOAT32, NULL);
    const hk_shape *in = &r->p->shapes[n->in[0]->id], *out = &r->p->shapes[y->id];
    if (!pooled)
        return HK_STATUS_OUT_OF_MEMORY;
    HK_TRY(split_time(r, n->in[0], in, &x));
    hk_value *sum[] = {x, hk_graph_scalar(r->g, HK_INT64, 0)};
    HK_TRY(make(r, "CumSum", sum, 2, &x));
    HK_TRY(join_time(r, x, in, &n->in[0]));
    n->out[0] = pooled;
    pooled->producer = n;
    y->producer = NULL;
    hk_value *now = NULL, *before = NULL, *step = NULL, *flat = NULL;
    int64_t pads[2 * HK_MAX_RANK] = {1};
    pads[out->rank + 1] = -1; /* one step later */
    HK_TRY(split_time(r, pooled, out, &now));
    hk_value *shift[] = {now, hk_snn_integers(r->g, NULL, pads, 2 * (out->rank + 1))};
    HK_TRY(make(r, "Pad", shift, 2, &before));
    hk_value *difference[] = {now, before};
    HK_TRY(make(r, "Sub", difference, 2, &step));
    HK_TRY(join_time(r, step, out, &flat));
    hk_graph_take_over(flat, y);
    return HK_OK;
}

/* ---- what lies between */

static hk_status repeated(rewriter *r, hk_value *v, hk_value **out)
{
    const hk_shape *s = &r->p->shapes[v->id];
    if (!r->repeated[v->id]) {
        hk_value *x = NULL;
        HK_TRY(repeat(r, v, s, &x));
        HK_TRY(join_time(r, x, s, &r->repeated[v->id]));
    }
    *out = r->repeated[v->id];
    return HK_OK;
}

/* Operands without time of a node with time: those with a batch are repeated, constants stay. */
static hk_status convert_linear(rewriter *r, hk_node *n)
{
    for (int32_t i = 0; i < n->in_count; i++) {
        hk_value *v = n->in[i];
        const hk_shape *s = v && v->id < r->p->value_count ? &r->p->shapes[v->id] : NULL;
        bool varies = s && !v->data && !r->p->known[v->id] && !is_timed(r, v);
        if (varies && s->rank >= 1 && s->dim[0] == r->p->batch)
            HK_TRY(repeated(r, v, &n->in[i]));
    }
    return HK_OK;
}

static hk_status read_out(rewriter *r, hk_value *v, const hk_shape *s, hk_value **out)
{
    hk_value *x = NULL;
    HK_TRY(split_time(r, v, s, &x));
    if (r->form.delay > 0) {
        hk_value *in[] = {x, hk_snn_integers(r->g, HK_SNN_DELAY_NAME, &r->form.delay, 1),
                          hk_snn_integers(r->g, NULL, (int64_t[]){INT64_MAX}, 1),
                          hk_snn_integers(r->g, NULL, (int64_t[]){0}, 1)};
        HK_TRY(make(r, "Slice", in, 4, &x));
    }
    HK_TRY(hk_snn_reduce(r->g, r->p->opset, "ReduceMean", x, (int64_t[]){0}, 1, out));
    (*out)->producer->name = hk_arena_format(r->p->arena, "%s.%s", HK_SNN_READOUT_NAME, v->name);
    (*out)->dtype = v->dtype;
    return (*out)->producer->name ? HK_OK : hk_out_of_memory(r->g->ctx, "a conversion");
}

static hk_status convert_readout(rewriter *r, hk_node *n)
{
    for (int32_t i = 0; i < n->in_count; i++) {
        hk_value *v = n->in[i];
        if (!v || !is_timed(r, v))
            continue;
        if (!r->read[v->id])
            HK_TRY(read_out(r, v, &r->p->shapes[v->id], &r->read[v->id]));
        n->in[i] = r->read[v->id];
    }
    return HK_OK;
}

/* An output keeps its name: what had it gets another. */
static hk_status convert_output(rewriter *r, size_t i)
{
    hk_graph *g = r->g;
    hk_value *y = g->outputs[i], *in_steps = NULL, *mean = NULL;
    if (!is_timed(r, y))
        return HK_OK;
    for (size_t k = 0; k < i; k++)
        if (g->outputs[k] == y)
            return HK_OK;
    in_steps = hk_graph_value(g, hk_arena_format(r->p->arena, "%s.steps", y->name), HK_VALUE_ACTIVATION, y->dtype,
                              NULL);
    if (!in_steps)
        return HK_STATUS_OUT_OF_MEMORY;
    hk_graph_take_over(y, in_steps);
    for (size_t k = 0; k < g->node_count; k++)
        for (int32_t u = 0; u < g->nodes[k]->in_count; u++)
            if (g->nodes[k]->in[u] == y)
                g->nodes[k]->in[u] = in_steps;
    HK_TRY(read_out(r, in_steps, &r->p->shapes[y->id], &mean));
    hk_graph_take_over(mean, y);
    return HK_OK;
}

static hk_status convert_node(rewriter *r, hk_node *n, hk_snn_verdict verdict)
{
    bool timed = false;
    for (int32_t i = 0; i < n->in_count; i++)
        timed = timed || (n->in[i] && is_timed(r, n->in[i]));
    if (verdict == HK_SNN_READOUT)
        return convert_readout(r, n);
    if (!timed)
        return HK_OK;
    return verdict == HK_SNN_EXACT ? convert_max_pool(r, n) : convert_linear(r, n);
}

static hk_status convert_all(rewriter *r)
{
    hk_snn_plan *p = r->p;
    hk_uses uses = {0};
    HK_TRY(hk_graph_uses(p->graph, p->arena, &uses));
    for (size_t i = 0; i < p->site_count; i++) {
        hk_snn_site *s = &p->sites[i];
        s->folded = false;
        if (!r->form.scalers)
            HK_TRY(hk_snn_fold_amplitude(p, &uses, s));
        if (s->corrections && !r->form.probe)
            HK_TRY(hk_snn_fold_correction(p, &uses, s, &r->corrected[i]));
    }
    size_t outputs = r->g->output_count;
    for (size_t i = 0, site = 0; i < p->node_count; i++) {
        if (site < p->site_count && p->of[i] == p->sites[site].node)
            HK_TRY(convert_site(r, site++));
        else
            HK_TRY(convert_node(r, p->of[i], p->nodes[i].verdict));
    }
    for (size_t i = 0; i < outputs; i++)
        HK_TRY(convert_output(r, i));
    return hk_graph_prune(r->g);
}

hk_status hk_snn_rewrite(hk_snn_plan *p, const hk_snn_form *form)
{
    rewriter r = {.p = p, .g = p->graph, .form = *form};
    r.repeated = hk_arena_array(p->arena, p->value_count + 1, sizeof(hk_value *));
    r.read = hk_arena_array(p->arena, p->value_count + 1, sizeof(hk_value *));
    r.corrected = hk_arena_array(p->arena, p->site_count + 1, sizeof *r.corrected);
    if (!r.repeated || !r.read || !r.corrected)
        return hk_out_of_memory(p->graph->ctx, "a conversion");
    return convert_all(&r);
}
