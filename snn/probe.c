/* Looking into a spiking graph: its steps, and outputs that count what its layers do. */
#include <string.h>

#include "ops/op.h"
#include "snn/convert.h"

static bool begins(const char *s, const char *with)
{
    return !strncmp(s, with, strlen(with));
}

static int64_t steps_of(const hk_node *n)
{
    const int64_t *steps = !strcmp(n->type, "hk.Neuron") ? hk_node_attr(n, "steps") : NULL;
    return steps ? *steps : 0;
}

static int64_t first_element(const hk_value *v)
{
    return v->data && hk_tensor_count(v->data) > 0 ? hk_get_int(v->data, 0) : 0;
}

hk_snn_info hk_snn_describe(const hk_graph *g)
{
    hk_snn_info info = {0};
    for (size_t i = 0; i < g->node_count; i++)
        if (steps_of(g->nodes[i]) > 0) {
            info.steps = steps_of(g->nodes[i]);
            info.layers += !begins(g->nodes[i]->name, HK_SNN_READOUT_NAME);
        }
    for (size_t i = 0; i < g->node_count; i++)
        info.readouts = info.readouts || begins(g->nodes[i]->name, HK_SNN_READOUT_NAME);
    for (size_t i = 0; i < g->value_count; i++)
        if (begins(g->values[i]->name, HK_SNN_DELAY_NAME))
            info.delay = first_element(g->values[i]);
    return info;
}

hk_status hk_snn_set_steps(hk_graph *g, int64_t steps)
{
    for (size_t i = 0; i < g->node_count; i++) {
        hk_node *n = g->nodes[i];
        if (steps_of(n) <= 0)
            continue;
        HK_TRY(hk_node_own_attrs(g, n));
        *(int64_t *)hk_node_attr(n, "steps") = steps;
    }
    for (size_t i = 0; i < g->value_count; i++) {
        hk_value *v = g->values[i];
        if (!begins(v->name, HK_SNN_STEPS_NAME) || !v->data || v->dtype != HK_INT64)
            continue;
        hk_shape shape = hk_tensor_shape(v->data);
        hk_tensor *t = hk_tensor_new(g->arena, HK_INT64, &shape);
        if (!t)
            return hk_out_of_memory(g->ctx, "a spiking network");
        memcpy(t->data, v->data->data, (size_t)hk_tensor_bytes(t));
        hk_set_int(t, 0, steps);
        v->data = t;
        v->payload = NULL;
    }
    return HK_OK;
}

/* ---- what has a time axis folded into its batch: from the encoder or the neurons to the readout */

bool *hk_snn_find_timed(const hk_graph *g)
{
    bool *timed = hk_arena_array(g->arena, g->value_count + 1, sizeof *timed);
    for (size_t i = 0; timed && i < g->node_count; i++) {
        const hk_node *n = g->nodes[i];
        bool found = steps_of(n) > 0 || (hk_in(n, 1) && begins(n->in[1]->name, HK_SNN_STEPS_NAME));
        for (int32_t k = 0; k < n->in_count; k++)
            found = found || (n->in[k] && n->in[k]->graph == g && timed[n->in[k]->id]);
        for (int32_t k = 0; found && k < n->out_count; k++)
            if (n->out[k])
                timed[n->out[k]->id] = !begins(n->name, HK_SNN_READOUT_NAME);
    }
    return timed;
}

/* ---- synapses that start from each element of an input */

typedef struct window {
    int64_t in, out, kernel, stride, dilation, pad;
} window;

static int64_t nth(const hk_node *n, const char *name, int32_t i, int64_t otherwise)
{
    const hk_ints *list = hk_node_attr(n, name);
    return list && list->v && i < list->count ? list->v[i] : otherwise;
}

static window window_of(const hk_node *n, const hk_shape *x, const hk_shape *y, const hk_tensor *w, int32_t d)
{
    const char *const *automatic = hk_node_attr(n, "auto_pad");
    window v = {.in = x->dim[d + 2],
                .out = y->dim[d + 2],
                .kernel = w->shape[d + 2],
                .stride = nth(n, "strides", d, 1),
                .dilation = nth(n, "dilations", d, 1),
                .pad = nth(n, "pads", d, 0)};
    if (automatic && *automatic && begins(*automatic, "SAME")) {
        int64_t whole = HK_MAX((v.out - 1) * v.stride + (v.kernel - 1) * v.dilation + 1 - v.in, (int64_t)0);
        v.pad = !strcmp(*automatic, "SAME_UPPER") ? whole / 2 : (whole + 1) / 2;
    }
    return v;
}

