/*
 * Data sets and loaders: every format, order and augmentation by seed, what is refused.
 */
#include <math.h>
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

#include "core/context.h"
#include "train/dataset.h"

#define SETS HK_TEST_DATA "/datasets"

static hk_context *ctx;
static char folder[] = "/tmp/hillock-data-XXXXXX";

static void must(hk_status st)
{
    if (st != HK_OK)
        fail_msg("%s", hk_context_error(ctx));
}

static hk_dataset *opened(const char *path, const hk_dataset_params *p)
{
    hk_dataset *d = NULL;
    must(hk_dataset_open(ctx, path, p, &d));
    return d;
}

static void refused(const char *path, const hk_dataset_params *p, hk_status want, const char *phrase)
{
    hk_dataset *d = NULL;
    hk_status st = hk_dataset_open(ctx, path, p, &d);
    if (st != want || !strstr(hk_context_error(ctx), phrase))
        fail_msg("%s: status %d, expected %d; \"%s\" lacks \"%s\"", path, (int)st, (int)want, hk_context_error(ctx),
                 phrase);
}

static const char *written(const char *name, const char *text)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    return path;
}

static const float *sample(hk_dataset *d, size_t field, size_t i)
{
    static float x[4096];
    char error[256];
    if (!hk_dataset_sample(d, &d->fields[field], i, x, error))
        fail_msg("sample %zu: %s", i, error);
    return x;
}

static int64_t label(hk_dataset *d, size_t i)
{
    int64_t y = -1;
    char error[256];
    assert_true(hk_dataset_sample(d, &d->target, i, &y, error));
    return y;
}

/* ---- formats */

static void test_idx(void **state)
{
    (void)state;
    hk_dataset_info info;
    hk_dataset *d = opened(HK_TEST_DATA "/digits",
                           &(hk_dataset_params){.size = sizeof(hk_dataset_params), .rank = 3, .shape = {1, 8, 8}});
    hk_dataset_get_info(d, &info);
    assert_int_equal(info.count, 1797);
    assert_int_equal(info.classes, 10);
    assert_int_equal(info.input[0].rank, 3);
    assert_string_equal(info.format, "IDX");
    assert_true(sample(d, 0, 0)[2] == 5 * (1.0f / 255)); /* the first digit's third pixel is 5 of 16 */
    hk_dataset_close(&d);
    /* a larger picture of the same */
    const float mean[] = {0.5f}, std[] = {0.25f};
    d = opened(HK_TEST_DATA "/digits", &(hk_dataset_params){.size = sizeof(hk_dataset_params),
                                                            .rank = 3,
                                                            .shape = {3, 16, 16},
                                                            .scale = 1.0f / 16,
                                                            .mean = mean,
                                                            .std = std,
                                                            .channels = 1});
    const float *x = sample(d, 0, 0);
    assert_true(x[0] == -2.0f && x[7] == x[256 + 7] && x[7] == x[512 + 7]);
    hk_dataset_close(&d);
}

static void test_gzip(void **state)
{
    (void)state;
#ifdef HK_HAVE_ZLIB
    hk_dataset *d = opened(SETS "/images-idx3-ubyte.gz",
                           &(hk_dataset_params){.size = sizeof(hk_dataset_params), .scale = 1});
    assert_true(sample(d, 0, 1)[5] == 11 && label(d, 0) == 7 && label(d, 1) == 1);
    hk_dataset_close(&d);
    refused(written("broken-images-idx3-ubyte.gz", "\x1f\x8b\x08\x01rest"), NULL, HK_STATUS_INVALID, "inflated");
#endif
}

