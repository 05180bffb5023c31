/* Images: folders of classes, decoding, fitting to a size. */
#include <ctype.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#ifdef HK_HAVE_PNG
#include <png.h>
#endif
#ifdef HK_HAVE_JPEG
#include <turbojpeg.h>
#endif

#include "train/dataset.h"

#define IMAGE_SIDE_LIMIT 32768
#define IMAGE_FILE_LIMIT ((size_t)1 << 30)

void hk_image_release(hk_image *image)
{
    free(image->pixels);
    *image = (hk_image){0};
}

static bool failed(char *error, const char *why)
{
    snprintf(error, 256, "%s", why);
    return false;
}

/* Interleaved bytes to planes of floats. */
static bool take_bytes(hk_image *out, const uint8_t *bytes, int64_t c, int64_t h, int64_t w, char *error)
{
    float *p = malloc((size_t)(c * h * w) * sizeof *p);
    if (!p)
        return failed(error, "there is no memory to decode it");
    for (int64_t i = 0; i < h * w; i++)
        for (int64_t k = 0; k < c; k++)
            p[k * h * w + i] = bytes[i * c + k];
    *out = (hk_image){.pixels = p, .channels = c, .height = h, .width = w};
    return true;
}

/* ---- formats */

/* Binary PPM and PGM: "P6 width height 255" and a white space, with comments from # to the end of a line. */
static bool decode_pnm(const uint8_t *data, size_t bytes, hk_image *out, char *error)
{
    size_t at = 2;
    int64_t number[3];
    for (int i = 0; i < 3; i++) {
        while (at < bytes && (isspace(data[at]) || data[at] == '#')) {
            if (data[at] == '#')
                while (at < bytes && data[at] != '\n')
                    at++;
            at += at < bytes;
        }
        number[i] = 0;
        for (; at < bytes && isdigit(data[at]) && number[i] < 1 << 20; at++)
            number[i] = number[i] * 10 + (data[at] - '0');
    }
    int64_t c = data[1] == '6' ? 3 : 1;
    if (number[0] < 1 || number[1] < 1 || number[0] > IMAGE_SIDE_LIMIT || number[1] > IMAGE_SIDE_LIMIT ||
        number[2] != 255)
        return failed(error, "its header is no 8-bit PPM's");
    if (bytes - at < 1 + (size_t)(c * number[0] * number[1]))
        return failed(error, "it ends before its last pixel");
    return take_bytes(out, data + at + 1, c, number[1], number[0], error);
}

#ifdef HK_HAVE_PNG
static bool decode_png(const uint8_t *data, size_t bytes, hk_image *out, char *error)
{
    png_image image = {.version = PNG_IMAGE_VERSION};
    if (!png_image_begin_read_from_memory(&image, data, bytes))
        return failed(error, image.message);
    bool color = image.format & PNG_FORMAT_FLAG_COLOR;
    image.format = color ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
    if (image.width > IMAGE_SIDE_LIMIT || image.height > IMAGE_SIDE_LIMIT) {
        png_image_free(&image);
        return failed(error, "it is larger than 32,768 pixels");
    }
    uint8_t *pixels = malloc(PNG_IMAGE_SIZE(image));
    const png_color black = {0, 0, 0}; /* behind transparent pixels */
    if (!pixels || !png_image_finish_read(&image, &black, pixels, 0, NULL)) {
        failed(error, pixels ? image.message : "there is no memory to decode it");
        png_image_free(&image);
        free(pixels);
        return false;
    }
    bool ok = take_bytes(out, pixels, color ? 3 : 1, image.height, image.width, error);
    free(pixels);
    return ok;
}
#endif

