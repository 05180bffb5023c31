/*
 * The Khronos validation layer, when HILLOCK_DEBUG=validate asks for it: its first message since the last look is kept,
 * and fails the call during which it came.
 */
#ifndef HK_VALIDATION_H
#define HK_VALIDATION_H

#include "gpu/entry.h"

/* What vkCreateInstance's parameters point to. */
typedef struct hk_validation_request {
    VkDebugUtilsMessengerCreateInfoEXT messenger;
    VkValidationFeaturesEXT features;
    VkValidationFeatureEnableEXT enables[3];
} hk_validation_request;

/* Adds the layer, its features and the messenger to info, which then points into request.
 * HK_STATUS_CONFIG when the layer is not installed. */
hk_status hk_validation_prepare(hk_vk *vk, unsigned debug, hk_validation_request *request, VkInstanceCreateInfo *info);
/* After vkCreateInstance: listens to everything that follows. */
hk_status hk_validation_start(hk_vk *vk);
void hk_validation_stop(hk_vk *vk);
/* True if there was a message, which is copied (1024 bytes) and forgotten. */
bool hk_validation_take(hk_validation *v, char *text);
/* Names an object for the layer's messages; nothing without validation. type: VK_OBJECT_TYPE_*. */
void hk_validation_name(hk_vk *vk, VkDevice device, VkObjectType type, uint64_t handle, const char *name);

#endif
