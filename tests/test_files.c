/*
 * Files: mappings, opening beneath a folder, atomic writing, .npy and TensorProto files.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/file.h"
#include "importer/import.h"
#include "tests/support/onnx_bytes.h"

/* ---- fixture: a counting context and an empty folder */

typedef struct bench {
    counted memory;
    hk_context *ctx;
    char folder[64];
    char path[4][160];
} bench;

static int start(void **state)
{
    bench *b = calloc(1, sizeof *b);
    if (b == NULL)
        return -1;
    counted_open(&b->memory);
    b->ctx = b->memory.ctx;
    snprintf(b->folder, sizeof b->folder, "/tmp/hillock-files-XXXXXX");
    *state = b;
    return mkdtemp(b->folder) == NULL ? -1 : 0;
}

/* "folder/name"; which of four buffers to use. */
static const char *in_folder(bench *b, int which, const char *name)
{
    snprintf(b->path[which], sizeof b->path[which], "%s/%s", b->folder, name);
    return b->path[which];
}

static size_t entries(const char *folder)
{
    size_t count = 0;
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        count += e->d_name[0] != '.';
    closedir(d);
    return count;
}

static void remove_entries(const char *folder)
{
    DIR *d = opendir(folder);
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        char path[400];
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        if (unlink(path) != 0 && (errno == EISDIR || errno == EPERM)) {
            remove_entries(path);
            rmdir(path);
        }
    }
    if (d != NULL)
        closedir(d);
}

static int stop(void **state)
{
    bench *b = *state;
    remove_entries(b->folder);
    rmdir(b->folder);
    bool clean = counted_close(&b->memory);
    free(b);
    return clean ? 0 : -1;
}

static void assert_fails(bench *b, hk_status st, hk_status expected, const char *says)
{
    assert_int_equal(st, expected);
    if (strstr(hk_context_error(b->ctx), says) == NULL)
        fail_msg("'%s' does not say '%s'", hk_context_error(b->ctx), says);
}

static void write_file(const char *path, const void *bytes, size_t count)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, count, f), count);
    assert_int_equal(fclose(f), 0);
}

/* ---- reading */

static void test_open(void **state)
{
    bench *b = *state;
    hk_file f = {0};
    const char *path = in_folder(b, 0, "file");
    assert_fails(b, hk_file_open(b->ctx, path, 0, &f), HK_STATUS_NO_INPUT, "No such file");
    assert_fails(b, hk_file_open(b->ctx, b->folder, 0, &f), HK_STATUS_NO_INPUT, "a folder");

    write_file(path, "hello", 5);
    assert_int_equal(hk_file_open(b->ctx, path, 5, &f), HK_OK);
    assert_int_equal(f.bytes, 5);
    assert_memory_equal(f.data, "hello", 5);
    hk_file_close(&f);
    assert_null(f.data);
    assert_fails(b, hk_file_open(b->ctx, path, 4, &f), HK_STATUS_UNSUPPORTED, "more than the limit of 4");

    write_file(path, "", 0);
    assert_int_equal(hk_file_open(b->ctx, path, 0, &f), HK_OK);
    assert_int_equal(f.bytes, 0);
    assert_non_null(f.data);
    hk_file_close(&f);

    /* Nobody writes to the pipe: opening it must not wait. */
    const char *pipe_path = in_folder(b, 1, "pipe");
    assert_int_equal(mkfifo(pipe_path, 0600), 0);
    alarm(20);
    assert_fails(b, hk_file_open(b->ctx, pipe_path, 0, &f), HK_STATUS_NO_INPUT, "a device, pipe or socket");
    alarm(0);
}

