#include "push.h"
/* mean and variance: given statistics, or the running ones of training (then *_out are the new ones). partial is what
 * batchnorm_stats wrote. saved_*: statistics of this batch, [stat_rows]. */
PUSH_BEGIN(batchnorm_push)
ADDRESS(x)
ADDRESS(y)
ADDRESS(scale)
ADDRESS(bias)
ADDRESS(partial)
ADDRESS(mean)
ADDRESS(variance)
ADDRESS(mean_out)
ADDRESS(variance_out)
ADDRESS(saved_mean)
ADDRESS(saved_deviation)
ADDRESS(affine)
ADDRESS(geometry)
PUSH_END
