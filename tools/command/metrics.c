/* Accuracy, top 5, F1, errors. */
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
    m->found = calloc(n, sizeof *m->found);
    m->said = calloc(n, sizeof *m->said);
    m->of = calloc(n, sizeof *m->of);
    return m->found && m->said && m->of;
}

static double entropy_of(const metrics *m, const float *scores, int64_t step, int64_t label)
{
    double most = -INFINITY, sum = 0, exponentials = 0;
    bool probabilities = true;
    for (int64_t c = 0; c < m->classes; c++) {
        double x = (double)scores[c * step];
        most = fmax(most, x);
        sum += x;
        probabilities &= x >= 0 && x <= 1;
    }
    if (probabilities && fabs(sum - 1) < 1e-4)
        return -log(fmax((double)scores[label * step], 1e-45));
    for (int64_t c = 0; c < m->classes; c++)
        exponentials += exp((double)scores[c * step] - most);
    return most + log(exponentials) - (double)scores[label * step];
}

/* One row of scores, `step` apart. A score equal to the label's with a smaller number comes first, as torch.argmax. */
static void add_row(metrics *m, const float *scores, int64_t step, int64_t label)
{
    int64_t best = 0, before = 0;
    for (int64_t c = 0; c < m->classes; c++) {
        if (scores[c * step] > scores[best * step])
            best = c;
        before += scores[c * step] > scores[label * step] || (scores[c * step] == scores[label * step] && c < label);
    }
    m->samples++;
    m->entropy += entropy_of(m, scores, step, label);
    m->right += best == label;
    m->right5 += before < 5;
    m->said[best]++;
    m->of[label]++;
    m->found[label] += best == label;
}

static bool add_classes(metrics *m, const hk_tensor *y, const hk_tensor *t)
{
    int64_t inner = 1;
    for (int32_t d = 2; d < y->rank; d++)
        inner *= y->shape[d];
    if (!begin(m, y->shape[1])) {
        fprintf(stderr, "hillock: out of memory\n");
        return false;
    }
    for (int64_t i = 0; i < y->shape[0] * inner; i++) {
        int64_t label = ((const int64_t *)t->data)[i];
        if (label >= m->classes) {
            fprintf(stderr, "hillock: label %lld is out of range: the model has %lld classes\n", (long long)label,
                    (long long)m->classes);
            return false;
        }
        if (label >= 0)
            add_row(m, (const float *)y->data + i / inner * m->classes * inner + i % inner, inner, label);
    }
    return true;
}

static int64_t count_of(const hk_tensor *t)
{
    int64_t n = 1;
    for (int32_t d = 0; d < t->rank; d++)
        n *= t->shape[d];
    return n;
}

bool metrics_add(metrics *m, const hk_tensor *output, const hk_tensor *target)
{
    if (output->dtype != HK_FLOAT32) {
        fprintf(stderr, "hillock: the output is %s; metrics are of float32\n", hk_dtype_name(output->dtype));
        return false;
    }
    if (target->dtype == HK_INT64) {
        if (output->rank >= 2 && count_of(output) == count_of(target) * output->shape[1])
            return add_classes(m, output, target);
        fprintf(stderr, "hillock: labels do not fit the output: one label for each row of class scores (N,C,...)\n");
        return false;
    }
    if (count_of(output) != count_of(target)) {
        fprintf(stderr, "hillock: there are %lld targets for %lld outputs\n", (long long)count_of(target),
                (long long)count_of(output));
        return false;
    }
    for (int64_t i = 0; i < count_of(output); i++) {
        double e = (double)((const float *)output->data)[i] - (double)((const float *)target->data)[i];
        m->absolute += fabs(e);
        m->squared += e * e;
        m->samples++;
    }
    return true;
}

static double share(size_t part, size_t all)
{
    return all ? (double)part / (double)all : 0;
}

double metrics_accuracy(const metrics *m)
{
    return share(m->right, m->samples);
}

double metrics_top5(const metrics *m)
{
    return share(m->right5, m->samples);
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
    return m->classes ? m->samples ? m->entropy / (double)m->samples : 0 : metrics_mse(m);
}

void metrics_finish(metrics *m)
{
    free(m->found);
    free(m->said);
    free(m->of);
    *m = (metrics){0};
}
