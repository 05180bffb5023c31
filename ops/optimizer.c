/* hk.Update, hk.UpdateControl, hk.AccumulateGradient: updates of flat states. What changes from step to step comes from
 * the step block, what only the device can know from the control state (ops/step.h). */
#include "ops/optimizer.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "kernels.h"
#include "ops/step.h"
#include "ops/support/reduce.h"
#include "shaders/accumulate.push.h"
#include "shaders/optimizer.push.h"
#include "shaders/update_control.push.h"

static bool is_scalar(const hk_value *v)
{
    return v->dtype == HK_FLOAT32 && hk_shape_count(&v->shape) == 1;
}

/* Inputs whose bit is set and that are present have one float type and shape, input 0's; every output gets them too. */
static hk_status infer_alike(hk_infer *in, uint32_t inputs)
{
    const hk_node *n = in->node;
    const hk_value *first = n->in[0];
    hk_shape_text a, b;
    if (!hk_dtype_is_float(first->dtype))
        return hk_infer_fail(in, HK_STATUS_INVALID, "'%s' is %s, expected a float type", first->name,
                             hk_dtype_name(first->dtype));
    for (int32_t i = 1; i < n->in_count; i++) {
        const hk_value *v = inputs >> i & 1u ? n->in[i] : NULL;
        if (v && (v->dtype != first->dtype || !hk_shape_equal(&v->shape, &first->shape)))
            return hk_infer_fail(in, HK_STATUS_INVALID, "'%s' is %s %s, expected %s %s as '%s'", v->name,
                                 hk_dtype_name(v->dtype), hk_shape_print(&v->shape, &a), hk_dtype_name(first->dtype),
                                 hk_shape_print(&first->shape, &b), first->name);
    }
    for (int32_t i = 0; i < n->out_count; i++)
        HK_TRY(hk_infer_output(in, i, first->dtype, &first->shape));
    return HK_OK;
}

/* An invocation updates four elements. */
static hk_record *emit_flat(hk_lower *l, const hk_kernel *kernel, const char *variant, int64_t count, bool vector,
                            const void *push, size_t push_bytes)
{
    hk_record *r = hk_emit(l, kernel, variant);
    uint32_t size = l->cpu ? 64 : HK_MIN(l->device->max_invocations, 256u);
    hk_workgroup(r, size, 1, 1);
    hk_spec(r, 3, vector);
    hk_grid_1d(l, r, (uint64_t)((count + 3) / 4 + size - 1) / size);
    hk_push(r, push, push_bytes);
    return r;
}

/* ---- hk.Update(parameters, gradients, control, step, first moments, second moments, average) → new parameters, first,
 * second, average. An absent state has an absent result.
 *
 * With g = multiplier * gradient, lr and weight decay w of the element's group, as torch.optim and in its order:
 *     adamw     p *= 1 - lr w; m += (g - m) beta1_rest; v = beta2 v + beta2_rest g^2;
 *               p -= lr / rest1 * m / (sqrt(v) / sqrt(rest2) + eps)
 *     adam      g += w p, then as above
 *     sgd       g += w p; p -= lr g
 *     momentum  g += w p; b = t = 1 ? g : beta1 b + beta1_rest g; p -= lr (nesterov ? g + beta1 b : b)
 * and average += (p - average) average_rest. *_rest is 1 - *, of Adam's betas and of the average's decay, or 1 - SGD's
 * dampening: attributes of their own, because 1 - 0.999f is wrong in the fifth digit. Nothing changes when the control
 * state says so. */

typedef struct update_attrs {
    int64_t kind, nesterov;
    float beta1, beta1_rest, beta2, beta2_rest, eps, average_rest;
    hk_ints ends;                     /* of the groups, in elements, rising; none: one group of everything */
    hk_floats lr_scale, weight_decay; /* of each group */
} update_attrs;

static const hk_attr update_attr_list[] = {HK_INT_ATTR(update_attrs, kind, HK_UPDATE_ADAMW),
                                           HK_INT_ATTR(update_attrs, nesterov, 0),
                                           HK_FLOAT_ATTR(update_attrs, beta1, 0.9),
                                           HK_FLOAT_ATTR(update_attrs, beta1_rest, 0.1),
                                           HK_FLOAT_ATTR(update_attrs, beta2, 0.999),
                                           HK_FLOAT_ATTR(update_attrs, beta2_rest, 0.001),
                                           HK_FLOAT_ATTR(update_attrs, eps, 1e-8),
                                           HK_FLOAT_ATTR(update_attrs, average_rest, 0.001),
                                           HK_INTS_ATTR(update_attrs, ends),
                                           HK_FLOATS_ATTR(update_attrs, lr_scale),
                                           HK_FLOATS_ATTR(update_attrs, weight_decay),
                                           {0}};

