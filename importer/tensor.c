/*
 * TensorProto → tensor: every encoding of elements, each checked to hold exactly what type and shape say.
 */
#include "importer/internal.h"
#include "importer/wire.h"

/* Numbers of TensorProto's fields that hold elements. */
enum {
    FLOAT_DATA = 4,
    INT32_DATA = 5,
    STRING_DATA = 6,
    INT64_DATA = 7,
    RAW_DATA = 9,
    DOUBLE_DATA = 10,
    UINT64_DATA = 11
};

/* ---- element types, by their ONNX number */

static const struct {
    const char *name;
    uint8_t bits;  /* of an element in raw_data; 0: there is none */
    uint8_t field; /* that holds elements when raw_data does not */
    bool supported;
} types[] = {
    {"undefined", 0, 0, false},
    {"float32", 32, FLOAT_DATA, true},
    {"uint8", 8, INT32_DATA, true},
    {"int8", 8, INT32_DATA, true},
    {"uint16", 16, INT32_DATA, true},
    {"int16", 16, INT32_DATA, true},
    {"int32", 32, INT32_DATA, true},
    {"int64", 64, INT64_DATA, true},
    {"string", 0, STRING_DATA, false},
    {"bool", 8, INT32_DATA, true},
    {"float16", 16, INT32_DATA, true},
    {"float64", 64, DOUBLE_DATA, true},
    {"uint32", 32, UINT64_DATA, true},
    {"uint64", 64, UINT64_DATA, true},
    {"complex64", 64, FLOAT_DATA, false},
    {"complex128", 128, DOUBLE_DATA, false},
    {"bfloat16", 16, INT32_DATA, true},
    {"float8e4m3fn", 8, INT32_DATA, true},
    {"float8e4m3fnuz", 8, INT32_DATA, true},
    {"float8e5m2", 8, INT32_DATA, true},
    {"float8e5m2fnuz", 8, INT32_DATA, true},
    {"uint4", 4, INT32_DATA, true},
    {"int4", 4, INT32_DATA, true},
    {"float4e2m1", 4, INT32_DATA, true},
    {"float8e8m0", 8, INT32_DATA, true},
    {"uint2", 2, INT32_DATA, true},
    {"int2", 2, INT32_DATA, true},
};

const char *hk_onnx_type_name(int32_t data_type)
{
    return data_type < 0 || data_type >= (int32_t)HK_COUNT(types) ? "?" : types[data_type].name;
}

hk_dtype hk_onnx_dtype(int64_t data_type)
{
    bool supported = data_type > 0 && data_type < (int64_t)HK_COUNT(types) && types[data_type].supported;
    return supported ? (hk_dtype)data_type : HK_DTYPE_NONE;
}

/* ---- type and shape */

static hk_status read_shape(const hk_tensor_reader *r, const Onnx__TensorProto *t, hk_tensor_head *head)
{
    head->count = 1;
    for (size_t i = 0; i < t->n_dims; i++) {
        if (t->dims[i] < 0)
            return hk_fail(r->ctx, HK_STATUS_INVALID, "dimension %zu is %lld", i, (long long)t->dims[i]);
        if (__builtin_mul_overflow(head->count, t->dims[i], &head->count))
            return hk_fail(r->ctx, HK_STATUS_INVALID, "its dimensions have a product above 2^63");
    }
    if (t->n_dims > HK_MAX_RANK) {
        head->problem = hk_arena_format(r->arena, "has rank %zu, at most %d is supported", t->n_dims, HK_MAX_RANK);
        return head->problem == NULL ? hk_out_of_memory(r->ctx, "a message") : HK_OK;
    }
    head->shape.rank = (int32_t)t->n_dims;
    for (size_t i = 0; i < t->n_dims; i++)
        head->shape.dim[i] = t->dims[i];
    if (head->count > INT32_MAX)
        head->problem = "has more than 2^31 - 1 elements";
    return HK_OK;
}

