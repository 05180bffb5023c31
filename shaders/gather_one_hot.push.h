#include "push.h"
/* y[o, d, j] = values[index[o, j] == d ? 1 : 0] */
PUSH_BEGIN(gather_one_hot_push)
ADDRESS(indices)
ADDRESS(values)
ADDRESS(y)
UINT(count)
UINT(inner)
UINT(inner_multiplier)
UINT(inner_shift)
UINT(depth)
UINT(depth_multiplier)
UINT(depth_shift)
PUSH_END
