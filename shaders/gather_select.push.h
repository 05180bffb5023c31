#include "push.h"
/* y[r, j] = last[r] == 0 ? x[r, j] : updates[last[r] - 1, j]; `inner` units j. */
PUSH_BEGIN(gather_select_push)
ADDRESS(x)
ADDRESS(updates)
ADDRESS(last)
ADDRESS(y)
UINT(count)
UINT(inner)
UINT(inner_multiplier)
UINT(inner_shift)
PUSH_END
