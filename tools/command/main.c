/* hillock VERB: finds the verb. */
#include <string.h>

#include "tools/command/command.h"

static const verb *const verbs[] = {&verb_devices, &verb_inspect, &verb_run,     &verb_verify,
                                    &verb_bench,   &verb_profile, &verb_tune,    &verb_selftest,
                                    &verb_train,   &verb_eval,    &verb_convert, &verb_demo};
#define VERBS (sizeof verbs / sizeof *verbs)

static void print_help(FILE *f)
{
    fprintf(f, "hillock: run, fine-tune and spike ONNX models on any Vulkan device\n\nusage: hillock VERB ...\n\n");
    for (size_t i = 0; i < VERBS; i++)
        fprintf(f, "  %-10s %s\n", verbs[i]->name, verbs[i]->summary);
    fprintf(
        f,
        "\n  --version  version, build, shader compiler and drivers\n\n"
        "hillock VERB --help tells more. Exit codes: 0 ok, 1 a comparison failed, 64 usage, 65 bad or unsupported\n"
        "model or data, 66 no input, 69 no device, 70 internal, 71 memory, 73 cannot create, 74 I/O, 75 device lost,\n"
        "78 configuration.\n");
}

static int print_version(void)
{
    hk_context *ctx = NULL;
    hk_device_info infos[8];
    size_t count = 0;
    printf("%s\n", hk_build_info());
    if (hk_context_create(NULL, &ctx) != HK_OK)
        return 71;
    if (hk_device_list(ctx, infos, 8, &count) == HK_OK)
        for (size_t i = 0; i < count && i < 8; i++)
            printf("device %zu: %s, %s\n", i, infos[i].name, infos[i].driver);
    if (!count)
        printf("no Vulkan device\n");
    hk_context_destroy(&ctx);
    return 0;
}

static int unknown_verb(const char *name)
{
    const char *best = NULL;
    size_t least = 4;
    for (size_t i = 0; i < VERBS; i++)
        if (edit_distance(name, verbs[i]->name) < least) {
            least = edit_distance(name, verbs[i]->name);
            best = verbs[i]->name;
        }
    fprintf(stderr, "hillock: unknown verb '%s'", name);
    fprintf(stderr, best ? "; did you mean '%s'?\n" : "; see hillock --help\n", best);
    return EXIT_USAGE;
}

static int help(const char *name)
{
    for (size_t i = 0; name && i < VERBS; i++)
        if (!strcmp(name, verbs[i]->name)) {
            printf("%s", verbs[i]->usage);
            return 0;
        }
    if (name)
        return unknown_verb(name);
    print_help(stdout);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    if (!strcmp(argv[1], "--version"))
        return print_version();
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help"))
        return help(argc > 2 ? argv[2] : NULL);
    if (!strcmp(argv[1], "--man-pages") && argc == 3)
        return write_man_pages(argv[2], verbs, VERBS);
    for (size_t i = 0; i < VERBS; i++)
        if (!strcmp(argv[1], verbs[i]->name))
            return verbs[i]->run(argc - 1, argv + 1);
    return unknown_verb(argv[1]);
}
