/* hillock eval --steps: a spiking network over the number of its time steps. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/command/spiking.h"

#define MOST_STEPS 64

static bool read_list(const char *text, int64_t *list, size_t *count)
{
    for (*count = 0; *text; text += *text == ',') {
        char *end = NULL;
        double x = strtod(text, &end);
        if (end == text || (*end && *end != ',') || !(x >= 1 && x <= 65536) || x > (double)(int64_t)x ||
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

/* ---- potentials that are not finite: such a neuron says nothing, and results are finite without it */

static hk_status check_charge(hk_session *s, const hk_snn_probe *p)
{
    hk_tensor charge = {0};
    hk_status st = p->charge ? hk_session_read(s, p->charge, &charge) : HK_OK;
    if (st == HK_OK && p->charge && !isfinite(tensor_element(&charge, 0))) {
        fprintf(stderr,
                "hillock eval: node '%s' (%s): a membrane potential is not finite, so that neuron is silent; look at "
                "the scaling of the data and at the weights before it\n",
                p->node, p->op);
        st = HK_STATUS_INVALID;
    }
    hk_tensor_release(&charge);
    return st;
}

hk_status check_potentials(training *r, const hk_batch *b)
{
    hk_snn_info info;
    hk_model *watched = NULL;
    hk_session *s = NULL;
    size_t count = 0;
    hk_snn_get_info(r->model, &info);
    if (!info.layers)
        return HK_OK;
    if (hk_snn_with_steps(r->model, info.steps, HK_SNN_MONITOR_COUNTS, &watched) != HK_OK)
        return HK_OK; /* one that cannot be watched is evaluated all the same */
    hk_status st = hk_session_create(r->dev, watched,
                                     &(hk_session_params){.size = sizeof(hk_session_params), .fresh = true}, &s);
    if (st == HK_OK)
        st = run_on_batch(watched, s, b);
    const hk_snn_probe *probes = st == HK_OK ? hk_snn_probes(watched, &count) : NULL;
    for (size_t i = 0; i < count && st == HK_OK; i++)
        st = check_charge(s, &probes[i]);
    hk_session_destroy(&s);
    hk_model_destroy(&watched);
    return st;
}

/* ---- a batch */

static hk_status add_counts(hk_session *s, const step_run *t, size_t i, const hk_snn_probe *p)
{
    hk_tensor sums = {0}, each = {0};
    hk_status st = hk_session_read(s, p->output, &sums);
    for (int64_t k = 0; st == HK_OK && k < t->steps; k++)
        t->counts[(int64_t)i * t->steps + k] += tensor_element(&sums, k);
    hk_tensor_release(&sums);
    if (st == HK_OK && p->each)
        st = hk_session_read(s, p->each, &each);
    for (int64_t k = 0; st == HK_OK && p->each && k < hk_tensor_count(&each); k++)
        t->each[i][k] += tensor_element(&each, k);
    hk_tensor_release(&each);
    return st == HK_OK ? check_charge(s, p) : st;
}

static size_t equal_classes(const hk_tensor *a, const hk_tensor *b)
{
    size_t same = 0;
    if (a->rank != 2 || b->rank != 2 || a->shape[0] != b->shape[0] || a->shape[1] != b->shape[1])
        return 0;
    for (int64_t row = 0; row < a->shape[0]; row++)
        same += largest_in_row(a, row) == largest_in_row(b, row);
    return same;
}

static hk_status add_row(const step_table *t, hk_session *s, step_row *row, const hk_batch *b, const hk_tensor *other)
{
    char name[512];
    hk_tensor y = {0};
    snprintf(name, sizeof name, "%s@%lld", t->r->output_name, (long long)row->steps);
    hk_status st = hk_session_read(s, row->steps < row->run->steps ? name : t->r->output_name, &y);
    if (st == HK_OK && !metrics_add(&row->m, &y, b->target))
        st = HK_STATUS_INVALID;
    if (st == HK_OK && t->other)
        row->same += equal_classes(&y, other);
    hk_tensor_release(&y);
    return st;
}

