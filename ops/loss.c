/* Losses of class scores: hk.CrossEntropy (what trainers use), ONNX's SoftmaxCrossEntropyLoss and
 * NegativeLogLikelihoodLoss, and the gradient of all three. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "kernels.h"
#include "ops/support/reduce.h"
#include "shaders/loss.push.h"
#include "shaders/loss_grad.push.h"
#include "shaders/loss_total.push.h"

typedef struct loss_attrs {
    int64_t ignore_index;
    const char *reduction;
    int64_t likelihood; /* gradients: scores are log-probabilities */
} loss_attrs;

#define NOTHING_IGNORED INT64_MIN /* no label has this value */

static const hk_attr attrs_plain[] = {HK_INT_ATTR(loss_attrs, ignore_index, -100), {0}};
static const hk_attr attrs_onnx[] = {
    HK_INT_ATTR(loss_attrs, ignore_index, NOTHING_IGNORED), HK_STRING_ATTR(loss_attrs, reduction, "mean"), {0}};
static const hk_attr attrs_grad[] = {HK_INT_ATTR(loss_attrs, ignore_index, -100),
                                     HK_STRING_ATTR(loss_attrs, reduction, "mean"),
                                     HK_INT_ATTR(loss_attrs, likelihood, 0),
                                     {0}};

/* Numbers are shared with shaders/loss.glsl. */
typedef enum hk_loss_reduction { REDUCTION_NONE, REDUCTION_SUM, REDUCTION_MEAN, REDUCTION_UNKNOWN } hk_loss_reduction;

static hk_loss_reduction reduction_of(const hk_node *n)
{
    static const char *const names[] = {"none", "sum", "mean"};
    const loss_attrs *a = n->attrs;
    for (int i = 0; i < 3 && a->reduction; i++)
        if (!strcmp(a->reduction, names[i]))
            return (hk_loss_reduction)i;
    return a->reduction ? REDUCTION_UNKNOWN : REDUCTION_MEAN;
}

static bool takes_likelihood(const hk_node *n)
{
    const loss_attrs *a = n->attrs;
    return a->likelihood || !strcmp(n->op->type, "NegativeLogLikelihoodLoss");
}

/* Scores as [samples][classes][inner], one row per label. */
typedef struct rows_view {
    int64_t rows, classes, inner;
} rows_view;

static rows_view view_rows(const hk_shape *scores)
{
    int64_t inner = hk_shape_span(scores, 2, scores->rank);
    return (rows_view){.rows = scores->dim[0] * inner, .classes = scores->dim[1], .inner = inner};
}

static hk_shape label_shape(const hk_shape *scores)
{
    hk_shape s = *scores;
    if (s.rank < 2)
        return HK_SHAPE_UNKNOWN;
    memmove(s.dim + 1, s.dim + 2, (size_t)(s.rank - 2) * sizeof s.dim[0]);
    s.rank--;
    return s;
}

/* ---- inference of shapes */

