/* Push block of conv_weight_rows.comp. */
#include "push.h"
PUSH_BEGIN(conv_weight_rows_push)
ADDRESS(x)
ADDRESS(dy)
ADDRESS(dw) /* the result, or the partial sums: per split all weights, then all biases */
ADDRESS(db) /* the same for the bias: behind the weights of split 0 when there are splits */
UINT(m)        /* output channels of one group */
UINT(channels) /* input channels of one group */
UINT(groups)
UINT(blocks) /* of OC channels in one group */
UINT(splits)
UINT(k)       /* pixels: images times an output plane */
UINT(k_split) /* pixels of one split */
UINT(x_d)
UINT(x_h)
UINT(x_w)
UINT(y_d)
UINT(y_h)
UINT(y_w)
UINT(pad_d)
UINT(pad_h)
UINT(pad_w)
UINT(split_stride) /* elements between the partial sums of two splits */
PUSH_END
