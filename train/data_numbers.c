/* Formats of numbers: IDX, CSV, CIFAR's binary files. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "train/dataset.h"

/* ---- IDX: two zero bytes, a type, a rank, big-endian sizes, big-endian elements */

static hk_dtype idx_type(uint8_t code)
{
    switch (code) {
    case 0x08: return HK_UINT8;
    case 0x09: return HK_INT8;
    case 0x0b: return HK_INT16;
    case 0x0c: return HK_INT32;
    case 0x0d: return HK_FLOAT32;
    case 0x0e: return HK_FLOAT64;
    default: return HK_DTYPE_NONE;
    }
}

bool hk_idx_is(const uint8_t *data, size_t bytes)
{
    return bytes >= 8 && data[0] == 0 && data[1] == 0 && idx_type(data[2]) != HK_DTYPE_NONE && data[3] >= 1 &&
           data[3] <= HK_MAX_RANK && bytes >= 4 + 4 * (size_t)data[3];
}

static void swap_bytes(void *data, size_t item, size_t count)
{
    uint8_t *p = data;
    for (size_t i = 0; i < count; i++, p += item)
        for (size_t k = 0; k < item / 2; k++) {
            uint8_t t = p[k];
            p[k] = p[item - 1 - k];
            p[item - 1 - k] = t;
        }
}

hk_status hk_idx_read(hk_dataset *d, const char *path, const uint8_t *data, size_t bytes, hk_tensor *out)
{
    *out = (hk_tensor){.dtype = idx_type(data[2]), .rank = data[3]};
    size_t item = hk_dtype_bytes(out->dtype), header = 4 + 4 * (size_t)out->rank, count = 1;
    for (int32_t i = 0; i < out->rank; i++) {
        const uint8_t *s = data + 4 + 4 * i;
        size_t size = (size_t)s[0] << 24 | (size_t)s[1] << 16 | (size_t)s[2] << 8 | s[3];
        out->shape[i] = (int64_t)size;
        if (size && count > SIZE_MAX / 16 / size)
            return hk_fail(d->ctx, HK_STATUS_INVALID, "'%s' says it has more elements than memory holds", path);
        count *= size;
    }
    if (bytes - header != count * item)
        return hk_fail(d->ctx, HK_STATUS_INVALID,
                       "'%s' is an IDX file of %zu elements, which need %zu bytes; it has %zu", path, count,
                       count * item, bytes - header);
    out->data = (void *)(uintptr_t)(data + header);
    if (item == 1)
        return HK_OK;
    out->data = hk_dataset_memory(d, count * item);
    if (!out->data)
        return hk_out_of_memory(d->ctx, "a dataset");
    memcpy(out->data, data + header, count * item);
    swap_bytes(out->data, item, count);
    return HK_OK;
}

/* ---- CSV: numbers between commas, semicolons or tabs; the first line may name the columns */

typedef struct csv {
    hk_dataset *d;
    const char *at, *end;
    char separator;
    size_t line, columns, target;
    float *x, *y;
} csv;

/* A decimal number, whatever the locale; false leaves at alone. */
static bool take_number(const char **at, const char *end, double *out)
{
    const char *p = *at;
    double sign = 1, x = 0, unit = 1;
    int digits = 0, exponent = 0, exponent_sign = 1;
    if (p < end && (*p == '-' || *p == '+'))
        sign = *p++ == '-' ? -1 : 1;
    if (end - p >= 3 && (!strncmp(p, "nan", 3) || !strncmp(p, "NaN", 3) || !strncmp(p, "inf", 3))) {
        *out = *p == 'i' ? sign * (double)INFINITY : (double)NAN;
        *at = p + 3;
        return true;
    }
    for (; p < end && *p >= '0' && *p <= '9'; p++, digits++)
        x = x * 10 + (*p - '0');
    if (p < end && *p == '.')
        for (p++; p < end && *p >= '0' && *p <= '9'; p++, digits++) {
            x = x * 10 + (*p - '0');
            unit *= 10;
        }
    if (!digits)
        return false;
    if (p < end && (*p == 'e' || *p == 'E')) {
        p++;
        if (p < end && (*p == '-' || *p == '+'))
            exponent_sign = *p++ == '-' ? -1 : 1;
        for (; p < end && *p >= '0' && *p <= '9'; p++)
            exponent = HK_MIN(exponent * 10 + (*p - '0'), 1000);
    }
    *out = sign * x / unit * pow(10, exponent_sign * exponent);
    *at = p;
    return true;
}

