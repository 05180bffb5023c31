/* Push block of det.comp. */
#include "push.h"
PUSH_BEGIN(det_push)
ADDRESS(x)
ADDRESS(work) /* matrices as elimination leaves them */
ADDRESS(y)
UINT(matrices)
UINT(size)
PUSH_END
