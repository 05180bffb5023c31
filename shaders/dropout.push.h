#include "push.h"
/* y = x * scale where the element's random word is at least ratio 2^32, else 0. ratio and training may be 0: then
 * push.ratio and push.scale count. A sample has `size` elements; multiplier and shift divide by it. */
PUSH_BEGIN(dropout_push)
ADDRESS(x)
ADDRESS(y)
ADDRESS(mask)
ADDRESS(step)
ADDRESS(ratio_input)
ADDRESS(training)
UINT(count)
UINT(size)
UINT(multiplier)
UINT(shift)
UINT(stream)
FLOAT(ratio)
FLOAT(scale)
PUSH_END
