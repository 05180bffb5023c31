/* Conversion to spiking networks: the runs between the steps that snn/ makes of a graph. */
#include <math.h>
#include <string.h>

#include "runtime/model.h"
#include "runtime/objects.h"
#include "runtime/passes.h"
#include "snn/calibrate.h"
#include "snn/convert.h"

#define STEPS_DEFAULT 16
#define BIAS_SAMPLES_DEFAULT 256

typedef struct converter {
    hk_context *ctx;
    hk_device *dev;
    const hk_model *model;
    hk_snn_params params;
    hk_snn_rule rule;
    hk_graph *graph; /* the original, batch normalization folded, pooling chosen: source of every rewriting */
    hk_arena *arena;
    hk_snn_plan plan;   /* of graph, which it does not rewrite */
    hk_model *original; /* of graph, with its activations as outputs after its own; from the first batch on */
    hk_session *session;
    hk_snn_meter **meters;
    hk_snn_reading *readings;
    double *ann_means, *snn_means; /* of all channels of all sites, one after the other */
    double *first_means;           /* of the spiking network before correction */
    float *corrections;
    int64_t *samples_seen;
    struct comparison *with; /* NULL: not compared */
} converter;

/* ---- options */

static bool has_data(const converter *c)
{
    return c->params.loader || c->params.inputs;
}

/* Every layer's thresholds were trained. */
static bool brings_thresholds(const converter *c)
{
    bool all = true;
    for (size_t i = 0; i < c->plan.site_count; i++)
        all = all && c->plan.sites[i].given;
    return all;
}

static hk_status check_params(converter *c)
{
    hk_snn_params *p = &c->params;
    bool percentile = p->mode == HK_SNN_MODE_PERCENTILE, scale = p->mode == HK_SNN_MODE_SCALE;
    p->steps = p->steps ? p->steps : STEPS_DEFAULT;
    p->bias_samples = p->bias_samples ? p->bias_samples : BIAS_SAMPLES_DEFAULT;
    p->mode = p->mode == HK_SNN_MODE_DEFAULT ? HK_SNN_MODE_MMSE : p->mode;
    if (p->steps < 1 || p->steps > 65536)
        return hk_fail(c->ctx, HK_STATUS_USAGE,
                       "%lld time steps: a spiking network takes 1 to 65536; 16 is a good start", (long long)p->steps);
    if (p->delay < 0 || p->delay >= p->steps)
        return hk_fail(c->ctx, HK_STATUS_USAGE,
                       "a readout delayed by %lld of %lld steps has nothing to read; delay fewer steps",
                       (long long)p->delay, (long long)p->steps);
    if ((int)p->mode < 0 || p->mode > HK_SNN_MODE_SCALE)
        return hk_fail(c->ctx, HK_STATUS_USAGE, "hk_snn_params.mode is %d, which is no mode", (int)p->mode);
    if (percentile && !(p->level > 0 && p->level <= 100))
        return hk_fail(c->ctx, HK_STATUS_USAGE, "a percentile of %g %%: it lies in (0, 100]; 99.9 is usual", p->level);
    if (scale && !(p->level > 0 && p->level <= 1))
        return hk_fail(c->ctx, HK_STATUS_USAGE, "a scale of %g: it is a share of the maximum, in (0, 1]", p->level);
    if (p->tau != 0 && !(p->tau > 1 && isfinite(p->tau)))
        return hk_fail(c->ctx, HK_STATUS_USAGE,
                       "tau is %g: it must be above 1, for a step keeps the share 1 - 1/tau of the potential; leave it "
                       "out for neurons without leak",
                       p->tau);
    if (p->qcfs_levels < 0 || p->qcfs_levels > 65536)
        return hk_fail(c->ctx, HK_STATUS_USAGE, "QCFS of %lld levels: 1 to 65536 are possible; 4 or 8 is usual",
                       (long long)p->qcfs_levels);
    if (!has_data(c) && !brings_thresholds(c))
        return hk_fail(c->ctx, HK_STATUS_USAGE,
                       "a conversion needs calibration data: thresholds come from the activations of the network on "
                       "samples. Give some hundred samples as it was trained on, labels are not used");
    c->rule = (hk_snn_rule){.mode = p->mode,
                            .level = p->level,
                            .per_channel = p->grain == HK_SNN_GRAIN_CHANNEL ||
                                           (p->grain == HK_SNN_GRAIN_DEFAULT && p->mode == HK_SNN_MODE_MMSE),
                            .steps = p->qcfs_levels ? p->qcfs_levels : p->steps};
    return HK_OK;
}