static void skip_blanks(const char **at, const char *end)
{
    while (*at < end && (**at == ' ' || **at == '"'))
        ++*at;
}

static const char *line_end(const csv *c)
{
    const char *e = memchr(c->at, '\n', (size_t)(c->end - c->at));
    return e ? e : c->end;
}

static size_t count_columns(const csv *c, const char *end)
{
    size_t n = 1;
    for (const char *p = c->at; p < end; p++)
        n += *p == c->separator;
    return n;
}

static bool is_number_line(const csv *c, const char *end)
{
    const char *p = c->at;
    double x;
    skip_blanks(&p, end);
    return take_number(&p, end, &x);
}

/* The column of the targets by number or by its name in the first line. */
static hk_status find_target(csv *c, const char *names_end)
{
    const char *want = c->d->params.label_column, *p = want;
    double number;
    c->target = c->columns - 1;
    if (!want)
        return HK_OK;
    if (take_number(&p, want + strlen(want), &number) && !*p && number >= 0 && number < (double)c->columns) {
        c->target = (size_t)number;
        return HK_OK;
    }
    const char *at = c->at;
    for (size_t i = 0; names_end && i < c->columns; i++) {
        const char *next = memchr(at, c->separator, (size_t)(names_end - at)), *e = next ? next : names_end;
        while (at < e && (*at == ' ' || *at == '"'))
            at++;
        while (e > at && (e[-1] == ' ' || e[-1] == '"' || e[-1] == '\r'))
            e--;
        if ((size_t)(e - at) == strlen(want) && !memcmp(at, want, (size_t)(e - at))) {
            c->target = i;
            return HK_OK;
        }
        at = next ? next + 1 : names_end;
    }
    return hk_fail(c->d->ctx, HK_STATUS_USAGE, "'%s' has no column '%s' among its %zu", c->d->path, want, c->columns);
}

static hk_status read_line(csv *c, const char *end, float *x, float *y)
{
    size_t columns = count_columns(c, end);
    if (columns != c->columns)
        return hk_fail(c->d->ctx, HK_STATUS_INVALID, "'%s' line %zu has %zu columns, the first has %zu", c->d->path,
                       c->line, columns, c->columns);
    const char *p = c->at;
    for (size_t i = 0; i < c->columns; i++) {
        double v;
        skip_blanks(&p, end);
        if (!take_number(&p, end, &v))
            return hk_fail(c->d->ctx, HK_STATUS_INVALID, "'%s' line %zu column %zu is no number", c->d->path, c->line,
                           i + 1);
        while (p < end && (*p == ' ' || *p == '"' || *p == '\r'))
            p++;
        if (p < end && *p++ != c->separator)
            return hk_fail(c->d->ctx, HK_STATUS_INVALID, "'%s' line %zu column %zu has something behind its number",
                           c->d->path, c->line, i + 1);
        if (!isfinite(v))
            return hk_fail(c->d->ctx, HK_STATUS_INVALID, "'%s' line %zu column %zu is %s", c->d->path, c->line, i + 1,
                           isnan(v) ? "NaN" : "infinite");
        if (i == c->target)
            *y = (float)v;
        else
            *x++ = (float)v;
    }
    return HK_OK;
}