static hk_status run_batch(const step_table *t, step_run *run, hk_session *s, const hk_batch *b)
{
    size_t count = 0, outputs = 0;
    const hk_snn_probe *probes = hk_snn_probes(run->model, &count);
    hk_tensor other = {0};
    hk_status st = run_on_batch(t->r->model, s, b);
    for (size_t i = 0; i < count && st == HK_OK; i++)
        if (probes[i].output)
            st = add_counts(s, run, i, &probes[i]);
    if (st == HK_OK && t->other)
        st = run_on_batch(t->other, t->other_session, b);
    if (st == HK_OK && t->other)
        st = hk_session_read(t->other_session, hk_model_outputs(t->other, &outputs)[0].name, &other);
    for (size_t i = 0; i < t->row_count && st == HK_OK; i++)
        if (t->rows[i].run == run)
            st = add_row(t, s, &t->rows[i], b, &other);
    hk_tensor_release(&other);
    run->samples += (double)b->count;
    return st;
}

static bool make_room(step_run *run)
{
    size_t count = 0;
    const hk_snn_probe *p = hk_snn_probes(run->model, &count);
    run->counts = calloc(count * (size_t)run->steps + 1, sizeof *run->counts);
    run->each = calloc(count + 1, sizeof *run->each);
    bool made = run->counts && run->each;
    for (size_t i = 0; i < count && made; i++)
        made = !p[i].each || (run->each[i] = calloc((size_t)p[i].neurons + 1, sizeof **run->each)) != NULL;
    return made;
}

/* Runs the steps of rows first to last. */
static hk_status run_steps(const step_table *t, step_run *run, size_t first, size_t last)
{
    int64_t list[MOST_STEPS];
    hk_session *s = NULL;
    hk_loader *l = t->r->val ? t->r->val : t->r->loader;
    for (size_t i = first; i <= last; i++) {
        list[i - first] = t->rows[i].steps;
        t->rows[i].run = run;
        run->steps = t->rows[i].steps > run->steps ? t->rows[i].steps : run->steps;
    }
    hk_status st = hk_snn_with_readouts(t->r->model, list, last - first + 1, HK_SNN_MONITOR_COUNTS, &run->model);
    if (st == HK_OK && !make_room(run))
        st = HK_STATUS_OUT_OF_MEMORY;
    double begin = now_seconds();
    if (st == HK_OK)
        st = hk_session_create(t->r->dev, run->model,
                               &(hk_session_params){.size = sizeof(hk_session_params),
                                                    .precision = t->r->precision,
                                                    .fresh = !t->r->s.keep_state},
                               &s);
    if (st == HK_OK)
        st = hk_loader_seek(l, 0, 0);
    for (hk_batch b; st == HK_OK;) {
        st = hk_loader_next(l, &b);
        if (st != HK_OK || !b.count)
            break;
        st = run_batch(t, run, s, &b);
    }
    run->seconds = now_seconds() - begin;
    hk_session_destroy(&s);
    return st;
}

/* ---- what came out */

static double count_after(const step_run *run, size_t probe, int64_t steps)
{
    double sum = 0;
    for (int64_t k = 0; k < steps; k++)
        sum += run->counts[(int64_t)probe * run->steps + k];
    return sum / run->samples;
}

step_totals totals_after(const step_run *run, int64_t steps)
{
    step_totals sum = {0};
    size_t count = 0;
    const hk_snn_probe *p = hk_snn_probes(run->model, &count);
    for (size_t i = 0; i < count; i++) {
        double found = count_after(run, i, steps);
        sum.neurons += p[i].neurons;
        sum.macs += p[i].macs;
        *(p[i].neurons > 0 ? &sum.spikes : &sum.synops) += found;
    }
    sum.rate = sum.spikes / (sum.neurons * (double)steps);
    return sum;
}

