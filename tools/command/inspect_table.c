/* hillock inspect of a table of measurements (hillock tune). */
#include <stdlib.h>
#include <string.h>

#include "tools/command/command.h"

static const char first_line[] = "hillock tune 1\n";

bool is_table(const char *path)
{
    char line[sizeof first_line] = {0};
    FILE *f = fopen(path, "r");
    bool table = f && fgets(line, sizeof line, f) && !strcmp(line, first_line);
    if (f)
        fclose(f);
    return table;
}

typedef struct table_line {
    char *problem, *kernel;
    unsigned long splits;
    double us, predicted_us;
} table_line;

/* False: no line of a problem. line is cut into its fields. */
static bool read_line(char *line, table_line *out)
{
    char *field[5] = {line}, *end = NULL;
    line[strcspn(line, "\n")] = '\0';
    for (int i = 1; i < 5; i++) {
        char *tab = strchr(field[i - 1], '\t');
        if (!tab)
            return false;
        *tab = '\0';
        field[i] = tab + 1;
    }
    *out = (table_line){.problem = field[0],
                        .kernel = field[1],
                        .splits = strtoul(field[2], NULL, 10),
                        .us = strtod(field[3], NULL),
                        .predicted_us = strtod(field[4], &end)};
    return !*end;
}

static void print_line(const options *o, const table_line *t)
{
    if (o->json) {
        json_object(stdout, NULL);
        json_string(stdout, "problem", t->problem);
        json_string(stdout, "kernel", t->kernel);
        json_integer(stdout, "splits", (long long)t->splits);
        json_number(stdout, "us", t->us);
        json_number(stdout, "predicted_us", t->predicted_us);
        json_object_end(stdout);
    } else if (!o->quiet && t->us < t->predicted_us) {
        printf("%9.2f us instead of %9.2f by %s", t->us, t->predicted_us, t->kernel);
        if (t->splits > 1)
            printf(", %lu splits", t->splits);
        printf(": %s\n", t->problem);
    }
}

/* "device" and "driver" with a tab behind; the first such lines are the header. */
static const char *header(char *line, const char *key)
{
    size_t n = strlen(key);
    line[strcspn(line, "\n")] = '\0';
    return !strncmp(line, key, n) && line[n] == '\t' ? line + n + 1 : "?";
}

int inspect_table(options *o)
{
    char line[1024];
    size_t problems = 0, faster = 0;
    FILE *f = fopen(o->arguments[0], "r");
    bool whole = f && fgets(line, sizeof line, f) != NULL;
    if (o->json) {
        json_begin(stdout);
        json_string(stdout, "schema", "hillock-table-1");
    }
    static const char *const keys[] = {"device", "driver"};
    for (size_t i = 0; i < 2 && whole; i++) {
        whole = fgets(line, sizeof line, f) != NULL;
        if (whole && o->json)
            json_string(stdout, keys[i], header(line, keys[i]));
        else if (whole)
            printf("%-10s %s\n", keys[i], header(line, keys[i]));
    }
    if (o->json)
        json_array(stdout, "problems");
    while (whole && fgets(line, sizeof line, f)) {
        table_line t;
        if (*line == '#' || !read_line(line, &t))
            continue;
        problems++;
        faster += t.us < t.predicted_us;
        print_line(o, &t);
    }
    if (f)
        fclose(f);
    if (o->json) {
        json_array_end(stdout);
        json_end(stdout);
    } else {
        printf("problems   %zu, of which %zu with a faster kernel than the predicted one\n", problems, faster);
    }
    return finish_code(o, 0);
}
