#include "ops/support/octets.h"

#include "kernels.h"
#include "ops/divisor.h"
#include "shaders/relayout.push.h"

int64_t hk_octets_count(int64_t images, int64_t channels, int64_t plane)
{
    return images * plane * ((channels + 7) / 8 * 8);
}

hk_record *hk_emit_octets(hk_lower *l, const hk_octets *o)
{
    hk_divisor d = hk_divisor_of(o->plane);
    struct relayout_push push = {.pixels = (uint32_t)(o->images * o->plane),
                                 .channels = (uint32_t)o->channels,
                                 .octets = (uint32_t)(o->channels + 7) / 8,
                                 .plane = (uint32_t)o->plane,
                                 .plane_magic = d.multiplier,
                                 .plane_shift = d.shift};
    hk_record *r = hk_emit(l, o->pack ? &hk_kernel_relayout_pack : &hk_kernel_relayout_unpack,
                           o->pack ? "to NHWC8" : "from NHWC8");
    uint32_t lanes = l->cpu ? 32 : HK_MIN(256u, l->device->max_invocations);
    uint32_t octets = push.octets >= 4 ? 4 : push.octets >= 2 ? 2 : 1;
    hk_push(r, &push, sizeof push);
    hk_use(r, o->plain, o->pack ? HK_READ : HK_WRITE, offsetof(struct relayout_push, plain));
    hk_use(r, o->packed, o->pack ? HK_WRITE : HK_READ, offsetof(struct relayout_push, packed));
    hk_workgroup(r, lanes, 1, 1);
    hk_spec(r, 3, hk_stores_halves(o->packed));
    hk_spec(r, 4, octets);
    uint64_t pixels = lanes / octets;
    hk_grid_1d(l, r, (push.pixels + pixels - 1) / pixels * ((push.octets + octets - 1) / octets));
    return r;
}
