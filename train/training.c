/* The training step as a graph. */
#include "train/training.h"

#include <string.h>

#include "ops/infer.h"
#include "train/gradient.h"

/* ---- parameters */

hk_status hk_parameters_create(const hk_graph *model, hk_arena *arena, hk_parameters *out)
{
    hk_parameters p = {.list = hk_arena_array(arena, model->value_count + 1, sizeof *p.list)};
    if (!p.list)
        return hk_out_of_memory(model->ctx, "parameters");
    for (size_t i = 0; i < model->value_count; i++) {
        const hk_value *v = model->values[i];
        if (v->kind != HK_VALUE_PARAMETER)
            continue;
        if (v->dtype != HK_FLOAT32)
            return hk_fail(model->ctx, HK_STATUS_UNSUPPORTED,
                           "parameter '%s' is %s: only float32 parameters can be trained", v->name,
                           hk_dtype_name(v->dtype));
        int64_t count = hk_shape_count(&v->shape);
        p.list[p.count++] = (hk_parameter){.source = v, .offset = p.total, .count = count};
        p.total += (count + HK_FLAT_ALIGNMENT - 1) / HK_FLAT_ALIGNMENT * HK_FLAT_ALIGNMENT;
    }
    if (!p.count)
        return hk_fail(model->ctx, HK_STATUS_UNSUPPORTED,
                       "the model has nothing to train: no float initializer is used as a weight");
    hk_tensor *flat = hk_tensor_new(arena, HK_FLOAT32, &(hk_shape){.rank = 1, .dim = {p.total}});
    if (!flat)
        return hk_out_of_memory(model->ctx, "parameters");
    for (size_t i = 0; i < p.count; i++)
        memcpy((float *)flat->data + p.list[i].offset, p.list[i].source->data->data,
               (size_t)p.list[i].count * sizeof(float));
    p.initial = flat;
    *out = p;
    return HK_OK;
}

typedef struct builder {
    hk_graph *g;
    const hk_training *t;
    hk_shape flat;
    hk_state *parameters;
    hk_value **views; /* of each parameter */
} builder;

static hk_status no_memory(const builder *b)
{
    return hk_out_of_memory(b->g->ctx, "a training step");
}

/* Every parameter becomes a view of the flat state, so that one dispatch updates them all. */
static hk_status make_views(builder *b)
{
    const hk_parameters *p = b->t->parameters;
    b->flat = (hk_shape){.rank = 1, .dim = {p->total}};
    b->parameters = hk_graph_state(b->g, HK_STATE_PARAMETERS, HK_FLOAT32, &b->flat, p->initial);
    b->views = hk_arena_array(b->g->arena, p->count, sizeof *b->views);
    if (!b->parameters || !b->views)
        return no_memory(b);
    b->parameters->flat = true;
    for (size_t i = 0; i < p->count; i++) {
        hk_value *v = b->g->values[p->list[i].source->id]; /* a clone keeps ids */
        const hk_attr_value attrs[] = {
            HK_SET_INT("offset", p->list[i].offset), HK_SET_INTS("shape", v->shape.dim, v->shape.rank), {0}};
        HK_TRY(hk_build(b->g, "hk.View", attrs, &b->parameters->first, 1, &b->views[i], 1));
        hk_graph_replace(b->g, v, b->views[i]);
    }
    return HK_OK;
}

/* ---- operators that behave differently in training */

static float float_attr(const hk_node *n, const char *name, float otherwise)
{
    const float *f = hk_node_attr(n, name);
    return f ? *f : otherwise;
}

