/* Losses as nodes, so that their gradients come from the rules of the operators they are made of. Definitions are
 * torch.nn's. */
#include <float.h>
#include <string.h>

#include "train/training.h"

typedef struct builder {
    hk_graph *g;
    const hk_loss_options *o;
    hk_value *x, *t; /* prediction and target */
    hk_status st;    /* of the first call that failed: later ones do nothing */
} builder;

/* ---- short forms. A failed build yields NULL, and everything after it too. */

static hk_value *node(builder *b, const char *type, const hk_attr_value *attrs, hk_value *const *in, int32_t count)
{
    hk_value *out = NULL;
    for (int32_t i = 0; i < count && b->st == HK_OK; i++)
        if (!in[i])
            b->st = hk_out_of_memory(b->g->ctx, "a loss");
    if (b->st == HK_OK)
        b->st = hk_build(b->g, type, attrs, in, count, &out, 1);
    return b->st == HK_OK ? out : NULL;
}

static hk_value *unary(builder *b, const char *type, hk_value *x)
{
    return node(b, type, NULL, &x, 1);
}

static hk_value *binary(builder *b, const char *type, hk_value *x, hk_value *y)
{
    return node(b, type, NULL, (hk_value *[]){x, y}, 2);
}

static hk_value *number(builder *b, double x)
{
    return hk_graph_scalar(b->g, HK_FLOAT32, x);
}

static hk_value *scaled(builder *b, hk_value *x, double factor)
{
    return factor == 1.0 ? x : binary(b, "Mul", x, number(b, factor));
}

static hk_value *sum_axis(builder *b, hk_value *x, int64_t axis)
{
    const hk_attr_value attrs[] = {HK_SET_INT("keepdims", 0), {0}};
    return node(b, "ReduceSum", attrs, (hk_value *[]){x, hk_graph_ints(b->g, &axis, 1)}, 2);
}

static hk_value *sum_all(builder *b, hk_value *x)
{
    const hk_attr_value attrs[] = {HK_SET_INT("keepdims", 0), {0}};
    return node(b, "ReduceSum", attrs, &x, 1);
}

static hk_value *to_float(builder *b, hk_value *x)
{
    const hk_attr_value attrs[] = {HK_SET_INT("to", 1), {0}};
    return node(b, "Cast", attrs, &x, 1);
}

/* Per-element or per-sample losses, reduced; count: by what the mean divides. */
static hk_value *reduced(builder *b, hk_value *each, hk_value *count)
{
    if (b->o->reduction == HK_REDUCE_NONE || b->st != HK_OK)
        return each;
    hk_value *sum = sum_all(b, each);
    return b->o->reduction == HK_REDUCE_SUM ? sum : binary(b, "Div", sum, count);
}

/* ---- losses of classes */

/* As (C), or as (C, 1, ...), which broadcasts over (N, C, ...). */
static hk_value *class_weights(builder *b, bool broadcast)
{
    const hk_tensor *w = b->o->class_weights;
    hk_shape shape = {.rank = broadcast ? b->x->shape.rank - 1 : 1, .dim = {w->shape[0]}};
    for (int32_t d = 1; d < shape.rank; d++)
        shape.dim[d] = 1;
    hk_tensor *copy = hk_tensor_new(b->g->arena, HK_FLOAT32, &shape);
    if (!copy)
        return NULL;
    hk_tensor_pack(w, copy->data);
    return hk_graph_constant(b->g, "class_weights", copy);
}

/* 1 where the label counts, else 0. */
static hk_value *label_mask(builder *b)
{
    hk_value *ignored = binary(b, "Equal", b->t, hk_graph_scalar(b->g, b->t->dtype, (double)b->o->ignore_index));
    return to_float(b, unary(b, "Not", ignored));
}

/* The weight of each label's class, 0 where it is ignored. */
static hk_value *label_weights(builder *b)
{
    hk_value *mask = label_mask(b);
    if (!b->o->class_weights)
        return mask;
    hk_value *safe = binary(b, "Max", b->t, hk_graph_scalar(b->g, b->t->dtype, 0));
    const hk_attr_value attrs[] = {HK_SET_INT("axis", 0), {0}};
    hk_value *weights = node(b, "Gather", attrs, (hk_value *[]){class_weights(b, false), safe}, 2);
    return binary(b, "Mul", weights, mask);
}

