/* The step in pieces: forward, loss, backward and update as recordings of their own over the trainer's states. */
#include <string.h>

#include "ops/step.h"
#include "runtime/trainer.h"
#include "snn/convert.h"

void hk_trainer_set_mode(hk_trainer *t, hk_mode mode)
{
    t->pieces.mode = mode;
}

/* Plans g, which it takes over, unless the recording is there. */
static hk_status record(hk_trainer *t, hk_graph *g, hk_exec **exec)
{
    hk_status st = hk_run_passes(g, &t->passes);
    if (st != HK_OK) {
        hk_graph_destroy(&g);
        return st;
    }
    return hk_exec_create(t->env, g, exec);
}

static hk_status run(hk_trainer *t, hk_exec *exec, const hk_feed *feeds, size_t count)
{
    uint64_t ticket = 0;
    HK_TRY(hk_trainer_run(t, exec, feeds, count, &ticket));
    t->last = exec;
    t->last_ticket = ticket;
    return HK_OK;
}

/* ---- forward */

static hk_status make_passes(hk_trainer *t, const hk_tensor *inputs, bool evaluation, hk_graph **out)
{
    hk_graph *g = NULL;
    HK_TRY(hk_graph_clone(hk_model_graph(t->model), &g));
    for (size_t i = 0; i < g->input_count; i++)
        g->inputs[i]->shape = hk_tensor_shape(&inputs[i]);
    hk_status st = hk_make_passes(g, &t->training, evaluation, &t->pieces.prediction);
    if (st == HK_OK)
        st = hk_run_passes(g, &t->passes);
    if (st == HK_OK)
        *out = g;
    else
        hk_graph_destroy(&g);
    return st;
}

static hk_status find_passes(hk_trainer *t, const hk_tensor *inputs, size_t count, hk_trainer_recording pass,
                             hk_trainer_plan **out)
{
    hk_trainer_plan *plan = NULL;
    hk_graph *parts[2] = {NULL, NULL};
    bool evaluation = pass == HK_RECORD_FORWARD_EVALUATION;
    HK_TRY(hk_trainer_find_plan(t, inputs, count, NULL, &plan));
    plan->used = ++t->uses;
    *out = plan;
    if (plan->exec[pass] && plan->exec[pass + 1])
        return HK_OK;
    HK_TRY(make_passes(t, inputs, evaluation, &plan->cut[evaluation]));
    hk_status st = hk_cut_passes(plan->cut[evaluation], &parts[0], &parts[1]);
    for (int i = 0; i < 2 && st == HK_OK; i++) {
        st = hk_exec_create(t->env, parts[i], &plan->exec[(int)pass + i]);
        parts[i] = NULL;
    }
    for (int i = 0; i < 2; i++) {
        if (st != HK_OK)
            hk_exec_destroy(&plan->exec[(int)pass + i]);
        hk_graph_destroy(&parts[i]);
    }
    if (st != HK_OK)
        hk_graph_destroy(&plan->cut[evaluation]);
    return st;
}

hk_status hk_trainer_forward(hk_trainer *t, const hk_tensor *inputs, size_t input_count)
{
    bool evaluation = t->pieces.mode == HK_MODE_EVALUATE;
    hk_trainer_recording pass = evaluation ? HK_RECORD_FORWARD_EVALUATION : HK_RECORD_FORWARD;
    hk_trainer_plan *plan = NULL;
    hk_feed *feeds = NULL;
    HK_TRY(hk_trainer_check_inputs(t, inputs, input_count));
    HK_TRY(find_passes(t, inputs, input_count, pass, &plan));
    feeds = hk_alloc_array(t->ctx, input_count + 1, sizeof *feeds);
    if (!feeds)
        return hk_out_of_memory(t->ctx, "a forward pass");
    for (size_t i = 0; i < input_count; i++)
        feeds[i].host = &inputs[i];
    t->step.step = (uint32_t)t->micro;
    hk_status st = run(t, plan->exec[pass], feeds, input_count);
    hk_free(t->ctx, feeds);
    HK_TRY(st);
    t->evaluated = plan->exec[pass];
    t->evaluated_ticket = t->last_ticket;
    t->pieces.forward = plan;
    t->pieces.pass = pass;
    t->pieces.step = t->step.step;
    t->pieces.loss = NULL;
    t->micro += !evaluation;
    return HK_OK;
}

