/* hk_device_measure: the two rates that bound every kernel, measured as any kernel runs. */
#include <stddef.h>

#include "kernels.h"
#include "runtime/objects.h"
#include "shaders/fma_rate.push.h"

enum {
    TRIES = 5, /* the best counts: the others wait for clocks and caches */
    CHAINS = 16,
    GROUP = 128,
};

typedef struct measurement {
    hk_device *dev;
    bool software;
    hk_gpu_buffer *from, *to;
    hk_gpu_commands *commands;
} measurement;

/* Runs what was recorded between two timestamps; the shortest of several times, by the host's clock where the device
 * has none. */
static hk_status fastest(const measurement *m, double *seconds)
{
    bool stamps = hk_gpu_info(m->dev->gpu)->caps >> HK_CAP_TIMESTAMPS & 1u;
    uint64_t best = UINT64_MAX;
    for (int i = 0; i < TRIES; i++) {
        uint64_t ticket = 0, ns[2] = {hk_now_ns()};
        HK_TRY(hk_gpu_submit(m->dev->gpu, (hk_gpu_commands *const[]){m->commands}, 1, &ticket));
        HK_TRY(hk_gpu_wait(m->dev->gpu, ticket));
        ns[1] = hk_now_ns();
        if (stamps)
            HK_TRY(hk_gpu_timestamps(m->commands, 2, ns));
        best = HK_MIN(best, ns[1] - ns[0]);
    }
    *seconds = (double)HK_MAX(best, (uint64_t)1) * 1e-9;
    return HK_OK;
}

static hk_status measure_copy(const measurement *m, double *bytes_per_second)
{
    uint64_t bytes = hk_gpu_buffer_bytes(m->from);
    double seconds = 0;
    HK_TRY(hk_gpu_begin(m->commands));
    hk_gpu_timestamp(m->commands, 0);
    hk_gpu_barrier(m->commands);
    hk_gpu_copy(m->commands, m->from, 0, m->to, 0, bytes);
    hk_gpu_barrier(m->commands);
    hk_gpu_timestamp(m->commands, 1);
    HK_TRY(hk_gpu_end(m->commands));
    HK_TRY(fastest(m, &seconds));
    *bytes_per_second = 2 * (double)bytes / seconds;
    return HK_OK;
}

static hk_status measure_fma(const measurement *m, double *flops_per_second)
{
    hk_gpu_pipeline_key key = {.kernel = &hk_kernel_fma_rate, .spec_count = 3, .spec = {GROUP, 1, 1}};
    hk_gpu_pipeline *pipeline = NULL;
    uint32_t groups = m->software ? 64 : 132 * 16;
    struct fma_rate_push push = {
        .y = hk_gpu_buffer_address(m->to), .rounds = m->software ? 1024 : 4096, .factor = 0.999f, .addend = 0.001f};
    double seconds = 0;
    HK_TRY(hk_gpu_pipelines(m->dev->gpu, &key, 1, &pipeline));
    HK_TRY(hk_gpu_begin(m->commands));
    hk_gpu_timestamp(m->commands, 0);
    hk_gpu_barrier(m->commands);
    hk_gpu_dispatch(m->commands, pipeline, (uint32_t[]){groups, 1, 1}, &push,
                    (uint32_t)(offsetof(struct fma_rate_push, addend) + sizeof push.addend));
    hk_gpu_barrier(m->commands);
    hk_gpu_timestamp(m->commands, 1);
    HK_TRY(hk_gpu_end(m->commands));
    HK_TRY(fastest(m, &seconds));
    *flops_per_second = 2.0 * CHAINS * push.rounds * GROUP * groups / seconds;
    return HK_OK;
}

hk_status hk_device_measure(hk_device *dev, hk_device_rates *out)
{
    hk_gpu *gpu = dev->gpu;
    measurement m = {.dev = dev, .software = hk_gpu_info(gpu)->type == HK_DEVICE_SOFTWARE};
    hk_device_rates rates = {0};
    uint64_t bytes = m.software ? (uint64_t)32 << 20 : (uint64_t)256 << 20; /* more than caches hold */
    bytes = HK_MIN(bytes, hk_gpu_info(gpu)->max_allocation_bytes / 256 * 256);
    hk_status st = hk_gpu_buffer_create(gpu, HK_GPU_DEVICE, bytes, "measuring the copy rate", &m.from);
    if (st == HK_OK)
        st = hk_gpu_buffer_create(gpu, HK_GPU_DEVICE, bytes, "measuring the copy rate", &m.to);
    if (st == HK_OK)
        st = hk_gpu_commands_create(gpu, 2, &m.commands);
    if (st == HK_OK)
        st = measure_copy(&m, &rates.copy_bytes_per_second);
    if (st == HK_OK)
        st = measure_fma(&m, &rates.flops_per_second);
    hk_gpu_commands_destroy(gpu, &m.commands);
    hk_gpu_buffer_destroy(gpu, &m.from);
    hk_gpu_buffer_destroy(gpu, &m.to);
    if (st == HK_OK)
        *out = rates;
    return st;
}
