/* hillock tune */
#include <stdlib.h>
#include <string.h>

#include "tools/command/command.h"

static const char usage[] =
    "usage: hillock tune MODEL [--shape NAME=1x3x224x224 ...] [--batch N] [--precision strict|high|fast]\n"
    "                    [--table FILE] [--candidates 4] [--runs 5] [--device D] [--max-memory 2G] [--json]\n\n"
    "Times kernels on the device with the shapes of a model: of every matrix product, convolution and attention the\n"
    "--candidates (up to 8) tiles, splits and ways that are predicted to be the fastest, each the least of --runs "
    "runs,\n"
    "after half a second of warm-up. Writes what was the fastest to a table, a text file: FILE, or the device's own "
    "in\n"
    "the cache folder. A table that is there keeps its other problems, so several models, shapes and precisions can\n"
    "share one. Prints the problems for which another kernel than the predicted one is kept, those that save most "
    "first;\n"
    "with --json all of them.\n\n"
    "Nothing uses a table by itself: --tuned FILE, or --tuned device for the device's own, of hillock run, bench and\n"
    "profile, and hk_session_params.tuned do. Other kernels sum in another order, so results agree within rounding;\n"
    "--deterministic ignores tables, and says so.\n\n"
    "example: hillock tune resnet50.onnx --batch 8 --precision fast\n"
    "         hillock bench resnet50.onnx --batch 8 --precision fast --tuned device\n";

typedef struct row {
    hk_tune_row r;
    char *text; /* holds the strings of r */
} row;

typedef struct rows {
    row *list;
    size_t count, capacity;
    bool failed;
} rows;

static char *put(char **at, const char *s)
{
    size_t n = strlen(s) + 1;
    char *copy = memcpy(*at, s, n);
    *at += n;
    return copy;
}

static void keep_row(void *user, const hk_tune_row *r)
{
    rows *all = user;
    if (all->count == all->capacity) {
        size_t capacity = all->capacity * 2 + 64;
        row *grown = realloc(all->list, capacity * sizeof *grown);
        all->failed |= !grown;
        if (!grown)
            return;
        all->list = grown;
        all->capacity = capacity;
    }
    char *text = malloc(strlen(r->problem) + strlen(r->kernel) + strlen(r->predicted) + 3), *at = text;
    all->failed |= !text;
    if (!text)
        return;
    row *mine = &all->list[all->count++];
    *mine = (row){.r = *r, .text = text};
    mine->r.problem = put(&at, r->problem);
    mine->r.kernel = put(&at, r->kernel);
    mine->r.predicted = put(&at, r->predicted);
}

static double saved(const row *x)
{
    return (x->r.predicted_ns - x->r.ns) * x->r.places;
}

static int by_saving(const void *a, const void *b)
{
    double x = saved(a), y = saved(b);
    return (y > x) - (y < x);
}

static void print_json(const hk_tune_result *result, const rows *all, const char *device)
{
    json_begin(stdout);
    json_string(stdout, "schema", "hillock-tune-1");
    json_string(stdout, "device", device);
    json_string(stdout, "table", result->path);
    json_number(stdout, "predicted_us", result->predicted_ns * 1e-3);
    json_number(stdout, "us", result->ns * 1e-3);
    json_array(stdout, "problems");
    for (size_t i = 0; i < all->count; i++) {
        const hk_tune_row *r = &all->list[i].r;
        json_object(stdout, NULL);
        json_string(stdout, "problem", r->problem);
        json_string(stdout, "kernel", r->kernel);
        json_integer(stdout, "splits", r->splits);
        json_number(stdout, "us", r->ns * 1e-3);
        json_string(stdout, "predicted", r->predicted);
        json_integer(stdout, "predicted_splits", r->predicted_splits);
        json_number(stdout, "predicted_us", r->predicted_ns * 1e-3);
        json_integer(stdout, "places", r->places);
        json_integer(stdout, "measured", r->measured);
        json_object_end(stdout);
    }
    json_array_end(stdout);
    json_end(stdout);
}

static void print_kernel(const char *kernel, uint32_t splits)
{
    printf("%s", kernel);
    if (splits > 1)
        printf(", %u splits", splits);
}

