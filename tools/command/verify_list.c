/* hillock verify: lists of cases, and of those that may fail. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tools/command/verify.h"

bool verify_list_add(verify_list *l, const char *root, const char *name, double rel)
{
    if (l->count == l->capacity) {
        size_t capacity = l->capacity ? 2 * l->capacity : 64;
        verify_case *grown = realloc(l->cases, capacity * sizeof *grown);
        if (!grown)
            return false;
        l->cases = grown;
        l->capacity = capacity;
    }
    size_t bytes = (root ? strlen(root) + 1 : 0) + strlen(name) + 1;
    verify_case c = {.name = strdup(name), .folder = malloc(bytes), .rel = rel};
    if (!c.name || !c.folder) {
        free(c.name);
        free(c.folder);
        return false;
    }
    snprintf(c.folder, bytes, root ? "%s/%s" : "%s%s", root ? root : "", name);
    for (size_t n = strlen(c.folder); n > 1 && c.folder[n - 1] == '/'; n--)
        c.folder[n - 1] = '\0';
    l->cases[l->count++] = c;
    return true;
}

void verify_list_free(verify_list *l)
{
    for (size_t i = 0; i < l->count; i++) {
        free(l->cases[i].name);
        free(l->cases[i].folder);
    }
    for (size_t i = 0; i < l->text_count; i++)
        free(l->texts[i]);
    free(l->cases);
    free(l->texts);
}

/* The whole file, ended by a zero byte, owned by the list. */
static int read_text(verify_list *l, const char *path, char **out)
{
    FILE *f = fopen(path, "rb");
    if (!f) {
        fprintf(stderr, "hillock verify: '%s' cannot be opened: %s\n", path, strerror(errno));
        return hk_status_exit_code(HK_STATUS_NO_INPUT);
    }
    size_t count = 0, capacity = 0;
    char *text = NULL;
    char **texts = realloc(l->texts, (l->text_count + 1) * sizeof *texts);
    bool failed = !texts;
    l->texts = texts ? texts : l->texts;
    while (!failed && !feof(f) && !ferror(f)) {
        char *grown = realloc(text, capacity = 2 * capacity + 4096);
        failed = !grown;
        text = grown ? grown : text;
        if (grown)
            count += fread(text + count, 1, capacity - count - 1, f);
    }
    bool broken = ferror(f) != 0;
    fclose(f);
    if (failed || broken) {
        free(text);
        fprintf(stderr, "hillock verify: '%s' cannot be read\n", path);
        return hk_status_exit_code(failed ? HK_STATUS_OUT_OF_MEMORY : HK_STATUS_IO);
    }
    text[count] = '\0';
    l->texts[l->text_count++] = text;
    *out = text;
    return 0;
}

/* Cuts the next line off at *text: its name, and what follows a tab ("" if nothing does). Skips comments and empty
 * lines. */
static bool next_line(char **text, size_t *number, char **name, char **rest)
{
    while (**text) {
        char *line = *text, *end = strchr(line, '\n');
        *text = end ? end + 1 : line + strlen(line);
        ++*number;
        line[strcspn(line, "\r\n")] = '\0';
        if (!*line || *line == '#')
            continue;
        char *tab = strchr(line, '\t');
        if (tab)
            *tab = '\0';
        *name = line;
        *rest = tab ? tab + 1 : line + strlen(line);
        return true;
    }
    return false;
}

int verify_list_read(verify_list *l, const char *root, const char *path)
{
    char *text = NULL, *name = NULL, *rest = NULL, *end = NULL;
    size_t number = 0;
    int code = read_text(l, path, &text);
    while (!code && next_line(&text, &number, &name, &rest)) {
        double rel = *rest ? strtod(rest, &end) : -1;
        if (*rest && (*end || !(rel >= 0))) {
            fprintf(stderr, "hillock verify: '%s', line %zu: expected a bound after the tab, found '%s'\n", path,
                    number, rest);
            code = hk_status_exit_code(HK_STATUS_INVALID);
        } else if (!verify_list_add(l, root, name, rel)) {
            fprintf(stderr, "hillock verify: out of memory\n");
            code = hk_status_exit_code(HK_STATUS_OUT_OF_MEMORY);
        }
    }
    return code;
}

/* Does the case go by that name: its own, or the end of its path. */
static bool is_named(const verify_case *c, const char *name)
{
    size_t have = strlen(c->folder), want = strlen(name);
    return !strcmp(c->name, name) ||
           (want && have > want && c->folder[have - want - 1] == '/' && !strcmp(c->folder + have - want, name));
}

int verify_list_expect(verify_list *l, const char *path)
{
    char *text = NULL, *name = NULL, *rest = NULL;
    size_t number = 0;
    int code = read_text(l, path, &text);
    while (!code && next_line(&text, &number, &name, &rest)) {
        if (!*rest) {
            fprintf(stderr, "hillock verify: '%s', line %zu: expected a reason behind '%s' and a tab\n", path, number,
                    name);
            code = hk_status_exit_code(HK_STATUS_INVALID);
        }
        for (size_t i = 0; !code && i < l->count; i++)
            if (is_named(&l->cases[i], name))
                l->cases[i].reason = rest;
    }
    return code;
}
