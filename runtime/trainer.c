/* Trainers: the training step of a model as one recording per input shape, and its states. */
#include "runtime/trainer.h"

#include <math.h>
#include <string.h>

#include "ops/step.h"

/* ---- options */

static float otherwise(float given, float unset)
{
    return given != 0 ? given : unset;
}

static hk_status check_params(hk_context *ctx, const hk_trainer_params *p)
{
    if (!(p->lr > 0) || !(p->beta1 >= 0 && p->beta1 < 1) || !(p->beta2 >= 0 && p->beta2 < 1) || !(p->eps > 0))
        return hk_fail(ctx, HK_STATUS_USAGE,
                       "an optimizer needs lr > 0, 0 <= beta1, beta2 < 1 and eps > 0; found %g, %g, %g, %g",
                       (double)p->lr, (double)p->beta1, (double)p->beta2, (double)p->eps);
    if (!(p->momentum >= 0 && p->momentum < 1) || (p->nesterov && (p->momentum <= 0 || p->dampening != 0)))
        return hk_fail(ctx, HK_STATUS_USAGE,
                       "SGD needs 0 <= momentum < 1, and Nesterov's form a momentum without dampening; found %g, %g",
                       (double)p->momentum, (double)p->dampening);
    if (p->optimizer > HK_OPTIMIZER_SGD || p->loss > HK_LOSS_KL || p->reduction > HK_REDUCE_NONE)
        return hk_fail(ctx, HK_STATUS_USAGE, "loss %d, reduction %d or optimizer %d does not exist", (int)p->loss,
                       (int)p->reduction, (int)p->optimizer);
    if (p->reduction == HK_REDUCE_NONE)
        return hk_fail(ctx, HK_STATUS_USAGE, "a training step needs one loss: choose a reduction other than none");
    if (!(p->label_smoothing >= 0 && p->label_smoothing <= 1) || !(p->beta > 0) || !(p->clip_norm >= 0) ||
        !(p->ema_decay >= 0 && p->ema_decay < 1) || !(p->loss_scale >= 0))
        return hk_fail(ctx, HK_STATUS_USAGE,
                       "label smoothing %g, beta %g, clip norm %g, moving average decay %g or loss scale %g is out of "
                       "range",
                       (double)p->label_smoothing, (double)p->beta, (double)p->clip_norm, (double)p->ema_decay,
                       (double)p->loss_scale);
    const hk_tensor *w = p->class_weights;
    if (w && (w->dtype != HK_FLOAT32 || w->rank != 1 || !w->data))
        return hk_fail(ctx, HK_STATUS_USAGE, "class weights must be a float32 tensor with one number per class");
    return HK_OK;
}

static hk_status take_params(hk_context *ctx, const hk_trainer_params *given, hk_trainer_params *p)
{
    *p = (hk_trainer_params){.size = sizeof *p};
    if (given)
        memcpy(p, given, HK_MIN(given->size, sizeof *p));
    p->loss = p->loss ? p->loss : HK_LOSS_CROSS_ENTROPY;
    p->reduction = p->reduction ? p->reduction : HK_REDUCE_MEAN;
    p->optimizer = p->optimizer ? p->optimizer : HK_OPTIMIZER_ADAMW;
    p->beta = otherwise(p->beta, 1);
    p->lr = otherwise(p->lr, 1e-3f);
    p->beta1 = otherwise(p->beta1, 0.9f);
    p->beta2 = otherwise(p->beta2, 0.999f);
    p->eps = otherwise(p->eps, 1e-8f);
    p->weight_decay = otherwise(p->weight_decay, p->optimizer == HK_OPTIMIZER_ADAMW ? 0.01f : 0);
    p->weight_decay = HK_MAX(p->weight_decay, 0.0f);
    p->accumulate = p->accumulate ? p->accumulate : 1;
    p->growth_interval = p->growth_interval ? p->growth_interval : 2000;
    if (p->precision == HK_PRECISION_FAST) /* float16 has no gradients below 6e-8 */
        p->loss_scale = otherwise(p->loss_scale, 65536);
    return check_params(ctx, p);
}

