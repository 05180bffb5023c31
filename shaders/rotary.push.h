/* The push block of shaders/rotary.comp. */
#include "push.h"
PUSH_BEGIN(rotary_push)
ADDRESS(x)
ADDRESS(y)
ADDRESS(cosine)
ADDRESS(sine)
ADDRESS(positions) /* int64 [batch][row], read if POSITIONS */
UINT(rows)
UINT(heads)
UINT(size)    /* elements of a head */
UINT(turned)  /* of them, the first so many are turned, in pairs */
UINT(caches)  /* rows of cosine and sine */
UINT(work)    /* units in all */
PUSH_END
