/* Normalization of channels on the host, in double: what the kernels are compared with. */
#include <math.h>

#include "ops/support/reduce_channels.h"

static int64_t element(const hk_channels *c, int64_t n, int64_t ch, int64_t s)
{
    return (n * c->channels + ch) * c->extent + s;
}

static int64_t parameter(const hk_channels *c, int64_t ch)
{
    return ch / c->param_divide % c->param_count;
}

/* Mean and population variance of statistic `row`. */
static void statistics(const hk_channels *c, const hk_tensor *x, int64_t row, double *mean, double *variance)
{
    double sum = 0.0, squares = 0.0, count = (double)(c->samples * c->group * c->extent);
    for (int64_t n = 0; n < c->samples; n++)
        for (int64_t i = 0; i < c->group * c->extent; i++)
            sum += hk_get_double(x, element(c, n, row * c->group, i));
    *mean = sum / count;
    for (int64_t n = 0; n < c->samples; n++)
        for (int64_t i = 0; i < c->group * c->extent; i++) {
            double d = hk_get_double(x, element(c, n, row * c->group, i)) - *mean;
            squares += d * d;
        }
    *variance = squares / count;
}

static double relu(double z)
{
    return z < 0.0 ? 0.0 : z;
}

/* The maximum of the window whose first element is z[at], and its place: 0..3 in row-major order, the first of equals.
 */
static double window_max(const double *z, int64_t at, int64_t width, int64_t *place)
{
    const int64_t places[4] = {at, at + 1, at + width, at + width + 1};
    double best = z[at];
    *place = at;
    for (int k = 1; k < 4; k++)
        if (z[places[k]] > best || isnan(z[places[k]])) {
            best = z[places[k]];
            *place = places[k];
        }
    return best;
}

/* Visits the windows of one channel of one sample: the first element of window w. */
static int64_t window_start(const hk_channels *c, int64_t w)
{
    int64_t half = c->width / 2;
    return w / half * 2 * c->width + w % half * 2;
}

static void activate(const hk_channels *c, const double *z, hk_tensor *y, int64_t first)
{
    if (!c->pool) {
        for (int64_t s = 0; s < c->extent; s++)
            hk_set_double(y, first + s, c->relu ? relu(z[s]) : z[s]);
        return;
    }
    for (int64_t w = 0; w < c->extent / 4; w++) {
        int64_t place;
        double best = window_max(z, window_start(c, w), c->width, &place);
        hk_set_double(y, first / 4 + w, c->relu ? relu(best) : best);
    }
}

/* New running statistics and what the backward pass needs. */
static void write_statistics(const hk_channels *c, const hk_host_norm *n, int64_t row, double mean, double variance)
{
    double count = (double)(c->samples * c->group * c->extent), m = n->momentum;
    double running = n->unbiased ? variance * count / (count - 1.0) : variance;
    if (n->saved_mean)
        hk_set_double(n->saved_mean, row, mean);
    if (n->saved_deviation)
        hk_set_double(n->saved_deviation, row, 1.0 / sqrt(variance + c->epsilon));
    if (n->mean_out)
        hk_set_double(n->mean_out, row, hk_get_double(n->mean, row) * m + mean * (1.0 - m));
    if (n->variance_out)
        hk_set_double(n->variance_out, row, hk_get_double(n->variance, row) * m + running * (1.0 - m));
}

hk_status hk_host_channel_norm(hk_eval *e, const hk_channels *c, const hk_host_norm *n)
{
    double *z = hk_arena_array(e->arena, (size_t)HK_MAX(c->extent, 1), sizeof *z);
    if (!z)
        return hk_out_of_memory(e->ctx, "a channel");
    double mean = 0.0, variance = 0.0;
    for (int64_t ch = 0; ch < c->channels; ch++) {
        int64_t p = parameter(c, ch);
        if (!n->training) {
            mean = hk_get_double(n->mean, p);
            variance = hk_get_double(n->variance, p);
        } else if (ch % c->group == 0) {
            statistics(c, n->x, ch / c->group, &mean, &variance);
            write_statistics(c, n, ch / c->group, mean, variance);
        }
        double slope = hk_get_double(n->scale, p) / sqrt(variance + c->epsilon);
        for (int64_t s = 0; s < c->samples; s++) {
            int64_t first = element(c, s, ch, 0);
            for (int64_t i = 0; i < c->extent; i++)
                z[i] = (hk_get_double(n->x, first + i) - mean) * slope + hk_get_double(n->bias, p);
            activate(c, z, n->y, first);
        }
    }
    return HK_OK;
}

