/* Conversion to spiking networks: the runs between the steps that snn/ makes of a graph. */
#include <math.h>
#include <string.h>

#include "ops/support/neuron.h"
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
    hk_snn_plan plan; /* of graph, which it does not rewrite */
    hk_snn_meter **meters;
    hk_snn_reading *readings;
    double *ann_means, *snn_means; /* of all channels of all sites, one after the other */
    double *first_means;           /* of the spiking network before correction */
    float *corrections;
    int64_t *samples_seen;
} converter;

const char *hk_snn_verdict_text(hk_snn_verdict v)
{
    static const char *const texts[] = {"passes", "exact", "neuron", "readout", "approximate", "unsupported"};
    return (size_t)v < HK_COUNT(texts) ? texts[v] : "?";
}

/* ---- single steps */

static hk_status neuron_steps(hk_context *ctx, const char *kind, const hk_neuron_params *given, size_t count,
                              const float *x, float *v, float *spike)
{
    hk_neuron_params p = {.size = sizeof p};
    if (given)
        memcpy(&p, given, HK_MIN(given->size, sizeof p));
    hk_neuron_attrs a = {.kind = kind,
                         .tau = p.tau == 0 ? 2 : p.tau,
                         .decay_input = p.decay_input,
                         .reset = p.soft_reset ? "soft" : "hard",
                         .v_reset = p.v_reset,
                         .v_threshold = p.v_threshold == 0 ? 1 : p.v_threshold,
                         .surrogate = "ATan"};
    hk_arena *arena = hk_arena_create(ctx);
    if (!arena)
        return hk_out_of_memory(ctx, "a neuron");
    const char *wrong = hk_neuron_check(arena, &a);
    hk_status st = wrong ? hk_fail(ctx, HK_STATUS_USAGE, "a step of %s neurons: %s", kind, wrong) : HK_OK;
    hk_neuron_rule rule = hk_neuron_rule_of(&a, true);
    for (size_t i = 0; i < count && st == HK_OK; i++) {
        double potential = (double)v[i];
        bool fired = hk_neuron_step(&rule, (double)x[i], (double)a.v_threshold, &potential);
        v[i] = (float)potential;
        spike[i] = fired ? 1.0f : 0.0f;
    }
    hk_arena_destroy(&arena);
    return st;
}

hk_status hk_if_step(hk_context *ctx, const hk_neuron_params *params, size_t count, const float *x, float *v,
                     float *spike)
{
    return neuron_steps(ctx, "IF", params, count, x, v, spike);
}

hk_status hk_lif_step(hk_context *ctx, const hk_neuron_params *params, size_t count, const float *x, float *v,
                      float *spike)
{
    return neuron_steps(ctx, "LIF", params, count, x, v, spike);
}

/* ---- options */

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
    if (!p->loader && !p->inputs)
        return hk_fail(c->ctx, HK_STATUS_USAGE,
                       "a conversion needs calibration data: thresholds come from the activations of the network on "
                       "samples. Give some hundred samples as it was trained on, labels are not used");
    c->rule = (hk_snn_rule){.mode = p->mode,
                            .level = p->level,
                            .per_channel = p->grain == HK_SNN_GRAIN_CHANNEL ||
                                           (p->grain == HK_SNN_GRAIN_DEFAULT && p->mode == HK_SNN_MODE_MMSE),
                            .steps = p->steps};
    return HK_OK;
}

/* ---- batches */

/* A graph as a model of its own. */
static hk_status model_of(const hk_graph *g, const char *producer, hk_model **out)
{
    void *data = NULL;
    size_t bytes = 0;
    HK_TRY(hk_export_memory(g, &(hk_export_params){.producer = producer}, &data, &bytes));
    hk_status st = hk_model_load_memory(g->ctx, data, bytes, NULL, out);
    hk_free(g->ctx, data);
    return st;
}

typedef hk_status on_batch(converter *c, hk_session *s, const hk_model *m, int64_t samples);

