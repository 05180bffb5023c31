/*
 * hillock --man-pages DIR: writes hillock.1 and a page for each verb, from the texts that --help prints, so that they
 * cannot tell different things. The build runs it, and cmake --install takes the pages.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/command/command.h"

/* One line of text; what means something to troff at its beginning or inside is escaped. */
static void put_line(FILE *f, const char *line, size_t length)
{
    if (length && (*line == '.' || *line == '\''))
        fputs("\\&", f);
    for (size_t i = 0; i < length; i++) {
        if (line[i] == '\\')
            fputs("\\e", f);
        else if (line[i] == '-')
            fputs("\\-", f);
        else if (line[i] == '\'')
            fputs("\\(aq", f);
        else
            fputc(line[i], f);
    }
    fputc('\n', f);
}

static void put_text(FILE *f, const char *text)
{
    put_line(f, text, strlen(text));
}

static void put_section(FILE *f, const char *title)
{
    fprintf(f, ".SH %s\n", title);
}

static void put_title(FILE *f, const char *page, const char *summary)
{
    fprintf(f, ".TH %s 1 \"\" \"hillock %s\" \"User Commands\"\n", page, hk_version());
    put_section(f, "NAME");
    fprintf(f, "%s \\- ", page);
    put_text(f, summary);
}

/* Paragraphs, which blank lines end. A line that begins with spaces, as in a list of options, stays as it is. */
static void put_paragraphs(FILE *f, const char *from, const char *to)
{
    bool as_is = false;
    while (from < to) {
        const char *end = memchr(from, '\n', (size_t)(to - from));
        size_t length = (size_t)((end ? end : to) - from);
        bool indented = length && *from == ' ';
        if (indented != as_is)
            fputs(indented ? ".PP\n.nf\n" : ".fi\n.PP\n", f);
        as_is = indented;
        if (length)
            put_line(f, from, length);
        else if (end && end + 1 < to && end[1] != ' ')
            fputs(".PP\n", f);
        from = end ? end + 1 : to;
    }
    if (as_is)
        fputs(".fi\n", f);
}

static void put_statuses(FILE *f)
{
    static const struct {
        const char *name;
        int code;
        const char *text;
    } statuses[] = {
#define HK_X(name, code, text) {#name, code, text},
        HK_STATUS_MAP(HK_X)
#undef HK_X
    };
    put_section(f, "EXIT STATUS");
    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++) {
        fprintf(f, ".TP\n.B %d\n", statuses[i].code);
        put_text(f, statuses[i].text);
    }
}

/* usage: lines up to the first blank one are the synopsis, what begins with "example: " is the example. */
static void put_verb(FILE *f, const verb *v)
{
    static const char usage[] = "usage: ", example[] = "\nexample: ";
    char page[64];
    const char *synopsis = strncmp(v->usage, usage, strlen(usage)) ? v->usage : v->usage + strlen(usage);
    const char *text = strstr(synopsis, "\n\n"), *end = strstr(synopsis, example);
    text = text ? text : synopsis + strlen(synopsis);
    end = end ? end : synopsis + strlen(synopsis);
    snprintf(page, sizeof page, "hillock-%s", v->name);
    put_title(f, page, v->summary);
    put_section(f, "SYNOPSIS");
    fputs(".nf\n", f);
    for (const char *line = synopsis; line < text;) {
        const char *next = memchr(line, '\n', (size_t)(text - line));
        next = next ? next : text;
        while (line < next && *line == ' ')
            line++;
        put_line(f, line, (size_t)(next - line));
        line = next + 1;
    }
    fputs(".fi\n", f);
    put_section(f, "DESCRIPTION");
    if (text + 2 < end)
        put_paragraphs(f, text + 2, end);
    fputs(".PP\n", f);
    put_text(f,
             "Every verb also takes --device (an index, a part of the name, or a UUID), --json (one object on standard "
             "output), --quiet and --help.");
    if (*end) {
        put_section(f, "EXAMPLE");
        put_paragraphs(f, end + strlen(example), end + strlen(end));
    }
    put_statuses(f);
    put_section(f, "SEE ALSO");
    fputs(".BR hillock (1)\n", f);
}

static void put_main(FILE *f, const verb *const *verbs, size_t count)
{
    static const char *const environment[][2] = {
        {"HILLOCK_DEVICE", "the device, where --device does not say"},
        {"HILLOCK_CACHE_DIR", "the folder of the pipeline cache; empty: none"},
        {"HILLOCK_CAPS", "capabilities to do without, as -fp16,-subgroup; min: all, and the least limits"},
        {"HILLOCK_DEBUG", "a list of check-plan, shuffle, poison, isolate, validate, gpu-tuning, and no-PASS"},
        {"HILLOCK_LOG", "error, warn, info or debug, to standard error; warn"},
        {"HILLOCK_TIMEOUT_MS", "after which a device that does not answer counts as lost; 120000"},
    };
    put_title(f, "hillock", "run, fine-tune and spike ONNX models on any Vulkan device");
    put_section(f, "SYNOPSIS");
    fputs(".nf\nhillock VERB ...\nhillock VERB \\-\\-help\nhillock \\-\\-version\n.fi\n", f);
    put_section(f, "DESCRIPTION");
    put_text(f, "Loads the ONNX file that PyTorch exported and runs it on any device with Vulkan 1.2 and buffer device "
                "addresses, a GPU or Mesa's software device.");
    for (size_t i = 0; i < count; i++) {
        fprintf(f, ".TP\n.BR hillock\\-%s (1)\n", verbs[i]->name);
        put_text(f, verbs[i]->summary);
    }
    put_section(f, "ENVIRONMENT");
    for (size_t i = 0; i < sizeof environment / sizeof *environment; i++) {
        fprintf(f, ".TP\n.B %s\n", environment[i][0]);
        put_text(f, environment[i][1]);
    }
    put_statuses(f);
}

static bool open_page(const char *folder, const char *page, FILE **f)
{
    char path[1200];
    snprintf(path, sizeof path, "%s/hillock%s%s.1", folder, *page ? "-" : "", page);
    *f = fopen(path, "w");
    if (!*f)
        fprintf(stderr, "hillock: '%s' cannot be created: %s\n", path, strerror(errno));
    return *f != NULL;
}

int write_man_pages(const char *folder, const verb *const *verbs, size_t count)
{
    FILE *f = NULL;
    if (mkdir(folder, 0777) != 0 && errno != EEXIST) {
        fprintf(stderr, "hillock: '%s' cannot be created: %s\n", folder, strerror(errno));
        return hk_status_exit_code(HK_STATUS_CANNOT_CREATE);
    }
    for (size_t i = 0; i <= count; i++) {
        if (!open_page(folder, i ? verbs[i - 1]->name : "", &f))
            return hk_status_exit_code(HK_STATUS_CANNOT_CREATE);
        if (i)
            put_verb(f, verbs[i - 1]);
        else
            put_main(f, verbs, count);
        if (fclose(f) != 0) {
            fprintf(stderr, "hillock: writing to '%s' failed: %s\n", folder, strerror(errno));
            return hk_status_exit_code(HK_STATUS_IO);
        }
    }
    return 0;
}
