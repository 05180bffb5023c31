/* From the graph of a spiking network to NIR: time and batch are taken away, sums become edges, the readout a word. */
#include "snn/nir.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "ops/op.h"
#include "snn/convert.h"
#include "snn/nir_nodes.h"

const hk_tensor *hk_nir_fixed(const hk_nir_builder *b, const hk_value *v)
{
    return !v ? NULL : v->data ? v->data : v->graph == b->g ? b->known[v->id] : NULL;
}

hk_status hk_nir_refuse(hk_nir_builder *b, const char *reason)
{
    b->verdict->verdict = HK_SNN_UNSUPPORTED;
    b->verdict->reason = reason;
    return HK_OK;
}

hk_status hk_nir_approximate(hk_nir_builder *b, const char *reason, const char *as, bool *go_on)
{
    *go_on = b->params.approximate;
    if (!*go_on)
        return hk_nir_refuse(b, reason);
    b->approximated = true;
    b->verdict->verdict = HK_SNN_APPROXIMATE;
    b->verdict->reason = as;
    return HK_OK;
}

/* ---- nodes */

static hk_status no_memory(const hk_nir_builder *b)
{
    return hk_out_of_memory(b->g->ctx, "an export to NIR");
}

static const char *unique_name(const hk_nir_builder *b, const char *wish)
{
    char *name = hk_arena_format(b->arena, "%s", *wish == '/' ? wish + 1 : wish);
    for (char *p = name; p && *p; p++)
        *p = *p == '/' || *p == '.' ? '_' : *p;
    const char *unique = name;
    for (size_t i = 0, tries = 0; unique && i < b->out->node_count; i++)
        if (!strcmp(b->out->nodes[i]->name, unique)) {
            unique = hk_arena_format(b->arena, "%s_%zu", name, ++tries);
            i = SIZE_MAX; /* from the first again */
        }
    return unique;
}

static hk_status connect(hk_nir_builder *b, size_t from, size_t to)
{
    hk_nir *o = b->out;
    if (!hk_arena_grow(b->arena, (void **)&o->edges, o->edge_count, &o->edge_capacity, sizeof *o->edges))
        return no_memory(b);
    o->edges[o->edge_count][0] = from;
    o->edges[o->edge_count++][1] = to;
    return HK_OK;
}

static bool is_sole(const hk_nir_builder *b, const hk_value *v)
{
    return b->uses.count[v->id] == 1 && !b->uses.is_output[v->id];
}

hk_status hk_nir_emit(hk_nir_builder *b, const char *name, const char *type, const hk_shape *out, const hk_value *v,
                      hk_nir_flow *flow, hk_nir_node **made)
{
    hk_nir *o = b->out;
    hk_nir_node *n = hk_arena_new(b->arena, hk_nir_node);
    hk_nir_source *source = hk_arena_new(b->arena, hk_nir_source);
    if (!n || !source ||
        !hk_arena_grow(b->arena, (void **)&o->nodes, o->node_count, &o->node_capacity, sizeof *o->nodes))
        return no_memory(b);
    *n = (hk_nir_node){.name = unique_name(b, name), .type = type, .out = *out};
    if (!n->name)
        return no_memory(b);
    for (size_t i = 0; i < flow->count; i++)
        HK_TRY(connect(b, flow->from[i].node, o->node_count));
    *source = (hk_nir_source){.node = o->node_count, .sole = !v || is_sole(b, v)};
    o->nodes[o->node_count++] = n;
    *flow = (hk_nir_flow){.from = source, .count = 1, .shape = *out, .read = flow->read};
    *made = n;
    return HK_OK;
}

bool hk_nir_add_tensor(hk_nir_node *n, const char *name, const hk_tensor *t)
{
    if (t)
        n->fields[n->field_count++] = (hk_nir_field){.name = name, .data = t};
    return t != NULL;
}

hk_tensor *hk_nir_floats(hk_nir_builder *b, int32_t rank, const int64_t *dims)
{
    hk_shape s = {.rank = rank};
    if (rank > 0)
        memcpy(s.dim, dims, (size_t)rank * sizeof *dims);
    return hk_tensor_new(b->arena, HK_FLOAT32, &s);
}

