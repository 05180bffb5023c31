/* Datasets: what a path holds, and one sample of it. */
#include "train/dataset.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- memory and files that live as long as the dataset */

void *hk_dataset_memory(hk_dataset *d, size_t bytes)
{
    if (d->block_count == d->block_capacity) {
        size_t capacity = d->block_capacity * 2 + 8;
        void **grown = hk_realloc(d->ctx, d->blocks, capacity * sizeof *grown);
        if (!grown)
            return NULL;
        d->blocks = grown;
        d->block_capacity = capacity;
    }
    void *p = hk_alloc(d->ctx, bytes ? bytes : 1);
    if (p)
        d->blocks[d->block_count++] = p;
    return p;
}

hk_status hk_dataset_keep(hk_dataset *d, void *p)
{
    void *slot = hk_dataset_memory(d, 1);
    if (!slot) {
        hk_free(d->ctx, p);
        return hk_out_of_memory(d->ctx, "a dataset");
    }
    hk_free(d->ctx, slot);
    d->blocks[d->block_count - 1] = p;
    return HK_OK;
}

#define INFLATED_LIMIT ((size_t)4 << 30)

hk_status hk_dataset_map(hk_dataset *d, const char *path, const uint8_t **data, size_t *bytes)
{
    if (d->file_count == d->file_capacity) {
        size_t capacity = d->file_capacity * 2 + 4;
        hk_file *grown = hk_realloc(d->ctx, d->files, capacity * sizeof *grown);
        if (!grown)
            return hk_out_of_memory(d->ctx, "a dataset");
        d->files = grown;
        d->file_capacity = capacity;
    }
    hk_file *f = &d->files[d->file_count];
    HK_TRY(hk_file_open(d->ctx, path, 0, f));
    d->file_count++;
    *data = f->data;
    *bytes = f->bytes;
    if (f->bytes < 3 || f->data[0] != 0x1f || f->data[1] != 0x8b)
        return HK_OK;
    uint8_t *inflated = NULL;
    if (!hk_inflate(d->ctx, f->data, f->bytes, true, &inflated, bytes, INFLATED_LIMIT))
        return hk_fail(d->ctx, HK_STATUS_INVALID,
                       "'%s' is gzipped, and its contents cannot be inflated (formats of this build: %s)", path,
                       HK_DATA_FORMATS);
    *data = inflated;
    return hk_dataset_keep(d, inflated);
}

hk_status hk_dataset_array(hk_dataset *d, const char *path, hk_tensor *out)
{
    const uint8_t *data = NULL;
    size_t bytes = 0;
    HK_TRY(hk_dataset_map(d, path, &data, &bytes));
    if (hk_idx_is(data, bytes))
        return hk_idx_read(d, path, data, bytes, out);
    if (!hk_npy_is(data, bytes))
        return hk_fail(d->ctx, HK_STATUS_INVALID, "'%s' is neither an IDX nor an .npy file", path);
    HK_TRY(hk_npy_read(d->ctx, path, data, bytes, out));
    return hk_dataset_keep(d, out->data);
}

/* ---- fields */

static hk_status check_numbers(hk_dataset *d, const char *where, const hk_tensor *t, int64_t per_sample)
{
    if (!hk_dtype_is_float(t->dtype))
        return HK_OK;
    for (int64_t i = 0; i < hk_tensor_count(t); i++)
        if (!isfinite(hk_get_double(t, i)))
            return hk_fail(d->ctx, HK_STATUS_INVALID, "%s: sample %lld has %s in place %lld", where,
                           (long long)(i / per_sample), isnan(hk_get_double(t, i)) ? "NaN" : "an infinity",
                           (long long)(i % per_sample));
    return HK_OK;
}

static int64_t product(int32_t rank, const int64_t *shape)
{
    hk_shape s = {.rank = rank};
    memcpy(s.dim, shape, (size_t)rank * sizeof *shape);
    return hk_shape_count(&s);
}

