/* Arguments of all verbs. */
#include <stdlib.h>
#include <string.h>

#include "tools/command/command.h"

static void print_log(void *user, hk_log_level level, const char *line)
{
    (void)user;
    (void)level;
    fprintf(stderr, "hillock: %s\n", line);
}

static const option_spec common[] = {{"--help", false, false},      {"--json", false, false},
                                     {"--quiet", false, false},     {"--device", true, false},
                                     {"--max-memory", true, false}, {0}};

size_t edit_distance(const char *a, const char *b)
{
    size_t row[64], n = strlen(b);
    if (n >= 63)
        return 99;
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 1; a[i - 1]; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t above = row[j], best = diagonal + (a[i - 1] != b[j - 1]);
            best = above + 1 < best ? above + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            diagonal = above;
            row[j] = best;
        }
    }
    return row[n];
}

static const option_spec *find(const option_spec *list, const char *name, size_t length)
{
    for (; list && list->name; list++)
        if (strlen(list->name) == length && !strncmp(list->name, name, length))
            return list;
    return NULL;
}

static int unknown(const verb *v, const option_spec *specs, const char *name)
{
    const char *best = NULL;
    size_t least = 4;
    const option_spec *lists[] = {specs, common};
    for (size_t i = 0; i < 2; i++)
        for (const option_spec *s = lists[i]; s && s->name; s++)
            if (edit_distance(name, s->name) < least) {
                least = edit_distance(name, s->name);
                best = s->name;
            }
    fprintf(stderr, "hillock %s: unknown option '%s'", v->name, name);
    fprintf(stderr, best ? "; did you mean '%s'?\n" : "; see hillock %s --help\n", best ? best : v->name);
    return EXIT_USAGE;
}

static int parse_one(options *o, const verb *v, const option_spec *specs, int argc, char **argv, int *i)
{
    const char *arg = argv[*i], *equals = strchr(arg, '=');
    size_t length = equals ? (size_t)(equals - arg) : strlen(arg);
    const option_spec *s = find(specs, arg, length);
    if (!s)
        s = find(common, arg, length);
    if (!s)
        return unknown(v, specs, arg);
    const char *value = equals ? equals + 1 : NULL;
    if (s->takes_value && !value) {
        if (*i + 1 >= argc) {
            fprintf(stderr, "hillock %s: option '%s' needs a value\n", v->name, s->name);
            return EXIT_USAGE;
        }
        value = argv[++*i];
    } else if (!s->takes_value && value) {
        fprintf(stderr, "hillock %s: option '%s' takes no value\n", v->name, s->name);
        return EXIT_USAGE;
    }
    if (o->given_count == sizeof o->given / sizeof *o->given) {
        fprintf(stderr, "hillock %s: too many options\n", v->name);
        return EXIT_USAGE;
    }
    o->given[o->given_count].spec = s;
    o->given[o->given_count++].value = value;
    return -1;
}

int options_parse(options *o, const verb *v, const option_spec *specs, int argc, char **argv)
{
    memset(o, 0, sizeof *o);
    o->arguments = argv;
    bool only_arguments = false;
    for (int i = 1; i < argc; i++) {
        if (!only_arguments && !strcmp(argv[i], "--")) {
            only_arguments = true;
        } else if (!only_arguments && argv[i][0] == '-' && argv[i][1]) {
            int code = parse_one(o, v, specs, argc, argv, &i);
            if (code >= 0)
                return code;
        } else {
            argv[o->argument_count++] = argv[i]; /* never ahead of i: they are gathered at the front */
        }
    }
    if (option_given(o, "--help")) {
        printf("%s", v->usage);
        return 0;
    }
    o->json = option_given(o, "--json");
    o->quiet = option_given(o, "--quiet");
    o->device = option_value(o, "--device");
    static const char *const levels[] = {"", "error", "warn", "info", "debug"};
    const char *wish = getenv("HILLOCK_LOG");
    hk_log_level level = HK_LOG_WARN;
    for (size_t i = 1; wish && i < 5; i++)
        if (!strcmp(wish, levels[i]))
            level = (hk_log_level)i;
    hk_context_params params = {.size = sizeof params, .log = print_log, .log_level = level};
    if (hk_context_create(&params, &o->ctx) != HK_OK) {
        fprintf(stderr, "hillock: out of memory\n");
        return 71;
    }
    return -1;
}

