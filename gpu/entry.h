/*
 * Vulkan's entry points: our own table, loaded from the system's loader at run time, and the seam through which every
 * call that can fail goes, so that tests can make it fail.
 */
#ifndef HK_ENTRY_H
#define HK_ENTRY_H

#include <pthread.h>

#define VK_NO_PROTOTYPES
#include <vulkan/vulkan.h>

#include "core/context.h"
#include "gpu/resident.h"

/* ---- what headers older than 1.3.255 lack, under our own names so that newer headers do not collide */

#define HK_VK_STRUCTURE_TYPE_SHADER_BFLOAT16_FEATURES ((VkStructureType)1000141000)
#define HK_VK_STRUCTURE_TYPE_COOPMAT_FEATURES ((VkStructureType)1000506000)
#define HK_VK_STRUCTURE_TYPE_COOPMAT_SHAPE ((VkStructureType)1000506001)
#define HK_VK_STRUCTURE_TYPE_COOPMAT2_FEATURES ((VkStructureType)1000593000)

typedef enum hk_vk_component_type { /* VkComponentTypeKHR */
                                    HK_VK_COMPONENT_FLOAT16 = 0,
                                    HK_VK_COMPONENT_FLOAT32 = 1,
                                    HK_VK_COMPONENT_SINT8 = 3,
                                    HK_VK_COMPONENT_SINT32 = 5,
                                    HK_VK_COMPONENT_BFLOAT16 = 1000141000,
                                    HK_VK_COMPONENT_MAX = 0x7fffffff,
} hk_vk_component_type;

typedef enum hk_vk_scope { /* VkScopeKHR */
                           HK_VK_SCOPE_SUBGROUP = 3,
                           HK_VK_SCOPE_MAX = 0x7fffffff,
} hk_vk_scope;

typedef struct hk_vk_bfloat16_features { /* VkPhysicalDeviceShaderBfloat16FeaturesKHR */
    VkStructureType sType;
    void *pNext;
    VkBool32 type, dot_product, cooperative_matrix;
} hk_vk_bfloat16_features;

typedef struct hk_vk_coopmat_features { /* VkPhysicalDeviceCooperativeMatrixFeaturesKHR */
    VkStructureType sType;
    void *pNext;
    VkBool32 cooperative_matrix, robust_buffer_access;
} hk_vk_coopmat_features;

typedef struct hk_vk_coopmat2_features { /* VkPhysicalDeviceCooperativeMatrix2FeaturesNV */
    VkStructureType sType;
    void *pNext;
    VkBool32 workgroup_scope, flexible_dimensions, reductions, conversions, per_element_operations, tensor_addressing,
        block_loads;
} hk_vk_coopmat2_features;

typedef struct hk_vk_coopmat_shape { /* VkCooperativeMatrixPropertiesKHR */
    VkStructureType sType;
    void *pNext;
    uint32_t m, n, k;
    hk_vk_component_type a, b, c, result;
    VkBool32 saturating;
    hk_vk_scope scope;
} hk_vk_coopmat_shape;

typedef VkResult(VKAPI_PTR *PFN_hk_vk_coopmat_shapes)(VkPhysicalDevice device, uint32_t *count,
                                                      hk_vk_coopmat_shape *shapes);

/* ---- the table: X(name). A missing function of the first three lists is an error, of the fourth it stays NULL. */

#define HK_VK_GLOBAL(X)                                                                                                \
    X(vkCreateInstance)                                                                                                \
    X(vkEnumerateInstanceExtensionProperties)                                                                          \
    X(vkEnumerateInstanceLayerProperties)

#define HK_VK_INSTANCE(X)                                                                                              \
    X(vkDestroyInstance)                                                                                               \
    X(vkEnumeratePhysicalDevices)                                                                                      \
    X(vkEnumerateDeviceExtensionProperties)                                                                            \
    X(vkGetPhysicalDeviceFeatures2)                                                                                    \
    X(vkGetPhysicalDeviceMemoryProperties2)                                                                            \
    X(vkGetPhysicalDeviceProperties)                                                                                   \
    X(vkGetPhysicalDeviceProperties2)                                                                                  \
    X(vkGetPhysicalDeviceQueueFamilyProperties)                                                                        \
    X(vkCreateDevice)                                                                                                  \
    X(vkGetDeviceProcAddr)

