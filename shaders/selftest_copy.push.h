#include "push.h"
PUSH_BEGIN(selftest_copy_push)
ADDRESS(x)
ADDRESS(y)
UINT(count4)
FLOAT(scale)
PUSH_END
