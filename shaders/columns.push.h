/* Push block of columns.comp: columns are [planes][taps][blocks], the image [planes][in]; a plane is one channel. */
#include "push.h"
PUSH_BEGIN(columns_push)
ADDRESS(from)
ADDRESS(to)
UINT(count) /* elements of the result */
UINT(in_d)
UINT(in_h)
UINT(in_w)
UINT(out_d)
UINT(out_h)
UINT(out_w)
UINT(pad_d)
UINT(pad_h)
UINT(pad_w)
UINT(magic_d) /* divisions by the extents that a linear index is taken apart with */
UINT(shift_d)
UINT(magic_h)
UINT(shift_h)
UINT(magic_w)
UINT(shift_w)
PUSH_END
