/*
 * Statistics of activations.
 *
 * Percentiles are exact: of the two elements that a percentile lies between, three passes find the bits, 11, 10 and 10
 * at a time, from histograms of the elements that share the bits found so far. Floats above 0 are ordered as their
 * bits. The threshold of least squared error is looked for among 95 shares of the maximum (as in Li et al., "A Free
 * Lunch From ANN: Towards Efficient, Accurate Spiking Neural Networks Calibration", ICML 2021): a neuron with soft
 * reset that starts at half its threshold, given a constant x, says q(x) = theta/T clip(floor(T x/theta + 1/2), 0, T)
 * after T steps. The squared error is summed over a histogram with sums, so that only bins with a step of q inside are
 * rounded.
 */
#include "snn/calibrate.h"

#include <math.h>
#include <string.h>

enum { BINS = 512, SHARES = 95, RADIX = 2048, RADIX_PASSES = 3, RANKS = 2 };

typedef struct selector { /* of the element of one rank among those of one group */
    uint32_t prefix;
    int64_t rank;
    uint32_t histogram[RADIX];
} selector;

struct hk_snn_meter {
    hk_snn_rule rule;
    int64_t channels, groups; /* groups: channels, or 1 */
    double ceiling;
    int pass;
    int64_t count, not_finite;
    double *greatest;    /* [channels] */
    double *range;       /* [groups], from pass 1 on: their largest */
    int64_t *elements;   /* [groups] */
    selector *selectors; /* [groups * RANKS], percentiles alone */
    uint32_t *bins;      /* [groups * BINS], MMSE alone */
    double *sums;
};

int hk_snn_meter_passes(const hk_snn_rule *rule)
{
    return rule->mode == HK_SNN_MODE_PERCENTILE ? 1 + RADIX_PASSES : rule->mode == HK_SNN_MODE_MMSE ? 2 : 1;
}

hk_status hk_snn_meter_create(hk_arena *arena, const hk_snn_rule *rule, int64_t channels, double ceiling,
                              hk_snn_meter **out)
{
    hk_snn_meter *m = hk_arena_new(arena, hk_snn_meter);
    if (!m)
        return hk_out_of_memory(hk_arena_context(arena), "calibration");
    *m = (hk_snn_meter){
        .rule = *rule, .channels = channels, .groups = rule->per_channel ? channels : 1, .ceiling = ceiling};
    size_t groups = (size_t)m->groups;
    m->greatest = hk_arena_array(arena, (size_t)channels, sizeof *m->greatest);
    m->range = hk_arena_array(arena, groups, sizeof *m->range);
    m->elements = hk_arena_array(arena, groups, sizeof *m->elements);
    bool made = m->greatest && m->range && m->elements;
    if (made && rule->mode == HK_SNN_MODE_PERCENTILE)
        made = (m->selectors = hk_arena_array(arena, groups * RANKS, sizeof *m->selectors)) != NULL;
    if (made && rule->mode == HK_SNN_MODE_MMSE) {
        m->bins = hk_arena_array(arena, groups * BINS, sizeof *m->bins);
        m->sums = hk_arena_array(arena, groups * BINS, sizeof *m->sums);
        made = m->bins && m->sums;
    }
    if (!made)
        return hk_out_of_memory(hk_arena_context(arena), "calibration");
    *out = m;
    return HK_OK;
}

static void find_ranges(hk_snn_meter *m)
{
    memset(m->range, 0, (size_t)m->groups * sizeof *m->range);
    for (int64_t c = 0; c < m->channels; c++) {
        double *range = &m->range[m->groups == 1 ? 0 : c];
        *range = HK_MAX(*range, m->greatest[c]);
    }
}

/* ---- passes */

/* Where a percentile lies among n elements in order, as numpy's and torch's default: between two of them. */
static double place_of(const hk_snn_meter *m, int64_t n)
{
    return m->rule.level / 100 * (double)(n - 1);
}

void hk_snn_meter_begin(hk_snn_meter *m, int pass)
{
    m->pass = pass;
    for (int64_t i = 0; m->selectors && pass > 0 && i < m->groups * RANKS; i++) {
        int64_t n = m->elements[i / RANKS];
        if (pass == 1)
            m->selectors[i].rank = HK_MIN((int64_t)floor(place_of(m, n)) + i % RANKS, n - 1);
        memset(m->selectors[i].histogram, 0, sizeof m->selectors[i].histogram);
    }
}

/* Bits of a float above 0 that pass 1, 2 or 3 finds. */
static uint32_t digit(uint32_t bits, int pass)
{
    return pass == 1 ? bits >> 20 : pass == 2 ? bits >> 10 & 1023 : bits & 1023;
}

static uint32_t found_before(uint32_t bits, int pass)
{
    return pass == 1 ? 0 : pass == 2 ? bits >> 20 : bits >> 10;
}

static void count_digit(hk_snn_meter *m, int64_t group, float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    for (int r = 0; r < RANKS; r++) {
        selector *s = &m->selectors[group * RANKS + r];
        if (s->prefix == found_before(bits, m->pass))
            s->histogram[digit(bits, m->pass)]++;
    }
}

