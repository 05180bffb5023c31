/* hillock verify */
#include <string.h>
#include <unistd.h>

#include "tools/command/command.h"

static const char usage[] =
    "usage: hillock verify DIR... [--rtol 1e-3] [--atol 1e-7] [--rel 5e-6] [--precision P] [--device D] [--json]\n\n"
    "Each DIR holds model.onnx and test_data_set_N/{input,output}_M.pb, the layout of the ONNX backend tests. Runs "
    "every\n"
    "set and compares every output: a float output passes if every element is within rtol and atol, or if the norm of\n"
    "the error is at most rel times the norm of the reference; integers and bools must be equal, NaN equals NaN, "
    "shapes\n"
    "and types must be equal. Prints the largest absolute and the relative norm error. Exits 1 if anything differs.\n\n"
    "example: hillock verify zoo/resnet50.dynamo\n";

typedef struct verification {
    options *o;
    hk_device *dev;
    hk_precision precision;
    double rtol, atol, rel;
    size_t passed, failed;
} verification;

static void report(verification *v, const char *folder, int set, const char *output, const comparison *c)
{
    bool ok = c->same_type && c->close;
    *(ok ? &v->passed : &v->failed) += 1;
    if (v->o->json) {
        json_object(stdout, NULL);
        json_string(stdout, "folder", folder);
        json_integer(stdout, "set", set);
        json_string(stdout, "output", output);
        json_bool(stdout, "ok", ok);
        json_number(stdout, "largest", c->largest);
        json_number(stdout, "norm", c->norm);
        json_object_end(stdout);
    } else if (!v->o->quiet || !ok) {
        printf("%-4s %s set %d '%s': ", ok ? "ok" : "FAIL", folder, set, output);
        if (c->same_type)
            printf("largest %.3g, relative norm %.3g\n", c->largest, c->norm);
        else
            printf("its type or shape differs from the reference's\n");
    }
}

static hk_status load(verification *v, const char *folder, int set, const char *kind, size_t i, hk_tensor *t,
                      bool *there)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/test_data_set_%d/%s_%zu.pb", folder, set, kind, i);
    *there = access(path, R_OK) == 0;
    return *there ? hk_tensor_load(v->o->ctx, path, t) : HK_OK;
}

static hk_status run_set(verification *v, hk_session *s, const hk_model *m, const char *folder, int set)
{
    size_t count = 0;
    hk_status st = HK_OK;
    const hk_value_info *infos = hk_model_inputs(m, &count);
    bool there = false;
    for (size_t i = 0; i < count && st == HK_OK; i++) {
        hk_tensor t = {0};
        st = load(v, folder, set, "input", i, &t, &there);
        if (st == HK_OK && there)
            st = hk_session_write(s, infos[i].name, &t);
        hk_tensor_release(&t);
    }
    if (st == HK_OK)
        st = hk_session_run(s);
    infos = hk_model_outputs(m, &count);
    for (size_t i = 0; i < count && st == HK_OK; i++) {
        hk_tensor want = {0}, got = {0};
        st = load(v, folder, set, "output", i, &want, &there);
        if (st == HK_OK && there)
            st = hk_session_read(s, infos[i].name, &got);
        if (st == HK_OK && there) {
            comparison c = compare(&got, &want, v->rtol, v->atol, v->rel);
            report(v, folder, set, infos[i].name, &c);
        }
        hk_tensor_release(&want);
        hk_tensor_release(&got);
    }
    return st;
}

static hk_status run_folder(verification *v, const char *folder)
{
    char path[1024];
    hk_model *m = NULL;
    hk_session *s = NULL;
    hk_session_params params = {.size = sizeof params, .precision = v->precision};
    snprintf(path, sizeof path, "%s/model.onnx", folder);
    hk_status st = hk_model_load(v->o->ctx, path, NULL, &m);
    if (st == HK_OK)
        st = hk_session_create(v->dev, m, &params, &s);
    for (int set = 0; st == HK_OK; set++) {
        snprintf(path, sizeof path, "%s/test_data_set_%d", folder, set);
        if (access(path, R_OK) != 0)
            break;
        st = run_set(v, s, m, folder, set);
    }
    hk_session_destroy(&s);
    hk_model_destroy(&m);
    return st;
}

static hk_status run_all(verification *v)
{
    hk_status st = open_device(v->o, &v->dev);
    if (st == HK_OK && v->o->json) {
        json_begin(stdout);
        json_string(stdout, "schema", "hillock-verify-1");
        json_string(stdout, "device", hk_device_get_info(v->dev)->name);
        json_array(stdout, "outputs");
    }
    for (size_t i = 0; i < v->o->argument_count && st == HK_OK; i++) {
        char folder[1000];
        snprintf(folder, sizeof folder, "%s", v->o->arguments[i]);
        for (size_t n = strlen(folder); n > 1 && folder[n - 1] == '/'; n--)
            folder[n - 1] = '\0';
        st = run_folder(v, folder);
        if (st != HK_OK)
            fprintf(stderr, "hillock verify: %s:\n", folder);
    }
    if (v->dev && v->o->json) {
        json_array_end(stdout);
        json_integer(stdout, "passed", (long long)v->passed);
        json_integer(stdout, "failed", (long long)v->failed);
        json_end(stdout);
    } else if (v->dev) {
        printf("%zu passed, %zu failed\n", v->passed, v->failed);
    }
    hk_device_close(&v->dev);
    if (st == HK_OK && v->passed + v->failed == 0) {
        fprintf(stderr, "hillock verify: no test_data_set_N with outputs was found\n");
        return HK_STATUS_MISMATCH;
    }
    return st == HK_OK && v->failed ? HK_STATUS_MISMATCH : st;
}

static int run(int argc, char **argv)
{
    static const option_spec specs[] = {
        {"--rtol", true, false}, {"--atol", true, false}, {"--rel", true, false}, {"--precision", true, false}, {0}};
    options o;
    verification v = {.o = &o};
    int code = options_parse(&o, &verb_verify, specs, argc, argv);
    if (code >= 0)
        return code;
    if (!o.argument_count) {
        fprintf(stderr, "hillock verify: at least one folder is needed; see hillock verify --help\n");
        return finish_code(&o, EXIT_USAGE);
    }
    if (!option_number(&o, "--rtol", 0, 1e9, 1e-3, &v.rtol) || !option_number(&o, "--atol", 0, 1e9, 1e-7, &v.atol) ||
        !option_number(&o, "--rel", 0, 1e9, 5e-6, &v.rel) || !option_precision(&o, &v.precision))
        return finish_code(&o, EXIT_USAGE);
    return finish(&o, run_all(&v));
}

const verb verb_verify = {"verify", "compare a model's outputs with stored references", usage, run};
