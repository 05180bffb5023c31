/* safetensors, read and written. */
#include "train/safetensors.h"

#include <stdio.h>
#include <string.h>

#define MAX_HEADER 100000000u
#define MAX_TENSORS 100000u

static const struct {
    hk_dtype dtype;
    const char *name;
} dtypes[] = {{HK_FLOAT32, "F32"}, {HK_FLOAT64, "F64"}, {HK_FLOAT16, "F16"}, {HK_BFLOAT16, "BF16"}, {HK_INT64, "I64"},
              {HK_INT32, "I32"},   {HK_INT16, "I16"},   {HK_INT8, "I8"},     {HK_UINT8, "U8"},      {HK_BOOL, "BOOL"},
              {HK_UINT32, "U32"},  {HK_UINT64, "U64"},  {HK_UINT16, "U16"}};

/* ---- writing */

typedef struct text {
    hk_context *ctx;
    char *bytes;
    size_t count, capacity;
    bool failed;
} text;

static void put(text *t, const char *s)
{
    size_t n = strlen(s);
    if (t->count + n + 1 > t->capacity) {
        size_t capacity = (t->count + n + 1) * 2;
        char *grown = hk_realloc(t->ctx, t->bytes, capacity);
        t->failed |= !grown;
        if (!grown)
            return;
        t->bytes = grown;
        t->capacity = capacity;
    }
    memcpy(t->bytes + t->count, s, n + 1);
    t->count += n;
}

/* Between quotes, escaped. */
static void put_string(text *t, const char *s)
{
    put(t, "\"");
    for (; *s; s++) {
        char escaped[8] = {*s};
        if (*s == '"' || *s == '\\')
            snprintf(escaped, sizeof escaped, "\\%c", *s);
        else if ((unsigned char)*s < ' ')
            snprintf(escaped, sizeof escaped, "\\u%04x", (unsigned)*s);
        put(t, escaped);
    }
    put(t, "\"");
}

static void put_number(text *t, uint64_t n)
{
    char digits[24];
    snprintf(digits, sizeof digits, "%llu", (unsigned long long)n);
    put(t, digits);
}

static const char *dtype_text(hk_dtype dtype)
{
    for (size_t i = 0; i < HK_COUNT(dtypes); i++)
        if (dtypes[i].dtype == dtype)
            return dtypes[i].name;
    return "?";
}

static void put_tensor(text *t, const hk_safetensor *s, uint64_t offset)
{
    put(t, ",");
    put_string(t, s->name);
    put(t, ":{\"dtype\":\"");
    put(t, dtype_text(s->tensor.dtype));
    put(t, "\",\"shape\":[");
    for (int32_t d = 0; d < s->tensor.rank; d++) {
        put(t, d ? "," : "");
        put_number(t, (uint64_t)s->tensor.shape[d]);
    }
    put(t, "],\"data_offsets\":[");
    put_number(t, offset);
    put(t, ",");
    put_number(t, offset + (uint64_t)hk_tensor_bytes(&s->tensor));
    put(t, "]}");
}

hk_status hk_safetensors_write(hk_context *ctx, const char *path, const hk_safetensor *tensors, size_t count,
                               const hk_metadata *metadata, size_t metadata_count)
{
    text t = {.ctx = ctx};
    put(&t, "{\"__metadata__\":{");
    for (size_t i = 0; i < metadata_count; i++) {
        put(&t, i ? "," : "");
        put_string(&t, metadata[i].key);
        put(&t, ":");
        put_string(&t, metadata[i].value);
    }
    put(&t, "}");
    uint64_t offset = 0;
    for (size_t i = 0; i < count; i++) {
        put_tensor(&t, &tensors[i], offset);
        offset += (uint64_t)hk_tensor_bytes(&tensors[i].tensor);
    }
    put(&t, "}");
    while (t.count % 8)
        put(&t, " ");
    uint64_t header = t.count;
    hk_file_writer *w = NULL;
    hk_status st = t.failed ? hk_out_of_memory(ctx, "a checkpoint") : hk_file_writer_create(ctx, path, &w);
    if (st == HK_OK)
        st = hk_file_write(w, &header, sizeof header);
    if (st == HK_OK)
        st = hk_file_write(w, t.bytes, t.count);
    for (size_t i = 0; i < count && st == HK_OK; i++)
        st = hk_file_write(w, tensors[i].tensor.data, (size_t)hk_tensor_bytes(&tensors[i].tensor));
    if (st == HK_OK)
        st = hk_file_writer_commit(&w);
    hk_file_writer_destroy(&w);
    hk_free(ctx, t.bytes);
    return st;
}

/* ---- reading: the JSON subset the format allows, by recursive descent of fixed depth */

typedef struct parser {
    hk_context *ctx;
    hk_safetensors *out;
    const char *path, *at, *end;
    uint64_t data_bytes, next_offset;
    size_t capacity, metadata_capacity;
} parser;

