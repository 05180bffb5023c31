/*
 * Messages of protobuf-c into files and memory.
 */
#ifndef HK_PACK_H
#define HK_PACK_H

#include <protobuf-c/protobuf-c.h>

#include "core/file.h"

/* Writes a message to a new file. HK_STATUS_UNSUPPORTED above 2 GiB, which the format does not allow. */
hk_status hk_pack_save(hk_context *ctx, const ProtobufCMessage *message, const char *path);
/* The same into memory that the caller frees with hk_free. */
hk_status hk_pack_memory(hk_context *ctx, const ProtobufCMessage *message, void **data, size_t *bytes);

#endif