#ifdef HK_HAVE_JPEG
static bool decode_jpeg(const uint8_t *data, size_t bytes, hk_image *out, char *error)
{
    int width = 0, height = 0, sampling = 0, space = 0;
    tjhandle tj = tjInitDecompress();
    if (!tj)
        return failed(error, "there is no memory to decode it");
    bool ok = tjDecompressHeader3(tj, data, (unsigned long)bytes, &width, &height, &sampling, &space) == 0 &&
              width <= IMAGE_SIDE_LIMIT && height <= IMAGE_SIDE_LIMIT;
    int64_t c = space == TJCS_GRAY ? 1 : 3;
    uint8_t *pixels = ok ? malloc((size_t)width * (size_t)height * (size_t)c) : NULL;
    ok = pixels && tjDecompress2(tj, data, (unsigned long)bytes, pixels, width, 0, height,
                                 c == 1 ? TJPF_GRAY : TJPF_RGB, TJFLAG_ACCURATEDCT | TJFLAG_STOPONWARNING) == 0;
    if (ok)
        ok = take_bytes(out, pixels, c, height, width, error);
    else
        failed(error, tjGetErrorStr2(tj));
    free(pixels);
    tjDestroy(tj);
    return ok;
}
#endif

static bool decode(const uint8_t *data, size_t bytes, hk_image *out, char *error)
{
    if (bytes > 8 && data[0] == 'P' && (data[1] == '5' || data[1] == '6'))
        return decode_pnm(data, bytes, out, error);
#ifdef HK_HAVE_PNG
    if (bytes > 8 && !memcmp(data, "\x89PNG", 4))
        return decode_png(data, bytes, out, error);
#endif
#ifdef HK_HAVE_JPEG
    if (bytes > 3 && data[0] == 0xff && data[1] == 0xd8)
        return decode_jpeg(data, bytes, out, error);
#endif
    snprintf(error, 256, "it is no image of a format this build reads: %s", HK_DATA_FORMATS);
    return false;
}

bool hk_image_decode(const char *path, hk_image *out, char *error)
{
    FILE *f = fopen(path, "rb");
    struct stat s;
    uint8_t *data = NULL;
    if (!f || fstat(fileno(f), &s) != 0 || s.st_size < 1 || (size_t)s.st_size > IMAGE_FILE_LIMIT) {
        if (f)
            fclose(f);
        return failed(error, f ? "it is empty or larger than 1 GiB" : "it cannot be opened");
    }
    data = malloc((size_t)s.st_size);
    bool ok = data && fread(data, 1, (size_t)s.st_size, f) == (size_t)s.st_size;
    fclose(f);
    ok = ok ? decode(data, (size_t)s.st_size, out, error) : failed(error, "it cannot be read");
    free(data);
    return ok;
}

bool hk_image_name(const char *name)
{
    static const char *const ends[] = {".png", ".jpg", ".jpeg", ".ppm", ".pgm"};
    size_t n = strlen(name);
    for (size_t i = 0; i < HK_COUNT(ends); i++) {
        size_t k = strlen(ends[i]);
        bool same = n > k;
        for (size_t c = 0; same && c < k; c++)
            same = tolower((unsigned char)name[n - k + c]) == ends[i][c];
        if (same)
            return true;
    }
    return false;
}

/* ---- fitting. A triangle filter as wide as the reduction (PIL's BILINEAR), one axis after the other, only for the
 * pixels that the crop keeps. */

typedef struct taps {
    int64_t first, count;
    double center, scale, support;
} taps;

static taps taps_of(int64_t i, double scale, int64_t size)
{
    taps t = {.center = ((double)i + 0.5) * scale, .scale = fmax(scale, 1.0)};
    t.support = t.scale;
    double low = fmax(floor(t.center - t.support + 0.5), 0),
           high = fmin(floor(t.center + t.support + 0.5), (double)size);
    t.first = (int64_t)low;
    t.count = HK_MAX((int64_t)high - t.first, 1);
    return t;
}

static double weight_of(const taps *t, int64_t k)
{
    return fmax(1.0 - fabs(((double)(t->first + k) + 0.5 - t->center) / t->scale), 0.0);
}

