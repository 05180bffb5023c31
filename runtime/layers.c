/* hk_verify_layers: every node's results on the device against the host evaluator, which reads the device's operands.
 */
#include <math.h>
#include <string.h>

#include "ops/infer.h"
#include "runtime/host.h"
#include "runtime/model.h"
#include "runtime/objects.h"
#include "runtime/program.h"

#define RUN_BYTES ((uint64_t)512 << 20) /* results of one run: each stays in memory until its end */

typedef struct layers {
    hk_context *ctx;
    hk_device *dev;
    hk_layers_params params;
    hk_layers_result *result;
    hk_arena *arena;
    const hk_graph *graph;
    const hk_tensor **inputs; /* contiguous */
    const hk_tensor **device; /* by value id: the device's contents, NULL where it is not asked for */
    const hk_tensor **known;  /* by value id: what the host evaluation has, the device's where it has them */
    bool *wanted;             /* by value id */
    uint64_t *bytes;          /* by value id, 0 where the shape is not known */
    size_t next;              /* value at which the next run's results begin */
} layers;

static hk_status no_memory(const layers *l)
{
    return hk_out_of_memory(l->ctx, "verifying layers");
}

/* ---- the device's side: runs with many outputs */

static void bind_shapes(const layers *l, hk_graph *g)
{
    for (size_t i = 0; i < g->input_count; i++) {
        g->inputs[i]->dtype = l->inputs[i]->dtype;
        g->inputs[i]->shape = hk_tensor_shape(l->inputs[i]);
    }
}

/* Results that inference finds by itself are no node's work. */
static hk_status choose_values(layers *l)
{
    hk_graph *g = NULL;
    size_t count = l->graph->value_count;
    HK_TRY(hk_graph_clone(l->graph, &g));
    bind_shapes(l, g);
    hk_status st = hk_infer_graph(g);
    for (size_t i = 0; i < count && st == HK_OK; i++) {
        const hk_value *v = g->values[i];
        l->wanted[i] = l->graph->values[i]->producer && !v->data && !l->graph->values[i]->state;
        l->bytes[i] = v->dtype != HK_DTYPE_NONE && hk_shape_known(&v->shape) ? hk_value_bytes(v) : 0;
    }
    hk_graph_destroy(&g);
    return st;
}

/* The model with the next values as its only outputs; *count 0: there are no more. */
static hk_status next_graph(layers *l, hk_graph **out, size_t *count)
{
    hk_graph *g = NULL;
    uint64_t bytes = 0;
    HK_TRY(hk_graph_clone(l->graph, &g));
    g->output_count = 0;
    for (; l->next < l->graph->value_count && bytes < RUN_BYTES; l->next++) {
        if (!l->wanted[l->next])
            continue;
        bytes += l->bytes[l->next];
        if (!hk_graph_add_output(g, g->values[l->next])) {
            hk_graph_destroy(&g);
            return no_memory(l);
        }
    }
    *count = g->output_count;
    *out = g;
    return HK_OK;
}

static hk_status read_outputs(layers *l, const hk_graph *g, const hk_run *run)
{
    for (size_t i = 0; i < g->output_count; i++)
        HK_TRY(hk_run_read(run, i, l->arena, &l->device[g->outputs[i]->id]));
    return HK_OK;
}

static hk_status run_graph(layers *l, const hk_graph *g)
{
    static const hk_step step;
    hk_env *env = NULL;
    hk_program *program = NULL;
    hk_run run = {0};
    hk_status st = hk_env_create(l->dev->gpu, g, &env);
    if (st == HK_OK) {
        env->precision = l->params.precision == HK_PRECISION_DEFAULT ? HK_PRECISION_STRICT : l->params.precision;
        st = hk_program_create(env, g, 1, NULL, NULL, &program);
    }
    if (st == HK_OK)
        st = hk_program_submit(program, l->inputs, &step, &run);
    if (st == HK_OK)
        st = hk_program_wait(program, &run);
    if (st == HK_OK)
        st = read_outputs(l, g, &run);
    hk_program_destroy(&program);
    hk_env_destroy(&env);
    return st;
}

