#include "push.h"
/* Rows of `extent` elements; scale and bias have `extent` elements, mean and deviation (1 / standard deviation) `rows`. */
PUSH_BEGIN(norm_push)
ADDRESS(x)
ADDRESS(scale)
ADDRESS(bias)
ADDRESS(y)
ADDRESS(mean)
ADDRESS(deviation)
UINT(rows)
UINT(extent)
FLOAT(epsilon)
PUSH_END
