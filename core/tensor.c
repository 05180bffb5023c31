/* Shapes, element types, half precision and host tensors. */
#include "core/tensor.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

bool hk_shape_known(const hk_shape *s)
{
    for (int32_t i = 0; i < s->rank; i++)
        if (s->dim[i] < 0)
            return false;
    return s->rank >= 0;
}

int64_t hk_shape_span(const hk_shape *s, int32_t from, int32_t to)
{
    int64_t n = 1;
    for (int32_t i = from; i < to; i++)
        if (s->dim[i] < 0 || __builtin_mul_overflow(n, s->dim[i], &n))
            return -1;
    return n;
}

int64_t hk_shape_count(const hk_shape *s)
{
    return s->rank < 0 ? -1 : hk_shape_span(s, 0, s->rank);
}

bool hk_shape_equal(const hk_shape *a, const hk_shape *b)
{
    if (a->rank != b->rank)
        return false;
    for (int32_t i = 0; i < a->rank; i++)
        if (a->dim[i] != b->dim[i])
            return false;
    return true;
}

void hk_shape_strides(const hk_shape *s, int64_t strides[HK_MAX_RANK])
{
    int64_t n = 1;
    for (int32_t i = s->rank - 1; i >= 0; i--) {
        strides[i] = n;
        n *= s->dim[i];
    }
}

bool hk_shape_broadcast(const hk_shape *a, const hk_shape *b, hk_shape *out)
{
    if (a->rank < 0 || b->rank < 0) {
        *out = HK_SHAPE_UNKNOWN;
        return true;
    }
    hk_shape r = {.rank = HK_MAX(a->rank, b->rank)};
    for (int32_t i = 1; i <= r.rank; i++) {
        int64_t x = i <= a->rank ? a->dim[a->rank - i] : 1;
        int64_t y = i <= b->rank ? b->dim[b->rank - i] : 1;
        int64_t *d = &r.dim[r.rank - i];
        if (x == y || y == 1)
            *d = x;
        else if (x == 1)
            *d = y;
        else if (x < 0 || y < 0)
            *d = HK_MAX(x, y); /* the unknown one must turn out equal or 1 */
        else
            return false;
    }
    *out = r;
    return true;
}

const char *hk_shape_print(const hk_shape *s, hk_shape_text *buffer)
{
    char *p = buffer->text;
    size_t left = sizeof buffer->text;
    if (s->rank < 0) {
        snprintf(p, left, "[unknown rank]");
        return buffer->text;
    }
    int n = snprintf(p, left, "[");
    for (int32_t i = 0; i < s->rank; i++) {
        p += n;
        left -= (size_t)n;
        if (s->dim[i] < 0)
            n = snprintf(p, left, "%s?", i ? "," : "");
        else
            n = snprintf(p, left, "%s%lld", i ? "," : "", (long long)s->dim[i]);
    }
    snprintf(p + n, left - (size_t)n, "]");
    return buffer->text;
}

int32_t hk_axis(int64_t axis, int32_t rank)
{
    if (axis < -(int64_t)rank || axis >= rank)
        return -1;
    return (int32_t)(axis < 0 ? axis + rank : axis);
}

/* ---- element types */

const char *hk_dtype_name(hk_dtype t)
{
    switch (t) {
    case HK_DTYPE_NONE: return "none";
    case HK_FLOAT32: return "float32";
    case HK_UINT8: return "uint8";
    case HK_INT8: return "int8";
    case HK_UINT16: return "uint16";
    case HK_INT16: return "int16";
    case HK_INT32: return "int32";
    case HK_INT64: return "int64";
    case HK_BOOL: return "bool";
    case HK_FLOAT16: return "float16";
    case HK_FLOAT64: return "float64";
    case HK_UINT32: return "uint32";
    case HK_UINT64: return "uint64";
    case HK_BFLOAT16: return "bfloat16";
    case HK_FLOAT8E4M3FN: return "float8e4m3fn";
    case HK_FLOAT8E4M3FNUZ: return "float8e4m3fnuz";
    case HK_FLOAT8E5M2: return "float8e5m2";
    case HK_FLOAT8E5M2FNUZ: return "float8e5m2fnuz";
    case HK_UINT4: return "uint4";
    case HK_INT4: return "int4";
    case HK_FLOAT4E2M1: return "float4e2m1";
    case HK_FLOAT8E8M0: return "float8e8m0";
    case HK_UINT2: return "uint2";
    case HK_INT2: return "int2";
    case HK_SEQUENCE: return "sequence";
    case HK_OPTIONAL: return "optional";
    }
    return "?";
}

