#include "push.h"
PUSH_BEGIN(convert_push)
ADDRESS(x)
ADDRESS(y)
UINT(count) /* elements */
PUSH_END
