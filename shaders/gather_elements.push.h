#include "push.h"
/* table: rank entries {extent, multiplier, shift, stride in x} over the index tensor's dimensions, the innermost first;
 * the axis has stride 0. */
PUSH_BEGIN(gather_elements_push)
ADDRESS(x)
ADDRESS(indices)
ADDRESS(y)
ADDRESS(table)
UINT(count)
UINT(rank)
UINT(extent)
UINT(stride)
PUSH_END
