/*
 * The pre-scan: one pass over the bytes with a stack of its own, driven by the descriptors that protobuf-c generates.
 */
#include "importer/scan.h"

#include "importer/wire.h"
#include "onnx.pb-c.h"

/* ---- what is left out of the skeleton. Training graphs, comments and metadata are not read; they stay in the file. */

static const struct {
    const ProtobufCMessageDescriptor *message;
    uint32_t number;
} left_out[] = {
    {&onnx__tensor_proto__descriptor, 4},                  /* float_data */
    {&onnx__tensor_proto__descriptor, 5},                  /* int32_data */
    {&onnx__tensor_proto__descriptor, 6},                  /* string_data */
    {&onnx__tensor_proto__descriptor, 7},                  /* int64_data */
    {&onnx__tensor_proto__descriptor, 9},                  /* raw_data */
    {&onnx__tensor_proto__descriptor, 10},                 /* double_data */
    {&onnx__tensor_proto__descriptor, 11},                 /* uint64_data */
    {&onnx__tensor_proto__descriptor, 12},                 /* doc_string */
    {&onnx__tensor_proto__descriptor, 16},                 /* metadata_props */
    {&onnx__tensor_proto__descriptor, HK_WIRE_NUMBER_MAX}, /* scanned, which only this scan may write */
    {&onnx__value_info_proto__descriptor, 3},              /* doc_string */
    {&onnx__value_info_proto__descriptor, 4},              /* metadata_props */
    {&onnx__attribute_proto__descriptor, 13},              /* doc_string */
    {&onnx__node_proto__descriptor, 6},                    /* doc_string */
    {&onnx__node_proto__descriptor, 9},                    /* metadata_props */
    {&onnx__graph_proto__descriptor, 10},                  /* doc_string */
    {&onnx__graph_proto__descriptor, 16},                  /* metadata_props */
    {&onnx__function_proto__descriptor, 8},                /* doc_string */
    {&onnx__function_proto__descriptor, 14},               /* metadata_props */
    {&onnx__model_proto__descriptor, 6},                   /* doc_string */
    {&onnx__model_proto__descriptor, 20},                  /* training_info */
};

static bool is_left_out(const ProtobufCMessageDescriptor *message, uint32_t number)
{
    for (size_t i = 0; i < HK_COUNT(left_out); i++)
        if (left_out[i].message == message && left_out[i].number == number)
            return true;
    return false;
}

/* ---- the scanner */

/* Lengths in the skeleton are not known when they are written, so they take 5 bytes, the most protobuf-c reads. */
enum { LENGTH_BYTES = 5, SCANNED_MEMBER_BYTES = 80, FIELDS_WITHOUT_SLAB = 16, ALLOCATION_BYTES = 32 };

typedef struct frame {
    const ProtobufCMessageDescriptor *message;
    size_t start, end; /* in the file */
    size_t body;       /* in the skeleton, behind the length */
    uint64_t seen;     /* bit i: fields[i], which is singular, was there */
    size_t fields;
} frame;

typedef struct scanner {
    hk_context *ctx;
    const uint8_t *data;
    size_t at;
    frame frames[HK_SCAN_DEPTH];
    int depth;
    size_t capacity, tensor_capacity;
    size_t structure_bytes; /* of the file, without what was left out */
    hk_scan *out;
} scanner;

static hk_status fail_at(const scanner *s, size_t at, hk_status st, const char *problem)
{
    const frame *f = &s->frames[s->depth - 1];
    return hk_fail(s->ctx, st, "byte %zu, in %s at byte %zu: %s", at, f->message->short_name, f->start, problem);
}

static hk_status append(scanner *s, const void *bytes, size_t count)
{
    hk_scan *out = s->out;
    if (count > s->capacity - out->skeleton_bytes) {
        size_t larger = HK_MAX(s->capacity * 2, out->skeleton_bytes + count + 4096);
        uint8_t *moved = hk_realloc(s->ctx, out->skeleton, larger);
        if (moved == NULL)
            return hk_out_of_memory(s->ctx, "a model's structure");
        out->skeleton = moved;
        s->capacity = larger;
    }
    memcpy(out->skeleton + out->skeleton_bytes, bytes, count);
    out->skeleton_bytes += count;
    return HK_OK;
}

