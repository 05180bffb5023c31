/* Public device calls. */
#include "runtime/objects.h"

hk_status hk_device_list(hk_context *ctx, hk_device_info *infos, size_t capacity, size_t *count)
{
    return hk_gpu_list(ctx, infos, capacity, count);
}

hk_status hk_device_open(hk_context *ctx, const hk_device_params *params, hk_device **out)
{
    hk_device *dev = hk_alloc(ctx, sizeof *dev);
    if (!dev)
        return hk_out_of_memory(ctx, "a device");
    dev->ctx = ctx;
    hk_status st = hk_gpu_open(ctx, params, &dev->gpu);
    if (st != HK_OK)
        hk_free(ctx, dev);
    else
        *out = dev;
    return st;
}

void hk_device_close(hk_device **dev)
{
    hk_device *d = *dev;
    if (!d)
        return;
    *dev = NULL;
    hk_gpu_close(&d->gpu);
    hk_free(d->ctx, d);
}

const hk_device_info *hk_device_get_info(const hk_device *dev)
{
    return hk_gpu_info(dev->gpu);
}

void hk_device_get_stats(const hk_device *dev, hk_device_stats *out)
{
    hk_gpu_stats(dev->gpu, out);
}