static const char *reduction_text(hk_reduce r)
{
    return r == HK_REDUCE_NONE ? "none" : r == HK_REDUCE_SUM ? "sum" : "mean";
}

static hk_value *hard_labels(builder *b, const char *type, hk_value *scores)
{
    const hk_attr_value attrs[] = {HK_SET_INT("ignore_index", b->o->ignore_index),
                                   HK_SET_STRING("reduction", reduction_text(b->o->reduction)),
                                   {0}};
    if (!strcmp(type, "SoftmaxCrossEntropyLoss") && !b->o->class_weights && b->o->reduction == HK_REDUCE_MEAN) {
        const hk_attr_value plain[] = {HK_SET_INT("ignore_index", b->o->ignore_index), {0}};
        return node(b, "hk.CrossEntropy", plain, (hk_value *[]){scores, b->t}, 2);
    }
    if (!b->o->class_weights)
        return node(b, type, attrs, (hk_value *[]){scores, b->t}, 2);
    return node(b, type, attrs, (hk_value *[]){scores, b->t, class_weights(b, false)}, 3);
}

/* (1 - e) of the loss of the label and e / C of the sum of the losses of all classes. */
static hk_value *smoothed_labels(builder *b, hk_value *valid)
{
    const hk_attr_value attrs[] = {HK_SET_INT("axis", 1), {0}};
    double e = (double)b->o->label_smoothing, classes = (double)b->x->shape.dim[1];
    hk_value *log_p = node(b, "LogSoftmax", attrs, &b->x, 1);
    hk_value *label = hard_labels(b, "NegativeLogLikelihoodLoss", log_p);
    hk_value *each = b->o->class_weights ? binary(b, "Mul", log_p, class_weights(b, true)) : log_p;
    hk_value *all = binary(b, "Mul", sum_axis(b, each, 1), label_mask(b));
    return binary(b, "Sub", scaled(b, label, 1 - e), scaled(b, reduced(b, all, valid), e / classes));
}

static hk_value *soft_labels(builder *b, hk_value *samples)
{
    const hk_attr_value attrs[] = {HK_SET_INT("axis", 1), {0}};
    double e = (double)b->o->label_smoothing, classes = (double)b->x->shape.dim[1];
    hk_value *log_p = node(b, "LogSoftmax", attrs, &b->x, 1), *t = b->t;
    if (e > 0)
        t = binary(b, "Add", scaled(b, t, 1 - e), number(b, e / classes));
    if (b->o->class_weights)
        t = binary(b, "Mul", t, class_weights(b, true));
    hk_value *each = unary(b, "Neg", sum_axis(b, binary(b, "Mul", t, log_p), 1));
    return reduced(b, each, samples);
}

/* ---- losses of numbers */

static hk_value *distance(builder *b, hk_loss loss)
{
    hk_value *d = binary(b, "Sub", b->x, b->t);
    double beta = (double)b->o->beta;
    if (loss == HK_LOSS_MSE)
        return binary(b, "Mul", d, d);
    d = unary(b, "Abs", d);
    if (loss == HK_LOSS_L1)
        return d;
    /* with m = min(|d|, beta): m (|d| - m / 2) is Huber's, and beta times the smooth L1 */
    hk_value *m = binary(b, "Min", d, number(b, beta));
    hk_value *huber = binary(b, "Mul", m, binary(b, "Sub", d, scaled(b, m, 0.5)));
    return loss == HK_LOSS_HUBER ? huber : scaled(b, huber, 1 / beta);
}

static hk_value *of_numbers(builder *b, hk_loss loss)
{
    if (loss == HK_LOSS_BCE_LOGITS) { /* (1 - t) x + log(1 + exp(-x)) */
        hk_value *linear = binary(b, "Mul", binary(b, "Sub", number(b, 1), b->t), b->x);
        return binary(b, "Add", linear, unary(b, "Softplus", unary(b, "Neg", b->x)));
    }
    if (loss == HK_LOSS_KL) { /* t (log t - x), 0 where t is 0 */
        hk_value *log_t = unary(b, "Log", binary(b, "Max", b->t, number(b, (double)FLT_MIN)));
        return binary(b, "Mul", b->t, binary(b, "Sub", log_t, b->x));
    }
    return distance(b, loss);
}

