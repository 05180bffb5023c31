/*
 * Buffers, each with memory of its own; the budget; and blocking copies through staging memory.
 */
#include <stdio.h>
#include <string.h>

#include "gpu/internal.h"

enum { MIB = 1024 * 1024 };
#define STAGING_MAX ((uint64_t)16 * MIB)
#define STAGING_MIN ((uint64_t)64 * 1024)

/* ---------------------------------------------------------------- memory types */

/* A kind of memory that would do, in order of preference: the types with all of want and none of avoid. */
typedef struct wish {
    VkMemoryPropertyFlags want, avoid;
} wish;

enum { WISHES = 3 };

#define LOCAL VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT
#define MAPPED (VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT)
#define CACHED VK_MEMORY_PROPERTY_HOST_CACHED_BIT

static const wish wishes[][WISHES] = {
    [HK_GPU_DEVICE] = {{LOCAL, VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT}, {LOCAL, 0}, {LOCAL, 0}},
    [HK_GPU_UPLOAD] = {{LOCAL | MAPPED, 0}, {MAPPED, CACHED}, {MAPPED, 0}},
    [HK_GPU_READBACK] = {{MAPPED | CACHED, LOCAL}, {MAPPED | CACHED, 0}, {MAPPED, 0}},
};

/* Types that need features we do not switch on, or that the device may not back with memory. */
#define NEVER                                                                                                          \
    (VK_MEMORY_PROPERTY_PROTECTED_BIT | VK_MEMORY_PROPERTY_LAZILY_ALLOCATED_BIT |                                      \
     VK_MEMORY_PROPERTY_DEVICE_COHERENT_BIT_AMD | VK_MEMORY_PROPERTY_DEVICE_UNCACHED_BIT_AMD)

/* The types that would do, best first, each once. */
static uint32_t rank_types(const hk_gpu *gpu, hk_gpu_memory kind, uint32_t allowed, uint32_t types[VK_MAX_MEMORY_TYPES])
{
    uint32_t count = 0;
    for (size_t w = 0; w < WISHES; w++) {
        wish x = wishes[kind][w];
        for (uint32_t i = 0; i < gpu->memory.memoryTypeCount; i++) {
            VkMemoryPropertyFlags flags = gpu->memory.memoryTypes[i].propertyFlags;
            if ((allowed & 1u << i) == 0 || (flags & x.want) != x.want || (flags & (x.avoid | NEVER)) != 0)
                continue;
            types[count++] = i;
            allowed &= ~(1u << i);
        }
    }
    return count;
}

/* ---------------------------------------------------------------- budget */

static bool is_device_heap(const hk_gpu *gpu, uint32_t heap)
{
    return (gpu->memory.memoryHeaps[heap].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT) != 0;
}

/* Bytes that may still be allocated from a heap. Our own check, because drivers may promise more than they have: Mesa's
 * software device accepts any size. */
static uint64_t heap_room(hk_gpu *gpu, uint32_t heap)
{
    uint64_t limit = gpu->memory.memoryHeaps[heap].size, used = gpu->heap_bytes[heap];
    if (gpu->probe.known.memory_budget) {
        VkPhysicalDeviceMemoryBudgetPropertiesEXT budget = {
            .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT};
        VkPhysicalDeviceMemoryProperties2 memory = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2,
                                                    .pNext = &budget};
        gpu->vk.vkGetPhysicalDeviceMemoryProperties2(gpu->probe.handle, &memory);
        if (budget.heapBudget[heap] > 0)
            limit = HK_MIN(limit, budget.heapBudget[heap]);
        used = HK_MAX(used, budget.heapUsage[heap]);
    }
    uint64_t room = used < limit ? limit - used : 0;
    if (is_device_heap(gpu, heap) && gpu->options.max_memory_bytes != UINT64_MAX) {
        uint64_t ours = 0;
        for (uint32_t i = 0; i < gpu->memory.memoryHeapCount; i++)
            ours += is_device_heap(gpu, i) ? gpu->heap_bytes[i] : 0;
        uint64_t allowed = gpu->options.max_memory_bytes;
        room = HK_MIN(room, ours < allowed ? allowed - ours : 0);
    }
    return room;
}

