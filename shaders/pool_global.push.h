/* Push block of pool_global.comp: rows are the planes (batch times channels) of x. */
#include "push.h"
PUSH_BEGIN(pool_global_push)
ADDRESS(x)
ADDRESS(y)  /* one per row */
ADDRESS(dy) /* the gradients: one per row */
ADDRESS(dx)
UINT(rows)
UINT(plane)
PUSH_END
