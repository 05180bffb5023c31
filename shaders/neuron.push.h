/* Push block of neuron.comp. */
#include "push.h"
PUSH_BEGIN(neuron_push)
ADDRESS(x)     /* steps x neurons */
ADDRESS(v0)    /* neurons */
ADDRESS(w)     /* 1: ParametricLIF's parameter */
ADDRESS(theta) /* 1 or channels */
ADDRESS(s)     /* steps x neurons */
ADDRESS(v)     /* neurons: the last potential; may be v0 */
ADDRESS(v_seq) /* steps x neurons: the potential after each step */
UINT(lanes)    /* neurons / VEC */
UINT(steps)
UINT(inner)    /* neurons side by side of one channel */
UINT(channels)
FLOAT(rate)
FLOAT(rest)
FLOAT(threshold)
PUSH_END
