/* Push block of conv_sum.comp. */
#include "push.h"
PUSH_BEGIN(conv_sum_push)
ADDRESS(partial) /* splits x (count + bias_count); with TAPS rows of octets of channels, a row for each tap of an output */
ADDRESS(y)       /* count */
ADDRESS(bias_y)  /* bias_count */
ADDRESS(bias)
ADDRESS(residual)
UINT(splits)
UINT(count)
UINT(bias_count)
UINT(channels)
UINT(plane_magic) /* division by the elements of one channel of y; with TAPS by the channels of one output's weights */
UINT(plane_shift)
UINT(stride)     /* elements of partial between two splits */
UINT(row)        /* with TAPS: elements of an output's weights in partial, */
UINT(bias_first) /* and where the biases begin */
FLOAT(alpha)
FLOAT(beta)
PUSH_END
