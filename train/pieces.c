/* The step in pieces: graphs of passes, loss and update. */
#include <string.h>

#include "ops/infer.h"
#include "train/gradient.h"
#include "train/training.h"

static hk_status no_memory(hk_context *ctx)
{
    return hk_out_of_memory(ctx, "a piece of a step");
}

static hk_value *add_input(hk_graph *g, const char *name, hk_dtype dtype, const hk_shape *shape)
{
    hk_value *v = hk_graph_value(g, name, HK_VALUE_INPUT, dtype, shape);
    return v && hk_graph_add_input(g, v) ? v : NULL;
}

/* The number of that output, which is made one if it is none. */
static hk_status output_number(hk_graph *g, hk_value *v, size_t *number)
{
    for (*number = 0; *number < g->output_count; ++*number)
        if (g->outputs[*number] == v)
            return HK_OK;
    return hk_graph_add_output(g, v) ? HK_OK : no_memory(g->ctx);
}

static hk_status infer_between(hk_infer *in)
{
    return hk_infer_output(in, 0, in->node->in[0]->dtype, &in->node->in[0]->shape);
}

static const hk_op between_passes = {.type = HK_BETWEEN_PASSES,
                                     .since = 1,
                                     .in_min = 1,
                                     .in_max = -1,
                                     .out_min = 1,
                                     .out_max = 1,
                                     .flags = HK_OP_KEEP | HK_OP_RANDOM, /* never folded, merged or moved */
                                     .infer = infer_between};

/* In a whole step the gradient depends on the outputs through the loss. Here it comes from outside, and without this
 * node a chain of elementwise operators could mix both passes. */
static hk_status add_upstream(hk_graph *g, const hk_value *output, hk_value **out)
{
    size_t count = g->output_count;
    hk_value *given = add_input(g, "hk.upstream", output->dtype, &output->shape);
    hk_value **in = hk_arena_array(g->arena, count + 1, sizeof *in);
    if (!given || !in)
        return no_memory(g->ctx);
    in[0] = given;
    memcpy(in + 1, g->outputs, count * sizeof *in);
    hk_node *n = hk_graph_node(g, NULL, HK_BETWEEN_PASSES, &between_passes, NULL, in, (int32_t)count + 1, 1);
    if (!n)
        return no_memory(g->ctx);
    *out = n->out[0];
    return hk_node_infer(g, n);
}

hk_status hk_make_passes(hk_graph *g, const hk_training *given, bool evaluation, size_t *prediction)
{
    hk_training t = *given;
    hk_step_builder b;
    hk_value *output = NULL, *gradient = NULL;
    hk_value **grads = hk_arena_array(g->arena, t.parameters->count, sizeof *grads);
    if (!grads)
        return no_memory(g->ctx);
    t.accumulate = true; /* until the caller zeroes them */
    HK_TRY(hk_step_begin(&b, g, &t));
    if (evaluation)
        HK_TRY(hk_step_use_statistics(g));
    HK_TRY(hk_step_infer(&b));
    HK_TRY(hk_step_train(&b, evaluation));
    HK_TRY(hk_step_find_output(g, &t, &output));
    b.output = output->name;
    output = hk_loss_input(&t.loss, output);
    HK_TRY(output_number(g, output, prediction));
    hk_value *upstream = NULL;
    size_t forward = g->node_count;
    HK_TRY(hk_graph_sort(g)); /* as differentiation does: the upstream gradient's node stays behind the forward pass */
    HK_TRY(add_upstream(g, output, &upstream));
    HK_TRY(hk_differentiate_from(g, output, upstream, b.views, t.parameters->count, grads));
    HK_TRY(hk_recompute(g, forward, t.checkpointing));
    return hk_step_gather(&b, grads, &gradient);
}

/* ---- the loss. Its input has the output's name, for messages. */

