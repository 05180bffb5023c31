/*
 * Devices: listing, choosing, opening, closing.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/internal.h"

/* ---------------------------------------------------------------- all physical devices */

static hk_status probe_all(hk_vk *vk, uint32_t known_caps, hk_probe **out, uint32_t *out_count)
{
    *out = NULL;
    *out_count = 0;
    if (vk->instance == VK_NULL_HANDLE)
        return HK_OK;
    uint32_t count = 0;
    VK_TRY(vk, vkEnumeratePhysicalDevices, vk->instance, &count, NULL);
    VkPhysicalDevice *handles = hk_alloc_array(vk->ctx, count, sizeof *handles);
    hk_probe *probes = hk_alloc_array(vk->ctx, count, sizeof *probes);
    hk_status st = HK_OK;
    if (handles == NULL || probes == NULL) {
        st = hk_out_of_memory(vk->ctx, "the list of devices");
        goto out;
    }
    VkResult result;
    VK_RUN(result, vk, vkEnumeratePhysicalDevices, vk->instance, &count, handles);
    if (result < 0) {
        st = hk_vk_failed(vk, "vkEnumeratePhysicalDevices", result);
        goto out;
    }
    for (uint32_t i = 0; i < count && st == HK_OK; i++)
        st = hk_probe_device(vk, handles[i], known_caps, &probes[i]);
    if (st == HK_OK) {
        *out = probes;
        *out_count = count;
        probes = NULL;
    }
out:
    hk_free(vk->ctx, handles);
    hk_free(vk->ctx, probes);
    return st;
}

hk_status hk_gpu_list(hk_context *ctx, hk_device_info *infos, size_t capacity, size_t *count)
{
    hk_vk vk;
    hk_probe *probes = NULL;
    uint32_t n = 0;
    hk_status st = hk_vk_open(ctx, 0, &vk);
    if (st == HK_OK)
        st = probe_all(&vk, UINT32_MAX, &probes, &n);
    if (st == HK_OK) {
        for (uint32_t i = 0; i < n && i < capacity; i++)
            infos[i] = probes[i].info;
        *count = n;
    }
    hk_free(ctx, probes);
    hk_vk_close(&vk);
    return st;
}

/* ---------------------------------------------------------------- choosing one */

static char lower(char c)
{
    return (char)tolower((unsigned char)c);
}

static bool contains_ignoring_case(const char *text, const char *part)
{
    for (; *text != '\0'; text++) {
        size_t i = 0;
        while (part[i] != '\0' && lower(text[i]) == lower(part[i]))
            i++;
        if (part[i] == '\0')
            return true;
    }
    return false;
}

/* Dashes and case do not matter: tools print UUIDs in several ways. */
static bool is_uuid(const char *uuid, const char *text)
{
    size_t i = 0;
    for (; *text != '\0'; text++) {
        if (*text == '-')
            continue;
        if (uuid[i] == '\0' || uuid[i] != lower(*text))
            return false;
        i++;
    }
    return i > 0 && uuid[i] == '\0';
}

static const hk_probe *find_selected(const hk_probe *probes, uint32_t count, const char *select)
{
    for (uint32_t i = 0; i < count; i++)
        if (is_uuid(probes[i].info.uuid, select))
            return &probes[i];
    if (strspn(select, "0123456789") == strlen(select) && strlen(select) < 6) {
        unsigned long index = strtoul(select, NULL, 10);
        if (index < count)
            return &probes[index];
    }
    for (uint32_t i = 0; i < count; i++)
        if (contains_ignoring_case(probes[i].info.name, select))
            return &probes[i];
    return NULL;
}

static const hk_probe *find_best(const hk_probe *probes, uint32_t count)
{
    static const hk_device_type order[] = {HK_DEVICE_DISCRETE, HK_DEVICE_INTEGRATED, HK_DEVICE_VIRTUAL,
                                           HK_DEVICE_SOFTWARE, HK_DEVICE_OTHER};
    for (size_t t = 0; t < HK_COUNT(order); t++)
        for (uint32_t i = 0; i < count; i++)
            if (probes[i].info.usable && probes[i].info.type == order[t])
                return &probes[i];
    return NULL;
}