/* Running statistics become states. Their update follows PyTorch, whose variance is unbiased where ONNX's is not. */
static hk_status train_batchnorm(builder *b, hk_node *n)
{
    hk_graph *g = b->g;
    hk_value *in[5];
    hk_state *states[2];
    for (int32_t i = 0; i < 5; i++)
        in[i] = n->in[i];
    for (int32_t i = 0; i < 2; i++) {
        hk_value *v = n->in[3 + i];
        if (!v->data)
            return hk_fail(g->ctx, HK_STATUS_UNSUPPORTED,
                           "node '%s' (BatchNormalization): its running statistics '%s' are computed", n->name,
                           v->name);
        const char *name = hk_arena_format(g->arena, "%s.running", v->name);
        states[i] = name ? hk_graph_state(g, name, v->dtype, &v->shape, v->data) : NULL;
        if (!states[i])
            return no_memory(b);
        in[3 + i] = states[i]->first;
    }
    const hk_attr_value attrs[] = {HK_SET_FLOAT("epsilon", float_attr(n, "epsilon", 1e-5f)),
                                   HK_SET_FLOAT("momentum", float_attr(n, "momentum", 0.9f)),
                                   HK_SET_INT("training_mode", 1),
                                   HK_SET_INT("hk.unbiased", 1),
                                   {0}};
    hk_value *out[3];
    HK_TRY(hk_build(g, "BatchNormalization", attrs, in, 5, out, 3));
    for (int32_t i = 0; i < 2; i++) {
        states[i]->last = out[1 + i];
        out[1 + i]->state = states[i];
    }
    for (int32_t i = 0; i < n->out_count && i < 3; i++)
        if (n->out[i])
            hk_graph_replace(g, n->out[i], out[i]);
    return HK_OK;
}

static hk_status train_dropout(builder *b, hk_node *n)
{
    hk_graph *g = b->g;
    const float *ratio = hk_node_attr(n, "ratio"); /* an attribute before opset 12 */
    hk_value *in[3] = {n->in[0], hk_in(n, 1), hk_graph_scalar(g, HK_BOOL, 1)};
    if (!in[1])
        in[1] = hk_graph_scalar(g, HK_FLOAT32, ratio ? (double)*ratio : 0.5);
    if (!in[1] || !in[2])
        return no_memory(b);
    hk_value *out[2];
    HK_TRY(hk_build(g, "Dropout", NULL, in, 3, out, n->out_count));
    for (int32_t i = 0; i < n->out_count; i++)
        if (n->out[i])
            hk_graph_replace(g, n->out[i], out[i]);
    return HK_OK;
}

static hk_status switch_to_training(builder *b)
{
    size_t count = b->g->node_count;
    for (size_t i = 0; i < count; i++) {
        hk_node *n = b->g->nodes[i];
        if (!strcmp(n->type, "BatchNormalization") && !b->t->freeze_bn)
            HK_TRY(train_batchnorm(b, n));
        else if (!strcmp(n->type, "Dropout"))
            HK_TRY(train_dropout(b, n));
    }
    return hk_graph_sort(b->g);
}

/* ---- loss, gradients, optimizer */

static hk_status find_logits(const builder *b, hk_value **out)
{
    hk_graph *g = b->g;
    for (size_t i = 0; i < g->output_count; i++)
        if (!b->t->output || !strcmp(g->outputs[i]->name, b->t->output)) {
            *out = g->outputs[i];
            return HK_OK;
        }
    return hk_fail(g->ctx, HK_STATUS_USAGE, "the model has no output '%s' to train", b->t->output ? b->t->output : "");
}

static hk_status pack_gradients(builder *b, hk_value **grads, hk_value **out)
{
    const hk_parameters *p = b->t->parameters;
    hk_graph *g = b->g;
    int64_t *offsets = hk_arena_array(g->arena, p->count, sizeof *offsets);
    if (!offsets)
        return no_memory(b);
    for (size_t i = 0; i < p->count; i++) {
        offsets[i] = p->list[i].offset;
        if (grads[i])
            continue;
        hk_tensor *zeros = hk_tensor_new(g->arena, HK_FLOAT32, &p->list[i].source->shape);
        grads[i] = zeros ? hk_graph_constant(g, "no_gradient", zeros) : NULL;
        if (!grads[i])
            return no_memory(b);
    }
    const hk_attr_value attrs[] = {
        HK_SET_INTS("offsets", offsets, (int32_t)p->count), HK_SET_INT("total", p->total), {0}};
    HK_TRY(hk_build(g, "hk.Pack", attrs, grads, (int32_t)p->count, out, 1));
    hk_state *s = hk_graph_state(g, HK_STATE_GRADIENTS, HK_FLOAT32, &b->flat, NULL);
    if (!s)
        return no_memory(b);
    s->flat = true;
    s->last = *out;
    (*out)->state = s;
    return HK_OK;
}

