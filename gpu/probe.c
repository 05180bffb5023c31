/*
 * Asking a physical device what it is and can do, and choosing what of it to switch on.
 */
#include <stdio.h>
#include <string.h>

#include "gpu/internal.h"

/* A growing pNext chain. */
typedef struct chain {
    VkBaseOutStructure *last;
} chain;

/* entry: a Vulkan structure; all begin with sType and pNext. */
static void chain_add(chain *c, void *entry, VkStructureType type)
{
    VkBaseOutStructure *e = entry;
    e->sType = type;
    e->pNext = NULL;
    c->last->pNext = e;
    c->last = e;
}

/* Chains the structures that the device knows, leaving their features as they are. */
static void chain_features(hk_features *f, const hk_known *known)
{
    f->core.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2;
    f->core.pNext = NULL;
    chain c = {(VkBaseOutStructure *)&f->core};
    chain_add(&c, &f->v11, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES);
    chain_add(&c, &f->v12, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES);
    if (known->subgroup_size)
        chain_add(&c, &f->subgroup_size, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES);
    if (known->int_dot)
        chain_add(&c, &f->int_dot, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES);
    if (known->coopmat)
        chain_add(&c, &f->coopmat, HK_VK_STRUCTURE_TYPE_COOPMAT_FEATURES);
    if (known->coopmat2)
        chain_add(&c, &f->coopmat2, HK_VK_STRUCTURE_TYPE_COOPMAT2_FEATURES);
    if (known->bf16)
        chain_add(&c, &f->bf16, HK_VK_STRUCTURE_TYPE_SHADER_BFLOAT16_FEATURES);
}

/* ---------------------------------------------------------------- extensions */

static bool has_extension(const VkExtensionProperties *list, uint32_t count, const char *name)
{
    for (uint32_t i = 0; i < count; i++)
        if (strcmp(list[i].extensionName, name) == 0)
            return true;
    return false;
}

static hk_status probe_extensions(hk_vk *vk, hk_probe *probe, uint32_t known_caps)
{
    uint32_t count = 0;
    VK_TRY(vk, vkEnumerateDeviceExtensionProperties, probe->handle, NULL, &count, NULL);
    VkExtensionProperties *list = hk_alloc_array(vk->ctx, count, sizeof *list);
    if (list == NULL)
        return hk_out_of_memory(vk->ctx, "a device's list of extensions");
    VkResult result;
    VK_RUN(result, vk, vkEnumerateDeviceExtensionProperties, probe->handle, NULL, &count, list);
    hk_known *known = &probe->known;
    known->core13 = probe->properties.apiVersion >= VK_API_VERSION_1_3;
    known->subgroup_size = known->core13 || has_extension(list, count, VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME);
    known->int_dot = known->core13 || has_extension(list, count, VK_KHR_SHADER_INTEGER_DOT_PRODUCT_EXTENSION_NAME);
    known->feedback = known->core13 || has_extension(list, count, VK_EXT_PIPELINE_CREATION_FEEDBACK_EXTENSION_NAME);
    known->memory_budget = has_extension(list, count, VK_EXT_MEMORY_BUDGET_EXTENSION_NAME);
    known->coopmat = (known_caps & 1u << HK_CAP_COOPMAT) != 0 &&
                     has_extension(list, count, "VK_KHR_cooperative_matrix") &&
                     vk->vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR != NULL;
    known->coopmat2 = (known_caps & 1u << HK_CAP_COOPMAT2) != 0 && known->coopmat &&
                      has_extension(list, count, "VK_NV_cooperative_matrix2");
    known->bf16 = (known_caps & 1u << HK_CAP_BF16) != 0 && known->coopmat &&
                  has_extension(list, count, "VK_KHR_shader_bfloat16");
    hk_free(vk->ctx, list);
    return result < 0 ? hk_vk_failed(vk, "vkEnumerateDeviceExtensionProperties", result) : HK_OK;
}

