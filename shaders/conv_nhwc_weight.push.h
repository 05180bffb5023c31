/* Push block of conv_nhwc_weight_matrix.comp. Octets are eight channels of HK_LAYOUT_NHWC8. */
#include "push.h"
PUSH_BEGIN(conv_nhwc_weight_push)
ADDRESS(x)
ADDRESS(dy)
ADDRESS(dw) /* (split, outputs, taps, octets_in * 8), the biases of a split behind its weights */
ADDRESS(db) /* of split 0 */
UINT(outputs)
UINT(octets_out)
UINT(octets_in)
UINT(tiles_m)
UINT(tiles_n)
UINT(splits)
UINT(pixels)  /* of dY, all images */
UINT(k_split) /* pixels of one split */
UINT(x_h)
UINT(x_w)
UINT(y_h)
UINT(y_w)
UINT(pads) /* of rows, and of columns << 16 */
UINT(split_stride) /* elements between the sums of two splits */
UINT(line_magic) /* division by y_w */
UINT(line_shift)
UINT(image_magic) /* and by y_h */
UINT(image_shift)
PUSH_END
