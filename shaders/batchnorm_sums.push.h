#include "push.h"
/* sums: two planes [chunks][channels], the gradient's sum and that of gradient * normalized x. */
PUSH_BEGIN(batchnorm_sums_push)
ADDRESS(dy)
ADDRESS(x)
ADDRESS(scale)
ADDRESS(bias)
ADDRESS(mean)
ADDRESS(deviation)
ADDRESS(sums)
ADDRESS(geometry)
PUSH_END
