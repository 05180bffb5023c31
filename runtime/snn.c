/* Spiking networks: single steps, other numbers of steps, monitors. Conversion: runtime/snn_convert.c. */
#include <stdlib.h>
#include <string.h>

#include "ops/support/neuron.h"
#include "runtime/model.h"
#include "runtime/objects.h"
#include "snn/convert.h"
#include "snn/step_mode.h"

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

/* ---- looking at one */

void hk_snn_get_info(const hk_model *m, hk_snn_info *out)
{
    *out = hk_snn_describe(hk_model_graph(m));
}

/* (T,N,...): a first dimension of T before an open one. */
static bool has_time(const hk_shape *s, int64_t steps)
{
    bool open = false;
    for (int32_t d = 1; d < s->rank; d++)
        open |= s->dim[d] < 0;
    return open && s->dim[0] == steps;
}

/* Inputs and outputs with a time axis have the new T. */
static void change_time(hk_graph *g, int64_t from, int64_t to)
{
    for (size_t i = 0; i < g->input_count; i++)
        if (has_time(&g->inputs[i]->shape, from))
            g->inputs[i]->shape.dim[0] = to;
    for (size_t i = 0; i < g->output_count; i++)
        if (has_time(&g->outputs[i]->shape, from))
            g->outputs[i]->shape.dim[0] = to;
}

/* g with a list of steps that ends with the largest. */
static hk_status watch(hk_graph *g, const int64_t *steps, size_t count, uint32_t monitors, hk_model **out)
{
    hk_snn_probe *probes = NULL;
    size_t probe_count = 0;
    hk_model *made = NULL;
    change_time(g, hk_snn_describe(g).steps, steps[count - 1]);
    hk_status st = hk_snn_set_steps(g, steps[count - 1]);
    if (st == HK_OK && count > 1)
        st = hk_snn_add_readouts(g, steps, count - 1);
    if (st == HK_OK && monitors)
        st = hk_snn_add_probes(g, monitors, &probes, &probe_count);
    if (st == HK_OK)
        st = hk_model_of_graph(g, &made);
    if (st == HK_OK)
        st = hk_model_keep_probes(made, probes, probe_count);
    if (st == HK_OK)
        *out = made;
    else
        hk_model_destroy(&made);
    return st;
}

static int compare_steps(const void *a, const void *b)
{
    const int64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

hk_status hk_snn_with_readouts(const hk_model *m, const int64_t *steps, size_t count, uint32_t monitors, hk_model **out)
{
    const hk_graph *source = hk_model_graph(m);
    hk_snn_info info = hk_snn_describe(source);
    hk_graph *g = NULL;
    size_t kept = 0;
    if (hk_snn_is_single(source))
        return hk_fail(source->ctx, HK_STATUS_USAGE,
                       "the network takes one step a call, as often as there are steps: hk_snn_set_step_mode with "
                       "HK_STEP_MULTI makes the one that takes all of them in one call");
    if (!info.steps)
        return hk_fail(source->ctx, HK_STATUS_USAGE,
                       "the model has no neurons that walk through time; hillock convert makes a spiking network");
    for (size_t i = 0; i < count; i++)
        if (steps[i] < 1 || steps[i] > 65536 || steps[i] <= info.delay)
            return hk_fail(source->ctx, HK_STATUS_USAGE, "%lld time steps: this network takes %lld to 65536",
                           (long long)steps[i], (long long)info.delay + 1);
    if (!count || (count > 1 && !info.readouts))
        return hk_fail(source->ctx, HK_STATUS_USAGE,
                       "%zu numbers of steps, expected one%s: the outputs of this network are no means over time",
                       count, count ? "" : " at least");
    HK_TRY(hk_graph_clone(source, &g));
    int64_t *sorted = hk_arena_array(g->arena, count, sizeof *sorted);
    hk_status st = sorted ? HK_OK : hk_out_of_memory(source->ctx, "a spiking network");
    if (st == HK_OK) {
        memcpy(sorted, steps, count * sizeof *sorted);
        qsort(sorted, count, sizeof *sorted, compare_steps);
        for (size_t i = 0; i < count; i++)
            if (!kept || sorted[kept - 1] != sorted[i])
                sorted[kept++] = sorted[i];
        st = watch(g, sorted, kept, monitors, out);
    }
    hk_graph_destroy(&g);
    return st;
}

hk_status hk_snn_with_steps(const hk_model *m, int64_t steps, uint32_t monitors, hk_model **out)
{
    return hk_snn_with_readouts(m, &steps, 1, monitors, out);
}