layer_row layer_after(const step_run *run, size_t probe, int64_t steps)
{
    size_t count = 0;
    const hk_snn_probe *p = &hk_snn_probes(run->model, &count)[probe];
    double found = count_after(run, probe, steps), most = run->samples * (double)run->steps;
    layer_row l = {.probe = p};
    l.rate = p->neurons > 0 ? found / (p->neurons * (double)steps) : 0;
    l.synops = p->neurons > 0 ? 0 : found;
    for (size_t k = 0; p->each && k < (size_t)p->neurons; k++) {
        l.dead += !(run->each[probe][k] > 0);
        l.saturated += run->each[probe][k] >= most;
    }
    return l;
}

static void write_layers_json(FILE *f, const step_row *row)
{
    size_t probes = 0;
    hk_snn_probes(row->run->model, &probes);
    json_array(f, "layers");
    for (size_t k = 0; k < probes; k++) {
        layer_row l = layer_after(row->run, k, row->steps);
        json_object(f, NULL);
        json_string(f, "node", l.probe->node);
        json_string(f, "op", l.probe->op);
        if (l.probe->neurons > 0) {
            json_number(f, "neurons", l.probe->neurons);
            json_number(f, "rate", l.rate);
            if (row->steps == row->run->steps) {
                json_integer(f, "dead", (long long)l.dead);
                json_integer(f, "saturated", (long long)l.saturated);
            }
        } else {
            json_number(f, "macs", l.probe->macs);
            json_number(f, "synops", l.synops);
            json_bool(f, "spiking", l.probe->output != NULL);
        }
        json_object_end(f);
    }
    json_array_end(f);
}

void write_steps_json(const step_table *t, FILE *f)
{
    json_begin(f);
    json_string(f, "schema", "hillock-eval-steps-1");
    json_string(f, "device", hk_device_get_info(t->r->dev)->name);
    json_array(f, "runs");
    for (size_t i = 0; i < t->row_count; i++) {
        const step_row *row = &t->rows[i];
        step_totals sum = totals_after(row->run, row->steps);
        json_object(f, NULL);
        json_integer(f, "steps", (long long)row->steps);
        json_integer(f, "samples", (long long)row->run->samples);
        json_number(f, "accuracy", metrics_accuracy(&row->m));
        json_number(f, "loss", metrics_loss(&row->m));
        if (t->other)
            json_number(f, "same_class", (double)row->same / row->run->samples);
        json_number(f, "rate", sum.rate);
        json_number(f, "synops", sum.synops);
        json_number(f, "macs", sum.macs);
        json_number(f, "seconds", row->run->seconds);
        write_layers_json(f, row);
        json_object_end(f);
    }
    json_array_end(f);
    json_end(f);
}

static void print_layers(const step_run *run)
{
    size_t probes = 0;
    hk_snn_probes(run->model, &probes);
    printf("\nlayers at T = %lld, per sample; neurons that never fired, or at every step\n%-34s %-8s %10s %8s %8s %9s "
           "%14s %14s\n",
           (long long)run->steps, "node", "", "neurons", "rate", "dead", "saturated", "SynOps", "MACs");
    for (size_t k = 0; k < probes; k++) {
        layer_row l = layer_after(run, k, run->steps);
        const hk_snn_probe *p = l.probe;
        if (p->neurons > 0)
            printf("%-34s %-8s %10.0f %8.4f %8zu %9zu\n", p->node, "neurons", p->neurons, l.rate, l.dead, l.saturated);
        else if (p->output)
            printf("%-34s %-8s %10s %8s %8s %9s %14.0f %14.0f\n", p->node, p->op, "", "", "", "", l.synops, p->macs);
        else
            printf("%-34s %-8s %10s %8s %8s %9s %14s %14.0f\n", p->node, p->op, "", "", "", "", "numbers", p->macs);
    }
}