static void test_npz(void **state)
{
    (void)state;
#ifdef HK_HAVE_ZLIB
    hk_dataset_info info;
    hk_dataset *d = opened(SETS "/pairs.npz", NULL);
    hk_dataset_get_info(d, &info);
    assert_int_equal(info.inputs, 2);
    assert_string_equal(info.input[0].name, "ids");
    assert_int_equal(info.input[0].dtype, HK_INT64);
    assert_int_equal(info.classes, 3);
    int64_t ids[3];
    char error[256];
    assert_true(hk_dataset_sample(d, &d->fields[0], 2, ids, error) && ids[0] == 6 && ids[2] == 8);
    assert_true(isfinite(sample(d, 1, 3)[1]) && label(d, 1) == 2);
    hk_dataset_close(&d);
#endif
}

static void test_csv(void **state)
{
    (void)state;
    hk_dataset_info info;
    hk_dataset *d = opened(written("a.csv", "x;\"kind\";y\n1.5;2;-3e-1\n4;0;5.25\r\n\n"),
                           &(hk_dataset_params){.size = sizeof(hk_dataset_params), .label_column = "kind"});
    hk_dataset_get_info(d, &info);
    assert_int_equal(info.count, 2);
    assert_int_equal(info.classes, 3);
    assert_true(sample(d, 0, 0)[0] == 1.5f && sample(d, 0, 0)[1] == -0.3f && sample(d, 0, 1)[1] == 5.25f);
    hk_dataset_close(&d);
    d = opened(written("b.csv", "1,2,0.5\n3,4,0.25\n"),
               &(hk_dataset_params){.size = sizeof(hk_dataset_params), .targets = true});
    float y;
    char error[256];
    assert_true(hk_dataset_sample(d, &d->target, 1, &y, error) && y == 0.25f);
    hk_dataset_close(&d);
    refused(written("c.csv", "1,2,0\n3,4\n"), NULL, HK_STATUS_INVALID, "line 2 has 2 columns, the first has 3");
    refused(written("d.csv", "1,2,0\n3,nan,1\n"), NULL, HK_STATUS_INVALID, "line 2 column 2 is NaN");
    refused(written("e.csv", "1,2,0\n3,4,1.5\n"), NULL, HK_STATUS_INVALID, "the label of sample 1 is 1.5");
    refused(written("f.csv", "1,2,0\n3,4,-1\n"), NULL, HK_STATUS_INVALID, "the label of sample 1 is -1");
    refused(written("g.csv", "1,2,0\n3,x,1\n"), NULL, HK_STATUS_INVALID, "line 2 column 2 is no number");
    refused(written("h.csv", "a,b\n"), NULL, HK_STATUS_INVALID, "no lines of numbers");
    refused(written("i.csv", "1,2,0\n"),
            &(hk_dataset_params){.size = sizeof(hk_dataset_params), .label_column = "kind"}, HK_STATUS_USAGE,
            "no column 'kind'");
}

static void test_cifar(void **state)
{
    (void)state;
    char path[256];
    snprintf(path, sizeof path, "%s/data_batch_1.bin", folder);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    for (int i = 0; i < 2 * 3073; i++)
        fputc(i % 3073 == 0 ? 3 + i / 3073 : i % 251, f);
    fclose(f);
    hk_dataset *d = opened(path, NULL);
    assert_string_equal(d->format, "CIFAR-10");
    assert_true(d->count == 2 && label(d, 0) == 3 && label(d, 1) == 4);
    assert_true(sample(d, 0, 1)[0] == (float)(3074 % 251) * (1.0f / 255));
    hk_dataset_close(&d);
    unlink(path);
}

#if defined HK_HAVE_PNG && defined HK_HAVE_JPEG
/* Pillow rounds to bytes after each axis. */
static void near(const char *file, const float *got, double tolerance)
{
    hk_tensor want = {0};
    must(hk_tensor_load(ctx, file, &want));
    for (int64_t i = 0; i < want.shape[0] * want.shape[1] * want.shape[2]; i++)
        if (!(fabs(((float *)want.data)[i] - got[i]) <= tolerance))
            fail_msg("%s: pixel %lld is %g, Pillow's is %g", file, (long long)i, (double)got[i],
                     (double)((float *)want.data)[i]);
    hk_tensor_release(&want);
}
#endif

