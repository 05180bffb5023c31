/* Push block of conv_channels.comp. */
#include "push.h"
PUSH_BEGIN(conv_channels_push)
ADDRESS(x)
ADDRESS(y) /* splits x channels */
UINT(channels)
UINT(plane)       /* elements of one channel of one image */
UINT(per_channel) /* elements of one channel of all images */
UINT(chunk)       /* of those, in one split */
UINT(groups)      /* splits x channels */
UINT(plane_magic)
UINT(plane_shift)
PUSH_END