hk_status hk_tensor_head_read(const hk_tensor_reader *r, const Onnx__TensorProto *t, hk_tensor_head *out)
{
    hk_tensor_head head = {.dtype = hk_onnx_dtype(t->data_type)};
    if (!t->has_data_type || t->data_type <= 0 || t->data_type >= (int32_t)HK_COUNT(types))
        return hk_fail(r->ctx, HK_STATUS_INVALID, "its element type is %d, expected 1 to %zu", (int)t->data_type,
                       HK_COUNT(types) - 1);
    if (t->segment != NULL)
        return hk_fail(r->ctx, HK_STATUS_UNSUPPORTED, "it is one segment of a tensor that was cut in pieces");
    HK_TRY(read_shape(r, t, &head));
    uint64_t bits;
    if (__builtin_mul_overflow((uint64_t)head.count, (uint64_t)types[t->data_type].bits, &bits) ||
        bits > UINT64_MAX - 7)
        return hk_fail(r->ctx, HK_STATUS_INVALID, "its elements have more than 2^61 bytes");
    head.bytes = (bits + 7) / 8;
    head.typed_field = types[t->data_type].field;
    if (!types[t->data_type].supported) {
        head.problem = hk_arena_format(r->arena, "has elements of type %s, which is not supported",
                                       types[t->data_type].name);
        if (head.problem == NULL)
            return hk_out_of_memory(r->ctx, "a message");
    }
    *out = head;
    return HK_OK;
}

/* ---- where the elements lie. Typed fields may come in several packed runs and single elements, in any mix. */

typedef struct contents {
    uint32_t field;       /* 0: none */
    size_t runs;          /* packed runs and single elements, strings */
    size_t offset, bytes; /* of the first, in the file */
    uint64_t total;       /* bytes of all runs */
    bool packed;          /* the first is a run */
} contents;

static bool holds_elements(uint32_t number)
{
    return (number >= FLOAT_DATA && number <= INT64_DATA) || (number >= RAW_DATA && number <= UINT64_DATA);
}

static bool is_wire_type(const hk_wire_field *f)
{
    switch (f->number) {
    case FLOAT_DATA: return f->type == HK_WIRE_FIXED32 || f->type == HK_WIRE_BYTES;
    case DOUBLE_DATA: return f->type == HK_WIRE_FIXED64 || f->type == HK_WIRE_BYTES;
    case RAW_DATA:
    case STRING_DATA: return f->type == HK_WIRE_BYTES;
    default: return f->type == HK_WIRE_VARINT || f->type == HK_WIRE_BYTES;
    }
}

static hk_status find_contents(const hk_tensor_reader *r, hk_scan_tensor message, contents *out)
{
    contents c = {0};
    size_t at = message.offset, end = message.offset + message.bytes;
    hk_wire_field f;
    while (at < end) {
        if (!hk_wire_next(r->data, &at, end, &f))
            return hk_fail(r->ctx, HK_STATUS_INVALID, "byte %zu: a malformed field", at);
        if (!holds_elements(f.number) || (f.bytes == 0 && f.number != STRING_DATA))
            continue;
        if (!is_wire_type(&f))
            return hk_fail(r->ctx, HK_STATUS_INVALID, "byte %zu: a field of the wrong wire type", f.start);
        if (c.runs != 0 && (f.number != c.field || f.number == RAW_DATA))
            return hk_fail(r->ctx, HK_STATUS_INVALID, "byte %zu: it has contents twice", f.start);
        if (c.runs++ == 0) {
            c.field = f.number;
            c.offset = f.offset;
            c.bytes = f.bytes;
            c.packed = f.type == HK_WIRE_BYTES;
        }
        c.total += f.bytes;
    }
    *out = c;
    return HK_OK;
}

/* ---- decoding */

/* Calls for each run of the field, in order. */
typedef struct run_cursor {
    const uint8_t *data;
    size_t at, end;
    uint32_t field;
} run_cursor;

static bool next_run(run_cursor *c, hk_wire_field *f)
{
    while (c->at < c->end && hk_wire_next(c->data, &c->at, c->end, f))
        if (f->number == c->field && f->bytes != 0)
            return true;
    return false;
}