/* ---------------------------------------------------------------- properties */

static hk_device_type device_type(VkPhysicalDeviceType type)
{
    switch (type) {
    case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU: return HK_DEVICE_INTEGRATED;
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU: return HK_DEVICE_DISCRETE;
    case VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU: return HK_DEVICE_VIRTUAL;
    case VK_PHYSICAL_DEVICE_TYPE_CPU: return HK_DEVICE_SOFTWARE;
    default: return HK_DEVICE_OTHER;
    }
}

static void set_cap(hk_device_info *info, hk_cap cap, bool present)
{
    if (present)
        info->caps |= 1u << cap;
}

/* Names, limits and subgroups. */
static void probe_properties(hk_vk *vk, hk_probe *probe)
{
    VkPhysicalDeviceProperties2 p = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2};
    VkPhysicalDeviceVulkan11Properties v11;
    VkPhysicalDeviceVulkan12Properties v12;
    VkPhysicalDeviceSubgroupSizeControlProperties subgroup = {0};
    chain c = {(VkBaseOutStructure *)&p};
    chain_add(&c, &v11, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_PROPERTIES);
    chain_add(&c, &v12, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_PROPERTIES);
    if (probe->known.subgroup_size)
        chain_add(&c, &subgroup, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_PROPERTIES);
    vk->vkGetPhysicalDeviceProperties2(probe->handle, &p);

    hk_device_info *info = &probe->info;
    const VkPhysicalDeviceLimits *limits = &p.properties.limits;
    snprintf(info->driver, sizeof info->driver, "%.120s %.120s", v12.driverName, v12.driverInfo);
    for (size_t i = 0; i < VK_UUID_SIZE; i++)
        snprintf(info->uuid + 2 * i, 3, "%02x", v11.deviceUUID[i]);
    info->subgroup_size = v11.subgroupSize;
    info->max_invocations = limits->maxComputeWorkGroupInvocations;
    info->max_shared_bytes = limits->maxComputeSharedMemorySize;
    const uint32_t *grid = limits->maxComputeWorkGroupCount;
    info->max_grid = HK_MIN(HK_MIN(grid[0], grid[1]), grid[2]);
    info->max_allocation_bytes = v11.maxMemoryAllocationSize;

    const VkSubgroupFeatureFlags operations = VK_SUBGROUP_FEATURE_BASIC_BIT | VK_SUBGROUP_FEATURE_ARITHMETIC_BIT |
                                              VK_SUBGROUP_FEATURE_SHUFFLE_BIT | VK_SUBGROUP_FEATURE_BALLOT_BIT;
    set_cap(info, HK_CAP_SUBGROUP,
            (v11.subgroupSupportedStages & VK_SHADER_STAGE_COMPUTE_BIT) != 0 &&
                (v11.subgroupSupportedOperations & operations) == operations);
    probe->min_subgroup_size = subgroup.minSubgroupSize;
    probe->max_subgroup_size = subgroup.maxSubgroupSize;
    probe->max_workgroup_subgroups = subgroup.maxComputeWorkgroupSubgroups;
    set_cap(info, HK_CAP_SUBGROUP_SIZE,
            (subgroup.requiredSubgroupSizeStages & VK_SHADER_STAGE_COMPUTE_BIT) != 0 &&
                probe->features.subgroup_size.subgroupSizeControl &&
                probe->features.subgroup_size.computeFullSubgroups);
}

static void probe_memory(hk_vk *vk, hk_probe *probe)
{
    VkPhysicalDeviceMemoryProperties2 m = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2};
    vk->vkGetPhysicalDeviceMemoryProperties2(probe->handle, &m);
    for (uint32_t i = 0; i < m.memoryProperties.memoryHeapCount; i++)
        if (m.memoryProperties.memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT)
            probe->info.memory_bytes = HK_MAX(probe->info.memory_bytes, m.memoryProperties.memoryHeaps[i].size);
}

