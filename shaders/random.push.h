#include "push.h"
PUSH_BEGIN(random_push)
ADDRESS(y)
ADDRESS(step)
UINT(quads)      /* of all samples */
UINT(size)       /* elements of a sample */
UINT(per_sample) /* quads of one, and the division by it */
UINT(multiplier)
UINT(shift)
UINT(stream)
FLOAT(a) /* y = a + b x */
FLOAT(b)
PUSH_END
