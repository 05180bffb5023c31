/*
 * Shapes, element types and contiguous host tensors. Unknown is a value: rank -1, or a dimension of -1.
 */
#ifndef HK_TENSOR_H
#define HK_TENSOR_H

#include "core/context.h"

typedef struct hk_shape {
    int32_t rank; /* -1: unknown */
    int64_t dim[HK_MAX_RANK];
} hk_shape;

#define HK_SHAPE_UNKNOWN ((hk_shape){.rank = -1})
#define HK_SCALAR ((hk_shape){.rank = 0})

bool hk_shape_known(const hk_shape *s);                                 /* rank and every dimension */
int64_t hk_shape_count(const hk_shape *s);                              /* elements; -1 if unknown or above INT64_MAX */
bool hk_shape_equal(const hk_shape *a, const hk_shape *b);              /* unknown equals unknown */
void hk_shape_strides(const hk_shape *s, int64_t strides[HK_MAX_RANK]); /* row-major, elements */
/* Elements in dimensions [from, to); the shape is known. */
int64_t hk_shape_span(const hk_shape *s, int32_t from, int32_t to);
/* numpy broadcasting of two shapes, unknown dimensions included; false if they do not fit. */
bool hk_shape_broadcast(const hk_shape *a, const hk_shape *b, hk_shape *out);
/* "[2,3,?]" into a caller's buffer, which it returns. */
typedef struct hk_shape_text {
    char text[160];
} hk_shape_text;
const char *hk_shape_print(const hk_shape *s, hk_shape_text *buffer);
/* A negative axis counts from the end; -1 if it is outside [-rank, rank). */
int32_t hk_axis(int64_t axis, int32_t rank);

bool hk_dtype_is_float(hk_dtype t);
bool hk_dtype_is_integer(hk_dtype t); /* bool is none */
bool hk_dtype_is_list(hk_dtype t);    /* HK_SEQUENCE, HK_OPTIONAL: of rank 1, elements are hk_tensor */
bool hk_dtype_is_half(hk_dtype t);    /* float16 and bfloat16 */
bool hk_dtype_is_small(hk_dtype t);   /* floats of 4 and 8 bits */
/* Bits of an element in a file, where 2- and 4-bit elements are packed, the first in the low bits. In memory each has a
 * byte: integers their value, floats their bits. */
unsigned hk_dtype_bits(hk_dtype t);
/* Bytes of an element on the device: bool, small floats and integers below 32 bits are widened to 4. */
size_t hk_dtype_device_bytes(hk_dtype t);

float hk_half_to_float(uint16_t h);
uint16_t hk_float_to_half(float f); /* round to nearest even, overflow to infinity */
float hk_bfloat_to_float(uint16_t b);
uint16_t hk_float_to_bfloat(float f);
/* From a double, rounded once. */
uint16_t hk_double_to_half(double x);
uint16_t hk_double_to_bfloat(double x);

/* Floats of 4 and 8 bits, rounded to nearest even. What is too large becomes the largest number, or with saturate false
 * infinity where the type has one, else NaN where it has one. */
double hk_small_to_double(hk_dtype t, uint8_t bits);
uint8_t hk_small_from_double(hk_dtype t, double x, bool saturate);
typedef enum hk_e8m0_rounding { HK_E8M0_UP, HK_E8M0_DOWN, HK_E8M0_NEAREST } hk_e8m0_rounding;
uint8_t hk_e8m0_from_float(float x, bool saturate, hk_e8m0_rounding rounding);

/* Host tensors inside the library are hk_tensor, always contiguous. Element access by linear index, any dtype;
 * integers saturate when set from a double, bool is value != 0. */
hk_shape hk_tensor_shape(const hk_tensor *t);
int64_t hk_tensor_bytes(const hk_tensor *t);
int64_t hk_tensor_file_bytes(const hk_tensor *t);                             /* with 2- and 4-bit elements packed */
void hk_bits_pack(hk_dtype t, const void *memory, void *file, int64_t count); /* t below 8 bits */
void hk_bits_unpack(hk_dtype t, const void *file, void *memory, int64_t count);
double hk_get_double(const hk_tensor *t, int64_t i);
int64_t hk_get_int(const hk_tensor *t, int64_t i);
void hk_set_double(hk_tensor *t, int64_t i, double x);
void hk_set_int(hk_tensor *t, int64_t i, int64_t x);
/* Allocates a zeroed contiguous tensor in the arena; NULL when out of memory or the count overflows. */
hk_tensor *hk_tensor_new(hk_arena *arena, hk_dtype dtype, const hk_shape *shape);
/* t itself if it has that type, else a converted copy in the arena. */
const hk_tensor *hk_tensor_as(hk_arena *arena, const hk_tensor *t, hk_dtype dtype);
/* The same on the context's heap, with a release callback. */
hk_status hk_tensor_create(hk_context *ctx, hk_dtype dtype, const hk_shape *shape, hk_tensor *out);
/* A copy of its own, lists with their items. */
hk_status hk_tensor_copy(hk_context *ctx, const hk_tensor *t, hk_tensor *out);
/* Floats become floats, integers and bool become integers and bool. */
bool hk_dtype_converts(hk_dtype from, hk_dtype to);
/* Elements of another type, of which hk_dtype_converts; both contiguous and of as many. Floats are rounded to nearest
 * even. Returns the first that does not fit (above a float's range, no number of that integer), -1 when all do. */
int64_t hk_tensor_fill_from(hk_tensor *to, const hk_tensor *from);
/* Copies any strided tensor into contiguous memory of count * hk_dtype_bytes. */
void hk_tensor_pack(const hk_tensor *t, void *out);

/* Host layout ↔ device storage (widening, see hk_dtype_device_bytes), count elements. */
void hk_widen(hk_dtype dtype, const void *host, void *device, int64_t count);
void hk_narrow(hk_dtype dtype, const void *device, void *host, int64_t count);

#endif