static hk_status check_operands(hk_infer *in, const hk_value *scores, const hk_value *labels, const hk_value *weights)
{
    hk_shape_text a, b;
    const loss_attrs *attrs = in->node->attrs;
    if (!hk_dtype_is_float(scores->dtype))
        return hk_infer_fail(in, HK_STATUS_INVALID, "scores '%s' are %s, expected a float type", scores->name,
                             hk_dtype_name(scores->dtype));
    if (labels->dtype != HK_INT64 && labels->dtype != HK_INT32)
        return hk_infer_fail(in, HK_STATUS_INVALID, "labels '%s' are %s, expected int64 or int32", labels->name,
                             hk_dtype_name(labels->dtype));
    if (reduction_of(in->node) == REDUCTION_UNKNOWN)
        return hk_infer_fail(in, HK_STATUS_INVALID, "reduction is \"%s\", expected \"none\", \"sum\" or \"mean\"",
                             attrs->reduction);
    if (scores->shape.rank < 0)
        return HK_OK;
    if (scores->shape.rank < 2 || scores->shape.dim[1] == 0)
        return hk_infer_fail(in, HK_STATUS_INVALID, "scores '%s' have shape %s, expected (N,C) or (N,C,...) with C > 0",
                             scores->name, hk_shape_print(&scores->shape, &a));
    hk_shape want = label_shape(&scores->shape);
    bool fits = labels->shape.rank < 0 || labels->shape.rank == want.rank;
    for (int32_t d = 0; fits && d < labels->shape.rank; d++)
        fits = labels->shape.dim[d] < 0 || want.dim[d] < 0 || labels->shape.dim[d] == want.dim[d];
    if (!fits)
        return hk_infer_fail(in, HK_STATUS_INVALID, "labels '%s' have shape %s, expected %s", labels->name,
                             hk_shape_print(&labels->shape, &a), hk_shape_print(&want, &b));
    if (weights && weights->shape.rank >= 0 &&
        (weights->shape.rank != 1 ||
         (weights->shape.dim[0] >= 0 && scores->shape.dim[1] >= 0 && weights->shape.dim[0] != scores->shape.dim[1])))
        return hk_infer_fail(in, HK_STATUS_INVALID, "weights '%s' have shape %s, expected [%lld]", weights->name,
                             hk_shape_print(&weights->shape, &a), (long long)scores->shape.dim[1]);
    return HK_OK;
}

static hk_status loss_infer(hk_infer *in)
{
    const hk_node *n = in->node;
    const hk_value *scores = n->in[0];
    HK_TRY(check_operands(in, scores, n->in[1], hk_in(n, 2)));
    hk_shape rows = label_shape(&scores->shape), scalar = HK_SCALAR;
    HK_TRY(hk_infer_output(in, 0, scores->dtype, reduction_of(n) == REDUCTION_NONE ? &rows : &scalar));
    /* hk.CrossEntropy saves the logarithm of each row's sum, ONNX's loss the log-probabilities. */
    return hk_infer_output(in, 1, scores->dtype, n->op->attrs == attrs_plain ? &rows : &scores->shape);
}

/* ---- host */

/* A row's label and weight: index -1 where the label is ignored, NaN weight where it names no class. */
typedef struct row_label {
    int64_t index;
    double weight;
} row_label;

static row_label label_of(const hk_node *n, const rows_view *v, const hk_tensor *labels, const hk_tensor *weights,
                          int64_t row)
{
    const loss_attrs *a = n->attrs;
    int64_t x = hk_get_int(labels, row);
    if (x == a->ignore_index)
        return (row_label){.index = -1};
    if (x < 0 || x >= v->classes)
        return (row_label){.weight = NAN};
    return (row_label){.index = x, .weight = weights ? hk_get_double(weights, x) : 1.0};
}

static double log_sum_exp(const hk_tensor *x, const rows_view *v, int64_t first)
{
    double largest = -INFINITY, sum = 0.0;
    for (int64_t j = 0; j < v->classes; j++)
        largest = fmax(largest, hk_get_double(x, first + j * v->inner));
    for (int64_t j = 0; j < v->classes; j++)
        sum += exp(hk_get_double(x, first + j * v->inner) - largest);
    return largest + log(sum);
}

static int64_t row_start(const rows_view *v, int64_t row)
{
    return row / v->inner * v->classes * v->inner + row % v->inner;
}

