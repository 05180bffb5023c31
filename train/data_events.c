/*
 * Event cameras: a file of events (t, x, y, p) becomes frames (T, 2, H, W) that count the events of each polarity.
 *
 * Files are N-MNIST's (ATIS: 40 bits an event, big-endian: x 8, y 8, p 1, t 23; y = 240 says that t has overflowed by
 * 2^13), or .npy: columns t, x, y, p, or records with fields of these names in any order. t is in microseconds, p is
 * off at 0 or below. Frames of equal count and of equal time are SpikingJelly's (datasets/utils.py, split_by "number"
 * and "time").
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/dataset.h"

#define ATIS_SIDE 34 /* of N-MNIST */
#define ATIS_OVERFLOW 240
#define ATIS_OVERFLOW_TIME 8192
#define FILE_LIMIT (1L << 30)
enum { FRAMES_DEFAULT = 16, ATIS_BYTES = 5, ERROR_BYTES = 256, HEADER_BYTES = 1024, COLUMNS = 4 };

typedef struct event {
    int64_t t, x, y;
    bool on;
} event;

typedef struct events {
    event *list; /* malloc'd: loaders' threads have no context */
    size_t count;
} events;

static bool say(char *error, const char *text)
{
    snprintf(error, ERROR_BYTES, "%s", text);
    return false;
}

static bool make_room(events *e, size_t count, char *error)
{
    e->list = malloc((count + 1) * sizeof *e->list);
    return e->list || say(error, "there is no memory for its events");
}

/* ---- N-MNIST */

static bool read_atis(const uint8_t *data, size_t bytes, events *e, char *error)
{
    int64_t overflow = 0;
    if (bytes % ATIS_BYTES) {
        snprintf(error, ERROR_BYTES,
                 "it has %zu bytes, and an event has 5: the file is cut off, or no N-MNIST file; fetch it again",
                 bytes);
        return false;
    }
    if (!make_room(e, bytes / ATIS_BYTES, error))
        return false;
    for (const uint8_t *b = data; b < data + bytes; b += ATIS_BYTES) {
        if (b[1] == ATIS_OVERFLOW) {
            overflow += ATIS_OVERFLOW_TIME;
            continue;
        }
        e->list[e->count++] = (event){.t = ((int64_t)(b[2] & 0x7f) << 16 | (int64_t)b[3] << 8 | b[4]) + overflow,
                                      .x = b[0],
                                      .y = b[1],
                                      .on = b[2] >> 7};
    }
    return true;
}

/* ---- .npy. Records, unlike core/npy.c; so this has a look at the header of its own. */

typedef struct column {
    char kind; /* of numpy: i, u, f, b */
    size_t bytes, offset;
} column;

typedef struct table {
    column columns[COLUMNS]; /* t, x, y, p */
    size_t record, count;
} table;

static bool take_type(const char *type, column *c)
{
    static const char *const known[] = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8"};
    bool found = false;
    for (size_t i = 0; i < HK_COUNT(known) && !found; i++)
        found = (type[0] == '<' || type[0] == '|') && !strcmp(type + 1, known[i]);
    c->kind = type[1];
    c->bytes = found ? (size_t)(type[2] - '0') : 0;
    return found;
}

/* [('t', '<i8'), ('x', '<u2'), ...] */
static bool take_records(const char *at, table *t, char *error)
{
    static const char names[] = "txyp";
    char name[16], type[8];
    bool seen[COLUMNS] = {false};
    for (int used = 0; sscanf(at, " ('%15[^']', '%7[^']')%n", name, type, &used) == 2 && used; used = 0) {
        const char *place = strchr(names, name[0]);
        column c = {.offset = t->record};
        if (!take_type(type, &c))
            return say(error, "a field of its records is no little-endian number; save t, x, y, p as such");
        if (place && !name[1] && *name) {
            t->columns[place - names] = c;
            seen[place - names] = true;
        }
        t->record += c.bytes;
        at += used;
        at += strspn(at, ", ");
    }
    return (*at == ']' && seen[0] && seen[1] && seen[2] && seen[3]) ||
           say(error, "its records lack one of the fields t, x, y, p; name them so");
}

