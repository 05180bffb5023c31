/*
 * numpy's .npy: a magic, a version, a header that is a Python dictionary in text, and the elements.
 */
#include "core/file.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char magic[6] = {'\x93', 'N', 'U', 'M', 'P', 'Y'};

bool hk_npy_is(const void *data, size_t bytes)
{
    return bytes >= sizeof magic && memcmp(data, magic, sizeof magic) == 0;
}

/* ---- the header, read with a cursor; every step answers whether it found what it wants */

typedef struct npy_header {
    char kind;          /* of descr: 'f' in "<f4" */
    int32_t item_bytes; /* 4 */
    bool big_endian;
    bool fortran_order;
    hk_shape shape;
    bool has_descr, has_order, has_shape;
    const char *problem; /* why a well-formed header is refused */
} npy_header;

typedef struct cursor {
    const char *at, *end;
} cursor;

static void skip_space(cursor *c)
{
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\t' || *c->at == '\n' || *c->at == '\r'))
        c->at++;
}

static bool take(cursor *c, char wanted)
{
    skip_space(c);
    if (c->at == c->end || *c->at != wanted)
        return false;
    c->at++;
    return true;
}

static bool take_word(cursor *c, const char *word)
{
    size_t length = strlen(word);
    skip_space(c);
    if ((size_t)(c->end - c->at) < length || memcmp(c->at, word, length) != 0)
        return false;
    c->at += length;
    return true;
}

/* A quoted string without escapes, which no key and no supported descr has. */
static bool take_string(cursor *c, const char **text, size_t *length)
{
    skip_space(c);
    if (c->at == c->end || (*c->at != '\'' && *c->at != '"'))
        return false;
    char quote = *c->at++;
    *text = c->at;
    while (c->at < c->end && *c->at != quote)
        c->at++;
    *length = (size_t)(c->at - *text);
    return take(c, quote);
}

static bool take_number(cursor *c, int64_t *out)
{
    skip_space(c);
    const char *start = c->at;
    int64_t n = 0;
    for (; c->at < c->end && *c->at >= '0' && *c->at <= '9'; c->at++)
        if (__builtin_mul_overflow(n, (int64_t)10, &n) || __builtin_add_overflow(n, (int64_t)(*c->at - '0'), &n))
            return false;
    bool found = c->at > start;
    if (found && c->at < c->end && *c->at == 'L') /* Python 2 */
        c->at++;
    *out = n;
    return found;
}

static bool take_descr(cursor *c, npy_header *h)
{
    const char *text;
    size_t length;
    skip_space(c);
    if (c->at < c->end && *c->at == '[') {
        h->problem = "holds records of several fields, expected plain numbers";
        return true;
    }
    if (!take_string(c, &text, &length) || length < 2 || length > 4 || strchr("<>|=", text[0]) == NULL)
        return false;
    h->big_endian = text[0] == '>';
    h->kind = text[1];
    if (h->kind == 'O') {
        h->problem = "holds Python objects, which are stored as code (pickle); save it with a numeric dtype";
        return true;
    }
    for (size_t i = 2; i < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        h->item_bytes = h->item_bytes * 10 + (text[i] - '0');
    }
    return true;
}

static bool take_shape(cursor *c, npy_header *h)
{
    if (!take(c, '('))
        return false;
    while (!take(c, ')')) {
        int64_t n;
        if (!take_number(c, &n))
            return false;
        if (h->shape.rank == HK_MAX_RANK) {
            h->problem = "has more than 8 dimensions";
            return true;
        }
        h->shape.dim[h->shape.rank++] = n;
        if (!take(c, ',')) {
            if (!take(c, ')'))
                return false;
            break;
        }
    }
    return true;
}