static hk_status run_batch(converter *c, hk_session *s, const hk_model *m, const hk_tensor *inputs, size_t count,
                           on_batch *take)
{
    const hk_graph *g = c->graph;
    if (count < g->input_count)
        return hk_fail(c->ctx, HK_STATUS_USAGE, "calibration data has %zu arrays per sample, the model %zu inputs",
                       count, g->input_count);
    for (size_t i = 0; i < g->input_count; i++)
        HK_TRY(hk_session_write(s, g->inputs[i]->name, &inputs[i]));
    HK_TRY(hk_session_run(s));
    return take(c, s, m, inputs[0].rank > 0 ? inputs[0].shape[0] : 1);
}

/* All batches of the calibration data, or those with the first `most` samples. */
static hk_status each_batch(converter *c, const hk_model *m, int64_t most, on_batch *take)
{
    hk_session *s = NULL;
    int64_t seen = 0;
    HK_TRY(hk_session_create(c->dev, m, NULL, &s));
    hk_status st = HK_OK;
    if (c->params.loader)
        st = hk_loader_seek(c->params.loader, 0, 0);
    for (hk_batch b = {0}; st == HK_OK && c->params.loader && seen < most; seen += (int64_t)b.count) {
        st = hk_loader_next(c->params.loader, &b);
        if (st != HK_OK || !b.count)
            break;
        st = run_batch(c, s, m, b.inputs, b.input_count, take);
    }
    if (st == HK_OK && !c->params.loader)
        st = run_batch(c, s, m, c->params.inputs, c->params.input_count, take);
    hk_session_destroy(&s);
    return st;
}

/* ---- thresholds */

static hk_status measure_batch(converter *c, hk_session *s, const hk_model *m, int64_t samples)
{
    size_t count = 0;
    const hk_value_info *outputs = hk_model_outputs(m, &count);
    (void)samples;
    for (size_t i = 0; i < c->plan.site_count; i++) {
        hk_tensor y = {0};
        HK_TRY(hk_session_read(s, outputs[count - c->plan.site_count + i].name, &y));
        hk_snn_meter_add(c->meters[i], &y);
        hk_tensor_release(&y);
    }
    return HK_OK;
}

/* The original with its activations as outputs, after its own. */
static hk_status make_original(converter *c, hk_model **out)
{
    hk_graph *g = NULL;
    HK_TRY(hk_graph_clone(c->graph, &g));
    hk_status st = HK_OK;
    for (size_t i = 0; i < c->plan.site_count && st == HK_OK; i++) {
        hk_value *y = g->values[c->plan.sites[i].y->id], *copy = NULL;
        st = hk_snn_node_make(g, c->plan.opset, "Identity", NULL, NULL, &y, 1, &copy);
        if (st == HK_OK && !hk_graph_add_output(g, copy))
            st = hk_out_of_memory(c->ctx, "calibration");
    }
    if (st == HK_OK)
        st = model_of(g, NULL, out);
    hk_graph_destroy(&g);
    return st;
}

static hk_status set_thresholds(converter *c)
{
    for (size_t i = 0; i < c->plan.site_count; i++) {
        hk_snn_site *s = &c->plan.sites[i];
        hk_snn_reading *r = &c->readings[i];
        *r = hk_snn_meter_read(c->meters[i]);
        if (!r->count)
            return hk_fail(c->ctx, HK_STATUS_INVALID, "the calibration data has no samples; give some hundred");
        if (r->not_finite)
            return hk_fail(
                c->ctx, HK_STATUS_INVALID,
                "node '%s' (%s): %lld of %lld activations are not finite on the calibration data; look at its "
                "scaling and at the model's weights",
                s->node->name, s->node->type, (long long)r->not_finite, (long long)r->count);
        if (!(r->greatest > 0))
            return hk_fail(
                c->ctx, HK_STATUS_INVALID,
                "node '%s' (%s) is never above 0 on the calibration data: a dead layer has no threshold; give "
                "other data, scaled as in training, or train the model again",
                s->node->name, s->node->type);
        s->thresholds = hk_arena_array(c->arena, (size_t)s->channels, sizeof *s->thresholds);
        if (!s->thresholds)
            return hk_out_of_memory(c->ctx, "calibration");
        if (!hk_snn_meter_thresholds(c->meters[i], s->thresholds))
            return hk_fail(
                c->ctx, HK_STATUS_INVALID,
                "node '%s' (%s): %g %% of its activations are 0 on the calibration data, so that percentile is "
                "no threshold; choose a larger one",
                s->node->name, s->node->type, c->params.level);
    }
    return HK_OK;
}