static hk_status choose(hk_gpu *gpu, const hk_probe *probes, uint32_t count)
{
    if (gpu->vk.library == NULL)
        return hk_fail(
            gpu->ctx, HK_STATUS_NO_DEVICE,
            "no Vulkan loader (libvulkan.so.1) on this machine: install it (package libvulkan1) and a driver "
            "(mesa-vulkan-drivers has one that needs no GPU)");
    if (count == 0)
        return hk_fail(gpu->ctx, HK_STATUS_NO_DEVICE,
                       "the Vulkan loader found no device: install a driver (package mesa-vulkan-drivers has one that "
                       "needs no GPU)");
    char names[512] = "";
    size_t length = 0;
    for (uint32_t i = 0; i < count && length < sizeof names; i++)
        length += (size_t)snprintf(names + length, sizeof names - length, "%s%u '%.64s'%s%s", i > 0 ? ", " : "", i,
                                   probes[i].info.name, probes[i].info.usable ? "" : " unusable: ", probes[i].info.why);

    const char *select = gpu->options.select;
    const hk_probe *chosen = select == NULL ? find_best(probes, count) : find_selected(probes, count, select);
    if (chosen == NULL && select == NULL)
        return hk_fail(gpu->ctx, HK_STATUS_NO_DEVICE, "no usable Vulkan device; there are: %s", names);
    if (chosen == NULL)
        return hk_fail(gpu->ctx, HK_STATUS_NO_DEVICE, "no device has the index, UUID or name '%s'%s; there are: %s",
                       select, gpu->options.select_from_environment ? " (HILLOCK_DEVICE)" : "", names);
    if (!chosen->info.usable)
        return hk_fail(gpu->ctx, HK_STATUS_NO_DEVICE, "device '%s' cannot be used: %s", chosen->info.name,
                       chosen->info.why);
    gpu->probe = *chosen;
    return HK_OK;
}

/* ---------------------------------------------------------------- capabilities */

static bool lacks(uint32_t caps, uint32_t needed)
{
    return (caps & needed) != needed;
}

/* What kernels may use: what the device has, less what is switched off, less what is of no use without that. */
static void mask_caps(hk_gpu *gpu)
{
    hk_device_info *info = &gpu->info;
    *info = gpu->probe.info;
    info->caps &= ~gpu->options.caps_off;
    if (lacks(info->caps, 1u << HK_CAP_FP16 | 1u << HK_CAP_STORAGE16 | 1u << HK_CAP_SUBGROUP))
        info->caps &= ~(1u << HK_CAP_COOPMAT);
    if (lacks(info->caps, 1u << HK_CAP_COOPMAT))
        info->caps &= ~(1u << HK_CAP_COOPMAT2 | 1u << HK_CAP_BF16 | 1u << HK_CAP_INT8_MATRIX);
    if (gpu->options.minimal) { /* the Vulkan specification's table "Required Limits" */
        info->max_invocations = HK_MIN(info->max_invocations, 128u);
        info->max_shared_bytes = HK_MIN(info->max_shared_bytes, 16384u);
        info->max_grid = HK_MIN(info->max_grid, 65535u);
        info->max_allocation_bytes = HK_MIN(info->max_allocation_bytes, (uint64_t)1 << 30);
    }
}

/* ---------------------------------------------------------------- opening */