/* A stored number of a type with fewer bits may be written as signed or unsigned. */
static bool store(hk_tensor *t, int64_t i, uint64_t x)
{
    unsigned bits = t->dtype == HK_BOOL ? 64 : (unsigned)hk_dtype_bytes(t->dtype) * 8;
    int64_t s = (int64_t)x;
    if (bits < 64 && (s < -((int64_t)1 << (bits - 1)) || s >= (int64_t)1 << bits))
        return false;
    if (hk_dtype_is_half(t->dtype))
        ((uint16_t *)t->data)[i] = (uint16_t)x;
    else if (hk_dtype_is_small(t->dtype))
        ((uint8_t *)t->data)[i] = (uint8_t)x;
    else
        hk_set_int(t, i, s);
    return true;
}

static hk_status decode_varints(const hk_tensor_reader *r, run_cursor runs, hk_tensor *t, int64_t count)
{
    hk_wire_field f;
    int64_t i = 0;
    while (next_run(&runs, &f)) {
        size_t at = f.offset, end = f.offset + f.bytes;
        while (at < end) {
            uint64_t x;
            size_t start = at;
            if (!hk_wire_varint(r->data, &at, end, &x))
                return hk_fail(r->ctx, HK_STATUS_INVALID, "byte %zu: a malformed number", start);
            if (i == count)
                return hk_fail(r->ctx, HK_STATUS_INVALID, "it has more elements than its shape's %lld",
                               (long long)count);
            if (!store(t, i++, x))
                return hk_fail(r->ctx, HK_STATUS_INVALID, "byte %zu: element %lld is no %s", start, (long long)(i - 1),
                               hk_dtype_name(t->dtype));
        }
    }
    if (i != count)
        return hk_fail(r->ctx, HK_STATUS_INVALID, "it has %lld elements, its shape %lld", (long long)i,
                       (long long)count);
    return HK_OK;
}

const hk_tensor *hk_tensor_over(const hk_tensor_reader *r, const hk_tensor_head *head, const uint8_t *elements)
{
    size_t size = hk_dtype_bytes(head->dtype);
    bool packed = hk_dtype_bits(head->dtype) < 8;
    if (head->dtype == HK_BOOL || packed) {
        hk_tensor *copy = hk_tensor_new(r->arena, head->dtype, &head->shape);
        if (copy == NULL)
            return NULL;
        if (packed)
            hk_bits_unpack(head->dtype, elements, copy->data, head->count);
        else if (head->count != 0)
            memcpy(copy->data, elements, (size_t)head->count * size);
        if (head->dtype == HK_BOOL)
            for (int64_t i = 0; i < head->count; i++)
                ((uint8_t *)copy->data)[i] = elements[i] != 0;
        return copy;
    }
    hk_tensor *t = hk_arena_new(r->arena, hk_tensor);
    if (t != NULL) {
        *t = (hk_tensor){.data = (void *)(uintptr_t)elements, .dtype = head->dtype, .rank = head->shape.rank};
        memcpy(t->shape, head->shape.dim, sizeof t->shape);
    }
    return t;
}

static hk_status check_contents(const hk_tensor_reader *r, const hk_tensor_head *head, const contents *c)
{
    if (c->runs == 0 && head->count != 0)
        return hk_fail(r->ctx, HK_STATUS_INVALID, "it has no contents, its shape says %lld elements",
                       (long long)head->count);
    if (c->runs == 0)
        return HK_OK;
    if (c->field != RAW_DATA && c->field != head->typed_field)
        return hk_fail(r->ctx, HK_STATUS_INVALID, "its elements are in field %u, which is none for its type", c->field);
    if (c->field == STRING_DATA && c->runs != (uint64_t)head->count)
        return hk_fail(r->ctx, HK_STATUS_INVALID, "it has %zu strings, its shape says %lld", c->runs,
                       (long long)head->count);
    bool fixed = c->field == RAW_DATA || c->field == FLOAT_DATA || c->field == DOUBLE_DATA;
    if (fixed && (c->total != head->bytes || head->typed_field == STRING_DATA))
        return hk_fail(r->ctx, HK_STATUS_INVALID, "it has %llu bytes of contents, type and shape say %llu",
                       (unsigned long long)c->total, (unsigned long long)head->bytes);
    /* A varint has a byte or more: nothing is allocated for elements that cannot be there. Packed types have less. */
    if (!fixed && c->field != STRING_DATA && head->problem == NULL &&
        c->total < HK_MIN(head->bytes, (uint64_t)head->count))
        return hk_fail(r->ctx, HK_STATUS_INVALID, "it has at most %llu elements, its shape says %lld",
                       (unsigned long long)c->total, (long long)head->count);
    return HK_OK;
}