const hk_tensor *hk_nir_integers(hk_nir_builder *b, int32_t rank, const int64_t *x, int64_t count)
{
    hk_shape s = {.rank = rank, .dim = {count}};
    hk_tensor *t = hk_tensor_new(b->arena, HK_INT64, &s);
    for (int64_t i = 0; t && i < count; i++)
        hk_set_int(t, i, x[i]);
    return t;
}

/* ---- constants against samples */

/* The extent of c along axis d of samples, whose last axes are aligned; 1 where c has none. */
static int64_t extent(const hk_tensor *c, const hk_shape *s, int32_t d)
{
    int32_t at = c->rank - (s->rank - d);
    return at >= 0 ? c->shape[at] : 1;
}

double hk_nir_broadcast(const hk_tensor *c, const hk_shape *s, int64_t i)
{
    int64_t at = 0, stride = 1;
    for (int32_t d = s->rank - 1; d >= 0; d--) {
        int64_t n = extent(c, s, d);
        if (n > 1)
            at += i % s->dim[d] * stride;
        stride *= n;
        i /= s->dim[d];
    }
    return hk_get_double(c, at);
}

/* What broadcasts to one sample. */
static bool fits_sample(const hk_tensor *c, const hk_shape *s)
{
    int64_t count = 1;
    for (int32_t d = 0; d < s->rank; d++) {
        if (extent(c, s, d) != 1 && extent(c, s, d) != s->dim[d])
            return false;
        count *= extent(c, s, d);
    }
    return count == hk_tensor_count(c);
}

bool hk_nir_is_per_channel(const hk_tensor *c, const hk_shape *s)
{
    return fits_sample(c, s) && hk_tensor_count(c) == (s->rank > 0 ? extent(c, s, 0) : 1);
}

static void scale_rows(hk_nir_node *n, const hk_tensor *by)
{
    int64_t rows = n->weight->shape[0], columns = hk_tensor_count(n->weight) / rows;
    for (int64_t r = 0; r < rows; r++) {
        double x = hk_get_double(by, hk_tensor_count(by) > 1 ? r : 0);
        for (int64_t c = r * columns; c < (r + 1) * columns; c++)
            hk_set_double(n->weight, c, hk_get_double(n->weight, c) * x);
        hk_set_double(n->bias, r, hk_get_double(n->bias, r) * x);
    }
}

static hk_status scale_source(hk_nir_builder *b, const char *name, const hk_tensor *by, const hk_shape *shape,
                              hk_nir_source *source)
{
    hk_nir_node *n = b->out->nodes[source->node];
    if (n->weight && source->sole && hk_nir_is_per_channel(by, shape) && n->weight->shape[0] == shape->dim[0]) {
        scale_rows(n, by);
        return HK_OK;
    }
    hk_nir_flow flow = {.from = source, .count = 1};
    hk_tensor *scale = hk_nir_floats(b, shape->rank, shape->dim);
    const char *wish = hk_arena_format(b->arena, "%s_scale", name);
    if (!scale || !wish)
        return no_memory(b);
    for (int64_t i = 0; i < hk_shape_count(shape); i++)
        hk_set_double(scale, i, hk_nir_broadcast(by, shape, i));
    HK_TRY(hk_nir_emit(b, wish, "Scale", shape, NULL, &flow, &n));
    hk_nir_add_tensor(n, "scale", scale);
    *source = *flow.from;
    return HK_OK;
}

hk_status hk_nir_scale(hk_nir_builder *b, const char *name, const hk_tensor *by, hk_nir_flow *flow)
{
    hk_nir_source *from = hk_arena_array(b->arena, flow->count, sizeof *from); /* other values may share the list */
    if (!from)
        return no_memory(b);
    memcpy(from, flow->from, flow->count * sizeof *from);
    for (size_t i = 0; i < flow->count; i++)
        HK_TRY(scale_source(b, name, by, &flow->shape, &from[i]));
    flow->from = from;
    return HK_OK;
}

void hk_nir_pass(hk_nir_builder *b, hk_nir_flow *flow, const hk_value *v)
{
    for (size_t i = 0; i < flow->count; i++)
        flow->from[i].sole = flow->from[i].sole && is_sole(b, v);
}