static hk_status create_device(hk_gpu *gpu)
{
    hk_features features;
    const char *names[HK_EXTENSIONS_MAX];
    uint32_t name_count;
    hk_probe_enable(&gpu->probe, gpu->info.caps, gpu->options.minimal, &features, names, &name_count);
    const float priority = 1.0f;
    VkDeviceQueueCreateInfo queue = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
        .queueFamilyIndex = gpu->probe.queue_family,
        .queueCount = 1,
        .pQueuePriorities = &priority,
    };
    VkDeviceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
        .pNext = &features.core,
        .queueCreateInfoCount = 1,
        .pQueueCreateInfos = &queue,
        .enabledExtensionCount = name_count,
        .ppEnabledExtensionNames = names,
    };
    VkDevice device = VK_NULL_HANDLE;
    VK_TRY(&gpu->vk, vkCreateDevice, gpu->probe.handle, &info, NULL, &device);
    gpu->device = device;
    HK_TRY(hk_vk_load_device(&gpu->vk, device));
    gpu->vk.vkGetDeviceQueue(device, gpu->probe.queue_family, 0, &gpu->queue);

    VkPhysicalDeviceMemoryProperties2 memory = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2};
    gpu->vk.vkGetPhysicalDeviceMemoryProperties2(gpu->probe.handle, &memory);
    gpu->memory = memory.memoryProperties;
    return HK_OK;
}

static hk_status create_timeline(hk_gpu *gpu)
{
    VkSemaphoreTypeCreateInfo type = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
        .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE,
    };
    VkSemaphoreCreateInfo info = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO, .pNext = &type};
    VkSemaphore timeline;
    VK_TRY(&gpu->vk, vkCreateSemaphore, gpu->device, &info, NULL, &timeline);
    gpu->timeline = timeline;
    return HK_OK;
}

static hk_status open_into(hk_gpu *gpu, const hk_device_params *params)
{
    HK_TRY(hk_gpu_options_read(gpu->ctx, params, &gpu->options));
    HK_TRY(hk_vk_open(gpu->ctx, gpu->options.debug, &gpu->vk));
    hk_probe *probes = NULL;
    uint32_t count = 0;
    hk_status st = probe_all(&gpu->vk, ~gpu->vk.validation.unknown_caps, &probes, &count);
    if (st == HK_OK)
        st = choose(gpu, probes, count);
    hk_free(gpu->ctx, probes);
    HK_TRY(st);
    mask_caps(gpu);
    HK_TRY(create_device(gpu));
    HK_TRY(create_timeline(gpu));
    HK_TRY(hk_pipelines_open(gpu));
    return hk_vk_settle(&gpu->vk, HK_OK);
}

static void log_opened(hk_gpu *gpu)
{
    static const char *const names[] = {
#define HK_X(name, text) text,
        HK_CAP_MAP(HK_X)
#undef HK_X
    };
    char caps[160] = "";
    size_t length = 0;
    for (size_t i = 0; i < HK_CAP_COUNT; i++)
        if (gpu->info.caps & 1u << i)
            length += (size_t)snprintf(caps + length, sizeof caps - length, " %s", names[i]);
    hk_log(gpu->ctx, HK_LOG_INFO, "device '%s', %s:%s", gpu->info.name, gpu->info.driver,
           length > 0 ? caps : " no capabilities beyond the baseline");
}

hk_status hk_gpu_open(hk_context *ctx, const hk_device_params *params, hk_gpu **out)
{
    hk_gpu *gpu = hk_alloc(ctx, sizeof *gpu);
    if (gpu == NULL)
        return hk_out_of_memory(ctx, "a device");
    gpu->ctx = ctx;
    hk_status st = open_into(gpu, params);
    if (st != HK_OK) {
        hk_gpu_close(&gpu);
        return st;
    }
    log_opened(gpu);
    *out = gpu;
    return HK_OK;
}

