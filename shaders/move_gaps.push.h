#include "push.h"
/* table: {first word, words} of each gap. */
PUSH_BEGIN(move_gaps_push)
ADDRESS(to)
ADDRESS(table)
UINT(count)
PUSH_END