static void print_text(const hk_tune_result *result, const rows *all)
{
    for (size_t i = 0; i < all->count; i++) {
        const hk_tune_row *r = &all->list[i].r;
        if (!strcmp(r->kernel, r->predicted) && r->splits == r->predicted_splits)
            continue;
        printf("%s\n    %u x %.2f us by ", r->problem, r->places, r->ns * 1e-3);
        print_kernel(r->kernel, r->splits);
        printf("; predicted %.2f by ", r->predicted_ns * 1e-3);
        print_kernel(r->predicted, r->predicted_splits);
        printf("\n");
    }
    printf("%zu of %zu problems are faster with another kernel; all dispatches, one by one: %.1f us, predicted %.1f\n",
           result->changed, result->problems, result->ns * 1e-3, result->predicted_ns * 1e-3);
    printf("table %s\n", result->path);
}

/* Random inputs, each in the shape that choose_shape says. */
static hk_status make_inputs(const options *o, const hk_model *m, hk_tensor *inputs)
{
    size_t count = 0;
    uint64_t state = RANDOM_SEED;
    const hk_value_info *infos = hk_model_inputs(m, &count);
    hk_status st = HK_OK;
    for (size_t i = 0; i < count && st == HK_OK; i++)
        st = random_input(o, &infos[i], &state, &inputs[i]);
    return st;
}

static hk_status tune(const options *o, hk_device *dev, const hk_model *m, hk_tune_params *params)
{
    size_t count = 0;
    rows all = {0};
    hk_tune_result result;
    (void)hk_model_inputs(m, &count);
    hk_tensor *inputs = calloc(count + 1, sizeof *inputs);
    if (!inputs)
        return HK_STATUS_OUT_OF_MEMORY;
    params->report = keep_row;
    params->user = &all;
    hk_status st = make_inputs(o, m, inputs);
    if (st == HK_OK)
        st = hk_tune(dev, m, inputs, count, params, &result);
    if (st == HK_OK && all.failed)
        st = HK_STATUS_OUT_OF_MEMORY;
    if (all.count)
        qsort(all.list, all.count, sizeof *all.list, by_saving);
    if (st == HK_OK && o->json)
        print_json(&result, &all, hk_device_get_info(dev)->name);
    else if (st == HK_OK && !o->quiet)
        print_text(&result, &all);
    for (size_t i = 0; i < all.count; i++)
        free(all.list[i].text);
    free(all.list);
    for (size_t i = 0; i < count; i++)
        free(inputs[i].data);
    free(inputs);
    return st;
}

static int run(int argc, char **argv)
{
    static const option_spec specs[] = {{"--shape", true, true},
                                        {"--batch", true, false},
                                        {"--precision", true, false},
                                        {"--table", true, false},
                                        {"--runs", true, false},
                                        {"--candidates", true, false},
                                        {0}};
    options o;
    double candidates, runs;
    hk_tune_params params = {.size = sizeof params};
    int code = options_parse(&o, &verb_tune, specs, argc, argv);
    if (code >= 0)
        return code;
    if (o.argument_count != 1) {
        fprintf(stderr, "hillock tune: one model file is needed; see hillock tune --help\n");
        return finish_code(&o, EXIT_USAGE);
    }
    if (!option_number(&o, "--candidates", 1, 8, 4, &candidates) || !option_number(&o, "--runs", 1, 1000, 5, &runs) ||
        !option_precision(&o, &params.precision))
        return finish_code(&o, EXIT_USAGE);
    params.candidates = (uint32_t)candidates;
    params.runs = (uint32_t)runs;
    params.path = option_value(&o, "--table");
    hk_device *dev = NULL;
    hk_model *m = NULL;
    hk_status st = hk_model_load(o.ctx, o.arguments[0], NULL, &m);
    if (st == HK_OK)
        st = open_device(&o, &dev);
    if (st == HK_OK)
        st = tune(&o, dev, m, &params);
    hk_device_close(&dev);
    hk_model_destroy(&m);
    return finish(&o, st);
}

const verb verb_tune = {"tune", "time kernels for a model's shapes", usage, run};
