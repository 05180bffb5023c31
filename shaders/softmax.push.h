#include "push.h"
/* x and y are [rows / inner][extent][inner]; a row runs over extent. */
PUSH_BEGIN(softmax_push)
ADDRESS(x)
ADDRESS(y)
UINT(rows)
UINT(extent)
UINT(inner)
PUSH_END
