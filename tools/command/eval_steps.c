/* hillock eval --steps: a spiking network over the number of its time steps. */
#include <stdlib.h>
#include <string.h>

#include "tools/command/train.h"

#define MOST_STEPS 64

typedef struct step_run {
    int64_t steps;
    metrics m;
    hk_model *model;
    double *counts; /* by probe, over all samples and steps */
    double samples, seconds;
} step_run;

static bool read_list(const char *text, int64_t *list, size_t *count)
{
    for (*count = 0; *text; text += *text == ',') {
        char *end = NULL;
        double x = strtod(text, &end);
        if (end == text || (*end && *end != ',') || x < 1 || x > 65536 || x > (double)(int64_t)x ||
            *count == MOST_STEPS) {
            fprintf(stderr,
                    "hillock eval: '--steps' takes numbers of time steps from 1 to 65536 between commas, found "
                    "'%s'\n",
                    text);
            return false;
        }
        list[(*count)++] = (int64_t)x;
        text = end;
    }
    return *count > 0;
}

static hk_status add_counts(hk_session *s, step_run *t)
{
    size_t count = 0;
    const hk_snn_probe *probes = hk_snn_probes(t->model, &count);
    for (size_t i = 0; i < count; i++) {
        hk_tensor sums = {0};
        if (!probes[i].output)
            continue;
        hk_status st = hk_session_read(s, probes[i].output, &sums);
        for (int64_t k = 0; st == HK_OK && k < hk_tensor_count(&sums); k++)
            t->counts[i] += tensor_element(&sums, k);
        hk_tensor_release(&sums);
        if (st != HK_OK)
            return st;
    }
    return HK_OK;
}

static hk_status run_steps(training *r, step_run *t)
{
    hk_session *s = NULL;
    hk_loader *l = r->val ? r->val : r->loader;
    size_t count = 0;
    hk_status st = hk_snn_with_steps(r->model, t->steps, true, &t->model);
    if (st != HK_OK)
        return st;
    hk_snn_probes(t->model, &count);
    t->counts = calloc(count + 1, sizeof *t->counts);
    double begin = now_seconds();
    st = t->counts ? hk_session_create(r->dev, t->model, NULL, &s) : HK_STATUS_OUT_OF_MEMORY;
    if (st == HK_OK)
        st = hk_loader_seek(l, 0, 0);
    for (hk_batch b; st == HK_OK;) {
        st = hk_loader_next(l, &b);
        if (st != HK_OK || !b.count)
            break;
        st = evaluate_session(r, s, &b, &t->m);
        if (st == HK_OK)
            st = add_counts(s, t);
        t->samples += (double)b.count;
    }
    t->seconds = now_seconds() - begin;
    hk_session_destroy(&s);
    return st;
}

/* ---- what came out */

typedef struct totals {
    double spikes, neurons, synops, macs;
} totals;

static totals add_up(const step_run *t)
{
    totals sum = {0};
    size_t count = 0;
    const hk_snn_probe *p = hk_snn_probes(t->model, &count);
    for (size_t i = 0; i < count; i++) {
        sum.neurons += p[i].neurons;
        sum.macs += p[i].macs;
        sum.spikes += p[i].neurons > 0 ? t->counts[i] / t->samples : 0;
        sum.synops += p[i].neurons > 0 ? 0 : t->counts[i] / t->samples;
    }
    return sum;
}

static double rate_of(const step_run *t, const hk_snn_probe *p, double count)
{
    return p->neurons > 0 ? count / (t->samples * p->neurons * (double)t->steps) : 0;
}

