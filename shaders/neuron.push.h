/* Push block of neuron.comp. */
#include "push.h"
PUSH_BEGIN(neuron_push)
ADDRESS(x)     /* steps x neurons */
ADDRESS(norm)  /* channels: (mean, slope, bias, -), the input is (x - mean) slope + bias */
ADDRESS(v0)    /* neurons */
ADDRESS(w)     /* 1: ParametricLIF's parameter */
ADDRESS(theta) /* 1 or channels */
ADDRESS(s)     /* steps x neurons; pooled: a quarter of them */
ADDRESS(v)     /* neurons: the last potential; may be v0 */
ADDRESS(v_seq) /* steps x neurons: the potential after each step */
UINT(lanes)    /* neurons / VEC */
UINT(steps)
UINT(inner)    /* neurons, pooled: windows, side by side of one channel */
UINT(channels)
UINT(width)    /* pooled: windows in a row */
FLOAT(rate)
FLOAT(rest)
FLOAT(threshold)
PUSH_END
