/* Push block of relayout.comp. */
#include "push.h"
PUSH_BEGIN(relayout_push)
ADDRESS(plain) /* (images, channels, plane), float32 */
ADDRESS(packed) /* (images, plane, octets * 8), float32 or float16 */
UINT(pixels)   /* images * plane */
UINT(channels)
UINT(octets)   /* of channels, the last one padded with zeros */
UINT(plane)
UINT(plane_magic)
UINT(plane_shift)
PUSH_END
