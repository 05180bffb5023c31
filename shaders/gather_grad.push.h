#include "push.h"
/* dx[o, a, :] = x[o, a, :] + sum over m with index[m] == a of dy[o, m, :]; `columns` units in a row. A workgroup (or an
 * invocation, of the form without shared memory) takes `block` rows a. */
PUSH_BEGIN(gather_grad_push)
ADDRESS(dy)
ADDRESS(indices)
ADDRESS(x)
ADDRESS(dx)
UINT(count)
UINT(columns)
UINT(chunks)
UINT(chunks_multiplier)
UINT(chunks_shift)
UINT(blocks)
UINT(blocks_multiplier)
UINT(blocks_shift)
UINT(rows)
UINT(block)
UINT(entries)
PUSH_END
