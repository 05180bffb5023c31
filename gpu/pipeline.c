/*
 * Pipelines: made once per kernel, specialization and subgroup size, several at a time.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "gpu/internal.h"
#include "gpu/prune.h"

enum { THREADS_MAX = 4 };

/* ---------------------------------------------------------------- keys */

/* What cannot be asked of this device is told here, by the kernel's name; drivers would fail without a reason. */
static hk_status check_key(hk_gpu *gpu, const hk_gpu_pipeline_key *key)
{
    const hk_kernel *kernel = key->kernel;
    if (key->spec_count > HK_SPEC_MAX)
        return hk_fail(gpu->ctx, HK_STATUS_INTERNAL,
                       "kernel '%s': %u specialization constants, at most %d are possible", kernel->name,
                       key->spec_count, HK_SPEC_MAX);
    if (kernel->spirv == NULL)
        return hk_fail(gpu->ctx, HK_STATUS_UNSUPPORTED,
                       "kernel '%s' is not in this build: build with a glslang that can compile it", kernel->name);
    if ((kernel->needs & ~gpu->info.caps) != 0)
        return hk_fail(gpu->ctx, HK_STATUS_INTERNAL, "kernel '%s' needs capabilities 0x%x that device '%s' lacks",
                       kernel->name, kernel->needs & ~gpu->info.caps, gpu->info.name);
    uint64_t invocations = 1;
    for (uint32_t i = 0; i < 3 && i < key->spec_count; i++) {
        uint32_t limit = gpu->probe.properties.limits.maxComputeWorkGroupSize[i];
        if (gpu->options.minimal)
            limit = HK_MIN(limit, i == 2 ? 64u : 128u);
        if (key->spec[i] == 0 || key->spec[i] > limit)
            return hk_fail(gpu->ctx, HK_STATUS_INTERNAL,
                           "kernel '%s': workgroup size %u in dimension %u, 1 to %u is possible", kernel->name,
                           key->spec[i], i, limit);
        invocations *= key->spec[i];
    }
    if (invocations > gpu->info.max_invocations)
        return hk_fail(gpu->ctx, HK_STATUS_INTERNAL, "kernel '%s': %llu invocations per workgroup, the device has %u",
                       kernel->name, (unsigned long long)invocations, gpu->info.max_invocations);
    if (key->subgroup_size != 0 && hk_gpu_has(gpu, HK_CAP_SUBGROUP_SIZE) &&
        (key->subgroup_size < gpu->probe.min_subgroup_size || key->subgroup_size > gpu->probe.max_subgroup_size ||
         (key->subgroup_size & (key->subgroup_size - 1)) != 0 ||
         invocations > (uint64_t)key->subgroup_size * gpu->probe.max_workgroup_subgroups))
        return hk_fail(gpu->ctx, HK_STATUS_INTERNAL,
                       "kernel '%s': subgroup size %u with %llu invocations; the device has %u to %u and %u subgroups",
                       kernel->name, key->subgroup_size, (unsigned long long)invocations, gpu->probe.min_subgroup_size,
                       gpu->probe.max_subgroup_size, gpu->probe.max_workgroup_subgroups);
    return HK_OK;
}

/* Keys that ask for the same get the same bytes. */
static hk_gpu_pipeline_key normalized(const hk_gpu *gpu, const hk_gpu_pipeline_key *key)
{
    hk_gpu_pipeline_key k = {.kernel = key->kernel, .spec_count = key->spec_count};
    k.subgroup_size = hk_gpu_has(gpu, HK_CAP_SUBGROUP_SIZE) ? key->subgroup_size : 0;
    k.keep_loops = key->keep_loops && gpu->info.type == HK_DEVICE_SOFTWARE;
    memcpy(k.spec, key->spec, key->spec_count * sizeof k.spec[0]);
    return k;
}

static uint64_t hash_key(const hk_gpu_pipeline_key *k)
{
    uint64_t h = hk_hash_bytes(HK_HASH_START, &k->kernel, sizeof k->kernel);
    h = hk_hash_bytes(h, &k->subgroup_size, sizeof k->subgroup_size);
    return hk_hash_bytes(h, k->spec, k->spec_count * sizeof k->spec[0]);
}

static bool equal_keys(const hk_gpu_pipeline_key *a, const hk_gpu_pipeline_key *b)
{
    return a->kernel == b->kernel && a->subgroup_size == b->subgroup_size && a->spec_count == b->spec_count &&
           a->keep_loops == b->keep_loops && memcmp(a->spec, b->spec, a->spec_count * sizeof a->spec[0]) == 0;
}

/* Some hundred pipelines at most, and only when a plan is made: looking at each hash is fast enough. */
static hk_gpu_pipeline *find(const hk_gpu *gpu, const hk_gpu_pipeline_key *key)
{
    uint64_t hash = hash_key(key);
    for (size_t i = 0; i < gpu->pipeline_count; i++)
        if (gpu->pipelines[i]->hash == hash && equal_keys(&gpu->pipelines[i]->key, key))
            return gpu->pipelines[i];
    return NULL;
}