/* A tensor of all samples, to look at its elements. */
static hk_tensor all_samples(const hk_dataset *d, hk_dtype stored, int64_t elements, const void *contents)
{
    return (hk_tensor){
        .data = (void *)(uintptr_t)contents, .dtype = stored, .rank = 2, .shape = {(int64_t)d->count, elements}};
}

void hk_dataset_tell_fit(hk_dataset *d, const hk_shape *found)
{
    const hk_dataset_params *p = &d->params;
    hk_shape want = {.rank = 3, .dim = {p->shape[0], p->shape[1], p->shape[2]}};
    hk_shape_text a, b;
    int64_t channels = found->rank == 3 ? found->dim[0] : 1;
    bool sizes = memcmp(&found->dim[found->rank - 2], &want.dim[1], 2 * sizeof *want.dim) != 0;
    bool told = p->resize > 0 && channels == want.dim[0]; /* the caller asked for it */
    if (!told && (sizes || channels != want.dim[0]))
        hk_log(d->ctx, HK_LOG_WARN,
               "'%s': samples have shape %s and are %s to become %s; give the data that shape to keep them", d->path,
               hk_shape_print(found, &a),
               !sizes                    ? "given other channels"
               : channels == want.dim[0] ? "scaled"
                                         : "scaled and given other channels",
               hk_shape_print(&want, &b));
}

hk_status hk_dataset_field(hk_dataset *d, const char *name, hk_dtype stored, int32_t rank, const int64_t *shape,
                           const void *contents)
{
    const hk_dataset_params *p = &d->params;
    if (d->field_count == HK_MAX_FIELDS)
        return hk_fail(d->ctx, HK_STATUS_UNSUPPORTED, "'%s' has more than %d arrays", d->path, HK_MAX_FIELDS);
    hk_field *f = &d->fields[d->field_count++];
    *f = (hk_field){.stored = stored, .elements = product(rank, shape), .contents = contents, .stored_rank = rank};
    memcpy(f->stored_shape, shape, (size_t)rank * sizeof *shape);
    bool indices = stored == HK_INT64 || stored == HK_INT32;
    f->info = (hk_value_info){.name = name, .dtype = indices ? stored : HK_FLOAT32, .rank = rank};
    memcpy(f->info.shape, shape, (size_t)rank * sizeof *shape);
    if (p->rank > 0) {
        hk_shape_text a, b;
        hk_shape have = {.rank = rank}, want = {.rank = p->rank};
        memcpy(have.dim, shape, (size_t)rank * sizeof *shape);
        memcpy(want.dim, p->shape, (size_t)p->rank * sizeof *p->shape);
        bool picture = !indices && p->rank == 3 && (rank == 2 || rank == 3);
        if (hk_shape_count(&want) != f->elements && !picture)
            return hk_fail(d->ctx, HK_STATUS_INVALID, "'%s': a sample has shape %s, which cannot become %s", d->path,
                           hk_shape_print(&have, &a), hk_shape_print(&want, &b));
        if (hk_shape_count(&want) != f->elements)
            hk_dataset_tell_fit(d, &have);
        f->info.rank = p->rank;
        memcpy(f->info.shape, p->shape, (size_t)p->rank * sizeof *p->shape);
    }
    hk_tensor all = all_samples(d, stored, f->elements, contents);
    return check_numbers(d, d->path, &all, HK_MAX(f->elements, 1));
}

