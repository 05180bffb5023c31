/* The training step as a graph. */
#include "train/training.h"

#include <string.h>

#include "ops/infer.h"
#include "ops/step.h"
#include "ops/support/membrane.h"
#include "train/gradient.h"

typedef hk_step_builder builder;

static hk_status no_memory(const builder *b)
{
    return hk_out_of_memory(b->g->ctx, "a training step");
}

/* Every parameter becomes a view of the flat state, so that one dispatch updates them all. */
static hk_status make_views(hk_graph *g, const hk_parameters *p, const char *name, hk_state **state, hk_value **views)
{
    const hk_shape flat = {.rank = 1, .dim = {p->total}};
    HK_TRY(hk_widen_halves(g));
    hk_state *s = hk_graph_state(g, name, HK_FLOAT32, &flat, p->initial);
    if (!s)
        return hk_out_of_memory(g->ctx, "a training step");
    s->flat = true;
    for (size_t i = 0; i < p->count; i++) {
        hk_value *v = g->values[p->list[i].source->id]; /* a clone keeps ids */
        const hk_attr_value attrs[] = {
            HK_SET_INT("offset", p->list[i].offset), HK_SET_INTS("shape", v->shape.dim, v->shape.rank), {0}};
        HK_TRY(hk_build(g, "hk.View", attrs, &s->first, 1, &views[i], 1));
        hk_graph_replace(g, v, views[i]);
    }
    *state = s;
    return HK_OK;
}

/* ---- operators that behave differently in training */

static float float_attr(const hk_node *n, const char *name, float otherwise)
{
    const float *f = hk_node_attr(n, name);
    return f ? *f : otherwise;
}

/* Running statistics become states. */
static hk_status running_states(hk_graph *g, const hk_node *n, hk_state *states[2])
{
    for (int32_t i = 0; i < 2; i++) {
        hk_value *v = n->in[3 + i];
        if (!v->data)
            return hk_fail(g->ctx, HK_STATUS_UNSUPPORTED,
                           "node '%s' (BatchNormalization): its running statistics '%s' are computed", n->name,
                           v->name);
        const char *name = hk_arena_format(g->arena, "%s.running", v->name);
        states[i] = name ? hk_graph_state(g, name, v->dtype, &v->shape, v->data) : NULL;
        if (!states[i])
            return hk_out_of_memory(g->ctx, "running statistics");
    }
    return HK_OK;
}

