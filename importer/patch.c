/*
 * The model's own bytes with new weights in them. Nothing is decoded and encoded again: unknown fields, comments,
 * functions and the order of everything stay as they are.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "importer/import.h"
#include "importer/wire.h"

enum { RAW_DATA = 9, EXTERNAL_DATA = 13, ENTRY_KEY = 1, ENTRY_VALUE = 2, MODEL_BYTES_MAX = INT32_MAX };

/* Bytes start .. end of a file make way for others. */
typedef struct edit {
    size_t start, end;
    const uint8_t *bytes;
    size_t count;
    const char *name; /* of the value, for messages */
} edit;

typedef struct edit_list {
    edit *v;
    size_t count, capacity;
} edit_list;

typedef struct patcher {
    hk_context *ctx;
    hk_arena *arena;
    const hk_import_result *r;
    edit_list *contents;    /* per file: elements, each edit as long as what it replaces */
    edit_list structure;    /* of the model file: whole fields, which change lengths around them */
    const char **locations; /* per file: its new name; [0] is unused */
} patcher;

static hk_status add_edit(patcher *p, edit_list *l, edit e)
{
    if (!hk_arena_grow(p->arena, (void **)&l->v, l->count, &l->capacity, sizeof *l->v))
        return hk_out_of_memory(p->ctx, "an export");
    l->v[l->count++] = e;
    return HK_OK;
}

static int compare_edits(const void *a, const void *b)
{
    const edit *x = a, *y = b;
    return x->start < y->start ? -1 : x->start > y->start ? 1 : x->end < y->end ? -1 : x->end > y->end;
}

static void sort_edits(edit_list *l)
{
    if (l->count > 1)
        qsort(l->v, l->count, sizeof *l->v, compare_edits);
}

/* A field of bytes, tag and length included. */
static hk_status make_field(patcher *p, uint32_t number, const void *contents, size_t count, const uint8_t **out,
                            size_t *out_count)
{
    uint8_t *field = hk_arena_alloc(p->arena, 2 * HK_VARINT_MAX + count);
    if (field == NULL)
        return hk_out_of_memory(p->ctx, "an export");
    size_t n = hk_wire_put_tag(field, number, HK_WIRE_BYTES);
    n += hk_wire_put(field + n, count);
    if (count != 0)
        memcpy(field + n, contents, count);
    *out = field;
    *out_count = n + count;
    return HK_OK;
}

/* ---- weights */

/* The new elements as the file stores them. */
static hk_status convert(patcher *p, const hk_export_patch *patch, const void **out, size_t *bytes)
{
    const hk_tensor *t = patch->data;
    const hk_payload *payload = patch->value->payload;
    hk_shape shape = hk_tensor_shape(t);
    if (!hk_shape_equal(&shape, &patch->value->shape))
        return hk_fail(p->ctx, HK_STATUS_USAGE, "'%s': the new contents have another shape", patch->value->name);
    if (t->dtype != payload->dtype && !(hk_dtype_is_float(t->dtype) && hk_dtype_is_float(payload->dtype)))
        return hk_fail(p->ctx, HK_STATUS_USAGE, "'%s': the new contents are %s, expected %s", patch->value->name,
                       hk_dtype_name(t->dtype), hk_dtype_name(payload->dtype));
    hk_tensor *packed = hk_tensor_new(p->arena, t->dtype, &shape), *stored = packed;
    if (packed == NULL)
        return hk_out_of_memory(p->ctx, "an export");
    hk_tensor_pack(t, packed->data);
    if (t->dtype != payload->dtype) {
        stored = hk_tensor_new(p->arena, payload->dtype, &shape);
        if (stored == NULL)
            return hk_out_of_memory(p->ctx, "an export");
        for (int64_t i = 0, n = hk_tensor_count(t); i < n; i++)
            hk_set_double(stored, i, hk_get_double(packed, i));
    }
    if (hk_dtype_bits(stored->dtype) < 8)
        hk_bits_pack(stored->dtype, stored->data, stored->data, hk_tensor_count(stored));
    *out = stored->data;
    *bytes = (size_t)hk_tensor_file_bytes(stored);
    return HK_OK;
}

static bool holds_elements(uint32_t number)
{
    return (number >= 4 && number <= 7) || (number >= RAW_DATA && number <= 11);
}

