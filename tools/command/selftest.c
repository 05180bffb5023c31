/* hillock selftest */
#include "tools/command/command.h"

static const char usage[] =
    "usage: hillock selftest [OP...] [--list] [--verbose] [--kernels] [--device D] [--json]\n\n"
    "Runs every operator's kernels on the device, over shapes and attributes chosen to reach every variant, and\n"
    "compares with the host evaluator; products, convolutions and attention in every precision that has kernels of "
    "its\n"
    "own on the device. OP may end in '*'. Says how many of the build's kernels ran, in how many variants, and why\n"
    "others did not: --kernels lists both. --list prints the cases and runs nothing, --verbose prints each case as it\n"
    "ends. Exits 1 if a case fails. HILLOCK_CAPS switches capabilities off, HILLOCK_DEBUG=gpu-tuning lets a software\n"
    "device run the kernels of GPUs.\n\n"
    "example: hillock selftest Conv 'Reduce*' --kernels\n";

typedef struct listing {
    const options *o;
    bool verbose, list, kernels;
    bool begun; /* the array of kernels, behind that of cases */
} listing;

static void report(void *user, const hk_selftest_case *c)
{
    const listing *l = user;
    bool failed = c->failure && !c->skipped;
    if (l->o->json && (failed || l->list || l->verbose)) {
        json_object(stdout, NULL);
        json_string(stdout, "op", c->op);
        json_string(stdout, "case", c->text);
        json_string(stdout, "precision", c->precision);
        if (c->failure)
            json_string(stdout, failed ? "failure" : "skipped", c->failure);
        if (!l->list)
            json_number(stdout, "error", c->error);
        json_object_end(stdout);
    } else if (!l->o->json && l->list) {
        printf("%-24s %-6s %s\n", c->op, c->precision, c->text);
    } else if (!l->o->json && (failed || l->verbose)) {
        printf("%-4s %s %s, %s: error %.2g%s%s\n",
               failed       ? "FAIL"
               : c->skipped ? "skip"
                            : "ok",
               c->op, c->text, c->precision, c->error, c->failure ? "; " : "", c->failure ? c->failure : "");
    }
}

static void report_kernel(void *user, const hk_selftest_kernel *k)
{
    listing *l = user;
    if (l->o->json) {
        if (!l->begun) {
            json_array_end(stdout);
            json_array(stdout, "kernel_list");
            l->begun = true;
        }
        json_object(stdout, NULL);
        json_string(stdout, "kernel", k->name);
        json_integer(stdout, "dispatches", (long long)k->dispatches);
        json_array(stdout, "variants");
        for (size_t i = 0; i < k->variant_count; i++)
            json_string(stdout, NULL, k->variants[i]);
        json_array_end(stdout);
        if (k->why)
            json_string(stdout, "why", k->why);
        json_object_end(stdout);
    } else if (l->kernels && k->why) {
        printf("not run  %-32s %s\n", k->name, k->why);
    } else if (l->kernels) {
        printf("ran      %-32s %zu dispatches:", k->name, k->dispatches);
        for (size_t i = 0; i < k->variant_count; i++)
            printf("%s %s", i ? "," : "", k->variants[i]);
        printf("\n");
    }
}

static void print_end(const listing *l, const hk_device *dev, const hk_selftest_result *r)
{
    if (l->o->json) {
        json_array_end(stdout);
        json_integer(stdout, "operators", (long long)r->ops);
        json_integer(stdout, "passed", (long long)r->passed);
        json_integer(stdout, "failed", (long long)r->failed);
        json_integer(stdout, "skipped", (long long)r->skipped);
        json_integer(stdout, "kernels", (long long)r->kernels);
        json_integer(stdout, "kernels_run", (long long)r->kernels_run);
        json_integer(stdout, "variants_run", (long long)r->variants_run);
        json_end(stdout);
    } else if (dev) {
        printf("%s: %zu operators, %zu cases passed, %zu failed, %zu skipped\n", hk_device_get_info(dev)->name, r->ops,
               r->passed, r->failed, r->skipped);
        printf("%zu of %zu kernels ran, in %zu variants\n", r->kernels_run, r->kernels, r->variants_run);
    } else {
        printf("%zu operators, %zu cases\n", r->ops, r->skipped);
    }
}

static int run(int argc, char **argv)
{
    static const option_spec specs[] = {
        {"--verbose", false, false}, {"--list", false, false}, {"--kernels", false, false}, {0}};
    options o;
    int code = options_parse(&o, &verb_selftest, specs, argc, argv);
    if (code >= 0)
        return code;
    listing l = {.o = &o,
                 .verbose = option_given(&o, "--verbose"),
                 .list = option_given(&o, "--list"),
                 .kernels = option_given(&o, "--kernels")};
    hk_selftest_params params = {.size = sizeof params,
                                 .ops = (const char *const *)o.arguments,
                                 .op_count = o.argument_count,
                                 .report = report,
                                 .kernel = report_kernel,
                                 .user = &l};
    hk_selftest_result result = {0};
    hk_device *dev = NULL;
    hk_status st = l.list ? HK_OK : open_device(&o, &dev);
    if (st != HK_OK)
        return finish(&o, st);
    if (o.json) {
        json_begin(stdout);
        json_string(stdout, "schema", "hillock-selftest-2");
        if (dev)
            json_string(stdout, "device", hk_device_get_info(dev)->name);
        json_array(stdout, "cases");
    }
    st = l.list ? hk_selftest_list(o.ctx, &params, &result) : hk_selftest(dev, &params, &result);
    if (o.json || st == HK_OK || st == HK_STATUS_MISMATCH)
        print_end(&l, dev, &result);
    hk_device_close(&dev);
    return finish(&o, st);
}

const verb verb_selftest = {"selftest", "every operator's kernels against its host evaluator", usage, run};