hk_status hk_open_csv(hk_dataset *d, const uint8_t *data, size_t bytes)
{
    csv c = {.d = d, .at = (const char *)data, .end = (const char *)data + bytes, .separator = ',', .line = 1};
    const char *end = line_end(&c), *names_end = NULL;
    if (memchr(c.at, '\t', (size_t)(end - c.at)))
        c.separator = '\t';
    else if (memchr(c.at, ';', (size_t)(end - c.at)))
        c.separator = ';';
    c.columns = count_columns(&c, end);
    if (c.columns < 2)
        return hk_fail(d->ctx, HK_STATUS_INVALID, "'%s' has one column: numbers and a label are needed", d->path);
    if (!is_number_line(&c, end))
        names_end = end;
    HK_TRY(find_target(&c, names_end));
    if (names_end) {
        c.at = HK_MIN(end + 1, c.end);
        c.line++;
    }
    size_t lines = 1;
    for (const char *p = c.at; p < c.end; p++)
        lines += *p == '\n';
    if (lines > SIZE_MAX / sizeof(float) / c.columns)
        return hk_out_of_memory(d->ctx, "a dataset");
    c.x = hk_dataset_memory(d, lines * (c.columns - 1) * sizeof *c.x);
    c.y = hk_dataset_memory(d, lines * sizeof *c.y);
    if (!c.x || !c.y)
        return hk_out_of_memory(d->ctx, "a dataset");
    for (; c.at < c.end; c.at = HK_MIN(end + 1, c.end), c.line++) {
        end = line_end(&c);
        if (end == c.at || (end == c.at + 1 && *c.at == '\r'))
            continue;
        HK_TRY(read_line(&c, end, c.x + d->count * (c.columns - 1), c.y + d->count));
        d->count++;
    }
    if (!d->count)
        return hk_fail(d->ctx, HK_STATUS_INVALID, "'%s' has no lines of numbers", d->path);
    int64_t columns = (int64_t)c.columns - 1;
    HK_TRY(hk_dataset_field(d, "", HK_FLOAT32, 1, &columns, c.x));
    return hk_dataset_target(d, d->path, HK_FLOAT32, 0, (int64_t[]){0}, c.y);
}

/* ---- CIFAR: records of a label (CIFAR-100: two, coarse and fine) and 3x32x32 bytes */

enum { CIFAR_IMAGE = 3 * 32 * 32 };

bool hk_cifar_is(const char *path, size_t bytes)
{
    size_t n = strlen(path);
    return n > 4 && !strcmp(path + n - 4, ".bin") && bytes > 0 &&
           (bytes % (CIFAR_IMAGE + 1) == 0 || bytes % (CIFAR_IMAGE + 2) == 0);
}

hk_status hk_open_cifar(hk_dataset *d, const char *const *paths, size_t count)
{
    size_t total = 0, header = 0;
    const uint8_t *data[16];
    size_t bytes[16];
    for (size_t i = 0; i < count; i++) {
        HK_TRY(hk_dataset_map(d, paths[i], &data[i], &bytes[i]));
        size_t h = bytes[i] % (CIFAR_IMAGE + 1) == 0 ? 1 : 2;
        if (header && h != header)
            return hk_fail(d->ctx, HK_STATUS_INVALID, "'%s' has records of another size than '%s'", paths[i], paths[0]);
        header = h;
        total += bytes[i] / (CIFAR_IMAGE + h);
    }
    uint8_t *x = hk_dataset_memory(d, total * CIFAR_IMAGE), *y = hk_dataset_memory(d, total);
    if (!x || !y)
        return hk_out_of_memory(d->ctx, "a dataset");
    for (size_t i = 0; i < count; i++)
        for (const uint8_t *r = data[i]; r < data[i] + bytes[i]; r += CIFAR_IMAGE + header, d->count++) {
            y[d->count] = r[header - 1]; /* the fine label of two */
            memcpy(x + d->count * CIFAR_IMAGE, r + header, CIFAR_IMAGE);
        }
    d->format = header == 1 ? "CIFAR-10" : "CIFAR-100";
    HK_TRY(hk_dataset_field(d, "", HK_UINT8, 3, (int64_t[]){3, 32, 32}, x));
    return hk_dataset_target(d, paths[0], HK_UINT8, 0, (int64_t[]){0}, y);
}