static void test_open_beneath(void **state)
{
    bench *b = *state;
    const char *inner = in_folder(b, 0, "model");
    assert_int_equal(mkdir(inner, 0700), 0);
    write_file(in_folder(b, 1, "secret"), "s", 1);
    write_file(in_folder(b, 1, "model/weights"), "w", 1);
    assert_int_equal(mkdir(in_folder(b, 1, "model/deep"), 0700), 0);
    write_file(in_folder(b, 1, "model/deep/weights"), "d", 1);
    assert_int_equal(symlink("weights", in_folder(b, 1, "model/link")), 0);
    assert_int_equal(symlink("../secret", in_folder(b, 1, "model/out")), 0);
    assert_int_equal(symlink("deep", in_folder(b, 1, "model/deeplink")), 0);
    char long_name[300];
    memset(long_name, 'a', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';

    const struct {
        const char *path;
        int error; /* 0: opens */
    } cases[] = {
        {"weights", 0},
        {"./weights", 0},
        {"deep/weights", 0},
        {"deep//weights", 0},
        {"deep/./weights", 0},
        {"../secret", EXDEV},
        {"deep/../../secret", EXDEV},
        {"link", ELOOP},
        {"out", ELOOP},
        {"deeplink/weights", ELOOP},
        {"missing", ENOENT},
        {"missing/weights", ENOENT},
        {"weights/x", ENOTDIR},
        {"/etc/passwd", EXDEV},
        {long_name, ENAMETOOLONG},
    };
    int folder = open(inner, O_PATH | O_DIRECTORY | O_CLOEXEC);
    assert_true(folder >= 0);
    for (int stepwise = 0; stepwise < 2; stepwise++)
        for (size_t i = 0; i < HK_COUNT(cases); i++) {
            errno = 0;
            int descriptor = hk_file_open_beneath(folder, cases[i].path, stepwise != 0);
            if ((descriptor >= 0) != (cases[i].error == 0) || (descriptor < 0 && errno != cases[i].error))
                fail_msg("'%s' (stepwise %d): %d, %s, expected %s", cases[i].path, stepwise, descriptor,
                         strerror(errno), strerror(cases[i].error));
            if (descriptor >= 0)
                close(descriptor);
        }
    close(folder);

    /* A second hard link could be anybody's file. */
    hk_file f = {0};
    assert_int_equal(link(in_folder(b, 1, "secret"), in_folder(b, 2, "model/hard")), 0);
    assert_fails(b, hk_file_open_descriptor(b->ctx, open(b->path[2], O_RDONLY | O_CLOEXEC), "hard", 0, true, &f),
                 HK_STATUS_INVALID, "2 hard links");
}

/* ---- writing */

static void assert_contents(const char *path, const char *expected)
{
    char buffer[64] = "";
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(buffer, 1, sizeof buffer - 1, f);
    fclose(f);
    buffer[n] = '\0';
    assert_string_equal(buffer, expected);
}

static void test_write(void **state)
{
    bench *b = *state;
    const char *path = in_folder(b, 0, "out");
    assert_int_equal(hk_file_save(b->ctx, path, "first", 5), HK_OK);
    assert_contents(path, "first");
    assert_int_equal(chmod(path, 0640), 0);

    /* Until commit the old file stays; after it, the new one has the old one's mode. */
    hk_file_writer *w = NULL;
    assert_int_equal(hk_file_writer_create(b->ctx, path, &w), HK_OK);
    assert_int_equal(hk_file_write(w, "sec", 3), HK_OK);
    assert_int_equal(hk_file_write(w, "ond", 3), HK_OK);
    assert_int_equal(hk_file_writer_bytes(w), 6);
    assert_contents(path, "first");
    assert_int_equal(hk_file_writer_commit(&w), HK_OK);
    assert_null(w);
    assert_contents(path, "second");
    struct stat s;
    assert_int_equal(stat(path, &s), 0);
    assert_int_equal(s.st_mode & 0777, 0640);

    assert_int_equal(hk_file_writer_create(b->ctx, path, &w), HK_OK);
    assert_int_equal(hk_file_write(w, "third", 5), HK_OK);
    hk_file_writer_destroy(&w);
    hk_file_writer_destroy(&w);
    assert_contents(path, "second");
    assert_int_equal(entries(b->folder), 1);

    /* A link is replaced, not followed. */
    assert_int_equal(symlink("out", in_folder(b, 1, "link")), 0);
    assert_int_equal(hk_file_save(b->ctx, b->path[1], "own", 3), HK_OK);
    assert_contents(path, "second");
    assert_contents(b->path[1], "own");
}

static void test_write_refused(void **state)
{
    bench *b = *state;
    assert_fails(b, hk_file_save(b->ctx, in_folder(b, 0, "missing/out"), "x", 1), HK_STATUS_CANNOT_CREATE,
                 "No such file");
    assert_fails(b, hk_file_save(b->ctx, b->folder, "x", 1), HK_STATUS_CANNOT_CREATE, "it is a folder");
    assert_fails(b, hk_file_save(b->ctx, in_folder(b, 0, "out/"), "x", 1), HK_STATUS_CANNOT_CREATE, "names a folder");
    assert_fails(b, hk_file_save(b->ctx, "/dev/null", "x", 1), HK_STATUS_CANNOT_CREATE, "a device, pipe or socket");
    assert_int_equal(entries(b->folder), 0);
}

/* A full disk, played by the limit on file sizes: the old file stays, nothing else does. */
static void test_write_full(void **state)
{
    bench *b = *state;
    const char *path = in_folder(b, 0, "out");
    assert_int_equal(hk_file_save(b->ctx, path, "old", 3), HK_OK);
    struct rlimit old, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = (struct rlimit){.rlim_cur = 100000, .rlim_max = old.rlim_max};
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    char *big = calloc(1, 300000);
    hk_status at_once = hk_file_save(b->ctx, path, big, 300000);
    char says[300];
    snprintf(says, sizeof says, "%s", hk_context_error(b->ctx));
    hk_file_writer *w = NULL;
    hk_status created = hk_file_writer_create(b->ctx, path, &w), piecewise = HK_OK;
    for (int i = 0; i < 300 && created == HK_OK; i++)
        piecewise = hk_file_write(w, big, 1000);
    hk_status committed = created == HK_OK ? hk_file_writer_commit(&w) : HK_OK;
    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, handler);
    free(big);
    assert_int_equal(at_once, HK_STATUS_IO);
    assert_non_null(strstr(says, "cannot be written: File too large"));
    assert_int_equal(created, HK_OK);
    assert_int_equal(piecewise, HK_STATUS_IO);
    assert_int_equal(committed, HK_STATUS_IO);
    assert_contents(path, "old");
    assert_int_equal(entries(b->folder), 1);
}