/* ---- the loss */

static hk_status no_forward(const hk_trainer *t)
{
    return hk_fail(t->ctx, HK_STATUS_USAGE,
                   "there is no forward pass to go on from: hk_trainer_forward comes first, and one pass at a time");
}

/* The output of the last forward pass that the loss takes. */
static const hk_value *prediction(const hk_trainer *t, hk_feed *feed)
{
    const hk_exec *e = t->pieces.forward->exec[t->pieces.pass];
    *feed = hk_exec_output(e, t->pieces.prediction);
    return hk_exec_plan(e)->graph->outputs[t->pieces.prediction];
}

static hk_tensor like(const hk_value *v)
{
    hk_tensor t = {.dtype = v->dtype, .rank = v->shape.rank};
    memcpy(t.shape, v->shape.dim, sizeof t.shape);
    return t;
}

/* A recording of a loss: of the prediction's and the labels' shapes. */
static hk_status find_loss(hk_trainer *t, const hk_value *v, const hk_tensor *labels, hk_reduce reduction,
                           hk_trainer_recording what, hk_trainer_plan *plan)
{
    hk_training training = t->training;
    hk_value *output = NULL;
    hk_graph *g = NULL;
    if (plan->exec[what])
        return HK_OK;
    training.loss.reduction = reduction;
    HK_TRY(hk_step_find_output(hk_model_graph(t->model), &t->training, &output));
    HK_TRY(hk_make_loss(t->ctx, &training, output, &v->shape, labels, what >= HK_RECORD_LOSS_GRADIENT, &g));
    return record(t, g, &plan->exec[what]);
}

static hk_status read_loss(hk_trainer *t, hk_exec *exec, hk_tensor *loss)
{
    const hk_value *v = hk_exec_plan(exec)->graph->outputs[0];
    bool made = false;
    HK_TRY(hk_exec_wait(exec, t->last_ticket));
    HK_TRY(hk_fill_output(t->ctx, "the loss", v->dtype, &v->shape, loss, &made));
    hk_status st = hk_exec_read(exec, t->last_ticket, 0, loss->data);
    if (st != HK_OK && made)
        hk_tensor_release(loss);
    return st;
}

hk_status hk_trainer_loss(hk_trainer *t, const hk_tensor *labels, hk_reduce reduction, hk_tensor *loss)
{
    hk_trainer_plan *plan = NULL;
    hk_feed feeds[2] = {{0}};
    if (!t->pieces.forward)
        return no_forward(t);
    HK_TRY(hk_trainer_check_labels(t, labels));
    if ((unsigned)reduction > HK_REDUCE_NONE || (t->params.accumulate_total && reduction))
        return hk_fail(t->ctx, HK_STATUS_USAGE,
                       "reduction %d does not exist, or this trainer sums losses and divides by their total",
                       (int)reduction);
    reduction = reduction ? reduction : t->params.reduction;
    hk_trainer_recording what = (hk_trainer_recording)(HK_RECORD_LOSS + (int)reduction);
    const hk_value *v = prediction(t, &feeds[0]);
    hk_tensor shape = like(v);
    feeds[1].host = labels;
    HK_TRY(hk_trainer_find_plan(t, &shape, 1, labels, &plan));
    plan->used = ++t->uses;
    HK_TRY(find_loss(t, v, labels, reduction, what, plan));
    t->step.step = t->pieces.step;
    HK_TRY(run(t, plan->exec[what], feeds, 2));
    t->pieces.loss = plan;
    t->pieces.reduction = what;
    return loss ? read_loss(t, plan->exec[what], loss) : HK_OK;
}

/* ---- backward */

static hk_status check_upstream(const hk_trainer *t, const hk_tensor *given, const hk_shape *want, const char *of)
{
    hk_shape shape = hk_tensor_shape(given);
    hk_shape_text a, b;
    if (given->data && given->dtype == HK_FLOAT32 && hk_shape_equal(&shape, want))
        return HK_OK;
    return hk_fail(t->ctx, HK_STATUS_USAGE, "the gradient of the %s is %s %s, expected float32 %s", of,
                   hk_dtype_name(given->dtype), hk_shape_print(&shape, &a), hk_shape_print(want, &b));
}

