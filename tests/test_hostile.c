/*
 * Hostile model files, by the classes of attack known against ONNX loaders: each ends with a status and a sentence, in
 * bounded time and memory. And every allocation of an import fails once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "importer/import.h"
#include "tests/support/hostile.h"

enum { MIB = 1 << 20 };

#define DATA HK_TEST_DATA "/"

/* ---- fixture */

typedef struct bench {
    onnx_bytes o;
    hk_status st;
    size_t nodes, problems;
    char error[600];
} bench;

static int start(void **state)
{
    *state = calloc(1, sizeof(bench));
    return *state == NULL ? -1 : 0;
}

static int stop(void **state)
{
    bench *b = *state;
    ob_free(&b->o);
    free(b);
    return 0;
}

static void restart(bench *b)
{
    b->o.count = 0;
    b->o.depth = 0;
}

/* Loads bytes or a file and checks what holds for every file. */
static void import(bench *b, const char *path, const void *data, size_t bytes)
{
    hostile_load h;
    char text[160];
    hostile_open(&h, path, data, bytes);
    const char *broken = hostile_bounds(&h, bytes, text);
    if (broken != NULL)
        fail_msg("%s", broken);
    b->st = h.status;
    b->nodes = h.nodes;
    b->problems = h.problems;
    memcpy(b->error, h.error, sizeof b->error);
}

static void import_written(bench *b)
{
    while (b->o.depth > 0)
        ob_close(&b->o);
    import(b, NULL, b->o.data, b->o.count);
}

static void assert_fails(bench *b, hk_status expected, const char *says)
{
    if (b->st != expected || strstr(b->error, says) == NULL)
        fail_msg("%d '%s', expected %d with '%s'", (int)b->st, b->st == HK_OK ? "" : b->error, (int)expected, says);
}

static uint8_t *read_file(const char *path, size_t *bytes)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    uint8_t *data = malloc(4 * MIB);
    assert_non_null(data);
    *bytes = fread(data, 1, 4 * MIB, f);
    fclose(f);
    return data;
}

/* ---- damaged files */

static const char *const samples[] = {DATA "models/mlp/model.onnx", DATA "models/loop/model.onnx"};

static void test_truncated(void **state)
{
    bench *b = *state;
    for (size_t s = 0; s < HK_COUNT(samples); s++) {
        size_t bytes;
        uint8_t *data = read_file(samples[s], &bytes);
        size_t refused = 0;
        for (size_t cut = 0; cut < bytes; cut++) {
            import(b, NULL, data, cut);
            assert_true(b->st == HK_OK || b->st == HK_STATUS_INVALID);
            refused += b->st != HK_OK;
        }
        assert_true(refused + 64 > bytes); /* only cuts between fields of the model itself leave a model */
        free(data);
    }
}

static void test_damaged(void **state)
{
    bench *b = *state;
    for (size_t s = 0; s < HK_COUNT(samples); s++) {
        size_t bytes;
        uint8_t *data = read_file(samples[s], &bytes);
        for (size_t i = 0; i < bytes; i++) {
            const uint8_t old = data[i], other[] = {(uint8_t)(old ^ 1), (uint8_t)(old ^ 0x80), 0xff, 0};
            for (size_t k = 0; k < HK_COUNT(other); k++) {
                data[i] = other[k];
                import(b, NULL, data, bytes);
            }
            data[i] = old;
        }
        free(data);
    }
}

/* Pieces of one model copied over others, for damage that keeps lengths right now and then. */
static void test_shuffled(void **state)
{
    bench *b = *state;
    uint64_t random = 0x9e3779b97f4a7c15u;
    size_t bytes;
    uint8_t *data = read_file(DATA "models/loop/model.onnx", &bytes), *copy = malloc(bytes);
    assert_non_null(copy);
    for (int round = 0; round < 3000; round++) {
        memcpy(copy, data, bytes);
        for (int k = 0; k < 4; k++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            size_t from = (size_t)(random >> 40) % bytes, to = (size_t)(random >> 20) % bytes,
                   n = (size_t)(random >> 56) % 24;
            memmove(copy + to, data + from, HK_MIN(n, bytes - HK_MAX(from, to)));
        }
        import(b, NULL, copy, bytes);
    }
    free(copy);
    free(data);
}