static hk_status run_device(layers *l)
{
    for (size_t count = 1; count;) {
        hk_graph *g = NULL;
        HK_TRY(next_graph(l, &g, &count));
        hk_status st = count ? run_graph(l, g) : HK_OK;
        hk_graph_destroy(&g);
        HK_TRY(st);
    }
    return HK_OK;
}

/* ---- comparing */

static void describe(hk_value_info *info, const char *name, const hk_tensor *t)
{
    *info = (hk_value_info){.name = name, .dtype = t->dtype, .rank = t->rank};
    memcpy(info->shape, t->shape, sizeof info->shape);
}

static void measure(hk_operand_stats *s, const char *name, const hk_tensor *t)
{
    double sum = 0, squares = 0;
    int64_t finite = 0;
    *s = (hk_operand_stats){.least = INFINITY, .most = -INFINITY};
    describe(&s->value, name, t);
    for (int64_t i = 0; i < hk_tensor_count(t); i++) {
        double x = hk_get_double(t, i);
        s->nans += isnan(x);
        s->infinities += isinf(x) != 0;
        if (!isfinite(x))
            continue;
        s->least = fmin(s->least, x);
        s->most = fmax(s->most, x);
        sum += x;
        squares += x * x;
        finite++;
    }
    if (!finite)
        s->least = s->most = 0;
    s->mean = finite ? sum / (double)finite : 0;
    s->deviation = finite ? sqrt(fmax(squares / (double)finite - s->mean * s->mean, 0)) : 0;
}

/* Errors of the whole and the element that differs most; a NaN on one side alone is an infinite difference. */
static void compare(hk_node_check *y, const hk_tensor *device, const hk_tensor *host)
{
    double error = 0, norm = 0;
    y->worst = -1;
    for (int64_t i = 0; i < hk_tensor_count(host); i++) {
        double a = hk_get_double(device, i), b = hk_get_double(host, i);
        bool same = a == b || (isnan(a) && isnan(b));
        double d = same ? 0 : isfinite(a) && isfinite(b) ? fabs(a - b) : INFINITY;
        norm += isfinite(b) ? b * b : 0;
        error += d * d;
        if (d > y->largest || (d > 0 && y->worst < 0)) {
            y->largest = d;
            y->worst = i;
            y->device = a;
            y->host = b;
        }
    }
    if (!hk_dtype_is_float(host->dtype))
        y->norm = error > 0 ? INFINITY : 0;
    else
        y->norm = error == 0 ? 0 : norm > 0 ? sqrt(error / norm) : INFINITY;
}

/* Two roundings to 16 bits of numbers that nearly agree may differ by the last place. */
static double bound_of(const layers *l, hk_dtype t)
{
    return HK_MAX(l->params.bound, t == HK_FLOAT16 ? 0x1p-10 : t == HK_BFLOAT16 ? 0x1p-7 : 0);
}

static hk_status report(layers *l, hk_node_check *y, const hk_node *n)
{
    hk_operand_stats *stats = hk_arena_array(l->arena, (size_t)n->in_count + 1, sizeof *stats);
    if (!stats)
        return no_memory(l);
    for (int32_t i = 0; i < n->in_count && y->wrong; i++) {
        const hk_value *v = n->in[i];
        const hk_tensor *t = !v ? NULL : v->graph == l->graph && l->known[v->id] ? l->known[v->id] : v->data;
        if (t)
            measure(&stats[y->operand_count++], v->name, t);
    }
    y->operands = stats;
    if (l->params.report)
        l->params.report(l->params.user, y);
    return HK_OK;
}

static hk_status visit(void *user, const hk_value *v, const hk_tensor **t)
{
    layers *l = user;
    const hk_tensor *device = l->device[v->id], *host = *t;
    l->known[v->id] = device ? device : host;
    if (!device || !host)
        return HK_OK;
    *t = device;
    if (hk_dtype_is_list(host->dtype))
        return HK_OK; /* its elements were compared where they were made */
    hk_node_check y = {.node = v->producer->name, .op = v->producer->type};
    hk_shape a = hk_tensor_shape(device), b = hk_tensor_shape(host);
    hk_shape_text x, z;
    describe(&y.value, v->name, host);
    if (device->dtype != host->dtype || !hk_shape_equal(&a, &b))
        return hk_fail(l->ctx, HK_STATUS_INTERNAL,
                       "node '%s' (%s): '%s' is %s %s on the device and %s %s by the host evaluator", y.node, y.op,
                       v->name, hk_dtype_name(device->dtype), hk_shape_print(&a, &x), hk_dtype_name(host->dtype),
                       hk_shape_print(&b, &z));
    compare(&y, device, host);
    y.wrong = !(y.norm <= bound_of(l, host->dtype));
    l->result->compared++;
    l->result->wrong += y.wrong;
    return report(l, &y, v->producer);
}

