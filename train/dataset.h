/*
 * Inside of hk_dataset. A format (data_*.c) fills in fields whose contents lie in memory, or a list of image files that
 * are decoded when a sample is wanted; dataset.c and loader.c know no format.
 */
#ifndef HK_DATASET_H
#define HK_DATASET_H

#include "core/file.h"

#define HK_MAX_FIELDS 16

/* What this build reads, for messages. */
#ifdef HK_HAVE_ZLIB
#define HK_FORMATS_ZLIB ", gzip, npz"
#else
#define HK_FORMATS_ZLIB ""
#endif
#ifdef HK_HAVE_PNG
#define HK_FORMATS_PNG ", PNG"
#else
#define HK_FORMATS_PNG ""
#endif
#ifdef HK_HAVE_JPEG
#define HK_FORMATS_JPEG ", JPEG"
#else
#define HK_FORMATS_JPEG ""
#endif
#define HK_DATA_FORMATS "IDX, npy, CSV, CIFAR, events, PPM, PGM" HK_FORMATS_ZLIB HK_FORMATS_PNG HK_FORMATS_JPEG

/* One array of every sample: `elements` numbers of type stored each, at contents, or images. */
typedef struct hk_field {
    hk_value_info info; /* of one sample, as batches show it */
    hk_dtype stored;
    int64_t elements;                  /* of a stored sample */
    const void *contents;              /* NULL: decoded from files */
    int64_t stored_shape[HK_MAX_RANK]; /* of images: (C,H,W) */
    int32_t stored_rank;
} hk_field;

typedef struct hk_image_file {
    const char *path;
    int64_t label;
} hk_image_file;

struct hk_dataset {
    hk_context *ctx;
    hk_arena *arena;
    hk_dataset_params params; /* mean and std are the dataset's */
    const char *path, *format;
    size_t count;
    hk_field fields[HK_MAX_FIELDS];
    size_t field_count;
    hk_field target;
    int64_t classes, ignore_index;
    const char **class_names;
    hk_image_file *images; /* of a folder of images, or of files of events */
    bool events;
    hk_file *files; /* mapped as long as the dataset lives */
    size_t file_count, file_capacity;
    void **blocks; /* heap memory, freed at the end */
    size_t block_count, block_capacity;
    uint64_t bad;
    hk_value_info infos[HK_MAX_FIELDS];
};

/* ---- for formats. All say what is wrong in the context's sentence, with file and place. */

/* Maps a file and keeps it; gzipped contents are inflated (up to 4 GiB). */
hk_status hk_dataset_map(hk_dataset *d, const char *path, const uint8_t **data, size_t *bytes);
/* Memory that lives as long as the dataset. */
void *hk_dataset_memory(hk_dataset *d, size_t bytes);
/* Takes a block of the context's heap over, also when it fails. */
hk_status hk_dataset_keep(hk_dataset *d, void *block);
/* Adds a field of numbers with d->count samples; shape is that of one sample. */
hk_status hk_dataset_field(hk_dataset *d, const char *name, hk_dtype stored, int32_t rank, const int64_t *shape,
                           const void *contents);
/* Warns that pictures of shape found, (H,W) or (C,H,W), do not have the shape that is wanted, unless the caller asked.
 */
void hk_dataset_tell_fit(hk_dataset *d, const hk_shape *found);
/* Labels or, when the caller wants numbers, targets, as a field; checks and counts classes. */
hk_status hk_dataset_target(hk_dataset *d, const char *where, hk_dtype stored, int32_t rank, const int64_t *shape,
                            const void *contents);
/* Any file of numbers as one array: IDX or .npy. The tensor's data live as long as the dataset. */
hk_status hk_dataset_array(hk_dataset *d, const char *path, hk_tensor *out);

bool hk_idx_is(const uint8_t *data, size_t bytes);
hk_status hk_idx_read(hk_dataset *d, const char *path, const uint8_t *data, size_t bytes, hk_tensor *out);
hk_status hk_open_csv(hk_dataset *d, const uint8_t *data, size_t bytes);
hk_status hk_open_npz(hk_dataset *d, const uint8_t *data, size_t bytes);
bool hk_cifar_is(const char *path, size_t bytes);
hk_status hk_open_cifar(hk_dataset *d, const char *const *paths, size_t count);
/* A folder per class, of images or of files of events. */
hk_status hk_open_class_folders(hk_dataset *d);
/* raw deflate data with a known size, or gzip; false when this build has no zlib or the data are corrupt */
bool hk_inflate(hk_context *ctx, const uint8_t *data, size_t bytes, bool gzip, uint8_t **out, size_t *out_bytes,
                size_t limit);

/* ---- images */

typedef struct hk_image {
    float *pixels; /* (C,H,W), malloc'd, in 0 .. 255 */
    int64_t channels, height, width;
} hk_image;
bool hk_image_name(const char *name);
void hk_image_release(hk_image *image);
/* Called from loaders' threads: no context. error: 256 bytes for a sentence without the path. */
bool hk_image_decode(const char *path, hk_image *out, char *error);
/* (C,H,W) of any size into (c,h,w): shorter side to resize (0: both sides straight to h, w) with a triangle filter as
 * wide as the reduction, then the middle; grey becomes colour by repetition, colour grey by ITU-R 601's weights. */
bool hk_image_fit(const hk_image *in, uint32_t resize, int64_t c, int64_t h, int64_t w, float *out);

/* ---- events */

bool hk_event_name(const char *name);
/* Adds the field of a dataset whose images are files of events. */
hk_status hk_event_field(hk_dataset *d);
/* shape: (T,2,H,W). Called from loaders' threads, like hk_image_decode. */
bool hk_event_frames(const hk_dataset_params *p, const char *path, const int64_t *shape, float *out, char *error);

/* A sample's numbers as they are stored, of a field that has contents: no copy. */
hk_tensor hk_dataset_stored(const hk_field *f, size_t i);
/* One sample of a field as batches show it, called from loaders' threads. */
bool hk_dataset_sample(const hk_dataset *d, const hk_field *f, size_t i, void *out, char *error);

#endif