static void test_wire(void **state)
{
    bench *b = *state;
    const struct {
        const char *bytes;
        size_t count;
        const char *says;
    } cases[] = {
        {"\x3b\x3c", 2, "malformed"},                                          /* a group */
        {"\x00\x00", 2, "malformed"},                                          /* field 0 */
        {"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12, "malformed"}, /* a number of 11 bytes */
        {"\xff\xff\xff\xff\xff\x01\x00", 7, "malformed"},                      /* a tag above 32 bits */
        {"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, "past the end"},  /* a length of 2^64 - 1 */
        {"\x3a\x80\x80\x80\x80\x10", 6, "past the end"},                       /* of 2^32 */
        {"\x3a\x05\x0a\x03", 4, "past the end"},
        {"\x38\x01", 2, "wire type"}, /* the graph as a number */
        {"\x0a\x01\x08", 3, "wire type"},
        {"\x12\x03"
         "a\0b",
         5, "no text"}, /* producer_name */
        {"\x12\x02\xc3\x28", 4, "no text"},
        {"\x12\x03\xed\xa0\x80", 5, "no text"}, /* a surrogate */
        {"\x12\x02\xc0\xaf", 4, "no text"},     /* an overlong form */
        {"\x12\x04\xf4\x90\x80\x80", 6, "no text"},
        {"\x12\x01"
         "a\x12\x01"
         "b",
         6, "there again"},
        {"\x3a\x00\x3a\x00", 4, "there again"},
        {"", 0, "no graph"},
        {"\x08\x08", 2, "no graph"},
    };
    for (size_t i = 0; i < HK_COUNT(cases); i++) {
        import(b, NULL, cases[i].bytes, cases[i].count);
        assert_fails(b, HK_STATUS_INVALID, cases[i].says);
    }
}

/* ---- bombs */

/* Files of n messages inside each other, which overflow protobuf-c's stack. */
static void test_nesting(void **state)
{
    bench *b = *state;
    ob_small(&b->o);
    ob_open(&b->o, 11);
    ob_text(&b->o, 1, "s");
    for (int i = 0; i < 2250; i++) { /* TypeProto.sequence_type.elem_type */
        ob_open(&b->o, i == 0 ? 2 : 1);
        ob_open(&b->o, 4);
    }
    import_written(b);
    assert_fails(b, HK_STATUS_UNSUPPORTED, "nested more than 64 deep");

    restart(b);
    ob_small(&b->o);
    for (int i = 0; i < 2000; i++) { /* a node's attribute's graph's node */
        ob_open(&b->o, 1);
        ob_open(&b->o, 5);
        ob_open(&b->o, 6);
    }
    import_written(b);
    assert_fails(b, HK_STATUS_UNSUPPORTED, "nested more than 64 deep");

    /* About as deep as is allowed: 19 bodies inside each other, 400 nodes at each depth, in time that does not double
     * with each. */
    restart(b);
    ob_small(&b->o);
    ob_value(&b->o, 11, "c", HK_BOOL, "");
    for (int i = 0; i < 19; i++) {
        char name[16];
        for (int k = 0; k < 400; k++) {
            snprintf(name, sizeof name, "r%d_%d", i, k);
            ob_node(&b->o, 1, "Relu", "x", name);
        }
        snprintf(name, sizeof name, "y%d", i);
        ob_node_open(&b->o, 1, "If", "c", name);
        for (int branch = 0; branch < 2; branch++) {
            ob_attr_open(&b->o, branch == 0 ? "else_branch" : "then_branch", 5);
            ob_open(&b->o, 6);
            ob_node(&b->o, 1, "Relu", "x", "out");
            ob_output(&b->o, "out", "2,3");
            if (branch == 0) {
                ob_close(&b->o);
                ob_close(&b->o);
            }
        }
    }
    import_written(b);
    if (b->st != HK_OK)
        fail_msg("%s", b->error);
}

/* Loops inside each other: inference that looked at each body twice would look at the innermost 2^17 times. */
static void test_nested_loops(void **state)
{
    bench *b = *state;
    ob_small(&b->o);
    ob_value(&b->o, 11, "n", HK_INT64, "");
    ob_value(&b->o, 11, "c", HK_BOOL, "");
    for (int i = 0; i < 17; i++) {
        ob_node_open(&b->o, 1, "Loop", i == 0 ? "n,c,x" : "n,c,v", "out");
        ob_attr_open(&b->o, "body", 5);
        ob_open(&b->o, 6);
        ob_value(&b->o, 11, "i", HK_INT64, "");
        ob_value(&b->o, 11, "in", HK_BOOL, "");
        ob_value(&b->o, 11, "v", HK_FLOAT32, "2,a");
        ob_value(&b->o, 12, "go", HK_BOOL, "");
        ob_output(&b->o, i == 16 ? "r" : "out", "2,a");
        ob_node(&b->o, 1, "Identity", "in", "go");
        if (i == 16)
            ob_node(&b->o, 1, "Relu", "v", "r");
    }
    import_written(b);
    if (b->st != HK_OK || b->problems != 0)
        fail_msg("%s", b->error);
}

/* 1 MiB of the smallest thing of each kind: 140 times as much after parsing. */
static void test_amplification(void **state)
{
    bench *b = *state;
    const struct {
        uint32_t outer, number; /* field of the model or, inside outer, of the graph */
    } kinds[] = {{7, 1}, {7, 5},  {7, 11}, {7, 12}, {7, 13}, {7, 15},
                 {0, 8}, {0, 14}, {0, 20}, {0, 25}, {0, 99}, {7, 99}};
    for (size_t i = 0; i < HK_COUNT(kinds); i++) {
        restart(b);
        if (kinds[i].outer == 0)
            ob_small(&b->o);
        while (b->o.depth > 0)
            ob_close(&b->o);
        if (kinds[i].outer != 0)
            ob_open(&b->o, kinds[i].outer);
        while (b->o.count < MIB)
            ob_blob(&b->o, kinds[i].number, "", 0);
        import_written(b);
    }
    /* Attributes of one node, and dimensions, strings and integers of one attribute. */
    for (int kind = 0; kind < 4; kind++) {
        restart(b);
        ob_small(&b->o);
        ob_node_open(&b->o, 1, "Relu", "x", "z");
        if (kind != 0)
            ob_attr_open(&b->o, "a", kind == 1 ? 8 : kind == 2 ? 7 : 4);
        if (kind == 3)
            ob_open(&b->o, 5);
        while (b->o.count < MIB) {
            if (kind < 2)
                ob_blob(&b->o, kind == 0 ? 5 : 9, "", 0);
            else
                ob_int(&b->o, kind == 2 ? 8 : 1, 1);
        }
        import_written(b);
    }
}

/* A field that may be there once, 256,000 times: protobuf-c merges for 20 seconds. */
static void test_merging(void **state)
{
    bench *b = *state;
    while (b->o.count < MIB) {
        ob_open(&b->o, 7);
        ob_text(&b->o, 2, "g");
        ob_close(&b->o);
    }
    import_written(b);
    assert_fails(b, HK_STATUS_INVALID, "there again");
}

/* Nodes in the worst order: each before the one it reads from. */
static void test_reversed(void **state)
{
    bench *b = *state;
    enum { NODES = 40000 };
    ob_small(&b->o);
    for (int i = NODES; i > 0; i--) {
        char in[16], out[16];
        snprintf(in, sizeof in, i == 1 ? "x" : "n%d", i - 1);
        snprintf(out, sizeof out, "n%d", i);
        ob_node(&b->o, 1, "Relu", in, out);
    }
    assert_true(b->o.count < MIB);
    import_written(b);
    assert_int_equal(b->st, HK_OK);
    assert_int_equal(b->nodes, NODES + 1);
}

/* As many nodes and problems as fit into 1 MiB; names that aim at the search for free ones. */
static void test_many(void **state)
{
    bench *b = *state;
    char name[24];
    ob_small(&b->o);
    for (int i = 0; b->o.count < MIB - 100; i++) {
        snprintf(name, sizeof name, "%x", i);
        ob_node(&b->o, 1, "F", "x", name);
    }
    import_written(b);
    assert_true(b->st == HK_OK ? b->problems > 50000 : b->st == HK_STATUS_UNSUPPORTED);

    /* One value, then 30,000 names it would be given if its own were taken, and calls that take it. */
    restart(b);
    ob_open(&b->o, 25);
    ob_text(&b->o, 1, "F");
    ob_text(&b->o, 10, "d");
    ob_text(&b->o, 4, "a");
    ob_node(&b->o, 7, "Relu", "a", "v");
    ob_close(&b->o);
    ob_opset(&b->o, 8, "d", 1);
    ob_small(&b->o);
    ob_node(&b->o, 1, "Relu", "x", "F/v");
    for (int i = 0; i < 20000; i++) {
        snprintf(name, sizeof name, "F/v_%d", 20000 + i);
        ob_node(&b->o, 1, "Relu", "x", name);
    }
    for (int i = 0; i < 15000; i++) {
        ob_node_open(&b->o, 1, "F", "x", "");
        ob_text(&b->o, 7, "d");
        ob_close(&b->o);
    }
    assert_true(b->o.count < MIB);
    import_written(b);
    assert_int_equal(b->st, HK_OK);
}

/* A long list or name, repeated by calls of a function that holds it. */
static void test_repeated_parts(void **state)
{
    bench *b = *state;
    for (int kind = 0; kind < 3; kind++) {
        restart(b);
        char *name = calloc(1, 300001);
        assert_non_null(name);
        memset(name, 'n', 300000);
        ob_open(&b->o, 25);
        ob_text(&b->o, 1, "F");
        ob_text(&b->o, 10, "d");
        ob_text(&b->o, 4, "a");
        if (kind == 0) { /* a list */
            ob_node_open(&b->o, 7, "Transpose", "a", "v");
            ob_attr_open(&b->o, "perm", 7);
            for (int i = 0; i < 100000; i++)
                ob_int(&b->o, 8, 1);
            ob_close(&b->o);
            ob_close(&b->o);
        } else { /* a name of a value, of a node */
            ob_open(&b->o, 7);
            ob_text(&b->o, 1, "a");
            ob_text(&b->o, 2, kind == 1 ? name : "v");
            if (kind == 2)
                ob_text(&b->o, 3, name);
            ob_text(&b->o, 4, "Frobnicate");
            ob_close(&b->o);
        }
        ob_close(&b->o);
        free(name);
        ob_opset(&b->o, 8, "d", 1);
        ob_small(&b->o);
        for (int i = 0; i < 20000; i++) {
            ob_node_open(&b->o, 1, "F", "x", "");
            ob_text(&b->o, 7, "d");
            ob_close(&b->o);
        }
        assert_true(b->o.count < MIB);
        import_written(b);
        assert_fails(b, HK_STATUS_UNSUPPORTED, "functions grow too much");
    }
}

/* ---- external data */

typedef struct folder {
    char path[64], model[96], inside[96], outside[96];
} folder;

static void make_folder(folder *f)
{
    char sub[96];
    snprintf(f->path, sizeof f->path, "/tmp/hillock-hostile-XXXXXX");
    assert_non_null(mkdtemp(f->path));
    snprintf(sub, sizeof sub, "%s/m", f->path);
    assert_int_equal(mkdir(sub, 0700), 0);
    snprintf(f->model, sizeof f->model, "%s/m/model.onnx", f->path);
    snprintf(f->inside, sizeof f->inside, "%s/m/w.bin", f->path);
    snprintf(f->outside, sizeof f->outside, "%s/secret", f->path);
}

static void remove_folder(const folder *f)
{
    char path[128];
    const char *names[] = {"m/model.onnx", "m/w.bin", "m/link", "m/hard", "secret", "m/sub/w.bin", "m/sub", "m", ""};
    for (size_t i = 0; i < HK_COUNT(names); i++) {
        snprintf(path, sizeof path, "%s/%s", f->path, names[i]);
        if (unlink(path) != 0)
            rmdir(path);
    }
}

static void write_external(bench *b, const char *location, const char *offset, const char *length)
{
    restart(b);
    ob_small(&b->o);
    ob_value(&b->o, 12, "w", HK_FLOAT32, "2,3");
    ob_tensor_open(&b->o, 5, "w", HK_FLOAT32, "2,3");
    ob_int(&b->o, 14, 1);
    if (location != NULL)
        ob_entry(&b->o, 13, "location", location);
    if (offset != NULL)
        ob_entry(&b->o, 13, "offset", offset);
    if (length != NULL)
        ob_entry(&b->o, 13, "length", length);
}

static void import_file(bench *b, const folder *f)
{
    while (b->o.depth > 0)
        ob_close(&b->o);
    ob_save(&b->o, f->model);
    import(b, f->model, NULL, 0);
}

static void test_external(void **state)
{
    bench *b = *state;
    folder f;
    make_folder(&f);
    onnx_bytes contents = {0};
    for (int i = 0; i < 16; i++)
        ob_raw(&contents, &(float){(float)i}, 4);
    ob_save(&contents, f.inside);
    ob_save(&contents, f.outside);
    char link_path[96], hard[96];
    snprintf(link_path, sizeof link_path, "%s/m/link", f.path);
    snprintf(hard, sizeof hard, "%s/m/hard", f.path);
    assert_int_equal(symlink("../secret", link_path), 0);
    assert_int_equal(link(f.outside, hard), 0);

    const struct {
        const char *location, *offset, *length;
        hk_status st;
        const char *says;
    } cases[] = {
        {"w.bin", NULL, NULL, HK_OK, ""},
        {"./w.bin", "16", "24", HK_OK, ""},
        {"w.bin", "3", "24", HK_OK, ""}, /* not aligned */
        {"w.bin", "40", "24", HK_OK, ""},
        {"../secret", NULL, NULL, HK_STATUS_INVALID, "has a '..'"},
        {"sub/../../secret", NULL, NULL, HK_STATUS_INVALID, "has a '..'"},
        {"/etc/passwd", NULL, NULL, HK_STATUS_INVALID, "is absolute"},
        {"..\\secret", NULL, NULL, HK_STATUS_INVALID, "backslash"},
        {"link", NULL, NULL, HK_STATUS_INVALID, "symbolic link"},
        {"hard", NULL, NULL, HK_STATUS_INVALID, "2 hard links"},
        {".", NULL, NULL, HK_STATUS_NO_INPUT, "a folder"},
        {"missing", NULL, NULL, HK_STATUS_NO_INPUT, "'missing'"},
        {"", NULL, NULL, HK_STATUS_INVALID, "no location"},
        {NULL, NULL, NULL, HK_STATUS_INVALID, "no location"},
        {"w.bin", "-1", NULL, HK_STATUS_INVALID, "offset is '-1'"},
        {"w.bin", "", NULL, HK_STATUS_INVALID, "offset is ''"},
        {"w.bin", " 1", NULL, HK_STATUS_INVALID, "offset is ' 1'"},
        {"w.bin", "0x10", NULL, HK_STATUS_INVALID, "offset is '0x10'"},
        {"w.bin", "41", NULL, HK_STATUS_INVALID, "has 64 bytes, the tensor needs 24 from byte 41"},
        {"w.bin", "18446744073709551615", "24", HK_STATUS_INVALID, "from byte 18446744073709551615"},
        {"w.bin", "18446744073709551616", NULL, HK_STATUS_INVALID, "expected one number"},
        {"w.bin", "0", "23", HK_STATUS_INVALID, "length 23"},
        {"w.bin", "0", "18446744073709551615", HK_STATUS_INVALID, "length 18446744073709551615"},
    };
    for (size_t i = 0; i < HK_COUNT(cases); i++) {
        write_external(b, cases[i].location, cases[i].offset, cases[i].length);
        import_file(b, &f);
        if (cases[i].st != HK_OK)
            assert_fails(b, cases[i].st, cases[i].says);
        else if (b->st != HK_OK)
            fail_msg("%s", b->error);
    }
    /* Keys twice and unknown; raw_data besides; forbidden by option; no folder. */
    write_external(b, "w.bin", "0", NULL);
    ob_entry(&b->o, 13, "offset", "0");
    import_file(b, &f);
    assert_fails(b, HK_STATUS_INVALID, "expected one number");
    write_external(b, "w.bin", NULL, NULL);
    ob_entry(&b->o, 13, "__class__", "x");
    import_file(b, &f);
    assert_fails(b, HK_STATUS_UNSUPPORTED, "'__class__'");
    write_external(b, "w.bin", NULL, NULL);
    import_written(b);
    assert_fails(b, HK_STATUS_UNSUPPORTED, "no folder");
    hk_context *ctx = NULL;
    hk_import_result *r = NULL;
    assert_int_equal(hk_context_create(NULL, &ctx), HK_OK);
    const hk_model_params params = {.size = sizeof params, .no_external_data = true};
    ob_save(&b->o, f.model);
    assert_int_equal(hk_import(ctx, f.model, NULL, 0, &params, &r), HK_STATUS_UNSUPPORTED);
    assert_non_null(strstr(hk_context_error(ctx), "options forbid"));
    hk_context_destroy(&ctx);

    /* The same bytes for a thousand tensors. */
    restart(b);
    ob_small(&b->o);
    for (int i = 0; i < 1000; i++) {
        char name[16];
        snprintf(name, sizeof name, "w%d", i);
        ob_tensor_open(&b->o, 5, name, HK_FLOAT32, "16");
        ob_int(&b->o, 14, 1);
        ob_entry(&b->o, 13, "location", "w.bin");
        ob_close(&b->o);
    }
    import_file(b, &f);
    assert_fails(b, HK_STATUS_UNSUPPORTED, "4 times the bytes");
    ob_free(&contents);
    remove_folder(&f);
}

/* ---- options */

/* A file of holes, larger than protobuf allows. */
static void test_above_2_gib(void **state)
{
    bench *b = *state;
    folder f;
    make_folder(&f);
    FILE *file = fopen(f.model, "wb");
    assert_non_null(file);
    assert_int_equal(ftruncate(fileno(file), (off_t)3 << 30), 0);
    fclose(file);
    import(b, f.model, NULL, 0);
    assert_fails(b, HK_STATUS_UNSUPPORTED, "export the model with external data");
    remove_folder(&f);
}

static void test_limits(void **state)
{
    (void)state;
    hk_context *ctx = NULL;
    hk_import_result *r = NULL;
    assert_int_equal(hk_context_create(NULL, &ctx), HK_OK);
    hk_model_params params = {.size = sizeof params, .max_file_bytes = 1000};
    assert_int_equal(hk_import(ctx, DATA "digits/model.onnx", NULL, 0, &params, &r), HK_STATUS_UNSUPPORTED);
    assert_non_null(strstr(hk_context_error(ctx), "more than the limit of 1000"));
    assert_int_equal(hk_import(ctx, NULL, params.max_file_bytes == 1000 ? "" : NULL, 1001, &params, &r),
                     HK_STATUS_UNSUPPORTED);
    params.size = 3;
    assert_int_equal(hk_import(ctx, DATA "digits/model.onnx", NULL, 0, &params, &r), HK_STATUS_USAGE);
    assert_int_equal(hk_import(ctx, NULL, NULL, 4, NULL, &r), HK_STATUS_USAGE);
    assert_null(r);
    hk_context_destroy(&ctx);
}

/* ---- memory */

static void test_allocations_fail(void **state)
{
    (void)state;
    const char *paths[] = {DATA "digits/model.onnx", DATA "models/loop/model.onnx"};
    for (size_t i = 0; i < HK_COUNT(paths); i++) {
        hk_status st = HK_STATUS_OUT_OF_MEMORY;
        uint64_t k = 0;
        while (st != HK_OK && k < 100000) {
            counted c = {.fail_at = ++k};
            hk_import_result *r = NULL;
            counted_open(&c);
            st = hk_import(c.ctx, paths[i], NULL, 0, NULL, &r);
            if (st != HK_OK) {
                assert_null(r);
                if (st != HK_STATUS_OUT_OF_MEMORY || hk_context_error(c.ctx)[0] == '\0')
                    fail_msg("allocation %llu: %d '%s'", (unsigned long long)k, (int)st, hk_context_error(c.ctx));
            }
            hk_import_destroy(&r);
            assert_true(counted_close(&c));
        }
        assert_int_equal(st, HK_OK);
        assert_true(k > 5);
    }
}

/* An argument is a pattern of test names to run. */
int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_truncated, start, stop),
        cmocka_unit_test_setup_teardown(test_damaged, start, stop),
        cmocka_unit_test_setup_teardown(test_shuffled, start, stop),
        cmocka_unit_test_setup_teardown(test_wire, start, stop),
        cmocka_unit_test_setup_teardown(test_nesting, start, stop),
        cmocka_unit_test_setup_teardown(test_nested_loops, start, stop),
        cmocka_unit_test_setup_teardown(test_amplification, start, stop),
        cmocka_unit_test_setup_teardown(test_merging, start, stop),
        cmocka_unit_test_setup_teardown(test_reversed, start, stop),
        cmocka_unit_test_setup_teardown(test_many, start, stop),
        cmocka_unit_test_setup_teardown(test_repeated_parts, start, stop),
        cmocka_unit_test_setup_teardown(test_external, start, stop),
        cmocka_unit_test_setup_teardown(test_above_2_gib, start, stop),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_allocations_fail),
    };
    return cmocka_run_group_tests_name("hostile files", tests, NULL, NULL);
}