/* ---- batches */

/* A batch that has run; inputs are those of the original. */
typedef hk_status on_batch(converter *c, hk_session *s, const hk_model *m, const hk_tensor *inputs);

static int64_t samples_of(const hk_tensor *inputs)
{
    return inputs[0].rank > 0 ? inputs[0].shape[0] : 1;
}

static hk_status write_inputs(const converter *c, hk_session *s, const hk_tensor *inputs)
{
    for (size_t i = 0; i < c->graph->input_count; i++)
        HK_TRY(hk_session_write(s, c->graph->inputs[i]->name, &inputs[i]));
    return HK_OK;
}

static hk_status run_batch(converter *c, hk_session *s, const hk_model *m, const hk_tensor *inputs, size_t count,
                           on_batch *take)
{
    const hk_graph *g = c->graph;
    if (count < g->input_count)
        return hk_fail(c->ctx, HK_STATUS_USAGE, "calibration data has %zu arrays per sample, the model %zu inputs",
                       count, g->input_count);
    HK_TRY(write_inputs(c, s, inputs));
    HK_TRY(hk_session_run(s));
    return take(c, s, m, inputs);
}

static hk_status open_original(converter *c)
{
    hk_graph *g = NULL;
    if (c->session)
        return HK_OK;
    HK_TRY(hk_graph_clone(c->graph, &g));
    hk_status st = HK_OK;
    for (size_t i = 0; i < c->plan.site_count && st == HK_OK; i++) {
        hk_value *y = g->values[c->plan.sites[i].y->id], *copy = NULL;
        st = hk_snn_node_make(g, c->plan.opset, "Identity", NULL, NULL, &y, 1, &copy);
        if (st == HK_OK && !hk_graph_add_output(g, copy))
            st = hk_out_of_memory(c->ctx, "calibration");
    }
    if (st == HK_OK)
        st = hk_model_of_graph(g, &c->original);
    hk_graph_destroy(&g);
    return st == HK_OK ? hk_session_create(c->dev, c->original, NULL, &c->session) : st;
}

/* All batches of the calibration data, or those with the first `most` samples, through the original. */
static hk_status each_batch(converter *c, int64_t most, on_batch *take)
{
    int64_t seen = 0;
    hk_status st = open_original(c);
    if (st == HK_OK && c->params.loader)
        st = hk_loader_seek(c->params.loader, 0, 0);
    for (hk_batch b = {0}; st == HK_OK && c->params.loader && seen < most; seen += (int64_t)b.count) {
        st = hk_loader_next(c->params.loader, &b);
        if (st != HK_OK || !b.count)
            break;
        st = run_batch(c, c->session, c->original, b.inputs, b.input_count, take);
    }
    if (st == HK_OK && !c->params.loader)
        st = run_batch(c, c->session, c->original, c->params.inputs, c->params.input_count, take);
    return st;
}

/* ---- thresholds */

static hk_status measure_batch(converter *c, hk_session *s, const hk_model *m, const hk_tensor *inputs)
{
    size_t count = 0;
    const hk_value_info *outputs = hk_model_outputs(m, &count);
    (void)inputs;
    for (size_t i = 0; i < c->plan.site_count; i++) {
        hk_tensor y = {0};
        HK_TRY(hk_session_read(s, outputs[count - c->plan.site_count + i].name, &y));
        hk_snn_meter_add(c->meters[i], &y);
        hk_tensor_release(&y);
    }
    return HK_OK;
}

