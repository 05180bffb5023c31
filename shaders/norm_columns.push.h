#include "push.h"
/* dscale and dbias: [chunks][extent]. */
PUSH_BEGIN(norm_columns_push)
ADDRESS(dy)
ADDRESS(x)
ADDRESS(mean)
ADDRESS(deviation)
ADDRESS(dscale)
ADDRESS(dbias)
UINT(rows)
UINT(extent)
UINT(chunks)
UINT(chunk)
PUSH_END