static hk_status loss_eval(hk_eval *e)
{
    const hk_node *n = e->node;
    const hk_tensor *x = e->in[0], *labels = e->in[1], *weights = hk_in(n, 2) ? e->in[2] : NULL;
    const hk_shape shape = hk_tensor_shape(x), rows = label_shape(&shape), scalar = HK_SCALAR;
    const rows_view v = view_rows(&shape);
    hk_loss_reduction reduction = reduction_of(n);
    bool log_sums = n->op->attrs == attrs_plain;
    hk_tensor *loss = hk_eval_output(e, 0, x->dtype, reduction == REDUCTION_NONE ? &rows : &scalar);
    hk_tensor *second = hk_eval_output(e, 1, x->dtype, log_sums ? &rows : &shape);
    if (!loss || (hk_out(n, 1) && !second))
        return hk_out_of_memory(e->ctx, "a loss");
    double sum = 0.0, total = 0.0;
    for (int64_t row = 0; row < v.rows; row++) {
        int64_t first = row_start(&v, row);
        const row_label label = label_of(n, &v, labels, weights, row);
        double log_sum = takes_likelihood(n) ? 0.0 : log_sum_exp(x, &v, first);
        double own = label.index < 0 ? 0.0 : label.weight * (log_sum - hk_get_double(x, first + label.index * v.inner));
        sum += own;
        total += label.weight;
        if (reduction == REDUCTION_NONE)
            hk_set_double(loss, row, own);
        if (second && log_sums)
            hk_set_double(second, row, log_sum);
        for (int64_t j = 0; second && !log_sums && j < v.classes; j++)
            hk_set_double(second, first + j * v.inner, hk_get_double(x, first + j * v.inner) - log_sum);
    }
    if (reduction != REDUCTION_NONE)
        hk_set_double(loss, 0, reduction == REDUCTION_MEAN ? sum / total : sum);
    return HK_OK;
}

/* ---- device */

enum {
    ONE_GROUP_SCORES = 32768, /* scores that one workgroup reads alone rather than pay a second dispatch */
    COUNT_ROWS_GPU = 4096,    /* labels that every workgroup of a gradient counts itself, for the same reason */
    COUNT_ROWS_CPU = 512,
};

/* Many rows → several workgroups; few → one, as wide as allowed, whose result is final. */
static hk_team plan_loss(const hk_lower *l, const rows_view *v, bool weights_only, int64_t *groups)
{
    int64_t units = weights_only ? 1 : (v->classes + 3) / 4, each = weights_only ? 1 : v->classes;
    hk_team t = v->inner > 1 ? hk_team_columns(l, v->rows, each) : hk_team_rows(l, v->rows, units);
    int64_t wanted = (v->rows + t.items - 1) / t.items;
    bool one = v->rows * each <= ONE_GROUP_SCORES;
    if (l->cpu) {
        *groups = HK_MAX(HK_MIN(HK_MIN(wanted, v->rows * each / 4096), 16), 1);
        return t;
    }
    *groups = one ? 1 : HK_MIN(wanted, 4 * (int64_t)l->compute_units_hint);
    if (!one)
        return t;
    uint32_t limit = 1;
    while (limit * 2 <= HK_MIN(l->device->max_invocations, 256u))
        limit *= 2;
    t.lanes = 1;
    while (t.lanes < units && t.lanes * 2 * v->rows <= limit)
        t.lanes *= 2;
    t.items = 1;
    while (t.items < v->rows && t.items * 2 * t.lanes <= limit)
        t.items *= 2;
    return t;
}

/* What loss.comp does here: NULL loss outputs are not written. weight_total: the sum of the rows' weights alone. */
typedef struct loss_job {
    hk_value *scores, *labels, *weights;
    hk_value *loss, *log_sums, *weight_total;
    hk_loss_reduction reduction;
    bool likelihood;
    int64_t ignored;
} loss_job;

static void emit_total(hk_lower *l, hk_value *partial, hk_value *result, int64_t groups, uint32_t kind)
{
    hk_team t = hk_team_rows(l, 1, groups);
    t.items = l->cpu ? t.items : 1;
    const struct loss_total_push push = {.groups = (uint32_t)groups};
    hk_record *r = hk_team_emit(l, &t, (hk_team_kernel){&hk_kernel_loss_total, NULL}, "loss total", 1, &push,
                                sizeof push);
    hk_spec(r, HK_TEAM_SPEC, kind);
    hk_use(r, partial, HK_READ, offsetof(struct loss_total_push, partial));
    hk_use(r, result, HK_WRITE, offsetof(struct loss_total_push, loss));
}

