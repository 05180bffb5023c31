/* Push block of grid_sample.comp. A place is a position of the output (or of the grid), a plane one channel of x. */
#include "push.h"
PUSH_BEGIN(grid_sample_push)
ADDRESS(x)
ADDRESS(grid)
ADDRESS(dy)     /* the gradient's */
ADDRESS(y)      /* result: y, dgrid, or the indices of taps */
ADDRESS(weight) /* of taps */
UINT(count)     /* invocations with work */
UINT(channels)
UINT(chunks)    /* of channels, one an invocation */
UINT(places)
UINT(in_d)
UINT(in_h)
UINT(in_w)
UINT(magic_places)
UINT(shift_places)
UINT(magic_chunks)
UINT(shift_chunks)
PUSH_END