/* The number in [0, 1) that was written in decimals and rounded to a float: 1 - 0.999f is off by 1.3e-5 of it. */
static double decimal(float x)
{
    return round((double)x * 1e7) / 1e7;
}

static hk_optimizer_kind kind_of(const hk_trainer_params *p)
{
    if (p->optimizer == HK_OPTIMIZER_SGD)
        return p->momentum > 0 ? HK_UPDATE_MOMENTUM : HK_UPDATE_SGD;
    return p->optimizer == HK_OPTIMIZER_ADAM ? HK_UPDATE_ADAM : HK_UPDATE_ADAMW;
}

static hk_status copy_class_weights(hk_trainer *t, const hk_tensor **out)
{
    const hk_tensor *w = t->params.class_weights;
    if (!w)
        return HK_OK;
    hk_shape shape = hk_tensor_shape(w);
    hk_tensor *copy = hk_tensor_new(t->arena, w->dtype, &shape);
    if (!copy)
        return hk_out_of_memory(t->ctx, "class weights");
    hk_tensor_pack(w, copy->data);
    *out = copy;
    return HK_OK;
}

static hk_status make_training(hk_trainer *t)
{
    const hk_trainer_params *p = &t->params;
    t->training = (hk_training){.parameters = &t->parameters,
                                .output = p->output ? hk_arena_string(t->arena, p->output) : NULL,
                                .loss = {.loss = p->loss,
                                         .reduction = p->reduction,
                                         .ignore_index = p->ignore_index ? *p->ignore_index : -100,
                                         .label_smoothing = p->label_smoothing,
                                         .beta = p->beta},
                                .optimizer = kind_of(p),
                                .beta1 = decimal(p->optimizer == HK_OPTIMIZER_SGD ? p->momentum : p->beta1),
                                .beta2 = decimal(p->beta2),
                                .eps = p->eps,
                                .dampening = decimal(p->dampening),
                                .nesterov = p->nesterov,
                                .clip_norm = p->clip_norm,
                                .ema_decay = decimal(p->ema_decay),
                                .loss_scale = p->loss_scale,
                                .growth_interval = p->growth_interval,
                                .freeze_bn = p->freeze_bn,
                                .accumulate = p->accumulate > 1,
                                .total = p->accumulate_total,
                                .allow_unreached = p->allow_unreached,
                                .checkpointing = p->checkpointing,
                                .simplify = hk_run_forward_passes,
                                .user = &t->passes,
                                .keep_membranes = p->keep_states};
    return copy_class_weights(t, &t->training.loss.class_weights);
}

/* ---- life */

static bool is_trained(const hk_trainer *t, const hk_value *v)
{
    for (size_t i = 0; i < t->parameters.count; i++)
        if (t->parameters.list[i].source == v)
            return true;
    return false;
}

/* Once, before the first step. */
static hk_status tell_lost_ties(hk_trainer *t, const hk_graph *g)
{
    hk_arena *arena = hk_arena_create(t->ctx);
    hk_tie *ties = NULL;
    size_t count = 0;
    hk_status st = arena ? hk_edit_find_ties(g, arena, &ties, &count) : hk_out_of_memory(t->ctx, "a trainer");
    for (size_t i = 0; i < count; i++)
        if (is_trained(t, ties[i].kept) || is_trained(t, ties[i].copy))
            hk_log(t->ctx, HK_LOG_WARN,
                   "parameters '%s' and '%s' have the same contents%s: they were probably one in PyTorch (weight "
                   "tying), and training drives them apart; tie_matrices of an edit (--tie-matrices) makes them one "
                   "again",
                   ties[i].kept->name, ties[i].copy->name, ties[i].transposed ? ", transposed" : "");
    hk_arena_destroy(&arena);
    return st;
}