static void emit_loss(hk_lower *l, const loss_job *j)
{
    const rows_view v = view_rows(&j->scores->shape);
    int64_t groups;
    hk_team t = plan_loss(l, &v, !j->loss, &groups);
    hk_value *result = j->loss ? j->loss : j->weight_total, *partial = NULL;
    if (j->reduction == REDUCTION_NONE)
        groups = (v.rows + t.items - 1) / t.items;
    else if (groups > 1 && !(partial = hk_scratch(l, HK_FLOAT32, 2 * groups)))
        return; /* l->failed tells */
    const struct loss_push push = {.rows = (uint32_t)v.rows,
                                   .classes = (uint32_t)v.classes,
                                   .inner = (uint32_t)v.inner,
                                   .groups = (uint32_t)groups,
                                   .ignored_low = (uint32_t)(uint64_t)j->ignored,
                                   .ignored_high = (uint32_t)((uint64_t)j->ignored >> 32)};
    hk_record *r = hk_team_emit(l, &t, (hk_team_kernel){&hk_kernel_loss, &hk_kernel_loss_subgroup},
                                j->loss ? "loss" : "loss weights", groups * t.items, &push, sizeof push);
    hk_spec(r, HK_TEAM_SPEC, 0);
    hk_spec(r, HK_TEAM_SPEC + 1,
            v.inner == 1 && v.classes % 4 == 0 && hk_aligned_all((const hk_value *[]){j->scores}, 1));
    hk_spec(r, HK_TEAM_SPEC + 2, j->labels->dtype == HK_INT64);
    hk_spec(r, HK_TEAM_SPEC + 3, j->likelihood);
    hk_spec(r, HK_TEAM_SPEC + 4, j->weights != NULL);
    hk_spec(r, HK_TEAM_SPEC + 5, j->reduction);
    hk_spec(r, HK_TEAM_SPEC + 6, j->loss != NULL);
    hk_spec(r, HK_TEAM_SPEC + 7, j->log_sums != NULL);
    hk_spec(r, HK_TEAM_SPEC + 8, !partial && j->reduction != REDUCTION_NONE);
    hk_use(r, j->loss || j->log_sums ? j->scores : NULL, HK_READ, offsetof(struct loss_push, scores));
    hk_use(r, j->labels, HK_READ, offsetof(struct loss_push, labels));
    hk_use(r, j->weights, HK_READ, offsetof(struct loss_push, weights));
    hk_use(r, partial ? NULL : result, HK_WRITE, offsetof(struct loss_push, loss));
    hk_use(r, j->log_sums, HK_WRITE, offsetof(struct loss_push, log_sums));
    hk_use(r, partial, HK_WRITE, offsetof(struct loss_push, partial));
    r->flops = j->loss ? 4.0 * (double)(v.rows * v.classes) : 0.0;
    if (partial)
        emit_total(l, partial, result, groups, j->loss ? (uint32_t)j->reduction : 3u);
}

static hk_status loss_lower(hk_lower *l)
{
    const hk_node *n = l->node;
    const loss_attrs *a = n->attrs;
    hk_value *scores = n->in[0];
    const rows_view v = view_rows(&scores->shape);
    bool log_sums = n->op->attrs == attrs_plain;
    const loss_job job = {.scores = scores,
                          .labels = n->in[1],
                          .weights = hk_in(n, 2),
                          .loss = n->out[0],
                          .log_sums = log_sums ? hk_out(n, 1) : NULL,
                          .reduction = reduction_of(n),
                          .likelihood = takes_likelihood(n),
                          .ignored = a->ignore_index};
    HK_TRY(hk_require_float32(l, scores));
    HK_TRY(hk_require_float32(l, job.weights));
    if (v.rows == 0) {
        if (job.reduction != REDUCTION_NONE) /* the mean of nothing is NaN, its sum 0 */
            hk_emit_fill(l, n->out[0], job.reduction == REDUCTION_MEAN ? 0x7fc00000u : 0);
        return HK_OK;
    }
    emit_loss(l, &job);
    if (!log_sums && hk_out(n, 1))
        hk_emit_softmax(l, scores, n->out[1], v.rows, v.classes, v.inner, true);
    return HK_OK;
}