/* ---- choosing */

static bool of_classes(const hk_loss_options *o)
{
    return o->loss == HK_LOSS_CROSS_ENTROPY || o->loss == HK_LOSS_NLL;
}

/* Of scores (N,C,...), torch's, 1; the last of (N,...,C), which language models have, where only that fits the labels.
 */
static int32_t class_axis(const hk_loss_options *o, const hk_value *x, const hk_value *t)
{
    int32_t last = x->shape.rank - 1;
    hk_shape first = {.rank = last}, leading = {.rank = last};
    if (!of_classes(o) || hk_dtype_is_float(t->dtype) || last < 2)
        return 1;
    for (int32_t d = 0; d < last; d++) {
        leading.dim[d] = x->shape.dim[d];
        first.dim[d] = x->shape.dim[d + (d > 0)];
    }
    return hk_shape_equal(&t->shape, &leading) && !hk_shape_equal(&t->shape, &first) ? last : 1;
}

static hk_value *classes_second(builder *b, hk_value *x, int32_t axis)
{
    int64_t order[HK_MAX_RANK] = {0, axis};
    for (int32_t d = 2; d <= axis; d++)
        order[d] = d - 1;
    const hk_attr_value attrs[] = {HK_SET_INTS("perm", order, axis + 1), {0}};
    return axis == 1 ? x : node(b, "Transpose", attrs, &x, 1);
}

/* The loss of a probability takes what the probability was made of. */
static hk_value *logits_of(const hk_loss_options *o, hk_value *x, int32_t class_axis)
{
    const hk_node *n = x->producer;
    if (!n)
        return x;
    bool softmax = o->loss == HK_LOSS_CROSS_ENTROPY && (!strcmp(n->type, "Softmax") || !strcmp(n->type, "LogSoftmax"));
    if (softmax) {
        const int64_t *axis = hk_node_attr(n, "axis");
        int32_t rank = x->shape.rank;
        return axis && (*axis == class_axis || *axis + rank == class_axis) ? n->in[0] : x;
    }
    return o->loss == HK_LOSS_BCE_LOGITS && !strcmp(n->type, "Sigmoid") ? n->in[0] : x;
}

hk_value *hk_loss_input(const hk_loss_options *o, hk_value *x)
{
    hk_value *y = logits_of(o, x, 1);
    return y == x && x->shape.rank > 2 ? logits_of(o, x, x->shape.rank - 1) : y;
}

bool hk_loss_fits(const hk_loss_options *o, const hk_value *output, const hk_value *input, const hk_value *target)
{
    hk_value seen = *output;
    seen.shape = input->shape;
    return logits_of(o, &seen, class_axis(o, input, target)) == hk_loss_input(o, &seen);
}

/* Targets (N) are those of an output (N,1), as a column of a file is: dimensions of 1 hold no order. */
static hk_value *shaped_target(builder *b, const hk_value *x)
{
    int32_t i = 0, k = 0;
    const hk_shape *a = &x->shape, *c = &b->t->shape;
    while (i < a->rank || k < c->rank)
        if (i < a->rank && a->dim[i] == 1)
            i++;
        else if (k < c->rank && c->dim[k] == 1)
            k++;
        else if (i == a->rank || k == c->rank || a->dim[i++] != c->dim[k++])
            return b->t;
    return node(b, "Reshape", NULL, (hk_value *[]){b->t, hk_graph_ints(b->g, a->dim, a->rank)}, 2);
}

