/* hillock verify */
#include <errno.h>
#include <string.h>

#include "tools/command/verify.h"

static const char usage[] =
    "usage: hillock verify DIR... [--list FILE [--root DIR]] [--twice] [--device-floats] [--expect FILE]\n"
    "                      [--write-expect FILE] [--rtol 1e-3] [--atol 1e-7] [--rel 5e-6] [--precision P]\n"
    "                      [--device D] [--json] [--quiet]\n\n"
    "Each DIR holds model.onnx and test_data_set_N/{input,output}_M.pb, the layout of the ONNX backend tests. Runs "
    "every\n"
    "set and compares every output: a float output passes if every element is within rtol and atol, or if the norm of\n"
    "the error is at most rel times the norm of the reference; integers and bools must be equal, NaN equals NaN, "
    "shapes\n"
    "and types must be equal. Prints the largest absolute and the relative norm error. A folder that cannot be loaded\n"
    "or run counts as failed, and the others go on.\n\n"
    "  --list FILE          more folders, one a line under --root; a number behind a tab is that folder's own bound "
    "of\n"
    "                       the relative norm, and nothing else then passes a float output\n"
    "  --twice              runs every set again in the same session, after a run with other inputs: the outputs must\n"
    "                       be the first run's bit for bit\n"
    "  --device-floats      fails a folder in which the host computed floats that the device could have\n"
    "  --expect FILE        folders that may fail, each with its reason behind a tab; one that passes is an error\n"
    "  --write-expect FILE  writes such a list of what fails\n"
    "  --layers             looks for the first wrong node instead: every value of the model on the device, without\n"
    "                       passes, against the host evaluator given the same operands; then each pass. DIR's first\n"
    "                       set or --set N; or DIR is a model file and each input comes from --input NAME=FILE\n\n"
    "Exits 0 if all passed or failed as expected, 1 if anything else, 65 if nothing could run; a single folder that\n"
    "cannot run gives the code of its reason.\n\n"
    "example: hillock verify --twice zoo/resnet50.dynamo\n";

typedef struct tally {
    size_t passed, failed, expected, ran;
    hk_status first; /* why a folder could not run */
    bool mixed;      /* others had other reasons */
    FILE *candidates;
} tally;

static void print_case(const verify_options *v, const verify_case *c, const char *label, const char *sentence)
{
    if (v->o->json) {
        json_object(stdout, NULL);
        json_string(stdout, "folder", c->folder);
        json_bool(stdout, "ok", false);
        json_bool(stdout, "expected", !strcmp(label, "none"));
        json_string(stdout, "failure", sentence);
        json_object_end(stdout);
    } else if (!v->o->quiet || strcmp(label, "none") != 0) {
        printf("%-4s %s: %s\n", label, c->folder, sentence);
    }
}

/* One line a case, whatever the sentence contains. */
static void write_candidate(FILE *f, const verify_case *c, const char *sentence)
{
    fprintf(f, "%s\t", c->name);
    for (; *sentence; sentence++)
        fputc(*sentence == '\n' || *sentence == '\t' ? ' ' : *sentence, f);
    fputc('\n', f);
}

static hk_status run_case(const verify_options *v, const verify_case *c, tally *t)
{
    verify_result result;
    hk_status st = verify_run(v, c, &result);
    t->ran += st == HK_OK;
    if (st != HK_OK) {
        t->mixed |= t->first != HK_OK && t->first != st;
        t->first = t->first == HK_OK ? st : t->first;
    }
    if (*result.failure && t->candidates)
        write_candidate(t->candidates, c, result.failure);
    if (*result.failure && c->reason) {
        t->expected++;
        print_case(v, c, "none", result.failure);
    } else if (*result.failure || c->reason) {
        t->failed++;
        print_case(v, c, "FAIL", *result.failure ? result.failure : "it passes: remove it from the list of --expect");
    } else {
        t->passed++;
    }
    return st == HK_STATUS_DEVICE_LOST ? st : HK_OK;
}