/* Integers stay as they are stored; a batch widens them. */
static hk_status take_labels(hk_dataset *d, const char *where, const hk_tensor *all, int32_t rank, const int64_t *shape)
{
    bool whole = !hk_dtype_is_float(all->dtype);
    int64_t count = hk_tensor_count(all), per_sample = all->shape[1];
    int64_t *labels = whole ? NULL : hk_dataset_memory(d, (size_t)count * sizeof *labels);
    if (!whole && !labels)
        return hk_out_of_memory(d->ctx, "labels");
    for (int64_t i = 0; i < count; i++) {
        double x = hk_get_double(all, i);
        bool ignored = x == (double)d->ignore_index;
        if (!ignored && (!(x >= 0 && x < 1e9) || x != floor(x)))
            return hk_fail(d->ctx, HK_STATUS_INVALID,
                           "%s: the label of sample %lld is %g; labels are whole numbers from 0, or the one to ignore, "
                           "%lld (to train on numbers, say so with targets)",
                           where, (long long)(i / per_sample), x, (long long)d->ignore_index);
        if (labels)
            labels[i] = (int64_t)x;
        if (!ignored)
            d->classes = HK_MAX(d->classes, (int64_t)x + 1);
    }
    d->target = (hk_field){.info = {.name = "labels", .dtype = HK_INT64, .rank = per_sample == 1 ? 0 : rank},
                           .stored = whole ? all->dtype : HK_INT64,
                           .elements = per_sample,
                           .contents = whole ? all->data : labels};
    memcpy(d->target.info.shape, shape, (size_t)d->target.info.rank * sizeof *shape);
    return HK_OK;
}

hk_status hk_dataset_target(hk_dataset *d, const char *where, hk_dtype stored, int32_t rank, const int64_t *shape,
                            const void *contents)
{
    int64_t elements = product(rank, shape);
    hk_tensor all = all_samples(d, stored, elements, contents);
    if (!d->params.targets && (elements == 1 || !hk_dtype_is_float(stored)))
        return take_labels(d, where, &all, rank, shape);
    d->target = (hk_field){.info = {.name = "targets", .dtype = HK_FLOAT32, .rank = rank},
                           .stored = stored,
                           .elements = elements,
                           .contents = contents};
    memcpy(d->target.info.shape, shape, (size_t)rank * sizeof *shape);
    return check_numbers(d, where, &all, HK_MAX(elements, 1));
}

/* ---- opening */

/* Images and labels of one dataset have the same name but for that word: train-images-idx3-ubyte.gz. */
static bool labels_beside(const char *images, char *out, size_t bytes)
{
    static const char *const words[][2] = {{"images-idx3", "labels-idx1"},
                                           {"images", "labels"},
                                           {"x.npy", "y.npy"},
                                           {"X.npy", "y.npy"},
                                           {"inputs", "targets"}};
    const char *slash = strrchr(images, '/'), *file = slash ? slash + 1 : images;
    for (size_t i = 0; i < HK_COUNT(words); i++) {
        const char *at = strstr(file, words[i][0]);
        if (!at)
            continue;
        snprintf(out, bytes, "%.*s%s%s", (int)(at - images), images, words[i][1], at + strlen(words[i][0]));
        struct stat s;
        if (stat(out, &s) == 0)
            return true;
    }
    return false;
}

static hk_status open_labels(hk_dataset *d, const char *images)
{
    char beside[1024];
    const char *path = d->params.labels;
    hk_tensor t = {0};
    if (!path && labels_beside(images, beside, sizeof beside))
        path = beside;
    if (!path)
        return hk_fail(d->ctx, HK_STATUS_NO_INPUT, "no labels were found beside '%s': name their file", images);
    HK_TRY(hk_dataset_array(d, path, &t));
    if (t.rank < 1 || (size_t)t.shape[0] != d->count)
        return hk_fail(d->ctx, HK_STATUS_INVALID, "'%s' has %lld samples, '%s' has %zu", path,
                       t.rank < 1 ? 1ll : (long long)t.shape[0], images, d->count);
    return hk_dataset_target(d, hk_arena_string(d->arena, path), t.dtype, t.rank - 1, t.shape + 1, t.data);
}

static hk_status open_array(hk_dataset *d, const char *path, hk_tensor *t)
{
    if (t->rank < 1 || t->shape[0] < 1)
        return hk_fail(d->ctx, HK_STATUS_INVALID, "'%s' has no samples", path);
    d->count = (size_t)t->shape[0];
    int64_t shape[HK_MAX_RANK];
    int32_t rank = t->rank - 1;
    memcpy(shape, t->shape + 1, sizeof shape - sizeof *shape);
    HK_TRY(hk_dataset_field(d, "", t->dtype, rank, shape, t->data));
    return open_labels(d, path);
}

