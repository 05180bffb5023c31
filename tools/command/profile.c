/* hillock profile */
#include <stdlib.h>
#include <string.h>

#include "tools/command/command.h"

static const char usage[] =
    "usage: hillock profile MODEL [--shape NAME=1x3x224x224 ...] [--batch N] [--runs 20] [--top 30] [--trace FILE]\n"
    "                       [--copy-rate GB/s] [--fma-rate GFLOP/s] [--precision P]\n"
    "                       [--tuned TABLE] [--deterministic] [--device D] [--json]\n\n"
    "Times every dispatch with device timestamps, one after the other, and every host step. Prints the median of the\n"
    "runs by operator and by node (the --top slowest, 0: all), with bytes, floating-point operations, rates, and the\n"
    "share of the roofline: the time that bytes at the device's copy rate or operations at its arithmetic rate would\n"
    "take, whichever is longer, over the time taken. Both rates are measured first unless they are given. --trace\n"
    "writes the run as trace events, which Perfetto and chrome://tracing open. --tuned takes kernels from a table of\n"
    "hillock tune (a file, or \"device\" for the device's own), and '*' marks those; --deterministic ignores it.\n\n"
    "example: hillock profile resnet50.onnx --batch 8 --trace resnet50.json\n";

typedef struct row {
    hk_plan_row plan;
    uint64_t *ns; /* by run */
    double us, bound_us;
    size_t nodes; /* of an operator's sum */
} row;

typedef struct profile {
    const options *o;
    opened p;
    hk_device_rates rates;
    hk_plan_info plan;
    row *rows; /* in the order of the plan */
    size_t count, runs, top;
    double device_us, host_us;
} profile;

/* ---- runs */

static hk_status keep_run(profile *f, size_t r)
{
    hk_status st = hk_session_get_plan(f->p.session, &f->plan);
    if (st != HK_OK)
        return st;
    if (!f->rows) {
        f->count = f->plan.row_count;
        f->rows = calloc(f->count + 1, sizeof *f->rows);
        for (size_t i = 0; f->rows && i < f->count; i++)
            if (!(f->rows[i].ns = calloc(f->runs, sizeof *f->rows[i].ns)))
                return HK_STATUS_OUT_OF_MEMORY;
        if (!f->rows)
            return HK_STATUS_OUT_OF_MEMORY;
    }
    if (f->plan.row_count != f->count) {
        fprintf(stderr, "hillock profile: the plan changes from run to run\n");
        return HK_STATUS_UNSUPPORTED;
    }
    for (size_t i = 0; i < f->count; i++)
        f->rows[i].ns[r] = f->plan.rows[i].ns;
    return HK_OK;
}