static bool take_entry(cursor *c, npy_header *h)
{
    const char *key;
    size_t length;
    if (!take_string(c, &key, &length) || !take(c, ':'))
        return false;
    if (length == 5 && memcmp(key, "descr", 5) == 0 && !h->has_descr)
        return h->has_descr = take_descr(c, h);
    if (length == 5 && memcmp(key, "shape", 5) == 0 && !h->has_shape)
        return h->has_shape = take_shape(c, h);
    if (length == 13 && memcmp(key, "fortran_order", 13) == 0 && !h->has_order) {
        h->fortran_order = take_word(c, "True");
        return h->has_order = h->fortran_order || take_word(c, "False");
    }
    return false;
}

/* True also when h->problem is set: the rest is then not read. */
static bool parse_header(cursor c, npy_header *h)
{
    if (!take(&c, '{'))
        return false;
    while (!take(&c, '}')) {
        if (!take_entry(&c, h))
            return false;
        if (h->problem != NULL)
            return true;
        if (!take(&c, ',')) {
            if (!take(&c, '}'))
                return false;
            break;
        }
    }
    skip_space(&c);
    return c.at == c.end && h->has_descr && h->has_order && h->has_shape;
}

/* ---- element types */

static const struct {
    hk_dtype dtype;
    char descr[4];
} types[] = {
    {HK_BOOL, "|b1"},   {HK_INT8, "|i1"},    {HK_UINT8, "|u1"},   {HK_INT16, "<i2"},
    {HK_UINT16, "<u2"}, {HK_INT32, "<i4"},   {HK_UINT32, "<u4"},  {HK_INT64, "<i8"},
    {HK_UINT64, "<u8"}, {HK_FLOAT16, "<f2"}, {HK_FLOAT32, "<f4"}, {HK_FLOAT64, "<f8"},
};

static hk_dtype dtype_of(const npy_header *h)
{
    for (size_t i = 0; i < HK_COUNT(types); i++)
        if (types[i].descr[1] == h->kind && types[i].descr[2] - '0' == h->item_bytes)
            return types[i].dtype;
    return HK_DTYPE_NONE;
}

static void swap_bytes(unsigned char *p, size_t count, size_t bytes)
{
    for (; count > 0; count--, p += bytes)
        for (size_t i = 0; i < bytes / 2; i++) {
            unsigned char low = p[i];
            p[i] = p[bytes - 1 - i];
            p[bytes - 1 - i] = low;
        }
}

/* Copies the elements into C order, native byte order, and bools to 0 or 1. */
static void unpack(const npy_header *h, hk_tensor *t, const void *from)
{
    hk_tensor stored = *t;
    stored.data = (void *)(uintptr_t)from;
    if (h->fortran_order) {
        int64_t stride = 1;
        for (int32_t i = 0; i < t->rank; i++) {
            stored.strides[i] = stride;
            stride *= t->shape[i];
        }
    }
    hk_tensor_pack(&stored, t->data);
    size_t count = (size_t)hk_tensor_count(t);
    if (h->big_endian)
        swap_bytes(t->data, count, hk_dtype_bytes(t->dtype));
    if (t->dtype == HK_BOOL)
        for (unsigned char *p = t->data; count > 0; count--, p++)
            *p = *p != 0;
}

/* ---- reading and writing */

/* Finds the header's text; the contents begin behind it. */
static bool find_header(const unsigned char *p, size_t bytes, cursor *header)
{
    if (bytes < 10 || p[6] < 1 || p[6] > 3)
        return false;
    size_t length = (size_t)p[8] | (size_t)p[9] << 8, start = 10;
    if (p[6] > 1) {
        if (bytes < 12)
            return false;
        length |= (size_t)p[10] << 16 | (size_t)p[11] << 24;
        start = 12;
    }
    if (length > bytes - start)
        return false;
    *header = (cursor){(const char *)p + start, (const char *)p + start + length};
    return true;
}