static hk_status start(hk_trainer *t)
{
    const hk_graph *g = hk_model_graph(t->model);
    const hk_trainer_params *p = &t->params;
    t->arena = hk_arena_create(t->ctx);
    if (!t->arena)
        return hk_out_of_memory(t->ctx, "a trainer");
    HK_TRY(hk_parameters_create(g, p->rules, p->rule_count, p->weight_decay, t->arena, &t->parameters));
    HK_TRY(tell_lost_ties(t, g));
    HK_TRY(make_training(t));
    HK_TRY(hk_env_create(t->dev->gpu, g, &t->env));
    t->env->precision = p->precision == HK_PRECISION_DEFAULT ? HK_PRECISION_STRICT : p->precision;
    t->env->profile = p->profile;
    t->passes = (hk_pass_options){.device = hk_gpu_info(t->dev->gpu),
                                  .precision = p->precision,
                                  .matrices = hk_gpu_multiplies(t->dev->gpu),
                                  .off = hk_gpu_debug(t->dev->gpu) >> HK_DEBUG_PASS_SHIFT};
    t->step = (hk_step){.seed = {(uint32_t)p->seed, (uint32_t)(p->seed >> 32)}, .grad_scale = 1};
    if (!p->accumulate_total)
        t->step.grad_scale = 1.0f / (float)p->accumulate;
    return HK_OK;
}

hk_status hk_trainer_create(hk_device *dev, const hk_model *m, const hk_trainer_params *params, hk_trainer **out)
{
    hk_trainer_params p;
    HK_TRY(take_params(dev->ctx, params, &p));
    HK_TRY(hk_model_check_runs(m));
    hk_trainer *t = hk_alloc(dev->ctx, sizeof *t);
    if (!t)
        return hk_out_of_memory(dev->ctx, "a trainer");
    *t = (hk_trainer){.ctx = dev->ctx, .dev = dev, .model = m, .params = p};
    hk_status st = start(t);
    t->params.rules = NULL; /* the caller's */
    t->params.class_weights = NULL;
    t->params.ignore_index = NULL;
    t->params.output = NULL;
    if (st == HK_OK)
        *out = t;
    else
        hk_trainer_destroy(&t);
    return st;
}

static void destroy_plan(hk_trainer *t, hk_trainer_plan *plan)
{
    for (size_t i = 0; i < HK_RECORDINGS; i++) {
        if (t->last == plan->exec[i])
            t->last = NULL;
        if (t->evaluated == plan->exec[i])
            t->evaluated = NULL;
        hk_exec_destroy(&plan->exec[i]);
    }
    for (size_t i = 0; i < HK_COUNT(plan->cut); i++)
        hk_graph_destroy(&plan->cut[i]);
    if (t->pieces.forward == plan)
        t->pieces.forward = NULL;
    if (t->pieces.loss == plan)
        t->pieces.loss = NULL;
    hk_free(t->ctx, plan->shapes);
    *plan = (hk_trainer_plan){0};
}

void hk_trainer_destroy(hk_trainer **trainer)
{
    hk_trainer *t = *trainer;
    if (!t)
        return;
    *trainer = NULL;
    for (size_t i = 0; i < HK_TRAINER_PLANS; i++)
        destroy_plan(t, &t->plans[i]);
    hk_env_destroy(&t->env);
    hk_report_finish(&t->report);
    hk_arena_destroy(&t->arena);
    hk_free(t->ctx, t);
}

/* ---- plans: one per set of shapes, of the inputs and, in training, of the labels (else NULL) */

static hk_status build_graph(hk_trainer *t, const hk_tensor *inputs, const hk_tensor *labels, hk_trainer_recording what,
                             hk_graph **out)
{
    hk_graph *g = NULL;
    HK_TRY(hk_graph_clone(hk_model_graph(t->model), &g));
    for (size_t i = 0; i < g->input_count; i++)
        g->inputs[i]->shape = hk_tensor_shape(&inputs[i]);
    hk_training training = t->training;
    training.update = what == HK_RECORD_STEP;
    hk_status st = labels ? hk_make_training(g, &training, labels)
                          : hk_make_evaluation(g, &t->training,
                                               what == HK_RECORD_AVERAGE ? HK_STATE_AVERAGE : HK_STATE_PARAMETERS);
    if (st == HK_OK)
        st = hk_run_passes(g, &t->passes);
    if (st == HK_OK)
        *out = g;
    else
        hk_graph_destroy(&g);
    return st;
}