/* ---- shapes: what of a value is a sample at a step */

/* (N,...), (T N,...), (T,N,...) or, with one step of a T, (1,N,...). */
static bool sample_of(const hk_nir_builder *b, const hk_value *v, hk_shape *out, bool *time_first)
{
    const hk_shape *s = &b->shapes[v->id];
    bool first = s->rank >= 2 && s->dim[1] == b->batch;
    int32_t lead = first ? 2 : 1;
    *time_first = first;
    if (!hk_shape_known(s) || s->rank < lead || (!first && s->dim[0] % b->batch != 0))
        return false;
    *out = (hk_shape){.rank = s->rank - lead};
    memcpy(out->dim, s->dim + lead, (size_t)out->rank * sizeof *out->dim);
    return true;
}

/* ---- operators that move, add and read */

static hk_status take_reshape(hk_nir_builder *b, const hk_node *n, const hk_shape *to, hk_nir_flow *flow)
{
    hk_shape from = flow->shape;
    hk_nir_node *made = NULL;
    if (hk_shape_equal(&from, to)) {
        hk_nir_pass(b, flow, n->out[0]);
        return HK_OK;
    }
    if (to->rank != 1 || hk_shape_count(&from) != to->dim[0])
        return hk_nir_refuse(b, "NIR has no reshaping but Flatten; flatten to a vector, or leave shapes as they are");
    HK_TRY(hk_nir_emit(b, n->name, "Flatten", to, n->out[0], flow, &made));
    return hk_nir_add_tensor(made, "start_dim", hk_nir_integers(b, 0, (int64_t[]){0}, 1)) &&
                   hk_nir_add_tensor(made, "end_dim", hk_nir_integers(b, 0, (int64_t[]){-1}, 1)) &&
                   hk_nir_add_tensor(made, "input_type", hk_nir_integers(b, 1, from.dim, from.rank))
               ? HK_OK
               : no_memory(b);
}

/* A bias that stands beside its weights. */
static hk_status add_constant(hk_nir_builder *b, const hk_node *n, const hk_tensor *c, hk_nir_flow *flow)
{
    hk_nir_node *to = flow->count == 1 ? b->out->nodes[flow->from[0].node] : NULL;
    if (!to || !to->weight || !flow->from[0].sole || !hk_nir_is_per_channel(c, &flow->shape))
        return hk_nir_refuse(b, "NIR adds a constant only as the bias of weights before it, one per channel");
    for (int64_t i = 0; i < hk_tensor_count(to->bias); i++)
        hk_set_double(to->bias, i, hk_get_double(to->bias, i) + hk_get_double(c, hk_tensor_count(c) > 1 ? i : 0));
    hk_nir_pass(b, flow, n->out[0]);
    return HK_OK;
}

static hk_status add_flow(hk_nir_builder *b, const hk_node *n, const hk_nir_flow *other, hk_nir_flow *flow)
{
    if (!hk_shape_equal(&flow->shape, &other->shape))
        return hk_nir_refuse(b, "NIR adds signals of one shape; broadcast before adding");
    for (size_t i = 0; i < other->count; i++)
        for (size_t k = 0; k < flow->count; k++)
            if (other->from[i].node == flow->from[k].node)
                return hk_nir_refuse(b, "adds a signal to itself, which an edge of NIR cannot; multiply it by 2");
    hk_nir_source *from = hk_arena_array(b->arena, flow->count + other->count, sizeof *from);
    if (!from)
        return no_memory(b);
    memcpy(from, flow->from, flow->count * sizeof *from);
    memcpy(from + flow->count, other->from, other->count * sizeof *from);
    flow->from = from;
    flow->count += other->count;
    flow->read = flow->read || other->read;
    hk_nir_pass(b, flow, n->out[0]);
    return HK_OK;
}

