/* The SimpleCNN fixture. */
#include "tests/support/simplecnn.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/philox.h"
#include "core/tensor.h"

static uint32_t word(uint32_t seed, uint32_t stream, uint64_t i)
{
    uint32_t out[4];
    hk_philox((const uint32_t[2]){seed, stream}, (const uint32_t[4]){(uint32_t)(i / 4), 0, 0, 0}, out);
    return out[i % 4];
}

static float value(uint32_t seed, uint32_t stream, uint64_t i, float k)
{
    float u = (float)(word(seed, stream, i) >> 8) * 0x1p-24f;
    return (2.0f * u - 1.0f) * k;
}

static void read_list(simplecnn *f)
{
    char path[512];
    snprintf(path, sizeof path, "%s/simplecnn/tensors.txt", HK_TEST_DATA);
    FILE *in = fopen(path, "r");
    assert_non_null(in);
    int count = 0;
    long long total = 0;
    assert_int_equal(fscanf(in, "%d %lld %u", &count, &total, &f->seed), 3);
    assert_int_equal(count, SIMPLECNN_TENSORS);
    f->total = total;
    int64_t first = 0;
    snprintf(path, sizeof path, "%s/weights.bin", f->folder);
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    for (size_t i = 0; i < SIMPLECNN_TENSORS; i++) {
        simplecnn_tensor *t = &f->tensors[i];
        char torch_name[64], dims[64];
        long long numel = 0, offset = 0, small = 0;
        assert_int_equal(fscanf(in, "%63s %63s %u %f %f %lld %63s %lld %lld", t->name, torch_name, &t->stream, &t->k,
                                &t->fill, &numel, dims, &offset, &small),
                         9);
        t->count = numel;
        t->first = first;
        t->small_offset = small;
        first += numel;
        t->initial = malloc((size_t)numel * sizeof(float));
        assert_non_null(t->initial);
        for (int64_t k = 0; k < numel; k++)
            t->initial[k] = t->k != 0 ? value(f->seed, t->stream, (uint64_t)k, t->k) : t->fill;
        if (offset >= 0) {
            assert_int_equal(fseek(out, (long)offset, SEEK_SET), 0);
            assert_int_equal(fwrite(t->initial, sizeof(float), (size_t)numel, out), numel);
        }
    }
    fclose(in);
    assert_int_equal(fclose(out), 0);
}

static void copy_model(simplecnn *f)
{
    char path[512];
    snprintf(path, sizeof path, "%s/simplecnn/model.onnx", HK_TEST_DATA);
    snprintf(f->model, sizeof f->model, "%s/model.onnx", f->folder);
    FILE *in = fopen(path, "rb"), *out = fopen(f->model, "wb");
    assert_non_null(in);
    assert_non_null(out);
    char bytes[4096];
    for (size_t n; (n = fread(bytes, 1, sizeof bytes, in)) > 0;)
        assert_int_equal(fwrite(bytes, 1, n, out), n);
    fclose(in);
    assert_int_equal(fclose(out), 0);
}

