#include "push.h"
/* table: rank entries {extent, multiplier, shift, from stride, to stride} of five words, the innermost first. */
PUSH_BEGIN(move_block_push)
ADDRESS(from)
ADDRESS(to)
ADDRESS(table)
UINT(count)
UINT(rank)
UINT(from_base)
UINT(to_base)
PUSH_END
