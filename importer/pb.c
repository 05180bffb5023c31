/*
 * A TensorProto in a file of its own (.pb), as the ONNX backend tests keep inputs and outputs.
 */
#include <string.h>

#include "importer/internal.h"
#include "importer/pack.h"

/* One file's message under way. */
typedef struct pb_reader {
    hk_context *ctx;
    hk_arena *arena;
    hk_tensor_reader tensors;
} pb_reader;

static hk_status read_tensor(const pb_reader *r, const Onnx__TensorProto *t, hk_tensor *out)
{
    hk_context *ctx = r->ctx;
    hk_tensor_head head = {0};
    hk_decoded decoded = {0};
    HK_TRY(hk_tensor_head_read(&r->tensors, t, &head));
    if (t->n_external_data != 0 ||
        (t->has_data_location && t->data_location != ONNX__TENSOR_PROTO__DATA_LOCATION__DEFAULT))
        return hk_fail(ctx, HK_STATUS_UNSUPPORTED, "its elements lie in another file");
    HK_TRY(hk_tensor_body_read(&r->tensors, t, &head, &decoded));
    if (decoded.problem != NULL)
        return hk_fail(ctx, HK_STATUS_UNSUPPORTED, "the tensor %s", decoded.problem);
    HK_TRY(hk_tensor_create(ctx, head.dtype, &head.shape, out));
    hk_tensor_pack(decoded.tensor, out->data);
    return HK_OK;
}

static hk_status read_sequence(const pb_reader *r, const Onnx__SequenceProto *s, hk_tensor *out)
{
    hk_tensor list = {0};
    if (s->n_sparse_tensor_values != 0 || s->n_sequence_values != 0)
        return hk_fail(r->ctx, HK_STATUS_UNSUPPORTED, "a sequence of other things than dense tensors");
    HK_TRY(hk_tensor_create(r->ctx, HK_SEQUENCE, &(hk_shape){.rank = 1, .dim = {(int64_t)s->n_tensor_values}}, &list));
    hk_status st = HK_OK;
    for (size_t i = 0; i < s->n_tensor_values && st == HK_OK; i++)
        st = read_tensor(r, s->tensor_values[i], (hk_tensor *)list.data + i);
    if (st != HK_OK)
        hk_tensor_release(&list);
    else
        *out = list;
    return st;
}

static hk_status read_optional(const pb_reader *r, const Onnx__OptionalProto *o, hk_tensor *out)
{
    hk_tensor list = {0};
    if (o->sparse_tensor_value != NULL || o->optional_value != NULL ||
        (o->tensor_value != NULL && o->sequence_value != NULL))
        return hk_fail(r->ctx, HK_STATUS_UNSUPPORTED, "an optional of other things than a dense tensor or sequence");
    bool there = o->tensor_value != NULL || o->sequence_value != NULL;
    HK_TRY(hk_tensor_create(r->ctx, HK_OPTIONAL, &(hk_shape){.rank = 1, .dim = {there}}, &list));
    hk_status st = o->tensor_value != NULL     ? read_tensor(r, o->tensor_value, list.data)
                   : o->sequence_value != NULL ? read_sequence(r, o->sequence_value, list.data)
                                               : HK_OK;
    if (st != HK_OK)
        hk_tensor_release(&list);
    else
        *out = list;
    return st;
}

hk_status hk_pb_read(hk_context *ctx, const char *name, const void *data, size_t bytes, hk_dtype kind, hk_tensor *out)
{
    const ProtobufCMessageDescriptor *descriptor = kind == HK_SEQUENCE   ? &onnx__sequence_proto__descriptor
                                                   : kind == HK_OPTIONAL ? &onnx__optional_proto__descriptor
                                                                         : &onnx__tensor_proto__descriptor;
    const char *what = kind == HK_SEQUENCE ? "SequenceProto" : kind == HK_OPTIONAL ? "OptionalProto" : "TensorProto";
    hk_scan scan = {0};
    pb_reader r = {.ctx = ctx, .arena = hk_arena_create(ctx)};
    r.tensors = (hk_tensor_reader){.ctx = ctx, .arena = r.arena, .data = data, .scan = &scan};
    ProtobufCMessage *message = NULL;
    hk_status st = r.arena == NULL ? hk_out_of_memory(ctx, "a tensor") : HK_OK;
    if (st == HK_OK)
        st = hk_scan_run(ctx, descriptor, data, bytes, &scan);
    if (st == HK_OK)
        st = hk_scan_parse(ctx, descriptor, &scan, r.arena, &message);
    if (st == HK_OK)
        st = kind == HK_SEQUENCE   ? read_sequence(&r, (const Onnx__SequenceProto *)message, out)
             : kind == HK_OPTIONAL ? read_optional(&r, (const Onnx__OptionalProto *)message, out)
                                   : read_tensor(&r, (const Onnx__TensorProto *)message, out);
    hk_scan_free(ctx, &scan);
    hk_arena_destroy(&r.arena);
    return st == HK_OK ? st : hk_fail_prefix(ctx, st, "'%s' is no usable .npy or %s", name, what);
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