static hk_status check_reading(const converter *c, const hk_snn_site *s, const hk_snn_reading *r)
{
    if (!r->count)
        return hk_fail(c->ctx, HK_STATUS_INVALID, "the calibration data has no samples; give some hundred");
    if (r->not_finite)
        return hk_fail(c->ctx, HK_STATUS_INVALID,
                       "node '%s' (%s): %lld of %lld activations are not finite on the calibration data; look at its "
                       "scaling and at the model's weights",
                       s->node->name, s->node->type, (long long)r->not_finite, (long long)r->count);
    if (!(r->greatest > 0) && !s->may_be_dead && !s->given)
        return hk_fail(c->ctx, HK_STATUS_INVALID,
                       "node '%s' (%s) is never above 0 on the calibration data: a dead layer has no threshold; give "
                       "other data, scaled as in training, or train the model again",
                       s->node->name, s->node->type);
    return HK_OK;
}

static hk_status set_threshold(converter *c, hk_snn_site *s, const hk_snn_meter *meter)
{
    bool dead = meter && !(hk_snn_meter_read(meter).greatest > 0);
    s->thresholds = hk_arena_array(c->arena, (size_t)s->channels, sizeof *s->thresholds);
    if (!s->thresholds)
        return hk_out_of_memory(c->ctx, "calibration");
    for (int64_t k = 0; k < s->channels && s->given; k++)
        s->thresholds[k] = (float)hk_get_double(s->given, hk_tensor_count(s->given) > 1 ? k : 0);
    for (int64_t k = 0; k < s->channels && !s->given && dead; k++)
        s->thresholds[k] = 1; /* silent: any will do */
    if (s->given || dead || hk_snn_meter_thresholds(meter, s->thresholds))
        return HK_OK;
    return hk_fail(c->ctx, HK_STATUS_INVALID,
                   "node '%s' (%s): %g %% of its activations are 0 on the calibration data, so that percentile is "
                   "no threshold; choose a larger one",
                   s->node->name, s->node->type, c->params.level);
}

static hk_status set_thresholds(converter *c)
{
    for (size_t i = 0; i < c->plan.site_count; i++) {
        if (has_data(c)) {
            c->readings[i] = hk_snn_meter_read(c->meters[i]);
            HK_TRY(check_reading(c, &c->plan.sites[i], &c->readings[i]));
        }
        HK_TRY(set_threshold(c, &c->plan.sites[i], has_data(c) ? c->meters[i] : NULL));
    }
    return HK_OK;
}

static bool is_dead(const converter *c, size_t i)
{
    return !c->plan.sites[i].may_be_dead && !(hk_snn_meter_read(c->meters[i]).greatest > 0);
}

static hk_status calibrate(converter *c)
{
    size_t sites = c->plan.site_count;
    c->meters = hk_arena_array(c->arena, sites, sizeof(hk_snn_meter *));
    c->readings = hk_arena_array(c->arena, sites, sizeof *c->readings);
    if (!c->meters || !c->readings)
        return hk_out_of_memory(c->ctx, "calibration");
    if (!has_data(c))
        return set_thresholds(c);
    for (size_t i = 0; i < sites; i++)
        HK_TRY(hk_snn_meter_create(c->arena, &c->rule, c->plan.sites[i].channels, c->plan.sites[i].ceiling,
                                   &c->meters[i]));
    hk_status st = HK_OK;
    for (int pass = 0; pass < hk_snn_meter_passes(&c->rule) && st == HK_OK; pass++) {
        for (size_t i = 0; i < sites; i++)
            hk_snn_meter_begin(c->meters[i], pass);
        st = each_batch(c, INT64_MAX, measure_batch);
        for (size_t i = 0; i < sites && st == HK_OK; i++)
            hk_snn_meter_end(c->meters[i]);
        if (st == HK_OK && !pass) /* nothing is measured behind a dead layer */
            for (size_t i = 0; i < sites; i++)
                if (is_dead(c, i))
                    pass = hk_snn_meter_passes(&c->rule);
    }
    return st == HK_OK ? set_thresholds(c) : st;
}