static hk_status bad(const parser *p, const char *what)
{
    return hk_fail(p->ctx, HK_STATUS_INVALID, "'%s' is no valid safetensors file: %s (near byte %td of its header)",
                   p->path, what, p->at - (const char *)p->out->file.data - 8);
}

static void skip_space(parser *p)
{
    while (p->at < p->end && (*p->at == ' ' || *p->at == '\n' || *p->at == '\t' || *p->at == '\r'))
        p->at++;
}

static bool skip(parser *p, char c)
{
    skip_space(p);
    if (p->at == p->end || *p->at != c)
        return false;
    p->at++;
    return true;
}

/* The character behind a backslash, as UTF-8; false for what is no escape. Surrogates are left out: names that this
 * library writes escape control characters alone. */
static bool unescape(parser *p, char **to)
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    const char *at = p->at < p->end ? memchr(names, *p->at, sizeof names - 1) : NULL;
    unsigned code = 0;
    if (at) {
        *(*to)++ = values[at - names];
        p->at++;
        return true;
    }
    if (p->end - p->at < 5 || *p->at != 'u')
        return false;
    for (int i = 1; i <= 4; i++) {
        char c = p->at[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
        if (digit < 0)
            return false;
        code = code * 16 + (unsigned)digit;
    }
    if (code == 0 || (code >= 0xd800 && code < 0xe000))
        return false;
    p->at += 5;
    if (code < 0x80) {
        *(*to)++ = (char)code;
    } else if (code < 0x800) {
        *(*to)++ = (char)(0xc0 | code >> 6);
        *(*to)++ = (char)(0x80 | (code & 63));
    } else {
        *(*to)++ = (char)(0xe0 | code >> 12);
        *(*to)++ = (char)(0x80 | (code >> 6 & 63));
        *(*to)++ = (char)(0x80 | (code & 63));
    }
    return true;
}

static hk_status string(parser *p, const char **out)
{
    if (!skip(p, '"'))
        return bad(p, "a string was expected");
    const char *from = p->at, *end = from;
    while (end < p->end && *end != '"')
        end += *end == '\\' && end + 1 < p->end ? 2 : 1;
    char *s = hk_arena_alloc(p->out->arena, (size_t)(HK_MIN(end, p->end) - from) + 1), *to = s; /* never longer */
    if (!s)
        return hk_out_of_memory(p->ctx, "a checkpoint");
    while (p->at < p->end && *p->at != '"' && (unsigned char)*p->at >= ' ') {
        if (*p->at != '\\') {
            *to++ = *p->at++;
            continue;
        }
        p->at++;
        if (!unescape(p, &to))
            return bad(p, "a string has an escape that is none");
    }
    if (p->at == p->end || *p->at != '"')
        return bad(p, "a string does not end");
    *to = '\0';
    p->at++;
    *out = s;
    return HK_OK;
}

static hk_status number(parser *p, uint64_t *out)
{
    skip_space(p);
    if (p->at == p->end || *p->at < '0' || *p->at > '9')
        return bad(p, "a number was expected");
    uint64_t n = 0;
    for (; p->at < p->end && *p->at >= '0' && *p->at <= '9'; p->at++) {
        if (n > (UINT64_MAX - 9) / 10)
            return bad(p, "a number is too large");
        n = n * 10 + (uint64_t)(*p->at - '0');
    }
    *out = n;
    return HK_OK;
}

static hk_status numbers(parser *p, uint64_t *list, size_t most, size_t *count)
{
    if (!skip(p, '['))
        return bad(p, "'[' was expected");
    *count = 0;
    if (skip(p, ']'))
        return HK_OK;
    do {
        if (*count == most)
            return bad(p, "a list is too long");
        HK_TRY(number(p, &list[(*count)++]));
    } while (skip(p, ','));
    return skip(p, ']') ? HK_OK : bad(p, "']' was expected");
}

static hk_status metadata(parser *p)
{
    hk_safetensors *out = p->out;
    if (!skip(p, '{'))
        return bad(p, "'{' was expected");
    if (skip(p, '}'))
        return HK_OK;
    do {
        if (out->metadata_count == p->metadata_capacity &&
            !hk_arena_grow(out->arena, (void **)&out->metadata, out->metadata_count, &p->metadata_capacity,
                           sizeof *out->metadata))
            return hk_out_of_memory(p->ctx, "a checkpoint");
        hk_metadata *m = &out->metadata[out->metadata_count++];
        HK_TRY(string(p, &m->key));
        if (!skip(p, ':'))
            return bad(p, "':' was expected");
        HK_TRY(string(p, &m->value));
    } while (skip(p, ','));
    return skip(p, '}') ? HK_OK : bad(p, "'}' was expected");
}

