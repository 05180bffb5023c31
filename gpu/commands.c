/*
 * Recordings: command buffers that are recorded once and submitted often.
 */
#include <stdio.h>
#include <string.h>

#include "gpu/internal.h"

#define WORK_STAGES (VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT)

static void destroy(hk_gpu *gpu, hk_gpu_commands *c)
{
    if (hk_queue_quiet(gpu)) {
        /* The pool takes its command buffer with it. */
        if (c->pool != VK_NULL_HANDLE)
            gpu->vk.vkDestroyCommandPool(gpu->device, c->pool, NULL);
        if (c->queries != VK_NULL_HANDLE)
            gpu->vk.vkDestroyQueryPool(gpu->device, c->queries, NULL);
    }
    hk_free(gpu->ctx, c);
}

static hk_status create_into(hk_gpu *gpu, hk_gpu_commands *c)
{
    /* A pool of its own makes resetting one recording cheap and independent of the others. */
    VkCommandPoolCreateInfo pool = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
        .queueFamilyIndex = gpu->probe.queue_family,
    };
    VK_TRY(&gpu->vk, vkCreateCommandPool, gpu->device, &pool, NULL, &c->pool);
    VkCommandBufferAllocateInfo buffer = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
        .commandPool = c->pool,
        .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
        .commandBufferCount = 1,
    };
    VK_TRY(&gpu->vk, vkAllocateCommandBuffers, gpu->device, &buffer, &c->buffer);
    if (c->timestamp_capacity > 0) {
        VkQueryPoolCreateInfo queries = {
            .sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO,
            .queryType = VK_QUERY_TYPE_TIMESTAMP,
            .queryCount = c->timestamp_capacity,
        };
        VK_TRY(&gpu->vk, vkCreateQueryPool, gpu->device, &queries, NULL, &c->queries);
    }
    return hk_vk_settle(&gpu->vk, HK_OK);
}

hk_status hk_gpu_commands_create(hk_gpu *gpu, uint32_t timestamp_capacity, hk_gpu_commands **out)
{
    HK_TRY(hk_gpu_alive(gpu));
    hk_gpu_commands *c = hk_alloc(gpu->ctx, sizeof *c);
    if (c == NULL)
        return hk_out_of_memory(gpu->ctx, "a recording");
    c->gpu = gpu;
    c->timestamp_capacity = hk_gpu_has(gpu, HK_CAP_TIMESTAMPS) ? timestamp_capacity : 0;
    hk_status st = create_into(gpu, c);
    if (st != HK_OK) {
        destroy(gpu, c);
        return st;
    }
    *out = c;
    return HK_OK;
}

void hk_gpu_commands_destroy(hk_gpu *gpu, hk_gpu_commands **c)
{
    if (c == NULL || *c == NULL)
        return;
    destroy(gpu, *c);
    *c = NULL;
}

hk_status hk_gpu_begin(hk_gpu_commands *c)
{
    hk_vk *vk = &c->gpu->vk;
    HK_TRY(hk_gpu_alive(c->gpu));
    c->recorded = false;
    c->bound = VK_NULL_HANDLE;
    c->problem[0] = '\0';
    VK_TRY(vk, vkResetCommandPool, c->gpu->device, c->pool, 0);
    VkCommandBufferBeginInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
        .flags = VK_COMMAND_BUFFER_USAGE_SIMULTANEOUS_USE_BIT,
    };
    VK_TRY(vk, vkBeginCommandBuffer, c->buffer, &info);
    if (c->queries != VK_NULL_HANDLE)
        vk->vkCmdResetQueryPool(c->buffer, c->queries, 0, c->timestamp_capacity);
    return hk_vk_settle(vk, HK_OK);
}

/* Recording calls cannot fail; what is wrong with one is told by end. */
static void misuse(hk_gpu_commands *c, const char *what, unsigned long long a, unsigned long long b)
{
    if (c->problem[0] == '\0')
        snprintf(c->problem, sizeof c->problem, "%s (%llu, %llu)", what, a, b);
}

void hk_gpu_dispatch(hk_gpu_commands *c, hk_gpu_pipeline *p, const uint32_t grid[3], const void *push,
                     uint32_t push_bytes)
{
    const hk_vk *vk = &c->gpu->vk;
    if (grid[0] == 0 || grid[1] == 0 || grid[2] == 0)
        return;
    for (size_t i = 0; i < 3; i++) {
        if (grid[i] > c->gpu->info.max_grid) {
            misuse(c, "a dispatch's grid is larger than the device's limit", grid[i], c->gpu->info.max_grid);
            return;
        }
    }
    if (push_bytes > HK_PUSH_MAX || push_bytes % 4 != 0) {
        misuse(c, "push constants are not a multiple of 4 bytes up to the limit", push_bytes, HK_PUSH_MAX);
        return;
    }
    if (c->bound != p->handle) {
        vk->vkCmdBindPipeline(c->buffer, VK_PIPELINE_BIND_POINT_COMPUTE, p->handle);
        c->bound = p->handle;
    }
    if (push_bytes > 0)
        vk->vkCmdPushConstants(c->buffer, c->gpu->layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, push_bytes, push);
    vk->vkCmdDispatch(c->buffer, grid[0], grid[1], grid[2]);
}

