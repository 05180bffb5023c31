/*
 * A model of any size, made and run: what loading it takes on the heap, and whether weights spread over several
 * allocations. Each weight is a 4096 x 4096 identity, so the output is the input, and a file of gigabytes has little to
 * write: the rest is holes.
 *
 *     large_model FOLDER MIB [embedded]
 *
 * Writes FOLDER/model.onnx and FOLDER/weights.bin (or, embedded, the one file, with weights at odd addresses, below
 * 2 GiB) unless they are there, runs the model, and prints in bytes how RssAnon grew from after the device was opened
 * to the end of the first run. Mesa's software device keeps its memory there too: subtract device_bytes.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hillock/hillock.h"

enum { SIDE = 4096, MIB = 1 << 20 };
#define WEIGHT_BYTES ((uint64_t)SIDE * SIDE * sizeof(float))

/* ---- ONNX bytes (protobuf.dev/programming-guides/encoding) */

typedef struct bytes {
    unsigned char *data;
    size_t count, capacity;
} bytes;

static void put(bytes *b, const void *data, size_t count)
{
    if (b->count + count > b->capacity) {
        b->capacity = (b->count + count) * 2;
        b->data = realloc(b->data, b->capacity);
        if (!b->data)
            abort();
    }
    memcpy(b->data + b->count, data, count);
    b->count += count;
}

static void put_varint(bytes *b, uint64_t x)
{
    do {
        unsigned char c = (unsigned char)(x & 127);
        x >>= 7;
        c |= x ? 128 : 0;
        put(b, &c, 1);
    } while (x);
}

static void put_int(bytes *b, unsigned field, uint64_t x)
{
    put_varint(b, field << 3);
    put_varint(b, x);
}

/* A field of count bytes, which are to follow. */
static void put_length(bytes *b, unsigned field, uint64_t count)
{
    put_varint(b, field << 3 | 2);
    put_varint(b, count);
}

static void put_text(bytes *b, unsigned field, const char *text)
{
    put_length(b, field, strlen(text));
    put(b, text, strlen(text));
}

static void put_message(bytes *b, unsigned field, bytes *inner)
{
    put_length(b, field, inner->count);
    if (inner->count)
        put(b, inner->data, inner->count);
    inner->count = 0;
}

static void put_value(bytes *graph, unsigned field, const char *name)
{
    bytes dim = {0}, shape = {0}, tensor = {0}, type = {0}, value = {0};
    for (int i = 0; i < 2; i++) {
        put_int(&dim, 1, i ? SIDE : 1);
        put_message(&shape, 1, &dim);
    }
    put_int(&tensor, 1, HK_FLOAT32);
    put_message(&tensor, 2, &shape);
    put_message(&type, 1, &tensor);
    put_text(&value, 1, name);
    put_message(&value, 2, &type);
    put_message(graph, field, &value);
    bytes *all[] = {&dim, &shape, &tensor, &type, &value};
    for (size_t i = 0; i < 5; i++)
        free(all[i]->data);
}

static void put_nodes(bytes *graph, unsigned count)
{
    bytes node = {0};
    char text[32];
    for (unsigned i = 0; i < count; i++) {
        snprintf(text, sizeof text, i ? "h%u" : "x", i);
        put_text(&node, 1, text);
        snprintf(text, sizeof text, "w%u", i);
        put_text(&node, 1, text);
        snprintf(text, sizeof text, i + 1 < count ? "h%u" : "y", i + 1);
        put_text(&node, 2, text);
        put_text(&node, 4, "MatMul");
        put_message(graph, 1, &node);
    }
    free(node.data);
}

/* All of a TensorProto but its contents. */
static void describe_weight(bytes *tensor, unsigned i)
{
    char text[32];
    put_int(tensor, 1, SIDE);
    put_int(tensor, 1, SIDE);
    put_int(tensor, 2, HK_FLOAT32);
    snprintf(text, sizeof text, "w%u", i);
    put_text(tensor, 8, text);
}

