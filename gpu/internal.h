/*
 * What the files of the device layer share: the probe of a physical device, the device, its queue's state.
 */
#ifndef HK_GPU_INTERNAL_H
#define HK_GPU_INTERNAL_H

#include "gpu/entry.h"
#include "gpu/gpu.h"
#include "gpu/validation.h"

/* ---- probe.c: what a physical device is and can do */

enum { HK_EXTENSIONS_MAX = 8 };

/* Feature structures, chained from core; each is in the chain only if the device knows it. */
typedef struct hk_features {
    VkPhysicalDeviceFeatures2 core;
    VkPhysicalDeviceVulkan11Features v11;
    VkPhysicalDeviceVulkan12Features v12;
    VkPhysicalDeviceSubgroupSizeControlFeatures subgroup_size;
    VkPhysicalDeviceShaderIntegerDotProductFeatures int_dot;
    hk_vk_coopmat_features coopmat;
    hk_vk_coopmat2_features coopmat2;
    hk_vk_bfloat16_features bf16;
} hk_features;

/* Which of the optional structures the device knows, by version or extension. */
typedef struct hk_known {
    bool subgroup_size, int_dot, coopmat, coopmat2, bf16, memory_budget, feedback;
    bool core13; /* the device is used as Vulkan 1.3: subgroup_size, int_dot and feedback need no extension */
} hk_known;

typedef struct hk_probe {
    VkPhysicalDevice handle;
    hk_device_info info; /* caps: all that the device has */
    VkPhysicalDeviceProperties properties;
    hk_known known;
    hk_features features; /* supported ones */
    uint32_t queue_family;
    uint32_t timestamp_bits;
    uint32_t min_subgroup_size, max_subgroup_size, max_workgroup_subgroups;
    hk_coopmat_shape halves, bytes; /* the preferred ones of fp16 -> fp32 and int8 -> int32; m 0: none */
} hk_probe;

/* Fills in everything about the device; info.usable and info.why say whether it can be opened. Fails only when Vulkan
 * does. known_caps: capabilities to look at at all (see hk_validation.unknown_caps). */
hk_status hk_probe_device(hk_vk *vk, VkPhysicalDevice handle, uint32_t known_caps, hk_probe *probe);
/* The features and extensions to switch on for the capabilities in caps. minimal: nothing that is not needed. names has
 * room for HK_EXTENSIONS_MAX. */
void hk_probe_enable(const hk_probe *probe, uint32_t caps, bool minimal, hk_features *features, const char **names,
                     uint32_t *name_count);

/* ---- options.c: what the user asks for, by parameters and environment */

typedef struct hk_gpu_options {
    const char *select; /* NULL: the best */
    bool select_from_environment;
    uint32_t caps_off; /* capabilities switched off */
    bool minimal;      /* HILLOCK_CAPS=min */
    unsigned debug;
    uint64_t timeout_ns;
    uint64_t max_memory_bytes; /* UINT64_MAX: no limit */
    char *cache_dir;           /* NULL: no disk cache; allocated */
} hk_gpu_options;

hk_status hk_gpu_options_read(hk_context *ctx, const hk_device_params *params, hk_gpu_options *out);
void hk_gpu_options_release(hk_context *ctx, hk_gpu_options *options);

/* ---- the device */

/* Staging memory for blocking copies: two halves, one filled or emptied by the host while the device copies the other.
 */
typedef struct hk_staging {
    hk_gpu_buffer *buffer[2];
    hk_gpu_commands *commands[2];
    uint64_t ticket[2]; /* last use, 0: never */
} hk_staging;

struct hk_gpu {
    hk_context *ctx;
    hk_vk vk;
    hk_gpu_options options;
    hk_device_info info; /* caps masked */
    hk_probe probe;

    VkDevice device;
    VkQueue queue;

    /* memory.c */
    VkPhysicalDeviceMemoryProperties memory;
    uint64_t heap_bytes[VK_MAX_MEMORY_HEAPS]; /* allocated by us */
    hk_staging upload, download;

    /* pipeline.c, cache.c */
    VkPipelineLayout layout;
    VkPipelineCache cache;
    char *cache_path;    /* NULL: no disk cache */
    uint64_t cache_hash; /* of this build's kernels */
    size_t cache_loaded; /* bytes of driver data read from disk */
    hk_gpu_pipeline **pipelines;
    size_t pipeline_count, pipeline_capacity;

    /* queue.c */
    VkSemaphore timeline;
    uint64_t submitted, completed; /* the last value to be signalled; the highest one seen */
    bool hung;                     /* work did not end even within the grace period after a timeout */
    VkCommandBuffer *submit_list;
    size_t submit_capacity;

    hk_device_stats stats;
};

/* Fails when the device was lost. */
hk_status hk_gpu_alive(hk_gpu *gpu);

/* ---- memory.c */

struct hk_gpu_buffer {
    VkBuffer handle;
    VkDeviceMemory memory;
    VkDeviceAddress address;
    uint64_t bytes;     /* as asked for */
    uint64_t allocated; /* in its heap */
    uint32_t heap;
    void *mapped; /* NULL for HK_GPU_DEVICE */
};

void hk_staging_release(hk_gpu *gpu, hk_staging *staging);

/* ---- pipeline.c */

struct hk_gpu_pipeline {
    hk_gpu_pipeline_key key; /* spec behind spec_count is zero */
    uint64_t hash;
    uint32_t *code; /* while it is made: the kernel's without what its constants rule out; NULL: the kernel's */
    size_t code_bytes;
    VkPipeline handle;
    VkResult result; /* of its creation */
    const char *call;
    bool cached; /* found in the pipeline cache */
};

hk_status hk_pipelines_open(hk_gpu *gpu);
void hk_pipelines_close(hk_gpu *gpu);

/* ---- cache.c */

uint64_t hk_hash_bytes(uint64_t hash, const void *data, size_t bytes); /* FNV-1a; begin with HK_HASH_START */
#define HK_HASH_START 0xcbf29ce484222325u
/* Creates gpu->cache, filled from the disk if a fitting file is there. */
hk_status hk_cache_open(hk_gpu *gpu);
/* Writes the file if the cache has grown; what goes wrong is logged. Then destroys the cache. */
void hk_cache_close(hk_gpu *gpu);

/* ---- commands.c */

struct hk_gpu_commands {
    hk_gpu *gpu;
    VkCommandPool pool;
    VkCommandBuffer buffer;
    VkQueryPool queries; /* NULL without timestamps */
    uint32_t timestamp_capacity;
    bool recorded; /* begin and end succeeded: may be submitted */
    VkPipeline bound;
    char problem[256]; /* the first misuse since begin, "" when none: reported by end */
};

/* ---- queue.c */

/* Before anything is destroyed: waits for submitted work, which error paths may leave behind. True: it has ended, or
 * the device is dead, and objects may be destroyed. False: it still runs, and everything it may touch must stay. */
bool hk_queue_quiet(hk_gpu *gpu);
hk_status hk_queue_wait_all(hk_gpu *gpu);

#endif
