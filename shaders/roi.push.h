/* Push block of the RoI kernels. */
#include "push.h"
PUSH_BEGIN(roi_push)
ADDRESS(x)     /* in the gradient dY */
ADDRESS(rois)
ADDRESS(batch) /* image of each RoI; MaxRoiPool has it in rois */
ADDRESS(y)     /* in the gradient dX */
ADDRESS(rows)  /* gradient: weights [roi][out_h][in_h] */
ADDRESS(columns) /* and [roi][out_w][in_w] */
UINT(count)    /* invocations with work */
UINT(regions)
UINT(channels)
UINT(chunks)   /* of channels, one an invocation */
UINT(images)
UINT(in_h)
UINT(in_w)
UINT(out_h)
UINT(out_w)
INT(samples)   /* along each axis of a bin; 0: as many as the bin has elements */
FLOAT(scale)
FLOAT(shift)   /* of the corners, after scaling */
PUSH_END
