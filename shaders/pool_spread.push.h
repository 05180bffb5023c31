/* Push block of pool_spread.comp. */
#include "push.h"
PUSH_BEGIN(pool_spread_push)
ADDRESS(dy) /* one per plane */
ADDRESS(dx)
UINT(count) /* vectors of WIDTH elements in dx */
UINT(plane_magic) /* division by vectors in a plane */
UINT(plane_shift)
FLOAT(scale)
PUSH_END
