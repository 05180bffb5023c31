/*
 * The queue: submits signal a timeline, whose values are the tickets that are waited for. Every wait ends.
 */
#include <stdio.h>
#include <time.h>

#include "gpu/internal.h"

enum {
    SPIN_NS = 200000,      /* shorter than a sleep and a wake-up cost, and many steps end within it */
    SLICE_NS = 500000000,  /* of one sleep, so that a driver whose wait never returns early still lets us look */
    GRACE_NS = 2000000000, /* for the work of a device that did not answer in time, before its objects are left alone */
};

hk_status hk_gpu_submit(hk_gpu *gpu, hk_gpu_commands *const *list, size_t count, uint64_t *ticket)
{
    HK_TRY(hk_gpu_alive(gpu));
    if (count > gpu->submit_capacity) {
        size_t capacity = HK_MAX(count, (size_t)16);
        VkCommandBuffer *larger = hk_realloc(gpu->ctx, gpu->submit_list, capacity * sizeof *larger);
        if (larger == NULL)
            return hk_out_of_memory(gpu->ctx, "a submit");
        gpu->submit_list = larger;
        gpu->submit_capacity = capacity;
    }
    for (size_t i = 0; i < count; i++) {
        if (!list[i]->recorded)
            return hk_fail(gpu->ctx, HK_STATUS_INTERNAL, "recording %zu of a submit was not recorded to its end", i);
        gpu->submit_list[i] = list[i]->buffer;
    }
    uint64_t value = gpu->submitted + 1;
    VkTimelineSemaphoreSubmitInfo timeline = {
        .sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
        .signalSemaphoreValueCount = 1,
        .pSignalSemaphoreValues = &value,
    };
    VkSubmitInfo info = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
        .pNext = &timeline,
        .commandBufferCount = (uint32_t)count,
        .pCommandBuffers = gpu->submit_list,
        .signalSemaphoreCount = 1,
        .pSignalSemaphores = &gpu->timeline,
    };
    VK_TRY(&gpu->vk, vkQueueSubmit, gpu->queue, 1, &info, VK_NULL_HANDLE);
    /* From here on the work runs, so it counts even if the validation layer complains about it. */
    gpu->submitted = value;
    gpu->stats.submits++;
    HK_TRY(hk_vk_settle(&gpu->vk, HK_OK));
    *ticket = value;
    return HK_OK;
}

/* Asks the timeline. Of a spinning wait only the first question goes through the seam: a test that fails the n-th call
 * would otherwise count how often a wait asks. */
static hk_status poll(hk_gpu *gpu, bool first)
{
    uint64_t value = 0;
    VkResult result;
    if (first)
        VK_RUN(result, &gpu->vk, vkGetSemaphoreCounterValue, gpu->device, gpu->timeline, &value);
    else
        result = gpu->vk.vkGetSemaphoreCounterValue(gpu->device, gpu->timeline, &value);
    if (result != VK_SUCCESS)
        return hk_vk_failed(&gpu->vk, "vkGetSemaphoreCounterValue", result);
    gpu->completed = HK_MAX(gpu->completed, HK_MIN(value, gpu->submitted));
    return HK_OK;
}

static hk_status timed_out(hk_gpu *gpu, uint64_t ticket)
{
    gpu->vk.lost = true;
    return hk_fail(
        gpu->ctx, HK_STATUS_DEVICE_LOST,
        "device '%s' did not finish submit %llu within %llu ms: use a smaller batch, or raise HILLOCK_TIMEOUT_MS",
        gpu->info.name, (unsigned long long)ticket, (unsigned long long)(gpu->options.timeout_ns / 1000000u));
}

static hk_status wait_for(hk_gpu *gpu, uint64_t ticket)
{
    uint64_t start = hk_now_ns(), elapsed = 0;
    /* A software device works on this very processor: spinning would take time from it. */
    bool spin = gpu->info.type != HK_DEVICE_SOFTWARE;
    do {
        HK_TRY(poll(gpu, elapsed == 0));
        if (gpu->completed >= ticket)
            return HK_OK;
        elapsed = hk_now_ns() - start;
    } while (spin && elapsed < SPIN_NS);

    while (elapsed < gpu->options.timeout_ns) {
        VkSemaphoreWaitInfo info = {
            .sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO,
            .semaphoreCount = 1,
            .pSemaphores = &gpu->timeline,
            .pValues = &ticket,
        };
        VkResult result;
        uint64_t slice = HK_MIN(gpu->options.timeout_ns - elapsed, (uint64_t)SLICE_NS);
        VK_RUN(result, &gpu->vk, vkWaitSemaphores, gpu->device, &info, slice);
        if (result == VK_SUCCESS) {
            gpu->completed = HK_MAX(gpu->completed, ticket);
            return HK_OK;
        }
        if (result != VK_TIMEOUT)
            return hk_vk_failed(&gpu->vk, "vkWaitSemaphores", result);
        elapsed = hk_now_ns() - start;
    }
    return timed_out(gpu, ticket);
}

hk_status hk_gpu_wait(hk_gpu *gpu, uint64_t ticket)
{
    HK_TRY(hk_gpu_alive(gpu));
    if (ticket > gpu->submitted)
        return hk_fail(gpu->ctx, HK_STATUS_USAGE, "ticket %llu was never given: the last one is %llu",
                       (unsigned long long)ticket, (unsigned long long)gpu->submitted);
    if (ticket > gpu->completed)
        HK_TRY(wait_for(gpu, ticket));
    return hk_vk_settle(&gpu->vk, HK_OK);
}

hk_status hk_queue_wait_all(hk_gpu *gpu)
{
    return hk_gpu_wait(gpu, gpu->submitted);
}

uint64_t hk_gpu_completed(hk_gpu *gpu)
{
    /* A failure shows in the next call that can report one. */
    if (!gpu->vk.lost && gpu->completed < gpu->submitted && poll(gpu, true) != HK_OK)
        hk_log(gpu->ctx, HK_LOG_DEBUG, "%s", hk_context_error(gpu->ctx));
    return gpu->completed;
}

bool hk_queue_quiet(hk_gpu *gpu)
{
    if (gpu->completed == gpu->submitted)
        return true;
    uint64_t limit = gpu->hung ? 0 : gpu->vk.lost ? GRACE_NS : gpu->options.timeout_ns;
    /*
     * Not through the seam: an injected failure would make a device look dead that still runs, and destroying what it
     * uses would crash. A device that is really lost answers at once with an error, and then may be taken apart.
     */
    VkSemaphoreWaitInfo info = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO,
        .semaphoreCount = 1,
        .pSemaphores = &gpu->timeline,
        .pValues = &gpu->submitted,
    };
    VkResult result = gpu->vk.vkWaitSemaphores(gpu->device, &info, limit);
    gpu->hung = result == VK_TIMEOUT;
    if (result != VK_SUCCESS)
        gpu->vk.lost = true;
    if (!gpu->hung)
        gpu->completed = gpu->submitted;
    return !gpu->hung;
}
