/* hillock eval */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/command/train.h"

static const char usage[] =
    "usage: hillock eval MODEL --data PATH [--labels FILE] [--output NAME] [options] [--device D] [--json]\n\n"
    "Runs a model on labelled data and prints loss, accuracy, top k and F1 (the mean of the classes') of classes, or\n"
    "mean absolute and squared errors of numbers. PATH and the\n"
    "options of data are those of hillock train: --label-column --targets --shape --resize --scale --mean --std "
    "--max-bad\n"
    "--batch --drop-last --threads --event-bins; --val SHARE with --seed takes the part that training held out. "
    "--loss\n"
    "says which loss (default: ce; targets of a regression need mse), --ignore-index which label does not count. The\n"
    "loss is that of torch.nn over all samples together, with --class-weights, --label-smoothing and --beta where "
    "they\n"
    "are given. --top-k 5: a label among so many of the largest scores.\n\n"
    "--steps 1,2,4,... says what a spiking network (hillock convert) answers after each number of time steps:\n"
    "accuracy, firing rates, dead and saturated neurons, and synaptic operations beside the multiply-accumulates of "
    "the\n"
    "original. With it: --against MODEL, the share of samples on which both say the same class; --out DIR, report.json "
    "and\n"
    "curves.svg; --monitor spikes,v, there too, of the first batch: arrays (T,N,...) of every layer and raster.svg.\n\n"
    "--precision strict, high or fast: as of hillock run.\n"
    "--keep-state: potentials of spiking layers go on from batch to batch instead of beginning anew.\n\n"
    "example: hillock eval tuned/model.onnx --data tests/data/digits --scale 0.0625 --val 0.2\n";

hk_status run_on_batch(const hk_model *m, hk_session *s, const hk_batch *b)
{
    size_t inputs = 0;
    const hk_value_info *in = hk_model_inputs(m, &inputs);
    hk_status st = HK_OK;
    for (size_t i = 0; i < inputs && st == HK_OK; i++)
        st = hk_session_write(s, in[i].name, &b->inputs[i]);
    return st == HK_OK ? hk_session_run(s) : st;
}

hk_status evaluate_session(training *r, hk_session *s, const hk_batch *b, metrics *m)
{
    hk_tensor output = {0};
    hk_status st = run_on_batch(r->model, s, b);
    if (st == HK_OK)
        st = hk_session_read(s, r->output_name, &output);
    if (st == HK_OK && !metrics_add(m, &output, b->target))
        st = HK_STATUS_INVALID;
    hk_tensor_release(&output);
    return st;
}

static void print_metrics(const training *r, const metrics *m, double seconds)
{
    char count[40], top[40];
    snprintf(top, sizeof top, "top%lld", (long long)m->by.top);
    if (r->o->json) {
        json_begin(stdout);
        json_string(stdout, "schema", "hillock-eval-1");
        json_string(stdout, "device", hk_device_get_info(r->dev)->name);
        json_integer(stdout, "samples", (long long)m->samples);
        json_number(stdout, "loss", metrics_loss(m));
        if (m->classes) {
            json_number(stdout, "accuracy", metrics_accuracy(m));
            if (!isnan(metrics_top(m)))
                json_number(stdout, top, metrics_top(m));
            json_number(stdout, "f1", metrics_f1(m));
        } else {
            json_number(stdout, "mae", metrics_mae(m));
            json_number(stdout, "mse", metrics_mse(m));
        }
        json_number(stdout, "seconds", seconds);
        json_end(stdout);
        return;
    }
    printf("%s %s in %.2f s  loss %.5f", format_count((double)m->samples, count, sizeof count),
           m->classes ? "samples" : "numbers", seconds, metrics_loss(m));
    if (m->classes)
        printf("  accuracy %.4f", metrics_accuracy(m));
    if (!isnan(metrics_top(m)))
        printf("  top %lld %.4f", (long long)m->by.top, metrics_top(m));
    if (m->classes)
        printf("  F1 %.4f\n", metrics_f1(m));
    else
        printf("  MAE %.6g  MSE %.6g\n", metrics_mae(m), metrics_mse(m));
}

static hk_status run_all(training *r)
{
    hk_session *s = NULL;
    hk_status st = evaluation_open(r);
    metrics m = {.by = r->by};
    if (st == HK_OK)
        st = hk_session_create(r->dev, r->model,
                               &(hk_session_params){.size = sizeof(hk_session_params),
                                                    .precision = r->precision,
                                                    .fresh = !r->s.keep_state},
                               &s);
    double begin = now_seconds();
    for (hk_batch b; st == HK_OK;) {
        st = hk_loader_next(r->val ? r->val : r->loader, &b);
        if (st != HK_OK || !b.count)
            break;
        if (!m.samples)
            st = check_potentials(r, &b);
        if (st == HK_OK)
            st = evaluate_session(r, s, &b, &m);
    }
    if (st == HK_OK)
        print_metrics(r, &m, now_seconds() - begin);
    hk_session_destroy(&s);
    metrics_finish(&m);
    return st;
}

/* The value of a flag that means something else here than in training: taken out of what settings_read reads. */
static const char *take(options *o, const char *flag)
{
    const char *value = NULL;
    size_t kept = 0;
    for (size_t i = 0; i < o->given_count; i++)
        if (!strcmp(o->given[i].spec->name, flag))
            value = o->given[i].value;
        else
            o->given[kept++] = o->given[i];
    o->given_count = kept;
    return value;
}

static hk_status run_spiking(training *r, const step_request *q)
{
    hk_status st = evaluation_open(r);
    return st == HK_OK ? evaluate_steps(r, q) : st;
}

/* The settings' flags, and --against. */
static const option_spec *specs(void)
{
    static option_spec list[256];
    const option_spec *table = settings_specs();
    size_t n = 0;
    for (; table[n].name && n + 2 < sizeof list / sizeof *list; n++)
        list[n] = table[n];
    list[n] = (option_spec){"--against", true, false};
    return list;
}

static int run(int argc, char **argv)
{
    options o;
    training r = {.o = &o};
    int code = options_parse(&o, &verb_eval, specs(), argc, argv);
    if (code >= 0)
        return code;
    const step_request q = {.steps = take(&o, "--steps"),
                            .against = take(&o, "--against"),
                            .monitor = take(&o, "--monitor"),
                            .folder = take(&o, "--out")};
    code = training_settings(&r, &verb_eval);
    if (code >= 0)
        return finish_code(&o, code);
    if (!q.steps && (q.against || q.monitor || q.folder)) {
        fprintf(stderr,
                "hillock eval: --against, --monitor and --out belong to --steps, a spiking network over time\n");
        return finish_code(&o, EXIT_USAGE);
    }
    hk_status st = q.steps ? run_spiking(&r, &q) : run_all(&r);
    if (st != HK_OK)
        print_error(&o);
    training_close(&r);
    return finish_code(&o, hk_status_exit_code(st));
}

const verb verb_eval = {"eval", "accuracy of a model on labelled data", usage, run};