static hk_status check(const hk_graph *g, const hk_loss_options *o, const hk_value *x, const hk_value *t, int32_t axis)
{
    hk_shape_text a, b;
    bool labels = !hk_dtype_is_float(t->dtype);
    if (!hk_dtype_is_float(x->dtype))
        return hk_fail(g->ctx, HK_STATUS_USAGE, "output '%s' is %s: a loss needs a float output", x->name,
                       hk_dtype_name(x->dtype));
    if (o->loss == HK_LOSS_CROSS_ENTROPY && x->shape.rank > 1 && x->shape.dim[axis] == 1)
        return hk_fail(
            g->ctx, HK_STATUS_USAGE,
            "output '%s' has one class, and the cross entropy of one class is always 0: binary cross entropy "
            "takes its logits, other losses its numbers",
            x->name);
    if (labels && !of_classes(o))
        return hk_fail(g->ctx, HK_STATUS_USAGE, "targets are %s: this loss needs float32 targets of shape %s",
                       hk_dtype_name(t->dtype), hk_shape_print(&x->shape, &a));
    if (!labels && o->loss == HK_LOSS_NLL)
        return hk_fail(g->ctx, HK_STATUS_USAGE, "targets are %s: the negative log likelihood needs int64 labels",
                       hk_dtype_name(t->dtype));
    if (!labels && !hk_shape_equal(&x->shape, &t->shape))
        return hk_fail(g->ctx, HK_STATUS_USAGE, "targets have shape %s, output '%s' has %s: they must be equal",
                       hk_shape_print(&t->shape, &a), x->name, hk_shape_print(&x->shape, &b));
    if (of_classes(o) && x->shape.rank < 2)
        return hk_fail(g->ctx, HK_STATUS_USAGE, "output '%s' has shape %s: class scores are (N,C) or (N,C,...)",
                       x->name, hk_shape_print(&x->shape, &a));
    if (o->class_weights && (!of_classes(o) || o->class_weights->shape[0] != x->shape.dim[axis]))
        return hk_fail(g->ctx, HK_STATUS_USAGE,
                       of_classes(o) ? "there are %lld class weights, output '%s' has %lld classes"
                                     : "%lld class weights were given: a loss of numbers has none (output '%s', %lld)",
                       (long long)o->class_weights->shape[0], x->name,
                       (long long)x->shape.dim[x->shape.rank > 1 ? axis : 0]);
    if (o->label_smoothing != 0 && o->loss != HK_LOSS_CROSS_ENTROPY)
        return hk_fail(g->ctx, HK_STATUS_USAGE, "label smoothing belongs to the cross entropy");
    return HK_OK;
}

/* Of float targets: elements, samples for probabilities of classes, or the batch. */
static double mean_divisor(const builder *b)
{
    double elements = (double)hk_shape_count(&b->x->shape);
    if (b->o->reduction == HK_REDUCE_BATCHMEAN)
        return (double)b->x->shape.dim[0];
    return of_classes(b->o) ? elements / (double)b->x->shape.dim[1] : elements;
}

hk_status hk_append_loss(hk_graph *g, const hk_loss_options *o, hk_value *prediction, hk_value *target, hk_value **loss,
                         hk_value **valid)
{
    int32_t axis = class_axis(o, prediction, target);
    builder b = {.g = g, .o = o, .t = target};
    if (hk_dtype_is_float(target->dtype) && !of_classes(o) && !hk_shape_equal(&prediction->shape, &target->shape))
        target = b.t = shaped_target(&b, prediction);
    if (!target)
        return b.st;
    HK_TRY(check(g, o, prediction, target, axis));
    b.x = classes_second(&b, logits_of(o, prediction, axis), axis);
    if (!b.x)
        return b.st;
    bool labels = !hk_dtype_is_float(target->dtype), smoothed = labels && o->label_smoothing > 0;
    hk_value *count = NULL;
    if (labels && (valid || smoothed))
        count = sum_all(&b, label_weights(&b));
    else if (!labels)
        count = number(&b, mean_divisor(&b));
    if (smoothed)
        *loss = smoothed_labels(&b, count);
    else if (labels)
        *loss = hard_labels(&b, o->loss == HK_LOSS_NLL ? "NegativeLogLikelihoodLoss" : "SoftmaxCrossEntropyLoss", b.x);
    else if (o->loss == HK_LOSS_CROSS_ENTROPY)
        *loss = soft_labels(&b, count);
    else
        *loss = reduced(&b, of_numbers(&b, o->loss), count);
    if (valid)
        *valid = count;
    return b.st;
}