static hk_status fill_loss(hk_graph *g, const hk_training *t, const hk_value *output, const hk_shape *input,
                           const hk_tensor *labels, bool gradient)
{
    hk_step_builder b = {.g = g, .t = t};
    hk_shape shape = hk_tensor_shape(labels);
    hk_value *x = add_input(g, output->name, output->dtype, input), *loss = NULL, *root = NULL;
    hk_value *target = add_input(g, "labels", labels->dtype, &shape), *dx = NULL;
    g->device_inputs = 1;
    if (!x || !target)
        return no_memory(g->ctx);
    if (!hk_loss_fits(&t->loss, output, x, target))
        return hk_fail(g->ctx, HK_STATUS_USAGE,
                       "the softmax of output '%s' is not over the classes of these labels: end the model without it",
                       output->name);
    HK_TRY(hk_step_loss(&b, x, target, &loss, &root));
    if (!gradient) {
        g->device_outputs = 1;
        return hk_graph_add_output(g, loss) && hk_graph_add_output(g, target) ? HK_OK : no_memory(g->ctx);
    }
    hk_value *upstream = add_input(g, "hk.upstream", root->dtype, &root->shape);
    g->device_inputs = 2;
    g->device_outputs = 1;
    if (!upstream)
        return no_memory(g->ctx);
    HK_TRY(hk_differentiate_from(g, root, upstream, &x, 1, &dx));
    if (b.valid)
        HK_TRY(hk_step_accumulate(&b, HK_STATE_VALID, &b.valid));
    if (!dx)
        return hk_fail(g->ctx, HK_STATUS_UNSUPPORTED, "no gradient of the loss reaches output '%s'", output->name);
    return hk_graph_add_output(g, dx) ? HK_OK : no_memory(g->ctx);
}

hk_status hk_make_loss(hk_context *ctx, const hk_training *t, const hk_value *output, const hk_shape *input,
                       const hk_tensor *labels, bool gradient, hk_graph **out)
{
    hk_graph *g = NULL;
    HK_TRY(hk_graph_create(ctx, "loss", &g));
    hk_status st = fill_loss(g, t, output, input, labels, gradient);
    if (st == HK_OK)
        *out = g;
    else
        hk_graph_destroy(&g);
    return st;
}

static hk_status fill_tail(hk_graph *g, const hk_node *last, const hk_shape *shape)
{
    hk_value *x = add_input(g, "prediction", HK_FLOAT32, shape), *dx = NULL;
    hk_value *upstream = add_input(g, "hk.upstream", HK_FLOAT32, shape);
    g->device_inputs = g->device_outputs = 1;
    hk_node *n = x && upstream ? hk_graph_node(g, last->name, last->type, last->op, last->attrs, &x, 1, 1) : NULL;
    if (!n)
        return no_memory(g->ctx);
    n->opset = last->opset;
    HK_TRY(hk_node_infer(g, n));
    HK_TRY(hk_differentiate_from(g, n->out[0], upstream, &x, 1, &dx));
    return dx && hk_graph_add_output(g, dx) ? HK_OK : no_memory(g->ctx);
}

hk_status hk_make_tail(const hk_graph *model, const hk_training *t, const hk_shape *shape, hk_graph **out)
{
    hk_graph *g = NULL;
    hk_value *output = NULL;
    HK_TRY(hk_step_find_output(model, t, &output));
    HK_TRY(hk_graph_create(model->ctx, "tail", &g));
    hk_status st = fill_tail(g, output->producer, shape);
    if (st == HK_OK)
        *out = g;
    else
        hk_graph_destroy(&g);
    return st;
}

/* ---- the update */

static hk_status fill_update(hk_graph *g, const hk_training *t)
{
    const hk_shape flat = {.rank = 1, .dim = {t->parameters->total}}, scalar = {.rank = 0};
    hk_state *p = hk_graph_state(g, HK_STATE_PARAMETERS, HK_FLOAT32, &flat, t->parameters->initial);
    hk_state *s = hk_graph_state(g, HK_STATE_ACCUMULATED, HK_FLOAT32, &flat, NULL);
    hk_state *valid = t->total ? hk_graph_state(g, HK_STATE_VALID, HK_FLOAT32, &scalar, NULL) : NULL;
    if (!p || !s || (t->total && !valid))
        return no_memory(g->ctx);
    p->flat = s->flat = true;
    return hk_append_update(g, t, p, s->first, valid ? valid->first : NULL);
}

hk_status hk_make_update(hk_context *ctx, const hk_training *t, hk_graph **out)
{
    hk_graph *g = NULL;
    HK_TRY(hk_graph_create(ctx, "update", &g));
    hk_status st = fill_update(g, t);
    if (st == HK_OK)
        *out = g;
    else
        hk_graph_destroy(&g);
    return st;
}