static hk_status accumulate(builder *b, hk_value **gradient)
{
    hk_state *s = hk_graph_state(b->g, HK_STATE_ACCUMULATED, HK_FLOAT32, &b->flat, NULL);
    hk_value *step = hk_graph_step(b->g);
    if (!s || !step)
        return no_memory(b);
    s->flat = true;
    HK_TRY(hk_build(b->g, "hk.AccumulateGradient", NULL, (hk_value *[]){s->first, *gradient, step}, 3, gradient, 1));
    s->last = *gradient;
    s->last->state = s;
    return HK_OK;
}

static hk_status update(builder *b, hk_value *gradient)
{
    const hk_training *t = b->t;
    hk_state *m = hk_graph_state(b->g, HK_STATE_MOMENT1, HK_FLOAT32, &b->flat, NULL);
    hk_state *v = hk_graph_state(b->g, HK_STATE_MOMENT2, HK_FLOAT32, &b->flat, NULL);
    hk_value *step = hk_graph_step(b->g);
    if (!m || !v || !step)
        return no_memory(b);
    const hk_attr_value attrs[] = {HK_SET_FLOAT("beta1", t->beta1),
                                   HK_SET_FLOAT("beta2", t->beta2),
                                   HK_SET_FLOAT("eps", t->eps),
                                   HK_SET_FLOAT("weight_decay", t->weight_decay),
                                   {0}};
    hk_value *in[] = {b->parameters->first, gradient, m->first, v->first, step}, *out[3];
    HK_TRY(hk_build(b->g, "hk.AdamW", attrs, in, 5, out, 3));
    hk_state *states[] = {b->parameters, m, v};
    for (int i = 0; i < 3; i++) {
        states[i]->flat = true;
        states[i]->last = out[i];
        out[i]->state = states[i];
    }
    return HK_OK;
}

hk_status hk_make_training(hk_graph *g, const hk_training *t, const hk_tensor *labels)
{
    builder b = {.g = g, .t = t};
    hk_value *logits = NULL, *loss = NULL, *gradient = NULL;
    HK_TRY(make_views(&b)); /* before inference, which would fold what is computed from parameters */
    HK_TRY(hk_infer_graph(g));
    HK_TRY(switch_to_training(&b));
    HK_TRY(hk_fuse_batchnorm(g));
    HK_TRY(find_logits(&b, &logits));
    hk_shape shape = hk_tensor_shape(labels);
    hk_value *target = hk_graph_value(g, "labels", HK_VALUE_INPUT, labels->dtype, &shape);
    if (!target || !hk_graph_add_input(g, target))
        return no_memory(&b);
    HK_TRY(hk_build(g, "hk.CrossEntropy", NULL, (hk_value *[]){logits, target}, 2, &loss, 1));
    g->output_count = 0;
    if (!hk_graph_add_output(g, loss))
        return no_memory(&b);
    hk_value **grads = hk_arena_array(g->arena, t->parameters->count, sizeof *grads);
    if (!grads)
        return no_memory(&b);
    HK_TRY(hk_differentiate(g, loss, b.views, t->parameters->count, grads));
    HK_TRY(pack_gradients(&b, grads, &gradient));
    if (t->accumulate)
        HK_TRY(accumulate(&b, &gradient));
    return t->update ? update(&b, gradient) : HK_OK;
}
