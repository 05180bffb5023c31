/*
 * Tensors in other files. The model says which, so it could name any file of the machine: only regular files beneath
 * the model's own folder are read, through no link of any kind.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "importer/internal.h"

/* What TensorProto.external_data says. */
typedef struct place {
    const char *location;
    uint64_t offset, length;
    bool has_offset, has_length;
} place;

/* Digits only: strtoull would take signs, spaces and overflow. */
static bool parse_unsigned(const char *s, uint64_t *out)
{
    uint64_t x = 0;
    if (*s == '\0')
        return false;
    for (; *s != '\0'; s++)
        if (*s < '0' || *s > '9' || __builtin_mul_overflow(x, (uint64_t)10, &x) ||
            __builtin_add_overflow(x, (uint64_t)(*s - '0'), &x))
            return false;
    *out = x;
    return true;
}

static hk_status read_number(hk_importer *imp, const Onnx__StringStringEntryProto *e, bool *has, uint64_t *out)
{
    if (*has || !parse_unsigned(hk_text(e->value), out))
        return hk_fail(imp->ctx, HK_STATUS_INVALID, "external data: %s is '%s', expected one number of bytes", e->key,
                       hk_text(e->value));
    *has = true;
    return HK_OK;
}

static hk_status read_place(hk_importer *imp, const Onnx__TensorProto *t, place *out)
{
    place p = {0};
    for (size_t i = 0; i < t->n_external_data; i++) {
        const Onnx__StringStringEntryProto *e = t->external_data[i];
        const char *key = hk_text(e->key);
        if (strcmp(key, "offset") == 0) {
            HK_TRY(read_number(imp, e, &p.has_offset, &p.offset));
        } else if (strcmp(key, "length") == 0) {
            HK_TRY(read_number(imp, e, &p.has_length, &p.length));
        } else if (strcmp(key, "location") == 0) {
            if (p.location != NULL)
                return hk_fail(imp->ctx, HK_STATUS_INVALID, "external data: two locations");
            p.location = hk_text(e->value);
        } else if (strcmp(key, "checksum") != 0 && strncmp(key, "prepacked_", 10) != 0) {
            /* ONNX Runtime adds prepacked_*, which concern it alone; anything else could change the meaning. */
            return hk_fail(imp->ctx, HK_STATUS_UNSUPPORTED, "external data: key '%s' is not known", key);
        }
    }
    if (p.location == NULL || *p.location == '\0')
        return hk_fail(imp->ctx, HK_STATUS_INVALID, "external data: no location");
    *out = p;
    return HK_OK;
}

/* Refused by what they say, before the file system is asked: the sentence is then the same on every machine. */
static hk_status check_location(hk_importer *imp, const char *location)
{
    const char *problem = NULL;
    if (*location == '/')
        problem = "is absolute";
    for (const char *p = location; *p != '\0' && problem == NULL; p++) {
        bool begins = p == location || p[-1] == '/';
        if (*p == '\\')
            problem = "has a backslash";
        else if (begins && p[0] == '.' && p[1] == '.' && (p[2] == '/' || p[2] == '\0'))
            problem = "has a '..'";
    }
    if (problem == NULL)
        return HK_OK;
    return hk_fail(imp->ctx, HK_STATUS_INVALID,
                   "external data: location '%s' %s, expected a file beneath the model's folder", location, problem);
}