static hk_status loss_backward(hk_gradient *g, hk_node *n)
{
    static const char *const names[] = {"none", "sum", "mean"};
    const loss_attrs *a = n->attrs;
    hk_graph *graph = hk_gradient_graph(g);
    hk_value *dloss = hk_gradient_of(g, n->out[0]), *second = hk_gradient_of(g, hk_out(n, 1)), *dx = NULL;
    if (hk_gradient_wanted(g, hk_in(n, 2)))
        return hk_fail(graph->ctx, HK_STATUS_UNSUPPORTED,
                       "node '%s' (%s): class weights '%s' are trainable, and there is no gradient for them", n->name,
                       n->type, n->in[2]->name);
    if (second && n->op->attrs == attrs_plain)
        return hk_fail(graph->ctx, HK_STATUS_UNSUPPORTED,
                       "node '%s' (%s): the loss depends on its saved sums '%s', which have no gradient", n->name,
                       n->type, n->out[1]->name);
    if (dloss) {
        const hk_attr_value attrs[] = {HK_SET_INT("ignore_index", a->ignore_index),
                                       HK_SET_STRING("reduction", names[reduction_of(n)]),
                                       HK_SET_INT("likelihood", takes_likelihood(n)),
                                       {0}};
        hk_value *const in[] = {dloss, n->in[0], n->in[1], hk_in(n, 2)};
        HK_TRY(hk_build(graph, "hk.CrossEntropyGrad", attrs, in, in[3] ? 4 : 3, &dx, 1));
        HK_TRY(hk_gradient_add(g, n->in[0], dx));
    }
    if (second) {
        const hk_attr_value attrs[] = {HK_SET_INT("axis", 1), {0}};
        HK_TRY(hk_build(graph, "hk.LogSoftmaxGrad", attrs, (hk_value *[]){second, n->out[1]}, 2, &dx, 1));
        HK_TRY(hk_gradient_add(g, n->in[0], dx));
    }
    return HK_OK;
}

/* ---- hk.CrossEntropyGrad(dloss, scores, labels, weights) → dscores */

static hk_status grad_infer(hk_infer *in)
{
    const hk_node *n = in->node;
    const hk_value *dloss = n->in[0], *scores = n->in[1];
    hk_shape_text a;
    HK_TRY(check_operands(in, scores, n->in[2], hk_in(n, 3)));
    hk_shape want = reduction_of(n) == REDUCTION_NONE ? label_shape(&scores->shape) : HK_SCALAR;
    if (hk_shape_known(&dloss->shape) && hk_shape_known(&want) &&
        hk_shape_count(&dloss->shape) != hk_shape_count(&want))
        return hk_infer_fail(in, HK_STATUS_INVALID, "gradient '%s' has shape %s, expected the loss's", dloss->name,
                             hk_shape_print(&dloss->shape, &a));
    return hk_infer_output(in, 0, scores->dtype, &scores->shape);
}

static hk_status grad_eval(hk_eval *e)
{
    const hk_node *n = e->node;
    const hk_tensor *dloss = e->in[0], *x = e->in[1], *labels = e->in[2], *weights = hk_in(n, 3) ? e->in[3] : NULL;
    const hk_shape shape = hk_tensor_shape(x);
    const rows_view v = view_rows(&shape);
    hk_tensor *dx = hk_eval_output(e, 0, x->dtype, &shape);
    if (!dx)
        return hk_out_of_memory(e->ctx, "a loss's gradient");
    double total = 0.0;
    for (int64_t row = 0; row < v.rows; row++)
        total += label_of(n, &v, labels, weights, row).weight;
    for (int64_t row = 0; row < v.rows; row++) {
        int64_t first = row_start(&v, row);
        const row_label label = label_of(n, &v, labels, weights, row);
        double factor = label.weight * hk_get_double(dloss, reduction_of(n) == REDUCTION_NONE ? row : 0);
        factor = reduction_of(n) == REDUCTION_MEAN ? factor / total : factor;
        double log_sum = takes_likelihood(n) ? 0.0 : log_sum_exp(x, &v, first);
        for (int64_t j = 0; j < v.classes && label.index >= 0; j++) {
            double p = takes_likelihood(n) ? 0.0 : exp(hk_get_double(x, first + j * v.inner) - log_sum);
            hk_set_double(dx, first + j * v.inner, (p - (j == label.index ? 1.0 : 0.0)) * factor);
        }
    }
    return HK_OK;
}

