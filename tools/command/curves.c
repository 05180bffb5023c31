/* The record of a training run. */
#include "tools/command/curves.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/command/svg.h"

static FILE *open_in(const curves *c, const char *name, const char *mode)
{
    char path[1100];
    snprintf(path, sizeof path, "%s/%s", c->folder, name);
    FILE *f = fopen(path, mode);
    if (!f && *mode != 'r')
        fprintf(stderr, "hillock: '%s' cannot be written: %s\n", path, strerror(errno));
    return f;
}

static bool keep(curves *c, const epoch_row *row)
{
    if (c->count == c->capacity) {
        size_t capacity = c->capacity * 2 + 32;
        epoch_row *grown = realloc(c->rows, capacity * sizeof *grown);
        if (!grown) {
            fprintf(stderr, "hillock: out of memory\n");
            return false;
        }
        c->rows = grown;
        c->capacity = capacity;
    }
    c->rows[c->count++] = *row;
    return true;
}

/* ---- lines */

static const char *const columns[] = {"epoch", "step", "lr", "loss", "val_loss", "metric", "f1", "seconds", "rate"};
#define COLUMNS (sizeof columns / sizeof *columns)

static void write_csv(FILE *f, const epoch_row *row)
{
    const double *x = &row->epoch;
    for (size_t i = 0; i < COLUMNS; i++)
        fprintf(f, isnan(x[i]) ? "%s" : "%s%.9g", i ? "," : "", x[i]);
    fputc('\n', f);
}

static void write_json(const curves *c, FILE *f, const epoch_row *row)
{
    const double *x = &row->epoch;
    json_begin(f);
    for (size_t i = 0; i < COLUMNS; i++)
        if (!isnan(x[i]))
            json_number(f, i == 5 ? c->metric : columns[i], x[i]);
    json_end(f);
}

static bool append(const curves *c, const epoch_row *row)
{
    FILE *csv = open_in(c, "metrics.csv", "a"), *json = csv ? open_in(c, "metrics.jsonl", "a") : NULL;
    if (csv && json) {
        write_csv(csv, row);
        write_json(c, json, row);
    }
    bool ok = csv && json && !ferror(csv) && !ferror(json);
    ok = (!csv || fclose(csv) == 0) && ok;
    ok = (!json || fclose(json) == 0) && ok;
    if (!ok)
        fprintf(stderr, "hillock: the metrics in '%s' cannot be written\n", c->folder);
    return ok;
}

static void read_back(curves *c, size_t epochs)
{
    char line[1024];
    FILE *f = open_in(c, "metrics.csv", "r");
    while (f && fgets(line, sizeof line, f)) {
        epoch_row row;
        double *x = &row.epoch;
        char *at = line;
        size_t i = 0;
        for (; i < COLUMNS && *at; i++) {
            char *end = at;
            x[i] = strtod(at, &end);
            if (end == at)
                x[i] = NAN;
            at = end + strcspn(end, ",\n");
            at += *at == ',';
        }
        if (i == COLUMNS && row.epoch >= 1 && row.epoch <= (double)epochs && !keep(c, &row))
            break;
    }
    if (f)
        fclose(f);
}

bool curves_begin(curves *c, const char *folder, const char *metric, size_t epochs)
{
    *c = (curves){.folder = folder, .metric = metric};
    if (epochs)
        read_back(c, epochs);
    FILE *csv = open_in(c, "metrics.csv", "w"), *json = csv ? open_in(c, "metrics.jsonl", "w") : NULL;
    if (!csv || !json) {
        if (csv)
            fclose(csv);
        return false;
    }
    for (size_t i = 0; i < COLUMNS; i++)
        fprintf(csv, "%s%s", i ? "," : "", i == 5 ? metric : columns[i]);
    fputc('\n', csv);
    for (size_t i = 0; i < c->count; i++) {
        write_csv(csv, &c->rows[i]);
        write_json(c, json, &c->rows[i]);
    }
    bool ok = fclose(csv) == 0;
    return (fclose(json) == 0) && ok;
}

/* ---- the picture: loss on the left, the metric on the right */

static void bounds(const curves *c, size_t column, double *low, double *high)
{
    for (size_t i = 0; i < c->count; i++) {
        double x = (&c->rows[i].epoch)[column];
        if (isnan(x))
            continue;
        *low = fmin(*low, x);
        *high = fmax(*high, x);
    }
}

static void line_of(const curves *c, FILE *f, size_t column, double x0, double low, double high, const char *colour)
{
    svg_line_begin(f, colour);
    for (size_t i = 0; i < c->count; i++) {
        double y = (&c->rows[i].epoch)[column];
        double x = c->count > 1 ? (double)i / (double)(c->count - 1) : 0.5;
        if (!isnan(y))
            svg_line_point(f, x0, x, high > low ? (y - low) / (high - low) : 0.5);
    }
    svg_line_end(f);
}

static void panel(const curves *c, FILE *f, double x0, const char *title, size_t first, size_t second)
{
    double low = INFINITY, high = -INFINITY;
    bounds(c, first, &low, &high);
    bounds(c, second, &low, &high);
    if (!(high >= low))
        return;
    svg_panel(f, x0, title, low, high);
    fprintf(f, "<text x='%g' y='%d'>epoch %g</text><text x='%g' y='%d' text-anchor='end'>%g</text>\n",
            svg_across(x0, 0), SVG_HEIGHT - 12, c->rows[0].epoch, svg_across(x0, 1), SVG_HEIGHT - 12,
            c->rows[c->count - 1].epoch);
    line_of(c, f, first, x0, low, high, "#1f6fb2");
    line_of(c, f, second, x0, low, high, "#d1622b");
}

static bool draw(const curves *c)
{
    FILE *f = open_in(c, "curves.svg", "w");
    if (!f)
        return false;
    svg_begin(f, 2 * SVG_WIDTH, SVG_HEIGHT);
    panel(c, f, 0, "loss: training blue, validation orange", 3, 4);
    panel(c, f, SVG_WIDTH, c->metric, 5, 5);
    svg_end(f);
    return fclose(f) == 0;
}

bool curves_add(curves *c, const epoch_row *row)
{
    return keep(c, row) && append(c, row) && draw(c);
}

void curves_finish(curves *c)
{
    free(c->rows);
    *c = (curves){0};
}
