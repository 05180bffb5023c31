/* Push block of batchnorm_nhwc.comp and batchnorm_nhwc_grad.comp: x and all of its kind in HK_LAYOUT_NHWC8. */
#include "push.h"
PUSH_BEGIN(batchnorm_nhwc_push)
ADDRESS(x)
ADDRESS(y)      /* behind the activation; in the gradient dY */
ADDRESS(to)     /* partial results, [chunks][channels] or two planes of that; in the gradient's second pass dX */
ADDRESS(affine) /* [channels] of (mean, slope, bias, 0) */
ADDRESS(scale)
ADDRESS(bias)
ADDRESS(mean)
ADDRESS(deviation)
ADDRESS(dscale)
ADDRESS(dbias)
UINT(units)  /* pixels, or with pooling windows, of all images */
UINT(chunk)  /* units of a workgroup */
UINT(chunks)
UINT(octets)
UINT(channels)
UINT(width)  /* with pooling: windows of a row */
UINT(width_magic)
UINT(width_shift)
FLOAT(count) /* elements behind one statistic */
FLOAT(epsilon)
PUSH_END