enum { PARAMETERS, GRADIENTS, CONTROL, STEP, FIRST, SECOND, AVERAGE, UPDATE_INPUTS };
enum { NEW_PARAMETERS, NEW_FIRST, NEW_SECOND, NEW_AVERAGE };

/* As the shader reads it from the parameter block. */
typedef struct update_group {
    uint32_t end;
    float lr_scale, weight_decay;
} update_group;

static int32_t group_count(const update_attrs *a)
{
    return a->ends.count ? a->ends.count : 1;
}

static update_group group_at(const update_attrs *a, int32_t i, int64_t total)
{
    return (update_group){.end = (uint32_t)(a->ends.count ? a->ends.v[i] : total),
                          .lr_scale = i < a->lr_scale.count ? a->lr_scale.v[i] : 1.0f,
                          .weight_decay = i < a->weight_decay.count ? a->weight_decay.v[i] : 0.0f};
}

static hk_status update_infer(hk_infer *in)
{
    const hk_node *n = in->node;
    const update_attrs *a = n->attrs;
    bool first = a->kind != HK_UPDATE_SGD, second = a->kind == HK_UPDATE_ADAMW || a->kind == HK_UPDATE_ADAM;
    if (a->kind < HK_UPDATE_ADAMW || a->kind > HK_UPDATE_MOMENTUM || a->ends.count > HK_MAX_GROUPS)
        return hk_infer_fail(in, HK_STATUS_INVALID, "kind %lld or the number of groups, %d, is out of range",
                             (long long)a->kind, a->ends.count);
    if ((hk_in(n, FIRST) != NULL) != first || (hk_in(n, SECOND) != NULL) != second)
        return hk_infer_fail(in, HK_STATUS_INVALID, "its moments do not fit its kind");
    if (n->in[CONTROL]->dtype != HK_FLOAT32 || hk_shape_count(&n->in[CONTROL]->shape) != HK_CONTROL_WORDS)
        return hk_infer_fail(in, HK_STATUS_INVALID, "its control state is not float32 [%d]", HK_CONTROL_WORDS);
    return infer_alike(in, 1u << GRADIENTS | 1u << FIRST | 1u << SECOND | 1u << AVERAGE);
}

/* One element in double. */
typedef struct update_state {
    double p, m, v, average;
} update_state;

static void update_element(const update_attrs *a, const hk_step *s, const double *c, update_group group, double g,
                           update_state *x)
{
    double lr = (double)s->lr * (double)group.lr_scale, w = (double)group.weight_decay;
    double beta1 = (double)a->beta1;
    g *= c[HK_CONTROL_MULTIPLIER];
    if (a->kind == HK_UPDATE_ADAMW)
        x->p *= 1.0 - lr * w;
    else
        g += w * x->p;
    switch ((hk_optimizer_kind)a->kind) {
    case HK_UPDATE_ADAMW:
    case HK_UPDATE_ADAM:
        x->m += (g - x->m) * (double)a->beta1_rest;
        x->v = x->v * (double)a->beta2 + (double)a->beta2_rest * g * g;
        x->p -= lr / c[HK_CONTROL_REST1] * x->m / (sqrt(x->v) / sqrt(c[HK_CONTROL_REST2]) + (double)a->eps);
        break;
    case HK_UPDATE_MOMENTUM:
        x->m = c[HK_CONTROL_UPDATES] <= 1.0 ? g : beta1 * x->m + (double)a->beta1_rest * g;
        x->p -= lr * (a->nesterov ? g + beta1 * x->m : x->m);
        break;
    case HK_UPDATE_SGD: x->p -= lr * g; break;
    }
    x->average += (x->p - x->average) * (double)a->average_rest;
}