static hk_status calibrate(converter *c)
{
    hk_model *original = NULL;
    size_t sites = c->plan.site_count;
    c->meters = hk_arena_array(c->arena, sites, sizeof(hk_snn_meter *));
    c->readings = hk_arena_array(c->arena, sites, sizeof *c->readings);
    if (!c->meters || !c->readings)
        return hk_out_of_memory(c->ctx, "calibration");
    for (size_t i = 0; i < sites; i++)
        HK_TRY(hk_snn_meter_create(c->arena, &c->rule, c->plan.sites[i].channels, c->plan.sites[i].ceiling,
                                   &c->meters[i]));
    HK_TRY(make_original(c, &original));
    hk_status st = HK_OK;
    for (int pass = 0; pass < hk_snn_meter_passes(&c->rule) && st == HK_OK; pass++) {
        for (size_t i = 0; i < sites; i++)
            hk_snn_meter_begin(c->meters[i], pass);
        st = each_batch(c, original, INT64_MAX, measure_batch);
        for (size_t i = 0; i < sites && st == HK_OK; i++)
            hk_snn_meter_end(c->meters[i]);
        if (st == HK_OK && !pass) /* nothing is measured behind a dead layer */
            for (size_t i = 0; i < sites; i++)
                if (!(hk_snn_meter_read(c->meters[i]).greatest > 0))
                    pass = hk_snn_meter_passes(&c->rule);
    }
    hk_model_destroy(&original);
    return st == HK_OK ? set_thresholds(c) : st;
}

/* ---- the spiking graph */

