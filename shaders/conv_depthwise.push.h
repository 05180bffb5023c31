/* Push block of conv_depthwise.comp. */
#include "push.h"
PUSH_BEGIN(conv_depthwise_push)
ADDRESS(w)
ADDRESS(x)
ADDRESS(y)
ADDRESS(bias)
ADDRESS(residual)
UINT(count)      /* invocations: planes of Y times strips times y_w */
UINT(channels)   /* of Y */
UINT(multiplier) /* channels of Y for each of X */
UINT(strips)     /* of ROWS rows in a plane of Y, the last one perhaps ragged */
UINT(x_h)
UINT(x_w)
UINT(y_h)
UINT(y_w)
UINT(pads)        /* of rows, and of columns << 16 */
UINT(width_magic) /* divisors: y_w, strips, channels, multiplier */
UINT(width_shift)
UINT(strips_magic)
UINT(strips_shift)
UINT(channels_magic)
UINT(channels_shift)
UINT(multiplier_magic)
UINT(multiplier_shift)
FLOAT(alpha)
FLOAT(beta)
PUSH_END