/* ---- the spiking graph */

static hk_snn_choice choice_of(const converter *c)
{
    return (hk_snn_choice){.average_pool = c->params.average_pool, .functional = c->params.functional};
}

/* A rewritten clone of the original, with the plan's thresholds. */
static hk_status spiking_model(converter *c, bool probe, bool rates, hk_model **out)
{
    hk_graph *g = NULL;
    hk_snn_plan plan;
    hk_snn_form form = {.steps = c->params.steps,
                        .delay = c->params.delay,
                        .tau = c->params.tau,
                        .hard_reset = c->params.hard_reset,
                        .scalers = c->params.scalers,
                        .probe = probe,
                        .rates = rates};
    HK_TRY(hk_graph_clone(c->graph, &g));
    hk_status st = hk_snn_plan_make(g, choice_of(c), &plan);
    for (size_t i = 0, at = 0; st == HK_OK && i < plan.site_count; at += (size_t)plan.sites[i++].channels) {
        plan.sites[i].thresholds = c->plan.sites[i].thresholds;
        plan.sites[i].corrections = c->corrections ? c->corrections + at : NULL;
    }
    if (st == HK_OK)
        st = hk_snn_rewrite(&plan, &form);
    if (st == HK_OK)
        st = hk_model_of_graph(g, out);
    hk_graph_destroy(&g);
    return st;
}

/* ---- bias calibration: one layer after the other, so that each sees what the corrected ones before it hand on */

static size_t all_channels(const converter *c)
{
    size_t n = 0;
    for (size_t i = 0; i < c->plan.site_count; i++)
        n += (size_t)c->plan.sites[i].channels;
    return n;
}

static void add_means(double *sums, const hk_tensor *y, const hk_snn_site *s, double weight)
{
    hk_shape shape = hk_tensor_shape(y);
    int64_t count = hk_shape_count(&shape);
    int64_t inner = s->channels > 1 ? hk_shape_span(&shape, 2, shape.rank) : count;
    for (int64_t i = 0; i < count; i++)
        sums[s->channels > 1 ? i / inner % s->channels : 0] += weight * fmin(hk_get_double(y, i), s->ceiling) *
                                                               (double)s->channels / (double)count;
}

static hk_status original_means(converter *c, hk_session *s, const hk_model *m, const hk_tensor *inputs)
{
    int64_t samples = samples_of(inputs);
    size_t count = 0, at = 0;
    const hk_value_info *outputs = hk_model_outputs(m, &count);
    for (size_t i = 0; i < c->plan.site_count; at += (size_t)c->plan.sites[i++].channels) {
        hk_tensor y = {0};
        HK_TRY(hk_session_read(s, outputs[count - c->plan.site_count + i].name, &y));
        add_means(c->ann_means + at, &y, &c->plan.sites[i], (double)samples);
        hk_tensor_release(&y);
    }
    *c->samples_seen += samples;
    return HK_OK;
}

static hk_status spiking_means(converter *c, hk_session *s, const hk_model *m, const hk_tensor *inputs)
{
    int64_t samples = samples_of(inputs);
    size_t count = 0, at = 0;
    const hk_value_info *outputs = hk_model_outputs(m, &count);
    for (size_t i = 0; i < c->plan.site_count; at += (size_t)c->plan.sites[i++].channels) {
        const hk_snn_site *site = &c->plan.sites[i];
        hk_tensor y = {0};
        HK_TRY(hk_session_read(s, outputs[count - c->plan.site_count + i].name, &y));
        for (int64_t k = 0; k < site->channels; k++)
            c->snn_means[at + (size_t)k] += (double)samples * (double)site->thresholds[k] * hk_get_double(&y, k);
        hk_tensor_release(&y);
    }
    *c->samples_seen += samples;
    return HK_OK;
}

