/* Push block of conv_gemm.comp. "Source" is what the kernel gathers from: X forward, dY in the data gradient. */
#include "push.h"
PUSH_BEGIN(conv_gemm_push)
ADDRESS(w)
ADDRESS(source)
ADDRESS(result)/* the result, or the partial sums of split-K */
ADDRESS(bias)
ADDRESS(residual)
ADDRESS(table) /* CLASSES: records of 8 words; then of every k its offset in the source, channel << 10 | tap. SCALED: the \
                  scales, [image][channel] */
UINT(m) /* destination channels of one group */
UINT(k) /* source channels of one group times taps */
UINT(groups)
UINT(tiles_m)
UINT(tiles_n)
UINT(splits)
UINT(k_split) /* k range of one split */
UINT(images)
UINT(source_h)
UINT(source_w)
UINT(source_group) /* elements of one group's channels in one image */
UINT(out_h)
UINT(out_w)
UINT(w_row)     /* elements between destination channels in the weight */
UINT(w_channel) /* elements between source channels */
UINT(w_group)   /* elements of one group's weight */
UINT(pads) /* of rows, and of columns << 16 */
FLOAT(alpha)
FLOAT(beta)
PUSH_END
