/* The files of an evaluation over steps: numbers, curves, and what neurons did. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/command/spiking.h"
#include "tools/command/svg.h"

enum { MOST_NEURONS = 96, COLOURS = 6 };

static const char *const colours[COLOURS] = {"#1f6fb2", "#d1622b", "#3c8d40", "#8a4fae", "#b0303c", "#5b6770"};

/* ---- curves over the number of steps */

/* On a logarithmic scale, the least 0 and the most 1. */
static double place(const step_table *t, int64_t steps)
{
    double low = INFINITY, high = 1;
    for (size_t i = 0; i < t->row_count; i++) {
        low = fmin(low, log2((double)t->rows[i].steps));
        high = fmax(high, log2((double)t->rows[i].steps));
    }
    return high > low ? (log2((double)steps) - low) / (high - low) : 0.5;
}

static double accuracy_of(const step_row *row, size_t layer)
{
    (void)layer;
    return metrics_accuracy(&row->m);
}

static double rate_of(const step_row *row, size_t layer)
{
    return layer_after(row->run, layer, row->steps).rate;
}

static void draw_line(const step_table *t, FILE *f, double x0, double (*y)(const step_row *, size_t), size_t layer,
                      double high, const char *colour)
{
    svg_line_begin(f, colour);
    for (size_t i = 0; i < t->row_count; i++)
        svg_line_point(f, x0, place(t, t->rows[i].steps), y(&t->rows[i], layer) / high);
    svg_line_end(f);
}

static void draw_axes(const step_table *t, FILE *f, double x0, const char *title, double high)
{
    svg_panel(f, x0, title, 0, high);
    for (size_t i = 0; i < t->row_count; i++)
        fprintf(f, "<text x='%.1f' y='%d' text-anchor='middle'>%lld</text>\n",
                svg_across(x0, place(t, t->rows[i].steps)), SVG_HEIGHT - 20, (long long)t->rows[i].steps);
    fprintf(f, "<text x='%g' y='%d'>T</text>\n", svg_across(x0, 0) - 16, SVG_HEIGHT - 20);
}

static hk_status draw_curves(const step_table *t)
{
    size_t probes = 0, drawn = 0;
    const hk_snn_probe *p = hk_snn_probes(t->runs[0].model, &probes);
    text_file file;
    FILE *f = text_begin(&file);
    double high = 1e-9;
    if (!f)
        return HK_STATUS_OUT_OF_MEMORY;
    for (size_t k = 0; k < probes; k++)
        for (size_t i = 0; i < t->row_count; i++)
            high = p[k].neurons > 0 ? fmax(high, rate_of(&t->rows[i], k)) : high;
    svg_begin(f, 2 * SVG_WIDTH + 200, SVG_HEIGHT);
    draw_axes(t, f, 0, t->rows[0].m.classes ? "accuracy" : "", 1);
    if (t->rows[0].m.classes)
        draw_line(t, f, 0, accuracy_of, 0, 1, colours[0]);
    draw_axes(t, f, SVG_WIDTH, "firing rate by layer", high);
    for (size_t k = 0; k < probes; k++) {
        if (!(p[k].neurons > 0))
            continue;
        draw_line(t, f, SVG_WIDTH, rate_of, k, high, colours[drawn % COLOURS]);
        fprintf(f, "<text x='%d' y='%zu' fill='%s'>", 2 * SVG_WIDTH, SVG_TOP + 14 * drawn, colours[drawn % COLOURS]);
        svg_text(f, p[k].node);
        fprintf(f, "</text>\n");
        drawn++;
    }
    svg_end(f);
    return text_save(&file, t->r->o, t->folder, "curves.svg");
}

/* ---- what is watched */

static hk_status save_array(const step_table *t, const char *node, const char *kind, const hk_tensor *x)
{
    char name[256], path[1400];
    file_name_of(node, name, sizeof name);
    snprintf(path, sizeof path, "%s/%s.%s.npy", t->folder, name, kind);
    return hk_tensor_save(t->r->o->ctx, x, path);
}

