#include "push.h"
PUSH_BEGIN(selftest_lcg_push)
ADDRESS(x)
UINT(count)
UINT(add)
UINT(rounds)
PUSH_END