/* ---------------------------------------------------------------- compiling */

/* Runs on any thread: touches nothing but p, and the context not at all. */
static void compile(hk_gpu *gpu, hk_gpu_pipeline *p)
{
    hk_vk *vk = &gpu->vk;
    VkShaderModuleCreateInfo module_info = {
        .sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
        .codeSize = p->code ? p->code_bytes : p->key.kernel->spirv_bytes,
        .pCode = p->code ? p->code : p->key.kernel->spirv,
    };
    VkShaderModule module = VK_NULL_HANDLE;
    p->call = "vkCreateShaderModule";
    VK_RUN(p->result, vk, vkCreateShaderModule, gpu->device, &module_info, NULL, &module);
    if (p->result != VK_SUCCESS)
        return;

    VkSpecializationMapEntry entries[HK_SPEC_MAX];
    for (uint32_t i = 0; i < p->key.spec_count; i++)
        entries[i] = (VkSpecializationMapEntry){.constantID = i, .offset = 4 * i, .size = 4};
    VkSpecializationInfo spec = {
        .mapEntryCount = p->key.spec_count,
        .pMapEntries = entries,
        .dataSize = p->key.spec_count * sizeof p->key.spec[0],
        .pData = p->key.spec,
    };
    VkPipelineShaderStageRequiredSubgroupSizeCreateInfo subgroup = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO,
        .requiredSubgroupSize = p->key.subgroup_size,
    };
    VkPipelineCreationFeedback whole = {0}, stage = {0};
    VkPipelineCreationFeedbackCreateInfo feedback = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_CREATION_FEEDBACK_CREATE_INFO,
        .pPipelineCreationFeedback = &whole,
        .pipelineStageCreationFeedbackCount = 1,
        .pPipelineStageCreationFeedbacks = &stage,
    };
    VkComputePipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .pNext = gpu->probe.known.feedback ? &feedback : NULL,
        .stage =
            {
                .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                .module = module,
                .pName = "main",
                .pSpecializationInfo = &spec,
            },
        .layout = gpu->layout,
    };
    if (p->key.subgroup_size != 0) {
        info.stage.pNext = &subgroup;
        /* Vulkan allows to ask for full subgroups only where x is made of them. */
        if (p->key.spec_count > 0 && p->key.spec[0] % p->key.subgroup_size == 0)
            info.stage.flags = VK_PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT;
    }
    VkPipeline handle = VK_NULL_HANDLE;
    p->call = "vkCreateComputePipelines";
    VK_RUN(p->result, vk, vkCreateComputePipelines, gpu->device, gpu->cache, 1, &info, NULL, &handle);
    if (p->result == VK_SUCCESS)
        p->handle = handle;
    if (whole.flags & VK_PIPELINE_CREATION_FEEDBACK_VALID_BIT)
        p->cached = (whole.flags & VK_PIPELINE_CREATION_FEEDBACK_APPLICATION_PIPELINE_CACHE_HIT_BIT) != 0;
    else
        p->cached = gpu->cache_loaded > 0;
    vk->vkDestroyShaderModule(gpu->device, module, NULL);
}

typedef struct job {
    hk_gpu *gpu;
    hk_gpu_pipeline **list;
    size_t count;
    atomic_size_t next;
    atomic_bool failed; /* one failure is enough: the others' work would be for nothing */
} job;

static void *worker(void *argument)
{
    job *j = argument;
    for (;;) {
        size_t i = atomic_fetch_add(&j->next, 1);
        if (i >= j->count || atomic_load(&j->failed))
            return NULL;
        compile(j->gpu, j->list[i]);
        if (j->list[i]->result != VK_SUCCESS)
            atomic_store(&j->failed, true);
    }
}

static void compile_all(hk_gpu *gpu, hk_gpu_pipeline **list, size_t count)
{
    job j = {.gpu = gpu, .list = list, .count = count};
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    size_t threads = HK_MIN(HK_MIN(count, (size_t)THREADS_MAX), (size_t)HK_MAX(processors, 1L));
    pthread_t others[THREADS_MAX];
    size_t started = 0;
    /* This thread is one of them; if the system gives no more, it does the work alone. */
    while (started + 1 < threads && pthread_create(&others[started], NULL, worker, &j) == 0)
        started++;
    worker(&j);
    for (size_t i = 0; i < started; i++)
        pthread_join(others[i], NULL);
}

/* ---------------------------------------------------------------- the list */