static void print_summary(const verify_options *v, const tally *t, double seconds)
{
    if (v->o->json) {
        json_array_end(stdout);
        json_integer(stdout, "passed", (long long)t->passed);
        json_integer(stdout, "failed", (long long)t->failed);
        json_integer(stdout, "expected_failures", (long long)t->expected);
        json_number(stdout, "seconds", seconds);
        json_end(stdout);
    } else {
        printf("%zu passed, %zu failed", t->passed, t->failed);
        if (t->expected)
            printf(", %zu failed as expected", t->expected);
        printf(" in %.1f s\n", seconds);
    }
}

static int run_all(verify_options *v, const verify_list *l, tally *t)
{
    double begin = now_seconds();
    hk_status st = open_device(v->o, &v->dev);
    if (st != HK_OK)
        return finish(v->o, st);
    if (v->o->json) {
        json_begin(stdout);
        json_string(stdout, "schema", "hillock-verify-2");
        json_string(stdout, "device", hk_device_get_info(v->dev)->name);
        json_array(stdout, "outputs");
    }
    for (size_t i = 0; i < l->count && st == HK_OK; i++)
        st = run_case(v, &l->cases[i], t);
    print_summary(v, t, now_seconds() - begin);
    hk_device_close(&v->dev);
    if (st != HK_OK)
        return finish(v->o, st);
    bool nothing = !t->ran && t->failed;
    return finish_code(v->o, hk_status_exit_code(nothing     ? (t->mixed ? HK_STATUS_INVALID : t->first)
                                                 : t->failed ? HK_STATUS_MISMATCH
                                                             : HK_OK));
}

static int read_lists(const options *o, verify_list *l)
{
    const char *list = option_value(o, "--list"), *expect = option_value(o, "--expect");
    int code = 0;
    for (size_t i = 0; i < o->argument_count && !code; i++)
        if (!verify_list_add(l, NULL, o->arguments[i], -1)) {
            fprintf(stderr, "hillock verify: out of memory\n");
            code = hk_status_exit_code(HK_STATUS_OUT_OF_MEMORY);
        }
    if (!code && list)
        code = verify_list_read(l, option_value(o, "--root"), list);
    if (!code && expect)
        code = verify_list_expect(l, expect);
    if (!code && !l->count) {
        fprintf(stderr, "hillock verify: at least one folder is needed; see hillock verify --help\n");
        code = EXIT_USAGE;
    }
    return code;
}

static int run(int argc, char **argv)
{
    static const option_spec specs[] = {
        {"--rtol", true, false},           {"--atol", true, false},         {"--rel", true, false},
        {"--precision", true, false},      {"--list", true, false},         {"--root", true, false},
        {"--expect", true, false},         {"--write-expect", true, false}, {"--twice", false, false},
        {"--device-floats", false, false}, {"--layers", false, false},      {"--set", true, false},
        {"--input", true, true},           {"--all", false, false},         {0}};
    options o;
    verify_options v = {.o = &o};
    verify_list list = {0};
    tally t = {0};
    int code = options_parse(&o, &verb_verify, specs, argc, argv);
    if (code >= 0)
        return code;
    if (!option_number(&o, "--rtol", 0, 1e9, 1e-3, &v.rtol) || !option_number(&o, "--atol", 0, 1e9, 1e-7, &v.atol) ||
        !option_number(&o, "--rel", 0, 1e9, 5e-6, &v.rel) || !option_precision(&o, &v.precision))
        return finish_code(&o, EXIT_USAGE);
    if (option_given(&o, "--layers"))
        return verify_layers(&v);
    v.twice = option_given(&o, "--twice");
    v.device_floats = option_given(&o, "--device-floats");
    const char *path = option_value(&o, "--write-expect");
    code = read_lists(&o, &list);
    if (!code && path && !(t.candidates = fopen(path, "w"))) {
        fprintf(stderr, "hillock verify: '%s' cannot be created: %s\n", path, strerror(errno));
        code = hk_status_exit_code(HK_STATUS_CANNOT_CREATE);
    }
    code = code ? finish_code(&o, code) : run_all(&v, &list, &t);
    if (t.candidates && fclose(t.candidates) != 0) {
        fprintf(stderr, "hillock verify: writing '%s' failed: %s\n", path, strerror(errno));
        code = hk_status_exit_code(HK_STATUS_IO);
    }
    verify_list_free(&list);
    return code;
}

const verb verb_verify = {"verify", "compare a model's outputs with stored references", usage, run};