static bool in_range(const hk_gpu_buffer *b, uint64_t offset, uint64_t bytes)
{
    return offset <= b->bytes && bytes <= b->bytes - offset;
}

void hk_gpu_copy(hk_gpu_commands *c, const hk_gpu_buffer *src, uint64_t src_offset, hk_gpu_buffer *dst,
                 uint64_t dst_offset, uint64_t bytes)
{
    if (bytes == 0)
        return;
    if (!in_range(src, src_offset, bytes) || !in_range(dst, dst_offset, bytes)) {
        misuse(c, "a copy reaches beyond its buffers", src_offset + bytes, dst_offset + bytes);
        return;
    }
    VkBufferCopy region = {.srcOffset = src_offset, .dstOffset = dst_offset, .size = bytes};
    c->gpu->vk.vkCmdCopyBuffer(c->buffer, src->handle, dst->handle, 1, &region);
}

void hk_gpu_fill(hk_gpu_commands *c, hk_gpu_buffer *dst, uint64_t offset, uint64_t bytes, uint32_t word)
{
    if (bytes == 0)
        return;
    if (!in_range(dst, offset, bytes) || offset % 4 != 0 || bytes % 4 != 0) {
        misuse(c, "a fill is not whole words inside its buffer", offset, bytes);
        return;
    }
    c->gpu->vk.vkCmdFillBuffer(c->buffer, dst->handle, offset, bytes, word);
}

static void barrier(hk_gpu_commands *c, VkPipelineStageFlags more_stages, VkAccessFlags more_access)
{
    VkMemoryBarrier b = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
        .srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT,
        .dstAccessMask = VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_READ_BIT |
                         VK_ACCESS_TRANSFER_WRITE_BIT | more_access,
    };
    c->gpu->vk.vkCmdPipelineBarrier(c->buffer, WORK_STAGES, WORK_STAGES | more_stages, 0, 1, &b, 0, NULL, 0, NULL);
}

void hk_gpu_barrier(hk_gpu_commands *c)
{
    barrier(c, 0, 0);
}

void hk_gpu_barrier_host(hk_gpu_commands *c)
{
    barrier(c, VK_PIPELINE_STAGE_HOST_BIT, VK_ACCESS_HOST_READ_BIT);
}

void hk_gpu_timestamp(hk_gpu_commands *c, uint32_t index)
{
    if (c->queries == VK_NULL_HANDLE)
        return;
    if (index >= c->timestamp_capacity) {
        misuse(c, "a timestamp lies beyond the recording's capacity", index, c->timestamp_capacity);
        return;
    }
    /* The bottom of the pipe: after everything recorded before has ended. */
    c->gpu->vk.vkCmdWriteTimestamp(c->buffer, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, c->queries, index);
}

hk_status hk_gpu_end(hk_gpu_commands *c)
{
    hk_vk *vk = &c->gpu->vk;
    HK_TRY(hk_gpu_alive(c->gpu));
    VK_TRY(vk, vkEndCommandBuffer, c->buffer);
    if (c->problem[0] != '\0')
        return hk_fail(c->gpu->ctx, HK_STATUS_INTERNAL, "recording: %s", c->problem);
    HK_TRY(hk_vk_settle(vk, HK_OK));
    c->recorded = true;
    return HK_OK;
}

hk_status hk_gpu_timestamps(hk_gpu_commands *c, uint32_t count, uint64_t *ns)
{
    hk_gpu *gpu = c->gpu;
    HK_TRY(hk_gpu_alive(gpu));
    if (count == 0)
        return HK_OK;
    if (count > c->timestamp_capacity)
        return hk_fail(
            gpu->ctx, HK_STATUS_UNSUPPORTED,
            "%u timestamps of a recording that has %u: the device has no timestamps, or they are switched off", count,
            c->timestamp_capacity);
    uint64_t *ticks = hk_alloc_array(gpu->ctx, count, sizeof *ticks);
    if (ticks == NULL)
        return hk_out_of_memory(gpu->ctx, "timestamps");
    VkResult result;
    VK_RUN(result, &gpu->vk, vkGetQueryPoolResults, gpu->device, c->queries, 0, count, count * sizeof *ticks, ticks,
           sizeof *ticks, VK_QUERY_RESULT_64_BIT);
    hk_status st = HK_OK;
    if (result == VK_NOT_READY)
        st = hk_fail(gpu->ctx, HK_STATUS_INTERNAL, "not all of %u timestamps were recorded, run and waited for", count);
    else if (result < 0)
        st = hk_vk_failed(&gpu->vk, "vkGetQueryPoolResults", result);
    else
        st = hk_vk_settle(&gpu->vk, HK_OK);
    if (st == HK_OK) {
        /* Differences first: the counter may have few bits and wrap, and a double holds differences exactly. */
        uint32_t bits = gpu->probe.timestamp_bits;
        uint64_t mask = bits >= 64 ? UINT64_MAX : ((uint64_t)1 << bits) - 1;
        double period = (double)gpu->probe.properties.limits.timestampPeriod;
        uint64_t origin = (uint64_t)((double)(ticks[0] & mask) * period);
        for (uint32_t i = 0; i < count; i++)
            ns[i] = origin + (uint64_t)((double)((ticks[i] - ticks[0]) & mask) * period);
    }
    hk_free(gpu->ctx, ticks);
    return st;
}
