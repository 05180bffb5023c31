/*
 * Dropout of all opsets, and its gradient. Random words are Philox(seed, {index in its sample / 4, global number of the
 * sample, stream, step}), so forward, backward, host and device agree without a saved mask, and micro-batches draw what
 * the whole batch would. Samples are counted along the first dimension.
 *
 * When it trains: before opset 7 unless is_test is set; in opsets 7 to 11, which have no such switch, when the hidden
 * attribute hk.training is set; from opset 12 on when training_mode is true. Otherwise, and with a ratio that is known
 * to be 0, it is the identity, a view.
 */
#include <math.h>
#include <string.h>

#include "core/philox.h"
#include "kernels.h"
#include "ops/divisor.h"
#include "ops/op.h"
#include "ops/step.h"
#include "shaders/dropout.push.h"

typedef struct dropout_attrs {
    float ratio;
    int64_t is_test, seed, stream, training;
    hk_ints consumed_inputs;
} dropout_attrs;

#define NO_SEED (-0x1p63)
#define HIDDEN                                                                                                         \
    {.name = "hk.stream", .kind = HK_ATTR_INT, .offset = offsetof(dropout_attrs, stream), .number = -1},               \
    {                                                                                                                  \
        .name = "hk.training", .kind = HK_ATTR_INT, .offset = offsetof(dropout_attrs, training)                        \
    }
#define RATIO HK_FLOAT_ATTR(dropout_attrs, ratio, 0.5)
#define SEED HK_INT_ATTR(dropout_attrs, seed, NO_SEED)

static const hk_attr attrs_1[] = {
    RATIO, HK_INT_ATTR(dropout_attrs, is_test, 0), HK_INTS_ATTR(dropout_attrs, consumed_inputs), HIDDEN, {0}};
static const hk_attr attrs_7[] = {RATIO, HIDDEN, {0}};
static const hk_attr attrs_12[] = {SEED, HIDDEN, {0}};

enum { IN_X, IN_RATIO, IN_TRAINING };
enum { WORKGROUP = 128 };

/* ---- what a node does */

static bool is_gradient(const hk_node *n)
{
    return !strcmp(n->op->type, "hk.DropoutGrad");
}

static const dropout_attrs *attrs_of(const hk_node *n)
{
    return n->attrs;
}

/* Where no input says it: an attribute, and from opset 12 on a half. */
static float ratio_of(const hk_node *n)
{
    return n->opset >= 12 && !is_gradient(n) ? 0.5f : attrs_of(n)->ratio;
}

static bool drops_nothing(const hk_node *n)
{
    const hk_tensor *t = hk_known(n, IN_RATIO);
    return t ? hk_tensor_count(t) == 1 && hk_get_double(t, 0) == 0 : !hk_in(n, IN_RATIO) && ratio_of(n) == 0;
}

/* 1 or 0, which is also what dropping nothing is; -1: it depends on a run-time input. */
static int training_of(const hk_node *n)
{
    if (drops_nothing(n))
        return 0;
    if (n->opset < 7)
        return attrs_of(n)->is_test == 0;
    if (!hk_in(n, IN_TRAINING))
        return attrs_of(n)->training != 0;
    const hk_tensor *t = hk_known(n, IN_TRAINING);
    return t && hk_tensor_count(t) == 1 ? hk_get_int(t, 0) != 0 : -1;
}

/* A stable number for the node: of its name, unless given. ONNX's seed makes another stream of it. */
static uint32_t stream_of(const hk_node *n)
{
    const dropout_attrs *a = attrs_of(n);
    uint32_t h = a->stream >= 0 ? (uint32_t)a->stream : hk_philox_stream(n->name);
    if (a->seed != (int64_t)NO_SEED && a->seed != 0)
        h ^= (uint32_t)((uint64_t)a->seed * 0x9E3779B97F4A7C15u >> 32);
    return h;
}

