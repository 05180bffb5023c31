/*
 * The protobuf wire format, as the pre-scan, the tensor decoder and the writers see it
 * (protobuf.dev/programming-guides/encoding).
 */
#ifndef HK_WIRE_H
#define HK_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "weights are used where they lie in the file, so the host must be little-endian"
#endif

enum { HK_WIRE_VARINT = 0, HK_WIRE_FIXED64 = 1, HK_WIRE_BYTES = 2, HK_WIRE_FIXED32 = 5 };
enum { HK_VARINT_MAX = 10, HK_WIRE_NUMBER_MAX = (1 << 29) - 1 };

/* One field as it lies in memory: number, wire type, and what follows its tag. */
typedef struct hk_wire_field {
    uint32_t number;
    int type;
    size_t start;         /* of its tag */
    size_t offset, bytes; /* of its contents: behind the length of HK_WIRE_BYTES, else the number itself */
    uint64_t value;       /* of HK_WIRE_VARINT */
} hk_wire_field;

/* Reads a varint at *at, which moves behind it; false if it is longer than 10 bytes or runs past end. */
static inline bool hk_wire_varint(const uint8_t *data, size_t *at, size_t end, uint64_t *out)
{
    uint64_t x = 0;
    for (unsigned shift = 0; shift < 7 * HK_VARINT_MAX; shift += 7) {
        if (*at >= end)
            return false;
        uint8_t b = data[(*at)++];
        x |= (uint64_t)(b & 0x7f) << shift; /* of the tenth byte only the lowest bit stays */
        if (!(b & 0x80)) {
            *out = x;
            return true;
        }
    }
    return false;
}

/* Reads the field at *at, which moves behind it; false if it is malformed or runs past end. Groups, which ONNX has
 * none of, are malformed. */
static inline bool hk_wire_next(const uint8_t *data, size_t *at, size_t end, hk_wire_field *out)
{
    uint64_t tag, length;
    out->start = *at;
    if (!hk_wire_varint(data, at, end, &tag) || tag > UINT32_MAX || tag >> 3 == 0)
        return false;
    out->number = (uint32_t)(tag >> 3);
    out->type = (int)(tag & 7);
    out->offset = *at;
    switch (out->type) {
    case HK_WIRE_VARINT:
        if (!hk_wire_varint(data, at, end, &out->value))
            return false;
        out->bytes = *at - out->offset;
        return true;
    case HK_WIRE_FIXED64:
    case HK_WIRE_FIXED32: out->bytes = out->type == HK_WIRE_FIXED64 ? 8 : 4; break;
    case HK_WIRE_BYTES:
        if (!hk_wire_varint(data, at, end, &length) || length > end - *at)
            return false;
        out->offset = *at;
        out->bytes = (size_t)length;
        break;
    default: return false;
    }
    if (out->bytes > end - out->offset)
        return false;
    *at = out->offset + out->bytes;
    return true;
}

/* Writes a varint into at most 10 bytes; returns how many. */
static inline size_t hk_wire_put(uint8_t *to, uint64_t x)
{
    size_t n = 0;
    for (; x >= 0x80; x >>= 7)
        to[n++] = (uint8_t)(x | 0x80);
    to[n++] = (uint8_t)x;
    return n;
}

static inline size_t hk_wire_put_tag(uint8_t *to, uint32_t number, int type)
{
    return hk_wire_put(to, (uint64_t)number << 3 | (unsigned)type);
}

#endif
