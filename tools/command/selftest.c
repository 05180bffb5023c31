/* hillock selftest */
#include "tools/command/command.h"

static const char usage[] =
    "usage: hillock selftest [OP...] [--verbose] [--device D] [--json]\n\n"
    "Runs every operator's kernels on the device, over shapes and attributes chosen to reach every variant, and "
    "compares\n"
    "with the host evaluator. Exits 1 if a case fails. HILLOCK_CAPS switches capabilities off.\n\n"
    "example: hillock selftest Conv hk.Gemm\n";

typedef struct listing {
    const options *o;
    bool verbose;
} listing;

static void report(void *user, const hk_selftest_case *c)
{
    const listing *l = user;
    bool failed = c->failure && !c->skipped;
    if (l->o->json && failed) {
        json_object(stdout, NULL);
        json_string(stdout, "op", c->op);
        json_string(stdout, "case", c->text);
        json_string(stdout, "failure", c->failure);
        json_number(stdout, "error", c->error);
        json_object_end(stdout);
    } else if (!l->o->json && (failed || l->verbose)) {
        printf("%-4s %s %s: error %.2g%s%s\n",
               failed       ? "FAIL"
               : c->skipped ? "skip"
                            : "ok",
               c->op, c->text, c->error, c->failure ? "; " : "", c->failure ? c->failure : "");
    }
}

static int run(int argc, char **argv)
{
    static const option_spec specs[] = {{"--verbose", false, false}, {0}};
    options o;
    int code = options_parse(&o, &verb_selftest, specs, argc, argv);
    if (code >= 0)
        return code;
    listing l = {.o = &o, .verbose = option_given(&o, "--verbose")};
    hk_selftest_params params = {.size = sizeof params, .report = report, .user = &l};
    hk_selftest_result all = {0}, one;
    hk_device *dev = NULL;
    hk_status st = open_device(&o, &dev), worst = st;
    if (st == HK_OK && o.json) {
        json_begin(stdout);
        json_string(stdout, "schema", "hillock-selftest-1");
        json_string(stdout, "device", hk_device_get_info(dev)->name);
        json_array(stdout, "failures");
    }
    size_t count = o.argument_count ? o.argument_count : 1;
    for (size_t i = 0; i < count && dev; i++) {
        params.op = o.argument_count ? o.arguments[i] : NULL;
        st = hk_selftest(dev, &params, &one);
        worst = st != HK_OK ? st : worst;
        all.ops += one.ops;
        all.passed += one.passed;
        all.failed += one.failed;
        all.skipped += one.skipped;
        if (st != HK_OK && st != HK_STATUS_MISMATCH)
            break;
    }
    if (dev && o.json) {
        json_array_end(stdout);
        json_integer(stdout, "passed", (long long)all.passed);
        json_integer(stdout, "failed", (long long)all.failed);
        json_integer(stdout, "skipped", (long long)all.skipped);
        json_end(stdout);
    } else if (dev) {
        printf("%s: %zu operators, %zu cases passed, %zu failed, %zu skipped\n", hk_device_get_info(dev)->name, all.ops,
               all.passed, all.failed, all.skipped);
    }
    hk_device_close(&dev);
    return finish(&o, worst);
}

const verb verb_selftest = {"selftest", "every operator's kernels against its host evaluator", usage, run};