static bool fits(const hk_trainer_plan *plan, const hk_tensor *inputs, size_t count, const hk_tensor *labels)
{
    if (!plan->shapes || plan->count != count || plan->labels_dtype != (labels ? labels->dtype : HK_DTYPE_NONE))
        return false;
    for (size_t i = 0; i < count + (labels != NULL); i++) {
        hk_shape shape = hk_tensor_shape(i < count ? &inputs[i] : labels);
        if (!hk_shape_equal(&shape, &plan->shapes[i]))
            return false;
    }
    return true;
}

hk_status hk_trainer_find_plan(hk_trainer *t, const hk_tensor *inputs, size_t count, const hk_tensor *labels,
                               hk_trainer_plan **out)
{
    hk_trainer_plan *oldest = &t->plans[0];
    for (size_t i = 0; i < HK_TRAINER_PLANS; i++) {
        if (fits(&t->plans[i], inputs, count, labels)) {
            *out = &t->plans[i];
            return HK_OK;
        }
        if (t->plans[i].used < oldest->used)
            oldest = &t->plans[i];
    }
    destroy_plan(t, oldest);
    oldest->shapes = hk_alloc_array(t->ctx, count + 1, sizeof *oldest->shapes);
    if (!oldest->shapes)
        return hk_out_of_memory(t->ctx, "a training plan");
    for (size_t i = 0; i < count + (labels != NULL); i++)
        oldest->shapes[i] = hk_tensor_shape(i < count ? &inputs[i] : labels);
    oldest->count = count;
    oldest->labels_dtype = labels ? labels->dtype : HK_DTYPE_NONE;
    *out = oldest;
    return HK_OK;
}

static hk_status find_exec(hk_trainer *t, const hk_tensor *inputs, size_t count, const hk_tensor *labels,
                           hk_trainer_recording what, hk_exec **out)
{
    hk_trainer_plan *plan = NULL;
    HK_TRY(hk_trainer_find_plan(t, inputs, count, labels, &plan));
    plan->used = ++t->uses;
    hk_exec **exec = &plan->exec[what];
    hk_graph *g = NULL;
    if (!*exec) {
        uint64_t begin = hk_gpu_planning_clock(t->env->gpu);
        HK_TRY(build_graph(t, inputs, labels, what, &g));
        HK_TRY(hk_exec_create(t->env, g, exec));
        hk_gpu_count_planning(t->env->gpu, begin);
    }
    *out = *exec;
    return HK_OK;
}

/* ---- steps */

hk_status hk_trainer_check_inputs(const hk_trainer *t, const hk_tensor *inputs, size_t count)
{
    const hk_graph *g = hk_model_graph(t->model);
    if (count != g->input_count)
        return hk_fail(t->ctx, HK_STATUS_USAGE, "%zu inputs were given, the model has %zu", count, g->input_count);
    for (size_t i = 0; i < count; i++)
        HK_TRY(hk_check_input(t->ctx, g->inputs[i], &inputs[i]));
    return HK_OK;
}

hk_status hk_trainer_check_labels(const hk_trainer *t, const hk_tensor *labels)
{
    bool classes = t->params.loss == HK_LOSS_CROSS_ENTROPY || t->params.loss == HK_LOSS_NLL;
    if (labels && labels->data &&
        (labels->dtype == HK_FLOAT32 || (classes && (labels->dtype == HK_INT64 || labels->dtype == HK_INT32))))
        return HK_OK;
    return hk_fail(t->ctx, HK_STATUS_USAGE,
                   classes ? "labels must be an int64 or int32 tensor, or float32 probabilities of classes"
                           : "targets must be a float32 tensor");
}

/* What the executor takes is contiguous, and of float32 where the model has 16-bit floats (train/widen.c). */
hk_status hk_trainer_run(hk_trainer *t, hk_exec *exec, const hk_feed *given, size_t count, uint64_t *ticket)
{
    hk_arena *arena = hk_arena_create(t->ctx);
    hk_feed *feeds = arena ? hk_arena_array(arena, count + 1, sizeof *feeds) : NULL;
    hk_status st = feeds ? HK_OK : hk_out_of_memory(t->ctx, "a step");
    for (size_t i = 0; i < count && st == HK_OK; i++) {
        const hk_tensor *from = given[i].host;
        feeds[i] = given[i];
        if (from && (from->strides[0] || (from->rank > 1 && from->strides[1]))) {
            hk_shape shape = hk_tensor_shape(from);
            hk_tensor *packed = hk_tensor_new(arena, from->dtype, &shape);
            if (packed)
                hk_tensor_pack(from, packed->data);
            else
                st = hk_out_of_memory(t->ctx, "a step");
            feeds[i].host = packed;
        }
        if (st == HK_OK && feeds[i].host && hk_dtype_is_half(feeds[i].host->dtype) &&
            !(feeds[i].host = hk_tensor_as(arena, feeds[i].host, HK_FLOAT32)))
            st = hk_out_of_memory(t->ctx, "a step");
    }
    if (st == HK_OK)
        st = hk_exec_submit(exec, feeds, &t->step, ticket);
    hk_arena_destroy(&arena);
    return st;
}

