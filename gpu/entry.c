/*
 * Loading Vulkan: the loader's library, the instance, the table of entry points, and the fault-injection seam.
 */
#include "gpu/entry.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "gpu/gpu.h"
#include "gpu/validation.h"

/* ---------------------------------------------------------------- seam */

/*
 * The library's only mutable globals. They are not in a context because the calls that a test wants to fail include
 * those made before a device exists, and on threads of the pipeline compiler; they are atomic for the latter. Tests arm
 * them from one thread, while no other one is in a call.
 */
static _Atomic(const char *) fail_name;
static atomic_uint_fast64_t fail_countdown; /* 0: off */
static atomic_int fail_result;

void hk_gpu_fail_call(const char *name, uint64_t n, int32_t result)
{
    atomic_store(&fail_name, name);
    atomic_store(&fail_result, result);
    atomic_store(&fail_countdown, n);
}

bool hk_gpu_fail_pending(void)
{
    return atomic_load(&fail_countdown) != 0;
}

VkResult hk_vk_seam(const char *call)
{
    uint_fast64_t n = atomic_load_explicit(&fail_countdown, memory_order_relaxed);
    if (n == 0)
        return VK_SUCCESS;
    const char *name = atomic_load(&fail_name);
    if (name != NULL && strcmp(name, call) != 0)
        return VK_SUCCESS;
    /* Exactly one of several threads takes the step to 0. */
    while (n != 0 && !atomic_compare_exchange_weak(&fail_countdown, &n, n - 1)) {
    }
    return n == 1 ? (VkResult)atomic_load(&fail_result) : VK_SUCCESS;
}

/* ---------------------------------------------------------------- errors */

/* name, the status it becomes, what the user can do */
#define RESULT_MAP(X)                                                                                                  \
    X(VK_NOT_READY, INTERNAL, "")                                                                                      \
    X(VK_TIMEOUT, INTERNAL, "")                                                                                        \
    X(VK_INCOMPLETE, INTERNAL, "")                                                                                     \
    X(VK_ERROR_OUT_OF_HOST_MEMORY, OUT_OF_MEMORY, ": close other programs")                                            \
    X(VK_ERROR_OUT_OF_DEVICE_MEMORY, OUT_OF_MEMORY, ": use a smaller batch, or close other programs on the device")    \
    X(VK_ERROR_INITIALIZATION_FAILED, NO_DEVICE, ": check the driver with vulkaninfo")                                 \
    X(VK_ERROR_DEVICE_LOST, DEVICE_LOST,                                                                               \
      ": the driver reset the device or it was removed; close it and open it again")                                   \
    X(VK_ERROR_MEMORY_MAP_FAILED, OUT_OF_MEMORY, ": close other programs")                                             \
    X(VK_ERROR_LAYER_NOT_PRESENT, NO_DEVICE, ": check the Vulkan layers with vulkaninfo")                              \
    X(VK_ERROR_EXTENSION_NOT_PRESENT, NO_DEVICE, ": check the driver with vulkaninfo")                                 \
    X(VK_ERROR_FEATURE_NOT_PRESENT, NO_DEVICE, ": check the driver with vulkaninfo")                                   \
    X(VK_ERROR_INCOMPATIBLE_DRIVER, NO_DEVICE, ": install or update the Vulkan driver")                                \
    X(VK_ERROR_TOO_MANY_OBJECTS, OUT_OF_MEMORY, ": close other sessions")                                              \
    X(VK_ERROR_FRAGMENTATION, OUT_OF_MEMORY, ": close other sessions")                                                 \
    X(VK_ERROR_INVALID_OPAQUE_CAPTURE_ADDRESS, OUT_OF_MEMORY, "")                                                      \
    X(VK_ERROR_INVALID_SHADER_NV, INTERNAL, ": the driver refused a kernel; update it, or report this")                \
    X(VK_ERROR_UNKNOWN, INTERNAL, ": the driver gave no reason; update it, or report this")

const char *hk_vk_result_name(VkResult result)
{
    switch ((int)result) {
#define HK_X(name, status, remedy)                                                                                     \
    case name: return #name;
        RESULT_MAP(HK_X)
#undef HK_X
    default: return "an unknown VkResult";
    }
}

hk_status hk_vk_failed(hk_vk *vk, const char *call, VkResult result)
{
    hk_status st = HK_STATUS_INTERNAL;
    const char *remedy = "";
    switch ((int)result) {
#define HK_X(name, status, text)                                                                                       \
    case name:                                                                                                         \
        st = HK_STATUS_##status;                                                                                       \
        remedy = text;                                                                                                 \
        break;
        RESULT_MAP(HK_X)
#undef HK_X
    default: break;
    }
    if (result == VK_ERROR_DEVICE_LOST)
        vk->lost = true;
    return hk_fail(vk->ctx, st, "%s returned %s (%d)%s", call, hk_vk_result_name(result), (int)result, remedy);
}

hk_status hk_vk_settle(hk_vk *vk, hk_status st)
{
    char text[sizeof vk->validation.text];
    if (!hk_validation_take(&vk->validation, text))
        return st;
    return hk_fail(vk->ctx, HK_STATUS_INTERNAL, "the Vulkan validation layer reports: %s", text);
}

/* ---------------------------------------------------------------- instance */

static hk_status missing_function(hk_vk *vk, const char *name)
{
    return hk_fail(vk->ctx, HK_STATUS_NO_DEVICE,
                   "the Vulkan loader or driver lacks the function %s of Vulkan 1.2: update the driver", name);
}

