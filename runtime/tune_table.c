/* Tables of measurements: reading, writing, where they lie. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "runtime/tune.h"

#define FIRST_LINE "hillock tune 1"
enum { MOST_BYTES = 4 << 20 };

hk_status hk_tuning_create(hk_context *ctx, hk_tuning **out)
{
    hk_arena *arena = hk_arena_create(ctx);
    hk_tuning *t = arena ? hk_arena_new(arena, hk_tuning) : NULL;
    if (!t) {
        hk_arena_destroy(&arena);
        return hk_out_of_memory(ctx, "a table of measurements");
    }
    t->arena = arena;
    hk_map_init(&t->map, arena);
    *out = t;
    return HK_OK;
}

void hk_tuning_destroy(hk_tuning **t)
{
    hk_arena *arena = *t ? (*t)->arena : NULL;
    *t = NULL;
    hk_arena_destroy(&arena);
}

hk_status hk_tuning_path(hk_gpu *gpu, hk_arena *arena, const char *path, bool make, const char **out)
{
    hk_context *ctx = hk_gpu_context(gpu);
    *out = path;
    if (strcmp(path, "device") != 0)
        return HK_OK;
    char *own = NULL;
    HK_TRY(hk_gpu_cache_path(gpu, "tuned", make, &own));
    if (!own)
        return hk_fail(ctx, HK_STATUS_USAGE,
                       "there is no cache folder for the device's table of measurements: name a file, or set "
                       "HILLOCK_CACHE_DIR");
    *out = hk_arena_string(arena, own);
    hk_free(ctx, own);
    return *out ? HK_OK : hk_out_of_memory(ctx, "a path");
}

/* ---- reading */

typedef struct reader {
    hk_context *ctx;
    const char *path;
    char *next; /* what is left, ended by 0 */
    int line;
} reader;

/* The next line without its end, NULL behind the last. */
static char *next_line(reader *r)
{
    char *line = r->next, *end = line ? strchr(line, '\n') : NULL;
    if (!line || !*line)
        return NULL;
    if (end)
        *end = '\0';
    r->next = end ? end + 1 : NULL;
    r->line++;
    return line;
}

/* What follows "key" and a tab on the next line; NULL: it is another. */
static const char *header(reader *r, const char *key)
{
    const char *line = next_line(r);
    size_t n = strlen(key);
    return line && !strncmp(line, key, n) && line[n] == '\t' ? line + n + 1 : NULL;
}

static hk_status read_header(reader *r, hk_gpu *gpu)
{
    const hk_device_info *d = hk_gpu_info(gpu);
    const char *first = next_line(r);
    const char *device = first && !strcmp(first, FIRST_LINE) ? header(r, "device") : NULL;
    const char *driver = device ? header(r, "driver") : NULL;
    if (!driver)
        return hk_fail(r->ctx, HK_STATUS_INVALID,
                       "'%s' is no table of measurements: expected the lines '" FIRST_LINE
                       "', 'device' and 'driver', as hillock tune writes them",
                       r->path);
    if (strcmp(device, d->name) != 0)
        return hk_fail(r->ctx, HK_STATUS_USAGE,
                       "'%s' was measured on '%s', this device is '%s': make a table of it with hillock tune", r->path,
                       device, d->name);
    if (strcmp(driver, d->driver) != 0)
        hk_log(r->ctx, HK_LOG_INFO,
               "'%s' was measured with the driver '%s', this one is '%s': other kernels may be the fastest now",
               r->path, driver, d->driver);
    return HK_OK;
}