/* labels NULL: none. */
static hk_status submit(hk_trainer *t, hk_exec *exec, const hk_tensor *inputs, size_t count, const hk_tensor *labels,
                        uint64_t *ticket)
{
    hk_feed *feeds = hk_alloc_array(t->ctx, count + 1, sizeof *feeds);
    if (!feeds)
        return hk_out_of_memory(t->ctx, "a step");
    for (size_t i = 0; i < count; i++)
        feeds[i].host = &inputs[i];
    feeds[count].host = labels;
    hk_status st = hk_trainer_run(t, exec, feeds, count + (labels != NULL), ticket);
    hk_free(t->ctx, feeds);
    return st;
}

float hk_trainer_rate(const hk_trainer *t)
{
    return (float)((double)t->params.lr * hk_schedule_factor(&t->params.schedule, t->updates));
}

hk_status hk_trainer_submit(hk_trainer *t, const hk_tensor *inputs, size_t input_count, const hk_tensor *labels,
                            uint64_t *ticket)
{
    HK_TRY(hk_trainer_check_inputs(t, inputs, input_count));
    HK_TRY(hk_trainer_check_labels(t, labels));
    bool update = (t->micro + 1) % t->params.accumulate == 0;
    hk_exec *exec = NULL;
    HK_TRY(find_exec(t, inputs, input_count, labels, update ? HK_RECORD_STEP : HK_RECORD_MICRO, &exec));
    t->step.step = (uint32_t)t->micro;
    t->step.accumulate = t->micro % t->params.accumulate ? 1.0f : 0.0f;
    t->step.lr = hk_trainer_rate(t);
    HK_TRY(submit(t, exec, inputs, input_count, labels, ticket));
    t->last = exec;
    t->last_ticket = *ticket;
    t->pieces.summed = false;
    t->micro++;
    t->updates += update;
    return HK_OK;
}

/* The recording whose run has that ticket; steps in flight may be of two. NULL: a later run has taken its place. */
static hk_exec *find_run(const hk_trainer *t, uint64_t ticket)
{
    for (size_t i = 0; i < HK_TRAINER_PLANS; i++)
        for (size_t k = HK_RECORD_MICRO; k <= HK_RECORD_STEP; k++)
            if (t->plans[i].exec[k] && hk_exec_holds(t->plans[i].exec[k], ticket))
                return t->plans[i].exec[k];
    return NULL;
}

hk_status hk_trainer_wait(hk_trainer *t, uint64_t ticket, float *loss)
{
    if (!t->last)
        return hk_fail(t->ctx, HK_STATUS_USAGE, "no step has been submitted");
    hk_exec *exec = find_run(t, ticket);
    if (exec) {
        HK_TRY(hk_exec_wait(exec, ticket));
        return loss ? hk_exec_read(exec, ticket, 0, loss) : HK_OK;
    }
    HK_TRY(hk_gpu_wait(t->dev->gpu, ticket));
    if (!loss)
        return HK_OK;
    return hk_fail(t->ctx, HK_STATUS_USAGE, "the loss of step %llu is gone: wait for it before the second next step",
                   (unsigned long long)ticket);
}

hk_status hk_trainer_step(hk_trainer *t, const hk_tensor *inputs, size_t input_count, const hk_tensor *labels,
                          float *loss)
{
    uint64_t ticket = 0;
    HK_TRY(hk_trainer_submit(t, inputs, input_count, labels, &ticket));
    return loss ? hk_trainer_wait(t, ticket, loss) : HK_OK;
}