/* factor times x, or times ones, in the arena. */
static hk_tensor *multiple(hk_arena *arena, const hk_tensor *x, const hk_shape *shape, float factor)
{
    hk_tensor *y = hk_tensor_new(arena, HK_FLOAT32, shape);
    if (!y)
        return NULL;
    if (x)
        hk_tensor_pack(x, y->data);
    for (int64_t i = 0; i < hk_shape_count(shape); i++)
        ((float *)y->data)[i] = x ? factor * ((float *)y->data)[i] : factor;
    return y;
}

/* Whether x, of shape (N,...), can be the gradient of the mean over time of an output (T,N,...) of a spiking network.
 */
static bool of_mean(const hk_trainer *t, const hk_tensor *x, const hk_shape *output)
{
    int64_t steps = hk_snn_describe(hk_model_graph(t->model)).steps;
    bool fits = steps > 0 && x->data && x->dtype == HK_FLOAT32 && output->rank == x->rank + 1 &&
                output->dim[0] == steps;
    for (int32_t d = 0; fits && d < x->rank; d++)
        fits = x->shape[d] == output->dim[d + 1];
    return fits;
}

/* The chain rule of the mean: a T-th of x in every step. */
static hk_tensor *at_each_step(hk_arena *arena, const hk_tensor *x, const hk_shape *output, float scale)
{
    hk_tensor *y = hk_tensor_new(arena, HK_FLOAT32, output);
    int64_t each = hk_tensor_count(x), steps = output->dim[0];
    if (!y)
        return NULL;
    hk_tensor_pack(x, y->data);
    float *to = y->data;
    for (int64_t i = 0; i < each; i++)
        to[i] = scale * to[i] / (float)steps;
    for (int64_t s = 1; s < steps; s++)
        memcpy(to + s * each, to, (size_t)each * sizeof *to);
    return y;
}

/* The second half of the passes, given the gradient of the prediction. */
static hk_status go_back(hk_trainer *t, hk_feed gradient)
{
    hk_exec *first = t->pieces.forward->exec[t->pieces.pass], *second = t->pieces.forward->exec[t->pieces.pass + 1];
    const hk_graph *g = hk_exec_plan(first)->graph;
    hk_feed *feeds = hk_alloc_array(t->ctx, g->device_outputs + 1, sizeof *feeds);
    if (!feeds)
        return hk_out_of_memory(t->ctx, "a backward pass");
    for (size_t i = 0; i < g->device_outputs; i++)
        feeds[i] = hk_exec_output(first, g->output_count - g->device_outputs + i);
    feeds[g->device_outputs] = gradient;
    t->step.step = t->pieces.step;
    t->step.accumulate = t->pieces.unsettled ? 1.0f : 0.0f;
    hk_status st = run(t, second, feeds, g->device_outputs + 1);
    hk_free(t->ctx, feeds);
    if (st == HK_OK)
        t->pieces.summed = t->pieces.unsettled = true;
    return st;
}

hk_status hk_trainer_backward(hk_trainer *t, const hk_tensor *upstream)
{
    hk_trainer_plan *plan = t->pieces.loss;
    if (!t->pieces.forward)
        return no_forward(t);
    if (!plan)
        return hk_fail(t->ctx, HK_STATUS_USAGE,
                       "there is no loss of the last forward pass: call hk_trainer_loss, or give "
                       "hk_trainer_backward_output the gradient of the output");
    hk_feed feeds[3] = {{0}};
    hk_exec *loss = plan->exec[t->pieces.reduction];
    const hk_graph *g = hk_exec_plan(loss)->graph;
    hk_reduce reduction = (hk_reduce)(t->pieces.reduction - HK_RECORD_LOSS);
    hk_trainer_recording what = (hk_trainer_recording)(HK_RECORD_LOSS_GRADIENT + (int)reduction);
    if (upstream)
        HK_TRY(check_upstream(t, upstream, &g->outputs[0]->shape, "loss"));
    hk_tensor labels = like(g->outputs[1]);
    HK_TRY(find_loss(t, prediction(t, &feeds[0]), &labels, reduction, what, plan));
    feeds[1] = hk_exec_output(loss, 1);
    hk_arena *arena = hk_arena_create(t->ctx);
    hk_tensor *ones = arena ? multiple(arena, upstream, &g->outputs[0]->shape, 1) : NULL;
    hk_status st = ones ? HK_OK : hk_out_of_memory(t->ctx, "a backward pass");
    feeds[2].host = ones;
    t->step.accumulate = t->pieces.unsettled ? 1.0f : 0.0f; /* of the count of valid labels */
    if (st == HK_OK)
        st = run(t, plan->exec[what], feeds, 3);
    hk_arena_destroy(&arena);
    return st == HK_OK ? go_back(t, hk_exec_output(plan->exec[what], 0)) : st;
}

