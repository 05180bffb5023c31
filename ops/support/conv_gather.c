/* The table of the convolution GEMMs: shaders/conv_gather.glsl reads it. */
#include "ops/support/conv_gather.h"

#include <string.h>

#include "shaders/conv_gemm.push.h"

enum { H = HK_AXIS_H, W = HK_AXIS_W };

hk_gather hk_gather_of(const hk_conv_job *job)
{
    const hk_conv *p = &job->p;
    int64_t cg = p->c / p->groups, kg = p->k / p->groups, taps = hk_window_taps(&p->w);
    hk_gather v = {
        .p = p, .forward = job->pass == HK_CONV_FORWARD, .taps = taps, .w_group = (uint32_t)(kg * cg * taps)};
    v.source = v.forward ? job->x : job->y;
    v.result = v.forward ? job->y : job->x;
    v.m = v.forward ? kg : cg;
    v.channels = v.forward ? cg : kg;
    v.w_row = (uint32_t)(v.forward ? cg * taps : taps);
    v.w_channel = (uint32_t)(v.forward ? taps : cg * taps);
    v.source_plane = v.out_plane = 1;
    for (int axis = 0; axis < HK_AXES; axis++) {
        v.source_extent[axis] = v.forward ? p->w.in[axis] : p->w.out[axis];
        v.out_extent[axis] = v.forward ? p->w.out[axis] : p->w.in[axis];
        v.source_plane *= v.source_extent[axis];
        v.out_plane *= v.out_extent[axis];
    }
    return v;
}

/* Tap t of one axis as the data gradient's class `at` sees it: the output's coordinate is (class's index) + *shift. */
static bool class_tap(const hk_window *w, int axis, int64_t at, int64_t tap, int64_t *shift)
{
    int64_t t = at + w->begin[axis] - tap * w->dilation[axis], stride = w->stride[axis];
    if (((t % stride) + stride) % stride)
        return false;
    *shift = t / stride;
    return true;
}

/* Taps of windows with fewer are numbered, those of larger ones named by row and column: see conv_gather.glsl. */
enum { TAP_BITS = 32 };

/* The entries of one class (forward: at is 0,0 and every tap counts); returns how many. entries NULL: counts. */
static int64_t table_entries(const hk_gather *v, const int64_t at[2], uint32_t *entries)
{
    const hk_window *w = &v->p->w;
    bool bits = v->taps < TAP_BITS;
    int64_t count = 0;
    for (int64_t c = 0; c < v->channels; c++) {
        for (int64_t r = 0; r < w->kernel[H]; r++) {
            for (int64_t s = 0; s < w->kernel[W]; s++) {
                int64_t y = r * w->dilation[H], x = s * w->dilation[W];
                if (!v->forward && !(class_tap(w, H, at[0], r, &y) && class_tap(w, W, at[1], s, &x)))
                    continue;
                if (entries) {
                    entries[2 * count] = (uint32_t)(c * v->source_plane + y * v->source_extent[W] + x);
                    entries[2 * count + 1] = (uint32_t)(c << 10 | (bits ? r * w->kernel[W] + s : r << 5 | s));
                }
                count++;
            }
        }
    }
    return count;
}

enum { CLASS_WORDS = 8 };

static void class_place(const hk_gather *v, uint32_t i, int64_t at[2])
{
    at[0] = i / v->p->w.stride[W];
    at[1] = i % v->p->w.stride[W];
}

static int64_t class_columns(const hk_gather *v, const int64_t at[2], int64_t grid[2])
{
    for (int i = 0; i < 2; i++) {
        int64_t stride = v->p->w.stride[H + i], left = v->out_extent[H + i] - at[i];
        grid[i] = left > 0 ? (left + stride - 1) / stride : 0;
    }
    return v->p->n * grid[0] * grid[1];
}

hk_gather_table hk_gather_table_size(const hk_gather *v)
{
    const hk_window *w = &v->p->w;
    hk_gather_table t = {.classes = v->forward ? 1 : (uint32_t)(w->stride[H] * w->stride[W])};
    for (uint32_t i = 0; i < t.classes; i++) {
        int64_t at[2];
        class_place(v, i, at);
        t.most_k = HK_MAX(t.most_k, table_entries(v, at, NULL));
    }
    return t;
}