size_t hk_dtype_bytes(hk_dtype t)
{
    switch (t) {
    case HK_UINT8:
    case HK_INT8:
    case HK_BOOL:
    case HK_FLOAT8E4M3FN:
    case HK_FLOAT8E4M3FNUZ:
    case HK_FLOAT8E5M2:
    case HK_FLOAT8E5M2FNUZ:
    case HK_UINT4:
    case HK_INT4:
    case HK_FLOAT4E2M1:
    case HK_FLOAT8E8M0:
    case HK_UINT2:
    case HK_INT2: return 1;
    case HK_UINT16:
    case HK_INT16:
    case HK_FLOAT16:
    case HK_BFLOAT16: return 2;
    case HK_FLOAT32:
    case HK_INT32:
    case HK_UINT32: return 4;
    case HK_INT64:
    case HK_UINT64:
    case HK_FLOAT64: return 8;
    case HK_SEQUENCE:
    case HK_OPTIONAL: return sizeof(hk_tensor);
    case HK_DTYPE_NONE: return 0;
    }
    return 0;
}

bool hk_dtype_is_float(hk_dtype t)
{
    return t == HK_FLOAT32 || t == HK_FLOAT64 || hk_dtype_is_half(t) || hk_dtype_is_small(t);
}

bool hk_dtype_is_half(hk_dtype t)
{
    return t == HK_FLOAT16 || t == HK_BFLOAT16;
}

bool hk_dtype_is_small(hk_dtype t)
{
    return (t >= HK_FLOAT8E4M3FN && t <= HK_FLOAT8E5M2FNUZ) || t == HK_FLOAT4E2M1 || t == HK_FLOAT8E8M0;
}

unsigned hk_dtype_bits(hk_dtype t)
{
    if (t == HK_UINT4 || t == HK_INT4 || t == HK_FLOAT4E2M1)
        return 4;
    return t == HK_UINT2 || t == HK_INT2 ? 2 : (unsigned)hk_dtype_bytes(t) * 8;
}

bool hk_dtype_is_list(hk_dtype t)
{
    return t == HK_SEQUENCE || t == HK_OPTIONAL;
}

bool hk_dtype_is_integer(hk_dtype t)
{
    return t != HK_DTYPE_NONE && t != HK_BOOL && !hk_dtype_is_float(t) && !hk_dtype_is_list(t);
}

size_t hk_dtype_device_bytes(hk_dtype t)
{
    size_t bytes = hk_dtype_bytes(t);
    if (hk_dtype_is_list(t)) /* its items have places of their own */
        return 0;
    return bytes == 0 || hk_dtype_is_half(t) ? bytes : HK_MAX(bytes, 4u);
}

/* ---- 16-bit floats (IEEE 754 binary16, and bfloat16 as the upper half of binary32) */

static float bits_to_float(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static uint32_t float_to_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

float hk_half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = (h >> 10) & 31u, mantissa = h & 0x3ffu;
    if (exponent == 31)
        return bits_to_float(sign | 0x7f800000u | mantissa << 13);
    if (exponent == 0)
        return bits_to_float(sign | float_to_bits((float)mantissa * 0x1p-24f));
    return bits_to_float(sign | (exponent + 112) << 23 | mantissa << 13);
}

uint16_t hk_float_to_half(float f)
{
    uint32_t u = float_to_bits(f), sign = (u >> 16) & 0x8000u;
    u &= 0x7fffffffu;
    if (u > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u);
    if (u >= 0x477ff000u) /* rounds to 65536 or above */
        return (uint16_t)(sign | 0x7c00u);
    if (u < 0x38800000u) { /* subnormal: adding 0.5 lets the hardware round at 2^-24 */
        uint32_t r = float_to_bits(bits_to_float(u) + 0.5f);
        return (uint16_t)(sign | (r - 0x3f000000u));
    }
    uint32_t odd = (u >> 13) & 1u;
    return (uint16_t)(sign | ((u + 0xfffu + odd - 0x38000000u) >> 13));
}