hk_status hk_tensor_body_read(const hk_tensor_reader *r, const Onnx__TensorProto *t, const hk_tensor_head *head,
                              hk_decoded *out)
{
    hk_scan_tensor message = r->scan->tensors[t->scanned];
    contents c = {0};
    HK_TRY(find_contents(r, message, &c));
    HK_TRY(check_contents(r, head, &c));
    if (head->problem != NULL) {
        out->problem = head->problem;
        return HK_OK;
    }
    hk_payload *payload = hk_arena_new(r->arena, hk_payload);
    if (payload == NULL)
        return hk_out_of_memory(r->ctx, "a tensor");
    *payload = (hk_payload){.message = message.offset, .message_bytes = message.bytes, .dtype = head->dtype};
    bool fixed = c.field == RAW_DATA || c.field == FLOAT_DATA || c.field == DOUBLE_DATA;
    if ((fixed && c.runs == 1 && (c.packed || head->count == 1)) || c.runs == 0) {
        payload->in_place = c.runs != 0;
        payload->offset = c.offset;
        payload->bytes = c.bytes;
        /* An empty tensor needs an address all the same; nothing is read there. */
        out->tensor = hk_tensor_over(r, head, c.runs == 0 ? (const uint8_t *)payload : r->data + c.offset);
        out->payload = payload;
        return out->tensor == NULL ? hk_out_of_memory(r->ctx, "a tensor") : HK_OK;
    }
    hk_tensor *copy = hk_tensor_new(r->arena, head->dtype, &head->shape);
    if (copy == NULL)
        return hk_out_of_memory(r->ctx, "a tensor");
    run_cursor runs = {r->data, message.offset, message.offset + message.bytes, c.field};
    if (fixed) {
        hk_wire_field f;
        for (char *to = copy->data; next_run(&runs, &f); to += f.bytes)
            memcpy(to, r->data + f.offset, f.bytes);
    } else if (hk_dtype_bits(head->dtype) < 8) { /* each number is a byte of packed elements */
        hk_shape packed = {.rank = 1, .dim = {(int64_t)head->bytes}};
        hk_tensor *bytes = hk_tensor_new(r->arena, HK_UINT8, &packed);
        if (bytes == NULL)
            return hk_out_of_memory(r->ctx, "a tensor");
        HK_TRY(decode_varints(r, runs, bytes, (int64_t)head->bytes));
        hk_bits_unpack(head->dtype, bytes->data, copy->data, head->count);
    } else {
        HK_TRY(decode_varints(r, runs, copy, head->count));
    }
    out->tensor = copy;
    out->payload = payload;
    return HK_OK;
}

/* ---- in a model */

static hk_status decode(hk_importer *imp, const Onnx__TensorProto *t, hk_decoded *out)
{
    hk_tensor_head head = {0};
    HK_TRY(hk_tensor_head_read(&imp->reader, t, &head));
    if (t->has_data_location && t->data_location == ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL)
        return hk_import_external_tensor(imp, t, &head, out);
    if (t->n_external_data != 0)
        return hk_fail(imp->ctx, HK_STATUS_INVALID, "it names an external file, but does not lie there");
    return hk_tensor_body_read(&imp->reader, t, &head, out);
}

