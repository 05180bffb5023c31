#include "push.h"
/* to[i] = words[i & mask], i < count 32-bit words. */
PUSH_BEGIN(move_literal_push)
ADDRESS(to)
ADDRESS(words)
UINT(count)
UINT(mask)
PUSH_END