static void test_images(void **state)
{
    (void)state;
#if defined HK_HAVE_PNG && defined HK_HAVE_JPEG
    hk_dataset_info info;
    hk_dataset *d = opened(
        SETS "/images", &(hk_dataset_params){
                            .size = sizeof(hk_dataset_params), .rank = 3, .shape = {3, 6, 6}, .resize = 8, .scale = 1});
    hk_dataset_get_info(d, &info);
    assert_int_equal(info.count, 5);
    assert_int_equal(info.classes, 2);
    assert_string_equal(info.class_names[1], "dogs");
    assert_true(label(d, 1) == 0 && label(d, 2) == 1);
    near(SETS "/fitted.npy", sample(d, 0, 0), 1.01);
    const float *grey = sample(d, 0, 1);
    assert_true(grey[4] == grey[36 + 4] && grey[4] == grey[72 + 4]);
    for (size_t i = 2; i < 5; i++)
        for (int k = 0; k < 108; k++)
            assert_true(sample(d, 0, i)[k] >= 0 && sample(d, 0, i)[k] <= 255);
    hk_dataset_close(&d);
    d = opened(SETS "/images",
               &(hk_dataset_params){.size = sizeof(hk_dataset_params), .rank = 3, .shape = {3, 5, 7}, .scale = 1});
    near(SETS "/shrunk.npy", sample(d, 0, 0), 1.01);
    hk_dataset_close(&d);
#endif
}

/* An unreadable image is an error, or left out and counted; an empty class is refused. */
static void test_bad_images(void **state)
{
    (void)state;
    char path[300], classes[2][300];
    for (int c = 0; c < 2; c++) {
        snprintf(classes[c], sizeof classes[c], "%s/set/%c", folder, 'a' + c);
        snprintf(path, sizeof path, "%s/set", folder);
        mkdir(path, 0700);
        mkdir(classes[c], 0700);
    }
    written("set/a/1.pgm", "P5 2 2 255\nabcd");
    written("set/a/2.pgm", "P5 2 2 255\nab");
    refused(path, NULL, HK_STATUS_INVALID, "holds no image");
    written("set/b/3.ppm", "P6 1 1 255\nabc");
    hk_dataset *d = opened(path, NULL);
    hk_loader *l = NULL;
    hk_batch b;
    must(hk_loader_create(d, NULL, &l));
    assert_int_equal(hk_loader_next(l, &b), HK_STATUS_INVALID);
    assert_non_null(strstr(hk_context_error(ctx), "set/a/2.pgm"));
    assert_non_null(strstr(hk_context_error(ctx), "ends before its last pixel"));
    hk_loader_destroy(&l);
    hk_dataset_close(&d);
    d = opened(path, &(hk_dataset_params){.size = sizeof(hk_dataset_params), .max_bad = 1});
    must(hk_loader_create(d, NULL, &l));
    must(hk_loader_next(l, &b));
    hk_dataset_info info;
    hk_dataset_get_info(d, &info);
    assert_true(b.count == 2 && b.samples[1] == 2 && b.inputs[0].shape[0] == 2 && info.bad == 1);
    hk_loader_destroy(&l);
    hk_dataset_close(&d);
}

static void test_refusals(void **state)
{
    (void)state;
    refused("/nonexistent", NULL, HK_STATUS_NO_INPUT, "cannot be opened");
    refused(written("x.txt", "hello"), NULL, HK_STATUS_UNSUPPORTED, "no data file that is known");
    refused(HK_TEST_DATA "/digits", &(hk_dataset_params){.size = sizeof(hk_dataset_params), .rank = 1, .shape = {63}},
            HK_STATUS_INVALID, "which cannot become [63]");
    refused(HK_TEST_DATA "/digits",
            &(hk_dataset_params){.size = sizeof(hk_dataset_params), .labels = SETS "/labels-idx1-ubyte.gz"},
            HK_STATUS_INVALID, "has 2 samples");
    refused(written("lonely.npy", ""), NULL, HK_STATUS_UNSUPPORTED, "no data file");
}