/* A family that can compute, preferably one with timestamps. False when there is none. */
static hk_status probe_queues(hk_vk *vk, hk_probe *probe, bool *found)
{
    *found = false;
    uint32_t count = 0;
    vk->vkGetPhysicalDeviceQueueFamilyProperties(probe->handle, &count, NULL);
    VkQueueFamilyProperties *families = hk_alloc_array(vk->ctx, count, sizeof *families);
    if (families == NULL)
        return hk_out_of_memory(vk->ctx, "a device's list of queue families");
    vk->vkGetPhysicalDeviceQueueFamilyProperties(probe->handle, &count, families);
    for (uint32_t i = 0; i < count; i++) {
        if ((families[i].queueFlags & VK_QUEUE_COMPUTE_BIT) == 0)
            continue;
        if (!*found || (probe->timestamp_bits == 0 && families[i].timestampValidBits > 0)) {
            probe->queue_family = i;
            probe->timestamp_bits = families[i].timestampValidBits;
        }
        *found = true;
    }
    hk_free(vk->ctx, families);
    set_cap(&probe->info, HK_CAP_TIMESTAMPS,
            probe->timestamp_bits > 0 && probe->properties.limits.timestampPeriod > 0.0f);
    return HK_OK;
}

/* ---------------------------------------------------------------- matrices */

static bool is_shape(const hk_vk_coopmat_shape *s, hk_vk_component_type operand, hk_vk_component_type sum)
{
    return s->scope == HK_VK_SCOPE_SUBGROUP && s->a == operand && s->b == operand && s->c == sum && s->result == sum &&
           !s->saturating;
}

/* 16x16 with 32 bytes of K first, for that is what kernels are tuned for; then by the work one instruction does. */
static uint64_t shape_rank(const hk_coopmat_shape *s, uint32_t element_bytes)
{
    if (s->m == 16 && s->n == 16 && s->k * element_bytes == 32)
        return UINT64_MAX;
    return (uint64_t)s->m * s->n * s->k;
}

/* The preferred one of operands of that type, which has so many bytes; m 0: there is none. */
static hk_coopmat_shape best_shape(const hk_vk_coopmat_shape *list, uint32_t count, hk_vk_component_type operand,
                                   hk_vk_component_type sum, uint32_t bytes)
{
    hk_coopmat_shape best = {0, 0, 0};
    for (uint32_t i = 0; i < count; i++) {
        hk_coopmat_shape shape = {list[i].m, list[i].n, list[i].k};
        if (is_shape(&list[i], operand, sum) && (!best.m || shape_rank(&shape, bytes) > shape_rank(&best, bytes)))
            best = shape;
    }
    return best;
}

/* bf16 in the shape of fp16: kernels use one for both types. */
static bool has_bf16(const hk_vk_coopmat_shape *list, uint32_t count, const hk_coopmat_shape *halves)
{
    for (uint32_t i = 0; i < count; i++)
        if (is_shape(&list[i], HK_VK_COMPONENT_BFLOAT16, HK_VK_COMPONENT_FLOAT32) && list[i].m == halves->m &&
            list[i].n == halves->n && list[i].k == halves->k)
            return true;
    return false;
}

/* Shapes that fit the smallest tile of the kernels, 32 x 32 with 64 bytes of K for four subgroups. */
static bool fits_bytes(const hk_coopmat_shape *s)
{
    return (s->m == 8 || s->m == 16) && (s->n == 8 || s->n == 16) && (s->k == 16 || s->k == 32 || s->k == 64);
}