/* Entries behind a class's last, up to a whole K tile: the kernel reads them, but no pixel has their tap. */
static uint32_t pad_entries(uint32_t *entries, uint32_t count, uint32_t bk, bool bits)
{
    uint32_t padded = HK_MAX((count + bk - 1) / bk, 1u) * bk;
    for (uint32_t i = count; i < padded; i++) {
        entries[2 * i] = 0;
        entries[2 * i + 1] = bits ? 31 : 31 << 5;
    }
    return padded;
}

bool hk_gather_table_fill(hk_lower *l, const hk_gather *v, uint32_t bn, uint32_t bk, hk_gather_table *t)
{
    uint32_t from = t->classes > 1 ? CLASS_WORDS * t->classes : 0;
    size_t most = from + 2 * (size_t)t->classes * ((size_t)t->most_k + bk);
    t->words = hk_arena_array(l->arena, most, sizeof *t->words);
    if (!t->words)
        return false;
    for (uint32_t i = 0; i < t->classes; i++) {
        int64_t at[2], grid[2] = {0, 0};
        class_place(v, i, at);
        int64_t columns = t->classes > 1 ? class_columns(v, at, grid) : v->p->n * v->out_plane;
        uint32_t k = (uint32_t)table_entries(v, at, t->words + from), tiles = (uint32_t)((columns + bn - 1) / bn);
        if (t->classes > 1) {
            const uint32_t record[CLASS_WORDS] = {
                from / 2, k, (uint32_t)grid[0], (uint32_t)grid[1], (uint32_t)at[0], (uint32_t)at[1]};
            memcpy(t->words + (size_t)CLASS_WORDS * i, record, sizeof record);
        }
        from += 2 * pad_entries(t->words + from, k, bk, v->taps < TAP_BITS);
        t->tiles_n = HK_MAX(t->tiles_n, tiles);
    }
    t->tiles_n *= t->classes; /* classes take turns; a smaller one's last turns find no pixel */
    t->bytes = 4 * from;
    return true;
}

/* The mask bits, packed words and 22-bit channels of the table set the limits; below 9 destination channels most of the
 * smallest tile would be padding. */
bool hk_gather_fits(const hk_gather *v)
{
    const hk_window *w = &v->p->w;
    return v->m > 8 && w->in[0] == 1 && w->out[0] == 1 && w->kernel[0] == 1 && w->begin[0] == 0 && w->kernel[H] <= 31 &&
           w->kernel[W] <= 31 && (v->taps < TAP_BITS || (w->kernel[H] <= 16 && w->kernel[W] <= 16)) &&
           w->begin[H] < 65536 && w->begin[W] < 65536 && v->channels < 1 << 22 &&
           (v->forward || w->stride[H] * w->stride[W] <= 64) && v->channels * v->taps < 1 << 20;
}

bool hk_gather_is_point(const hk_gather *v)
{
    const hk_window *w = &v->p->w;
    bool strided = w->stride[H] != 1 || w->stride[W] != 1;
    bool inside = v->forward || v->source_plane == v->out_plane;
    return hk_window_is_point(w) && w->spatial < 3 && inside && (v->forward || !strided);
}

struct conv_gemm_push hk_gather_push(const hk_conv_job *job, const hk_gather *v)
{
    const hk_window *w = &v->p->w;
    return (struct conv_gemm_push){.m = (uint32_t)v->m,
                                   .groups = (uint32_t)v->p->groups,
                                   .images = (uint32_t)v->p->n,
                                   .source_h = (uint32_t)v->source_extent[H],
                                   .source_w = (uint32_t)v->source_extent[W],
                                   .source_group = (uint32_t)(v->channels * v->source_plane),
                                   .out_h = (uint32_t)v->out_extent[H],
                                   .out_w = (uint32_t)v->out_extent[W],
                                   .w_row = v->w_row,
                                   .w_channel = v->w_channel,
                                   .w_group = v->w_group,
                                   .pads = (uint32_t)w->begin[H] | (uint32_t)w->begin[W] << 16,
                                   .alpha = job->alpha,
                                   .beta = job->beta};
}
