/* The end of a training step: clipping, loss scale, optimizer, moving average. */
#include <string.h>

#include "ops/step.h"
#include "train/training.h"

static hk_status no_memory(const hk_graph *g)
{
    return hk_out_of_memory(g->ctx, "an update");
}

static hk_state *find_state(const hk_graph *g, const char *name)
{
    for (size_t i = 0; i < g->state_count; i++)
        if (!strcmp(g->states[i]->name, name))
            return g->states[i];
    return NULL;
}

hk_state *hk_control_state(hk_graph *g, const hk_training *t)
{
    hk_state *s = find_state(g, HK_STATE_CONTROL);
    if (s)
        return s;
    const hk_shape shape = {.rank = 1, .dim = {HK_CONTROL_WORDS}};
    hk_tensor *initial = hk_tensor_new(g->arena, HK_FLOAT32, &shape);
    if (!initial)
        return NULL;
    ((float *)initial->data)[HK_CONTROL_LOSS_SCALE] = t->loss_scale > 0 ? t->loss_scale : 1.0f;
    return hk_graph_state(g, HK_STATE_CONTROL, HK_FLOAT32, &shape, initial);
}

static void advance(hk_state *s, hk_value *next)
{
    s->last = next;
    next->state = s;
}

static hk_status update_control(hk_graph *g, const hk_training *t, hk_value *gradient, hk_value *valid,
                                hk_value **control)
{
    hk_state *s = hk_control_state(g, t);
    hk_value *squares = NULL, *step = hk_graph_step(g);
    if (!s || !step)
        return no_memory(g);
    if (t->clip_norm > 0 || t->loss_scale > 0) {
        const hk_attr_value attrs[] = {HK_SET_INT("keepdims", 0), {0}};
        HK_TRY(hk_build(g, "ReduceSumSquare", attrs, &gradient, 1, &squares, 1));
    }
    const hk_attr_value attrs[] = {HK_SET_FLOAT("beta1", (float)t->beta1),
                                   HK_SET_FLOAT("beta1_rest", (float)(1 - t->beta1)),
                                   HK_SET_FLOAT("beta2", (float)t->beta2),
                                   HK_SET_FLOAT("beta2_rest", (float)(1 - t->beta2)),
                                   HK_SET_FLOAT("clip", t->clip_norm),
                                   HK_SET_INT("scaling", t->loss_scale > 0),
                                   HK_SET_INT("growth_interval", t->growth_interval),
                                   {0}};
    hk_value *in[] = {s->first, step, squares, valid};
    HK_TRY(hk_build(g, "hk.UpdateControl", attrs, in, 4, control, 1));
    advance(s, *control);
    return HK_OK;
}

static hk_status group_attrs(hk_graph *g, const hk_parameters *p, hk_attr_value attrs[3])
{
    size_t n = (size_t)p->group_count;
    int64_t *ends = hk_arena_array(g->arena, n, sizeof *ends);
    float *scales = hk_arena_array(g->arena, n, sizeof *scales), *decays = hk_arena_array(g->arena, n, sizeof *decays);
    if (!ends || !scales || !decays)
        return no_memory(g);
    for (size_t i = 0; i < n; i++) {
        ends[i] = p->groups[i].end;
        scales[i] = p->groups[i].lr_scale;
        decays[i] = p->groups[i].weight_decay;
    }
    attrs[0] = (hk_attr_value)HK_SET_INTS("ends", ends, p->group_count);
    attrs[1] = (hk_attr_value){
        .name = "lr_scale", .kind = HK_ATTR_FLOATS, .floats = {.v = scales, .count = p->group_count}};
    attrs[2] = (hk_attr_value){
        .name = "weight_decay", .kind = HK_ATTR_FLOATS, .floats = {.v = decays, .count = p->group_count}};
    return HK_OK;
}

hk_status hk_append_update(hk_graph *g, const hk_training *t, hk_state *parameters, hk_value *gradient, hk_value *valid)
{
    const hk_shape flat = {.rank = 1, .dim = {t->parameters->total}};
    hk_value *control = NULL, *step = hk_graph_step(g), *out[4] = {0};
    HK_TRY(update_control(g, t, gradient, valid, &control));
    bool first = t->optimizer != HK_UPDATE_SGD,
         second = t->optimizer == HK_UPDATE_ADAMW || t->optimizer == HK_UPDATE_ADAM, average = t->ema_decay > 0;
    hk_state *states[4] = {parameters, first ? hk_graph_state(g, HK_STATE_MOMENT1, HK_FLOAT32, &flat, NULL) : NULL,
                           second ? hk_graph_state(g, HK_STATE_MOMENT2, HK_FLOAT32, &flat, NULL) : NULL,
                           average ? hk_graph_state(g, HK_STATE_AVERAGE, HK_FLOAT32, &flat, t->parameters->initial)
                                   : NULL};
    if (!step || (first && !states[1]) || (second && !states[2]) || (average && !states[3]))
        return no_memory(g);
    double rest1 = t->optimizer == HK_UPDATE_MOMENTUM ? 1 - t->dampening : 1 - t->beta1;
    hk_attr_value attrs[] = {HK_SET_INT("kind", t->optimizer),
                             HK_SET_INT("nesterov", t->nesterov),
                             HK_SET_FLOAT("beta1", (float)t->beta1),
                             HK_SET_FLOAT("beta1_rest", (float)rest1),
                             HK_SET_FLOAT("beta2", (float)t->beta2),
                             HK_SET_FLOAT("beta2_rest", (float)(1 - t->beta2)),
                             HK_SET_FLOAT("eps", t->eps),
                             HK_SET_FLOAT("average_rest", (float)(1 - t->ema_decay)),
                             {0},
                             {0},
                             {0},
                             {0}};
    HK_TRY(group_attrs(g, t->parameters, attrs + 8));
    hk_value *in[] = {parameters->first,
                      gradient,
                      control,
                      step,
                      first ? states[1]->first : NULL,
                      second ? states[2]->first : NULL,
                      average ? states[3]->first : NULL};
    HK_TRY(hk_build(g, "hk.Update", attrs, in, 7, out, 4));
    hk_node *n = out[0]->producer;
    for (int32_t i = 0; i < 4; i++) {
        if (!states[i]) {
            n->out[i] = NULL; /* no state, no result */
            continue;
        }
        states[i]->flat = true;
        advance(states[i], out[i]);
    }
    return HK_OK;
}
