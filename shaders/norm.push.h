#include "push.h"
/* Rows of `extent` elements; scale and bias have as many, mean and deviation (1 / standard deviation) one per row. */
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
