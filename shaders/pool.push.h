/* Push block of pool.comp and pool_grad.comp: one plane is one channel of one image. */
#include "push.h"
PUSH_BEGIN(pool_push)
ADDRESS(from)    /* X; in the gradient dY */
ADDRESS(to)      /* Y; in the gradient dX */
ADDRESS(indices) /* of maxima, as ONNX counts: elements of X from its start */
UINT(count)      /* invocations with work */
UINT(in_d)
UINT(in_h)
UINT(in_w)
UINT(out_d)
UINT(out_h)
UINT(out_w)
UINT(pad_d)
UINT(pad_h)
UINT(pad_w)
UINT(limit_d) /* where positions that count towards an average end; they begin at -pad or at 0 */
UINT(limit_h)
UINT(limit_w)
UINT(magic_d) /* divisions by the extents that a linear index is taken apart with */
UINT(shift_d)
UINT(magic_h)
UINT(shift_h)
UINT(magic_w)
UINT(shift_w)
PUSH_END