void simplecnn_open(simplecnn *f, hk_context *ctx)
{
    *f = (simplecnn){.ctx = ctx};
    const char *tmp = getenv("TMPDIR");
    snprintf(f->folder, sizeof f->folder, "%s/hillock-simplecnn-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(f->folder));
    read_list(f);
    copy_model(f);
    f->images = malloc(SIMPLECNN_BATCH * 3 * 32 * 32 * sizeof(float));
    f->labels = malloc(SIMPLECNN_BATCH * sizeof(int64_t));
    assert_true(f->images && f->labels);
}

void simplecnn_close(simplecnn *f)
{
    char path[512];
    unlink(f->model);
    snprintf(path, sizeof path, "%s/weights.bin", f->folder);
    unlink(path);
    rmdir(f->folder);
    for (size_t i = 0; i < SIMPLECNN_TENSORS; i++)
        free(f->tensors[i].initial);
    free(f->images);
    free(f->labels);
}

void simplecnn_batch(simplecnn *f, uint32_t b, hk_tensor *images, hk_tensor *labels)
{
    for (uint64_t i = 0; i < SIMPLECNN_BATCH * 3 * 32 * 32; i++)
        f->images[i] = value(f->seed, 100 + b, i, 1.7320508f);
    for (uint64_t i = 0; i < SIMPLECNN_BATCH; i++)
        f->labels[i] = (int64_t)(word(f->seed, 200 + b, i) % 10);
    *images = (hk_tensor){.data = f->images, .dtype = HK_FLOAT32, .rank = 4, .shape = {SIMPLECNN_BATCH, 3, 32, 32}};
    *labels = (hk_tensor){.data = f->labels, .dtype = HK_INT64, .rank = 1, .shape = {SIMPLECNN_BATCH}};
}

double *simplecnn_load(simplecnn *f, const char *name, int64_t *count)
{
    char path[512];
    hk_tensor t = {0};
    snprintf(path, sizeof path, "%s/simplecnn/%s", HK_TEST_DATA, name);
    assert_int_equal(hk_tensor_load(f->ctx, path, &t), HK_OK);
    int64_t n = hk_tensor_count(&t);
    double *out = malloc((size_t)n * sizeof *out);
    assert_non_null(out);
    for (int64_t i = 0; i < n; i++)
        out[i] = hk_get_double(&t, i);
    hk_tensor_release(&t);
    if (count)
        *count = n;
    return out;
}

float *simplecnn_w10(simplecnn *f, size_t i)
{
    const simplecnn_tensor *t = &f->tensors[i];
    double *q = simplecnn_load(f, "w10_q.npy", NULL), *scale = simplecnn_load(f, "w10_scale.npy", NULL);
    float *w = malloc((size_t)t->count * sizeof *w);
    assert_non_null(w);
    for (int64_t k = 0; k < t->count; k++)
        w[k] = t->initial[k] + (float)q[t->first + k] * (float)scale[i];
    free(q);
    free(scale);
    return w;
}

/* sum of +-g with the 256 sign patterns of tensors.txt's scheme. */
static void project(const simplecnn *f, size_t i, const float *g, double s[256])
{
    memset(s, 0, 256 * sizeof *s);
    const uint32_t key[2] = {f->seed, 1000 + (uint32_t)i};
    for (int64_t k = 0; k < f->tensors[i].count; k++) {
        uint32_t bits[8];
        hk_philox(key, (const uint32_t[4]){(uint32_t)(2 * k), 0, 0, 0}, bits);
        hk_philox(key, (const uint32_t[4]){(uint32_t)(2 * k + 1), 0, 0, 0}, bits + 4);
        for (int j = 0; j < 256; j++)
            s[j] += bits[j / 32] >> (j % 32) & 1u ? (double)g[k] : -(double)g[k];
    }
}

void simplecnn_gradient_error(simplecnn *f, size_t set, size_t i, const float *g, double *error, double *norm)
{
    double *norms = simplecnn_load(f, "grad_norms.npy", NULL), sum = 0;
    *norm = norms[(set * SIMPLECNN_TENSORS + i) * 2];
    free(norms);
    const simplecnn_tensor *t = &f->tensors[i];
    if (t->small_offset >= 0) {
        int64_t count = 0;
        double *all = simplecnn_load(f, "grad_small.npy", &count);
        const double *want = all + set * ((size_t)count / 3) + (size_t)t->small_offset;
        for (int64_t k = 0; k < t->count; k++)
            sum += ((double)g[k] - want[k]) * ((double)g[k] - want[k]);
        free(all);
        *error = sqrt(sum);
        return;
    }
    double *want = simplecnn_load(f, "grad_proj.npy", NULL), s[256];
    project(f, i, g, s);
    for (int j = 0; j < 256; j++) {
        double d = s[j] - want[(set * SIMPLECNN_TENSORS + i) * 256 + (size_t)j];
        sum += d * d;
    }
    free(want);
    *error = sqrt(sum / 256);
}