static hk_status probe_coopmat(hk_vk *vk, hk_probe *probe)
{
    uint32_t count = 0;
    VK_TRY(vk, vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR, probe->handle, &count, NULL);
    hk_vk_coopmat_shape *list = hk_alloc_array(vk->ctx, count, sizeof *list);
    if (list == NULL)
        return hk_out_of_memory(vk->ctx, "a device's list of matrix shapes");
    for (uint32_t i = 0; i < count; i++)
        list[i].sType = HK_VK_STRUCTURE_TYPE_COOPMAT_SHAPE;
    VkResult result;
    VK_RUN(result, vk, vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR, probe->handle, &count, list);
    hk_coopmat_shape *halves = &probe->halves, *bytes = &probe->bytes;
    bool bf16 = false;
    if (result >= 0) {
        *halves = best_shape(list, count, HK_VK_COMPONENT_FLOAT16, HK_VK_COMPONENT_FLOAT32, 2);
        *bytes = best_shape(list, count, HK_VK_COMPONENT_SINT8, HK_VK_COMPONENT_SINT32, 1);
        bf16 = has_bf16(list, count, halves);
    }
    hk_free(vk->ctx, list);
    if (result < 0)
        return hk_vk_failed(vk, "vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR", result);
    const hk_features *f = &probe->features;
    set_cap(&probe->info, HK_CAP_COOPMAT, halves->m > 0);
    set_cap(&probe->info, HK_CAP_BF16, bf16 && f->bf16.type && f->bf16.cooperative_matrix);
    set_cap(&probe->info, HK_CAP_INT8_MATRIX, halves->m > 0 && fits_bytes(bytes) && f->v12.shaderInt8);
    set_cap(&probe->info, HK_CAP_COOPMAT2,
            halves->m > 0 && f->coopmat2.workgroup_scope && f->coopmat2.flexible_dimensions &&
                f->coopmat2.tensor_addressing);
    return HK_OK;
}

/* ---------------------------------------------------------------- the whole */

static hk_status unusable(hk_probe *probe, const char *why)
{
    snprintf(probe->info.why, sizeof probe->info.why, "%s", why);
    return HK_OK;
}

hk_status hk_probe_device(hk_vk *vk, VkPhysicalDevice handle, uint32_t known_caps, hk_probe *probe)
{
    *probe = (hk_probe){.handle = handle};
    vk->vkGetPhysicalDeviceProperties(handle, &probe->properties);
    hk_device_info *info = &probe->info;
    snprintf(info->name, sizeof info->name, "%s", probe->properties.deviceName);
    info->type = device_type(probe->properties.deviceType);
    if (probe->properties.apiVersion < VK_API_VERSION_1_2) {
        uint32_t v = probe->properties.apiVersion;
        snprintf(info->why, sizeof info->why, "its driver has Vulkan %u.%u; 1.2 is needed", VK_API_VERSION_MAJOR(v),
                 VK_API_VERSION_MINOR(v));
        return HK_OK;
    }
    HK_TRY(probe_extensions(vk, probe, known_caps));
    hk_features *f = &probe->features;
    chain_features(f, &probe->known);
    vk->vkGetPhysicalDeviceFeatures2(handle, &f->core);
    probe_properties(vk, probe);
    probe_memory(vk, probe);
    bool can_compute;
    HK_TRY(probe_queues(vk, probe, &can_compute));

    set_cap(info, HK_CAP_FP16, f->v12.shaderFloat16);
    set_cap(info, HK_CAP_STORAGE16, f->v11.storageBuffer16BitAccess);
    set_cap(info, HK_CAP_INT64, f->core.features.shaderInt64);
    set_cap(info, HK_CAP_INT8_DOT, f->int_dot.shaderIntegerDotProduct);
    if (f->coopmat.cooperative_matrix && f->v12.shaderFloat16 && f->v11.storageBuffer16BitAccess &&
        f->v12.vulkanMemoryModel)
        HK_TRY(probe_coopmat(vk, probe));

    if (!can_compute)
        return unusable(probe, "it has no queue that computes");
    if (!f->v12.bufferDeviceAddress)
        return unusable(probe, "its driver lacks the feature bufferDeviceAddress");
    if (!f->v12.timelineSemaphore)
        return unusable(probe, "its driver lacks the feature timelineSemaphore");
    info->usable = true;
    return HK_OK;
}