hk_status hk_trainer_set_lr(hk_trainer *t, float lr)
{
    if (!(lr > 0))
        return hk_fail(t->ctx, HK_STATUS_USAGE, "a learning rate must be positive; found %g", (double)lr);
    t->params.lr = lr;
    return HK_OK;
}

hk_status hk_trainer_reset(hk_trainer *t)
{
    HK_TRY(hk_trainer_idle(t));
    return hk_env_restart_states(t->env);
}

hk_status hk_trainer_idle(hk_trainer *t)
{
    uint64_t last = HK_MAX(t->last_ticket, t->evaluated_ticket);
    return last ? hk_gpu_wait(t->dev->gpu, last) : HK_OK;
}

hk_status hk_trainer_get_stats(hk_trainer *t, hk_trainer_stats *out)
{
    float control[HK_CONTROL_WORDS] = {[HK_CONTROL_LOSS_SCALE] = otherwise(t->params.loss_scale, 1)};
    if (hk_env_state(t->env, HK_STATE_CONTROL))
        HK_TRY(hk_trainer_state(t, HK_STATE_CONTROL, 0, control, HK_CONTROL_WORDS));
    *out = (hk_trainer_stats){.micro = t->micro,
                              .updates = (uint64_t)control[HK_CONTROL_UPDATES],
                              .skipped = (uint64_t)control[HK_CONTROL_SKIPPED],
                              .lr = hk_trainer_rate(t),
                              .loss_scale = control[HK_CONTROL_LOSS_SCALE],
                              .parameters = t->parameters.count,
                              .state_bytes = t->env->state_store.bytes};
    for (size_t i = 0; i < t->parameters.count; i++)
        out->parameter_count += t->parameters.list[i].count;
    return HK_OK;
}

/* ---- evaluation */

hk_status hk_trainer_evaluate(hk_trainer *t, const hk_tensor *inputs, size_t input_count, bool average)
{
    hk_exec *exec = NULL;
    uint64_t ticket = 0;
    HK_TRY(hk_trainer_check_inputs(t, inputs, input_count));
    if (average && !(t->params.ema_decay > 0))
        return hk_fail(t->ctx, HK_STATUS_USAGE, "this trainer keeps no moving average: ema_decay is 0");
    HK_TRY(find_exec(t, inputs, input_count, NULL, average ? HK_RECORD_AVERAGE : HK_RECORD_EVALUATE, &exec));
    HK_TRY(submit(t, exec, inputs, input_count, NULL, &ticket));
    HK_TRY(hk_exec_wait(exec, ticket));
    t->evaluated = exec;
    t->evaluated_ticket = ticket;
    return HK_OK;
}

hk_status hk_trainer_read_output(hk_trainer *t, const char *output, hk_tensor *out)
{
    const hk_graph *g = t->evaluated ? hk_exec_plan(t->evaluated)->graph : NULL;
    const hk_graph *model = hk_model_graph(t->model);
    bool made = false;
    if (!g)
        return hk_fail(t->ctx, HK_STATUS_USAGE, "there is no evaluation to read output '%s' of", output);
    for (size_t i = 0; i < model->output_count; i++) {
        const hk_value *v = g->outputs[i];
        if (strcmp(model->outputs[i]->name, output) != 0)
            continue;
        HK_TRY(hk_exec_wait(t->evaluated, t->evaluated_ticket));
        HK_TRY(hk_fill_output(t->ctx, output, v->dtype, &v->shape, out, &made));
        hk_status st = hk_exec_read(t->evaluated, t->evaluated_ticket, i, out->data);
        if (st != HK_OK && made)
            hk_tensor_release(out);
        return st;
    }
    return hk_fail(t->ctx, HK_STATUS_USAGE, "the model has no output '%s'", output);
}

hk_status hk_trainer_get_plan(hk_trainer *t, hk_plan_info *out)
{
    if (!t->last)
        return hk_fail(t->ctx, HK_STATUS_USAGE, "no step has been submitted yet: there is no plan");
    HK_TRY(hk_report_exec(t->ctx, &t->report, t->env, t->last));
    *out = t->report.info;
    return HK_OK;
}
