#include "tests/support/nir_run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct run {
    const hk_nir *n;
    double dt;
    double **in, **out, **v; /* by node */
    double spikes;
} run;

static const hk_tensor *field(const hk_nir_node *n, const char *name)
{
    for (size_t i = 0; i < n->field_count; i++)
        if (!strcmp(n->fields[i].name, name))
            return n->fields[i].data;
    fail_msg("node '%s' (%s) has no field '%s'", n->name, n->type, name);
    return NULL;
}

static double get(const hk_nir_node *n, const char *name, int64_t i)
{
    return hk_get_double(field(n, name), i);
}

static void affine(const hk_nir_node *n, const double *x, double *y)
{
    const hk_tensor *w = field(n, "weight");
    for (int64_t o = 0; o < w->shape[0]; o++) {
        y[o] = get(n, "bias", o);
        for (int64_t i = 0; i < w->shape[1]; i++)
            y[o] += hk_get_double(w, o * w->shape[1] + i) * x[i];
    }
}

/* What a window does: w NULL is pooling. */
typedef struct sliding {
    const hk_tensor *w;
    hk_shape from;
    int64_t size[2], stride[2], padding[2], dilation[2];
} sliding;

static sliding sliding_of(const hk_nir_node *n, const hk_shape *from)
{
    sliding s = {.w = strcmp(n->type, "Conv2d") != 0 ? NULL : field(n, "weight"), .from = *from};
    for (int d = 0; d < 2; d++) {
        s.size[d] = s.w ? s.w->shape[d + 2] : hk_get_int(field(n, "kernel_size"), d);
        s.stride[d] = hk_get_int(field(n, "stride"), d);
        s.padding[d] = hk_get_int(field(n, "padding"), d);
        s.dilation[d] = s.w ? hk_get_int(field(n, "dilation"), d) : 1;
    }
    return s;
}

/* At (i, j): of a convolution the sum over channels for output c, of pooling the mean of plane c. */
static double window(const sliding *s, const double *x, int64_t c, int64_t i, int64_t j)
{
    int64_t taps = s->size[0] * s->size[1], channels = s->w ? s->w->shape[1] : 1;
    double sum = 0;
    for (int64_t k = 0; k < channels; k++)
        for (int64_t a = 0; a < taps; a++) {
            int64_t y = i * s->stride[0] - s->padding[0] + a / s->size[1] * s->dilation[0];
            int64_t z = j * s->stride[1] - s->padding[1] + a % s->size[1] * s->dilation[1];
            if (y < 0 || y >= s->from.dim[1] || z < 0 || z >= s->from.dim[2])
                continue;
            double times = s->w ? hk_get_double(s->w, (c * channels + k) * taps + a) : 1 / (double)taps;
            sum += times * x[((s->w ? k : c) * s->from.dim[1] + y) * s->from.dim[2] + z];
        }
    return sum;
}

static void windows(const hk_nir_node *n, const hk_shape *from, const double *x, double *y)
{
    const sliding s = sliding_of(n, from);
    int64_t plane = n->out.dim[1] * n->out.dim[2];
    for (int64_t i = 0; i < n->out.dim[0] * plane; i++)
        y[i] = window(&s, x, i / plane, i % plane / n->out.dim[2], i % n->out.dim[2]) +
               (s.w ? get(n, "bias", i / plane) : 0);
}

/* v' = r I, or tau v' = (v_leak - v) + r I, of I and LI; a spike of IF and LIF above the threshold puts v to v_reset.
 */
static void neurons(run *r, size_t i)
{
    const hk_nir_node *n = r->n->nodes[i];
    bool leaks = n->type[0] == 'L', spikes = strchr(n->type, 'F') != NULL;
    for (int64_t k = 0; k < hk_shape_count(&n->out); k++) {
        double *v = &r->v[i][k], current = get(n, "r", k) * r->in[i][k];
        *v += leaks ? r->dt / get(n, "tau", k) * (get(n, "v_leak", k) - *v + current) : r->dt * current;
        bool fires = spikes && *v > get(n, "v_threshold", k);
        r->out[i][k] = spikes ? fires : *v;
        r->spikes += fires;
        if (fires)
            *v = get(n, "v_reset", k);
    }
}

static void step(run *r, size_t i, const double *x)
{
    const hk_nir_node *n = r->n->nodes[i];
    const hk_shape *from = &n->out;
    size_t count = (size_t)hk_shape_count(&n->out);
    const char *t = n->type;
    bool begun = false;
    for (size_t e = 0; e < r->n->edge_count; e++)
        if (r->n->edges[e][1] == i) {
            size_t k = r->n->edges[e][0];
            from = &r->n->nodes[k]->out;
            for (int64_t a = 0; a < hk_shape_count(from); a++)
                r->in[i][a] = (begun ? r->in[i][a] : 0) + r->out[k][a];
            begun = true;
        }
    if (!strcmp(t, "Input"))
        memcpy(r->out[i], x, count * sizeof *x);
    else if (!strcmp(t, "Output") || !strcmp(t, "Flatten"))
        memcpy(r->out[i], r->in[i], count * sizeof *x);
    else if (!strcmp(t, "Affine"))
        affine(n, r->in[i], r->out[i]);
    else if (!strcmp(t, "Conv2d") || !strcmp(t, "AvgPool2d"))
        windows(n, from, r->in[i], r->out[i]);
    else if (!strcmp(t, "IF") || !strcmp(t, "LIF") || !strcmp(t, "I") || !strcmp(t, "LI"))
        neurons(r, i);
    else if (!strcmp(t, "Scale"))
        for (size_t k = 0; k < count; k++)
            r->out[i][k] = r->in[i][k] * get(n, "scale", (int64_t)k);
    else
        fail_msg("node '%s' is a %s", n->name, t);
}

static double **buffers(size_t nodes, size_t each)
{
    double **list = calloc(nodes, sizeof *list);
    assert_non_null(list);
    for (size_t i = 0; i < nodes; i++) {
        list[i] = calloc(each, sizeof **list);
        assert_non_null(list[i]);
    }
    return list;
}

static void release(double **list, size_t nodes)
{
    for (size_t i = 0; i < nodes; i++)
        free(list[i]);
    free(list);
}

double nir_run(const hk_nir *n, const double *x, int64_t stride, int64_t steps, double *outputs)
{
    size_t most = 1, count = n->node_count;
    for (size_t i = 0; i < count; i++)
        most = HK_MAX(most, (size_t)hk_shape_count(&n->nodes[i]->out));
    run r = {.n = n, .in = buffers(count, most), .out = buffers(count, most), .v = buffers(count, most)};
    for (size_t i = 0; i < n->metadata_count; i++)
        if (!strcmp(n->metadata[i].name, "dt"))
            r.dt = hk_get_double(n->metadata[i].data, 0);
    for (size_t i = 0; i < count; i++) /* neurons start at rest */
        for (int64_t k = 0; strstr(n->nodes[i]->type, "IF") && k < hk_shape_count(&n->nodes[i]->out); k++)
            r.v[i][k] = get(n->nodes[i], "v_reset", k);
    size_t last = count - 1, width = (size_t)hk_shape_count(&n->nodes[last]->out);
    for (int64_t t = 0; t < steps; t++) {
        for (size_t i = 0; i < count; i++)
            step(&r, i, x + t * stride);
        memcpy(outputs + (size_t)t * width, r.out[last], width * sizeof *outputs);
    }
    release(r.in, count);
    release(r.out, count);
    release(r.v, count);
    return r.spikes;
}
