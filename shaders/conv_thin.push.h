/* Push block of conv_thin.comp. */
#include "push.h"
PUSH_BEGIN(conv_thin_push)
ADDRESS(w)
ADDRESS(x)
ADDRESS(y)
ADDRESS(bias)
ADDRESS(residual)
UINT(m) /* output channels */
UINT(blocks) /* of OC output channels */
UINT(columns) /* pixels of y of all images */
UINT(x_h)
UINT(x_w)
UINT(y_h)
UINT(y_w)
UINT(pads) /* of rows, and of columns << 16 */
FLOAT(alpha)
FLOAT(beta)
PUSH_END
