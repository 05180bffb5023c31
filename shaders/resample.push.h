/* Push block of resample.comp: x and y are [outer][d][h][w][inner]. */
#include "push.h"
PUSH_BEGIN(resample_push)
ADDRESS(x)
ADDRESS(y)
ADDRESS(table) /* {index, weight} of every tap of every output coordinate, axis by axis */
UINT(count)    /* invocations with work */
UINT(in_d)
UINT(in_h)
UINT(in_w)
UINT(out_d)
UINT(out_h)
UINT(out_w)   /* outputs along w, in units of an invocation */
UINT(inner)   /* in units of an invocation */
UINT(table_h) /* where the tables of h and w begin, in entries; d's is first */
UINT(table_w)
UINT(magic_d)
UINT(shift_d)
UINT(magic_h)
UINT(shift_h)
UINT(magic_w)
UINT(shift_w)
UINT(magic_inner)
UINT(shift_inner)
FLOAT(outside)
PUSH_END