static hk_status append_tag(scanner *s, uint32_t number, int type)
{
    uint8_t tag[HK_VARINT_MAX];
    return append(s, tag, hk_wire_put_tag(tag, number, type));
}

/* Counts what protobuf-c will allocate; small files may take the base, larger ones in proportion. */
static hk_status charge(scanner *s, size_t at, size_t bytes)
{
    s->out->parse_bytes += bytes + ALLOCATION_BYTES;
    if ((s->out->parse_bytes - HK_MIN(s->out->parse_bytes, (size_t)HK_SCAN_BASE_BYTES)) / HK_SCAN_BYTES_PER_BYTE >
        s->structure_bytes)
        return fail_at(s, at, HK_STATUS_UNSUPPORTED,
                       "too many small parts: parsing them would take more than 48 MiB and 32 times their size");
    return HK_OK;
}

/* ---- one message's begin and end */

static hk_status open_message(scanner *s, const ProtobufCMessageDescriptor *message, size_t start, size_t end)
{
    if (s->depth == HK_SCAN_DEPTH)
        return fail_at(s, start, HK_STATUS_UNSUPPORTED, "messages are nested more than 64 deep");
    s->frames[s->depth++] = (frame){.message = message, .start = start, .end = end, .body = s->out->skeleton_bytes};
    return charge(s, start, message->sizeof_message + sizeof(void *));
}

static hk_status number_tensor(scanner *s, const frame *f)
{
    hk_scan *out = s->out;
    if (out->tensor_count == s->tensor_capacity) {
        size_t larger = HK_MAX(s->tensor_capacity * 2, 64u);
        hk_scan_tensor *moved = hk_realloc(s->ctx, out->tensors, larger * sizeof *moved);
        if (moved == NULL)
            return hk_out_of_memory(s->ctx, "a model's tensors");
        out->tensors = moved;
        s->tensor_capacity = larger;
    }
    uint8_t number[HK_VARINT_MAX];
    size_t bytes = hk_wire_put(number, out->tensor_count);
    out->tensors[out->tensor_count++] = (hk_scan_tensor){f->start, f->end - f->start};
    HK_TRY(append_tag(s, HK_WIRE_NUMBER_MAX, HK_WIRE_VARINT));
    return append(s, number, bytes);
}

static hk_status close_message(scanner *s)
{
    frame *f = &s->frames[s->depth - 1];
    if (f->message == &onnx__tensor_proto__descriptor)
        HK_TRY(number_tensor(s, f));
    if (s->depth > 1) {
        size_t length = s->out->skeleton_bytes - f->body;
        uint8_t *to = s->out->skeleton + f->body - LENGTH_BYTES;
        for (int i = 0; i < LENGTH_BYTES; i++, length >>= 7)
            to[i] = (uint8_t)((length & 0x7f) | (i + 1 < LENGTH_BYTES ? 0x80 : 0));
    }
    s->depth--;
    return HK_OK;
}

/* ---- one field */

static int wire_type_of(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE: return HK_WIRE_BYTES;
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_SFIXED32: return HK_WIRE_FIXED32;
    case PROTOBUF_C_TYPE_DOUBLE:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_SFIXED64: return HK_WIRE_FIXED64;
    default: return HK_WIRE_VARINT;
    }
}

/* Names reach C strings and messages: valid UTF-8 (RFC 3629) without NUL. Overlong forms, surrogates and code points
 * above U+10FFFF fail by the bounds of the second byte. */
