/*
 * A TensorProto in a file of its own (.pb), as the ONNX backend tests keep inputs and outputs.
 */
#include <string.h>

#include "importer/internal.h"
#include "importer/pack.h"

static hk_status read_tensor(hk_context *ctx, const hk_scan *scan, hk_arena *arena, const uint8_t *data, hk_tensor *out)
{
    ProtobufCMessage *message = NULL;
    hk_tensor_head head = {0};
    hk_decoded decoded = {0};
    hk_tensor_reader reader = {.ctx = ctx, .arena = arena, .data = data, .scan = scan};
    HK_TRY(hk_scan_parse(ctx, &onnx__tensor_proto__descriptor, scan, arena, &message));
    const Onnx__TensorProto *t = (const Onnx__TensorProto *)message;
    HK_TRY(hk_tensor_head_read(&reader, t, &head));
    if (t->n_external_data != 0 ||
        (t->has_data_location && t->data_location != ONNX__TENSOR_PROTO__DATA_LOCATION__DEFAULT))
        return hk_fail(ctx, HK_STATUS_UNSUPPORTED, "its elements lie in another file");
    HK_TRY(hk_tensor_body_read(&reader, t, &head, &decoded));
    if (decoded.problem != NULL)
        return hk_fail(ctx, HK_STATUS_UNSUPPORTED, "the tensor %s", decoded.problem);
    HK_TRY(hk_tensor_create(ctx, head.dtype, &head.shape, out));
    hk_tensor_pack(decoded.tensor, out->data);
    return HK_OK;
}

hk_status hk_pb_read(hk_context *ctx, const char *name, const void *data, size_t bytes, hk_tensor *out)
{
    hk_scan scan = {0};
    hk_arena *arena = hk_arena_create(ctx);
    hk_status st = arena == NULL ? hk_out_of_memory(ctx, "a tensor") : HK_OK;
    if (st == HK_OK)
        st = hk_scan_run(ctx, &onnx__tensor_proto__descriptor, data, bytes, &scan);
    if (st == HK_OK)
        st = read_tensor(ctx, &scan, arena, data, out);
    hk_scan_free(ctx, &scan);
    hk_arena_destroy(&arena);
    return st == HK_OK ? st : hk_fail_prefix(ctx, st, "'%s' is no usable .npy or TensorProto", name);
}

hk_status hk_pb_write(hk_context *ctx, const hk_tensor *t, const char *path)
{
    Onnx__TensorProto proto = ONNX__TENSOR_PROTO__INIT;
    int64_t dims[HK_MAX_RANK];
    if (t->rank < 0 || t->rank > HK_MAX_RANK || hk_dtype_bytes(t->dtype) == 0 || hk_tensor_count(t) < 0)
        return hk_fail(ctx, HK_STATUS_USAGE, "'%s': the tensor's shape or type is not valid", path);
    memcpy(dims, t->shape, sizeof dims);
    proto.n_dims = (size_t)t->rank;
    proto.dims = dims;
    proto.has_data_type = true;
    proto.data_type = (int32_t)t->dtype;
    proto.has_raw_data = true;
    proto.raw_data.len = (size_t)hk_tensor_file_bytes(t);
    proto.raw_data.data = hk_alloc(ctx, (size_t)hk_tensor_bytes(t)); /* at least as many */
    if (proto.raw_data.data == NULL)
        return hk_out_of_memory(ctx, "a tensor's copy");
    hk_tensor_pack(t, proto.raw_data.data);
    if (hk_dtype_bits(t->dtype) < 8) /* in place: each byte is read before it is written over */
        hk_bits_pack(t->dtype, proto.raw_data.data, proto.raw_data.data, hk_tensor_count(t));
    hk_status st = hk_pack_save(ctx, &proto.base, path);
    hk_free(ctx, proto.raw_data.data);
    return st;
}