static hk_status open_file(hk_dataset *d, const char *path)
{
    const uint8_t *data = NULL;
    size_t bytes = 0, length = strlen(path);
    hk_tensor t = {0};
    HK_TRY(hk_dataset_map(d, path, &data, &bytes));
    if (hk_cifar_is(path, bytes)) {
        d->file_count--;
        hk_file_close(&d->files[d->file_count]);
        return hk_open_cifar(d, &path, 1);
    }
    if (hk_idx_is(data, bytes)) {
        d->format = "IDX";
        HK_TRY(hk_idx_read(d, path, data, bytes, &t));
        return open_array(d, path, &t);
    }
    if (hk_npy_is(data, bytes)) {
        d->format = "npy";
        HK_TRY(hk_npy_read(d->ctx, path, data, bytes, &t));
        HK_TRY(hk_dataset_keep(d, t.data));
        return open_array(d, path, &t);
    }
    if (bytes > 4 && !memcmp(data, "PK\3\4", 4)) {
        d->format = "npz";
        return hk_open_npz(d, data, bytes);
    }
    if (length > 4 && (!strcmp(path + length - 4, ".csv") || !strcmp(path + length - 4, ".tsv"))) {
        d->format = "CSV";
        return hk_open_csv(d, data, bytes);
    }
    return hk_fail(d->ctx, HK_STATUS_UNSUPPORTED,
                   "'%s' is no data file that is known: IDX, .npy, .npz, .csv, CIFAR's .bin, or a folder (formats of "
                   "this build: %s)",
                   path, HK_DATA_FORMATS);
}

/* A folder: of IDX files, of CIFAR files, or of classes. */
static hk_status open_folder(hk_dataset *d)
{
    char found[1024] = "", *cifar[16];
    size_t cifars = 0;
    DIR *folder = opendir(d->path);
    if (!folder)
        return hk_fail(d->ctx, HK_STATUS_NO_INPUT, "folder '%s' cannot be read", d->path);
    bool failed = false;
    for (struct dirent *e; (e = readdir(folder)) != NULL && !failed;) {
        struct stat s;
        char path[1024];
        snprintf(path, sizeof path, "%s/%s", d->path, e->d_name);
        if (strstr(e->d_name, "images-idx3") && (!*found || strcmp(path, found) < 0))
            snprintf(found, sizeof found, "%s", path);
        if (stat(path, &s) == 0 && hk_cifar_is(path, (size_t)s.st_size) && strncmp(e->d_name, "test", 4) != 0 &&
            cifars < HK_COUNT(cifar))
            failed = !(cifar[cifars++] = hk_arena_string(d->arena, path));
    }
    closedir(folder);
    if (failed)
        return hk_out_of_memory(d->ctx, "a dataset");
    if (*found)
        return open_file(d, hk_arena_string(d->arena, found));
    for (size_t i = 1; i < cifars; i++) /* by name, whatever order the folder has */
        for (size_t k = i; k > 0 && strcmp(cifar[k - 1], cifar[k]) > 0; k--) {
            char *swap = cifar[k];
            cifar[k] = cifar[k - 1];
            cifar[k - 1] = swap;
        }
    if (cifars)
        return hk_open_cifar(d, (const char *const *)cifar, cifars);
    return hk_open_class_folders(d);
}