static hk_status grad_lower(hk_lower *l)
{
    const hk_node *n = l->node;
    const loss_attrs *a = n->attrs;
    hk_value *dloss = n->in[0], *scores = n->in[1], *labels = n->in[2], *weights = hk_in(n, 3), *dx = n->out[0],
             *total = NULL;
    const rows_view v = view_rows(&scores->shape);
    hk_loss_reduction reduction = reduction_of(n);
    HK_TRY(hk_require_float32(l, scores));
    HK_TRY(hk_require_float32(l, dloss));
    HK_TRY(hk_require_float32(l, weights));
    if (v.rows == 0)
        return HK_OK;
    bool count = reduction == REDUCTION_MEAN && v.rows <= (l->cpu ? COUNT_ROWS_CPU : COUNT_ROWS_GPU);
    if (reduction == REDUCTION_MEAN && !count) {
        total = hk_scratch(l, HK_FLOAT32, 1);
        if (!total)
            return HK_OK;
        emit_loss(l, &(loss_job){.scores = scores,
                                 .labels = labels,
                                 .weights = weights,
                                 .weight_total = total,
                                 .reduction = REDUCTION_SUM,
                                 .likelihood = true,
                                 .ignored = a->ignore_index});
    }
    int64_t units = (v.classes + 3) / 4;
    const hk_team t = v.inner > 1 ? hk_team_columns(l, v.rows, v.classes) : hk_team_rows(l, v.rows, units);
    const struct loss_grad_push push = {.rows = (uint32_t)v.rows,
                                        .classes = (uint32_t)v.classes,
                                        .inner = (uint32_t)v.inner,
                                        .ignored_low = (uint32_t)(uint64_t)a->ignore_index,
                                        .ignored_high = (uint32_t)((uint64_t)a->ignore_index >> 32)};
    uint32_t held = hk_team_held(l, &t, units);
    hk_record *r = hk_team_emit(l, &t, (hk_team_kernel){&hk_kernel_loss_grad, &hk_kernel_loss_grad_subgroup},
                                held ? "loss_grad held" : "loss_grad long", v.rows, &push, sizeof push);
    hk_spec(r, HK_TEAM_SPEC, held);
    hk_spec(r, HK_TEAM_SPEC + 1,
            v.inner == 1 && v.classes % 4 == 0 && hk_aligned_all((const hk_value *[]){scores, dx}, 2));
    hk_spec(r, HK_TEAM_SPEC + 2, labels->dtype == HK_INT64);
    hk_spec(r, HK_TEAM_SPEC + 3, takes_likelihood(n));
    hk_spec(r, HK_TEAM_SPEC + 4, weights != NULL);
    hk_spec(r, HK_TEAM_SPEC + 5, reduction);
    hk_spec(r, HK_TEAM_SPEC + 6, count);
    hk_use(r, dloss, HK_READ, offsetof(struct loss_grad_push, dloss));
    hk_use(r, scores, HK_READ, offsetof(struct loss_grad_push, scores));
    hk_use(r, labels, HK_READ, offsetof(struct loss_grad_push, labels));
    hk_use(r, weights, HK_READ, offsetof(struct loss_grad_push, weights));
    hk_use(r, total, HK_READ, offsetof(struct loss_grad_push, total));
    hk_use(r, dx, HK_WRITE, offsetof(struct loss_grad_push, dscores));
    r->flops = 5.0 * (double)(v.rows * v.classes);
    return HK_OK;
}

/* ---- the table */

#define CASES(name, ...) static const char *const name[] = {__VA_ARGS__, NULL}