static hk_status update_eval(hk_eval *e)
{
    const update_attrs *a = e->node->attrs;
    const hk_shape shape = hk_tensor_shape(e->in[0]);
    static const int source[] = {PARAMETERS, FIRST, SECOND, AVERAGE};
    hk_tensor *out[4] = {0};
    double control[HK_CONTROL_WORDS];
    for (int32_t i = 0; i < 4; i++)
        if (hk_out(e->node, i) && !(out[i] = hk_eval_output(e, i, e->in[0]->dtype, &shape)))
            return hk_out_of_memory(e->ctx, "an optimizer state");
    for (int i = 0; i < HK_CONTROL_WORDS; i++)
        control[i] = hk_get_double(e->in[CONTROL], i);
    int32_t group = 0;
    for (int64_t i = 0, count = hk_shape_count(&shape); i < count; i++) {
        while (group + 1 < group_count(a) && i >= (int64_t)group_at(a, group, count).end)
            group++;
        double x[4];
        for (int k = 0; k < 4; k++)
            x[k] = hk_in(e->node, source[k]) ? hk_get_double(e->in[source[k]], i) : 0;
        update_state s = {x[0], x[1], x[2], x[3]};
        if (control[HK_CONTROL_APPLY] != 0)
            update_element(a, e->step, control, group_at(a, group, count), hk_get_double(e->in[GRADIENTS], i), &s);
        const double y[4] = {s.p, s.m, s.v, s.average};
        for (int k = 0; k < 4; k++)
            if (out[k])
                hk_set_double(out[k], i, y[k]);
    }
    return HK_OK;
}

static hk_status add_groups(hk_lower *l, hk_record *r, const update_attrs *a, int64_t total)
{
    int32_t count = group_count(a);
    update_group *groups = hk_arena_array(l->arena, (size_t)count, sizeof *groups);
    if (!groups)
        return hk_out_of_memory(l->ctx, "parameter groups");
    for (int32_t i = 0; i < count; i++)
        groups[i] = group_at(a, i, total);
    r->block = groups;
    r->block_bytes = (uint32_t)((size_t)count * sizeof *groups);
    r->block_offset = offsetof(struct optimizer_push, groups);
    return HK_OK;
}

static const char *update_name(int64_t kind)
{
    static const char *const names[] = {"adamw", "adam", "sgd", "sgd momentum"};
    return names[kind];
}

static hk_status update_lower(hk_lower *l)
{
    const hk_node *n = l->node;
    const update_attrs *a = n->attrs;
    int64_t count = hk_shape_count(&n->in[0]->shape);
    HK_TRY(hk_require_float32(l, n->in[0]));
    if (count == 0)
        return HK_OK;
    const struct optimizer_push push = {.count = (uint32_t)count,
                                        .group_count = (uint32_t)group_count(a),
                                        .beta1 = a->beta1,
                                        .beta1_rest = a->beta1_rest,
                                        .beta2 = a->beta2,
                                        .beta2_rest = a->beta2_rest,
                                        .eps = a->eps,
                                        .average_rest = a->average_rest};
    const hk_value *all[9];
    size_t states = 0;
    for (int32_t i = 0; i < UPDATE_INPUTS; i++)
        if (hk_in(n, i) && i != CONTROL && i != STEP)
            all[states++] = n->in[i];
    for (int32_t i = 0; i <= NEW_AVERAGE; i++)
        if (hk_out(n, i))
            all[states++] = n->out[i];
    hk_record *r = emit_flat(l, &hk_kernel_optimizer, update_name(a->kind), count, hk_aligned_all(all, states), &push,
                             sizeof push);
    hk_spec(r, 4, (uint32_t)a->kind);
    hk_spec(r, 5, a->nesterov != 0);
    hk_spec(r, 6, hk_in(n, AVERAGE) != NULL);
    hk_use(r, n->in[PARAMETERS], HK_READ, offsetof(struct optimizer_push, parameters));
    hk_use(r, n->in[GRADIENTS], HK_READ, offsetof(struct optimizer_push, gradients));
    hk_use(r, hk_in(n, FIRST), HK_READ, offsetof(struct optimizer_push, first));
    hk_use(r, hk_in(n, SECOND), HK_READ, offsetof(struct optimizer_push, second));
    hk_use(r, hk_in(n, AVERAGE), HK_READ, offsetof(struct optimizer_push, average));
    hk_use(r, n->in[CONTROL], HK_READ, offsetof(struct optimizer_push, control));
    hk_use(r, n->in[STEP], HK_READ, offsetof(struct optimizer_push, step));
    hk_use(r, hk_out(n, NEW_PARAMETERS), HK_WRITE, offsetof(struct optimizer_push, new_parameters));
    hk_use(r, hk_out(n, NEW_FIRST), HK_WRITE, offsetof(struct optimizer_push, new_first));
    hk_use(r, hk_out(n, NEW_SECOND), HK_WRITE, offsetof(struct optimizer_push, new_second));
    hk_use(r, hk_out(n, NEW_AVERAGE), HK_WRITE, offsetof(struct optimizer_push, new_average));
    r->flops = 15.0 * (double)count;
    return add_groups(l, r, a, count);
}

