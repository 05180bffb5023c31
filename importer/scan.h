/*
 * The look at a file's bytes before protobuf-c parses them. protobuf-c recurses without limit, allocates up to 140
 * times what it reads, and merges repeated messages in quadratic time; so the scan, which does neither, decides first
 * whether the file may be parsed, and leaves out what need not be: the contents of tensors, unknown fields and
 * comments.
 */
#ifndef HK_SCAN_H
#define HK_SCAN_H

#include <protobuf-c/protobuf-c.h>

#include "core/context.h"

enum {
    HK_SCAN_DEPTH = 64,            /* messages inside each other */
    HK_SCAN_BASE_BYTES = 48 << 20, /* what parsing may take besides ... */
    HK_SCAN_BYTES_PER_BYTE = 32,   /* ... this per byte that is not contents of tensors */
};

/* Where the n-th TensorProto that was kept lies in the file. */
typedef struct hk_scan_tensor {
    size_t offset, bytes;
} hk_scan_tensor;

typedef struct hk_scan {
    uint8_t *skeleton; /* a parseable copy without the contents of tensors; TensorProto.scanned numbers them */
    size_t skeleton_bytes;
    hk_scan_tensor *tensors;
    size_t tensor_count;
    size_t parse_bytes; /* upper bound of what protobuf-c allocates for the skeleton */
} hk_scan;

/* Scans a message of the given type (ModelProto, or TensorProto). HK_STATUS_INVALID when the bytes are malformed,
 * HK_STATUS_UNSUPPORTED when they exceed a limit; the sentence names the byte. */
hk_status hk_scan_run(hk_context *ctx, const ProtobufCMessageDescriptor *root, const uint8_t *data, size_t bytes,
                      hk_scan *out);
void hk_scan_free(hk_context *ctx, hk_scan *s);

/* protobuf-c's allocations, in an arena and counted: what is parsed ends with the arena. */
typedef struct hk_parse_memory {
    hk_arena *arena;
    size_t used, limit;
    bool exceeded, failed; /* more than the limit was asked for; the context's allocator failed */
} hk_parse_memory;
ProtobufCAllocator hk_parse_allocator(hk_parse_memory *m);
/* Parses the skeleton; the message lives in the arena and is never freed by itself. */
hk_status hk_scan_parse(hk_context *ctx, const ProtobufCMessageDescriptor *root, const hk_scan *s, hk_arena *arena,
                        ProtobufCMessage **out);

#endif