static bool is_text(const uint8_t *p, size_t bytes)
{
    for (const uint8_t *end = p + bytes; p < end;) {
        uint8_t b = *p++, low = 0x80, high = 0xbf;
        if (b >= 1 && b < 0x80)
            continue;
        int more = b >= 0xc2 && b <= 0xdf ? 1 : b >= 0xe0 && b <= 0xef ? 2 : b >= 0xf0 && b <= 0xf4 ? 3 : 0;
        if (more == 0 || end - p < more)
            return false;
        low = b == 0xe0 ? 0xa0 : b == 0xf0 ? 0x90 : low;
        high = b == 0xed ? 0x9f : b == 0xf4 ? 0x8f : high;
        if (p[0] < low || p[0] > high)
            return false;
        for (int i = 1; i < more; i++)
            if (p[i] < 0x80 || p[i] > 0xbf)
                return false;
        p += more;
    }
    return true;
}

/* Copies a field that is no message into the skeleton. */
static hk_status keep_field(scanner *s, const ProtobufCFieldDescriptor *known, const hk_wire_field *f)
{
    size_t takes = f->bytes;
    if (known->type == PROTOBUF_C_TYPE_STRING && !is_text(s->data + f->offset, f->bytes))
        return fail_at(s, f->offset, HK_STATUS_INVALID, "a name that is no text: it has a zero byte or is not UTF-8");
    if (known->label == PROTOBUF_C_LABEL_REPEATED)
        takes = wire_type_of(known->type) == HK_WIRE_BYTES ? takes + sizeof(ProtobufCBinaryData)
                                                           : takes * sizeof(uint64_t);
    HK_TRY(charge(s, f->start, takes));
    return append(s, s->data + f->start, f->offset + f->bytes - f->start);
}

static hk_status scan_field(scanner *s)
{
    frame *top = &s->frames[s->depth - 1];
    hk_wire_field f;
    size_t start = s->at;
    if (!hk_wire_next(s->data, &s->at, top->end, &f))
        return fail_at(s, start, HK_STATUS_INVALID, "a malformed field, or one that runs past the end of its message");
    const ProtobufCFieldDescriptor *known = protobuf_c_message_descriptor_get_field(top->message, f.number);
    if (known == NULL || is_left_out(top->message, f.number))
        return HK_OK;
    bool repeated = known->label == PROTOBUF_C_LABEL_REPEATED;
    int wanted = wire_type_of(known->type);
    if (f.type != wanted && !(repeated && f.type == HK_WIRE_BYTES))
        return fail_at(s, f.start, HK_STATUS_INVALID, "a field of the wrong wire type");
    uint64_t bit = (uint64_t)1 << (known - top->message->fields);
    if (!repeated && (top->seen & bit))
        return fail_at(s, f.start, HK_STATUS_INVALID, "a field that may be there once is there again");
    top->seen |= bit;
    s->structure_bytes += f.offset - f.start;
    if (++top->fields > FIELDS_WITHOUT_SLAB)
        HK_TRY(charge(s, f.start, SCANNED_MEMBER_BYTES));
    if (known->type != PROTOBUF_C_TYPE_MESSAGE) {
        s->structure_bytes += f.bytes;
        return keep_field(s, known, &f);
    }
    static const uint8_t room[LENGTH_BYTES] = {0};
    HK_TRY(append_tag(s, f.number, HK_WIRE_BYTES));
    HK_TRY(append(s, room, sizeof room));
    s->at = f.offset;
    return open_message(s, known->descriptor, f.offset, f.offset + f.bytes);
}

hk_status hk_scan_run(hk_context *ctx, const ProtobufCMessageDescriptor *root, const uint8_t *data, size_t bytes,
                      hk_scan *out)
{
    scanner s = {.ctx = ctx, .data = data, .out = out};
    *out = (hk_scan){0};
    s.frames[0] = (frame){.message = root};
    s.depth = 0;
    hk_status st = open_message(&s, root, 0, bytes);
    while (st == HK_OK && s.depth > 0)
        st = s.at == s.frames[s.depth - 1].end ? close_message(&s) : scan_field(&s);
    if (st != HK_OK)
        hk_scan_free(ctx, out);
    return st;
}

void hk_scan_free(hk_context *ctx, hk_scan *s)
{
    hk_free(ctx, s->skeleton);
    hk_free(ctx, s->tensors);
    *s = (hk_scan){0};
}