static hk_status read_problem(reader *r, hk_tuning *t, char *line)
{
    char *field[5] = {line};
    int count = 1;
    for (char *tab = line; count < 5 && (tab = strchr(tab, '\t')) != NULL; count++) {
        *tab++ = '\0';
        field[count] = tab;
    }
    char *end[3] = {NULL};
    unsigned long splits = count == 5 ? strtoul(field[2], &end[0], 10) : 0;
    double us = count == 5 ? strtod(field[3], &end[1]) : 0, first_us = count == 5 ? strtod(field[4], &end[2]) : 0;
    bool numbers = count == 5 && !*end[0] && !*end[1] && !*end[2] && splits >= 1 && splits <= UINT16_MAX && us >= 0 &&
                   first_us >= 0;
    if (!numbers || !*field[0] || !*field[1] || strlen(field[0]) >= HK_PROBLEM_BYTES)
        return hk_fail(r->ctx, HK_STATUS_INVALID,
                       "'%s', line %d: expected a problem, a kernel, a number of splits and two times, with tabs "
                       "between; make the table again with hillock tune",
                       r->path, r->line);
    hk_tuned *known = hk_tuning_add(t, field[0]);
    if (!known || !(known->kernel = hk_arena_string(t->arena, field[1])))
        return hk_out_of_memory(r->ctx, "a table of measurements");
    known->splits = (uint32_t)splits;
    known->ns = us * 1e3;
    known->first_ns = first_us * 1e3;
    return HK_OK;
}

static hk_status read_table(hk_gpu *gpu, const char *path, const hk_file *file, hk_tuning *t)
{
    reader r = {.ctx = hk_gpu_context(gpu), .path = path};
    char *text = hk_arena_alloc(t->arena, file->bytes + 1);
    if (!text)
        return hk_out_of_memory(r.ctx, "a table of measurements");
    memcpy(text, file->data, file->bytes);
    r.next = memchr(text, '\0', file->bytes) ? NULL : text; /* text has none */
    HK_TRY(read_header(&r, gpu));
    for (char *line; (line = next_line(&r)) != NULL;)
        if (*line && *line != '#')
            HK_TRY(read_problem(&r, t, line));
    return HK_OK;
}

hk_status hk_tuning_load(hk_gpu *gpu, const char *path, hk_tuning **out)
{
    hk_context *ctx = hk_gpu_context(gpu);
    hk_tuning *t = NULL;
    hk_file file;
    HK_TRY(hk_file_open(ctx, path, MOST_BYTES, &file));
    hk_status st = hk_tuning_create(ctx, &t);
    if (st == HK_OK)
        st = read_table(gpu, path, &file, t);
    hk_file_close(&file);
    if (st == HK_OK)
        *out = t;
    else
        hk_tuning_destroy(&t);
    return st;
}

/* ---- writing */

static int by_problem(const void *a, const void *b)
{
    return strcmp((*(const hk_tuned *const *)a)->problem, (*(const hk_tuned *const *)b)->problem);
}

static hk_status write_line(hk_file_writer *w, hk_arena *arena, hk_context *ctx, const hk_tuned *k)
{
    const char *line = hk_arena_format(arena, "%s\t%s\t%" PRIu32 "\t%.3f\t%.3f\n", k->problem, k->kernel, k->splits,
                                       k->ns * 1e-3, k->first_ns * 1e-3);
    return line ? hk_file_write(w, line, strlen(line)) : hk_out_of_memory(ctx, "a table of measurements");
}

hk_status hk_tuning_save(hk_gpu *gpu, const hk_tuning *t, const char *path)
{
    hk_context *ctx = hk_gpu_context(gpu);
    const hk_device_info *d = hk_gpu_info(gpu);
    const hk_tuned **sorted = hk_arena_array(t->arena, t->count + 1, sizeof(hk_tuned *));
    const char *head = hk_arena_format(t->arena,
                                       FIRST_LINE "\ndevice\t%s\ndriver\t%s\n# problem, kernel, splits, microseconds "
                                                  "of it and of the kernel predicted to be the fastest\n",
                                       d->name, d->driver);
    hk_file_writer *w = NULL;
    if (!sorted || !head)
        return hk_out_of_memory(ctx, "a table of measurements");
    for (size_t i = 0; i < t->count; i++)
        sorted[i] = t->list[i];
    qsort(sorted, t->count, sizeof *sorted, by_problem);
    HK_TRY(hk_file_writer_create(ctx, path, &w));
    hk_status st = hk_file_write(w, head, strlen(head));
    for (size_t i = 0; i < t->count && st == HK_OK; i++)
        if (sorted[i]->kernel)
            st = write_line(w, t->arena, ctx, sorted[i]);
    if (st == HK_OK)
        return hk_file_writer_commit(&w);
    hk_file_writer_destroy(&w);
    return st;
}