void hk_gpu_close(hk_gpu **pointer)
{
    if (pointer == NULL || *pointer == NULL)
        return;
    hk_gpu *gpu = *pointer;
    *pointer = NULL;
    hk_context *ctx = gpu->ctx;
    bool quiet = hk_queue_quiet(gpu);
    if (!quiet)
        hk_log(ctx, HK_LOG_WARN,
               "device '%s' is still running its last work; its memory is given back when the process ends",
               gpu->info.name);
    hk_staging_release(gpu, &gpu->upload);
    hk_staging_release(gpu, &gpu->download);
    hk_pipelines_close(gpu);
    if (quiet && gpu->device != VK_NULL_HANDLE && gpu->vk.vkDestroyDevice != NULL) {
        if (gpu->timeline != VK_NULL_HANDLE)
            gpu->vk.vkDestroySemaphore(gpu->device, gpu->timeline, NULL);
        gpu->vk.vkDestroyDevice(gpu->device, NULL);
    }
    hk_free(ctx, gpu->submit_list);
    hk_gpu_options_release(ctx, &gpu->options);
    if (quiet)
        hk_vk_close(&gpu->vk);
    else
        hk_vk_abandon(&gpu->vk);
    hk_free(ctx, gpu);
}

/* ---------------------------------------------------------------- getters */

hk_context *hk_gpu_context(const hk_gpu *gpu)
{
    return gpu->ctx;
}

const hk_device_info *hk_gpu_info(const hk_gpu *gpu)
{
    return &gpu->info;
}

bool hk_gpu_has(const hk_gpu *gpu, hk_cap cap)
{
    return (gpu->info.caps & 1u << cap) != 0;
}

bool hk_gpu_coopmat_shape(const hk_gpu *gpu, hk_coopmat_shape *out)
{
    if (!hk_gpu_has(gpu, HK_CAP_COOPMAT))
        return false;
    *out = gpu->probe.halves;
    return true;
}

bool hk_gpu_int8_shape(const hk_gpu *gpu, hk_coopmat_shape *out)
{
    if (!hk_gpu_has(gpu, HK_CAP_INT8_MATRIX))
        return false;
    *out = gpu->probe.bytes;
    return true;
}

bool hk_gpu_multiplies(const hk_gpu *gpu)
{
    return hk_gpu_has(gpu, HK_CAP_COOPMAT) || gpu->options.debug & HK_DEBUG_GPU_TUNING;
}

uint32_t hk_gpu_matrix_types(const hk_gpu *gpu)
{
    static const hk_cap needs[HK_MATRIX_TYPES] = {[HK_MATRIX_FLOAT16] = HK_CAP_COOPMAT,
                                                  [HK_MATRIX_BFLOAT16] = HK_CAP_BF16,
                                                  [HK_MATRIX_INT8] = HK_CAP_INT8_MATRIX};
    /* Kernels are all emulated or none is. */
    bool emulates = !hk_gpu_has(gpu, HK_CAP_COOPMAT) && gpu->options.debug & HK_DEBUG_GPU_TUNING;
    uint32_t types = 0;
    for (uint32_t i = 0; i < HK_MATRIX_TYPES; i++)
        if (hk_gpu_has(gpu, needs[i]) || (emulates && !(gpu->options.caps_off >> needs[i] & 1u)))
            types |= 1u << i;
    return types;
}

unsigned hk_gpu_debug(const hk_gpu *gpu)
{
    return gpu->options.debug;
}

void hk_gpu_stats(const hk_gpu *gpu, hk_device_stats *out)
{
    *out = gpu->stats;
}

uint64_t hk_gpu_planning_clock(const hk_gpu *gpu)
{
    return hk_now_ns() - gpu->stats.pipelines_ns - gpu->stats.weights_ns;
}

void hk_gpu_count_planning(hk_gpu *gpu, uint64_t since)
{
    gpu->stats.plans_ns += hk_gpu_planning_clock(gpu) - since;
}

void hk_gpu_count_weights(hk_gpu *gpu, uint64_t since)
{
    gpu->stats.weights_ns += hk_now_ns() - since;
}

hk_status hk_gpu_alive(hk_gpu *gpu)
{
    if (!gpu->vk.lost)
        return HK_OK;
    return hk_fail(gpu->ctx, HK_STATUS_DEVICE_LOST, "device '%s' was lost earlier: close it and open it again",
                   gpu->info.name);
}
