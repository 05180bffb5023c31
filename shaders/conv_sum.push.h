/* Push block of conv_sum.comp. */
#include "push.h"
PUSH_BEGIN(conv_sum_push)
ADDRESS(partial) /* splits x (count + bias_count) */
ADDRESS(y)       /* count */
ADDRESS(bias_y)  /* bias_count */
ADDRESS(bias)
ADDRESS(residual)
UINT(splits)
UINT(count)
UINT(bias_count)
UINT(channels)
UINT(plane_magic) /* division by the elements of one channel of y */
UINT(plane_shift)
FLOAT(alpha)
FLOAT(beta)
PUSH_END