static void count_bin(hk_snn_meter *m, int64_t group, float x, double greatest)
{
    int64_t bin = (int64_t)((double)x / greatest * BINS);
    int64_t i = group * BINS + HK_MIN(bin, BINS - 1);
    m->bins[i]++;
    m->sums[i] += (double)x;
}

static void add_channel(hk_snn_meter *m, int64_t c, const float *x, int64_t n)
{
    int64_t group = m->groups == 1 ? 0 : c;
    double greatest = m->range[group];
    if (m->pass == 0) {
        m->count += n;
        m->elements[group] += n;
    }
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(x[i])) {
            m->not_finite += m->pass == 0;
            continue;
        }
        float y = fminf(fmaxf(x[i], 0), (float)m->ceiling) + 0.0f;
        if (m->pass == 0)
            m->greatest[c] = HK_MAX(m->greatest[c], (double)y);
        else if (m->selectors)
            count_digit(m, group, y);
        else if (greatest > 0)
            count_bin(m, group, y, greatest);
    }
}

void hk_snn_meter_add(hk_snn_meter *m, const hk_tensor *y)
{
    hk_shape shape = hk_tensor_shape(y);
    int64_t count = hk_shape_count(&shape), samples = 1, inner = count;
    const float *x = y->data;
    if (m->channels > 1) {
        samples = shape.dim[0];
        inner = hk_shape_span(&shape, 2, shape.rank);
    }
    for (int64_t s = 0; s < samples; s++)
        for (int64_t c = 0; c < m->channels; c++)
            add_channel(m, c, x + (s * m->channels + c) * inner, inner);
}

void hk_snn_meter_end(hk_snn_meter *m)
{
    if (m->pass == 0)
        find_ranges(m);
    for (int64_t i = 0; m->selectors && m->pass > 0 && i < m->groups * RANKS; i++) {
        selector *s = &m->selectors[i];
        uint32_t d = 0;
        while (d + 1 < RADIX && s->rank >= (int64_t)s->histogram[d])
            s->rank -= (int64_t)s->histogram[d++];
        s->prefix = m->pass == 1 ? d : s->prefix << 10 | d;
    }
}

/* ---- results */

hk_snn_reading hk_snn_meter_read(const hk_snn_meter *m)
{
    hk_snn_reading r = {.count = m->count, .not_finite = m->not_finite};
    for (int64_t c = 0; c < m->channels; c++) {
        r.greatest = HK_MAX(r.greatest, m->greatest[c]);
        r.dead += !(m->greatest[c] > 0);
    }
    return r;
}

static double selected(const selector *s)
{
    float x;
    memcpy(&x, &s->prefix, sizeof x);
    return (double)x;
}

static double percentile(const hk_snn_meter *m, int64_t group)
{
    const selector *s = &m->selectors[group * RANKS];
    double place = place_of(m, m->elements[group]), low = selected(&s[0]), high = selected(&s[1]);
    return low + (high - low) * (place - floor(place));
}

/* Sum of q (q - 2 x) over the group: the squared error without its constant part. */
static double error_of(const hk_snn_meter *m, int64_t group, double theta)
{
    double error = 0, steps = (double)m->rule.steps;
    for (int64_t b = 0; b < BINS; b++) {
        double n = (double)m->bins[group * BINS + b], sum = m->sums[group * BINS + b];
        if (!(n > 0))
            continue;
        double q = theta / steps * fmin(fmax(floor(steps * (sum / n) / theta + 0.5), 0), steps);
        error += q * (q * n - 2 * sum);
    }
    return error;
}

static double least_error(const hk_snn_meter *m, int64_t group)
{
    double greatest = m->range[group], best = greatest, least = INFINITY;
    for (int i = 0; i < SHARES && greatest > 0; i++) {
        double theta = greatest * (1 - 0.01 * i), error = error_of(m, group, theta);
        if (error < least) {
            least = error;
            best = theta;
        }
    }
    return best;
}

static double threshold_of(const hk_snn_meter *m, int64_t group)
{
    switch (m->rule.mode) {
    case HK_SNN_MODE_PERCENTILE: return percentile(m, group);
    case HK_SNN_MODE_SCALE: return m->rule.level * m->range[group];
    case HK_SNN_MODE_MAX: return m->range[group];
    case HK_SNN_MODE_DEFAULT:
    case HK_SNN_MODE_MMSE: break;
    }
    return least_error(m, group);
}

bool hk_snn_meter_thresholds(const hk_snn_meter *m, float *thresholds)
{
    double largest = 0;
    for (int64_t g = 0; g < m->groups; g++) {
        double x = threshold_of(m, g);
        thresholds[g] = (float)x;
        largest = HK_MAX(largest, x);
    }
    for (int64_t c = 0; c < m->channels; c++)
        if (m->groups == 1 || !(thresholds[c] > 0))
            thresholds[c] = (float)largest;
    return largest > 0;
}