uint64_t hk_gpu_memory_room(hk_gpu *gpu)
{
    uint64_t room = 0;
    for (uint32_t i = 0; i < gpu->memory.memoryHeapCount; i++)
        if (is_device_heap(gpu, i))
            room = HK_MAX(room, heap_room(gpu, i));
    return room;
}

static void count_memory(hk_gpu *gpu, const hk_gpu_buffer *b, bool allocated)
{
    if (allocated) {
        gpu->heap_bytes[b->heap] += b->allocated;
        gpu->stats.memory_bytes += b->allocated;
        gpu->stats.peak_memory_bytes = HK_MAX(gpu->stats.peak_memory_bytes, gpu->stats.memory_bytes);
    } else {
        gpu->heap_bytes[b->heap] -= b->allocated;
        gpu->stats.memory_bytes -= b->allocated;
    }
}

/* ---------------------------------------------------------------- buffers */

static void destroy(hk_gpu *gpu, hk_gpu_buffer *b)
{
    if (hk_queue_quiet(gpu)) {
        /* Freeing memory unmaps it. */
        if (b->handle != VK_NULL_HANDLE)
            gpu->vk.vkDestroyBuffer(gpu->device, b->handle, NULL);
        if (b->memory != VK_NULL_HANDLE)
            gpu->vk.vkFreeMemory(gpu->device, b->memory, NULL);
    }
    if (b->memory != VK_NULL_HANDLE)
        count_memory(gpu, b, false);
    hk_free(gpu->ctx, b);
}

static hk_status allocate(hk_gpu *gpu, hk_gpu_memory kind, const VkMemoryRequirements *need, hk_gpu_buffer *b)
{
    uint32_t types[VK_MAX_MEMORY_TYPES];
    uint32_t count = rank_types(gpu, kind, need->memoryTypeBits, types);
    uint64_t room = 0;
    VkResult result = VK_SUCCESS;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t heap = gpu->memory.memoryTypes[types[i]].heapIndex;
        uint64_t r = heap_room(gpu, heap);
        room = HK_MAX(room, r);
        if (need->size > r)
            continue;
        VkMemoryAllocateFlagsInfo flags = {
            .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO,
            .flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT,
        };
        VkMemoryAllocateInfo info = {
            .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
            .pNext = &flags,
            .allocationSize = need->size,
            .memoryTypeIndex = types[i],
        };
        VkDeviceMemory memory = VK_NULL_HANDLE;
        VK_RUN(result, &gpu->vk, vkAllocateMemory, gpu->device, &info, NULL, &memory);
        if (result == VK_SUCCESS) {
            b->memory = memory;
            b->heap = heap;
            b->allocated = need->size;
            count_memory(gpu, b, true);
            return HK_OK;
        }
        if (result != VK_ERROR_OUT_OF_DEVICE_MEMORY && result != VK_ERROR_OUT_OF_HOST_MEMORY)
            break; /* other memory would not help */
        hk_log(gpu->ctx, HK_LOG_INFO, "vkAllocateMemory returned %s for memory type %u", hk_vk_result_name(result),
               types[i]);
    }
    if (result != VK_SUCCESS)
        return hk_vk_failed(&gpu->vk, "vkAllocateMemory", result);
    const char *limited = gpu->options.max_memory_bytes == UINT64_MAX ? "" : " or raise max_memory_bytes";
    return hk_fail(gpu->ctx, HK_STATUS_OUT_OF_MEMORY,
                   "the device's memory has room for %llu bytes more: use a smaller batch%s", (unsigned long long)room,
                   limited);
}