/* Switches on what the capabilities need; on and has are the same structure, wanted and supported. */
static void enable_caps(const hk_features *has, uint32_t caps, hk_features *on)
{
#define ON(cap) (caps & 1u << HK_CAP_##cap ? VK_TRUE : VK_FALSE)
    on->v12.shaderFloat16 = ON(FP16);
    on->v11.storageBuffer16BitAccess = ON(STORAGE16);
    on->v11.uniformAndStorageBuffer16BitAccess = ON(STORAGE16) && has->v11.uniformAndStorageBuffer16BitAccess;
    on->core.features.shaderInt64 = ON(INT64);
    on->int_dot.shaderIntegerDotProduct = ON(INT8_DOT);
    on->subgroup_size.subgroupSizeControl = ON(SUBGROUP_SIZE);
    on->subgroup_size.computeFullSubgroups = ON(SUBGROUP_SIZE);
    on->coopmat.cooperative_matrix = ON(COOPMAT);
    on->v12.shaderInt8 = ON(INT8_MATRIX);
    if (ON(BF16)) {
        on->bf16.type = VK_TRUE;
        on->bf16.dot_product = has->bf16.dot_product;
        on->bf16.cooperative_matrix = VK_TRUE;
    }
    if (ON(COOPMAT2)) {
        VkStructureType type = on->coopmat2.sType;
        void *next = on->coopmat2.pNext;
        on->coopmat2 = has->coopmat2;
        on->coopmat2.sType = type;
        on->coopmat2.pNext = next;
    }
#undef ON
}

void hk_probe_enable(const hk_probe *probe, uint32_t caps, bool minimal, hk_features *on, const char **names,
                     uint32_t *name_count)
{
    hk_known known = probe->known;
    known.coopmat = (caps & 1u << HK_CAP_COOPMAT) != 0;
    known.coopmat2 = (caps & 1u << HK_CAP_COOPMAT2) != 0;
    known.bf16 = (caps & 1u << HK_CAP_BF16) != 0;
    const hk_features *has = &probe->features;
    *on = (hk_features){0};
    chain_features(on, &known);

    on->v12.bufferDeviceAddress = VK_TRUE;
    on->v12.timelineSemaphore = VK_TRUE;
    enable_caps(has, caps, on);
    if (!minimal) {
        /* Not capabilities of their own: compilers of GLSL may use them where the types above are used. */
        on->core.features.shaderInt16 = has->core.features.shaderInt16;
        on->v12.shaderInt8 = has->v12.shaderInt8;
        on->v12.storageBuffer8BitAccess = has->v12.storageBuffer8BitAccess;
        on->v12.uniformAndStorageBuffer8BitAccess = has->v12.uniformAndStorageBuffer8BitAccess;
        on->v12.scalarBlockLayout = has->v12.scalarBlockLayout;
        on->v12.vulkanMemoryModel = has->v12.vulkanMemoryModel;
        on->v12.vulkanMemoryModelDeviceScope = has->v12.vulkanMemoryModelDeviceScope;
    }

    uint32_t n = 0;
    if (known.memory_budget)
        names[n++] = VK_EXT_MEMORY_BUDGET_EXTENSION_NAME;
    if (known.subgroup_size && !known.core13)
        names[n++] = VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME;
    if (known.int_dot && !known.core13)
        names[n++] = VK_KHR_SHADER_INTEGER_DOT_PRODUCT_EXTENSION_NAME;
    if (known.feedback && !known.core13)
        names[n++] = VK_EXT_PIPELINE_CREATION_FEEDBACK_EXTENSION_NAME;
    if (known.coopmat)
        names[n++] = "VK_KHR_cooperative_matrix";
    if (known.coopmat2)
        names[n++] = "VK_NV_cooperative_matrix2";
    if (known.bf16)
        names[n++] = "VK_KHR_shader_bfloat16";
    *name_count = n; /* at most 7 */
}
