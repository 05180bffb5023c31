#include "push.h"
/* x is [outer][extent][inner]; y is int64 [outer][inner], written as words. */
PUSH_BEGIN(reduce_arg_push)
ADDRESS(x)
ADDRESS(y)
UINT(outputs)
UINT(extent)
UINT(inner)
PUSH_END