/* Lines of `from` pixels at distance `step`, resampled to `to` pixels from pixel `offset` of the scaled line. */
static void resample(const float *in, int64_t lines, int64_t line_step, int64_t from, int64_t step, double scale,
                     int64_t offset, int64_t to, float *out, int64_t out_line_step, int64_t out_step)
{
    for (int64_t i = 0; i < to; i++) {
        taps t = taps_of(i + offset, scale, from);
        double total = 0;
        for (int64_t k = 0; k < t.count; k++)
            total += weight_of(&t, k);
        for (int64_t l = 0; l < lines; l++) {
            double sum = 0;
            for (int64_t k = 0; k < t.count; k++)
                sum += weight_of(&t, k) * (double)in[l * line_step + (t.first + k) * step];
            out[l * out_line_step + i * out_step] = (float)(total > 0 ? sum / total : sum);
        }
    }
}

static void recolour(const hk_image *in, int64_t c, float *plane, int64_t count, float *out)
{
    /* plane holds the fitted channels of in, count pixels each */
    for (int64_t k = 0; k < c; k++)
        for (int64_t i = 0; i < count; i++) {
            if (c == 1 && in->channels >= 3)
                out[i] = 0.299f * plane[i] + 0.587f * plane[count + i] + 0.114f * plane[2 * count + i];
            else
                out[k * count + i] = plane[HK_MIN(k, in->channels - 1) * count + i];
        }
}

bool hk_image_fit(const hk_image *in, uint32_t resize, int64_t c, int64_t h, int64_t w, float *out)
{
    double scale_y = (double)in->height / (double)h, scale_x = (double)in->width / (double)w;
    int64_t top = 0, left = 0;
    if (resize) { /* the shorter side, then the middle */
        scale_y = scale_x = (double)HK_MIN(in->height, in->width) / (double)resize;
        top = (int64_t)lround(((double)in->height / scale_y - (double)h) / 2);
        left = (int64_t)lround(((double)in->width / scale_x - (double)w) / 2);
    }
    float *rows = malloc((size_t)(in->channels * in->height * w) * sizeof *rows);
    float *plane = malloc((size_t)(in->channels * h * w) * sizeof *plane);
    bool ok = rows && plane;
    for (int64_t k = 0; ok && k < in->channels; k++) {
        const float *from = in->pixels + k * in->height * in->width;
        float *row = rows + k * in->height * w;
        resample(from, in->height, in->width, in->width, 1, scale_x, left, w, row, w, 1);
        resample(row, w, 1, in->height, w, scale_y, top, h, plane + k * h * w, 1, w);
    }
    if (ok)
        recolour(in, c, plane, h * w, out);
    free(rows);
    free(plane);
    return ok;
}

/* ---- folders: one per class, in the order of their names */

typedef struct names {
    hk_dataset *d;
    const char **list;
    size_t count, capacity;
} names;