/* ---- .npy and .pb */

static const hk_dtype all_types[] = {HK_FLOAT32, HK_UINT8,   HK_INT8,    HK_UINT16, HK_INT16,  HK_INT32,   HK_INT64,
                                     HK_BOOL,    HK_FLOAT16, HK_FLOAT64, HK_UINT32, HK_UINT64, HK_BFLOAT16};

static void fill(hk_tensor *t)
{
    for (int64_t i = 0, n = hk_tensor_count(t); i < n; i++)
        hk_set_int(t, i, t->dtype == HK_BOOL ? i & 1 : i * 5 + 1);
}

static void assert_same(const hk_tensor *a, const hk_tensor *b)
{
    hk_shape x = hk_tensor_shape(a), y = hk_tensor_shape(b);
    assert_int_equal(a->dtype, b->dtype);
    assert_true(hk_shape_equal(&x, &y));
    size_t bytes = (size_t)hk_tensor_bytes(a);
    if (bytes != 0)
        assert_memory_equal(a->data, b->data, bytes);
}

static void test_round_trips(void **state)
{
    bench *b = *state;
    const hk_shape shapes[] = {
        {.rank = 0}, {.rank = 1, .dim = {5}}, {.rank = 3, .dim = {2, 3, 4}}, {.rank = 2, .dim = {0, 7}}};
    const char *names[] = {"t.npy", "t.pb"};
    for (size_t i = 0; i < HK_COUNT(all_types); i++)
        for (size_t k = 0; k < HK_COUNT(shapes); k++)
            for (size_t f = 0; f < 2; f++) {
                hk_tensor t = {0}, back = {0};
                const char *path = in_folder(b, 0, names[f]);
                assert_int_equal(hk_tensor_create(b->ctx, all_types[i], &shapes[k], &t), HK_OK);
                fill(&t);
                hk_status st = hk_tensor_save(b->ctx, &t, path);
                if (all_types[i] == HK_BFLOAT16 && f == 0) {
                    assert_fails(b, st, HK_STATUS_UNSUPPORTED, "save it as .pb");
                } else {
                    assert_int_equal(st, HK_OK);
                    assert_int_equal(hk_tensor_load(b->ctx, path, &back), HK_OK);
                    assert_same(&t, &back);
                }
                hk_tensor_release(&t);
                hk_tensor_release(&back);
            }
}