hk_status hk_npy_read(hk_context *ctx, const char *name, const void *data, size_t bytes, hk_tensor *out)
{
    cursor text;
    npy_header h = {.shape = {.rank = 0}};
    if (!hk_npy_is(data, bytes) || !find_header(data, bytes, &text) || !parse_header(text, &h))
        return hk_fail(ctx, HK_STATUS_INVALID, "'%s' is no readable .npy file: its header is damaged or cut", name);
    if (h.problem != NULL)
        return hk_fail(ctx, HK_STATUS_UNSUPPORTED, "'%s' %s", name, h.problem);
    hk_dtype dtype = dtype_of(&h);
    if (dtype == HK_DTYPE_NONE)
        return hk_fail(ctx, HK_STATUS_UNSUPPORTED,
                       "'%s' has elements of kind '%c' and %d bytes, expected bool, int, uint or float", name, h.kind,
                       (int)h.item_bytes);
    size_t have = bytes - (size_t)(text.end - (const char *)data);
    int64_t count = hk_shape_count(&h.shape), need;
    hk_shape_text shape;
    if (count < 0 || __builtin_mul_overflow(count, (int64_t)hk_dtype_bytes(dtype), &need) || (uint64_t)need != have)
        return hk_fail(ctx, HK_STATUS_INVALID, "'%s' has %zu bytes of contents, which are not those of %s %s", name,
                       have, hk_dtype_name(dtype), hk_shape_print(&h.shape, &shape));
    HK_TRY(hk_tensor_create(ctx, dtype, &h.shape, out));
    unpack(&h, out, text.end);
    return HK_OK;
}

/* Text such as numpy writes it, padded so that the contents start at a multiple of 64. */
static size_t print_header(char *header, size_t capacity, const char *descr, const hk_tensor *t)
{
    char shape[256];
    size_t n = 0;
    for (int32_t i = 0; i < t->rank; i++)
        n += (size_t)snprintf(shape + n, sizeof shape - n, "%s%" PRId64 "%s", i == 0 ? "" : " ", t->shape[i],
                              i + 1 < t->rank || t->rank == 1 ? "," : "");
    shape[n] = '\0';
    size_t length = (size_t)snprintf(header, capacity, "{'descr': '%.3s', 'fortran_order': False, 'shape': (%s), }",
                                     descr, shape);
    while ((10 + length + 1) % 64 != 0)
        header[length++] = ' ';
    header[length++] = '\n';
    return length;
}

hk_status hk_npy_write(hk_context *ctx, const hk_tensor *t, const char *path)
{
    const char *descr = NULL;
    for (size_t i = 0; i < HK_COUNT(types); i++)
        if (types[i].dtype == t->dtype)
            descr = types[i].descr;
    if (descr == NULL)
        return hk_fail(ctx, HK_STATUS_UNSUPPORTED, "'%s': numpy has no %s: save it as .pb", path,
                       hk_dtype_name(t->dtype));
    int64_t count = t->rank < 0 || t->rank > HK_MAX_RANK ? -1 : hk_tensor_count(t);
    if (count < 0)
        return hk_fail(ctx, HK_STATUS_USAGE, "'%s': the tensor's shape is not valid", path);

    char header[512];
    size_t length = print_header(header, sizeof header, descr, t);
    unsigned char lead[10] = {0};
    memcpy(lead, magic, sizeof magic);
    lead[6] = 1;
    lead[8] = (unsigned char)(length & 255);
    lead[9] = (unsigned char)(length >> 8);

    size_t bytes = (size_t)count * hk_dtype_bytes(t->dtype);
    hk_file_writer *w = NULL;
    void *packed = hk_alloc(ctx, bytes);
    hk_status st = packed == NULL ? hk_out_of_memory(ctx, "a tensor's copy") : hk_file_writer_create(ctx, path, &w);
    if (st == HK_OK) {
        hk_tensor_pack(t, packed);
        hk_file_write(w, lead, sizeof lead);
        hk_file_write(w, header, length);
        hk_file_write(w, packed, bytes);
        st = hk_file_writer_commit(&w); /* with the first failure of the writes */
    }
    hk_free(ctx, packed);
    return st;
}