#define HK_VK_DEVICE(X)                                                                                                \
    X(vkAllocateCommandBuffers)                                                                                        \
    X(vkAllocateMemory)                                                                                                \
    X(vkBeginCommandBuffer)                                                                                            \
    X(vkBindBufferMemory)                                                                                              \
    X(vkCmdBindPipeline)                                                                                               \
    X(vkCmdCopyBuffer)                                                                                                 \
    X(vkCmdDispatch)                                                                                                   \
    X(vkCmdFillBuffer)                                                                                                 \
    X(vkCmdPipelineBarrier)                                                                                            \
    X(vkCmdPushConstants)                                                                                              \
    X(vkCmdResetQueryPool)                                                                                             \
    X(vkCmdWriteTimestamp)                                                                                             \
    X(vkCreateBuffer)                                                                                                  \
    X(vkCreateCommandPool)                                                                                             \
    X(vkCreateComputePipelines)                                                                                        \
    X(vkCreatePipelineCache)                                                                                           \
    X(vkCreatePipelineLayout)                                                                                          \
    X(vkCreateQueryPool)                                                                                               \
    X(vkCreateSemaphore)                                                                                               \
    X(vkCreateShaderModule)                                                                                            \
    X(vkDestroyBuffer)                                                                                                 \
    X(vkDestroyCommandPool)                                                                                            \
    X(vkDestroyDevice)                                                                                                 \
    X(vkDestroyPipeline)                                                                                               \
    X(vkDestroyPipelineCache)                                                                                          \
    X(vkDestroyPipelineLayout)                                                                                         \
    X(vkDestroyQueryPool)                                                                                              \
    X(vkDestroySemaphore)                                                                                              \
    X(vkDestroyShaderModule)                                                                                           \
    X(vkEndCommandBuffer)                                                                                              \
    X(vkFreeMemory)                                                                                                    \
    X(vkGetBufferDeviceAddress)                                                                                        \
    X(vkGetBufferMemoryRequirements)                                                                                   \
    X(vkGetDeviceQueue)                                                                                                \
    X(vkGetPipelineCacheData)                                                                                          \
    X(vkGetQueryPoolResults)                                                                                           \
    X(vkGetSemaphoreCounterValue)                                                                                      \
    X(vkMapMemory)                                                                                                     \
    X(vkQueueSubmit)                                                                                                   \
    X(vkResetCommandPool)                                                                                              \
    X(vkWaitSemaphores)

#define HK_VK_OPTIONAL(X)                                                                                              \
    X(vkCreateDebugUtilsMessengerEXT)                                                                                  \
    X(vkDestroyDebugUtilsMessengerEXT)                                                                                 \
    X(vkSetDebugUtilsObjectNameEXT)

/* What the validation layer said; its callback may come on any thread. */
typedef struct hk_validation {
    bool on;
    uint32_t unknown_caps; /* bits (1 << HK_CAP_x): the layer is older than these and would report them as errors */
    bool pending;          /* text has not been reported yet */
    pthread_mutex_t lock;
    VkDebugUtilsMessengerEXT messenger;
    char text[1024]; /* the first message since the last report */
} hk_validation;

/* A Vulkan instance with the table; the device's functions are NULL until hk_vk_load_device. It must not move while
 * validation is on. */
typedef struct hk_vk {
    hk_context *ctx;
    void *library;
    hk_resident before;  /* the loader and the drivers */
    VkInstance instance; /* NULL: this machine has no loader or no driver */
    bool lost;           /* the device was lost or did not answer: everything fails from then on */
    hk_validation validation;
    PFN_vkGetInstanceProcAddr vkGetInstanceProcAddr;
    PFN_hk_vk_coopmat_shapes vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR;
#define HK_X(name) PFN_##name name;
    HK_VK_GLOBAL(HK_X)
    HK_VK_INSTANCE(HK_X)
    HK_VK_DEVICE(HK_X)
    HK_VK_OPTIONAL(HK_X)
#undef HK_X
} hk_vk;

/* Loads libvulkan and creates an instance. Without loader or driver it is HK_OK and vk->instance is NULL. debug: bits
 * of hk_debug. vk is zeroed first; hk_vk_close ends it, also after a failure. */
hk_status hk_vk_open(hk_context *ctx, unsigned debug, hk_vk *vk);
hk_status hk_vk_load_device(hk_vk *vk, VkDevice device);
void hk_vk_close(hk_vk *vk);
/* The same, but the loader stays in memory with everything created from it: the device still runs our work. */
void hk_vk_abandon(hk_vk *vk);

/* The sentence and status for a failed call; remembers a lost device. */
hk_status hk_vk_failed(hk_vk *vk, const char *call, VkResult result);
const char *hk_vk_result_name(VkResult result);
/* Turns st into HK_STATUS_INTERNAL if the validation layer has said anything since the last call. Every public function
 * that can fail ends with it. */
hk_status hk_vk_settle(hk_vk *vk, hk_status st);

/* Whether the call is to fail, and how: VK_SUCCESS lets it happen. */
VkResult hk_vk_seam(const char *call);

/* result = the call's, through the seam. */
#define VK_RUN(result, vk, name, ...)                                                                                  \
    do {                                                                                                               \
        (result) = hk_vk_seam(#name);                                                                                  \
        if ((result) == VK_SUCCESS)                                                                                    \
            (result) = (vk)->name(__VA_ARGS__);                                                                        \
    } while (0)

/* Leaves the function with status and sentence if the call failed. Success codes other than VK_SUCCESS pass. */
#define VK_TRY(vk, name, ...)                                                                                          \
    do {                                                                                                               \
        VkResult result_;                                                                                              \
        VK_RUN(result_, vk, name, __VA_ARGS__);                                                                        \
        if (result_ < 0)                                                                                               \
            return hk_vk_failed((vk), #name, result_);                                                                 \
    } while (0)

#endif