static void test_strided_save(void **state)
{
    bench *b = *state;
    float x[6] = {0, 1, 2, 3, 4, 5};
    const float transposed[6] = {0, 3, 1, 4, 2, 5};
    hk_tensor t = {.data = x, .dtype = HK_FLOAT32, .rank = 2, .shape = {3, 2}, .strides = {1, 3}}, back = {0};
    const char *names[] = {"t.npy", "t.pb"};
    for (size_t f = 0; f < 2; f++) {
        assert_int_equal(hk_tensor_save(b->ctx, &t, in_folder(b, 0, names[f])), HK_OK);
        assert_int_equal(hk_tensor_load(b->ctx, b->path[0], &back), HK_OK);
        assert_memory_equal(back.data, transposed, sizeof transposed);
        hk_tensor_release(&back);
    }
}

/* An .npy with a given header and contents. */
static size_t make_npy(uint8_t *to, int version, const char *header, const void *contents, size_t bytes)
{
    size_t n = strlen(header), at = version == 1 ? 10 : 12;
    memcpy(to, "\x93NUMPY", 6);
    to[6] = (uint8_t)version;
    to[7] = 0;
    to[8] = (uint8_t)n;
    to[9] = (uint8_t)(n >> 8);
    to[10] = to[11] = 0;
    memcpy(to + at, header, n);
    memcpy(to + at + n, contents, bytes);
    return at + n + bytes;
}

static void test_npy_forms(void **state)
{
    bench *b = *state;
    uint8_t file[512];
    hk_tensor t = {0};
    const int16_t big[6] = {0x0000, 0x0100, 0x0200, 0x0300, 0x0400, 0x0500}; /* 0 to 5, high byte first */
    const char *headers[] = {
        "{'descr': '>i2', 'fortran_order': False, 'shape': (2, 3), }\n",
        "{'shape':(2,3),'descr':'>i2','fortran_order':False}",
        " { \"descr\" : '>i2' , 'fortran_order' : False , 'shape' : (2L, 3L,) , } \n\n",
    };
    for (size_t i = 0; i < HK_COUNT(headers); i++)
        for (int version = 1; version <= 3; version++) {
            size_t n = make_npy(file, version, headers[i], big, sizeof big);
            assert_int_equal(hk_npy_read(b->ctx, "x", file, n, &t), HK_OK);
            assert_int_equal(t.dtype, HK_INT16);
            for (int64_t k = 0; k < 6; k++)
                assert_int_equal(hk_get_int(&t, k), k);
            hk_tensor_release(&t);
            /* No length but the whole is an array. */
            for (size_t cut = 0; cut < n; cut++)
                assert_int_equal(hk_npy_read(b->ctx, "x", file, cut, &t), HK_STATUS_INVALID);
        }

    const uint8_t columns[6] = {0, 3, 1, 4, 2, 7};
    size_t n = make_npy(file, 1, "{'descr': '|b1', 'fortran_order': True, 'shape': (2, 3)}", columns, 6);
    assert_int_equal(hk_npy_read(b->ctx, "x", file, n, &t), HK_OK);
    assert_memory_equal(t.data, ((const uint8_t[]){0, 1, 1, 1, 1, 1}), 6);
    hk_tensor_release(&t);
}

static void test_npy_refused(void **state)
{
    bench *b = *state;
    const struct {
        const char *header;
        hk_status st;
        const char *says;
    } cases[] = {
        {"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", HK_STATUS_UNSUPPORTED, "pickle"},
        {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", HK_STATUS_UNSUPPORTED, "records"},
        {"{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", HK_STATUS_UNSUPPORTED, "kind 'c'"},
        {"{'descr': '<f3', 'fortran_order': False, 'shape': (1,), }", HK_STATUS_UNSUPPORTED, "3 bytes"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1), }", HK_STATUS_UNSUPPORTED,
         "8 dimensions"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", HK_STATUS_INVALID, "4 bytes of contents"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4611686018427387904), }",
         HK_STATUS_INVALID, "contents"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }", HK_STATUS_INVALID, "header"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", HK_STATUS_INVALID, "header"},
        {"{'descr': '<f4', 'fortran_order': 1, 'shape': (1,), }", HK_STATUS_INVALID, "header"},
        {"{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", HK_STATUS_INVALID, "header"},
        {"{'descr': '<f4', 'fortran_order': False, }", HK_STATUS_INVALID, "header"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), } x", HK_STATUS_INVALID, "header"},
        {"", HK_STATUS_INVALID, "header"},
    };
    for (size_t i = 0; i < HK_COUNT(cases); i++) {
        uint8_t file[512];
        hk_tensor t = {0};
        size_t n = make_npy(file, 1, cases[i].header, "\0\0\0\0", 4);
        assert_fails(b, hk_npy_read(b->ctx, "x", file, n, &t), cases[i].st, cases[i].says);
        assert_null(t.data);
    }
}

