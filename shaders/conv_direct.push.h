/* Push block of conv_direct.comp. "Source" is what the kernel gathers from: X forward, dY in the data gradient. */
#include "push.h"
PUSH_BEGIN(conv_direct_push)
ADDRESS(w)
ADDRESS(source)
ADDRESS(result)
ADDRESS(bias)
ADDRESS(residual)
ADDRESS(scale) /* [image][source channel], one group */
UINT(m)        /* destination channels of one group */
UINT(channels) /* source channels of one group */
UINT(groups)
UINT(blocks)  /* of OC channels, in all groups */
UINT(columns) /* destination pixels of all images */
UINT(source_d)
UINT(source_h)
UINT(source_w)
UINT(out_d)
UINT(out_h)
UINT(out_w)
UINT(pad_d)
UINT(pad_h)
UINT(pad_w)
UINT(w_row)     /* elements between destination channels in the weight */
UINT(w_channel) /* elements between source channels */
UINT(w_group)   /* elements of one group's weight */
FLOAT(alpha)
FLOAT(beta)
PUSH_END
