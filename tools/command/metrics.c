/* Accuracy, top k, F1, errors. */
#include "tools/command/metrics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool begin(metrics *m, int64_t classes)
{
    if (m->classes == classes)
        return true;
    m->classes = classes;
    size_t n = (size_t)classes;
    if (m->by.weights && m->by.weight_count != n) {
        fprintf(stderr, "hillock: there are %zu class weights, and the output has %zu classes\n", m->by.weight_count,
                n);
        return false;
    }
    m->found = calloc(n, sizeof *m->found);
    m->said = calloc(n, sizeof *m->said);
    m->of = calloc(n, sizeof *m->of);
    if (!m->found || !m->said || !m->of)
        fprintf(stderr, "hillock: out of memory\n");
    return m->found && m->said && m->of;
}

static double logarithm(double p)
{
    return log(fmax(p, 1e-45));
}

static double weight_of(const metrics *m, int64_t c)
{
    return m->by.weights ? (double)m->by.weights[c] : 1;
}

/* log p of one class, of scores that are `step` apart and lie in memory as float32. */
typedef struct score_row {
    const float *scores;
    int64_t step;
    double offset; /* log of the sum of the exponentials; NaN: the scores are probabilities */
} score_row;

static score_row look_at(const metrics *m, const float *scores, int64_t step)
{
    double most = -INFINITY, sum = 0, exponentials = 0;
    bool probabilities = true;
    for (int64_t c = 0; c < m->classes; c++) {
        double x = (double)scores[c * step];
        most = fmax(most, x);
        sum += x;
        probabilities &= x >= 0 && x <= 1;
    }
    for (int64_t c = 0; c < m->classes; c++)
        exponentials += exp((double)scores[c * step] - most);
    double offset = probabilities && fabs(sum - 1) < 1e-4 ? (double)NAN : most + log(exponentials);
    return (score_row){scores, step, offset};
}

static double log_p(const score_row *r, int64_t c)
{
    double x = (double)r->scores[c * r->step];
    return isnan(r->offset) ? logarithm(x) : x - r->offset;
}

static void count(metrics *m, int64_t said, int64_t label)
{
    m->samples++;
    m->right += said == label;
    m->said[said]++;
    m->of[label]++;
    m->found[label] += said == label;
}

/* A score equal to the label's with a smaller number comes first, as torch.argmax. */
static void add_row(metrics *m, const score_row *r, int64_t label)
{
    int64_t best = 0, before = 0;
    double x = (double)r->scores[label * r->step];
    for (int64_t c = 0; c < m->classes; c++) {
        double y = (double)r->scores[c * r->step];
        if (y > (double)r->scores[best * r->step])
            best = c;
        before += y > x || (y == x && c < label);
    }
    m->right_top += before < m->by.top;
    count(m, best, label);
}

/* torch.nn's: (1 - e) of the label's loss and e / C of all classes' losses, each with the weight of its class. */
static double label_loss(const metrics *m, const score_row *r, int64_t label)
{
    double e = m->by.smoothing, sum = 0;
    for (int64_t c = 0; e > 0 && c < m->classes; c++)
        sum -= weight_of(m, c) * log_p(r, c);
    return sum * e / (double)m->classes - (1 - e) * weight_of(m, label) * log_p(r, label);
}

static int64_t product(const int64_t *shape, int32_t count)
{
    int64_t n = 1;
    for (int32_t d = 0; d < count; d++)
        n *= shape[d];
    return n;
}

static bool add_labels(metrics *m, const hk_tensor *y, const hk_tensor *t, int32_t axis)
{
    int64_t inner = product(y->shape + axis + 1, y->rank - axis - 1), rows = hk_tensor_count(t);
    if (!begin(m, y->shape[axis]))
        return false;
    for (int64_t i = 0; i < rows; i++) {
        int64_t label = ((const int64_t *)t->data)[i];
        if (label == m->by.ignore_index)
            continue;
        if (label < 0 || label >= m->classes) {
            fprintf(
                stderr,
                "hillock: label %lld is out of range: the model has %lld classes; --ignore-index names a label that "
                "does not count\n",
                (long long)label, (long long)m->classes);
            return false;
        }
        score_row r = look_at(m, (const float *)y->data + i / inner * m->classes * inner + i % inner, inner);
        m->loss += label_loss(m, &r, label);
        m->weight += weight_of(m, label);
        add_row(m, &r, label);
    }
    return true;
}

/* The class that a sample's probabilities favour is its label. */
static bool add_soft_labels(metrics *m, const hk_tensor *y, const hk_tensor *t)
{
    int64_t inner = product(y->shape + 2, y->rank - 2);
    if (!begin(m, y->shape[1]))
        return false;
    for (int64_t i = 0; i < y->shape[0] * inner; i++) {
        int64_t at = i / inner * m->classes * inner + i % inner, label = 0;
        const float *p = (const float *)t->data + at;
        score_row r = look_at(m, (const float *)y->data + at, inner);
        for (int64_t c = 0; c < m->classes; c++) {
            double q = (double)p[c * inner] * (1 - m->by.smoothing) + m->by.smoothing / (double)m->classes;
            label = p[c * inner] > p[label * inner] ? c : label;
            if (q != 0)
                m->loss -= weight_of(m, c) * q * log_p(&r, c);
        }
        m->weight++;
        add_row(m, &r, label);
    }
    return true;
}