static void put_external_weight(bytes *graph, unsigned i)
{
    bytes tensor = {0}, entry = {0};
    const char *keys[] = {"location", "offset", "length"};
    char values[3][32] = {"weights.bin"};
    snprintf(values[1], sizeof values[1], "%llu", (unsigned long long)(i * WEIGHT_BYTES));
    snprintf(values[2], sizeof values[2], "%llu", (unsigned long long)WEIGHT_BYTES);
    describe_weight(&tensor, i);
    for (int k = 0; k < 3; k++) {
        put_text(&entry, 1, keys[k]);
        put_text(&entry, 2, values[k]);
        put_message(&tensor, 13, &entry);
    }
    put_int(&tensor, 14, 1);
    put_message(graph, 5, &tensor);
    free(tensor.data);
    free(entry.data);
}

/* ---- files */

static int failed(const char *what)
{
    perror(what);
    return 74;
}

/* An identity at the file's place; what is zero is not written. */
static int write_identity(FILE *f, uint64_t at)
{
    const float one = 1;
    for (uint64_t i = 0; i < SIDE; i++)
        if (fseeko(f, (off_t)(at + i * (SIDE + 1) * sizeof one), SEEK_SET) != 0 || fwrite(&one, sizeof one, 1, f) != 1)
            return -1;
    return 0;
}

/* ModelProto: ir_version, opset_import; the graph of graph_bytes is to follow. */
static void begin_model(bytes *b, uint64_t graph_bytes)
{
    bytes opset = {0};
    put_int(&opset, 2, 17);
    put_int(b, 1, 8);
    put_message(b, 8, &opset);
    put_length(b, 7, graph_bytes);
    free(opset.data);
}

static int write_external(const char *model, const char *weights, unsigned count)
{
    bytes graph = {0}, all = {0};
    put_nodes(&graph, count);
    for (unsigned i = 0; i < count; i++)
        put_external_weight(&graph, i);
    put_value(&graph, 11, "x");
    put_value(&graph, 12, "y");
    begin_model(&all, graph.count);
    put(&all, graph.data, graph.count);
    FILE *f = fopen(model, "wb"), *w = fopen(weights, "wb");
    int st = !f || !w || fwrite(all.data, 1, all.count, f) != all.count ? failed(model) : 0;
    for (unsigned i = 0; i < count && st == 0; i++)
        st = write_identity(w, i * WEIGHT_BYTES) != 0 ? failed(weights) : 0;
    if ((f && fclose(f) != 0) || (w && fclose(w) != 0))
        st = failed(model);
    free(graph.data);
    free(all.data);
    return st;
}

static int write_embedded(const char *model, unsigned count)
{
    bytes graph = {0}, all = {0}, *heads = calloc(count, sizeof *heads);
    uint64_t tail = 0;
    put_nodes(&graph, count);
    put_value(&graph, 11, "x");
    put_value(&graph, 12, "y");
    for (unsigned i = 0; heads && i < count; i++) { /* a field of the graph up to where the contents begin */
        bytes tensor = {0};
        describe_weight(&tensor, i);
        put_length(&tensor, 9, WEIGHT_BYTES);
        put_length(&heads[i], 5, tensor.count + WEIGHT_BYTES);
        put(&heads[i], tensor.data, tensor.count);
        tail += heads[i].count + WEIGHT_BYTES;
        free(tensor.data);
    }
    begin_model(&all, graph.count + tail);
    put(&all, graph.data, graph.count);
    FILE *f = fopen(model, "wb");
    int st = !heads || !f || fwrite(all.data, 1, all.count, f) != all.count ? failed(model) : 0;
    uint64_t at = all.count;
    for (unsigned i = 0; i < count && st == 0; i++) {
        if (fseeko(f, (off_t)at, SEEK_SET) != 0 || fwrite(heads[i].data, 1, heads[i].count, f) != heads[i].count ||
            write_identity(f, at + heads[i].count) != 0)
            st = failed(model);
        at += heads[i].count + WEIGHT_BYTES;
        free(heads[i].data);
    }
    if (f && fclose(f) != 0)
        st = failed(model);
    free(heads);
    free(graph.data);
    free(all.data);
    return st;
}