/* Words below this are dropped; the shader computes the same. */
static uint32_t least_word(float ratio)
{
    return ratio > 0.0f && ratio < 1.0f ? (uint32_t)((double)ratio * 0x1p32) : 0;
}

/* Both steps rounded to float32, as the shader does where ratio comes at run time; a double's quotient of floats rounds
 * as theirs would. */
static float scale_of(float ratio)
{
    return ratio < 1.0f ? (float)(1.0 / (double)(1.0f - ratio)) : 0.0f;
}

static int64_t sample_size(const hk_shape *s)
{
    return s->rank > 0 ? hk_shape_span(s, 1, s->rank) : 1;
}

/* ---- shapes */

static hk_status infer(hk_infer *in)
{
    const hk_node *n = in->node;
    const hk_value *x = n->in[IN_X], *ratio = hk_in(n, IN_RATIO), *training = hk_in(n, IN_TRAINING);
    if (!hk_dtype_is_float(x->dtype))
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected floats, found %s", hk_dtype_name(x->dtype));
    if (ratio &&
        (!hk_dtype_is_float(ratio->dtype) || (hk_shape_known(&ratio->shape) && hk_shape_count(&ratio->shape) != 1)))
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected ratio as one float, found %s",
                             hk_dtype_name(ratio->dtype));
    if (training && training->dtype != HK_BOOL)
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected training_mode as a bool, found %s",
                             hk_dtype_name(training->dtype));
    HK_TRY(hk_infer_output(in, 0, x->dtype, &x->shape));
    return hk_infer_output(in, 1, n->opset < 10 ? x->dtype : HK_BOOL, &x->shape);
}

static int64_t view_offset(const hk_node *n)
{
    return training_of(n) == 0 && !hk_out(n, 1) ? 0 : -1;
}

/* ---- the oracle */

static hk_status eval(hk_eval *e)
{
    const hk_node *n = e->node;
    const hk_tensor *x = e->in[IN_X], *r = n->in_count > IN_RATIO ? e->in[IN_RATIO] : NULL;
    const hk_tensor *t = n->in_count > IN_TRAINING ? e->in[IN_TRAINING] : NULL;
    hk_shape shape = hk_tensor_shape(x);
    hk_tensor *y = hk_eval_output(e, 0, x->dtype, &shape), *mask = NULL;
    if (hk_out(n, 1) && !(mask = hk_eval_output(e, 1, hk_out(n, 1)->dtype, &shape)))
        return hk_out_of_memory(e->ctx, "a dropout mask");
    if (!y)
        return hk_out_of_memory(e->ctx, "a dropout result");
    bool training = t ? hk_get_int(t, 0) != 0 : training_of(n) == 1;
    float ratio = !training ? 0.0f : r ? (float)hk_get_double(r, 0) : ratio_of(n);
    uint32_t least = least_word(ratio), stream = stream_of(n), word[4];
    double scale = (double)scale_of(ratio);
    int64_t count = hk_shape_count(&shape), size = sample_size(&shape);
    for (int64_t k = 0; k < count; k++) {
        int64_t i = k % size, sample = k / size;
        hk_philox(e->step->seed,
                  (const uint32_t[4]){(uint32_t)(i / 4), e->step->sample + (uint32_t)sample, stream, e->step->step},
                  word);
        bool keep = word[i % 4] >= least && ratio < 1.0f;
        hk_set_double(y, k, keep ? hk_get_double(x, k) * scale : 0.0);
        if (mask)
            hk_set_double(mask, k, keep);
    }
    return HK_OK;
}

/* ---- the device */

static hk_status check(const hk_lower *l, const hk_value *v)
{
    if (!v || (hk_value_storage(v) == HK_FLOAT32 && v->layout == HK_LAYOUT_CONTIGUOUS))
        return HK_OK;
    return hk_fail(l->ctx, HK_STATUS_UNSUPPORTED,
                   "node '%s' (%s): expected '%s' as contiguous float32 on the device, found %s", l->node->name,
                   l->node->type, v->name, hk_dtype_name(hk_value_storage(v)));
}