/* d = gradient of the normalized value of one channel of one sample, from dy and the recomputed z. */
static void gate(const hk_channels *c, const double *z, const hk_tensor *dy, int64_t first, double *d)
{
    for (int64_t i = 0; i < c->extent && !c->pool; i++)
        d[i] = c->relu && z[i] <= 0.0 ? 0.0 : hk_get_double(dy, first + i);
    if (!c->pool)
        return;
    for (int64_t i = 0; i < c->extent; i++)
        d[i] = 0.0;
    for (int64_t w = 0; w < c->extent / 4; w++) {
        int64_t place;
        double best = window_max(z, window_start(c, w), c->width, &place);
        d[place] = c->relu && best <= 0.0 ? 0.0 : hk_get_double(dy, first / 4 + w);
    }
}

/* What one channel is normalized with. */
typedef struct channel {
    double mean, deviation, scale, bias;
} channel;

static channel channel_of(const hk_channels *c, const hk_host_grad *n, int64_t ch)
{
    int64_t p = parameter(c, ch), row = ch / c->group;
    double v = hk_get_double(n->deviation, row);
    return (channel){.mean = hk_get_double(n->mean, row),
                     .deviation = n->frozen ? 1.0 / sqrt(v + c->epsilon) : v,
                     .scale = hk_get_double(n->scale, p),
                     .bias = n->bias ? hk_get_double(n->bias, p) : 0.0};
}

/* Gradients of all normalized values of a channel into d, samples one after another; their sums. */
static void channel_gradients(const hk_channels *c, const hk_host_grad *n, int64_t ch, double *z, double *d,
                              double sums[2])
{
    const channel a = channel_of(c, n, ch);
    sums[0] = sums[1] = 0.0;
    for (int64_t s = 0; s < c->samples; s++, d += c->extent) {
        int64_t first = element(c, s, ch, 0);
        for (int64_t i = 0; i < c->extent; i++)
            z[i] = (hk_get_double(n->x, first + i) - a.mean) * (a.scale * a.deviation) + a.bias;
        gate(c, z, n->dy, first, d);
        for (int64_t i = 0; i < c->extent; i++) {
            sums[0] += d[i];
            sums[1] += d[i] * (hk_get_double(n->x, first + i) - a.mean) * a.deviation;
        }
    }
}

static void accumulate(hk_tensor *t, int64_t i, double x)
{
    if (t)
        hk_set_double(t, i, hk_get_double(t, i) + x);
}

static void write_dx(const hk_channels *c, const hk_host_grad *n, int64_t ch, const double *d, const double means[2])
{
    const channel a = channel_of(c, n, ch);
    for (int64_t s = 0; s < c->samples; s++)
        for (int64_t i = 0; i < c->extent; i++) {
            int64_t at = element(c, s, ch, i);
            double normalized = (hk_get_double(n->x, at) - a.mean) * a.deviation;
            double g = a.scale * d[s * c->extent + i];
            hk_set_double(n->dx, at, a.deviation * (n->frozen ? g : g - means[0] - normalized * means[1]));
        }
}

hk_status hk_host_channel_grad(hk_eval *e, const hk_channels *c, const hk_host_grad *n)
{
    int64_t each = c->samples * c->extent;
    double *z = hk_arena_array(e->arena, (size_t)HK_MAX(c->extent, 1), sizeof *z);
    double *d = hk_arena_array(e->arena, (size_t)HK_MAX(each * c->group, 1), sizeof *d);
    double *total = hk_arena_array(e->arena, 2 * (size_t)HK_MAX(c->param_count, 1), sizeof *total);
    if (!z || !d || !total)
        return hk_out_of_memory(e->ctx, "a channel's gradient");
    for (int64_t row = 0; row < c->channels / c->group; row++) {
        double means[2] = {0.0, 0.0}, sums[2], count = (double)(each * c->group);
        for (int64_t k = 0; k < c->group; k++) {
            int64_t ch = row * c->group + k, p = parameter(c, ch);
            channel_gradients(c, n, ch, z, d + k * each, sums);
            total[2 * p] += sums[0];
            total[2 * p + 1] += sums[1];
            means[0] += hk_get_double(n->scale, p) * sums[0] / count;
            means[1] += hk_get_double(n->scale, p) * sums[1] / count;
        }
        for (int64_t k = 0; k < c->group && n->dx; k++)
            write_dx(c, n, row * c->group + k, d + k * each, means);
    }
    for (int64_t p = 0; p < c->param_count; p++) {
        accumulate(n->dbias, p, total[2 * p]);
        accumulate(n->dscale, p, total[2 * p + 1]);
    }
    return HK_OK;
}