static hk_status check_params(hk_context *ctx, const hk_dataset_params *p)
{
    if (p->rank < 0 || p->rank > HK_MAX_RANK || (p->rank > 0 && product(p->rank, p->shape) < 1))
        return hk_fail(ctx, HK_STATUS_USAGE, "the shape of a sample has a dimension below 1");
    if ((p->mean || p->std) && !p->channels)
        return hk_fail(ctx, HK_STATUS_USAGE, "mean and std need the number of channels");
    if ((int)p->event_bins < 0 || p->event_bins > HK_EVENT_BINS_TIME)
        return hk_fail(ctx, HK_STATUS_USAGE, "hk_dataset_params.event_bins is %d, which is no way to bin events",
                       (int)p->event_bins);
    if (!(p->frame_time >= 0 && isfinite(p->frame_time)))
        return hk_fail(ctx, HK_STATUS_USAGE, "a frame of %g microseconds: expected above 0", p->frame_time);
    for (size_t i = 0; p->std && i < p->channels; i++)
        if (!(p->std[i] > 0))
            return hk_fail(ctx, HK_STATUS_USAGE, "std of channel %zu is %g, expected above 0", i, (double)p->std[i]);
    return HK_OK;
}

static const float *copied(hk_arena *arena, const float *x, size_t count, bool *failed)
{
    float *y = x ? hk_arena_array(arena, count, sizeof *y) : NULL;
    *failed |= x && !y;
    if (y)
        memcpy(y, x, count * sizeof *y);
    return y;
}

static hk_status finish(hk_dataset *d)
{
    for (size_t i = 0; i < d->field_count; i++) {
        const hk_field *f = &d->fields[i];
        d->infos[i] = f->info;
        if (d->params.channels > 1 && (f->info.rank < 1 || (size_t)f->info.shape[0] != d->params.channels))
            return hk_fail(d->ctx, HK_STATUS_INVALID, "'%s' has %lld channels, mean and std have %zu", d->path,
                           f->info.rank < 1 ? 0ll : (long long)f->info.shape[0], d->params.channels);
    }
    return HK_OK;
}

hk_status hk_dataset_open(hk_context *ctx, const char *path, const hk_dataset_params *params, hk_dataset **out)
{
    hk_dataset_params p = {.size = sizeof p};
    struct stat s;
    if (params)
        memcpy(&p, params, HK_MIN(params->size, sizeof p));
    HK_TRY(check_params(ctx, &p));
    if (stat(path, &s) != 0)
        return hk_fail(ctx, HK_STATUS_NO_INPUT, "data '%s' cannot be opened", path);
    hk_dataset *d = hk_alloc(ctx, sizeof *d);
    hk_arena *arena = d ? hk_arena_create(ctx) : NULL;
    if (!arena) {
        hk_free(ctx, d);
        return hk_out_of_memory(ctx, "a dataset");
    }
    *d = (hk_dataset){.ctx = ctx, .arena = arena, .params = p, .path = hk_arena_string(arena, path)};
    bool failed = !d->path;
    d->ignore_index = p.ignore_index ? *p.ignore_index : -100;
    d->params.ignore_index = NULL; /* the caller's */
    d->params.mean = copied(arena, p.mean, p.channels, &failed);
    d->params.std = copied(arena, p.std, p.channels, &failed);
    hk_status st = failed ? hk_out_of_memory(ctx, "a dataset") : HK_OK;
    if (st == HK_OK)
        st = S_ISDIR(s.st_mode) ? open_folder(d) : open_file(d, d->path);
    if (st == HK_OK)
        st = finish(d);
    d->params.labels = d->params.label_column = NULL; /* the caller's */
    if (st == HK_OK)
        *out = d;
    else
        hk_dataset_close(&d);
    return st;
}

void hk_dataset_close(hk_dataset **dataset)
{
    hk_dataset *d = *dataset;
    if (!d)
        return;
    *dataset = NULL;
    for (size_t i = 0; i < d->file_count; i++)
        hk_file_close(&d->files[i]);
    for (size_t i = 0; i < d->block_count; i++)
        hk_free(d->ctx, d->blocks[i]);
    hk_free(d->ctx, d->files);
    hk_free(d->ctx, d->blocks);
    hk_arena_destroy(&d->arena);
    hk_free(d->ctx, d);
}

void hk_dataset_get_info(const hk_dataset *d, hk_dataset_info *out)
{
    *out = (hk_dataset_info){.format = d->format,
                             .count = d->count,
                             .inputs = d->field_count,
                             .input = d->infos,
                             .target = d->target.info,
                             .classes = d->classes,
                             .class_names = d->class_names,
                             .bad = d->bad};
}

