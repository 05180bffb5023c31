/*
 * The validation layer: switching it on and keeping what it says.
 */
#include "gpu/validation.h"

#include <stdio.h>
#include <string.h>

#include "gpu/gpu.h"

static const char *const layer_name = "VK_LAYER_KHRONOS_validation";
static const char *const extension_names[] = {VK_EXT_DEBUG_UTILS_EXTENSION_NAME,
                                              VK_EXT_VALIDATION_FEATURES_EXTENSION_NAME};

static VKAPI_ATTR VkBool32 VKAPI_CALL on_message(VkDebugUtilsMessageSeverityFlagBitsEXT severity,
                                                 VkDebugUtilsMessageTypeFlagsEXT type,
                                                 const VkDebugUtilsMessengerCallbackDataEXT *data, void *user)
{
    (void)severity;
    (void)type;
    hk_validation *v = user;
    pthread_mutex_lock(&v->lock);
    if (!v->pending) {
        snprintf(v->text, sizeof v->text, "%s", data->pMessage);
        v->pending = true;
    }
    pthread_mutex_unlock(&v->lock);
    return VK_FALSE; /* the call goes on: its own status is worth having, too */
}

static VkDebugUtilsMessengerCreateInfoEXT messenger_info(hk_validation *v)
{
    return (VkDebugUtilsMessengerCreateInfoEXT){
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
        .messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT |
                           VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
        /* Not the general type: that is the loader talking about other drivers and layers of the machine. */
        .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT,
        .pfnUserCallback = on_message,
        .pUserData = v,
    };
}

/* A layer calls structures and shader capabilities that came after it errors, so under it devices do without them. */
static uint32_t caps_unknown_to(uint32_t version)
{
    static const struct {
        uint32_t since; /* the first version whose layer knows it */
        hk_cap cap;
    } news[] = {
        {VK_MAKE_API_VERSION(0, 1, 3, 255), HK_CAP_COOPMAT},
        {VK_MAKE_API_VERSION(0, 1, 3, 255), HK_CAP_INT8_MATRIX},
        {VK_MAKE_API_VERSION(0, 1, 4, 304), HK_CAP_COOPMAT2},
        {VK_MAKE_API_VERSION(0, 1, 4, 321), HK_CAP_BF16}, /* earlier ones do not know it as a matrix's type */
    };
    uint32_t unknown = 0;
    for (size_t i = 0; i < HK_COUNT(news); i++)
        if (version < news[i].since)
            unknown |= 1u << news[i].cap;
    return unknown;
}

/* Finds the layer and notes what it is too old to know. */
static hk_status find_layer(hk_vk *vk)
{
    uint32_t count = 0;
    VK_TRY(vk, vkEnumerateInstanceLayerProperties, &count, NULL);
    VkLayerProperties *layers = hk_alloc_array(vk->ctx, count, sizeof *layers);
    if (layers == NULL)
        return hk_out_of_memory(vk->ctx, "the list of Vulkan layers");
    VkResult result;
    VK_RUN(result, vk, vkEnumerateInstanceLayerProperties, &count, layers);
    hk_status st = HK_OK;
    if (result < 0) {
        st = hk_vk_failed(vk, "vkEnumerateInstanceLayerProperties", result);
    } else {
        const VkLayerProperties *found = NULL;
        for (uint32_t i = 0; i < count; i++)
            if (strcmp(layers[i].layerName, layer_name) == 0)
                found = &layers[i];
        if (found == NULL)
            st = hk_fail(vk->ctx, HK_STATUS_CONFIG,
                         "debug mode 'validate' needs the layer %s: install it (package vulkan-validationlayers)",
                         layer_name);
        else
            vk->validation.unknown_caps = caps_unknown_to(found->specVersion);
    }
    hk_free(vk->ctx, layers);
    return st;
}

hk_status hk_validation_prepare(hk_vk *vk, unsigned debug, hk_validation_request *request, VkInstanceCreateInfo *info)
{
    HK_TRY(find_layer(vk));
    vk->validation.on = true;
    *request = (hk_validation_request){.messenger = messenger_info(&vk->validation)};
    uint32_t count = 0;
    request->enables[count++] = VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT;
    if (debug & HK_DEBUG_ISOLATE) {
        /* One buffer per value is what lets the layer's instrumented shaders see an access outside a value. */
        request->enables[count++] = VK_VALIDATION_FEATURE_ENABLE_GPU_ASSISTED_EXT;
        request->enables[count++] = VK_VALIDATION_FEATURE_ENABLE_GPU_ASSISTED_RESERVE_BINDING_SLOT_EXT;
    }
    request->features = (VkValidationFeaturesEXT){
        .sType = VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT,
        .pNext = &request->messenger,
        .enabledValidationFeatureCount = count,
        .pEnabledValidationFeatures = request->enables,
    };
    info->pNext = &request->features;
    info->enabledLayerCount = 1;
    info->ppEnabledLayerNames = &layer_name;
    info->enabledExtensionCount = HK_COUNT(extension_names);
    info->ppEnabledExtensionNames = extension_names;
    return HK_OK;
}

hk_status hk_validation_start(hk_vk *vk)
{
    if (vk->vkCreateDebugUtilsMessengerEXT == NULL || vk->vkDestroyDebugUtilsMessengerEXT == NULL)
        return hk_fail(vk->ctx, HK_STATUS_CONFIG, "debug mode 'validate': the Vulkan loader lacks %s: update it",
                       VK_EXT_DEBUG_UTILS_EXTENSION_NAME);
    VkDebugUtilsMessengerCreateInfoEXT info = messenger_info(&vk->validation);
    VK_TRY(vk, vkCreateDebugUtilsMessengerEXT, vk->instance, &info, NULL, &vk->validation.messenger);
    return HK_OK;
}

void hk_validation_stop(hk_vk *vk)
{
    if (vk->validation.messenger != VK_NULL_HANDLE)
        vk->vkDestroyDebugUtilsMessengerEXT(vk->instance, vk->validation.messenger, NULL);
    vk->validation.messenger = VK_NULL_HANDLE;
}

bool hk_validation_take(hk_validation *v, char *text)
{
    if (!v->on)
        return false;
    pthread_mutex_lock(&v->lock);
    bool taken = v->pending;
    if (taken)
        memcpy(text, v->text, sizeof v->text);
    v->pending = false;
    pthread_mutex_unlock(&v->lock);
    return taken;
}

void hk_validation_name(hk_vk *vk, VkDevice device, VkObjectType type, uint64_t handle, const char *name)
{
    if (!vk->validation.on || vk->vkSetDebugUtilsObjectNameEXT == NULL)
        return;
    VkDebugUtilsObjectNameInfoEXT info = {
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_OBJECT_NAME_INFO_EXT,
        .objectType = type,
        .objectHandle = handle,
        .pObjectName = name,
    };
    /* Outside the seam, and its result unused: a message without a name is still a message. */
    (void)vk->vkSetDebugUtilsObjectNameEXT(device, &info);
}
