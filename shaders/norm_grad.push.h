#include "push.h"
PUSH_BEGIN(norm_grad_push)
ADDRESS(dy)
ADDRESS(x)
ADDRESS(scale)
ADDRESS(mean)
ADDRESS(deviation)
ADDRESS(dx)
UINT(rows)
UINT(extent)
PUSH_END
