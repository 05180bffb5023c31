#include "push.h"
/* table: {extent, row stride} of every index of a tuple; `rows` tuples of each batch, whose rows begin batch_stride
 * apart. */
PUSH_BEGIN(gather_rows_push)
ADDRESS(indices)
ADDRESS(rows_out)
ADDRESS(table)
UINT(count)
UINT(depth)
UINT(rows)
UINT(rows_multiplier)
UINT(rows_shift)
UINT(batch_stride)
PUSH_END