static bool take_header(const char *header, table *t, char *error)
{
    const char *descr = strstr(header, "'descr':"), *shape = strstr(header, "'shape':");
    char type[8];
    long long rows = -1, width = -1;
    if (!descr || !shape)
        return say(error, "its header is not that of an .npy file; save it with numpy.save");
    descr += strlen("'descr':");
    descr += strspn(descr, " ");
    int numbers = sscanf(shape + strlen("'shape':"), " (%lld, %lld", &rows, &width);
    if (*descr == '[') {
        if (numbers != 1 || rows < 0)
            return say(error, "its records are not one row of events; save an array with one axis");
        t->count = (size_t)rows;
        return take_records(descr + 1, t, error);
    }
    if (sscanf(descr, "'%7[^']'", type) != 1 || !take_type(type, &t->columns[0]))
        return say(error, "its elements are no little-endian numbers; save t, x, y, p as such");
    if (numbers != 2 || rows < 0 || width != COLUMNS || strstr(header, "'fortran_order': True"))
        return say(error, "it has not four columns t, x, y, p in C order; stack them with numpy.stack(..., axis=1)");
    t->count = (size_t)rows;
    t->record = COLUMNS * t->columns[0].bytes;
    for (size_t i = 1; i < COLUMNS; i++) {
        t->columns[i] = t->columns[0];
        t->columns[i].offset = i * t->columns[0].bytes;
    }
    return true;
}

static double number(const uint8_t *record, const column *c)
{
    union {
        int8_t i1;
        uint8_t u1;
        int16_t i2;
        uint16_t u2;
        int32_t i4;
        uint32_t u4;
        int64_t i8;
        uint64_t u8;
        float f4;
        double f8;
    } x;
    memcpy(&x, record + c->offset, c->bytes);
    bool is_signed = c->kind == 'i';
    switch (c->bytes) {
    case 1: return is_signed ? (double)x.i1 : (double)x.u1;
    case 2: return is_signed ? (double)x.i2 : (double)x.u2;
    case 4: return c->kind == 'f' ? (double)x.f4 : is_signed ? (double)x.i4 : (double)x.u4;
    default: return c->kind == 'f' ? x.f8 : is_signed ? (double)x.i8 : (double)x.u8;
    }
}

/* Whole and not beyond what a double counts; false for NaN. */
static bool is_whole(double x)
{
    return x > -0x1p53 && x < 0x1p53 && !((double)(int64_t)x < x) && !((double)(int64_t)x > x);
}

static bool take_events(const uint8_t *data, const table *t, events *e, char *error)
{
    for (; e->count < t->count; e->count++, data += t->record) {
        double x[COLUMNS];
        for (size_t i = 0; i < COLUMNS; i++)
            if (!is_whole(x[i] = number(data, &t->columns[i]))) {
                snprintf(error, ERROR_BYTES, "event %zu has %c = %g, expected a whole number", e->count, "txyp"[i],
                         x[i]);
                return false;
            }
        e->list[e->count] = (event){.t = (int64_t)x[0], .x = (int64_t)x[1], .y = (int64_t)x[2], .on = x[3] > 0};
    }
    return true;
}

static bool read_npy(const uint8_t *data, size_t bytes, events *e, char *error)
{
    char header[HEADER_BYTES];
    table t = {0};
    bool is_long = bytes > 6 && data[6] > 1;
    size_t start = is_long ? 12 : 10;
    size_t length = bytes < start ? 0 : (size_t)data[8] | (size_t)data[9] << 8;
    if (bytes >= start && is_long)
        length |= (size_t)data[10] << 16 | (size_t)data[11] << 24;
    if (!length || length >= HEADER_BYTES || bytes - start < length)
        return say(error, "its header is cut off; save it again with numpy.save");
    memcpy(header, data + start, length);
    header[length] = 0;
    if (!take_header(header, &t, error))
        return false;
    size_t there = (bytes - start - length) / t.record;
    if (there < t.count) {
        snprintf(error, ERROR_BYTES, "it announces %zu events and holds %zu: the file is cut off; save it again",
                 t.count, there);
        return false;
    }
    return make_room(e, t.count, error) && take_events(data + start + length, &t, e, error);
}

/* ---- files */

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), k = strlen(end);
    return n > k && !strcmp(name + n - k, end);
}

bool hk_event_name(const char *name)
{
    return ends_with(name, ".bin") || ends_with(name, ".npy");
}