static void test_pb_refused(void **state)
{
    bench *b = *state;
    onnx_bytes o = {0};
    hk_tensor t = {0};
    float x[6] = {1, 2, 3, 4, 5, 6};
    ob_int(&o, 1, 2);
    ob_int(&o, 1, 3);
    ob_int(&o, 2, HK_FLOAT32);
    size_t head = o.count;
    ob_blob(&o, 9, x, sizeof x);
    assert_int_equal(hk_pb_read(b->ctx, "x", o.data, o.count, HK_DTYPE_NONE, &t), HK_OK);
    assert_memory_equal(t.data, x, sizeof x);
    hk_tensor_release(&t);
    for (size_t cut = 0; cut < o.count; cut++)
        assert_int_equal(hk_pb_read(b->ctx, "x", o.data, cut, HK_DTYPE_NONE, &t), HK_STATUS_INVALID);

    o.count = head;
    ob_int(&o, 14, 1);
    ob_entry(&o, 13, "location", "/etc/passwd");
    assert_fails(b, hk_pb_read(b->ctx, "x", o.data, o.count, HK_DTYPE_NONE, &t), HK_STATUS_UNSUPPORTED, "another file");
    o.count = 0;
    ob_int(&o, 1, 1);
    ob_int(&o, 2, 8);
    ob_text(&o, 6, "text");
    assert_fails(b, hk_pb_read(b->ctx, "x", o.data, o.count, HK_DTYPE_NONE, &t), HK_STATUS_UNSUPPORTED, "type string");
    ob_free(&o);
    assert_null(t.data);
    assert_fails(b, hk_tensor_load(b->ctx, in_folder(b, 0, "missing.npy"), &t), HK_STATUS_NO_INPUT, "missing.npy");
}

/* Every allocation of saving and loading fails once. */
static void test_allocations_fail(void **state)
{
    bench *b = *state;
    float x[6] = {0};
    hk_tensor t = {.data = x, .dtype = HK_FLOAT32, .rank = 2, .shape = {2, 3}};
    const char *names[] = {"t.npy", "t.pb"};
    for (size_t f = 0; f < 2; f++) {
        const char *path = in_folder(b, 0, names[f]);
        hk_status st = HK_STATUS_OUT_OF_MEMORY;
        for (uint64_t k = 1; st != HK_OK && k < 100; k++) {
            counted c = {.fail_at = k};
            hk_tensor back = {0};
            counted_open(&c);
            st = hk_tensor_save(c.ctx, &t, path);
            if (st == HK_OK)
                st = hk_tensor_load(c.ctx, path, &back);
            if (st != HK_OK)
                assert_int_equal(st, HK_STATUS_OUT_OF_MEMORY);
            hk_tensor_release(&back);
            assert_true(counted_close(&c));
        }
        assert_int_equal(st, HK_OK);
    }
    assert_int_equal(entries(b->folder), 2);
}

/* An argument is a pattern of test names to run. */
int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_open, start, stop),
        cmocka_unit_test_setup_teardown(test_open_beneath, start, stop),
        cmocka_unit_test_setup_teardown(test_write, start, stop),
        cmocka_unit_test_setup_teardown(test_write_refused, start, stop),
        cmocka_unit_test_setup_teardown(test_write_full, start, stop),
        cmocka_unit_test_setup_teardown(test_round_trips, start, stop),
        cmocka_unit_test_setup_teardown(test_strided_save, start, stop),
        cmocka_unit_test_setup_teardown(test_npy_forms, start, stop),
        cmocka_unit_test_setup_teardown(test_npy_refused, start, stop),
        cmocka_unit_test_setup_teardown(test_pb_refused, start, stop),
        cmocka_unit_test_setup_teardown(test_allocations_fail, start, stop),
    };
    return cmocka_run_group_tests_name("files", tests, NULL, NULL);
}
