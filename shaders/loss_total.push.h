#include "push.h"
PUSH_BEGIN(loss_total_push)
ADDRESS(partial)
ADDRESS(loss)
UINT(groups)
PUSH_END