static bool read_bytes(const char *path, uint8_t **data, size_t *bytes, char *error)
{
    FILE *f = fopen(path, "rb");
    long size = f && fseek(f, 0, SEEK_END) == 0 ? ftell(f) : -1;
    bool ok = size >= 0 && size <= FILE_LIMIT && fseek(f, 0, SEEK_SET) == 0;
    *data = ok ? malloc((size_t)size + 1) : NULL;
    *bytes = ok ? (size_t)size : 0;
    ok = *data && fread(*data, 1, *bytes, f) == *bytes;
    if (f)
        fclose(f);
    return ok || say(error, "it cannot be read, or has more than 1 GiB");
}

static bool read_events(const char *path, events *e, char *error)
{
    uint8_t *data = NULL;
    size_t bytes = 0;
    bool ok = read_bytes(path, &data, &bytes, error);
    if (ok)
        ok = ends_with(path, ".bin")  ? read_atis(data, bytes, e, error)
             : hk_npy_is(data, bytes) ? read_npy(data, bytes, e, error)
                                      : say(error, "it is no .npy file; save it with numpy.save");
    free(data);
    return ok && (e->count > 0 || say(error, "it has no events; leave it out"));
}

/* ---- frames */

static bool check_event(const events *e, size_t i, bool by_time, const int64_t *shape, char *error)
{
    const event *v = &e->list[i];
    if (v->x < 0 || v->x >= shape[3] || v->y < 0 || v->y >= shape[2]) {
        snprintf(
            error, ERROR_BYTES,
            "event %zu is at x = %lld, y = %lld, outside of %lld x %lld; the file is corrupt, or the sensor larger "
            "than the shape says",
            i, (long long)v->x, (long long)v->y, (long long)shape[3], (long long)shape[2]);
        return false;
    }
    if (by_time && i && v->t < v[-1].t) {
        snprintf(error, ERROR_BYTES, "event %zu is earlier than the one before it; sort them by t, or bin by count", i);
        return false;
    }
    return true;
}

/* The frame of event i; T and more: none. */
static int64_t frame_of(const hk_dataset_params *p, const events *e, size_t i, int64_t frames)
{
    bool by_time = p->event_bins == HK_EVENT_BINS_TIME;
    int64_t since = e->list[i].t - e->list[0].t, whole = e->list[e->count - 1].t - e->list[0].t;
    if (by_time && p->frame_time > 0)
        return (double)since / p->frame_time < (double)frames ? (int64_t)((double)since / p->frame_time) : frames;
    int64_t each = (by_time ? whole : (int64_t)e->count) / frames;
    int64_t at = by_time ? since : (int64_t)i;
    return each > 0 ? HK_MIN(at / each, frames - 1) : frames - 1;
}

bool hk_event_frames(const hk_dataset_params *p, const char *path, const int64_t *shape, float *out, char *error)
{
    events e = {0};
    bool ok = read_events(path, &e, error);
    size_t plane = (size_t)(shape[2] * shape[3]);
    memset(out, 0, 2 * (size_t)shape[0] * plane * sizeof *out);
    for (size_t i = 0; ok && i < e.count; i++) {
        ok = check_event(&e, i, p->event_bins == HK_EVENT_BINS_TIME, shape, error);
        int64_t frame = ok ? frame_of(p, &e, i, shape[0]) : shape[0];
        if (frame < shape[0])
            out[(size_t)(2 * frame + e.list[i].on) * plane + (size_t)(e.list[i].y * shape[3] + e.list[i].x)]++;
    }
    free(e.list);
    return ok;
}

hk_status hk_event_field(hk_dataset *d)
{
    const hk_dataset_params *p = &d->params;
    const int64_t atis[] = {FRAMES_DEFAULT, 2, ATIS_SIDE, ATIS_SIDE};
    bool given = p->rank != 0;
    hk_field *f = &d->fields[d->field_count++];
    if (given ? p->rank != 4 || p->shape[1] != 2 : !ends_with(d->images[0].path, ".bin"))
        return hk_fail(d->ctx, HK_STATUS_INVALID,
                       "'%s' holds events: give a sample's shape, (T,2,H,W): frames, polarities, and the sensor's size",
                       d->path);
    *f = (hk_field){.info = {.name = "", .dtype = HK_FLOAT32, .rank = 4}};
    memcpy(f->info.shape, given ? p->shape : atis, sizeof atis);
    d->format = "events";
    return HK_OK;
}