/* Runs the probed network with the corrections so far. */
static hk_status measure_spiking(converter *c, const hk_model *probed, hk_session *s)
{
    size_t count = 0, at = 0, networks = c->graph->input_count;
    const hk_value_info *inputs = hk_model_inputs(probed, &count);
    for (size_t i = 0; i < c->plan.site_count; at += (size_t)c->plan.sites[i++].channels) {
        hk_tensor b = {.data = c->corrections + at, .dtype = HK_FLOAT32, .rank = inputs[networks + i].rank};
        memcpy(b.shape, inputs[networks + i].shape, sizeof b.shape);
        HK_TRY(hk_session_write(s, inputs[networks + i].name, &b));
    }
    memset(c->snn_means, 0, all_channels(c) * sizeof *c->snn_means);
    *c->samples_seen = 0;
    int64_t seen = 0;
    if (!c->params.loader)
        return run_batch(c, s, probed, c->params.inputs, c->params.input_count, spiking_means);
    HK_TRY(hk_loader_seek(c->params.loader, 0, 0));
    for (hk_batch b = {0}; seen < c->params.bias_samples; seen += (int64_t)b.count) {
        HK_TRY(hk_loader_next(c->params.loader, &b));
        if (!b.count)
            break;
        HK_TRY(run_batch(c, s, probed, b.inputs, b.input_count, spiking_means));
    }
    return HK_OK;
}

static hk_status correct_layers(converter *c, const hk_model *probed, double samples)
{
    hk_session *s = NULL;
    size_t at = 0;
    HK_TRY(hk_session_create(c->dev, probed, NULL, &s));
    hk_status st = HK_OK;
    for (size_t i = 0; i < c->plan.site_count && st == HK_OK; i++) {
        size_t channels = (size_t)c->plan.sites[i].channels;
        st = measure_spiking(c, probed, s);
        if (!i)
            memcpy(c->first_means, c->snn_means, all_channels(c) * sizeof *c->snn_means);
        for (size_t k = at; k < at + channels && st == HK_OK; k++)
            c->corrections[k] = (float)((c->ann_means[k] - c->snn_means[k]) / samples);
        at += channels;
    }
    hk_session_destroy(&s);
    return st;
}

static hk_status calibrate_biases(converter *c)
{
    size_t n = all_channels(c);
    hk_model *probed = NULL;
    c->ann_means = hk_arena_array(c->arena, n, sizeof *c->ann_means);
    c->snn_means = hk_arena_array(c->arena, n, sizeof *c->snn_means);
    c->first_means = hk_arena_array(c->arena, n, sizeof *c->first_means);
    c->corrections = hk_arena_array(c->arena, n, sizeof *c->corrections);
    c->samples_seen = hk_arena_new(c->arena, int64_t);
    if (!c->ann_means || !c->snn_means || !c->first_means || !c->corrections || !c->samples_seen)
        return hk_out_of_memory(c->ctx, "calibration");
    hk_status st = each_batch(c, c->params.bias_samples, original_means);
    double samples = (double)*c->samples_seen;
    if (st == HK_OK)
        st = spiking_model(c, true, false, &probed);
    if (st == HK_OK)
        st = correct_layers(c, probed, samples);
    for (size_t k = 0; k < n && st == HK_OK; k++) {
        c->ann_means[k] /= samples;
        c->first_means[k] /= samples;
    }
    hk_model_destroy(&probed);
    return st;
}

/* ---- the finished network beside the original */

/* Sums of squares of the difference from b, and of b. */
typedef struct distance {
    double error, norm;
} distance;

static double relative(const distance *d)
{
    return d->norm > 0 ? sqrt(d->error / d->norm) : d->error > 0 ? INFINITY : 0;
}

struct comparison {
    hk_session *s; /* of the finished network, with the rates of its neurons */
    const hk_model *m;
    distance output, *sites;
    int64_t samples, rows, same;
};

static void add_distance(distance *d, double a, double b)
{
    d->error += (a - b) * (a - b);
    d->norm += b * b;
}

