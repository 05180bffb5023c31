/*
 * The pipeline cache on disk: one file per device and driver, holding this build's pipelines. It is only ever a
 * shortcut: whatever is wrong with it is logged, and the cache begins empty.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gpu/internal.h"
#include "kernels.h"

/* The file begins with this, then the driver's data; its numbers are in the machine's own order, for it never leaves.
 */
typedef struct file_header {
    char magic[8];
    uint32_t vendor, device, driver, zero;
    uint8_t uuid[VK_UUID_SIZE]; /* pipelineCacheUUID */
    uint64_t kernels;           /* hash of the build's SPIR-V: pipelines of another build would only lie there */
    uint64_t bytes, hash;       /* of the driver's data */
} file_header;

static const char magic[8] = "HKPIPE1";

#define FILE_MAX ((uint64_t)256 * 1024 * 1024)

uint64_t hk_hash_bytes(uint64_t hash, const void *data, size_t bytes)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ p[i]) * 0x100000001b3u;
    return hash;
}

static uint64_t hash_kernels(void)
{
    uint64_t h = HK_HASH_START;
    for (size_t i = 0; hk_kernels[i] != NULL; i++)
        if (hk_kernels[i]->spirv != NULL)
            h = hk_hash_bytes(h, hk_kernels[i]->spirv, hk_kernels[i]->spirv_bytes);
    return h;
}

static file_header expected_header(const hk_gpu *gpu)
{
    const VkPhysicalDeviceProperties *p = &gpu->probe.properties;
    file_header h = {
        .vendor = p->vendorID, .device = p->deviceID, .driver = p->driverVersion, .kernels = gpu->cache_hash};
    memcpy(h.magic, magic, sizeof h.magic);
    memcpy(h.uuid, p->pipelineCacheUUID, sizeof h.uuid);
    return h;
}

static char *file_path(hk_gpu *gpu, const char *kind)
{
    const VkPhysicalDeviceProperties *p = &gpu->probe.properties;
    size_t bytes = strlen(gpu->options.cache_dir) + strlen(kind) + 64;
    char *path = hk_alloc(gpu->ctx, bytes);
    if (path == NULL)
        return NULL;
    /* A driver's update brings another UUID, and so another file; half of it tells two apart well enough. */
    int length = snprintf(path, bytes, "%s/%s-%04x-%04x-", gpu->options.cache_dir, kind, p->vendorID, p->deviceID);
    for (size_t i = 0; i < VK_UUID_SIZE / 2; i++)
        length += snprintf(path + length, bytes - (size_t)length, "%02x", p->pipelineCacheUUID[i]);
    return path;
}

/* ---------------------------------------------------------------- reading */

/* NULL if the data is this device's and whole, else what is wrong. */
static const char *check_file(const hk_gpu *gpu, const unsigned char *file, size_t bytes)
{
    file_header h, expected = expected_header(gpu);
    if (bytes < sizeof h)
        return "it is too short";
    memcpy(&h, file, sizeof h);
    expected.bytes = h.bytes;
    expected.hash = h.hash;
    if (memcmp(h.magic, magic, sizeof magic) != 0)
        return "it is not a pipeline cache";
    if (memcmp(&h, &expected, sizeof h) != 0)
        return "it belongs to another device, driver or build";
    if (h.bytes != bytes - sizeof h)
        return "its size is wrong";
    if (hk_hash_bytes(HK_HASH_START, file + sizeof h, bytes - sizeof h) != h.hash)
        return "its contents are damaged";
    return NULL;
}

/* The file's contents; NULL when there is none, it cannot be read, or it is no regular file of a sane size. */
static unsigned char *read_file(hk_gpu *gpu, size_t *bytes)
{
    int fd = open(gpu->cache_path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        if (errno != ENOENT)
            hk_log(gpu->ctx, HK_LOG_WARN, "pipeline cache '%s' cannot be opened: %s", gpu->cache_path, strerror(errno));
        return NULL;
    }
    unsigned char *data = NULL;
    size_t done = 0;
    struct stat info;
    const char *problem = NULL;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size < 0 || (uint64_t)info.st_size > FILE_MAX) {
        problem = "it is no regular file of at most 256 MiB";
    } else if ((data = hk_alloc(gpu->ctx, (size_t)info.st_size)) == NULL) {
        problem = "out of memory";
    } else {
        while (done < (size_t)info.st_size) {
            ssize_t n = read(fd, data + done, (size_t)info.st_size - done);
            if (n < 0 && errno == EINTR)
                continue;
            if (n <= 0)
                break; /* what is missing shows in the check */
            done += (size_t)n;
        }
        problem = check_file(gpu, data, done);
    }
    close(fd);
    if (problem != NULL) {
        hk_log(gpu->ctx, HK_LOG_WARN, "pipeline cache '%s' is ignored: %s", gpu->cache_path, problem);
        hk_free(gpu->ctx, data);
        return NULL;
    }
    *bytes = done;
    return data;
}

