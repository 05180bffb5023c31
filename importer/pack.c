/*
 * protobuf-c's output, streamed into a file writer: weights are not copied once more.
 */
#include "importer/pack.h"

typedef struct pack_buffer {
    ProtobufCBuffer base; /* first, so that its address is the buffer's */
    hk_file_writer *writer;
} pack_buffer;

static void append(ProtobufCBuffer *buffer, size_t bytes, const uint8_t *data)
{
    hk_file_write(((pack_buffer *)buffer)->writer, data, bytes); /* commit returns the first failure */
}

hk_status hk_pack_save(hk_context *ctx, const ProtobufCMessage *message, const char *path)
{
    pack_buffer buffer = {.base = {.append = append}};
    if (protobuf_c_message_get_packed_size(message) > INT32_MAX)
        return hk_fail(ctx, HK_STATUS_UNSUPPORTED, "'%s' would be larger than 2 GiB, which the format does not allow",
                       path);
    HK_TRY(hk_file_writer_create(ctx, path, &buffer.writer));
    protobuf_c_message_pack_to_buffer(message, &buffer.base);
    return hk_file_writer_commit(&buffer.writer);
}

hk_status hk_pack_memory(hk_context *ctx, const ProtobufCMessage *message, void **data, size_t *bytes)
{
    size_t n = protobuf_c_message_get_packed_size(message);
    if (n > INT32_MAX)
        return hk_fail(ctx, HK_STATUS_UNSUPPORTED,
                       "the model would be larger than 2 GiB, which the format does not allow");
    void *packed = hk_alloc(ctx, n + 1);
    if (packed == NULL)
        return hk_out_of_memory(ctx, "a model");
    *bytes = protobuf_c_message_pack(message, packed);
    *data = packed;
    return HK_OK;
}
