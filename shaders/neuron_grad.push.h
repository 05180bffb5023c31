/* Push block of neuron_grad.comp. g before a name is the gradient with respect to it. */
#include "push.h"
PUSH_BEGIN(neuron_grad_push)
ADDRESS(x)      /* steps x neurons */
ADDRESS(v0)     /* neurons */
ADDRESS(w)      /* 1 */
ADDRESS(theta)  /* 1 or channels */
ADDRESS(gs)     /* steps x neurons */
ADDRESS(gv)     /* neurons */
ADDRESS(gv_seq) /* steps x neurons */
ADDRESS(gx)     /* steps x neurons */
ADDRESS(gv0)    /* neurons */
ADDRESS(sums)   /* to be summed: of theta, lanes or with one per channel neurons; behind them of w, lanes */
ADDRESS(kept)   /* (segments - 1) x neurons: potentials between segments; CPU: steps x neurons: H, may be gx */
UINT(lanes)     /* neurons / VEC */
UINT(steps)
UINT(inner)
UINT(channels)
UINT(width) /* unused without pooling */
FLOAT(rate)
FLOAT(rest)
FLOAT(threshold)
PUSH_END