static int64_t largest_in(const hk_tensor *t, int64_t row)
{
    int64_t n = t->shape[1], best = 0;
    for (int64_t k = 1; k < n; k++)
        best = hk_get_double(t, row * n + k) > hk_get_double(t, row * n + best) ? k : best;
    return best;
}

static void compare_outputs(struct comparison *with, const hk_tensor *spiking, const hk_tensor *original)
{
    for (int64_t i = 0, n = hk_tensor_count(original); i < n; i++)
        add_distance(&with->output, hk_get_double(spiking, i), hk_get_double(original, i));
    for (int64_t row = 0; original->rank == 2 && original->shape[1] > 1 && row < original->shape[0]; row++) {
        with->same += largest_in(spiking, row) == largest_in(original, row);
        with->rows++;
    }
}

static void compare_site(distance *d, const hk_snn_site *s, const hk_tensor *rates, const hk_tensor *original)
{
    for (int64_t i = 0, n = hk_tensor_count(original); i < n; i++) {
        float theta = s->thresholds[s->channels > 1 ? i / s->inner % s->channels : 0];
        add_distance(d, (double)theta * hk_get_double(rates, i), fmax(fmin(hk_get_double(original, i), s->ceiling), 0));
    }
}

static hk_status read_pair(hk_session *a, const char *in_a, hk_tensor *x, hk_session *b, const char *in_b, hk_tensor *y)
{
    HK_TRY(hk_session_read(a, in_a, x));
    hk_status st = hk_session_read(b, in_b, y);
    if (st != HK_OK)
        hk_tensor_release(x);
    return st;
}

static hk_status compare_batch(converter *c, hk_session *s, const hk_model *m, const hk_tensor *inputs)
{
    struct comparison *with = c->with;
    size_t sites = c->plan.site_count, count = 0;
    const hk_value_info *original = hk_model_outputs(m, &count), *spiking = hk_model_outputs(with->m, &count);
    HK_TRY(write_inputs(c, with->s, inputs));
    HK_TRY(hk_session_run(with->s));
    for (size_t i = 0; i <= sites; i++) {
        size_t at = i < sites ? count - sites + i : 0;
        hk_tensor x = {0}, y = {0};
        HK_TRY(read_pair(with->s, spiking[at].name, &x, s, original[at].name, &y));
        if (i < sites)
            compare_site(&with->sites[i], &c->plan.sites[i], &x, &y);
        else
            compare_outputs(with, &x, &y);
        hk_tensor_release(&x);
        hk_tensor_release(&y);
    }
    with->samples += samples_of(inputs);
    return HK_OK;
}

/* Leaves what it finds in c->with. */
static hk_status compare(converter *c)
{
    struct comparison *with = hk_arena_new(c->arena, struct comparison);
    hk_model *spiking = NULL;
    if (!with || !(with->sites = hk_arena_array(c->arena, c->plan.site_count, sizeof *with->sites)))
        return hk_out_of_memory(c->ctx, "a comparison");
    c->with = with;
    hk_status st = spiking_model(c, false, true, &spiking);
    with->m = spiking;
    if (st == HK_OK)
        st = hk_session_create(c->dev, spiking, NULL, &with->s);
    if (st == HK_OK)
        st = each_batch(c, c->params.bias_samples, compare_batch);
    hk_session_destroy(&with->s);
    hk_model_destroy(&spiking);
    return st;
}

/* ---- reports */

static void report_nodes(const converter *c)
{
    for (size_t i = 0; i < c->plan.node_count && c->params.report; i++) {
        hk_snn_node d = c->plan.nodes[i];
        if (d.verdict == HK_SNN_NEURON && c->params.qcfs_levels) {
            d.reason = "becomes hk.QCFS: fine-tune the model, then convert it";
        } else if (d.verdict == HK_SNN_NEURON && (c->params.tau > 0 || c->params.hard_reset)) {
            d.verdict = HK_SNN_APPROXIMATE;
            d.reason = c->params.tau > 0 ? "becomes neurons that leak: their rates lie below the activations"
                                         : "becomes neurons whose hard reset loses what is above the threshold: their "
                                           "rates lie below the activations";
        }
        c->params.report(c->params.user, &d);
    }
}

