/* Compressed data: gzip and numpy's .npz, a ZIP archive of .npy files. Both need zlib. */
#include <string.h>

#ifdef HK_HAVE_ZLIB
#include <zlib.h>
#endif

#include "train/dataset.h"

#ifdef HK_HAVE_ZLIB
bool hk_inflate(hk_context *ctx, const uint8_t *data, size_t bytes, bool gzip, uint8_t **out, size_t *out_bytes,
                size_t limit)
{
    z_stream z = {.next_in = (Bytef *)(uintptr_t)data};
    if (inflateInit2(&z, gzip ? 16 + MAX_WBITS : -MAX_WBITS) != Z_OK)
        return false;
    size_t capacity = HK_MIN(bytes * 4 + 1024, limit), done = 0, left = bytes;
    uint8_t *to = hk_alloc(ctx, capacity);
    int code = Z_OK;
    while (to && code == Z_OK) {
        if (done == capacity) {
            uint8_t *grown = capacity < limit ? hk_realloc(ctx, to, HK_MIN(capacity * 2, limit)) : NULL;
            if (!grown)
                break;
            to = grown;
            capacity = HK_MIN(capacity * 2, limit);
        }
        uInt in = (uInt)HK_MIN(left, (size_t)1 << 30), room = (uInt)HK_MIN(capacity - done, (size_t)1 << 30);
        z.avail_in = in;
        z.next_out = to + done;
        z.avail_out = room;
        code = inflate(&z, Z_NO_FLUSH);
        left -= in - z.avail_in;
        done += room - z.avail_out;
        if (code == Z_BUF_ERROR && z.avail_out == 0)
            code = Z_OK;
    }
    inflateEnd(&z);
    if (code != Z_STREAM_END) {
        hk_free(ctx, to);
        return false;
    }
    *out = to;
    *out_bytes = done;
    return true;
}
#else
bool hk_inflate(hk_context *ctx, const uint8_t *data, size_t bytes, bool gzip, uint8_t **out, size_t *out_bytes,
                size_t limit)
{
    (void)ctx, (void)data, (void)bytes, (void)gzip, (void)out, (void)out_bytes, (void)limit;
    return false;
}
#endif

/* ---- ZIP, as far as numpy writes it: a central directory at the end, members stored or deflated, sizes below 4 GiB */

static uint32_t little(const uint8_t *p, int bytes)
{
    uint32_t x = 0;
    for (int i = 0; i < bytes; i++)
        x |= (uint32_t)p[i] << (8 * i);
    return x;
}

typedef struct member {
    const char *name;
    const uint8_t *data;
    size_t stored, bytes;
    uint32_t method;
} member;

static const uint8_t *end_of_directory(const uint8_t *data, size_t bytes)
{
    for (size_t i = 22; i <= bytes && i < 22 + 65536; i++)
        if (!memcmp(data + bytes - i, "PK\5\6", 4))
            return data + bytes - i;
    return NULL;
}

/* Reads the entry at *at of the central directory and moves on; false at anything that does not fit in the file. */
static bool next_member(hk_dataset *d, const uint8_t *data, size_t bytes, size_t *at, member *m)
{
    if (bytes < 46 || *at > bytes - 46 || memcmp(data + *at, "PK\1\2", 4) != 0)
        return false;
    const uint8_t *e = data + *at;
    size_t name = little(e + 28, 2), extra = little(e + 30, 2), comment = little(e + 32, 2), local = little(e + 42, 4);
    *m = (member){.method = little(e + 10, 2), .stored = little(e + 20, 4), .bytes = little(e + 24, 4)};
    if (name + extra + comment > bytes - *at - 46 || bytes < 30 || local > bytes - 30)
        return false;
    char *text = hk_arena_array(d->arena, name + 1, 1);
    if (!text)
        return false;
    memcpy(text, e + 46, name);
    m->name = text;
    size_t begin = local + 30 + little(data + local + 26, 2) + little(data + local + 28, 2);
    if (begin > bytes || m->stored > bytes - begin)
        return false;
    m->data = data + begin;
    *at += 46 + name + extra + comment;
    return true;
}

static hk_status read_member(hk_dataset *d, const member *m, hk_tensor *out)
{
    const uint8_t *npy = m->data;
    uint8_t *inflated = NULL;
    size_t bytes = m->bytes;
    if (m->method == 8) {
        if (!hk_inflate(d->ctx, m->data, m->stored, false, &inflated, &bytes, m->bytes + 1) || bytes != m->bytes) {
            hk_free(d->ctx, inflated);
            return hk_fail(d->ctx, HK_STATUS_INVALID,
                           "'%s': member '%s' cannot be inflated (formats of this build: %s)", d->path, m->name,
                           HK_DATA_FORMATS);
        }
        npy = inflated;
    } else if (m->method != 0 || m->stored != m->bytes) {
        return hk_fail(d->ctx, HK_STATUS_UNSUPPORTED, "'%s': member '%s' is packed by method %u", d->path, m->name,
                       m->method);
    }
    hk_status st = hk_npy_is(npy, bytes)
                       ? hk_npy_read(d->ctx, m->name, npy, bytes, out)
                       : hk_fail(d->ctx, HK_STATUS_INVALID, "'%s': member '%s' is no .npy file", d->path, m->name);
    hk_free(d->ctx, inflated);
    return st == HK_OK ? hk_dataset_keep(d, out->data) : st;
}

static bool is_target(const char *name)
{
    static const char *const names[] = {"labels", "label", "targets", "target", "y", "arr_1"};
    for (size_t i = 0; i < HK_COUNT(names); i++)
        if (!strcmp(name, names[i]))
            return true;
    return false;
}

hk_status hk_open_npz(hk_dataset *d, const uint8_t *data, size_t bytes)
{
    const uint8_t *end = end_of_directory(data, bytes);
    size_t at = end ? little(end + 16, 4) : 0, count = end ? little(end + 10, 2) : 0;
    bool target = false;
    for (size_t i = 0; i < count; i++) {
        member m;
        hk_tensor t = {0};
        if (!next_member(d, data, bytes, &at, &m))
            return hk_fail(d->ctx, HK_STATUS_INVALID, "'%s': entry %zu of its directory is damaged", d->path, i);
        size_t length = strlen(m.name);
        char *name = hk_arena_format(d->arena, "%.*s", (int)(length > 4 ? length - 4 : length), m.name);
        if (!name)
            return hk_out_of_memory(d->ctx, "a dataset");
        HK_TRY(read_member(d, &m, &t));
        if (t.rank < 1 || t.shape[0] < 1 || (d->count && (size_t)t.shape[0] != d->count))
            return hk_fail(d->ctx, HK_STATUS_INVALID, "'%s': array '%s' has %lld samples, the one before %zu", d->path,
                           name, t.rank < 1 ? 0ll : (long long)t.shape[0], d->count);
        d->count = (size_t)t.shape[0];
        int64_t shape[HK_MAX_RANK];
        memcpy(shape, t.shape + 1, sizeof shape - sizeof *shape);
        target |= is_target(name);
        HK_TRY(is_target(name) ? hk_dataset_target(d, name, t.dtype, t.rank - 1, shape, t.data)
                               : hk_dataset_field(d, name, t.dtype, t.rank - 1, shape, t.data));
    }
    if (!target || !d->field_count)
        return hk_fail(d->ctx, HK_STATUS_INVALID,
                       "'%s' needs an array per model input and one named labels, targets or y", d->path);
    return HK_OK;
}