static void print_json(const training *r, const step_run *runs, size_t count)
{
    json_begin(stdout);
    json_string(stdout, "schema", "hillock-eval-steps-1");
    json_string(stdout, "device", hk_device_get_info(r->dev)->name);
    json_array(stdout, "runs");
    for (size_t i = 0; i < count; i++) {
        const step_run *t = &runs[i];
        totals sum = add_up(t);
        size_t probes = 0;
        const hk_snn_probe *p = hk_snn_probes(t->model, &probes);
        json_object(stdout, NULL);
        json_integer(stdout, "steps", (long long)t->steps);
        json_integer(stdout, "samples", (long long)t->samples);
        json_number(stdout, "accuracy", metrics_accuracy(&t->m));
        json_number(stdout, "loss", metrics_loss(&t->m));
        json_number(stdout, "rate", sum.spikes / (sum.neurons * (double)t->steps));
        json_number(stdout, "synops", sum.synops);
        json_number(stdout, "macs", sum.macs);
        json_number(stdout, "seconds", t->seconds);
        json_array(stdout, "layers");
        for (size_t k = 0; k < probes; k++) {
            json_object(stdout, NULL);
            json_string(stdout, "node", p[k].node);
            json_string(stdout, "op", p[k].op);
            if (p[k].neurons > 0) {
                json_number(stdout, "neurons", p[k].neurons);
                json_number(stdout, "rate", rate_of(t, &p[k], t->counts[k]));
            } else {
                json_number(stdout, "macs", p[k].macs);
                json_number(stdout, "synops", t->counts[k] / t->samples);
                json_bool(stdout, "spiking", p[k].output != NULL);
            }
            json_object_end(stdout);
        }
        json_array_end(stdout);
        json_object_end(stdout);
    }
    json_array_end(stdout);
    json_end(stdout);
}

static void print_layers(const step_run *t)
{
    size_t probes = 0;
    const hk_snn_probe *p = hk_snn_probes(t->model, &probes);
    printf("\nlayers at T = %lld, per sample\n%-34s %-8s %10s %8s %14s %14s\n", (long long)t->steps, "node", "",
           "neurons", "rate", "SynOps", "MACs");
    for (size_t k = 0; k < probes; k++) {
        if (p[k].neurons > 0)
            printf("%-34s %-8s %10.0f %8.4f\n", p[k].node, "neurons", p[k].neurons, rate_of(t, &p[k], t->counts[k]));
        else if (p[k].output)
            printf("%-34s %-8s %10s %8s %14.0f %14.0f\n", p[k].node, p[k].op, "", "", t->counts[k] / t->samples,
                   p[k].macs);
        else
            printf("%-34s %-8s %10s %8s %14s %14.0f\n", p[k].node, p[k].op, "", "", "numbers", p[k].macs);
    }
}

static void print_table(const step_run *runs, size_t count)
{
    size_t last = 0;
    printf("%6s %9s %9s %8s %14s %14s %9s\n", "T", "accuracy", "loss", "rate", "SynOps/sample", "MACs/sample",
           "seconds");
    for (size_t i = 0; i < count; i++) {
        const step_run *t = &runs[i];
        totals sum = add_up(t);
        if (t->m.classes)
            printf("%6lld %9.4f", (long long)t->steps, metrics_accuracy(&t->m));
        else
            printf("%6lld %9s", (long long)t->steps, "");
        printf(" %9.5f %8.4f %14.0f %14.0f %9.2f\n", metrics_loss(&t->m), sum.spikes / (sum.neurons * (double)t->steps),
               sum.synops, sum.macs, t->seconds);
        last = t->steps >= runs[last].steps ? i : last;
    }
    print_layers(&runs[last]);
}

hk_status evaluate_steps(training *r, const char *text)
{
    int64_t list[MOST_STEPS];
    size_t count = 0, done = 0;
    if (!read_list(text, list, &count))
        return HK_STATUS_USAGE;
    step_run *runs = calloc(count, sizeof *runs);
    hk_status st = runs ? HK_OK : HK_STATUS_OUT_OF_MEMORY;
    for (; st == HK_OK && done < count; done++) {
        runs[done].steps = list[done];
        st = run_steps(r, &runs[done]);
    }
    if (st == HK_OK && r->o->json)
        print_json(r, runs, count);
    else if (st == HK_OK)
        print_table(runs, count);
    for (size_t i = 0; runs && i < count; i++) {
        metrics_finish(&runs[i].m);
        hk_model_destroy(&runs[i].model);
        free(runs[i].counts);
    }
    free(runs);
    return st;
}