float hk_bfloat_to_float(uint16_t b)
{
    return bits_to_float((uint32_t)b << 16);
}

uint16_t hk_float_to_bfloat(float f)
{
    uint32_t u = float_to_bits(f);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(u >> 16 | 0x40u);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

/* To the precision of float with the inexact bit set ("round to odd"), so that the next rounding is the only one. */
static float odd_float(double x)
{
    float f = (float)x;
    if ((double)f == x || !(x == x))
        return f;
    if (fabs((double)f) > fabs(x) || isinf(f))
        f = nextafterf(f, 0.0f);
    return bits_to_float(float_to_bits(f) | 1u);
}

uint16_t hk_double_to_half(double x)
{
    return hk_float_to_half(odd_float(x));
}

uint16_t hk_double_to_bfloat(double x)
{
    return hk_float_to_bfloat(isinf(x) ? (float)x : odd_float(x));
}

/* ---- elements of 2 and 4 bits */

int64_t hk_tensor_file_bytes(const hk_tensor *t)
{
    unsigned bits = hk_dtype_bits(t->dtype);
    int64_t count = hk_tensor_count(t);
    return bits >= 8 ? hk_tensor_bytes(t) : (count * (int64_t)bits + 7) / 8;
}

void hk_bits_pack(hk_dtype t, const void *memory, void *file, int64_t count)
{
    unsigned bits = hk_dtype_bits(t), each = 8 / bits, mask = (1u << bits) - 1u;
    const uint8_t *from = memory;
    uint8_t *to = file;
    for (int64_t i = 0; i < count; i += each) { /* a byte is written after its elements are read: may be in place */
        unsigned byte = 0;
        for (unsigned k = 0; k < each && i + k < count; k++)
            byte |= (from[i + k] & mask) << k * bits;
        to[i / each] = (uint8_t)byte;
    }
}

void hk_bits_unpack(hk_dtype t, const void *file, void *memory, int64_t count)
{
    unsigned bits = hk_dtype_bits(t), each = 8 / bits, mask = (1u << bits) - 1u;
    unsigned sign = t == HK_INT4 || t == HK_INT2 ? 1u << (bits - 1) : 0;
    const uint8_t *from = file;
    uint8_t *to = memory;
    for (int64_t i = 0; i < count; i++) {
        unsigned x = (unsigned)from[i / each] >> (unsigned)(i % each) * bits & mask;
        to[i] = (uint8_t)((x ^ sign) - sign);
    }
}

/* ---- host tensors */

int64_t hk_tensor_count(const hk_tensor *t)
{
    hk_shape s = hk_tensor_shape(t);
    return hk_shape_count(&s);
}

hk_shape hk_tensor_shape(const hk_tensor *t)
{
    hk_shape s = {.rank = t->rank};
    memcpy(s.dim, t->shape, sizeof s.dim);
    return s;
}

int64_t hk_tensor_bytes(const hk_tensor *t)
{
    return hk_tensor_count(t) * (int64_t)hk_dtype_bytes(t->dtype);
}

void hk_tensor_release(hk_tensor *t)
{
    int64_t items = hk_dtype_is_list(t->dtype) && t->data && t->release ? hk_tensor_count(t) : 0;
    for (int64_t i = 0; i < items; i++)
        hk_tensor_release((hk_tensor *)t->data + i);
    if (t->release)
        t->release(t);
    memset(t, 0, sizeof *t);
}

/* Elements of a model's weights lie in the mapped file at any address. */
#define READER(type)                                                                                                   \
    static inline type read_##type(const hk_tensor *t, int64_t i)                                                      \
    {                                                                                                                  \
        type x;                                                                                                        \
        memcpy(&x, (const char *)t->data + i * (int64_t)sizeof x, sizeof x);                                           \
        return x;                                                                                                      \
    }
READER(float)
READER(double)
READER(uint8_t)
READER(int8_t)
READER(uint16_t)
READER(int16_t)
READER(uint32_t)
READER(int32_t)
READER(int64_t)
READER(uint64_t)
#undef READER

#define AS(type) read_##type(t, i)
double hk_get_double(const hk_tensor *t, int64_t i)
{
    switch (t->dtype) {
    case HK_FLOAT32: return (double)AS(float);
    case HK_FLOAT64: return AS(double);
    case HK_FLOAT16: return (double)hk_half_to_float(AS(uint16_t));
    case HK_BFLOAT16: return (double)hk_bfloat_to_float(AS(uint16_t));
    case HK_UINT64: return (double)AS(uint64_t);
    case HK_FLOAT8E4M3FN:
    case HK_FLOAT8E4M3FNUZ:
    case HK_FLOAT8E5M2:
    case HK_FLOAT8E5M2FNUZ:
    case HK_FLOAT4E2M1:
    case HK_FLOAT8E8M0: return hk_small_to_double(t->dtype, AS(uint8_t));
    default: return (double)hk_get_int(t, i);
    }
}

int64_t hk_get_int(const hk_tensor *t, int64_t i)
{
    switch (t->dtype) {
    case HK_INT64:
    case HK_UINT64: return AS(int64_t);
    case HK_INT32: return AS(int32_t);
    case HK_UINT32: return AS(uint32_t);
    case HK_UINT8:
    case HK_UINT4:
    case HK_UINT2: return AS(uint8_t);
    case HK_INT8:
    case HK_INT4:
    case HK_INT2: return AS(int8_t);
    case HK_UINT16: return AS(uint16_t);
    case HK_INT16: return AS(int16_t);
    case HK_BOOL: return AS(uint8_t) != 0;
    case HK_SEQUENCE:
    case HK_OPTIONAL:
    case HK_DTYPE_NONE: return 0;
    case HK_FLOAT32:
    case HK_FLOAT64:
    case HK_FLOAT16:
    case HK_BFLOAT16:
    case HK_FLOAT8E4M3FN:
    case HK_FLOAT8E4M3FNUZ:
    case HK_FLOAT8E5M2:
    case HK_FLOAT8E5M2FNUZ:
    case HK_FLOAT4E2M1:
    case HK_FLOAT8E8M0: break;
    }
    double x = hk_get_double(t, i);
    if (!(x == x))
        return 0;
    return x >= 0x1p63 ? INT64_MAX : x <= -0x1p63 ? INT64_MIN : (int64_t)x;
}
#undef AS

static int64_t saturate(double x, double least, double most)
{
    if (!(x == x))
        return 0;
    return (int64_t)(x < least ? least : x > most ? most : x);
}

#define AS(type) (((type *)t->data)[i])
void hk_set_double(hk_tensor *t, int64_t i, double x)
{
    switch (t->dtype) {
    case HK_FLOAT32: AS(float) = (float)x; break;
    case HK_FLOAT64: AS(double) = x; break;
    case HK_FLOAT16: AS(uint16_t) = hk_double_to_half(x); break;
    case HK_BFLOAT16: AS(uint16_t) = hk_double_to_bfloat(x); break;
    case HK_FLOAT8E4M3FN:
    case HK_FLOAT8E4M3FNUZ:
    case HK_FLOAT8E5M2:
    case HK_FLOAT8E5M2FNUZ:
    case HK_FLOAT4E2M1:
    case HK_FLOAT8E8M0: AS(uint8_t) = hk_small_from_double(t->dtype, x, true); break;
    case HK_INT64: AS(int64_t) = x >= 0x1p63 ? INT64_MAX : x <= -0x1p63 ? INT64_MIN : x == x ? (int64_t)x : 0; break;
    case HK_UINT64: AS(uint64_t) = x >= 0x1p64 ? UINT64_MAX : x > 0 ? (uint64_t)x : 0; break;
    case HK_INT32: AS(int32_t) = (int32_t)saturate(x, INT32_MIN, INT32_MAX); break;
    case HK_UINT32: AS(uint32_t) = (uint32_t)saturate(x, 0, UINT32_MAX); break;
    case HK_UINT8: AS(uint8_t) = (uint8_t)saturate(x, 0, UINT8_MAX); break;
    case HK_INT8: AS(int8_t) = (int8_t)saturate(x, INT8_MIN, INT8_MAX); break;
    case HK_UINT16: AS(uint16_t) = (uint16_t)saturate(x, 0, UINT16_MAX); break;
    case HK_INT16: AS(int16_t) = (int16_t)saturate(x, INT16_MIN, INT16_MAX); break;
    case HK_UINT4: AS(uint8_t) = (uint8_t)saturate(x, 0, 15); break;
    case HK_INT4: AS(int8_t) = (int8_t)saturate(x, -8, 7); break;
    case HK_UINT2: AS(uint8_t) = (uint8_t)saturate(x, 0, 3); break;
    case HK_INT2: AS(int8_t) = (int8_t)saturate(x, -2, 1); break;
    case HK_BOOL: AS(uint8_t) = x != 0; break;
    case HK_SEQUENCE:
    case HK_OPTIONAL:
    case HK_DTYPE_NONE: break;
    }
}

void hk_set_int(hk_tensor *t, int64_t i, int64_t x)
{
    switch (t->dtype) {
    case HK_INT64:
    case HK_UINT64: AS(int64_t) = x; break;
    case HK_INT32: AS(int32_t) = (int32_t)x; break;
    case HK_UINT32: AS(uint32_t) = (uint32_t)x; break;
    case HK_UINT8: AS(uint8_t) = (uint8_t)x; break;
    case HK_INT8: AS(int8_t) = (int8_t)x; break;
    case HK_UINT16: AS(uint16_t) = (uint16_t)x; break;
    case HK_INT16: AS(int16_t) = (int16_t)x; break;
    case HK_BOOL: AS(uint8_t) = x != 0; break;
    case HK_FLOAT32:
    case HK_FLOAT64:
    case HK_FLOAT16:
    case HK_BFLOAT16:
    case HK_FLOAT8E4M3FN:
    case HK_FLOAT8E4M3FNUZ:
    case HK_FLOAT8E5M2:
    case HK_FLOAT8E5M2FNUZ:
    case HK_FLOAT4E2M1:
    case HK_FLOAT8E8M0: hk_set_double(t, i, (double)x); break;
    case HK_UINT4: AS(uint8_t) = (uint8_t)x & 15u; break;
    case HK_INT4: AS(int8_t) = (int8_t)((((unsigned)x & 15u) ^ 8u) - 8u); break;
    case HK_UINT2: AS(uint8_t) = (uint8_t)x & 3u; break;
    case HK_INT2: AS(int8_t) = (int8_t)((((unsigned)x & 3u) ^ 2u) - 2u); break;
    case HK_SEQUENCE:
    case HK_OPTIONAL:
    case HK_DTYPE_NONE: break;
    }
}
#undef AS

/* Bytes of a new tensor, at least 1 so that an empty one still has an address; -1 if too large. */
static int64_t bytes_of(hk_dtype dtype, const hk_shape *shape)
{
    int64_t count = hk_shape_count(shape), bytes;
    if (count < 0 || __builtin_mul_overflow(count, (int64_t)hk_dtype_bytes(dtype), &bytes))
        return -1;
    return bytes ? bytes : 1;
}

static void describe(hk_tensor *t, hk_dtype dtype, const hk_shape *shape, void *data)
{
    *t = (hk_tensor){.data = data, .dtype = dtype, .rank = shape->rank};
    memcpy(t->shape, shape->dim, sizeof t->shape);
}

hk_tensor *hk_tensor_new(hk_arena *arena, hk_dtype dtype, const hk_shape *shape)
{
    int64_t bytes = bytes_of(dtype, shape);
    hk_tensor *t = bytes < 0 ? NULL : hk_arena_new(arena, hk_tensor);
    void *data = t ? hk_arena_alloc(arena, (size_t)bytes) : NULL;
    if (!data)
        return NULL;
    describe(t, dtype, shape, data);
    return t;
}

const hk_tensor *hk_tensor_as(hk_arena *arena, const hk_tensor *t, hk_dtype dtype)
{
    const hk_shape shape = hk_tensor_shape(t);
    hk_tensor *copy = t->dtype == dtype ? NULL : hk_tensor_new(arena, dtype, &shape);
    if (!copy)
        return t->dtype == dtype ? t : NULL;
    for (int64_t i = 0, n = hk_tensor_count(t); i < n; i++)
        hk_set_double(copy, i, hk_get_double(t, i));
    return copy;
}

static void release_heap(hk_tensor *t)
{
    hk_free(t->user, t->data);
}

hk_status hk_tensor_create(hk_context *ctx, hk_dtype dtype, const hk_shape *shape, hk_tensor *out)
{
    int64_t bytes = bytes_of(dtype, shape);
    void *data = bytes < 0 ? NULL : hk_alloc(ctx, (size_t)bytes);
    if (!data)
        return hk_out_of_memory(ctx, "a tensor");
    describe(out, dtype, shape, data);
    out->release = release_heap;
    out->user = ctx;
    return HK_OK;
}

hk_status hk_tensor_copy(hk_context *ctx, const hk_tensor *t, hk_tensor *out)
{
    hk_tensor copy = {0};
    hk_shape s = hk_tensor_shape(t);
    HK_TRY(hk_tensor_create(ctx, t->dtype, &s, &copy));
    hk_status st = HK_OK;
    if (!hk_dtype_is_list(t->dtype))
        hk_tensor_pack(t, copy.data);
    for (int64_t i = 0; hk_dtype_is_list(t->dtype) && i < hk_tensor_count(t) && st == HK_OK; i++)
        st = hk_tensor_copy(ctx, (const hk_tensor *)t->data + i, (hk_tensor *)copy.data + i);
    if (st != HK_OK)
        hk_tensor_release(&copy);
    else
        *out = copy;
    return st;
}

void hk_tensor_pack(const hk_tensor *t, void *out)
{
    size_t bytes = hk_dtype_bytes(t->dtype);
    hk_shape s = hk_tensor_shape(t);
    int64_t count = hk_shape_count(&s), dense[HK_MAX_RANK];
    hk_shape_strides(&s, dense);
    bool contiguous = true, given = false;
    for (int32_t i = 0; i < t->rank; i++) {
        given |= t->strides[i] != 0;
        contiguous &= t->strides[i] == dense[i] || t->shape[i] == 1;
    }
    if (!given || contiguous) {
        memcpy(out, t->data, (size_t)count * bytes);
        return;
    }
    char *to = out;
    for (int64_t i = 0; i < count; i++, to += bytes) {
        int64_t rest = i, at = 0;
        for (int32_t d = 0; d < t->rank; d++) {
            at += rest / dense[d] * t->strides[d];
            rest %= dense[d];
        }
        memcpy(to, (const char *)t->data + at * (int64_t)bytes, bytes);
    }
}

void hk_widen(hk_dtype dtype, const void *host, void *device, int64_t count)
{
    size_t bytes = hk_dtype_bytes(dtype);
    if (bytes == hk_dtype_device_bytes(dtype)) {
        memcpy(device, host, (size_t)count * bytes);
        return;
    }
    hk_tensor t = {.data = (void *)(uintptr_t)host, .dtype = hk_dtype_is_small(dtype) ? HK_UINT8 : dtype};
    int32_t *to = device;
    for (int64_t i = 0; i < count; i++)
        to[i] = (int32_t)hk_get_int(&t, i);
}

void hk_narrow(hk_dtype dtype, const void *device, void *host, int64_t count)
{
    size_t bytes = hk_dtype_bytes(dtype);
    if (bytes == hk_dtype_device_bytes(dtype)) {
        memcpy(host, device, (size_t)count * bytes);
        return;
    }
    hk_tensor t = {.data = host, .dtype = hk_dtype_is_small(dtype) ? HK_UINT8 : dtype};
    const int32_t *from = device;
    for (int64_t i = 0; i < count; i++)
        hk_set_int(&t, i, from[i]);
}