/* Elements stored as varints, or in several runs, become one raw_data. */
static hk_status replace_encoded(patcher *p, const hk_export_patch *patch, const void *elements, size_t bytes)
{
    const hk_payload *payload = patch->value->payload;
    const uint8_t *data = p->r->files[0].data, *field = NULL;
    size_t at = (size_t)payload->message, end = at + (size_t)payload->message_bytes, count = 0;
    HK_TRY(make_field(p, RAW_DATA, elements, bytes, &field, &count));
    hk_wire_field f;
    while (at < end && hk_wire_next(data, &at, end, &f)) {
        if (!holds_elements(f.number))
            continue;
        HK_TRY(add_edit(p, &p->structure, (edit){f.start, f.offset + f.bytes, field, count, patch->value->name}));
        count = 0; /* the first gives way to the new field, the others to nothing */
    }
    return HK_OK;
}

static hk_status add_patch(patcher *p, const hk_export_patch *patch)
{
    const hk_payload *payload = patch->value->payload;
    const void *elements = NULL;
    size_t bytes = 0;
    if (payload == NULL)
        return hk_fail(p->ctx, HK_STATUS_UNSUPPORTED, "'%s' has no place of its own in the model file",
                       patch->value->name);
    HK_TRY(convert(p, patch, &elements, &bytes));
    if (bytes == 0)
        return HK_OK;
    if (!payload->in_place)
        return replace_encoded(p, patch, elements, bytes);
    if (bytes != payload->bytes)
        return hk_fail(p->ctx, HK_STATUS_INTERNAL, "'%s': %zu bytes go where %llu are", patch->value->name, bytes,
                       (unsigned long long)payload->bytes);
    edit e = {(size_t)payload->offset, (size_t)payload->offset + bytes, elements, bytes, patch->value->name};
    return add_edit(p, &p->contents[payload->file], e);
}

/* Tensors of external files may share bytes: then new contents must agree, for one place holds one value. */
static hk_status check_overlaps(patcher *p, edit_list *l)
{
    size_t kept = 0;
    sort_edits(l);
    for (size_t i = 0; i < l->count; i++) {
        const edit *e = &l->v[i], *last = kept == 0 ? NULL : &l->v[kept - 1];
        if (last == NULL || e->start >= last->end) {
            l->v[kept++] = *e;
            continue;
        }
        if (e->start != last->start || e->end != last->end || memcmp(e->bytes, last->bytes, e->count) != 0)
            return hk_fail(p->ctx, HK_STATUS_UNSUPPORTED, "'%s' and '%s' share bytes in the file, but now differ",
                           last->name, e->name);
    }
    l->count = kept;
    return HK_OK;
}

/* ---- names of external files */

static bool is_in_use(const patcher *p, const char *path)
{
    struct stat s;
    if (stat(path, &s) != 0)
        return false;
    for (size_t i = 0; i < p->r->file_count; i++)
        if (p->r->files[i].mapped && p->r->files[i].device == s.st_dev && p->r->files[i].inode == s.st_ino)
            return true;
    return false;
}

/* path + ".data", ".1.data", ...: the next that is none of the files the model is read from, so that a failure later
 * leaves the old model whole. */
static hk_status choose_names(patcher *p, const char *path)
{
    size_t number = 0;
    p->locations = hk_arena_array(p->arena, p->r->file_count + 1, sizeof *p->locations);
    if (p->locations == NULL)
        return hk_out_of_memory(p->ctx, "an export");
    for (size_t i = 1; i < p->r->file_count; i++) {
        const char *name;
        do {
            name = number == 0 ? hk_arena_format(p->arena, "%s.data", path)
                               : hk_arena_format(p->arena, "%s.%zu.data", path, number);
            if (name == NULL)
                return hk_out_of_memory(p->ctx, "an export");
            number++;
        } while (is_in_use(p, name));
        p->locations[i] = name;
    }
    return HK_OK;
}

/* The value field of the entry whose key is "location". */
static bool find_location(const uint8_t *data, size_t at, size_t end, hk_wire_field *out)
{
    hk_wire_field f, value = {0};
    bool is_location = false;
    while (at < end && hk_wire_next(data, &at, end, &f)) {
        if (f.number == ENTRY_KEY)
            is_location = f.bytes == 8 && memcmp(data + f.offset, "location", 8) == 0;
        if (f.number == ENTRY_VALUE)
            value = f;
    }
    *out = value;
    return is_location && value.number != 0;
}

static hk_status rename_external(patcher *p, const hk_import_external *x)
{
    const uint8_t *data = p->r->files[0].data, *field = NULL;
    size_t at = (size_t)x->message, end = at + (size_t)x->message_bytes, count = 0;
    const char *slash = strrchr(p->locations[x->file], '/'), *name = slash == NULL ? p->locations[x->file] : slash + 1;
    hk_wire_field f, value;
    while (at < end && hk_wire_next(data, &at, end, &f)) {
        if (f.number != EXTERNAL_DATA || !find_location(data, f.offset, f.offset + f.bytes, &value))
            continue;
        HK_TRY(make_field(p, ENTRY_VALUE, name, strlen(name), &field, &count));
        return add_edit(p, &p->structure, (edit){value.start, value.offset + value.bytes, field, count, name});
    }
    return hk_fail(p->ctx, HK_STATUS_INTERNAL, "the tensor at byte %zu has lost its location", (size_t)x->message);
}