/* Adds what is missing, without handles yet. */
static hk_status add_missing(hk_gpu *gpu, const hk_gpu_pipeline_key *keys, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        HK_TRY(check_key(gpu, &keys[i]));
        hk_gpu_pipeline_key key = normalized(gpu, &keys[i]);
        if (find(gpu, &key) != NULL)
            continue;
        if (gpu->pipeline_count == gpu->pipeline_capacity) {
            size_t capacity = HK_MAX(2 * gpu->pipeline_capacity, (size_t)32);
            hk_gpu_pipeline **larger = hk_realloc(gpu->ctx, gpu->pipelines, capacity * sizeof *larger);
            if (larger == NULL)
                return hk_out_of_memory(gpu->ctx, "the list of pipelines");
            gpu->pipelines = larger;
            gpu->pipeline_capacity = capacity;
        }
        hk_gpu_pipeline *p = hk_alloc(gpu->ctx, sizeof *p);
        if (p == NULL)
            return hk_out_of_memory(gpu->ctx, "a pipeline");
        p->key = key;
        p->hash = hash_key(&key);
        gpu->pipelines[gpu->pipeline_count++] = p;
        if (gpu->info.type != HK_DEVICE_SOFTWARE)
            continue; /* a GPU's compiler gets what it was tuned with */
        p->code = hk_prune(gpu->ctx, key.kernel, key.spec, key.spec_count, &p->code_bytes);
        if (p->code == NULL)
            return hk_out_of_memory(gpu->ctx, "a pipeline's code");
        if (key.keep_loops)
            hk_keep_loops(p->code, p->code_bytes);
    }
    return HK_OK;
}

/* Keeps those from first on that were made, counts them, and reports the first that failed. */
static hk_status keep_made(hk_gpu *gpu, size_t first)
{
    hk_status st = HK_OK;
    size_t kept = first;
    for (size_t i = first; i < gpu->pipeline_count; i++) {
        hk_gpu_pipeline *p = gpu->pipelines[i];
        hk_free(gpu->ctx, p->code);
        p->code = NULL;
        if (p->handle != VK_NULL_HANDLE) {
            gpu->stats.pipelines_created++;
            gpu->stats.pipelines_compiled += p->cached ? 0 : 1;
            hk_validation_name(&gpu->vk, gpu->device, VK_OBJECT_TYPE_PIPELINE, (uint64_t)p->handle,
                               p->key.kernel->name);
            gpu->pipelines[kept++] = p;
            continue;
        }
        if (p->result != VK_SUCCESS && st == HK_OK) {
            st = hk_vk_failed(&gpu->vk, p->call, p->result);
            hk_fail_prefix(gpu->ctx, st, "kernel '%s'", p->key.kernel->name);
        }
        hk_free(gpu->ctx, p);
    }
    gpu->pipeline_count = kept;
    return st;
}

hk_status hk_gpu_pipelines(hk_gpu *gpu, const hk_gpu_pipeline_key *keys, size_t count, hk_gpu_pipeline **out)
{
    HK_TRY(hk_gpu_alive(gpu));
    size_t first = gpu->pipeline_count;
    uint64_t begin = hk_now_ns();
    hk_status st = add_missing(gpu, keys, count);
    if (st == HK_OK && gpu->pipeline_count > first)
        compile_all(gpu, gpu->pipelines + first, gpu->pipeline_count - first);
    hk_status made = keep_made(gpu, first);
    gpu->stats.pipelines_ns += hk_now_ns() - begin;
    HK_TRY(st != HK_OK ? st : made);
    HK_TRY(hk_vk_settle(&gpu->vk, HK_OK));
    for (size_t i = 0; i < count; i++) {
        hk_gpu_pipeline_key key = normalized(gpu, &keys[i]);
        out[i] = find(gpu, &key);
    }
    return HK_OK;
}

/* ---------------------------------------------------------------- opening and closing */

hk_status hk_pipelines_open(hk_gpu *gpu)
{
    VkPushConstantRange range = {.stageFlags = VK_SHADER_STAGE_COMPUTE_BIT, .offset = 0, .size = HK_PUSH_MAX};
    VkPipelineLayoutCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
        .pushConstantRangeCount = 1,
        .pPushConstantRanges = &range,
    };
    VkPipelineLayout layout;
    VK_TRY(&gpu->vk, vkCreatePipelineLayout, gpu->device, &info, NULL, &layout);
    gpu->layout = layout;
    return hk_cache_open(gpu);
}

void hk_pipelines_close(hk_gpu *gpu)
{
    bool quiet = hk_queue_quiet(gpu);
    for (size_t i = 0; i < gpu->pipeline_count; i++) {
        if (quiet)
            gpu->vk.vkDestroyPipeline(gpu->device, gpu->pipelines[i]->handle, NULL);
        hk_free(gpu->ctx, gpu->pipelines[i]);
    }
    hk_free(gpu->ctx, gpu->pipelines);
    if (quiet)
        hk_cache_close(gpu);
    hk_free(gpu->ctx, gpu->cache_path);
    if (quiet && gpu->layout != VK_NULL_HANDLE)
        gpu->vk.vkDestroyPipelineLayout(gpu->device, gpu->layout, NULL);
}