static void print_table(const step_table *t)
{
    const step_run *longest = t->runs;
    double seconds = 0;
    printf("%6s %9s %9s %10s %8s %14s %14s\n", "T", "accuracy", "loss", t->other ? "same class" : "", "rate",
           "SynOps/sample", "MACs/sample");
    for (size_t i = 0; i < t->row_count; i++) {
        const step_row *row = &t->rows[i];
        step_totals sum = totals_after(row->run, row->steps);
        char accuracy[32] = "", same[32] = "";
        if (row->m.classes)
            snprintf(accuracy, sizeof accuracy, "%.4f", metrics_accuracy(&row->m));
        if (t->other)
            snprintf(same, sizeof same, "%.4f", (double)row->same / row->run->samples);
        printf("%6lld %9s %9.5f %10s %8.4f %14.0f %14.0f\n", (long long)row->steps, accuracy, metrics_loss(&row->m),
               same, sum.rate, sum.synops, sum.macs);
        longest = row->run->steps > longest->steps ? row->run : longest;
    }
    for (size_t i = 0; i < t->run_count; i++)
        seconds += t->runs[i].seconds;
    printf("%.0f samples, %zu run%s, %.2f s\n", longest->samples, t->run_count, t->run_count > 1 ? "s" : "", seconds);
    print_layers(longest);
}

/* ---- the whole */

static hk_status open_other(step_table *t, const char *path)
{
    hk_status st = path ? hk_model_load(t->r->o->ctx, path, NULL, &t->other) : HK_OK;
    if (st != HK_OK || !path)
        return st;
    size_t ours = 0, theirs = 0;
    hk_model_inputs(t->r->model, &ours);
    hk_model_inputs(t->other, &theirs);
    if (ours != theirs) {
        fprintf(stderr, "hillock eval: '%s' takes %zu inputs, the spiking network %zu; --against is its original\n",
                path, theirs, ours);
        return HK_STATUS_USAGE;
    }
    return hk_session_create(t->r->dev, t->other, NULL, &t->other_session);
}

static void end_table(step_table *t)
{
    for (size_t i = 0; i < t->run_count; i++) {
        size_t probes = 0;
        if (t->runs[i].each)
            hk_snn_probes(t->runs[i].model, &probes);
        for (size_t k = 0; t->runs[i].each && k < probes; k++)
            free(t->runs[i].each[k]);
        free(t->runs[i].each);
        free(t->runs[i].counts);
        hk_model_destroy(&t->runs[i].model);
    }
    for (size_t i = 0; i < t->row_count; i++)
        metrics_finish(&t->rows[i].m);
    hk_session_destroy(&t->other_session);
    hk_model_destroy(&t->other);
}

static bool find_watched(step_table *t, const char *text)
{
    for (const char *at = text; at && *at; at += *at == ',') {
        size_t n = strcspn(at, ",");
        bool spikes = n == 6 && !strncmp(at, "spikes", n), potentials = n == 1 && *at == 'v';
        if (!spikes && !potentials) {
            fprintf(stderr, "hillock eval: '--monitor' with --steps takes spikes, v or both, found '%s'\n", text);
            return false;
        }
        t->watch_spikes |= spikes;
        t->watch_potentials |= potentials;
        at += n;
    }
    if (text && !t->folder)
        fprintf(stderr, "hillock eval: '--monitor' writes files; --out names the folder\n");
    return !text || t->folder;
}

hk_status evaluate_steps(training *r, const step_request *q)
{
    int64_t list[MOST_STEPS];
    step_row rows[MOST_STEPS] = {{0}};
    step_run runs[MOST_STEPS] = {{0}};
    step_table t = {.r = r, .rows = rows, .runs = runs, .folder = q->folder};
    hk_snn_info info;
    if (!read_list(q->steps, list, &t.row_count) || !find_watched(&t, q->monitor))
        return HK_STATUS_USAGE;
    for (size_t i = 0; i < t.row_count; i++)
        rows[i] = (step_row){.steps = list[i], .m.by = r->by};
    hk_snn_get_info(r->model, &info);
    hk_status st = open_other(&t, q->against);
    size_t together = info.readouts ? t.row_count : 1;
    for (size_t first = 0; st == HK_OK && first < t.row_count; first += together)
        st = run_steps(&t, &runs[t.run_count++], first, first + together - 1);
    if (st == HK_OK && r->o->json)
        write_steps_json(&t, stdout);
    else if (st == HK_OK)
        print_table(&t);
    if (st == HK_OK && t.folder)
        st = write_steps_report(&t);
    end_table(&t);
    return st;
}