static hk_status check_tensor(parser *p, hk_tensor *t, const uint64_t *shape, size_t rank, const uint64_t range[2])
{
    if (rank > HK_MAX_RANK)
        return bad(p, "a tensor has too many dimensions");
    t->rank = (int32_t)rank;
    for (size_t i = 0; i < rank; i++) {
        if (shape[i] > INT32_MAX)
            return bad(p, "a dimension is too large");
        t->shape[i] = (int64_t)shape[i];
    }
    int64_t count = hk_tensor_count(t);
    if (range[0] != p->next_offset || range[1] < range[0] || range[1] > p->data_bytes)
        return bad(p, "tensors overlap, leave holes or reach past the end of the file: it may be truncated");
    if (count < 0 || (uint64_t)count * hk_dtype_bytes(t->dtype) != range[1] - range[0])
        return bad(p, "a tensor's length does not fit its shape");
    t->data = (void *)(uintptr_t)(p->end + range[0]);
    p->next_offset = range[1];
    return HK_OK;
}

static hk_status tensor(parser *p, hk_safetensor *s)
{
    uint64_t shape[HK_MAX_RANK + 1], range[2] = {0};
    size_t rank = 0, ends = 0;
    if (!skip(p, '{'))
        return bad(p, "'{' was expected");
    do {
        const char *key = NULL, *name = NULL;
        HK_TRY(string(p, &key));
        if (!skip(p, ':'))
            return bad(p, "':' was expected");
        if (!strcmp(key, "dtype")) {
            HK_TRY(string(p, &name));
            for (size_t i = 0; i < HK_COUNT(dtypes); i++)
                if (!strcmp(dtypes[i].name, name))
                    s->tensor.dtype = dtypes[i].dtype;
        } else if (!strcmp(key, "shape")) {
            HK_TRY(numbers(p, shape, HK_COUNT(shape), &rank));
        } else if (!strcmp(key, "data_offsets")) {
            HK_TRY(numbers(p, range, 2, &ends));
        } else {
            return bad(p, "an unknown key");
        }
    } while (skip(p, ','));
    if (!skip(p, '}') || s->tensor.dtype == HK_DTYPE_NONE || ends != 2)
        return bad(p, "a tensor lacks its type or range");
    return check_tensor(p, &s->tensor, shape, rank, range);
}

static hk_status header(parser *p)
{
    hk_safetensors *out = p->out;
    if (!skip(p, '{'))
        return bad(p, "'{' was expected");
    if (skip(p, '}'))
        return HK_OK;
    do {
        const char *name = NULL;
        HK_TRY(string(p, &name));
        if (!skip(p, ':'))
            return bad(p, "':' was expected");
        if (!strcmp(name, "__metadata__")) {
            HK_TRY(metadata(p));
            continue;
        }
        if (out->count >= MAX_TENSORS || hk_safetensors_find(out, name))
            return bad(p, "a name stands twice, or there are too many tensors");
        if (out->count == p->capacity &&
            !hk_arena_grow(out->arena, (void **)&out->tensors, out->count, &p->capacity, sizeof *out->tensors))
            return hk_out_of_memory(p->ctx, "a checkpoint");
        hk_safetensor *s = &out->tensors[out->count];
        *s = (hk_safetensor){.name = name};
        HK_TRY(tensor(p, s));
        out->count++;
    } while (skip(p, ','));
    if (!skip(p, '}'))
        return bad(p, "'}' was expected");
    return p->next_offset == p->data_bytes ? HK_OK : bad(p, "the file is longer than its tensors");
}

hk_status hk_safetensors_read(hk_context *ctx, const char *path, hk_safetensors *out)
{
    hk_safetensors s = {0};
    HK_TRY(hk_file_open(ctx, path, 0, &s.file));
    parser p = {.ctx = ctx, .out = &s, .path = path, .at = (const char *)s.file.data + HK_MIN(s.file.bytes, 8u)};
    uint64_t bytes = 0;
    if (s.file.bytes >= 8)
        memcpy(&bytes, s.file.data, sizeof bytes);
    hk_status st = HK_OK;
    if (s.file.bytes < 8 || bytes > MAX_HEADER || bytes > s.file.bytes - 8)
        st = bad(&p, "its header is longer than the file");
    else if (!(s.arena = hk_arena_create(ctx)))
        st = hk_out_of_memory(ctx, "a checkpoint");
    if (st == HK_OK) {
        p.end = p.at + bytes;
        p.data_bytes = s.file.bytes - 8 - bytes;
        st = header(&p);
    }
    if (st == HK_OK)
        *out = s;
    else
        hk_safetensors_finish(&s);
    return st;
}

void hk_safetensors_finish(hk_safetensors *s)
{
    hk_arena_destroy(&s->arena);
    hk_file_close(&s->file);
    *s = (hk_safetensors){0};
}

const hk_tensor *hk_safetensors_find(const hk_safetensors *s, const char *name)
{
    for (size_t i = 0; i < s->count; i++)
        if (!strcmp(s->tensors[i].name, name))
            return &s->tensors[i].tensor;
    return NULL;
}

const char *hk_safetensors_metadata(const hk_safetensors *s, const char *key)
{
    for (size_t i = 0; i < s->metadata_count; i++)
        if (!strcmp(s->metadata[i].key, key))
            return s->metadata[i].value;
    return NULL;
}