/* ---- one sample */

static void normalise(const hk_dataset_params *p, const hk_field *f, float scale, float *x)
{
    int64_t count = product(f->info.rank, f->info.shape);
    int64_t channels = p->channels > 1 ? (int64_t)p->channels : 1, plane = count / channels;
    for (int64_t c = 0; c < channels; c++) {
        float mean = p->mean ? p->mean[c] : 0, std = p->std ? p->std[c] : 1;
        for (int64_t i = c * plane; i < (c + 1) * plane; i++)
            x[i] = (x[i] * scale - mean) / std;
    }
}

/* Numbers in memory as an image, to be fitted to another size. */
static bool fit_numbers(const hk_dataset *d, const hk_field *f, const float *numbers, float *out)
{
    const int64_t *want = f->info.shape, *have = f->stored_shape;
    bool grey = f->stored_rank == 2;
    hk_image image = {.pixels = (float *)(uintptr_t)numbers,
                      .channels = grey ? 1 : have[0],
                      .height = grey ? have[0] : have[1],
                      .width = grey ? have[1] : have[2]};
    return hk_image_fit(&image, d->params.resize, want[0], want[1], want[2], out);
}

hk_tensor hk_dataset_stored(const hk_field *f, size_t i)
{
    return (hk_tensor){.data = (char *)(uintptr_t)f->contents + i * (size_t)f->elements * hk_dtype_bytes(f->stored),
                       .dtype = f->stored,
                       .rank = 1,
                       .shape = {f->elements}};
}

static bool number_sample(const hk_dataset *d, const hk_field *f, size_t i, void *out, char *error)
{
    size_t item = hk_dtype_bytes(f->stored);
    const hk_tensor one = hk_dataset_stored(f, i);
    if (f->info.dtype == f->stored) {
        memcpy(out, one.data, (size_t)f->elements * item);
        if (f->info.dtype != HK_FLOAT32)
            return true;
    } else if (f->info.dtype == HK_INT64) {
        for (int64_t k = 0; k < f->elements; k++)
            ((int64_t *)out)[k] = hk_get_int(&one, k);
        return true;
    }
    bool fit = f != &d->target && product(f->info.rank, f->info.shape) != f->elements;
    float *numbers = fit ? malloc((size_t)f->elements * sizeof *numbers) : out; /* in a loader's thread */
    for (int64_t k = 0; numbers && k < f->elements; k++)
        numbers[k] = (float)hk_get_double(&one, k);
    bool ok = numbers && (!fit || fit_numbers(d, f, numbers, out));
    if (fit)
        free(numbers);
    if (!ok) {
        snprintf(error, 256, "there is no memory to fit its image");
        return false;
    }
    bool bytes = f->stored == HK_UINT8;
    if (f != &d->target)
        normalise(&d->params, f, d->params.scale != 0 ? d->params.scale : bytes ? 1.0f / 255 : 1, out);
    return true;
}

bool hk_dataset_sample(const hk_dataset *d, const hk_field *f, size_t i, void *out, char *error)
{
    if (f->contents)
        return number_sample(d, f, i, out, error);
    if (d->events) {
        if (!hk_event_frames(&d->params, d->images[i].path, f->info.shape, out, error))
            return false;
        normalise(&d->params, f, d->params.scale != 0 ? d->params.scale : 1, out);
        return true;
    }
    hk_image image = {0};
    if (!hk_image_decode(d->images[i].path, &image, error))
        return false;
    bool ok = hk_image_fit(&image, d->params.resize, f->info.shape[0], f->info.shape[1], f->info.shape[2], out);
    hk_image_release(&image);
    if (ok)
        normalise(&d->params, f, d->params.scale != 0 ? d->params.scale : 1.0f / 255, out);
    else
        snprintf(error, 256, "there is no memory to fit it");
    return ok;
}
