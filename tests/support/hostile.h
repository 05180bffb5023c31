/*
 * Loading a model as its enemy would: in a context that counts, with a clock, through inference, folding and planning.
 */
#ifndef HK_TEST_HOSTILE_H
#define HK_TEST_HOSTILE_H

#include "tests/support/onnx_bytes.h"

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif

typedef struct hostile_load {
    hk_status status;        /* of loading */
    size_t nodes, problems;  /* those of hk_model_check included */
    double seconds, loading; /* processor time of all, and of loading alone */
    size_t peak_bytes;       /* of the context's allocations */
    bool leaked;
    char error[600]; /* loading's sentence, or the first problem as "node (op): reason" */
} hostile_load;

/* Loads a file, or bytes when path is NULL, and checks it with hk_model_check. */
void hostile_open(hostile_load *h, const char *path, const void *data, size_t bytes);

/* What the project promises for any file below 1 MiB; NULL, or what was not kept, in text. */
const char *hostile_bounds(const hostile_load *h, size_t bytes, char text[160]);

#endif
