/* hk.AdamW and hk.AccumulateGradient: updates of flat states, whose scalars come from the step block. */
#include <math.h>
#include <stddef.h>

#include "kernels.h"
#include "ops/step.h"
#include "ops/support/reduce.h"
#include "shaders/adamw.push.h"
#include "shaders/adamw_accumulate.push.h"

typedef struct adamw_attrs {
    float beta1, beta2, eps, weight_decay;
} adamw_attrs;

static const hk_attr attr_list[] = {HK_FLOAT_ATTR(adamw_attrs, beta1, 0.9),
                                    HK_FLOAT_ATTR(adamw_attrs, beta2, 0.999),
                                    HK_FLOAT_ATTR(adamw_attrs, eps, 1e-8),
                                    HK_FLOAT_ATTR(adamw_attrs, weight_decay, 0.01),
                                    {0}};

/* Inputs [0, count) have one float type and shape; outputs 0 .. get it too. */
static hk_status infer_alike(hk_infer *in, int32_t count)
{
    const hk_node *n = in->node;
    const hk_value *first = n->in[0];
    hk_shape_text a, b;
    if (!hk_dtype_is_float(first->dtype))
        return hk_infer_fail(in, HK_STATUS_INVALID, "'%s' is %s, expected a float type", first->name,
                             hk_dtype_name(first->dtype));
    for (int32_t i = 1; i < count; i++) {
        const hk_value *v = n->in[i];
        if (v->dtype != first->dtype || !hk_shape_equal(&v->shape, &first->shape))
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

/* ---- hk.AdamW(parameters, gradients, first moments, second moments, step) → new parameters and moments.
 *
 * torch.optim.AdamW, in its order: p *= 1 - lr weight_decay; m += (g - m)(1 - beta1); v = beta2 v + (1 - beta2) g^2;
 * p -= lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps), with g = grad_scale * gradient. */

static hk_status adamw_infer(hk_infer *in)
{
    return infer_alike(in, 4);
}

static hk_status adamw_eval(hk_eval *e)
{
    const adamw_attrs *a = e->node->attrs;
    const hk_step *s = e->step;
    const hk_shape shape = hk_tensor_shape(e->in[0]);
    hk_tensor *p = hk_eval_output(e, 0, e->in[0]->dtype, &shape);
    hk_tensor *m = hk_eval_output(e, 1, e->in[0]->dtype, &shape);
    hk_tensor *v = hk_eval_output(e, 2, e->in[0]->dtype, &shape);
    if (!p || !m || !v)
        return hk_out_of_memory(e->ctx, "an optimizer state");
    double step_size = (double)s->lr / (1.0 - (double)s->beta1_power), root = sqrt(1.0 - (double)s->beta2_power);
    for (int64_t i = 0; i < hk_shape_count(&shape); i++) {
        double g = hk_get_double(e->in[1], i) * (double)s->grad_scale;
        double x = hk_get_double(e->in[0], i) * (1.0 - (double)s->lr * (double)a->weight_decay);
        double first = hk_get_double(e->in[2], i), second = hk_get_double(e->in[3], i);
        first += (g - first) * (1.0 - (double)a->beta1);
        second = second * (double)a->beta2 + (1.0 - (double)a->beta2) * g * g;
        hk_set_double(p, i, x - step_size * first / (sqrt(second) / root + (double)a->eps));
        hk_set_double(m, i, first);
        hk_set_double(v, i, second);
    }
    return HK_OK;
}

static hk_status adamw_lower(hk_lower *l)
{
    const hk_node *n = l->node;
    const adamw_attrs *a = n->attrs;
    int64_t count = hk_shape_count(&n->in[0]->shape);
    HK_TRY(hk_require_float32(l, n->in[0]));
    if (count == 0)
        return HK_OK;
    const struct adamw_push push = {.count = (uint32_t)count,
                                    .beta1_rest = (float)(1.0 - (double)a->beta1),
                                    .beta2 = a->beta2,
                                    .beta2_rest = (float)(1.0 - (double)a->beta2),
                                    .eps = a->eps,
                                    .weight_decay = a->weight_decay};
    const hk_value *const all[] = {n->in[0], n->in[1], n->in[2], n->in[3], n->out[0], n->out[1], n->out[2]};
    hk_record *r = emit_flat(l, &hk_kernel_adamw, "adamw", count, hk_aligned_all(all, HK_COUNT(all)), &push,
                             sizeof push);
    hk_use(r, n->in[0], HK_READ, offsetof(struct adamw_push, parameters));
    hk_use(r, n->in[1], HK_READ, offsetof(struct adamw_push, gradients));
    hk_use(r, n->in[2], HK_READ, offsetof(struct adamw_push, first));
    hk_use(r, n->in[3], HK_READ, offsetof(struct adamw_push, second));
    hk_use(r, n->out[0], HK_WRITE, offsetof(struct adamw_push, new_parameters));
    hk_use(r, n->out[1], HK_WRITE, offsetof(struct adamw_push, new_first));
    hk_use(r, n->out[2], HK_WRITE, offsetof(struct adamw_push, new_second));
    hk_use(r, n->in[4], HK_READ, offsetof(struct adamw_push, step));
    r->flops = 15.0 * (double)count;
    return HK_OK;
}

/* ---- hk.AccumulateGradient(sum, gradients, step) → accumulate * sum + gradients */

static hk_status accumulate_infer(hk_infer *in)
{
    return infer_alike(in, 2);
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
    const struct adamw_accumulate_push push = {.count = (uint32_t)count};
    const hk_value *const all[] = {n->in[0], n->in[1], n->out[0]};
    hk_record *r = emit_flat(l, &hk_kernel_adamw_accumulate, "accumulate", count, hk_aligned_all(all, HK_COUNT(all)),
                             &push, sizeof push);
    hk_use(r, n->in[0], HK_READ, offsetof(struct adamw_accumulate_push, sum));
    hk_use(r, n->in[1], HK_READ, offsetof(struct adamw_accumulate_push, gradients));
    hk_use(r, n->out[0], HK_WRITE, offsetof(struct adamw_accumulate_push, new_sum));
    hk_use(r, n->in[2], HK_READ, offsetof(struct adamw_accumulate_push, step));
    r->flops = 2.0 * (double)count;
    return HK_OK;
}

/* ---- the table */

static const char *const adamw_cases[] = {
    "f32[1000] f32[1000] f32[1000] f32[1000]+ step;;out=3 nograd",
    "f32[7] f32[7] f32[7] f32[7]+ step;beta1=0.8 beta2=0.99 eps=1e-3 weight_decay=0.5;out=3 nograd",
    "f32[66000] f32[66000] f32[66000] f32[66000]+ step;weight_decay=0.0;out=3 nograd",
    "f32[0] f32[0] f32[0] f32[0] step;;out=3 nograd", NULL};
static const char *const accumulate_cases[] = {"f32[1000] f32[1000] step;;nograd", "f32[3] f32[3] step;;nograd",
                                               "f32[5,7] f32[5,7] step;;nograd", NULL};

const hk_op hk_ops_adamw[] = {
    {.type = "hk.AdamW",
     .since = 1,
     .in_min = 5,
     .in_max = 5,
     .out_min = 3,
     .out_max = 3,
     .flags = HK_OP_KEEP,
     .attrs_bytes = sizeof(adamw_attrs),
     .attrs = attr_list,
     .infer = adamw_infer,
     .eval = adamw_eval,
     .lower = adamw_lower,
     .cases = adamw_cases},
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