/* The loss takes what the output is made of: one operator back. */
static hk_status run_tail(hk_trainer *t, const hk_tensor *gradient, hk_feed *out)
{
    hk_trainer_plan *plan = t->pieces.forward;
    hk_feed feeds[2] = {{0}};
    hk_graph *g = NULL;
    const hk_value *v = prediction(t, &feeds[0]);
    if (!plan->exec[HK_RECORD_TAIL]) {
        HK_TRY(hk_make_tail(hk_model_graph(t->model), &t->training, &v->shape, &g));
        HK_TRY(record(t, g, &plan->exec[HK_RECORD_TAIL]));
    }
    feeds[1].host = gradient;
    HK_TRY(run(t, plan->exec[HK_RECORD_TAIL], feeds, 2));
    *out = hk_exec_output(plan->exec[HK_RECORD_TAIL], 0);
    return HK_OK;
}

hk_status hk_trainer_backward_output(hk_trainer *t, const hk_tensor *gradient)
{
    hk_feed feed = {0};
    float scale = 1;
    if (!t->pieces.forward)
        return no_forward(t);
    if (t->params.accumulate_total)
        return hk_fail(t->ctx, HK_STATUS_USAGE,
                       "this trainer divides by the total of valid labels, which only its own "
                       "loss counts: call hk_trainer_loss and hk_trainer_backward");
    const hk_shape *shape = &prediction(t, &feed)->shape;
    bool spread = of_mean(t, gradient, shape);
    if (!spread)
        HK_TRY(check_upstream(t, gradient, shape, "output"));
    if (t->params.loss_scale > 0 && hk_env_state(t->env, HK_STATE_CONTROL))
        HK_TRY(hk_trainer_state(t, HK_STATE_CONTROL, HK_CONTROL_LOSS_SCALE, &scale, 1));
    else if (t->params.loss_scale > 0)
        scale = t->params.loss_scale;
    hk_arena *arena = hk_arena_create(t->ctx);
    feed = (hk_feed){.host = !arena   ? NULL
                             : spread ? at_each_step(arena, gradient, shape, scale)
                                      : multiple(arena, gradient, shape, scale)};
    hk_status st = feed.host ? HK_OK : hk_out_of_memory(t->ctx, "a backward pass");
    if (st == HK_OK && t->pieces.prediction == hk_model_graph(t->model)->output_count)
        st = run_tail(t, feed.host, &feed);
    if (st == HK_OK)
        st = go_back(t, feed);
    hk_arena_destroy(&arena);
    return st;
}

/* ---- gradients and update */

void hk_trainer_zero_grad(hk_trainer *t)
{
    t->pieces.unsettled = false;
}

hk_status hk_trainer_update(hk_trainer *t)
{
    hk_trainer_plan *plan = NULL;
    hk_graph *g = NULL;
    if (!t->pieces.summed || !t->pieces.unsettled)
        return hk_fail(t->ctx, HK_STATUS_USAGE,
                       "there are no gradients to update with: hk_trainer_backward makes them");
    HK_TRY(hk_trainer_find_plan(t, NULL, 0, NULL, &plan));
    plan->used = ++t->uses;
    if (!plan->exec[HK_RECORD_UPDATE]) {
        HK_TRY(hk_make_update(t->ctx, &t->training, &g));
        HK_TRY(record(t, g, &plan->exec[HK_RECORD_UPDATE]));
    }
    t->step.step = t->pieces.step;
    t->step.lr = hk_trainer_rate(t);
    HK_TRY(run(t, plan->exec[HK_RECORD_UPDATE], NULL, 0));
    t->updates++;
    return HK_OK;
}