static hk_status run_host(layers *l)
{
    hk_graph *g = NULL;
    static const hk_step step;
    hk_tensor **outputs = hk_arena_array(l->arena, l->graph->output_count + 1, sizeof *outputs);
    if (!outputs)
        return no_memory(l);
    HK_TRY(hk_graph_clone(l->graph, &g));
    l->graph = g; /* whose values the operands are */
    hk_status st = hk_host_trace(g, l->arena, l->inputs, outputs, &step, visit, l);
    hk_graph_destroy(&g);
    return st;
}

/* ---- the call */

static hk_status pack_inputs(layers *l, const hk_tensor *inputs, size_t count)
{
    const hk_graph *g = l->graph;
    if (count != g->input_count)
        return hk_fail(l->ctx, HK_STATUS_USAGE, "the model has %zu inputs, %zu were given", g->input_count, count);
    l->inputs = hk_arena_array(l->arena, count + 1, sizeof(hk_tensor *));
    if (!l->inputs)
        return no_memory(l);
    for (size_t i = 0; i < count; i++) {
        HK_TRY(hk_check_input(l->ctx, g->inputs[i], &inputs[i]));
        if (hk_dtype_is_list(inputs[i].dtype))
            return hk_fail(l->ctx, HK_STATUS_UNSUPPORTED,
                           "input '%s' is a sequence or optional: layers of such models "
                           "cannot be verified",
                           g->inputs[i]->name);
        hk_shape shape = hk_tensor_shape(&inputs[i]);
        hk_tensor *t = hk_tensor_new(l->arena, inputs[i].dtype, &shape);
        if (!t)
            return no_memory(l);
        hk_tensor_pack(&inputs[i], t->data);
        l->inputs[i] = t;
    }
    return HK_OK;
}

static hk_status verify(layers *l, const hk_tensor *inputs, size_t count)
{
    size_t values = l->graph->value_count + 1;
    l->device = hk_arena_array(l->arena, values, sizeof(hk_tensor *));
    l->known = hk_arena_array(l->arena, values, sizeof(hk_tensor *));
    l->wanted = hk_arena_array(l->arena, values, sizeof *l->wanted);
    l->bytes = hk_arena_array(l->arena, values, sizeof *l->bytes);
    if (!l->device || !l->known || !l->wanted || !l->bytes)
        return no_memory(l);
    HK_TRY(pack_inputs(l, inputs, count));
    HK_TRY(choose_values(l));
    HK_TRY(run_device(l));
    return run_host(l);
}

hk_status hk_verify_layers(hk_device *dev, const hk_model *m, const hk_tensor *inputs, size_t input_count,
                           const hk_layers_params *params, hk_layers_result *result)
{
    hk_layers_result counted = {0};
    layers l = {.ctx = dev->ctx, .dev = dev, .result = &counted, .graph = hk_model_graph(m)};
    if (params)
        memcpy(&l.params, params, HK_MIN(params->size, sizeof l.params));
    l.params.bound = l.params.bound > 0 ? l.params.bound : 5e-6;
    HK_TRY(hk_model_check_runs(m));
    l.arena = hk_arena_create(dev->ctx);
    if (!l.arena)
        return no_memory(&l);
    hk_status st = verify(&l, inputs, input_count);
    hk_arena_destroy(&l.arena);
    if (st != HK_OK)
        return st;
    if (result)
        *result = counted;
    return counted.wrong ? hk_fail(dev->ctx, HK_STATUS_MISMATCH, "%zu of %zu values differ from the host evaluator's",
                                   counted.wrong, counted.compared)
                         : HK_OK;
}