/* The update of running statistics follows PyTorch, whose variance is unbiased where ONNX's is not. */
static hk_status train_batchnorm(builder *b, hk_node *n)
{
    hk_graph *g = b->g;
    hk_state *states[2];
    HK_TRY(running_states(g, n, states));
    hk_value *in[] = {n->in[0], n->in[1], n->in[2], states[0]->first, states[1]->first}, *out[3];
    const hk_attr_value attrs[] = {HK_SET_FLOAT("epsilon", float_attr(n, "epsilon", 1e-5f)),
                                   HK_SET_FLOAT("momentum", float_attr(n, "momentum", 0.9f)),
                                   HK_SET_INT("training_mode", 1),
                                   HK_SET_INT("hk.unbiased", 1),
                                   {0}};
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

hk_status hk_step_train(hk_step_builder *b, bool evaluation)
{
    size_t count = evaluation ? 0 : b->g->node_count;
    for (size_t i = 0; i < count; i++) {
        hk_node *n = b->g->nodes[i];
        if (!strcmp(n->type, "BatchNormalization") && !b->t->freeze_bn)
            HK_TRY(train_batchnorm(b, n));
        else if (!strcmp(n->type, "Dropout"))
            HK_TRY(train_dropout(b, n));
    }
    HK_TRY(hk_graph_sort(b->g));
    HK_TRY(hk_fuse_batchnorm(b->g));
    return b->t->simplify ? b->t->simplify(b->g, b->t->user) : HK_OK;
}

/* ---- loss, gradients, optimizer */

hk_status hk_step_find_output(const hk_graph *g, const hk_training *t, hk_value **out)
{
    for (size_t i = 0; i < g->output_count; i++)
        if (!t->output || !strcmp(g->outputs[i]->name, t->output)) {
            *out = g->outputs[i];
            return HK_OK;
        }
    return hk_fail(g->ctx, HK_STATUS_USAGE, "the model has no output '%s' to train", t->output ? t->output : "");
}

static hk_status check_reached(const builder *b, hk_value *const *grads)
{
    const hk_parameters *p = b->t->parameters;
    const hk_parameter *first = NULL;
    size_t unreached = 0;
    for (size_t i = 0; i < p->count; i++) {
        unreached += !grads[i];
        first = first || grads[i] ? first : &p->list[i];
    }
    if (!first || b->t->allow_unreached)
        return HK_OK;
    return hk_fail(b->g->ctx, HK_STATUS_USAGE,
                   "no gradient reaches parameter '%s' (the first of %zu): output '%s' does not depend on it, or only "
                   "through integers and decisions. Freeze it, train another output, or allow unreached parameters",
                   first->source->name, unreached, b->output);
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

/* The sum over the micro-batches so far, kept in a state. */
hk_status hk_step_accumulate(hk_step_builder *b, const char *name, hk_value **x)
{
    hk_state *s = hk_graph_state(b->g, name, HK_FLOAT32, &(*x)->shape, NULL);
    hk_value *step = hk_graph_step(b->g);
    if (!s || !step)
        return no_memory(b);
    s->flat = (*x)->shape.rank == 1;
    HK_TRY(hk_build(b->g, "hk.AccumulateGradient", NULL, (hk_value *[]){s->first, *x, step}, 3, x, 1));
    s->last = *x;
    s->last->state = s;
    return HK_OK;
}

/* What is differentiated is the loss, the sum of the losses when micro-batches are divided by their total, or a
 * multiple of it that 16-bit gradients can hold. */
hk_status hk_step_loss(hk_step_builder *b, hk_value *prediction, hk_value *target, hk_value **shown, hk_value **root)
{
    hk_graph *g = b->g;
    hk_loss_options o = b->t->loss;
    if (b->t->total)
        o.reduction = HK_REDUCE_SUM;
    HK_TRY(hk_append_loss(g, &o, prediction, target, root, b->t->total ? &b->valid : NULL));
    *shown = *root;
    if (b->t->total) /* what is shown is the micro-batch's mean all the same */
        HK_TRY(hk_build(g, "Div", NULL, (hk_value *[]){*root, b->valid}, 2, shown, 1));
    if (b->t->loss_scale <= 0)
        return HK_OK;
    hk_state *control = hk_control_state(g, b->t);
    if (!control)
        return no_memory(b);
    const hk_attr_value attrs[] = {HK_SET_INT("offset", HK_CONTROL_LOSS_SCALE), HK_SET_INTS("shape", NULL, 0), {0}};
    hk_value *scale = NULL;
    HK_TRY(hk_build(g, "hk.View", attrs, &control->first, 1, &scale, 1));
    return hk_build(g, "Mul", NULL, (hk_value *[]){*root, scale}, 2, root, 1);
}

/* The loss becomes the graph's only output. */
static hk_status append_loss(builder *b, const hk_tensor *labels, hk_value **root)
{
    hk_graph *g = b->g;
    hk_value *logits = NULL, *loss = NULL;
    HK_TRY(hk_step_find_output(g, b->t, &logits));
    b->output = logits->name;
    hk_shape shape = hk_tensor_shape(labels);
    hk_value *target = hk_graph_value(g, "labels", HK_VALUE_INPUT, labels->dtype, &shape);
    if (!target || !hk_graph_add_input(g, target))
        return no_memory(b);
    HK_TRY(hk_step_loss(b, logits, target, &loss, root));
    g->output_count = 0;
    return hk_graph_add_output(g, loss) ? HK_OK : no_memory(b);
}

hk_status hk_step_begin(hk_step_builder *b, hk_graph *g, const hk_training *t)
{
    *b = (builder){.g = g, .t = t, .flat = {.rank = 1, .dim = {t->parameters->total}}};
    b->views = hk_arena_array(g->arena, t->parameters->count, sizeof *b->views);
    if (!b->views)
        return no_memory(b);
    return make_views(g, t->parameters, HK_STATE_PARAMETERS, &b->parameters, b->views);
}

hk_status hk_step_infer(hk_step_builder *b)
{
    HK_TRY(hk_infer_graph(b->g));
    return hk_join_membranes(b->g, b->t->keep_membranes ? HK_MEMBRANES_RECALLED : HK_MEMBRANES_FRESH);
}

hk_status hk_step_gather(hk_step_builder *b, hk_value **grads, hk_value **gradient)
{
    HK_TRY(check_reached(b, grads));
    HK_TRY(pack_gradients(b, grads, gradient));
    return b->t->accumulate ? hk_step_accumulate(b, HK_STATE_ACCUMULATED, gradient) : HK_OK;
}

hk_status hk_make_training(hk_graph *g, const hk_training *t, const hk_tensor *labels)
{
    builder b;
    hk_value *root = NULL, *gradient = NULL;
    hk_value **grads = hk_arena_array(g->arena, t->parameters->count, sizeof *grads);
    if (!grads)
        return hk_out_of_memory(g->ctx, "a training step");
    HK_TRY(hk_step_begin(&b, g, t)); /* before inference, which would fold them */
    HK_TRY(hk_step_infer(&b));
    HK_TRY(hk_step_train(&b, false));
    HK_TRY(append_loss(&b, labels, &root));
    size_t forward = g->node_count;
    HK_TRY(hk_differentiate(g, root, b.views, t->parameters->count, grads));
    HK_TRY(hk_recompute(g, forward, t->checkpointing));
    HK_TRY(hk_step_gather(&b, grads, &gradient));
    if (t->accumulate && b.valid)
        HK_TRY(hk_step_accumulate(&b, HK_STATE_VALID, &b.valid));
    return t->update ? hk_append_update(g, t, b.parameters, gradient, b.valid) : HK_OK;
}

/* ---- evaluation */

hk_status hk_step_use_statistics(hk_graph *g)
{
    for (size_t i = 0; i < g->node_count; i++) {
        hk_node *n = g->nodes[i];
        hk_state *states[2];
        if (strcmp(n->type, "BatchNormalization") != 0 || !n->in[3]->data || !n->in[4]->data)
            continue;
        HK_TRY(running_states(g, n, states));
        n->in[3] = states[0]->first;
        n->in[4] = states[1]->first;
    }
    return HK_OK;
}

hk_status hk_make_evaluation(hk_graph *g, const hk_training *t, const char *state)
{
    const hk_parameters *p = t->parameters;
    hk_state *parameters = NULL;
    hk_value **views = hk_arena_array(g->arena, p->count, sizeof *views);
    if (!views)
        return hk_out_of_memory(g->ctx, "an evaluation");
    HK_TRY(make_views(g, p, state, &parameters, views));
    HK_TRY(hk_step_use_statistics(g));
    HK_TRY(hk_infer_graph(g));
    return hk_join_membranes(g, t->keep_membranes ? HK_MEMBRANES_KEPT : HK_MEMBRANES_FRESH);
}
