/* hillock bench and hillock profile */
#include <stdlib.h>
#include <string.h>

#include "tools/command/command.h"

static const char bench_usage[] =
    "usage: hillock bench MODEL [--shape NAME=1x3x224x224 ...] [--seconds 3] [--warm-up 0.5] [--precision P] [--device "
    "D] [--json]\n\n"
    "Times whole runs: inputs written, submitted, waited for, outputs read. Inputs are random, unknown dimensions 1 "
    "unless\n"
    "--shape gives them. Prints percentiles of the wall time, the median time on the device (transfers excluded), and "
    "of\n"
    "pipelined runs the mean.\n\n"
    "example: hillock bench resnet50.onnx --shape input=8x3x224x224\n";

static const char profile_usage[] =
    "usage: hillock profile MODEL [--shape NAME=1x3x224x224 ...] [--runs 20] [--precision P] [--device D] [--json]\n\n"
    "Times every dispatch with device timestamps, one after the other, and prints the median of the runs by node, "
    "with\n"
    "bytes, floating-point operations and rates.\n\n"
    "example: hillock profile resnet50.onnx --device H200\n";

typedef struct opened {
    hk_model *model;
    hk_device *dev;
    hk_session *session;
} opened;

static hk_status open_all(const options *o, hk_profile profile, hk_precision precision, opened *p)
{
    hk_session_params params = {.size = sizeof params, .precision = precision, .profile = profile};
    hk_status st = hk_model_load(o->ctx, o->arguments[0], NULL, &p->model);
    if (st == HK_OK)
        st = open_device(o, &p->dev);
    if (st == HK_OK)
        st = hk_session_create(p->dev, p->model, &params, &p->session);
    return st == HK_OK ? write_random_inputs(o, p->session, p->model) : st;
}

static void close_all(opened *p)
{
    hk_session_destroy(&p->session);
    hk_device_close(&p->dev);
    hk_model_destroy(&p->model);
}