/* ---- hk.UpdateControl(control, step, sum of squares of the gradients, count) → new control. clip: the largest norm,
 * as torch.nn.utils.clip_grad_norm_; 0: none. count: gradients are sums over that many valid labels. scaling: the loss
 * scale falls by `backoff` when a gradient is not finite and grows by `growth` after `growth_interval` good updates, as
 * torch.amp.GradScaler. */

typedef struct control_attrs {
    float beta1, beta1_rest, beta2, beta2_rest, clip, growth, backoff;
    int64_t scaling, growth_interval;
} control_attrs;

static const hk_attr control_attr_list[] = {HK_FLOAT_ATTR(control_attrs, beta1, 0.9),
                                            HK_FLOAT_ATTR(control_attrs, beta1_rest, 0.1),
                                            HK_FLOAT_ATTR(control_attrs, beta2, 0.999),
                                            HK_FLOAT_ATTR(control_attrs, beta2_rest, 0.001),
                                            HK_FLOAT_ATTR(control_attrs, clip, 0),
                                            HK_FLOAT_ATTR(control_attrs, growth, 2),
                                            HK_FLOAT_ATTR(control_attrs, backoff, 0.5),
                                            HK_INT_ATTR(control_attrs, scaling, 0),
                                            HK_INT_ATTR(control_attrs, growth_interval, 2000),
                                            {0}};

enum { OLD_CONTROL, CONTROL_STEP, SQUARES, COUNT };

static hk_status control_infer(hk_infer *in)
{
    const hk_node *n = in->node;
    const hk_value *c = n->in[OLD_CONTROL];
    if (c->dtype != HK_FLOAT32 || hk_shape_count(&c->shape) != HK_CONTROL_WORDS)
        return hk_infer_fail(in, HK_STATUS_INVALID, "its control state is not float32 [%d]", HK_CONTROL_WORDS);
    for (int32_t i = SQUARES; i <= COUNT; i++)
        if (hk_in(n, i) && !is_scalar(n->in[i]))
            return hk_infer_fail(in, HK_STATUS_INVALID, "'%s' is no float32 scalar", n->in[i]->name);
    return hk_infer_output(in, 0, c->dtype, &c->shape);
}

static hk_status control_eval(hk_eval *e)
{
    const control_attrs *a = e->node->attrs;
    const hk_shape shape = hk_tensor_shape(e->in[0]);
    hk_tensor *out = hk_eval_output(e, 0, HK_FLOAT32, &shape);
    double c[HK_CONTROL_WORDS], multiplier = (double)e->step->grad_scale;
    bool finite = true;
    if (!out)
        return hk_out_of_memory(e->ctx, "a control state");
    for (int i = 0; i < HK_CONTROL_WORDS; i++)
        c[i] = hk_get_double(e->in[OLD_CONTROL], i);
    if (a->scaling)
        multiplier /= c[HK_CONTROL_LOSS_SCALE];
    if (hk_in(e->node, COUNT))
        multiplier /= fmax(hk_get_double(e->in[COUNT], 0), 1.0);
    if (hk_in(e->node, SQUARES)) {
        double squares = hk_get_double(e->in[SQUARES], 0);
        finite = isfinite(squares);
        if (a->clip > 0)
            multiplier *= fmin(1.0, (double)a->clip / (sqrt(squares) * multiplier + 1e-6));
    }
    c[HK_CONTROL_GOOD] = finite ? c[HK_CONTROL_GOOD] + 1 : 0;
    if (finite) {
        c[HK_CONTROL_UPDATES] += 1;
        c[HK_CONTROL_REST1] = (double)a->beta1_rest + (double)a->beta1 * c[HK_CONTROL_REST1];
        c[HK_CONTROL_REST2] = (double)a->beta2_rest + (double)a->beta2 * c[HK_CONTROL_REST2];
        if (a->scaling && c[HK_CONTROL_GOOD] >= (double)a->growth_interval) {
            c[HK_CONTROL_LOSS_SCALE] *= (double)a->growth;
            c[HK_CONTROL_GOOD] = 0;
        }
    } else {
        c[HK_CONTROL_SKIPPED] += 1;
        c[HK_CONTROL_LOSS_SCALE] *= a->scaling ? (double)a->backoff : 1.0;
    }
    c[HK_CONTROL_MULTIPLIER] = finite ? multiplier : 0;
    c[HK_CONTROL_APPLY] = finite;
    for (int i = 0; i < HK_CONTROL_WORDS; i++)
        hk_set_double(out, i, c[i]);
    return HK_OK;
}

