#include "push.h"
/* partial: [chunks][channels] of (mean, sum of squared differences from it, elements, unused). */
PUSH_BEGIN(batchnorm_stats_push)
ADDRESS(x)
ADDRESS(partial)
ADDRESS(geometry)
PUSH_END