/* Pairs of a place of the kernel and one of the output that read place i of the input. */
static int64_t reached(const window *v, int64_t i)
{
    int64_t count = 0;
    for (int64_t k = 0; k < v->kernel; k++) {
        int64_t at = i + v->pad - k * v->dilation;
        count += at >= 0 && at % v->stride == 0 && at / v->stride < v->out;
    }
    return count;
}

/* [1,1,spatial...] for a convolution. */
static hk_value *conv_reach(hk_graph *g, const hk_node *n, const hk_shape *x, const hk_shape *y)
{
    const hk_tensor *w = n->in[1]->data;
    const int64_t *group = hk_node_attr(n, "group");
    int64_t dims[HK_MAX_RANK] = {1, 1}, count = 1, inner = 1;
    for (int32_t d = 2; d < x->rank; d++)
        count *= dims[d] = x->dim[d];
    float *reach = hk_arena_array(g->arena, (size_t)count + 1, sizeof *reach);
    for (int64_t i = 0; reach && i < count; i++)
        reach[i] = (float)(w->shape[0] / *group);
    for (int32_t d = x->rank - 3; reach && d >= 0; d--) {
        window v = window_of(n, x, y, w, d);
        for (int64_t i = 0; i < count; i++)
            reach[i] *= (float)reached(&v, i / inner % v.in);
        inner *= v.in;
    }
    return reach ? hk_snn_floats(g, "snn.reach", reach, x->rank, dims) : NULL;
}

typedef struct prober {
    hk_graph *g;
    int32_t opset;
    int64_t steps;
    uint32_t monitors;
    bool *timed;
    hk_shape *shapes;
    hk_snn_probe *list;
    size_t count;
} prober;

/* A graph output of what v holds, called "snn.KIND.NUMBER". */
static hk_status add_output(prober *p, const char *kind, hk_value *v, const char **name)
{
    hk_graph *g = p->g;
    *name = hk_arena_format(g->arena, "snn.%s.%zu", kind, p->count);
    hk_value *out = *name ? hk_graph_value(g, *name, HK_VALUE_ACTIVATION, HK_FLOAT32, NULL) : NULL;
    if (!out || !hk_graph_add_output(g, out))
        return hk_out_of_memory(g->ctx, "a monitor");
    hk_graph_take_over(v, out);
    *name = out->name;
    return HK_OK;
}

/* Sums per step of x, whose first axis is time or time and batch. */
static hk_status add_sum(prober *p, hk_snn_probe *probe, hk_value *x)
{
    hk_value *flat = NULL, *sum = NULL;
    HK_TRY(hk_snn_reshape(p->g, p->opset, x, HK_SNN_STEPS_NAME, (int64_t[]){p->steps, -1}, 2, &flat));
    HK_TRY(hk_snn_reduce(p->g, p->opset, "ReduceSum", flat, (int64_t[]){1}, 1, &sum));
    return add_output(p, "count", sum, &probe->output);
}

/* Sums over everything, or over the first axes, of x made a matrix of `columns`. */
static hk_status add_total(prober *p, const char *kind, hk_value *x, int64_t columns, const char **name)
{
    hk_value *flat = NULL, *sum = NULL;
    HK_TRY(hk_snn_reshape(p->g, p->opset, x, NULL, (int64_t[]){-1, columns}, 2, &flat));
    HK_TRY(hk_snn_reduce(p->g, p->opset, "ReduceSum", flat, (int64_t[]){0}, 1, &sum));
    return add_output(p, kind, sum, name);
}

static hk_status add_copy(prober *p, const char *kind, hk_value *x, const char **name)
{
    hk_value *copy = NULL;
    HK_TRY(hk_snn_node_make(p->g, p->opset, "Identity", NULL, NULL, &x, 1, &copy));
    return add_output(p, kind, copy, name);
}

static double product(const hk_shape *s, int32_t from)
{
    double n = 1;
    for (int32_t d = from; d < s->rank; d++)
        n *= (double)s->dim[d];
    return n;
}

