/* Division by an invariant, and alignment of values. */
#include "ops/divisor.h"

#include "ops/op.h"

hk_divisor hk_divisor_of(int64_t d)
{
    uint32_t shift = 0;
    while (((int64_t)1 << shift) < d)
        shift++;
    uint64_t multiplier = ((((uint64_t)1 << shift) - (uint64_t)d) << 32) / (uint64_t)d + 1;
    return (hk_divisor){(uint32_t)d, (uint32_t)multiplier, shift};
}

uint32_t hk_value_alignment(const hk_value *v)
{
    uint64_t bytes = hk_dtype_device_bytes(hk_value_storage(v));
    uint64_t offset = 0;
    while (v->producer && v->producer->in_count > 0 && v->producer->in[0] && v == v->producer->out[0]) {
        int64_t step = hk_node_view_offset(v->producer);
        if (step < 0)
            break;
        offset += (uint64_t)step * bytes;
        v = v->producer->in[0];
    }
    uint32_t alignment = 16;
    while (offset % alignment)
        alignment /= 2;
    return alignment;
}
