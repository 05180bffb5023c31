#include "push.h"
PUSH_BEGIN(softmax_grad_push)
ADDRESS(dy)
ADDRESS(y)
ADDRESS(dx)
UINT(rows)
UINT(extent)
UINT(inner)
PUSH_END
