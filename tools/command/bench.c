/* hillock bench */
#include <stdlib.h>
#include <string.h>

#include "tools/command/command.h"

static const char usage[] =
    "usage: hillock bench MODEL [--shape NAME=1x3x224x224 ...] [--batch N] [--seconds 3] [--warm-up 0.5]\n"
    "                     [--precision P] [--tuned TABLE] [--deterministic] [--device D] [--max-memory 2G] [--json]\n\n"
    "Times whole runs: inputs written, submitted, waited for, outputs read. Inputs are random; a dimension that the\n"
    "model leaves open is 1, or N if it is an input's first and --batch is given, unless --shape gives it. Prints\n"
    "what loading the model and opening the device took, and apart from each other planning (shapes, passes, plan,\n"
    "recording), making pipelines, sending weights, and the first run; how the heap grew until then (Mesa's software\n"
    "device keeps its memory there too); percentiles of the wall time; the median time\n"
    "on the device, transfers excluded; and of pipelined runs the mean. --tuned takes kernels from a table of hillock\n"
    "tune (a file, or \"device\" for the device's own); --deterministic ignores it.\n\n"
    "example: hillock bench resnet50.onnx --batch 8\n";

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
        st = write_random_inputs(o, p->session, p->model) == HK_OK ? opened_run(p) : HK_STATUS_INTERNAL;
    for (double start = now_seconds(); st == HK_OK && (now_seconds() - start < seconds || s->count < 3);) {
        hk_plan_info plan = {0};
        double before = now_seconds();
        st = opened_run(p);
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
        json_number(stdout, "load_ms", p->load_seconds * 1e3);
        json_number(stdout, "open_ms", p->device_seconds * 1e3);
        json_number(stdout, "plan_ms", p->plan_seconds * 1e3);
        json_number(stdout, "pipelines_ms", p->pipelines_seconds * 1e3);
        json_number(stdout, "weights_ms", p->weights_seconds * 1e3);
        json_number(stdout, "first_run_ms", p->first_seconds * 1e3);
        json_integer(stdout, "anonymous_growth_bytes", p->anonymous_growth);
        json_number(stdout, "min_ms", s->wall[0] * 1e3);
        for (size_t i = 0; i < 3; i++) {
            char key[24];
            snprintf(key, sizeof key, "p%zu_ms", percents[i]);
            json_number(stdout, key, percentile(s->wall, s->count, percents[i]) * 1e3);
        }
        json_number(stdout, "max_ms", s->wall[s->count - 1] * 1e3);
        json_number(stdout, "device_ms", device * 1e3);
        json_number(stdout, "pipelined_ms", s->pipelined * 1e3);
        json_integer(stdout, "pipelines", (long long)stats.pipelines_created);
        json_integer(stdout, "peak_memory_bytes", (long long)stats.peak_memory_bytes);
        json_end(stdout);
        return;
    }
    printf("device     %s, opened in %.1f ms\n", d->name, p->device_seconds * 1e3);
    print_start(p);
    printf("runs       %zu\nlatency ms min %.4f", s->count, s->wall[0] * 1e3);
    for (size_t i = 0; i < 3; i++)
        printf("  p%zu %.4f", percents[i], percentile(s->wall, s->count, percents[i]) * 1e3);
    printf("  max %.4f\n", s->wall[s->count - 1] * 1e3);
    if (device > 0)
        printf("on device  %.4f ms (median, transfers excluded)\n", device * 1e3);
    printf("pipelined  %.4f ms a run\npipelines  %llu\nmemory     %.1f MiB at most\n", s->pipelined * 1e3,
           (unsigned long long)stats.pipelines_created, (double)stats.peak_memory_bytes / 0x1p20);
}

static int run(int argc, char **argv)
{
    static const option_spec specs[] = {{"--shape", true, true},           {"--batch", true, false},
                                        {"--seconds", true, false},        {"--warm-up", true, false},
                                        {"--precision", true, false},      {"--tuned", true, false},
                                        {"--deterministic", false, false}, {0}};
    options o;
    double seconds, warm;
    samples s = {0};
    hk_precision precision;
    int code = options_parse(&o, &verb_bench, specs, argc, argv);
    if (code >= 0)
        return code;
    if (o.argument_count != 1) {
        fprintf(stderr, "hillock bench: one model file is needed; see hillock bench --help\n");
        return finish_code(&o, EXIT_USAGE);
    }
    if (!option_number(&o, "--seconds", 0, 3600, 3, &seconds) || !option_number(&o, "--warm-up", 0, 3600, 0.5, &warm) ||
        !option_precision(&o, &precision))
        return finish_code(&o, EXIT_USAGE);
    opened p = {0};
    hk_status st = opened_create(&o, HK_PROFILE_RUNS, precision, &p);
    if (st == HK_OK)
        st = measure(&o, &p, warm, seconds, &s);
    if (st == HK_OK)
        st = measure_pipelined(&p, seconds, &s.pipelined);
    if (st == HK_OK)
        print_bench(&o, &p, &s);
    free(s.wall);
    free(s.device);
    opened_destroy(&p);
    return finish(&o, st);
}

const verb verb_bench = {"bench", "time whole runs", usage, run};