static hk_status open_folder(hk_importer *imp)
{
    if (imp->folder >= 0)
        return HK_OK;
    imp->folder = open(imp->folder_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (imp->folder < 0)
        return hk_fail(imp->ctx, HK_STATUS_IO, "external data: the model's folder '%s' cannot be opened: %s",
                       imp->folder_path, strerror(errno));
    return HK_OK;
}

static hk_status add_file(hk_importer *imp, const char *location)
{
    hk_import_result *r = imp->result;
    size_t capacity = r->file_capacity; /* both lists grow together */
    if (!hk_arena_grow(imp->arena, (void **)&r->file_names, r->file_count, &capacity, sizeof *r->file_names) ||
        !hk_arena_grow(imp->arena, (void **)&r->files, r->file_count, &r->file_capacity, sizeof *r->files))
        return hk_out_of_memory(imp->ctx, "external data");
    const char *name = hk_arena_string(imp->arena, location);
    if (name == NULL)
        return hk_out_of_memory(imp->ctx, "external data");
    HK_TRY(open_folder(imp));
    int descriptor = hk_file_open_beneath(imp->folder, location, false);
    if (descriptor < 0) {
        int error = errno;
        if (error == ELOOP || error == EXDEV)
            return hk_fail(imp->ctx, HK_STATUS_INVALID,
                           "external data: '%s' is or passes a symbolic link, or leaves the model's folder: put the "
                           "file itself there",
                           location);
        return hk_fail(imp->ctx, error == ENOMEM ? HK_STATUS_OUT_OF_MEMORY : HK_STATUS_NO_INPUT,
                       "external data: '%s' in the model's folder '%s' cannot be opened: %s", location,
                       imp->folder_path, strerror(error));
    }
    HK_TRY(hk_file_open_descriptor(imp->ctx, descriptor, location, 0, true, &r->files[r->file_count]));
    r->file_names[r->file_count] = name;
    imp->external_there += r->files[r->file_count].bytes;
    r->file_count++;
    return HK_OK;
}

static hk_status find_file(hk_importer *imp, const char *location, uint32_t *out)
{
    uintptr_t known = (uintptr_t)hk_map_get(&imp->external_files, location);
    if (known == 0) {
        if (imp->result->file_count > HK_IMPORT_FILES)
            return hk_fail(imp->ctx, HK_STATUS_UNSUPPORTED, "external data: more than %d files", HK_IMPORT_FILES);
        HK_TRY(check_location(imp, location));
        HK_TRY(add_file(imp, location));
        known = imp->result->file_count;
        if (!hk_map_set(&imp->external_files, location, (void *)known))
            return hk_out_of_memory(imp->ctx, "external data");
    }
    *out = (uint32_t)(known - 1);
    return HK_OK;
}

static hk_status check_range(hk_importer *imp, const place *p, const hk_tensor_head *head, const hk_file *f)
{
    if (p->has_length && p->length != head->bytes)
        return hk_fail(imp->ctx, HK_STATUS_INVALID, "external data: length %" PRIu64 ", type and shape say %" PRIu64,
                       p->length, head->bytes);
    if (head->typed_field == 6) /* strings have no fixed size */
        return hk_fail(imp->ctx, HK_STATUS_INVALID, "external data: strings cannot lie there");
    if (p->offset > f->bytes || head->bytes > f->bytes - p->offset)
        return hk_fail(imp->ctx, HK_STATUS_INVALID,
                       "external data: '%s' has %zu bytes, the tensor needs %" PRIu64 " from byte %" PRIu64,
                       p->location, f->bytes, head->bytes, p->offset);
    /* Tensors may share bytes (tied weights), but not so that a small file stands for any amount. */
    imp->external_used += head->bytes;
    if (imp->external_used / 4 > imp->external_there)
        return hk_fail(imp->ctx, HK_STATUS_UNSUPPORTED,
                       "external data: tensors take more than 4 times the bytes of their files");
    return HK_OK;
}

static hk_status note_external(hk_importer *imp, hk_scan_tensor message, uint32_t file)
{
    hk_import_result *r = imp->result;
    if (!hk_arena_grow(imp->arena, (void **)&r->externals, r->external_count, &r->external_capacity,
                       sizeof *r->externals))
        return hk_out_of_memory(imp->ctx, "external data");
    r->externals[r->external_count++] = (hk_import_external){
        .message = message.offset, .message_bytes = message.bytes, .file = file};
    return HK_OK;
}

hk_status hk_import_external_tensor(hk_importer *imp, const Onnx__TensorProto *t, const hk_tensor_head *head,
                                    hk_decoded *out)
{
    hk_scan_tensor message = imp->scan.tensors[t->scanned];
    place p = {0};
    uint32_t file = 0;
    if (imp->folder_path == NULL)
        return hk_fail(imp->ctx, HK_STATUS_UNSUPPORTED,
                       "its elements lie in another file, which a model loaded from memory has no folder for");
    if (imp->params.no_external_data)
        return hk_fail(imp->ctx, HK_STATUS_UNSUPPORTED, "its elements lie in another file, which the options forbid");
    HK_TRY(read_place(imp, t, &p));
    HK_TRY(find_file(imp, p.location, &file));
    HK_TRY(check_range(imp, &p, head, &imp->result->files[file]));
    HK_TRY(note_external(imp, message, file));
    if (head->problem != NULL) {
        out->problem = head->problem;
        return HK_OK;
    }
    hk_payload *payload = hk_arena_new(imp->arena, hk_payload);
    if (payload == NULL)
        return hk_out_of_memory(imp->ctx, "a tensor");
    *payload = (hk_payload){.file = file,
                            .in_place = head->bytes != 0,
                            .offset = p.offset,
                            .bytes = head->bytes,
                            .message = message.offset,
                            .message_bytes = message.bytes,
                            .dtype = head->dtype};
    out->tensor = hk_tensor_over(&imp->reader, head, imp->result->files[file].data + p.offset);
    out->payload = payload;
    return out->tensor == NULL ? hk_out_of_memory(imp->ctx, "a tensor") : HK_OK;
}