static hk_status take_sum(hk_nir_builder *b, const hk_node *n, int32_t first, hk_nir_flow *flow)
{
    for (int32_t i = 0; i < n->in_count && b->verdict->verdict != HK_SNN_UNSUPPORTED; i++) {
        const hk_value *v = n->in[i];
        const hk_tensor *c = hk_nir_fixed(b, v);
        if (i == first)
            continue;
        if (!c && !b->flows[v->id].count)
            return hk_nir_refuse(b, "adds what is neither a signal nor a constant");
        HK_TRY(c ? add_constant(b, n, c, flow) : add_flow(b, n, &b->flows[v->id], flow));
    }
    return HK_OK;
}

static hk_status take_factor(hk_nir_builder *b, const hk_node *n, int32_t x, hk_nir_flow *flow)
{
    const hk_tensor *c = n->in_count == 2 ? hk_nir_fixed(b, n->in[1 - x]) : NULL;
    bool divides = !strcmp(n->type, "Div");
    if (!c || !fits_sample(c, &flow->shape) || (divides && x == 1))
        return hk_nir_refuse(b, "NIR scales a signal by constants alone; a product of signals has no counterpart");
    hk_shape shape = hk_tensor_shape(c);
    hk_tensor *by = hk_tensor_new(b->arena, HK_FLOAT64, &shape);
    if (!by)
        return no_memory(b);
    for (int64_t i = 0; i < hk_tensor_count(c); i++)
        hk_set_double(by, i, divides ? 1 / hk_get_double(c, i) : hk_get_double(c, i));
    HK_TRY(hk_nir_scale(b, n->name, by, flow));
    hk_nir_pass(b, flow, n->out[0]);
    return HK_OK;
}

void hk_nir_read_last(hk_nir_builder *b, hk_nir_flow *flow)
{
    b->readout = "last";
    b->verdict->reason = "its potential in the last step is what is read";
    flow->read = true;
}

/* A node that takes the time axis away, or steps of it. */
static hk_status take_readout(hk_nir_builder *b, const hk_node *n, hk_nir_flow *flow)
{
    const hk_shape *x = &b->shapes[n->in[0]->id], *y = &b->shapes[n->out[0]->id];
    bool slice = !strcmp(n->type, "Slice");
    if (slice)
        b->delay += x->dim[0] - y->dim[0];
    else
        b->readout = !strcmp(n->type, "ReduceMean")  ? "mean"
                     : !strcmp(n->type, "ReduceSum") ? "sum"
                     : !strcmp(n->type, "Gather")    ? "last"
                                                     : b->readout;
    flow->read = flow->read || !slice;
    b->verdict->verdict = HK_SNN_READOUT;
    b->verdict->reason = "named in the metadata: NIR's output is that of every step";
    hk_nir_pass(b, flow, n->out[0]);
    return HK_OK;
}

/* Spikes drawn from the input: the file takes them as its input. */
static hk_status take_encoder(hk_nir_builder *b, const hk_node *n, hk_nir_flow *flow)
{
    if (flow->count != 1 || strcmp(b->out->nodes[flow->from[0].node]->type, "Input") != 0)
        return hk_nir_refuse(b, "NIR draws no numbers; encode the network's input alone");
    b->encode = "poisson";
    b->verdict->reason = "named in the metadata: NIR's input is the spikes that it draws";
    hk_nir_pass(b, flow, n->out[0]);
    return HK_OK;
}

/* ---- a node */