CASES(plain_cases, "f32[5,10] i64[5]<10", "f32[5,10] i32[5]<10;ignore_index=3",
      "f32[2,3,4,5] i64[2,4,5]<3;;out=2 nograd", "f32[256,10] i64[256]<10;;out=2 nograd",
      "f32[3,1000] i64[3]<1000;;nograd", "f32[5000,9] i64[5000]<9;ignore_index=4;nograd", "f32[4,5] i64[4]<5:9;;nograd",
      "f32[4,5] i64[4]<-3:5;;nograd", "f32[6,3] i64[6]<1;ignore_index=0;nograd", "f32[0,3] i64[0]<3;;nograd",
      "f32[1,1] i64[1]<1");
CASES(onnx_cases, "f32[5,10] i64[5]<10", "f32[5,10] i64[5]<10 f32={1,2,0.5,1,1,3,1,1,0.25,1};ignore_index=2",
      "f32[5,4] i64[5]<4;reduction=\"sum\"", "f32[2,3,4] i32[2,4]<3;reduction=\"none\"",
      "f32[2,3,4] i32[2,4]<3 f32={1,2,0.5};reduction=\"none\" ignore_index=1",
      "f32[2,3,4,5] i64[2,4,5]<3 f32={1,2,0.5};reduction=\"sum\"",
      "f32[300,7,20] i64[300,20]<7 f32={1,2,0.5,1,1,3,1};;nograd", "f32[0,3] i64[0]<3;reduction=\"sum\";nograd",
      "f32[66000,2] i64[66000]<2;reduction=\"none\";nograd");
CASES(log_prob_cases, "f32[5,10] i64[5]<10;;out=2", "f32[2,3,4] i64[2,4]<3;reduction=\"none\";out=2",
      "f32[5,4] i64[5]<4;reduction=\"sum\"", "f32[2,3,4,5] i64[2,4,5]<3 f32={1,2,0.5};ignore_index=0");
CASES(grad_cases, "f32=1.5 f32[5,10] i64[5]<10;;nograd", "f32=0.5 f32[256,10] i32[256]<10;ignore_index=3;nograd",
      "f32[2,4] f32[2,3,4] i64[2,4]<3;reduction=\"none\";nograd", "f32=2 f32[5,4] i64[5]<4 f32={1,2,0.5,3};;nograd",
      "f32=2 f32[5,4] i64[5]<4 f32={1,2,0.5,3};likelihood=1;nograd", "f32=1 f32[6000,8] i64[6000]<8;;nograd",
      "f32=1 f32[2,9000] i64[2]<9000;;nograd", "f32=1 f32[9,3,700] i64[9,700]<3;reduction=\"sum\";nograd",
      "f32=1 f32[4,5] i64[4]<9;;nograd", "f32=1 f32[0,5] i64[0]<5;;nograd");

#define ONNX_LOSS(name, first, outs, cases_)                                                                           \
    {                                                                                                                  \
        .type = name, .since = first, .in_min = 2, .in_max = 3, .out_min = 1, .out_max = outs,                         \
        .attrs_bytes = sizeof(loss_attrs), .attrs = attrs_onnx, .infer = loss_infer, .eval = loss_eval,                \
        .lower = loss_lower, .backward = loss_backward, .cases = cases_                                                \
    }

const hk_op hk_ops_loss[] = {
    {.type = "hk.CrossEntropy",
     .since = 1,
     .in_min = 2,
     .in_max = 2,
     .out_min = 1,
     .out_max = 2,
     .attrs_bytes = sizeof(loss_attrs),
     .attrs = attrs_plain,
     .infer = loss_infer,
     .eval = loss_eval,
     .lower = loss_lower,
     .backward = loss_backward,
     .cases = plain_cases},
    {.type = "hk.CrossEntropyGrad",
     .since = 1,
     .in_min = 3,
     .in_max = 4,
     .out_min = 1,
     .out_max = 1,
     .attrs_bytes = sizeof(loss_attrs),
     .attrs = attrs_grad,
     .infer = grad_infer,
     .eval = grad_eval,
     .lower = grad_lower,
     .cases = grad_cases},
    ONNX_LOSS("SoftmaxCrossEntropyLoss", 12, 2, log_prob_cases),
    ONNX_LOSS("NegativeLogLikelihoodLoss", 12, 1, onnx_cases),
    {0},
};
