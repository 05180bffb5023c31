/* Push block of conv_weight.comp. */
#include "push.h"
PUSH_BEGIN(conv_weight_push)
ADDRESS(x)
ADDRESS(dy)
ADDRESS(dw) /* the result, or the partial sums: per split all weights, then all biases */
ADDRESS(db) /* the same for the bias: behind the weights of split 0 when there are splits */
UINT(m)     /* output channels of one group */
UINT(n)     /* input channels of one group times taps */
UINT(groups)
UINT(tiles_m)
UINT(tiles_n)
UINT(splits)
UINT(k)       /* pixels: images times an output plane */
UINT(k_split) /* pixels of one split */
UINT(x_h)
UINT(x_w)
UINT(x_channels) /* all groups */
UINT(y_h)
UINT(y_w)
UINT(pads) /* of rows, and of columns << 16 */
UINT(split_stride) /* elements between the partial sums of two splits */
PUSH_END
