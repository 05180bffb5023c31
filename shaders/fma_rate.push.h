#include "push.h"
/* y gets one number of each invocation, so that the arithmetic is not for nothing. */
PUSH_BEGIN(fma_rate_push)
ADDRESS(y)
UINT(rounds)
FLOAT(factor)
FLOAT(addend)
PUSH_END