const char *option_value(const options *o, const char *name)
{
    for (size_t i = o->given_count; i-- > 0;)
        if (!strcmp(o->given[i].spec->name, name))
            return o->given[i].value;
    return NULL;
}

bool option_given(const options *o, const char *name)
{
    for (size_t i = 0; i < o->given_count; i++)
        if (!strcmp(o->given[i].spec->name, name))
            return true;
    return false;
}

bool option_number(const options *o, const char *name, double least, double most, double otherwise, double *out)
{
    const char *text = option_value(o, name);
    *out = otherwise;
    if (!text)
        return true;
    char *end = NULL;
    *out = strtod(text, &end);
    if (*text && !*end && *out >= least && *out <= most)
        return true;
    fprintf(stderr, "hillock: option '%s' must be a number from %g to %g, found '%s'\n", name, least, most, text);
    return false;
}

bool option_word(const options *o, const char *name, const char *const *words, int *which)
{
    const char *text = option_value(o, name);
    *which = 0;
    if (!text)
        return true;
    for (int i = 0; words[i]; i++)
        if (!strcmp(text, words[i])) {
            *which = i;
            return true;
        }
    fprintf(stderr, "hillock: option '%s' must be", name);
    for (int i = 0; words[i]; i++)
        fprintf(stderr, "%s %s", !i ? "" : words[i + 1] ? "," : " or", words[i]);
    fprintf(stderr, ", found '%s'\n", text);
    return false;
}

bool option_precision(const options *o, hk_precision *out)
{
    static const char *const words[] = {"strict", "high", "fast", NULL};
    int which = 0;
    bool found = option_word(o, "--precision", words, &which);
    *out = option_given(o, "--precision") ? (hk_precision)(HK_PRECISION_STRICT + which) : HK_PRECISION_DEFAULT;
    return found;
}

void option_tuned(const options *o, hk_session_params *out)
{
    out->tuned = option_value(o, "--tuned");
    out->deterministic = option_given(o, "--deterministic");
}

/* "1500000", "512M", "2G": bytes. */
static bool read_bytes(const char *text, uint64_t *out)
{
    static const char units[] = "KMGT";
    char *end = NULL;
    double x = strtod(text, &end);
    const char *unit = *end ? strchr(units, *end) : NULL;
    if (end == text || !(x > 0) || x > 0x1p40 || (*end && (!unit || end[1])))
        return false;
    for (const char *u = units; unit && u <= unit; u++)
        x *= 1024;
    *out = (uint64_t)x;
    return true;
}

hk_status open_device(const options *o, hk_device **out)
{
    hk_device_params params = {.size = sizeof params, .select = o->device};
    const char *most = option_value(o, "--max-memory");
    if (most && !read_bytes(most, &params.max_memory_bytes)) {
        fprintf(stderr, "hillock: option '--max-memory' must be bytes like 1500000, 512M or 2G, found '%s'\n", most);
        return HK_STATUS_USAGE;
    }
    return hk_device_open(o->ctx, &params, out);
}

/* A failure that the command found by itself has been explained already. */
void print_error(const options *o)
{
    if (*hk_context_error(o->ctx))
        fprintf(stderr, "hillock: %s\n", hk_context_error(o->ctx));
}

int finish(options *o, hk_status st)
{
    if (st != HK_OK && st != HK_STATUS_MISMATCH)
        print_error(o);
    return finish_code(o, hk_status_exit_code(st));
}

struct option_memory {
    struct option_memory *next;
    max_align_t data[];
};

void *options_allocate(options *o, size_t bytes)
{
    struct option_memory *m = calloc(1, sizeof *m + bytes);
    if (!m) {
        fprintf(stderr, "hillock: out of memory\n");
        exit(71);
    }
    m->next = o->memory;
    o->memory = m;
    return m->data;
}

int finish_code(options *o, int code)
{
    for (struct option_memory *m = o->memory, *next; m; m = next) {
        next = m->next;
        free(m);
    }
    o->memory = NULL;
    hk_context_destroy(&o->ctx);
    if (fflush(stdout) != 0 && code == 0)
        code = 74;
    return code;
}
