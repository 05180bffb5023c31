/* Push block of the convolutions in HK_LAYOUT_NHWC8. Octets are eight channels of HK_LAYOUT_NHWC8. */
#include "push.h"
PUSH_BEGIN(conv_nhwc_push)
ADDRESS(x)
ADDRESS(w) /* (outputs, taps, octets_in * 8) */
ADDRESS(y) /* or the partial sums of splits, (split, pixel, octets_out * 8) in float32 */
ADDRESS(bias) /* float32 */
ADDRESS(residual)
ADDRESS(scale) /* of channels of x, (image, octets_in * 8) in float32; data gradient: the gate, as y lies */
ADDRESS(table) /* matrix kernel: of every octet of k its offset in x, in octets, and row << 5 | column of its tap; depthwise
                  kernel: sums of y's rows, (image, y_h, octets_out * 8) in float32 */
UINT(outputs) /* channels of y */
UINT(octets_in)
UINT(octets_out)
UINT(pixels) /* of y, all images */
UINT(images)
UINT(x_h)
UINT(x_w)
UINT(y_h)
UINT(y_w)
UINT(splits) /* matrix kernel: of the sum over k, */
UINT(k_split) /* each so many of its elements */
UINT(pads) /* of rows, and of columns << 16 */
UINT(scale_octets) /* between an image's scales and the next one's: octets_in, or 0 where all share them */
FLOAT(alpha)
FLOAT(beta)
PUSH_END
