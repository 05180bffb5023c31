#include "push.h"
/* Arrays as ops/support/recurrent.h describes them. sums holds the projections of X on entry. Steps step to
 * step_end - 1 are done; without the persistent variant that is one. */
PUSH_BEGIN(recurrent_push)
ADDRESS(sums)
ADDRESS(r)
ADDRESS(bias)
ADDRESS(h_in)
ADDRESS(h_out)
ADDRESS(c_in)
ADDRESS(c_out)
ADDRESS(y)
ADDRESS(entry)
ADDRESS(extra)
ADDRESS(lengths)
ADDRESS(peephole)
UINT(steps)
UINT(batch)
UINT(hidden)
UINT(step)
UINT(step_end)
PUSH_END