/* Spikes (T,N,...) of the first sample's neurons, evenly chosen: a row each. Returns the height. */
static int draw_raster(FILE *f, const char *node, const hk_tensor *x, int top)
{
    int64_t steps = x->shape[0], samples = x->shape[1], all = hk_tensor_count(x) / (steps * samples);
    int64_t shown = all < MOST_NEURONS ? all : MOST_NEURONS;
    double column = fmin(24, 640.0 / (double)steps);
    fprintf(f, "<text x='10' y='%d' font-weight='bold'>", top + 14);
    svg_text(f, node);
    fprintf(f, ": %lld of %lld neurons</text>\n", (long long)shown, (long long)all);
    fprintf(f, "<rect x='10' y='%d' width='%.1f' height='%lld' fill='#f4f5f7'/>\n", top + 20, column * (double)steps,
            (long long)(3 * shown));
    for (int64_t k = 0; k < shown; k++)
        for (int64_t s = 0; s < steps; s++)
            if (tensor_element(x, s * samples * all + k * all / shown) > 0)
                fprintf(f, "<rect x='%.1f' y='%lld' width='%.1f' height='2.4' fill='#222'/>\n", 10 + column * (double)s,
                        (long long)(top + 20 + 3 * k), fmax(column * 0.8, 1));
    return (int)(3 * shown) + 34;
}

static hk_status write_layer(const step_table *t, hk_session *s, const hk_snn_probe *p, FILE *raster, int *top)
{
    hk_tensor x = {0};
    hk_status st = HK_OK;
    if (p->spikes) {
        st = hk_session_read(s, p->spikes, &x);
        if (st == HK_OK) {
            *top += draw_raster(raster, p->node, &x, *top);
            st = save_array(t, p->node, "spikes", &x);
        }
        hk_tensor_release(&x);
    }
    if (st == HK_OK && p->potentials) {
        st = hk_session_read(s, p->potentials, &x);
        if (st == HK_OK)
            st = save_array(t, p->node, "v", &x);
        hk_tensor_release(&x);
    }
    return st;
}

static int raster_height(const hk_snn_probe *p, size_t count)
{
    int height = 10;
    for (size_t i = 0; i < count; i++)
        height += 3 * (int)fmin(p[i].neurons, MOST_NEURONS) + 34;
    return height;
}

static hk_status write_watched(const step_table *t, hk_session *s, const hk_model *m)
{
    size_t count = 0;
    const hk_snn_probe *p = hk_snn_probes(m, &count);
    text_file file;
    FILE *raster = text_begin(&file);
    hk_status st = raster ? HK_OK : HK_STATUS_OUT_OF_MEMORY;
    int top = 10;
    if (raster)
        svg_begin(raster, 660, raster_height(p, count));
    for (size_t i = 0; i < count && st == HK_OK; i++)
        st = write_layer(t, s, &p[i], raster, &top);
    if (!raster)
        return st;
    svg_end(raster);
    hk_status saved = text_save(&file, t->r->o, t->folder, "raster.svg");
    return st == HK_OK ? saved : st;
}

/* The first batch once more, through a network that hands out all it does. */
static hk_status watch(const step_table *t)
{
    const step_run *longest = t->runs;
    hk_loader *l = t->r->val ? t->r->val : t->r->loader;
    hk_model *m = NULL;
    hk_session *s = NULL;
    hk_batch b;
    uint32_t monitors = (t->watch_spikes ? HK_SNN_MONITOR_SPIKES : 0u) |
                        (t->watch_potentials ? HK_SNN_MONITOR_POTENTIALS : 0u);
    for (size_t i = 1; i < t->run_count; i++)
        longest = t->runs[i].steps > longest->steps ? &t->runs[i] : longest;
    hk_status st = hk_snn_with_steps(t->r->model, longest->steps, monitors, &m);
    if (st == HK_OK)
        st = hk_session_create(t->r->dev, m, NULL, &s);
    if (st == HK_OK)
        st = hk_loader_seek(l, 0, 0);
    if (st == HK_OK)
        st = hk_loader_next(l, &b);
    if (st == HK_OK)
        st = run_on_batch(t->r->model, s, &b);
    if (st == HK_OK)
        st = write_watched(t, s, m);
    hk_session_destroy(&s);
    hk_model_destroy(&m);
    return st;
}

hk_status write_steps_report(const step_table *t)
{
    if (mkdir(t->folder, 0777) != 0 && errno != EEXIST) {
        fprintf(stderr, "hillock eval: folder '%s' cannot be made: %s\n", t->folder, strerror(errno));
        return HK_STATUS_CANNOT_CREATE;
    }
    text_file file;
    FILE *f = text_begin(&file);
    if (!f)
        return HK_STATUS_OUT_OF_MEMORY;
    write_steps_json(t, f);
    hk_status st = text_save(&file, t->r->o, t->folder, "report.json");
    if (st == HK_OK)
        st = draw_curves(t);
    return st == HK_OK && (t->watch_spikes || t->watch_potentials) ? watch(t) : st;
}