static hk_status probe_synapses(prober *p, hk_node *n)
{
    hk_graph *g = p->g;
    hk_value *x = n->in[0], *w = n->in[1], *reach = NULL;
    bool timed = p->timed[x->id];
    hk_snn_probe *probe = &p->list[p->count];
    const hk_shape *xs = &p->shapes[x->id], *ys = &p->shapes[n->out[0]->id];
    if (!w->data || !hk_shape_known(xs) || !hk_shape_known(ys) || ys->rank < 2 || w->data->rank < 2)
        return HK_OK;
    *probe = (hk_snn_probe){.node = n->name, .op = n->type};
    if (!strcmp(n->type, "Conv")) {
        probe->macs = product(ys, 1) * (double)hk_tensor_count(w->data) / (double)w->data->shape[0];
        reach = timed ? conv_reach(g, n, xs, ys) : NULL;
    } else {
        const int64_t *transposed = hk_node_attr(n, "transB");
        int32_t k = transposed && *transposed ? 1 : 0;
        float columns = (float)w->data->shape[k ? 0 : w->data->rank - 1];
        probe->macs = product(ys, 1) * (double)w->data->shape[k ? 1 : w->data->rank - 2];
        reach = timed ? hk_snn_floats(g, "snn.reach", &columns, 0, (int64_t[]){0}) : NULL;
    }
    if (timed) {
        hk_value *size = NULL, *one = NULL, *all = NULL;
        HK_TRY(hk_snn_node_make(g, p->opset, "Abs", NULL, NULL, &x, 1, &size));
        HK_TRY(hk_snn_node_make(g, p->opset, "Sign", NULL, NULL, &size, 1, &one));
        HK_TRY(hk_snn_node_make(g, p->opset, "Mul", NULL, NULL, (hk_value *[]){one, reach}, 2, &all));
        HK_TRY(add_sum(p, probe, all));
    }
    p->count++;
    return HK_OK;
}

static hk_status probe_neurons(prober *p, hk_node *n)
{
    hk_snn_probe *probe = &p->list[p->count];
    *probe = (hk_snn_probe){.node = n->name, .op = n->type};
    probe->neurons = product(&p->shapes[n->out[0]->id], 2);
    int32_t wanted = p->monitors & HK_SNN_MONITOR_POTENTIALS ? 3 : p->monitors & HK_SNN_MONITOR_COUNTS ? 2 : 1;
    if (!hk_node_want_outputs(n, wanted))
        return hk_out_of_memory(p->g->ctx, "a monitor");
    for (int32_t i = 1; i < wanted; i++)
        n->out[i]->dtype = HK_FLOAT32;
    if (p->monitors & HK_SNN_MONITOR_COUNTS) {
        HK_TRY(add_sum(p, probe, n->out[0]));
        HK_TRY(add_total(p, "each", n->out[0], (int64_t)probe->neurons, &probe->each));
        HK_TRY(add_total(p, "charge", n->out[1], 1, &probe->charge));
    }
    if (p->monitors & HK_SNN_MONITOR_SPIKES)
        HK_TRY(add_copy(p, "spikes", n->out[0], &probe->spikes));
    if (p->monitors & HK_SNN_MONITOR_POTENTIALS)
        HK_TRY(add_copy(p, "potentials", n->out[2], &probe->potentials));
    p->count++;
    return HK_OK;
}

hk_status hk_snn_add_probes(hk_graph *g, uint32_t monitors, hk_snn_probe **probes, size_t *count)
{
    const hk_tensor **known = NULL;
    prober p = {.g = g, .opset = hk_snn_opset(g), .steps = hk_snn_describe(g).steps, .monitors = monitors};
    HK_TRY(hk_graph_sort(g));
    HK_TRY(hk_snn_shapes(g, HK_SNN_PROBE_BATCH, g->arena, &p.shapes, &known));
    p.timed = hk_snn_find_timed(g);
    p.list = hk_arena_array(g->arena, g->node_count + 1, sizeof *p.list);
    if (!p.timed || !p.list)
        return hk_out_of_memory(g->ctx, "a monitor");
    for (size_t i = 0, n = g->node_count; i < n; i++) {
        hk_node *node = g->nodes[i];
        const char *type = node->type;
        if (steps_of(node) > 0 && !begins(node->name, HK_SNN_READOUT_NAME))
            HK_TRY(probe_neurons(&p, node));
        else if ((monitors & HK_SNN_MONITOR_COUNTS) &&
                 (!strcmp(type, "Conv") || !strcmp(type, "Gemm") || !strcmp(type, "MatMul")))
            HK_TRY(probe_synapses(&p, node));
    }
    *probes = p.list;
    *count = p.count;
    return hk_graph_sort(g);
}