/* ---- lengths. A field that grew makes every message around it longer, and these lengths, written anew, may be longer
 * themselves. Edits are sorted; those of first .. last lie between start and end. */

static hk_status fix_lengths(patcher *p, size_t start, size_t end, size_t first, size_t last, edit_list *headers,
                             int64_t *growth)
{
    const uint8_t *data = p->r->files[0].data;
    const edit *v = p->structure.v;
    hk_wire_field f;
    while (first < last && start < end && hk_wire_next(data, &start, end, &f)) {
        size_t inside = first;
        while (inside < last && v[inside].start < f.offset + f.bytes)
            inside++;
        if (inside == first)
            continue;
        if (v[first].start == f.start) { /* this very field is replaced */
            *growth += (int64_t)v[first].count - (int64_t)(v[first].end - v[first].start);
            first = inside;
            continue;
        }
        int64_t grown = 0;
        HK_TRY(fix_lengths(p, f.offset, f.offset + f.bytes, first, inside, headers, &grown));
        uint8_t *header = hk_arena_alloc(p->arena, 2 * HK_VARINT_MAX);
        if (header == NULL)
            return hk_out_of_memory(p->ctx, "an export");
        size_t n = hk_wire_put_tag(header, f.number, HK_WIRE_BYTES);
        n += hk_wire_put(header + n, (uint64_t)((int64_t)f.bytes + grown));
        HK_TRY(add_edit(p, headers, (edit){f.start, f.offset, header, n, NULL}));
        *growth += grown + (int64_t)n - (int64_t)(f.offset - f.start);
        first = inside;
    }
    return HK_OK;
}

/* ---- writing */

static hk_status write_file(patcher *p, const hk_file *from, const edit_list *edits, const char *path)
{
    hk_file_writer *w = NULL;
    HK_TRY(hk_file_writer_create(p->ctx, path, &w));
    size_t at = 0;
    for (size_t i = 0; i < edits->count; i++) {
        const edit *e = &edits->v[i];
        hk_file_write(w, from->data + at, e->start - at); /* the first failure stays, and commit returns it */
        hk_file_write(w, e->bytes, e->count);
        at = e->end;
    }
    hk_file_write(w, from->data + at, from->bytes - at);
    return hk_file_writer_commit(&w);
}

static hk_status write_all(patcher *p, const char *path)
{
    edit_list *model = &p->contents[0];
    int64_t growth = 0;
    for (size_t i = 0; i < p->r->file_count; i++)
        HK_TRY(check_overlaps(p, &p->contents[i]));
    HK_TRY(check_overlaps(p, &p->structure));
    HK_TRY(fix_lengths(p, 0, p->r->files[0].bytes, 0, p->structure.count, model, &growth));
    for (size_t i = 0; i < p->structure.count; i++)
        HK_TRY(add_edit(p, model, p->structure.v[i]));
    sort_edits(model);
    if ((int64_t)p->r->files[0].bytes + growth > MODEL_BYTES_MAX)
        return hk_fail(p->ctx, HK_STATUS_UNSUPPORTED,
                       "'%s' would be larger than 2 GiB, which the format does not allow", path);
    for (size_t i = 1; i < p->r->file_count; i++)
        HK_TRY(write_file(p, &p->r->files[i], &p->contents[i], p->locations[i]));
    return write_file(p, &p->r->files[0], model, path);
}

hk_status hk_export_patched(const hk_import_result *r, const hk_export_patch *patches, size_t count, const char *path)
{
    patcher p = {.ctx = r->ctx, .r = r, .arena = hk_arena_create(r->ctx)};
    if (p.arena == NULL)
        return hk_out_of_memory(r->ctx, "an export");
    p.contents = hk_arena_array(p.arena, r->file_count, sizeof *p.contents);
    hk_status st = p.contents == NULL ? hk_out_of_memory(r->ctx, "an export") : choose_names(&p, path);
    for (size_t i = 0; i < count && st == HK_OK; i++)
        st = add_patch(&p, &patches[i]);
    for (size_t i = 0; i < r->external_count && st == HK_OK; i++)
        st = rename_external(&p, &r->externals[i]);
    if (st == HK_OK)
        st = write_all(&p, path);
    hk_arena_destroy(&p.arena);
    return st;
}
