/*
 * The safetensors format: 8 bytes of header length, a JSON header, dense little-endian tensors back to back.
 * Reading enforces its rules: header at most 100 MB and beginning with '{', ranges in order without holes or overlap,
 * lengths that equal shape times element, no name twice.
 */
#ifndef HK_SAFETENSORS_H
#define HK_SAFETENSORS_H

#include "core/file.h"

typedef struct hk_safetensor {
    const char *name;
    hk_tensor tensor; /* contiguous */
} hk_safetensor;

typedef struct hk_metadata {
    const char *key, *value;
} hk_metadata;

hk_status hk_safetensors_write(hk_context *ctx, const char *path, const hk_safetensor *tensors, size_t count,
                               const hk_metadata *metadata, size_t metadata_count);

typedef struct hk_safetensors {
    hk_arena *arena;
    hk_file file; /* the tensors' data lies in it */
    hk_safetensor *tensors;
    size_t count;
    hk_metadata *metadata;
    size_t metadata_count;
} hk_safetensors;

hk_status hk_safetensors_read(hk_context *ctx, const char *path, hk_safetensors *out);
void hk_safetensors_finish(hk_safetensors *s);
const hk_tensor *hk_safetensors_find(const hk_safetensors *s, const char *name);
const char *hk_safetensors_metadata(const hk_safetensors *s, const char *key); /* NULL when absent */

#endif