/* ratio and training_mode as numbers where they are known, else as operands. */
static hk_status set_mode(hk_lower *l, hk_record *r, struct dropout_push *push)
{
    const hk_node *n = l->node;
    const hk_tensor *known = hk_known(n, IN_RATIO);
    int training = training_of(n);
    bool at_run_time = hk_in(n, IN_RATIO) && !known && training != 0;
    if (at_run_time)
        HK_TRY(check(l, n->in[IN_RATIO]));
    push->ratio = training == 0 ? 0.0f : known ? (float)hk_get_double(known, 0) : ratio_of(n);
    push->scale = scale_of(push->ratio);
    hk_push(r, push, sizeof *push);
    if (at_run_time)
        hk_use(r, n->in[IN_RATIO], HK_READ, offsetof(struct dropout_push, ratio_input));
    if (training < 0)
        hk_use(r, n->in[IN_TRAINING], HK_READ, offsetof(struct dropout_push, training));
    return HK_OK;
}

static hk_status lower(hk_lower *l)
{
    const hk_node *n = l->node;
    hk_value *x = n->in[IN_X], *y = hk_out(n, 0), *mask = hk_out(n, 1), *step = hk_graph_step(l->graph);
    int64_t count = hk_shape_count(&x->shape), size = sample_size(&x->shape);
    HK_TRY(check(l, x));
    HK_TRY(check(l, y));
    if (!step)
        return HK_STATUS_OUT_OF_MEMORY;
    if (count == 0)
        return HK_OK;
    hk_divisor by = hk_divisor_of(size);
    struct dropout_push push = {.count = (uint32_t)count,
                                .size = (uint32_t)size,
                                .multiplier = by.multiplier,
                                .shift = by.shift,
                                .stream = stream_of(n)};
    bool aligned = hk_value_alignment(x) == 16 && hk_value_alignment(y) == 16 &&
                   (!mask || hk_value_alignment(mask) == 16);
    hk_record *r = hk_emit(l, &hk_kernel_dropout, "dropout");
    HK_TRY(set_mode(l, r, &push));
    hk_use(r, x, HK_READ, offsetof(struct dropout_push, x));
    hk_use(r, y, HK_WRITE, offsetof(struct dropout_push, y));
    hk_use(r, mask, HK_WRITE, offsetof(struct dropout_push, mask));
    hk_use(r, step, HK_READ, offsetof(struct dropout_push, step));
    hk_workgroup(r, WORKGROUP, 1, 1);
    hk_spec(r, 3, aligned && size % 4 == 0);
    hk_spec(r, 4, !mask ? 0 : mask->dtype == HK_BOOL ? 1 : 2);
    hk_grid_1d(l, r, (uint64_t)((count + WORKGROUP * 4 - 1) / (WORKGROUP * 4)));
    return HK_OK;
}

/* ---- the gradient: the same mask on dy */

static hk_status backward(hk_gradient *g, hk_node *n)
{
    hk_value *dy = hk_gradient_of(g, n->out[0]);
    if (!dy || !hk_gradient_wanted(g, n->in[IN_X]))
        return HK_OK;
    int training = training_of(n);
    if (training == 0)
        return hk_gradient_add(g, n->in[IN_X], dy);
    const hk_attr_value attrs[] = {HK_SET_FLOAT("ratio", ratio_of(n)),
                                   HK_SET_INT("hk.stream", stream_of(n)),
                                   HK_SET_INT("hk.training", training != 0),
                                   {0}};
    hk_value *in[] = {dy, hk_in(n, IN_RATIO), hk_in(n, IN_TRAINING)}, *dx = NULL;
    HK_TRY(hk_build(hk_gradient_graph(g), "hk.DropoutGrad", attrs, in, 3, &dx, 1));
    return hk_gradient_add(g, n->in[IN_X], dx);
}

