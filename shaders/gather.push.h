#include "push.h"
/* y[b, m, j] = x[b * batch_stride + sum over k of index[., k] * stride_k + j]; `inner` units j, `rows` tuples m of each
 * batch b. table: {extent, stride} of every index of a tuple, read only when there are several. */
PUSH_BEGIN(gather_push)
ADDRESS(x)
ADDRESS(indices)
ADDRESS(y)
ADDRESS(table)
UINT(count)
UINT(inner)
UINT(inner_multiplier)
UINT(inner_shift)
UINT(rows)
UINT(rows_multiplier)
UINT(rows_shift)
UINT(batch_stride)
UINT(extent)
UINT(stride)
PUSH_END
