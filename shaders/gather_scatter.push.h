#include "push.h"
/* table: rank entries {extent, multiplier, shift, index stride, index extent} over the output's dimensions, the
 * innermost first; the axis has index stride 0 and index extent 2^31 - 1. */
PUSH_BEGIN(gather_scatter_push)
ADDRESS(x)
ADDRESS(indices)
ADDRESS(updates)
ADDRESS(y)
ADDRESS(table)
UINT(count)
UINT(rank)
UINT(axis)
UINT(extent)
UINT(entries)
UINT(stride)
PUSH_END
