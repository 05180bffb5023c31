/* See onnx_bytes.h. */
#include "tests/support/onnx_bytes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "importer/wire.h"

/* ---- messages */

static void *must(void *p)
{
    if (p == NULL)
        abort();
    return p;
}

void ob_free(onnx_bytes *b)
{
    free(b->data);
    b->data = NULL;
    b->count = b->capacity = 0;
    b->depth = 0;
}

static void reserve(onnx_bytes *b, size_t count)
{
    if (b->capacity - b->count >= count)
        return;
    b->capacity = b->capacity * 2 + count + 256;
    b->data = must(realloc(b->data, b->capacity));
}

void ob_raw(onnx_bytes *b, const void *bytes, size_t count)
{
    reserve(b, count);
    if (count != 0)
        memcpy(b->data + b->count, bytes, count);
    b->count += count;
}

void ob_varint(onnx_bytes *b, uint64_t x)
{
    reserve(b, HK_VARINT_MAX);
    b->count += hk_wire_put(b->data + b->count, x);
}

static void tag(onnx_bytes *b, uint32_t number, int type)
{
    ob_varint(b, (uint64_t)number << 3 | (unsigned)type);
}

void ob_int(onnx_bytes *b, uint32_t number, int64_t x)
{
    tag(b, number, HK_WIRE_VARINT);
    ob_varint(b, (uint64_t)x);
}

void ob_float(onnx_bytes *b, uint32_t number, float x)
{
    tag(b, number, HK_WIRE_FIXED32);
    ob_raw(b, &x, sizeof x);
}

void ob_blob(onnx_bytes *b, uint32_t number, const void *bytes, size_t count)
{
    tag(b, number, HK_WIRE_BYTES);
    ob_varint(b, count);
    ob_raw(b, bytes, count);
}

void ob_text(onnx_bytes *b, uint32_t number, const char *s)
{
    ob_blob(b, number, s, strlen(s));
}

void ob_open(onnx_bytes *b, uint32_t number)
{
    if (b->depth == OB_DEPTH)
        abort();
    tag(b, number, HK_WIRE_BYTES);
    b->open[b->depth++] = b->count;
}

void ob_close(onnx_bytes *b)
{
    uint8_t length[HK_VARINT_MAX];
    size_t start = b->open[--b->depth], bytes = b->count - start, n = hk_wire_put(length, bytes);
    reserve(b, n);
    memmove(b->data + start + n, b->data + start, bytes);
    memcpy(b->data + start, length, n);
    b->count += n;
}

/* ---- parts of models */

/* Calls for each item of "a,b"; an empty list has none, "a,,b" has an empty one. */
static bool next_item(const char **list, char *item, size_t capacity)
{
    if (**list == '\0')
        return false;
    size_t n = strcspn(*list, ",");
    snprintf(item, capacity, "%.*s", (int)n, *list);
    *list += n + ((*list)[n] == ',');
    return true;
}

void ob_opset(onnx_bytes *b, uint32_t number, const char *domain, int64_t version)
{
    ob_open(b, number);
    ob_text(b, 1, domain);
    ob_int(b, 2, version);
    ob_close(b);
}

void ob_model(onnx_bytes *b, int64_t opset)
{
    ob_int(b, 1, 8);
    ob_opset(b, 8, "", opset);
}

void ob_value(onnx_bytes *b, uint32_t number, const char *name, int64_t elem_type, const char *dims)
{
    char item[64];
    ob_open(b, number);
    ob_text(b, 1, name);
    ob_open(b, 2); /* type */
    ob_open(b, 1); /* tensor_type */
    ob_int(b, 1, elem_type);
    ob_open(b, 2); /* shape */
    while (next_item(&dims, item, sizeof item)) {
        ob_open(b, 1);
        if (item[0] == '-' || (item[0] >= '0' && item[0] <= '9'))
            ob_int(b, 1, strtoll(item, NULL, 10));
        else
            ob_text(b, 2, item);
        ob_close(b);
    }
    ob_close(b);
    ob_close(b);
    ob_close(b);
    ob_close(b);
}

void ob_input(onnx_bytes *b, const char *name, const char *dims)
{
    ob_value(b, 11, name, HK_FLOAT32, dims);
}