static hk_status create_into(hk_gpu *gpu, hk_gpu_memory kind, uint64_t bytes, const char *purpose, hk_gpu_buffer *b)
{
    if (bytes > gpu->info.max_allocation_bytes)
        return hk_fail(gpu->ctx, HK_STATUS_OUT_OF_MEMORY,
                       "the device allocates at most %llu bytes at once: use a smaller batch",
                       (unsigned long long)gpu->info.max_allocation_bytes);
    b->bytes = bytes;
    VkBufferCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
        .size = (bytes + 15) / 16 * 16, /* a kernel may read the last elements as a vec4 */
        .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT |
                 VK_BUFFER_USAGE_TRANSFER_DST_BIT | VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT,
    };
    VkBuffer handle;
    VK_TRY(&gpu->vk, vkCreateBuffer, gpu->device, &info, NULL, &handle);
    b->handle = handle;
    hk_validation_name(&gpu->vk, gpu->device, VK_OBJECT_TYPE_BUFFER, (uint64_t)handle, purpose);
    VkMemoryRequirements need;
    gpu->vk.vkGetBufferMemoryRequirements(gpu->device, handle, &need);
    HK_TRY(allocate(gpu, kind, &need, b));
    VK_TRY(&gpu->vk, vkBindBufferMemory, gpu->device, handle, b->memory, 0);
    VkBufferDeviceAddressInfo address = {.sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO, .buffer = handle};
    b->address = gpu->vk.vkGetBufferDeviceAddress(gpu->device, &address);
    if (kind != HK_GPU_DEVICE)
        VK_TRY(&gpu->vk, vkMapMemory, gpu->device, b->memory, 0, VK_WHOLE_SIZE, 0, &b->mapped);
    return hk_vk_settle(&gpu->vk, HK_OK);
}

hk_status hk_gpu_buffer_create(hk_gpu *gpu, hk_gpu_memory kind, uint64_t bytes, const char *purpose,
                               hk_gpu_buffer **out)
{
    HK_TRY(hk_gpu_alive(gpu));
    if (bytes == 0)
        return hk_fail(gpu->ctx, HK_STATUS_INTERNAL, "buffer '%s' was asked for with 0 bytes", purpose);
    hk_gpu_buffer *b = hk_alloc(gpu->ctx, sizeof *b);
    if (b == NULL)
        return hk_out_of_memory(gpu->ctx, purpose);
    hk_status st = create_into(gpu, kind, bytes, purpose, b);
    if (st != HK_OK) {
        destroy(gpu, b);
        return hk_fail_prefix(gpu->ctx, st, "buffer '%s' of %llu bytes (%.1f MiB)", purpose, (unsigned long long)bytes,
                              (double)bytes / MIB);
    }
    *out = b;
    return HK_OK;
}

void hk_gpu_buffer_destroy(hk_gpu *gpu, hk_gpu_buffer **buffer)
{
    if (buffer == NULL || *buffer == NULL)
        return;
    destroy(gpu, *buffer);
    *buffer = NULL;
}

uint64_t hk_gpu_buffer_address(const hk_gpu_buffer *b)
{
    return b->address;
}

uint64_t hk_gpu_buffer_bytes(const hk_gpu_buffer *b)
{
    return b->bytes;
}

void *hk_gpu_buffer_mapped(const hk_gpu_buffer *b)
{
    return b->mapped;
}

/* ---------------------------------------------------------------- staging */

void hk_staging_release(hk_gpu *gpu, hk_staging *staging)
{
    for (size_t i = 0; i < 2; i++) {
        hk_gpu_buffer_destroy(gpu, &staging->buffer[i]);
        hk_gpu_commands_destroy(gpu, &staging->commands[i]);
        staging->ticket[i] = 0;
    }
}

/* Both halves with room for bytes, or for STAGING_MAX if that is less. Nothing may be under way in them. */
static hk_status staging_reserve(hk_gpu *gpu, hk_staging *staging, hk_gpu_memory kind, const char *purpose,
                                 uint64_t bytes)
{
    uint64_t size = STAGING_MIN;
    while (size < bytes && size < STAGING_MAX)
        size *= 2;
    /* A single piece needs one half only. */
    size_t halves = bytes > size ? 2 : 1;
    for (size_t i = 0; i < halves; i++) {
        if (staging->commands[i] == NULL)
            HK_TRY(hk_gpu_commands_create(gpu, 0, &staging->commands[i]));
        if (staging->buffer[i] != NULL && staging->buffer[i]->bytes >= size)
            continue;
        hk_gpu_buffer_destroy(gpu, &staging->buffer[i]);
        HK_TRY(hk_gpu_buffer_create(gpu, kind, size, purpose, &staging->buffer[i]));
    }
    return HK_OK;
}

