#include "push.h"
/* sums: what batchnorm_sums wrote. dscale, dbias: [channels], written where the node wants them here. */
PUSH_BEGIN(batchnorm_grad_push)
ADDRESS(dy)
ADDRESS(x)
ADDRESS(scale)
ADDRESS(bias)
ADDRESS(mean)
ADDRESS(deviation)
ADDRESS(sums)
ADDRESS(dx)
ADDRESS(dscale)
ADDRESS(dbias)
ADDRESS(geometry)
PUSH_END