hk_status hk_import_tensor(hk_importer *imp, const Onnx__TensorProto *t, const char *where, const hk_decoded **out)
{
    /* The scan numbered every tensor that reaches the skeleton. */
    if (!t->has_scanned || t->scanned >= imp->scan.tensor_count)
        return hk_fail(imp->ctx, HK_STATUS_INTERNAL, "%s: the scan has not seen its tensor", where);
    hk_decoded *d = &imp->decoded[t->scanned];
    if (!d->done) {
        hk_status st = decode(imp, t, d);
        if (st != HK_OK)
            return hk_fail_prefix(imp->ctx, st, "%s: tensor at byte %zu", where, imp->scan.tensors[t->scanned].offset);
        d->done = true;
    }
    *out = d;
    return HK_OK;
}

/* ---- sparse tensors become dense: nobody downstream knows them */

static hk_status scatter(hk_importer *imp, const hk_tensor *values, const hk_tensor *indices, hk_tensor *dense)
{
    int64_t count = hk_tensor_count(dense), stored = hk_tensor_count(values), strides[HK_MAX_RANK];
    hk_shape shape = hk_tensor_shape(dense);
    bool linear = indices->rank == 1 && indices->shape[0] == stored;
    bool coordinates = indices->rank == 2 && indices->shape[0] == stored && indices->shape[1] == dense->rank;
    if (values->rank != 1 || indices->dtype != HK_INT64 || (!linear && !coordinates))
        return hk_fail(imp->ctx, HK_STATUS_INVALID, "sparse tensor: values and indices do not fit each other");
    hk_shape_strides(&shape, strides);
    size_t size = hk_dtype_bytes(values->dtype);
    for (int64_t i = 0; i < stored; i++) {
        int64_t at = linear ? hk_get_int(indices, i) : 0;
        bool inside = linear ? at >= 0 && at < count : true;
        for (int32_t k = 0; !linear && k < dense->rank; k++) {
            int64_t x = hk_get_int(indices, i * dense->rank + k);
            inside = inside && x >= 0 && x < shape.dim[k];
            at += inside ? x * strides[k] : 0;
        }
        if (!inside)
            return hk_fail(imp->ctx, HK_STATUS_INVALID, "sparse tensor: index %lld is outside of its shape",
                           (long long)i);
        memcpy((char *)dense->data + at * (int64_t)size, (const char *)values->data + i * (int64_t)size, size);
    }
    return HK_OK;
}

hk_status hk_import_sparse(hk_importer *imp, const Onnx__SparseTensorProto *t, const char *where, hk_decoded *out)
{
    const hk_decoded *values = NULL, *indices = NULL;
    if (t->values == NULL || t->indices == NULL)
        return hk_fail(imp->ctx, HK_STATUS_INVALID, "%s: a sparse tensor without values or indices", where);
    HK_TRY(hk_import_tensor(imp, t->values, where, &values));
    HK_TRY(hk_import_tensor(imp, t->indices, where, &indices));
    out->problem = values->problem != NULL ? values->problem : indices->problem;
    if (out->problem != NULL)
        return HK_OK;

    /* The dense one has the type of its values and its own shape. */
    Onnx__TensorProto dense_proto = ONNX__TENSOR_PROTO__INIT;
    dense_proto.has_data_type = true;
    dense_proto.data_type = (int32_t)values->tensor->dtype;
    dense_proto.n_dims = t->n_dims;
    dense_proto.dims = t->dims;
    hk_tensor_head head = {0};
    hk_status st = hk_tensor_head_read(&imp->reader, &dense_proto, &head);
    if (st == HK_OK && head.problem == NULL && head.bytes > imp->params.max_folded_bytes - imp->sparse_bytes)
        head.problem = "is sparse and too large to be made dense";
    if (st == HK_OK && head.problem != NULL) {
        out->problem = head.problem;
        return HK_OK;
    }
    hk_tensor *dense = NULL;
    if (st == HK_OK) {
        imp->sparse_bytes += head.bytes;
        dense = hk_tensor_new(imp->arena, head.dtype, &head.shape);
        st = dense == NULL ? hk_out_of_memory(imp->ctx, "a sparse tensor")
                           : scatter(imp, values->tensor, indices->tensor, dense);
    }
    out->tensor = dense;
    return st == HK_OK ? st : hk_fail_prefix(imp->ctx, st, "%s", where);
}