hk_status hk_cache_open(hk_gpu *gpu)
{
    unsigned char *file = NULL;
    size_t bytes = 0;
    if (gpu->options.cache_dir != NULL) {
        gpu->cache_hash = hash_kernels();
        gpu->cache_path = file_path(gpu, "pipelines");
        if (gpu->cache_path == NULL)
            return hk_out_of_memory(gpu->ctx, "the pipeline cache's path");
        file = read_file(gpu, &bytes);
    }
    VkPipelineCacheCreateInfo info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO};
    if (file != NULL) {
        info.initialDataSize = bytes - sizeof(file_header);
        info.pInitialData = file + sizeof(file_header);
    }
    VkPipelineCache cache = VK_NULL_HANDLE;
    VkResult result;
    VK_RUN(result, &gpu->vk, vkCreatePipelineCache, gpu->device, &info, NULL, &cache);
    hk_free(gpu->ctx, file);
    if (result != VK_SUCCESS)
        return hk_vk_failed(&gpu->vk, "vkCreatePipelineCache", result);
    gpu->cache = cache;
    gpu->cache_loaded = info.initialDataSize;
    return HK_OK;
}

/* ---------------------------------------------------------------- writing */

/* mkdir -p for the folder of path, which is changed in between. False with errno. */
static bool make_folders(char *path)
{
    for (char *p = path + 1; *p != '\0'; p++) {
        if (*p != '/')
            continue;
        *p = '\0';
        bool made = mkdir(path, 0700) == 0 || errno == EEXIST;
        *p = '/';
        if (!made)
            return false;
    }
    return true;
}

hk_status hk_gpu_cache_path(hk_gpu *gpu, const char *kind, bool make, char **out)
{
    *out = NULL;
    if (gpu->options.cache_dir == NULL)
        return HK_OK;
    char *path = file_path(gpu, kind);
    if (path == NULL)
        return hk_out_of_memory(gpu->ctx, "a path in the cache folder");
    if (make && !make_folders(path)) {
        hk_status st = hk_fail(gpu->ctx, HK_STATUS_CANNOT_CREATE, "the cache folder '%s' cannot be made: %s",
                               gpu->options.cache_dir, strerror(errno));
        hk_free(gpu->ctx, path);
        return st;
    }
    *out = path;
    return HK_OK;
}

static bool write_all(int fd, const void *data, size_t bytes)
{
    const char *p = data;
    while (bytes > 0) {
        ssize_t n = write(fd, p, bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        p += n;
        bytes -= (size_t)n;
    }
    return true;
}

/* Atomically: readers see the old file or the whole new one. False with errno. */
static bool write_file(const char *path, char *temporary, const file_header *header, const void *data)
{
    int fd = mkstemp(temporary);
    if (fd < 0)
        return false;
    bool written = write_all(fd, header, sizeof *header) && write_all(fd, data, (size_t)header->bytes) &&
                   fsync(fd) == 0;
    int error = errno;
    if (close(fd) != 0 && written) {
        written = false;
        error = errno;
    }
    if (written && rename(temporary, path) != 0) {
        written = false;
        error = errno;
    }
    if (!written)
        unlink(temporary);
    errno = error;
    return written;
}

static void save(hk_gpu *gpu)
{
    size_t bytes = 0, path_bytes = strlen(gpu->cache_path) + sizeof ".XXXXXX";
    VkResult result;
    VK_RUN(result, &gpu->vk, vkGetPipelineCacheData, gpu->device, gpu->cache, &bytes, NULL);
    if (result != VK_SUCCESS) {
        hk_log(gpu->ctx, HK_LOG_WARN, "pipeline cache not written: vkGetPipelineCacheData returned %s",
               hk_vk_result_name(result));
        return;
    }
    if (bytes <= gpu->cache_loaded || bytes > FILE_MAX)
        return;
    void *data = hk_alloc(gpu->ctx, bytes);
    char *temporary = hk_alloc(gpu->ctx, path_bytes);
    if (data != NULL && temporary != NULL) {
        VK_RUN(result, &gpu->vk, vkGetPipelineCacheData, gpu->device, gpu->cache, &bytes, data);
        snprintf(temporary, path_bytes, "%s.XXXXXX", gpu->cache_path);
        file_header header = expected_header(gpu);
        header.bytes = bytes;
        header.hash = hk_hash_bytes(HK_HASH_START, data, bytes);
        if (result != VK_SUCCESS)
            hk_log(gpu->ctx, HK_LOG_WARN, "pipeline cache not written: vkGetPipelineCacheData returned %s",
                   hk_vk_result_name(result));
        else if (!make_folders(gpu->cache_path) || !write_file(gpu->cache_path, temporary, &header, data))
            hk_log(gpu->ctx, HK_LOG_WARN, "pipeline cache '%s' cannot be written: %s", gpu->cache_path,
                   strerror(errno));
    }
    hk_free(gpu->ctx, data);
    hk_free(gpu->ctx, temporary);
}

void hk_cache_close(hk_gpu *gpu)
{
    if (gpu->cache == VK_NULL_HANDLE)
        return;
    if (gpu->cache_path != NULL && !gpu->vk.lost && gpu->stats.pipelines_created > 0)
        save(gpu);
    gpu->vk.vkDestroyPipelineCache(gpu->device, gpu->cache, NULL);
    gpu->cache = VK_NULL_HANDLE;
}
