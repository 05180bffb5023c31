/*
 * Division by an invariant, and alignment: what index arithmetic of kernels needs from the host.
 */
#ifndef HK_DIVISOR_H
#define HK_DIVISOR_H

#include "core/graph.h"

/* n / d == (high word of n * multiplier + n) >> shift for 0 <= n < 2^31; d in 1 .. 2^31 (Granlund and Montgomery 1994,
 * figure 4.1). The shaders have the other half. */
typedef struct hk_divisor {
    uint32_t extent, multiplier, shift;
} hk_divisor;
hk_divisor hk_divisor_of(int64_t d);

/* Bytes, at most 16, at a multiple of which the storage of v begins on the device, views included. */
uint32_t hk_value_alignment(const hk_value *v);

#endif