static hk_status control_lower(hk_lower *l)
{
    const hk_node *n = l->node;
    const control_attrs *a = n->attrs;
    const struct update_control_push push = {.beta1 = a->beta1,
                                             .beta1_rest = a->beta1_rest,
                                             .beta2 = a->beta2,
                                             .beta2_rest = a->beta2_rest,
                                             .clip = a->clip,
                                             .growth = a->growth,
                                             .backoff = a->backoff,
                                             .growth_interval = (float)a->growth_interval};
    hk_record *r = hk_emit(l, &hk_kernel_update_control, "update control");
    hk_workgroup(r, 1, 1, 1);
    hk_spec(r, 3, hk_in(n, SQUARES) != NULL);
    hk_spec(r, 4, hk_in(n, COUNT) != NULL);
    hk_spec(r, 5, a->scaling != 0);
    hk_grid(r, 1, 1, 1);
    hk_push(r, &push, sizeof push);
    hk_use(r, n->in[OLD_CONTROL], HK_READ, offsetof(struct update_control_push, control));
    hk_use(r, hk_in(n, SQUARES), HK_READ, offsetof(struct update_control_push, squares));
    hk_use(r, hk_in(n, COUNT), HK_READ, offsetof(struct update_control_push, count));
    hk_use(r, n->in[CONTROL_STEP], HK_READ, offsetof(struct update_control_push, step));
    hk_use(r, n->out[0], HK_WRITE, offsetof(struct update_control_push, new_control));
    return HK_OK;
}

/* ---- hk.AccumulateGradient(sum, gradients, step) → accumulate * sum + gradients */

static hk_status accumulate_infer(hk_infer *in)
{
    return infer_alike(in, 1u << 1);
}

static hk_status accumulate_eval(hk_eval *e)
{
    const hk_shape shape = hk_tensor_shape(e->in[0]);
    hk_tensor *y = hk_eval_output(e, 0, e->in[0]->dtype, &shape);
    double beta = (double)e->step->accumulate;
    if (!y)
        return hk_out_of_memory(e->ctx, "accumulated gradients");
    for (int64_t i = 0; i < hk_shape_count(&shape); i++)
        hk_set_double(y, i, (beta == 0.0 ? 0.0 : beta * hk_get_double(e->in[0], i)) + hk_get_double(e->in[1], i));
    return HK_OK;
}

static hk_status accumulate_lower(hk_lower *l)
{
    const hk_node *n = l->node;
    int64_t count = hk_shape_count(&n->in[0]->shape);
    HK_TRY(hk_require_float32(l, n->in[0]));
    if (count == 0)
        return HK_OK;
    const struct accumulate_push push = {.count = (uint32_t)count};
    const hk_value *const all[] = {n->in[0], n->in[1], n->out[0]};
    hk_record *r = emit_flat(l, &hk_kernel_accumulate, "accumulate", count, hk_aligned_all(all, HK_COUNT(all)), &push,
                             sizeof push);
    hk_use(r, n->in[0], HK_READ, offsetof(struct accumulate_push, sum));
    hk_use(r, n->in[1], HK_READ, offsetof(struct accumulate_push, gradients));
    hk_use(r, n->out[0], HK_WRITE, offsetof(struct accumulate_push, new_sum));
    hk_use(r, n->in[2], HK_READ, offsetof(struct accumulate_push, step));
    r->flops = 2.0 * (double)count;
    return HK_OK;
}

/* ---- the table */