static bool is_one_of(const char *type, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(names[i], type))
            return true;
    return false;
}
#define IS_ONE_OF(type, ...)                                                                                           \
    is_one_of(type, (const char *const[]){__VA_ARGS__}, sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

static const char *remedy(const char *type)
{
    if (IS_ONE_OF(type, "CumSum", "MaxPool"))
        return "NIR has no maxima and no sums over time; convert the network with average pooling (hillock convert "
               "--pool avg), and without --functional";
    if (IS_ONE_OF(type, "Softmax", "LogSoftmax"))
        return "NIR has no Softmax; take it off, scores have the same order";
    if (IS_ONE_OF(type, "Scan", "Loop"))
        return "its steps are a loop; let neurons take all steps at once (step mode m), and fold time into the batch";
    if (!strcmp(type, "BatchNormalization"))
        return "it follows no convolution that it could be folded into; put it behind one";
    return "NIR has no such node; leave it out of the network";
}

static const hk_value *first_output(const hk_node *n)
{
    int32_t i = 0;
    while (i < n->out_count && !n->out[i])
        i++;
    return hk_out(n, i);
}

static hk_status take_typed(hk_nir_builder *b, const hk_node *n, int32_t x, hk_nir_flow *flow)
{
    const hk_value *y = first_output(n);
    hk_shape sample, before;
    bool time_first = false, was_first = false;
    if (!sample_of(b, y, &sample, &time_first) || !sample_of(b, n->in[x], &before, &was_first))
        return hk_nir_refuse(b, "its shape does not tell samples from steps; export the model with all dimensions but "
                                "the first fixed");
    bool reads = was_first && hk_shape_equal(&before, &sample) &&
                 !hk_shape_equal(&b->shapes[n->in[x]->id], &b->shapes[y->id]);
    if (reads && IS_ONE_OF(n->type, "ReduceMean", "ReduceSum", "Slice", "Gather", "Squeeze"))
        return take_readout(b, n, flow);
    if (IS_ONE_OF(n->type, "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Identity", "Dropout", "Cast"))
        return take_reshape(b, n, &sample, flow);
    if (flow->read)
        return hk_nir_refuse(b, "it follows the readout, which NIR leaves to its reader; end the network there");
    if (!strcmp(n->type, "Conv"))
        return hk_nir_conv(b, n, flow);
    if (IS_ONE_OF(n->type, "Gemm", "MatMul"))
        return x == 0 ? hk_nir_dense(b, n, flow) : hk_nir_refuse(b, "weights stand on the right in NIR");
    if (IS_ONE_OF(n->type, "AveragePool", "GlobalAveragePool", "ReduceMean"))
        return hk_nir_pool(b, n, flow);
    if (!strcmp(n->type, "hk.Neuron"))
        return hk_nir_neuron(b, n, flow);
    if (!strcmp(n->type, "Bernoulli"))
        return take_encoder(b, n, flow);
    if (IS_ONE_OF(n->type, "Add", "Sum"))
        return take_sum(b, n, x, flow);
    if (IS_ONE_OF(n->type, "Mul", "Div"))
        return take_factor(b, n, x, flow);
    return hk_nir_refuse(b, remedy(n->type));
}

static hk_status take_node(hk_nir_builder *b, const hk_node *n)
{
    int32_t x = -1;
    bool broken = false;
    for (int32_t i = n->in_count - 1; i >= 0; i--)
        if (n->in[i] && n->in[i]->graph == b->g && b->flows[n->in[i]->id].count) {
            x = i;
            broken = broken || b->flows[n->in[i]->id].broken;
        }
    if (x < 0 || !first_output(n) || !strcmp(n->type, "Shape"))
        return HK_OK; /* constants, and arithmetic of shapes */
    hk_nir_flow flow = b->flows[n->in[x]->id];
    flow.from = hk_arena_array(b->arena, flow.count, sizeof *flow.from);
    if (!flow.from)
        return no_memory(b);
    memcpy(flow.from, b->flows[n->in[x]->id].from, flow.count * sizeof *flow.from);
    if (!broken) {
        b->verdict->verdict = HK_SNN_EXACT;
        b->verdict->reason = "has its counterpart";
        HK_TRY(take_typed(b, n, x, &flow));
    } else {
        b->verdict->reason = "is not judged: what it takes has no counterpart";
    }
    flow.broken = broken || b->verdict->verdict == HK_SNN_UNSUPPORTED;
    for (int32_t i = 0; i < n->out_count; i++)
        if (n->out[i])
            b->flows[n->out[i]->id] = flow;
    return HK_OK;
}

/* ---- the graph */

static hk_status begin(hk_nir_builder *b)
{
    hk_graph *g = b->g;
    hk_nir_node *input = NULL;
    hk_nir_flow flow = {0};
    hk_shape sample;
    bool time_first = false;
    if (g->input_count != 1 || g->output_count != 1)
        return hk_fail(g->ctx, HK_STATUS_UNSUPPORTED,
                       "the network has %zu inputs and %zu outputs, and a NIR file has one of each; leave the others "
                       "out",
                       g->input_count, g->output_count);
    b->steps = hk_snn_describe(g).steps;
    b->batch = b->steps == HK_SNN_PROBE_BATCH ? 1013 : HK_SNN_PROBE_BATCH; /* never T, so that shapes tell samples */
    HK_TRY(hk_graph_sort(g));
    HK_TRY(hk_snn_shapes(g, b->batch, b->arena, &b->shapes, &b->known));
    HK_TRY(hk_graph_uses(g, b->arena, &b->uses));
    b->flows = hk_arena_array(b->arena, g->value_count + 1, sizeof *b->flows);
    if (!b->flows)
        return no_memory(b);
    if (!sample_of(b, g->inputs[0], &sample, &time_first) || sample.rank < 1)
        return hk_fail(g->ctx, HK_STATUS_UNSUPPORTED,
                       "input '%s': its shape does not tell what a sample is; export the model with all dimensions "
                       "but the first fixed",
                       g->inputs[0]->name);
    HK_TRY(hk_nir_emit(b, "input", "Input", &sample, g->inputs[0], &flow, &input));
    b->flows[g->inputs[0]->id] = flow;
    return hk_nir_add_tensor(input, "shape", hk_nir_integers(b, 1, sample.dim, sample.rank)) ? HK_OK : no_memory(b);
}

static hk_status end(hk_nir_builder *b)
{
    const hk_value *y = b->g->outputs[0];
    hk_nir_flow flow = b->flows[y->id];
    hk_nir_node *output = NULL;
    if (!flow.count)
        return hk_fail(b->g->ctx, HK_STATUS_UNSUPPORTED, "output '%s' does not depend on the input", y->name);
    HK_TRY(hk_nir_emit(b, "output", "Output", &flow.shape, NULL, &flow, &output));
    return hk_nir_add_tensor(output, "shape", hk_nir_integers(b, 1, flow.shape.dim, flow.shape.rank)) ? HK_OK
                                                                                                      : no_memory(b);
}

static hk_status describe(hk_nir_builder *b)
{
    hk_nir *o = b->out;
    hk_tensor *dt = hk_tensor_new(b->arena, HK_FLOAT64, &HK_SCALAR);
    const hk_tensor *steps = hk_nir_integers(b, 0, &b->steps, 1), *delay = hk_nir_integers(b, 0, &b->delay, 1);
    const hk_tensor *approximate = hk_nir_integers(b, 0, (int64_t[]){b->approximated}, 1);
    if (!dt || !steps || !delay || !approximate)
        return no_memory(b);
    hk_set_double(dt, 0, b->params.dt);
    const hk_nir_field fields[] = {{.name = "dt", .data = dt},
                                   {.name = "steps", .data = steps},
                                   {.name = "reset", .text = b->soft ? "soft" : "hard"},
                                   {.name = "encode", .text = b->encode},
                                   {.name = "readout", .text = b->readout},
                                   {.name = "delay", .data = delay},
                                   {.name = "approximate", .data = approximate}};
    memcpy(o->metadata, fields, sizeof fields);
    o->metadata_count = HK_COUNT(fields);
    return HK_OK;
}

hk_status hk_nir_build(hk_graph *g, const hk_nir_params *params, hk_nir *out)
{
    hk_nir_builder b = {.g = g, .params = *params, .out = out, .arena = g->arena, .encode = "none", .readout = "none"};
    *out = (hk_nir){.arena = g->arena};
    HK_TRY(begin(&b));
    hk_snn_node *verdicts = hk_arena_array(g->arena, g->node_count + 1, sizeof *verdicts);
    if (!verdicts)
        return no_memory(&b);
    for (size_t i = 0; i < g->node_count; i++) {
        const hk_node *n = g->nodes[i];
        b.verdict = &verdicts[i];
        *b.verdict = (hk_snn_node){.node = n->name,
                                   .op = n->type,
                                   .verdict = HK_SNN_PASSES,
                                   .reason = "is no part of the file: constants and arithmetic of shapes",
                                   .spike_only = true};
        HK_TRY(take_node(&b, n));
        if (params->report)
            params->report(params->user, b.verdict);
    }
    HK_TRY(hk_snn_refuse_unsupported(g, verdicts, g->node_count));
    HK_TRY(end(&b));
    return describe(&b);
}