/* Every element says yes or no. */
static bool add_binary(metrics *m, const hk_tensor *y, const hk_tensor *t)
{
    if (!begin(m, 2))
        return false;
    for (int64_t i = 0; i < hk_tensor_count(y); i++) {
        double x = (double)((const float *)y->data)[i], target = (double)((const float *)t->data)[i];
        if (m->by.sigmoid)
            m->loss -= target * logarithm(x) + (1 - target) * logarithm(1 - x);
        else
            m->loss += (1 - target) * x + fmax(-x, 0) + log1p(exp(-fabs(x)));
        count(m, x > (m->by.sigmoid ? 0.5 : 0), target >= 0.5);
    }
    return true;
}

static double loss_of(const measure *by, double x, double t)
{
    double e = fabs(x - t);
    switch (by->loss) {
    case HK_LOSS_L1: return e;
    case HK_LOSS_HUBER: return e < by->beta ? e * e / 2 : by->beta * (e - by->beta / 2);
    case HK_LOSS_SMOOTH_L1: return e < by->beta ? e * e / 2 / by->beta : e - by->beta / 2;
    case HK_LOSS_KL: return t > 0 ? t * (log(t) - x) : 0;
    default: return e * e;
    }
}

static bool add_numbers(metrics *m, const hk_tensor *y, const hk_tensor *target)
{
    for (int64_t i = 0; i < hk_tensor_count(y); i++) {
        double x = (double)((const float *)y->data)[i], t = (double)((const float *)target->data)[i];
        m->loss += loss_of(&m->by, x, t);
        m->absolute += fabs(x - t);
        m->squared += (x - t) * (x - t);
        m->samples++;
    }
    return true;
}

int32_t class_axis(int32_t rank, const int64_t *shape, int32_t label_rank, const int64_t *labels)
{
    bool first = label_rank == rank - 2, last = first;
    for (int32_t d = 0; d < rank - 2 && d < label_rank; d++) {
        first &= shape[d + 2] < 0 || shape[d + 2] == labels[d];
        last &= shape[d + 1] < 0 || shape[d + 1] == labels[d];
    }
    return last && !first ? rank - 1 : 1;
}

static bool of_classes(const measure *by)
{
    return by->loss == HK_LOSS_CROSS_ENTROPY || by->loss == HK_LOSS_NLL;
}

bool measures_classes(const measure *by)
{
    return of_classes(by) || by->loss == HK_LOSS_BCE_LOGITS;
}

static bool add_float32(metrics *m, const hk_tensor *y, const hk_tensor *t)
{
    int64_t elements = hk_tensor_count(y), targets = hk_tensor_count(t);
    bool classes = of_classes(&m->by) && y->rank >= 2;
    if (t->dtype == HK_INT64) {
        int32_t axis = class_axis(y->rank, y->shape, t->rank - 1, t->shape + 1);
        if (classes && elements == targets * y->shape[axis])
            return add_labels(m, y, t, axis);
        fprintf(stderr, "hillock: labels do not fit the output: one label for each row of class scores (N,C,...)\n");
        return false;
    }
    if (elements != targets) {
        fprintf(stderr, "hillock: there are %lld targets for %lld outputs\n", (long long)targets, (long long)elements);
        return false;
    }
    return classes                            ? add_soft_labels(m, y, t)
           : m->by.loss == HK_LOSS_BCE_LOGITS ? add_binary(m, y, t)
                                              : add_numbers(m, y, t);
}

bool metrics_add(metrics *m, const hk_tensor *output, const hk_tensor *target)
{
    hk_tensor y = *output;
    m->batch += y.rank ? (size_t)y.shape[0] : 1;
    if (y.dtype == HK_FLOAT32)
        return add_float32(m, &y, target);
    if (y.dtype != HK_FLOAT16 && y.dtype != HK_BFLOAT16) {
        fprintf(stderr, "hillock: the output is %s; metrics are of floats of 16 or 32 bits\n", hk_dtype_name(y.dtype));
        return false;
    }
    int64_t elements = hk_tensor_count(&y);
    float *wide = malloc((size_t)elements * sizeof *wide + 1);
    if (!wide) {
        fprintf(stderr, "hillock: out of memory\n");
        return false;
    }
    for (int64_t i = 0; i < elements; i++)
        wide[i] = (float)tensor_element(&y, i);
    y.data = wide;
    bool ok = add_float32(m, &y, target);
    free(wide);
    return ok;
}

static double share(size_t part, size_t all)
{
    return all ? (double)part / (double)all : 0;
}

double metrics_accuracy(const metrics *m)
{
    return share(m->right, m->samples);
}

double metrics_top(const metrics *m)
{
    return of_classes(&m->by) && m->classes ? share(m->right_top, m->samples) : (double)NAN;
}

double metrics_f1(const metrics *m)
{
    double sum = 0;
    size_t classes = 0;
    for (int64_t c = 0; c < m->classes; c++)
        if (m->of[c] || m->said[c]) {
            sum += 2 * share(m->found[c], m->of[c] + m->said[c]);
            classes++;
        }
    return classes ? sum / (double)classes : 0;
}

double metrics_mae(const metrics *m)
{
    return m->samples ? m->absolute / (double)m->samples : 0;
}

double metrics_mse(const metrics *m)
{
    return m->samples ? m->squared / (double)m->samples : 0;
}

double metrics_loss(const metrics *m)
{
    double by = m->by.batchmean ? (double)m->batch : of_classes(&m->by) && m->classes ? m->weight : (double)m->samples;
    return by > 0 ? m->loss / by : 0;
}

void metrics_finish(metrics *m)
{
    free(m->found);
    free(m->said);
    free(m->of);
    *m = (metrics){0};
}