/* Records and submits one copy, ordered after all earlier work and before all later. */
static hk_status submit_copy(hk_gpu *gpu, hk_staging *staging, size_t half, const hk_gpu_buffer *src,
                             uint64_t src_offset, hk_gpu_buffer *dst, uint64_t dst_offset, uint64_t bytes)
{
    hk_gpu_commands *c = staging->commands[half];
    HK_TRY(hk_gpu_begin(c));
    hk_gpu_barrier(c);
    hk_gpu_copy(c, src, src_offset, dst, dst_offset, bytes);
    hk_gpu_barrier_host(c);
    HK_TRY(hk_gpu_end(c));
    return hk_gpu_submit(gpu, &c, 1, &staging->ticket[half]);
}

static hk_status check_range(hk_gpu *gpu, const hk_gpu_buffer *b, uint64_t offset, uint64_t bytes, const char *what)
{
    if (offset <= b->bytes && bytes <= b->bytes - offset)
        return HK_OK;
    return hk_fail(gpu->ctx, HK_STATUS_INTERNAL, "%s of %llu bytes at %llu reaches beyond a buffer of %llu", what,
                   (unsigned long long)bytes, (unsigned long long)offset, (unsigned long long)b->bytes);
}

static hk_status upload_staged(hk_gpu *gpu, hk_gpu_buffer *dst, uint64_t offset, const char *data, uint64_t bytes)
{
    hk_staging *s = &gpu->upload;
    HK_TRY(staging_reserve(gpu, s, HK_GPU_UPLOAD, "upload staging", bytes));
    uint64_t done = 0;
    for (size_t half = 0; done < bytes; half ^= 1) {
        HK_TRY(hk_gpu_wait(gpu, s->ticket[half]));
        uint64_t piece = HK_MIN(bytes - done, s->buffer[half]->bytes);
        memcpy(s->buffer[half]->mapped, data + done, (size_t)piece);
        HK_TRY(submit_copy(gpu, s, half, s->buffer[half], 0, dst, offset + done, piece));
        done += piece;
    }
    return hk_queue_wait_all(gpu);
}

hk_status hk_gpu_upload(hk_gpu *gpu, hk_gpu_buffer *dst, uint64_t offset, const void *data, uint64_t bytes)
{
    HK_TRY(check_range(gpu, dst, offset, bytes, "an upload"));
    HK_TRY(hk_queue_wait_all(gpu));
    if (bytes == 0)
        return HK_OK;
    if (dst->mapped == NULL)
        return upload_staged(gpu, dst, offset, data, bytes);
    memcpy((char *)dst->mapped + offset, data, (size_t)bytes);
    return HK_OK;
}

static hk_status download_staged(hk_gpu *gpu, const hk_gpu_buffer *src, uint64_t offset, char *data, uint64_t bytes)
{
    hk_staging *s = &gpu->download;
    HK_TRY(staging_reserve(gpu, s, HK_GPU_READBACK, "download staging", bytes));
    /* Both halves have this size if there are two. */
    uint64_t size = s->buffer[0]->bytes, asked = 0;
    for (uint64_t done = 0; done < bytes; done += size) {
        /* The copy of the next piece is under way while this one is read. */
        for (; asked < bytes && asked < done + 2 * size; asked += size) {
            size_t half = asked / size % 2;
            HK_TRY(submit_copy(gpu, s, half, src, offset + asked, s->buffer[half], 0, HK_MIN(bytes - asked, size)));
        }
        size_t half = done / size % 2;
        HK_TRY(hk_gpu_wait(gpu, s->ticket[half]));
        memcpy(data + done, s->buffer[half]->mapped, (size_t)HK_MIN(bytes - done, size));
    }
    return HK_OK;
}

hk_status hk_gpu_download(hk_gpu *gpu, const hk_gpu_buffer *src, uint64_t offset, void *data, uint64_t bytes)
{
    HK_TRY(check_range(gpu, src, offset, bytes, "a download"));
    HK_TRY(hk_queue_wait_all(gpu));
    if (bytes == 0)
        return HK_OK;
    if (src->mapped == NULL)
        return download_staged(gpu, src, offset, data, bytes);
    memcpy(data, (const char *)src->mapped + offset, (size_t)bytes);
    return HK_OK;
}