/* Finds the loader; vk->library stays NULL on machines without one. */
static hk_status load_library(hk_vk *vk)
{
    static const char *const names[] = {"libvulkan.so.1", "libvulkan.so"};
    for (size_t i = 0; i < HK_COUNT(names) && vk->library == NULL; i++)
        vk->library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (vk->library == NULL) {
        hk_log(vk->ctx, HK_LOG_INFO, "no Vulkan loader: %s", dlerror());
        return HK_OK;
    }
    /* ISO C has no conversion from an object pointer to a function pointer; POSIX has them of one representation. */
    void *symbol = dlsym(vk->library, "vkGetInstanceProcAddr");
    memcpy(&vk->vkGetInstanceProcAddr, &symbol, sizeof symbol);
    if (symbol == NULL)
        return missing_function(vk, "vkGetInstanceProcAddr");
#define HK_X(name)                                                                                                     \
    vk->name = (PFN_##name)vk->vkGetInstanceProcAddr(NULL, #name);                                                     \
    if (vk->name == NULL)                                                                                              \
        return missing_function(vk, #name);
    HK_VK_GLOBAL(HK_X)
#undef HK_X
    return HK_OK;
}

static hk_status load_instance_functions(hk_vk *vk)
{
#define HK_X(name)                                                                                                     \
    vk->name = (PFN_##name)vk->vkGetInstanceProcAddr(vk->instance, #name);                                             \
    if (vk->name == NULL)                                                                                              \
        return missing_function(vk, #name);
    HK_VK_INSTANCE(HK_X)
#undef HK_X
#define HK_X(name) vk->name = (PFN_##name)vk->vkGetInstanceProcAddr(vk->instance, #name);
    HK_VK_OPTIONAL(HK_X)
#undef HK_X
    vk->vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR = (PFN_hk_vk_coopmat_shapes)vk->vkGetInstanceProcAddr(
        vk->instance, "vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR");
    return HK_OK;
}

static hk_status create_instance(hk_vk *vk, unsigned debug)
{
    VkApplicationInfo application = {
        .sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
        .pEngineName = "hillock",
        .engineVersion = VK_MAKE_VERSION(HK_VERSION_MAJOR, HK_VERSION_MINOR, HK_VERSION_PATCH),
        .apiVersion = VK_API_VERSION_1_3, /* the newest we know; devices of 1.2 are used as 1.2 */
    };
    VkInstanceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO, .pApplicationInfo = &application};
    hk_validation_request request;
    if (debug & HK_DEBUG_VALIDATE)
        HK_TRY(hk_validation_prepare(vk, debug, &request, &info));

    VkInstance instance = VK_NULL_HANDLE;
    VkResult result;
    VK_RUN(result, vk, vkCreateInstance, &info, NULL, &instance);
    if (result == VK_ERROR_INCOMPATIBLE_DRIVER) {
        /* This is how the loader says that it found no driver at all. */
        hk_log(vk->ctx, HK_LOG_INFO, "the Vulkan loader found no driver");
        return HK_OK;
    }
    if (result != VK_SUCCESS)
        return hk_vk_failed(vk, "vkCreateInstance", result);
    vk->instance = instance;
    HK_TRY(load_instance_functions(vk));
    if (debug & HK_DEBUG_VALIDATE)
        HK_TRY(hk_validation_start(vk));
    return HK_OK;
}

hk_status hk_vk_open(hk_context *ctx, unsigned debug, hk_vk *vk)
{
    *vk = (hk_vk){.ctx = ctx};
    pthread_mutex_init(&vk->validation.lock, NULL); /* a default mutex needs no resources and cannot fail */
    hk_resident_look(&vk->before);
    HK_TRY(load_library(vk));
    return vk->library == NULL ? HK_OK : create_instance(vk, debug);
}

hk_status hk_vk_load_device(hk_vk *vk, VkDevice device)
{
#define HK_X(name)                                                                                                     \
    vk->name = (PFN_##name)vk->vkGetDeviceProcAddr(device, #name);                                                     \
    if (vk->name == NULL)                                                                                              \
        return missing_function(vk, #name);
    HK_VK_DEVICE(HK_X)
#undef HK_X
    return HK_OK;
}

void hk_vk_close(hk_vk *vk)
{
    if (vk->ctx == NULL)
        return; /* never opened */
    hk_validation_stop(vk);
    if (vk->instance != VK_NULL_HANDLE)
        hk_resident_keep(&vk->before);
    if (vk->instance != VK_NULL_HANDLE && vk->vkDestroyInstance != NULL)
        vk->vkDestroyInstance(vk->instance, NULL);
    /* What the layer says last, about objects that outlive their device, can no longer fail a call. */
    char text[sizeof vk->validation.text];
    if (hk_validation_take(&vk->validation, text))
        hk_log(vk->ctx, HK_LOG_ERROR, "the Vulkan validation layer reports: %s", text);
    if (vk->library != NULL)
        dlclose(vk->library);
    pthread_mutex_destroy(&vk->validation.lock);
    *vk = (hk_vk){0};
}

void hk_vk_abandon(hk_vk *vk)
{
    /* The messenger would call into memory that goes away; the instance and the library are left as they are. */
    hk_validation_stop(vk);
    pthread_mutex_destroy(&vk->validation.lock);
    *vk = (hk_vk){0};
}