/* A rewritten clone of the original, with the plan's thresholds. */
static hk_status spiking_model(converter *c, bool probe, hk_model **out)
{
    hk_graph *g = NULL;
    hk_snn_plan plan;
    hk_snn_form form = {.steps = c->params.steps,
                        .delay = c->params.delay,
                        .tau = c->params.tau,
                        .hard_reset = c->params.hard_reset,
                        .scalers = c->params.scalers,
                        .probe = probe};
    HK_TRY(hk_graph_clone(c->graph, &g));
    hk_status st = hk_snn_plan_make(g, c->params.average_pool, &plan);
    for (size_t i = 0, at = 0; st == HK_OK && i < plan.site_count; at += (size_t)plan.sites[i++].channels) {
        plan.sites[i].thresholds = c->plan.sites[i].thresholds;
        plan.sites[i].corrections = c->corrections ? c->corrections + at : NULL;
    }
    if (st == HK_OK)
        st = hk_snn_rewrite(&plan, &form);
    if (st == HK_OK)
        st = model_of(g, NULL, out);
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

static hk_status original_means(converter *c, hk_session *s, const hk_model *m, int64_t samples)
{
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

static hk_status spiking_means(converter *c, hk_session *s, const hk_model *m, int64_t samples)
{
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
    hk_model *original = NULL, *probed = NULL;
    c->ann_means = hk_arena_array(c->arena, n, sizeof *c->ann_means);
    c->snn_means = hk_arena_array(c->arena, n, sizeof *c->snn_means);
    c->first_means = hk_arena_array(c->arena, n, sizeof *c->first_means);
    c->corrections = hk_arena_array(c->arena, n, sizeof *c->corrections);
    c->samples_seen = hk_arena_new(c->arena, int64_t);
    if (!c->ann_means || !c->snn_means || !c->first_means || !c->corrections || !c->samples_seen)
        return hk_out_of_memory(c->ctx, "calibration");
    hk_status st = make_original(c, &original);
    if (st == HK_OK)
        st = each_batch(c, original, c->params.bias_samples, original_means);
    double samples = (double)*c->samples_seen;
    if (st == HK_OK)
        st = spiking_model(c, true, &probed);
    if (st == HK_OK)
        st = correct_layers(c, probed, samples);
    for (size_t k = 0; k < n && st == HK_OK; k++) {
        c->ann_means[k] /= samples;
        c->first_means[k] /= samples;
    }
    hk_model_destroy(&original);
    hk_model_destroy(&probed);
    return st;
}

/* ---- reports */

static void report_nodes(const converter *c)
{
    for (size_t i = 0; i < c->plan.node_count && c->params.report; i++) {
        hk_snn_node d = c->plan.nodes[i];
        if (d.verdict == HK_SNN_NEURON && (c->params.tau > 0 || c->params.hard_reset)) {
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
                          .greatest = c->readings[i].greatest};
        for (int64_t k = 0; c->corrections && k < s->channels; k++) {
            l.ann_mean += c->ann_means[at + (size_t)k] / (double)s->channels;
            l.snn_mean += c->first_means[at + (size_t)k] / (double)s->channels;
        }
        c->params.layer(c->params.user, &l);
    }
}

static hk_status convert(converter *c, hk_model **out)
{
    HK_TRY(hk_model_check_runs(c->model));
    if (hk_snn_describe(hk_model_graph(c->model)).steps)
        return hk_fail(c->ctx, HK_STATUS_USAGE,
                       "the model is a spiking network already; hk_snn_with_steps changes its T");
    HK_TRY(hk_graph_clone(hk_model_graph(c->model), &c->graph));
    c->arena = c->graph->arena;
    HK_TRY(hk_fold_batchnorm(c->graph));
    HK_TRY(hk_graph_prune(c->graph));
    HK_TRY(hk_snn_plan_make(c->graph, c->params.average_pool, &c->plan));
    report_nodes(c);
    HK_TRY(hk_snn_plan_check(&c->plan));
    HK_TRY(check_params(c));
    HK_TRY(hk_snn_free_batch(&c->plan));
    HK_TRY(hk_snn_average_pools(&c->plan));
    HK_TRY(calibrate(c));
    if (!c->params.no_bias_calibration)
        HK_TRY(calibrate_biases(c));
    hk_model *made = NULL;
    HK_TRY(spiking_model(c, false, &made));
    report_layers(c);
    *out = made;
    return HK_OK;
}

hk_status hk_snn_convert(hk_device *dev, const hk_model *m, const hk_snn_params *params, hk_model **out)
{
    converter c = {.ctx = dev->ctx, .dev = dev, .model = m, .params = {.size = sizeof c.params}};
    if (params)
        memcpy(&c.params, params, HK_MIN(params->size, sizeof c.params));
    hk_status st = convert(&c, out);
    hk_graph_destroy(&c.graph);
    return st;
}

/* ---- looking at one */

void hk_snn_get_info(const hk_model *m, hk_snn_info *out)
{
    *out = hk_snn_describe(hk_model_graph(m));
}

hk_status hk_snn_with_steps(const hk_model *m, int64_t steps, bool monitor, hk_model **out)
{
    const hk_graph *source = hk_model_graph(m);
    hk_snn_info info = hk_snn_describe(source);
    hk_snn_probe *probes = NULL;
    hk_graph *g = NULL;
    size_t count = 0;
    hk_model *made = NULL;
    if (!info.steps)
        return hk_fail(source->ctx, HK_STATUS_USAGE,
                       "the model has no neurons that walk through time; hillock convert makes a spiking network");
    if (steps < 1 || steps > 65536 || steps <= info.delay)
        return hk_fail(source->ctx, HK_STATUS_USAGE, "%lld time steps: this network takes %lld to 65536",
                       (long long)steps, (long long)info.delay + 1);
    HK_TRY(hk_graph_clone(source, &g));
    hk_status st = hk_snn_set_steps(g, steps);
    if (st == HK_OK && monitor)
        st = hk_snn_add_probes(g, &probes, &count);
    if (st == HK_OK)
        st = model_of(g, NULL, &made);
    if (st == HK_OK)
        st = hk_model_keep_probes(made, probes, count);
    hk_graph_destroy(&g);
    if (st == HK_OK)
        *out = made;
    else
        hk_model_destroy(&made);
    return st;
}