static hk_status one_run(const opened *p)
{
    size_t count = 0;
    const hk_value_info *outputs = hk_model_outputs(p->model, &count);
    hk_status st = hk_session_run(p->session);
    for (size_t i = 0; i < count && st == HK_OK; i++) {
        hk_tensor t = {0};
        st = hk_session_read(p->session, outputs[i].name, &t);
        hk_tensor_release(&t);
    }
    return st;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Wall and device time of each run, in seconds; device time is 0 on a device without timestamps. */
typedef struct samples {
    double *wall, *device;
    size_t count, capacity;
    double pipelined; /* mean of pipelined runs */
} samples;

static bool add_sample(samples *s, double wall, double device)
{
    if (s->count == s->capacity) {
        size_t capacity = s->capacity * 2 + 256;
        double *grown = realloc(s->wall, capacity * sizeof *grown);
        if (grown)
            s->wall = grown;
        double *grown_device = grown ? realloc(s->device, capacity * sizeof *grown) : NULL;
        if (!grown_device)
            return false;
        s->device = grown_device;
        s->capacity = capacity;
    }
    s->wall[s->count] = wall;
    s->device[s->count++] = device;
    return true;
}

static hk_status measure(const options *o, const opened *p, double warm, double seconds, samples *s)
{
    hk_status st = HK_OK;
    for (double start = now_seconds(); st == HK_OK && now_seconds() - start < warm;)
        st = write_random_inputs(o, p->session, p->model) == HK_OK ? one_run(p) : HK_STATUS_INTERNAL;
    for (double start = now_seconds(); st == HK_OK && (now_seconds() - start < seconds || s->count < 3);) {
        hk_plan_info plan = {0};
        double before = now_seconds();
        st = one_run(p);
        double wall = now_seconds() - before;
        if (st == HK_OK)
            st = hk_session_get_plan(p->session, &plan);
        if (st == HK_OK && !add_sample(s, wall, (double)plan.device_ns * 1e-9))
            return HK_STATUS_OUT_OF_MEMORY;
    }
    return st;
}

static hk_status measure_pipelined(const opened *p, double seconds, double *mean)
{
    size_t runs = 0;
    uint64_t ticket = 0;
    hk_status st = HK_OK;
    double start = now_seconds();
    for (; st == HK_OK && (now_seconds() - start < seconds / 3 || runs < 3); runs++)
        st = hk_session_submit(p->session, &ticket);
    if (st == HK_OK)
        st = hk_session_wait(p->session, ticket);
    *mean = (now_seconds() - start) / (double)runs;
    return st;
}

static double percentile(const double *sorted, size_t count, size_t percent)
{
    size_t at = count * percent / 100;
    return sorted[at < count ? at : count - 1];
}

static void print_bench(const options *o, const opened *p, const samples *s)
{
    static const size_t percents[] = {50, 90, 99};
    const hk_device_info *d = hk_device_get_info(p->dev);
    hk_device_stats stats;
    hk_device_get_stats(p->dev, &stats);
    qsort(s->wall, s->count, sizeof *s->wall, by_value);
    qsort(s->device, s->count, sizeof *s->device, by_value);
    double device = percentile(s->device, s->count, 50);
    if (o->json) {
        json_begin(stdout);
        json_string(stdout, "schema", "hillock-bench-1");
        json_string(stdout, "device", d->name);
        json_integer(stdout, "runs", (long long)s->count);
        json_number(stdout, "min_ms", s->wall[0] * 1e3);
        for (size_t i = 0; i < 3; i++) {
            char key[24];
            snprintf(key, sizeof key, "p%zu_ms", percents[i]);
            json_number(stdout, key, percentile(s->wall, s->count, percents[i]) * 1e3);
        }
        json_number(stdout, "device_ms", device * 1e3);
        json_number(stdout, "pipelined_ms", s->pipelined * 1e3);
        json_integer(stdout, "pipelines", (long long)stats.pipelines_created);
        json_integer(stdout, "peak_memory_bytes", (long long)stats.peak_memory_bytes);
        json_end(stdout);
        return;
    }
    printf("device     %s\nruns       %zu\nlatency ms min %.4f", d->name, s->count, s->wall[0] * 1e3);
    for (size_t i = 0; i < 3; i++)
        printf("  p%zu %.4f", percents[i], percentile(s->wall, s->count, percents[i]) * 1e3);
    printf("  max %.4f\n", s->wall[s->count - 1] * 1e3);
    if (device > 0)
        printf("on device  %.4f ms (median, transfers excluded)\n", device * 1e3);
    printf("pipelined  %.4f ms a run\npipelines  %llu\nmemory     %.1f MiB at most\n", s->pipelined * 1e3,
           (unsigned long long)stats.pipelines_created, (double)stats.peak_memory_bytes / 0x1p20);
}

static int run_bench(int argc, char **argv)
{
    static const option_spec specs[] = {{"--shape", true, true},
                                        {"--seconds", true, false},
                                        {"--warm-up", true, false},
                                        {"--precision", true, false},
                                        {0}};
    options o;
    double seconds, warm;
    samples s = {0};
    hk_precision precision;
    int code = options_parse(&o, &verb_bench, specs, argc, argv);
    if (code >= 0)
        return code;
    if (o.argument_count != 1 || !option_number(&o, "--seconds", 0, 3600, 3, &seconds) ||
        !option_number(&o, "--warm-up", 0, 3600, 0.5, &warm) || !option_precision(&o, &precision)) {
        fprintf(stderr, "hillock bench: one model file is needed; see hillock bench --help\n");
        return finish_code(&o, EXIT_USAGE);
    }
    opened p = {0};
    hk_status st = open_all(&o, HK_PROFILE_RUNS, precision, &p);
    if (st == HK_OK)
        st = measure(&o, &p, warm, seconds, &s);
    if (st == HK_OK)
        st = measure_pipelined(&p, seconds, &s.pipelined);
    if (st == HK_OK)
        print_bench(&o, &p, &s);
    free(s.wall);
    free(s.device);
    close_all(&p);
    return finish(&o, st);
}

/* ---- profile: the run whose total is the median */

typedef struct profile {
    hk_plan_info plan;
    uint64_t **ns; /* by row, by run */
    size_t runs;
} profile;

static int by_ns(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void print_profile(const options *o, const opened *p, const profile *f)
{
    double total = 0;
    for (size_t i = 0; i < f->plan.row_count; i++) {
        qsort(f->ns[i], f->runs, sizeof **f->ns, by_ns);
        total += (double)f->ns[i][f->runs / 2];
    }
    if (o->json) {
        json_begin(stdout);
        json_string(stdout, "schema", "hillock-profile-1");
        json_string(stdout, "device", hk_device_get_info(p->dev)->name);
        json_number(stdout, "total_us", total * 1e-3);
        json_array(stdout, "nodes");
    } else {
        printf("%7s %9s %9s %9s  %-18s %-26s %s\n", "share", "us", "GB/s", "GFLOP/s", "op", "kernel", "node");
    }
    for (size_t i = 0; i < f->plan.row_count; i++) {
        const hk_plan_row *r = &f->plan.rows[i];
        double ns = (double)f->ns[i][f->runs / 2];
        if (o->json) {
            json_object(stdout, NULL);
            json_string(stdout, "node", r->node);
            json_string(stdout, "op", r->op);
            json_string(stdout, "where", r->where);
            json_string(stdout, "kernel", r->kernel);
            json_number(stdout, "us", ns * 1e-3);
            json_integer(stdout, "bytes", (long long)r->bytes);
            json_number(stdout, "flops", r->flops);
            json_object_end(stdout);
        } else if (!strcmp(r->where, "device")) {
            printf("%6.1f%% %9.2f %9.1f %9.1f  %-18s %-26s %s\n", total > 0 ? 100 * ns / total : 0, ns * 1e-3,
                   ns > 0 ? (double)r->bytes / ns : 0, ns > 0 ? r->flops / ns : 0, r->op, r->kernel, r->node);
        }
    }
    if (o->json) {
        json_array_end(stdout);
        json_end(stdout);
    } else {
        printf(
            "total %.2f us in %zu dispatches, %zu barrier groups, %zu segments; activations %.1f MiB (live %.1f MiB)\n",
            total * 1e-3, f->plan.dispatches, f->plan.groups, f->plan.segments,
            (double)f->plan.activation_bytes / 0x1p20, (double)f->plan.live_bytes / 0x1p20);
    }
}

static hk_status profile_runs(const opened *p, profile *f)
{
    hk_status st = one_run(p);
    for (double start = now_seconds(); st == HK_OK && now_seconds() - start < 0.5;) /* the clock ramps up */
        st = one_run(p);
    for (size_t r = 0; r < f->runs && st == HK_OK; r++) {
        st = one_run(p);
        if (st == HK_OK)
            st = hk_session_get_plan(p->session, &f->plan);
        if (st == HK_OK && !f->ns) {
            f->ns = calloc(f->plan.row_count + 1, sizeof *f->ns);
            for (size_t i = 0; f->ns && i < f->plan.row_count; i++)
                if (!(f->ns[i] = calloc(f->runs, sizeof **f->ns)))
                    return HK_STATUS_OUT_OF_MEMORY;
            if (!f->ns)
                return HK_STATUS_OUT_OF_MEMORY;
        }
        for (size_t i = 0; st == HK_OK && i < f->plan.row_count; i++)
            f->ns[i][r] = f->plan.rows[i].ns;
    }
    return st;
}

static int run_profile(int argc, char **argv)
{
    static const option_spec specs[] = {
        {"--shape", true, true}, {"--runs", true, false}, {"--precision", true, false}, {0}};
    options o;
    double runs;
    hk_precision precision;
    int code = options_parse(&o, &verb_profile, specs, argc, argv);
    if (code >= 0)
        return code;
    if (o.argument_count != 1 || !option_number(&o, "--runs", 1, 10000, 20, &runs) ||
        !option_precision(&o, &precision)) {
        fprintf(stderr, "hillock profile: one model file is needed; see hillock profile --help\n");
        return finish_code(&o, EXIT_USAGE);
    }
    opened p = {0};
    profile f = {.runs = (size_t)runs};
    hk_status st = open_all(&o, HK_PROFILE_DISPATCHES, precision, &p);
    if (st == HK_OK)
        st = profile_runs(&p, &f);
    if (st == HK_OK)
        print_profile(&o, &p, &f);
    for (size_t i = 0; f.ns && i < f.plan.row_count; i++)
        free(f.ns[i]);
    free(f.ns);
    close_all(&p);
    return finish(&o, st);
}

const verb verb_bench = {"bench", "time whole runs", bench_usage, run_bench};
const verb verb_profile = {"profile", "time every dispatch", profile_usage, run_profile};
