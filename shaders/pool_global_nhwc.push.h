/* Push block of pool_global_nhwc.comp. */
#include "push.h"
PUSH_BEGIN(pool_global_nhwc_push)
ADDRESS(x) /* (images, plane, octets * 8) */
ADDRESS(y) /* (images, channels), float32 */
UINT(images)
UINT(plane)
UINT(octets)
UINT(channels)
PUSH_END