/* ---- loaders */

static uint64_t read_epochs(hk_dataset *d, hk_loader_params p, uint64_t from_epoch, uint64_t from_batch, size_t batches)
{
    hk_loader *l = NULL;
    uint64_t hash = 0xcbf29ce484222325ull;
    must(hk_loader_create(d, &p, &l));
    if (from_epoch || from_batch)
        must(hk_loader_seek(l, from_epoch, from_batch));
    for (size_t n = 0; n < batches;) {
        hk_batch b;
        must(hk_loader_next(l, &b));
        if (!b.count)
            continue;
        n++;
        const uint8_t *bytes = b.inputs[0].data;
        for (size_t i = 0; i < b.count * 64 * sizeof(float); i++)
            hash = (hash ^ bytes[i]) * 0x100000001b3ull;
        for (size_t i = 0; i < b.count; i++)
            hash = (hash ^ (uint64_t)((int64_t *)b.target->data)[i]) * 0x100000001b3ull;
    }
    hk_loader_destroy(&l);
    return hash;
}

/* Order and augmentation follow from the seed: not from threads, nor from where reading began. */
static void test_order(void **state)
{
    (void)state;
    hk_dataset *d = opened(HK_TEST_DATA "/digits",
                           &(hk_dataset_params){.size = sizeof(hk_dataset_params), .rank = 3, .shape = {1, 8, 8}});
    hk_loader_params p = {.size = sizeof p, .batch = 100, .seed = 3, .shuffle = true, .flip = true, .shift = 2};
    uint64_t straight = read_epochs(d, p, 0, 0, 40);
    p.threads = 5;
    assert_true(read_epochs(d, p, 0, 0, 40) == straight);
    uint64_t later = read_epochs(d, p, 1, 7, 15);
    p.threads = 1;
    assert_true(read_epochs(d, p, 1, 7, 15) == later);
    p.seed = 4;
    assert_true(read_epochs(d, p, 0, 0, 40) != straight);
    hk_dataset_close(&d);
}

/* ---- batches as a model takes them */

#ifdef HK_HAVE_ZLIB
static void loader_refused(hk_dataset *d, const hk_value_info *inputs, size_t count, const char *phrase)
{
    hk_loader *l = NULL;
    const hk_loader_params p = {.size = sizeof p, .inputs = inputs, .input_count = count};
    assert_int_equal(hk_loader_create(d, &p, &l), HK_STATUS_INVALID);
    if (!strstr(hk_context_error(ctx), phrase))
        fail_msg("\"%s\" lacks \"%s\"", hk_context_error(ctx), phrase);
}
#endif

