/* What a user's first program does, from an installed prefix: no Vulkan or protobuf header in sight. */
#include <hillock/hillock.h>
#include <stdio.h>

int main(void)
{
    hk_context *ctx = NULL;
    size_t count = 0;
    if (hk_context_create(NULL, &ctx) != HK_OK || hk_device_list(ctx, NULL, 0, &count) != HK_OK)
        return 1;
    printf("hillock %s, %u device(s)\n", hk_version(), (unsigned)count);
    hk_context_destroy(&ctx);
    return 0;
}