/* Controls: {updates, rest1, rest2, loss scale, good, skipped, multiplier, apply}. */
#define CONTROL_CASE "f32[8]={1.0,0.1,0.001,1.0,1.0,0.0,0.5,1.0} step"
#define LATER_CASE "f32[8]={7.0,0.52,0.007,1.0,7.0,0.0,1.0,1.0} step"
#define SKIPPED_CASE "f32[8]={7.0,0.52,0.007,1.0,7.0,1.0,0.0,0.0} step"
static const char *const update_cases[] = {
    "f32[1000] f32[1000] " CONTROL_CASE " f32[1000] f32[1000]+;weight_decay=[0.01];out=3 nograd",
    "f32[7] f32[7] " LATER_CASE " f32[7] f32[7]+ f32[7];beta1=0.8 beta1_rest=0.2 beta2=0.99 beta2_rest=0.01 eps=1e-3 "
    "weight_decay=[0.5] average_rest=0.1;out=4 nograd",
    "f32[66000] f32[66000] " LATER_CASE " f32[66000] f32[66000]+;;out=3 nograd",
    "f32[1000] f32[1000] " LATER_CASE " f32[1000] f32[1000]+ f32[1000];kind=1 ends=[64,128,1000] "
    "lr_scale=[1.0,0.1,2.0] weight_decay=[0.1,0.0,0.2];out=4 nograd",
    "f32[1000] f32[1000] " SKIPPED_CASE " f32[1000] f32[1000]+ f32[1000];weight_decay=[0.01];out=4 nograd",
    "f32[0] f32[0] " CONTROL_CASE " f32[0] f32[0];;out=3 nograd",
    "f32[1000] f32[1000] " LATER_CASE ";kind=2 weight_decay=[0.1];nograd",
    "f32[1003] f32[1003] " LATER_CASE " f32[1003];kind=3 beta1_rest=0.9 weight_decay=[0.1];out=2 nograd",
    "f32[1000] f32[1000] " CONTROL_CASE " f32[1000];kind=3 beta1_rest=1.0 nesterov=1;out=2 nograd",
    "f32[1000] f32[1000] " LATER_CASE " f32[1000];kind=3 beta1_rest=1.0 nesterov=1;out=2 nograd",
    NULL};
static const char *const control_cases[] = {
    "f32[8]={0.0,0.0,0.0,1.0,0.0,0.0,0.0,0.0} step;;nograd",
    "f32[8]={3.0,0.2,0.002,1.0,3.0,0.0,0.0,0.0} step f32[]+;clip=0.5;nograd",
    "f32[8]={3.0,0.2,0.002,1.0,3.0,0.0,0.0,0.0} step - f32=7.0;;nograd",
    "f32[8]={3.0,0.2,0.002,1.0,3.0,0.0,0.0,0.0} step f32[]+ f32=7.0;clip=100.0;nograd",
    "f32[8]={3.0,0.2,0.002,1024.0,3.0,0.0,0.0,0.0} step f32=4.0;scaling=1 growth_interval=4;nograd",
    "f32[8]={3.0,0.2,0.002,1024.0,3.0,0.0,0.0,0.0} step f32=inf;scaling=1;nograd",
    "f32[8]={3.0,0.2,0.002,1024.0,3.0,0.0,0.0,0.0} step f32=nan;clip=1.0;nograd",
    NULL};
static const char *const accumulate_cases[] = {"f32[1000] f32[1000] step;;nograd", "f32[3] f32[3] step;;nograd",
                                               "f32[5,7] f32[5,7] step;;nograd", NULL};

const hk_op hk_ops_optimizer[] = {
    {.type = "hk.Update",
     .since = 1,
     .in_min = 4,
     .in_max = 7,
     .out_min = 1,
     .out_max = 4,
     .flags = HK_OP_KEEP,
     .attrs_bytes = sizeof(update_attrs),
     .attrs = update_attr_list,
     .infer = update_infer,
     .eval = update_eval,
     .lower = update_lower,
     .cases = update_cases},
    {.type = "hk.UpdateControl",
     .since = 1,
     .in_min = 2,
     .in_max = 4,
     .out_min = 1,
     .out_max = 1,
     .flags = HK_OP_KEEP,
     .attrs_bytes = sizeof(control_attrs),
     .attrs = control_attr_list,
     .infer = control_infer,
     .eval = control_eval,
     .lower = control_lower,
     .cases = control_cases},
    {.type = "hk.AccumulateGradient",
     .since = 1,
     .in_min = 3,
     .in_max = 3,
     .out_min = 1,
     .out_max = 1,
     .flags = HK_OP_KEEP,
     .infer = accumulate_infer,
     .eval = accumulate_eval,
     .lower = accumulate_lower,
     .cases = accumulate_cases},
    {0},
};