/* In the model's order and its types, whatever those of the file are. */
static void test_inputs(void **state)
{
    (void)state;
#ifdef HK_HAVE_ZLIB
    const hk_value_info wanted[] = {{.name = "x", .dtype = HK_FLOAT16}, {.name = "ids", .dtype = HK_INT32}};
    const hk_loader_params p = {.size = sizeof p, .batch = 4, .inputs = wanted, .input_count = 2};
    hk_dataset *d = opened(SETS "/pairs.npz", NULL);
    hk_loader *l = NULL;
    hk_batch b;
    must(hk_loader_create(d, &p, &l));
    must(hk_loader_next(l, &b));
    assert_true(b.input_count == 2 && b.inputs[0].dtype == HK_FLOAT16 && b.inputs[1].dtype == HK_INT32);
    for (int64_t i = 0; i < 12; i++)
        assert_int_equal(hk_get_int(&b.inputs[1], i), i);
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(((uint16_t *)b.inputs[0].data)[i], hk_float_to_half(sample(d, 1, i / 2)[i % 2]));
    hk_loader_destroy(&l);
    loader_refused(d, &(hk_value_info){.name = "ids", .dtype = HK_BOOL}, 1,
                   "'ids' has 2 in sample 0, which bool cannot hold");
    loader_refused(d, &(hk_value_info){.name = "x", .dtype = HK_INT64}, 1, "array.astype('int64')");
    loader_refused(d, &(hk_value_info){.name = "ids", .dtype = HK_FLOAT32}, 1, "array.astype('float32')");
    loader_refused(d, &(hk_value_info){.name = "mask", .dtype = HK_INT64}, 1, "no array 'mask'");
    loader_refused(d, (hk_value_info[3]){{.name = "x"}}, 3, "2 arrays per sample besides the labels, and 3 inputs");
    hk_dataset_close(&d);
#endif
    /* bytes are given as they are, not as fractions; 16 bits end at 65,504 */
    const hk_value_info bytes = {.name = "image", .dtype = HK_UINT8}, half = {.name = "image", .dtype = HK_FLOAT16};
    hk_loader_params one = {.size = sizeof one, .inputs = &bytes, .input_count = 1};
    hk_dataset *digits = opened(HK_TEST_DATA "/digits",
                                &(hk_dataset_params){.size = sizeof(hk_dataset_params), .scale = 5000});
    hk_loader *loader = NULL;
    hk_batch first;
    must(hk_loader_create(digits, &one, &loader));
    must(hk_loader_next(loader, &first));
    assert_int_equal(((uint8_t *)first.inputs[0].data)[2], 5);
    hk_loader_destroy(&loader);
    one.inputs = &half;
    must(hk_loader_create(digits, &one, &loader));
    assert_int_equal(hk_loader_next(loader, &first), HK_STATUS_INVALID);
    assert_non_null(strstr(hk_context_error(ctx), "which float16 cannot hold"));
    hk_loader_destroy(&loader);
    hk_dataset_close(&digits);
}

static void count_part(hk_dataset *d, bool held_out, uint8_t *seen, size_t *count)
{
    hk_loader *l = NULL;
    must(hk_loader_create(
        d,
        &(hk_loader_params){
            .size = sizeof(hk_loader_params), .holdout = 0.2, .held_out = held_out, .shuffle = true, .seed = 9},
        &l));
    *count = hk_loader_samples(l);
    for (hk_batch b;;) {
        must(hk_loader_next(l, &b));
        if (!b.count)
            break;
        for (size_t i = 0; i < b.count; i++)
            seen[b.samples[i]]++;
    }
    hk_loader_destroy(&l);
}

/* Every sample is in one part, once. */
static void test_split(void **state)
{
    (void)state;
    hk_dataset *d = opened(HK_TEST_DATA "/digits", NULL);
    uint8_t seen[1797] = {0};
    size_t kept, held;
    count_part(d, false, seen, &kept);
    count_part(d, true, seen, &held);
    assert_true(held == 359 && kept == 1438);
    for (size_t i = 0; i < 1797; i++)
        assert_int_equal(seen[i], 1);
    hk_dataset_close(&d);
}

static int set_up(void **state)
{
    (void)state;
    return hk_context_create(NULL, &ctx) != HK_OK || !mkdtemp(folder);
}

static int tear_down(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", folder);
    int failed = system(command);
    hk_context_destroy(&ctx);
    return failed;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_idx),        cmocka_unit_test(test_gzip),     cmocka_unit_test(test_npz),
        cmocka_unit_test(test_csv),        cmocka_unit_test(test_cifar),    cmocka_unit_test(test_images),
        cmocka_unit_test(test_bad_images), cmocka_unit_test(test_refusals), cmocka_unit_test(test_order),
        cmocka_unit_test(test_inputs),     cmocka_unit_test(test_split),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