/* ---- running */

static long long anonymous_bytes(void)
{
    char line[256];
    long long kib = -1;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f) && sscanf(line, "RssAnon: %lld", &kib) != 1) {
    }
    if (f)
        fclose(f);
    return kib * 1024;
}

static hk_status run(hk_context *ctx, const char *path, uint64_t weight_bytes)
{
    static float x[SIDE], y[SIDE];
    hk_device *dev = NULL;
    hk_model *m = NULL;
    hk_session *s = NULL;
    hk_tensor in = {.data = x, .dtype = HK_FLOAT32, .rank = 2, .shape = {1, SIDE}}, out = in;
    hk_device_stats stats = {0};
    out.data = y;
    for (int i = 0; i < SIDE; i++)
        x[i] = (float)(i % 1000);
    hk_status st = hk_device_open(ctx, NULL, &dev);
    long long before = anonymous_bytes();
    if (st == HK_OK)
        st = hk_model_load(ctx, path, NULL, &m);
    if (st == HK_OK)
        st = hk_session_create(dev, m, NULL, &s);
    if (st == HK_OK)
        st = hk_session_write(s, "x", &in);
    if (st == HK_OK)
        st = hk_session_run(s);
    if (st == HK_OK)
        st = hk_session_read(s, "y", &out);
    if (st == HK_OK && memcmp(x, y, sizeof x) != 0)
        st = HK_STATUS_MISMATCH;
    if (st == HK_OK) {
        hk_device_get_stats(dev, &stats);
        printf("weight_bytes %llu\nanonymous_growth %lld\ndevice_bytes %llu\npeak_device_bytes %llu\n"
               "largest_allocation %llu\n",
               (unsigned long long)weight_bytes, anonymous_bytes() - before, (unsigned long long)stats.memory_bytes,
               (unsigned long long)stats.peak_memory_bytes,
               (unsigned long long)hk_device_get_info(dev)->max_allocation_bytes);
    } else {
        fprintf(stderr, "large_model: %s\n",
                st == HK_STATUS_MISMATCH ? "the output is not the input" : hk_context_error(ctx));
    }
    hk_session_destroy(&s);
    hk_model_destroy(&m);
    hk_device_close(&dev);
    return st;
}

int main(int argc, char **argv)
{
    char model[4096], weights[4096];
    hk_context *ctx = NULL;
    unsigned long long mib = argc >= 3 ? strtoull(argv[2], NULL, 10) : 0;
    int embedded = argc == 4 && !strcmp(argv[3], "embedded");
    if (mib < WEIGHT_BYTES / MIB || mib > 1 << 20 || (argc == 4 && !embedded) || argc > 4) {
        fprintf(stderr, "usage: large_model FOLDER MIB [embedded]; at least 64 MIB\n");
        return 64;
    }
    unsigned count = (unsigned)(mib * MIB / WEIGHT_BYTES);
    mkdir(argv[1], 0777);
    snprintf(model, sizeof model, "%s/model.onnx", argv[1]);
    snprintf(weights, sizeof weights, "%s/weights.bin", argv[1]);
    int code = access(model, R_OK) == 0 ? 0
               : embedded               ? write_embedded(model, count)
                                        : write_external(model, weights, count);
    if (code == 0 && hk_context_create(NULL, &ctx) != HK_OK)
        code = 71;
    if (code == 0)
        code = hk_status_exit_code(run(ctx, model, count * WEIGHT_BYTES));
    hk_context_destroy(&ctx);
    return code;
}
