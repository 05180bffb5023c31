/* The rewriting: neurons, sums of MaxPool, functions of running means, readout. */
#include <string.h>

#include "ops/op.h"
#include "snn/convert.h"
#include "snn/fold.h"

typedef struct rewriter {
    hk_snn_plan *p;
    hk_graph *g;
    hk_snn_form form;
    hk_snn_time time;
    hk_value *samples;   /* int64 [1]: N, made on demand */
    hk_value **repeated; /* by value id: a value without time at every step, (T N,...) */
    hk_value **read;     /* by value id: its mean over time */
    hk_value **running;  /* by value id: at step t, the mean of the first t, (T N,...) */
    bool *corrected;     /* by site: the correction is in a bias */
} rewriter;

static hk_status make(rewriter *r, const char *type, hk_value *const *in, int32_t count, hk_value **out)
{
    return hk_snn_node_make(r->g, r->p->opset, type, NULL, NULL, in, count, out);
}

/* ---- time. A shape's first dimension is always the batch. */

static bool is_timed(const rewriter *r, const hk_value *v)
{
    return v->graph == r->g && v->id < r->p->value_count && r->p->timed[v->id];
}

/* (T,N,...) of either. */
static hk_status in_time(rewriter *r, hk_value *x, bool timed, const hk_shape *s, hk_value **out)
{
    return timed ? hk_snn_split_time(&r->time, x, s, out) : hk_snn_repeat(&r->time, x, s, out);
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
    hk_value *voltages = !by               ? NULL
                         : r->form.scalers ? hk_snn_floats(r->g, NULL, by, 1, &s->channels)
                                           : per_channel(r, s, NULL, by, shape);
    return make(r, r->form.scalers ? "hk.VoltageScaler" : "Mul", (hk_value *[]){*x, voltages}, 2, x);
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

/* The mean of spikes over time, (N,...). */
static hk_status add_rates(rewriter *r, hk_value *spikes)
{
    hk_value *rate = NULL;
    HK_TRY(hk_snn_reduce(r->g, r->p->opset, "ReduceMean", spikes, (int64_t[]){0}, 1, &rate));
    return hk_graph_add_output(r->g, rate) ? HK_OK : hk_out_of_memory(r->g->ctx, "a conversion");
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
    if (r->form.rates)
        HK_TRY(add_rates(r, spikes));
    HK_TRY(hk_snn_join_time(&r->time, spikes, shape, &y));
    if (r->form.scalers || !s->folded)
        HK_TRY(scale(r, s, false, shape, &y));
    y->dtype = s->y->dtype;
    hk_graph_take_over(y, s->y);
    return HK_OK;
}

/* ---- differences: y_t = z_t - z_(t-1), so that the sum of y is the last z */

/* Cuts the node off its output i: *out is what it makes from now on, for others to take the old one's place. */
static hk_status cut_off(rewriter *r, hk_node *n, int32_t i, hk_value **out)
{
    hk_value *made = hk_graph_value(r->g, NULL, HK_VALUE_ACTIVATION, HK_FLOAT32, NULL);
    if (!made)
        return HK_STATUS_OUT_OF_MEMORY;
    n->out[i]->producer = NULL;
    n->out[i] = made;
    made->producer = n;
    *out = made;
    return HK_OK;
}

/* y becomes the differences of z, (T,N,...). */
static hk_status take_differences(rewriter *r, hk_value *z, hk_value *y)
{
    const hk_shape *shape = &r->p->shapes[y->id];
    hk_value *before = NULL, *step = NULL, *flat = NULL;
    int64_t pads[2 * HK_MAX_RANK] = {1};
    pads[shape->rank + 1] = -1; /* one step later */
    hk_value *shift[] = {z, hk_snn_integers(r->g, NULL, pads, 2 * (shape->rank + 1))};
    HK_TRY(make(r, "Pad", shift, 2, &before));
    HK_TRY(make(r, "Sub", (hk_value *[]){z, before}, 2, &step));
    HK_TRY(hk_snn_join_time(&r->time, step, shape, &flat));
    hk_graph_take_over(flat, y);
    return HK_OK;
}

static hk_status sums_so_far(rewriter *r, hk_value *x, hk_value **out)
{
    hk_value *in[] = {x, hk_graph_scalar(r->g, HK_INT64, 0)};
    return make(r, "CumSum", in, 2, out);
}

/* MaxPool: z_t = max(x_1 + ... + x_t). */
static hk_status convert_max_pool(rewriter *r, hk_node *n)
{
    hk_value *y = n->out[0], *x = NULL, *pooled = NULL, *z = NULL;
    const hk_shape *in = &r->p->shapes[n->in[0]->id];
    HK_TRY(hk_snn_split_time(&r->time, n->in[0], in, &x));
    HK_TRY(sums_so_far(r, x, &x));
    HK_TRY(hk_snn_join_time(&r->time, x, in, &n->in[0]));
    HK_TRY(cut_off(r, n, 0, &pooled));
    HK_TRY(hk_snn_split_time(&r->time, pooled, &r->p->shapes[y->id], &z));
    return take_differences(r, z, y);
}

/* ---- what lies between */

static hk_status repeated(rewriter *r, hk_value *v, hk_value **out)
{
    const hk_shape *s = &r->p->shapes[v->id];
    if (!r->repeated[v->id]) {
        hk_value *x = NULL;
        HK_TRY(hk_snn_repeat(&r->time, v, s, &x));
        HK_TRY(hk_snn_join_time(&r->time, x, s, &r->repeated[v->id]));
    }
    *out = r->repeated[v->id];
    return HK_OK;
}

/* Operands without time of a node with time: those with a batch are repeated, constants stay. */
static hk_status convert_operands(rewriter *r, hk_node *n)
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

/* ---- other functions f: z_t = t f(m_t), m_t the mean of the first t inputs; so the mean of y is f of the mean */

/* 1 to T, as (T,1,...). */
static hk_status step_numbers(rewriter *r, int32_t rank, hk_value **out)
{
    int64_t dims[HK_MAX_RANK] = {r->form.steps};
    hk_value *ones = NULL;
    for (int32_t d = 1; d < rank; d++)
        dims[d] = 1;
    hk_value *in[] = {hk_graph_scalar(r->g, HK_FLOAT32, 1), hk_snn_integers(r->g, HK_SNN_STEPS_NAME, dims, rank)};
    HK_TRY(make(r, "Expand", in, 2, &ones));
    return sums_so_far(r, ones, out);
}

static hk_status running_mean(rewriter *r, hk_value *v, hk_value **out)
{
    const hk_shape *s = &r->p->shapes[v->id];
    if (!r->running[v->id]) {
        hk_value *x = NULL, *t = NULL;
        HK_TRY(hk_snn_split_time(&r->time, v, s, &x));
        HK_TRY(sums_so_far(r, x, &x));
        HK_TRY(step_numbers(r, s->rank + 1, &t));
        HK_TRY(make(r, "Div", (hk_value *[]){x, t}, 2, &x));
        HK_TRY(hk_snn_join_time(&r->time, x, s, &r->running[v->id]));
    }
    *out = r->running[v->id];
    return HK_OK;
}

static hk_status convert_functional(rewriter *r, hk_node *n)
{
    for (int32_t i = 0; i < n->in_count; i++)
        if (n->in[i] && is_timed(r, n->in[i]))
            HK_TRY(running_mean(r, n->in[i], &n->in[i]));
    for (int32_t i = 0; i < n->out_count; i++) {
        hk_value *y = n->out[i], *z = NULL, *t = NULL;
        if (!y)
            continue;
        const hk_shape *shape = &r->p->shapes[y->id];
        HK_TRY(cut_off(r, n, i, &r->running[y->id]));
        HK_TRY(hk_snn_split_time(&r->time, r->running[y->id], shape, &z));
        HK_TRY(step_numbers(r, shape->rank + 1, &t));
        HK_TRY(make(r, "Mul", (hk_value *[]){z, t}, 2, &z));
        HK_TRY(take_differences(r, z, y));
    }
    return HK_OK;
}

/* A linear node without weights between two functions: running means go through it as steps do, so that the second
 * need not sum up what the first took differences of. Whichever of the two is of no use is pruned. */
static hk_status keep_running(rewriter *r, const hk_node *n)
{
    hk_value *in[16] = {NULL};
    bool fits = n->out_count == 1 && n->in_count <= (int32_t)HK_COUNT(in) && strcmp(n->type, "Conv") != 0 &&
                strcmp(n->type, "Gemm") != 0 && strcmp(n->type, "MatMul") != 0 && strcmp(n->type, "ConvTranspose") != 0;
    for (int32_t i = 0; i < n->in_count && fits; i++) {
        bool timed = n->in[i] && is_timed(r, n->in[i]);
        in[i] = timed ? r->running[n->in[i]->id] : n->in[i];
        fits = !timed || in[i];
    }
    if (!fits)
        return HK_OK;
    hk_node *twin = hk_graph_node(r->g, NULL, n->type, n->op, n->attrs, in, n->in_count, 1);
    if (!twin)
        return HK_STATUS_OUT_OF_MEMORY;
    twin->opset = n->opset;
    twin->out[0]->dtype = n->out[0]->dtype;
    r->running[n->out[0]->id] = twin->out[0];
    return HK_OK;
}

static hk_status read_out(rewriter *r, hk_value *v, const hk_shape *s, hk_value **out)
{
    hk_value *x = NULL;
    HK_TRY(hk_snn_split_time(&r->time, v, s, &x));
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
    HK_TRY(hk_snn_give_up_name(g, y, &in_steps));
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
    if (verdict == HK_SNN_EXACT && (!strcmp(n->type, "MaxPool") || !strcmp(n->type, "GlobalMaxPool")))
        return convert_max_pool(r, n);
    HK_TRY(convert_operands(r, n));
    if (verdict == HK_SNN_EXACT)
        return convert_functional(r, n);
    return r->p->choice.functional ? keep_running(r, n) : HK_OK;
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
    rewriter r = {.p = p, .g = p->graph, .form = *form, .time = {p->graph, p->opset, form->steps}};
    r.repeated = hk_arena_array(p->arena, p->value_count + 1, sizeof(hk_value *));
    r.read = hk_arena_array(p->arena, p->value_count + 1, sizeof(hk_value *));
    r.running = hk_arena_array(p->arena, p->value_count + 1, sizeof(hk_value *));
    r.corrected = hk_arena_array(p->arena, p->site_count + 1, sizeof *r.corrected);
    if (!r.repeated || !r.read || !r.running || !r.corrected)
        return hk_out_of_memory(p->graph->ctx, "a conversion");
    return convert_all(&r);
}