void ob_output(onnx_bytes *b, const char *name, const char *dims)
{
    ob_value(b, 12, name, HK_FLOAT32, dims);
}

void ob_node_open(onnx_bytes *b, uint32_t number, const char *type, const char *inputs, const char *outputs)
{
    char item[128];
    ob_open(b, number);
    while (next_item(&inputs, item, sizeof item))
        ob_text(b, 1, item);
    while (next_item(&outputs, item, sizeof item))
        ob_text(b, 2, item);
    ob_text(b, 4, type);
}

void ob_node(onnx_bytes *b, uint32_t number, const char *type, const char *inputs, const char *outputs)
{
    ob_node_open(b, number, type, inputs, outputs);
    ob_close(b);
}

void ob_tensor_open(onnx_bytes *b, uint32_t number, const char *name, int64_t data_type, const char *dims)
{
    char item[32];
    ob_open(b, number);
    while (next_item(&dims, item, sizeof item))
        ob_int(b, 1, strtoll(item, NULL, 10));
    ob_int(b, 2, data_type);
    ob_text(b, 8, name);
}

void ob_floats(onnx_bytes *b, uint32_t number, const char *name, const char *dims, const float *x, size_t count)
{
    ob_tensor_open(b, number, name, HK_FLOAT32, dims);
    ob_blob(b, 9, x, count * sizeof *x);
    ob_close(b);
}

void ob_attr_open(onnx_bytes *b, const char *name, int64_t type)
{
    ob_open(b, 5);
    ob_text(b, 1, name);
    ob_int(b, 20, type);
}

void ob_attr_int(onnx_bytes *b, const char *name, int64_t x)
{
    ob_attr_open(b, name, 2);
    ob_int(b, 3, x);
    ob_close(b);
}

void ob_attr_ref(onnx_bytes *b, const char *name, const char *refers_to, int64_t type)
{
    ob_attr_open(b, name, type);
    ob_text(b, 21, refers_to);
    ob_close(b);
}

void ob_entry(onnx_bytes *b, uint32_t number, const char *key, const char *value)
{
    ob_open(b, number);
    ob_text(b, 1, key);
    ob_text(b, 2, value);
    ob_close(b);
}

void ob_small(onnx_bytes *b)
{
    ob_model(b, 17);
    ob_open(b, 7);
    ob_text(b, 2, "small");
    ob_input(b, "x", "2,3");
    ob_output(b, "y", "2,3");
    ob_node(b, 1, "Relu", "x", "y");
}

void ob_save(const onnx_bytes *b, const char *path)
{
    FILE *f = must(fopen(path, "wb"));
    if (fwrite(b->data, 1, b->count, f) != b->count || fclose(f) != 0)
        abort();
}

/* ---- the counting context: a header before each block holds its size */

enum { HEADER = 16 };

static void *counting_realloc(void *user, void *p, size_t bytes)
{
    counted *c = user;
    size_t *old = p == NULL ? NULL : (size_t *)(void *)((char *)p - HEADER), had = old == NULL ? 0 : *old;
    if (bytes == 0) {
        c->live -= had;
        c->blocks -= old != NULL;
        free(old);
        return NULL;
    }
    if (++c->calls == c->fail_at)
        return NULL;
    size_t *block = realloc(old, bytes + HEADER);
    if (block == NULL)
        return NULL;
    *block = bytes;
    c->live += bytes - had;
    c->blocks += old == NULL;
    c->peak = HK_MAX(c->peak, c->live);
    return (char *)block + HEADER;
}

void counted_open(counted *c)
{
    *c = (counted){.fail_at = c->fail_at};
    hk_context_params params = {.size = sizeof params, .allocator = {.realloc = counting_realloc, .user = c}};
    uint64_t fail_at = c->fail_at;
    c->fail_at = 0; /* not the context itself */
    if (hk_context_create(&params, &c->ctx) != HK_OK)
        abort();
    c->calls = 0;
    c->fail_at = fail_at;
}

bool counted_close(counted *c)
{
    hk_context_destroy(&c->ctx);
    return c->blocks == 0;
}