static void report_layers(const converter *c)
{
    size_t at = 0;
    for (size_t i = 0; i < c->plan.site_count && c->params.layer; at += (size_t)c->plan.sites[i++].channels) {
        const hk_snn_site *s = &c->plan.sites[i];
        hk_snn_layer l = {.node = s->node->name,
                          .op = s->node->type,
                          .thresholds = s->thresholds,
                          .threshold_count = c->rule.per_channel ? (size_t)s->channels : 1,
                          .dead = c->readings[i].dead,
                          .greatest = c->readings[i].greatest,
                          .error = c->with ? relative(&c->with->sites[i]) : (double)NAN};
        for (int64_t k = 0; c->corrections && k < s->channels; k++) {
            l.ann_mean += c->ann_means[at + (size_t)k] / (double)s->channels;
            l.snn_mean += c->first_means[at + (size_t)k] / (double)s->channels;
        }
        c->params.layer(c->params.user, &l);
    }
}

static void report_fidelity(const converter *c)
{
    const struct comparison *w = c->with;
    if (!w || !c->params.fidelity)
        return;
    hk_snn_fidelity f = {.samples = w->samples,
                         .error = relative(&w->output),
                         .same_class = w->rows ? (double)w->same / (double)w->rows : (double)NAN};
    c->params.fidelity(c->params.user, &f);
}

static hk_status quantize(converter *c, hk_model **out)
{
    HK_TRY(hk_snn_insert_qcfs(&c->plan, c->params.qcfs_levels, c->rule.per_channel));
    return hk_model_of_graph(c->graph, out);
}

static hk_status make_spiking(converter *c, hk_model **out)
{
    hk_model *made = NULL;
    if (!c->params.no_bias_calibration && has_data(c))
        HK_TRY(calibrate_biases(c));
    if (has_data(c) && (c->params.layer || c->params.fidelity))
        HK_TRY(compare(c));
    HK_TRY(spiking_model(c, false, false, &made));
    *out = made;
    return HK_OK;
}

static hk_status convert(converter *c, hk_model **out)
{
    HK_TRY(hk_model_check_runs(c->model));
    if (hk_snn_describe(hk_model_graph(c->model)).steps)
        return hk_fail(c->ctx, HK_STATUS_USAGE,
                       "the model is a spiking network already; hk_snn_with_steps changes its T");
    HK_TRY(hk_graph_clone(hk_model_graph(c->model), &c->graph));
    c->arena = c->graph->arena;
    if (!c->params.qcfs_levels) /* which is trained, with its normalizations */
        HK_TRY(hk_fold_batchnorm(c->graph));
    HK_TRY(hk_graph_prune(c->graph));
    if (c->params.functional)
        HK_TRY(hk_snn_sign_pairs(c->graph));
    HK_TRY(hk_snn_plan_make(c->graph, choice_of(c), &c->plan));
    report_nodes(c);
    HK_TRY(hk_snn_plan_check(&c->plan));
    HK_TRY(check_params(c));
    HK_TRY(hk_snn_free_batch(&c->plan));
    HK_TRY(hk_snn_average_pools(&c->plan));
    HK_TRY(calibrate(c));
    HK_TRY(c->params.qcfs_levels ? quantize(c, out) : make_spiking(c, out));
    report_layers(c);
    report_fidelity(c);
    return HK_OK;
}

hk_status hk_snn_convert(hk_device *dev, const hk_model *m, const hk_snn_params *params, hk_model **out)
{
    converter c = {.ctx = dev->ctx, .dev = dev, .model = m, .params = {.size = sizeof c.params}};
    if (params)
        memcpy(&c.params, params, HK_MIN(params->size, sizeof c.params));
    hk_status st = convert(&c, out);
    hk_session_destroy(&c.session);
    hk_model_destroy(&c.original);
    hk_graph_destroy(&c.graph);
    return st;
}