static const char *const cases_1[] = {"f32[3,20] ; ; opset=6", "f32[3,20] ; ratio=0.3 ; opset=6 out=2",
                                      "f32[3,5] ; is_test=1 ; opset=6", NULL};
static const char *const cases_7[] = {"f32[3,20] ; ; opset=7", "f32[3,21] ; ratio=0.3 hk.training=1 ; opset=7 out=2",
                                      NULL};
static const char *const cases_10[] = {"f32[3,20] ; ratio=0.1 ; opset=10", "f32[3,4] ; ratio=0.1 ; opset=10 out=2",
                                       "f32[3,5,7] ; ratio=0.3 hk.training=1 ; opset=10 out=2", NULL};
static const char *const cases_12[] = {"f32[3,20]",
                                       "f32[3,20] f32=0.3 bool=1",
                                       "f32[3,20] f32=0.3 bool=0 ; ; out=2",
                                       "f32[5,4,8] f32=0.5 bool=1 ; seed=5 ; out=2",
                                       "f32[5,3,3] f32=0.25 bool=1 ; ; out=2",
                                       "f32[7] - bool=1",
                                       "f32[] f32=0.5 bool=1",
                                       "f32[4,1030] f32=0.9 bool=1 ; hk.stream=17",
                                       "f32[3,20] f32=0.0 bool=1",
                                       "f32[3,20] f32=0.0 bool=1 ; ; out=2",
                                       "f32[3,20] f32=1.0 bool=1 ; ; out=2",
                                       "f32[3,20] f32[]+ bool[] ; ; out=2 nograd",
                                       "f32[3,20] p.f32[]=0.3 bool=1 ; ; out=2 nograd",
                                       "f32[3,20] p.f32[]=0.7 bool=1 ; ; out=2 nograd",
                                       "f32[3,20] p.f32[]=0.11 bool[] ; ; out=2 nograd",
                                       "f32[0,4] f32=0.5 bool=1",
                                       NULL};
static const char *const cases_grad[] = {"f32[3,20] f32=0.3 bool=1 ; hk.stream=4 ; nograd",
                                         "f32[3,21] ; ratio=0.3 hk.stream=4 hk.training=1 ; nograd", NULL};

#define COMMON                                                                                                         \
    .out_min = 1, .flags = HK_OP_RANDOM | HK_OP_VIEW, .attrs_bytes = sizeof(dropout_attrs), .infer = infer,            \
    .eval = eval, .lower = lower, .view_offset = view_offset

const hk_op hk_ops_dropout[] = {
    {.type = "Dropout",
     .since = 1,
     .until = 6,
     .in_min = 1,
     .in_max = 1,
     .out_max = 2,
     .attrs = attrs_1,
     .backward = backward,
     .cases = cases_1,
     COMMON},
    {.type = "Dropout",
     .since = 7,
     .until = 9,
     .in_min = 1,
     .in_max = 1,
     .out_max = 2,
     .attrs = attrs_7,
     .backward = backward,
     .cases = cases_7,
     COMMON},
    {.type = "Dropout",
     .since = 10,
     .until = 11,
     .in_min = 1,
     .in_max = 1,
     .out_max = 2,
     .attrs = attrs_7,
     .backward = backward,
     .cases = cases_10,
     COMMON},
    {.type = "Dropout",
     .since = 12,
     .in_min = 1,
     .in_max = 3,
     .out_max = 2,
     .attrs = attrs_12,
     .backward = backward,
     .cases = cases_12,
     COMMON},
    {.type = "hk.DropoutGrad",
     .since = 1,
     .in_min = 1,
     .in_max = 3,
     .out_max = 1,
     .attrs = attrs_7,
     .cases = cases_grad,
     COMMON},
    {0},
};
