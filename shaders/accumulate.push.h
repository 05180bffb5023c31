#include "push.h"
PUSH_BEGIN(accumulate_push)
ADDRESS(sum)
ADDRESS(gradients)
ADDRESS(new_sum)
ADDRESS(step)
UINT(count)
PUSH_END