static bool add_name(names *n, const char *name)
{
    if (n->count == n->capacity) {
        size_t capacity = n->capacity * 2 + 64;
        const char **grown = hk_arena_array(n->d->arena, capacity, sizeof *grown);
        if (!grown)
            return false;
        if (n->count)
            memcpy(grown, n->list, n->count * sizeof *grown);
        n->list = grown;
        n->capacity = capacity;
    }
    n->list[n->count] = hk_arena_string(n->d->arena, name);
    return n->list[n->count++] != NULL;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Files that `is` takes, or sub-folders (NULL), of a folder. */
static hk_status list_folder(hk_dataset *d, const char *path, bool (*is)(const char *name), names *out)
{
    *out = (names){.d = d};
    DIR *folder = opendir(path);
    if (!folder)
        return hk_fail(d->ctx, HK_STATUS_NO_INPUT, "folder '%s' cannot be read", path);
    bool ok = true;
    for (struct dirent *e; ok && (e = readdir(folder)) != NULL;) {
        char full[1024];
        struct stat s;
        snprintf(full, sizeof full, "%s/%s", path, e->d_name);
        if (e->d_name[0] == '.' || stat(full, &s) != 0)
            continue;
        if (is ? S_ISREG(s.st_mode) && is(e->d_name) : S_ISDIR(s.st_mode))
            ok = add_name(out, is ? full : e->d_name);
    }
    closedir(folder);
    if (out->count)
        qsort(out->list, out->count, sizeof *out->list, by_name);
    return ok ? HK_OK : hk_out_of_memory(d->ctx, "a dataset");
}

static hk_status add_images(hk_dataset *d, const names *files, int64_t label, size_t *capacity)
{
    if (d->count + files->count > *capacity) {
        *capacity = (d->count + files->count) * 2;
        hk_image_file *grown = hk_arena_array(d->arena, *capacity, sizeof *grown);
        if (!grown)
            return hk_out_of_memory(d->ctx, "a dataset");
        if (d->count)
            memcpy(grown, d->images, d->count * sizeof *grown);
        d->images = grown;
    }
    for (size_t i = 0; i < files->count; i++)
        d->images[d->count++] = (hk_image_file){.path = files->list[i], .label = label};
    return HK_OK;
}

/* The shape of a sample: what the caller wants, else the first image's. */
static hk_status image_field(hk_dataset *d)
{
    char error[256];
    hk_image first = {0};
    hk_field *f = &d->fields[d->field_count++];
    *f = (hk_field){.info = {.name = "", .dtype = HK_FLOAT32, .rank = 3}};
    if (d->params.rank != 0) {
        if (d->params.rank != 3 || (d->params.shape[0] != 1 && d->params.shape[0] != 3))
            return hk_fail(d->ctx, HK_STATUS_INVALID,
                           "'%s' holds images: a sample's shape is (1,H,W) or (3,H,W), not of rank %d", d->path,
                           d->params.rank);
        memcpy(f->info.shape, d->params.shape, 3 * sizeof *d->params.shape);
        if (hk_image_decode(d->images[0].path, &first, error)) { /* else the loader says so, or leaves it out */
            hk_dataset_tell_fit(d, &(hk_shape){.rank = 3, .dim = {first.channels, first.height, first.width}});
            hk_image_release(&first);
        }
        return HK_OK;
    }
    if (!hk_image_decode(d->images[0].path, &first, error))
        return hk_fail(d->ctx, HK_STATUS_INVALID, "image '%s': %s", d->images[0].path, error);
    memcpy(f->info.shape, (int64_t[]){first.channels, first.height, first.width}, 3 * sizeof *f->info.shape);
    hk_image_release(&first);
    return HK_OK;
}

/* Samples of a class: images, or, in a folder that began with one, files of events. */
static hk_status list_class(hk_dataset *d, const char *path, names *files)
{
    if (!d->events)
        HK_TRY(list_folder(d, path, hk_image_name, files));
    if (d->events || (!d->count && !files->count)) {
        HK_TRY(list_folder(d, path, hk_event_name, files));
        d->events = d->events || files->count > 0;
    }
    return files->count ? HK_OK
                        : hk_fail(d->ctx, HK_STATUS_INVALID, "class folder '%s' holds no %s (%s)", path,
                                  d->events ? "file of events" : "image", HK_DATA_FORMATS);
}

hk_status hk_open_class_folders(hk_dataset *d)
{
    names classes, files;
    size_t capacity = 0;
    HK_TRY(list_folder(d, d->path, NULL, &classes));
    if (!classes.count)
        return hk_fail(d->ctx, HK_STATUS_INVALID,
                       "folder '%s' has no folder per class, no IDX and no CIFAR files: nothing to read", d->path);
    for (size_t c = 0; c < classes.count; c++) {
        const char *path = hk_arena_format(d->arena, "%s/%s", d->path, classes.list[c]);
        if (!path)
            return hk_out_of_memory(d->ctx, "a dataset");
        HK_TRY(list_class(d, path, &files));
        HK_TRY(add_images(d, &files, (int64_t)c, &capacity));
    }
    int64_t *labels = hk_dataset_memory(d, d->count * sizeof *labels);
    if (!labels)
        return hk_out_of_memory(d->ctx, "a dataset");
    for (size_t i = 0; i < d->count; i++)
        labels[i] = d->images[i].label;
    d->format = "images";
    HK_TRY(d->events ? hk_event_field(d) : image_field(d));
    HK_TRY(hk_dataset_target(d, d->path, HK_INT64, 0, (int64_t[]){0}, labels));
    d->class_names = classes.list;
    d->classes = (int64_t)classes.count;
    return HK_OK;
}
