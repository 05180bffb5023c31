/* The record of a training run. */
#include "tools/command/curves.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/command/svg.h"

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

enum { COLUMNS = sizeof(epoch_row) / sizeof(double) };

static const char *column(const curves *c, size_t i)
{
    const char *const names[COLUMNS] = {"epoch",   "step", "lr",   "loss",    "val_loss",
                                        c->metric, "f1",   c->top, "seconds", "rate"};
    return names[i];
}

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
            json_number(f, column(c, i), x[i]);
    json_end(f);
}

static hk_status write_lines(const curves *c)
{
    text_file csv, json;
    hk_status st = text_begin(&csv) ? HK_OK : HK_STATUS_OUT_OF_MEMORY;
    for (size_t i = 0; st == HK_OK && i < COLUMNS; i++)
        fprintf(csv.f, "%s%s", i ? "," : "", column(c, i));
    for (size_t i = 0; st == HK_OK && i <= c->count; i++)
        i ? write_csv(csv.f, &c->rows[i - 1]) : (void)fputc('\n', csv.f);
    if (st == HK_OK)
        st = text_save(&csv, c->o, c->folder, "metrics.csv");
    if (st == HK_OK)
        st = text_begin(&json) ? HK_OK : HK_STATUS_OUT_OF_MEMORY;
    for (size_t i = 0; st == HK_OK && i < c->count; i++)
        write_json(c, json.f, &c->rows[i]);
    return st == HK_OK ? text_save(&json, c->o, c->folder, "metrics.jsonl") : st;
}

static void read_back(curves *c, size_t epochs)
{
    char line[1024], path[1100];
    snprintf(path, sizeof path, "%s/metrics.csv", c->folder);
    FILE *f = fopen(path, "r");
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

hk_status curves_begin(curves *c, const options *o, const char *folder, const char *metric, int64_t top, size_t epochs)
{
    *c = (curves){.o = o, .folder = folder, .metric = metric};
    snprintf(c->top, sizeof c->top, "top%lld", (long long)top);
    if (epochs)
        read_back(c, epochs);
    return write_lines(c);
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

static hk_status draw(const curves *c)
{
    text_file t;
    FILE *f = text_begin(&t);
    if (!f)
        return HK_STATUS_OUT_OF_MEMORY;
    svg_begin(f, 2 * SVG_WIDTH, SVG_HEIGHT);
    panel(c, f, 0, "loss: training blue, validation orange", 3, 4);
    panel(c, f, SVG_WIDTH, c->metric, 5, 5);
    svg_end(f);
    return text_save(&t, c->o, c->folder, "curves.svg");
}

hk_status curves_add(curves *c, const epoch_row *row)
{
    hk_status st = keep(c, row) ? write_lines(c) : HK_STATUS_OUT_OF_MEMORY;
    return st == HK_OK ? draw(c) : st;
}

void curves_finish(curves *c)
{
    free(c->rows);
    *c = (curves){0};
}
