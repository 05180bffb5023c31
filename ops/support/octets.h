/* Between contiguous float32 and octets of channels, for whoever lowers a change of layout or needs one on the way. */
#ifndef HK_OCTETS_H
#define HK_OCTETS_H

#include "ops/op.h"

/* plain: (images, channels, plane), contiguous float32; packed: (images, plane, octets of channels), float32 or
 * float16, what completes the last octet zero. */
typedef struct hk_octets {
    hk_value *plain, *packed;
    int64_t images, channels, plane;
    bool pack; /* plain to packed; else back */
} hk_octets;

hk_record *hk_emit_octets(hk_lower *l, const hk_octets *o);
/* Elements of packed. */
int64_t hk_octets_count(int64_t images, int64_t channels, int64_t plane);

#endif
