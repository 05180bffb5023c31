/*
 * Messages of protobuf-c into files.
 */
#ifndef HK_PACK_H
#define HK_PACK_H

#include <protobuf-c/protobuf-c.h>

#include "core/file.h"

/* Writes a message to a new file. HK_STATUS_UNSUPPORTED above 2 GiB, which the format does not allow. */
hk_status hk_pack_save(hk_context *ctx, const ProtobufCMessage *message, const char *path);

#endif