static int by_ns(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static bool is_device(const row *r)
{
    return !strcmp(r->plan.where, "device");
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

static void take_medians(profile *f)
{
    for (size_t i = 0; i < f->count; i++) {
        row *r = &f->rows[i];
        r->plan = f->plan.rows[i];
        r->nodes = 1;
        qsort(r->ns, f->runs, sizeof *r->ns, by_ns);
        r->us = (double)r->ns[f->runs / 2] * 1e-3;
        if (is_device(r))
            r->bound_us = 1e6 * larger((double)r->plan.bytes / f->rates.copy_bytes_per_second,
                                       r->plan.flops / f->rates.flops_per_second);
        *(is_device(r) ? &f->device_us : &f->host_us) += r->us;
    }
}

static hk_status profile_runs(profile *f)
{
    hk_status st = HK_OK;
    for (double start = now_seconds(); st == HK_OK && now_seconds() - start < 0.5;) /* the clock ramps up */
        st = opened_run(&f->p);
    for (size_t r = 0; r < f->runs && st == HK_OK; r++) {
        st = opened_run(&f->p);
        if (st == HK_OK)
            st = keep_run(f, r);
    }
    if (st == HK_OK)
        take_medians(f);
    return st;
}

/* ---- tables */

static int by_time(const void *a, const void *b)
{
    double x = ((const row *)a)->us, y = ((const row *)b)->us;
    return (x < y) - (x > y);
}

/* Rows of one operator become one. The list is the caller's. */
static row *sum_by_op(const profile *f, size_t *count)
{
    row *sums = calloc(f->count + 1, sizeof *sums);
    *count = 0;
    for (size_t i = 0; sums && i < f->count; i++) {
        const row *r = &f->rows[i];
        size_t at = 0;
        if (!strcmp(r->plan.where, "view"))
            continue;
        while (at < *count &&
               (strcmp(sums[at].plan.op, r->plan.op) != 0 || strcmp(sums[at].plan.where, r->plan.where) != 0))
            at++;
        if (at == *count) {
            sums[(*count)++] = *r;
            continue;
        }
        sums[at].us += r->us;
        sums[at].bound_us += r->bound_us;
        sums[at].plan.bytes += r->plan.bytes;
        sums[at].plan.flops += r->plan.flops;
        sums[at].nodes++;
    }
    if (sums)
        qsort(sums, *count, sizeof *sums, by_time);
    return sums;
}

static void print_row(const profile *f, const row *r)
{
    double total = f->device_us + f->host_us;
    printf("%6.1f%% %10.2f ", total > 0 ? 100 * r->us / total : 0, r->us);
    if (is_device(r) && r->us > 0)
        printf("%9.1f %9.1f %7.0f%%  ", (double)r->plan.bytes / r->us * 1e-3, r->plan.flops / r->us * 1e-3,
               100 * r->bound_us / r->us);
    else
        printf("%9s %9s %8s  ", "", "", is_device(r) ? "" : r->plan.where);
}

static void print_tables(const profile *f, const row *sums, size_t count)
{
    size_t shown = 0, tuned = 0;
    printf("%7s %10s %9s %9s %8s  %s\n", "share", "us", "GB/s", "GFLOP/s", "roofline", "operator");
    for (size_t i = 0; i < count; i++) {
        print_row(f, &sums[i]);
        printf("%s x %zu\n", sums[i].plan.op, sums[i].nodes);
    }
    row *sorted = calloc(f->count + 1, sizeof *sorted);
    if (!sorted)
        return;
    memcpy(sorted, f->rows, f->count * sizeof *sorted);
    qsort(sorted, f->count, sizeof *sorted, by_time);
    printf("\n%7s %10s %9s %9s %8s  %-18s %-26s %s\n", "share", "us", "GB/s", "GFLOP/s", "roofline", "op", "kernel",
           "node");
    for (size_t i = 0; i < f->count && (!f->top || shown < f->top); i++) {
        if (!strcmp(sorted[i].plan.where, "view"))
            continue;
        char kernel[80];
        snprintf(kernel, sizeof kernel, "%s%s", sorted[i].plan.kernel, sorted[i].plan.tuned ? " *" : "");
        print_row(f, &sorted[i]);
        printf("%-18s %-26s %s\n", sorted[i].plan.op, kernel, sorted[i].plan.node);
        tuned += sorted[i].plan.tuned;
        shown++;
    }
    free(sorted);
    printf("\ndevice     %s: copies %.1f GB/s, %.1f GFLOP/s\n", hk_device_get_info(f->p.dev)->name,
           f->rates.copy_bytes_per_second * 1e-9, f->rates.flops_per_second * 1e-9);
    printf(
        "total      %.2f us on the device, %.2f us in host steps; %zu dispatches, %zu barrier groups, %zu segments\n",
        f->device_us, f->host_us, f->plan.dispatches, f->plan.groups, f->plan.segments);
    if (tuned)
        printf("tuned      %zu of the dispatches shown have kernels of the table (*)\n", tuned);
    print_start(&f->p);
    printf("memory     activations %.1f MiB (live %.1f MiB), weights %.1f MiB\n",
           (double)f->plan.activation_bytes / 0x1p20, (double)f->plan.live_bytes / 0x1p20,
           (double)f->plan.weight_bytes / 0x1p20);
}

/* ---- JSON */

static void json_row(const row *r, bool node)
{
    json_object(stdout, NULL);
    json_string(stdout, "op", r->plan.op);
    json_string(stdout, "where", r->plan.where);
    if (node) {
        json_string(stdout, "node", r->plan.node);
        json_string(stdout, "kernel", r->plan.kernel);
        json_bool(stdout, "tuned", r->plan.tuned);
        json_integer(stdout, "group", r->plan.group);
    } else {
        json_integer(stdout, "nodes", (long long)r->nodes);
    }
    json_number(stdout, "us", r->us);
    json_integer(stdout, "bytes", (long long)r->plan.bytes);
    json_number(stdout, "flops", r->plan.flops);
    if (is_device(r))
        json_number(stdout, "roofline", r->us > 0 ? r->bound_us / r->us : 0);
    json_object_end(stdout);
}

static void print_json(const profile *f, const row *sums, size_t count)
{
    json_begin(stdout);
    json_string(stdout, "schema", "hillock-profile-2");
    json_string(stdout, "device", hk_device_get_info(f->p.dev)->name);
    json_number(stdout, "copy_bytes_per_second", f->rates.copy_bytes_per_second);
    json_number(stdout, "flops_per_second", f->rates.flops_per_second);
    json_number(stdout, "device_us", f->device_us);
    json_number(stdout, "host_us", f->host_us);
    json_number(stdout, "load_ms", f->p.load_seconds * 1e3);
    json_number(stdout, "plan_ms", f->p.plan_seconds * 1e3);
    json_number(stdout, "pipelines_ms", f->p.pipelines_seconds * 1e3);
    json_number(stdout, "weights_ms", f->p.weights_seconds * 1e3);
    json_number(stdout, "first_run_ms", f->p.first_seconds * 1e3);
    json_integer(stdout, "dispatches", (long long)f->plan.dispatches);
    json_integer(stdout, "groups", (long long)f->plan.groups);
    json_integer(stdout, "segments", (long long)f->plan.segments);
    json_integer(stdout, "activation_bytes", (long long)f->plan.activation_bytes);
    json_integer(stdout, "live_bytes", (long long)f->plan.live_bytes);
    json_array(stdout, "operators");
    for (size_t i = 0; i < count; i++)
        json_row(&sums[i], false);
    json_array_end(stdout);
    json_array(stdout, "nodes");
    for (size_t i = 0; i < f->count; i++)
        json_row(&f->rows[i], true);
    json_array_end(stdout);
    json_end(stdout);
}

/* ---- trace events: two threads, the device and the host, one after the other as the profiled run was */

static void trace_name(FILE *t, const char *what, int thread, const char *name)
{
    json_object(t, NULL);
    json_string(t, "name", what);
    json_string(t, "ph", "M");
    json_integer(t, "pid", 1);
    json_integer(t, "tid", thread);
    json_object(t, "args");
    json_string(t, "name", name);
    json_object_end(t);
    json_object_end(t);
}

static void trace_row(FILE *t, const row *r, double at)
{
    json_object(t, NULL);
    json_string(t, "name", *r->plan.node ? r->plan.node : r->plan.op);
    json_string(t, "cat", r->plan.op);
    json_string(t, "ph", "X");
    json_integer(t, "pid", 1);
    json_integer(t, "tid", is_device(r) ? 1 : 2);
    json_number(t, "ts", at);
    json_number(t, "dur", r->us);
    json_object(t, "args");
    json_string(t, "op", r->plan.op);
    json_string(t, "kernel", r->plan.kernel);
    json_integer(t, "group", r->plan.group);
    json_integer(t, "bytes", (long long)r->plan.bytes);
    json_number(t, "flops", r->plan.flops);
    if (is_device(r))
        json_number(t, "roofline", r->us > 0 ? r->bound_us / r->us : 0);
    json_object_end(t);
    json_object_end(t);
}

static hk_status write_trace(const profile *f, const char *path)
{
    text_file file;
    FILE *t = text_begin(&file);
    if (!t)
        return HK_STATUS_OUT_OF_MEMORY;
    double at = 0;
    json_begin(t);
    json_string(t, "displayTimeUnit", "ns");
    json_array(t, "traceEvents");
    trace_name(t, "process_name", 1, f->o->arguments[0]);
    trace_name(t, "thread_name", 1, hk_device_get_info(f->p.dev)->name);
    trace_name(t, "thread_name", 2, "host");
    for (size_t i = 0; i < f->count; i++) {
        if (!strcmp(f->rows[i].plan.where, "view") || !strcmp(f->rows[i].plan.where, "control"))
            continue;
        trace_row(t, &f->rows[i], at);
        at += f->rows[i].us;
    }
    json_array_end(t);
    json_end(t);
    return text_save(&file, f->o, NULL, path);
}

/* ---- the verb */

static hk_status print_all(const profile *f)
{
    size_t count = 0;
    const char *trace = option_value(f->o, "--trace");
    row *sums = sum_by_op(f, &count);
    if (!sums)
        return HK_STATUS_OUT_OF_MEMORY;
    if (f->o->json)
        print_json(f, sums, count);
    else
        print_tables(f, sums, count);
    free(sums);
    return trace ? write_trace(f, trace) : HK_OK;
}

/* What is not given is measured. */
static hk_status find_rates(profile *f, double copy, double fma)
{
    hk_status st = copy > 0 && fma > 0 ? HK_OK : hk_device_measure(f->p.dev, &f->rates);
    f->rates.copy_bytes_per_second = copy > 0 ? copy * 1e9 : f->rates.copy_bytes_per_second;
    f->rates.flops_per_second = fma > 0 ? fma * 1e9 : f->rates.flops_per_second;
    return st;
}

static int run(int argc, char **argv)
{
    static const option_spec specs[] = {{"--shape", true, true},
                                        {"--batch", true, false},
                                        {"--runs", true, false},
                                        {"--top", true, false},
                                        {"--trace", true, false},
                                        {"--copy-rate", true, false},
                                        {"--fma-rate", true, false},
                                        {"--precision", true, false},
                                        {"--tuned", true, false},
                                        {"--deterministic", false, false},
                                        {0}};
    options o;
    double runs, top, copy, fma;
    hk_precision precision;
    int code = options_parse(&o, &verb_profile, specs, argc, argv);
    if (code >= 0)
        return code;
    if (o.argument_count != 1) {
        fprintf(stderr, "hillock profile: one model file is needed; see hillock profile --help\n");
        return finish_code(&o, EXIT_USAGE);
    }
    if (!option_number(&o, "--runs", 1, 10000, 20, &runs) || !option_number(&o, "--top", 0, 1e9, 30, &top) ||
        !option_number(&o, "--copy-rate", 0, 1e9, 0, &copy) || !option_number(&o, "--fma-rate", 0, 1e9, 0, &fma) ||
        !option_precision(&o, &precision))
        return finish_code(&o, EXIT_USAGE);
    profile f = {.o = &o, .runs = (size_t)runs, .top = (size_t)top};
    hk_status st = opened_create(&o, HK_PROFILE_DISPATCHES, precision, &f.p);
    if (st == HK_OK)
        st = find_rates(&f, copy, fma);
    if (st == HK_OK)
        st = profile_runs(&f);
    if (st == HK_OK)
        st = print_all(&f);
    for (size_t i = 0; f.rows && i < f.count; i++)
        free(f.rows[i].ns);
    free(f.rows);
    opened_destroy(&f.p);
    return finish(&o, st);
}

const verb verb_profile = {"profile", "time every dispatch", usage, run};
